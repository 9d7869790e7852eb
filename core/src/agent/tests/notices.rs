//! What servers tell without being asked, and clients.

use super::questions::isolated;
use super::*;

const A: ChildId = ChildId(1);

fn log(level: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "d"}})
}

fn note(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": {}})
}

#[test]
fn log_of_a_process_that_works_on_one_call_goes_on_its_stream() {
    let mut rig = Rig::ready(&["a"]);
    rig.call_in(1, "one");
    rig.say(A, &log("info"));
    assert_eq!(rig.messages(), [(1, log("info"), true)]);
    rig.call_in(2, "two");
    rig.say(A, &log("info"));
    assert!(rig.messages().is_empty());
    assert_eq!(rig.notices(), [(String::new(), log("info"))]);
}

const OTHERS: [&str; 3] = ["notifications/elicitation/complete", "notifications/tasks/status", "notifications/vendor"];

#[test]
fn what_a_process_says_in_the_course_of_one_clients_calls_goes_on_the_newest_ones_stream() {
    let mut rig = Rig::ready(&["a"]);
    for stream in 1..=2 {
        rig.call_in(stream, "one");
        for method in OTHERS {
            rig.say(A, &note(method));
            assert_eq!((rig.messages(), rig.notices()), (Vec::from([(stream, note(method), false)]), Vec::new()));
        }
    }
}

#[test]
fn what_belongs_to_nobody_is_for_all() {
    let mut rig = Rig::ready(&["a"]);
    let for_all = |rig: &mut Rig| {
        for method in OTHERS {
            rig.say(A, &note(method));
            assert_eq!((rig.messages(), rig.notices()), (Vec::new(), Vec::from([(String::new(), note(method))])));
        }
    };
    for_all(&mut rig);
    rig.call_in(1, "one");
    rig.call_in(2, "two");
    for_all(&mut rig);
}

#[test]
fn modern_client_hears_what_its_era_has_a_meaning_for() {
    let mut rig = Rig::ready(&["a"]);
    rig.modern_call(1, "a", "tools/call", r#"{"name":"tool"}"#);
    for method in OTHERS {
        rig.say(A, &note(method));
    }
    assert_eq!(rig.messages(), [(1, note("notifications/vendor"), false)]);
    let told: Vec<_> = rig.notices().into_iter().map(|(_, json)| json).collect();
    assert_eq!(told, [note(OTHERS[0]), note(OTHERS[1])], "sessions may know what is meant");
}

#[test]
fn nothing_goes_on_the_stream_of_a_call_whose_client_was_sent_away() {
    let mut rig = Rig::ready(&["a"]);
    let able = json!({"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}});
    rig.modern_call(1, "a", "tools/call", &json!({"name": "tool", "_meta": able}).to_string());
    let params = json!({"message": "m", "requestedSchema": {}});
    rig.say(A, &json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params}));
    assert!(rig.answers()[0].2.contains("input_required"));
    let vendor = note("notifications/vendor");
    rig.say(A, &vendor);
    assert_eq!((rig.messages(), rig.notices()), (Vec::new(), Vec::from([(String::new(), vendor.clone())])));
    rig.call_in(2, "one");
    rig.say(A, &vendor);
    assert_eq!((rig.messages(), rig.notices()), (Vec::from([(2, vendor, false)]), Vec::new()));
}

#[test]
fn notices_of_a_sessions_run_are_for_its_session_alone() {
    let mut rig = isolated();
    rig.call_in(1, "one");
    let child = rig.bring_up("a", &["tool"]);
    let call = rig.written(child).pop().unwrap();
    rig.answer(child, &call["id"], json!({}));
    rig.say(child, &log("debug"));
    rig.say(child, &note("notifications/tasks/status"));
    let expected = [log("debug"), note("notifications/tasks/status")].map(|json| ("one".to_string(), json));
    assert_eq!(rig.notices(), expected);
    rig.call_in(2, "one");
    rig.say(child, &note("notifications/vendor"));
    assert_eq!((rig.messages().len(), rig.notices().len()), (1, 0), "on the stream of its call");
}

#[test]
fn changed_roots_are_told_to_the_servers_that_a_session_uses() {
    let mut rig = Rig::ready(&["a", "b"]);
    rig.call_in(1, "one");
    rig.written(A);
    let changed = note("notifications/roots/list_changed");
    let mut tell_one = |session: &str, server: Option<&str>, json: &Value| {
        let (server, json) = (server.map(ToString::to_string), Bytes::from(json.to_string()));
        rig.tunnel(tunnel::Event::ClientNotice { session: session.to_string(), server, json });
        (rig.written(A).len(), rig.written(ChildId(2)).len())
    };
    assert_eq!(tell_one("one", Some("b"), &changed), (0, 1));
    assert_eq!(tell_one("one", Some("nobody"), &changed), (0, 0));
    let mut tell = |session: &str, json: &Value| tell_one(session, None, json);
    assert_eq!(tell("one", &changed), (1, 0));
    assert_eq!(tell("two", &changed), (0, 0));
    for json in ["notifications/initialized", "notifications/cancelled", "notifications/progress"].map(note) {
        assert_eq!(tell("one", &json), (0, 0), "{json}");
    }
    assert_eq!(tell("one", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})), (0, 0));
    assert_eq!(tell("one", &json!(1)), (0, 0));
}
