//! What headers must say: where a request comes from, and, in the modern era, what its body says.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use serde_json::Value;

use crate::catalog;
use crate::rpc::{self, Failure, Members};

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Host and Origin name this machine, on any port: no page from elsewhere asks.
pub(crate) fn are_local(headers: &HeaderMap) -> bool {
    let local = |authority: &str| {
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        ["localhost", "127.0.0.1", "[::1]"].contains(&host.map_or(authority, |(host, _)| host))
    };
    let origin = text(headers, "origin").map(|origin| origin.split_once("://").map_or("", |(_, authority)| authority));
    text(headers, "host").is_some_and(local) && origin.is_none_or(local)
}

/// Do the headers mirror the body (2026-07-28, transports: request headers)?
pub(crate) fn check(headers: &HeaderMap, method: &str, params: &Members) -> Result<(), Failure> {
    check_version(headers, params)?;
    same(headers, "Mcp-Method", &Value::from(method))?;
    let named = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return Ok(()),
    };
    same(headers, "Mcp-Name", &rpc::value(params, named))?;
    if method == "tools/call" {
        let arguments = params.get("arguments").map(|raw| rpc::members(raw.get())).unwrap_or_default();
        for (argument, header) in catalog::mirrored(rpc::value(params, named).as_str().unwrap_or_default()) {
            same(headers, &format!("Mcp-Param-{header}"), &rpc::value(&arguments, argument))?;
        }
    }
    Ok(())
}

pub(crate) fn check_version(headers: &HeaderMap, params: &Members) -> Result<(), Failure> {
    let meta = params.get("_meta").map(|raw| rpc::members(raw.get())).unwrap_or_default();
    same(headers, "MCP-Protocol-Version", &rpc::value(&meta, "io.modelcontextprotocol/protocolVersion"))
}

fn same(headers: &HeaderMap, name: &str, body: &Value) -> Result<(), Failure> {
    let wanted = match body {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let mismatch = |what: &str| Failure::new(-32020, format!("{name} {what}")).status(400);
    let given = text(headers, name).map(|value| decoded(value).ok_or_else(|| mismatch("is not base64"))).transpose()?;
    if given == wanted { Ok(()) } else { Err(mismatch("is not what the body says")) }
}

/// The value that a header has in plain, or as base64 between marks.
fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}
