//! The OAuth 2.1 authorization server: registration, consent, codes, token families, revocation.
//!
//! [`grants`] is the machine; [`snapshot`](Snapshot) is what the gate needs to check a token without it, in
//! [`token::open_access`]. What needs no state at all ([`metadata`]) the gate answers by itself.

mod account;
mod admin;
mod audit;
mod authorize;
pub mod clients;
mod codes;
mod cookies;
mod device;
mod document;
mod documents;
mod ending;
mod error;
mod exchange;
mod families;
pub mod grants;
mod introspect;
mod keys;
mod login;
pub mod metadata;
pub mod pages;
mod places;
mod presence;
mod rates;
pub mod refusals;
mod request;
pub mod scopes;
mod spent;
mod store;
#[cfg(test)]
mod tests;
pub mod token;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use self::scopes::Scopes;
use crate::config;
use crate::http::text;
use crate::id::{ClientId, FamilyId, UserId};
use crate::seal::Sealer;
use crate::time::UnixTime;

/// Whose token it is: an MCP client's opens `/mcp`, an agent's opens `/ws`, never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An MCP client.
    Client,
    /// A device.
    Agent,
}

/// What a checked access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The person.
    pub user: UserId,
    /// The client that acts for them.
    pub client: ClientId,
    /// Who acts, told from all others: see [`actor`].
    pub actor: Arc<str>,
    /// What it may open.
    pub role: Role,
    /// The resource that the token is for.
    pub audience: String,
    /// What it may do there.
    pub scopes: Scopes,
    /// The family it belongs to.
    pub family: FamilyId,
    /// When the token runs out.
    pub expires: UnixTime,
    /// When its family runs out: what a tunnel opened with it lives by.
    pub family_expires: UnixTime,
}

/// Who acts with a token of `family`: the client, or the token that the operator made.
#[must_use]
pub fn actor(client: &ClientId, family: &FamilyId) -> Arc<str> {
    match client.as_str() {
        admin::CLIENT => format!("token {family}").into(),
        _ => client.shared(),
    }
}

/// What the gate needs to know of what is kept: small, immutable, replaced as a whole by
/// [`grants::Action::Publish`].
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What opens tokens and sessions, and seals new ones.
    pub sealer: Sealer,
    /// The families whose tokens open. What is not among them opens nothing, however good its seal: it was revoked, or
    /// the store that knew it is gone. Shared, so that a snapshot without news of families costs no copy of them.
    pub families: Arc<BTreeSet<FamilyId>>,
    /// Ended MCP sessions by key, until they would have expired.
    pub ended_sessions: BTreeMap<crate::relay::SessionKey, UnixTime>,
}

impl Snapshot {
    /// One that knows of no family, so that no token opens, and of no session that ended.
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self { sealer, families: Arc::default(), ended_sessions: BTreeMap::new() }
    }
}

/// What the authorization server is built from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public URL without trailing slash: the issuer, byte for byte, and what every other URL derives from.
    pub public_url: String,
    /// How people sign in.
    pub login: config::Login,
    /// Which clients may sign people in, beside those that register themselves.
    pub clients: config::Clients,
    /// Whether an audit is kept.
    pub audit: bool,
    /// `limits.requestsPerMinute`.
    pub requests_per_minute: u32,
}

impl Settings {
    /// The URL of `path` (with leading slash) on this relay.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public_url)
    }

    /// Whether people reach the relay over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.public_url.starts_with("https://")
    }
}

impl Role {
    /// The path on the relay that this role's tokens are for, unless a client asks for a path under it.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Client => "/mcp",
            Self::Agent => "/ws",
        }
    }
}
