//! What is told beside an answer: fields, and words for people.

use http::header::{HeaderName, HeaderValue};

use super::*;
use crate::http::ReplyHead;
use crate::limits;
use crate::mcp::code;
use crate::tunnel::ResetCode;

fn restart(world: &mut World, arguments: &str) -> Vec<String> {
    let params = format!(r#"{{"name":"restart","arguments":{arguments}}}"#);
    world.post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#))
}

#[test]
fn restart_of_nothing_says_what_there_is() {
    for (arguments, words) in [
        (r#"{"device":"desktop"}"#, "No device desktop is connected; there are: laptop."),
        (r#"{"server":"git"}"#, "There is no server git; there are: files."),
        (r#"{"server":"git","device":"laptop"}"#, "There is no server git; there are: files."),
    ] {
        let told = restart(&mut World::ready(), arguments);
        assert!(told.len() == 1 && told[0].contains(words), "{arguments}: {told:?}");
    }
    assert!(restart(&mut World::new(), "{}")[0].contains("No device is connected."));
}

#[test]
fn device_is_called_by_its_name_or_by_the_label_that_tools_have() {
    let label = crate::names::label("my laptop");
    for name in ["my laptop", &label] {
        let mut world = World::new();
        world.up(1, "my laptop", Some("id-1"));
        world.catalog(1, &files());
        world.drain();
        let told = restart(&mut world, &format!(r#"{{"device":"{name}","server":"files"}}"#));
        assert_eq!(told[0], r#"tunnel 1 restart Some("files")"#, "{name}");
        assert!(told[1].contains(r#""restarting":["files"]"#), "{told:?}");
    }
}

#[test]
fn status_tells_spans_in_their_two_largest_units() {
    for (secs, words) in [(59, "59 s"), (61, "1 min 1 s"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h")] {
        let mut world = World::new();
        world.up_as(1, "laptop", Some("id-1"), Dialect::V2, "f");
        world.drain();
        // A clock that jumps would end the grant.
        world.now.instant = world.now.instant + Duration::from_secs(secs);
        let told = world.post(&call("status", 1));
        assert!(told[0].contains(&format!("laptop: connected for {words}")), "{told:?}");
    }
}

#[test]
fn server_that_is_not_there_is_missed_otherwise_where_no_device_is() {
    for (mut world, expected, words) in [
        (World::new(), code::SERVER_UNAVAILABLE, "no device is connected"),
        (World::ready(), code::INVALID_PARAMS, "there are files"),
    ] {
        world.endpoint = Endpoint::Server("git".into());
        let told = world.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        assert!(failure(&told[0]).0 == expected && told[0].contains(words), "{told:?}");
    }
}

#[test]
fn reason_of_a_reset_is_told_if_there_is_one() {
    for (reason, words) in [("", "on laptop)\""), ("it fell", "on laptop): it fell\"")] {
        let mut world = World::ready();
        world.call(1);
        let (stream, code) = (StreamId(1), ResetCode::Internal);
        world.tunnel(1, tunnel::Event::Reset { stream, code, reason: reason.into() });
        let told = world.drain();
        assert!(told[0].contains(words), "{told:?}");
    }
}

#[test]
fn tool_of_an_old_agent_goes_by_the_name_that_it_listed() {
    let mut world = World::new();
    world.up(1, "laptop", None);
    world.catalog(1, &files());
    world.drain();
    assert!(world.call(1)[0].ends_with(" v1 files__read"));
}

#[test]
fn user_whose_calls_are_all_open_is_told_so() {
    let bounds = RelayLimits { calls_per_user: 2, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &files());
    world.drain();
    for (family, words) in [("a", " open "), ("b", " open "), ("c", "of this user (limits.callsPerUser)")] {
        (world.family, world.session) = (family, family);
        assert!(world.call(1)[0].contains(words), "{words}");
    }
}

#[test]
fn old_agent_is_called_back_when_the_one_of_its_name_is_revoked() {
    let mut world = World::new();
    world.up(1, "laptop", None);
    world.up(2, "laptop", None);
    world.drain();
    world.event(Event::Revoked { family: FamilyId::new("family-2") });
    assert_eq!(world.drain(), ["tunnel 2 close Revoked", "tunnel 1 close GoingAway"]);
}

#[test]
fn notice_of_a_moment_ago_is_kept_if_it_is_not_too_long() {
    for (length, heard) in [(limits::MAX_LATE_NOTICE, 1), (limits::MAX_LATE_NOTICE + 1, 0)] {
        let mut world = World::ready();
        let mut json = br#"{"jsonrpc":"2.0","method":"notifications/message"}"#.to_vec();
        json.resize(length, b' ');
        let (server, sessions) = ("files".into(), ["s".to_string()].into());
        world.tunnel(1, tunnel::Event::Notice { server, sessions, json: json.into() });
        world.endpoint = Endpoint::Server("files".into());
        let told = world.listen();
        assert_eq!(told.iter().filter(|action| action.contains("notifications/message")).count(), heard, "{length}");
    }
}

#[test]
fn prompts_and_templates_of_all_devices_are_bounded_together() {
    let entries = |count: usize, entry: &dyn Fn(usize) -> String| (0..count).map(entry).collect::<Vec<_>>().join(",");
    let mut world = World::new();
    for (conn, device) in [(1, "one"), (2, "two")] {
        let prompts = entries(limits::MAX_PROMPTS, &|n| format!(r#"{{"name":"p{n}"}}"#));
        let templates =
            entries(limits::MAX_TEMPLATES, &|n| format!(r#"{{"name":"t","uriTemplate":"test://{conn}/{n}/{{x}}"}}"#));
        world.up(conn, device, Some(device));
        let lists = format!(r#""prompts":[{prompts}],"templates":[{templates}]"#);
        world.catalog(conn, &whole(&[format!(r#"{{"name":"s","state":"ready",{lists}}}"#)]));
    }
    world.drain();
    for (method, name, most) in [
        ("prompts/list", r#""name":"#, limits::MAX_PROMPTS),
        ("resources/templates/list", r#""uriTemplate":"#, limits::MAX_TEMPLATES),
    ] {
        let told = world.post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)).concat().replace('\\', "");
        assert_eq!(told.matches(name).count(), most, "{method}");
    }
}

const OWN: &str = "x-own";

/// The heads of what answers a call whose reply is to have a field of its own.
fn heads(accepts: Accepts, then: impl FnOnce(&mut World)) -> Vec<(Option<u16>, HeaderMap)> {
    let mut world = World::ready();
    let id = rpc::RawId::from_number(1);
    let params = Bytes::from_static(br#"{"name":"files__read"}"#);
    let fields = [(HeaderName::from_static(OWN), HeaderValue::from_static("new"))];
    world.event(Event::Post(Post {
        exchange: ExchangeId(1),
        principal: world.principal(),
        endpoint: Endpoint::All,
        speaker: world.speaker(),
        accepts,
        headers: fields.into_iter().collect(),
        audit: None,
        content: Content::Request(Request { id, method: "tools/call".into(), params }),
    }));
    then(&mut world);
    let actions = core::iter::from_fn(|| world.shard.poll_action());
    let head = |action| match action {
        Action::Reply { reply, .. } => Some((Some(reply.status.as_u16()), reply.headers)),
        Action::Begin { head: ReplyHead { headers, .. }, .. } => Some((None, headers)),
        _ => None,
    };
    actions.filter_map(head).collect()
}

fn said(world: &mut World, event: tunnel::Event) {
    world.tunnel(1, event);
}

#[test]
fn fields_of_a_reply_are_sent_with_it_however_it_begins() {
    let stream = StreamId(1);
    let answer = |world: &mut World, text: &'static str, end| {
        said(world, tunnel::Event::Answer { stream, outcome: Outcome::Result, length: None });
        said(world, tunnel::Event::Data { stream, bytes: Bytes::from_static(text.as_bytes()), end });
    };
    let message = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/progress"}"#);
    let told = [
        heads(Accepts::Json, |world| answer(world, "{}", true)),
        heads(Accepts::Stream, |world| answer(world, "{}", true)),
        heads(Accepts::Json, |world| answer(world, "{", false)),
        heads(Accepts::Either, |world| said(world, tunnel::Event::Message { stream, json: message, credit: 1 })),
    ];
    let kinds = ["application/json", "text/event-stream", "application/json", "text/event-stream"];
    for (heads, kind) in told.iter().zip(kinds) {
        let [(_, fields)] = &heads[..] else { panic!("one head: {heads:?}") };
        let text = |name: &str| fields[name].to_str().unwrap();
        assert_eq!((text(OWN), text("content-type")), ("new", kind));
        assert!(text("cache-control").starts_with("no-store"), "{fields:?}");
        assert_eq!(fields.contains_key("x-accel-buffering"), kind == "text/event-stream");
    }
}
