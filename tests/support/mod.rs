//! What the black-box tests share: the built program as real processes, and a plain HTTP client over a real socket.
#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub mod browser;
pub mod oauth;
#[cfg(target_os = "linux")]
pub mod scripted;
pub mod secure;

/// The password of every user of the tests' relays, and its argon2 hash (with small parameters: tests are many).
pub const PASSWORD: &str = "correct horse battery staple";
pub const PASSWORD_HASH: &str = include_str!("password.phc");

/// The built program; `TUNNEL_BIN` names another build of it.
pub fn program() -> PathBuf {
    std::env::var_os("TUNNEL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_mcp-local-tunnel").into(), PathBuf::from)
}

/// Says that a test is skipped: past the test runner, which keeps what a passing test prints to itself.
pub fn skip(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").expect("stderr is there");
}

/// Runs the program to its end with `config`, `home` as its home directory.
pub fn run(home: &Path, config: &Value, args: &[&str]) -> Output {
    command(home, config, args).output().expect("the program runs")
}

fn command(home: &Path, config: &Value, args: &[&str]) -> Command {
    command_of(&program(), home, config, args)
}

/// Another build of the program, with that home directory and configuration.
pub fn command_of(program: &Path, home: &Path, config: &Value, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env_remove("STATE_DIRECTORY")
        .env("MCP_LOCAL_TUNNEL_CONFIG", config.to_string())
        .current_dir(home);
    command
}

/// A directory of its own that goes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        // Never the place of another value, not even of one of that name that is being removed.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mcp-local-tunnel-{}-{nth}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The program as a process that goes on; it ends with the value.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn start(home: &Path, config: &Value, args: &[&str]) -> Self {
        Self::start_with(home, config, args, |_| ())
    }

    /// The same, with whatever else is to be said of the command.
    pub fn start_with(home: &Path, config: &Value, args: &[&str], adjust: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(home, config, args);
        adjust(&mut command);
        Self::of(command)
    }

    /// What that command starts.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, into) = (child.stderr.take().expect("it is piped"), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                into.lock().expect("no reader panics").push(line);
            }
        });
        Self { child, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.lines.lock().expect("no writer panics").join("\n")
    }

    /// Waits for a line of the log that holds `text`.
    pub fn line(&self, text: &str) -> String {
        eventually(&format!("{text:?} in the log"), Duration::from_secs(20), || {
            let lines = self.lines.lock().expect("no writer panics");
            lines.iter().find(|line| line.contains(text)).cloned().ok_or_else(|| lines.join("\n"))
        })
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// SIGTERM, and the end of it.
    pub fn stop(&mut self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        drop(self.child.wait());
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("the process is ours").code()
    }

    /// The most memory that the process ever had resident, in bytes.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that the process has resident, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(what)).expect("Linux tells it");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("in KiB");
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed shows what the program had to say.
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.pid(), self.log());
        }
        self.kill();
    }
}

/// A relay with the embedded login and a port of its own, and a home directory for it.
pub struct Relay {
    pub home: Scratch,
    pub config: Value,
    pub port: u16,
    pub process: Process,
}

impl Relay {
    pub fn start(name: &str) -> Self {
        Self::with(name, &json!({}))
    }

    /// The same, with `more` settings.
    pub fn with(name: &str, more: &Value) -> Self {
        let home = Scratch::new(name);
        let port = free_port();
        let users: Vec<_> =
            ["ada", "eve"].iter().map(|name| json!({"name": name, "passwordHash": PASSWORD_HASH.trim()})).collect();
        let mut config =
            json!({"mode": "relay", "host": "127.0.0.1", "port": port, "auth": {"local": {"users": users}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let process = Process::start(home.path(), &config, &[]);
        let relay = Self { home, config, port, process };
        relay.ready();
        relay
    }

    pub fn ready(&self) {
        eventually("the relay is ready", Duration::from_secs(20), || {
            let reply = self.try_http("GET", "/readyz", &[], b"").map_err(|error| error.to_string())?;
            (reply.status == 200).then_some(()).ok_or(format!("{reply:?}\n{}", self.process.log()))
        });
    }

    /// SIGKILL, then the same again on the same port and directory.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = Process::start(self.home.path(), &self.config, &[]);
        self.ready();
    }

    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Mints a token with the operator's command.
    pub fn mint(&self, user: &str, role: &str) -> String {
        let output = run(self.home.path(), &self.config, &["token", "create", user, "--role", role, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        answer["token"].as_str().unwrap_or_else(|| panic!("a token: {answer}")).to_owned()
    }

    /// An agent with these servers, signed in with a minted token.
    pub fn agent(&self, device: &str, servers: &Value) -> Agent {
        self.agent_with(device, servers, &json!({}))
    }

    /// The same, with `more` settings.
    pub fn agent_with(&self, device: &str, servers: &Value, more: &Value) -> Agent {
        let token = self.mint("ada", "agent");
        let home = Scratch::new(&format!("{}-{device}", self.port));
        std::fs::write(home.path().join("token"), token).expect("its home can be written");
        let mut config = json!({
            "mode": "agent", "relay": self.url(), "name": device, "servers": servers,
            "token": format!("file:{}", home.path().join("token").display()),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let process = Process::start(home.path(), &config, &["agent"]);
        Agent { home, config, process }
    }

    pub fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_http(method, path, headers, body).expect("the relay answers")
    }

    /// Sends a body to an MCP endpoint as a client with that token does.
    pub fn post(&self, path: &str, token: &str, body: &[u8]) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        self.http("POST", path, &headers, body)
    }

    fn try_http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Reply> {
        let mut stream = self.send(method, path, headers, body)?;
        Reply::read(&mut stream)
    }

    /// Sends a request and leaves the answer to be read.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<BufReader<TcpStream>> {
        send(self.port, method, path, headers, body)
    }

    /// Where keys and records are.
    pub fn state_dir(&self) -> PathBuf {
        let relays = std::fs::read_dir(self.home.path().join("state/mcp-local-tunnel")).expect("the state is there");
        relays.flatten().next().expect("it is one relay's").path()
    }
}

/// Sends a request to a port of this machine and leaves the answer to be read.
pub fn send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let upgrades = headers.iter().any(|(name, _)| *name == "Upgrade");
    let connection = if upgrades { "Upgrade" } else { "close" };
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nConnection: {connection}\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: localhost:{port}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A relay may refuse a body before it was read whole; its answer is what counts then.
    drop(stream.write_all(body));
    Ok(BufReader::new(stream))
}

/// A running agent.
pub struct Agent {
    pub home: Scratch,
    pub config: Value,
    pub process: Process,
}

impl Agent {
    /// What its control socket says.
    pub fn status(&self) -> Value {
        let output = run(self.home.path(), &self.config, &["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("status: {output:?}\n{}", self.process.log()))
    }

    /// What a command with `--json` prints about it.
    pub fn command(&self, args: &[&str]) -> Value {
        let output = run(self.home.path(), &self.config, args);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{args:?}: {output:?}\n{}", self.process.log()))
    }

    /// Its servers' process ids, by name.
    pub fn pids(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let servers = status["servers"].as_array().unwrap_or_else(|| panic!("servers: {status}"));
        servers
            .iter()
            .filter_map(|server| Some((server["name"].as_str()?.to_owned(), server["pid"].as_u64()?)))
            .collect()
    }
}

/// An HTTP reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads a whole reply. One that is cut short is an error.
    pub fn read(stream: &mut impl BufRead) -> std::io::Result<Self> {
        let (status, headers) = Self::head(stream)?;
        let mut reply = Self { status, headers, body: Vec::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = read_chunk(stream)? {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.header("content-length").and_then(|text| text.parse().ok()) {
            reply.body.resize(length, 0);
            stream.read_exact(&mut reply.body)?;
        } else {
            stream.read_to_end(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Reads a reply's head alone.
    pub fn head(stream: &mut impl BufRead) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        let first = read_line(stream)?;
        let status = first.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(|| bad("no status line"))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(stream)?;
            let Some((name, value)) = line.split_once(':') else { return Ok((status, headers)) };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON-RPC messages in it, JSON or event stream alike.
    pub fn messages(&self) -> Vec<Value> {
        if self.header("content-type").is_some_and(|value| value.starts_with("text/event-stream")) {
            let text = self.text();
            let data =
                text.lines().filter_map(|line| line.strip_prefix("data:")).filter(|data| !data.trim().is_empty());
            return data.map(|data| serde_json::from_str(data).expect("data is JSON")).collect();
        }
        vec![self.json()]
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {} {}", self.status, self.text()))
    }
}

/// The next chunk of a chunked body; `None` at its end.
pub fn read_chunk(stream: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let size = read_line(stream)?;
    let size = usize::from_str_radix(size.trim(), 16)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the body is cut short"))?;
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

fn read_line(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// An MCP client over real sockets.
pub struct Client<'a> {
    relay: &'a Relay,
    token: String,
    session: Option<String>,
    next_id: u64,
}

impl<'a> Client<'a> {
    /// Signs in with a minted token and initializes a session.
    pub fn connect(relay: &'a Relay) -> Self {
        Self::with_token(relay, relay.mint("ada", "client"))
    }

    pub fn with_token(relay: &'a Relay, token: String) -> Self {
        let mut client = Self { relay, token, session: None, next_id: 1 };
        let reply = client.request(
            "initialize",
            &json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}),
        );
        client.session = reply.header("mcp-session-id").map(str::to_owned);
        assert!(client.session.is_some(), "{} {}", reply.status, reply.text());
        client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    /// The same token and session, beside this one or at a relay that was restarted.
    pub fn parts(&self) -> (String, Option<String>) {
        (self.token.clone(), self.session.clone())
    }

    pub fn resume(relay: &'a Relay, (token, session): (String, Option<String>)) -> Self {
        Self { relay, token, session, next_id: 1000 }
    }

    pub fn post(&self, message: &Value) -> Reply {
        Reply::read(&mut self.send(message)).expect("the relay answers")
    }

    /// Sends a message and leaves the answer to be read.
    pub fn send(&self, message: &Value) -> BufReader<TcpStream> {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        if let Some(session) = &self.session {
            headers.extend([("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2025-11-25")]);
        }
        self.relay.send("POST", "/mcp", &headers, message.to_string().as_bytes()).expect("the relay listens")
    }

    pub fn request(&mut self, method: &str, params: &Value) -> Reply {
        let id = self.next_id;
        self.next_id += 1;
        self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// Calls a tool and returns the whole JSON-RPC answer.
    pub fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let reply = self.request("tools/call", &json!({"name": tool, "arguments": arguments}));
        reply.messages().pop().unwrap_or_else(|| panic!("no answer: {reply:?}"))
    }

    pub fn tools(&mut self) -> Vec<String> {
        let answer = self.request("tools/list", &json!({})).json();
        let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("a list: {answer}"));
        tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until a tool is listed.
    pub fn until_listed(&mut self, tool: &str) {
        eventually(&format!("{tool} is listed"), Duration::from_secs(30), || {
            let tools = self.tools();
            tools.contains(&tool.to_owned()).then_some(()).ok_or(format!("{tools:?}"))
        });
    }
}

/// Asks again and again until it is so.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + within;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < end, "{what}: not within {within:?}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X'])))
}

/// Every process that descends from `root`, `root` left out.
pub fn descendants(root: u32) -> Vec<u64> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").expect("this is Linux").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![u64::from(root)];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, own)| **own == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// A port that nobody listens on, below those that the system gives to whoever connects (from 32768 on): one of these could
/// have it before it is used.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    let ports = std::iter::repeat_with(|| 20_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000);
    let mut ports = ports.take(12_000).map(|port| u16::try_from(port).expect("it is below 32 000"));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("loopback has ports")
}
