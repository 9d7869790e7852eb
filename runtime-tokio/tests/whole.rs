//! Relay, agent and a local server with real sockets and processes, from a client's request to the server's answer.
//! This program plays the server and the guard too, so it has a `main` of its own.

#![expect(clippy::print_stdout, reason = "a test program of its own tells how it went")]

mod host;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tunnel_core::agent::machine::Exit;
use tunnel_core::config::{
    AgentConfig, Clients, Life, Local, LocalUser, Login, Naming, RelayConfig, RelayLimits, ServerConfig, Transport,
};
use tunnel_core::daemon::Kind;
use tunnel_core::http::fetch::{Fetch, Fetched};
use tunnel_core::http::reach::Reach;
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::Person;

use host::net::Connector;
use host::relay::{Options as RelayOptions, Relay, admin};
use host::rt::{self, JoinHandle};
use host::signal::Asked;
use host::{agent, fetch, guard, ipc};

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(role) if role == guard::SUBCOMMAND => guard::main(args),
        Some(role) if role == "server" => return server(),
        _ => {}
    }
    let dir = std::env::temp_dir().join(format!("tunnel-whole-test-{}", std::process::id()));
    rt::run(async {
        rt::timeout(Duration::from_secs(60), Box::pin(main_job(&dir))).await.expect("does not hang");
    })
    .expect("a runtime");
    let _ = std::fs::remove_dir_all(dir);
    println!("test main_job ... ok");
}

async fn main_job(dir: &Path) {
    let mut world = World::start(dir).await;

    // A tool is used on the device.
    let client = world.client().await;
    let tools = client.wait_for_tool("echo").await;
    assert!(tools.iter().any(|tool| tool == "status"), "{tools:?}");
    let answer = client.call("local__echo", json!({"text": "hello"})).await;
    assert_eq!(answer["result"]["content"][0]["text"], "hello", "{answer}");

    // A large result comes whole.
    let answer = client.call("local__large", json!({"bytes": 5_000_000})).await;
    assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(5_000_000));

    // A client that does not read its large result delays nobody else.
    let unread = client.call_without_reading("local__large", json!({"bytes": 20_000_000})).await;
    let begin = Instant::now();
    let answer = client.call("local__echo", json!({"text": "past it"})).await;
    assert_eq!(answer["result"]["content"][0]["text"], "past it", "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(unread);

    // The relay goes and comes back: same token, same server process.
    let pid = client.call("local__pid", json!({})).await["result"]["content"][0]["text"].clone();
    world.restart_relay().await;
    let client = world.client().await;
    client.wait_for_tool("pid").await;
    assert_eq!(client.call("local__pid", json!({})).await["result"]["content"][0]["text"], pid);

    // The control socket answers, for this person alone.
    let socket = agent::control_socket(&world.config_dir(), "test");
    let status = ipc::request(&socket, br#"{"command":"status"}"#).await.expect("an answer");
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    assert_eq!(status["servers"][0]["name"], "local", "{status}");

    // The agent ends in good order, and nothing of it is left.
    let pid: u32 = pid.as_str().and_then(|pid| pid.parse().ok()).expect("a process id");
    assert_eq!(world.stop_agent().await, Exit::Stopped);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!socket.exists());
    world.stop_relay().await;
}

/// A relay and an agent.
struct World {
    dir: PathBuf,
    relay: Option<RunningRelay>,
    tokens: [String; 2],
    port: u16,
    agent: JoinHandle<Exit>,
    signals: mpsc::UnboundedSender<Asked>,
}

struct RunningRelay {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl World {
    async fn start(dir: &Path) -> Self {
        let (relay, port) = start_relay(dir, 0).await;
        let config = relay_config(port);
        let mut tokens = [String::new(), String::new()];
        for (token, role) in tokens.iter_mut().zip([Role::Client, Role::Agent]) {
            let command = AdminCommand::TokenCreate {
                user: "ada".into(),
                role,
                scope: String::new(),
                label: "test".into(),
                lifetime_secs: 3600,
            };
            let answer = admin(&config, &dir.join("state"), &command).await.expect("the relay answers");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            *token = answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned();
        }
        let (signals, asked) = mpsc::unbounded_channel();
        let options = agent::Options {
            config: agent_config(port),
            config_dir: dir.join("config"),
            source: "test".into(),
            token: Some(Secret::new(tokens[1].clone())),
            person: Person::Absent,
            read_config: Box::new(move || Ok(agent_config(port))),
            guard: std::env::current_exe().ok(),
            hidden: Vec::new(),
            kind: Kind::Foreground,
            grace: Duration::ZERO,
        };
        let agent = rt::spawn(async move { agent::run(options, asked).await.expect("starts") });
        Self { dir: dir.to_owned(), relay: Some(relay), tokens, port, agent, signals }
    }

    fn config_dir(&self) -> PathBuf {
        self.dir.join("config")
    }

    async fn stop_relay(&mut self) {
        let relay = self.relay.take().expect("runs");
        relay.stop.send(()).expect("runs");
        relay.task.await.expect("ends well");
    }

    async fn restart_relay(&mut self) {
        self.stop_relay().await;
        self.relay = Some(start_relay(&self.dir, self.port).await.0);
    }

    async fn stop_agent(&mut self) -> Exit {
        self.signals.send(Asked::Stop).expect("runs");
        (&mut self.agent).await.expect("ends well")
    }

    async fn client(&self) -> Client {
        Client::connect(format!("http://localhost:{}/mcp", self.port), &self.tokens[0]).await
    }
}

async fn start_relay(dir: &Path, port: u16) -> (RunningRelay, u16) {
    let options = RelayOptions { config: relay_config(port), state_dir: Some(dir.join("state")) };
    let begin = Instant::now();
    let relay = loop {
        match Relay::bind(options.clone()).await {
            Ok(relay) => break relay,
            // The store of the one before is let go a moment after it.
            Err(error) if begin.elapsed() > Duration::from_secs(5) => panic!("{error}"),
            Err(_) => rt::sleep(Duration::from_millis(20)).await,
        }
    };
    let port = relay.local_addr().port();
    assert_eq!(relay.public_url(), format!("http://localhost:{port}"));
    let (stop, stopped) = oneshot::channel();
    let task = rt::spawn(relay.run(async {
        let _ = stopped.await;
    }));
    // The socket for operators follows a moment later.
    while ipc::request(&dir.join("state/admin.sock"), b"{}").await.is_err() {
        rt::sleep(Duration::from_millis(5)).await;
    }
    (RunningRelay { stop, task }, port)
}

fn relay_config(port: u16) -> RelayConfig {
    let user = LocalUser { name: "ada".into(), password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA".into() };
    RelayConfig {
        audit: None,
        login: Login::Local(Local { users: vec![user] }),
        host: "127.0.0.1".into(),
        port,
        public_url: None,
        secrets: Vec::new(),
        state_dir: None,
        clients: Clients::default(),
        naming: Naming::Auto,
        token_in_query: false,
        allowed_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        tls: None,
        limits: RelayLimits { call_idle: Duration::from_secs(60), ..RelayLimits::default() },
    }
}

fn agent_config(port: u16) -> AgentConfig {
    let me = std::env::current_exe().expect("a test knows its path");
    let transport = Transport::Stdio {
        command: vec![me.to_string_lossy().into_owned(), "server".into()],
        env: BTreeMap::new(),
        cwd: None,
    };
    let server = ServerConfig { transport, start_timeout_secs: 20, life: Life::default() };
    AgentConfig {
        relay: format!("http://localhost:{port}"),
        name: Some("device".into()),
        servers: BTreeMap::from([("local".into(), server)]),
        token: None,
        ca_file: None,
        policy: Default::default(),
    }
}

/// An MCP client of revision 2025-06-18.
struct Client {
    url: String,
    headers: HeaderMap,
    connector: Connector,
}

impl Client {
    async fn connect(url: String, token: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("ASCII"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let mut client = Self { url, headers, connector: Connector::new() };
        let answer = client
            .post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}))
            .await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let session = answer.headers.get("mcp-session-id").expect("a session").clone();
        client.headers.insert(HeaderName::from_static("mcp-session-id"), session);
        client.headers.insert(HeaderName::from_static("mcp-protocol-version"), HeaderValue::from_static("2025-06-18"));
        client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        client
    }

    async fn post(&self, message: &Value) -> Fetched {
        fetch::fetch(&self.connector, self.fetch(message)).await.expect("an answer")
    }

    async fn request(&self, method: &str, params: Value) -> Value {
        let answer = self.post(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let body = std::str::from_utf8(&answer.body).expect("UTF-8");
        // An event stream holds the answer as its last event.
        let json = body.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(body);
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Returns the open answer once its head is there.
    async fn call_without_reading(&self, tool: &str, arguments: Value) -> fetch::Response {
        let message = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        fetch::open(&self.connector, self.fetch(&message)).await.expect("a head")
    }

    fn fetch(&self, message: &Value) -> Fetch {
        Fetch {
            method: Method::POST,
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: Bytes::from(message.to_string()),
            timeout: Duration::from_secs(20),
            max_body: 64 * 1024 * 1024,
            reach: Reach::Anywhere,
        }
    }

    async fn wait_for_tool(&self, name: &str) -> Vec<String> {
        for _ in 0..500 {
            let answer = self.request("tools/list", json!({})).await;
            let tools = answer["result"]["tools"].as_array().cloned().unwrap_or_default();
            let names: Vec<String> = tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect();
            if names.iter().any(|tool| tool.ends_with(name)) {
                return names;
            }
            rt::sleep(Duration::from_millis(20)).await;
        }
        panic!("the tool {name} never came");
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await
    }
}

/// Plays a local MCP server with three tools on stdin and stdout.
fn server() {
    let tools = ["echo", "large", "pid"].map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.expect("UTF-8")).expect("JSON");
        let Some(id) = message.get("id") else { continue };
        let text = |text: String| json!({"content": [{"type": "text", "text": text}]});
        let arguments = &message["params"]["arguments"];
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": "test", "version": "1"}}),
            Some("tools/list") => json!({"tools": tools}),
            Some("tools/call") => match message["params"]["name"].as_str() {
                Some("echo") => text(arguments["text"].as_str().unwrap_or_default().into()),
                Some("large") => text("x".repeat(arguments["bytes"].as_u64().unwrap_or(0) as usize)),
                _ => text(std::process::id().to_string()),
            },
            Some("ping") => json!({}),
            _ => {
                let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "unknown"}});
                println!("{error}");
                continue;
            }
        };
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
        writeln!(std::io::stdout(), "{answer}").expect("is read");
    }
}
