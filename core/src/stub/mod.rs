//! The stub: the MCP server on stdio that an editor starts. It keeps a session open on the agent of its configuration,
//! so that the agent lives while the editor does, and answers MCP with one tool that shows how the tunnel is.
//!
//! [`server`] is the MCP side, [`link`] the way to the agent, [`report`] what the tool shows. A client's servers are not
//! here: those are the agent's, and are reached through the relay.

pub mod link;
mod report;
mod server;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use self::link::{Link, Standing};
use self::report::Report;
pub use self::report::login_hint;
use self::server::{Call, Server, Step};
use crate::entropy::Entropy;
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::id::JobId;
use crate::limits;
use crate::rpc::{self, envelope};
use crate::time::{Deadline, Instant, Now};

/// What a stub is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration's relay, as in [`AgentConfig`](crate::config::AgentConfig).
    pub relay: String,
    /// Of the way to the agent.
    pub link: link::Settings,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The stub begins.
    Begun,
    /// A line came on stdin, without its end.
    Line(Bytes),
    /// A line of stdin was over [`limits::MAX_BODY`] and thrown away.
    LineTooLong,
    /// Stdin ended: the editor is done.
    InputEnded,
    /// Something of the way to the agent.
    Link(link::Event),
    /// The agent's status came, or, for people, why not.
    Status {
        /// What [`Action::AskStatus`] was numbered.
        job: JobId,
        /// The document.
        outcome: Result<Bytes, String>,
    },
}

/// What it orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Something of the way to the agent.
    Link(link::Action),
    /// Ask the agent for its status, then bring `Status`.
    AskStatus {
        /// To be named in the answer.
        job: JobId,
    },
    /// Write this to stdout, a line with its end.
    Write(Bytes),
    /// The process may end, once all is written.
    Exit,
}

/// The machine.
pub struct Stub {
    relay: String,
    link: Link,
    server: Server,
    calls: BTreeMap<JobId, Waiting>,
    batches: BTreeMap<u64, Batch>,
    next: u64,
    /// Stdin ended.
    leaving: bool,
    left: bool,
    clock: MonotonicClamp,
    out: Mailbox<Action>,
}

/// A call of the tool whose answer is not known yet.
#[derive(Debug)]
struct Waiting {
    call: Call,
    /// The batch it came in.
    batch: Option<u64>,
    until: Instant,
    /// The agent was asked.
    asked: bool,
}

/// The answers to the messages of one line.
#[derive(Debug, Default)]
struct Batch {
    answers: Vec<Bytes>,
    missing: usize,
}

impl Stub {
    /// A stub that has not begun.
    #[must_use]
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Self {
        Self {
            relay: settings.relay,
            link: Link::new(settings.link, entropy),
            server: Server::default(),
            calls: BTreeMap::new(),
            batches: BTreeMap::new(),
            next: 0,
            leaving: false,
            left: false,
            clock: MonotonicClamp::default(),
            out: Mailbox::default(),
        }
    }

    fn line(&mut self, line: &Bytes, now: Instant) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if !(rpc::is_batch(line) && self.server.takes_batches()) {
            return self.message(line, None, now);
        }
        match rpc::parse_batch(line) {
            Ok(messages) => {
                let batch = self.number();
                self.batches.insert(batch, Batch::default());
                for message in messages {
                    self.message(&message, Some(batch), now);
                }
                self.close_batch(batch);
            }
            Err(error) => self.write(&error.response()),
        }
    }

    fn message(&mut self, text: &Bytes, batch: Option<u64>, now: Instant) {
        match self.server.handle(text) {
            Step::Silence => {}
            Step::Answer(answer) => self.answer(answer, batch),
            Step::Status(call) if self.calls.len() >= limits::MAX_STUB_CALLS => {
                self.answer(server::overloaded(&call), batch);
            }
            Step::Status(call) => {
                if let Some(batch) = batch.and_then(|batch| self.batches.get_mut(&batch)) {
                    batch.missing += 1;
                }
                let job = JobId(self.number());
                self.calls.insert(job, Waiting { call, batch, until: now + limits::STUB_CALL, asked: false });
            }
        }
    }

    /// Moves on the calls that can be moved on, now that something changed.
    fn serve_calls(&mut self, now: Instant) {
        let attached = self.link.standing() == Standing::Attached;
        let mut done = Vec::new();
        for (job, waiting) in &mut self.calls {
            if attached && !waiting.asked {
                waiting.asked = true;
                self.out.push(Action::AskStatus { job: *job });
            }
            // A person reads this: what only a person mends is said at once, the rest is given a while.
            let hopeless = match self.link.standing() {
                Standing::Attached | Standing::Coming | Standing::Troubled(_) => false,
                Standing::SigningIn
                | Standing::NeedsLogin(_)
                | Standing::NeedsToken(_)
                | Standing::Broken(_)
                | Standing::Stopped
                | Standing::Refused(_)
                | Standing::Unwelcome(_) => true,
            };
            if hopeless || waiting.until <= now {
                done.push(*job);
            }
        }
        for job in done {
            let report = report::absent(&self.link.standing(), &self.relay);
            self.finish_call(job, &report);
        }
    }

    fn status(&mut self, job: JobId, outcome: Result<Bytes, String>) {
        match outcome {
            Ok(document) => self.finish_call(job, &report::running(&document, &self.relay)),
            // Asked again should the agent be lost and come back; else its time runs out.
            Err(reason) => tracing::debug!(reason, "no status"),
        }
    }

    fn finish_call(&mut self, job: JobId, report: &Report) {
        let Some(waiting) = self.calls.remove(&job) else { return };
        let answer = server::answer(&waiting.call, &report.text, &report.data);
        if let Some(batch) = waiting.batch.and_then(|batch| self.batches.get_mut(&batch)) {
            batch.missing = batch.missing.saturating_sub(1);
        }
        self.answer(answer, waiting.batch);
        if let Some(batch) = waiting.batch {
            self.close_batch(batch);
        }
    }

    fn answer(&mut self, answer: Bytes, batch: Option<u64>) {
        match batch.and_then(|batch| self.batches.get_mut(&batch)) {
            Some(batch) => batch.answers.push(answer),
            None => self.write(&answer),
        }
    }

    /// Writes a batch that has all its answers; one without any is answered by nothing (JSON-RPC 2.0 section 6).
    fn close_batch(&mut self, key: u64) {
        if self.batches.get(&key).is_some_and(|batch| batch.missing == 0)
            && let Some(batch) = self.batches.remove(&key)
            && !batch.answers.is_empty()
        {
            self.write(&envelope::batch(batch.answers.iter().map(|answer| &answer[..])));
        }
    }

    fn write(&mut self, message: &[u8]) {
        let mut line = BytesMut::with_capacity(message.len() + 1);
        line.put_slice(message);
        line.put_u8(b'\n');
        self.out.push(Action::Write(line.freeze()));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn settle(&mut self, now: Instant) {
        while let Some(action) = self.link.poll_action() {
            self.out.push(Action::Link(action));
        }
        self.serve_calls(now);
        if self.leaving && self.calls.is_empty() {
            self.left = true;
            self.out.push(Action::Exit);
        }
    }
}

impl Machine for Stub {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        if self.left {
            return;
        }
        let now = self.clock.clamp(now);
        match event {
            Event::Begun => self.link.handle_event(link::Event::Begun, now),
            Event::Line(line) => self.line(&line, now.instant),
            Event::LineTooLong => {
                self.write(&envelope::error(None, rpc::INVALID_REQUEST, "the message is too long", None));
            }
            Event::InputEnded => self.leaving = true,
            Event::Link(event) => {
                if matches!(event, link::Event::Lost(_)) {
                    // What that agent was asked, the next one is asked.
                    self.calls.values_mut().for_each(|waiting| waiting.asked = false);
                }
                self.link.handle_event(event, now);
            }
            Event::Status { job, outcome } => self.status(job, outcome),
        }
        self.settle(now.instant);
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.left {
            return;
        }
        let now = self.clock.clamp(now);
        self.link.handle_timeout(now);
        self.settle(now.instant);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if self.left {
            return None;
        }
        let calls = self.calls.values().map(|waiting| Deadline { at: waiting.until, reason: "a call waits no longer" });
        self.link.poll_timeout().into_iter().chain(calls).min_by_key(|deadline| deadline.at)
    }
}
