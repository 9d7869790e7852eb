//! The simulated world: relays, agents, clients and local servers on simulated time, driven by one seed.
//!
//! Everything is the real thing but the sockets, processes, files and clocks: the relay is a [`Gate`], a `Grants` and a
//! `Shard`, tunnels are two `Connection`s with a [`link`] between them, local servers are [`script`]s. The same seed and
//! the same orders give the same world, event for event.
//!
//! [`Gate`]: tunnel_core::relay::gate::Gate

pub mod agent;
pub mod client;
pub mod link;
pub mod relay;
pub mod script;
mod world;

pub use client::{Client, Exchange, Outcome};
pub use script::{Era, Script, Start};
pub use world::{AgentKey, World};
