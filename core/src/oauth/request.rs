//! An authorization request, from the client's redirect to the code: what is sealed into pages and cookies meanwhile.

use alloc::string::{String, ToString};

use serde::{Deserialize, Serialize};

use super::clients::{Client, Origin};
use super::codes::is_challenge;
use super::error::{Code, Refusal};
use super::scopes::Scopes;
use super::{Role, Settings, token};
use crate::http::form::{self, Form};
use crate::time::UnixTime;

/// A good authorization request. Nothing of it is kept at the relay until the person has signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuthRequest {
    /// The client's key.
    #[serde(rename = "c")]
    pub(super) client: String,
    /// Whose tokens it will get.
    #[serde(rename = "o")]
    pub(super) role: Role,
    /// Where the code goes.
    #[serde(rename = "r")]
    pub(super) redirect: String,
    /// The client's state.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
    /// The S256 challenge.
    #[serde(rename = "h")]
    pub(super) challenge: String,
    /// What the tokens will be for.
    #[serde(rename = "a")]
    pub(super) audience: String,
    /// What they may do there; a request that an older relay has sealed names none, and gets all.
    #[serde(rename = "p", default)]
    pub(super) scopes: Scopes,
    /// When the request is too old to go on, in milliseconds.
    #[serde(rename = "u")]
    pub(super) until: u64,
}

/// Why an authorization request goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody to send the error to: the redirect is not one of the client's. Our page only.
    Here(&'static str),
    /// The client and its redirect are known; this is the error for it.
    Client {
        /// Where the answer goes, the error in its query.
        url: String,
        /// Who vouches for the client.
        origin: Origin,
        /// The error.
        refusal: Refusal,
    },
}

impl AuthRequest {
    /// Judges the query of `/authorize` (OAuth 2.1 section 4.1.1), which names `client`.
    pub(super) fn read(settings: &Settings, client: &Client, fields: &Form, until: UnixTime) -> Result<Self, Stop> {
        let redirect = client.redirect(fields.get("redirect_uri")).ok_or(Stop::Here(
            "The program asks to be answered at an address (redirect_uri) that it has not registered.",
        ))?;
        let state = fields.get("state").map(ToString::to_string);
        match Self::judge(settings, client, fields) {
            Ok((challenge, audience)) => {
                let key = client.key.as_str().to_string();
                let role = client.role;
                let scopes = client.scopes.granted(client.role, fields.get("scope"));
                let until = until.as_millis();
                Ok(Self { client: key, role, redirect, state, challenge, audience, scopes, until })
            }
            Err(refusal) => {
                let url = answer(settings, &redirect, state.as_deref(), &[("error", refusal.code.as_str())]);
                Err(Stop::Client { url, origin: client.origin.clone(), refusal })
            }
        }
    }

    /// Where the browser goes with `parameters` (a code, or an error): state and issuer with them (RFC 9207).
    pub(super) fn answer(&self, settings: &Settings, parameters: &[(&str, &str)]) -> String {
        answer(settings, &self.redirect, self.state.as_deref(), parameters)
    }

    fn judge(settings: &Settings, client: &Client, fields: &Form) -> Result<(String, String), Refusal> {
        let invalid = |description| Refusal::new(Code::InvalidRequest, description);
        match fields.get("response_type") {
            Some("code") => {}
            None => return Err(invalid("response_type is missing")),
            Some(_) => return Err(Refusal::new(Code::UnsupportedResponseType, "response_type must be code")),
        }
        if fields.get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(invalid("response_mode must be query"));
        }
        let challenge = fields.get("code_challenge").ok_or_else(|| invalid("code_challenge is missing"))?;
        if fields.get("code_challenge_method") != Some("S256") {
            return Err(invalid("code_challenge_method must be S256"));
        }
        if !is_challenge(challenge) {
            return Err(invalid("code_challenge must be a SHA-256 in base64url"));
        }
        if fields.get("state").is_some_and(|state| state.len() > MAX_STATE) {
            return Err(invalid("state is too long"));
        }
        let audience = match fields.get("resource") {
            None => settings.url(client.role.path()),
            Some(resource) => token::audience(&settings.public_url, client.role, resource)
                .filter(|audience| audience.len() <= MAX_AUDIENCE)
                .ok_or_else(|| Refusal::new(Code::InvalidTarget, "resource is not an MCP endpoint of this relay"))?,
        };
        Ok((challenge.to_string(), audience))
    }
}

fn answer(settings: &Settings, redirect: &str, state: Option<&str>, parameters: &[(&str, &str)]) -> String {
    let mut all = parameters.to_vec();
    all.extend(state.map(|state| ("state", state)));
    all.push(("iss", &settings.public_url));
    form::append_query(redirect, all)
}

/// A client's state: it travels in a cookie for a while, and a cookie has room for 4 KiB in all.
const MAX_STATE: usize = 1_536;
/// A resource's URL, for the same reason.
const MAX_AUDIENCE: usize = 512;
