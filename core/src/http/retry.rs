//! When to come back, as a refusal says (RFC 9110 section 10.2.3).

use core::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use http::StatusCode;

use crate::limits;
use crate::time::UnixTime;

/// How long to stay away from who answered `status` with that `Retry-After`; nothing when there is no reason to. At most
/// [`limits::RETRY_AFTER_MAX`].
#[must_use]
pub fn wait(status: StatusCode, retry_after: Option<&str>, now: UnixTime) -> Duration {
    // Of other refusals, a page in between may say anything.
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return Duration::ZERO;
    }
    let asked = retry_after.and_then(|text| read(text.trim(), now));
    let least = if status == StatusCode::TOO_MANY_REQUESTS { limits::TOO_MANY_LEAST } else { Duration::ZERO };
    asked.unwrap_or(least).min(limits::RETRY_AFTER_MAX)
}

/// Seconds, or a date in one of the three forms that a recipient must understand (RFC 9110 section 5.6.7). A date that has
/// passed is no wait; what is neither says nothing.
fn read(text: &str, now: UnixTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let old = |form| NaiveDateTime::parse_from_str(text, form).map(|date| date.and_utc().timestamp());
    let seconds = DateTime::parse_from_rfc2822(text)
        .map(|date| date.timestamp())
        .or_else(|_| old("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|_| old("%a %b %e %H:%M:%S %Y"))
        .ok()?;
    Some(UnixTime::from_secs(u64::try_from(seconds).unwrap_or(0)).saturating_since(now))
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the specification's own example.
    const EXAMPLE: u64 = 784_111_777;

    fn seconds(status: u16, text: Option<&str>) -> u64 {
        let now = UnixTime::from_secs(EXAMPLE - 90);
        wait(StatusCode::from_u16(status).unwrap(), text, now).as_secs()
    }

    #[test]
    fn seconds_and_every_form_of_date_are_understood() {
        for (text, expected) in [
            ("0", 0),
            (" 90 ", 90),
            ("86400", 600),
            ("99999999999999999999999", 600),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 90),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 90),
            ("Sun Nov  6 08:49:37 1994", 90),
            ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 600),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ] {
            assert_eq!(seconds(503, Some(text)), expected, "{text}");
        }
    }

    #[test]
    fn who_asks_too_often_waits_in_any_case_and_others_only_when_told() {
        let least = limits::TOO_MANY_LEAST.as_secs();
        for (status, text, expected) in [
            (429, None, least),
            (429, Some("soon"), least),
            (429, Some("-5"), least),
            (429, Some(""), least),
            (429, Some("1"), 1),
            (500, None, 0),
            (500, Some("7"), 7),
            (502, Some("7"), 7),
            (503, Some("soon"), 0),
            (307, Some("7"), 0),
            (403, Some("7"), 0),
        ] {
            assert_eq!(seconds(status, text), expected, "{status} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics_or_keeps_anybody_for_longer_than_the_limit(text: String, now: u64) {
            let waited = wait(StatusCode::TOO_MANY_REQUESTS, Some(&text), UnixTime::from_millis(now));
            prop_assert!(waited <= limits::RETRY_AFTER_MAX);
        }

        #[test]
        fn date_and_seconds_until_it_ask_for_the_same(now in 0..4_000_000_000_u64, wait in 0..2_000_u64) {
            let at = i64::try_from(now + wait).expect("this century or the next");
            let date = DateTime::from_timestamp(at, 0).expect("in range");
            let expected = Duration::from_secs(wait).min(limits::RETRY_AFTER_MAX);
            let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
            let asked = forms.map(|form| alloc::format!("{}", date.format(form)));
            for text in asked.into_iter().chain([alloc::format!("{wait}")]) {
                let waited = super::wait(StatusCode::SERVICE_UNAVAILABLE, Some(&text), UnixTime::from_secs(now));
                prop_assert_eq!(waited, expected, "{}", text);
                let other = super::wait(StatusCode::FORBIDDEN, Some(&text), UnixTime::from_secs(now));
                prop_assert_eq!(other, Duration::ZERO);
            }
        }
    }
}
