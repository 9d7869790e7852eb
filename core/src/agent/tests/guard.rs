//! Policy, approvals, pins and the audit, on a whole agent.

use super::*;
use crate::config::policy::{AgentPolicy, AuditFile, PinMode};
use crate::config::{self, Config};
use crate::limits;
use crate::mcp::code;
use crate::tunnel::ResetCode;

const A: ChildId = ChildId(1);

/// A ready agent with the server `a` under this policy; its tools are `read`, which says that it only reads, `write`
/// and `delete`.
fn ready(members: &str) -> Rig {
    started(members, BTreeMap::new())
}

fn policy(members: &str) -> AgentPolicy {
    let text = std::format!(
        r#"{{"mode":"agent","relay":"r.example","servers":{{"a":{{"command":"a","policy":{members}}}}}}}"#
    );
    let text = match members.split_once('|') {
        Some((members, top)) => std::format!(
            r#"{{"mode":"agent","relay":"r.example","servers":{{"a":{{"command":"a","policy":{members}}}}},{top}}}"#
        ),
        None => text,
    };
    match config::parse(&text) {
        Ok(config::Parsed { config: Config::Agent(config), warnings }) if warnings.is_empty() => config.policy,
        other => panic!("{other:?}"),
    }
}

fn started(members: &str, pins: BTreeMap<String, Bytes>) -> Rig {
    let mut config = config(&["a"]);
    config.policy = policy(members);
    let mut rig = Rig::new(config, Some("minted"));
    rig.pins = pins;
    rig.event(Event::Start { person: Person::Absent });
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 100 });
    rig.greet(child);
    list(&mut rig, child, &tools("Reads a file"));
    rig.connect(Dialect::V2);
    rig
}

fn tools(description: &str) -> Value {
    json!([
        {"name": "read", "description": description, "annotations": {"readOnlyHint": true}},
        {"name": "write", "annotations": {"readOnlyHint": false}},
        {"name": "delete"},
    ])
}

/// Answers the list that is asked for.
fn list(rig: &mut Rig, child: ChildId, tools: &Value) {
    let asked = rig.written(child).pop().expect("its tools were asked for");
    assert_eq!(asked["method"], "tools/list");
    rig.answer(child, &asked["id"], json!({ "tools": tools }));
}

/// The server says that its tools are others now.
fn relist(rig: &mut Rig, tools: &Value) {
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    rig.advance(limits::RELIST_DELAY);
    list(rig, A, tools);
}

/// The tools of the last catalog that was sent.
fn shown(rig: &mut Rig) -> Vec<String> {
    names(&rig.catalogs().pop().expect("a catalog was sent")["servers"][0])
}

fn names(server: &Value) -> Vec<String> {
    let tools = server["tools"].as_array().expect("with tools");
    tools.iter().map(|tool| tool["name"].as_str().expect("named").to_string()).collect()
}

fn call_tool(rig: &mut Rig, stream: u32, tool: &str) {
    rig.call(stream, "a", &std::format!(r#"{{"name":"{tool}","arguments":{{"secret":"s3cret"}}}}"#));
}

/// Calls a tool and answers it; whether the server heard of it.
fn passes(rig: &mut Rig, stream: u32, tool: &str) -> bool {
    call_tool(rig, stream, tool);
    reached(rig)
}

fn reached(rig: &mut Rig) -> bool {
    let written = rig.written(A);
    for call in &written {
        rig.answer(A, &call["id"], json!({}));
    }
    !written.is_empty()
}

fn refusal(rig: &mut Rig) -> (Option<i64>, String) {
    let mut answers = rig.answers();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (_, code, body) = answers.remove(0);
    (code, body)
}

fn control(rig: &mut Rig, command: ControlCommand) -> Value {
    rig.event(Event::Control { job: JobId(1), command });
    serde_json::from_slice(&rig.reply()).expect("JSON")
}

fn waiting(rig: &mut Rig) -> Vec<Value> {
    let answer = control(rig, ControlCommand::Approvals { params: false });
    answer["waiting"].as_array().expect("a list").clone()
}

fn first_waiting(rig: &mut Rig) -> u64 {
    waiting(rig)[0]["id"].as_u64().expect("a number")
}

fn audited(rig: &mut Rig) -> Vec<Value> {
    rig.take_all(|action| match action {
        Action::Audit { line, .. } => Some(serde_json::from_slice(line).expect("JSON")),
        _ => None,
    })
}

// Policy.

#[test]
fn what_policy_hides_is_neither_listed_nor_callable() {
    for (members, expected) in [
        ("{}", &["read", "write", "delete"][..]),
        (r#"{"allow":["read","write"]}"#, &["read", "write"]),
        (r#"{"deny":["delete"]}"#, &["read", "write"]),
        (r#"{"readOnly":true}"#, &["read"]),
        (r#"{"allow":["*"],"deny":["*"]}"#, &[]),
        (r#"{}|"policy":{"deny":["a/w*"]}"#, &["read", "delete"]),
        (r#"{"allow":["write"],"readOnly":true}"#, &[]),
    ] {
        let mut rig = ready(members);
        assert_eq!(shown(&mut rig), expected, "{members}");
        for (stream, tool) in [(1, "read"), (2, "write"), (3, "delete")] {
            assert_eq!(passes(&mut rig, stream, tool), expected.contains(&tool), "{members} {tool}");
            let (code, body) = refusal(&mut rig);
            assert_eq!(code, (!expected.contains(&tool)).then_some(code::REFUSED), "{body}");
        }
        assert_eq!(rig.server_status("a").hidden, 3 - expected.len());
    }
}

#[test]
fn unlisted_tool_is_judged_by_its_name_or_not_called() {
    assert!(passes(&mut ready(r#"{"deny":["delete"]}"#), 1, "secret"));
    assert!(!passes(&mut ready(r#"{"allow":["read"]}"#), 1, "secret"));
    assert!(!passes(&mut ready(r#"{"readOnly":true}"#), 1, "secret"), "nothing says that it only reads");
    assert!(!passes(&mut ready(r#"{}|"pins":"block""#), 1, "secret"), "nobody has seen it");
}

#[test]
fn hostile_relay_gets_no_way_around_policy() {
    let mut rig = ready(r#"{"deny":["delete"]}"#);
    for (method, params) in [
        ("tools/call", r#"{"name":"read","name":"delete"}"#),
        ("tools/call", r#"{"name":"read","Name":"delete"}"#),
        ("tools/call", r#"{"Name":"delete"}"#),
        ("tools/call", r#"{"name":"del\u0065te"}"#),
        ("tools/call", r#"["delete"]"#),
        ("Tools/Call", r#"{"name":"delete"}"#),
        ("tools/call ", r#"{"name":"delete"}"#),
        ("initialize", "{}"),
        ("notifications/initialized", "{}"),
        ("vendor/run", r#"{"name":"delete"}"#),
        ("tasks/update", "{}"),
    ] {
        rig.call_method(1, "a", method, params);
        assert!(!reached(&mut rig), "{method} {params}");
        assert!(refusal(&mut rig).0.is_some());
    }
    for server in ["A", "a ", "a/../a", ""] {
        rig.call(1, server, r#"{"name":"delete"}"#);
        assert!(!reached(&mut rig) && refusal(&mut rig).0 == Some(code::SERVER_UNAVAILABLE));
    }
    rig.call_method(1, "a", "resources/read", "{}");
    assert!(reached(&mut rig));
}

#[test]
fn call_that_was_held_is_judged_by_the_list_that_came() {
    let mut config = config(&["a"]);
    config.policy = policy(r#"{"readOnly":true}"#);
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig.connect(Dialect::V2);
    call_tool(&mut rig, 1, "write");
    call_tool(&mut rig, 2, "read");
    assert!(rig.answers().is_empty(), "the server is starting");
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 100 });
    rig.greet(child);
    list(&mut rig, child, &tools("x"));
    let written = rig.written(child);
    assert_eq!((written.len(), &written[0]["params"]["name"]), (1, &json!("read")));
    let answers = rig.answers();
    assert_eq!((answers[0].0, answers[0].1), (1, Some(code::REFUSED)));
}

#[test]
fn limits_hold_and_are_freed_by_every_end() {
    let mut rig = ready(r#"{"concurrency":2}"#);
    call_tool(&mut rig, 1, "read");
    call_tool(&mut rig, 2, "read");
    assert_eq!(rig.written(A).len(), 2);
    call_tool(&mut rig, 3, "read");
    let (code, body) = refusal(&mut rig);
    assert!(code == Some(code::OVERLOADED) && body.contains("2 calls are under way"), "{body}");
    rig.tunnel(tunnel::Event::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: String::new() });
    rig.written(A);
    call_tool(&mut rig, 4, "read");
    assert_eq!(rig.written(A).len(), 1);
    rig.exited(A, 1, "");
    rig.answers();
    call_tool(&mut rig, 5, "read");
    call_tool(&mut rig, 6, "read");
    assert!(rig.answers().is_empty(), "both are held for the next run");
}

#[test]
fn rate_is_counted_over_any_minute() {
    let mut rig = ready(r#"{"tools":{"r*":{"callsPerMinute":2}}}"#);
    assert!(passes(&mut rig, 1, "read") && passes(&mut rig, 2, "read"));
    rig.answers();
    rig.advance(Duration::from_secs(59));
    assert!(!passes(&mut rig, 3, "read"));
    assert!(refusal(&mut rig).1.contains("2 calls a minute: try again in"));
    assert!(passes(&mut rig, 4, "write"), "it is another tool");
    rig.advance(Duration::from_secs(1));
    assert!(passes(&mut rig, 5, "read"));
}

#[test]
fn policy_of_a_new_configuration_counts_at_once_and_restarts_nothing() {
    let mut rig = ready("{}");
    assert_eq!(shown(&mut rig).len(), 3);
    rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: Some("nobody".into()) } });
    let mut config = config(&["a"]);
    config.policy = policy(r#"{"allow":["read"]}"#);
    rig.event(Event::ConfigRead(Ok(config)));
    assert_eq!(shown(&mut rig), ["read"]);
    assert!(!passes(&mut rig, 1, "write") && passes(&mut rig, 2, "read"));
    assert!(rig.spawned("a").is_none());
}

// Approvals.

#[test]
fn call_waits_for_its_approval_and_is_passed_on_then() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    assert!(!passes(&mut rig, 1, "read"));
    assert!(rig.answers().is_empty());
    let list = waiting(&mut rig);
    assert_eq!((list.len(), &list[0]["server"], &list[0]["tool"]), (1, &json!("a"), &json!("read")));
    assert_eq!((&list[0]["leftSecs"], list[0].get("params")), (&json!(120), None));
    let shown = control(&mut rig, ControlCommand::Approvals { params: true });
    assert!(shown["waiting"][0]["params"].as_str().is_some_and(|params| params.contains("s3cret")));
    assert_eq!(rig.status().waiting, 1);
    let id = first_waiting(&mut rig);
    assert_eq!(control(&mut rig, ControlCommand::Approve { id, always: false }), json!({"decided": [id]}));
    assert!(reached(&mut rig));
    assert_eq!(refusal(&mut rig).0, None);
    assert!(!passes(&mut rig, 2, "read"), "every call is asked about");
    assert!(control(&mut rig, ControlCommand::Approve { id, always: false })["error"].is_string(), "it is decided");
}

#[test]
fn nobody_or_a_no_denies() {
    let mut rig = ready(r#"{"approve":"first"}|"policy":{"approvalTimeout":30}"#);
    call_tool(&mut rig, 1, "read");
    rig.advance(Duration::from_secs(29));
    assert!(rig.answers().is_empty());
    rig.advance(Duration::from_secs(1));
    let (code, body) = refusal(&mut rig);
    assert!(code == Some(code::REFUSED) && body.contains("nobody gave it within 30 s"), "{body}");
    call_tool(&mut rig, 2, "read");
    let id = first_waiting(&mut rig);
    assert_eq!(control(&mut rig, ControlCommand::Deny { id }), json!({"decided": [id]}));
    assert!(refusal(&mut rig).1.contains("refused on the device"));
    assert!(!reached(&mut rig));
    rig.advance(Duration::from_secs(60));
    assert!(rig.answers().is_empty(), "one answer each");
}

#[test]
fn first_approval_lasts_until_the_definition_changes_also_over_a_restart() {
    let mut rig = ready(r#"{"approve":"first"}|"pins":"warn""#);
    call_tool(&mut rig, 1, "read");
    call_tool(&mut rig, 2, "read");
    call_tool(&mut rig, 3, "write");
    let id = first_waiting(&mut rig);
    let decided = control(&mut rig, ControlCommand::Approve { id, always: false });
    assert_eq!(decided["decided"].as_array().map(Vec::len), Some(2), "the same client and tool need no second word");
    assert_eq!(rig.written(A).len(), 2);
    let mut rig = started(r#"{"approve":"first"}|"pins":"warn""#, rig.pins);
    assert!(passes(&mut rig, 1, "read") && !passes(&mut rig, 2, "write"));
    relist(&mut rig, &tools("Reads a file, and mails it"));
    assert!(!passes(&mut rig, 3, "read"), "it is not what was approved");
}

#[test]
fn always_is_for_one_client_and_tool_until_the_agent_ends() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    call_tool(&mut rig, 1, "read");
    let id = first_waiting(&mut rig);
    control(&mut rig, ControlCommand::Approve { id, always: true });
    assert!(reached(&mut rig));
    assert!(passes(&mut rig, 2, "read") && !passes(&mut rig, 3, "write"));
    let head = OpenHead {
        server: "a".into(),
        method: "tools/call".into(),
        client: Some("somebody else".into()),
        length: 0,
        ..OpenHead::default()
    };
    let params = Bytes::from_static(br#"{"name":"read"}"#);
    rig.tunnel(tunnel::Event::Call { stream: StreamId(4), head, params });
    assert!(!reached(&mut rig), "another client is asked about");
    let mut rig = started(r#"{"approve":"always"}"#, rig.pins);
    assert!(!passes(&mut rig, 1, "read"));
}

/// A call of `read` by this client.
fn call_by(rig: &mut Rig, stream: u32, actor: &str, client: &str) {
    let head = OpenHead {
        server: "a".into(),
        method: "tools/call".into(),
        client: Some(client.into()),
        actor: actor.into(),
        length: 0,
        ..OpenHead::default()
    };
    let params = Bytes::from_static(br#"{"name":"read"}"#);
    rig.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params });
}

#[test]
fn lasting_approval_is_the_clients_own_whatever_others_call_themselves() {
    let mut rig = ready(r#"{"approve":"first"}|"audit":true"#);
    call_by(&mut rig, 1, "mlt_c_one", "Cursor 1");
    let shown = waiting(&mut rig).remove(0);
    assert_eq!((&shown["client"], &shown["actor"]), (&json!("Cursor 1"), &json!("mlt_c_one")));
    let id = first_waiting(&mut rig);
    control(&mut rig, ControlCommand::Approve { id, always: false });
    assert!(reached(&mut rig));
    call_by(&mut rig, 2, "mlt_c_one", "Cursor 2");
    assert!(reached(&mut rig), "a newer version is the same client");
    call_by(&mut rig, 3, "mlt_c_two", "Cursor 1");
    assert!(!reached(&mut rig), "another client of that name is asked about");
    call_by(&mut rig, 4, "", "mlt_c_two");
    assert!(!reached(&mut rig));
    assert_eq!(audited(&mut rig)[0]["actor"], "mlt_c_one");
}

#[test]
fn approval_that_comes_after_the_rules_changed_says_so() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    call_tool(&mut rig, 1, "read");
    rig.event(Event::Control { job: JobId(9), command: ControlCommand::Restart { server: None } });
    let mut config = config(&["a"]);
    config.policy = policy(r#"{"approve":"always","deny":["read"]}"#);
    rig.event(Event::ConfigRead(Ok(config)));
    drop(rig.reply());
    let id = first_waiting(&mut rig);
    let decided = control(&mut rig, ControlCommand::Approve { id, always: false });
    assert_eq!(decided["decided"], json!([]));
    assert!(decided["error"].as_str().is_some_and(|error| error.contains("policy")), "{decided}");
    assert!(!reached(&mut rig));
}

#[test]
fn name_that_no_tool_has_is_told() {
    let mut rig = ready(r#"{"deny":["delete","raed","x_*","resources/read"],"tools":{"wrte":{"approve":"always"}}}"#);
    let problems = rig.status().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("\"raed\"") && problems[1].contains("\"wrte\""), "{problems:?}");
}

#[test]
fn tool_that_an_old_relay_was_not_told_of_is_noted() {
    let mut rig = ready(r#"{"deny":["delete"]}|"audit":true"#);
    for (tool, bytes) in [("a__delete", 2), ("a__gone", 3), ("nothing", 4)] {
        rig.tunnel(tunnel::Event::Unlisted { tool: tool.into(), bytes });
    }
    let lines = audited(&mut rig);
    let told: Vec<_> =
        lines.iter().map(|it| (&it["server"], &it["tool"], &it["decision"], &it["paramsBytes"])).collect();
    let expected = [
        (json!("a"), json!("delete"), json!("denied"), json!(2)),
        (json!("a"), json!("gone"), json!("invalid"), json!(3)),
        (json!(""), json!("nothing"), json!("invalid"), json!(4)),
    ];
    assert_eq!(told, expected.each_ref().map(|(a, b, c, d)| (a, b, c, d)));
}

#[test]
fn caller_that_goes_away_waits_no_longer() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    call_tool(&mut rig, 1, "read");
    call_tool(&mut rig, 2, "read");
    rig.tunnel(tunnel::Event::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: String::new() });
    assert_eq!(waiting(&mut rig).len(), 1);
    rig.closed(CloseCode::Internal);
    assert!(waiting(&mut rig).is_empty());
    rig.advance(Duration::from_secs(200));
    assert!(rig.answers().is_empty() && !reached(&mut rig));
}

#[test]
fn approval_of_what_is_forbidden_by_now_is_a_refusal() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    call_tool(&mut rig, 1, "read");
    let id = first_waiting(&mut rig);
    rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: Some("nobody".into()) } });
    let mut config = config(&["a"]);
    config.policy = policy(r#"{"approve":"always","deny":["read"]}"#);
    rig.event(Event::ConfigRead(Ok(config)));
    rig.reply();
    control(&mut rig, ControlCommand::Approve { id, always: false });
    assert!(!reached(&mut rig));
    assert_eq!(refusal(&mut rig).0, Some(code::REFUSED));
}

#[test]
fn calls_that_wait_are_bounded() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    for stream in 0..=u32::try_from(limits::MAX_WAITING / 2).unwrap() {
        call_tool(&mut rig, stream, "read");
    }
    let (code, body) = refusal(&mut rig);
    assert!(code == Some(code::OVERLOADED) && body.contains("too many calls wait"), "{body}");
    assert_eq!(waiting(&mut rig).len(), limits::MAX_WAITING / 2, "the rest is for others");
}

#[test]
fn content_that_no_tool_brings_needs_approval_too() {
    let mut rig = ready(r#"{"approve":"always"}"#);
    rig.call_method(1, "a", "resources/read", r#"{"uri":"file:///etc/passwd"}"#);
    assert!(!reached(&mut rig));
    assert_eq!(waiting(&mut rig)[0]["tool"], "resources/read");
    rig.call_method(2, "a", "resources/list", "{}");
    assert!(reached(&mut rig));
}

// Pins.

#[test]
fn one_changed_byte_is_named_under_warn_and_held_back_under_block() {
    for (mode, held) in [("warn", false), ("block", true)] {
        let mut rig = ready(&std::format!(r#"{{}}|"pins":"{mode}""#));
        assert_eq!(shown(&mut rig).len(), 3);
        assert!(rig.status().changed_tools.is_empty());
        relist(&mut rig, &tools("Reads a File"));
        let status = rig.status();
        let changed = &status.changed_tools[0];
        assert_eq!((changed.tool.as_str(), changed.change.as_str(), changed.held), ("read", "changed", held));
        assert_eq!(status.changed_tools.len(), 1);
        let told = rig.catalogs().pop().expect("the relay hears of it")["servers"][0].clone();
        let change = "changed since it was first seen";
        assert_eq!(told["changed"], json!([{"tool": "read", "change": change, "held": held}]));
        assert_eq!(names(&told).contains(&"read".to_string()), !held);
        assert_eq!(passes(&mut rig, 1, "read"), !held);
        let (code, body) = refusal(&mut rig);
        assert!(!held || (code == Some(code::REFUSED) && body.contains("changed since it was first seen")), "{body}");
        assert!(passes(&mut rig, 2, "write"), "the others are what they were");
        relist(&mut rig, &tools("Reads a file"));
        assert!(rig.status().changed_tools.is_empty(), "it is again what it was");
        assert!(rig.catalogs().pop().expect("the relay hears of it")["servers"][0].get("changed").is_none());
        assert!(passes(&mut rig, 3, "read"));
    }
}

#[test]
fn change_between_two_runs_of_the_agent_is_caught() {
    let first = ready(r#"{}|"pins":"block""#);
    let mut second = started(r#"{}|"pins":"block""#, first.pins);
    assert_eq!(shown(&mut second).len(), 3, "nothing changed");
    let mut pins = second.pins;
    for content in pins.values_mut() {
        let hash = serde_json::from_slice::<Value>(content).unwrap()["tools"]["read"]["hash"].clone();
        let text = String::from_utf8(content.to_vec()).unwrap();
        *content = Bytes::from(text.replace(hash.as_str().unwrap(), "0"));
    }
    let mut third = started(r#"{}|"pins":"block""#, pins);
    assert_eq!(shown(&mut third), ["write", "delete"]);
}

#[test]
fn renamed_and_added_tools_are_held_back_under_block() {
    let renamed = json!([{"name": "read_all", "description": "Reads a file", "annotations": {"readOnlyHint": true}},
        {"name": "write", "annotations": {"readOnlyHint": false}}, {"name": "delete"}, {"name": "extra", "x": 1}]);
    let mut rig = ready(r#"{}|"pins":"block""#);
    relist(&mut rig, &renamed);
    assert_eq!(shown(&mut rig), ["write", "delete"]);
    let changes: Vec<_> =
        rig.status().changed_tools.into_iter().map(|it| (it.tool, it.change, it.from.unwrap_or_default())).collect();
    let text = |a: &str, b: &str, c: &str| (a.to_string(), b.to_string(), c.to_string());
    assert_eq!(changes, [text("extra", "added", ""), text("read_all", "renamed", "read")]);
    let mut rig = ready(r#"{}|"pins":"warn""#);
    relist(&mut rig, &renamed);
    assert_eq!(shown(&mut rig), ["read_all", "write", "delete", "extra"]);
    assert_eq!(rig.status().changed_tools.len(), 1, "a new tool is pinned, a new name for an old one is told");
}

#[test]
fn approved_change_is_shown_and_pinned() {
    let mut rig = ready(r#"{}|"pins":"block""#);
    relist(&mut rig, &tools("Other"));
    let diff = control(&mut rig, ControlCommand::Pins { definitions: true });
    assert_eq!((&diff["mode"], &diff["servers"][0]["tools"]), (&json!("block"), &json!(3)));
    let change = &diff["changed"][0];
    assert!(change["before"].as_str().is_some_and(|text| text.contains("Reads a file")), "{diff}");
    assert!(change["after"].as_str().is_some_and(|text| text.contains("Other")), "{diff}");
    let server = Some("nobody".to_string());
    assert!(control(&mut rig, ControlCommand::PinsApprove { server, tool: None })["error"].is_string());
    let tool = Some("write".to_string());
    assert!(control(&mut rig, ControlCommand::PinsApprove { server: None, tool })["error"].is_string());
    let server = Some("a".to_string());
    let approved = control(&mut rig, ControlCommand::PinsApprove { server, tool: Some("read".to_string()) });
    assert_eq!(approved["approved"][0]["tool"], "read");
    assert_eq!(shown(&mut rig).len(), 3);
    assert!(passes(&mut rig, 1, "read"));
    let pins = rig.pins;
    assert!(pins.values().all(|content| std::str::from_utf8(content).unwrap().contains("Other")));
}

#[test]
fn relay_hears_that_a_change_was_approved() {
    let mut rig = ready(r#"{}|"pins":"warn""#);
    relist(&mut rig, &tools("Other"));
    assert_eq!(rig.catalogs().pop().expect("a catalog")["servers"][0]["changed"][0]["tool"], "read");
    control(&mut rig, ControlCommand::PinsApprove { server: None, tool: None });
    assert!(rig.catalogs().pop().expect("a catalog")["servers"][0].get("changed").is_none());
}

#[test]
fn nothing_is_shown_before_the_pins_are_read() {
    let mut config = config(&["a"]);
    config.policy.pins = PinMode::Warn;
    let mut agent = Agent::new(config, identity(), Some(Secret::new("minted")), Box::new(Seeded::new(7)));
    let now = Now { instant: Instant::from_micros(1), unix: UnixTime::from_secs(1_800_000_000) };
    agent.handle_event(Event::Start { person: Person::Absent }, now);
    let mut rig =
        Rig { agent, now, actions: VecDeque::new(), conn: ConnId(0), logs: BTreeMap::new(), pins: BTreeMap::new() };
    let mut key = None;
    while let Some(action) = rig.agent.poll_action() {
        match action {
            Action::LoadPins { key: asked } => key = Some(asked),
            action => rig.actions.push_back(action),
        }
    }
    let child = rig.bring_up("a", &["tool"]);
    rig.connect(Dialect::V2);
    assert!(shown(&mut rig).is_empty());
    let key = key.expect("the pins were asked for");
    rig.event(Event::PinsLoaded { key, result: Ok(None) });
    assert_eq!(shown(&mut rig), ["tool"]);
    assert_eq!((child, rig.pins.len()), (A, 1));
}

#[test]
fn unreadable_pins_hold_all_back_under_block_and_are_never_overwritten() {
    let broken: BTreeMap<String, Bytes> =
        ready("{}").pins.into_keys().map(|key| (key, Bytes::from_static(b"{broken"))).collect();
    assert_eq!(broken.len(), 1);
    for (mode, count) in [("warn", 3), ("block", 0)] {
        let mut rig = started(&std::format!(r#"{{}}|"pins":"{mode}""#), broken.clone());
        assert_eq!(shown(&mut rig).len(), count, "{mode}");
        let status = rig.status();
        assert!(status.problems[0].contains("the pinned tools of a: it is malformed"), "{:?}", status.problems);
        assert_eq!(passes(&mut rig, 1, "read"), count > 0);
        assert_eq!(rig.pins, broken);
        let approved = control(&mut rig, ControlCommand::PinsApprove { server: None, tool: None });
        assert_eq!(approved["approved"].as_array().map(Vec::len), Some(3), "all that is trusted from now on is named");
        assert!(rig.status().problems.is_empty());
        assert!(passes(&mut rig, 2, "read"));
        assert_ne!(rig.pins, broken, "a person said so");
    }
}

#[test]
fn what_two_agents_make_of_the_same_pins_is_kept() {
    let mut one = ready(r#"{"approve":"first"}|"pins":"block""#);
    let mut other = started(r#"{"approve":"first"}|"pins":"block""#, one.pins.clone());
    relist(&mut one, &tools("Other"));
    control(&mut one, ControlCommand::PinsApprove { server: None, tool: None });
    // The other one has the file as it was, and something of its own to add.
    other.pins = one.pins.clone();
    call_tool(&mut other, 1, "write");
    let id = first_waiting(&mut other);
    control(&mut other, ControlCommand::Approve { id, always: false });
    assert!(reached(&mut other));
    let mut third = started(r#"{"approve":"first"}|"pins":"block""#, other.pins);
    relist(&mut third, &tools("Other"));
    assert!(third.status().changed_tools.is_empty(), "the first one's approval of the tool is kept");
    assert!(passes(&mut third, 2, "write"), "and the other's of the call");
}

#[test]
fn what_was_approved_in_another_agent_passes_after_a_restart_or_a_new_list() {
    let policy_of_both = r#"{"approve":"first"}|"pins":"block""#;
    for by_restart in [true, false] {
        let mut one = ready(policy_of_both);
        let mut other = started(policy_of_both, one.pins.clone());
        for rig in [&mut one, &mut other] {
            relist(rig, &tools("Other"));
        }
        control(&mut one, ControlCommand::PinsApprove { server: None, tool: None });
        call_tool(&mut one, 1, "write");
        let id = first_waiting(&mut one);
        control(&mut one, ControlCommand::Approve { id, always: false });
        other.pins = one.pins.clone();
        assert_eq!(other.status().changed_tools.len(), 1, "it has not looked yet");
        if by_restart {
            other.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: None } });
            let mut config = config(&["a"]);
            config.policy = policy(policy_of_both);
            other.event(Event::ConfigRead(Ok(config)));
            other.actions.clear();
        } else {
            relist(&mut other, &tools("Other"));
        }
        assert!(other.status().changed_tools.is_empty(), "restart: {by_restart}");
        assert_eq!(other.pins, one.pins, "nothing new is written");
        if !by_restart {
            assert_eq!(shown(&mut other).len(), 3);
            assert!(passes(&mut other, 2, "write"), "the approval of the call is known as well");
        }
    }
}

#[test]
fn what_was_read_before_a_save_does_not_undo_it() {
    let mut rig = ready(r#"{"approve":"first"}|"pins":"block""#);
    let (key, before) = rig.pins.first_key_value().map(|(key, file)| (key.clone(), file.clone())).expect("pinned");
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    rig.advance(limits::RELIST_DELAY);
    let asked = rig.written(A).pop().expect("its tools were asked for");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": tools("Other")}}).to_string();
    // The file is asked for, and not there yet when a person approves what is in it.
    rig.agent.handle_event(Event::Line { child: A, line: Bytes::from(answer) }, rig.now);
    let mut reads = 0;
    while let Some(action) = rig.agent.poll_action() {
        reads += usize::from(matches!(action, Action::LoadPins { .. }));
    }
    assert_eq!(reads, 1);
    control(&mut rig, ControlCommand::PinsApprove { server: None, tool: None });
    assert_ne!(rig.pins[&key], before);
    rig.event(Event::PinsLoaded { key: key.clone(), result: Ok(Some(before.clone())) });
    assert!(rig.status().changed_tools.is_empty());
    assert_ne!(rig.pins[&key], before);
}

#[test]
fn pins_that_cannot_be_read_again_stay_as_they_are_known() {
    let mut rig = ready(r#"{}|"pins":"block""#);
    let (key, pinned) = rig.pins.first_key_value().map(|(key, file)| (key.clone(), file.clone())).expect("pinned");
    rig.event(Event::PinsLoaded { key: key.clone(), result: Err("no permission".into()) });
    assert!(rig.status().problems.is_empty());
    assert_eq!((shown(&mut rig).len(), &rig.pins[&key]), (3, &pinned));
}

#[test]
fn pins_that_are_off_ask_for_no_file() {
    let rig = ready(r#"{}|"pins":"off""#);
    assert!(rig.pins.is_empty());
}

#[test]
fn other_program_under_an_old_name_is_seen_for_the_first_time() {
    let mut rig = ready(r#"{}|"pins":"block""#);
    rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: None } });
    let mut config = config(&["a"]);
    config.policy = policy(r#"{}|"pins":"block""#);
    config.servers.insert("a".into(), stdio("other"));
    rig.event(Event::ConfigRead(Ok(config)));
    rig.exited(A, 0, "");
    let child = rig.bring_up("a", &["tool"]);
    assert_ne!(child, A);
    assert_eq!((shown(&mut rig), rig.pins.len()), (std::vec!["tool".to_string()], 2));
}

// Audit.

#[test]
fn every_call_is_noted_once_without_its_arguments() {
    let mut rig = ready(r#"{"deny":["delete"],"approve":"first"}|"audit":true"#);
    call_tool(&mut rig, 1, "read");
    call_tool(&mut rig, 2, "delete");
    call_tool(&mut rig, 3, "write");
    assert_eq!(audited(&mut rig).len(), 1, "what is under way is noted when it is over");
    let id = first_waiting(&mut rig);
    control(&mut rig, ControlCommand::Approve { id, always: false });
    let id = first_waiting(&mut rig);
    control(&mut rig, ControlCommand::Deny { id });
    rig.advance(Duration::from_millis(1500));
    assert!(reached(&mut rig));
    call_tool(&mut rig, 4, "read");
    rig.closed(CloseCode::Internal);
    let lines = audited(&mut rig);
    let told: Vec<_> = lines.iter().map(|line| (&line["tool"], &line["decision"], &line["outcome"])).collect();
    let expected = [("write", "rejected", "error"), ("read", "approved", "result"), ("read", "allowed", "cancelled")];
    let expected = expected.map(|(a, b, c)| (json!(a), json!(b), json!(c)));
    assert_eq!(told, expected.each_ref().map(|(a, b, c)| (a, b, c)));
    assert_eq!((&lines[1]["durationMs"], &lines[1]["device"]), (&json!(1500), &json!("laptop of Ann")));
    assert!(lines.iter().all(|line| line["user"] == "u-1" && !line.to_string().contains("s3cret")));
}

#[test]
fn denied_call_is_noted_and_a_hostile_name_stays_in_its_line() {
    let mut rig = ready(r#"{"deny":["*"]}|"audit":"/var/log/tunnel.jsonl""#);
    rig.call(1, "a", r#"{"name":"x\n{\"decision\":\"allowed\"}\u202e"}"#);
    let (file, line) = rig
        .take(|action| match action {
            Action::Audit { file, line } => Some((file.clone(), line.clone())),
            _ => None,
        })
        .expect("it is noted");
    assert_eq!(file, AuditFile::At("/var/log/tunnel.jsonl".into()));
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    let line: Value = serde_json::from_slice(&line).expect("one document");
    assert_eq!((&line["decision"], &line["code"]), (&json!("denied"), &json!(code::REFUSED)));
    assert_eq!(line["tool"], "x {\"decision\":\"allowed\"}");
}

#[test]
fn nothing_is_noted_unless_asked_for() {
    let mut rig = ready("{}");
    assert!(passes(&mut rig, 1, "read") && audited(&mut rig).is_empty());
}

#[test]
fn audit_that_cannot_be_written_is_told_before_the_first_call_and_until_it_can() {
    let mut config = config(&["a"]);
    config.policy.audit = Some(AuditFile::At("/nope/audit.log".into()));
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    let opened = rig.take(|action| match action {
        Action::OpenAudit(file) => Some(file.clone()),
        _ => None,
    });
    assert_eq!(opened, Some(AuditFile::At("/nope/audit.log".into())));
    assert!(rig.status().problems.is_empty());
    rig.event(Event::AuditWritten(Err("no such directory".into())));
    let problems = rig.status().problems;
    assert!(
        matches!(&problems[..], [one] if one.contains("audit") && one.contains("no such directory")),
        "{problems:?}"
    );
    rig.event(Event::AuditWritten(Ok(())));
    assert!(rig.status().problems.is_empty());
}
