//! What was said on event streams of the revisions with a handshake, kept for a moment for clients that lose a connection
//! and come back (2025-03-26 to 2025-11-25, Transports, Resumability and Redelivery).
//!
//! An event's id names the run of the relay, its stream and its place there. Nothing of this outlives the relay: a client
//! that comes back after a restart begins a new stream.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::SessionKey;
use super::shard::Numbers;
use crate::limits;
use crate::rpc::RawId;
use crate::time::Instant;

/// The streams of one user.
#[derive(Debug, Default)]
pub(super) struct Replay {
    streams: BTreeMap<u64, Stream>,
    /// What all of them keep.
    bytes: usize,
}

/// One event stream.
#[derive(Debug)]
struct Stream {
    session: SessionKey,
    /// The request that it answers; none on a stream of notifications.
    request: Option<RawId>,
    /// The events that are kept, the last of those that were sent.
    events: VecDeque<Bytes>,
    bytes: usize,
    /// The place of the next event. The first one's is 1: 0 stands for the stream's beginning.
    next: u64,
    /// A message that is being sent in pieces, as far as it came; `None` within: it is too long to be kept.
    pending: Option<Option<BytesMut>>,
    /// Since when nobody reads it.
    left: Option<Instant>,
    is_over: bool,
}

/// An event, or its beginning, and its place.
pub(super) type Placed = (u64, Bytes);

/// What there is for a client that comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No such stream of that session, or not any more.
    Nothing,
    /// The client missed what is not kept any more. The request that the stream answers.
    Lost(Option<RawId>),
    /// Everything that it missed is there. Whether the stream is over.
    Kept { is_over: bool },
}

impl Replay {
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A stream begins.
    pub(super) fn begin(&mut self, stream: u64, session: SessionKey, request: Option<RawId>) {
        while self.streams.len() >= limits::MAX_REPLAYS {
            self.drop_oldest();
        }
        let (events, bytes, next) = (VecDeque::new(), 0, 1);
        let kept = Stream { session, request, events, bytes, next, pending: None, left: None, is_over: false };
        self.streams.insert(stream, kept);
    }

    /// An event is sent. Returns its place.
    pub(super) fn add(&mut self, stream: u64, data: &Bytes) -> Option<u64> {
        let kept = self.streams.get_mut(&stream)?;
        let place = kept.next;
        kept.next += 1;
        let copy = (data.len() <= limits::MAX_REPLAY).then(|| Bytes::copy_from_slice(data));
        self.keep(stream, copy);
        Some(place)
    }

    /// A message begins that is sent in pieces. Returns its place.
    pub(super) fn begin_message(&mut self, stream: u64) -> Option<u64> {
        let kept = self.streams.get_mut(&stream)?;
        kept.pending = Some(Some(BytesMut::new()));
        Some(kept.next)
    }

    /// A piece of the message.
    pub(super) fn piece(&mut self, stream: u64, bytes: &[u8]) {
        let Some(kept) = self.streams.get_mut(&stream) else { return };
        if let Some(Some(message)) = &mut kept.pending {
            if message.len().saturating_add(bytes.len()) <= limits::MAX_REPLAY {
                message.extend_from_slice(bytes);
            } else {
                kept.pending = Some(None);
            }
        }
    }

    /// The message is complete.
    pub(super) fn end_message(&mut self, stream: u64) {
        let Some(kept) = self.streams.get_mut(&stream) else { return };
        if let Some(message) = kept.pending.take() {
            kept.next += 1;
            self.keep(stream, message.map(BytesMut::freeze));
        }
    }

    /// The message will not be complete: as if it had not begun.
    pub(super) fn drop_message(&mut self, stream: u64) {
        if let Some(kept) = self.streams.get_mut(&stream) {
            kept.pending = None;
        }
    }

    /// Nobody reads the stream any more, and it may be over.
    pub(super) fn left(&mut self, stream: u64, is_over: bool, now: Instant) {
        if let Some(kept) = self.streams.get_mut(&stream) {
            kept.left.get_or_insert(now);
            kept.is_over |= is_over;
        }
    }

    /// What is there of a stream after the event at `place`.
    pub(super) fn find(&self, stream: u64, session: &SessionKey, place: u64) -> Found {
        let Some(kept) = self.streams.get(&stream).filter(|kept| kept.session == *session) else {
            return Found::Nothing;
        };
        if place >= kept.next {
            return Found::Nothing;
        }
        if place + 1 < kept.first() || kept.pending == Some(None) {
            return Found::Lost(kept.request.clone());
        }
        Found::Kept { is_over: kept.is_over }
    }

    /// A client reads the stream again: the events after `place`, with their places, and the beginning of a message that
    /// is being sent.
    pub(super) fn take_up(&mut self, stream: u64, place: u64) -> (Vec<Placed>, Option<Placed>) {
        let Some(kept) = self.streams.get_mut(&stream) else { return Default::default() };
        kept.left = None;
        let events = (kept.first()..).zip(kept.events.iter().cloned()).filter(|(at, _)| *at > place).collect();
        let pending = kept.pending.as_ref().and_then(Option::as_ref);
        (events, pending.map(|message| (kept.next, Bytes::copy_from_slice(message))))
    }

    /// Drops the streams that nobody has read for long enough. Returns when to look again.
    pub(super) fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let due = |stream: &Stream| stream.left.map(|left| left + limits::REPLAY_KEPT);
        let old: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| due(stream).is_some_and(|due| due <= now))
            .map(|(number, _)| *number)
            .collect();
        old.into_iter().for_each(|stream| self.forget(stream));
        self.streams.values().filter_map(due).min()
    }

    /// Forgets all of a session.
    pub(super) fn end_session(&mut self, session: &SessionKey) {
        let its: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.session == *session).map(|(number, _)| *number).collect();
        its.into_iter().for_each(|stream| self.forget(stream));
    }

    /// Whether anything is known of a stream.
    pub(super) fn has(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Keeps an event, or the gap that one leaves which is too long. What is older makes room.
    fn keep(&mut self, stream: u64, event: Option<Bytes>) {
        let Some(kept) = self.streams.get_mut(&stream) else { return };
        let before = kept.bytes;
        match event {
            None => {
                kept.events.clear();
                kept.bytes = 0;
            }
            Some(event) => {
                kept.bytes += event.len();
                kept.events.push_back(event);
                while kept.bytes > limits::MAX_REPLAY || kept.events.len() > limits::MAX_REPLAY_EVENTS {
                    kept.bytes -= kept.events.pop_front().map_or(0, |event| event.len());
                }
            }
        }
        self.bytes = self.bytes + kept.bytes - before;
        while self.bytes > limits::MAX_REPLAY_OF_USER && self.streams.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Makes room: one that is over and nobody reads is missed least.
    fn drop_oldest(&mut self) {
        let rank = |stream: &Stream| (!stream.is_over, stream.left.is_none());
        let oldest = self.streams.iter().min_by_key(|(number, stream)| (rank(stream), **number));
        if let Some(number) = oldest.map(|(number, _)| *number) {
            self.forget(number);
        }
    }

    fn forget(&mut self, stream: u64) {
        if let Some(gone) = self.streams.remove(&stream) {
            self.bytes -= gone.bytes;
        }
    }
}

impl Stream {
    /// The place of the first event that is kept, or of the next one.
    fn first(&self) -> u64 {
        self.next - u64::try_from(self.events.len()).unwrap_or(u64::MAX).min(self.next - 1)
    }
}

/// An event's id.
pub(super) fn event_id(numbers: &Numbers, stream: u64, place: u64) -> String {
    format!("{}-{place}", numbers.name(stream))
}

/// The stream and the place of that id; `None` when it is another run's.
pub(super) fn read_id(numbers: &Numbers, id: &str) -> Option<(u64, u64)> {
    let (stream, place) = id.rsplit_once('-')?;
    Some((numbers.read(stream)?, place.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> SessionKey {
        SessionKey(Arc::from(name))
    }

    fn begun() -> Replay {
        let mut replay = Replay::default();
        replay.begin(1, key("s"), RawId::from_raw(b"7"));
        replay
    }

    fn texts(replay: &mut Replay, place: u64) -> Vec<Placed> {
        replay.take_up(1, place).0
    }

    #[test]
    fn events_after_a_place_are_there() {
        let mut replay = begun();
        for text in ["a", "b", "c"] {
            replay.add(1, &Bytes::from(text));
        }
        assert_eq!(replay.find(1, &key("s"), 1), Found::Kept { is_over: false });
        assert_eq!(texts(&mut replay, 1), [(2, Bytes::from("b")), (3, Bytes::from("c"))]);
        assert_eq!(texts(&mut replay, 3), []);
        assert_eq!(texts(&mut replay, 0).len(), 3);
        assert_eq!(replay.find(1, &key("other"), 1), Found::Nothing);
        assert_eq!(replay.find(2, &key("s"), 1), Found::Nothing);
        assert_eq!(replay.find(1, &key("s"), 4), Found::Nothing, "that was never sent");
    }

    #[test]
    fn message_in_pieces_is_an_event_once_it_is_complete() {
        let mut replay = begun();
        assert_eq!(replay.begin_message(1), Some(1));
        replay.piece(1, b"ab");
        assert_eq!(replay.take_up(1, 0).1, Some((1, Bytes::from("ab"))));
        replay.piece(1, b"c");
        replay.end_message(1);
        assert_eq!(texts(&mut replay, 0), [(1, Bytes::from("abc"))]);
        replay.begin_message(1);
        replay.piece(1, b"cut");
        replay.drop_message(1);
        assert_eq!(replay.add(1, &Bytes::from("d")), Some(2));
    }

    #[test]
    fn what_is_too_long_is_a_gap_that_is_told() {
        let mut replay = begun();
        replay.begin_message(1);
        for _ in 0..3 {
            replay.piece(1, &std::vec![b'x'; limits::MAX_REPLAY / 2]);
        }
        assert_eq!(replay.find(1, &key("s"), 0), Found::Lost(RawId::from_raw(b"7")));
        replay.end_message(1);
        assert_eq!(replay.find(1, &key("s"), 0), Found::Lost(RawId::from_raw(b"7")));
        assert_eq!(replay.find(1, &key("s"), 1), Found::Kept { is_over: false }, "it has had that one");
    }

    #[test]
    fn streams_that_nobody_reads_are_forgotten() {
        let mut replay = begun();
        let now = Instant::default();
        assert_eq!(replay.sweep(now), None);
        replay.left(1, true, now);
        assert_eq!(replay.sweep(now), Some(now + limits::REPLAY_KEPT));
        assert_eq!(replay.find(1, &key("s"), 0), Found::Kept { is_over: true });
        replay.sweep(now + limits::REPLAY_KEPT);
        assert!(replay.is_empty());
        let mut replay = begun();
        replay.end_session(&key("s"));
        assert!(replay.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_and_right(
            ops in prop::collection::vec((0..4_u64, 0..limits::MAX_REPLAY * 5 / 4, any::<bool>()), 0..60),
        ) {
            let mut replay = Replay::default();
            let mut last: BTreeMap<u64, (u64, u8)> = BTreeMap::new();
            for (index, (stream, length, over)) in ops.into_iter().enumerate() {
                if !replay.has(stream) {
                    replay.begin(stream, key("s"), None);
                    last.remove(&stream);
                }
                let byte = u8::try_from(index).unwrap();
                let place = replay.add(stream, &Bytes::from(std::vec![byte; length])).unwrap();
                prop_assert_eq!(place, last.get(&stream).map_or(0, |(place, _)| *place) + 1);
                last.insert(stream, (place, byte));
                if over {
                    replay.left(stream, true, Instant::default());
                }
                let sum: usize = replay.streams.values().flat_map(|stream| &stream.events).map(Bytes::len).sum();
                prop_assert_eq!(sum, replay.bytes);
                prop_assert!(sum <= limits::MAX_REPLAY_OF_USER);
                if let Some((at, data)) = replay.take_up(stream, 0).0.last() {
                    prop_assert_eq!(*at, place);
                    prop_assert!(data.iter().all(|it| *it == byte) && data.len() == length);
                }
            }
        }
    }
}
