//! The simulated world: relays, agents, clients and local servers on simulated time, driven by one seed.
//!
//! Everything is the real thing but the sockets, processes, files and clocks: the relay is a [`Gate`], a `Grants` and a
//! `Shard`, tunnels are two `Connection`s with a [`link`] between them, local servers are [`script`]s. The same seed and
//! the same orders give the same world, event for event.
//!
//! [`Gate`]: tunnel_core::relay::gate::Gate

pub mod agent;
mod alarms;
pub mod browser;
pub mod client;
pub mod clock;
pub mod desk;
pub mod disk;
mod framing;
mod keeping;
pub mod link;
mod orders;
pub mod provider;
pub mod relay;
pub mod sabotage;
pub mod script;
pub mod seen;
mod shelf;
pub mod sim;
pub mod site;
pub mod trace;
mod world;

pub use client::{Client, Exchange, Outcome};
pub use link::Net;
pub use script::{Era, Pace, Script, Start};
pub use seen::Seen;
pub use world::{AgentKey, World};
