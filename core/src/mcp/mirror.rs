//! What the Streamable HTTP transport repeats of a message's body in header fields (2026-07-28, Streamable HTTP, Request
//! Metadata), so that who passes it on need not read the body: which fields those are, and how values are written.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

use super::method;
use crate::limits;
use crate::rpc::object::Object;
use crate::rpc::string;

/// The member of a method's params that `Mcp-Name` repeats; `None`: the method has no such field. Those of tasks are the
/// extension's (SEP-2663, Routing Headers).
#[must_use]
pub fn named_by(method: &str) -> Option<&'static str> {
    match method {
        method::TOOLS_CALL | method::PROMPTS_GET => Some("name"),
        method::RESOURCES_READ => Some("uri"),
        method::TASKS_GET | method::TASKS_UPDATE | method::TASKS_CANCEL => Some("taskId"),
        _ => None,
    }
}

/// The text that a value of `Mcp-Name` or `Mcp-Param-*` stands for (Value Encoding); `None` when it has characters that
/// may not be in it, or is no Base64 where it says that it is.
#[must_use]
pub fn decode(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = value.to_str().ok()?.trim_matches(SPACE);
    match text.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER)) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

/// `text` as a value of `Mcp-Name` or `Mcp-Param-*`: as it is if it can stand there, else in Base64.
#[must_use]
pub fn encode(text: &str) -> HeaderValue {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
        && text.trim_matches(SPACE) == text
        && !(text.starts_with(BEFORE) && text.ends_with(AFTER));
    let value =
        if is_plain { Cow::Borrowed(text) } else { Cow::Owned(format!("{BEFORE}{}{AFTER}", STANDARD.encode(text))) };
    HeaderValue::from_str(&value).expect("visible ASCII can stand in a field")
}

/// The fields that a tool's `inputSchema` asks for (`x-mcp-header`), each with the raw value that it must repeat of a
/// call's arguments: `None` when there is none or it is `null`, and the field has no place then. Annotations that break
/// the specification's rules are left out; so is what lies deeper than [`limits::MAX_MIRROR_DEPTH`] or is more than
/// [`limits::MAX_MIRRORED`].
#[must_use]
pub fn params(schema: &Bytes, arguments: &Bytes) -> Vec<(HeaderName, Option<Bytes>)> {
    let mut found = Vec::new();
    if is_asked(schema) {
        let (mut left, arguments) = (limits::MAX_MIRRORED, Object::parse(arguments).ok());
        walk(schema, arguments.as_ref(), limits::MAX_MIRROR_DEPTH, &mut left, &mut found);
    }
    found
}

/// Whether a schema may ask for fields. Most do not, and nothing of their tools' calls need be read.
#[must_use]
pub fn is_asked(schema: &Bytes) -> bool {
    schema.windows(ANNOTATION.len()).any(|at| at == ANNOTATION.as_bytes())
}

/// Whether a decoded field says the same as a raw value of the body. Numbers are compared as numbers (Server Validation).
#[must_use]
pub fn is_same(told: &str, raw: &[u8]) -> bool {
    match raw.first() {
        Some(b'"') => string(raw).is_some_and(|text| text == told),
        Some(b'-' | b'0'..=b'9') => {
            let number = |text: &[u8]| serde_json::from_slice::<f64>(text).ok().filter(|number| number.abs() <= SAFE);
            told.as_bytes() == raw || number(told.as_bytes()).is_some_and(|told| number(raw) == Some(told))
        }
        Some(_) | None => told.as_bytes() == raw,
    }
}

/// Looks through the `properties` of a schema and, beside them, of the object that it describes.
fn walk(
    schema: &Bytes,
    value: Option<&Object>,
    depth: usize,
    left: &mut usize,
    found: &mut Vec<(HeaderName, Option<Bytes>)>,
) {
    let properties = Object::parse(schema).ok().and_then(|schema| schema.get("properties"));
    let Some(properties) = properties.and_then(|raw| Object::parse(&raw).ok()) else { return };
    for (key, raw) in properties.members() {
        let Ok(property) = Object::parse(&raw) else { continue };
        let (annotation, nested) = (property.get(ANNOTATION), property.get("properties").is_some());
        if annotation.is_none() && !nested {
            continue;
        }
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let inner = string(&key).and_then(|key| value?.get(&key)).filter(|raw| raw != "null");
        if let Some(field) = annotation.and_then(|raw| field(&raw, &property))
            && found.iter().all(|(other, _)| *other != field)
        {
            found.push((field, inner.clone()));
        }
        if nested && depth > 1 {
            let inner = inner.and_then(|raw| Object::parse(&raw).ok());
            walk(&raw, inner.as_ref(), depth - 1, left, found);
        }
    }
}

/// The field that an annotation names: a token, on a parameter of a primitive type that is no `number`.
fn field(annotation: &Bytes, property: &Object) -> Option<HeaderName> {
    let name = string(annotation).filter(|name| !name.is_empty())?;
    let kind = property.get("type")?;
    matches!(string(&kind).as_deref(), Some("string" | "integer" | "boolean")).then_some(())?;
    HeaderName::from_bytes(format!("{PARAM_PREFIX}{name}").as_bytes()).ok()
}

/// How the names of fields that repeat a tool's parameters begin.
pub const PARAM_PREFIX: &str = "mcp-param-";
const ANNOTATION: &str = "x-mcp-header";
const BEFORE: &str = "=?base64?";
const AFTER: &str = "?=";
const SPACE: [char; 2] = [' ', '\t'];
/// The largest integer whose neighbours a double can tell apart.
const SAFE: f64 = 9_007_199_254_740_991.0;

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_decoded_as_they_were_meant() {
        for (value, expected) in [
            ("us-west1", Some("us-west1")),
            ("  a b\t", Some("a b")),
            ("", Some("")),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", Some("Hello, 世界")),
            ("=?base64?IHBhZGRlZCA=?=", Some(" padded ")),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", Some("=?base64?literal?=")),
            ("=?base64?SGVsbG8?=", None),
            ("=?base64?SGVs!!!bG8=?=", None),
            ("=?base64?/w==?=", None),
            ("=?BASE64?SGVsbG8=?=", Some("=?BASE64?SGVsbG8=?=")),
            ("=?base64?SGVsbG8=", Some("=?base64?SGVsbG8=")),
            ("SGVsbG8=", Some("SGVsbG8=")),
            ("=?base64?=", Some("=?base64?=")),
            ("\u{e9}", None),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            assert_eq!(decode(&value).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_all_else_as_text() {
        for (told, raw, same) in [
            ("42", "42", true),
            ("42.0", "42", true),
            ("4.2e1", "42", true),
            ("-0", "0", true),
            ("43", "42", false),
            ("", "42", false),
            ("NaN", "42", false),
            ("9007199254740993", "9007199254740992", false),
            ("9007199254740993", "9007199254740993", true),
            ("1e999", "1e998", false),
            ("true", "true", true),
            ("True", "true", false),
            ("a\nb", "\"a\\nb\"", true),
            ("42", "\"42\"", true),
            ("\"a\"", "\"a\"", false),
            ("[]", "[1]", false),
        ] {
            assert_eq!(is_same(told, raw.as_bytes()), same, "{told} {raw}");
        }
    }

    fn shown(schema: &str, arguments: &str) -> Vec<(String, Option<String>)> {
        let found = params(&Bytes::from(schema.to_string()), &Bytes::from(arguments.to_string()));
        let text = |raw: Bytes| String::from_utf8(raw.to_vec()).unwrap();
        found.into_iter().map(|(field, raw)| (field.to_string(), raw.map(text))).collect()
    }

    #[test]
    fn annotated_parameters_are_found_where_they_may_stand() {
        let schema = r#"{"properties":{
            "a":{"type":"string","x-mcp-header":"Region"},
            "b":{"type":"object","properties":{"c":{"type":"integer","x-mcp-header":"N"},"d":{"type":"boolean","x-mcp-header":"n"}}},
            "e":{"type":"number","x-mcp-header":"E"},
            "f":{"type":"string","x-mcp-header":""},
            "g":{"type":"string","x-mcp-header":"a b"},
            "h":{"type":"array","items":{"type":"string","x-mcp-header":"H"}},
            "i":{"type":"string","x-mcp-header":7},
            "j":{"type":["string","null"],"x-mcp-header":"J"}
        },"oneOf":[{"properties":{"k":{"type":"string","x-mcp-header":"K"}}}]}"#;
        let field = |name: &str, value: Option<&str>| (name.to_string(), value.map(ToString::to_string));
        let (region, n) = ("mcp-param-region", "mcp-param-n");
        assert_eq!(
            shown(schema, r#"{"b":{"c": 1.0 },"a":"x"}"#),
            [field(region, Some("\"x\"")), field(n, Some("1.0"))]
        );
        assert_eq!(shown(schema, r#"{"a":null,"b":[]}"#), [field(region, None), field(n, None)]);
        assert_eq!(shown(schema, ""), [field(region, None), field(n, None)]);
        assert_eq!(shown(r#"{"properties":{"a":{"type":"string"}}}"#, r#"{"a":"x"}"#), []);
    }

    #[test]
    fn schemas_are_looked_through_as_far_as_the_limits_say() {
        let leaf = r#"{"type":"string","x-mcp-header":"A"}"#;
        let nested =
            |depth: usize| (0..depth).fold(leaf.to_string(), |inner, _| format!(r#"{{"properties":{{"p":{inner}}}}}"#));
        assert_eq!(shown(&nested(limits::MAX_MIRROR_DEPTH), "{}").len(), 1);
        assert_eq!(shown(&nested(limits::MAX_MIRROR_DEPTH + 1), "{}").len(), 0);
        let wide = |count: usize| {
            let all: Vec<_> = (0..count)
                .map(|index| format!(r#""p{index}":{{"type":"string","x-mcp-header":"P{index}"}}"#))
                .collect();
            format!(r#"{{"properties":{{{}}}}}"#, all.join(","))
        };
        assert_eq!(shown(&wide(limits::MAX_MIRRORED), "{}").len(), limits::MAX_MIRRORED);
        assert_eq!(shown(&wide(limits::MAX_MIRRORED + 1), "{}").len(), limits::MAX_MIRRORED);
    }

    proptest! {
        #[test]
        fn every_text_reads_back(text in any::<String>()) {
            let value = encode(&text);
            let read = decode(&value);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        }

        #[test]
        fn nothing_panics(value in prop::collection::vec(prop_oneof![32_u8..=126, 128_u8..=255], 0..40), schema in any::<String>(), raw in any::<Vec<u8>>()) {
            let value = HeaderValue::from_bytes(&value).unwrap();
            let told = decode(&value).unwrap_or_default();
            let _ = is_same(&told, &raw);
            let schema = Bytes::from(format!(r#"{{"properties":{{"x-mcp-header":{schema}}}}}"#));
            let _ = params(&schema, &Bytes::from(raw));
        }
    }
}
