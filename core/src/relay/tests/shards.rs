//! In which shard a user's room is.

use super::*;
use crate::relay::shard_of;

#[test]
fn room_of_a_user_is_in_the_same_shard_on_every_machine() {
    for (user, shards) in [
        ("", [0, 1, 0, 1, 945]),
        ("ann", [0, 1, 2, 1, 921]),
        ("bob", [0, 1, 0, 5, 581]),
        ("jürg", [0, 1, 0, 5, 13]),
        ("https://id.example/u/42", [0, 0, 0, 4, 364]),
    ] {
        assert_eq!([1, 2, 3, 8, 1_000].map(|of| shard_of(&UserId::new(user), of)), shards, "{user}");
    }
}

#[test]
fn users_are_spread_over_all_shards() {
    let mut rooms = [0; 8];
    (0..800).for_each(|n| rooms[shard_of(&UserId::new(format!("user-{n}")), rooms.len())] += 1);
    assert!(rooms.iter().all(|rooms| (50..200).contains(rooms)), "{rooms:?}");
}
