//! What the stub's tool shows, in words and as data.

use alloc::format;
use alloc::string::{String, ToString};

use super::link::Standing;
use crate::agent::status::{Document, Server, Uplink};
use crate::mcp::catalog::State;
use crate::rpc::quoted;

/// Words, and the same as raw JSON.
pub(super) struct Report {
    pub(super) text: String,
    pub(super) data: String,
}

/// How the running agent is. `document` is its own answer: JSON, unless it is of a strange version.
pub(super) fn running(document: &[u8], relay: &str) -> Report {
    let Ok(document) = serde_json::from_slice::<Document>(document) else {
        return trouble(
            "unknown",
            "The agent runs, but its answer is not understood: it is of another version.",
            relay,
        );
    };
    let endpoint = endpoint(&document.relay.url);
    let mut text = format!(
        "{} {}\nMCP clients connect to {endpoint}\n",
        match document.relay.state {
            Uplink::Connected => "Connected to",
            Uplink::Connecting => "Connecting to",
            Uplink::SigningIn => "Signing in at",
            Uplink::Waiting => "Not connected to",
            Uplink::Halted => "Refused by",
            Uplink::Closed => "Leaving",
        },
        document.relay.url,
    );
    text += &format!("This device is {}.\n", document.device);
    if let Some(error) = document.relay.last_error.as_ref().filter(|_| document.relay.state != Uplink::Connected) {
        text += &format!("The last attempt failed: {error}\n");
    }
    if document.servers.is_empty() {
        text += "No servers are configured.";
    }
    for server in &document.servers {
        text += &line(server);
    }
    let status = serde_json::to_string(&document).expect("a document is made of strings, numbers and lists");
    let data = format!(r#"{{"agent":"running","endpoint":{},"status":{status}}}"#, quoted(&endpoint));
    Report { text: text.trim_end().to_string(), data }
}

/// Why there is no agent, and what to do about it.
pub(super) fn absent(standing: &Standing<'_>, relay: &str) -> Report {
    let (state, text) = match standing {
        Standing::Attached => ("unknown", "The agent runs, but does not answer.".to_string()),
        Standing::Coming => ("starting", "The agent is starting: ask again in a moment.".to_string()),
        Standing::Troubled(reason) => (
            "failed",
            format!("The agent cannot be reached: {reason}. It is tried again; `mcp-local-tunnel logs` shows more."),
        ),
        Standing::SigningIn => {
            ("signing-in", "A browser was opened on this machine: sign in there, and the tunnel comes up.".to_string())
        }
        Standing::NeedsLogin(reason) => {
            ("needs-login", format!("Not signed in: {}. The tunnel then comes up by itself.", login_hint(reason)))
        }
        // The reason says what makes a token: the relay's operator does that, and nobody signs in.
        Standing::NeedsToken(reason) => (
            "needs-token",
            format!(
                "The token that the configuration names is of no use: {reason}. With a new one in its place the tunnel comes up by itself; where it is a variable, start the editor again."
            ),
        ),
        Standing::Broken(reason) => {
            ("broken", format!("The agent cannot start: {reason}. Once that is mended, run `mcp-local-tunnel start`."))
        }
        Standing::Stopped => {
            ("stopped", "The agent was stopped. Run `mcp-local-tunnel start` to start it again.".to_string())
        }
        Standing::Refused(reason) => (
            "refused",
            format!("The relay refused this device: {reason}. Once that is mended, run `mcp-local-tunnel start`."),
        ),
        Standing::Unwelcome(reason) => ("refused", format!("The agent refused a session: {reason}.")),
    };
    trouble(state, &text, relay)
}

/// A reason, with the command that mends it, once.
pub fn login_hint(reason: &str) -> String {
    if reason.contains("`mcp-local-tunnel login`") {
        reason.into()
    } else {
        format!("{reason}: run `mcp-local-tunnel login` on this machine")
    }
}

fn trouble(state: &str, text: &str, relay: &str) -> Report {
    let endpoint = endpoint(relay);
    Report {
        text: format!("{text}\nMCP clients connect to {endpoint} once it is up."),
        data: format!(r#"{{"agent":{},"endpoint":{},"problem":{}}}"#, quoted(state), quoted(&endpoint), quoted(text)),
    }
}

fn endpoint(relay: &str) -> String {
    format!("{relay}/mcp")
}

fn line(server: &Server) -> String {
    let state = match server.state {
        State::Asleep => "asleep",
        State::Starting => "starting",
        State::Probing => "probing",
        State::Ready => "ready",
        State::Restarting => "restarting",
        State::Failed => "failed",
        State::Unknown => "unknown",
    };
    let tools = if server.tools == 1 { "tool" } else { "tools" };
    let reason = server.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("  {}: {state}{reason}, {} {tools}\n", server.name, server.tools)
}
