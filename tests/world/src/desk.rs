//! A desk: editors, the stubs that they start, and the agent that those share, on one machine. The machines are the real
//! ones; sockets, locks, files and processes are simulated, and go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tunnel_core::agent::machine::Exit;
use tunnel_core::daemon::{self, Command, Daemon, Farewell, Kind};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine as _;
use tunnel_core::id::SessionId;
use tunnel_core::limits;
use tunnel_core::stub::link::{self, Action as Link, End};
use tunnel_core::stub::{self, Stub};
use tunnel_core::time::{Instant, Now, UnixTime};

use crate::link::micros;
use crate::sim::caught;
use crate::trace::Trace;

/// What happens at a desk: after so many milliseconds, one of [`ACTS`] to whom it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long before it.
    pub wait_ms: u32,
    /// Which act.
    pub act: u8,
    /// To whom, or how.
    pub who: u8,
}

/// How many kinds of acts there are.
pub const ACTS: u8 = 11;

/// A desk.
pub struct Desk {
    clock: u64,
    queue: BTreeMap<(u64, u64), Due>,
    last: u64,
    dice: Seeded,
    stubs: BTreeMap<u64, StubNode>,
    daemons: BTreeMap<u32, DaemonNode>,
    /// The process that has the pid file's lock, and the one that the file names.
    locked: Option<u32>,
    named: Option<u32>,
    /// The process that listens on the socket.
    socket: Option<u32>,
    stopped: bool,
    /// What tells the tokens; `None`: there are none.
    credentials: Option<u64>,
    /// How the next agents fare that are started.
    next_end: Option<End>,
    /// When agents were started.
    starts: Vec<u64>,
    /// Locks keep nobody out, and each agent is told that the files are its own: a lie that must be noticed.
    is_lawless: bool,
    /// When two of them served at once, and since when.
    doubled: Option<u64>,
    /// What happened.
    pub trace: Trace,
}

struct StubNode {
    machine: Stub,
    version: &'static str,
    /// Which connection it has, and to whom.
    session: Option<(SessionId, u32)>,
    /// Which of its connections is the one of now.
    connections: u64,
    is_attached: bool,
}

struct DaemonNode {
    machine: Daemon,
    version: &'static str,
    sessions: BTreeMap<SessionId, u64>,
    /// It takes connections, and does not answer before then.
    hangs_until: u64,
    /// What waits for it meanwhile.
    waiting: Vec<(u64, u64, bool)>,
    is_ending: bool,
}

/// Something that will happen.
enum Due {
    Stub(u64, stub::Event),
    /// A stub's word on a connection of that number, which it may have closed.
    OnConnection(u64, u64, stub::Event),
    /// A stub's connection reaches the socket.
    Connects(u64, u64, bool),
    Retires(&'static str),
    /// A process is as far as to claim its files.
    Claims(u32, u64, &'static str),
    Daemon(u32, daemon::Event),
    Recovers(u32),
    /// An agent's process ends.
    Gone(u32),
}

const VERSIONS: [&str; 3] = ["2.0.0", "2.1.0", "2.2.0"];

/// How long two agents may serve at once whose files somebody took away: until the older one looks, and stops.
const DOUBLED: Duration = Duration::from_secs(12);

impl Desk {
    /// Runs `steps`, then sees to it that all that must hold does. Returns what was broken, and what happened; with `lines`
    /// all of it.
    #[must_use]
    pub fn play(seed: u64, steps: &[Step], lines: bool) -> (Option<String>, Trace) {
        Self::new(seed, lines).run_all(steps)
    }

    fn new(seed: u64, lines: bool) -> Self {
        Self {
            clock: 0,
            queue: BTreeMap::new(),
            last: 0,
            dice: Seeded::new(seed),
            stubs: BTreeMap::new(),
            daemons: BTreeMap::new(),
            locked: None,
            named: None,
            socket: None,
            stopped: false,
            credentials: Some(1),
            next_end: None,
            starts: Vec::new(),
            is_lawless: false,
            doubled: None,
            trace: Trace::new(lines),
        }
    }

    fn run_all(mut self, steps: &[Step]) -> (Option<String>, Trace) {
        let failure = caught(|| {
            for step in steps {
                self.run(Duration::from_millis(step.wait_ms.into()));
                self.trace.note(self.clock, "──", [step.act.into(), step.who.into()], &[]);
                self.act(*step);
            }
            self.heal();
        });
        (failure, self.trace)
    }

    /// The steps of a seed.
    #[must_use]
    pub fn steps_of(seed: u64) -> Vec<Step> {
        let mut dice = Seeded::new(seed ^ 0xde5c);
        let count = 5 + dice.next_u64() % 40;
        let pace = [50, 1_000, 20_000][usize::try_from(dice.next_u64() % 3).expect("small")];
        let mut below = |most: u64| dice.next_u64() % most;
        let step = |_| Step {
            wait_ms: u32::try_from(below(pace)).expect("small"),
            act: u8::try_from(below(u64::from(ACTS) + 4)).expect("small").saturating_sub(4),
            who: u8::try_from(below(256)).expect("small"),
        };
        (0..count).map(step).collect()
    }

    fn act(&mut self, step: Step) {
        let who = usize::from(step.who);
        match step.act % ACTS {
            0 if self.stubs.len() < 8 => self.editor_starts(VERSIONS[who % VERSIONS.len()]),
            0 => {}
            1 => self.at_stub(who, |desk, id| desk.tell(id, stub::Event::InputEnded)),
            2 => self.at_stub(who, Self::stub_dies),
            3 => self.at_daemon(who, |desk, pid| {
                desk.trace.cover("desk: an agent was killed");
                desk.gone(pid);
            }),
            4 => self.at_daemon(who, |desk, pid| {
                let hangs_until = desk.clock + 1_000_000 * (1 + who as u64);
                desk.daemons.get_mut(&pid).expect("it runs").hangs_until = hangs_until;
                desk.schedule_at(hangs_until, Due::Recovers(pid));
            }),
            5 => {
                self.stopped = true;
                self.at_daemon(who, |desk, pid| desk.ask(pid, u64::MAX, Command::Stop));
            }
            6 => self.stopped = false,
            7 => {
                self.trace.cover("desk: somebody removed the files");
                (self.named, self.locked, self.socket) = (None, None, None);
            }
            8 => self.next_end = Some([End::Failed, End::NeedsLogin, End::Unusable][who % 3]),
            9 => self.credentials = if who.is_multiple_of(2) { None } else { Some(who as u64) },
            _ => self.at_stub(who, |desk, id| {
                let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"status"}}"#;
                desk.tell(id, stub::Event::Line(Bytes::from_static(call)));
            }),
        }
    }

    fn at_stub(&mut self, who: usize, act: impl FnOnce(&mut Self, u64)) {
        let ids: Vec<_> = self.stubs.keys().copied().collect();
        if let Some(id) = who.checked_rem(ids.len()).map(|index| ids[index]) {
            act(self, id);
        }
    }

    fn at_daemon(&mut self, who: usize, act: impl FnOnce(&mut Self, u32)) {
        let pids: Vec<_> = self.daemons.keys().copied().collect();
        if let Some(pid) = who.checked_rem(pids.len()).map(|index| pids[index]) {
            act(self, pid);
        }
    }

    fn heal(&mut self) {
        self.stopped = false;
        self.next_end = None;
        self.credentials = Some(u64::MAX);
        // A stub that a person's stop has put to rest looks again when the mark is gone: an editor that comes starts it.
        self.editor_starts(VERSIONS[0]);
        self.run(Duration::from_secs(900));
        let serving: Vec<_> = self.daemons.keys().copied().collect();
        assert_eq!(serving.len(), 1, "one agent serves: {serving:?}");
        assert_eq!((self.socket, self.locked, self.named), (Some(serving[0]), Some(serving[0]), Some(serving[0])));
        for (id, stub) in &self.stubs {
            assert!(stub.is_attached && stub.session.is_some(), "stub {id} has no session");
        }
        let sessions = self.daemons[&serving[0]].sessions.values().collect::<BTreeSet<_>>();
        assert_eq!(sessions, self.stubs.keys().collect(), "the agent's sessions are the stubs");
        for id in self.stubs.keys().copied().collect::<Vec<_>>() {
            self.tell(id, stub::Event::InputEnded);
        }
        self.run(limits::DAEMON_GRACE + Duration::from_secs(30));
        assert!(self.stubs.is_empty(), "stubs end with their editors");
        assert!(
            self.daemons.is_empty() && self.locked.is_none() && self.socket.is_none(),
            "an agent outlives its grace"
        );
    }

    // Time.

    fn run(&mut self, span: Duration) {
        let end = self.clock + micros(span);
        let mut at_once = 0;
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.next_timer();
            let Some(at) = queued.into_iter().chain(timer.map(|(at, _)| at)).min().filter(|at| *at <= end) else {
                break;
            };
            at_once = if at > self.clock { 0 } else { at_once + 1 };
            assert!(at_once < 10_000, "the desk does not get on");
            self.clock = self.clock.max(at);
            if queued == Some(at) {
                let (_, due) = self.queue.pop_first().expect("it was seen");
                self.happen(due);
            } else if let Some((_, whose)) = timer {
                self.fire(whose);
            }
            self.look();
        }
        self.clock = end;
    }

    /// One owner: two agents serve at once only for as long as it takes the older one to find out.
    fn look(&mut self) {
        let serving =
            self.daemons.values().filter(|daemon| !daemon.is_ending && daemon.hangs_until <= self.clock).count();
        if serving <= 1 {
            self.doubled = None;
            return;
        }
        let since = *self.doubled.get_or_insert(self.clock);
        assert!(self.clock - since <= micros(DOUBLED), "two agents serve at once");
    }

    fn next_timer(&self) -> Option<(u64, Whose)> {
        let stubs = self.stubs.iter().filter_map(|(id, stub)| Some((stub.machine.poll_timeout()?, Whose::Stub(*id))));
        let awake = self.daemons.iter().filter(|(_, daemon)| daemon.hangs_until <= self.clock);
        let daemons = awake.filter_map(|(pid, daemon)| Some((daemon.machine.poll_timeout()?, Whose::Daemon(*pid))));
        stubs.chain(daemons).map(|(deadline, whose)| (deadline.at.as_micros(), whose)).min()
    }

    fn fire(&mut self, whose: Whose) {
        let now = self.now();
        let next = match whose {
            Whose::Stub(id) => {
                let Some(stub) = self.stubs.get_mut(&id) else { return };
                stub.machine.handle_timeout(now);
                self.drain_stub(id);
                self.stubs.get(&id).and_then(|stub| stub.machine.poll_timeout())
            }
            Whose::Daemon(pid) => {
                let Some(daemon) = self.daemons.get_mut(&pid) else { return };
                daemon.machine.handle_timeout(now);
                self.drain_daemon(pid);
                self.daemons.get(&pid).and_then(|daemon| daemon.machine.poll_timeout())
            }
        };
        assert!(next.is_none_or(|next| next.at > now.instant), "{whose:?} was woken, and wants to be at once again");
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.clock),
            unix: UnixTime::from_millis(1_790_000_000_000 + self.clock / 1000),
        }
    }

    fn schedule(&mut self, ms: u64, due: Due) {
        self.schedule_at(self.clock + ms * 1000, due);
    }

    fn schedule_at(&mut self, at: u64, due: Due) {
        self.last += 1;
        self.queue.insert((at, self.last), due);
    }

    fn below(&mut self, most: u64) -> u64 {
        self.dice.next_u64() % most
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Stub(id, event) => self.tell(id, event),
            Due::OnConnection(id, connection, event) => {
                if self.stubs.get(&id).is_some_and(|stub| stub.connections == connection) {
                    self.tell(id, event);
                }
            }
            Due::Connects(id, connection, keep) => self.connects(id, connection, keep),
            Due::Retires(version) => {
                if let Some(pid) = self.socket.filter(|pid| self.daemons.contains_key(pid)) {
                    self.trace.cover("desk: an older agent was asked to make room");
                    self.ask(pid, u64::MAX, Command::Retire { version: version.to_owned() });
                }
            }
            Due::Claims(pid, starter, version) => self.claims(pid, starter, version),
            Due::Daemon(pid, event) => self.tell_daemon(pid, event),
            Due::Recovers(pid) => self.recovers(pid),
            Due::Gone(pid) => self.gone(pid),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Stub(u64),
    Daemon(u32),
}

/// Editors and their stubs.
impl Desk {
    fn editor_starts(&mut self, version: &'static str) {
        self.last += 1;
        let id = self.last;
        self.stopped = false;
        let link = link::Settings { version: version.into(), interactive: true, minted: false, keep: false };
        let settings = stub::Settings { relay: "https://relay.example".into(), link };
        let machine = Stub::new(settings, Box::new(Seeded::new(id ^ 77)));
        let node = StubNode { machine, version, session: None, connections: 0, is_attached: false };
        self.stubs.insert(id, node);
        self.tell(id, stub::Event::Begun);
    }

    fn tell(&mut self, id: u64, event: stub::Event) {
        let now = self.now();
        let Some(node) = self.stubs.get_mut(&id) else { return };
        self.trace.note(self.clock, "stub hears", [id, 0], format!("{event:?}").as_bytes());
        if let stub::Event::Link(link::Event::Answered(answer)) = &event {
            node.is_attached = answer.ok && !answer.ending;
        }
        if let stub::Event::Link(link::Event::Lost(_)) = &event {
            node.is_attached = false;
        }
        node.machine.handle_event(event, now);
        self.drain_stub(id);
    }

    fn drain_stub(&mut self, id: u64) {
        while let Some(action) = self.stubs.get_mut(&id).and_then(|stub| stub.machine.poll_action()) {
            self.trace.note(self.clock, "stub orders", [id, 0], format!("{action:?}").as_bytes());
            match action {
                stub::Action::Link(Link::Attach { keep }) => {
                    self.hang_up(id);
                    let connection = self.stubs[&id].connections;
                    self.schedule(1, Due::Connects(id, connection, keep));
                }
                stub::Action::Link(Link::Retire) => {
                    self.hang_up(id);
                    let version = self.stubs[&id].version;
                    self.schedule(1, Due::Retires(version));
                }
                stub::Action::Link(Link::Start) => self.start(id),
                stub::Action::Link(Link::SignIn) => {
                    self.trace.cover("desk: a person signs in");
                    let credentials = self.below(1_000_000);
                    self.credentials = Some(credentials);
                    self.schedule(8_000, Due::Stub(id, stub::Event::Link(link::Event::SignedIn(Ok(())))));
                }
                stub::Action::Link(Link::LeaveSignIn) => {}
                stub::Action::Link(Link::Kill { pid }) => {
                    if self.locked == Some(pid) {
                        self.trace.cover("desk: an agent that hangs was killed");
                        self.gone(pid);
                    }
                }
                stub::Action::AskStatus { job } => {
                    let outcome = Ok(Bytes::from_static(b"{}"));
                    self.schedule(2, Due::Stub(id, stub::Event::Status { job, outcome }));
                }
                stub::Action::Write(_) => {}
                stub::Action::Exit => self.stub_dies(id),
            }
        }
    }

    fn start(&mut self, id: u64) {
        self.last += 1;
        let pid = u32::try_from(self.last).expect("few processes");
        let (now, version) = (self.clock, self.stubs[&id].version);
        self.starts.retain(|at| now - at < 60_000_000);
        self.starts.push(now);
        assert!(self.starts.len() < 100, "agents are started without end");
        let ms = 5 + self.below(1_500);
        self.schedule(ms, Due::Claims(pid, id, version));
    }

    /// Closes the connection that a stub has.
    fn hang_up(&mut self, id: u64) {
        let Some(stub) = self.stubs.get_mut(&id) else { return };
        stub.connections += 1;
        stub.is_attached = false;
        if let Some((session, pid)) = stub.session.take()
            && let Some(daemon) = self.daemons.get_mut(&pid)
        {
            daemon.sessions.remove(&session);
            self.schedule(1, Due::Daemon(pid, daemon::Event::Closed { session }));
        }
    }

    fn stub_dies(&mut self, id: u64) {
        self.hang_up(id);
        self.stubs.remove(&id);
    }

    fn connects(&mut self, id: u64, connection: u64, keep: bool) {
        if self.stubs.get(&id).is_none_or(|stub| stub.connections != connection) {
            return;
        }
        let Some(pid) = self.socket.filter(|pid| self.daemons.contains_key(pid)) else {
            let (credentials, stopped) = (self.credentials, self.stopped);
            return self.tell(id, stub::Event::Link(link::Event::Nobody { credentials, stopped }));
        };
        let daemon = self.daemons.get_mut(&pid).expect("it runs");
        if daemon.hangs_until > self.clock {
            self.trace.cover("desk: an agent hangs");
            daemon.waiting.push((id, connection, keep));
            let holder = self.locked.map(|pid| (pid, Kind::Daemon));
            let silent = stub::Event::Link(link::Event::Silent { holder });
            return self.schedule(5_000, Due::OnConnection(id, connection, silent));
        }
        let version = self.stubs[&id].version.to_owned();
        self.ask(pid, id, Command::Attach { version, keep });
    }
}

/// Agents.
impl Desk {
    /// A process takes the files, if nobody has them; else it ends.
    fn claims(&mut self, pid: u32, starter: u64, version: &'static str) {
        let end = match self.next_end.take() {
            Some(end) => Some(end),
            None => (self.locked.is_some() && !self.is_lawless).then_some(End::Failed),
        };
        if let Some(end) = end {
            self.trace.cover("desk: an agent ended at its start");
            let ended = link::Event::StartEnded { end, words: None };
            return self.schedule(1, Due::Stub(starter, stub::Event::Link(ended)));
        }
        (self.locked, self.named, self.socket) = (Some(pid), Some(pid), Some(pid));
        let settings =
            daemon::Settings { kind: Kind::Daemon, version: version.into(), pid, grace: limits::DAEMON_GRACE };
        let machine = Daemon::new(settings);
        let sessions = BTreeMap::new();
        let node = DaemonNode { machine, version, sessions, hangs_until: 0, waiting: Vec::new(), is_ending: false };
        self.daemons.insert(pid, node);
        self.tell_daemon(pid, daemon::Event::Begun);
    }

    fn ask(&mut self, pid: u32, stub: u64, command: Command) {
        self.last += 1;
        let session = SessionId(self.last);
        if let Some(node) = self.stubs.get_mut(&stub) {
            node.session = Some((session, pid));
            self.daemons.get_mut(&pid).expect("it was just found").sessions.insert(session, stub);
        }
        self.tell_daemon(pid, daemon::Event::Asked { session, command });
    }

    fn tell_daemon(&mut self, pid: u32, event: daemon::Event) {
        let now = self.now();
        let Some(daemon) = self.daemons.get_mut(&pid) else { return };
        self.trace.note(self.clock, "agent hears", [pid.into(), 0], format!("{event:?}").as_bytes());
        daemon.machine.handle_event(event, now);
        self.drain_daemon(pid);
    }

    fn drain_daemon(&mut self, pid: u32) {
        while let Some(action) = self.daemons.get_mut(&pid).and_then(|daemon| daemon.machine.poll_action()) {
            self.trace.note(self.clock, "agent orders", [pid.into(), 0], format!("{action:?}").as_bytes());
            match action {
                daemon::Action::Answer { session, answer } => {
                    let Some(id) = self.daemons[&pid].sessions.get(&session).copied() else { continue };
                    if !answer.ok {
                        self.daemons.get_mut(&pid).expect("it runs").sessions.remove(&session);
                        self.stubs.get_mut(&id).into_iter().for_each(|stub| stub.session = None);
                    }
                    let connection = self.stubs.get(&id).map(|stub| stub.connections).unwrap_or_default();
                    let answered = stub::Event::Link(link::Event::Answered(answer));
                    self.schedule(1, Due::OnConnection(id, connection, answered));
                }
                daemon::Action::Dismiss(farewell) => self.dismiss(pid, Some(&farewell)),
                daemon::Action::ReadOwner => {
                    let named = if self.is_lawless { Some(pid) } else { self.named };
                    let owner = daemon::Event::Owner { pid: named };
                    self.schedule(1, Due::Daemon(pid, owner));
                }
                daemon::Action::StopAgent => {
                    let daemon = self.daemons.get_mut(&pid).expect("it runs");
                    if !std::mem::replace(&mut daemon.is_ending, true) {
                        let ms = 1 + self.below(4_000);
                        self.schedule(ms, Due::Daemon(pid, daemon::Event::Ended(Exit::Stopped)));
                        self.schedule(ms + 1, Due::Gone(pid));
                    }
                }
            }
        }
    }

    /// Every session hears the last words, if there are any, and is closed.
    fn dismiss(&mut self, pid: u32, farewell: Option<&Farewell>) {
        let Some(daemon) = self.daemons.get_mut(&pid) else { return };
        let sessions = std::mem::take(&mut daemon.sessions);
        for (session, id) in sessions {
            let Some(stub) = self.stubs.get_mut(&id) else { continue };
            if stub.session == Some((session, pid)) {
                stub.session = None;
                let (connection, farewell) = (stub.connections, farewell.cloned());
                self.schedule(1, Due::OnConnection(id, connection, stub::Event::Link(link::Event::Lost(farewell))));
            }
        }
    }

    fn recovers(&mut self, pid: u32) {
        let Some(daemon) = self.daemons.get_mut(&pid).filter(|daemon| daemon.hangs_until <= self.clock) else { return };
        for (id, connection, keep) in std::mem::take(&mut daemon.waiting) {
            if self.stubs.get(&id).is_some_and(|stub| stub.connections == connection) {
                let version = self.stubs[&id].version.to_owned();
                self.ask(pid, id, Command::Attach { version, keep });
            }
        }
    }

    /// A process ended, however: the system lets go of its lock, and whoever waited is told.
    fn gone(&mut self, pid: u32) {
        self.dismiss(pid, None);
        let Some(was) = self.daemons.remove(&pid) else { return };
        self.trace.note(self.clock, "agent gone", [pid.into(), 0], was.version.as_bytes());
        for of in [&mut self.locked, &mut self.named, &mut self.socket] {
            if *of == Some(pid) {
                *of = None;
            }
        }
        for (id, connection, _) in was.waiting {
            let (credentials, stopped) = (self.credentials, self.stopped);
            let nobody = stub::Event::Link(link::Event::Nobody { credentials, stopped });
            self.schedule(1, Due::OnConnection(id, connection, nobody));
        }
    }
}

#[cfg(test)]
mod tests;
