//! Our own subscription at a modern server: what the agent and the sessions of legacy clients want to hear there.

use std::format;

use super::bridging::{SUBSCRIPTION, asked, listening};
use super::*;
use crate::limits;

const A: ChildId = ChildId(1);

#[test]
fn legacy_subscriptions_become_one_stream_of_ours() {
    let can = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}});
    let (mut rig, first) = listening(&["2026-07-28"], &can);
    rig.call_as(1, "s", &json!({}), "resources/subscribe", r#"{"uri":"a:b"}"#);
    rig.call_as(2, "t", &json!({}), "resources/subscribe", r#"{"uri":"a:c"}"#);
    assert_eq!(rig.answers().len(), 2);
    let written = rig.written(A);
    let methods: Vec<&str> = written.iter().map(|line| line["method"].as_str().unwrap()).collect();
    let once = ["subscriptions/listen", "notifications/cancelled"];
    assert_eq!(methods, [once, once].concat(), "the old one goes once the new one is asked for");
    assert_eq!(
        written[2]["params"]["notifications"],
        json!({"toolsListChanged": true, "resourceSubscriptions": ["a:b", "a:c"]})
    );
    assert_eq!(first, written[1]["params"]["requestId"]);
    let id = written[2]["id"].clone();
    let update = |id: &Value, uri: &str| {
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": {"uri": uri, "_meta": {SUBSCRIPTION: id}}})
    };
    rig.say(A, &update(&id, "a:b"));
    let notices = rig.notices();
    let bare = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:b"}});
    assert_eq!(notices, [("s".to_string(), bare)], "what is the agent's own stays here");
    let mut rich = update(&id, "a:b");
    rich["params"]["_meta"]["vendor/x"] = json!({"n": 1});
    rig.say(A, &rich);
    assert_eq!(rig.notices()[0].1["params"]["_meta"], json!({"vendor/x": {"n": 1}}));
    rig.say(A, &update(&json!(999), "a:b"));
    assert!(rig.notices().is_empty(), "of no subscription of ours");
    rig.call_as(3, "s", &json!({}), "resources/unsubscribe", r#"{"uri":"a:b"}"#);
    assert_eq!(rig.written(A)[0]["params"]["notifications"]["resourceSubscriptions"], json!(["a:c"]));
    rig.tunnel(tunnel::Event::SessionEnded { session: "t".to_string() });
    assert!(rig.written(A)[0]["params"]["notifications"]["resourceSubscriptions"].is_null());
}

#[test]
fn our_stream_is_opened_again_when_it_ends() {
    let (mut rig, mut id) = listening(&["2026-07-28"], &json!({"tools": {"listChanged": true}}));
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": {SUBSCRIPTION: id}}}));
    rig.advance(limits::RELIST_DELAY);
    let list = asked(&mut rig, A);
    assert_eq!(list["method"], "tools/list");
    rig.answer(A, &list["id"], json!({"tools": []}));
    for end in ["result", "error", "cancelled"] {
        match end {
            "result" => rig.answer(A, &id, json!({"resultType": "complete"})),
            "error" => rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": 1, "message": "m"}})),
            _ => {
                rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}))
            }
        }
        assert!(rig.written(A).is_empty(), "not at once");
        rig.advance(limits::RECONNECT_MAX);
        id = asked(&mut rig, A)["id"].clone();
    }
    rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "m"}}));
    rig.advance(limits::RECONNECT_MAX * 2);
    assert!(rig.written(A).is_empty(), "it has no such thing");
}

#[test]
fn lists_are_asked_for_again_once_our_stream_is_open_since_nobody_heard_of_changes_until_then() {
    let (mut rig, mut id) = listening(&["2026-07-28"], &json!({"tools": {"listChanged": true}}));
    for end in ["the first is opened after the lists came", "one that was lost is opened again"] {
        assert!(rig.written(A).is_empty(), "{end}: not before it is open");
        let params = json!({"notifications": {"toolsListChanged": true}, "_meta": {SUBSCRIPTION: id}});
        rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}));
        rig.advance(limits::RELIST_DELAY);
        let list = asked(&mut rig, A);
        assert_eq!(list["method"], "tools/list", "{end}");
        rig.answer(A, &list["id"], json!({"tools": []}));
        rig.advance(limits::RELIST_DELAY);
        assert!(rig.written(A).is_empty(), "{end}: once");
        rig.answer(A, &id, json!({"resultType": "complete"}));
        rig.advance(limits::RECONNECT_MAX);
        id = asked(&mut rig, A)["id"].clone();
    }
}

/// Our own subscription: every event in every state. What follows, within a moment: what the server is asked, which of our
/// streams is left, and who is told that a resource is another. `.`: nothing.
mod table {
    use super::super::kit::{KINDS, WHOLE, last_part, strangers};
    use super::*;
    use crate::table::{Table, told};

    /// What is heard in each. Session "s" watches `a:b`, but not yet in "open" and "useless". "moving": our stream is to be
    /// another; "moved": that one is open.
    const STATES: [(&str, &str); 6] =
        [("asked", "own"), ("open", "own"), ("moving", "own"), ("moved", "own"), ("lost", ""), ("useless", "")];

    struct Bench {
        rig: Rig,
        /// By what the server knows them.
        own: Value,
        old: Value,
        stream: u32,
    }

    impl Bench {
        fn in_state(state: &str) -> Self {
            let can = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}});
            let (rig, own) = listening(&["2026-07-28"], &can);
            let mut bench = Self { rig, own, old: Value::Null, stream: 0 };
            let steps: &[&str] = match state {
                "asked" => &["s watches"],
                "open" => &["own acknowledged"],
                "moving" => &["own acknowledged", "s watches"],
                "moved" => &["own acknowledged", "s watches", "own acknowledged"],
                "lost" => &["own acknowledged", "s watches", "own ends", "half a minute", "own ends"],
                "useless" => &["no such method"],
                other => panic!("no such state: {other}"),
            };
            for step in steps {
                bench.give(step);
            }
            bench
        }

        fn call(&mut self, session: &str, method: &str, uri: &str) {
            self.stream += 1;
            self.rig.call_as(self.stream, session, &json!({}), method, &json!({"uri": uri}).to_string());
        }

        fn on(&mut self, id: &Value, method: &str, mut params: Value) {
            params["_meta"] = json!({SUBSCRIPTION: id});
            self.rig.say(A, &json!({"jsonrpc": "2.0", "method": format!("notifications/{method}"), "params": params}));
        }

        fn give(&mut self, event: &str) -> String {
            let (own, old) = (self.own.clone(), self.old.clone());
            match event {
                "own acknowledged" => self.on(&own, "subscriptions/acknowledged", json!({"notifications": {}})),
                "old acknowledged" => self.on(&old, "subscriptions/acknowledged", json!({"notifications": {}})),
                "change on own" => self.on(&own, "tools/list_changed", json!({})),
                "change on old" => self.on(&old, "tools/list_changed", json!({})),
                "update on own" => self.on(&own, "resources/updated", json!({"uri": "a:b"})),
                "update on old" => self.on(&old, "resources/updated", json!({"uri": "a:b"})),
                "own ends" => self.rig.answer(A, &own, json!({"resultType": "complete"})),
                "old ends" => self.rig.answer(A, &old, json!({"resultType": "complete"})),
                "no such method" => {
                    let error = json!({"code": -32601, "message": "no"});
                    self.rig.say(A, &json!({"jsonrpc": "2.0", "id": own, "error": error}));
                }
                "s watches" => self.call("s", "resources/subscribe", "a:b"),
                "t watches too" => self.call("t", "resources/subscribe", "a:b"),
                "t watches another" => self.call("t", "resources/subscribe", "a:c"),
                "s is over" => self.rig.tunnel(tunnel::Event::SessionEnded { session: "s".to_string() }),
                "half a minute" => self.rig.advance(limits::RECONNECT_MAX),
                "process ends" => self.rig.exited(A, 1, ""),
                "stop" => self.rig.event(Event::Stop),
                "what concerns others" => strangers(&mut self.rig),
                other => panic!("no such event: {other}"),
            }
            self.rig.advance(limits::RELIST_DELAY);
            let mut said = Vec::new();
            loop {
                let written = self.rig.written(A);
                if written.is_empty() {
                    break;
                }
                said.extend(written.iter().map(|message| self.hear(message)));
            }
            said.extend(
                self.rig.notices().into_iter().map(|(session, json)| {
                    format!("tells {session}: {}", last_part(&json["method"]).expect("a method"))
                }),
            );
            self.rig.actions.clear();
            told(&said)
        }

        /// What the server is told; lists are answered.
        fn hear(&mut self, message: &Value) -> String {
            match message["method"].as_str().expect("nothing is answered") {
                "subscriptions/listen" => {
                    (self.old, self.own) = (self.own.take(), message["id"].clone());
                    format!("listen {}", message["params"]["notifications"]["resourceSubscriptions"])
                }
                "notifications/cancelled" => {
                    assert_eq!(message["params"]["requestId"], self.old);
                    "leave old".to_string()
                }
                list => {
                    let lists = json!({"tools": [{"name": "t"}], "resources": [], "resourceTemplates": []});
                    self.rig.answer(A, &message["id"], lists);
                    list.to_string()
                }
            }
        }
    }

    /// On which streams a change is heard.
    fn heard(bench: &mut Bench) -> String {
        let mut heard = ["own", "old"].to_vec();
        heard.retain(|stream| bench.give(&format!("change on {stream}")).contains("tools/list"));
        heard.join(", ")
    }

    const TOOLS: &str = "tools/list";
    const UPDATED: &str = "tells s: updated";
    const MISSED: &str = "tools/list, resources/list, resources/templates/list";
    const ALONE: &str = "listen [\"a:b\"]";
    const BOTH: &str = "listen [\"a:b\",\"a:c\"]";
    const BOTH_NOW: &str = "listen [\"a:b\",\"a:c\"], leave old";
    const NONE_NOW: &str = "listen null, leave old";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 6])] = &[
        // asked, open, moving, moved, lost, useless
        ("own acknowledged", [MISSED, ".", MISSED, ".", ".", "."]),
        ("old acknowledged", ["."; 6]),
        ("change on own", [TOOLS, TOOLS, TOOLS, TOOLS, ".", "."]),
        ("change on old", ["."; 6]),
        ("update on own", [UPDATED, ".", UPDATED, UPDATED, ".", "."]),
        ("update on old", ["."; 6]),
        // It is asked for again after a while.
        ("own ends", ["."; 6]),
        ("old ends", ["."; 6]),
        ("no such method", ["."; 6]),
        ("t watches too", [".", "listen [\"a:b\"], leave old", ".", ".", ALONE, "."]),
        ("t watches another", [BOTH_NOW, "listen [\"a:c\"], leave old", BOTH_NOW, BOTH_NOW, BOTH, "."]),
        ("s is over", [NONE_NOW, ".", NONE_NOW, NONE_NOW, "listen null", "."]),
        ("half a minute", [".", ".", ".", ".", ALONE, "."]),
        ("process ends", ["."; 6]),
        ("stop", ["."; 6]),
        ("what concerns others", ["."; 6]),
    ];

    const SPARED: &[(&str, &[&str])] =
        &[WHOLE, ("a restart ends the process: table", &["ConfigRead", "tunnel: Restart", "control: Restart"])];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            Bench::in_state,
            heard,
            |mut bench, event| bench.give(event),
        );
    }
}
