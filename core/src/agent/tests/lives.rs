//! The lives of servers, as their agent leads them.

use super::*;
use crate::agent::Veil;
use crate::limits;
use crate::mcp::catalog::State;

fn restart(rig: &mut Rig, server: Option<&str>) {
    let command = ControlCommand::Restart { server: server.map(ToString::to_string) };
    rig.event(Event::Control { job: JobId(1), command });
    assert!(rig.take(|action| matches!(action, Action::ReadConfig).then_some(())).is_some());
}

fn restarted(rig: &mut Rig) -> status::Restarted {
    serde_json::from_slice(&rig.reply()).unwrap()
}

fn stdin_closed(rig: &mut Rig) -> Vec<ChildId> {
    rig.take_all(|action| match action {
        Action::CloseStdin { child } => Some(*child),
        _ => None,
    })
}

fn killed(rig: &mut Rig) -> Vec<(ChildId, bool)> {
    rig.take_all(|action| match action {
        Action::Kill { child, force } => Some((*child, *force)),
        _ => None,
    })
}

#[test]
fn servers_start_side_by_side_with_a_minted_token() {
    let mut rig = Rig::started(&["a", "b"]);
    assert!(rig.spawned("a").is_some() && rig.spawned("b").is_some() && rig.dialled().is_some());
}

#[test]
fn handshake_offers_the_latest_legacy_version_and_lists_to_the_last_page() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    assert!(rig.written(child).is_empty(), "nothing is written before it runs");
    rig.event(Event::Spawned { child, pid: 4711 });
    let initialize = rig.written(child).remove(0);
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": initialize["params"]["capabilities"],
        "clientInfo": {"name": "mcp-local-tunnel", "version": "2.0.0"},
    });
    assert_eq!((&initialize["method"], &initialize["params"]), (&json!("initialize"), &params));
    let about = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "instructions": "be kind"});
    rig.answer(child, &initialize["id"], about);
    let written = rig.written(child);
    assert_eq!(written[0], json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert_eq!(written[1]["method"], "tools/list");
    rig.answer(child, &written[1]["id"], json!({"tools": [{"name": "x"}], "nextCursor": ""}));
    let second = rig.written(child).remove(0);
    assert_eq!(second["params"], json!({"cursor": ""}), "an empty cursor is a cursor");
    assert_eq!(rig.server_status("a").state, State::Probing);
    rig.answer(child, &second["id"], json!({"tools": [{"name": "y"}, {"noname": 1}], "nextCursor": null}));
    let status = rig.server_status("a");
    assert_eq!((status.state, status.tools, status.pid), (State::Ready, 2, Some(4711)));
}

#[test]
fn pages_without_end_are_cut_off() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.greet(child);
    let mut pages = 0;
    while let Some(list) = rig.written(child).pop() {
        rig.answer(child, &list["id"], json!({"tools": [], "nextCursor": "again"}));
        pages += 1;
    }
    assert_eq!((pages, rig.server_status("a").state), (limits::MAX_PAGES, State::Ready));
}

#[test]
fn server_that_does_not_know_tools_list_is_ready_without_tools() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.greet(child);
    let list = rig.written(child).pop().unwrap();
    rig.say(child, &json!({"jsonrpc": "2.0", "id": list["id"], "error": {"code": -32601, "message": "no"}}));
    let status = rig.server_status("a");
    assert_eq!((status.state, status.tools), (State::Ready, 0));
}

#[test]
fn version_that_is_not_spoken_is_the_reason() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    let initialize = rig.written(child).remove(0);
    rig.answer(child, &initialize["id"], json!({"protocolVersion": "2031-01-01"}));
    let status = rig.server_status("a");
    assert_eq!(status.state, State::Restarting);
    assert!(status.reason.unwrap().contains("2031-01-01"));
    assert_eq!(killed(&mut rig), [(child, true)]);
}

#[test]
fn refused_handshake_is_the_reason() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    let id = &rig.written(child).remove(0)["id"];
    rig.say(child, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": "no licence"}}));
    assert!(rig.server_status("a").reason.unwrap().contains("\"no licence\" (-32000)"));
}

#[test]
fn garbage_on_stdout_is_ignored_and_quoted_when_the_server_ends() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.bring_up("a", &["x"]);
    for _ in 0..3 {
        rig.event(Event::Line { child, line: Bytes::from_static(b"Debugger attached.") });
    }
    assert_eq!(rig.server_status("a").state, State::Ready);
    rig.exited(child, 1, "");
    let reason = rig.server_status("a").reason.unwrap();
    assert!(reason.contains("3 lines") && reason.contains("Debugger attached."), "{reason}");
}

#[test]
fn server_that_floods_its_stdout_is_stopped_with_the_reason_and_tried_rarely() {
    for ready in [false, true] {
        let mut rig = Rig::started(&["a"]);
        let child = if ready {
            rig.bring_up("a", &["x"])
        } else {
            let child = rig.spawned("a").unwrap();
            rig.event(Event::Spawned { child, pid: 1 });
            child
        };
        rig.connect(Dialect::V2);
        for line in 0..=limits::MAX_NOISE_LINES {
            assert_eq!(killed(&mut rig), [], "{line}");
            rig.event(Event::Line { child, line: Bytes::from_static(b"y") });
        }
        assert_eq!(killed(&mut rig), [(child, true)]);
        let status = rig.server_status("a");
        assert_eq!(status.state, State::Failed);
        let reason = status.reason.unwrap();
        assert!(reason.contains("floods its stdout") && reason.contains("\"y\""), "{reason}");
        rig.event(Event::Line { child, line: Bytes::from_static(b"y") });
        rig.event(Event::Exited { child, code: None, signal: Some(9), stderr: String::new() });
        rig.call(1, "a", "{}");
        assert!(rig.answers()[0].2.contains("floods its stdout"));
        rig.advance(limits::FAILED_RETRY - Duration::from_secs(1));
        assert_eq!(rig.spawned("a"), None);
        rig.advance(Duration::from_secs(1));
        assert!(rig.spawned("a").is_some());
    }
}

#[test]
fn line_without_an_end_stops_its_server() {
    let mut rig = Rig::ready(&["a"]);
    let child = ChildId(1);
    let (prefix, suffix) = (Bytes::from_static(b"\0\0"), Bytes::from_static(b"\0"));
    rig.event(Event::LineTooLong { child, prefix, suffix, length: limits::MAX_LINE_SKIPPED });
    assert_eq!((killed(&mut rig), rig.server_status("a").state), (Vec::from([(child, true)]), State::Failed));
}

#[test]
fn exit_at_the_start_shows_code_and_last_words_and_is_tried_again() {
    let mut rig = Rig::started(&["a", "b"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.exited(child, 3, "warming up\n\nError: GITHUB_TOKEN is not set\n");
    let status = rig.server_status("a");
    assert_eq!(status.state, State::Restarting);
    let reason = status.reason.unwrap();
    assert!(reason.contains("code 3") && reason.contains("GITHUB_TOKEN is not set"), "{reason}");
    rig.advance(limits::RESTART_FIRST);
    assert!(rig.spawned("a").is_some());
    rig.bring_up("b", &["x"]);
    assert_eq!(rig.server_status("b").state, State::Ready, "another server has nothing to do with it");
}

#[test]
fn crash_loop_slows_down_and_ends_as_failed() {
    let mut rig = Rig::started(&["a"]);
    for _ in 0..limits::MAX_QUICK_FAILURES {
        let child = rig.spawned("a").unwrap();
        rig.exited(child, 1, "");
        assert_eq!(rig.server_status("a").state, State::Restarting);
        rig.advance(limits::RESTART_MAX);
    }
    let child = rig.spawned("a").unwrap();
    rig.exited(child, 1, "");
    let status = rig.server_status("a");
    assert_eq!((status.state, status.restarts), (State::Failed, limits::MAX_QUICK_FAILURES));
    assert!(status.reason.is_some());
    rig.advance(limits::FAILED_RETRY - Duration::from_millis(1));
    assert_eq!(rig.spawned("a"), None);
    rig.advance(Duration::from_millis(1));
    assert!(rig.spawned("a").is_some());
}

#[test]
fn server_that_ran_for_long_is_not_in_a_crash_loop() {
    let mut rig = Rig::started(&["a"]);
    for _ in 0..limits::MAX_QUICK_FAILURES * 2 {
        let child = rig.bring_up("a", &["x"]);
        rig.advance(limits::RESTART_STABLE);
        rig.exited(child, 1, "");
        assert_eq!(rig.server_status("a").state, State::Restarting);
        rig.advance(limits::RESTART_FIRST);
    }
}

#[test]
fn hanging_initialize_is_killed_and_tried_again() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.advance(Duration::from_secs(59));
    assert!(killed(&mut rig).is_empty());
    rig.advance(Duration::from_secs(1));
    assert_eq!(killed(&mut rig), [(child, true)]);
    assert!(rig.server_status("a").reason.unwrap().contains("within 60 s"));
    rig.advance(limits::RESTART_FIRST);
    assert!(rig.spawned("a").is_some());
    rig.exited(child, 9, "");
    assert_eq!(rig.server_status("a").state, State::Starting, "the old process's end is not the new one's");
}

#[test]
fn missing_program_fails_with_what_mends_it() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::SpawnFailed { child, error: "No such file or directory (os error 2)".to_string() });
    let status = rig.server_status("a");
    assert_eq!(status.state, State::Failed);
    assert!(status.reason.unwrap().contains("Install it"));
    rig.advance(limits::FAILED_RETRY);
    assert!(rig.spawned("a").is_some(), "somebody may have installed it");
}

#[test]
fn stdout_that_ends_is_the_end_of_the_server() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.bring_up("a", &["x"]);
    rig.event(Event::OutputEnded { child });
    assert!(killed(&mut rig).is_empty(), "its exit, which says more, may be under way");
    rig.advance(limits::EXIT_AFTER_OUTPUT);
    assert_eq!(killed(&mut rig), [(child, true)]);
    assert!(rig.server_status("a").reason.unwrap().contains("closed its stdout"));
}

#[test]
fn changed_tools_are_listed_again_once() {
    let mut rig = Rig::ready(&["a"]);
    let child = ChildId(1);
    for _ in 0..10 {
        rig.say(child, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    }
    rig.advance(limits::RELIST_DELAY);
    let lists = rig.written(child);
    assert_eq!(lists.len(), 1);
    rig.say(child, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    rig.answer(child, &lists[0]["id"], json!({"tools": [{"name": "new", "vendor": 1.50}]}));
    let update = rig.catalogs().remove(0);
    assert_eq!(update["whole"], false);
    assert_eq!(update["servers"][0]["tools"], json!([{"name": "new", "vendor": 1.50}]));
    rig.advance(limits::RELIST_DELAY);
    assert_eq!(rig.written(child).len(), 1, "they changed while they were listed");
}

#[test]
fn list_that_does_not_come_leaves_the_old_tools() {
    let mut rig = Rig::ready(&["a"]);
    let child = ChildId(1);
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    rig.say(child, &changed);
    rig.advance(limits::RELIST_DELAY + limits::RELIST_TIMEOUT);
    assert_eq!(rig.server_status("a").tools, 1);
    rig.written(child);
    rig.say(child, &changed);
    rig.advance(limits::RELIST_DELAY);
    assert_eq!(rig.written(child).len(), 1, "it is asked again when it says so");
}

#[test]
fn tools_stay_listed_over_a_short_restart_and_go_when_it_failed() {
    let mut rig = Rig::ready(&["a"]);
    rig.exited(ChildId(1), 1, "");
    let update = rig.catalogs().pop().unwrap();
    assert_eq!(update["servers"][0]["state"], "restarting");
    assert_eq!(update["servers"][0]["tools"].as_array().unwrap().len(), 1);
    for _ in 0..limits::MAX_QUICK_FAILURES {
        rig.advance(limits::RESTART_MAX);
        let child = rig.spawned("a").unwrap();
        rig.exited(child, 1, "");
    }
    let update = rig.catalogs().pop().unwrap();
    assert_eq!((&update["servers"][0]["state"], &update["servers"][0]["tools"]), (&json!("failed"), &json!([])));
}

#[test]
fn oversized_tools_are_left_out() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.greet(child);
    let list = rig.written(child).pop().unwrap();
    let fat = "x".repeat(limits::MAX_TOOL);
    rig.answer(child, &list["id"], json!({"tools": [{"name": "fat", "description": fat}, {"name": "slim"}]}));
    assert_eq!(rig.server_status("a").tools, 1);
}

#[test]
fn stop_closes_stdin_then_terms_then_kills_then_exits() {
    let mut rig = Rig::ready(&["a"]);
    let child = ChildId(1);
    rig.event(Event::Stop);
    assert_eq!(stdin_closed(&mut rig), [child]);
    let commands = rig.commands();
    assert!(
        matches!(&commands[..], [.., Command::GoAway, Command::Close(close)] if close.code == CloseCode::GoingAway)
    );
    rig.closed(CloseCode::GoingAway);
    rig.advance(limits::STOP_GRACE);
    assert_eq!(killed(&mut rig), [(child, false)]);
    rig.advance(limits::STOP_GRACE);
    assert_eq!(killed(&mut rig), [(child, true)]);
    assert_eq!(rig.exit(), None);
    rig.exited(child, 0, "");
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}

#[test]
fn stop_is_over_when_servers_end_by_themselves() {
    let mut rig = Rig::ready(&["a", "b"]);
    rig.event(Event::Stop);
    rig.exited(ChildId(1), 0, "");
    rig.exited(ChildId(2), 0, "");
    assert_eq!(rig.exit(), None, "the tunnel is not closed yet");
    rig.closed(CloseCode::GoingAway);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
    assert!(rig.agent.poll_timeout().is_none());
}

#[test]
fn second_stop_kills_at_once_and_a_stop_is_never_waited_for_without_end() {
    let mut rig = Rig::ready(&["a"]);
    rig.event(Event::Stop);
    rig.event(Event::Stop);
    assert_eq!(killed(&mut rig), [(ChildId(1), true)]);
    rig.advance(limits::STOP_TIMEOUT);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}

#[test]
fn process_that_comes_up_while_it_is_stopped_is_told() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Stop);
    stdin_closed(&mut rig);
    rig.event(Event::Spawned { child, pid: 1 });
    assert_eq!(stdin_closed(&mut rig), [child]);
}

#[test]
fn restart_of_one_server_leaves_the_others_alone() {
    let mut rig = Rig::ready(&["a", "b"]);
    restart(&mut rig, Some("a"));
    rig.event(Event::ConfigRead(Ok(config(&["a", "b"]))));
    assert_eq!(restarted(&mut rig), status::Restarted { servers: ["a".to_string()].into(), error: None });
    assert_eq!(stdin_closed(&mut rig), [ChildId(1)]);
    assert_eq!(rig.spawned("a"), None, "not before the old one has ended");
    rig.exited(ChildId(1), 0, "");
    rig.bring_up("a", &["x"]);
    let status = rig.server_status("a");
    assert_eq!((status.state, status.restarts), (State::Ready, 0), "it did not end unexpectedly");
}

#[test]
fn restart_of_all_applies_what_changed_in_the_configuration() {
    let mut rig = Rig::ready(&["gone", "kept", "other"]);
    restart(&mut rig, None);
    let mut new = config(&["kept", "new", "other"]);
    new.servers.insert("other".to_string(), stdio("changed"));
    rig.event(Event::ConfigRead(Ok(new)));
    assert_eq!(restarted(&mut rig).servers, ["gone", "new", "other", "kept"]);
    assert_eq!(stdin_closed(&mut rig).len(), 3);
    assert!(rig.spawned("new").is_some());
    assert_eq!(rig.catalogs().pop().unwrap()["removed"], json!(["gone"]));
    rig.exited(ChildId(3), 0, "");
    let command = rig.take(|action| match action {
        Action::Spawn { spawn, .. } => Some(spawn.command.clone()),
        _ => None,
    });
    assert_eq!(command, Some(["changed".to_string()].into()));
    let names: Vec<String> = rig.status().servers.into_iter().map(|server| server.name).collect();
    assert_eq!(names, ["kept", "new", "other"]);
}

#[test]
fn unchanged_entries_are_left_alone_when_another_is_restarted() {
    let mut rig = Rig::ready(&["a", "b"]);
    restart(&mut rig, Some("new"));
    rig.event(Event::ConfigRead(Ok(config(&["a", "b", "new"]))));
    assert_eq!(restarted(&mut rig), status::Restarted { servers: ["new".to_string()].into(), error: None });
    assert!(stdin_closed(&mut rig).is_empty());
}

#[test]
fn unreadable_configuration_keeps_the_old_entries_and_says_why() {
    let mut rig = Rig::ready(&["a"]);
    restart(&mut rig, None);
    rig.event(Event::ConfigRead(Err("line 3: expected a comma".to_string())));
    let answer = restarted(&mut rig);
    assert_eq!(answer.servers, ["a"]);
    assert!(answer.error.unwrap().contains("expected a comma"));
    assert_eq!(stdin_closed(&mut rig), [ChildId(1)]);
}

#[test]
fn restart_of_a_stranger_names_those_that_there_are() {
    let mut rig = Rig::ready(&["a", "b"]);
    restart(&mut rig, Some("c\u{202e}"));
    rig.event(Event::ConfigRead(Ok(config(&["a", "b"]))));
    assert_eq!(restarted(&mut rig).error.unwrap(), "no server is named \"c\"; there are: a, b");
}

#[test]
fn restart_brings_a_failed_server_back_at_once() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::SpawnFailed { child, error: "not found".to_string() });
    restart_over_tunnel(&mut rig);
    assert!(rig.spawned("a").is_some());
}

fn restart_over_tunnel(rig: &mut Rig) {
    rig.connect(Dialect::V2);
    rig.tunnel(tunnel::Event::Restart { server: Some("a".to_string()) });
    rig.event(Event::ConfigRead(Ok(config(&["a"]))));
}

#[test]
fn same_inputs_give_the_same_actions() {
    let run = || {
        let mut rig = Rig::ready(&["a", "b"]);
        rig.call(1, "a", "{}");
        rig.exited(ChildId(2), 1, "x");
        rig.closed(CloseCode::TimedOut);
        rig.advance(Duration::from_secs(100));
        std::format!("{:?}", rig.actions)
    };
    assert_eq!(run(), run());
}

#[test]
fn relay_is_told_that_a_configuration_is_not_in_use_and_when_it_is() {
    let mut rig = Rig::ready(&["a"]);
    rig.catalogs();
    for (read, expected) in [
        (Err("line 3:\n".to_string() + &"x".repeat(limits::MAX_REASON)), Some("could not be read")),
        (Ok(config(&["a"])), None),
        (Ok(AgentConfig { name: Some("other".into()), ..config(&["a"]) }), Some("start the agent again")),
        (Ok(config(&["a"])), None),
    ] {
        rig.tunnel(tunnel::Event::Restart { server: Some("nothing".to_string()) });
        rig.event(Event::ConfigRead(read));
        let catalogs = rig.catalogs();
        let [update] = catalogs.as_slice() else { panic!("one change: {catalogs:?}") };
        let remark = update["remark"].as_str();
        assert_eq!(remark.map(|text| text.contains(expected.unwrap_or("?"))), expected.map(|_| true), "{remark:?}");
        assert!(remark.is_none_or(|text| text.len() <= limits::MAX_REASON));
        assert_eq!(rig.status().remark.as_deref(), remark);
        assert_eq!(update["servers"], json!([]));
    }
}

/// An entry whose environment and whose process are what the test says.
fn server_with_env(env: &[(&str, &str)]) -> (Rig, ChildId) {
    let mut config = config(&["a"]);
    let server = config.servers.get_mut("a").unwrap();
    let Transport::Stdio { env: own, .. } = &mut server.transport else { panic!("a process") };
    own.extend(env.iter().map(|(name, value)| (name.to_string(), Secret::new(*value))));
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    let child = rig.spawned("a").unwrap();
    (rig, child)
}

#[test]
fn value_of_the_environment_is_in_no_reason() {
    for said_in in ["stderr", "stdout", "error", "last words"] {
        let (mut rig, child) = server_with_env(&[("LITERAL", "literal-key"), ("LOOKED_UP", "env:REAL")]);
        let found = [("LITERAL", "literal-key"), ("LOOKED_UP", "looked-up-key")];
        let veil = Veil::of_environment(found.map(|(name, value)| (name.to_string(), Secret::new(value))));
        rig.event(Event::Veiled { child, veil });
        rig.event(Event::Spawned { child, pid: 1 });
        let said = "bad key looked-up-key of literal-key";
        match said_in {
            "stderr" => rig.exited(child, 1, said),
            "stdout" => {
                // The quote is cut in the midst of the value.
                let line = std::format!("{}looked-up-key", "x".repeat(limits::MAX_QUOTE - 10));
                rig.event(Event::Line { child, line: Bytes::from(line) });
                rig.exited(child, 1, said);
            }
            "error" => {
                let id = rig.written(child).remove(0)["id"].clone();
                rig.say(child, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": said}}));
            }
            _ => {
                rig.advance(Duration::from_secs(60));
                rig.exited(child, 1, said);
            }
        }
        let status = std::format!("{:?}", rig.server_status("a"));
        assert!(!status.contains("up-key") && !status.contains("looked-up") && !status.contains("literal"), "{status}");
        assert!(status.contains("[env LOOKED_UP]"), "{said_in}: {status}");
    }
}

#[test]
fn value_that_stands_in_the_entry_is_hidden_whoever_runs_it() {
    let (mut rig, child) = server_with_env(&[("LITERAL", "literal-key")]);
    rig.event(Event::Spawned { child, pid: 1 });
    rig.exited(child, 1, "teral-key, and again literal-key");
    let reason = rig.server_status("a").reason.unwrap();
    assert_eq!(reason, "it ended with code 1: [env LITERAL], and again [env LITERAL]");
}
