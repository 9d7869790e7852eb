//! Signals from the operator and the system.

use std::io;

use tokio::sync::mpsc;

use crate::rt::{self, Signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT: end, in good order.
    Stop,
    /// SIGHUP: try now what is waiting to be tried again.
    Nudge,
}

/// The signals this program answers; taken over from the system's defaults as long as the process lives.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over. Call it inside the runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: Signal::terminate()?, interrupt: Signal::interrupt()?, hangup: Signal::hangup()? })
    }

    /// Waits for the next signal. Dropping the future loses none.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            () = self.terminate.recv() => Asked::Stop,
            () = self.interrupt.recv() => Asked::Stop,
            () = self.hangup.recv() => Asked::Nudge,
        }
    }

    /// Waits until the process is asked to end.
    pub async fn stop(mut self) {
        while self.next().await != Asked::Stop {}
    }

    /// Brings what is asked to a channel, until nobody reads it.
    #[must_use]
    pub fn forward(mut self) -> mpsc::UnboundedReceiver<Asked> {
        // As many as a person can send.
        let (asked, asks) = mpsc::unbounded_channel();
        rt::spawn(async move { while asked.send(self.next().await).is_ok() {} });
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[crate::rt::test]
    async fn hangup_nudges_and_terminate_stops() {
        let mut signals = Signals::new().expect("takes over");
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::HUP).expect("signals itself");
        assert_eq!(signals.next().await, Asked::Nudge);
        rustix::process::kill_process(me, rustix::process::Signal::TERM).expect("signals itself");
        assert_eq!(signals.next().await, Asked::Stop);
    }
}
