//! Subscriptions to one server outlive the tunnel that they were opened on.

use alloc::collections::BTreeMap;

use super::subscriptions::{LISTEN, at_server, changed, ended, missed};
use super::*;
use crate::limits;
use crate::tunnel::{Close, CloseCode};

/// The server says on a stream of a connection what it honours.
fn honour(world: &mut World, conn: u64, stream: u32) -> Vec<String> {
    let json = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:b"]},"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#;
    said(world, conn, stream, json)
}

fn said(world: &mut World, conn: u64, stream: u32, json: &str) -> Vec<String> {
    let json = Bytes::copy_from_slice(json.as_bytes());
    world.tunnel(conn, tunnel::Event::Message { stream: StreamId(stream), json, credit: 9 });
    world.drain()
}

/// One that is honoured, on exchange 1 and on stream 1 of connection 1.
fn standing() -> World {
    let mut world = at_server();
    let told = honour(&mut world, 1, 1);
    assert!(told.len() == 2 && told[1].contains("acknowledged"), "{told:?}");
    world
}

fn lose(world: &mut World, conn: u64) -> Vec<String> {
    world.tunnel(conn, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    world.drain()
}

/// The device is back on that connection with these servers.
fn back(world: &mut World, conn: u64, servers: &[String]) -> Vec<String> {
    world.up(conn, "laptop", Some("id-1"));
    world.catalog(conn, &whole(servers));
    world.drain()
}

fn asked(conn: u64) -> String {
    let params = &LISTEN[LISTEN.find(r#"{"notifications"#).unwrap()..LISTEN.len() - 1];
    format!("tunnel {conn} open 1 files subscriptions/listen {params}")
}

#[test]
fn stream_stays_while_its_device_is_away_and_goes_on_when_it_is_back() {
    for (tools, news) in [(&["read", "write"], false), (&["read", "new"], true)] {
        let mut world = standing();
        assert_eq!(lose(&mut world, 1), [""; 0]);
        let alone = world.advance(Duration::from_secs(600));
        assert!(!alone.is_empty() && alone.iter().all(|action| action.contains("keep-alive")), "{alone:?}");
        assert_eq!(back(&mut world, 2, &[server("files", tools)]), [asked(2)]);
        let told = honour(&mut world, 2, 1);
        let changed = Some(changed()).filter(|_| news);
        let expected: Vec<_> = changed.into_iter().chain([missed("a:b"), "tunnel 2 consumed 1 9".into()]).collect();
        assert_eq!(told, expected, "its acknowledgement it has");
        // The credit of what the second tunnel brings is given back at once: the exchange knows the first alone.
        let told = said(&mut world, 2, 1, r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
        assert_eq!(told, ["tunnel 2 consumed 1 9".to_string(), super::subscriptions::changed()]);
        world.answer(2, 1, None);
        assert_eq!(world.data(2, 1, r#"{"resultType":"complete"}"#, true), ended());
    }
}

#[test]
fn acknowledgement_that_did_not_come_comes_on_the_next_tunnel() {
    let mut world = at_server();
    assert_eq!(lose(&mut world, 1), [""; 0]);
    assert_eq!(back(&mut world, 2, &[server("files", &["read"])]), [asked(2)]);
    let told = honour(&mut world, 2, 1);
    assert!(told.len() == 2 && told[1].contains("acknowledged"), "{told:?}");
}

#[test]
fn what_was_missed_is_told_even_if_the_second_tunnel_breaks_first() {
    let mut world = standing();
    lose(&mut world, 1);
    back(&mut world, 2, &[server("files", &["new"])]);
    assert_eq!(lose(&mut world, 2), [""; 0]);
    assert_eq!(back(&mut world, 3, &[server("files", &["new"])]), [asked(3)]);
    assert_eq!(honour(&mut world, 3, 1)[0], changed());
}

#[test]
fn device_that_replaces_its_own_tunnel_takes_the_subscription_over() {
    let mut world = standing();
    world.up(2, "laptop", Some("id-1"));
    world.drain();
    world.catalog(2, &files());
    assert_eq!(world.drain(), [asked(2)]);
}

#[test]
fn subscription_ends_in_peace_where_its_server_is_not_any_more() {
    let failed = server("files", &["read"]).replace("ready", "failed");
    for servers in [Vec::new(), [server("other", &[])].into(), [failed].into()] {
        let mut world = standing();
        lose(&mut world, 1);
        world.up(2, "desktop", Some("id-2"));
        world.catalog(2, &whole(&[server("other", &[])]));
        assert_eq!(world.drain(), [""; 0], "what another device has says nothing of it");
        assert_eq!(back(&mut world, 3, &servers), ended(), "{servers:?}");
        world.catalog(3, &files());
        assert_eq!(world.drain(), [""; 0]);
    }
}

#[test]
fn one_that_waits_ends_with_its_client_its_grant_and_its_relay() {
    let mut world = standing();
    lose(&mut world, 1);
    assert_eq!(world.gone(1), [""; 0]);
    assert_eq!(back(&mut world, 2, &[server("files", &["read"])]), [""; 0]);

    let mut world = standing();
    lose(&mut world, 1);
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    assert_eq!(world.drain(), ended());

    let mut world = standing();
    lose(&mut world, 1);
    let actions = world.advance(Duration::from_secs(20_000));
    assert!(actions.ends_with(&ended()), "{actions:?}");

    let mut world = standing();
    lose(&mut world, 1);
    world.event(Event::Stop);
    assert_eq!(world.drain(), ended());
    assert_eq!(world.shard.poll_timeout(), None);
}

#[test]
fn ones_that_wait_count_among_the_users_streams() {
    let bounds = RelayLimits { streams_per_user: 2, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &files());
    world.version = Version::V2026_07_28;
    world.endpoint = Endpoint::Server("files".into());
    world.drain();
    world.post(LISTEN);
    lose(&mut world, 1);
    world.endpoint = Endpoint::All;
    assert!(world.post(LISTEN)[0].contains(" 503 "));
}

#[test]
fn subscription_with_params_too_large_to_be_kept_fails_with_its_tunnel() {
    for (bytes, fails) in [(limits::MAX_KEPT_LISTEN, false), (limits::MAX_KEPT_LISTEN + 1, true)] {
        let mut world = World::ready();
        world.version = Version::V2026_07_28;
        world.endpoint = Endpoint::Server("files".into());
        let params = |fill: &str| format!(r#"{{"notifications":{{}},"x":"{fill}"}}"#);
        let params = params(&"x".repeat(bytes - params("").len()));
        world.post(&format!(r#"{{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{params}}}"#));
        let told = lose(&mut world, 1);
        assert_eq!(told.iter().any(|action| action.contains("device-disconnected")), fails, "{bytes}: {told:?}");
    }
}

#[test]
fn calls_fail_with_their_tunnel_as_ever() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.endpoint = Endpoint::Server("files".into());
    world.post(&call("read", 1));
    assert!(lose(&mut world, 1)[0].contains("device-disconnected"));
}

#[test]
fn subscription_waits_for_a_device_that_can_be_asked() {
    let mut world = standing();
    lose(&mut world, 1);
    world.up(2, "old", None);
    world.catalog(2, &files());
    assert_eq!(world.drain(), [""; 0], "an old agent knows of no subscriptions");
    lose(&mut world, 2);
    world.up(3, "laptop", Some("id-1"));
    world.tunnel(3, tunnel::Event::GoAway);
    world.catalog(3, &files());
    assert_eq!(world.drain(), [""; 0], "it is about to leave");
    lose(&mut world, 3);
    assert_eq!(back(&mut world, 4, &[server("files", &["read", "write"])]), [asked(4)]);
}

#[test]
fn nothing_is_left_of_a_subscription_that_is_refused_or_ended() {
    let mut world = World::ready();
    (world.version, world.endpoint) = (Version::V2026_07_28, Endpoint::Server("nowhere".into()));
    assert!(world.post(LISTEN)[0].contains("no-such-server"));
    assert_eq!(world.shard.leftovers(), BTreeMap::new());

    let mut world = standing();
    lose(&mut world, 1);
    assert_eq!(back(&mut world, 2, &[]), ended());
    assert_eq!(world.shard.leftovers(), BTreeMap::new());
}
