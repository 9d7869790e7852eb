//! The cookies of a sign-in under way, one per request, so that tabs do not disturb each other; and the one of a person
//! who is signed in to their own page.
//!
//! All are `SameSite=Lax`: a login ends with a redirect from the provider's site, where browsers would hold a `Strict`
//! cookie back, and what changes anything is a form, which they send a `Lax` cookie with from our own pages alone.

use alloc::format;
use alloc::string::String;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HeaderValue};
use ring::digest;

use super::Settings;
use crate::http::RequestHead;

/// Which step of a sign-in a cookie belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The consent page was shown.
    Consent,
    /// The person agreed; the login is under way.
    Login,
}

/// The name of a cookie: `__Host-` binds it to this very host over https (RFC 6265bis section 4.1.3.2); on a loopback
/// relay without TLS browsers refuse that prefix.
pub(super) fn name(settings: &Settings, step: Step, handle: &str) -> String {
    let prefix = if settings.is_https() { "__Host-" } else { "" };
    let step = match step {
        Step::Consent => "consent",
        Step::Login => "login",
    };
    let hash = digest::digest(&digest::SHA256, handle.as_bytes());
    let short = hash.as_ref().first_chunk::<12>().expect("SHA-256 has 32 bytes");
    format!("{prefix}mlt-{step}-{}", URL_SAFE_NO_PAD.encode(short))
}

/// The name of the cookie of a person who is signed in to their own page.
pub(super) fn account(settings: &Settings) -> String {
    format!("{}mlt-account", if settings.is_https() { "__Host-" } else { "" })
}

/// `Set-Cookie` for ten minutes.
pub(super) fn set(settings: &Settings, name: &str, value: &str) -> HeaderValue {
    set_for(settings, name, value, MAX_AGE_SECS)
}

/// `Set-Cookie` for so many seconds.
pub(super) fn set_for(settings: &Settings, name: &str, value: &str, seconds: u64) -> HeaderValue {
    let secure = if settings.is_https() { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).expect("names and values are base64url")
}

/// `Set-Cookie` that removes it.
pub(super) fn clear(settings: &Settings, name: &str) -> HeaderValue {
    let secure = if settings.is_https() { "; Secure" } else { "" };
    let text = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).expect("names are base64url")
}

/// The value that the browser brought. Two of one name mean that somebody else planted one: none counts.
pub(super) fn get<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    let lines = head.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut found = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = found.next()?;
    found.next().is_none().then_some(value)
}

/// How long a person may take from the first page to the code.
pub(super) const MAX_AGE_SECS: u64 = 600;
/// The longest value: browsers keep 4 096 bytes of name, value and attributes.
pub(super) const MAX_VALUE: usize = 3_800;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;

    fn head(lines: &[String]) -> RequestHead {
        let headers = lines.iter().map(|line| (COOKIE, line.parse().expect("visible"))).collect::<HeaderMap>();
        RequestHead { method: Method::GET, uri: http::Uri::from_static("/"), headers, peer: [127, 0, 0, 1].into() }
    }

    proptest! {
        /// One of a name is found among any others, on however many lines; two of a name are none.
        #[test]
        fn cookie_is_found_once_or_not_at_all(
            value in "[A-Za-z0-9_-]{0,20}", others in prop::collection::vec("[a-z]{1,4}=[a-z]{0,4}", 0..5), at: prop::sample::Index, split: bool
        ) {
            let name = "__Host-mlt-login-x";
            let mut pairs: Vec<String> = others;
            pairs.insert(at.index(pairs.len() + 1), format!("{name}={value}"));
            let lines = |pairs: &[String]| if split { pairs.to_vec() } else { alloc::vec![pairs.join("; ")] };
            let found = |pairs: &[String], name: &str| get(&head(&lines(pairs)), name).map(String::from);
            prop_assert_eq!(found(&pairs, name), Some(value));
            prop_assert_eq!(found(&pairs, "__Host-mlt-login-y"), None);
            pairs.push(format!("{name}=planted"));
            prop_assert_eq!(found(&pairs, name), None);
        }
    }
}
