//! How URIs of several servers are told apart on `/mcp`: `mcp-tunnel:DEVICE/SERVER/URI`, with the labels that stand for
//! device and server in tools' names, and the server's own URI (or template) behind them, unchanged.
//!
//! Only a URI that two servers list is shown so, and one that looks so already, so that two resources never share one.
//! What is behind the labels is not encoded: an expansion of a template within one is the same as one without.

use alloc::format;
use alloc::string::String;

/// What it begins with. The path after it has no meaning to a URI parser, which therefore leaves it as it is.
const SCHEME: &str = "mcp-tunnel:";

/// `uri` in the namespace of a server, by the labels of its device and its own.
pub(super) fn within(device: &str, server: &str, uri: &str) -> String {
    format!("{SCHEME}{device}/{server}/{uri}")
}

/// Whether it looks like one that was made here. Schemes know no case (RFC 3986 section 3.1).
pub(super) fn is_within(uri: &str) -> bool {
    uri.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// The labels of device and server, and the server's own URI; `None` when it is not in a namespace.
pub(super) fn split(uri: &str) -> Option<(&str, &str, &str)> {
    let rest = uri.get(SCHEME.len()..).filter(|_| is_within(uri))?;
    let (device, rest) = rest.split_once('/')?;
    let (server, own) = rest.split_once('/')?;
    Some((device, server, own))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names;

    #[test]
    fn other_uris_are_in_no_namespace() {
        for uri in ["", "file:///x", "mcp-tunnel", "mcp-tunnel:", "mcp-tunnel:a", "mcp-tunnel:a/b", "é-tunnel:a/b/c"] {
            assert_eq!(split(uri), None, "{uri}");
        }
        assert_eq!(split("MCP-Tunnel:a/b/x:/y"), Some(("a", "b", "x:/y")));
    }

    proptest! {
        #[test]
        fn namespaced_uri_reads_back(device in any::<String>(), server in any::<String>(), uri in any::<String>()) {
            let (device, server) = (names::label(&device), names::label(&server));
            let within = within(&device, &server, &uri);
            prop_assert!(is_within(&within));
            prop_assert_eq!(split(&within), Some((&*device, &*server, &*uri)));
        }
    }
}
