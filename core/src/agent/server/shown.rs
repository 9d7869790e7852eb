//! How a server is shown: in the catalog, and in the status document.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::legacy::Otherwise;
use super::link::Link;
use super::{About, Server, State, Then, Timer};
use crate::agent::cx::Cx;
use crate::agent::status;
use crate::limits;
use crate::mcp::catalog::{self, Changed};
use crate::time::Instant;

/// How many of a server's things are in a catalog: the first of each list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Share {
    own: Lengths,
    /// Of the lists that clients of the legacy era have, where those are others.
    legacy: Lengths,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Lengths {
    tools: usize,
    prompts: usize,
    resources: usize,
    templates: usize,
}

impl Lengths {
    const ALL: Self = Self { tools: usize::MAX, prompts: usize::MAX, resources: usize::MAX, templates: usize::MAX };

    fn covers(self, other: Self) -> bool {
        self.tools >= other.tools
            && self.prompts >= other.prompts
            && self.resources >= other.resources
            && self.templates >= other.templates
    }
}

impl Share {
    /// All of them.
    pub(in crate::agent) const ALL: Self = Self { own: Lengths::ALL, legacy: Lengths::ALL };

    /// How many tools that are.
    pub(in crate::agent) fn tools(self) -> usize {
        self.own.tools.saturating_add(self.legacy.tools)
    }
}

impl Server {
    /// Its part of the catalog, with that share of its lists.
    pub(in crate::agent) fn catalog(&self, share: Share, now: Instant) -> catalog::Server {
        let first = |list: &[Box<RawValue>], count: usize| list.iter().take(count).cloned().collect();
        let otherwise = self.otherwise();
        let legacy = (!otherwise.is_empty()).then(|| Box::new(otherwise.catalog(share.legacy)));
        let share = share.own;
        catalog::Server {
            name: self.name.clone(),
            state: self.public_state(),
            reason: self.reason.clone(),
            info: self.about.info.clone(),
            capabilities: self.about.capabilities.clone(),
            instructions: self.about.instructions.clone(),
            announced: self.announced,
            announced_legacy: self.announced_otherwise(),
            changed: self.changed.clone(),
            versions: self.about.versions.clone(),
            prompts: first(&self.about.prompts, share.prompts),
            resources: first(&self.about.resources, share.resources),
            templates: first(&self.about.templates, share.templates),
            tools: self.about.tools.shown().take(share.tools).map(ToOwned::to_owned).collect(),
            legacy,
            isolated: self.is_isolated(),
            since_secs: now.saturating_since(self.since).as_secs(),
            restarts: self.restarts,
        }
    }

    /// About how many bytes it takes in the catalog.
    pub(in crate::agent) fn weight(&self) -> usize {
        let others = [&self.about.prompts, &self.about.resources, &self.about.templates];
        let others: usize = others.into_iter().flatten().map(|raw| weight(raw)).sum();
        let otherwise = self.otherwise();
        let legacy: usize = otherwise.lists().into_iter().flatten().flatten().map(|raw| weight(raw)).sum();
        self.weight_without_lists(&otherwise) + self.about.tools.shown().map(weight).sum::<usize>() + others + legacy
    }

    /// How many tools it lists in the catalog.
    pub(in crate::agent) fn tool_count(&self) -> usize {
        self.about.tools.count() + self.otherwise().lengths().tools
    }

    /// How much of its lists fits into the room of a catalog, and how many bytes it takes with that. Tools come first:
    /// what is left out of the other lists can still be asked for.
    pub(in crate::agent) fn prefix(&self, tools: usize, bytes: usize) -> (Share, usize) {
        let otherwise = self.otherwise();
        let mut sum = self.weight_without_lists(&otherwise);
        let About { prompts, resources, templates, .. } = &self.about;
        let mut own =
            Lengths { tools: fitting(self.about.tools.shown().take(tools), bytes, &mut sum), ..Lengths::default() };
        let left = tools - own.tools;
        let mut legacy = Lengths { tools: differing(&otherwise.tools, left, bytes, &mut sum), ..Lengths::default() };
        own.prompts = fitting(prompts.iter().map(|raw| &**raw), bytes, &mut sum);
        own.resources = fitting(resources.iter().map(|raw| &**raw), bytes, &mut sum);
        own.templates = fitting(templates.iter().map(|raw| &**raw), bytes, &mut sum);
        legacy.prompts = differing(&otherwise.prompts, usize::MAX, bytes, &mut sum);
        legacy.resources = differing(&otherwise.resources, usize::MAX, bytes, &mut sum);
        legacy.templates = differing(&otherwise.templates, usize::MAX, bytes, &mut sum);
        (Share { own, legacy }, sum)
    }

    /// Whether that share is all of it.
    pub(in crate::agent) fn is_whole(&self, share: Share) -> bool {
        let About { tools, prompts, resources, templates, .. } = &self.about;
        let (prompts, resources, templates) = (prompts.len(), resources.len(), templates.len());
        let own = Lengths { tools: tools.count(), prompts, resources, templates };
        share.own.covers(own) && share.legacy.covers(self.otherwise().lengths())
    }

    fn weight_without_lists(&self, otherwise: &Otherwise<'_>) -> usize {
        let raw = |value: &Option<Box<RawValue>>| value.as_ref().map_or(0, |raw| raw.get().len());
        // Names, labels and escapes: `MAX_REASON` is more than they are.
        let text = self.about.instructions.as_ref().map_or(0, String::len) * 2 + self.name.len() * 2;
        let change = |changed: &Changed| 2 * (changed.tool.len() + changed.change.len()) + limits::MAX_QUOTE;
        let changes: usize = self.changed.iter().map(change).sum();
        let own = raw(&self.about.info) + raw(&self.about.capabilities) + text;
        own + otherwise.weight() + changes + 3 * limits::MAX_REASON
    }

    /// Its part of the status document.
    pub(in crate::agent) fn status(&self, cx: &Cx) -> status::Server {
        let now = cx.now.instant;
        let pid = match &self.link {
            Some(Link::Stdio(stdio)) => stdio.pid,
            Some(Link::Http(_)) | None => None,
        };
        status::Server {
            name: self.name.clone(),
            state: self.public_state(),
            since_secs: now.saturating_since(self.since).as_secs(),
            pid,
            tools: self.about.tools.count(),
            hidden: self.about.tools.hidden_count(),
            calls: self.open_calls(),
            restarts: self.restarts,
            failures: self.failures(cx.now.instant),
            next_start_ms: cx
                .due_in(self.slot, Timer::Restart)
                .map(|ms| u64::try_from(ms.as_millis()).unwrap_or(u64::MAX)),
            sessions: 0,
            reason: self.reason.clone(),
        }
    }

    /// How many calls it works on or holds.
    pub(in crate::agent) fn open_calls(&self) -> usize {
        self.calls.len() + self.held.len()
    }

    /// Unexpected ends in a row. One that held for a while since then has recovered.
    fn failures(&self, now: Instant) -> u32 {
        let recovered = self.state == State::Ready && now.saturating_since(self.since) >= limits::RESTART_STABLE;
        if recovered { 0 } else { self.backoff.attempt() }
    }

    fn public_state(&self) -> catalog::State {
        match self.state {
            State::Idle | State::Recalling | State::Starting | State::Stopping(_, Then::Start) => {
                catalog::State::Starting
            }
            State::Asleep | State::Stopping(_, Then::Sleep) => catalog::State::Asleep,
            State::Probing => catalog::State::Probing,
            State::Ready => catalog::State::Ready,
            State::Restarting => catalog::State::Restarting,
            State::Failed | State::Stopped | State::Stopping(_, Then::Nothing) => catalog::State::Failed,
        }
    }
}

impl Otherwise<'_> {
    fn lists(&self) -> [&Option<Vec<&RawValue>>; 4] {
        [&self.tools, &self.prompts, &self.resources, &self.templates]
    }

    fn lengths(&self) -> Lengths {
        let [tools, prompts, resources, templates] = self.lists().map(|list| list.as_ref().map_or(0, Vec::len));
        Lengths { tools, prompts, resources, templates }
    }

    fn catalog(&self, share: Lengths) -> catalog::Legacy {
        let owned = |raw: &RawValue| raw.to_owned();
        let first = |list: &Option<Vec<&RawValue>>, count: usize| {
            list.as_ref().map(|list| list.iter().take(count).map(|raw| owned(raw)).collect())
        };
        catalog::Legacy {
            info: self.info.map(owned),
            capabilities: self.capabilities.as_ref().and_then(|raw| RawValue::from_string(raw.to_string()).ok()),
            instructions: self.instructions.map(ToOwned::to_owned),
            tools: first(&self.tools, share.tools),
            prompts: first(&self.prompts, share.prompts),
            resources: first(&self.resources, share.resources),
            templates: first(&self.templates, share.templates),
        }
    }

    /// About how many bytes it takes in the catalog, without its lists.
    fn weight(&self) -> usize {
        let info = self.info.map_or(0, |raw| raw.get().len());
        info + self.capabilities.as_ref().map_or(0, |raw| raw.len()) + 2 * self.instructions.map_or(0, str::len)
    }
}

/// How many of a list fit into `bytes`, of which `sum` are taken.
fn fitting<'a>(list: impl Iterator<Item = &'a RawValue>, bytes: usize, sum: &mut usize) -> usize {
    let mut count = 0;
    for raw in list {
        if *sum + weight(raw) > bytes {
            break;
        }
        *sum += weight(raw);
        count += 1;
    }
    count
}

/// The same of the first of a list that clients of the legacy era have, should it be another one.
fn differing(list: &Option<Vec<&RawValue>>, most: usize, bytes: usize, sum: &mut usize) -> usize {
    fitting(list.iter().flatten().copied().take(most), bytes, sum)
}

/// The bytes of a list's item in the catalog, with the comma.
fn weight(raw: &RawValue) -> usize {
    raw.get().len() + 1
}
