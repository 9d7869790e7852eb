//! What a room has on its books for clients.

use super::Room;

impl Room {
    /// Each kind, and how much there is of it. What a room knows of devices, of sessions and for later is not counted.
    pub(in crate::relay) fn leftovers(&self) -> [(&'static str, usize); 11] {
        [
            ("calls", self.calls.len()),
            ("requests", self.requests.len()),
            ("replies", self.replies.len()),
            ("batches", self.batches.len()),
            ("questions", self.questions.len()),
            ("gathers", self.gathers.len()),
            ("listeners", self.listeners.len()),
            ("subscriptions", self.subscriptions.len()),
            ("feeds", self.feeds.len()),
            ("standing subscriptions", self.standing.len()),
            ("kept streams", self.replay.len()),
        ]
    }
}
