//! The operating system's randomness.

use ring::rand::{SecureRandom, SystemRandom};
use tunnel_core::entropy::Entropy;

/// Fills from the operating system. Without randomness nothing here is safe, so failing to get any ends the process.
#[derive(Debug, Clone)]
pub struct OsEntropy(SystemRandom);

impl OsEntropy {
    /// A source; it holds no state of its own.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for OsEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        if self.0.fill(out).is_err() {
            tracing::error!("the operating system gives no random bytes: stopping");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let mut entropy = OsEntropy::new();
        let draw = tunnel_core::entropy::bytes::<32>(&mut entropy);
        assert_ne!(draw, tunnel_core::entropy::bytes::<32>(&mut entropy));
    }
}
