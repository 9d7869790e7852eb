//! Sockets, processes, timers and files for the machines of `tunnel_core`.
//!
//! An adapter translates: what happened becomes an event, what a machine orders is carried out. It decides nothing
//! that depends on the content of a protocol message (invariant A10).
//!
//! There are two, and what they have of their runtimes is in [`rt`] and [`stream`]. All other files, this one too, exist
//! once, in `runtime-tokio`; in `runtime-async-std` they are symbolic links. So nothing can be mended on one runtime and
//! forgotten on the other, and `diff -r runtime-tokio/src runtime-async-std/src` shows what a runtime is to this program.

pub mod agent;
mod ahead;
pub mod audit;
mod backlog;
pub mod body;
mod browser;
mod callback;
pub mod clock;
pub mod daemon;
mod descent;
mod driver;
pub mod entropy;
mod exchange;
pub mod fetch;
pub mod files;
pub mod guard;
pub mod http;
pub mod ipc;
pub mod keys;
mod lines;
pub mod log;
mod login_path;
pub mod net;
mod network;
mod patience;
pub mod places;
pub mod private;
pub mod process;
mod proxy;
pub mod queue;
mod refused;
pub mod relay;
pub mod rt;
mod seldom;
mod shelf;
pub mod signal;
pub mod signin;
mod stderr;
pub mod store;
mod strays;
pub mod stream;
pub mod stub;
#[cfg(test)]
mod testing;
mod tls;
pub mod ws;
