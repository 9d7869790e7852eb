//! What the relay says of itself to clients without a handshake (2026-07-28): the answer to `server/discover`, and the
//! members that its own results have in that revision.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use super::capabilities;
use super::initialize::{self, OWN_INFO};
use super::modern::supported;
use super::offer::Offer;
use crate::limits;
use crate::mcp::{Version, key};
use crate::rpc::{RawId, envelope, quoted};

/// For `/mcp`: the relay itself, with the servers' instructions under their names.
pub(super) fn aggregated(servers: &[(&Arc<str>, &Offer)]) -> Bytes {
    let capabilities = capabilities::united(servers.iter().map(|(_, server)| *server), Version::V2026_07_28);
    result(&capabilities, Some(&initialize::instructions(servers)))
}

/// For an endpoint of one server whose agent cannot be asked.
pub(super) fn transparent(server: &Offer) -> Bytes {
    result(initialize::capabilities(server), server.instructions.as_deref())
}

fn result(capabilities: &str, instructions: Option<&str>) -> Bytes {
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", quoted(text))).unwrap_or_default();
    let versions = supported();
    Bytes::from(format!(r#"{{"supportedVersions":{versions},"capabilities":{capabilities}{instructions}}}"#))
}

/// Whether a client may keep a result for a while (2026-07-28, Caching).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is what happened, and has no place in a cache.
    No,
    /// It is what there is: for this user's clients alone.
    Lists,
}

/// What goes before and after a result of the relay's own, of which the opening brace is left out. It has members.
/// `server`: the raw `serverInfo` of the server that it speaks for, if it is one.
pub(super) fn around(id: &RawId, keep: Keep, server: Option<&str>) -> (Bytes, Bytes) {
    let (before, after) = envelope::around_result(id);
    (Bytes::from([&before[..], members(keep, server).as_bytes()].concat()), after)
}

fn members(keep: Keep, server: Option<&str>) -> String {
    let kept = match keep {
        Keep::No => String::new(),
        Keep::Lists => format!(r#""ttlMs":{},"cacheScope":"private","#, limits::LIST_TTL.as_millis()),
    };
    let info = server.unwrap_or(OWN_INFO);
    format!(r#"{{"resultType":"complete",{kept}"_meta":{{"{}":{info}}},"#, key::SERVER_INFO)
}
