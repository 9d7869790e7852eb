//! Configuration: what the JSON says (`raw`), what it must say (`relay`, `agent`), what the program uses ([`checked`]).
//!
//! [`parse`] reports every problem at once, each with the path of the value and with what mends it. No problem's text
//! repeats a value: a value may be a secret.

mod address;
mod agent;
mod bounds;
pub mod checked;
mod clients;
mod json;
mod life;
mod nearest;
mod network;
pub mod policy;
mod problem;
mod proxy;
mod raw;
mod reference;
mod relay;
#[cfg(test)]
mod tests;
mod tls;

pub use bounds::RelayLimits;
pub(crate) use checked::GROUP;
pub use checked::{
    AgentConfig, Clients, Config, EraChoice, Isolation, Life, Local, LocalUser, Login, Naming, Oidc, RelayConfig,
    RestartPolicy, ServerConfig, StaticClient, Transport,
};
pub use network::{InvalidNetwork, Network};
pub use policy::{AgentPolicy, Approve, AuditFile, PinMode};
pub use problem::{Problem, Severity};
pub use proxy::{Proxies, Proxy, Route};
pub use reference::Reference;
pub use tls::{Acme, Tls};

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::MAX_CONFIG;
use json::Json;
use problem::Report;
use raw::{Node, Object};

/// Variables of its own environment that an agent passes to every child; nothing else of it is passed.
pub const BASE_ENVIRONMENT: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "TMPDIR",
    "TZ",
    "XDG_RUNTIME_DIR",
];

/// What the person who starts the program allows beyond the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `--allow-insecure`: a relay may be reached over plain `http` or `ws` although it is not on this machine.
    pub allow_insecure: bool,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What the program uses.
    pub config: Config,
    /// What does not hinder, but is probably not meant: unknown keys, settings without effect.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration with nothing allowed beyond it: see [`parse_with`].
///
/// # Errors
///
/// See [`parse_with`].
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    parse_with(text, Options::default())
}

/// Reads a configuration.
///
/// # Errors
///
/// Everything that is wrong with it, warnings included, in the order of the checks; at least one is an error.
pub fn parse_with(text: &str, options: Options) -> Result<Parsed, Vec<Problem>> {
    let mut report = Report::default();
    let config = document(text, &mut report).and_then(|json| mode(&Node::root(&json), options, &mut report));
    report.finish(config)
}

/// The mode that a configuration names, whatever else is wrong with it.
#[must_use]
pub fn named_mode(text: &str) -> Option<&'static str> {
    let ignored = &mut Report::default();
    let json = document(text, ignored)?;
    let top = Node::root(&json).object(ignored)?.get("mode")?.value.as_str()?;
    ["relay", "agent"].into_iter().find(|mode| *mode == top)
}

/// A relay's address as people write it (a bare host, or a `ws`, `wss`, `http` or `https` URL) as
/// `https://host[:port]` or `http://…`.
///
/// # Errors
///
/// What is wrong with it, to be read after the name of the setting.
pub fn relay_url(text: &str, options: Options) -> Result<String, &'static str> {
    address::relay(text, options.allow_insecure)
}

/// The text as JSON.
fn document(text: &str, report: &mut Report) -> Option<Json> {
    if text.len() > MAX_CONFIG {
        report.error("", alloc::format!("is longer than {MAX_CONFIG} bytes, which no configuration needs"));
        return None;
    }
    // Editors on Windows put a byte order mark before UTF-8; RFC 8259 section 8.1 lets a parser ignore it.
    match json::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(json) => Some(json),
        Err(message) => {
            report.error("", message);
            None
        }
    }
}

/// The whole document, by its `mode`. Without one the likelier mode is checked all the same, so that its problems show.
fn mode(root: &Node<'_>, options: Options, report: &mut Report) -> Option<Config> {
    let top = root.object(report)?;
    let named = top.get("mode");
    match named.as_ref().map(|node| (node, node.value.as_str())) {
        Some((_, Some("relay"))) => relay::check(&top, report).map(Config::Relay),
        Some((_, Some("agent"))) => agent::check(&top, options, report).map(Config::Agent),
        Some((node, _)) => {
            report.error(&node.path, "must be \"relay\" or \"agent\"");
            guess(&top, options, report)
        }
        None => {
            report.error("mode", "is missing: add \"mode\": \"relay\" (the public side) or \"mode\": \"agent\" (the machine with the servers)");
            guess(&top, options, report)
        }
    }
}

/// Checks what the document looks like; there is no configuration without a mode.
fn guess(top: &Object<'_>, options: Options, report: &mut Report) -> Option<Config> {
    if top.get("auth").is_some() {
        relay::check(top, report);
    } else if agent::KEYS.iter().any(|key| *key != "mode" && top.get(key).is_some()) {
        agent::check(top, options, report);
    }
    None
}
