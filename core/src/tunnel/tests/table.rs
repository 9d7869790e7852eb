//! Every frame and every order in every state of a stream, on both sides of a V2 tunnel.
//!
//! The stream is number 2; number 1 was opened before it. What follows is said in words: the events, what is sent, and
//! `fault` for a connection that is closed for a broken rule. `.`: nothing.

use std::format;
use std::vec;

use super::*;
use crate::table::{kinds, uncovered};
use crate::tunnel::ResetCode;
use crate::tunnel::close::{Close, CloseCode};
use crate::tunnel::frame::{AnswerHead, Frame, Piece, RestartBody, SessionWord};
use crate::tunnel::head::LastHead;

pub(super) const SUBJECT: u32 = 2;

/// What a side heard and what it sends then.
pub(super) fn outcome(events: Vec<Event>, side: &mut Connection, now: Instant) -> String {
    let mut said: Vec<String> = events.iter().map(|event| words(event).to_string()).collect();
    let mut sent = String::new();
    while let Some(message) = side.poll_transmit(at(now)) {
        match message {
            Message::Binary(mut bytes) => {
                while let Some(frame) =
                    Frame::take(&mut bytes, &mut LastHead::default()).expect("its own frames are right")
                {
                    sent.push(' ');
                    sent.push_str(frame.name());
                }
            }
            Message::Text(text) => {
                let text: serde_json::Value = serde_json::from_slice(&text).expect("its own messages are JSON");
                sent.push(' ');
                sent.push_str(text["type"].as_str().expect("they say what they are"));
            }
            Message::Close(_) => sent.push_str(" close"),
            Message::Ping(_) => sent.push_str(" ping"),
            Message::Pong(_) => sent.push_str(" pong"),
        }
    }
    if !sent.is_empty() {
        said.push(format!("sends{sent}"));
    }
    match &said[..] {
        [] => ".".into(),
        [fault, close] if fault == "fault" && close == "sends close" => "fault".into(),
        _ => said.join(", "),
    }
}

fn words(event: &Event) -> &'static str {
    match event {
        Event::Up(_) => "up",
        Event::Catalog(_) => "catalog",
        Event::Call { .. } => "call",
        Event::Answer { .. } => "answer",
        Event::Data { end: false, .. } => "data",
        Event::Data { end: true, .. } => "last data",
        Event::Unlisted { .. } => "unlisted",
        Event::Message { .. } => "message",
        Event::Pause { .. } => "pause",
        Event::Notice { .. } => "notice",
        Event::Reset { .. } => "reset",
        Event::Cancelled { .. } => "cancelled",
        Event::Restart { .. } => "restart",
        Event::ClientNotice { .. } => "client notice",
        Event::SessionEnded { .. } => "session ended",
        Event::GoAway => "go away",
        Event::RoundTrip { .. } => "round trip",
        Event::Closed(Close { code: CloseCode::Protocol, .. }) => "fault",
        Event::Closed(_) => "closed",
    }
}

kinds!(FRAMES, kind: Frame, "" {
    Hello, Catalog, Open, Answer, Data, End, Credit, Reset, Ping, Pong, Restart, GoAway, Message, Notice, Session, Pause,
    Cancel,
});
kinds!(ORDERS, order: Command, "" {
    Open, Consumed, Catalog, Answer, Message, Pause, Notice, Reset, Cancel, Restart, ClientNotice, SessionEnded, Probe,
    GoAway, Close,
});

#[test]
fn tables_are_of_every_frame_and_of_every_order() {
    assert_eq!(uncovered(&frames().iter().map(kind).collect(), &[FRAMES], &[]), Vec::<String>::new());
    assert_eq!(uncovered(&commands().iter().map(order).collect(), &[ORDERS], &[]), Vec::<String>::new());
}

/// One frame of every kind.
fn frames() -> Vec<Frame> {
    let stream = SUBJECT;
    let piece = |bytes: &'static [u8]| Piece { last: true, bytes: Bytes::from_static(bytes) };
    vec![
        Frame::Hello(Default::default()),
        Frame::Catalog(piece(b"{}")),
        Frame::Open { stream, head: alloc::boxed::Box::new(head(2)) },
        Frame::Answer { stream, head: AnswerHead { error: None, length: None } },
        Frame::Data { stream, bytes: Bytes::from_static(b"{") },
        Frame::End { stream, bytes: Bytes::from_static(b"{}") },
        Frame::Credit { stream, bytes: 1 },
        Frame::Reset { stream, code: ResetCode::Cancelled, reason: String::new() },
        Frame::Ping(7),
        Frame::Pong(7),
        Frame::Restart(RestartBody { server: None }),
        Frame::GoAway,
        Frame::Message { stream, piece: piece(b"{}") },
        Frame::Notice(piece(b"\0\x0e{\"server\":\"s\"}{}")),
        Frame::Session(SessionWord { session: "s".into(), server: None, notification: None }),
        Frame::Pause { stream, millis: 1 },
        Frame::Cancel { stream, params: Bytes::from_static(b"{}") },
    ]
}

/// What an order is called in the tables.
pub(super) const fn name(command: &Command) -> &'static str {
    match command {
        Command::Open { .. } => "open",
        Command::Consumed { .. } => "consumed",
        Command::Catalog(_) => "catalog",
        Command::Answer { .. } => "answer",
        Command::Message { .. } => "message",
        Command::Pause { .. } => "pause",
        Command::Notice { .. } => "notice",
        Command::Reset { .. } => "reset",
        Command::Cancel { .. } => "cancel",
        Command::Restart { .. } => "restart",
        Command::ClientNotice { .. } => "client notice",
        Command::SessionEnded { .. } => "session ended",
        Command::Probe => "probe",
        Command::GoAway => "go away",
        Command::Close(_) => "close",
    }
}

pub(super) fn commands() -> Vec<Command> {
    let stream = StreamId(SUBJECT);
    let json = Bytes::from_static(b"{}");
    vec![
        open(SUBJECT, b"{}"),
        consumed(SUBJECT, 1),
        Command::Catalog(json.clone()),
        answer(SUBJECT, "{}"),
        message(SUBJECT, "{}", false),
        Command::Pause { stream, millis: 1 },
        Command::Notice { server: "s".into(), sessions: Vec::new(), json: json.clone() },
        Command::Reset { stream, code: ResetCode::Cancelled, reason: String::new() },
        Command::Cancel { stream, params: json.clone(), reason: String::new() },
        Command::Restart { server: None },
        Command::ClientNotice { session: "s".into(), server: None, json },
        Command::SessionEnded { session: "s".into() },
        Command::Probe,
        Command::GoAway,
        Command::Close(Close::new(CloseCode::Normal, "")),
    ]
}

fn hand(side: &mut Connection, frames: &[Frame], now: Instant) {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    side.handle_message(Message::Binary(out.into()), at(now));
}

const RELAY_STATES: [&str; 6] = ["unopened", "queued", "open", "answered", "finished", "reset"];

/// A relay whose stream is in that state; all that it had to say was said, but for a queued call.
fn relay(state: &str) -> (Connection, Instant) {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    if state != "unopened" {
        pair.relay(open(SUBJECT, b"{}"));
    }
    let Pair { mut relay, now, .. } = pair;
    let opened = if state == "queued" { ".".into() } else { outcome(Vec::new(), &mut relay, now) };
    let answer = Frame::Answer { stream: SUBJECT, head: AnswerHead { error: None, length: None } };
    let end = Frame::End { stream: SUBJECT, bytes: Bytes::new() };
    match state {
        "unopened" | "queued" | "open" => {}
        "answered" => hand(&mut relay, &[answer], now),
        "finished" => hand(&mut relay, &[answer, end], now),
        "reset" => {
            let reset = Command::Reset { stream: StreamId(SUBJECT), code: ResetCode::Cancelled, reason: String::new() };
            relay.handle_command(reset, at(now));
        }
        other => panic!("no such state: {other}"),
    }
    let events: Vec<Event> = core::iter::from_fn(|| relay.poll_event()).collect();
    let then = if state == "queued" { events.len().to_string() } else { outcome(events, &mut relay, now) };
    let reached = match state {
        "unopened" => ". | .",
        "queued" => ". | 0",
        "open" => "sends open end | .",
        "answered" => "sends open end | answer",
        "finished" => "sends open end | answer, last data",
        _ => "sends open end | sends reset",
    };
    assert_eq!(format!("{opened} | {then}"), reached, "the way to {state}");
    (relay, now)
}

const AGENT_STATES: [&str; 6] = ["unopened", "params", "called", "answered", "sent", "reset"];

/// An agent whose stream is in that state; all that it had to say was said, but for an answer that waits.
fn agent(state: &str) -> (Connection, Instant) {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let Pair { mut agent, now, .. } = pair;
    let begin = Frame::Open { stream: SUBJECT, head: alloc::boxed::Box::new(head(2)) };
    let params = Frame::End { stream: SUBJECT, bytes: Bytes::from_static(b"{}") };
    let reset = Frame::Reset { stream: SUBJECT, code: ResetCode::Cancelled, reason: String::new() };
    let frames = match state {
        "unopened" => vec![],
        "params" => vec![begin],
        "called" | "answered" | "sent" => vec![begin, params],
        "reset" => vec![begin, params, reset],
        other => panic!("no such state: {other}"),
    };
    hand(&mut agent, &frames, now);
    let called: Vec<&str> = core::iter::from_fn(|| agent.poll_event()).map(|event| words(&event)).collect();
    if matches!(state, "answered" | "sent") {
        agent.handle_command(answer(SUBJECT, "{}"), at(now));
    }
    let sent = if state == "answered" { ".".into() } else { outcome(Vec::new(), &mut agent, now) };
    let reached = match state {
        "unopened" => "call | .",
        "params" => "call | .",
        "called" => "call, call | .",
        "answered" => "call, call | .",
        "sent" => "call, call | sends answer end",
        _ => "call, call, reset | .",
    };
    assert_eq!(format!("{} | {sent}", called.join(", ")), reached, "the way to {state}");
    (agent, now)
}

type Table<const N: usize> = [(&'static str, [&'static str; 6]); N];

/// Checks a table, and that its rows are what there is.
fn check<T, const N: usize>(
    table: Table<N>,
    states: [&str; 6],
    inputs: Vec<T>,
    of: impl Fn(&T) -> &'static str,
    side: impl Fn(&str) -> (Connection, Instant),
    give: impl Fn(&T, &mut Connection, Instant),
) {
    assert_eq!(inputs.iter().map(&of).collect::<Vec<_>>(), table.map(|(input, _)| input), "every kind has its row");
    for (input, (name, expected)) in inputs.into_iter().zip(table) {
        for (state, expected) in states.into_iter().zip(expected) {
            let (mut connection, now) = side(state);
            give(&input, &mut connection, now);
            let events = core::iter::from_fn(|| connection.poll_event()).collect();
            assert_eq!(outcome(events, &mut connection, now), expected, "{name} while {state}");
        }
    }
}

#[test]
fn every_frame_to_a_relay_in_every_state_of_its_stream() {
    let fault = "fault";
    // A call that is queued is sent once nothing else is: its agent does not know of it yet.
    let queued = "sends open end";
    let table = [
        //             unopened, queued, open, answered, finished, reset
        ("hello", [fault; 6]),
        ("catalog", ["catalog", "catalog, sends open end", "catalog", "catalog", "catalog", "catalog"]),
        ("open", [fault; 6]),
        ("answer", [fault, fault, "answer", fault, ".", "."]),
        ("data", [fault, fault, fault, "data", ".", "."]),
        ("end", [fault, fault, fault, "last data", ".", "."]),
        ("credit", [fault; 6]),
        ("reset", [fault, fault, "reset", "reset", ".", "."]),
        ("ping", ["sends pong", "sends pong open end", "sends pong", "sends pong", "sends pong", "sends pong"]),
        ("pong", [".", queued, ".", ".", ".", "."]),
        ("restart", [fault; 6]),
        ("go away", ["go away", "go away, sends open end", "go away", "go away", "go away", "go away"]),
        ("message", [fault, fault, "message", fault, ".", "."]),
        ("notice", ["notice", "notice, sends open end", "notice", "notice", "notice", "notice"]),
        ("session", [fault; 6]),
        ("pause", [fault, fault, "pause", "pause", ".", "."]),
        ("cancel", [fault; 6]),
    ];
    check(table, RELAY_STATES, frames(), Frame::name, relay, |frame, relay, now| {
        hand(relay, core::slice::from_ref(frame), now)
    });
}

#[test]
fn every_frame_to_an_agent_in_every_state_of_its_stream() {
    let fault = "fault";
    // An answer that waits is sent whatever comes, unless its call is over.
    let waits = "sends answer end";
    let table = [
        //             unopened, params, called, answered, sent, reset
        ("hello", [fault; 6]),
        ("catalog", [fault; 6]),
        ("open", [".", fault, fault, fault, fault, fault]),
        ("answer", [fault; 6]),
        ("data", [fault, ".", fault, fault, ".", "."]),
        ("end", [fault, "call", fault, fault, ".", "."]),
        ("credit", [fault, ".", ".", waits, ".", "."]),
        ("reset", [fault, ".", "reset", "reset", ".", "."]),
        ("ping", ["sends pong", "sends pong", "sends pong", "sends pong answer end", "sends pong", "sends pong"]),
        ("pong", [".", ".", ".", waits, ".", "."]),
        ("restart", ["restart", "restart", "restart", "restart, sends answer end", "restart", "restart"]),
        ("go away", ["go away", "go away", "go away", "go away, sends answer end", "go away", "go away"]),
        ("message", [fault, fault, "message", waits, ".", "."]),
        ("notice", [fault; 6]),
        (
            "session",
            [
                "session ended",
                "session ended",
                "session ended",
                "session ended, sends answer end",
                "session ended",
                "session ended",
            ],
        ),
        ("pause", [fault; 6]),
        ("cancel", [fault, ".", "cancelled", "cancelled", ".", "."]),
    ];
    check(table, AGENT_STATES, frames(), Frame::name, agent, |frame, agent, now| {
        hand(agent, core::slice::from_ref(frame), now)
    });
}

#[test]
fn every_order_to_a_relay_in_every_state_of_its_stream() {
    let not_its = [".", "sends open end", ".", ".", ".", "."];
    let table = [
        //             unopened, queued, open, answered, finished, reset
        // A number is used once: the second call is refused, whatever became of the first.
        ("open", ["sends open end", "reset, sends open end", "reset", "reset", "reset", "reset"]),
        ("consumed", not_its),
        ("catalog", not_its),
        ("answer", not_its),
        ("message", [".", "sends open end message", "sends message", "sends message", ".", "."]),
        ("pause", not_its),
        ("notice", not_its),
        ("reset", [".", ".", "sends reset", "sends reset", ".", "."]),
        ("cancel", [".", ".", "sends cancel reset", "sends cancel reset", ".", "."]),
        (
            "restart",
            [
                "sends restart",
                "sends restart open end",
                "sends restart",
                "sends restart",
                "sends restart",
                "sends restart",
            ],
        ),
        (
            "client notice",
            [
                "sends session",
                "sends session open end",
                "sends session",
                "sends session",
                "sends session",
                "sends session",
            ],
        ),
        (
            "session ended",
            [
                "sends session",
                "sends session open end",
                "sends session",
                "sends session",
                "sends session",
                "sends session",
            ],
        ),
        ("probe", ["sends ping", "sends ping open end", "sends ping", "sends ping", "sends ping", "sends ping"]),
        (
            "go away",
            [
                "sends go away",
                "sends go away open end",
                "sends go away",
                "sends go away",
                "sends go away",
                "sends go away",
            ],
        ),
        ("close", ["closed, sends close"; 6]),
    ];
    check(table, RELAY_STATES, commands(), name, relay, |command, relay, now| {
        relay.handle_command(command.clone(), at(now))
    });
}

#[test]
fn every_order_to_an_agent_in_every_state_of_its_stream() {
    let waits = "sends answer end";
    let not_its = [".", ".", ".", waits, ".", "."];
    let table = [
        //             unopened, params, called, answered, sent, reset
        ("open", not_its),
        ("consumed", not_its),
        (
            "catalog",
            [
                "sends catalog",
                "sends catalog",
                "sends catalog",
                "sends answer end catalog",
                "sends catalog",
                "sends catalog",
            ],
        ),
        ("answer", [".", waits, waits, waits, ".", "."]),
        ("message", [".", "sends message", "sends message", waits, ".", "."]),
        ("pause", [".", "sends pause", "sends pause", waits, ".", "."]),
        (
            "notice",
            ["sends notice", "sends notice", "sends notice", "sends answer end notice", "sends notice", "sends notice"],
        ),
        ("reset", [".", "sends reset", "sends reset", "sends reset", ".", "."]),
        ("cancel", not_its),
        ("restart", not_its),
        ("client notice", not_its),
        ("session ended", not_its),
        ("probe", ["sends ping", "sends ping", "sends ping", "sends ping answer end", "sends ping", "sends ping"]),
        (
            "go away",
            [
                "sends go away",
                "sends go away",
                "sends go away",
                "sends go away answer end",
                "sends go away",
                "sends go away",
            ],
        ),
        ("close", ["closed, sends close"; 6]),
    ];
    check(table, AGENT_STATES, commands(), name, agent, |command, agent, now| {
        agent.handle_command(command.clone(), at(now))
    });
}
