//! The relying party itself: logins under way, and what each waits for.
//!
//! ```text
//! start ──► Redirecting ──(metadata, keys)──► Redirect
//!
//! callback ──► Returning ──(metadata, keys)──► Exchanging ──(token endpoint)──► verify ──┬──► SignedIn
//!                                                            unknown key id: Rekeying ◄──┤
//!                                                         claims missing: Asking (userinfo)
//! ```
//!
//! Any of them may end in `Failed`. What is in brackets is skipped when it is at hand.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use openidconnect::core::{CoreErrorResponseType, CoreResponseType, CoreTokenResponse, CoreTokenType};
use openidconnect::{
    AuthenticationFlow, AuthorizationCode, CsrfToken, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier,
    RequestTokenError, Scope, StandardErrorResponse,
};
use subtle::ConstantTimeEq;

use super::error::registered;
use super::identity::Claims;
use super::provider::{Known, Next, Provider, answered, take};
use super::replay::{self, NotRecorded, Step};
use super::token::{self, Refusal};
use super::{LoginError, LoginId, Output, Pending, Said};
use crate::config::Oidc;
use crate::entropy::{self, Entropy};
use crate::host::Mailbox;
use crate::http::endpoint;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::reach::Reach;
use crate::id::FetchId;
use crate::limits;
use crate::secret::Secret;
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
    provider: Provider,
    logins: BTreeMap<LoginId, Stage>,
    exchanges: BTreeMap<FetchId, LoginId>,
    out: Mailbox<Output>,
}

/// What a login waits for.
enum Stage {
    /// For the provider's documents, then goes there.
    Redirecting { pending: Pending },
    /// For the provider's documents, then trades the code.
    Returning { pending: Pending, code: Secret, iss: bool },
    /// For the token endpoint.
    Exchanging { pending: Pending, code: Secret },
    /// For newer keys of the provider.
    Rekeying { pending: Pending, tokens: Box<CoreTokenResponse> },
    /// For the userinfo endpoint.
    Asking { claims: Claims },
}

impl RelyingParty {
    /// A relying party that has not talked to its provider yet. `redirect_uri` is the relay's callback, as registered
    /// at the provider.
    #[must_use]
    pub fn new(config: Oidc, redirect_uri: String) -> Self {
        Self {
            provider: Provider::new(config, redirect_uri),
            logins: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            out: Mailbox::default(),
        }
    }

    /// Begins a login: answered by [`Output::Redirect`] or [`Output::Failed`].
    pub fn start(&mut self, login: LoginId, now: Now, entropy: &mut dyn Entropy, next_fetch: &mut u64) {
        let mut draw = || BASE64_URL_SAFE_NO_PAD.encode(entropy::bytes::<32>(entropy));
        let pending = Pending { state: draw(), nonce: draw(), verifier: draw(), issuer: self.config().issuer.clone() };
        self.enter(login, Stage::Redirecting { pending }, now, next_fetch);
    }

    /// Judges what the browser brought back: `query` is the callback's raw query, `pending` what was kept for this
    /// browser. Answered by [`Output::SignedIn`] or [`Output::Failed`].
    pub fn callback(&mut self, login: LoginId, pending: Pending, query: &str, now: Now, next_fetch: &mut u64) {
        match read_callback(query, &pending, self.config()) {
            Ok((code, iss)) => self.enter(login, Stage::Returning { pending, code, iss }, now, next_fetch),
            Err(error) => self.fail(login, error),
        }
    }

    /// Takes the end of a fetch in. `false`: it was not one of this component's.
    pub fn handle_fetched(
        &mut self,
        fetch: FetchId,
        result: Result<Fetched, FetchError>,
        now: Now,
        next_fetch: &mut u64,
    ) -> bool {
        if self.provider.owns(fetch) {
            match self.provider.handle_fetched(result, now, next_fetch) {
                Ok(Some((fetch, request))) => self.out.push(Output::Fetch { fetch, request }),
                Ok(None) => self.wake_waiting(now, next_fetch),
                Err(error) => self.fail_waiting(&error, now),
            }
            return true;
        }
        let Some(login) = self.exchanges.remove(&fetch) else { return false };
        // A login that was forgotten has no stage any more.
        if let Some(stage) = self.logins.remove(&login) {
            match (answered(&self.config().issuer, result), &stage) {
                (Ok(fetched), _) => self.handle_answer(login, stage, fetched, now, next_fetch),
                (Err(LoginError::Unreachable { cause, .. }), Stage::Asking { .. }) => {
                    self.fail(login, LoginError::Userinfo { cause });
                }
                (Err(error), _) => self.fail(login, error),
            }
        }
        true
    }

    /// Nobody waits for this login any more: no output of it follows.
    pub fn forget(&mut self, login: LoginId) {
        self.logins.remove(&login);
    }

    /// The next output, oldest first; drain it to `None` after every call.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop()
    }

    fn config(&self) -> &Oidc {
        self.provider.config()
    }

    fn enter(&mut self, login: LoginId, stage: Stage, now: Now, next_fetch: &mut u64) {
        if self.logins.len() >= limits::MAX_LOGINS || self.exchanges.len() >= limits::MAX_LOGINS {
            return self.fail(login, LoginError::Busy);
        }
        self.resume(login, stage, now, next_fetch);
    }

    /// Goes on with a login whose stage needs nothing but the provider's documents.
    fn resume(&mut self, login: LoginId, stage: Stage, now: Now, next_fetch: &mut u64) {
        let Some(known) = self.provider.known(now) else {
            let next = self.provider.discover(now, next_fetch);
            return self.wait(login, stage, next);
        };
        match stage {
            Stage::Redirecting { pending } => {
                let url = authorization_url(known, &pending);
                self.out.push(Output::Redirect { login, url, pending });
            }
            Stage::Returning { iss: false, .. } if known.promises_iss => {
                let error = self.broken("its answer does not name it (iss), which it promises (RFC 9207)");
                self.fail(login, error);
            }
            Stage::Returning { pending, code, .. } => match exchange_request(known, &pending, &code) {
                Some(request) => self.send(login, Stage::Exchanging { pending, code }, request, next_fetch),
                None => {
                    let error = self.broken("its token endpoint is neither https nor on this machine");
                    self.fail(login, error);
                }
            },
            Stage::Rekeying { pending, tokens } => self.judge(login, pending, tokens, now, next_fetch),
            // These two wait for answers of their own, and are never resumed.
            Stage::Exchanging { .. } | Stage::Asking { .. } => {
                self.logins.insert(login, stage);
            }
        }
    }

    /// Keeps a login until the provider's documents are there, or says why they cannot be had.
    fn wait(&mut self, login: LoginId, stage: Stage, next: Result<Next, LoginError>) {
        match next {
            Ok(next) => {
                self.logins.insert(login, stage);
                if let Some((fetch, request)) = next {
                    self.out.push(Output::Fetch { fetch, request });
                }
            }
            Err(error) => self.fail(login, error),
        }
    }

    /// Goes on with everyone who waited for the provider's documents.
    fn wake_waiting(&mut self, now: Now, next_fetch: &mut u64) {
        for (login, stage) in self.take_waiting(|_| true) {
            self.resume(login, stage, now, next_fetch);
        }
    }

    /// Tells everyone who cannot go on without what could not be fetched. The next login tries again.
    fn fail_waiting(&mut self, error: &LoginError, now: Now) {
        let stranded = self.provider.known(now).is_none();
        for (login, _) in self.take_waiting(|stage| stranded || matches!(stage, Stage::Rekeying { .. })) {
            self.fail(login, error.clone());
        }
    }

    fn take_waiting(&mut self, affected: impl Fn(&Stage) -> bool) -> Vec<(LoginId, Stage)> {
        let waiting = self.logins.iter().filter(|(_, stage)| stage.waits_for_provider() && affected(stage));
        let waiting: Vec<LoginId> = waiting.map(|(login, _)| *login).collect();
        waiting.into_iter().filter_map(|login| self.logins.remove_entry(&login)).collect()
    }

    fn handle_answer(&mut self, login: LoginId, stage: Stage, fetched: Fetched, now: Now, next_fetch: &mut u64) {
        match stage {
            Stage::Exchanging { pending, code } => {
                let Some(known) = self.provider.latest() else {
                    return self.fail(login, LoginError::Callback);
                };
                if fetched.status.is_redirection() {
                    let error = self.broken("its token endpoint sends elsewhere (a redirect, which is not followed)");
                    return self.fail(login, error);
                }
                let answer = token::Answer::new(fetched);
                match exchange(known, &pending, &code, &[replay::response(answer.fetched)]) {
                    Ok(Step::Done(tokens)) if *tokens.token_type() != CoreTokenType::Bearer => {
                        self.fail(login, LoginError::Token { cause: "it is not a bearer's (token_type)" });
                    }
                    Ok(Step::Done(tokens)) => self.judge(login, pending, tokens, now, next_fetch),
                    Ok(Step::Wants(_)) => self.fail(login, LoginError::Token { cause: "the exchange did not end" }),
                    Err(error) => {
                        let error = self.exchange_error(&error, answer.lacks, &pending, &code);
                        self.fail(login, error);
                    }
                }
            }
            Stage::Asking { mut claims } => {
                let added = match fetched.status {
                    StatusCode::OK => claims.add_userinfo(&fetched.body),
                    status => Err(LoginError::Userinfo { cause: alloc::format!("it answered {}", status.as_u16()) }),
                };
                match added {
                    Ok(()) => self.identify(login, &claims),
                    Err(error) => self.fail(login, error),
                }
            }
            Stage::Redirecting { .. } | Stage::Returning { .. } | Stage::Rekeying { .. } => {
                self.resume(login, stage, now, next_fetch);
            }
        }
    }

    /// Verifies the ID token, and asks for what is missing: a newer key, or more claims.
    fn judge(
        &mut self,
        login: LoginId,
        pending: Pending,
        tokens: Box<CoreTokenResponse>,
        now: Now,
        next_fetch: &mut u64,
    ) {
        let Some(known) = self.provider.latest() else {
            return self.fail(login, LoginError::Callback);
        };
        let config = self.provider.config();
        let verifier = known.verifier(token::key_of(&tokens).as_deref());
        match token::verify(verifier, &tokens, &config.client_id, &pending.nonce, now.unix) {
            Ok(claims) => match &known.userinfo {
                Some(url) if claims.need_userinfo(config) => match userinfo_request(url, &tokens) {
                    Some(request) => self.send(login, Stage::Asking { claims }, request, next_fetch),
                    None => {
                        let cause = "it is neither https nor on this machine".to_string();
                        self.fail(login, LoginError::Userinfo { cause });
                    }
                },
                _ => self.identify(login, &claims),
            },
            // The provider may have new keys since they were read.
            Err(Refusal::UnknownKey) => {
                let next = self.provider.refetch_keys(now, next_fetch);
                self.wait(login, Stage::Rekeying { pending, tokens }, next);
            }
            Err(Refusal::Rule(cause)) => self.fail(login, LoginError::Token { cause }),
        }
    }

    fn identify(&mut self, login: LoginId, claims: &Claims) {
        match claims.identify(self.config()) {
            Ok(identity) => self.out.push(Output::SignedIn { login, identity }),
            Err(error) => self.fail(login, error),
        }
    }

    fn send(&mut self, login: LoginId, stage: Stage, request: Fetch, next_fetch: &mut u64) {
        let fetch = take(next_fetch);
        self.logins.insert(login, stage);
        self.exchanges.insert(fetch, login);
        self.out.push(Output::Fetch { fetch, request });
    }

    fn fail(&mut self, login: LoginId, error: LoginError) {
        self.out.push(Output::Failed { login, error });
    }

    /// Why the token endpoint gave no tokens. Never the library's words: they contain the response.
    fn exchange_error(
        &self,
        error: &ExchangeError,
        lacks: Option<&'static str>,
        pending: &Pending,
        code: &Secret,
    ) -> LoginError {
        match error {
            RequestTokenError::ServerResponse(answer) => {
                let sent = [code.expose(), pending.verifier.as_str(), client_secret(self.config())];
                let said = Said::new(answer.error_description().map(String::as_str), &sent);
                match answer.error() {
                    CoreErrorResponseType::InvalidClient | CoreErrorResponseType::UnauthorizedClient => self.broken(
                        &alloc::format!("it refuses this relay's `auth.clientId` or `auth.clientSecret`{said}"),
                    ),
                    code => LoginError::Refused { code: registered(code.as_ref()), said },
                }
            }
            _ => LoginError::Token { cause: lacks.unwrap_or("the answer to the code cannot be read") },
        }
    }

    fn broken(&self, cause: &str) -> LoginError {
        LoginError::Provider { issuer: self.config().issuer.clone(), cause: cause.to_string() }
    }
}

impl Stage {
    const fn waits_for_provider(&self) -> bool {
        match self {
            Self::Redirecting { .. } | Self::Returning { .. } | Self::Rekeying { .. } => true,
            Self::Exchanging { .. } | Self::Asking { .. } => false,
        }
    }
}

type ExchangeError = RequestTokenError<NotRecorded, StandardErrorResponse<CoreErrorResponseType>>;

/// The code that a callback brings, and whether it says (rightly) who issued it.
fn read_callback(query: &str, pending: &Pending, config: &Oidc) -> Result<(Secret, bool), LoginError> {
    let issuer = config.issuer.as_str();
    let (mut state, mut code, mut error, mut said, mut iss) = (None, None, None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let slot = match &*name {
            "state" => &mut state,
            "code" => &mut code,
            "error" => &mut error,
            "error_description" => &mut said,
            "iss" => &mut iss,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(LoginError::Callback);
        }
    }
    // First of all: is this the login that this browser began, and here?
    let state = state.ok_or(LoginError::Callback)?;
    if !bool::from(state.as_bytes().ct_eq(pending.state.as_bytes())) || pending.issuer != issuer {
        return Err(LoginError::Callback);
    }
    // RFC 9207 section 2.4, also for error answers: another provider's answer is none.
    if iss.as_deref().is_some_and(|iss| iss != issuer) {
        let cause = "its answer is another provider's (iss, RFC 9207), and not taken".to_string();
        return Err(LoginError::Provider { issuer: issuer.to_string(), cause });
    }
    let sent = [pending.verifier.as_str(), code.as_deref().unwrap_or_default(), client_secret(config)];
    let said = || Said::new(said.as_deref(), &sent);
    match (error.as_deref(), code.as_deref()) {
        (Some("access_denied"), _) => Err(LoginError::Denied { said: said() }),
        (Some(code), _) => Err(LoginError::Refused { code: registered(code), said: said() }),
        (None, Some(code)) if !code.is_empty() && code.len() <= limits::MAX_CODE => {
            Ok((Secret::new(code), iss.is_some()))
        }
        (None, _) => Err(LoginError::Callback),
    }
}

/// What must not be repeated to anybody; empty for a public client.
fn client_secret(config: &Oidc) -> &str {
    config.client_secret.as_ref().map_or("", Secret::expose)
}

fn authorization_url(known: &Known, pending: &Pending) -> String {
    let (state, nonce) = (CsrfToken::new(pending.state.clone()), Nonce::new(pending.nonce.clone()));
    let verifier = PkceCodeVerifier::new(pending.verifier.clone());
    let scopes = known.scopes.iter().filter(|scope| *scope != "openid").map(|scope| Scope::new(scope.clone()));
    let (url, ..) = known
        .client
        .authorize_url(AuthenticationFlow::<CoreResponseType>::AuthorizationCode, || state, || nonce)
        .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
        .add_scopes(scopes)
        .url();
    url.into()
}

/// Trades the code for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5), as far as `recorded` goes.
fn exchange(
    known: &Known,
    pending: &Pending,
    code: &Secret,
    recorded: &[openidconnect::HttpResponse],
) -> Result<Step<CoreTokenResponse>, ExchangeError> {
    let code = AuthorizationCode::new(code.expose().to_string());
    let verifier = PkceCodeVerifier::new(pending.verifier.clone());
    let request = known.client.exchange_code(code).map_err(|error| RequestTokenError::Other(error.to_string()))?;
    replay::run(recorded, |client| request.set_pkce_verifier(verifier).request(&client))
}

/// The request that trades the code; `None` when the token endpoint is not one that may be given secrets.
fn exchange_request(known: &Known, pending: &Pending, code: &Secret) -> Option<Fetch> {
    match exchange(known, pending, code, &[]) {
        Ok(Step::Wants(request)) => replay::fetch(*request),
        Ok(Step::Done(_)) | Err(_) => None,
    }
}

fn userinfo_request(url: &str, tokens: &CoreTokenResponse) -> Option<Fetch> {
    let url = endpoint::secure(url)?;
    let bearer = alloc::format!("Bearer {}", tokens.access_token().secret());
    let mut bearer = HeaderValue::try_from(bearer).ok()?;
    bearer.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Some(Fetch {
        method: Method::GET,
        url: url.into(),
        headers,
        body: bytes::Bytes::new(),
        timeout: limits::OAUTH_FETCH_TIMEOUT,
        max_body: limits::MAX_OAUTH_ANSWER,
        reach: Reach::Anywhere,
    })
}
