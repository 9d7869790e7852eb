//! What a modern request's header fields repeat of its body, for whoever stands between (2026-07-28, Streamable HTTP,
//! Request Metadata).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use serde_json::value::RawValue;

use crate::limits;
use crate::mcp::{header, mirror};
use crate::rpc;
use crate::rpc::object::{self, Object};

/// The fields of a request. `schema`: the `inputSchema` of the tool that it calls.
pub(super) fn fields(method: &str, params: &Bytes, schema: Option<&Bytes>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut set = |name: HeaderName, text: &str| drop(fields.insert(name, mirror::encode(text)));
    set(HeaderName::from_static(header::METHOD), method);
    let name = mirror::named_by(method).and_then(|key| object::get(params, key));
    if let Some(name) = name.as_deref().and_then(rpc::string) {
        set(HeaderName::from_static(header::NAME), &name);
    }
    let arguments = object::get(params, "arguments").unwrap_or_default();
    for (name, value) in schema.map(|schema| mirror::params(schema, &arguments)).unwrap_or_default() {
        if let Some(text) = value.as_ref().and_then(as_text) {
            set(name, &text);
        }
    }
    fields
}

/// Why a tool's definition must not be used over HTTP (2026-07-28, Streamable HTTP, Schema Extension); `None`: it may.
pub(super) fn fault(tool: &RawValue) -> Option<&'static str> {
    check(&schema_of(tool)?).err()
}

/// The raw result of `tools/list` without the tools that must not be used, and otherwise as it is.
pub(super) fn usable(result: Bytes) -> Bytes {
    let Some(object) = Object::parse(&result).ok() else { return result };
    let Some(list) = object.get("tools") else { return result };
    let Ok(tools) = serde_json::from_slice::<Vec<&RawValue>>(&list) else { return result };
    let usable: Vec<&str> = tools.iter().filter(|tool| fault(tool).is_none()).map(|tool| tool.get()).collect();
    if usable.len() == tools.len() {
        return result;
    }
    object.replace(&[("tools", format!("[{}]", usable.join(",")).as_bytes())])
}

/// The `inputSchema` of a tool.
pub(super) fn schema_of(tool: &RawValue) -> Option<Bytes> {
    // Most have no such field: they are not looked into.
    if !tool.get().contains("x-mcp-header") && !tool.get().contains("\\u") {
        return None;
    }
    object::get(&Bytes::copy_from_slice(tool.get().as_bytes()), "inputSchema")
}

/// Whether every annotation of a schema keeps the rules.
fn check(schema: &Bytes) -> Result<(), &'static str> {
    let mut names = Vec::new();
    collect(schema, 0, &mut names)?;
    if names.len() != count(schema, 0) {
        return Err("x-mcp-header stands where no argument is");
    }
    let distinct: BTreeSet<&str> = names.iter().map(HeaderName::as_str).collect();
    if distinct.len() == names.len() { Ok(()) } else { Err("two arguments have the same x-mcp-header") }
}

/// Walks `properties` alone, for the names of the fields that it finds.
fn collect(schema: &Bytes, depth: usize, names: &mut Vec<HeaderName>) -> Result<(), &'static str> {
    let properties = object::get(schema, "properties").and_then(|raw| Object::parse(&raw).ok());
    let Some(properties) = properties.filter(|_| depth < limits::MAX_MIRROR_DEPTH) else { return Ok(()) };
    for (_, property) in properties.members() {
        if let Some(raw) = object::get(&property, FIELD) {
            let name = rpc::string(&raw).and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
            names.push(name.ok_or("an x-mcp-header is not a field's name")?);
            let kind = object::get(&property, "type");
            if !matches!(kind.as_deref(), Some(b"\"string\"" | b"\"integer\"" | b"\"boolean\"")) {
                return Err("an x-mcp-header is at an argument that is no text, integer or boolean");
            }
        }
        collect(&property, depth + 1, names)?;
    }
    Ok(())
}

/// How many members of that name there are in a schema, wherever they stand, except for properties of that name.
fn count(raw: &Bytes, depth: usize) -> usize {
    if depth > 2 * limits::MAX_MIRROR_DEPTH {
        return 0;
    }
    match raw.first() {
        Some(b'{') => {
            let Ok(object) = Object::parse(raw) else { return 0 };
            let inner = |(key, value): (Bytes, Bytes)| match rpc::string(&key).as_deref() {
                Some(FIELD) => 1,
                Some("properties") => match Object::parse(&value) {
                    Ok(properties) => properties.members().map(|(_, value)| count(&value, depth + 2)).sum(),
                    Err(_) => 0,
                },
                // Values, not schemas.
                Some("enum" | "const" | "default" | "examples") => 0,
                Some(_) | None => count(&value, depth + 1),
            };
            object.members().map(inner).sum()
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_slice(raw).unwrap_or_default();
            items.iter().map(|item| count(&raw.slice_ref(item.get().as_bytes()), depth + 1)).sum()
        }
        _ => 0,
    }
}

/// A primitive argument as text; others have none.
fn as_text(raw: &Bytes) -> Option<String> {
    match &raw[..] {
        b"null" => None,
        b"true" | b"false" => Some(core::str::from_utf8(raw).ok()?.to_string()),
        [b'"', ..] => rpc::string(raw).map(|text| text.into_owned()),
        [b'-' | b'0'..=b'9', ..] => integer(raw),
        _ => None,
    }
}

/// An integer, also where it is written as 42.0 or 1e3.
fn integer(raw: &Bytes) -> Option<String> {
    if let Ok(number) = serde_json::from_slice::<i64>(raw) {
        return Some(number.to_string());
    }
    let number: f64 = serde_json::from_slice(raw).ok()?;
    let text = format!("{number:.0}");
    (text.parse::<f64>() == Ok(number) && number.abs() <= MAX_SAFE).then_some(text)
}

const FIELD: &str = "x-mcp-header";
/// JavaScript's largest safe integer: what a schema's integers are limited to.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(method: &str, params: &serde_json::Value, schema: &serde_json::Value) -> Vec<(String, String)> {
        let raw = |value: &serde_json::Value| Bytes::from(value.to_string());
        let fields = fields(method, &raw(params), Some(&raw(schema)));
        let mut fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_string())).collect();
        fields.sort();
        fields
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_string(), value.to_string())
    }

    fn property(kind: &str, name: &str) -> serde_json::Value {
        json!({"type": kind, "x-mcp-header": name})
    }

    #[test]
    fn method_and_name_are_repeated() {
        for (method, params, name) in [
            ("tools/call", json!({"name": "x"}), Some("x")),
            ("prompts/get", json!({"name": "y"}), Some("y")),
            ("resources/read", json!({"uri": "a:b"}), Some("a:b")),
            ("tasks/get", json!({"taskId": "t"}), Some("t")),
            ("tools/list", json!({"name": "x"}), None),
            ("tools/call", json!({"name": 3}), None),
        ] {
            let mut expected = std::vec![pair("mcp-method", method)];
            expected.extend(name.map(|name| pair("mcp-name", name)));
            assert_eq!(of(method, &params, &json!({})), expected);
        }
    }

    #[test]
    fn arguments_are_repeated_where_the_schema_says() {
        let schema = json!({"properties": {
            "a": property("string", "A"), "n": property("integer", "Num"), "b": property("boolean", "Flag"),
            "absent": property("string", "Absent"), "null": property("string", "Null"), "none": {"type": "string"},
            "deep": {"type": "object", "properties": {"x": property("string", "Deep")}}}});
        let arguments = json!({"a": "x", "n": 42.0, "b": false, "null": null, "none": "y", "deep": {"x": "z"}});
        let fields = of("tools/call", &json!({"name": "t", "arguments": arguments}), &schema);
        let expected = [
            pair("mcp-method", "tools/call"),
            pair("mcp-name", "t"),
            pair("mcp-param-a", "x"),
            pair("mcp-param-deep", "z"),
            pair("mcp-param-flag", "false"),
            pair("mcp-param-num", "42"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn integers_are_written_as_such() {
        for (raw, expected) in
            [("7", Some("7")), ("-7.00", Some("-7")), ("1e3", Some("1000")), ("1.5", None), ("1e99", None)]
        {
            assert_eq!(as_text(&Bytes::from(raw)).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn definitions_that_break_a_rule_are_faults() {
        let fault = |schema: serde_json::Value| {
            let tool = json!({"name": "t", "inputSchema": schema}).to_string();
            super::fault(serde_json::from_str(&tool).unwrap()).is_some()
        };
        for bad in [
            json!({"properties": {"a": property("string", "")}}),
            json!({"properties": {"a": property("string", "a b")}}),
            json!({"properties": {"a": property("string", "a\r\nb")}}),
            json!({"properties": {"a": property("number", "A")}}),
            json!({"properties": {"a": property("object", "A")}}),
            json!({"properties": {"a": {"x-mcp-header": "A"}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": 3}}}),
            json!({"properties": {"a": property("string", "A"), "b": property("string", "a")}}),
            json!({"properties": {"a": {"type": "array", "items": property("string", "A")}}}),
            json!({"anyOf": [{"properties": {"a": property("string", "A")}}]}),
            json!({"x-mcp-header": "A"}),
            json!({"$defs": {"a": property("string", "A")}}),
        ] {
            assert!(fault(bad.clone()), "{bad}");
        }
        for good in [
            json!({}),
            json!({"properties": {"a": property("string", "A")}}),
            json!({"properties": {"x-mcp-header": {"type": "string"}}}),
            json!({"properties": {"a": {"type": "string", "default": {"x-mcp-header": 1}}}}),
            json!({"properties": {"a": {"type": "object", "properties": {"b": property("integer", "B")}}}}),
        ] {
            assert!(!fault(good.clone()), "{good}");
        }
    }
}
