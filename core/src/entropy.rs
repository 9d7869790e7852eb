//! Randomness as machines see it: an argument.

use alloc::boxed::Box;
use core::time::Duration;

/// A source of random bytes: the operating system's in production, a seeded one in tests.
pub trait Entropy: Send {
    /// Fills `out` with random bytes, of cryptographic quality in production. A driver that cannot get any must stop
    /// the process rather than return.
    fn fill(&mut self, out: &mut [u8]);
}

impl Entropy for Box<dyn Entropy> {
    fn fill(&mut self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

/// `N` random bytes.
pub fn bytes<const N: usize>(entropy: &mut dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    entropy.fill(&mut out);
    out
}

/// A duration drawn evenly from `0..=upper`.
pub fn duration_up_to(entropy: &mut dyn Entropy, upper: Duration) -> Duration {
    let span = u64::try_from(upper.as_micros()).unwrap_or(u64::MAX - 1).saturating_add(1);
    // The modulo bias is below 2^-20 for any delay under half a year; this is jitter, not a key.
    Duration::from_micros(u64::from_le_bytes(bytes(entropy)) % span)
}

/// A small seeded generator (SplitMix64): for tests, simulation and fuzzing only.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The same seed gives the same bytes.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(word) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn duration_stays_within_its_bound() {
        let mut entropy = Seeded::new(7);
        let upper = Duration::from_millis(100);
        assert!((0..1000).all(|_| duration_up_to(&mut entropy, upper) <= upper));
        assert_eq!(duration_up_to(&mut entropy, Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn any_draw_is_within_its_bound(seed: u64, secs: u64, nanos in 0..1_000_000_000_u32) {
            let upper = Duration::new(secs, nanos);
            let drawn = duration_up_to(&mut Seeded::new(seed), upper);
            prop_assert!(drawn <= upper, "{:?}", drawn);
            prop_assert_eq!(drawn, duration_up_to(&mut Seeded::new(seed), upper), "the same seed, the same draw");
        }

        #[test]
        fn same_seed_fills_the_same_bytes(seed: u64, length in 0..40_usize) {
            let fill = |length| {
                let mut out = std::vec![0; length];
                Seeded::new(seed).fill(&mut out);
                out
            };
            prop_assert_eq!(&fill(40)[..length], &fill(length)[..]);
        }
    }
}
