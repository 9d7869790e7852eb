//! Why a login at the provider failed.

use alloc::string::String;
use core::fmt;

use crate::http::text;
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
        /// Its error code, printable ASCII, capped.
        code: String,
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
    #[error("this account may not use the relay (see `auth.allow`)")]
    NotAllowed {
        /// Who.
        user: UserId,
    },
    /// Too many logins are under way.
    #[error("too many people are signing in at once: try again in a minute")]
    Busy,
}

impl LoginError {
    /// The OAuth error code that the waiting client gets (RFC 6749 section 4.1.2.1).
    #[must_use]
    pub fn oauth_code(&self) -> &'static str {
        match self {
            // The provider's own trouble is not the person's refusal.
            Self::Refused { code, .. } if code == "temporarily_unavailable" => "temporarily_unavailable",
            Self::Refused { code, .. } if code == "server_error" => "server_error",
            Self::Unreachable { .. } | Self::Busy => "temporarily_unavailable",
            Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Callback
            | Self::NotAllowed { .. }
            | Self::UnverifiedEmail => "access_denied",
            Self::Provider { .. } | Self::Token { .. } | Self::MissingClaim { .. } => "server_error",
        }
    }
}

/// What a provider says of its error (`error_description`, RFC 6749 sections 4.1.2.1 and 5.2): one line that shows what it
/// says, capped. Empty when it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said(String);

impl Said {
    /// The words in `text`. Those that repeat one of `secrets` are nobody's to read.
    pub(super) fn new(text: Option<&str>, secrets: &[&str]) -> Self {
        let text = text.unwrap_or_default();
        let repeats = secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret));
        Self(if repeats { String::new() } else { text::clean(text, MAX_SAID) })
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// Characters: two sentences.
const MAX_SAID: usize = 200;

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
            assert_eq!(LoginError::Refused { code: code.into(), said: Said::default() }.oauth_code(), expected);
        }
    }
}
