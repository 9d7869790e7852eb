//! The last sealed value that was opened somewhere.

use alloc::vec::Vec;
use core::fmt;

use super::Sealer;
use crate::secret::Secret;

/// What the last sealed value held that was opened at one place, since the next one is most likely the same: to derive a
/// value's key and to decipher it takes longer than all else that is done for a small request.
///
/// Nothing is kept but what follows from the value and the keys alone. Whether it has expired, was revoked or fits what
/// it is presented for is asked each time.
pub struct Memo<T>(Option<Kept<T>>);

struct Kept<T> {
    sealer: Sealer,
    context: Vec<u8>,
    sealed: Secret,
    held: T,
}

impl<T: Clone> Memo<T> {
    /// What `sealed` holds in `context`: as remembered, or else by `open`, whose success is remembered.
    pub fn recall(
        &mut self,
        sealer: &Sealer,
        context: &[u8],
        sealed: &str,
        open: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if let Some(kept) = &self.0
            && kept.sealer.is(sealer)
            && kept.context == context
            && kept.sealed.is(sealed)
        {
            return Some(kept.held.clone());
        }
        let held = open()?;
        let kept =
            Kept { sealer: sealer.clone(), context: context.into(), sealed: Secret::new(sealed), held: held.clone() };
        self.0 = Some(kept);
        Some(held)
    }
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> fmt::Debug for Memo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memo").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Seeded;

    fn sealer(seed: u64) -> Sealer {
        Sealer::new(alloc::vec![Sealer::generate(&mut Seeded::new(seed))])
    }

    #[test]
    fn only_the_same_value_in_the_same_context_under_the_same_keys_is_recalled() {
        let (mut memo, ours, others) = (Memo::default(), sealer(1), sealer(2));
        assert_eq!(memo.recall(&ours, b"ann", "value", || None::<u32>), None);
        assert_eq!(memo.recall(&ours, b"ann", "value", || Some(1)), Some(1), "a failure is not remembered");
        assert_eq!(memo.recall(&ours.clone(), b"ann", "value", || panic!("known")), Some(1));
        for (sealer, context, sealed) in
            [(&ours, &b"ann"[..], "value2"), (&ours, b"bob", "value"), (&others, b"ann", "value")]
        {
            assert_eq!(memo.recall(sealer, context, sealed, || None), None);
        }
        assert_eq!(memo.recall(&ours, b"ann", "value", || panic!("known")), Some(1), "a failure forgets nothing");
        assert_eq!(memo.recall(&ours, b"bob", "value", || Some(2)), Some(2));
        assert_eq!(memo.recall(&ours, b"ann", "value", || Some(3)), Some(3), "the last one alone");
    }
}
