//! Header fields of the Streamable HTTP transport, in the lower case that HTTP libraries use.

/// The session (up to 2025-11-25).
pub const SESSION_ID: &str = "mcp-session-id";
/// The protocol version (from 2025-06-18).
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The body's method (2026-07-28).
pub const METHOD: &str = "mcp-method";
/// What the body's method is about: a tool, a prompt, a resource's URI, a task (2026-07-28).
pub const NAME: &str = "mcp-name";
/// Where a broken event stream goes on (2025-03-26 to 2025-11-25).
pub const LAST_EVENT_ID: &str = "last-event-id";
