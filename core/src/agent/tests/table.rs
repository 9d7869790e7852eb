//! A call at the agent, from the relay's order to its end: every event in every state.
//!
//! The call is stream 1, of the server `a`, whose run is child 1. What follows is said in short: what the relay gets,
//! what the server is told, what is done to its process. `.`: nothing.

use std::format;

use super::kit::{KINDS, WHOLE, look, strangers};
use super::*;
use crate::limits;
use crate::table::{self, Table};

const A: ChildId = ChildId(1);

const STATES: [(&str, &str); 8] = [
    ("unasked", "; ready"),
    ("held", ". | .; restarting, 1 audit entries, 1 held calls, 1 routes, 1 streams"),
    ("under way", "asks; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("asking", "asks | says list; ready, 1 audit entries, 1 calls, 1 questions, 1 routes, 1 streams"),
    ("answered", "asks | answer; ready"),
    ("cancelled", "asks | tells cancelled; ready"),
    ("stopping", "asks | close input, leaves ×2, error -32010; failed"),
    ("ended with its server", "asks | error -32010; restarting"),
];

/// An agent with one call, and what the server knows it by.
struct Bench {
    rig: Rig,
    id: Value,
    /// The number that the server's question has at the relay.
    question: Value,
    /// What came out on the way to the state.
    way: Vec<String>,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut bench =
            Self { rig: Rig::ready(&["a", "b"]), id: json!(1_000_000), question: json!(1_000_000), way: Vec::new() };
        let steps: &[&str] = match state {
            "unasked" => &[],
            "held" => &["server ends", "call"],
            "under way" => &["call"],
            "asking" => &["call", "question"],
            "answered" => &["call", "answer"],
            "cancelled" => &["call", "reset"],
            "stopping" => &["call", "stop"],
            "ended with its server" => &["call", "server ends"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let told = bench.give(step);
            bench.way.push(told);
        }
        bench
    }

    fn give(&mut self, event: &str) -> String {
        let rig = &mut self.rig;
        match event {
            "call" | "the same again" => rig.call_in(1, "s"),
            "answer" => rig.answer(A, &self.id, json!({})),
            "error" => rig.say(A, &json!({"jsonrpc": "2.0", "id": self.id, "error": {"code": -7, "message": "m"}})),
            "answer to nobody" => rig.answer(A, &json!(999_999), json!({})),
            "foreign answer" => rig.answer(ChildId(2), &self.id, json!({})),
            "progress" => rig.say(
                A,
                &json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}),
            ),
            "question" => rig.say(A, &json!({"jsonrpc": "2.0", "id": 77, "method": "roots/list"})),
            "client answers" => {
                let answer = json!({"jsonrpc": "2.0", "id": self.question, "result": {"roots": []}});
                rig.client_says(1, &answer);
            }
            "reset" => rig.reset(1),
            "cancelled" => {
                let params = Bytes::from_static(br#"{"requestId":1}"#);
                rig.tunnel(tunnel::Event::Cancelled { stream: StreamId(1), params });
            }
            "tunnel closed" => rig.closed(CloseCode::TimedOut),
            "server ends" => rig.exited(A, 1, "boom"),
            "old run ends" => rig.exited(ChildId(99), 1, "boom"),
            "stdout ends" => rig.event(Event::OutputEnded { child: A }),
            "restart" => {
                rig.tunnel(tunnel::Event::Restart { server: Some("a".to_string()) });
                rig.event(Event::ConfigRead(Err("the disk is away".to_string())));
            }
            "session over" => rig.tunnel(tunnel::Event::SessionEnded { session: "s".to_string() }),
            "stop" => rig.event(Event::Stop),
            "half an hour" => rig.advance(limits::CALL_IDLE),
            "noise" => rig.event(Event::Line { child: A, line: Bytes::from_static(b"noise") }),
            "line too long" => {
                let prefix = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"#, self.id));
                let length = limits::MAX_MESSAGE as u64 + 1;
                rig.event(Event::LineTooLong { child: A, prefix, suffix: Bytes::from_static(b"}}"), length });
            }
            "what concerns others" => strangers(rig),
            other => panic!("no such event: {other}"),
        }
        self.said()
    }

    fn said(&mut self) -> String {
        let mut said: Vec<String> = Vec::new();
        while let Some(action) = self.rig.actions.pop_front() {
            said.extend(self.words(&action));
        }
        table::told(&said)
    }

    fn words(&mut self, action: &Action) -> Option<String> {
        Some(match action {
            Action::Tunnel { command: Command::Answer { outcome: Outcome::Result, .. }, .. } => "answer".to_string(),
            Action::Tunnel { command: Command::Answer { outcome: Outcome::Error { code }, .. }, .. } => {
                format!("error {code}")
            }
            Action::Tunnel { command: Command::Message { json, .. }, .. } => {
                let json: Value = serde_json::from_slice(json).expect("JSON");
                if json.get("id").is_some() {
                    self.question = json["id"].clone();
                }
                format!("says {}", json["method"].as_str().expect("a method").rsplit('/').next().expect("one"))
            }
            Action::Tunnel { command: Command::Notice { .. }, .. } => "notice".to_string(),
            Action::Tunnel { command: Command::GoAway | Command::Close(_), .. } => "leaves".to_string(),
            Action::Write { child, bytes } if *child == A => {
                let json: Value = serde_json::from_slice(bytes).expect("JSON");
                match json["method"].as_str() {
                    Some("tools/call") => {
                        self.id = json["id"].clone();
                        "asks".to_string()
                    }
                    Some(method) => format!("tells {}", method.rsplit('/').next().expect("one")),
                    None if json.get("error").is_some() => "refuses".to_string(),
                    None => "replies".to_string(),
                }
            }
            Action::Kill { child, force, .. } if *child == A => if *force { "kill" } else { "end" }.to_string(),
            Action::CloseStdin { child } if *child == A => "close input".to_string(),
            Action::Spawn { spawn, .. } if spawn.server == "a" => "start".to_string(),
            Action::ReadConfig => "read the configuration".to_string(),
            Action::Dial { .. } => "dial".to_string(),
            // Catalogs and what is done to the other server are not the call's.
            _ => return None,
        })
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 8])] = &[
    // unasked, held, under way, asking, answered, cancelled, stopping, ended with its server
    ("answer", [".", ".", "answer", "refuses, answer", ".", ".", ".", "."]),
    ("error", [".", ".", "error -7", "refuses, error -7", ".", ".", ".", "."]),
    ("answer to nobody", ["."; 8]),
    ("foreign answer", ["."; 8]),
    ("progress", ["notice", ".", "says message", "says message", "notice", "notice", ".", "."]),
    ("question", ["refuses", ".", "says list", ".", "notice", "notice", ".", "."]),
    ("client answers", [".", ".", ".", "replies", ".", ".", ".", "."]),
    ("reset", [".", ".", "tells cancelled", "refuses, tells cancelled", ".", ".", ".", "."]),
    ("cancelled", [".", ".", "tells cancelled", "refuses, tells cancelled", ".", ".", ".", "."]),
    ("the same again", ["asks", ".", ".", ".", "asks", "asks", ".", "."]),
    ("tunnel closed", [".", ".", "tells cancelled", "refuses, tells cancelled", ".", ".", ".", "."]),
    ("server ends", [".", ".", "error -32010", "error -32010", ".", ".", ".", "."]),
    ("old run ends", ["."; 8]),
    ("stdout ends", ["."; 8]),
    (
        "restart",
        [
            "read the configuration, close input",
            "read the configuration, start",
            "read the configuration, close input, error -32010",
            "read the configuration, close input, error -32010",
            "read the configuration, close input",
            "read the configuration, close input",
            ".",
            "read the configuration, start",
        ],
    ),
    ("session over", ["."; 8]),
    (
        "stop",
        [
            "close input, leaves ×2",
            "leaves ×2, error -32010",
            "close input, leaves ×2, error -32010",
            "close input, leaves ×2, error -32010",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "kill",
            "leaves ×2",
        ],
    ),
    ("half an hour", [".", "start, error -32010, start ×16", ".", ".", ".", ".", "end, kill", "start ×17"]),
    ("noise", ["."; 8]),
    ("line too long", [".", ".", "error -32012", "refuses, error -32012", ".", ".", ".", "."]),
    ("what concerns others", ["."; 8]),
];

const SPARED: &[(&str, &[&str])] =
    &[WHOLE, ("the relay orders it, and it is the same: table_runs", &["control: Restart"])];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| format!("{}; {}", bench.way.join(" | "), look(&mut bench.rig, "a")),
        |mut bench, event| bench.give(event),
    );
}
