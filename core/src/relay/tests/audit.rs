//! The lines about tunnels and calls.

use serde_json::{Value, json};

use super::*;

/// A world whose user is audited, with the device `laptop` as ever.
fn audited() -> World {
    let mut world = World::new();
    world.audit = Some("pseudonym".into());
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &files());
    world
}

/// The lines among some actions.
fn lines(actions: &[String]) -> Vec<Value> {
    let lines = actions.iter().filter_map(|action| action.strip_prefix("audit "));
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn call_line(more: &Value) -> Value {
    let mut line = json!({
        "time": "1970-01-01T00:16:42.000Z", "event": "call", "user": "pseudonym", "grant": "client-family",
        "session": "043a718774c572bd", "actor": "client", "client": "Cursor 1", "device": "laptop", "server": "files",
        "method": "tools/call", "tool": "read", "decision": "allowed", "durationMs": 2000, "paramsBytes": 37,
        "outcome": "result",
    });
    for (key, value) in more.as_object().expect("members") {
        line[key] = value.clone();
    }
    line.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    line
}

#[test]
fn answered_call_has_one_line_with_its_size() {
    let mut world = audited();
    world.drain();
    assert_eq!(lines(&world.call(1)), Vec::<Value>::new(), "what is under way is noted when it is over");
    world.advance(Duration::from_secs(2));
    world.answer(1, 1, None);
    assert_eq!(lines(&world.data(1, 1, r#"{"secret":"#, false)), Vec::<Value>::new());
    let actions = world.data(1, 1, r#""s3cret"}"#, true);
    assert_eq!(lines(&actions), [call_line(&json!({"resultBytes": 19}))]);
    assert!(!json!(lines(&actions)).to_string().contains("s3cret"));
}

#[test]
fn failed_call_has_a_line_that_says_why() {
    let mut world = audited();
    world.drain();
    world.call(1);
    world.advance(Duration::from_secs(2));
    let stream = StreamId(1);
    world.tunnel(1, tunnel::Event::Answer { stream, outcome: Outcome::Error { code: -5 }, length: None });
    let error = r#"{"code":-5,"message":"m"}"#;
    assert_eq!(lines(&world.data(1, 1, error, true)), [call_line(&json!({"outcome": "error", "code": -5}))]);

    world.call(2);
    world.advance(Duration::from_secs(1));
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    let line = lines(&world.post(cancel)).pop().expect("a line");
    assert_eq!((line["outcome"].as_str(), line["reason"].as_str()), (Some("cancelled"), Some("cancelled")));
    assert!(line.get("code").is_none());

    world.call(3);
    world.tunnel(1, tunnel::Event::Closed(tunnel::Close::new(tunnel::CloseCode::TimedOut, "")));
    let told = lines(&world.drain());
    let words: Vec<_> =
        told.iter().map(|line| (line["event"].as_str().unwrap(), line["reason"].as_str().unwrap())).collect();
    assert_eq!(words, [("call", "device-disconnected"), ("tunnel-down", "timed-out")]);
}

#[test]
fn call_that_is_not_let_through_has_a_line_too() {
    let mut world = audited();
    world.drain();
    let told = lines(&world.post(&call("no_such\u{202e}tool", 1))).pop().expect("a line");
    assert_eq!((told["decision"].as_str(), told["reason"].as_str()), (Some("invalid"), Some("no-such-tool")));
    assert_eq!((told["tool"].as_str(), told.get("device")), (Some("no_such tool"), None));
    world.call(2);
    let again = lines(&world.call(2)).pop().expect("a line");
    assert_eq!((again["decision"].as_str(), again["reason"].as_str()), (Some("invalid"), Some("id-in-use")));
    assert_eq!((again["device"].as_str(), again["server"].as_str()), (Some("laptop"), Some("files")));
    world.endpoint = Endpoint::Server("nowhere".into());
    let nowhere = lines(&world.post(&call("read", 3))).pop().expect("a line");
    assert_eq!(nowhere["reason"], "no-such-server");
}

#[test]
fn relays_own_tools_have_lines() {
    let mut world = audited();
    world.drain();
    let line = lines(&world.post(&call("status", 1))).pop().expect("a line");
    assert_eq!(
        (line["tool"].as_str(), line["outcome"].as_str(), line.get("server")),
        (Some("status"), Some("result"), None)
    );
    assert!(line["resultBytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[test]
fn devices_come_and_go_with_lines() {
    let mut world = audited();
    let up = lines(&world.drain()).remove(0);
    let expected = json!({
        "time": "1970-01-01T00:16:40.000Z", "event": "tunnel-up", "user": "pseudonym", "grant": "family-1",
        "device": "laptop", "dialect": "V2",
    });
    assert_eq!(up, expected);
    world.up(2, "laptop", Some("id-2"));
    let refused = lines(&world.drain());
    assert_eq!(
        (refused.len(), &refused[0]["event"], &refused[0]["reason"]),
        (1, &json!("tunnel-refused"), &json!("name-taken"))
    );
    world.advance(Duration::from_secs(3));
    world.up_as(3, "laptop", Some("id-1"), Dialect::V2, "family-1");
    let words: Vec<_> = lines(&world.drain()).iter().map(|line| line["event"].as_str().unwrap().to_string()).collect();
    assert_eq!(words, ["tunnel-down", "tunnel-up"]);
    world.event(Event::Revoked { family: FamilyId::new("family-1") });
    let down = lines(&world.drain()).pop().expect("a line");
    assert_eq!(
        (down["event"].as_str(), down["reason"].as_str(), down["durationMs"].as_u64()),
        (Some("tunnel-down"), Some("revoked"), Some(0))
    );
}

#[test]
fn tunnel_whose_grant_ran_out_was_not_revoked() {
    let mut world = audited();
    world.drain();
    world.now.unix = UnixTime::from_secs(30_000);
    let down = lines(&world.advance(Duration::from_secs(30_000))).pop().expect("a line");
    assert_eq!((down["event"].as_str(), down["reason"].as_str()), (Some("tunnel-down"), Some("grant-ran-out")));
}

#[test]
fn nothing_is_said_of_users_who_are_not_audited() {
    let mut world = World::ready();
    world.call(1);
    world.answer(1, 1, None);
    assert_eq!(lines(&world.data(1, 1, "{}", true)), Vec::<Value>::new());
    world.event(Event::Stop);
    assert_eq!(lines(&world.drain()), Vec::<Value>::new());
}

#[test]
fn request_that_goes_to_no_server_has_a_line() {
    let mut world = audited();
    world.drain();
    let told = world.post(&aggregate::request(1, "prompts/get", r#"{"name":"none"}"#));
    let line = lines(&told).pop().expect("a line");
    let words = ["method", "decision", "reason"].map(|key| line[key].as_str());
    assert_eq!(words, [Some("prompts/get"), Some("invalid"), Some("no-such-prompt")]);
}

#[test]
fn device_that_is_not_let_in_has_a_line() {
    let bounds = RelayLimits { devices_per_user: 1, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.audit = Some("pseudonym".into());
    world.up(1, "laptop", Some("id-1"));
    world.drain();
    let (another, old) = (("desktop", Some("id-2")), ("laptop", None));
    for (conn, (device, id), reason) in [(2, another, "too-many-devices"), (3, old, "waits-for-its-name")] {
        world.up(conn, device, id);
        let told = lines(&world.drain());
        let words: Vec<_> = told.iter().map(|line| (line["event"].as_str(), line["reason"].as_str())).collect();
        assert_eq!(words, [(Some("tunnel-refused"), Some(reason))]);
    }
}

#[test]
fn subscription_whose_tunnel_breaks_has_a_line() {
    let mut world = audited();
    (world.version, world.endpoint) = (Version::V2026_07_28, Endpoint::Server("files".into()));
    world.post(subscriptions::LISTEN);
    let told = lines(&kit::lose(&mut world));
    let words: Vec<_> = told.iter().map(|line| (line["event"].as_str(), line["reason"].as_str())).collect();
    assert_eq!(words[0], (Some("call"), Some("device-disconnected")));
    assert_eq!((words.len(), told[0]["method"].as_str()), (2, Some("subscriptions/listen")));
}
