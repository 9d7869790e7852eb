use alloc::vec::Vec;

use super::*;
use crate::table::{kinds, uncovered};
use crate::time::UnixTime;

kinds!(EVENTS, kind: Event, "" { Begun, Asked, Closed, Owner, StopAsked, Ended });
kinds!(COMMANDS, order: Command, "asked: " { Attach, Retire, Stop, Show });

const GRACE: Duration = Duration::from_secs(20);
const PID: u32 = 7;

/// A daemon at a time, with what it ordered.
struct Rig {
    daemon: Daemon,
    now: Now,
}

impl Rig {
    fn new(kind: Kind) -> Self {
        let settings = Settings { kind, version: "2.0.0".into(), pid: PID, grace: GRACE };
        Self { daemon: Daemon::new(settings), now: Now { instant: Instant::from_micros(1), unix: UnixTime::default() } }
    }

    /// One in that state.
    fn state(kind: Kind, state: &str) -> Self {
        let mut rig = Self::new(kind);
        let steps: &[Event] = match state {
            "new" => &[],
            "waiting" => &[Event::Begun],
            "serving" => &[Event::Begun, attach(1)],
            "kept" => &[Event::Begun, keep(1), closed(1)],
            "ending" => &[Event::Begun, Event::StopAsked],
            "ended" => &[Event::Begun, Event::Ended(Exit::Stopped)],
            _ => panic!("no state {state}"),
        };
        for step in steps {
            rig.hand(step.clone());
        }
        let reached = match rig.daemon.state {
            State::New => "new",
            State::Waiting { .. } if rig.daemon.kept => "kept",
            State::Waiting { .. } => "waiting",
            State::Serving => "serving",
            State::Ending => "ending",
            State::Ended => "ended",
        };
        assert_eq!(reached, state, "the way into it");
        rig
    }

    fn hand(&mut self, event: Event) -> Vec<Action> {
        self.daemon.handle_event(event, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.daemon.poll_action()).collect()
    }

    /// Lets time pass in the machine's own steps; all that it ordered.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now.instant + time;
        let mut all = Vec::new();
        while let Some(deadline) = self.daemon.poll_timeout().filter(|deadline| deadline.at <= end) {
            self.now.instant = deadline.at;
            self.daemon.handle_timeout(self.now);
            let ordered = self.drain();
            assert!(!ordered.is_empty(), "woken for nothing: {}", deadline.reason);
            all.extend(ordered);
        }
        self.now.instant = end;
        all
    }
}

fn attach(session: u64) -> Event {
    ask(session, Command::Attach { version: "2.0.0".into(), keep: false })
}

fn keep(session: u64) -> Event {
    ask(session, Command::Attach { version: "2.0.0".into(), keep: true })
}

fn retire(version: &str) -> Event {
    ask(9, Command::Retire { version: version.into() })
}

fn ask(session: u64, command: Command) -> Event {
    Event::Asked { session: SessionId(session), command }
}

const fn closed(session: u64) -> Event {
    Event::Closed { session: SessionId(session) }
}

/// What was ordered, in words.
fn words(actions: &[Action]) -> Vec<&'static str> {
    let word = |action: &Action| match action {
        Action::Answer { answer: Answer { ok: true, ending, .. }, .. } => {
            if *ending {
                "ok, ending"
            } else {
                "ok"
            }
        }
        Action::Answer { answer: Answer { ok: false, ending: true, .. }, .. } => "no, ending",
        Action::Answer { answer: Answer { ok: false, ending: false, .. }, .. } => "no",
        Action::Dismiss(Farewell::Stopped) => "bye stopped",
        Action::Dismiss(Farewell::Replaced) => "bye replaced",
        Action::Dismiss(Farewell::Unused) => "bye unused",
        Action::Dismiss(Farewell::NeedsLogin { .. }) => "bye login",
        Action::Dismiss(Farewell::Refused { .. }) => "bye refused",
        Action::Dismiss(Farewell::Unknown) => "bye unknown",
        Action::ReadOwner => "read owner",
        Action::StopAgent => "stop agent",
    };
    actions.iter().map(word).collect()
}

#[test]
fn every_event_in_every_state() {
    type Row = (&'static str, fn() -> Event, [&'static [&'static str]; 6]);
    const STATES: [&str; 6] = ["new", "waiting", "serving", "kept", "ending", "ended"];
    let no: &[&str] = &["no"];
    let ending: &[&str] = &["no, ending"];
    let taken: &[&str] = &["bye replaced", "stop agent"];
    let stopped: &[&str] = &["bye stopped", "stop agent"];
    let rows: [Row; 14] = [
        ("begun", || Event::Begun, [&[]; 6]),
        ("attach", || attach(2), [no, &["ok"], &["ok"], &["ok"], ending, ending]),
        ("attach again", || attach(1), [no, &["ok"], &["ok"], &["ok"], ending, ending]),
        ("keep", || keep(2), [no, &["ok"], &["ok"], &["ok"], ending, ending]),
        (
            "retire for a newer",
            || retire("2.0.1"),
            [
                no,
                &["bye replaced", "stop agent", "ok, ending"],
                &["bye replaced", "stop agent", "ok, ending"],
                &["bye replaced", "stop agent", "ok, ending"],
                ending,
                ending,
            ],
        ),
        ("retire for the same", || retire("2.0.0"), [no, no, no, no, ending, ending]),
        ("retire for an older", || retire("1.9.9"), [no, no, no, no, ending, ending]),
        (
            "stop",
            || ask(9, Command::Stop),
            [
                no,
                &["bye stopped", "stop agent", "ok, ending"],
                &["bye stopped", "stop agent", "ok, ending"],
                &["bye stopped", "stop agent", "ok, ending"],
                &["stop agent", "ok, ending"],
                ending,
            ],
        ),
        ("show", || ask(9, Command::Show), [&["ok"], &["ok"], &["ok"], &["ok"], &["ok, ending"], &["ok, ending"]]),
        ("closed", || closed(1), [&[]; 6]),
        ("own files", || Event::Owner { pid: Some(PID) }, [&[]; 6]),
        ("files taken over", || Event::Owner { pid: Some(8) }, [&[], taken, taken, taken, &[], &[]]),
        ("signal", || Event::StopAsked, [&["stop agent"], stopped, stopped, stopped, &["stop agent"], &[]]),
        (
            "agent ended",
            || Event::Ended(Exit::Refused("no".into())),
            [&[], &["bye refused"], &["bye refused"], &["bye refused"], &[], &[]],
        ),
    ];
    let mut given = BTreeSet::new();
    for (name, event, expected) in rows {
        let handed = event();
        given.insert(kind(&handed));
        if let Event::Asked { command, .. } = &handed {
            given.insert(order(command));
        }
        for (state, expected) in STATES.into_iter().zip(expected) {
            let mut rig = Rig::state(Kind::Daemon, state);
            assert_eq!(words(&rig.hand(handed.clone())), expected, "{name} while {state}");
        }
    }
    assert_eq!(uncovered(&given, &[EVENTS, COMMANDS], &[]), Vec::<String>::new());
}

#[test]
fn time_in_every_state() {
    let looks = &["read owner"][..];
    for (state, expected) in [
        ("new", &[][..]),
        ("waiting", &["read owner", "bye unused", "stop agent"]),
        ("serving", looks),
        ("kept", looks),
        ("ending", &[]),
        ("ended", &[]),
    ] {
        let ordered = Rig::state(Kind::Daemon, state).pass(limits::DAEMON_FIRST_SESSION + 2 * limits::OWNER_INTERVAL);
        let mut ordered = words(&ordered);
        ordered.dedup();
        assert_eq!(ordered, expected, "{state}");
    }
}

#[test]
fn foreground_agent_is_ended_by_nobody_but_its_starter_and_its_successor() {
    for state in ["waiting", "serving"] {
        for (event, expected) in [
            (retire("3.0.0"), &["no"][..]),
            (Event::Owner { pid: None }, &[]),
            (Event::Owner { pid: Some(8) }, &["bye replaced", "stop agent"]),
            (ask(9, Command::Stop), &["bye stopped", "stop agent", "ok, ending"]),
        ] {
            assert_eq!(words(&Rig::state(Kind::Foreground, state).hand(event.clone())), expected, "{event:?} {state}");
        }
    }
    let mut rig = Rig::state(Kind::Foreground, "waiting");
    let ordered = rig.pass(GRACE * 10);
    assert!(ordered.iter().all(|action| *action == Action::ReadOwner), "{ordered:?}");
}

#[test]
fn daemon_without_files_ends() {
    assert_eq!(
        words(&Rig::state(Kind::Daemon, "serving").hand(Event::Owner { pid: None })),
        ["bye replaced", "stop agent"]
    );
}

#[test]
fn daemon_lives_while_a_session_does_and_a_grace_longer() {
    let mut rig = Rig::state(Kind::Daemon, "serving");
    rig.hand(attach(2));
    rig.hand(closed(1));
    assert!(!words(&rig.pass(GRACE * 100)).contains(&"stop agent"), "one session is left");
    rig.hand(closed(2));
    assert!(!words(&rig.pass(GRACE - Duration::from_micros(1))).contains(&"stop agent"));
    assert!(words(&rig.pass(Duration::from_micros(1))).ends_with(&["bye unused", "stop agent"]));
    assert_eq!(rig.daemon.poll_timeout(), None);
}

#[test]
fn session_in_the_grace_keeps_the_daemon() {
    let mut rig = Rig::state(Kind::Daemon, "serving");
    rig.hand(closed(1));
    rig.pass(GRACE - Duration::from_micros(1));
    rig.hand(attach(2));
    assert!(!words(&rig.pass(GRACE * 2)).contains(&"stop agent"));
    rig.hand(closed(1));
    assert!(!words(&rig.pass(GRACE * 2)).contains(&"stop agent"), "a session that is gone already counts for nothing");
}

#[test]
fn kept_daemon_stays_without_sessions() {
    let ordered = Rig::state(Kind::Daemon, "kept").pass(GRACE * 10);
    assert!(!ordered.is_empty() && ordered.iter().all(|action| *action == Action::ReadOwner), "{ordered:?}");
}

#[test]
fn first_session_is_waited_for_however_short_the_grace() {
    let settings = Settings { kind: Kind::Daemon, version: "2.0.0".into(), pid: PID, grace: Duration::ZERO };
    let mut rig = Rig { daemon: Daemon::new(settings), ..Rig::new(Kind::Daemon) };
    rig.hand(Event::Begun);
    assert!(!words(&rig.pass(limits::DAEMON_FIRST_SESSION - Duration::from_micros(1))).contains(&"stop agent"));
    rig.hand(attach(1));
    rig.hand(closed(1));
    assert_eq!(words(&rig.pass(Duration::ZERO)), ["bye unused", "stop agent"]);
}

#[test]
fn files_are_looked_at_while_it_runs_and_no_longer() {
    let mut rig = Rig::state(Kind::Daemon, "serving");
    assert_eq!(words(&rig.pass(limits::OWNER_INTERVAL * 3)), ["read owner"; 3]);
    assert_eq!(Rig::state(Kind::Daemon, "ending").daemon.poll_timeout(), None);
}

#[test]
fn sessions_are_bounded() {
    let mut rig = Rig::state(Kind::Daemon, "waiting");
    for session in 1..=limits::MAX_SESSIONS as u64 {
        assert_eq!(words(&rig.hand(attach(session))), ["ok"]);
    }
    assert_eq!(words(&rig.hand(attach(1))), ["ok"], "it is attached already");
    assert_eq!(words(&rig.hand(attach(100_000))), ["no"]);
    rig.hand(closed(1));
    assert_eq!(words(&rig.hand(attach(100_000))), ["ok"]);
}

#[test]
fn early_wake_and_clock_that_steps_back_do_nothing() {
    let mut rig = Rig::state(Kind::Daemon, "waiting");
    rig.pass(Duration::from_secs(6));
    let late = rig.now;
    rig.daemon.handle_timeout(late);
    rig.now.instant = Instant::from_micros(0);
    rig.daemon.handle_timeout(rig.now);
    assert!(rig.drain().is_empty());
    rig.hand(attach(1));
    rig.hand(closed(1));
    assert_eq!(rig.daemon.expires(), Some(late.instant + GRACE), "counted from the latest time seen");
}

#[test]
fn words_on_the_wire_stay_what_they_are() {
    for (text, command) in [
        (r#"{"command":"attach","version":"2.0.0"}"#, Command::Attach { version: "2.0.0".into(), keep: false }),
        (
            r#"{"command":"attach","version":"2","keep":true,"new":1}"#,
            Command::Attach { version: "2".into(), keep: true },
        ),
        (r#"{"command":"retire","version":"3.0.0"}"#, Command::Retire { version: "3.0.0".into() }),
        (r#"{"command":"stop"}"#, Command::Stop),
        (r#"{"command":"show"}"#, Command::Show),
    ] {
        assert_eq!(serde_json::from_str::<Command>(text).expect(text), command);
    }
    let request = |text| serde_json::from_str::<Request>(text);
    assert!(matches!(request(r#"{"command":"stop"}"#), Ok(Request::Daemon(Command::Stop))));
    assert!(matches!(request(r#"{"command":"status"}"#), Ok(Request::Agent(ControlCommand::Status))));
    assert!(request(r#"{"command":"dance"}"#).is_err());
    for (text, farewell) in [
        (r#"{"farewell":"stopped"}"#, Farewell::Stopped),
        (r#"{"farewell":"needs-login","reason":"x"}"#, Farewell::NeedsLogin { reason: "x".into() }),
        (r#"{"farewell":"moved","to":"mars"}"#, Farewell::Unknown),
    ] {
        assert_eq!(serde_json::from_str::<Farewell>(text).expect(text), farewell);
    }
    let answer: Answer = serde_json::from_str(r#"{"ok":true,"version":"9.0.0","pid":1,"kind":"daemon","mood":"fine"}"#)
        .expect("what a newer one adds is ignored");
    assert!(answer.ok && !answer.kept && !answer.ending && answer.sessions.is_none());
}

#[test]
fn answer_tells_how_many_sessions_there_are_and_whether_it_stays() {
    let shown = |rig: &mut Rig| {
        rig.daemon.handle_event(ask(9, Command::Show), rig.now);
        match rig.daemon.poll_action() {
            Some(Action::Answer { answer, .. }) => (answer.pid, answer.kept, answer.sessions),
            other => panic!("no answer: {other:?}"),
        }
    };
    let mut rig = Rig::state(Kind::Daemon, "serving");
    assert_eq!(shown(&mut rig), (PID, false, Some(1)), "asking is no session");
    rig.hand(keep(2));
    rig.hand(closed(1));
    assert_eq!(shown(&mut rig), (PID, true, Some(1)));
}
