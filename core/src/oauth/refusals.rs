//! Access tokens that `/mcp` and `/ws` refuse: a line of the audit about each, and a limit of them for each address.
//!
//! The gate judges tokens without asking anybody. Only what it refuses comes here, so that nothing here ever holds up a
//! request with a good token.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use http::StatusCode;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};

use super::audit::Whom;
use super::error::{Code, Refusal};
use super::grants::Grants;
use super::rates::Kind;
use super::token::TokenError;
use crate::http::Reply;
use crate::http::crowd::subscriber;
use crate::id::{ExchangeId, FamilyId};
use crate::limits;
use crate::time::Now;

/// An access token that does not open what it was presented for.
#[derive(Debug, Clone)]
pub struct RefusedToken {
    /// Why not.
    pub error: TokenError,
    /// Its family, if it is one of this relay's.
    pub family: Option<FamilyId>,
    /// Where it came from.
    pub peer: IpAddr,
    /// What its bearer is told, unless too many come from there.
    pub reply: Reply,
}

/// Lines about refused tokens since the last sweep, by address.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<IpAddr, Lines>);

#[derive(Debug, Default)]
struct Lines {
    written: u32,
    left_out: u64,
}

impl Told {
    /// Whether one more line about `peer` is to be written; if not, it is counted.
    fn take(&mut self, peer: IpAddr) -> Result<(), LeftOut> {
        let key = subscriber(peer);
        if self.0.len() >= limits::MAX_RATED && !self.0.contains_key(&key) {
            return Err(LeftOut::Uncounted);
        }
        let lines = self.0.entry(key).or_default();
        if lines.written < LINES_A_MINUTE {
            lines.written = lines.written.saturating_add(1);
            return Ok(());
        }
        lines.left_out = lines.left_out.saturating_add(1);
        Err(LeftOut::Counted)
    }
}

/// A line that is not written.
enum LeftOut {
    /// It will be told how many there were of its address.
    Counted,
    /// There are too many addresses.
    Uncounted,
}

impl Grants {
    /// Answers a request whose token was refused.
    pub(super) fn token_refused(&mut self, exchange: ExchangeId, refused: RefusedToken, now: Now) {
        let RefusedToken { error, family, peer, reply } = refused;
        if self.settings.audit {
            match self.told.take(peer) {
                Ok(()) => {
                    let whom = Whom { client: None, grant: family.as_ref(), address: Some(peer) };
                    self.note_refusal(word(error), whom, now);
                }
                Err(LeftOut::Counted) => {}
                Err(LeftOut::Uncounted) => self.untold = self.untold.saturating_add(1),
            }
        }
        // A token that ran out is how every client learns, once an hour, to ask for the next: whoever floods from the same
        // address must not keep that from it.
        let counts = error != TokenError::Expired;
        let allowed = !counts || self.rates.take(Kind::RefusedToken, peer, now.instant);
        self.reply(exchange, if allowed { reply } else { slowed(reply) });
    }

    /// Tells how many lines were left out, and begins the next minute.
    pub(super) fn tell_left_out(&mut self, now: Now) {
        for (address, lines) in core::mem::take(&mut self.told.0) {
            if lines.left_out > 0 {
                self.untold = self.untold.saturating_add(lines.left_out);
                let whom = Whom { address: Some(address), ..Whom::default() };
                self.note_refusal("more-refused-tokens", whom, now);
            }
        }
    }
}

/// The same reply for an address that brings too many; fields for pages of other origins stay as they are.
fn slowed(mut reply: Reply) -> Reply {
    let slow_down = Refusal::new(Code::SlowDown, "too many refused tokens from this address").reply();
    reply.status = StatusCode::TOO_MANY_REQUESTS;
    reply.body = slow_down.body;
    reply.headers.remove(WWW_AUTHENTICATE);
    reply.headers.extend(slow_down.headers.get(RETRY_AFTER).map(|value| (RETRY_AFTER, value.clone())));
    reply
}

const fn word(error: TokenError) -> &'static str {
    match error {
        TokenError::Invalid => "token-invalid",
        TokenError::Expired => "token-expired",
        TokenError::Revoked => "token-revoked",
        TokenError::Audience => "token-for-something-else",
    }
}

/// Of one address: enough to see who and what it is.
const LINES_A_MINUTE: u32 = 10;
