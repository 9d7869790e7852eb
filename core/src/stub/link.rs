//! The way to the agent of this configuration: finds it, starts it, signs in for it, replaces an older one, and comes
//! back to it when it went away.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use crate::backoff::Backoff;
use crate::daemon::{Answer, Farewell, Kind, is_older};
use crate::entropy::Entropy;
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::limits;
use crate::time::{Deadline, Instant, Now};

/// What a link is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This program's version: an older agent makes room for one of it.
    pub version: String,
    /// Whether a person is there who may sign in in a browser.
    pub interactive: bool,
    /// Whether the configuration names a token of its own, so that nobody signs in.
    pub minted: bool,
    /// Whether the agent is to stay when this link goes (`start`).
    pub keep: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Find the agent, or start it.
    Begun,
    /// An agent answered [`Action::Attach`].
    Answered(Answer),
    /// No agent answers [`Action::Attach`].
    Nobody {
        /// What tells the tokens for the relay from other ones (any number); `None` when there are none.
        credentials: Option<u64>,
        /// A person stopped it since this link began, and nobody started it again.
        stopped: bool,
    },
    /// [`Action::Attach`] cannot succeed until a person mends something: the directory of the socket cannot be used.
    Unusable {
        /// For people.
        reason: String,
    },
    /// The agent refused [`Action::Attach`] to this process, and will again.
    Refused {
        /// For people.
        reason: String,
    },
    /// [`Action::Attach`] failed otherwise: an agent that does not answer, a socket that cannot be reached.
    Failed {
        /// For people.
        reason: String,
    },
    /// The agent could not be started.
    StartFailed {
        /// For people.
        reason: String,
    },
    /// The process that was started ended.
    StartEnded {
        /// What its exit code says.
        end: End,
        /// The last that it said, for people.
        words: Option<String>,
    },
    /// An agent took the connection of [`Action::Attach`], and does not answer; the answer may still come.
    Silent {
        /// The process that holds the agent's pid file, and how it was started.
        holder: Option<(u32, Kind)>,
    },
    /// The sign-in ended, with the reason for people if it failed.
    SignedIn(Result<(), String>),
    /// The agent closed the session, with these last words if it had any.
    Lost(Option<Farewell>),
}

/// How a process ended that was to become the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// For want of a sign-in, or of a token that works.
    NeedsLogin,
    /// Because of something that only a person mends: the configuration, or its directory.
    Unusable,
    /// Otherwise; the next one may fare better.
    Failed,
}

/// What it orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to the agent's socket and ask [`Command::Attach`](crate::daemon::Command::Attach); a session from before
    /// is closed. Brings `Answered`, `Nobody`, `Unusable`, `Refused` or `Failed`, `Silent` before them if that takes a while, and, after an
    /// answer that was ok, `Lost` in the end.
    Attach {
        /// What to ask for.
        keep: bool,
    },
    /// Close the session and ask the agent to make room. Brings nothing.
    Retire,
    /// Start an agent, detached. Brings `StartFailed`, or, if it ends before long, `StartEnded`.
    Start,
    /// Sign in in a browser, alone of all stubs of this relay. Brings `SignedIn`.
    SignIn,
    /// Give that up: it is not needed any more. Brings nothing.
    LeaveSignIn,
    /// End this process by force, if it still holds the agent's pid file. Brings nothing.
    Kill {
        /// Its id.
        pid: u32,
    },
}

/// How it stands, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing<'a> {
    /// A session is open.
    Attached,
    /// An agent is looked for or started.
    Coming,
    /// The same, after this went wrong.
    Troubled(&'a str),
    /// A browser is open for the sign-in.
    SigningIn,
    /// A person must sign in.
    NeedsLogin(&'a str),
    /// The token that the configuration names is of no use.
    NeedsToken(&'a str),
    /// Something must be mended that the agent cannot start without.
    Broken(&'a str),
    /// A person stopped it.
    Stopped,
    /// The relay refused this device.
    Refused(&'a str),
    /// The agent refused this process.
    Unwelcome(&'a str),
}

/// The machine.
///
/// ```text
///  Looking(plan) ──answered──► Attached ──lost──► Pausing(plan)
///    ▲   │  └──nobody: by the plan, start, sign in or wait──┐
///    │   └──silent──► Silent(plan) ──too long: kill──┐      │
///    └────────────────── Pausing(plan) ◄─────────────┴──────┘
/// ```
pub struct Link {
    settings: Settings,
    entropy: Box<dyn Entropy>,
    state: State,
    credentials: Option<u64>,
    /// What went wrong last, until an agent is there.
    trouble: Option<String>,
    backoff: Backoff,
    /// When an older agent was first asked to make room.
    retiring: Option<Instant>,
    /// When a browser was opened last.
    signed_in: Option<Instant>,
    /// Whether that sign-in is under way.
    signing_in: bool,
    clock: MonotonicClamp,
    out: Mailbox<Action>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not begun.
    New,
    /// `Attach` is under way.
    Looking(Plan),
    /// The next `Attach` is due then.
    Pausing { plan: Plan, until: Instant },
    /// The same `Attach` is under way, for long.
    Silent { plan: Plan, holder: Option<(u32, Kind)>, until: Instant },
    /// A session is open.
    Attached,
}

/// What to do when nobody is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    /// Start an agent.
    Start,
    /// Look again: somebody starts one.
    Await { until: Instant },
    /// Wait for the browser. `seen`: the tokens there were, once that is known; others mean that somebody signed in
    /// elsewhere.
    SignIn { seen: Option<Option<u64>> },
    /// The relay refused the agent that was. Unless that was because another is there, leave it so.
    Doubt(String),
    /// Leave it so, until a person does something.
    Rest(Rest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Stopped,
    Refused(String),
    Unwelcome(String),
    /// `seen`: the tokens that were of no use. What cannot be seen from here is tried `again`.
    Unable {
        need: Need,
        reason: String,
        seen: Option<u64>,
        again: Option<Instant>,
    },
}

/// What an agent cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Login,
    Token,
    Mending,
}

impl Link {
    /// A link that has not begun.
    #[must_use]
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Self {
        Self {
            settings,
            entropy,
            state: State::New,
            credentials: None,
            trouble: None,
            backoff: Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_MAX, limits::RECONNECT_STABLE),
            retiring: None,
            signed_in: None,
            signing_in: false,
            clock: MonotonicClamp::default(),
            out: Mailbox::default(),
        }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing<'_> {
        let plan = match &self.state {
            State::Attached => return Standing::Attached,
            State::New => return Standing::Coming,
            State::Looking(plan) | State::Pausing { plan, .. } | State::Silent { plan, .. } => plan,
        };
        match plan {
            Plan::SignIn { .. } => Standing::SigningIn,
            Plan::Rest(Rest::Stopped) => Standing::Stopped,
            Plan::Rest(Rest::Refused(reason)) => Standing::Refused(reason),
            Plan::Rest(Rest::Unwelcome(reason)) => Standing::Unwelcome(reason),
            Plan::Rest(Rest::Unable { need, reason, .. }) => match need {
                Need::Login => Standing::NeedsLogin(reason),
                Need::Token => Standing::NeedsToken(reason),
                Need::Mending => Standing::Broken(reason),
            },
            Plan::Start | Plan::Await { .. } | Plan::Doubt(_) => {
                self.trouble.as_deref().map_or(Standing::Coming, Standing::Troubled)
            }
        }
    }

    fn answered(&mut self, plan: Plan, answer: &Answer, now: Instant) {
        self.trouble = None;
        if answer.ending {
            return self.pause(plan, limits::ATTACH_POLL, now);
        }
        if !answer.ok {
            return self.failed(plan, answer.error.as_deref().unwrap_or("the agent refused the session"), now);
        }
        if answer.kind == Kind::Daemon && is_older(&answer.version, &self.settings.version) && self.may_replace(now) {
            self.settings.keep |= answer.kept;
            self.out.push(Action::Retire);
            return self.pause(Plan::Start, limits::ATTACH_POLL, now);
        }
        self.state = State::Attached;
        self.retiring = None;
        self.backoff.connected(now);
        tracing::debug!(version = answer.version, pid = answer.pid, "attached to the agent");
    }

    /// One that does not make room is better than none.
    fn may_replace(&mut self, now: Instant) -> bool {
        now.saturating_since(*self.retiring.get_or_insert(now)) < limits::DAEMON_RETIRES
    }

    fn nobody(&mut self, plan: Plan, now: Instant) {
        match plan {
            // An agent that cannot read its token says why.
            Plan::Start if self.credentials.is_none() && !self.settings.minted => {
                self.sign_in("this machine is not signed in to the relay".into(), now);
            }
            Plan::Start => self.start(now),
            Plan::Await { until } if now < until => self.pause(plan, limits::ATTACH_POLL, now),
            Plan::Await { .. } => self.failed(Plan::Start, "the agent does not come up", now),
            Plan::SignIn { seen: None } => {
                self.pause(Plan::SignIn { seen: Some(self.credentials) }, limits::ATTACH_LOOK, now);
            }
            Plan::SignIn { seen: Some(seen) } if self.has_other_tokens(seen) => self.start(now),
            Plan::Doubt(reason) => self.pause(Plan::Rest(Rest::Refused(reason)), limits::ATTACH_LOOK, now),
            Plan::Rest(Rest::Unable { seen, again, .. })
                if self.has_other_tokens(seen) || again.is_some_and(|again| again <= now) =>
            {
                self.start(now);
            }
            // That agent is gone.
            Plan::Rest(Rest::Unwelcome(_)) => self.nobody(Plan::Start, now),
            Plan::SignIn { .. } | Plan::Rest(_) => self.pause(plan, limits::ATTACH_LOOK, now),
        }
    }

    fn has_other_tokens(&self, seen: Option<u64>) -> bool {
        self.credentials.is_some() && self.credentials != seen
    }

    fn start(&mut self, now: Instant) {
        self.out.push(Action::Start);
        self.pause(Plan::Await { until: now + limits::DAEMON_START }, limits::ATTACH_POLL, now);
    }

    /// Opens a browser where that can be, and not again and again.
    fn sign_in(&mut self, reason: String, now: Instant) {
        let opened = self.signed_in.is_some_and(|at| now.saturating_since(at) < limits::SIGNIN_AGAIN);
        if self.settings.minted {
            self.unable(Need::Token, reason, now);
        } else if self.settings.interactive && !opened {
            self.signed_in = Some(now);
            self.signing_in = true;
            self.out.push(Action::SignIn);
            // An agent that ran may have left other tokens than there were when it was started: looked at first.
            self.pause(Plan::SignIn { seen: None }, limits::ATTACH_POLL, now);
        } else {
            self.unable(Need::Login, reason, now);
        }
    }

    /// Rests until a person has done something.
    fn unable(&mut self, need: Need, reason: String, now: Instant) {
        let again = match need {
            Need::Login => None,
            // A variable, what a relay thinks of a token, a full disk: nothing of it is seen from here.
            Need::Token | Need::Mending => Some(now + limits::UNABLE_AGAIN),
        };
        tracing::warn!(reason = reason.as_str(), "no agent until somebody helps");
        let rest = Rest::Unable { need, reason, seen: self.credentials, again };
        self.pause(Plan::Rest(rest), limits::ATTACH_LOOK, now);
    }

    /// What it is refused for does not change while this process lives, but another agent may think otherwise.
    fn unwelcome(&mut self, reason: String, now: Instant) {
        if self.standing() != Standing::Unwelcome(&reason) {
            tracing::warn!(reason = reason.as_str(), "no session");
        }
        self.pause(Plan::Rest(Rest::Unwelcome(reason)), limits::RECONNECT_MAX, now);
    }

    /// No way leads to the agent. Once one does, it is started.
    fn barred(&mut self, reason: String, now: Instant) {
        if self.standing() != Standing::Broken(&reason) {
            tracing::warn!(reason = reason.as_str(), "no agent until somebody helps");
        }
        let rest = Rest::Unable { need: Need::Mending, reason, seen: None, again: Some(now) };
        self.pause(Plan::Rest(rest), limits::ATTACH_LOOK, now);
    }

    fn start_ended(&mut self, end: End, words: Option<String>, now: Instant) {
        match end {
            End::NeedsLogin => {
                let reason = words.unwrap_or_else(|| "the relay no longer accepts this machine's sign-in".into());
                self.sign_in(reason, now);
            }
            End::Unusable => self.unable(Need::Mending, words.unwrap_or_else(|| ENDED.into()), now),
            // One that could not be the only one ends too: the other one answers in a moment.
            End::Failed => self.failed(Plan::Start, words.as_deref().unwrap_or(ENDED), now),
        }
    }

    /// An agent hangs, or has much to do.
    fn silent(&mut self, plan: Plan, holder: Option<(u32, Kind)>, now: Instant) {
        let who = holder.map_or_else(String::new, |(pid, _)| alloc::format!(" (pid {pid})"));
        let reason = alloc::format!("the agent{who} does not answer; `mcp-local-tunnel stop` ends it");
        tracing::warn!(reason = reason.as_str(), "no agent");
        self.trouble = Some(reason);
        self.state = State::Silent { plan, holder, until: now + limits::DAEMON_SILENT };
    }

    /// It hangs. One in the foreground is its starter's to end.
    fn hangs(&mut self, plan: Plan, holder: Option<(u32, Kind)>, now: Instant) {
        match holder {
            Some((pid, Kind::Daemon)) => {
                tracing::warn!(pid, "the agent hangs, and is replaced");
                self.trouble = None;
                self.out.push(Action::Kill { pid });
                self.pause(plan, limits::ATTACH_POLL, now);
            }
            Some((_, Kind::Foreground)) | None => self.retry(plan, now),
        }
    }

    fn lost(&mut self, farewell: Option<Farewell>, now: Instant) {
        self.backoff.lost(now);
        match farewell {
            None => self.failed(Plan::Start, "the agent ended unexpectedly", now),
            Some(Farewell::Replaced) => {
                self.pause(Plan::Await { until: now + limits::DAEMON_REPLACED }, limits::ATTACH_POLL, now);
            }
            Some(Farewell::Unused | Farewell::Unknown) => self.retry(Plan::Start, now),
            Some(Farewell::Stopped) => self.pause(Plan::Rest(Rest::Stopped), limits::ATTACH_LOOK, now),
            Some(Farewell::NeedsLogin { reason }) => self.sign_in(reason, now),
            Some(Farewell::Refused { reason }) => self.look(Plan::Doubt(reason)),
        }
    }

    fn failed(&mut self, plan: Plan, reason: &str, now: Instant) {
        tracing::warn!(reason, "no agent");
        self.trouble = Some(reason.to_string());
        self.retry(plan, now);
    }

    fn retry(&mut self, plan: Plan, now: Instant) {
        let pause = self.backoff.next(&mut *self.entropy).max(limits::ATTACH_POLL);
        self.pause(plan, pause, now);
    }

    fn pause(&mut self, plan: Plan, pause: core::time::Duration, now: Instant) {
        self.state = State::Pausing { plan, until: now + pause };
    }

    /// A browser is waited for no longer than it is needed.
    fn leave_sign_in(&mut self) {
        let needed = match &self.state {
            State::Looking(plan) | State::Pausing { plan, .. } | State::Silent { plan, .. } => {
                matches!(plan, Plan::SignIn { .. })
            }
            State::New | State::Attached => false,
        };
        if self.signing_in && !needed {
            self.signing_in = false;
            self.out.push(Action::LeaveSignIn);
        }
    }

    fn look(&mut self, plan: Plan) {
        self.state = State::Looking(plan);
        self.out.push(Action::Attach { keep: self.settings.keep });
    }
}

impl Machine for Link {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let now = self.clock.clamp(now).instant;
        if let Event::Nobody { credentials, .. } = &event {
            self.credentials = *credentials;
        }
        match (event, self.state.clone()) {
            (Event::Begun, State::New) => self.look(Plan::Start),
            (Event::Answered(answer), State::Looking(plan) | State::Silent { plan, .. }) => {
                self.answered(plan, &answer, now);
            }
            (Event::Nobody { stopped: true, .. }, State::Looking(_) | State::Silent { .. }) => {
                self.trouble = None;
                self.pause(Plan::Rest(Rest::Stopped), limits::ATTACH_LOOK, now);
            }
            (Event::Nobody { .. }, State::Looking(plan)) => self.nobody(plan, now),
            (Event::Nobody { .. }, State::Silent { plan, .. }) => {
                // It ended, or was ended.
                self.trouble = None;
                self.nobody(plan, now);
            }
            (Event::Failed { reason }, State::Looking(plan) | State::Silent { plan, .. }) => {
                self.failed(plan, &reason, now);
            }
            (Event::Unusable { reason }, State::Looking(_) | State::Silent { .. }) => {
                self.barred(reason, now);
            }
            (Event::Refused { reason }, State::Looking(_) | State::Silent { .. }) => self.unwelcome(reason, now),
            (Event::Silent { holder }, State::Looking(plan)) => self.silent(plan, holder, now),
            (
                Event::StartFailed { reason },
                State::Looking(Plan::Await { .. }) | State::Pausing { plan: Plan::Await { .. }, .. },
            ) => self.failed(Plan::Start, &reason, now),
            (
                Event::StartEnded { end, words },
                State::Looking(Plan::Await { .. }) | State::Pausing { plan: Plan::Await { .. }, .. },
            ) => self.start_ended(end, words, now),
            (
                Event::SignedIn(outcome),
                State::Looking(Plan::SignIn { .. })
                | State::Pausing { plan: Plan::SignIn { .. }, .. }
                | State::Silent { plan: Plan::SignIn { .. }, .. },
            ) => {
                self.signing_in = false;
                match outcome {
                    Ok(()) => self.look(Plan::Start),
                    Err(reason) => self.unable(Need::Login, reason, now),
                }
            }
            (Event::Lost(farewell), State::Attached) => self.lost(farewell, now),
            (
                Event::Begun
                | Event::Answered(_)
                | Event::Nobody { .. }
                | Event::Unusable { .. }
                | Event::Refused { .. }
                | Event::Failed { .. }
                | Event::Silent { .. }
                | Event::StartFailed { .. }
                | Event::StartEnded { .. }
                | Event::SignedIn(_)
                | Event::Lost(_),
                _,
            ) => tracing::trace!("late word of the agent"),
        }
        self.leave_sign_in();
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clock.clamp(now).instant;
        match &self.state {
            State::Pausing { plan, until } if *until <= now => {
                let plan = plan.clone();
                self.look(plan);
            }
            State::Silent { plan, holder, until } if *until <= now => {
                let (plan, holder) = (plan.clone(), *holder);
                self.hangs(plan, holder, now);
            }
            State::New | State::Looking(_) | State::Pausing { .. } | State::Silent { .. } | State::Attached => {}
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Pausing { until, .. } => Some(Deadline { at: *until, reason: "look for the agent" }),
            State::Silent { until, .. } => Some(Deadline { at: *until, reason: "the agent hangs" }),
            State::New | State::Looking(_) | State::Attached => None,
        }
    }
}

const ENDED: &str = "the agent ended at once: see mcp-local-tunnel logs";
