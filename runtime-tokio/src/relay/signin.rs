//! The authorization server's machine with its exchanges, its store and the jobs it orders.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tunnel_core::host::Machine;
use tunnel_core::http::fetch::Fetch;
use tunnel_core::id::{ExchangeId, FamilyId, FetchId, JobId, UserId};
use tunnel_core::keyring::Keyring;
use tunnel_core::oauth::Snapshot;
use tunnel_core::oauth::grants::{Action, AdminCommand, Event, Grants};
use tunnel_core::relay::SessionKey;
use tunnel_core::secret::Secret;
use tunnel_core::time::Now;

use crate::audit::Shared;
use crate::driver::Hosted;
use crate::exchange::{ExchangeHandle, Part};
use crate::keys;
use crate::rt;
use crate::store::{Committed, Store};

/// The snapshot that the gate judges by: replaced as a whole, read by every request.
#[derive(Debug)]
pub(super) struct Published(RwLock<Arc<Snapshot>>);

impl Published {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self(RwLock::new(Arc::new(snapshot)))
    }

    pub(super) fn get(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, snapshot: Arc<Snapshot>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// The machine, and whom its orders are for.
pub(super) struct Office {
    grants: Grants,
    store: Store,
    /// Where the master keys are kept; `None`: nowhere.
    dir: Option<PathBuf>,
    published: Arc<Published>,
    audit: Option<Shared>,
    exchanges: HashMap<ExchangeId, ExchangeHandle>,
    /// Operators who wait for an answer.
    asked: HashMap<JobId, oneshot::Sender<Bytes>>,
    next_question: u64,
}

/// What is done without the lock.
pub(super) enum Later {
    Wake(ExchangeHandle),
    Fetch(FetchId, Fetch),
    Verify(JobId, Secret, String),
    /// Bring `Persisted` once it is.
    Await(JobId, Committed),
    /// Write the keys there, then bring `Persisted`.
    Keep(JobId, Keyring, Option<PathBuf>),
    Revoked(FamilyId),
    RevokedAll,
    SessionEnded(UserId, SessionKey),
    Answer(oneshot::Sender<Bytes>, Bytes),
}

impl Office {
    pub(super) fn new(
        grants: Grants,
        store: Store,
        dir: Option<PathBuf>,
        published: Arc<Published>,
        audit: Option<Shared>,
    ) -> Self {
        let (exchanges, asked) = (HashMap::new(), HashMap::new());
        Self { grants, store, dir, published, audit, exchanges, asked, next_question: 0 }
    }

    /// A request, to be answered to `handle`.
    pub(super) fn ask(&mut self, exchange: ExchangeId, handle: ExchangeHandle, event: Event, now: Now) {
        self.exchanges.insert(exchange, handle);
        self.grants.handle_event(event, now);
    }

    /// Whoever asked went away: the answer will find nobody.
    pub(super) fn gone(&mut self, exchange: ExchangeId) {
        self.exchanges.remove(&exchange);
    }

    /// An operator's question.
    pub(super) fn question(&mut self, command: AdminCommand, answer: oneshot::Sender<Bytes>, now: Now) {
        let job = JobId(self.next_question);
        self.next_question += 1;
        self.asked.insert(job, answer);
        self.grants.handle_event(Event::Admin { job, command }, now);
    }
}

impl Hosted for Office {
    type Machine = Grants;
    type Later = Later;

    fn machine(&mut self) -> &mut Grants {
        &mut self.grants
    }

    fn carry_out(&mut self, action: Action, _now: Now, later: &mut Vec<Later>) {
        match action {
            Action::Reply { exchange, reply } => {
                if let Some(handle) = self.exchanges.remove(&exchange) {
                    handle.push(Part::Reply(reply));
                    later.push(Later::Wake(handle));
                }
            }
            Action::Fetch { fetch, request } => later.push(Later::Fetch(fetch, request)),
            Action::Verify { job, password, hash } => later.push(Later::Verify(job, password, hash)),
            // Given to the store's thread here and now, so that writes keep their order.
            Action::Persist { job, changes } => later.push(Later::Await(job, self.store.submit(changes))),
            Action::KeepKeys { job, keys } => later.push(Later::Keep(job, keys, self.dir.clone())),
            // Likewise: a later snapshot must not be overtaken by an earlier one, nor by the reply that relies on it.
            Action::Publish(snapshot) => self.published.set(snapshot),
            Action::Audit(line) => self.audit.iter().for_each(|audit| audit.append(line.clone())),
            Action::Revoked { family } => later.push(Later::Revoked(family)),
            Action::RevokedAll => later.push(Later::RevokedAll),
            Action::SessionEnded { user, session } => later.push(Later::SessionEnded(user, session)),
            Action::AdminReply { job, json } => {
                later.extend(self.asked.remove(&job).map(|answer| Later::Answer(answer, json)));
            }
        }
    }

    /// Its state cannot be thrown away like a shard's: it goes on, and who waits is told.
    fn recover(&mut self, _now: Now, later: &mut Vec<Later>) {
        for (_, handle) in self.exchanges.drain() {
            handle.push(Part::Abort);
            later.push(Later::Wake(handle));
        }
        self.asked.clear();
    }
}

/// Keeps the master keys; without a directory they are in memory alone, as they were.
pub(super) async fn keep(keys: Keyring, dir: Option<PathBuf>) -> Result<(), String> {
    let Some(dir) = dir else { return Ok(()) };
    let written = rt::spawn_blocking(move || keys::keep(&dir, &keys)).await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Checks a password against an argon2 hash, a few at a time: each takes tens of milliseconds and megabytes.
pub(super) async fn verify(places: &Semaphore, password: Secret, hash: String) -> bool {
    let Ok(_place) = places.acquire().await else { return false };
    let check = move || {
        let hash = PasswordHash::new(&hash).ok()?;
        Argon2::default().verify_password(password.expose().as_bytes(), &hash).ok()
    };
    matches!(rt::spawn_blocking(check).await, Ok(Some(())))
}
