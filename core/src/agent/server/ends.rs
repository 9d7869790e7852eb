//! How a server ends: as it was told, or by itself, and what follows.

use alloc::format;
use alloc::string::String;

use super::{About, Fault, Link, Server, State, Step, Then, Timer, people};
use crate::agent::contract::Action;
use crate::agent::cx::{Cx, Report};
use crate::config::RestartPolicy;
use crate::limits;

impl Server {
    /// The patience with a server that was told to end is over.
    pub(super) fn stop_harder(&mut self, step: Step, then: Then, cx: &mut Cx) {
        let Some(child) = self.child() else {
            // An HTTP server did not take the farewell.
            if let Some(Link::Http(http)) = &mut self.link {
                http.abandon_all(cx);
            }
            return self.ended_as_told(then, cx);
        };
        match step {
            Step::Asked => {
                self.state = State::Stopping(Step::Terminated, then);
                cx.out.push(Action::Kill { child, force: false });
                cx.arm(self.slot, Timer::Stop, limits::STOP_GRACE);
            }
            Step::Terminated => {
                self.state = State::Stopping(Step::Killed, then);
                cx.out.push(Action::Kill { child, force: true });
            }
            Step::Killed => {}
        }
    }

    pub(super) fn ended_as_told(&mut self, then: Then, cx: &mut Cx) {
        self.link = None;
        cx.disarm(self.slot, Timer::Stop);
        match then {
            Then::Start => self.move_to_starting(cx),
            Then::Sleep => self.move_to_asleep(cx),
            Then::Nothing => self.move_to_stopped(cx),
        }
    }

    /// It is not running any more, or must not: ends what is left of it, answers its calls, and plans the next start.
    pub(super) fn fail(&mut self, fault: Fault, reason: String, cx: &mut Cx) {
        let reason = self.veil.hide(&reason);
        self.forget_run(cx);
        self.is_mute = false;
        let was_ready = self.state == State::Ready;
        match self.link.take() {
            Some(Link::Stdio(stdio)) => {
                cx.out.push(Action::Kill { child: stdio.child, force: true });
                self.dying.insert(stdio.child);
            }
            Some(Link::Http(mut http)) => http.abandon_all(cx),
            None => {}
        }
        if self.is_trial && !was_ready {
            // Nobody heard of what waits for it: the server itself is asked.
            let held = core::mem::take(&mut self.held).into();
            cx.report(Report::NotLegacy { run: self.slot, held });
        }
        self.keep_subscriptions();
        self.fail_calls(&reason, cx);
        if self.is_extra() {
            // What it knew of its session is lost; a call of the session gets a new one.
            tracing::warn!(server = self.name.as_str(), reason = reason.as_str(), "session's server ended");
            return self.move_to_stopped(cx);
        }
        self.backoff.lost(cx.now.instant);
        let delay = self.backoff.next(&mut cx.jitter);
        let failures = self.backoff.attempt();
        let sleeps = self.is_lazy() || self.idle_stop().is_some();
        let (state, reason, delay) = match (self.config.life.restart, fault) {
            (RestartPolicy::OnFailure, Fault::Ended) if sleeps => {
                self.end_subscriptions(cx);
                return self.move_to_asleep(cx);
            }
            (RestartPolicy::OnFailure, Fault::Ended) | (RestartPolicy::Never, _) => {
                (State::Failed, format!("{reason}; its `restart` setting keeps it from being started again"), None)
            }
            (_, Fault::NeedsHelp) => (State::Failed, reason, Some(limits::FAILED_RETRY)),
            (_, Fault::Transient | Fault::Ended) if failures > limits::MAX_QUICK_FAILURES => {
                let every = limits::FAILED_RETRY.as_secs();
                let reason = format!("it failed {failures} times in a row, and is tried every {every} s: {reason}");
                (State::Failed, reason, Some(limits::FAILED_RETRY))
            }
            (_, Fault::Transient | Fault::Ended) => (State::Restarting, reason, Some(delay)),
        };
        if state == State::Failed {
            self.end_subscriptions(cx);
            (self.about, self.legacy) = (About::default(), None);
        }
        let delay_ms = delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        tracing::warn!(server = self.name.as_str(), reason = reason.as_str(), delay_ms, failures, "server not running");
        if let Some(delay) = delay {
            cx.arm(self.slot, Timer::Restart, delay);
        }
        self.enter(state, Some(people(&reason, limits::MAX_REASON)), cx);
    }
}
