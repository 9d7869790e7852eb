//! The relay's own tools on `/mcp`: `status` and `restart`. They are there with no agent connected too.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;

use super::catalog::{Dropped, printable};
use super::device::Device;
use super::failure::Failure;
use super::listing::Listing;
use crate::id::ConnId;
use crate::limits;
use crate::mcp::catalog::{Changed, State};
use crate::rpc::{self, object::Object};
use crate::time::Instant;
use crate::tunnel::Dialect;

/// Shows what is connected.
pub(super) const STATUS: &str = "status";
/// Restarts local servers.
pub(super) const RESTART: &str = "restart";
/// Both. No listed name of a device's tool equals one of them: those contain `__`.
pub(super) const NAMES: [&str; 2] = [STATUS, RESTART];

/// The tools' definitions, for `tools/list`.
pub(super) fn tools() -> Vec<Bytes> {
    [STATUS_TOOL, RESTART_TOOL].map(Bytes::from_static).to_vec()
}

/// The result of `status`.
pub(super) fn status(devices: &[&Device], listing: &Listing, now: Instant) -> Bytes {
    let names = listing.names_by_server();
    let devices: Vec<_> = devices.iter().map(|device| DeviceStatus::new(device, &names, now)).collect();
    let dropped = listing.dropped().map(DroppedStatus::new).collect();
    let status = Status { connected: !devices.is_empty(), devices, dropped };
    result(&status.text(), &status, false)
}

/// What `restart` orders and answers.
#[derive(Debug)]
pub(super) struct Restart {
    /// A restart for each: of that server, or of all of the connection's.
    pub(super) commands: Vec<(ConnId, Option<String>)>,
    /// The raw result.
    pub(super) result: Bytes,
}

/// Reads the arguments of `restart` and finds who is meant.
pub(super) fn restart(arguments: &Bytes, devices: &[&Device]) -> Result<Restart, Failure> {
    let arguments = Object::parse_or_empty(if arguments == "null" { &NO_ARGUMENTS } else { arguments })
        .map_err(|_| Failure::BadParams("arguments must be an object"))?;
    let text = |key, failure| match arguments.get(key).unwrap_or_default() {
        raw if raw.is_empty() || raw == "null" => Ok(None),
        raw => rpc::string(&raw).map(|text| Some(text.into_owned())).ok_or(Failure::BadParams(failure)),
    };
    let server = text("server", "arguments.server must be a server's name")?;
    let device = text("device", "arguments.device must be a device's name")?;
    let mut commands = Vec::new();
    let mut ordered = RestartStatus { restarting: BTreeSet::new(), devices: Vec::new() };
    let mut asked = Vec::new();
    for on in devices.iter().filter(|on| device.as_deref().is_none_or(|name| on.is_called(name))) {
        match &server {
            None => {
                commands.push((on.conn, None));
                ordered.restarting.extend(on.catalog.servers().map(|(name, _)| name.as_ref()));
                asked.push(format!("{} to restart all its servers", on.name));
            }
            Some(server) => {
                let Some((name, _)) = on.catalog.server(server) else { continue };
                commands.push((on.conn, Some(name.to_string())));
                ordered.restarting.insert(name.as_ref());
                asked.push(format!("{} to restart {name}", on.name));
            }
        }
        ordered.devices.push(on.name.as_str());
    }
    // An agent reads its configuration first, and may refuse it: only it knows how that goes.
    let result = if asked.is_empty() {
        result(&nothing_to_restart(device.as_deref(), server.as_deref(), devices), &ordered, true)
    } else {
        result(&format!("Asked {}. status shows how it went.", asked.join(", ")), &ordered, false)
    };
    Ok(Restart { commands, result })
}

/// A state in words.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Probing => "probing",
        State::Ready => "ready",
        State::Asleep => "asleep",
        State::Restarting => "restarting",
        State::Failed => "failed",
        State::Unknown => "in a state this relay does not know",
    }
}

fn nothing_to_restart(device: Option<&str>, server: Option<&str>, devices: &[&Device]) -> String {
    let shown = |name: Option<&str>| name.map(|name| printable(name, limits::MAX_LISTED_NAME)).unwrap_or_default();
    if devices.is_empty() {
        return "No device is connected.".to_string();
    }
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    if device.is_some_and(|name| !devices.iter().any(|on| on.is_called(name))) {
        return format!("No device {} is connected; there are: {}.", shown(device), names.join(", "));
    }
    let servers: Vec<_> = devices.iter().flat_map(|on| on.catalog.servers()).map(|(name, _)| name.as_ref()).collect();
    format!("There is no server {}; there are: {}.", shown(server), servers.join(", "))
}

/// A tool's result: the same in words and as data.
fn result(text: &str, data: &impl Serialize, is_error: bool) -> Bytes {
    let result = ToolResult { content: [Text { kind: "text", text }], structured_content: data, is_error };
    Bytes::from(serde_json::to_vec(&result).expect("strings, numbers and lists always serialise"))
}

impl Status<'_> {
    fn text(&self) -> String {
        if self.devices.is_empty() {
            return "No device is connected. Start the agent on a device: mcp-local-tunnel agent".to_string();
        }
        let mut text = String::new();
        for device in &self.devices {
            let round_trip = device.round_trip_ms.map(|ms| format!(", round trip {ms} ms")).unwrap_or_default();
            text += &format!("{}: connected for {}{round_trip}\n", device.name, span(device.uptime_seconds));
            for server in &device.servers {
                let reason = server.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                text += &format!("  {}: {}{reason}, {} tools\n", server.name, server.state, server.tools.len());
                for dropped in &server.dropped {
                    text += &format!("    left out: {}: {}\n", dropped.tool, dropped.reason);
                }
                for Changed { tool, change, held } in server.changed {
                    let held = if *held { "held back" } else { "not what was pinned" };
                    text += &format!("    {held}: {tool}: {change}\n");
                }
            }
            for note in [device.remark, device.fault].into_iter().flatten() {
                text += &format!("  {note}\n");
            }
        }
        text
    }
}

impl<'a> DeviceStatus<'a> {
    fn new(device: &'a Device, names: &BTreeMap<(ConnId, &str), Vec<&'a str>>, now: Instant) -> Self {
        let servers = device.catalog.servers().map(|(name, server)| ServerStatus {
            name,
            state: state(server.state),
            reason: server.reason.as_deref(),
            since_seconds: now.saturating_since(server.since).as_secs(),
            restarts: server.restarts,
            tools: names.get(&(device.conn, name.as_ref())).cloned().unwrap_or_default(),
            dropped: server.dropped.iter().map(DroppedStatus::new).collect(),
            changed: &server.changed,
        });
        Self {
            name: device.name.as_str(),
            uptime_seconds: now.saturating_since(device.since).as_secs(),
            round_trip_ms: device.round_trip_micros.map(|micros| micros / 1000),
            dialect: match device.dialect {
                Dialect::V1 => "v1",
                Dialect::V2 => "v2",
            },
            version: device.hello.as_ref().map(|hello| printable(&hello.version, 64)).filter(|text| !text.is_empty()),
            os: device.hello.as_ref().map(|hello| printable(&hello.os, 64)).filter(|text| !text.is_empty()),
            remark: device.catalog.remark(),
            fault: device.catalog.fault(),
            servers: servers.collect(),
        }
    }
}

impl<'a> DroppedStatus<'a> {
    fn new(dropped: &'a Dropped) -> Self {
        Self { tool: &dropped.name, reason: dropped.why }
    }
}

/// Seconds in the two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult<'a, T> {
    content: [Text<'a>; 1],
    structured_content: &'a T,
    is_error: bool,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    connected: bool,
    devices: Vec<DeviceStatus<'a>>,
    /// Tools that no name was left for.
    dropped: Vec<DroppedStatus<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceStatus<'a> {
    name: &'a str,
    uptime_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<u64>,
    dialect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<String>,
    /// What its agent says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    servers: Vec<ServerStatus<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerStatus<'a> {
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    since_seconds: u64,
    restarts: u32,
    /// Under the names to call them by.
    tools: Vec<&'a str>,
    dropped: Vec<DroppedStatus<'a>>,
    /// Tools that are not what its device pinned.
    #[serde(skip_serializing_if = "<[Changed]>::is_empty")]
    changed: &'a [Changed],
}

#[derive(Serialize)]
struct DroppedStatus<'a> {
    tool: &'a str,
    reason: &'static str,
}

#[derive(Serialize)]
struct RestartStatus<'a> {
    /// The servers' names.
    restarting: BTreeSet<&'a str>,
    /// The devices that were asked.
    devices: Vec<&'a str>,
}

static NO_ARGUMENTS: Bytes = Bytes::from_static(b"{}");

const STATUS_TOOL: &[u8] = br#"{"name":"status","title":"Tunnel status","description":"Shows which of your devices are connected, since when, and the state and tools of each local MCP server.","inputSchema":{"type":"object","properties":{},"additionalProperties":false},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#;
const RESTART_TOOL: &[u8] = br#"{"name":"restart","title":"Restart local servers","description":"Restarts local MCP servers on your devices: one by name, all of one device, or all.","inputSchema":{"type":"object","properties":{"server":{"type":"string","description":"The server to restart; all when left out."},"device":{"type":"string","description":"The device it is on; all when left out."}},"additionalProperties":false},"annotations":{"readOnlyHint":false,"destructiveHint":true,"idempotentHint":true,"openWorldHint":false}}"#;
