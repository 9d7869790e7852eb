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
    /// Refresh tokens from before.
    older: Vec<String>,
    state: State,
    /// The relay's clock when the access token was given, in milliseconds.
    given_at: u64,
    /// Something about it is under way.
    is_busy: bool,
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
    /// With a token from before?
    Refreshes(usize, bool),
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
    pub(super) fn relay_died(&mut self) {
        for grant in self.grants.iter_mut().filter(|grant| grant.is_busy && grant.state == State::Good) {
            grant.state = State::Doubtful;
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
        let grant = &self.office.grants[index];
        let (client, refresh, older) = (grant.client.clone(), grant.refresh.clone(), grant.older.clone());
        let (exchange, web) = match how % 8 {
            0..3 => {
                let state = self.access_state(index);
                let client = Client::modern(&self.office.grants[index].access);
                let mut client = client;
                let exchange = client.request(&mut self.world, "tools/list", &json!({}));
                self.office.waiting.insert(exchange, Web::Uses(index, state));
                return;
            }
            _ if grant.is_busy => return,
            3..5 => (self.post_token(&refresh_form(&client, &refresh)), Web::Refreshes(index, false)),
            5 => {
                let Some(old) = older.first() else { return };
                (self.post_token(&refresh_form(&client, old)), Web::Refreshes(index, true))
            }
            6 => {
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
        if !matches!(web, Web::Refreshes(_, false)) && grant.state == State::Good {
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
        match grant.state {
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
            Web::Refreshes(grant, is_old) => self.refreshed(grant, is_old, reply),
            Web::Revokes(grant) => {
                self.office.grants[grant].is_busy = false;
                if reply.status == Some(StatusCode::OK) {
                    self.world.trace.cover("a grant was given up");
                    self.office.grants[grant].state = State::Dead;
                }
            }
            Web::RedeemsAgain(grant) => {
                self.office.grants[grant].is_busy = false;
                assert_ne!(reply.status, Some(StatusCode::OK), "a code works twice: {reply:?}");
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
        let grant = Grant { user, client, code, access, refresh, older, state, given_at, is_busy: false };
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

    fn refreshed(&mut self, index: usize, is_old: bool, reply: &Exchange) {
        let given_at = self.world.relay_unix();
        let is_disk_good = matches!(self.world.disk.health, Health::Good | Health::Slow(_));
        let grant = &mut self.office.grants[index];
        grant.is_busy = false;
        if let (Some(access), Some(refresh)) = (text(reply, "access_token"), text(reply, "refresh_token")) {
            assert!(grant.state != State::Dead, "a dead grant was refreshed: {grant:?}");
            self.world.trace.cover(if is_old {
                "an old token refreshed within its grace"
            } else {
                "a grant was refreshed"
            });
            grant.older.push(std::mem::replace(&mut grant.refresh, refresh));
            (grant.access, grant.given_at, grant.state) = (access, given_at, State::Good);
            return;
        }
        match reply.status {
            Some(StatusCode::BAD_REQUEST) => {
                let steady = self.oracle.is_steady_since(grant.given_at);
                assert!(
                    is_old || grant.state != State::Good || !is_disk_good || !steady,
                    "a good grant cannot be refreshed: {grant:?}: {}",
                    String::from_utf8_lossy(&reply.body)
                );
                self.world.trace.cover(if is_old { "an old token ended its family" } else { "a refresh was refused" });
                if is_old && is_disk_good {
                    grant.state = State::Dead;
                }
            }
            _ => {
                if grant.state == State::Good {
                    grant.state = State::Doubtful;
                }
            }
        }
    }

    /// Once all is well, anybody can sign in.
    pub(super) fn signing_in_works(&mut self) {
        if !self.setup.provider {
            return;
        }
        self.world.provider.mood = Mood::Good;
        self.sign_in(USERS[0]);
        let index = self.office.flows.len() - 1;
        self.until(self.world.micros() + 60_000_000);
        assert!(self.office.flows[index].is_done, "nobody can sign in: {:?}", self.office.flows[index]);
        let grant = self.office.grants.len() - 1;
        [3, 0].into_iter().for_each(|how| {
            self.use_grant(grant, how);
            self.until(self.world.micros() + 10_000_000);
        });
        assert_eq!(self.office.grants[grant].state, State::Good, "and use what that brought");
        assert!(self.office.waiting.is_empty(), "{:?}", self.office.waiting);
    }
}

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
