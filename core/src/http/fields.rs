//! Header fields of requests, read strictly: who is asking, what they sent, what they take as an answer.

use alloc::string::String;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};

use super::{form, visible};
use crate::secret::Secret;

/// A request's credentials cannot be used: several of them, or not of the form of their scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Authorization header is malformed")]
pub struct BadCredentials;

/// The bearer token (RFC 6750 section 2.1); `None` when there are no credentials or they are of another scheme.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, BadCredentials> {
    let Some((scheme, token)) = credentials(headers)? else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let body = token.trim_end_matches('=');
    let is_odd = |byte: u8| !(byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/'));
    // Every byte is looked at, whatever the others are: so the compiler takes many at a time.
    let is_any_odd = body.bytes().fold(false, |any, byte| any | is_odd(byte));
    if body.is_empty() || is_any_odd { Err(BadCredentials) } else { Ok(Some(token)) }
}

/// A client's id and secret by HTTP Basic, decoded as RFC 6749 section 2.3.1 has it; `None` when there are no
/// credentials or they are of another scheme.
pub fn basic(headers: &HeaderMap) -> Result<Option<(String, Secret)>, BadCredentials> {
    let Some((scheme, encoded)) = credentials(headers)? else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let decoded = STANDARD.decode(encoded).map_err(|_| BadCredentials)?;
    let mut parts = decoded.splitn(2, |byte| *byte == b':');
    let id = form::decode(parts.next().unwrap_or_default()).map_err(|_| BadCredentials)?;
    let secret = form::decode(parts.next().ok_or(BadCredentials)?).map_err(|_| BadCredentials)?;
    Ok(Some((id, Secret::new(secret))))
}

/// Whether the challenges of a `WWW-Authenticate` (RFC 9110 section 11.6.1) ask for a bearer token.
#[must_use]
pub fn asks_for_bearer(challenges: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    let outside = |c: char| {
        let is_end = c == ',' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        is_end
    };
    let mut items = challenges.split(outside).filter_map(|item| item.split_ascii_whitespace().next());
    items.any(|first| first.eq_ignore_ascii_case("bearer"))
}

/// Whether the body is JSON: that type, and no character set but UTF-8.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    has_type(headers, "application/json")
}

/// Whether the body is a form.
#[must_use]
pub fn is_form(headers: &HeaderMap) -> bool {
    has_type(headers, "application/x-www-form-urlencoded")
}

/// Whether the client takes JSON as an answer.
#[must_use]
pub fn accepts_json(headers: &HeaderMap) -> bool {
    accepts(headers, "application/json")
}

/// Whether the client takes an event stream as an answer.
#[must_use]
pub fn accepts_event_stream(headers: &HeaderMap) -> bool {
    accepts(headers, "text/event-stream")
}

/// Whether the client takes `kind` (`type/subtype`, lower case). The most specific range decides, and a weight of zero
/// refuses; without the header anything is taken (RFC 9110 section 12.5.1).
#[must_use]
pub fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let (kind, family) = (kind.as_bytes(), kind.split('/').next().unwrap_or_default().as_bytes());
    let mut best = None;
    let mut any = false;
    for range in headers.get_all(ACCEPT).iter().filter_map(visible).flat_map(|text| split(text.as_bytes(), b',')) {
        any |= !range.trim_ascii().is_empty();
        let mut parts = split(range, b';').map(<[u8]>::trim_ascii);
        let essence = parts.next().unwrap_or_default();
        let specific = match essence.strip_suffix(b"/*") {
            Some(b"*") => 0,
            Some(group) if group.eq_ignore_ascii_case(family) => 1,
            None if essence.eq_ignore_ascii_case(kind) => 2,
            Some(_) | None => continue,
        };
        let wanted = !parts.any(is_zero_weight);
        best = best.max(Some((specific, wanted)));
    }
    best.map_or(!any, |(_, wanted)| wanted)
}

/// The one `Authorization` field, taken apart.
fn credentials(headers: &HeaderMap) -> Result<Option<(&str, &str)>, BadCredentials> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(BadCredentials);
    }
    let text = visible(field).ok_or(BadCredentials)?.trim_ascii();
    // (Schemes are short: looking at each byte takes less than a search for the space.)
    let space = text.bytes().position(|byte| byte == b' ').ok_or(BadCredentials)?;
    Ok(Some((&text[..space], text[space..].trim_ascii_start())))
}

fn has_type(headers: &HeaderMap, kind: &str) -> bool {
    let mut fields = headers.get_all(CONTENT_TYPE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let text = visible(field).unwrap_or_default();
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    essence.trim_ascii().eq_ignore_ascii_case(kind)
        && parameters.split(';').filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

/// The parts of a list. (Lists are short: looking at each byte takes less than a search for the next separator.)
fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    list.split(move |byte| *byte == separator)
}

/// Whether a parameter of a range is `q=0`, `q=0.000` and the like.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let mut sides = parameter.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
    let (Some(name), Some(value)) = (sides.next(), sides.next()) else { return false };
    name.eq_ignore_ascii_case(b"q") && value.starts_with(b"0") && value.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use http::HeaderValue;
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
    }

    #[test]
    fn bearer_token_is_read_strictly() {
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["Bearer abc"], Ok(Some("abc"))),
            (&["bEARER  a-._~+/9=="], Ok(Some("a-._~+/9=="))),
            (&["Basic abc"], Ok(None)),
            (&["Bearer"], Err(BadCredentials)),
            (&["Bearer "], Err(BadCredentials)),
            (&["Bearer =="], Err(BadCredentials)),
            (&["Bearer a b"], Err(BadCredentials)),
            (&["Bearer a b c"], Err(BadCredentials)),
            (&["Bearer a,b"], Err(BadCredentials)),
            (&["Bearer a=b"], Err(BadCredentials)),
            (&["Bearer \u{e9}"], Err(BadCredentials)),
            (&["Bearer a", "Bearer a"], Err(BadCredentials)),
        ] {
            assert_eq!(bearer(&headers(&AUTHORIZATION, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let read = |value: &str| basic(&headers(&AUTHORIZATION, &[value]));
        // `https%3A%2F%2Fa:s+%25:x`
        let good = read("basic aHR0cHMlM0ElMkYlMkZhOnMrJTI1Ong=");
        assert_eq!(good, Ok(Some(("https://a".into(), Secret::new("s %:x")))));
        assert_eq!(read("Bearer abc"), Ok(None));
        // No colon; not base64; not UTF-8.
        for bad in ["Basic YWJj", "Basic ?", "Basic /zp4"] {
            assert_eq!(read(bad), Err(BadCredentials), "{bad}");
        }
    }

    #[test]
    fn bearer_is_found_among_challenges_and_not_within_their_words() {
        for (challenges, expected) in [
            ("Bearer", true),
            ("bearer realm=\"x\"", true),
            ("Bearer error=\"invalid_token\", resource_metadata=\"https://relay.example/\"", true),
            ("Basic realm=\"a, b\", Bearer", true),
            ("Negotiate,Bearer scope=\"x\"", true),
            ("", false),
            ("Basic realm=\"hotel\"", false),
            ("Basic realm=\"say, Bearer please\"", false),
            ("Basic realm=\"a\\\", Bearer\"", false),
            ("Basic realm=\"a\\\", Bearer b\"", false),
            ("Basic realm=\"a\\\\\", Bearer", true),
            ("Basic realm=\"a\\\\\\\", Bearer\"", false),
            ("Bearers x=1", false),
            ("Digest Bearer=1", false),
        ] {
            assert_eq!(asks_for_bearer(challenges), expected, "{challenges}");
        }
    }

    #[test]
    fn content_type_is_json_in_utf_8_only() {
        for (values, expected) in [
            (&["application/json"][..], true),
            (&["Application/JSON ; charset=\"UTF-8\""], true),
            (&["application/json;x;y=z"], true),
            (&["application/json; charset=utf-16"], false),
            (&["application/json-rpc"], false),
            (&["text/plain"], false),
            (&["text/plain, application/json"], false),
            (&[""], false),
            (&[], false),
            (&["application/json", "application/json"], false),
        ] {
            assert_eq!(is_json(&headers(&CONTENT_TYPE, values)), expected, "{values:?}");
        }
        assert!(is_form(&headers(&CONTENT_TYPE, &["application/x-www-form-urlencoded;charset=utf-8"])));
    }

    #[test]
    fn most_specific_range_decides() {
        for (values, json, stream) in [
            (&[][..], true, true),
            (&[""], true, true),
            (&["application/json, text/event-stream"], true, true),
            (&["application/json", "text/event-stream"], true, true),
            (&["Application/JSON;q=0.5"], true, false),
            (&["text/*"], false, true),
            (&["*/*"], true, true),
            (&["*/*, text/event-stream;q=0"], true, false),
            (&["*/*;q=0.000, text/event-stream;q=0.001"], false, true),
            (&["text/*;q=0, text/event-stream"], false, true),
            (&["text/html"], false, false),
            (&["application/json ; version=1 ; Q = 0.0"], false, false),
            (&["application/json;version=0", "text/event-stream;x=0.0"], true, true),
            (&["*"], false, false),
            (&[";;,/,q=0"], false, false),
        ] {
            let headers = headers(&ACCEPT, values);
            assert_eq!((accepts_json(&headers), accepts_event_stream(&headers)), (json, stream), "{values:?}");
        }
    }

    /// Ranges as clients send them, few enough that they meet.
    fn range() -> impl Strategy<Value = (&'static str, bool)> {
        let kinds = [
            "application/json",
            "Application/JSON",
            "text/event-stream",
            "text/*",
            "application/*",
            "*/*",
            "text/html",
        ];
        (prop::sample::select(kinds.to_vec()), any::<bool>())
    }

    proptest! {
        #[test]
        fn token_of_the_right_letters_is_read_as_it_is(token in "[A-Za-z0-9._~+/-]{1,40}={0,2}", scheme in "[Bb][Ee][Aa][Rr][Ee][Rr]", odd in "[ -~]{1,20}") {
            let read = |value: &str| bearer(&headers(&AUTHORIZATION, &[value])).map(|token| token.map(alloc::string::String::from));
            prop_assert_eq!(read(&alloc::format!("{scheme} {token}")), Ok(Some(token.clone())));
            prop_assert_eq!(read(&alloc::format!("{scheme}s {token}")), Ok(None));
            // Whatever is given out fits its place again.
            if let Ok(Some(given)) = read(&alloc::format!("{scheme} {odd}")) {
                prop_assert_eq!(read(&alloc::format!("Bearer {given}")), Ok(Some(given)));
            }
        }

        #[test]
        fn id_and_secret_come_through_basic_as_they_were(id: alloc::string::String, secret: alloc::string::String) {
            let text = alloc::format!("{}:{}", form::percent_encode(&id), form::percent_encode(&secret));
            let field = alloc::format!("Basic {}", STANDARD.encode(text));
            prop_assert_eq!(basic(&headers(&AUTHORIZATION, &[&field])), Ok(Some((id, Secret::new(secret)))));
        }

        /// As the specification has it: of the ranges that match, the most specific decides.
        #[test]
        fn ranges_are_weighed_as_the_specification_says(ranges in prop::collection::vec(range(), 0..5), split: bool) {
            let text = |(kind, wanted): &(&str, bool)| if *wanted { alloc::string::String::from(*kind) } else { alloc::format!("{kind};q=0") };
            let texts: Vec<_> = ranges.iter().map(text).collect();
            let joined = texts.join(", ");
            let values: Vec<&str> = if split { texts.iter().map(|text| &**text).collect() } else { alloc::vec![&*joined] };
            for (kind, family) in [("application/json", "application/*"), ("text/event-stream", "text/*")] {
                let of = |name: &str| ranges.iter().filter(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, wanted)| *wanted).max();
                let expected = of(kind).or(of(family)).or(of("*/*")).unwrap_or(ranges.is_empty());
                prop_assert_eq!(accepts(&headers(&ACCEPT, &values), kind), expected, "{} of {:?}", kind, values);
            }
        }

        #[test]
        fn no_header_panics(values in prop::collection::vec("[ -~\u{80}-\u{ff}]{0,40}", 0..4)) {
            for name in [&ACCEPT, &AUTHORIZATION, &CONTENT_TYPE] {
                let values: Vec<&str> = values.iter().map(alloc::string::String::as_str).collect();
                let headers = headers(name, &values);
                let _ = (bearer(&headers), basic(&headers), is_json(&headers), accepts_json(&headers));
            }
        }
    }
}
