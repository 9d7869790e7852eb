//! What a run has on its books for calls.

use super::{Server, Timer};

impl Timer {
    /// Whether it is a call's, or that of a question to a client.
    pub(in crate::agent) const fn is_of_call(self) -> bool {
        matches!(self, Self::Call(_) | Self::Parked(_) | Self::Beside(_))
    }
}

impl Server {
    /// Each kind, and how much there is of it.
    pub(in crate::agent) fn leftovers(&self) -> [(&'static str, usize); 5] {
        [
            ("calls", self.calls.len()),
            ("held calls", self.held.len()),
            ("questions", self.questions.len()),
            ("questions beside calls", self.beside.len()),
            ("subscriptions", self.listening.subscribers.len() + self.listening.waiting.len()),
        ]
    }
}
