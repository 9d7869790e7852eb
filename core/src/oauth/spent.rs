//! What was good once and is not any more, though its seal still opens: consent pages that were denied, logins that were
//! answered, and pages of accounts that were signed out of.
//!
//! Sealed values need no memory until they are used; these are remembered from then on, until they would have run out by
//! themselves. A restart forgets them, which is why an account's page does not outlive one; of the others nothing can
//! be had without a person's answer and password, or the provider's code, once more.

use alloc::collections::{BTreeMap, BTreeSet};

use ring::digest;

use crate::limits;
use crate::time::UnixTime;

/// What kind of handle it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Of a consent page.
    Consent,
    /// Of a login under way.
    Login,
    /// Of a person who is signed in to their page.
    Account,
}

type Key = [u8; 16];

/// Handles that are spent. Bounded: beyond it those go first that would run out first.
#[derive(Debug, Default)]
pub(super) struct Spent {
    until: BTreeMap<Key, UnixTime>,
    by_time: BTreeSet<(UnixTime, Key)>,
}

impl Spent {
    /// Spends the handle, which runs out at `until`. `false`: it was spent before.
    pub(super) fn spend(&mut self, kind: Kind, handle: &str, until: UnixTime, now: UnixTime) -> bool {
        self.sweep(now);
        let key = key(kind, handle);
        if self.until.contains_key(&key) {
            return false;
        }
        self.until.insert(key, until);
        self.by_time.insert((until, key));
        if self.until.len() > limits::MAX_SPENT
            && let Some((_, first)) = self.by_time.pop_first()
        {
            self.until.remove(&first);
        }
        true
    }

    /// Whether the handle was spent.
    pub(super) fn has(&self, kind: Kind, handle: &str) -> bool {
        self.until.contains_key(&key(kind, handle))
    }

    /// Forgets what has run out.
    pub(super) fn sweep(&mut self, now: UnixTime) {
        while self.by_time.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.by_time.pop_first() {
                self.until.remove(&key);
            }
        }
    }
}

fn key(kind: Kind, handle: &str) -> Key {
    let kind = match kind {
        Kind::Consent => "consent",
        Kind::Login => "login",
        Kind::Account => "account",
    };
    let hash = digest::digest(&digest::SHA256, alloc::format!("{kind} {handle}").as_bytes());
    *hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    #[test]
    fn handle_is_spent_once_and_remembered_until_it_runs_out() {
        let mut spent = Spent::default();
        assert!(spent.spend(Kind::Login, "a", at(10), at(0)));
        assert!(!spent.spend(Kind::Login, "a", at(10), at(9)));
        assert!(spent.has(Kind::Login, "a") && !spent.has(Kind::Consent, "a") && !spent.has(Kind::Login, "b"));
        spent.sweep(at(10));
        assert!(!spent.has(Kind::Login, "a") && spent.by_time.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_runs_out_first_goes_first() {
        let mut spent = Spent::default();
        for count in 0..=limits::MAX_SPENT {
            let until = at(1_000 + u64::try_from(count).unwrap());
            assert!(spent.spend(Kind::Login, &alloc::format!("{count}"), until, at(0)));
        }
        assert_eq!((spent.until.len(), spent.by_time.len()), (limits::MAX_SPENT, limits::MAX_SPENT));
        assert!(!spent.has(Kind::Login, "0") && spent.has(Kind::Login, "1"));
    }

    proptest! {
        /// The model is a list of what was spent and until when.
        #[test]
        fn handle_is_good_once_until_it_runs_out(steps in prop::collection::vec((0..3_u8, 0..4_u8, 0..30_u64, 0..8_u64), 0..60)) {
            let (mut spent, mut list, mut now) = (Spent::default(), Vec::new(), 0);
            for (kind, handle, lives, passes) in steps {
                now += passes;
                list.retain(|(_, until)| *until > now);
                let kinds = [Kind::Consent, Kind::Login, Kind::Account];
                let kind_of = |kind: u8| kinds[usize::from(kind)];
                let name = |handle: u8| alloc::format!("{handle}");
                let is_new = !list.iter().any(|(key, _)| *key == (kind, handle));
                prop_assert_eq!(spent.spend(kind_of(kind), &name(handle), at(now + lives), at(now)), is_new);
                list.extend(is_new.then_some(((kind, handle), now + lives)));
                for kind in 0..3 {
                    for handle in 0..4 {
                        let is_spent = list.iter().any(|(key, _)| *key == (kind, handle));
                        prop_assert_eq!(spent.has(kind_of(kind), &name(handle)), is_spent);
                    }
                }
                prop_assert_eq!((spent.until.len(), spent.by_time.len()), (list.len(), list.len()));
            }
        }
    }
}
