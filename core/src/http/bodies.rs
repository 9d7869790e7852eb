//! How much of large bodies is held at once, in all and of each user, so that nobody's uploads take all the memory, nor
//! everybody else's room.

use alloc::collections::BTreeMap;

use crate::id::UserId;

/// What is held. Its size is bounded by the number of requests.
#[derive(Debug)]
pub struct Bodies {
    most: usize,
    most_of_each: usize,
    sum: usize,
    held: BTreeMap<UserId, usize>,
}

impl Bodies {
    /// Nothing yet. All together are `most` bytes, those of one user [`SHARE`] of it; a body of `largest` always has its
    /// room when nothing else is there.
    #[must_use]
    pub fn new(most: usize, largest: usize) -> Self {
        let most = most.max(largest);
        Self { most, most_of_each: (most / SHARE).max(largest), sum: 0, held: BTreeMap::new() }
    }

    /// `user` is to hold `bytes` more. `true`: there is room, and [`Bodies::give_back`] is to be called in the end.
    pub fn take(&mut self, user: &UserId, bytes: usize) -> bool {
        let held = self.held.get(user).copied().unwrap_or_default();
        // Neither sum overflows: what is held is within its bounds.
        let fits = bytes <= self.most_of_each - held && bytes <= self.most - self.sum;
        if fits && bytes > 0 {
            self.sum += bytes;
            self.held.insert(user.clone(), held + bytes);
        }
        fits
    }

    /// `user` holds `bytes` less.
    pub fn give_back(&mut self, user: &UserId, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let held = self.held.get_mut(user).expect("who gives back has taken");
        *held -= bytes;
        self.sum -= bytes;
        if *held == 0 {
            self.held.remove(user);
        }
    }
}

/// One user holds a quarter at most: sixteen pasted files at once.
const SHARE: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name)
    }

    #[test]
    fn user_has_a_share_and_all_together_the_whole() {
        let mut bodies = Bodies::new(400, 50);
        let users = ["ann", "bob", "cyd", "dot", "eve"].map(user);
        for user in &users[..4] {
            assert!(bodies.take(user, 99) && !bodies.take(user, 2) && bodies.take(user, 1) && bodies.take(user, 0));
        }
        assert!(!bodies.take(&users[4], 1), "there is no more");
        bodies.give_back(&users[0], 10);
        assert!(bodies.take(&users[4], 10) && !bodies.take(&users[4], 1));
        for (user, bytes) in users.iter().zip([90, 100, 100, 100, 10]) {
            bodies.give_back(user, bytes);
        }
        assert!(bodies.held.is_empty() && bodies.sum == 0, "what is given back is forgotten");
    }

    #[test]
    fn largest_body_has_room_however_little_there_is() {
        for most in [0, 60, 200] {
            let mut bodies = Bodies::new(most, 100);
            assert!(bodies.take(&user("ann"), 100), "{most}");
            assert!(!bodies.take(&user("ann"), 1), "{most}");
        }
    }

    proptest! {
        /// The model is what each was given, in a list.
        #[test]
        fn room_is_what_is_left_of_both_bounds(
            most in 0..300_usize, largest in 0..120_usize, steps in prop::collection::vec((0..4_u8, 0..130_usize, any::<bool>()), 0..60)
        ) {
            let mut bodies = Bodies::new(most, largest);
            let (all, each) = (most.max(largest), (most.max(largest) / SHARE).max(largest));
            let mut held: Vec<(u8, usize)> = Vec::new();
            for (who, bytes, gives_back) in steps {
                let name = user(&alloc::format!("{who}"));
                if gives_back {
                    let Some(at) = held.iter().position(|(of, _)| *of == who) else { continue };
                    bodies.give_back(&name, held.remove(at).1);
                } else {
                    let own: usize = held.iter().filter(|(of, _)| *of == who).map(|(_, bytes)| bytes).sum();
                    let sum: usize = held.iter().map(|(_, bytes)| bytes).sum();
                    let fits = own + bytes <= each && sum + bytes <= all;
                    prop_assert_eq!(bodies.take(&name, bytes), fits, "{} of {} and {}", bytes, own, sum);
                    held.extend(fits.then_some((who, bytes)));
                }
                prop_assert_eq!(bodies.sum, held.iter().map(|(_, bytes)| bytes).sum::<usize>());
            }
            for (who, bytes) in held {
                bodies.give_back(&user(&alloc::format!("{who}")), bytes);
            }
            prop_assert!(bodies.held.is_empty() && bodies.sum == 0);
        }
    }
}
