//! Signing out. The relay forgets the tokens before this machine does: what is forgotten here alone goes on working
//! there, and nobody can revoke it any more.

use alloc::string::{String, ToString};

use super::{Errand, Purpose, Signin, State, request};
use crate::secret::Secret;
use crate::signin::contract::{Action, Failure, Leave};
use crate::signin::metadata;
use crate::signin::request::Answer;

impl Signin {
    pub(super) fn handle_logout(&mut self, force: bool) {
        self.force = force;
        match self.state {
            State::Loading(Purpose::Logout)
            | State::Discovering(_, Errand::Revoke(_))
            | State::Revoking(_)
            | State::Removing(_) => {}
            // The file is on its way already; one answer comes for one order.
            State::Loading(_) => self.state = State::Loading(Purpose::Logout),
            State::Listening(_) | State::Waiting(_) => {
                self.out.push(Action::StopListening);
                self.load(Purpose::Logout);
            }
            State::Idle
            | State::Discovering(..)
            | State::Refreshing { .. }
            | State::Exchanging(_)
            | State::Asking(..)
            | State::Pending(_)
            | State::Polling(..)
            | State::Inquiring { .. }
            | State::Saving { .. }
            | State::Ready => self.load(Purpose::Logout),
        }
    }

    /// Forgets the tokens at the relay, then here. `content` is the file's; the refresh token stands for all that came
    /// with it.
    pub(super) fn revoke(&mut self, content: Option<&[u8]>) {
        let token = self.tokens.as_ref().map(|tokens| tokens.refresh.as_ref().unwrap_or(&tokens.access).clone());
        match (token, metadata::check_relay(&self.settings)) {
            (Some(token), Ok(())) => self.discover(Errand::Revoke(token)),
            (Some(_), Err(cause)) => self.not_revoked(self.odd(cause).to_string()),
            (None, _) if content.is_none_or(<[u8]>::is_empty) => self.remove(Leave::Nothing),
            // Trying again would mend neither this nor a relay that has no way to revoke.
            (None, _) => self.remove(Leave::LivesOn { cause: "the file of tokens cannot be understood".to_string() }),
        }
    }

    /// The relay has told where tokens are revoked.
    pub(super) fn ask_revocation(&mut self, endpoint: Option<&str>, token: &Secret) {
        match endpoint {
            Some(endpoint) => {
                let fetch = self.fetch(request::revoke_for_agent(&self.settings, endpoint, token));
                self.enter(State::Revoking(fetch));
            }
            None => self.remove(Leave::LivesOn { cause: "this relay has no way to revoke".to_string() }),
        }
    }

    /// The relay has answered. Whatever it knew of the token, 200 means that it knows it no longer (RFC 7009 section 2.2).
    pub(super) fn revoked(&mut self, answer: Answer) {
        match answer {
            Answer::Ok(_) => self.remove(Leave::Revoked),
            Answer::Unreachable { cause, .. } => self.not_revoked(self.unreachable(cause).to_string()),
            Answer::Refused(code) => self.not_revoked(self.odd(&alloc::format!("it answered {code}")).to_string()),
            Answer::Odd(cause) => self.not_revoked(self.odd(&cause).to_string()),
        }
    }

    /// Keeps the tokens, so that they can be revoked later, unless the person wants them gone.
    pub(super) fn not_revoked(&mut self, cause: String) {
        if self.force {
            return self.remove(Leave::LivesOn { cause });
        }
        self.fail(Failure::NotRevoked { cause });
    }

    fn remove(&mut self, leave: Leave) {
        self.enter(State::Removing(leave));
        (self.tokens, self.mended, self.refused_access, self.refused_refresh) = (None, None, None, None);
        self.out.push(Action::Save(None));
    }
}
