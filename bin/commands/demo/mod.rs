//! `demo`: a relay, an agent and a server in one go, walked through as a client would.

mod http;
mod pages;
mod recipes;
pub(crate) mod server;
mod walk;
