//! Calls that wait for a person's approval.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::caller::Caller;
use super::cx::{RequestId, Slot};
use super::status;
use crate::limits;
use crate::time::Instant;

/// Who calls what: what a person decides about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    /// Who acts, as the relay knows them; empty: it does not say.
    pub(super) actor: Arc<str>,
    /// What the client calls itself; empty: nothing. For people, not to be trusted.
    pub(super) client: Arc<str>,
    pub(super) server: Arc<str>,
    /// The tool; of a call that is none, its method.
    pub(super) tool: Arc<str>,
}

impl Subject {
    /// What a lasting approval is given to: a client may call itself whatever it likes.
    pub(super) fn approved_as(&self) -> &str {
        if self.actor.is_empty() { &self.client } else { &self.actor }
    }
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) subject: Subject,
    pub(super) slot: Slot,
    pub(super) caller: Caller,
    pub(super) method: Arc<str>,
    pub(super) params: Bytes,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Waiting {
    /// The server that it is for, and its client: together they say which of the server's lists counts.
    pub(super) fn place(&self) -> (Slot, &Caller) {
        (self.slot, &self.caller)
    }
}

/// The calls that wait, and who need not any more.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    waiting: BTreeMap<RequestId, Waiting>,
    bytes: usize,
    /// Let pass by a person for as long as the agent runs.
    let_pass: BTreeSet<Subject>,
}

impl Approvals {
    /// Whether another call of that client with so many bytes may wait: alone it may have half of all there may be, so
    /// that others find room.
    pub(super) fn has_room(&self, caller: &Caller, bytes: usize) -> bool {
        let own = self.waiting.values().filter(|waiting| waiting.caller.key() == caller.key()).count();
        own + self.waiting.len() < limits::MAX_WAITING && self.bytes.saturating_add(bytes) <= limits::MAX_WAITING_BYTES
    }

    pub(super) fn add(&mut self, request: RequestId, waiting: Waiting) {
        self.bytes += waiting.params.len();
        self.waiting.insert(request, waiting);
    }

    /// Takes a call out, by whatever it ends.
    pub(super) fn take(&mut self, request: RequestId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&request)?;
        self.bytes -= waiting.params.len();
        Some(waiting)
    }

    /// Takes out those of one subject.
    pub(super) fn take_all(&mut self, subject: &Subject) -> Vec<(RequestId, Waiting)> {
        let same = self.waiting.iter().filter(|(_, waiting)| waiting.subject == *subject);
        let requests: Vec<RequestId> = same.map(|(request, _)| *request).collect();
        requests.into_iter().filter_map(|request| Some((request, self.take(request)?))).collect()
    }

    /// Lets a subject pass until the agent ends.
    pub(super) fn let_pass(&mut self, subject: Subject) {
        if self.let_pass.len() >= limits::MAX_LET_PASS {
            self.let_pass.pop_first();
        }
        self.let_pass.insert(subject);
    }

    pub(super) fn passes(&self, subject: &Subject) -> bool {
        self.let_pass.contains(subject)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// For people: with what each is called with only if they ask for it.
    pub(super) fn list(&self, params: bool, now: Instant) -> Vec<status::WaitingCall> {
        let call = |(request, waiting): (&RequestId, &Waiting)| status::WaitingCall {
            id: request.0,
            client: waiting.subject.client.to_string(),
            actor: waiting.subject.actor.to_string(),
            server: waiting.subject.server.to_string(),
            tool: waiting.subject.tool.to_string(),
            since_secs: now.saturating_since(waiting.since).as_secs(),
            left_secs: waiting.until.saturating_since(now).as_secs(),
            bytes: waiting.params.len(),
            params: params.then(|| String::from_utf8_lossy(&waiting.params).to_string()),
        };
        self.waiting.iter().map(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(tool: &str, bytes: usize) -> Waiting {
        let subject = Subject { actor: "a".into(), client: "c".into(), server: "s".into(), tool: tool.into() };
        let at = Instant::from_micros(0);
        let params = Bytes::from(alloc::vec![b' '; bytes]);
        Waiting {
            subject,
            slot: Slot(1),
            caller: Caller::default(),
            method: "tools/call".into(),
            params,
            since: at,
            until: at,
        }
    }

    #[test]
    fn queue_is_bounded_in_calls_and_bytes() {
        let mut approvals = Approvals::default();
        let of = |session: &str| Caller { session: session.into(), ..Caller::default() };
        let mut number = 0;
        for (session, most) in [("flood", limits::MAX_WAITING / 2), ("other", limits::MAX_WAITING / 4)] {
            let caller = of(session);
            for _ in 0..most {
                assert!(approvals.has_room(&caller, 0), "{number}");
                approvals.add(RequestId(number), Waiting { caller: caller.clone(), ..waiting("t", 0) });
                number += 1;
            }
            assert!(!approvals.has_room(&caller, 0), "{session}");
        }
        let (has_room, caller) = (Approvals::has_room, &Caller::default());
        let mut approvals = Approvals::default();
        let most = limits::MAX_WAITING_BYTES;
        assert!(has_room(&approvals, caller, most) && !has_room(&approvals, caller, most + 1));
        approvals.add(RequestId(1), waiting("t", most));
        let left = [0, 1, usize::MAX].map(|bytes| has_room(&approvals, caller, bytes));
        assert_eq!(left, [true, false, false]);
        assert!(approvals.take(RequestId(1)).is_some() && approvals.take(RequestId(1)).is_none());
        assert!(has_room(&approvals, caller, most), "what was taken out is free again");
    }

    #[test]
    fn subjects_that_may_pass_are_bounded() {
        let mut approvals = Approvals::default();
        let subject = |number: usize| waiting(&alloc::format!("{number:06}"), 0).subject;
        for number in 0..limits::MAX_LET_PASS {
            approvals.let_pass(subject(number));
        }
        assert!(approvals.passes(&subject(0)));
        approvals.let_pass(subject(limits::MAX_LET_PASS));
        let passes = [0, 1, limits::MAX_LET_PASS].map(|number| approvals.passes(&subject(number)));
        assert_eq!(passes, [false, true, true]);
    }

    #[test]
    fn calls_of_one_subject_go_together() {
        let mut approvals = Approvals::default();
        for (number, tool) in [(1, "a"), (2, "b"), (3, "a")] {
            approvals.add(RequestId(number), waiting(tool, 1));
        }
        let taken = approvals.take_all(&waiting("a", 0).subject);
        assert_eq!(taken.iter().map(|(request, _)| request.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(approvals.len(), 1);
    }

    #[test]
    fn arguments_are_shown_only_on_request() {
        let mut approvals = Approvals::default();
        approvals.add(RequestId(7), waiting("a", 3));
        let now = Instant::from_micros(2_000_000);
        assert_eq!(approvals.list(false, now)[0].params, None);
        let shown = approvals.list(true, now).remove(0);
        assert_eq!((shown.id, shown.since_secs, shown.bytes, shown.params.as_deref()), (7, 2, 3, Some("   ")));
    }
}
