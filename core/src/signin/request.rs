//! Requests to the endpoints of a relay, or of another authorization server, and what their answers mean.

use alloc::string::{String, ToString};
use core::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use ring::digest;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::contract::{CLIENT_ID, Settings};
use super::metadata::Metadata;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::reach::Reach;
use crate::http::retry;
use crate::limits;
use crate::secret::Secret;
use crate::time::UnixTime;

/// What an answer of the relay means.
pub(crate) enum Answer {
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
pub(crate) fn judge(result: Result<Fetched, FetchError>, now: UnixTime) -> Answer {
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
pub(crate) fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

/// What to say of tokens that cannot be read.
pub(crate) fn unreadable(answer: &Fetched) -> &'static str {
    if is_page(&answer.body) { PAGE } else { "its tokens cannot be read" }
}

/// What to say of a web page.
pub(crate) const PAGE: &str = "it answered with a web page; if this network has a sign-in page, open it in a browser";
const PORTAL: &str = "if this network has a sign-in page, open it in a browser";

pub(super) fn metadata(settings: &Settings) -> Fetch {
    fetch(Method::GET, super::metadata::url(settings), Bytes::new())
}

/// Who asks a server for tokens, and for which.
pub(crate) struct Client<'a> {
    pub(crate) id: &'a str,
    /// What it proves that with, and where it writes it; none for a public client.
    pub(crate) secret: Option<(SecretIn, &'a Secret)>,
    /// What the tokens are to open (RFC 8707 section 2).
    pub(crate) resource: &'a str,
    /// What they are to allow; the server's choice when it says nothing.
    pub(crate) scope: Option<&'a str>,
}

/// Where a client writes its secret (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretIn {
    /// `client_secret_basic`.
    Header,
    /// `client_secret_post`.
    Body,
}

impl<'a> Client<'a> {
    /// The agent, which every relay knows. A relay of dialect V1 ignores what the token is for.
    fn agent(resource: &'a str) -> Self {
        Self { id: CLIENT_ID, secret: None, resource, scope: None }
    }
}

/// RFC 6749 section 6.
pub(super) fn refresh(settings: &Settings, metadata: &Metadata, token: &Secret) -> Fetch {
    let resource = resource(settings);
    post(
        &Client::agent(&resource),
        &metadata.token,
        &[("grant_type", "refresh_token"), ("refresh_token", token.expose()), ("resource", &resource)],
    )
}

/// [`exchange`] for the agent.
pub(super) fn exchange_for_agent(
    settings: &Settings,
    metadata: &Metadata,
    code: &str,
    verifier: &str,
    port: u16,
) -> Fetch {
    exchange(&Client::agent(&resource(settings)), metadata, code, verifier, port)
}

/// RFC 6749 section 4.1.3, RFC 7636 section 4.5, RFC 8707 section 2.2.
pub(crate) fn exchange(client: &Client<'_>, metadata: &Metadata, code: &str, verifier: &str, port: u16) -> Fetch {
    post(
        client,
        &metadata.token,
        &[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", &redirect_uri(port)),
            ("resource", client.resource),
        ],
    )
}

/// RFC 8628 section 3.1. The device's name is for the page, where its person compares it.
pub(super) fn device_authorization(settings: &Settings, endpoint: &str) -> Fetch {
    let resource = resource(settings);
    post(&Client::agent(&resource), endpoint, &[("resource", &resource), ("device_name", &settings.device)])
}

/// RFC 8628 section 3.4.
pub(super) fn poll(settings: &Settings, endpoint: &str, device_code: &Secret) -> Fetch {
    let resource = resource(settings);
    post(
        &Client::agent(&resource),
        endpoint,
        &[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device_code.expose()),
            ("resource", &resource),
        ],
    )
}

/// RFC 7662 section 2.1.
pub(super) fn introspect(settings: &Settings, endpoint: &str, token: &Secret) -> Fetch {
    post(&Client::agent(&resource(settings)), endpoint, &[("token", token.expose())])
}

/// RFC 7009 section 2.1.
pub(crate) fn revoke(client: &Client<'_>, endpoint: &str, token: &Secret) -> Fetch {
    post(client, endpoint, &[("token", token.expose()), ("token_type_hint", "refresh_token")])
}

/// [`revoke`] for the agent.
pub(super) fn revoke_for_agent(settings: &Settings, endpoint: &str, token: &Secret) -> Fetch {
    revoke(&Client::agent(&resource(settings)), endpoint, token)
}

/// [`authorization_url`] for the agent.
pub(super) fn authorization_url_for_agent(
    settings: &Settings,
    metadata: &Metadata,
    state: &str,
    verifier: &str,
    port: u16,
) -> String {
    authorization_url(&Client::agent(&resource(settings)), metadata, state, verifier, port)
}

/// Where the browser is sent (OAuth 2.1 section 4.1.1, RFC 7636 section 4.3).
pub(crate) fn authorization_url(
    client: &Client<'_>,
    metadata: &Metadata,
    state: &str,
    verifier: &str,
    port: u16,
) -> String {
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let mut url: Url = metadata.authorization.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client.id)
        .append_pair("redirect_uri", &redirect_uri(port))
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("state", state)
        .append_pair("resource", client.resource);
    if let Some(scope) = client.scope {
        url.query_pairs_mut().append_pair("scope", scope);
    }
    url.into()
}

/// The address literal, not `localhost`, which another program may have bound (RFC 8252 section 8.3).
pub(crate) fn redirect_uri(port: u16) -> String {
    alloc::format!("http://127.0.0.1:{port}/callback")
}

/// What an agent's token is to open.
fn resource(settings: &Settings) -> String {
    alloc::format!("{}/ws", settings.relay)
}

/// A form, with who sends it.
fn post(client: &Client<'_>, url: &str, form: &[(&str, &str)]) -> Fetch {
    let mut body = Serializer::new(String::new());
    body.extend_pairs(form);
    let mut authorization = None;
    match client.secret {
        None => {
            body.append_pair("client_id", client.id);
        }
        Some((SecretIn::Body, secret)) => {
            body.append_pair("client_id", client.id).append_pair("client_secret", secret.expose());
        }
        Some((SecretIn::Header, secret)) => authorization = basic(client.id, secret),
    }
    let mut fetch = fetch(Method::POST, url.to_string(), body.finish().into());
    fetch.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    if let Some(value) = authorization {
        fetch.headers.insert(AUTHORIZATION, value);
    }
    fetch
}

/// Both halves are form-encoded first (RFC 6749 section 2.3.1).
fn basic(id: &str, secret: &Secret) -> Option<HeaderValue> {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(alloc::format!("{}:{}", encode(id), encode(secret.expose())));
    let text = Secret::new(alloc::format!("Basic {}", BASE64_STANDARD.encode(pair.expose())));
    let mut value = HeaderValue::try_from(text.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A request whose answer is a short JSON document.
pub(crate) fn fetch(method: Method, url: String, body: Bytes) -> Fetch {
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
pub(crate) fn printable(code: &str) -> String {
    code.chars().filter(char::is_ascii_graphic).take(MAX_ERROR_CODE).collect()
}

/// The longest error code that is shown; the registered ones have at most 29 characters.
const MAX_ERROR_CODE: usize = 64;
