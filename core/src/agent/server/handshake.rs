//! What a server is asked before it takes calls, and again when its tools change.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{About, Fault, Link, Server, State, Timer, people};
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::tools::{Tool, Tools};
use crate::agent::veil::Veil;
use crate::limits;
use crate::mcp::{Version, code, method};
use crate::rpc::{self, envelope};

/// What a server is being asked.
#[derive(Debug)]
pub(super) enum Asked {
    /// `initialize`.
    Initialize(RequestId),
    /// `tools/list`, page by page.
    Tools(Listing),
    /// Nothing, since it cannot answer any more.
    Nothing,
}

/// A list under way.
#[derive(Debug)]
pub(super) struct Listing {
    request: RequestId,
    tools: Vec<Tool>,
    bytes: usize,
    pages: usize,
    /// The tools changed again meanwhile.
    stale: bool,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i64,
    /// For people.
    pub(super) reason: String,
}

impl Asked {
    pub(super) fn request(&self) -> Option<RequestId> {
        match self {
            Self::Initialize(request) => Some(*request),
            Self::Tools(listing) => Some(listing.request),
            Self::Nothing => None,
        }
    }
}

impl Server {
    /// Begins the handshake (2025-11-25, Lifecycle, Initialization). No capability is declared: what a server could ask
    /// a client is declined.
    pub(super) fn initialize(&mut self, cx: &mut Cx) {
        let request = cx.request_id();
        self.asked = Some(Asked::Initialize(request));
        let params = format!(
            "{{\"protocolVersion\":\"{}\",\"capabilities\":{{}},\"clientInfo\":{{\"name\":\"mcp-local-tunnel\",\"version\":{}}}}}",
            Version::LATEST_LEGACY.as_str(),
            rpc::quoted(&cx.version)
        );
        self.ask(request, method::INITIALIZE, params.as_bytes(), cx);
    }

    /// The tools changed. Several changes in a row cost one list.
    pub(super) fn tools_changed(&mut self, cx: &mut Cx) {
        match (&mut self.asked, self.state) {
            (Some(Asked::Tools(listing)), _) => listing.stale = true,
            (None, State::Ready) => cx.arm(self.slot, Timer::Relist, limits::RELIST_DELAY),
            (None | Some(Asked::Initialize(_) | Asked::Nothing), _) => {}
        }
    }

    /// Asks for the tools again; or gives up a list that does not come.
    pub(super) fn list_again(&mut self, cx: &mut Cx) {
        match self.asked.take() {
            None => self.list(cx),
            Some(Asked::Tools(listing)) => {
                tracing::warn!(server = self.name.as_str(), "server does not answer tools/list: its old tools stay");
                if let Some(Link::Http(http)) = &mut self.link {
                    http.abandon(listing.request, cx);
                }
                if listing.stale {
                    cx.arm(self.slot, Timer::Relist, limits::RELIST_DELAY);
                }
            }
            other @ Some(Asked::Initialize(_) | Asked::Nothing) => self.asked = other,
        }
    }

    /// The answer to what was asked.
    pub(super) fn hear_about(&mut self, outcome: Result<Bytes, Refusal>, cx: &mut Cx) {
        match self.asked.take() {
            Some(Asked::Initialize(_)) => self.initialized(outcome, cx),
            Some(Asked::Tools(listing)) => self.listed(listing, outcome, cx),
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
            http.set_version(version);
        }
        // Until the new list is complete the old tools stay.
        self.about = About { tools: core::mem::take(&mut self.about.tools), ..about };
        self.note(envelope::notification(method::INITIALIZED, b""), cx);
        self.list(cx);
    }

    fn list(&mut self, cx: &mut Cx) {
        let request = cx.request_id();
        self.asked = Some(Asked::Tools(Listing { request, tools: Vec::new(), bytes: 0, pages: 0, stale: false }));
        if self.state == State::Ready {
            cx.arm(self.slot, Timer::Relist, limits::RELIST_TIMEOUT);
        }
        self.ask(request, method::TOOLS_LIST, b"{}", cx);
    }

    fn listed(&mut self, mut listing: Listing, outcome: Result<Bytes, Refusal>, cx: &mut Cx) {
        let page = match &outcome {
            Ok(result) => listing.add(result, &self.name),
            // A server without tools need not know the method, whatever it declared.
            Err(refusal) if refusal.code == code::METHOD_NOT_FOUND => Ok(None),
            Err(refusal) => Err(format!("tools/list failed: {}", refusal.reason)),
        };
        match page {
            Ok(Some(cursor)) => {
                listing.request = cx.request_id();
                let params = [b"{\"cursor\":", &cursor[..], b"}"].concat();
                let request = listing.request;
                self.asked = Some(Asked::Tools(listing));
                self.ask(request, method::TOOLS_LIST, &params, cx);
            }
            Ok(None) => self.listed_all(listing, cx),
            Err(reason) if self.state == State::Ready => {
                tracing::warn!(server = self.name.as_str(), reason, "tools not listed: the old ones stay");
                self.listing_over(listing.stale, cx);
            }
            Err(reason) => {
                let reason = self.with_noise(reason);
                self.fail(Fault::Transient, reason, cx);
            }
        }
    }

    fn listed_all(&mut self, listing: Listing, cx: &mut Cx) {
        self.about.tools = Tools::new(listing.tools, &self.name);
        self.judge_tools(cx);
        if cx.guard.holds(&self.name) {
            cx.guard.look_again(&self.name, &mut cx.out);
        }
        self.listing_over(listing.stale, cx);
        self.keep(cx);
        if self.session.is_some() {
            cx.report(Report::Learned(self.slot));
        }
        if self.state == State::Probing {
            self.move_to_ready(cx);
        } else {
            cx.report(Report::Changed(self.slot));
        }
    }

    fn listing_over(&mut self, stale: bool, cx: &mut Cx) {
        cx.disarm(self.slot, Timer::Relist);
        if stale {
            cx.arm(self.slot, Timer::Relist, limits::RELIST_DELAY);
        }
    }
}

impl Listing {
    /// Adds a page. `Ok(Some(cursor))`: there is another. Tools that cannot be listed are left out and said.
    fn add(&mut self, result: &[u8], server: &str) -> Result<Option<Vec<u8>>, String> {
        let page: Page<'_> = serde_json::from_slice(result)
            .map_err(|error| format!("its answer to tools/list is malformed: {error}"))?;
        for raw in page.tools {
            if raw.get().len() > limits::MAX_TOOL {
                tracing::warn!(server, bytes = raw.get().len(), "tool too large: left out");
                continue;
            }
            let Some(tool) = Tool::read(raw) else {
                tracing::warn!(server, "tool without a name left out");
                continue;
            };
            self.bytes += raw.get().len();
            if self.tools.len() == limits::MAX_TOOLS || self.bytes > limits::MAX_CATALOG / 2 {
                tracing::warn!(server, tools = self.tools.len(), "too many tools: the rest is left out");
                return Ok(None);
            }
            self.tools.push(tool);
        }
        self.pages += 1;
        match page.next {
            Some(_) if self.pages >= limits::MAX_PAGES => {
                tracing::warn!(server, "too many pages of tools: the rest is left out");
                Ok(None)
            }
            // An empty string is a cursor like any other; only its absence ends a list.
            Some(cursor) => Ok(Some(cursor.get().as_bytes().to_vec())),
            None => Ok(None),
        }
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "nextCursor")]
    next: Option<&'a RawValue>,
}

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
        instructions: greeting.instructions.map(|text| prefix(text, limits::MAX_INSTRUCTIONS)),
        tools: Tools::default(),
    };
    Ok((version, about))
}

/// A raw value that goes into the catalog, unless it is unreasonably large.
fn kept(raw: &RawValue) -> Option<Box<RawValue>> {
    (raw.get().len() <= limits::MAX_TOOL).then(|| raw.to_owned())
}

fn prefix(mut text: String, max: usize) -> String {
    while text.len() > max {
        text.pop();
    }
    text
}

impl Refusal {
    /// What an `error` object says.
    pub(super) fn read(error: &[u8], veil: &Veil) -> Self {
        #[derive(Deserialize)]
        struct Error<'a> {
            code: i64,
            #[serde(borrow)]
            message: Cow<'a, str>,
        }
        match serde_json::from_slice::<Error<'_>>(error) {
            Ok(Error { code, message }) => {
                let reason = format!("it said \"{}\" ({code})", people(&veil.hide(&message), limits::MAX_QUOTE));
                Self { code, reason }
            }
            Err(_) => Self { code: code::INTERNAL_ERROR, reason: "it answered with a malformed error".to_string() },
        }
    }
}
