//! A node's two clocks, as functions of the world's own: a laptop sleeps, a quartz drifts, a person sets the time.

use tunnel_core::time::{Instant, Now, UnixTime};

/// How a node's clocks stand to the world's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeClock {
    /// Time that its monotonic clock missed because it slept, in microseconds.
    pub lost: u64,
    /// How much faster than the world's it runs, in millionths.
    pub ppm: i64,
    /// How far its wall clock is ahead, in milliseconds, beside what drift adds.
    pub wall_ms: i64,
    /// It sleeps until then, in the world's microseconds.
    pub asleep_until: u64,
}

const MILLION: i128 = 1_000_000;

impl NodeClock {
    /// What the node's clocks show when the world's shows `world` microseconds and its wall clock `wall` milliseconds.
    #[must_use]
    pub fn now(&self, world: u64, wall: u64) -> Now {
        let awake = world.saturating_sub(self.lost);
        let drift = i64::try_from(i128::from(awake) * i128::from(self.ppm) / MILLION / 1000).unwrap_or(0);
        let unix = wall.saturating_add_signed(self.wall_ms.saturating_add(drift));
        Now { instant: Instant::from_micros(self.scaled(awake)), unix: UnixTime::from_millis(unix) }
    }

    /// When the world's clock stands so that the node's monotonic clock has reached `at`: never earlier.
    #[must_use]
    pub fn when(&self, at: Instant) -> u64 {
        let target = at.as_micros();
        let awake = i128::from(target) * MILLION / (MILLION + i128::from(self.ppm));
        let mut awake = u64::try_from(awake).unwrap_or(u64::MAX);
        while self.scaled(awake) < target {
            awake += 1;
        }
        awake.saturating_add(self.lost).max(self.asleep_until)
    }

    fn scaled(&self, awake: u64) -> u64 {
        u64::try_from(i128::from(awake) * (MILLION + i128::from(self.ppm)) / MILLION).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn alarm_is_never_early_and_hardly_late(
            lost in 0..10_000_000_000_u64, ppm in -50_000..50_000_i64, at in 0..100_000_000_000_u64
        ) {
            let clock = NodeClock { lost, ppm, ..NodeClock::default() };
            let world = clock.when(Instant::from_micros(at));
            prop_assert!(clock.now(world, 0).instant.as_micros() >= at);
            prop_assert!(world == lost || clock.now(world - 2, 0).instant.as_micros() <= at);
        }
    }

    #[test]
    fn sleep_stops_the_monotonic_clock_alone() {
        let asleep = NodeClock { lost: 5_000_000, ..NodeClock::default() };
        let now = asleep.now(9_000_000, 9_000);
        assert_eq!((now.instant.as_micros(), now.unix.as_millis()), (4_000_000, 9_000));
    }
}
