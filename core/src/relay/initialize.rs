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
    result(version, OWN_INFO, "", Some(&instructions))
}

/// For an endpoint of one server: what the server said of itself. Of what it can do besides its tools, that which needs
/// nothing but requests passed on; it is not promised that the client hears of changes.
pub(super) fn transparent(version: Version, server: &Server) -> Bytes {
    let info = server.info.as_ref().and_then(|info| core::str::from_utf8(info).ok());
    let more: String = server.passed.iter().map(|name| format!(",\"{name}\":{{}}")).collect();
    result(version, info.unwrap_or(OWN_INFO), &more, server.instructions.as_deref())
}

fn result(version: Version, info: &str, more: &str, instructions: Option<&str>) -> Bytes {
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", quoted(text))).unwrap_or_default();
    let version = version.as_str();
    let capabilities = format!(r#"{{"tools":{{"listChanged":true}}{more}}}"#);
    Bytes::from(format!(
        r#"{{"protocolVersion":"{version}","capabilities":{capabilities},"serverInfo":{info}{instructions}}}"#
    ))
}

const OWN_INFO: &str = concat!(
    r#"{"name":"mcp-local-tunnel","title":"MCP servers on your devices","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

const GUIDE: &str = "These tools run on the user's own devices. A tool's name begins with its server's, and with its \
device's where several are connected. When a tool is missing or fails, call `status` to see which devices and servers \
are up, and `restart` to start a server anew.";
