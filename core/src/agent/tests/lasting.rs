//! Modern clients' subscriptions outlive the runs that they were opened at.

use std::format;

use ::http::Method;

use super::bridging::{SUBSCRIPTION, answer, asked, legacy, listening, modern_config};
use super::eras::{discovery, started_http};
use super::*;
use crate::config::RestartPolicy;
use crate::http::fetch::FetchEvent;
use crate::id::FetchId;
use crate::limits;
use crate::mcp::code;

const A: ChildId = ChildId(1);
const LISTEN: &str = r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:b"]},"_meta":{"x":1.0}}"#;

fn able() -> Value {
    json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}})
}

fn note(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": format!("notifications/{method}"), "params": params})
}

/// What a modern server says on a subscription.
fn on(id: &Value, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({SUBSCRIPTION: id});
    note(method, params)
}

fn honoured(id: &Value) -> Value {
    let filter = json!({"toolsListChanged": true, "resourceSubscriptions": ["a:b"]});
    on(id, "subscriptions/acknowledged", json!({"notifications": filter}))
}

/// Of what is heard on streams: the stream, and the end of the method.
fn heard(rig: &mut Rig) -> Vec<(u32, String)> {
    let end = |json: &Value| json["method"].as_str().unwrap().rsplit_once("notifications/").unwrap().1.to_string();
    rig.messages().into_iter().map(|(stream, json, _)| (stream, end(&json))).collect()
}

fn is(method: &str) -> (u32, String) {
    (1, method.to_string())
}

/// The next process of `a`, of that era, ready with these tools; and what it was asked besides its lists.
fn again(rig: &mut Rig, is_modern: bool, tools: &Value) -> (ChildId, Vec<Value>) {
    rig.advance(limits::RESTART_MAX);
    let child = rig.spawned("a").expect("it is started again");
    rig.event(Event::Spawned { child, pid: 100 });
    let hello = rig.written(child).remove(0);
    let about = match is_modern {
        true => json!({"supportedVersions": ["2026-07-28"], "capabilities": able()}),
        false => json!({"protocolVersion": "2025-11-25", "capabilities": able(), "serverInfo": {"name": "old"}}),
    };
    rig.answer(child, &hello["id"], about);
    let mut others = Vec::new();
    loop {
        let written = rig.written(child);
        if written.is_empty() {
            return (child, others);
        }
        for message in written {
            match message["method"].as_str().unwrap() {
                "notifications/initialized" => {}
                list if list.ends_with("/list") => {
                    let page = json!({"tools": tools, "resources": [], "resourceTemplates": [], "prompts": []});
                    rig.answer(child, &message["id"], page);
                }
                _ => others.push(message),
            }
        }
    }
}

/// A legacy server with a subscription on stream 1, whose resource it was told of.
fn at_legacy() -> Rig {
    let mut rig = legacy(&able());
    rig.modern_call(1, "a", "subscriptions/listen", LISTEN);
    assert_eq!(asked(&mut rig, A)["method"], "resources/subscribe");
    assert_eq!(heard(&mut rig), [is("subscriptions/acknowledged")]);
    rig
}

/// A modern server with a subscription on stream 1, acknowledged: its id there.
fn at_modern() -> (Rig, Value) {
    let (mut rig, _) = listening(&["2026-07-28"], &able());
    rig.actions.clear();
    rig.modern_call(1, "a", "subscriptions/listen", LISTEN);
    let id = asked(&mut rig, A)["id"].clone();
    rig.say(A, &honoured(&id));
    assert_eq!(heard(&mut rig), [is("subscriptions/acknowledged")]);
    (rig, id)
}

#[test]
fn subscription_at_a_legacy_server_goes_on_with_its_next_process() {
    for (tools, news) in [(json!([{"name": "t"}]), false), (json!([{"name": "new"}]), true)] {
        let mut rig = at_legacy();
        rig.exited(A, 1, "");
        assert_eq!((rig.answers().len(), rig.messages().len()), (0, 0), "nobody is told of it");
        let (child, others) = again(&mut rig, false, &tools);
        assert_eq!((others.len(), &others[0]["method"]), (1, &json!("resources/subscribe")));
        let changed = is("tools/list_changed");
        let missed: Vec<_> = [changed.clone()].into_iter().filter(|_| news).chain([is("resources/updated")]).collect();
        assert_eq!(heard(&mut rig), missed, "{tools}");
        rig.say(child, &note("tools/list_changed", json!({})));
        assert_eq!(heard(&mut rig), [changed]);
        assert!(rig.answers().is_empty());
    }
}

#[test]
fn subscription_at_a_modern_server_is_asked_for_anew_and_acknowledged_once() {
    for (tools, news) in [(json!([{"name": "t"}]), false), (json!([{"name": "new"}]), true)] {
        let (mut rig, first) = at_modern();
        rig.exited(A, 1, "");
        assert!(rig.answers().is_empty(), "nobody is told of it");
        let (child, others) = again(&mut rig, true, &tools);
        let listen = others.iter().find(|asked| asked["params"]["_meta"]["x"] == json!(1.0)).expect("it is asked anew");
        let id = listen["id"].clone();
        assert_eq!(listen["params"], LISTEN.parse::<Value>().unwrap());
        assert_ne!(id, first, "another request");
        assert_eq!(heard(&mut rig), [], "nothing before it is honoured");
        rig.say(child, &honoured(&id));
        let changed = is("tools/list_changed");
        let missed: Vec<_> = [changed.clone()].into_iter().filter(|_| news).chain([is("resources/updated")]).collect();
        assert_eq!(heard(&mut rig), missed, "{tools}");
        rig.say(child, &on(&id, "tools/list_changed", json!({})));
        rig.say(child, &on(&first, "tools/list_changed", json!({})));
        assert_eq!(heard(&mut rig), [changed], "what bears the old id is nobody's");
        rig.answer(child, &id, json!({"resultType": "complete"}));
        assert_eq!((answer(&mut rig).0, rig.answers().len()), (1, 0));
    }
}

#[test]
fn acknowledgement_that_did_not_come_comes_from_the_next_process() {
    let (mut rig, _) = listening(&["2026-07-28"], &able());
    rig.modern_call(1, "a", "subscriptions/listen", LISTEN);
    rig.exited(A, 1, "");
    let (child, others) = again(&mut rig, true, &json!([]));
    let id = others.iter().find(|asked| asked["params"]["_meta"]["x"] == json!(1.0)).expect("asked")["id"].clone();
    rig.say(child, &honoured(&id));
    assert_eq!(heard(&mut rig)[0], is("subscriptions/acknowledged"));
}

#[test]
fn restart_that_somebody_wants_ends_no_subscription() {
    for (mut rig, config, is_modern) in
        [(at_legacy(), config(&["a"]), false), (at_modern().0, modern_config(EraChoice::Modern), true)]
    {
        rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: None } });
        rig.event(Event::ConfigRead(Ok(config)));
        rig.exited(A, 0, "");
        let (child, others) = again(&mut rig, is_modern, &json!([{"name": "t"}]));
        assert!(others.iter().any(|asked| asked["params"].to_string().contains("a:b")), "{others:?}");
        assert!(rig.answers().is_empty());
        assert_ne!(child, A);
    }
}

#[test]
fn subscription_ends_with_a_result_when_its_server_is_removed_or_not_started_again() {
    let never = |mut config: AgentConfig| {
        config.servers.get_mut("a").unwrap().life.restart = RestartPolicy::Never;
        config
    };
    for is_modern in [false, true] {
        let begin = || if is_modern { at_modern().0 } else { at_legacy() };
        let of = || if is_modern { modern_config(EraChoice::Modern) } else { config(&["a"]) };
        let ended = |rig: &mut Rig| {
            let (stream, code, body) = answer(rig);
            assert_eq!((stream, code, &body["resultType"]), (1, None, &json!("complete")));
            assert!(body["_meta"][SUBSCRIPTION].is_u64(), "{body}");
        };
        let mut rig = begin();
        rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: None } });
        rig.event(Event::ConfigRead(Ok(config(&[]))));
        ended(&mut rig);

        let mut rig = begin();
        rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: None } });
        rig.event(Event::ConfigRead(Ok(never(of()))));
        rig.exited(A, 0, "");
        let (child, _) = again(&mut rig, is_modern, &json!([]));
        assert!(rig.answers().is_empty());
        rig.exited(child, 1, "");
        ended(&mut rig);
    }
}

#[test]
fn client_that_goes_while_its_server_is_away_is_not_listened_for_again() {
    for (mut rig, is_modern) in [(at_legacy(), false), (at_modern().0, true)] {
        rig.exited(A, 1, "");
        rig.reset(1);
        let (_, others) = again(&mut rig, is_modern, &json!([]));
        assert!(!others.iter().any(|asked| asked["params"].to_string().contains("a:b")), "{others:?}");
    }
}

#[test]
fn agent_that_stops_says_nothing_to_those_who_listen() {
    for mut rig in [at_legacy(), at_modern().0] {
        rig.event(Event::Stop);
        assert!(rig.answers().is_empty());
    }
}

#[test]
fn subscription_whose_params_are_too_large_to_be_kept_ends_with_its_process() {
    let (mut rig, _) = listening(&["2026-07-28"], &able());
    rig.actions.clear();
    let listen = |bytes: usize| {
        let empty = json!({"notifications": {}, "x": ""}).to_string();
        json!({"notifications": {}, "x": "x".repeat(bytes - empty.len())}).to_string()
    };
    for (stream, bytes) in [(1, limits::MAX_KEPT_LISTEN), (2, limits::MAX_KEPT_LISTEN + 1)] {
        rig.modern_call(stream, "a", "subscriptions/listen", &listen(bytes));
    }
    rig.exited(A, 1, "");
    let (stream, code, _) = answer(&mut rig);
    assert_eq!((stream, code), (2, Some(code::SERVER_UNAVAILABLE)));
}

// --- over HTTP

/// A modern HTTP server with a subscription on stream 1: its fetch, and the id there.
fn at_http() -> (Rig, FetchId, Value) {
    let mut rig = started_http();
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, http::JSON, &http::result(&request, &discovery(&["2026-07-28"])));
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, http::JSON, &http::result(&request, &json!({"tools": [{"name": "t"}]})));
    rig.connect(Dialect::V2);
    rig.actions.clear();
    rig.modern_call(1, "web", "subscriptions/listen", LISTEN);
    let (fetch, id) = opened(&mut rig);
    (rig, fetch, id)
}

/// The stream that is asked for: its fetch, and its id.
fn opened(rig: &mut Rig) -> (FetchId, Value) {
    let (fetch, request) = rig.fetched(&Method::POST);
    assert_eq!(http::body(&request)["method"], "subscriptions/listen");
    (fetch, http::body(&request)["id"].clone())
}

fn event(json: &Value) -> String {
    format!("data: {json}\n\n")
}

#[test]
fn broken_stream_of_a_subscription_is_opened_again() {
    let (mut rig, mut fetch, mut id) = at_http();
    rig.head(fetch, 200, http::SSE);
    rig.chunk(fetch, &event(&honoured(&id)));
    assert_eq!(heard(&mut rig), [is("subscriptions/acknowledged")]);
    for _ in 0..3 * limits::MAX_QUICK_FAILURES {
        rig.fetch(fetch, FetchEvent::End);
        assert!(rig.is_quiet(), "not at once");
        rig.advance(limits::RECONNECT_MAX);
        (fetch, id) = opened(&mut rig);
        rig.head(fetch, 200, http::SSE);
        rig.chunk(fetch, &event(&honoured(&id)));
        assert_eq!(heard(&mut rig), [is("resources/updated")], "the lists are the same");
    }
    assert!(rig.answers().is_empty());
    rig.reset(1);
    assert_eq!(rig.aborted(), [fetch]);
}

#[test]
fn stream_that_is_not_honoured_again_ends_in_peace_and_one_that_never_was_with_why() {
    let (mut rig, mut fetch, id) = at_http();
    rig.head(fetch, 200, http::SSE);
    rig.chunk(fetch, &event(&honoured(&id)));
    rig.fetch(fetch, FetchEvent::End);
    for _ in 0..limits::MAX_QUICK_FAILURES {
        rig.advance(limits::RECONNECT_MAX);
        assert!(rig.answers().is_empty());
        (fetch, _) = opened(&mut rig);
        rig.head(fetch, 503, &[]);
        rig.fetch(fetch, FetchEvent::End);
    }
    let (_, code, body) = answer(&mut rig);
    assert_eq!((code, &body["resultType"]), (None, &json!("complete")));
    rig.advance(limits::RECONNECT_MAX);
    assert!(rig.is_quiet());

    let (mut rig, fetch, _) = at_http();
    rig.head(fetch, 503, &[]);
    rig.fetch(fetch, FetchEvent::End);
    assert_eq!(answer(&mut rig).1, Some(code::SERVER_UNAVAILABLE));
}

/// A subscription at a server that is a process: every event in every state. What follows: what the client hears, `asked`
/// where the server is asked for it, `told` where the server hears that nobody listens any more, `ends` with a result.
/// `.`: nothing.
mod table {
    use super::super::kit::{KINDS, WHOLE, look, strangers};
    use super::*;
    use crate::table::{TIME, Table};

    /// The subscription is stream 1. "away": the process ended after it was honoured; "anew": the next one was asked.
    const STATES: [(&str, &str); 7] = [
        ("asked", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams, process 1"),
        ("honoured", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams, process 1"),
        ("away unheard", "restarting, 1 audit entries, 1 routes, 1 streams, 1 subscriptions, process 1"),
        ("away", "restarting, 1 audit entries, 1 routes, 1 streams, 1 subscriptions, process 1"),
        ("anew", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams, process 2"),
        ("honoured anew", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams, process 2"),
        ("left", "ready, process 1"),
    ];

    struct Bench {
        rig: Rig,
        child: ChildId,
        /// By what the server knows it.
        id: Value,
    }

    impl Bench {
        fn in_state(state: &str) -> Self {
            let (mut rig, _) = listening(&["2026-07-28"], &able());
            rig.actions.clear();
            rig.modern_call(1, "a", "subscriptions/listen", LISTEN);
            let id = asked(&mut rig, A)["id"].clone();
            let mut bench = Self { rig, child: A, id };
            if state != "asked" && state != "away unheard" {
                bench.honour();
            }
            if state.starts_with("away") || state.ends_with("anew") {
                bench.rig.exited(A, 1, "");
            }
            if state.ends_with("anew") {
                bench.start(&json!([{"name": "t"}]));
            }
            match state {
                "honoured anew" => bench.honour(),
                "left" => bench.rig.reset(1),
                _ => {}
            }
            bench.rig.actions.clear();
            bench
        }

        fn honour(&mut self) {
            self.rig.say(self.child, &honoured(&self.id));
        }

        /// The next process is there. Returns whether it was asked for the subscription.
        fn start(&mut self, tools: &Value) -> bool {
            let (child, others) = again(&mut self.rig, true, tools);
            self.child = child;
            let listen = others.into_iter().find(|asked| asked["params"]["_meta"]["x"] == json!(1.0));
            let is_asked = listen.is_some();
            self.id = listen.map_or(Value::Null, |listen| listen["id"].clone());
            is_asked
        }

        fn give(mut self, event: &str) -> String {
            let mut said = Vec::new();
            match event {
                "honoured" => self.honour(),
                "change" => self.rig.say(self.child, &on(&self.id, "tools/list_changed", json!({}))),
                "update" => self.rig.say(self.child, &on(&self.id, "resources/updated", json!({"uri": "a:b"}))),
                "change of another" => self.rig.say(self.child, &on(&json!(999), "tools/list_changed", json!({}))),
                "ended" => self.rig.answer(self.child, &self.id, json!({"resultType": "complete"})),
                "refused" => {
                    let error = json!({"code": -7, "message": "no"});
                    self.rig.say(self.child, &json!({"jsonrpc": "2.0", "id": self.id, "error": error}));
                }
                "client gone" => self.rig.reset(1),
                "tunnel closed" => self.rig.closed(CloseCode::TimedOut),
                "process ends" => self.rig.exited(self.child, 1, ""),
                "next process" => said.extend(self.start(&json!([{"name": "t"}])).then(|| "asked".to_string())),
                "stop" => self.rig.event(Event::Stop),
                "what concerns others" => strangers(&mut self.rig),
                other => panic!("no such event: {other}"),
            }
            let told = self.rig.written(self.child).into_iter();
            said.extend(told.filter(|json| json["method"] == "notifications/cancelled").map(|_| "told".to_string()));
            said.extend(heard(&mut self.rig).into_iter().map(|(_, method)| method));
            said.extend(self.rig.answers().into_iter().map(|(_, code, _)| match code {
                None => "ends".to_string(),
                Some(code) => format!("error {code}"),
            }));
            if said.is_empty() { ".".to_string() } else { said.join(", ") }
        }
    }

    const CHANGED: &str = "tools/list_changed";
    const UPDATED: &str = "resources/updated";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 7])] = &[
        // asked, honoured, away unheard, away, anew, honoured anew, left
        (
            "honoured",
            // A client has one; the next process's tells it what may have been missed, and the lists are the same.
            ["subscriptions/acknowledged", ".", ".", ".", UPDATED, ".", "."],
        ),
        ("change", [CHANGED, CHANGED, ".", ".", CHANGED, CHANGED, "."]),
        ("update", [UPDATED, UPDATED, ".", ".", UPDATED, UPDATED, "."]),
        ("change of another", ["."; 7]),
        ("ended", ["ends", "ends", ".", ".", "ends", "ends", "."]),
        ("refused", ["error -7", "error -7", ".", ".", "error -7", "error -7", "."]),
        ("client gone", ["told", "told", ".", ".", "told", "told", "."]),
        ("tunnel closed", ["told", "told", ".", ".", "told", "told", "."]),
        ("process ends", ["."; 7]),
        ("stop", ["."; 7]),
        ("what concerns others", ["."; 7]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        WHOLE,
        ("it began the one that is looked at", &["tunnel: Call"]),
        ("a restart ends the process: table", &["ConfigRead", "tunnel: Restart", "control: Restart"]),
        ("it lasts for as long as its client wants", TIME),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            Bench::in_state,
            |bench| format!("{}, process {}", look(&mut bench.rig, "a"), bench.child),
            Bench::give,
        );
    }

    #[test]
    fn next_process_is_asked_where_somebody_still_listens() {
        for (state, after, expected) in [
            ("asked", "process ends", "asked"),
            ("honoured", "process ends", "asked"),
            ("away", "nothing", "asked"),
            ("away unheard", "nothing", "asked"),
            ("away", "client gone", "."),
            ("away", "tunnel closed", "."),
            ("honoured anew", "process ends", "asked"),
            ("left", "process ends", "."),
        ] {
            let mut bench = Bench::in_state(state);
            match after {
                "process ends" => bench.rig.exited(bench.child, 1, ""),
                "client gone" => bench.rig.reset(1),
                "tunnel closed" => bench.rig.closed(CloseCode::TimedOut),
                _ => {}
            }
            bench.rig.actions.retain(|action| matches!(action, Action::Spawn { .. }));
            assert_eq!(bench.give("next process"), expected, "{state}, {after}");
        }
    }
}
