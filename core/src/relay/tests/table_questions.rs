//! What servers ask clients, in a call and with none open: every event in every state. What follows is said in short;
//! `.`: nothing.

use super::kit::*;
use super::*;
use crate::limits;
use crate::table::{TIME, Table};

const QUESTION: &str = r#"{"jsonrpc":"2.0","id":7,"method":"roots/list","params":{"_meta":{"progressToken":"t"}}}"#;
const TAKEN_BACK: &str = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;

/// The name by which a client knows a question.
fn name_of(actions: &[String]) -> String {
    let name = |action: &String| Some(action.split_once(r#"\"id\":\""#)?.1.split_once('\\')?.0.to_string());
    actions.iter().find_map(name).unwrap_or_else(|| "wVwCiewt-77".to_string())
}

fn answer(name: &str, fill: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"{name}","result":{{"x":"{}"}}}}"#, "x".repeat(fill))
}

fn progress(name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"{name}","progress":1}}}}"#
    )
}

mod in_a_call {
    use super::*;

    /// Of the question 7 of a call, which is stream 1. "aside": the call's client takes no stream, but listens on
    /// another; "declined": it has none at all.
    const STATES: [(&str, &str); 8] = [
        ("unasked", "open 1/1; call, 1 exchanges, 1 replies, 1 requests"),
        (
            "asked",
            "open 1/1, begin 1, priming 1, question 1; call, 1 exchanges, 1 kept streams, 1 questions, 1 replies, 1 requests",
        ),
        (
            "away",
            "open 1/1, begin 1, priming 1, question 1; call of who is away, 1 kept streams, 1 questions, 1 requests",
        ),
        (
            "answered",
            "open 1/1, begin 1, priming 1, question 1, answered, reply 202; call, 1 exchanges, 1 kept streams, 1 replies, 1 requests",
        ),
        (
            "taken back",
            "open 1/1, begin 1, priming 1, question 1, taken back 1; call, 1 exchanges, 1 kept streams, 1 replies, 1 requests",
        ),
        ("call over", "open 1/1, begin 1, priming 1, question 1, fine 1, finish 1; 1 kept streams"),
        (
            "aside",
            "begin 1, priming 1, heartbeat 1, open 1/1, question 1, consumed; call, 2 exchanges, 1 kept streams, 1 listeners, 1 questions, 1 replies, 1 requests",
        ),
        ("declined", "open 1/1, declined -32601, consumed; call, 1 exchanges, 1 replies, 1 requests"),
    ];

    /// The world, and what the client calls the question.
    fn in_state(state: &str) -> (World, String) {
        let mut world = World { version: Version::V2025_11_25, ..World::ready() };
        world.advance(limits::ANNOUNCE_LATE);
        if state == "aside" {
            world.listen();
        }
        if state == "aside" || state == "declined" {
            world.accepts = Accepts::Json;
        }
        world.call(1);
        let name = if state == "unasked" { name_of(&[]) } else { name_of(&world.said(1, QUESTION)) };
        match state {
            "away" => drop(world.gone(1)),
            "answered" => drop(world.post(&answer(&name, 0))),
            "taken back" => drop(world.said(1, TAKEN_BACK)),
            "call over" => drop(aggregate::answered(&mut world, 1, "{}")),
            _ => {}
        }
        (world, name)
    }

    fn give((mut world, name): (World, String), event: &str) -> String {
        let actions = match event {
            "question" => world.said(1, &QUESTION.replace("7", "8")),
            "same question" => world.said(1, QUESTION),
            "answer" => world.post(&answer(&name, 0)),
            "answer in another session" => {
                world.session = "t";
                world.post(&answer(&name, 0))
            }
            "answer of another user" => {
                world.user = "bob";
                world.post(&answer(&name, 0))
            }
            "progress" => world.post(&progress(&name)),
            "taken back" => world.said(1, TAKEN_BACK),
            "call answered" => aggregate::answered(&mut world, 1, "{}"),
            "call cancelled" => {
                world.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#)
            }
            "call idle" => world.advance(limits::CALL_IDLE),
            "tunnel closed" => lose(&mut world),
            "client gone" => world.gone(world.exchanges),
            "signed out" => revoke(&mut world),
            "session over" => session_over(&mut world),
            "what concerns others" => strangers(&mut world),
            "notes" => notes(&mut world),
            "all signed out" => revoke_all(&mut world),
            "relay stops" => stop(&mut world),
            other => panic!("no such event: {other}"),
        };
        said(&actions)
    }

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 8])] = &[
        // unasked, asked, away, answered, taken back, call over, aside, declined
        (
            "question",
            [
                "begin 1, priming 1, question 1",
                "question 1",
                "consumed",
                "question 1",
                "question 1",
                ".",
                "question 1, consumed",
                "declined -32601, consumed",
            ],
        ),
        (
            "same question",
            [
                "begin 1, priming 1, question 1",
                "question 1",
                "consumed",
                "question 1",
                "question 1",
                ".",
                "question 1, consumed",
                "declined -32601, consumed",
            ],
        ),
        (
            "answer",
            [
                "reply 202",
                "answered, reply 202",
                "answered, reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "answered, reply 202",
                "reply 202",
            ],
        ),
        ("answer in another session", ["reply 202"; 8]),
        ("answer of another user", ["reply 202"; 8]),
        (
            "progress",
            [
                "reply 202",
                "passed, reply 202",
                "passed, reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "passed, reply 202",
                "reply 202",
            ],
        ),
        (
            "taken back",
            ["consumed", "taken back 1", "consumed", "consumed", "consumed", ".", "taken back 1, consumed", "consumed"],
        ),
        (
            "call answered",
            [
                "reply 200 fine",
                "fine 1, finish 1",
                ".",
                "fine 1, finish 1",
                "fine 1, finish 1",
                ".",
                "reply 200 fine",
                "reply 200 fine",
            ],
        ),
        (
            "call cancelled",
            [
                "cancel, reply 200 -32011, reply 202",
                "cancel, -32011 1, finish 1, reply 202",
                "cancel, reply 202",
                "cancel, -32011 1, finish 1, reply 202",
                "cancel, -32011 1, finish 1, reply 202",
                "reply 202",
                "cancel, reply 200 -32011, reply 202",
                "cancel, reply 200 -32011, reply 202",
            ],
        ),
        (
            "call idle",
            [
                "begin 1, priming 1, reset, -32001 1, finish 1",
                "heartbeat 1, reset, -32001 1, finish 1",
                "reset",
                "heartbeat 1, reset, -32001 1, finish 1",
                "heartbeat 1, reset, -32001 1, finish 1",
                ".",
                "heartbeat 1, reset, reply 200 -32001",
                "reset, reply 200 -32001",
            ],
        ),
        (
            "tunnel closed",
            [
                "reply 200 -32000",
                "-32000 1, finish 1",
                ".",
                "-32000 1, finish 1",
                "-32000 1, finish 1",
                ".",
                "reply 200 -32000",
                "reply 200 -32000",
            ],
        ),
        ("client gone", ["."; 8]),
        (
            "signed out",
            [
                "reset, reply 200 -32011",
                "reset, -32011 1, finish 1",
                "reset",
                "reset, -32011 1, finish 1",
                "reset, -32011 1, finish 1",
                ".",
                "reset, reply 200 -32011, finish 1",
                "reset, reply 200 -32011",
            ],
        ),
        (
            "session over",
            [
                "reset, reply 200 -32011, session over",
                "reset, -32011 1, finish 1, session over",
                "reset, session over",
                "reset, -32011 1, finish 1, session over",
                "reset, -32011 1, finish 1, session over",
                "session over",
                "reset, reply 200 -32011, session over, finish 1",
                "reset, reply 200 -32011, session over",
            ],
        ),
        (
            "all signed out",
            [
                "close 1, reply 200 -32000",
                "close 1, -32000 1, finish 1",
                "close 1",
                "close 1, -32000 1, finish 1",
                "close 1, -32000 1, finish 1",
                "close 1",
                "close 1, reply 200 -32000, finish 1",
                "close 1, reply 200 -32000",
            ],
        ),
        (
            "relay stops",
            [
                "reply 200 -32000, close 1",
                "-32000 1, finish 1, close 1",
                "close 1",
                "-32000 1, finish 1, close 1",
                "-32000 1, finish 1, close 1",
                "close 1",
                "reply 200 -32000, close 1, finish 1",
                "reply 200 -32000, close 1",
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
            ],
        ),
        ("what concerns others", [".", ".", ".", ".", ".", ".", "piece 1", "."]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("a stream of its own: table_lives", &["Listen"]),
        ("another tunnel: table_lives", &["TunnelUp"]),
        ("each begins what has its own table", &["post: Request", "post: Batch"]),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            in_state,
            |(world, _)| look(world),
            give,
        );
    }
}

mod beside_calls {
    use super::*;

    /// Of the question 7, asked on the stream of exchange 1.
    const STATES: [(&str, &str); 10] = [
        ("unheard", ".; "),
        ("listening", "begin 1, priming 1, heartbeat 1; 1 exchanges, 1 kept streams, 1 listeners"),
        ("asked", "begin 1, priming 1, heartbeat 1, question 1; 1 exchanges, 1 kept streams, 1 listeners, 1 questions"),
        ("away", "begin 1, priming 1, heartbeat 1, question 1; 1 kept streams, 1 listeners, 1 questions"),
        (
            "answered",
            "begin 1, priming 1, heartbeat 1, question 1, answered, reply 202; 1 exchanges, 1 kept streams, 1 listeners",
        ),
        (
            "taken back",
            "begin 1, priming 1, heartbeat 1, question 1, taken back 1; 1 exchanges, 1 kept streams, 1 listeners",
        ),
        ("tunnel lost", "begin 1, priming 1, heartbeat 1, question 1; 1 exchanges, 1 kept streams, 1 listeners"),
        ("signed out", "begin 1, priming 1, heartbeat 1, question 1, declined -32011, finish 1; 1 kept streams"),
        ("session ended", "begin 1, priming 1, heartbeat 1, question 1, session over, finish 1; "),
        (
            "old",
            "begin 1, priming 1, heartbeat 1, question 1, heartbeat 1; 1 exchanges, 1 kept streams, 1 listeners, 1 questions",
        ),
    ];

    fn says(world: &mut World, server: &str, sessions: &[&str], json: &str) -> Vec<String> {
        let sessions = sessions.iter().map(ToString::to_string).collect();
        let json = Bytes::copy_from_slice(json.as_bytes());
        world.tunnel(1, tunnel::Event::Notice { server: server.into(), sessions, json });
        world.drain()
    }

    fn in_state(state: &str) -> (World, String) {
        let mut world = World { version: Version::V2025_11_25, ..World::ready() };
        world.catalog(1, &whole(&[server("files", &["read"]), server("git", &[])]));
        world.advance(limits::ANNOUNCE_LATE);
        if state != "unheard" {
            world.listen();
        }
        let is_asked = !matches!(state, "unheard" | "listening");
        let asked = if is_asked { says(&mut world, "files", &["s"], QUESTION) } else { Vec::new() };
        let name = name_of(&asked);
        match state {
            "away" => drop(world.gone(1)),
            "answered" => drop(world.post(&answer(&name, 0))),
            "taken back" => drop(says(&mut world, "files", &["s"], TAKEN_BACK)),
            "tunnel lost" => {
                lose(&mut world);
                world.up(1, "laptop", Some("id-1"));
                world.catalog(1, &files());
                world.drain();
            }
            "signed out" => drop(revoke(&mut world)),
            "session ended" => drop(session_over(&mut world)),
            "old" => drop(world.advance(limits::BESIDE_KEPT)),
            _ => {}
        }
        (world, name)
    }

    fn give((mut world, name): (World, String), event: &str) -> String {
        let actions = match event {
            "question" => says(&mut world, "files", &["s"], &QUESTION.replace("7", "8")),
            "same question" => says(&mut world, "files", &["s"], QUESTION),
            "question to two sessions" => says(&mut world, "files", &["s", "t"], QUESTION),
            "question to everybody" => says(&mut world, "files", &[], QUESTION),
            "question to another session" => says(&mut world, "files", &["t"], QUESTION),
            "answer" => world.post(&answer(&name, 0)),
            "answer that is too long" => world.post(&answer(&name, 1 << 20)),
            "answer in another session" => {
                world.session = "t";
                world.post(&answer(&name, 0))
            }
            "progress" => world.post(&progress(&name)),
            "taken back" => says(&mut world, "files", &["s"], TAKEN_BACK),
            "taken back by another server" => says(&mut world, "git", &["s"], TAKEN_BACK),
            "tunnel closed" => lose(&mut world),
            "client gone" => world.gone(1),
            "signed out" => revoke(&mut world),
            "session over" => session_over(&mut world),
            "what concerns others" => strangers(&mut world),
            "notes" => notes(&mut world),
            "all signed out" => revoke_all(&mut world),
            "relay stops" => stop(&mut world),
            other => panic!("no such event: {other}"),
        };
        said(&actions)
    }

    const UNHEARD: &str = "declined -32601";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 10])] = &[
        // unheard, listening, asked, away, answered, taken back, tunnel lost, signed out, session ended, old
        (
            "question",
            [
                UNHEARD,
                "question 1",
                "question 1",
                UNHEARD,
                "question 1",
                "question 1",
                "question 1",
                UNHEARD,
                UNHEARD,
                "question 1",
            ],
        ),
        (
            "same question",
            [
                UNHEARD,
                "question 1",
                "question 1",
                UNHEARD,
                "question 1",
                "question 1",
                "question 1",
                UNHEARD,
                UNHEARD,
                "question 1",
            ],
        ),
        ("question to two sessions", ["."; 10]),
        ("question to everybody", ["."; 10]),
        ("question to another session", [UNHEARD; 10]),
        (
            "answer",
            [
                "reply 202",
                "reply 202",
                "answered, reply 202",
                "answered, reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "answered, reply 202",
            ],
        ),
        (
            "answer that is too long",
            [
                "reply 202",
                "reply 202",
                "declined -32012, reply 202",
                "declined -32012, reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "declined -32012, reply 202",
            ],
        ),
        ("answer in another session", ["reply 202"; 10]),
        (
            "progress",
            [
                "reply 202",
                "reply 202",
                "passed, reply 202",
                "passed, reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "reply 202",
                "passed, reply 202",
            ],
        ),
        ("taken back", [".", ".", "taken back 1", ".", ".", ".", ".", ".", ".", "taken back 1"]),
        ("taken back by another server", ["."; 10]),
        ("tunnel closed", ["."; 10]),
        ("client gone", ["."; 10]),
        (
            "signed out",
            [
                ".",
                "finish 1",
                "declined -32011, finish 1",
                "declined -32011",
                "finish 1",
                "finish 1",
                "finish 1",
                ".",
                ".",
                "declined -32011, finish 1",
            ],
        ),
        (
            "session over",
            [
                "session over",
                "session over, finish 1",
                "session over, finish 1",
                "session over",
                "session over, finish 1",
                "session over, finish 1",
                "session over, finish 1",
                "session over",
                "session over",
                "session over, finish 1",
            ],
        ),
        (
            "all signed out",
            [
                "close 1",
                "close 1, finish 1",
                "close 1, finish 1",
                "close 1",
                "close 1, finish 1",
                "close 1, finish 1",
                "close 1, finish 1",
                "close 1",
                "close 1",
                "close 1, finish 1",
            ],
        ),
        (
            "relay stops",
            [
                "close 1",
                "close 1, finish 1",
                "close 1, finish 1",
                "close 1",
                "close 1, finish 1",
                "close 1, finish 1",
                "close 1, finish 1",
                "close 1",
                "close 1",
                "close 1, finish 1",
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
                "passed, reply 202 ×2",
            ],
        ),
        (
            "what concerns others",
            [".", "piece 1", "piece 1", ".", "piece 1", "piece 1", "piece 1", ".", ".", "piece 1"],
        ),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("a stream of its own: table_lives", &["Listen"]),
        ("another tunnel: table_lives", &["TunnelUp"]),
        ("each begins what has its own table", &["post: Request", "post: Batch", "note: Cancelled"]),
        ("its agent gives it up", TIME),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            in_state,
            |(world, _)| look(world),
            give,
        );
    }
}
