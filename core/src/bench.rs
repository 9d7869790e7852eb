//! What a benchmark's calls come to: counts and quantiles. Who makes the calls, and when, is the driver's.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// What one caller met, or several of them.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How long each call took that went well. (Their number is bounded by the driver's: `limits::BENCH_CALLS`.)
    took: Vec<Duration>,
    bytes: u64,
    failures: u64,
    first_error: Option<String>,
    missed: u64,
}

impl Tally {
    /// A call went well and brought `bytes`.
    pub fn went_well(&mut self, took: Duration, bytes: usize) {
        self.took.push(took);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// A call failed.
    pub fn failed(&mut self, why: String) {
        self.failures += 1;
        self.first_error.get_or_insert(why);
    }

    /// A call was due and never made, since all callers were busy.
    pub const fn missed(&mut self) {
        self.missed += 1;
    }

    /// How many calls failed.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// Adds what another caller met.
    pub fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.failures += other.failures;
        self.missed += other.missed;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }

    /// What it all comes to, over the time that it lasted.
    #[must_use]
    pub fn figures(mut self, lasted: Duration) -> Figures {
        self.took.sort_unstable();
        let well = self.took.len() as u64;
        let seconds = lasted.as_secs_f64().max(f64::MIN_POSITIVE);
        Figures {
            calls: well + self.failures,
            failures: self.failures,
            missed: self.missed,
            first_error: self.first_error,
            lasted,
            per_second: well as f64 / seconds,
            bytes_each: self.bytes.checked_div(well).unwrap_or(0),
            bytes_per_second: self.bytes as f64 / seconds,
            latency: Latency::of(&self.took),
        }
    }
}

/// What a run comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// How many calls were made.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// How many were due and not made in time.
    pub missed: u64,
    /// Why the first of a caller's failed.
    pub first_error: Option<String>,
    /// How long the run lasted.
    pub lasted: Duration,
    /// Good calls in a second.
    pub per_second: f64,
    /// Bytes of a good call's answer, on average.
    pub bytes_each: u64,
    /// Bytes of good answers in a second.
    pub bytes_per_second: f64,
    /// How long good calls took; `None` when there was none.
    pub latency: Option<Latency>,
}

/// How long calls took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half of them took at most this.
    pub p50: Duration,
    /// 90 % of them.
    pub p90: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// All of them.
    pub max: Duration,
}

impl Latency {
    /// Of times in the order of their size.
    fn of(sorted: &[Duration]) -> Option<Self> {
        let at = |percent| quantile(sorted, percent);
        Some(Self { p50: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
    }
}

/// The smallest of `sorted` that at least `percent` of them are not above (the nearest rank); `None` of nothing.
fn quantile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn quantiles_are_calls_that_were_made() {
        let hundred: Vec<_> = (1..=100).map(ms).collect();
        let found = Latency::of(&hundred).expect("some");
        assert_eq!((found.p50, found.p90, found.p99, found.max), (ms(50), ms(90), ms(99), ms(100)));
        let found = Latency::of(&[ms(3)]).expect("one");
        assert_eq!((found.p50, found.p99, found.max), (ms(3), ms(3), ms(3)));
        assert_eq!(Latency::of(&[]), None);
    }

    #[test]
    fn failures_count_as_calls_and_in_no_other_figure() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.went_well(ms(1), 100);
        one.failed("first".into());
        other.went_well(ms(3), 300);
        other.failed("second".into());
        other.missed();
        one.add(other);
        let figures = one.figures(ms(500));
        assert_eq!((figures.calls, figures.failures, figures.missed), (4, 2, 1));
        assert_eq!(figures.first_error.as_deref(), Some("first"));
        assert_eq!((figures.per_second, figures.bytes_each, figures.bytes_per_second), (4.0, 200, 800.0));
        assert_eq!(figures.latency.expect("two went well").max, ms(3));
    }

    #[test]
    fn run_without_a_good_call_has_no_latency() {
        let mut tally = Tally::default();
        tally.failed("no".into());
        let figures = tally.figures(Duration::ZERO);
        assert_eq!((figures.latency, figures.per_second, figures.bytes_each), (None, 0.0, 0));
    }

    proptest! {
        #[test]
        fn quantile_leaves_its_share_below(mut times in prop::collection::vec(0_u64..1_000, 1..300), percent in 1_usize..=100) {
            times.sort_unstable();
            let sorted: Vec<_> = times.into_iter().map(ms).collect();
            let found = quantile(&sorted, percent).expect("some");
            let up_to = sorted.iter().filter(|time| **time <= found).count();
            let below = sorted.iter().filter(|time| **time < found).count();
            prop_assert!(up_to * 100 >= percent * sorted.len() && below * 100 < percent * sorted.len());
        }
    }
}
