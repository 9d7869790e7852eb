//! The driver of `tests/threads`: core's machines on plain threads and blocking sockets, against real processes, real HTTP
//! and the program itself.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::{PASSWORD_HASH, Process, Reply, Scratch, eventually, free_port, program, read_chunk, send};
use tunnel_core::agent::machine::Event;
use tunnel_core::config::{self, Config};
use tunnel_core::entropy::Seeded;
use tunnel_core::id::{ClientId, FamilyId, UserId};
use tunnel_core::oauth::scopes::Scopes;
use tunnel_core::oauth::token::seal_access;
use tunnel_core::oauth::{Principal, Role, Snapshot};
use tunnel_core::relay::Settings;
use tunnel_core::seal::Sealer;
use tunnel_core::secret::Secret;
use tunnel_core::time::UnixTime;
use tunnel_threads::{run_agent, run_relay};

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// The address and the keys of a relay on threads, which its next run has again.
struct Place {
    port: u16,
    sealer: Sealer,
}

impl Place {
    fn new() -> Self {
        Self { port: free_port(), sealer: Sealer::new(vec![Sealer::generate(&mut Seeded::new(1))]) }
    }

    fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    fn relay(&self) -> Relay {
        let users = json!([{"name": "ada", "passwordHash": PASSWORD_HASH.trim()}]);
        let json = json!({"mode": "relay", "port": self.port, "auth": {"local": {"users": users}}});
        let Config::Relay(config) = parsed(&json) else { panic!("a relay's configuration") };
        let mut snapshot = Snapshot::new(self.sealer.clone());
        snapshot.families = BTreeSet::from([Role::Agent, Role::Client].map(family)).into();
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free");
        let (its, settings) =
            (listener.try_clone().expect("a descriptor is left"), Settings::from_config(&config, &self.url()));
        Relay(listener, Some(thread::spawn(move || run_relay(&its, settings, snapshot))))
    }

    fn token(&self, role: Role) -> Secret {
        let unix = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_secs();
        let expires = UnixTime::from_secs(unix + 600);
        let principal = Principal {
            user: UserId::new("ada"),
            client: ClientId::new("test"),
            actor: "test".into(),
            role,
            audience: format!("{}{}", self.url(), if role == Role::Agent { "/ws" } else { "/mcp" }),
            scopes: Scopes::all(role),
            family: family(role),
            expires,
            family_expires: expires,
        };
        seal_access(&self.sealer, &principal, &mut Seeded::new(2))
    }

    fn client(&self) -> Client {
        Client { port: self.port, token: self.token(Role::Client).expose().to_owned(), session: None, last_id: 0 }
    }
}

/// A relay on threads; it ends with the value.
struct Relay(TcpListener, Option<JoinHandle<()>>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.set_nonblocking(true).expect("it is a socket");
        // It waits for one more.
        drop(TcpStream::connect(self.0.local_addr().expect("it is bound")));
        self.1.take().expect("it ends once").join().expect("it ends well");
    }
}

/// An agent on threads; it ends with the value.
struct Agent(Sender<Event>, Option<JoinHandle<()>>);

impl Agent {
    fn start(relay: &str, servers: &Value, token: Secret) -> Self {
        let json = json!({"mode": "agent", "relay": relay, "name": "laptop", "servers": servers});
        let Config::Agent(config) = parsed(&json) else { panic!("an agent's configuration") };
        let (events, queue) = channel();
        let to_it = events.clone();
        Self(events, Some(thread::spawn(move || run_agent(config, token, &to_it, &queue))))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = (self.0.send(Event::Stop), self.1.take().map(JoinHandle::join));
        assert!(thread::panicking() || matches!(ended, (Ok(()), Some(Ok(())))), "it ends well");
    }
}

fn family(role: Role) -> FamilyId {
    FamilyId::new(if role == Role::Agent { "agents" } else { "clients" })
}

fn parsed(json: &Value) -> Config {
    config::parse(&json.to_string()).expect("the configuration is sound").config
}

/// A real server whose every start, and all that it hears, is written down in `dir`.
fn demo(dir: &Path) -> Value {
    let (dir, program) = (dir.display(), program().display().to_string());
    json!({"demo": {"command": ["sh", "-c", format!("echo $$ >>{dir}/pids; tee -a {dir}/heard | {program} demo-server")]}})
}

fn written(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// An MCP client on a plain socket; without a session it speaks as the era without them does.
struct Client {
    port: u16,
    token: String,
    session: Option<String>,
    last_id: u64,
}

impl Client {
    fn initialize(&mut self) {
        let hello =
            json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        let reply = self.read(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}), LEGACY);
        assert_eq!(reply.json()["result"]["protocolVersion"], LEGACY, "{reply:?}");
        self.session = reply.header("mcp-session-id").map(str::to_owned);
        assert_eq!(self.notify("notifications/initialized", &json!({})), 202);
    }

    fn notify(&self, method: &str, params: &Value) -> u16 {
        self.read(&json!({"jsonrpc": "2.0", "method": method, "params": params}), LEGACY).status
    }

    fn read(&self, message: &Value, version: &str) -> Reply {
        Reply::read(&mut self.send(message, version)).expect("the relay answers")
    }

    fn send(&self, message: &Value, version: &str) -> BufReader<TcpStream> {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("MCP-Protocol-Version", version),
            ("Mcp-Method", message["method"].as_str().expect("a method")),
        ];
        headers.extend(message["params"]["name"].as_str().map(|name| ("Mcp-Name", name)));
        headers.extend(self.session.as_deref().map(|session| ("Mcp-Session-Id", session)));
        send(self.port, "POST", "/mcp", &headers, message.to_string().as_bytes()).expect("the relay listens")
    }

    /// Sends a request and leaves the answer to be read.
    fn ask(&mut self, method: &str, mut params: Value) -> BufReader<TcpStream> {
        self.last_id += 1;
        let version = if self.session.is_some() { LEGACY } else { MODERN };
        if version == MODERN {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        self.send(&json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}), version)
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Reply {
        let params = json!({"name": tool, "arguments": arguments});
        Reply::read(&mut self.ask("tools/call", params)).expect("the answer is whole")
    }

    /// Asks until it is answered: a relay or a server comes back.
    fn echoes(&mut self) {
        eventually("echo answers", Duration::from_secs(30), || {
            let params = json!({"name": "demo__echo", "arguments": {"text": "hi"}});
            let reply = Reply::read(&mut self.ask("tools/call", params)).map_err(|error| error.to_string())?;
            let answer = reply.messages().pop().unwrap_or_default();
            if answer["result"]["content"][0]["text"] == "hi" { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// Starts a countdown of 20 seconds and waits for its first sign.
    fn count(&mut self) -> BufReader<TcpStream> {
        let arguments = json!({"from": 100, "pause_ms": 200});
        let params = json!({"name": "demo__countdown", "arguments": arguments, "_meta": {"progressToken": "t"}});
        let mut stream = self.ask("tools/call", params);
        let (status, headers) = Reply::head(&mut stream).expect("a head");
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{status} {headers:?}");
        while !next_piece(&mut stream).expect("the stream goes on").contains("99 to go") {}
        stream
    }
}

fn next_piece(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let chunk = read_chunk(stream).expect("the stream is not cut");
    chunk.map(|chunk| String::from_utf8(chunk).expect("an event stream is UTF-8"))
}

/// A relay, an agent and a client that are connected.
struct Stage {
    place: Place,
    relay: Option<Relay>,
    _agent: Agent,
    client: Client,
    dir: Scratch,
}

impl Stage {
    fn new(name: &str) -> Self {
        let (place, dir) = (Place::new(), Scratch::new(name));
        let relay = Some(place.relay());
        let agent = Agent::start(&place.url(), &demo(dir.path()), place.token(Role::Agent));
        let mut client = place.client();
        client.initialize();
        client.echoes();
        Self { place, relay, _agent: agent, client, dir }
    }

    fn starts(&self) -> usize {
        written(self.dir.path(), "pids").lines().count()
    }

    fn until_cancelled(&self, times: usize) {
        eventually("the server hears of it", Duration::from_secs(10), || {
            let heard = written(self.dir.path(), "heard");
            if heard.matches("notifications/cancelled").count() == times { Ok(()) } else { Err(heard) }
        });
    }
}

#[test]
fn clients_of_both_eras_list_and_call_tools() {
    let mut stage = Stage::new("threads-calls");
    let Stage { client, place, .. } = &mut stage;
    let list = Reply::read(&mut client.ask("tools/list", json!({}))).expect("a list").json();
    let tools: Vec<_> =
        list["result"]["tools"].as_array().expect("a list").iter().map(|it| it["name"].clone()).collect();
    for tool in ["demo__add", "demo__blob", "demo__countdown", "demo__echo", "status", "restart"] {
        assert!(tools.contains(&json!(tool)), "{list}");
    }
    let reply = client.call("demo__blob", &json!({"bytes": 3_000_000}));
    assert_eq!(reply.json()["result"]["content"][0]["text"].as_str().map(str::len), Some(3_000_000));
    let mut modern = place.client();
    let sum = modern.call("demo__add", &json!({"a": 2, "b": 3})).json();
    assert_eq!(
        (&sum["result"]["structuredContent"]["sum"], &sum["result"]["resultType"]),
        (&json!(5.0), &json!("complete"))
    );
    let refused = Client { token: place.token(Role::Agent).expose().to_owned(), ..place.client() };
    assert_eq!(refused.read(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), LEGACY).status, 403);
}

#[test]
fn progress_is_streamed_before_the_answer() {
    let mut stage = Stage::new("threads-progress");
    let arguments = json!({"from": 3, "pause_ms": 50});
    let params = json!({"name": "demo__countdown", "arguments": arguments, "_meta": {"progressToken": 7}});
    let reply = Reply::read(&mut stage.client.ask("tools/call", params)).expect("the stream is whole");
    let messages = reply.messages();
    let progress: Vec<_> = messages.iter().filter_map(|it| it["params"]["progress"].as_u64()).collect();
    assert_eq!(progress, [1, 2, 3]);
    assert_eq!(messages.last().expect("an answer")["result"]["content"][0]["text"], "liftoff");
}

#[test]
fn server_of_both_eras_speaks_its_clients_own() {
    let reference = Path::new(env!("CARGO_BIN_EXE_mcp-local-tunnel")).with_file_name("tunnel-reference");
    if !reference.is_file() {
        return support::skip("no tunnel-reference; `cargo build -p tunnel-reference` builds it");
    }
    let place = Place::new();
    let _relay = place.relay();
    let _agent = Agent::start(&place.url(), &json!({"both": {"command": reference}}), place.token(Role::Agent));
    let (mut legacy, mut modern) = (place.client(), place.client());
    legacy.initialize();
    for client in [&mut legacy, &mut modern] {
        eventually("it greets", Duration::from_secs(30), || {
            let answer = client.call("both__greet", &json!({"name": "Ada"})).json();
            let text = &answer["result"]["content"][0]["text"];
            if text == "Hello, Ada!" { Ok(()) } else { Err(answer.to_string()) }
        });
    }
}

#[test]
fn cancelled_call_ends_and_its_server_hears_of_it() {
    let mut stage = Stage::new("threads-cancel");
    let mut stream = stage.client.count();
    let request = json!({"requestId": stage.client.last_id});
    assert_eq!(stage.client.notify("notifications/cancelled", &request), 202);
    let rest: String = std::iter::from_fn(|| next_piece(&mut stream)).collect();
    assert!(!rest.contains("liftoff"), "{rest}");
    stage.until_cancelled(1);
    // In the era without sessions whoever goes away cancels.
    drop(stage.place.client().count());
    stage.until_cancelled(2);
    stage.client.echoes();
}

#[test]
fn agent_comes_back_to_a_relay_that_was_restarted() {
    let mut stage = Stage::new("threads-restart");
    let mut stream = stage.client.count();
    drop(stage.relay.take());
    let rest: String = std::iter::from_fn(|| next_piece(&mut stream)).collect();
    assert!(rest.contains("error") && !rest.contains("liftoff"), "the call is answered: {rest}");
    stage.relay = Some(stage.place.relay());
    stage.client.echoes();
    assert_eq!(stage.starts(), 1, "its server was left alone");
}

#[test]
fn server_that_was_killed_is_started_again() {
    let mut stage = Stage::new("threads-kill");
    let pid = written(stage.dir.path(), "pids").trim().parse().expect("its id");
    let pid = rustix::process::Pid::from_raw(pid).expect("it is not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    eventually("it is started again", Duration::from_secs(20), || {
        if stage.starts() == 2 { Ok(()) } else { Err(written(stage.dir.path(), "pids")) }
    });
    stage.client.echoes();
}

#[test]
fn agent_on_threads_works_with_the_programs_relay() {
    let (relay, dir) = (support::Relay::start("threads-relay"), Scratch::new("threads-at-relay"));
    let token = Secret::new(relay.mint("ada", "agent"));
    let _agent = Agent::start(&relay.url(), &demo(dir.path()), token);
    let mut client = support::Client::connect(&relay);
    client.until_listed("demo__echo");
    assert_eq!(client.call("demo__echo", &json!({"text": "hi"}))["result"]["content"][0]["text"], "hi");
}

#[test]
fn relay_on_threads_works_with_the_programs_agent() {
    let (place, home) = (Place::new(), Scratch::new("threads-agent"));
    let _relay = place.relay();
    let token = home.path().join("token");
    fs::write(&token, place.token(Role::Agent).expose()).expect("its home can be written");
    let config = json!({
        "mode": "agent", "relay": place.url(), "name": "laptop", "servers": demo(home.path()),
        "token": format!("file:{}", token.display()),
    });
    let _agent = Process::start(home.path(), &config, &["agent"]);
    let mut client = place.client();
    client.initialize();
    client.echoes();
}

/// The proof is a small one, or none: what other adapters have beside it is service, not protocol.
#[test]
fn driver_is_under_300_lines() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/threads/src");
    let files = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("an entry").path());
    let text: String = files.map(|path| fs::read_to_string(path).expect("a source is text")).collect();
    let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let lines = code.filter(|line| !line.starts_with("use ")).count();
    assert!((200..300).contains(&lines), "{lines} lines of code");
}
