//! The `_meta` of the modern era's requests (2026-07-28, basic, `_meta`).

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::agent::caller::Caller;
use crate::agent::wishes::Level;
use crate::mcp::Version;
use crate::mcp::key::{CLIENT_CAPABILITIES as CAPABILITIES, CLIENT_INFO as CLIENT, VERSION};
use crate::rpc::object::{NotAnObject, Object};
use crate::rpc::{self, object};

/// From which level on the client wants to hear what the server logs.
pub(in crate::agent) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// The modern revision that is spoken to servers.
pub(in crate::agent) const MODERN: Version = Version::V2026_07_28;

/// The params of a request of our own, which must be an object.
pub(in crate::agent) fn own(version: &str, params: &Bytes) -> Bytes {
    let client = client_info("mcp-local-tunnel", version);
    let meta = format!("{{\"{VERSION}\":\"{}\",\"{CLIENT}\":{client},\"{CAPABILITIES}\":{{}}}}", MODERN.as_str());
    Object::parse(params).expect("our own params are an object").set(&[("_meta", meta.as_bytes())])
}

/// A legacy client's params as a modern server wants them: with what the client said in its handshake, and the level
/// that its session has set. What its own `_meta` says beside that stays.
pub(in crate::agent) fn add(params: &Bytes, caller: &Caller, level: Option<Level>) -> Result<Bytes, NotAnObject> {
    let params = Object::parse_or_empty(params)?;
    let meta = params.get("_meta").and_then(|meta| Object::parse(&meta).ok());
    let meta = meta.map_or_else(|| Object::parse(&Bytes::from_static(b"{}")), Ok).expect("an object");
    let (version, level) = (format!("\"{}\"", MODERN.as_str()), level.map(|level| format!("\"{}\"", level.as_str())));
    let (name, number) = caller.name_and_version();
    let client = (!name.is_empty()).then(|| client_info(&name, &number));
    let capabilities: &[u8] = if is_object(&caller.capabilities) { &caller.capabilities } else { b"{}" };
    let mut members: Vec<(&str, &[u8])> = Vec::from([(VERSION, version.as_bytes())]);
    members.extend(client.as_ref().map(|client| (CLIENT, client.as_bytes())));
    members.push((CAPABILITIES, capabilities));
    members.extend(level.as_ref().map(|level| (LOG_LEVEL, level.as_bytes())));
    Ok(params.set(&[("_meta", &meta.set(&members))]))
}

/// A modern client's params as a legacy server wants them: without what the modern era says of its own in `_meta`, which
/// a server that knows both takes for the other era. What else stands there stays.
pub(in crate::agent) fn strip(params: &Bytes) -> Bytes {
    let Ok(object) = Object::parse(params) else { return params.clone() };
    let Some(Ok(meta)) = object.get("_meta").map(|meta| Object::parse(&meta)) else { return params.clone() };
    let rest = meta.remove(&[VERSION, CLIENT, CAPABILITIES, LOG_LEVEL]);
    match Object::parse(&rest).is_ok_and(|rest| rest.members().next().is_none()) {
        true => object.remove(&["_meta"]),
        false => object.replace(&[("_meta", &rest)]),
    }
}

/// What a modern client's request says that it can do; `{}` when it says nothing.
pub(in crate::agent) fn capabilities(params: &Bytes) -> Bytes {
    let said = object::get_path(params, &["_meta", CAPABILITIES]).filter(is_object);
    // Copied: a few bytes must not keep all params in memory.
    said.map_or(Bytes::from_static(b"{}"), |raw| Bytes::copy_from_slice(&raw))
}

/// From which level on a modern client wants to hear what the server logs; `None`: not at all.
pub(in crate::agent) fn log_level(params: &Bytes) -> Option<Level> {
    Level::parse(&rpc::string(&object::get_path(params, &["_meta", LOG_LEVEL])?)?)
}

fn client_info(name: &str, version: &str) -> alloc::string::String {
    format!("{{\"name\":{},\"version\":{}}}", rpc::quoted(name), rpc::quoted(version))
}

fn is_object(raw: &Bytes) -> bool {
    Object::parse(raw).is_ok()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use serde_json::{Value, json};

    use super::*;

    fn read(raw: &Bytes) -> Value {
        serde_json::from_slice(raw).unwrap()
    }

    fn caller(client: &str, capabilities: &'static str) -> Caller {
        Caller {
            client: client.into(),
            capabilities: Bytes::from_static(capabilities.as_bytes()),
            version: Some(Version::V2025_06_18),
            ..Caller::default()
        }
    }

    #[test]
    fn our_requests_say_who_we_are() {
        let params = read(&own("2.0.0", &Bytes::from_static(br#"{"cursor":"x"}"#)));
        assert_eq!(params["cursor"], "x");
        assert_eq!(params["_meta"][VERSION], "2026-07-28");
        assert_eq!(params["_meta"][CLIENT], json!({"name": "mcp-local-tunnel", "version": "2.0.0"}));
        assert_eq!(params["_meta"][CAPABILITIES], json!({}));
    }

    #[test]
    fn legacy_params_get_what_the_handshake_said_and_keep_the_rest() {
        let params = Bytes::from_static(br#"{"n":1e400, "_meta":{"progressToken":"t","x":null}}"#);
        let caller = caller("An \"Editor\"", r#"{"sampling":{},"x":1.00}"#);
        let text = add(&params, &caller, Level::parse("warning")).unwrap();
        let text = core::str::from_utf8(&text).unwrap();
        assert!(text.starts_with(r#"{"n":1e400, "_meta":{"progressToken":"t","x":null,"#), "{text}");
        assert!(text.contains(r#""io.modelcontextprotocol/clientCapabilities":{"sampling":{},"x":1.00}"#), "{text}");
        assert!(text.contains(r#""io.modelcontextprotocol/logLevel":"warning""#), "{text}");
        assert!(text.contains(r#""name":"An \"Editor\"""#), "{text}");
    }

    #[test]
    fn absent_params_and_odd_meta_are_filled_in() {
        for params in ["", "{}", r#"{"_meta":null}"#, r#"{"_meta":[1]}"#] {
            let params = add(&Bytes::from_static(params.as_bytes()), &caller("", "[]"), None).unwrap();
            let version = json!({VERSION: "2026-07-28", CAPABILITIES: {}});
            assert_eq!(read(&params), json!({"_meta": version}));
        }
        assert_eq!(add(&Bytes::from_static(b"[]"), &caller("", ""), None), Err(NotAnObject));
    }

    #[test]
    fn modern_params_lose_what_the_modern_era_says_and_nothing_else() {
        let own = json!({VERSION: "2026-07-28", CLIENT: {"name": "x"}, CAPABILITIES: {}, LOG_LEVEL: "error"});
        let bare = Bytes::from(json!({"a": 1, "_meta": own}).to_string());
        assert_eq!(read(&strip(&bare)), json!({"a": 1}));
        let text =
            format!(r#"{{"n":1e400, "_meta":{{"{VERSION}":"2026-07-28","traceparent":"t" ,"progressToken":1.0}}}}"#);
        let stripped = strip(&Bytes::from(text));
        let text = core::str::from_utf8(&stripped).unwrap();
        assert!(text.contains(r#"{"n":1e400,"#) && text.contains(r#""traceparent":"t""#), "{text}");
        assert!(text.contains(r#""progressToken":1.0"#) && !text.contains(VERSION), "{text}");
        for odd in ["", "[]", "{}", r#"{"_meta":null}"#, r#"{"_meta":[]}"#] {
            assert_eq!(strip(&Bytes::from_static(odd.as_bytes())), odd);
        }
    }

    #[test]
    fn what_a_modern_client_says_is_read() {
        let params = Bytes::from(json!({"_meta": {CAPABILITIES: {"roots": {}}, LOG_LEVEL: "error"}}).to_string());
        assert_eq!(capabilities(&params), Bytes::from_static(br#"{"roots":{}}"#));
        assert_eq!(log_level(&params), Level::parse("error"));
        for params in ["", "{}", r#"{"_meta":{}}"#, r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":3}}"#] {
            let params = Bytes::from_static(params.as_bytes());
            assert_eq!((capabilities(&params), log_level(&params)), (Bytes::from_static(b"{}"), None));
        }
    }
}
