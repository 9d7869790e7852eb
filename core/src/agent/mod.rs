//! The agent: local servers and their lives, the uplink to the relay, and the routing between them.

pub mod machine;

pub use machine::{Agent, Identity};
