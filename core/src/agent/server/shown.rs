//! How a server is shown: in the catalog, and in the status document.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;

use serde_json::value::RawValue;

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
    pub(in crate::agent) tools: usize,
    prompts: usize,
    resources: usize,
    templates: usize,
}

impl Share {
    /// All of them.
    pub(in crate::agent) const ALL: Self =
        Self { tools: usize::MAX, prompts: usize::MAX, resources: usize::MAX, templates: usize::MAX };
}

impl Server {
    /// Its part of the catalog, with that share of its lists.
    pub(in crate::agent) fn catalog(&self, share: Share, now: Instant) -> catalog::Server {
        let first = |list: &[Box<RawValue>], count: usize| list.iter().take(count).cloned().collect();
        catalog::Server {
            name: self.name.clone(),
            state: self.public_state(),
            reason: self.reason.clone(),
            info: self.about.info.clone(),
            capabilities: self.about.capabilities.clone(),
            instructions: self.about.instructions.clone(),
            changed: self.changed.clone(),
            versions: self.about.versions.clone(),
            prompts: first(&self.about.prompts, share.prompts),
            resources: first(&self.about.resources, share.resources),
            templates: first(&self.about.templates, share.templates),
            tools: self.about.tools.shown().take(share.tools).map(ToOwned::to_owned).collect(),
            since_secs: now.saturating_since(self.since).as_secs(),
            restarts: self.restarts,
        }
    }

    /// About how many bytes it takes in the catalog.
    pub(in crate::agent) fn weight(&self) -> usize {
        let others = [&self.about.prompts, &self.about.resources, &self.about.templates];
        let others: usize = others.into_iter().flatten().map(|raw| weight(raw)).sum();
        self.weight_without_lists() + self.about.tools.shown().map(weight).sum::<usize>() + others
    }

    /// How much of its lists fits into the room of a catalog, and how many bytes it takes with that. Tools come first:
    /// what is left out of the other lists can still be asked for.
    pub(in crate::agent) fn prefix(&self, tools: usize, bytes: usize) -> (Share, usize) {
        let mut sum = self.weight_without_lists();
        let About { prompts, resources, templates, .. } = &self.about;
        let others = |list: &[Box<RawValue>], sum: &mut usize| fitting(list.iter().map(|raw| &**raw), bytes, sum);
        let share = Share {
            tools: fitting(self.about.tools.shown().take(tools), bytes, &mut sum),
            prompts: others(prompts, &mut sum),
            resources: others(resources, &mut sum),
            templates: others(templates, &mut sum),
        };
        (share, sum)
    }

    /// Whether that share is all of it.
    pub(in crate::agent) fn is_whole(&self, share: Share) -> bool {
        let About { prompts, resources, templates, .. } = &self.about;
        share.tools >= self.about.tools.count()
            && share.prompts >= prompts.len()
            && share.resources >= resources.len()
            && share.templates >= templates.len()
    }

    fn weight_without_lists(&self) -> usize {
        let raw = |value: &Option<Box<RawValue>>| value.as_ref().map_or(0, |raw| raw.get().len());
        // Names, labels and escapes: `MAX_REASON` is more than they are.
        let text = self.about.instructions.as_ref().map_or(0, String::len) * 2 + self.name.len() * 2;
        let change = |changed: &Changed| 2 * (changed.tool.len() + changed.change.len()) + limits::MAX_QUOTE;
        let changes: usize = self.changed.iter().map(change).sum();
        raw(&self.about.info) + raw(&self.about.capabilities) + text + changes + 3 * limits::MAX_REASON
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

/// The bytes of a list's item in the catalog, with the comma.
fn weight(raw: &RawValue) -> usize {
    raw.get().len() + 1
}
