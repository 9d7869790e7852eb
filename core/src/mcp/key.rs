//! Members of `_meta` that the protocol has names for (2026-07-28, Overview, `_meta`).

/// The protocol version that a request speaks.
pub const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// What the client of a request calls itself.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// What the client of a request can be asked for.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// What the server of a result calls itself.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// The id of the `subscriptions/listen` that a message belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// The task that a message is related to (2025-11-25, Tasks).
pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
