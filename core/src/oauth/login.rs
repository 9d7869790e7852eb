//! Signing the person in, here (`/login`) or at the provider (`/callback`), and answering the client with a code, or
//! letting the device have its tokens.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::SET_COOKIE;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::account::AccountRequest;
use super::authorize::{forged, random, refuse, stale, too_many};
use super::cookies::{self, Step};
use super::device::DeviceRequest;
use super::families::Family;
use super::grants::{Action, Grants, Pending};
use super::rates::{Kind, Whose};
use super::request::AuthRequest;
use super::{account, pages, spent, text};
use crate::config::Login;
use crate::http::form::Form;
use crate::http::{Reply, RequestHead};
use crate::id::{ExchangeId, UserId};
use crate::limits;
use crate::oidc::allow::{self, Verdict, Vouched};
use crate::oidc::{self, LoginError, LoginId, Output};
use crate::seal::Purpose;
use crate::secret::Secret;
use crate::time::{Now, UnixTime};

/// What a person agrees to and signs in for.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Errand {
    /// A client that waits for a code at its redirect.
    #[serde(rename = "c")]
    Client(AuthRequest),
    /// A device that asks for its tokens itself.
    #[serde(rename = "d")]
    Device(DeviceRequest),
    /// The person's own page. Nobody else gets anything, so that nothing is to be agreed to.
    #[serde(rename = "a")]
    Account(AccountRequest),
}

/// A person who signs in.
pub(super) struct Person {
    /// Who they are.
    pub(super) owner: Owner,
    /// What they call themselves, for their own page.
    pub(super) name: String,
}

/// Whose a grant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// The person.
    pub(super) user: UserId,
    /// What `auth.allow` judges them by; nothing of a user of the embedded login.
    pub(super) vouched: Option<Box<Vouched>>,
}

impl Errand {
    /// When it is too late to go on.
    pub(super) fn until(&self) -> UnixTime {
        UnixTime::from_millis(match self {
            Self::Client(request) => request.until,
            Self::Device(request) => request.until,
            Self::Account(request) => request.until,
        })
    }

    /// Whether it may still go on.
    pub(super) fn is_fresh(&self, now: UnixTime) -> bool {
        now < self.until()
    }
}

/// An errand on its way through the login: sealed in a cookie, so that a relay that restarts meanwhile does not matter.
#[derive(Clone, Serialize, Deserialize)]
struct Flow {
    #[serde(rename = "q")]
    errand: Errand,
    /// What the way back from the provider is judged by; none for the embedded login.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pending: Option<oidc::Pending>,
}

/// A login that waits for the relying party.
pub(super) struct Waiting {
    exchange: ExchangeId,
    peer: IpAddr,
    errand: Errand,
    /// The cookie to remove when it is over.
    cookie: Option<String>,
}

/// A password that is being checked.
pub(super) struct Attempt {
    exchange: ExchangeId,
    peer: IpAddr,
    errand: Errand,
    /// The login page's handle and token, to show it again.
    flow: String,
    csrf: String,
    /// The name of the user whose password it may be; none for an unknown one.
    user: Option<String>,
    /// Whether it counts as a guess of a stranger's: see [`Grants::may_guess_password`].
    stranger: bool,
}

impl Grants {
    /// The person agreed: on to the login page or to the provider.
    pub(super) fn start_login(&mut self, exchange: ExchangeId, peer: IpAddr, errand: Errand, now: Now) {
        if self.party.is_none() {
            let flow = random(&mut *self.entropy);
            let url = self.settings.url(&alloc::format!("/login?flow={flow}"));
            let reply = self.with_flow_cookie(pages::see_other(&url), &flow, &Flow { errand, pending: None });
            return self.reply(exchange, reply);
        }
        if let Some(login) = self.wait_for_party(Waiting { exchange, peer, errand, cookie: None }, now)
            && let Some(party) = &mut self.party
        {
            party.start(login, now, &mut *self.entropy, &mut self.next_fetch);
            self.drain_party(now);
        }
    }

    /// Answers `GET /login`.
    pub(super) fn login_page(&self, head: &RequestHead, now: Now) -> Reply {
        let fields = Form::parse(head.uri.query().unwrap_or_default()).unwrap_or_default();
        match fields.get("flow").and_then(|flow| Some((flow, self.open_flow(head, flow, now)?))) {
            Some((flow, (cookie, _))) => pages::login(&self.settings, flow, &self.csrf(flow, &cookie), None),
            None => stale(),
        }
    }

    /// Answers `POST /login`, as a rule after [`Action::Verify`].
    pub(super) fn login(&mut self, exchange: ExchangeId, head: &RequestHead, body: &[u8], now: Now) {
        match self.read_login(exchange, head, body, now) {
            Ok((attempt, password)) => self.verify(attempt, password, now),
            Err(reply) => self.reply(exchange, reply),
        }
    }

    /// A password check ended.
    pub(super) fn verified(&mut self, attempt: Attempt, ok: bool, now: Now) {
        let Some(user) = attempt.user.as_ref().filter(|_| ok) else {
            info!(reason = "wrong name or password", "sign-in refused");
            let known = attempt.user.map(|name| UserId::from(alloc::format!("local:{name}")));
            self.note_no_sign_in(known.as_ref(), "wrong-password", Some(attempt.peer), now);
            let problem = (StatusCode::FORBIDDEN, "The user name or the password is wrong.");
            let reply = pages::login(&self.settings, &attempt.flow, &attempt.csrf, Some(problem));
            return self.reply(attempt.exchange, reply);
        };
        self.guessed_password(user, &attempt, now);
        if !self.spent.spend(spent::Kind::Login, &attempt.flow, attempt.errand.until(), now.unix) {
            return self.reply(attempt.exchange, stale());
        }
        let cookie = cookies::name(&self.settings, Step::Login, &attempt.flow);
        let owner = Owner { user: UserId::from(alloc::format!("local:{user}")), vouched: None };
        let person = Person { owner, name: user.clone() };
        self.signed_in((attempt.exchange, attempt.peer), attempt.errand, person, Some(&cookie), now);
    }

    /// Answers `GET /callback`: the browser is back from the provider.
    pub(super) fn callback(&mut self, exchange: ExchangeId, head: &RequestHead, now: Now) {
        if !self.rates.take(Kind::Authorize, head.peer, now.instant) {
            return self.reply(exchange, too_many());
        }
        let query = head.uri.query().unwrap_or_default();
        let flow = oidc::state_of(query).and_then(|state| Some((self.open_flow(head, &state, now)?.1, state)));
        let Some((Flow { errand, pending: Some(pending) }, state)) = flow else {
            return self.reply(exchange, stale());
        };
        // Once, whatever comes of it: the provider's answer to it was for this browser's one sign-in.
        self.spent.spend(spent::Kind::Login, &state, errand.until(), now.unix);
        let cookie = cookies::name(&self.settings, Step::Login, &state);
        if let Some(login) =
            self.wait_for_party(Waiting { exchange, peer: head.peer, errand, cookie: Some(cookie) }, now)
            && let Some(party) = &mut self.party
        {
            party.callback(login, pending, query, now, &mut self.next_fetch);
            self.drain_party(now);
        }
    }

    /// Carries out what the relying party says.
    pub(super) fn drain_party(&mut self, now: Now) {
        while let Some(output) = self.party.as_mut().and_then(oidc::RelyingParty::poll) {
            match output {
                Output::Fetch { fetch, request } => self.out.push(Action::Fetch { fetch, request }),
                Output::Redirect { login, url, pending } => {
                    let Some(waiting) = self.logins.remove(&login) else { continue };
                    let state = pending.state().to_string();
                    let flow = Flow { errand: waiting.errand, pending: Some(pending) };
                    let reply = self.with_flow_cookie(pages::see_other(&url), &state, &flow);
                    self.reply(waiting.exchange, reply);
                }
                Output::SignedIn { login, identity } => {
                    let Some(waiting) = self.logins.remove(&login) else { continue };
                    let cookie = waiting.cookie.as_deref();
                    let oidc::Identity { user, claim, name, vouched } = identity;
                    let name = vouched.email.clone().or(name).unwrap_or(claim);
                    let owner = Owner { user, vouched: Some(Box::new(vouched)) };
                    let from = (waiting.exchange, waiting.peer);
                    self.signed_in(from, waiting.errand, Person { owner, name }, cookie, now);
                }
                Output::Failed { login, error } => {
                    let Some(waiting) = self.logins.remove(&login) else { continue };
                    self.login_failed(&waiting, &error, now);
                }
            }
        }
    }

    /// What the configured login says of a user now, whatever it said when they signed in.
    pub(super) fn standing_of(&self, user: &str, vouched: Option<&Vouched>) -> Verdict {
        match &self.settings.login {
            Login::Local(local) => {
                let name = user.strip_prefix("local:");
                let known = name.is_some_and(|name| local.users.iter().any(|one| one.name == name));
                if known { Verdict::Allowed } else { Verdict::Excluded }
            }
            Login::Oidc(oidc) => {
                let claim = user.strip_prefix(oidc.issuer.as_str()).and_then(|rest| rest.strip_prefix('#'));
                claim.map_or(Verdict::Excluded, |claim| allow::judge(oidc, claim, vouched))
            }
        }
    }

    /// Whether a family's person may still use the relay. Who cannot be judged may: see [`Verdict::Unknown`].
    pub(super) fn is_welcome(&self, family: &Family) -> bool {
        self.standing_of(&family.user, family.vouched.as_deref()) != Verdict::Excluded
    }

    fn read_login(
        &mut self,
        exchange: ExchangeId,
        head: &RequestHead,
        body: &[u8],
        now: Now,
    ) -> Result<(Attempt, Secret), Reply> {
        if !self.site.is_own_form(head) {
            return Err(forged());
        }
        let fields = Form::parse(body).map_err(|_| refuse("The form is malformed."))?;
        let flow = fields.get("flow").ok_or_else(stale)?;
        let (cookie, Flow { errand, .. }) = self.open_flow(head, flow, now).ok_or_else(stale)?;
        let tag = URL_SAFE_NO_PAD.decode(fields.get("csrf").unwrap_or_default()).unwrap_or_default();
        if !self.sealer.is_mac(Purpose::Csrf, &protected(flow, &cookie), &tag) {
            return Err(forged());
        }
        let csrf = self.csrf(flow, &cookie);
        let page = |status, message| pages::login(&self.settings, flow, &csrf, Some((status, message)));
        let (Some(user), Some(password)) = (fields.get("user"), fields.secret("password")) else {
            return Err(page(StatusCode::BAD_REQUEST, "Enter your user name and your password."));
        };
        if password.expose().len() > MAX_PASSWORD {
            return Err(page(StatusCode::BAD_REQUEST, "The password is too long."));
        }
        let stranger = !self.places.knows(Whose::account(user), head.peer, now.instant);
        let busy = self.pending.len() >= limits::MAX_VERIFIES;
        if busy || !self.may_guess_password(user, head.peer, stranger, now) {
            let page =
                |message| pages::login(&self.settings, flow, &csrf, Some((StatusCode::TOO_MANY_REQUESTS, message)));
            return Err(page("Too many attempts. Wait a minute, then try again."));
        }
        let known = match &self.settings.login {
            Login::Local(local) => local.users.iter().any(|one| one.name == user),
            Login::Oidc(_) => false,
        };
        let (flow, user) = (flow.to_string(), known.then(|| user.to_string()));
        Ok((Attempt { exchange, peer: head.peer, errand, flow, csrf, user, stranger }, password))
    }

    /// Whether one more password may be tried: from there, for that account, and by all together, since whoever has many
    /// addresses has many buckets. The latter two are not for whoever comes from where the account's person signed in
    /// lately: strangers who guess must not be able to lock them out.
    fn may_guess_password(&mut self, user: &str, peer: IpAddr, stranger: bool, now: Now) -> bool {
        if !self.rates.take(Kind::Login, peer, now.instant) {
            return false;
        }
        if !stranger {
            return true;
        }
        let account = self.rates.take(Kind::AccountLogin, Whose::account(user), now.instant);
        if account && self.rates.take(Kind::Logins, Whose::Everybody, now.instant) {
            return true;
        }
        // Nothing was tried.
        self.rates.give_back(Kind::Login, peer, now.instant);
        if account {
            self.rates.give_back(Kind::AccountLogin, Whose::account(user), now.instant);
        }
        false
    }

    /// The password was right: it does not count, and its person is known there from now on.
    fn guessed_password(&mut self, user: &str, attempt: &Attempt, now: Now) {
        self.rates.give_back(Kind::Login, attempt.peer, now.instant);
        if attempt.stranger {
            self.rates.give_back(Kind::AccountLogin, Whose::account(user), now.instant);
            self.rates.give_back(Kind::Logins, Whose::Everybody, now.instant);
        }
        self.places.note(Whose::account(user), attempt.peer, now.instant);
    }

    /// Orders the password check. An unknown user's password is checked too, against another's hash whose answer does
    /// not count: the time it takes must not tell who exists.
    fn verify(&mut self, attempt: Attempt, password: Secret, now: Now) {
        let Login::Local(local) = &self.settings.login else { return self.verified(attempt, false, now) };
        let named = local.users.iter().find(|one| Some(&one.name) == attempt.user.as_ref());
        let Some(hash) = named.or(local.users.first()).map(|user| user.password_hash.clone()) else {
            return self.verified(attempt, false, now);
        };
        let job = self.next_job();
        self.pending.insert(job, Pending::Verify(attempt));
        self.out.push(Action::Verify { job, password, hash });
    }

    fn wait_for_party(&mut self, waiting: Waiting, now: Now) -> Option<LoginId> {
        if self.logins.len() >= limits::MAX_LOGINS {
            self.login_failed(&waiting, &LoginError::Busy, now);
            return None;
        }
        let login = LoginId(self.next_login);
        self.next_login = self.next_login.wrapping_add(1);
        self.logins.insert(login, waiting);
        Some(login)
    }

    fn login_failed(&mut self, waiting: &Waiting, error: &LoginError, now: Now) {
        let known = match error {
            LoginError::NotAllowed { user, .. } => Some(user),
            _ => None,
        };
        self.note_no_sign_in(known, &text::clean(&error.to_string(), MAX_REASON), Some(waiting.peer), now);
        warn!(reason = %error, "sign-in at the provider failed");
        let code = error.oauth_code();
        let status = match code {
            "access_denied" => StatusCode::FORBIDDEN,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        let mut reply = match &waiting.errand {
            Errand::Client(request) => {
                let back = request.answer(&self.settings, &[("error", code)]);
                pages::error(status, &sentence(error), Some(&back))
            }
            // The device goes on waiting: its person may try again.
            Errand::Device(_) => pages::error(status, &sentence(error), None),
            Errand::Account(_) => account::trouble(&self.settings, status, &sentence(error)),
        };
        if let Some(cookie) = &waiting.cookie {
            reply.headers.append(SET_COOKIE, cookies::clear(&self.settings, cookie));
        }
        self.reply(waiting.exchange, reply);
    }

    /// The person is signed in: back to the client, with a code; or the device may have its tokens; or on to their page.
    fn signed_in(
        &mut self,
        (exchange, peer): (ExchangeId, IpAddr),
        errand: Errand,
        person: Person,
        cookie: Option<&str>,
        now: Now,
    ) {
        let user = &person.owner.user;
        self.note_sign_in(user, &errand, peer, now);
        let mut reply = match errand {
            Errand::Client(request) => {
                info!(user = %self.pseudonym(user), client = %request.client, "signed in");
                let code = self.codes.issue(request.clone(), person.owner.clone(), now.instant, &mut *self.entropy);
                pages::see_other(&request.answer(&self.settings, &[("code", &code)]))
            }
            Errand::Device(request) => self.device_approved(&request, &person.owner, now),
            Errand::Account(_) => self.open_account(&person, now),
        };
        if let Some(cookie) = cookie {
            reply.headers.append(SET_COOKIE, cookies::clear(&self.settings, cookie));
        }
        self.reply(exchange, reply);
    }

    /// The cookie and what it carries, if this browser has the flow, it is not too old, and it was not answered before.
    fn open_flow(&self, head: &RequestHead, handle: &str, now: Now) -> Option<(String, Flow)> {
        let cookie = cookies::get(head, &cookies::name(&self.settings, Step::Login, handle))?;
        let plain = self.sealer.open(Purpose::LoginState, handle.as_bytes(), cookie).ok()?;
        let flow: Flow = serde_json::from_slice(&plain).ok()?;
        let good = flow.errand.is_fresh(now.unix) && !self.spent.has(spent::Kind::Login, handle);
        good.then(|| (cookie.to_string(), flow))
    }

    fn with_flow_cookie(&mut self, mut reply: Reply, handle: &str, flow: &Flow) -> Reply {
        let plain = serde_json::to_vec(flow).expect("strings and numbers always serialise");
        let value = self.sealer.seal(Purpose::LoginState, handle.as_bytes(), &plain, &mut *self.entropy);
        if value.len() > cookies::MAX_VALUE {
            return refuse("The program's request is too long.");
        }
        let name = cookies::name(&self.settings, Step::Login, handle);
        reply.headers.append(SET_COOKIE, cookies::set(&self.settings, &name, &value));
        reply
    }

    /// What the login form must bring back: only a page of ours, shown to this browser, can know it.
    fn csrf(&self, flow: &str, cookie: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.sealer.mac(Purpose::Csrf, &protected(flow, cookie)))
    }
}

/// What the login form's token vouches for.
fn protected(flow: &str, cookie: &str) -> alloc::vec::Vec<u8> {
    alloc::format!("{flow}.{cookie}").into_bytes()
}

/// An error as a sentence.
fn sentence(error: &LoginError) -> String {
    let text = text::clean(&error.to_string(), MAX_REASON);
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    alloc::format!("{first}{}.", characters.as_str())
}

/// A sentence of ours, and one of the provider's.
const MAX_REASON: usize = 400;
/// Longer ones only cost time to hash.
const MAX_PASSWORD: usize = 1_024;
