//! How often somebody else may have something done here.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::time::Instant;

/// At most so many within a window of time.
#[derive(Debug)]
pub(super) struct Restraint {
    most: usize,
    window: Duration,
    /// When it was done; never more than `most`.
    done: VecDeque<Instant>,
    /// Whether the last answer was no.
    refused: bool,
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Do it.
    Granted,
    /// Leave it, and say so.
    Refused,
    /// Leave it: the last one was refused as well, and that was said.
    RefusedAgain,
}

impl Restraint {
    pub(super) fn new(most: usize, window: Duration) -> Self {
        Self { most, window, done: VecDeque::new(), refused: false }
    }

    /// Asks to do it now.
    pub(super) fn ask(&mut self, now: Instant) -> Leave {
        while self.done.front().is_some_and(|at| now.saturating_since(*at) >= self.window) {
            self.done.pop_front();
        }
        let full = self.done.len() >= self.most;
        let again = core::mem::replace(&mut self.refused, full);
        if !full {
            self.done.push_back(now);
            return Leave::Granted;
        }
        if again { Leave::RefusedAgain } else { Leave::Refused }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn so_many_in_a_window_and_one_word_about_the_rest() {
        let mut restraint = Restraint::new(2, Duration::from_secs(60));
        let mut at = |secs: u64| restraint.ask(Instant::from_micros(secs * 1_000_000));
        assert_eq!(
            [at(0), at(10), at(20), at(59)],
            [Leave::Granted, Leave::Granted, Leave::Refused, Leave::RefusedAgain]
        );
        assert_eq!([at(60), at(61), at(70)], [Leave::Granted, Leave::Refused, Leave::Granted]);
    }

    proptest! {
        /// The model searches all that was done.
        #[test]
        fn leave_is_that_of_all_that_was_done_in_the_window(
            most in 1..4_usize, window in 1..60_u64, gaps in prop::collection::vec(0..40_u64, 0..60)
        ) {
            let mut restraint = Restraint::new(most, Duration::from_secs(window));
            let (mut now, mut done, mut refused) = (0, Vec::new(), false);
            for gap in gaps {
                now += gap;
                let recent = done.iter().filter(|at| now - **at < window).count();
                let expected = match (recent < most, refused) {
                    (true, _) => Leave::Granted,
                    (false, false) => Leave::Refused,
                    (false, true) => Leave::RefusedAgain,
                };
                prop_assert_eq!(restraint.ask(Instant::from_micros(now * 1_000_000)), expected);
                refused = recent >= most;
                if !refused {
                    done.push(now);
                }
                prop_assert!(restraint.done.len() <= most);
            }
        }
    }
}
