//! What one end of a tunnel holds: for whoever checks that it keeps its limits, and that no credit is lost.

use alloc::vec::Vec;

use crate::id::StreamId;

/// What one end of a V2 tunnel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Control frames that wait to be sent.
    pub control: usize,
    /// Bytes that wait to be sent on all streams.
    pub buffered: usize,
    /// Bytes of unfinished bodies of all streams.
    pub assembled: usize,
    /// Notifications without a call that wait to be sent.
    pub notices: usize,
    /// The open calls.
    pub streams: Vec<StreamLoad>,
}

/// What one open call holds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLoad {
    /// Which.
    pub stream: StreamId,
    /// Messages that wait to be sent.
    pub messages: usize,
    /// Those of them that newer ones may take the place of.
    pub droppable: usize,
    /// The credit of its answer: what an agent may still send, or a relay still receive.
    pub left: u32,
    /// At a relay: bytes that came and were not consumed.
    pub held: u32,
    /// At a relay: those of them that are of an unfinished message, which nobody can consume yet.
    pub unfinished: u32,
}
