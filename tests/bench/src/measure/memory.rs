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

/// Measures fresh processes, then calls [`CALLS`] times.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    for (name, program) in bench.programs.clone() {
        let relay = Contender::relay(&name, &program).await?;
        sleep(FRESH).await;
        told(bench, &relay, "just started");
    }
    for contender in bench.pair(&Setup::default()).await? {
        sleep(FRESH).await;
        told(bench, &contender, "fresh, with a client and an agent");
        let (begin, mut done) = (Instant::now(), 0);
        while done < CALLS && begin.elapsed() < Duration::from_secs(60) {
            let prefix = contender.prefix.clone();
            let outcome =
                closed(&contender.target, 64, Duration::from_millis(200), move |id| echo(id, &prefix)).await?;
            done += outcome.took.len();
        }
        told(bench, &contender, "after 40 000 calls");
    }
    bench.show(TABLE);
    Ok(())
}

fn told(bench: &mut Bench, contender: &Contender, when: &str) {
    for (part, process) in &contender.parts {
        for (kind, kib) in [("", resident(process.pid())), (", its own", anonymous(process.pid()))] {
            #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
            let mib = kib as f64 / 1024.0;
            bench.report.add(TABLE, &format!("{part}, {when}{kind}"), "MiB", &contender.name, mib, 0);
        }
    }
}
