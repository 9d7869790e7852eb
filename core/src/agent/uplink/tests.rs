//! When the relay is dialled, input by input, and every input in every state.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::agent::tests::cx;

const LATER: UnixTime = UnixTime::from_secs(1_000);

fn signing_in() -> (Uplink, Cx) {
    (Uplink::new("https://relay.example".to_string(), &identity(), None), cx())
}

fn identity() -> Identity {
    Identity { device: "d".into(), device_id: "i".into(), version: String::new(), os: String::new() }
}

fn dials(cx: &mut Cx) -> Vec<String> {
    let token = |action| match action {
        Action::Dial { headers, .. } => headers[AUTHORIZATION].to_str().unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    core::iter::from_fn(|| cx.out.pop()).map(token).collect()
}

fn unauthorized() -> DialError {
    let challenge = "Bearer error=\"invalid_token\"".to_string();
    DialError::Status { status: 401, retry_after: None, challenge, message: String::new() }
}

#[test]
fn refused_token_is_exchanged_and_the_new_one_tried_at_once() {
    let (mut uplink, mut cx) = signing_in();
    assert_eq!(uplink.token(Secret::new("old"), LATER, &mut cx), Wish::Nothing);
    assert_eq!(dials(&mut cx), ["Bearer old"]);
    assert_eq!(uplink.dial_failed(&unauthorized(), &mut cx), Wish::Signin);
    uplink.token(Secret::new("new"), LATER, &mut cx);
    assert_eq!(dials(&mut cx), ["Bearer new"]);
}

#[test]
fn relay_that_refuses_token_after_token_is_not_hammered() {
    let (mut uplink, mut cx) = signing_in();
    uplink.token(Secret::new("1"), LATER, &mut cx);
    uplink.dial_failed(&unauthorized(), &mut cx);
    uplink.token(Secret::new("2"), LATER, &mut cx);
    uplink.dial_failed(&unauthorized(), &mut cx);
    dials(&mut cx);
    uplink.token(Secret::new("3"), LATER, &mut cx);
    assert!(dials(&mut cx).is_empty() && cx.timers.get(&Timer::Redial).is_some());
    uplink.redial(&mut cx);
    assert_eq!(dials(&mut cx), ["Bearer 3"]);
}

#[test]
fn bare_refusal_may_be_an_old_relays_and_is_believed_once() {
    let bare = |challenge: &str, message: &str| DialError::Status {
        status: 401,
        retry_after: None,
        challenge: challenge.to_string(),
        message: message.to_string(),
    };
    for other in [bare("Basic realm=\"hotel\"", ""), bare("", "<html>Sign in")] {
        let (mut uplink, mut cx) = signing_in();
        uplink.token(Secret::new("1"), LATER, &mut cx);
        assert_eq!(uplink.dial_failed(&other, &mut cx), Wish::Nothing, "{other:?}");
        assert_eq!(uplink.status(&cx).state, status::Uplink::Waiting);
    }
    let (mut uplink, mut cx) = signing_in();
    uplink.token(Secret::new("1"), LATER, &mut cx);
    assert_eq!(uplink.dial_failed(&bare("", ""), &mut cx), Wish::Signin);
    uplink.token(Secret::new("2"), LATER, &mut cx);
    assert_eq!(uplink.dial_failed(&bare("", ""), &mut cx), Wish::Nothing);
    assert_eq!(uplink.status(&cx).state, status::Uplink::Waiting);
}

#[test]
fn token_that_ran_out_is_not_even_shown() {
    let (mut uplink, mut cx) = signing_in();
    uplink.token(Secret::new("old"), LATER, &mut cx);
    dials(&mut cx);
    uplink.dial_failed(&DialError::TimedOut, &mut cx);
    cx.now.unix = LATER;
    assert_eq!(uplink.redial(&mut cx), Wish::Signin);
    assert!(dials(&mut cx).is_empty());
}

#[test]
fn revoked_sign_in_is_exchanged_and_a_refresh_touches_no_open_tunnel() {
    let (mut uplink, mut cx) = signing_in();
    uplink.token(Secret::new("1"), LATER, &mut cx);
    dials(&mut cx);
    uplink.dialed(ConnId(1), Dialect::V2, &mut cx);
    uplink.hello(&Hello::default(), &mut cx);
    assert_eq!(uplink.token(Secret::new("2"), LATER, &mut cx), Wish::Nothing);
    assert!(dials(&mut cx).is_empty() && uplink.up().is_some());
    assert_eq!(uplink.closed(&Close::new(CloseCode::Revoked, ""), &mut cx), Wish::Signin);
}

#[test]
fn token_that_is_no_header_is_told_and_not_dialled_with() {
    let (mut uplink, mut cx) = signing_in();
    uplink.token(Secret::new("line\nbreak"), LATER, &mut cx);
    assert!(dials(&mut cx).is_empty());
    assert_eq!(uplink.status(&cx).state, status::Uplink::Halted);
}

/// A look at the world after an input: what was ordered, what is wanted of the agent, how long is waited at least (in half
/// minutes), and the state if it is another one.
fn outcome(before: &str, uplink: &Uplink, wish: Wish, cx: &mut Cx) -> String {
    let mut said: Vec<String> = Vec::new();
    for action in core::iter::from_fn(|| cx.out.pop()) {
        said.push(match action {
            Action::Dial { .. } => "dial".to_string(),
            Action::Tunnel { command: Command::Probe, .. } => "probe".to_string(),
            Action::Tunnel { command: Command::GoAway, .. } => "go away".to_string(),
            Action::Tunnel { conn, command: Command::Close(_) } => format!("close {conn}"),
            other => panic!("{other:?}"),
        });
    }
    match wish {
        Wish::Nothing => {}
        Wish::Signin => said.push("sign in".to_string()),
        Wish::Exit(Exit::NeedsLogin(_)) => said.push("exit needs login".to_string()),
        Wish::Exit(exit) => {
            said.push(format!("exit {}", if matches!(exit, Exit::Refused(_)) { "refused" } else { "?" }))
        }
    }
    let state = name(&uplink.state);
    if state != before {
        let wait =
            cx.timers.get(&Timer::Redial).map_or(0, |at| at.saturating_since(cx.now.instant).as_secs() / 30 * 30);
        let wait = if wait > 0 { format!(" {wait} s") } else { String::new() };
        said.push(format!("→ {state}{wait}"));
    }
    assert_eq!(cx.timers.get(&Timer::Redial).is_some(), state == "waiting", "who waits has a timer, and nobody else");
    if said.is_empty() { ".".to_string() } else { said.join(", ") }
}

fn name(state: &State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::SigningIn => "signing in",
        State::Dialing(_) => "dialing",
        State::Open(Open { up: false, .. }) => "connecting",
        State::Open(Open { up: true, .. }) => "up",
        State::Waiting => "waiting",
        State::Halted => "halted",
        State::Closed => "closed",
    }
}

const STATES: [&str; 8] = ["idle", "signing in", "dialing", "connecting", "up", "waiting", "halted", "closed"];

/// The way into a state, with a sign-in's token or a minted one; what it ordered is done.
fn on_the_way(state: &str, minted: bool) -> (Uplink, Cx) {
    let (mut uplink, mut cx) = signing_in();
    if minted {
        uplink = Uplink::new("https://relay.example".to_string(), &identity(), Some(Secret::new("minted")));
    }
    let steps: &[&str] = match state {
        "idle" => &[],
        "signing in" => &["token", "401"],
        "dialing" => &["token"],
        "connecting" => &["token", "dialed"],
        "up" => &["token", "dialed", "hello"],
        "waiting" => &["token", "timed out"],
        "halted" => &["token", "dialed", "hello", "closed Refused"],
        "closed" => &["token", "dialed", "hello", "close"],
        other => panic!("no such state: {other}"),
    };
    for step in steps {
        match *step {
            "token" if minted => uplink.dial(&mut cx),
            step => input(step, &mut uplink, &mut cx),
        };
    }
    while cx.out.pop().is_some() {}
    assert_eq!(name(&uplink.state), state, "the way into it");
    (uplink, cx)
}

/// One input as the agent hands it on: what a connection says counts only if it is the present one.
fn input(input: &str, uplink: &mut Uplink, cx: &mut Cx) -> Wish {
    let conn = ConnId(uplink.last_conn.max(1));
    let status = |status, retry_after: Option<&str>, challenge: &str, message: &str| DialError::Status {
        status,
        retry_after: retry_after.map(str::to_string),
        challenge: challenge.to_string(),
        message: message.to_string(),
    };
    let error = match input {
        "token" => return uplink.token(Secret::new("t"), LATER, cx),
        "no token" => {
            uplink.wait_for_token(Duration::from_secs(30), cx);
            return Wish::Nothing;
        }
        "dialed" | "dialed, another" => {
            let conn = if input == "dialed" { conn } else { ConnId(99) };
            uplink.dialed(conn, Dialect::V2, cx);
            return Wish::Nothing;
        }
        "hello" | "round trip" => {
            if uplink.is_current(conn) && input == "hello" {
                uplink.hello(&Hello::default(), cx);
            } else if uplink.is_current(conn) {
                uplink.round_trip(5);
            }
            return Wish::Nothing;
        }
        "redial" => return uplink.redial(cx),
        "nudge" => return uplink.nudge(cx),
        "woke" => return uplink.woke(cx),
        "close" => {
            uplink.close(cx);
            return Wish::Nothing;
        }
        "connect" => DialError::Connect("refused".to_string()),
        "timed out" => DialError::TimedOut,
        "200" => status(200, None, "", "<html>"),
        "401" => status(401, None, "Bearer error=\"invalid_token\"", ""),
        "401 of a page" => status(401, None, "", "<html>"),
        "403" => status(403, None, "", "no"),
        "403 of a client" => status(403, None, "", upgrade::ONLY_AGENTS),
        "409" => status(409, None, "", ""),
        "429" => status(429, Some("90"), "", ""),
        "503" => status(503, Some("60"), "", ""),
        "511" => status(511, Some("60"), "", ""),
        closed => {
            let code = CODES.into_iter().find(|code| closed == format!("closed {code:?}")).expect(closed);
            return if uplink.is_current(conn) { uplink.closed(&Close::new(code, "why"), cx) } else { Wish::Nothing };
        }
    };
    if uplink.is_current(conn) { uplink.dial_failed(&error, cx) } else { Wish::Nothing }
}

const CODES: [CloseCode; 11] = [
    CloseCode::Normal,
    CloseCode::GoingAway,
    CloseCode::Protocol,
    CloseCode::TooBig,
    CloseCode::Internal,
    CloseCode::TimedOut,
    CloseCode::Revoked,
    CloseCode::Replaced,
    CloseCode::NameTaken,
    CloseCode::Refused,
    CloseCode::Other(1006),
];

/// What follows each input, in the order of [`STATES`].
const TABLE: [(&str, [&str; 8]); 22] = [
    ("token", ["dial, → dialing", "dial, → dialing", ".", ".", ".", ".", ".", "."]),
    ("no token", ["→ waiting 30 s", "→ waiting 30 s", ".", ".", ".", ".", ".", "."]),
    ("dialed", ["close 1", "close 1", "→ connecting", "close 1", "close 1", "close 1", "close 1", "close 1"]),
    ("dialed, another", ["close 99"; 8]),
    ("hello", [".", ".", ".", "→ up", ".", ".", ".", "."]),
    ("round trip", ["."; 8]),
    ("connect", [".", ".", "→ waiting", ".", ".", ".", ".", "."]),
    ("timed out", [".", ".", "→ waiting", ".", ".", ".", ".", "."]),
    ("200", [".", ".", "→ waiting", ".", ".", ".", ".", "."]),
    ("401", [".", ".", "sign in, → signing in", ".", ".", ".", ".", "."]),
    ("401 of a page", [".", ".", "→ waiting", ".", ".", ".", ".", "."]),
    ("403", [".", ".", "→ waiting 60 s", ".", ".", ".", ".", "."]),
    ("403 of a client", [".", ".", "→ waiting 60 s", ".", ".", ".", ".", "."]),
    ("409", [".", ".", "→ waiting 60 s", ".", ".", ".", ".", "."]),
    ("429", [".", ".", "→ waiting 90 s", ".", ".", ".", ".", "."]),
    ("503", [".", ".", "→ waiting 60 s", ".", ".", ".", ".", "."]),
    ("511", [".", ".", "→ waiting", ".", ".", ".", ".", "."]),
    ("redial", [".", ".", ".", ".", ".", "dial, → dialing", ".", "."]),
    ("nudge", [".", ".", ".", "probe", "probe", "dial, → dialing", "dial, → dialing", "."]),
    ("woke", [".", ".", ".", "probe", "probe", "dial, → dialing", ".", "."]),
    (
        "close",
        [
            "→ closed",
            "→ closed",
            "→ closed",
            "go away, close 1, → closed",
            "go away, close 1, → closed",
            "→ closed",
            "→ closed",
            ".",
        ],
    ),
    ("closed Normal", [".", ".", "→ waiting", "→ waiting", "→ waiting", ".", ".", "."]),
];

/// What follows the end of a connection; a code that is new does not compile before it is decided on.
const fn after_close(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Normal
        | CloseCode::GoingAway
        | CloseCode::Protocol
        | CloseCode::TooBig
        | CloseCode::Internal
        | CloseCode::TimedOut
        | CloseCode::Other(_) => "→ waiting",
        CloseCode::Revoked => "sign in, → signing in",
        CloseCode::NameTaken => "→ waiting 60 s",
        CloseCode::Refused => "→ halted",
        CloseCode::Replaced => "exit refused, → halted",
    }
}

#[test]
fn every_input_in_every_state() {
    let run = |event: &str, state: &str| {
        let (mut uplink, mut cx) = on_the_way(state, false);
        let wish = input(event, &mut uplink, &mut cx);
        outcome(state, &uplink, wish, &mut cx)
    };
    for (event, expected) in TABLE {
        for (state, expected) in STATES.into_iter().zip(expected) {
            assert_eq!(run(event, state), expected, "{event} while {state}");
        }
    }
    for code in CODES {
        for state in STATES {
            let expected = if ["dialing", "connecting", "up"].contains(&state) { after_close(code) } else { "." };
            assert_eq!(run(&format!("closed {code:?}"), state), expected, "closed {code:?} while {state}");
        }
    }
}

#[test]
fn minted_token_that_is_refused_ends_the_agent_whatever_the_state() {
    for (event, expected) in [
        ("401", "exit needs login, → halted"),
        ("403 of a client", "exit needs login, → halted"),
        ("401 of a page", "→ waiting"),
        ("403", "→ waiting 60 s"),
    ] {
        let (mut uplink, mut cx) = on_the_way("dialing", true);
        let wish = input(event, &mut uplink, &mut cx);
        assert_eq!(outcome("dialing", &uplink, wish, &mut cx), expected, "{event}");
    }
    for state in ["dialing", "connecting", "up"] {
        let (mut uplink, mut cx) = on_the_way(state, true);
        let wish = input("closed Revoked", &mut uplink, &mut cx);
        assert_eq!(outcome(state, &uplink, wish, &mut cx), "exit needs login, → halted", "{state}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: what is dialled has a number of its own, no wait is longer than any that was asked for, and one
    /// input orders one dial at most.
    #[test]
    fn any_inputs_leave_one_connection_at_most(inputs in prop::collection::vec((0..TABLE.len() + CODES.len(), 0..120_u64), 0..60)) {
        let (mut uplink, mut cx) = on_the_way("idle", false);
        let mut last = 0;
        for (pick, secs) in inputs {
            cx.now.instant = cx.now.instant + Duration::from_secs(secs);
            let event = TABLE.get(pick).map_or_else(|| format!("closed {:?}", CODES[pick - TABLE.len()]), |row| row.0.to_string());
            input(&event, &mut uplink, &mut cx);
            let dialled = core::iter::from_fn(|| cx.out.pop()).filter_map(|action| match action {
                Action::Dial { conn, .. } => Some(conn),
                _ => None,
            });
            let dialled: Vec<ConnId> = dialled.collect();
            prop_assert!(dialled.len() <= 1, "{}: {:?}", event, dialled);
            for conn in dialled {
                prop_assert!(conn.0 > last, "{}", event);
                prop_assert!(uplink.state == State::Dialing(conn));
                last = conn.0;
            }
            let due = cx.timers.get(&Timer::Redial);
            prop_assert_eq!(due.is_some(), uplink.state == State::Waiting, "{}", event);
            prop_assert!(due.is_none_or(|at| at.saturating_since(cx.now.instant) <= limits::RETRY_AFTER_MAX));
        }
    }
}
