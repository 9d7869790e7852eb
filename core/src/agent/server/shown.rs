//! How a server is shown: in the catalog, and in the status document.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::link::Link;
use super::{Server, State, Then, Timer};
use crate::agent::cx::Cx;
use crate::agent::status;
use crate::limits;
use crate::mcp::catalog::{self, Changed};
use crate::time::Instant;

impl Server {
    /// Its part of the catalog, with the first `tools` of its tools.
    pub(in crate::agent) fn catalog(&self, tools: usize, now: Instant) -> catalog::Server {
        catalog::Server {
            name: self.name.clone(),
            state: self.public_state(),
            reason: self.reason.clone(),
            info: self.about.info.clone(),
            capabilities: self.about.capabilities.clone(),
            instructions: self.about.instructions.clone(),
            changed: self.changed.clone(),
            versions: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            tools: self.about.tools.shown().take(tools).map(ToOwned::to_owned).collect(),
            since_secs: now.saturating_since(self.since).as_secs(),
            restarts: self.restarts,
        }
    }

    /// About how many bytes it takes in the catalog.
    pub(in crate::agent) fn weight(&self) -> usize {
        self.weight_without_tools() + self.about.tools.shown().map(weight).sum::<usize>()
    }

    /// How many of its tools fit into the room of a catalog, and how many bytes it takes with those.
    pub(in crate::agent) fn prefix(&self, tools: usize, bytes: usize) -> (usize, usize) {
        let (mut count, mut sum) = (0, self.weight_without_tools());
        for tool in self.about.tools.shown().take(tools) {
            if sum + weight(tool) > bytes {
                break;
            }
            sum += weight(tool);
            count += 1;
        }
        (count, sum)
    }

    fn weight_without_tools(&self) -> usize {
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

/// A tool's bytes in the catalog, with the comma.
fn weight(tool: &RawValue) -> usize {
    tool.get().len() + 1
}
