//! The last sealed value that was opened somewhere.

use core::fmt;

use super::Sealer;
use crate::secret::Secret;

/// What the last sealed value held that was opened at one place, since the next one is most likely the same: to derive a
/// value's key and to decipher it takes longer than all else that is done for a small request.
///
/// Nothing is kept but what follows from the value and the keys alone. Whether it has expired, was revoked or fits what
/// it is presented for is asked each time. `C` is what the context of its seal is made of.
pub struct Memo<T, C = ()>(Option<Kept<T, C>>);

struct Kept<T, C> {
    sealer: Sealer,
    context: C,
    sealed: Secret,
    held: T,
}

impl<T: Clone, C: Clone + PartialEq> Memo<T, C> {
    /// What `sealed` holds in `context`: as remembered, or else by `open`, whose success is remembered.
    pub fn recall(
        &mut self,
        sealer: &Sealer,
        context: &C,
        sealed: &str,
        open: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if let Some(kept) = &self.0
            && kept.sealer.is(sealer)
            && kept.context == *context
            && kept.sealed.is(sealed)
        {
            return Some(kept.held.clone());
        }
        let held = open()?;
        let kept =
            Kept { sealer: sealer.clone(), context: context.clone(), sealed: Secret::new(sealed), held: held.clone() };
        self.0 = Some(kept);
        Some(held)
    }
}

impl<T, C> Default for Memo<T, C> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T, C> fmt::Debug for Memo<T, C> {
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
        assert_eq!(memo.recall(&ours, &"ann", "value", || None::<u32>), None);
        assert_eq!(memo.recall(&ours, &"ann", "value", || Some(1)), Some(1), "a failure is not remembered");
        assert_eq!(memo.recall(&ours.clone(), &"ann", "value", || panic!("known")), Some(1));
        for (sealer, context, sealed) in
            [(&ours, &"ann", "value2"), (&ours, &"bob", "value"), (&others, &"ann", "value")]
        {
            assert_eq!(memo.recall(sealer, context, sealed, || None), None);
        }
        assert_eq!(memo.recall(&ours, &"ann", "value", || panic!("known")), Some(1), "a failure forgets nothing");
        assert_eq!(memo.recall(&ours, &"bob", "value", || Some(2)), Some(2));
        assert_eq!(memo.recall(&ours, &"ann", "value", || Some(3)), Some(3), "the last one alone");
    }
}
