//! A server's own answer to `tools/list`, as a client sees it.

use super::*;
use crate::config::{self, Config};

const A: ChildId = ChildId(1);

/// A ready agent with the server `a`, whose tools are `read` and `write`, under this policy, with these pins.
fn ready(policy: &str, pins: &str) -> Rig {
    let text = std::format!(
        r#"{{"mode":"agent","relay":"r.example","servers":{{"a":{{"command":"a","policy":{policy}}}}},"pins":"{pins}"}}"#
    );
    let Ok(config::Parsed { config: Config::Agent(parsed), .. }) = config::parse(&text) else { panic!("{text}") };
    let mut config = config(&["a"]);
    config.policy = parsed.policy;
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig.bring_up("a", &["read", "write"]);
    rig.connect(Dialect::V2);
    rig.actions.clear();
    rig
}

/// What a client is answered that asks for tools, when the server answers with that result.
fn asked(rig: &mut Rig, result: &str) -> String {
    rig.call_method(1, "a", "tools/list", r#"{"cursor":"c"}"#);
    let asked = rig.written(A).remove(0);
    assert_eq!(asked["params"], json!({"cursor": "c"}));
    let line = std::format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", asked["id"]);
    rig.event(Event::Line { child: A, line: Bytes::from(line) });
    let (_, code, body) = rig.answers().remove(0);
    assert_eq!(code, None);
    body
}

const LISTED: &str = r#"{ "x":1e400, "tools" : [ {"name":"read","inputSchema":{}} , {"name":"write","inputSchema":{}},{"name":"other","n":1.0}, {"x":1} ],"nextCursor":"" }"#;

#[test]
fn list_is_passed_on_as_it_is_where_nothing_is_hidden() {
    for pins in ["off", "warn"] {
        assert_eq!(asked(&mut ready("{}", pins), LISTED), LISTED, "{pins}");
    }
}

#[test]
fn hidden_tools_are_taken_out_and_nothing_else_is_touched() {
    let read = r#"{"name":"read","inputSchema":{}}"#;
    for (policy, shown) in [
        (r#"{"deny":["write"]}"#, std::format!(r#"[{read},{{"name":"other","n":1.0}}]"#)),
        (r#"{"allow":["read"]}"#, std::format!("[{read}]")),
        (r#"{"deny":["*"]}"#, "[]".to_string()),
        (r#"{"readOnly":true}"#, "[]".to_string()),
    ] {
        let expected = std::format!(r#"{{ "x":1e400, "tools" : {shown},"nextCursor":"" }}"#);
        assert_eq!(asked(&mut ready(policy, "warn"), LISTED), expected, "{policy}");
    }
}

#[test]
fn tool_that_nobody_has_seen_and_one_that_changed_are_held_back_with_the_pins() {
    let mut rig = ready("{}", "block");
    let tools = r#"{"tools":[{"name":"read","inputSchema":{}},{"name":"write","inputSchema":{"x":1}},{"name":"new"}]}"#;
    assert_eq!(asked(&mut rig, tools), r#"{"tools":[{"name":"read","inputSchema":{}}]}"#);
}

#[test]
fn second_list_hides_nothing() {
    let result = r#"{"tools":[{"name":"write"}],"tools":[{"name":"read"}]}"#;
    let expected = r#"{"tools":[{"name":"read"}],"tools":[{"name":"read"}]}"#;
    assert_eq!(asked(&mut ready(r#"{"deny":["write"]}"#, "warn"), result), expected);
}

#[test]
fn answer_that_is_no_list_is_the_clients_to_judge() {
    for result in ["[]", "{}", r#"{"tools":3}"#] {
        assert_eq!(asked(&mut ready(r#"{"deny":["write"]}"#, "warn"), result), result);
    }
}

#[test]
fn error_is_passed_on() {
    let mut rig = ready(r#"{"deny":["write"]}"#, "warn");
    rig.call_method(1, "a", "tools/list", "{}");
    let id = rig.written(A)[0]["id"].clone();
    rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "bad cursor"}}));
    assert_eq!(rig.answers()[0].1, Some(-32602));
}
