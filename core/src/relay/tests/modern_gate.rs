//! What the gate wants of clients without a handshake (2026-07-28).

use serde_json::Value;

use super::gate::{Door, error_code, request, with, without};
use super::*;
use crate::http::{Reply, RequestHead};

/// A request with `_meta` as it must be, and these other params.
fn body(method: &str, params: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    format!(r#"{{"jsonrpc":"2.0","id":"q","method":"{method}","params":{{"_meta":{META}{comma}{params}}}}}"#)
}

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"Cursor","version":"2"}}"#;

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// Status and code of a refusal, which names its request.
fn refusal(door: &Door, head: RequestHead, body: &str) -> (u16, i64) {
    let reply = door.replied(head, body.as_bytes());
    assert_eq!(json(&reply)["id"], "q", "{body}");
    (reply.status.as_u16(), error_code(&reply))
}

#[test]
fn request_says_everything_by_itself_and_no_session_is_made() {
    let door = Door::new();
    for head in [door.modern("tools/list"), with(door.modern("tools/list"), "mcp-session-id", "nobody's")] {
        let post = door.posted(head, body("tools/list", "").as_bytes());
        let Speaker::Modern { version, client, mirrored } = post.speaker else { panic!("a session") };
        assert_eq!((version, &*client, mirrored.len()), (Version::V2026_07_28, "Cursor 2", 0));
        assert!(!post.headers.contains_key("mcp-session-id"));
    }
    let bare =
        body("tools/list", "").replace(r#","io.modelcontextprotocol/clientInfo":{"name":"Cursor","version":"2"}"#, "");
    assert_eq!(
        &**door.posted(door.modern("tools/list"), bare.as_bytes()).speaker.client(),
        "",
        "it need not say who it is"
    );
}

#[test]
fn meta_must_say_what_every_request_says() {
    let door = Door::new();
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities""#;
    for params in [
        String::new(),
        ",\"params\":null".into(),
        ",\"params\":[1]".into(),
        ",\"params\":{}".into(),
        ",\"params\":{\"_meta\":7}".into(),
        format!(",\"params\":{{\"_meta\":{{{capabilities}:{{}}}}}}"),
        format!(",\"params\":{{\"_meta\":{{{capabilities}:{{}},\"io.modelcontextprotocol/protocolVersion\":7}}}}"),
        format!(",\"params\":{{\"_meta\":{{{version}}}}}"),
        format!(",\"params\":{{\"_meta\":{{{version},{capabilities}:[]}}}}"),
        format!(",\"params\":{{\"_meta\":{{{version},{capabilities}:null}}}}"),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":"q","method":"server/discover"{params}}}"#);
        assert_eq!(refusal(&door, door.modern("server/discover"), &body), (400, -32602), "{params}");
    }
}

#[test]
fn versions_that_are_not_spoken_are_answered_with_those_that_are() {
    let door = Door::new();
    let asked = body("tools/list", "").replace("2026-07-28", "2031-01-01");
    let head = with(door.modern("tools/list"), "mcp-protocol-version", "2031-01-01");
    let reply = door.replied(head.clone(), asked.as_bytes());
    assert_eq!((reply.status.as_u16(), error_code(&reply)), (400, -32022));
    assert_eq!(json(&reply)["error"]["data"]["requested"], "2031-01-01");
    let supported = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
    assert_eq!(json(&reply)["error"]["data"]["supported"], serde_json::json!(supported));
    // The header alone.
    let ping = r#"{"jsonrpc":"2.0","id":"q","method":"ping"}"#;
    assert_eq!(refusal(&door, head, ping), (400, -32022));
}

#[test]
fn headers_repeat_the_body() {
    let door = Door::new();
    let (list, version) = (door.modern("tools/list"), "mcp-protocol-version");
    let twice = |name: &'static str| {
        let mut head = list.clone();
        let value = head.headers[name].clone();
        head.headers.append(name, value);
        head
    };
    let strange = body("tools/list", "").replace("2026-07-28", "2031-01-01");
    let plain = body("tools/list", "");
    for (head, body) in [
        (without(list.clone(), version), &plain),
        (with(list.clone(), version, "2025-11-25"), &plain),
        (with(list.clone(), version, "2031-01-01"), &plain),
        (list.clone(), &strange),
        (twice(version), &plain),
        (without(list.clone(), "mcp-method"), &plain),
        (with(list.clone(), "mcp-method", "prompts/list"), &plain),
        (with(list.clone(), "mcp-method", "TOOLS/LIST"), &plain),
        (with(list.clone(), "mcp-method", ""), &plain),
        (twice("mcp-method"), &plain),
    ] {
        assert_eq!(refusal(&door, head.clone(), body), (400, -32020), "{:?} {body}", head.headers);
    }
    door.posted(with(list, "mcp-method", "  tools/list "), plain.as_bytes());
}

#[test]
fn names_are_repeated_where_the_method_has_one() {
    let door = Door::new();
    for (method, params, name, fine) in [
        ("tools/call", r#""name":"a""#, Some("a"), true),
        ("tools/call", r#""name":"a""#, Some(" a "), true),
        ("tools/call", r#""name":"a""#, Some("=?base64?YQ==?="), true),
        ("tools/call", r#""name":"\u4e16""#, Some("=?base64?5LiW?="), true),
        ("tools/call", r#""name":"a""#, Some("=?base64?YQ?="), false),
        ("tools/call", r#""name":"a""#, Some("A"), false),
        ("tools/call", r#""name":"a""#, None, false),
        ("tools/call", r#""name":7"#, Some("7"), false),
        ("tools/call", r#""name":7"#, None, true),
        ("tools/call", "", None, true),
        ("prompts/get", r#""name":"p""#, Some("p"), true),
        ("prompts/get", r#""name":"p""#, None, false),
        ("resources/read", r#""uri":"file:///a""#, Some("file:///a"), true),
        ("resources/read", r#""uri":"file:///a","name":"b""#, Some("b"), false),
        ("tasks/get", r#""taskId":"t""#, Some("t"), true),
        ("tasks/cancel", r#""taskId":"t""#, Some("u"), false),
        ("tasks/update", r#""taskId":"t""#, None, false),
        ("tools/list", r#""name":"a""#, Some("what"), true),
    ] {
        let mut head = door.modern(method);
        if let Some(name) = name {
            head = with(head, "mcp-name", name);
        }
        let body = body(method, params);
        if fine {
            door.posted(head, body.as_bytes());
        } else {
            assert_eq!(refusal(&door, head, &body), (400, -32020), "{method} {params} {name:?}");
        }
    }
}

#[test]
fn what_the_revision_removed_is_not_found() {
    let door = Door::new();
    for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        assert_eq!(refusal(&door, door.modern(method), &body(method, "")), (404, -32601), "{method}");
    }
    // A handshake without the marks of that revision is one, whatever its header says.
    let handshake = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let post = door.posted(door.modern("initialize"), handshake);
    assert!(post.headers.contains_key("mcp-session-id"));
}

#[test]
fn clients_send_no_responses_and_no_batches() {
    let door = Door::new();
    for body in [
        r#"{"jsonrpc":"2.0","id":"q","result":{}}"#.to_string(),
        r#"{"jsonrpc":"2.0","id":"q","error":{"code":1,"message":""}}"#.to_string(),
    ] {
        assert_eq!(refusal(&door, door.modern("x"), &body), (400, -32600), "{body}");
    }
    let batch = format!("[{}]", body("tools/list", ""));
    let reply = door.replied(door.modern("tools/list"), batch.as_bytes());
    assert_eq!((reply.status.as_u16(), error_code(&reply)), (400, -32600));
    for notification in ["cancelled", "progress", "vendor"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{notification}","params":{{"requestId":1}}}}"#);
        assert_eq!(door.replied(door.modern("x"), body.as_bytes()).status, 202, "{notification}");
    }
}

#[test]
fn other_methods_of_http_are_the_older_revisions() {
    let door = Door::new();
    let token = door.token(&principal("ann", Role::Client));
    for method in ["GET", "DELETE"] {
        for more in [None, Some("x")] {
            let fields = [("authorization", token.as_str()), ("accept", "text/event-stream")];
            let mut head = with(request(method, "/mcp/files", &fields), "mcp-protocol-version", "2026-07-28");
            if let Some(session) = more {
                head = with(head, "mcp-session-id", session);
            }
            let reply = door.refused(&head);
            assert_eq!((reply.status.as_u16(), &reply.headers["allow"]), (405, &"POST, OPTIONS".parse().unwrap()));
        }
        let strange = with(request(method, "/mcp", &[("authorization", &token)]), "mcp-protocol-version", "x");
        assert_eq!(door.refused(&strange).status, 400);
    }
}

#[test]
fn parameters_in_headers_go_along_with_calls() {
    let door = Door::new();
    let call = with(with(door.modern("tools/call"), "mcp-name", "a"), "mcp-param-region", "eu");
    let mirrored = |head: RequestHead, method: &str| {
        let post = door.posted(head, body(method, r#""name":"a""#).as_bytes());
        let Speaker::Modern { mirrored, .. } = post.speaker else { panic!("a session") };
        mirrored.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(mirrored(call.clone(), "tools/call"), ["mcp-param-region: eu"]);
    assert_eq!(mirrored(with(call, "mcp-method", "tools/list"), "tools/list"), [""; 0]);
}
