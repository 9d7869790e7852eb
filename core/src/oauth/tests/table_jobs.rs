//! Every slow job under way, and every end that it may have. What follows: answers by their status or error, `keep` for what
//! is ordered to be kept next, and who is told what. `.`: nothing.

use super::super::grants::Pending;
use super::super::keys::NewKeys;
use super::super::store::{Answer, Redeemed, Then};
use super::*;
use crate::id::{ConnId, DeviceName, UserId};
use crate::relay::SessionKey;
use crate::table::Table;

/// By what is under way. "all": everybody is being signed out, whose keys are made here, or come from the configuration.
const STATES: [(&str, &str); 18] = [
    ("none", ""),
    ("password", "password"),
    ("tokens for a code", "tokens for a code"),
    ("tokens for a device", "tokens for a device"),
    ("tokens for a refresh", "tokens"),
    ("a token for the operator", "token"),
    ("a note", "note"),
    ("a client revokes", "revocation for a client"),
    ("the operator revokes", "revocation for the operator"),
    ("the relay revokes", "revocation"),
    ("a person revokes all", "revocation of several"),
    ("a session ends", "session"),
    ("a sweep", "sweep"),
    ("a new key", "new key"),
    ("all, keys made here", "new key for all"),
    ("all, with their new key", "all families, new key: true"),
    ("all, keys configured", "all families, new key: false"),
    ("all, behind a refresh", "tokens"),
];

struct Bench {
    relay: Relay,
    /// The job that is under way.
    job: JobId,
}

/// What a job is for: one that is new does not compile before it has its word, and its state above.
pub(super) fn words(pending: &Pending) -> String {
    match pending {
        Pending::Verify(_) => "password".into(),
        Pending::Family { then, .. } => match then {
            Then::Issue { redeemed: None, .. } => "tokens".into(),
            Then::Issue { redeemed: Some(Redeemed::Code(_)), .. } => "tokens for a code".into(),
            Then::Issue { redeemed: Some(Redeemed::Device(_)), .. } => "tokens for a device".into(),
            Then::Revoke(Answer::Nobody) => "revocation".into(),
            Then::Revoke(Answer::Client(_)) => "revocation for a client".into(),
            Then::Revoke(Answer::Admin(_)) => "revocation for the operator".into(),
            Then::Revoke(Answer::Several(_)) => "revocation of several".into(),
            Then::Mint { .. } => "token".into(),
            Then::Note => "note".into(),
        },
        Pending::Session { .. } => "session".into(),
        Pending::Sweep => "sweep".into(),
        Pending::Keys { what: NewKeys::Rotation(_), .. } => "new key".into(),
        Pending::Keys { what: NewKeys::Revocation, .. } => "new key for all".into(),
        Pending::RevokeAll { next, .. } => format!("all families, new key: {}", next.is_some()),
    }
}

const ADMIN: JobId = JobId(u64::MAX);

impl Bench {
    fn in_state(state: &str) -> Self {
        let configured = Keyring::configured(vec![crate::seal::Sealer::generate(&mut Seeded::new(1))]);
        let mut relay = match state {
            "all, keys configured" => {
                Relay::at(PUBLIC, local(), BTreeMap::new(), configured, UnixTime::from_secs(START))
            }
            _ => Relay::new(),
        };
        let order = |relay: &mut Relay, command| relay.event(Event::Admin { job: ADMIN, command });
        let tokens = relay.tokens();
        let family = relay.open(&tokens.access, "/mcp").expect("it is good").family;
        let client = tokens.client.as_str();
        let leave = |relay: &mut Relay| relay.leaves_jobs = true;
        match state {
            "none" => leave(&mut relay),
            "password" => {
                let mut browser = Browser::default();
                let page = browser.get(&mut relay, &authorization(client, WEB));
                let reply = browser.agree(&mut relay, &page);
                let page = browser.get(&mut relay, &location(&reply));
                leave(&mut relay);
                let form = fields(&page, &[("user", "ann"), ("password", "ann's password")]);
                let form = form.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let mut headers = browser.headers();
                headers.extend(form_headers());
                headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("same-origin"));
                relay.send(Method::POST, "/login", headers, &form::encode(form));
            }
            "tokens for a code" => {
                let code = relay.code(client, WEB);
                leave(&mut relay);
                relay.send_form("/token", &redemption(client, WEB, &code));
            }
            "tokens for a device" => {
                let device = relay.device();
                Browser::default().connect(&mut relay, &device.user_code);
                relay.pass(Duration::from_secs(5));
                leave(&mut relay);
                relay.send_form("/token", &device.poll());
            }
            "tokens for a refresh" | "all, behind a refresh" => {
                leave(&mut relay);
                relay.send_form("/token", &refresh(client, &tokens.refresh));
                if state == "all, behind a refresh" {
                    order(&mut relay, AdminCommand::KeysRevokeAll);
                }
            }
            "a token for the operator" => {
                leave(&mut relay);
                order(&mut relay, table_admin::create("ann", 7_200));
            }
            "a note" => {
                relay.pass(Duration::from_secs(3_600));
                leave(&mut relay);
                relay.event(Event::TunnelUp { conn: ConnId(1), family, device: DeviceName::new("laptop") });
            }
            "a client revokes" => {
                leave(&mut relay);
                relay.send_form("/revoke", &[("client_id", client), ("token", &tokens.refresh)]);
            }
            "the operator revokes" => {
                leave(&mut relay);
                order(&mut relay, AdminCommand::GrantRevoke { id: family.as_str().into() });
            }
            // A refresh token is used long after it was exchanged.
            "the relay revokes" => {
                relay.refresh(client, &tokens.refresh);
                relay.pass(Duration::from_secs(600));
                leave(&mut relay);
                relay.send_form("/token", &refresh(client, &tokens.refresh));
            }
            "a person revokes all" => {
                leave(&mut relay);
                order(&mut relay, AdminCommand::GrantRevokeAll { user: "ann".into() });
            }
            "a session ends" => {
                leave(&mut relay);
                let (exchange, expires) = (ExchangeId(99), relay.now.unix + Duration::from_secs(60));
                let (user, session) = (UserId::new("local:ann"), SessionKey(Arc::from("s")));
                relay.event(Event::EndSession { exchange, user, session, expires });
            }
            "a sweep" => {
                leave(&mut relay);
                relay.pass(Duration::from_secs(200 * 24 * 3_600));
            }
            "a new key" => {
                leave(&mut relay);
                order(&mut relay, AdminCommand::KeysRotate);
            }
            "all, keys made here" | "all, with their new key" | "all, keys configured" => {
                leave(&mut relay);
                order(&mut relay, AdminCommand::KeysRevokeAll);
                if state == "all, with their new key" {
                    let job = *relay.grants.pending.keys().next().expect("the new key is being kept");
                    relay.event(Event::Persisted { job, result: Ok(()) });
                }
            }
            other => panic!("no such state: {other}"),
        }
        relay.replies.clear();
        relay.others.clear();
        let job = relay.grants.pending.keys().next().copied().unwrap_or(JobId(0));
        Self { relay, job }
    }

    fn look(&self) -> String {
        self.relay.grants.pending.values().map(words).collect::<Vec<_>>().join(", ")
    }

    fn give(mut self, event: &str) -> String {
        let before = self.relay.snapshot.clone();
        let full = || Err("disk full".to_string());
        self.relay.event(match event {
            "kept" => Event::Persisted { job: self.job, result: Ok(()) },
            "not kept" => Event::Persisted { job: self.job, result: full() },
            "right" => Event::Verified { job: self.job, ok: true },
            "wrong" => Event::Verified { job: self.job, ok: false },
            "another's kept" => Event::Persisted { job: JobId(999), result: Ok(()) },
            "another's not kept" => Event::Persisted { job: JobId(999), result: full() },
            "another's right" => Event::Verified { job: JobId(999), ok: true },
            other => panic!("no such event: {other}"),
        });
        let mut said: Vec<String> = Vec::new();
        for reply in core::mem::take(&mut self.relay.replies).into_values() {
            let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            said.push(match (answer["error"].as_str(), answer.get("access_token").is_some()) {
                (Some(error), _) => error.to_string(),
                (None, true) => "tokens".into(),
                (None, false) => reply.status.as_u16().to_string(),
            });
        }
        said.extend((!Arc::ptr_eq(&before, &self.relay.snapshot)).then(|| "publish".into()));
        for action in core::mem::take(&mut self.relay.others) {
            said.push(match action {
                Action::Persist { .. } => "keep".into(),
                Action::KeepKeys { .. } => "keep keys".into(),
                Action::Revoked { .. } => "revoked at the shards".into(),
                Action::RevokedAll => "all revoked at the shards".into(),
                Action::SessionEnded { .. } => "ended at the shard".into(),
                Action::AdminReply { json, .. } => table_admin::outcome(&json),
                other => panic!("{other:?}"),
            });
        }
        if said.is_empty() { ".".into() } else { said.join(", ") }
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 18])] = &[
    // none, password, code, device, refresh, operator's token, note, client revokes, operator revokes, relay revokes,
    // person revokes all, session, sweep, new key, all made here, all with the new key, all configured, all behind a refresh
    (
        "kept",
        [
            ".",
            ".",
            "tokens, publish",
            "tokens, publish",
            "tokens",
            "publish, a token",
            ".",
            "200, publish, revoked at the shards",
            "publish, revoked at the shards, done",
            ".",
            "publish, revoked at the shards, 1 revoked",
            "204, publish, ended at the shard",
            ".",
            "publish, 2 kept",
            "keep",
            "publish, all revoked at the shards, 1 signedOut",
            "publish, all revoked at the shards, 1 signedOut",
            "tokens, keep keys",
        ],
    ),
    (
        "not kept",
        [
            ".",
            ".",
            "temporarily_unavailable",
            "temporarily_unavailable",
            "temporarily_unavailable",
            "refused",
            ".",
            "temporarily_unavailable",
            "refused",
            ".",
            "refused",
            "temporarily_unavailable",
            ".",
            "refused",
            "refused",
            "publish, all revoked at the shards, refused",
            "refused",
            "temporarily_unavailable, keep keys",
        ],
    ),
    ("right", [".", "303", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("wrong", [".", "403", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
    ("another's kept", ["."; 18]),
    ("another's not kept", ["."; 18]),
    ("another's right", ["."; 18]),
];

const SPARED: &[(&str, &[&str])] = &[
    ("they begin jobs, and end none", &["Request", "TokenRefused", "EndSession", "TunnelUp", "Used", "TunnelDown"]),
    ("they begin jobs, and end none", &["Admin"]),
    ("they begin jobs, and end none", ORDERS),
    ("of the login provider and of documents: their own tables", &["Fetched"]),
    ("it begins the sweep", TIME),
];

#[test]
fn every_end_of_every_job() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| bench.look(),
        Bench::give,
    );
}
