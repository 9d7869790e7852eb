//! Logs: to stderr, or to its file for an agent in the background; for people or as JSON, through `tracing`.

use std::fs::File;
use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::prelude::*;

use crate::cli::{Cli, Command, Global, LogFormat};
use crate::config_source::Source;
use crate::directories;
use crate::failure::Failure;
use crate::host::daemon::Files;
use crate::host::log::{self, Log};

/// Starts logging for the rest of the process. An agent in the background gets the stderr of whoever started it.
pub(crate) fn start(cli: &Cli) -> Result<Option<File>, Failure> {
    let global = &cli.global;
    // The demo tells a story of its own on stdout.
    let default = if matches!(cli.command, Some(Command::Demo(_))) { "warn" } else { "info" };
    let level = global.log_level.as_deref().map(str::trim).filter(|level| !level.is_empty()).unwrap_or(default);
    // Targets rather than an `EnvFilter`: nobody filters by a field's pattern, and its engine is a tenth of the program.
    let filter: Targets = directives(level).parse().map_err(|_| {
        Failure::Usage("--log-level (or MCP_LOCAL_TUNNEL_LOG) must be error, warn, info, debug or trace".into())
    })?;
    let (writer, ansi, starter) = if cli.is_daemon() {
        let (log, starter) = background(global)?;
        (BoxMakeWriter::new(Arc::new(log)), false, Some(starter))
    } else {
        (BoxMakeWriter::new(std::io::stderr), colour(), None)
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match global.log_format {
        LogFormat::Human => lines.with_ansi(ansi).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(starter)
}

/// The log of an agent in the background, which this process becomes with it.
fn background(global: &Global) -> Result<(Log, File), Failure> {
    let path = Files::new(&directories::config()?, &Source::new(global).identity()).log;
    Log::open(&path)
        .and_then(|log| log::detach(&log).map(|starter| (log, starter)))
        .map_err(|error| Failure::Usage(format!("cannot write {}: {error}", path.display())))
}

/// A bare level counts for our own crates; libraries then speak only to warn.
fn directives(level: &str) -> String {
    if level.contains(['=', ',']) {
        return level.to_owned();
    }
    let ours = ["mcp_local_tunnel", "tunnel_core", "tunnel_runtime_tokio", "tunnel_runtime_async_std"];
    let ours: Vec<_> = ours.iter().map(|name| format!("{name}={level}")).collect();
    format!("warn,{}", ours.join(","))
}

/// Colours on a terminal only, and not against <https://no-color.org>.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken_and_nonsense_is_not() {
        for level in ["error", "info", "TRACE", "off", "tunnel_core::relay=trace", "warn,tunnel_core=debug"] {
            assert!(directives(level).parse::<Targets>().is_ok(), "{level}");
        }
        for level in ["loud", "tunnel_core=loud"] {
            assert!(directives(level).parse::<Targets>().is_err(), "{level}");
        }
    }
}
