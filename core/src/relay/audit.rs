//! What a relay's audit says of tunnels and calls: a line once a call is over, whatever became of it, and one for each
//! device that comes and goes. A room writes them only of users whose pseudonym it was given, which is when an audit is
//! kept.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::SessionKey;
use super::calls::Phase;
use super::catalog::printable;
use super::device::Device;
use super::failure::{Failure, Place};
use crate::audit::{self, Call, Decision, End};
use crate::id::FamilyId;
use crate::limits;
use crate::mcp::{code, method};
use crate::time::{Instant, Now};
use crate::tunnel::{CloseCode, Dialect};

/// A call under way, as far as its line goes.
#[derive(Debug)]
pub(super) struct Record {
    /// The user's pseudonym.
    user: Arc<str>,
    grant: FamilyId,
    session: Option<SessionKey>,
    actor: String,
    /// What the client calls itself.
    client: String,
    method: String,
    tool: Option<String>,
    params_bytes: usize,
    result_bytes: usize,
}

/// Who calls.
pub(super) struct Who<'a> {
    pub(super) user: &'a Arc<str>,
    pub(super) grant: &'a FamilyId,
    pub(super) session: Option<&'a SessionKey>,
    pub(super) actor: &'a str,
    pub(super) client: &'a str,
}

impl Record {
    /// A call of `method` with params of so many bytes; `tool` is the tool's name for `tools/call`.
    pub(super) fn new(who: &Who<'_>, method: &str, tool: Option<&str>, params_bytes: usize) -> Box<Self> {
        Box::new(Self {
            user: Arc::clone(who.user),
            grant: who.grant.clone(),
            session: who.session.cloned(),
            actor: who.actor.into(),
            client: who.client.into(),
            method: printable(method, limits::MAX_LISTED_NAME),
            tool: tool.map(|tool| printable(tool, limits::MAX_LISTED_NAME)),
            params_bytes,
            result_bytes: 0,
        })
    }

    /// So much of the answer passed.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.result_bytes = self.result_bytes.saturating_add(bytes);
    }

    /// The line about a call that was answered.
    pub(super) fn answered(&self, place: Option<&Place>, phase: &Phase, opened: Instant, now: Now) -> Bytes {
        let end = match phase {
            Phase::Answered { outcome, .. } | Phase::Body { outcome, .. } => End::of(*outcome, self.result_bytes),
            Phase::Waiting => End::Result(self.result_bytes),
        };
        self.line(place, Decision::Allowed, end, None, opened, now)
    }

    /// The line about a call that failed, or that was not begun.
    pub(super) fn failed(&self, place: Option<&Place>, failure: &Failure, opened: Instant, now: Now) -> Bytes {
        let end = match failure {
            Failure::Cancelled | Failure::SignedOut | Failure::SessionEnded => End::Cancelled,
            other => End::Error(other.code()),
        };
        self.line(place, decision(failure), end, Some(failure.reason()), opened, now)
    }

    /// The line about a call that the relay itself carried out.
    pub(super) fn done(&self, result: &Result<Bytes, Failure>, now: Now) -> Bytes {
        match result {
            Ok(body) => self.line(None, Decision::Allowed, End::Result(body.len()), None, now.instant, now),
            Err(failure) => self.failed(None, failure, now.instant, now),
        }
    }

    /// The line about a call that the client's scopes do not allow.
    pub(super) fn refused(&self, now: Now) -> Bytes {
        let end = End::Error(code::INVALID_REQUEST);
        self.line(None, Decision::Denied, end, Some("insufficient-scope"), now.instant, now)
    }

    fn line(
        &self,
        place: Option<&Place>,
        decision: Decision,
        end: End,
        reason: Option<&'static str>,
        opened: Instant,
        now: Now,
    ) -> Bytes {
        let (outcome, code, result_bytes) = end.told();
        audit::line(&Call {
            time: audit::time(now),
            event: Some("call"),
            user: Some(&self.user),
            grant: Some(self.grant.as_str()),
            session: self.session.as_ref().map(|session| audit::hashed(&session.0)),
            actor: Some(&self.actor),
            client: &self.client,
            device: place.map(|place| place.device.as_str()),
            server: place.map(|place| &*place.server),
            method: &self.method,
            tool: self.tool.as_ref().filter(|_| self.method == method::TOOLS_CALL),
            decision,
            duration_ms: now.instant.saturating_since(opened).as_millis(),
            params_bytes: self.params_bytes,
            result_bytes,
            outcome,
            code,
            reason,
        })
    }
}

/// What the relay decided about a call that failed so. What goes wrong later was let through before.
fn decision(failure: &Failure) -> Decision {
    match failure {
        Failure::Overloaded(_) => Decision::Limited,
        Failure::NoSuchMethod(_)
        | Failure::BadParams(_)
        | Failure::Mismatch(_)
        | Failure::NoDevice(_)
        | Failure::NoSuchTool { .. }
        | Failure::AmbiguousTool { .. }
        | Failure::Unknown { .. }
        | Failure::Ambiguous { .. }
        | Failure::NoSuchServer { .. }
        | Failure::AmbiguousServer { .. }
        | Failure::IdInUse => Decision::Invalid,
        Failure::NotReady { .. }
        | Failure::Leaving(_)
        | Failure::Disconnected { .. }
        | Failure::Reset { .. }
        | Failure::TimedOut(_)
        | Failure::Broken(_)
        | Failure::Cancelled
        | Failure::SignedOut
        | Failure::SessionEnded
        | Failure::BatchTooLarge
        | Failure::Missed
        | Failure::Forgotten
        | Failure::Stopping => Decision::Allowed,
    }
}

/// What became of a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Passage {
    /// The device is in.
    Up,
    /// It is not let in, or has to wait.
    Refused(&'static str),
    /// It is out.
    Down(CloseCode),
    /// It is out because its grant reached its end: nobody has revoked anything.
    RanOut,
}

/// The line about a device's tunnel; none when no audit is kept.
pub(super) fn tunnel(device: &Device, passage: Passage, now: Now) -> Option<Bytes> {
    let lasted = Some(now.instant.saturating_since(device.since));
    let (event, reason, duration) = match passage {
        Passage::Up => ("tunnel-up", None, None),
        Passage::Refused(reason) => ("tunnel-refused", Some(reason), None),
        Passage::Down(code) => ("tunnel-down", Some(word(code)), lasted),
        Passage::RanOut => ("tunnel-down", Some("grant-ran-out"), lasted),
    };
    Some(audit::line(&Tunnel {
        time: audit::time(now),
        event,
        user: device.audit.as_deref()?,
        grant: device.family.as_str(),
        device: device.name.as_str(),
        dialect: match device.dialect {
            Dialect::V1 => "V1",
            Dialect::V2 => "V2",
        },
        reason,
        duration_ms: duration.map(|duration| duration.as_millis()),
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tunnel<'a> {
    time: String,
    event: &'static str,
    user: &'a str,
    grant: &'a str,
    device: &'a str,
    dialect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u128>,
}

fn word(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Normal => "closed",
        CloseCode::GoingAway => "going-away",
        CloseCode::Protocol => "protocol-fault",
        CloseCode::TooBig => "message-too-large",
        CloseCode::Internal => "fault",
        CloseCode::TimedOut => "timed-out",
        CloseCode::Revoked => "revoked",
        CloseCode::Replaced => "replaced",
        CloseCode::NameTaken => "name-taken",
        CloseCode::Refused => "refused",
        CloseCode::Other(_) => "other",
    }
}
