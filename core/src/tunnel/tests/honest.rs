//! Two honest peers under any order of events: whatever their owners do and however slowly messages are carried,
//! neither accuses the other, every call ends once, and nothing is left behind.

use alloc::collections::BTreeMap;
use alloc::vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::STALL_TIMEOUT;
use crate::tunnel::ResetCode;

#[derive(Debug, Clone)]
enum Step {
    Open { params: usize },
    Answer { call: u32, body: usize },
    AgentMessage { call: u32, length: usize, droppable: bool },
    RelayMessage { call: u32, length: usize },
    RelayReset { call: u32 },
    AgentReset { call: u32 },
    Consume { call: u32, share: u64 },
    Announce { length: usize },
    Probe,
    ToRelay,
    ToAgent,
    Wait { secs: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (call, length) = (1..8_u32, 1..400_000_usize);
    prop_oneof![
        3 => (0..100_000_usize).prop_map(|params| Step::Open { params }),
        3 => (call.clone(), 0..1_000_000_usize).prop_map(|(call, body)| Step::Answer { call, body }),
        3 => (call.clone(), length.clone(), any::<bool>())
            .prop_map(|(call, length, droppable)| Step::AgentMessage { call, length, droppable }),
        1 => (call.clone(), length.clone()).prop_map(|(call, length)| Step::RelayMessage { call, length }),
        1 => call.clone().prop_map(|call| Step::RelayReset { call }),
        1 => call.clone().prop_map(|call| Step::AgentReset { call }),
        4 => (call, 1..4_u64).prop_map(|(call, share)| Step::Consume { call, share }),
        1 => length.prop_map(|length| Step::Announce { length }),
        1 => Just(Step::Probe),
        6 => Just(Step::ToRelay),
        6 => Just(Step::ToAgent),
        1 => (0..40_u64).prop_map(|secs| Step::Wait { secs }),
    ]
}

/// What the relay's owner knows of one call.
#[derive(Debug, Default)]
struct Call {
    /// Credit that it holds.
    held: u32,
    answered: bool,
    ended: bool,
}

struct World {
    pair: Pair,
    calls: BTreeMap<u32, Call>,
    opened: u32,
}

impl World {
    fn take(&mut self, step: &Step) {
        let reset = |call| Command::Reset { stream: StreamId(call), code: ResetCode::Cancelled, reason: String::new() };
        match *step {
            Step::Open { params } => {
                self.opened += 1;
                self.calls.insert(self.opened, Call::default());
                self.pair.relay(open(self.opened, &vec![b'p'; params]));
            }
            Step::Answer { call, body } => self.pair.agent(answer(call, vec![b'b'; body])),
            Step::AgentMessage { call, length, droppable } => {
                self.pair.agent(message(call, "m".repeat(length), droppable));
            }
            Step::RelayMessage { call, length } => self.pair.relay(message(call, "r".repeat(length), false)),
            Step::RelayReset { call } => {
                self.pair.relay(reset(call));
                self.calls.entry(call).and_modify(|call| call.ended = true);
            }
            Step::AgentReset { call } => self.pair.agent(reset(call)),
            Step::Consume { call, share } => self.consume(call, share),
            Step::Announce { length } => self.pair.agent(Command::Catalog(vec![b' '; length].into())),
            Step::Probe => self.pair.agent(Command::Probe),
            Step::ToRelay => drop(self.pair.carry_to_relay()),
            Step::ToAgent => drop(self.pair.carry_to_agent()),
            Step::Wait { secs } => self.pair.pass(Duration::from_secs(secs), true),
        }
        self.observe();
    }

    fn consume(&mut self, stream: u32, share: u64) {
        if let Some(call) = self.calls.get_mut(&stream) {
            let bytes = u32::try_from(u64::from(call.held) / share).unwrap();
            call.held -= bytes;
            self.pair.relay(Command::Consumed { stream: StreamId(stream), bytes });
        }
    }

    fn observe(&mut self) {
        for event in self.pair.agent_events() {
            assert!(!matches!(event, Event::Closed(_)), "{event:?}");
        }
        for event in self.pair.relay_events() {
            let (stream, held, answer, end) = match &event {
                Event::Closed(_) => panic!("{event:?}"),
                Event::Answer { stream, .. } => (stream, 0, true, false),
                Event::Data { stream, bytes, end } => (stream, u32::try_from(bytes.len()).unwrap(), false, *end),
                Event::Message { stream, credit, .. } => (stream, *credit, false, false),
                Event::Reset { stream, .. } => (stream, 0, false, true),
                _ => continue,
            };
            let call = self.calls.get_mut(&stream.0).unwrap();
            assert!(!call.ended, "nothing follows the end: {event:?}");
            assert!(!(answer && call.answered), "one answer");
            assert!(call.answered || !matches!(event, Event::Data { .. }), "the answer's head comes first");
            call.held += held;
            call.answered |= answer;
            call.ended = end;
        }
    }

    /// Answers every call, consumes everything, and lets the rest time out.
    fn settle(&mut self) {
        for round in 0..100 {
            self.pair.run();
            self.observe();
            for call in 1..=self.opened {
                if round == 0 {
                    self.pair.agent(answer(call, "{}"));
                }
                self.consume(call, 1);
            }
        }
        self.pair.pass(STALL_TIMEOUT, true);
        self.pair.run();
        self.observe();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn honest_peers_never_fault_and_leave_nothing_behind(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World { pair: Pair::up(), calls: BTreeMap::new(), opened: 0 };
        for step in &steps {
            world.take(step);
        }
        world.settle();
        for (stream, call) in &world.calls {
            prop_assert!(call.ended, "call {stream} ended: {call:?}");
        }
        prop_assert!(world.pair.relay.is_idle() && world.pair.agent.is_idle());
    }
}
