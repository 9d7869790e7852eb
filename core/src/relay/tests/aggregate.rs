//! The endpoint of all servers, besides tools: prompts, resources, completions.

use super::*;
use crate::limits;
use crate::mcp::{Era, code};

/// A server that has everything, as its agent lists it.
pub(super) fn rich(name: &str, more: &str) -> String {
    format!(
        r#"{{"name":"{name}","state":"ready","tools":[],
            "capabilities":{{"prompts":{{}},"resources":{{"subscribe":true}},"completions":{{}},"logging":{{}},
                "tasks":{{"list":{{}},"cancel":{{}},"requests":{{"tools":{{"call":{{}}}}}}}}}},
            "prompts":[{{"name":"greet","description":"Says hello","x":1.50}}],
            "resources":[{{"uri":"test://{name}/a","name":"a"}},{{"uri":"test://shared","name":"s", "x":1e2}}],
            "templates":[{{"uriTemplate":"test://{name}/t/{{id}}","name":"t"}},
                {{"uriTemplate":"test://both/{{+id}}","name":"b"}}]{more}}}"#
    )
    .replace('\n', "")
}

/// The device `laptop` on connection 1 with two such servers, `a` and `b`.
pub(super) fn two_servers() -> World {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[rich("a", ""), rich("b", "")]));
    world.drain();
    world
}

pub(super) fn request(id: u32, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

fn keys(world: &mut World, method: &str, member: &str, key: &str) -> Vec<String> {
    let list = world.ask(&request(1, method, "{}"));
    let items = list["result"][member].as_array().unwrap_or_else(|| panic!("{list}")).clone();
    items.iter().map(|item| item[key].as_str().unwrap().to_string()).collect()
}

/// An answer of a server, whole.
pub(super) fn answered(world: &mut World, stream: u32, result: &str) -> Vec<String> {
    world.answer(1, stream, None);
    world.data(1, stream, result, true)
}

#[test]
fn capabilities_are_those_of_all_servers_together() {
    let mut world = World::ready();
    let initialize = request(1, "initialize", "{}");
    let capabilities = |world: &mut World| world.ask(&initialize)["result"]["capabilities"].clone();
    assert_eq!(capabilities(&mut world), serde_json::json!({"tools": {"listChanged": true}}));
    let tasks = r#""capabilities":{"tasks":{"cancel":{}},"prompts":null,
        "extensions":{"io.modelcontextprotocol/tasks":{"n":1.50},"vendor/x":{}}}"#;
    let tasks = format!(r#"{{"name":"t","state":"ready",{tasks}}}"#);
    let quiet = r#"{"name":"q","state":"ready","capabilities":{"resources":{},"completions":{}}}"#.to_string();
    world.catalog(1, &whole(&[quiet, tasks]));
    let expected = serde_json::json!({
        "tools": {"listChanged": true}, "resources": {"listChanged": true}, "completions": {}});
    assert_eq!(capabilities(&mut world), expected, "2025-06-18 has no tasks");
    world.version = Version::V2025_11_25;
    world.catalog(1, &whole(&[rich("a", "")]));
    let expected = serde_json::json!({
        "tools": {"listChanged": true}, "prompts": {"listChanged": true},
        "resources": {"listChanged": true, "subscribe": true}, "completions": {}, "logging": {},
        "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}});
    assert_eq!(capabilities(&mut world), expected);
}

#[test]
fn each_revision_is_declared_what_it_has() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let has = r#"{"completions":{},"tasks":{"list":{}},"experimental":{"x":{}},
        "extensions":{"io.modelcontextprotocol/tasks":{"n":1.50},"io.modelcontextprotocol/ui":{},"vendor/x":{}}}"#;
    world.catalog(1, &whole(&[format!(r#"{{"name":"t","state":"ready","capabilities":{has}}}"#)]));
    world.drain();
    for (version, expected) in [
        (Version::V2024_11_05, r#"{"tools":{"listChanged":true}}"#),
        (Version::V2025_03_26, r#"{"tools":{"listChanged":true},"completions":{}}"#),
        (Version::V2025_06_18, r#"{"tools":{"listChanged":true},"completions":{}}"#),
        (Version::V2025_11_25, r#"{"tools":{"listChanged":true},"completions":{},"tasks":{"list":{}}}"#),
        (
            Version::V2026_07_28,
            r#"{"tools":{"listChanged":true},"completions":{},"extensions":{"io.modelcontextprotocol/tasks":{"n":1.50},"io.modelcontextprotocol/ui":{}}}"#,
        ),
    ] {
        world.version = version;
        let method = if version.is_legacy() { "initialize" } else { "server/discover" };
        let told = world.post(&request(1, method, "{}"));
        assert!(told[0].contains(&format!(r#""capabilities":{expected},"#)), "{version:?}: {told:?}");
    }
}

#[test]
fn prompts_are_named_as_tools_are() {
    let mut world = two_servers();
    let list = world.post(&request(1, "prompts/list", "{}"));
    let first = r#"{"name":"a__greet","description":"[a] Says hello","x":1.50}"#;
    assert!(list[0].contains(first), "{list:?}");
    assert_eq!(keys(&mut world, "prompts/list", "prompts", "name"), ["a__greet", "b__greet"]);
    let params = r#"{"name":"b__greet", "arguments":{"n":1.0}}"#;
    let opened = world.post(&request(5, "prompts/get", params));
    assert_eq!(opened, [r#"tunnel 1 open 1 b prompts/get {"name":"greet", "arguments":{"n":1.0}}"#]);
    let opened = world.post(&request(6, "prompts/get", r#"{"name":"laptop__a__greet"}"#));
    assert_eq!(opened, [r#"tunnel 1 open 2 a prompts/get {"name":"greet"}"#], "the other spelling");
    let unknown = world.post(&request(7, "prompts/get", r#"{"name":"a__gret"}"#));
    assert_eq!(failure(&unknown[0]), (code::INVALID_PARAMS, "no-such-prompt".into()));
    assert!(unknown[0].contains("did you mean a__greet"), "{unknown:?}");
    let nameless = world.post(&request(8, "prompts/get", "{}"));
    assert_eq!(failure(&nameless[0]).0, code::INVALID_PARAMS);
    world.up(2, "desktop", Some("id-2"));
    world.catalog(2, &whole(&[rich("a", "")]));
    world.drain();
    let names = keys(&mut world, "prompts/list", "prompts", "name");
    assert_eq!(names, ["desktop__a__greet", "laptop__a__greet", "laptop__b__greet"]);
    let ambiguous = world.post(&request(9, "prompts/get", r#"{"name":"a__greet"}"#));
    assert_eq!(failure(&ambiguous[0]), (code::AMBIGUOUS, "ambiguous-prompt".into()));
}

#[test]
fn only_uris_of_two_servers_are_namespaced() {
    let mut world = two_servers();
    let list = world.post(&request(1, "resources/list", "{}"));
    assert!(list[0].contains(r#"{"uri":"mcp-tunnel:laptop/a/test://shared","name":"s", "x":1e2}"#), "{list:?}");
    let uris = keys(&mut world, "resources/list", "resources", "uri");
    let expected =
        ["test://a/a", "mcp-tunnel:laptop/a/test://shared", "test://b/a", "mcp-tunnel:laptop/b/test://shared"];
    assert_eq!(uris, expected);
    let templates = keys(&mut world, "resources/templates/list", "resourceTemplates", "uriTemplate");
    let expected = [
        "test://a/t/{id}",
        "mcp-tunnel:laptop/a/test://both/{+id}",
        "test://b/t/{id}",
        "mcp-tunnel:laptop/b/test://both/{+id}",
    ];
    assert_eq!(templates, expected);
    world.catalog(1, r#"{"removed":["b"]}"#);
    assert_eq!(keys(&mut world, "resources/list", "resources", "uri"), ["test://a/a", "test://shared"]);
}

#[test]
fn uri_that_poses_as_namespaced_is_namespaced_too() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let evil = r#","resources":[{"uri":"MCP-Tunnel:laptop/a/test://a/a","name":"x"}]}"#;
    let evil = format!(r#"{{"name":"evil","state":"ready"{evil}"#);
    world.catalog(1, &whole(&[rich("a", ""), evil]));
    world.drain();
    let uris = keys(&mut world, "resources/list", "resources", "uri");
    assert_eq!(uris, ["test://a/a", "test://shared", "mcp-tunnel:laptop/evil/MCP-Tunnel:laptop/a/test://a/a"]);
    for (uri, expected) in [
        ("MCP-Tunnel:laptop/a/test://a/a", r#"open 1 a resources/read {"uri":"test://a/a"}"#),
        (uris[2].as_str(), r#"open 2 evil resources/read {"uri":"MCP-Tunnel:laptop/a/test://a/a"}"#),
    ] {
        let opened = world.post(&request(world.exchanges as u32, "resources/read", &format!(r#"{{"uri":"{uri}"}}"#)));
        assert_eq!(opened, [format!("tunnel 1 {expected}")]);
    }
}

#[test]
fn reads_go_where_the_uri_leads() {
    let mut world = two_servers();
    for (uri, expected) in [
        ("test://b/a", r#"b resources/read { "uri":"test://b/a" ,"n":1.0}"#),
        ("mcp-tunnel:laptop/b/test://shared", r#"b resources/read { "uri":"test://shared" ,"n":1.0}"#),
        ("mcp-tunnel:laptop/a/test://a/a", r#"a resources/read { "uri":"test://a/a" ,"n":1.0}"#),
        ("test://a/t/7", r#"a resources/read { "uri":"test://a/t/7" ,"n":1.0}"#),
        ("mcp-tunnel:laptop/a/x:y", r#"a resources/read { "uri":"x:y" ,"n":1.0}"#),
    ] {
        let id = world.exchanges as u32 + 1;
        let opened = world.post(&request(id, "resources/read", &format!(r#"{{ "uri":"{uri}" ,"n":1.0}}"#)));
        assert_eq!(opened, [format!("tunnel 1 open {id} {expected}")], "{uri}");
    }
    for uri in ["test://shared", "test://both/1/2"] {
        let ambiguous = world.post(&request(90, "resources/read", &format!(r#"{{"uri":"{uri}"}}"#)));
        assert_eq!(failure(&ambiguous[0]), (code::AMBIGUOUS, "ambiguous-resource".into()));
        let choices = format!("mcp-tunnel:laptop/a/{uri}, mcp-tunnel:laptop/b/{uri}");
        assert!(ambiguous[0].contains(&choices), "{ambiguous:?}");
    }
    for uri in ["other:x", "mcp-tunnel:laptop/c/other:x"] {
        let unknown = world.post(&request(91, "resources/read", &format!(r#"{{"uri":"{uri}"}}"#)));
        assert_eq!(failure(&unknown[0]), (code::RESOURCE_NOT_FOUND, "no-such-resource".into()));
        assert!(unknown[0].contains("resources have a, b") && unknown[0].contains(&format!(r#""uri":"{uri}""#)));
    }
    assert_eq!(failure(&world.post(&request(92, "resources/read", "{}"))[0]).0, code::INVALID_PARAMS);
    world.catalog(1, r#"{"removed":["b"]}"#);
    let opened = world.post(&request(93, "resources/read", r#"{"uri":"other:x"}"#));
    assert_eq!(opened, [r#"tunnel 1 open 6 a resources/read {"uri":"other:x"}"#], "the only server with resources");
}

#[test]
fn completions_go_where_their_reference_leads() {
    let mut world = two_servers();
    for (reference, expected) in [
        (
            r#"{"type":"ref/prompt","name":"b__greet"}"#,
            r#"b completion/complete {"ref":{"type":"ref/prompt","name":"greet"},"x":1.0}"#,
        ),
        (
            r#"{"type":"ref/resource","uri":"test://a/t/{id}"}"#,
            r#"a completion/complete {"ref":{"type":"ref/resource","uri":"test://a/t/{id}"},"x":1.0}"#,
        ),
        (
            r#"{"type":"ref/resource","uri":"mcp-tunnel:laptop/b/test://both/{+id}"}"#,
            r#"b completion/complete {"ref":{"type":"ref/resource","uri":"test://both/{+id}"},"x":1.0}"#,
        ),
        (
            r#"{"type":"ref/resource","uri":"test://b/t/9"}"#,
            r#"b completion/complete {"ref":{"type":"ref/resource","uri":"test://b/t/9"},"x":1.0}"#,
        ),
    ] {
        let id = world.exchanges as u32 + 1;
        let opened = world.post(&request(id, "completion/complete", &format!(r#"{{"ref":{reference},"x":1.0}}"#)));
        assert_eq!(opened, [format!("tunnel 1 open {id} {expected}")], "{reference}");
    }
    for (reference, expected) in [
        (r#"{"type":"ref/resource","uri":"test://both/{+id}"}"#, code::AMBIGUOUS),
        (r#"{"type":"ref/prompt","name":"nobody"}"#, code::INVALID_PARAMS),
        (r#"{"type":"ref/other"}"#, code::INVALID_PARAMS),
        (r#"{"type":"ref/prompt"}"#, code::INVALID_PARAMS),
        ("7", code::INVALID_PARAMS),
    ] {
        let actions = world.post(&request(90, "completion/complete", &format!(r#"{{"ref":{reference}}}"#)));
        assert_eq!(failure(&actions[0]).0, expected, "{reference}");
    }
}

#[test]
fn lists_have_one_page_and_may_be_empty() {
    let mut world = World::ready();
    for (method, member) in [
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ] {
        for (cursor, fine) in [("\"\"", true), ("null", true), ("\"x\"", false)] {
            let answer = world.ask(&request(1, method, &format!(r#"{{"cursor":{cursor}}}"#)));
            assert_eq!(answer["result"][member] == serde_json::json!([]), fine, "{method} {cursor}");
            assert_eq!(answer["error"]["code"] == code::INVALID_PARAMS, !fine, "{method} {cursor}");
        }
    }
}

#[test]
fn each_list_that_changes_is_told() {
    let changed = |list: &str| {
        format!(
            r#"body 1 +0 "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{list}/list_changed\"}}\n\n""#
        )
    };
    let bare = |more: &str| format!(r#"{{"name":"a","state":"ready"{more}}}"#);
    for endpoint in [Endpoint::All, Endpoint::Server("a".into())] {
        let mut world = World::new();
        world.up(1, "laptop", Some("id-1"));
        world.catalog(1, &whole(&[bare("")]));
        world.endpoint = endpoint;
        world.advance(limits::ANNOUNCE_LATE);
        world.listen();
        for (more, expected) in [
            (r#","prompts":[{"name":"p"}]"#, &["prompts"][..]),
            (r#","prompts":[{"name":"p"}],"resources":[{"uri":"x:y","name":"n"}]"#, &["resources"]),
            (r#","prompts":[{"name":"p"}],"templates":[{"uriTemplate":"x:{y}","name":"n"}]"#, &["resources"]),
            (r#","prompts":[{"name":"p"}],"templates":[{"uriTemplate":"x:{y}","name":"n"}]"#, &[]),
            (r#","tools":[{"name":"t","inputSchema":{}}]"#, &["tools", "prompts", "resources"]),
        ] {
            world.catalog(1, &whole(&[bare(more)]));
            let expected: Vec<String> = expected.iter().map(|list| changed(list)).collect();
            assert_eq!(world.advance(limits::ANNOUNCE_DELAY), expected, "{more}");
        }
        world.catalog(1, &whole(&[rich("a", "")]));
        world.advance(limits::ANNOUNCE_DELAY);
        world.session = "late";
        let told = world.listen();
        assert_eq!(told.len(), 5, "a late listener is told of each: {told:?}");
    }
}

#[test]
fn hostile_entries_are_left_out_and_named() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let big = format!(r#"{{"name":"big","x":"{}"}}"#, "x".repeat(limits::MAX_TOOL));
    let long = format!(r#"{{"uri":"x:{}","name":"n"}}"#, "u".repeat(limits::MAX_LISTED_URI));
    let evil = format!(
        r#"{{"name":"evil","state":"ready","prompts":[{{"name":"good"}},{{"name":"good"}},7,{{"name":""}},{{"name":"a","arguments":{{}}}},
            {{"name":"turn\u202e"}},{big}],
            "resources":[{{"uri":"x:good","name":"n"}},{{"uri":"x:nameless"}},{{"uri":"no-scheme","name":"n"}},
            {{"uri":"x:two words","name":"n"}},{{"uri":1,"name":"n"}},{{"uri":"x:good","name":"again"}},{long}],
            "templates":[{{"uriTemplate":"x:{{a}}","name":"n"}},{{"uriTemplate":"x:{{","name":"n"}},{{"uriTemplate":"x:{{a}}"}}]}}"#
    );
    world.catalog(1, &whole(&[evil.replace('\n', "")]));
    assert_eq!(keys(&mut world, "prompts/list", "prompts", "name"), ["evil__good"]);
    assert_eq!(keys(&mut world, "resources/list", "resources", "uri"), ["x:good"]);
    assert_eq!(keys(&mut world, "resources/templates/list", "resourceTemplates", "uriTemplate"), ["x:{a}"]);
    let status = world.ask(&call("status", 1));
    let dropped = status["result"]["structuredContent"]["devices"][0]["servers"][0]["dropped"].as_array().unwrap();
    let named = |name: &str| dropped.iter().filter(|it| it["tool"] == name).count();
    assert_eq!(dropped.len(), 14);
    for name in ["prompt good", "prompt #3", "prompt turn ", "prompt #7", "resource no-scheme", "template x:{"] {
        assert_eq!(named(name), 1, "{name}: {dropped:?}");
    }
}

#[test]
fn lists_of_a_device_are_bounded() {
    let prompts: Vec<String> = (0..=limits::MAX_PROMPTS).map(|n| format!(r#"{{"name":"p{n}"}}"#)).collect();
    let with = |count: usize| format!(r#"{{"name":"s","state":"ready","prompts":[{}]}}"#, prompts[..count].join(","));
    for (count, expected) in
        [(limits::MAX_PROMPTS, limits::MAX_PROMPTS), (limits::MAX_PROMPTS + 1, limits::MAX_PROMPTS)]
    {
        let mut catalog = super::super::catalog::Catalog::default();
        catalog.apply(&Bytes::from(whole(&[with(count)])), &RelayLimits::default(), Now::default());
        let (_, server) = catalog.servers().next().unwrap();
        assert_eq!((server.offer(Era::Modern).prompts.len(), server.dropped.len()), (expected, count - expected));
    }
    let item = r#"{"uri":"x:y","name":"n"}"#;
    for (bytes, listed) in [(item.len(), 1), (item.len() - 1, 0)] {
        let bounds = RelayLimits { catalog_per_agent: bytes, ..RelayLimits::default() };
        let mut catalog = super::super::catalog::Catalog::default();
        let server = format!(r#"{{"name":"s","state":"ready","resources":[{item}]}}"#);
        catalog.apply(&Bytes::from(whole(&[server])), &bounds, Now::default());
        assert_eq!(catalog.servers().next().unwrap().1.offer(Era::Modern).resources.len(), listed);
    }
}

#[test]
fn clients_without_a_handshake_get_the_same_in_their_shape() {
    let mut world = two_servers();
    let legacy = world.ask(&request(1, "prompts/list", "{}"))["result"].clone();
    world.version = Version::V2026_07_28;
    let found = world.ask(&request(1, "server/discover", "{}"))["result"]["capabilities"].clone();
    let expected = serde_json::json!({
        "tools": {"listChanged": true}, "prompts": {"listChanged": true},
        "resources": {"listChanged": true, "subscribe": true}, "completions": {}, "logging": {}});
    assert_eq!(found, expected, "tasks are an extension");
    let list = world.ask(&request(1, "prompts/list", "{}"))["result"].clone();
    assert_eq!(list["prompts"], legacy["prompts"]);
    assert_eq!((&list["resultType"], &list["cacheScope"]), (&"complete".into(), &"private".into()));
    let opened = world.post(&request(1, "prompts/get", r#"{"name":"a__greet"}"#));
    assert_eq!(opened, [r#"tunnel 1 open 1 a prompts/get {"name":"greet"}"#]);
    let unknown = world.post(&request(2, "resources/read", r#"{"uri":"other:x"}"#));
    assert_eq!(failure(&unknown[0]), (code::INVALID_PARAMS, "no-such-resource".into()));
    for method in ["tasks/list", "vendor/method"] {
        let actions = world.post(&request(3, method, "{}"));
        assert!(actions[0].contains(" 404 "), "{method}: {actions:?}");
    }
}

#[test]
fn client_without_a_handshake_that_leaves_begins_nothing_more() {
    let mut world = two_servers();
    world.version = Version::V2026_07_28;
    let searched = world.post(&request(1, "tasks/cancel", r#"{"taskId":"t","_meta":{"n":1.0}}"#));
    assert_eq!(searched[0], r#"tunnel 1 open 1 a tasks/get {"taskId":"t","_meta":{"n":1.0}}"#);
    answered(&mut world, 1, r#"{"resultType":"complete","taskId":"t"}"#);
    assert_eq!(world.gone(1), [""; 0]);
    world.answer(1, 2, None);
    let outcome = world.data(1, 2, r#"{"resultType":"complete"}"#, true);
    assert_eq!(outcome, [""; 0], "it has given the request up");
}

#[test]
fn updates_carry_the_uri_that_was_subscribed_to() {
    let mut world = two_servers();
    world.advance(limits::ANNOUNCE_LATE);
    world.listen();
    let subscribe = |uri: &str| format!(r#"{{"uri":"{uri}"}}"#);
    let opened = world.post(&request(1, "resources/subscribe", &subscribe("mcp-tunnel:laptop/a/test://a/a")));
    assert_eq!(opened, [r#"tunnel 1 open 1 a resources/subscribe {"uri":"test://a/a"}"#]);
    answered(&mut world, 1, "{}");
    let updated = |uri: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{ "uri":"{uri}","x":1.0}}}}"#)
    };
    let heard = |world: &mut World, server: &str, sessions: &[&str], uri: &str| {
        let sessions = sessions.iter().map(|key| key.to_string()).collect();
        let json = Bytes::from(updated(uri));
        world.tunnel(1, tunnel::Event::Notice { server: server.into(), sessions, json });
        world.drain()
    };
    let shown = |uri: &str| format!("body 1 +0 {:?}", format!("event: message\ndata: {}\n\n", updated(uri)));
    assert_eq!(heard(&mut world, "a", &["s"], "test://a/a"), [shown("mcp-tunnel:laptop/a/test://a/a")]);
    assert_eq!(heard(&mut world, "a", &["s"], "test://a/a/part"), [shown("mcp-tunnel:laptop/a/test://a/a/part")]);
    assert_eq!(heard(&mut world, "a", &["s"], "test://a/ab"), [shown("test://a/ab")]);
    assert_eq!(heard(&mut world, "b", &["s"], "test://b/a"), [shown("test://b/a")]);
    assert_eq!(heard(&mut world, "b", &["s"], "test://shared"), [shown("mcp-tunnel:laptop/b/test://shared")]);
    assert_eq!(heard(&mut world, "a", &["other"], "test://a/a"), [""; 0]);
    // The very same is taken back, whatever the lists say by then; then the lists count again.
    world.catalog(1, &whole(&[rich("a", "").replace("test://a/a", "test://a/z"), rich("b", "")]));
    world.drain();
    let opened = world.post(&request(2, "resources/unsubscribe", &subscribe("mcp-tunnel:laptop/a/test://a/a")));
    assert_eq!(opened, [r#"tunnel 1 open 2 a resources/unsubscribe {"uri":"test://a/a"}"#]);
    assert_eq!(heard(&mut world, "a", &["s"], "test://a/a"), [shown("test://a/a")]);
}

#[test]
fn update_in_a_call_carries_the_clients_uri_too() {
    let mut world = two_servers();
    world.post(&request(1, "prompts/get", r#"{"name":"a__greet"}"#));
    let updated = |uri: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#)
    };
    let said = world.said(1, &updated("test://shared"));
    let expected = format!("event: message\ndata: {}\n\n", updated("mcp-tunnel:laptop/a/test://shared"));
    assert_eq!(said[1], format!("body 1 +9 {expected:?}"));
}

/// A server's notification of that method about a resource.
fn about(method: &str, uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"uri":"{uri}"}}}}"#)
}

/// The same, as the client of the first call hears it.
fn told_in_call(json: &str) -> String {
    format!("body 1 +9 {:?}", format!("event: message\ndata: {json}\n\n"))
}

const UPDATED: &str = "notifications/resources/updated";

#[test]
fn update_in_a_call_is_spelled_as_the_lists_are_by_then() {
    let mut world = two_servers();
    world.post(&request(1, "prompts/get", r#"{"name":"a__greet"}"#));
    world.catalog(1, &whole(&[rich("a", "")]));
    let update = about(UPDATED, "test://shared");
    assert_eq!(world.said(1, &update)[1], told_in_call(&update), "it is of one server alone now");
}

#[test]
fn notification_that_is_no_update_keeps_its_uri() {
    let mut world = two_servers();
    world.post(&request(1, "prompts/get", r#"{"name":"a__greet"}"#));
    let other = about("notifications/vendor", "test://shared");
    assert_eq!(world.said(1, &other)[1], told_in_call(&other));
}

#[test]
fn update_in_a_call_is_spelled_as_its_client_is_listed_it() {
    let parts = r#""tools":[{"name":"t","inputSchema":{}}],"resources":[{"uri":"x:shared","name":"s"}]"#;
    let a = format!(r#"{{"name":"a","state":"ready",{parts},"legacy":{{{parts}}}}}"#);
    let b = format!(r#"{{"name":"b","state":"ready","tools":[],"legacy":{{{parts}}}}}"#);
    for (version, uri) in [(Version::V2025_06_18, "mcp-tunnel:laptop/a/x:shared"), (Version::V2026_07_28, "x:shared")] {
        let mut world = World::new();
        world.up(1, "laptop", Some("id-1"));
        world.catalog(1, &whole(&[a.clone(), b.clone()]));
        world.version = version;
        world.drain();
        world.post(&call("a__t", 1));
        let told = world.said(1, &about(UPDATED, "x:shared"));
        assert_eq!(told[1], told_in_call(&about(UPDATED, uri)), "{version:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_catalog_leaves_every_list_whole(
        text in proptest::prelude::any::<Vec<u8>>(),
        name in ".{0,40}",
        key in ".{0,40}",
        uri in "[a-c]{1,3}:[ -~é]{0,20}",
        template in "x:[a-c{}/+]{0,12}",
    ) {
        let mut world = two_servers();
        world.tunnel(1, tunnel::Event::Catalog(Bytes::from(text)));
        let (name, key, uri, template) = (rpc::quoted(&name), rpc::quoted(&key), rpc::quoted(&uri), rpc::quoted(&template));
        let odd = format!(
            r#"{{"name":{name},"state":"ready","prompts":[{{"name":{key}}}],"resources":[{{"uri":{uri},"name":{key}}},
                {{"uri":"test://shared","name":{key}}}],"templates":[{{"uriTemplate":{template},"name":{key}}}]}}"#
        );
        world.catalog(1, &whole(&[odd, rich("a", "")]));
        world.drain();
        let names = keys(&mut world, "prompts/list", "prompts", "name");
        proptest::prop_assert!(names.contains(&"a__greet".to_string()) && names.iter().all(|name| name.len() <= 64));
        let uris = keys(&mut world, "resources/list", "resources", "uri");
        proptest::prop_assert!(uris.contains(&"test://a/a".to_string()));
        keys(&mut world, "resources/templates/list", "resourceTemplates", "uriTemplate");
    }

    #[test]
    fn shown_uris_are_told_apart_and_lead_back(
        servers in proptest::collection::vec(("[ab_.-]{1,4}", proptest::collection::btree_set("(x:|mcp-tunnel:|MCP-TUNNEL:a/)[ab/:_-]{0,8}", 0..5)), 1..5),
    ) {
        let mut world = World::new();
        for (conn, device) in [(1, "a"), (2, "b_")] {
            world.up(conn, device, Some(device));
            let servers: Vec<String> = servers.iter().map(|(name, uris)| {
                let uris: Vec<String> = uris.iter().map(|uri| format!(r#"{{"uri":"{uri}","name":"{conn}/{name}/{uri}"}}"#)).collect();
                format!(r#"{{"name":"{name}","state":"ready","resources":[{}]}}"#, uris.join(","))
            }).collect();
            world.catalog(conn, &whole(&servers));
        }
        world.drain();
        let list = world.ask(&request(1, "resources/list", "{}"));
        let items = list["result"]["resources"].as_array().unwrap().clone();
        let mut seen = std::collections::BTreeSet::new();
        for item in items {
            let (uri, name) = (item["uri"].as_str().unwrap(), item["name"].as_str().unwrap());
            proptest::prop_assert!(seen.insert(uri.to_string()), "{} is there twice", uri);
            let id = world.exchanges as u32 + 1;
            let opened = world.post(&request(id, "resources/read", &format!(r#"{{"uri":"{uri}"}}"#)));
            let (conn, rest) = name.split_once('/').unwrap();
            let (server, own) = rest.split_once('/').unwrap();
            proptest::prop_assert!(opened[0].starts_with(&format!("tunnel {conn} open ")), "{:?}", opened);
            let end = format!(r#" {server} resources/read {{"uri":"{own}"}}"#);
            proptest::prop_assert!(opened[0].ends_with(&end), "{:?} {}", opened, name);
        }
    }
}
