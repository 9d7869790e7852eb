//! What the control socket answers: JSON documents for `mcp-local-tunnel status` and for scripts.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::mcp::catalog::State;

/// The answer to [`ControlCommand::Status`](super::contract::ControlCommand::Status). It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The program's version.
    pub version: String,
    /// The device's name.
    pub device: String,
    /// What tells the device from another of that name.
    pub device_id: String,
    /// The uplink.
    pub relay: Relay,
    /// Why the configuration in use is not the one that stands in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// The local servers, by name.
    pub servers: Vec<Server>,
    /// Calls under way.
    pub calls: usize,
    /// Calls that wait for somebody's approval.
    #[serde(default)]
    pub waiting: usize,
    /// Tools that are not what was pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_tools: Vec<ChangedTool>,
    /// What keeps the agent from doing all it should.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// How long the agent has run, in seconds.
    pub uptime_secs: u64,
}

/// How the uplink is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// The relay's URL.
    pub url: String,
    /// How it stands.
    pub state: Uplink,
    /// How long it has stood so, in seconds.
    pub since_secs: u64,
    /// What is spoken, `V1` or `V2`; while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// The relay's version; while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The last round trip, in microseconds; while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_micros: Option<u64>,
    /// Attempts since it was last connected.
    pub attempts: u32,
    /// In how many milliseconds the next attempt comes; while waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_ms: Option<u64>,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The uplink's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uplink {
    /// A token is being got.
    SigningIn,
    /// The relay is being dialled.
    Connecting,
    /// The tunnel is up.
    Connected,
    /// The next attempt is waited for.
    Waiting,
    /// The relay said no; tried again on SIGHUP alone.
    Halted,
    /// The agent is ending.
    Closed,
}

/// One local server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its name in the configuration.
    pub name: String,
    /// How it is.
    pub state: State,
    /// For how long, in seconds.
    pub since_secs: u64,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How many tools it shows.
    pub tools: usize,
    /// How many more it has, which policy or pins hide.
    #[serde(default)]
    pub hidden: usize,
    /// Calls that it works on.
    pub calls: usize,
    /// How often it was started again after an unexpected end.
    pub restarts: u32,
    /// Unexpected ends in a row: several, and it is in a crash loop.
    #[serde(default)]
    pub failures: u32,
    /// In how many milliseconds it is started again; while that is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start_ms: Option<u64>,
    /// How many sessions have a run of it for themselves.
    #[serde(default)]
    pub sessions: usize,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to [`ControlCommand::Restart`](super::contract::ControlCommand::Restart).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Restarted {
    /// The servers that are being restarted, started or stopped.
    pub servers: Vec<String>,
    /// What went wrong: no such server, or a configuration that could not be read (then the old entries stay).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A tool that is not what was pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedTool {
    /// The server's name.
    pub server: String,
    /// The tool's name.
    pub tool: String,
    /// Whether it is so for clients of revisions with a handshake alone.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub legacy: bool,
    /// `changed`, `renamed` or `added`.
    pub change: String,
    /// What it was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether it is neither listed nor callable.
    pub held: bool,
    /// The pinned definition, if asked for and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The definition as it is now, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The answer to [`ControlCommand::Pins`](super::contract::ControlCommand::Pins).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// `off`, `warn` or `block`.
    pub mode: String,
    /// What is pinned.
    pub servers: Vec<PinnedServer>,
    /// What is not as it was pinned.
    pub changed: Vec<ChangedTool>,
}

/// The pins of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedServer {
    /// Its name.
    pub name: String,
    /// How many tools are pinned.
    pub tools: usize,
    /// Why they cannot be read or kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The answer to [`ControlCommand::PinsApprove`](super::contract::ControlCommand::PinsApprove).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The tools that are pinned as they are now.
    pub approved: Vec<ChangedTool>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer to [`ControlCommand::Approvals`](super::contract::ControlCommand::Approvals).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The calls that wait, the oldest first.
    pub waiting: Vec<WaitingCall>,
}

/// A call that waits for an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingCall {
    /// What names it in a decision.
    pub id: u64,
    /// What the client calls itself; empty: nothing.
    pub client: String,
    /// Who acts, as the relay knows them; empty: it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The server.
    pub server: String,
    /// The tool; of a call that is none, its method.
    pub tool: String,
    /// How long it has waited, in seconds.
    pub since_secs: u64,
    /// How long it waits on, in seconds.
    pub left_secs: u64,
    /// How large its params are.
    pub bytes: usize,
    /// Its params, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<String>,
}

/// The answer to [`ControlCommand::Approve`](super::contract::ControlCommand::Approve) and
/// [`ControlCommand::Deny`](super::contract::ControlCommand::Deny).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The calls that were decided: one, and those of the same client and tool that need no decision any more.
    pub decided: Vec<u64>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A document as JSON.
pub(super) fn json(document: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(document).expect("a document is made of strings, numbers and lists"))
}
