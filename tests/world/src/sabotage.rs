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
    /// A provider's ID tokens are taken for good whoever signed them.
    Gullible,
}

impl Sabotage {
    /// What an agent hears of what a server says; `None`: nothing.
    pub(crate) fn said(self, line: Bytes) -> Option<Bytes> {
        let text = String::from_utf8_lossy(&line);
        let is_answer = text.contains("structuredContent");
        match self {
            Self::Mute if is_answer => None,
            Self::Leak => Some(text.replace("-of-ada", "-of-eve").into()),
            Self::Swap if is_answer => Some(text.replace("-of-", "0-of-").into()),
            Self::Mute | Self::Swap | Self::Twice | Self::Uncancelled | Self::Forgetful | Self::Gullible => Some(line),
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
