//! How a conversation with a server begins: what it is, and what it can do.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::lists::Listing;
use super::{About, Fault, Link, Server, people};
use crate::agent::bridge::Era;
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, RequestId};
use crate::agent::veil::Veil;
use crate::limits;
use crate::mcp::{Version, code, method};
use crate::rpc::{self, envelope};

/// What a server is being asked.
#[derive(Debug)]
pub(super) enum Asked {
    /// `initialize`.
    Initialize(RequestId),
    /// `server/discover`.
    Discover(RequestId, Attempt),
    /// One of its lists, page by page.
    List(Listing),
    /// Nothing, since it cannot answer any more.
    Nothing,
}

/// Whether a server may say once more that it does not speak a revision which it names as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Last,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i64,
    /// For people.
    pub(super) reason: String,
    /// The `error` as the server wrote it, if it did.
    pub(super) raw: Option<Bytes>,
}

impl Asked {
    pub(super) fn request(&self) -> Option<RequestId> {
        match self {
            Self::Initialize(request) | Self::Discover(request, _) => Some(*request),
            Self::List(listing) => Some(listing.request),
            Self::Nothing => None,
        }
    }
}

impl Server {
    /// Begins the handshake (2025-11-25, Lifecycle, Initialization). A session's own run meets the session's client; one
    /// that all share hears of everything that some client may declare, and is told when one of them did not.
    pub(super) fn initialize(&mut self, cx: &mut Cx) {
        self.set_era(Era::Legacy);
        let request = cx.request_id();
        self.asked = Some(Asked::Initialize(request));
        let caller = self.session.as_ref().map(|owner| &owner.caller);
        let version = caller.and_then(|caller| caller.version).filter(|version| version.is_legacy());
        let version = version.unwrap_or(Version::LATEST_LEGACY).as_str();
        let own = || ("mcp-local-tunnel".to_string(), cx.version.clone());
        let (name, number) = caller.map_or_else(own, Caller::name_and_version);
        let (name, number) = (rpc::quoted(&name), rpc::quoted(&number));
        let capabilities = match caller.map(|caller| core::str::from_utf8(&caller.capabilities).unwrap_or_default()) {
            None => SHARED_CAPABILITIES,
            Some("") => "{}",
            Some(declared) => declared,
        };
        let params = format!(
            "{{\"protocolVersion\":\"{version}\",\"capabilities\":{capabilities},\"clientInfo\":{{\"name\":{name},\"version\":{number}}}}}"
        );
        self.ask(request, method::INITIALIZE, params.as_bytes(), cx);
    }

    /// The answer to what was asked.
    pub(super) fn hear_about(&mut self, outcome: Result<Bytes, Refusal>, cx: &mut Cx) {
        match self.asked.take() {
            Some(Asked::Initialize(_)) => self.initialized(outcome, cx),
            Some(Asked::Discover(_, attempt)) => self.discovered(outcome, attempt, cx),
            Some(Asked::List(listing)) => self.listed(listing, outcome, cx),
            Some(Asked::Nothing) | None => {}
        }
    }

    fn initialized(&mut self, outcome: Result<Bytes, Refusal>, cx: &mut Cx) {
        let (version, about) = match outcome.map_err(|refusal| refusal.reason).and_then(|result| greeting(&result)) {
            Ok(greeting) => greeting,
            Err(reason) => {
                let reason = self.with_noise(reason);
                return self.fail(Fault::Transient, reason, cx);
            }
        };
        if let Some(Link::Http(http)) = &mut self.link {
            http.set_version(Some(version));
        }
        // Until the new lists are complete the old ones stay.
        let old = core::mem::take(&mut self.about);
        let About { tools, prompts, resources, templates, .. } = old;
        self.about = About { tools, prompts, resources, templates, ..about };
        self.note(envelope::notification(method::INITIALIZED, b""), cx);
        self.list_all(cx);
    }
}

/// What a client of [`Version::LATEST_LEGACY`] can declare that a server may ask it.
const SHARED_CAPABILITIES: &str =
    r#"{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}}}"#;

#[derive(Deserialize)]
struct Greeting<'a> {
    #[serde(rename = "protocolVersion")]
    version: String,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "serverInfo")]
    info: Option<&'a RawValue>,
    #[serde(default)]
    instructions: Option<String>,
}

/// What a server says of itself in the answer to `initialize`.
fn greeting(result: &[u8]) -> Result<(Version, About), String> {
    let greeting: Greeting<'_> =
        serde_json::from_slice(result).map_err(|error| format!("its answer to initialize is malformed: {error}"))?;
    let version = Version::parse(&greeting.version).filter(|version| version.is_legacy()).ok_or_else(|| {
        format!("it speaks MCP {}, which this agent does not", people(&greeting.version, limits::MAX_QUOTE))
    })?;
    let about = About {
        info: greeting.info.and_then(kept),
        capabilities: greeting.capabilities.and_then(kept),
        instructions: greeting.instructions.map(shortened),
        versions: Vec::from([version.as_str().to_string()]),
        ..About::default()
    };
    Ok((version, about))
}

/// A raw value that goes into the catalog, unless it is unreasonably large.
pub(super) fn kept(raw: &RawValue) -> Option<Box<RawValue>> {
    (raw.get().len() <= limits::MAX_TOOL).then(|| raw.to_owned())
}

/// Instructions as the catalog takes them.
pub(super) fn shortened(mut text: String) -> String {
    while text.len() > limits::MAX_INSTRUCTIONS {
        text.pop();
    }
    text
}

impl Refusal {
    /// What an `error` object says.
    pub(super) fn read(error: &Bytes, veil: &Veil) -> Self {
        #[derive(Deserialize)]
        struct Error<'a> {
            code: i64,
            #[serde(borrow)]
            message: Cow<'a, str>,
        }
        let raw = Some(error.clone());
        match serde_json::from_slice::<Error<'_>>(error) {
            Ok(Error { code, message }) => {
                let reason = format!("it said \"{}\" ({code})", people(&veil.hide(&message), limits::MAX_QUOTE));
                Self { code, reason, raw }
            }
            Err(_) => {
                Self { code: code::INTERNAL_ERROR, reason: "it answered with a malformed error".to_string(), raw }
            }
        }
    }
}
