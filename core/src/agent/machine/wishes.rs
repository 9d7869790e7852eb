//! What sessions set outlives this process: it is kept on disk, and taken up again at the start.

use bytes::Bytes;

use super::{Action, Agent, Phase};
use crate::agent::cx::{Slot, Timer};
use crate::agent::wishes::Wishes;
use crate::limits;

impl Agent {
    /// What sessions had set when the agent ran last.
    pub(super) fn recall_wishes(&mut self, json: &Bytes) {
        if self.phase != Phase::New {
            return;
        }
        let is_known = |name: &str| self.names.contains_key(name);
        match Wishes::recall(json, &self.config.relay, self.cx.now.unix, is_known) {
            Ok(wishes) => {
                self.unwatched = wishes.watched_servers();
                self.cx.wishes = wishes;
            }
            Err(reason) => tracing::warn!(reason, "what clients' sessions had set is forgotten: cannot use its file"),
        }
    }

    /// Keeps what sessions set, if it changed and was not kept a moment ago.
    pub(super) fn keep_wishes(&mut self) {
        if !self.cx.wishes.is_changed() || self.cx.timers.get(&Timer::Wishes).is_some() {
            return;
        }
        match self.wishes_kept.map(|kept| kept + limits::KEEP_WISHES_EVERY) {
            Some(next) if next > self.cx.now.instant => self.cx.timers.set(Timer::Wishes, next),
            Some(_) | None => self.keep_wishes_now(),
        }
    }

    pub(super) fn keep_wishes_now(&mut self) {
        if self.cx.wishes.is_changed() {
            self.wishes_kept = Some(self.cx.now.instant);
            let json = self.cx.wishes.keep(&self.config.relay, self.cx.now.unix);
            self.cx.out.push(Action::KeepWishes { json });
        }
    }

    /// A server's runs for clients of the legacy era are gone: what these watch is not told them any more.
    pub(super) fn lose_watch(&mut self, main: Slot) {
        if let Some(server) = self.servers.get(&main).filter(|_| self.is_current(main)) {
            self.unwatched.insert(server.name().into());
        }
    }

    /// Begins the runs of a server that sessions need which watch something of it, once it is known which those are. A
    /// session's own run is stopped again when nobody calls it for long, as it always is.
    pub(super) fn watch_again(&mut self, main: Slot) {
        let Some(server) = self.servers.get(&main).filter(|server| server.is_settled()) else { return };
        if self.phase != Phase::Running || !self.is_current(main) || !self.unwatched.remove(server.name()) {
            return;
        }
        for caller in self.cx.wishes.watching(server.name()).iter().take(limits::MAX_SESSION_RUNS) {
            match self.run_for(main, caller) {
                Ok(run) if run == main => {
                    if let Some(server) = self.servers.get_mut(&main) {
                        server.wake(&mut self.cx);
                    }
                }
                // Those who called last come first.
                Ok(_) | Err(_) => {}
            }
        }
    }
}
