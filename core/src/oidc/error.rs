//! Why a login at the provider failed.

use alloc::string::String;
use core::fmt;

use super::said::Said;
use crate::id::UserId;

/// Why nobody was signed in. What it prints is for people, and carries no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The provider could not be reached or answered with a server error; the next login tries again.
    #[error("the identity provider {issuer} cannot be reached: {cause}")]
    Unreachable {
        /// The provider.
        issuer: String,
        /// What the fetch said.
        cause: String,
    },
    /// The provider, or what is configured about it, breaks a rule. The operator must mend it.
    #[error("the identity provider {issuer} cannot be used: {cause}")]
    Provider {
        /// The provider.
        issuer: String,
        /// Which rule.
        cause: String,
    },
    /// The person said no at the provider.
    #[error("the sign-in was cancelled at the identity provider{said}")]
    Denied {
        /// The provider's words.
        said: Said,
    },
    /// The provider answered with an error.
    #[error("the identity provider refused the sign-in: {code}{said}")]
    Refused {
        /// Its error code, if it is a registered one.
        code: &'static str,
        /// Its words.
        said: Said,
    },
    /// The callback does not belong to a login of this browser, or is malformed.
    #[error("this sign-in was not started here, or is too old: start again")]
    Callback,
    /// The ID token breaks a rule.
    #[error("the identity provider's token cannot be trusted: {cause}")]
    Token {
        /// Which rule.
        cause: &'static str,
    },
    /// The userinfo endpoint did not tell what the ID token leaves out.
    #[error("the identity provider's userinfo endpoint did not tell who this is: {cause}")]
    Userinfo {
        /// Why not.
        cause: String,
    },
    /// The token does not have the configured user claim.
    #[error("the identity provider did not say who this is: the claim `{claim}` is missing (see `auth.userClaim`)")]
    MissingClaim {
        /// The claim.
        claim: String,
    },
    /// The person is to be known by an e-mail address that the provider has not verified.
    #[error("the identity provider has not verified this account's e-mail address")]
    UnverifiedEmail,
    /// The person is known, but not on the list.
    #[error("this account may not use the relay (see `auth.allow`){untold}")]
    NotAllowed {
        /// Who.
        user: UserId,
        /// What the list asks for, and the provider did not tell.
        untold: Untold,
    },
    /// Too many logins are under way.
    #[error("too many people are signing in at once: try again in a minute")]
    Busy,
}

/// What a provider did not tell of a person who is not on the list: then the list, or `auth.scopes`, may be at fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Untold {
    /// A verified e-mail address, where an address or a domain is on the list.
    pub email: bool,
    /// Groups, where one is on the list.
    pub groups: bool,
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.email, self.groups) {
            (false, false) => "",
            (true, false) => ": the identity provider told no verified e-mail address of it",
            (false, true) => ": the identity provider told no groups of it",
            (true, true) => ": the identity provider told neither a verified e-mail address nor groups of it",
        })
    }
}

impl LoginError {
    /// The OAuth error code that the waiting client gets (RFC 6749 section 4.1.2.1).
    #[must_use]
    pub fn oauth_code(&self) -> &'static str {
        match self {
            // The provider's own trouble is not the person's refusal.
            Self::Refused { code: code @ ("temporarily_unavailable" | "server_error"), .. } => code,
            Self::Unreachable { .. } | Self::Busy => "temporarily_unavailable",
            Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Callback
            | Self::NotAllowed { .. }
            | Self::UnverifiedEmail => "access_denied",
            Self::Provider { .. } | Self::Token { .. } | Self::Userinfo { .. } | Self::MissingClaim { .. } => {
                "server_error"
            }
        }
    }
}

/// The error code that a provider gave, if it is a registered one (RFC 6749 sections 4.1.2.1 and 5.2, OpenID Connect Core
/// section 3.1.2.6, RFC 8707, RFC 9396, RFC 9470 and OpenID Connect's unmet requirements). Any other text in its place may
/// be anything, a secret included.
pub(super) fn registered(said: &str) -> &'static str {
    CODES.into_iter().find(|code| *code == said).unwrap_or("another error")
}

const CODES: [&str; 22] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "unsupported_response_type",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "account_selection_required",
    "consent_required",
    "invalid_request_uri",
    "invalid_request_object",
    "request_not_supported",
    "request_uri_not_supported",
    "registration_not_supported",
    "invalid_target",
    "insufficient_user_authentication",
    "unmet_authentication_requirements",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_trouble_is_told_as_such() {
        for (code, expected) in [
            ("server_error", "server_error"),
            ("temporarily_unavailable", "temporarily_unavailable"),
            ("interaction_required", "access_denied"),
        ] {
            assert_eq!(LoginError::Refused { code, said: Said::default() }.oauth_code(), expected);
        }
    }

    #[test]
    fn only_registered_codes_are_shown() {
        for code in CODES {
            assert_eq!(registered(code), code);
        }
        for other in ["", "s3cret", "Invalid_Grant", "invalid_grant s3cret"] {
            assert_eq!(registered(other), "another error");
        }
    }
}
