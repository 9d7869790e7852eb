//! The further runs of a server, beside the one that all share: a session's own, and the one for clients of the legacy
//! era where the server speaks both. They are begun by a call, and end for good.

use alloc::format;
use alloc::string::String;

use super::Server;
use crate::agent::caller::Caller;
use crate::agent::cx::Slot;
use crate::agent::pins::Edition;
use crate::config::{EraChoice, ServerConfig};
use crate::time::Instant;

/// The session that a run belongs to.
#[derive(Debug)]
pub(super) struct Owner {
    /// Its number among the runs that sessions have of this server.
    pub(super) number: u32,
    /// Its client, as it made its first call.
    pub(super) caller: Caller,
}

impl Server {
    /// A run of a server for one session of a client.
    pub(in crate::agent) fn for_session(
        slot: Slot,
        number: u32,
        caller: Caller,
        name: String,
        config: ServerConfig,
        now: Instant,
    ) -> Self {
        Self { session: Some(Owner { number, caller }), ..Self::new(slot, name, config, now) }
    }

    /// The run of a server of both eras for clients of the legacy one.
    pub(in crate::agent) fn branch(slot: Slot, name: String, mut config: ServerConfig, now: Instant) -> Self {
        config.life.era = EraChoice::Legacy;
        config.life.lazy = false;
        Self { is_branch: true, is_trial: true, ..Self::new(slot, name, config, now) }
    }

    /// The same run, spoken to in the legacy era, which its server may not know.
    pub(in crate::agent) fn tried(mut self) -> Self {
        self.config.life.era = EraChoice::Legacy;
        Self { is_trial: true, ..self }
    }

    /// Which of its server's lists it has.
    pub(in crate::agent) fn edition(&self) -> Edition {
        if self.is_trial { Edition::Legacy } else { Edition::Main }
    }

    /// Whether it is one of its server's further runs, which are begun by a call and end for good.
    pub(super) fn is_extra(&self) -> bool {
        self.session.is_some() || self.is_branch
    }

    /// Its number, if it is a session's.
    pub(in crate::agent) fn session_number(&self) -> Option<u32> {
        self.session.as_ref().map(|owner| owner.number)
    }

    /// The key of the session whose it is.
    pub(super) fn session_key(&self) -> Option<&str> {
        self.session.as_ref().map(|owner| &*owner.caller.session)
    }

    /// What its stderr is kept under.
    pub(super) fn log_name(&self) -> String {
        match self.session_number() {
            Some(number) => format!("{}.session-{number}", self.name),
            None if self.is_branch => format!("{}.legacy", self.name),
            None => self.name.clone(),
        }
    }
}
