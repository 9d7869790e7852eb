//! One timer table per top machine, keyed by that machine's own enum.

use alloc::collections::binary_heap::PeekMut;
use alloc::collections::{BTreeMap, BinaryHeap};
use core::cmp::Reverse;

use crate::time::Instant;

/// Pending timers: at most one per key, the earliest first. Setting and clearing cost O(log n) on average. Most timers are
/// cleared long before they are due: what they leave in the queue is thrown away many at a time.
#[derive(Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, Instant>,
    /// All that is armed, and some that is not any more. The first is armed.
    queue: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), queue: BinaryHeap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Arms `key` for `at`, replacing an earlier setting of the same key.
    pub fn set(&mut self, key: K, at: Instant) {
        match self.by_key.insert(key.clone(), at) {
            Some(old) if old == at => return,
            Some(_) => self.tidy(&key),
            None => {}
        }
        self.queue.push(Reverse((at, key)));
    }

    /// Disarms `key`; nothing happens when it was not armed.
    pub fn clear(&mut self, key: &K) {
        if self.by_key.remove(key).is_some() {
            self.tidy(key);
        }
    }

    /// When `key` is due, if armed.
    pub fn get(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    /// Takes the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|(at, _)| *at <= now)?;
        let Reverse((_, key)) = self.queue.pop()?;
        self.by_key.remove(&key);
        self.skip();
        Some(key)
    }

    /// The earliest armed timer.
    pub fn next(&self) -> Option<(Instant, &K)> {
        self.queue.peek().map(|Reverse((at, key))| (*at, key))
    }

    /// Throws away what was left of `key`, if it is the first, and of all others, once that is half of the queue.
    fn tidy(&mut self, key: &K) {
        if self.queue.len() > 2 * self.by_key.len() + UNTIDY {
            self.queue.retain(|Reverse((at, key))| self.by_key.get(key) == Some(at));
            self.queue.shrink_to(2 * self.by_key.len() + UNTIDY);
        } else if self.next().is_some_and(|(_, first)| first == key) {
            self.skip();
        }
    }

    /// Goes on to the first that is armed.
    fn skip(&mut self) {
        while let Some(first) = self.queue.peek_mut() {
            let Reverse((at, key)) = &*first;
            if self.by_key.get(key) == Some(at) {
                break;
            }
            PeekMut::pop(first);
        }
    }

    /// All that is armed.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    /// How many timers are armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// Entries that may be left of cleared timers, however few are armed.
const UNTIDY: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn earliest_comes_first_and_resetting_moves_it() {
        let mut timers = Timers::default();
        timers.set("a", at(10));
        timers.set("b", at(5));
        timers.set("b", at(20));
        assert_eq!(timers.next(), Some((at(10), &"a")));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(20)), Some("a"));
        assert_eq!(timers.pop_due(at(20)), Some("b"));
        assert_eq!(timers.pop_due(at(20)), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn cleared_timer_never_fires() {
        let mut timers = Timers::default();
        timers.set(1, at(1));
        timers.clear(&1);
        timers.clear(&2);
        assert_eq!(timers.pop_due(at(100)), None);
        assert_eq!(timers.next(), None);
    }

    /// What is done to a table, and when something is due, in small numbers so that they meet.
    #[derive(Debug, Clone)]
    enum Op {
        Set(u8, u64),
        Clear(u8),
        PopDue(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..6_u8, 0..20_u64).prop_map(|(key, at)| Op::Set(key, at)),
            1 => (0..6_u8).prop_map(Op::Clear),
            2 => (0..20_u64).prop_map(Op::PopDue),
        ]
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_list_that_is_searched(ops in prop::collection::vec(op(), 0..200)) {
            let (mut timers, mut list) = (Timers::default(), Vec::new());
            for op in ops {
                match op {
                    Op::Set(key, due) => {
                        timers.set(key, at(due));
                        list.retain(|(_, other)| *other != key);
                        list.push((at(due), key));
                    }
                    Op::Clear(key) => {
                        timers.clear(&key);
                        list.retain(|(_, other)| *other != key);
                    }
                    Op::PopDue(now) => {
                        let due = list.iter().copied().filter(|(due, _)| *due <= at(now)).min();
                        prop_assert_eq!(timers.pop_due(at(now)), due.map(|(_, key)| key));
                        list.retain(|one| Some(*one) != due);
                    }
                }
                prop_assert_eq!(timers.next().map(|(at, key)| (at, *key)), list.iter().copied().min());
                prop_assert_eq!((timers.len(), timers.is_empty()), (list.len(), list.is_empty()));
                for key in 0..6 {
                    let armed = list.iter().find(|(_, other)| *other == key).map(|(due, _)| *due);
                    prop_assert_eq!(timers.get(&key), armed);
                }
            }
        }
    }
}
