//! When a local server runs, what it may reach, and how it ends.

use core::ops::RangeInclusive;

use super::checked::{EraChoice, Isolation, Life, RestartPolicy};
use super::problem::Report;
use super::raw::{Node, Object};

/// Reads that part of a server's entry; what is wrong goes to `report`, and has its default.
pub(super) fn check(entry: &Object<'_>, report: &mut Report) -> Life {
    let mut seconds = |key| entry.get(key).and_then(|node| node.integer(SECONDS, "a time in seconds", report));
    let (idle_stop_secs, call_idle_secs) = (seconds("idleStop"), seconds("callIdleTimeout"));
    let mebibytes = entry.get("memoryLimit").and_then(|node| node.integer(MEBIBYTES, "a size in MiB", report));
    Life {
        lazy: entry.get("lazy").and_then(|node| node.boolean(report)).unwrap_or_default(),
        idle_stop_secs,
        restart: entry.get("restart").map(|node| restart(&node, report)).unwrap_or_default(),
        memory_limit: mebibytes.map(|size| size.saturating_mul(1024 * 1024)),
        call_idle_secs,
        isolation: entry.get("isolation").map(|node| isolation(&node, report)).unwrap_or_default(),
        era: entry.get("era").map(|node| era(&node, report)).unwrap_or_default(),
        sandbox: entry.get("sandbox").and_then(|node| node.boolean(report)).unwrap_or_default(),
    }
}

fn restart(node: &Node<'_>, report: &mut Report) -> RestartPolicy {
    match node.value.as_str() {
        Some("always") => RestartPolicy::Always,
        Some("on-failure") => RestartPolicy::OnFailure,
        Some("never") => RestartPolicy::Never,
        _ => {
            report.error(&node.path, "must be \"always\", \"on-failure\" or \"never\"");
            RestartPolicy::default()
        }
    }
}

fn isolation(node: &Node<'_>, report: &mut Report) -> Isolation {
    match node.value.as_str() {
        Some("shared") => Isolation::Shared,
        Some("session") => Isolation::Session,
        _ => {
            report.error(
                &node.path,
                "must be \"shared\" (all use one) or \"session\" (each client's session has its own)",
            );
            Isolation::default()
        }
    }
}

fn era(node: &Node<'_>, report: &mut Report) -> EraChoice {
    match node.value.as_str() {
        Some("auto") => EraChoice::Auto,
        Some("legacy") => EraChoice::Legacy,
        Some("modern") => EraChoice::Modern,
        _ => {
            report.error(
                &node.path,
                "must be \"auto\" (it is asked), \"legacy\" (MCP up to 2025-11-25) or \"modern\" (from 2026-07-28 on)",
            );
            EraChoice::default()
        }
    }
}

/// Up to a week: what waits longer never ends.
const SECONDS: RangeInclusive<u64> = 1..=7 * 24 * 3600;
/// A program needs some megabytes to begin with, and no machine has more than a few tebibytes.
const MEBIBYTES: RangeInclusive<u64> = 16..=16 * 1024 * 1024;
