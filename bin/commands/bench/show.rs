//! What people and scripts are told of a benchmark.

use std::time::Duration;

use serde_json::{Value, json};
use tunnel_core::bench::{Figures, Latency};
use tunnel_core::probe::contract::{Ask, Entry, Report};

use super::{Run, callers};
use crate::cli::BenchArgs;
use crate::output;

/// What a run asks, by name.
pub(super) fn what(ask: &Ask, method: &str) -> String {
    match ask {
        Ask::Ping | Ask::List => method.to_owned(),
        Ask::Call { tool, .. } => format!("{method} {}", output::visible(tool)),
    }
}

/// What is about to be done.
pub(super) fn intention(args: &BenchArgs, entry: &Entry, whats: &[String]) -> String {
    let callers = callers(args);
    let seconds = args.seconds * (whats.len() * callers.len()) as u64;
    let most = callers.iter().max().map_or(0, |most| *most as u64);
    let how = match args.rate {
        Some(rate) => format!("{rate} a second over {}", count(most, "connection")),
        None => format!("one after the other, by up to {} at once", count(most, "caller")),
    };
    let called = match &args.tool {
        None => "No tool is called.".to_owned(),
        Some(tool) if entry.report.read_only.contains(tool) => "The tool says that it only reads.".to_owned(),
        Some(_) => "The tool may change something, and --allow-writes says that it may.".to_owned(),
    };
    format!("Asking {} for {}, {how}: about {}. {called}", args.url, whats.join(", "), output::duration(seconds))
}

/// The figures for people.
pub(super) fn table(args: &BenchArgs, report: &Report, runs: &[Run]) -> String {
    let about = |name: &str, value: &str| [name.to_owned(), output::visible(value)];
    let mut head = vec![about("url", &args.url), about("protocol", report.version)];
    head.extend(report.server.iter().map(|server| about("server", server)));
    let tools = format!("{} in {}", report.tools.len(), count(report.pages as u64, "page"));
    head.push(about("tools", if report.pages > 1 { &tools } else { tools.split(' ').next().unwrap_or_default() }));
    let mut rows = vec![
        ["asked", "callers", "calls", "failed", "calls/s", "p50 ms", "p99 ms", "max ms", "bytes each", "MB/s"]
            .map(str::to_owned),
    ];
    rows.extend(runs.iter().map(row));
    let mut text = format!("{}\n\n{}", output::table(&head), output::table(&rows));
    for run in runs {
        if let Some(error) = &run.figures.first_error {
            text.push_str(&format!(
                "\n{}, {}: {}",
                run.what,
                count(run.callers as u64, "caller"),
                output::visible(error)
            ));
        }
        if run.figures.missed > 0 {
            let missed = count(run.figures.missed, "more call");
            text.push_str(&format!("\n{}: {missed} due than could be made in time", run.what));
        }
    }
    text
}

fn row(run: &Run) -> [String; 10] {
    let Figures { calls, failures, per_second, bytes_each, bytes_per_second, latency, .. } = &run.figures;
    let shown = |of: fn(&Latency) -> Duration| latency.as_ref().map_or_else(|| "-".into(), |all| ms(of(all)));
    [
        run.what.clone(),
        run.callers.to_string(),
        calls.to_string(),
        failures.to_string(),
        format!("{per_second:.0}"),
        shown(|latency| latency.p50),
        shown(|latency| latency.p99),
        shown(|latency| latency.max),
        bytes_each.to_string(),
        format!("{:.2}", bytes_per_second / 1e6),
    ]
}

fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// The figures for scripts.
pub(super) fn document(args: &BenchArgs, report: &Report, runs: &[Run]) -> Value {
    json!({
        "url": args.url,
        "protocolVersion": report.version,
        "server": report.server,
        "tools": report.tools.len(),
        "pages": report.pages,
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(run: &Run) -> Value {
    let figures = &run.figures;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "asked": run.what,
        "callers": run.callers,
        "rate": run.rate,
        "seconds": figures.lasted.as_secs_f64(),
        "calls": figures.calls,
        "failures": figures.failures,
        "firstError": figures.first_error,
        "missed": figures.missed,
        "callsPerSecond": figures.per_second,
        "latencyMs": figures.latency.map(|latency| json!({
            "p50": ms(latency.p50), "p90": ms(latency.p90), "p99": ms(latency.p99), "max": ms(latency.max),
        })),
        "bytesEach": figures.bytes_each,
        "bytesPerSecond": figures.bytes_per_second,
    })
}

/// That many of something.
pub(super) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}
