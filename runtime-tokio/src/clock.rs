//! Both clocks of the host, as machines want them told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tunnel_core::time::{Instant, Now, UnixTime};

use crate::rt;

/// Reads the clocks. Copies share one epoch, so their instants compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: std::time::Instant,
}

impl Clock {
    /// A clock whose epoch is a second ago, so that machines may look back a little from their first input.
    #[must_use]
    pub fn new() -> Self {
        let now = std::time::Instant::now();
        Self { epoch: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// Both clocks, now.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { instant: Instant::from_micros(micros(self.epoch.elapsed())), unix: unix_now() }
    }

    /// The runtime's own instant for `at`, to sleep until.
    #[must_use]
    pub fn to_host(&self, at: Instant) -> rt::Instant {
        let at = self.epoch.checked_add(Duration::from_micros(at.as_micros()));
        // A deadline beyond what the host can express is as good as never: a day is re-examined daily.
        rt::at(at.unwrap_or_else(|| std::time::Instant::now() + Duration::from_secs(86_400)))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The wall clock; a clock set before 1970 reads as 1970.
fn unix_now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_rise_and_translate_back() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.instant >= first.instant);
        let ahead = clock.to_host(second.instant + Duration::from_secs(5)) - rt::Instant::now();
        assert!(ahead > Duration::from_secs(4) && ahead <= Duration::from_secs(5), "{ahead:?}");
    }

    #[test]
    fn deadline_beyond_the_host_is_far_away_rather_than_a_panic() {
        let far = Clock::new().to_host(Instant::from_micros(u64::MAX));
        assert!(far > rt::Instant::now() + Duration::from_secs(3600));
    }
}
