//! Large answers and large requests: how much passes in a second, and how much memory that takes.

use std::io;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Call, blob, closed, upload};
use crate::process::{forget_peak, peak};
use crate::role::IdAt;

const TABLE: &str = "Large payloads";
const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// How a line of the table loads a contender.
struct Load {
    /// Whether it is measured when there is little time.
    is_quick: bool,
    what: &'static str,
    bytes: usize,
    callers: u64,
    make: fn(u64, &str, usize) -> Call,
}

const LOADS: [Load; 10] = [
    Load { is_quick: false, what: "1 KiB answers, 1 caller", bytes: KIB, callers: 1, make: blob },
    Load { is_quick: true, what: "64 KiB answers, 1 caller", bytes: 64 * KIB, callers: 1, make: blob },
    Load { is_quick: false, what: "1 MiB answers, 1 caller", bytes: MIB, callers: 1, make: blob },
    Load { is_quick: true, what: "1 MiB answers, 8 callers", bytes: MIB, callers: 8, make: blob },
    Load { is_quick: true, what: "10 MiB answers, 1 caller", bytes: 10 * MIB, callers: 1, make: blob },
    Load { is_quick: true, what: "10 MiB answers, 4 callers", bytes: 10 * MIB, callers: 4, make: blob },
    Load { is_quick: false, what: "20 MiB answers, 1 caller", bytes: 20 * MIB, callers: 1, make: blob },
    Load { is_quick: false, what: "64 KiB requests, 1 caller", bytes: 64 * KIB, callers: 1, make: upload },
    Load { is_quick: false, what: "1 MiB requests, 1 caller", bytes: MIB, callers: 1, make: upload },
    Load { is_quick: false, what: "3 MiB requests, 1 caller", bytes: 3 * MIB, callers: 1, make: upload },
];

/// Measures both spellings of the server's answers.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let spellings = [(IdAt::First, "id first"), (IdAt::Last, "id last")];
    for (id, spelling) in spellings.into_iter().take(if bench.quick { 1 } else { 2 }) {
        let setup = Setup { id, ..Setup::default() };
        let mut contenders = vec![Contender::hops(&setup).await?, Contender::direct(&setup).await?];
        contenders.extend(bench.pair(&setup).await?);
        let table = format!("{TABLE}, {spelling}");
        let quick = bench.quick;
        for load in LOADS.into_iter().filter(|load| load.is_quick || !quick) {
            for _ in 0..bench.rounds {
                for contender in &contenders {
                    turn(bench, &table, contender, &load).await?;
                }
            }
        }
        bench.show(&table);
    }
    Ok(())
}

async fn turn(bench: &mut Bench, table: &str, contender: &Contender, load: &Load) -> io::Result<()> {
    let Load { what, bytes, callers, make, .. } = *load;
    for (_, process) in &contender.parts {
        forget_peak(process.pid())?;
    }
    let prefix = contender.prefix.clone();
    let outcome = closed(&contender.target, callers, bench.turn * 2 / 3, move |id| make(id, &prefix, bytes)).await?;
    #[allow(clippy::cast_precision_loss, reason = "megabytes")]
    let rate = outcome.per_second() * bytes as f64 / 1e6;
    bench.report.add(table, what, "MB/s", &contender.name, rate, outcome.failed);
    for (part, process) in contender.parts.iter().filter(|(part, _)| *part != "server") {
        #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
        let peak = peak(process.pid()) as f64 / 1024.0;
        bench.report.add(table, &format!("{what}: peak of the {part}"), "MiB", &contender.name, peak, 0);
    }
    Ok(())
}
