//! A legacy server's results as a modern client wants them.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::mcp::method;
use crate::rpc::{self, object::Object};

/// The result with what every modern result has: its type, and how long it may be kept where a method's may (2026-07-28,
/// schema, `Result` and `CacheableResult`). A legacy server says neither, and means something of its own by members of
/// these names: what a modern client could not read, or would take for a question, is set right. Nothing else is touched.
pub(in crate::agent) fn to_modern(method: &str, result: &Bytes) -> Bytes {
    let Ok(object) = Object::parse(result) else { return result.clone() };
    let mut members: Vec<(&str, &[u8])> = Vec::from([(TYPE, &b"\"complete\""[..])]);
    if is_cacheable(method) {
        members.extend([(TTL, &b"0"[..]), (SCOPE, b"\"private\"")]);
    }
    members.retain(|(key, _)| !object.get(key).is_some_and(|raw| is_modern(key, &raw)));
    object.set(&members)
}

/// Whether a member of a result is one that a modern client understands. The type `task` is of the extension
/// `io.modelcontextprotocol/tasks`.
fn is_modern(key: &str, raw: &Bytes) -> bool {
    let is_one_of = |texts: [&str; 2]| rpc::string(raw).is_some_and(|text| texts.contains(&&*text));
    match key {
        TYPE => is_one_of(["complete", "task"]),
        TTL => serde_json::from_slice::<u64>(raw).is_ok(),
        SCOPE => is_one_of(["public", "private"]),
        _ => true,
    }
}

const TYPE: &str = "resultType";
const TTL: &str = "ttlMs";
const SCOPE: &str = "cacheScope";

/// Whether a result of that method says how long it may be kept (2026-07-28, caching).
fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        method::DISCOVER
            | method::TOOLS_LIST
            | method::PROMPTS_LIST
            | method::RESOURCES_LIST
            | method::RESOURCE_TEMPLATES_LIST
            | method::RESOURCES_READ
    )
}

/// The type that a modern server's result has; one of an older revision than it says has none, and is complete.
pub(in crate::agent) fn is_input_required(result: &Bytes) -> bool {
    let Ok(object) = Object::parse(result) else { return false };
    object.get(TYPE).and_then(|raw| rpc::string(&raw).map(|text| text == "input_required")) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_get_their_type_and_keep_every_byte() {
        for (method, result, expected) in [
            ("tools/call", r#"{ "n":1e400 }"#, r#"{ "n":1e400,"resultType":"complete" }"#),
            ("tools/call", "{}", r#"{"resultType":"complete"}"#),
            ("tools/call", r#"{"resultType":"task"}"#, r#"{"resultType":"task"}"#),
            (
                "resources/read",
                r#"{"contents":[]}"#,
                r#"{"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#,
            ),
            (
                "tools/list",
                r#"{"tools":[],"ttlMs":5}"#,
                r#"{"tools":[],"ttlMs":5,"resultType":"complete","cacheScope":"private"}"#,
            ),
            ("vendor/x", "[1]", "[1]"),
            ("tools/call", r#"{"resultType":"weird", "n":1e400}"#, r#"{"resultType":"complete", "n":1e400}"#),
            ("tools/call", r#"{"resultType":"input_required"}"#, r#"{"resultType":"complete"}"#),
            ("vendor/x", r#"{"resultType":null}"#, r#"{"resultType":"complete"}"#),
            ("tools/call", r#"{"resultType":"complete","ttlMs":null}"#, r#"{"resultType":"complete","ttlMs":null}"#),
            (
                "resources/read",
                r#"{"ttlMs":null,"cacheScope":"shared","contents":[],"resultType":7}"#,
                r#"{"ttlMs":0,"cacheScope":"private","contents":[],"resultType":"complete"}"#,
            ),
            (
                "resources/read",
                r#"{"ttlMs":-1,"cacheScope":"public"}"#,
                r#"{"ttlMs":0,"cacheScope":"public","resultType":"complete"}"#,
            ),
        ] {
            let result = Bytes::from_static(result.as_bytes());
            assert_eq!(to_modern(method, &result), Bytes::from_static(expected.as_bytes()), "{method}");
        }
    }

    #[test]
    fn only_input_required_is_input_required() {
        for (result, expected) in [
            (r#"{"resultType":"input_required"}"#, true),
            (r#"{"resultType":"input\u005frequired","inputRequests":{}}"#, true),
            (r#"{"resultType":"complete","inputRequests":{}}"#, false),
            (r#"{"inputRequests":{}}"#, false),
            ("[]", false),
        ] {
            assert_eq!(is_input_required(&Bytes::from_static(result.as_bytes())), expected, "{result}");
        }
    }
}
