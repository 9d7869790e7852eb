//! What a server lists besides its tools.

use super::*;
use crate::limits;
use crate::mcp::catalog::State;

const OTHERS: [&str; 3] = ["prompts/list", "resources/list", "resources/templates/list"];

fn capabilities() -> Value {
    json!({"tools": {"listChanged": true}, "prompts": {}, "resources": {"subscribe": true}})
}

/// Starts a server that declares these capabilities, and answers for its tools.
fn greeted(rig: &mut Rig, capabilities: &Value) -> ChildId {
    let child = rig.spawned("a").expect("its process was ordered");
    rig.event(Event::Spawned { child, pid: 100 });
    let initialize = rig.written(child).remove(0);
    let about = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": {"name": "s"}});
    rig.answer(child, &initialize["id"], about);
    let list = rig.written(child).pop().unwrap();
    assert_eq!(list["method"], "tools/list");
    rig.answer(child, &list["id"], json!({"tools": [{"name": "tool"}]}));
    child
}

/// The only request that was written.
fn asked(rig: &mut Rig, child: ChildId) -> Value {
    let mut written = rig.written(child);
    assert_eq!(written.len(), 1, "{written:?}");
    written.remove(0)
}

fn item(member: &str, name: &str) -> Value {
    match member {
        "prompts" => json!({"name": name}),
        "resources" => json!({"name": name, "uri": std::format!("test://{name}")}),
        _ => json!({"name": name, "uriTemplate": std::format!("test://{name}/{{id}}")}),
    }
}

/// Answers for the three other lists with one thing each.
fn list_others(rig: &mut Rig, child: ChildId, name: &str) {
    for (method, member) in OTHERS.into_iter().zip(["prompts", "resources", "resourceTemplates"]) {
        let list = asked(rig, child);
        assert_eq!((&list["method"], &list["params"]), (&json!(method), &json!({})));
        rig.answer(child, &list["id"], json!({ member: [item(member, name)] }));
    }
}

fn server(rig: &mut Rig) -> Value {
    rig.catalogs().pop().expect("the relay was told")["servers"][0].clone()
}

#[test]
fn lists_that_a_server_declares_are_in_the_catalog_once_it_is_ready() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    let child = greeted(&mut rig, &capabilities());
    assert_eq!(rig.server_status("a").state, State::Probing);
    list_others(&mut rig, child, "one");
    assert_eq!(rig.server_status("a").state, State::Ready);
    let server = server(&mut rig);
    assert_eq!(server["prompts"], json!([{"name": "one"}]));
    assert_eq!(server["resources"], json!([{"name": "one", "uri": "test://one"}]));
    assert_eq!(server["templates"], json!([{"name": "one", "uriTemplate": "test://one/{id}"}]));
    assert_eq!(server["versions"], json!(["2025-06-18"]));
}

#[test]
fn lists_that_a_server_does_not_declare_are_not_asked_for() {
    for capabilities in [json!({}), json!({"prompts": null, "resources": true})] {
        let mut rig = Rig::started(&["a"]);
        let child = greeted(&mut rig, &capabilities);
        assert_eq!((rig.written(child).len(), rig.server_status("a").state), (0, State::Ready));
    }
}

#[test]
fn pages_are_followed_to_their_end() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    let child = greeted(&mut rig, &json!({"prompts": {}}));
    for (page, cursor) in [("1", Some("")), ("2", Some("x")), ("3", None)] {
        let list = asked(&mut rig, child);
        let result = json!({"prompts": [{"name": page}], "nextCursor": cursor});
        rig.answer(child, &list["id"], result);
    }
    assert_eq!(server(&mut rig)["prompts"], json!([{"name": "1"}, {"name": "2"}, {"name": "3"}]));
}

#[test]
fn list_that_fails_keeps_no_server_from_being_ready() {
    for failure in [
        json!({"error": {"code": -32601, "message": "no"}}),
        json!({"error": {"code": -1, "message": "no"}}),
        json!({"result": {"prompts": 3, "resources": null}}),
        json!({"result": []}),
    ] {
        let mut rig = Rig::started(&["a"]);
        let child = greeted(&mut rig, &capabilities());
        for method in OTHERS {
            let list = asked(&mut rig, child);
            assert_eq!(list["method"], method);
            let mut answer = json!({"jsonrpc": "2.0", "id": list["id"]});
            answer.as_object_mut().unwrap().extend(failure.as_object().unwrap().clone());
            rig.say(child, &answer);
        }
        assert_eq!(rig.server_status("a").state, State::Ready, "{failure}");
    }
}

#[test]
fn list_that_does_not_come_keeps_no_server_from_being_ready() {
    let mut rig = Rig::started(&["a"]);
    let child = greeted(&mut rig, &capabilities());
    for _ in OTHERS {
        assert_eq!(rig.server_status("a").state, State::Probing);
        asked(&mut rig, child);
        rig.advance(limits::LIST_PATIENCE);
    }
    assert_eq!(rig.server_status("a").state, State::Ready);
    rig.advance(Duration::from_secs(100));
    assert_eq!(rig.server_status("a").state, State::Ready);
}

#[test]
fn start_that_takes_too_long_for_its_lists_alone_is_no_failure() {
    let mut config = config(&["a"]);
    config.servers.insert("a".to_string(), ServerConfig { start_timeout_secs: 5, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    let child = greeted(&mut rig, &capabilities());
    asked(&mut rig, child);
    rig.advance(Duration::from_secs(5));
    assert_eq!((rig.server_status("a").state, rig.written(child).len()), (State::Ready, 0));
}

#[test]
fn changed_lists_are_asked_for_again_and_several_changes_cost_one_list() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    let child = greeted(&mut rig, &capabilities());
    list_others(&mut rig, child, "one");
    rig.actions.clear();
    let changed = |what: &str| json!({"jsonrpc": "2.0", "method": std::format!("notifications/{what}/list_changed")});
    for _ in 0..3 {
        rig.say(child, &changed("resources"));
        rig.say(child, &changed("prompts"));
        rig.advance(limits::RELIST_DELAY / 2);
    }
    // What changes while it is being listed is listed once more.
    list_others(&mut rig, child, "two");
    rig.advance(limits::RELIST_DELAY);
    list_others(&mut rig, child, "three");
    let server = server(&mut rig);
    assert_eq!((&server["prompts"][0]["name"], &server["resources"][0]["name"]), (&json!("three"), &json!("three")));
    rig.advance(Duration::from_secs(10));
    assert!(rig.written(child).is_empty());
    let noticed = rig.commands().into_iter().any(|command| matches!(command, Command::Notice { .. }));
    assert!(!noticed, "a relay that compares catalogs would tell its clients twice");
}

#[test]
fn list_that_fails_later_leaves_the_old_one() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    let child = greeted(&mut rig, &json!({"prompts": {}}));
    let list = asked(&mut rig, child);
    rig.answer(child, &list["id"], json!({"prompts": [{"name": "one"}]}));
    rig.say(child, &json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}));
    rig.advance(limits::RELIST_DELAY);
    asked(&mut rig, child);
    rig.advance(limits::RELIST_TIMEOUT);
    assert_eq!(server(&mut rig)["prompts"], json!([{"name": "one"}]));
    rig.advance(limits::RELIST_DELAY);
    let again = asked(&mut rig, child);
    assert_eq!(again["method"], "prompts/list", "it hung, and may have got over it");
    rig.answer(child, &again["id"], json!({"prompts": [{"name": "two"}]}));
    assert_eq!(server(&mut rig)["prompts"], json!([{"name": "two"}]));
}

#[test]
fn lists_are_bounded_and_so_is_the_catalog_that_holds_them() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    let child = greeted(&mut rig, &json!({"prompts": {}}));
    let list = asked(&mut rig, child);
    let large = "x".repeat(limits::MAX_TOOL / 2);
    let mut prompts: Vec<Value> = (0..100).map(|n| json!({"name": n.to_string(), "description": large})).collect();
    prompts.insert(0, json!({"name": "too large", "description": "x".repeat(limits::MAX_TOOL)}));
    prompts.insert(0, json!("not an object"));
    rig.answer(child, &list["id"], json!({ "prompts": prompts }));
    let server = server(&mut rig);
    let listed = server["prompts"].as_array().unwrap();
    assert!(listed.len() > 50 && serde_json::to_string(listed).unwrap().len() <= limits::MAX_LIST);
    assert_eq!(listed[0]["name"], "0");
}

#[test]
fn lists_of_a_lazy_server_are_kept_with_its_tools() {
    let mut config = config(&["a"]);
    let life = Life { lazy: true, ..Life::default() };
    config
        .servers
        .insert("a".to_string(), ServerConfig { life: Life { era: EraChoice::Legacy, ..life }, ..stdio("a") });
    let begin = || {
        let mut rig = Rig::new(config.clone(), Some("minted"));
        rig.event(Event::Start { person: Person::Absent });
        rig
    };
    let mut rig = begin();
    rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    let child = greeted(&mut rig, &capabilities());
    list_others(&mut rig, child, "one");
    let catalog = rig.take(|action| match action {
        Action::Keep { catalog, .. } => Some(catalog.clone()),
        _ => None,
    });
    let mut rig = begin();
    rig.event(Event::Recalled { server: "a".to_string(), catalog });
    rig.connect(Dialect::V2);
    let server = server(&mut rig);
    assert_eq!((&server["state"], &server["resources"][0]["name"]), (&json!("asleep"), &json!("one")));
}

/// How often the servers of the last catalog said that their lists changed.
fn announced(rig: &mut Rig) -> Vec<Value> {
    rig.catalogs().iter().map(|catalog| catalog["servers"][0]["announced"].clone()).collect()
}

#[test]
fn what_a_server_says_of_its_lists_is_counted_once_they_are_listed_anew() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    let child = greeted(&mut rig, &capabilities());
    list_others(&mut rig, child, "one");
    assert!(announced(&mut rig).iter().all(Value::is_null), "nothing was said yet");
    let changed = |kind: &str| json!({"jsonrpc": "2.0", "method": std::format!("notifications/{kind}/list_changed")});
    for kind in ["resources", "resources", "prompts"] {
        rig.say(child, &changed(kind));
    }
    rig.advance(limits::RELIST_DELAY);
    for method in OTHERS {
        assert!(announced(&mut rig).is_empty(), "not before it is known what they are");
        let list = asked(&mut rig, child);
        assert_eq!(list["method"], method);
        rig.say(child, &json!({"jsonrpc": "2.0", "id": list["id"], "error": {"code": -1, "message": "not now"}}));
    }
    assert_eq!(announced(&mut rig), [json!({"tools": 0, "prompts": 1, "resources": 1})]);
    rig.say(child, &changed("prompts"));
    rig.advance(limits::RELIST_DELAY);
    let list = asked(&mut rig, child);
    rig.say(child, &changed("prompts"));
    rig.answer(child, &list["id"], json!({"prompts": [{"name": "one"}]}));
    assert_eq!(announced(&mut rig), [json!({"tools": 0, "prompts": 2, "resources": 1})]);
    rig.advance(limits::RELIST_DELAY);
    let list = asked(&mut rig, child);
    rig.answer(child, &list["id"], json!({"prompts": [{"name": "one"}]}));
    assert_eq!(announced(&mut rig), [json!({"tools": 0, "prompts": 3, "resources": 1})]);
}
