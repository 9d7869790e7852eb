//! The tools of all of a user's devices in one list: under which names they are shown, and what a name means.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::catalog::{Catalog, Dropped, MAX_DROPPED, Tool, list_result};
use super::meta;
use crate::config::Naming;
use crate::id::{ConnId, DeviceName};
use crate::limits;
use crate::names;
use crate::rpc::quoted;

/// The list of `/mcp`, and the meaning of every name in it. Rebuilt whole after a change.
#[derive(Debug)]
pub(super) struct Listing {
    /// The raw result of `tools/list`.
    pub(super) body: Bytes,
    /// Listed names.
    listed: BTreeMap<String, Target>,
    /// The spellings that are not listed; more than one meaning makes a spelling ambiguous.
    others: BTreeMap<String, Vec<Target>>,
    /// Tools that no name or room was left for.
    pub(super) dropped: Vec<Dropped>,
    /// The listed tools' JSON together, in bytes.
    length: usize,
}

/// A tool on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) conn: ConnId,
    pub(super) server: Arc<str>,
    pub(super) tool: Arc<str>,
}

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    Tool(&'a Target),
    /// Several tools, by the names they are listed under.
    Ambiguous(Vec<&'a str>),
    /// No tool; names that look alike.
    Unknown(Vec<&'a str>),
}

/// A device, as far as its tools' names go.
pub(super) struct Source<'a> {
    pub(super) conn: ConnId,
    pub(super) device: &'a DeviceName,
    pub(super) catalog: &'a Catalog,
}

impl Listing {
    /// The listing of `sources`, which come in a stable order.
    pub(super) fn new(sources: &[Source<'_>], naming: Naming) -> Self {
        let shared = match naming {
            Naming::Always | Naming::Auto => BTreeMap::new(),
            Naming::Never => short_names(sources),
        };
        let with_device = |short: &str| match naming {
            Naming::Always => true,
            Naming::Auto => sources.len() > 1,
            Naming::Never => shared.get(short).is_some_and(|count| *count > 1),
        };
        let mut listing = Self {
            body: Bytes::new(),
            listed: BTreeMap::new(),
            others: BTreeMap::new(),
            dropped: Vec::new(),
            length: 0,
        };
        let mut shown = meta::tools();
        for source in sources {
            let device = names::label(source.device.as_str());
            for (server, state) in source.catalog.servers() {
                let label = names::label(server);
                for tool in &state.tools {
                    let short = names::listed(None, server, &tool.name);
                    let long = names::listed(Some(source.device.as_str()), server, &tool.name);
                    let prefixed = with_device(&short);
                    let (name, other) = if prefixed { (long, short) } else { (short, long) };
                    let target = Target { conn: source.conn, server: server.clone(), tool: tool.name.clone() };
                    let label = if prefixed { format!("[{device}/{label}] ") } else { format!("[{label}] ") };
                    listing.add(name, other, target, tool, &label, &mut shown);
                }
            }
        }
        listing.body = list_result(shown);
        listing
    }

    /// What `name` means. A listed name always wins over another tool's other spelling.
    pub(super) fn resolve(&self, name: &str) -> Meaning<'_> {
        if let Some(target) = self.listed.get(name) {
            return Meaning::Tool(target);
        }
        match self.others.get(name).map(Vec::as_slice) {
            Some([target]) => Meaning::Tool(target),
            Some(targets) => Meaning::Ambiguous(
                self.listed
                    .iter()
                    .filter(|(_, target)| targets.contains(target))
                    .map(|(name, _)| name.as_str())
                    .collect(),
            ),
            None => Meaning::Unknown(self.near(name)),
        }
    }

    /// The listed names of each server's tools.
    pub(super) fn names_by_server(&self) -> BTreeMap<(ConnId, &str), Vec<&str>> {
        let mut by_server: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for (name, target) in &self.listed {
            by_server.entry((target.conn, target.server.as_ref())).or_default().push(name);
        }
        by_server
    }

    /// Lists a tool under `name`, or under `other` when another tool has that name already.
    fn add(&mut self, name: String, other: String, target: Target, tool: &Tool, label: &str, shown: &mut Vec<Bytes>) {
        let (name, other) = if self.listed.contains_key(&name) { (other, name) } else { (name, other) };
        let length = self.length.saturating_add(tool.json.text().len());
        let full = self.listed.len() >= limits::MAX_TOOLS || length > limits::MAX_CATALOG;
        match self.listed.entry(name) {
            Entry::Vacant(entry) if !full => {
                self.length = length;
                shown.push(renamed(tool, entry.key(), label));
                entry.insert(target.clone());
            }
            entry => {
                let why = if full { "all devices together list too much" } else { "another tool has its name" };
                if self.dropped.len() < MAX_DROPPED {
                    self.dropped.push(Dropped { name: entry.key().clone(), why });
                }
                return;
            }
        }
        self.others.entry(other).or_default().push(target);
    }

    /// Up to three listed names that look like `name`, the nearest first.
    fn near(&self, name: &str) -> Vec<&str> {
        if name.len() > 2 * names::MAX_NAME {
            return Vec::new();
        }
        let asked_tool = names::split(name).map_or(name, |(_, tool)| tool);
        let candidates = meta::NAMES.into_iter().chain(self.listed.keys().map(String::as_str)).take(MAX_COMPARED);
        let mut near: Vec<(usize, &str)> = candidates
            .filter_map(|candidate| {
                let tool_matches = candidate.strip_suffix(asked_tool).is_some_and(|head| head.ends_with("__"));
                let distance = if tool_matches { 0 } else { distance(name, candidate) };
                (distance <= name.len() / 3).then_some((distance, candidate))
            })
            .collect();
        near.sort_unstable();
        near.truncate(3);
        near.into_iter().map(|(_, name)| name).collect()
    }
}

/// How many devices have a tool of each name without a device in it.
fn short_names(sources: &[Source<'_>]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for source in sources {
        for (server, state) in source.catalog.servers() {
            for tool in &state.tools {
                *count.entry(names::listed(None, server, &tool.name)).or_default() += 1;
            }
        }
    }
    count
}

/// The tool's own JSON with another name, and with `label` before its description; all else as the server wrote it.
fn renamed(tool: &Tool, name: &str, label: &str) -> Bytes {
    let name = quoted(name);
    let description = tool.json.get("description").filter(|raw| raw.starts_with(b"\"")).map(|raw| {
        let label = quoted(label);
        let label = label.strip_suffix('"').unwrap_or_default();
        let rest = raw.get(1..).unwrap_or_default();
        [label.as_bytes(), rest].concat()
    });
    match description {
        Some(description) => tool.json.replace(&[("name", name.as_bytes()), ("description", &description)]),
        None => tool.json.replace(&[("name", name.as_bytes())]),
    }
}

/// How many letters must be added, removed or exchanged to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let exchanged = diagonal + usize::from(x != *y);
            diagonal = *cell;
            left = exchanged.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Listed names that an unknown one is compared with: enough for every real list, and cheap for a hostile one.
const MAX_COMPARED: usize = 4_096;
