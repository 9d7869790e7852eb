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
    pace: &'static Pace,
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
#[derive(Debug)]
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
            (Dialect::V2, Side::Relay | Side::Agent) => &V2,
            (Dialect::V1, Side::Relay) => &V1_RELAY,
            (Dialect::V1, Side::Agent) => &V1_AGENT,
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

static V2: Pace = Pace { interval: PING_INTERVAL, patience: PINGS_MISSED, asks: true, steady: false };
static V1_RELAY: Pace =
    Pace { interval: Duration::from_secs(V1_SILENCE.as_secs() / 3), patience: 2, asks: false, steady: false };
static V1_AGENT: Pace = Pace { interval: V1_PING_INTERVAL, patience: PINGS_MISSED, asks: true, steady: true };

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;
    use std::format;

    use proptest::prelude::*;

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

    /// One second after a state was entered.
    type Row = (&'static str, fn(&mut Keepalive, Instant) -> (Verdict, Option<Duration>), [&'static str; 5]);

    /// The way into a state; every ping that is due is written at once.
    fn state(name: &str) -> (Keepalive, u64) {
        let mut keepalive = Keepalive::new(Side::Relay, Dialect::V2, at(0));
        let steps: &[u64] = match name {
            "quiet" | "probing" => &[],
            "asked" => &[20],
            "last chance" | "last chance, probing" => &[20, 40, 60],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            assert_eq!(keepalive.handle_timeout(at(*step)), Verdict::Alive);
            keepalive.take_ping(at(*step)).expect("it asks at every step");
        }
        let now = steps.last().copied().unwrap_or_default();
        if name.ends_with("probing") {
            keepalive.probe(at(now));
            keepalive.take_ping(at(now)).expect("it asks at once");
        }
        (keepalive, now + 1)
    }

    #[test]
    fn every_input_in_every_state() {
        const STATES: [&str; 5] = ["quiet", "asked", "last chance", "probing", "last chance, probing"];
        let dead = "dead";
        let rows: [Row; 7] = [
            (
                "heard",
                |keepalive, now| {
                    keepalive.heard(now);
                    (Verdict::Alive, None)
                },
                ["0 missed, 20 s"; 5],
            ),
            (
                "pong of the last ping",
                |keepalive, now| (Verdict::Alive, keepalive.pong(keepalive.token, now)),
                [
                    "0 missed, 19 s",
                    "1 missed, took 1 s, 19 s",
                    "3 missed, took 1 s, 19 s",
                    "0 missed, took 1 s, 4 s",
                    "3 missed, took 1 s, 4 s",
                ],
            ),
            (
                "pong of another",
                |keepalive, now| (Verdict::Alive, keepalive.pong(keepalive.token + 1, now)),
                ["0 missed, 19 s", "1 missed, 19 s", "3 missed, 19 s", "0 missed, 4 s", "3 missed, 4 s"],
            ),
            (
                "probe",
                |keepalive, now| {
                    keepalive.probe(now);
                    (Verdict::Alive, None)
                },
                [
                    "0 missed, ping, 5 s",
                    "1 missed, ping, 5 s",
                    "3 missed, ping, 5 s",
                    "0 missed, ping, 4 s",
                    "3 missed, ping, 4 s",
                ],
            ),
            (
                "early wake",
                |keepalive, now| (keepalive.handle_timeout(now), None),
                ["0 missed, 19 s", "1 missed, 19 s", "3 missed, 19 s", "0 missed, 4 s", "3 missed, 4 s"],
            ),
            (
                "the deadline",
                |keepalive, _| (keepalive.handle_timeout(keepalive.poll_timeout().at), None),
                ["1 missed, ping, 20 s", "2 missed, ping, 20 s", dead, dead, dead],
            ),
            (
                "a long stop",
                |keepalive, now| (keepalive.handle_timeout(now + Duration::from_secs(7_200)), None),
                ["1 missed, ping, 20 s", "2 missed, ping, 20 s", dead, dead, dead],
            ),
        ];
        for (input, apply, expected) in rows {
            for (name, expected) in STATES.into_iter().zip(expected) {
                let (mut keepalive, second) = state(name);
                let due = keepalive.poll_timeout().at;
                let now = match input {
                    "the deadline" => due,
                    "a long stop" => at(second + 7_200),
                    _ => at(second),
                };
                let (verdict, took) = apply(&mut keepalive, at(second));
                let took = took.map_or_else(String::new, |took| format!("took {} s, ", took.as_secs()));
                let ping = if keepalive.due { "ping, " } else { "" };
                let wait = keepalive.poll_timeout().at.saturating_since(now).as_secs();
                let said = match verdict {
                    Verdict::Dead => "dead".into(),
                    Verdict::Alive => format!("{} missed, {took}{ping}{wait} s", keepalive.missed),
                };
                assert_eq!(said, expected, "{input} while {name}");
            }
        }
    }

    proptest! {
        #[test]
        fn peer_that_speaks_in_time_lives_and_one_that_falls_silent_is_given_up_in_time(
            relay: bool, v2: bool, gaps in prop::collection::vec(0..1_000_u32, 0..40),
        ) {
            let side = if relay { Side::Relay } else { Side::Agent };
            let mut keepalive = Keepalive::new(side, if v2 { Dialect::V2 } else { Dialect::V1 }, at(0));
            let pace = keepalive.pace;
            let mut now = at(0);
            // It is heard after less than a step each time, then never again.
            let mut heard: Vec<Instant> = gaps.iter().scan(at(0), |last, gap| {
                *last = *last + pace.interval * *gap / 1_000;
                Some(*last)
            }).collect();
            heard.reverse();
            let mut last = at(0);
            loop {
                let due = keepalive.poll_timeout().at;
                prop_assert!(due > now, "no deadline is in the past");
                match heard.pop() {
                    Some(next) if next < due => {
                        (now, last) = (next, next);
                        keepalive.heard(now);
                        continue;
                    }
                    next => heard.extend(next),
                }
                now = due;
                if keepalive.handle_timeout(now) == Verdict::Dead {
                    break;
                }
                prop_assert_eq!(keepalive.take_ping(now).is_some(), pace.asks);
            }
            prop_assert!(heard.is_empty(), "it was given up though it spoke");
            let silent = now.saturating_since(last);
            prop_assert!(silent > pace.interval * pace.patience && silent <= pace.interval * (pace.patience + 1), "{:?}", silent);
        }
    }
}
