//! Which families have tunnels open, when they last had, and when a token of theirs was taken at `/mcp` last: what people
//! know their devices and clients by.
//!
//! Tunnels are known at once, the use of clients' tokens to the hour or so, as the shards tell it. It is written with the
//! family's next record or within the hour: an agent that comes and goes all day must not wear the store out, nor a busy
//! client. Only good tokens come this far.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::families::About;
use super::grants::{Action, Grants};
use super::store::Then;
use super::text;
use crate::id::{ConnId, DeviceName, FamilyId};
use crate::limits;
use crate::time::{Now, UnixTime};

/// Open tunnels, and what is not written of them.
#[derive(Debug, Default)]
pub(super) struct Presence {
    open: BTreeMap<ConnId, FamilyId>,
    /// When the record of a family that has, or had, tunnels was written last.
    written: BTreeMap<FamilyId, UnixTime>,
    /// Families of which something newer is known.
    unwritten: BTreeSet<FamilyId>,
}

impl Presence {
    /// A stored record says this.
    pub(super) fn read(&mut self, id: &FamilyId, about: &About) {
        if let Some(seen) = about.seen() {
            self.written.insert(id.clone(), UnixTime::from_millis(seen));
        }
    }

    /// A family's record is about to be written, with what is known.
    pub(super) fn writing(&mut self, id: &FamilyId) {
        self.unwritten.remove(id);
    }

    /// A family's record was written.
    pub(super) fn written(&mut self, id: &FamilyId, now: Now) {
        self.written.insert(id.clone(), now.unix);
    }

    /// A family is no more.
    pub(super) fn forget(&mut self, id: &FamilyId) {
        self.written.remove(id);
        self.unwritten.remove(id);
    }

    /// The families with tunnels.
    pub(super) fn connected(&self) -> BTreeSet<&FamilyId> {
        self.open.values().collect()
    }

    fn may_write(&self, id: &FamilyId, now: Now) -> bool {
        self.written.get(id).is_none_or(|at| now.unix.saturating_since(*at) >= PAUSE)
    }
}

impl Grants {
    /// A tunnel was opened.
    pub(super) fn tunnel_up(&mut self, conn: ConnId, family: FamilyId, device: &DeviceName, now: Now) {
        if !self.snapshot.families.contains(&family) {
            // It was revoked after the gate let the tunnel in, and told to a shard that did not know of the tunnel yet.
            return self.out.push(Action::Revoked { family });
        }
        if self.presence.open.len() >= limits::MAX_CONNECTIONS {
            return;
        }
        if let Some(known) = self.families.known.get_mut(&family) {
            known.about.device = text::clean(device.as_str(), MAX_DEVICE_NAME);
        }
        self.presence.open.insert(conn, family.clone());
        self.seen(&family, now, |about| &mut about.connected);
    }

    /// A tunnel ended.
    pub(super) fn tunnel_down(&mut self, conn: ConnId, now: Now) {
        if let Some(family) = self.presence.open.remove(&conn) {
            self.seen(&family, now, |about| &mut about.connected);
        }
    }

    /// A client's token of the family was taken.
    pub(super) fn used(&mut self, family: &FamilyId, now: Now) {
        self.seen(family, now, |about| &mut about.used);
    }

    /// Writes what has waited for long enough.
    pub(super) fn note_presence(&mut self, now: Now) {
        // A tunnel may stay up for weeks, and the relay end without seeing its end.
        let old = |id: &&FamilyId| {
            let seen = self.families.known.get(*id).and_then(|family| family.about.connected);
            seen.is_some_and(|seen| now.unix.saturating_since(UnixTime::from_millis(seen)) >= PAUSE)
        };
        let up: Vec<_> = self.presence.connected().into_iter().filter(old).take(limits::SWEEP_BATCH).cloned().collect();
        for id in up {
            self.seen(&id, now, |about| &mut about.connected);
        }
        let due = |id: &&FamilyId| self.presence.may_write(id, now) && !self.is_busy(id);
        let due: Vec<_> = self.presence.unwritten.iter().filter(due).take(limits::SWEEP_BATCH).cloned().collect();
        for id in due {
            self.write_presence(&id, now);
        }
    }

    fn seen(&mut self, id: &FamilyId, now: Now, time: impl FnOnce(&mut About) -> &mut Option<u64>) {
        let Some(family) = self.families.known.get_mut(id).filter(|family| family.revoked.is_none()) else { return };
        *time(&mut family.about) = Some(now.unix.as_millis());
        self.presence.unwritten.insert(id.clone());
        self.write_presence(id, now);
    }

    /// Writes what is known of a family's use, unless that was done not long ago.
    fn write_presence(&mut self, id: &FamilyId, now: Now) {
        if self.is_busy(id) || !self.presence.may_write(id, now) || !self.can_write() {
            return;
        }
        if let Some(family) = self.families.known.get(id).filter(|family| family.revoked.is_none()) {
            // Counted from here on, also should the write fail: a full disk is not asked more often.
            self.presence.written(id, now);
            self.write_family(id.clone(), family.clone(), Then::Note);
        }
    }
}

/// Between two writes of one family for this alone.
const PAUSE: Duration = Duration::from_secs(60 * 60);
/// Characters of a device's name that are kept: what fits a line.
const MAX_DEVICE_NAME: usize = 80;
