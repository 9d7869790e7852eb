//! The paths that are counted. What a path needs is made before, and costs the same however often it is gone: of the
//! counts of two runs only the difference is looked at.

use std::hint::black_box;
use std::iter;

use bytes::Bytes;
use tunnel_core::http::RequestHead;
use tunnel_core::id::StreamId;
use tunnel_core::relay::gate::Admission;
use tunnel_core::rpc::{self, Message, RawId, envelope};
use tunnel_core::time::{Instant, Now, UnixTime};
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{Command, Dialect, Event, Hello, OpenHead, Outcome, Side};

use crate::pair::{CALLED, Pair, Server, answer};

/// A hot path, by the name that it has in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Path {
    /// Frames of a small call and its answer, encoded and decoded
    FramesCall,
    /// The same with an answer of 64 KiB
    #[value(name = "frames-64k")]
    Frames64k,
    /// A request and its answer read, each written with another id; the server writes `id` first
    EnvelopeIdFirst,
    /// The same, `id` last
    EnvelopeIdLast,
    /// A request's head at the gate, with a token that was seen before
    TokenSeen,
    /// The same, with one that was not
    TokenFresh,
    /// A small call at the gate: its head and its body to what the shard is told
    GateCall,
    /// The same at the shard: to the tunnel's command, and from the tunnel's answer to the reply
    ShardCall,
    /// The same at the relay's end of the tunnel: from the command to bytes, and from bytes to the answer
    ConnectionCall,
    /// A small call all the way: gate, shard, tunnel, agent, a server that writes `id` first, and back
    CallIdFirst,
    /// The same, `id` last
    CallIdLast,
    /// `tools/list` of 1 000 tools at the relay
    #[value(name = "list-1000")]
    List1000,
}

impl Path {
    /// How often it is gone in the shorter of two runs.
    pub(crate) const fn count(self) -> usize {
        match self {
            Self::List1000 => 10,
            _ => MOST / 2,
        }
    }

    /// Goes it `count` times, at most [`MOST`].
    pub(crate) fn walk(self, count: usize) {
        match self {
            Self::FramesCall => frames(CALLED.into(), count),
            Self::Frames64k => frames(vec![b'x'; 64 * 1024].into(), count),
            Self::EnvelopeIdFirst => envelopes(false, count),
            Self::EnvelopeIdLast => envelopes(true, count),
            Self::TokenSeen => tokens(|_| "client".to_owned(), count),
            Self::TokenFresh => tokens(|number| format!("client {number}"), count),
            Self::GateCall => gate(count),
            Self::ShardCall => shard(count),
            Self::ConnectionCall => connection(count),
            Self::CallIdFirst => asks(Server { id_last: false, tools: 10 }, CALL, CALLED, count),
            Self::CallIdLast => asks(Server { id_last: true, tools: 10 }, CALL, CALLED, count),
            Self::List1000 => asks(Server { id_last: true, tools: 1_000 }, LIST, "tool_999\"", count),
        }
    }
}

fn frames(body: Bytes, count: usize) {
    let [mut relay, mut agent] = ends();
    for stream in (1..).map(StreamId).take(count) {
        open(&mut relay, stream);
        carry(&mut relay, &mut agent);
        answer_call(&mut agent, stream, body.clone());
        carry(&mut agent, &mut relay);
        take(&mut relay, stream, body.len());
        carry(&mut relay, &mut agent);
    }
}

/// The relay's end alone, to which is said again what an agent once said to another.
fn connection(count: usize) {
    let [mut relay, _] = ends();
    let [mut other, mut agent] = ends();
    let said: Vec<Vec<_>> = (1..)
        .map(StreamId)
        .take(MOST)
        .map(|stream| {
            open(&mut other, stream);
            carry(&mut other, &mut agent);
            answer_call(&mut agent, stream, CALLED.into());
            let said: Vec<_> = iter::from_fn(|| agent.poll_transmit(NOW)).collect();
            said.iter().for_each(|message| other.handle_message(message.clone(), NOW));
            take(&mut other, stream, CALLED.len());
            carry(&mut other, &mut agent);
            said
        })
        .collect();
    for (stream, said) in (1..).map(StreamId).zip(said).take(count) {
        open(&mut relay, stream);
        iter::from_fn(|| relay.poll_transmit(NOW)).for_each(|message| drop(black_box(message)));
        said.into_iter().for_each(|message| relay.handle_message(message, NOW));
        take(&mut relay, stream, CALLED.len());
        iter::from_fn(|| relay.poll_transmit(NOW)).for_each(|message| drop(black_box(message)));
    }
}

/// The relay's end of a tunnel that is up, and the agent's.
fn ends() -> [Connection; 2] {
    let [mut relay, mut agent] = [Side::Relay, Side::Agent].map(|side| {
        let hello = Hello { max_message: 1 << 20, max_streams: 8, ..Hello::default() };
        Connection::new(Settings { side, dialect: Dialect::V2, hello }, NOW)
    });
    carry(&mut relay, &mut agent);
    carry(&mut agent, &mut relay);
    assert!(matches!((relay.poll_event(), agent.poll_event()), (Some(Event::Up(_)), Some(Event::Up(_)))));
    [relay, agent]
}

fn carry(from: &mut Connection, to: &mut Connection) {
    iter::from_fn(|| from.poll_transmit(NOW)).for_each(|message| to.handle_message(message, NOW));
}

/// The relay opens a call.
fn open(relay: &mut Connection, stream: StreamId) {
    let params = Bytes::from_static(PARAMS.as_bytes());
    let head = OpenHead {
        server: "files".into(),
        method: "tools/call".into(),
        version: Some("2025-11-25".into()),
        client: Some("client 1".into()),
        actor: "client".into(),
        session: "c2Vzc2lvbi1rZXktb2YtMjQ".into(),
        capabilities: "{}".into(),
        length: params.len() as u64,
    };
    relay.handle_command(Command::Open { stream, head, params, v1_tool: None }, NOW);
}

/// The agent is asked, and answers.
fn answer_call(agent: &mut Connection, stream: StreamId, body: Bytes) {
    assert!(matches!(agent.poll_event(), Some(Event::Call { .. })));
    agent.handle_command(Command::Answer { stream, outcome: Outcome::Result, body }, NOW);
}

/// The relay has an answer of `length`, and consumes it.
fn take(relay: &mut Connection, stream: StreamId, length: usize) {
    let mut came = 0;
    while let Some(event) = relay.poll_event() {
        if let Event::Data { bytes, .. } = event {
            came += bytes.len();
            let bytes = u32::try_from(bytes.len()).expect("a piece is short");
            relay.handle_command(Command::Consumed { stream, bytes }, NOW);
        }
    }
    assert_eq!(came, length, "the answer is whole");
}

fn gate(count: usize) {
    let mut pair = Pair::up(Server { id_last: false, tools: 10 });
    let heads: Vec<RequestHead> = (0..MOST).map(|_| pair.head("client")).collect();
    let body = Bytes::from_static(CALL.as_bytes());
    for head in heads.into_iter().take(count) {
        black_box(pair.accept(head, &body));
    }
}

fn shard(count: usize) {
    let mut pair = Pair::up(Server { id_last: false, tools: 10 });
    let (body, result) = (Bytes::from_static(CALL.as_bytes()), Bytes::from_static(CALLED.as_bytes()));
    let mut posts: Vec<_> = (0..=MOST).map(|_| pair.accept(pair.head("client"), &body)).collect();
    let mut route = |post| pair.route(post, &result).expect("it is answered").body;
    let first = route(posts.pop().expect("there is one more"));
    assert!(String::from_utf8_lossy(&first).contains(CALLED), "it is the answer: {first:?}");
    for post in posts.into_iter().take(count) {
        assert_eq!(route(post).len(), first.len(), "it is the answer again");
    }
}

fn envelopes(id_last: bool, count: usize) {
    let (request, answer) = (Bytes::from_static(CALL.as_bytes()), Bytes::from(answer("7", CALLED, id_last)));
    for number in (1..).take(count) {
        let Ok(Message::Request { id, method, params }) = rpc::parse(&request) else { panic!("it is a request") };
        black_box(envelope::request(&RawId::from_number(number), &method, &params));
        let Ok(Message::Response { outcome: Ok(result), .. }) = rpc::parse(&answer) else { panic!("it is a result") };
        black_box(envelope::result(&id, &result));
    }
}

fn tokens(name: impl Fn(usize) -> String, count: usize) {
    let mut pair = Pair::up(Server { id_last: false, tools: 1 });
    let heads: Vec<RequestHead> = (0..MOST).map(|number| pair.head(&name(number))).collect();
    for head in heads.iter().take(count) {
        assert!(matches!(black_box(pair.admit(head)), Admission::Read { .. }));
    }
}

/// `says`: what is somewhere in each answer.
fn asks(server: Server, request: &'static str, says: &str, count: usize) {
    let mut pair = Pair::up(server);
    let mut heads: Vec<RequestHead> = (0..MOST).map(|_| pair.head("client")).collect();
    let body = Bytes::from_static(request.as_bytes());
    // What the first request of all costs is not a request's cost.
    let first = pair.ask(pair.head("client"), &body).concat();
    assert!(String::from_utf8_lossy(&first).contains(says), "it is the answer: {first:?}");
    for _ in 0..count {
        let answer = pair.ask(heads.pop().expect("as many are made"), &body);
        assert_eq!(answer.iter().map(Bytes::len).sum::<usize>(), first.len(), "it is the answer again");
    }
}

const NOW: Now = Now { instant: Instant::from_micros(1), unix: UnixTime::from_secs(0) };
/// How often a path is gone at most.
const MOST: usize = 400;
const PARAMS: &str = r#"{"name":"files__tool_3","arguments":{"path":"notes/today.md","lines":20}}"#;
const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"files__tool_3","arguments":{"path":"notes/today.md","lines":20}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}"#;
