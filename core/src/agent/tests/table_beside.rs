//! What a server asks with no call open: every event in every state. What follows: who is told or asked, and what the server
//! is answered. `.`: nothing.

use std::format;

use super::kit::{KINDS, WHOLE, look, restart, said, strangers};
use super::*;
use crate::limits;
use crate::table::Table;

const A: ChildId = ChildId(1);

/// Of the question "q", and of who has used the server: the sessions `one` and `two`, and somebody without a session.
const STATES: [(&str, &str); 12] = [
    ("nobody", "; ready"),
    ("one", "; ready"),
    ("two", "; ready"),
    ("two, one told of roots", "keep, answer 9 ×2, note list_changed; ready"),
    ("a stranger too", "; ready"),
    ("long ago", "keep, answer 9; ready"),
    ("older relay", "; ready"),
    ("asked", "keep, answer 9, tells one: list; ready, 1 questions beside calls"),
    ("answered", "keep, answer 9, tells one: list | reply; ready"),
    ("taken back", "keep, answer 9, tells one: list | tells one: cancelled; ready"),
    ("given up", "keep, answer 9, tells one: list | refusal -32001, tells one: cancelled; ready"),
    ("session over", "keep, answer 9, tells one: list | refusal -32011; ready"),
];

fn question(id: &str, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"_meta": {"progressToken": "t"}, "messages": []}})
}

/// The agent, and what came out on the way to the state.
fn in_state(state: &str) -> (Rig, String) {
    let mut rig = Rig::ready(&["a"]);
    let sessions: &[&str] = match state {
        "nobody" => &[],
        "two" | "two, one told of roots" => &["one", "two"],
        "a stranger too" => &["one", ""],
        _ => &["one"],
    };
    for session in sessions {
        rig.call_in(9, session);
        let id = rig.written(A).pop().expect("it is asked")["id"].clone();
        rig.answer(A, &id, json!({}));
    }
    let asked = ["asked", "answered", "taken back", "given up", "session over"].contains(&state);
    let mut way = Vec::new();
    if asked {
        way.push(give(&mut rig, "question"));
    }
    let step = match state {
        "two, one told of roots" => Some("one tells of its roots"),
        "long ago" => Some("an hour"),
        "answered" => Some("answer"),
        "taken back" => Some("taken back"),
        "given up" => Some("ten minutes"),
        "session over" => Some("session over"),
        _ => None,
    };
    if let Some(step) = step {
        way.push(give(&mut rig, step));
    }
    if state == "older relay" {
        rig.closed(CloseCode::TimedOut);
        rig.advance(limits::RECONNECT_MAX);
        rig.conn = rig.dialled().expect("it is dialled again");
        rig.event(Event::Dialed { conn: rig.conn, dialect: Dialect::V2 });
        rig.tunnel(tunnel::Event::Up(Hello::default()));
    }
    rig.actions.clear();
    (rig, way.join(" | "))
}

fn give(rig: &mut Rig, event: &str) -> String {
    let answer = |id: &str| json!({"jsonrpc": "2.0", "id": id, "result": {}});
    let roots = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let progress = |token: &str| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    match event {
        "question" => rig.say(A, &question("q", "roots/list")),
        "another question" => rig.say(A, &question("r", "sampling/createMessage")),
        "question that it may not ask" => rig.say(A, &question("r", "elicitation/create")),
        "question that is too long" => {
            let mut long = question("r", "roots/list");
            long["params"]["x"] = json!("x".repeat(limits::MAX_NOTICE));
            rig.say(A, &long);
        }
        "question in a call of two" => {
            rig.call_in(1, "two");
            rig.actions.clear();
            rig.say(A, &question("r", "roots/list"));
        }
        "ping" => rig.say(A, &json!({"jsonrpc": "2.0", "id": "r", "method": "ping"})),
        "answer" => rig.session_says("one", &answer("q")),
        "refusal" => {
            rig.session_says("one", &json!({"jsonrpc": "2.0", "id": "q", "error": {"code": -1, "message": "no"}}));
        }
        "answer to another" => rig.session_says("one", &answer("r")),
        "answer of two" => rig.session_says("two", &answer("q")),
        "answer in a call" => rig.client_says(1, &answer("q")),
        "progress" => rig.session_says("one", &progress("t")),
        "progress of another" => rig.session_says("one", &progress("u")),
        "one tells of its roots" => rig.session_says("one", &roots),
        "two tells of its roots" => rig.session_says("two", &roots),
        "taken back" => {
            rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}}));
        }
        "ten minutes" => rig.advance(limits::BESIDE_PATIENCE),
        "an hour" => rig.advance(limits::SESSION_IN_USE),
        "session over" => rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() }),
        "two is over" => rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() }),
        "tunnel closed" => rig.closed(CloseCode::Refused),
        "server ends" => rig.exited(A, 1, "boom"),
        "restart" => restart(rig),
        "stop" => rig.event(Event::Stop),
        "what concerns others" => strangers(rig),
        other => panic!("no such event: {other}"),
    }
    said(rig)
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 12])] = &[
    // nobody, one, two, told of roots, stranger too, long ago, older relay, asked, answered, taken back, given up, session over
    (
        "question",
        [
            "refusal -32601",
            "tells one: list",
            "refusal -32015",
            "tells one: list",
            "refusal -32015",
            "refusal -32601",
            "refusal -32601",
            ".",
            "tells one: list",
            "tells one: list",
            "tells one: list",
            "refusal -32601",
        ],
    ),
    (
        "another question",
        [
            "refusal -32601",
            "tells one: createMessage",
            "refusal -32015",
            "refusal -32015",
            "refusal -32015",
            "refusal -32601",
            "refusal -32601",
            "tells one: createMessage",
            "tells one: createMessage",
            "tells one: createMessage",
            "tells one: createMessage",
            "refusal -32601",
        ],
    ),
    (
        "question that it may not ask",
        [
            "refusal -32601",
            "refusal -32601",
            "refusal -32015",
            "refusal -32015",
            "refusal -32015",
            "refusal -32601",
            "refusal -32601",
            "refusal -32601",
            "refusal -32601",
            "refusal -32601",
            "refusal -32601",
            "refusal -32601",
        ],
    ),
    (
        "question that is too long",
        [
            "refusal -32601",
            "refusal -32012",
            "refusal -32015",
            "refusal -32012",
            "refusal -32015",
            "refusal -32601",
            "refusal -32601",
            "refusal -32012",
            "refusal -32012",
            "refusal -32012",
            "refusal -32012",
            "refusal -32601",
        ],
    ),
    ("question in a call of two", ["says list 1"; 12]),
    ("ping", ["reply"; 12]),
    ("answer", [".", ".", ".", ".", ".", ".", ".", "reply", ".", ".", ".", "."]),
    ("refusal", [".", ".", ".", ".", ".", ".", ".", "refusal -1", ".", ".", ".", "."]),
    ("answer to another", ["."; 12]),
    ("answer of two", ["."; 12]),
    ("answer in a call", ["."; 12]),
    ("progress", [".", ".", ".", ".", ".", ".", ".", "note progress", ".", ".", ".", "."]),
    ("progress of another", ["."; 12]),
    ("one tells of its roots", ["note list_changed"; 12]),
    ("two tells of its roots", ["note list_changed"; 12]),
    ("taken back", [".", ".", ".", ".", ".", ".", ".", "tells one: cancelled", ".", ".", ".", "."]),
    (
        "ten minutes",
        [".", ".", "keep", "keep", ".", ".", ".", "refusal -32001, tells one: cancelled", ".", ".", ".", "keep"],
    ),
    ("session over", [".", ".", ".", ".", ".", "keep", "keep", "refusal -32011", ".", ".", "keep", "."]),
    ("two is over", ["."; 12]),
    ("tunnel closed", [".", ".", ".", ".", ".", ".", ".", "refusal -32011", ".", ".", ".", "."]),
    ("server ends", [".", ".", ".", ".", ".", ".", ".", "tells one: cancelled", ".", ".", ".", "."]),
    (
        "restart",
        [
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input, tells one: cancelled",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
            "read the configuration, close input",
        ],
    ),
    (
        "stop",
        [
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
        ],
    ),
    ("what concerns others", ["."; 12]),
];

const SPARED: &[(&str, &[&str])] =
    &[WHOLE, ("the relay's restart is as the operator's: table_runs", &["tunnel: Restart"])];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        in_state,
        |(rig, way)| format!("{way}; {}", look(rig, "a")),
        |(mut rig, _), event| give(&mut rig, event),
    );
}
