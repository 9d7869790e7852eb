//! One device's catalog: what its agent says of the local servers, checked.
//!
//! An agent may be hostile or broken. Nothing it lists can hide another server's tools or break `tools/list`: what does
//! not pass is left out, and named in `status` and the log.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::items::Kind;
use super::offer::{Offer, Room, Said};
use crate::config::RelayLimits;
use crate::limits;
use crate::mcp::Era;
use crate::mcp::catalog::{self, Changed, State};
use crate::time::{Instant, Now};

/// The servers of one device, by name.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    servers: Servers,
    /// What was wrong with the last update as a whole.
    fault: Option<String>,
    /// What its agent says of the device as a whole; printable, capped.
    remark: Option<String>,
}

/// Servers in the order of their names. A map would make room for eleven of them at once, and most devices have a few.
#[derive(Debug, Default)]
struct Servers(Vec<(Arc<str>, Box<Server>)>);

impl Servers {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name))
    }

    fn get(&self, name: &str) -> Option<&(Arc<str>, Box<Server>)> {
        self.find(name).ok().and_then(|at| self.0.get(at))
    }

    fn remove(&mut self, name: &str) -> Option<Box<Server>> {
        self.find(name).ok().map(|at| self.0.remove(at).1)
    }

    /// Puts one in whose name none has.
    fn insert(&mut self, name: Arc<str>, server: Box<Server>) {
        if let Err(at) = self.find(&name) {
            self.0.insert(at, (name, server));
        }
    }
}

/// One local server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) state: State,
    /// Why it is not ready; printable, capped.
    pub(super) reason: Option<String>,
    /// What it offers all clients, or those of the modern era.
    modern: Offer,
    /// What it offers those of the legacy era, should that be something else.
    legacy: Option<Box<Offer>>,
    /// What was left out, and why.
    pub(super) dropped: Vec<Dropped>,
    /// What its device says is not what was pinned; printable, capped.
    pub(super) changed: Vec<Changed>,
    /// When it came into its state.
    pub(super) since: Instant,
    pub(super) restarts: u32,
    /// Whether each session has a run of it for itself: what is listed here is then what it offers without one.
    pub(super) isolated: bool,
    /// When the lists that clients with a session have changed last, or it said that they did.
    pub(super) listed_at: Now,
    /// What it takes of what its device may list.
    taken: Room,
}

/// A tool, or what else is listed, that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Its name, printable and capped, or its place in the list.
    pub(super) name: String,
    pub(super) why: &'static str,
}

impl Catalog {
    /// Takes in an update: JSON of [`catalog::Update`]. One that cannot be read at all changes nothing but the fault.
    /// Returns whether what is listed may be something else now.
    pub(super) fn apply(&mut self, update: &Bytes, most: &RelayLimits, now: Now) -> bool {
        if !update.trim_ascii_start().starts_with(b"{") {
            return self.refuse("it is not an object");
        }
        let update = match serde_json::from_slice::<Update<'_>>(update) {
            Ok(update) if update.servers.len() <= limits::MAX_SERVERS => update,
            Ok(_) => return self.refuse("it lists too many servers"),
            Err(_) => return self.refuse("it is not a catalog"),
        };
        self.fault = None;
        self.remark = update.remark.map(|text| printable(&text, limits::MAX_REASON)).filter(|text| !text.is_empty());
        let mut old = if update.whole { core::mem::take(&mut self.servers) } else { Servers::default() };
        let mut is_news = false;
        for name in update.removed {
            is_news |= self.servers.remove(&name).is_some();
        }
        for raw in update.servers {
            match self.put(raw, &mut old, most, now) {
                Ok(listed_anew) => is_news |= listed_anew,
                Err(why) => {
                    tracing::warn!(reason = why, "server left out of a catalog");
                    self.fault = Some(format!("a server was left out: {why}"));
                    is_news = true;
                }
            }
        }
        self.servers.0.shrink_to_fit();
        is_news || !old.0.is_empty()
    }

    /// Whether any server offers clients of one era something else than those of the other.
    pub(super) fn differs(&self) -> bool {
        self.servers.0.iter().any(|(_, server)| server.differs())
    }

    /// The servers, by name.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&Arc<str>, &Server)> {
        self.servers.0.iter().map(|(name, server)| (name, &**server))
    }

    /// The server of that name, or the only one whose label it is.
    pub(super) fn server(&self, name: &str) -> Option<(&Arc<str>, &Server)> {
        self.servers
            .get(name)
            .or_else(|| self.servers.0.iter().find(|(own, _)| crate::names::label(own) == name))
            .map(|(name, server)| (name, &**server))
    }

    /// What was wrong with the last update as a whole.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// What its agent says of the device as a whole.
    pub(super) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    fn refuse(&mut self, why: &'static str) -> bool {
        tracing::warn!(reason = why, "catalog refused");
        self.fault = Some(format!("the last catalog was refused: {why}"));
        false
    }

    /// Takes in what is said of one server, which may be among those of the last whole catalog. Returns whether it lists
    /// something else than before.
    fn put(&mut self, raw: &RawValue, old: &mut Servers, most: &RelayLimits, now: Now) -> Result<bool, &'static str> {
        let server: catalog::Server = serde_json::from_str(raw.get()).map_err(|_| "it is not a server")?;
        let name: Arc<str> = Arc::from(server.name.as_str());
        if !is_name(&name) {
            return Err("its name is empty, too long or not printable");
        }
        let before = self.servers.remove(&name).or_else(|| old.remove(&name));
        if self.servers.0.len() >= limits::MAX_SERVERS {
            return Err("there are too many servers");
        }
        let room = self.room(most);
        let mut server = Server::checked(server, room, now);
        let is_like = |before: &Server, era| before.offer(era).lists.are_like(&server.offer(era).lists);
        let is_news =
            before.as_ref().is_none_or(|before| !(is_like(before, Era::Legacy) && is_like(before, Era::Modern)));
        let is_said = |before: &Server| before.offer(Era::Legacy).lists != server.offer(Era::Legacy).lists;
        if let Some(before) = before.filter(|before| !is_said(before)) {
            server.listed_at = before.listed_at;
        }
        for dropped in &server.dropped {
            tracing::warn!(server = %name, tool = %dropped.name, reason = dropped.why, "tool left out of a catalog");
        }
        self.servers.insert(name, Box::new(server));
        Ok(is_news)
    }

    fn room(&self, most: &RelayLimits) -> Room {
        let all = Room {
            tools: most.tools_per_agent,
            prompts: Kind::Prompt.most(),
            resources: Kind::Resource.most(),
            templates: Kind::Template.most(),
            bytes: most.catalog_per_agent,
        };
        self.servers.0.iter().fold(all, |left, (_, server)| left.without(server.taken))
    }
}

impl Server {
    fn checked(mut server: catalog::Server, room: Room, now: Now) -> Self {
        let (mut left, mut dropped) = (room, Vec::new());
        let legacy = server.legacy.take();
        let said = Said {
            info: server.info,
            capabilities: server.capabilities,
            instructions: server.instructions,
            tools: server.tools,
            prompts: server.prompts,
            resources: server.resources,
            templates: server.templates,
            announced: server.announced,
        };
        let modern = Offer::checked(said, &mut left, &mut dropped);
        let announced = server.announced_legacy;
        let legacy = (legacy.is_some() || announced.is_some()).then(|| {
            let said = legacy.map(|said| *said).unwrap_or_default();
            modern.but(said, announced.unwrap_or(server.announced), &mut left, &mut dropped)
        });
        Self {
            state: server.state,
            reason: server.reason.map(|reason| printable(&reason, limits::MAX_REASON)),
            modern,
            legacy: legacy.map(Box::new),
            dropped,
            changed: server.changed.iter().take(limits::MAX_CHANGED).map(checked_change).collect(),
            listed_at: now,
            since: now.instant - core::time::Duration::from_secs(server.since_secs),
            restarts: server.restarts,
            isolated: server.isolated,
            taken: room.without(left),
        }
    }

    /// What it offers clients of that era.
    pub(super) fn offer(&self, era: Era) -> &Offer {
        match (era, &self.legacy) {
            (Era::Legacy, Some(legacy)) => legacy,
            (Era::Legacy | Era::Modern, _) => &self.modern,
        }
    }

    /// Whether clients of one era are offered something else than those of the other.
    pub(super) fn differs(&self) -> bool {
        self.legacy.is_some()
    }

    /// Whether its device takes calls for it: one that is coming up, or can, has them wait there until it is ready.
    pub(super) fn takes_calls(&self) -> bool {
        match self.state {
            State::Starting | State::Probing | State::Ready | State::Asleep | State::Restarting => true,
            State::Failed | State::Unknown => false,
        }
    }
}

fn checked_change(changed: &Changed) -> Changed {
    Changed {
        tool: printable(&changed.tool, limits::MAX_QUOTE),
        change: printable(&changed.change, limits::MAX_REASON),
        held: changed.held,
    }
}

/// `text` without control characters and direction marks, cut at `max` bytes.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut out: String = text.chars().map(|c| if is_printable(c) { c } else { ' ' }).collect();
    out.truncate(out.floor_char_boundary(max));
    out
}

/// Whether a character may stand in a name that people and models are shown: no control character, no mark that turns
/// the direction of text or hides itself.
pub(super) fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        && !matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// Whether it may name a server, a tool or a prompt.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_printable) && name.chars().nth(limits::MAX_LISTED_NAME).is_none()
}

/// What an agent sends, each server still raw, so that one that cannot be read does not hide the others.
#[derive(serde::Deserialize)]
struct Update<'a> {
    #[serde(default)]
    whole: bool,
    #[serde(borrow, default)]
    servers: Vec<&'a RawValue>,
    #[serde(default)]
    removed: Vec<String>,
    #[serde(default)]
    remark: Option<String>,
}

/// Left-out tools that are remembered of one server; the log has them all.
pub(super) const MAX_DROPPED: usize = 32;
