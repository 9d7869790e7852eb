//! A message's id.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use bytes::Bytes;

use super::walk;
use crate::limits;

/// A message id as it stood in the JSON: `1` is not `"1"`. Always a raw JSON number or string.
#[derive(Clone)]
pub struct RawId(Text);

/// Most ids are short, and each call has several copies of its own: those need no memory besides.
#[derive(Clone)]
enum Text {
    Short { length: u8, text: [u8; SHORT] },
    Long(Bytes),
}

impl RawId {
    /// The id `number`.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self::copied(itoa::Buffer::new().format(number).as_bytes())
    }

    /// The id that `raw` is, if it is a JSON number or string of at most [`limits::MAX_ID`] bytes. It is copied: an id
    /// is kept long, and must not keep the buffer of a whole message alive.
    #[must_use]
    pub fn from_raw(raw: &[u8]) -> Option<Self> {
        Self::of_value(raw.get(walk::whole(raw).ok()?)?)
    }

    /// The same of what is one JSON value.
    pub(crate) fn of_value(raw: &[u8]) -> Option<Self> {
        let scalar = matches!(raw.first()?, b'"' | b'-' | b'0'..=b'9');
        (scalar && raw.len() <= limits::MAX_ID).then(|| Self::copied(raw))
    }

    fn copied(raw: &[u8]) -> Self {
        let mut text = [0; SHORT];
        match (text.get_mut(..raw.len()), u8::try_from(raw.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(raw);
                Self(Text::Short { length, text })
            }
            _ => Self(Text::Long(Bytes::copy_from_slice(raw))),
        }
    }

    /// The raw JSON.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short { length, text } => text.get(..usize::from(*length)).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }

    /// The number, if it is one that [`from_number`](Self::from_number) makes.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        Self::number_of(self.as_bytes())
    }

    /// The number that a raw id is, if it is one that [`from_number`](Self::from_number) makes.
    #[must_use]
    pub fn number_of(raw: &[u8]) -> Option<u64> {
        core::str::from_utf8(raw).ok().filter(|raw| !raw.starts_with('+'))?.parse().ok()
    }
}

impl PartialEq for RawId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RawId {}

impl PartialOrd for RawId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RawId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for RawId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawId({})", self.as_bytes().escape_ascii())
    }
}

/// As many bytes as the length of any number and a client's usual text have.
const SHORT: usize = 22;

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_and_long_ids_are_what_they_were_made_of(
            one in "[a-z]{0,40}", other in "[a-z]{0,40}", small in any::<u64>(),
        ) {
            let raw = [format!("\"{one}\""), format!("\"{other}\""), small.to_string()];
            for a in &raw {
                for b in &raw {
                    let ids = [a, b].map(|raw| RawId::from_raw(raw.as_bytes()).expect("an id"));
                    prop_assert_eq!([ids[0].as_bytes(), ids[1].as_bytes()], [a.as_bytes(), b.as_bytes()]);
                    prop_assert_eq!(ids[0].cmp(&ids[1]), a.as_bytes().cmp(b.as_bytes()));
                    prop_assert_eq!(ids[0] == ids[1], a == b);
                }
            }
            let number = RawId::from_number(small);
            prop_assert_eq!(number.as_bytes(), raw[2].as_bytes());
            prop_assert_eq!(number.as_number(), Some(small));
            prop_assert_eq!(RawId::from_raw(raw[0].as_bytes()).and_then(|id| id.as_number()), None);
        }
    }

    #[test]
    fn id_is_as_small_as_a_shared_one() {
        assert!(size_of::<RawId>() <= size_of::<Bytes>());
    }
}
