//! The driven machine of the agent's sign-in. It stands alone for `login` and `logout`; an agent has one as a child.
//!
//! ```text
//!        Start            usable                                    timer, Refused
//! Idle ────────► Loading ──────────────────────────────────► Ready ────────────────► Loading
//!                   │ near its end                             ▲
//!                   ├──────► Discovering ──► Refreshing ──► Saving
//!                   │ none                      │ refused      ▲
//!                   │            Loading (once more), then ────┼─ Discovering, Listening … or Failed(NeedsLogin)
//!                   └──────► Discovering ──► Listening ──► Waiting ──► Exchanging
//!
//!                              ╰─ Asking ──► Pending ◄──► Polling ──► Saving      (the person's browser is elsewhere)
//!
//! Idle ── Inquire ──► Loading ──► Discovering ──► Inquiring ──► Idle
//! any ── Logout ──► Loading ──► Discovering ──► Revoking ──► Removing ──► Idle
//! ```
//!
//! Every failure leads to Idle and keeps the tokens, a sign-out's too: what is forgotten here can be revoked by nobody; but while the access token still works, a refresh that cannot be
//! had leads back to Ready and is tried again. Processes that share the file take turns: it is read under a lock, which
//! is held until what came of it is written, so that nobody spends a refresh token that another has spent.

mod device;
mod inquiry;
mod leaving;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::callback::{self, Callback};
pub use super::contract::{Action, CLIENT_ID, Event, Failure, Identity, Leave, Person, Settings};
use super::metadata::{self, Metadata, Rules};
use super::request::{self, Answer};
use super::tokens::Tokens;
use crate::entropy::{self, Entropy};
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::id::FetchId;
use crate::limits;
use crate::secret::Secret;
use crate::time::{Deadline, Instant, Now};

/// The agent's sign-in at its relay.
pub struct Signin {
    settings: Settings,
    entropy: Box<dyn Entropy>,
    clamp: MonotonicClamp,
    state: State,
    timer: Option<Deadline>,
    /// Whether the file is locked.
    locked: bool,
    out: Mailbox<Action>,
    next_fetch: u64,
    /// Who is there to sign in.
    person: Person,
    tokens: Option<Tokens>,
    /// When the relay issued `tokens` in place of ones that it had refused; `None` when they came about otherwise.
    mended: Option<Instant>,
    /// Whether `tokens` could not be written.
    unsaved: bool,
    /// The access token that the relay refused, until there is another.
    refused_access: Option<Secret>,
    /// The refresh token that the relay refused, until there is another.
    refused_refresh: Option<Secret>,
    /// How many refreshes in a row a relay of dialect V1 answered with 500.
    broken: u32,
    /// Whether a sign-out forgets the tokens although the relay does not revoke them.
    force: bool,
    /// Until when the relay wants to be left alone.
    held: Instant,
}

enum State {
    /// Nothing is under way.
    Idle,
    /// The file is being read.
    Loading(Purpose),
    /// The relay's metadata is being fetched.
    Discovering(FetchId, Errand),
    /// The relay is asked for new tokens.
    Refreshing { fetch: FetchId, token: Secret, is_v1: bool },
    /// A port for the browser's answer is wanted.
    Listening(Metadata),
    /// The person is signing in.
    Waiting(Login),
    /// The relay is asked for a code to show.
    Asking(FetchId, Metadata),
    /// The code is shown; the relay is asked again in a while.
    Pending(device::Shown),
    /// The relay is asked whether the person has signed in.
    Polling(FetchId, device::Shown),
    /// The code is being traded.
    Exchanging(FetchId),
    /// New tokens are being written.
    Saving { login: bool },
    /// There is an access token.
    Ready,
    /// The relay is told to forget the tokens.
    Revoking(FetchId),
    /// The file is being removed.
    Removing(Leave),
    /// The relay is asked what the tokens stand for.
    Inquiring { fetch: FetchId, minted: bool },
}

/// What the file is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Any access token that works.
    Token,
    /// A newer access token than the one at hand.
    Renewal,
    /// Tokens to revoke.
    Logout,
    /// Tokens to ask about.
    Inquiry,
}

/// What the metadata is fetched for.
enum Errand {
    Refresh(Secret),
    Login,
    Revoke(Secret),
    Inquire { token: Secret, minted: bool },
}

/// A sign-in in the browser.
struct Login {
    metadata: Metadata,
    port: u16,
    state: String,
    verifier: String,
}

impl Signin {
    /// A sign-in that has done nothing yet; [`Event::Start`] begins.
    #[must_use]
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Self {
        Self {
            settings,
            entropy,
            clamp: MonotonicClamp::default(),
            state: State::Idle,
            timer: None,
            locked: false,
            out: Mailbox::default(),
            next_fetch: 0,
            person: Person::Absent,
            tokens: None,
            mended: None,
            unsaved: false,
            refused_access: None,
            refused_refresh: None,
            broken: 0,
            force: false,
            held: Instant::default(),
        }
    }

    /// Whether somebody has signed in here, now or in an earlier run. The tokens may have run out.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// How long the relay still wants to be left alone, as its last answer said.
    #[must_use]
    pub const fn held(&self, now: Now) -> Duration {
        self.held.saturating_since(now.instant)
    }
}

impl Machine for Signin {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let now = self.clamp.clamp(now);
        match event {
            Event::Start { person } => self.handle_start(person, now),
            Event::Loaded(content) => self.handle_loaded(content.as_deref(), now),
            Event::Saved(result) => self.handle_saved(result, now),
            Event::Fetched { fetch, result } => self.handle_fetched(fetch, result, now),
            Event::Listening(result) => self.handle_listening(result, now),
            Event::Callback { target } => self.handle_callback(&target),
            Event::Refused => self.handle_refused(now),
            Event::Logout { force } => self.handle_logout(force),
            Event::Inquire { minted } => self.handle_inquire(minted),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clamp.clamp(now);
        if self.timer.is_none_or(|timer| now.instant < timer.at) {
            return;
        }
        self.timer = None;
        match core::mem::replace(&mut self.state, State::Idle) {
            State::Ready => self.load(Purpose::Renewal),
            State::Waiting(_) => {
                self.out.push(Action::StopListening);
                self.fail(Failure::Refused { cause: "nobody signed in within five minutes".to_string() });
            }
            State::Pending(shown) => self.poll(shown, now),
            // No other state arms the timer.
            other => self.state = other,
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timer
    }
}

/// Events.
impl Signin {
    fn handle_start(&mut self, person: Person, now: Now) {
        let usable = self.usable(now);
        match self.state {
            State::Idle => {
                self.person = person;
                self.refused_refresh = None;
                match metadata::check_relay(&self.settings) {
                    Ok(()) => self.load(Purpose::Token),
                    Err(cause) => self.not_a_relay(cause),
                }
            }
            State::Ready if usable => {
                self.person = person;
                self.announce();
            }
            State::Ready => {
                self.person = person;
                self.load(Purpose::Token);
            }
            // What is under way answers this too.
            _ if person != Person::Absent => self.person = person,
            _ => {}
        }
    }

    fn handle_loaded(&mut self, content: Option<&[u8]>, now: Now) {
        let State::Loading(purpose) = self.state else { return dropped("loaded") };
        self.locked = true;
        let file = content.and_then(|content| Tokens::from_file(content, &self.settings.relay));
        // Without a file, or when what is newer could not be written into it, what this process knows counts.
        let stale = self.unsaved && self.refused_refresh.is_none();
        let newer = file.is_some() && file != self.tokens && !stale;
        if newer {
            self.tokens = file;
            (self.mended, self.unsaved) = (None, false);
        }
        match purpose {
            Purpose::Logout => self.revoke(content),
            Purpose::Inquiry => self.inquire(),
            Purpose::Token if self.usable(now) => self.ready(now),
            Purpose::Renewal if newer && self.usable(now) => self.ready(now),
            Purpose::Token | Purpose::Renewal => self.refresh(),
        }
    }

    fn handle_saved(&mut self, result: Result<(), String>, now: Now) {
        if matches!(self.state, State::Saving { .. }) {
            self.unsaved = result.is_err();
        }
        match (&self.state, result) {
            (State::Saving { .. }, Ok(())) => self.ready(now),
            (State::Saving { login: true }, Err(error)) => {
                self.fail(Failure::Local { cause: alloc::format!("cannot keep the sign-in: {error}") });
            }
            // Nobody is there to mend it, and what the relay issued works; only a restart will miss it.
            (State::Saving { login: false }, Err(reason)) => {
                tracing::warn!(reason, "tokens could not be saved");
                self.ready(now);
            }
            (State::Removing(leave), Ok(())) => {
                let leave = leave.clone();
                self.enter(State::Idle);
                self.out.push(Action::SignedOut(leave));
            }
            (State::Removing(_), Err(error)) => {
                self.fail(Failure::Local { cause: alloc::format!("cannot remove the kept sign-in: {error}") });
            }
            _ => dropped("saved"),
        }
    }

    fn handle_fetched(&mut self, fetch: FetchId, result: Result<Fetched, FetchError>, now: Now) {
        if self.state.awaits() != Some(fetch) {
            return dropped("fetched");
        }
        let answer = request::judge(result, now.unix);
        if let Answer::Unreachable { held, .. } = answer {
            self.held = now.instant + held;
        }
        match core::mem::replace(&mut self.state, State::Idle) {
            State::Discovering(_, errand) => self.discovered(errand, answer, now),
            State::Refreshing { token, is_v1, .. } => self.refreshed(token, is_v1, answer, now),
            State::Exchanging(_) => self.exchanged(answer, now),
            State::Asking(_, metadata) => self.code_answered(metadata, answer, now),
            State::Polling(_, shown) => self.polled(shown, answer, now),
            State::Inquiring { minted, .. } => self.told(minted, answer),
            State::Revoking(_) => self.revoked(answer),
            other => self.state = other,
        }
    }

    fn handle_listening(&mut self, result: Result<u16, String>, now: Now) {
        let metadata = match core::mem::replace(&mut self.state, State::Idle) {
            State::Listening(metadata) => metadata,
            other => {
                self.state = other;
                return dropped("listening");
            }
        };
        let port = match result {
            Ok(port) => port,
            Err(error) if let Some(endpoint) = metadata.device.clone() => {
                tracing::debug!(reason = error.as_str(), "no way back from a browser");
                return self.ask_code(&endpoint, metadata);
            }
            Err(error) => {
                let cause = alloc::format!("cannot listen for the browser's answer: {error}");
                return self.fail(Failure::Local { cause });
            }
        };
        let (state, verifier) = (self.draw(), self.draw());
        let url = request::authorization_url_for_agent(&self.settings, &metadata, &state, &verifier, port);
        self.enter(State::Waiting(Login { metadata, port, state, verifier }));
        self.timer = Some(Deadline { at: now.instant + limits::LOGIN_TIMEOUT, reason: "sign-in in the browser" });
        self.out.push(Action::OpenBrowser { url });
    }

    fn handle_callback(&mut self, target: &str) {
        let State::Waiting(Login { metadata, port, state, verifier }) = &self.state else {
            return self.answer(false, NOT_FOUND, NOTHING_HERE);
        };
        match callback::judge(target, state, metadata) {
            Callback::Foreign => self.answer(false, NOT_FOUND, NOTHING_HERE),
            Callback::Refused(cause) => {
                self.answer(false, "Not signed in", &alloc::format!("The sign-in was refused: {cause}."));
                self.out.push(Action::StopListening);
                self.fail(Failure::Refused { cause });
            }
            Callback::Code(code) => {
                let request = request::exchange_for_agent(&self.settings, metadata, code.expose(), verifier, *port);
                self.answer(true, "Almost done", "You can close this window: the program goes on by itself.");
                self.out.push(Action::StopListening);
                let fetch = self.fetch(request);
                self.enter(State::Exchanging(fetch));
            }
        }
    }

    fn handle_refused(&mut self, now: Now) {
        if !matches!(self.state, State::Ready) {
            return dropped("refused");
        }
        let futile = |mended: Instant| now.instant.saturating_since(mended) < limits::REFRESH_FUTILE;
        if self.mended.is_some_and(futile) {
            let cause = "the relay does not take the token that it has just issued".to_string();
            return self.fail(Failure::Refused { cause });
        }
        self.refused_access = self.tokens.as_ref().map(|tokens| tokens.access.clone());
        self.load(Purpose::Token);
    }
}

/// Steps.
impl Signin {
    fn load(&mut self, purpose: Purpose) {
        self.enter(State::Loading(purpose));
        self.out.push(Action::Load);
    }

    /// Goes for new tokens with the refresh token, unless the relay has refused that one already.
    fn refresh(&mut self) {
        let token = self.tokens.as_ref().and_then(|tokens| tokens.refresh.clone());
        match token.filter(|token| self.refused_refresh.as_ref() != Some(token)) {
            Some(token) => self.discover(Errand::Refresh(token)),
            None => self.login(),
        }
    }

    fn login(&mut self) {
        match self.person {
            Person::Here | Person::Elsewhere => self.discover(Errand::Login),
            Person::Absent => self.fail(Failure::NeedsLogin { relay: self.settings.relay.clone() }),
        }
    }

    fn discover(&mut self, errand: Errand) {
        let request = request::metadata(&self.settings);
        let fetch = self.fetch(request);
        self.enter(State::Discovering(fetch, errand));
    }

    fn discovered(&mut self, errand: Errand, answer: Answer, now: Now) {
        let metadata = match answer {
            Answer::Ok(fetched) if request::is_page(&fetched.body) => Err(self.odd(request::PAGE)),
            Answer::Ok(fetched) => {
                metadata::read(&fetched.body, &Rules::Relay(&self.settings.relay)).map_err(|cause| self.odd(&cause))
            }
            Answer::Unreachable { cause, .. } => Err(self.unreachable(cause)),
            Answer::Refused(code) => Err(self.odd(&alloc::format!("it answered {code}"))),
            Answer::Odd(cause) => Err(self.odd(&cause)),
        };
        match (errand, metadata) {
            (Errand::Refresh(token), Ok(metadata)) => {
                let fetch = self.fetch(request::refresh(&self.settings, &metadata, &token));
                self.enter(State::Refreshing { fetch, token, is_v1: metadata.is_v1() });
            }
            (Errand::Refresh(_), Err(failure)) => self.postpone(failure, now),
            (Errand::Login, Ok(metadata)) => {
                match metadata.device.clone().filter(|_| self.person == Person::Elsewhere) {
                    Some(endpoint) => self.ask_code(&endpoint, metadata),
                    None => {
                        self.enter(State::Listening(metadata));
                        self.out.push(Action::Listen);
                    }
                }
            }
            (Errand::Login, Err(failure)) => self.fail(failure),
            (Errand::Revoke(token), Ok(metadata)) => self.ask_revocation(metadata.revocation.as_deref(), &token),
            (Errand::Revoke(_), Err(failure)) => self.not_revoked(failure.to_string()),
            (Errand::Inquire { token, minted }, Ok(metadata)) => {
                self.ask_standing(metadata.introspection.as_deref(), &token, minted);
            }
            (Errand::Inquire { .. }, Err(failure)) => self.fail(failure),
        }
    }

    fn refreshed(&mut self, token: Secret, is_v1: bool, answer: Answer, now: Now) {
        let was_broken = core::mem::take(&mut self.broken);
        match answer {
            Answer::Ok(fetched) => match Tokens::from_answer(&fetched, Some(&token), now.unix) {
                Some(tokens) => self.keep(tokens, false, now),
                None => self.postpone(self.odd(request::unreadable(&fetched)), now),
            },
            Answer::Refused(_) => self.refresh_refused(token),
            // A relay of dialect V1 answers so when the grant is gone: with a person there, signing in again is quicker
            // than finding out.
            Answer::Unreachable { broken: true, .. }
                if is_v1 && (self.person != Person::Absent || was_broken + 1 >= limits::REFRESH_BROKEN_MAX) =>
            {
                self.refresh_refused(token);
            }
            Answer::Unreachable { cause, broken, .. } => {
                self.broken = if broken && is_v1 { was_broken + 1 } else { 0 };
                self.postpone(self.unreachable(cause), now);
            }
            Answer::Odd(cause) => self.postpone(self.odd(&cause), now),
        }
    }

    /// Another process may have used the same refresh token a moment ago: its successor is in the file then. Looked up
    /// once; a person has to sign in otherwise.
    fn refresh_refused(&mut self, token: Secret) {
        match self.refused_refresh.replace(token) {
            None => {
                self.refused_access = self.tokens.as_ref().map(|tokens| tokens.access.clone());
                self.load(Purpose::Token);
            }
            Some(_) => self.login(),
        }
    }

    fn exchanged(&mut self, answer: Answer, now: Now) {
        let failure = match answer {
            Answer::Ok(fetched) => match Tokens::from_answer(&fetched, None, now.unix) {
                Some(tokens) => return self.keep(tokens, true, now),
                None => self.odd(request::unreadable(&fetched)),
            },
            Answer::Unreachable { cause, .. } => self.unreachable(cause),
            Answer::Refused(code) => {
                Failure::Refused { cause: alloc::format!("the relay does not take the code: {code}") }
            }
            Answer::Odd(cause) => self.odd(&cause),
        };
        self.fail(failure);
    }

    /// Writes new tokens before they are used: the old refresh token is spent.
    fn keep(&mut self, tokens: Tokens, login: bool, now: Now) {
        let file = tokens.to_file(&self.settings.relay);
        self.tokens = Some(tokens);
        self.mended = self.refused_access.is_some().then_some(now.instant);
        self.enter(State::Saving { login });
        self.out.push(Action::Save(Some(file)));
    }

    fn ready(&mut self, now: Now) {
        self.enter(State::Ready);
        (self.refused_access, self.refused_refresh, self.broken) = (None, None, 0);
        let left = self.tokens.as_ref().map_or(Duration::ZERO, |tokens| tokens.left(now.unix));
        let lead = (left / 5).min(limits::REFRESH_AHEAD_MAX);
        let jitter = entropy::duration_up_to(&mut *self.entropy, lead);
        self.arm_refresh(left.saturating_sub(lead).saturating_sub(jitter), now);
        self.announce();
    }

    fn announce(&mut self) {
        if let Some(tokens) = &self.tokens {
            self.out.push(Action::Ready { access: tokens.access.clone(), expires: tokens.expires });
        }
    }

    /// No new tokens for now. As long as the access token works, that is nobody's concern.
    fn postpone(&mut self, failure: Failure, now: Now) {
        if !self.usable(now) {
            return self.fail(failure);
        }
        tracing::debug!(reason = %failure, "token refresh postponed");
        self.enter(State::Ready);
        let half = limits::REFRESH_RETRY / 2;
        let jitter = entropy::duration_up_to(&mut *self.entropy, half);
        self.arm_refresh((half + jitter).max(self.held(now)), now);
    }

    /// Never sooner than a retry: a relay whose tokens hardly live must not be asked without a pause.
    fn arm_refresh(&mut self, delay: Duration, now: Now) {
        let delay = delay.max(limits::REFRESH_RETRY / 2);
        self.timer = Some(Deadline { at: now.instant + delay, reason: "refresh of the access token" });
    }

    fn fail(&mut self, failure: Failure) {
        self.enter(State::Idle);
        self.out.push(Action::Failed(failure));
    }

    fn enter(&mut self, state: State) {
        if self.locked && !state.keeps_lock() {
            self.locked = false;
            self.out.push(Action::Unlock);
        }
        self.state = state;
        self.timer = None;
    }

    /// Whether the access token at hand is worth a try.
    fn usable(&self, now: Now) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| {
            tokens.left(now.unix) >= limits::ACCESS_LEFT_MIN && self.refused_access.as_ref() != Some(&tokens.access)
        })
    }

    fn answer(&mut self, ok: bool, title: &str, text: &str) {
        self.out.push(Action::AnswerCallback(callback::page(ok, title, text)));
    }

    fn fetch(&mut self, request: Fetch) -> FetchId {
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        self.out.push(Action::Fetch { fetch, request });
        fetch
    }

    fn draw(&mut self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(entropy::bytes::<32>(&mut *self.entropy))
    }

    fn not_a_relay(&mut self, cause: &str) {
        let failure = self.odd(cause);
        self.fail(failure);
    }

    fn odd(&self, cause: &str) -> Failure {
        Failure::NotARelay { relay: self.settings.relay.clone(), cause: cause.to_string() }
    }

    fn unreachable(&self, cause: String) -> Failure {
        Failure::Unreachable { relay: self.settings.relay.clone(), cause }
    }
}

impl State {
    /// The fetch that this state waits for.
    const fn awaits(&self) -> Option<FetchId> {
        match self {
            Self::Discovering(fetch, _)
            | Self::Refreshing { fetch, .. }
            | Self::Exchanging(fetch)
            | Self::Asking(fetch, _)
            | Self::Polling(fetch, _)
            | Self::Inquiring { fetch, .. }
            | Self::Revoking(fetch) => Some(*fetch),
            Self::Idle
            | Self::Loading(_)
            | Self::Listening(_)
            | Self::Waiting(_)
            | Self::Pending(_)
            | Self::Saving { .. }
            | Self::Ready
            | Self::Removing(_) => None,
        }
    }

    /// Whether the file stays locked: something is being done with what was read from it. Never while a person is
    /// waited for.
    const fn keeps_lock(&self) -> bool {
        match self {
            Self::Loading(_)
            | Self::Discovering(_, Errand::Refresh(_) | Errand::Revoke(_) | Errand::Inquire { .. })
            | Self::Refreshing { .. }
            | Self::Saving { login: false }
            | Self::Revoking(_)
            | Self::Inquiring { .. }
            | Self::Removing(_) => true,
            Self::Idle
            | Self::Discovering(_, Errand::Login)
            | Self::Listening(_)
            | Self::Waiting(_)
            | Self::Asking(..)
            | Self::Pending(_)
            | Self::Polling(..)
            | Self::Exchanging(_)
            | Self::Saving { login: true }
            | Self::Ready => false,
        }
    }
}

/// An event that does not fit the state: late, doubled, or nobody's.
fn dropped(event: &'static str) {
    tracing::trace!(event, "sign-in event dropped");
}

const NOT_FOUND: &str = "Not found";
const NOTHING_HERE: &str = "There is nothing here.";

#[cfg(test)]
impl Signin {
    /// The state's name, for tables.
    pub(super) const fn state_name(&self) -> &'static str {
        match &self.state {
            State::Idle => "idle",
            State::Loading(Purpose::Token) => "loading",
            State::Loading(Purpose::Renewal) => "renewing",
            State::Loading(Purpose::Logout) => "leaving",
            State::Discovering(_, Errand::Refresh(_)) => "discovering-refresh",
            State::Discovering(_, Errand::Login) => "discovering-login",
            State::Discovering(_, Errand::Revoke(_)) => "discovering-revoke",
            State::Refreshing { .. } => "refreshing",
            State::Listening(_) => "listening",
            State::Waiting(_) => "waiting",
            State::Exchanging(_) => "exchanging",
            State::Asking(..) => "asking",
            State::Pending(_) => "pending",
            State::Polling(..) => "polling",
            State::Saving { login: true } => "saving-login",
            State::Saving { login: false } => "saving-refresh",
            State::Ready => "ready",
            State::Revoking(_) => "revoking",
            State::Loading(Purpose::Inquiry) => "looking",
            State::Discovering(_, Errand::Inquire { minted: false, .. }) => "discovering-inquiry",
            State::Discovering(_, Errand::Inquire { minted: true, .. }) => "discovering-minted",
            State::Inquiring { minted: false, .. } => "inquiring",
            State::Inquiring { minted: true, .. } => "inquiring-minted",
            State::Removing(_) => "removing",
        }
    }
}
