//! Requests to the relay's endpoints, and what their answers mean.

use alloc::string::{String, ToString};
use core::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use ring::digest;
use url::Url;
use url::form_urlencoded::Serializer;

use super::contract::{CLIENT_ID, Settings};
use super::metadata::Metadata;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::reach::Reach;
use crate::http::retry;
use crate::limits;
use crate::secret::Secret;
use crate::time::UnixTime;

/// What an answer of the relay means.
pub(super) enum Answer {
    /// 200.
    Ok(Fetched),
    /// No answer, or one that will pass: it is worth another try.
    Unreachable {
        cause: String,
        /// Whether the relay answered with exactly 500.
        broken: bool,
        /// How long it is to be left alone.
        held: Duration,
    },
    /// The relay says no, with this error code of RFC 6749 section 5.2.
    Refused(String),
    /// Something that no relay answers.
    Odd(String),
}

/// Sorts an answer that came at `now`.
pub(super) fn judge(result: Result<Fetched, FetchError>, now: UnixTime) -> Answer {
    let fetched = match result {
        Ok(fetched) => fetched,
        Err(error) => return Answer::Unreachable { cause: error.to_string(), broken: false, held: Duration::ZERO },
    };
    let status = fetched.status;
    let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
    if status == StatusCode::OK {
        Answer::Ok(fetched)
    } else if status.is_server_error() || passing {
        let cause = alloc::format!("it answered {}", status.as_u16());
        let after = fetched.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let held = retry::wait(status, after, now);
        Answer::Unreachable { cause, broken: status == StatusCode::INTERNAL_SERVER_ERROR, held }
    } else if let Some(code) = error_code(&fetched.body).filter(|_| status.is_client_error()) {
        match code.as_str() {
            // Codes of section 4.1.2.1, which some answer here as well: they are about the relay, not about the grant.
            "temporarily_unavailable" | "server_error" => {
                Answer::Unreachable { cause: alloc::format!("it answered {code}"), broken: false, held: Duration::ZERO }
            }
            _ => Answer::Refused(code),
        }
    } else if status.is_redirection() {
        Answer::Odd(alloc::format!("it answered {}, which sends us elsewhere; {PORTAL}", status.as_u16()))
    } else {
        Answer::Odd(alloc::format!("it answered {}", status.as_u16()))
    }
}

/// Whether that is a web page, where JSON is expected.
pub(super) fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

/// What to say of tokens that cannot be read.
pub(super) fn unreadable(answer: &Fetched) -> &'static str {
    if is_page(&answer.body) { PAGE } else { "its tokens cannot be read" }
}

/// What to say of a web page.
pub(super) const PAGE: &str = "it answered with a web page; if this network has a sign-in page, open it in a browser";
const PORTAL: &str = "if this network has a sign-in page, open it in a browser";

pub(super) fn metadata(settings: &Settings) -> Fetch {
    fetch(Method::GET, super::metadata::url(settings), Bytes::new())
}

/// RFC 6749 section 6.
pub(super) fn refresh(settings: &Settings, metadata: &Metadata, token: &Secret) -> Fetch {
    let resource = resource(settings);
    post(
        &metadata.token,
        &[
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose()),
            ("client_id", CLIENT_ID),
            ("resource", &resource),
        ],
    )
}

/// RFC 6749 section 4.1.3, RFC 7636 section 4.5, RFC 8707 section 2.2.
pub(super) fn exchange(settings: &Settings, metadata: &Metadata, code: &str, verifier: &str, port: u16) -> Fetch {
    let resource = resource(settings);
    post(
        &metadata.token,
        &[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", &redirect_uri(port)),
            ("client_id", CLIENT_ID),
            ("resource", &resource),
        ],
    )
}

/// RFC 8628 section 3.1. The device's name is for the page, where its person compares it.
pub(super) fn device_authorization(settings: &Settings, endpoint: &str) -> Fetch {
    let resource = resource(settings);
    post(endpoint, &[("client_id", CLIENT_ID), ("resource", &resource), ("device_name", &settings.device)])
}

/// RFC 8628 section 3.4.
pub(super) fn poll(settings: &Settings, endpoint: &str, device_code: &Secret) -> Fetch {
    let resource = resource(settings);
    post(
        endpoint,
        &[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device_code.expose()),
            ("client_id", CLIENT_ID),
            ("resource", &resource),
        ],
    )
}

/// RFC 7662 section 2.1.
pub(super) fn introspect(endpoint: &str, token: &Secret) -> Fetch {
    post(endpoint, &[("token", token.expose()), ("client_id", CLIENT_ID)])
}

/// RFC 7009 section 2.1.
pub(super) fn revoke(endpoint: &str, token: &Secret) -> Fetch {
    let form = [("token", token.expose()), ("token_type_hint", "refresh_token"), ("client_id", CLIENT_ID)];
    post(endpoint, &form)
}

/// Where the browser is sent.
pub(super) fn authorization_url(
    settings: &Settings,
    metadata: &Metadata,
    state: &str,
    verifier: &str,
    port: u16,
) -> String {
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let mut url: Url = metadata.authorization.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("redirect_uri", &redirect_uri(port))
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("state", state)
        .append_pair("resource", &resource(settings));
    url.into()
}

/// The address literal, not `localhost`, which another program may have bound (RFC 8252 section 8.3).
fn redirect_uri(port: u16) -> String {
    alloc::format!("http://127.0.0.1:{port}/callback")
}

/// What the token is to open. A relay of dialect V1 ignores it.
fn resource(settings: &Settings) -> String {
    alloc::format!("{}/ws", settings.relay)
}

fn post(url: &str, form: &[(&str, &str)]) -> Fetch {
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    let mut fetch = fetch(Method::POST, url.to_string(), body.into());
    fetch.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    fetch
}

fn fetch(method: Method, url: String, body: Bytes) -> Fetch {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let (timeout, max_body) = (limits::OAUTH_FETCH_TIMEOUT, limits::MAX_OAUTH_ANSWER);
    Fetch { method, url, headers, body, timeout, max_body, reach: Reach::Anywhere }
}

fn error_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: String,
    }
    serde_json::from_slice(body).ok().map(|refusal: Refusal| printable(&refusal.error))
}

/// An error code as people may be shown it: printable ASCII, capped.
pub(super) fn printable(code: &str) -> String {
    code.chars().filter(char::is_ascii_graphic).take(MAX_ERROR_CODE).collect()
}

/// The longest error code that is shown; the registered ones have at most 29 characters.
const MAX_ERROR_CODE: usize = 64;
