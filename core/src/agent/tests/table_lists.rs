//! The lists of a server, from its start on: every event in every state. What follows: what it is asked, and of each catalog
//! the server's state, how many tools and prompts it has, and how often it said that they changed. `.`: nothing.

use std::format;

use super::kit::{KINDS, WHOLE, look, restart, short, strangers};
use super::*;
use crate::limits;
use crate::table::Table;

/// "again": the tools are asked for again; "anew": meanwhile they changed once more. "hung": the prompts did not come.
const STATES: [(&str, &str); 11] = [
    ("greeting", "; probing"),
    ("tools", "note initialized, tools/list; probing"),
    ("second page", "note initialized, tools/list | tools/list; probing"),
    ("prompts", "note initialized, tools/list | prompts/list; probing"),
    ("ready", "note initialized, tools/list | prompts/list | ready 1+1 [0, 0, 0]; ready"),
    ("stale", "note initialized, tools/list | prompts/list | ready 1+1 [0, 0, 0] | .; ready"),
    ("again", "note initialized, tools/list | prompts/list | ready 1+1 [0, 0, 0] | . | tools/list; ready"),
    ("anew", "note initialized, tools/list | prompts/list | ready 1+1 [0, 0, 0] | . | tools/list | .; ready"),
    ("hung", "note initialized, tools/list | prompts/list | ready 1+0 [0, 0, 0]; ready"),
    (
        "ended",
        "note initialized, tools/list | prompts/list | ready 1+1 [0, 0, 0] | restarting 1+1 [0, 0, 0]; restarting",
    ),
    (
        "stopped",
        "note initialized, tools/list | prompts/list | ready 1+1 [0, 0, 0] | close input, leaves, leaves | .; failed",
    ),
];

struct Bench {
    rig: Rig,
    child: ChildId,
    /// The id of what it was asked last.
    id: Value,
    /// What came out on the way to the state.
    way: Vec<String>,
}

const CAPABILITIES: &str = r#"{"tools":{"listChanged":true},"prompts":{}}"#;

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut rig = Rig::started(&["a"]);
        rig.connect(Dialect::V2);
        let child = rig.spawned("a").expect("its process was ordered");
        let mut bench = Self { rig, child, id: Value::Null, way: Vec::new() };
        bench.rig.event(Event::Spawned { child, pid: 100 });
        bench.said();
        const READY: [&str; 3] = ["greeting", "answer", "answer"];
        let steps: Vec<&str> = match state {
            "greeting" => [].into(),
            "tools" => ["greeting"].into(),
            "second page" => ["greeting", "page"].into(),
            "prompts" => ["greeting", "answer"].into(),
            "ready" => READY.into(),
            "stale" => [&READY[..], &["tools changed"]].concat(),
            "again" => [&READY[..], &["tools changed", "a moment"]].concat(),
            "anew" => [&READY[..], &["tools changed", "a moment", "tools changed"]].concat(),
            "hung" => ["greeting", "answer", "ten seconds"].into(),
            "ended" => [&READY[..], &["process ends"]].concat(),
            "stopped" => [&READY[..], &["stop", "process ends"]].concat(),
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let told = bench.give(step);
            bench.way.push(told);
        }
        bench
    }

    fn give(&mut self, event: &str) -> String {
        let (rig, child, id) = (&mut self.rig, self.child, self.id.clone());
        let changed = |what: &str| json!({"jsonrpc": "2.0", "method": format!("notifications/{what}/list_changed")});
        let error = |code: i64| json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no"}});
        let both = json!({"tools": [{"name": "t", "inputSchema": {}}], "prompts": [{"name": "p"}]});
        match event {
            "greeting" => {
                let capabilities: Value = serde_json::from_str(CAPABILITIES).expect("JSON");
                let about = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities});
                rig.answer(child, &id, about);
            }
            "answer" => rig.answer(child, &id, both),
            "answer, and a moment" => {
                rig.answer(child, &id, both);
                rig.advance(limits::RELIST_DELAY);
            }
            "page" => {
                let mut page = both;
                page["nextCursor"] = json!("more");
                rig.answer(child, &id, page);
            }
            "no such method" => rig.say(child, &error(-32601)),
            "error" => rig.say(child, &error(-7)),
            "no list" => rig.answer(child, &id, json!({"tools": 7, "prompts": 7})),
            "too long" => {
                let prefix = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"#));
                let (suffix, length) = (Bytes::from_static(b"}}"), limits::MAX_MESSAGE as u64 + 1);
                rig.event(Event::LineTooLong { child, prefix, suffix, length });
            }
            "answer to nobody" => rig.answer(child, &json!(999_999), both),
            "tools changed" => rig.say(child, &changed("tools")),
            "prompts changed" => rig.say(child, &changed("prompts")),
            "resources changed" => rig.say(child, &changed("resources")),
            "a moment" => rig.advance(limits::RELIST_DELAY),
            "ten seconds" => rig.advance(limits::LIST_PATIENCE),
            "a minute" => rig.advance(limits::RELIST_TIMEOUT),
            "process ends" => rig.exited(child, 1, "boom"),
            "call" => rig.call(1, "a", r#"{"name":"t"}"#),
            "client lists" => rig.call_method(1, "a", "tools/list", "{}"),
            "tunnel closed" => rig.closed(CloseCode::Refused),
            "restart" => restart(rig),
            "relay restarts it" => {
                rig.tunnel(tunnel::Event::Restart { server: Some("a".to_string()) });
                rig.event(Event::ConfigRead(Err("the disk is away".to_string())));
            }
            "stop" => rig.event(Event::Stop),
            "what concerns others" => strangers(rig),
            other => panic!("no such event: {other}"),
        }
        self.said()
    }

    fn said(&mut self) -> String {
        let mut said: Vec<String> = Vec::new();
        for action in core::mem::take(&mut self.rig.actions) {
            match &action {
                Action::Write { bytes, .. } => {
                    let json: Value = serde_json::from_slice(bytes).expect("JSON");
                    if json.get("id").is_some() {
                        self.id = json["id"].clone();
                    }
                }
                Action::Spawn { child, .. } => self.child = *child,
                Action::Tunnel { command: Command::Catalog(json), .. } => {
                    let json: Value = serde_json::from_slice(json).expect("JSON");
                    let server = &json["servers"][0];
                    let count = |list: &str| server[list].as_array().map_or(0, Vec::len);
                    let told = &server["announced"];
                    let told = ["tools", "prompts", "resources"].map(|list| told[list].as_u64().unwrap_or(0));
                    let state = server["state"].as_str().unwrap_or("?");
                    said.push(format!("{state} {}+{} {told:?}", count("tools"), count("prompts")));
                }
                _ => {}
            }
            said.extend(short(&self.rig, &action));
        }
        if said.is_empty() { ".".to_string() } else { said.join(", ") }
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 11])] = &[
    // greeting, tools, second page, prompts, ready, stale, again, anew, hung, ended, stopped
    (
        "greeting",
        [
            "note initialized, tools/list",
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "ready 1+0 [0, 0, 0]",
            ".",
            ".",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0]",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "answer",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "prompts/list",
            "prompts/list",
            "ready 1+1 [0, 0, 0]",
            ".",
            ".",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0]",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "page",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "tools/list",
            "tools/list",
            "prompts/list",
            ".",
            ".",
            "tools/list",
            "tools/list",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "no such method",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "prompts/list",
            "prompts/list",
            "ready 1+0 [0, 0, 0]",
            ".",
            ".",
            "ready 0+1 [1, 0, 0]",
            "ready 0+1 [1, 0, 0]",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "error",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "ready 1+0 [0, 0, 0]",
            ".",
            ".",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0]",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "no list",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "ready 1+0 [0, 0, 0]",
            ".",
            ".",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0]",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "too long",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "ready 1+0 [0, 0, 0]",
            ".",
            ".",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0]",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "answer, and a moment",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "prompts/list",
            "prompts/list",
            "ready 1+1 [0, 0, 0]",
            ".",
            "tools/list",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0], tools/list",
            ".",
            ".",
            ".",
        ],
    ),
    ("answer to nobody", ["."; 11]),
    ("tools changed", ["."; 11]),
    ("prompts changed", ["."; 11]),
    ("resources changed", ["."; 11]),
    ("a moment", [".", ".", ".", ".", ".", "tools/list", ".", ".", ".", ".", "."]),
    (
        "ten seconds",
        [
            ".",
            ".",
            ".",
            "ready 1+0 [0, 0, 0]",
            ".",
            "tools/list",
            ".",
            ".",
            "prompts/list",
            "start, starting 1+1 [0, 0, 0]",
            ".",
        ],
    ),
    (
        "a minute",
        [
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "kill, restarting 0+0 [0, 0, 0]",
            "ready 1+0 [0, 0, 0], prompts/list",
            ".",
            "tools/list",
            "ready 1+1 [1, 0, 0]",
            "ready 1+1 [1, 0, 0]",
            "prompts/list",
            "start, starting 1+1 [0, 0, 0]",
            ".",
        ],
    ),
    (
        "process ends",
        [
            "restarting 0+0 [0, 0, 0]",
            "restarting 0+0 [0, 0, 0]",
            "restarting 0+0 [0, 0, 0]",
            "restarting 1+0 [0, 0, 0]",
            "restarting 1+1 [0, 0, 0]",
            "restarting 1+1 [0, 0, 0]",
            "restarting 1+1 [0, 0, 0]",
            "restarting 1+1 [0, 0, 0]",
            "restarting 1+0 [0, 0, 0]",
            ".",
            ".",
        ],
    ),
    ("call", [".", ".", ".", ".", "tools/call", "tools/call", "tools/call", "tools/call", "tools/call", ".", "."]),
    (
        "client lists",
        [".", ".", ".", ".", "tools/list", "tools/list", "tools/list", "tools/list", "tools/list", ".", "."],
    ),
    ("tunnel closed", ["."; 11]),
    (
        "restart",
        [
            "read the configuration, close input, starting 0+0 [0, 0, 0]",
            "read the configuration, close input, starting 0+0 [0, 0, 0]",
            "read the configuration, close input, starting 0+0 [0, 0, 0]",
            "read the configuration, close input, starting 1+0 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+0 [0, 0, 0]",
            "read the configuration, start, starting 1+1 [0, 0, 0]",
            ".",
        ],
    ),
    (
        "relay restarts it",
        [
            "read the configuration, close input, starting 0+0 [0, 0, 0]",
            "read the configuration, close input, starting 0+0 [0, 0, 0]",
            "read the configuration, close input, starting 0+0 [0, 0, 0]",
            "read the configuration, close input, starting 1+0 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+1 [0, 0, 0]",
            "read the configuration, close input, starting 1+0 [0, 0, 0]",
            "read the configuration, start, starting 1+1 [0, 0, 0]",
            ".",
        ],
    ),
    (
        "stop",
        [
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "close input, leaves, leaves",
            "leaves, leaves",
            ".",
        ],
    ),
    ("what concerns others", ["."; 11]),
];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: &[WHOLE] }.check(
        Bench::in_state,
        |bench| format!("{}; {}", bench.way.join(" | "), look(&mut bench.rig, "a")),
        |mut bench, event| bench.give(event),
    );
}
