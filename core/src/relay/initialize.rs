//! The answer to `initialize` (2025-11-25, Lifecycle, Initialization).

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use super::catalog::{Server, printable};
use crate::limits;
use crate::mcp::Version;
use crate::rpc::quoted;

/// For `/mcp`: the relay itself, with the servers' instructions under their names.
pub(super) fn aggregated<'a>(version: Version, servers: impl IntoIterator<Item = (&'a Arc<str>, &'a Server)>) -> Bytes {
    let mut instructions = String::from(GUIDE);
    for (name, server) in servers {
        let Some(own) = &server.instructions else { continue };
        let section = format!("\n\n## {}\n\n{own}", printable(name, limits::MAX_LISTED_NAME));
        if instructions.len() + section.len() <= limits::MAX_INSTRUCTIONS {
            instructions.push_str(&section);
        }
    }
    result(version, OWN_INFO, TOOLS, Some(&instructions))
}

/// For an endpoint of one server: what the server said of itself, word for word.
pub(super) fn transparent(version: Version, server: &Server) -> Bytes {
    let text = |raw: &Bytes| core::str::from_utf8(raw).ok().map(String::from);
    let info = server.info.as_ref().and_then(text);
    let capabilities = server.capabilities.as_ref().and_then(|capabilities| text(capabilities.text()));
    let capabilities = capabilities.as_deref().unwrap_or(TOOLS);
    result(version, info.as_deref().unwrap_or(OWN_INFO), capabilities, server.instructions.as_deref())
}

fn result(version: Version, info: &str, capabilities: &str, instructions: Option<&str>) -> Bytes {
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", quoted(text))).unwrap_or_default();
    let version = version.as_str();
    Bytes::from(format!(
        r#"{{"protocolVersion":"{version}","capabilities":{capabilities},"serverInfo":{info}{instructions}}}"#
    ))
}

/// What there always is.
const TOOLS: &str = r#"{"tools":{"listChanged":true}}"#;

const OWN_INFO: &str = concat!(
    r#"{"name":"mcp-local-tunnel","title":"MCP servers on your devices","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

const GUIDE: &str = "These tools run on the user's own devices. A tool's name begins with its server's, and with its \
device's where several are connected. When a tool is missing or fails, call `status` to see which devices and servers \
are up, and `restart` to start a server anew.";
