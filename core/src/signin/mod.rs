//! The agent as an OAuth client of its relay: token cache, refresh, browser login.
//!
//! [`machine`] decides when to do what; [`contract`] is what goes in and out of it. The rest are the documents that it
//! reads and writes: the relay's metadata, requests to its endpoints, the token file, the page for the browser. What of
//! them is not the agent's alone, [`probe`](crate::probe) uses for any server.

pub mod contract;
pub mod machine;
pub mod predecessor;

pub(crate) mod callback;
pub(crate) mod metadata;
pub(crate) mod request;
pub(crate) mod tokens;

#[cfg(test)]
mod tests;
