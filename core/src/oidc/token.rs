//! What an ID token must satisfy (OpenID Connect Core section 3.1.3.7).

use alloc::string::{String, ToString};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use openidconnect::core::{
    CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreTokenResponse,
};
use openidconnect::{
    ClaimsVerificationError, EmptyAdditionalClaims, IdToken, IdTokenVerifier, Nonce, SignatureVerificationError,
    TokenResponse,
};
use serde_json::{Map, Value};

use super::identity::Claims;
use super::keys::{ALLOWED, Key};
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

type Token =
    IdToken<EmptyAdditionalClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

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
    let all = payload(token).ok_or(Refusal::Rule("it cannot be read"))?;
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
fn payload(token: &Token) -> Option<Map<String, Value>> {
    let text = token.to_string();
    let payload = text.split('.').nth(1)?;
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
