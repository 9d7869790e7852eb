//! The tests' reference: an MCP server of both eras, over stdio or Streamable HTTP, that can do everything the official
//! conformance suite asks of a server, and what the scripted sessions of `tests/real` need beside it. It is no example
//! of a good server: it keeps everything, and trusts everybody on this machine.

mod call;
mod catalog;
mod http;
mod rpc;
mod server;
mod session;
mod stdio;
mod stream;
mod tasks;
mod tools;

use std::sync::Arc;

use clap::{Parser, ValueEnum};

use crate::server::Server;

/// Which revisions it speaks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
    /// The client decides.
    Both,
}

/// An MCP server for tests.
#[derive(Parser)]
struct Options {
    /// Listen on this port of loopback instead of stdio (0: any); the URL is the first line on stdout
    #[arg(long, value_name = "PORT")]
    http: Option<u16>,
    #[arg(long, value_enum, default_value = "both")]
    era: Era,
    /// How many entries a page of a list has; all without it
    #[arg(long, value_name = "ENTRIES")]
    page: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let server = Arc::new(Server::new(options.page.filter(|size| *size > 0)));
    match options.http {
        Some(port) => http::serve(server, options.era, port).await,
        None => stdio::serve(server, options.era).await,
    }
}
