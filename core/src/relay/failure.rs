//! Why a call has no result: one place for codes, words and data.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use crate::id::DeviceName;
use crate::mcp::code;
use crate::rpc::{RawId, envelope, quoted};
use crate::tunnel::{CloseCode, ResetCode};

/// Why a call has no result. Who reads it is the client's model or person: it says what failed, why, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The method is not offered on this endpoint.
    NoSuchMethod(String),
    /// The params cannot be used.
    BadParams(&'static str),
    /// A header field does not repeat what it must of the body: which, and how.
    Mismatch(String),
    /// Nobody is there who could have it.
    NoDevice(String),
    /// No tool of that name; `near` are names like it, joined.
    NoSuchTool { name: String, near: String },
    /// Several tools of that name; `choices` are their listed names, joined.
    AmbiguousTool { name: String, choices: String },
    /// Nothing of that name: names like it, or the servers that have such things, joined.
    Unknown { thing: Thing, name: String, hint: String, code: i64 },
    /// Several servers have it; under which names each has it, joined.
    Ambiguous { thing: Thing, name: String, choices: String },
    /// No server behind this URL; `servers` are those there are, joined.
    NoSuchServer { server: String, servers: String },
    /// Several devices have the server of this URL; `urls` say which is which.
    AmbiguousServer { server: String, urls: String },
    /// The server takes no calls now.
    NotReady { place: Place, state: &'static str, reason: Option<String> },
    /// The agent announced that it will close.
    Leaving(Place),
    /// The tunnel closed while the call was under way.
    Disconnected { place: Place, code: CloseCode },
    /// The agent ended the call without an answer.
    Reset { place: Place, code: ResetCode, reason: String },
    /// Nothing was heard of the call for too long.
    TimedOut(Place),
    /// The agent's answer broke the tunnel's rules.
    Broken(Place),
    /// The caller cancelled.
    Cancelled,
    /// The caller's sign-in ended.
    SignedOut,
    /// The caller ended its session.
    SessionEnded,
    /// Too many calls at once; of whom or where.
    Overloaded(&'static str),
    /// An id that is still in use by another request of the session.
    IdInUse,
    /// All answers of a batch together are too long.
    BatchTooLarge,
    /// The client comes back for what is not kept any more.
    Missed,
    /// The client comes back for a stream of which nothing is known any more.
    Forgotten,
    /// The relay stops.
    Stopping,
}

/// What a name is of, besides a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Prompt,
    Resource,
    Task,
}

/// Where a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) device: DeviceName,
    pub(super) server: Arc<str>,
}

impl Failure {
    /// The JSON-RPC error response.
    pub(super) fn response(&self, id: &RawId) -> Bytes {
        envelope::error(Some(id), self.code(), &self.message(), Some(&self.data()))
    }

    /// The JSON-RPC error code.
    pub(super) fn code(&self) -> i64 {
        match self {
            Self::NoSuchMethod(_) => code::METHOD_NOT_FOUND,
            Self::NoDevice(_) => code::SERVER_UNAVAILABLE,
            Self::NoSuchServer { servers, .. } if servers.is_empty() => code::SERVER_UNAVAILABLE,
            Self::BadParams(_) | Self::NoSuchTool { .. } | Self::NoSuchServer { .. } => code::INVALID_PARAMS,
            Self::Mismatch(_) => code::HEADER_MISMATCH,
            Self::Unknown { code, .. } => *code,
            Self::Ambiguous { .. } | Self::AmbiguousTool { .. } | Self::AmbiguousServer { .. } => code::AMBIGUOUS,
            Self::NotReady { .. } => code::SERVER_UNAVAILABLE,
            Self::Leaving(_) | Self::Disconnected { .. } => code::AGENT_GONE,
            Self::Missed | Self::Forgotten | Self::Stopping => code::AGENT_GONE,
            Self::TimedOut(_) => code::TIMED_OUT,
            Self::Broken(_) => code::INTERNAL_ERROR,
            Self::Cancelled | Self::SignedOut | Self::SessionEnded => code::CANCELLED,
            Self::Overloaded(_) => code::OVERLOADED,
            Self::IdInUse => code::INVALID_REQUEST,
            Self::BatchTooLarge => code::TOO_LARGE,
            Self::Reset { code, .. } => match code {
                ResetCode::Cancelled => code::CANCELLED,
                ResetCode::TooLarge => code::TOO_LARGE,
                ResetCode::Stalled => code::STALLED,
                ResetCode::ServerGone => code::SERVER_UNAVAILABLE,
                ResetCode::Internal => code::INTERNAL_ERROR,
                ResetCode::Overloaded => code::OVERLOADED,
                ResetCode::TimedOut => code::TIMED_OUT,
            },
        }
    }

    /// The HTTP status. What a handler says is in band; an address that leads nowhere is not.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchServer { .. } => StatusCode::NOT_FOUND,
            Self::AmbiguousServer { .. } => StatusCode::CONFLICT,
            Self::Mismatch(_) => StatusCode::BAD_REQUEST,
            Self::NoSuchMethod(_)
            | Self::BadParams(_)
            | Self::NoDevice(_)
            | Self::NoSuchTool { .. }
            | Self::AmbiguousTool { .. }
            | Self::Unknown { .. }
            | Self::Ambiguous { .. }
            | Self::NotReady { .. }
            | Self::Leaving(_)
            | Self::Disconnected { .. }
            | Self::Reset { .. }
            | Self::TimedOut(_)
            | Self::Broken(_)
            | Self::Cancelled
            | Self::SignedOut
            | Self::SessionEnded
            | Self::Overloaded(_)
            | Self::IdInUse
            | Self::BatchTooLarge
            | Self::Missed
            | Self::Forgotten
            | Self::Stopping => StatusCode::OK,
        }
    }

    /// A constant word for programs and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchMethod(_) => "no-such-method",
            Self::BadParams(_) => "bad-params",
            Self::Mismatch(_) => "header-mismatch",
            Self::NoDevice(_) => "no-device",
            Self::NoSuchTool { .. } => "no-such-tool",
            Self::AmbiguousTool { .. } => "ambiguous-tool",
            Self::Unknown { thing, .. } => match thing {
                Thing::Prompt => "no-such-prompt",
                Thing::Resource => "no-such-resource",
                Thing::Task => "no-such-task",
            },
            Self::Ambiguous { thing, .. } => match thing {
                Thing::Prompt => "ambiguous-prompt",
                Thing::Resource => "ambiguous-resource",
                Thing::Task => "ambiguous-task",
            },
            Self::NoSuchServer { .. } => "no-such-server",
            Self::AmbiguousServer { .. } => "ambiguous-server",
            Self::NotReady { .. } => "server-not-ready",
            Self::Leaving(_) => "device-leaving",
            Self::Disconnected { .. } => "device-disconnected",
            Self::TimedOut(_) => "timed-out",
            Self::Broken(_) => "broken-answer",
            Self::Cancelled => "cancelled",
            Self::SignedOut => "signed-out",
            Self::SessionEnded => "session-ended",
            Self::Overloaded(_) => "overloaded",
            Self::IdInUse => "id-in-use",
            Self::BatchTooLarge => "batch-too-large",
            Self::Missed => "answer-missed",
            Self::Forgotten => "outcome-unknown",
            Self::Stopping => "relay-stopping",
            Self::Reset { code, .. } => match code {
                ResetCode::Cancelled => "cancelled",
                ResetCode::TooLarge => "answer-too-large",
                ResetCode::Stalled => "reader-stalled",
                ResetCode::ServerGone => "server-gone",
                ResetCode::Internal => "agent-fault",
                ResetCode::Overloaded => "agent-overloaded",
                ResetCode::TimedOut => "timed-out",
            },
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NoSuchMethod(method) => format!("{method} is not offered here"),
            Self::BadParams(why) => (*why).to_string(),
            Self::Mismatch(what) => what.clone(),
            Self::NoDevice(name) => format!("no device is connected that could have {name}: try again once one is"),
            Self::NoSuchTool { name, near } if near.is_empty() => {
                format!("unknown tool {name}: tools/list has the names, status says which devices are connected")
            }
            Self::NoSuchTool { name, near } => format!("unknown tool {name}: did you mean {near}?"),
            Self::AmbiguousTool { name, choices } => format!("{name} may mean several tools: use one of {choices}"),
            Self::Unknown { thing, name, hint, .. } => match (thing, hint.as_str()) {
                (Thing::Prompt, "") => format!("unknown prompt {name}: prompts/list has the names"),
                (Thing::Prompt, near) => format!("unknown prompt {name}: did you mean {near}?"),
                (Thing::Resource, "") => format!("unknown resource {name}: no connected server has resources"),
                (Thing::Resource, servers) => format!(
                    "unknown resource {name}: it is in no list and fits no template; resources have {servers}, each also at /mcp/SERVER"
                ),
                (Thing::Task, _) => format!("unknown task {name}: no connected server has it"),
            },
            Self::Ambiguous { thing, name, choices } => match thing {
                Thing::Prompt => format!("{name} may mean several prompts: use one of {choices}"),
                Thing::Resource => format!("several servers have {name}: use one of {choices}"),
                Thing::Task => format!("several servers have a task {name} ({choices}): use the URL of one of them"),
            },
            Self::NoSuchServer { server, servers } if servers.is_empty() => {
                format!("no connected device has a server {server}: no device is connected")
            }
            Self::NoSuchServer { server, servers } => {
                format!("no connected device has a server {server}; there are {servers}")
            }
            Self::AmbiguousServer { server, urls } => {
                format!("several devices have a server {server}: use one of {urls}")
            }
            Self::NotReady { place, state, reason } => {
                let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                format!("server {} on {} is {state}{reason}", place.server, place.device)
            }
            Self::Leaving(place) => format!("device {} is about to disconnect: try again shortly", place.device),
            Self::Disconnected { place, code: CloseCode::TooBig } => format!(
                "device {} was disconnected, since an answer of it was too large for one message: perhaps that of {} to this call. A newer agent sends large answers in pieces",
                place.device, place.server
            ),
            Self::Disconnected { place, .. } => format!(
                "device {} disconnected during the call: whether {} carried it out is not known",
                place.device, place.server
            ),
            Self::Reset { place, code, reason } => {
                let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                let what = match code {
                    ResetCode::Cancelled => "the call was cancelled",
                    ResetCode::TooLarge => "the answer is larger than allowed",
                    ResetCode::Stalled => "the answer was not read for too long",
                    ResetCode::ServerGone => "the server ended during the call",
                    ResetCode::Internal => "the agent failed",
                    ResetCode::Overloaded => "too many calls at once on this device",
                    ResetCode::TimedOut => "the server did not answer in time",
                };
                format!("{what} (server {} on {}){reason}", place.server, place.device)
            }
            Self::TimedOut(place) => {
                format!("nothing was heard from {} on {} for too long", place.server, place.device)
            }
            Self::Broken(place) => format!("the agent on {} sent a broken answer", place.device),
            Self::Cancelled => "the call was cancelled".to_string(),
            Self::SignedOut => "the sign-in of this client ended".to_string(),
            Self::SessionEnded => "this client ended its session".to_string(),
            Self::Overloaded(whose) => format!("too many calls {whose} at once: wait for some to end"),
            Self::IdInUse => "another request of this session with the same id is under way".to_string(),
            Self::BatchTooLarge => "the answers of this batch are too long: send this request alone".to_string(),
            Self::Missed => "the answer was sent while the connection was lost, and is too long to be kept".to_string(),
            Self::Forgotten => {
                "the relay was restarted, or the connection lost for too long: what became of this call is not known"
                    .to_string()
            }
            Self::Stopping => "the relay is restarting: try again shortly".to_string(),
        }
    }

    fn data(&self) -> Bytes {
        let mut data = format!("{{\"reason\":{}", quoted(self.reason()));
        let place = match self {
            Self::NotReady { place, .. } | Self::Disconnected { place, .. } | Self::Reset { place, .. } => Some(place),
            Self::Leaving(place) | Self::TimedOut(place) | Self::Broken(place) => Some(place),
            Self::NoSuchMethod(_)
            | Self::BadParams(_)
            | Self::Mismatch(_)
            | Self::NoDevice(_)
            | Self::NoSuchTool { .. }
            | Self::AmbiguousTool { .. }
            | Self::Unknown { .. }
            | Self::Ambiguous { .. }
            | Self::NoSuchServer { .. }
            | Self::AmbiguousServer { .. }
            | Self::Cancelled
            | Self::SignedOut
            | Self::SessionEnded
            | Self::Overloaded(_)
            | Self::IdInUse
            | Self::BatchTooLarge
            | Self::Missed
            | Self::Forgotten
            | Self::Stopping => None,
        };
        if let Some(place) = place {
            data += &format!(",\"device\":{},\"server\":{}", quoted(place.device.as_str()), quoted(&place.server));
        }
        if let Self::Unknown { thing: Thing::Resource, name, .. } = self {
            data += &format!(",\"uri\":{}", quoted(name));
        }
        if let Self::Disconnected { code, .. } = self {
            data += &format!(",\"closeCode\":{}", code.to_u16());
        }
        data.push('}');
        Bytes::from(data)
    }
}
