//! The run that a session has of a server for itself (`isolation: "session"`): every event in every state.

use std::format;

use super::kit::{KINDS, WHOLE, look, restart, said, strangers};
use super::questions::isolated;
use super::*;
use crate::limits;
use crate::table::Table;

/// Of the run of session `one`, whose first call is stream 1. What the server itself is like, how many runs there are, and
/// what is on the books.
const STATES: [(&str, &str); 11] = [
    ("none", "; asleep"),
    ("ordered", "session-1 start, keep; asleep, 1 runs, 1 audit entries, 1 held calls, 1 routes, 1 streams"),
    (
        "greeted",
        "session-1 start, keep | session-1 initialize; asleep, 1 runs, 1 audit entries, 1 held calls, 1 routes, 1 streams",
    ),
    (
        "listing",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list; asleep, 1 runs, 1 audit entries, 1 held calls, 1 routes, 1 streams",
    ),
    (
        "working",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list | session-1 tools/call; asleep, 1 runs, 1 audit entries, 1 calls, 1 routes, 1 streams",
    ),
    (
        "done",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list | session-1 tools/call | answer 1; asleep, 1 runs",
    ),
    (
        "ending",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list | session-1 tools/call | answer 1 | session-1 close input; asleep",
    ),
    (
        "ended",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list | session-1 tools/call | error -32010 1; asleep",
    ),
    ("not started", "session-1 start, keep | error -32010 1; asleep"),
    (
        "session over",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list | session-1 tools/call | answer 1 | session-1 close input; asleep",
    ),
    (
        "tunnel lost",
        "session-1 start, keep | session-1 initialize | session-1 note initialized, session-1 tools/list | session-1 tools/call | session-1 note cancelled; asleep, 1 runs",
    ),
];

struct Bench {
    rig: Rig,
    /// The newest process of the session.
    child: ChildId,
    /// The id of what it was asked last.
    id: Value,
    /// What came out on the way to the state.
    way: Vec<String>,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut bench = Self { rig: isolated(), child: ChildId(98), id: json!(1_000_000), way: Vec::new() };
        let steps: &[&str] = match state {
            "none" => &[],
            "ordered" => &["call"],
            "greeted" => &["call", "spawned"],
            "listing" => &["call", "spawned", "answer"],
            "working" => &["call", "spawned", "answer", "answer"],
            "done" => &["call", "spawned", "answer", "answer", "answer"],
            "ending" => &["call", "spawned", "answer", "answer", "answer", "nobody calls"],
            "ended" => &["call", "spawned", "answer", "answer", "process ends"],
            "not started" => &["call", "process cannot be started"],
            "session over" => &["call", "spawned", "answer", "answer", "answer", "session over"],
            "tunnel lost" => &["call", "spawned", "answer", "answer", "tunnel closed"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let told = bench.give(step);
            bench.way.push(told);
        }
        bench
    }

    fn give(&mut self, event: &str) -> String {
        let (rig, child) = (&mut self.rig, self.child);
        match event {
            "call" => rig.call_in(1, "one"),
            "another call" => rig.call_in(2, "one"),
            "call of another session" => rig.call_in(3, "two"),
            "call without a session" => rig.call_in(4, ""),
            "spawned" => rig.event(Event::Spawned { child, pid: 100 }),
            "process cannot be started" => rig.event(Event::SpawnFailed { child, error: "gone".to_string() }),
            // To the handshake, the list or the call, whichever it was asked last.
            "answer" => {
                let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s"}, "tools": [{"name": "tool", "inputSchema": {}}]});
                rig.answer(child, &self.id, result);
            }
            "error" => {
                let error = json!({"code": -7, "message": "no"});
                rig.say(child, &json!({"jsonrpc": "2.0", "id": self.id, "error": error}));
            }
            "log" => rig.say(
                child,
                &json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}),
            ),
            "tools changed" => {
                rig.say(child, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
                rig.advance(limits::RELIST_DELAY);
            }
            "process ends" => rig.exited(child, 1, "boom"),
            "reset" => rig.reset(1),
            "session over" => rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() }),
            "another session over" => rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() }),
            "tunnel closed" => rig.closed(CloseCode::Refused),
            "nobody calls" => rig.advance(limits::SESSION_IDLE),
            "restart" => restart(rig),
            "relay restarts it" => {
                rig.tunnel(tunnel::Event::Restart { server: Some("a".to_string()) });
                rig.event(Event::ConfigRead(Err("the disk is away".to_string())));
            }
            "its server has no entry any more" => {
                rig.event(Event::Control { job: JobId(7), command: ControlCommand::Restart { server: None } });
                rig.event(Event::ConfigRead(Ok(config(&[]))));
            }
            "stop" => rig.event(Event::Stop),
            "what concerns others" => strangers(rig),
            other => panic!("no such event: {other}"),
        }
        for action in &rig.actions {
            match action {
                Action::Spawn { child, spawn } if spawn.log.ends_with("session-1") => self.child = *child,
                Action::Write { child, bytes } if *child == self.child => {
                    let json: Value = serde_json::from_slice(bytes).expect("JSON");
                    if json.get("id").is_some() && json.get("method").is_some() {
                        self.id = json["id"].clone();
                    }
                }
                _ => {}
            }
        }
        said(rig)
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 11])] = &[
    // none, ordered, greeted, listing, working, done, ending, ended, not started, session over, tunnel lost
    (
        "another call",
        [
            "session-1 start, keep",
            ".",
            ".",
            ".",
            "session-1 tools/call",
            "session-1 tools/call",
            "session-2 start",
            "session-1 start",
            "session-1 start",
            "session-2 start",
            ".",
        ],
    ),
    (
        "call of another session",
        [
            "session-1 start, keep",
            "session-2 start",
            "session-2 start",
            "session-2 start",
            "session-2 start",
            "session-2 start",
            "session-2 start, keep",
            "session-1 start",
            "session-1 start",
            "session-2 start",
            ".",
        ],
    ),
    (
        "call without a session",
        ["start", "start", "start", "start", "start", "start", "start", "start", "start", "start", "."],
    ),
    (
        "spawned",
        [
            ".",
            "session-1 initialize",
            ".",
            ".",
            ".",
            ".",
            "session-1 close input",
            ".",
            ".",
            "session-1 close input",
            ".",
        ],
    ),
    ("process cannot be started", [".", "error -32010 1", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    (
        "answer",
        [
            ".",
            ".",
            "session-1 note initialized, session-1 tools/list",
            "session-1 tools/call",
            "answer 1",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "error",
        [
            ".",
            ".",
            "session-1 kill, error -32010 1",
            "session-1 kill, error -32010 1",
            "error -7 1",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "log",
        [
            ".",
            ".",
            "tells one: message",
            "tells one: message",
            "says message 1",
            "tells one: message",
            ".",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    (
        "tools changed",
        [
            ".",
            ".",
            ".",
            ".",
            "session-1 tools/list",
            "session-1 tools/list",
            ".",
            ".",
            ".",
            ".",
            "session-1 tools/list",
        ],
    ),
    (
        "process ends",
        [".", "error -32010 1", "error -32010 1", "error -32010 1", "error -32010 1", ".", ".", ".", ".", ".", "."],
    ),
    ("reset", [".", ".", ".", ".", "session-1 note cancelled", ".", ".", ".", ".", ".", "."]),
    (
        "session over",
        [
            ".",
            "session-1 close input, error -32010 1",
            "session-1 close input, error -32010 1",
            "session-1 close input, error -32010 1",
            "session-1 close input, error -32010 1",
            "session-1 close input",
            "keep",
            ".",
            ".",
            ".",
            ".",
        ],
    ),
    ("another session over", ["."; 11]),
    ("tunnel closed", [".", ".", ".", ".", "session-1 note cancelled", ".", ".", ".", ".", ".", "."]),
    (
        "nobody calls",
        [
            ".",
            "session-1 kill, error -32010 1",
            "session-1 kill, error -32010 1",
            "session-1 kill, error -32010 1",
            ".",
            "session-1 close input",
            "session-1 end, session-1 kill",
            ".",
            ".",
            "keep, session-1 end, session-1 kill",
            "session-1 close input",
        ],
    ),
    (
        "restart",
        [
            "read the configuration, start",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start",
            "read the configuration, start",
            "read the configuration, start",
            "read the configuration, start",
            "read the configuration, start",
            "read the configuration, session-1 close input, start",
        ],
    ),
    (
        "relay restarts it",
        [
            "read the configuration, start",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start, error -32010 1",
            "read the configuration, session-1 close input, start",
            "read the configuration, start",
            "read the configuration, start",
            "read the configuration, start",
            "read the configuration, start",
            ".",
        ],
    ),
    (
        "its server has no entry any more",
        [
            "read the configuration",
            "read the configuration, session-1 close input, error -32010 1",
            "read the configuration, session-1 close input, error -32010 1",
            "read the configuration, session-1 close input, error -32010 1",
            "read the configuration, session-1 close input, error -32010 1",
            "read the configuration, session-1 close input",
            "read the configuration, keep",
            "read the configuration",
            "read the configuration",
            "read the configuration",
            "read the configuration, session-1 close input",
        ],
    ),
    (
        "stop",
        [
            "leaves ×2",
            "session-1 close input, leaves ×2, error -32010 1",
            "session-1 close input, leaves ×2, error -32010 1",
            "session-1 close input, leaves ×2, error -32010 1",
            "session-1 close input, leaves ×2, error -32010 1",
            "session-1 close input, leaves ×2",
            "leaves ×2",
            "leaves ×2",
            "leaves ×2",
            "leaves ×2",
            "session-1 close input",
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
