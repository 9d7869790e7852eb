//! The stub as an MCP server, in both eras: what each message is answered.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;

use crate::mcp::{Version, code, method};
use crate::rpc::object::Object;
use crate::rpc::{self, Message, RawId, envelope, quoted};

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is the answer.
    Answer(Bytes),
    /// The tool was called: the answer is made by [`answer`], once it is known what to show.
    Status(Call),
    /// There is none: a notification, or the answer to a question that was never asked.
    Silence,
}

/// A call of the tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: RawId,
    pub(super) era: Era,
}

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Up to 2025-11-25: after a handshake.
    Legacy,
    /// From 2026-07-28: each request says all about itself.
    Modern,
}

/// The server's side of a conversation.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// What the handshake agreed on; the modern era has none.
    version: Option<Version>,
}

impl Server {
    /// Whether a line may be an array of messages: in revision 2025-03-26 alone.
    pub(super) fn takes_batches(&self) -> bool {
        self.version.is_some_and(Version::has_batches)
    }

    /// Takes one message.
    pub(super) fn handle(&mut self, text: &Bytes) -> Step {
        match rpc::parse(text) {
            Ok(Message::Request { id, method, params }) => match self.request(&id, &method, &params) {
                Ok(step) => step,
                Err(fault) => Step::Answer(fault.response(&id)),
            },
            // What is cancelled is answered within moments anyway; nothing was asked that could be answered.
            Ok(Message::Notification { .. } | Message::Response { .. }) => Step::Silence,
            Err(error) => Step::Answer(error.response()),
        }
    }

    fn request(&mut self, id: &RawId, name: &str, params: &Bytes) -> Result<Step, Fault> {
        let params = if params == "null" { &Bytes::new() } else { params };
        let params = Object::parse_or_empty(params).map_err(|_| Fault::params("params must be an object"))?;
        let era = era(name, &params)?;
        let body = match (name, era) {
            (method::INITIALIZE, Era::Legacy) => {
                let asked = params.get("protocolVersion").and_then(|raw| Version::parse(&rpc::string(&raw)?));
                // 2025-11-25, Lifecycle, Version Negotiation: an unknown version is answered with one of ours.
                let version = asked.filter(|version| version.is_legacy()).unwrap_or(Version::LATEST_LEGACY);
                self.version = Some(version);
                initialized(version)
            }
            (method::PING, Era::Legacy) => "{}".into(),
            (method::DISCOVER, Era::Modern) => discovered(),
            (method::TOOLS_LIST, _) => {
                // An empty cursor is a valid one, and means the beginning here.
                if params.get("cursor").is_some_and(|cursor| cursor != "\"\"") {
                    return Err(Fault::params("there is no such page"));
                }
                match era {
                    Era::Legacy => format!(r#"{{"tools":[{TOOL}]}}"#),
                    Era::Modern => format!(r#"{{{COMPLETE},{CACHED},"tools":[{TOOL}]}}"#),
                }
            }
            (method::TOOLS_CALL, _) => {
                let name = params.get("name");
                return match name.as_ref().and_then(|raw| rpc::string(raw)).as_deref() {
                    Some(TOOL_NAME) => Ok(Step::Status(Call { id: id.clone(), era })),
                    Some(_) => Err(Fault::params("there is no such tool: the one tool here is status")),
                    None => Err(Fault::params("name must be the name of a tool")),
                };
            }
            _ => {
                return Err(Fault {
                    code: code::METHOD_NOT_FOUND,
                    message: "there is no such method here",
                    data: None,
                });
            }
        };
        Ok(Step::Answer(envelope::result(id, body.as_bytes())))
    }
}

/// The answer to a call: the same in words and as data (raw JSON).
pub(super) fn answer(call: &Call, text: &str, data: &str) -> Bytes {
    let kind = match call.era {
        Era::Legacy => "",
        Era::Modern => r#""resultType":"complete","#,
    };
    let text = quoted(text);
    let body =
        format!(r#"{{{kind}"content":[{{"type":"text","text":{text}}}],"structuredContent":{data},"isError":false}}"#);
    envelope::result(&call.id, body.as_bytes())
}

/// The answer to a call that is one too many.
pub(super) fn overloaded(call: &Call) -> Bytes {
    envelope::error(Some(&call.id), code::OVERLOADED, "too many calls at once", None)
}

/// The one place where a request's era is decided: a modern one says its version (2026-07-28, Versioning).
fn era(name: &str, params: &Object) -> Result<Era, Fault> {
    let meta = params.get("_meta").and_then(|raw| Object::parse(&raw).ok());
    let member = |key| meta.as_ref().and_then(|meta| meta.get(key));
    let Some(version) = member(VERSION_KEY) else {
        if name == method::DISCOVER {
            return Err(Fault::params("_meta must name the protocol version"));
        }
        return Ok(Era::Legacy);
    };
    let asked = rpc::string(&version).ok_or(Fault::params("the protocol version must be a string"))?;
    if Version::parse(&asked).is_none_or(Version::is_legacy) {
        let data = format!(r#"{{"supported":[{}],"requested":{}}}"#, quoted(MODERN), quoted(&asked));
        return Err(Fault {
            code: code::UNSUPPORTED_VERSION,
            message: "this protocol version is not spoken here",
            data: Some(data),
        });
    }
    if member(CAPABILITIES_KEY).is_none_or(|raw| !raw.starts_with(b"{")) {
        return Err(Fault::params("_meta must hold the client's capabilities"));
    }
    Ok(Era::Modern)
}

fn initialized(version: Version) -> String {
    let (version, instructions) = (version.as_str(), quoted(INSTRUCTIONS));
    format!(
        r#"{{"protocolVersion":"{version}","capabilities":{CAPABILITIES},"serverInfo":{INFO},"instructions":{instructions}}}"#
    )
}

fn discovered() -> String {
    let instructions = quoted(INSTRUCTIONS);
    format!(
        r#"{{{COMPLETE},{CACHED},"supportedVersions":["{MODERN}"],"capabilities":{CAPABILITIES},"instructions":{instructions},"_meta":{{"io.modelcontextprotocol/serverInfo":{INFO}}}}}"#
    )
}

/// Why a request is refused.
#[derive(Debug)]
struct Fault {
    code: i64,
    message: &'static str,
    /// Raw JSON.
    data: Option<String>,
}

impl Fault {
    const fn params(message: &'static str) -> Self {
        Self { code: code::INVALID_PARAMS, message, data: None }
    }

    fn response(&self, id: &RawId) -> Bytes {
        envelope::error(Some(id), self.code, self.message, self.data.as_deref().map(str::as_bytes))
    }
}

/// The tool's name. Editors show it beside the name that the person gave this server.
const TOOL_NAME: &str = "status";
const TOOL: &str = r#"{"name":"status","title":"Tunnel status","description":"Shows whether this machine's MCP servers can be reached through the tunnel: the relay and the URL that MCP clients connect to, each local server and how it is, and what to do when something is missing.","inputSchema":{"type":"object","properties":{},"additionalProperties":false},"annotations":{"title":"Tunnel status","readOnlyHint":true,"destructiveHint":false,"idempotentHint":true,"openWorldHint":false}}"#;
const INSTRUCTIONS: &str = "Keeps this machine's tunnel open while the editor runs. Its servers' tools are not here: \
MCP clients reach them at the relay's URL, which the tool `status` shows.";
const INFO: &str =
    concat!(r#"{"name":"mcp-local-tunnel","title":"MCP Local Tunnel","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
/// The list of tools never changes.
const CAPABILITIES: &str = r#"{"tools":{}}"#;
const COMPLETE: &str = r#""resultType":"complete""#;
/// 2026-07-28, Caching: nothing of it is anybody's secret, but it is this machine's.
const CACHED: &str = r#""ttlMs":3600000,"cacheScope":"private""#;
const MODERN: &str = Version::V2026_07_28.as_str();
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
