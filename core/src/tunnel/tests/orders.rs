//! What becomes of orders that say too much, or too late.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::edges::{binary, resets};
use super::*;
use crate::limits::{CHUNK, MAX_MESSAGE, MAX_TRANSMIT, STALL_TIMEOUT, STREAM_CREDIT};
use crate::tunnel::ResetCode;
use crate::tunnel::frame::{AnswerHead, Frame, HEADER, MAX_HEAD};
use crate::tunnel::head::LastHead;

#[test]
fn length_of_a_request_is_that_of_its_params_whatever_was_said() {
    let mut pair = Pair::up();
    let params = Bytes::from_static(b"{}");
    pair.relay(Command::Open { stream: StreamId(1), head: head(99), params, v1_tool: None });
    pair.run();
    let events = pair.agent_events();
    assert!(
        matches!(&events[..], [Event::Call { head, params, .. }] if head.length == 2 && params == "{}"),
        "{events:?}"
    );
}

#[test]
fn words_of_a_cancellation_are_sent_up_to_their_bound() {
    for (length, sent) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent_events();
        let (stream, params) = (StreamId(1), vec![b' '; length].into());
        pair.relay(Command::Cancel { stream, params, reason: String::new() });
        pair.run();
        let events = pair.agent_events();
        assert_eq!(events.iter().any(|event| matches!(event, Event::Cancelled { .. })), sent, "{length}");
    }
}

#[test]
fn answer_that_announces_too_much_is_given_up_at_once() {
    for (more, expected) in [(0, &[][..]), (1, &[(1, ResetCode::TooLarge)])] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        let head = AnswerHead { error: None, length: Some(MAX_MESSAGE as u64 + more) };
        pair.relay.handle_message(binary(&Frame::Answer { stream: 1, head }), at(pair.now));
        assert_eq!(resets(&pair.relay_events()), expected);
    }
}

#[test]
fn stalled_call_is_not_kept_by_what_is_said_on_it() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(message(1, "x".repeat(STREAM_CREDIT as usize), false));
    while pair.carry_to_relay().is_some() {}
    pair.agent(message(1, "stalled", false));
    pair.agent_events();
    let (begun, half) = (pair.now, STALL_TIMEOUT / 2);
    for at_half in [true, false] {
        while pair.now < begun + if at_half { half } else { STALL_TIMEOUT } {
            pair.now = pair.now + Duration::from_secs(1);
            pair.agent.handle_message(binary(&Frame::Ping(1)), at(pair.now));
            pair.agent.handle_timeout(at(pair.now));
        }
        if at_half {
            pair.agent(message(1, "more", false));
        }
    }
    assert_eq!(resets(&pair.agent_events()), [(1, ResetCode::Stalled)]);
}

#[test]
fn notification_of_a_client_is_sent_up_to_its_bound() {
    let room = MAX_HEAD - 2 * 1024 - "\"\"".len();
    for (length, sent) in [(room, true), (room + 1, false)] {
        let mut pair = Pair::up();
        let json = vec![b' '; length].into();
        pair.relay(Command::ClientNotice { session: "s".into(), server: None, json });
        pair.run();
        assert_eq!(matches!(pair.agent_events()[..], [Event::ClientNotice { .. }]), sent, "{length}");
    }
}

/// What each order of [`ended`] takes of a message.
const ORDER: usize = 512;
/// Less room than this is not worth a piece.
const LEAST_ROOM: usize = 1024;

fn with_calls(count: usize) -> Pair {
    let mut pair = Pair::up();
    for stream in 1..=count {
        pair.relay(open(u32::try_from(stream).unwrap(), b"{}"));
    }
    pair.run();
    pair.agent_events();
    pair
}

/// Orders that end the first so many calls.
fn ended(count: usize) -> impl Iterator<Item = Command> {
    let reason = "x".repeat(ORDER - HEADER - 1);
    let end = move |stream| Command::Reset { stream, code: ResetCode::Cancelled, reason: reason.clone() };
    (1..=u32::try_from(count).unwrap()).map(StreamId).map(end)
}

fn length(message: Option<Message>) -> usize {
    let Some(Message::Binary(bytes)) = message else { panic!("{message:?}") };
    bytes.len()
}

#[test]
fn message_that_is_full_takes_no_further_order() {
    let fit = MAX_TRANSMIT / ORDER;
    let mut pair = with_calls(fit + 1);
    ended(fit + 1).for_each(|end| pair.agent(end));
    assert_eq!([length(pair.carry_to_relay()), length(pair.carry_to_relay())], [MAX_TRANSMIT, ORDER]);
}

#[test]
fn message_that_is_full_takes_no_credit() {
    let fit = MAX_TRANSMIT / ORDER;
    let mut pair = with_calls(fit + 1);
    let last = u32::try_from(fit + 1).unwrap();
    pair.agent(answer(last, vec![b'x'; STREAM_CREDIT as usize + 1]));
    while pair.carry_to_relay().is_some() {}
    pair.relay(consumed(last, STREAM_CREDIT as usize));
    ended(fit).for_each(|end| pair.relay(end));
    assert_eq!([length(pair.carry_to_agent()), length(pair.carry_to_agent())], [MAX_TRANSMIT, HEADER + 4]);
}

#[test]
fn answer_is_begun_beside_orders_where_they_leave_enough_room() {
    let fit = (MAX_TRANSMIT - LEAST_ROOM) / ORDER;
    for (orders, begun) in [(fit, true), (fit + 1, false)] {
        let mut pair = with_calls(fit + 2);
        ended(orders).for_each(|end| pair.agent(end));
        pair.agent(answer(u32::try_from(fit + 2).unwrap(), "{}"));
        assert_eq!(length(pair.carry_to_relay()) > orders * ORDER, begun, "{orders}");
    }
}

#[test]
fn turn_of_a_call_goes_on_as_long_as_enough_room_is_left() {
    for (longer, turns) in [(0, [1, 1, 2]), (1, [1, 2, 1])] {
        let mut pair = with_calls(2);
        pair.agent(message(1, "x".repeat(CHUNK - LEAST_ROOM - HEADER - 1 + longer), false));
        pair.agent(message(1, "of the first", false));
        pair.agent(message(2, "of the second", false));
        pair.run();
        let stream = |event: &Event| if let Event::Message { stream, .. } = event { stream.0 } else { 0 };
        assert_eq!(pair.relay_events().iter().map(stream).collect::<Vec<_>>(), turns);
    }
}

#[test]
fn answer_that_is_alone_fills_its_message_with_one_piece() {
    let mut pair = with_calls(1);
    pair.agent(answer(1, vec![b'x'; MAX_TRANSMIT]));
    let Some(Message::Binary(mut said)) = pair.carry_to_relay() else { panic!("a message") };
    let frames = core::iter::from_fn(|| Frame::take(&mut said, &mut LastHead::default()).ok()?);
    let frames: Vec<_> = frames.collect();
    assert!(matches!(frames[..], [Frame::Answer { .. }, Frame::Data { .. }]), "{}", frames.len());
}

#[test]
fn credit_goes_back_when_there_is_enough_of_it() {
    let mut pair = with_calls(1);
    pair.agent(answer(1, vec![b'x'; STREAM_CREDIT as usize + 1]));
    while pair.carry_to_relay().is_some() {}
    pair.relay(consumed(1, STREAM_CREDIT as usize / 4 - 1));
    assert_eq!(pair.carry_to_agent(), None);
    pair.relay(consumed(1, 1));
    assert_eq!(length(pair.carry_to_agent()), HEADER + 4);
}
