//! In which era a message is spoken, decided in this one place, and what that says of the answer's status.
//!
//! "Legacy" begins with a handshake and may have sessions (up to 2025-11-25); "modern" says everything in each request
//! (from 2026-07-28 on). Both are served at every endpoint (2026-07-28, Versioning, Backward Compatibility).

use http::{HeaderMap, StatusCode};

use crate::mcp::{Era, Version, code, header, key, method};
use crate::rpc::{self, Message, object};

/// What a request's `MCP-Protocol-Version` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// There is none: it was no part of the protocol before 2025-06-18.
    Absent,
    /// A version with a handshake.
    Legacy,
    /// A version without.
    Modern,
    /// None that is spoken here, or several.
    Unknown,
}

impl Field {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut all = fields.get_all(header::PROTOCOL_VERSION).iter();
        let Some(value) = all.next() else { return Self::Absent };
        let version = value.to_str().ok().and_then(|text| Version::parse(text.trim()));
        match (version, all.next()) {
            (Some(version), None) if version.is_legacy() => Self::Legacy,
            (Some(_), None) => Self::Modern,
            (None, _) | (_, Some(_)) => Self::Unknown,
        }
    }
}

/// The era of a message with these header fields; `None`: its header names a version that is not spoken here, and the
/// message none.
pub(super) fn of(fields: &HeaderMap, message: &Message) -> Option<Era> {
    let (method, params) = match message {
        Message::Request { method, params, .. } | Message::Notification { method, params } => (&**method, Some(params)),
        Message::Response { .. } => ("", None),
    };
    let told = params.filter(|params| may_hold_meta(params));
    let told = told.and_then(|params| object::get_path(params, &["_meta", key::VERSION]));
    let told = told.as_ref().and_then(|raw| rpc::string(raw));
    decide(Field::of(fields), told.as_deref(), method, || fields.contains_key(header::SESSION_ID))
}

/// Whether params need to be taken apart for what their `_meta` says: most of the older era have none. What is nowhere
/// in the text can only be there in another spelling, with an escape.
fn may_hold_meta(params: &[u8]) -> bool {
    let text = core::str::from_utf8(params).unwrap_or_default();
    text.contains("_meta") || text.contains('\\')
}

/// `told` is the version that the message names in its `_meta`.
fn decide(field: Field, told: Option<&str>, method: &str, in_session: impl FnOnce() -> bool) -> Option<Era> {
    if told.is_some_and(|told| Version::parse(told).is_none_or(|version| !version.is_legacy())) {
        return Some(Era::Modern);
    }
    match field {
        // A handshake selects the older era, whatever a client of both has in its other requests' fields.
        Field::Modern if method == method::INITIALIZE && told.is_none() => Some(Era::Legacy),
        Field::Modern => Some(Era::Modern),
        Field::Unknown => None,
        Field::Legacy => Some(Era::Legacy),
        // No older revision has these: their client hears what is missing, and not of a session.
        Field::Absent if is_modern(method) && !in_session() => Some(Era::Modern),
        Field::Absent => Some(Era::Legacy),
    }
}

fn is_modern(name: &str) -> bool {
    matches!(name, method::DISCOVER | method::SUBSCRIPTIONS_LISTEN)
}

/// The status of a modern client's answer that is this error (2026-07-28, Streamable HTTP): what concerns the transport
/// shows there, what a handler says is in band. Params that lack what every request must have are refused before a
/// handler sees them, so its [`code::INVALID_PARAMS`] is about something else; of a method that its server has,
/// [`code::METHOD_NOT_FOUND`] is a handler's too, which the call knows.
pub(super) fn status(error: i64) -> StatusCode {
    match error {
        code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::mcp::Era::{Legacy, Modern};

    const NEW: Option<&str> = Some("2026-07-28");
    const OLD: Option<&str> = Some("2025-11-25");
    const STRANGE: Option<&str> = Some("2031-01-01");

    #[test]
    fn era_of_every_kind_of_request() {
        for (field, told, method, in_session, expected) in [
            // A version in the message decides.
            (Field::Absent, NEW, "tools/list", false, Some(Modern)),
            (Field::Legacy, NEW, "tools/list", true, Some(Modern)),
            (Field::Modern, NEW, "tools/list", false, Some(Modern)),
            (Field::Unknown, NEW, "tools/list", false, Some(Modern)),
            (Field::Unknown, STRANGE, "tools/list", false, Some(Modern)),
            (Field::Modern, STRANGE, "tools/list", false, Some(Modern)),
            (Field::Absent, STRANGE, "initialize", false, Some(Modern)),
            (Field::Modern, NEW, "initialize", false, Some(Modern)),
            // Else the header.
            (Field::Modern, None, "tools/list", true, Some(Modern)),
            (Field::Modern, OLD, "tools/list", false, Some(Modern)),
            (Field::Modern, OLD, "initialize", false, Some(Modern)),
            (Field::Modern, None, "initialize", false, Some(Legacy)),
            (Field::Unknown, None, "tools/list", true, None),
            (Field::Unknown, OLD, "initialize", false, None),
            (Field::Legacy, None, "tools/list", true, Some(Legacy)),
            (Field::Legacy, OLD, "tools/list", true, Some(Legacy)),
            (Field::Legacy, None, "server/discover", false, Some(Legacy)),
            (Field::Legacy, None, "initialize", false, Some(Legacy)),
            // Else the method.
            (Field::Absent, None, "server/discover", false, Some(Modern)),
            (Field::Absent, OLD, "subscriptions/listen", false, Some(Modern)),
            (Field::Absent, None, "server/discover", true, Some(Legacy)),
            (Field::Absent, None, "initialize", false, Some(Legacy)),
            (Field::Absent, None, "tools/list", false, Some(Legacy)),
            (Field::Absent, OLD, "tools/call", true, Some(Legacy)),
            (Field::Absent, None, "", true, Some(Legacy)),
        ] {
            assert_eq!(
                decide(field, told, method, || in_session),
                expected,
                "{field:?} {told:?} {method} {in_session}"
            );
        }
    }

    #[test]
    fn version_in_a_message_is_found_in_any_spelling() {
        for (params, expected) in [
            ("", Legacy),
            (r#"{"name":"meta"}"#, Legacy),
            (r#"{"name":"\"_meta\""}"#, Legacy),
            (r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#, Modern),
            (r#"{"_\u006deta":{"io.modelcontextprotocol\/protocolVersion":"2026-07-28"}}"#, Modern),
        ] {
            let params = bytes::Bytes::from(params);
            let message = Message::Notification { method: "tools/list".into(), params: params.clone() };
            assert_eq!(of(&HeaderMap::new(), &message), Some(expected), "{params:?}");
        }
    }

    #[test]
    fn version_field_is_read_once() {
        for (values, expected) in [
            (&[][..], Field::Absent),
            (&["2024-11-05"], Field::Legacy),
            (&["2025-11-25"], Field::Legacy),
            (&[" 2026-07-28 "], Field::Modern),
            (&["2026-07-29"], Field::Unknown),
            (&[""], Field::Unknown),
            (&["\u{e9}"], Field::Unknown),
            (&["2026-07-28", "2026-07-28"], Field::Unknown),
            (&["2026-07-28", "2025-11-25"], Field::Unknown),
        ] {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(header::PROTOCOL_VERSION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(Field::of(&fields), expected, "{values:?}");
        }
    }

    #[test]
    fn errors_of_the_transport_show_in_the_status() {
        for (error, expected) in [
            (-32601, 404),
            (-32020, 400),
            (-32021, 400),
            (-32022, 400),
            (-32602, 200),
            (-32603, 200),
            (-32600, 200),
            (-32700, 200),
            (-32000, 200),
            (-32023, 200),
            (1, 200),
        ] {
            assert_eq!(status(error).as_u16(), expected, "{error}");
        }
    }
}
