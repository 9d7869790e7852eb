//! People with browsers: they sign in at a provider, clients are given grants, and those must open what they are for, for
//! as long as they are good, and nothing after.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use ring::digest;
use serde_json::{Value, json};
use tunnel_core::http::form;
use tunnel_core::id::ExchangeId;

use super::faults::Undo;
use super::plan::Act;
use super::stage::{Stage, USERS};
use crate::Client;
use crate::browser::{Browser, field, location, post_form, post_json};
use crate::client::{Exchange, Outcome};
use crate::disk::Health;
use crate::provider::{BAD_MOODS, Mood};

/// Sign-ins and grants.
#[derive(Debug, Default)]
pub(super) struct Office {
    flows: Vec<Flow>,
    grants: Vec<Grant>,
    waiting: BTreeMap<ExchangeId, Web>,
}

/// A sign-in under way.
#[derive(Debug)]
struct Flow {
    user: &'static str,
    browser: Browser,
    client: String,
    /// What the browser takes back from the provider.
    query: String,
    code: String,
    is_done: bool,
}

/// What a client was given.
#[derive(Debug)]
struct Grant {
    user: &'static str,
    client: String,
    code: String,
    access: String,
    refresh: String,
    /// Refresh tokens from before, the oldest first.
    older: Vec<Old>,
    state: State,
    /// Dead for certain from then on: what ends a family is on the disk by then.
    dead_from: u64,
    /// In which life of the relay its code was redeemed, and when.
    redeemed: (u64, u64),
    /// The relay's clock when the access token was given, in milliseconds.
    given_at: u64,
    /// Something about it is under way.
    is_busy: bool,
}

/// A refresh token that another has taken the place of.
#[derive(Debug, Clone)]
struct Old {
    token: String,
    /// When the next one was asked for, and when it was there, by the relay's clock.
    superseded: (u64, u64),
    /// How far the relay's clock was set then, in milliseconds.
    set_ms: i64,
    /// How often it was used since.
    uses: u32,
}

/// What a refresh token is, when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Newest,
    /// Real clients refresh in parallel, and answers get lost: it works.
    InGrace,
    /// Only a thief comes with it: it does not work, and nothing of its family does from then on.
    Late,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Doubtful,
    Dead,
}

/// What an exchange is a part of.
#[derive(Debug, Clone, Copy)]
enum Web {
    Registers(usize),
    Consents(usize),
    Agrees(usize),
    CallsBack(usize),
    Redeems(usize),
    Uses(usize, State),
    /// With what kind of token, what the grant was then, and when by the relay's clock.
    Refreshes(usize, Age, State, u64),
    Revokes(usize),
    RedeemsAgain(usize),
}

const REDIRECT: &str = "https://client.example/callback";
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more-0";
const STATE: &str = "opaque";

impl Office {
    pub(super) fn awaits(&self, exchange: ExchangeId) -> bool {
        self.waiting.contains_key(&exchange)
    }

    /// The relay's disk is gone, and with it every grant.
    pub(super) fn all_is_lost(&mut self) {
        self.grants.iter_mut().for_each(|grant| grant.state = State::Dead);
    }

    /// What was under way may have been done, or not.
    pub(super) fn relay_died(&mut self, now: u64) {
        for grant in self.grants.iter_mut().filter(|grant| grant.is_busy && grant.state == State::Good) {
            grant.state = State::Doubtful;
        }
        self.is_in_doubt(now);
    }

    /// Whether an end that was not on the disk yet ever gets there.
    pub(super) fn is_in_doubt(&mut self, now: u64) {
        for grant in self.grants.iter_mut().filter(|grant| grant.state == State::Dead && now < grant.dead_from) {
            grant.state = State::Doubtful;
        }
    }
}

impl Grant {
    /// Its family ends: for certain once that is on a disk that takes it.
    fn ends(&mut self, is_disk_good: bool, now: u64) {
        if self.state != State::Dead {
            self.state = if is_disk_good { State::Dead } else { State::Doubtful };
            self.dead_from = now + ENDED_BY;
        }
    }

    /// What is known of it for certain.
    fn known(&self, now: u64) -> State {
        if self.state == State::Dead && now < self.dead_from { State::Doubtful } else { self.state }
    }

    /// What the old token of that index is at `unix`.
    fn age(&self, index: usize, unix: u64, set_ms: i64, is_steady: bool) -> Age {
        let Some(old) = self.older.get(index) else { return Age::Unknown };
        let (asked, answered) = old.superseded;
        let is_remembered = self.older.len() - index <= REMEMBERED && old.uses < USES_IN_GRACE;
        // A clock that was set does not tell how old a token is.
        if unix > answered + GRACE_MS && old.set_ms == set_ms {
            Age::Late
        } else if unix + 1_000 < asked + GRACE_MS && is_remembered && is_steady {
            Age::InGrace
        } else {
            Age::Unknown
        }
    }
}

impl Stage {
    /// Does what people with browsers and the provider do; `false`: it is something else.
    pub(super) fn sign_in_act(&mut self, act: &Act) -> bool {
        match *act {
            Act::SignIn { .. } | Act::Grant { .. } | Act::Mood { .. } | Act::Rotate { .. } if !self.setup.provider => {}
            Act::SignIn { second_user } => self.sign_in(USERS[usize::from(second_user)]),
            Act::Grant { which, how } => {
                if let Some(grant) = usize::from(which).checked_rem(self.office.grants.len()) {
                    self.use_grant(grant, how);
                }
            }
            Act::Mood { mood, ms } => {
                self.world.provider.mood = BAD_MOODS[usize::from(mood) % BAD_MOODS.len()];
                self.later(Duration::from_millis(ms.into()), Undo::ProviderIsGood);
            }
            Act::Rotate { keep } => {
                let provider = &mut self.world.provider;
                provider.generation = provider.generation.wrapping_add(1) % 100;
                provider.keeps_old = keep;
                self.world.trace.cover("the provider has a new key");
            }
            _ => return false,
        }
        true
    }

    /// A client registers itself and sends a person to the relay.
    fn sign_in(&mut self, user: &'static str) {
        let (browser, client, query, code) = (Browser::default(), String::new(), String::new(), String::new());
        self.office.flows.push(Flow { user, browser, client, query, code, is_done: false });
        let metadata = json!({"client_name": "A client", "redirect_uris": [REDIRECT]});
        let exchange = post_json(&mut self.world, "/register", &metadata);
        self.office.waiting.insert(exchange, Web::Registers(self.office.flows.len() - 1));
    }

    fn use_grant(&mut self, index: usize, how: u8) {
        let (now, unix, is_steady) = (self.world.micros(), self.world.relay_unix(), self.oracle.is_steady());
        let set_ms = self.world.relay_clock.wall_ms;
        let grant = &mut self.office.grants[index];
        let (client, refresh) = (grant.client.clone(), grant.refresh.clone());
        let known = grant.known(now);
        let (exchange, web) = match how % 10 {
            0..3 => {
                let state = self.access_state(index);
                let mut client = Client::modern(&self.office.grants[index].access);
                let exchange = client.request(&mut self.world, "tools/list", &json!({}));
                self.office.waiting.insert(exchange, Web::Uses(index, state));
                return;
            }
            _ if grant.is_busy => return,
            3..6 => {
                (self.post_token(&refresh_form(&client, &refresh)), Web::Refreshes(index, Age::Newest, known, unix))
            }
            how @ (6 | 7) => {
                let at = if how == 6 { 0 } else { grant.older.len().saturating_sub(1) };
                let age = grant.age(at, unix, set_ms, is_steady);
                let Some(old) = grant.older.get_mut(at) else { return };
                old.uses += 1;
                let old = old.token.clone();
                (self.post_token(&refresh_form(&client, &old)), Web::Refreshes(index, age, known, unix))
            }
            8 => {
                let fields = [("client_id", client.as_str()), ("token", refresh.as_str())];
                (post_form(&mut self.world, "/revoke", &fields), Web::Revokes(index))
            }
            _ => {
                let code = grant.code.clone();
                (self.post_token(&redemption(&client, &code)), Web::RedeemsAgain(index))
            }
        };
        let grant = &mut self.office.grants[index];
        grant.is_busy = true;
        if !matches!(web, Web::Refreshes(_, Age::Newest, ..)) && grant.state == State::Good {
            grant.state = State::Doubtful;
        }
        self.office.waiting.insert(exchange, web);
    }

    fn post_token(&mut self, fields: &[(&str, &str)]) -> ExchangeId {
        post_form(&mut self.world, "/token", fields)
    }

    /// Whether a grant's access token opens now: it lives for an hour.
    fn access_state(&self, index: usize) -> State {
        let grant = &self.office.grants[index];
        let age = self.world.relay_unix().saturating_sub(grant.given_at);
        match grant.known(self.world.micros()) {
            State::Good if age < 3_500_000 && self.oracle.is_steady_since(grant.given_at) => State::Good,
            State::Good if age > 3_700_000 => State::Dead,
            State::Good => State::Doubtful,
            state => state,
        }
    }

    /// The provider is done with a person: the browser goes back to the relay.
    pub(super) fn comes_back(&mut self, index: usize) {
        let flow = &self.office.flows[index];
        let link = format!("/callback?{}", flow.query);
        let exchange = flow.browser.get(&mut self.world, &link);
        self.office.waiting.insert(exchange, Web::CallsBack(index));
    }

    /// Something of all that was answered, or cut off.
    pub(super) fn web_answered(&mut self, exchange: ExchangeId, reply: &Exchange, outcome: Outcome) {
        let Some(web) = self.office.waiting.remove(&exchange) else { return };
        let is_whole = outcome == Outcome::Complete;
        match web {
            Web::Registers(flow) if is_whole => self.registered(flow, reply),
            Web::Consents(flow) if is_whole => self.consents(flow, reply),
            Web::Agrees(flow) if is_whole => self.goes_to_provider(flow, reply),
            Web::CallsBack(flow) if is_whole => self.called_back(flow, reply),
            Web::Redeems(flow) if is_whole => self.redeemed(flow, reply),
            Web::Registers(_) | Web::Consents(_) | Web::Agrees(_) | Web::CallsBack(_) | Web::Redeems(_) => {}
            Web::Uses(grant, state) => self.used(grant, state, reply),
            Web::Refreshes(grant, age, before, asked) => self.refreshed(grant, (age, before, asked), reply),
            Web::Revokes(grant) => {
                self.office.grants[grant].is_busy = false;
                if reply.status == Some(StatusCode::OK) {
                    self.world.trace.cover("a grant was given up");
                    let grant = &mut self.office.grants[grant];
                    (grant.state, grant.dead_from) = (State::Dead, 0);
                }
            }
            Web::RedeemsAgain(grant) => {
                let (now, life, is_disk_good) = (self.world.micros(), self.world.disk.life(), self.is_disk_good());
                let grant = &mut self.office.grants[grant];
                grant.is_busy = false;
                assert_ne!(reply.status, Some(StatusCode::OK), "a code works twice: {reply:?}");
                let (redeemed_in, at) = grant.redeemed;
                if reply.status == Some(StatusCode::BAD_REQUEST) && redeemed_in == life && now < at + REMEMBERS_CODES {
                    self.world.trace.cover("a code that was used again ended its family");
                    grant.ends(is_disk_good, now);
                }
            }
        }
    }

    fn registered(&mut self, index: usize, reply: &Exchange) {
        let Some(client) = text(reply, "client_id") else { return };
        let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()));
        let fields = [
            ("client_id", client.as_str()),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("state", STATE),
        ];
        let link = form::append_query("/authorize", fields);
        let flow = &mut self.office.flows[index];
        flow.client.clone_from(&client);
        let exchange = flow.browser.get(&mut self.world, &link);
        self.office.waiting.insert(exchange, Web::Consents(index));
    }

    fn consents(&mut self, index: usize, page: &Exchange) {
        if page.status != Some(StatusCode::OK) {
            return;
        }
        let flow = &mut self.office.flows[index];
        flow.browser.keep(page);
        let exchange = flow.browser.submit(&mut self.world, "/consent", page, &[("decision", "allow")]);
        self.office.waiting.insert(exchange, Web::Agrees(index));
    }

    fn goes_to_provider(&mut self, index: usize, reply: &Exchange) {
        let flow = &mut self.office.flows[index];
        flow.browser.keep(reply);
        let Some(link) = location(reply).filter(|link| link.starts_with(crate::provider::ISSUER)) else {
            return self.world.trace.cover("a sign-in failed before the provider");
        };
        flow.query = self.world.provider.authorize(&link, flow.user);
        self.later(Duration::from_millis(1_500), Undo::ComesBack(index));
    }

    fn called_back(&mut self, index: usize, reply: &Exchange) {
        let flow = &mut self.office.flows[index];
        flow.browser.keep(reply);
        let back = location(reply).filter(|link| link.starts_with(REDIRECT));
        let code = back.as_deref().and_then(|link| field(link, "code"));
        let Some(code) = code else { return self.world.trace.cover("a sign-in failed after the provider") };
        let has_vouched = self.world.provider.has_vouched(&flow.query);
        assert!(has_vouched, "the provider has not vouched for {}: {back:?}", flow.user);
        let link = back.as_deref().unwrap_or_default();
        assert_eq!(field(link, "state"), Some(STATE), "the client's state comes back: {link}");
        assert!(field(link, "iss").is_some(), "and says who it is from: {link}");
        flow.code = code.to_owned();
        let (client, code) = (flow.client.clone(), flow.code.clone());
        let exchange = self.post_token(&redemption(&client, &code));
        self.office.waiting.insert(exchange, Web::Redeems(index));
    }

    fn redeemed(&mut self, index: usize, reply: &Exchange) {
        let (Some(access), Some(refresh)) = (text(reply, "access_token"), text(reply, "refresh_token")) else {
            return self.world.trace.cover("a code was not redeemed");
        };
        self.world.trace.cover("somebody signed in at the provider");
        let given_at = self.world.relay_unix();
        let flow = &mut self.office.flows[index];
        flow.is_done = true;
        let (user, client, code) = (flow.user, flow.client.clone(), flow.code.clone());
        let (older, state) = (Vec::new(), State::Good);
        let (redeemed, dead_from, is_busy) = ((self.world.disk.life(), self.world.micros()), 0, false);
        let grant = Grant { user, client, code, access, refresh, older, state, dead_from, redeemed, given_at, is_busy };
        self.office.grants.push(grant);
    }

    fn used(&mut self, index: usize, state: State, reply: &Exchange) {
        let grant = &self.office.grants[index];
        super::run::no_word_of_others(grant.user, &reply.body);
        let Some(status) = reply.status else { return };
        match state {
            State::Good => assert!(status != StatusCode::UNAUTHORIZED, "a good grant was refused: {grant:?}"),
            State::Dead => assert!(
                matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS),
                "a dead grant opens: {status} {grant:?}"
            ),
            State::Doubtful => {}
        }
    }

    fn is_disk_good(&self) -> bool {
        matches!(self.world.disk.health, Health::Good | Health::Slow(_))
    }

    /// A refresh token works for as long as it is the newest, and within its grace; after that it ends its family.
    fn refreshed(&mut self, index: usize, (age, before, asked): (Age, State, u64), reply: &Exchange) {
        let (given_at, now, is_disk_good) = (self.world.relay_unix(), self.world.micros(), self.is_disk_good());
        let set_ms = self.world.relay_clock.wall_ms;
        let grant = &mut self.office.grants[index];
        grant.is_busy = false;
        if let (Some(access), Some(refresh)) = (text(reply, "access_token"), text(reply, "refresh_token")) {
            assert!(before != State::Dead, "a dead grant was refreshed: {grant:?}");
            assert!(age != Age::Late, "an old refresh token works after its grace: {grant:?}");
            self.world.trace.cover(match age {
                Age::Newest => "a grant was refreshed",
                _ => "an old token refreshed within its grace",
            });
            let token = std::mem::replace(&mut grant.refresh, refresh);
            // It may have been superseded before, by one whose answer was lost.
            let asked = if before == State::Good { asked } else { 0 };
            // What an old one brings is of the same generation as the newest.
            if age == Age::Newest {
                grant.older.push(Old { token, superseded: (asked, given_at), set_ms, uses: 0 });
            }
            (grant.access, grant.given_at, grant.state) = (access, given_at, State::Good);
            return;
        }
        if reply.status != Some(StatusCode::BAD_REQUEST) {
            if grant.state == State::Good {
                grant.state = State::Doubtful;
            }
            return;
        }
        let words = String::from_utf8_lossy(&reply.body);
        let is_excused = before != State::Good || !is_disk_good || !self.oracle.is_steady_since(grant.given_at);
        assert!(is_excused || age != Age::Newest, "a good grant cannot be refreshed: {grant:?}: {words}");
        assert!(is_excused || age != Age::InGrace, "an old token has no grace: {grant:?}: {words}");
        match age {
            Age::Newest => self.world.trace.cover("a refresh was refused"),
            Age::Late => {
                self.world.trace.cover("an old token ended its family");
                grant.ends(is_disk_good, now);
            }
            Age::InGrace | Age::Unknown => {}
        }
    }

    /// Once all is well, anybody can sign in, and what is used when only a thief would ends what it is of.
    pub(super) fn signing_in_works(&mut self) {
        if !self.setup.provider {
            return;
        }
        self.world.provider.mood = Mood::Good;
        let grant = self.signs_in();
        [NEWEST, ACCESS, OLDEST].into_iter().for_each(|how| self.use_and_wait(grant, how));
        assert_eq!(self.office.grants[grant].state, State::Good, "and use what that brought");
        self.wait(Duration::from_millis(GRACE_MS + 5_000));
        self.use_and_wait(grant, OLDEST);
        self.is_dead(grant, "an old refresh token was used after its grace");
        let grant = self.signs_in();
        self.use_and_wait(grant, CODE);
        self.is_dead(grant, "a code was used twice");
        assert!(self.office.waiting.is_empty(), "{:?}", self.office.waiting);
    }

    /// Somebody signs in: the number of the grant.
    fn signs_in(&mut self) -> usize {
        self.sign_in(USERS[0]);
        let index = self.office.flows.len() - 1;
        self.wait(Duration::from_secs(60));
        assert!(self.office.flows[index].is_done, "nobody can sign in: {:?}", self.office.flows[index]);
        self.office.grants.len() - 1
    }

    fn use_and_wait(&mut self, grant: usize, how: u8) {
        self.use_grant(grant, how);
        self.wait(Duration::from_secs(11));
    }

    /// Neither token of a grant opens anything: the checks of what is answered say so.
    fn is_dead(&mut self, grant: usize, cause: &str) {
        let now = self.world.micros();
        assert_eq!(self.office.grants[grant].known(now), State::Dead, "its family lives, though {cause}");
        [ACCESS, NEWEST].into_iter().for_each(|how| self.use_and_wait(grant, how));
    }
}

/// How a grant is used.
const ACCESS: u8 = 0;
const NEWEST: u8 = 3;
const OLDEST: u8 = 6;
const CODE: u8 = 9;
/// For how long a refresh token works that another has taken the place of, in milliseconds.
const GRACE_MS: u64 = 120_000;
/// How often it does, and how many of them are known.
const USES_IN_GRACE: u32 = 10;
const REMEMBERED: usize = 8;
/// For how long a relay surely knows of a code that was redeemed, in microseconds.
const REMEMBERS_CODES: u64 = 300_000_000;
/// Within which time the end of a family is on the disk, in microseconds.
const ENDED_BY: u64 = 10_000_000;

fn redemption<'a>(client: &'a str, code: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("code", code),
        ("code_verifier", VERIFIER),
    ]
}

fn refresh_form<'a>(client: &'a str, token: &'a str) -> [(&'a str, &'a str); 3] {
    [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)]
}

fn text(reply: &Exchange, name: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    Some(body[name].as_str()?.to_owned())
}
