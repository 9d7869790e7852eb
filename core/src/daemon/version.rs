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

        /// Numbers first, then releases after what comes before them; words and builds tell nothing.
        #[test]
        fn order_is_that_of_the_numbers_and_of_being_a_release(
            one: ([u64; 3], bool), other: ([u64; 3], bool), small in any::<bool>(), words in "[a-z0-9.-]{0,8}", build in "(\\+[a-z0-9.-]{0,8})?",
        ) {
            let near = |(numbers, release): ([u64; 3], bool)| {
                if small { (numbers.map(|number| number % 3), release) } else { (numbers, release) }
            };
            let (one, other) = (near(one), near(other));
            let text = |([major, minor, patch], release): ([u64; 3], bool), end: &str| {
                let before = if release { alloc::string::String::new() } else { alloc::format!("-{words}") };
                alloc::format!("{major}.{minor}.{patch}{before}{end}")
            };
            prop_assert_eq!(is_older(&text(one, &build), &text(other, "")), one < other);
            prop_assert_eq!(is_older(&text(other, ""), &text(one, &build)), other < one);
        }
    }
}
