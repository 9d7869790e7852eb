//! What becomes of orders that say too much, or too late.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::*;
use crate::limits::{MAX_MESSAGE, STALL_TIMEOUT, STREAM_CREDIT};
use crate::tunnel::ResetCode;
use crate::tunnel::frame::{AnswerHead, Frame, MAX_HEAD};

fn binary(frame: &Frame) -> Message {
    let mut out = Vec::new();
    frame.encode(&mut out);
    Message::Binary(out.into())
}

fn resets(events: &[Event]) -> Vec<ResetCode> {
    events.iter().filter_map(|event| if let Event::Reset { code, .. } = event { Some(*code) } else { None }).collect()
}

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
    for (more, expected) in [(0, &[][..]), (1, &[ResetCode::TooLarge])] {
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
    assert_eq!(resets(&pair.agent_events()), [ResetCode::Stalled]);
}
