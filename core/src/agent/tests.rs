//! Behaviour of a whole agent, and what the tests of its parts share: a driver that records, with simulated time.

mod belonging;
mod beside;
mod bridging;
mod calls;
mod editions;
mod eras;
mod guard;
mod http;
mod isolation;
mod kit;
mod lasting;
mod listening;
mod lists;
mod lives;
mod notices;
mod parking;
mod questions;
mod rest;
mod sharing;
mod shown;
mod signin;
mod subscriptions;
mod table;
mod table_approvals;
mod table_beside;
mod table_http;
mod table_lists;
mod table_phases;
mod table_questions;
mod table_runs;
mod table_wishes;
mod uplink;
mod wishes;

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;
use std::boxed::Box;
use std::string::{String, ToString};
use std::vec::Vec;

use bytes::Bytes;
use serde_json::{Value, json};

use super::contract::{Action, ControlCommand, Event, Exit, Identity, Unsaved};
use super::cx::Cx;
use super::machine::Agent;
use super::status;
use crate::config::{AgentConfig, EraChoice, Life, ServerConfig, Transport};
use crate::entropy::Seeded;
use crate::host::Machine;
use crate::id::{ChildId, ConnId, JobId, StreamId};
use crate::secret::Secret;
use crate::signin::machine::Person;
use crate::time::{Instant, Now, UnixTime};
use crate::tunnel::{self, Close, CloseCode, Command, Dialect, Hello, OpenHead, Outcome};

/// A shared part by itself.
pub(super) fn cx() -> Cx {
    let states = crate::seal::Sealer::new([crate::seal::Sealer::generate(&mut Seeded::new(2))].into());
    Cx::new(Seeded::new(1), "0.0.0".to_string(), states)
}

/// An entry of a server that is a process.
pub(super) fn stdio(command: &str) -> ServerConfig {
    let transport = Transport::Stdio { command: [command.to_string()].into(), env: [].into(), cwd: None };
    // Of the legacy era, as most are: `tests/eras.rs` is about finding that out.
    ServerConfig { transport, start_timeout_secs: 60, life: Life { era: EraChoice::Legacy, ..Life::default() } }
}

fn config(servers: &[&str]) -> AgentConfig {
    AgentConfig {
        relay: "https://relay.example".to_string(),
        name: None,
        servers: servers.iter().map(|name| (name.to_string(), stdio(name))).collect(),
        token: None,
        ca_file: None,
        policy: Default::default(),
    }
}

fn identity() -> Identity {
    Identity {
        device: "laptop of Ann".into(),
        device_id: "device-1".into(),
        version: "2.0.0".to_string(),
        os: "linux".to_string(),
    }
}

/// An agent and its world, by hand.
struct Rig {
    agent: Agent,
    now: Now,
    actions: VecDeque<Action>,
    conn: ConnId,
    /// What the stderr of each process is kept under: its server, and which of its runs it is.
    logs: BTreeMap<ChildId, String>,
    /// What is pinned, on the disk: read and written at once.
    pins: BTreeMap<String, Bytes>,
}

impl Rig {
    /// An agent with a minted token that was started.
    fn started(servers: &[&str]) -> Self {
        let mut rig = Self::new(config(servers), Some("minted"));
        rig.event(Event::Start { person: Person::Absent });
        rig
    }

    /// A started agent whose servers are ready with one tool, `tool`, each, and whose tunnel is up.
    fn ready(servers: &[&str]) -> Self {
        let mut rig = Self::started(servers);
        for server in servers {
            rig.bring_up(server, &["tool"]);
        }
        rig.connect(Dialect::V2);
        rig.actions.clear();
        rig
    }

    fn new(config: AgentConfig, token: Option<&str>) -> Self {
        let identity = identity();
        let agent = Agent::new(config, identity, token.map(Secret::new), Box::new(Seeded::new(7)));
        let now = Now { instant: Instant::from_micros(1), unix: UnixTime::from_secs(1_800_000_000) };
        Self { agent, now, actions: VecDeque::new(), conn: ConnId(0), logs: BTreeMap::new(), pins: BTreeMap::new() }
    }

    fn event(&mut self, event: Event) {
        kit::note(&event);
        self.agent.handle_event(event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::LoadPins { key } => {
                    let result = Ok(self.pins.get(&key).cloned());
                    self.agent.handle_event(Event::PinsLoaded { key, result }, self.now);
                }
                Action::SavePins { key, base, content } => {
                    let now = self.pins.get(&key).cloned();
                    let result = if now == base { Ok(()) } else { Err(Unsaved::Changed(now)) };
                    if result.is_ok() {
                        self.pins.insert(key.clone(), content);
                    }
                    self.agent.handle_event(Event::PinsSaved { key, result }, self.now);
                }
                action => {
                    if let Action::Spawn { child, spawn } = &action {
                        self.logs.insert(*child, spawn.log.clone());
                    }
                    self.actions.push_back(action);
                }
            }
        }
    }

    /// Lets both clocks run, firing timers when they are due.
    fn advance(&mut self, by: Duration) {
        crate::table::given("time");
        let end = Now { instant: self.now.instant + by, unix: self.now.unix + by };
        while let Some(due) = self.agent.poll_timeout().filter(|deadline| deadline.at <= end.instant) {
            let step = due.at.saturating_since(self.now.instant);
            self.now = Now { instant: self.now.instant + step, unix: self.now.unix + step };
            self.agent.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Takes out the first action that `pick` wants.
    fn take<T>(&mut self, mut pick: impl FnMut(&Action) -> Option<T>) -> Option<T> {
        let (at, found) = self.actions.iter().enumerate().find_map(|(at, action)| Some((at, pick(action)?)))?;
        self.actions.remove(at);
        Some(found)
    }

    /// Takes out all actions that `pick` wants.
    fn take_all<T>(&mut self, mut pick: impl FnMut(&Action) -> Option<T>) -> Vec<T> {
        core::iter::from_fn(|| self.take(&mut pick)).collect()
    }

    // --- servers

    fn spawned(&mut self, server: &str) -> Option<ChildId> {
        self.take(|action| match action {
            Action::Spawn { child, spawn } if spawn.server == server => Some(*child),
            _ => None,
        })
    }

    /// Brings a server up that was ordered, with these tools.
    fn bring_up(&mut self, server: &str, tools: &[&str]) -> ChildId {
        let child = self.spawned(server).expect("its process was ordered");
        self.come_up(child, tools);
        child
    }

    /// Starts a process that was ordered, with these tools.
    fn come_up(&mut self, child: ChildId, tools: &[&str]) {
        self.event(Event::Spawned { child, pid: 100 });
        self.greet(child);
        let tools: Vec<Value> = tools.iter().map(|name| json!({"name": name, "inputSchema": {}})).collect();
        let list = self.written(child).pop().expect("its tools were asked for");
        self.answer(child, &list["id"], json!({ "tools": tools }));
    }

    /// Answers the handshake.
    fn greet(&mut self, child: ChildId) {
        let initialize = self.written(child).remove(0);
        let about =
            json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}});
        self.answer(child, &initialize["id"], about);
    }

    /// What was written to a server's stdin.
    fn written(&mut self, of: ChildId) -> Vec<Value> {
        self.take_all(|action| match action {
            Action::Write { child, bytes } if *child == of => {
                assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
                Some(serde_json::from_slice(bytes).expect("JSON"))
            }
            _ => None,
        })
    }

    /// A line of a server's stdout.
    fn say(&mut self, child: ChildId, line: &Value) {
        self.event(Event::Line { child, line: Bytes::from(line.to_string()) });
    }

    fn answer(&mut self, child: ChildId, id: &Value, result: Value) {
        self.say(child, &json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn exited(&mut self, child: ChildId, code: i32, stderr: &str) {
        self.event(Event::Exited { child, code: Some(code), signal: None, stderr: stderr.to_string() });
    }

    fn status(&mut self) -> status::Document {
        self.event(Event::Control { job: JobId(9), command: ControlCommand::Status });
        serde_json::from_slice(&self.reply()).expect("a status document")
    }

    fn reply(&mut self) -> Bytes {
        self.take(|action| match action {
            Action::ControlReply { json, .. } => Some(json.clone()),
            _ => None,
        })
        .expect("an answer on the control socket")
    }

    fn server_status(&mut self, name: &str) -> status::Server {
        self.status().servers.into_iter().find(|server| server.name == name).expect("it is listed")
    }

    fn exit(&mut self) -> Option<Exit> {
        self.take(|action| match action {
            Action::Exit(exit) => Some(exit.clone()),
            _ => None,
        })
    }

    // --- the tunnel

    fn dialled(&mut self) -> Option<ConnId> {
        self.take(|action| match action {
            Action::Dial { conn, .. } => Some(*conn),
            _ => None,
        })
    }

    /// Connects the tunnel that was dialled.
    fn connect(&mut self, dialect: Dialect) {
        self.conn = self.dialled().expect("the relay was dialled");
        self.event(Event::Dialed { conn: self.conn, dialect });
        let features = match dialect {
            Dialect::V2 => [tunnel::ASKS_BESIDE, tunnel::HANDS_ON].map(ToString::to_string).into(),
            Dialect::V1 => Vec::new(),
        };
        self.tunnel(tunnel::Event::Up(Hello {
            version: "2.0.1".to_string(),
            user: "u-1".to_string(),
            features,
            ..Hello::default()
        }));
    }

    fn tunnel(&mut self, event: tunnel::Event) {
        let conn = self.conn;
        self.event(Event::Tunnel { conn, event });
    }

    /// What a client of a session says to server `a`, on no call's stream.
    fn session_says(&mut self, session: &str, json: &Value) {
        let (session, server, json) = (session.to_string(), Some("a".to_string()), Bytes::from(json.to_string()));
        self.tunnel(tunnel::Event::ClientNotice { session, server, json });
    }

    fn closed(&mut self, code: CloseCode) {
        self.tunnel(tunnel::Event::Closed(Close::new(code, "for a reason")));
    }

    fn commands(&mut self) -> Vec<Command> {
        self.take_all(|action| match action {
            Action::Tunnel { command, .. } => Some(command.clone()),
            _ => None,
        })
    }

    /// The catalogs that were sent.
    fn catalogs(&mut self) -> Vec<Value> {
        self.take_all(|action| match action {
            Action::Tunnel { command: Command::Catalog(json), .. } => Some(serde_json::from_slice(json).expect("JSON")),
            _ => None,
        })
    }

    fn call(&mut self, stream: u32, server: &str, params: &str) {
        self.call_method(stream, server, "tools/call", params);
    }

    fn call_method(&mut self, stream: u32, server: &str, method: &str, params: &str) {
        let head = OpenHead {
            server: server.into(),
            method: method.into(),
            length: params.len() as u64,
            ..OpenHead::default()
        };
        let params = Bytes::copy_from_slice(params.as_bytes());
        self.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params });
    }

    /// A call of a client of the modern era.
    fn modern_call(&mut self, stream: u32, server: &str, method: &str, params: &str) {
        let head = OpenHead {
            server: server.into(),
            method: method.into(),
            version: Some("2026-07-28".into()),
            actor: "ann".into(),
            length: params.len() as u64,
            ..OpenHead::default()
        };
        let params = Bytes::copy_from_slice(params.as_bytes());
        self.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params });
    }

    /// A call to `a` in a session whose client declared these capabilities.
    fn call_as(&mut self, stream: u32, session: &str, capabilities: &Value, method: &str, params: &str) {
        let head = OpenHead {
            server: "a".into(),
            method: method.into(),
            version: Some("2025-06-18".into()),
            client: Some(std::format!("Client of {session} 1.2").into()),
            session: session.into(),
            capabilities: capabilities.to_string().into(),
            length: params.len() as u64,
            ..OpenHead::default()
        };
        let params = Bytes::copy_from_slice(params.as_bytes());
        self.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params });
    }

    /// A call of a tool in a session.
    fn call_in(&mut self, stream: u32, session: &str) {
        self.call_as(stream, session, &json!({"roots": {}, "sampling": {}}), "tools/call", "{}");
    }

    fn reset(&mut self, stream: u32) {
        let (code, reason) = (tunnel::ResetCode::Cancelled, String::new());
        self.tunnel(tunnel::Event::Reset { stream: StreamId(stream), code, reason });
    }

    /// Something that a client says in the course of its call.
    fn client_says(&mut self, stream: u32, json: &Value) {
        let json = Bytes::from(json.to_string());
        self.tunnel(tunnel::Event::Message { stream: StreamId(stream), json, credit: 0 });
    }

    /// The messages of calls that were sent: stream, message, whether it may be dropped.
    fn messages(&mut self) -> Vec<(u32, Value, bool)> {
        self.take_all(|action| match action {
            Action::Tunnel { command: Command::Message { stream, json, droppable }, .. } => {
                Some((stream.0, serde_json::from_slice(json).expect("JSON"), *droppable))
            }
            _ => None,
        })
    }

    /// The notices that were sent: for which sessions, and what.
    fn notices(&mut self) -> Vec<(String, Value)> {
        self.take_all(|action| match action {
            Action::Tunnel { command: Command::Notice { sessions, json, .. }, .. } => {
                Some((sessions.join(" "), serde_json::from_slice(json).expect("JSON")))
            }
            _ => None,
        })
    }

    /// The answers that were sent: stream, code of the error if any, body.
    fn answers(&mut self) -> Vec<(u32, Option<i64>, String)> {
        self.take_all(|action| match action {
            Action::Tunnel { command: Command::Answer { stream, outcome, body }, .. } => {
                let code = match outcome {
                    Outcome::Result => None,
                    Outcome::Error { code } => Some(*code),
                };
                Some((stream.0, code, String::from_utf8(body.to_vec()).expect("text")))
            }
            _ => None,
        })
    }
}
