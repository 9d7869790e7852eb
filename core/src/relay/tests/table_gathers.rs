//! A request that several servers work on: every event in every state. What follows is said in
//! short; `.`: nothing.

use super::kit::*;
use super::*;
use crate::limits;
use crate::table::{Table, every_cell};

/// Of a request that the servers `a` and `b` work on, on the streams 1 and 2. "half": `b` did it; "refused": `b` did
/// not. "stream": it took so long that its reply is an event stream.
const STATES: [(&str, &str); 9] = [
    ("unasked", ".; "),
    ("asked", "open 1/1, open 1/2; call of a gathering, call of a gathering, 1 exchanges, 1 gathers"),
    ("half", "open 1/1, open 1/2; call of a gathering, 1 exchanges, 1 gathers"),
    ("refused", "open 1/1, open 1/2; call of a gathering, 1 exchanges, 1 gathers"),
    (
        "stream",
        "open 1/1, open 1/2, begin 1, priming 1; call of a gathering, call of a gathering, 1 exchanges, 1 gathers, 1 kept streams",
    ),
    ("left", "open 1/1, open 1/2; call of a gathering, call of a gathering, 1 gathers"),
    (
        "away",
        "open 1/1, open 1/2, begin 1, priming 1; call of a gathering, call of a gathering, 1 gathers, 1 kept streams",
    ),
    ("done", "open 1/1, open 1/2, reply 200 fine; "),
    (
        "late",
        "open 1/1, open 1/2, begin 1, priming 1, -32001 1, finish 1; call of a gathering, call of a gathering, 1 kept streams",
    ),
];

fn in_state(state: &str) -> (World, String) {
    let mut world = World { version: Version::V2025_11_25, shows_ids: true, ..aggregate::two_servers() };
    world.advance(limits::ANNOUNCE_LATE);
    let mut id = "wVwCiewt-77-1".to_string();
    if state == "unasked" {
        return (world, id);
    }
    world.post(&aggregate::request(7, "logging/setLevel", r#"{"level":"error"}"#));
    match state {
        "half" => drop(aggregate::answered(&mut world, 2, "{}")),
        "refused" => drop(refused(&mut world, 2)),
        "stream" => id = last_id(&world.advance(limits::STREAM_AFTER)),
        "left" => drop(world.gone(1)),
        "away" => {
            id = last_id(&world.advance(limits::STREAM_AFTER));
            world.gone(1);
        }
        "done" => {
            aggregate::answered(&mut world, 2, "{}");
            aggregate::answered(&mut world, 1, "{}");
        }
        "late" => drop(world.advance(limits::GATHER_PATIENCE)),
        _ => {}
    }
    (world, id)
}

fn give((mut world, id): (World, String), event: &str) -> String {
    let actions = match event {
        "answer" => aggregate::answered(&mut world, 1, "{}"),
        "error" => refused(&mut world, 1),
        "no JSON" => aggregate::answered(&mut world, 1, "}"),
        "message" => world.progress(1, 1),
        "question" => world.said(1, r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#),
        "reset" => reset(&mut world, 1),
        "tunnel closed" => lose(&mut world),
        "cancelled" => world.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#),
        "silence" => world.advance(limits::STREAM_AFTER),
        "patience" => world.advance(limits::GATHER_PATIENCE),
        "client gone" => world.gone(1),
        "comes back" => back(&mut world, &id),
        "signed out" => revoke(&mut world),
        "session over" => session_over(&mut world),
        "relay stops" => stop(&mut world),
        "what concerns others" => strangers(&mut world),
        "notes" => notes(&mut world),
        "all signed out" => revoke_all(&mut world),
        other => panic!("no such event: {other}"),
    };
    said(&actions)
}

const NEW: &str = "begin 2, priming 2, heartbeat 2";

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 9])] = &[
    // unasked, asked, half, refused, stream, left, away, done, late
    ("answer", [".", ".", "reply 200 fine", "reply 200 fine", ".", ".", ".", ".", "."]),
    ("error", [".", ".", "reply 200 fine", "reply 200 -32050", ".", ".", ".", ".", "."]),
    (
        "no JSON",
        [".", "reset", "reset, reply 200 fine", "reset, reply 200 -32603", "reset", "reset", "reset", ".", "reset"],
    ),
    // What one of several servers says before its answer has no stream.
    ("message", [".", "consumed", "consumed", "consumed", "consumed", "consumed", "consumed", ".", "consumed"]),
    (
        "question",
        [
            ".",
            "declined -32601, consumed",
            "declined -32601, consumed",
            "declined -32601, consumed",
            "declined -32601, consumed",
            "declined -32601, consumed",
            "declined -32601, consumed",
            ".",
            "declined -32601, consumed",
        ],
    ),
    ("reset", [".", ".", "reply 200 fine", "reply 200 -32010", ".", ".", ".", ".", "."]),
    (
        "tunnel closed",
        [".", "reply 200 -32000", "reply 200 fine", "reply 200 -32000", "-32000 1, finish 1", ".", ".", ".", "."],
    ),
    // It is done in a moment: nothing is taken back.
    ("cancelled", ["reply 202"; 9]),
    ("silence", [".", "begin 1, priming 1", "begin 1, priming 1", "begin 1, priming 1", ".", ".", ".", ".", "."]),
    (
        "patience",
        [
            ".",
            "begin 1, priming 1, -32001 1, finish 1",
            "begin 1, priming 1, fine 1, finish 1",
            "begin 1, priming 1, -32050 1, finish 1",
            "-32001 1, finish 1",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    ("client gone", ["."; 9]),
    ("comes back", ["begin 1, priming 1, heartbeat 1", NEW, NEW, NEW, "abort 1, begin 2", NEW, "begin 2", NEW, NEW]),
    (
        "signed out",
        [
            ".",
            "reply 200 -32011, reset ×2",
            "reply 200 -32011, reset",
            "reply 200 -32011, reset",
            "-32011 1, finish 1, reset ×2",
            "reset ×2",
            "reset ×2",
            ".",
            "reset ×2",
        ],
    ),
    (
        "session over",
        [
            "session over",
            "reply 200 -32011, reset ×2, session over",
            "reply 200 -32011, reset, session over",
            "reply 200 -32011, reset, session over",
            "-32011 1, finish 1, reset ×2, session over",
            "reset ×2, session over",
            "reset ×2, session over",
            "session over",
            "reset ×2, session over",
        ],
    ),
    (
        "relay stops",
        [
            "close 1",
            "reply 200 -32000, close 1",
            "reply 200 -32000, close 1",
            "reply 200 -32000, close 1",
            "-32000 1, finish 1, close 1",
            "close 1",
            "close 1",
            "close 1",
            "close 1",
        ],
    ),
    (
        "all signed out",
        [
            "close 1",
            "close 1, reply 200 -32000",
            "close 1, reply 200 fine",
            "close 1, reply 200 -32000",
            "close 1, -32000 1, finish 1",
            "close 1",
            "close 1",
            "close 1",
            "close 1",
        ],
    ),
    (
        "notes",
        [
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
            "passed, reply 202 ×2",
        ],
    ),
    ("what concerns others", ["."; 9]),
];

const SPARED: &[(&str, &[&str])] = &[
    ("another tunnel: table_lives", &["TunnelUp"]),
    ("each begins what has its own table", &["post: Request", "post: Batch"]),
];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(in_state, |(world, _)| look(world), give);
}

/// How each of two servers answers.
const ANSWERS: [&str; 6] = ["fine", "empty", "refused", "no JSON", "gone", "silent"];

fn part(world: &mut World, stream: u32, answer: &str, fine: &str) -> Vec<String> {
    match answer {
        "fine" => aggregate::answered(world, stream, fine),
        "empty" => aggregate::answered(world, stream, "{}"),
        "refused" => refused(world, stream),
        "no JSON" => aggregate::answered(world, stream, "}"),
        "gone" => reset(world, stream),
        "silent" => Vec::new(),
        other => panic!("no such answer: {other}"),
    }
}

/// What a client is told in the end when `a` answers that way and `b` this.
fn both((a, b): (&str, &str), method: &str, params: &str, fine: &str) -> String {
    let mut world = World { version: Version::V2025_11_25, ..aggregate::two_servers() };
    world.accepts = Accepts::Json;
    world.post(&aggregate::request(7, method, params));
    let mut told = part(&mut world, 1, a, fine);
    told.extend(part(&mut world, 2, b, fine));
    told.extend(world.advance(limits::GATHER_PATIENCE));
    told.retain(|action| !action.contains(" reset "));
    said(&told)
}

/// The rows are what `b` answers, the columns [`ANSWERS`] of `a`.
type Both = [(&'static str, [&'static str; 6])];

/// One that takes it is enough; else the first says why not, in the order of the servers.
const LEVEL: &Both = &[
    // fine, empty, refused, no JSON, gone, silent
    ("fine", ["reply 200 fine"; 6]),
    ("empty", ["reply 200 fine"; 6]),
    (
        "refused",
        [
            "reply 200 fine",
            "reply 200 fine",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32050",
        ],
    ),
    (
        "no JSON",
        [
            "reply 200 fine",
            "reply 200 fine",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32603",
        ],
    ),
    (
        "gone",
        [
            "reply 200 fine",
            "reply 200 fine",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32010",
        ],
    ),
    (
        "silent",
        [
            "reply 200 fine",
            "reply 200 fine",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32001",
        ],
    ),
];

/// As far as there are lists; one without a list of tasks is no list.
const LIST: &Both = &[
    // fine, empty, refused, no JSON, gone, silent
    ("fine", ["reply 200 fine"; 6]),
    (
        "empty",
        [
            "reply 200 fine",
            "reply 200 -32603",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32603",
        ],
    ),
    (
        "refused",
        [
            "reply 200 fine",
            "reply 200 -32603",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32050",
        ],
    ),
    (
        "no JSON",
        [
            "reply 200 fine",
            "reply 200 -32603",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32603",
        ],
    ),
    (
        "gone",
        [
            "reply 200 fine",
            "reply 200 -32603",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32010",
        ],
    ),
    (
        "silent",
        [
            "reply 200 fine",
            "reply 200 -32603",
            "reply 200 -32050",
            "reply 200 -32603",
            "reply 200 -32010",
            "reply 200 -32001",
        ],
    ),
];

/// The one that has it: its request goes there. Two that say so are none.
const SEARCH: &Both = &[
    // fine, empty, refused, no JSON, gone, silent
    ("fine", ["reply 200 -32015", "reply 200 -32015", "open 1/3", "open 1/3", "open 1/3", "open 1/3"]),
    ("empty", ["reply 200 -32015", "reply 200 -32015", "open 1/3", "open 1/3", "open 1/3", "open 1/3"]),
    (
        "refused",
        ["open 1/3", "open 1/3", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602"],
    ),
    (
        "no JSON",
        ["open 1/3", "open 1/3", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602"],
    ),
    ("gone", ["open 1/3", "open 1/3", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602"]),
    (
        "silent",
        ["open 1/3", "open 1/3", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602", "reply 200 -32602"],
    ),
];

#[test]
fn every_answer_of_one_server_with_every_answer_of_another() {
    let level = |a: &str, b: &str| both((a, b), "logging/setLevel", r#"{"level":"error"}"#, "{}");
    every_cell(ANSWERS, LEVEL, level);
    every_cell(ANSWERS, LIST, |a, b| both((a, b), "tasks/list", "{}", r#"{"tasks":[]}"#));
    let task = r#"{"taskId":"t"}"#;
    every_cell(ANSWERS, SEARCH, |a, b| both((a, b), "tasks/result", task, task));
}
