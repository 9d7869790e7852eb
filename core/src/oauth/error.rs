//! Why a request is refused, as the specifications name it.

use alloc::borrow::Cow;

use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE,
};
use serde::Serialize;

use crate::http::Reply;

/// A refusal: its code goes to the client, its description to whoever reads the client's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) description: Cow<'static, str>,
}

/// Error codes of RFC 6749 sections 4.1.2.1 and 5.2, RFC 7591 section 3.2.2, RFC 8628 section 3.5 and RFC 8707 section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidTarget,
    InvalidScope,
    InvalidRedirectUri,
    InvalidClientMetadata,
    UnsupportedGrantType,
    UnsupportedResponseType,
    UnauthorizedClient,
    AuthorizationPending,
    AccessDenied,
    ExpiredToken,
    /// A device asks too soon.
    PollSlowDown,
    /// An address asks too much.
    SlowDown,
    TemporarilyUnavailable,
}

impl Code {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::AuthorizationPending => "authorization_pending",
            Self::AccessDenied => "access_denied",
            Self::ExpiredToken => "expired_token",
            Self::PollSlowDown | Self::SlowDown => "slow_down",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::SlowDown => StatusCode::TOO_MANY_REQUESTS,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest
            | Self::InvalidGrant
            | Self::InvalidTarget
            | Self::InvalidScope
            | Self::InvalidRedirectUri
            | Self::InvalidClientMetadata
            | Self::UnsupportedGrantType
            | Self::UnsupportedResponseType
            | Self::UnauthorizedClient
            | Self::AuthorizationPending
            | Self::AccessDenied
            | Self::ExpiredToken
            | Self::PollSlowDown => StatusCode::BAD_REQUEST,
        }
    }
}

impl Refusal {
    pub(super) fn new(code: Code, description: impl Into<Cow<'static, str>>) -> Self {
        Self { code, description: description.into() }
    }

    /// The JSON answer of the endpoints that programs call (RFC 6749 section 5.2).
    pub(super) fn reply(&self) -> Reply {
        let body = Body { error: self.code.as_str(), error_description: &self.description };
        let reply = json(self.code.status(), &body);
        match self.code {
            // RFC 9110 section 15.5.2: a 401 says how to do better.
            Code::InvalidClient => {
                reply.with(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"mcp-local-tunnel\""))
            }
            Code::SlowDown | Code::TemporarilyUnavailable => reply.with(RETRY_AFTER, HeaderValue::from_static("5")),
            _ => reply,
        }
    }
}

/// A JSON answer to a program in a browser or outside: never cached, readable from any origin, since none of these
/// endpoints looks at cookies.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(body).expect("strings, numbers and lists always serialise");
    Reply::json(status, body)
        .with(PRAGMA, HeaderValue::from_static("no-cache"))
        .with(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))
        .with(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("WWW-Authenticate"))
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    error_description: &'a str,
}
