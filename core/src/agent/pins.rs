//! Pinned tool definitions: what each tool was when it was first seen, and what became of it.
//!
//! A tool's description is read by a model, so that a server which changes it later can make the model do what nobody
//! agreed to. Compared is the JSON but for what has no meaning in it: the order of members, the space between them, the
//! spelling of characters in strings. Everything else counts.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use bytes::Bytes;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tools::{Tool, Tools};
use crate::config::{ServerConfig, Transport};
use crate::limits;
use crate::rpc::object::Object;
use crate::rpc::{quoted, string};

/// What tells a definition from any other: a hash of all but the tool's name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Print(String);

/// What became of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Another definition under a known name.
    Changed,
    /// A known definition under a new name.
    Renamed { from: String },
    /// A name that was not there when the server was first seen.
    Added,
}

/// Which of the lists of a server it is: one that speaks both eras has one in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edition {
    /// That of the server itself.
    Main,
    /// That of its run for clients of the legacy era.
    Legacy,
}

/// The pins of one server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    tools: BTreeMap<String, Pin>,
    /// The tools that are something else in the legacy edition, or only there; `None`: clients of that era never had a
    /// list of this server.
    legacy: Option<BTreeMap<String, Pin>>,
    /// Who may call what without being asked about again, the oldest first.
    approved: Vec<Approved>,
}

#[derive(Debug, Clone)]
struct Pin {
    print: Print,
    /// To show what changed; left out when it is long.
    definition: Option<Box<RawValue>>,
}

/// A tool that a person let a client call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Approved {
    client: String,
    tool: String,
    /// Of the definition that was approved.
    hash: Print,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    tools: BTreeMap<String, FilePin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    legacy: Option<BTreeMap<String, FilePin>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approved: Vec<Approved>,
}

#[derive(Serialize, Deserialize)]
struct FilePin {
    hash: Print,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<Box<RawValue>>,
}

/// What names a server's pins: its name, and what is run. Another program under an old name is another server.
pub(super) fn key(name: &str, config: &ServerConfig) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    match &config.transport {
        Transport::Stdio { command, .. } => {
            for word in command {
                context.update(word.as_bytes());
                context.update(&[0]);
            }
        }
        Transport::Http { url, .. } => context.update(url.as_bytes()),
    }
    format!("{name}-{}", hex(context.finish().as_ref().get(..8).unwrap_or_default()))
}

impl Print {
    /// Of a tool's JSON.
    pub(super) fn of(tool: &RawValue) -> Self {
        let raw = Bytes::copy_from_slice(tool.get().as_bytes());
        let mut text = Vec::with_capacity(raw.len());
        match Object::parse(&raw) {
            Ok(object) => canonical(&object.remove(&["name"]), MAX_DEPTH, &mut text),
            Err(_) => text.extend_from_slice(&raw),
        }
        Self(hex(digest::digest(&digest::SHA256, &text).as_ref()))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("changed since it was first seen"),
            Self::Renamed { from } => {
                write!(f, "was called \"{}\" when it was first seen", super::server::people(from, limits::MAX_QUOTE))
            }
            Self::Added => f.write_str("was added after the server was first seen"),
        }
    }
}

impl Change {
    /// One word for machines.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Renamed { .. } => "renamed",
            Self::Added => "added",
        }
    }
}

impl Book {
    /// Reads the file; no file is no pins.
    pub(super) fn read(content: Option<&[u8]>) -> Result<Self, String> {
        let Some(content) = content else { return Ok(Self::default()) };
        let file: File = serde_json::from_slice(content).map_err(|error| format!("it is malformed: {error}"))?;
        if file.version != VERSION {
            return Err(format!("it is of version {}, which this program does not know", file.version));
        }
        let read = |pins: BTreeMap<String, FilePin>| pins.into_iter().map(|(name, pin)| (name, pin.into())).collect();
        Ok(Self { tools: read(file.tools), legacy: file.legacy.map(read), approved: file.approved })
    }

    /// The file.
    pub(super) fn write(&self) -> Bytes {
        let write =
            |pins: &BTreeMap<String, Pin>| pins.iter().map(|(name, pin)| (name.clone(), FilePin::from(pin))).collect();
        let (tools, legacy) = (write(&self.tools), self.legacy.as_ref().map(write));
        let file = File { version: VERSION, tools, legacy, approved: self.approved.clone() };
        Bytes::from(serde_json::to_vec(&file).expect("a file is made of strings and raw JSON"))
    }

    /// How many tools are pinned.
    pub(super) fn len(&self) -> usize {
        self.tools.len() + self.legacy.as_ref().map_or(0, BTreeMap::len)
    }

    /// Whether an edition was never seen.
    pub(super) fn is_new(&self, edition: Edition) -> bool {
        match edition {
            Edition::Main => self.tools.is_empty(),
            Edition::Legacy => self.legacy.is_none(),
        }
    }

    /// An edition is there, even if all of it is pinned already.
    pub(super) fn see(&mut self, edition: Edition) {
        if edition == Edition::Legacy {
            self.legacy.get_or_insert_default();
        }
    }

    /// What was pinned under that name.
    pub(super) fn definition(&self, edition: Edition, tool: &str) -> Option<&RawValue> {
        self.own(edition).and_then(|pins| pins.get(tool)).or(self.tools.get(tool))?.definition.as_deref()
    }

    /// What is pinned of an edition alone.
    fn own(&self, edition: Edition) -> Option<&BTreeMap<String, Pin>> {
        match edition {
            Edition::Main => Some(&self.tools),
            Edition::Legacy => self.legacy.as_ref(),
        }
    }

    fn own_mut(&mut self, edition: Edition) -> &mut BTreeMap<String, Pin> {
        match edition {
            Edition::Main => &mut self.tools,
            Edition::Legacy => self.legacy.get_or_insert_default(),
        }
    }

    /// The tools of an edition that are not what was pinned. What is pinned of the main one is fine in the other, too.
    pub(super) fn changes(&self, edition: Edition, tools: &Tools) -> BTreeMap<String, Change> {
        let listed: BTreeSet<&str> = tools.iter().map(Tool::name).collect();
        let own = self.own(edition);
        let gone: BTreeMap<&str, &str> = own
            .into_iter()
            .flatten()
            .filter(|(name, _)| !listed.contains(name.as_str()))
            .map(|(name, pin)| (pin.print.0.as_str(), name.as_str()))
            .collect();
        let change = |tool: &Tool| {
            let mut pins =
                [own.and_then(|pins| pins.get(tool.name())), self.tools.get(tool.name())].into_iter().flatten();
            match pins.clone().next() {
                Some(_) => (!pins.any(|pin| pin.print == *tool.print())).then_some(Change::Changed),
                None => Some(match gone.get(tool.print().0.as_str()) {
                    Some(from) => Change::Renamed { from: (*from).to_owned() },
                    None => Change::Added,
                }),
            }
        };
        tools.iter().filter_map(|tool| Some((tool.name().to_owned(), change(tool)?))).collect()
    }

    /// Forgets a name.
    pub(super) fn forget(&mut self, edition: Edition, tool: &str) {
        self.own_mut(edition).remove(tool);
    }

    /// Pins a tool as it is now.
    pub(super) fn pin(&mut self, edition: Edition, name: &str, print: &Print, raw: &RawValue) {
        let all = self.tools.values().chain(self.legacy.iter().flat_map(BTreeMap::values));
        let kept: usize = all.filter_map(|pin| Some(pin.definition.as_ref()?.get().len())).sum();
        let fits = raw.get().len() <= limits::MAX_PINNED_TOOL && kept + raw.get().len() <= limits::MAX_PINNED;
        let pin = Pin { print: print.clone(), definition: fits.then(|| raw.to_owned()) };
        let old = self.own_mut(edition).insert(name.to_owned(), pin);
        // The other edition may still have what was pinned for both.
        if let (Edition::Main, Some(old), Some(legacy)) = (edition, old, &mut self.legacy) {
            legacy.entry(name.to_owned()).or_insert(old);
        }
    }

    /// Makes room: names that are not listed any more go once there are too many.
    pub(super) fn trim(&mut self, edition: Edition, tools: &Tools) {
        if self.own(edition).is_some_and(|pins| pins.len() > limits::MAX_TOOLS) {
            let listed: BTreeSet<&str> = tools.iter().map(Tool::name).collect();
            self.own_mut(edition).retain(|name, _| listed.contains(name.as_str()));
        }
    }

    /// Takes over what another agent made of `base`, the pins that both began with. What was changed here stays.
    pub(super) fn merge(&mut self, base: &Self, mut theirs: Self) {
        merge_pins(&mut self.tools, &base.tools, core::mem::take(&mut theirs.tools));
        // Who has never seen that edition has taken nothing of it away.
        if let Some(other) = theirs.legacy.take() {
            let nothing = BTreeMap::new();
            merge_pins(self.legacy.get_or_insert_default(), base.legacy.as_ref().unwrap_or(&nothing), other);
        }
        let ours = core::mem::take(&mut self.approved);
        theirs.approved.retain(|it| ours.contains(it) || !base.approved.contains(it));
        let new = ours.into_iter().filter(|it| !base.approved.contains(it) && !theirs.approved.contains(it));
        let new: Vec<_> = new.collect();
        self.approved = theirs.approved;
        self.approved.extend(new);
        let excess = self.approved.len().saturating_sub(limits::MAX_APPROVED);
        self.approved.drain(..excess);
    }

    /// Whether a client may call a tool of this definition without being asked about again.
    pub(super) fn is_approved(&self, client: &str, tool: &str, print: &Print) -> bool {
        self.approved.iter().any(|it| it.client == client && it.tool == tool && it.hash == *print)
    }

    /// Lets a client call a tool of this definition from now on.
    pub(super) fn approve(&mut self, client: &str, tool: &str, print: &Print) {
        self.approved.retain(|it| it.client != client || it.tool != tool);
        if self.approved.len() >= limits::MAX_APPROVED {
            self.approved.remove(0);
        }
        self.approved.push(Approved { client: client.to_string(), tool: tool.to_string(), hash: print.clone() });
    }
}

/// Takes over into `ours` what others made of `base`; what was changed in `ours` stays.
fn merge_pins(ours: &mut BTreeMap<String, Pin>, base: &BTreeMap<String, Pin>, mut theirs: BTreeMap<String, Pin>) {
    let names: BTreeSet<String> = [&*ours, base, &theirs].iter().flat_map(|it| it.keys().cloned()).collect();
    for name in names {
        if ours.get(&name) != base.get(&name) {
            continue;
        }
        match theirs.remove(&name) {
            Some(pin) => drop(ours.insert(name, pin)),
            None => drop(ours.remove(&name)),
        }
    }
}

impl From<FilePin> for Pin {
    fn from(pin: FilePin) -> Self {
        Self { print: pin.hash, definition: pin.definition }
    }
}

impl From<&Pin> for FilePin {
    fn from(pin: &Pin) -> Self {
        Self { hash: pin.print.clone(), definition: pin.definition.clone() }
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        let text = |pin: &Self| pin.definition.as_ref().map(|raw| raw.get().to_string());
        self.print == other.print && text(self) == text(other)
    }
}

impl Eq for Pin {}

/// A JSON value as the same bytes, however it is written.
pub(super) fn canonical_text(raw: &Bytes) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    canonical(raw, MAX_DEPTH, &mut text);
    text
}

/// Writes a JSON value so that two spellings of the same one are the same. What is nested too deeply stays as it is.
fn canonical(raw: &Bytes, depth: usize, out: &mut Vec<u8>) {
    let raw = raw.slice_ref(raw.trim_ascii());
    match (raw.first(), depth) {
        (Some(b'{'), 1..) => match Object::parse(&raw) {
            Ok(object) => canonical_object(&object, depth, out),
            Err(_) => out.extend_from_slice(&raw),
        },
        (Some(b'['), 1..) => match serde_json::from_slice::<Vec<&RawValue>>(&raw) {
            Ok(items) => {
                out.push(b'[');
                for item in items {
                    canonical(&raw.slice_ref(item.get().as_bytes()), depth - 1, out);
                    out.push(b',');
                }
                out.push(b']');
            }
            Err(_) => out.extend_from_slice(&raw),
        },
        (Some(b'"'), _) => canonical_string(&raw, out),
        _ => out.extend_from_slice(&raw),
    }
}

/// Members by key; those of one key in the order in which they stand.
fn canonical_object(object: &Object, depth: usize, out: &mut Vec<u8>) {
    let mut members: Vec<(Vec<u8>, Bytes)> = Vec::new();
    for (key, value) in object.members() {
        let mut text = Vec::with_capacity(key.len());
        canonical_string(&key, &mut text);
        members.push((text, value));
    }
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.push(b'{');
    for (key, value) in members {
        out.extend_from_slice(&key);
        out.push(b':');
        canonical(&value, depth - 1, out);
        out.push(b',');
    }
    out.push(b'}');
}

fn canonical_string(raw: &Bytes, out: &mut Vec<u8>) {
    match string(raw) {
        Some(text) => out.extend_from_slice(quoted(&text).as_bytes()),
        None => out.extend_from_slice(raw),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const VERSION: u32 = 1;
/// How deep a schema is looked into: real ones have a dozen levels.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests;
