//! JSON-RPC error codes that MCP peers see.
//!
//! Our own are in -32000…-32019: revision 2026-07-28 reserves -32020…-32099 for the specification.

pub use crate::rpc::{INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};

/// The agent's tunnel went while the call was under way (clients know this number as "connection closed"). Whether the
/// call had its effect is unknown.
pub const AGENT_GONE: i64 = -32000;
/// Nothing was heard of the call for longer than its idle limit (clients know this number as "request timed out").
pub const TIMED_OUT: i64 = -32001;
/// A resource does not exist (up to 2025-11-25; later revisions use [`INVALID_PARAMS`]).
pub const RESOURCE_NOT_FOUND: i64 = -32002;
/// The local server is not running, is starting, or ended while the call was under way.
pub const SERVER_UNAVAILABLE: i64 = -32010;
/// The call was cancelled by its caller.
pub const CANCELLED: i64 = -32011;
/// A message is longer than allowed.
pub const TOO_LARGE: i64 = -32012;
/// Too many calls at once.
pub const OVERLOADED: i64 = -32013;
/// The agent's policy does not allow the call.
pub const REFUSED: i64 = -32014;
/// The name means more than one tool, server or device: a longer spelling is needed.
pub const AMBIGUOUS: i64 = -32015;
/// The caller stopped reading the answer for too long.
pub const STALLED: i64 = -32016;

/// A header is missing or does not match the body (2026-07-28; status 400).
pub const HEADER_MISMATCH: i64 = -32020;
/// The client lacks a capability that the request needs (2026-07-28; status 400).
pub const MISSING_CAPABILITY: i64 = -32021;
/// The protocol version is not supported (2026-07-28; status 400).
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// The person must visit a URL first (2025-11-25).
pub const URL_ELICITATION_REQUIRED: i64 = -32042;
