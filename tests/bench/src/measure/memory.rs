//! What the processes have resident when they are fresh and after many calls.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{closed, echo};
use crate::process::{anonymous, resident};

const TABLE: &str = "Memory";
const CALLS: usize = 40_000;
/// How old what is fresh is.
const FRESH: Duration = Duration::from_secs(1);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures fresh processes, then calls [`CALLS`] times; with new ones in each round.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    for _ in 0..if bench.quick { 1 } else { bench.rounds } {
        for (name, program) in bench.programs.clone() {
            let relay = Contender::relay(&name, &program).await?;
            sleep(FRESH).await;
            told(bench, &relay, "just started", 0);
        }
        let contenders = bench.pair(&Setup::default()).await?;
        sleep(FRESH).await;
        for contender in &contenders {
            told(bench, contender, "fresh, with a client and an agent", 0);
        }
        for contender in &contenders {
            let failed = call(contender).await?;
            told(bench, contender, "after 40 000 calls", failed);
        }
    }
    bench.show(TABLE);
    Ok(())
}

/// Calls until [`CALLS`] were answered; how many were not answered as they must be.
async fn call(contender: &Contender) -> io::Result<u64> {
    let (begin, mut done, mut failed) = (Instant::now(), 0, 0);
    while done < CALLS {
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("{}: only {done} calls are answered", contender.name)));
        }
        let prefix = contender.prefix.clone();
        let outcome = closed(&contender.target, 64, Duration::from_millis(200), move |id| echo(id, &prefix)).await?;
        done += outcome.took.len();
        failed += outcome.failed;
    }
    Ok(failed)
}

fn told(bench: &mut Bench, contender: &Contender, when: &str, failed: u64) {
    for (part, process) in &contender.parts {
        for (kind, kib) in [("", resident(process.pid())), (", its own", anonymous(process.pid()))] {
            #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
            let mib = kib as f64 / 1024.0;
            bench.report.add(TABLE, &format!("{part}, {when}{kind}"), "MiB", &contender.name, mib, failed);
        }
    }
}
