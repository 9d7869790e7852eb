//! The Model Context Protocol's own words: versions, methods, error codes, the catalog that an agent sends.

pub mod catalog;
pub mod code;
pub mod header;
pub mod key;
pub mod level;
pub mod method;
pub mod mirror;
pub(crate) mod task;

/// How revisions of the protocol begin: with a handshake, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on.
    Modern,
}

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

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 5] =
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];
    /// The newest one with a handshake: what `initialize` offers, and answers to a version that it does not know.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// What a request without a version header speaks (2025-06-18, Transports, Protocol Version Header).
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The date, as the protocol writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The version of that date; `None` when it is not spoken here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Whether it begins with a handshake (`initialize`) and may have sessions.
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => true,
            Self::V2026_07_28 => false,
        }
    }

    /// The era that it is of.
    #[must_use]
    pub const fn era(self) -> Era {
        if self.is_legacy() { Era::Legacy } else { Era::Modern }
    }

    /// Whether a body may be an array of messages.
    #[must_use]
    pub const fn has_batches(self) -> bool {
        matches!(self, Self::V2025_03_26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_back_and_are_ordered_by_date() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        assert!(Version::ALL.is_sorted_by(|a, b| a < b && a.as_str() < b.as_str()));
        assert_eq!(Version::parse("2025-06-19"), None);
    }

    #[test]
    fn latest_legacy_is_the_newest_with_a_handshake() {
        assert_eq!(Version::ALL.into_iter().filter(|version| version.is_legacy()).max(), Some(Version::LATEST_LEGACY));
    }
}
