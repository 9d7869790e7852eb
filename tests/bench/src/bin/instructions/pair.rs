//! A relay and an agent, their machines joined in memory: no socket, no process, no clock. Who asks and the server that
//! answers are here too, as small as they can be.

use std::collections::VecDeque;
use std::iter;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use tunnel_core::agent::contract::{Action as Do, Event as Did};
use tunnel_core::agent::{Agent, Identity};
use tunnel_core::config::{self, Config};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine;
use tunnel_core::http::{Reply, RequestHead};
use tunnel_core::id::{ClientId, ConnId, DeviceId, DeviceName, ExchangeId, FamilyId, StreamId, UserId};
use tunnel_core::oauth::scopes::Scopes;
use tunnel_core::oauth::token::seal_access;
use tunnel_core::oauth::{Principal, Role, Snapshot};
use tunnel_core::relay::gate::{Admission, Gate, Step};
use tunnel_core::relay::shard::{Action, Event, Shard};
use tunnel_core::relay::{Opened, Settings};
use tunnel_core::seal::Sealer;
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::Person;
use tunnel_core::time::{Instant, Now, UnixTime};
use tunnel_core::tunnel::connection::{Connection, Settings as TunnelSettings};
use tunnel_core::tunnel::{ASKS_BESIDE, Command, Dialect, Event as Said, HANDS_ON, Hello, Outcome, Side};

/// A server that writes its tools and its answers in one way.
pub(crate) struct Server {
    /// Whether `id` comes behind the result.
    pub(crate) id_last: bool,
    /// How many tools it lists.
    pub(crate) tools: usize,
}

/// Both machines with their ends of one tunnel.
pub(crate) struct Pair {
    gate: Gate,
    snapshot: Snapshot,
    opened: Opened,
    shard: Shard,
    relay_end: Connection,
    agent_end: Connection,
    agent: Agent,
    server: Server,
    entropy: Seeded,
    now: Now,
    exchanges: u64,
    /// The tunnel, as both machines call it.
    conn: ConnId,
    /// What came back to the client, in pieces, and which stream of the tunnel they are of.
    answer: Vec<Bytes>,
    source: Option<(ConnId, StreamId)>,
    /// The client's, once it has begun.
    session: Option<HeaderValue>,
}

impl Pair {
    /// A pair whose tunnel is up, and whose server was asked for its tools.
    pub(crate) fn up(server: Server) -> Self {
        let sealer = Sealer::new(vec![Sealer::generate(&mut Seeded::new(1))]);
        let mut snapshot = Snapshot::new(sealer);
        snapshot.families = Arc::new([Role::Agent, Role::Client].map(family).into());
        let Config::Relay(config) = parsed(RELAY) else { unreachable!("it says so") };
        let settings = Arc::new(Settings::from_config(&config, PUBLIC_URL));
        let Config::Agent(config) = parsed(AGENT) else { unreachable!("it says so") };
        let identity = Identity {
            device: DeviceName::new("laptop"),
            device_id: DeviceId::new("laptop"),
            version: "2.0.0".to_owned(),
            os: "linux".to_owned(),
        };
        let now = Now { instant: Instant::from_micros(1_000_000), unix: UnixTime::from_secs(1_800_000_000) };
        let features = vec![ASKS_BESIDE.to_owned(), HANDS_ON.to_owned()];
        let [relay_end, agent_end] = [Side::Relay, Side::Agent].map(|side| {
            let hello =
                Hello { max_message: 64 << 20, max_streams: 256, features: features.clone(), ..Hello::default() };
            Connection::new(TunnelSettings { side, dialect: Dialect::V2, hello }, now)
        });
        let mut pair = Self {
            gate: Gate::new(Arc::clone(&settings)),
            snapshot,
            opened: Opened::default(),
            shard: Shard::new(settings, Box::new(Seeded::new(2))),
            relay_end,
            agent_end,
            agent: Agent::new(config, identity, Some(Secret::new("minted")), Box::new(Seeded::new(3))),
            server,
            entropy: Seeded::new(4),
            now,
            exchanges: 0,
            conn: ConnId(0),
            answer: Vec::new(),
            source: None,
            session: None,
        };
        pair.tell_agent(Did::Start { person: Person::Absent });
        pair.carry_on();
        let answer = pair.ask(pair.head("client"), &Bytes::from_static(INITIALIZE));
        assert!(answer.concat().starts_with(b"{\"jsonrpc\""), "a session begins");
        pair
    }

    /// The head of a client's request, with the token that `name` has and no other.
    pub(crate) fn head(&self, name: &str) -> RequestHead {
        let expires = self.now.unix + Duration::from_secs(600);
        let principal = Principal {
            user: UserId::new("ada"),
            client: ClientId::new(name),
            actor: name.into(),
            role: Role::Client,
            audience: format!("{PUBLIC_URL}{}", Role::Client.path()),
            scopes: Scopes::all(Role::Client),
            family: family(Role::Client),
            expires,
            family_expires: expires,
        };
        let seed = name.bytes().fold(0, |seed, byte| seed << 8 ^ u64::from(byte));
        let token = seal_access(&self.snapshot.sealer, &principal, &mut Seeded::new(seed));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (HOST, "relay.example"),
            (CONTENT_TYPE, "application/json"),
            (CONTENT_LENGTH, "123"),
            (ACCEPT, "application/json, text/event-stream"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // Another client's head is another one: what is known of the last does not spare its judgement.
        headers.insert(USER_AGENT, HeaderValue::from_str(name).expect("a name is text"));
        let bearer = format!("Bearer {}", token.expose()).try_into().expect("a token is text");
        headers.insert(AUTHORIZATION, bearer);
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
            headers.insert("mcp-protocol-version", HeaderValue::from_static("2025-11-25"));
        }
        RequestHead { method: Method::POST, uri: Uri::from_static("/mcp"), headers, peer: Ipv4Addr::LOCALHOST.into() }
    }

    /// What the gate says to a head alone, on the pair's one connection.
    pub(crate) fn admit(&mut self, head: &RequestHead) -> Admission {
        self.gate.admit(head, &self.snapshot, self.now, &mut self.opened)
    }

    /// The whole way of one request: the body of its answer, in pieces.
    pub(crate) fn ask(&mut self, head: RequestHead, body: &Bytes) -> Vec<Bytes> {
        let post = self.accept(head, body);
        self.shard.handle_event(post, self.now);
        self.carry_on();
        self.now = Now { instant: self.now.instant + PACE, unix: self.now.unix + PACE };
        std::mem::take(&mut self.answer)
    }

    /// What the gate makes of a request for the shard.
    pub(crate) fn accept(&mut self, head: RequestHead, body: &Bytes) -> Event {
        self.exchanges += 1;
        let exchange = ExchangeId(self.exchanges);
        let Admission::Read { route, .. } = self.admit(&head) else { panic!("it is refused") };
        let (body, now) = (body.clone(), self.now);
        let (snapshot, opened, entropy) = (&self.snapshot, &mut self.opened, &mut self.entropy);
        match self.gate.accept(exchange, route, head, body, snapshot, now, opened, entropy) {
            Step::Shard(_, event) => event,
            other => panic!("it is not for the shard: {other:?}"),
        }
    }

    /// A call's way through the shard alone: to the command for its tunnel, and from `result` there to the reply.
    pub(crate) fn route(&mut self, post: Event, result: &Bytes) -> Option<Reply> {
        self.shard.handle_event(post, self.now);
        let opened = iter::from_fn(|| self.shard.poll_action()).find_map(|action| match action {
            Action::Tunnel { command: Command::Open { stream, .. }, .. } => Some(stream),
            _ => None,
        });
        let stream = opened.expect("it is a call");
        let length = Some(result.len() as u64);
        for event in [
            Said::Answer { stream, outcome: Outcome::Result, length },
            Said::Data { stream, bytes: result.clone(), end: true },
        ] {
            self.shard.handle_event(Event::Tunnel { conn: self.conn, event }, self.now);
        }
        self.now = Now { instant: self.now.instant + PACE, unix: self.now.unix + PACE };
        iter::from_fn(|| self.shard.poll_action()).fold(None, |reply, action| match action {
            Action::Reply { reply, .. } => Some(reply),
            _ => reply,
        })
    }

    /// Carries out what is ordered and carries messages both ways, until nobody has any more to say.
    fn carry_on(&mut self) {
        loop {
            self.drain_shard();
            let mut is_over = true;
            while let Some(message) = self.relay_end.poll_transmit(self.now) {
                is_over = false;
                self.agent_end.handle_message(message, self.now);
            }
            while let Some(event) = self.agent_end.poll_event() {
                self.tell_agent(Did::Tunnel { conn: self.conn, event });
            }
            while let Some(message) = self.agent_end.poll_transmit(self.now) {
                is_over = false;
                self.relay_end.handle_message(message, self.now);
            }
            while let Some(event) = self.relay_end.poll_event() {
                self.shard.handle_event(Event::Tunnel { conn: self.conn, event }, self.now);
                self.drain_shard();
            }
            if is_over {
                return;
            }
        }
    }

    fn drain_shard(&mut self) {
        while let Some(action) = self.shard.poll_action() {
            match action {
                Action::Reply { reply, .. } => {
                    self.session = reply.headers.get(SESSION_ID).cloned().or(self.session.take());
                    self.answer.push(reply.body);
                }
                Action::Begin { source, .. } => self.source = source,
                Action::Body { bytes, credit, .. } => {
                    self.answer.push(bytes);
                    if let Some((_, stream)) = self.source.filter(|_| credit > 0) {
                        self.relay_end.handle_command(Command::Consumed { stream, bytes: credit }, self.now);
                    }
                }
                Action::Tunnel { command, .. } => self.relay_end.handle_command(command, self.now),
                Action::Finish { .. } | Action::Used { .. } | Action::Audit(_) => {}
                Action::Abort { .. } => panic!("nothing is cut short"),
            }
        }
    }

    fn tell_agent(&mut self, event: Did) {
        self.agent.handle_event(event, self.now);
        self.drain_agent();
    }

    fn drain_agent(&mut self) {
        let mut events = VecDeque::new();
        loop {
            while let Some(action) = self.agent.poll_action() {
                match action {
                    Do::Tunnel { command, .. } => self.agent_end.handle_command(command, self.now),
                    Do::Write { child, bytes } => {
                        events.push_back(Did::Wrote { child, bytes: bytes.len() });
                        events.extend(self.server.answer(&bytes).map(|line| Did::Line { child, line }));
                    }
                    Do::Dial { conn, .. } => events.push_back(self.dialed(conn)),
                    Do::Spawn { child, .. } => events.push_back(Did::Spawned { child, pid: 1 }),
                    Do::LoadPins { key } => events.push_back(Did::PinsLoaded { key, result: Ok(None) }),
                    Do::SavePins { key, .. } => events.push_back(Did::PinsSaved { key, result: Ok(()) }),
                    Do::Recall { server } => events.push_back(Did::Recalled { server, catalog: None }),
                    // What is kept only makes a later start quicker.
                    Do::Keep { .. } | Do::KeepWishes { .. } => {}
                    other => panic!("nobody asked for this: {other:?}"),
                }
            }
            let Some(event) = events.pop_front() else { return };
            self.agent.handle_event(event, self.now);
        }
    }

    /// Both ends of the tunnel are there.
    fn dialed(&mut self, conn: ConnId) -> Did {
        self.conn = conn;
        let event = Event::TunnelUp {
            conn,
            user: UserId::new("ada"),
            device: DeviceName::new("laptop"),
            device_id: Some(DeviceId::new("laptop")),
            family: family(Role::Agent),
            expires: self.now.unix + Duration::from_secs(600),
            dialect: Dialect::V2,
            audit: None,
        };
        self.shard.handle_event(event, self.now);
        Did::Dialed { conn, dialect: Dialect::V2 }
    }
}

impl Server {
    /// The answer to a line, if it has one.
    fn answer(&self, line: &[u8]) -> Option<Bytes> {
        let text = std::str::from_utf8(line).expect("a line is text");
        // As the agent writes it: `{"jsonrpc":"2.0","id":1,"method":…`.
        let (id, rest) = text.split_once("\"id\":")?.1.split_once(',')?;
        let says = |method: &str| rest.strip_prefix("\"method\":\"").is_some_and(|rest| rest.starts_with(method));
        let result = if says("tools/call") {
            CALLED.to_owned()
        } else if says("initialize") {
            SERVER.to_owned()
        } else if says("tools/list") {
            format!("{{\"tools\":[{}]}}", (0..self.tools).map(tool).collect::<Vec<_>>().join(","))
        } else {
            panic!("nobody asks this of it: {text}");
        };
        Some(Bytes::from(answer(id, &result, self.id_last)))
    }
}

/// The two spellings of a response: with `id` first, and last as the TypeScript SDK writes it.
pub(crate) fn answer(id: &str, result: &str, id_last: bool) -> String {
    if id_last {
        format!("{{\"result\":{result},\"jsonrpc\":\"2.0\",\"id\":{id}}}")
    } else {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
    }
}

fn tool(number: usize) -> String {
    let about = "Reads what stands in a file, or in a part of it, as text";
    let schema =
        r#"{"type":"object","properties":{"path":{"type":"string"},"lines":{"type":"integer"}},"required":["path"]}"#;
    format!("{{\"name\":\"tool_{number}\",\"description\":\"{about}\",\"inputSchema\":{schema}}}")
}

fn family(role: Role) -> FamilyId {
    FamilyId::new(if role == Role::Agent { "agents" } else { "clients" })
}

fn parsed(json: &str) -> Config {
    config::parse(json).expect("the configuration is sound").config
}

const PUBLIC_URL: &str = "https://relay.example";
const RELAY: &str = r#"{"mode":"relay","port":3000,"auth":{"local":{"users":[{"name":"ada","passwordHash":
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$JGp4YqBcoPzeEPxUOqbSGfbTCJWCqxlMS0LJDGJPw3k"}]}}}"#;
const AGENT: &str = r#"{"mode":"agent","relay":"https://relay.example","name":"laptop",
    "servers":{"files":{"command":["server"],"era":"legacy"}}}"#;
const SESSION_ID: &str = "mcp-session-id";
const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",
    "capabilities":{},"clientInfo":{"name":"client","version":"1"}}}"#;
const SERVER: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"files","version":"1"}}"#;
/// What a call of a tool is answered with.
pub(crate) const CALLED: &str = r#"{"content":[{"type":"text","text":"hello"}]}"#;
/// How far requests are apart.
const PACE: Duration = Duration::from_millis(1);
