//! Token families: everything that descends from one sign-in, and the rule of rotation.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Role;
use super::login::Owner;
use super::scopes::Scopes;
use crate::id::{ClientId, FamilyId};
use crate::oidc::allow::Vouched;
use crate::time::UnixTime;

/// How long an access token lives.
pub(super) const ACCESS_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How long a family lives without a refresh: a laptop on a long holiday.
pub(super) const IDLE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a family lives at most, however busy.
pub(super) const ABSOLUTE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a refresh token still works once it has been superseded: real clients refresh in parallel, and answers get
/// lost.
pub(super) const REUSE_GRACE: Duration = Duration::from_secs(120);
/// How often each such token works within its grace.
pub(super) const MAX_SIBLINGS: u32 = 10;
/// Generations that are known to have been superseded lately, besides the last: several of a client's processes share a
/// sign-in, and one of them may come with what it had before two others refreshed. Who rotates faster than that for two
/// minutes is out of order.
pub(super) const MAX_EARLIER: usize = 7;

/// One family's record, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Family {
    /// Whose.
    pub(super) user: String,
    /// The key of the client that acts for them.
    pub(super) client: String,
    /// Whose tokens they are.
    pub(super) role: Role,
    /// What they are for.
    pub(super) audience: String,
    /// What they may do there. Never empty, but in records of before there was a choice.
    #[serde(default)]
    pub(super) scopes: Scopes,
    /// When it began.
    pub(super) created: u64,
    /// When it ends at the latest.
    pub(super) expires: u64,
    /// How it began, and what goes with that.
    pub(super) kind: Kind,
    /// What its person knows it by.
    #[serde(default, skip_serializing_if = "About::is_empty")]
    pub(super) about: Box<About>,
    /// What `auth.allow` judges its person by. Records of older versions have none of it, and tokens that the operator
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) vouched: Option<Box<Vouched>>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<u64>,
}

/// What a person knows a family by. Records of older versions have none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct About {
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) client: String,
    /// Where its code went: a website's host, `localhost`, or the scheme of an application's links.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) redirect: String,
    /// The device whose tunnel was opened with it last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) device: String,
    /// When a tunnel of it was seen last, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connected: Option<u64>,
    /// When a token of it was taken at `/mcp` last, in milliseconds, to the hour or so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) used: Option<u64>,
}

impl About {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// When it is known to have been in use last.
    pub(super) fn seen(&self) -> Option<u64> {
        self.connected.max(self.used)
    }

    /// Takes over what `other` knows later of its use.
    pub(super) fn catch_up(&mut self, other: &Self) {
        self.used = self.used.max(other.used);
        if other.connected > self.connected {
            self.device.clone_from(&other.device);
            self.connected = other.connected;
        }
    }
}

/// How a family began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Kind {
    /// A person signed in.
    SignIn {
        /// Of the newest refresh token.
        generation: u64,
        /// When that was made.
        rotated: u64,
        /// How often the one before it was used again.
        siblings: u32,
        /// The ones before that, the newest first, for as long as they have their grace. Records of older versions have
        /// none of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Superseded>,
    },
    /// The operator made one token.
    Minted {
        /// What it is for.
        label: String,
    },
}

/// A generation that is not the newest any more: when the next was made, in milliseconds, and how often it was used since.
pub(super) type Superseded = (u64, u32);

/// What the rule of rotation says to a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Good: store this record, then answer with a token of its generation.
    Rotate(Family),
    /// Good for nothing, and harmless: the family has ended, or never was at that generation.
    Refuse,
    /// Used again when only a thief would: revoke the family (RFC 9700 section 4.14.2).
    Reused,
}

impl Family {
    /// The family that a sign-in begins.
    pub(super) fn signed_in(
        owner: Owner,
        client: &ClientId,
        role: Role,
        (audience, scopes): (String, Scopes),
        now: UnixTime,
    ) -> Self {
        Self {
            about: Box::default(),
            user: owner.user.as_str().into(),
            vouched: owner.vouched,
            client: client.as_str().into(),
            role,
            audience,
            scopes,
            created: now.as_millis(),
            expires: (now + ABSOLUTE_LIFETIME).as_millis(),
            kind: Kind::SignIn { generation: 0, rotated: now.as_millis(), siblings: 0, earlier: Vec::new() },
            revoked: None,
        }
    }

    /// Judges a refresh token of `generation`.
    pub(super) fn rotate(&self, presented: u64, now: UnixTime) -> Rotation {
        let Kind::SignIn { generation, rotated, siblings, ref earlier } = self.kind else { return Rotation::Refuse };
        if !self.is_alive(now) || presented > generation {
            return Rotation::Refuse;
        }
        let in_grace = |(at, _): &Superseded| now.saturating_since(UnixTime::from_millis(*at)) <= REUSE_GRACE;
        let mut superseded: Vec<Superseded> = core::iter::once((rotated, siblings)).chain(earlier.clone()).collect();
        let with = |kind| Self { kind, ..self.clone() };
        let Some(back) = generation.checked_sub(presented).filter(|back| *back > 0) else {
            // Generation 0 superseded none.
            superseded.retain(|one| generation > 0 && in_grace(one));
            superseded.truncate(MAX_EARLIER);
            let (generation, rotated) = (generation.saturating_add(1), now.as_millis());
            return Rotation::Rotate(with(Kind::SignIn { generation, rotated, siblings: 0, earlier: superseded }));
        };
        let known = usize::try_from(back - 1).ok().and_then(|at| superseded.get_mut(at));
        let Some(known) = known.filter(|known| in_grace(known) && known.1 < MAX_SIBLINGS) else {
            return Rotation::Reused;
        };
        known.1 = known.1.saturating_add(1);
        let siblings = superseded.first().map_or(siblings, |(_, uses)| *uses);
        let earlier = superseded.split_off(1);
        Rotation::Rotate(with(Kind::SignIn { generation, rotated, siblings, earlier }))
    }

    /// When it was used last, as far as that is known: see [`presence`](super::presence).
    pub(super) fn used(&self) -> Option<UnixTime> {
        let issued = match self.kind {
            Kind::SignIn { rotated, .. } => Some(rotated),
            Kind::Minted { .. } => None,
        };
        issued.max(self.about.seen()).map(UnixTime::from_millis)
    }

    /// Whether its tokens are good.
    pub(super) fn is_alive(&self, now: UnixTime) -> bool {
        self.revoked.is_none() && now < self.ends()
    }

    /// When it ends by itself, as things stand.
    pub(super) fn ends(&self) -> UnixTime {
        let expires = UnixTime::from_millis(self.expires);
        match self.kind {
            Kind::SignIn { rotated, .. } => expires.min(UnixTime::from_millis(rotated) + IDLE_LIFETIME),
            Kind::Minted { .. } => expires,
        }
    }

    /// The same family, revoked.
    pub(super) fn revoke(&self, now: UnixTime) -> Self {
        Self { revoked: Some(self.revoked.unwrap_or(now.as_millis())), ..self.clone() }
    }

    /// Until when its record must be kept: an access token must not outlive the knowledge that it was revoked.
    pub(super) fn kept_until(&self) -> UnixTime {
        match (&self.kind, self.revoked) {
            (Kind::SignIn { .. }, Some(revoked)) => UnixTime::from_millis(revoked) + ACCESS_LIFETIME,
            (Kind::SignIn { .. }, None) => self.ends(),
            (Kind::Minted { .. }, _) => UnixTime::from_millis(self.expires),
        }
    }

    /// When the access token that is made now ends.
    pub(super) fn access_expires(&self, now: UnixTime) -> UnixTime {
        match self.kind {
            Kind::SignIn { .. } => UnixTime::from_millis(self.expires).min(now + ACCESS_LIFETIME),
            Kind::Minted { .. } => UnixTime::from_millis(self.expires),
        }
    }

    /// The key of a family's record in the store.
    pub(super) fn record_key(id: &FamilyId) -> String {
        alloc::format!("{RECORD_PREFIX}{id}")
    }

    /// The record's bytes.
    pub(super) fn to_record(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    /// A stored record, if `key` is a family's and `value` can be read.
    pub(super) fn from_record(key: &str, value: &[u8]) -> Option<(FamilyId, Self)> {
        let id = FamilyId::new(key.strip_prefix(RECORD_PREFIX)?);
        let mut family: Self = serde_json::from_slice(value).ok()?;
        family.scopes = family.scopes.or_all(family.role);
        Some((id, family))
    }
}

const RECORD_PREFIX: &str = "family/";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_000_000);

    fn family() -> Family {
        let access = ("https://r.example/mcp".into(), Scopes::all(Role::Client));
        let owner = Owner { user: "local:ann".into(), vouched: None };
        Family::signed_in(owner, &"c".into(), Role::Client, access, START)
    }

    fn rotated(family: &Family, generation: u64, now: UnixTime) -> Family {
        match family.rotate(generation, now) {
            Rotation::Rotate(next) => next,
            other => panic!("{other:?}"),
        }
    }

    fn generation(family: &Family) -> u64 {
        match family.kind {
            Kind::SignIn { generation, .. } => generation,
            Kind::Minted { .. } => panic!("a minted token has no generations"),
        }
    }

    #[test]
    fn each_refresh_moves_the_family_on() {
        let next = rotated(&family(), 0, START);
        assert_eq!(generation(&next), 1);
        assert_eq!(generation(&rotated(&next, 1, START)), 2);
    }

    #[test]
    fn parallel_refresh_gets_a_sibling_ten_times_at_most() {
        let mut family = rotated(&family(), 0, START);
        for _ in 0..MAX_SIBLINGS {
            family = rotated(&family, 0, START + REUSE_GRACE);
            assert_eq!(generation(&family), 1);
        }
        assert_eq!(family.rotate(0, START + REUSE_GRACE), Rotation::Reused);
        assert_eq!(generation(&rotated(&family, 1, START + REUSE_GRACE)), 2);
    }

    #[test]
    fn late_or_older_reuse_is_theft() {
        let once = rotated(&family(), 0, START);
        let late = START + REUSE_GRACE + Duration::from_millis(1);
        assert_eq!(once.rotate(0, late), Rotation::Reused);
        let twice = rotated(&once, 1, START + REUSE_GRACE);
        assert_eq!(twice.rotate(0, late), Rotation::Reused);
        assert!(matches!(twice.rotate(1, late), Rotation::Rotate(..)), "superseded a moment ago");
    }

    #[test]
    fn token_that_was_superseded_twice_lately_is_used_as_often_as_one_that_was_once() {
        let twice = rotated(&rotated(&family(), 0, START), 1, START + Duration::from_secs(1));
        let mut used = twice.clone();
        for _ in 0..MAX_SIBLINGS {
            used = rotated(&used, 0, START + REUSE_GRACE);
            assert_eq!(generation(&used), 2);
        }
        assert_eq!(used.rotate(0, START + REUSE_GRACE), Rotation::Reused, "each ten times");
        assert!(matches!(used.rotate(1, START + REUSE_GRACE), Rotation::Rotate(..)), "and the others besides");
        let on = rotated(&used, 2, START + REUSE_GRACE);
        assert_eq!(on.rotate(0, START + REUSE_GRACE), Rotation::Reused, "which a rotation does not forget");
        let late = START + REUSE_GRACE + Duration::from_millis(1);
        assert_eq!(twice.rotate(0, late), Rotation::Reused);
        assert!(matches!(twice.rotate(1, late), Rotation::Rotate(..)));
    }

    #[test]
    fn few_generations_are_kept_and_none_beyond_its_grace() {
        let mut busy = family();
        for next in 0..40 {
            busy = rotated(&busy, next, START);
        }
        let oldest = 40 - 1 - u64::try_from(MAX_EARLIER).unwrap();
        assert!(matches!(busy.rotate(oldest, START), Rotation::Rotate(..)));
        assert_eq!(busy.rotate(oldest - 1, START), Rotation::Reused);
        let later = rotated(&busy, 40, START + REUSE_GRACE + Duration::from_millis(1));
        assert!(matches!(&later.kind, Kind::SignIn { earlier, .. } if earlier.is_empty()), "{later:?}");
    }

    #[test]
    fn record_of_before_they_were_kept_is_read() {
        let record =
            br#"{"user":"local:ann","client":"c","role":"client","audience":"https://r.example/mcp","created":1,
            "expires":9000000000000,"kind":{"signIn":{"generation":2,"rotated":1000000000,"siblings":10}}}"#;
        let (_, family) = Family::from_record("family/f", record).expect("it is read");
        assert_eq!(family.rotate(1, START), Rotation::Reused, "it was used ten times");
        assert_eq!(family.rotate(0, START), Rotation::Reused, "and of this one nothing is known");
        let next = rotated(&family, 2, START);
        assert_eq!(next.rotate(1, START), Rotation::Reused);
        assert!(matches!(next.rotate(2, START), Rotation::Rotate(..)));
    }

    #[test]
    fn generation_from_the_future_revokes_nothing() {
        assert_eq!(family().rotate(1, START), Rotation::Refuse);
    }

    #[test]
    fn family_ends_idle_absolute_or_revoked() {
        let just_before = |duration: Duration| START + (duration - Duration::from_millis(1));
        assert!(matches!(family().rotate(0, just_before(IDLE_LIFETIME)), Rotation::Rotate(..)));
        assert_eq!(family().rotate(0, START + IDLE_LIFETIME), Rotation::Refuse);
        let mut busy = family();
        for (generation, days) in [20_u64, 40, 60, 80].into_iter().enumerate() {
            let generation = u64::try_from(generation).unwrap();
            busy = rotated(&busy, generation, START + Duration::from_secs(days * 24 * 3600));
        }
        assert!(matches!(busy.rotate(4, just_before(ABSOLUTE_LIFETIME)), Rotation::Rotate(..)));
        assert_eq!(busy.rotate(4, START + ABSOLUTE_LIFETIME), Rotation::Refuse);
        assert_eq!(family().revoke(START).rotate(0, START), Rotation::Refuse);
    }

    #[test]
    fn revoked_record_outlives_every_access_token() {
        let family = family();
        let revoked = family.revoke(START + Duration::from_secs(5));
        assert!(revoked.kept_until() >= family.access_expires(START + Duration::from_secs(5)));
    }

    #[test]
    fn record_without_scopes_has_all_of_its_role() {
        for (role, all) in [("client", "mcp:tools mcp:read tunnel:manage"), ("agent", "agent")] {
            let record = alloc::format!(
                r#"{{"user":"local:ann","client":"c","role":"{role}","audience":"https://r.example/mcp","created":1,"expires":2,
                "kind":{{"signIn":{{"generation":0,"rotated":1,"siblings":0}}}}}}"#
            );
            let (_, family) = Family::from_record("family/f", record.as_bytes()).expect("it is read");
            assert_eq!(alloc::format!("{}", family.scopes), all);
        }
    }

    /// Every refresh token in every state of its family.
    #[test]
    fn every_generation_in_every_state() {
        let grace = REUSE_GRACE + Duration::from_millis(1);
        let twice = || rotated(&rotated(&family(), 0, START), 1, START);
        let minted = || Family { kind: Kind::Minted { label: "l".into() }, ..twice() };
        // Generation 2 is the newest, made at the start, as 1 was.
        let states: [(&str, Family, UnixTime, [&str; 4]); 7] = [
            // 0, 1, 2, 3
            ("fresh", twice(), START, ["2", "2", "3", "refuse"]),
            ("after the grace", twice(), START + grace, ["reused", "reused", "3", "refuse"]),
            ("revoked", twice().revoke(START), START, ["refuse"; 4]),
            ("revoked, after the grace", twice().revoke(START), START + grace, ["refuse"; 4]),
            ("idle for too long", twice(), START + IDLE_LIFETIME, ["refuse"; 4]),
            ("over", Family { expires: START.as_millis(), ..twice() }, START, ["refuse"; 4]),
            ("minted", minted(), START, ["refuse"; 4]),
        ];
        for (state, family, now, expected) in states {
            let said = [0, 1, 2, 3].map(|presented| match family.rotate(presented, now) {
                Rotation::Rotate(next) => alloc::format!("{}", generation(&next)),
                Rotation::Refuse => "refuse".into(),
                Rotation::Reused => "reused".into(),
            });
            assert_eq!(said, expected, "{state}");
        }
    }

    proptest! {
        /// The model keeps every generation: when it was superseded, and how often it was used since.
        #[test]
        fn rotation_is_that_of_a_relay_that_forgets_nothing(
            steps in proptest::collection::vec((0..12_u64, prop_oneof![8 => 0..30_u64, 2 => 100..140_u64, 1 => Just(40 * 24 * 3600)]), 0..60)
        ) {
            let mut stored = family();
            let (mut now, mut newest) = (START, START);
            let mut superseded: Vec<Superseded> = Vec::new();
            for (back, secs) in steps {
                now = now + Duration::from_secs(secs);
                let generation = u64::try_from(superseded.len()).expect("few");
                let Some(presented) = generation.checked_sub(back) else { continue };
                let alive = now < newest + IDLE_LIFETIME && now < START + ABSOLUTE_LIFETIME;
                let said = stored.rotate(presented, now);
                if !alive {
                    prop_assert_eq!(said, Rotation::Refuse);
                    continue;
                }
                if back == 0 {
                    superseded.push((now.as_millis(), 0));
                    newest = now;
                } else {
                    let (at, uses) = &mut superseded[usize::try_from(presented).expect("few")];
                    let in_grace = now.saturating_since(UnixTime::from_millis(*at)) <= REUSE_GRACE;
                    let is_known = back <= u64::try_from(MAX_EARLIER).expect("few") + 1;
                    if !(in_grace && is_known && *uses < MAX_SIBLINGS) {
                        prop_assert_eq!(said, Rotation::Reused, "{} back", back);
                        continue;
                    }
                    *uses += 1;
                }
                let Rotation::Rotate(next) = said else { panic!("{said:?} for {back} back") };
                prop_assert_eq!(self::generation(&next), u64::try_from(superseded.len()).expect("few"));
                let is_bounded = matches!(&next.kind, Kind::SignIn { earlier, .. } if earlier.len() <= MAX_EARLIER);
                prop_assert!(is_bounded);
                stored = next;
            }
        }

        #[test]
        fn records_round_trip(
            user in ".{0,40}", generation: u64, rotated: u64, siblings: u32, revoked: Option<u64>,
            earlier in proptest::collection::vec(any::<Superseded>(), 0..8),
        ) {
            let family = Family { user, kind: Kind::SignIn { generation, rotated, siblings, earlier }, revoked, ..family() };
            let id = FamilyId::new("f1");
            let read = Family::from_record(&Family::record_key(&id), &family.to_record());
            prop_assert_eq!(read, Some((id, family)));
        }

        #[test]
        fn any_record_is_read_or_refused(key in ".{0,20}", value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Family::from_record(&key, &value);
        }
    }
}
