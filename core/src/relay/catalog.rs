//! One device's catalog: what its agent says of the local servers, checked.
//!
//! An agent may be hostile or broken. Nothing it lists can hide another server's tools or break `tools/list`: what does
//! not pass is left out, and named in `status` and the log.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::items::{self, Item, Kind, Left};
use super::lists::{self, Lists};
use crate::config::RelayLimits;
use crate::limits;
use crate::mcp::catalog::{self, Changed, State};
use crate::rpc::{self, object::Object};
use crate::sse::one_line;
use crate::time::Instant;

/// The servers of one device, by name.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    servers: BTreeMap<Arc<str>, Server>,
    /// What was wrong with the last update as a whole.
    fault: Option<String>,
    /// What its agent says of the device as a whole; printable, capped.
    remark: Option<String>,
}

/// One local server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) state: State,
    /// Why it is not ready; printable, capped.
    pub(super) reason: Option<String>,
    /// The raw `serverInfo` object.
    pub(super) info: Option<Bytes>,
    pub(super) instructions: Option<String>,
    /// The raw `capabilities` object.
    pub(super) capabilities: Option<Object>,
    /// In the server's own order.
    pub(super) tools: Vec<Tool>,
    pub(super) prompts: Vec<Item>,
    pub(super) resources: Vec<Item>,
    pub(super) templates: Vec<Item>,
    /// What was left out, and why.
    pub(super) dropped: Vec<Dropped>,
    /// What its device says is not what was pinned; printable, capped.
    pub(super) changed: Vec<Changed>,
    /// When it came into its state.
    pub(super) since: Instant,
    pub(super) restarts: u32,
    /// The raw result of `tools/list` under the tools' own names.
    pub(super) list: Bytes,
    /// All lists, for who listens to this server alone.
    pub(super) lists: Lists,
}

/// One tool, as its server lists it.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: Arc<str>,
    /// The server's own object, on one line.
    pub(super) json: Object,
    /// Whether it says of itself that it only reads.
    pub(super) read_only: bool,
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
    pub(super) fn apply(&mut self, update: &Bytes, most: &RelayLimits, now: Instant) {
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
        if update.whole {
            self.servers.clear();
        }
        for name in update.removed {
            self.servers.remove(name.as_str());
        }
        for raw in update.servers {
            if let Err(why) = self.put(raw, most, now) {
                tracing::warn!(reason = why, "server left out of a catalog");
                self.fault = Some(format!("a server was left out: {why}"));
            }
        }
    }

    /// The servers, by name.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&Arc<str>, &Server)> {
        self.servers.iter()
    }

    /// The server of that name, or the only one whose label it is.
    pub(super) fn server(&self, name: &str) -> Option<(&Arc<str>, &Server)> {
        self.servers
            .get_key_value(name)
            .or_else(|| self.servers.iter().find(|(own, _)| crate::names::label(own) == name))
    }

    /// What was wrong with the last update as a whole.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// What its agent says of the device as a whole.
    pub(super) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    fn refuse(&mut self, why: &'static str) {
        tracing::warn!(reason = why, "catalog refused");
        self.fault = Some(format!("the last catalog was refused: {why}"));
    }

    fn put(&mut self, raw: &RawValue, most: &RelayLimits, now: Instant) -> Result<(), &'static str> {
        let server: catalog::Server = serde_json::from_str(raw.get()).map_err(|_| "it is not a server")?;
        let name: Arc<str> = Arc::from(server.name.as_str());
        if !is_name(&name) {
            return Err("its name is empty, too long or not printable");
        }
        self.servers.remove(&name);
        if self.servers.len() >= limits::MAX_SERVERS {
            return Err("there are too many servers");
        }
        let room = self.room(most);
        let server = Server::checked(server, room, now);
        for dropped in &server.dropped {
            tracing::warn!(server = %name, tool = %dropped.name, reason = dropped.why, "tool left out of a catalog");
        }
        self.servers.insert(name, server);
        Ok(())
    }

    fn room(&self, most: &RelayLimits) -> Room {
        let left =
            |most: usize, count: fn(&Server) -> usize| most.saturating_sub(self.servers.values().map(count).sum());
        Room {
            tools: left(most.tools_per_agent, |server| server.tools.len()),
            prompts: left(Kind::Prompt.most(), |server| server.prompts.len()),
            resources: left(Kind::Resource.most(), |server| server.resources.len()),
            templates: left(Kind::Template.most(), |server| server.templates.len()),
            bytes: left(most.catalog_per_agent, Server::bytes),
        }
    }
}

/// What a device may still list.
struct Room {
    tools: usize,
    prompts: usize,
    resources: usize,
    templates: usize,
    bytes: usize,
}

impl Server {
    fn checked(server: catalog::Server, room: Room, now: Instant) -> Self {
        let mut bytes = room.bytes;
        let (tools, mut dropped) = check_tools(server.tools, room.tools, &mut bytes);
        let mut check =
            |kind, raw, items| items::check(kind, raw, &mut Left { items, bytes: &mut bytes }, &mut dropped);
        let prompts = check(Kind::Prompt, server.prompts, room.prompts);
        let resources = check(Kind::Resource, server.resources, room.resources);
        let templates = check(Kind::Template, server.templates, room.templates);
        let capabilities = server.capabilities.and_then(check_object);
        let list = list_result(tools.iter().map(|tool| tool.json.text().clone()));
        let mut checked = Self {
            state: server.state,
            reason: server.reason.map(|reason| printable(&reason, limits::MAX_REASON)),
            info: server.info.and_then(check_info),
            capabilities,
            instructions: server.instructions.filter(|text| text.len() <= limits::MAX_INSTRUCTIONS),
            lists: Lists::default(),
            list,
            tools,
            prompts,
            resources,
            templates,
            dropped,
            changed: server.changed.iter().take(limits::MAX_CHANGED).map(checked_change).collect(),
            since: now - core::time::Duration::from_secs(server.since_secs),
            restarts: server.restarts,
        };
        checked.lists = checked.own_lists();
        checked
    }

    /// Its lists as they are, whatever it declared: a list with something in it is offered.
    fn own_lists(&self) -> Lists {
        let page =
            |kind: Kind, items: &[Item]| lists::page(kind.member(), items.iter().map(|item| item.json.text().clone()));
        let prompts = page(Kind::Prompt, &self.prompts);
        let resources = lists::Resources {
            resources: page(Kind::Resource, &self.resources),
            templates: page(Kind::Template, &self.templates),
        };
        Lists {
            tools: self.list.clone(),
            prompts: self.has_prompts().then_some(prompts),
            resources: self.has_resources().then_some(resources),
        }
    }

    /// Whether it has prompts, or may have some.
    pub(super) fn has_prompts(&self) -> bool {
        self.declares(&["prompts"]) || !self.prompts.is_empty()
    }

    /// Whether it has resources, or may have some.
    pub(super) fn has_resources(&self) -> bool {
        self.declares(&["resources"]) || !(self.resources.is_empty() && self.templates.is_empty())
    }

    /// What its lists take of what its device may list, in bytes.
    fn bytes(&self) -> usize {
        let of = |items: &[Item]| items.iter().map(|item| item.json.text().len() + 1).sum::<usize>();
        self.list.len() + of(&self.prompts) + of(&self.resources) + of(&self.templates)
    }

    /// Whether the tool of that name says that it only reads; one that is not listed says nothing.
    pub(super) fn is_read_only(&self, tool: &str) -> bool {
        self.tools.iter().any(|listed| &*listed.name == tool && listed.read_only)
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

/// The raw result of `tools/list`: one page with these objects.
pub(super) fn list_result(tools: impl IntoIterator<Item = Bytes>) -> Bytes {
    lists::page("tools", tools)
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

/// `most` and `left` are how many tools and bytes its device may still list.
fn check_tools(raw: Vec<Box<RawValue>>, most: usize, left: &mut usize) -> (Vec<Tool>, Vec<Dropped>) {
    let (mut tools, mut dropped, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, raw) in raw.into_iter().enumerate() {
        let length = raw.get().len();
        let checked = match check_tool(raw) {
            Ok(_) if tools.len() >= most => Err((None, "the device lists too many tools (limits.toolsPerAgent)")),
            Ok(_) if length > *left => Err((None, "the device lists too much (limits.catalogPerAgent)")),
            Ok(tool) if !seen.insert(tool.name.clone()) => {
                Err((Some(tool.name.to_string()), "the name is there twice"))
            }
            checked => checked,
        };
        match checked {
            Ok(tool) => {
                *left = left.saturating_sub(length + 1);
                tools.push(tool);
            }
            Err((name, why)) if dropped.len() < MAX_DROPPED => {
                let name = name
                    .map_or_else(|| format!("#{}", index + 1), |name| printable(&name, 2 * limits::MAX_LISTED_NAME));
                dropped.push(Dropped { name, why });
            }
            Err(_) => {}
        }
    }
    (tools, dropped)
}

fn check_tool(raw: Box<RawValue>) -> Result<Tool, (Option<String>, &'static str)> {
    if raw.get().len() > limits::MAX_TOOL {
        return Err((None, "it is larger than 64 KiB"));
    }
    let text: Box<str> = raw.into();
    let json = one_line(Bytes::from(String::from(text)));
    let json = Object::parse(&json).map_err(|_| (None, "it is not an object"))?;
    let name = json.get("name").and_then(|raw| rpc::string(&raw).map(|name| name.into_owned()));
    let name = name.ok_or((None, "its name is missing or not a string"))?;
    if !is_name(&name) {
        return Err((Some(name), "its name is empty, too long or not printable"));
    }
    match json.get("inputSchema") {
        Some(schema) if schema.starts_with(b"{") => {
            let read_only = json.get("annotations").is_some_and(|raw| catalog::is_read_only(&raw));
            Ok(Tool { name: Arc::from(name), json, read_only })
        }
        Some(_) | None => Err((Some(name), "its inputSchema is missing or not an object")),
    }
}

/// A raw `serverInfo` that a client can read: an object with a name and a version.
fn check_info(raw: Box<RawValue>) -> Option<Bytes> {
    let object = check_object(raw)?;
    let text = |key| object.get(key).is_some_and(|raw| rpc::string(&raw).is_some());
    (text("name") && text("version")).then(|| object.text().clone())
}

/// A raw object of a reasonable size, on one line.
fn check_object(raw: Box<RawValue>) -> Option<Object> {
    if raw.get().len() > limits::MAX_TOOL {
        return None;
    }
    let text: Box<str> = raw.into();
    Object::parse(&one_line(Bytes::from(String::from(text)))).ok()
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
