//! A call that a person must approve: every event in every state. What follows is said in short: what the relay gets and
//! what the server is asked. `.`: nothing.

use std::format;

use super::kit::{KINDS, WHOLE, look, strangers};
use super::*;
use crate::config::{self, Config};
use crate::table::Table;

const A: ChildId = ChildId(1);

const STATES: [(&str, &str); 6] = [
    ("none", "; ready"),
    ("waiting", ".; ready, 1 approvals, 1 audit entries, 1 routes, 1 streams"),
    ("approved", ". | server: call, done; ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
    ("let pass", ". | server: call, done | answer; ready"),
    ("denied", ". | error -32014, done; ready"),
    ("run out", ". | error -32014; ready"),
];

/// An agent that asks about every call for 30 seconds, and the number of the call that waited first.
struct Bench {
    rig: Rig,
    number: u64,
    id: Value,
    /// What came out on the way to the state.
    way: Vec<String>,
}

fn with_policy(members: &str) -> AgentConfig {
    let text = format!(
        r#"{{"mode":"agent","relay":"r.example","servers":{{"a":{{"command":"a","policy":{members}}}}},"policy":{{"approvalTimeout":30}}}}"#
    );
    match config::parse(&text).expect("it is right").config {
        Config::Agent(read) => AgentConfig { policy: read.policy, ..super::config(&["a"]) },
        Config::Relay(_) => panic!("it is an agent's"),
    }
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut rig = Rig::new(with_policy(r#"{"approve":"always"}"#), Some("minted"));
        rig.event(Event::Start { person: Person::Absent });
        rig.bring_up("a", &["read", "write"]);
        rig.connect(Dialect::V2);
        rig.actions.clear();
        let mut bench = Self { rig, number: 1_000_000, id: json!(1_000_000), way: Vec::new() };
        let steps: &[&str] = match state {
            "none" => &[],
            "waiting" => &["call"],
            "approved" => &["call", "approve"],
            "let pass" => &["call", "approve for good", "answer"],
            "denied" => &["call", "deny"],
            "run out" => &["call", "time is over"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let told = bench.give(step);
            bench.way.push(told);
        }
        bench
    }

    fn give(&mut self, event: &str) -> String {
        let (rig, number) = (&mut self.rig, self.number);
        let control = |rig: &mut Rig, command| rig.event(Event::Control { job: JobId(1), command });
        match event {
            "call" => rig.call_as(1, "s", &json!({}), "tools/call", r#"{"name":"read"}"#),
            "call of another tool" => rig.call_as(2, "s", &json!({}), "tools/call", r#"{"name":"write"}"#),
            "approve" => control(rig, ControlCommand::Approve { id: number, always: false }),
            "approve for good" => control(rig, ControlCommand::Approve { id: number, always: true }),
            "deny" => control(rig, ControlCommand::Deny { id: number }),
            "approve another" => control(rig, ControlCommand::Approve { id: 999_999, always: true }),
            "time passes" => rig.advance(Duration::from_secs(29)),
            "time is over" => rig.advance(Duration::from_secs(30)),
            "answer" => rig.answer(A, &self.id, json!({})),
            "reset" => rig.reset(1),
            "tunnel closed" => rig.closed(CloseCode::TimedOut),
            "server ends" => rig.exited(A, 1, "boom"),
            "session over" => rig.tunnel(tunnel::Event::SessionEnded { session: "s".to_string() }),
            "forbidden by now" => {
                control(rig, ControlCommand::Restart { server: Some("nobody".to_string()) });
                rig.event(Event::ConfigRead(Ok(with_policy(r#"{"approve":"always","deny":["read"]}"#))));
                rig.actions.clear();
                control(rig, ControlCommand::Approve { id: number, always: false });
            }
            "stop" => rig.event(Event::Stop),
            "what concerns others" => strangers(rig),
            other => panic!("no such event: {other}"),
        }
        let said = self.said();
        self.rig.event(Event::Control { job: JobId(2), command: ControlCommand::Approvals { params: false } });
        let list: Value = serde_json::from_slice(&self.rig.reply()).expect("JSON");
        if let Some(number) = list["waiting"][0]["id"].as_u64() {
            self.number = number;
        }
        self.rig.actions.clear();
        said
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
                Action::Write { bytes, .. } => {
                    let json: Value = serde_json::from_slice(&bytes).expect("JSON");
                    let method =
                        json["method"].as_str().unwrap_or("reply").rsplit('/').next().expect("one").to_string();
                    if method == "call" {
                        self.id = json["id"].clone();
                    }
                    Some(format!("server: {method}"))
                }
                Action::ControlReply { json, .. } => {
                    let json: Value = serde_json::from_slice(&json).expect("JSON");
                    Some(if json["error"].is_string() { "not done" } else { "done" }.to_string())
                }
                _ => None,
            });
        }
        if said.is_empty() { ".".to_string() } else { said.join(", ") }
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 6])] = &[
    // none, waiting, approved, let pass, denied, run out
    ("call", [".", ".", ".", "server: call", ".", "."]),
    ("call of another tool", ["."; 6]),
    ("approve", ["not done", "server: call, done", "not done", "not done", "not done", "not done"]),
    ("approve for good", ["not done", "server: call, done", "not done", "not done", "not done", "not done"]),
    ("deny", ["not done", "error -32014, done", "not done", "not done", "not done", "not done"]),
    ("approve another", ["not done"; 6]),
    ("time passes", ["."; 6]),
    ("time is over", [".", "error -32014", ".", ".", ".", "."]),
    ("answer", [".", ".", "answer", ".", ".", "."]),
    ("reset", [".", ".", "server: cancelled", ".", ".", "."]),
    ("tunnel closed", [".", ".", "server: cancelled", ".", ".", "."]),
    ("server ends", [".", ".", "error -32010", ".", ".", "."]),
    ("session over", ["."; 6]),
    ("forbidden by now", ["not done", "error -32014, not done", "not done", "not done", "not done", "not done"]),
    ("stop", [".", ".", "error -32010", ".", ".", "."]),
    ("what concerns others", ["."; 6]),
];

const SPARED: &[(&str, &[&str])] =
    &[WHOLE, ("the operator orders it, and it is the same: table_runs", &["tunnel: Restart"])];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| format!("{}; {}", bench.way.join(" | "), look(&mut bench.rig, "a")),
        |mut bench, event| bench.give(event),
    );
}
