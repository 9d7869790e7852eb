//! The life of a tunnel: hello, signs of life, faults, the end.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::limits::{CLOSE_TIMEOUT, DIAL_TIMEOUT, MAX_CONTROL, MAX_RECEIVE, PING_INTERVAL, PROBE_TIMEOUT};
use crate::tunnel::frame::{AnswerHead, Frame, Piece, RestartBody};
use crate::tunnel::head::LastHead;
use crate::tunnel::{Close, CloseCode, ResetCode};

fn closed(events: &[Event]) -> Option<CloseCode> {
    match events {
        [.., Event::Closed(close)] => Some(close.code),
        _ => None,
    }
}

fn binary(frames: &[Frame]) -> Message {
    let mut out = Vec::new();
    for frame in frames {
        frame.encode(&mut out);
    }
    Message::Binary(out.into())
}

#[test]
fn hello_is_the_first_frame_whatever_was_ordered_before() {
    let mut pair = Pair::new(Dialect::V2);
    pair.relay(Command::Probe);
    pair.relay(open(1, b"{}"));
    let Some(Message::Binary(mut bytes)) = pair.carry_to_agent() else { panic!("a message") };
    assert!(matches!(Frame::take(&mut bytes, &mut LastHead::default()), Ok(Some(Frame::Hello(_)))));
    assert!(matches!(pair.agent_events()[..], [Event::Up(_), Event::Call { .. }]));
}

#[test]
fn tunnel_without_a_hello_is_given_up() {
    let mut pair = Pair::new(Dialect::V2);
    pair.pass(DIAL_TIMEOUT, false);
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::TimedOut));
}

#[test]
fn quiet_tunnel_is_pinged_and_measured() {
    let mut pair = Pair::up();
    pair.pass(PING_INTERVAL * 10, true);
    let measured = |events: Vec<Event>| {
        assert!(events.iter().all(|event| matches!(event, Event::RoundTrip { .. })), "{events:?}");
        events.len()
    };
    assert!(measured(pair.relay_events()) >= 5);
    assert!(measured(pair.agent_events()) >= 5);
}

#[test]
fn round_trip_is_the_time_between_ping_and_pong() {
    let mut pair = Pair::up();
    pair.agent(Command::Probe);
    pair.carry_to_relay();
    pair.now = pair.now + Duration::from_millis(30);
    pair.carry_to_agent();
    assert_eq!(pair.agent_events(), [Event::RoundTrip { micros: 30_000 }]);
}

#[test]
fn silent_peer_is_dead_after_three_missed_pings() {
    let mut pair = Pair::up();
    pair.pass(PING_INTERVAL * 4 - Duration::from_micros(1), false);
    assert_eq!((pair.relay_events(), pair.agent_events()), (vec![], vec![]));
    pair.pass(Duration::from_micros(1), false);
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::TimedOut));
    assert_eq!(closed(&pair.agent_events()), Some(CloseCode::TimedOut));
}

#[test]
fn probe_finds_a_dead_peer_in_seconds() {
    let mut pair = Pair::up();
    pair.agent(Command::Probe);
    pair.pass(PROBE_TIMEOUT, false);
    assert_eq!(closed(&pair.agent_events()), Some(CloseCode::TimedOut));
}

#[test]
fn websocket_ping_is_answered_with_its_payload() {
    let mut pair = Pair::up();
    pair.relay.handle_message(Message::Ping(Bytes::from_static(b"hi")), at(pair.now));
    assert_eq!(pair.relay.poll_transmit(at(pair.now)), Some(Message::Pong(Bytes::from_static(b"hi"))));
}

#[test]
fn ordered_close_is_told_at_once_and_sent_after_control() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent_events();
    pair.agent(answer(1, "{}"));
    pair.agent(Command::GoAway);
    let close = Close::new(CloseCode::GoingAway, "restarting");
    pair.agent(Command::Close(close.clone()));
    assert_eq!(pair.agent_events(), [Event::Closed(close.clone())]);
    assert!(!pair.agent.is_closed());
    pair.agent(Command::Close(Close::new(CloseCode::Normal, "")));
    pair.run();
    assert!(pair.agent.is_closed() && pair.relay.is_closed());
    assert_eq!(pair.relay_events(), [Event::GoAway, Event::Closed(close)]);
    assert_eq!(pair.agent_events(), []);
}

#[test]
fn closing_frame_waits_for_a_stuck_socket_only_shortly() {
    let mut pair = Pair::up();
    pair.relay(Command::Close(Close::new(CloseCode::Revoked, "")));
    pair.pass(CLOSE_TIMEOUT, false);
    assert!(pair.relay.is_closed());
    assert_eq!(pair.relay.poll_transmit(at(pair.now)), None);
    assert_eq!(pair.relay.poll_timeout(), None);
}

#[test]
fn broken_socket_is_told_once() {
    let mut pair = Pair::up();
    pair.relay.handle_gone("reset by peer", at(pair.now));
    pair.relay.handle_gone("again", at(pair.now));
    pair.relay.handle_message(Message::Close(Close::new(CloseCode::Normal, "")), at(pair.now));
    assert_eq!(pair.relay_events(), [Event::Closed(Close::new(CloseCode::Other(1006), "reset by peer"))]);
    assert!(pair.relay.is_closed());
}

/// Every state under every input: which code is told (if any), and whether the socket may be dropped then.
#[test]
fn every_state_takes_every_input() {
    type Prepare = fn(&mut Pair);
    let states: [(&str, Prepare); 4] = [
        ("greeting", |_| {}),
        ("up", Pair::run),
        ("closing", |pair| {
            pair.run();
            pair.relay(Command::Close(Close::new(CloseCode::Revoked, "")));
        }),
        ("over", |pair| {
            pair.run();
            pair.relay.handle_gone("", at(pair.now));
        }),
    ];
    let inputs: [(&str, Prepare); 7] = [
        ("hello", |pair| pair.relay.handle_message(binary(&[Frame::Hello(Box::default())]), at(pair.now))),
        ("go away", |pair| pair.relay.handle_message(binary(&[Frame::GoAway]), at(pair.now))),
        ("peer's close", |pair| {
            pair.relay.handle_message(Message::Close(Close::new(CloseCode::GoingAway, "")), at(pair.now));
        }),
        ("open", |pair| pair.relay(open(1, b"{}"))),
        ("close", |pair| pair.relay(Command::Close(Close::new(CloseCode::Replaced, "")))),
        ("silence", |pair| pair.pass(Duration::from_secs(3_600), false)),
        ("gone", |pair| pair.relay.handle_gone("", at(pair.now))),
    ];
    let gone = CloseCode::Other(1006);
    let (protocol, going, replaced, late) =
        (CloseCode::Protocol, CloseCode::GoingAway, CloseCode::Replaced, CloseCode::TimedOut);
    let expected: [[(Option<CloseCode>, bool); 7]; 4] = [
        [
            (None, false),
            (Some(protocol), false),
            (Some(going), true),
            (None, false),
            (Some(replaced), false),
            (Some(late), true),
            (Some(gone), true),
        ],
        [
            (Some(protocol), false),
            (None, false),
            (Some(going), true),
            (None, false),
            (Some(replaced), false),
            (Some(late), true),
            (Some(gone), true),
        ],
        [(None, false), (None, false), (None, true), (None, false), (None, false), (None, true), (None, true)],
        [(None, true); 7],
    ];
    for ((state, prepare), expected) in states.into_iter().zip(expected) {
        for ((input, apply), expected) in inputs.into_iter().zip(expected) {
            let mut pair = Pair::new(Dialect::V2);
            prepare(&mut pair);
            pair.relay_events();
            apply(&mut pair);
            assert_eq!((closed(&pair.relay_events()), pair.relay.is_closed()), expected, "{state}, {input}");
        }
    }
}

#[test]
fn rules_of_the_tunnel_are_enforced() {
    let piece = |bytes: &'static [u8]| Piece { last: true, bytes: Bytes::from_static(bytes) };
    let bytes = Bytes::from_static(b"{}");
    let answer_head = |length| Frame::Answer { stream: 1, head: AnswerHead { error: None, length } };
    let beyond = vec![Frame::Data { stream: 1, bytes: vec![b'x'; 65_536].into() }; 5];
    let mut credit = vec![answer_head(None)];
    credit.extend(beyond);
    let to_relay: Vec<(&str, Vec<Frame>)> = vec![
        ("second hello", vec![Frame::Hello(Box::default())]),
        ("stream that was never opened", vec![Frame::End { stream: 2, bytes: bytes.clone() }]),
        ("body before its answer", vec![Frame::End { stream: 1, bytes: bytes.clone() }]),
        ("second answer", vec![answer_head(None), answer_head(None)]),
        ("longer than declared", vec![answer_head(Some(1)), Frame::End { stream: 1, bytes: bytes.clone() }]),
        ("shorter than declared", vec![answer_head(Some(3)), Frame::End { stream: 1, bytes: bytes.clone() }]),
        ("beyond its credit", credit),
        ("message after the answer", vec![answer_head(None), Frame::Message { stream: 1, piece: piece(b"{}") }]),
        ("call to a relay", vec![Frame::Open { stream: 3, head: Box::new(head(0)) }]),
        ("credit to a relay", vec![Frame::Credit { stream: 1, bytes: 1 }]),
        ("restart to a relay", vec![Frame::Restart(RestartBody { server: None })]),
        ("notice without a name", vec![Frame::Notice(piece(b"\0\xffx"))]),
    ];
    for (name, frames) in to_relay {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.relay.handle_message(binary(&frames), at(pair.now));
        assert_eq!(closed(&pair.relay_events()), Some(CloseCode::Protocol), "{name}");
    }
    let to_agent: Vec<(&str, Vec<Frame>)> = vec![
        ("stream opened twice", vec![Frame::Open { stream: 1, head: Box::new(head(0)) }]),
        ("params after their end", vec![Frame::End { stream: 1, bytes: bytes.clone() }]),
        (
            "params too long",
            vec![Frame::Open { stream: 2, head: Box::new(head(1)) }, Frame::End { stream: 2, bytes: bytes.clone() }],
        ),
        ("params too short", vec![Frame::Open { stream: 2, head: Box::new(head(3)) }, Frame::End { stream: 2, bytes }]),
        (
            "message before its call",
            vec![Frame::Open { stream: 2, head: Box::new(head(3)) }, Frame::Message { stream: 2, piece: piece(b"{}") }],
        ),
        ("credit without end", vec![Frame::Credit { stream: 1, bytes: u32::MAX }]),
        ("stream that was never opened", vec![Frame::Credit { stream: 2, bytes: 1 }]),
        ("answer to an agent", vec![answer_head(None)]),
        ("catalog to an agent", vec![Frame::Catalog(piece(b"{}"))]),
    ];
    for (name, frames) in to_agent {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent.handle_message(binary(&frames), at(pair.now));
        assert_eq!(closed(&pair.agent_events()), Some(CloseCode::Protocol), "{name}");
    }
}

#[test]
fn frames_before_the_hello_and_text_are_faults() {
    for message in [binary(&[Frame::GoAway]), Message::Text(Bytes::from_static(b"{}"))] {
        let mut pair = Pair::new(Dialect::V2);
        pair.relay.handle_message(message, at(pair.now));
        assert_eq!(closed(&pair.relay_events()), Some(CloseCode::Protocol));
        let last = core::iter::from_fn(|| pair.relay.poll_transmit(at(pair.now))).last();
        assert!(matches!(last, Some(Message::Close(Close { code: CloseCode::Protocol, .. }))));
    }
}

#[test]
fn message_over_the_limit_is_too_big() {
    let mut pair = Pair::up();
    pair.relay.handle_message(Message::Binary(vec![0x80; MAX_RECEIVE + 1].into()), at(pair.now));
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::TooBig));
}

#[test]
fn peer_is_told_of_a_message_that_the_socket_gave_up() {
    let mut pair = Pair::up();
    pair.relay.handle_too_large(at(pair.now));
    pair.relay.handle_too_large(at(pair.now));
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::TooBig));
    let last = pair.relay.poll_transmit(at(pair.now));
    assert!(matches!(last, Some(Message::Close(Close { code: CloseCode::TooBig, .. }))), "{last:?}");
    assert!(pair.relay.is_closed());
}

#[test]
fn agent_resets_what_it_has_no_room_for_and_goes_on() {
    let mut pair = Pair::up();
    let large = Frame::Open { stream: 1, head: Box::new(OpenHead { length: u64::MAX, ..head(0) }) };
    let late = Frame::Data { stream: 1, bytes: vec![b'x'; 9].into() };
    pair.agent.handle_message(binary(&[large, late]), at(pair.now));
    assert_eq!(pair.agent_events(), []);
    let Some(Message::Binary(mut bytes)) = pair.agent.poll_transmit(at(pair.now)) else { panic!("a message") };
    assert!(matches!(
        Frame::take(&mut bytes, &mut LastHead::default()),
        Ok(Some(Frame::Reset { stream: 1, code: ResetCode::TooLarge, .. }))
    ));
}

#[test]
fn peer_that_orders_and_never_reads_is_closed() {
    let mut pair = Pair::up();
    let refused = |stream| Frame::Open { stream, head: Box::new(OpenHead { length: u64::MAX, ..head(0) }) };
    let frames: Vec<_> = (1..=u32::try_from(MAX_CONTROL).unwrap() + 1).map(refused).collect();
    for frames in frames.chunks(1_000) {
        pair.agent.handle_message(binary(frames), at(pair.now));
    }
    assert_eq!(closed(&pair.agent_events()), Some(CloseCode::Protocol));
}

#[test]
fn small_piece_does_not_hold_its_message_in_memory() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let small = Frame::Data { stream: 1, bytes: Bytes::from_static(b"x") };
    let large = Frame::Data { stream: 1, bytes: vec![b'y'; 60_000].into() };
    let head = Frame::Answer { stream: 1, head: AnswerHead { error: None, length: None } };
    let Message::Binary(bytes) = binary(&[head, small, large]) else { unreachable!() };
    let within = |piece: &Bytes| bytes.as_ptr_range().contains(&piece.as_ptr());
    pair.relay.handle_message(Message::Binary(bytes.clone()), at(pair.now));
    let events = pair.relay_events();
    let [_, Event::Data { bytes: small, .. }, Event::Data { bytes: large, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(!within(small) && within(large));
}

/// Messages of dialect V1 with members of any kind.
fn v1_text() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null"),
        Just("1"),
        Just("\"1\""),
        Just("\"files__read\""),
        Just("[]"),
        Just("{}"),
        Just("[{\"name\":\"a__b\"},{\"name\":\"c\"},{\"name\":1},5]"),
    ];
    let kind = prop::sample::select(vec!["tools", "request", "response", "error", "restart", "other"]);
    let keys = ["id", "method", "params", "result", "message", "tools"];
    (kind, prop::collection::vec((prop::sample::select(keys.to_vec()), value), 0..5)).prop_map(|(kind, members)| {
        let members: Vec<_> = members.iter().map(|(key, value)| alloc::format!(",\"{key}\":{value}")).collect();
        alloc::format!("{{\"type\":\"{kind}\"{}}}", members.concat())
    })
}

fn input() -> impl Strategy<Value = Message> {
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    // Headers that are right in kind, so that more than the first check is reached.
    let framed = (1..16_u8, 0..4_u32, bytes.clone()).prop_map(|(kind, stream, body)| {
        let mut out = vec![kind];
        out.extend(stream.to_be_bytes());
        out.extend((body.len() as u32).to_be_bytes());
        out.extend(body);
        Message::Binary(out.into())
    });
    prop_oneof![
        4 => framed,
        1 => bytes.clone().prop_map(|bytes| Message::Binary(bytes.into())),
        1 => bytes.prop_map(|bytes| Message::Ping(bytes.into())),
        1 => "\\PC{0,30}".prop_map(|text| Message::Text(text.into())),
        4 => v1_text().prop_map(|text| Message::Text(text.into())),
        1 => Just(Message::Close(Close::new(CloseCode::Normal, ""))),
    ]
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_follows_the_end(
        inputs in prop::collection::vec((input(), any::<bool>(), 0..30_u64), 0..20),
        dialect in prop_oneof![Just(Dialect::V1), Just(Dialect::V2)],
    ) {
        let mut pair = Pair::new(dialect);
        pair.run();
        pair.call(1, b"{}");
        let mut events = (pair.relay_events(), pair.agent_events());
        for (message, to_relay, secs) in inputs {
            pair.now = pair.now + Duration::from_secs(secs);
            let side = if to_relay { &mut pair.relay } else { &mut pair.agent };
            side.handle_message(message, at(pair.now));
            side.handle_timeout(at(pair.now));
            prop_assert!(side.poll_timeout().is_none_or(|deadline| deadline.at > pair.now));
            pair.agent(answer(1, "{}"));
            pair.run();
            events.0.extend(pair.relay_events());
            events.1.extend(pair.agent_events());
        }
        pair.relay.handle_gone("", at(pair.now));
        pair.agent.handle_gone("", at(pair.now));
        events.0.extend(pair.relay_events());
        events.1.extend(pair.agent_events());
        for events in [events.0, events.1] {
            let ends = events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
            prop_assert_eq!(ends, 1);
            prop_assert!(matches!(events.last(), Some(Event::Closed(_))));
        }
    }
}
