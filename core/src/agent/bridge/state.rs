//! The `requestState` that a modern client carries for a legacy server whose call is parked: sealed, so that nobody else
//! can make one, and bound to whose call of what it is (2026-07-28, patterns, MRTR, Server Requirements).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use ring::digest;

use crate::agent::cx::RequestId;
use crate::agent::pins;
use crate::entropy::Entropy;
use crate::rpc::object::Object;
use crate::rpc::quoted;
use crate::seal::{Purpose, Sealer};
use crate::time::UnixTime;

/// Which call waits, and for which round of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Ticket {
    pub(in crate::agent) call: RequestId,
    pub(in crate::agent) round: u32,
    /// After this it is worthless.
    pub(in crate::agent) until: UnixTime,
}

/// Whose call of what it is. Another's cannot take it up, nor another call of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Binding(Vec<u8>);

impl Binding {
    /// Of a call by `actor`. What changes from one round to the next (`_meta`, the answers) has no part in it.
    pub(in crate::agent) fn new(actor: &str, server: &str, method: &str, params: &Bytes) -> Self {
        let asked = Object::parse_or_empty(params)
            .map_or_else(|_| params.clone(), |object| object.remove(&["_meta", "inputResponses", "requestState"]));
        let print = digest::digest(&digest::SHA256, &pins::canonical_text(&asked));
        let mut bytes = format!("{},{},{},", quoted(actor), quoted(server), quoted(method)).into_bytes();
        bytes.extend_from_slice(print.as_ref());
        Self(bytes)
    }
}

/// Seals a ticket.
pub(in crate::agent) fn seal(sealer: &Sealer, binding: &Binding, ticket: Ticket, entropy: &mut dyn Entropy) -> String {
    let mut plain = Vec::with_capacity(PLAIN);
    plain.extend_from_slice(&ticket.call.0.to_be_bytes());
    plain.extend_from_slice(&ticket.round.to_be_bytes());
    plain.extend_from_slice(&ticket.until.as_millis().to_be_bytes());
    sealer.seal(Purpose::RequestState, &binding.0, &plain, entropy)
}

/// The ticket in a state that was sealed here for that call; `None`: it is foreign, changed, of another call or too old.
pub(in crate::agent) fn open(sealer: &Sealer, binding: &Binding, state: &str, now: UnixTime) -> Option<Ticket> {
    let plain = sealer.open(Purpose::RequestState, &binding.0, state).ok()?;
    let (call, rest) = plain.split_first_chunk::<8>()?;
    let (round, rest) = rest.split_first_chunk::<4>()?;
    let (until, rest) = rest.split_first_chunk::<8>()?;
    let until = UnixTime::from_millis(u64::from_be_bytes(*until));
    let ticket = Ticket { call: RequestId(u64::from_be_bytes(*call)), round: u32::from_be_bytes(*round), until };
    (rest.is_empty() && now <= until).then_some(ticket)
}

const PLAIN: usize = 20;

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;

    const PARAMS: &str = r#"{"name":"x","arguments":{"a":1,"b":[2]},"_meta":{"progressToken":1}}"#;
    const NOW: UnixTime = UnixTime::from_secs(1_000);

    fn binding(actor: &str, server: &str, method: &str, params: &str) -> Binding {
        Binding::new(actor, server, method, &Bytes::copy_from_slice(params.as_bytes()))
    }

    fn sealed(sealer: &Sealer) -> (String, Ticket) {
        let ticket = Ticket { call: RequestId(7), round: 2, until: NOW + Duration::from_secs(600) };
        (seal(sealer, &binding("ann", "s", "tools/call", PARAMS), ticket, &mut Seeded::new(3)), ticket)
    }

    fn sealer(seed: u64) -> Sealer {
        Sealer::new(Vec::from([Sealer::generate(&mut Seeded::new(seed))]))
    }

    #[test]
    fn state_opens_for_the_same_call_however_it_is_written() {
        let sealer = sealer(1);
        let (state, ticket) = sealed(&sealer);
        for params in
            [PARAMS, r#"{ "arguments":{"b":[2],"a":1}, "name":"x", "inputResponses":{"q":1}, "requestState":"s" }"#]
        {
            assert_eq!(
                open(&sealer, &binding("ann", "s", "tools/call", params), &state, NOW),
                Some(ticket),
                "{params}"
            );
        }
    }

    #[test]
    fn state_opens_for_nobody_else_for_nothing_else_and_not_too_late() {
        let ours = sealer(1);
        let (state, ticket) = sealed(&ours);
        let own = binding("ann", "s", "tools/call", PARAMS);
        for other in [
            binding("bob", "s", "tools/call", PARAMS),
            binding("ann", "t", "tools/call", PARAMS),
            binding("ann", "s", "prompts/get", PARAMS),
            binding("ann", "s", "tools/call", r#"{"name":"x","arguments":{"a":1,"b":[3]}}"#),
            binding("ann", "s", "tools/call", r#"{"name":"y","arguments":{"a":1,"b":[2]}}"#),
            binding("ann", "s", "tools/call", ""),
        ] {
            assert_eq!(open(&ours, &other, &state, NOW), None);
        }
        assert_eq!(open(&sealer(2), &own, &state, NOW), None, "another agent's");
        assert_eq!(open(&ours, &own, &state, ticket.until), Some(ticket));
        assert_eq!(open(&ours, &own, &state, ticket.until + Duration::from_millis(1)), None);
        for state in ["", "x", &state[1..], &state.replace('A', "B").replace('c', "d")] {
            assert_eq!(open(&ours, &own, state, NOW), None, "{state}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn ticket_opens_for_its_own_call_until_its_time(
            call: u64, round: u32, until: u64, now: u64, names in prop::array::uniform3("[ab,\"]{0,2}"), others in prop::array::uniform3("[ab,\"]{0,2}")
        ) {
            let ticket = Ticket { call: RequestId(call), round, until: UnixTime::from_millis(until) };
            let of = |names: &[String; 3]| binding(&names[0], &names[1], &names[2], PARAMS);
            let state = seal(&sealer(1), &of(&names), ticket, &mut Seeded::new(3));
            let now = UnixTime::from_millis(now);
            prop_assert_eq!(open(&sealer(1), &of(&names), &state, ticket.until), Some(ticket));
            prop_assert_eq!(open(&sealer(1), &of(&names), &state, now), (now <= ticket.until).then_some(ticket));
            let other = open(&sealer(1), &of(&others), &state, ticket.until);
            prop_assert_eq!(other, (names == others).then_some(ticket), "however commas and quotes lie");
            prop_assert_eq!(open(&sealer(2), &of(&names), &state, ticket.until), None);
        }
    }
}
