//! What the operator asks about the master keys: a new one, a list, and the end of everything that they sealed.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Serialize;
use tracing::{info, warn};

use super::families::{Family, Kind};
use super::grants::{Action, Change, Grants, Pending};
use super::{codes, device, store};
use crate::id::{FamilyId, JobId};
use crate::keyring::{Keyring, Origin};
use crate::time::{Now, UnixTime};

/// What new keys are for.
pub(super) enum NewKeys {
    /// The old ones go on opening, but the one of this id, if any.
    Rotation(Option<String>),
    /// Nothing of the old ones is left.
    Revocation,
}

impl Grants {
    /// Lists the keys: never what they are.
    pub(super) fn list_keys(&mut self, job: JobId) {
        let keys = self.keys.keys().iter().enumerate().map(|(index, kept)| Listed {
            id: kept.key.name(),
            made: kept.made.map(|made| made.as_secs()),
            seals: index == 0,
        });
        let keys = keys.collect();
        self.admin_reply(job, &List { ok: true, configured: self.keys.origin() == Origin::Configured, keys });
    }

    /// Puts a new key before the others, once it is kept.
    pub(super) fn rotate_keys(&mut self, job: JobId, now: Now) {
        if self.changes_keys() {
            return self.admin_refused(job, BUSY);
        }
        let minted = |family: &Family| match family.kind {
            Kind::Minted { .. } if family.is_alive(now.unix) => Some(UnixTime::from_millis(family.created)),
            Kind::Minted { .. } | Kind::SignIn { .. } => None,
        };
        let minted = self.families.known.values().filter_map(minted).min();
        match self.keys.rotated(&mut *self.entropy, now.unix, minted) {
            Ok((next, gone)) => self.keep_keys(job, next, NewKeys::Rotation(gone)),
            Err(why) => self.admin_refused(job, &alloc::format!("{why}")),
        }
    }

    /// Signs everybody out. Writes under way end first, and none begins until it is done.
    pub(super) fn revoke_all(&mut self, job: JobId, now: Now) {
        if self.changes_keys() {
            return self.admin_refused(job, BUSY);
        }
        self.revoking_all = Some(job);
        self.go_on_revoking(now);
    }

    /// A write ended: the revocation of all may have waited for it.
    pub(super) fn go_on_revoking(&mut self, now: Now) {
        let Some(job) = self.revoking_all else { return };
        let writes = |pending: &Pending| !matches!(pending, Pending::Verify(_));
        if self.pending.values().any(writes) {
            return;
        }
        match self.keys.origin() {
            Origin::Made => {
                let next = Keyring::made(&mut *self.entropy, now.unix);
                self.keep_keys(job, next, NewKeys::Revocation);
            }
            Origin::Configured => self.end_families(job, None, now),
        }
    }

    /// New keys are kept, or not.
    pub(super) fn keys_kept(
        &mut self,
        (job, next): (JobId, Keyring),
        what: NewKeys,
        result: Result<(), String>,
        now: Now,
    ) {
        if let Err(reason) = result {
            warn!(reason, "the keys cannot be written");
            self.revoking_all = None;
            return self.admin_refused(job, "the keys cannot be written, see the relay's log: nothing has changed");
        }
        match what {
            NewKeys::Rotation(gone) => {
                self.take_keys(next);
                self.publish();
                let id = self.keys.keys().first().map(|kept| kept.key.name()).unwrap_or_default();
                info!(key = id, "master key rotated");
                self.admin_reply(job, &Rotated { ok: true, id, gone, kept: self.keys.keys().len() });
            }
            NewKeys::Revocation => self.end_families(job, Some(next), now),
        }
    }

    /// The records of all families are written or gone, or not.
    pub(super) fn families_ended(
        &mut self,
        (job, next): (JobId, Option<Keyring>),
        result: Result<(), String>,
        now: Now,
    ) {
        self.revoking_all = None;
        let written = result.inspect_err(|reason| warn!(reason, "the store cannot be written"));
        if written.is_err() && next.is_none() {
            return self.admin_refused(job, "the store cannot be written, see the relay's log: nothing has changed");
        }
        let signed_out = self.families.known.values().filter(|family| family.is_alive(now.unix)).count();
        let renewed = next.is_some();
        match next {
            Some(next) => {
                // What the old keys sealed is worthless: nothing of it need be remembered.
                self.take_keys(next);
                for id in core::mem::take(&mut self.families.known).keys() {
                    self.presence.forget(id);
                }
                self.snapshot.ended_sessions.clear();
            }
            None => {
                for family in self.families.known.values_mut() {
                    *family = family.revoke(now.unix);
                }
            }
        }
        self.snapshot.families = Arc::default();
        self.run = None;
        self.codes = codes::Codes::default();
        self.devices = device::Pending::default();
        info!(families = signed_out, "everybody is signed out");
        self.publish();
        self.out.push(Action::RevokedAll);
        match written {
            Ok(()) => self.admin_reply(job, &RevokedAll { ok: true, signed_out, renewed }),
            Err(_) => self.admin_refused(
                job,
                "everybody is signed out, but their old records are still in the store; see the relay's log",
            ),
        }
    }

    fn changes_keys(&self) -> bool {
        let changes = |pending: &Pending| matches!(pending, Pending::Keys { .. } | Pending::RevokeAll { .. });
        self.revoking_all.is_some() || self.pending.values().any(changes)
    }

    fn keep_keys(&mut self, admin: JobId, next: Keyring, what: NewKeys) {
        let job = self.next_job();
        self.out.push(Action::KeepKeys { job, keys: next.clone() });
        self.pending.insert(job, Pending::Keys { admin, next, what });
    }

    /// Ends all families in the store: with new keys nothing of them is left; with the same keys they stay until the last
    /// access token has run out.
    fn end_families(&mut self, admin: JobId, next: Option<Keyring>, now: Now) {
        let change = |(id, family): (&FamilyId, &Family)| match &next {
            Some(_) => Some(Change::Delete { key: Family::record_key(id) }),
            None if family.revoked.is_some() => None,
            None => Some(Change::Put { key: Family::record_key(id), value: family.revoke(now.unix).to_record() }),
        };
        let mut changes: Vec<_> = self.families.known.iter().filter_map(change).collect();
        if next.is_some() {
            changes.extend(self.snapshot.ended_sessions.keys().map(store::forget_session));
        }
        self.persist(changes, Pending::RevokeAll { admin, next });
    }

    fn take_keys(&mut self, next: Keyring) {
        self.sealer = next.sealer();
        self.snapshot.sealer = self.sealer.clone();
        self.keys = next;
    }
}

const BUSY: &str = "the keys are being changed already: try again";

#[derive(Serialize)]
struct List {
    ok: bool,
    /// Whether they come from the configuration.
    configured: bool,
    keys: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    id: String,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<u64>,
    /// Whether it seals what is made now; the others only open.
    seals: bool,
}

#[derive(Serialize)]
struct Rotated {
    ok: bool,
    /// Of the new key.
    id: String,
    /// Of the one that opens nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<String>,
    /// How many there are now.
    kept: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RevokedAll {
    ok: bool,
    /// How many sign-ins and tokens were good.
    signed_out: usize,
    /// Whether there is a new key: not if it comes from the configuration.
    renewed: bool,
}
