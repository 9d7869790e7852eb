//! How much of what a peer said still waits to be heard.
//!
//! Events go to a machine's task through a queue without a bound, so that nothing is lost on the way. Whoever makes them
//! from what a peer sends asks here for room first, and leaves the rest in the socket, where it slows the peer down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// The count of one peer's events; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Inner>);

/// One event that waits; dropped when it is heard.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: AtomicUsize,
    waker: AtomicWaker,
}

impl Backlog {
    /// Counts one event.
    pub(crate) fn ticket(&self) -> Ticket {
        self.0.waiting.fetch_add(1, Ordering::AcqRel);
        Ticket(Arc::clone(&self.0))
    }

    /// Ready when there is room for more; else the task is woken once there is.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        // Again: what was heard between the look and the registration woke nobody.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire) < MAX_WAITING
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) == MAX_WAITING {
            self.0.waker.wake();
        }
    }
}

/// As many as calls may be opened in a row, with what follows each.
const MAX_WAITING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;
    use std::future::poll_fn;
    use std::time::Duration;

    #[crate::rt::test]
    async fn room_comes_back_when_something_was_heard() {
        let backlog = Backlog::default();
        let mut tickets: Vec<_> = (1..MAX_WAITING).map(|_| backlog.ticket()).collect();
        poll_fn(|cx| backlog.poll_room(cx)).await;
        tickets.push(backlog.ticket());
        let waiting = backlog.clone();
        let mut task = rt::spawn(async move { poll_fn(|cx| waiting.poll_room(cx)).await });
        assert!(rt::timeout(Duration::from_millis(50), &mut task).await.is_err(), "it is full");
        drop(tickets.pop());
        rt::timeout(Duration::from_secs(5), task).await.expect("is woken").expect("ends");
    }
}
