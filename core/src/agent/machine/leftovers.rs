//! What an agent has on its books for calls.

use alloc::collections::BTreeMap;

use super::Agent;
use crate::agent::cx::Timer;

impl Agent {
    /// What is on the books for calls, by what it is, and how much of it: the calls themselves, what was asked in their
    /// course, and their timers. Nothing, once no call is under way. For whoever wants to see that nothing stays behind;
    /// it looks at all there is.
    #[must_use]
    pub fn leftovers(&self) -> BTreeMap<&'static str, usize> {
        let of_call = |timer: &&Timer| match timer {
            Timer::Approval(_) => true,
            Timer::Server(_, timer) => timer.is_of_call(),
            _ => false,
        };
        let own = [
            ("routes", self.routes.len()),
            ("streams", self.routes.streams()),
            ("approvals", self.approvals.len()),
            ("audit entries", self.ledger.len()),
            ("restarts", self.restarts.len()),
            ("timers", self.cx.timers.keys().filter(of_call).count()),
        ];
        let mut left = BTreeMap::new();
        let servers = self.servers.values().flat_map(|server| server.leftovers());
        for (what, count) in servers.chain(own).filter(|(_, count)| *count > 0) {
            *left.entry(what).or_default() += count;
        }
        left
    }
}
