//! Lists of many tools, and whether calls cost more where there are many.

use std::collections::BTreeSet;
use std::io;

use serde::Deserialize;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Call, Connection, Expected, closed, echo};

const TABLE: &str = "Many tools";

/// Measures lists of 10 to 5 000 tools.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let counts: &[usize] = if bench.quick { &[10, 5_000] } else { &[10, 100, 1_000, 5_000] };
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
                let prefix = contender.prefix.clone();
                let mut calls = closed(&contender.target, 1, bench.turn, move |id| echo(id, &prefix)).await?;
                let what = format!("echo beside {tools} tools, p50");
                bench.report.add(TABLE, &what, "µs", &contender.name, calls.quantile(0.5), calls.failed);
            }
        }
    }
    bench.show(TABLE);
    Ok(())
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
