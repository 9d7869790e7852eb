//! The agent: local servers and their lives, the uplink to the relay, and the routing between them.
//!
//! [`machine`] is the driven machine; [`contract`] its events and actions; `uplink` decides when and how the relay is
//! dialled; `server` is the life of one local server and the MCP client that talks to it; `routing` knows which
//! call of which tunnel is which request of which server. What a *tool* means is no business of this module.

pub mod contract;
mod cx;
pub mod machine;
mod restraint;
mod routing;
mod server;
pub mod status;
#[cfg(test)]
mod tests;
mod uplink;

pub use contract::Identity;
pub use machine::Agent;
