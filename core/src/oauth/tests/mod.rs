//! The machine against scripted browsers and clients: what comes in, and everything that comes out.

mod account;
mod admin;
mod allow;
mod audit;
mod authorize;
mod clients;
mod device;
mod documents;
mod hostile;
mod introspect;
mod keys;
mod login;
mod refusals;
mod table;
mod table_admin;
mod table_device;
mod table_grants;
mod table_jobs;
mod table_login;
mod tokens;
mod use_of_grants;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};
use ring::digest;
use serde_json::{Value, json};
use url::Url;

use super::grants::{Action, AdminCommand, Change, Event, Grants};
use super::token::{Resource, TokenError, open_access};
use super::{Principal, Role, Settings, Snapshot};
use crate::config::{Clients, Local, LocalUser, Login, Oidc};
use crate::entropy::Seeded;
use crate::host::Machine;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::form;
use crate::http::reach::Reach;
use crate::http::{Reply, RequestHead};
use crate::id::{ExchangeId, FamilyId, FetchId, JobId};
use crate::keyring::Keyring;
use crate::limits;
use crate::oidc::testing::{FakeProvider, ISSUER, config};
use crate::table::{TIME, given, kinds};
use crate::time::{Instant, Now, UnixTime};

const PUBLIC: &str = "https://relay.example";
const START: u64 = 1_800_000_000;
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more-0";
const WEB: &str = "https://claude.ai/api/mcp/auth_callback";
/// The address that requests come from where nothing else is said.
const PEER: &str = "192.0.2.7";
const LOOPBACK: &str = "http://127.0.0.1:4711/callback";

kinds!(EVENTS, kind: Event, "" {
    Request, TokenRefused, EndSession, Fetched, Verified, Persisted, TunnelUp, Used, TunnelDown, Admin,
});
kinds!(ORDERS, order: AdminCommand, "" {
    TokenCreate, TokenList, TokenRevoke, GrantList, GrantRevoke, GrantRevokeAll, KeysList, KeysRotate, KeysRevokeAll,
});

/// All that the machine can be handed.
const KINDS: &[&[&str]] = &[EVENTS, ORDERS, TIME];

/// A relay's grants with a store, a password check and a login provider that answer at once, unless told otherwise.
struct Relay {
    grants: Grants,
    now: Now,
    store: BTreeMap<String, Vec<u8>>,
    /// The keys as they are kept.
    keys: Keyring,
    provider: FakeProvider,
    /// What is at the URLs of clients' documents; elsewhere nothing answers.
    documents: BTreeMap<String, Fetched>,
    /// The documents that were asked for.
    asked: Vec<Fetch>,
    /// Fetches of documents are kept here instead of ending.
    held_fetches: Option<Vec<(FetchId, Fetch)>>,
    /// What the gate was last told.
    snapshot: Arc<Snapshot>,
    /// What the store says to writes.
    store_fails: bool,
    /// Writes are kept here instead of ending.
    held: Option<Vec<(JobId, Vec<Change>)>>,
    /// Jobs are left to the test: they stay among the others.
    leaves_jobs: bool,
    /// What came out and was not taken yet.
    replies: BTreeMap<ExchangeId, Reply>,
    others: Vec<Action>,
    /// Lines of the audit.
    audit: Vec<Value>,
    /// Hashes that passwords were checked against.
    verified: Vec<String>,
    next_exchange: u64,
    public_url: String,
}

fn local() -> Login {
    let user = |name: &str| LocalUser { name: name.into(), password_hash: format!("hash of {name}'s password") };
    Login::Local(Local { users: vec![user("ann"), user("bob")] })
}

fn oidc() -> Login {
    Login::Oidc(config("sub", &[]))
}

fn settings(public_url: &str, login: Login, clients: Clients) -> Settings {
    Settings {
        public_url: public_url.into(),
        login,
        clients,
        audit: true,
        requests_per_minute: limits::REQUESTS_PER_MINUTE,
    }
}

impl Relay {
    fn new() -> Self {
        Self::with(PUBLIC, local(), BTreeMap::new())
    }

    fn with(public_url: &str, login: Login, store: BTreeMap<String, Vec<u8>>) -> Self {
        let unix = UnixTime::from_secs(START);
        Self::at(public_url, login, store, Keyring::made(&mut Seeded::new(1), unix), unix)
    }

    fn at(public_url: &str, login: Login, store: BTreeMap<String, Vec<u8>>, keys: Keyring, unix: UnixTime) -> Self {
        Self::built(settings(public_url, login, Clients::default()), store, keys, unix)
    }

    fn with_clients(clients: Clients) -> Self {
        let unix = UnixTime::from_secs(START);
        let keys = Keyring::made(&mut Seeded::new(1), unix);
        Self::built(settings(PUBLIC, local(), clients), BTreeMap::new(), keys, unix)
    }

    fn built(settings: Settings, store: BTreeMap<String, Vec<u8>>, keys: Keyring, unix: UnixTime) -> Self {
        let public_url = settings.public_url.clone();
        let now = Now { instant: Instant::from_micros(1), unix };
        let records = store.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let grants = Grants::new(settings, keys.clone(), records, Box::new(Seeded::new(unix.as_millis())), now);
        let mut relay = Self {
            grants,
            now,
            store,
            keys: keys.clone(),
            provider: FakeProvider::new(START),
            documents: BTreeMap::new(),
            asked: Vec::new(),
            held_fetches: None,
            snapshot: Arc::new(Snapshot::new(keys.sealer())),
            store_fails: false,
            held: None,
            leaves_jobs: false,
            replies: BTreeMap::new(),
            others: Vec::new(),
            audit: Vec::new(),
            verified: Vec::new(),
            next_exchange: 0,
            public_url,
        };
        relay.settle();
        relay
    }

    /// The same store after a restart.
    fn restart(self) -> Self {
        let mut next = Self::built(self.grants.settings, self.store, self.keys, self.now.unix);
        next.documents = self.documents;
        next
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { instant: self.now.instant + time, unix: self.now.unix + time };
        given("time");
        self.grants.handle_timeout(self.now);
        self.settle();
    }

    fn event(&mut self, event: Event) {
        self.hand(event);
        self.settle();
    }

    /// Hands an event in; what is ordered then waits.
    fn hand(&mut self, event: Event) {
        given(kind(&event));
        if let Event::Admin { command, .. } = &event {
            given(order(command));
        }
        self.grants.handle_event(event, self.now);
    }

    /// Carries out what is ordered until nothing is left.
    fn settle(&mut self) {
        while let Some(action) = self.grants.poll_action() {
            match action {
                job @ (Action::Persist { .. } | Action::KeepKeys { .. } | Action::Verify { .. })
                    if self.leaves_jobs =>
                {
                    self.others.push(job);
                }
                action => self.carry_out(action),
            }
        }
    }

    /// Carries one order out.
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Reply { exchange, reply } => {
                assert!(self.replies.insert(exchange, reply).is_none(), "{exchange} is answered twice");
            }
            Action::Persist { job, changes } => match &mut self.held {
                Some(held) => held.push((job, changes)),
                None => self.write(job, changes),
            },
            Action::KeepKeys { job, keys } => {
                let result = if self.store_fails { Err("disk full".to_string()) } else { Ok(()) };
                if result.is_ok() {
                    self.keys = keys;
                }
                self.hand(Event::Persisted { job, result });
            }
            Action::Verify { job, password, hash } => {
                let ok = hash == format!("hash of {}", password.expose());
                self.verified.push(hash);
                self.hand(Event::Verified { job, ok });
            }
            Action::Fetch { fetch, request } if request.reach != Reach::Anywhere => {
                self.asked.push(request.clone());
                match &mut self.held_fetches {
                    Some(held) => held.push((fetch, request)),
                    None => self.show_document(fetch, &request),
                }
            }
            Action::Fetch { fetch, request } => {
                let result = self.provider.answer(&request);
                self.hand(Event::Fetched { fetch, result });
            }
            Action::Publish(snapshot) => self.snapshot = snapshot,
            Action::Audit(line) => {
                assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "a line is a line");
                self.audit.push(serde_json::from_slice(&line).expect("JSON"));
            }
            other => self.others.push(other),
        }
    }

    fn show_document(&mut self, fetch: FetchId, request: &Fetch) {
        let result = self.documents.get(&request.url).cloned().ok_or(FetchError::OutOfReach);
        self.hand(Event::Fetched { fetch, result });
    }

    fn write(&mut self, job: JobId, changes: Vec<Change>) {
        let result = if self.store_fails { Err("disk full".to_string()) } else { Ok(()) };
        if result.is_ok() {
            for change in changes {
                match change {
                    Change::Put { key, value } => {
                        assert!(key.len() <= 255 && value.len() <= 4_096);
                        self.store.insert(key, value);
                    }
                    Change::Delete { key } => drop(self.store.remove(&key)),
                }
            }
        }
        self.hand(Event::Persisted { job, result });
    }

    /// From now on writes wait for `let_go`.
    fn hold_writes(&mut self) {
        self.held = Some(Vec::new());
    }

    fn let_go(&mut self) {
        for (job, changes) in self.held.take().unwrap_or_default() {
            self.write(job, changes);
        }
        self.settle();
    }

    /// Sends a request; its answer may still be to come.
    fn send(&mut self, method: Method, target: &str, headers: HeaderMap, body: &str) -> ExchangeId {
        self.send_from(PEER, method, target, headers, body)
    }

    fn send_from(
        &mut self,
        peer: &str,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        body: &str,
    ) -> ExchangeId {
        let (_, host) = self.public_url.split_once("://").expect("a URL");
        headers.insert(HOST, host.parse().expect("a header"));
        self.next_exchange += 1;
        let exchange = ExchangeId(self.next_exchange);
        let target = target.strip_prefix(&self.public_url).unwrap_or(target);
        let head = RequestHead {
            method,
            uri: target.parse().expect("a target"),
            headers,
            peer: peer.parse().expect("an address"),
        };
        self.event(Event::Request { exchange, head, body: Bytes::copy_from_slice(body.as_bytes()) });
        exchange
    }

    fn ask(&mut self, method: Method, target: &str, headers: HeaderMap, body: &str) -> Reply {
        let exchange = self.send(method, target, headers, body);
        self.answer(exchange)
    }

    fn answer(&mut self, exchange: ExchangeId) -> Reply {
        self.replies.remove(&exchange).expect("the exchange is answered")
    }

    /// A program's form.
    fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let exchange = self.send_form(path, fields);
        self.answer(exchange)
    }

    fn send_form(&mut self, path: &str, fields: &[(&str, &str)]) -> ExchangeId {
        self.send(Method::POST, path, form_headers(), &form::encode(fields.iter().copied()))
    }

    /// Registers a client with one redirect.
    fn register(&mut self, redirect: &str) -> String {
        let (status, answer) = self.register_with(&json!({"client_name": "Claude", "redirect_uris": [redirect]}));
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        text(&answer, "client_id")
    }

    fn register_with(&mut self, metadata: &Value) -> (StatusCode, Value) {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let reply = self.ask(Method::POST, "/register", headers, &metadata.to_string());
        (reply.status, body(&reply))
    }

    /// The code that ann's sign-in for `client` ends with.
    fn code(&mut self, client: &str, redirect: &str) -> String {
        let mut browser = Browser::default();
        let reply = browser.sign_in(self, &authorization(client, redirect));
        query(&location(&reply)).remove("code").expect("a code")
    }

    fn redeem(&mut self, client: &str, redirect: &str, code: &str) -> Reply {
        self.post("/token", &redemption(client, redirect, code))
    }

    /// Everything from registration to tokens.
    fn tokens(&mut self) -> Tokens {
        let client = self.register(WEB);
        let code = self.code(&client, WEB);
        let reply = self.redeem(&client, WEB, &code);
        Tokens::new(client, &reply)
    }

    fn refresh(&mut self, client: &str, token: &str) -> Reply {
        self.post("/token", &refresh(client, token))
    }

    fn open(&self, token: &str, path: &str) -> Result<Principal, TokenError> {
        let resource = Resource { public_url: &self.public_url, path };
        open_access(token, &self.snapshot, resource, self.now, &mut crate::seal::Memo::default())
            .map(Arc::unwrap_or_clone)
    }

    fn admin(&mut self, command: AdminCommand) -> Value {
        let job = JobId(u64::MAX - self.next_exchange);
        self.next_exchange += 1;
        self.event(Event::Admin { job, command });
        match self.others.pop() {
            Some(Action::AdminReply { job: answered, json }) if answered == job => {
                serde_json::from_slice(&json).expect("JSON")
            }
            other => panic!("{other:?}"),
        }
    }

    /// The families whose end the shards were told of since the last call; nothing else may be left.
    fn revoked(&mut self) -> Vec<FamilyId> {
        let family = |action| match action {
            Action::Revoked { family } => family,
            other => panic!("{other:?}"),
        };
        core::mem::take(&mut self.others).into_iter().map(family).collect()
    }
}

/// What a client holds.
#[derive(Debug, Clone)]
struct Tokens {
    client: String,
    access: String,
    refresh: String,
}

impl Tokens {
    fn new(client: String, reply: &Reply) -> Self {
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        let answer = body(reply);
        assert_eq!(answer["token_type"], "Bearer");
        Self { client, access: text(&answer, "access_token"), refresh: text(&answer, "refresh_token") }
    }
}

/// A browser: cookies, and forms that it fills in.
#[derive(Debug, Clone)]
struct Browser {
    cookies: BTreeMap<String, String>,
    /// Its address.
    peer: String,
}

impl Default for Browser {
    fn default() -> Self {
        Self { cookies: BTreeMap::new(), peer: PEER.into() }
    }
}

impl Browser {
    fn get(&mut self, relay: &mut Relay, target: &str) -> Reply {
        let exchange = relay.send_from(&self.peer, Method::GET, target, self.headers(), "");
        let reply = relay.answer(exchange);
        self.keep(&reply);
        reply
    }

    fn post(&mut self, relay: &mut Relay, path: &str, fields: &[(String, String)]) -> Reply {
        let mut headers = self.headers();
        headers.extend(form_headers());
        headers.insert(ORIGIN, HeaderValue::from_static("null"));
        headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("same-origin"));
        self.post_with(relay, path, fields, headers)
    }

    fn post_with(&mut self, relay: &mut Relay, path: &str, fields: &[(String, String)], headers: HeaderMap) -> Reply {
        let body = form::encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let exchange = relay.send_from(&self.peer, Method::POST, path, headers, &body);
        let reply = relay.answer(exchange);
        self.keep(&reply);
        reply
    }

    /// Agrees on the consent page.
    fn agree(&mut self, relay: &mut Relay, page: &Reply) -> Reply {
        self.post(relay, "/consent", &fields(page, &[("decision", "allow")]))
    }

    /// From the client's link to the redirect back to it, as ann.
    fn sign_in(&mut self, relay: &mut Relay, link: &str) -> Reply {
        let page = self.get(relay, link);
        assert_eq!(page.status, StatusCode::OK, "{:?}", page.body);
        let reply = self.agree(relay, &page);
        assert_eq!(reply.status, StatusCode::SEE_OTHER);
        let page = self.get(relay, &location(&reply));
        let reply = self.post(relay, "/login", &fields(&page, &[("user", "ann"), ("password", "ann's password")]));
        assert_eq!(reply.status, StatusCode::SEE_OTHER, "{:?}", reply.body);
        reply
    }

    fn headers(&self) -> HeaderMap {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = HeaderMap::new();
        if !cookies.is_empty() {
            headers.insert(COOKIE, cookies.join("; ").parse().expect("a header"));
        }
        headers
    }

    fn keep(&mut self, reply: &Reply) {
        for line in reply.headers.get_all(SET_COOKIE) {
            let line = line.to_str().expect("ASCII");
            let (pair, attributes) = line.split_once(';').expect("attributes");
            let (name, value) = pair.split_once('=').expect("a pair");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
    }
}

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()))
}

/// A good authorization request.
fn authorization(client: &str, redirect: &str) -> String {
    authorization_with(client, redirect, &[])
}

/// The same with some parameters replaced, or removed when empty.
fn authorization_with(client: &str, redirect: &str, changes: &[(&str, &str)]) -> String {
    let challenge = challenge();
    let mut fields = BTreeMap::from([
        ("client_id", client),
        ("redirect_uri", redirect),
        ("response_type", "code"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("state", "st&te"),
    ]);
    fields.extend(changes.iter().copied());
    fields.retain(|_, value| !value.is_empty());
    form::append_query("/authorize", fields)
}

fn redemption<'a>(client: &'a str, redirect: &'a str, code: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("redirect_uri", redirect),
        ("code", code),
        ("code_verifier", VERIFIER),
    ]
}

fn refresh<'a>(client: &'a str, token: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)]
}

fn form_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))])
}

fn location(reply: &Reply) -> String {
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{:?}", reply.body);
    reply.headers.get(LOCATION).expect("a location").to_str().expect("ASCII").to_string()
}

fn query(url: &str) -> BTreeMap<String, String> {
    Url::parse(url).expect("a URL").query_pairs().into_owned().collect()
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).expect("JSON")
}

fn html(reply: &Reply) -> &str {
    core::str::from_utf8(&reply.body).expect("UTF-8")
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().expect("a string").to_string()
}

/// The hidden fields of a page's form, and what the person adds.
fn fields(page: &Reply, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let hidden = html(page).split("<input type=\"hidden\" name=\"").skip(1).map(|rest| {
        let (name, rest) = rest.split_once("\" value=\"").expect("a value");
        (name.to_string(), rest.split('"').next().expect("an end").to_string())
    });
    hidden.chain(more.iter().map(|(name, value)| (name.to_string(), value.to_string()))).collect()
}

/// An answer of an endpoint for programs that refuses.
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status.as_u16(), body(reply)["error"].as_str()), (status, Some(code)), "{:?}", reply.body);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(!reply.status.is_redirection());
}
