//! Calls, fairness, credit and limits.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::limits::{
    CHUNK, MAX_BUFFERED, MAX_CALL_MESSAGE, MAX_MESSAGE, MAX_STREAMS, MAX_TRANSMIT, MAX_UNREAD, STALL_TIMEOUT,
    STREAM_CREDIT,
};
use crate::tunnel::ResetCode;

const WINDOW: usize = STREAM_CREDIT as usize;

fn data(events: &[Event], stream: u32) -> (Vec<u8>, bool) {
    let (mut body, mut ended) = (Vec::new(), false);
    for event in events {
        match event {
            Event::Data { stream: of, bytes, end } if of.0 == stream => {
                assert!(!ended, "nothing follows the end");
                assert!(*end || !bytes.is_empty());
                body.extend_from_slice(bytes);
                ended = *end;
            }
            _ => {}
        }
    }
    (body, ended)
}

fn reset(event: &Event) -> Option<(u32, ResetCode)> {
    match event {
        Event::Reset { stream, code, .. } => Some((stream.0, *code)),
        _ => None,
    }
}

/// Carries everything, the relay consuming at once; gives all of the relay's events.
fn run_consuming(pair: &mut Pair) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        pair.run();
        let events = pair.relay_events();
        if events.is_empty() {
            return all;
        }
        for event in &events {
            if let Event::Data { stream, bytes, .. } = event {
                pair.relay(consumed(stream.0, bytes.len()));
            }
        }
        all.extend(events);
    }
}

#[test]
fn call_and_answer_arrive_whole() {
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MAX_TRANSMIT, 3 * WINDOW + 1] {
        let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
        let mut pair = Pair::up();
        pair.call(1, &body);
        let events = pair.agent_events();
        assert_eq!(events, [Event::Call { stream: StreamId(1), head: head(size), params: body.clone().into() }]);
        pair.agent(answer(1, body.clone()));
        let events = run_consuming(&mut pair);
        let length = Some(size as u64);
        assert_eq!(events[0], Event::Answer { stream: StreamId(1), outcome: Outcome::Result, length });
        assert_eq!(data(&events, 1), (body, true));
    }
}

#[test]
fn error_tells_its_code_before_its_body() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let outcome = Outcome::Error { code: -32_602 };
    pair.agent(Command::Answer { stream: StreamId(1), outcome, body: Bytes::from_static(b"{}") });
    pair.run();
    assert_eq!(pair.relay_events()[0], Event::Answer { stream: StreamId(1), outcome, length: Some(2) });
}

#[test]
fn large_answer_delays_a_small_one_by_a_few_chunks() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.call(2, b"{}");
    pair.agent(answer(1, vec![b'x'; 20 * 1024 * 1024]));
    pair.carry_to_relay();
    pair.agent(answer(2, vec![b'y'; 200]));
    let before = data(&pair.relay_events(), 1).0.len();
    pair.carry_to_relay();
    let events = pair.relay_events();
    assert_eq!(data(&events, 2), (vec![b'y'; 200], true), "it is in the very next message");
    let ahead = events.iter().take_while(|event| !matches!(event, Event::Answer { stream: StreamId(2), .. }));
    let ahead: usize = ahead.map(|event| if let Event::Data { bytes, .. } = event { bytes.len() } else { 0 }).sum();
    assert!(before > 0 && ahead <= CHUNK, "{ahead} bytes came first");
}

#[test]
fn ready_streams_share_the_tunnel_evenly() {
    let mut pair = Pair::up();
    for stream in 1..=4 {
        pair.call(stream, b"{}");
    }
    for stream in 1..=4 {
        pair.agent(answer(stream, vec![b'x'; WINDOW]));
    }
    pair.carry_to_relay();
    pair.carry_to_relay();
    let events = pair.relay_events();
    let got: Vec<usize> = (1..=4).map(|stream| data(&events, stream).0.len()).collect();
    assert!(got.iter().max().unwrap() - got.iter().min().unwrap() <= CHUNK, "{got:?}");
}

#[test]
fn catalog_and_calls_interleave() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let catalog = vec![b' '; 1024 * 1024];
    pair.agent(Command::Catalog(catalog.clone().into()));
    pair.agent(answer(1, "{}"));
    pair.carry_to_relay();
    assert_eq!(data(&pair.relay_events(), 1), (b"{}".to_vec(), true));
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Catalog(catalog.into())]);
}

#[test]
fn large_params_do_not_hold_up_a_small_call() {
    let mut pair = Pair::up();
    pair.relay(open(1, &vec![b'x'; 4 * 1024 * 1024]));
    pair.relay(open(2, b"{}"));
    pair.carry_to_agent();
    assert!(matches!(pair.agent_events()[..], [Event::Call { stream: StreamId(2), .. }]));
}

#[test]
fn clients_notifications_and_ends_of_sessions_reach_the_agent() {
    let mut pair = Pair::up();
    let (session, server) = ("s".to_string(), Some("files".to_string()));
    let json = Bytes::from_static(br#"{"method":"x"}"#);
    pair.relay(Command::ClientNotice { session: session.clone(), server: server.clone(), json: json.clone() });
    // One too long for a frame's head is dropped, and nothing else with it.
    let large = Bytes::from(vec![b'x'; CHUNK]);
    pair.relay(Command::ClientNotice { session: session.clone(), server: None, json: large });
    pair.relay(Command::SessionEnded { session: session.clone() });
    pair.run();
    let expected = [Event::ClientNotice { session: session.clone(), server, json }, Event::SessionEnded { session }];
    assert_eq!(pair.agent_events(), expected);
}

#[test]
fn clients_cancellation_reaches_the_agent_in_its_own_words_once() {
    let mut pair = Pair::up();
    (1..=2).for_each(|stream| pair.call(stream, b"{}"));
    pair.agent_events();
    let cancel = |stream, params: &Bytes| {
        let (params, reason) = (params.clone(), "enough".to_string());
        Command::Cancel { stream: StreamId(stream), params, reason }
    };
    let params = Bytes::from_static(br#"{ "x":1.0,"requestId":7}"#);
    let large = Bytes::from(vec![b'x'; CHUNK + 1]);
    pair.relay(cancel(1, &params));
    pair.relay(cancel(1, &params));
    pair.relay(cancel(2, &large));
    pair.relay(cancel(3, &params));
    pair.run();
    let code = ResetCode::Cancelled;
    let expected = [
        Event::Cancelled { stream: StreamId(1), params },
        Event::Reset { stream: StreamId(2), code, reason: "enough".into() },
    ];
    assert_eq!(pair.agent_events(), expected);
    assert!(pair.relay_events().is_empty());
    // What nobody heard of yet is just left out.
    pair.relay(open(4, b"{}"));
    pair.relay(cancel(4, &large));
    pair.run();
    assert!(pair.agent_events().is_empty());
}

#[test]
fn pause_of_an_open_call_is_told_and_no_other() {
    let mut pair = Pair::up();
    pair.relay(open(1, b"{}"));
    pair.run();
    pair.agent(Command::Pause { stream: StreamId(1), millis: 500 });
    pair.agent(Command::Pause { stream: StreamId(2), millis: 500 });
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Pause { stream: StreamId(1), millis: 500 }]);
}

#[test]
fn notice_names_its_server() {
    let mut pair = Pair::up();
    let json = Bytes::from_static(b"{\"method\":\"notifications/message\"}");
    pair.agent(Command::Notice { server: "files".into(), sessions: vec!["s".into()], json: json.clone() });
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Notice { server: "files".into(), sessions: vec!["s".into()], json }]);
}

#[test]
fn control_goes_both_ways() {
    let mut pair = Pair::up();
    pair.relay(Command::Restart { server: Some("files".into()) });
    pair.relay(Command::Restart { server: None });
    pair.relay(Command::GoAway);
    pair.agent(Command::GoAway);
    pair.run();
    let restart = |server: Option<&str>| Event::Restart { server: server.map(ToString::to_string) };
    assert_eq!(pair.agent_events(), [restart(Some("files")), restart(None), Event::GoAway]);
    assert_eq!(pair.relay_events(), [Event::GoAway]);
}

#[test]
fn messages_of_a_call_arrive_in_order_before_its_answer() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(message(1, "first", true));
    pair.agent(message(1, "second", false));
    pair.agent(answer(1, "{}"));
    pair.agent(message(1, "too late", false));
    pair.run();
    let events = pair.relay_events();
    let told =
        |json: &'static str| Event::Message { stream: StreamId(1), json: json.into(), credit: json.len() as u32 };
    assert_eq!(events[..2], [told("first"), told("second")]);
    assert!(matches!(events[2], Event::Answer { .. }));
    assert_eq!(events.len(), 4);
}

#[test]
fn client_replies_reach_the_agent_until_it_answered() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent_events();
    pair.relay(message(1, "x".repeat(3 * CHUNK), false));
    pair.run();
    let json = "x".repeat(3 * CHUNK).into();
    assert_eq!(pair.agent_events(), [Event::Message { stream: StreamId(1), json, credit: 0 }]);
    pair.agent(answer(1, "{}"));
    pair.relay(message(1, "late", false));
    pair.run();
    assert_eq!(pair.agent_events(), []);
}

#[test]
fn unread_progress_is_coalesced_to_the_newest() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(message(1, "ask", false));
    for step in 0..1_000 {
        pair.agent(message(1, step, true));
    }
    pair.run();
    let messages: Vec<_> =
        pair.relay_events()
            .into_iter()
            .map(|event| {
                if let Event::Message { json, .. } = event {
                    String::from_utf8(json.to_vec()).unwrap()
                } else {
                    panic!()
                }
            })
            .collect();
    let newest = (1_000 - MAX_UNREAD..1_000).map(|step| step.to_string());
    assert_eq!(messages, core::iter::once("ask".to_string()).chain(newest).collect::<Vec<_>>());
}

#[test]
fn messages_wait_for_credit_too() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    for _ in 0..10 {
        pair.agent(message(1, "x".repeat(WINDOW / 4), false));
    }
    pair.run();
    let held: u32 = pair
        .relay_events()
        .iter()
        .map(|event| if let Event::Message { credit, .. } = event { *credit } else { 0 })
        .sum();
    assert_eq!(held, STREAM_CREDIT);
    pair.relay(consumed(1, WINDOW / 4));
    pair.run();
    assert_eq!(pair.relay_events().len(), 1);
}

#[test]
fn message_larger_than_the_window_passes() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    let json = "x".repeat(MAX_CALL_MESSAGE);
    for _ in 0..3 {
        pair.agent(message(1, &json, false));
        pair.run();
        let [Event::Message { json: got, credit, .. }] = &pair.relay_events()[..] else { panic!("one message") };
        assert_eq!(got.len(), json.len());
        assert!(*credit > 0 && *credit <= STREAM_CREDIT / 2);
        pair.relay(consumed(1, *credit as usize));
    }
    pair.agent(message(1, "x".repeat(MAX_CALL_MESSAGE + 1), false));
    assert_eq!(pair.agent_events().iter().find_map(reset), Some((1, ResetCode::TooLarge)));
}

#[test]
fn slow_consumer_stalls_only_its_own_call() {
    let mut pair = Pair::up();
    for stream in 1..=2 {
        pair.call(stream, b"{}");
        pair.agent(answer(stream, vec![b'x'; 4 * WINDOW]));
    }
    pair.agent_events();
    let mut second = Vec::new();
    let mut first = 0;
    for _ in 0..100 {
        pair.run();
        let events = pair.relay_events();
        first += data(&events, 1).0.len();
        let taken = data(&events, 2).0;
        pair.relay(consumed(2, taken.len()));
        second.extend(taken);
    }
    assert_eq!((first, second.len()), (WINDOW, 4 * WINDOW));

    pair.pass(STALL_TIMEOUT - Duration::from_millis(1), true);
    assert_eq!(pair.agent_events().iter().find_map(reset), None);
    pair.pass(Duration::from_millis(1), true);
    assert_eq!(pair.agent_events().iter().find_map(reset), Some((1, ResetCode::Stalled)));
    assert_eq!(pair.relay_events().iter().find_map(reset), Some((1, ResetCode::Stalled)));
    pair.call(3, b"{}");
    assert!(matches!(pair.agent_events()[..], [Event::Call { .. }]), "the tunnel goes on");
}

#[test]
fn slow_but_steady_consumer_is_not_given_up() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(answer(1, vec![b'x'; 3 * WINDOW]));
    let mut got = 0;
    while got < 3 * WINDOW {
        pair.run();
        got += data(&pair.relay_events(), 1).0.len();
        pair.relay(consumed(1, WINDOW / 4));
        pair.pass(STALL_TIMEOUT / 2, true);
    }
    assert_eq!(pair.agent_events().iter().find_map(reset), None);
}

#[test]
fn cancelled_call_ends_on_both_sides_and_late_frames_are_dropped() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent_events();
    pair.agent(answer(1, vec![b'x'; WINDOW]));
    let late = pair.agent.poll_transmit(at(pair.now)).unwrap();
    pair.relay(Command::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: "gone".into() });
    pair.relay.handle_message(late, at(pair.now));
    pair.run();
    assert_eq!(pair.relay_events(), []);
    let gone = Event::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: "gone".into() };
    assert_eq!(pair.agent_events(), [gone]);
    pair.agent(answer(1, "{}"));
    pair.relay(consumed(1, 10));
    pair.run();
    assert_eq!((pair.relay_events(), pair.agent_events()), (vec![], vec![]));
}

#[test]
fn call_cancelled_before_it_was_sent_leaves_no_trace() {
    let mut pair = Pair::up();
    pair.relay(open(1, b"{}"));
    pair.relay(Command::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: String::new() });
    assert_eq!(pair.carry_to_agent(), None);
}

#[test]
fn call_cancelled_while_its_params_are_under_way_never_reaches_the_agent() {
    let mut pair = Pair::up();
    pair.relay(open(1, &vec![b'x'; 1024 * 1024]));
    pair.carry_to_agent();
    pair.relay(Command::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: String::new() });
    pair.run();
    assert_eq!(pair.agent_events(), []);
}

#[test]
fn second_and_late_answers_are_dropped() {
    let mut pair = Pair::up();
    pair.call(1, b"{}");
    pair.agent(answer(1, "1"));
    pair.agent(answer(1, "2"));
    pair.run();
    pair.agent(answer(1, "3"));
    pair.agent(answer(7, "4"));
    pair.run();
    assert_eq!(data(&pair.relay_events(), 1), (b"1".to_vec(), true));
}

#[test]
fn agent_refuses_a_call_beyond_its_streams() {
    let mut pair = Pair::up();
    let count = u32::try_from(MAX_STREAMS).unwrap();
    for stream in 1..=count {
        pair.relay(open(stream, b"{}"));
    }
    pair.run();
    assert_eq!(pair.agent_events().len(), MAX_STREAMS);
    pair.relay(open(count + 1, b"{}"));
    assert_eq!(pair.relay_events().iter().find_map(reset), Some((count + 1, ResetCode::Overloaded)));
    pair.agent(answer(5, "{}"));
    pair.run();
    pair.relay_events();
    pair.call(count + 2, b"{}");
    assert_eq!(pair.agent_events().len(), 1, "an answered call makes room");
}

#[test]
fn bodies_over_the_peers_limit_reset_only_their_call() {
    let mut pair = Pair::up();
    pair.relay(open(1, &vec![b'x'; MAX_MESSAGE + 1]));
    assert_eq!(pair.relay_events().iter().find_map(reset), Some((1, ResetCode::TooLarge)));
    pair.call(2, b"{}");
    pair.agent_events();
    pair.agent(answer(2, vec![b'x'; MAX_MESSAGE + 1]));
    pair.run();
    assert_eq!(pair.agent_events().iter().find_map(reset), Some((2, ResetCode::TooLarge)));
    assert_eq!(pair.relay_events().iter().find_map(reset), Some((2, ResetCode::TooLarge)));
}

#[test]
fn strange_head_is_refused_before_it_is_sent() {
    let mut pair = Pair::up();
    let head = OpenHead { method: "m".repeat(CHUNK).into(), ..head(2) };
    pair.relay(Command::Open { stream: StreamId(1), head, params: Bytes::from_static(b"{}"), v1_tool: None });
    assert_eq!(pair.relay_events().iter().find_map(reset), Some((1, ResetCode::TooLarge)));
}

#[test]
fn answers_that_wait_are_bounded_together() {
    let mut pair = Pair::up();
    // One body shared by all: only its length is counted.
    let body = Bytes::from(vec![b'x'; MAX_MESSAGE]);
    let count = u32::try_from(MAX_BUFFERED / MAX_MESSAGE).unwrap();
    for stream in 1..=count {
        pair.call(stream, b"{}");
        pair.agent(answer(stream, body.clone()));
    }
    pair.call(count + 1, b"{}");
    pair.call(count + 2, b"{}");
    pair.agent_events();
    pair.agent(answer(count + 2, body.slice(..WINDOW)));
    assert_eq!(pair.agent_events(), [], "what was sent made room");
    pair.agent(answer(count + 1, body));
    assert_eq!(pair.agent_events().iter().filter_map(reset).count(), 1);
}

/// What a consumer has of one answer.
#[derive(Clone, Default)]
struct Got {
    bytes: Vec<u8>,
    ended: bool,
    taken: usize,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Answers of several calls, consumed in any rhythm: in order, whole, never beyond the window.
    #[test]
    fn credit_is_conserved(
        sizes in prop::collection::vec(0..3 * WINDOW, 1..5),
        steps in prop::collection::vec((any::<bool>(), 0..5_usize, 0..WINDOW), 0..60),
    ) {
        let mut pair = Pair::up();
        let body = |stream: usize, size: usize| (0..size).map(|at| (at / 7 + stream) as u8).collect::<Vec<_>>();
        for (index, size) in sizes.iter().enumerate() {
            let stream = index as u32 + 1;
            pair.call(stream, b"{}");
            pair.agent(answer(stream, body(index, *size)));
        }
        let mut got = vec![Got::default(); sizes.len()];
        let drain = |pair: &mut Pair, got: &mut Vec<Got>| {
            let events = pair.relay_events();
            for (index, got) in got.iter_mut().enumerate() {
                let (more, end) = data(&events, index as u32 + 1);
                got.bytes.extend(more);
                got.ended |= end;
                assert!(got.bytes.len() <= got.taken + WINDOW, "sent within the window and what was consumed");
            }
        };
        for (carry, index, take) in steps {
            if carry {
                pair.carry_to_relay();
                pair.carry_to_agent();
                drain(&mut pair, &mut got);
            }
            if let Some(got) = got.get_mut(index) {
                let take = take.min(got.bytes.len() - got.taken);
                got.taken += take;
                pair.relay(consumed(index as u32 + 1, take));
            }
        }
        for _ in 0..200 {
            pair.run();
            drain(&mut pair, &mut got);
            for (index, got) in got.iter_mut().enumerate() {
                pair.relay(consumed(index as u32 + 1, got.bytes.len() - got.taken));
                got.taken = got.bytes.len();
            }
        }
        for (index, got) in got.into_iter().enumerate() {
            prop_assert!(got.ended);
            prop_assert_eq!(got.bytes, body(index, sizes[index]));
        }
    }
}
