//! Small calls beside large or long ones: whether these keep those waiting.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Connection, Expected, Target, blob, call, echo, paced};

const TABLE: &str = "Small calls, 50/s, beside others";
const RATE: u32 = 50;

/// What goes on beside them.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Blobs { callers: u64, bytes: usize },
    Sleep,
}

const CASES: [(&str, Beside, bool); 5] = [
    ("alone", Beside::Nothing, false),
    ("a loop of 10 MiB answers, same server", Beside::Blobs { callers: 1, bytes: 10 << 20 }, false),
    ("a loop of 10 MiB answers, another server", Beside::Blobs { callers: 1, bytes: 10 << 20 }, true),
    ("four loops of 1 MiB answers, same server", Beside::Blobs { callers: 4, bytes: 1 << 20 }, false),
    ("a call of 5 s, same server", Beside::Sleep, false),
];

/// Measures the small calls' latency.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let contenders = bench.pair(&Setup { servers: 2, ..Setup::default() }).await?;
    for (what, beside, elsewhere) in CASES {
        for _ in 0..if bench.quick { 1 } else { bench.rounds } {
            // The floor knows no second server.
            for contender in contenders.iter().filter(|contender| !elsewhere || contender.name != "floor") {
                turn(bench, contender, what, beside, elsewhere).await?;
            }
        }
    }
    bench.show(TABLE);
    Ok(())
}

async fn turn(bench: &mut Bench, contender: &Contender, what: &str, beside: Beside, elsewhere: bool) -> io::Result<()> {
    let large = if elsewhere { contender.prefix.replace("bench", "bench2") } else { contender.prefix.clone() };
    let mut others = Vec::new();
    match beside {
        Beside::Nothing => {}
        Beside::Blobs { callers, bytes } => {
            for caller in 0..callers {
                others.push(spawn_local(blobs(Rc::clone(&contender.target), large.clone(), caller, bytes)));
            }
        }
        Beside::Sleep => {
            let target = Rc::clone(&contender.target);
            others.push(spawn_local(async move {
                let done = Expected::Text(b"done".to_vec(), 9_000_000_000);
                let long = call(9_000_000_000, &format!("{large}sleep"), r#"{"ms":5000}"#, done);
                Ok(Connection::open(&target).await?.does(&long).await)
            }));
        }
    }
    sleep(Duration::from_millis(100)).await;
    let prefix = contender.prefix.clone();
    let mut outcome =
        paced(&contender.target, RATE, bench.turn.max(Duration::from_secs(2)), move |id| echo(id, &prefix)).await?;
    bench.report.add(
        TABLE,
        &format!("{what}: p50"),
        "ms",
        &contender.name,
        outcome.quantile(0.5) / 1000.0,
        outcome.failed,
    );
    bench.report.add(TABLE, &format!("{what}: p99"), "ms", &contender.name, outcome.quantile(0.99) / 1000.0, 0);
    for other in others {
        other.abort();
        // Its connection is closed, so that what was under way does not meet the next turn.
        drop(other.await);
    }
    sleep(Duration::from_millis(200)).await;
    Ok(())
}

async fn blobs(target: Rc<Target>, prefix: String, caller: u64, bytes: usize) -> io::Result<bool> {
    let mut connection = Connection::open(&target).await?;
    let mut good = true;
    for number in 0.. {
        good &= connection.does(&blob(5_000_000_000 + caller * 1_000_000 + number, &prefix, bytes)).await;
    }
    Ok(good)
}
