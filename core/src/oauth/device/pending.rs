//! Devices that wait for their person: bounded, forgotten by a restart, each good for one set of tokens.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::net::IpAddr;
use core::time::Duration;

use crate::entropy::{self, Entropy};
use crate::id::UserId;
use crate::limits;
use crate::oauth::login::Owner;
use crate::time::Instant;

/// What a device's grant is known by. It travels sealed: in the device code, and in the person's page and cookie.
pub(in crate::oauth) type GrantKey = [u8; 16];

/// A device that waits.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct Grant {
    /// What the person types, without the dash.
    pub(in crate::oauth) user_code: String,
    /// What the device calls itself, cleaned for display.
    pub(in crate::oauth) name: String,
    /// Where it asked from.
    pub(in crate::oauth) peer: IpAddr,
    /// What its tokens will be for.
    pub(in crate::oauth) audience: String,
    expires: Instant,
    interval: Duration,
    /// Before this time the device asks too soon.
    next_poll: Instant,
    /// How often the code was typed.
    typed: u32,
    standing: Standing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// The person has not answered.
    Waiting,
    /// The person said no.
    Denied,
    /// The person agreed and signed in.
    Approved(Owner),
    /// Tokens are being written, or were issued.
    Spent(Owner),
}

/// What a device that asks for its tokens is told (RFC 8628 section 3.5).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::oauth) enum Poll {
    /// Ask again.
    Pending,
    /// Ask again, and five seconds later each time from now on.
    TooSoon,
    /// The person said no.
    Denied,
    /// The code ran out, or the relay has been restarted since.
    Expired,
    /// Tokens were issued for it already.
    Spent,
    /// Here they are: for this person and audience.
    Approved(Owner, String),
}

/// All devices that wait.
#[derive(Debug, Default)]
pub(in crate::oauth) struct Pending {
    grants: BTreeMap<GrantKey, Grant>,
    by_code: BTreeMap<String, GrantKey>,
    by_expiry: BTreeSet<(Instant, GrantKey)>,
}

impl Pending {
    /// Takes a device in and returns its grant's key; `None`: no code was found that is free. When too many wait, one of
    /// those gives way that came from where the most came from: whoever begins hundreds puts out their own.
    pub(in crate::oauth) fn begin(
        &mut self,
        name: String,
        peer: IpAddr,
        audience: String,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Option<(GrantKey, &Grant)> {
        self.sweep(now);
        if self.grants.len() >= limits::MAX_DEVICE_GRANTS
            && let Some(key) = self.one_too_many()
        {
            self.forget(&key);
        }
        // Among a thousand live codes of 25 600 000 000 a draw is taken once in a hundred million times.
        let user_code = (0..4).map(|_| draw(entropy)).find(|code| !self.by_code.contains_key(code))?;
        let key = entropy::bytes(entropy);
        let expires = now + LIFETIME;
        let (interval, standing) = (INTERVAL, Standing::Waiting);
        self.by_code.insert(user_code.clone(), key);
        self.by_expiry.insert((expires, key));
        let grant = Grant { user_code, name, peer, audience, expires, interval, next_poll: now, typed: 0, standing };
        Some((key, self.grants.entry(key).or_insert(grant)))
    }

    /// The device whose code a person typed, if it waits for an answer. A code that is typed over and over is in more
    /// hands than one: it ends.
    pub(in crate::oauth) fn typed(&mut self, user_code: &str, now: Instant) -> Option<(GrantKey, &Grant)> {
        let key = *self.by_code.get(user_code)?;
        let grant = self.grants.get_mut(&key)?;
        grant.typed = grant.typed.saturating_add(1);
        if grant.typed > MAX_TYPED {
            self.forget(&key);
            return None;
        }
        let grant = self.grants.get(&key)?;
        (grant.standing == Standing::Waiting && now < grant.expires).then_some((key, grant))
    }

    /// The person's answer: who agreed, or `None` for a no. `false`: nothing waits for an answer any more.
    pub(in crate::oauth) fn decide(&mut self, key: &GrantKey, owner: Option<Owner>, now: Instant) -> bool {
        let Some(grant) = self.grants.get_mut(key) else { return false };
        if grant.standing != Standing::Waiting || grant.expires <= now {
            return false;
        }
        grant.standing = owner.map_or(Standing::Denied, Standing::Approved);
        true
    }

    /// The device asks. What it gets is spent with that, until [`Self::give_back`].
    pub(in crate::oauth) fn poll(&mut self, key: &GrantKey, now: Instant) -> Poll {
        let Some(grant) = self.grants.get_mut(key).filter(|grant| now < grant.expires) else { return Poll::Expired };
        let too_soon = now < grant.next_poll;
        if too_soon {
            grant.interval = (grant.interval + SLOW_DOWN).min(MAX_INTERVAL);
        }
        grant.next_poll = now + grant.interval;
        match &grant.standing {
            Standing::Denied => Poll::Denied,
            Standing::Spent(_) => Poll::Spent,
            Standing::Waiting | Standing::Approved(_) if too_soon => Poll::TooSoon,
            Standing::Waiting => Poll::Pending,
            Standing::Approved(owner) => {
                let owner = owner.clone();
                grant.standing = Standing::Spent(owner.clone());
                Poll::Approved(owner, grant.audience.clone())
            }
        }
    }

    /// The tokens could not be issued after all: the device may ask once more.
    pub(in crate::oauth) fn give_back(&mut self, key: &GrantKey) {
        if let Some(grant) = self.grants.get_mut(key)
            && let Standing::Spent(owner) = &grant.standing
        {
            grant.standing = Standing::Approved(owner.clone());
        }
    }

    /// Devices that `user` approved and that have not asked since get nothing.
    pub(in crate::oauth) fn forget_user(&mut self, user: &UserId) {
        for grant in self.grants.values_mut() {
            if matches!(&grant.standing, Standing::Approved(own) if own.user == *user) {
                grant.standing = Standing::Denied;
            }
        }
    }

    /// Forgets what has run out.
    pub(in crate::oauth) fn sweep(&mut self, now: Instant) {
        while let Some((expires, key)) = self.by_expiry.first().copied()
            && expires <= now
        {
            self.forget(&key);
        }
    }

    /// The oldest grant of the network that has the most; rather one that nobody has typed the code of.
    fn one_too_many(&self) -> Option<GrantKey> {
        let mut crowds: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for grant in self.grants.values() {
            *crowds.entry(network(grant.peer)).or_default() += 1;
        }
        let most = crowds.values().max().copied()?;
        let crowded = self.grants.iter().filter(|(_, grant)| crowds.get(&network(grant.peer)) == Some(&most));
        crowded.min_by_key(|(_, grant)| (grant.typed > 0, grant.expires)).map(|(key, _)| *key)
    }

    fn forget(&mut self, key: &GrantKey) {
        if let Some(grant) = self.grants.remove(key) {
            self.by_code.remove(&grant.user_code);
            self.by_expiry.remove(&(grant.expires, *key));
        }
    }
}

/// A code as people see it: `XXXX-XXXX`.
pub(in crate::oauth) fn shown(user_code: &str) -> String {
    match user_code.split_at_checked(USER_CODE_LENGTH / 2) {
        Some((first, second)) => alloc::format!("{first}-{second}"),
        None => user_code.into(),
    }
}

/// What a person typed as a code: in either case, with or without dash and spaces. `None`: no code looks like that.
pub(in crate::oauth) fn read(text: &str) -> Option<String> {
    let letters = text.chars().filter(|letter| letter.is_alphanumeric()).map(|letter| letter.to_ascii_uppercase());
    let code: String = letters.take(USER_CODE_LENGTH + 1).collect();
    let good = code.len() == USER_CODE_LENGTH && code.bytes().all(|letter| ALPHABET.contains(&letter));
    good.then_some(code)
}

/// Whose address it is at most: a site has a /48 of IPv6, and whoever has one has 65 536 times the /64 that rates go by.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 80 << 80).into()),
    }
}

fn draw(entropy: &mut dyn Entropy) -> String {
    let letter = |_| {
        // The bias of a remainder of 64 bits is below 2^-59.
        let at = u64::from_be_bytes(entropy::bytes(entropy)) % 20;
        ALPHABET.iter().cycle().nth(usize::try_from(at).unwrap_or_default()).copied().map_or('B', char::from)
    };
    (0..USER_CODE_LENGTH).map(letter).collect()
}

/// Letters of a code: no vowels, so that it spells nothing, and none that looks like a digit (RFC 8628 section 6.1).
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a code: 34 bits, for guesses that are limited and a code that lives ten minutes.
const USER_CODE_LENGTH: usize = 8;
/// How long a device waits for its person.
pub(in crate::oauth) const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Between two questions of a device.
pub(in crate::oauth) const INTERVAL: Duration = Duration::from_secs(5);
/// What is added for asking too soon (RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest interval: a device that was slowed down still hears of its sign-in within a minute.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// How often a code may be typed: a person reloads a page, or begins again in another browser.
const MAX_TYPED: u32 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;

    const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn owner() -> Owner {
        Owner { user: "local:ann".into(), vouched: None }
    }

    /// One that waits since time 0.
    fn one() -> (Pending, GrantKey, String) {
        let mut pending = Pending::default();
        let (key, grant) =
            pending.begin("laptop".into(), PEER, "a".into(), at(0), &mut Seeded::new(1)).expect("there is room");
        let code = grant.user_code.clone();
        (pending, key, code)
    }

    /// Every event in every state of a device that waits. What follows is what is said, and the state if it is another.
    #[test]
    fn every_event_in_every_state() {
        const STATES: [&str; 6] = ["waiting", "denied", "approved", "spent", "run out", "gone"];
        let name = |pending: &Pending, key: &GrantKey, now: Instant| match pending.grants.get(key) {
            None => "gone",
            Some(grant) if grant.expires <= now => "run out",
            Some(grant) => match grant.standing {
                Standing::Waiting => "waiting",
                Standing::Denied => "denied",
                Standing::Approved(_) => "approved",
                Standing::Spent(_) => "spent",
            },
        };
        let yes_or_no = |is_yes: bool| if is_yes { "yes" } else { "no" };
        let poll = |poll: Poll| match poll {
            Poll::Pending => "pending",
            Poll::TooSoon => "too soon",
            Poll::Denied => "denied",
            Poll::Expired => "expired",
            Poll::Spent => "spent",
            Poll::Approved(..) => "tokens",
        };
        let nothing = ["."; 6];
        let table: [(&str, [&str; 6]); 9] = [
            // waiting, denied, approved, spent, run out, gone
            ("its code is typed", ["yes", "no", "no", "no", "no", "no"]),
            ("a yes", ["yes → approved", "no", "no", "no", "no", "no"]),
            ("a no", ["yes → denied", "no", "no", "no", "no", "no"]),
            ("it asks", ["pending", "denied", "tokens → spent", "spent", "expired", "expired"]),
            ("it asks twice", ["too soon", "denied", "spent", "spent", "expired", "expired"]),
            ("no tokens after all", [".", ".", ".", ". → approved", ".", "."]),
            ("its person is forgotten", [".", ".", ". → denied", ".", ".", "."]),
            ("another is forgotten", nothing),
            ("a sweep", [".", ".", ".", ".", ". → gone", "."]),
        ];
        for (event, expected) in table {
            for (state, expected) in STATES.into_iter().zip(expected) {
                let (mut pending, key, code) = one();
                let mut now = at(10);
                match state {
                    "waiting" => {}
                    "denied" => assert!(pending.decide(&key, None, at(1))),
                    "approved" => assert!(pending.decide(&key, Some(owner()), at(1))),
                    "spent" => {
                        assert!(pending.decide(&key, Some(owner()), at(1)));
                        pending.poll(&key, at(1));
                    }
                    "run out" => now = at(600),
                    "gone" => pending.forget(&key),
                    other => panic!("no such state: {other}"),
                }
                assert_eq!(name(&pending, &key, now), state, "the way into it");
                let said = match event {
                    "its code is typed" => yes_or_no(pending.typed(&code, now).is_some()),
                    "a yes" => yes_or_no(pending.decide(&key, Some(owner()), now)),
                    "a no" => yes_or_no(pending.decide(&key, None, now)),
                    "it asks" => poll(pending.poll(&key, now)),
                    "it asks twice" => {
                        pending.poll(&key, now);
                        poll(pending.poll(&key, now))
                    }
                    other => {
                        match other {
                            "no tokens after all" => pending.give_back(&key),
                            "its person is forgotten" => pending.forget_user(&"local:ann".into()),
                            "another is forgotten" => pending.forget_user(&"local:bob".into()),
                            "a sweep" => pending.sweep(now),
                            other => panic!("no such event: {other}"),
                        }
                        "."
                    }
                };
                // Of what was asked for twice, the first answer has changed the state.
                let before = if (event, state) == ("it asks twice", "approved") { "spent" } else { state };
                let after = name(&pending, &key, now);
                let change = if after == before { String::new() } else { alloc::format!(" → {after}") };
                assert_eq!(alloc::format!("{said}{change}"), expected, "{event} while {state}");
            }
        }
    }

    #[test]
    fn device_hears_what_its_person_says() {
        let approved = || Poll::Approved(owner(), "a".into());
        for (decision, expected) in
            [(None, Poll::Pending), (Some(None), Poll::Denied), (Some(Some(owner())), approved())]
        {
            let (mut pending, key, _) = one();
            assert!(decision.is_none_or(|owner| pending.decide(&key, owner, at(1))));
            assert_eq!(pending.poll(&key, at(1)), expected);
        }
    }

    #[test]
    fn tokens_are_issued_once_and_again_only_if_they_were_not() {
        let (mut pending, key, _) = one();
        pending.decide(&key, Some(owner()), at(1));
        assert_eq!(pending.poll(&key, at(5)), Poll::Approved(owner(), "a".into()));
        assert_eq!(pending.poll(&key, at(10)), Poll::Spent);
        pending.give_back(&key);
        assert_eq!(pending.poll(&key, at(15)), Poll::Approved(owner(), "a".into()));
        assert_eq!(pending.poll(&key, at(20)), Poll::Spent);
        assert!(!pending.decide(&key, Some(owner()), at(20)) && !pending.decide(&key, None, at(20)));
    }

    #[test]
    fn asking_too_soon_makes_every_wait_longer() {
        let (mut pending, key, _) = one();
        let asked =
            [(0, Poll::Pending), (5, Poll::Pending), (9, Poll::TooSoon), (14, Poll::TooSoon), (29, Poll::Pending)];
        for (secs, expected) in asked {
            assert_eq!(pending.poll(&key, at(secs)), expected, "{secs}");
        }
        pending.decide(&key, Some(owner()), at(30));
        assert_eq!(pending.poll(&key, at(43)), Poll::TooSoon, "an answer does not come sooner for asking more");
        for secs in 44..100 {
            assert_eq!(pending.poll(&key, at(secs)), Poll::TooSoon, "{secs}");
        }
        assert_eq!(pending.poll(&key, at(99 + 60)), Poll::Approved(owner(), "a".into()));
    }

    #[test]
    fn everything_ends_after_ten_minutes() {
        let (mut pending, key, code) = one();
        assert!(pending.typed(&code, at(599)).is_some());
        assert_eq!(pending.poll(&key, at(599)), Poll::Pending);
        assert!(pending.typed(&code, at(600)).is_none());
        assert!(!pending.decide(&key, Some(owner()), at(600)));
        assert_eq!(pending.poll(&key, at(600)), Poll::Expired);
        pending.sweep(at(600));
        assert_eq!((pending.grants.len(), pending.by_code.len(), pending.by_expiry.len()), (0, 0, 0));
    }

    #[test]
    fn code_that_is_typed_over_and_over_ends() {
        let (mut pending, key, code) = one();
        for _ in 0..MAX_TYPED {
            assert!(pending.typed(&code, at(1)).is_some());
        }
        assert!(pending.typed(&code, at(1)).is_none());
        assert_eq!(pending.poll(&key, at(1)), Poll::Expired);
    }

    #[test]
    fn answered_code_is_not_asked_about_again() {
        let (mut pending, key, code) = one();
        pending.decide(&key, None, at(1));
        assert!(pending.typed(&code, at(1)).is_none());
        assert!(!pending.decide(&key, Some(owner()), at(1)));
    }

    /// One more from `peer`.
    fn begin(pending: &mut Pending, peer: &str, secs: u64, entropy: &mut Seeded) -> (GrantKey, String) {
        let peer = peer.parse().expect("an address");
        let (key, grant) = pending.begin("x".into(), peer, "a".into(), at(secs), entropy).expect("taken in");
        (key, grant.user_code.clone())
    }

    #[test]
    fn memory_is_bounded_and_those_who_crowd_put_out_their_own() {
        let (mut pending, mine, _) = one();
        let mut entropy = Seeded::new(2);
        for count in 0..2 * limits::MAX_DEVICE_GRANTS {
            let peer = alloc::format!("198.51.100.{}", count % 50);
            begin(&mut pending, &peer, 1, &mut entropy);
        }
        assert_eq!(pending.grants.len(), limits::MAX_DEVICE_GRANTS);
        assert_eq!((pending.by_code.len(), pending.by_expiry.len()), (pending.grants.len(), pending.grants.len()));
        let (late, _) = begin(&mut pending, "203.0.113.1", 2, &mut entropy);
        for count in 0..limits::MAX_DEVICE_GRANTS {
            begin(&mut pending, &alloc::format!("2001:db8:7:{count:x}::1"), 3, &mut entropy);
        }
        assert_eq!(pending.poll(&mine, at(3)), Poll::Pending, "who is alone waits on");
        assert_eq!(pending.poll(&late, at(3)), Poll::Pending, "and so does who came late");
    }

    #[test]
    fn oldest_whose_code_was_not_typed_gives_way() {
        let mut pending = Pending::default();
        let mut entropy = Seeded::new(2);
        let (typed, code) = begin(&mut pending, "192.0.2.1", 0, &mut entropy);
        let (old, _) = begin(&mut pending, "192.0.2.1", 1, &mut entropy);
        let (young, _) = begin(&mut pending, "192.0.2.1", 2, &mut entropy);
        assert!(pending.typed(&code, at(3)).is_some());
        for count in 3..=limits::MAX_DEVICE_GRANTS {
            begin(&mut pending, &alloc::format!("10.0.{}.{}", count / 250, count % 250), 3, &mut entropy);
        }
        assert_eq!(pending.poll(&old, at(4)), Poll::Expired);
        for key in [typed, young] {
            assert_eq!(pending.poll(&key, at(4)), Poll::Pending);
        }
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        for text in ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "B.C-D_F/G H\tJ,K"] {
            assert_eq!(read(text).as_deref(), Some("BCDFGHJK"), "{text}");
        }
        for text in ["", "BCDF-GHJ", "BCDF-GHJKL", "ACDF-GHJK", "BCDF-GHJ1", "BCDFGHJé", "ﬀCDFGHJK"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn drawn_codes_are_of_the_alphabet_and_read_back(seed: u64) {
            let code = draw(&mut Seeded::new(seed));
            prop_assert_eq!(shown(&code).len(), 9);
            prop_assert_eq!(read(&shown(&code)), Some(code));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = read(&text);
        }
    }
}
