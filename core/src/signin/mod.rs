//! The agent as an OAuth client of its relay: token cache, refresh, browser login.

pub mod machine;
