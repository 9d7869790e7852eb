//! Which error answers a call, and when: what fits the cause, as soon as that is known.

use serde_json::Value;
use tunnel_core::limits;
use tunnel_core::mcp::code;

use super::oracle::{Call, Verdict};
use super::plan::{ServerPlan, Tool};
use super::stage::Stage;
use crate::link::micros;

impl Stage {
    /// What a call was answered with is the error that the model expects, if it knows, and comes when it must.
    pub(super) fn judge_error(&mut self, call: &Call, error: &Value) {
        let code = error["code"].as_i64().unwrap_or_default();
        self.world.trace.cover(name_of(code));
        let took = self.world.micros().saturating_sub(call.sent_at);
        if call.tool.is_some() && call.rest.is_none() {
            assert!(self.has_cause(call, code, took), "{call:?} has no cause for its error, after {took} µs: {error}");
        }
        let Some((expected, by)) = self.expected(call) else { return };
        self.world.trace.cover("an error that the model expected");
        assert_eq!(code, expected, "another error is due to {call:?}: {error}");
        assert!(took <= by, "{call:?} took {took} µs for its error: {error}");
    }

    /// Whether something has happened that makes that the error of a call.
    fn has_cause(&self, call: &Call, code: i64, took: u64) -> bool {
        match code {
            code::TIMED_OUT => took >= micros(self.patience(call)) - MARGIN,
            code::CANCELLED => {
                let person = &self.people[call.person];
                let is_signed_in = call.verdict == Verdict::Opens && self.verdict(call.person) == Verdict::Opens;
                call.is_given_up || person.changes != call.changes || !is_signed_in
            }
            code::STALLED => call.has_stopped_reading,
            code::TOO_LARGE => call.tool == Some(Tool::Huge),
            // A URI that is in no list goes to the only server that has resources, and shares its fate.
            code::REFUSED | code::AGENT_GONE | code::SERVER_UNAVAILABLE if call.tool == Some(Tool::Read) => true,
            code::REFUSED => self.gate_of(call) != Some(0),
            code::AGENT_GONE => !call.is_calm || !self.is_untouched(call),
            code::SERVER_UNAVAILABLE => {
                let is_cut = call.tool == Some(Tool::Die) || call.tool == Some(Tool::Huge) && self.is_at_site(call);
                is_cut || !call.is_calm || !self.is_untouched(call)
            }
            _ => true,
        }
    }

    /// The error that a call must have which can have no result, and after which time at the latest, in microseconds; if
    /// all was well when it was sent, and nothing has happened since.
    fn expected(&self, call: &Call) -> Option<(i64, u64)> {
        if !call.is_calm || !self.is_untouched(call) {
            return None;
        }
        let tool = call.tool?;
        let is_denied = self.gate_of(call)? == 1;
        // V1 has no codes.
        let is_old = call.laptop.is_some_and(|laptop| self.laptops[laptop].plan.old);
        let told = |code| if is_old { code::INTERNAL_ERROR } else { code };
        match tool {
            Tool::Die => Some((told(code::SERVER_UNAVAILABLE), AT_ONCE)),
            // A site that says so much breaks off.
            Tool::Huge if self.is_at_site(call) => Some((told(code::SERVER_UNAVAILABLE), AT_ONCE)),
            Tool::Huge => Some((told(code::TOO_LARGE), AT_ONCE)),
            // The relay does not list it; but what a session's own run has it does not know, and an endpoint of one server
            // passes on whatever is asked for.
            Tool::Blob if is_denied && call.path == "/mcp" && !self.plan_of(call)?.isolated => {
                Some((code::INVALID_PARAMS, AT_ONCE))
            }
            Tool::Silent => Some((code::TIMED_OUT, micros(self.patience(call)) + AT_ONCE)),
            _ => None,
        }
    }

    /// Whether its server is one over HTTP.
    fn is_at_site(&self, call: &Call) -> bool {
        self.plan_of(call).is_some_and(|server| server.web)
    }

    /// The server of a call.
    fn plan_of(&self, call: &Call) -> Option<&ServerPlan> {
        self.laptops[call.laptop?].plan.servers.get(call.server?)
    }

    /// For how long the relay waits for word of a call.
    fn patience(&self, call: &Call) -> std::time::Duration {
        let is_old = call.laptop.is_some_and(|laptop| self.laptops[laptop].plan.old);
        if is_old { limits::V1_CALL_TIMEOUT } else { limits::CALL_IDLE }
    }

    /// What the device lets be called of the server of a call.
    fn gate_of(&self, call: &Call) -> Option<u8> {
        let plan = &self.laptops[call.laptop?].plan;
        Some(plan.servers.get(call.server?)?.policy)
    }
}

pub(super) fn name_of(code: i64) -> &'static str {
    match code {
        code::SERVER_UNAVAILABLE => "error: server unavailable",
        code::AGENT_GONE => "error: agent gone",
        code::TIMED_OUT => "error: timed out",
        code::CANCELLED => "error: cancelled",
        code::OVERLOADED => "error: overloaded",
        code::TOO_LARGE => "error: too large",
        code::REFUSED => "error: refused",
        code::STALLED => "error: stalled",
        code::AMBIGUOUS => "error: ambiguous",
        code::INVALID_PARAMS => "error: invalid params",
        code::METHOD_NOT_FOUND => "error: method not found",
        code::INTERNAL_ERROR => "error: internal",
        _ => "error: another",
    }
}

/// How long an error may take whose cause is there at once: the server may have to start first, in microseconds.
const AT_ONCE: u64 = 45_000_000;
/// Clocks drift.
const MARGIN: u64 = 2_000_000;
