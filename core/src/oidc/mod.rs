//! The relying party: signing people in at an OpenID provider.
//!
//! [`RelyingParty`] is a child component, not a driven machine: the authorization server asks it to
//! [`start`](RelyingParty::start) a login and to judge the [`callback`](RelyingParty::callback), carries its fetches
//! out, and drains [`poll`](RelyingParty::poll). What this folder knows is OpenID Connect; what a session, a cookie or
//! a page is, it does not. It is the only user of the `openidconnect` crate.

pub mod allow;
mod error;
mod identity;
mod keys;
mod party;
mod provider;
mod replay;
mod said;
mod token;

use alloc::string::String;

pub use error::{LoginError, Untold};
pub use party::RelyingParty;
pub use said::Said;

use crate::http::fetch::Fetch;
use crate::id::{FetchId, UserId};

/// One step of one person's login: numbered by the caller, never reused while an answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoginId(pub u64);

/// What a [`RelyingParty`] says.
#[derive(Debug)]
pub enum Output {
    /// Make this request, then bring [`RelyingParty::handle_fetched`].
    Fetch {
        /// Its number, drawn from the caller's counter.
        fetch: FetchId,
        /// The request.
        request: Fetch,
    },
    /// Answer to `start`: send the browser to `url`, and keep `pending` bound to that browser (a sealed cookie) until it
    /// comes back.
    Redirect {
        /// The login.
        login: LoginId,
        /// The provider's authorization endpoint with its query.
        url: String,
        /// What the callback is judged by.
        pending: Pending,
    },
    /// Answer to `callback`: the person is known and may use the relay.
    SignedIn {
        /// The login.
        login: LoginId,
        /// Who.
        identity: Identity,
    },
    /// Answer to either: no.
    Failed {
        /// The login.
        login: LoginId,
        /// Why.
        error: LoginError,
    },
}

/// What a login must remember between the redirect to the provider and the way back.
///
/// It holds the PKCE verifier: the caller seals it, binds it to the browser, lets it expire after ten minutes and uses
/// it once. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    issuer: String,
}

impl Pending {
    /// The `state` parameter that the provider brings back, so that several logins of one browser can be told apart.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }
}

impl core::fmt::Debug for Pending {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Pending(…)")
    }
}

/// A person, as the provider vouches for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `<issuer>#<value of the user claim>`.
    pub user: UserId,
    /// The value of the configured user claim.
    pub claim: String,
    /// A name to greet the person by; never used to decide anything.
    pub name: Option<String>,
    /// What the relay judges them by from here on.
    pub vouched: allow::Vouched,
}

/// The `state` parameter of a callback's query, if there is exactly one: which [`Pending`] to look for.
#[must_use]
pub fn state_of(query: &str) -> Option<String> {
    let mut all = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "state");
    let (_, state) = all.next()?;
    all.next().is_none().then(|| state.into_owned())
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
