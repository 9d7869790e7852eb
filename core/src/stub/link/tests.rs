use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::entropy::Seeded;
use crate::table::uncovered;
use crate::time::UnixTime;

crate::table::kinds!(EVENTS, kind: Event, "" {
    Begun, Answered, Nobody, Unusable, Refused, Failed, StartFailed, StartEnded, Silent, SignedIn, Lost,
});

/// A link at a time.
struct Rig {
    link: Link,
    now: Now,
}

impl Rig {
    fn new(interactive: bool) -> Self {
        let settings = Settings { version: "2.0.0".into(), interactive, minted: false, keep: false };
        let now = Now { instant: Instant::from_micros(1), unix: UnixTime::default() };
        Self { link: Link::new(settings, Box::new(Seeded::new(1))), now }
    }

    /// A link in that state, with somebody to sign in.
    fn state(state: &str) -> Self {
        let mut rig = Self::new(true);
        let steps: &[Event] = match state {
            "new" => &[],
            "looking" => &[Event::Begun],
            "starting" => &[Event::Begun, NOBODY],
            "silent" => &[Event::Begun, silent(Kind::Daemon)],
            "attached" => &[Event::Begun, ok()],
            "signing in" => &[Event::Begun, NO_TOKENS],
            "resting" => &[Event::Begun, ok(), Event::Lost(Some(Farewell::Stopped))],
            "troubled" => &[Event::Begun, ok(), Event::Lost(None)],
            _ => panic!("no state {state}"),
        };
        for step in steps {
            rig.hand(step.clone());
        }
        assert_eq!(rig.name(), state, "the way into it");
        rig
    }

    /// The state's name.
    fn name(&self) -> &'static str {
        let plan = |plan: &Plan| match plan {
            Plan::Start | Plan::Doubt(_) => "looking",
            Plan::Await { .. } => "starting",
            Plan::SignIn { .. } => "signing in",
            Plan::Rest(_) => "resting",
        };
        match &self.link.state {
            State::New => "new",
            State::Looking(of) => plan(of),
            State::Pausing { plan: Plan::Start, .. } => "troubled",
            State::Pausing { plan: of, .. } => plan(of),
            State::Silent { .. } => "silent",
            State::Attached => "attached",
        }
    }

    fn hand(&mut self, event: Event) -> Vec<&'static str> {
        self.link.handle_event(event, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<&'static str> {
        let word = |action| match action {
            Action::Attach { keep: false } => "attach",
            Action::Attach { keep: true } => "attach and keep",
            Action::Retire => "retire",
            Action::Start => "start",
            Action::SignIn => "sign in",
            Action::LeaveSignIn => "leave the sign-in",
            Action::Kill { pid: 7 } => "kill",
            Action::Kill { .. } => "kill another",
        };
        core::iter::from_fn(|| self.link.poll_action()).map(word).collect()
    }

    /// Waits for the next look; how long it took.
    fn look(&mut self) -> Duration {
        let before = self.now.instant;
        self.now.instant = self.link.poll_timeout().expect("it will look again").at;
        self.link.handle_timeout(self.now);
        assert!(matches!(self.drain()[..], ["attach" | "attach and keep"]));
        self.now.instant.saturating_since(before)
    }

    fn standing(&self) -> &'static str {
        match self.link.standing() {
            Standing::Attached => "attached",
            Standing::Coming => "coming",
            Standing::Troubled(_) => "troubled",
            Standing::SigningIn => "signing in",
            Standing::NeedsLogin(_) => "needs login",
            Standing::NeedsToken(_) => "needs token",
            Standing::Broken(_) => "broken",
            Standing::Stopped => "stopped",
            Standing::Refused(_) => "refused",
            Standing::Unwelcome(_) => "unwelcome",
        }
    }
}

const NOBODY: Event = nobody(Some(1));
const NO_TOKENS: Event = nobody(None);
const STOPPED: Event = Event::Nobody { credentials: Some(1), stopped: true };

const fn nobody(credentials: Option<u64>) -> Event {
    Event::Nobody { credentials, stopped: false }
}

fn answer(version: &str) -> Answer {
    Answer {
        ok: true,
        version: version.into(),
        pid: 1,
        kind: Kind::Daemon,
        kept: false,
        sessions: None,
        ending: false,
        error: None,
    }
}

fn ok() -> Event {
    Event::Answered(answer("2.0.0"))
}

fn older() -> Event {
    Event::Answered(answer("1.9.9"))
}

fn ending() -> Event {
    Event::Answered(Answer { ok: false, ending: true, ..answer("1.9.9") })
}

const fn silent(kind: Kind) -> Event {
    Event::Silent { holder: Some((7, kind)) }
}

fn ended(end: End) -> Event {
    Event::StartEnded { end, words: Some("its last words".into()) }
}

fn failed() -> Event {
    Event::Failed { reason: "x".into() }
}

fn start_failed() -> Event {
    Event::StartFailed { reason: "x".into() }
}

#[test]
fn every_event_in_every_state() {
    const STATES: [&str; 8] = ["new", "looking", "silent", "starting", "attached", "signing in", "resting", "troubled"];
    type Row = (&'static str, fn() -> Event, [(&'static [&'static str], &'static str); 8]);
    // What it does to a state that does not wait for it: nothing.
    let new = (&[][..], "coming");
    let starting = (&[][..], "coming");
    let attached = (&[][..], "attached");
    let signing = (&[][..], "signing in");
    let resting = (&[][..], "stopped");
    let troubled = (&[][..], "troubled");
    let none = |looking| [new, looking, looking, starting, attached, signing, resting, troubled];
    let rows: [Row; 21] = [
        (
            "begun",
            || Event::Begun,
            [(&["attach"], "coming"), starting, troubled, starting, attached, signing, resting, troubled],
        ),
        ("ok", ok, none(attached)),
        ("newer", || Event::Answered(answer("3.0.0")), none(attached)),
        ("older", older, none((&["retire"], "coming"))),
        (
            "older in the foreground",
            || Event::Answered(Answer { kind: Kind::Foreground, ..answer("1.0.0") }),
            none(attached),
        ),
        ("ending", ending, none((&[], "coming"))),
        ("refused", || Event::Answered(Answer { ok: false, ..answer("2.0.0") }), none((&[], "troubled"))),
        ("nobody", || NOBODY, none((&["start"], "coming"))),
        ("nobody, no tokens", || NO_TOKENS, none((&["sign in"], "signing in"))),
        ("nobody, since it was stopped", || STOPPED, none((&[], "stopped"))),
        ("unusable", || Event::Unusable { reason: "x".into() }, none((&[], "broken"))),
        ("unwelcome", || Event::Refused { reason: "x".into() }, none((&[], "unwelcome"))),
        ("failed", failed, none((&[], "troubled"))),
        ("silent", || silent(Kind::Daemon), [new, troubled, troubled, starting, attached, signing, resting, troubled]),
        ("start failed", start_failed, [new, starting, troubled, troubled, attached, signing, resting, troubled]),
        (
            "start ended",
            || ended(End::Failed),
            [new, starting, troubled, troubled, attached, signing, resting, troubled],
        ),
        (
            "start ended for good",
            || ended(End::Unusable),
            [new, starting, troubled, (&[], "broken"), attached, signing, resting, troubled],
        ),
        (
            "start ended for want of a login",
            || ended(End::NeedsLogin),
            [new, starting, troubled, (&["sign in"], "signing in"), attached, signing, resting, troubled],
        ),
        (
            "signed in",
            || Event::SignedIn(Ok(())),
            [new, starting, troubled, starting, attached, (&["attach"], "coming"), resting, troubled],
        ),
        (
            "not signed in",
            || Event::SignedIn(Err("x".into())),
            [new, starting, troubled, starting, attached, (&[], "needs login"), resting, troubled],
        ),
        ("lost", || Event::Lost(None), [new, starting, troubled, starting, troubled, signing, resting, troubled]),
    ];
    let mut given = alloc::collections::BTreeSet::new();
    for (name, event, expected) in rows {
        given.insert(kind(&event()));
        for (state, (actions, standing)) in STATES.into_iter().zip(expected) {
            let mut rig = Rig::state(state);
            assert_eq!((&rig.hand(event())[..], rig.standing()), (actions, standing), "{name} while {state}");
        }
    }
    assert_eq!(uncovered(&given, &[EVENTS], &[]), Vec::<alloc::string::String>::new());
}

#[test]
fn time_in_every_state() {
    for (state, expected) in [
        ("new", None),
        ("looking", None),
        ("silent", Some(&["kill"][..])),
        ("starting", Some(&["attach"])),
        ("attached", None),
        ("signing in", Some(&["attach"])),
        ("resting", Some(&["attach"])),
        ("troubled", Some(&["attach"])),
    ] {
        let mut rig = Rig::state(state);
        let due = rig.link.poll_timeout().map(|timer| timer.at);
        rig.link.handle_timeout(rig.now);
        assert!(rig.drain().is_empty(), "{state}: not before it is time");
        rig.now.instant = due.unwrap_or(rig.now.instant + limits::RECONNECT_MAX);
        rig.link.handle_timeout(rig.now);
        assert_eq!((due.is_some(), &rig.drain()[..]), (expected.is_some(), expected.unwrap_or_default()), "{state}");
    }
}

#[test]
fn last_words_say_what_comes_next() {
    let reason = || "x".into();
    for (farewell, ordered, standing, pause) in [
        (Farewell::Stopped, &[][..], "stopped", limits::ATTACH_LOOK),
        (Farewell::Replaced, &[], "coming", limits::ATTACH_POLL),
        (Farewell::Unused, &[], "coming", limits::RECONNECT_FIRST),
        (Farewell::Unknown, &[], "coming", limits::RECONNECT_FIRST),
        (Farewell::NeedsLogin { reason: reason() }, &["sign in"], "signing in", Duration::ZERO),
        (Farewell::Refused { reason: reason() }, &["attach"], "coming", Duration::ZERO),
    ] {
        let mut rig = Rig::state("attached");
        let name = std::format!("{farewell:?}");
        assert_eq!((&rig.hand(Event::Lost(Some(farewell)))[..], rig.standing()), (ordered, standing), "{name}");
        if pause > Duration::ZERO {
            assert!(rig.look() <= pause, "{name}");
        }
    }
}

#[test]
fn agent_that_was_killed_is_started_again_at_once() {
    let mut rig = Rig::state("attached");
    rig.hand(Event::Lost(None));
    assert!(rig.look() <= limits::RECONNECT_FIRST);
    assert_eq!(rig.hand(NOBODY), ["start"]);
    rig.look();
    assert!(rig.hand(ok()).is_empty() && rig.standing() == "attached");
}

#[test]
fn agent_that_ends_at_once_is_started_ever_more_seldom() {
    let mut rig = Rig::state("looking");
    let mut pauses = Vec::new();
    for _ in 0..20 {
        assert_eq!(rig.hand(NOBODY), ["start"]);
        rig.hand(ended(End::Failed));
        pauses.push(rig.look());
    }
    assert!(pauses.iter().all(|pause| *pause <= limits::RECONNECT_MAX), "{pauses:?}");
    assert!(pauses.iter().sum::<Duration>() > limits::RECONNECT_MAX * 3, "{pauses:?}");
}

#[test]
fn loser_of_a_race_finds_the_winner() {
    let mut rig = Rig::state("starting");
    rig.hand(ended(End::Failed));
    assert!(rig.look() <= limits::RECONNECT_FIRST);
    rig.hand(ok());
    assert_eq!(rig.standing(), "attached");
}

#[test]
fn agent_that_never_comes_is_given_up_and_started_anew() {
    let mut rig = Rig::state("starting");
    let mut waited = Duration::ZERO;
    while rig.standing() == "coming" {
        waited += rig.look();
        assert!(rig.hand(NOBODY).is_empty());
    }
    assert!(waited >= limits::DAEMON_START && waited < limits::DAEMON_START * 2, "{waited:?}");
    rig.look();
    assert_eq!(rig.hand(NOBODY), ["start"]);
}

#[test]
fn older_agent_makes_room_and_what_it_was_kept_for_stays() {
    let mut rig = Rig::state("looking");
    assert_eq!(rig.hand(Event::Answered(Answer { kept: true, ..answer("1.9.9") })), ["retire"]);
    rig.look();
    assert!(rig.hand(ending()).is_empty());
    assert_eq!(rig.look(), limits::ATTACH_POLL);
    assert_eq!(rig.hand(NOBODY), ["start"]);
    rig.now.instant = rig.link.poll_timeout().expect("looks").at;
    rig.link.handle_timeout(rig.now);
    assert_eq!(rig.drain(), ["attach and keep"]);
}

#[test]
fn older_agent_that_does_not_make_room_is_taken_as_it_is() {
    let mut rig = Rig::state("looking");
    let mut asked = Duration::ZERO;
    while rig.hand(older()) == ["retire"] {
        asked += rig.look();
    }
    assert_eq!(rig.standing(), "attached");
    assert!(asked >= limits::DAEMON_RETIRES && asked < limits::DAEMON_RETIRES * 2, "{asked:?}");
}

#[test]
fn replaced_session_leaves_the_start_to_the_newer_version() {
    let mut rig = Rig::state("attached");
    rig.hand(Event::Lost(Some(Farewell::Replaced)));
    for _ in 0..10 {
        rig.look();
        assert!(rig.hand(NOBODY).is_empty());
    }
    rig.look();
    rig.hand(Event::Answered(answer("3.0.0")));
    assert_eq!(rig.standing(), "attached");
}

#[test]
fn stopped_agent_is_not_started_but_found_once_it_is_back() {
    let mut rig = Rig::state("resting");
    for _ in 0..10 {
        assert_eq!(rig.look(), limits::ATTACH_LOOK);
        assert!(rig.hand(NOBODY).is_empty());
        assert_eq!(rig.standing(), "stopped");
    }
    rig.look();
    rig.hand(ok());
    assert_eq!(rig.standing(), "attached");
}

#[test]
fn agent_that_was_stopped_is_not_started_whatever_its_end_looked_like() {
    let lost: &[Event] = &[ok(), Event::Lost(None), STOPPED];
    let hung: &[Event] = &[silent(Kind::Daemon), STOPPED];
    let signing: &[Event] = &[NO_TOKENS, STOPPED];
    for (steps, left) in [(lost, &[][..]), (hung, &[]), (signing, &["leave the sign-in"])] {
        let mut rig = Rig::state("looking");
        for step in steps {
            if matches!(rig.link.state, State::Pausing { .. }) {
                rig.look();
            }
            let ordered = rig.hand(step.clone());
            assert!(*step != STOPPED || ordered == left, "{steps:?}: {ordered:?}");
        }
        assert_eq!(rig.standing(), "stopped", "{steps:?}");
        rig.look();
        assert!(rig.hand(NOBODY).is_empty(), "another editor's agent came and went: {steps:?}");
        rig.look();
        rig.hand(ok());
        assert_eq!(rig.standing(), "attached", "{steps:?}");
    }
}

#[test]
fn barred_way_is_looked_at_until_it_is_free() {
    let mut rig = Rig::state("looking");
    for _ in 0..3 {
        rig.hand(Event::Unusable { reason: "x".into() });
        assert_eq!((rig.standing(), rig.look()), ("broken", limits::ATTACH_LOOK));
    }
    assert_eq!(rig.hand(NOBODY), ["start"]);
}

#[test]
fn refused_session_is_asked_for_seldom_and_the_next_agent_at_once() {
    let mut rig = Rig::state("looking");
    rig.hand(Event::Refused { reason: "x".into() });
    assert_eq!(rig.look(), limits::RECONNECT_MAX);
    assert_eq!(rig.standing(), "unwelcome");
    assert_eq!(rig.hand(NOBODY), ["start"]);
}

#[test]
fn without_anybody_to_sign_in_it_waits_for_new_tokens() {
    let mut rig = Rig::new(false);
    rig.hand(Event::Begun);
    assert!(rig.hand(NO_TOKENS).is_empty());
    assert_eq!(rig.standing(), "needs login");
    rig.look();
    assert!(rig.hand(NO_TOKENS).is_empty());
    rig.look();
    assert_eq!(rig.hand(NOBODY), ["start"], "somebody ran login");
    rig.hand(ended(End::NeedsLogin));
    assert_eq!(rig.standing(), "needs login");
    rig.look();
    assert!(rig.hand(NOBODY).is_empty(), "these tokens were of no use");
    rig.look();
    assert_eq!(rig.hand(nobody(Some(2))), ["start"]);
}

#[test]
fn browser_is_not_opened_again_and_again() {
    let mut rig = Rig::state("signing in");
    rig.hand(Event::SignedIn(Ok(())));
    assert_eq!(rig.hand(NOBODY), ["start"]);
    assert!(rig.hand(ended(End::NeedsLogin)).is_empty());
    assert_eq!(rig.standing(), "needs login");
    rig.look();
    assert_eq!(rig.hand(nobody(Some(2))), ["start"]);
    rig.now.instant = rig.now.instant + limits::SIGNIN_AGAIN;
    assert_eq!(rig.hand(ended(End::NeedsLogin)), ["sign in"]);
}

#[test]
fn early_wake_does_nothing() {
    for state in ["new", "looking", "silent", "starting", "attached", "signing in", "resting", "troubled"] {
        let mut rig = Rig::state(state);
        rig.link.handle_timeout(rig.now);
        assert!(rig.drain().is_empty(), "{state}");
    }
}

#[test]
fn refusal_is_believed_once_no_other_agent_is_there() {
    let refused = || Event::Lost(Some(Farewell::Refused { reason: "another took its place".into() }));
    let mut rig = Rig::state("attached");
    rig.hand(refused());
    rig.hand(ok());
    assert_eq!(rig.standing(), "attached", "it was another agent of this machine");
    rig.hand(refused());
    assert!(rig.hand(NOBODY).is_empty());
    assert_eq!((rig.standing(), rig.look()), ("refused", limits::ATTACH_LOOK));
}

#[test]
fn browser_is_left_once_somebody_signed_in_elsewhere_or_an_agent_is_there() {
    for (there, expected, standing) in
        [(ok(), &["leave the sign-in"][..], "attached"), (NOBODY, &["start", "leave the sign-in"], "coming")]
    {
        let mut rig = Rig::state("signing in");
        rig.look();
        for _ in 0..3 {
            assert!(rig.hand(NO_TOKENS).is_empty());
            assert_eq!((rig.standing(), rig.look()), ("signing in", limits::ATTACH_LOOK));
        }
        assert_eq!((&rig.hand(there)[..], rig.standing()), (expected, standing));
        assert!(rig.hand(Event::SignedIn(Err("late".into()))).is_empty());
        assert_eq!(rig.standing(), standing);
    }
}

#[test]
fn tokens_that_the_ended_agent_left_are_nobodys_sign_in() {
    let mut rig = Rig::state("starting");
    assert_eq!(rig.hand(ended(End::NeedsLogin)), ["sign in"]);
    for _ in 0..3 {
        rig.look();
        assert!(rig.hand(nobody(Some(2))).is_empty(), "it copied them from an older agent's");
    }
    rig.look();
    assert_eq!(rig.hand(nobody(Some(3))), ["start", "leave the sign-in"]);
}

#[test]
fn configured_token_that_is_refused_is_tried_again_once_it_changed_or_after_a_while() {
    for credentials in [Some(1), None] {
        let mut rig = Rig::new(true);
        rig.link.settings.minted = true;
        rig.hand(Event::Begun);
        assert_eq!(rig.hand(nobody(credentials)), ["start"], "it is the agent that reads it");
        assert!(rig.hand(ended(End::NeedsLogin)).is_empty(), "there is nothing to sign in to");
        assert_eq!(rig.link.standing(), Standing::NeedsToken("its last words"));
        rig.look();
        assert!(rig.hand(nobody(credentials)).is_empty());
        rig.look();
        assert_eq!(rig.hand(nobody(Some(2))), ["start"], "another stands there");
        rig.hand(ended(End::NeedsLogin));
        let mut waited = Duration::ZERO;
        while waited < limits::UNABLE_AGAIN {
            waited += rig.look();
            let ordered = rig.hand(nobody(Some(2)));
            assert_eq!(ordered, if waited < limits::UNABLE_AGAIN { &[][..] } else { &["start"] }, "{waited:?}");
        }
    }
}

#[test]
fn what_only_a_person_mends_is_said_and_not_tried_again_and_again() {
    let mut rig = Rig::state("starting");
    assert!(rig.hand(ended(End::Unusable)).is_empty());
    assert_eq!(rig.link.standing(), Standing::Broken("its last words"));
    for _ in 0..100 {
        assert_eq!(rig.look(), limits::ATTACH_LOOK);
        assert!(rig.hand(NOBODY).is_empty());
    }
    rig.look();
    rig.hand(ok());
    assert_eq!(rig.standing(), "attached", "a person started it");
}

#[test]
fn last_words_of_an_agent_that_ended_are_passed_on() {
    let mut rig = Rig::state("starting");
    rig.hand(ended(End::Failed));
    assert_eq!(rig.link.standing(), Standing::Troubled("its last words"));
}

#[test]
fn daemon_that_hangs_is_replaced_and_a_slow_one_is_not() {
    let mut rig = Rig::state("silent");
    assert!(matches!(rig.link.standing(), Standing::Troubled(reason) if reason.contains("pid 7")));
    let deadline = rig.link.poll_timeout().expect("it is not waited for for ever").at;
    assert_eq!(deadline.saturating_since(rig.now.instant), limits::DAEMON_SILENT);
    rig.now.instant = deadline;
    rig.link.handle_timeout(rig.now);
    assert_eq!(rig.drain(), ["kill"]);
    rig.look();
    assert_eq!(rig.hand(NOBODY), ["start"]);

    let mut rig = Rig::state("silent");
    rig.now.instant = rig.now.instant + (limits::DAEMON_SILENT - Duration::from_micros(1));
    rig.link.handle_timeout(rig.now);
    assert!(rig.hand(ok()).is_empty());
    assert_eq!((rig.standing(), rig.link.poll_timeout()), ("attached", None));
}

#[test]
fn agent_in_the_foreground_and_one_that_cannot_be_named_are_not_ended() {
    for holder in [Some((7, Kind::Foreground)), None] {
        let mut rig = Rig::state("looking");
        rig.hand(Event::Silent { holder });
        rig.now.instant = rig.link.poll_timeout().expect("looks again").at;
        rig.link.handle_timeout(rig.now);
        assert!(rig.drain().is_empty());
        rig.look();
    }
}
