//! What a session wants to hear of a server: every event in every state. What the server is asked is answered at once. What
//! follows: what it is asked, who is told, the answer to the session, and `keep` where it is kept. `.`: nothing.

use std::format;

use super::kit::{KINDS, WHOLE, look, restart, said, strangers};
use super::*;
use crate::limits;
use crate::table::Table;

/// Of session `one`, and `two` beside it where that is said: what comes out on the way, and how the server is.
const STATES: [(&str, &str); 11] = [
    ("stranger", "; ready"),
    ("caller", "tools/call, keep, answer 9; ready"),
    ("wants debug", "logging/setLevel, keep, answer 9; ready"),
    ("watches", "resources/subscribe, keep, answer 9; ready"),
    ("watches with two", "resources/subscribe, keep, answer 9 | resources/subscribe, answer 9; ready"),
    ("watched", "resources/subscribe, keep, answer 9 | resources/unsubscribe, answer 9; ready"),
    ("session over", "resources/subscribe, keep, answer 9 | resources/unsubscribe; ready"),
    ("server away", "resources/subscribe, keep, answer 9 | .; starting"),
    ("server back", "resources/subscribe, keep, answer 9 | . | start, resources/subscribe; ready"),
    ("tunnel lost", "resources/subscribe, keep, answer 9 | .; ready"),
    ("agent restarted", "resources/subscribe, keep, answer 9 | start | resources/subscribe; ready"),
];

struct Bench {
    rig: Rig,
    child: ChildId,
    way: Vec<String>,
    /// What was kept last.
    kept: Bytes,
}

const URI: &str = "test://x";

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut bench = Self { rig: Rig::ready(&["a"]), child: ChildId(1), way: Vec::new(), kept: Bytes::new() };
        let steps: &[&str] = match state {
            "stranger" => &[],
            "caller" => &["calls"],
            "wants debug" => &["wants debug"],
            "watches" => &["watches"],
            "watches with two" => &["watches", "two watches"],
            "watched" => &["watches", "watches no more"],
            "session over" => &["watches", "session over"],
            "server away" => &["watches", "server ends"],
            "server back" => &["watches", "server ends", "server starts"],
            "tunnel lost" => &["watches", "tunnel closed"],
            "agent restarted" => &["watches", "agent restarts", "server starts"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let told = bench.give(step);
            bench.way.push(told);
        }
        bench.rig.advance(limits::KEEP_WISHES_EVERY);
        bench.rig.actions.clear();
        bench
    }

    fn look(&mut self) -> String {
        format!("{}; {}", self.way.join(" | "), look(&mut self.rig, "a"))
    }

    /// The server answers what it was asked, itself included.
    fn serve(&mut self) {
        let asked: Vec<Value> = self
            .rig
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Write { child, bytes } if *child == self.child => serde_json::from_slice(bytes).ok(),
                _ => None,
            })
            .collect();
        for asked in asked.iter().filter(|asked| asked.get("id").is_some() && asked.get("method").is_some()) {
            self.rig.answer(self.child, &asked["id"], json!({}));
        }
    }

    fn set(&mut self, session: &str, method: &str, params: &Value) {
        self.rig.call_as(9, session, &json!({}), method, &params.to_string());
        self.serve();
    }

    fn give(&mut self, event: &str) -> String {
        let child = self.child;
        let log = |level: &str| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "d"}});
        let updated =
            |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
        let uri = json!({"uri": URI});
        match event {
            "calls" => self.set("one", "tools/call", &json!({"name": "tool"})),
            "two calls" => self.set("two", "tools/call", &json!({"name": "tool"})),
            "wants debug" => self.set("one", "logging/setLevel", &json!({"level": "debug"})),
            "wants what is no level" => self.set("one", "logging/setLevel", &json!({"level": "loud"})),
            "two wants errors" => self.set("two", "logging/setLevel", &json!({"level": "error"})),
            "watches" => self.set("one", "resources/subscribe", &uri),
            "two watches" => self.set("two", "resources/subscribe", &uri),
            "watches no more" => self.set("one", "resources/unsubscribe", &uri),
            "watches, and is refused" => {
                self.rig.call_as(9, "one", &json!({}), "resources/subscribe", r#"{"uri":"test://y"}"#);
                if let Some(asked) = self.rig.written(child).pop() {
                    let error = json!({"code": -7, "message": "no"});
                    self.rig.say(child, &json!({"jsonrpc": "2.0", "id": asked["id"], "error": error}));
                }
            }
            "log of debug" => self.rig.say(child, &log("debug")),
            "log of info" => self.rig.say(child, &log("info")),
            "update" => self.rig.say(child, &updated(URI)),
            "update of a part" => self.rig.say(child, &updated("test://x/part")),
            "update of another" => self.rig.say(child, &updated("test://y")),
            "session over" => {
                self.rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() });
                self.serve();
            }
            "two is over" => {
                self.rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() });
                self.serve();
            }
            "server ends" => self.rig.exited(child, 1, "boom"),
            "server starts" => {
                self.rig.advance(limits::RESTART_FIRST);
                let newest = *self.rig.logs.keys().last().expect("it was started once");
                if newest != child {
                    self.child = newest;
                    self.rig.come_up(newest, &["tool"]);
                    self.serve();
                }
            }
            "agent restarts" => {
                self.rig.advance(limits::KEEP_WISHES_EVERY);
                self.note_kept();
                let mut rig = Rig::new(config(&["a"]), Some("minted"));
                rig.event(Event::WishesRecalled { json: self.kept.clone() });
                rig.event(Event::Start { person: Person::Absent });
                rig.connect(Dialect::V2);
                (self.rig, self.child) = (rig, ChildId(0));
            }
            "what was kept comes" => {
                let json = json!({"relay": "https://relay.example", "sessions": {}}).to_string();
                self.rig.event(Event::WishesRecalled { json: Bytes::from(json) });
            }
            "tunnel closed" => self.rig.closed(CloseCode::Refused),
            "restart" => restart(&mut self.rig),
            "stop" => self.rig.event(Event::Stop),
            "what concerns others" => strangers(&mut self.rig),
            other => panic!("no such event: {other}"),
        }
        self.note_kept();
        said(&mut self.rig)
    }

    fn note_kept(&mut self) {
        for action in &self.rig.actions {
            if let Action::KeepWishes { json } = action {
                self.kept = json.clone();
            }
        }
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 11])] = &[
    // stranger, caller, wants debug, watches, with two, watched, session over, server away, server back, tunnel lost, restarted
    (
        "calls",
        [
            "tools/call, keep, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            ".",
            "tools/call, answer 9",
            ".",
            "tools/call, answer 9",
        ],
    ),
    (
        "two calls",
        [
            "tools/call, keep, answer 9",
            "tools/call, keep, answer 9",
            "tools/call, keep, answer 9",
            "tools/call, keep, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            "tools/call, answer 9",
            "keep",
            "tools/call, keep, answer 9",
            ".",
            "tools/call, keep, answer 9",
        ],
    ),
    (
        "wants debug",
        [
            "logging/setLevel, keep, answer 9",
            "logging/setLevel, keep, answer 9",
            "answer 9",
            "logging/setLevel, keep, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            ".",
            "logging/setLevel, keep, answer 9",
            ".",
            "logging/setLevel, keep, answer 9",
        ],
    ),
    (
        "wants what is no level",
        [
            "logging/setLevel, keep, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            ".",
            "logging/setLevel, answer 9",
            ".",
            "logging/setLevel, answer 9",
        ],
    ),
    (
        "two wants errors",
        [
            "logging/setLevel, keep, answer 9",
            "logging/setLevel, keep, answer 9",
            "answer 9, keep",
            "logging/setLevel, keep, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "logging/setLevel, answer 9",
            "keep",
            "logging/setLevel, keep, answer 9",
            ".",
            "logging/setLevel, keep, answer 9",
        ],
    ),
    (
        "watches",
        [
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, answer 9",
            "resources/subscribe, answer 9",
            "resources/subscribe, answer 9",
            "resources/subscribe, answer 9",
            ".",
            "resources/subscribe, answer 9",
            ".",
            "resources/subscribe, answer 9",
        ],
    ),
    (
        "two watches",
        [
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, keep, answer 9",
            "resources/subscribe, answer 9",
            "resources/subscribe, answer 9",
            "resources/subscribe, answer 9",
            "keep",
            "resources/subscribe, keep, answer 9",
            ".",
            "resources/subscribe, keep, answer 9",
        ],
    ),
    (
        "watches no more",
        [
            "resources/unsubscribe, keep, answer 9",
            "resources/unsubscribe, answer 9",
            "resources/unsubscribe, answer 9",
            "resources/unsubscribe, keep, answer 9",
            "answer 9",
            "resources/unsubscribe, answer 9",
            "resources/unsubscribe, answer 9",
            ".",
            "resources/unsubscribe, keep, answer 9",
            ".",
            "resources/unsubscribe, keep, answer 9",
        ],
    ),
    (
        "watches, and is refused",
        [
            "keep, error -7 9",
            "keep, error -7 9",
            "keep, error -7 9",
            "keep, error -7 9",
            "error -7 9",
            "error -7 9",
            "error -7 9",
            ".",
            "keep, error -7 9",
            ".",
            "keep, error -7 9",
        ],
    ),
    (
        "log of debug",
        [
            "tells all: message",
            "tells all: message",
            "tells one: message",
            "tells all: message",
            "tells all: message",
            "tells all: message",
            "tells all: message",
            ".",
            "tells all: message",
            ".",
            "tells all: message",
        ],
    ),
    (
        "log of info",
        [
            "tells all: message",
            "tells all: message",
            "tells one: message",
            "tells all: message",
            "tells all: message",
            "tells all: message",
            "tells all: message",
            ".",
            "tells all: message",
            ".",
            "tells all: message",
        ],
    ),
    (
        "update",
        [
            ".",
            ".",
            ".",
            "tells one: updated",
            "tells one and two: updated",
            ".",
            ".",
            ".",
            "tells one: updated",
            ".",
            "tells one: updated",
        ],
    ),
    (
        "update of a part",
        [
            ".",
            ".",
            ".",
            "tells one: updated",
            "tells one and two: updated",
            ".",
            ".",
            ".",
            "tells one: updated",
            ".",
            "tells one: updated",
        ],
    ),
    ("update of another", ["."; 11]),
    (
        "session over",
        [
            ".",
            "keep",
            "keep",
            "resources/unsubscribe, keep",
            ".",
            ".",
            ".",
            "keep",
            "resources/unsubscribe, keep",
            ".",
            "resources/unsubscribe, keep",
        ],
    ),
    ("two is over", ["."; 11]),
    ("server ends", ["."; 11]),
    ("server starts", [".", ".", ".", ".", ".", ".", ".", "resources/subscribe", ".", ".", "."]),
    ("what was kept comes", ["."; 11]),
    ("tunnel closed", ["."; 11]),
    ("restart", ["read the configuration, close input"; 11]),
    (
        "stop",
        [
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input, leaves ×2",
            "close input",
            "close input, leaves ×2",
        ],
    ),
    ("what concerns others", ["."; 11]),
];

const SPARED: &[(&str, &[&str])] =
    &[WHOLE, ("the relay's restart is as the operator's: table_runs", &["tunnel: Restart"])];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        Bench::look,
        |mut bench, event| bench.give(event),
    );
}
