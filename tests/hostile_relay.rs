//! A relay that means harm, against the real agent: whatever it says, the agent stays small, keeps its servers, runs
//! nothing but them, opens nothing but its own sign-in page, and tells nothing.
#![cfg(target_os = "linux")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{Agent, Process, Scratch, eventually, program, runs};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// Secrets that must stay where they are: the token, another variable of the agent's environment, a server's variable.
const TOKEN: &str = "canary-of-the-token";
const AMBIENT: &str = "canary-of-the-agents-environment";
const PRIVATE: &str = "canary-of-a-servers-environment";

const HELLO: u8 = 1;
const CATALOG: u8 = 2;
const OPEN: u8 = 3;
const ANSWER: u8 = 4;
const DATA: u8 = 5;
const END: u8 = 6;
const CREDIT: u8 = 7;
const RESET: u8 = 8;
const PING: u8 = 9;
const RESTART: u8 = 11;
const GO_AWAY: u8 = 12;
const MESSAGE: u8 = 13;
const NOTICE: u8 = 14;

#[test]
fn flood_of_everything_leaves_a_small_agent_with_its_servers() {
    let relay = Evil::start();
    let mut agent = relay.agent("flood");
    let tunnel = relay.tunnel();
    tunnel.catalog_with("echo");
    let before = agent.process.peak_resident();

    // Servers and methods that are none, or none of a client's.
    for stream in 1..=2_000_u32 {
        let server = ["nobody", "../../etc", "", "local\0", "$(touch ran)"][stream as usize % 5];
        tunnel.call(stream, server, "tools/call", b"{}");
    }
    for (stream, method) in (2_001..).zip(["initialize", "notifications/cancelled", "", "shutdown", "\n"]) {
        tunnel.call(stream, "local", method, b"{}");
    }
    tunnel.call(2_100, &"x".repeat(7_000), &"y".repeat(7_000), b"{}");
    // A gigabyte announced, a part of it sent, nothing of it finished.
    let piece = vec![b' '; 512 * 1024];
    for stream in 2_200..2_216 {
        tunnel.send(&open(stream, "local", "tools/call", 64 << 20));
        for _ in 0..30 {
            tunnel.send(&frame(DATA, stream, &piece));
        }
    }
    tunnel.send(&open(2_300, "local", "tools/call", u64::MAX));
    // More calls at once than a tunnel has streams, none of which ends by itself.
    for stream in 3_000..6_000_u32 {
        let slow = json!({"name": "countdown", "arguments": {"from": 100, "pause_ms": 60_000}});
        tunnel.call(stream, "local", "tools/call", slow.to_string().as_bytes());
    }
    // Small frames without end, in messages as large as are taken.
    for small in [frame(GO_AWAY, 0, b""), frame(PING, 0, &[7; 8]), frame(200, 0, b"unknown"), frame(RESTART, 0, b"{}")]
    {
        let many = small.repeat(900_000 / small.len());
        for _ in 0..10 {
            tunnel.send_raw(&many);
        }
    }
    let echo = json!({"name": "echo", "arguments": {"text": "still here"}}).to_string();
    let mut stream = 7_000;
    eventually("the server answers", Duration::from_secs(60), || {
        stream += 1;
        tunnel.call(stream, "local", "tools/call", echo.as_bytes());
        let answer = tunnel.answer_to(stream);
        answer.contains("still here").then_some(()).ok_or(answer)
    });

    assert!(agent.process.is_running());
    let grown = agent.process.peak_resident() - before;
    assert!(grown < 200 << 20, "{} MiB more", grown >> 20);
    let log = agent.process.log();
    assert!(log.matches("restart wanted").count() <= 6, "restarts have a limit");
    assert!(log.len() < 256 * 1024, "{} bytes of log", log.len());
    assert!(!agent.home.path().join("ran").exists());
    relay.learned_nothing(&agent);
}

#[test]
fn relay_that_never_reads_is_left_and_costs_little() {
    let relay = Evil::start();
    let mut agent = relay.agent("deaf");
    let (head, mut socket) = relay.dial();
    socket.write_all(switching(&head).as_bytes()).expect("the agent reads");
    let mut out = WebSocket::from_raw_socket(socket.try_clone().expect("a handle"), Role::Server, None);
    socket.set_write_timeout(Some(Duration::from_secs(5))).expect("sets");
    let before = agent.process.peak_resident();
    out.send(Message::binary(frame(HELLO, 0, b"{}"))).expect("the agent reads");
    let blob = json!({"name": "blob", "arguments": {"bytes": 30_000_000}}).to_string();
    for stream in 1..50_000_u32 {
        let mut bytes = open(stream, "local", "tools/call", blob.len() as u64);
        bytes.extend(frame(END, stream, blob.as_bytes()));
        // An agent that had enough has closed.
        if out.send(Message::binary(bytes)).is_err() {
            break;
        }
    }
    assert!(agent.process.is_running());
    assert_eq!(agent.pids().len(), 1, "its server runs");
    let grown = agent.process.peak_resident() - before;
    // What may wait to be sent, and one answer that is being read.
    assert!(grown < 400 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn garbage_ends_the_tunnel_and_nothing_else() {
    let relay = Evil::start();
    let agent = relay.agent("garbage");
    relay.tunnel().catalog_with("echo");
    let server = agent.pids()["local"];
    let deep = [b"{\"features\":".as_slice(), &b"[".repeat(200_000)].concat();
    let mut long = frame(DATA, 1, b"x");
    long[8] = 200;
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("unknown kind", frame(99, 0, b"")),
        ("kind zero", frame(0, 0, b"")),
        ("cut header", vec![PING, 0, 0]),
        ("longer than its message", long),
        ("second hello", frame(HELLO, 0, b"{}")),
        ("hello that nests", frame(HELLO, 0, &deep)),
        ("open on stream zero", frame(OPEN, 0, b"{}")),
        ("head without measure", open(1, &"x".repeat(400_000), &"y".repeat(400_000), 2)),
        ("open without a head", frame(OPEN, 1, b"")),
        ("open that is no JSON", frame(OPEN, 1, b"\xff\xfe")),
        ("data of nobody", frame(DATA, 9, b"x")),
        ("credit of nobody", frame(CREDIT, 9, &[255; 4])),
        ("short credit", frame(CREDIT, 9, &[1])),
        ("reset of nobody", frame(RESET, 9, &[1])),
        ("message of nobody", frame(MESSAGE, 9, b"\x01{}")),
        ("an agent's catalog", frame(CATALOG, 0, b"\x01{}")),
        ("an agent's answer", frame(ANSWER, 1, b"{}")),
        ("an agent's notice", frame(NOTICE, 0, b"\x01\0\0{}")),
        ("stream opened twice", [open(5, "local", "ping", 2), open(5, "local", "ping", 2)].concat()),
        ("params beyond their length", [open(5, "local", "ping", 1), frame(END, 5, b"{}")].concat()),
        ("too large", vec![200; 3 << 20]),
    ];
    for (what, bytes) in garbage {
        let tunnel = relay.tunnel_after(&agent);
        tunnel.send_raw(&bytes);
        eventually(&format!("{what}: the tunnel ends"), Duration::from_secs(10), || tunnel.has_ended());
        assert_eq!(agent.pids()["local"], server, "{what}");
    }
    for (what, message) in [
        ("text", Message::text("{}")),
        ("close with a strange code", Message::Close(None)),
        (
            "ping that is no frame",
            Message::Frame(tungstenite::protocol::frame::Frame::message(
                vec![1; 10],
                tungstenite::protocol::frame::coding::OpCode::Data(
                    tungstenite::protocol::frame::coding::Data::Reserved(5),
                ),
                true,
            )),
        ),
    ] {
        let tunnel = relay.tunnel_after(&agent);
        drop(tunnel.out.lock().expect("no writer panics").send(message));
        eventually(&format!("{what}: the tunnel ends"), Duration::from_secs(10), || tunnel.has_ended());
        assert_eq!(agent.pids()["local"], server, "{what}");
    }
    relay.learned_nothing(&agent);
}

#[test]
fn answers_to_the_handshake_that_are_none_keep_the_agent_trying() {
    let relay = Evil::start();
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    elsewhere.set_nonblocking(true).expect("sets");
    let other = elsewhere.local_addr().expect("bound");
    let mut agent = relay.agent("handshake");
    let before = agent.process.peak_resident();
    let answers: Vec<(&str, Vec<u8>, &str)> = vec![
        ("redirect", redirect(&format!("ws://{other}/ws")), "sign-in page"),
        ("redirect to a file", redirect("file:///etc/passwd"), "sign-in page"),
        ("page", http("200 OK", "Content-Type: text/html\r\n", "<html>Welcome to the hotel"), "sign-in page"),
        ("wrong key", switching("Sec-WebSocket-Key: bm90IHRoZSBrZXkgYXQgYWxs\r\n").into_bytes(), "cannot connect"),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n".repeat(1000), "cannot connect"),
        ("long words", http("500 No", "", &"word ".repeat(100_000)), "answered 500"),
        (
            "control characters",
            http("503 No", "Retry-After: 99999999999999999999\r\n", "\x1b[2Jcleared"),
            "answered 503",
        ),
        ("strange status", http("999 What", "", ""), "answered 999"),
    ];
    for (what, answer, words) in answers {
        let (_, mut socket) = relay.dial_after(&agent);
        drop(socket.write_all(&answer));
        drop(socket.shutdown(Shutdown::Write));
        let error = agent.last_error_with(words, what);
        assert!(!error.contains('\x1b') && error.len() < 1000, "{what}: {error}");
    }
    // Without an end: the head, then the body.
    for begin in ["HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let (_, mut socket) = relay.dial_after(&agent);
        drop(socket.write_all(begin.as_bytes()));
        let endless = "X-Header: 10000 and so on and so on\r\n".repeat(1000);
        let mut sent = 0;
        while sent < 200 << 20 && socket.write_all(endless.as_bytes()).is_ok() {
            sent += endless.len();
        }
        assert!(sent < 100 << 20, "{begin}: {sent} bytes were taken");
    }
    assert!(agent.process.is_running() && runs(agent.pids()["local"]));
    let grown = agent.process.peak_resident() - before;
    assert!(grown < 32 << 20, "{} MiB more", grown >> 20);
    assert!(elsewhere.accept().is_err(), "no redirect was followed");
    relay.learned_nothing(&agent);
}

#[test]
fn handshake_that_drips_is_given_up() {
    let relay = Evil::start();
    let agent = relay.agent("drip");
    let (_, mut socket) = relay.dial();
    drop(socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n"));
    let begun = Instant::now();
    while socket.write_all(b"X-A: b\r\n").is_ok() && begun.elapsed() < Duration::from_secs(40) {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    relay.tunnel().catalog_with("echo");
    assert!(agent.pids().contains_key("local"));
}

#[test]
fn browser_is_opened_with_the_relays_own_page_and_nothing_else() {
    let relay = Evil::start();
    let home = Scratch::new("hostile-browser");
    let opener = home.path().join("xdg-open");
    // Writes down what it was given, each argument on a line.
    let script = format!("#!/bin/sh\nfor word; do echo \"$word\" >> '{}/opened'; done\n", home.path().display());
    std::fs::write(&opener, script).expect("writes");
    std::fs::set_permissions(&opener, PermissionsExt::from_mode(0o755)).expect("is ours");
    let url = relay.url();
    let good = json!({
        "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "code_challenge_methods_supported": ["S256"],
    });
    let with = |key: &str, value: &str| {
        let mut document = good.clone();
        document[key] = json!(value);
        http("200 OK", "Content-Type: application/json\r\n", &document.to_string())
    };
    let authorization = "authorization_endpoint";
    let login = |answer: &[u8]| {
        let mut process = relay.login(&home);
        let (_, mut socket) = relay.dial();
        drop(socket.write_all(answer));
        drop(socket.shutdown(Shutdown::Write));
        process.wait();
        process.line("error:")
    };
    for (what, answer) in [
        ("script", with(authorization, "javascript:alert(1)")),
        ("file", with(authorization, "file:///etc/passwd")),
        ("option", with(authorization, "--help")),
        ("other scheme", with(authorization, "vscode://evil/run")),
        ("other host", with(authorization, "https://evil.example/authorize")),
        ("other port", with(authorization, "http://localhost:1/authorize")),
        ("shell", with(authorization, &format!("{url}/$(touch$IFS/tmp/x)"))),
        ("shell in the query", with(authorization, &format!("{url}/a?x=;touch%20ran;"))),
        ("shell's quotes", with(authorization, &format!("{url}/a?x=$(id)|sh&"))),
        ("another's tokens", with("token_endpoint", "https://evil.example/token")),
        ("another's issuer", with("issuer", "https://evil.example")),
        ("redirect", redirect(&format!("{url}/elsewhere"))),
        ("page", http("200 OK", "", "<html><script>location='x'</script>")),
        ("endless", http("200 OK", "", &format!("{{\"issuer\":\"{}\"", "x".repeat(30 << 20)))),
        ("nested", http("200 OK", "", &"[".repeat(200_000))),
    ] {
        let error = login(&answer);
        assert!(!home.path().join("opened").exists(), "{what}: {error}");
    }
    assert!(!home.path().join("ran").exists());

    // The honest page is opened, or nothing here could fail.
    let process = relay.login(&home);
    let (_, mut socket) = relay.dial();
    drop(socket.write_all(&with("issuer", &url)));
    let opened = eventually("the browser is opened", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(home.path().join("opened")).unwrap_or_default();
        if text.ends_with('\n') { Ok(text) } else { Err(process.log()) }
    });
    assert_eq!(opened.lines().count(), 1, "{opened}");
    assert!(opened.starts_with(&format!("{url}/authorize?response_type=code&")), "{opened}");
}

// --- the relay

/// Listens as a relay would; what it answers is the test's.
struct Evil {
    port: u16,
    dials: Receiver<(String, TcpStream)>,
    /// Everything that the agent said, WebSocket masks undone; heads without their `Authorization`.
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Evil {
    fn start() -> Self {
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

    fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// An agent with the demo's server, signed in with a token that nobody checks.
    fn agent(&self, name: &str) -> Agent {
        let home = Scratch::new(&format!("hostile-{name}"));
        std::fs::write(home.path().join("token"), TOKEN).expect("its home can be written");
        let server = json!({"command": [program(), "demo-server"], "env": {"PRIVATE": PRIVATE}});
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
    fn login(&self, home: &Scratch) -> Process {
        let config = json!({"mode": "agent", "relay": self.url(), "servers": {}});
        Process::start_with(home.path(), &config, &["login"], |command| {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("DISPLAY", ":0").env("PATH", format!("{}:{path}", home.path().display()));
        })
    }

    /// The next connection: its request's head, and the socket.
    fn dial(&self) -> (String, TcpStream) {
        self.dials.recv_timeout(Duration::from_secs(40)).expect("the agent dials")
    }

    /// The same, without waiting out the agent's backoff.
    fn dial_after(&self, agent: &Agent) -> (String, TcpStream) {
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            match self.dials.recv_timeout(Duration::from_millis(500)) {
                Ok(dial) => return dial,
                Err(_) => assert!(Instant::now() < end, "the agent dials"),
            }
            agent.nudge();
        }
    }

    fn tunnel(&self) -> Tunnel {
        Tunnel::accept(self.dial(), Arc::clone(&self.heard))
    }

    fn tunnel_after(&self, agent: &Agent) -> Tunnel {
        Tunnel::accept(self.dial_after(agent), Arc::clone(&self.heard))
    }

    /// Neither what the agent said nor its log holds a secret, but for the header that the token belongs into.
    fn learned_nothing(&self, agent: &Agent) {
        let heard = String::from_utf8_lossy(&self.heard.lock().expect("no reader panics")).into_owned();
        for canary in [TOKEN, AMBIENT, PRIVATE] {
            assert!(!heard.contains(canary), "the relay heard {canary}");
            assert!(!agent.process.log().contains(canary), "the log has {canary}");
        }
    }
}

/// An open tunnel, seen from the relay.
struct Tunnel {
    socket: TcpStream,
    out: Mutex<WebSocket<TcpStream>>,
    frames: Arc<Mutex<Vec<Frame>>>,
    ended: Arc<Mutex<bool>>,
}

impl Tunnel {
    fn accept((head, mut socket): (String, TcpStream), heard: Arc<Mutex<Vec<u8>>>) -> Self {
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
    fn send(&self, frames: &[u8]) {
        self.out.lock().expect("no writer panics").send(Message::binary(frames.to_vec())).expect("the agent reads");
    }

    /// Sends what may end the tunnel.
    fn send_raw(&self, bytes: &[u8]) {
        drop(self.out.lock().expect("no writer panics").send(Message::binary(bytes.to_vec())));
    }

    fn call(&self, stream: u32, server: &str, method: &str, params: &[u8]) {
        let mut bytes = open(stream, server, method, params.len() as u64);
        bytes.extend(frame(END, stream, params));
        self.send(&bytes);
    }

    /// Waits for a catalog that names `tool`.
    fn catalog_with(&self, tool: &str) {
        eventually("the catalog comes", Duration::from_secs(30), || {
            let frames = self.frames.lock().expect("no reader panics");
            let catalogs: Vec<_> = frames.iter().filter(|(kind, ..)| *kind == CATALOG).collect();
            let named =
                catalogs.iter().any(|(.., body)| String::from_utf8_lossy(body).contains(&format!("\"{tool}\"")));
            named.then_some(()).ok_or(format!("{} catalogs", catalogs.len()))
        });
    }

    /// Whatever ends that call.
    fn answer_to(&self, stream: u32) -> String {
        eventually("the call is answered", Duration::from_secs(30), || {
            let frames = self.frames.lock().expect("no reader panics");
            let own = frames.iter().filter(|(_, of, _)| *of == stream);
            let last = own.filter(|(kind, ..)| matches!(*kind, END | RESET)).map(|(.., body)| body).next_back();
            last.map(|body| String::from_utf8_lossy(body).into_owned()).ok_or("nothing yet".into())
        })
    }

    fn has_ended(&self) -> Result<(), String> {
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
trait Nudged {
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

fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a test's frame");
    [&[kind][..], &stream.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

fn open(stream: u32, server: &str, method: &str, length: u64) -> Vec<u8> {
    let head = json!({"server": server, "method": method, "session": "s", "length": length});
    frame(OPEN, stream, head.to_string().as_bytes())
}

/// Kind, stream, body.
type Frame = (u8, u32, Vec<u8>);

/// The frames of a message.
fn split(mut bytes: &[u8]) -> Vec<Frame> {
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

fn read_head(socket: &mut TcpStream) -> String {
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
fn switching(head: &str) -> String {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nMcp-Tunnel: 2\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn redirect(to: &str) -> Vec<u8> {
    http("302 Found", &format!("Location: {to}\r\n"), "")
}
