//! What the benchmark starts of itself as processes of their own.

pub(crate) mod direct;
pub(crate) mod floor;
pub(crate) mod hop;
pub(crate) mod server;
pub(crate) mod swarm;

/// Where a message of the server has its `id`: before the result, or behind it, as the TypeScript SDK writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IdAt {
    /// `{"jsonrpc":"2.0","id":1,"result":…}`
    First,
    /// `{"result":…,"jsonrpc":"2.0","id":1}`
    Last,
}
