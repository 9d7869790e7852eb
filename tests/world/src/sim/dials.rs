//! How agents dial: each wait within the envelope of its attempt, spread over it, and not too many in a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use tunnel_core::agent::machine::DialError;
use tunnel_core::limits;
use tunnel_core::time::Instant;
use tunnel_core::tunnel::{Close, CloseCode};

use super::oracle::Oracle;
use crate::world::AgentKey;

/// The dials of all agents.
#[derive(Debug, Default)]
pub(super) struct Dials {
    agents: BTreeMap<AgentKey, Dialer>,
    /// Waits in a row near their longest, of all agents.
    late: u32,
    /// Long waits in a row near nothing.
    early: u32,
}

/// How an agent dials.
#[derive(Debug, Default)]
struct Dialer {
    /// The next one comes by then.
    due: Option<Instant>,
    /// A wait that is drawn: since when, and its longest.
    drawn: Option<(Instant, Duration)>,
    /// Waits since it started over; with `is_vague` there may have been fewer.
    attempt: u32,
    is_vague: bool,
    last: Option<Instant>,
    /// Those of the last minute.
    recent: Vec<Instant>,
    /// How often somebody wanted it to dial.
    nudges: usize,
}

impl Dialer {
    /// Attempt `n` waits for up to `RECONNECT_FIRST * (8/7)^n`, and for `RECONNECT_MAX` at most.
    fn ceiling(&self) -> Duration {
        let growth = 8.0_f64 / 7.0;
        limits::RECONNECT_FIRST.mul_f64(growth.powi(self.attempt.min(100) as i32)).min(limits::RECONNECT_MAX)
    }

    /// A wait begins that is drawn from nothing to its longest, or is `at_least` so long.
    fn waits(&mut self, at: Instant, at_least: Duration) {
        let ceiling = self.ceiling();
        self.attempt = self.attempt.saturating_add(1);
        self.due = Some(at + ceiling.max(at_least) + MARGIN);
        self.drawn = (at_least.is_zero() && !self.is_vague).then_some((at, ceiling));
    }

    /// The backoff starts over after a tunnel that has held for long enough.
    fn lost(&mut self, at: Instant) {
        let Some(held) = self.last.map(|last| at.saturating_since(last)) else { return };
        if held >= limits::RECONNECT_STABLE + UNSURE {
            (self.attempt, self.is_vague) = (0, false);
        } else if held >= limits::RECONNECT_STABLE {
            self.is_vague = true;
        }
    }
}

impl Dials {
    /// Waits fill their envelope: it does not end before its documented longest, and nobody waits for that long each time.
    fn are_spread(&mut self, waited: Duration, ceiling: Duration) {
        self.late = if waited > ceiling.mul_f64(0.8) { self.late + 1 } else { 0 };
        assert!(self.late < IN_A_ROW, "{IN_A_ROW} waits in a row are near their longest: no jitter");
        if ceiling > limits::RECONNECT_MAX.mul_f64(0.8) {
            self.early = if waited < ceiling.mul_f64(0.2) { self.early + 1 } else { 0 };
            assert!(self.early < IN_A_ROW, "{IN_A_ROW} waits in a row are a fifth of what they may be at most");
        }
    }
}

impl Oracle {
    pub(super) fn dials(&mut self, agent: AgentKey, at: Instant) {
        let dialer = self.dials.agents.entry(agent).or_default();
        if let Some(due) = dialer.due.take() {
            assert!(at <= due, "{agent:?} dials {:?} late", at.saturating_since(due));
        }
        dialer.last = Some(at);
        dialer.recent.retain(|before| at.saturating_since(*before) < Duration::from_secs(60));
        dialer.recent.push(at);
        assert!(dialer.recent.len() <= MOST_DIALS + dialer.nudges, "{agent:?} dials without end");
        if let Some((since, ceiling)) = dialer.drawn.take() {
            self.dials.are_spread(at.saturating_since(since), ceiling);
        }
    }

    pub(super) fn dial_failed(&mut self, agent: AgentKey, at: Instant, error: &DialError) {
        let dialer = self.dials.agents.entry(agent).or_default();
        match error {
            DialError::Connect(_) | DialError::TimedOut => dialer.waits(at, Duration::ZERO),
            DialError::Status { status: 401, .. } => {}
            DialError::Status { status: 409, .. } => dialer.due = Some(at + limits::NAME_TAKEN_RETRY * 2 + MARGIN),
            DialError::Status { .. } => dialer.waits(at, limits::RETRY_AFTER_MAX),
        }
    }

    pub(super) fn tunnel_up(&mut self, agent: AgentKey) {
        self.dials.agents.entry(agent).or_default().due = None;
    }

    /// An agent heard of the end of its tunnel.
    pub(super) fn closed(&mut self, agent: AgentKey, at: Instant, close: &Close) {
        let dialer = self.dials.agents.entry(agent).or_default();
        dialer.lost(at);
        match close.code {
            CloseCode::Normal
            | CloseCode::GoingAway
            | CloseCode::Protocol
            | CloseCode::TooBig
            | CloseCode::Internal
            | CloseCode::TimedOut
            | CloseCode::Other(_) => dialer.waits(at, Duration::ZERO),
            CloseCode::NameTaken => dialer.due = Some(at + limits::NAME_TAKEN_RETRY * 2 + MARGIN),
            CloseCode::Revoked | CloseCode::Replaced | CloseCode::Refused => {}
        }
    }

    /// Somebody wants it to dial at once.
    pub(super) fn nudged(&mut self, agent: AgentKey) {
        let dialer = self.dials.agents.entry(agent).or_default();
        dialer.nudges += 2;
        dialer.drawn = None;
    }

    /// Returns the calls that its servers worked on.
    pub(super) fn agent_gone(&mut self, agent: AgentKey) -> Vec<String> {
        self.dials.agents.remove(&agent);
        self.server_gone(agent, None)
    }

    /// Whether an agent should have dialled by `now`.
    pub(super) fn is_overdue(&self, agent: AgentKey, now: Instant) -> bool {
        self.dials.agents.get(&agent).and_then(|dialer| dialer.due).is_some_and(|due| due < now)
    }
}

/// The first minute has 38 of them, more than 45 once in a hundred thousand times, and ten times more seldom with each
/// one more.
const MOST_DIALS: usize = 51;
/// Once in a hundred thousand million times chance alone draws so many that are alike.
const IN_A_ROW: u32 = 16;
/// What a machine may be woken late, with all its clocks' drift.
const MARGIN: Duration = Duration::from_secs(1);
/// How long after its dial a tunnel may come to be up.
const UNSURE: Duration = Duration::from_secs(45);
