//! Where messages to a client go: the events of one HTTP answer, or the lines of stdout.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A message, and the HTTP status of a final answer.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) text: String,
    pub(crate) last: Option<u16>,
}

/// Events that one reader at a time takes, or takes up again where another was cut off.
pub(crate) struct Stream {
    /// Its name in event ids.
    pub(crate) number: u64,
    log: Mutex<Log>,
    changed: Notify,
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    /// How many are gone from the front, and up to which one all were read.
    forgotten: u64,
    read: u64,
    ended: bool,
    /// Readers that began before the latest cut are done.
    cuts: u64,
}

impl Stream {
    /// More than any test resumes over, or has waiting.
    const KEPT: usize = 100_000;

    pub(crate) fn new() -> Arc<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { number, log: Mutex::default(), changed: Notify::new() })
    }

    pub(crate) fn send(&self, text: String) {
        self.push(Event { text, last: None });
    }

    /// The final answer: nothing comes after it.
    pub(crate) fn finish(&self, text: String, status: u16) {
        self.push(Event { text, last: Some(status) });
    }

    fn push(&self, event: Event) {
        let mut log = self.log();
        log.ended |= event.last.is_some();
        log.events.push_back(event);
        if log.events.len() > Self::KEPT {
            log.events.pop_front();
            log.forgotten += 1;
        }
        drop(log);
        self.changed.notify_waiters();
    }

    /// Takes the stream away from whoever reads it.
    pub(crate) fn cut(&self) {
        self.log().cuts += 1;
        self.changed.notify_waiters();
    }

    /// Reads on after the event with that number; 0 is before the first.
    pub(crate) fn read(self: &Arc<Self>, after: u64) -> Reader {
        let cuts = self.log().cuts;
        Reader { stream: self.clone(), after, cuts }
    }

    /// Reads on after what others read.
    pub(crate) fn read_on(self: &Arc<Self>) -> Reader {
        let read = self.log().read;
        self.read(read)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a stream.
pub(crate) struct Reader {
    pub(crate) stream: Arc<Stream>,
    pub(crate) after: u64,
    cuts: u64,
}

impl Reader {
    /// The next event; none at the end, or where the stream was cut.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            let stream = self.stream.clone();
            let changed = stream.changed.notified();
            {
                let mut log = stream.log();
                if log.cuts != self.cuts {
                    return None;
                }
                let index = usize::try_from(self.after.saturating_sub(log.forgotten)).ok()?;
                if let Some(event) = log.events.get(index).cloned() {
                    self.after = self.after.max(log.forgotten) + 1;
                    log.read = log.read.max(self.after);
                    return Some(event);
                }
                if log.ended {
                    return None;
                }
            }
            changed.await;
        }
    }
}
