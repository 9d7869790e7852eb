//! Dialect V1 as agents and relays before 2.0 speak it: the transcripts under `tests/wire/v1`, played against core's
//! connection alone, and against the built program over real sockets.
//!
//! A transcript is a list of steps, one JSON object a line. `peer` is the old side of the tunnel to one device; it
//! `does` something, `says` a message, or `hears` one, and then exactly that. A text that begins with `$` stands for
//! what came there first. The other steps are at the far end of our side: `client`, for an old agent, and `server`, for
//! an old relay.
#![allow(unreachable_pub, reason = "a test target exports nothing")]

mod support;

#[path = "wire/old_agent.rs"]
mod old_agent;
#[path = "wire/old_relay.rs"]
mod old_relay;
#[path = "wire/player.rs"]
mod player;
#[path = "wire/socket.rs"]
mod socket;

/// A story in one direction, told by core alone and by the program.
macro_rules! stories {
    ($($name:ident: $file:literal)*) => {
        mod old_agent_at_our_relay {
            $(mod $name {
                const STORY: &str = include_str!(concat!("wire/v1/old-agent/", $file, ".jsonl"));

                #[test]
                fn core() {
                    crate::player::play(STORY, &mut crate::old_agent::Core::default());
                }

                #[test]
                fn program() {
                    let relay = crate::old_agent::Program::relay(concat!("wire-", $file));
                    crate::player::play(STORY, &mut crate::old_agent::Program::new(&relay));
                }
            })*
        }

        mod our_agent_at_an_old_relay {
            $(mod $name {
                const STORY: &str = include_str!(concat!("wire/v1/old-relay/", $file, ".jsonl"));

                #[test]
                fn core() {
                    crate::player::play(STORY, &mut crate::old_relay::Core::default());
                }

                #[test]
                fn program() {
                    crate::player::play(STORY, &mut crate::old_relay::Program::new(concat!("wire-at-", $file)));
                }
            })*
        }
    };
}

stories! {
    tools: "tools"
    call: "call"
    error: "error"
    restart: "restart"
    multi_device: "multi-device"
    reconnect: "reconnect"
}
