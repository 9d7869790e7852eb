//! How severe a log message is.

/// A level of the protocol's log (2025-11-25, Server Features, Logging: those of RFC 5424), the least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(usize);

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

impl Level {
    /// `info`.
    pub const INFO: Self = Self(1);
    /// What is said to who sets another one (2025-11-25, Logging, Error Handling).
    pub const EXPECTED: &str =
        "params.level must be one of debug, info, notice, warning, error, critical, alert, emergency";

    /// The level of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == text).map(Self)
    }

    /// Its name.
    ///
    /// # Panics
    ///
    /// Never: a level is made from the list of names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        LEVELS.get(self.0).expect("a level is made from this list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_read_back_and_are_ordered_by_severity() {
        let all: alloc::vec::Vec<Level> = LEVELS.iter().filter_map(|name| Level::parse(name)).collect();
        assert!(all.is_sorted_by(|a, b| a < b) && all.len() == LEVELS.len());
        assert!(all.iter().zip(LEVELS).all(|(level, name)| level.as_str() == name));
        assert_eq!(Level::INFO.as_str(), "info");
        assert!(Level::EXPECTED.ends_with(&LEVELS.join(", ")));
        for unknown in ["loud", "", "Info", "info "] {
            assert_eq!(Level::parse(unknown), None, "{unknown}");
        }
    }
}
