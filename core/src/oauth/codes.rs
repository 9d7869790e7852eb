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
