//! Cuts a stream of bytes into lines, with bounded memory whatever comes.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use tunnel_core::limits::MAX_LINE_SKIPPED;

/// A line of a server's stdout, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// All of it.
    Whole(Bytes),
    /// It was over the cap: its two ends.
    TooLong { prefix: Bytes, suffix: Bytes, length: u64 },
}

/// The cutter. Fill [`space`](Self::space), then take [`next`](Self::next) until `None`.
#[derive(Debug)]
pub(crate) struct Lines {
    max: usize,
    buffer: BytesMut,
    /// The buffer was begun for one large line: it grows where it is, and has little more memory than the line.
    large: bool,
    /// What the last large line took: the next one is likely as long, and is not copied while it grows.
    expected: usize,
    /// How much of `buffer` is known to hold no line end.
    scanned: usize,
    /// The line that is being thrown away.
    skipped: Option<Skipped>,
}

#[derive(Debug)]
struct Skipped {
    prefix: Bytes,
    suffix: Vec<u8>,
    length: u64,
}

impl Lines {
    /// A cutter that takes lines of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, buffer: BytesMut::new(), large: false, expected: LARGE, scanned: 0, skipped: None }
    }

    /// Where to read into.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    /// The next line that is complete.
    pub(crate) fn next(&mut self) -> Option<Line> {
        let fresh = self.buffer.get(self.scanned..)?;
        let Some(found) = memchr(b'\n', fresh) else {
            self.scanned = self.buffer.len();
            // It may be of the line's end, whose other half comes with the next piece.
            let held = usize::from(self.buffer.last() == Some(&b'\r'));
            if self.skipped.is_some() || self.buffer.len() - held > self.max {
                self.skip_buffer(held);
            } else if self.buffer.len() >= READ && !self.large {
                // What was split before is copied to grow, and again and again.
                let mut buffer = BytesMut::with_capacity(self.expected);
                buffer.extend_from_slice(&self.buffer);
                (self.buffer, self.large) = (buffer, true);
            }
            // It has no end: told now, and whoever hears of it stops the server.
            let is_endless = |skipped: &Skipped| skipped.length >= MAX_LINE_SKIPPED;
            return if self.skipped.as_ref().is_some_and(is_endless) { self.finish() } else { None };
        };
        let mut line = self.buffer.split_to(self.scanned + found);
        self.buffer.advance(1);
        self.scanned = 0;
        if self.large {
            (self.buffer, self.large) = (BytesMut::from(&self.buffer[..]), false);
            if line.len() < self.expected / 4 {
                // It was begun for a longer one, whose memory it must not hold.
                line = BytesMut::from(&line[..]);
            }
            self.expected = LARGE.max(line.len() + READ);
        }
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(self.complete(line))
    }

    /// What is left when the stream ended without a line end.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let rest = std::mem::take(&mut self.buffer);
        (self.scanned, self.large) = (0, false);
        (self.skipped.is_some() || !rest.is_empty()).then(|| self.complete(rest))
    }

    fn complete(&mut self, line: BytesMut) -> Line {
        if self.skipped.is_none() && line.len() <= self.max {
            // A small line is copied, so that it does not pin the whole buffer, which can then be used again.
            return Line::Whole(if line.len() <= SMALL { Bytes::copy_from_slice(&line) } else { line.freeze() });
        }
        let mut skipped = self.skipped.take().unwrap_or_else(|| Skipped::starting_with(&line));
        skipped.add(&line);
        Line::TooLong { prefix: skipped.prefix, suffix: skipped.suffix.into(), length: skipped.length }
    }

    /// Throws away what came of the line, but for its last `held` bytes.
    fn skip_buffer(&mut self, held: usize) {
        let line = self.buffer.split_to(self.buffer.len() - held);
        self.skipped.get_or_insert_with(|| Skipped::starting_with(&line)).add(&line);
        // A buffer that grew to the cap is not kept.
        (self.buffer, self.large) = (BytesMut::from(&self.buffer[..]), false);
        self.scanned = self.buffer.len();
    }
}

impl Skipped {
    fn starting_with(begin: &[u8]) -> Self {
        let prefix = begin.get(..PREFIX).unwrap_or(begin);
        Self { prefix: Bytes::copy_from_slice(prefix), suffix: Vec::new(), length: 0 }
    }

    fn add(&mut self, piece: &[u8]) {
        self.length = self.length.saturating_add(piece.len() as u64);
        self.suffix.extend_from_slice(&piece[piece.len().saturating_sub(SUFFIX)..]);
        self.suffix.drain(..self.suffix.len().saturating_sub(SUFFIX));
    }
}

/// What is read at once: a pipe's usual capacity.
const READ: usize = 64 * 1024;
/// What a large line is begun with.
const LARGE: usize = 4 * READ;
/// Lines up to this are copied out.
const SMALL: usize = 4 * 1024;
/// How much of a line that is thrown away is kept: enough to find the id of the call that it answers.
const PREFIX: usize = 4 * 1024;
const SUFFIX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `input`, fed in pieces of `step` bytes.
    fn cut(input: &[u8], max: usize, step: usize) -> Vec<Line> {
        let mut lines = Lines::new(max);
        let mut found = Vec::new();
        for piece in input.chunks(step) {
            lines.space().extend_from_slice(piece);
            while let Some(line) = lines.next() {
                found.push(line);
            }
        }
        found.extend(lines.finish());
        found
    }

    fn whole(text: &str) -> Line {
        Line::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let input = b"one\r\n\ntwo\nlast";
        for step in 1..=input.len() {
            assert_eq!(cut(input, 10, step), [whole("one"), whole(""), whole("two"), whole("last")], "{step}");
        }
    }

    #[test]
    fn line_at_the_cap_passes_and_one_over_it_leaves_its_ends() {
        for step in [1, 3, 100] {
            let found = cut(b"1234567890\n1234567890x\nnext\n", 10, step);
            let ends = Bytes::from_static(b"1234567890x");
            assert_eq!(found[0], whole("1234567890"), "{step}");
            assert!(matches!(&found[1], Line::TooLong { suffix, length: 11, .. } if *suffix == ends), "{found:?}");
            assert_eq!(found[2..], [whole("next")], "{step}");
        }
    }

    #[test]
    fn line_end_of_two_bytes_counts_for_nothing_however_it_arrives() {
        let input = b"1234567890\r\n1234567890x\r\n1234567890\rx\r\nnext\r";
        for step in 1..=input.len() {
            let found = cut(input, 10, step);
            assert_eq!(found[0], whole("1234567890"), "{step}");
            for (line, ends) in found[1..3].iter().zip(["1234567890x", "1234567890\rx"]) {
                let Line::TooLong { suffix, length, .. } = line else { panic!("{step}: {line:?}") };
                assert_eq!((&suffix[..], *length), (ends.as_bytes(), ends.len() as u64), "{step}");
            }
            assert_eq!(found[3..], [whole("next\r")], "{step}");
        }
    }

    #[test]
    fn large_line_after_another_does_not_grow_and_a_smaller_one_holds_little_more_than_it_needs() {
        let mut lines = Lines::new(100_000_000);
        let mut growths = |length: usize| {
            let mut growths = 0;
            for piece in vec![b'x'; length].chunks(READ) {
                let before = lines.buffer.capacity();
                lines.space().extend_from_slice(piece);
                growths += usize::from(lines.large && lines.buffer.capacity() > before);
                assert_eq!(lines.next(), None);
            }
            lines.space().extend_from_slice(b"\n");
            let Some(Line::Whole(line)) = lines.next() else { panic!("a line") };
            assert_eq!(line.len(), length);
            let held = line.try_into_mut().expect("nobody shares it").capacity();
            assert!(held <= 4 * length, "{held} bytes for {length}");
            growths
        };
        assert!(growths(3_000_000) > 0);
        assert_eq!(growths(3_000_000), 0);
        assert_eq!(growths(100_000), 0);
        assert!(growths(3_000_000) > 0, "it is expected as long as the last");
    }

    #[test]
    fn line_without_an_end_is_told_once_it_must_be_one() {
        let mut lines = Lines::new(100_000);
        let piece = [0; 1024 * 1024];
        let told = (0..2 * MAX_LINE_SKIPPED / piece.len() as u64).find_map(|_| {
            lines.space().extend_from_slice(&piece);
            lines.next()
        });
        assert!(matches!(told, Some(Line::TooLong { length: MAX_LINE_SKIPPED, .. })), "{told:?}");
    }

    #[test]
    fn endless_line_costs_no_more_than_the_cap() {
        let mut lines = Lines::new(100_000);
        for _ in 0..1000 {
            lines.space().extend_from_slice(&[b'x'; 50_000]);
            assert!(lines.next().is_none());
            assert!(lines.buffer.capacity() < 400_000, "{}", lines.buffer.capacity());
        }
        lines.space().extend_from_slice(b"the end\nnext\n");
        let Some(Line::TooLong { prefix, suffix, length }) = lines.next() else { panic!("a line that is too long") };
        assert_eq!((prefix.len(), suffix.len(), length), (PREFIX, SUFFIX, 50_000_007));
        assert!(suffix.ends_with(b"xthe end"));
        assert_eq!(lines.next(), Some(whole("next")));
    }
}
