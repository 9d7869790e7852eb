//! The calls under way, what they count for, and the line about each once it is over.
//!
//! A line says who called what and how it went: never with which arguments, never with which result.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use ring::digest;
use serde::Serialize;

use super::approvals::Subject;
use super::cx::RequestId;
use super::policy::Scope;
use super::status;
use crate::mcp::method;
use crate::time::{Instant, Now};
use crate::tunnel::Outcome;

/// The calls under way.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<RequestId, Entry>);

/// One call.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) method: String,
    /// Of the client's session; empty when there is none.
    pub(super) session: String,
    /// The params' size.
    pub(super) bytes: usize,
    pub(super) began: Instant,
    pub(super) decision: Decision,
    /// What it counts for.
    pub(super) scopes: Vec<Scope>,
}

/// What was decided about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decision {
    /// It passed.
    Allowed,
    /// It waits for a person.
    Waiting,
    /// A person approved it.
    Approved,
    /// Policy or pins forbid it.
    Denied,
    /// A person said no.
    Rejected,
    /// No person said anything in time.
    Unanswered,
    /// There were too many.
    Limited,
    /// It is no call that could be judged: no such server, malformed params.
    Invalid,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a result of so many bytes.
    Result(usize),
    /// With an error.
    Error(i64),
    /// Its caller or the tunnel went away.
    Cancelled,
}

impl End {
    /// An answer with a body of so many bytes.
    pub(super) fn of(outcome: Outcome, bytes: usize) -> Self {
        match outcome {
            Outcome::Result => Self::Result(bytes),
            Outcome::Error { code } => Self::Error(code),
        }
    }
}

impl Ledger {
    pub(super) fn open(&mut self, request: RequestId, entry: Entry) {
        self.0.insert(request, entry);
    }

    pub(super) fn close(&mut self, request: RequestId) -> Option<Entry> {
        self.0.remove(&request)
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
        let (outcome, code, result_bytes) = match end {
            End::Result(bytes) => ("result", None, Some(bytes)),
            End::Error(code) => ("error", Some(code), None),
            End::Cancelled => ("cancelled", None, None),
        };
        let line = Line {
            time: time(now),
            user: Some(user).filter(|user| !user.is_empty()),
            session: (!self.session.is_empty()).then(|| hashed(&self.session)),
            actor: Some(self.subject.actor.as_str()).filter(|actor| !actor.is_empty()),
            client: &self.subject.client,
            device,
            server: &self.subject.server,
            method: &self.method,
            tool: (self.method == method::TOOLS_CALL).then_some(&self.subject.tool),
            decision: self.decision,
            duration_ms: now.instant.saturating_since(self.began).as_millis(),
            params_bytes: self.bytes,
            result_bytes,
            outcome,
            code,
        };
        let json = status::json(&line);
        Bytes::from([&json[..], b"\n"].concat())
    }
}

/// What stands in a line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    /// As the relay's log has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    /// A hash: the session itself would let its reader pass for the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// The client as the relay knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    /// What it calls itself.
    client: &'a str,
    device: &'a str,
    server: &'a str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a String>,
    decision: Decision,
    duration_ms: u128,
    params_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_bytes: Option<usize>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
}

fn time(now: Now) -> String {
    let at = i64::try_from(now.unix.as_millis()).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true).to_string()
}

/// Sixteen hexadecimal digits: enough to tell sessions apart.
fn hashed(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| alloc::format!("{byte:02x}")).collect()
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
        (entry.session, entry.method, entry.decision) = (String::new(), "resources/read".into(), Decision::Denied);
        let denied = line("", &entry, End::Error(-32014));
        assert!(
            denied.contains(r#""decision":"denied""#) && denied.contains(r#""outcome":"error","code":-32014"#),
            "{denied}"
        );
        assert!(!denied.contains("session") && !denied.contains("user") && !denied.contains("tool\""), "{denied}");
        assert!(line("", &entry, End::Cancelled).contains(r#""outcome":"cancelled"}"#));
    }
}
