//! The MCP side of a probe: what it asks, and what the answers mean.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::contract::Settings;
use crate::http::fetch::{Fetch, Fetched};
use crate::http::reach::Reach;
use crate::limits;
use crate::mcp::{Version, header, key, method, mirror};
use crate::rpc::{self, Message, RawId, envelope};
use crate::secret::Secret;
use crate::sse;

/// What is asked of the endpoint, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// `server/discover`: whether it speaks 2026-07-28.
    Discover,
    /// `initialize`, of a server that does not.
    Initialize,
    /// That the handshake is over.
    Initialized,
    /// A page of `tools/list`.
    List { cursor: Option<String>, pages: usize },
    /// `tools/call`.
    Call(String),
}

/// What the conversation has come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// The version that was agreed on.
    pub(super) version: Option<Version>,
    /// The session, of a server that has them.
    id: Option<HeaderValue>,
}

/// A message that answers a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Result(Bytes),
    Error(String),
}

impl Session {
    /// The request of this number, for `step`.
    pub(super) fn request(&self, step: &Step, number: u64, token: Option<&Secret>, settings: &Settings) -> Fetch {
        let version = match step {
            Step::Discover => Some(Version::V2026_07_28),
            Step::Initialize => None,
            Step::Initialized | Step::List { .. } | Step::Call(_) => self.version,
        };
        let (method, name) = step.method();
        let modern = version.is_some_and(|version| !version.is_legacy());
        let mut params = step.params(&settings.version);
        if modern {
            params["_meta"] = meta(&settings.version);
        }
        let params = params.to_string();
        let body = match step {
            Step::Initialized => envelope::notification(method, b""),
            _ => envelope::request(&RawId::from_number(number), method, params.as_bytes()),
        };
        Fetch {
            method: Method::POST,
            url: settings.url.clone(),
            headers: self.headers(version, method, name, token),
            body,
            timeout: limits::PROBE_ANSWER_TIMEOUT,
            max_body: limits::MAX_CATALOG,
            reach: Reach::Anywhere,
        }
    }

    /// The header fields of a request of that method, about `name`.
    pub(super) fn headers(
        &self,
        version: Option<Version>,
        method: &'static str,
        name: Option<&str>,
        token: Option<&Secret>,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, bearer(token));
        }
        if let Some(version) = version {
            headers
                .insert(HeaderName::from_static(header::PROTOCOL_VERSION), HeaderValue::from_static(version.as_str()));
        }
        if version.is_some_and(|version| !version.is_legacy()) {
            headers.insert(HeaderName::from_static(header::METHOD), HeaderValue::from_static(method));
            if let Some(name) = name {
                headers.insert(HeaderName::from_static(header::NAME), mirror::encode(name));
            }
        } else if let Some(id) = &self.id {
            headers.insert(HeaderName::from_static(header::SESSION_ID), id.clone());
        }
        headers
    }

    /// Whether the server keeps a session.
    pub(super) fn is_kept(&self) -> bool {
        self.id.is_some()
    }

    /// Takes the session's id from the answer to `initialize`.
    pub(super) fn remember(&mut self, headers: &HeaderMap) {
        self.id = headers.get(header::SESSION_ID).cloned();
    }
}

impl Step {
    /// The method, and what it is about.
    fn method(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Discover => (method::DISCOVER, None),
            Self::Initialize => (method::INITIALIZE, None),
            Self::Initialized => (method::INITIALIZED, None),
            Self::List { .. } => (method::TOOLS_LIST, None),
            Self::Call(tool) => (method::TOOLS_CALL, Some(tool)),
        }
    }

    fn params(&self, version: &str) -> Value {
        match self {
            Self::Discover | Self::Initialized | Self::List { cursor: None, .. } => json!({}),
            Self::Initialize => json!({
                "protocolVersion": Version::LATEST_LEGACY.as_str(),
                "capabilities": {},
                "clientInfo": info(version),
            }),
            Self::List { cursor: Some(cursor), .. } => json!({ "cursor": cursor }),
            Self::Call(tool) => json!({ "name": tool, "arguments": {} }),
        }
    }
}

/// The answer to the request of this number: the body itself, or an event of it.
pub(super) fn answer(fetched: &Fetched, number: u64) -> Result<Answer, String> {
    let kind = fetched.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let messages = if kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream") {
        let mut parser = sse::Parser::new(limits::MAX_CATALOG);
        parser.push(&fetched.body).map_err(|error| error.to_string())?;
        parser.filter(sse::SseEvent::is_message).map(|event| event.data).collect()
    } else {
        Vec::from([fetched.body.clone()])
    };
    let own = RawId::from_number(number);
    let outcome = messages.iter().find_map(|message| match rpc::parse(message) {
        // An error whose sender could not read the id is the answer, too: nothing else was asked.
        Ok(Message::Response { id, outcome }) if id.as_ref().is_none_or(|id| *id == own) => Some(outcome),
        _ => None,
    });
    match outcome {
        Some(Ok(result)) => Ok(Answer::Result(result)),
        Some(Err(error)) => Ok(Answer::Error(described(&error))),
        None => Err("its answer is no answer of MCP".into()),
    }
}

/// What is read of `server/discover` and `initialize`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Greeting {
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(default)]
    supported_versions: Vec<String>,
    #[serde(default)]
    server_info: Option<Info>,
    #[serde(default, rename = "_meta")]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    name: String,
    #[serde(default)]
    version: Option<String>,
}

impl Greeting {
    /// Reads it.
    pub(super) fn read(result: &[u8]) -> Option<Self> {
        serde_json::from_slice(result).ok()
    }

    /// The version to go on with: without a handshake if the server speaks that.
    pub(super) fn version(&self) -> Option<Version> {
        let modern = Version::V2026_07_28;
        if self.supported_versions.iter().any(|version| version == modern.as_str()) {
            return Some(modern);
        }
        self.protocol_version.as_deref().and_then(Version::parse).filter(|version| version.is_legacy())
    }

    /// What the server calls itself.
    pub(super) fn server(self) -> Option<String> {
        let info = self.server_info.or(self.meta.and_then(|meta| meta.server_info))?;
        Some(match info.version {
            Some(version) => format!("{} {version}", info.name),
            None => info.name,
        })
    }
}

/// What is read of a tool.
#[derive(Deserialize)]
pub(super) struct Tool {
    pub(super) name: String,
    #[serde(default)]
    annotations: Value,
}

impl Tool {
    /// Whether it says of itself that it changes nothing.
    pub(super) fn only_reads(&self) -> bool {
        self.annotations.get("readOnlyHint").and_then(Value::as_bool).unwrap_or(false)
    }
}

/// A page of tools, and where the next begins.
pub(super) fn tools(result: &[u8]) -> Option<(Vec<Tool>, Option<String>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        tools: Vec<Tool>,
        #[serde(default)]
        next_cursor: Option<String>,
    }
    let page: Page = serde_json::from_slice(result).ok()?;
    Some((page.tools, page.next_cursor))
}

/// Whether a call went well, as its result says.
pub(super) fn went_well(result: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Called {
        #[serde(default)]
        is_error: bool,
    }
    serde_json::from_slice(result).is_ok_and(|called: Called| !called.is_error)
}

fn described(error: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Described {
        code: i64,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Described>(error) {
        Ok(Described { code, message }) => {
            format!("{} ({code})", message.chars().take(MAX_MESSAGE).collect::<String>())
        }
        Err(_) => "an error without a code".into(),
    }
}

/// What a request without a session says of whom it is from.
pub(super) fn meta(version: &str) -> Value {
    json!({
        key::VERSION: Version::V2026_07_28.as_str(),
        key::CLIENT_INFO: info(version),
        key::CLIENT_CAPABILITIES: {},
    })
}

fn info(version: &str) -> Value {
    json!({ "name": "mcp-local-tunnel-probe", "version": version })
}

fn bearer(token: &Secret) -> HeaderValue {
    let text = Secret::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::try_from(text.expose()).expect("tokens are visible ASCII: others are not taken");
    value.set_sensitive(true);
    value
}

/// What of a server's message people are shown.
const MAX_MESSAGE: usize = 200;
