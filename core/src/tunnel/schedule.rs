//! Whose turn it is: the streams that have something to send, served one chunk each in rotation.

use alloc::collections::VecDeque;

/// Streams that are ready to send, longest waiting first; each at most once. They are few, since the socket takes most of
/// what there is at once, and a scan of a thousand numbers costs no more than the upkeep of a set.
#[derive(Debug, Default)]
pub(super) struct Rotation(VecDeque<u32>);

impl Rotation {
    /// Puts `stream` at the end, unless it waits already.
    pub(super) fn join(&mut self, stream: u32) {
        if !self.0.contains(&stream) {
            self.0.push_back(stream);
        }
    }

    /// Takes `stream` out: it has nothing to send any more.
    pub(super) fn leave(&mut self, stream: u32) {
        if let Some(at) = self.0.iter().position(|member| *member == stream) {
            self.0.remove(at);
        }
    }

    /// Takes the stream whose turn it is.
    pub(super) fn next(&mut self) -> Option<u32> {
        self.0.pop_front()
    }

    /// How many streams wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no stream waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn streams_take_turns() {
        let mut rotation = Rotation::default();
        for stream in [3, 1, 2, 3] {
            rotation.join(stream);
        }
        rotation.leave(1);
        rotation.leave(9);
        assert_eq!(rotation.next(), Some(3));
        rotation.join(3);
        assert_eq!(rotation.next(), Some(2));
        assert_eq!(rotation.next(), Some(3));
        assert_eq!(rotation.next(), None);
        assert!(rotation.is_empty());
    }

    proptest! {
        /// The model is the definition: a queue in which nobody stands twice.
        #[test]
        fn turns_are_those_of_a_queue_in_which_nobody_stands_twice(ops in prop::collection::vec((0..6_u8, 1..6_u32), 0..80)) {
            let (mut rotation, mut queue) = (Rotation::default(), Vec::new());
            for (op, stream) in ops {
                match op {
                    0..3 => {
                        rotation.join(stream);
                        if !queue.contains(&stream) {
                            queue.push(stream);
                        }
                    }
                    3 => {
                        rotation.leave(stream);
                        queue.retain(|other| *other != stream);
                    }
                    _ => {
                        let first = (!queue.is_empty()).then(|| queue.remove(0));
                        prop_assert_eq!(rotation.next(), first);
                    }
                }
                prop_assert_eq!((rotation.len(), rotation.is_empty()), (queue.len(), queue.is_empty()));
            }
            prop_assert_eq!(core::iter::from_fn(|| rotation.next()).collect::<Vec<_>>(), queue);
        }
    }
}
