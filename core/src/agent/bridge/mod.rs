//! Between the eras: what a client of one era and a server of the other would not understand of each other, as pure
//! functions.
//!
//! [`meta`] is what each request of the modern era says of its client, [`discovery`] what a server says of itself,
//! [`results`] and [`errors`] are answers, [`questions`] is what a server wants to know of a client, [`state`] what a
//! modern client carries from one round of questions to the next, [`filters`] which changes it wants to hear of. Who
//! waits for what is the server's business (`agent/server`).

pub(super) mod discovery;
pub(super) mod errors;
pub(super) mod filters;
pub(super) mod meta;
pub(super) mod questions;
pub(super) mod results;
pub(super) mod state;

use serde::{Deserialize, Serialize};

use super::caller::Caller;

/// How a protocol's revisions begin: with a handshake, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on.
    Modern,
}

impl Caller {
    /// Which era it is of. An old relay does not say, and has legacy clients alone.
    pub(super) fn era(&self) -> Era {
        match self.version {
            Some(version) if !version.is_legacy() => Era::Modern,
            Some(_) | None => Era::Legacy,
        }
    }
}
