//! The agent as an OAuth client of its relay: token cache, refresh, browser login.
//!
//! [`machine`] decides when to do what; [`contract`] is what goes in and out of it. The rest are the documents that it
//! reads and writes: the relay's metadata, requests to its endpoints, the token file, the page for the browser.

pub mod contract;
pub mod machine;
pub mod predecessor;

mod callback;
mod metadata;
mod request;
mod tokens;

#[cfg(test)]
mod tests;
