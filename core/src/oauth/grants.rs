//! The driven machine of the authorization server.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Role, Settings, Snapshot};
use crate::entropy::Entropy;
use crate::host::{Machine, Mailbox};
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::{Reply, RequestHead};
use crate::id::{ExchangeId, FamilyId, FetchId, JobId, UserId};
use crate::seal::Sealer;
use crate::secret::Secret;
use crate::time::{Deadline, Now, UnixTime};

/// What happened, as far as sign-in is concerned.
#[derive(Debug)]
pub enum Event {
    /// A request to one of the endpoints of sign-in (`/authorize`, `/consent`, `/login`, `/callback`, `/token`,
    /// `/register`, `/revoke`, the metadata documents), admitted by the gate, its body read.
    Request {
        /// The exchange to answer.
        exchange: ExchangeId,
        /// The head.
        head: RequestHead,
        /// The whole body.
        body: Bytes,
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
    /// Make a request to the login provider.
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
    /// Replace the gate's snapshot.
    Publish(Arc<Snapshot>),
    /// Bring [`crate::relay::shard::Event::Revoked`] to every shard.
    Revoked {
        /// The family.
        family: FamilyId,
    },
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

/// The authorization server's machine. One per relay.
pub struct Grants {
    settings: Settings,
    sealer: Sealer,
    entropy: Box<dyn Entropy>,
    out: Mailbox<Action>,
}

impl Grants {
    /// A machine that knows what the store's `records` say. Its first actions, the snapshot among them, are there at
    /// once: drain them before the first input.
    #[must_use]
    pub fn new(
        settings: Settings,
        sealer: Sealer,
        records: Vec<(String, Vec<u8>)>,
        entropy: Box<dyn Entropy>,
        now: Now,
    ) -> Self {
        let _ = (records, now);
        let mut out = Mailbox::default();
        out.push(Action::Publish(Arc::new(Snapshot::default())));
        Self { settings, sealer, entropy, out }
    }
}

impl Machine for Grants {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let _ = (event, now, &self.settings, &self.sealer, &mut self.entropy);
    }

    fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}
