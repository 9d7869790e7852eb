//! Every event in every state of a stub. What follows is said in short: what is written to the editor, what is asked of
//! the agent, and the end. `.`: nothing.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::table::{TIME, Table};

const STATES: [(&str, &str); 7] = [
    ("idle", "0 calls, 0 batches"),
    ("a call waits", "1 calls, 0 batches"),
    ("attached", "0 calls, 0 batches, attached"),
    ("asked", "1 calls, 0 batches, attached"),
    ("asked in a batch", "1 calls, 1 batches, attached"),
    ("leaving", "1 calls, 0 batches, attached, leaving"),
    ("left", "0 calls, 0 batches, leaving, left"),
];

fn in_state(state: &str) -> Rig {
    let mut rig = Rig::new();
    let steps: &[&str] = match state {
        "idle" => &[],
        "a call waits" => &["call"],
        "attached" => &["attached"],
        "asked" => &["attached", "call"],
        "asked in a batch" => &["batch version", "attached", "batch"],
        "leaving" => &["attached", "call", "input ends"],
        "left" => &["input ends"],
        other => panic!("no such state: {other}"),
    };
    for step in steps {
        give(&mut rig, step);
    }
    rig
}

/// The calls that wait, the batches, how the agent is, and whether the editor has left.
fn look(rig: &Rig) -> String {
    let Stub { calls, batches, leaving, left, .. } = &rig.stub;
    let attached = matches!(rig.stub.link.standing(), link::Standing::Attached);
    let words = [(attached, "attached"), (*leaving, "leaving"), (*left, "left")];
    let words = words.iter().filter(|(is, _)| *is).map(|(_, word)| format!(", {word}")).collect::<String>();
    format!("{} calls, {} batches{words}", calls.len(), batches.len())
}

/// The number of what the agent was asked last; of nobody's otherwise.
fn job(rig: &Rig) -> JobId {
    rig.asked.last().copied().unwrap_or(JobId(1_000_000))
}

fn give(rig: &mut Rig, event: &str) -> String {
    let before = rig.exited;
    let asked = rig.asked.len();
    let ping = || json!({"jsonrpc": "2.0", "id": 7, "method": "ping"});
    match event {
        "batch version" => {
            drop(rig.result("initialize", &json!({"protocolVersion": "2025-03-26", "capabilities": {}})))
        }
        "ping" => rig.line(&ping()),
        "notification" => rig.line(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})),
        "garbage" => rig.hand(Event::Line("{".into())),
        "too long" => rig.hand(Event::LineTooLong),
        "blank line" => rig.hand(Event::Line(" \r".into())),
        "call" => rig.line(&call(&json!(1))),
        "batch" => rig.line(&json!([ping(), call(&json!(1))])),
        "batch of pings" => rig.line(&json!([ping(), ping()])),
        "attached" => rig.attach(),
        "lost" => rig.lose(None),
        "stopped" => rig.lose(Some(Farewell::Stopped)),
        "status" => rig.hand(Event::Status { job: job(rig), outcome: Ok(document().to_string().into()) }),
        "no status" => rig.hand(Event::Status { job: job(rig), outcome: Err("away".into()) }),
        "status of another" => {
            rig.hand(Event::Status { job: JobId(999_999), outcome: Ok(document().to_string().into()) });
        }
        "input ends" => rig.hand(Event::InputEnded),
        "early wake" => {
            rig.stub.handle_timeout(rig.now);
            rig.drain();
        }
        "time is over" => rig.pass(limits::STUB_CALL),
        other => panic!("no such event: {other}"),
    }
    let mut said: Vec<String> = rig.wrote.drain(..).map(|message| written(&message)).collect();
    if rig.asked.len() > asked {
        said.push("ask".into());
    }
    if rig.exited && !before {
        said.push("exit".into());
    }
    if said.is_empty() { ".".into() } else { said.join(", ") }
}

fn written(message: &Value) -> String {
    if let Some(batch) = message.as_array() {
        return format!("[{}]", batch.iter().map(written).collect::<Vec<_>>().join(" "));
    }
    match (&message["error"]["code"], &message["result"]["structuredContent"]["agent"]) {
        (Value::Null, Value::Null) => "pong".into(),
        (Value::Null, agent) => agent.as_str().expect("a word").into(),
        (code, _) => format!("error {code}"),
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 7])] = &[
    // idle, a call waits, attached, asked, asked in a batch, leaving, left
    ("ping", ["pong", "pong", "pong", "pong", "pong", "pong", "."]),
    ("notification", ["."; 7]),
    ("garbage", ["error -32700", "error -32700", "error -32700", "error -32700", "error -32700", "error -32700", "."]),
    ("too long", ["error -32600", "error -32600", "error -32600", "error -32600", "error -32600", "error -32600", "."]),
    ("blank line", ["."; 7]),
    ("call", [".", ".", "ask", "ask", "ask", "ask", "."]),
    // Only one revision has batches.
    (
        "batch of pings",
        ["error -32600", "error -32600", "error -32600", "error -32600", "[pong pong]", "error -32600", "."],
    ),
    ("attached", [".", "ask", ".", ".", ".", ".", "."]),
    // What that agent was asked, the next one is asked.
    ("lost", ["."; 7]),
    ("stopped", [".", ".", ".", "stopped", "[pong stopped]", "stopped, exit", "."]),
    ("status", [".", ".", ".", "running", "[pong running]", "running, exit", "."]),
    ("no status", ["."; 7]),
    ("status of another", ["."; 7]),
    ("input ends", ["exit", ".", "exit", ".", ".", ".", "."]),
    ("early wake", ["."; 7]),
    ("time is over", [".", "starting", ".", "unknown", "[pong unknown]", "unknown, exit", "."]),
];

const SPARED: &[(&str, &[&str])] = &[("only the first is of use, and the rig gives it", &["Begun"])];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: &[EVENTS, TIME], spared: SPARED }.check(
        in_state,
        |rig| look(rig),
        |mut rig, event| give(&mut rig, event),
    );
}
