//! What the program uses: every field checked, every default filled in.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::bounds::RelayLimits;
use super::policy::{AgentPolicy, AuditFile};
use super::tls::Tls;
use crate::secret::Secret;

/// A checked configuration.
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
#[derive(Debug, Clone)]
pub enum Config {
    /// `"mode": "relay"`.
    Relay(RelayConfig),
    /// `"mode": "agent"`.
    Agent(AgentConfig),
}

/// A relay's configuration.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// `auth`: how people sign in.
    pub login: Login,
    /// `host`: the address to listen on (default `0.0.0.0`).
    pub host: String,
    /// `port` (default 3000; 0 lets the system choose).
    pub port: u16,
    /// `issuerUrl`: the public URL without trailing slash; `None` when unset (see [`RelayConfig::url_at`]).
    pub public_url: Option<String>,
    /// `secret`: key material, any text. The first one seals, all of them open; none: keys are made and kept.
    pub secrets: Vec<Secret>,
    /// `stateDir`: where keys and token families are kept.
    pub state_dir: Option<String>,
    /// `clients` and `clientDocuments`: which MCP clients may sign people in.
    pub clients: Clients,
    /// `naming`: when tool names carry the device (default `auto`).
    pub naming: Naming,
    /// `legacy.tokenInQuery`: whether `/ws?token=` is taken (default no).
    pub token_in_query: bool,
    /// `allowedOrigins`: origins besides its own that may call `/mcp` from a browser.
    pub allowed_origins: Vec<String>,
    /// `trustedProxies`: addresses whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<super::Network>,
    /// `audit`: where a line about every sign-in, grant, tunnel and call goes; `None`: nowhere.
    pub audit: Option<AuditFile>,
    /// `tls`: how the relay ends TLS itself; `None`: it does not.
    pub tls: Option<Tls>,
    /// `limits`.
    pub limits: RelayLimits,
}

impl RelayConfig {
    /// The public URL of a relay that listens on `port`: `issuerUrl`, else this machine's own, with TLS or without.
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.public_url.clone().unwrap_or_else(|| alloc::format!("{scheme}://localhost:{port}"))
    }
}

/// Which MCP clients may sign people in, beside those that register themselves.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    /// `clients`: those that the operator vouches for.
    pub known: Vec<StaticClient>,
    /// `clientDocuments.allowLoopback`: whether a client's metadata document may lie on this machine, over `http` too
    /// (default no; for trying things out).
    pub loopback_documents: bool,
}

/// One client of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticClient {
    /// `id`.
    pub id: String,
    /// `name`: what people are shown.
    pub name: String,
    /// `redirectUris`: where codes may go; never empty.
    pub redirects: Vec<String>,
    /// `secret`: the secret itself, `env:NAME` or `file:/PATH`; none for a public client.
    pub secret: Option<Secret>,
}

/// How people sign in at a relay.
#[derive(Debug, Clone)]
pub enum Login {
    /// At an OpenID provider.
    Oidc(Oidc),
    /// At the relay itself.
    Local(Local),
}

/// An OpenID provider (`auth.issuer` and its fellows).
#[derive(Debug, Clone)]
pub struct Oidc {
    /// `auth.issuer`, exactly as the provider's discovery document must have it.
    pub issuer: String,
    /// `auth.clientId` (default `mcp-local-tunnel`).
    pub client_id: String,
    /// `auth.clientSecret`: the secret itself, `env:NAME` or `file:/PATH`; none for a public client.
    pub client_secret: Option<Secret>,
    /// `auth.scopes`, with `openid` among them; `None`: `openid`, and what `allow` and `user_claim` need.
    pub scopes: Option<Vec<String>>,
    /// `auth.userClaim` (default `sub`).
    pub user_claim: String,
    /// `auth.allow`: who may sign in: subjects, values of the user claim, verified e-mails, `@domain`, `group:name`;
    /// empty: everyone.
    pub allow: Vec<String>,
}

impl Oidc {
    /// Whether people are known, or let in, by an e-mail address.
    #[must_use]
    pub fn needs_email(&self) -> bool {
        let names_addresses = |entry: &String| entry.contains('@') && !entry.starts_with(GROUP);
        self.user_claim == "email" || self.allow.iter().any(names_addresses)
    }

    /// Whether people are let in by a group that they are in.
    #[must_use]
    pub fn needs_groups(&self) -> bool {
        self.allow.iter().any(|entry| entry.starts_with(GROUP))
    }
}

/// What an entry of `auth.allow` that names a group begins with.
pub(crate) const GROUP: &str = "group:";

/// The embedded login (`auth.local`).
#[derive(Debug, Clone)]
pub struct Local {
    /// `auth.local.users`.
    pub users: Vec<LocalUser>,
}

/// One user of the embedded login.
#[derive(Debug, Clone)]
pub struct LocalUser {
    /// `name`: 1 to 64 characters.
    pub name: String,
    /// `passwordHash`: an argon2 PHC string.
    pub password_hash: String,
}

/// When listed tool names carry the device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// When several devices are connected.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never, except for tools that two devices would share a name for.
    Never,
}

/// An agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// `relay`, normalised to `https://host[:port]` or `http://…`, without trailing slash.
    pub relay: String,
    /// `name`: the device's name; `None`: the host name.
    pub name: Option<String>,
    /// `servers` (or `mcpServers`), disabled ones left out.
    pub servers: BTreeMap<String, ServerConfig>,
    /// `token`: where a minted token comes from (`env:NAME`, `file:PATH`), instead of a sign-in.
    pub token: Option<String>,
    /// `caFile`: a PEM file of certificates that are trusted beside the system's.
    pub ca_file: Option<String>,
    /// What may be called: `policy`, `pins` and `audit`.
    pub policy: AgentPolicy,
}

/// One local server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// How it is reached.
    pub transport: Transport,
    /// `startTimeout`: how long it may take until it answers the first probe, in seconds (default 60).
    pub start_timeout_secs: u64,
    /// When it runs, what it may reach, and how it ends.
    pub life: Life,
}

/// When a local server runs, what it may reach, and how it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// `lazy`: whether it is started by its first call rather than with the agent.
    pub lazy: bool,
    /// `idleStop`: after how many seconds without a call it is stopped, until the next one; `None`: never.
    pub idle_stop_secs: Option<u64>,
    /// `restart`: when it is started again after it ended by itself.
    pub restart: RestartPolicy,
    /// `memoryLimit`: how many bytes its processes may occupy together; `None`: any number.
    pub memory_limit: Option<u64>,
    /// `callIdleTimeout`: how many seconds a call may go without any message of it; `None`: the relay's limit alone.
    pub call_idle_secs: Option<u64>,
    /// `isolation`: who shares it.
    pub isolation: Isolation,
    /// `era`: which revisions of the protocol it is spoken to with.
    pub era: EraChoice,
    /// `sandbox`: whether the agent's own files and the processes of others are out of its reach.
    pub sandbox: bool,
}

/// When a server that ended by itself is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    #[default]
    Always,
    /// Unless it ended with code 0.
    OnFailure,
    /// Only by a person.
    Never,
}

/// Who shares one run of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Everybody.
    #[default]
    Shared,
    /// Each session of a client has its own.
    Session,
}

/// Which revisions of the protocol a server is spoken to with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EraChoice {
    /// Those that it speaks: it is asked.
    #[default]
    Auto,
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on.
    Modern,
}

/// How a local server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A process that speaks on stdin and stdout.
    Stdio {
        /// `command` and `args` together; never empty.
        command: Vec<String>,
        /// `env`.
        env: BTreeMap<String, Secret>,
        /// `cwd`.
        cwd: Option<String>,
    },
    /// A Streamable HTTP endpoint.
    Http {
        /// `url`.
        url: String,
        /// `headers`.
        headers: BTreeMap<String, Secret>,
    },
}
