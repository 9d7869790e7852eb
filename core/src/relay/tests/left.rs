//! What is left of those who went away: nothing, once they may not come back.

use alloc::collections::BTreeMap;
use alloc::vec;

use super::kit::{back, last_id};
use super::*;
use crate::limits;

const READ: &[u8] = br#"{"name":"files__read"}"#;

/// A world whose clients may come back for a stream.
fn resumable(version: Version) -> World {
    World { version, shows_ids: true, ..World::ready() }
}

fn read(id: u64) -> Item {
    let (id, params) = (rpc::RawId::from_number(id), Bytes::from_static(READ));
    Item::Request(Request { id, method: "tools/call".into(), params })
}

#[test]
fn stream_of_notifications_is_forgotten_with_what_was_kept_of_it() {
    let mut world = resumable(Version::V2025_11_25);
    world.listen();
    world.gone(1);
    world.advance(limits::REPLAY_KEPT - Duration::from_millis(1));
    assert_eq!(world.shard.leftovers().get("listeners"), Some(&1));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}

#[test]
fn streams_that_were_left_one_after_the_other_are_forgotten_so() {
    let mut world = resumable(Version::V2025_11_25);
    for (exchange, session) in [(1, "s"), (2, "t")] {
        world.session = session;
        world.listen();
        world.gone(exchange);
        world.advance(Duration::from_secs(1));
    }
    world.advance(limits::REPLAY_KEPT - Duration::from_secs(2));
    assert_eq!(world.shard.leftovers().get("listeners"), Some(&1));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}

#[test]
fn batch_is_forgotten_with_what_was_kept_of_its_stream() {
    let mut world = resumable(Version::V2025_03_26);
    world.content(Content::Batch(vec![read(50), read(51)]));
    world.progress(1, 1);
    world.gone(1);
    world.advance(limits::REPLAY_KEPT - Duration::from_millis(1));
    assert_eq!(world.shard.leftovers().get("batches"), Some(&1));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.shard.leftovers().get("batches"), None);
    for stream in [1, 2] {
        world.answer(1, stream, None);
        assert_eq!(world.data(1, stream, "{}", true), [""; 0]);
    }
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}

#[test]
fn batch_that_is_awaited_is_not_forgotten_with_another() {
    let mut world = resumable(Version::V2025_03_26);
    for exchange in [1, 2] {
        world.content(Content::Batch(vec![read(49 + exchange)]));
        world.progress(1, u32::try_from(exchange).unwrap());
    }
    world.gone(1);
    world.advance(limits::REPLAY_KEPT);
    assert_eq!(world.shard.leftovers().get("batches"), Some(&1));
    world.answer(1, 2, None);
    let told = world.data(1, 2, "{}", true);
    assert!(told[0].starts_with("body 2 ") && told[1] == "finish 2", "{told:?}");
}

#[test]
fn client_that_comes_back_before_it_was_seen_to_go_is_there_on_its_new_exchange_alone() {
    let mut world = resumable(Version::V2025_11_25);
    world.call(7);
    let id = last_id(&world.progress(1, 1));
    assert_eq!(back(&mut world, &id)[..2], ["abort 1", "begin 2 events from 1/1"]);
    assert_eq!(world.shard.leftovers().get("replies"), Some(&1));
    assert_eq!(world.gone(1), [""; 0], "it is gone there anyway");
    let told = world.progress(1, 1);
    assert!(told[0].starts_with("body 2 "), "{told:?}");
    assert_eq!(world.gone(2), [""; 0]);
    assert_eq!(world.progress(1, 1), ["tunnel 1 consumed 1 51"], "nobody reads it");
    world.answer(1, 1, None);
    world.data(1, 1, "{}", true);
    world.advance(limits::REPLAY_KEPT);
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}

#[test]
fn exchange_of_a_reply_that_was_cut_or_paused_is_not_kept() {
    let mut world = resumable(Version::V2025_11_25);
    world.call(7);
    world.tunnel(1, tunnel::Event::Pause { stream: StreamId(1), millis: 5 });
    world.drain();
    assert_eq!((world.shard.leftovers().get("exchanges"), world.shard.leftovers().get("replies")), (None, None));
    let mut world = World::ready();
    world.call(7);
    world.answer(1, 1, None);
    world.data(1, 1, "[", false);
    kit::reset(&mut world, 1);
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}

#[test]
fn timer_of_a_gathering_ends_with_its_session() {
    let mut world = super::aggregate::two_servers();
    world.post(&super::aggregate::request(7, "logging/setLevel", r#"{"level":"error"}"#));
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    world.drain();
    for stream in [1, 2] {
        super::aggregate::answered(&mut world, stream, "{}");
    }
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}
