//! What a request is told whose token does not do: who issues better ones, and which scopes they need.

use alloc::format;
use alloc::string::String;

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};

use super::service::RESOURCE_DOCUMENT;
use crate::http::Reply;
use crate::oauth::scopes::Scopes;
use crate::rpc::quoted;

/// Which resource it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Challenge<'a> {
    /// The relay's public URL.
    pub(super) public_url: &'a str,
    /// The path that the resource's metadata has it under; none for `/ws`.
    pub(super) document: &'a str,
}

impl Challenge<'_> {
    /// The answer to a request without a token: no error code (RFC 6750 section 3.1).
    pub(super) fn missing(self, scopes: &Scopes) -> Reply {
        self.reply(StatusCode::UNAUTHORIZED, None, "sign in first: no access token came", scopes)
    }

    /// The answer to a token that is none, or not any more.
    pub(super) fn invalid(self, text: &str, scopes: &Scopes) -> Reply {
        self.reply(StatusCode::UNAUTHORIZED, Some("invalid_token"), text, scopes)
    }

    /// The answer to a good token that does not do for this. `scopes` are all that the next one needs: a client asks for
    /// these and no others (MCP 2025-11-25, Authorization, Scope Challenge Handling).
    pub(super) fn insufficient(self, text: &str, scopes: &Scopes) -> Reply {
        self.reply(StatusCode::FORBIDDEN, Some("insufficient_scope"), text, scopes)
    }

    /// `text` is ours, and has no quotes in it.
    fn reply(self, status: StatusCode, error: Option<&str>, text: &str, scopes: &Scopes) -> Reply {
        let mut challenge = String::from("Bearer ");
        if let Some(code) = error {
            challenge += &format!("error=\"{code}\", error_description=\"{text}\", ");
        }
        // RFC 9728 section 5.1.
        let Self { public_url, document } = self;
        challenge += &format!("resource_metadata=\"{public_url}{RESOURCE_DOCUMENT}{document}\", scope=\"{scopes}\"");
        let code = error.unwrap_or("unauthorized");
        let reply =
            Reply::json(status, format!("{{\"error\":{},\"error_description\":{}}}", quoted(code), quoted(text)));
        match HeaderValue::from_str(&challenge) {
            Ok(challenge) => reply.with(WWW_AUTHENTICATE, challenge),
            Err(_) => reply,
        }
    }
}
