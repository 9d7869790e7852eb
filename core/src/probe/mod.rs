//! An MCP client that looks at any Streamable HTTP endpoint: it connects, signs in as the endpoint asks, and lists the
//! tools. It finds everything by itself, as the authorization chapter of MCP has it (2026-07-28, Authorization):
//!
//! ```text
//! endpoint ── 401, WWW-Authenticate ──► protected resource metadata (RFC 9728) ──► authorization server metadata
//!    ▲                                                                              (RFC 8414, OpenID Connect)
//!    └── token ◄── code, PKCE, iss ◄── browser ◄── a client id: given, or registered (RFC 7591) ◄──┘
//! ```
//!
//! Whoever means to go on asking there is given an [`Entry`](contract::Entry), and the tokens are given up after that.
//!
//! [`machine`] is driven; it shares the metadata's rules, the requests, the callback's and the tokens' with the agent's
//! own [`signin`](crate::signin). What it deliberately lacks: grants without a person, keys of its own (DPoP, JWTs), and
//! servers without metadata, which cannot promise PKCE.

pub mod contract;
pub mod machine;

mod challenge;
mod discovery;
mod entry;
mod registration;
mod session;

#[cfg(test)]
mod tests;
