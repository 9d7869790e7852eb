//! When each machine wants to be woken, in the world's time: kept up to date, so that a thousand need not be asked.

use std::collections::{BTreeMap, BTreeSet};

use tunnel_core::id::ConnId;

use crate::world::AgentKey;

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    Shard,
    Grants,
    RelayTunnel(ConnId),
    Agent(AgentKey),
    AgentTunnel(AgentKey, ConnId),
}

/// All alarms.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    by_time: BTreeSet<(u64, Whose)>,
    by_owner: BTreeMap<Whose, u64>,
}

impl Alarms {
    /// `None`: it wants nothing any more.
    pub(crate) fn set(&mut self, whose: Whose, at: Option<u64>) {
        let before = match at {
            Some(at) => self.by_owner.insert(whose, at),
            None => self.by_owner.remove(&whose),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, whose));
        }
        if let Some(at) = at {
            self.by_time.insert((at, whose));
        }
    }

    pub(crate) fn first(&self) -> Option<(u64, Whose)> {
        self.by_time.first().copied()
    }

    /// Takes away what `is_gone` names.
    pub(crate) fn clear(&mut self, is_gone: impl Fn(&Whose) -> bool) {
        self.by_time.retain(|(_, whose)| !is_gone(whose));
        self.by_owner.retain(|whose, _| !is_gone(whose));
    }
}
