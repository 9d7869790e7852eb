//! Anything in any order: what must hold whatever clients and agents do.

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::tunnel::{Close, CloseCode, ResetCode};

#[derive(Debug, Clone)]
enum Op {
    Up { conn: u64, device: u8, id: u8 },
    Catalog { conn: u64, tools: u8 },
    Call { tool: u8, id: u32, session: bool, accepts: u8, endpoint: u8 },
    Modern { method: u8, id: u32, accepts: u8, endpoint: u8 },
    Several { method: u8, id: u32, accepts: u8, batch: bool },
    Batch { id: u32 },
    Listen { session: bool, back: bool },
    Cancel { id: u32 },
    Gone { exchange: u64 },
    Answer { conn: u64, stream: u32, length: Option<u64> },
    Data { conn: u64, stream: u32, length: usize, end: bool },
    Progress { conn: u64, stream: u32 },
    Reset { conn: u64, stream: u32 },
    GoAway { conn: u64 },
    Closed { conn: u64 },
    Revoked { family: u64 },
    EndSession,
    Advance { secs: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let conn = || 1..4_u64;
    let stream = || 1..6_u32;
    prop_oneof![
        3 => (conn(), 0..2_u8, 0..3_u8).prop_map(|(conn, device, id)| Op::Up { conn, device, id }),
        2 => (conn(), 0..3_u8).prop_map(|(conn, tools)| Op::Catalog { conn, tools }),
        6 => (0..4_u8, 0..5_u32, any::<bool>(), 0..3_u8, 0..3_u8)
            .prop_map(|(tool, id, session, accepts, endpoint)| Op::Call { tool, id, session, accepts, endpoint }),
        4 => (0..6_u8, 0..5_u32, 0..3_u8, 0..3_u8)
            .prop_map(|(method, id, accepts, endpoint)| Op::Modern { method, id, accepts, endpoint }),
        3 => (0..3_u8, 0..5_u32, 0..3_u8, any::<bool>())
            .prop_map(|(method, id, accepts, batch)| Op::Several { method, id, accepts, batch }),
        1 => (0..5_u32).prop_map(|id| Op::Batch { id }),
        2 => any::<[bool; 2]>().prop_map(|[session, back]| Op::Listen { session, back }),
        1 => (0..5_u32).prop_map(|id| Op::Cancel { id }),
        2 => (1..20_u64).prop_map(|exchange| Op::Gone { exchange }),
        4 => (conn(), stream(), prop::option::of(0..8_u64)).prop_map(|(conn, stream, length)| Op::Answer { conn, stream, length }),
        6 => (conn(), stream(), 0..5_usize, any::<bool>())
            .prop_map(|(conn, stream, length, end)| Op::Data { conn, stream, length, end }),
        2 => (conn(), stream()).prop_map(|(conn, stream)| Op::Progress { conn, stream }),
        1 => (conn(), stream()).prop_map(|(conn, stream)| Op::Reset { conn, stream }),
        1 => conn().prop_map(|conn| Op::GoAway { conn }),
        1 => conn().prop_map(|conn| Op::Closed { conn }),
        1 => conn().prop_map(|family| Op::Revoked { family }),
        1 => Just(Op::EndSession),
        2 => prop_oneof![Just(1), Just(3), Just(15), Just(1800)].prop_map(|secs| Op::Advance { secs }),
    ]
}

/// What became of each exchange.
#[derive(Debug, Default)]
struct Ledger {
    exchanges: BTreeMap<u64, Reply>,
    /// The id of the event that was sent last.
    last_event: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Reply {
    #[default]
    Awaited,
    Begun {
        left: Option<u64>,
    },
    Over,
    Gone,
}

impl Ledger {
    fn of(&mut self, exchange: ExchangeId) -> &mut Reply {
        self.exchanges.entry(exchange.0).or_default()
    }

    fn check(&mut self, action: &Action) {
        match action {
            Action::Reply { exchange, .. } => {
                assert_eq!(core::mem::replace(self.of(*exchange), Reply::Over), Reply::Awaited)
            }
            Action::Begin { exchange, head, .. } => {
                let begun = Reply::Begun { left: head.length };
                assert_eq!(core::mem::replace(self.of(*exchange), begun), Reply::Awaited);
            }
            Action::Body { exchange, bytes, .. } => {
                let text = String::from_utf8_lossy(bytes);
                let id = text.lines().find_map(|line| line.strip_prefix("id: "));
                self.last_event = id.map(Into::into).or(self.last_event.take());
                let Reply::Begun { left } = self.of(*exchange) else { panic!("a body of no reply: {action:?}") };
                if let Some(left) = left {
                    *left = left.checked_sub(bytes.len() as u64).expect("no more than was announced");
                }
            }
            Action::Finish { exchange } => match core::mem::replace(self.of(*exchange), Reply::Over) {
                Reply::Begun { left: None | Some(0) } => {}
                other => panic!("finished while {other:?}"),
            },
            Action::Abort { exchange } => {
                assert!(matches!(core::mem::replace(self.of(*exchange), Reply::Over), Reply::Begun { .. }));
            }
            Action::Tunnel { .. } | Action::Used { .. } | Action::Audit(_) => {}
        }
    }
}

fn run(ops: &[Op]) {
    let mut world = World::new();
    let mut ledger = Ledger::default();
    let settle = |world: &mut World, ledger: &mut Ledger| {
        while let Some(action) = world.shard.poll_action() {
            ledger.check(&action);
        }
    };
    for op in ops {
        match op.clone() {
            Op::Up { conn, device, id } => {
                let id = format!("id-{id}");
                world.up(conn, ["laptop", "desktop"][usize::from(device)], (id != "id-0").then_some(&id));
            }
            Op::Catalog { conn, tools } => {
                let tools = &["read", "write"][..usize::from(tools)];
                world.catalog(
                    conn,
                    &whole(&[server("files", tools), aggregate::rich("a", ""), aggregate::rich("b", "")]),
                );
            }
            Op::Call { tool, id, session, accepts, endpoint } => {
                world.session = if session { "s" } else { "t" };
                world.ask_at(endpoint, accepts);
                let tool = ["files__read", "laptop__files__read", "status", "nothing"][usize::from(tool)];
                let body = Bytes::from(call(tool, id));
                let Ok(Message::Request { id, method, params }) = rpc::parse(&body) else { panic!("a request") };
                expect(&mut world, &mut ledger, Content::Request(Request { id, method, params }));
            }
            Op::Modern { method, id, accepts, endpoint } => {
                world.ask_at(endpoint, accepts);
                let methods = ["tools/call", "tools/list", "server/discover", "subscriptions/listen", "x", "tasks/get"];
                let method = methods[usize::from(method)].to_string();
                let params = [
                    r#"{"name":"files__read","taskId":"t","notifications":{"toolsListChanged":true,"resourceSubscriptions":["test://a/a","test://b/a"]}}"#,
                    r#"{"name":"status","notifications":{}}"#,
                    "",
                ][(id % 3) as usize];
                let (id, params) = (rpc::RawId::from_number(id.into()), Bytes::from(params));
                world.version = Version::V2026_07_28;
                expect(&mut world, &mut ledger, Content::Request(Request { id, method: method.into(), params }));
                world.version = Version::V2025_11_25;
            }
            Op::Several { method, id, accepts, batch } => {
                world.accepts = [Accepts::Either, Accepts::Json, Accepts::Stream][usize::from(accepts)];
                world.endpoint = Endpoint::All;
                let method = ["logging/setLevel", "tasks/list", "tasks/cancel"][usize::from(method)];
                let params = Bytes::from_static(br#"{"level":"info","taskId":"t"}"#);
                let request = Request { id: rpc::RawId::from_number(id.into()), method: method.into(), params };
                let content = match batch {
                    true => Content::Batch(std::vec![Item::Request(request)]),
                    false => Content::Request(request),
                };
                expect(&mut world, &mut ledger, content);
            }
            Op::Batch { id } => {
                let request = |id: u32| {
                    let params = Bytes::from_static(br#"{"name":"files__read"}"#);
                    Item::Request(Request {
                        id: rpc::RawId::from_number(id.into()),
                        method: "tools/call".into(),
                        params,
                    })
                };
                let requests = std::vec![request(id), request(id + 1)];
                expect(&mut world, &mut ledger, Content::Batch(requests));
            }
            Op::Listen { session, back } => {
                world.session = if session { "s" } else { "t" };
                ledger.exchanges.insert(world.exchanges + 1, Reply::Awaited);
                world.exchanges += 1;
                let listen = Listen {
                    exchange: ExchangeId(world.exchanges),
                    principal: Arc::new(principal("ann", Role::Client)),
                    endpoint: Endpoint::All,
                    session: world.session(),
                    last_event: ledger.last_event.clone().filter(|_| back),
                    headers: HeaderMap::new(),
                };
                world.event(Event::Listen(listen));
            }
            Op::Cancel { id } => {
                let params = Bytes::from(format!("{{\"requestId\":{id}}}"));
                expect(&mut world, &mut ledger, Content::Note(Note::Cancelled { params }));
            }
            Op::Gone { exchange } => {
                if let Some(reply) = ledger.exchanges.get_mut(&exchange).filter(|reply| **reply != Reply::Over) {
                    *reply = Reply::Gone;
                    world.event(Event::Gone { exchange: ExchangeId(exchange) });
                }
            }
            Op::Answer { conn, stream, length } => {
                let outcome = Outcome::Result;
                world.tunnel(conn, tunnel::Event::Answer { stream: StreamId(stream), outcome, length });
            }
            Op::Data { conn, stream, length, end } => {
                let bytes = Bytes::from(std::vec![b'1'; length]);
                world.tunnel(conn, tunnel::Event::Data { stream: StreamId(stream), bytes, end });
            }
            Op::Progress { conn, stream } => {
                let json = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/progress"}"#);
                world.tunnel(conn, tunnel::Event::Message { stream: StreamId(stream), json, credit: 51 });
            }
            Op::Reset { conn, stream } => {
                let (stream, code) = (StreamId(stream), ResetCode::ServerGone);
                world.tunnel(conn, tunnel::Event::Reset { stream, code, reason: String::new() });
            }
            Op::GoAway { conn } => world.tunnel(conn, tunnel::Event::GoAway),
            Op::Closed { conn } => world.tunnel(conn, tunnel::Event::Closed(Close::new(CloseCode::TimedOut, ""))),
            Op::Revoked { family } => {
                world.event(Event::Revoked { family: FamilyId::new(format!("family-{family}")) });
            }
            Op::EndSession => {
                let (user, session) = (UserId::new("ann"), SessionKey(Arc::from("s")));
                world.event(Event::SessionEnded { user, session });
            }
            Op::Advance { secs } => {
                let by = Duration::from_secs(secs);
                world.now = Now { instant: world.now.instant + by, unix: world.now.unix + by };
                world.shard.handle_timeout(world.now);
            }
        }
        settle(&mut world, &mut ledger);
        assert!(
            world.shard.poll_timeout().is_none_or(|deadline| deadline.at > world.now.instant),
            "what is due was done"
        );
    }
    world.event(Event::Stop);
    settle(&mut world, &mut ledger);
    for (exchange, reply) in &ledger.exchanges {
        assert!(matches!(reply, Reply::Over | Reply::Gone), "exchange {exchange} has no end: {reply:?}");
    }
    world.advance(limits::REPLAY_KEPT);
    world.advance(limits::REPLAY_KEPT);
    assert_eq!(world.shard.poll_timeout(), None, "nothing is left to wait for");
}

impl World {
    fn ask_at(&mut self, endpoint: u8, accepts: u8) {
        self.accepts = [Accepts::Either, Accepts::Json, Accepts::Stream][usize::from(accepts)];
        self.endpoint =
            [Endpoint::All, Endpoint::Server("files".into()), Endpoint::DeviceServer("laptop".into(), "files".into())]
                [usize::from(endpoint)]
            .clone();
    }
}

fn expect(world: &mut World, ledger: &mut Ledger, content: Content) {
    world.exchanges += 1;
    ledger.exchanges.insert(world.exchanges, Reply::Awaited);
    let post = Post {
        exchange: ExchangeId(world.exchanges),
        principal: Arc::new(principal("ann", Role::Client)),
        endpoint: world.endpoint.clone(),
        speaker: world.speaker(),
        accepts: world.accepts,
        headers: HeaderMap::new(),
        audit: None,
        content,
    };
    world.event(Event::Post(post));
}

proptest! {
    #[test]
    fn every_exchange_gets_exactly_one_end(ops in prop::collection::vec(op(), 0..60)) {
        run(&ops);
    }
}

#[test]
fn same_inputs_give_the_same_actions() {
    let trace = || {
        let mut world = World::ready();
        let mut trace = world.call(1);
        trace.extend(world.listen());
        world.up(2, "desktop", Some("id-2"));
        world.catalog(2, &files());
        trace.extend(world.advance(limits::STREAM_AFTER));
        trace.extend(world.post(&call("status", 2)));
        trace
    };
    assert_eq!(trace(), trace());
}
