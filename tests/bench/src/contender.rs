//! Who is measured, each with processes of its own and the same server behind it.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::load::{Connection, Reply, Target};
use crate::process::{Process, Scratch, free_port};
use crate::role::IdAt;

/// The hash of the password of the relay's one user, who never shows it: tokens are minted.
const PASSWORD_HASH: &str = include_str!("../../support/password.phc");
/// How long anything may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Room for clients' connections, beside those of a crowd.
const CLIENTS: usize = 200;

/// One implementation, running.
#[derive(Debug)]
pub(crate) struct Contender {
    /// What tables call it.
    pub(crate) name: String,
    /// Where it is called.
    pub(crate) target: Rc<Target>,
    /// What is before a tool's name.
    pub(crate) prefix: String,
    /// Its processes, by what they are.
    pub(crate) parts: Vec<(&'static str, Process)>,
    home: Scratch,
}

/// How a contender is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// How its server writes.
    pub(crate) id: IdAt,
    /// How many tools its server lists.
    pub(crate) tools: usize,
    /// How many servers of the kind there are, `bench` and `bench2`.
    pub(crate) servers: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { id: IdAt::First, tools: 10, servers: 1 }
    }
}

impl Setup {
    fn server(&self) -> io::Result<Vec<String>> {
        let id = if self.id == IdAt::First { "first" } else { "last" };
        let own = env::current_exe()?.to_string_lossy().into_owned();
        Ok(vec![
            own,
            "role".into(),
            "server".into(),
            "--id".into(),
            id.into(),
            "--tools".into(),
            self.tools.to_string(),
        ])
    }
}

impl Contender {
    /// The pid of one of its processes.
    pub(crate) fn pid(&self, part: &str) -> Option<u32> {
        self.parts.iter().find(|(name, _)| *name == part).map(|(_, process)| process.pid())
    }

    /// The answer out of hyper itself.
    pub(crate) async fn direct(setup: &Setup) -> io::Result<Self> {
        let port = free_port()?;
        let mut contender = Self::new("direct", port, "")?;
        let id = if setup.id == IdAt::First { "first" } else { "last" };
        let tools = setup.tools.to_string();
        contender.own("relay", &["direct", "--port", &port.to_string(), "--id", id, "--tools", &tools])?;
        contender.ready().await?;
        Ok(contender)
    }

    /// Two raw TCP hops before that.
    pub(crate) async fn hops(setup: &Setup) -> io::Result<Self> {
        let (port, middle, end) = (free_port()?, free_port()?, free_port()?);
        let mut contender = Self::new("two raw hops", port, "")?;
        let id = if setup.id == IdAt::First { "first" } else { "last" };
        let tools = setup.tools.to_string();
        contender.own("server", &["direct", "--port", &end.to_string(), "--id", id, "--tools", &tools])?;
        contender.own("agent", &["hop", "--port", &middle.to_string(), "--to", &end.to_string()])?;
        contender.own("relay", &["hop", "--port", &port.to_string(), "--to", &middle.to_string()])?;
        contender.ready().await?;
        Ok(contender)
    }

    /// The pair that only forwards.
    pub(crate) async fn floor(setup: &Setup) -> io::Result<Self> {
        let (port, tunnel) = (free_port()?, free_port()?);
        let mut contender = Self::new("floor", port, "")?;
        contender.own("relay", &["floor-relay", "--port", &port.to_string(), "--tunnel", &tunnel.to_string()])?;
        listening(tunnel).await?;
        let server = setup.server()?;
        let mut args = vec!["floor-agent", "--tunnel"];
        let tunnel = tunnel.to_string();
        args.extend([tunnel.as_str(), "--"]);
        args.extend(server.iter().map(String::as_str));
        contender.own("agent", &args)?;
        contender.ready().await?;
        Ok(contender)
    }

    /// The program: relay and agent, sign-in on, as they are by default.
    pub(crate) async fn tunnel(name: &str, program: &Path, setup: &Setup) -> io::Result<Self> {
        let mut contender = Self::relay(name, program).await?;
        let port = contender.target.port;
        let tunnel = Tunnel::new(program, port);
        let token = tunnel.mint(&contender.home, "ada", "agent")?;
        std::fs::write(contender.home.path().join("token"), token)?;
        contender.parts.push(("agent", tunnel.agent(&contender.home, setup)?));
        let bearer = tunnel.mint(&contender.home, "ada", "client")?;
        contender.target = signed_in(port, &bearer);
        contender.ready().await?;
        Ok(contender)
    }

    /// Its relay alone, to which nobody has connected.
    pub(crate) async fn relay(name: &str, program: &Path) -> io::Result<Self> {
        let port = free_port()?;
        let mut contender = Self::new(name, port, "bench__")?;
        contender.parts.push(("relay", Tunnel::new(program, port).relay(&contender.home)?));
        listening(port).await?;
        Ok(contender)
    }

    /// Starts its relay or agent again, after whatever has become of the one before.
    pub(crate) fn restart(&mut self, part: &'static str, program: &Path, setup: &Setup) -> io::Result<()> {
        let tunnel = Tunnel::new(program, self.target.port);
        let process = if part == "relay" { tunnel.relay(&self.home)? } else { tunnel.agent(&self.home, setup)? };
        self.parts.retain(|(name, _)| *name != part);
        self.parts.push((part, process));
        Ok(())
    }

    /// What a bridge from npm does of it: one process that starts the server and speaks HTTP.
    pub(crate) async fn bridge(name: &str, program: &Path, setup: &Setup) -> io::Result<Self> {
        let port = free_port()?;
        let mut contender = Self::new(name, port, "")?;
        let (server, port) = (setup.server()?, port.to_string());
        let mut command = Command::new(program);
        if name == "supergateway" {
            command.args(["--stdio", &server.join(" "), "--outputTransport", "streamableHttp", "--stateful"]);
            command.args(["--logLevel", "none", "--port", &port]);
        } else {
            command.args(["--port", &port, "--server", "stream", "--"]).args(server);
        }
        contender.start("relay", command)?;
        contender.ready().await?;
        Ok(contender)
    }

    /// `rathole` before a server of Streamable HTTP.
    pub(crate) async fn rathole(program: &Path, setup: &Setup) -> io::Result<Self> {
        let (port, control, end) = (free_port()?, free_port()?, free_port()?);
        let mut contender = Self::new("rathole", port, "")?;
        let id = if setup.id == IdAt::First { "first" } else { "last" };
        contender.own("server", &["direct", "--port", &end.to_string(), "--id", id])?;
        let relay = format!(
            "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"t\"\n[server.services.mcp]\nbind_addr = \"127.0.0.1:{port}\"\n"
        );
        let agent = format!(
            "[client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"t\"\n[client.services.mcp]\nlocal_addr = \"127.0.0.1:{end}\"\n"
        );
        for (part, flag, text) in [("relay", "--server", relay), ("agent", "--client", agent)] {
            let file = contender.home.path().join(format!("{part}.toml"));
            std::fs::write(&file, text)?;
            let mut command = Command::new(program);
            command.arg(flag).arg(file);
            contender.start(part, command)?;
        }
        contender.ready().await?;
        Ok(contender)
    }

    fn new(name: &str, port: u16, prefix: &str) -> io::Result<Self> {
        let target = Rc::new(Target { port, path: "/mcp".into(), headers: String::new() });
        let home = Scratch::new(&format!("{}-{port}", name.replace(' ', "-")))?;
        Ok(Self { name: name.into(), target, prefix: prefix.into(), parts: Vec::new(), home })
    }

    /// Starts a role of this program.
    fn own(&mut self, part: &'static str, args: &[&str]) -> io::Result<()> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("role").args(args);
        self.start(part, command)
    }

    fn start(&mut self, part: &'static str, mut command: Command) -> io::Result<()> {
        let log = self.home.path().join(format!("{part}.log"));
        self.parts.push((part, Process::start(&mut command, &log)?));
        Ok(())
    }

    /// Initializes a session, for the calls that follow, and waits until the tools are listed.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.begin().await {
            if Instant::now() > end {
                let logs = ["relay", "agent"].map(|part| {
                    std::fs::read_to_string(self.home.path().join(format!("{part}.log"))).unwrap_or_default()
                });
                return Err(io::Error::other(format!("{} does not start: {error}\n{}", self.name, logs.concat())));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn begin(&mut self) -> io::Result<()> {
        if !self.target.headers.contains("MCP-Protocol-Version") {
            self.target = session(&self.target).await?;
        }
        let mut connection = Connection::open(&self.target).await?;
        let reply = connection.ask(br#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#).await?;
        good(&reply)?;
        let name = format!("\"{}echo\"", self.prefix);
        match memchr::memmem::find(&reply.body, name.as_bytes()) {
            Some(_) => Ok(()),
            None => Err(io::Error::other("its tools are not listed")),
        }
    }
}

/// A target's session, begun.
async fn session(target: &Rc<Target>) -> io::Result<Rc<Target>> {
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}});
    let reply = Connection::open(target).await?.ask(hello.to_string().as_bytes()).await?;
    good(&reply)?;
    let mut target = Target::clone(target);
    target.headers.push_str("MCP-Protocol-Version: 2025-11-25\r\n");
    if let Some(session) = reply.session {
        target.headers.push_str(&format!("Mcp-Session-Id: {session}\r\n"));
    }
    let target = Rc::new(target);
    Connection::open(&target).await?.ask(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
    Ok(target)
}

/// A relay with many agents, all in one process: [`role::swarm`](crate::role::swarm).
pub(crate) struct Crowd {
    tunnel: Tunnel,
    home: Scratch,
    relay: Process,
    agents: Option<Process>,
    /// How many agents each person has.
    each: usize,
}

impl Crowd {
    /// A relay that may have so many agents, as many of them each person's.
    pub(crate) async fn new(program: &Path, agents: usize, each: usize) -> io::Result<Self> {
        let mut tunnel = Tunnel::new(program, free_port()?);
        tunnel.people = (0..agents.div_ceil(each)).map(|person| format!("person{person}")).collect();
        // Room for the clients and for those that come back while their last connection is not yet gone.
        tunnel.limits = json!({"connections": CLIENTS + 2 * agents});
        let home = Scratch::new(&format!("crowd-{}", tunnel.port))?;
        let relay = tunnel.relay(&home)?;
        listening(tunnel.port).await?;
        let tokens = tunnel.people.iter().map(|person| tunnel.mint(&home, person, "agent"));
        let tokens: Vec<_> = tokens.collect::<io::Result<_>>()?;
        std::fs::write(home.path().join("tokens"), tokens.join("\n"))?;
        Ok(Self { tunnel, home, relay, agents: None, each })
    }

    /// Starts the agents.
    pub(crate) fn gather(&mut self, agents: usize) -> io::Result<()> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["role", "swarm", "--port", &self.tunnel.port.to_string(), "--agents", &agents.to_string()]);
        command.args(["--each", &self.each.to_string(), "--tokens"]).arg(self.home.path().join("tokens"));
        self.agents = Some(Process::start(&mut command, &self.home.path().join("swarm.log"))?);
        Ok(())
    }

    /// Where each person's client calls.
    pub(crate) async fn clients(&self) -> io::Result<Vec<Rc<Target>>> {
        let mut clients = Vec::new();
        for person in &self.tunnel.people {
            let bearer = self.tunnel.mint(&self.home, person, "client")?;
            clients.push(session(&signed_in(self.tunnel.port, &bearer)).await?);
        }
        Ok(clients)
    }

    /// Waits until agents were up so often.
    pub(crate) async fn until_up(&self, count: usize) -> io::Result<()> {
        let end = Instant::now() + 4 * PATIENCE;
        while self.told("up")?.len() < count {
            if Instant::now() > end {
                let up = self.told("up")?.len();
                return Err(io::Error::other(format!("only {up} of {count} agents are connected")));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The relay's pid.
    pub(crate) fn relay(&self) -> u32 {
        self.relay.pid()
    }

    /// The relay is killed, and started again.
    pub(crate) async fn restart(&mut self) -> io::Result<()> {
        self.relay.kill();
        self.relay = self.tunnel.relay(&self.home)?;
        listening(self.tunnel.port).await
    }

    /// When agents were `up`, or had a `try`: each in microseconds since they were started, in order.
    pub(crate) fn told(&self, what: &str) -> io::Result<Vec<u64>> {
        let log = std::fs::read_to_string(self.home.path().join("swarm.log"))?;
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let times = whole.lines().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok());
        Ok(times.collect())
    }
}

/// Where a client with that token calls.
fn signed_in(port: u16, bearer: &str) -> Rc<Target> {
    Rc::new(Target { port, path: "/mcp".into(), headers: format!("Authorization: Bearer {bearer}\r\n") })
}

fn good(reply: &Reply) -> io::Result<()> {
    match reply.status {
        200 => Ok(()),
        status => Err(io::Error::other(format!("{status} {}", String::from_utf8_lossy(&reply.body)))),
    }
}

async fn listening(port: u16) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    // A look without connecting: the floor's relay takes whoever comes first for its agent.
    let line = format!("0100007F:{port:04X} 00000000:0000 0A");
    while !std::fs::read_to_string("/proc/net/tcp")?.contains(&line) {
        if Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The program's two roles, on a port.
struct Tunnel {
    program: PathBuf,
    port: u16,
    people: Vec<String>,
    limits: Value,
}

impl Tunnel {
    fn new(program: &Path, port: u16) -> Self {
        Self { program: program.to_owned(), port, people: vec!["ada".into()], limits: json!({}) }
    }

    fn relay(&self, home: &Scratch) -> io::Result<Process> {
        Process::start(&mut self.command(home, &self.relay_config(), &["relay"]), &home.path().join("relay.log"))
    }

    fn agent(&self, home: &Scratch, setup: &Setup) -> io::Result<Process> {
        let server = json!({"command": setup.server()?});
        let names = ["bench", "bench2"];
        let servers: serde_json::Map<_, _> =
            names.iter().take(setup.servers).map(|name| ((*name).to_owned(), server.clone())).collect();
        let config = json!({
            "mode": "agent", "relay": format!("http://localhost:{}", self.port), "name": "laptop", "servers": servers,
            "token": format!("file:{}", home.path().join("token").display()),
        });
        Process::start(&mut self.command(home, &config, &["agent"]), &home.path().join("agent.log"))
    }

    fn mint(&self, home: &Scratch, person: &str, role: &str) -> io::Result<String> {
        let args = ["token", "create", person, "--role", role, "--json"];
        let output = self.command(home, &self.relay_config(), &args).output()?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))?;
        answer["token"].as_str().map(str::to_owned).ok_or_else(|| io::Error::other("no token was made"))
    }

    fn relay_config(&self) -> Value {
        let user = |name: &String| json!({"name": name, "passwordHash": PASSWORD_HASH.trim()});
        json!({
            "mode": "relay", "host": "127.0.0.1", "port": self.port, "limits": self.limits,
            "auth": {"local": {"users": self.people.iter().map(user).collect::<Vec<_>>()}},
        })
    }

    fn command(&self, home: &Scratch, config: &Value, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("HOME", home.path()).env("XDG_STATE_HOME", home.path().join("state"));
        command
            .env_remove("STATE_DIRECTORY")
            .env("MCP_LOCAL_TUNNEL_CONFIG", config.to_string())
            .current_dir(home.path());
        command
    }
}
