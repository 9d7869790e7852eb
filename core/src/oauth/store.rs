//! What outlives a restart: families and ended sessions, written before anything about them is acknowledged.
//!
//! A family has one write under way at most; what else wants it waits in its queue, so that concurrent refreshes see
//! each other.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use http::StatusCode;
use tracing::{debug, info, warn};

use super::codes::CodeKey;
use super::device::GrantKey;
use super::ending::GroupId;
use super::error::{Code, Refusal};
use super::exchange::RefreshRequest;
use super::families::{Family, Kind};
use super::grants::{Action, Change, Grants, Pending};
use super::scopes::Scopes;
use crate::http::Reply;
use crate::id::{ExchangeId, FamilyId, JobId, UserId};
use crate::limits;
use crate::relay::SessionKey;
use crate::time::{Now, UnixTime};

/// All families by id, and the queues of those with a write under way.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) known: BTreeMap<FamilyId, Family>,
    busy: BTreeMap<FamilyId, VecDeque<Queued>>,
    /// Revocations that act but could not be written: tried again by the sweep.
    unwritten: BTreeSet<FamilyId>,
}

/// What waits for a family's write to end.
#[derive(Debug)]
pub(super) enum Queued {
    /// A refresh.
    Refresh(RefreshRequest),
    /// A revocation.
    Revoke(Answer),
}

/// Where [`Grants::enqueue`] put something.
#[derive(Debug)]
pub(super) enum Enqueued {
    /// Nowhere: no write is under way, go ahead.
    Free(Queued),
    /// Into the queue.
    Waiting,
    /// Nowhere: too much waits already.
    Full(Queued),
}

/// What to do once a family's record is written.
#[derive(Debug)]
pub(super) enum Then {
    /// Answer `/token` with tokens.
    Issue {
        /// Whom to answer.
        exchange: ExchangeId,
        /// Where the request came from.
        peer: IpAddr,
        /// What the access token is for, and what it may do there.
        access: (String, Scopes),
        /// What is redeemed with it.
        redeemed: Option<Redeemed>,
    },
    /// Let the revocation act.
    Revoke(Answer),
    /// Show the operator the token.
    Mint {
        /// The question.
        job: JobId,
    },
    /// Nothing: it was for the next start.
    Note,
}

/// What tokens are issued for, good again if they cannot be.
#[derive(Debug)]
pub(super) enum Redeemed {
    /// An authorization code.
    Code(CodeKey),
    /// A device's grant.
    Device(GrantKey),
}

/// Who hears of a revocation.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nobody: it was the relay's own decision. It acts at once, even if it cannot be written.
    Nobody,
    /// A client at `/revoke`.
    Client(ExchangeId),
    /// The operator.
    Admin(JobId),
    /// Whoever ordered several at once.
    Several(GroupId),
}

impl Grants {
    /// Takes the store's records in.
    pub(super) fn load(&mut self, records: Vec<(String, Vec<u8>)>, now: Now) {
        let mut open = BTreeSet::new();
        let mut unwelcome = 0_usize;
        for (key, value) in records {
            if let Some((id, family)) = Family::from_record(&key, &value) {
                // A person who was taken off the configuration is out, tokens and all, until put back.
                let welcome = self.is_welcome(&family);
                unwelcome = unwelcome.saturating_add(usize::from(!welcome && family.is_alive(now.unix)));
                self.presence.read(&id, &family.about);
                if family.revoked.is_none() && welcome {
                    open.insert(id.clone());
                }
                self.families.known.insert(id, family);
            } else if let Some((session, expires)) = session_from_record(&key, &value) {
                self.snapshot.ended_sessions.insert(session, expires);
            } else {
                warn!(reason = "not a record of this version", "stored record skipped");
            }
        }
        if unwelcome > 0 {
            info!(grants = unwelcome, "grants of people whom auth does not let in are refused");
        }
        self.snapshot.families = Arc::new(open);
        self.sweep(now);
        self.publish();
    }

    /// Orders a family's record to be written; `then` follows when it is.
    pub(super) fn write_family(&mut self, id: FamilyId, next: Family, then: Then) {
        let changes = vec![Change::Put { key: Family::record_key(&id), value: next.to_record() }];
        self.families.busy.entry(id.clone()).or_default();
        self.presence.writing(&id);
        self.persist(changes, Pending::Family { id, next, then });
    }

    /// Whether one more write may begin: there is room for it, and not everybody is being signed out.
    pub(super) fn can_write(&self) -> bool {
        self.revoking_all.is_none() && self.pending.len() < limits::MAX_OAUTH_JOBS
    }

    /// Puts `what` behind the family's write under way.
    pub(super) fn enqueue(&mut self, id: &FamilyId, what: Queued) -> Enqueued {
        let Some(queue) = self.families.busy.get_mut(id) else { return Enqueued::Free(what) };
        let ours = |queued: &Queued| matches!(queued, Queued::Revoke(Answer::Nobody));
        match what {
            // One decision of ours is enough, and it finds room always.
            what if ours(&what) => {
                if !queue.iter().any(ours) {
                    queue.push_back(what);
                }
                Enqueued::Waiting
            }
            what if queue.len() >= limits::MAX_FAMILY_QUEUE => Enqueued::Full(what),
            what => {
                queue.push_back(what);
                Enqueued::Waiting
            }
        }
    }

    /// Revokes a family: written first, then published and brought to the shards.
    pub(super) fn revoke_family(&mut self, id: &FamilyId, answer: Answer, now: Now) {
        let answer = match self.enqueue(id, Queued::Revoke(answer)) {
            Enqueued::Free(Queued::Revoke(answer)) => answer,
            Enqueued::Full(Queued::Revoke(answer)) => return self.answer_revocation(answer, Err(())),
            Enqueued::Waiting | Enqueued::Free(Queued::Refresh(_)) | Enqueued::Full(Queued::Refresh(_)) => return,
        };
        match self.families.known.get(id) {
            Some(family) if family.revoked.is_none() => {
                let next = family.revoke(now.unix);
                // Nobody is told that it was done, so that it need not be kept first: a thief gets no moment more.
                if matches!(answer, Answer::Nobody) {
                    self.apply_revocation(id, next.clone(), &answer, now);
                }
                self.write_family(id.clone(), next, Then::Revoke(answer));
            }
            // It acts, but would be forgotten with the next restart: who asks for it hears when it is kept.
            Some(family) if self.is_unwritten(id) => {
                let family = family.clone();
                self.write_family(id.clone(), family, Then::Revoke(answer));
            }
            _ => self.answer_revocation(answer, Ok(())),
        }
    }

    /// A family's write ended.
    pub(super) fn family_written(
        &mut self,
        id: FamilyId,
        next: Family,
        then: Then,
        result: Result<(), String>,
        now: Now,
    ) {
        match (result, then) {
            (Ok(()), Then::Issue { exchange, peer, access, .. }) => {
                let reply = self.tokens(&id, &next, access, now);
                self.note_grant(&id, &next, Some(peer), now);
                self.take_in(&id, next, now);
                self.let_in(&id);
                self.reply(exchange, reply);
            }
            (Ok(()), Then::Note) => self.take_in(&id, next, now),
            (Err(reason), Then::Note) => debug!(reason, "when a device was connected is not kept yet"),
            (Err(reason), Then::Issue { exchange, redeemed, .. }) => {
                warn!(reason, "tokens withheld: the store cannot be written");
                match redeemed {
                    Some(Redeemed::Code(code)) => self.codes.redeem(&code, None),
                    Some(Redeemed::Device(key)) => self.devices.give_back(&key),
                    None => {}
                }
                self.reply(exchange, unwritable().reply());
            }
            (Ok(()), Then::Revoke(answer)) => {
                self.families.unwritten.remove(&id);
                self.apply_revocation(&id, next, &answer, now);
                self.answer_revocation(answer, Ok(()));
            }
            (Err(reason), Then::Revoke(answer)) => {
                warn!(reason, "the store cannot be written: a revocation is not kept");
                if matches!(answer, Answer::Nobody) {
                    self.families.unwritten.insert(id.clone());
                }
                self.answer_revocation(answer, Err(()));
            }
            (Ok(()), Then::Mint { job }) => {
                self.note_grant(&id, &next, None, now);
                self.take_in(&id, next.clone(), now);
                self.let_in(&id);
                self.minted(job, &id, &next, now);
            }
            (Err(reason), Then::Mint { job }) => {
                warn!(reason, "no token made: the store cannot be written");
                self.admin_refused(job, "the relay's store cannot be written; see its log");
            }
        }
        self.release(&id, now);
    }

    /// A record is written: it is what is known of the family, but for what was seen of its tunnels meanwhile.
    fn take_in(&mut self, id: &FamilyId, mut next: Family, now: Now) {
        if let Some(known) = self.families.known.get(id) {
            next.about.catch_up(&known.about);
        }
        self.presence.written(id, now);
        self.families.known.insert(id.clone(), next);
    }

    /// Tokens of a family open from now on: the gate hears of it before anybody has one.
    fn let_in(&mut self, id: &FamilyId) {
        if !self.snapshot.families.contains(id) {
            Arc::make_mut(&mut self.snapshot.families).insert(id.clone());
            self.publish();
        }
    }

    /// Tokens of a family open nothing any more, once that is published.
    fn shut_out(&mut self, id: &FamilyId) {
        if self.snapshot.families.contains(id) {
            Arc::make_mut(&mut self.snapshot.families).remove(id);
        }
    }

    /// Whether a family's revocation acts, and is not kept yet.
    pub(super) fn is_unwritten(&self, id: &FamilyId) -> bool {
        self.families.unwritten.contains(id)
    }

    /// Whether a family's record is being written.
    pub(super) fn is_busy(&self, id: &FamilyId) -> bool {
        self.families.busy.contains_key(id)
    }

    /// A client ended its MCP session.
    pub(super) fn end_session(
        &mut self,
        exchange: ExchangeId,
        user: UserId,
        session: SessionKey,
        expires: UnixTime,
        now: Now,
    ) {
        let known = self.snapshot.ended_sessions.contains_key(&session);
        if known || expires <= now.unix {
            return self.reply(exchange, Reply::empty(StatusCode::NO_CONTENT));
        }
        if session.0.len() > MAX_SESSION_KEY || !self.can_write() {
            return self.reply(exchange, unwritable().reply());
        }
        let key = alloc::format!("{SESSION_PREFIX}{}", session.0);
        let mut changes = vec![Change::Put { key, value: expires.as_millis().to_be_bytes().to_vec() }];
        // Beyond the bound the one that would end first is forgotten: its owner's token still guards it.
        let full = self.snapshot.ended_sessions.len() >= limits::MAX_ENDED_SESSIONS;
        let first = self.snapshot.ended_sessions.iter().min_by_key(|(_, expires)| **expires).filter(|_| full);
        if let Some(first) = first.map(|(session, _)| session.clone()) {
            changes.push(forget_session(&first));
            self.snapshot.ended_sessions.remove(&first);
        }
        self.persist(changes, Pending::Session { exchange, user, session, expires });
    }

    /// The record of an ended session was written, or not.
    pub(super) fn session_written(
        &mut self,
        exchange: ExchangeId,
        user: UserId,
        session: SessionKey,
        expires: UnixTime,
        result: Result<(), String>,
    ) {
        if let Err(reason) = result {
            warn!(reason, "a session goes on: the store cannot be written");
            return self.reply(exchange, unwritable().reply());
        }
        self.snapshot.ended_sessions.insert(session.clone(), expires);
        self.publish();
        self.out.push(Action::SessionEnded { user, session });
        self.reply(exchange, Reply::empty(StatusCode::NO_CONTENT));
    }

    /// Makes room for one more family of `user`: the one that was unused longest goes. `false`: there is no room.
    pub(super) fn make_room(&mut self, user: &UserId, now: Now) -> bool {
        if self.families.known.len() >= limits::MAX_FAMILIES || !self.can_write() {
            warn!(user = %self.pseudonym(user), reason = "too many token families", "sign-in put off");
            return false;
        }
        let own = |family: &&Family| family.user == user.as_str();
        if self.families.known.values().filter(own).count() >= limits::MAX_USER_FAMILIES {
            warn!(user = %self.pseudonym(user), reason = "too many token families of this user", "sign-in put off");
            return false;
        }
        let alive = |(id, family): (&FamilyId, &Family)| match family.kind {
            Kind::SignIn { .. } if family.user == user.as_str() && family.is_alive(now.unix) => {
                Some((family.used(), id.clone()))
            }
            Kind::SignIn { .. } | Kind::Minted { .. } => None,
        };
        let mut alive: Vec<_> = self.families.known.iter().filter_map(alive).collect();
        if alive.len() >= limits::MAX_USER_SIGN_INS {
            alive.sort_unstable();
            if let Some((_, oldest)) = alive.into_iter().next() {
                self.revoke_family(&oldest, Answer::Nobody, now);
            }
        }
        true
    }

    /// Removes what has ended, from memory and from the store, and writes what could not be written before.
    pub(super) fn sweep(&mut self, now: Now) {
        self.codes.sweep(now.instant);
        self.devices.sweep(now.instant);
        self.rates.sweep(now.instant);
        self.places.sweep(now.instant);
        self.documents.sweep(now.instant);
        self.spent.sweep(now.unix);
        self.tell_left_out(now);
        self.write_again();
        self.remove_ended(now);
        self.note_presence(now);
    }

    fn write_again(&mut self) {
        for id in self.families.unwritten.clone() {
            match self.families.known.get(&id) {
                Some(family) if self.can_write() && !self.families.busy.contains_key(&id) => {
                    let family = family.clone();
                    self.write_family(id, family, Then::Revoke(Answer::Nobody));
                }
                Some(_) => {}
                None => drop(self.families.unwritten.remove(&id)),
            }
        }
    }

    fn remove_ended(&mut self, now: Now) {
        let over = |(id, family): (&FamilyId, &Family)| {
            (family.kept_until() <= now.unix && !self.families.busy.contains_key(id)).then(|| id.clone())
        };
        let families: Vec<_> = self.families.known.iter().filter_map(over).take(limits::SWEEP_BATCH).collect();
        let ended = self.snapshot.ended_sessions.iter().filter(|(_, expires)| **expires <= now.unix);
        let sessions: Vec<_> = ended.map(|(key, _)| key.clone()).take(limits::SWEEP_BATCH).collect();
        if families.is_empty() && sessions.is_empty() || !self.can_write() {
            return;
        }
        let mut changes: Vec<_> = families.iter().map(|id| Change::Delete { key: Family::record_key(id) }).collect();
        changes.extend(sessions.iter().map(forget_session));
        for id in &families {
            self.families.known.remove(id);
            self.presence.forget(id);
            self.shut_out(id);
        }
        for key in &sessions {
            self.snapshot.ended_sessions.remove(key);
        }
        // What is not deleted now is read again at the next start, and swept then.
        self.persist(changes, Pending::Sweep);
        self.publish();
    }

    /// Hands the gate what it must know.
    pub(super) fn publish(&mut self) {
        self.out.push(Action::Publish(Arc::new(self.snapshot.clone())));
    }

    pub(super) fn persist(&mut self, changes: Vec<Change>, pending: Pending) {
        let job = self.next_job();
        self.pending.insert(job, pending);
        self.out.push(Action::Persist { job, changes });
    }

    fn apply_revocation(&mut self, id: &FamilyId, next: Family, answer: &Answer, now: Now) {
        if self.families.known.get(id).is_some_and(|family| family.revoked.is_some()) {
            return;
        }
        info!(user = %self.pseudonym(&UserId::new(&next.user)), client = %next.client, "tokens revoked");
        self.note_revocation(id, &next, answer, now);
        self.shut_out(id);
        self.families.known.insert(id.clone(), next);
        self.publish();
        self.out.push(Action::Revoked { family: id.clone() });
    }

    fn answer_revocation(&mut self, answer: Answer, result: Result<(), ()>) {
        match (answer, result) {
            (Answer::Nobody, _) => {}
            (Answer::Client(exchange), Ok(())) => self.reply(exchange, super::error::json(StatusCode::OK, &Empty {})),
            (Answer::Client(exchange), Err(())) => self.reply(exchange, unwritable().reply()),
            (Answer::Admin(job), Ok(())) => self.admin_done(job),
            (Answer::Admin(job), Err(())) => {
                self.admin_refused(job, "the relay's store cannot be written; see its log");
            }
            (Answer::Several(group), result) => self.one_of_several(group, result),
        }
    }

    /// Lets what waited for a family go on, until one of them writes again.
    fn release(&mut self, id: &FamilyId, now: Now) {
        let Some(mut queue) = self.families.busy.remove(id) else { return };
        while let Some(next) = queue.pop_front() {
            match next {
                Queued::Refresh(request) => self.refresh(request, now),
                Queued::Revoke(answer) => self.revoke_family(id, answer, now),
            }
            if let Some(busy) = self.families.busy.get_mut(id) {
                *busy = queue;
                return;
            }
        }
    }
}

/// The store refuses: nothing has changed, the client may try again.
pub(super) fn unwritable() -> Refusal {
    Refusal::new(Code::TemporarilyUnavailable, "the relay cannot keep this at the moment: try again")
}

/// Removes the record of an ended session.
pub(super) fn forget_session(session: &SessionKey) -> Change {
    Change::Delete { key: alloc::format!("{SESSION_PREFIX}{}", session.0) }
}

fn session_from_record(key: &str, value: &[u8]) -> Option<(SessionKey, UnixTime)> {
    let session = key.strip_prefix(SESSION_PREFIX)?;
    let millis = u64::from_be_bytes(*value.first_chunk::<8>()?);
    Some((SessionKey(session.into()), UnixTime::from_millis(millis)))
}

#[derive(serde::Serialize)]
struct Empty {}

const SESSION_PREFIX: &str = "session/";
/// A store key has 255 bytes at most.
const MAX_SESSION_KEY: usize = 200;
