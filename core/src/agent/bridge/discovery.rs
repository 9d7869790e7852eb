//! What a server says of itself: `server/discover` (2026-07-28, server, Discovery).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits;
use crate::mcp::{Version, code, key};
use crate::rpc::object;
use crate::rpc::quoted;

/// What `server/discover` brought.
#[derive(Debug)]
pub(in crate::agent) struct Discovered {
    /// The revisions that are spoken here among those that it names, in its order.
    pub(in crate::agent) versions: Vec<Version>,
    pub(in crate::agent) info: Option<Box<RawValue>>,
    pub(in crate::agent) capabilities: Option<Box<RawValue>>,
    pub(in crate::agent) instructions: Option<String>,
}

/// Reads a `DiscoverResult`; `None`: it is none, whoever answered so.
pub(in crate::agent) fn read(result: &Bytes) -> Option<Discovered> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        supported_versions: Vec<String>,
        #[serde(borrow, default)]
        capabilities: Option<&'a RawValue>,
        #[serde(default)]
        instructions: Option<String>,
    }
    let answer: Answer<'_> = serde_json::from_slice(result).ok()?;
    let info = object::get_path(result, &["_meta", key::SERVER_INFO]);
    let info = info.as_ref().and_then(|raw| serde_json::from_slice::<&RawValue>(raw).ok());
    Some(Discovered {
        versions: spoken(&answer.supported_versions),
        info: info.map(ToOwned::to_owned),
        capabilities: answer.capabilities.map(ToOwned::to_owned),
        instructions: answer.instructions,
    })
}

/// Whether an error shows that whoever sent it is of the modern era (2026-07-28, stdio and Streamable HTTP, Backward
/// Compatibility).
pub(in crate::agent) fn is_modern_error(code: i64) -> bool {
    matches!(code, code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION)
}

/// The revisions that an `UnsupportedProtocolVersionError` names, as far as they are spoken here.
pub(in crate::agent) fn supported(error: &Bytes) -> Vec<Version> {
    let raw = object::get_path(error, &["data", "supported"]).unwrap_or_default();
    spoken(&serde_json::from_slice::<Vec<String>>(&raw).unwrap_or_default())
}

/// The `DiscoverResult` of a legacy server behind a tunnel that bridges: every revision can be spoken to it.
pub(in crate::agent) fn result(
    info: Option<&RawValue>,
    capabilities: Option<&RawValue>,
    instructions: Option<&str>,
) -> Bytes {
    let versions: Vec<String> =
        Version::ALL.into_iter().rev().map(|version| format!("\"{}\"", version.as_str())).collect();
    let capabilities = capabilities.map_or("{}", RawValue::get);
    let info = info.map(|info| format!(",\"_meta\":{{\"{}\":{}}}", key::SERVER_INFO, info.get())).unwrap_or_default();
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", quoted(text))).unwrap_or_default();
    let versions = versions.join(",");
    Bytes::from(format!(
        "{{\"resultType\":\"complete\",\"supportedVersions\":[{versions}],\"capabilities\":{capabilities}{info}{instructions},\"ttlMs\":0,\"cacheScope\":\"private\"}}"
    ))
}

/// For people: what a server speaks that is not spoken here.
pub(in crate::agent) fn foreign(result_or_error: &Bytes) -> String {
    let raw = object::get(result_or_error, "supportedVersions")
        .or_else(|| object::get_path(result_or_error, &["data", "supported"]))
        .unwrap_or_default();
    let versions: Vec<String> = serde_json::from_slice(&raw).unwrap_or_default();
    if versions.is_empty() { "no revision that is known here".to_string() } else { versions.join(", ") }
}

fn spoken(names: &[String]) -> Vec<Version> {
    names.iter().take(limits::MAX_VERSIONS).filter_map(|name| Version::parse(name)).collect()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn discovery_is_read() {
        let result = json!({"supportedVersions": ["2030-01-01", "2026-07-28", "2025-06-18"], "capabilities": {"tools": {}},
            "instructions": "i", "_meta": {key::SERVER_INFO: {"name": "s"}}});
        let discovered = read(&Bytes::from(result.to_string())).unwrap();
        assert_eq!(discovered.versions, [Version::V2026_07_28, Version::V2025_06_18]);
        assert_eq!(discovered.capabilities.unwrap().get(), r#"{"tools":{}}"#);
        assert_eq!(discovered.info.unwrap().get(), r#"{"name":"s"}"#);
        assert_eq!(discovered.instructions.as_deref(), Some("i"));
    }

    #[test]
    fn what_is_no_discovery_is_none() {
        for result in ["{}", "[]", "3", r#"{"supportedVersions":"2026-07-28"}"#, r#"{"tools":[]}"#] {
            assert!(read(&Bytes::from_static(result.as_bytes())).is_none(), "{result}");
        }
    }

    #[test]
    fn modern_errors_are_recognised_and_name_versions() {
        for (code, expected) in [(-32020, true), (-32021, true), (-32022, true), (-32023, false), (-32601, false)] {
            assert_eq!(is_modern_error(code), expected, "{code}");
        }
        let error = |data: &str| Bytes::from(format!(r#"{{"code":-32022,"message":"m","data":{data}}}"#));
        assert_eq!(supported(&error(r#"{"supported":["2025-11-25","x"]}"#)), [Version::V2025_11_25]);
        assert_eq!(supported(&error("3")), []);
        assert_eq!(foreign(&error(r#"{"supported":["2027-01-01"]}"#)), "2027-01-01");
    }

    #[test]
    fn answer_for_a_legacy_server_is_a_whole_discovery() {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        let (info, capabilities) = (raw(r#"{"name":"s","version":"1"}"#), raw(r#"{"tools":{"x":1.0}}"#));
        let text = result(Some(&info), Some(&capabilities), Some("say \"it\""));
        assert!(core::str::from_utf8(&text).unwrap().contains(r#""capabilities":{"tools":{"x":1.0}}"#));
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["supportedVersions"][0], "2026-07-28");
        assert_eq!(value["_meta"][key::SERVER_INFO]["name"], "s");
        assert_eq!((&value["instructions"], &value["ttlMs"]), (&json!("say \"it\""), &json!(0)));
        assert!(read(&result(None, None, None)).is_some());
    }
}
