//! One local server: its life, and the MCP client that talks to it.
//!
//! This file keeps it alive, [`process`] is what is heard of its process, [`ends`] how it ends, and [`rest`] when it need not run;
//! [`runs`] are those that it has beside the one that all share, and [`legacy`] what one of those told;
//! [`era`] is which protocol it is spoken to with, [`handshake`] and [`lists`] are what it is asked before it takes calls,
//! [`calls`] are what it is asked then, [`hearing`] is what it says, [`notices`] and [`questions`] what it says unasked,
//! [`belonging`] to whom that belongs, and [`beside`] what it asks with no call open;
//! [`subscriptions`] are what clients set, [`listening`] streams of changes, and [`lasting`] how those outlive a run;
//! [`bridging`] and [`parking`] stand between it and clients of the other era; [`stdio`] and [`http`] are the links to it.
//!
//! ```text
//!            start            runs             lists tools
//!   Idle ──────────► Starting ─────► Probing ─────────────► Ready
//!                      ▲  │             │                     │
//!       backoff is over│  └─────────────┴──────────┬──────────┘
//!                      │                           │ it ends, hangs, breaks a rule
//!                      ├────── Restarting ◄────────┤
//!                      └────── Failed ◄────────────┘ too often, or only a person can mend it (tried again, slowly)
//!
//!   any of them ── restart, stop, rest ──► Stopping ──► Starting | Stopped | Asleep
//!
//!   a lazy one: Idle ──► Recalling ──► Asleep ── a call ──► Starting
//! ```
//!
//! Whatever state it is in, no other server waits for it, and a call to it is answered: by the server, or with a typed
//! error that names it and says why.

mod belonging;
mod beside;
mod bridging;
mod calls;
mod ends;
mod era;
mod handshake;
mod hearing;
mod http;
mod lasting;
mod leftovers;
mod legacy;
mod link;
mod listening;
mod lists;
mod mirror;
mod notices;
mod parking;
mod process;
mod questions;
mod rest;
mod runs;
mod shown;
mod stdio;
mod subscriptions;
#[cfg(test)]
mod tests;
mod text;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::belonging::Belongings;
use self::beside::Beside;
use self::bridging::Bridge;
pub(super) use self::calls::Why;
use self::handshake::Asked;
use self::http::Http;
use self::link::Link;
use self::listening::Listening;
pub(super) use self::lists::List;
use self::lists::Lists;
use self::questions::{Cancelled, Questions};
use self::runs::Owner;
pub(super) use self::shown::Share;
use self::stdio::Stdio;
use self::subscriptions::{Told, Undo};
pub(super) use self::text::people;
use super::bridge::Era;
use super::caller::Caller;
use super::contract::{Action, Spawn};
use super::cx::{Cx, Report, RequestId, Slot};
use super::pins::Edition;
use super::routing::Progress;
use super::tools::Tools;
use super::veil::Veil;
use super::wishes::Level;
use crate::backoff::Backoff;
use crate::config::{ServerConfig, Transport};
use crate::id::ChildId;
use crate::limits;
use crate::mcp::catalog::{Announced, Changed};
use crate::time::Instant;

/// What a server waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The end of the patience with a start.
    Start,
    /// The next start.
    Restart,
    /// The next step of a stop: SIGTERM, then SIGKILL.
    Stop,
    /// The end of the patience with `server/discover`.
    Discover,
    /// Lists changed: ask for them again; or: the list that was asked for does not come.
    Relist,
    /// The next attempt to open an HTTP server's stream of notifications.
    Listen,
    /// The next attempt to take up clients' subscriptions whose streams broke.
    Subscribe,
    /// A broken event stream is taken up again.
    Resume(RequestId),
    /// It may have been without a call for long enough to be stopped.
    Idle,
    /// Nothing was heard of a call for its idle limit.
    Call(RequestId),
    /// The client of a call that waits for its answers did not come back.
    Parked(RequestId),
    /// A client does not answer what it was asked outside of its calls.
    Beside(RequestId),
}

impl Timer {
    /// For people and traces.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Start => "give a start up",
            Self::Restart => "start a server again",
            Self::Stop => "stop a server harder",
            Self::Discover => "speak an older protocol",
            Self::Relist => "list again",
            Self::Listen => "open a server's stream",
            Self::Subscribe => "take clients' subscriptions up again",
            Self::Resume(_) => "resume a stream",
            Self::Idle => "stop a server that nobody calls",
            Self::Call(_) => "give a silent call up",
            Self::Parked(_) => "give a call up whose client is away",
            Self::Beside(_) => "give a question up",
        }
    }
}

/// One local server.
pub(super) struct Server {
    slot: Slot,
    name: String,
    /// Whose it is, if a session has it for itself; `None`: it is the one that all share.
    session: Option<Owner>,
    config: ServerConfig,
    state: State,
    since: Instant,
    /// When a call came or went the last time.
    last_used: Instant,
    /// Why it is not ready.
    reason: Option<String>,
    /// Starts after an unexpected end.
    restarts: u32,
    backoff: Backoff,
    link: Option<Link>,
    /// In which era its run is spoken to.
    era: Era,
    /// It did not answer `server/discover`: it is not asked again.
    is_mute: bool,
    /// Somebody restarted it: its era is found out anew, whatever was known.
    forgets_era: bool,
    /// It is a run of a server of both eras for clients of the legacy one, if it knows that: it is tried.
    is_trial: bool,
    /// It was tried with `initialize`, and does not speak the legacy era.
    is_modern_alone: bool,
    /// What it is being asked: the handshake, or a list.
    asked: Option<Asked>,
    lists: Lists,
    questions: Questions,
    beside: Beside,
    belongings: Belongings,
    cancelled: Cancelled,
    told: Told,
    listening: Listening,
    /// It is the run of a server of both eras for clients of the legacy one.
    is_branch: bool,
    about: About,
    /// What its run for clients of the legacy era told, of a server that speaks both.
    legacy: Option<About>,
    /// Tools that must not be used, with the reason.
    unusable: BTreeMap<String, &'static str>,
    /// How often it said that its lists changed.
    announced: Announced,
    /// The same of what its run for clients of the legacy era said.
    announced_legacy: Announced,
    /// Tools that are not what was pinned.
    changed: Vec<Changed>,
    calls: BTreeMap<RequestId, Box<Call>>,
    /// Calls that came while it was starting: sent once it is ready.
    held: VecDeque<Held>,
    /// Processes that were killed and whose end was not told yet.
    dying: BTreeSet<ChildId>,
    /// The digest of what is kept of it on disk.
    kept: Option<String>,
    /// What must not be told of it.
    veil: Veil,
}

/// How a server is. Private: changed by `move_to_*` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before its first start.
    Idle,
    /// What it offered when it ran last is being looked up.
    Recalling,
    /// Its process was ordered.
    Starting,
    /// It is asked what it can do.
    Probing,
    /// It takes calls.
    Ready,
    /// It is not running, and its next call starts it.
    Asleep,
    /// It ended and will be started again.
    Restarting,
    /// As `Restarting`, but somebody must probably help, so that it is tried rarely.
    Failed,
    /// It was told to end.
    Stopping(Step, Then),
    /// It ended, as told.
    Stopped,
}

/// How hard a server was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its stdin is closed (or its session ended).
    Asked,
    /// SIGTERM.
    Terminated,
    /// SIGKILL.
    Killed,
}

/// What comes after a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Start,
    Sleep,
    Nothing,
}

/// What a server told of itself. Kept over a restart, so that a short one hides no tool; forgotten when it failed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    info: Option<Box<RawValue>>,
    capabilities: Option<Box<RawValue>>,
    instructions: Option<String>,
    /// The protocol versions that it is known to speak.
    versions: Vec<String>,
    tools: Tools,
    prompts: Vec<Box<RawValue>>,
    resources: Vec<Box<RawValue>>,
    templates: Vec<Box<RawValue>>,
}

/// A call that the server works on.
#[derive(Debug)]
struct Call {
    caller: Caller,
    /// Whether something was asked in the course of it.
    asked: bool,
    /// What stands between them, should they be of different eras.
    bridge: Bridge,
    /// From which level on a modern client hears what the server logs.
    level: Option<Level>,
    /// Whether it asks for tools, of which some may be hidden.
    lists_tools: bool,
    /// What is taken back unless the server agrees.
    undo: Option<Undo>,
    /// The caller's own progress token, if it wants to hear.
    progress: Option<Progress>,
    /// The whole request, once the server refused it since it did not know the session; empty: it was sent again.
    refused: Option<Bytes>,
}

/// A call that waits until its server can be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) request: RequestId,
    pub(super) caller: Caller,
    pub(super) method: Arc<str>,
    pub(super) params: Bytes,
}

/// Why a server is not running any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It may well work the next time.
    Transient,
    /// It ended by itself, with code 0.
    Ended,
    /// It will not work before somebody changes something.
    NeedsHelp,
}

impl Server {
    pub(super) fn new(slot: Slot, name: String, config: ServerConfig, now: Instant) -> Self {
        Self {
            slot,
            name,
            session: None,
            veil: Veil::of_entry(&config),
            config,
            state: State::Idle,
            since: now,
            last_used: now,
            reason: None,
            restarts: 0,
            backoff: Backoff::new(limits::RESTART_FIRST, limits::RESTART_MAX, limits::RESTART_STABLE),
            link: None,
            era: Era::Legacy,
            is_mute: false,
            forgets_era: false,
            is_trial: false,
            is_modern_alone: false,
            asked: None,
            lists: Lists::default(),
            questions: Questions::default(),
            beside: Beside::default(),
            belongings: Belongings::default(),
            cancelled: Cancelled::default(),
            told: Told::default(),
            listening: Listening::default(),
            is_branch: false,
            about: About::default(),
            legacy: None,
            unusable: BTreeMap::new(),
            announced: Announced::default(),
            announced_legacy: Announced::default(),
            changed: Vec::new(),
            calls: BTreeMap::new(),
            held: VecDeque::new(),
            dying: BTreeSet::new(),
            kept: None,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Its tools, shown or not, as far as is known.
    pub(super) fn tools(&self) -> &Tools {
        &self.about.tools
    }

    /// Judges its tools anew, since the rules or the pins are others.
    pub(super) fn judge(&mut self, cx: &mut Cx) {
        if self.judge_tools(cx) {
            cx.report(Report::Changed(self.slot));
        }
    }

    /// Judges its tools. Returns whether its catalog differs by that.
    fn judge_tools(&mut self, cx: &mut Cx) -> bool {
        let mut shown = cx.guard.judge(&self.name, self.edition(), &mut self.about.tools);
        if let Some(legacy) = &mut self.legacy {
            shown |= cx.guard.judge(&self.name, Edition::Legacy, &mut legacy.tools);
        }
        if self.edition() == Edition::Main && !self.is_dual() && !self.about.tools.is_empty() {
            cx.guard.has_one_list(&self.name);
        }
        let changed = cx.guard.changes_of(&self.name);
        let told = core::mem::replace(&mut self.changed, changed);
        shown || told != self.changed
    }

    /// Whether it was stopped and nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Idle | State::Stopped) && self.dying.is_empty()
    }

    /// When a call came or went the last time.
    pub(super) fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Whether nobody waits for it.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.held.is_empty() && !self.listening.is_used()
    }

    /// Whether it is known what it offers, so that it can be told which runs it needs.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.state, State::Ready | State::Asleep)
    }

    /// Whether a call may be given to it.
    pub(super) fn takes_calls(&self) -> bool {
        !matches!(self.state, State::Failed | State::Stopped | State::Stopping(_, Then::Nothing))
    }

    /// What it told of itself.
    pub(super) fn about(&self) -> About {
        self.about.clone()
    }

    /// Starts it for the first time; a lazy one, once somebody calls it.
    pub(super) fn start(&mut self, cx: &mut Cx) {
        match self.state {
            State::Idle if self.is_lazy() => self.move_to_recalling(cx),
            State::Idle => self.move_to_starting(cx),
            _ => {}
        }
    }

    /// Ends it and starts it again, with its entry as it now is.
    pub(super) fn restart(&mut self, config: Option<ServerConfig>, cx: &mut Cx) {
        self.remember_lists();
        if let Some(config) = config {
            let program = self.fingerprint();
            self.config = config;
            if program != self.fingerprint() {
                // What was told is another program's.
                (self.about, self.legacy) = (About::default(), None);
                self.is_modern_alone = false;
            }
        }
        (self.is_mute, self.forgets_era) = (false, true);
        self.backoff = Backoff::new(limits::RESTART_FIRST, limits::RESTART_MAX, limits::RESTART_STABLE);
        match self.state {
            State::Starting | State::Probing | State::Ready => self.move_to_stopping(Then::Start, cx),
            State::Restarting | State::Failed | State::Asleep => self.move_to_starting(cx),
            State::Stopping(step, _) => self.state = State::Stopping(step, Then::Start),
            State::Idle | State::Recalling | State::Stopped => {}
        }
    }

    /// Ends it for good.
    pub(super) fn stop(&mut self, cx: &mut Cx) {
        match self.state {
            State::Starting | State::Probing | State::Ready => self.move_to_stopping(Then::Nothing, cx),
            State::Stopping(step, _) => {
                self.state = State::Stopping(step, Then::Nothing);
                self.end_subscriptions(cx);
                self.fail_calls("it is being stopped", cx);
            }
            State::Idle | State::Recalling | State::Asleep | State::Restarting | State::Failed | State::Stopped => {
                self.move_to_stopped(cx)
            }
        }
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self, cx: &mut Cx) {
        self.stop(cx);
        if let (State::Stopping(Step::Asked | Step::Terminated, then), Some(child)) = (self.state, self.child()) {
            self.state = State::Stopping(Step::Killed, then);
            cx.disarm(self.slot, Timer::Stop);
            cx.out.push(Action::Kill { child, force: true });
        }
    }

    pub(super) fn handle_timeout(&mut self, timer: Timer, cx: &mut Cx) {
        match (timer, self.state) {
            (Timer::Start, State::Probing) if self.gives_up_lists(cx) => {}
            (Timer::Start, State::Starting | State::Probing | State::Ready) => {
                let why = match self.asked {
                    Some(Asked::Nothing) => "it closed its stdout".to_string(),
                    _ => format!("it was not ready within {} s", self.config.start_timeout_secs),
                };
                let reason = self.with_noise(why);
                self.fail(Fault::Transient, reason, cx);
            }
            (Timer::Restart, State::Restarting | State::Failed) => {
                self.restarts = self.restarts.saturating_add(1);
                self.move_to_starting(cx);
            }
            (Timer::Stop, State::Stopping(step, then)) => self.stop_harder(step, then, cx),
            (Timer::Discover, State::Probing) => self.discover_timed_out(cx),
            (Timer::Relist, State::Probing | State::Ready) => self.list_again(cx),
            (Timer::Listen, State::Ready) => self.listen_again(cx),
            (Timer::Subscribe, State::Ready) => self.subscribe_again(cx),
            (Timer::Resume(request), State::Probing | State::Ready) => {
                if let Some(Link::Http(http)) = &mut self.link {
                    http.resume(request, cx);
                }
            }
            (Timer::Idle, State::Ready) => self.rest_if_idle(cx),
            (Timer::Call(request), State::Ready) => self.give_up(request, cx),
            (Timer::Parked(request), State::Ready) => self.give_up_parked(request, cx),
            (Timer::Beside(number), State::Probing | State::Ready) => self.give_up_beside(number, cx),
            // A timer of a state that is over.
            (
                Timer::Start
                | Timer::Restart
                | Timer::Stop
                | Timer::Discover
                | Timer::Relist
                | Timer::Listen
                | Timer::Subscribe
                | Timer::Resume(_)
                | Timer::Idle
                | Timer::Call(_)
                | Timer::Parked(_)
                | Timer::Beside(_),
                _,
            ) => {}
        }
    }

    fn move_to_starting(&mut self, cx: &mut Cx) {
        assert!(self.link.is_none(), "a server is started once its last run is over");
        self.enter(State::Starting, None, cx);
        cx.disarm(self.slot, Timer::Restart);
        cx.arm(self.slot, Timer::Start, Duration::from_secs(self.config.start_timeout_secs));
        match &self.config.transport {
            Transport::Stdio { command, env, cwd } => {
                let spawn = Spawn {
                    server: self.name.clone(),
                    log: self.log_name(),
                    command: command.clone(),
                    env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                    cwd: cwd.clone(),
                    max_line: limits::MAX_MESSAGE,
                    memory_limit: self.config.life.memory_limit,
                    sandbox: self.config.life.sandbox,
                };
                let child = cx.spawn(self.slot, spawn);
                self.link = Some(Link::Stdio(Stdio::new(child, self.veil.clone())));
            }
            Transport::Http { url, headers } => {
                self.link = Some(Link::Http(Box::new(Http::new(self.slot, url, headers, self.veil.clone()))));
                self.move_to_probing(cx);
            }
        }
    }

    fn move_to_probing(&mut self, cx: &mut Cx) {
        assert_eq!(self.state, State::Starting, "only a started server is asked what it can do");
        self.enter(State::Probing, None, cx);
        self.probe(cx);
    }

    fn move_to_ready(&mut self, cx: &mut Cx) {
        assert_eq!(self.state, State::Probing, "only a server that was asked is ready");
        self.enter(State::Ready, None, cx);
        cx.disarm(self.slot, Timer::Start);
        self.backoff.connected(cx.now.instant);
        tracing::info!(server = self.name.as_str(), tools = self.about.tools.count(), "server ready");
        self.establish(cx);
        self.take_up_subscriptions(cx);
        self.ask_refused(cx);
        for held in core::mem::take(&mut self.held) {
            self.send_call(held, cx);
        }
        if let (Era::Legacy, Some(Link::Http(http))) = (self.era, &mut self.link) {
            http.listen(cx);
        }
        self.rest_unless_used(cx);
    }

    fn move_to_stopping(&mut self, then: Then, cx: &mut Cx) {
        self.forget_run(cx);
        match then {
            Then::Start => self.keep_subscriptions(),
            Then::Sleep | Then::Nothing => self.end_subscriptions(cx),
        }
        self.fail_open("it is being restarted or stopped", cx);
        if then == Then::Nothing {
            self.fail_calls("it is being stopped", cx);
        }
        let waits = match &mut self.link {
            Some(Link::Stdio(stdio)) => {
                cx.out.push(Action::CloseStdin { child: stdio.child });
                true
            }
            Some(Link::Http(http)) => http.close(cx),
            None => false,
        };
        self.enter(State::Stopping(Step::Asked, then), None, cx);
        if waits {
            cx.arm(self.slot, Timer::Stop, limits::STOP_GRACE);
        } else {
            self.ended_as_told(then, cx);
        }
    }

    fn move_to_stopped(&mut self, cx: &mut Cx) {
        self.forget_run(cx);
        cx.disarm(self.slot, Timer::Restart);
        self.end_subscriptions(cx);
        self.fail_calls("it is stopped", cx);
        self.enter(State::Stopped, None, cx);
    }

    fn enter(&mut self, state: State, reason: Option<String>, cx: &mut Cx) {
        tracing::debug!(server = self.name.as_str(), ?state, "server state");
        self.state = state;
        self.since = cx.now.instant;
        // While it starts again, why it had to is worth knowing.
        if !matches!(state, State::Starting | State::Probing) {
            self.reason = reason;
        }
        cx.report(Report::Changed(self.slot));
    }

    /// Drops what belongs to one run.
    fn forget_run(&mut self, cx: &mut Cx) {
        self.remember_lists();
        self.asked = None;
        self.lists = Lists::default();
        self.questions = Questions::default();
        self.forget_beside(cx);
        self.belongings = Belongings::default();
        self.cancelled = Cancelled::default();
        self.listening.forget();
        for timer in [Timer::Start, Timer::Discover, Timer::Relist, Timer::Listen, Timer::Subscribe, Timer::Idle] {
            cx.disarm(self.slot, timer);
        }
    }
}
