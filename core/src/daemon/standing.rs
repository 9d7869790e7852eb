//! What a process may ask of an agent that it is itself a server of.

use super::{Command, Request};
use crate::agent::machine::ControlCommand;

/// Who asks on an agent's socket. All of them are the same user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whoever no agent started.
    Person,
    /// A process that descends from a server, of this agent or of another one.
    Server,
    /// The same, and the server runs in a sandbox.
    Sandboxed,
}

impl Standing {
    /// Why it may not ask that; `None` if it may.
    ///
    /// A server that could approve calls, or take its own changed tools for good, would do so in a person's place. It
    /// may look on, and may have a session like everybody's; from within a sandbox it may nothing.
    #[must_use]
    pub fn refusal(self, request: &Request) -> Option<&'static str> {
        let harmless = match request {
            Request::Daemon(Command::Attach { keep, .. }) => !keep,
            // What calls are called with is for a person's eyes.
            Request::Agent(ControlCommand::Approvals { params }) => !params,
            Request::Daemon(Command::Show) => true,
            Request::Agent(ControlCommand::Status | ControlCommand::Pins { .. }) => true,
            Request::Daemon(Command::Retire { .. } | Command::Stop)
            | Request::Agent(
                ControlCommand::Restart { .. }
                | ControlCommand::Approve { .. }
                | ControlCommand::Deny { .. }
                | ControlCommand::PinsApprove { .. },
            ) => false,
        };
        match self {
            Self::Server if !harmless => Some(
                "this command was started by one of the agent's servers, which must not decide in your place: run it in a terminal of your own",
            ),
            Self::Sandboxed => {
                Some("this command was started by a server in a sandbox, which may not talk to the agent")
            }
            Self::Person | Self::Server => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_may_look_on_but_decides_nothing_and_a_sandboxed_one_may_nothing() {
        let read = |json: &str| serde_json::from_str::<Request>(json).expect("is a request");
        for (json, for_servers) in [
            (r#"{"command":"status"}"#, true),
            (r#"{"command":"approvals"}"#, true),
            (r#"{"command":"approvals","params":true}"#, false),
            (r#"{"command":"pins"}"#, true),
            (r#"{"command":"show"}"#, true),
            (r#"{"command":"attach","version":"2.0.0"}"#, true),
            (r#"{"command":"attach","version":"2.0.0","keep":true}"#, false),
            (r#"{"command":"retire","version":"9.0.0"}"#, false),
            (r#"{"command":"stop"}"#, false),
            (r#"{"command":"restart"}"#, false),
            (r#"{"command":"approve","id":1}"#, false),
            (r#"{"command":"deny","id":1}"#, false),
            (r#"{"command":"pins-approve"}"#, false),
        ] {
            let request = read(json);
            assert_eq!(Standing::Person.refusal(&request), None, "{json}");
            assert_eq!(Standing::Server.refusal(&request).is_none(), for_servers, "{json}");
            assert!(Standing::Sandboxed.refusal(&request).is_some(), "{json}");
        }
    }
}
