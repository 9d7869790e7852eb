//! Which of two versions is older.

use core::cmp::Ordering;

/// Whether `version` is older than `other` (Semantic Versioning 2.0.0 section 11, pre-releases of one version taken as
/// equal). What cannot be read is not older than anything, nor is anything older than it: nobody is then replaced.
#[must_use]
pub fn is_older(version: &str, other: &str) -> bool {
    match (parse(version), parse(other)) {
        (Some(version), Some(other)) => version.cmp(&other) == Ordering::Less,
        (None, _) | (_, None) => false,
    }
}

/// The three numbers, and whether it is a release.
fn parse(text: &str) -> Option<([u64; 3], bool)> {
    let text = text.split('+').next()?;
    let (numbers, release) = match text.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (text, true),
    };
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some((version, release))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_by_number_and_releases_come_last() {
        let rising = ["0.9.9", "1.0.0", "1.9.9", "1.10.0", "2.0.0-rc.1", "2.0.0", "2.0.1-a", "10.0.0+build"];
        for (at, version) in rising.iter().enumerate() {
            for (other_at, other) in rising.iter().enumerate() {
                assert_eq!(is_older(version, other), at < other_at, "{version} {other}");
            }
        }
    }

    #[test]
    fn what_is_no_version_replaces_nothing() {
        for text in ["", "2", "2.0", "2.0.0.0", "v2.0.0", "2.0.x", "-1.0.0", "99999999999999999999.0.0"] {
            assert!(!is_older(text, "2.0.0") && !is_older("2.0.0", text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_both_are_older(one in "[0-9.a-z+-]{0,12}", other in "[0-9.a-z+-]{0,12}") {
            prop_assert!(!(is_older(&one, &other) && is_older(&other, &one)));
        }
    }
}
