//! A tunnel at the edges: a moment early or late, a byte more or less.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::*;
use crate::limits::{
    DIAL_TIMEOUT, MAX_ASSEMBLY, MAX_BUFFERED, MAX_CALL_MESSAGE, MAX_CALL_QUEUE, MAX_CATALOG, MAX_CONTROL, MAX_RECEIVE,
    MAX_STREAMS, MAX_TRANSMIT, MAX_UNREAD, MAX_V1_MESSAGE, PING_INTERVAL, PROBE_TIMEOUT, STALL_TIMEOUT, STREAM_CREDIT,
    V1_CALL_TIMEOUT,
};
use crate::tunnel::frame::{AnswerHead, Frame, HEADER, MAX_HEAD, Piece};
use crate::tunnel::head::LastHead;
use crate::tunnel::{CloseCode, ResetCode};

const INSTANT: Duration = Duration::from_micros(1);

fn closed(events: &[Event]) -> Option<CloseCode> {
    events.iter().find_map(|event| if let Event::Closed(close) = event { Some(close.code) } else { None })
}

pub(super) fn resets(events: &[Event]) -> Vec<(u32, ResetCode)> {
    let reset = |event: &Event| match event {
        Event::Reset { stream, code, .. } => Some((stream.0, *code)),
        _ => None,
    };
    events.iter().filter_map(reset).collect()
}

pub(super) fn binary(frame: &Frame) -> Message {
    let mut out = Vec::new();
    frame.encode(&mut out);
    Message::Binary(out.into())
}

#[test]
fn early_wake_before_the_hello_gives_nobody_up() {
    let mut pair = Pair::new(Dialect::V2);
    pair.now = pair.now + (DIAL_TIMEOUT - INSTANT);
    pair.relay.handle_timeout(at(pair.now));
    assert_eq!(closed(&pair.relay_events()), None);
    pair.now = pair.now + INSTANT;
    pair.relay.handle_timeout(at(pair.now));
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::TimedOut));
}

#[test]
fn pings_do_not_stand_for_the_hello() {
    let mut pair = Pair::new(Dialect::V2);
    let end = pair.now + DIAL_TIMEOUT;
    while pair.now < end {
        pair.relay.handle_message(Message::Ping(Bytes::from_static(b"hi")), at(pair.now));
        pair.pass(Duration::from_secs(1), false);
    }
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::TimedOut));
}

#[test]
fn probe_does_not_put_off_the_next_sign_of_life() {
    let mut pair = Pair::up();
    let next = pair.now + PING_INTERVAL;
    pair.pass(PING_INTERVAL - PROBE_TIMEOUT / 2, false);
    pair.agent(Command::Probe);
    assert_eq!(pair.agent.poll_timeout().map(|deadline| deadline.at), Some(next));
}

#[test]
fn stalled_call_wakes_the_tunnel_by_itself() {
    let mut pair = Pair::up();
    // Between two signs of life, which would wake it too.
    pair.pass(PING_INTERVAL / 4, true);
    pair.call(1, b"{}");
    pair.agent(answer(1, vec![b'x'; STREAM_CREDIT as usize + 1]));
    pair.run();
    pair.pass(PING_INTERVAL / 4, true);
    pair.relay(Command::Probe);
    pair.run();
    pair.pass(STALL_TIMEOUT - PING_INTERVAL / 4, true);
    assert_eq!(resets(&pair.agent_events()), [(1, ResetCode::Stalled)]);
}

#[test]
fn old_agents_silence_on_a_call_wakes_the_relay_by_itself() {
    let mut pair = Pair::new(Dialect::V1);
    pair.pass(PING_INTERVAL / 3, true);
    let params = Bytes::from_static(b"{}");
    pair.relay(Command::Open { stream: StreamId(1), head: head(2), params, v1_tool: Some("a__b".into()) });
    // Sent, and never answered.
    assert!(pair.relay.poll_transmit(at(pair.now)).is_some());
    pair.pass(V1_CALL_TIMEOUT, true);
    assert_eq!(resets(&pair.relay_events()), [(1, ResetCode::TimedOut)]);
}

#[test]
fn old_relays_patience_wakes_the_agent_by_itself() {
    let mut pair = Pair::new(Dialect::V1);
    let catalog = r#"{"whole":true,"servers":[{"name":"a","state":"ready","tools":[{"name":"b"}]}]}"#;
    pair.agent(Command::Catalog(catalog.into()));
    pair.pass(PING_INTERVAL / 3, true);
    let request = Bytes::from_static(br#"{"type":"request","id":"1","method":"a__b","params":{}}"#);
    pair.agent.handle_message(Message::Text(request), at(pair.now));
    pair.pass(V1_CALL_TIMEOUT, true);
    assert_eq!(resets(&pair.agent_events()), [(1, ResetCode::TimedOut)]);
}

#[test]
fn catalog_is_carried_in_messages_of_the_agreed_size() {
    let mut pair = Pair::up();
    pair.agent(Command::Catalog(vec![b' '; 4 * MAX_TRANSMIT].into()));
    let messages = core::iter::from_fn(|| pair.carry_to_relay());
    let sizes: Vec<_> =
        messages.map(|message| if let Message::Binary(bytes) = message { bytes.len() } else { 0 }).collect();
    assert_eq!(sizes[..4], [MAX_TRANSMIT; 4]);
    assert!(sizes[4..].iter().sum::<usize>() < MAX_TRANSMIT);
}

#[test]
fn largest_cancellation_is_taken_and_a_larger_one_closes() {
    for (length, expected) in [(MAX_HEAD, None), (MAX_HEAD + 1, Some(CloseCode::TooBig))] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent_events();
        let params = Bytes::from(vec![b' '; length]);
        pair.agent.handle_message(binary(&Frame::Cancel { stream: 1, params }), at(pair.now));
        let events = pair.agent_events();
        assert_eq!(closed(&events), expected);
        assert_eq!(matches!(events[..], [Event::Cancelled { .. }]), expected.is_none());
    }
}

#[test]
fn reason_of_a_reset_arrives_as_it_was_meant() {
    for (byte, code) in [
        (1, ResetCode::Cancelled),
        (2, ResetCode::TooLarge),
        (3, ResetCode::Stalled),
        (4, ResetCode::ServerGone),
        (5, ResetCode::Internal),
        (6, ResetCode::Overloaded),
        (7, ResetCode::TimedOut),
    ] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent(Command::Reset { stream: StreamId(1), code, reason: "why".into() });
        let Some(Message::Binary(frame)) = pair.carry_to_relay() else { panic!("a frame") };
        assert_eq!(frame[..], [8, 0, 0, 0, 1, 0, 0, 0, 4, byte, b'w', b'h', b'y']);
        assert_eq!(resets(&pair.relay_events()), [(1, code)]);
    }
}

#[test]
fn answer_is_announced_even_without_credit() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let half = "x".repeat(STREAM_CREDIT as usize / 2);
    pair.agent(message(1, &half, false));
    pair.agent(message(1, &half, false));
    pair.run();
    pair.agent(answer(1, "{}"));
    pair.run();
    let events = pair.relay_events();
    assert!(matches!(events[..], [Event::Message { .. }, Event::Message { .. }, Event::Answer { .. }]), "{events:?}");
}

#[test]
fn message_holds_the_credit_of_half_a_window_and_no_more() {
    for (length, expected) in [(STREAM_CREDIT / 2, STREAM_CREDIT / 2), (1, 1)] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent(message(1, "x".repeat(length as usize), false));
        pair.run();
        let [Event::Message { credit, .. }] = pair.relay_events()[..] else { panic!("one message") };
        assert_eq!(credit, expected);
    }
}

#[test]
fn largest_message_is_taken_and_a_larger_one_closes() {
    for (length, expected) in [(MAX_RECEIVE, None), (MAX_RECEIVE + 1, Some(CloseCode::TooBig))] {
        let mut pair = Pair::up();
        let mut unknown = vec![0x81, 0, 0, 0, 0];
        unknown.extend(u32::try_from(length - HEADER).unwrap().to_be_bytes());
        unknown.resize(length, 0);
        pair.relay.handle_message(Message::Binary(unknown.into()), at(pair.now));
        assert_eq!(closed(&pair.relay_events()), expected);
    }
}

#[test]
fn pause_of_an_answered_call_is_not_told() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(answer(1, "{}"));
    pair.agent(Command::Pause { stream: StreamId(1), millis: 5 });
    pair.run();
    assert!(matches!(pair.relay_events()[..], [Event::Answer { .. }, Event::Data { .. }]));
}

#[test]
fn unfinished_replies_are_bounded_together() {
    let mut pair = Pair::up();
    let piece = Bytes::from(vec![b'x'; MAX_RECEIVE / 8 * 7]);
    let pieces = MAX_CALL_MESSAGE / piece.len();
    let calls = u32::try_from(MAX_ASSEMBLY / (pieces * piece.len())).unwrap() + 1;
    for stream in 1..=calls {
        pair.call(stream, b"{}");
        for _ in 0..pieces {
            let piece = Piece { last: false, bytes: piece.clone() };
            pair.agent.handle_message(binary(&Frame::Message { stream, piece }), at(pair.now));
        }
    }
    assert_eq!(resets(&pair.agent_events()), [(calls, ResetCode::Overloaded)]);
}

#[test]
fn largest_text_of_an_old_peer_is_taken_and_a_larger_one_closes() {
    for (length, expected) in [(MAX_V1_MESSAGE, None), (MAX_V1_MESSAGE + 1, Some(CloseCode::TooBig))] {
        let mut pair = Pair::new(Dialect::V1);
        let mut unknown = br#"{"type":"unknown"}"#.to_vec();
        unknown.resize(length, b' ');
        pair.relay.handle_message(Message::Text(unknown.into()), at(pair.now));
        assert_eq!(closed(&pair.relay_events()), expected);
    }
}

#[test]
fn old_relay_that_asks_and_never_reads_fills_a_bounded_queue() {
    let mut pair = Pair::new(Dialect::V1);
    let unknown = Bytes::from_static(br#"{"type":"request","id":"1","method":"nobody__knows","params":{}}"#);
    for _ in 0..MAX_CONTROL + 10 {
        pair.agent.handle_message(Message::Text(unknown.clone()), at(pair.now));
    }
    let said = core::iter::from_fn(|| pair.agent.poll_transmit(at(pair.now))).count();
    assert_eq!(said, MAX_CONTROL);
}

#[test]
fn unfinished_messages_of_calls_are_bounded_together() {
    let mut pair = Pair::up();
    let piece = Bytes::from(vec![b'x'; STREAM_CREDIT as usize / 16 * 15]);
    let pieces = MAX_CALL_MESSAGE / piece.len();
    let calls = u32::try_from(MAX_ASSEMBLY / (pieces * piece.len())).unwrap() + 1;
    for stream in 1..=calls {
        pair.call(stream, b"{}");
        for _ in 0..pieces {
            let piece = Piece { last: false, bytes: piece.clone() };
            pair.relay.handle_message(binary(&Frame::Message { stream, piece }), at(pair.now));
            // Returns the credit of what the tunnel itself holds.
            pair.relay.poll_transmit(at(pair.now));
        }
    }
    assert_eq!(resets(&pair.relay_events()), [(calls, ResetCode::Overloaded)]);
}

#[test]
fn unfinished_requests_are_bounded_together() {
    let mut pair = Pair::up();
    let piece = Bytes::from(vec![b' '; MAX_RECEIVE / 2]);
    let length = MAX_ASSEMBLY / 8 * 5;
    for stream in 1..=2 {
        let open = Frame::Open { stream, head: head(length).into() };
        pair.agent.handle_message(binary(&open), at(pair.now));
        for _ in 0..length / piece.len() - 1 {
            pair.agent.handle_message(binary(&Frame::Data { stream, bytes: piece.clone() }), at(pair.now));
        }
    }
    let Some(Message::Binary(mut said)) = pair.agent.poll_transmit(at(pair.now)) else { panic!("a frame") };
    let reset = Frame::take(&mut said, &mut LastHead::default());
    assert!(matches!(reset, Ok(Some(Frame::Reset { stream: 2, code: ResetCode::Overloaded, .. }))), "{reset:?}");
    assert_eq!(pair.agent_events(), [], "the owner never heard of the call");
}

#[test]
fn largest_body_passes_and_a_larger_one_ends_only_its_call() {
    let now = Instant::from_micros(1_000_000);
    let connection = |side| {
        let hello = Hello { max_message: 10, ..Hello::default() };
        Connection::new(Settings { side, dialect: Dialect::V2, hello }, at(now))
    };
    for (length, expected) in [(10, None), (11, Some(ResetCode::TooLarge)), (12, Some(ResetCode::TooLarge))] {
        let mut pair = Pair { relay: connection(Side::Relay), agent: connection(Side::Agent), now };
        pair.run();
        let code = |events: &[Event]| resets(events).first().map(|(_, code)| *code);
        let body = vec![b' '; length];
        pair.relay(open(1, &body));
        assert_eq!(code(&pair.relay_events()), expected, "a request that is not sent");
        pair.call(2, b"{}");
        pair.agent_events();
        pair.agent(answer(2, body.clone()));
        assert_eq!(code(&pair.agent_events()), expected, "an answer that is not sent");
        let open = Frame::Open { stream: 3, head: head(length).into() };
        pair.agent.handle_message(binary(&open), at(now));
        pair.agent.handle_message(binary(&Frame::End { stream: 3, bytes: body.into() }), at(now));
        let called = matches!(pair.agent_events()[..], [Event::Call { .. }]);
        assert_eq!(called, expected.is_none(), "a request that was sent all the same");
    }
}

#[test]
fn message_after_the_answer_is_not_told() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent_events();
    pair.agent(answer(1, vec![b'x'; STREAM_CREDIT as usize + 1]));
    pair.run();
    pair.relay(message(1, "late", false));
    pair.run();
    assert_eq!(pair.agent_events(), []);
}

#[test]
fn answer_to_a_call_that_was_not_sent_yet_closes() {
    let mut pair = Pair::up();
    pair.relay(open(1, b"{}"));
    let head = AnswerHead { error: None, length: None };
    pair.relay.handle_message(binary(&Frame::Answer { stream: 1, head }), at(pair.now));
    assert_eq!(closed(&pair.relay_events()), Some(CloseCode::Protocol));
}

#[test]
fn head_with_any_member_too_long_is_refused_before_it_is_sent() {
    // In JSON each of these is six.
    let long = || "\u{1}".repeat(MAX_HEAD / 5);
    let heads = [
        OpenHead { server: long().into(), ..head(2) },
        OpenHead { method: long().into(), ..head(2) },
        OpenHead { version: Some(long().into()), ..head(2) },
        OpenHead { client: Some(long().into()), ..head(2) },
        OpenHead { actor: long().into(), ..head(2) },
        OpenHead { session: long().into(), ..head(2) },
        OpenHead { capabilities: long().into(), ..head(2) },
    ];
    for head in heads {
        let mut pair = Pair::up();
        pair.relay(Command::Open { stream: StreamId(1), head, params: Bytes::from_static(b"{}"), v1_tool: None });
        assert_eq!(resets(&pair.relay_events()), [(1, ResetCode::TooLarge)]);
    }
}

#[test]
fn largest_head_is_sent_and_a_larger_one_is_not() {
    let of = |actor: usize| OpenHead { actor: "x".repeat(actor).into(), ..head(2) };
    let room = MAX_HEAD - of(1).written().len() + 1;
    for (actor, fits) in [(MAX_HEAD / 2, true), (room, true), (room + 1, false)] {
        let mut pair = Pair::up();
        let params = Bytes::from_static(b"{}");
        pair.relay(Command::Open { stream: StreamId(1), head: of(actor), params, v1_tool: None });
        pair.run();
        assert_eq!(pair.relay_events().is_empty(), fits, "{actor}");
        assert_eq!(matches!(pair.agent_events()[..], [Event::Call { .. }]), fits, "{actor}");
    }
}

#[test]
fn what_waits_may_fill_its_bound_to_the_last_byte() {
    let mut pair = Pair::up();
    let body = Bytes::from(vec![b' '; MAX_V1_MESSAGE]);
    let fit = u32::try_from(MAX_BUFFERED / body.len()).unwrap();
    for stream in 1..=fit + 1 {
        pair.call(stream, b"{}");
    }
    pair.agent_events();
    for stream in 1..=fit {
        pair.agent(answer(stream, body.clone()));
    }
    assert_eq!(pair.agent_events(), []);
    pair.agent(answer(fit + 1, "1"));
    assert_eq!(resets(&pair.agent_events()).len(), 1);
}

#[test]
fn old_agents_server_may_be_called_as_what_names_no_server() {
    let mut pair = Pair::new(Dialect::V1);
    let tools = br#"{"type":"tools","tools":[{"name":"read"},{"name":"tools__write"}]}"#;
    pair.relay.handle_message(Message::Text(Bytes::from_static(tools)), at(pair.now));
    for (stream, joined, listed) in [(1, "tools__read", "read"), (2, "tools__write", "tools__write")] {
        let params = Bytes::from_static(b"{}");
        pair.relay(Command::Open { stream: StreamId(stream), head: head(2), params, v1_tool: Some(joined.into()) });
        let Some(Message::Text(said)) = pair.relay.poll_transmit(at(pair.now)) else { panic!("a request") };
        let said = String::from_utf8(said.to_vec()).unwrap();
        assert!(said.contains(&format!(r#""method":"{listed}""#)), "{said}");
    }
}

#[test]
fn largest_list_of_an_old_agent_is_taken_and_a_larger_one_closes() {
    let too_big = Some(CloseCode::TooBig);
    for (length, expected) in [(MAX_CATALOG, None), (MAX_CATALOG + 1, too_big), (MAX_CATALOG + 2, too_big)] {
        let mut pair = Pair::new(Dialect::V1);
        let tools = format!(r#"{{"type":"tools","tools":[{}]}}"#, " ".repeat(length - 2));
        pair.relay.handle_message(Message::Text(tools.into()), at(pair.now));
        assert_eq!(closed(&pair.relay_events()), expected);
    }
}

#[test]
fn agent_itself_refuses_the_call_beyond_its_streams() {
    let mut pair = Pair::up();
    let most = u32::try_from(MAX_STREAMS).unwrap();
    for stream in 1..=most + 1 {
        pair.agent.handle_message(binary(&Frame::Open { stream, head: head(2).into() }), at(pair.now));
    }
    let Some(Message::Binary(mut said)) = pair.agent.poll_transmit(at(pair.now)) else { panic!("a frame") };
    let refusal = Frame::take(&mut said, &mut LastHead::default());
    let Ok(Some(Frame::Reset { stream, code, .. })) = refusal else { panic!("{refusal:?}") };
    assert_eq!((stream, code, said.len()), (most + 1, ResetCode::Overloaded, 0));
}

#[test]
fn call_beyond_the_streams_of_an_old_agent_is_not_sent() {
    let mut pair = Pair::new(Dialect::V1);
    let most = u32::try_from(MAX_STREAMS).unwrap();
    for stream in 1..=most + 1 {
        let (head, params) = (head(2), Bytes::from_static(b"{}"));
        pair.relay(Command::Open { stream: StreamId(stream), head, params, v1_tool: Some("a__b".into()) });
    }
    assert_eq!(resets(&pair.relay_events()), [(most + 1, ResetCode::Overloaded)]);
}

#[test]
fn call_of_an_old_relay_beyond_the_streams_is_refused() {
    let mut pair = Pair::new(Dialect::V1);
    pair.agent(Command::Catalog(
        r#"{"whole":true,"servers":[{"name":"a","state":"ready","tools":[{"name":"b"}]}]}"#.into(),
    ));
    for _ in 0..=MAX_STREAMS {
        let request = Bytes::from_static(br#"{"type":"request","id":"1","method":"a__b","params":{}}"#);
        pair.agent.handle_message(Message::Text(request), at(pair.now));
    }
    let calls = pair.agent_events().iter().filter(|event| matches!(event, Event::Call { .. })).count();
    assert_eq!(calls, MAX_STREAMS);
}

#[test]
fn full_queue_of_a_call_drops_what_may_be_dropped_and_ends_the_call_otherwise() {
    for (droppable, expected) in [(true, &[][..]), (false, &[(1, ResetCode::Overloaded)])] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent_events();
        for _ in 0..MAX_CALL_QUEUE {
            pair.agent(message(1, "1", false));
        }
        pair.agent(message(1, "2", droppable));
        assert_eq!(resets(&pair.agent_events()), expected);
        pair.run();
        let heard = pair.relay_events().iter().filter(|event| matches!(event, Event::Message { .. })).count();
        assert_eq!(heard, if droppable { MAX_CALL_QUEUE } else { 0 });
    }
}

#[test]
fn message_that_may_be_dropped_is_whole_once_it_was_begun() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let long = "x".repeat(STREAM_CREDIT as usize + 1);
    pair.agent(message(1, &long, true));
    while pair.carry_to_relay().is_some() {}
    for _ in 0..=MAX_UNREAD {
        pair.agent(message(1, "1", true));
    }
    pair.run();
    let heard = pair.relay_events();
    assert!(matches!(&heard[0], Event::Message { json, .. } if *json == long), "{}", heard.len());
}

#[test]
fn message_too_large_for_its_call_is_dropped_if_it_may_be_and_ends_the_call_otherwise() {
    for (droppable, expected) in [(true, &[][..]), (false, &[(1, ResetCode::TooLarge)])] {
        let mut pair = Pair::up();
        pair.call(1, b"{}");
        pair.agent_events();
        pair.agent(message(1, "x".repeat(MAX_CALL_MESSAGE + 1), droppable));
        assert_eq!(resets(&pair.agent_events()), expected);
    }
}

#[test]
fn long_reason_is_cut_by_who_says_it_and_by_who_hears_it() {
    const MOST: usize = 512;
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let code = ResetCode::Internal;
    pair.agent(Command::Reset { stream: StreamId(1), code, reason: "x".repeat(MOST + 1) });
    let Some(Message::Binary(said)) = pair.agent.poll_transmit(at(pair.now)) else { panic!("a frame") };
    assert_eq!(said.len(), HEADER + 1 + MOST);
    let mut longer = vec![8, 0, 0, 0, 1, 0, 0, 4, 1, 5];
    longer.resize(HEADER + 1 + 1_024, b'x');
    pair.relay.handle_message(Message::Binary(longer.into()), at(pair.now));
    let events = pair.relay_events();
    assert!(matches!(&events[..], [Event::Reset { reason, .. }] if reason.len() == MOST), "{events:?}");
}

#[test]
fn unfinished_requests_may_fill_their_bound_to_the_last_byte() {
    let mut pair = Pair::up();
    let piece = Bytes::from(vec![b' '; MAX_RECEIVE / 2]);
    for stream in 1..=2 {
        let open = Frame::Open { stream, head: head(MAX_ASSEMBLY / 2 + 1).into() };
        pair.agent.handle_message(binary(&open), at(pair.now));
        for _ in 0..MAX_ASSEMBLY / 2 / piece.len() {
            pair.agent.handle_message(binary(&Frame::Data { stream, bytes: piece.clone() }), at(pair.now));
        }
    }
    assert_eq!(pair.agent.poll_transmit(at(pair.now)), None, "nothing is refused");
}

#[test]
fn orders_that_nobody_reads_close_the_tunnel() {
    let mut pair = Pair::up();
    for _ in 0..MAX_CONTROL {
        pair.agent(Command::GoAway);
    }
    assert_eq!(closed(&pair.agent_events()), None);
    pair.agent(Command::GoAway);
    assert!(closed(&pair.agent_events()).is_some());
}

#[test]
fn stalled_call_closes_the_tunnel_where_nobody_reads_that_it_is() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(answer(1, vec![b'x'; STREAM_CREDIT as usize + 1]));
    pair.run();
    pair.agent_events();
    for _ in 0..MAX_CONTROL {
        pair.agent(Command::GoAway);
    }
    // Signs of life come, and nothing is read.
    let end = pair.now + STALL_TIMEOUT;
    while pair.now < end {
        pair.now = pair.now + Duration::from_secs(1);
        pair.agent.handle_message(binary(&Frame::Ping(1)), at(pair.now));
        pair.agent.handle_timeout(at(pair.now));
    }
    assert!(closed(&pair.agent_events()).is_some());
}

#[test]
fn nothing_is_sent_where_the_socket_is_gone() {
    let mut pair = Pair::up();
    pair.agent(Command::GoAway);
    pair.agent.handle_gone("broken", at(pair.now));
    assert_eq!(pair.agent.poll_transmit(at(pair.now)), None);
}

#[test]
fn ping_that_could_not_be_written_is_written_at_the_next_sign_of_life() {
    let mut pair = Pair::up();
    pair.pass(PING_INTERVAL - INSTANT, true);
    pair.relay(Command::Probe);
    pair.pass(INSTANT, false);
    assert!(pair.relay.poll_transmit(at(pair.now)).is_some());
}

#[test]
fn tunnel_is_idle_when_its_calls_are_over_and_not_before() {
    for dialect in [Dialect::V1, Dialect::V2] {
        let mut pair = Pair::new(dialect);
        pair.agent(Command::Catalog(
            r#"{"whole":true,"servers":[{"name":"a","state":"ready","tools":[{"name":"b"}]}]}"#.into(),
        ));
        pair.run();
        assert!(pair.relay.is_idle() && pair.agent.is_idle(), "{dialect:?}");
        let params = Bytes::from_static(b"{}");
        pair.relay(Command::Open { stream: StreamId(1), head: head(2), params, v1_tool: Some("a__b".into()) });
        pair.run();
        assert!(!pair.relay.is_idle() && !pair.agent.is_idle(), "{dialect:?}");
        let open = |end: &Connection| end.load().map(|load| load.streams.len());
        let expected = (dialect == Dialect::V2).then_some(1);
        assert_eq!((open(&pair.relay), open(&pair.agent)), (expected, expected));
        pair.agent(answer(1, "{}"));
        pair.run();
        assert!(pair.relay.is_idle() && pair.agent.is_idle(), "{dialect:?}");
    }
}

#[test]
fn call_that_is_cut_short_leaves_nothing_behind() {
    let mut pair = Pair::up();
    pair.relay(open(1, b"{}"));
    let reset = |stream| Command::Reset { stream: StreamId(stream), code: ResetCode::Cancelled, reason: String::new() };
    pair.relay(reset(1));
    assert!(pair.relay.is_idle(), "it was not sent yet");
    pair.call(2, b"{}");
    pair.agent(answer(2, vec![b'x'; STREAM_CREDIT as usize + 1]));
    while pair.carry_to_relay().is_some() {}
    pair.relay(consumed(2, 1));
    pair.agent(reset(2));
    while pair.carry_to_relay().is_some() {}
    assert!(pair.relay.is_idle(), "credit of a call that is over is not given back");
    assert!(pair.agent.is_idle(), "and not waited for");
}
