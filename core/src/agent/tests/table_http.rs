//! A call to a server over HTTP, from its POST to the end of its answer: every event in every state of the exchange.
//!
//! What follows is said in short: what the relay gets, and what is requested or aborted. `.`: nothing.

use std::format;

use ::http::Method;

use super::http::{JSON, SSE, failure, ready, result};
use super::kit::{KINDS, look, strangers};
use super::*;
use crate::http::fetch::{Fetch, FetchError, FetchEvent};
use crate::id::FetchId;
use crate::limits;
use crate::table::Table;

const STATES: [(&str, &str); 10] = [
    ("asked", "; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("json", ".; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("half of json", ". | .; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("events", ".; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("event seen", ". | log; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("broken", ". | log | .; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("resumed", ". | log | . | GET; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("problem", ".; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("answered", ". | answer; ready"),
    ("over", ". | . | answer; ready"),
];

/// An agent with a call under way, and the fetch that it waits for.
struct Bench {
    rig: Rig,
    fetch: FetchId,
    /// The POST of the call.
    request: Fetch,
    is_events: bool,
    /// What came out on the way to the state.
    way: Vec<String>,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut rig = ready();
        rig.call(1, "web", "{}");
        let (fetch, request) = rig.fetched(&Method::POST);
        rig.actions.clear();
        let mut bench = Self { rig, fetch, request, is_events: false, way: Vec::new() };
        let steps: &[&str] = match state {
            "asked" => &[],
            "json" => &["head of json"],
            "half of json" => &["head of json", "half an answer"],
            "events" => &["head of events"],
            "event seen" => &["head of events", "notification"],
            "broken" => &["head of events", "notification", "end"],
            "resumed" => &["head of events", "notification", "end", "time passes"],
            "problem" => &["head 500"],
            "answered" => &["head of events", "answer"],
            "over" => &["head of json", "answer", "end"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let told = bench.give(step);
            bench.way.push(told);
        }
        bench
    }

    fn give(&mut self, event: &str) -> String {
        let whole = result(&self.request, &json!({}));
        let (fetch, is_events) = (self.fetch, self.is_events);
        let wrapped = |text: &str| if is_events { format!("id: e1\ndata: {text}\n\n") } else { text.to_string() };
        let rig = &mut self.rig;
        match event {
            "head of json" => rig.head(fetch, 200, JSON),
            "head of events" => {
                self.is_events = true;
                rig.head(fetch, 200, SSE);
            }
            "head 202" => rig.head(fetch, 202, &[]),
            "head 401" => rig.head(fetch, 401, &[]),
            "head 404" => rig.head(fetch, 404, &[]),
            "head 500" => rig.head(fetch, 500, &[]),
            "head 307" => rig.head(fetch, 307, &[("location", "/elsewhere")]),
            "answer" => rig.chunk(fetch, &wrapped(&whole)),
            "error" => rig.chunk(fetch, &wrapped(&failure(&self.request, -7))),
            "half an answer" => rig.chunk(fetch, &whole[..whole.len() / 2]),
            "notification" => {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": 1}});
                rig.chunk(fetch, &wrapped(&note.to_string()));
            }
            "another's answer" => rig.chunk(fetch, &wrapped(r#"{"jsonrpc":"2.0","id":999999,"result":{}}"#)),
            "end" => rig.fetch(fetch, FetchEvent::End),
            "lost" => rig.fetch(fetch, FetchEvent::Failed(FetchError::TimedOut)),
            "event of another fetch" => rig.fetch(FetchId(u64::MAX), FetchEvent::End),
            "time passes" => rig.advance(limits::RECONNECT_MAX),
            "cancelled" => rig.reset(1),
            "server restarts" => {
                rig.tunnel(tunnel::Event::Restart { server: Some("web".to_string()) });
                rig.event(Event::ConfigRead(Err("away".to_string())));
            }
            "what concerns others" => strangers(rig),
            other => panic!("no such event: {other}"),
        }
        self.said()
    }

    fn said(&mut self) -> String {
        let mut said: Vec<String> = Vec::new();
        while let Some(action) = self.rig.actions.pop_front() {
            said.extend(match action {
                Action::Tunnel { command: Command::Answer { outcome: Outcome::Result, .. }, .. } => {
                    Some("answer".to_string())
                }
                Action::Tunnel { command: Command::Answer { outcome: Outcome::Error { code }, .. }, .. } => {
                    Some(format!("error {code}"))
                }
                Action::Tunnel { command: Command::Message { .. }, .. } => Some("log".to_string()),
                Action::Tunnel { command: Command::Notice { .. }, .. } => Some("notice".to_string()),
                Action::Fetch { fetch, request } => {
                    let method = request.method.clone();
                    // What goes on for the call is its own.
                    if method == Method::GET && request.headers.contains_key("last-event-id")
                        || request.body == self.request.body
                    {
                        self.fetch = fetch;
                    }
                    let of: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                    let what = of["method"]
                        .as_str()
                        .map_or(String::new(), |method| format!(" {}", method.rsplit('/').next().expect("one")));
                    Some(format!("{method}{what}"))
                }
                Action::AbortFetch { fetch } if fetch == self.fetch => Some("abort".to_string()),
                _ => None,
            });
        }
        if said.is_empty() { ".".to_string() } else { said.join(", ") }
    }
}

/// What follows each event, in the order of [`STATES`]; `-`: an answer has one head, and its was there.
const TABLE: &[(&str, [&str; 10])] = &[
    // asked, json, half of json, events, event seen, broken, resumed, problem, answered, over
    ("head of json", [".", "-", "-", "-", "-", ".", ".", "-", "-", "."]),
    ("head of events", [".", "-", "-", "-", "-", ".", ".", "-", "-", "."]),
    ("head 202", [".", "-", "-", "-", "-", ".", ".", "-", "-", "."]),
    ("head 401", [".", "-", "-", "-", "-", ".", ".", "-", "-", "."]),
    (
        "head 404",
        ["abort, POST initialize", "-", "-", "-", "-", ".", "abort, POST initialize, error -32010", "-", "-", "."],
    ),
    ("head 500", [".", "-", "-", "-", "-", ".", ".", "-", "-", "."]),
    ("head 307", ["abort, POST call", "-", "-", "-", "-", ".", "abort, GET", "-", "-", "."]),
    ("answer", [".", ".", ".", "answer", "answer", ".", ".", ".", ".", "."]),
    ("error", [".", ".", ".", "error -7", "error -7", ".", ".", ".", ".", "."]),
    ("half an answer", ["."; 10]),
    ("notification", [".", ".", ".", "log", "log", ".", ".", ".", "notice", "."]),
    ("another's answer", ["."; 10]),
    (
        "end",
        [
            "error -32010",
            "error -32603",
            "error -32603",
            "error -32010",
            ".",
            ".",
            "error -32010",
            "error -32010",
            ".",
            ".",
        ],
    ),
    (
        "lost",
        [
            "error -32010",
            "error -32010",
            "error -32010",
            "error -32010",
            ".",
            ".",
            "error -32010",
            "error -32010",
            ".",
            ".",
        ],
    ),
    ("event of another fetch", ["."; 10]),
    ("time passes", [".", ".", ".", ".", ".", "GET", ".", ".", ".", "."]),
    (
        "cancelled",
        [
            "abort, POST cancelled",
            "abort, POST cancelled",
            "abort, POST cancelled",
            "abort, POST cancelled",
            "abort, POST cancelled",
            "POST cancelled",
            "abort, POST cancelled",
            "abort, POST cancelled",
            ".",
            ".",
        ],
    ),
    (
        "server restarts",
        [
            "abort, DELETE, error -32010",
            "abort, DELETE, error -32010",
            "abort, DELETE, error -32010",
            "abort, DELETE, error -32010",
            "abort, DELETE, error -32010",
            "DELETE, error -32010",
            "abort, DELETE, error -32010",
            "abort, DELETE, error -32010",
            "abort, DELETE",
            "DELETE",
        ],
    ),
    ("what concerns others", ["."; 10]),
];

const SPARED: &[(&str, &[&str])] = &[
    ("no part of a call over HTTP: table", &["Dialed", "Nudge", "NetworkChanged", "Stop", "tunnel: Up"]),
    ("the relay orders it, and it is the same: table_runs", &["control: Restart"]),
    ("it began the one that is looked at", &["tunnel: Call"]),
];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| format!("{}; {}", bench.way.join(" | "), look(&mut bench.rig, "web")),
        |mut bench, event| bench.give(event),
    );
}
