//! How long a connection waits for heads: one timer for all of them, since most come at once.
//!
//! A timer of its own for each head would be allocated, set and cleared with each request. This one is left as it is when
//! a head has come, and set anew when it goes off too early for the head that is awaited then.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::Timer;

use crate::rt;

/// The clock of one connection, for hyper, which waits for one thing at a time.
#[derive(Debug, Default)]
pub(crate) struct Patience(Shared);

type Shared = Arc<Mutex<Option<Pin<Box<rt::Sleep>>>>>;

struct Wait {
    until: rt::Instant,
    timer: Shared,
}

impl Timer for Patience {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + time)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Wait { until: rt::at(deadline), timer: Arc::clone(&self.0) })
    }
}

impl hyper::rt::Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing in it is left half done.
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let sleep = timer.get_or_insert_with(|| Box::pin(rt::sleep_until(self.until)));
            let set_for = sleep.deadline();
            if set_for <= self.until {
                ready!(sleep.as_mut().poll(cx));
            }
            if set_for == self.until {
                return Poll::Ready(());
            }
            sleep.set(rt::sleep_until(self.until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[crate::rt::test]
    async fn each_wait_ends_at_its_own_time_and_not_before() {
        let patience = Patience::default();
        let begun = Instant::now();
        let (first, last) = (begun + Duration::from_millis(20), begun + Duration::from_millis(60));
        let mut early = patience.sleep_until(first);
        assert!(rt::timeout(Duration::ZERO, &mut early).await.is_err(), "it waits");
        drop(early);
        patience.sleep_until(last).await;
        assert!(Instant::now() >= last, "the timer that was set for another");
        patience.sleep_until(first).await;
        assert!(rt::timeout(Duration::from_secs(30), patience.sleep(Duration::from_millis(1))).await.is_ok());
    }
}
