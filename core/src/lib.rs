//! The pure protocol machines of mcp-local-tunnel.
//!
//! Nothing here performs IO, reads a clock, draws randomness, starts a thread, takes a lock or reads the
//! environment: every effect is a value that a driver carries out (an *action*), every completion is a value that a
//! driver brings back (an *event*). The contract between the two is [`host::Machine`].
//!
//! A module may use those above it in this list, never beside or below:
//!
//! | module | what lives there |
//! |---|---|
//! | [`time`], [`host`], [`timers`], [`entropy`], [`backoff`], [`limits`], [`id`], [`secret`], [`seal`], [`keyring`], [`names`], [`sse`] | what every machine is made of |
//! | [`rpc`] | the JSON-RPC 2.0 envelope over raw JSON |
//! | [`mcp`] | the Model Context Protocol's own words: methods, versions, errors |
//! | [`config`] | what the JSON says, and what the program uses |
//! | [`http`] | request heads, replies, fetches, forms, CORS, host and origin rules |
//! | [`tunnel`] | frames, the connection between relay and agent, dialect V1 |
//! | [`oidc`] | the relying party: provider discovery, login, ID-token rules |
//! | [`oauth`] | the authorization server |
//! | [`relay`] | gate, shard, rooms, calls |
//! | [`signin`] | the agent as an OAuth client |
//! | [`probe`] | a client of any MCP endpoint, with the agent's OAuth |
//! | [`bench`] | what a benchmark's calls come to |
//! | [`agent`] | local servers, uplink, routing |
//! | [`daemon`] | an agent's sessions, how long it outlives them, who owns its files |
//! | [`stub`] | the MCP server on stdio that an editor starts, and its way to the agent |
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod agent;
mod audit;
pub mod backoff;
pub mod bench;
pub mod config;
pub mod daemon;
pub mod entropy;
pub mod host;
pub mod http;
pub mod id;
pub mod keyring;
pub mod limits;
pub mod mcp;
pub mod names;
pub mod oauth;
pub mod oidc;
pub mod probe;
pub mod relay;
pub mod rpc;
pub mod seal;
pub mod secret;
pub mod signin;
pub mod sse;
pub mod stub;
#[cfg(test)]
mod table;
pub mod time;
pub mod timers;
pub mod tunnel;
