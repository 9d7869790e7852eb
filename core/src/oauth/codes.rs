//! Authorization codes: random handles for what a person has just agreed to, good once and for a minute.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use subtle::ConstantTimeEq;

use super::login::Owner;
use super::request::AuthRequest;
use crate::entropy::{self, Entropy};
use crate::id::{FamilyId, UserId};
use crate::limits;
use crate::time::Instant;

/// What a code stands for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    /// What was asked and agreed to.
    pub(super) request: AuthRequest,
    /// Who agreed.
    pub(super) owner: Owner,
    /// When the code ends.
    expires: Instant,
    /// The family that it was redeemed for.
    redeemed: Option<FamilyId>,
}

/// What a code turned out to be.
#[derive(Debug)]
pub(super) enum Lookup<'a> {
    /// Good.
    Fresh(&'a Grant),
    /// Redeemed before, by whoever knows the verifier too: the family is in two hands.
    Replayed(FamilyId),
    /// Unknown, expired, redeemed before, or presented without the right client, redirect or verifier.
    Bad,
}

/// The name of a code in memory: its hash, so that no comparison tells anything about the code.
pub(super) type CodeKey = [u8; 32];

/// The codes of the last minutes. Redeemed and expired ones stay a while, to tell a replay.
#[derive(Debug, Default)]
pub(super) struct Codes {
    grants: BTreeMap<CodeKey, Grant>,
    by_expiry: BTreeSet<(Instant, CodeKey)>,
}

impl Codes {
    /// Makes a code. When there are too many, the oldest goes.
    pub(super) fn issue(
        &mut self,
        request: AuthRequest,
        owner: Owner,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> String {
        let code = URL_SAFE_NO_PAD.encode(entropy::bytes::<32>(entropy));
        let expires = now + LIFETIME;
        let key = key(&code);
        if self.grants.len() >= limits::MAX_CODES
            && let Some((_, oldest)) = self.by_expiry.pop_first()
        {
            self.grants.remove(&oldest);
        }
        self.grants.insert(key, Grant { request, owner, expires, redeemed: None });
        self.by_expiry.insert((expires, key));
        code
    }

    /// Judges a code that `client` presents with `verifier`, and with `redirect` if it sent one.
    pub(super) fn look_up(
        &self,
        code: &str,
        client: &str,
        redirect: Option<&str>,
        verifier: &str,
        now: Instant,
    ) -> (CodeKey, Lookup<'_>) {
        let key = key(code);
        let Some(grant) = self.grants.get(&key) else { return (key, Lookup::Bad) };
        let own = grant.request.client == client
            && redirect.is_none_or(|redirect| grant.request.redirect == redirect)
            && answers(&grant.request.challenge, verifier);
        let lookup = match &grant.redeemed {
            _ if !own => Lookup::Bad,
            Some(family) => Lookup::Replayed(family.clone()),
            None if grant.expires <= now => Lookup::Bad,
            None => Lookup::Fresh(grant),
        };
        (key, lookup)
    }

    /// The code is redeemed for `family`; or, with `None`, it is not after all.
    pub(super) fn redeem(&mut self, key: &CodeKey, family: Option<FamilyId>) {
        if let Some(grant) = self.grants.get_mut(key) {
            grant.redeemed = family;
        }
    }

    /// Nobody gets tokens for a code of `user` any more. A redeemed one stays, to tell a replay.
    pub(super) fn forget(&mut self, user: &UserId) {
        self.grants.retain(|_, grant| grant.owner.user != *user || grant.redeemed.is_some());
    }

    /// Forgets what no replay needs to be told from any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        while self.by_expiry.first().is_some_and(|(expires, _)| *expires + REPLAY_MEMORY <= now) {
            if let Some((_, key)) = self.by_expiry.pop_first() {
                self.grants.remove(&key);
            }
        }
    }
}

/// Whether `text` can be an S256 challenge (RFC 7636 section 4.2): a SHA-256 in base64url.
pub(super) fn is_challenge(text: &str) -> bool {
    text.len() == 43 && URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == 32)
}

/// RFC 7636 section 4.6.
fn answers(challenge: &str, verifier: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let sound = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
    let hash = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    sound && bool::from(hash.as_bytes().ct_eq(challenge.as_bytes()))
}

fn key(code: &str) -> CodeKey {
    *digest::digest(&digest::SHA256, code.as_bytes()).as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// A browser is redirected and a client comes back within seconds.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long after its expiry a code is remembered.
const REPLAY_MEMORY: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;
    use crate::oauth::Role;
    use crate::oauth::scopes::Scopes;

    const VERIFIER: &str = "v0123456789-v0123456789-v0123456789-v0123456789";
    const REDIRECT: &str = "http://127.0.0.1/cb";

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn challenge(verifier: &str) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
    }

    /// A code of `user`, made at time 0.
    fn issue(codes: &mut Codes, user: &str, now: Instant, entropy: &mut Seeded) -> String {
        let request = AuthRequest {
            client: "c".into(),
            role: Role::Client,
            redirect: REDIRECT.into(),
            state: None,
            challenge: challenge(VERIFIER),
            audience: "a".into(),
            scopes: Scopes::all(Role::Client),
            until: 0,
        };
        codes.issue(request, Owner { user: user.into(), vouched: None }, now, entropy)
    }

    /// What a lookup says, in a word.
    fn look(codes: &Codes, code: &str, client: &str, redirect: Option<&str>, verifier: &str, now: Instant) -> String {
        match codes.look_up(code, client, redirect, verifier, now).1 {
            Lookup::Fresh(grant) => format!("fresh for {}", grant.owner.user),
            Lookup::Replayed(family) => format!("replay of {family}"),
            Lookup::Bad => "bad".into(),
        }
    }

    /// Every presentation of a code in every state that it goes through.
    #[test]
    fn every_presentation_in_every_state() {
        let fresh = "fresh for ann";
        let replay = "replay of f";
        type State = (&'static str, fn(&mut Codes, &CodeKey), u64, [&'static str; 6]);
        let states: [State; 10] = [
            // right, without a redirect, another client, another redirect, another verifier, another code
            ("fresh", |_, _| {}, 59, [fresh, fresh, "bad", "bad", "bad", "bad"]),
            ("expired", |_, _| {}, 60, ["bad"; 6]),
            (
                "redeemed",
                |codes, key| codes.redeem(key, Some("f".into())),
                1,
                [replay, replay, "bad", "bad", "bad", "bad"],
            ),
            (
                "redeemed and expired",
                |codes, key| codes.redeem(key, Some("f".into())),
                600,
                [replay, replay, "bad", "bad", "bad", "bad"],
            ),
            (
                "redeemed and given back",
                |codes, key| {
                    codes.redeem(key, Some("f".into()));
                    codes.redeem(key, None);
                },
                1,
                [fresh, fresh, "bad", "bad", "bad", "bad"],
            ),
            ("its person forgotten", |codes, _| codes.forget(&"ann".into()), 1, ["bad"; 6]),
            (
                "another person forgotten",
                |codes, _| codes.forget(&"bob".into()),
                1,
                [fresh, fresh, "bad", "bad", "bad", "bad"],
            ),
            (
                "redeemed, then its person forgotten",
                |codes, key| {
                    codes.redeem(key, Some("f".into()));
                    codes.forget(&"ann".into());
                },
                1,
                [replay, replay, "bad", "bad", "bad", "bad"],
            ),
            (
                "redeemed, swept while a replay is told",
                |codes, key| {
                    codes.redeem(key, Some("f".into()));
                    codes.sweep(at(659));
                },
                659,
                [replay, replay, "bad", "bad", "bad", "bad"],
            ),
            (
                "swept",
                |codes, key| {
                    codes.redeem(key, Some("f".into()));
                    codes.sweep(at(660));
                },
                660,
                ["bad"; 6],
            ),
        ];
        for (state, way, secs, expected) in states {
            let (mut codes, mut entropy) = (Codes::default(), Seeded::new(1));
            let code = issue(&mut codes, "ann", at(0), &mut entropy);
            way(&mut codes, &key(&code));
            let now = at(secs);
            let said = [
                look(&codes, &code, "c", Some(REDIRECT), VERIFIER, now),
                look(&codes, &code, "c", None, VERIFIER, now),
                look(&codes, &code, "d", Some(REDIRECT), VERIFIER, now),
                look(&codes, &code, "c", Some("http://127.0.0.1/cb2"), VERIFIER, now),
                look(&codes, &code, "c", Some(REDIRECT), &VERIFIER.replace('v', "w"), now),
                look(&codes, "another", "c", Some(REDIRECT), VERIFIER, now),
            ];
            assert_eq!(said, expected, "{state}");
        }
    }

    #[test]
    fn codes_are_bounded_and_the_oldest_goes_first() {
        let (mut codes, mut entropy) = (Codes::default(), Seeded::new(1));
        let made: Vec<String> =
            (0..=limits::MAX_CODES).map(|_| issue(&mut codes, "ann", at(0), &mut entropy)).collect();
        assert_eq!((codes.grants.len(), codes.by_expiry.len()), (limits::MAX_CODES, limits::MAX_CODES));
        let first = made.iter().filter(|code| look(&codes, code, "c", None, VERIFIER, at(1)) == "bad").count();
        assert_eq!(first, 1);
    }

    proptest! {
        /// RFC 7636 section 4.1 and 4.6: a challenge is answered by its verifier alone, and only by a sound one.
        #[test]
        fn challenge_is_answered_by_its_verifier_alone(verifier in "[A-Za-z0-9._~-]{40,130}", other in "[a-b.]{43,44}", odd in "[ -~]{43,50}") {
            let sound = (43..=128).contains(&verifier.len());
            prop_assert!(is_challenge(&challenge(&verifier)));
            prop_assert_eq!(answers(&challenge(&verifier), &verifier), sound);
            prop_assert_eq!(answers(&challenge(&verifier), &other), sound && other == verifier);
            let plain = odd.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
            prop_assert_eq!(answers(&challenge(&odd), &odd), plain);
            prop_assert!(!answers(&verifier, &verifier), "S256 only: no verifier is its own challenge");
        }

        #[test]
        fn only_a_hash_in_base64url_is_a_challenge(hash: [u8; 32], text in "[A-Za-z0-9_-]{42,44}|.{0,50}") {
            prop_assert!(is_challenge(&URL_SAFE_NO_PAD.encode(hash)));
            let canonical = URL_SAFE_NO_PAD.decode(&text).is_ok_and(|bytes| bytes.len() == 32 && URL_SAFE_NO_PAD.encode(bytes) == text);
            prop_assert_eq!(is_challenge(&text), canonical);
        }
    }
}
