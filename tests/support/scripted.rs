//! A relay whose every word is the test's: plain sockets and frames.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::{Agent, Process, Scratch, eventually, program};

/// Secrets that must stay where they are: the token, another variable of the agent's environment, a server's variable.
pub const TOKEN: &str = "canary-of-the-token";
pub const AMBIENT: &str = "canary-of-the-agents-environment";
pub const PRIVATE: &str = "canary-of-a-servers-environment";

pub const HELLO: u8 = 1;
pub const CATALOG: u8 = 2;
pub const OPEN: u8 = 3;
pub const ANSWER: u8 = 4;
pub const DATA: u8 = 5;
pub const END: u8 = 6;
pub const CREDIT: u8 = 7;
pub const RESET: u8 = 8;
pub const PING: u8 = 9;
pub const RESTART: u8 = 11;
pub const GO_AWAY: u8 = 12;
pub const MESSAGE: u8 = 13;
pub const NOTICE: u8 = 14;

/// Listens as a relay would; what it answers is the test's.
pub struct Evil {
    pub port: u16,
    dials: Receiver<(String, TcpStream)>,
    /// Everything that the agent said, WebSocket masks undone; heads without their `Authorization`.
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Evil {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("bound").port();
        let (dialled, dials) = channel();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                drop(socket.set_write_timeout(Some(Duration::from_secs(10))));
                let head = read_head(&mut socket);
                let lines = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("authorization:"));
                for line in lines {
                    hears.lock().expect("no reader panics").extend_from_slice(line.as_bytes());
                }
                if dialled.send((head, socket)).is_err() {
                    return;
                }
            }
        });
        Self { port, dials, heard }
    }

    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// An agent with the demo's server, signed in with a token that nobody checks.
    pub fn agent(&self, name: &str) -> Agent {
        self.agent_with(name, |_| json!({"command": [program(), "demo-server"], "env": {"PRIVATE": PRIVATE}}))
    }

    /// The same under a policy; what its server hears is in the file `heard`.
    pub fn agent_under(&self, name: &str, policy: &Value) -> Agent {
        self.agent_with(name, |home| {
            let tapped = format!("tee -a '{}/heard' | {} demo-server", home.path().display(), program().display());
            json!({"command": ["sh", "-c", tapped], "policy": policy})
        })
    }

    fn agent_with(&self, name: &str, server: impl Fn(&Scratch) -> Value) -> Agent {
        let home = Scratch::new(&format!("hostile-{name}"));
        std::fs::write(home.path().join("token"), TOKEN).expect("its home can be written");
        let server = server(&home);
        let config = json!({
            "mode": "agent", "relay": self.url(), "name": "device", "servers": {"local": server},
            "token": format!("file:{}", home.path().join("token").display()),
        });
        let process = Process::start_with(home.path(), &config, &["agent"], |command| {
            command.env("AMBIENT_SECRET", AMBIENT);
        });
        Agent { home, config, process }
    }

    /// A sign-in on a machine with a screen.
    pub fn login(&self, home: &Scratch) -> Process {
        let config = json!({"mode": "agent", "relay": self.url(), "servers": {}});
        Process::start_with(home.path(), &config, &["login"], |command| {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("DISPLAY", ":0").env("PATH", format!("{}:{path}", home.path().display()));
        })
    }

    /// The next connection: its request's head, and the socket.
    pub fn dial(&self) -> (String, TcpStream) {
        self.dials.recv_timeout(Duration::from_secs(40)).expect("the agent dials")
    }

    /// The same, without waiting out the agent's backoff.
    pub fn dial_after(&self, agent: &Agent) -> (String, TcpStream) {
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            match self.dials.recv_timeout(Duration::from_millis(500)) {
                Ok(dial) => return dial,
                Err(_) => assert!(Instant::now() < end, "the agent dials"),
            }
            agent.nudge();
        }
    }

    pub fn tunnel(&self) -> Tunnel {
        Tunnel::accept(self.dial(), Arc::clone(&self.heard))
    }

    pub fn tunnel_after(&self, agent: &Agent) -> Tunnel {
        Tunnel::accept(self.dial_after(agent), Arc::clone(&self.heard))
    }

    /// Neither what the agent said nor its log holds a secret, but for the header that the token belongs into.
    pub fn learned_nothing(&self, agent: &Agent) {
        let heard = String::from_utf8_lossy(&self.heard.lock().expect("no reader panics")).into_owned();
        for canary in [TOKEN, AMBIENT, PRIVATE] {
            assert!(!heard.contains(canary), "the relay heard {canary}");
            assert!(!agent.process.log().contains(canary), "the log has {canary}");
        }
    }
}

/// An open tunnel, seen from the relay.
pub struct Tunnel {
    socket: TcpStream,
    pub out: Mutex<WebSocket<TcpStream>>,
    frames: Arc<Mutex<Vec<Frame>>>,
    ended: Arc<Mutex<bool>>,
}

impl Tunnel {
    pub fn accept((head, mut socket): (String, TcpStream), heard: Arc<Mutex<Vec<u8>>>) -> Self {
        socket.write_all(switching(&head).as_bytes()).expect("the agent reads");
        let mut input = WebSocket::from_raw_socket(socket.try_clone().expect("a handle"), Role::Server, None);
        let (frames, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let (said, over) = (Arc::clone(&frames), Arc::clone(&ended));
        std::thread::spawn(move || {
            while let Ok(message) = input.read() {
                let bytes = message.into_data();
                heard.lock().expect("no reader panics").extend_from_slice(&bytes);
                said.lock().expect("no reader panics").extend(split(&bytes));
            }
            *over.lock().expect("no reader panics") = true;
        });
        let out = WebSocket::from_raw_socket(socket.try_clone().expect("a handle"), Role::Server, None);
        let tunnel = Self { socket, out: Mutex::new(out), frames, ended };
        tunnel.send(&frame(HELLO, 0, json!({"maxMessage": 1 << 26, "maxStreams": 1024}).to_string().as_bytes()));
        tunnel
    }

    /// Sends a message that the agent is there to take.
    pub fn send(&self, frames: &[u8]) {
        self.out.lock().expect("no writer panics").send(Message::binary(frames.to_vec())).expect("the agent reads");
    }

    /// Sends what may end the tunnel.
    pub fn send_raw(&self, bytes: &[u8]) {
        drop(self.out.lock().expect("no writer panics").send(Message::binary(bytes.to_vec())));
    }

    pub fn call(&self, stream: u32, server: &str, method: &str, params: &[u8]) {
        let mut bytes = open(stream, server, method, params.len() as u64);
        bytes.extend(frame(END, stream, params));
        self.send(&bytes);
    }

    /// Waits for a catalog that names `tool`.
    pub fn catalog_with(&self, tool: &str) {
        eventually("the catalog comes", Duration::from_secs(30), || {
            let frames = self.frames.lock().expect("no reader panics");
            let catalogs: Vec<_> = frames.iter().filter(|(kind, ..)| *kind == CATALOG).collect();
            let named =
                catalogs.iter().any(|(.., body)| String::from_utf8_lossy(body).contains(&format!("\"{tool}\"")));
            named.then_some(()).ok_or(format!("{} catalogs", catalogs.len()))
        });
    }

    /// Whatever ends that call.
    pub fn answer_to(&self, stream: u32) -> String {
        eventually("the call is answered", Duration::from_secs(30), || {
            let frames = self.frames.lock().expect("no reader panics");
            let own = frames.iter().filter(|(_, of, _)| *of == stream);
            let last = own.filter(|(kind, ..)| matches!(*kind, END | RESET)).map(|(.., body)| body).next_back();
            last.map(|body| String::from_utf8_lossy(body).into_owned()).ok_or("nothing yet".into())
        })
    }

    pub fn has_ended(&self) -> Result<(), String> {
        if *self.ended.lock().expect("no reader panics") { Ok(()) } else { Err("it is open".into()) }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Also the reader's handle.
        drop(self.socket.shutdown(Shutdown::Both));
    }
}

/// What the tests want of an agent beside its status.
pub trait Nudged {
    fn nudge(&self);
    fn last_error_with(&self, words: &str, what: &str) -> String;
}

impl Nudged for Agent {
    /// SIGHUP: dial now.
    fn nudge(&self) {
        let pid = i32::try_from(self.process.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::HUP).expect("the agent runs");
    }

    fn last_error_with(&self, words: &str, what: &str) -> String {
        eventually(what, Duration::from_secs(10), || {
            let status: Value = self.status();
            let error = status["relay"]["lastError"].as_str().unwrap_or_default().to_owned();
            if error.contains(words) { Ok(error) } else { Err(status.to_string()) }
        })
    }
}

// --- bytes

pub fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a test's frame");
    [&[kind][..], &stream.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

pub fn open(stream: u32, server: &str, method: &str, length: u64) -> Vec<u8> {
    let head = json!({"server": server, "method": method, "session": "s", "length": length});
    frame(OPEN, stream, head.to_string().as_bytes())
}

/// Kind, stream, body.
pub type Frame = (u8, u32, Vec<u8>);

/// The frames of a message.
pub fn split(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let (kind, stream, end) = (bytes[0], number(1), 9 + number(5) as usize);
        let Some(body) = bytes.get(9..end) else { break };
        frames.push((kind, stream, body.to_vec()));
        bytes = &bytes[end..];
    }
    frames
}

pub fn read_head(socket: &mut TcpStream) -> String {
    drop(socket.set_read_timeout(Some(Duration::from_secs(10))));
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    drop(socket.set_read_timeout(None));
    String::from_utf8_lossy(&head).into_owned()
}

/// 101 for the key of that head, in dialect V2.
pub fn switching(head: &str) -> String {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nMcp-Tunnel: 2\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

pub fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub fn redirect(to: &str) -> Vec<u8> {
    http("302 Found", &format!("Location: {to}\r\n"), "")
}
