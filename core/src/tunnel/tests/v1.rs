//! Transcripts of dialect V1: what the predecessor's peers say and are told, byte for byte.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::*;
use crate::limits::{MAX_TOOLS, MAX_V1_MESSAGE, V1_CALL_TIMEOUT, V1_PING_INTERVAL, V1_SILENCE};
use crate::mcp::catalog::{State, Update};
use crate::tunnel::{Close, CloseCode, ResetCode};

fn text(text: &str) -> Message {
    Message::Text(Bytes::copy_from_slice(text.as_bytes()))
}

/// What a side has to send, as text.
fn said(connection: &mut Connection, now: Instant) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(message) = connection.poll_transmit(at(now)) {
        match message {
            Message::Text(bytes) => all.push(String::from_utf8(bytes.to_vec()).unwrap()),
            other => panic!("{other:?} is not text"),
        }
    }
    all
}

/// A V1 tunnel whose made-up hellos were taken.
fn v1() -> Pair {
    let mut pair = Pair::new(Dialect::V1);
    for events in [pair.relay_events(), pair.agent_events()] {
        let [Event::Up(hello)] = &events[..] else { panic!("up at once") };
        assert_eq!((&*hello.version, hello.max_message), ("1", MAX_V1_MESSAGE as u64));
    }
    pair
}

fn open_tool(stream: u32, tool: &str, params: &str) -> Command {
    let params = Bytes::copy_from_slice(params.as_bytes());
    Command::Open { stream: StreamId(stream), head: head(params.len()), params, v1_tool: Some(tool.into()) }
}

fn answered(stream: u32, outcome: Outcome, body: &'static str) -> [Event; 2] {
    let (stream, length) = (StreamId(stream), Some(body.len() as u64));
    [Event::Answer { stream, outcome, length }, Event::Data { stream, bytes: body.into(), end: true }]
}

#[test]
fn relay_speaks_as_the_predecessor_did() {
    let mut pair = v1();
    let params = r#"{"_meta":{"progressToken":1},"name":"read","arguments":{"path":"a", "big":1e400}}"#;
    pair.relay(open_tool(1, "files__read", params));
    pair.relay(open_tool(2, "files__list", r#"{"name":"list"}"#));
    pair.relay(Command::Restart { server: Some("files".into()) });
    pair.relay(Command::Restart { server: None });
    pair.relay(Command::GoAway);
    assert_eq!(
        said(&mut pair.relay, pair.now),
        [
            r#"{"type":"request","id":"1","method":"files__read","params":{"path":"a", "big":1e400}}"#,
            r#"{"type":"request","id":"2","method":"files__list","params":{}}"#,
            r#"{"type":"restart"}"#,
        ]
    );
    for message in [
        r#"{"id":"2","type":"response","result":{"content":[ ]},"more":1}"#,
        r#"{"type":"error","id":"1","message":"no \"such\" file"}"#,
        r#"{"type":"response","id":"1","result":{"late":true}}"#,
        r#"{"type":"response","id":9,"result":{}}"#,
        r#"{"type":"something new"}"#,
    ] {
        pair.relay.handle_message(text(message), at(pair.now));
    }
    let mut expected = answered(2, Outcome::Result, r#"{"content":[ ]}"#).to_vec();
    let error = r#"{"code":-32603,"message":"no \"such\" file"}"#;
    expected.extend(answered(1, Outcome::Error { code: -32_603 }, error));
    assert_eq!(pair.relay_events(), expected);
}

#[test]
fn listed_tools_become_a_catalog_and_are_called_by_their_listed_names() {
    let mut pair = v1();
    let tools = r#"{"type":"tools","tools":[
        {"name":"files__read","description":"d","inputSchema":{"type":"object","x":1.0},"annotations":{}},
        {"name":"time__now__utc","inputSchema":{}}, {"name":"plain","inputSchema":{}}, {"name":5}, 5]}"#;
    pair.relay.handle_message(text(tools), at(pair.now));
    let events = pair.relay_events();
    let [Event::Catalog(json)] = &events[..] else { panic!("a catalog") };
    let update: Update = serde_json::from_slice(json).unwrap();
    assert!(update.whole && update.servers.iter().all(|server| server.state == State::Ready));
    let listed: Vec<_> = update
        .servers
        .iter()
        .map(|server| (&*server.name, server.tools.iter().map(|tool| tool.get()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        listed,
        [
            (
                "files",
                vec![r#"{"name":"read","description":"d","inputSchema":{"type":"object","x":1.0},"annotations":{}}"#]
            ),
            ("time", vec![r#"{"name":"now__utc","inputSchema":{}}"#]),
            ("tools", vec![r#"{"name":"plain","inputSchema":{}}"#]),
        ]
    );
    pair.relay(open_tool(1, "time__now__utc", "{}"));
    pair.relay(open_tool(2, "tools__plain", "{}"));
    assert_eq!(
        said(&mut pair.relay, pair.now),
        [
            r#"{"type":"request","id":"1","method":"time__now__utc","params":{}}"#,
            r#"{"type":"request","id":"2","method":"plain","params":{}}"#,
        ]
    );
}

#[test]
fn agent_speaks_as_the_predecessor_did() {
    let mut pair = v1();
    let catalog = r#"{"whole":true,"servers":[{"name":"files","state":"ready","tools":[
        {"name":"read","title":"T","description":"d","inputSchema":{"n":1.0},"outputSchema":{},"annotations":{"a": 1}},
        {"name":"list","inputSchema":{}}]},{"name":"time","state":"ready","tools":[{"name":"now","inputSchema":{}}]}]}"#;
    let change =
        r#"{"whole":false,"servers":[{"name":"files","state":"ready","tools":[{"name":"list"}]}],"removed":["time"]}"#;
    pair.agent(Command::Catalog(Bytes::from_static(catalog.as_bytes())));
    assert_eq!(
        said(&mut pair.agent, pair.now),
        [concat!(
            r#"{"type":"tools","tools":[{"name":"files__read","description":"[files] d","inputSchema":{"n":1.0},"annotations":{"a": 1}},"#,
            r#"{"name":"files__list","description":"[files]","inputSchema":{}},{"name":"time__now","description":"[time]","inputSchema":{}}]}"#
        )]
    );
    for message in [
        r#"{"type":"request","id":"x-1","method":"files__read","params":{"path":"a"}}"#,
        r#"{"type":"request","id":7,"method":"time__now"}"#,
        r#"{"type":"restart"}"#,
    ] {
        pair.agent.handle_message(text(message), at(pair.now));
    }
    let call = |stream, server: &str, params: &'static str| Event::Call {
        stream: StreamId(stream),
        head: OpenHead { server: server.into(), ..head(params.len()) },
        params: params.into(),
    };
    assert_eq!(
        pair.agent_events(),
        [
            call(1, "files", r#"{"name":"read","arguments":{"path":"a"}}"#),
            call(2, "time", r#"{"name":"now","arguments":{}}"#),
            Event::Restart { server: None },
        ]
    );
    pair.agent(message(1, "progress", true));
    pair.agent(Command::Notice { server: "files".into(), sessions: vec![], json: Bytes::from_static(b"{}") });
    let outcome = Outcome::Error { code: -32_602 };
    pair.agent(Command::Answer {
        stream: StreamId(2),
        outcome,
        body: r#"{"code":-32602,"message":"bad \"zone\""}"#.into(),
    });
    pair.agent(answer(1, r#"{"content":[ ]}"#));
    pair.agent(answer(1, "{}"));
    pair.agent(Command::Catalog(Bytes::from_static(change.as_bytes())));
    pair.agent(Command::Catalog(Bytes::from_static(change.as_bytes())));
    assert_eq!(
        said(&mut pair.agent, pair.now),
        [
            r#"{"type":"error","id":7,"message":"bad \"zone\""}"#,
            r#"{"type":"response","id":"x-1","result":{"content":[ ]}}"#,
            r#"{"type":"tools","tools":[{"name":"files__list","description":"[files]"}]}"#,
        ]
    );
}

#[test]
fn relay_is_told_of_tools_only_when_they_changed_or_servers_were_restarted() {
    let mut pair = v1();
    let catalog = |tools: &str| {
        let server = format!(r#"{{"name":"a","state":"ready","tools":[{tools}]}}"#);
        Command::Catalog(format!(r#"{{"whole":true,"servers":[{server}]}}"#).into())
    };
    let mut lists = |tools: &str| {
        pair.agent(catalog(tools));
        said(&mut pair.agent, pair.now).len()
    };
    let (none, one) = ("", r#"{"name":"b"}"#);
    assert_eq!([lists(none), lists(none), lists(one), lists(one), lists(none)], [1, 0, 1, 0, 1]);
    pair.agent.handle_message(text(r#"{"type":"restart"}"#), at(pair.now));
    pair.agent(catalog(none));
    assert_eq!(said(&mut pair.agent, pair.now), [r#"{"type":"tools","tools":[]}"#]);
}

#[test]
fn label_of_a_description_is_taken_off_once() {
    let own = |description: &str| {
        let mut pair = v1();
        let tools = format!(r#"{{"type":"tools","tools":[{{"name":"a\u0041__t","description":{description}}}]}}"#);
        pair.relay.handle_message(text(&tools), at(pair.now));
        let events = pair.relay_events();
        let [Event::Catalog(json)] = &events[..] else { panic!("a catalog") };
        let update: Update = serde_json::from_slice(json).unwrap();
        update.servers[0].tools[0].get().to_string()
    };
    for (listed, expected) in [
        (r#""[aA] says \u0061""#, r#","description":"says \u0061""#),
        (r#""[aA] [aA] x""#, r#","description":"[aA] x""#),
        (r#""[aA] ""#, ""),
        (r#""[aA]""#, ""),
        (r#""[aA]x""#, r#","description":"[aA]x""#),
        (r#""[other] x""#, r#","description":"[other] x""#),
        (r#""""#, r#","description":"""#),
        ("5", r#","description":5"#),
    ] {
        assert_eq!(own(listed), format!(r#"{{"name":"t"{expected}}}"#), "{listed}");
    }
}

#[test]
fn unknown_tool_is_answered_and_told() {
    let mut pair = v1();
    pair.agent.handle_message(text(r#"{"type":"request","id":"1","method":"no__tool","params":{}}"#), at(pair.now));
    assert_eq!(said(&mut pair.agent, pair.now), [r#"{"type":"error","id":"1","message":"unknown tool: no__tool"}"#]);
    assert_eq!(pair.agent_events(), [Event::Unlisted { tool: "no__tool".into(), bytes: 2 }]);
}

#[test]
fn our_relay_and_our_agent_understand_each_other() {
    let mut pair = v1();
    let catalog = r#"{"whole":true,"servers":[{"name":"files","state":"ready","tools":[{"name":"read"}]}]}"#;
    pair.agent(Command::Catalog(catalog.into()));
    pair.run();
    assert!(matches!(pair.relay_events()[..], [Event::Catalog(_)]));
    pair.relay(open_tool(3, "files__read", r#"{"name":"read","arguments":{"a":1}}"#));
    pair.run();
    assert!(matches!(&pair.agent_events()[..], [Event::Call { head, .. }] if &*head.server == "files"));
    pair.agent(answer(1, r#"{"content":[]}"#));
    pair.run();
    assert_eq!(pair.relay_events(), answered(3, Outcome::Result, r#"{"content":[]}"#));
}

#[test]
fn only_tools_can_be_called() {
    let mut pair = v1();
    pair.relay(open(1, b"{}"));
    let events = pair.relay_events();
    assert!(matches!(events[0], Event::Answer { outcome: Outcome::Error { code: -32_601 }, .. }));
    assert_eq!(said(&mut pair.relay, pair.now), Vec::<String>::new());
}

#[test]
fn call_waits_as_long_as_the_predecessor_waited() {
    let mut pair = v1();
    let catalog = r#"{"whole":true,"servers":[{"name":"files","state":"ready","tools":[{"name":"read"}]}]}"#;
    pair.agent(Command::Catalog(catalog.into()));
    pair.relay(open_tool(1, "files__read", "{}"));
    pair.run();
    pair.relay_events();
    pair.agent_events();
    pair.pass(V1_CALL_TIMEOUT - Duration::from_micros(1), true);
    let resets = |events: Vec<Event>| {
        let reset = |event: &Event| matches!(event, Event::Reset { code: ResetCode::TimedOut, .. });
        events.iter().filter(|event| reset(event)).count()
    };
    assert_eq!((resets(pair.relay_events()), resets(pair.agent_events())), (0, 0));
    pair.pass(Duration::from_micros(1), true);
    assert_eq!((resets(pair.relay_events()), resets(pair.agent_events())), (1, 1));
    pair.agent(answer(1, "{}"));
    pair.relay.handle_message(text(r#"{"type":"response","id":"1","result":{}}"#), at(pair.now));
    assert_eq!(pair.relay_events(), []);
}

#[test]
fn cancelled_call_is_forgotten_and_not_sent_if_it_was_not_yet() {
    let mut pair = v1();
    pair.relay(open_tool(1, "a__b", "{}"));
    pair.relay(Command::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: String::new() });
    assert_eq!(said(&mut pair.relay, pair.now), Vec::<String>::new());
    pair.relay.handle_message(text(r#"{"type":"response","id":"1","result":{}}"#), at(pair.now));
    assert_eq!(pair.relay_events(), []);
}

#[test]
fn agent_pings_on_time_and_the_relay_drops_a_silent_one() {
    let mut pair = v1();
    pair.pass(V1_PING_INTERVAL * 10, true);
    let measured = pair.agent_events();
    assert!(
        measured.len() >= 9 && measured.iter().all(|event| matches!(event, Event::RoundTrip { .. })),
        "{measured:?}"
    );
    assert_eq!(pair.relay_events(), []);
    let heard = pair.now;
    pair.pass(V1_SILENCE, false);
    let Some(Event::Closed(Close { code: CloseCode::TimedOut, .. })) = pair.relay_events().pop() else {
        panic!("dropped")
    };
    assert_eq!(pair.now.saturating_since(heard), V1_SILENCE);
}

#[test]
fn what_is_no_message_closes_the_tunnel() {
    let too_many = alloc::format!(r#"{{"type":"tools","tools":[{}0]}}"#, "0,".repeat(MAX_TOOLS));
    let cases = [
        (text("{"), CloseCode::Protocol),
        (text("[]"), CloseCode::Protocol),
        (text(r#"{"no":"type"}"#), CloseCode::Protocol),
        (text(r#"{"type":"tools","tools":{}}"#), CloseCode::Protocol),
        (text(&too_many), CloseCode::Protocol),
        (Message::Binary(Bytes::from_static(b"{}")), CloseCode::Protocol),
        (text(&" ".repeat(MAX_V1_MESSAGE + 1)), CloseCode::TooBig),
    ];
    for (message, code) in cases {
        let mut pair = v1();
        pair.relay.handle_message(message, at(pair.now));
        assert!(matches!(&pair.relay_events()[..], [Event::Closed(close)] if close.code == code));
    }
}

#[test]
fn bodies_over_the_limit_fail_only_their_call() {
    let mut pair = v1();
    let large = "x".repeat(MAX_V1_MESSAGE);
    pair.relay(open_tool(1, "a__b", &alloc::format!(r#"{{"arguments":"{large}"}}"#)));
    assert!(matches!(pair.relay_events()[..], [Event::Reset { code: ResetCode::TooLarge, .. }]));
    pair.agent(Command::Catalog(
        r#"{"whole":true,"servers":[{"name":"a","state":"ready","tools":[{"name":"b"}]}]}"#.into(),
    ));
    said(&mut pair.agent, pair.now);
    pair.agent.handle_message(text(r#"{"type":"request","id":"1","method":"a__b"}"#), at(pair.now));
    pair.agent(answer(1, alloc::format!("\"{large}\"")));
    let said = said(&mut pair.agent, pair.now);
    assert_eq!(
        said,
        [r#"{"type":"error","id":"1","message":"the answer is larger than an old relay takes"}"#.to_string()]
    );
}

#[test]
fn message_that_is_too_large_to_be_read_closes_the_tunnel_with_the_limit() {
    let mut pair = v1();
    pair.relay.handle_too_big(at(pair.now));
    let [Event::Closed(close)] = &pair.relay_events()[..] else { panic!("closed") };
    assert_eq!((close.code, close.reason.contains(" 32 MiB")), (CloseCode::TooBig, true), "{}", close.reason);
    pair.relay.handle_too_big(at(pair.now));
    assert!(pair.relay_events().is_empty(), "once");
}

/// An agent's catalog or a change of it, with servers of one tool each.
fn listing(whole: bool, servers: &[&str]) -> Command {
    let server = |name: &&str| format!(r#"{{"name":"{name}","state":"ready","tools":[{{"name":"t"}}]}}"#);
    let servers: Vec<_> = servers.iter().map(server).collect();
    Command::Catalog(format!(r#"{{"whole":{whole},"servers":[{}]}}"#, servers.join(",")).into())
}

#[test]
fn old_relay_is_told_the_newest_list_alone() {
    let mut pair = v1();
    pair.agent(listing(true, &["a"]));
    pair.agent(listing(false, &["b"]));
    let [list] = &said(&mut pair.agent, pair.now)[..] else { panic!("one list") };
    assert!(list.contains("a__t") && list.contains("b__t"), "a change adds: {list}");
    pair.agent(listing(true, &["c"]));
    let [list] = &said(&mut pair.agent, pair.now)[..] else { panic!("one list") };
    assert!(!list.contains("a__t") && list.contains("c__t"), "a whole list replaces: {list}");
}

#[test]
fn old_relay_hears_why_a_call_was_ended() {
    for (reason, expected) in [("", "the call was ended: ServerGone"), ("it crashed", "it crashed")] {
        let mut pair = v1();
        pair.agent(listing(true, &["a"]));
        said(&mut pair.agent, pair.now);
        let request = text(r#"{"type":"request","id":"1","method":"a__t","params":{}}"#);
        pair.agent.handle_message(request, at(pair.now));
        let (stream, code) = (StreamId(1), ResetCode::ServerGone);
        pair.agent(Command::Reset { stream, code, reason: reason.into() });
        let error = format!(r#"{{"type":"error","id":"1","message":"{expected}"}}"#);
        assert_eq!(said(&mut pair.agent, pair.now), [error]);
    }
}

#[test]
fn long_name_of_an_unknown_tool_is_not_said_back_whole() {
    let mut pair = v1();
    let request = format!(r#"{{"type":"request","id":"1","method":"{}","params":{{}}}}"#, "x".repeat(200));
    pair.agent.handle_message(text(&request), at(pair.now));
    let error = format!(r#"{{"type":"error","id":"1","message":"unknown tool: {}"}}"#, "x".repeat(128));
    assert_eq!(said(&mut pair.agent, pair.now), [error]);
}

#[test]
fn tool_that_was_listed_without_a_server_is_forgotten_with_its_list() {
    let mut pair = v1();
    for (list, expected) in [("read", "read"), ("tools__read", "tools__read")] {
        let tools = format!(r#"{{"type":"tools","tools":[{{"name":"{list}"}}]}}"#);
        pair.relay.handle_message(text(&tools), at(pair.now));
        pair.relay(open_tool(1, "tools__read", "{}"));
        let [request] = &said(&mut pair.relay, pair.now)[..] else { panic!("a request") };
        assert!(request.contains(&format!(r#""method":"{expected}""#)), "{request}");
    }
}

#[test]
fn list_that_one_too_large_took_the_place_of_is_sent_when_it_comes_again() {
    let mut pair = v1();
    let tool = format!(r#"{{"name":"t","description":"{}"}}"#, "x".repeat(MAX_V1_MESSAGE));
    let large = format!(r#"{{"whole":true,"servers":[{{"name":"a","state":"ready","tools":[{tool}]}}]}}"#);
    pair.agent(listing(true, &["a"]));
    pair.agent(Command::Catalog(large.into()));
    assert_eq!(said(&mut pair.agent, pair.now), Vec::<String>::new());
    pair.agent(listing(true, &["a"]));
    assert_eq!(said(&mut pair.agent, pair.now).len(), 1);
}
