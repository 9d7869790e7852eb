//! The machines of `tunnel_core` on async-std: the same file names, exports and behaviour as on tokio.
//!
//! It holds the clock and the tunnel's pump so far; they prove that core is at home on another runtime.

pub mod clock;
pub mod queue;
pub mod ws;
