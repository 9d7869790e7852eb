//! Servers whose runs, one for each session, offer something else to each.

use super::*;
use crate::config::policy::{AgentPolicy, PinMode};
use crate::config::{Isolation, Life};
use crate::mcp::code;

/// A server that each session has for itself: it offers `plain` to a client that can do nothing.
fn isolated(policy: AgentPolicy) -> Rig {
    let life = Life { isolation: Isolation::Session, era: EraChoice::Legacy, ..Life::default() };
    let mut config = AgentConfig { policy, ..config(&[]) };
    config.servers.insert("a".to_string(), ServerConfig { life, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    let main = run(&mut rig, "1", &["plain"]);
    rig.exited(main, 0, "");
    rig.connect(Dialect::V2);
    rig.catalogs();
    rig
}

/// A run that was ordered comes up, of that version of the program, with these tools.
fn run(rig: &mut Rig, version: &str, tools: &[&str]) -> ChildId {
    let child = rig.spawned("a").expect("its process was ordered");
    rig.event(Event::Spawned { child, pid: 100 });
    let initialize = rig.written(child).remove(0);
    let info = json!({"name": "s", "version": version});
    let about = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info});
    rig.answer(child, &initialize["id"], about);
    list(rig, child, tools);
    child
}

fn list(rig: &mut Rig, child: ChildId, tools: &[&str]) {
    let asked =
        rig.written(child).into_iter().find(|it| it["method"] == "tools/list").expect("its tools are asked for");
    let tools: Vec<Value> = tools.iter().map(|name| json!({"name": name, "inputSchema": {}})).collect();
    rig.answer(child, &asked["id"], json!({ "tools": tools }));
}

fn call(rig: &mut Rig, stream: u32, session: &str, tool: &str) {
    rig.call_as(stream, session, &json!({}), "tools/call", &json!({ "name": tool }).to_string());
}

/// The tools of the last catalog that was sent, if one was.
fn catalog(rig: &mut Rig) -> Option<Vec<String>> {
    let server = rig.catalogs().pop()?["servers"][0].take();
    assert_eq!(server["isolated"], true);
    Some(server["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_string()).collect())
}

#[test]
fn what_one_session_is_offered_is_not_listed_to_the_others() {
    let mut rig = isolated(AgentPolicy::default());
    call(&mut rig, 1, "one", "plain");
    run(&mut rig, "1", &["plain", "asking"]);
    call(&mut rig, 2, "two", "plain");
    run(&mut rig, "1", &[]);
    assert_eq!(rig.server_status("a").tools, 1);
    assert!(catalog(&mut rig).is_none_or(|tools| tools == ["plain"]));
}

#[test]
fn another_version_of_the_program_is_listed_as_it_is_met_first() {
    let mut rig = isolated(AgentPolicy::default());
    call(&mut rig, 1, "one", "plain");
    run(&mut rig, "2", &["plain", "new"]);
    call(&mut rig, 2, "two", "plain");
    run(&mut rig, "2", &["plain"]);
    assert_eq!(catalog(&mut rig), Some(["plain", "new"].map(String::from).into()));
}

#[test]
fn change_of_a_sessions_lists_is_told_to_it_alone() {
    let mut rig = isolated(AgentPolicy::default());
    call(&mut rig, 1, "one", "plain");
    let one = run(&mut rig, "1", &["plain"]);
    rig.catalogs();
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    rig.say(one, &changed);
    rig.advance(crate::limits::RELIST_DELAY);
    assert!(rig.notices().is_empty(), "not before it was listed anew");
    list(&mut rig, one, &["plain", "toggled"]);
    assert_eq!(rig.notices(), [("one".to_string(), changed)]);
    assert_eq!(rig.server_status("a").tools, 1);
    for sent in rig.catalogs() {
        assert!(sent["servers"][0]["announced"].is_null(), "{sent}");
    }
    assert!(rig.messages().is_empty());
}

#[test]
fn list_that_a_session_asks_for_is_that_of_its_own_run() {
    let mut rig = isolated(AgentPolicy::default());
    rig.call_as(1, "one", &json!({"sampling": {}}), "tools/list", "{}");
    let one = run(&mut rig, "1", &["plain", "asking"]);
    let asked = rig.written(one).pop().expect("it is passed on");
    let page = json!({"tools": [{"name": "asking", "inputSchema": {}}], "nextCursor": "own"});
    rig.answer(one, &asked["id"], page.clone());
    assert_eq!(rig.answers(), [(1, None, page.to_string())]);
}

#[test]
fn tool_that_only_a_session_has_is_judged_by_what_its_run_lists() {
    let mut rig = isolated(AgentPolicy { pins: PinMode::Block, ..AgentPolicy::default() });
    call(&mut rig, 1, "one", "plain");
    call(&mut rig, 2, "one", "asking");
    call(&mut rig, 3, "one", "unknown");
    assert!(rig.answers().is_empty(), "nobody knows yet what its run lists");
    let one = run(&mut rig, "1", &["plain", "asking"]);
    let refused: Vec<_> = rig.answers().into_iter().map(|(stream, code, _)| (stream, code)).collect();
    assert_eq!(refused, [(2, Some(code::REFUSED)), (3, Some(code::REFUSED))], "new is what nobody pinned, and no tool");
    let heard = |rig: &mut Rig| -> Vec<Value> {
        rig.written(one).into_iter().map(|call| call["params"]["name"].clone()).collect()
    };
    assert_eq!(heard(&mut rig), ["plain"]);
    call(&mut rig, 4, "one", "asking");
    assert_eq!(rig.answers()[0].1, Some(code::REFUSED), "and so once the list is known");
    let approve = ControlCommand::PinsApprove { server: None, tool: Some("asking".to_string()) };
    rig.event(Event::Control { job: JobId(9), command: approve });
    call(&mut rig, 5, "one", "asking");
    assert_eq!((heard(&mut rig), rig.answers().len()), (Vec::from([json!("asking")]), 0));
}
