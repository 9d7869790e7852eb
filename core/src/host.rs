//! The contract between a machine and its driver.

use alloc::collections::VecDeque;

use crate::time::{Deadline, Instant, Now};

/// A state machine without IO.
///
/// The drive loop, the same for every machine and every runtime:
///
/// 1. hand in one input: [`handle_event`](Self::handle_event) or [`handle_timeout`](Self::handle_timeout);
/// 2. carry out [`poll_action`](Self::poll_action) until it returns `None`;
/// 3. read [`poll_timeout`](Self::poll_timeout) and sleep until then, or until the next event.
///
/// Completions of actions come back as events; nothing waits inside a machine. The same construction arguments, events
/// and times give the same actions, byte for byte.
pub trait Machine {
    /// What happened in the world.
    type Event;
    /// What the machine orders the world to do.
    type Action;

    /// Takes one event in. Never fails: an event that does not fit the state is dropped, and says so in a trace.
    fn handle_event(&mut self, event: Self::Event, now: Now);

    /// Fires what is due at `now`. Early and repeated calls are harmless.
    fn handle_timeout(&mut self, now: Now);

    /// The next order, oldest first; drain it to `None` after every input.
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When [`handle_timeout`](Self::handle_timeout) is next due; `None`: never, as things stand.
    fn poll_timeout(&self) -> Option<Deadline>;
}

/// A machine's outgoing orders, oldest first.
///
/// It holds what one input produced: drivers drain it after every input, so it is bounded by what a single input may
/// cause, which the `Limits` of each machine bound in turn.
#[derive(Debug)]
pub struct Mailbox<T>(VecDeque<T>);

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Mailbox<T> {
    /// Appends an order.
    pub fn push(&mut self, item: T) {
        self.0.push_back(item);
    }

    /// Appends orders.
    pub fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        self.0.extend(items);
    }

    /// Takes the oldest order.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop_front()
    }

    /// Whether nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many orders are waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Monotonic time that never goes back: machines pass every `now` through one of these (invariant A5).
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClamp(Instant);

impl MonotonicClamp {
    /// `now`, with the instant raised to the latest one seen so far.
    pub fn clamp(&mut self, now: Now) -> Now {
        self.0 = self.0.max(now.instant);
        Now { instant: self.0, unix: now.unix }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;
    use crate::time::UnixTime;

    #[test]
    fn clock_that_steps_back_is_held() {
        let mut clamp = MonotonicClamp::default();
        let at = |micros| Now { instant: Instant::from_micros(micros), unix: UnixTime::default() };
        assert_eq!(clamp.clamp(at(9)).instant.as_micros(), 9);
        assert_eq!(clamp.clamp(at(3)).instant.as_micros(), 9);
        assert_eq!(clamp.clamp(at(10)).instant.as_micros(), 10);
    }

    proptest! {
        #[test]
        fn held_clock_never_goes_back_and_the_wall_clock_passes(times: Vec<(u64, u64)>) {
            let (mut clamp, mut latest) = (MonotonicClamp::default(), 0);
            for (micros, millis) in times {
                latest = latest.max(micros);
                let given = Now { instant: Instant::from_micros(micros), unix: UnixTime::from_millis(millis) };
                let held = clamp.clamp(given);
                prop_assert_eq!((held.instant.as_micros(), held.unix), (latest, given.unix));
                prop_assert_eq!(clamp.clamp(held), held);
            }
        }

        #[test]
        fn orders_come_out_as_they_went_in(batches: Vec<Vec<u8>>, taken in 0..40_usize) {
            let (mut mailbox, mut out, mut given) = (Mailbox::default(), Vec::new(), 0);
            for (index, batch) in batches.iter().enumerate() {
                if index % 2 == 0 {
                    mailbox.extend(batch.iter().copied());
                } else {
                    batch.iter().for_each(|item| mailbox.push(*item));
                }
                out.extend((0..taken).map_while(|_| mailbox.pop()));
                given += batch.len();
                prop_assert_eq!((mailbox.len(), mailbox.is_empty()), (given - out.len(), given == out.len()));
            }
            out.extend(core::iter::from_fn(|| mailbox.pop()));
            prop_assert_eq!(out, batches.concat());
        }
    }
}
