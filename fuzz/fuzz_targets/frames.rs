//! A hostile peer that sends well-formed frames, and an honest owner: how frames share messages changes nothing, and
//! each call's events come in their order, within its credit.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tunnel_core::id::StreamId;
use tunnel_core::limits;
use tunnel_core::time::{Instant, Now};
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{Command, Dialect, Event, Hello, Message, OpenHead, Outcome, ResetCode, Side};

// A line is a frame (`b` for kind 1 and so on, or the kind itself) or a command (`A` to `H`), a digit for the stream,
// and the body, in which ~ is much.
fuzz_target!(|data: &[u8]| {
    for side in [Side::Relay, Side::Agent] {
        let (alone, together) = (run(side, data, false), run(side, data, true));
        assert_eq!(alone, together);
    }
});

/// All events and all that is sent.
fn run(side: Side, data: &[u8], together: bool) -> (Vec<Event>, Vec<Message>) {
    let hello = Hello { max_message: 1 << 20, max_streams: 8, ..Hello::default() };
    let mut owner = Owner::new(Connection::new(Settings { side, dialect: Dialect::V2, hello }, Now::default()));
    let mut message = frame(1, 0, b"{}");
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let [op, stream, body @ ..] = line else { continue };
        let stream = u32::from(stream.wrapping_sub(b'0')) % 10;
        let much = body.iter().filter(|byte| **byte == b'~').count().min(16);
        let body: Vec<u8> = body
            .iter()
            .flat_map(|byte| vec![*byte; if *byte == b'~' && much > 0 { 16_000 } else { 1 }])
            .take(200_000)
            .collect();
        match op {
            b'a'..=b'q' | 0x80.. => {
                if !together {
                    owner.hear(&mut message);
                }
                message.extend(frame(if *op >= 0x80 { *op } else { op - b'a' }, stream, &body));
            }
            b'A'..=b'H' => {
                owner.hear(&mut message);
                owner.order(side, *op, stream, body.into());
            }
            _ => {}
        }
    }
    owner.hear(&mut message);
    owner.send();
    (owner.events, owner.sent)
}

fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    [&[kind][..], &stream.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

struct Owner {
    connection: Connection,
    now: Instant,
    calls: BTreeMap<StreamId, Call>,
    opened: u32,
    is_closed: bool,
    events: Vec<Event>,
    sent: Vec<Message>,
}

#[derive(Default)]
struct Call {
    held: u32,
    is_answered: bool,
    /// An agent's answer is on its way, and may not get out.
    is_leaving: bool,
    is_over: bool,
}

impl Owner {
    fn new(connection: Connection) -> Self {
        let (now, calls) = (Instant::default(), BTreeMap::new());
        Self { connection, now, calls, opened: 0, is_closed: false, events: Vec::new(), sent: Vec::new() }
    }

    fn now(&self) -> Now {
        Now { instant: self.now, ..Now::default() }
    }

    fn hear(&mut self, message: &mut Vec<u8>) {
        if !message.is_empty() {
            self.connection.handle_message(Message::Binary(std::mem::take(message).into()), self.now());
        }
        self.observe();
    }

    fn send(&mut self) {
        let now = self.now();
        self.sent.extend(std::iter::from_fn(|| self.connection.poll_transmit(now)));
        self.observe();
    }

    fn order(&mut self, side: Side, op: u8, stream: u32, body: Bytes) {
        let stream = StreamId(stream);
        let command = match (op, side) {
            (b'A', Side::Relay) => {
                self.opened += 1;
                let stream = StreamId(self.opened);
                self.calls.insert(stream, Call::default());
                let head = OpenHead {
                    server: "s".into(),
                    method: "m".into(),
                    length: body.len() as u64,
                    ..OpenHead::default()
                };
                Command::Open { stream, head, params: body, v1_tool: None }
            }
            (b'A', Side::Agent) => {
                self.calls.entry(stream).and_modify(|call| call.is_leaving = true);
                Command::Answer { stream, outcome: Outcome::Result, body }
            }
            (b'B', Side::Relay) => {
                let held = self.calls.get_mut(&stream).map(|call| std::mem::take(&mut call.held));
                Command::Consumed { stream, bytes: held.unwrap_or_default() }
            }
            (b'B', Side::Agent) => Command::Catalog(body),
            (b'C', _) => Command::Message { stream, json: body, droppable: false },
            (b'D', _) => Command::Message { stream, json: body, droppable: true },
            (b'E', _) => {
                self.calls.entry(stream).and_modify(|call| call.is_over = true);
                Command::Reset { stream, code: ResetCode::Cancelled, reason: String::new() }
            }
            (b'F', _) => Command::Probe,
            (b'G', _) => return self.send(),
            _ => {
                self.now = self.now + Duration::from_secs(u64::from(stream.0) * 7);
                self.connection.handle_timeout(self.now());
                return self.observe();
            }
        };
        self.connection.handle_command(command, self.now());
        self.observe();
    }

    fn observe(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            assert!(!self.is_closed, "an event after the end: {event:?}");
            self.judge(&event);
            self.events.push(event);
        }
    }

    fn judge(&mut self, event: &Event) {
        let (stream, held, is_over) = match event {
            Event::Call { stream, head, params } => {
                assert!(head.length == params.len() as u64 && self.calls.insert(*stream, Call::default()).is_none());
                return;
            }
            Event::Answer { stream, .. } | Event::Pause { stream, .. } => (stream, 0, false),
            Event::Data { stream, bytes, end } => (stream, u32::try_from(bytes.len()).expect("short"), *end),
            Event::Message { stream, credit, .. } => (stream, *credit, false),
            Event::Reset { stream, .. } | Event::Cancelled { stream, .. } => (stream, 0, true),
            Event::Closed(_) => return self.is_closed = true,
            _ => return,
        };
        let call = self.calls.get_mut(stream).expect("a call that was opened");
        assert!(!call.is_over, "nothing follows a call's end: {event:?}");
        assert!(!call.is_leaving || is_over, "nothing but that it was in vain follows an answer: {event:?}");
        let is_answer = matches!(event, Event::Answer { .. });
        assert!(
            !(is_answer && call.is_answered) && (call.is_answered || !matches!(event, Event::Data { .. })),
            "{event:?}"
        );
        call.is_answered |= is_answer;
        call.is_over = is_over;
        call.held += held;
        assert!(call.held <= limits::STREAM_CREDIT, "more than its credit");
    }
}
