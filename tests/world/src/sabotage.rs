//! Lies that a world can tell: a model that watches it must notice each.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sabotage {
    /// Servers hear every call twice.
    Twice,
    /// What servers say of the first user is the second's.
    Leak,
    /// Servers answer with what another call asked.
    Swap,
    /// Servers' answers to calls are lost.
    Mute,
    /// A cancellation never reaches a server.
    Uncancelled,
    /// What the relay writes from the second second on is acknowledged, and is on no disk.
    Forgetful,
    /// What clients take is not told to the tunnel, now and then.
    Stingy,
    /// A provider's ID tokens are taken for good whoever signed them.
    Gullible,
    /// Agents do not hear that a call was given up.
    Deaf,
    /// The relay's rooms do not hear of revoked grants and ended sessions.
    Clinging,
    /// Agents do not hear that a server's process ended.
    Undead,
    /// Servers say twice how far a call is.
    Stutter,
}

impl Sabotage {
    /// What an agent hears of what a server says.
    pub(crate) fn said(self, line: Bytes) -> Vec<Bytes> {
        let text = String::from_utf8_lossy(&line);
        let is_answer = text.contains("structuredContent");
        match self {
            Self::Mute if is_answer => Vec::new(),
            Self::Leak => vec![text.replace("-of-ada", "-of-eve").into()],
            Self::Swap if is_answer => vec![text.replace("-of-", "0-of-").into()],
            Self::Stutter if text.contains("notifications/progress") => vec![line.clone(), line],
            _ => vec![line],
        }
    }

    /// What a server hears of what an agent writes.
    pub(crate) fn written(self, line: &[u8]) -> Vec<&[u8]> {
        let is = |word: &str| line.windows(word.len()).any(|window| window == word.as_bytes());
        match self {
            Self::Twice if is("tools/call") => vec![line, line],
            Self::Uncancelled if is("notifications/cancelled") => Vec::new(),
            _ => vec![line],
        }
    }
}
