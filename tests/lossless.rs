//! What is forwarded is never decoded and encoded again (invariant A12): any JSON goes through relay and agent, and comes
//! out byte for byte, in params and results, in errors' data and in notifications.

use std::cell::RefCell;
use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use tunnel_core::limits;
use tunnel_core::oauth::Role;
use tunnel_core::rpc::object;
use tunnel_world::script::Raw;
use tunnel_world::{AgentKey, Client, Script, World};

/// Of each case three documents pass: 10 000 and more in all.
const CASES: u32 = 2_000;

/// Raw JSON of any kind: numbers that no machine has, strings with every escape, members that are one after decoding,
/// explicit nulls, space between tokens. Line breaks alone are left out: a line of a pipe cannot hold them.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|it| it.to_string()),
        number(),
        string(),
        Just("[]".to_owned()),
        Just("{ }".to_owned()),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space())
                .prop_map(|(items, space)| format!("[{space}{}]", items.join(&format!("{space},")))),
            object_of(inner),
        ]
    })
}

fn object_of(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let members = prop::collection::vec((key(), inner, space()), 0..6);
    members.prop_map(|members| {
        let mut seen = BTreeSet::new();
        // A key that stands there twice may mean either: what is told apart by its spelling alone is left.
        let members = members.into_iter().filter(|(key, ..)| seen.insert(key.clone()));
        let members: Vec<_> = members.map(|(key, value, space)| format!("{key}{space}:{space}{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn params() -> impl Strategy<Value = String> {
    // What the protocol reads of params is spelt otherwise here: it belongs to those who call.
    object_of(json()).prop_filter("it asks for no progress", |it| !it.contains("_meta"))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|it| it.to_string()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
        Just("-0".to_owned()),
        Just("1e400".to_owned()),
        Just("12345678901234567890123".to_owned()),
        Just("0.10000000000000000000".to_owned()),
    ]
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[^\"\\\\\\x00-\\x1f]{1,6}",
        1 => prop::sample::select(vec![
            "\\n", "\\\"", "\\\\", "\\/", "\\u0000", "\\u0041", "\\ud83d\\ude00", "\\ud800", "\u{2028}", "\u{7f}", "😀",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn key() -> impl Strategy<Value = String> {
    let odd = ["\"a\"", "\"\\u0061\"", "\"A\"", "\"\"", "\"id\"", "\"result\"", "\"error\"", "\"params\"", "\"name\""];
    prop_oneof![3 => string(), 1 => prop::sample::select(odd.map(str::to_owned).to_vec())]
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "[ \t]{1,3}"]
}

/// An agent with a server, and a client of it alone.
struct Stage {
    world: World,
    laptop: AgentKey,
    client: Client,
    id: u64,
}

impl Stage {
    fn new(endpoint: &str) -> Self {
        let mut world = World::new(7);
        let token = world.mint("ada", Role::Agent);
        let laptop = world.agent("laptop", &token, [("raw", Script::default())]);
        world.settle();
        let token = world.mint("ada", Role::Client);
        let mut client = Client::new(&token).at(endpoint);
        client.initialize(&mut world);
        Self { world, laptop, client, id: 1_000 }
    }

    /// Sends `params`; returns what the server was sent, and the raw messages that came back.
    fn pass(&mut self, method: &str, params: &str, raw: Raw) -> (Bytes, Vec<Bytes>) {
        self.id += 1;
        self.script().raw.push_back(raw);
        let body = format!(r#"{{"params":{params},"id":"{}","method":"{method}","jsonrpc":"2.0"}}"#, self.id);
        let exchange = self.client.post_raw(&mut self.world, Bytes::from(body));
        let reply = self.world.finish(exchange);
        assert!(reply.is_stream(), "a notification came first");
        let text = String::from_utf8(reply.body).expect("an event stream is UTF-8");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty());
        let messages = data.map(|data| Bytes::from(data.to_owned())).collect();
        (self.script().raw_heard.pop().expect("the server heard it"), messages)
    }

    fn script(&mut self) -> &mut Script {
        self.world.look(self.laptop).scripts.get_mut("raw").expect("it has that server")
    }
}

thread_local! {
    static ALONE: RefCell<Stage> = RefCell::new(Stage::new("/mcp/raw"));
    static AMONG_ALL: RefCell<Stage> = RefCell::new(Stage::new("/mcp"));
}

proptest! {
    #![proptest_config(Config {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    })]

    #[test]
    fn any_json_passes_byte_for_byte(params in params(), note in params(), answer in json(), is_error: bool) {
        ALONE.with_borrow_mut(|stage| {
            let (heard, messages) = stage.pass("raw/echo", &params, said(&note, &answer, is_error));
            prop_assert_eq!(heard, params.as_bytes());
            same(&messages, &note, &answer, is_error)
        })?;
    }

    #[test]
    fn calls_among_all_servers_lose_their_prefix_and_nothing_else(
        arguments in object_of(json()), note in params(), answer in json(), is_error: bool
    ) {
        AMONG_ALL.with_borrow_mut(|stage| {
            let call = |name: &str| format!(r#"{{ "x": 1e400,"name" :"{name}","arguments":{arguments},"y":[null]}}"#);
            let (heard, messages) = stage.pass("tools/call", &call("raw__echo"), said(&note, &answer, is_error));
            prop_assert_eq!(heard, call("echo"));
            same(&messages, &note, &answer, is_error)
        })?;
    }
}

fn said(note: &str, answer: &str, is_error: bool) -> Raw {
    let answer = answer.to_owned();
    Raw { note: note.to_owned(), answer: if is_error { Err(answer) } else { Ok(answer) } }
}

/// Whether a notification and the answer came as they were said.
fn same(messages: &[Bytes], note: &str, answer: &str, is_error: bool) -> Result<(), TestCaseError> {
    let [first, last] = messages else { panic!("two messages: {messages:?}") };
    prop_assert_eq!(object::get(first, "params").expect("a notification has them"), note.as_bytes());
    let path: &[&str] = if is_error { &["error", "data"] } else { &["result"] };
    prop_assert_eq!(object::get_path(last, path).expect("an answer"), answer.as_bytes());
    Ok(())
}

#[test]
fn deep_nesting_passes_up_to_its_limit_and_nothing_overflows() {
    let mut stage = Stage::new("/mcp/raw");
    let mut nested = |depth: usize| {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let params = format!("{{\"a\":{deep}}}");
        let (heard, messages) = stage.pass("raw/echo", &params, Raw { note: params.clone(), answer: Ok(deep.clone()) });
        assert!(heard == params, "the server hears what its client says, however deep");
        let last = messages.last().expect("there is an answer").clone();
        object::get(&last, "result").is_some_and(|result| result == deep)
    };
    for depth in [1, 100, limits::MAX_NESTING] {
        assert!(nested(depth), "{depth}");
    }
    assert!(!nested(limits::MAX_NESTING + 1), "it is cut off");
    assert!(nested(2), "and the next answer is there again");
}
