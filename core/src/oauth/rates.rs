//! Rate limits on what anyone may ask without signing in: token buckets per kind and address, or account, or for all
//! together, in bounded memory.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;
use core::time::Duration;

use ring::digest;

use crate::http::crowd::subscriber;
use crate::limits;
use crate::time::Instant;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Registrations.
    Register,
    /// Authorization requests and callbacks: each costs a page and a seal, or a fetch.
    Authorize,
    /// Fetches of clients' metadata documents.
    Document,
    /// Refused requests at `/token` and `/revoke`.
    TokenFailure,
    /// Refused access tokens at `/mcp` and `/ws`.
    RefusedToken,
    /// Wrong passwords.
    Login,
    /// The same of one account, from wherever: kept under its [`Whose::Account`].
    AccountLogin,
    /// The same of all accounts and addresses together, kept under [`Whose::Everybody`].
    Logins,
    /// Devices that begin to wait for their person.
    Device,
    /// Wrong codes of devices.
    DeviceGuess,
    /// The same from all addresses together, kept under [`Whose::Everybody`].
    DeviceGuesses,
    /// Lines of the audit about what anybody may cause, kept under [`Whose::Everybody`].
    Lines,
}

impl Kind {
    /// How many at once, where `per_minute` is what the operator allows of what needs no guessing.
    const fn burst(self, per_minute: u32) -> u32 {
        match self {
            // Generous where many people share an address and nothing can be guessed: five thirds of a minute's.
            Self::Register | Self::Authorize | Self::TokenFailure | Self::RefusedToken => {
                per_minute.saturating_mul(5).div_ceil(3)
            }
            Self::Login | Self::DeviceGuess | Self::Document => 10,
            Self::Device => 20,
            Self::AccountLogin => 30,
            Self::Logins => 100,
            Self::DeviceGuesses | Self::Lines => 600,
        }
    }

    /// How long until one more is allowed.
    fn interval(self, per_minute: u32) -> Duration {
        match self {
            Self::Register | Self::Authorize | Self::TokenFailure | Self::RefusedToken => {
                Duration::from_secs(60) / per_minute.max(1)
            }
            // Two megabytes of lines a day: a file of ten keeps the good ones for a week of attack.
            Self::Device | Self::Document | Self::Lines => Duration::from_secs(10),
            // 8 640 guesses a day, from however many addresses.
            Self::AccountLogin => Duration::from_secs(10),
            // However many addresses guess: with a hundred devices waiting all the time, one hit in eight years.
            Self::DeviceGuesses => Duration::from_secs(1),
            // One common password tried on each account: as fast as people mistype theirs in a large company.
            Self::Logins => Duration::from_secs(1),
            // 14 400 guesses a day: nothing against a password that is not on a short list.
            Self::Login | Self::DeviceGuess => Duration::from_secs(6),
        }
    }

    /// Why somebody is refused, for the audit.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Register => "too-many-registrations",
            Self::Authorize => "too-many-authorizations",
            Self::TokenFailure => "too-many-refused-requests",
            Self::RefusedToken => "too-many-refused-tokens",
            Self::Login => "too-many-wrong-passwords",
            Self::AccountLogin => "too-many-wrong-passwords-of-one-account",
            Self::Logins => "too-many-wrong-passwords-of-all",
            Self::Device => "too-many-devices",
            Self::DeviceGuess | Self::DeviceGuesses => "too-many-wrong-codes",
            Self::Document => "too-many-metadata-documents",
            Self::Lines => "too-many-refusals",
        }
    }

    /// How long an empty bucket takes to be full.
    fn refill(self, per_minute: u32) -> Duration {
        self.interval(per_minute).saturating_mul(self.burst(per_minute))
    }
}

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// All addresses' together.
    Everybody,
    /// One address's: see [`subscriber`].
    Address(IpAddr),
    /// An account's: the hash of its name, which may be any text that somebody typed.
    Account([u8; 16]),
}

impl Whose {
    /// The bucket of the account of that name, whether there is one or not: the limit must not tell who exists.
    pub(super) fn account(name: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, name.as_bytes());
        Self::Account(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }
}

impl From<IpAddr> for Whose {
    fn from(peer: IpAddr) -> Self {
        Self::Address(subscriber(peer))
    }
}

/// All buckets that are not full. A bucket is kept as the time at which it will be full again.
#[derive(Debug)]
pub(super) struct Rates {
    /// `limits.requestsPerMinute`.
    per_minute: u32,
    /// Buckets of which was said that they are empty, until they are full again.
    told: BTreeSet<Key>,
    /// What has just been found empty, and was not told.
    exceeded: Option<Key>,
    full_at: BTreeMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
}

type Key = (Kind, Whose);

impl Rates {
    /// Nothing taken yet.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, told: BTreeSet::new(), exceeded: None, full_at: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Takes one, if it is allowed.
    pub(super) fn take(&mut self, kind: Kind, whose: impl Into<Whose>, now: Instant) -> bool {
        let key = (kind, whose.into());
        let wait = self.wait(key, now) + kind.interval(self.per_minute);
        let allowed = wait <= kind.refill(self.per_minute);
        if allowed {
            self.set(key, now + wait, now);
        } else if kind != Kind::Lines && self.told.insert(key) {
            self.exceeded = Some(key);
        }
        allowed
    }

    /// Who was refused since this was asked last, the first time in a row.
    pub(super) fn exceeded(&mut self) -> Option<(Kind, Whose)> {
        self.exceeded.take()
    }

    /// Gives one back: it turned out not to count.
    pub(super) fn give_back(&mut self, kind: Kind, whose: impl Into<Whose>, now: Instant) {
        let key = (kind, whose.into());
        let full_at = now + self.wait(key, now).saturating_sub(kind.interval(self.per_minute));
        self.set(key, full_at, now);
    }

    /// Forgets full buckets.
    pub(super) fn sweep(&mut self, now: Instant) {
        while self.by_time.first().is_some_and(|(full_at, _)| *full_at <= now) {
            if let Some((_, key)) = self.by_time.pop_first() {
                self.full_at.remove(&key);
                self.told.remove(&key);
            }
        }
    }

    /// How long until the bucket is full.
    fn wait(&self, key: Key, now: Instant) -> Duration {
        self.full_at.get(&key).map_or(Duration::ZERO, |full_at| full_at.saturating_since(now))
    }

    fn set(&mut self, key: Key, full_at: Instant, now: Instant) {
        if let Some(old) = self.full_at.insert(key, full_at) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((full_at, key));
        self.sweep(now);
        // Under attack from very many addresses the fullest bucket is forgotten: the least that can be lost.
        if self.full_at.len() > limits::MAX_RATED
            && let Some((_, fullest)) = self.by_time.pop_first()
        {
            self.full_at.remove(&fullest);
            self.told.remove(&fullest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    const ANN: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn burst_is_allowed_then_one_per_interval() {
        let mut rates = Rates::new(limits::REQUESTS_PER_MINUTE);
        let taken = (0..20).filter(|_| rates.take(Kind::Login, ANN, at(0))).count();
        assert_eq!(taken, 10);
        assert!(!rates.take(Kind::Login, ANN, at(5)));
        assert!(rates.take(Kind::Login, ANN, at(6)));
        assert!(!rates.take(Kind::Login, ANN, at(6)));
        assert!(rates.take(Kind::Register, ANN, at(6)));
    }

    #[test]
    fn operator_moves_what_needs_no_guessing_and_nothing_else() {
        for (per_minute, burst) in [(1, 2), (60, 100), (600, 1_000)] {
            let mut rates = Rates::new(per_minute);
            let mut taken = |kind, now| (0..2_000).filter(|_| rates.take(kind, ANN, now)).count();
            for kind in [Kind::Register, Kind::Authorize, Kind::TokenFailure, Kind::RefusedToken] {
                assert_eq!(taken(kind, at(0)), burst, "{kind:?}");
            }
            assert_eq!(taken(Kind::Register, at(60)), usize::try_from(per_minute).unwrap());
            assert_eq!((taken(Kind::Login, at(60)), taken(Kind::DeviceGuess, at(60))), (10, 10));
        }
    }

    #[test]
    fn what_is_given_back_does_not_count() {
        let mut rates = Rates::new(limits::REQUESTS_PER_MINUTE);
        for _ in 0..100 {
            assert!(rates.take(Kind::Login, ANN, at(0)));
            rates.give_back(Kind::Login, ANN, at(0));
        }
    }

    #[test]
    fn ipv6_network_is_one_address() {
        let mut rates = Rates::new(limits::REQUESTS_PER_MINUTE);
        for host in 0..10_u16 {
            assert!(rates.take(Kind::Login, IpAddr::V6([0x2001, 0xdb8, 0, 1, 0, 0, 0, host].into()), at(0)));
        }
        assert!(!rates.take(Kind::Login, IpAddr::V6([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9].into()), at(0)));
        assert!(rates.take(Kind::Login, IpAddr::V6([0x2001, 0xdb8, 0, 2, 0, 0, 0, 0].into()), at(0)));
    }

    #[test]
    fn memory_is_bounded_and_swept() {
        let mut rates = Rates::new(limits::REQUESTS_PER_MINUTE);
        for host in 0..20_000_u32 {
            rates.take(Kind::Register, IpAddr::V4(host.into()), at(0));
        }
        assert_eq!(rates.full_at.len(), limits::MAX_RATED);
        assert_eq!(rates.by_time.len(), limits::MAX_RATED);
        rates.sweep(at(1));
        assert_eq!(rates.full_at.len(), 0);
    }

    /// Every kind: a new one does not compile before it has its place.
    const fn place(kind: Kind) -> usize {
        match kind {
            Kind::Register => 0,
            Kind::Authorize => 1,
            Kind::Document => 2,
            Kind::TokenFailure => 3,
            Kind::RefusedToken => 4,
            Kind::Login => 5,
            Kind::AccountLogin => 6,
            Kind::Logins => 7,
            Kind::Device => 8,
            Kind::DeviceGuess => 9,
            Kind::DeviceGuesses => 10,
            Kind::Lines => 11,
        }
    }

    const KINDS: [Kind; 12] = [
        Kind::Register,
        Kind::Authorize,
        Kind::Document,
        Kind::TokenFailure,
        Kind::RefusedToken,
        Kind::Login,
        Kind::AccountLogin,
        Kind::Logins,
        Kind::Device,
        Kind::DeviceGuess,
        Kind::DeviceGuesses,
        Kind::Lines,
    ];

    proptest! {
        /// In any stretch of time at most a burst and one for each interval, whatever others do; and who was never refused
        /// a whole refill long has the whole burst again.
        #[test]
        fn any_stretch_of_time_has_a_burst_and_one_per_interval_at_most(
            pick in 0..KINDS.len(), per_minute in 1..120_u32, steps in prop::collection::vec((0..40_u64, 1..40_u32), 1..30)
        ) {
            let kind = KINDS[pick];
            prop_assert_eq!(place(kind), pick);
            let (mut rates, mut now) = (Rates::new(per_minute), at(0));
            let (burst, interval) = (kind.burst(per_minute), kind.interval(per_minute));
            let mut taken: Vec<Instant> = Vec::new();
            for (secs, tries) in steps {
                now = now + Duration::from_secs(secs);
                for _ in 0..tries {
                    rates.take(kind, Whose::account("another"), now);
                    if rates.take(kind, ANN, now) {
                        taken.push(now);
                    }
                }
            }
            for (index, from) in taken.iter().enumerate() {
                for (count, until) in taken[index..].iter().enumerate() {
                    let most = u128::from(burst) + until.saturating_since(*from).as_micros() / interval.as_micros();
                    prop_assert!(u128::try_from(count).unwrap() < most, "{} within {:?}", count + 1, until.saturating_since(*from));
                }
            }
            now = now + kind.refill(per_minute);
            prop_assert!((0..burst).all(|_| rates.take(kind, ANN, now)), "the whole burst is there again");
            prop_assert!(!rates.take(kind, ANN, now));
        }
    }
}
