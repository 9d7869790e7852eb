//! An agent in each phase of its life, and every event that there is: those it waits for, those that come late, and those
//! of ids that nobody gave out.
//!
//! It signs in. Its servers are `a`, a process (child 1) that a call (stream 1) is under way at, `h`, reached over HTTP,
//! whose handshake is under way (fetch 1), and `z`, a lazy one whose list is being looked up; its tunnel is conn 1. What
//! follows is said in short: what is ordered, all of it, and the phase if it is another one. `.`: nothing.

use std::format;

use super::kit::{EVENTS, kind};
use super::*;
use crate::agent::contract::DialError;
use crate::agent::veil::Veil;
use crate::http::fetch::{FetchError, FetchEvent};
use crate::id::FetchId;
use crate::limits;
use crate::signin::machine as signin;

const A: ChildId = ChildId(1);
const NOBODY: ChildId = ChildId(99);

/// `stopping` waits for the process alone, `closing` for the tunnel's end alone.
const STATES: [&str; 5] = ["new", "running", "stopping", "closing", "done"];

struct Bench {
    rig: Rig,
    /// What the server knows the call by.
    id: Value,
    /// What `a` is pinned under.
    key: String,
}

fn three_servers() -> AgentConfig {
    let mut config = config(&["a"]);
    let life = Life { era: EraChoice::Legacy, ..Life::default() };
    let transport = Transport::Http { url: "http://127.0.0.1:1/mcp".to_string(), headers: [].into() };
    config.servers.insert("h".to_string(), ServerConfig { transport, start_timeout_secs: 60, life: life.clone() });
    config.servers.insert("z".to_string(), ServerConfig { life: Life { lazy: true, ..life }, ..stdio("z") });
    config
}

fn tokens(rig: &Rig) -> Event {
    let expires = (rig.now.unix + Duration::from_secs(3600)).as_millis();
    let file = json!({
        "issuer": "https://relay.example", "clientId": "mcp-local-tunnel-agent",
        "accessToken": "access", "refreshToken": "refresh", "expiresAt": expires,
    });
    Event::Signin(signin::Event::Loaded(Some(Bytes::from(file.to_string()))))
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut bench = Self { rig: Rig::new(three_servers(), None), id: Value::Null, key: String::new() };
        bench.read_pins();
        if state != "new" {
            bench.run();
        }
        let steps: &[&str] = match state {
            "new" | "running" => &[],
            "stopping" => &["stop", "closed"],
            "closing" => &["stop", "exited"],
            "done" => &["stop", "exited", "closed"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            bench.rig.event(match *step {
                "stop" => Event::Stop,
                "exited" => Event::Exited { child: A, code: Some(0), signal: None, stderr: String::new() },
                "closed" => Event::Tunnel { conn: ConnId(1), event: closed() },
                other => panic!("no such step: {other}"),
            });
        }
        bench.rig.actions.clear();
        let phase = if state == "closing" { "stopping" } else { state };
        assert_eq!(bench.rig.agent.phase(), phase, "the way into it");
        bench
    }

    fn run(&mut self) {
        let rig = &mut self.rig;
        rig.event(Event::Start { person: Person::Absent });
        rig.event(tokens(rig));
        assert_eq!(rig.bring_up("a", &["tool"]), A);
        rig.connect(Dialect::V2);
        rig.call(1, "a", "{}");
        self.id = rig.written(A).pop().expect("it was called")["id"].clone();
    }

    /// What the servers are pinned under is asked for before anything else, the first's first.
    fn read_pins(&mut self) {
        let first = self.rig.agent.poll_action();
        let Some(Action::LoadPins { key }) = first else { panic!("{first:?}") };
        self.rig.event(Event::PinsLoaded { key: key.clone(), result: Ok(None) });
        self.key = key;
    }

    fn event(&self, row: &str) -> Event {
        let rig = &self.rig;
        let child = if row.ends_with("of nobody") { NOBODY } else { A };
        let conn = if row.ends_with("of nobody") { ConnId(99) } else { ConnId(1) };
        let fetch = FetchId(if row.ends_with("of nobody") { 99 } else { 1 });
        let key = if row.ends_with("of nobody") { "nobody".to_string() } else { self.key.clone() };
        let control = |command| Event::Control { job: JobId(1), command };
        let id = &self.id;
        match row {
            "WishesRecalled" => Event::WishesRecalled { json: Bytes::from_static(b"{}") },
            "Start" => Event::Start { person: Person::Absent },
            "Signin, start" => Event::Signin(signin::Event::Start { person: Person::Absent }),
            "Signin, loaded" => tokens(rig),
            "Signin, fetched of nobody" => {
                let result = Err(FetchError::Connect("refused".to_string()));
                Event::Signin(signin::Event::Fetched { fetch, result })
            }
            "Dialed" | "Dialed of nobody" => Event::Dialed { conn, dialect: Dialect::V2 },
            "DialFailed" | "DialFailed of nobody" => Event::DialFailed { conn, error: DialError::TimedOut },
            "Tunnel, up" | "Tunnel, up of nobody" => Event::Tunnel { conn, event: tunnel::Event::Up(Hello::default()) },
            "Tunnel, call" | "Tunnel, call of nobody" => {
                let head =
                    OpenHead { server: "a".into(), method: "tools/call".into(), length: 2, ..OpenHead::default() };
                let params = Bytes::from_static(b"{}");
                Event::Tunnel { conn, event: tunnel::Event::Call { stream: StreamId(2), head, params } }
            }
            "Tunnel, restart" | "Tunnel, restart of nobody" => {
                Event::Tunnel { conn, event: tunnel::Event::Restart { server: None } }
            }
            "Tunnel, closed" | "Tunnel, closed of nobody" => Event::Tunnel { conn, event: closed() },
            "Veiled" | "Veiled of nobody" => Event::Veiled { child, veil: Veil::default() },
            "Spawned" | "Spawned of nobody" => Event::Spawned { child, pid: 7 },
            "SpawnFailed" | "SpawnFailed of nobody" => Event::SpawnFailed { child, error: "gone".to_string() },
            "Line" | "Line of nobody" => {
                let line = json!({"jsonrpc": "2.0", "id": id, "result": {}}).to_string();
                Event::Line { child, line: Bytes::from(line) }
            }
            "LineTooLong" | "LineTooLong of nobody" => {
                let prefix = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"#));
                Event::LineTooLong {
                    child,
                    prefix,
                    suffix: Bytes::from_static(b"}}"),
                    length: limits::MAX_MESSAGE as u64 + 1,
                }
            }
            "Wrote" | "Wrote of nobody" => Event::Wrote { child, bytes: 1 },
            "OutputEnded" | "OutputEnded of nobody" => Event::OutputEnded { child },
            "Exited" | "Exited of nobody" => {
                Event::Exited { child, code: Some(1), signal: None, stderr: "boom".to_string() }
            }
            "Fetch" | "Fetch of nobody" => {
                Event::Fetch { fetch, event: FetchEvent::Failed(FetchError::Connect("refused".to_string())) }
            }
            "Recalled" => Event::Recalled { server: "z".to_string(), catalog: None },
            "Recalled of nobody" => Event::Recalled { server: "nobody".to_string(), catalog: None },
            "ConfigRead" => Event::ConfigRead(Ok(AgentConfig {
                servers: three_servers().servers.into_iter().chain([("b".to_string(), stdio("b"))]).collect(),
                ..three_servers()
            })),
            "ConfigRead, failed" => Event::ConfigRead(Err("the disk is away".to_string())),
            "PinsLoaded" | "PinsLoaded of nobody" => Event::PinsLoaded { key, result: Ok(None) },
            "PinsSaved" | "PinsSaved of nobody" => {
                Event::PinsSaved { key, result: Err(Unsaved::Failed("the disk is full".to_string())) }
            }
            "Nudge" => Event::Nudge,
            "NetworkChanged" => Event::NetworkChanged,
            "AuditWritten" => Event::AuditWritten(Err("the disk is full".to_string())),
            "Control, status" => control(ControlCommand::Status),
            "Control, restart" => control(ControlCommand::Restart { server: None }),
            "Control, approvals" => control(ControlCommand::Approvals { params: true }),
            "Control, approve of nobody" => control(ControlCommand::Approve { id: 99, always: true }),
            "Control, deny of nobody" => control(ControlCommand::Deny { id: 99 }),
            "Control, pins" => control(ControlCommand::Pins { definitions: true }),
            "Control, pins approve of nobody" => {
                control(ControlCommand::PinsApprove { server: Some("nobody".to_string()), tool: None })
            }
            "Stop" => Event::Stop,
            other => panic!("no such event: {other}"),
        }
    }

    fn give(&mut self, event: Event) -> String {
        let before = self.rig.agent.phase();
        self.rig.agent.handle_event(event, self.rig.now);
        let mut said: Vec<String> = Vec::new();
        while let Some(action) = self.rig.agent.poll_action() {
            said.push(words(&action));
        }
        let phase = self.rig.agent.phase();
        if phase != before {
            said.push(format!("→ {phase}"));
        }
        if said.is_empty() { ".".to_string() } else { said.join(", ") }
    }
}

fn closed() -> tunnel::Event {
    tunnel::Event::Closed(Close::new(CloseCode::GoingAway, "for a reason"))
}

fn words(action: &Action) -> String {
    match action {
        Action::Signin(signin::Action::Load) => "load the sign-in".to_string(),
        Action::Dial { conn, .. } => format!("dial {conn}"),
        Action::Tunnel { command: Command::Answer { outcome: Outcome::Result, .. }, .. } => "answer".to_string(),
        Action::Tunnel { command: Command::Answer { outcome: Outcome::Error { code }, .. }, .. } => {
            format!("error {code}")
        }
        Action::Tunnel { command: Command::Catalog(_), .. } => "catalog".to_string(),
        Action::Tunnel { command: Command::Probe, .. } => "probe".to_string(),
        Action::Tunnel { command: Command::GoAway, .. } => "go away".to_string(),
        Action::Tunnel { conn, command: Command::Close(_) } => format!("close {conn}"),
        Action::Spawn { child, spawn } => format!("start {} as {child}", spawn.server),
        Action::Write { bytes, .. } => {
            let json: Value = serde_json::from_slice(bytes).expect("JSON");
            format!("tell {}", json["method"].as_str().expect("a method").rsplit('/').next().expect("one"))
        }
        Action::CloseStdin { child } => format!("close input {child}"),
        Action::Kill { child, force } => format!("{} {child}", if *force { "kill" } else { "end" }),
        Action::Fetch { fetch, .. } => format!("fetch {fetch}"),
        Action::AbortFetch { fetch } => format!("abort fetch {fetch}"),
        Action::Recall { server } => format!("recall {server}"),
        Action::ReadConfig => "read the configuration".to_string(),
        Action::LoadPins { key } => format!("load pins {}", key.split('-').next().expect("one")),
        Action::ControlReply { json, .. } => {
            let json: Value = serde_json::from_slice(json).expect("JSON");
            if json["error"].is_string() { "refusal" } else { "reply" }.to_string()
        }
        Action::Exit(exit) => format!("exit {exit:?}"),
        other => panic!("not expected of any: {other:?}"),
    }
}

/// What follows each event, in the order of [`STATES`]. The first word of a row is the event's name.
const TABLE: &[(&str, [&str; 5])] = &[
    // new, running, stopping, closing, done
    ("WishesRecalled", ["."; 5]),
    ("Start", ["load the sign-in, → running", ".", ".", ".", "."]),
    ("Signin, start", ["."; 5]),
    ("Signin, loaded", ["."; 5]),
    ("Signin, fetched of nobody", ["."; 5]),
    // A connection that comes about too late is closed.
    ("Dialed", ["close 1", "close 1", "close 1", "close 1", "."]),
    ("Dialed of nobody", ["close 99", "close 99", "close 99", "close 99", "."]),
    ("DialFailed", ["."; 5]),
    ("DialFailed of nobody", ["."; 5]),
    ("Tunnel, up", [".", "catalog", ".", ".", "."]),
    ("Tunnel, up of nobody", ["."; 5]),
    ("Tunnel, call", [".", "tell call", ".", ".", "."]),
    ("Tunnel, call of nobody", ["."; 5]),
    ("Tunnel, restart", [".", "read the configuration", ".", ".", "."]),
    ("Tunnel, restart of nobody", ["."; 5]),
    ("Tunnel, closed", [".", "tell cancelled", ".", "exit Stopped, → done", "."]),
    ("Tunnel, closed of nobody", ["."; 5]),
    ("Veiled", ["."; 5]),
    ("Veiled of nobody", ["."; 5]),
    // One that was told to end before it ran is told again.
    ("Spawned", [".", ".", "close input 1", ".", "."]),
    ("Spawned of nobody", ["."; 5]),
    ("SpawnFailed", [".", ".", "exit Stopped, → done", ".", "."]),
    ("SpawnFailed of nobody", ["."; 5]),
    ("Line", [".", "answer", ".", ".", "."]),
    ("Line of nobody", ["."; 5]),
    ("LineTooLong", [".", "error -32012", ".", ".", "."]),
    ("LineTooLong of nobody", ["."; 5]),
    ("Wrote", ["."; 5]),
    ("Wrote of nobody", ["."; 5]),
    ("OutputEnded", ["."; 5]),
    ("OutputEnded of nobody", ["."; 5]),
    ("Exited", [".", "error -32010, catalog", "exit Stopped, → done", ".", "."]),
    ("Exited of nobody", ["."; 5]),
    ("Fetch", [".", "catalog", ".", ".", "."]),
    ("Fetch of nobody", ["."; 5]),
    ("Recalled", [".", "start z as 2, catalog", ".", ".", "."]),
    ("Recalled of nobody", ["."; 5]),
    ("ConfigRead", [".", "load pins b, start b as 2, load pins a, load pins h, load pins z, catalog", ".", ".", "."]),
    ("ConfigRead, failed", [".", "catalog", ".", ".", "."]),
    ("PinsLoaded", ["."; 5]),
    ("PinsLoaded of nobody", ["."; 5]),
    ("PinsSaved", ["."; 5]),
    ("PinsSaved of nobody", ["."; 5]),
    ("Nudge", [".", "probe", ".", ".", "."]),
    ("NetworkChanged", ["."; 5]),
    ("AuditWritten", ["."; 5]),
    ("Control, status", ["reply", "reply", "reply", "reply", "."]),
    ("Control, restart", ["refusal", "read the configuration", "refusal", "refusal", "."]),
    ("Control, approvals", ["reply", "reply", "reply", "reply", "."]),
    ("Control, approve of nobody", ["refusal", "refusal", "refusal", "refusal", "."]),
    ("Control, deny of nobody", ["refusal", "refusal", "refusal", "refusal", "."]),
    ("Control, pins", ["reply", "reply", "reply", "reply", "."]),
    ("Control, pins approve of nobody", ["refusal", "refusal", "refusal", "refusal", "."]),
    (
        "Stop",
        [
            "exit Stopped, → done",
            "close input 1, abort fetch 1, go away, close 1, error -32010, → stopping",
            "kill 1",
            ".",
            ".",
        ],
    ),
];

#[test]
fn every_event_in_every_phase() {
    let mut covered: Vec<&str> = Vec::new();
    for (row, expected) in TABLE {
        for (state, expected) in STATES.into_iter().zip(expected) {
            let mut bench = Bench::in_state(state);
            let event = bench.event(row);
            let name = kind(&event);
            assert_eq!(row.split([' ', ',']).next(), Some(name), "{row} is what it is called");
            covered.push(name);
            assert_eq!(bench.give(event), *expected, "{row} while {state}");
            let waits = bench.rig.agent.poll_timeout().is_some();
            assert!(!waits || bench.rig.agent.phase() != "done", "{row} while {state}: who is done waits for nothing");
        }
    }
    covered.dedup();
    assert_eq!(covered, EVENTS, "every event has its rows");
}
