//! The demo's stage: a relay on loopback with an embedded login, and an agent, in a directory that goes with them.

use std::fs::{self, DirBuilder};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};
use tunnel_core::config::{
    AgentConfig, Clients, Life, Local, LocalUser, Login, Naming, RelayConfig, RelayLimits, ServerConfig, Transport,
};
use tunnel_core::daemon::Kind;
use tunnel_core::entropy;
use tunnel_core::limits;
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::Person;

use crate::cli::DemoArgs;
use crate::commands::{agent, relay, secrets, token};
use crate::failure::Failure;
use crate::host;
use crate::host::agent::Options as AgentOptions;
use crate::host::entropy::OsEntropy;
use crate::host::relay::{Options as RelayOptions, Relay, RelayError};
use crate::host::rt::{self, JoinHandle};
use crate::host::signal::Asked;

/// The embedded login's only user.
pub(super) const USER: &str = "demo";

/// Everything that runs, and the directory that it keeps its files in.
pub(super) struct Stage {
    dir: Directory,
    password: Secret,
    public_url: String,
    relay: Task,
    agent: Task,
    ask_agent: mpsc::UnboundedSender<Asked>,
    stop_relay: oneshot::Sender<()>,
}

type Task = JoinHandle<Result<(), Failure>>;

impl Stage {
    /// Starts the relay, then the agent with a token minted for it.
    pub(super) async fn set(args: &DemoArgs) -> Result<Self, Failure> {
        let dir = Directory::new()?;
        let password = password();
        let config = relay_config(args.port, &password)?;
        let state_dir = dir.0.join("state");
        let bound = Relay::bind(RelayOptions { config: config.clone(), state_dir: Some(state_dir.clone()) }).await;
        let bound = bound.map_err(|error| match error {
            RelayError::Listen { .. } => Failure::Failed(format!("{error}; --port takes another")),
            error => relay::failed(&error),
        })?;
        let public_url = bound.public_url().to_owned();
        let (stop_relay, stopped) = oneshot::channel::<()>();
        let relay = rt::spawn(async move {
            bound.run(async { drop(stopped.await) }).await;
            Ok(())
        });
        let minted = mint(&config, &state_dir).await?;
        let (ask_agent, asked) = mpsc::unbounded_channel();
        let options = agent_options(args, &public_url, &dir.0, minted)?;
        let agent = rt::spawn(async move { agent::ended(host::agent::run(options, asked).await) });
        Ok(Self { dir, password, public_url, relay, agent, ask_agent, stop_relay })
    }

    /// The URL for MCP clients.
    pub(super) fn endpoint(&self) -> String {
        format!("{}/mcp", self.public_url)
    }

    /// The user's password.
    pub(super) fn password(&self) -> &Secret {
        &self.password
    }

    /// Ends all of it in good order and removes its files.
    pub(super) async fn clear(self) {
        let Self { dir, relay, agent, ask_agent, stop_relay, .. } = self;
        // Either may have ended already; then nobody listens.
        let _ = ask_agent.send(Asked::Stop);
        if let Ok(Err(failure)) = agent.await {
            tracing::warn!(reason = %failure, "the demo's agent did not end well");
        }
        let _ = stop_relay.send(());
        let _ = relay.await;
        drop(dir);
    }
}

/// A relay that only this machine can reach.
fn relay_config(port: u16, password: &Secret) -> Result<RelayConfig, Failure> {
    let user = LocalUser { name: USER.into(), password_hash: secrets::hash(password)? };
    Ok(RelayConfig {
        audit: None,
        login: Login::Local(Local { users: vec![user] }),
        host: Ipv4Addr::LOCALHOST.to_string(),
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
        limits: RelayLimits::default(),
    })
}

/// An agent with the built-in server, or the one that was given.
fn agent_options(args: &DemoArgs, relay: &str, dir: &Path, minted: Secret) -> Result<AgentOptions, Failure> {
    let (name, command) = if args.server.is_empty() {
        let program = std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("cannot tell this program's path: {error}")))?;
        let program = program
            .into_os_string()
            .into_string()
            .map_err(|_| Failure::Failed("this program's path is not UTF-8".into()))?;
        ("demo", vec![program, "demo-server".into()])
    } else {
        ("server", args.server.clone())
    };
    let transport = Transport::Stdio { command, env: Default::default(), cwd: None };
    let server = ServerConfig { transport, start_timeout_secs: super::walk::START_SECS, life: Life::default() };
    let config = AgentConfig {
        relay: relay.into(),
        name: None,
        servers: [(name.to_owned(), server)].into(),
        token: None,
        ca_file: None,
        policy: Default::default(),
    };
    let again = config.clone();
    Ok(AgentOptions {
        config,
        config_dir: dir.to_owned(),
        source: "demo".into(),
        token: Some(minted),
        person: Person::Absent,
        read_config: Box::new(move || Ok(again.clone())),
        guard: None,
        hidden: Vec::new(),
        kind: Kind::Foreground,
        grace: limits::DAEMON_GRACE,
    })
}

/// An agent's token for the user, asked of the running relay.
async fn mint(config: &RelayConfig, state_dir: &Path) -> Result<Secret, Failure> {
    let command = AdminCommand::TokenCreate {
        user: USER.into(),
        role: Role::Agent,
        scope: String::new(),
        label: "demo".into(),
        lifetime_secs: TOKEN_SECS,
    };
    let made: token::Created = token::read(relay::admin(config, state_dir, &command).await?)?;
    Ok(Secret::new(made.token))
}

/// A day: nobody's demo runs longer.
const TOKEN_SECS: u64 = 86_400;

/// Four groups of four letters and digits that are hard to confuse: some 79 bits.
fn password() -> Secret {
    const LETTERS: &str = "abcdefghjkmnpqrstuvwxyz23456789";
    let drawn = entropy::bytes::<16>(&mut OsEntropy::new());
    let letter = |byte: &u8| LETTERS.chars().nth(usize::from(*byte) % LETTERS.len());
    let groups: Vec<String> = drawn.chunks(4).map(|group| group.iter().filter_map(letter).collect()).collect();
    Secret::new(groups.join("-"))
}

/// A directory of its own, removed with this value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Failure> {
        let drawn = entropy::bytes::<4>(&mut OsEntropy::new());
        // Short: sockets lie in it, and a socket's path must fit 104 bytes on some systems.
        let name: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("mlt-demo-{name}");
        let path = std::env::temp_dir().join(name);
        // Not recursive: one that is there already is somebody else's.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Failure::Failed(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the demo's files stay");
        }
    }
}
