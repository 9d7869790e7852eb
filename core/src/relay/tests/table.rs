//! A call from its first word to its end: every event in every state, for a client of each era.
//!
//! The call is exchange 1 of the client and stream 1 of the device's tunnel. What follows is said in short: what the
//! client gets, what the agent is told, and `→ over` when the call leaves the books. `.`: nothing.

mod modern;

use self::modern::MODERN;
use super::kit::{KINDS, look, notes, revoke_all, stop, strangers};
use super::*;
use crate::tunnel::{Close, CloseCode, ResetCode};
use crate::{limits, table};

/// How each looks to a client of a session, and to one without.
const STATES: [(&str, [&str; 2]); 10] = [
    ("unasked", [".; ", ".; "]),
    ("waiting", ["open 1/1; call, 1 exchanges, 1 replies, 1 requests", "open 1/1; call, 1 exchanges, 1 replies"]),
    (
        "answered",
        [
            "open 1/1; answered call, 1 exchanges, 1 replies, 1 requests",
            "open 1/1; answered call, 1 exchanges, 1 replies",
        ],
    ),
    (
        "json",
        [
            "open 1/1, begin 1, fine 1, piece 1; half answered call, 1 exchanges, 1 replies, 1 requests",
            "open 1/1, begin 1, fine 1, piece 1; half answered call, 1 exchanges, 1 replies",
        ],
    ),
    (
        "events",
        [
            "open 1/1, begin 1, priming 1, progress 1; call, 1 exchanges, 1 kept streams, 1 replies, 1 requests",
            "open 1/1, begin 1, progress 1; call, 1 exchanges, 1 replies",
        ],
    ),
    (
        "line",
        [
            "open 1/1, begin 1, priming 1, progress 1, fine 1, piece 1; half answered call, 1 exchanges, 1 kept streams, 1 replies, 1 requests",
            "open 1/1, begin 1, progress 1, fine 1, piece 1; half answered call, 1 exchanges, 1 replies",
        ],
    ),
    ("left", ["open 1/1; call of nobody, 1 requests", "open 1/1, reset; "]),
    (
        "away",
        [
            "open 1/1, begin 1, priming 1, progress 1; call of who is away, 1 kept streams, 1 requests",
            "open 1/1, begin 1, progress 1, reset; ",
        ],
    ),
    ("done", ["open 1/1, reply 200 fine; ", "open 1/1, reply 200 fine; "]),
    ("failed", ["open 1/1, reply 200 -32010; ", "open 1/1, reply 200 -32010; "]),
];

/// A world with one call in it.
struct Bench {
    world: World,
    /// A piece of the answer came.
    is_begun: bool,
}

impl Bench {
    /// A world whose call is in that state, for a client of `version`.
    fn in_state(state: &str, version: Version) -> Self {
        let mut world = World::ready();
        world.version = version;
        let mut bench = Self { world, is_begun: false };
        let steps: &[&str] = match state {
            "unasked" => &[],
            "waiting" => &["call"],
            "answered" => &["call", "answer"],
            "json" => &["call", "answer", "piece"],
            "events" => &["call", "message"],
            "line" => &["call", "message", "answer", "piece"],
            "left" => &["call", "client gone"],
            "away" => &["call", "message", "client gone"],
            "done" => &["call", "answer", "last piece"],
            "failed" => &["call", "reset"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            bench.give(step);
        }
        bench
    }

    /// Hands an event in, and says what followed.
    fn give(&mut self, event: &str) -> String {
        let before = self.world.shard.calls().count();
        let actions = self.happen(event);
        let mut said: Vec<String> = actions.iter().map(|action| short(action)).collect();
        if self.world.shard.calls().count() < before {
            said.push("→ over".to_string());
        }
        table::told(&said)
    }

    fn happen(&mut self, event: &str) -> Vec<String> {
        let stream = StreamId(1);
        match event {
            "call" => self.world.call(7),
            "answer" => self.world.answer(1, 1, Some(6)),
            "error" => self.world.error(1, 1, -32050, r#"{"code":-32050,"message":"x"}"#),
            "piece" => {
                self.is_begun = true;
                self.world.data(1, 1, "[1,", false)
            }
            // What is left of an answer that is begun, or all of it.
            "last piece" if self.is_begun => self.world.data(1, 1, "2 ]", true),
            "last piece" => self.world.data(1, 1, "[1,2 ]", true),
            "piece too many" => self.world.data(1, 1, "[1,2,3,4,5]", false),
            "no JSON" => self.world.data(1, 1, "}", false),
            "foreign answer" => {
                let mut said = self.world.answer(2, 1, None);
                said.extend(self.world.data(2, 1, "{}", true));
                said
            }
            "message" => self.world.progress(1, 1),
            "pause" => {
                self.world.tunnel(1, tunnel::Event::Pause { stream, millis: 1_500 });
                self.world.drain()
            }
            "reset" => {
                let reset = tunnel::Event::Reset { stream, code: ResetCode::ServerGone, reason: String::new() };
                self.world.tunnel(1, reset);
                self.world.drain()
            }
            "go away" => {
                self.world.tunnel(1, tunnel::Event::GoAway);
                self.world.drain()
            }
            "tunnel closed" => {
                self.world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::TimedOut, "")));
                self.world.drain()
            }
            "silence" => self.world.advance(limits::STREAM_AFTER),
            "idle" => self.world.advance(limits::CALL_IDLE),
            "client gone" => self.world.gone(1),
            "cancelled" => {
                self.world.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#)
            }
            "signed out" => {
                self.world.event(Event::Revoked { family: FamilyId::new("client-family") });
                self.world.drain()
            }
            "session over" => {
                let session = SessionKey(Arc::from("s"));
                self.world.event(Event::SessionEnded { user: UserId::new("ann"), session });
                self.world.drain()
            }
            "all signed out" => revoke_all(&mut self.world),
            "relay stops" => stop(&mut self.world),
            "notes" => notes(&mut self.world),
            "what concerns others" => strangers(&mut self.world),
            other => panic!("no such event: {other}"),
        }
    }
}

/// An action without what other tests look at: ids, bytes and the words of errors.
fn short(action: &str) -> String {
    let words: Vec<&str> = action.split(' ').collect();
    match words[..] {
        ["reply", _, status, ..] if action.contains(r#""error""#) => format!("reply {status} {}", failure(action).0),
        ["reply", _, status, ..] => format!("reply {status}"),
        ["begin", _, kind, ..] => format!("begin {kind}"),
        ["body", ..] if action.contains("keep-alive") => "heartbeat".to_string(),
        ["body", ..] if action.contains("retry:") => "retry".to_string(),
        ["body", ..] if action.contains(r#"\"error\""#) => format!("body {}", failure(action).0),
        ["body", ..] => "body".to_string(),
        ["tunnel", _, command, ..] => command.to_string(),
        [first, ..] => first.to_string(),
        [] => String::new(),
    }
}

type Table = [(&'static str, [&'static str; 10])];

fn check(rows: &Table, version: Version) {
    let states = STATES.map(|(state, looks)| (state, looks[usize::from(!version.is_legacy())]));
    let way = |state: &str| Bench::in_state(state, version);
    let table = table::Table { states, rows, kinds: KINDS, spared: SPARED };
    table.check(way, |bench| look(&bench.world), |mut bench, event| bench.give(event));
}

const SPARED: &[(&str, &[&str])] = &[
    ("a stream of its own: table_lives", &["Listen"]),
    ("another tunnel: table_lives", &["TunnelUp"]),
    ("each begins what has its own table", &["post: Request", "post: Batch"]),
];

/// A client of a session that knows of streams that close and go on (2025-11-25).
const LEGACY: &Table = &[
    // unasked, waiting, answered, json, events, line, left, away, done, failed
    ("answer", ["."; 10]),
    (
        "error",
        [
            ".",
            "reply 200 -32050, → over",
            "reset, reply 200 -32603, → over",
            "reset, abort, → over",
            "body -32050, finish, → over",
            "reset, abort, → over",
            "→ over",
            "→ over",
            ".",
            ".",
        ],
    ),
    (
        "piece",
        [
            ".",
            "reset, reply 200 -32603, → over",
            "begin json, body ×2",
            "body",
            "reset, body -32603, finish, → over",
            "body",
            "reset, → over",
            "reset, → over",
            ".",
            ".",
        ],
    ),
    (
        "last piece",
        [
            ".",
            "reset, reply 200 -32603, → over",
            "reply 200, → over",
            "body ×2, finish, → over",
            "reset, body -32603, finish, → over",
            "body ×2, finish, → over",
            "reset, → over",
            "reset, → over",
            ".",
            ".",
        ],
    ),
    (
        "piece too many",
        [
            ".",
            "reset, reply 200 -32603, → over",
            "reset, reply 200 -32603, → over",
            "reset, abort, → over",
            "reset, body -32603, finish, → over",
            "reset, abort, → over",
            "reset, → over",
            "reset, → over",
            ".",
            ".",
        ],
    ),
    (
        "no JSON",
        [
            ".",
            "reset, reply 200 -32603, → over",
            "reset, reply 200 -32603, → over",
            "reset, abort, → over",
            "reset, body -32603, finish, → over",
            "reset, abort, → over",
            "reset, → over",
            "reset, → over",
            ".",
            ".",
        ],
    ),
    ("foreign answer", ["."; 10]),
    (
        "message",
        [
            ".",
            "begin events, body ×2",
            "begin events, body ×2",
            "consumed",
            "body",
            "consumed",
            "consumed",
            "consumed",
            ".",
            ".",
        ],
    ),
    (
        "pause",
        [
            ".",
            "begin events, body, retry, finish",
            "begin events, body, retry, finish",
            ".",
            "retry, finish",
            ".",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "reset",
        [
            ".",
            "reply 200 -32010, → over",
            "reply 200 -32010, → over",
            "abort, → over",
            "body -32010, finish, → over",
            "abort, → over",
            "→ over",
            "→ over",
            ".",
            ".",
        ],
    ),
    ("go away", ["."; 10]),
    (
        "tunnel closed",
        [
            ".",
            "reply 200 -32000, → over",
            "reply 200 -32000, → over",
            "abort, → over",
            "body -32000, finish, → over",
            "abort, → over",
            "→ over",
            "→ over",
            ".",
            ".",
        ],
    ),
    ("silence", [".", "begin events, body", "begin events, body", ".", ".", ".", ".", ".", ".", "."]),
    (
        "idle",
        [
            ".",
            "begin events, body, reset, body -32001, finish, → over",
            "begin events, body, reset, body -32001, finish, → over",
            "reset, abort, → over",
            "heartbeat, reset, body -32001, finish, → over",
            "reset, abort, → over",
            "reset, → over",
            "reset, → over",
            ".",
            ".",
        ],
    ),
    ("client gone", ["."; 10]),
    (
        "cancelled",
        [
            "reply 202",
            "cancel, reply 200 -32011, reply 202, → over",
            "cancel, reply 200 -32011, reply 202, → over",
            "cancel, abort, reply 202, → over",
            "cancel, body -32011, finish, reply 202, → over",
            "cancel, abort, reply 202, → over",
            "cancel, reply 202, → over",
            "cancel, reply 202, → over",
            "reply 202",
            "reply 202",
        ],
    ),
    (
        "signed out",
        [
            ".",
            "reset, reply 200 -32011, → over",
            "reset, reply 200 -32011, → over",
            "reset, abort, → over",
            "reset, body -32011, finish, → over",
            "reset, abort, → over",
            "reset, → over",
            "reset, → over",
            ".",
            ".",
        ],
    ),
    (
        "session over",
        [
            "session",
            "reset, reply 200 -32011, session, → over",
            "reset, reply 200 -32011, session, → over",
            "reset, abort, session, → over",
            "reset, body -32011, finish, session, → over",
            "reset, abort, session, → over",
            "reset, session, → over",
            "reset, session, → over",
            "session",
            "session",
        ],
    ),
    (
        "all signed out",
        [
            "close",
            "close, reply 200 -32000, → over",
            "close, reply 200 -32000, → over",
            "close, abort, → over",
            "close, body -32000, finish, → over",
            "close, abort, → over",
            "close, → over",
            "close, → over",
            "close",
            "close",
        ],
    ),
    (
        "relay stops",
        [
            "close",
            "reply 200 -32000, close, → over",
            "reply 200 -32000, close, → over",
            "abort, close, → over",
            "body -32000, finish, close, → over",
            "abort, close, → over",
            "close, → over",
            "close, → over",
            "close",
            "close",
        ],
    ),
    (
        "notes",
        [
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
            "notice, reply 202 ×2",
        ],
    ),
    ("what concerns others", ["."; 10]),
];

#[test]
fn every_event_in_every_state_of_a_call_in_a_session() {
    check(LEGACY, Version::V2025_11_25);
}

#[test]
fn every_event_in_every_state_of_a_call_without_a_session() {
    check(MODERN, Version::V2026_07_28);
}
