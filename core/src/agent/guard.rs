//! What stands between a call and a server: the rules, the limits, and what is pinned of each server.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::contract::{Action, Unsaved};
use super::pins::{self, Book, Change, Edition, Print};
use super::policy::{Limiter, Rules};
use super::server::people;
use super::status;
use super::tools::{Hidden, Tool, Tools};
use crate::config::policy::PinMode;
use crate::config::{AgentPolicy, ServerConfig};
use crate::host::Mailbox;
use crate::limits;
use crate::mcp::catalog::Changed;
use crate::rpc::object::Object;
use crate::rpc::string;

/// The guard of an agent. The default lets everything pass.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) rules: Rules,
    pub(super) limiter: Limiter,
    watched: BTreeMap<String, Watched>,
}

/// What is known of one server.
#[derive(Debug)]
struct Watched {
    /// What names its pins.
    key: String,
    pins: Pins,
    changes: BTreeMap<(String, Edition), Seen>,
    /// Whether something is to be saved.
    dirty: bool,
    /// The file as this agent read or wrote it last.
    base: Option<Bytes>,
    /// What is being saved.
    saving: Option<Bytes>,
    /// Why the last save failed.
    unsaved: Option<String>,
    reread: Reread,
}

/// Whether the file is being read once more.
#[derive(Debug, PartialEq, Eq)]
enum Reread {
    No,
    Asked,
    /// A save was ordered since: what is read may be older than that, and the save itself finds out what others did.
    Overtaken,
}

/// The pins of a server.
#[derive(Debug)]
enum Pins {
    /// They are being read.
    Reading,
    /// They are known.
    Known(Book),
    /// They are there and cannot be read.
    Broken(String),
}

/// A tool that is not what was pinned.
#[derive(Debug, Clone)]
struct Seen {
    change: Change,
    print: Print,
    /// How it is now.
    raw: Box<RawValue>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(AgentPolicy { pins: PinMode::Off, ..AgentPolicy::default() })
    }
}

impl Guard {
    pub(super) fn new(policy: AgentPolicy) -> Self {
        Self { rules: Rules::new(policy), limiter: Limiter::default(), watched: BTreeMap::new() }
    }

    /// Takes a new policy. Returns whether it is another one.
    pub(super) fn set_policy(&mut self, policy: AgentPolicy) -> bool {
        if *self.rules.policy() == policy {
            return false;
        }
        self.rules = Rules::new(policy);
        true
    }

    fn mode(&self) -> PinMode {
        self.rules.policy().pins
    }

    /// Asks for what is pinned of a server, should it be needed.
    pub(super) fn watch(&mut self, server: &str, config: &ServerConfig, out: &mut Mailbox<Action>) {
        if self.mode() == PinMode::Off && !self.rules.remembers(server) {
            return;
        }
        let key = pins::key(server, config);
        if self.watched.get(server).is_some_and(|watched| watched.key == key) {
            return;
        }
        out.push(Action::LoadPins { key: key.clone() });
        let watched = Watched {
            key,
            pins: Pins::Reading,
            changes: BTreeMap::new(),
            dirty: false,
            base: None,
            saving: None,
            unsaved: None,
            reread: Reread::No,
        };
        self.watched.insert(server.to_string(), watched);
    }

    /// Asks what is pinned of a server by now: a person may have approved it in another agent of this machine.
    pub(super) fn look_again(&mut self, server: &str, out: &mut Mailbox<Action>) {
        let Some(watched) = self.watched.get_mut(server) else { return };
        let is_settled = !matches!(watched.pins, Pins::Reading) && watched.saving.is_none();
        if is_settled && watched.reread == Reread::No {
            watched.reread = Reread::Asked;
            out.push(Action::LoadPins { key: watched.key.clone() });
        }
    }

    /// Whether what another agent did to the pins could let more of a server pass.
    pub(super) fn holds(&self, server: &str) -> bool {
        let is_held = |it: &Watched| !it.changes.is_empty() || matches!(it.pins, Pins::Broken(_));
        self.rules.remembers(server) || self.watched.get(server).is_some_and(is_held)
    }

    /// Forgets a server that has no entry any more.
    pub(super) fn forget(&mut self, server: &str) {
        self.watched.remove(server);
    }

    /// What is pinned came. Returns whose it is.
    pub(super) fn loaded(&mut self, key: &str, result: Result<Option<Bytes>, String>) -> Option<String> {
        let (server, watched) = self.watched.iter_mut().find(|(_, watched)| watched.key == key)?;
        if !matches!(watched.pins, Pins::Reading) {
            let reread = core::mem::replace(&mut watched.reread, Reread::No);
            return watched.read_again(server, reread, result).then(|| server.clone());
        }
        let read = result.and_then(|content| {
            watched.base = content;
            Book::read(watched.base.as_deref())
        });
        watched.pins = Pins::read(server, read);
        Some(server.clone())
    }

    /// A save is over. Returns the server whose pins are others by it: another agent had changed the file.
    pub(super) fn saved(&mut self, key: &str, result: Result<(), Unsaved>) -> Option<String> {
        let (server, watched) = self.watched.iter_mut().find(|(_, watched)| watched.key == key)?;
        // Nothing: the server was forgotten meanwhile, and is back with its file read anew.
        let content = watched.saving.take()?;
        watched.unsaved = None;
        match result {
            Ok(()) => watched.base = Some(content),
            Err(Unsaved::Failed(reason)) => {
                tracing::warn!(server = server.as_str(), reason = reason.as_str(), "definitions not pinned on disk");
                watched.unsaved = Some(people(&reason, limits::MAX_REASON));
            }
            Err(Unsaved::Changed(theirs)) => {
                watched.merge(server, theirs);
                return Some(server.clone());
            }
        }
        None
    }

    /// Orders what is to be saved; one save of a server at a time.
    pub(super) fn save(&mut self, out: &mut Mailbox<Action>) {
        for watched in self.watched.values_mut().filter(|watched| watched.dirty && watched.saving.is_none()) {
            if let Pins::Known(book) = &watched.pins {
                let (key, base, content) = (watched.key.clone(), watched.base.clone(), book.write());
                (watched.dirty, watched.saving) = (false, Some(content.clone()));
                if watched.reread == Reread::Asked {
                    watched.reread = Reread::Overtaken;
                }
                out.push(Action::SavePins { key, base, content });
            }
        }
    }

    /// Judges one of a server's lists of tools. Returns whether anything else is shown than before.
    pub(super) fn judge(&mut self, server: &str, edition: Edition, tools: &mut Tools) -> bool {
        let mode = self.mode();
        let watched = self.watched.get_mut(server);
        let pins = watched.map_or_else(BTreeMap::new, |watched| watched.judge(server, edition, tools, mode));
        let rules = &self.rules;
        tools.judge(|tool| rules.hides(server, tool).or_else(|| pins.get(tool.name()).cloned()))
    }

    /// All clients have the server's one list. Should older ones have another one some day, it is no first sight: what is
    /// pinned is what they had.
    pub(super) fn has_one_list(&mut self, server: &str) {
        let pins = self.mode() != PinMode::Off;
        let Some(watched) = self.watched.get_mut(server).filter(|_| pins) else { return };
        watched.changes.retain(|(_, edition), _| *edition == Edition::Main);
        if let Pins::Known(book) = &mut watched.pins
            && !book.is_new(Edition::Main)
            && book.is_new(Edition::Legacy)
        {
            book.see(Edition::Legacy);
            watched.dirty = true;
        }
    }

    /// The raw result of `tools/list` as a client may see it: without the tools that are hidden, and otherwise as it is.
    /// `known` are the server's tools as they were judged; one that is not among them is judged by itself.
    pub(super) fn shown_of(&self, server: &str, (edition, known): (Edition, &Tools), result: Bytes) -> Bytes {
        let Ok(object) = Object::parse(&result) else { return result };
        let Some(list) = object.get("tools") else { return result };
        let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(&list) else { return result };
        let is_shown = |raw: &&RawValue| match Tool::read(raw) {
            Some(tool) => match known.get(tool.name()).filter(|it| it.print() == tool.print()) {
                Some(known) => !known.is_hidden(),
                None => !self.hides(server, edition, tool),
            },
            // What has no name cannot be called, nor judged.
            None => self.rules.is_open(server),
        };
        let shown: Vec<&str> = items.iter().copied().filter(is_shown).map(RawValue::get).collect();
        // Of several lists readers disagree about which one counts: then all of them become this one.
        let lists = object.members().filter(|(key, _)| string(key).is_some_and(|key| key == "tools")).count();
        if shown.len() == items.len() && lists == 1 {
            return result;
        }
        let list = alloc::format!("[{}]", shown.join(","));
        object.replace(&[("tools", list.as_bytes())])
    }

    /// Whether a tool that its server did not list before is hidden.
    fn hides(&self, server: &str, edition: Edition, tool: Tool) -> bool {
        if self.rules.hides(server, &tool).is_some() {
            return true;
        }
        match self.watched.get(server).map(|watched| &watched.pins) {
            _ if self.mode() != PinMode::Block => false,
            Some(Pins::Known(book)) => {
                let is_first = edition == Edition::Main && book.is_new(edition);
                !is_first && !book.changes(edition, &Tools::new([tool].into(), server)).is_empty()
            }
            Some(Pins::Reading | Pins::Broken(_)) => true,
            None => false,
        }
    }

    /// Whether a call must be checked against the list of its server: a name alone does not tell enough.
    pub(super) fn wants_list(&self, server: &str) -> bool {
        self.mode() == PinMode::Block || self.rules.wants_read_only(server)
    }

    /// Whether a client may call a tool of this definition without being asked about again.
    pub(super) fn is_approved(&self, server: &str, client: &str, tool: &str, print: &Print) -> bool {
        match self.watched.get(server).map(|watched| &watched.pins) {
            Some(Pins::Known(book)) => book.is_approved(client, tool, print),
            Some(Pins::Reading | Pins::Broken(_)) | None => false,
        }
    }

    /// Lets a client call a tool of this definition from now on.
    pub(super) fn approve(&mut self, server: &str, client: &str, tool: &str, print: &Print) {
        if let Some(watched) = self.watched.get_mut(server)
            && let Pins::Known(book) = &mut watched.pins
        {
            book.approve(client, tool, print);
            watched.dirty = true;
        }
    }

    /// Pins tools as they are now: those of a server, or of all, or one. Returns which, and the servers whose pins could
    /// not be read: all their tools are seen for the first time once more.
    pub(super) fn accept(
        &mut self,
        server: Option<&str>,
        tool: Option<&str>,
    ) -> (Vec<status::ChangedTool>, Vec<String>) {
        let held = self.mode() == PinMode::Block;
        let (mut accepted, mut lost) = (Vec::new(), Vec::new());
        for (name, watched) in &mut self.watched {
            if server.is_some_and(|server| server != name) {
                continue;
            }
            if tool.is_none() && matches!(watched.pins, Pins::Broken(_)) {
                (watched.pins, watched.dirty) = (Pins::Known(Book::default()), true);
                lost.push(name.clone());
            }
            accepted.extend(watched.accept(name, tool, held));
        }
        (accepted, lost)
    }

    /// The tools that are not what was pinned. `definitions`: with both of their definitions.
    pub(super) fn changes(&self, definitions: bool) -> Vec<status::ChangedTool> {
        let held = self.mode() == PinMode::Block;
        let mut all = Vec::new();
        for (server, watched) in &self.watched {
            for ((tool, edition), seen) in &watched.changes {
                let mut changed = changed(server, (tool, *edition), &seen.change, held);
                if definitions {
                    changed.before = watched.before(*edition, tool, &seen.change);
                    changed.after = Some(seen.raw.get().to_string());
                }
                all.push(changed);
            }
        }
        all
    }

    /// The same of one server, as its catalog names them.
    pub(super) fn changes_of(&self, server: &str) -> Vec<Changed> {
        let held = self.mode() == PinMode::Block;
        let changes = self.watched.get(server).into_iter().flat_map(|watched| &watched.changes);
        let changed = |((tool, edition), seen): (&(String, Edition), &Seen)| {
            let change = seen.change.to_string();
            let change = match edition {
                Edition::Main => change,
                Edition::Legacy => change + ", as clients of older revisions have it",
            };
            Changed { tool: people(tool, limits::MAX_QUOTE), change, held }
        };
        changes.take(limits::MAX_CHANGED).map(changed).collect()
    }

    /// What is pinned, server by server.
    pub(super) fn pinned(&self) -> Vec<status::PinnedServer> {
        let server = |(name, watched): (&String, &Watched)| {
            let (tools, problem) = match &watched.pins {
                Pins::Reading => (0, Some("is being read".to_string())),
                Pins::Known(book) => (book.len(), watched.unsaved.clone()),
                Pins::Broken(reason) => (0, Some(reason.clone())),
            };
            status::PinnedServer { name: name.clone(), tools, problem }
        };
        self.watched.iter().map(server).collect()
    }

    /// What keeps definitions from being pinned, for `status`.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem = |server: status::PinnedServer| {
            let problem = server.problem?;
            Some(alloc::format!("the pinned tools of {}: {problem}", people(&server.name, limits::MAX_QUOTE)))
        };
        self.pinned().into_iter().filter_map(problem).collect()
    }
}

impl Pins {
    fn read(server: &str, book: Result<Book, String>) -> Self {
        match book {
            Ok(book) => Self::Known(book),
            Err(reason) => {
                tracing::warn!(server, reason = reason.as_str(), "pinned definitions cannot be read");
                Self::Broken(people(&reason, limits::MAX_REASON))
            }
        }
    }
}

impl Watched {
    /// The file was read once more. Returns whether the pins are others by it.
    fn read_again(&mut self, server: &str, reread: Reread, result: Result<Option<Bytes>, String>) -> bool {
        match result {
            Ok(content) if reread == Reread::Asked && content != self.base => {
                self.merge(server, content);
                true
            }
            Ok(_) => false,
            // What is known stays so.
            Err(reason) => {
                tracing::warn!(server, reason = reason.as_str(), "pinned definitions not read again");
                false
            }
        }
    }

    /// Takes in what another agent of this machine made of the file, with what was changed here.
    fn merge(&mut self, server: &str, theirs: Option<Bytes>) {
        let base = Book::read(self.base.as_deref()).unwrap_or_default();
        match (&mut self.pins, Book::read(theirs.as_deref())) {
            (Pins::Known(book), Ok(other)) => {
                book.merge(&base, other);
                self.dirty = theirs.as_ref() != Some(&book.write());
                self.base = theirs;
            }
            (Pins::Reading | Pins::Broken(_), other) | (Pins::Known(_), other @ Err(_)) => {
                self.base = theirs;
                self.pins = Pins::read(server, other);
            }
        }
    }

    /// What the pins say of each tool that they hide.
    fn judge(&mut self, server: &str, edition: Edition, tools: &Tools, mode: PinMode) -> BTreeMap<String, Hidden> {
        // A run that has no list yet says nothing about the others.
        if tools.is_empty() {
            return BTreeMap::new();
        }
        let all = |why: &Hidden| tools.iter().map(|tool| (tool.name().to_string(), why.clone())).collect();
        let book = match (mode, &mut self.pins) {
            (PinMode::Off, _) | (PinMode::Warn, Pins::Broken(_)) => {
                self.changes.clear();
                return BTreeMap::new();
            }
            (PinMode::Warn | PinMode::Block, Pins::Reading) => return all(&Hidden::Unread),
            (PinMode::Block, Pins::Broken(_)) => return all(&Hidden::Unreadable),
            (PinMode::Warn | PinMode::Block, Pins::Known(book)) => book,
        };
        // The other edition of a program that is not what it was is looked at as closely as the program.
        let is_itself = edition == Edition::Main || !self.changes.keys().any(|(_, of)| *of == Edition::Main);
        let first_sight = is_itself && book.is_new(edition);
        if first_sight {
            book.see(edition);
            self.dirty = true;
        }
        let mut changes = book.changes(edition, tools);
        // What is new was never anything else; only who wants to be asked about everything is asked about it.
        let pinned_now = |change: &Change| first_sight || (mode == PinMode::Warn && *change == Change::Added);
        for tool in tools.iter() {
            if changes.get(tool.name()).is_some_and(pinned_now) {
                changes.remove(tool.name());
                book.pin(edition, tool.name(), tool.print(), tool.raw());
                self.dirty = true;
                if !first_sight {
                    tracing::info!(server, tool = &*people(tool.name(), limits::MAX_QUOTE), "new tool pinned");
                }
            }
        }
        book.trim(edition, tools);
        let before: BTreeMap<_, _> = self.changes.extract_if(.., |(_, of), _| *of == edition).collect();
        for (name, change) in changes {
            let Some(tool) = tools.get(&name) else { continue };
            let seen = Seen { change, print: tool.print().clone(), raw: tool.raw().to_owned() };
            let key = (name, edition);
            if before.get(&key).is_none_or(|it| (&it.change, &it.print) != (&seen.change, &seen.print)) {
                let (tool, reason) = (people(&key.0, limits::MAX_QUOTE), seen.change.to_string());
                let held = mode == PinMode::Block;
                tracing::warn!(server, tool, reason, held, "tool is not what was pinned: see `pins diff`");
            }
            self.changes.insert(key, seen);
        }
        match mode {
            PinMode::Block => {
                let of_it = self.changes.iter().filter(|((_, of), _)| *of == edition);
                of_it.map(|((name, _), seen)| (name.clone(), Hidden::Changed(seen.change.clone()))).collect()
            }
            PinMode::Off | PinMode::Warn => BTreeMap::new(),
        }
    }

    /// What was pinned in place of a changed tool.
    fn before(&self, edition: Edition, tool: &str, change: &Change) -> Option<String> {
        let Pins::Known(book) = &self.pins else { return None };
        let name = match change {
            Change::Renamed { from } => from,
            Change::Changed | Change::Added => tool,
        };
        book.definition(edition, name).map(|raw| raw.get().to_string())
    }

    fn accept(&mut self, server: &str, tool: Option<&str>, held: bool) -> Vec<status::ChangedTool> {
        let book = match &mut self.pins {
            Pins::Reading | Pins::Broken(_) => return Vec::new(),
            Pins::Known(book) => book,
        };
        let meant = |name: &str| tool.is_none_or(|tool| tool == name);
        let seen: Vec<_> = self.changes.extract_if(.., |(name, _), _| meant(name)).collect();
        let mut accepted = Vec::new();
        for ((name, edition), seen) in seen {
            if let Change::Renamed { from } = &seen.change {
                book.forget(edition, from);
            }
            book.pin(edition, &name, &seen.print, &seen.raw);
            self.dirty = true;
            tracing::info!(server, tool = &*people(&name, limits::MAX_QUOTE), "changed tool approved");
            accepted.push(changed(server, (&name, edition), &seen.change, held));
        }
        accepted
    }
}

/// A tool that is pinned as it is now, since nobody knows what it was.
pub(super) fn unknown(server: &str, tool: &Tool) -> status::ChangedTool {
    changed(server, (tool.name(), Edition::Main), &Change::Added, true)
}

fn changed(server: &str, (tool, edition): (&str, Edition), change: &Change, held: bool) -> status::ChangedTool {
    let from = match change {
        Change::Renamed { from } => Some(from.clone()),
        Change::Changed | Change::Added => None,
    };
    let (server, tool, change) = (server.to_string(), tool.to_string(), change.word().to_string());
    let legacy = edition == Edition::Legacy;
    status::ChangedTool { server, tool, legacy, change, from, held, before: None, after: None }
}

#[cfg(test)]
mod tests;
