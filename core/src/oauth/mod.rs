//! The OAuth 2.1 authorization server: registration, consent, codes, token families, revocation.
//!
//! [`grants`] is the machine; [`snapshot`](Snapshot) is what the gate needs to check a token without it.

pub mod grants;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use crate::id::{ClientId, FamilyId, UserId};
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
    /// What it may open.
    pub role: Role,
    /// The resource that the token is for.
    pub audience: String,
    /// Granted scopes.
    pub scopes: BTreeSet<String>,
    /// The family it belongs to.
    pub family: FamilyId,
    /// When the token runs out.
    pub expires: UnixTime,
    /// When its family runs out: what a tunnel opened with it lives by.
    pub family_expires: UnixTime,
}

/// What the gate needs to know of what changed: small, immutable, replaced as a whole by
/// [`grants::Action::Publish`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Revoked families, until the last token of theirs has run out.
    pub revoked: BTreeMap<FamilyId, UnixTime>,
    /// Ended MCP sessions by key, until they would have expired.
    pub ended_sessions: BTreeMap<crate::relay::SessionKey, UnixTime>,
}
