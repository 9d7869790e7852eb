//! Values that must not be printed.

use alloc::string::String;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A string that is wiped when dropped and whose `Debug` shows nothing of it (invariant A11).
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: only for a header, a body or a file that is meant to carry it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is `other`. Takes the same time for all texts of one length.
    #[must_use]
    pub fn is(&self, other: &str) -> bool {
        let ((ours, our_rest), (theirs, their_rest)) =
            (self.0.as_bytes().as_chunks::<16>(), other.as_bytes().as_chunks());
        if ours.len() != theirs.len() {
            return false;
        }
        // Many bytes at a time: a token is some hundreds of them, and compared with each request.
        let word = |bytes: &[u8; 16]| u128::from_ne_bytes(*bytes);
        let same = |same, (our, their)| same & word(our).ct_eq(&word(their));
        ours.iter().zip(theirs).fold(our_rest.ct_eq(their_rest), same).into()
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.expose())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::string::String;

    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(std::format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    /// As long as tokens are, and a little shorter and longer.
    #[test]
    fn long_secrets_are_told_apart_by_any_one_byte() {
        for length in 0..=40 {
            let text = "a".repeat(length);
            let secret = Secret::new(text.as_str());
            assert!(secret.is(&text) && !secret.is(&std::format!("{text}a")));
            for at in 0..length {
                let other = std::format!("{}b{}", &text[..at], &text[at + 1..]);
                assert!(!secret.is(&other) && !secret.is(&text[..at]), "{at} of {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn secrets_are_equal_as_their_texts_are_and_show_none_of_them(one in "[ab]{0,3}", other in "[ab]{0,3}", any: String) {
            let equal = Secret::new(one.as_str()) == Secret::new(other.as_str());
            prop_assert_eq!(equal, one == other);
            let secret = Secret::new(any.clone());
            prop_assert_eq!((secret.expose(), secret.is_empty()), (any.as_str(), any.is_empty()));
            prop_assert_eq!(std::format!("{secret:?}"), "Secret(…)");
        }
    }
}
