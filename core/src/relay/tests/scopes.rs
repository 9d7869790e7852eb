//! What tokens with less than all scopes open.

use super::*;
use crate::http::Reply;

const READ: &str = "mcp:read";
const TOOLS: &str = "mcp:tools";
const MANAGE: &str = "tunnel:manage";

/// A world whose server `files` has a tool that says that it only reads, one that says nothing, one that contradicts
/// itself.
fn world(scopes: &str) -> World {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let tool = |name: &str, annotations: &str| {
        format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}},"annotations":{annotations}}}"#)
    };
    let tools = [
        tool("look", r#"{"readOnlyHint":true}"#),
        tool("read", "{}"),
        tool("odd", r#"{"readOnlyHint":true,"destructiveHint":true}"#),
    ];
    world.catalog(1, &whole(&[format!(r#"{{"name":"files","state":"ready","tools":[{}]}}"#, tools.join(","))]));
    world.drain();
    world.scopes = Scopes::read(scopes);
    world
}

fn ask(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

/// The scopes that the request is told to come back with; `None` when it was not refused for want of one.
fn challenged(world: &mut World, content: Content) -> Option<String> {
    world.exchanges += 1;
    let exchange = ExchangeId(world.exchanges);
    let post = Post {
        exchange,
        principal: world.principal(),
        endpoint: world.endpoint.clone(),
        speaker: Speaker::Legacy(world.session()),
        accepts: world.accepts,
        audit: world.audit.clone(),
        headers: HeaderMap::from_iter([(http::header::VARY, "Origin".parse().unwrap())]),
        content,
    };
    world.event(Event::Post(post));
    let mut replies = core::iter::from_fn(|| world.shard.poll_action()).filter_map(|action| match action {
        Action::Reply { reply, .. } if reply.status == 403 => Some(reply),
        _ => None,
    });
    replies.next().map(|reply| scope_of(&reply, "/mcp"))
}

fn scope_of(reply: &Reply, document: &str) -> String {
    let challenge = reply.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer error=\"insufficient_scope\", error_description=\""), "{challenge}");
    let metadata =
        format!("resource_metadata=\"https://relay.example/.well-known/oauth-protected-resource{document}\"");
    assert!(challenge.contains(&metadata), "{challenge}");
    assert_eq!(reply.headers["vary"], "Origin", "the page that asked may read it");
    challenge.split_once("scope=\"").unwrap().1.strip_suffix('"').unwrap().to_string()
}

fn request(json: &str) -> Content {
    match rpc::parse(&Bytes::copy_from_slice(json.as_bytes())).unwrap() {
        Message::Request { id, method, params } => Content::Request(Request { id, method, params }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_scope_opens_its_requests_and_names_what_is_missing() {
    let call = |name: &str| ask("tools/call", &format!(r#"{{"name":"{name}"}}"#));
    let cases = [
        (ask("ping", "{}"), [None, None, None]),
        (ask("initialize", "{}"), [None, None, None]),
        (ask("tools/list", "{}"), [None, Some("mcp:tools mcp:read"), Some("mcp:read tunnel:manage")]),
        (ask("resources/list", "{}"), [None, Some("mcp:tools mcp:read"), Some("mcp:read tunnel:manage")]),
        (call("files__look"), [None, None, Some("mcp:read tunnel:manage")]),
        (call("laptop__files__look"), [None, None, Some("mcp:read tunnel:manage")]),
        (call("files__read"), [Some("mcp:tools mcp:read"), None, Some("mcp:tools tunnel:manage")]),
        (call("files__odd"), [Some("mcp:tools mcp:read"), None, Some("mcp:tools tunnel:manage")]),
        (call("files__none"), [None, None, Some("mcp:read tunnel:manage")]),
        (ask("tools/call", "{}"), [None, None, Some("mcp:read tunnel:manage")]),
        (call("status"), [None, None, Some("mcp:read tunnel:manage")]),
        (call("restart"), [Some("mcp:read tunnel:manage"), Some("mcp:tools tunnel:manage"), None]),
        (ask("tasks/cancel", "{}"), [Some("mcp:tools mcp:read"), None, Some("mcp:tools tunnel:manage")]),
    ];
    for (json, expected) in cases {
        for (scopes, expected) in [READ, TOOLS, MANAGE].into_iter().zip(expected) {
            let told = challenged(&mut world(scopes), request(&json));
            assert_eq!(told.as_deref(), expected, "{scopes}: {json}");
        }
        assert_eq!(challenged(&mut world("mcp"), request(&json)), None, "a token of before opens all: {json}");
    }
}

#[test]
fn one_server_alone_judges_its_own_names() {
    for (name, expected) in
        [("look", None), ("read", Some("mcp:tools mcp:read")), ("unlisted", Some("mcp:tools mcp:read"))]
    {
        let mut world = world(READ);
        world.endpoint = Endpoint::Server("files".into());
        let actions = world.post(&ask("tools/call", &format!(r#"{{"name":"{name}"}}"#)));
        match expected {
            None => assert_eq!(actions, [format!("tunnel 1 open 1 files tools/call {{\"name\":\"{name}\"}}")]),
            Some(_) => assert!(actions[0].starts_with("reply 1 403 ") && actions.len() == 1, "{actions:?}"),
        }
    }
    let mut world = world(READ);
    world.endpoint = Endpoint::Server("files".into());
    world.catalog(1, r#"{"whole":true,"servers":[{"name":"files","state":"starting"}]}"#);
    world.drain();
    let actions = world.post(&ask("tools/call", r#"{"name":"look"}"#));
    assert!(actions[0].starts_with("reply 1 403 "), "without a list nothing says that it only reads: {actions:?}");
}

#[test]
fn batch_is_carried_out_whole_or_not_at_all() {
    let element = |json: &str| match request(json) {
        Content::Request(request) => Item::Request(request),
        other => panic!("{other:?}"),
    };
    let call = |name: &str| element(&ask("tools/call", &format!(r#"{{"name":"{name}"}}"#)));
    let mut world = world(READ);
    world.version = Version::V2025_03_26;
    let requests = std::vec![call("files__look"), call("restart"), call("files__read")];
    let told = challenged(&mut world, Content::Batch(requests));
    assert_eq!(told.as_deref(), Some("mcp:tools mcp:read tunnel:manage"));
    assert!(world.drain().is_empty(), "nothing was opened");
}

#[test]
fn refused_call_has_a_line_in_the_audit() {
    let mut world = world(READ);
    world.audit = Some("pseudonym".into());
    let actions = world.post(&ask("tools/call", r#"{"name":"files__read"}"#));
    let line = actions[0].strip_prefix("audit ").unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    for (member, value) in [("decision", "denied"), ("reason", "insufficient-scope"), ("tool", "files__read")] {
        assert_eq!(line[member], value, "{line}");
    }
    assert!(actions[1].starts_with("reply 1 403 ") && actions.len() == 2, "{actions:?}");
}

#[test]
fn listening_needs_reading() {
    let mut world = world(TOOLS);
    let actions = world.listen();
    assert!(actions[0].starts_with("reply 1 403 ") && actions.len() == 1, "{actions:?}");
    world.scopes = Scopes::read(READ);
    assert!(world.listen()[0].starts_with("begin 2 events"));
}
