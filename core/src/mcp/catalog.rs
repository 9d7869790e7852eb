//! What an agent tells its relay about its local servers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

/// A catalog, or what changed in it (frame `Catalog`, JSON).
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// Whether `servers` is all there is; otherwise each of them replaces the server of its name.
    pub whole: bool,
    /// Servers, with everything about each.
    pub servers: Vec<Server>,
    /// Names of servers that are gone (only when not `whole`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// What people should know of the device as a whole, as it is now: for people, at most 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// One local server.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its name in the agent's configuration.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Why it is not ready: for people, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The raw `serverInfo` that it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    /// The raw `capabilities` that it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Box<RawValue>>,
    /// The `instructions` that it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The protocol versions that it speaks, as far as is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Its tools, each the server's own JSON object.
    #[serde(default)]
    pub tools: Vec<Box<RawValue>>,
    /// Its prompts, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<Box<RawValue>>,
    /// Its resources, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Box<RawValue>>,
    /// Its resource templates, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<Box<RawValue>>,
    /// What clients of revisions with a handshake are told otherwise; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy: Option<Box<Legacy>>,
    /// How often it said that they changed.
    #[serde(default, skip_serializing_if = "Announced::is_none")]
    pub announced: Announced,
    /// The same of what it said to clients of revisions with a handshake; absent: it does not make a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_legacy: Option<Announced>,
    /// Tools that are not what its device pinned: at most [`MAX_CHANGED`](crate::limits::MAX_CHANGED).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
    /// Whether each session of a client has a run of it for itself, which may list something of its own.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub isolated: bool,
    /// How many seconds ago it came into its state.
    #[serde(default)]
    pub since_secs: u64,
    /// How often it was started again after an unexpected end.
    #[serde(default)]
    pub restarts: u32,
}

/// What a server that speaks both eras tells clients of revisions with a handshake (up to 2025-11-25), as far as it is
/// not what it tells the others. A member that is absent is the same.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Legacy {
    /// The raw `serverInfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    /// The raw `capabilities`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Box<RawValue>>,
    /// The `instructions`; empty: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Box<RawValue>>>,
    /// The prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<Box<RawValue>>>,
    /// The resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Box<RawValue>>>,
    /// The resource templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<Box<RawValue>>>,
}

/// How often a server said since its agent's start that a list of it changed, each after it was listed anew, whether that
/// brought something else or not. What it says in one moment counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Announced {
    /// Its tools.
    pub tools: u64,
    /// Its prompts.
    pub prompts: u64,
    /// Its resources, or their templates.
    pub resources: u64,
}

impl Announced {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A tool that is not what it was when its device first saw it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changed {
    /// Its name, for people: at most 160 bytes.
    pub tool: String,
    /// What became of it, for people, after its name: at most 1 KiB.
    pub change: String,
    /// Whether it is held back: neither listed nor callable.
    pub held: bool,
}

/// How a local server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its process is being started.
    Starting,
    /// It is asked what it can do.
    Probing,
    /// It takes calls.
    Ready,
    /// It is not running: its next call starts it.
    Asleep,
    /// It ended and will be started again.
    Restarting,
    /// It cannot be started without somebody's help.
    Failed,
    /// A state that a newer agent knows.
    #[serde(other)]
    Unknown,
}

/// Whether a tool's raw `annotations` say, without contradiction, that it only reads; what cannot be read says nothing.
#[must_use]
pub fn is_read_only(annotations: &[u8]) -> bool {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Annotations {
        read_only_hint: Option<bool>,
        destructive_hint: Option<bool>,
    }
    // serde would take an array for the members in their order.
    if !annotations.trim_ascii_start().starts_with(b"{") {
        return false;
    }
    let annotations: Annotations = serde_json::from_slice(annotations).unwrap_or_default();
    annotations.read_only_hint == Some(true) && annotations.destructive_hint != Some(true)
}
