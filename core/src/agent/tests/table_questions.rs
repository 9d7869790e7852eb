//! What servers ask at the agent: a question in a call of the older era, and a call of the newer one that is parked over
//! a question. Every event in every state; what follows is said in short; `.`: nothing.

use std::format;

use super::bridging::legacy;
use super::kit::{KINDS, WHOLE, look, strangers};
use super::*;
use crate::limits;
use crate::table::{TIME, Table};

const A: ChildId = ChildId(1);

/// What the relay gets and what the server `a` is told: of a message or an answer the stream, of an error the code.
fn said(rig: &mut Rig) -> String {
    let mut said: Vec<String> = Vec::new();
    while let Some(action) = rig.actions.pop_front() {
        said.extend(words(&action));
    }
    if said.is_empty() { ".".to_string() } else { said.join(", ") }
}

fn words(action: &Action) -> Option<String> {
    let method =
        |json: &Value| json["method"].as_str().map(|method| method.rsplit('/').next().expect("one").to_string());
    match action {
        Action::Tunnel { command: Command::Answer { stream, outcome: Outcome::Result, body }, .. } => {
            let is_question = body.windows(14).any(|window| window == b"input_required");
            Some(format!("{} {}", if is_question { "asks back" } else { "answer" }, stream.0))
        }
        Action::Tunnel { command: Command::Answer { stream, outcome: Outcome::Error { code }, .. }, .. } => {
            Some(format!("error {code} {}", stream.0))
        }
        Action::Tunnel { command: Command::Message { stream, json, .. }, .. } => {
            let json: Value = serde_json::from_slice(json).expect("JSON");
            Some(format!("says {} {}", method(&json).expect("a method"), stream.0))
        }
        Action::Tunnel { command: Command::Notice { .. }, .. } => Some("notice".to_string()),
        Action::Write { child, bytes } if *child == A => {
            let json: Value = serde_json::from_slice(bytes).expect("JSON");
            match method(&json) {
                Some(method) => Some(format!("tells {method}")),
                None if json.get("error").is_some() => Some(format!("refuses {}", json["error"]["code"])),
                None => Some("replies".to_string()),
            }
        }
        // The tunnel's own affairs, and what is done to the process.
        _ => None,
    }
}

fn question(id: &str, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"_meta": {"progressToken": "t"}, "messages": []}})
}

fn taken_back(id: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
}

mod in_a_call {
    use super::*;

    /// Of the calls of the server `a`, and of its question "q". The sessions are "one" and, in "two clients", "two".
    const STATES: [(&str, &str); 8] = [
        ("no call", "ready"),
        ("one call", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
        ("two of one", "ready, 2 audit entries, 2 calls, 2 routes, 2 streams"),
        ("two clients", "ready, 2 audit entries, 2 calls, 2 routes, 2 streams"),
        ("asked", "ready, 1 audit entries, 1 calls, 1 questions, 1 routes, 1 streams"),
        ("answered", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
        ("taken back", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
        ("call over", "ready"),
    ];

    /// The agent, and the server's id of the call on stream 1.
    fn in_state(state: &str) -> (Rig, Value) {
        let mut rig = Rig::ready(&["a"]);
        if state == "no call" {
            return (rig, json!(1_000_000));
        }
        rig.call_in(1, "one");
        let id = rig.written(A)[0]["id"].clone();
        match state {
            "one call" => {}
            "two of one" => rig.call_in(2, "one"),
            "two clients" => rig.call_in(2, "two"),
            _ => rig.say(A, &question("q", "sampling/createMessage")),
        }
        match state {
            "answered" => rig.client_says(1, &json!({"jsonrpc": "2.0", "id": "q", "result": {}})),
            "taken back" => rig.say(A, &taken_back("q")),
            "call over" => rig.answer(A, &id, json!({})),
            _ => {}
        }
        rig.actions.clear();
        (rig, id)
    }

    fn give((mut rig, id): (Rig, Value), event: &str) -> String {
        let result = json!({"jsonrpc": "2.0", "id": "q", "result": {}});
        match event {
            "question" => rig.say(A, &question("r", "sampling/createMessage")),
            "same question" => rig.say(A, &question("q", "sampling/createMessage")),
            "question that it may not ask" => rig.say(A, &question("r", "elicitation/create")),
            "question that is too long" => {
                let mut long = question("r", "sampling/createMessage");
                long["params"]["x"] = json!("x".repeat(limits::MAX_CALL_MESSAGE));
                rig.say(A, &long);
            }
            "ping" => rig.say(A, &json!({"jsonrpc": "2.0", "id": "r", "method": "ping"})),
            "answer" => rig.client_says(1, &result),
            "refusal" => {
                rig.client_says(1, &json!({"jsonrpc": "2.0", "id": "q", "error": {"code": -1, "message": "no"}}));
            }
            "answer on another stream" => rig.client_says(2, &result),
            "progress" => rig.client_says(
                1,
                &json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": "t", "progress": 1}}),
            ),
            "taken back" => rig.say(A, &taken_back("q")),
            "call answered" => rig.answer(A, &id, json!({})),
            "call reset" => rig.reset(1),
            "tunnel closed" => rig.closed(CloseCode::TimedOut),
            "server ends" => rig.exited(A, 1, "boom"),
            "session over" => rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() }),
            "stop" => rig.event(Event::Stop),
            "what concerns others" => strangers(&mut rig),
            other => panic!("no such event: {other}"),
        }
        said(&mut rig)
    }

    const NOBODY: &str = "refuses -32601";
    const NOT_CLEAR: &str = "refuses -32015";
    const ASKED: &str = "says createMessage 1";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 8])] = &[
        // no call, one call, two of one, two clients, asked, answered, taken back, call over
        // With no call open the session is asked that used the server lately.
        ("question", [NOBODY, ASKED, "says createMessage 2", NOT_CLEAR, ASKED, ASKED, ASKED, "notice"]),
        ("same question", [NOBODY, ASKED, "says createMessage 2", NOT_CLEAR, ".", ASKED, ASKED, "notice"]),
        ("question that it may not ask", [NOBODY, NOBODY, NOBODY, NOT_CLEAR, NOBODY, NOBODY, NOBODY, NOBODY]),
        (
            "question that is too long",
            [
                NOBODY,
                "refuses -32012",
                "refuses -32012",
                NOT_CLEAR,
                "refuses -32012",
                "refuses -32012",
                "refuses -32012",
                "refuses -32012",
            ],
        ),
        ("ping", ["replies"; 8]),
        ("answer", [".", ".", ".", ".", "replies", ".", ".", "."]),
        ("refusal", [".", ".", ".", ".", "refuses -1", ".", ".", "."]),
        ("answer on another stream", ["."; 8]),
        ("progress", [".", ".", ".", ".", "tells progress", ".", ".", "."]),
        ("taken back", [".", ".", ".", ".", "says cancelled 1", ".", ".", "."]),
        (
            "call answered",
            [".", "answer 1", "answer 1", "answer 1", "refuses -32011, answer 1", "answer 1", "answer 1", "."],
        ),
        (
            "call reset",
            [
                ".",
                "tells cancelled",
                "tells cancelled",
                "tells cancelled",
                "refuses -32011, tells cancelled",
                "tells cancelled",
                "tells cancelled",
                ".",
            ],
        ),
        (
            "tunnel closed",
            [
                ".",
                "tells cancelled",
                "tells cancelled, tells cancelled",
                "tells cancelled, tells cancelled",
                "refuses -32011, tells cancelled",
                "tells cancelled",
                "tells cancelled",
                ".",
            ],
        ),
        (
            "server ends",
            [
                ".",
                "error -32010 1",
                "error -32010 1, error -32010 2",
                "error -32010 1, error -32010 2",
                "error -32010 1",
                "error -32010 1",
                "error -32010 1",
                ".",
            ],
        ),
        // Its calls the relay has reset.
        ("session over", ["."; 8]),
        (
            "stop",
            [
                ".",
                "error -32010 1",
                "error -32010 1, error -32010 2",
                "error -32010 1, error -32010 2",
                "error -32010 1",
                "error -32010 1",
                "error -32010 1",
                ".",
            ],
        ),
        ("what concerns others", ["."; 8]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        WHOLE,
        ("a restart ends the server: table", &["ConfigRead", "tunnel: Restart", "control: Restart"]),
        ("no call waits for ever: table", TIME),
        ("it began the one that is looked at", &["tunnel: Call"]),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            in_state,
            |(rig, _)| look(rig, "a"),
            give,
        );
    }
}

mod parked {
    use super::*;

    /// Of a call of the newer era on stream 1, whose older server asks "q" and, in "asked twice", "r". "resumed": the
    /// client came back on stream 9. "done": the server answered while the client was away.
    const STATES: [(&str, &str); 8] = [
        ("working", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
        ("parked", "ready, 1 calls"),
        ("asked twice", "ready, 1 calls"),
        ("resumed", "ready, 1 audit entries, 1 calls, 1 routes, 1 streams"),
        ("done", "ready, 1 calls"),
        ("taken back", "ready, 1 calls"),
        ("too late", "ready"),
        ("over", "ready"),
    ];

    struct Bench {
        rig: Rig,
        /// The server's id of the call.
        id: Value,
        /// What the client is to come back with.
        state: String,
        /// On which stream it comes back next.
        next: u32,
    }

    fn params(more: &Value) -> String {
        let able = json!({"sampling": {}, "elicitation": {}, "roots": {}});
        let mut params =
            json!({"name": "t", "arguments": {"x": 1}, "_meta": {"io.modelcontextprotocol/clientCapabilities": able}});
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        params.to_string()
    }

    impl Bench {
        fn in_state(state: &str) -> Self {
            let mut rig = legacy(&json!({"tools": {}}));
            rig.modern_call(1, "a", "tools/call", &params(&json!({})));
            let id = rig.written(A)[0]["id"].clone();
            let mut bench = Self { rig, id, state: "nothing".to_string(), next: 9 };
            if state != "working" && state != "over" {
                bench.rig.say(A, &question("q", "elicitation/create"));
                let (_, _, body) = bench.rig.answers().remove(0);
                let body: Value = serde_json::from_str(&body).expect("JSON");
                bench.state = body["requestState"].as_str().expect("a state").to_string();
            }
            match state {
                "asked twice" => bench.rig.say(A, &question("r", "roots/list")),
                "resumed" => bench.back(&json!({"question-1": {}}), &json!({})),
                "done" | "over" => bench.rig.answer(A, &bench.id, json!({"content": []})),
                "taken back" => bench.rig.say(A, &taken_back("q")),
                "too late" => bench.rig.advance(limits::PARKED_FOR),
                _ => {}
            }
            bench.rig.actions.clear();
            bench
        }

        /// The client comes back on the next stream, which is 9 at first, with these answers.
        fn back(&mut self, answers: &Value, other: &Value) {
            let mut more = json!({"requestState": self.state, "inputResponses": answers});
            more.as_object_mut().expect("an object").extend(other.as_object().expect("an object").clone());
            self.rig.modern_call(self.next, "a", "tools/call", &params(&more));
            self.next += 1;
        }

        fn give(mut self, event: &str) -> String {
            let fine = json!({"question-1": {"action": "accept"}});
            match event {
                "comes back" => self.back(&fine, &json!({})),
                "comes back with nothing" => self.back(&json!({}), &json!({})),
                "comes back with no object" => self.back(&json!({"question-1": 7}), &json!({})),
                "comes back with another request" => self.back(&fine, &json!({"arguments": {"x": 2}})),
                "comes back with a state of its own" => {
                    self.state.push('A');
                    self.back(&fine, &json!({}));
                }
                "comes back over another tunnel" => {
                    self.rig.closed(CloseCode::TimedOut);
                    self.rig.advance(limits::RECONNECT_MAX);
                    self.rig.connect(Dialect::V2);
                    self.back(&fine, &json!({}));
                }
                "comes back a second time" => {
                    self.back(&fine, &json!({}));
                    self.rig.actions.clear();
                    self.back(&fine, &json!({}));
                }
                "question" => self.rig.say(A, &question("s", "roots/list")),
                "question of its own kind" => self.rig.say(A, &question("s", "vendor/x")),
                "taken back" => self.rig.say(A, &taken_back("q")),
                "server answers" => self.rig.answer(A, &self.id, json!({"content": []})),
                "server fails" => {
                    let error = json!({"code": -7, "message": "m"});
                    self.rig.say(A, &json!({"jsonrpc": "2.0", "id": self.id, "error": error}));
                }
                "first stream reset" => self.rig.reset(1),
                "second stream reset" => self.rig.reset(9),
                "tunnel closed" => self.rig.closed(CloseCode::TimedOut),
                "patience over" => self.rig.advance(limits::PARKED_FOR),
                "server ends" => self.rig.exited(A, 1, "boom"),
                "stop" => self.rig.event(Event::Stop),
                "what concerns others" => strangers(&mut self.rig),
                other => panic!("no such event: {other}"),
            }
            said(&mut self.rig)
        }
    }

    /// What fits no call that waits is never a call of its own (A7).
    const NONE: &str = "error -32602 9";
    /// The same where it was back already.
    const ANEW: &str = "error -32602 10";

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 8])] = &[
        // working, parked, asked twice, resumed, done, taken back, too late, over
        ("comes back", [NONE, "replies", "replies, asks back 9", ANEW, "answer 9", ".", NONE, NONE]),
        ("comes back with nothing", [NONE, "asks back 9", "asks back 9", ANEW, "answer 9", ".", NONE, NONE]),
        ("comes back with no object", [NONE, NONE, NONE, ANEW, "answer 9", ".", NONE, NONE]),
        ("comes back with another request", [NONE, NONE, NONE, ANEW, NONE, NONE, NONE, NONE]),
        ("comes back with a state of its own", [NONE, NONE, NONE, ANEW, NONE, NONE, NONE, NONE]),
        (
            "comes back over another tunnel",
            [
                "tells cancelled, error -32602 9",
                "replies",
                "replies, asks back 9",
                "tells cancelled, error -32602 10",
                "answer 9",
                ".",
                NONE,
                NONE,
            ],
        ),
        ("comes back a second time", [ANEW, ANEW, ANEW, "error -32602 11", ANEW, ANEW, ANEW, ANEW]),
        (
            "question",
            ["asks back 1", ".", ".", "asks back 9", "refuses -32601", ".", "refuses -32601", "refuses -32601"],
        ),
        ("question of its own kind", ["refuses -32601"; 8]),
        ("taken back", ["."; 8]),
        ("server answers", ["answer 1", ".", ".", "answer 9", ".", ".", ".", "."]),
        ("server fails", ["error -7 1", ".", ".", "error -7 9", ".", ".", ".", "."]),
        ("first stream reset", ["tells cancelled", ".", ".", ".", ".", ".", ".", "."]),
        ("second stream reset", [".", ".", ".", "tells cancelled", ".", ".", ".", "."]),
        ("tunnel closed", ["tells cancelled", ".", ".", "tells cancelled", ".", ".", ".", "."]),
        (
            "patience over",
            [
                ".",
                "refuses -32011, tells cancelled",
                "refuses -32011, refuses -32011, tells cancelled",
                ".",
                // Nothing is under way any more that could be cancelled (2025-11-25, Cancellation).
                ".",
                "tells cancelled",
                ".",
                ".",
            ],
        ),
        ("server ends", ["error -32010 1", ".", ".", "error -32010 9", ".", ".", ".", "."]),
        (
            "stop",
            [
                "error -32010 1",
                "refuses -32011",
                "refuses -32011, refuses -32011",
                "error -32010 9",
                ".",
                ".",
                ".",
                ".",
            ],
        ),
        ("what concerns others", ["."; 8]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        (
            "it is the whole agent's: table_phases",
            &["Nudge", "NetworkChanged", "fetch: Head", "fetch: Chunk", "fetch: End"],
        ),
        ("a restart ends the server: table", &["ConfigRead", "tunnel: Restart", "control: Restart"]),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            Bench::in_state,
            |bench| look(&mut bench.rig, "a"),
            Bench::give,
        );
    }
}
