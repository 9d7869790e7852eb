//! Where people have signed in from with their passwords: strangers who guess make everybody slow, but not them.

use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;

use super::rates::Whose;
use crate::http::crowd::subscriber;
use crate::limits;
use crate::time::Instant;

/// Addresses of accounts, each with the time of its last sign-in. In memory alone: a restart forgets them, and gives
/// everybody full buckets too.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<(Whose, IpAddr), Instant>);

impl Places {
    /// The account's person signed in from there. Only who knows a password gets in here; beyond the bounds the account's
    /// oldest goes, or the oldest of all.
    pub(super) fn note(&mut self, account: Whose, peer: IpAddr, now: Instant) {
        self.0.insert((account, subscriber(peer)), now);
        if self.0.keys().filter(|(whose, _)| *whose == account).count() > limits::MAX_ACCOUNT_PLACES {
            self.forget_oldest(|whose| whose == account);
        }
        if self.0.len() > limits::MAX_PLACES {
            self.forget_oldest(|_| true);
        }
    }

    /// Whether the account's person signed in from there lately.
    pub(super) fn knows(&self, account: Whose, peer: IpAddr, now: Instant) -> bool {
        self.0.get(&(account, subscriber(peer))).is_some_and(|at| now.saturating_since(*at) < LATELY)
    }

    /// Forgets what is long past.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, at| now.saturating_since(*at) < LATELY);
    }

    fn forget_oldest(&mut self, of: impl Fn(Whose) -> bool) {
        let these = self.0.iter().filter(|((whose, _), _)| of(*whose));
        if let Some(oldest) = these.min_by_key(|(_, at)| **at).map(|(key, _)| *key) {
            self.0.remove(&oldest);
        }
    }
}

/// As long as a client goes without its person, unused.
const LATELY: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn host(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn place_is_one_accounts_and_for_a_month() {
        let mut places = Places::default();
        let (ann, bob) = (Whose::account("ann"), Whose::account("bob"));
        places.note(ann, host(1), at(0));
        let last = LATELY.as_secs();
        assert!(places.knows(ann, host(1), at(last - 1)) && !places.knows(ann, host(1), at(last)));
        assert!(!places.knows(bob, host(1), at(1)) && !places.knows(ann, host(2), at(1)));
        places.sweep(at(last));
        assert!(places.0.is_empty());
    }

    #[test]
    fn oldest_places_are_forgotten_beyond_the_bounds() {
        let mut places = Places::default();
        let ann = Whose::account("ann");
        for number in 0..100 {
            places.note(ann, host(number), at(number.into()));
        }
        let known = (0..100).filter(|number| places.knows(ann, host(*number), at(100))).count();
        assert_eq!(known, limits::MAX_ACCOUNT_PLACES);
        assert!(places.knows(ann, host(99), at(100)) && !places.knows(ann, host(0), at(100)));
        for number in 0..u32::try_from(limits::MAX_PLACES).unwrap() {
            places.note(Whose::account(&alloc::format!("{number}")), host(number), at(200));
        }
        assert!(places.0.len() == limits::MAX_PLACES && !places.knows(ann, host(99), at(200)));
    }
}
