//! What was said on event streams of the revisions with a handshake, kept for a moment for clients that lose a connection
//! and come back (2025-03-26 to 2025-11-25, Transports, Resumability and Redelivery).
//!
//! An event's id names the run of the relay, its stream and its place there. Nothing of this outlives the relay, but the
//! id itself: where the stream answers requests it says whose responses are still to come, so that a client that comes
//! back after a restart is told that they will not. That is encoded and not sealed: who makes it up is told of failures of
//! requests that it never sent. One that listens begins a new stream.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};

use super::SessionKey;
use super::failure::Failure;
use super::shard::Numbers;
use crate::limits;
use crate::rpc::{self, RawId, envelope};
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
    asked: Asked,
    /// The place of the event with what was asked for, once that is known.
    last: Option<u64>,
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

/// The ids of the requests that an event stream answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// That of one request.
    One(RawId),
    /// Those of a batch, in a JSON array; empty for a stream of notifications.
    Several(Bytes),
}

impl Default for Asked {
    fn default() -> Self {
        Self::Several(Bytes::new())
    }
}

impl Asked {
    /// One request.
    pub(super) fn one(id: &RawId) -> Self {
        Self::One(id.clone())
    }

    /// The requests of a batch, as many as there is room for.
    pub(super) fn batch<'a>(ids: impl Iterator<Item = &'a RawId>) -> Self {
        let mut length = 1;
        let mut fits = |id: &&[u8]| {
            length += id.len() + 1;
            length <= limits::MAX_ASKED
        };
        let ids: Vec<&[u8]> = ids.map(RawId::as_bytes).filter(|id| fits(id)).collect();
        if ids.is_empty() { Self::default() } else { Self::Several(envelope::batch(ids)) }
    }

    /// What the event with that id says that is still to come; `None` on a stream of notifications.
    pub(super) fn after(id: &str) -> Option<Self> {
        let (_, asked) = id.split_once(ASKED)?;
        let raw = URL_SAFE_NO_PAD.decode(asked).ok()?;
        Some(RawId::from_raw(&raw).map_or_else(|| Self::Several(raw.into()), Self::One))
    }

    /// Whether nothing is to come.
    pub(super) fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The id, or the array.
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::One(id) => id.as_bytes(),
            Self::Several(ids) => ids,
        }
    }

    /// What tells each of them of a failure; `None` when they cannot be read.
    pub(super) fn failed(&self, failure: &Failure) -> Option<Bytes> {
        let ids = match self {
            Self::One(id) => return Some(failure.response(id)),
            Self::Several(ids) => rpc::parse_batch(ids).ok()?,
        };
        let ids = ids.iter().filter_map(|raw| RawId::from_raw(raw));
        let responses: Vec<Bytes> = ids.map(|id| failure.response(&id)).collect();
        (!responses.is_empty()).then(|| envelope::batch(responses.iter().map(AsRef::as_ref)))
    }
}

/// An event, or its beginning, and its place.
pub(super) type Placed = (u64, Bytes);

/// What there is for a client that comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No such stream of that session, or not any more.
    Nothing,
    /// The client missed what is not kept any more. The requests that the stream answers.
    Lost(Asked),
    /// Everything that it missed is there. Whether the stream is over.
    Kept { is_over: bool },
}

impl Replay {
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// How many streams are kept.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// A stream begins.
    pub(super) fn begin(&mut self, stream: u64, session: SessionKey, asked: Asked) {
        while self.streams.len() >= limits::MAX_REPLAYS {
            self.drop_oldest();
        }
        let (events, bytes, next) = (VecDeque::new(), 0, 1);
        let (last, pending, left, is_over) = (None, None, None, false);
        let kept = Stream { session, asked, last, events, bytes, next, pending, left, is_over };
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

    /// The next event is the one with what was asked for.
    pub(super) fn ends(&mut self, stream: u64) {
        if let Some(kept) = self.streams.get_mut(&stream) {
            kept.last = Some(kept.next);
        }
    }

    /// The id of the event at that place.
    pub(super) fn event_id(&self, numbers: &Numbers, stream: u64, place: u64) -> String {
        let id = format!("{}-{place}", numbers.name(stream));
        match self.streams.get(&stream) {
            Some(kept) if !kept.asked.is_empty() => {
                let due = if kept.last == Some(place) { Asked::default() } else { kept.asked.clone() };
                format!("{id}{ASKED}{}", URL_SAFE_NO_PAD.encode(due.as_bytes()))
            }
            Some(_) | None => id,
        }
    }

    /// The message with what was asked for begins, which is sent in pieces. Returns its place.
    pub(super) fn begin_message(&mut self, stream: u64) -> Option<u64> {
        let kept = self.streams.get_mut(&stream)?;
        kept.pending = Some(Some(BytesMut::new()));
        kept.last = Some(kept.next);
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
            return Found::Lost(kept.asked.clone());
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

/// The id of an event, of no stream, after which nothing is to come.
pub(super) fn last_id(numbers: &mut Numbers) -> String {
    let number = numbers.draw();
    format!("{}-0{ASKED}", numbers.name(number))
}

/// The stream and the place of that id; `None` when it is another run's.
pub(super) fn read_id(numbers: &Numbers, id: &str) -> Option<(u64, u64)> {
    let place = id.split_once(ASKED).map_or(id, |(place, _)| place);
    let (stream, place) = place.rsplit_once('-')?;
    Some((numbers.read(stream)?, place.parse().ok()?))
}

/// Stands in an event's id before what is still to come: no other part of one contains it.
const ASKED: char = '.';

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> SessionKey {
        SessionKey(Arc::from(name))
    }

    fn seven() -> Asked {
        Asked::one(&RawId::from_number(7))
    }

    fn begun() -> Replay {
        let mut replay = Replay::default();
        replay.begin(1, key("s"), seven());
        replay
    }

    fn texts(replay: &mut Replay, place: u64) -> Vec<Placed> {
        replay.take_up(1, place).0
    }

    #[test]
    fn streams_are_bounded() {
        let mut replay = Replay::default();
        for stream in 1..=limits::MAX_REPLAYS as u64 + 1 {
            replay.begin(stream, key("s"), seven());
        }
        assert_eq!((replay.len(), replay.has(1), replay.has(2)), (limits::MAX_REPLAYS, false, true));
    }

    #[test]
    fn message_in_pieces_is_kept_up_to_its_bound() {
        for (more, kept) in [(0, true), (1, false)] {
            let mut replay = begun();
            replay.begin_message(1);
            replay.piece(1, b"x");
            replay.piece(1, &alloc::vec![b'x'; limits::MAX_REPLAY - 1 + more]);
            let found = replay.find(1, &key("s"), 0);
            assert_eq!(found, if kept { Found::Kept { is_over: false } } else { Found::Lost(seven()) });
        }
    }

    #[test]
    fn message_that_is_dropped_was_not_begun() {
        let mut replay = begun();
        replay.begin_message(1);
        replay.piece(1, b"half");
        replay.drop_message(1);
        assert_eq!(replay.take_up(1, 0), (Vec::new(), None));
    }

    #[test]
    fn requests_of_a_batch_are_remembered_as_far_as_they_fit() {
        let one = RawId::from_number(1);
        for (count, remembered) in [(1, 1), (319, 319), (320, 319)] {
            let asked = Asked::batch(core::iter::repeat_n(&one, count));
            assert_eq!(asked.as_bytes().iter().filter(|byte| **byte == b'1').count(), remembered);
        }
        assert!(Asked::batch(core::iter::empty()).is_empty());
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
        assert_eq!(replay.find(1, &key("s"), 0), Found::Lost(seven()));
        replay.end_message(1);
        assert_eq!(replay.find(1, &key("s"), 0), Found::Lost(seven()));
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

    #[test]
    fn id_of_an_event_fits_into_a_header_whatever_was_asked() {
        let id = |length: usize| RawId::from_raw(format!("\"{}\"", "x".repeat(length - 2)).as_bytes()).unwrap();
        let mut ids: Vec<RawId> = (0..i32::try_from(limits::MAX_BATCH).unwrap()).map(|_| id(38)).collect();
        let some = Asked::batch(ids.iter());
        assert!(
            matches!(&some, Asked::Several(ids) if rpc::parse_batch(ids).is_ok_and(|ids| ids.len() == 16)),
            "{some:?}"
        );
        ids.insert(0, id(limits::MAX_ID));
        for asked in [Asked::one(&ids[0]), Asked::batch(ids.iter())] {
            assert!(asked.as_bytes().len() <= limits::MAX_ASKED);
            let id = format!("AAAAAAAA-{0}-{0}{ASKED}{1}", u64::MAX, URL_SAFE_NO_PAD.encode(asked.as_bytes()));
            assert!(id.len() <= limits::MAX_EVENT_ID, "{}", id.len());
            assert_eq!(Asked::after(&id), Some(asked));
        }
    }

    #[test]
    fn only_so_many_events_of_a_stream_are_kept_however_small() {
        let mut replay = begun();
        let most = u64::try_from(limits::MAX_REPLAY_EVENTS).unwrap();
        for _ in 0..most {
            replay.add(1, &Bytes::from("x"));
        }
        assert_eq!(texts(&mut replay, 0).len(), limits::MAX_REPLAY_EVENTS);
        replay.add(1, &Bytes::from("x"));
        assert_eq!(texts(&mut replay, 0).len(), limits::MAX_REPLAY_EVENTS);
        assert_eq!(replay.find(1, &key("s"), 0), Found::Lost(seven()), "the first is gone");
    }

    #[test]
    fn streams_are_kept_side_by_side_and_one_that_is_over_makes_room_first() {
        let most = u64::try_from(limits::MAX_REPLAY_OF_USER / limits::MAX_REPLAY).unwrap();
        let mut replay = Replay::default();
        for stream in 1..=most {
            replay.begin(stream, key("s"), seven());
            replay.add(stream, &Bytes::from(std::vec![b'x'; limits::MAX_REPLAY]));
        }
        for stream in 1..=most {
            assert_eq!(replay.take_up(stream, 0).0.len(), 1, "{stream}");
        }
        replay.left(1, false, Instant::default());
        replay.left(most, true, Instant::default());
        replay.begin(most + 1, key("s"), seven());
        replay.add(most + 1, &Bytes::from("y"));
        let kept: Vec<u64> = (1..=most + 1).filter(|stream| replay.has(*stream)).collect();
        assert_eq!(kept, (1..=most + 1).filter(|stream| *stream != most).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn any_id_of_an_event_is_read(id in any::<String>(), raw in any::<Vec<u8>>()) {
            for asked in [Asked::after(&id), Some(Asked::Several(raw.into()))].into_iter().flatten() {
                if let Some(told) = asked.failed(&Failure::Forgotten) {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&told).is_ok());
                }
            }
        }

        #[test]
        fn what_is_kept_is_bounded_and_right(
            ops in prop::collection::vec((0..4_u64, 0..limits::MAX_REPLAY * 5 / 4, any::<bool>()), 0..60),
        ) {
            let mut replay = Replay::default();
            let mut last: BTreeMap<u64, (u64, u8)> = BTreeMap::new();
            for (index, (stream, length, over)) in ops.into_iter().enumerate() {
                if !replay.has(stream) {
                    replay.begin(stream, key("s"), Asked::default());
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
