//! An agent as a daemon: which sessions of editors live on it, how long it outlives them, and whether it still is the
//! one that its files name.
//!
//! One agent runs per configuration. Editors' stubs attach to it as *sessions*; it serves while there is one and for a
//! grace after the last. What one asks on its socket, and what it answers, is [`Command`] and [`Answer`]; what it says
//! to its sessions before it ends is [`Farewell`].

mod standing;
#[cfg(test)]
mod tests;
mod version;

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::machine::{ControlCommand, Exit};
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::id::SessionId;
use crate::limits;
use crate::time::{Deadline, Instant, Now};

pub use standing::Standing;
pub use version::is_older;

/// How an agent was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By a stub, or by `start`: it lives as long as it is needed.
    Daemon,
    /// By a person or a service manager, who alone ends it.
    Foreground,
}

/// What may be asked of the machine, one JSON object each. What is not among these is the agent's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Count this connection as a session until it closes.
    Attach {
        /// The asker's version.
        version: String,
        /// Stay from now on, with and without sessions.
        #[serde(default)]
        keep: bool,
    },
    /// End, so that a newer version may take over.
    Retire {
        /// The newer version.
        version: String,
    },
    /// End.
    Stop,
    /// Nothing: the answer is all that is wanted.
    Show,
}

/// What may be asked on an agent's socket: one JSON object on a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Request {
    /// Of this machine.
    Daemon(Command),
    /// Of the agent.
    Agent(ControlCommand),
}

/// The answer to every [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// The agent's version.
    pub version: String,
    /// The agent's process.
    pub pid: u32,
    /// How it was started.
    pub kind: Kind,
    /// Whether it stays without sessions.
    #[serde(default)]
    pub kept: bool,
    /// How many sessions it has; one before this version does not say.
    #[serde(default)]
    pub sessions: Option<usize>,
    /// It is about to end.
    #[serde(default)]
    pub ending: bool,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The last words to every session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "farewell", rename_all = "kebab-case")]
pub enum Farewell {
    /// Somebody stopped it: it is not to be started again by itself.
    Stopped,
    /// A newer version takes over, or already has.
    Replaced,
    /// Nobody needed it any more.
    Unused,
    /// A person must sign in.
    NeedsLogin {
        /// Why, for people.
        reason: String,
    },
    /// The relay refused this device for good.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Something that a newer agent knows.
    #[serde(other)]
    Unknown,
}

impl From<&Exit> for Farewell {
    fn from(exit: &Exit) -> Self {
        match exit {
            Exit::Stopped => Self::Stopped,
            Exit::NeedsLogin(failure) => Self::NeedsLogin { reason: failure.to_string() },
            Exit::Refused(reason) => Self::Refused { reason: reason.clone() },
        }
    }
}

/// What a daemon is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How it was started.
    pub kind: Kind,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it outlives its last session.
    pub grace: Duration,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent begins.
    Begun,
    /// Somebody asks; answered with [`Action::Answer`] in the same step.
    Asked {
        /// The connection it came on.
        session: SessionId,
        /// What.
        command: Command,
    },
    /// A connection closed, by itself or with its process.
    Closed {
        /// Which.
        session: SessionId,
    },
    /// Who owns the files now: the process that the pid file names, if there is one.
    Owner {
        /// Its id.
        pid: Option<u32>,
    },
    /// SIGTERM or SIGINT came.
    StopAsked,
    /// The agent ended, for this reason.
    Ended(Exit),
}

/// What it orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answer what was asked on this connection.
    Answer {
        /// The connection.
        session: SessionId,
        /// The answer.
        answer: Answer,
    },
    /// Say this to every session and close it.
    Dismiss(Farewell),
    /// Read the pid file, then bring [`Event::Owner`].
    ReadOwner,
    /// Have the agent end. Asked a second time, at once.
    StopAgent,
}

/// The machine.
///
/// ```text
///           attach                  grace over, retired,
///  Waiting ────────► Serving        stopped, taken over      agent ended
///     ▲  ◄────────────┘  └────────────────┐                ┌────────────► Ended
///     │   last one gone                   ├──► Ending ─────┘
///     └───────────────────────────────────┘
/// ```
#[derive(Debug)]
pub struct Daemon {
    settings: Settings,
    state: State,
    sessions: BTreeSet<SessionId>,
    /// Somebody wants it to stay without sessions.
    kept: bool,
    owner_due: Instant,
    clock: MonotonicClamp,
    out: Mailbox<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun.
    New,
    /// No session: it ends then, unless it is kept.
    Waiting { until: Instant },
    /// There is a session.
    Serving,
    /// The agent was told to end.
    Ending,
    /// The agent has ended.
    Ended,
}

impl Daemon {
    /// A daemon that has not begun.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::New,
            sessions: BTreeSet::new(),
            kept: false,
            owner_due: Instant::default(),
            clock: MonotonicClamp::default(),
            out: Mailbox::default(),
        }
    }

    fn asked(&mut self, session: SessionId, command: Command) {
        let error = match self.state {
            State::New | State::Ending | State::Ended => match command {
                Command::Show => None,
                // Asked again, it ends at once.
                Command::Stop if self.state == State::Ending => {
                    self.out.push(Action::StopAgent);
                    None
                }
                Command::Attach { .. } | Command::Retire { .. } | Command::Stop => Some("the agent is ending".into()),
            },
            State::Waiting { .. } | State::Serving => match command {
                Command::Attach { version, keep } => self.attach(session, &version, keep),
                Command::Retire { version } => self.retire(&version),
                Command::Stop => {
                    self.end(Farewell::Stopped);
                    None
                }
                Command::Show => None,
            },
        };
        let answer = self.answer(error);
        self.out.push(Action::Answer { session, answer });
    }

    /// The reason if it cannot be.
    fn attach(&mut self, session: SessionId, version: &str, keep: bool) -> Option<String> {
        if self.sessions.len() >= limits::MAX_SESSIONS && !self.sessions.contains(&session) {
            return Some("the agent has too many sessions".into());
        }
        self.kept |= keep;
        self.sessions.insert(session);
        self.state = State::Serving;
        tracing::debug!(session = session.0, version, sessions = self.sessions.len(), "session attached");
        None
    }

    /// The reason if it cannot be. Two versions must never replace each other in turn, so only a newer one may ask.
    fn retire(&mut self, version: &str) -> Option<String> {
        if self.settings.kind == Kind::Foreground {
            return Some("the agent runs in the foreground: whoever started it ends it".into());
        }
        if !is_older(&self.settings.version, version) {
            return Some("the agent is not older".into());
        }
        tracing::info!(version, "a newer version takes over");
        self.end(Farewell::Replaced);
        None
    }

    fn answer(&self, error: Option<String>) -> Answer {
        Answer {
            ok: error.is_none(),
            version: self.settings.version.clone(),
            pid: self.settings.pid,
            kind: self.settings.kind,
            kept: self.kept,
            sessions: Some(self.sessions.len()),
            ending: matches!(self.state, State::Ending | State::Ended),
            error,
        }
    }

    fn closed(&mut self, session: SessionId, now: Instant) {
        if self.sessions.remove(&session) && self.sessions.is_empty() && self.state == State::Serving {
            tracing::debug!(session = session.0, "last session gone");
            self.state = State::Waiting { until: now + self.settings.grace };
        }
    }

    fn owner(&mut self, pid: Option<u32>) {
        let taken_over = match pid {
            Some(pid) => pid != self.settings.pid,
            // A daemon that nobody can find serves nobody; one in the foreground may have been started for its tunnel.
            None => self.settings.kind == Kind::Daemon,
        };
        if taken_over && self.is_running() {
            tracing::warn!("another agent has taken this one's place");
            self.end(Farewell::Replaced);
        }
    }

    fn end(&mut self, farewell: Farewell) {
        self.state = State::Ending;
        self.dismiss(farewell);
        self.out.push(Action::StopAgent);
    }

    fn dismiss(&mut self, farewell: Farewell) {
        self.sessions.clear();
        self.out.push(Action::Dismiss(farewell));
    }

    fn is_running(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Serving)
    }

    fn expires(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } if !self.kept && self.settings.kind == Kind::Daemon => Some(until),
            State::Waiting { .. } | State::New | State::Serving | State::Ending | State::Ended => None,
        }
    }
}

impl Machine for Daemon {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let now = self.clock.clamp(now).instant;
        match event {
            Event::Begun if self.state == State::New => {
                // Whoever started it may take a while to come, whatever the grace.
                let until = now + self.settings.grace.max(limits::DAEMON_FIRST_SESSION);
                self.state = State::Waiting { until };
                self.owner_due = now + limits::OWNER_INTERVAL;
            }
            Event::Begun => {}
            Event::Asked { session, command } => self.asked(session, command),
            Event::Closed { session } => self.closed(session, now),
            Event::Owner { pid } => self.owner(pid),
            Event::StopAsked => match self.state {
                State::Waiting { .. } | State::Serving => self.end(Farewell::Stopped),
                State::New | State::Ending => self.out.push(Action::StopAgent),
                State::Ended => {}
            },
            Event::Ended(exit) => {
                if self.is_running() {
                    self.dismiss(Farewell::from(&exit));
                }
                self.state = State::Ended;
            }
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clock.clamp(now).instant;
        if self.expires().is_some_and(|at| at <= now) {
            tracing::info!("no session is left");
            self.end(Farewell::Unused);
        }
        if self.is_running() && self.owner_due <= now {
            self.owner_due = now + limits::OWNER_INTERVAL;
            self.out.push(Action::ReadOwner);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let owner = self.is_running().then_some(Deadline { at: self.owner_due, reason: "look who owns the files" });
        let expiry = self.expires().map(|at| Deadline { at, reason: "end of the grace" });
        owner.into_iter().chain(expiry).min_by_key(|deadline| deadline.at)
    }
}
