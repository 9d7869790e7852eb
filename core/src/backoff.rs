//! When to try again: exponential delays with full jitter.

use core::time::Duration;

use crate::entropy::{self, Entropy};
use crate::limits;
use crate::time::Instant;

/// Delays between attempts to connect. Each is drawn evenly from nothing to a ceiling that starts at `first` and
/// grows up to `max`, so that a thousand agents that lost one relay do not come back as one. It starts over only
/// after a connection that held for `stable`: a relay that accepts and drops must not be hammered.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    stable: Duration,
    growth: u32,
    ceiling: Duration,
    attempt: u32,
    connected: Option<Instant>,
}

impl Backoff {
    /// No attempt made so far. The ceiling doubles.
    #[must_use]
    pub fn new(first: Duration, max: Duration, stable: Duration) -> Self {
        Self { first, max, stable, growth: 1, ceiling: first.min(max), attempt: 0, connected: None }
    }

    /// Between an agent and its relay: one that was away for a time is found again within about a tenth of that time. The
    /// ceiling grows by [`RECONNECT_GROWTH`](limits::RECONNECT_GROWTH).
    #[must_use]
    pub fn to_reconnect() -> Self {
        let doubling = Self::new(limits::RECONNECT_FIRST, limits::RECONNECT_MAX, limits::RECONNECT_STABLE);
        Self { growth: limits::RECONNECT_GROWTH, ..doubling }
    }

    /// How long to wait before the next attempt.
    pub fn next(&mut self, entropy: &mut dyn Entropy) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_add(ceiling / self.growth).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        entropy::duration_up_to(entropy, ceiling)
    }

    /// The connection is up.
    pub const fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// The connection is lost; nothing happens when none was up.
    pub fn lost(&mut self, now: Instant) {
        if self.connected.take().is_some_and(|since| now.saturating_since(since) >= self.stable) {
            self.reset();
        }
    }

    /// Starts over: somebody asked to try at once, or the machine was asleep, which is nobody's failure.
    pub fn reset(&mut self) {
        self.attempt = 0;
        self.ceiling = self.first.min(self.max);
    }

    /// How many delays were drawn since the start or since it last started over.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;
    use crate::limits::{RECONNECT_FIRST, RECONNECT_MAX, RECONNECT_STABLE};

    /// Draws the largest delays there are, to the microsecond.
    struct Highest;

    impl Entropy for Highest {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0xff);
        }
    }

    fn backoff() -> Backoff {
        Backoff::new(RECONNECT_FIRST, RECONNECT_MAX, RECONNECT_STABLE)
    }

    fn ceilings(mut backoff: Backoff) -> std::vec::Vec<Duration> {
        let next = |_| {
            let ceiling = backoff.ceiling;
            backoff.next(&mut Highest);
            ceiling
        };
        (0..100).map(next).collect()
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(0) + Duration::from_secs(secs)
    }

    #[test]
    fn ceiling_doubles_to_the_maximum_and_stays() {
        let ceilings = ceilings(backoff());
        assert_eq!(ceilings.first(), Some(&RECONNECT_FIRST));
        assert!(ceilings.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(RECONNECT_MAX)));
        assert_eq!(ceilings.last(), Some(&RECONNECT_MAX));
    }

    #[test]
    fn relay_that_comes_back_is_found_within_a_tenth_of_its_absence() {
        let ceilings = ceilings(Backoff::to_reconnect());
        assert_eq!((ceilings[0], ceilings[99]), (RECONNECT_FIRST, RECONNECT_MAX));
        for absence in [1, 10, 60].map(Duration::from_secs) {
            // A wait takes half of its ceiling on average; what is left of the one in which the relay comes back is less
            // than three tenths of it as often as not.
            let mut waited = Duration::ZERO;
            let reached = ceilings.iter().find(|ceiling| {
                waited += **ceiling / 2;
                waited > absence
            });
            let rest = reached.expect("waits go on").mul_f64(0.3);
            assert!(rest < absence / 10 + RECONNECT_FIRST / 2, "{absence:?}: {rest:?}");
        }
        let in_a_minute = ceilings.iter().scan(Duration::ZERO, |at, ceiling| {
            *at += *ceiling / 2;
            Some(*at)
        });
        assert!(in_a_minute.take_while(|at| *at < Duration::from_secs(60)).count() < 40);
    }

    #[test]
    fn delays_spread_over_the_whole_range() {
        let mut entropy = Seeded::new(1);
        let mut backoff = backoff();
        backoff.ceiling = RECONNECT_MAX;
        let drawn: std::vec::Vec<_> = (0..1000).map(|_| backoff.next(&mut entropy)).collect();
        for (below, quarter) in (0..4).map(|quarter| (RECONNECT_MAX * (quarter + 1) / 4, RECONNECT_MAX * quarter / 4)) {
            let count = drawn.iter().filter(|delay| (quarter..below).contains(*delay)).count();
            assert!((200..300).contains(&count), "{count} from {quarter:?} to {below:?}");
        }
    }

    #[test]
    fn only_a_stable_connection_starts_it_over() {
        for (held, attempt) in [(0, 3), (59, 3), (60, 0), (3600, 0)] {
            let mut backoff = backoff();
            for _ in 0..3 {
                backoff.next(&mut Highest);
            }
            backoff.connected(at(100));
            backoff.lost(at(100 + held));
            assert_eq!(backoff.attempt(), attempt, "{held} s");
        }
    }

    #[test]
    fn losing_twice_counts_once() {
        let mut backoff = backoff();
        backoff.connected(at(0));
        backoff.lost(at(1));
        backoff.next(&mut Highest);
        backoff.lost(at(1000));
        assert_eq!(backoff.attempt(), 1);
        backoff.reset();
        assert_eq!(backoff.attempt(), 0);
    }

    proptest! {
        #[test]
        fn delays_stay_in_the_envelope(
            seed in any::<u64>(), first in 0..10_000_u64, max in 0..100_000_u64, attempts in 1..80_u32
        ) {
            let (first, max) = (Duration::from_millis(first), Duration::from_millis(max));
            let mut backoff = Backoff::new(first, max, Duration::from_secs(60));
            let mut entropy = Seeded::new(seed);
            for attempt in 0..attempts {
                let delay = backoff.next(&mut entropy);
                prop_assert!(delay <= max);
                prop_assert!(delay.as_micros() <= first.as_micros() << attempt.min(64));
                prop_assert_eq!(backoff.attempt(), attempt + 1);
            }
        }
    }
}
