//! Small calls beside large or long ones: whether these keep those waiting.

use std::io;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::sleep;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Call, Expected, blob, call, closed, echo, paced};

const TABLE: &str = "Small calls, 50/s, beside others";
const RATE: u32 = 50;
/// How long a turn is.
const TIME: Duration = Duration::from_secs(2);
/// How long it is beside a call of 5 s, which it lies within.
const LONG: Duration = Duration::from_secs(4);
/// How long the others are under way when the first small call comes.
const AHEAD: Duration = Duration::from_millis(100);
/// Where the ids of the others begin: they can be of the same session.
const OTHERS: u64 = 5_000_000_000;
/// So many cases are measured when there is little time.
const QUICK: usize = 3;

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

impl Beside {
    fn callers(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Blobs { callers, .. } => callers,
            Self::Sleep => 1,
        }
    }

    fn call(self, id: u64, prefix: &str) -> Call {
        match self {
            Self::Blobs { bytes, .. } => blob(id, prefix, bytes),
            Self::Nothing | Self::Sleep => {
                call(id, &format!("{prefix}sleep"), r#"{"ms":5000}"#, Expected::Text(b"done".to_vec(), id))
            }
        }
    }
}

/// Measures the small calls' latency, and how much of the others is answered meanwhile.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let contenders = bench.pair(&Setup { servers: 2, ..Setup::default() }).await?;
    for (what, beside, elsewhere) in CASES.into_iter().take(if bench.quick { QUICK } else { CASES.len() }) {
        let is_long = matches!(beside, Beside::Sleep);
        for _ in 0..if bench.quick || is_long { 1 } else { bench.rounds } {
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
    let time = match beside {
        Beside::Sleep => LONG,
        _ if bench.quick => TIME * 3 / 4,
        _ => TIME,
    };
    let large = if elsewhere { contender.prefix.replace("bench", "bench2") } else { contender.prefix.clone() };
    let others = move |id| beside.call(OTHERS + id, &large);
    let others = closed(&contender.target, beside.callers(), time + 2 * AHEAD, others);
    let small = async {
        sleep(AHEAD).await;
        let prefix = contender.prefix.clone();
        paced(&contender.target, RATE, time, move |id| echo(id, &prefix)).await
    };
    let (others, small) = join(others, small).await;
    let (others, mut small) = (others?, small?);
    let mut add = |figure: &str, unit, value, failed| {
        bench.report.add(TABLE, &format!("{what}: {figure}"), unit, &contender.name, value, failed);
    };
    add("p50", "ms", small.quantile(0.5) / 1000.0, small.failed);
    add("p99", "ms", small.quantile(0.99) / 1000.0, 0);
    if beside.callers() > 0 {
        add("the others", "answers/s", others.per_second(), others.failed);
    }
    sleep(AHEAD).await;
    Ok(())
}
