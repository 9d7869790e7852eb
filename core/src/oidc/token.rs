//! What an ID token must satisfy (OpenID Connect Core section 3.1.3.7).

use alloc::string::{String, ToString};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use openidconnect::core::CoreTokenResponse;
use openidconnect::{ClaimsVerificationError, IdTokenVerifier, Nonce, SignatureVerificationError, TokenResponse};
use serde_json::{Map, Value};

use super::identity::Claims;
use super::keys::{ALLOWED, Key};
use crate::http::fetch::Fetched;
use crate::limits;
use crate::time::UnixTime;

/// Why an ID token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It names a key that the provider did not publish when its keys were last read.
    UnknownKey,
    /// It breaks this rule.
    Rule(&'static str),
}

/// What the token endpoint answered, as the library takes it.
pub(super) struct Answer {
    /// The answer.
    pub(super) fetched: Fetched,
    /// What its ID token has not, without which the library cannot read it.
    pub(super) lacks: Option<&'static str>,
}

impl Answer {
    /// `fetched` without `expires_in`: the access token is used at once or never, and some providers write as a text how
    /// long it lives.
    pub(super) fn new(mut fetched: Fetched) -> Self {
        let Ok(mut members) = serde_json::from_slice::<Map<String, Value>>(&fetched.body) else {
            return Self { fetched, lacks: None };
        };
        let lacks = members.get("id_token").and_then(Value::as_str).and_then(lacking);
        if members.remove("expires_in").is_some() {
            fetched.body = serde_json::to_vec(&members).expect("what was JSON always serialises").into();
        }
        Self { fetched, lacks }
    }
}

/// The first of the claims that every ID token has (OpenID Connect Core section 2) and this one has not.
fn lacking(token: &str) -> Option<&'static str> {
    let claims = payload(token)?;
    let all = [
        ("iss", "it does not say whose it is (iss)"),
        ("sub", "it does not say who signed in (sub)"),
        ("exp", "it does not say when it expires (exp)"),
        ("iat", "it does not say when it was issued (iat)"),
    ];
    all.into_iter().find_map(|(claim, words)| claims.get(claim).is_none_or(Value::is_null).then_some(words))
}

/// The key that the ID token in `tokens` names; nothing that it says is proven.
pub(super) fn key_of(tokens: &CoreTokenResponse) -> Option<String> {
    let token = tokens.id_token()?.to_string();
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
    header.get("kid").and_then(Value::as_str).map(ToString::to_string)
}

/// The claims of the ID token in `tokens`, if it satisfies every rule.
///
/// The library checks header, signature, `iss`, `aud` and `nonce`; the algorithms, the leeway and what the library
/// leaves out (`azp`, `nbf`, an `iat` to come) are ours.
pub(super) fn verify(
    verifier: IdTokenVerifier<'_, Key>,
    tokens: &CoreTokenResponse,
    client_id: &str,
    nonce: &str,
    now: UnixTime,
) -> Result<Claims, Refusal> {
    let token = tokens.id_token().ok_or(Refusal::Rule("there is no ID token"))?;
    let leeway = limits::CLOCK_LEEWAY;
    let earliest_expiry = clock(now.as_secs().saturating_sub(leeway.as_secs()));
    let verifier = verifier.set_allowed_algs(ALLOWED).set_time_fn(move || earliest_expiry);
    let claims = token.claims(&verifier, &Nonce::new(nonce.to_string())).map_err(|error| refusal(&error))?;

    let latest_start = now.as_secs().saturating_add(leeway.as_secs());
    if claims.issue_time() > clock(latest_start) {
        return Err(Refusal::Rule("it was issued in the future (iat)"));
    }
    if claims.authorized_party().is_some_and(|azp| azp.as_str() != client_id) {
        return Err(Refusal::Rule("it was issued to another client (azp)"));
    }
    if claims.subject().is_empty() || claims.subject().len() > limits::MAX_CLAIM {
        return Err(Refusal::Rule("its subject is empty or too long (sub)"));
    }
    let all = payload(&token.to_string()).ok_or(Refusal::Rule("it cannot be read"))?;
    if all.get("nbf").is_some_and(|nbf| starts_after(nbf, latest_start)) {
        return Err(Refusal::Rule("it is not valid yet (nbf)"));
    }
    Ok(Claims::new(claims.subject().to_string(), all))
}

/// Which rule the library found broken. Its own words may quote the token, so they go no further.
fn refusal(error: &ClaimsVerificationError) -> Refusal {
    use ClaimsVerificationError as Claim;
    use SignatureVerificationError as Signature;
    Refusal::Rule(match error {
        Claim::SignatureVerification(Signature::NoMatchingKey) => return Refusal::UnknownKey,
        Claim::SignatureVerification(Signature::NoSignature) => "it is not signed",
        Claim::SignatureVerification(Signature::DisallowedAlg(_)) => "its signature algorithm is not allowed",
        Claim::SignatureVerification(Signature::AmbiguousKeyId(_)) => "it does not say which key signed it",
        Claim::SignatureVerification(_) => "its signature is wrong",
        Claim::Expired(_) => "it has expired (exp)",
        Claim::InvalidAudience(_) => "it is not for this relay alone (aud)",
        Claim::InvalidIssuer(_) => "it is another provider's (iss)",
        Claim::InvalidNonce(_) => "it belongs to another login (nonce)",
        Claim::Unsupported(_) => "its header asks for something unknown",
        _ => "it breaks a rule of OpenID Connect",
    })
}

/// All claims as the token has them. The library has decoded the same text before, and dropped what it does not know.
fn payload(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Whether a numeric date lies after `secs`; what is not a number never begins (RFC 7519 section 4.1.5).
fn starts_after(nbf: &Value, secs: u64) -> bool {
    match nbf.as_u64() {
        Some(begin) => begin > secs,
        None => nbf.as_f64().is_none_or(|begin| begin > secs as f64),
    }
}

fn clock(secs: u64) -> DateTime<Utc> {
    let secs = i64::try_from(secs).unwrap_or(i64::MAX);
    DateTime::from_timestamp(secs, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
