//! A device's tunnel, and a client's stream of notifications, from their beginning to their end: every event in every
//! state. What follows is said in short; `.`: nothing.

use super::kit::{KINDS, look, notes, revoke_all, session_over, stop, strangers};
use super::*;
use crate::limits;
use crate::table::{self, Table};
use crate::tunnel::{Close, CloseCode};

/// An action without what other tests look at.
fn short(action: &str) -> String {
    let words: Vec<&str> = action.split(' ').collect();
    match words[..] {
        ["tunnel", conn, "close", code] => format!("close {conn} {code}"),
        ["tunnel", conn, "open", ..] => format!("ask {conn}"),
        ["tunnel", _, "session", ..] => "session over".to_string(),
        ["reply", _, status, ..] if action.contains(r#""error""#) => format!("reply {status} {}", failure(action).0),
        ["reply", _, status, ..] => format!("reply {status}"),
        ["body", exchange, ..] if action.contains("keep-alive") => format!("heartbeat {exchange}"),
        ["body", exchange, ..] if action.contains("list_changed") => format!("changed {exchange}"),
        ["body", exchange, ..] if action.contains("notifications/message") => format!("log {exchange}"),
        [first, exchange, ..] => format!("{first} {exchange}"),
        _ => action.to_string(),
    }
}

fn said(actions: &[String]) -> String {
    let said: Vec<String> = actions.iter().map(|action| short(action)).collect();
    table::told(&said)
}

mod devices {
    use super::*;

    /// Of the tunnel on connection 1, of the device `laptop`. Connection 9 is another's, in the way of some. Each looks
    /// like this: what the way there told, and what a call meets.
    const STATES: [(&str, &str); 6] = [
        ("absent", ".; reply 200 -32010"),
        ("up", ".; ask 1"),
        ("leaving", ".; reply 200 -32000"),
        ("waiting", ".; ask 9"),
        ("closed", ".; reply 200 -32010"),
        ("refused", "close 1 NameTaken; ask 9"),
    ];

    fn in_state(state: &str) -> World {
        let mut world = World::new();
        match state {
            "absent" => {}
            "waiting" => {
                world.up(9, "laptop", Some("id-9"));
                world.catalog(9, &files());
                world.up(1, "laptop", None);
            }
            "refused" => {
                world.up(9, "laptop", Some("id-9"));
                world.catalog(9, &files());
                world.up(1, "laptop", Some("id-1"));
            }
            _ => {
                world.up(1, "laptop", Some("id-1"));
                world.catalog(1, &files());
            }
        }
        match state {
            "leaving" => world.tunnel(1, tunnel::Event::GoAway),
            "closed" => world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Normal, ""))),
            _ => {}
        }
        world.drain();
        world
    }

    fn give(mut world: World, event: &str) -> String {
        match event {
            "hello" => world.tunnel(1, tunnel::Event::Up(tunnel::Hello::default())),
            "catalog" => world.catalog(1, &whole(&[server("git", &["log"])])),
            "go away" => world.tunnel(1, tunnel::Event::GoAway),
            "closed" => world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Other(1006), ""))),
            "same device anew" => world.up(2, "laptop", Some("id-1")),
            "other device of its name" => world.up(2, "laptop", Some("id-2")),
            "old agent of its name" => world.up(2, "laptop", None),
            "revoked" => world.event(Event::Revoked { family: FamilyId::new("family-1") }),
            "another revoked" => world.event(Event::Revoked { family: FamilyId::new("family-77") }),
            "all revoked" => world.event(Event::RevokedAll),
            "runs out" => return said(&world.advance(Duration::from_secs(29_000))),
            "relay stops" => world.event(Event::Stop),
            "client gone" => return said(&world.gone(1)),
            "session over" => return said(&session_over(&mut world)),
            "listens" => return said(&world.listen()),
            "answer to nobody's call" => return said(&world.data(1, 77, "{}", true)),
            "order that a relay gives" => world.tunnel(1, tunnel::Event::Restart { server: None }),
            "a call" => return said(&world.call(7)),
            "what concerns others" => return said(&strangers(&mut world)),
            "notes" => return said(&notes(&mut world)),
            other => panic!("no such event: {other}"),
        }
        said(&world.drain())
    }

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 6])] = &[
        // absent, up, leaving, waiting, closed, refused
        ("hello", ["."; 6]),
        ("catalog", ["."; 6]),
        ("go away", ["."; 6]),
        ("closed", ["."; 6]),
        (
            "same device anew",
            [".", "close 1 Replaced", "close 1 Replaced", "close 2 NameTaken", ".", "close 2 NameTaken"],
        ),
        (
            "other device of its name",
            [".", "close 2 NameTaken", "close 2 NameTaken", "close 2 NameTaken", ".", "close 2 NameTaken"],
        ),
        ("old agent of its name", ["."; 6]),
        ("revoked", [".", "close 1 Revoked", "close 1 Revoked", "close 1 Revoked", ".", "."]),
        ("another revoked", ["."; 6]),
        (
            "all revoked",
            [".", "close 1 Revoked", "close 1 Revoked", "close 1 Revoked, close 9 Revoked", ".", "close 9 Revoked"],
        ),
        (
            "runs out",
            [".", "close 1 Revoked", "close 1 Revoked", "close 1 Revoked, close 9 Revoked", ".", "close 9 Revoked"],
        ),
        (
            "relay stops",
            [
                ".",
                "close 1 GoingAway",
                "close 1 GoingAway",
                "close 1 GoingAway, close 9 GoingAway",
                ".",
                "close 9 GoingAway",
            ],
        ),
        ("answer to nobody's call", ["."; 6]),
        ("order that a relay gives", ["."; 6]),
        ("client gone", ["."; 6]),
        ("session over", [".", "session over", "session over", "session over", ".", "session over"]),
        ("listens", ["begin 1, heartbeat 1, changed 1"; 6]),
        ("a call", ["reply 200 -32010", "ask 1", "reply 200 -32000", "ask 9", "reply 200 -32010", "ask 9"]),
        (
            "notes",
            [
                "reply 202 ×2",
                "tunnel 1, reply 202 ×2",
                "tunnel 1, reply 202 ×2",
                "tunnel 9, reply 202 ×2",
                "reply 202 ×2",
                "tunnel 9, reply 202 ×2",
            ],
        ),
        ("what concerns others", ["."; 6]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("it begins what has its own table: table_batches", &["post: Batch"]),
        ("of a call: table", &["note: Cancelled"]),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            in_state,
            |world| format!("{}; {}", said(&world.told), said(&world.call(7))),
            give,
        );
    }
}

mod streams {
    use super::*;

    /// Of a session's stream (exchange 1), and of a subscription of a client without one.
    const STATES: [(&str, &str); 6] = [
        ("none", ".; "),
        ("listening", "begin 1, priming 1, heartbeat 1; 1 exchanges, 1 kept streams, 1 listeners"),
        ("away", "begin 1, priming 1, heartbeat 1; 1 kept streams, 1 listeners"),
        ("over", "begin 1, priming 1, heartbeat 1, session over, finish 1; "),
        ("subscribed", "begin 1, acknowledged 1; 1 exchanges, 1 subscriptions"),
        ("unsubscribed", "begin 1, acknowledged 1; "),
    ];

    const SUBSCRIBE: &str = r#"{"jsonrpc":"2.0","id":5,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;

    /// The world, and the id of the stream's last event.
    fn in_state(state: &str) -> (World, String) {
        let mut world = World { version: Version::V2025_11_25, ..World::ready() };
        world.advance(limits::ANNOUNCE_LATE);
        world.shows_ids = true;
        let begun = match state {
            "none" => Vec::new(),
            "subscribed" | "unsubscribed" => {
                world.version = Version::V2026_07_28;
                world.post(SUBSCRIBE)
            }
            _ => world.listen(),
        };
        let id = begun.iter().find_map(|action| Some(action.split_once("\\nid: ")?.1.split_once("\\n")?.0.to_string()));
        world.shows_ids = false;
        match state {
            "away" | "unsubscribed" => drop(world.gone(1)),
            "over" => {
                let session = SessionKey(Arc::from("s"));
                world.event(Event::SessionEnded { user: UserId::new("ann"), session });
            }
            _ => {}
        }
        world.drain();
        (world, id.unwrap_or_default())
    }

    fn give((mut world, id): (World, String), event: &str) -> String {
        let session_over = |world: &mut World, session: &str| {
            world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from(session)) });
            world.drain()
        };
        let revoke = |world: &mut World, family: &str| {
            world.event(Event::Revoked { family: FamilyId::new(family) });
            world.drain()
        };
        let actions = match event {
            "listens" if world.version.is_legacy() => world.listen(),
            "listens" => world.post(SUBSCRIBE),
            "comes back" | "comes back to what is not known" => {
                world.version = Version::V2025_11_25;
                world.last_event = Some(if event == "comes back" { id } else { "nothing-7.1".to_string() });
                world.listen()
            }
            "client gone" => world.gone(1),
            "change" => {
                world.catalog(1, &whole(&[server("git", &["log"])]));
                world.advance(limits::ANNOUNCE_DELAY)
            }
            "log message" => {
                let json = Bytes::from_static(
                    br#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":1}}"#,
                );
                world
                    .tunnel(1, tunnel::Event::Notice { server: "files".into(), sessions: std::vec!["s".into()], json });
                world.drain()
            }
            "silence" => world.advance(limits::HEARTBEAT),
            "signed out" => revoke(&mut world, "client-family"),
            "another signed out" => revoke(&mut world, "another"),
            "session over" => session_over(&mut world, "s"),
            "another session over" => session_over(&mut world, "t"),
            "runs out" => world.advance(Duration::from_secs(20_000)),
            "relay stops" => stop(&mut world),
            "what concerns others" => strangers(&mut world),
            "notes" => notes(&mut world),
            "all signed out" => revoke_all(&mut world),
            other => panic!("no such event: {other}"),
        };
        said(&actions)
    }

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 6])] = &[
        // none, listening, away, over, subscribed, unsubscribed
        (
            "listens",
            [
                "begin 1, body 1, heartbeat 1",
                "finish 1, begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2",
                "begin 2, body 2",
            ],
        ),
        (
            "comes back",
            [
                "begin 1, body 1, heartbeat 1",
                "abort 1, begin 2",
                "begin 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
            ],
        ),
        (
            "comes back to what is not known",
            [
                "begin 1, body 1, heartbeat 1",
                "finish 1, begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
                "begin 2, body 2, heartbeat 2",
            ],
        ),
        ("client gone", ["."; 6]),
        ("change", [".", "changed 1", ".", ".", "changed 1", "."]),
        ("log message", [".", "log 1", ".", ".", ".", "."]),
        ("silence", [".", "heartbeat 1", ".", ".", "heartbeat 1", "."]),
        ("signed out", [".", "finish 1", ".", ".", "body 1, finish 1", "."]),
        ("another signed out", ["."; 6]),
        (
            "session over",
            ["session over", "session over, finish 1", "session over", "session over", "session over", "session over"],
        ),
        ("another session over", ["session over"; 6]),
        ("runs out", [".", "heartbeat 1, finish 1", ".", ".", "heartbeat 1, body 1, finish 1", "."]),
        (
            "relay stops",
            [
                "close 1 GoingAway",
                "close 1 GoingAway, finish 1",
                "close 1 GoingAway",
                "close 1 GoingAway",
                "close 1 GoingAway, body 1, finish 1",
                "close 1 GoingAway",
            ],
        ),
        (
            "all signed out",
            [
                "close 1 Revoked",
                "close 1 Revoked, finish 1",
                "close 1 Revoked",
                "close 1 Revoked",
                "close 1 Revoked, body 1, finish 1",
                "close 1 Revoked",
            ],
        ),
        (
            "notes",
            [
                "tunnel 1, reply 202 ×2",
                "tunnel 1, reply 202 ×2",
                "tunnel 1, reply 202 ×2",
                "tunnel 1, reply 202 ×2",
                "reply 202 ×2",
                "reply 202 ×2",
            ],
        ),
        ("what concerns others", [".", "log 1", ".", ".", ".", "."]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("another tunnel: table_lives", &["TunnelUp"]),
        ("it begins what has its own table: table_batches", &["post: Batch"]),
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
