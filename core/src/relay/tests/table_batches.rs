//! Requests that are answered together: every event in every state. What follows is said in
//! short; `.`: nothing.

use super::kit::*;
use super::*;
use crate::limits;
use crate::table::Table;

/// Of a batch of the calls 50 and 51, which are the streams 1 and 2. "half": the second is answered. "stream": its
/// server has said something, so that its reply is an event stream.
const STATES: [(&str, &str); 9] = [
    ("unasked", ".; "),
    ("asked", "open 1/1, open 1/2; call of a batch, call of a batch, 1 batches, 1 exchanges, 2 requests"),
    ("half", "open 1/1, open 1/2; call of a batch, 1 batches, 1 exchanges, 1 requests"),
    (
        "stream",
        "open 1/1, open 1/2, begin 1, progress 1; call of a batch, call of a batch, 1 batches, 1 exchanges, 1 kept streams, 2 requests",
    ),
    (
        "stream, half",
        "open 1/1, open 1/2, begin 1, progress 1; call of a batch, 1 batches, 1 exchanges, 1 kept streams, 1 requests",
    ),
    ("left", "open 1/1, open 1/2; call of nobody, call of nobody, 2 requests"),
    (
        "away",
        "open 1/1, open 1/2, begin 1, progress 1; call of a batch, call of a batch, 1 batches, 1 kept streams, 2 requests",
    ),
    ("away, half", "open 1/1, open 1/2, begin 1, progress 1; call of a batch, 1 batches, 1 kept streams, 1 requests"),
    ("done", "open 1/1, open 1/2, reply 200 [fine fine]; "),
];

fn in_state(state: &str) -> (World, String) {
    let mut world = World { version: Version::V2025_03_26, shows_ids: true, ..World::ready() };
    world.advance(limits::ANNOUNCE_LATE);
    if state == "unasked" {
        return (world, "wVwCiewt-77-1".to_string());
    }
    let read = |id: u64| {
        let params = Bytes::from_static(br#"{"name":"files__read"}"#);
        Item::Request(Request { id: rpc::RawId::from_number(id), method: "tools/call".into(), params })
    };
    world.content(Content::Batch(std::vec![read(50), read(51)]));
    let is_stream = state.starts_with("stream") || state.starts_with("away");
    let id = if is_stream { last_id(&world.progress(1, 1)) } else { "wVwCiewt-77-1".to_string() };
    if state == "left" || state.starts_with("away") {
        world.gone(1);
    }
    if state.ends_with("half") || state == "done" {
        aggregate::answered(&mut world, 2, "{}");
    }
    if state == "done" {
        aggregate::answered(&mut world, 1, "{}");
    }
    (world, id)
}

fn give((mut world, id): (World, String), event: &str) -> String {
    let actions = match event {
        "answer" => aggregate::answered(&mut world, 1, "{}"),
        "error" => refused(&mut world, 1),
        "no JSON" => aggregate::answered(&mut world, 1, "}"),
        "too much" => {
            let much = "1".repeat(limits::MAX_BATCH_ANSWER + 1);
            aggregate::answered(&mut world, 1, &much)
        }
        "message" => world.progress(1, 1),
        "pause" => {
            world.tunnel(1, tunnel::Event::Pause { stream: StreamId(1), millis: 1_500 });
            world.drain()
        }
        "reset" => reset(&mut world, 1),
        "tunnel closed" => lose(&mut world),
        "one cancelled" => {
            world.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":50}}"#)
        }
        "idle" => world.advance(limits::CALL_IDLE),
        "silence" => world.advance(limits::STREAM_AFTER),
        "quiet" => world.advance(limits::HEARTBEAT),
        "client gone" => world.gone(1),
        "comes back" => back(&mut world, &id),
        "comes back too late" => {
            world.gone(1);
            world.advance(limits::REPLAY_KEPT * 2);
            back(&mut world, &id)
        }
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

const NEW: &str = "begin 2, heartbeat 2";
const FIRST: &str = "begin 1, heartbeat 1";

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 9])] = &[
    // unasked, asked, half, stream, stream half, left, away, away half, done
    ("answer", [".", ".", "reply 200 [fine fine]", ".", "[fine fine] 1, finish 1", ".", ".", ".", "."]),
    ("error", [".", ".", "reply 200 [-32050 fine]", ".", "[-32050 fine] 1, finish 1", ".", ".", ".", "."]),
    (
        "no JSON",
        [
            ".",
            "reset",
            "reset, reply 200 [-32603 fine]",
            "reset",
            "reset, [-32603 fine] 1, finish 1",
            "reset",
            "reset",
            "reset",
            ".",
        ],
    ),
    (
        "too much",
        [
            ".",
            "reset",
            "reset, reply 200 [-32012 fine]",
            "reset",
            "reset, [-32012 fine] 1, finish 1",
            ".",
            "reset",
            "reset",
            ".",
        ],
    ),
    (
        "message",
        [
            ".",
            "begin 1, progress 1",
            "begin 1, progress 1",
            "progress 1",
            "progress 1",
            "consumed",
            "consumed",
            "consumed",
            ".",
        ],
    ),
    // It is of a single call's stream that a server says so, and 2025-03-26 does not know of it.
    ("pause", ["."; 9]),
    ("reset", [".", ".", "reply 200 [-32010 fine]", ".", "[-32010 fine] 1, finish 1", ".", ".", ".", "."]),
    (
        "tunnel closed",
        [
            ".",
            "reply 200 [-32000 -32000]",
            "reply 200 [-32000 fine]",
            "[-32000 -32000] 1, finish 1",
            "[-32000 fine] 1, finish 1",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "one cancelled",
        [
            "reply 202",
            "cancel, reply 202",
            "cancel, reply 200 [-32011 fine], reply 202",
            "cancel, reply 202",
            "cancel, [-32011 fine] 1, finish 1, reply 202",
            "cancel, reply 202",
            "cancel, reply 202",
            "cancel, reply 202",
            "reply 202",
        ],
    ),
    (
        "idle",
        [
            ".",
            "begin 1, reset ×2, [-32001 -32001] 1, finish 1",
            "begin 1, reset, [-32001 fine] 1, finish 1",
            "heartbeat 1, reset ×2, [-32001 -32001] 1, finish 1",
            "heartbeat 1, reset, [-32001 fine] 1, finish 1",
            "reset ×2",
            "reset ×2",
            "reset",
            ".",
        ],
    ),
    ("silence", [".", "begin 1", "begin 1", ".", ".", ".", ".", ".", "."]),
    ("quiet", [".", "begin 1", "begin 1", "heartbeat 1", "heartbeat 1", ".", ".", ".", "."]),
    ("client gone", ["."; 9]),
    ("comes back", [FIRST, NEW, NEW, "abort 1, begin 2", "abort 1, begin 2", NEW, "begin 2", "begin 2", NEW]),
    (
        "comes back too late",
        [
            FIRST,
            NEW,
            NEW,
            "begin 2, [-32000 -32000] 2, finish 2",
            "begin 2, [-32000 -32000] 2, finish 2",
            NEW,
            "begin 2, [-32000 -32000] 2, finish 2",
            "begin 2, [-32000 -32000] 2, finish 2",
            NEW,
        ],
    ),
    (
        "signed out",
        [
            ".",
            "reset ×2, reply 200 [-32011 -32011]",
            "reset, reply 200 [-32011 fine]",
            "reset ×2, [-32011 -32011] 1, finish 1",
            "reset, [-32011 fine] 1, finish 1",
            "reset ×2",
            "reset ×2",
            "reset",
            ".",
        ],
    ),
    (
        "session over",
        [
            "session over",
            "reset ×2, reply 200 [-32011 -32011], session over",
            "reset, reply 200 [-32011 fine], session over",
            "reset ×2, [-32011 -32011] 1, finish 1, session over",
            "reset, [-32011 fine] 1, finish 1, session over",
            "reset ×2, session over",
            "reset ×2, session over",
            "reset, session over",
            "session over",
        ],
    ),
    (
        "relay stops",
        [
            "close 1",
            "reply 200 [-32000 -32000], close 1",
            "reply 200 [-32000 fine], close 1",
            "[-32000 -32000] 1, finish 1, close 1",
            "[-32000 fine] 1, finish 1, close 1",
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
            "close 1, reply 200 [-32000 -32000]",
            "close 1, reply 200 [-32000 fine]",
            "close 1, [-32000 -32000] 1, finish 1",
            "close 1, [-32000 fine] 1, finish 1",
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
