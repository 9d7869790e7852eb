//! The gate's rules for messages of clients without a handshake (2026-07-28, Streamable HTTP; Overview, `_meta`).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};

use super::catalog::printable;
use super::gate::Posted;
use super::{Content, Request, Speaker, session};
use crate::http::{Reply, RequestHead};
use crate::limits;
use crate::mcp::{Version, code, header, key, method, mirror};
use crate::rpc::{self, Message, RawId, envelope, object::Object, quoted};

/// Reads what a modern client sent; `None` when nobody waits for it.
pub(super) fn posted(head: &RequestHead, message: Message) -> Result<Option<Posted>, Reply> {
    match message {
        Message::Request { id, method, params } => {
            let speaker = speaker(&head.headers, &method, &params).map_err(|fault| fault.reply(Some(&id)))?;
            let content = Content::Request(Request { id, method, params });
            Ok(Some(Posted { speaker, content, minted: None }))
        }
        // The transport has none that means anything here: who gives a request up closes its reply.
        Message::Notification { .. } => Ok(None),
        Message::Response { id, .. } => {
            let text =
                "clients send no responses in this revision: the answers to an input_required go into the params";
            Err(Fault::invalid(text).reply(id.as_ref()))
        }
    }
}

/// Refuses a message whose header names a version that is not spoken here, and that names none itself.
pub(super) fn unknown(head: &RequestHead, message: &Message) -> Reply {
    let id = match message {
        Message::Request { id, .. } => Some(id),
        Message::Notification { .. } | Message::Response { .. } => None,
    };
    unsupported(head.header(header::PROTOCOL_VERSION).unwrap_or_default()).reply(id)
}

/// Who sent a request, as far as it says; a [`Fault`] when it does not keep the rules.
fn speaker(fields: &HeaderMap, method: &str, params: &bytes::Bytes) -> Result<Speaker, Fault> {
    let params = Object::parse_or_empty(params).map_err(|_| Fault::params("params must be an object"))?;
    let meta = params.get("_meta").and_then(|raw| Object::parse(&raw).ok());
    let member = |name| meta.as_ref().and_then(|meta| meta.get(name));
    let told = member(key::VERSION).unwrap_or_default();
    let told = rpc::string(&told).ok_or(Fault::params("_meta must name the protocol version of the request"))?;
    if only(fields, header::PROTOCOL_VERSION)? != Some(&told) {
        return Err(Fault::mismatch("MCP-Protocol-Version does not name the version that _meta names"));
    }
    let version = Version::parse(&told).filter(|version| !version.is_legacy()).ok_or_else(|| unsupported(&told))?;
    if member(key::CLIENT_CAPABILITIES).is_none_or(|raw| !raw.starts_with(b"{")) {
        return Err(Fault::params("_meta must hold the client's capabilities, if only an empty object"));
    }
    if only(fields, header::METHOD)? != Some(method) {
        return Err(Fault::mismatch("Mcp-Method does not name the body's method"));
    }
    check_name(fields, method, &params)?;
    if REMOVED.contains(&method) {
        return Err(Fault::removed(method, version));
    }
    let client = session::client_name(&member(key::CLIENT_INFO).unwrap_or_default()).into();
    let mirrored = if method == method::TOOLS_CALL { mirrored(fields) } else { HeaderMap::new() };
    Ok(Speaker::Modern { version, client, mirrored })
}

/// `Mcp-Name` repeats what the body is about. A body that is about nothing is for its handler to refuse.
fn check_name(fields: &HeaderMap, method: &str, params: &Object) -> Result<(), Fault> {
    let Some(member) = mirror::named_by(method) else { return Ok(()) };
    let raw = params.get(member).unwrap_or_default();
    let mut all = fields.get_all(header::NAME).iter();
    match (rpc::string(&raw), all.next(), all.next()) {
        (None, None, _) => Ok(()),
        (Some(name), Some(value), None) if mirror::decode(value).is_some_and(|told| told == name) => Ok(()),
        (Some(_), None, _) => Err(Fault::mismatch(format!("Mcp-Name is missing: it repeats params.{member}"))),
        (_, Some(_), _) => Err(Fault::mismatch(format!("Mcp-Name does not repeat params.{member}"))),
    }
}

/// A field's one value; an error when there are several, or it has characters that may not be in it.
fn only<'a>(fields: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Fault> {
    let mut all = fields.get_all(name).iter();
    let Some(value) = all.next() else { return Ok(None) };
    match (value.to_str(), all.next()) {
        (Ok(text), None) => Ok(Some(text.trim_matches([' ', '\t']))),
        (_, Some(_)) | (Err(_), _) => Err(Fault::mismatch(format!("{name} cannot be read"))),
    }
}

/// The fields that repeat a tool's parameters: which those are, only its schema says.
fn mirrored(fields: &HeaderMap) -> HeaderMap {
    let is_param = |name: &&HeaderName| name.as_str().starts_with(mirror::PARAM_PREFIX);
    let names = fields.keys().filter(is_param);
    names.flat_map(|name| fields.get_all(name).iter().map(|value| (name.clone(), value.clone()))).collect()
}

/// Why a message is refused before anybody sees it.
#[derive(Debug)]
struct Fault {
    status: StatusCode,
    code: i64,
    message: Cow<'static, str>,
    /// Raw JSON.
    data: Option<String>,
}

impl Fault {
    fn bad(code: i64, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into(), data: None }
    }

    fn invalid(message: &'static str) -> Self {
        Self::bad(code::INVALID_REQUEST, message)
    }

    fn params(message: &'static str) -> Self {
        Self::bad(code::INVALID_PARAMS, message)
    }

    fn mismatch(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad(code::HEADER_MISMATCH, message)
    }

    fn removed(method: &str, version: Version) -> Self {
        let message = format!("{method} is no method of {}", version.as_str());
        Self { status: StatusCode::NOT_FOUND, ..Self::bad(code::METHOD_NOT_FOUND, message) }
    }

    fn reply(&self, id: Option<&RawId>) -> Reply {
        let data = self.data.as_deref().map(str::as_bytes);
        Reply::json(self.status, envelope::error(id, self.code, &self.message, data))
    }
}

/// The answer to a version that is not spoken here: it names those that are, of both eras.
fn unsupported(asked: &str) -> Fault {
    let asked = quoted(&printable(asked, limits::MAX_QUOTE));
    let data = format!(r#"{{"supported":{},"requested":{asked}}}"#, supported());
    Fault { data: Some(data), ..Fault::bad(code::UNSUPPORTED_VERSION, "this protocol version is not spoken here") }
}

/// The versions that are spoken here, the newest first: a JSON array.
pub(super) fn supported() -> String {
    let mut versions = String::from("[");
    for version in Version::ALL.into_iter().rev() {
        let comma = if versions.len() > 1 { "," } else { "" };
        versions += &format!("{comma}\"{}\"", version.as_str());
    }
    versions + "]"
}

/// What was a method before 2026-07-28 (Key Changes). A client that sends one with the marks of that revision has mixed
/// them up, and no server may have a say in it.
const REMOVED: [&str; 5] =
    [method::INITIALIZE, method::PING, method::SET_LEVEL, method::RESOURCES_SUBSCRIBE, method::RESOURCES_UNSUBSCRIBE];
