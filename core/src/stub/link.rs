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
        /// For want of a sign-in.
        needs_login: bool,
    },
    /// The sign-in ended, with the reason for people if it failed.
    SignedIn(Result<(), String>),
    /// The agent closed the session, with these last words if it had any.
    Lost(Option<Farewell>),
}

/// What it orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to the agent's socket and ask [`Command::Attach`](crate::daemon::Command::Attach); a session from before
    /// is closed. Brings `Answered`, `Nobody` or `Failed`, and, after an answer that was ok, `Lost` in the end.
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
    /// A person stopped it.
    Stopped,
    /// The relay refused this device.
    Refused(&'a str),
}

/// The machine.
///
/// ```text
///  Looking(plan) ──answered──► Attached ──lost──► Pausing(plan)
///    ▲      └──nobody: by the plan, start, sign in or wait──┐
///    └──────────── Pausing(plan), SigningIn ◄───────────────┘
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
    /// A session is open.
    Attached,
    /// A browser is open.
    SigningIn,
}

/// What to do when nobody is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    /// Start an agent.
    Start,
    /// Look again: somebody starts one.
    Await { until: Instant },
    /// Leave it so, until a person does something.
    Rest(Rest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Stopped,
    Refused(String),
    /// `seen`: the tokens that were of no use.
    NeedsLogin {
        reason: String,
        seen: Option<u64>,
    },
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
            clock: MonotonicClamp::default(),
            out: Mailbox::default(),
        }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing<'_> {
        match &self.state {
            State::Attached => Standing::Attached,
            State::SigningIn => Standing::SigningIn,
            State::Looking(Plan::Rest(rest)) | State::Pausing { plan: Plan::Rest(rest), .. } => match rest {
                Rest::Stopped => Standing::Stopped,
                Rest::Refused(reason) => Standing::Refused(reason),
                Rest::NeedsLogin { reason, .. } => Standing::NeedsLogin(reason),
            },
            State::New
            | State::Looking(Plan::Start | Plan::Await { .. })
            | State::Pausing { plan: Plan::Start | Plan::Await { .. }, .. } => {
                self.trouble.as_deref().map_or(Standing::Coming, Standing::Troubled)
            }
        }
    }

    fn answered(&mut self, plan: Plan, answer: &Answer, now: Instant) {
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
        self.trouble = None;
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
            Plan::Start if self.credentials.is_none() => {
                self.sign_in("this machine is not signed in to the relay".into(), now);
            }
            Plan::Start => self.start(now),
            Plan::Await { until } if now < until => self.pause(plan, limits::ATTACH_POLL, now),
            Plan::Await { .. } => self.failed(Plan::Start, "the agent does not come up", now),
            Plan::Rest(Rest::NeedsLogin { seen, .. }) if self.credentials.is_some() && self.credentials != seen => {
                self.start(now);
            }
            Plan::Rest(_) => self.pause(plan, limits::ATTACH_LOOK, now),
        }
    }

    fn start(&mut self, now: Instant) {
        self.out.push(Action::Start);
        self.pause(Plan::Await { until: now + limits::DAEMON_START }, limits::ATTACH_POLL, now);
    }

    /// Opens a browser where that can be, and not again and again.
    fn sign_in(&mut self, reason: String, now: Instant) {
        let opened = self.signed_in.is_some_and(|at| now.saturating_since(at) < limits::SIGNIN_AGAIN);
        if self.settings.interactive && !opened {
            self.signed_in = Some(now);
            self.state = State::SigningIn;
            self.out.push(Action::SignIn);
        } else {
            self.needs_login(reason, now);
        }
    }

    fn needs_login(&mut self, reason: String, now: Instant) {
        let rest = Rest::NeedsLogin { reason, seen: self.credentials };
        self.pause(Plan::Rest(rest), limits::ATTACH_LOOK, now);
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
            Some(Farewell::Refused { reason }) => {
                self.pause(Plan::Rest(Rest::Refused(reason)), limits::ATTACH_LOOK, now);
            }
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
        if let Event::Nobody { credentials } = &event {
            self.credentials = *credentials;
        }
        match (event, self.state.clone()) {
            (Event::Begun, State::New) => self.look(Plan::Start),
            (Event::Answered(answer), State::Looking(plan)) => self.answered(plan, &answer, now),
            (Event::Nobody { .. }, State::Looking(plan)) => self.nobody(plan, now),
            (Event::Failed { reason }, State::Looking(plan)) => self.failed(plan, &reason, now),
            (
                Event::StartFailed { reason },
                State::Looking(Plan::Await { .. }) | State::Pausing { plan: Plan::Await { .. }, .. },
            ) => self.failed(Plan::Start, &reason, now),
            // An agent that could not be the only one ends too: the other one answers in a moment.
            (
                Event::StartEnded { needs_login },
                State::Looking(Plan::Await { .. }) | State::Pausing { plan: Plan::Await { .. }, .. },
            ) => {
                if needs_login {
                    self.sign_in("the relay no longer accepts this machine's sign-in".into(), now);
                } else {
                    self.failed(Plan::Start, "the agent ended at once: see mcp-local-tunnel logs", now);
                }
            }
            (Event::SignedIn(Ok(())), State::SigningIn) => self.look(Plan::Start),
            (Event::SignedIn(Err(reason)), State::SigningIn) => self.needs_login(reason, now),
            (Event::Lost(farewell), State::Attached) => self.lost(farewell, now),
            (
                Event::Begun
                | Event::Answered(_)
                | Event::Nobody { .. }
                | Event::Failed { .. }
                | Event::StartFailed { .. }
                | Event::StartEnded { .. }
                | Event::SignedIn(_)
                | Event::Lost(_),
                _,
            ) => tracing::trace!("late word of the agent"),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clock.clamp(now).instant;
        if let State::Pausing { plan, until } = &self.state
            && *until <= now
        {
            let plan = plan.clone();
            self.look(plan);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Pausing { until, .. } => Some(Deadline { at: *until, reason: "look for the agent" }),
            State::New | State::Looking(_) | State::Attached | State::SigningIn => None,
        }
    }
}
