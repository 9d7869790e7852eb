//! Close codes: what they are on the wire, and what an agent does about each.

use alloc::string::String;

/// A close code and its text (RFC 6455 section 7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// At most 123 bytes, for people.
    pub reason: String,
}

impl Close {
    /// The close of `code`, with `reason` cut to what a close frame holds.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        cut(&mut reason, MAX_REASON);
        Self { code, reason }
    }
}

/// Cuts `text` to at most `max` bytes, between characters.
pub(super) fn cut(text: &mut String, max: usize) {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// What a peer did wrong, or what this side cannot go on with: the connection closes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Fault {
    /// What the peer is told.
    pub(super) code: CloseCode,
    /// For people, on both sides.
    pub(super) reason: &'static str,
}

impl Fault {
    /// The peer broke the tunnel's rules.
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self { code: CloseCode::Protocol, reason }
    }

    /// The peer sent more than was agreed.
    pub(super) const fn too_big(reason: &'static str) -> Self {
        Self { code: CloseCode::TooBig, reason }
    }

    /// This side cannot keep up; a new tunnel starts afresh.
    pub(super) const fn internal(reason: &'static str) -> Self {
        Self { code: CloseCode::Internal, reason }
    }
}

/// Why a tunnel is closed, split into *retry* and *do not retry*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// 1000: done, as asked.
    Normal,
    /// 1001: this side is stopping or restarting. Retry.
    GoingAway,
    /// 1002: the peer broke the tunnel's rules. Retry with backoff.
    Protocol,
    /// 1009: a message over the limit. Retry with backoff.
    TooBig,
    /// 1011: a fault on this side. Retry with backoff.
    Internal,
    /// 4000: no sign of life from the peer. Retry.
    TimedOut,
    /// 4001: the sign-in was revoked or ran out. Sign in again.
    Revoked,
    /// 4002: the same device connected anew. Do not retry.
    Replaced,
    /// 4003: another device holds this name. Do not retry until the name is changed.
    NameTaken,
    /// 4004: refused for good (too many devices, a bad name). Do not retry.
    Refused,
    /// Any other code that a peer sent. Retry with backoff.
    Other(u16),
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn to_u16(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::TimedOut => 4000,
            Self::Revoked => 4001,
            Self::Replaced => 4002,
            Self::NameTaken => 4003,
            Self::Refused => 4004,
            Self::Other(code) => code,
        }
    }

    /// The meaning of a number from the wire.
    #[must_use]
    pub const fn from_u16(code: u16) -> Self {
        match code {
            1000 => Self::Normal,
            1001 => Self::GoingAway,
            1002 => Self::Protocol,
            1009 => Self::TooBig,
            1011 => Self::Internal,
            4000 => Self::TimedOut,
            4001 => Self::Revoked,
            4002 => Self::Replaced,
            4003 => Self::NameTaken,
            4004 => Self::Refused,
            other => Self::Other(other),
        }
    }

    /// Whether an agent may dial again with the same name and the same sign-in. `Revoked` needs a new sign-in first;
    /// the others that say no would only be refused again, or would fight with the connection that replaced this one.
    #[must_use]
    pub const fn may_retry(self) -> bool {
        match self {
            Self::Normal
            | Self::GoingAway
            | Self::Protocol
            | Self::TooBig
            | Self::Internal
            | Self::TimedOut
            | Self::Other(_) => true,
            Self::Revoked | Self::Replaced | Self::NameTaken | Self::Refused => false,
        }
    }
}

/// A control frame's payload is 125 bytes, of which the code takes two (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_reason_is_cut_between_characters() {
        let close = Close::new(CloseCode::Normal, "ä".repeat(100));
        assert_eq!(close.reason.len(), 122);
        assert_eq!(Close::new(CloseCode::Normal, "a".repeat(123)).reason.len(), 123);
    }

    #[test]
    fn only_refusals_forbid_a_retry() {
        for (code, retry) in [
            (1000, true),
            (1001, true),
            (1006, true),
            (4000, true),
            (4001, false),
            (4002, false),
            (4003, false),
            (4004, false),
        ] {
            assert_eq!(CloseCode::from_u16(code).may_retry(), retry, "{code}");
        }
    }

    proptest! {
        #[test]
        fn every_code_survives_the_wire(code: u16) {
            prop_assert_eq!(CloseCode::from_u16(code).to_u16(), code);
        }

        #[test]
        fn reason_is_cut_no_shorter_than_it_must_be(reason in "[aé日🙂]{0,140}") {
            let kept = Close::new(CloseCode::Normal, reason.as_str()).reason;
            prop_assert!(kept.len() <= MAX_REASON && reason.starts_with(&kept));
            let next = reason[kept.len()..].chars().next();
            prop_assert!(next.is_none_or(|next| kept.len() + next.len_utf8() > MAX_REASON), "{} bytes", kept.len());
            prop_assert_eq!(&Close::new(CloseCode::Normal, kept.as_str()).reason, &kept);
        }
    }
}
