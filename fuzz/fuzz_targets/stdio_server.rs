//! Any lines of a server's stdout, between calls: each call is answered once at most, and once when the server has gone,
//! with bytes that it wrote; what is written to it is JSON, a line each.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tunnel_core::agent::contract::{Action, Event, Identity};
use tunnel_core::agent::machine::Agent;
use tunnel_core::config::{AgentConfig, EraChoice, Life, ServerConfig, Transport};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine;
use tunnel_core::id::{ChildId, ConnId, StreamId};
use tunnel_core::rpc;
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::Person;
use tunnel_core::time::{Instant, Now, UnixTime};
use tunnel_core::tunnel::{self, Command, Dialect, Hello, OpenHead, Outcome, ResetCode};

// A line begins with what happens: `c` a call with these params, `s` the server says this, in which $ is the id that it
// was asked with last, `m` the client says this, `r` it resets, `x` the server ends, `t` time passes.
fuzz_target!(|data: &[u8]| {
    let mut rig = Rig::new();
    rig.event(Event::Start { person: Person::Absent });
    for line in data.split(|byte| *byte == b'\n').take(48) {
        let Some((op, rest)) = line.split_first() else { continue };
        rig.step(*op, rest);
    }
    rig.is_gone = true;
    rig.exit();
    rig.pass(Duration::from_secs(600));
    assert!(rig.calls.values().all(|is_over| *is_over), "who waits for a server that has gone is told");
});

struct Rig {
    agent: Agent,
    now: Now,
    conn: ConnId,
    child: Option<ChildId>,
    /// The server cannot be started any more.
    is_gone: bool,
    /// The id of the last request to the server.
    asked: Vec<u8>,
    /// Everything that servers have said.
    said: Vec<u8>,
    /// Whether each call is over.
    calls: BTreeMap<StreamId, bool>,
}

impl Rig {
    fn new() -> Self {
        let transport = Transport::Stdio { command: vec!["files".into()], env: [].into(), cwd: None };
        let life = Life { era: EraChoice::Legacy, ..Life::default() };
        let server = ServerConfig { transport, start_timeout_secs: 60, life };
        let config = AgentConfig {
            relay: "https://relay.example".into(),
            name: None,
            servers: [("a".to_owned(), server)].into(),
            token: None,
            ca_file: None,
            policy: Default::default(),
        };
        let identity = Identity { device: "d".into(), device_id: "1".into(), version: "2".into(), os: "linux".into() };
        let agent = Agent::new(config, identity, Some(Secret::new("minted")), Box::new(Seeded::new(7)));
        let now = Now { instant: Instant::from_micros(1), unix: UnixTime::from_secs(1_800_000_000) };
        let (asked, said) = (Vec::new(), Vec::new());
        Self { agent, now, conn: ConnId(0), child: None, is_gone: false, asked, said, calls: BTreeMap::new() }
    }

    fn step(&mut self, op: u8, rest: &[u8]) {
        let last = self.calls.keys().last().copied().unwrap_or(StreamId(0));
        match op {
            b'c' => {
                let stream = StreamId(last.0 + 1);
                let params =
                    serde_json::from_slice::<&RawValue>(rest).map_or(&b"{}"[..], |params| params.get().as_bytes());
                let (server, method, session) = ("a".into(), "tools/call".into(), "s".into());
                let head = OpenHead { server, method, session, length: params.len() as u64, ..OpenHead::default() };
                self.calls.insert(stream, false);
                self.tunnel(tunnel::Event::Call { stream, head, params: Bytes::copy_from_slice(params) });
            }
            b's' => {
                let line: Vec<u8> =
                    rest.iter().flat_map(|byte| if *byte == b'$' { self.asked.clone() } else { vec![*byte] }).collect();
                self.say(line);
            }
            b'm' => {
                let json = Bytes::copy_from_slice(rest);
                self.tunnel(tunnel::Event::Message { stream: last, json, credit: 0 });
            }
            b'r' => {
                if let Some(is_over) = self.calls.get_mut(&last).filter(|is_over| !**is_over) {
                    *is_over = true;
                    let (code, reason) = (ResetCode::Cancelled, String::new());
                    self.tunnel(tunnel::Event::Reset { stream: last, code, reason });
                }
            }
            b'x' => self.exit(),
            b't' => self.pass(Duration::from_secs(61)),
            _ => {}
        }
    }

    fn say(&mut self, line: Vec<u8>) {
        if let Some(child) = self.child {
            self.said.extend_from_slice(&line);
            self.event(Event::Line { child, line: line.into() });
        }
    }

    fn exit(&mut self) {
        if let Some(child) = self.child.take() {
            self.event(Event::Exited { child, code: Some(1), signal: None, stderr: String::new() });
        }
    }

    fn tunnel(&mut self, event: tunnel::Event) {
        self.event(Event::Tunnel { conn: self.conn, event });
    }

    fn pass(&mut self, time: Duration) {
        let end = Now { instant: self.now.instant + time, unix: self.now.unix + time };
        while let Some(due) = self.agent.poll_timeout().filter(|deadline| deadline.at <= end.instant) {
            let step = due.at.saturating_since(self.now.instant);
            self.now = Now { instant: self.now.instant + step, unix: self.now.unix + step };
            self.agent.handle_timeout(self.now);
            self.drain();
            assert!(self.agent.poll_timeout().is_none_or(|next| next.at > self.now.instant), "{due:?} stays due");
        }
        self.now = end;
    }

    fn event(&mut self, event: Event) {
        self.agent.handle_event(event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::Dial { conn, .. } => {
                    self.conn = conn;
                    self.agent.handle_event(Event::Dialed { conn, dialect: Dialect::V2 }, self.now);
                    self.tunnel(tunnel::Event::Up(Hello::default()));
                }
                Action::Spawn { child, .. } if self.is_gone => {
                    self.event(Event::SpawnFailed { child, error: "gone".into() });
                }
                Action::Spawn { child, .. } => {
                    self.child = Some(child);
                    self.agent.handle_event(Event::Spawned { child, pid: 100 }, self.now);
                }
                Action::LoadPins { key } => self.event(Event::PinsLoaded { key, result: Ok(None) }),
                Action::SavePins { key, .. } => self.event(Event::PinsSaved { key, result: Ok(()) }),
                Action::Kill { child, .. } if self.child == Some(child) => self.exit(),
                Action::Write { child, bytes } => self.written(child, &bytes),
                Action::Tunnel { command, .. } => self.judge(command),
                _ => {}
            }
        }
    }

    fn written(&mut self, child: ChildId, line: &[u8]) {
        let message: Value = serde_json::from_slice(line).expect("JSON");
        assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1, "one line");
        let length = line.len();
        if let (Some(id), true) = (message.get("id"), message.get("method").is_some()) {
            self.asked = id.to_string().into_bytes();
            let tool = json!({"name": "t", "inputSchema": {"type": "object"}});
            let result = match message["method"].as_str() {
                Some("initialize") => Some(
                    json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}}),
                ),
                Some("tools/list") => Some(json!({"tools": [tool]})),
                _ => None,
            };
            if let Some(result) = result.filter(|_| self.child == Some(child)) {
                self.say(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string().into_bytes());
            }
        }
        self.event(Event::Wrote { child, bytes: length });
    }

    fn judge(&mut self, command: Command) {
        match command {
            Command::Answer { stream, outcome, body } => {
                assert!(serde_json::from_slice::<&RawValue>(&body).is_ok(), "an answer is JSON");
                let is_said = self.said.windows(body.len()).any(|said| said == body);
                assert!(is_said || outcome != Outcome::Result, "a result is the server's own");
                self.end(stream);
            }
            Command::Reset { stream, .. } => self.end(stream),
            Command::Message { stream, json, .. } => {
                assert!(self.calls.get(&stream) == Some(&false), "a message of a call that is under way");
                assert!(rpc::parse(&json).is_ok());
            }
            Command::Notice { json, .. } => assert!(rpc::parse(&json).is_ok()),
            _ => {}
        }
    }

    fn end(&mut self, stream: StreamId) {
        let is_over = self.calls.get_mut(&stream).expect("a call that was made");
        assert!(!std::mem::replace(is_over, true), "one answer");
    }
}
