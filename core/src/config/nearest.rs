//! The valid name that a misspelt one is likely to mean.

use alloc::vec::Vec;

/// The one of `known` that is nearest to `word`, if any is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer words are not worth the quadratic comparison: no setting is that long.
    let word: Vec<char> = word.chars().take(MAX_WORD + 1).flat_map(char::to_lowercase).collect();
    if word.len() > MAX_WORD {
        return None;
    }
    let distance = |name: &str| {
        let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
        edits(&word, &name)
    };
    known
        .iter()
        .map(|name| (distance(name), *name))
        .filter(|(edits, name)| *edits <= name.len().max(word.len()) / 3)
        .min()
        .map(|(_, name)| name)
}

const MAX_WORD: usize = 40;

/// Insertions, deletions, replacements and swaps of neighbours that turn `from` into `to`.
fn edits(from: &[char], to: &[char]) -> usize {
    // Rows of the usual table, the last three of them: `before` is two rows up, for swaps.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let mut from_previous = None;
    for (row, &a) in from.iter().enumerate() {
        let mut current = Vec::with_capacity(to.len() + 1);
        let mut left = row + 1;
        current.push(left);
        let mut to_previous = None;
        for (column, &b) in to.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&above, column) + usize::from(a != b)).min(at(&above, column + 1) + 1).min(left + 1);
            if from_previous == Some(b) && to_previous == Some(a) {
                best = best.min(at(&before, column.wrapping_sub(1)) + 1);
            }
            current.push(best);
            left = best;
            to_previous = Some(b);
        }
        before = core::mem::replace(&mut above, current);
        from_previous = Some(a);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn distance(from: &str, to: &str) -> usize {
        edits(&from.chars().collect::<Vec<_>>(), &to.chars().collect::<Vec<_>>())
    }

    #[test]
    fn every_kind_of_slip_counts_one() {
        for slip in ["isuer", "issuuer", "issher", "isseur", "ssuer", "issue"] {
            assert_eq!(distance(slip, "issuer"), 1, "{slip}");
        }
        assert_eq!(distance("", "issuer"), 6);
        assert_eq!(distance("issuer", ""), 6);
        assert_eq!(distance("issuer", "issuer"), 0);
    }

    #[test]
    fn nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["issuer", "clientId", "clientSecret", "scopes"];
        assert_eq!(nearest("client_id", &known), Some("clientId"));
        assert_eq!(nearest("clientid", &known), Some("clientId"));
        assert_eq!(nearest("scope", &known), Some("scopes"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }

    /// The definition, letter by letter from the end (restricted Damerau-Levenshtein).
    fn by_definition(from: &[char], to: &[char]) -> usize {
        let (Some((a, before_a)), Some((b, before_b))) = (from.split_last(), to.split_last()) else {
            return from.len().max(to.len());
        };
        let replaced = by_definition(before_a, before_b) + usize::from(a != b);
        let best = replaced.min(by_definition(before_a, to) + 1).min(by_definition(from, before_b) + 1);
        match (before_a.split_last(), before_b.split_last()) {
            (Some((c, rest_a)), Some((d, rest_b))) if a == d && b == c => best.min(by_definition(rest_a, rest_b) + 1),
            _ => best,
        }
    }

    proptest! {
        #[test]
        fn distance_is_the_one_of_its_definition(from in "[ab]{0,5}", to in "[abc]{0,5}") {
            let [from, to] = [from, to].map(|text| text.chars().collect::<Vec<_>>());
            prop_assert_eq!(edits(&from, &to), by_definition(&from, &to));
            prop_assert_eq!(edits(&to, &from), edits(&from, &to));
        }

        #[test]
        fn nearest_is_as_near_as_any_and_near_enough(word in "[a-dA-D]{0,9}", known in prop::collection::vec("[a-d]{1,9}", 0..6)) {
            let known: Vec<&str> = known.iter().map(|name| &**name).collect();
            let distances = || known.iter().map(|name| (distance(&word.to_lowercase(), name), name.len().max(word.len()) / 3));
            let best = distances().filter(|(edits, most)| edits <= most).map(|(edits, _)| edits).min();
            let found = nearest(&word, &known).map(|name| distance(&word.to_lowercase(), name));
            prop_assert_eq!(found, best);
        }
    }
}
