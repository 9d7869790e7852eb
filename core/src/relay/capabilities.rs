//! What `/mcp` can do: what any of its servers can, as far as it is passed on there.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::offer::Offer;
use crate::mcp::Version;
use crate::rpc::object::{self, Object};

/// The raw `capabilities` of the endpoint of all these servers.
///
/// That its lists change the relay says itself, so it says so of each. What a revision does not have is not declared to
/// its clients: tasks are a capability of their own up to 2025-11-25 (Tasks, Server Capabilities), and extensions there
/// are from 2026-07-28 on (`ServerCapabilities.extensions`), of which tasks are one then. A method of an extension that is
/// not known here would have no server to go to: of extensions those are united whose methods are.
pub(super) fn united<'a>(servers: impl IntoIterator<Item = &'a Offer>, version: Version) -> String {
    let servers: Vec<&Offer> = servers.into_iter().collect();
    let any = |path: &[&str]| servers.iter().any(|server| server.declares(path));
    let mut out = String::from(r#"{"tools":{"listChanged":true}"#);
    if any(&["prompts"]) {
        out += r#","prompts":{"listChanged":true}"#;
    }
    if any(&["resources"]) {
        let subscribe = if any(&["resources", "subscribe"]) { r#","subscribe":true"# } else { "" };
        out += &format!(r#","resources":{{"listChanged":true{subscribe}}}"#);
    }
    for (name, since) in [("completions", Version::V2025_03_26), ("logging", Version::V2024_11_05)] {
        if version >= since && any(&[name]) {
            out += &format!(r#","{name}":{{}}"#);
        }
    }
    if version == Version::V2025_11_25 && any(&["tasks"]) {
        let mut members = Vec::new();
        for (path, member) in TASKS {
            if any(path) {
                members.push(member);
            }
        }
        out += &format!(r#","tasks":{{{}}}"#, members.join(","));
    }
    let extensions: Vec<String> =
        extensions(&servers).into_iter().map(|(name, settings)| format!("\"{name}\":{settings}")).collect();
    if !version.is_legacy() && !extensions.is_empty() {
        out += &format!(r#","extensions":{{{}}}"#, extensions.join(","));
    }
    out + "}"
}

/// The raw settings of each extension that is passed on: those of the first server that has it.
fn extensions(servers: &[&Offer]) -> BTreeMap<&'static str, String> {
    let mut united = BTreeMap::new();
    for server in servers {
        let declared =
            server.capabilities.as_ref().and_then(|all| Object::parse(&object::get(all, "extensions")?).ok());
        for name in EXTENSIONS {
            let settings = declared.as_ref().and_then(|all| all.get(name)).filter(|raw| raw.starts_with(b"{"));
            let settings = settings.and_then(|raw| core::str::from_utf8(&raw).ok().map(ToString::to_string));
            if let Some(settings) = settings {
                united.entry(name).or_insert(settings);
            }
        }
    }
    united
}

impl Offer {
    /// Whether it declared a capability: an object, or `true`, at the end of this path.
    pub(super) fn declares(&self, path: &[&str]) -> bool {
        let declared = self.capabilities.as_ref().and_then(|all| object::find(all, path));
        declared.is_some_and(|raw| raw.starts_with(b"{") || raw == b"true")
    }

    /// Whether it has tasks, in either era's way.
    pub(super) fn has_tasks(&self) -> bool {
        self.declares(&["tasks"]) || self.declares(&["extensions", TASKS_EXTENSION])
    }
}

/// What a server says of its tasks (2025-11-25, Tasks, Server Capabilities).
const TASKS: [(&[&str], &str); 3] = [
    (&["tasks", "list"], r#""list":{}"#),
    (&["tasks", "cancel"], r#""cancel":{}"#),
    (&["tasks", "requests", "tools", "call"], r#""requests":{"tools":{"call":{}}}"#),
];

/// Tasks of the modern era.
pub(super) const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// Tasks are routed by their ids; apps and skills are resources.
const EXTENSIONS: [&str; 3] = [TASKS_EXTENSION, "io.modelcontextprotocol/ui", "io.modelcontextprotocol/skills"];
