//! A client that comes back for the event stream of its call: every event in every state. What follows is said in
//! short; `.`: nothing.

use super::kit::*;
use super::*;
use crate::limits;
use crate::table::Table;

/// Of the stream of a call, of which its client has had the first event; one more was said since.
const STATES: [(&str, &str); 9] = [
    ("read", "open 1/1, begin 1, priming 1, progress 1 ×2; call, 1 exchanges, 1 kept streams, 1 replies, 1 requests"),
    ("left", "open 1/1, begin 1, priming 1, progress 1, consumed; call of who is away, 1 kept streams, 1 requests"),
    (
        "amid its answer",
        "open 1/1, begin 1, priming 1, progress 1 ×2, fine 1, piece 1; half answered call, 1 exchanges, 1 kept streams, 1 replies, 1 requests",
    ),
    ("over", "open 1/1, begin 1, priming 1, progress 1, consumed; 1 kept streams"),
    ("failed", "open 1/1, begin 1, priming 1, progress 1, consumed; 1 kept streams"),
    ("long over", "open 1/1, begin 1, priming 1, progress 1, consumed; "),
    ("too long", "open 1/1, begin 1, priming 1, progress 1, consumed; 1 kept streams"),
    ("restarted", "open 1/1, begin 1, priming 1, progress 1, consumed; "),
    ("session over", "open 1/1, begin 1, priming 1, progress 1, consumed, reset, session over; "),
];

/// The world, and the id of the event that the client had.
fn in_state(state: &str) -> (World, String) {
    let mut world = World { version: Version::V2025_11_25, shows_ids: true, ..World::ready() };
    world.advance(limits::ANNOUNCE_LATE);
    world.call(7);
    let id = last_id(&world.progress(1, 1));
    if state != "read" && state != "amid its answer" {
        world.gone(1);
    }
    if state != "too long" {
        world.progress(1, 1);
    }
    match state {
        "amid its answer" => {
            world.answer(1, 1, None);
            world.data(1, 1, "[1,", false);
        }
        "over" => drop(aggregate::answered(&mut world, 1, "{}")),
        "failed" => drop(lose(&mut world)),
        "long over" => {
            aggregate::answered(&mut world, 1, "{}");
            world.advance(limits::REPLAY_KEPT * 2);
        }
        "too long" => {
            let long = format!("\"{}\"", "x".repeat(limits::MAX_REPLAY));
            aggregate::answered(&mut world, 1, &long);
        }
        "restarted" => {
            let settings = Settings::from_config(&config(), "https://relay.example");
            world.shard = Shard::new(Arc::new(settings), Box::new(Seeded::new(2)));
        }
        "session over" => drop(session_over(&mut world)),
        _ => {}
    }
    (world, id)
}

/// The id of another place on the same stream.
fn at(id: &str, place: u64) -> String {
    let (before, asked) = id.split_once('.').expect("a call's stream says what it answers");
    let (stream, _) = before.rsplit_once('-').expect("an event has a place");
    format!("{stream}-{place}.{asked}")
}

fn give((mut world, id): (World, String), event: &str) -> String {
    let last = match event {
        "comes back" => id,
        "from its beginning" => at(&id, 0),
        "from what was never said" => at(&id, 99),
        "in another session" => {
            world.session = "t";
            id
        }
        "as another user" => {
            world.user = "bob";
            id
        }
        "of what was no call" => id.split_once('.').expect("a call's").0.to_string(),
        "with nonsense" => "\u{fffd}-.-7.!".to_string(),
        "after the last" => format!("{}.", id.split_once('.').expect("a call's").0),
        "without an id" => return said(&world.listen()),
        other => panic!("no such event: {other}"),
    };
    said(&back(&mut world, &last))
}

const NEW: &str = "begin 2, priming 2, heartbeat 2";
/// The device is gone, or another relay knows it not yet.
const CHANGED: &str = "begin 2, priming 2, heartbeat 2, changed 2";
/// The call is known no more: what became of it is not known.
const LOST: &str = "begin 2, -32000 2, finish 2";

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 9])] = &[
    // read, left, amid its answer, over, failed, long over, too long, restarted, session over
    (
        "comes back",
        [
            "abort 1, begin 2, progress 2",
            "begin 2, progress 2",
            "abort 1, begin 2, progress 2, fine 2",
            "begin 2, progress 2, fine 2, finish 2",
            "begin 2, progress 2, -32000 2, finish 2",
            LOST,
            LOST,
            LOST,
            LOST,
        ],
    ),
    (
        "from its beginning",
        [
            "abort 1, begin 2, progress 2 ×2",
            "begin 2, progress 2 ×2",
            "abort 1, begin 2, progress 2 ×2, fine 2",
            "begin 2, progress 2 ×2, fine 2, finish 2",
            "begin 2, progress 2 ×2, -32000 2, finish 2",
            LOST,
            LOST,
            LOST,
            LOST,
        ],
    ),
    ("from what was never said", [LOST; 9]),
    ("in another session", [LOST; 9]),
    ("as another user", [LOST; 9]),
    (
        "of what was no call",
        [
            "abort 1, begin 2, progress 2",
            "begin 2, progress 2",
            "abort 1, begin 2, progress 2, fine 2",
            "begin 2, progress 2, fine 2, finish 2",
            "begin 2, progress 2, -32000 2, finish 2",
            NEW,
            LOST,
            CHANGED,
            NEW,
        ],
    ),
    ("with nonsense", [NEW, NEW, NEW, NEW, CHANGED, NEW, NEW, CHANGED, NEW]),
    ("after the last", ["reply 204"; 9]),
    ("without an id", [NEW, NEW, NEW, NEW, CHANGED, NEW, NEW, CHANGED, NEW]),
];

#[test]
fn every_event_in_every_state() {
    // With what a client comes back is all of this table; what happens to its stream meanwhile is the others'.
    Table { states: STATES, rows: TABLE, kinds: &[&["Listen"]], spared: &[] }.check(
        in_state,
        |(world, _)| look(world),
        give,
    );
}
