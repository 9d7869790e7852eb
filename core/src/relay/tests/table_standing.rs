//! Subscriptions of clients without a session: to one server, and to resources of several. Every event in every state;
//! what follows is said in short; `.`: nothing.

use super::kit::{KINDS, look, notes, revoke_all, said, strangers};
use super::subscriptions::LISTEN;
use super::*;
use crate::limits;
use crate::table::Table;
use crate::tunnel::{Close, CloseCode, ResetCode};

fn says(world: &mut World, conn: u64, json: &str) -> Vec<String> {
    let json = Bytes::copy_from_slice(json.as_bytes());
    world.tunnel(conn, tunnel::Event::Message { stream: StreamId(1), json, credit: 9 });
    world.drain()
}

fn honour(world: &mut World, conn: u64, uri: &str) -> Vec<String> {
    let json = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["URI"]}}}"#;
    says(world, conn, &json.replace("URI", uri))
}

fn updated(world: &mut World, conn: u64, uri: &str) -> Vec<String> {
    let json = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"URI"}}"#;
    says(world, conn, &json.replace("URI", uri))
}

fn lose(world: &mut World, conn: u64) -> Vec<String> {
    world.tunnel(conn, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    world.drain()
}

fn reset(world: &mut World, conn: u64) -> Vec<String> {
    let (stream, reason) = (StreamId(1), String::new());
    world.tunnel(conn, tunnel::Event::Reset { stream, code: ResetCode::ServerGone, reason });
    world.drain()
}

/// What is answered on stream 1 of that connection.
fn answered(world: &mut World, conn: u64) -> Vec<String> {
    world.answer(conn, 1, None);
    world.data(conn, 1, r#"{"resultType":"complete"}"#, true)
}

fn refused(world: &mut World, conn: u64, code: i64) -> Vec<String> {
    world.error(conn, 1, code, &format!(r#"{{"code":{code},"message":"no"}}"#))
}

/// The device is there on connection 3 with these servers.
fn back(world: &mut World, servers: &[String]) -> Vec<String> {
    world.up(3, "laptop", Some("id-1"));
    world.catalog(3, &whole(servers));
    world.drain()
}

/// What ends a client's stream from without.
fn end(world: &mut World, event: &str) -> Option<Vec<String>> {
    match event {
        "client gone" => return Some(world.gone(1)),
        "signed out" => world.event(Event::Revoked { family: FamilyId::new("client-family") }),
        "another signed out" => world.event(Event::Revoked { family: FamilyId::new("another") }),
        "relay stops" => world.event(Event::Stop),
        _ => return None,
    }
    Some(world.drain())
}

mod one_server {
    use super::*;

    /// Of a subscription to `files`, which is exchange 1. Its tunnel is connection 1, and 2 once it was asked anew.
    const STATES: [(&str, &str); 8] = [
        ("asked", "open 1/1; call, 1 exchanges, 1 replies, 1 standing subscriptions"),
        ("honoured", "open 1/1, begin 1, acknowledged 1; call, 1 exchanges, 1 replies, 1 standing subscriptions"),
        ("away unheard", "open 1/1; 1 exchanges, 1 standing subscriptions, 1 subscriptions"),
        ("away", "open 1/1, begin 1, acknowledged 1; 1 exchanges, 1 standing subscriptions, 1 subscriptions"),
        (
            "asked anew",
            "open 1/1, begin 1, acknowledged 1, open 2/1; call, 1 exchanges, 1 replies, 1 standing subscriptions",
        ),
        (
            "honoured anew",
            "open 1/1, begin 1, acknowledged 1, open 2/1, updated 1, consumed; call, 1 exchanges, 1 replies, 1 standing subscriptions",
        ),
        ("left", "open 1/1, begin 1, acknowledged 1, reset; "),
        ("ended", "open 1/1, begin 1, acknowledged 1, fine 1, finish 1; "),
    ];

    /// The world, and the connection of its tunnel.
    fn in_state(state: &str) -> (World, u64) {
        let mut world = World::ready();
        world.version = Version::V2026_07_28;
        world.endpoint = Endpoint::Server("files".into());
        world.post(LISTEN);
        if state != "asked" && state != "away unheard" {
            honour(&mut world, 1, "a:b");
        }
        match state {
            "away unheard" | "away" | "asked anew" | "honoured anew" => drop(lose(&mut world, 1)),
            "left" => drop(world.gone(1)),
            "ended" => drop(answered(&mut world, 1)),
            _ => {}
        }
        let is_anew = state.ends_with("anew");
        if is_anew {
            world.up(2, "laptop", Some("id-1"));
            world.catalog(2, &files());
            world.drain();
        }
        if state == "honoured anew" {
            honour(&mut world, 2, "a:b");
        }
        (world, if is_anew { 2 } else { 1 })
    }

    fn give((mut world, conn): (World, u64), event: &str) -> String {
        if let Some(actions) = end(&mut world, event) {
            return said(&actions);
        }
        let actions = match event {
            "honoured" => honour(&mut world, conn, "a:b"),
            "update" => updated(&mut world, conn, "a:b"),
            "question" => says(&mut world, conn, r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#),
            "ended" => answered(&mut world, conn),
            "refused" => refused(&mut world, conn, -32050),
            "reset" => reset(&mut world, conn),
            "tunnel closed" => lose(&mut world, conn),
            "device anew" => back(&mut world, &[server("files", &["read", "write"])]),
            "device anew with other tools" => back(&mut world, &[server("files", &["new"])]),
            "device anew without it" => back(&mut world, &[]),
            "device anew, it failed" => back(&mut world, &[server("files", &[]).replace("ready", "failed")]),
            "another device" => {
                world.up(4, "desktop", Some("id-4"));
                world.catalog(4, &whole(&[server("git", &["log"])]));
                world.drain()
            }
            "silence" => world.advance(limits::STREAM_AFTER),
            "quiet" => world.advance(limits::HEARTBEAT),
            "what concerns others" => strangers(&mut world),
            "notes" => notes(&mut world),
            "all signed out" => revoke_all(&mut world),
            other => panic!("no such event: {other}"),
        };
        said(&actions)
    }

    const ENDED: &str = "fine 1, finish 1";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 8])] = &[
        // asked, honoured, away unheard, away, asked anew, honoured anew, left, ended
        (
            "honoured",
            [
                "begin 1, acknowledged 1",
                // It has it.
                "consumed",
                ".",
                ".",
                // It may have missed something: the resource, for the lists are the same.
                "updated 1, consumed",
                "consumed",
                ".",
                ".",
            ],
        ),
        (
            "update",
            ["begin 1, updated 1", "updated 1", ".", ".", "consumed, updated 1", "consumed, updated 1", ".", "."],
        ),
        (
            "question",
            [
                "declined -32601, consumed",
                "declined -32601, consumed",
                ".",
                ".",
                "declined -32601, consumed",
                "declined -32601, consumed",
                ".",
                ".",
            ],
        ),
        ("ended", ["reply 200 fine", ENDED, ".", ".", ENDED, ENDED, ".", "."]),
        (
            "refused",
            ["reply 200 -32050", "-32050 1, finish 1", ".", ".", "-32050 1, finish 1", "-32050 1, finish 1", ".", "."],
        ),
        (
            "reset",
            ["reply 200 -32010", "-32010 1, finish 1", ".", ".", "-32010 1, finish 1", "-32010 1, finish 1", ".", "."],
        ),
        ("tunnel closed", ["."; 8]),
        (
            "device anew",
            [
                "close 1, open 3/1",
                "close 1, open 3/1",
                "open 3/1",
                "open 3/1",
                "close 2, open 3/1",
                "close 2, open 3/1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "device anew with other tools",
            [
                "close 1, open 3/1",
                "close 1, open 3/1",
                "open 3/1",
                "open 3/1",
                "close 2, open 3/1",
                "close 2, open 3/1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "device anew without it",
            [
                "close 1, reply 200 fine",
                "close 1, fine 1, finish 1",
                "reply 200 fine",
                ENDED,
                "close 2, fine 1, finish 1",
                "close 2, fine 1, finish 1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "device anew, it failed",
            [
                "close 1, reply 200 fine",
                "close 1, fine 1, finish 1",
                "reply 200 fine",
                ENDED,
                "close 2, fine 1, finish 1",
                "close 2, fine 1, finish 1",
                "close 1",
                "close 1",
            ],
        ),
        ("another device", ["."; 8]),
        ("silence", ["begin 1", ".", "begin 1", ".", ".", ".", ".", "."]),
        ("quiet", ["begin 1", "heartbeat 1", "begin 1", "heartbeat 1", "heartbeat 1", "heartbeat 1", ".", "."]),
        ("client gone", ["reset", "reset", ".", ".", "reset", "reset", ".", "."]),
        (
            "signed out",
            [
                "reset, reply 200 fine",
                "reset, fine 1, finish 1",
                "reply 200 fine",
                ENDED,
                "reset, fine 1, finish 1",
                "reset, fine 1, finish 1",
                ".",
                ".",
            ],
        ),
        ("another signed out", ["."; 8]),
        (
            "relay stops",
            [
                "reply 200 fine, close 1",
                "fine 1, finish 1, close 1",
                "reply 200 fine",
                ENDED,
                "fine 1, finish 1, close 2",
                "fine 1, finish 1, close 2",
                "close 1",
                "close 1",
            ],
        ),
        (
            "all signed out",
            [
                "close 1, reply 200 fine",
                "close 1, fine 1, finish 1",
                "reply 200 fine",
                "fine 1, finish 1",
                "close 2, fine 1, finish 1",
                "close 2, fine 1, finish 1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "notes",
            [
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
            ],
        ),
        ("what concerns others", ["."; 8]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("a stream of its own: table_lives", &["Listen"]),
        ("each begins what has its own table", &["post: Request", "post: Batch"]),
        ("of a call: table", &["note: Cancelled"]),
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

mod feeds {
    use super::*;

    /// Of what `a` is asked for a subscription to `test://a/a` on the endpoint of all servers, which is exchange 1; the
    /// states are those of the diagram, and the subscription's end. "asked late": its client was told before it answered.
    const STATES: [(&str, &str); 8] = [
        ("asked", "open 1/1; call of a feed, 1 exchanges, 1 feeds, 1 subscriptions"),
        ("asked late", "open 1/1, begin 1, acknowledged 1; call of a feed, 1 exchanges, 1 feeds, 1 subscriptions"),
        ("open", "open 1/1, begin 1, acknowledged 1, consumed; call of a feed, 1 exchanges, 1 feeds, 1 subscriptions"),
        ("again", "open 1/1, begin 1, acknowledged 1, consumed; 1 exchanges, 1 feeds, 1 subscriptions"),
        ("away", "open 1/1, begin 1, acknowledged 1, consumed; 1 exchanges, 1 feeds, 1 subscriptions"),
        ("refused", "open 1/1, begin 1, acknowledged 1; 1 exchanges, 1 feeds, 1 subscriptions"),
        ("left", "open 1/1, begin 1, acknowledged 1, consumed, reset; "),
        ("signed out", "open 1/1, begin 1, acknowledged 1, consumed, reset, fine 1, finish 1; "),
    ];

    const URI: &str = "test://a/a";

    fn in_state(state: &str) -> World {
        let mut world = aggregate::two_servers();
        world.version = Version::V2026_07_28;
        world.advance(limits::ANNOUNCE_LATE);
        world.post(&LISTEN.replace("a:b", URI));
        match state {
            "asked" => return world,
            "asked late" => drop(world.advance(limits::FEED_PATIENCE)),
            "refused" => drop(refused(&mut world, 1, -32601)),
            _ => drop(honour(&mut world, 1, URI)),
        }
        match state {
            "again" => drop(answered(&mut world, 1)),
            "away" => drop(lose(&mut world, 1)),
            "left" => drop(world.gone(1)),
            "signed out" => drop(end(&mut world, "signed out")),
            _ => {}
        }
        world
    }

    fn give(mut world: World, event: &str) -> String {
        if let Some(actions) = end(&mut world, event) {
            return said(&actions);
        }
        let actions = match event {
            "honoured" => honour(&mut world, 1, URI),
            "honoured not at all" => honour(&mut world, 1, "test://a/other"),
            "update" => updated(&mut world, 1, URI),
            "update of a part" => updated(&mut world, 1, "test://a/a/part"),
            "update of another" => updated(&mut world, 1, "test://a/other"),
            "question" => says(&mut world, 1, r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#),
            "ended" => answered(&mut world, 1),
            "refused" => refused(&mut world, 1, -32601),
            "failed" => refused(&mut world, 1, -32050),
            "reset" => reset(&mut world, 1),
            "tunnel closed" => lose(&mut world, 1),
            "device anew" => back(&mut world, &[aggregate::rich("a", ""), aggregate::rich("b", "")]),
            "device anew without it" => back(&mut world, &[aggregate::rich("b", "")]),
            "pause over" => world.advance(limits::FEED_PAUSE),
            "patience over" => world.advance(limits::FEED_PATIENCE),
            "what concerns others" => strangers(&mut world),
            "notes" => notes(&mut world),
            "all signed out" => revoke_all(&mut world),
            other => panic!("no such event: {other}"),
        };
        said(&actions)
    }

    const FIRST: &str = "begin 1, acknowledged 1";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 8])] = &[
        // asked, asked late, open, again, away, refused, left, signed out
        ("honoured", ["begin 1, acknowledged 1, consumed", "updated 1, consumed", "consumed", ".", ".", ".", ".", "."]),
        (
            "honoured not at all",
            // What was promised stays so.
            ["reset, begin 1, acknowledged 1, consumed", "updated 1, consumed", "consumed", ".", ".", ".", ".", "."],
        ),
        (
            "update",
            [
                "begin 1, acknowledged 1, updated 1, consumed",
                "updated 1, consumed",
                "updated 1, consumed",
                ".",
                ".",
                ".",
                ".",
                ".",
            ],
        ),
        (
            "update of a part",
            [
                "begin 1, acknowledged 1, updated 1, consumed",
                "updated 1, consumed",
                "updated 1, consumed",
                ".",
                ".",
                ".",
                ".",
                ".",
            ],
        ),
        ("update of another", ["consumed", "consumed", "consumed", ".", ".", ".", ".", "."]),
        (
            "question",
            [
                "declined -32601, consumed",
                "declined -32601, consumed",
                "declined -32601, consumed",
                ".",
                ".",
                ".",
                ".",
                ".",
            ],
        ),
        // One that ends at once, or fails, will be heard later.
        ("ended", [FIRST, ".", ".", ".", ".", ".", ".", "."]),
        ("refused", [FIRST, ".", ".", ".", ".", ".", ".", "."]),
        ("failed", [FIRST, ".", ".", ".", ".", ".", ".", "."]),
        ("reset", [FIRST, ".", ".", ".", ".", ".", ".", "."]),
        ("tunnel closed", [FIRST, ".", ".", ".", ".", ".", ".", "."]),
        (
            "device anew",
            [
                "close 1, begin 1, acknowledged 1, open 3/1",
                "close 1, open 3/1",
                "close 1, open 3/1",
                "close 1",
                "open 3/1",
                "close 1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "device anew without it",
            ["close 1, begin 1, acknowledged 1", "close 1", "close 1", "close 1", ".", "close 1", "close 1", "close 1"],
        ),
        // Its device is gone, and its prompts with it.
        ("pause over", [".", ".", ".", "open 1/2", "changed 1", ".", ".", "."]),
        ("patience over", ["begin 1, acknowledged 1", ".", ".", "open 1/2", "changed 1", ".", ".", "."]),
        ("client gone", ["reset", "reset", "reset", ".", ".", ".", ".", "."]),
        (
            "signed out",
            [
                "reset, begin 1, acknowledged 1, fine 1, finish 1",
                "reset, fine 1, finish 1",
                "reset, fine 1, finish 1",
                "fine 1, finish 1",
                "fine 1, finish 1",
                "fine 1, finish 1",
                ".",
                ".",
            ],
        ),
        (
            "relay stops",
            [
                "begin 1, acknowledged 1, close 1, fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "all signed out",
            [
                "close 1, begin 1, acknowledged 1, fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "fine 1, finish 1",
                "close 1, fine 1, finish 1",
                "close 1",
                "close 1",
            ],
        ),
        (
            "notes",
            [
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
            ],
        ),
        ("what concerns others", ["."; 8]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("a stream of its own: table_lives", &["Listen"]),
        ("each begins what has its own table", &["post: Request", "post: Batch"]),
        ("of a call: table", &["note: Cancelled"]),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(in_state, |world| look(world), give);
    }
}
