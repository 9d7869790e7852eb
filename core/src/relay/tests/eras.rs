//! A server that offers the clients of either era something else: each sees and calls what those of its own do.

use serde_json::{Value, json};

use super::*;
use crate::limits;
use crate::mcp::code;
use crate::tunnel::Event as Heard;

const NEW: Version = Version::V2026_07_28;
const OLD: Version = Version::V2025_11_25;

/// The server `files`, of both eras: `more` is what its older clients are told otherwise.
fn dual(more: &str) -> String {
    let tool = |name: &str, reads: bool| {
        format!(r#"{{"name":"{name}","inputSchema":{{}},"annotations":{{"readOnlyHint":{reads}}}}}"#)
    };
    let (both, new) = (tool("both", true), tool("new", true));
    let prompt = |name: &str| format!(r#"{{"name":"{name}"}}"#);
    format!(
        r#"{{"name":"files","state":"ready","info":{{"name":"new","version":"2"}},"instructions":"Be new.",
        "capabilities":{{"prompts":{{}},"extensions":{{"io.modelcontextprotocol/tasks":{{}}}}}},
        "tools":[{both},{new}],"prompts":[{}]{more}}}"#,
        prompt("p")
    )
    .replace('\n', "")
}

/// What older clients are told otherwise: of each kind something.
fn otherwise() -> String {
    let tool = |name: &str| format!(r#"{{"name":"{name}","inputSchema":{{}},"annotations":{{"readOnlyHint":false}}}}"#);
    format!(
        r#","legacy":{{"info":{{"name":"old","version":"1"}},"instructions":"",
        "capabilities":{{"resources":{{}},"tasks":{{"cancel":{{}}}}}},
        "tools":[{},{}],"prompts":[],"resources":[{{"uri":"old:a","name":"a"}}]}}"#,
        tool("both"),
        tool("old")
    )
}

fn world(more: &str) -> World {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[dual(more)]));
    world.advance(limits::ANNOUNCE_LATE);
    world
}

fn ask(world: &mut World, version: Version, method: &str, params: &str) -> Value {
    world.version = version;
    world.ask(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
}

/// The names on a list.
fn names(world: &mut World, version: Version, method: &str, member: &str) -> Vec<String> {
    let list = ask(world, version, method, "{}");
    let items = list["result"][member].as_array().unwrap_or_else(|| panic!("{list}"));
    items.iter().map(|item| item["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn each_client_sees_the_lists_of_its_own_era() {
    let mut world = world(&otherwise());
    let own = ["status", "restart"];
    let tools = |world: &mut World, version| names(world, version, "tools/list", "tools");
    assert_eq!(tools(&mut world, NEW), [&own[..], &["files__both", "files__new"]].concat());
    assert_eq!(tools(&mut world, OLD), [&own[..], &["files__both", "files__old"]].concat());
    assert_eq!(names(&mut world, NEW, "prompts/list", "prompts"), ["files__p"]);
    assert_eq!(names(&mut world, OLD, "prompts/list", "prompts"), [""; 0]);
    assert_eq!(names(&mut world, NEW, "resources/list", "resources"), [""; 0]);
    assert_eq!(names(&mut world, OLD, "resources/list", "resources"), ["a"]);
    for (version, expected) in [(NEW, ["files__both", "files__new"]), (OLD, ["files__both", "files__old"])] {
        let status = ask(&mut world, version, "tools/call", r#"{"name":"status"}"#);
        assert_eq!(status["result"]["structuredContent"]["devices"][0]["servers"][0]["tools"], json!(expected));
    }
    world.catalog(1, &whole(&[dual("")]));
    assert_eq!(tools(&mut world, OLD), tools(&mut world, NEW), "nothing is told otherwise");
}

#[test]
fn what_is_absent_is_the_same() {
    let mut world = world(r#","legacy":{"tools":[]}"#);
    assert_eq!(names(&mut world, OLD, "tools/list", "tools"), ["status", "restart"]);
    assert_eq!(names(&mut world, OLD, "prompts/list", "prompts"), ["files__p"]);
    world.endpoint = Endpoint::Server("files".into());
    let told = ask(&mut world, OLD, "initialize", "{}")["result"].clone();
    assert_eq!((&told["instructions"], &told["serverInfo"]["name"]), (&json!("Be new."), &json!("new")));
}

#[test]
fn each_client_hears_what_the_server_says_of_itself_in_its_own_era() {
    let mut world = world(&otherwise());
    let old = ask(&mut world, OLD, "initialize", "{}")["result"].clone();
    let new = ask(&mut world, NEW, "server/discover", "{}")["result"].clone();
    let changes = json!({"listChanged": true});
    assert_eq!(old["capabilities"], json!({"tools": changes, "resources": changes, "tasks": {"cancel": {}}}));
    let extensions = json!({"io.modelcontextprotocol/tasks": {}});
    assert_eq!(new["capabilities"], json!({"tools": changes, "prompts": changes, "extensions": extensions}));
    assert!(new["instructions"].as_str().unwrap().contains("Be new."));
    assert!(!old["instructions"].as_str().unwrap().contains("Be new."), "{old}");
    world.catalog(1, &whole(&[dual(&otherwise()).replace(r#""state":"ready""#, r#""state":"asleep""#)]));
    world.endpoint = Endpoint::Server("files".into());
    let old = ask(&mut world, OLD, "initialize", "{}")["result"].clone();
    assert_eq!(old["capabilities"], json!({"resources": {}, "tasks": {"cancel": {}}}));
    assert_eq!((&old["serverInfo"]["name"], old.get("instructions")), (&json!("old"), None));
    let new = ask(&mut world, NEW, "server/discover", "{}")["result"].clone();
    assert_eq!((&new["capabilities"]["extensions"], &new["instructions"]), (&extensions, &json!("Be new.")));
    assert_eq!(new["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "new", "it speaks for the server");
    assert_eq!(names(&mut world, OLD, "tools/list", "tools"), ["both", "old"], "of a server that does not run");
    assert_eq!(names(&mut world, NEW, "tools/list", "tools"), ["both", "new"]);
}

#[test]
fn name_means_what_it_means_in_the_callers_era() {
    let mut world = world(&otherwise());
    for (id, (version, known, foreign)) in (1..).zip([(NEW, "new", "old"), (OLD, "old", "new")]) {
        world.version = version;
        let opened = world.post(&call(&format!("files__{known}"), id));
        assert!(opened[0].contains(&format!("files tools/call {{\"name\":\"{known}\"")), "{opened:?}");
        let refused = world.post(&call(&format!("files__{foreign}"), id + 10));
        assert_eq!(failure(&refused[0]), (code::INVALID_PARAMS, "no-such-tool".into()), "{version:?}");
    }
    let prompt = r#"{"name":"files__p"}"#;
    assert_eq!(ask(&mut world, OLD, "prompts/get", prompt)["error"]["code"], code::INVALID_PARAMS);
    world.version = NEW;
    assert_eq!(
        world.post(&format!(r#"{{"jsonrpc":"2.0","id":50,"method":"prompts/get","params":{prompt}}}"#)),
        [r#"tunnel 1 open 3 files prompts/get {"name":"p"}"#]
    );
}

#[test]
fn scope_of_a_call_is_that_of_the_tool_that_its_client_has() {
    let mut world = world(&otherwise());
    world.scopes = Scopes::read("mcp:read");
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        let name = if endpoint == Endpoint::All { "files__both" } else { "both" };
        world.endpoint = endpoint;
        world.version = OLD;
        assert!(world.post(&call(name, 1))[0].contains(" 403 "), "the older one does not say that it only reads");
        world.version = NEW;
        assert!(world.post(&call(name, 2))[0].starts_with("tunnel 1 open"));
    }
}

#[test]
fn change_of_one_eras_list_is_told_to_its_clients_alone() {
    let listen = r#"{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
    let mut world = world("");
    world.version = OLD;
    world.listen();
    world.version = NEW;
    world.post(listen);
    let changed = |told: Vec<String>, exchange: u32| {
        let all =
            told.iter().all(|line| line.starts_with(&format!("body {exchange} ")) && line.contains("list_changed"));
        assert!(!told.is_empty() && all, "{told:?}");
    };
    world.catalog(1, &whole(&[dual(&otherwise())]));
    changed(world.advance(limits::ANNOUNCE_DELAY), 1);
    world.catalog(1, &whole(&[dual(&otherwise()).replace(r#""name":"new","inp"#, r#""name":"newer","inp"#)]));
    changed(world.advance(limits::ANNOUNCE_DELAY), 2);
    world.catalog(1, &whole(&[dual(&otherwise()).replace(r#""name":"new","inp"#, r#""name":"newer","inp"#)]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0]);
}

#[test]
fn both_lists_count_for_what_a_device_may_list() {
    let mut config = config();
    config.limits.tools_per_agent = 3;
    let mut world = World::with(&config);
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[dual(&otherwise()), server("more", &["x"])]));
    world.drain();
    assert_eq!(names(&mut world, OLD, "tools/list", "tools"), ["status", "restart", "files__both"]);
    assert_eq!(names(&mut world, NEW, "tools/list", "tools"), ["status", "restart", "files__both", "files__new"]);
    world.catalog(1, r#"{"servers":[{"name":"files","state":"ready","legacy":7}]}"#);
    let fault = "a server was left out: it is not a server";
    let status = ask(&mut world, OLD, "tools/call", r#"{"name":"status"}"#);
    assert_eq!(status["result"]["structuredContent"]["devices"][0]["fault"], fault);
}

#[test]
fn resource_that_changed_keeps_the_name_that_its_listener_has() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    // Only older clients see the URI twice, and so under names of the relay's.
    let other = r#"{"name":"b","state":"ready","resources":[{"uri":"old:a","name":"a"}]}"#.to_string();
    world.catalog(1, &whole(&[dual(&otherwise()), other]));
    world.version = OLD;
    world.listen();
    world.drain();
    let json =
        Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"old:a"}}"#);
    world.tunnel(1, Heard::Notice { server: "files".into(), sessions: ["s".to_string()].into(), json });
    let told = world.drain();
    assert!(told[0].contains(r#"\"uri\":\"mcp-tunnel:laptop/files/old:a\""#), "{told:?}");
    let list = ask(&mut world, NEW, "resources/list", "{}");
    assert_eq!(list["result"]["resources"][0]["uri"], "old:a");
}
