//! Time as machines see it: handed in with every input, never looked up.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point on the host's monotonic clock, in microseconds since an epoch of the host's choice.
///
/// There is deliberately no `now()`: machines are told the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `micros` microseconds after the host's epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the host's epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A point on the wall clock, in milliseconds since 1970-01-01T00:00:00Z. It may jump; only decisions about expiry use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The time `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time `secs` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Both clocks, read together by the driver just before it hands an input to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock.
    pub unix: UnixTime,
}

/// When a machine wants to be woken, and why. The reason is for people and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The monotonic time at which [`crate::host::Machine::handle_timeout`] is due.
    pub at: Instant,
    /// What the machine waits for, in a few constant words.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant::from_micros(u64::MAX) + Duration::MAX, Instant::from_micros(u64::MAX));
        assert_eq!(Instant::from_micros(5) - Duration::MAX, Instant::from_micros(0));
        assert_eq!(Instant::from_micros(1).saturating_since(Instant::from_micros(2)), Duration::ZERO);
        assert_eq!(UnixTime::from_secs(u64::MAX) + Duration::MAX, UnixTime::from_millis(u64::MAX));
    }

    proptest! {
        /// As a model: numbers wide enough for all of it, held at both ends.
        #[test]
        fn clocks_count_as_numbers_do_and_stop_at_their_ends(base: u64, other: u64, step: u64) {
            let (wide, most) = (u128::from(base) + u128::from(step), u128::from(u64::MAX));
            let forward = Instant::from_micros(base) + Duration::from_micros(step);
            prop_assert_eq!(u128::from(forward.as_micros()), wide.min(most));
            let back = Instant::from_micros(base) - Duration::from_micros(step);
            prop_assert_eq!(back.as_micros(), base.saturating_sub(step));
            let unix = UnixTime::from_millis(base) + Duration::from_millis(step);
            prop_assert_eq!(u128::from(unix.as_millis()), wide.min(most));
            let apart = Duration::from_micros(base.saturating_sub(other));
            prop_assert_eq!(Instant::from_micros(base).saturating_since(Instant::from_micros(other)), apart);
            let apart = Duration::from_millis(base.saturating_sub(other));
            prop_assert_eq!(UnixTime::from_millis(base).saturating_since(UnixTime::from_millis(other)), apart);
        }

        #[test]
        fn what_was_added_is_the_time_since(base in 0..1_u64 << 62, step in 0..1_u64 << 62) {
            let (start, step) = (Instant::from_micros(base), Duration::from_micros(step));
            prop_assert_eq!((start + step).saturating_since(start), step);
            prop_assert_eq!(start + step - step, start);
            prop_assert_eq!(UnixTime::from_secs(base >> 10).as_secs(), base >> 10);
        }
    }
}
