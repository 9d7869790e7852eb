//! What clients without a handshake (2026-07-28) get from a room.

use serde_json::{Value, json};

use super::*;
use crate::limits;

const OPEN: &str = r#"tunnel 1 open 1 files tools/call {"name":"read","arguments":{"n":1.0}}"#;

fn modern() -> World {
    World { version: Version::V2026_07_28, ..World::ready() }
}

fn ask(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)
}

/// A world with one tool whose parameters are repeated in header fields.
fn mirroring(fields: &[(&'static str, &str)]) -> World {
    let mut world = modern();
    let schema = r#"{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"},"s":{"type":"string","x-mcp-header":"S"}}}"#;
    let tool = format!(r#"{{"name":"read","inputSchema":{schema}}}"#);
    world.catalog(1, &whole(&[format!(r#"{{"name":"files","state":"ready","tools":[{tool}]}}"#)]));
    world.drain();
    for (name, value) in fields {
        world.mirrored.append(*name, http::HeaderValue::from_str(value).unwrap());
    }
    world
}

#[test]
fn discovery_tells_what_initialize_would() {
    let mut world = modern();
    let found = world.ask(&ask("server/discover"))["result"].clone();
    assert_eq!(
        found["supportedVersions"],
        json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
    );
    assert_eq!(found["resultType"], "complete");
    assert_eq!((&found["cacheScope"], &found["ttlMs"]), (&json!("private"), &json!(30_000)));
    let info = found["_meta"]["io.modelcontextprotocol/serverInfo"].clone();
    world.version = Version::V2025_11_25;
    let old = world.ask(&ask("initialize"))["result"].clone();
    assert_eq!(
        (&found["capabilities"], &info, &found["instructions"]),
        (&old["capabilities"], &old["serverInfo"], &old["instructions"])
    );
}

#[test]
fn list_is_the_same_for_both_eras_and_says_how_long_it_keeps() {
    let mut world = modern();
    let mut list = world.ask(&ask("tools/list"))["result"].clone();
    let members = list.as_object_mut().unwrap();
    assert_eq!(members.remove("resultType"), Some(json!("complete")));
    assert_eq!(members.remove("cacheScope"), Some(json!("private")));
    assert_eq!(members.remove("ttlMs"), Some(json!(30_000)));
    assert_eq!(members.remove("_meta").unwrap()["io.modelcontextprotocol/serverInfo"]["name"], "mcp-local-tunnel");
    world.version = Version::V2025_11_25;
    assert_eq!(list, world.ask(&ask("tools/list"))["result"]);
}

#[test]
fn long_list_is_sent_uncopied_and_is_as_long_as_announced() {
    let mut world = modern();
    let tools: Vec<String> = (0..2_000).map(|index| format!("tool-{index}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    world.catalog(1, &whole(&[server("files", &tools)]));
    world.post(&ask("tools/list"));
    world.exchanges += 1;
    let post = |world: &mut World| {
        world.event(Event::Post(Post {
            exchange: ExchangeId(9),
            principal: world.principal(),
            endpoint: Endpoint::All,
            speaker: world.speaker(),
            accepts: Accepts::Either,
            headers: HeaderMap::new(),
            audit: None,
            content: Content::Request(Request {
                id: rpc::RawId::from_number(1),
                method: "tools/list".into(),
                params: Bytes::new(),
            }),
        }));
    };
    post(&mut world);
    let mut announced = None;
    let mut sent = Vec::new();
    while let Some(action) = world.shard.poll_action() {
        match action {
            Action::Begin { head, .. } => announced = head.length,
            Action::Body { bytes, .. } => sent.extend_from_slice(&bytes),
            Action::Finish { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(announced, u64::try_from(sent.len()).ok());
    let list: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(list["result"]["tools"].as_array().unwrap().len(), 2_002);
    assert_eq!(list["result"]["resultType"], "complete");
}

#[test]
fn relays_own_tools_answer_in_the_callers_shape() {
    let mut world = modern();
    let status = world.ask(&call("status", 1))["result"].clone();
    assert_eq!((&status["resultType"], &status["isError"]), (&json!("complete"), &json!(false)));
    assert!(status.get("ttlMs").is_none() && status["structuredContent"]["connected"] == true);
    world.version = Version::V2025_11_25;
    assert!(world.ask(&call("status", 1))["result"].get("resultType").is_none());
}

#[test]
fn methods_that_are_not_there_show_in_the_status() {
    let mut world = modern();
    for method in ["vendor/method", "unknown/method", "sampling/createMessage"] {
        let reply = &world.post(&ask(method))[0];
        assert!(reply.starts_with("reply ") && reply.contains(" 404 ") && failure(reply).0 == -32601, "{reply}");
    }
    let reply = &world.post(&call("nothing", 1))[0];
    assert!(reply.contains(" 200 ") && failure(reply).0 == -32602, "{reply}");
    world.version = Version::V2025_11_25;
    assert!(world.post(&ask("vendor/method"))[0].contains(" 200 "), "a legacy client hears it in band");
}

#[test]
fn errors_of_an_agent_choose_the_status_before_their_body() {
    for (code, status) in [(-32020, 400), (-32021, 400), (-32022, 400), (-32602, 200), (-32050, 200)] {
        let error = format!(r#"{{"code":{code},"message":"x"}}"#);
        let mut world = modern();
        world.call(7);
        assert_eq!(
            world.error(1, 1, code, &error),
            [format!(r#"reply 1 {status} {{"jsonrpc":"2.0","id":7,"error":{error}}}"#)]
        );
        let mut world = World::ready();
        world.call(7);
        assert!(world.error(1, 1, code, &error)[0].starts_with("reply 1 200 "), "{code}");
        let mut world = modern();
        world.call(7);
        world.progress(1, 1);
        assert!(world.error(1, 1, code, &error)[0].starts_with("body 1 "), "the head was sent before");
    }
    // An error that comes in pieces.
    let mut world = modern();
    world.endpoint = Endpoint::Server("files".into());
    world.post(&ask("vendor/method"));
    let outcome = Outcome::Error { code: -32601 };
    world.tunnel(1, tunnel::Event::Answer { stream: StreamId(1), outcome, length: None });
    let bytes = Bytes::from_static(b"{\"code\":");
    world.tunnel(1, tunnel::Event::Data { stream: StreamId(1), bytes, end: false });
    assert!(matches!(world.shard.poll_action(), Some(Action::Begin { head, .. }) if head.status == 404));
}

#[test]
fn method_that_is_not_there_shows_in_the_status_unless_its_server_has_it() {
    let capabilities = r#"{"prompts":{},"resources":{},"completions":{}}"#;
    let able = server("files", &["read"]).replace(r#""state""#, &format!(r#""capabilities":{capabilities},"state""#));
    let unable = server("files", &[]);
    let error = r#"{"code":-32601,"message":"x"}"#;
    for (offer, method, status) in [
        (&able, "tools/call", 200),
        (&able, "prompts/get", 200),
        (&able, "resources/read", 200),
        (&able, "completion/complete", 200),
        (&able, "tools/list", 404),
        (&able, "tasks/get", 404),
        (&able, "vendor/method", 404),
        (&unable, "tools/call", 404),
        (&unable, "prompts/get", 404),
        (&unable, "resources/read", 404),
        (&unable, "completion/complete", 404),
    ] {
        let mut world = modern();
        world.catalog(1, &whole(core::slice::from_ref(offer)));
        world.drain();
        world.endpoint = Endpoint::Server("files".into());
        assert!(world.post(&ask(method))[0].starts_with("tunnel 1 open 1 files "), "{method}");
        let reply = format!(r#"reply 1 {status} {{"jsonrpc":"2.0","id":1,"error":{error}}}"#);
        assert_eq!(world.error(1, 1, -32601, error), [reply], "{method} {offer}");
    }
}

#[test]
fn client_that_goes_away_has_cancelled() {
    let mut world = modern();
    world.audit = Some(Arc::from("pseudonym"));
    assert_eq!(world.call(7), [OPEN]);
    let actions = world.gone(1);
    assert_eq!(actions[0], "tunnel 1 reset 1 Cancelled");
    assert!(actions.len() == 2 && actions[1].contains(r#""outcome":"cancelled""#), "{actions:?}");
    assert_eq!(world.answer(1, 1, None), [""; 0]);
    assert_eq!(world.data(1, 1, "{}", true), [""; 0]);
    let mut world = modern();
    world.call(7);
    world.progress(1, 1);
    assert_eq!(world.gone(1), ["tunnel 1 reset 1 Cancelled"], "in the middle of a stream");
    let mut world = World::ready();
    world.call(7);
    assert_eq!(world.gone(1), [""; 0], "up to 2025-11-25 a disconnect is no cancel");
}

#[test]
fn client_without_a_session_is_asked_nothing() {
    let mut world = modern();
    world.call(7);
    let json = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}"#);
    world.tunnel(1, tunnel::Event::Message { stream: StreamId(1), json, credit: 9 });
    let actions = world.drain();
    assert!(actions.len() == 2 && actions[0].contains("cannot be asked anything"), "{actions:?}");
    assert_eq!(actions[1], "tunnel 1 consumed 1 9");
}

#[test]
fn equal_ids_of_clients_without_a_session_do_not_meet() {
    let mut world = modern();
    assert_eq!(world.call(7), [OPEN]);
    assert_eq!(world.call(7), [OPEN.replace("open 1", "open 2")]);
    world.answer(1, 2, None);
    assert_eq!(world.data(1, 2, "2", true), [r#"reply 2 200 {"jsonrpc":"2.0","id":7,"result":2}"#]);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "1", true), [r#"reply 1 200 {"jsonrpc":"2.0","id":7,"result":1}"#]);
}

#[test]
fn one_server_is_asked_everything() {
    let mut world = modern();
    world.endpoint = Endpoint::Server("files".into());
    for (index, method) in ["server/discover", "tools/list", "prompts/get", "tasks/get", "vendor/x"].iter().enumerate()
    {
        let json = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{ "x":1.0}}}}"#);
        assert_eq!(world.post(&json), [format!(r#"tunnel 1 open {} files {method} {{ "x":1.0}}"#, index + 1)]);
    }
    world.endpoint = Endpoint::Server("nothing".into());
    assert!(world.post(&ask("server/discover"))[0].contains(" 404 "));
}

#[test]
fn agent_hears_who_asks_without_a_session() {
    let mut world = modern();
    world.endpoint = Endpoint::Server("files".into());
    let content =
        Content::Request(Request { id: rpc::RawId::from_number(1), method: "x".into(), params: Bytes::new() });
    world.exchanges += 1;
    world.event(Event::Post(Post {
        exchange: ExchangeId(1),
        principal: world.principal(),
        endpoint: world.endpoint.clone(),
        speaker: world.speaker(),
        accepts: Accepts::Either,
        headers: HeaderMap::new(),
        audit: None,
        content,
    }));
    let actions = core::iter::from_fn(|| world.shard.poll_action());
    let head = actions.into_iter().find_map(|action| match action {
        Action::Tunnel { command: Command::Open { head, .. }, .. } => Some(head),
        _ => None,
    });
    let head = head.expect("the call is opened");
    assert_eq!((head.version.as_deref(), head.client.as_deref()), (Some("2026-07-28"), Some("Cursor 2")));
    assert_eq!((&*head.session, &*head.capabilities), ("", ""));
}

#[test]
fn discovery_of_one_server_names_the_versions_of_its_url() {
    let mut world = modern();
    world.endpoint = Endpoint::Server("files".into());
    world.post(&ask("server/discover"));
    world.answer(1, 1, Some(53));
    assert_eq!(world.data(1, 1, r#"{"a":1e400, "supportedVers"#, false), ["tunnel 1 consumed 1 26"]);
    let actions = world.data(1, 1, r#"ions":["2026-07-28"],"b":1}"#, true);
    let Some(reply) = actions.last().filter(|_| actions.len() <= 2) else { panic!("{actions:?}") };
    assert_eq!(
        *reply,
        r#"reply 1 200 {"jsonrpc":"2.0","id":1,"result":{"a":1e400, "supportedVersions":["2026-07-28","2025-11-25","2025-06-18","2025-03-26","2024-11-05"],"b":1}}"#
    );
    // Not everything is an answer.
    world.post(&ask("server/discover"));
    world.answer(1, 2, None);
    assert!(world.data(1, 2, "[7]", true).iter().any(|action| action.contains(r#""result":[7]"#)));
    world.post(&ask("server/discover"));
    world.answer(1, 3, None);
    let long = format!("\"{}", "x".repeat(limits::MAX_MENDED));
    let actions = world.data(1, 3, &long, false);
    assert!(actions.iter().any(|action| action.contains("broken-answer")), "{actions:?}");
}

#[test]
fn old_agent_is_helped_with_what_it_does_not_know() {
    let mut world = World { version: Version::V2026_07_28, ..World::new() };
    world.up(1, "laptop", None);
    world.catalog(1, &files());
    world.drain();
    world.call(7);
    world.answer(1, 1, Some(15));
    let actions = world.data(1, 1, r#"{"content": []}"#, true);
    let expected = r#"reply 1 200 {"jsonrpc":"2.0","id":7,"result":{"content": [],"resultType":"complete"}}"#;
    assert_eq!(actions.last().map(String::as_str), Some(expected));
    world.endpoint = Endpoint::Server("files".into());
    assert_eq!(world.ask(&ask("server/discover"))["result"]["resultType"], "complete");
    assert_eq!(world.ask(&ask("tools/list"))["result"]["tools"][0]["name"], "read");
    assert!(world.post(&ask("prompts/list"))[0].contains(" 404 "));
}

#[test]
fn headers_must_repeat_the_parameters_that_the_schema_says() {
    let (n, s) = ("mcp-param-n", "mcp-param-s");
    for (fields, arguments, fine) in [
        (&[(n, "1")][..], r#"{"n":1.0}"#, true),
        (&[(n, "1"), (s, "=?base64?5LiW?=")], r#"{"n":1.0,"s":"世"}"#, true),
        (&[], r#"{"n":null}"#, true),
        (&[], r#"{"s":{}}"#, true),
        (&[("mcp-param-other", "x")], "{}", true),
        (&[], r#"{"n":1.0}"#, false),
        (&[(n, "2")], r#"{"n":1.0}"#, false),
        (&[(n, "1"), (n, "1")], r#"{"n":1.0}"#, false),
        (&[(n, "1"), (s, "=?base64?5LiW=?=")], r#"{"n":1.0,"s":"世"}"#, false),
        (&[(n, "1")], r#"{"n":null}"#, false),
        (&[(s, "x")], "{}", false),
    ] {
        for (endpoint, name) in [(Endpoint::All, "files__read"), (Endpoint::Server("files".into()), "read")] {
            let mut world = mirroring(fields);
            world.endpoint = endpoint;
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}}}}}"#
            );
            let action = &world.post(&body)[0];
            if fine {
                assert!(action.starts_with("tunnel 1 open"), "{fields:?} {arguments} {action}");
            } else {
                assert!(action.starts_with("reply 1 400 "), "{fields:?} {arguments} {action}");
                assert_eq!(failure(action), (-32020, "header-mismatch".into()));
            }
            world.version = Version::V2025_11_25;
            assert!(world.post(&body)[0].starts_with("tunnel 1 open"), "a legacy client has no such fields");
        }
    }
}

#[test]
fn scopes_hold_for_every_client() {
    let mut world = modern();
    world.scopes = Scopes::read("mcp:read");
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        world.endpoint = endpoint;
        for (method, status) in [("tools/call", 403), ("vendor/x", 403)] {
            let name = if world.endpoint == Endpoint::All { "files__write" } else { "write" };
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"{name}"}}}}"#);
            let action = world.post(&body)[0].clone();
            assert!(action.contains(&format!(" {status} ")), "{method}: {action}");
        }
    }
    world.scopes = Scopes::read("tunnel:manage");
    world.endpoint = Endpoint::All;
    for method in ["server/discover", "tools/list", "subscriptions/listen"] {
        assert!(world.post(&ask(method))[0].contains(" 403 "), "{method}");
    }
}
