//! What the audits of agents and relays have in common: lines of JSON, and the names of what stands in them.
//!
//! A line says who did what and how it went: never with which arguments, never with which result, and no secret.

use alloc::string::{String, ToString};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use ring::digest;
use serde::Serialize;

use crate::time::Now;
use crate::tunnel::Outcome;

/// What was decided about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Decision {
    /// It passed.
    Allowed,
    /// It waits for a person.
    Waiting,
    /// A person approved it.
    Approved,
    /// Policy, pins or the client's scopes forbid it.
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
pub(crate) enum End {
    /// With a result of so many bytes.
    Result(usize),
    /// With an error.
    Error(i64),
    /// Its caller or the tunnel went away.
    Cancelled,
}

impl End {
    /// An answer with a body of so many bytes.
    pub(crate) fn of(outcome: Outcome, bytes: usize) -> Self {
        match outcome {
            Outcome::Result => Self::Result(bytes),
            Outcome::Error { code } => Self::Error(code),
        }
    }

    /// Its words in a line: the outcome, an error's code, a result's size.
    pub(crate) fn told(self) -> (&'static str, Option<i64>, Option<usize>) {
        match self {
            Self::Result(bytes) => ("result", None, Some(bytes)),
            Self::Error(code) => ("error", Some(code), None),
            Self::Cancelled => ("cancelled", None, None),
        }
    }
}

/// The line about a call. The relay and the agent both write one; user, session, device, server and tool are the same
/// in both, so that they can be laid side by side.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Call<'a> {
    pub(crate) time: String,
    /// What kind of line it is, where there are several kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<&'static str>,
    /// As the relay's log has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<&'a str>,
    /// The id of the grant that the client acts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grant: Option<&'a str>,
    /// A hash: the session itself would let its reader pass for the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// The client as the relay knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<&'a str>,
    /// What it calls itself.
    pub(crate) client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<&'a str>,
    pub(crate) method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<&'a String>,
    pub(crate) decision: Decision,
    pub(crate) duration_ms: u128,
    pub(crate) params_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_bytes: Option<usize>,
    pub(crate) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<i64>,
    /// A constant word for what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// A finished line, its end included.
pub(crate) fn line(content: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec(content).expect("strings and numbers always serialise");
    json.push(b'\n');
    json.into()
}

/// The wall clock's time as a line has it.
pub(crate) fn time(now: Now) -> String {
    let at = i64::try_from(now.unix.as_millis()).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true).to_string()
}

/// Sixteen hexadecimal digits: enough to tell sessions apart.
pub(crate) fn hashed(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| alloc::format!("{byte:02x}")).collect()
}
