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

use super::caller::Caller;
pub(super) use crate::mcp::Era;
use crate::mcp::Version;
use crate::tunnel::OpenHead;

impl Caller {
    /// Which era the client of a call is of.
    pub(super) fn era_of(head: &OpenHead) -> Era {
        head.version.as_deref().and_then(Version::parse).map_or(Era::Legacy, Version::era)
    }

    /// Which era it is of. An old relay does not say, and has legacy clients alone.
    pub(super) fn era(&self) -> Era {
        self.version.map_or(Era::Legacy, Version::era)
    }
}
