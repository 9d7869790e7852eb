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
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
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
