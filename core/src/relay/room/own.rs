//! Tools that only some sessions have: of a server that each session has for itself, what is listed for all is what it
//! offers without a session, and one may be offered more.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Room;
use crate::mcp::Era;
use crate::names;
use crate::relay::device;
use crate::relay::named::Target;
use crate::tunnel::Dialect;

impl Room {
    /// What the name of a tool that is not listed means to a session: the server whose prefix it has, which judges the
    /// call by what it lists to that session. `Some(Err(_))`: it may be any of these, by their longer names. A name that
    /// had to be cut or cleaned cannot be taken apart, and means nothing.
    pub(super) fn own_tool(&self, era: Era, name: &str) -> Option<Result<Target, Vec<String>>> {
        // Clients without a session share one run, which lists what is listed here.
        if era != Era::Legacy {
            return None;
        }
        let mut found: Vec<(Target, String)> = Vec::new();
        for on in device::sorted(&self.devices).into_iter().filter(|on| on.dialect != Dialect::V1) {
            for (server, _) in on.catalog.servers().filter(|(_, server)| server.isolated) {
                for device in [None, Some(on.name.as_str())] {
                    let Some(tool) = tool_of(device, server, name) else { continue };
                    let target = Target { conn: on.conn, server: server.clone(), name: Arc::from(tool) };
                    found.push((target, names::listed(Some(on.name.as_str()), server, tool)));
                }
            }
        }
        match found.as_slice() {
            [] => None,
            [(target, _)] => Some(Ok(target.clone())),
            _ => Some(Err(found.into_iter().map(|(_, name)| name).collect())),
        }
    }
}

/// The tool whose listed name that would be.
fn tool_of<'a>(device: Option<&str>, server: &str, name: &'a str) -> Option<&'a str> {
    let rest = match device {
        Some(device) => name.strip_prefix(&*names::label(device))?.strip_prefix(names::SEPARATOR)?,
        None => name,
    };
    let tool = rest.strip_prefix(&*names::label(server))?.strip_prefix(names::SEPARATOR)?;
    (!tool.is_empty() && names::listed(device, server, tool) == name).then_some(tool)
}
