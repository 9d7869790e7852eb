//! A server that speaks both eras and lists something else in each: what is told of either, and judged.

use super::*;
use crate::config::policy::{AgentPolicy, Approve, PinMode, Policy};
use crate::limits;
use crate::mcp::catalog::State;
use crate::mcp::code;

const A: ChildId = ChildId(1);

/// A tool.
fn tool(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "annotations": {"readOnlyHint": true}})
}

fn configured(life: Life, policy: AgentPolicy) -> AgentConfig {
    let mut config = config(&[]);
    config.servers.insert("a".to_string(), ServerConfig { life, ..stdio("a") });
    config.policy = policy;
    config
}

fn auto() -> Life {
    Life { era: EraChoice::Auto, ..Life::default() }
}

fn pinning(pins: PinMode) -> AgentPolicy {
    AgentPolicy { pins, ..AgentPolicy::default() }
}

/// An agent whose server `a` is modern, has these tools, and may speak the older era too. The tunnel is up.
fn started(config: AgentConfig, pins: BTreeMap<String, Bytes>, tools: &[Value]) -> Rig {
    let mut rig = Rig::new(config, Some("minted"));
    rig.pins = pins;
    rig.event(Event::Start { person: Person::Absent });
    let lazy = rig.take(|action| matches!(action, Action::Recall { .. }).then_some(()));
    if lazy.is_some() {
        rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    }
    discover(&mut rig, tools);
    rig.connect(Dialect::V2);
    rig
}

/// Brings the main run up.
fn discover(rig: &mut Rig, tools: &[Value]) {
    let child = rig.spawned("a").expect("its process was ordered");
    rig.event(Event::Spawned { child, pid: 100 });
    let asked = rig.written(child).remove(0);
    let capabilities = json!({"tools": {"listChanged": true}, "extensions": {"x/y": {}}});
    rig.answer(
        child,
        &asked["id"],
        json!({"supportedVersions": ["2026-07-28"], "capabilities": capabilities, "instructions": "Be new.",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}}),
    );
    list(rig, child, tools);
}

/// A legacy client's call of a tool.
fn old_call(rig: &mut Rig, stream: u32, tool: &str) {
    rig.call_as(stream, "s", &json!({}), "tools/call", &json!({"name": tool}).to_string());
}

fn new_call(rig: &mut Rig, stream: u32, tool: &str) {
    rig.modern_call(stream, "a", "tools/call", &json!({"name": tool}).to_string());
}

/// Brings the run for older clients up, which such a call has begun, with these tools.
fn branch(rig: &mut Rig, tools: &[Value]) -> ChildId {
    let child = rig.spawned("a").expect("a run for older clients");
    rig.event(Event::Spawned { child, pid: 101 });
    let asked = rig.written(child).remove(0);
    assert_eq!(asked["method"], "initialize");
    let about = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "s", "version": "1"}});
    rig.answer(child, &asked["id"], about);
    list(rig, child, tools);
    child
}

/// Answers the list that was asked for.
fn list(rig: &mut Rig, child: ChildId, tools: &[Value]) {
    let written = rig.written(child);
    let asked = written.iter().find(|line| line["method"] == "tools/list").expect("its tools were asked for");
    rig.answer(child, &asked["id"], json!({ "tools": tools }));
}

fn relist(rig: &mut Rig, child: ChildId, tools: &[Value]) {
    rig.say(child, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    rig.advance(limits::RELIST_DELAY);
    list(rig, child, tools);
}

/// What the last catalog tells of the server.
fn told(rig: &mut Rig) -> Value {
    rig.catalogs().pop().expect("a catalog was sent")["servers"][0].clone()
}

fn names(tools: &Value) -> Vec<&str> {
    tools.as_array().expect("tools").iter().map(|tool| tool["name"].as_str().expect("a name")).collect()
}

/// Whether a run heard a call, which is answered.
fn heard(rig: &mut Rig, child: ChildId) -> bool {
    let calls: Vec<Value> = rig.written(child).into_iter().filter(|line| line["method"] == "tools/call").collect();
    for call in &calls {
        rig.answer(child, &call["id"], json!({}));
    }
    !calls.is_empty()
}

fn control(rig: &mut Rig, command: ControlCommand) -> Value {
    rig.event(Event::Control { job: JobId(1), command });
    serde_json::from_slice(&rig.reply()).expect("JSON")
}

fn main_tools() -> [Value; 2] {
    [tool("both", "b"), tool("new", "n")]
}

#[test]
fn catalog_tells_of_both_lists_what_differs() {
    let mut rig = started(configured(auto(), pinning(PinMode::Off)), BTreeMap::new(), &main_tools());
    assert!(told(&mut rig).get("legacy").is_none(), "there was no run for older clients yet");
    old_call(&mut rig, 1, "both");
    let run = branch(&mut rig, &main_tools());
    let same = told(&mut rig)["legacy"].clone();
    let expected = json!({"capabilities": {"tools": {"listChanged": true}}, "instructions": ""});
    assert_eq!(same, expected, "lists that are the same are not told twice");
    relist(&mut rig, run, &[tool("both", "b"), tool("old", "o")]);
    let server = told(&mut rig);
    assert_eq!(names(&server["tools"]), ["both", "new"], "those of the run for newer clients stay");
    assert_eq!(names(&server["legacy"]["tools"]), ["both", "old"]);
    assert!(server["legacy"].get("prompts").is_none() && server["legacy"].get("info").is_none());
    rig.exited(run, 1, "");
    rig.tunnel(tunnel::Event::Up(Hello::default()));
    assert_eq!(names(&told(&mut rig)["legacy"]["tools"]), ["both", "old"], "kept when the run has ended");
}

#[test]
fn list_of_older_clients_is_forgotten_with_their_era() {
    let mut rig = started(configured(auto(), pinning(PinMode::Off)), BTreeMap::new(), &main_tools());
    old_call(&mut rig, 1, "both");
    let run = branch(&mut rig, &[tool("old", "o")]);
    rig.exited(run, 1, "");
    assert!(told(&mut rig).get("legacy").is_some());
    old_call(&mut rig, 2, "both");
    let run = rig.spawned("a").expect("another run");
    rig.exited(run, 1, "");
    let without_extensions = json!({"capabilities": {"tools": {"listChanged": true}}});
    assert_eq!(told(&mut rig)["legacy"], without_extensions, "they are bridged from now on");
    assert!(heard(&mut rig, A));
}

#[test]
fn kept_catalog_has_both_lists() {
    let lazy = || Life { lazy: true, ..auto() };
    let mut rig = started(configured(lazy(), pinning(PinMode::Off)), BTreeMap::new(), &main_tools());
    rig.exited(A, 0, "");
    old_call(&mut rig, 1, "old");
    branch(&mut rig, &[tool("old", "o")]);
    let kept = rig.take_all(|action| match action {
        Action::Keep { catalog, .. } => Some(catalog.clone()),
        _ => None,
    });
    assert_eq!(kept.len(), 2, "once for each list");
    let recall = |catalog: &Bytes| {
        let mut rig = Rig::new(configured(lazy(), pinning(PinMode::Off)), Some("minted"));
        rig.event(Event::Start { person: Person::Absent });
        rig.event(Event::Recalled { server: "a".to_string(), catalog: Some(catalog.clone()) });
        rig.connect(Dialect::V2);
        let server = told(&mut rig);
        assert_eq!((server["state"].as_str(), names(&server["tools"])), (Some("asleep"), ["both", "new"].to_vec()));
        server
    };
    assert_eq!(names(&recall(&kept[1])["legacy"]["tools"]), ["old"]);
    assert!(recall(&kept[0]).get("legacy").is_none(), "as older versions kept it");
}

#[test]
fn call_is_judged_by_the_list_that_its_client_has() {
    let mut rig = started(configured(auto(), pinning(PinMode::Block)), BTreeMap::new(), &main_tools());
    old_call(&mut rig, 1, "old");
    let run = branch(&mut rig, &[tool("old", "o")]);
    assert!(heard(&mut rig, run), "a list that was not there yet says nothing against it");
    rig.answers();
    for (stream, call, name) in
        [(2, old_call as fn(&mut Rig, u32, &str), "new"), (3, new_call as fn(&mut Rig, u32, &str), "old")]
    {
        call(&mut rig, stream, name);
        assert!(!heard(&mut rig, run) && !heard(&mut rig, A), "{name}");
        assert_eq!(rig.answers()[0].1, Some(code::REFUSED), "{name}");
    }
    old_call(&mut rig, 4, "old");
    new_call(&mut rig, 5, "new");
    assert!(heard(&mut rig, run) && heard(&mut rig, A));
}

#[test]
fn approval_is_of_the_definition_that_the_client_has() {
    let device = Policy { approve: Approve::First, ..Policy::default() };
    let policy = AgentPolicy { device, ..pinning(PinMode::Off) };
    let mut rig = started(configured(auto(), policy), BTreeMap::new(), &[tool("t", "new")]);
    let approve = |rig: &mut Rig| {
        let waiting = control(rig, ControlCommand::Approvals { params: false })["waiting"].clone();
        let id = waiting[0]["id"].as_u64()?;
        Some(control(rig, ControlCommand::Approve { id, always: false }))
    };
    old_call(&mut rig, 1, "t");
    assert!(approve(&mut rig).is_some(), "it is not known what it will be");
    let run = branch(&mut rig, &[tool("t", "old")]);
    assert!(heard(&mut rig, run));
    old_call(&mut rig, 2, "t");
    assert!(approve(&mut rig).is_some(), "now it is");
    assert!(heard(&mut rig, run));
    old_call(&mut rig, 3, "t");
    assert!(heard(&mut rig, run), "and it is what was approved");
    relist(&mut rig, run, &[tool("t", "other")]);
    old_call(&mut rig, 4, "t");
    assert!(!heard(&mut rig, run) && approve(&mut rig).is_some());
}

#[test]
fn lists_that_differ_are_no_change_and_a_change_of_either_is_one() {
    for (mode, held) in [(PinMode::Warn, false), (PinMode::Block, true)] {
        let policy = || pinning(mode);
        let mut rig = started(configured(auto(), policy()), BTreeMap::new(), &main_tools());
        old_call(&mut rig, 1, "both");
        let run = branch(&mut rig, &[tool("both", "other"), tool("old", "o")]);
        for _ in 0..3 {
            relist(&mut rig, run, &[tool("both", "other"), tool("old", "o")]);
            assert!(rig.status().changed_tools.is_empty(), "{mode:?}: each is what it was at first");
        }
        relist(&mut rig, run, &[tool("both", "evil"), tool("old", "o")]);
        let changed = rig.status().changed_tools;
        assert_eq!(changed.len(), 1, "{mode:?}");
        assert!(changed[0].legacy && changed[0].tool == "both" && changed[0].held == held, "{mode:?}");
        let server = told(&mut rig);
        assert_eq!(names(&server["tools"]), ["both", "new"], "{mode:?}: the other list is as it was");
        let expected: &[&str] = if held { &["old"] } else { &["both", "old"] };
        assert_eq!(names(&server["legacy"]["tools"]), expected, "{mode:?}");
        let change = "changed since it was first seen, as clients of older revisions have it";
        assert_eq!(server["changed"], json!([{"tool": "both", "change": change, "held": held}]), "{mode:?}");
        let accept = ControlCommand::PinsApprove { server: Some("a".to_string()), tool: Some("both".to_string()) };
        assert_eq!(control(&mut rig, accept)["approved"][0]["legacy"], true, "{mode:?}");
        assert!(rig.status().changed_tools.is_empty(), "{mode:?}");
        // Another life of the agent knows both.
        let mut next = started(configured(auto(), policy()), rig.pins, &main_tools());
        old_call(&mut next, 1, "both");
        branch(&mut next, &[tool("both", "evil"), tool("old", "o")]);
        assert!(next.status().changed_tools.is_empty(), "{mode:?}");
    }
}

#[test]
fn first_list_of_older_clients_is_not_trusted_when_the_server_is_not_what_it_was() {
    let block = || configured(auto(), pinning(PinMode::Block));
    let first = started(block(), BTreeMap::new(), &main_tools());
    let mut rig = started(block(), first.pins, &[tool("both", "evil"), tool("new", "n")]);
    assert_eq!(rig.status().changed_tools.len(), 1);
    old_call(&mut rig, 1, "both");
    let run = branch(&mut rig, &[tool("both", "evil too"), tool("new", "n")]);
    assert!(!heard(&mut rig, run), "held back for them as well");
    let changed = rig.status().changed_tools;
    assert_eq!(
        changed.iter().map(|it| (it.tool.as_str(), it.legacy)).collect::<Vec<_>>(),
        [("both", false), ("both", true)]
    );
    control(&mut rig, ControlCommand::PinsApprove { server: None, tool: None });
    assert!(rig.status().changed_tools.is_empty());
    old_call(&mut rig, 2, "both");
    new_call(&mut rig, 3, "both");
    assert!(heard(&mut rig, run) && heard(&mut rig, A));
}

#[test]
fn other_list_is_no_first_sight_for_clients_who_had_the_one_of_all() {
    let block = || configured(auto(), pinning(PinMode::Block));
    let legacy_before = |rig: &mut Rig| {
        let child = rig.spawned("a").expect("its process was ordered");
        rig.event(Event::Spawned { child, pid: 100 });
        let asked = rig.written(child).remove(0);
        rig.say(child, &json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "m"}}));
        rig.greet(child);
        list(rig, child, &main_tools());
    };
    let bridged_before = |rig: &mut Rig| {
        discover(rig, &main_tools());
        rig.connect(Dialect::V2);
        old_call(rig, 1, "both");
        let tried = rig.spawned("a").expect("it is tried");
        rig.exited(tried, 1, "");
        assert!(heard(rig, A), "it is modern alone");
    };
    for before in [&legacy_before as &dyn Fn(&mut Rig), &bridged_before] {
        let mut first = Rig::new(block(), Some("minted"));
        first.event(Event::Start { person: Person::Absent });
        before(&mut first);
        // An update of the program makes it one of both eras, which has something else for its older clients.
        let mut rig = started(block(), first.pins, &main_tools());
        old_call(&mut rig, 1, "both");
        let run = branch(&mut rig, &[tool("both", "evil"), tool("new", "n"), tool("more", "m")]);
        assert!(!heard(&mut rig, run), "held back");
        let changed = rig.status().changed_tools;
        let changes: Vec<_> = changed.iter().map(|it| (it.tool.as_str(), it.change.as_str(), it.legacy)).collect();
        assert_eq!(changes, [("both", "changed", true), ("more", "added", true)]);
        assert_eq!(names(&told(&mut rig)["legacy"]["tools"]), ["new"]);
    }
}

#[test]
fn change_of_both_lists_that_was_approved_once_is_approved_for_both() {
    let block = || configured(auto(), pinning(PinMode::Block));
    let mut rig = started(block(), BTreeMap::new(), &main_tools());
    old_call(&mut rig, 1, "both");
    let run = branch(&mut rig, &main_tools());
    heard(&mut rig, run);
    rig.exited(run, 1, "");
    let mut rig = started(block(), rig.pins, &[tool("both", "second"), tool("new", "n")]);
    control(&mut rig, ControlCommand::PinsApprove { server: None, tool: None });
    old_call(&mut rig, 1, "both");
    branch(&mut rig, &[tool("both", "second"), tool("new", "n")]);
    assert!(rig.status().changed_tools.is_empty());
    assert_eq!(rig.server_status("a").state, State::Ready);
}
