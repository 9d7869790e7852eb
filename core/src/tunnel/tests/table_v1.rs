//! The same for dialect V1: every message and every order in every state of a call, on both sides.

use core::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::table::{SUBJECT, commands, name, outcome};
use super::*;
use crate::limits::{MAX_CONTROL, V1_CALL_TIMEOUT};
use crate::tunnel::ResetCode;

/// A call of the only tool there is.
fn call(params: &str) -> Command {
    let params = Bytes::copy_from_slice(params.as_bytes());
    let (stream, head) = (StreamId(SUBJECT), head(params.len()));
    Command::Open { stream, head, params, v1_tool: Some("files__read".into()) }
}

fn catalog(tools: &serde_json::Value) -> Command {
    let server = json!({"name": "files", "state": "ready", "tools": tools});
    Command::Catalog(json!({"whole": true, "servers": [server]}).to_string().into())
}

fn reset() -> Command {
    Command::Reset { stream: StreamId(SUBJECT), code: ResetCode::Cancelled, reason: String::new() }
}

/// What may be read from the socket: its name, and the message.
fn messages() -> Vec<(&'static str, Message)> {
    let text = |json: serde_json::Value| Message::Text(json.to_string().into());
    let id = SUBJECT.to_string();
    alloc::vec![
        ("response", text(json!({"type": "response", "id": id, "result": {}}))),
        ("error", text(json!({"type": "error", "id": id, "message": "no"}))),
        ("response to nobody", text(json!({"type": "response", "result": {}}))),
        ("tools", text(json!({"type": "tools", "tools": []}))),
        ("request", text(json!({"type": "request", "id": id, "method": "files__read", "params": {}}))),
        ("request of what is not there", text(json!({"type": "request", "id": 9, "method": "x__y", "params": {}}))),
        ("request without an id", text(json!({"type": "request", "method": "files__read"}))),
        ("restart", text(json!({"type": "restart"}))),
        ("unknown type", text(json!({"type": "dance"}))),
        ("no message", text(json!([]))),
        ("binary", Message::Binary(Bytes::from_static(b"{}"))),
        ("ping", Message::Ping(Bytes::from_static(b"hi"))),
        ("pong", Message::Pong(Bytes::from_static(b"hi"))),
    ]
}

const RELAY_STATES: [&str; 5] = ["unasked", "queued", "asked", "answered", "reset"];

fn relay(state: &str) -> (Connection, Instant) {
    let Pair { mut relay, now, .. } = Pair::new(Dialect::V1);
    if state != "unasked" {
        relay.handle_command(call(r#"{"name":"read"}"#), at(now));
    }
    if state != "queued" {
        while relay.poll_transmit(at(now)).is_some() {}
    }
    match state {
        "answered" => relay.handle_message(messages().swap_remove(0).1, at(now)),
        "reset" => relay.handle_command(reset(), at(now)),
        _ => {}
    }
    while relay.poll_event().is_some() {}
    (relay, now)
}

const AGENT_STATES: [&str; 5] = ["unasked", "called", "answered", "sent", "over"];

/// The number of the agent's call is its own: see [`own`].
fn agent(state: &str) -> (Connection, Instant) {
    let Pair { mut agent, now, .. } = Pair::new(Dialect::V1);
    agent.handle_command(catalog(&json!([{"name": "read"}])), at(now));
    while agent.poll_transmit(at(now)).is_some() {}
    if state != "unasked" {
        agent.handle_message(request(), at(now));
    }
    match state {
        "unasked" | "called" => {}
        "answered" => agent.handle_command(answer(1, "{}"), at(now)),
        "sent" => {
            agent.handle_command(answer(1, "{}"), at(now));
            while agent.poll_transmit(at(now)).is_some() {}
        }
        "over" => agent.handle_timeout(at(now + V1_CALL_TIMEOUT)),
        other => panic!("no such state: {other}"),
    }
    while agent.poll_event().is_some() {}
    if state == "over" {
        assert_eq!(outcome(Vec::new(), &mut agent, now + V1_CALL_TIMEOUT), "sends ping");
        return (agent, now + V1_CALL_TIMEOUT);
    }
    (agent, now)
}

fn request() -> Message {
    messages().swap_remove(4).1
}

/// The order for the agent's own number of its call.
fn own(command: Command) -> Command {
    let stream = StreamId(1);
    match command {
        Command::Answer { outcome, body, .. } => Command::Answer { stream, outcome, body },
        Command::Message { json, droppable, .. } => Command::Message { stream, json, droppable },
        Command::Pause { millis, .. } => Command::Pause { stream, millis },
        Command::Reset { code, reason, .. } => Command::Reset { stream, code, reason },
        Command::Cancel { params, reason, .. } => Command::Cancel { stream, params, reason },
        Command::Catalog(_) => catalog(&json!([{"name": "read"}, {"name": "write"}])),
        other => other,
    }
}

type Row = (&'static str, [&'static str; 5]);

/// Checks a table, and that its rows are what there is.
fn check<T: Clone>(
    table: &[Row],
    states: [&str; 5],
    inputs: &[(&'static str, T)],
    side: impl Fn(&str) -> (Connection, Instant),
    give: impl Fn(T, &mut Connection, Instant),
) {
    let rows = |table: &[Row]| table.iter().map(|(input, _)| *input).collect::<Vec<_>>();
    assert_eq!(inputs.iter().map(|(name, _)| *name).collect::<Vec<_>>(), rows(table), "every kind has its row");
    for ((name, input), (_, expected)) in inputs.iter().zip(table) {
        for (state, expected) in states.into_iter().zip(expected) {
            let (mut connection, now) = side(state);
            give(input.clone(), &mut connection, now);
            let events = core::iter::from_fn(|| connection.poll_event()).collect();
            assert_eq!(outcome(events, &mut connection, now), *expected, "{name} while {state}");
        }
    }
}

fn named_commands() -> Vec<(&'static str, Command)> {
    commands().into_iter().map(|command| (name(&command), command)).collect()
}

#[test]
fn every_message_to_a_relay_in_every_state_of_its_call() {
    let fault = "fault";
    let queued = [".", "sends request", ".", ".", "."];
    let table = [
        //             unasked, queued, asked, answered, reset
        ("response", [".", "answer, last data", "answer, last data", ".", "."]),
        ("error", [".", "answer, last data", "answer, last data", ".", "."]),
        ("response to nobody", queued),
        ("tools", ["catalog", "catalog, sends request", "catalog", "catalog", "catalog"]),
        ("request", queued),
        ("request of what is not there", queued),
        ("request without an id", queued),
        ("restart", queued),
        ("unknown type", queued),
        ("no message", [fault; 5]),
        ("binary", [fault; 5]),
        ("ping", ["sends pong", "sends pong request", "sends pong", "sends pong", "sends pong"]),
        ("pong", queued),
    ];
    check(&table, RELAY_STATES, &messages(), relay, |message, relay, now| relay.handle_message(message, at(now)));
}

#[test]
fn every_message_to_an_agent_in_every_state_of_its_call() {
    let fault = "fault";
    let waits = [".", ".", "sends response", ".", "."];
    let table = [
        //             unasked, called, answered, sent, over
        ("response", waits),
        ("error", waits),
        ("response to nobody", waits),
        ("tools", waits),
        ("request", ["call", "call", "call, sends response", "call", "call"]),
        (
            "request of what is not there",
            [
                "unlisted, sends error",
                "unlisted, sends error",
                "unlisted, sends response error",
                "unlisted, sends error",
                "unlisted, sends error",
            ],
        ),
        ("request without an id", waits),
        ("restart", ["restart", "restart", "restart, sends response", "restart", "restart"]),
        ("unknown type", waits),
        ("no message", [fault; 5]),
        ("binary", [fault; 5]),
        ("ping", ["sends pong", "sends pong", "sends pong response", "sends pong", "sends pong"]),
        ("pong", waits),
    ];
    check(&table, AGENT_STATES, &messages(), agent, |message, agent, now| agent.handle_message(message, at(now)));
}

#[test]
fn every_order_to_a_relay_in_every_state_of_its_call() {
    let nothing = [".", "sends request", ".", ".", "."];
    let table = [
        //             unasked, queued, asked, answered, reset
        // An old agent calls tools, and this is a call that names none.
        (
            "open",
            [
                "answer, last data",
                "answer, last data, sends request",
                "answer, last data",
                "answer, last data",
                "answer, last data",
            ],
        ),
        ("consumed", nothing),
        ("catalog", nothing),
        ("answer", nothing),
        ("message", nothing),
        ("pause", nothing),
        ("notice", nothing),
        ("reset", ["."; 5]),
        ("cancel", ["."; 5]),
        ("restart", ["sends restart", "sends request restart", "sends restart", "sends restart", "sends restart"]),
        ("client notice", nothing),
        ("session ended", nothing),
        // It pings by itself, and answers as any WebSocket does.
        ("probe", ["sends ping", "sends ping request", "sends ping", "sends ping", "sends ping"]),
        ("go away", nothing),
        ("close", ["closed, sends close"; 5]),
    ];
    check(&table, RELAY_STATES, &named_commands(), relay, |command, relay, now| relay.handle_command(command, at(now)));
}

#[test]
fn every_order_to_an_agent_in_every_state_of_its_call() {
    let waits = [".", ".", "sends response", ".", "."];
    let table = [
        //             unasked, called, answered, sent, over
        ("open", waits),
        ("consumed", waits),
        ("catalog", ["sends tools", "sends tools", "sends response tools", "sends tools", "sends tools"]),
        ("answer", [".", "sends response", "sends response", ".", "."]),
        ("message", waits),
        ("pause", waits),
        ("notice", waits),
        ("reset", [".", "sends error", "sends response", ".", "."]),
        ("cancel", waits),
        ("restart", waits),
        ("client notice", waits),
        ("session ended", waits),
        ("probe", ["sends ping", "sends ping", "sends ping response", "sends ping", "sends ping"]),
        ("go away", waits),
        ("close", ["closed, sends close"; 5]),
    ];
    check(&table, AGENT_STATES, &named_commands(), agent, |command, agent, now| {
        agent.handle_command(own(command), at(now))
    });
}

#[test]
fn call_of_an_old_peer_ends_after_its_time_in_every_state() {
    for (state, expected) in RELAY_STATES.into_iter().zip([".", "reset", "reset", ".", "."]) {
        let (mut relay, now) = relay(state);
        relay.handle_timeout(at(now + V1_CALL_TIMEOUT));
        let events = core::iter::from_fn(|| relay.poll_event()).collect();
        assert_eq!(outcome(events, &mut relay, now + V1_CALL_TIMEOUT), expected, "{state}");
    }
    for (state, expected) in AGENT_STATES.into_iter().zip([
        "sends ping",
        "reset, sends ping",
        "sends ping response",
        "sends ping",
        "sends ping",
    ]) {
        let (mut agent, now) = agent(state);
        agent.handle_timeout(at(now + V1_CALL_TIMEOUT));
        let events = core::iter::from_fn(|| agent.poll_event()).collect();
        assert_eq!(outcome(events, &mut agent, now + V1_CALL_TIMEOUT), expected, "{state}");
    }
}

#[test]
fn list_of_tools_that_found_no_room_is_sent_once_there_is_some() {
    let mut pair = Pair::new(Dialect::V1);
    let unknown = messages().swap_remove(5).1;
    for _ in 0..MAX_CONTROL {
        pair.agent.handle_message(unknown.clone(), at(pair.now));
    }
    let list = || catalog(&json!([{"name": "read"}]));
    pair.agent(list());
    while pair.agent.poll_transmit(at(pair.now)).is_some() {}
    pair.agent(list());
    assert_eq!(outcome(Vec::new(), &mut pair.agent, pair.now), "sends tools");
}

/// JSON as people write it, with what a JSON library would change.
fn raw_json() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(r#"{"a" : 1.50, "a":1e400}"#.to_string()),
        Just(r#"[ "\u00e9", "é\n" , null ]"#.to_string()),
        any::<String>().prop_map(|text| crate::rpc::quoted(&text)),
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arguments_and_results_pass_byte_for_byte(arguments in raw_json(), result in raw_json(), advance in 0..200_u64) {
        let mut pair = Pair::new(Dialect::V1);
        pair.agent(catalog(&json!([{"name": "read"}])));
        pair.run();
        pair.agent_events();
        pair.relay_events();
        pair.relay(call(&alloc::format!(r#"{{"name":"files__read","arguments":{arguments}}}"#)));
        pair.run();
        let heard = pair.agent_events();
        let [Event::Call { stream, head, params }] = &heard[..] else { panic!("{heard:?}") };
        prop_assert_eq!(params, &Bytes::from(alloc::format!(r#"{{"name":"read","arguments":{arguments}}}"#)));
        prop_assert_eq!((&*head.server, head.length), ("files", params.len() as u64));
        pair.pass(Duration::from_secs(advance), true);
        pair.agent(answer(stream.0, result.clone()));
        pair.run();
        let events: Vec<Event> = pair.relay_events().into_iter().filter(|event| !matches!(event, Event::RoundTrip { .. })).collect();
        if Duration::from_secs(advance) >= V1_CALL_TIMEOUT {
            let given_up = matches!(&events[..], [Event::Reset { code: ResetCode::TimedOut, .. }]);
            prop_assert!(given_up, "{:?}", events);
        } else {
            let [Event::Answer { length, .. }, Event::Data { bytes, end: true, .. }] = &events[..] else { panic!("{events:?}") };
            prop_assert_eq!((*length, bytes), (Some(result.len() as u64), &Bytes::from(result)));
        }
    }
}
