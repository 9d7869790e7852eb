//! The answer to `initialize` (2025-11-25, Lifecycle, Initialization).

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use super::capabilities;
use super::catalog::printable;
use super::offer::Offer;
use crate::limits;
use crate::mcp::Version;
use crate::rpc::quoted;

/// For `/mcp`: the relay itself, with the servers' instructions under their names.
pub(super) fn aggregated(version: Version, servers: &[(&Arc<str>, &Offer)]) -> Bytes {
    let capabilities = capabilities::united(servers.iter().map(|(_, server)| *server), version);
    result(version, OWN_INFO, &capabilities, Some(&instructions(servers)))
}

/// What `/mcp` tells a client's model: how it is used, and each server's own instructions under its name.
pub(super) fn instructions(servers: &[(&Arc<str>, &Offer)]) -> String {
    let mut instructions = String::from(GUIDE);
    for (name, server) in servers {
        let Some(own) = &server.instructions else { continue };
        let section = format!("\n\n## {}\n\n{own}", printable(name, limits::MAX_LISTED_NAME));
        if instructions.len() + section.len() <= limits::MAX_INSTRUCTIONS {
            instructions.push_str(&section);
        }
    }
    instructions
}

/// For an endpoint of one server: what the server said of itself, word for word.
pub(super) fn transparent(version: Version, server: &Offer) -> Bytes {
    result(version, server.info().unwrap_or(OWN_INFO), capabilities(server), server.instructions.as_deref())
}

/// What a server declared that it can do.
pub(super) fn capabilities(server: &Offer) -> &str {
    let declared = server.capabilities.as_ref().map(|capabilities| &capabilities[..]);
    declared.and_then(|text| core::str::from_utf8(text).ok()).unwrap_or(TOOLS)
}

fn result(version: Version, info: &str, capabilities: &str, instructions: Option<&str>) -> Bytes {
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", quoted(text))).unwrap_or_default();
    let version = version.as_str();
    Bytes::from(format!(
        r#"{{"protocolVersion":"{version}","capabilities":{capabilities},"serverInfo":{info}{instructions}}}"#
    ))
}

/// What there always is.
pub(super) const TOOLS: &str = r#"{"tools":{"listChanged":true}}"#;

/// What the relay calls itself.
pub(super) const OWN_INFO: &str = concat!(
    r#"{"name":"mcp-local-tunnel","title":"MCP servers on your devices","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

const GUIDE: &str = "These tools run on the user's own devices. A tool's name begins with its server's, and with its \
device's where several are connected. When a tool is missing or fails, call `status` to see which devices and servers \
are up, and `restart` to start a server anew.";
