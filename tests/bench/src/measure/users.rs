//! The same load from one user, from some and from many, each with an agent: what it costs that callers are several people.

use std::io;

use super::Bench;
use crate::contender::Crowd;
use crate::load::{echo, shared};
use crate::process::cpu;

const TABLE: &str = "Small calls of several users";
const CALLERS: u64 = 64;
/// How many there are, and have their agents connected, however many of them call.
const USERS: usize = 64;

/// Measures the program alone: the floor knows no users.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let mut crowds = Vec::new();
    for (name, program) in bench.programs.clone() {
        let mut crowd = Crowd::new(&program, USERS, 1).await?;
        crowd.gather(USERS)?;
        crowd.until_up(USERS).await?;
        let clients = crowd.clients().await?;
        crowds.push((name, crowd, clients));
    }
    for _ in 0..bench.rounds {
        for users in [1, 8, USERS] {
            for (name, crowd, clients) in &crowds {
                let before = cpu(crowd.relay());
                let make = |id| echo(id, "bench__");
                let mut outcome = shared(&clients[..users], CALLERS, bench.turn, make).await?;
                let used = cpu(crowd.relay()).saturating_sub(before).as_secs_f64();
                #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
                let each = used / outcome.took.len().max(1) as f64;
                let mut add = |what: &str, unit, value, failed| {
                    let what = format!("{CALLERS} callers, as {users} of {USERS} users: {what}");
                    bench.report.add(TABLE, &what, unit, name, value, failed);
                };
                add("rate", "calls/s", outcome.per_second(), outcome.failed);
                add("p50", "µs", outcome.quantile(0.5), 0);
                add("p99", "µs", outcome.quantile(0.99), 0);
                add("CPU of the relay", "s per 10 000", each * 10_000.0, 0);
            }
        }
    }
    bench.show(TABLE);
    Ok(())
}
