//! Our agent at an old relay.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tunnel_core::id::StreamId;
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{Command, Dialect, Event, Hello, Message, Outcome, Side};

use crate::player::{Act, Answer, Server, Stage};
use crate::socket::{Socket, patient};
use crate::support::{Process, Scratch, eventually};

/// An agent's connections, with as much of an agent around them as a transcript needs.
#[derive(Default)]
pub struct Core {
    connections: BTreeMap<String, Connection>,
    /// Tools by device and server.
    tools: BTreeMap<(String, String), Vec<Value>>,
    events: BTreeMap<String, VecDeque<Event>>,
    heard: BTreeMap<(String, String), StreamId>,
}

impl Core {
    fn list(&mut self, device: &str) {
        let own = self.tools.iter().filter(|((of, _), _)| of == device);
        let servers: Vec<_> =
            own.map(|((_, name), tools)| json!({"name": name, "state": "ready", "tools": tools})).collect();
        let catalog = json!({"whole": true, "servers": servers}).to_string();
        self.connection(device).handle_command(Command::Catalog(catalog.into()), Now::default());
    }

    fn connection(&mut self, device: &str) -> &mut Connection {
        self.connections.get_mut(device).unwrap_or_else(|| panic!("{device} is not connected"))
    }

    fn next_event(&mut self, device: &str) -> Event {
        let waiting = self.events.get_mut(device).and_then(VecDeque::pop_front);
        waiting.unwrap_or_else(|| panic!("nothing happened on {device}"))
    }
}

impl Stage for Core {
    fn act(&mut self, peer: &str, act: Act) {
        match act {
            Act::Connect => {
                let settings = Settings { side: Side::Agent, dialect: Dialect::V1, hello: Hello::default() };
                let mut connection = Connection::new(settings, Now::default());
                assert!(matches!(connection.poll_event(), Some(Event::Up(_))));
                self.connections.insert(peer.to_owned(), connection);
                self.list(peer);
            }
            Act::Leave => {
                self.connection(peer).handle_gone("left", Now::default());
                assert!(matches!(self.connection(peer).poll_event(), Some(Event::Closed(_))));
            }
            Act::Ping => panic!("an old relay does not ping"),
        }
    }

    fn say(&mut self, peer: &str, text: &str) {
        let connection = self.connection(peer);
        connection.handle_message(Message::Text(Bytes::copy_from_slice(text.as_bytes())), Now::default());
        let events: Vec<_> = std::iter::from_fn(|| connection.poll_event()).collect();
        self.events.entry(peer.to_owned()).or_default().extend(events);
    }

    fn hear(&mut self, peer: &str) -> String {
        match self.connection(peer).poll_transmit(Now::default()) {
            Some(Message::Text(text)) => String::from_utf8(text.to_vec()).expect("UTF-8"),
            other => panic!("{other:?} is no text"),
        }
    }

    fn server(&mut self, device: &str, server: &str, step: &Server) {
        let key = (device.to_owned(), server.to_owned());
        match step {
            Server::Has(tools) => drop(self.tools.insert(key, tools.clone())),
            Server::Hears(expected) => match self.next_event(device) {
                Event::Call { stream, head, params } => {
                    assert_eq!((&*head.server, &*head.method), (server, "tools/call"));
                    assert_eq!(serde_json::from_slice::<Value>(&params).expect("JSON"), *expected);
                    self.heard.insert(key, stream);
                }
                other => panic!("{other:?} is no call"),
            },
            Server::Answers(answer) => {
                let stream = self.heard.remove(&key).expect("it heard a call");
                let (outcome, body) = match answer {
                    Answer::Result(result) => (Outcome::Result, result),
                    Answer::Error(error) => (Outcome::Error { code: error["code"].as_i64().expect("a code") }, error),
                    Answer::Lost(_) => panic!("a server answers or does not"),
                };
                let body = body.to_string().into();
                self.connection(device).handle_command(Command::Answer { stream, outcome, body }, Now::default());
            }
            Server::Restarts(yes) => {
                assert!(yes);
                assert_eq!(self.next_event(device), Event::Restart { server: None });
                self.list(device);
            }
        }
    }
}

/// The built agent, the old relay that it dials, and its servers.
pub struct Program {
    name: &'static str,
    relay: TcpListener,
    servers: BTreeMap<(String, String), Scripted>,
    agents: BTreeMap<String, (Process, Scratch)>,
    peers: BTreeMap<String, Socket>,
    /// Agents that dialled before they were asked for.
    early: BTreeMap<String, Socket>,
}

impl Program {
    pub fn new(name: &'static str) -> Self {
        let relay = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        relay.set_nonblocking(true).expect("a socket can be told");
        let (servers, agents) = (BTreeMap::new(), BTreeMap::new());
        Self { name, relay, servers, agents, peers: BTreeMap::new(), early: BTreeMap::new() }
    }

    fn start(&self, device: &str) -> (Process, Scratch) {
        let home = Scratch::new(&format!("{}-{device}", self.name));
        std::fs::write(home.path().join("token"), TOKEN).expect("its home can be written");
        let own = self.servers.iter().filter(|((of, _), _)| of == device);
        let servers: serde_json::Map<_, _> =
            own.map(|((_, name), server)| (name.clone(), json!({"url": server.url}))).collect();
        let config = json!({
            "mode": "agent", "name": device, "servers": servers,
            "relay": format!("http://{}", self.relay.local_addr().expect("it is bound")),
            "token": format!("file:{}", home.path().join("token").display()),
        });
        (Process::start(home.path(), &config, &["agent"]), home)
    }

    /// The tunnel of `device`, once it dials.
    fn accept(&mut self, device: &str) -> Socket {
        if let Some(socket) = self.early.remove(device) {
            return socket;
        }
        loop {
            let (stream, _) = eventually(&format!("{device} dials"), Duration::from_secs(30), || {
                self.relay.accept().map_err(|error| error.to_string())
            });
            let (name, socket) = take_tunnel(stream);
            if name == device {
                return socket;
            }
            self.early.insert(name, socket);
        }
    }

    fn peer(&mut self, name: &str) -> &mut Socket {
        self.peers.get_mut(name).unwrap_or_else(|| panic!("{name} is not connected"))
    }
}

/// What an old relay does with an upgrade: the name from the query, the token from the header, nothing in the answer.
#[expect(clippy::result_large_err, reason = "the library's own signature")]
fn take_tunnel(stream: TcpStream) -> (String, Socket) {
    let mut name = String::new();
    let read = |request: &Request, response: Response| {
        let query = request.uri().query().expect("it says its name");
        name = query.strip_prefix("name=").unwrap_or_else(|| panic!("only its name is in the URL: {query}")).to_owned();
        assert_eq!(request.uri().path(), "/ws");
        assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(request.headers().get("sec-websocket-protocol"), None);
        Ok(response)
    };
    let socket = tungstenite::accept_hdr(patient(stream), read).expect("the agent makes the handshake");
    (name, Socket::new(socket))
}

impl Stage for Program {
    fn act(&mut self, peer: &str, act: Act) {
        match act {
            Act::Connect => {
                if !self.agents.contains_key(peer) {
                    let agent = self.start(peer);
                    self.agents.insert(peer.to_owned(), agent);
                }
                let socket = self.accept(peer);
                self.peers.insert(peer.to_owned(), socket);
            }
            Act::Leave => drop(self.peers.remove(peer)),
            Act::Ping => panic!("an old relay does not ping"),
        }
    }

    fn say(&mut self, peer: &str, text: &str) {
        self.peer(peer).say(text);
    }

    fn hear(&mut self, peer: &str) -> String {
        self.peer(peer).hear()
    }

    fn server(&mut self, device: &str, server: &str, step: &Server) {
        let key = (device.to_owned(), server.to_owned());
        match step {
            Server::Has(tools) => self.servers.entry(key).or_insert_with(Scripted::start).has(tools),
            other => self.servers.get_mut(&key).expect("the server has tools").step(other),
        }
    }
}

const TOKEN: &str = "a-token-of-the-old-relay";

/// A local server over HTTP that does what it is told.
struct Scripted {
    url: String,
    tools: Arc<Mutex<Vec<Value>>>,
    /// One for each `initialize`.
    restarts: Receiver<()>,
    calls: Receiver<(Value, Sender<Value>)>,
    open: Option<Sender<Value>>,
}

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let url = format!("http://{}/mcp", listener.local_addr().expect("it is bound"));
        let tools = Arc::new(Mutex::new(Vec::new()));
        let (initialized, restarts) = mpsc::channel();
        let (called, calls) = mpsc::channel();
        let own = Arc::clone(&tools);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tools, initialized, called) = (Arc::clone(&own), initialized.clone(), called.clone());
                std::thread::spawn(move || serve(stream, &tools, &initialized, &called));
            }
        });
        Self { url, tools, restarts, calls, open: None }
    }

    fn has(&self, tools: &[Value]) {
        *self.tools.lock().expect("no holder panics") = tools.to_vec();
    }

    fn step(&mut self, step: &Server) {
        match step {
            Server::Has(tools) => self.has(tools),
            Server::Hears(expected) => {
                let (params, answer) = self.calls.recv_timeout(PATIENCE).expect("the call comes");
                assert_eq!(json!({"name": params["name"], "arguments": params["arguments"]}), *expected);
                self.open = Some(answer);
            }
            Server::Answers(answer) => {
                let answer = match answer {
                    Answer::Result(result) => json!({"result": result}),
                    Answer::Error(error) => json!({"error": error}),
                    Answer::Lost(_) => panic!("a server answers or does not"),
                };
                let open = self.open.take().expect("it heard a call");
                open.send(answer).expect("the call is still waited for");
            }
            Server::Restarts(yes) => {
                assert!(yes);
                // The first one was its start.
                for _ in 0..2 {
                    self.restarts.recv_timeout(PATIENCE).expect("it is initialized again");
                }
            }
        }
    }
}

/// Answers one request of Streamable HTTP, and closes.
fn serve(
    stream: TcpStream,
    tools: &Mutex<Vec<Value>>,
    initialized: &Sender<()>,
    called: &Sender<(Value, Sender<Value>)>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, mut answer) = match message["method"].as_str() {
        None => ("405 Method Not Allowed", Value::Null),
        Some(_) if message.get("id").is_none() => ("202 Accepted", Value::Null),
        Some("initialize") => {
            initialized.send(()).ok()?;
            let info = json!({"name": "scripted", "version": "1"});
            let version = message["params"]["protocolVersion"].clone();
            let capabilities = json!({"tools": {}});
            (
                "200 OK",
                json!({"result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}}),
            )
        }
        Some("tools/list") => ("200 OK", json!({"result": {"tools": *tools.lock().expect("no holder panics")}})),
        Some("tools/call") => {
            let (answer, answered) = mpsc::channel();
            called.send((message["params"].clone(), answer)).ok()?;
            ("200 OK", answered.recv().ok()?)
        }
        Some("ping") => ("200 OK", json!({"result": {}})),
        Some(_) => ("200 OK", json!({"error": {"code": -32601, "message": "no such method"}})),
    };
    let body = if answer.is_null() {
        String::new()
    } else {
        answer["jsonrpc"] = "2.0".into();
        answer["id"] = message["id"].clone();
        answer.to_string()
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    reader.into_inner().write_all(format!("{head}{body}").as_bytes()).ok()
}

const PATIENCE: Duration = Duration::from_secs(30);
