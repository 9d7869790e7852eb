use super::*;
use crate::limits;
use crate::mcp::code;
use crate::tunnel::{Close, CloseCode};

#[test]
fn one_device_cannot_take_anothers_name() {
    let (v1, v2) = (|family| (Dialect::V1, None, family), |id, family| (Dialect::V2, id, family));
    let (replaced, taken) = (&["tunnel 1 close Replaced"][..], &["tunnel 2 close NameTaken"][..]);
    for (old, new, expected) in [
        (v2(Some("a"), "x"), v2(Some("a"), "x"), replaced),
        (v2(Some("a"), "x"), v2(Some("a"), "y"), replaced),
        (v2(Some("a"), "x"), v2(Some("b"), "x"), taken),
        (v2(Some("a"), "x"), v2(None, "x"), taken),
        (v2(Some("a"), "x"), v2(None, "y"), taken),
        // Without an id the sign-in tells.
        (v2(None, "x"), v2(None, "x"), replaced),
        (v2(None, "x"), v2(Some("a"), "x"), replaced),
        (v2(None, "x"), v2(None, "y"), taken),
        (v2(None, "x"), v2(Some("a"), "y"), taken),
        // An old agent waits.
        (v2(Some("a"), "x"), v1("x"), &[]),
        (v2(None, "x"), v1("x"), &[]),
        (v1("x"), v2(Some("b"), "y"), &[]),
        (v1("x"), v2(None, "y"), &[]),
        (v1("x"), v1("y"), &[]),
    ] {
        let mut world = World::new();
        for (conn, (dialect, id, family)) in [(1, old), (2, new)] {
            assert_eq!(world.drain(), [""; 0]);
            world.up_as(conn, "laptop", id, dialect, family);
        }
        assert_eq!(world.drain(), expected, "{old:?} {new:?}");
    }
}

#[test]
fn replaced_tunnel_answers_its_calls_and_says_nothing_more() {
    let mut world = World::ready();
    world.call(7);
    world.up(2, "laptop", Some("id-1"));
    let actions = world.drain();
    assert_eq!(actions[0], "tunnel 1 close Replaced");
    assert_eq!(failure(&actions[1]), (code::AGENT_GONE, "device-disconnected".into()));
    world.catalog(2, &files());
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Replaced, "")));
    assert!(world.call(8)[0].starts_with("tunnel 2 open 1"));
}

/// `laptop` on connection 1 with id `old`, then on connection 2 with id `new`; an old agent has no id.
fn two(old: Option<&str>, new: Option<&str>) -> World {
    let mut world = World::new();
    for (conn, id) in [(1, old), (2, new)] {
        world.up(conn, "laptop", id);
        world.catalog(conn, &files());
    }
    assert_eq!(world.drain(), [""; 0]);
    world
}

#[test]
fn old_agents_of_one_name_do_not_drive_each_other_out() {
    for (old, new, holder, other) in [(None, None, 2, 1), (None, Some("a"), 2, 1), (Some("a"), None, 1, 2)] {
        let mut world = two(old, new);
        assert!(world.call(7)[0].starts_with(&format!("tunnel {holder} open")), "{old:?} {new:?}");
        world.tunnel(holder, tunnel::Event::Closed(Close::new(CloseCode::Other(1006), "")));
        let actions = world.drain();
        assert_eq!((failure(&actions[0]).1, actions.len()), ("device-disconnected".into(), 2));
        assert_eq!(actions[1], format!("tunnel {other} close GoingAway"), "it connects anew, and says what it has");
        assert_eq!(failure(&world.call(8)[0]).1, "no-device");
    }
}

#[test]
fn old_agent_that_loses_its_name_answers_its_calls() {
    let mut world = World::new();
    world.up(1, "laptop", None);
    world.catalog(1, &files());
    world.call(7);
    world.up(2, "laptop", None);
    let actions = world.drain();
    assert_eq!((failure(&actions[0]).1, actions.len()), ("device-disconnected".into(), 1));
    assert_eq!(world.answer(1, 1, None), [""; 0]);
}

#[test]
fn waiting_agent_goes_like_any_other() {
    let gone = |world: &mut World| world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Other(1006), "")));
    let mut world = two(None, None);
    gone(&mut world);
    world.tunnel(2, tunnel::Event::Closed(Close::new(CloseCode::Other(1006), "")));
    assert_eq!(world.drain(), [""; 0], "nobody is left to call back");

    let mut world = two(None, None);
    world.event(Event::Revoked { family: FamilyId::new("family-1") });
    assert_eq!(world.drain(), ["tunnel 1 close Revoked"]);

    let mut world = two(None, None);
    let expired = world.advance(Duration::from_secs(29_000));
    assert_eq!(expired, ["tunnel 1 close Revoked", "tunnel 2 close Revoked"]);

    let mut world = two(None, None);
    world.event(Event::Stop);
    assert_eq!(world.drain(), ["tunnel 1 close GoingAway", "tunnel 2 close GoingAway"]);
}

#[test]
fn waiting_agents_are_bounded() {
    let mut world = World::new();
    for conn in 0..=u64::try_from(limits::MAX_DEVICES).unwrap() + 1 {
        world.up(conn, "laptop", None);
    }
    assert_eq!(world.drain(), ["tunnel 0 close Refused"]);
}

#[test]
fn name_is_free_again_when_its_device_has_gone() {
    let mut world = World::ready();
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Other(1006), "")));
    world.up(2, "laptop", Some("other"));
    assert_eq!(world.drain(), [""; 0]);
}

#[test]
fn users_do_not_see_each_other() {
    let mut world = World::ready();
    world.user = "bob";
    assert_eq!(failure(&world.call(7)[0]).1, "no-device");
    world.up(2, "laptop", Some("id-2"));
    assert_eq!(world.drain(), [""; 0], "the same name of another user is another name");
}

#[test]
fn devices_of_a_user_are_bounded() {
    for most in [1, limits::MAX_DEVICES] {
        let bounds = RelayLimits { devices_per_user: most, ..RelayLimits::default() };
        let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
        for conn in 0..=u64::try_from(most).unwrap() {
            world.up(conn, &format!("device-{conn}"), Some("id"));
        }
        assert_eq!(world.drain(), [format!("tunnel {most} close Refused")]);
    }
}

#[test]
fn revoked_family_loses_its_tunnels_and_its_calls() {
    let mut world = World::ready();
    world.call(7);
    world.event(Event::Revoked { family: FamilyId::new("family-1") });
    let actions = world.drain();
    assert_eq!(actions[0], "tunnel 1 close Revoked");
    assert_eq!(failure(&actions[1]).1, "device-disconnected");
    assert_eq!(actions.len(), 2);

    let mut world = World::ready();
    world.call(7);
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    let actions = world.drain();
    assert_eq!(actions[0], "tunnel 1 reset 1 Cancelled");
    assert_eq!(failure(&actions[1]).1, "signed-out");
    assert_eq!(actions.len(), 2);
}

#[test]
fn tunnel_ends_when_its_family_runs_out_also_when_the_clock_jumps() {
    let mut world = World::ready();
    assert_eq!(world.advance(Duration::from_secs(28_999)), [""; 0]);
    assert_eq!(world.advance(Duration::from_secs(1)), ["tunnel 1 close Revoked"]);

    let mut world = World::ready();
    world.now.unix = UnixTime::from_secs(30_000);
    assert_eq!(world.advance(Duration::from_secs(600)), ["tunnel 1 close Revoked"]);
}

#[test]
fn status_tells_of_no_device() {
    let mut world = World::new();
    let status = world.ask(&call("status", 1));
    assert_eq!(status["result"]["structuredContent"]["connected"], false);
    assert!(status["result"]["content"][0]["text"].as_str().unwrap().starts_with("No device is connected"));
    let list = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let names: Vec<_> = list["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["status", "restart"]);
}

#[test]
fn status_shows_devices_servers_and_tools() {
    let mut world = World::ready();
    world.tunnel(1, tunnel::Event::Up(tunnel::Hello { os: "linux".into(), ..Default::default() }));
    world.tunnel(1, tunnel::Event::RoundTrip { micros: 12_900 });
    let failed = r#"{"name":"git","state":"failed","reason":"exit code 1\u001b[31m","sinceSecs":60,"tools":[]}"#;
    world.catalog(1, &format!(r#"{{"servers":[{failed}]}}"#));
    world.advance(Duration::from_secs(90));
    let status = world.ask(&call("status", 1));
    let device = &status["result"]["structuredContent"]["devices"][0];
    assert_eq!(
        *device,
        serde_json::json!({
            "name": "laptop", "uptimeSeconds": 90, "roundTripMs": 12, "dialect": "v2", "os": "linux",
            "servers": [
                {"name": "files", "state": "ready", "sinceSeconds": 90, "restarts": 0,
                 "tools": ["files__read", "files__write"], "dropped": []},
                {"name": "git", "state": "failed", "reason": "exit code 1 [31m", "sinceSeconds": 150, "restarts": 0,
                 "tools": [], "dropped": []},
            ]
        })
    );
    let text = status["result"]["content"][0]["text"].as_str().unwrap();
    assert_eq!(
        text,
        "laptop: connected for 1 min 30 s, round trip 12 ms\n  files: ready, 2 tools\n  git: failed (exit code 1 [31m), 0 tools\n"
    );
}

#[test]
fn status_names_changed_tools_as_their_device_does() {
    let mut world = World::ready();
    let many = std::vec![
        r#"{"tool":"read\u202e","change":"changed since it\nwas first seen","held":true}"#;
        limits::MAX_CHANGED + 1
    ];
    let files = format!(r#"{{"name":"files","state":"ready","tools":[],"changed":[{}]}}"#, many.join(","));
    world.catalog(1, &format!(r#"{{"servers":[{files}]}}"#));
    let status = world.ask(&call("status", 1));
    let changed = status["result"]["structuredContent"]["devices"][0]["servers"][0]["changed"].as_array().unwrap();
    assert_eq!(changed.len(), limits::MAX_CHANGED);
    let first = serde_json::json!({"tool": "read ", "change": "changed since it was first seen", "held": true});
    assert_eq!(changed[0], first);
    let text = status["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("\n    held back: read : changed since it was first seen\n"), "{text}");
}

fn restart(arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"restart","arguments":{arguments}}}}}"#)
}

#[test]
fn restart_orders_what_is_meant() {
    for (arguments, expected) in [
        ("{}", &["tunnel 2 restart None", "tunnel 1 restart None"][..]),
        ("null", &["tunnel 2 restart None", "tunnel 1 restart None"]),
        (r#"{"server":null,"device":"laptop"}"#, &["tunnel 1 restart None"]),
        (r#"{"server":"files"}"#, &[r#"tunnel 2 restart Some("files")"#, r#"tunnel 1 restart Some("files")"#]),
        (r#"{"server":"files","device":"desktop"}"#, &[r#"tunnel 2 restart Some("files")"#]),
        (r#"{"server":"nothing"}"#, &[]),
        (r#"{"device":"nothing"}"#, &[]),
    ] {
        let mut world = World::ready();
        world.up(2, "desktop", Some("id-2"));
        world.catalog(2, &files());
        world.drain();
        let mut actions = world.post(&restart(arguments));
        let reply = actions.pop().unwrap();
        assert_eq!(actions, expected, "{arguments}");
        let is_error = format!("\"isError\":{}", expected.is_empty());
        assert!(reply.contains(&is_error), "{reply}");
    }
}

#[test]
fn restart_says_whom_it_asked_and_leaves_the_outcome_to_status() {
    let mut world = World::ready();
    world.up(2, "desktop", Some("id-2"));
    world.catalog(2, &files());
    world.drain();
    let mut actions = world.post(&restart("{}"));
    let json: serde_json::Value = serde_json::from_str(actions.pop().unwrap().splitn(4, ' ').nth(3).unwrap()).unwrap();
    let text = "Asked desktop to restart all its servers, laptop to restart all its servers. status shows how it went.";
    assert_eq!(json["result"]["content"][0]["text"], text);
    let expected = serde_json::json!({"restarting": ["files"], "devices": ["desktop", "laptop"]});
    assert_eq!(json["result"]["structuredContent"], expected);
}

#[test]
fn status_shows_what_an_agent_remarks_until_it_does_not() {
    let mut world = World::ready();
    let remark = format!("not read:\\n\\u001b[2J{}", "x".repeat(limits::MAX_REASON));
    world.catalog(1, &format!(r#"{{"remark":"{remark}"}}"#));
    let status = world.ask(&call("status", 1));
    let shown = status["result"]["structuredContent"]["devices"][0]["remark"].as_str().unwrap();
    assert!(shown.starts_with("not read:") && shown.len() <= limits::MAX_REASON, "{shown}");
    assert!(!shown.contains(char::is_control));
    assert!(status["result"]["content"][0]["text"].as_str().unwrap().contains(shown));
    world.catalog(1, "{}");
    let status = world.ask(&call("status", 1));
    assert!(status["result"]["structuredContent"]["devices"][0].get("remark").is_none(), "{status}");
}

#[test]
fn restart_refuses_other_arguments() {
    let mut world = World::ready();
    for arguments in ["[]", r#"{"server":1}"#, r#"{"device":{}}"#, "7"] {
        let actions = world.post(&restart(arguments));
        assert_eq!(failure(&actions[0]), (code::INVALID_PARAMS, "bad-params".into()), "{arguments}");
    }
    let actions = World::new().post(&restart("{}"));
    assert!(actions[0].contains("No device is connected") && actions.len() == 1);
}

#[test]
fn connection_comes_up_once_and_stays_its_users() {
    let mut world = World::ready();
    world.user = "bob";
    world.up(1, "laptop", Some("id-2"));
    assert_eq!(world.drain(), [""; 0]);
    assert!(world.call(1)[0].starts_with("reply 1 "), "it is not bob's");
    world.user = "ann";
    assert!(world.call(1)[0].starts_with("tunnel 1 open 1 files "));
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "{}", true), [r#"reply 2 200 {"jsonrpc":"2.0","id":1,"result":{}}"#]);
}

#[test]
fn agent_that_was_called_back_is_waited_for_no_more() {
    let mut world = two(None, None);
    world.tunnel(2, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    assert_eq!(world.drain(), ["tunnel 1 close GoingAway"]);
    world.event(Event::Stop);
    assert_eq!(world.drain(), [""; 0], "once");
}

#[test]
fn nothing_is_left_of_an_agent_that_waited_for_longest() {
    let bounds = RelayLimits { devices_per_user: 1, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    for conn in 1..=3 {
        world.up(conn, "laptop", None);
    }
    assert_eq!(world.drain(), ["tunnel 1 close Refused"]);
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Refused, "")));
    assert!(world.shard.leftovers().is_empty(), "{:?}", world.shard.leftovers());
}
