//! Lists of many tools, and whether calls cost more where there are many.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Call, Connection, Expected, closed, echo};
use crate::process::Pinned;

const TABLE: &str = "Many tools";
/// Between what calls are compared.
const FEW: usize = 10;
const MANY: usize = 5_000;
/// How long a turn of calls is: short, for a machine changes more between two turns than tools do.
const CALLS: Duration = Duration::from_millis(80);
/// How many of them each side has in a round.
const TURNS: usize = 8;

/// Measures lists of 10 to 5 000 tools, and calls beside the fewest and the most of them.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let counts: &[usize] = if bench.quick { &[FEW, MANY] } else { &[FEW, 100, 1_000, MANY] };
    for &tools in counts {
        let setup = Setup { tools, ..Setup::default() };
        let mut contenders = vec![Contender::direct(&setup).await?];
        contenders.extend(bench.pair(&setup).await?);
        let mut lengths = Vec::new();
        for contender in &contenders {
            lengths.push(length(contender, tools).await?);
        }
        for _ in 0..bench.rounds {
            for (contender, length) in contenders.iter().zip(&lengths) {
                let length = *length;
                let list = closed(&contender.target, 1, bench.turn, move |id| list(id, length)).await?;
                let what = format!("tools/list of {tools}, 1 caller");
                bench.report.add(TABLE, &what, "lists/s", &contender.name, list.per_second(), list.failed);
            }
        }
    }
    calls(bench).await?;
    bench.show(TABLE);
    Ok(())
}

/// Calls beside few tools and beside many, turn by turn: what counts is the ratio of two turns next to each other, with
/// other processes in each round. On one processor: among several, a process takes half or twice the time by where the
/// system happens to put it.
async fn calls(bench: &mut Bench) -> io::Result<()> {
    let _pinned = Pinned::new()?;
    for _ in 0..bench.rounds {
        let few = bench.pair(&Setup { tools: FEW, ..Setup::default() }).await?;
        let many = bench.pair(&Setup { tools: MANY, ..Setup::default() }).await?;
        for turn in 0..if bench.quick { TURNS / 2 } else { TURNS } {
            for (few, many) in few.iter().zip(&many) {
                // Lest it be always the same that goes first.
                let ratio = if turn % 2 == 0 {
                    let few = p50(bench, few, FEW).await?;
                    p50(bench, many, MANY).await? / few
                } else {
                    p50(bench, many, MANY).await? / p50(bench, few, FEW).await?
                };
                let what = format!("echo beside {MANY} tools against {FEW}, p50 on one processor");
                bench.report.add(TABLE, &what, "×", &few.name, ratio, 0);
            }
        }
    }
    Ok(())
}

async fn p50(bench: &mut Bench, contender: &Contender, tools: usize) -> io::Result<f64> {
    let prefix = contender.prefix.clone();
    let mut calls = closed(&contender.target, 1, CALLS, move |id| echo(id, &prefix)).await?;
    let p50 = calls.quantile(0.5);
    let what = format!("echo beside {tools} tools, p50 on one processor");
    bench.report.add(TABLE, &what, "µs", &contender.name, p50, calls.failed);
    Ok(p50)
}

/// How long a contender's list is without its id, once it was read whole and each of its tools counted.
async fn length(contender: &Contender, tools: usize) -> io::Result<usize> {
    #[derive(Deserialize)]
    struct Answer {
        result: List,
    }
    #[derive(Deserialize)]
    struct List {
        tools: Vec<Tool>,
    }
    #[derive(Deserialize)]
    struct Tool {
        name: String,
    }
    let id = 3;
    let reply = Connection::open(&contender.target).await?.ask(&list(id, 0).body).await?;
    let Answer { result } = serde_json::from_slice(&reply.body)?;
    // A relay may have tools of its own besides.
    let names: BTreeSet<_> =
        result.tools.iter().filter_map(|tool| tool.name.strip_prefix(&*contender.prefix)).collect();
    match names.len() {
        count if count == tools => Ok(reply.body.len() - id.to_string().len()),
        count => Err(io::Error::other(format!("{}: {count} of {tools} tools are listed", contender.name))),
    }
}

/// A list that is to be so long without its id.
fn list(id: u64, length: usize) -> Call {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#);
    Call { body: body.into_bytes(), expected: Expected::Length(length, id) }
}
