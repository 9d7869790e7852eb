//! A server at rest: what it is known to offer while it does not run, and when it goes to rest.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{About, Server, State, Then, Timer};
use crate::agent::contract::Action;
use crate::agent::cx::{Cx, Report};
use crate::config::{Isolation, Transport};
use crate::limits;

impl Server {
    /// Whether it runs only from a call on. One whose sessions have runs of their own need not run for itself.
    pub(super) fn is_lazy(&self) -> bool {
        !self.is_extra() && (self.config.life.lazy || self.is_isolated())
    }

    /// Whether each session has a run of it for itself.
    pub(in crate::agent) fn is_isolated(&self) -> bool {
        self.config.life.isolation == Isolation::Session
    }

    /// Looks up what it offered when it ran last, so that it is listed before it is started.
    pub(super) fn move_to_recalling(&mut self, cx: &mut Cx) {
        assert_eq!(self.state, State::Idle, "what a server offers is looked up before its first start");
        self.enter(State::Recalling, None, cx);
        cx.out.push(Action::Recall { server: self.name.clone() });
    }

    /// What was kept of it came. Without it the server is started once, to learn it.
    pub(in crate::agent) fn recalled(&mut self, kept: Option<&Bytes>, cx: &mut Cx) {
        if self.state != State::Recalling {
            return;
        }
        let kept = kept.and_then(|json| Some((json, self.read_kept(json)?)));
        let is_known = kept.is_some() && self.is_lazy();
        if let Some((json, kept)) = kept {
            self.kept = Some(digest([json.as_ref()]));
            (self.about, self.legacy) = (kept.about, kept.legacy);
            self.judge_tools(cx);
        }
        if is_known && self.held.is_empty() {
            self.move_to_asleep(cx);
        } else {
            self.move_to_starting(cx);
        }
    }

    /// What it offers was told, by this run or by one of its sessions'.
    pub(super) fn keep(&mut self, cx: &mut Cx) {
        if !self.is_lazy() {
            return;
        }
        let kept = Kept { entry: self.fingerprint(), about: &self.about, legacy: self.legacy.as_ref() };
        let json = serde_json::to_vec(&kept).expect("what a server told is JSON");
        let digest = digest([json.as_slice()]);
        if self.kept.replace(digest.clone()) != Some(digest) {
            cx.out.push(Action::Keep { server: self.name.clone(), catalog: Bytes::from(json) });
        }
    }

    /// A run of one of its sessions was told that: taken over where what is known is of another version of the program.
    /// What one version offers may depend on the client, and one session's is not shown to the others.
    pub(in crate::agent) fn learn(&mut self, told: &About, cx: &mut Cx) {
        let mut about = if told.is_of_version(&self.about) { self.about.clone() } else { told.clone() };
        // Each session's run speaks its own client's version.
        about.versions.extend([told, &self.about].into_iter().flat_map(|about| about.versions.iter().cloned()));
        about.versions.sort();
        about.versions.dedup();
        if self.state == State::Asleep && !self.about.is_same(&about) {
            self.about = about;
            self.judge_tools(cx);
            self.keep(cx);
            cx.report(Report::Changed(self.slot));
        }
    }

    /// It is ready: does it have to be?
    pub(super) fn rest_unless_used(&mut self, cx: &mut Cx) {
        if self.is_lazy() && self.is_idle() && self.watched_here(cx).is_empty() && !self.lacks_lists() {
            return self.move_to_stopping(Then::Sleep, cx);
        }
        if let Some(limit) = self.idle_stop() {
            self.last_used = cx.now.instant;
            cx.arm(self.slot, Timer::Idle, limit);
        }
    }

    /// It may have been without a call for long enough.
    pub(super) fn rest_if_idle(&mut self, cx: &mut Cx) {
        let Some(limit) = self.idle_stop() else { return };
        let quiet = cx.now.instant.saturating_since(self.last_used);
        // The run of all older clients of a server of both eras is no more idle than one of the older era alone would be.
        let is_needed = self.is_branch && self.config.life.idle_stop_secs.is_none();
        let is_used = !self.is_idle() || self.lacks_lists();
        if is_used || (is_needed && !self.watched_here(cx).is_empty()) {
            cx.arm(self.slot, Timer::Idle, limit);
        } else if quiet < limit {
            cx.arm(self.slot, Timer::Idle, limit.saturating_sub(quiet));
        } else if self.is_extra() {
            tracing::debug!(server = self.name.as_str(), "session's server idle: stopped");
            self.move_to_stopping(Then::Nothing, cx);
        } else {
            tracing::info!(server = self.name.as_str(), "server idle: stopped until its next call");
            self.move_to_stopping(Then::Sleep, cx);
        }
    }

    /// Somebody watches what it should tell of.
    pub(in crate::agent) fn wake(&mut self, cx: &mut Cx) {
        if self.state == State::Asleep {
            self.move_to_starting(cx);
        }
    }

    pub(super) fn move_to_asleep(&mut self, cx: &mut Cx) {
        self.enter(State::Asleep, None, cx);
    }

    /// How long it may be without a call.
    pub(super) fn idle_stop(&self) -> Option<Duration> {
        let life = &self.config.life;
        let default = match life.isolation {
            Isolation::Shared if !self.is_branch => None,
            Isolation::Shared | Isolation::Session => Some(limits::SESSION_IDLE),
        };
        life.idle_stop_secs.map(Duration::from_secs).or(default)
    }

    /// What was kept, unless it is of another program.
    fn read_kept(&self, json: &[u8]) -> Option<Kept<About>> {
        let kept: Kept<About> = serde_json::from_slice(json).ok()?;
        let fits = kept.entry == self.fingerprint() && kept.legacy.iter().chain([&kept.about]).all(About::is_bounded);
        fits.then_some(kept)
    }

    /// What decides which program it is. Its secrets have no part in it.
    pub(super) fn fingerprint(&self) -> String {
        match &self.config.transport {
            Transport::Stdio { command, cwd, .. } => {
                let words = command.iter().chain(cwd).map(|word| word.as_bytes());
                digest(words.flat_map(|word| [word, b"\0"]))
            }
            Transport::Http { url, .. } => digest([url.as_bytes()]),
        }
    }
}

/// What is kept of a server on disk.
#[derive(Serialize, Deserialize)]
struct Kept<A> {
    /// Of what entry.
    entry: String,
    about: A,
    /// What its run for clients of the legacy era told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    legacy: Option<A>,
}

impl About {
    /// Whether its lists are no longer than those that a server may have.
    fn is_bounded(&self) -> bool {
        self.tools.len() <= limits::MAX_TOOLS
            && self.tools.iter().all(|tool| tool.raw().get().len() <= limits::MAX_TOOL)
            && [&self.prompts, &self.resources, &self.templates].into_iter().all(|list| is_bounded(list))
    }
}

fn is_bounded(list: &[Box<RawValue>]) -> bool {
    list.len() <= limits::MAX_TOOLS && list.iter().map(|raw| raw.get().len()).sum::<usize>() <= limits::MAX_LIST
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = Context::new(&SHA256);
    parts.into_iter().for_each(|part| context.update(part));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
