//! The driven machine of a probe.
//!
//! ```text
//!           ┌──────────────────────── answered ───────────────────────┐
//!           ▼                                                         │
//! Idle ─► Asking ── 401, 403 ──► Describing ─► Discovering ─┬─► Listening ─┐
//!           ▲                                               ├──────────────┼─► Registering ─┐
//!           └── Exchanging ◄── Waiting ◄────────────────────┴──────────────┴────────────────┘
//!
//! Asking ─► Visiting, where it is to stay
//! any ─► Revoking ─► Over
//! ```
//!
//! Every failure leads to Over, by way of Revoking when there are tokens: a probe leaves none behind.

mod access;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use url::Url;

use super::challenge::Challenge;
use super::contract::{Action, Entry, Failure, Report, Settings};
use super::registration::Known;
use super::session::{self, Answer, Greeting, Session, Step};
use crate::entropy::{self, Entropy};
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::http::endpoint;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::id::FetchId;
use crate::limits;
use crate::mcp::Version;
use crate::secret::Secret;
use crate::signin::callback::{self, Callback};
use crate::signin::contract::{self as signin, Event};
use crate::signin::metadata::Metadata;
use crate::signin::request;
use crate::signin::tokens::Tokens;
use crate::time::{Deadline, Now};

/// A probe of one endpoint.
pub struct Probe {
    settings: Settings,
    entropy: Box<dyn Entropy>,
    clamp: MonotonicClamp,
    state: State,
    timer: Option<Deadline>,
    out: Mailbox<Action>,
    next_fetch: u64,
    /// What is to be asked, or asked again, of the endpoint.
    step: Step,
    session: Session,
    /// Where the listener is. It stays for all sign-ins, since clients are registered with it.
    port: Option<u16>,
    client: Option<Known>,
    /// What each sign-in brought, the newest last.
    grants: Vec<Grant>,
    /// Every scope that was asked for.
    asked: BTreeSet<String>,
    report: Report,
}

enum State {
    Idle,
    /// The endpoint is asked.
    Asking(FetchId),
    /// The endpoint's description is being fetched; `left` are the places where it may be, too, the next one last.
    Describing {
        fetch: FetchId,
        left: Vec<String>,
        scope: Option<String>,
    },
    /// The issuer's metadata is being fetched.
    Discovering {
        fetch: FetchId,
        left: Vec<String>,
        way: Way,
    },
    /// A port for the browser's answer is wanted.
    Listening(Way, Metadata),
    /// A client is being registered.
    Registering(FetchId, Way, Metadata),
    /// The person is signing in.
    Waiting(Login),
    /// The code is being traded.
    Exchanging(FetchId, Login),
    /// Somebody goes on asking the endpoint.
    Visiting,
    /// The tokens are being given up, then this is what came of it all.
    Revoking(FetchId, Result<Report, Failure>),
    Over,
}

/// What a sign-in is for.
struct Way {
    resource: String,
    issuer: String,
    scope: Option<String>,
}

/// A sign-in in the browser.
struct Login {
    way: Way,
    metadata: Metadata,
    client: Known,
    port: u16,
    state: String,
    verifier: String,
}

/// What a sign-in brought.
struct Grant {
    tokens: Tokens,
    client: Known,
    resource: String,
    revocation: Option<String>,
}

impl Probe {
    /// A probe that has done nothing yet; [`Event::Start`] begins.
    #[must_use]
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Self {
        Self {
            settings,
            entropy,
            clamp: MonotonicClamp::default(),
            state: State::Idle,
            timer: None,
            out: Mailbox::default(),
            next_fetch: 0,
            step: Step::Discover,
            session: Session::default(),
            port: None,
            client: None,
            grants: Vec::new(),
            asked: BTreeSet::new(),
            report: Report::default(),
        }
    }
}

impl Machine for Probe {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let now = self.clamp.clamp(now);
        match event {
            Event::Start { .. } => self.handle_start(),
            Event::Fetched { fetch, result } => self.handle_fetched(fetch, result, now),
            Event::Listening(result) => self.handle_listening(result, now),
            Event::Callback { target } => self.handle_callback(&target),
            Event::Logout { .. } => self.handle_logout(),
            // A probe keeps nothing: it orders none of these.
            Event::Loaded(_) | Event::Saved(_) | Event::Refused | Event::Inquire { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clamp.clamp(now);
        if self.timer.is_some_and(|timer| now.instant >= timer.at) {
            self.finish(Err(Failure::Refused { cause: "nobody signed in within five minutes".into() }));
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
impl Probe {
    fn handle_start(&mut self) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        match self.checked(&self.settings.url) {
            Ok(_) => self.ask(),
            Err(cause) => self.finish(Err(Failure::Local { cause: alloc::format!("{}: {cause}", self.settings.url) })),
        }
    }

    fn handle_fetched(&mut self, fetch: FetchId, result: Result<Fetched, FetchError>, now: Now) {
        if self.state.awaits() != Some(fetch) {
            return;
        }
        match core::mem::replace(&mut self.state, State::Idle) {
            State::Asking(_) => match result {
                Ok(fetched) => self.answered(&fetched),
                Err(error) => self.finish(Err(self.unreachable(&self.settings.url, error.to_string()))),
            },
            State::Describing { left, scope, .. } => self.described(request::judge(result, now.unix), left, scope),
            State::Discovering { left, way, .. } => self.discovered(request::judge(result, now.unix), left, way, now),
            State::Registering(_, way, metadata) => self.registered(result, way, metadata, now),
            State::Exchanging(_, login) => self.exchanged(request::judge(result, now.unix), login, now),
            State::Revoking(_, outcome) => self.finish(outcome),
            other => self.state = other,
        }
    }

    fn handle_listening(&mut self, result: Result<u16, String>, now: Now) {
        match (core::mem::replace(&mut self.state, State::Idle), result) {
            (State::Listening(way, metadata), Ok(port)) => {
                self.port = Some(port);
                self.choose_client(way, metadata, port, now);
            }
            (State::Listening(..), Err(error)) => {
                let cause = alloc::format!("cannot listen for the browser's answer: {error}");
                self.finish(Err(Failure::Local { cause }));
            }
            (other, _) => self.state = other,
        }
    }

    fn handle_logout(&mut self) {
        if matches!(self.state, State::Visiting) {
            let report = core::mem::take(&mut self.report);
            self.finish(Ok(report));
        }
    }

    fn handle_callback(&mut self, target: &str) {
        let judged = match &self.state {
            State::Waiting(login) => callback::judge(target, &login.state, &login.metadata),
            _ => Callback::Foreign,
        };
        match (judged, core::mem::replace(&mut self.state, State::Idle)) {
            (Callback::Code(code), State::Waiting(login)) => {
                self.timer = None;
                self.reply(true, "Almost done", "You can close this window: the program goes on by itself.");
                let client = login.client.asking(&login.way.resource, login.way.scope.as_deref());
                let request = request::exchange(&client, &login.metadata, code.expose(), &login.verifier, login.port);
                let fetch = self.fetch(request);
                self.state = State::Exchanging(fetch, login);
            }
            (Callback::Refused(cause), _) => {
                self.reply(false, "Not signed in", &alloc::format!("The sign-in was refused: {cause}."));
                self.finish(Err(Failure::Refused { cause }));
            }
            (_, state) => {
                self.state = state;
                self.reply(false, "Not found", "There is nothing here.");
            }
        }
    }
}

/// The endpoint.
impl Probe {
    /// Asks what the present step wants to know.
    fn ask(&mut self) {
        let request = self.session.request(&self.step, self.next_fetch, self.token(), &self.settings);
        let fetch = self.fetch(request);
        self.state = State::Asking(fetch);
    }

    fn answered(&mut self, fetched: &Fetched) {
        let challenge = Challenge::read(&fetched.headers);
        match fetched.status {
            StatusCode::UNAUTHORIZED => self.sign_in(challenge, false),
            StatusCode::FORBIDDEN if challenge.error.as_deref() == Some("insufficient_scope") => {
                self.sign_in(challenge, true);
            }
            status if status.is_success() => self.told(fetched),
            // A server that does not know the newest version says so in many ways.
            _ if self.step == Step::Discover => self.go_on(Step::Initialize),
            status => self.finish(Err(self.broken(&alloc::format!("it answered {}", status.as_u16())))),
        }
    }

    fn told(&mut self, fetched: &Fetched) {
        if self.step == Step::Initialized {
            return self.go_on(Step::List { cursor: None, pages: 0 });
        }
        // The request's number was its fetch's.
        let answer = session::answer(fetched, self.next_fetch - 1);
        match (answer, self.step.clone()) {
            (Ok(Answer::Result(result)), Step::Discover) => {
                match Greeting::read(&result).filter(|found| found.version() == Some(Version::V2026_07_28)) {
                    Some(greeting) => self.greeted(greeting, Version::V2026_07_28),
                    None => self.go_on(Step::Initialize),
                }
            }
            (_, Step::Discover) => self.go_on(Step::Initialize),
            (Ok(Answer::Result(result)), Step::Initialize) => {
                self.session.remember(&fetched.headers);
                match Greeting::read(&result).and_then(|found| found.version().map(|version| (found, version))) {
                    Some((greeting, version)) => self.greeted(greeting, version),
                    None => self.finish(Err(self.broken("it chose a version of MCP that is not known here"))),
                }
            }
            (Ok(Answer::Result(result)), Step::List { pages, .. }) => self.listed(&result, pages),
            (Ok(Answer::Result(result)), Step::Call(_)) => {
                self.report.call = Some(session::went_well(&result));
                self.succeed();
            }
            (Ok(Answer::Error(error)), _) => self.finish(Err(self.broken(&alloc::format!("it answered {error}")))),
            (Err(cause), _) => self.finish(Err(self.broken(&cause))),
            (Ok(Answer::Result(_)), Step::Initialized) => self.go_on(Step::List { cursor: None, pages: 0 }),
        }
    }

    fn greeted(&mut self, greeting: Greeting, version: Version) {
        self.session.version = Some(version);
        self.report.version = version.as_str();
        self.report.server = greeting.server();
        let list = Step::List { cursor: None, pages: 0 };
        self.go_on(if version.is_legacy() { Step::Initialized } else { list });
    }

    fn listed(&mut self, result: &[u8], pages: usize) {
        let Some((tools, cursor)) = session::tools(result) else {
            return self.finish(Err(self.broken("its list of tools cannot be read")));
        };
        for tool in tools {
            if tool.only_reads() {
                self.report.read_only.insert(tool.name.clone());
            }
            self.report.tools.push(tool.name);
        }
        self.report.pages = pages + 1;
        if self.report.tools.len() > limits::MAX_TOOLS || pages >= limits::MAX_PAGES {
            return self.finish(Err(self.broken("its list of tools does not end")));
        }
        match (cursor, self.settings.call.clone()) {
            (Some(cursor), _) => self.go_on(Step::List { cursor: Some(cursor), pages: pages + 1 }),
            (None, Some(tool)) => self.go_on(Step::Call(tool)),
            (None, None) => self.succeed(),
        }
    }

    fn go_on(&mut self, step: Step) {
        self.step = step;
        self.ask();
    }

    fn succeed(&mut self) {
        if self.settings.stay {
            self.state = State::Visiting;
            let (session, token) = (self.session.clone(), self.token().cloned());
            let entry = Entry::new(&self.settings, self.report.clone(), session, token, self.next_fetch);
            return self.out.push(Action::Entered(Box::new(entry)));
        }
        let report = core::mem::take(&mut self.report);
        self.finish(Ok(report));
    }

    /// What is shown to the endpoint.
    fn token(&self) -> Option<&Secret> {
        self.grants.last().map(|grant| &grant.tokens.access).or(self.settings.token.as_ref())
    }
}

/// The end, and what all need.
impl Probe {
    /// Gives the tokens up, those of one sign-in after the other, then ends.
    fn finish(&mut self, outcome: Result<Report, Failure>) {
        self.timer = None;
        while let Some(grant) = self.grants.pop() {
            let Some(endpoint) = grant.revocation.as_deref() else { continue };
            let token = grant.tokens.refresh.as_ref().unwrap_or(&grant.tokens.access);
            let fetch = self.fetch(request::revoke(&grant.client.asking(&grant.resource, None), endpoint, token));
            self.state = State::Revoking(fetch, outcome);
            return;
        }
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<Report, Failure>) {
        self.state = State::Over;
        if self.port.take().is_some() {
            self.out.push(Action::Desk(signin::Action::StopListening));
        }
        self.out.push(Action::Done(outcome));
    }

    fn fetch(&mut self, request: Fetch) -> FetchId {
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        self.out.push(Action::Desk(signin::Action::Fetch { fetch, request }));
        fetch
    }

    fn reply(&mut self, ok: bool, title: &str, text: &str) {
        self.out.push(Action::Desk(signin::Action::AnswerCallback(callback::page(ok, title, text))));
    }

    fn draw(&mut self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(entropy::bytes::<32>(&mut *self.entropy))
    }

    /// `text` as a URL that a probe may go to.
    fn checked(&self, text: &str) -> Result<Url, &'static str> {
        let url = endpoint::absolute(text).ok_or("not a URL")?;
        let usable = self.settings.allow_insecure || endpoint::secure(text).is_some();
        usable.then_some(url).ok_or("neither https nor on this machine (`--allow-insecure` if you mean it)")
    }

    fn broken(&self, cause: &str) -> Failure {
        Failure::Broken { url: self.settings.url.clone(), cause: cause.to_string() }
    }

    fn unreachable(&self, url: &str, cause: String) -> Failure {
        Failure::Unreachable { url: url.to_string(), cause }
    }
}

impl State {
    /// The fetch that this state waits for.
    const fn awaits(&self) -> Option<FetchId> {
        match self {
            Self::Asking(fetch)
            | Self::Describing { fetch, .. }
            | Self::Discovering { fetch, .. }
            | Self::Registering(fetch, ..)
            | Self::Exchanging(fetch, _)
            | Self::Revoking(fetch, _) => Some(*fetch),
            Self::Idle | Self::Listening(..) | Self::Waiting(_) | Self::Visiting | Self::Over => None,
        }
    }
}

#[cfg(test)]
impl Probe {
    /// The state's name, for tables.
    pub(super) const fn state_name(&self) -> &'static str {
        match &self.state {
            State::Idle => "idle",
            State::Asking(_) => "asking",
            State::Describing { .. } => "describing",
            State::Discovering { .. } => "discovering",
            State::Listening(..) => "listening",
            State::Registering(..) => "registering",
            State::Waiting(_) => "waiting",
            State::Exchanging(..) => "exchanging",
            State::Visiting => "visiting",
            State::Revoking(..) => "revoking",
            State::Over => "over",
        }
    }
}
