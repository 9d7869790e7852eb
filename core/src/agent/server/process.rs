//! What is heard of a server's process: that it runs, that it cannot be started, that it ended.

use alloc::format;
use alloc::string::String;

use super::handshake::Asked;
use super::link::Link;
use super::text::{exit_text, last_words, people, spawn_remedy};
use super::{Fault, Server, State, Step, Timer};
use crate::agent::contract::Action;
use crate::agent::cx::{Cx, Report};
use crate::agent::veil::Veil;
use crate::id::ChildId;
use crate::limits;

impl Server {
    /// Its process's environment was looked up.
    pub(in crate::agent) fn veiled(&mut self, child: ChildId, veil: Veil) {
        if let Some(Link::Stdio(stdio)) = self.link.as_mut().filter(|link| link.is_child(child)) {
            stdio.veil = veil.clone();
            self.veil = veil;
        }
    }

    /// The process runs.
    pub(in crate::agent) fn spawned(&mut self, child: ChildId, pid: u32, cx: &mut Cx) {
        if self.dying.contains(&child) {
            cx.out.push(Action::Kill { child, force: true });
            return;
        }
        let Some(Link::Stdio(stdio)) = self.link.as_mut().filter(|link| link.is_child(child)) else { return };
        stdio.pid = Some(pid);
        match self.state {
            State::Starting => self.move_to_probing(cx),
            // It was told to end before it ran: told again, now that there is somebody to hear it.
            State::Stopping(Step::Asked, _) => cx.out.push(Action::CloseStdin { child }),
            State::Stopping(Step::Terminated, _) => cx.out.push(Action::Kill { child, force: false }),
            State::Stopping(Step::Killed, _) => cx.out.push(Action::Kill { child, force: true }),
            _ => {}
        }
    }

    /// The process could not be started.
    pub(in crate::agent) fn spawn_failed(&mut self, child: ChildId, error: &str, cx: &mut Cx) {
        if self.buried(child) {
            return;
        }
        match self.state {
            State::Starting => {
                self.link = None;
                let reason = people(&spawn_remedy(&self.config, error), limits::MAX_REASON);
                self.fail(Fault::NeedsHelp, reason, cx);
            }
            State::Stopping(_, then) => self.ended_as_told(then, cx),
            _ => {}
        }
    }

    /// The process ended.
    pub(in crate::agent) fn exited(
        &mut self,
        child: ChildId,
        code: Option<i32>,
        signal: Option<i32>,
        stderr: &str,
        cx: &mut Cx,
    ) {
        let stderr = &*self.veil.hide(stderr);
        if self.dying.contains(&child) {
            self.add_last_words(stderr, cx);
        }
        if self.buried(child) {
            return;
        }
        match self.state {
            State::Starting | State::Probing | State::Ready => {
                let link = self.link.take();
                if self.ended_over_discover(cx) {
                    return;
                }
                self.link = link;
                let reason = self.with_noise(exit_text(code, signal, stderr));
                self.link = None;
                let fault = if code == Some(0) { Fault::Ended } else { Fault::Transient };
                self.fail(fault, reason, cx);
            }
            State::Stopping(_, then) => self.ended_as_told(then, cx),
            _ => {}
        }
    }

    /// Its stdout ended: nothing can come any more, even if its process goes on.
    pub(in crate::agent) fn output_ended(&mut self, child: ChildId, cx: &mut Cx) {
        match self.state {
            // An exit, which says more, usually follows at once. Only a process that goes on is killed for it.
            State::Starting | State::Probing | State::Ready if self.child() == Some(child) => {
                cx.arm(self.slot, Timer::Start, limits::EXIT_AFTER_OUTPUT);
                self.asked = Some(Asked::Nothing);
            }
            _ => {}
        }
    }

    /// It had to be killed, since it hung for one: what it said last is part of why.
    fn add_last_words(&mut self, stderr: &str, cx: &mut Cx) {
        if let (State::Restarting | State::Failed, Some(reason), Some(words)) =
            (self.state, &self.reason, last_words(stderr))
        {
            self.reason = Some(people(&format!("{reason}: {words}"), limits::MAX_REASON));
            cx.report(Report::Changed(self.slot));
        }
    }

    pub(super) fn child(&self) -> Option<ChildId> {
        match &self.link {
            Some(Link::Stdio(stdio)) => Some(stdio.child),
            Some(Link::Http(_)) | None => None,
        }
    }

    /// Whether the end of `child` is that of an earlier run (or of nobody), which is now complete.
    fn buried(&mut self, child: ChildId) -> bool {
        self.dying.remove(&child) || self.child() != Some(child)
    }

    pub(super) fn with_noise(&self, reason: String) -> String {
        let noise = match &self.link {
            Some(Link::Stdio(stdio)) => stdio.noise_text(),
            Some(Link::Http(_)) | None => None,
        };
        people(&noise.map_or(reason.clone(), |noise| format!("{reason}; {noise}")), limits::MAX_REASON)
    }
}
