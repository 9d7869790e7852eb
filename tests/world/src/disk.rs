//! The relay's disk: a store that can be slow, full or broken, and what a crash leaves of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tunnel_core::id::JobId;
use tunnel_core::oauth::grants::{Change, Event as GrantsEvent};

use crate::link::micros;
use crate::sabotage::Sabotage;
use crate::world::{Delivery, World};

/// What a relay keeps through a restart, and how its disk is.
#[derive(Debug, Default)]
pub struct Disk {
    /// The store.
    pub records: BTreeMap<String, Vec<u8>>,
    /// How it is.
    pub health: Health,
    /// Writes under way, oldest first.
    writing: VecDeque<Write>,
    /// The relay's life: writes of an earlier one end without anybody to hear of it.
    life: u64,
}

/// How a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// A write takes a millisecond.
    #[default]
    Good,
    /// A write takes up to this long, each time anew.
    Slow(Duration),
    /// Nothing can be added; what is deleted is.
    Full,
    /// A write fails, and may have been done all the same.
    Broken,
}

#[derive(Debug)]
struct Write {
    job: JobId,
    changes: Vec<Change>,
}

/// The relay's disk.
impl World {
    pub(crate) fn persist(&mut self, job: JobId, changes: Vec<Change>) {
        let span = match self.disk.health {
            Health::Slow(most) => Duration::from_micros(self.dice.next_u64() % micros(most).max(1)),
            Health::Good | Health::Full | Health::Broken => Duration::from_millis(1),
        };
        self.disk.writing.push_back(Write { job, changes });
        let life = self.disk.life;
        self.schedule(span, Delivery::Written(life));
    }

    /// The oldest write ends.
    pub(crate) fn written(&mut self, life: u64) {
        if life != self.disk.life {
            return;
        }
        let Some(Write { job, changes }) = self.disk.writing.pop_front() else { return };
        let adds = changes.iter().any(|change| matches!(change, Change::Put { .. }));
        let result = match self.disk.health {
            Health::Good | Health::Slow(_) => Ok(()),
            Health::Full if !adds => Ok(()),
            Health::Full => Err("no space left on device".to_owned()),
            Health::Broken => Err("input/output error".to_owned()),
        };
        let is_done = result.is_ok() || (self.disk.health == Health::Broken && self.dice.next_u64().is_multiple_of(2));
        let is_forgotten = self.sabotage == Some(Sabotage::Forgetful) && self.clock > 1_000_000;
        if is_done && !is_forgotten {
            self.disk.apply(changes);
        }
        if result.is_err() {
            self.trace.cover(if is_done { "a failed write was done" } else { "a write failed" });
        }
        self.grants(GrantsEvent::Persisted { job, result });
    }

    /// The relay is gone: of the writes under way, the first few were done.
    pub(crate) fn crash_disk(&mut self) {
        self.disk.life += 1;
        for Write { changes, .. } in std::mem::take(&mut self.disk.writing) {
            if self.dice.next_u64().is_multiple_of(2) {
                self.trace.cover("a crash lost a write");
                return;
            }
            self.trace.cover("a crash came after a write and before its answer");
            self.disk.apply(changes);
        }
    }
}

impl Disk {
    /// Everything is gone.
    pub fn lose(&mut self) {
        self.records.clear();
    }

    /// Which life of the relay this is.
    pub(crate) const fn life(&self) -> u64 {
        self.life
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    assert!(key.len() <= 255 && value.len() <= 4096, "a record is small: {key}");
                    drop(self.records.insert(key, value));
                }
                Change::Delete { key } => drop(self.records.remove(&key)),
            }
        }
    }
}
