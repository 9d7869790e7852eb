//! Ending everything that a person has given away, in one order: acknowledged once all of it is written.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::families::Family;
use super::grants::{Grants, Pending};
use super::store::{Answer, Then};
use crate::id::{ExchangeId, FamilyId, JobId, UserId};
use crate::limits;
use crate::time::Now;

/// Names a group of revocations.
pub(super) type GroupId = u64;

/// Who waits for a group of revocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// The person, at their page.
    Person(ExchangeId),
    /// The operator.
    Operator(JobId),
}

/// Groups that are not complete. Each has a write under way or waiting, so the bounds of those hold for it.
#[derive(Debug, Default)]
pub(super) struct Groups {
    open: BTreeMap<GroupId, Group>,
    last: GroupId,
}

#[derive(Debug)]
struct Group {
    asker: Asker,
    left: usize,
    failed: bool,
    revoked: usize,
}

impl Grants {
    /// Revokes these families; whoever asked hears when all are written.
    pub(super) fn revoke_several(&mut self, ids: Vec<FamilyId>, asker: Asker, now: Now) {
        if ids.is_empty() {
            return self.several_revoked(asker, 0, Ok(()));
        }
        if self.pending.len().saturating_add(ids.len()) > limits::MAX_OAUTH_JOBS {
            return self.several_revoked(asker, 0, Err(()));
        }
        self.groups.last = self.groups.last.wrapping_add(1);
        let group = self.groups.last;
        self.groups.open.insert(group, Group { asker, left: ids.len(), failed: false, revoked: 0 });
        for id in ids {
            self.revoke_family(&id, Answer::Several(group), now);
        }
    }

    /// All families of `user` that give access, or would again after a restart, those among them whose first record is being
    /// written. Codes and devices that wait for their tokens get none any more.
    pub(super) fn families_of(&mut self, user: &UserId, now: Now) -> Vec<FamilyId> {
        self.codes.forget(user);
        self.devices.forget_user(user);
        let own = |family: &Family| family.user == user.as_str() && family.is_alive(now.unix);
        let ends =
            |(id, family): &(&FamilyId, &Family)| own(family) || family.user == user.as_str() && self.is_unwritten(id);
        let known = self.families.known.iter().filter(ends).map(|(id, _)| id);
        let coming = self.pending.values().filter_map(|pending| match pending {
            Pending::Family { id, next, then: Then::Issue { .. } | Then::Mint { .. } } if own(next) => Some(id),
            _ => None,
        });
        let mut all: Vec<_> = known.chain(coming).cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Who asked for a group.
    pub(super) fn asker(&self, group: GroupId) -> Option<Asker> {
        self.groups.open.get(&group).map(|group| group.asker)
    }

    /// One revocation of a group has ended.
    pub(super) fn one_of_several(&mut self, id: GroupId, result: Result<(), ()>) {
        let Some(group) = self.groups.open.get_mut(&id) else { return };
        group.left = group.left.saturating_sub(1);
        match result {
            Ok(()) => group.revoked = group.revoked.saturating_add(1),
            Err(()) => group.failed = true,
        }
        if group.left == 0
            && let Some(Group { asker, failed, revoked, .. }) = self.groups.open.remove(&id)
        {
            self.several_revoked(asker, revoked, if failed { Err(()) } else { Ok(()) });
        }
    }

    fn several_revoked(&mut self, asker: Asker, revoked: usize, result: Result<(), ()>) {
        match asker {
            Asker::Person(exchange) => self.person_revoked(exchange, result),
            Asker::Operator(job) => self.operator_revoked(job, revoked, result),
        }
    }
}
