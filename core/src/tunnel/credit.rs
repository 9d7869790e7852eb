//! Credit: how much of a call's answer may be under way before its consumer took it.
//!
//! The sender spends an [`Allowance`]; the receiver keeps the matching [`Window`] and returns what was consumed. The
//! unit is a byte of answer or message, frames' own bytes not counted. For every stream, at all times:
//! `allowance + under way + held by the receiver's owner + owed = STREAM_CREDIT`.

use crate::limits::STREAM_CREDIT;
use crate::tunnel::close::Fault;

/// The sender's side: what may still be sent.
#[derive(Debug)]
pub(super) struct Allowance(u32);

impl Allowance {
    pub(super) const fn new() -> Self {
        Self(STREAM_CREDIT)
    }

    /// How many bytes may be sent now.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Counts `bytes` as sent; never more than [`left`](Self::left).
    pub(super) fn spend(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.0 = self.0.checked_sub(bytes).expect("pieces are cut to the credit that is left");
    }

    /// How much credit that is.
    pub(super) const fn credit(&self) -> u32 {
        self.0
    }

    /// Takes returned credit in. A peer may grant more than the first window, but not without end.
    pub(super) fn grant(&mut self, bytes: u32) -> Result<(), Fault> {
        self.0 = self.0.checked_add(bytes).ok_or(Fault::protocol("credit overflows"))?;
        Ok(())
    }
}

/// The receiver's side: what the peer may still send, and what it is owed.
#[derive(Debug)]
pub(super) struct Window {
    left: u32,
    owed: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { left: STREAM_CREDIT, owed: 0 }
    }
}

impl Window {
    /// Counts `bytes` as received.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), Fault> {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.ok_or(Fault::protocol("credit exceeded"))?;
        Ok(())
    }

    /// Counts `bytes` as consumed. More than was received is not believed: it would widen the window.
    pub(super) fn consume(&mut self, bytes: u32) {
        self.owed = self.owed.saturating_add(bytes.min(self.held()));
    }

    /// What the peer may still send.
    pub(super) const fn left(&self) -> u32 {
        self.left
    }

    /// Of what came, what was not consumed.
    pub(super) fn held(&self) -> u32 {
        STREAM_CREDIT.saturating_sub(self.left).saturating_sub(self.owed)
    }

    /// Whether enough is owed for a frame of its own.
    pub(super) fn is_due(&self) -> bool {
        self.owed >= BATCH
    }

    /// Returns what is owed: the body of a credit frame.
    pub(super) fn settle(&mut self) -> u32 {
        let owed = core::mem::take(&mut self.owed);
        self.left = self.left.saturating_add(owed);
        owed
    }
}

/// Credit goes back in steps of a quarter window: few frames, and the sender never runs dry while the consumer keeps up.
const BATCH: u32 = STREAM_CREDIT / 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn peer_may_use_its_window_to_the_last_byte_and_not_beyond() {
        let mut window = Window::default();
        let all = usize::try_from(STREAM_CREDIT).unwrap();
        assert!(window.receive(all).is_ok());
        assert!(window.receive(1).is_err());
    }

    #[test]
    fn credit_goes_back_from_a_quarter_on() {
        let mut window = Window::default();
        window.receive(100_000).unwrap();
        window.consume(BATCH - 1);
        assert!(!window.is_due());
        window.consume(1);
        assert!(window.is_due());
        assert_eq!(window.settle(), BATCH);
        assert_eq!(window.settle(), 0);
    }

    #[test]
    fn consuming_more_than_came_does_not_widen_the_window() {
        let mut window = Window::default();
        window.receive(10).unwrap();
        window.consume(u32::MAX);
        assert_eq!(window.settle(), 10);
    }

    #[test]
    fn overflowing_grant_is_a_fault() {
        assert!(Allowance::new().grant(u32::MAX).is_err());
    }

    proptest! {
        #[test]
        fn both_sides_always_agree(steps in prop::collection::vec((0..70_000_usize, 0..70_000_u32), 0..80)) {
            let (mut allowance, mut window, mut held) = (Allowance::new(), Window::default(), 0_u32);
            for (send, take) in steps {
                let send = send.min(allowance.left());
                allowance.spend(send);
                window.receive(send).unwrap();
                held += u32::try_from(send).unwrap();
                let take = take.min(held);
                held -= take;
                window.consume(take);
                if window.is_due() {
                    allowance.grant(window.settle()).unwrap();
                }
                prop_assert_eq!(allowance.0, window.left);
                prop_assert_eq!(allowance.0 + held + window.owed, STREAM_CREDIT);
                prop_assert!(held > 0 || allowance.0 > STREAM_CREDIT / 2, "an idle consumer never blocks its sender");
            }
        }
    }
}
