//! The Model Context Protocol's own words: versions, methods, error codes, the catalog that an agent sends.

pub mod catalog;

/// A revision of the protocol that is spoken here. Older than older: ordered by date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 2024-11-05, over Streamable HTTP.
    V2024_11_05,
    /// 2025-03-26: batches.
    V2025_03_26,
    /// 2025-06-18: the version header.
    V2025_06_18,
    /// 2025-11-25: the last one with a handshake.
    V2025_11_25,
    /// 2026-07-28: no handshake, no session.
    V2026_07_28,
}
