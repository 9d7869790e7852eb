//! The lists of a server: what it offers, asked for page by page before it is ready, and again when it changes.
//!
//! Without its tools a server is not ready; any other list that fails leaves what was known, and keeps nothing waiting.
//! That a list changed is not passed on as the server says it: the relay sees it in the catalog, once it is listed anew,
//! and also that it was said. Of a session's own run that session alone is told, likewise.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::handshake::{Asked, Refusal};
use super::lasting::Known;
use super::{Fault, Server, State, Timer, mirror, people};
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::pins::Edition;
use crate::agent::tools::{Tool, Tools};
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::envelope;
use crate::rpc::object::Object;

/// One of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::agent) enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
}

/// Which lists are to be asked for.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// One after the other, now.
    queue: BTreeSet<List>,
    /// They changed since they were asked for.
    stale: BTreeSet<List>,
    /// They may have changed, while nobody heard what the server says.
    missed: BTreeSet<List>,
    /// They did not come, for the server hung or could not be reached.
    failed: BTreeSet<List>,
    /// What was known when those that may have changed were asked for again.
    known: Option<Known>,
    /// Of those that are asked for the ones that the server said to have changed.
    announced: BTreeSet<List>,
}

/// A list under way.
#[derive(Debug)]
pub(super) struct Listing {
    list: List,
    pub(super) request: RequestId,
    items: Vec<Box<RawValue>>,
    bytes: usize,
    pages: usize,
}

impl List {
    const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    fn method(self) -> &'static str {
        match self {
            Self::Tools => method::TOOLS_LIST,
            Self::Prompts => method::PROMPTS_LIST,
            Self::Resources => method::RESOURCES_LIST,
            Self::Templates => method::RESOURCE_TEMPLATES_LIST,
        }
    }

    /// The member of its result that holds it.
    fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// What a server declares that has it.
    fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// Those that a notification says have changed; templates have none of their own.
    pub(super) fn changed_by(method: &str) -> &'static [Self] {
        match method {
            method::TOOLS_CHANGED => &[Self::Tools],
            method::PROMPTS_CHANGED => &[Self::Prompts],
            method::RESOURCES_CHANGED => &[Self::Resources, Self::Templates],
            _ => &[],
        }
    }

    /// What is said of those that changed.
    fn said(changed: &BTreeSet<Self>) -> BTreeSet<&'static str> {
        let said = |list: &Self| match list {
            Self::Tools => method::TOOLS_CHANGED,
            Self::Prompts => method::PROMPTS_CHANGED,
            Self::Resources | Self::Templates => method::RESOURCES_CHANGED,
        };
        changed.iter().map(said).collect()
    }

    /// How many bytes of it are kept.
    fn most(self) -> usize {
        match self {
            Self::Tools => limits::MAX_CATALOG / 2,
            Self::Prompts | Self::Resources | Self::Templates => limits::MAX_LIST,
        }
    }
}

impl Server {
    /// Asks for everything that the server has. Its tools are asked for whatever it declared.
    pub(super) fn list_all(&mut self, cx: &mut Cx) {
        let queue = self.has_lists();
        for list in List::ALL.into_iter().filter(|list| !queue.contains(list)) {
            self.set_list(list, Vec::new());
        }
        self.lists = Lists { queue, ..Lists::default() };
        self.next_list(cx);
    }

    /// The lists that the server has, by what it declared.
    fn has_lists(&self) -> BTreeSet<List> {
        let declared = self.about.capabilities.as_ref();
        let declared = declared.and_then(|raw| Object::parse(&Bytes::copy_from_slice(raw.get().as_bytes())).ok());
        let has = |list: &List| declared.as_ref().and_then(|all| all.get(list.capability())).is_some_and(is_object);
        List::ALL.into_iter().filter(|list| *list == List::Tools || has(list)).collect()
    }

    /// Lists changed. Several changes in a row cost one list each.
    pub(super) fn lists_changed(&mut self, lists: &[List], cx: &mut Cx) {
        if self.may_list_again() {
            self.lists.stale.extend(lists);
            self.list_soon(cx);
        }
    }

    /// The stream on which the server tells of its lists is open, for the first time or again: what it said since they were
    /// asked for was heard by nobody. All are asked for again, and those count as changed that are others.
    pub(super) fn lists_missed(&mut self, cx: &mut Cx) {
        if self.may_list_again() {
            self.lists.missed = self.has_lists();
            self.list_soon(cx);
        }
    }

    /// Whether lists are not asked for all the same, or not any more.
    fn may_list_again(&self) -> bool {
        match self.asked {
            Some(Asked::Initialize(_) | Asked::Discover(..) | Asked::Nothing) => false,
            Some(Asked::List(_)) | None => true,
        }
    }

    /// Whether some are still to be asked for.
    pub(super) fn lacks_lists(&self) -> bool {
        !self.lists.missed.is_empty() || !self.lists.stale.is_empty()
    }

    fn list_soon(&mut self, cx: &mut Cx) {
        let is_planned = cx.due_in(self.slot, Timer::Relist).is_some();
        if self.asked.is_none() && self.state == State::Ready && !is_planned {
            cx.arm(self.slot, Timer::Relist, limits::RELIST_DELAY);
        }
    }

    /// Asks again for what changed; or gives up a list that does not come.
    pub(super) fn list_again(&mut self, cx: &mut Cx) {
        match self.asked.take() {
            None if self.state == State::Ready => {
                self.lists.announced = core::mem::take(&mut self.lists.stale);
                self.lists.known = (!self.lists.missed.is_empty()).then(|| Known::of(&self.about));
                self.lists.queue = core::mem::take(&mut self.lists.missed);
                self.lists.queue.extend(&self.lists.announced);
                self.next_list(cx);
            }
            // Without its tools it is not ready: the patience with its start is the one with them.
            Some(Asked::List(listing)) if self.state == State::Ready || listing.list != List::Tools => {
                self.abandon_list(&listing, cx);
                // It hangs, and may get over it: what changed is not to stay unseen until it changes again.
                if self.state == State::Ready {
                    self.lists.stale.insert(listing.list);
                } else {
                    self.lists.failed.insert(listing.list);
                }
                self.next_list(cx);
            }
            other => self.asked = other,
        }
    }

    /// The patience with a start is over. Returns whether all that is missing are lists that it can do without.
    pub(super) fn gives_up_lists(&mut self, cx: &mut Cx) -> bool {
        match self.asked.take() {
            Some(Asked::List(listing)) if self.state == State::Probing && listing.list != List::Tools => {
                self.abandon_list(&listing, cx);
                self.lists.failed.insert(listing.list);
                self.lists.failed.append(&mut self.lists.queue);
                self.next_list(cx);
                true
            }
            other => {
                self.asked = other;
                false
            }
        }
    }

    fn abandon_list(&mut self, listing: &Listing, cx: &mut Cx) {
        let method = listing.list.method();
        tracing::warn!(server = self.name.as_str(), method, "server does not answer: what it listed before stays");
        if let Some(link) = &mut self.link {
            link.abandon(listing.request, cx);
        }
    }

    /// Asks for the next list that is wanted, or is done.
    fn next_list(&mut self, cx: &mut Cx) {
        let Some(list) = self.lists.queue.pop_first() else { return self.lists_done(cx) };
        let request = cx.request_id();
        self.asked = Some(Asked::List(Listing { list, request, items: Vec::new(), bytes: 0, pages: 0 }));
        if self.state == State::Ready {
            cx.arm(self.slot, Timer::Relist, limits::RELIST_TIMEOUT);
        } else if list != List::Tools {
            cx.arm(self.slot, Timer::Relist, limits::LIST_PATIENCE);
        }
        self.ask(request, list.method(), b"{}", cx);
    }

    /// The answer to a list's page.
    pub(super) fn listed(&mut self, mut listing: Listing, outcome: Result<Bytes, Refusal>, cx: &mut Cx) {
        let (list, method) = (listing.list, listing.list.method());
        let is_unreached = matches!(&outcome, Err(refusal) if refusal.code == code::SERVER_UNAVAILABLE);
        let page = match &outcome {
            Ok(result) => listing.add(result, &self.name),
            // A server without such things need not know the method, whatever it declared.
            Err(refusal) if refusal.code == code::METHOD_NOT_FOUND => Ok(None),
            Err(refusal) => Err(format!("{method} failed: {}", refusal.reason)),
        };
        match page {
            Ok(Some(cursor)) => {
                listing.request = cx.request_id();
                let params = [b"{\"cursor\":", &cursor[..], b"}"].concat();
                let request = listing.request;
                self.asked = Some(Asked::List(listing));
                self.ask(request, method, &params, cx);
            }
            Ok(None) => {
                self.set_list(list, listing.items);
                if list == List::Tools {
                    self.tools_listed(cx);
                }
                self.next_list(cx);
            }
            Err(reason) if self.state == State::Ready || list != List::Tools => {
                tracing::warn!(server = self.name.as_str(), reason, "not listed: what it listed before stays");
                self.lists.failed.extend(is_unreached.then_some(list));
                self.next_list(cx);
            }
            Err(reason) => {
                let reason = self.with_noise(reason);
                self.fail(Fault::Transient, reason, cx);
            }
        }
    }

    fn set_list(&mut self, list: List, items: Vec<Box<RawValue>>) {
        match list {
            List::Tools => {
                // 2026-07-28, Streamable HTTP, Schema Extension: such a tool MUST be left out, and the others not.
                let checks_fields = self.repeats_in_fields();
                let mut unusable = BTreeMap::new();
                let mut read = |raw: &RawValue| {
                    let tool = Tool::read(raw);
                    if tool.is_none() {
                        tracing::warn!(server = self.name.as_str(), "tool without a name left out");
                    }
                    let tool = tool?;
                    let Some(reason) = mirror::fault(raw).filter(|_| checks_fields) else { return Some(tool) };
                    let name = people(tool.name(), limits::MAX_QUOTE);
                    tracing::warn!(server = self.name.as_str(), tool = name, reason, "tool left out");
                    unusable.insert(tool.name().to_owned(), reason);
                    None
                };
                let tools = items.iter().filter_map(|raw| read(raw)).collect();
                self.about.tools = Tools::new(tools, &self.name);
                self.unusable = unusable;
            }
            List::Prompts => self.about.prompts = items,
            List::Resources => self.about.resources = items,
            List::Templates => self.about.templates = items,
        }
    }

    fn tools_listed(&mut self, cx: &mut Cx) {
        self.judge_tools(cx);
        if cx.guard.holds(&self.name) {
            cx.guard.look_again(&self.name, &mut cx.out);
        }
    }

    fn lists_done(&mut self, cx: &mut Cx) {
        cx.disarm(self.slot, Timer::Relist);
        if !self.lists.stale.is_empty() || !self.lists.missed.is_empty() {
            cx.arm(self.slot, Timer::Relist, limits::RELIST_DELAY);
        } else if !self.lists.failed.is_empty() {
            cx.arm(self.slot, Timer::Relist, limits::LIST_PATIENCE);
        }
        self.lists.missed.append(&mut self.lists.failed);
        self.keep(cx);
        let mut announced = core::mem::take(&mut self.lists.announced);
        if let Some(known) = self.lists.known.take() {
            let now = Known::of(&self.about);
            announced.extend(known.news(&now).flat_map(List::changed_by));
        }
        self.count(&announced, Edition::Main);
        if let Some(session) = self.session_key().map(ToString::to_string) {
            for method in List::said(&announced) {
                self.announce(Vec::from([session.clone()]), envelope::notification(method, b""), cx);
            }
        }
        if self.is_extra() {
            cx.report(Report::Learned { run: self.slot, announced });
        }
        if self.state == State::Probing {
            self.move_to_ready(cx);
        } else {
            cx.report(Report::Changed(self.slot));
        }
    }
}

impl Server {
    /// It, or a further run of it, said that these lists of an edition changed, and they were listed anew.
    pub(in crate::agent) fn count(&mut self, announced: &BTreeSet<List>, edition: Edition) {
        let has = |list| u64::from(announced.contains(&list));
        let counts = match edition {
            Edition::Main => &mut self.announced,
            Edition::Legacy => &mut self.announced_legacy,
        };
        counts.tools += has(List::Tools);
        counts.prompts += has(List::Prompts);
        counts.resources += has(List::Resources);
    }
}

impl Listing {
    /// Adds a page. `Ok(Some(cursor))`: there is another. What cannot be listed is left out and said.
    fn add(&mut self, result: &Bytes, server: &str) -> Result<Option<Bytes>, String> {
        let (method, member) = (self.list.method(), self.list.member());
        let malformed = |what: &str| format!("its answer to {method} is malformed: {what}");
        let page = Object::parse(result).map_err(|_| malformed("it is not an object"))?;
        let items = page.get(member).ok_or_else(|| malformed(&format!("`{member}` is missing")))?;
        let items: Vec<&RawValue> =
            serde_json::from_slice(&items).map_err(|_| malformed(&format!("`{member}` is not a list")))?;
        for raw in items {
            if raw.get().len() > limits::MAX_TOOL {
                tracing::warn!(server, method, bytes = raw.get().len(), "too large: left out");
                continue;
            }
            self.bytes += raw.get().len();
            if self.items.len() == limits::MAX_TOOLS || self.bytes > self.list.most() {
                tracing::warn!(server, method, listed = self.items.len(), "too many: the rest is left out");
                return Ok(None);
            }
            if self.list == List::Tools || raw.get().starts_with('{') {
                self.items.push(raw.to_owned());
            }
        }
        self.pages += 1;
        // An empty string is a cursor like any other; only its absence ends a list.
        let next = page.get("nextCursor").filter(|cursor| **cursor != *b"null");
        if next.is_some() && self.pages >= limits::MAX_PAGES {
            tracing::warn!(server, method, "too many pages: the rest is left out");
            return Ok(None);
        }
        Ok(next)
    }
}

fn is_object(raw: Bytes) -> bool {
    raw.starts_with(b"{")
}
