//! Server-sent events, as the HTML standard defines them (section 9.2, "Server-sent events"): read in pieces, written.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits;

/// A comment that keeps a quiet stream alive; readers ignore it.
pub const HEARTBEAT: &[u8] = b": keep-alive\n\n";

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// The last event id that the stream gave up to here: from where it could go on.
    pub id: Option<String>,
    /// The event's type; empty when it gave none, which means `message`.
    pub event: String,
    /// The data, its lines joined with `\n`. Not checked to be UTF-8.
    pub data: Bytes,
    /// How long to wait before connecting again, if the stream has said so up to here.
    pub retry: Option<Duration>,
}

impl SseEvent {
    /// Whether it is an ordinary message, the only kind that MCP uses.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(self.event.as_str(), "" | "message")
    }
}

/// An event is larger than accepted. The stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {0} bytes")]
pub struct TooLarge(pub usize);

/// Reads an event stream in pieces of any size. What it holds is bounded: one event, and the complete events of the
/// pieces that were pushed. An event that the stream's end cuts off never comes out (section 9.2.6).
///
/// As an iterator it yields the events that are complete, and goes on after more was pushed.
#[derive(Debug)]
pub struct Parser {
    max_event: usize,
    /// The beginning of a line whose end was not seen yet.
    line: Vec<u8>,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// A byte order mark may stand here.
    at_start: bool,
    event: String,
    data: Vec<u8>,
    id: Option<String>,
    retry: Option<Duration>,
    ready: VecDeque<SseEvent>,
}

impl Parser {
    /// At the beginning of a stream whose events may have `max_event` bytes each, fields and comments included.
    #[must_use]
    pub const fn new(max_event: usize) -> Self {
        Self {
            max_event,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            event: String::new(),
            data: Vec::new(),
            id: None,
            retry: None,
            ready: VecDeque::new(),
        }
    }

    /// Takes a piece of the stream. After an error the stream is to be closed.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), TooLarge> {
        while let Some(first) = piece.first() {
            if core::mem::take(&mut self.after_cr) && *first == b'\n' {
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.check(piece)?;
                self.line.extend_from_slice(piece);
                return Ok(());
            };
            let (line, rest) = piece.split_at(end);
            self.check(line)?;
            self.after_cr = rest.first() == Some(&b'\r');
            piece = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(line);
            } else {
                let mut whole = core::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole);
            }
        }
        Ok(())
    }

    /// The last event id that the stream gave (also one that no event carried): for `Last-Event-ID`.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// How long to wait before connecting again, if the stream said so.
    #[must_use]
    pub const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn check(&self, more: &[u8]) -> Result<(), TooLarge> {
        let held = self.line.len().saturating_add(self.data.len()).saturating_add(self.event.len());
        if held.saturating_add(more.len()) > self.max_event { Err(TooLarge(self.max_event)) } else { Ok(()) }
    }

    fn take_line(&mut self, line: &[u8]) {
        let line = if core::mem::take(&mut self.at_start) { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let field = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            b"id" if value.len() <= limits::MAX_EVENT_ID && !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into_owned()).filter(|id| !id.is_empty());
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let millis = core::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            // A comment (no field name), or a field that the standard says to ignore.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let event = core::mem::take(&mut self.event);
        let mut data = core::mem::take(&mut self.data);
        if data.pop().is_some() {
            self.ready.push_back(SseEvent { id: self.id.clone(), event, data: data.into(), retry: self.retry });
        }
    }
}

impl Iterator for Parser {
    type Item = SseEvent;

    fn next(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }
}

/// One message as an event, whole. Each line of `data` becomes a data line; an id that a reader would cut or ignore is
/// left out.
#[must_use]
pub fn event(id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 64);
    put_head(&mut out, id);
    let mut lines = data.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        // In `\r\n` the LF has split already; a CR elsewhere ends a line too.
        let line = if lines.peek().is_some() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        for line in line.split(|byte| *byte == b'\r') {
            out.put_slice(b"data: ");
            out.put_slice(line);
            out.put_u8(b'\n');
        }
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// How long a reader that lost the stream is to wait.
#[must_use]
pub fn retry(millis: u32) -> Bytes {
    Bytes::from(alloc::format!("retry: {millis}\n\n"))
}

/// What goes before a message that is streamed; each piece of it then passes through [`one_line`].
#[must_use]
pub fn data_prefix(id: Option<&str>) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    put_head(&mut out, id);
    out.put_slice(b"data: ");
    out.freeze()
}

/// What goes after a message that is streamed.
#[must_use]
pub const fn data_suffix() -> Bytes {
    Bytes::from_static(b"\n\n")
}

/// A piece of JSON text fit for a data line or for a line of a pipe: line breaks become spaces, which JSON allows
/// wherever it allows a break (RFC 8259 section 2). Pieces may be cut anywhere; without a break nothing is copied.
#[must_use]
pub fn one_line(json: Bytes) -> Bytes {
    // One byte after the other: each is looked for many bytes at a time.
    if !json.contains(&b'\n') && !json.contains(&b'\r') {
        return json;
    }
    json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// The type is written though it is the default: some clients wait for it.
fn put_head(out: &mut BytesMut, id: Option<&str>) {
    out.put_slice(b"event: message\n");
    if let Some(id) = id.filter(|id| !id.contains(['\n', '\r', '\0'])) {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1024;

    fn read(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = Parser::new(MAX);
        for piece in pieces {
            parser.push(piece).unwrap();
        }
        parser.collect()
    }

    fn data(text: &[u8]) -> Vec<Bytes> {
        read(&[text]).into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let cases: [(&[u8], &[&str]); 13] = [
            (b"data: YHOO\ndata: +2\ndata: 10\n\n", &["YHOO\n+2\n10"]),
            (
                b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
                &["first event", "second event"],
            ),
            (b"data\n\ndata\ndata\n\ndata:", &["", "\n"]),
            (b"data:test\n\ndata: test\n\n", &["test", "test"]),
            (b"data:a\r\rdata:b\r\n\r\ndata:c\n\r", &["a", "b", "c"]),
            (b"\xef\xbb\xbfdata: a\n\n", &["a"]),
            (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", &[]),
            (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", &["a"]),
            (b"data : a\n\nDATA: a\n\ndat: a\n\n", &[]),
            (b"data: a:b: c\n\n", &["a:b: c"]),
            (b"event: x\n\ndata: a\n\n", &["a"]),
            (b"data: a", &[]),
            (b"\n\n\r\r\n\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(data(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn type_belongs_to_one_event_and_id_to_all_that_follow() {
        let events = read(&[b"event: x\nid: 1\ndata:\n\ndata:\n\nid: a\0b\ndata:\n\nid\ndata:\n\nid: 9\n\n"]);
        let seen: Vec<_> = events.iter().map(|event| (event.event.as_str(), event.id.as_deref())).collect();
        assert_eq!(seen, [("x", Some("1")), ("", Some("1")), ("", Some("1")), ("", None)]);
        assert!(!events[0].is_message() && events[1].is_message());
    }

    #[test]
    fn id_and_retry_count_without_data() {
        let mut parser = Parser::new(MAX);
        parser
            .push(b"id: 7\nretry: 1500\n\nretry: 1x\nretry: -1\nretry: +5\nretry:\nretry: 99999999999999999999\n\n")
            .unwrap();
        assert_eq!(parser.next(), None);
        assert_eq!(parser.last_event_id(), Some("7"));
        assert_eq!(parser.retry(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn overlong_id_is_ignored() {
        let mut parser = Parser::new(4 * limits::MAX_EVENT_ID);
        for (len, kept) in [(limits::MAX_EVENT_ID, true), (limits::MAX_EVENT_ID + 1, false)] {
            let id = "x".repeat(len);
            parser.push(alloc::format!("id\nid: {id}\n").as_bytes()).unwrap();
            assert_eq!(parser.last_event_id() == Some(&id), kept);
        }
    }

    #[test]
    fn event_is_bounded_however_it_grows() {
        let line = |len: usize| alloc::format!("data:{}\n\n", "x".repeat(len)).into_bytes();
        assert!(Parser::new(MAX).push(&line(MAX - 5)).is_ok());
        assert_eq!(Parser::new(MAX).push(&line(MAX - 4)), Err(TooLarge(MAX)));
        for grows in [&b"x"[..], b"data:x\n", b"data:\n", b": comment"] {
            let mut parser = Parser::new(MAX);
            let pushed = (0..=MAX).try_for_each(|_| parser.push(grows));
            assert_eq!(pushed, Err(TooLarge(MAX)));
        }
    }

    #[test]
    fn many_events_are_not_one_large_one() {
        let mut parser = Parser::new(64);
        for _ in 0..1000 {
            parser.push(b"event: message\ndata: some text\n: comment\n\n").unwrap();
            assert!(parser.next().is_some());
        }
    }

    #[test]
    fn streamed_message_equals_a_whole_one() {
        let pieces = [&b"{\"a\":\r"[..], b"\n1}"];
        let mut text = data_prefix(Some("5")).to_vec();
        for piece in pieces {
            text.extend_from_slice(&one_line(Bytes::from_static(piece)));
        }
        text.extend_from_slice(&data_suffix());
        let streamed = read(&[&text]);
        assert_eq!(streamed, read(&[&event(Some("5"), b"{\"a\":  1}")]));
        assert_eq!(streamed.first().map(|event| event.id.as_deref()), Some(Some("5")));
    }

    #[test]
    fn heartbeat_is_no_event() {
        assert_eq!(data(HEARTBEAT), [""; 0]);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let token: Vec<&[u8]> = std::vec![
            b"data",
            b"event",
            b"id",
            b"retry",
            b":",
            b" ",
            b"\n",
            b"\n",
            b"\r",
            b"\r\n",
            b"\xef\xbb\xbf",
            b"7",
            b"\0",
            b"\xff",
            b"x",
            "é".as_bytes(),
        ];
        prop::collection::vec(prop::sample::select(token), 0..80).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in stream(), mut cuts in prop::collection::vec(0..200_usize, 0..20)) {
            cuts.retain(|cut| *cut < text.len());
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            let whole = read(&[&text]);
            prop_assert_eq!(&read(&pieces), &whole);
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(&read(&bytes), &whole);
        }

        /// A message that is streamed in pieces is one event, its line breaks spaces, wherever it was cut.
        #[test]
        fn streamed_pieces_are_one_event(id in prop::option::of("[!-~]{1,20}"), text in "[a\r\n é:]{0,40}", mut cuts in prop::collection::vec(0..90_usize, 0..6)) {
            cuts.retain(|cut| *cut < text.len());
            cuts.sort_unstable();
            let mut sent = data_prefix(id.as_deref()).to_vec();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                sent.extend_from_slice(&one_line(Bytes::copy_from_slice(&text.as_bytes()[from..cut])));
                from = cut;
            }
            sent.extend_from_slice(&data_suffix());
            let events = read(&[&sent]);
            prop_assert_eq!(events.len(), 1);
            let expected = text.replace(['\r', '\n'], " ");
            prop_assert_eq!(&events[0].data, expected.as_bytes());
            prop_assert_eq!(&events[0].id, &id);
            prop_assert!(events[0].is_message());
        }

        #[test]
        fn written_events_read_back(id in prop::option::of("[!-~]{1,20}"), text in "[a\r\n é:]{0,40}") {
            let expected = text.replace("\r\n", "\n").replace('\r', "\n");
            let events = read(&[&event(id.as_deref(), text.as_bytes())]);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(&events[0].data, expected.as_bytes());
            prop_assert_eq!(&events[0].id, &id);
        }
    }
}
