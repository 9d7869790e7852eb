//! Signs of life: when to ask for one, and when the peer is dead.
//!
//! Silence is counted in steps, not measured: a process that was stopped for an hour finds one step overdue, asks once
//! more, and does not bury a peer whose bytes are waiting in the socket.

use core::time::Duration;

use crate::limits::{PING_INTERVAL, PINGS_MISSED, PROBE_TIMEOUT, V1_PING_INTERVAL, V1_SILENCE};
use crate::time::{Deadline, Instant};
use crate::tunnel::{Dialect, Side};

/// How one side watches the other.
#[derive(Debug)]
pub(super) struct Keepalive {
    pace: Pace,
    /// Steps of silence so far.
    missed: u32,
    /// When the current step ends.
    next: Instant,
    /// When a probe gives up.
    probe: Option<Instant>,
    /// Whether a ping is to be sent.
    due: bool,
    /// The last ping's token, and when it was sent.
    asked: Option<(u64, Instant)>,
    token: u64,
}

/// What a dialect and a side demand.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    /// Steps of silence that a peer survives.
    patience: u32,
    /// Whether this side asks, or only listens.
    asks: bool,
    /// Whether a step ends on time even if the peer was heard: a V1 relay counts pings, not bytes.
    steady: bool,
}

/// What a step of silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    Dead,
}

impl Keepalive {
    pub(super) fn new(side: Side, dialect: Dialect, now: Instant) -> Self {
        let pace = match (dialect, side) {
            (Dialect::V2, Side::Relay | Side::Agent) => {
                Pace { interval: PING_INTERVAL, patience: PINGS_MISSED, asks: true, steady: false }
            }
            (Dialect::V1, Side::Relay) => Pace { interval: V1_SILENCE / 3, patience: 2, asks: false, steady: false },
            (Dialect::V1, Side::Agent) => {
                Pace { interval: V1_PING_INTERVAL, patience: PINGS_MISSED, asks: true, steady: true }
            }
        };
        Self { pace, missed: 0, next: now + pace.interval, probe: None, due: false, asked: None, token: 0 }
    }

    /// Anything at all came from the peer.
    pub(super) fn heard(&mut self, now: Instant) {
        self.missed = 0;
        self.probe = None;
        if !self.pace.steady {
            self.next = now + self.pace.interval;
        }
    }

    /// The peer repeated a ping's token: how long the round trip took, if it is the last ping's.
    pub(super) fn pong(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let (_, sent) = self.asked.take_if(|(asked, _)| *asked == token)?;
        Some(now.saturating_since(sent))
    }

    /// Asks at once, and waits only shortly.
    pub(super) fn probe(&mut self, now: Instant) {
        self.due = true;
        self.probe.get_or_insert(now + PROBE_TIMEOUT);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if self.probe.is_some_and(|at| at <= now) {
            return Verdict::Dead;
        }
        if now < self.next {
            return Verdict::Alive;
        }
        if self.missed >= self.pace.patience {
            return Verdict::Dead;
        }
        self.missed += 1;
        self.due |= self.pace.asks;
        self.next = now + self.pace.interval;
        Verdict::Alive
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        match self.probe {
            Some(at) if at < self.next => Deadline { at, reason: "sign of life after a probe" },
            _ => Deadline { at: self.next, reason: "sign of life" },
        }
    }

    /// The token of a ping that is to be written now.
    pub(super) fn take_ping(&mut self, now: Instant) -> Option<u64> {
        if !core::mem::take(&mut self.due) {
            return None;
        }
        self.token += 1;
        self.asked = Some((self.token, now));
        Some(self.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    /// The seconds at which a side of a silent tunnel sends pings, and when it gives the peer up.
    fn silence(side: Side, dialect: Dialect, heard: &[u64]) -> (alloc::vec::Vec<u64>, u64) {
        let mut keepalive = Keepalive::new(side, dialect, at(0));
        let mut pings = alloc::vec::Vec::new();
        for second in 0..1_000 {
            if heard.contains(&second) {
                keepalive.heard(at(second));
            }
            if keepalive.handle_timeout(at(second)) == Verdict::Dead {
                return (pings, second);
            }
            pings.extend(keepalive.take_ping(at(second)).map(|_| second));
        }
        (pings, u64::MAX)
    }

    #[test]
    fn each_dialect_and_side_keeps_its_rule() {
        assert_eq!(silence(Side::Relay, Dialect::V2, &[]), ([20, 40, 60].into(), 80));
        assert_eq!(silence(Side::Agent, Dialect::V2, &[50]), ([20, 40, 70, 90, 110].into(), 130));
        assert_eq!(silence(Side::Relay, Dialect::V1, &[]), ([].into(), 90));
        assert_eq!(silence(Side::Relay, Dialect::V1, &[40]), ([].into(), 130));
        assert_eq!(silence(Side::Agent, Dialect::V1, &[35]), ([30, 60, 90, 120].into(), 150));
    }

    #[test]
    fn long_stop_counts_as_one_step() {
        let mut keepalive = Keepalive::new(Side::Relay, Dialect::V2, at(0));
        assert_eq!(keepalive.handle_timeout(at(7_200)), Verdict::Alive);
        assert_eq!(keepalive.poll_timeout().at, at(7_220));
        assert!(keepalive.take_ping(at(7_200)).is_some());
    }

    #[test]
    fn probe_waits_shortly_and_any_byte_ends_it() {
        let mut keepalive = Keepalive::new(Side::Agent, Dialect::V2, at(0));
        keepalive.probe(at(1));
        assert!(keepalive.take_ping(at(1)).is_some());
        assert_eq!(keepalive.poll_timeout().at, at(6));
        keepalive.probe(at(3));
        assert_eq!(keepalive.poll_timeout().at, at(6), "a second probe does not prolong the first");
        keepalive.heard(at(4));
        assert_eq!(keepalive.handle_timeout(at(7)), Verdict::Alive);
        keepalive.probe(at(8));
        assert_eq!(keepalive.handle_timeout(at(13)), Verdict::Dead);
    }

    #[test]
    fn only_the_last_ping_is_measured() {
        let mut keepalive = Keepalive::new(Side::Agent, Dialect::V2, at(0));
        keepalive.probe(at(1));
        let first = keepalive.take_ping(at(1)).unwrap();
        keepalive.probe(at(2));
        let second = keepalive.take_ping(at(2)).unwrap();
        assert_eq!(keepalive.pong(first, at(3)), None);
        assert_eq!(keepalive.pong(second, at(4)), Some(Duration::from_secs(2)));
        assert_eq!(keepalive.pong(second, at(5)), None);
    }
}
