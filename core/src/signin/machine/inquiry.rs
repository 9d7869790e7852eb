//! Asking the relay what the sign-in is: whose, since when, until when (RFC 7662).

use alloc::string::String;

use super::{Errand, Purpose, Signin, State};
use crate::http::fetch::Fetched;
use crate::limits;
use crate::secret::Secret;
use crate::signin::contract::{Action, Failure, Identity};
use crate::signin::metadata;
use crate::signin::request::{self, Answer};
use crate::time::UnixTime;

impl Signin {
    /// Begins with `minted`, a token that is in no file, or else with the file.
    pub(super) fn handle_inquire(&mut self, minted: Option<Secret>) {
        if !matches!(self.state, State::Idle) {
            return super::dropped("inquire");
        }
        match (metadata::check_relay(&self.settings), minted) {
            (Err(cause), _) => self.not_a_relay(cause),
            (Ok(()), Some(token)) => self.discover(Errand::Inquire { token, minted: true }),
            (Ok(()), None) => self.load(Purpose::Inquiry),
        }
    }

    /// The file was read. The refresh token stands for the whole sign-in.
    pub(super) fn inquire(&mut self) {
        let token = self.tokens.as_ref().map(|tokens| tokens.refresh.clone().unwrap_or_else(|| tokens.access.clone()));
        match token {
            Some(token) => self.discover(Errand::Inquire { token, minted: false }),
            None => self.fail(Failure::NeedsLogin { relay: self.settings.relay.clone() }),
        }
    }

    /// The relay's endpoints are known.
    pub(super) fn ask_standing(&mut self, endpoint: Option<&str>, token: &Secret, minted: bool) {
        let Some(endpoint) = endpoint else {
            // A relay that cannot tell: that there are tokens is all that is known.
            return self.identified(Identity::default());
        };
        let fetch = self.fetch(request::introspect(&self.settings, endpoint, token));
        self.enter(State::Inquiring { fetch, minted });
    }

    /// The relay has answered.
    pub(super) fn told(&mut self, minted: bool, answer: Answer) {
        let failure = match answer {
            Answer::Ok(fetched) => match read(&fetched) {
                Some(Standing { active: true, username, iat, exp }) => {
                    let user = username.filter(|name| name.len() <= limits::MAX_USER_NAME);
                    let time = |secs: Option<u64>| secs.map(UnixTime::from_secs);
                    return self.identified(Identity { user, since: time(iat), expires: time(exp) });
                }
                Some(Standing { active: false, .. }) if minted => {
                    Failure::Refused { cause: "the token has ended, or was revoked".into() }
                }
                Some(Standing { active: false, .. }) => Failure::NeedsLogin { relay: self.settings.relay.clone() },
                None => self.odd(request::unreadable(&fetched)),
            },
            Answer::Unreachable { cause, .. } => self.unreachable(cause),
            Answer::Refused(code) => Failure::Refused { cause: code },
            Answer::Odd(cause) => self.odd(&cause),
        };
        self.fail(failure);
    }

    fn identified(&mut self, identity: Identity) {
        self.enter(State::Idle);
        self.out.push(Action::Identified(identity));
    }
}

/// What is read of RFC 7662 section 2.2.
#[derive(serde::Deserialize)]
struct Standing {
    active: bool,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    iat: Option<u64>,
    #[serde(default)]
    exp: Option<u64>,
}

fn read(answer: &Fetched) -> Option<Standing> {
    serde_json::from_slice(&answer.body).ok()
}
