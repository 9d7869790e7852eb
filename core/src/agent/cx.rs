//! What the parts of an agent share while one input is handled: the time, the outbox, the timers, the numbers.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::bridge::state::{self, Binding, Ticket};
use super::contract::{Action, Spawn};
use super::guard::Guard;
use super::server;
use super::wishes::Wishes;
use crate::entropy::Seeded;
use crate::host::Mailbox;
use crate::http::fetch::Fetch;
use crate::id::{ChildId, FetchId};
use crate::seal::Sealer;
use crate::time::Now;
use crate::timers::Timers;
use crate::tunnel::Outcome;

/// One local server in an agent's table. A server whose entry is gone keeps its slot until its process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u32);

/// A request to a local server: its JSON-RPC id there. One sequence for the whole agent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestId(pub(super) u64);

/// What an agent waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next attempt to reach the relay.
    Redial,
    /// The next look at both clocks: has the machine been asleep?
    Watch,
    /// The next attempt to sign in, after a relay answered nonsense.
    SigninAgain,
    /// The network changed a moment ago, and has settled.
    Network,
    /// The end of the patience with whatever still runs at the stop.
    StopDeadline,
    /// Sessions set something else than what was kept last.
    Wishes,
    /// The end of the patience with whoever should approve a call.
    Approval(RequestId),
    /// Something of one local server.
    Server(Slot, server::Timer),
}

impl Timer {
    /// For people and traces.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Redial => "connect to the relay",
            Self::Watch => "compare the clocks",
            Self::SigninAgain => "sign in again",
            Self::Network => "look at the changed network",
            Self::StopDeadline => "end without waiting",
            Self::Wishes => "keep what sessions set",
            Self::Approval(_) => "give an approval up",
            Self::Server(_, timer) => timer.reason(),
        }
    }
}

/// What a local server tells its agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Its part of the catalog changed.
    Changed(Slot),
    /// A further run of a server was told what the server offers.
    Learned {
        /// Which.
        run: Slot,
        /// Of which lists it had said that they changed.
        announced: BTreeSet<server::List>,
    },
    /// A call has its final answer.
    Answer {
        /// Which.
        request: RequestId,
        /// Result or error.
        outcome: Outcome,
        /// The raw `result` or `error`.
        body: Bytes,
    },
    /// A run of a server for clients of the legacy era did not come up: it is taken not to speak that.
    NotLegacy {
        /// Which.
        run: Slot,
        /// The calls that waited for it.
        held: Vec<server::Held>,
    },
    /// A call goes on under another number: it was sent once more, or taken up again.
    Moved {
        /// What it was.
        from: RequestId,
        /// What it is now.
        to: RequestId,
    },
    /// A notification that belongs to a call, or a question in its course.
    Message {
        /// Which.
        request: RequestId,
        /// The raw message.
        json: Bytes,
        /// Whether a newer one makes it worthless.
        droppable: bool,
    },
    /// A call's server closed its event stream and is asked for the rest later.
    Pause {
        /// Which.
        request: RequestId,
        /// After this time.
        wait: core::time::Duration,
    },
    /// A notification that belongs to no call, or a question to the client of one session.
    Notice {
        /// The server's name.
        server: String,
        /// For whom: keys of sessions; empty: for everyone who listens to it.
        sessions: Vec<String>,
        /// The raw message.
        json: Bytes,
    },
}

/// The shared part. Numbers rise and are never reused, so that a late event finds nobody.
pub(super) struct Cx {
    pub(super) now: Now,
    pub(super) jitter: Seeded,
    pub(super) out: Mailbox<Action>,
    pub(super) timers: Timers<Timer>,
    pub(super) reports: VecDeque<Report>,
    pub(super) guard: Guard,
    /// What clients' sessions want to hear.
    pub(super) wishes: Wishes,
    /// Whether the relay asks clients what servers ask with no call open.
    pub(super) asks_beside: bool,
    /// Whether the relay keeps a question whose call has its result for another call of the same client.
    pub(super) hands_on: bool,
    /// The program's version, for `clientInfo`.
    pub(super) version: String,
    /// Seals what modern clients carry for calls that wait for their answers: this agent's alone, since they end with it.
    pub(super) states: Sealer,
    children: BTreeMap<ChildId, Slot>,
    fetches: BTreeMap<FetchId, Slot>,
    last_child: u64,
    last_fetch: u64,
    last_request: u64,
}

impl Cx {
    pub(super) fn new(jitter: Seeded, version: String, states: Sealer) -> Self {
        Self {
            now: Now::default(),
            jitter,
            out: Mailbox::default(),
            timers: Timers::default(),
            reports: VecDeque::new(),
            guard: Guard::default(),
            wishes: Wishes::default(),
            asks_beside: false,
            hands_on: false,
            version,
            states,
            children: BTreeMap::new(),
            fetches: BTreeMap::new(),
            last_child: 0,
            last_fetch: 0,
            last_request: 0,
        }
    }

    /// Seals a ticket. What the seal draws must differ from one to the next, and be no secret.
    pub(super) fn seal_ticket(&mut self, binding: &Binding, ticket: Ticket) -> String {
        state::seal(&self.states, binding, ticket, &mut self.jitter)
    }

    /// A number for a request to a local server.
    pub(super) fn request_id(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Orders a process.
    pub(super) fn spawn(&mut self, slot: Slot, spawn: Spawn) -> ChildId {
        self.last_child += 1;
        let child = ChildId(self.last_child);
        self.children.insert(child, slot);
        self.out.push(Action::Spawn { child, spawn });
        child
    }

    /// Whose process that is.
    pub(super) fn child_slot(&self, child: ChildId) -> Option<Slot> {
        self.children.get(&child).copied()
    }

    /// Forgets a process that ended.
    pub(super) fn forget_child(&mut self, child: ChildId) {
        self.children.remove(&child);
    }

    /// Orders a request to a local HTTP server.
    pub(super) fn fetch(&mut self, slot: Slot, request: Fetch) -> FetchId {
        self.last_fetch += 1;
        let fetch = FetchId(self.last_fetch);
        self.fetches.insert(fetch, slot);
        self.out.push(Action::Fetch { fetch, request });
        fetch
    }

    /// Whose fetch that is.
    pub(super) fn fetch_slot(&self, fetch: FetchId) -> Option<Slot> {
        self.fetches.get(&fetch).copied()
    }

    /// Forgets a fetch that ended.
    pub(super) fn forget_fetch(&mut self, fetch: FetchId) {
        self.fetches.remove(&fetch);
    }

    /// Stops a fetch, and forgets it.
    pub(super) fn abort(&mut self, fetch: FetchId) {
        if self.fetches.remove(&fetch).is_some() {
            self.out.push(Action::AbortFetch { fetch });
        }
    }

    /// Tells the agent.
    pub(super) fn report(&mut self, report: Report) {
        self.reports.push_back(report);
    }

    /// Arms a timer of a local server.
    pub(super) fn arm(&mut self, slot: Slot, timer: server::Timer, after: core::time::Duration) {
        self.timers.set(Timer::Server(slot, timer), self.now.instant + after);
    }

    /// In how long a timer of a local server fires, if it is armed.
    pub(super) fn due_in(&self, slot: Slot, timer: server::Timer) -> Option<core::time::Duration> {
        self.timers.get(&Timer::Server(slot, timer)).map(|at| at.saturating_since(self.now.instant))
    }

    /// Disarms a timer of a local server.
    pub(super) fn disarm(&mut self, slot: Slot, timer: server::Timer) {
        self.timers.clear(&Timer::Server(slot, timer));
    }
}
