//! Signing in by a code that this machine shows and a person types elsewhere (RFC 8628).

use alloc::string::String;
use core::time::Duration;

use super::{Signin, State, request};
use crate::http::fetch::Fetched;
use crate::limits;
use crate::secret::Secret;
use crate::signin::contract::{Action, Failure, Settings};
use crate::signin::metadata::{Metadata, Rules};
use crate::signin::request::Answer;
use crate::signin::tokens::Tokens;
use crate::time::{Deadline, Instant, Now};

/// A code that a person has been shown.
pub(super) struct Shown {
    /// Where its tokens are asked for.
    token_endpoint: String,
    device_code: Secret,
    /// Between two questions.
    interval: Duration,
    /// When the code ends.
    until: Instant,
}

impl Signin {
    /// Asks the relay for a code.
    pub(super) fn ask_code(&mut self, endpoint: &str, metadata: Metadata) {
        let fetch = self.fetch(request::device_authorization(&self.settings, endpoint));
        self.enter(State::Asking(fetch, metadata));
    }

    /// The relay has answered the question for a code.
    pub(super) fn code_answered(&mut self, metadata: Metadata, answer: Answer, now: Now) {
        let code = match answer {
            Answer::Ok(fetched) => Code::read(&fetched, &self.settings).map_err(|cause| self.odd(cause)),
            Answer::Unreachable { cause, .. } => Err(self.unreachable(cause)),
            Answer::Refused(code) => Err(Failure::Refused { cause: code }),
            Answer::Odd(cause) => Err(self.odd(&cause)),
        };
        match code {
            Ok(Code { device_code, user_code, page, direct, interval, lifetime }) => {
                self.out.push(Action::ShowCode { page, direct, code: user_code });
                let (token_endpoint, until) = (metadata.token, now.instant + lifetime);
                self.wait_for_person(Shown { token_endpoint, device_code, interval, until }, now);
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// The interval is over.
    pub(super) fn poll(&mut self, shown: Shown, now: Now) {
        if now.instant >= shown.until {
            return self.fail(Failure::Refused { cause: "nobody signed in before the code ended".into() });
        }
        let fetch = self.fetch(request::poll(&self.settings, &shown.token_endpoint, &shown.device_code));
        self.enter(State::Polling(fetch, shown));
    }

    /// The relay has answered a question for the tokens (RFC 8628 section 3.5).
    pub(super) fn polled(&mut self, mut shown: Shown, answer: Answer, now: Now) {
        let failure = match answer {
            Answer::Ok(fetched) => match Tokens::from_answer(&fetched, None, now.unix) {
                Some(tokens) => return self.keep(tokens, true, now),
                None => self.odd("its tokens cannot be read"),
            },
            Answer::Refused(code) => match code.as_str() {
                "authorization_pending" => return self.wait_for_person(shown, now),
                "slow_down" => {
                    shown.interval =
                        (shown.interval + limits::DEVICE_INTERVAL_DEFAULT).min(limits::DEVICE_INTERVAL_MAX);
                    return self.wait_for_person(shown, now);
                }
                "access_denied" => Failure::Refused { cause: "the person denied it".into() },
                "expired_token" => Failure::Refused {
                    cause: "the code has ended, or the relay has forgotten it: sign in again".into(),
                },
                _ => Failure::Refused { cause: alloc::format!("the relay does not take the device code: {code}") },
            },
            // The relay is away for a moment; the code may outlast that.
            Answer::Unreachable { .. } => {
                shown.interval = shown.interval.saturating_mul(2).min(limits::DEVICE_INTERVAL_MAX);
                return self.wait_for_person(shown, now);
            }
            Answer::Odd(cause) => self.odd(&cause),
        };
        self.fail(failure);
    }

    fn wait_for_person(&mut self, shown: Shown, now: Now) {
        let at = shown.until.min(now.instant + shown.interval.max(self.held(now)));
        self.enter(State::Pending(shown));
        self.timer = Some(Deadline { at, reason: "ask whether the person has signed in" });
    }
}

/// The relay's answer to the question for a code (RFC 8628 section 3.2).
struct Code {
    device_code: Secret,
    user_code: String,
    /// Where the person types it.
    page: String,
    /// The same with the code in it.
    direct: Option<String>,
    interval: Duration,
    lifetime: Duration,
}

#[derive(serde::Deserialize)]
struct Document {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: u64,
    #[serde(default)]
    interval: Option<u64>,
}

impl Code {
    /// Reads it. People are shown nothing that could lead them off the relay, or their terminal astray.
    fn read(answer: &Fetched, settings: &Settings) -> Result<Self, &'static str> {
        let found: Document = serde_json::from_slice(&answer.body).map_err(|_| "its device code cannot be read")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=limits::MAX_USER_CODE).contains(&found.user_code.len()) || !found.user_code.bytes().all(plain) {
            return Err("its code cannot be shown");
        }
        if !(1..=limits::MAX_TOKEN).contains(&found.device_code.len()) {
            return Err("its device code cannot be read");
        }
        let own = Rules::Relay(&settings.relay);
        let page = own.endpoint(&found.verification_uri)?;
        let direct = found.verification_uri_complete.and_then(|url| own.endpoint(&url).ok());
        let interval = found.interval.map_or(limits::DEVICE_INTERVAL_DEFAULT, Duration::from_secs);
        Ok(Self {
            device_code: Secret::new(found.device_code),
            user_code: found.user_code,
            page: page.into(),
            direct: direct.map(String::from),
            interval: interval.clamp(Duration::from_secs(1), limits::DEVICE_INTERVAL_MAX),
            lifetime: Duration::from_secs(found.expires_in).min(limits::DEVICE_LIFETIME_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    use super::*;

    fn read(document: &Value) -> Result<Code, &'static str> {
        let settings = Settings { relay: "https://relay.example".into(), allow_insecure: false, device: "x".into() };
        let body = alloc::string::ToString::to_string(document).into();
        Code::read(&Fetched { status: StatusCode::OK, headers: HeaderMap::new(), body }, &settings)
    }

    fn document() -> Value {
        json!({
            "device_code": "d",
            "user_code": "BCDF-GHJK",
            "verification_uri": "https://relay.example/device",
            "expires_in": 600,
        })
    }

    #[test]
    fn numbers_that_are_missing_or_strange_become_sensible() {
        let found = read(&document()).expect("read");
        assert_eq!((found.interval, found.lifetime), (Duration::from_secs(5), Duration::from_secs(600)));
        for (interval, expected) in [(0, 1), (7, 7), (u64::MAX, 60)] {
            let mut document = document();
            document["interval"] = json!(interval);
            document["expires_in"] = json!(u64::MAX);
            let found = read(&document).expect("read");
            assert_eq!((found.interval, found.lifetime), (Duration::from_secs(expected), limits::DEVICE_LIFETIME_MAX));
        }
    }

    #[test]
    fn answer_that_leads_people_astray_is_refused() {
        for (member, value) in [
            ("user_code", json!("")),
            ("user_code", json!("\u{1b}[2JBCDF")),
            ("user_code", json!("B CDF")),
            ("user_code", json!("B".repeat(limits::MAX_USER_CODE + 1))),
            ("user_code", json!(null)),
            ("device_code", json!("")),
            ("device_code", json!("d".repeat(limits::MAX_TOKEN + 1))),
            ("verification_uri", json!("https://evil.example/device")),
            ("verification_uri", json!("http://relay.example/device")),
            ("verification_uri", json!("javascript:alert(1)")),
            ("expires_in", json!("soon")),
        ] {
            let mut document = document();
            document[member] = value.clone();
            assert!(read(&document).is_err(), "{member} {value}");
        }
    }

    #[test]
    fn foreign_direct_link_is_left_out() {
        for (url, expected) in [
            ("https://relay.example/device?user_code=BCDF-GHJK", true),
            ("https://evil.example/device?user_code=BCDF-GHJK", false),
        ] {
            let mut document = document();
            document["verification_uri_complete"] = json!(url);
            assert_eq!(read(&document).expect("read").direct.is_some(), expected);
        }
    }
}
