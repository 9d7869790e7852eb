//! `subscriptions/listen`: on `/mcp`, and on an endpoint of one server.

use super::*;
use crate::limits;
use crate::tunnel::{Close, CloseCode};

pub(super) const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b"]}}}"#;
const META: &str = r#"\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"s1\"}"#;

pub(super) fn event(message: &str) -> String {
    format!(r#"body 1 +0 "event: message\ndata: {{\"jsonrpc\":\"2.0\",{message}}}\n\n""#)
}

fn acknowledged() -> String {
    event(&format!(
        r#"\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{{{META},\"notifications\":{{\"toolsListChanged\":true,\"promptsListChanged\":true}}}}"#
    ))
}

pub(super) fn changed() -> String {
    event(&format!(r#"\"method\":\"notifications/tools/list_changed\",\"params\":{{{META}}}"#))
}

pub(super) fn ended() -> Vec<String> {
    let result = format!(r#"\"id\":\"s1\",\"result\":{{\"resultType\":\"complete\",{META}}}"#);
    [event(&result), "finish 1".into()].into()
}

/// A world that has been quiet for long, and a subscription on exchange 1.
fn listening() -> World {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.advance(limits::ANNOUNCE_LATE);
    assert_eq!(world.post(LISTEN), ["begin 1 events".to_string(), acknowledged()]);
    world
}

#[test]
fn changes_come_under_the_clients_own_id_after_the_acknowledgement() {
    let mut world = listening();
    world.catalog(1, &whole(&[server("files", &["read"])]));
    world.catalog(1, &whole(&[server("files", &["read", "new"])]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [changed()]);
    world.catalog(1, &whole(&[server("files", &["read", "new"])]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0], "the same list is no news");
    assert_eq!(world.advance(limits::HEARTBEAT), [r#"body 1 +0 ": keep-alive\n\n""#]);
}

#[test]
fn subscriber_that_comes_soon_after_a_change_is_told() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    assert_eq!(world.post(LISTEN), ["begin 1 events".to_string(), acknowledged(), changed()]);
}

#[test]
fn nothing_comes_that_was_not_asked_for() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    for filter in ["{}", r#"{"toolsListChanged":false,"resourceSubscriptions":["a:b"]}"#] {
        let listen = LISTEN
            .replace(r#"{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b"]}"#, filter);
        let actions = world.post(&listen);
        assert!(actions.len() == 2 && actions[1].contains(r#"\"notifications\":{}"#), "{actions:?}");
        world.catalog(1, &whole(&[server("files", &["other"])]));
        assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0]);
        world.catalog(1, &files());
        world.advance(limits::ANNOUNCE_DELAY);
    }
    for params in ["{}", r#"{"notifications":[]}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{params}}}"#);
        assert_eq!(failure(&world.post(&body)[0]).0, -32602, "{params}");
    }
}

#[test]
fn each_list_that_was_asked_for_is_told() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.advance(limits::ANNOUNCE_LATE);
    world.post(&LISTEN.replace("resourceSubscriptions\":[\"a:b\"]", "resourcesListChanged\":true"));
    world.catalog(1, &whole(&[server("files", &["read", "write"]), aggregate::rich("a", "")]));
    let told = world.advance(limits::ANNOUNCE_DELAY);
    assert!(told[0].contains("prompts/list_changed") && told[1].contains("resources/list_changed"), "{told:?}");
    assert_eq!(told.len(), 2);
    let mut world = listening();
    world.catalog(1, &whole(&[server("files", &["read", "write"]), aggregate::rich("a", "")]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY).len(), 1, "nobody asked about resources");
}

#[test]
fn subscription_ends_with_a_result() {
    let mut world = listening();
    world.event(Event::Revoked { family: FamilyId::new("another") });
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    assert_eq!(world.drain(), ["tunnel 1 session ended s"]);
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    assert_eq!(world.drain(), ended());

    let mut world = listening();
    world.event(Event::Stop);
    assert_eq!(world.drain()[1..], ended());

    let mut world = listening();
    let actions = world.advance(Duration::from_secs(20_000));
    assert!(actions.ends_with(&ended()), "its family ran out: {actions:?}");

    let mut world = listening();
    assert_eq!(world.gone(1), [""; 0]);
    world.catalog(1, &whole(&[]));
    assert_eq!(world.advance(limits::HEARTBEAT), [""; 0], "its client went away");
}

#[test]
fn streams_of_both_eras_are_bounded_together() {
    let bounds = RelayLimits { streams_per_user: 6, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &files());
    world.drain();
    assert!(world.listen()[0].starts_with("begin"));
    world.version = Version::V2026_07_28;
    assert!(world.post(LISTEN)[0].starts_with("begin"));
    world.endpoint = Endpoint::Server("files".into());
    assert!(world.post(LISTEN)[0].starts_with("tunnel 1 open"));
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        world.endpoint = endpoint;
        let actions = world.post(LISTEN);
        assert!(actions.len() == 1 && actions[0].contains(" 503 "), "{actions:?}");
    }
    world.session = "another";
    assert!(world.listen()[0].contains(" 503 "));
    (world.session, world.family) = ("theirs", "another-client");
    assert!(world.listen()[0].starts_with("begin"), "another client's share is its own");
    (world.session, world.family) = ("another", "client-family");
    world.gone(2);
    assert!(world.listen()[0].starts_with("begin"));
}

#[test]
fn client_that_takes_no_stream_cannot_subscribe() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.accepts = Accepts::Json;
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        world.endpoint = endpoint;
        let actions = world.post(LISTEN);
        assert!(actions.len() == 1 && actions[0].contains(" 406 "), "{actions:?}");
    }
}

/// A subscription to one server: a call on stream 1.
pub(super) fn at_server() -> World {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.endpoint = Endpoint::Server("files".into());
    let actions = world.post(LISTEN);
    assert!(
        actions.len() == 1 && actions[0].starts_with("tunnel 1 open 1 files subscriptions/listen {"),
        "{actions:?}"
    );
    world
}

fn notice(world: &mut World, params: &str) -> Vec<String> {
    let json = format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed"{params}}}"#);
    world.tunnel(1, tunnel::Event::Message { stream: StreamId(1), json: Bytes::from(json), credit: 9 });
    world.drain()
}

#[test]
fn one_servers_notices_carry_the_clients_own_id() {
    let mut world = at_server();
    let expected = |more: &str| {
        format!(
            r#"body 1 +9 "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{{{more}}}}}\n\n""#
        )
    };
    let own = r#","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7,"x":1.0}}"#;
    let kept = META.replace("s1\\\"}", "s1\\\",\\\"x\\\":1.0}");
    assert_eq!(notice(&mut world, own), ["begin 1 events from 1/1".to_string(), expected(&kept)]);
    assert_eq!(notice(&mut world, ""), [expected(META)]);
    world.answer(1, 1, None);
    world.data(1, 1, r#"{"resultType":"comp"#, false);
    assert_eq!(world.data(1, 1, r#"lete"}"#, true), ended());
}

#[test]
fn one_servers_subscription_may_be_silent_and_ends_with_its_grant() {
    let mut world = at_server();
    let actions = world.advance(RelayLimits::default().call_idle * 2);
    assert!(
        actions.iter().all(|action| action.starts_with("begin 1 events") || action.contains("keep-alive")),
        "{actions:?}"
    );
    let actions = world.advance(Duration::from_secs(20_000));
    let (last, rest) = actions.split_at(actions.len() - 3);
    assert_eq!(rest[0], "tunnel 1 reset 1 Cancelled", "{actions:?}");
    assert_eq!(rest[1..], ended());
    assert!(last.iter().all(|action| action.contains("keep-alive")), "{last:?}");

    let mut world = at_server();
    let left = UnixTime::from_secs(20_000).saturating_since(world.now.unix);
    assert!(!world.advance(left - Duration::from_millis(1)).ends_with(&ended()));
    assert!(world.advance(Duration::from_millis(1)).ends_with(&ended()), "at that very moment");

    let mut world = at_server();
    assert_eq!(world.gone(1), ["tunnel 1 reset 1 Cancelled"]);
}

/// A subscription on `/mcp` to these resources of `a` and `b`, on exchange 1.
pub(super) fn watching(world: &mut World, uris: &[&str]) -> Vec<String> {
    world.version = Version::V2026_07_28;
    world.advance(limits::ANNOUNCE_LATE);
    let filter = serde_json::json!({ "resourceSubscriptions": uris });
    let params = format!(r#"{{"_meta":{{"x":1.0}},"notifications":{filter}}}"#);
    world.post(&LISTEN.replace(&LISTEN[LISTEN.find(r#"{"notifications"#).unwrap()..LISTEN.len() - 1], &params))
}

fn asked(conn: u32, stream: u32, server: &str, uris: &str) -> String {
    format!(
        r#"tunnel {conn} open {stream} {server} subscriptions/listen {{"notifications":{{"resourceSubscriptions":[{uris}]}},"_meta":{{"x":1.0}}}}"#
    )
}

/// What a server says it honours.
pub(super) fn honour(world: &mut World, conn: u64, stream: u32, uris: &str) -> Vec<String> {
    let json = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}}}"#
    );
    world.tunnel(conn, tunnel::Event::Message { stream: StreamId(stream), json: Bytes::from(json), credit: 9 });
    world.drain()
}

pub(super) fn update(world: &mut World, conn: u64, stream: u32, uri: &str) -> Vec<String> {
    let json =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}","x":1.0}}}}"#);
    world.tunnel(conn, tunnel::Event::Message { stream: StreamId(stream), json: Bytes::from(json), credit: 9 });
    world.drain()
}

pub(super) fn honoured(uris: &str) -> String {
    let uris = uris.replace('"', "\\\"");
    let member = if uris.is_empty() { String::new() } else { format!(r#"\"resourceSubscriptions\":[{uris}]"#) };
    event(&format!(
        r#"\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{{{META},\"notifications\":{{{member}}}}}"#
    ))
}

/// An update as the client gets it: what the server said of it stays.
fn updated(uri: &str) -> String {
    event(&format!(
        r#"\"method\":\"notifications/resources/updated\",\"params\":{{\"uri\":\"{uri}\",\"x\":1.0,{META}}}"#
    ))
}

/// An update that is the relay's word.
pub(super) fn missed(uri: &str) -> String {
    event(&format!(r#"\"method\":\"notifications/resources/updated\",\"params\":{{{META},\"uri\":\"{uri}\"}}"#))
}

/// One that watches `test://a/a`, acknowledged: the server's stream is 1 of connection 1.
fn watching_one() -> World {
    let mut world = aggregate::two_servers();
    assert_eq!(watching(&mut world, &["test://a/a"]), [asked(1, 1, "a", r#""test://a/a""#)]);
    let told = honour(&mut world, 1, 1, r#""test://a/a""#);
    let begun = "begin 1 events".to_string();
    assert_eq!(told, [begun, honoured(r#""test://a/a""#), "tunnel 1 consumed 1 9".into()]);
    world
}

#[test]
fn watched_resources_are_asked_of_their_owners_and_told_as_the_client_spells_them() {
    let mut world = aggregate::two_servers();
    let uris = ["mcp-tunnel:laptop/b/test://shared", "test://a/a", "test://shared", "x:unknown", "test://a/a"];
    let opened = watching(&mut world, &uris);
    assert_eq!(opened, [asked(1, 1, "b", r#""test://shared""#), asked(1, 2, "a", r#""test://a/a""#)]);
    let consumed = |stream: u32| format!("tunnel 1 consumed {stream} 9");
    assert_eq!(honour(&mut world, 1, 2, r#""test://a/a""#), [consumed(2)], "another one is still silent");
    let all = r#""mcp-tunnel:laptop/b/test://shared","test://a/a""#;
    assert_eq!(
        honour(&mut world, 1, 1, r#""test://shared""#),
        ["begin 1 events".into(), honoured(all), consumed(1)],
        "what may be either server's is nobody's"
    );
    let told = update(&mut world, 1, 1, "test://shared");
    assert_eq!(told, [updated("mcp-tunnel:laptop/b/test://shared"), consumed(1)]);
    assert_eq!(update(&mut world, 1, 2, "test://a/a/part"), [updated("test://a/a/part"), consumed(2)]);
    assert_eq!(update(&mut world, 1, 2, "test://a/other"), [consumed(2)], "it was not asked for");
    assert_eq!(world.said(2, r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#), [consumed(2)]);
    let question = world.said(2, r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
    assert!(question.len() == 2 && question[0].contains("error"), "{question:?}");
}

#[test]
fn resource_that_is_watched_in_two_spellings_is_told_in_both() {
    let mut world = aggregate::two_servers();
    let both = ["test://a/a", "mcp-tunnel:laptop/a/test://a/a"];
    assert_eq!(watching(&mut world, &both), [asked(1, 1, "a", r#""test://a/a""#)]);
    honour(&mut world, 1, 1, r#""test://a/a""#);
    let told = update(&mut world, 1, 1, "test://a/a");
    assert_eq!(told[..2], both.map(updated));
}

#[test]
fn what_a_server_does_not_honour_is_not_acknowledged() {
    let mut world = aggregate::two_servers();
    watching(&mut world, &["test://a/a", "test://a/t/1", "test://b/a"]);
    let told = honour(&mut world, 1, 1, r#""test://a/t/1""#);
    assert_eq!(told, ["tunnel 1 consumed 1 9"]);
    let told = world.error(1, 2, -32601, r#"{"code":-32601,"message":"no"}"#);
    assert_eq!(told, ["begin 1 events".to_string(), honoured(r#""test://a/t/1""#)]);
    let later = world.advance(limits::FEED_PAUSE_MAX * 2);
    assert!(later.iter().all(|action| action.contains("keep-alive")), "nobody is asked again: {later:?}");

    let mut world = aggregate::two_servers();
    watching(&mut world, &["test://a/a"]);
    let told = honour(&mut world, 1, 1, "");
    assert_eq!(told[0], "tunnel 1 reset 1 Cancelled");
    assert_eq!(told[1..3], ["begin 1 events".to_string(), honoured("")]);
    assert_eq!(update(&mut world, 1, 1, "test://a/a"), [""; 0]);
}

#[test]
fn silent_server_does_not_keep_a_subscription_waiting() {
    let mut world = aggregate::two_servers();
    watching(&mut world, &["test://a/a"]);
    assert_eq!(world.advance(limits::STREAM_AFTER), ["begin 1 events"]);
    assert!(world.advance(limits::FEED_PATIENCE).contains(&honoured(r#""test://a/a""#)));
    let told = honour(&mut world, 1, 1, r#""test://a/a""#);
    assert_eq!(told[0], missed("test://a/a"), "it may have changed meanwhile");
    let quiet = world.advance(RelayLimits::default().call_idle * 2);
    assert!(quiet.iter().all(|action| action.contains("keep-alive")), "it may be silent for long: {quiet:?}");
}

#[test]
fn changes_of_lists_wait_for_the_acknowledgement() {
    let mut world = aggregate::two_servers();
    world.version = Version::V2026_07_28;
    world.advance(limits::ANNOUNCE_LATE);
    world.post(&LISTEN.replace("a:b", "test://a/a"));
    world.catalog(1, &whole(&[aggregate::rich("a", ""), server("files", &["read"])]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0]);
    let told = honour(&mut world, 1, 1, r#""test://a/a""#);
    assert!(told[1].contains("acknowledged") && told[2] == changed(), "{told:?}");
}

#[test]
fn subscription_that_its_server_ends_is_opened_again_ever_more_slowly() {
    let mut world = watching_one();
    let mut pause = limits::FEED_PAUSE;
    for stream in 2..10 {
        aggregate::answered(&mut world, stream - 1, r#"{"resultType":"complete"}"#);
        let waited = world.advance(pause - Duration::from_micros(1));
        assert!(waited.iter().all(|action| action.contains("keep-alive")), "{waited:?}");
        let opened = world.advance(Duration::from_micros(1));
        assert_eq!(opened.last(), Some(&asked(1, stream, "a", r#""test://a/a""#)));
        assert_eq!(honour(&mut world, 1, stream, r#""test://a/a""#)[0], missed("test://a/a"));
        pause = (pause * 2).min(limits::FEED_PAUSE_MAX);
    }
    world.advance(limits::RECONNECT_STABLE);
    world.error(1, 9, -32603, r#"{"code":-32603,"message":"crash"}"#);
    let opened = world.advance(limits::FEED_PAUSE);
    assert_eq!(opened.last(), Some(&asked(1, 10, "a", r#""test://a/a""#)), "one that held begins anew");
}

#[test]
fn subscription_is_opened_again_when_its_device_comes_back() {
    let mut world = watching_one();
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    let alone = world.advance(limits::FEED_PAUSE_MAX);
    assert!(alone.iter().all(|action| action.contains("keep-alive")), "{alone:?}");
    world.up(2, "laptop", Some("id-1"));
    world.catalog(2, &whole(&[aggregate::rich("a", "").replace("ready", "failed")]));
    assert_eq!(world.drain(), [""; 0], "it takes no calls");
    world.catalog(2, &whole(&[aggregate::rich("a", "")]));
    assert_eq!(world.drain(), [asked(2, 1, "a", r#""test://a/a""#)]);
    let told = honour(&mut world, 2, 1, r#""test://a/a""#);
    assert_eq!(told, [missed("test://a/a"), "tunnel 2 consumed 1 9".into()]);
    assert_eq!(update(&mut world, 2, 1, "test://a/a")[0], updated("test://a/a"));
}

#[test]
fn what_servers_were_asked_ends_with_the_subscription() {
    let reset = "tunnel 1 reset 1 Cancelled".to_string();
    let mut world = watching_one();
    assert_eq!(world.gone(1), ["tunnel 1 reset 1 Cancelled"]);
    assert_eq!(world.advance(limits::FEED_PAUSE_MAX), [""; 0]);

    let mut world = watching_one();
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    assert_eq!(world.drain(), [&[reset.clone()][..], &ended()].concat());
    assert_eq!(world.advance(limits::FEED_PAUSE_MAX), [""; 0]);

    let mut world = watching_one();
    let actions = world.advance(Duration::from_secs(20_000));
    assert_eq!(actions[actions.len() - 3..], [&ended()[..], &[reset]].concat());

    let mut world = watching_one();
    world.event(Event::Stop);
    assert_eq!(world.drain()[1..], ended());
    assert_eq!(world.shard.poll_timeout(), None);
}

#[test]
fn watched_resources_are_bounded() {
    let mut world = aggregate::two_servers();
    let many: Vec<String> = (0..=limits::MAX_LISTENED).map(|n| format!("test://a/t/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for stream in 1..=3 {
        let opened = watching(&mut world, &many);
        let last = many[limits::MAX_LISTENED];
        if stream * limits::MAX_LISTENED <= limits::MAX_FED {
            assert!(opened.len() == 1 && opened[0].contains("test://a/t/0") && !opened[0].contains(last), "{opened:?}");
        } else {
            assert!(opened[1].contains(r#"\"notifications\":{}"#), "no room is left: {opened:?}");
        }
    }
    world.gone(1);
    assert!(watching(&mut world, &many)[0].contains("open"), "what ended makes room");
    let meta = format!(r#""_meta":{{"x":"{}"}},"notifications""#, "x".repeat(limits::MAX_FEED_META));
    let actions = world.post(&LISTEN.replace(r#""notifications""#, &meta));
    assert_eq!(failure(&actions[0]).0, -32602);
    assert_eq!(failure(&world.post(&LISTEN.replace(r#"["a:b"]"#, "[1]"))[0]).0, -32602);
}

#[test]
fn what_a_subscription_asks_of_servers_is_no_stream_of_the_users() {
    let bounds = RelayLimits { streams_per_user: 3, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[aggregate::rich("a", ""), aggregate::rich("b", "")]));
    world.drain();
    assert_eq!(watching(&mut world, &["test://a/a", "test://b/a"]).len(), 2);
    assert_eq!(watching(&mut world, &["test://a/a", "test://b/a"]).len(), 2);
    assert!(watching(&mut world, &[])[0].contains(" 503 "));
}

#[test]
fn update_is_never_said_before_the_acknowledgement() {
    let mut world = aggregate::two_servers();
    watching(&mut world, &["test://a/a", "test://b/a"]);
    honour(&mut world, 1, 1, r#""test://a/a""#);
    let told = update(&mut world, 1, 1, "test://a/a");
    assert_eq!(told[1..3], [honoured(r#""test://a/a","test://b/a""#), updated("test://a/a")]);
}

#[test]
fn server_that_cannot_be_asked_at_once_is_asked_later() {
    let bounds = RelayLimits { calls_per_user: 1, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[aggregate::rich("a", ""), aggregate::rich("b", "")]));
    world.drain();
    let all = r#""test://a/a","test://b/a""#;
    assert_eq!(watching(&mut world, &["test://a/a", "test://b/a"]), [asked(1, 1, "a", r#""test://a/a""#)]);
    assert_eq!(honour(&mut world, 1, 1, r#""test://a/a""#)[1], honoured(all));
    world.error(1, 1, -32601, r#"{"code":-32601,"message":"no"}"#);
    assert_eq!(world.advance(limits::FEED_PAUSE), [asked(1, 2, "b", r#""test://b/a""#)]);
}

/// A subscription on `/mcp` to `test://a/a` and these tasks, of a client that knows tasks, on exchange 2.
pub(super) fn watching_tasks(world: &mut World, tasks: &str, capabilities: &str) -> Vec<String> {
    let notifications = format!(r#"{{"resourceSubscriptions":["test://a/a"],"taskIds":{tasks}}}"#);
    let meta = format!(r#"{{"io.modelcontextprotocol/clientCapabilities":{capabilities}}}"#);
    let params = format!(r#"{{"_meta":{meta},"notifications":{notifications}}}"#);
    world.post(&format!(r#"{{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{params}}}"#))
}

pub(super) const KNOWS_TASKS: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// Server `b` has made the task `t-1` for a call on exchange 1.
pub(super) fn with_task() -> World {
    let mut world = World::new();
    world.version = Version::V2026_07_28;
    world.up(1, "laptop", Some("id-1"));
    let b = aggregate::rich("b", "").replace(r#""tools":[]"#, r#""tools":[{"name":"slow","inputSchema":{}}]"#);
    world.catalog(1, &whole(&[aggregate::rich("a", ""), b]));
    world.drain();
    world.advance(limits::ANNOUNCE_LATE);
    world.post(&call("b__slow", 1));
    world.answer(1, 1, None);
    world.data(1, 1, r#"{"resultType":"task","taskId":"t-1","status":"working"}"#, true);
    world
}

#[test]
fn tasks_are_asked_of_the_servers_that_made_them_and_told_as_they_are() {
    let mut world = with_task();
    let opened = watching_tasks(&mut world, r#"["t-unknown","t-1","t-1"]"#, KNOWS_TASKS);
    assert!(
        opened.len() == 2
            && opened[1].contains(r#"open 3 b subscriptions/listen {"notifications":{"taskIds":["t-1"]},"_meta""#),
        "{opened:?}"
    );
    assert!(opened[0].contains(
        r#"open 2 a subscriptions/listen {"notifications":{"resourceSubscriptions":["test://a/a"]},"_meta""#
    ));
    honour(&mut world, 1, 2, r#""test://a/a""#);
    let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"taskIds":["t-1","t-2"]}}}"#;
    let told = world.said(3, acknowledged);
    let honoured = r#"\"notifications\":{\"resourceSubscriptions\":[\"test://a/a\"],\"taskIds\":[\"t-1\"]}"#;
    assert!(told[1].starts_with("body 2 ") && told[1].contains(honoured), "{told:?}");
    let state = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{{"taskId":"{id}","ttlMs":1.0,"_meta":{{"io.modelcontextprotocol/subscriptionId":9}}}}}}"#
        )
    };
    let told = world.said(3, &state("t-1"));
    let expected = r#"\"method\":\"notifications/tasks\",\"params\":{\"taskId\":\"t-1\",\"ttlMs\":1.0,\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"s1\"}}"#;
    assert!(told.len() == 2 && told[0].starts_with("body 2 ") && told[0].contains(expected), "{told:?}");
    for (stream, id) in [(3, "t-2"), (2, "t-1")] {
        let told = world.said(stream, &state(id));
        assert_eq!(told, [format!("tunnel 1 consumed {stream} 9")], "{id} was not asked for there");
    }
}

#[test]
fn client_that_does_not_know_tasks_hears_what_it_lacks() {
    let mut world = with_task();
    for capabilities in ["{}", r#"{"extensions":{"io.modelcontextprotocol/tasks":null}}"#] {
        let reply = watching_tasks(&mut world, r#"["t-1"]"#, capabilities).remove(0);
        assert!(reply.contains(" 400 ") && failure(&reply).0 == -32021, "{reply}");
        assert!(reply.contains(&format!(r#""data":{{"requiredCapabilities":{KNOWS_TASKS}}}"#)), "{reply}");
    }
    let reply = watching_tasks(&mut world, "[7]", KNOWS_TASKS).remove(0);
    assert!(failure(&reply).0 == -32602 && reply.contains("taskIds"), "{reply}");
    let opened = watching_tasks(&mut world, "[]", "{}");
    assert!(opened.len() == 1 && opened[0].contains("open 2 a "), "{opened:?}");
}
