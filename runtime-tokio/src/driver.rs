//! A machine behind a mutex: lock, decide, push what it orders, unlock; wake and start after.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tunnel_core::host::Machine;
use tunnel_core::time::{Instant, Now};

use crate::clock::Clock;
use crate::rt::sleep_until;

/// A machine with the tables that its orders refer to.
pub(crate) trait Hosted: Send + 'static {
    /// The machine.
    type Machine: Machine;
    /// What remains to be done of an order once no lock is held.
    type Later: Send;

    /// The machine itself.
    fn machine(&mut self) -> &mut Self::Machine;

    /// Carries out an order as far as it is done under the lock: in the machine's order, without waking anybody.
    fn carry_out(&mut self, action: <Self::Machine as Machine>::Action, now: Now, later: &mut Vec<Self::Later>);

    /// The machine failed in the middle of an input, which is a bug: goes on from a state that is sound (invariant A9).
    fn recover(&mut self, now: Now, later: &mut Vec<Self::Later>);
}

/// The mutex, and the machine's alarm clock.
pub(crate) struct Host<H> {
    inner: Mutex<Inner<H>>,
    clock: Clock,
    /// The machine's next deadline came closer.
    closer: Notify,
}

struct Inner<H> {
    hosted: H,
    /// What the alarm clock sleeps until.
    armed: Option<Instant>,
}

impl<H: Hosted> Host<H> {
    pub(crate) fn new(hosted: H, clock: Clock) -> Self {
        Self { inner: Mutex::new(Inner { hosted, armed: None }), clock, closer: Notify::new() }
    }

    /// Hands one input in and carries out what the machine orders. The caller does what is returned, in order.
    #[must_use = "what is left to be done is done by the caller"]
    pub(crate) fn drive(&self, input: impl FnOnce(&mut H, Now)) -> Vec<H::Later> {
        let mut later = Vec::new();
        let mut inner = self.lock();
        // Read under the lock, so that inputs are in the order of their times.
        let now = self.clock.now();
        let step = || {
            input(&mut inner.hosted, now);
            drain(&mut inner.hosted, now, &mut later);
        };
        if catch_unwind(AssertUnwindSafe(step)).is_err() {
            tracing::error!("a machine failed: what it was doing is given up");
            inner.hosted.recover(now, &mut later);
            drain(&mut inner.hosted, now, &mut later);
        }
        let deadline = inner.hosted.machine().poll_timeout().map(|deadline| deadline.at);
        let closer = deadline.is_some_and(|at| inner.armed.is_none_or(|armed| at < armed));
        if closer {
            inner.armed = deadline;
        }
        drop(inner);
        if closer {
            self.closer.notify_one();
        }
        later
    }

    /// Wakes the machine when it wants to be woken; `after` does what is left to be done.
    pub(crate) async fn keep_time(&self, after: impl Fn(Vec<H::Later>)) {
        loop {
            let armed = {
                let mut inner = self.lock();
                inner.armed = inner.hosted.machine().poll_timeout().map(|deadline| deadline.at);
                inner.armed
            };
            let due = async {
                match armed {
                    Some(at) => sleep_until(self.clock.to_host(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => after(self.drive(|hosted, now| hosted.machine().handle_timeout(now))),
                () = self.closer.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<H>> {
        // A failing machine is caught and replaced under the lock, so what it protects is sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drain<H: Hosted>(hosted: &mut H, now: Now, later: &mut Vec<H::Later>) {
    while let Some(action) = hosted.machine().poll_action() {
        hosted.carry_out(action, now, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;
    use std::sync::Arc;
    use std::time::Duration;
    use tunnel_core::time::Deadline;

    /// Says what it was told; "panic" makes it fail, a number is a delay after which it rings.
    #[derive(Default)]
    struct Echo {
        said: Vec<String>,
        rings_at: Option<Instant>,
    }

    impl Machine for Echo {
        type Event = String;
        type Action = String;

        fn handle_event(&mut self, event: String, now: Now) {
            assert_ne!(event, "panic");
            if let Ok(millis) = event.parse() {
                self.rings_at = Some(now.instant + Duration::from_millis(millis));
            }
            self.said.push(event);
        }

        fn handle_timeout(&mut self, now: Now) {
            if self.rings_at.is_some_and(|at| at <= now.instant) {
                self.rings_at = None;
                self.said.push("ring".into());
            }
        }

        fn poll_action(&mut self) -> Option<String> {
            (!self.said.is_empty()).then(|| self.said.remove(0))
        }

        fn poll_timeout(&self) -> Option<Deadline> {
            self.rings_at.map(|at| Deadline { at, reason: "ring" })
        }
    }

    impl Hosted for Echo {
        type Machine = Self;
        type Later = String;

        fn machine(&mut self) -> &mut Self {
            self
        }

        fn carry_out(&mut self, action: String, _now: Now, later: &mut Vec<String>) {
            later.push(action);
        }

        fn recover(&mut self, _now: Now, later: &mut Vec<String>) {
            *self = Self::default();
            later.push("recovered".into());
        }
    }

    fn say(host: &Host<Echo>, word: &str) -> Vec<String> {
        host.drive(|echo, now| echo.handle_event(word.into(), now))
    }

    #[test]
    fn machine_that_fails_is_recovered_and_goes_on() {
        let host = Host::new(Echo::default(), Clock::new());
        assert_eq!(say(&host, "one"), ["one"]);
        assert_eq!(say(&host, "panic"), ["recovered"]);
        assert_eq!(say(&host, "two"), ["two"]);
    }

    #[crate::rt::test]
    async fn deadline_that_comes_closer_is_heeded() {
        let host = Arc::new(Host::new(Echo::default(), Clock::new()));
        let (rang, mut rings) = tokio::sync::mpsc::unbounded_channel();
        let keeper = Arc::clone(&host);
        rt::spawn(async move { keeper.keep_time(|later| drop(rang.send(later))).await });
        assert_eq!(say(&host, "3600000"), ["3600000"]);
        rt::yield_now().await;
        assert_eq!(say(&host, "20"), ["20"]);
        let ring = rt::timeout(Duration::from_secs(5), rings.recv()).await.expect("rings soon");
        assert_eq!(ring.expect("rings"), ["ring"]);
    }
}
