//! What is listed under names that are made of its server's and its own: tools and prompts.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::catalog::{Dropped, MAX_DROPPED};
use super::listing::Source;
use super::lists;
use super::offer::Offer;
use crate::config::Naming;
use crate::id::ConnId;
use crate::limits;
use crate::mcp::Era;
use crate::names;
use crate::rpc::object::Object;
use crate::rpc::quoted;

/// One list of `/mcp`, and the meaning of every name in it.
#[derive(Debug)]
pub(super) struct Named {
    /// The raw result.
    pub(super) body: Bytes,
    which: &'static Which,
    /// Listed names.
    listed: BTreeMap<String, Target>,
    /// The spellings that are not listed; more than one meaning makes a spelling ambiguous.
    others: BTreeMap<String, Vec<Target>>,
    /// What no name or room was left for.
    pub(super) dropped: Vec<Dropped>,
    /// The listed JSON together, in bytes.
    length: usize,
}

/// Which list it is.
#[derive(Debug)]
pub(super) struct Which {
    /// The member of its result that holds the entries.
    pub(super) member: &'static str,
    /// What stands before the name of one that is left out.
    pub(super) noun: &'static str,
    /// The names and the JSON of a server's.
    pub(super) of: for<'a> fn(&'a Offer) -> Vec<Entry<'a>>,
    /// The names of the relay's own.
    pub(super) reserved: &'static [&'static str],
    /// How many there may be.
    pub(super) most: usize,
}

/// The name and the JSON of one.
pub(super) type Entry<'a> = (&'a Arc<str>, &'a Bytes);

/// A tool or a prompt on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) conn: ConnId,
    pub(super) server: Arc<str>,
    /// Its server's own name for it.
    pub(super) name: Arc<str>,
}

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// One thing.
    One(&'a Target),
    /// Several, by the names they are listed under.
    Ambiguous(Vec<&'a str>),
    /// Nothing; names that look alike.
    Unknown(Vec<&'a str>),
}

impl Named {
    /// The list of `sources`, which come in a stable order, after the relay's own entries.
    pub(super) fn new(
        sources: &[Source<'_>],
        era: Era,
        naming: Naming,
        which: &'static Which,
        own: Vec<Bytes>,
    ) -> Self {
        let shared = match naming {
            Naming::Always | Naming::Auto => BTreeMap::new(),
            Naming::Never => short_names(sources, era, which),
        };
        let with_device = |short: &str| match naming {
            Naming::Always => true,
            Naming::Auto => sources.len() > 1,
            Naming::Never => shared.get(short).is_some_and(|count| *count > 1),
        };
        let (listed, others) = (BTreeMap::new(), BTreeMap::new());
        let mut named = Self { body: Bytes::new(), which, listed, others, dropped: Vec::new(), length: 0 };
        let mut shown = own;
        for source in sources {
            let device = names::label(source.device.as_str());
            for (server, state) in source.catalog.servers() {
                let label = names::label(server);
                for (name, json) in (which.of)(state.offer(era)) {
                    let short = names::listed(None, server, name);
                    let long = names::listed(Some(source.device.as_str()), server, name);
                    let prefixed = with_device(&short);
                    let spellings = if prefixed { (long, short) } else { (short, long) };
                    let target = Target { conn: source.conn, server: server.clone(), name: name.clone() };
                    let label = if prefixed { format!("[{device}/{label}] ") } else { format!("[{label}] ") };
                    named.add(spellings, target, json, &label, &mut shown);
                }
            }
        }
        named.body = lists::page(which.member, &shown);
        named
    }

    /// What `name` means. A listed name always wins over another's other spelling.
    pub(super) fn resolve(&self, name: &str) -> Meaning<'_> {
        if let Some(target) = self.listed.get(name) {
            return Meaning::One(target);
        }
        match self.others.get(name).map(Vec::as_slice) {
            Some([target]) => Meaning::One(target),
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

    /// The listed names of each server's.
    pub(super) fn names_by_server(&self) -> BTreeMap<(ConnId, &str), Vec<&str>> {
        let mut by_server: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for (name, target) in &self.listed {
            by_server.entry((target.conn, target.server.as_ref())).or_default().push(name);
        }
        by_server
    }

    /// Lists something under the first name, or under the other when something else has that already.
    fn add(
        &mut self,
        (name, other): (String, String),
        target: Target,
        json: &Bytes,
        label: &str,
        shown: &mut Vec<Bytes>,
    ) {
        let (name, other) = if self.listed.contains_key(&name) { (other, name) } else { (name, other) };
        let length = self.length.saturating_add(json.len());
        let full = self.listed.len() >= self.which.most || length > limits::MAX_CATALOG;
        match self.listed.entry(name) {
            btree_map::Entry::Vacant(entry) if !full => {
                self.length = length;
                shown.push(renamed(json, entry.key(), label));
                entry.insert(target.clone());
            }
            entry => {
                let why = if full { "all devices together list too much" } else { "another one has its name" };
                if self.dropped.len() < MAX_DROPPED {
                    let name = format!("{}{}", self.which.noun, entry.key());
                    self.dropped.push(Dropped { name, why });
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
        let candidates =
            self.which.reserved.iter().copied().chain(self.listed.keys().map(String::as_str)).take(MAX_COMPARED);
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

/// How many devices have something of each name without a device in it.
fn short_names(sources: &[Source<'_>], era: Era, which: &Which) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for source in sources {
        for (server, state) in source.catalog.servers() {
            for (name, _) in (which.of)(state.offer(era)) {
                *count.entry(names::listed(None, server, name)).or_default() += 1;
            }
        }
    }
    count
}

/// A server's own JSON with another name, and with `label` before its description; all else as the server wrote it.
fn renamed(json: &Bytes, name: &str, label: &str) -> Bytes {
    let json = Object::parse(json).expect("what is listed was checked to be an object");
    let name = quoted(name);
    let description = json.get("description").filter(|raw| raw.starts_with(b"\"")).map(|raw| {
        let label = quoted(label);
        let label = label.strip_suffix('"').unwrap_or_default();
        let rest = raw.get(1..).unwrap_or_default();
        [label.as_bytes(), rest].concat()
    });
    match description {
        Some(description) => json.replace(&[("name", name.as_bytes()), ("description", &description)]),
        None => json.replace(&[("name", name.as_bytes())]),
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
