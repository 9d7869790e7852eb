//! What a request's path means.

use alloc::format;
use alloc::string::{String, ToString};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Endpoint;
use crate::limits;

/// The URL of one server on one device.
pub(super) fn server_url(public_url: &str, device: &str, server: &str) -> String {
    format!("{public_url}/mcp/{}/{}", utf8_percent_encode(device, SEGMENT), utf8_percent_encode(server, SEGMENT))
}

/// The path of an endpoint, in its one spelling.
pub(super) fn endpoint_path(endpoint: &Endpoint) -> String {
    let segment = |name| utf8_percent_encode(name, SEGMENT);
    match endpoint {
        Endpoint::All => "/mcp".to_string(),
        Endpoint::Server(server) => format!("/mcp/{}", segment(server)),
        Endpoint::DeviceServer(device, server) => format!("/mcp/{}/{}", segment(device), segment(server)),
    }
}

/// The endpoint that a path means, `/mcp` or one under it; `None` for any other path and for one that cannot be read.
pub(super) fn endpoint(path: &str) -> Option<Endpoint> {
    let rest = path.strip_prefix("/mcp")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some(names) = rest.strip_prefix('/') else { return rest.is_empty().then_some(Endpoint::All) };
    match names.split_once('/') {
        None => Some(Endpoint::Server(segment(names)?)),
        Some((device, server)) if !server.contains('/') => {
            Some(Endpoint::DeviceServer(segment(device)?, segment(server)?))
        }
        Some(_) => None,
    }
}

/// A path's segment, decoded once: `%2F` in it is part of a name.
fn segment(raw: &str) -> Option<String> {
    let text = percent_decode_str(raw).decode_utf8().ok()?;
    let fits = !text.is_empty() && text.len() <= 4 * limits::MAX_DEVICE_NAME && !text.chars().any(char::is_control);
    fits.then(|| text.to_string())
}

/// What is encoded in a segment: all but the unreserved characters (RFC 3986 section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_name_endpoints() {
        let server = |name: &str| Some(Endpoint::Server(name.into()));
        let both = |device: &str, server: &str| Some(Endpoint::DeviceServer(device.into(), server.into()));
        for (path, expected) in [
            ("/mcp", Some(Endpoint::All)),
            ("/mcp/", Some(Endpoint::All)),
            ("/mcp/files", server("files")),
            ("/mcp/files/", server("files")),
            ("/mcp/my%20files", server("my files")),
            ("/mcp/a%2Fb", server("a/b")),
            ("/mcp/laptop.local/files", both("laptop.local", "files")),
            ("/mcp/%25/%32", both("%", "2")),
            ("/mcp/%ff", None),
            ("/mcp/%00", None),
            ("/mcp//", None),
            ("/mcp//files", None),
            ("/mcp/a/b/c", None),
            ("/mcpx", None),
            ("/MCP", None),
            ("", None),
        ] {
            assert_eq!(endpoint(path), expected, "{path}");
        }
    }

    #[test]
    fn name_in_a_path_is_taken_up_to_its_bound() {
        for (length, fits) in [(4 * limits::MAX_DEVICE_NAME, true), (4 * limits::MAX_DEVICE_NAME + 1, false)] {
            assert_eq!(endpoint(&format!("/mcp/{}", "n".repeat(length))).is_some(), fits, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_refused(path in any::<String>()) {
            endpoint(&path);
            endpoint(&format!("/mcp/{path}"));
        }

        #[test]
        fn server_urls_read_back(device in "[^\\p{C}]{1,40}", server in "[^\\p{C}]{1,40}") {
            let url = server_url("", &device, &server);
            prop_assert_eq!(endpoint(&url), Some(Endpoint::DeviceServer(device, server)));
        }
    }
}
