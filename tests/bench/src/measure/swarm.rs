//! Many agents that wait: what each costs the relay, how fast they come, and how they come back after a restart.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tunnel_core::limits;

use super::Bench;
use crate::contender::Crowd;
use crate::process::{cpu, resident};
use crate::role::swarm::DEVICES;

const TABLE: &str = "Many agents";
/// How long after the last has come what they take is looked at.
const SETTLED: Duration = Duration::from_secs(2);
/// How long the most of them are watched while they wait: an interval of pings, in which each has one.
const IDLE: Duration = limits::PING_INTERVAL;
/// The same where there is little time, and none of them has a ping.
const QUICK_IDLE: Duration = Duration::from_secs(2);
/// So many are there when the relay restarts.
const RESTARTED: usize = 1_000;

/// Measures 1 000, 5 000 and 10 000 agents.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let counts: &[usize] = if bench.quick { &[1_000] } else { &[1_000, 5_000, 10_000] };
    let (idle, pings) = if bench.quick { (QUICK_IDLE, "without its pings") } else { (IDLE, "its pings included") };
    for (name, program) in bench.programs.clone() {
        for &agents in counts {
            let mut crowd = Crowd::new(&program, agents, DEVICES).await?;
            let (fresh, before) = (resident(crowd.relay()), cpu(crowd.relay()));
            crowd.gather(agents)?;
            crowd.until_up(agents).await?;
            let used = cpu(crowd.relay()).saturating_sub(before);
            let up = crowd.told("up")?;
            sleep(SETTLED).await;
            let more = resident(crowd.relay()).saturating_sub(fresh);
            let first = up.first().copied().unwrap_or_default();
            let took = Duration::from_micros(up.last().copied().unwrap_or_default().saturating_sub(first));
            #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
            let (each, more) = (agents as f64, more as f64 * 1.024);
            let mut add = |what: &str, unit, value, failed| {
                bench.report.add(TABLE, &format!("{agents} agents: {what}"), unit, &name, value, failed);
            };
            add("memory each", "kB", more / each, 0);
            add("connects", "per s", each / took.as_secs_f64(), 0);
            add("CPU of a connect", "µs", used.as_secs_f64() * 1e6 / each, 0);
            if counts.last() == Some(&agents) {
                let before = cpu(crowd.relay());
                sleep(idle).await;
                let used = cpu(crowd.relay()).saturating_sub(before);
                let used = used.as_secs_f64() * 1e6 / each / idle.as_secs_f64();
                // Whoever had to come again was lost.
                let lost = crowd.told("try")?.len() as u64;
                add(&format!("CPU of one that waits, {pings}"), "µs per s", used, lost);
            }
            if agents == RESTARTED {
                restart(bench, &name, &mut crowd).await?;
            }
        }
    }
    bench.show(TABLE);
    Ok(())
}

async fn restart(bench: &mut Bench, name: &str, crowd: &mut Crowd) -> io::Result<()> {
    let known = crowd.told("up")?.len();
    let start = Instant::now();
    crowd.restart().await?;
    crowd.until_up(known + RESTARTED).await?;
    let all = start.elapsed();
    let (back, tries) = (crowd.told("up")?.split_off(known), crowd.told("try")?);
    let begin = tries.first().copied().unwrap_or_default();
    let share = |of: &[u64], hundredths: usize| {
        let at = of.get(of.len() * hundredths / 100).copied().unwrap_or_default();
        Duration::from_micros(at.saturating_sub(begin)).as_secs_f64() * 1000.0
    };
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    let attempts = tries.len() as f64 / RESTARTED as f64;
    let mut add = |what: &str, unit, value| {
        bench.report.add(TABLE, &format!("{RESTARTED} agents, relay restarted: {what}"), unit, name, value, 0);
    };
    add("all back", "ms", all.as_secs_f64() * 1000.0);
    add("half back", "ms", share(&back, 50));
    add("attempts, each", "", attempts);
    add("a tenth had tried", "ms", share(&tries, 10));
    add("nine tenths had tried", "ms", share(&tries, 90));
    Ok(())
}
