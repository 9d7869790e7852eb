//! Small calls: how long one takes, how many there are in a second, what they cost the processes.

use std::collections::BTreeMap;
use std::io;
use std::process;
use std::time::Duration;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{closed, echo};
use crate::process::cpu;

const TABLE: &str = "Small calls";

/// Measures 1, 16, 64 and 256 callers.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let contenders = bench.all(&Setup::default()).await?;
    for contender in &contenders {
        turn(contender, 16, bench.turn / 2).await?;
    }
    for callers in [1, 16, 64, 256] {
        // One caller is answered in half the time or twice, by where the system puts the processes for a turn: its median
        // is of more turns, as much shorter.
        let pieces = if callers == 1 { 4_u16 } else { 1 };
        for _ in 0..bench.rounds * usize::from(pieces) {
            for contender in &contenders {
                let (mut outcome, used) = turn(contender, callers, bench.turn / pieces.into()).await?;
                let mut add = |what: &str, unit, value, failed| {
                    bench.report.add(
                        TABLE,
                        &format!("{callers} callers, {what}"),
                        unit,
                        &contender.name,
                        value,
                        failed,
                    );
                };
                add("p50", "µs", outcome.quantile(0.5), outcome.failed);
                add("p99", "µs", outcome.quantile(0.99), 0);
                add("rate", "calls/s", outcome.per_second(), 0);
                #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
                let per = 10_000.0 / outcome.took.len().max(1) as f64;
                for (part, time) in used {
                    add(&format!("CPU of the {part}"), "s per 10 000", time.as_secs_f64() * per, 0);
                }
            }
        }
    }
    bench.show(TABLE);
    Ok(())
}

async fn turn(
    contender: &Contender,
    callers: u64,
    time: Duration,
) -> io::Result<(crate::load::Outcome, BTreeMap<&'static str, Duration>)> {
    let parts = contender.parts.iter().map(|(part, process)| (*part, process.pid()));
    // The load's too: where that is a whole core's, it is what is measured.
    let before: Vec<_> = parts.chain([("load", process::id())]).map(|(part, pid)| (part, pid, cpu(pid))).collect();
    let prefix = contender.prefix.clone();
    let outcome = closed(&contender.target, callers, time, move |id| echo(id, &prefix)).await?;
    let used = before.into_iter().map(|(part, pid, before)| (part, cpu(pid).saturating_sub(before))).collect();
    Ok((outcome, used))
}
