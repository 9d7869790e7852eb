//! An old agent at our relay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tunnel_core::id::StreamId;
use tunnel_core::mcp::catalog::Update;
use tunnel_core::names;
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{Command, Dialect, Event, Hello, Message, OpenHead, Outcome, Side};

use crate::player::{Act, Answer, Client, Stage};
use crate::socket::Socket;
use crate::support::{self, Relay, Reply, eventually};

/// A relay's connections, with as much of a relay around them as a transcript needs.
#[derive(Default)]
pub struct Core {
    devices: BTreeMap<String, Device>,
    calls: BTreeMap<String, (String, StreamId)>,
    answers: BTreeMap<(String, StreamId), Answer>,
    last: u32,
}

struct Device {
    connection: Connection,
    /// Server and tool.
    tools: Vec<(String, String)>,
    outcome: Option<Outcome>,
}

impl Core {
    fn settle(&mut self, name: &str) {
        let device = self.devices.get_mut(name).expect("the device is connected");
        while let Some(event) = device.connection.poll_event() {
            match event {
                Event::Catalog(json) => device.tools = tools_of(&json),
                Event::Answer { outcome, .. } => device.outcome = Some(outcome),
                Event::Data { stream, bytes, end } => {
                    assert!(end, "an answer of dialect V1 comes whole");
                    let body = serde_json::from_slice(&bytes).expect("JSON");
                    let answer = match device.outcome.take().expect("the outcome came before") {
                        Outcome::Result => Answer::Result(body),
                        Outcome::Error { .. } => Answer::Error(body),
                    };
                    self.answers.insert((name.to_owned(), stream), answer);
                }
                Event::Up(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What each listed name stands for: device, server and tool.
    fn listing(&self) -> BTreeMap<String, (String, String, String)> {
        let several = self.devices.len() > 1;
        let all = self.devices.iter().flat_map(|(name, device)| device.tools.iter().map(move |tool| (name, tool)));
        all.map(|(device, (server, tool))| {
            let listed = names::listed(several.then_some(device.as_str()), server, tool);
            (listed, (device.clone(), server.clone(), tool.clone()))
        })
        .collect()
    }

    fn call(&mut self, listed: &str, arguments: Option<&Value>, call: &str) {
        let (device, server, tool) = self.listing().remove(listed).unwrap_or_else(|| panic!("{listed} is not listed"));
        self.last += 1;
        let mut params = json!({"name": tool});
        if let Some(arguments) = arguments {
            params["arguments"] = arguments.clone();
        }
        let params = Bytes::from(params.to_string());
        let v1_tool = Some(format!("{server}__{tool}"));
        let length = params.len() as u64;
        let head = OpenHead { server: server.into(), method: "tools/call".into(), length, ..OpenHead::default() };
        let stream = StreamId(self.last);
        let connection = &mut self.devices.get_mut(&device).expect("it was just listed").connection;
        connection.handle_command(Command::Open { stream, head, params, v1_tool }, Now::default());
        self.calls.insert(call.to_owned(), (device, stream));
    }
}

fn tools_of(json: &[u8]) -> Vec<(String, String)> {
    let update: Update = serde_json::from_slice(json).expect("a catalog");
    assert!(update.whole);
    let tools = update.servers.iter().flat_map(|server| server.tools.iter().map(|tool| (server.name.clone(), tool)));
    tools
        .map(|(server, tool)| {
            let tool: Value = serde_json::from_str(tool.get()).expect("JSON");
            assert!(tool["description"].as_str().is_none_or(|text| !text.starts_with('[')), "no label: {tool}");
            (server, tool["name"].as_str().expect("a name").to_owned())
        })
        .collect()
}

impl Stage for Core {
    fn act(&mut self, peer: &str, act: Act) {
        match act {
            Act::Connect => {
                let settings = Settings { side: Side::Relay, dialect: Dialect::V1, hello: Hello::default() };
                let connection = Connection::new(settings, Now::default());
                self.devices.insert(peer.to_owned(), Device { connection, tools: Vec::new(), outcome: None });
                self.settle(peer);
            }
            Act::Leave => {
                let mut device = self.devices.remove(peer).expect("the device is connected");
                device.connection.handle_gone("left", Now::default());
                assert!(matches!(device.connection.poll_event(), Some(Event::Closed(_))));
                for (of, stream) in self.calls.values().filter(|(of, _)| of == peer) {
                    self.answers.entry((of.clone(), *stream)).or_insert(Answer::Lost(true));
                }
            }
            Act::Ping => {
                let connection = &mut self.devices.get_mut(peer).expect("the device is connected").connection;
                connection.handle_message(Message::Ping(Bytes::from_static(b"x")), Now::default());
                assert_eq!(connection.poll_transmit(Now::default()), Some(Message::Pong(Bytes::from_static(b"x"))));
            }
        }
    }

    fn say(&mut self, peer: &str, text: &str) {
        let connection = &mut self.devices.get_mut(peer).expect("the device is connected").connection;
        connection.handle_message(Message::Text(Bytes::copy_from_slice(text.as_bytes())), Now::default());
        self.settle(peer);
    }

    fn hear(&mut self, peer: &str) -> String {
        let connection = &mut self.devices.get_mut(peer).expect("the device is connected").connection;
        match connection.poll_transmit(Now::default()) {
            Some(Message::Text(text)) => String::from_utf8(text.to_vec()).expect("UTF-8"),
            other => panic!("{other:?} is no text"),
        }
    }

    fn client(&mut self, step: &Client) {
        match step {
            Client::Lists { tools } => {
                let expected: BTreeSet<_> = tools.iter().collect();
                assert_eq!(self.listing().keys().collect::<BTreeSet<_>>(), expected);
            }
            Client::Calls { tool, arguments, name } => self.call(tool, arguments.as_ref(), name),
            Client::Gets { of, answer } => {
                let key = self.calls.get(of).unwrap_or_else(|| panic!("{of} is no call"));
                assert_eq!(self.answers.get(key), Some(answer), "{of}");
            }
            Client::Restarts => {
                for device in self.devices.values_mut() {
                    device.connection.handle_command(Command::Restart { server: None }, Now::default());
                }
            }
        }
    }
}

/// The built relay.
pub struct Program<'a> {
    relay: &'a Relay,
    token: String,
    client: support::Client<'a>,
    peers: BTreeMap<String, Socket>,
    calls: BTreeMap<String, BufReader<TcpStream>>,
}

impl<'a> Program<'a> {
    pub fn relay(name: &str) -> Relay {
        Relay::with(name, &json!({"legacy": {"tokenInQuery": true}}))
    }

    pub fn new(relay: &'a Relay) -> Self {
        let (token, client) = (relay.mint("ada", "agent"), support::Client::connect(relay));
        Self { relay, token, client, peers: BTreeMap::new(), calls: BTreeMap::new() }
    }

    fn peer(&mut self, name: &str) -> &mut Socket {
        self.peers.get_mut(name).unwrap_or_else(|| panic!("{name} is not connected"))
    }
}

impl Stage for Program<'_> {
    fn act(&mut self, peer: &str, act: Act) {
        match act {
            Act::Connect => {
                let socket = Socket::dial(self.relay.port, peer, &self.token);
                self.peers.insert(peer.to_owned(), socket);
            }
            Act::Leave => drop(self.peers.remove(peer)),
            Act::Ping => self.peer(peer).ping(),
        }
    }

    fn say(&mut self, peer: &str, text: &str) {
        self.peer(peer).say(text);
    }

    fn hear(&mut self, peer: &str) -> String {
        self.peer(peer).hear()
    }

    fn client(&mut self, step: &Client) {
        match step {
            Client::Lists { tools } => {
                let own = ["status", "restart"].map(str::to_owned);
                let expected: BTreeSet<_> = tools.iter().chain(&own).cloned().collect();
                eventually(&format!("{expected:?} are listed"), Duration::from_secs(20), || {
                    let listed = self.client.tools().into_iter().collect();
                    if expected == listed { Ok(()) } else { Err(format!("{listed:?}")) }
                });
            }
            Client::Calls { tool, arguments, name } => {
                let mut params = json!({"name": tool});
                if let Some(arguments) = arguments {
                    params["arguments"] = arguments.clone();
                }
                let call = json!({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params});
                self.calls.insert(name.clone(), self.client.send(&call));
            }
            Client::Gets { of, answer } => {
                let mut waiting = self.calls.remove(of).unwrap_or_else(|| panic!("{of} is no call"));
                let reply = Reply::read(&mut waiting).expect("the relay answers");
                let got = reply.messages().pop().unwrap_or_else(|| panic!("no answer: {reply:?}"));
                match answer {
                    Answer::Result(result) => assert_eq!(got["result"], *result, "{got}"),
                    Answer::Error(error) => assert_eq!(got["error"], *error, "{got}"),
                    Answer::Lost(_) => assert_eq!(got["error"]["data"]["reason"], "device-disconnected", "{got}"),
                }
            }
            Client::Restarts => {
                let answer = self.client.call("restart", &json!({}));
                assert_eq!(answer["result"]["isError"], false, "{answer}");
            }
        }
    }
}
