//! Tasks that can be waited for, aborted and gathered, and whose failure is told to who waits and to nobody else.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_std::task;
use futures_util::future::{AbortHandle, Abortable, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::oneshot;

/// Starts a task, which goes on when its handle is dropped.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let (abort, aborted) = AbortHandle::new_pair();
    let (end, ended) = oneshot::channel();
    drop(task::spawn(async move {
        let outcome = match Abortable::new(AssertUnwindSafe(work).catch_unwind(), aborted).await {
            Ok(outcome) => outcome.map_err(|_| JoinError::Panicked),
            Err(_) => Err(JoinError::Aborted),
        };
        // Nobody may be waiting.
        let _ = end.send(outcome);
    }));
    JoinHandle { ended, abort }
}

/// Does `work` on a thread that may block; it cannot be aborted.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (abort, _) = AbortHandle::new_pair();
    let (end, ended) = oneshot::channel();
    drop(task::spawn_blocking(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| JoinError::Panicked);
        let _ = end.send(outcome);
    }));
    JoinHandle { ended, abort }
}

/// Waits for a task's end.
#[derive(Debug)]
pub struct JoinHandle<T> {
    ended: oneshot::Receiver<Result<T, JoinError>>,
    abort: AbortHandle,
}

impl<T> JoinHandle<T> {
    /// Drops what the task does, at the next of its steps.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// What aborts the task, without waiting for it.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A task that tells nothing went down with its executor.
        Pin::new(&mut self.ended).poll(cx).map(|ended| ended.unwrap_or(Err(JoinError::Aborted)))
    }
}

/// Why a task did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Somebody aborted it.
    #[error("the task was aborted")]
    Aborted,
    /// It panicked, which the log tells of.
    #[error("the task panicked")]
    Panicked,
}

/// Tasks that are waited for together, and aborted when this is dropped.
pub struct JoinSet<T> {
    tasks: FuturesUnordered<JoinHandle<T>>,
}

impl<T: Send + 'static> JoinSet<T> {
    /// Without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self { tasks: FuturesUnordered::new() }
    }

    /// Starts one more.
    pub fn spawn(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.tasks.push(spawn(work));
    }

    /// Waits for the next that ends; `None`: there is none. Dropping the future loses nothing.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.next().await
    }

    /// One that has ended, if there is one.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.next().now_or_never().flatten()
    }

    /// Aborts all of them, and waits until they have ended.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }
}

impl<T> JoinSet<T> {
    fn abort_all(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl<T: Send + 'static> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("tasks", &self.tasks.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    #[crate::rt::test]
    async fn task_that_is_aborted_drops_its_work_and_says_so() {
        let held = Arc::new(());
        let work = Arc::clone(&held);
        let task = spawn(async move {
            pending::<()>().await;
            drop(work);
        });
        task.abort_handle().abort();
        assert_eq!(task.await, Err(JoinError::Aborted));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[crate::rt::test]
    async fn panic_is_told_to_who_waits_and_harms_nobody_else() {
        let panics = [true, true, true, false].map(|panics| spawn(async move { assert!(!panics) }));
        let mut ends = Vec::new();
        for task in panics {
            ends.push(task.await);
        }
        assert_eq!(ends, [Err(JoinError::Panicked), Err(JoinError::Panicked), Err(JoinError::Panicked), Ok(())]);
        assert_eq!(spawn_blocking(|| panic!("it fails")).await, Err::<(), _>(JoinError::Panicked));
        assert_eq!(spawn_blocking(|| 5).await, Ok(5));
    }

    #[crate::rt::test]
    async fn set_tells_of_each_end_and_aborts_the_rest_when_dropped() {
        let (held, mut ended) = mpsc::channel::<()>(1);
        let mut set = JoinSet::new();
        set.spawn(async { 1 });
        set.spawn(async move {
            let _held = held;
            pending().await
        });
        assert_eq!(set.join_next().await, Some(Ok(1)));
        assert_eq!(set.try_join_next(), None);
        drop(set);
        assert_eq!(ended.recv().await, None);
        assert_eq!(JoinSet::<()>::new().join_next().await, None);
    }
}
