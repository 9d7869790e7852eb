//! Tokens, as the relay issues them and as the file keeps them.

use alloc::borrow::Cow;
use core::time::Duration;

use super::contract::CLIENT_ID;
use crate::http::fetch::Fetched;
use crate::limits;
use crate::secret::Secret;
use crate::time::UnixTime;
use serde::{Deserialize, Serialize};

/// What a sign-in yields.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: Secret,
    pub(crate) refresh: Option<Secret>,
    pub(super) expires: UnixTime,
}

/// The file: one relay's tokens.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    issuer: Cow<'a, str>,
    client_id: Cow<'a, str>,
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Cow<'a, str>>,
    /// Milliseconds since 1970.
    expires_at: u64,
}

/// A token endpoint's answer (RFC 6749 section 5.1).
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    token_type: Cow<'a, str>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(borrow, default)]
    refresh_token: Option<Cow<'a, str>>,
}

impl Tokens {
    /// Reads the file. What is not this relay's, or cannot be read, counts as nothing: a new sign-in replaces it.
    pub(super) fn from_file(content: &[u8], relay: &str) -> Option<Self> {
        let file: File<'_> = serde_json::from_slice(content).ok()?;
        if file.issuer != relay || file.client_id != CLIENT_ID {
            return None;
        }
        Self::new(&file.access_token, file.refresh_token.as_deref(), file.expires_at)
    }

    /// Tokens as a file has them, if they can be used; `expires` in milliseconds since 1970.
    pub(super) fn new(access: &str, refresh: Option<&str>, expires: u64) -> Option<Self> {
        let (access, refresh) = (secret(access)?, refresh.and_then(secret));
        Some(Self { access, refresh, expires: UnixTime::from_millis(expires) })
    }

    /// The file's new content.
    pub(super) fn to_file(&self, relay: &str) -> Secret {
        let file = File {
            issuer: relay.into(),
            client_id: CLIENT_ID.into(),
            access_token: self.access.expose().into(),
            refresh_token: self.refresh.as_ref().map(|token| token.expose().into()),
            expires_at: self.expires.as_millis(),
        };
        Secret::new(serde_json::to_string(&file).expect("strings and a number always serialise"))
    }

    /// Reads the token endpoint's answer. A relay that does not rotate refresh tokens sends none: `old` stays.
    pub(crate) fn from_answer(answer: &Fetched, old: Option<&Secret>, now: UnixTime) -> Option<Self> {
        let answer: Answer<'_> = serde_json::from_slice(&answer.body).ok()?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let lifetime = answer.expires_in.map_or(limits::ACCESS_LIFETIME_DEFAULT, Duration::from_secs);
        Some(Self {
            access: secret(&answer.access_token)?,
            refresh: answer.refresh_token.and_then(|text| secret(&text)).or_else(|| old.cloned()),
            expires: now + lifetime,
        })
    }

    /// How much longer the access token is good for.
    pub(super) fn left(&self, now: UnixTime) -> Duration {
        self.expires.saturating_since(now)
    }
}

/// A token that can stand in a header: anything else would break the request that carries it.
fn secret(text: &str) -> Option<Secret> {
    let usable =
        !text.is_empty() && text.len() <= limits::MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| Secret::new(text))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    const RELAY: &str = "https://relay.example";

    fn answer(body: &Value) -> Fetched {
        Fetched { status: StatusCode::OK, headers: HeaderMap::new(), body: body.to_string().into() }
    }

    proptest! {
        #[test]
        fn file_round_trips(access in "[!-~]{1,80}", refresh in proptest::option::of("[!-~]{1,80}"), millis: u64) {
            let tokens = Tokens {
                access: Secret::new(access),
                refresh: refresh.map(Secret::new),
                expires: UnixTime::from_millis(millis),
            };
            let file = tokens.to_file(RELAY);
            prop_assert!(Tokens::from_file(file.expose().as_bytes(), RELAY) == Some(tokens));
            prop_assert!(Tokens::from_file(file.expose().as_bytes(), "https://other.example").is_none());
        }

        #[test]
        fn any_file_is_read_without_a_panic(content: Vec<u8>) {
            prop_assert!(Tokens::from_file(&content, RELAY).is_none());
        }
    }

    #[test]
    fn file_says_what_it_holds() {
        let tokens =
            Tokens { access: Secret::new("a"), refresh: Some(Secret::new("r")), expires: UnixTime::from_millis(5) };
        let file: Value = serde_json::from_str(tokens.to_file(RELAY).expose()).expect("JSON");
        let expected = json!({
            "issuer": RELAY,
            "clientId": "mcp-local-tunnel-agent",
            "accessToken": "a",
            "refreshToken": "r",
            "expiresAt": 5,
        });
        assert_eq!(file, expected);
    }

    #[test]
    fn answer_without_a_usable_token_is_refused() {
        for body in [
            json!({}),
            json!({"access_token": "", "token_type": "Bearer"}),
            json!({"access_token": "a b", "token_type": "Bearer"}),
            json!({"access_token": "a\r\nX: y", "token_type": "Bearer"}),
            json!({"access_token": "a".repeat(limits::MAX_TOKEN + 1), "token_type": "Bearer"}),
            json!({"access_token": "a", "token_type": "mac"}),
            json!({"access_token": "a"}),
            json!(["a"]),
        ] {
            assert!(Tokens::from_answer(&answer(&body), None, UnixTime::default()).is_none(), "{body}");
        }
    }

    #[test]
    fn refresh_token_that_is_not_rotated_stays() {
        let old = Secret::new("old");
        let read =
            |body: Value| Tokens::from_answer(&answer(&body), Some(&old), UnixTime::from_secs(10)).expect("read");
        let kept = read(json!({"access_token": "a", "token_type": "bearer", "expires_in": 60}));
        assert_eq!((kept.refresh, kept.expires), (Some(old.clone()), UnixTime::from_secs(70)));
        let rotated = read(json!({"access_token": "a", "token_type": "Bearer", "refresh_token": "new"}));
        assert_eq!(rotated.refresh, Some(Secret::new("new")));
        assert_eq!(rotated.left(UnixTime::from_secs(10)), limits::ACCESS_LIFETIME_DEFAULT);
        assert_eq!(rotated.left(UnixTime::from_secs(u64::MAX)), Duration::ZERO);
    }
}
