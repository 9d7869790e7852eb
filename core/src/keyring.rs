//! A relay's master keys: the first seals, all of them open. Rotation puts a new one in front; the old ones stay, since
//! what they sealed is in other hands: refresh tokens, client ids, sessions.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::entropy::Entropy;
use crate::limits;
use crate::seal::{Key, KeySource, Sealer, key_from_secret};
use crate::secret::Secret;
use crate::time::UnixTime;

/// The keys, and where they come from. `Debug` shows their ids only.
#[derive(Debug, Clone)]
pub struct Keyring {
    keys: Vec<Kept>,
    origin: Origin,
}

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The relay made them, keeps them, and may make others.
    Made,
    /// The configuration's `secret`: only the operator can change them.
    Configured,
}

/// A key of a ring.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The key.
    pub key: Key,
    /// When it was made, if the relay made it.
    pub made: Option<UnixTime>,
}

/// Why there is no further rotation for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// They are not the relay's to change.
    #[error(
        "the key comes from the configuration: put a new one from `mcp-local-tunnel gen-secret` before the old one, as in \"secret\": [\"new\", \"old\"], and restart the relay"
    )]
    Configured,
    /// The oldest must not go yet.
    #[error(
        "there are {0} keys already, and sign-ins of the last 90 days or tokens of `token create` hang on the oldest one: they would end with it. Rotate later, revoke those tokens, or sign everybody out with `keys revoke-all`"
    )]
    Full(usize),
}

impl Keyring {
    /// One new key.
    pub fn made(entropy: &mut dyn Entropy, now: UnixTime) -> Self {
        Self { keys: [Kept { key: Sealer::generate(entropy), made: Some(now) }].into(), origin: Origin::Made }
    }

    /// The keys of the configuration, one at least.
    #[must_use]
    pub fn configured(keys: Vec<Key>) -> Self {
        assert!(!keys.is_empty(), "a keyring was made without a key");
        Self { keys: keys.into_iter().map(|key| Kept { key, made: None }).collect(), origin: Origin::Configured }
    }

    /// What [`to_text`](Self::to_text) wrote. A key without a time, as it was kept once, counts as made at `written`.
    #[must_use]
    pub fn from_text(text: &str, written: UnixTime) -> Option<Self> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let keys: Option<Vec<_>> = lines.map(|line| read_line(line, written)).collect();
        let keys = keys.filter(|keys| (1..=limits::MAX_KEYS).contains(&keys.len()))?;
        Some(Self { keys, origin: Origin::Made })
    }

    /// For a file: a line for each key, with the second in which it was made.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let mut text = String::with_capacity(self.keys.len() * LINE);
        for kept in &self.keys {
            text.push_str(kept.key.to_text().expose());
            text.push_str(&kept.made.map(|made| format!(" {}\n", made.as_secs())).unwrap_or("\n".into()));
        }
        Secret::new(text)
    }

    /// The same keys with a new one before them, and the id of the one that had to go for it. One goes only when it has
    /// sealed nothing for as long as a sign-in lives, and no minted token of its time is good: the oldest was made at
    /// `minted`.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub fn rotated(
        &self,
        entropy: &mut dyn Entropy,
        now: UnixTime,
        minted: Option<UnixTime>,
    ) -> Result<(Self, Option<String>), RotateError> {
        if self.origin == Origin::Configured {
            return Err(RotateError::Configured);
        }
        let mut next = Self::made(entropy, now);
        next.keys.extend(self.keys.iter().cloned());
        if next.keys.len() <= limits::MAX_KEYS {
            return Ok((next, None));
        }
        let retired = next.keys.iter().rev().nth(1).and_then(|successor| successor.made).unwrap_or(now);
        // Keys are kept with the second in which they were made.
        let is_of_its_time = |minted: UnixTime| minted.as_secs() <= retired.as_secs();
        if now.saturating_since(retired) < RETIREMENT || minted.is_some_and(is_of_its_time) {
            return Err(RotateError::Full(limits::MAX_KEYS));
        }
        let gone = next.keys.pop().map(|kept| kept.key.name());
        Ok((next, gone))
    }

    /// What seals and opens with them.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        Sealer::new(self.keys.iter().map(|kept| kept.key.clone()).collect())
    }

    /// The keys, the sealing one first.
    #[must_use]
    pub fn keys(&self) -> &[Kept] {
        &self.keys
    }

    /// Where they come from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }
}

fn read_line(line: &str, written: UnixTime) -> Option<Kept> {
    let (text, made) = match line.trim().split_once(' ') {
        Some((text, secs)) => (text, UnixTime::from_secs(secs.parse().ok()?)),
        None => (line, written),
    };
    match key_from_secret(text) {
        KeySource::Direct(key) => Some(Kept { key, made: Some(made) }),
        KeySource::Stretch { .. } => None,
    }
}

/// How long a key that does not seal any more is kept at least: no sign-in lives longer.
const RETIREMENT: Duration = Duration::from_secs(90 * 24 * 3600);
/// A key's line has some 70 bytes. Room from the start: text that grows leaves copies behind.
const LINE: usize = 96;

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;
    use crate::seal::Purpose;

    const START: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn names(ring: &Keyring) -> Vec<String> {
        ring.keys().iter().map(|kept| kept.key.name()).collect()
    }

    #[test]
    fn new_key_seals_and_old_ones_open() {
        let mut entropy = Seeded::new(1);
        let first = Keyring::made(&mut entropy, START);
        let sealed = first.sealer().seal(Purpose::Cookie, b"", b"x", &mut entropy);
        let (second, gone) = first.rotated(&mut entropy, START, None).unwrap();
        assert_eq!(gone, None);
        assert_eq!(names(&second)[1..], names(&first));
        assert!(second.sealer().open(Purpose::Cookie, b"", &sealed).is_ok());
        let sealed = second.sealer().seal(Purpose::Cookie, b"", b"x", &mut entropy);
        assert!(first.sealer().open(Purpose::Cookie, b"", &sealed).is_err());
    }

    #[test]
    fn oldest_key_goes_when_no_sign_in_is_left_of_it() {
        let mut entropy = Seeded::new(1);
        let mut ring = Keyring::made(&mut entropy, START);
        for _ in 1..limits::MAX_KEYS {
            ring = ring.rotated(&mut entropy, START + Duration::from_secs(60), None).unwrap().0;
        }
        let retired = START + Duration::from_secs(60);
        let soon = retired + (RETIREMENT - Duration::from_secs(1));
        assert_eq!(ring.rotated(&mut entropy, soon, None).unwrap_err(), RotateError::Full(limits::MAX_KEYS));
        let then = soon + Duration::from_secs(1);
        let kept = ring.rotated(&mut entropy, then, Some(retired));
        assert_eq!(kept.unwrap_err(), RotateError::Full(limits::MAX_KEYS), "a minted token of its time is good");
        let (next, gone) = ring.rotated(&mut entropy, then, Some(retired + Duration::from_secs(1))).unwrap();
        assert_eq!(gone.as_ref(), names(&ring).last());
        assert_eq!(next.keys().len(), limits::MAX_KEYS);
        assert_eq!(names(&next)[1..], names(&ring)[..limits::MAX_KEYS - 1]);
    }

    #[test]
    fn configured_keys_are_not_rotated() {
        let ring = Keyring::configured([Sealer::generate(&mut Seeded::new(1))].into());
        let error = ring.rotated(&mut Seeded::new(2), START, None).unwrap_err();
        assert!(error.to_string().contains("gen-secret"), "{error}");
    }

    #[test]
    fn key_that_was_kept_without_a_time_is_read() {
        let key = Sealer::generate(&mut Seeded::new(1));
        for text in [key.to_text().expose().to_string(), format!("{}\n", key.to_text().expose())] {
            let ring = Keyring::from_text(&text, START).unwrap();
            assert_eq!((ring.keys()[0].key.id(), ring.keys()[0].made), (key.id(), Some(START)));
        }
    }

    #[test]
    fn anything_else_is_no_keyring() {
        let key = Sealer::generate(&mut Seeded::new(1)).to_text();
        let key = key.expose();
        let many = format!("{key} 1\n").repeat(limits::MAX_KEYS + 1);
        for text in ["", "\n", "x", &key[..key.len() - 1], &format!("{key} x"), &format!("{key} 1\nx\n"), &many] {
            assert!(Keyring::from_text(text, START).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn keyrings_round_trip(count in 1..limits::MAX_KEYS, secs in 0_u64..1 << 40) {
            let mut entropy = Seeded::new(secs);
            let mut ring = Keyring::made(&mut entropy, UnixTime::from_secs(secs));
            for later in 1..u64::try_from(count).unwrap() {
                ring = ring.rotated(&mut entropy, UnixTime::from_secs(secs + later), None).unwrap().0;
            }
            let read = Keyring::from_text(ring.to_text().expose(), START).unwrap();
            prop_assert_eq!(names(&read), names(&ring));
            let made = |ring: &Keyring| ring.keys().iter().map(|kept| kept.made).collect::<Vec<_>>();
            prop_assert_eq!(made(&read), made(&ring));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Keyring::from_text(&text, START);
        }
    }
}
