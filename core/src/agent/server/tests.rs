//! Every input in every state of a server.

use core::fmt::Write as _;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, write};

use bytes::Bytes;

use super::*;
use crate::agent::contract::Action;
use crate::agent::tests::{cx, stdio};
use crate::config::ServerConfig;

/// A server with a process, in a world of its own.
struct Bench {
    server: Server,
    cx: Cx,
    child: ChildId,
}

impl Bench {
    fn new() -> Self {
        let mut cx = cx();
        let server = Server::new(Slot(1), "s".to_string(), stdio("s"), cx.now.instant);
        cx.reports.clear();
        Self { server, cx, child: ChildId(0) }
    }

    /// Learns the number of the process that was ordered last.
    fn learn(&mut self) {
        while let Some(action) = self.cx.out.pop() {
            if let Action::Spawn { child, .. } = action {
                self.child = child;
            }
        }
    }

    fn input(&mut self, input: &str) {
        let Self { server, cx, child } = self;
        let child = *child;
        let line = |json: String| Bytes::from(json);
        match input {
            "start" => server.start(cx),
            "lazy" => server.config.life.lazy = true,
            "known" => {
                let kept = format!(r#"{{"entry":"{}","about":{{}}}}"#, server.fingerprint());
                server.recalled(Some(&line(kept)), cx);
            }
            "unknown" => server.recalled(None, cx),
            "restart" => server.restart(None, cx),
            "change" => server.restart(Some(ServerConfig { start_timeout_secs: 1, ..stdio("t") }), cx),
            "stop" => server.stop(cx),
            "kill" => server.kill(cx),
            "spawned" => server.spawned(child, 1, cx),
            "no spawn" => server.spawn_failed(child, "not found", cx),
            "exit" => server.exited(child, Some(1), None, "", cx),
            "old exit" => server.exited(ChildId(99), Some(1), None, "", cx),
            "answer" => {
                // To whatever is asked: a greeting and an empty list in one.
                let id = server.asked.as_ref().and_then(Asked::request).map_or(0, |request| request.0);
                let json =
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2025-11-25","tools":[]}}}}"#);
                server.line(child, &line(json), cx);
            }
            "error" => {
                let id = server.asked.as_ref().and_then(Asked::request).map_or(0, |request| request.0);
                let json = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"no"}}}}"#);
                server.line(child, &line(json), cx);
            }
            "noise" => server.line(child, &line("noise".to_string()), cx),
            "long line" => server.line_too_long(child, b"", b"", 1, cx),
            "wrote" => server.wrote(child, 1),
            "eof" => server.output_ended(child, cx),
            "t start" => server.handle_timeout(Timer::Start, cx),
            "t restart" => server.handle_timeout(Timer::Restart, cx),
            "t stop" => server.handle_timeout(Timer::Stop, cx),
            "t relist" => server.handle_timeout(Timer::Relist, cx),
            "t listen" => server.handle_timeout(Timer::Listen, cx),
            "t idle" => server.handle_timeout(Timer::Idle, cx),
            "t call" => server.handle_timeout(Timer::Call(RequestId(500)), cx),
            "t resume" => server.handle_timeout(Timer::Resume(RequestId(1)), cx),
            other => panic!("no such input: {other}"),
        }
        self.learn();
    }

    fn state(&self) -> &'static str {
        match self.server.state {
            State::Idle => "idle",
            State::Recalling => "recalling",
            State::Asleep => "asleep",
            State::Starting => "starting",
            State::Probing => "probing",
            State::Ready => "ready",
            State::Restarting => "restarting",
            State::Failed => "failed",
            State::Stopping(_, Then::Start) => "again",
            State::Stopping(_, Then::Sleep) => "dozing",
            State::Stopping(_, Then::Nothing) => "stopping",
            State::Stopped => "stopped",
        }
    }
}

/// The ways into every state.
const WAYS: [(&str, &[&str]); 12] = [
    ("idle", &[]),
    ("starting", &["start"]),
    ("probing", &["start", "spawned"]),
    ("ready", &["start", "spawned", "answer", "answer"]),
    ("restarting", &["start", "exit"]),
    ("failed", &["start", "no spawn"]),
    ("again", &["start", "spawned", "restart"]),
    ("stopping", &["start", "spawned", "stop"]),
    ("stopped", &["start", "spawned", "stop", "exit"]),
    ("recalling", &["lazy", "start"]),
    ("asleep", &["lazy", "start", "known"]),
    ("dozing", &["lazy", "start", "unknown", "spawned", "answer", "answer"]),
];

/// What follows each input, in the order of [`WAYS`]; `.`: the state stays.
const TABLE: [(&str, [&str; 12]); 25] = [
    //             idle, starting, probing, ready, restarting, failed, again, stopping, stopped, recalling, asleep, dozing
    ("start", ["starting", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("restart", [".", "again", "again", "again", "starting", "starting", ".", "again", ".", ".", "starting", "again"]),
    ("change", [".", "again", "again", "again", "starting", "starting", ".", "again", ".", ".", "starting", "again"]),
    (
        "stop",
        [
            "stopped", "stopping", "stopping", "stopping", "stopped", "stopped", "stopping", ".", ".", "stopped",
            "stopped", "stopping",
        ],
    ),
    (
        "kill",
        [
            "stopped", "stopping", "stopping", "stopping", "stopped", "stopped", "stopping", ".", ".", "stopped",
            "stopped", "stopping",
        ],
    ),
    ("spawned", [".", "probing", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("no spawn", [".", "failed", ".", ".", ".", ".", "starting", "stopped", ".", ".", ".", "asleep"]),
    ("exit", [".", "restarting", "restarting", "restarting", ".", ".", "starting", "stopped", ".", ".", ".", "asleep"]),
    ("old exit", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("answer", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("error", [".", ".", "restarting", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("noise", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("long line", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("wrote", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("eof", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("t start", [".", "restarting", "restarting", "restarting", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("t restart", [".", ".", ".", ".", "starting", "starting", ".", ".", ".", ".", ".", "."]),
    ("t stop", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("t relist", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("t listen", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("t resume", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("known", [".", ".", ".", ".", ".", ".", ".", ".", ".", "asleep", ".", "."]),
    ("unknown", [".", ".", ".", ".", ".", ".", ".", ".", ".", "starting", ".", "."]),
    ("t idle", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("t call", [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
];

#[test]
fn every_input_in_every_state() {
    let mut wrong = String::new();
    for (input, results) in TABLE {
        for ((state, way), result) in WAYS.iter().zip(results) {
            let mut bench = Bench::new();
            way.iter().for_each(|step| bench.input(step));
            assert_eq!(bench.state(), *state, "the way into it");
            bench.input(input);
            let expected = if result == "." { *state } else { result };
            if bench.state() != expected {
                write!(wrong, "\n{state} + {input}: {} instead of {expected}", bench.state()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn any_two_inputs_leave_a_call_with_exactly_one_answer_or_under_way() {
    for (first, _) in TABLE {
        for (second, _) in TABLE {
            for (state, way) in WAYS {
                let mut bench = Bench::new();
                way.iter().for_each(|step| bench.input(step));
                bench.cx.reports.clear();
                bench.server.call(RequestId(500), Caller::default(), "tools/call".into(), Bytes::new(), &mut bench.cx);
                bench.input(first);
                bench.input(second);
                let answers = bench.cx.reports.iter().filter(|report| matches!(report, Report::Answer { .. })).count();
                let held = bench.server.held.iter().filter(|held| held.request == RequestId(500)).count();
                let open = usize::from(bench.server.calls.contains_key(&RequestId(500)));
                assert_eq!(answers + held + open, 1, "{state} + {first} + {second}");
                let over = matches!(bench.server.state, State::Failed | State::Stopped | State::Asleep);
                assert!(!over || answers == 1, "{state} + {first} + {second}: nobody works on it");
            }
        }
    }
}

#[test]
fn no_process_is_forgotten_before_its_end_is_told() {
    let mut bench = Bench::new();
    ["start", "spawned", "t start"].iter().for_each(|step| bench.input(step));
    let first = bench.child;
    bench.input("t restart");
    assert_ne!(bench.child, first);
    bench.input("spawned");
    ["stop", "exit"].iter().for_each(|step| bench.input(step));
    assert_eq!(bench.state(), "stopped");
    assert!(!bench.server.is_gone(), "the first process was killed, and has not ended yet");
    bench.server.exited(first, None, Some(9), "", &mut bench.cx);
    assert!(bench.server.is_gone());
}

#[test]
fn killed_process_that_comes_up_late_is_killed_again() {
    let mut bench = Bench::new();
    ["start", "t start"].iter().for_each(|step| bench.input(step));
    let child = bench.child;
    bench.server.spawned(child, 1, &mut bench.cx);
    let kills: Vec<Action> = core::iter::from_fn(|| bench.cx.out.pop()).collect();
    assert!(matches!(kills[..], [Action::Kill { force: true, .. }]));
}
