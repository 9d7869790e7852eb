//! The sign-in in every state, against every event, and its stories from start to end.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use std::collections::BTreeMap;
use std::format;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::machine::{Action, Event, Failure, Leave, Person, Settings, Signin};
use super::tokens::Tokens;
use crate::entropy::Seeded;
use crate::host::Machine;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::id::FetchId;
use crate::limits;
use crate::secret::Secret;
use crate::table::{given, kinds, recorded, uncovered};
use crate::time::{Instant, Now, UnixTime};

const RELAY: &str = "https://relay.example";
const START: u64 = 1_800_000_000;
const HOUR: u64 = 3_600;

/// A sign-in, its clock, and the last things it ordered.
struct Rig {
    signin: Signin,
    now: Now,
    fetch: FetchId,
    request: Option<Fetch>,
    url: String,
    /// Why it failed the last time, in its own words.
    reason: String,
    /// Whether the file is locked.
    locked: bool,
}

impl Rig {
    fn new() -> Self {
        Self::at(RELAY)
    }

    fn at(relay: &str) -> Self {
        let settings = Settings { relay: relay.into(), allow_insecure: false, device: "laptop".into() };
        Self {
            signin: Signin::new(settings, Box::new(Seeded::new(3))),
            now: Now { instant: Instant::from_micros(0), unix: UnixTime::from_secs(START) },
            fetch: FetchId(u64::MAX),
            request: None,
            url: String::new(),
            locked: false,
            reason: String::new(),
        }
    }

    /// A sign-in in the state of that name, reached as in life, its actions drained.
    fn in_state(name: &str) -> Self {
        let mut rig = Self::new();
        for event in path_to(name) {
            rig.give(event);
        }
        assert_eq!(rig.signin.state_name(), name);
        rig
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { instant: self.now.instant + time, unix: self.now.unix + time };
    }

    /// Hands one event in and names what was ordered, and the state it led to.
    fn give(&mut self, event: Step) -> String {
        let event = match event {
            Step::Is(event) => event,
            Step::Fetched(result) => Event::Fetched { fetch: self.fetch, result },
            Step::Stray => Event::Fetched { fetch: FetchId(u64::MAX - 1), result: Err(FetchError::TimedOut) },
            Step::Callback(target) => Event::Callback { target: target.replace("STATE", &self.param("state")) },
            Step::Wait(time) => {
                self.pass(time);
                return self.drain();
            }
            Step::Timeout => {
                self.signin.handle_timeout(self.now);
                return self.drain();
            }
        };
        given(kind_of(&event));
        self.signin.handle_event(event, self.now);
        self.drain()
    }

    fn drain(&mut self) -> String {
        let mut said = Vec::new();
        while let Some(action) = self.signin.poll_action() {
            said.push(match action {
                Action::Load => {
                    self.locked = true;
                    "load".to_string()
                }
                Action::Unlock => {
                    assert!(core::mem::take(&mut self.locked), "unlocked twice");
                    continue;
                }
                Action::Save(Some(_)) => "save".to_string(),
                Action::Save(None) => "remove".to_string(),
                Action::Fetch { fetch, request } => {
                    let path = request.url.strip_prefix(RELAY).expect("on the relay").to_string();
                    (self.fetch, self.request) = (fetch, Some(request));
                    path
                }
                Action::Listen => "listen".to_string(),
                Action::AnswerCallback(page) => format!("answer {}", page.status.as_u16()),
                Action::StopListening => "stop".to_string(),
                Action::OpenBrowser { url } => {
                    self.url = url;
                    "open".to_string()
                }
                Action::ShowCode { page, code, .. } => format!("show {code} {page}"),
                Action::Ready { access, .. } => format!("ready {}", access.expose()),
                Action::Identified(identity) => format!("it is {}", identity.user.as_deref().unwrap_or("somebody")),
                Action::SignedOut(Leave::Revoked) => "signed out".to_string(),
                Action::SignedOut(Leave::Nothing) => "was not signed in".to_string(),
                Action::SignedOut(Leave::LivesOn { cause }) => {
                    self.reason = cause;
                    "forgotten".to_string()
                }
                Action::Failed(failure) => {
                    self.reason = failure.to_string();
                    format!("failed {}", kind(&failure))
                }
            });
        }
        let state = self.signin.state_name();
        assert_eq!(self.locked, LOCKED.contains(&state), "{said:?} {state}");
        said.push(format!("→ {state}"));
        said.join(", ")
    }

    /// A parameter of the URL that the browser was sent to.
    fn param(&self, name: &str) -> String {
        let url = url::Url::parse(&self.url).ok();
        let found = url.and_then(|url| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into()));
        found.unwrap_or_default()
    }

    /// A field of the last request's form.
    fn form(&self) -> BTreeMap<String, String> {
        let body = &self.request.as_ref().expect("requested").body;
        url::form_urlencoded::parse(body).into_owned().collect()
    }
}

/// One input.
enum Step {
    Is(Event),
    /// The fetch that was ordered last has ended.
    Fetched(Result<Fetched, FetchError>),
    /// A fetch that nobody ordered has ended.
    Stray,
    Callback(&'static str),
    Wait(Duration),
    Timeout,
}

fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::NeedsLogin { .. } => "needs-login",
        Failure::Unreachable { .. } => "unreachable",
        Failure::NotARelay { .. } => "not-a-relay",
        Failure::Refused { .. } => "refused",
        Failure::Local { .. } => "local",
        Failure::NotRevoked { .. } => "not-revoked",
    }
}

fn start(interactive: bool) -> Step {
    Step::Is(Event::Start { person: if interactive { Person::Here } else { Person::Absent } })
}

/// A person whose browser is elsewhere begins.
fn elsewhere() -> Step {
    Step::Is(Event::Start { person: Person::Elsewhere })
}

fn logout() -> Step {
    Step::Is(Event::Logout { force: false })
}

fn logout_by_force() -> Step {
    Step::Is(Event::Logout { force: true })
}

fn inquire() -> Step {
    Step::Is(Event::Inquire { minted: None })
}

/// The relay's answer to a question about a token that works.
fn standing() -> Step {
    answer(200, &json!({"active": true, "username": "local:ada", "iat": START, "exp": START + HOUR}))
}

fn saved() -> Step {
    Step::Is(Event::Saved(Ok(())))
}

fn unsaved() -> Step {
    Step::Is(Event::Saved(Err("disk full".into())))
}

fn listening() -> Step {
    Step::Is(Event::Listening(Ok(4711)))
}

/// The file, with so many seconds left on the access token.
fn file(access: &str, refresh: Option<&str>, left: u64) -> Step {
    let expires = UnixTime::from_secs(START + left);
    let tokens = Tokens { access: Secret::new(access), refresh: refresh.map(Secret::new), expires };
    Step::Is(Event::Loaded(Some(Bytes::from(tokens.to_file(RELAY).expose().to_string()))))
}

fn no_file() -> Step {
    Step::Is(Event::Loaded(None))
}

fn answer(status: u16, body: &Value) -> Step {
    let status = StatusCode::from_u16(status).expect("a status");
    Step::Fetched(Ok(Fetched { status, headers: HeaderMap::new(), body: body.to_string().into() }))
}

fn metadata() -> Step {
    answer(200, &document())
}

/// Metadata of a relay that speaks dialect V1 alone.
fn metadata_of_v1() -> Step {
    let mut document = document();
    document["issuer"] = json!(format!("{RELAY}/"));
    answer(200, &document)
}

/// A refusal that says when to come back.
fn refusal(status: u16, retry_after: Option<&str>) -> Step {
    let status = StatusCode::from_u16(status).expect("a status");
    let after = retry_after.map(|text| (http::header::RETRY_AFTER, text.parse().expect("a header's value")));
    Step::Fetched(Ok(Fetched { status, headers: after.into_iter().collect(), body: Bytes::new() }))
}

/// Metadata of a relay that has a page for codes, and tells whose a token is.
fn metadata_with_codes() -> Step {
    let mut document = document();
    document["introspection_endpoint"] = json!(format!("{RELAY}/introspect"));
    document["device_authorization_endpoint"] = json!(format!("{RELAY}/device_authorization"));
    answer(200, &document)
}

/// The relay's answer to the question for a code.
fn shown() -> Step {
    let body = json!({
        "device_code": "d3vice",
        "user_code": "BCDF-GHJK",
        "verification_uri": format!("{RELAY}/device"),
        "verification_uri_complete": format!("{RELAY}/device?user_code=BCDF-GHJK"),
        "expires_in": 600,
        "interval": 5,
    });
    answer(200, &body)
}

fn document() -> Value {
    json!({
        "issuer": RELAY,
        "authorization_endpoint": format!("{RELAY}/authorize"),
        "token_endpoint": format!("{RELAY}/token"),
        "revocation_endpoint": format!("{RELAY}/revoke"),
        "code_challenge_methods_supported": ["S256"],
    })
}

fn issued(access: &str) -> Step {
    let body = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": HOUR,
        "refresh_token": format!("{access}-refresh"),
    });
    answer(200, &body)
}

fn error(status: u16, code: &str) -> Step {
    answer(status, &json!({"error": code}))
}

fn lost() -> Step {
    Step::Fetched(Err(FetchError::Connect("refused".into())))
}

const CODE: Step = Step::Callback("/callback?code=c0de&state=STATE");

fn path_to(state: &str) -> Vec<Step> {
    let mut path = match state {
        "idle" => return Vec::new(),
        "loading" => return [start(true)].into(),
        "looking" => return [inquire()].into(),
        "discovering-inquiry" | "inquiring" => Vec::from([inquire()]),
        "asking" | "pending" | "polling" => Vec::from([elsewhere(), no_file(), metadata_with_codes()]),
        "ready" | "renewing" | "leaving" | "discovering-revoke" | "revoking" | "removing" => {
            Vec::from([start(true), file("a", Some("r"), HOUR)])
        }
        "discovering-refresh" | "refreshing" | "saving-refresh" => Vec::from([start(true), file("a", Some("r"), 1)]),
        _ => Vec::from([start(true), no_file()]),
    };
    match state {
        "ready" | "discovering-refresh" | "discovering-login" | "asking" => {}
        "pending" => path.push(shown()),
        "discovering-inquiry" => path.push(file("a", Some("r"), HOUR)),
        "inquiring" => path.extend([file("a", Some("r"), HOUR), metadata_with_codes()]),
        "polling" => path.extend([shown(), Step::Wait(Duration::from_secs(5)), Step::Timeout]),
        "renewing" => path.extend([Step::Wait(Duration::from_secs(HOUR - 300)), Step::Timeout]),
        "refreshing" => path.push(metadata()),
        "saving-refresh" => path.extend([metadata(), issued("b")]),
        "listening" => path.push(metadata()),
        "waiting" => path.extend([metadata(), listening()]),
        "exchanging" => path.extend([metadata(), listening(), CODE]),
        "saving-login" => path.extend([metadata(), listening(), CODE, issued("b")]),
        "leaving" => path.push(logout()),
        "discovering-revoke" => path.extend([logout(), file("a", Some("r"), HOUR)]),
        "revoking" => path.extend([logout(), file("a", Some("r"), HOUR), metadata()]),
        "removing" => path.extend([logout_by_force(), no_file(), lost()]),
        other => panic!("no such state: {other}"),
    }
    path
}

kinds!(EVENTS, kind_of: Event, "" { Start, Loaded, Saved, Fetched, Listening, Callback, Refused, Logout, Inquire });

const STATES: [&str; 22] = [
    "idle",
    "loading",
    "ready",
    "renewing",
    "discovering-refresh",
    "discovering-login",
    "discovering-revoke",
    "refreshing",
    "saving-refresh",
    "saving-login",
    "listening",
    "waiting",
    "exchanging",
    "asking",
    "pending",
    "polling",
    "looking",
    "discovering-inquiry",
    "inquiring",
    "leaving",
    "revoking",
    "removing",
];

/// The states in which the file is locked: from reading it to writing what came of it, and never while a person is
/// waited for.
const LOCKED: [&str; 12] = [
    "looking",
    "discovering-inquiry",
    "inquiring",
    "loading",
    "renewing",
    "discovering-refresh",
    "refreshing",
    "saving-refresh",
    "leaving",
    "discovering-revoke",
    "revoking",
    "removing",
];

/// Every event by name.
fn events() -> Vec<(&'static str, Step)> {
    Vec::from([
        ("start", start(false)),
        ("start interactive", start(true)),
        ("usable file", file("f", Some("fr"), HOUR)),
        ("spent file", file("f", Some("fr"), 1)),
        ("no file", no_file()),
        ("saved", saved()),
        ("unsaved", unsaved()),
        ("metadata", metadata()),
        ("tokens", issued("t")),
        ("device code", shown()),
        ("invalid_grant", error(400, "invalid_grant")),
        ("authorization_pending", error(400, "authorization_pending")),
        ("slow_down", error(400, "slow_down")),
        ("unavailable", answer(503, &json!({}))),
        ("not found", answer(404, &json!({}))),
        ("lost", lost()),
        ("stray fetch", Step::Stray),
        ("port", listening()),
        ("no port", Step::Is(Event::Listening(Err("denied".into())))),
        ("code", CODE),
        ("denied", Step::Callback("/callback?error=access_denied&state=STATE")),
        ("foreign callback", Step::Callback("/callback?code=x&state=y")),
        ("refused", Step::Is(Event::Refused)),
        ("logout", logout()),
        ("inquire", inquire()),
        ("standing", standing()),
        ("inactive", answer(200, &json!({"active": false}))),
        ("timeout", Step::Timeout),
    ])
}

/// What each pair does; pairs that are not here do nothing and stay.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str)] = &[
    ("idle", "start", "load, → loading"),
    ("idle", "start interactive", "load, → loading"),
    ("idle", "logout", "load, → leaving"),
    ("idle", "inquire", "load, → looking"),

    ("loading", "usable file", "ready f, → ready"),
    ("loading", "spent file", "/.well-known/oauth-authorization-server, → discovering-refresh"),
    ("loading", "no file", "/.well-known/oauth-authorization-server, → discovering-login"),
    ("loading", "logout", "→ leaving"),

    ("ready", "start", "ready a, → ready"),
    ("ready", "start interactive", "ready a, → ready"),
    ("ready", "refused", "load, → loading"),
    ("ready", "logout", "load, → leaving"),

    ("renewing", "usable file", "ready f, → ready"),
    ("renewing", "spent file", "/.well-known/oauth-authorization-server, → discovering-refresh"),
    ("renewing", "no file", "/.well-known/oauth-authorization-server, → discovering-refresh"),
    ("renewing", "logout", "→ leaving"),

    ("discovering-refresh", "metadata", "/token, → refreshing"),
    ("discovering-refresh", "tokens", "failed not-a-relay, → idle"),
    ("discovering-refresh", "device code", "failed not-a-relay, → idle"),
    ("discovering-refresh", "invalid_grant", "failed not-a-relay, → idle"),
    ("discovering-refresh", "unavailable", "failed unreachable, → idle"),
    ("discovering-refresh", "not found", "failed not-a-relay, → idle"),
    ("discovering-refresh", "lost", "failed unreachable, → idle"),
    ("discovering-refresh", "logout", "load, → leaving"),

    ("discovering-login", "metadata", "listen, → listening"),
    ("discovering-login", "tokens", "failed not-a-relay, → idle"),
    ("discovering-login", "device code", "failed not-a-relay, → idle"),
    ("discovering-login", "invalid_grant", "failed not-a-relay, → idle"),
    ("discovering-login", "unavailable", "failed unreachable, → idle"),
    ("discovering-login", "not found", "failed not-a-relay, → idle"),
    ("discovering-login", "lost", "failed unreachable, → idle"),
    ("discovering-login", "logout", "load, → leaving"),

    ("discovering-revoke", "metadata", "/revoke, → revoking"),
    ("discovering-revoke", "tokens", "failed not-revoked, → idle"),
    ("discovering-revoke", "device code", "failed not-revoked, → idle"),
    ("discovering-revoke", "invalid_grant", "failed not-revoked, → idle"),
    ("discovering-revoke", "unavailable", "failed not-revoked, → idle"),
    ("discovering-revoke", "not found", "failed not-revoked, → idle"),
    ("discovering-revoke", "lost", "failed not-revoked, → idle"),

    ("refreshing", "metadata", "failed not-a-relay, → idle"),
    ("refreshing", "tokens", "save, → saving-refresh"),
    ("refreshing", "device code", "failed not-a-relay, → idle"),
    ("refreshing", "invalid_grant", "load, → loading"),
    ("refreshing", "unavailable", "failed unreachable, → idle"),
    ("refreshing", "not found", "failed not-a-relay, → idle"),
    ("refreshing", "lost", "failed unreachable, → idle"),
    ("refreshing", "logout", "load, → leaving"),

    ("saving-refresh", "saved", "ready b, → ready"),
    ("saving-refresh", "unsaved", "ready b, → ready"),
    ("saving-refresh", "logout", "load, → leaving"),

    ("saving-login", "saved", "ready b, → ready"),
    ("saving-login", "unsaved", "failed local, → idle"),
    ("saving-login", "logout", "load, → leaving"),

    ("listening", "port", "open, → waiting"),
    ("listening", "no port", "failed local, → idle"),
    ("listening", "logout", "stop, load, → leaving"),

    ("waiting", "code", "answer 200, stop, /token, → exchanging"),
    ("waiting", "denied", "answer 400, stop, failed refused, → idle"),
    ("waiting", "logout", "stop, load, → leaving"),

    ("exchanging", "metadata", "failed not-a-relay, → idle"),
    ("exchanging", "tokens", "save, → saving-login"),
    ("exchanging", "device code", "failed not-a-relay, → idle"),
    ("exchanging", "invalid_grant", "failed refused, → idle"),
    ("exchanging", "unavailable", "failed unreachable, → idle"),
    ("exchanging", "not found", "failed not-a-relay, → idle"),
    ("exchanging", "lost", "failed unreachable, → idle"),
    ("exchanging", "logout", "load, → leaving"),

    ("asking", "metadata", "failed not-a-relay, → idle"),
    ("asking", "tokens", "failed not-a-relay, → idle"),
    ("asking", "device code", "show BCDF-GHJK https://relay.example/device, → pending"),
    ("asking", "invalid_grant", "failed refused, → idle"),
    ("asking", "unavailable", "failed unreachable, → idle"),
    ("asking", "not found", "failed not-a-relay, → idle"),
    ("asking", "lost", "failed unreachable, → idle"),
    ("asking", "logout", "load, → leaving"),

    ("pending", "logout", "load, → leaving"),

    ("polling", "metadata", "failed not-a-relay, → idle"),
    ("polling", "tokens", "save, → saving-login"),
    ("polling", "device code", "failed not-a-relay, → idle"),
    ("polling", "invalid_grant", "failed refused, → idle"),
    ("polling", "authorization_pending", "→ pending"),
    ("polling", "slow_down", "→ pending"),
    ("polling", "unavailable", "→ pending"),
    ("polling", "not found", "failed not-a-relay, → idle"),
    ("polling", "lost", "→ pending"),
    ("polling", "logout", "load, → leaving"),

    ("looking", "usable file", "/.well-known/oauth-authorization-server, → discovering-inquiry"),
    ("looking", "spent file", "/.well-known/oauth-authorization-server, → discovering-inquiry"),
    ("looking", "no file", "failed needs-login, → idle"),
    ("looking", "logout", "→ leaving"),

    ("discovering-inquiry", "metadata", "it is somebody, → idle"),
    ("discovering-inquiry", "tokens", "failed not-a-relay, → idle"),
    ("discovering-inquiry", "device code", "failed not-a-relay, → idle"),
    ("discovering-inquiry", "invalid_grant", "failed not-a-relay, → idle"),
    ("discovering-inquiry", "unavailable", "failed unreachable, → idle"),
    ("discovering-inquiry", "not found", "failed not-a-relay, → idle"),
    ("discovering-inquiry", "lost", "failed unreachable, → idle"),
    ("discovering-inquiry", "logout", "load, → leaving"),

    ("inquiring", "standing", "it is local:ada, → idle"),
    ("inquiring", "inactive", "failed needs-login, → idle"),
    ("inquiring", "metadata", "failed not-a-relay, → idle"),
    ("inquiring", "tokens", "failed not-a-relay, → idle"),
    ("inquiring", "device code", "failed not-a-relay, → idle"),
    ("inquiring", "invalid_grant", "failed refused, → idle"),
    ("inquiring", "unavailable", "failed unreachable, → idle"),
    ("inquiring", "not found", "failed not-a-relay, → idle"),
    ("inquiring", "lost", "failed unreachable, → idle"),
    ("inquiring", "logout", "load, → leaving"),

    ("leaving", "usable file", "/.well-known/oauth-authorization-server, → discovering-revoke"),
    ("leaving", "spent file", "/.well-known/oauth-authorization-server, → discovering-revoke"),
    ("leaving", "no file", "/.well-known/oauth-authorization-server, → discovering-revoke"),

    ("revoking", "metadata", "remove, → removing"),
    ("revoking", "tokens", "remove, → removing"),
    ("revoking", "device code", "remove, → removing"),
    ("revoking", "invalid_grant", "failed not-revoked, → idle"),
    ("revoking", "unavailable", "failed not-revoked, → idle"),
    ("revoking", "not found", "failed not-revoked, → idle"),
    ("revoking", "lost", "failed not-revoked, → idle"),

    ("removing", "saved", "forgotten, → idle"),
    ("removing", "unsaved", "failed local, → idle"),
];

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let (mut used, mut given) = (0, alloc::collections::BTreeSet::new());
    for state in STATES {
        for (name, event) in events() {
            let row = |name| TABLE.iter().find(|(in_state, on, _)| *in_state == state && *on == name);
            used += usize::from(row(name).is_some());
            // Only a device hears these, and anybody else takes them for a refusal.
            let is_refusal = matches!(name, "authorization_pending" | "slow_down") && state != "polling";
            // Only who asked for it understands this, and to anybody else it is some JSON.
            let is_foreign = matches!(name, "standing" | "inactive") && state != "inquiring";
            let row = match name {
                _ if is_refusal => row("invalid_grant"),
                _ if is_foreign && state == "asking" => row("metadata"),
                _ if is_foreign => row("device code"),
                _ => row(name),
            };
            let callback = matches!(name, "code" | "denied" | "foreign callback");
            let expected = match row {
                Some((_, _, expected)) => (*expected).to_string(),
                // Somebody waits for it, whatever it is.
                None if callback => format!("answer 400, → {state}"),
                None => format!("→ {state}"),
            };
            let mut rig = Rig::in_state(state);
            let (told, more) = recorded(|| rig.give(event));
            assert_eq!(told, expected, "{state}: {name}");
            given.extend(more);
        }
    }
    assert_eq!(used, TABLE.len(), "every row is of a state and an event that exist");
    assert_eq!(uncovered(&given, &[EVENTS], &[]), Vec::<String>::new());
}

#[test]
fn time_in_every_state() {
    for state in STATES {
        let mut rig = Rig::in_state(state);
        let due = rig.signin.poll_timeout().map(|timer| timer.at.saturating_since(rig.now.instant));
        rig.pass(due.unwrap_or(Duration::from_secs(HOUR)));
        let (is_due, expected) = match state {
            "ready" => (true, "load, → renewing"),
            "waiting" => (true, "stop, failed refused, → idle"),
            "pending" => (true, "/token, → polling"),
            _ => (false, &*format!("→ {state}")),
        };
        assert_eq!((due.is_some(), rig.give(Step::Timeout).as_str()), (is_due, expected), "{state}");
    }
}

#[test]
fn person_signs_in_with_the_browser() {
    let mut rig = Rig::in_state("waiting");
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "mcp-local-tunnel-agent"),
        ("redirect_uri", "http://127.0.0.1:4711/callback"),
        ("code_challenge_method", "S256"),
        ("resource", "https://relay.example/ws"),
    ] {
        assert_eq!(rig.param(name), value, "{name}");
    }
    let (challenge, state) = (rig.param("code_challenge"), rig.param("state"));
    assert!(rig.url.starts_with("https://relay.example/authorize?") && state.len() == 43);

    rig.give(CODE);
    let form = rig.form();
    let digest = ring::digest::digest(&ring::digest::SHA256, form["code_verifier"].as_bytes());
    assert_eq!(base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, digest), challenge);
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "c0de"),
        ("client_id", "mcp-local-tunnel-agent"),
        ("redirect_uri", "http://127.0.0.1:4711/callback"),
        ("resource", "https://relay.example/ws"),
    ] {
        assert_eq!(form[name], value, "{name}");
    }
    let request = rig.request.as_ref().expect("requested");
    assert_eq!(request.method, Method::POST);
    assert!(!request.url.contains("c0de") && !format!("{request:?}").contains("c0de"));
}

/// The time until the sign-in does something by itself.
fn due(rig: &Rig) -> u64 {
    rig.signin.poll_timeout().expect("armed").at.saturating_since(rig.now.instant).as_secs()
}

#[test]
fn person_signs_in_with_a_code_elsewhere() {
    let mut rig = Rig::new();
    rig.give(elsewhere());
    rig.give(no_file());
    assert_eq!(rig.give(metadata_with_codes()), "/device_authorization, → asking");
    let form = rig.form();
    let sent = ["client_id", "resource", "device_name"].map(|name| form[name].as_str());
    assert_eq!(sent, ["mcp-local-tunnel-agent", "https://relay.example/ws", "laptop"]);
    assert_eq!(rig.give(shown()), "show BCDF-GHJK https://relay.example/device, → pending");
    for _ in 0..3 {
        assert_eq!((rig.give(Step::Timeout).as_str(), due(&rig)), ("→ pending", 5), "not before its time");
        rig.pass(Duration::from_secs(5));
        assert_eq!(rig.give(Step::Timeout), "/token, → polling");
        assert_eq!(rig.give(error(400, "authorization_pending")), "→ pending");
    }
    rig.pass(Duration::from_secs(5));
    rig.give(Step::Timeout);
    let form = rig.form();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!((form["device_code"].as_str(), form["client_id"].as_str()), ("d3vice", "mcp-local-tunnel-agent"));
    let request = rig.request.as_ref().expect("requested");
    assert!(!request.url.contains("d3vice") && !format!("{request:?}").contains("d3vice"));
    assert_eq!(rig.give(issued("b")), "save, → saving-login");
    assert_eq!(rig.give(saved()), "ready b, → ready");
}

#[test]
fn device_that_is_told_to_slow_down_does_so_for_good() {
    let mut rig = Rig::in_state("polling");
    for (answered, expected) in [
        (error(400, "authorization_pending"), 5),
        (error(400, "slow_down"), 10),
        (error(400, "authorization_pending"), 10),
        (error(400, "slow_down"), 15),
        (lost(), 30),
        (answer(503, &json!({})), 60),
        (answer(429, &json!({})), 60),
        (error(400, "slow_down"), 60),
    ] {
        assert_eq!((rig.give(answered).as_str(), due(&rig)), ("→ pending", expected));
        rig.pass(Duration::from_secs(expected));
        assert_eq!(rig.give(Step::Timeout), "/token, → polling");
    }
}

#[test]
fn code_is_not_asked_about_once_it_has_ended() {
    let mut rig = Rig::in_state("pending");
    rig.pass(Duration::from_secs(598));
    assert_eq!(rig.give(Step::Timeout), "/token, → polling");
    rig.give(error(400, "authorization_pending"));
    assert_eq!(due(&rig), 2);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.give(Step::Timeout), "failed refused, → idle");
    assert!(rig.reason.contains("nobody signed in"), "{}", rig.reason);
}

#[test]
fn device_says_why_it_gets_nothing() {
    for (code, said) in
        [("access_denied", "denied"), ("expired_token", "sign in again"), ("\u{1b}[2Jx", "device code: [2Jx")]
    {
        let mut rig = Rig::in_state("polling");
        assert_eq!(rig.give(error(400, code)), "failed refused, → idle");
        assert!(rig.reason.contains(said), "{}", rig.reason);
    }
}

#[test]
fn relay_without_codes_is_signed_in_to_with_the_browser() {
    let mut rig = Rig::new();
    rig.give(elsewhere());
    rig.give(no_file());
    assert_eq!(rig.give(metadata()), "listen, → listening");
    assert_eq!(rig.give(listening()), "open, → waiting");
}

#[test]
fn browser_on_this_machine_needs_no_code_unless_it_has_no_way_back() {
    let mut rig = Rig::in_state("discovering-login");
    assert_eq!(rig.give(metadata_with_codes()), "listen, → listening");
    let no_port = Step::Is(Event::Listening(Err("denied".into())));
    assert_eq!(rig.give(no_port), "/device_authorization, → asking");
}

#[test]
fn person_who_comes_later_decides_how() {
    let mut rig = Rig::in_state("discovering-refresh");
    rig.give(elsewhere());
    rig.give(metadata());
    rig.give(error(400, "invalid_grant"));
    rig.give(file("a", Some("r"), 1));
    assert_eq!(rig.give(metadata_with_codes()), "/device_authorization, → asking");
}

#[test]
fn sign_in_is_asked_about_by_its_refresh_token_and_a_minted_one_by_itself() {
    let mut rig = Rig::in_state("inquiring");
    let form = rig.form();
    assert_eq!((form["token"].as_str(), form["client_id"].as_str()), ("r", "mcp-local-tunnel-agent"));
    assert_eq!(rig.give(standing()), "it is local:ada, → idle");

    let minted = || Step::Is(Event::Inquire { minted: Some(Secret::new("m1nted")) });
    let mut rig = Rig::new();
    assert_eq!(rig.give(minted()), "/.well-known/oauth-authorization-server, → discovering-minted");
    rig.give(metadata_with_codes());
    assert_eq!(rig.form()["token"], "m1nted");
    assert_eq!(rig.give(answer(200, &json!({"active": false}))), "failed refused, → idle");
    assert!(!format!("{:?}", Event::Inquire { minted: Some(Secret::new("m1nted")) }).contains("m1nted"));
}

#[test]
fn foreign_callbacks_do_not_end_the_sign_in() {
    let mut rig = Rig::in_state("waiting");
    for target in ["/favicon.ico", "/callback?error=access_denied&state=x", "/callback?code=c", "/"] {
        assert_eq!(rig.give(Step::Callback(target)), "answer 400, → waiting", "{target}");
    }
    assert_eq!(rig.give(CODE), "answer 200, stop, /token, → exchanging");
    assert_eq!(rig.give(CODE), "answer 400, → exchanging", "one answer");
}

#[test]
fn person_who_does_not_come_back_is_waited_for_five_minutes() {
    let mut rig = Rig::in_state("waiting");
    assert_eq!(rig.signin.poll_timeout().map(|timer| timer.at), Some(Instant::from_micros(0) + limits::LOGIN_TIMEOUT));
    rig.pass(limits::LOGIN_TIMEOUT - Duration::from_micros(1));
    assert_eq!(rig.give(Step::Timeout), "→ waiting");
    rig.pass(Duration::from_micros(1));
    assert_eq!(rig.give(Step::Timeout), "stop, failed refused, → idle");
    assert_eq!(rig.signin.poll_timeout(), None);
}

#[test]
fn refresh_sends_the_refresh_token_in_the_body_and_saves_before_use() {
    let mut rig = Rig::in_state("refreshing");
    let form = rig.form();
    assert_eq!((form["grant_type"].as_str(), form["refresh_token"].as_str()), ("refresh_token", "r"));
    assert_eq!(form["resource"], "https://relay.example/ws");
    assert_eq!(rig.give(issued("b")), "save, → saving-refresh");
    assert_eq!(rig.give(saved()), "ready b, → ready");
}

#[test]
fn token_is_renewed_ahead_of_its_expiry() {
    let mut rig = Rig::in_state("ready");
    let at = rig.signin.poll_timeout().expect("armed").at.saturating_since(rig.now.instant);
    let hour = Duration::from_secs(HOUR);
    assert!(at <= hour - limits::REFRESH_AHEAD_MAX && at >= hour - 2 * limits::REFRESH_AHEAD_MAX, "{at:?}");
    rig.pass(at);
    assert_eq!(rig.give(Step::Timeout), "load, → renewing");
    assert_eq!(
        rig.give(file("a", Some("r"), HOUR)),
        "/.well-known/oauth-authorization-server, → discovering-refresh",
        "the token still works, but is the one to be renewed"
    );
    rig.give(metadata());
    rig.give(issued("b"));
    assert_eq!(rig.give(saved()), "ready b, → ready");
}

#[test]
fn token_that_is_born_dead_is_not_renewed_without_a_pause() {
    let mut rig = Rig::in_state("refreshing");
    rig.give(answer(200, &json!({"access_token": "b", "token_type": "Bearer", "expires_in": 0})));
    rig.give(saved());
    let at = rig.signin.poll_timeout().expect("armed").at.saturating_since(rig.now.instant);
    assert_eq!(at, limits::REFRESH_RETRY / 2);
}

#[test]
fn renewal_by_another_process_is_adopted() {
    let mut rig = Rig::in_state("ready");
    rig.pass(Duration::from_secs(HOUR - 300));
    rig.give(Step::Timeout);
    assert_eq!(rig.give(file("b", Some("br"), 2 * HOUR)), "ready b, → ready");
}

#[test]
fn renewal_that_cannot_be_had_is_tried_again_while_the_token_works() {
    for trouble in [lost(), answer(503, &json!({})), answer(429, &json!({})), answer(404, &json!({}))] {
        let mut rig = Rig::in_state("ready");
        rig.pass(Duration::from_secs(HOUR - 300));
        rig.give(Step::Timeout);
        rig.give(no_file());
        assert_eq!(rig.give(trouble), "→ ready");
        let at = rig.signin.poll_timeout().expect("armed").at.saturating_since(rig.now.instant);
        assert!(at >= limits::REFRESH_RETRY / 2 && at <= limits::REFRESH_RETRY);
        rig.pass(Duration::from_secs(299));
        assert_eq!(rig.give(Step::Timeout), "load, → renewing");
        rig.give(no_file());
        assert_eq!(rig.give(lost()), "failed unreachable, → idle", "it works no more");
        assert_eq!(rig.give(start(false)), "load, → loading");
        assert_eq!(
            rig.give(no_file()),
            "/.well-known/oauth-authorization-server, → discovering-refresh",
            "the tokens were kept"
        );
    }
}

#[test]
fn captive_portal_signs_nobody_out_and_is_named() {
    let page = || Bytes::from_static(b"\n<!DOCTYPE html><title>Free Wi-Fi</title>");
    for (state, status, expected) in [
        ("discovering-refresh", 200, "sign-in page"),
        ("discovering-refresh", 302, "sign-in page"),
        ("discovering-refresh", 511, "it answered 511"),
        ("discovering-refresh", 403, "it answered 403"),
        ("refreshing", 200, "sign-in page"),
        ("refreshing", 307, "sign-in page"),
        ("refreshing", 511, "it answered 511"),
        ("discovering-login", 200, "sign-in page"),
    ] {
        let mut rig = Rig::in_state(state);
        let status = StatusCode::from_u16(status).expect("a status");
        let event = Step::Fetched(Ok(Fetched { status, headers: HeaderMap::new(), body: page() }));
        let said = rig.give(event);
        assert!(said.starts_with("failed ") && said.ends_with("→ idle"), "{state} {status}: {said}");
        assert!(rig.reason.contains(expected), "{state} {status}: {}", rig.reason);
        assert_eq!(rig.signin.has_tokens(), state != "discovering-login", "{state} {status}");
    }
}

#[test]
fn refused_refresh_looks_into_the_file_once() {
    let mut rig = Rig::in_state("refreshing");
    assert_eq!(rig.give(error(400, "invalid_grant")), "load, → loading");
    assert_eq!(rig.give(file("b", Some("br"), HOUR)), "ready b, → ready", "another process had used it");

    let mut rig = Rig::in_state("refreshing");
    rig.give(error(400, "invalid_grant"));
    assert_eq!(
        rig.give(file("a", Some("r"), 1)),
        "/.well-known/oauth-authorization-server, → discovering-login",
        "nothing new: sign in"
    );

    let mut rig = Rig::in_state("refreshing");
    rig.give(error(401, "invalid_client"));
    rig.give(file("b", Some("br"), 1));
    rig.give(metadata());
    assert_eq!(rig.form()["refresh_token"], "br");
    assert_eq!(
        rig.give(error(400, "invalid_grant")),
        "/.well-known/oauth-authorization-server, → discovering-login",
        "only once"
    );
}

#[test]
fn without_a_person_no_browser_is_opened() {
    let mut rig = Rig::new();
    rig.give(start(false));
    assert_eq!(rig.give(no_file()), "failed needs-login, → idle");

    rig.give(start(false));
    rig.give(file("a", Some("r"), 1));
    rig.give(metadata());
    rig.give(error(400, "invalid_grant"));
    assert_eq!(rig.give(file("a", Some("r"), 1)), "failed needs-login, → idle");

    rig.give(start(false));
    assert_eq!(rig.give(start(true)), "→ loading", "a person came");
    assert_eq!(rig.give(no_file()), "/.well-known/oauth-authorization-server, → discovering-refresh");
}

#[test]
fn file_of_another_relay_or_client_counts_as_none() {
    let other =
        json!({"issuer": "https://x", "clientId": "mcp-local-tunnel-agent", "accessToken": "a", "expiresAt": u64::MAX});
    let client = json!({"issuer": RELAY, "clientId": "x", "accessToken": "a", "expiresAt": u64::MAX});
    for content in [other.to_string(), client.to_string(), "{".into(), String::new(), "\u{0}".into()] {
        let mut rig = Rig::new();
        rig.give(start(false));
        assert_eq!(rig.give(Step::Is(Event::Loaded(Some(content.into())))), "failed needs-login, → idle");
    }
}

#[test]
fn refused_access_token_is_renewed_even_if_it_has_time_left() {
    let mut rig = Rig::in_state("ready");
    assert_eq!(rig.give(Step::Is(Event::Refused)), "load, → loading");
    assert_eq!(rig.give(file("a", Some("r"), HOUR)), "/.well-known/oauth-authorization-server, → discovering-refresh");
    assert_eq!(rig.give(lost()), "failed unreachable, → idle", "the old one does not work");
    rig.give(start(false));
    rig.give(file("a", Some("r"), HOUR));
    rig.give(metadata());
    rig.give(issued("b"));
    rig.give(saved());
    assert_eq!(rig.give(Step::Is(Event::Refused)), "failed refused, → idle", "another one would not help");

    let mut rig = Rig::in_state("saving-refresh");
    rig.give(saved());
    assert_eq!(rig.give(Step::Is(Event::Refused)), "load, → loading", "a first refusal, however early, may be mended");
}

#[test]
fn relay_of_dialect_v1_that_answers_500_is_not_asked_for_ever() {
    let mut rig = Rig::new();
    for _ in 1..limits::REFRESH_BROKEN_MAX {
        rig.give(start(false));
        rig.give(file("a", Some("r"), 1));
        rig.give(metadata_of_v1());
        assert_eq!(rig.give(error(500, "server_error")), "failed unreachable, → idle");
    }
    rig.give(start(false));
    rig.give(file("a", Some("r"), 1));
    rig.give(metadata_of_v1());
    assert_eq!(rig.give(error(500, "server_error")), "load, → loading");
    assert_eq!(rig.give(file("a", Some("r"), 1)), "failed needs-login, → idle");

    let mut rig = Rig::in_state("discovering-refresh");
    rig.give(metadata_of_v1());
    assert_eq!(rig.give(error(500, "server_error")), "load, → loading", "a person is there");
}

#[test]
fn trouble_of_the_relay_bothers_nobody_and_is_tried_again() {
    let troubles = [(500, "server_error"), (500, "x"), (400, "temporarily_unavailable"), (400, "server_error")];
    for (status, code) in troubles {
        for person in [false, true] {
            let mut rig = Rig::new();
            for _ in 0..=limits::REFRESH_BROKEN_MAX {
                rig.give(start(person));
                rig.give(file("a", Some("r"), 1));
                rig.give(metadata());
                assert_eq!(rig.give(error(status, code)), "failed unreachable, → idle", "{status} {code}");
            }
            rig.give(start(person));
            rig.give(file("a", Some("r"), 1));
            rig.give(metadata());
            assert_eq!(rig.give(issued("b")), "save, → saving-refresh", "{status} {code}");
        }
    }
}

#[test]
fn relay_that_says_when_to_come_back_is_left_alone_until_then() {
    for (status, asked, least) in [
        (429, Some("90"), 90),
        (429, None, limits::TOO_MANY_LEAST.as_secs()),
        (503, Some("90"), 90),
        (500, Some("90"), 90),
        (503, Some("86400"), 600),
        (503, None, 0),
    ] {
        let mut rig = Rig::in_state("refreshing");
        assert_eq!(rig.give(refusal(status, asked)), "failed unreachable, → idle");
        assert_eq!(rig.signin.held(rig.now).as_secs(), least, "{status} {asked:?}");

        let mut rig = Rig::in_state("renewing");
        rig.give(no_file());
        rig.give(metadata());
        assert_eq!(rig.give(refusal(status, asked)), "→ ready", "the old token still works");
        assert!(due(&rig) >= least, "{status} {asked:?}: {}", due(&rig));

        let mut rig = Rig::in_state("polling");
        assert_eq!(rig.give(refusal(status, asked)), "→ pending");
        let code_ends = 600 - 5;
        assert_eq!(due(&rig), least.clamp(10, code_ends), "{status} {asked:?}");
    }
}

#[test]
fn tokens_that_could_not_be_written_are_not_forgotten_for_older_ones() {
    let mut rig = Rig::in_state("saving-refresh");
    assert_eq!(rig.give(unsaved()), "ready b, → ready");
    rig.pass(Duration::from_secs(HOUR - 300));
    rig.give(Step::Timeout);
    rig.give(file("a", Some("r"), 1));
    rig.give(metadata());
    assert_eq!(rig.form()["refresh_token"], "b-refresh");
}

#[test]
fn logout_revokes_the_refresh_token_and_removes_the_file() {
    let mut rig = Rig::in_state("revoking");
    let form = rig.form();
    assert_eq!((form["token"].as_str(), form["client_id"].as_str()), ("r", "mcp-local-tunnel-agent"));
    assert_eq!(rig.give(answer(200, &json!({}))), "remove, → removing");
    assert_eq!(rig.give(saved()), "signed out, → idle");
    rig.give(start(false));
    assert_eq!(rig.give(no_file()), "failed needs-login, → idle", "nothing is remembered");
}

#[test]
fn logout_that_revokes_nothing_keeps_the_tokens_unless_forced() {
    for (force, expected) in [(false, "failed not-revoked, → idle"), (true, "remove, → removing")] {
        for at in ["discovering-revoke", "revoking"] {
            for refusal in [lost(), answer(503, &json!({})), answer(404, &json!({})), error(400, "invalid_request")] {
                let mut rig = Rig::in_state("ready");
                rig.give(Step::Is(Event::Logout { force }));
                rig.give(file("a", Some("r"), HOUR));
                if at == "revoking" {
                    rig.give(metadata());
                }
                assert_eq!(rig.give(refusal), expected, "{at}");
                if force {
                    assert_eq!(rig.give(saved()), "forgotten, → idle");
                    assert!(rig.reason.contains(RELAY), "{}", rig.reason);
                } else {
                    assert!(rig.reason.contains("logout --force"), "{}", rig.reason);
                    rig.give(start(false));
                    assert_eq!(rig.give(file("a", Some("r"), HOUR)), "ready a, → ready", "nothing is lost");
                }
            }
        }
    }
}

#[test]
fn logout_where_trying_again_helps_nothing_forgets_and_says_so() {
    let mut rig = Rig::in_state("discovering-revoke");
    let mut document = document();
    document.as_object_mut().expect("an object").remove("revocation_endpoint");
    assert_eq!(rig.give(answer(200, &document)), "remove, → removing");
    assert_eq!(rig.give(saved()), "forgotten, → idle");
    assert!(rig.reason.contains("no way to revoke"), "{}", rig.reason);

    for content in [&b"{\"issuer\": \"https://rel"[..], b"null"] {
        let mut rig = Rig::new();
        rig.give(logout());
        assert_eq!(rig.give(Step::Is(Event::Loaded(Some(content.into())))), "remove, → removing");
        assert_eq!(rig.give(saved()), "forgotten, → idle");
        assert!(rig.reason.contains("cannot be understood"), "{}", rig.reason);
    }
}

#[test]
fn logout_without_tokens_only_removes_the_file() {
    for file in [no_file(), Step::Is(Event::Loaded(Some(Bytes::new())))] {
        let mut rig = Rig::new();
        rig.give(logout());
        assert_eq!(rig.give(file), "remove, → removing");
        assert_eq!(rig.give(saved()), "was not signed in, → idle");
    }
}

#[test]
fn tokens_are_never_sent_to_a_relay_in_clear_text() {
    let mut rig = Rig::at("http://relay.example");
    assert_eq!(rig.give(start(true)), "failed not-a-relay, → idle");
    rig.give(logout());
    let file = json!({
        "issuer": "http://relay.example",
        "clientId": "mcp-local-tunnel-agent",
        "accessToken": "a",
        "refreshToken": "r",
        "expiresAt": u64::MAX,
    });
    let loaded = Step::Is(Event::Loaded(Some(file.to_string().into())));
    assert_eq!(rig.give(loaded), "failed not-revoked, → idle");
}

#[test]
fn clocks_that_jump_do_no_harm() {
    let mut rig = Rig::in_state("ready");
    rig.now.unix = UnixTime::from_secs(u64::MAX);
    assert_eq!(rig.give(start(false)), "load, → loading");
    rig.now.instant = Instant::from_micros(0);
    rig.give(file("a", Some("r"), HOUR));
    rig.give(metadata());
    rig.give(issued("b"));
    assert!(rig.give(saved()).ends_with("→ ready"));
}

#[test]
fn debug_of_events_and_actions_shows_no_secret() {
    let tokens = Tokens { access: Secret::new("s3cret"), refresh: None, expires: UnixTime::default() };
    let fetched = Fetched { status: StatusCode::OK, headers: HeaderMap::new(), body: "s3cret".into() };
    let shown = [
        format!("{:?}", Event::Loaded(Some(Bytes::from_static(b"s3cret")))),
        format!("{:?}", Event::Fetched { fetch: FetchId(0), result: Ok(fetched) }),
        format!("{:?}", Event::Callback { target: "/callback?code=s3cret".into() }),
        format!("{:?}", Action::Save(Some(tokens.to_file(RELAY)))),
        format!("{:?}", Action::Ready { access: tokens.access, expires: tokens.expires }),
    ];
    for text in shown {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

proptest! {
    /// Whatever comes in whatever order: askers are answered once, only the two waits are timed, and every state can
    /// still be left for a clean one.
    #[test]
    fn any_sequence_of_events_leaves_the_machine_sound(picks in proptest::collection::vec((0..28_usize, 0..2_000_u64), 0..60)) {
        let mut rig = Rig::new();
        for (pick, secs) in picks {
            rig.pass(Duration::from_secs(secs));
            let (name, event) = events().swap_remove(pick);
            let callback = matches!(name, "code" | "denied" | "foreign callback");
            let said = rig.give(event);
            prop_assert_eq!(said.matches("answer").count(), usize::from(callback), "{}: {}", name, said);
            let timed = rig.signin.poll_timeout().is_some();
            prop_assert!(!timed || matches!(rig.signin.state_name(), "ready" | "waiting" | "pending"), "{}", said);
        }
        rig.give(logout());
        let said: Vec<String> = [no_file(), lost(), saved()].into_iter().map(|step| rig.give(step)).collect();
        prop_assert_eq!(rig.signin.state_name(), "idle", "{:?}", said);
    }
}
