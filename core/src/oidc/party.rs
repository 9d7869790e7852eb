//! The relying party itself: logins under way, and the fetches they wait for.

use alloc::string::String;

use super::{LoginError, LoginId, Output, Pending};
use crate::config::Oidc;
use crate::entropy::Entropy;
use crate::host::Mailbox;
use crate::http::fetch::{FetchError, Fetched};
use crate::id::FetchId;
use crate::time::Now;

/// Signs people in at one OpenID provider.
///
/// Every [`start`](Self::start) and every [`callback`](Self::callback) is answered by exactly one of
/// [`Output::Redirect`], [`Output::SignedIn`] and [`Output::Failed`], at once or after fetches, unless
/// [`forget`](Self::forget) comes first. Drain [`poll`](Self::poll) after every call. There are no timers: fetches end
/// by their own time-outs.
///
/// `next_fetch` is the caller's counter of [`FetchId`]s: each fetch takes the number it finds there and leaves the next.
pub struct RelyingParty {
    config: Oidc,
    redirect_uri: String,
    out: Mailbox<Output>,
}

impl RelyingParty {
    /// A relying party that has not talked to its provider yet. `redirect_uri` is the relay's callback, as registered
    /// at the provider.
    #[must_use]
    pub fn new(config: Oidc, redirect_uri: String) -> Self {
        Self { config, redirect_uri, out: Mailbox::default() }
    }

    /// Begins a login: answered by [`Output::Redirect`] or [`Output::Failed`].
    pub fn start(&mut self, login: LoginId, now: Now, entropy: &mut dyn Entropy, next_fetch: &mut u64) {
        let _ = (now, entropy, next_fetch, &self.redirect_uri);
        self.fail(login);
    }

    /// Judges what the browser brought back: `query` is the callback's raw query, `pending` what was kept for this
    /// browser. Answered by [`Output::SignedIn`] or [`Output::Failed`].
    pub fn callback(&mut self, login: LoginId, pending: Pending, query: &str, now: Now, next_fetch: &mut u64) {
        let _ = (pending, query, now, next_fetch);
        self.fail(login);
    }

    /// Takes the end of a fetch in. `false`: it was not one of this component's.
    pub fn handle_fetched(
        &mut self,
        fetch: FetchId,
        result: Result<Fetched, FetchError>,
        now: Now,
        next_fetch: &mut u64,
    ) -> bool {
        let _ = (fetch, result, now, next_fetch);
        false
    }

    /// Nobody waits for this login any more: no output of it follows.
    pub fn forget(&mut self, login: LoginId) {
        let _ = login;
    }

    /// The next output, oldest first; drain it to `None` after every call.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop()
    }

    fn fail(&mut self, login: LoginId) {
        let issuer = self.config.issuer.clone();
        self.out.push(Output::Failed { login, error: LoginError::Unreachable { issuer, cause: String::new() } });
    }
}
