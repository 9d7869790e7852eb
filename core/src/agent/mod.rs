//! The agent: local servers and their lives, the uplink to the relay, and the routing between them.
//!
//! [`machine`] is the driven machine; [`contract`] its events and actions; `uplink` decides when and how the relay is
//! dialled; `server` is the life of one local server and the MCP client that talks to it; `routing` knows which
//! call of which tunnel is which request of which server; `caller` is who a call is for, `wishes` what the sessions of
//! clients want to hear of servers.
//!
//! Between a call and its server stands `guard`: `policy` says what may be called, `pins` whether a tool is still the
//! one that was seen first, `approvals` are the calls that wait for a person, `audit` is what is noted of each. `veil`
//! keeps a server's secrets out of what is told about it. `bridge` is what a client of one era and a server of the other
//! would not understand of each other.

mod approvals;
mod audit;
mod bridge;
mod caller;
pub mod contract;
mod cx;
mod guard;
pub mod machine;
mod pins;
mod policy;
mod restraint;
mod routing;
mod server;
pub mod status;
#[cfg(test)]
mod tests;
mod tools;
mod uplink;
mod veil;
mod wishes;

pub use contract::Identity;
pub use machine::Agent;
pub use veil::Veil;
