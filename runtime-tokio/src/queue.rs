//! A queue whose pushing and waking are two steps.
//!
//! What a machine orders must reach its consumers in the machine's order, so it is pushed while the machine's lock is
//! held; a consumer must not be woken under that lock, so it is woken after. One consumer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// A queue that is shared: clones are handles to the same one.
pub struct Queue<T>(Arc<Line<T>>);

/// A queue by itself, for whoever shares it together with something else.
pub struct Line<T> {
    state: Mutex<State<T>>,
    waker: AtomicWaker,
}

struct State<T> {
    /// The oldest, if it came when there was no other: mostly there is one, which needs no memory of its own here.
    first: Option<T>,
    others: VecDeque<T>,
    closed: bool,
}

impl<T> State<T> {
    fn push(&mut self, item: T) {
        if self.first.is_none() && self.others.is_empty() {
            self.first = Some(item);
        } else {
            self.others.push_back(item);
        }
    }

    fn pop(&mut self) -> Option<T> {
        self.first.take().or_else(|| self.others.pop_front())
    }
}

impl<T> Queue<T> {
    /// An empty, open queue.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::default())
    }
}

impl<T> Line<T> {
    /// Appends without waking; call [`wake`](Self::wake) once no lock is held. `false`: the consumer is gone.
    pub fn push(&self, item: T) -> bool {
        let mut state = self.state();
        if !state.closed {
            state.push(item);
        }
        !state.closed
    }

    /// Wakes the consumer.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Appends and wakes.
    pub fn send(&self, item: T) -> bool {
        let open = self.push(item);
        self.wake();
        open
    }

    /// Ends the queue: what is in it may still be taken, nothing more comes in.
    pub fn close(&self) {
        self.state().closed = true;
        self.wake();
    }

    /// Takes the oldest item without waiting.
    #[must_use]
    pub fn try_pop(&self) -> Option<T> {
        self.state().pop()
    }

    /// The oldest item; `None` once closed and empty.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(done) = self.pop_or_end() {
            return Poll::Ready(done);
        }
        self.waker.register(cx.waker());
        // Again: an item pushed between the look and the registration woke nobody.
        self.pop_or_end().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits for the oldest item; `None` once closed and empty.
    pub async fn pop(&self) -> Option<T> {
        poll_fn(|cx| self.poll_pop(cx)).await
    }

    fn pop_or_end(&self) -> Option<Option<T>> {
        let mut state = self.state();
        match state.pop() {
            Some(item) => Some(Some(item)),
            None if state.closed => Some(None),
            None => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Queue<T> {
    type Target = Line<T>;

    fn deref(&self) -> &Line<T> {
        &self.0
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State { first: None, others: VecDeque::new(), closed: false }),
            waker: AtomicWaker::new(),
        }
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> std::fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        let len = usize::from(state.first.is_some()) + state.others.len();
        f.debug_struct("Line").field("len", &len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;

    #[crate::rt::test]
    async fn items_come_in_order_and_then_the_end() {
        let queue = Queue::new();
        let consumer = queue.clone();
        let task = rt::spawn(async move {
            let mut seen = Vec::new();
            while let Some(item) = consumer.pop().await {
                seen.push(item);
            }
            seen
        });
        for n in 0..100 {
            assert!(queue.push(n));
            if n % 7 == 0 {
                queue.wake();
                rt::yield_now().await;
            }
        }
        queue.close();
        assert!(!queue.send(100));
        assert_eq!(task.await.expect("the consumer ends"), (0..100).collect::<Vec<_>>());
    }
}
