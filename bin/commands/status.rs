//! `status`: what this machine's agent is doing.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use tunnel_core::agent::status::{Document, Relay, Server, Uplink};
use tunnel_core::daemon::{Answer, Kind};
use tunnel_core::mcp::catalog::State;

use crate::output::{duration, table, visible};

/// The document for people.
pub(super) fn describe(document: &Document) -> String {
    let mut text = format!(
        "{} (mcp-local-tunnel {}), up {}, {} under way\n{}",
        visible(&document.device),
        visible(&document.version),
        duration(document.uptime_secs),
        count(document.calls, "call"),
        relay(&document.relay),
    );
    if let Some(remark) = &document.remark {
        let _ = write!(text, "\n{}", visible(remark));
    }
    if document.waiting > 0 {
        let _ = write!(text, "\n{} for approval: mcp-local-tunnel approve", waits(document.waiting));
    }
    for changed in &document.changed_tools {
        let _ = write!(text, "\n{}: mcp-local-tunnel pins diff", super::guard::describe_change(changed));
    }
    for problem in &document.problems {
        let _ = write!(text, "\n{}", visible(problem));
    }
    if document.servers.is_empty() {
        text.push_str("\nno servers are configured");
        return text;
    }
    let rows: Vec<_> = document.servers.iter().map(row).collect();
    let _ = write!(text, "\n\n{}", table(&rows));
    text
}

/// The agent's process for people.
pub(super) fn process(process: &Answer, log: Option<&str>) -> String {
    let life = match process.kind {
        Kind::Foreground => "in the foreground",
        Kind::Daemon if process.kept => "in the background, until it is stopped",
        Kind::Daemon => "in the background, as long as an editor needs it",
    };
    let mut text = format!("pid {}, {life}", process.pid);
    if let Some(sessions) = process.sessions {
        let _ = write!(text, ", {} of editors", count(sessions, "session"));
    }
    if let Some(log) = log {
        let _ = write!(text, "\nlog {}", visible(log));
    }
    text
}

fn relay(relay: &Relay) -> String {
    let (word, colour) = match relay.state {
        Uplink::Connected => ("connected to", AnsiColor::Green),
        Uplink::Connecting => ("connecting to", AnsiColor::Yellow),
        Uplink::SigningIn => ("signing in at", AnsiColor::Yellow),
        Uplink::Waiting => ("not connected to", AnsiColor::Red),
        Uplink::Halted => ("refused by", AnsiColor::Red),
        Uplink::Closed => ("leaving", AnsiColor::Red),
    };
    let style = colour.on_default().bold();
    let mut text = format!("{style}{word}{style:#} {} for {}", visible(&relay.url), duration(relay.since_secs));
    if let Some(rtt) = relay.rtt_micros {
        let _ = write!(text, ", round trip {}.{} ms", rtt / 1000, rtt % 1000 / 100);
    }
    if let Some(ms) = relay.next_attempt_ms {
        let _ = write!(text, ", next attempt in {}", duration(ms.div_ceil(1000)));
    }
    if relay.state == Uplink::Halted {
        text.push_str(", tried again on SIGHUP");
    }
    if let Some(error) = relay.last_error.as_ref().filter(|_| relay.state != Uplink::Connected) {
        let _ = write!(text, "\n  {}", visible(error));
    }
    text
}

fn row(server: &Server) -> [String; 4] {
    let (word, colour) = match server.state {
        State::Ready => ("ready", AnsiColor::Green),
        State::Asleep => ("asleep", AnsiColor::Green),
        State::Starting => ("starting", AnsiColor::Yellow),
        State::Probing => ("probing", AnsiColor::Yellow),
        State::Restarting => ("restarting", AnsiColor::Yellow),
        State::Failed => ("failed", AnsiColor::Red),
        State::Unknown => ("unknown", AnsiColor::Yellow),
    };
    let style: Style = colour.on_default();
    // Padded here: colour codes would count as width.
    let state = format!("{style}{word:<10}{style:#}");
    let mut more = Vec::new();
    more.extend(server.pid.map(|pid| format!("pid {pid}")));
    more.extend((server.hidden > 0).then(|| format!("{} hidden", server.hidden)));
    more.extend((server.calls > 0).then(|| count(server.calls, "call")));
    more.extend(
        (server.restarts > 0).then(|| count(usize::try_from(server.restarts).unwrap_or(usize::MAX), "restart")),
    );
    more.extend((server.sessions > 0).then(|| count(server.sessions, "session")));
    more.extend(server.next_start_ms.map(|ms| format!("next start in {}", duration(ms.div_ceil(1000)))));
    more.extend(server.reason.as_deref().map(visible));
    [format!("  {}", visible(&server.name)), state, count(server.tools, "tool"), more.join(", ")]
}

fn waits(number: usize) -> String {
    format!("{} {}", count(number, "call"), if number == 1 { "waits" } else { "wait" })
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn document_reads_well_and_what_it_quotes_is_harmless() {
        let document: Document = serde_json::from_value(json!({
            "version": "2.0.0", "device": "laptop", "deviceId": "x", "calls": 1, "waiting": 1, "uptimeSecs": 90, "remark": "not read",
            "changedTools": [{ "server": "files", "tool": "read", "change": "changed", "held": true }],
            "relay": { "url": "https://t.example", "state": "waiting", "sinceSecs": 5, "attempts": 3, "nextAttemptMs": 1500,
                       "lastError": "cannot connect:\u{1b}[2K refused" },
            "servers": [
                { "name": "files", "state": "ready", "sinceSecs": 80, "pid": 42, "tools": 11, "hidden": 1, "calls": 1, "restarts": 0 },
                { "name": "web", "state": "failed", "sinceSecs": 1, "tools": 0, "calls": 0, "restarts": 2, "reason": "no such program" },
            ],
        }))
        .expect("is a document");
        let text = anstream::adapter::strip_str(&describe(&document)).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "laptop (mcp-local-tunnel 2.0.0), up 1 min 30 s, 1 call under way",
                "not connected to https://t.example for 5 s, next attempt in 2 s",
                "  cannot connect:\\u{1b}[2K refused",
                "not read",
                "1 call waits for approval: mcp-local-tunnel approve",
                "read of files changed, held back: mcp-local-tunnel pins diff",
                "",
                "  files  ready       11 tools  pid 42, 1 hidden, 1 call",
                "  web    failed      0 tools   2 restarts, no such program",
            ]
        );
    }
}
