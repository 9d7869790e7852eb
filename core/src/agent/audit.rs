//! The calls under way, what they count for, and the line about each once it is over.
//!
//! A line says who called what and how it went: never with which arguments, never with which result.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::approvals::Subject;
use super::cx::RequestId;
use super::policy::Scope;
use super::server::people;
use crate::audit::{self, Call, Decision, End};
use crate::limits;
use crate::mcp::method;
use crate::time::{Instant, Now};

/// The calls under way.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<RequestId, Box<Entry>>);

/// One call.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) method: Arc<str>,
    /// Of the client's session; empty when there is none.
    pub(super) session: Arc<str>,
    /// The params' size.
    pub(super) bytes: usize,
    pub(super) began: Instant,
    pub(super) decision: Decision,
    /// What it counts for.
    pub(super) scopes: Vec<Scope>,
}

impl Ledger {
    pub(super) fn open(&mut self, request: RequestId, entry: Entry) {
        self.0.insert(request, Box::new(entry));
    }

    /// A call goes on under another number.
    pub(super) fn rename(&mut self, from: RequestId, to: RequestId) {
        if let Some(entry) = self.0.remove(&from) {
            self.0.insert(to, entry);
        }
    }

    pub(super) fn close(&mut self, request: RequestId) -> Option<Box<Entry>> {
        self.0.remove(&request)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn decide(&mut self, request: RequestId, decision: Decision) {
        if let Some(entry) = self.0.get_mut(&request) {
            entry.decision = decision;
        }
    }
}

impl Entry {
    /// The line about it, its end included.
    pub(super) fn line(&self, user: &str, device: &str, end: End, now: Now) -> Bytes {
        let (outcome, code, result_bytes) = end.told();
        audit::line(&Call {
            time: audit::time(now),
            event: None,
            user: Some(user).filter(|user| !user.is_empty()),
            grant: None,
            session: (!self.session.is_empty()).then(|| audit::hashed(&self.session)),
            actor: Some(&*self.subject.actor).filter(|actor| !actor.is_empty()),
            client: &self.subject.client,
            device: Some(device),
            // Whatever a relay sends, a line stays a line.
            server: Some(&people(&self.subject.server, limits::MAX_QUOTE)),
            method: &people(&self.method, limits::MAX_QUOTE),
            tool: (&*self.method == method::TOOLS_CALL).then_some(&people(&self.subject.tool, limits::MAX_QUOTE)),
            decision: self.decision,
            duration_ms: now.instant.saturating_since(self.began).as_millis(),
            params_bytes: self.bytes,
            result_bytes,
            outcome,
            code,
            reason: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixTime;

    #[test]
    fn line_says_who_called_what_and_how_it_went() {
        let mut entry = Entry {
            subject: Subject {
                actor: "mlt_c_1".into(),
                client: "Cursor \"1\"\n".into(),
                server: "files".into(),
                tool: "read".into(),
            },
            method: "tools/call".into(),
            session: "the session".into(),
            bytes: 120,
            began: Instant::from_micros(1_000_000),
            decision: Decision::Approved,
            scopes: Vec::new(),
        };
        let now = Now { instant: Instant::from_micros(2_500_000), unix: UnixTime::from_millis(1_790_000_000_123) };
        let line = |user, entry: &Entry, end| {
            let line = entry.line(user, "laptop", end, now);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            alloc::string::String::from_utf8(line.to_vec()).unwrap()
        };
        assert_eq!(
            line("aX9", &entry, End::Result(9)),
            concat!(
                r#"{"time":"2026-09-21T14:13:20.123Z","user":"aX9","session":"2c48580eec4cde74","actor":"mlt_c_1","client":"Cursor \"1\"\n","device":"laptop","#,
                r#""server":"files","method":"tools/call","tool":"read","decision":"approved","durationMs":1500,"#,
                r#""paramsBytes":120,"resultBytes":9,"outcome":"result"}"#,
                "\n"
            )
        );
        (entry.session, entry.method, entry.decision) = (Arc::default(), "resources/read".into(), Decision::Denied);
        let denied = line("", &entry, End::Error(-32014));
        assert!(
            denied.contains(r#""decision":"denied""#) && denied.contains(r#""outcome":"error","code":-32014"#),
            "{denied}"
        );
        assert!(!denied.contains("session") && !denied.contains("user") && !denied.contains("tool\""), "{denied}");
        assert!(line("", &entry, End::Cancelled).contains(r#""outcome":"cancelled"}"#));
    }
}
