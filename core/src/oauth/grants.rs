//! The driven machine of the authorization server.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use tracing::{trace, warn};

use super::codes::Codes;
use super::device;
use super::documents::Documents;
use super::ending::Groups;
use super::error::{Code, Refusal};
use super::families::Family;
use super::keys::NewKeys;
use super::login::{Attempt, Waiting};
use super::places::Places;
use super::presence::Presence;
use super::rates::{self, Rates};
use super::refusals::{RefusedToken, Told};
use super::spent::Spent;
use super::store::{Families, Then};
use super::{Role, Settings, Snapshot, clients, pages};
use crate::config::Login;
use crate::entropy::Entropy;
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::rules::Site;
use crate::http::{Reply, RequestHead};
use crate::id::{ConnId, DeviceName, ExchangeId, FamilyId, FetchId, JobId, UserId};
use crate::keyring::Keyring;
use crate::oidc::{LoginId, RelyingParty};
use crate::relay::SessionKey;
use crate::seal::Sealer;
use crate::secret::Secret;
use crate::time::{Deadline, Now, UnixTime};
use crate::timers::Timers;

/// What happened, as far as sign-in is concerned.
#[derive(Debug)]
pub enum Event {
    /// A request to `/` or to one of the endpoints of sign-in (`/authorize`, `/consent`, `/login`, `/callback`,
    /// `/device`, `/device_authorization`, `/account`, `/token`, `/register`, `/revoke`, `/introspect`),
    /// admitted by the gate, its body read. The metadata documents are the gate's.
    Request {
        /// The exchange to answer.
        exchange: ExchangeId,
        /// The head.
        head: RequestHead,
        /// The whole body.
        body: Bytes,
    },
    /// The gate refused an access token.
    TokenRefused {
        /// The exchange to answer.
        exchange: ExchangeId,
        /// What the gate says.
        refused: RefusedToken,
    },
    /// A client ended its MCP session (DELETE on `/mcp`).
    EndSession {
        /// The exchange to answer.
        exchange: ExchangeId,
        /// Whose session.
        user: UserId,
        /// Its key.
        session: crate::relay::SessionKey,
        /// When it would have expired.
        expires: UnixTime,
    },
    /// A fetch ended.
    Fetched {
        /// Which.
        fetch: FetchId,
        /// With what.
        result: Result<Fetched, FetchError>,
    },
    /// A password check ended.
    Verified {
        /// Which.
        job: JobId,
        /// Whether the password was right.
        ok: bool,
    },
    /// A write to the store ended.
    Persisted {
        /// Which.
        job: JobId,
        /// `Err` says what the store said; what was written must not be acknowledged.
        result: Result<(), String>,
    },
    /// A tunnel of the family was opened; bring this after its user's shard knows of it, which decides what becomes of it.
    /// Should the family have been revoked meanwhile, [`Action::Revoked`] says so again.
    TunnelUp {
        /// Its connection.
        conn: ConnId,
        /// The grant that it was opened with.
        family: FamilyId,
        /// What the device calls itself.
        device: DeviceName,
    },
    /// A token of the family was good for a request on `/mcp`: told once an hour or so.
    Used {
        /// The family.
        family: FamilyId,
    },
    /// A tunnel ended.
    TunnelDown {
        /// Its connection.
        conn: ConnId,
    },
    /// The operator asks, on the admin socket or the command line.
    Admin {
        /// To answer with [`Action::AdminReply`].
        job: JobId,
        /// What.
        command: AdminCommand,
    },
}

/// What an operator may ask of a relay's grants.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum AdminCommand {
    /// Mint a token for scripts and headless machines.
    TokenCreate {
        /// The person: a local user's name or the provider's claim, as the configuration's login has it.
        user: String,
        /// What it opens.
        role: Role,
        /// What it may do there, as OAuth writes scopes: all that the role can when it names none.
        #[serde(default)]
        scope: String,
        /// A note for the list.
        label: String,
        /// How long it lives, in seconds.
        lifetime_secs: u64,
    },
    /// List minted tokens.
    TokenList,
    /// Revoke one by its id.
    TokenRevoke {
        /// The id that the list shows.
        id: String,
    },
    /// List all grants: sign-ins of clients and devices, and minted tokens.
    GrantList {
        /// Of this person alone.
        #[serde(default)]
        user: Option<String>,
    },
    /// Revoke one by its id.
    GrantRevoke {
        /// The id that the list shows.
        id: String,
    },
    /// Revoke all of a person's.
    GrantRevokeAll {
        /// Whose.
        user: String,
    },
    /// List the master keys.
    KeysList,
    /// Make a new master key; the old ones go on opening what they sealed.
    KeysRotate,
    /// Sign everybody out.
    KeysRevokeAll,
}

/// What sign-in orders.
#[derive(Debug)]
pub enum Action {
    /// Answer an exchange.
    Reply {
        /// The exchange.
        exchange: ExchangeId,
        /// The answer.
        reply: Reply,
    },
    /// Make a request to the login provider, or for a client's metadata document.
    Fetch {
        /// Its number.
        fetch: FetchId,
        /// The request.
        request: Fetch,
    },
    /// Check a password against an argon2 hash, on the small pool for slow computation.
    Verify {
        /// Its number.
        job: JobId,
        /// What the person typed.
        password: Secret,
        /// The PHC string of the configuration.
        hash: String,
    },
    /// Write to the store, in one transaction, durably; then bring [`Event::Persisted`].
    Persist {
        /// Its number.
        job: JobId,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// Keep these master keys in place of those before, durably; then bring [`Event::Persisted`].
    KeepKeys {
        /// Its number.
        job: JobId,
        /// What to keep.
        keys: Keyring,
    },
    /// Replace the gate's snapshot.
    Publish(Arc<Snapshot>),
    /// Bring [`crate::relay::shard::Event::Revoked`] to every shard.
    Revoked {
        /// The family.
        family: FamilyId,
    },
    /// Bring [`crate::relay::shard::Event::RevokedAll`] to every shard.
    RevokedAll,
    /// Bring [`crate::relay::shard::Event::SessionEnded`] to the user's shard.
    SessionEnded {
        /// Whose.
        user: UserId,
        /// The session's key.
        session: crate::relay::SessionKey,
    },
    /// Answer the operator: one JSON document.
    AdminReply {
        /// The question's number.
        job: JobId,
        /// `{"ok":true,…}` or `{"ok":false,"error":…}`.
        json: Bytes,
    },
    /// Append this line, its end included, to the audit.
    Audit(Bytes),
}

/// One change of the relay's small store: a map from text keys to bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set `key` to `value`.
    Put {
        /// At most 255 bytes.
        key: String,
        /// At most 4 KiB.
        value: Vec<u8>,
    },
    /// Remove `key`.
    Delete {
        /// The key.
        key: String,
    },
}

/// How many grants of a store's `records` give access at `now`, with the keys that sealed their tokens.
#[must_use]
pub fn alive_in(records: &[(String, Vec<u8>)], now: UnixTime) -> usize {
    let families = records.iter().filter_map(|(key, value)| Family::from_record(key, value));
    families.filter(|(_, family)| family.is_alive(now)).count()
}

/// The authorization server's machine. One per relay.
pub struct Grants {
    pub(super) settings: Settings,
    pub(super) site: Site,
    /// The master keys.
    pub(super) keys: Keyring,
    /// What they make.
    pub(super) sealer: Sealer,
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) out: Mailbox<Action>,
    pub(super) families: Families,
    pub(super) presence: Presence,
    /// Revocations of several families that are not complete.
    pub(super) groups: Groups,
    pub(super) codes: Codes,
    pub(super) devices: device::Pending,
    pub(super) documents: Documents,
    pub(super) rates: Rates,
    /// Where people signed in with their passwords.
    pub(super) places: Places,
    /// Lines about refused tokens.
    pub(super) told: Told,
    pub(super) spent: Spent,
    /// What accounts' pages are sealed for, drawn when the first is opened: those of before a restart are closed, since
    /// it is not known any more who has signed out of them, and so are those of before everybody was signed out.
    pub(super) run: Option<[u8; 16]>,
    /// What the gate was last told, and will be told next.
    pub(super) snapshot: Snapshot,
    /// Refusals that are not in the audit for want of room.
    pub(super) untold: u64,
    /// An operator's order to sign everybody out, while it is being carried out.
    pub(super) revoking_all: Option<JobId>,
    /// Slow jobs under way.
    pub(super) pending: BTreeMap<JobId, Pending>,
    /// The relying party, unless people sign in here.
    pub(super) party: Option<RelyingParty>,
    /// Logins that wait for it.
    pub(super) logins: BTreeMap<LoginId, Waiting>,
    pub(super) next_login: u64,
    pub(super) next_fetch: u64,
    next_job: u64,
    clamp: MonotonicClamp,
    timers: Timers<Timer>,
}

/// A slow job under way: what to do when it ends.
pub(super) enum Pending {
    /// A password check.
    Verify(Attempt),
    /// A family's record is being written.
    Family { id: FamilyId, next: Family, then: Then },
    /// The record of an ended session is being written.
    Session { exchange: ExchangeId, user: UserId, session: SessionKey, expires: UnixTime },
    /// Records that ended are being removed.
    Sweep,
    /// New master keys are being kept.
    Keys { admin: JobId, next: Keyring, what: NewKeys },
    /// All families are being ended, with new keys or with the same.
    RevokeAll { admin: JobId, next: Option<Keyring> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Forget what has ended.
    Sweep,
}

impl Grants {
    /// A machine that knows what the store's `records` say. Its first actions, the snapshot among them, are there at
    /// once: drain them before the first input.
    #[must_use]
    pub fn new(
        settings: Settings,
        keys: Keyring,
        records: Vec<(String, Vec<u8>)>,
        entropy: Box<dyn Entropy>,
        now: Now,
    ) -> Self {
        let party = match &settings.login {
            Login::Oidc(oidc) => Some(RelyingParty::new(oidc.clone(), settings.url("/callback"))),
            Login::Local(_) => None,
        };
        let requests_per_minute = settings.requests_per_minute;
        let site = Site::new(&settings.public_url, &[]).expect("the configuration checks the public URL");
        let sealer = keys.sealer();
        let mut grants = Self {
            settings,
            site,
            snapshot: Snapshot::new(sealer.clone()),
            keys,
            sealer,
            entropy,
            out: Mailbox::default(),
            families: Families::default(),
            presence: Presence::default(),
            groups: Groups::default(),
            codes: Codes::default(),
            devices: device::Pending::default(),
            documents: Documents::default(),
            rates: Rates::new(requests_per_minute),
            places: Places::default(),
            told: Told::default(),
            spent: Spent::default(),
            run: None,
            untold: 0,
            revoking_all: None,
            pending: BTreeMap::new(),
            party,
            logins: BTreeMap::new(),
            next_login: 0,
            next_fetch: 0,
            next_job: 0,
            clamp: MonotonicClamp::default(),
            timers: Timers::default(),
        };
        let now = grants.clamp.clamp(now);
        grants.load(records, now);
        grants.timers.set(Timer::Sweep, now.instant + SWEEP_INTERVAL);
        grants
    }

    /// Answers an exchange.
    pub(super) fn reply(&mut self, exchange: ExchangeId, reply: Reply) {
        self.out.push(Action::Reply { exchange, reply });
    }

    /// The number of the next slow job.
    pub(super) fn next_job(&mut self) -> JobId {
        self.next_job = self.next_job.wrapping_add(1);
        JobId(self.next_job)
    }

    /// A user in the log.
    pub(super) fn pseudonym(&self, user: &UserId) -> String {
        self.sealer.pseudonym(user)
    }

    fn request(&mut self, exchange: ExchangeId, head: &RequestHead, body: &Bytes, now: Now) {
        let reply = match (head.uri.path(), head.method.as_str()) {
            ("/", "GET" | "HEAD") => pages::landing(&self.settings),
            ("/authorize", "GET" | "HEAD") => return self.authorize(exchange, head, now),
            ("/consent", "POST") => return self.consent(exchange, head, body, now),
            ("/login", "GET" | "HEAD") => self.login_page(head, now),
            ("/login", "POST") => return self.login(exchange, head, body, now),
            ("/callback", "GET") => return self.callback(exchange, head, now),
            ("/account", "GET" | "HEAD" | "POST") => return self.account(exchange, head, body, now),
            ("/token", "POST") => return self.token(exchange, head, body, now),
            ("/revoke", "POST") => return self.revoke(exchange, head, body, now),
            ("/device_authorization", "POST") => self.device_authorization(head, body, now),
            ("/introspect", "POST") => self.introspect(head, body, now),
            ("/device", "GET" | "HEAD" | "POST") => self.device(head, body, now),
            ("/register", "POST") => self.register(head, body, now),
            ("/consent", _) => not_a_page("POST"),
            ("/authorize" | "/callback" | "/", _) => not_a_page("GET"),
            ("/login" | "/device" | "/account", _) => not_a_page("GET, POST"),
            ("/token" | "/revoke" | "/register" | "/device_authorization" | "/introspect", _) => not_allowed("POST"),
            _ => Reply::text(StatusCode::NOT_FOUND, "there is nothing here"),
        };
        self.reply(exchange, reply);
    }

    fn register(&mut self, head: &RequestHead, body: &Bytes, now: Now) -> Reply {
        if !self.rates.take(rates::Kind::Register, head.peer, now.instant) {
            return Refusal::new(Code::SlowDown, "too many registrations from this address").reply();
        }
        match clients::register(&self.sealer, head, body, &mut *self.entropy, now) {
            Ok(reply) => reply,
            Err(refusal) => refusal.reply(),
        }
    }

    fn persisted(&mut self, job: JobId, result: Result<(), String>, now: Now) {
        match self.pending.remove(&job) {
            Some(Pending::Family { id, next, then }) => self.family_written(id, next, then, result, now),
            Some(Pending::Session { exchange, user, session, expires }) => {
                self.session_written(exchange, user, session, expires, result);
            }
            Some(Pending::Sweep) => {
                if let Err(reason) = result {
                    warn!(reason, "the store cannot be written: old records stay");
                }
            }
            Some(Pending::Keys { admin, next, what }) => self.keys_kept((admin, next), what, result, now),
            Some(Pending::RevokeAll { admin, next }) => self.families_ended((admin, next), result, now),
            Some(other @ Pending::Verify(_)) => {
                self.pending.insert(job, other);
            }
            None => trace!(%job, "a write that nobody waits for ended"),
        }
        self.go_on_revoking(now);
    }

    fn verify_ended(&mut self, job: JobId, ok: bool, now: Now) {
        match self.pending.remove(&job) {
            Some(Pending::Verify(attempt)) => self.verified(attempt, ok, now),
            Some(other) => {
                self.pending.insert(job, other);
            }
            None => trace!(%job, "a check that nobody waits for ended"),
        }
    }

    fn fetched(&mut self, fetch: FetchId, result: Result<Fetched, FetchError>, now: Now) {
        if self.documents.owns(fetch) {
            self.document_fetched(fetch, &result, now);
        } else if let Some(party) = &mut self.party {
            party.handle_fetched(fetch, result, now, &mut self.next_fetch);
            self.drain_party(now);
        }
    }
}

impl Machine for Grants {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let now = self.clamp.clamp(now);
        match event {
            Event::Request { exchange, head, body } => self.request(exchange, &head, &body, now),
            Event::TokenRefused { exchange, refused } => self.token_refused(exchange, refused, now),
            Event::EndSession { exchange, user, session, expires } => {
                self.end_session(exchange, user, session, expires, now);
            }
            Event::Fetched { fetch, result } => self.fetched(fetch, result, now),
            Event::Verified { job, ok } => self.verify_ended(job, ok, now),
            Event::Persisted { job, result } => self.persisted(job, result, now),
            Event::TunnelUp { conn, family, device } => self.tunnel_up(conn, family, &device, now),
            Event::Used { family } => self.used(&family, now),
            Event::TunnelDown { conn } => self.tunnel_down(conn, now),
            Event::Admin { job, command } => self.admin(job, command, now),
        }
        self.note_rates(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clamp.clamp(now);
        while let Some(timer) = self.timers.pop_due(now.instant) {
            match timer {
                Timer::Sweep => {
                    self.sweep(now);
                    self.timers.set(Timer::Sweep, now.instant + SWEEP_INTERVAL);
                }
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.next().map(|(at, timer)| Deadline {
            at,
            reason: match timer {
                Timer::Sweep => "forget what has ended",
            },
        })
    }
}

/// The answer to people, who typed the address or went back to it.
fn not_a_page(allow: &'static str) -> Reply {
    let message = "This address is a step on the way, and has nothing to show by itself.";
    pages::error(StatusCode::METHOD_NOT_ALLOWED, message, None).with(ALLOW, HeaderValue::from_static(allow))
}

/// The answer to programs.
fn not_allowed(allow: &'static str) -> Reply {
    Reply::text(StatusCode::METHOD_NOT_ALLOWED, "this endpoint does not take that method")
        .with(ALLOW, HeaderValue::from_static(allow))
}

/// How often ended records are removed. Expiry itself is judged at every use.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
