//! Servers that each session of a client has for itself, and which may offer each something else.

use super::*;
use crate::limits;
use crate::tunnel::Event as Heard;

fn isolated(name: &str, state: &str) -> String {
    let server = server(name, &["plain"]).replace("\"state\":\"ready\"", &format!("\"state\":\"{state}\""));
    format!("{},\"isolated\":true}}", server.strip_suffix('}').unwrap())
}

fn world(state: &str) -> World {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[isolated("files", state), server("other", &["x"])]));
    world.advance(limits::ANNOUNCE_LATE);
    world
}

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"own"}}"#;

#[test]
fn list_of_a_session_is_asked_of_its_own_run() {
    let mut world = world("asleep");
    world.endpoint = Endpoint::Server("files".to_string());
    assert_eq!(world.post(LIST), [r#"tunnel 1 open 1 files tools/list {"cursor":"own"}"#]);
    world.version = Version::V2026_07_28;
    let listed = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(listed["result"]["tools"][0]["name"], "plain", "who has no session has no run either");
}

#[test]
fn list_of_a_server_that_cannot_run_is_the_one_that_is_known() {
    let mut world = world("failed");
    world.endpoint = Endpoint::Server("files".to_string());
    let listed = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(listed["result"]["tools"][0]["name"], "plain");
}

#[test]
fn call_of_a_tool_that_is_not_listed_goes_to_the_sessions_own_run() {
    let mut world = world("asleep");
    for (id, name) in ["files__toggled", "laptop__files__toggled"].into_iter().enumerate() {
        let stream = id + 1;
        let opened =
            format!("tunnel 1 open {stream} files tools/call {{\"name\":\"toggled\",\"arguments\":{{\"n\":1.0}}}}");
        assert!(world.post(&call(name, id as u32)).iter().any(|action| action.starts_with(&opened)), "{name}");
    }
    assert_eq!(failure(&world.post(&call("other__toggled", 8))[0]).1, "no-such-tool");
    assert_eq!(failure(&world.post(&call("files__", 8))[0]).1, "no-such-tool");
    assert_eq!(failure(&world.post(&call("files__tog.gled", 8))[0]).1, "no-such-tool", "no tool is listed so");
    world.version = Version::V2026_07_28;
    assert_eq!(failure(&world.post(&call("files__toggled", 9))[0]).1, "no-such-tool");
}

#[test]
fn call_of_a_tool_that_is_not_listed_needs_the_scope_of_one_that_may_write() {
    let mut world = world("asleep");
    world.scopes = Scopes::read("mcp:read");
    assert!(world.post(&call("files__toggled", 1))[0].starts_with("reply 1 403"));
}

#[test]
fn tool_that_several_devices_may_have_is_asked_for_by_its_longer_name() {
    let mut world = world("asleep");
    world.up(2, "tower", Some("id-2"));
    world.catalog(2, &whole(&[isolated("files", "asleep")]));
    let refused = world.post(&call("files__toggled", 1)).remove(0);
    assert!(refused.contains("laptop__files__toggled, tower__files__toggled"), "{refused}");
    let opened = world.post(&call("tower__files__toggled", 2));
    assert!(opened.iter().any(|action| action.starts_with("tunnel 2 open 1 files")), "{opened:?}");
}

#[test]
fn change_of_a_sessions_list_is_told_to_it_alone_and_not_where_all_is_listed() {
    let mut world = world("asleep");
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let mut listen = |endpoint: Endpoint, session: &'static str| {
        (world.endpoint, world.session) = (endpoint, session);
        world.listen();
        world.exchanges
    };
    let own = listen(Endpoint::Server("files".to_string()), "one");
    listen(Endpoint::Server("files".to_string()), "two");
    listen(Endpoint::All, "one");
    let json = Bytes::from_static(changed.as_bytes());
    world.tunnel(1, Heard::Notice { server: "files".into(), sessions: ["one".into()].into(), json });
    let told: Vec<String> = world.drain().into_iter().filter(|action| action.contains("list_changed")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(&format!("body {own} ")), "{told:?}");
}
