//! Servers that need not run, that end by themselves, and that each session has for itself.

use super::*;
use crate::config::{Isolation, Life, RestartPolicy};
use crate::limits;
use crate::mcp::catalog::State;
use crate::mcp::code;

fn started(life: Life) -> Rig {
    let mut config = config(&["a"]);
    config
        .servers
        .insert("a".to_string(), ServerConfig { life: Life { era: EraChoice::Legacy, ..life }, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig
}

fn lazy() -> Life {
    Life { lazy: true, ..Life::default() }
}

fn recalled(rig: &mut Rig, catalog: Option<Bytes>) {
    let server = rig.take(|action| match action {
        Action::Recall { server } => Some(server.clone()),
        _ => None,
    });
    assert_eq!(server.as_deref(), Some("a"));
    rig.event(Event::Recalled { server: "a".to_string(), catalog });
}

fn kept(rig: &mut Rig) -> Vec<Bytes> {
    rig.take_all(|action| match action {
        Action::Keep { catalog, .. } => Some(catalog.clone()),
        _ => None,
    })
}

fn stdin_closed(rig: &mut Rig) -> Option<ChildId> {
    rig.take(|action| match action {
        Action::CloseStdin { child } => Some(*child),
        _ => None,
    })
}

/// A lazy server that was learned in an earlier life of the agent, asleep, with the tunnel up.
fn asleep(life: Life) -> Rig {
    let mut rig = started(life.clone());
    recalled(&mut rig, None);
    rig.bring_up("a", &["tool"]);
    let catalog = kept(&mut rig).pop().expect("it was learned");
    let mut rig = started(life);
    recalled(&mut rig, Some(catalog));
    rig.connect(Dialect::V2);
    rig
}

fn call_in(rig: &mut Rig, stream: u32, session: &str) {
    let head = OpenHead {
        server: "a".into(),
        method: "tools/call".into(),
        session: session.into(),
        length: 2,
        ..OpenHead::default()
    };
    rig.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params: Bytes::from_static(b"{}") });
}

#[test]
fn lazy_server_that_nobody_knows_is_started_once_to_learn_it() {
    let mut rig = started(lazy());
    assert_eq!(rig.spawned("a"), None, "it may be known from before");
    recalled(&mut rig, None);
    let child = rig.bring_up("a", &["tool"]);
    assert_eq!(kept(&mut rig).len(), 1);
    assert_eq!(stdin_closed(&mut rig), Some(child));
    rig.exited(child, 0, "");
    let status = rig.server_status("a");
    assert_eq!((status.state, status.tools, status.restarts), (State::Asleep, 1, 0));
    rig.advance(Duration::from_secs(3600));
    assert_eq!(rig.spawned("a"), None);
}

#[test]
fn lazy_server_that_is_known_is_listed_and_started_by_its_first_call() {
    let mut rig = asleep(lazy());
    let catalog = rig.catalogs().pop().unwrap();
    assert_eq!(
        (&catalog["servers"][0]["state"], catalog["servers"][0]["tools"].as_array().unwrap().len()),
        (&json!("asleep"), 1)
    );
    assert_eq!(rig.spawned("a"), None);
    rig.call(1, "a", "{\"x\":1}");
    let child = rig.bring_up("a", &["tool"]);
    assert_eq!(rig.written(child)[0]["params"], json!({"x": 1}));
    assert!(kept(&mut rig).is_empty(), "nothing new was learned");
    assert_eq!(stdin_closed(&mut rig), None, "it is used");
}

#[test]
fn what_was_kept_of_another_program_is_not_believed() {
    let mut rig = started(lazy());
    recalled(&mut rig, None);
    rig.bring_up("a", &["tool"]);
    let catalog = kept(&mut rig).pop().unwrap();
    let mut config = config(&["a"]);
    config
        .servers
        .insert("a".to_string(), ServerConfig { life: Life { era: EraChoice::Legacy, ..lazy() }, ..stdio("another") });
    for kept in [catalog, Bytes::from_static(b"nonsense")] {
        let mut rig = Rig::new(config.clone(), Some("minted"));
        rig.event(Event::Start { person: Person::Absent });
        recalled(&mut rig, Some(kept));
        assert!(rig.spawned("a").is_some());
    }
}

#[test]
fn changed_tools_of_a_lazy_server_are_kept_anew() {
    let mut rig = asleep(lazy());
    rig.call(1, "a", "{}");
    rig.bring_up("a", &["tool", "more"]);
    assert_eq!(kept(&mut rig).len(), 1);
}

#[test]
fn idle_server_is_stopped_and_wakes_for_a_call_even_while_it_stops() {
    let mut rig = started(Life { idle_stop_secs: Some(60), ..Life::default() });
    let child = rig.bring_up("a", &["tool"]);
    rig.connect(Dialect::V2);
    rig.advance(Duration::from_secs(50));
    rig.call(1, "a", "{}");
    rig.advance(Duration::from_secs(300));
    assert_eq!(stdin_closed(&mut rig), None, "it works on a call");
    let id = rig.written(child).pop().unwrap()["id"].clone();
    rig.answer(child, &id, json!({}));
    rig.advance(Duration::from_secs(59));
    assert_eq!(stdin_closed(&mut rig), None);
    rig.advance(Duration::from_secs(61));
    assert_eq!(stdin_closed(&mut rig), Some(child));
    assert_eq!(rig.server_status("a").state, State::Asleep);
    rig.call(2, "a", "{}");
    assert_eq!(rig.spawned("a"), None, "not beside the old one");
    rig.exited(child, 0, "");
    let child = rig.bring_up("a", &["tool"]);
    assert_eq!(rig.written(child).len(), 1);
    rig.answers();
}

#[test]
fn restart_policy_decides_what_follows_an_end() {
    for (restart, code, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::Always, 1, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 1, true),
        (RestartPolicy::Never, 0, false),
        (RestartPolicy::Never, 1, false),
    ] {
        let mut rig = started(Life { restart, ..Life::default() });
        let child = rig.bring_up("a", &["tool"]);
        rig.exited(child, code, "bye");
        let status = rig.server_status("a");
        assert_eq!(status.next_start_ms.is_some(), again, "{restart:?} {code}");
        assert!(status.reason.unwrap().contains("bye"));
        rig.advance(limits::FAILED_RETRY * 2);
        assert_eq!(rig.spawned("a").is_some(), again, "{restart:?} {code}");
    }
}

#[test]
fn crash_loop_is_told_with_its_cause() {
    let mut rig = started(Life::default());
    let mut child = rig.bring_up("a", &["tool"]);
    for _ in 0..limits::MAX_QUICK_FAILURES {
        rig.exited(child, 1, "boom");
        rig.advance(limits::RESTART_MAX);
        child = rig.spawned("a").unwrap();
    }
    rig.exited(child, 1, "boom");
    let status = rig.server_status("a");
    assert_eq!((status.state, status.failures), (State::Failed, limits::MAX_QUICK_FAILURES + 1));
    let reason = status.reason.unwrap();
    assert!(reason.contains("6 times in a row") && reason.contains("boom"), "{reason}");
    assert_eq!(status.next_start_ms, Some(60_000));
}

#[test]
fn server_that_hung_is_told_of_with_its_last_words() {
    let mut rig = started(Life::default());
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.advance(Duration::from_secs(60));
    rig.event(Event::Exited { child, code: None, signal: Some(9), stderr: "waiting for the database\n".to_string() });
    let reason = rig.server_status("a").reason.unwrap();
    assert!(reason.contains("not ready within 60 s") && reason.contains("waiting for the database"), "{reason}");
}

#[test]
fn silent_call_ends_at_its_idle_limit_and_progress_renews_it() {
    let mut rig = started(Life { call_idle_secs: Some(10), ..Life::default() });
    let child = rig.bring_up("a", &["tool"]);
    rig.connect(Dialect::V2);
    rig.call(1, "a", "{\"_meta\":{\"progressToken\":1}}");
    rig.call(2, "a", "{}");
    let token = rig.written(child)[0]["id"].clone();
    rig.advance(Duration::from_secs(9));
    let params = json!({"progressToken": token, "progress": 1});
    rig.say(child, &json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
    rig.advance(Duration::from_secs(9));
    let answers = rig.answers();
    assert_eq!((answers.len(), answers[0].0, answers[0].1), (1, 2, Some(code::TIMED_OUT)));
    assert!(answers[0].2.contains("callIdleTimeout"));
    assert_eq!(rig.written(child)[0]["method"], "notifications/cancelled");
    rig.advance(Duration::from_secs(2));
    assert_eq!(rig.answers()[0].0, 1);
}

#[test]
fn each_session_has_a_run_of_its_own_until_it_is_idle() {
    let mut rig = asleep(Life { isolation: Isolation::Session, ..Life::default() });
    call_in(&mut rig, 1, "one");
    call_in(&mut rig, 2, "one");
    let one = rig.bring_up("a", &["tool"]);
    call_in(&mut rig, 3, "two");
    let two = rig.bring_up("a", &["tool"]);
    let written = rig.written(one);
    assert_eq!(written.len(), 2);
    assert_eq!(rig.written(two).len(), 1);
    assert_eq!((rig.server_status("a").sessions, rig.server_status("a").calls), (2, 3));
    for call in written {
        rig.answer(one, &call["id"], json!({}));
    }
    assert_eq!(rig.answers().len(), 2);
    rig.advance(limits::SESSION_IDLE * 2);
    assert_eq!(stdin_closed(&mut rig), Some(one));
    rig.exited(one, 0, "");
    assert_eq!((rig.server_status("a").sessions, rig.server_status("a").state), (1, State::Asleep));
}

#[test]
fn run_of_a_session_that_ends_answers_its_calls_alone_and_the_next_call_gets_another() {
    let mut rig = asleep(Life { isolation: Isolation::Session, ..Life::default() });
    call_in(&mut rig, 1, "one");
    let one = rig.bring_up("a", &["tool"]);
    call_in(&mut rig, 2, "two");
    let two = rig.bring_up("a", &["tool"]);
    rig.exited(one, 1, "boom");
    let answers = rig.answers();
    assert_eq!((answers.len(), answers[0].0), (1, 1));
    assert!(answers[0].2.contains("boom"));
    assert_eq!(rig.spawned("a"), None);
    call_in(&mut rig, 3, "one");
    let again = rig.bring_up("a", &["tool"]);
    assert!(again != one && again != two);
}

#[test]
fn sessions_are_bounded_and_the_longest_idle_one_makes_room() {
    let mut rig = asleep(Life { isolation: Isolation::Session, ..Life::default() });
    let mut runs = Vec::new();
    for n in 0..limits::MAX_SESSION_RUNS {
        call_in(&mut rig, u32::try_from(n).unwrap(), &n.to_string());
        runs.push(rig.bring_up("a", &["tool"]));
        rig.advance(Duration::from_secs(1));
    }
    call_in(&mut rig, 100, "one too many");
    assert_eq!(rig.answers()[0].1, Some(code::OVERLOADED));
    let id = rig.written(runs[3]).pop().unwrap()["id"].clone();
    rig.answer(runs[3], &id, json!({}));
    call_in(&mut rig, 101, "one more");
    assert_eq!(stdin_closed(&mut rig), Some(runs[3]));
    assert!(rig.spawned("a").is_some());
    assert_eq!(rig.server_status("a").sessions, limits::MAX_SESSION_RUNS);
}

#[test]
fn sessions_runs_end_with_their_server() {
    let mut rig = asleep(Life { isolation: Isolation::Session, ..Life::default() });
    call_in(&mut rig, 1, "one");
    let one = rig.bring_up("a", &["tool"]);
    rig.event(Event::Stop);
    assert_eq!(stdin_closed(&mut rig), Some(one));
    rig.closed(CloseCode::GoingAway);
    assert_eq!(rig.exit(), None);
    rig.exited(one, 0, "");
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}
