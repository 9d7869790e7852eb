//! Lists of many tools, and whether calls cost more where there are many.

use std::io;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Call, Expected, closed, echo};

const TABLE: &str = "Many tools";

/// Measures lists of 10 to 5 000 tools.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let counts: &[usize] = if bench.quick { &[10, 5_000] } else { &[10, 100, 1_000, 5_000] };
    for &tools in counts {
        let setup = Setup { tools, ..Setup::default() };
        let mut contenders = vec![Contender::direct(&setup).await?];
        contenders.extend(bench.pair(&setup).await?);
        for _ in 0..bench.rounds {
            for contender in &contenders {
                let list = closed(&contender.target, 1, bench.turn, list).await?;
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

fn list(id: u64) -> Call {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#);
    Call { body: body.into_bytes(), expected: Expected::Text(b"progress\"".to_vec(), id) }
}
