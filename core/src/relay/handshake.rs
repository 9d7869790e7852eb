//! An agent's WebSocket handshake: its fields, and what they say of the device.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};

use super::catalog::is_printable;
use crate::http::{Reply, RequestHead};
use crate::id::{DeviceId, DeviceName};
use crate::limits;

/// The fields of a WebSocket handshake (RFC 6455 section 4.2.1).
pub(super) fn check(head: &RequestHead) -> Result<(), Reply> {
    let lists = |name: HeaderName, word: &str| {
        let values = head.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if !lists(CONNECTION, "upgrade") || !lists(UPGRADE, "websocket") {
        let reply =
            Reply::text(StatusCode::UPGRADE_REQUIRED, "agents connect here, by WebSocket; MCP clients use /mcp\n");
        return Err(reply.with(UPGRADE, HeaderValue::from_static("websocket")));
    }
    if head.header(SEC_WEBSOCKET_VERSION) != Some("13") {
        let reply = Reply::text(StatusCode::UPGRADE_REQUIRED, "the WebSocket version must be 13\n");
        return Err(reply.with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = head.header(SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok());
    if key.is_none_or(|key| key.len() != 16) {
        return Err(Reply::text(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key is not one\n"));
    }
    Ok(())
}

pub(super) fn device_name(name: Option<&str>) -> Result<DeviceName, &'static str> {
    let name =
        name.map(str::trim).filter(|name| !name.is_empty()).ok_or("the device's name is missing: /ws?name=…\n")?;
    if name.len() > limits::MAX_DEVICE_NAME || !name.chars().all(is_printable) {
        return Err(
            "the device's name is too long or has characters that cannot be shown: set \"name\" in its configuration\n",
        );
    }
    Ok(DeviceName::new(name))
}

pub(super) fn device_id(head: &RequestHead) -> Result<Option<DeviceId>, Reply> {
    if !head.headers.contains_key(DEVICE_HEADER) {
        return Ok(None);
    }
    let fits = |id: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !id.is_empty() && id.len() <= MAX_DEVICE_ID && id.bytes().all(is_plain)
    };
    match head.header(DEVICE_HEADER).filter(fits) {
        Some(id) => Ok(Some(DeviceId::new(id))),
        None => Err(Reply::text(StatusCode::BAD_REQUEST, "the Mcp-Tunnel-Device header cannot be read\n")),
    }
}

/// The request header of `/ws` that carries the device's id (dialect V2).
pub(super) const DEVICE_HEADER: &str = "mcp-tunnel-device";
/// A device's id, in bytes: a UUID or 256 random bits as text.
const MAX_DEVICE_ID: usize = 64;
