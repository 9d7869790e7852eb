//! What an agent tells beside calls: its catalog, and notifications of its servers that belong to no call.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};

use crate::limits::{MAX_CATALOG, MAX_NOTICE, MAX_NOTICES};
use crate::tunnel::close::Fault;
use crate::tunnel::frame::{Frame, Piece};

/// What waits to be sent on stream 0, in order.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    queue: VecDeque<Announcement>,
}

#[derive(Debug)]
struct Announcement {
    kind: Kind,
    /// Whose notice it is.
    server: Option<String>,
    rest: Bytes,
    started: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Catalog,
    Notice,
}

impl Announcements {
    /// Queues a catalog, or a change of it: none of them can be left out.
    pub(super) fn push_catalog(&mut self, json: Bytes) -> Result<(), Fault> {
        if json.len() > MAX_CATALOG || json.is_empty() {
            tracing::warn!(bytes = json.len(), "catalog not sent: over the limit");
            return Ok(());
        }
        let waiting: usize = self.of(Kind::Catalog).map(|catalog| catalog.rest.len()).sum();
        if waiting.saturating_add(json.len()) > 2 * MAX_CATALOG {
            return Err(Fault::internal("catalog changes faster than the tunnel carries it"));
        }
        self.push(Kind::Catalog, None, json);
        Ok(())
    }

    /// How many notifications wait.
    pub(super) fn notices(&self) -> usize {
        self.of(Kind::Notice).count()
    }

    /// Queues a notification. The oldest makes room of the server that has most waiting: one that says much drowns no
    /// other.
    pub(super) fn push_notice(&mut self, notice: &NoticeHead, json: &[u8]) {
        let head = serde_json::to_vec(notice).expect("a notice's head is strings");
        let Ok(length) = u16::try_from(head.len()) else {
            return tracing::debug!(bytes = head.len(), "notification dropped: it is for too many sessions");
        };
        if json.len() > MAX_NOTICE {
            tracing::debug!(bytes = json.len(), "notification dropped: over the limit");
            return;
        }
        if self.notices() >= MAX_NOTICES {
            self.oldest_of_the_busiest().and_then(|at| self.queue.remove(at));
        }
        let mut body = Vec::with_capacity(2 + head.len() + json.len());
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&head);
        body.extend_from_slice(json);
        self.push(Kind::Notice, Some(notice.server.clone()), body.into());
    }

    /// The next frame, with at most `room` bytes of body.
    pub(super) fn next(&mut self, room: usize) -> Option<Frame> {
        let first = self.queue.front_mut()?;
        first.started = true;
        let kind = first.kind;
        let piece = Piece::cut_from(&mut first.rest, room);
        if piece.last {
            self.queue.pop_front();
        }
        Some(match kind {
            Kind::Catalog => Frame::Catalog(piece),
            Kind::Notice => Frame::Notice(piece),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn push(&mut self, kind: Kind, server: Option<String>, rest: Bytes) {
        self.queue.push_back(Announcement { kind, server, rest, started: false });
    }

    fn oldest_of_the_busiest(&self) -> Option<usize> {
        let waiting = || self.queue.iter().enumerate().filter(|(_, waiting)| !waiting.started);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for server in waiting().filter_map(|(_, waiting)| waiting.server.as_deref()) {
            *counts.entry(server).or_default() += 1;
        }
        let (busiest, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        waiting().find(|(_, waiting)| waiting.server.as_deref() == Some(busiest)).map(|(at, _)| at)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Announcement> {
        self.queue.iter().filter(move |waiting| waiting.kind == kind)
    }
}

/// What a notice begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct NoticeHead {
    pub(super) server: String,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<String>,
}

/// The head and the message of a whole notice.
pub(super) fn split_notice(mut body: Bytes) -> Result<(NoticeHead, Bytes), Fault> {
    const MALFORMED: Fault = Fault::protocol("malformed notice");
    let length = usize::from(body.try_get_u16().map_err(|_| MALFORMED)?);
    if length > body.len() {
        return Err(MALFORMED);
    }
    let head = body.split_to(length);
    Ok((serde_json::from_slice(&head).map_err(|_| MALFORMED)?, body))
}

/// What [`split_notice`] takes at most: the message, and the longest head with its length.
pub(super) const MAX_NOTICE_BODY: usize = MAX_NOTICE + 2 + u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(announcements: &mut Announcements) -> Vec<Frame> {
        core::iter::from_fn(|| announcements.next(usize::MAX)).collect()
    }

    #[test]
    fn oldest_notices_make_room_but_never_a_begun_one_or_a_catalog() {
        let mut announcements = Announcements::default();
        announcements.push_notice(&NoticeHead::default(), b"first");
        announcements.next(2 + br#"{"server":""}"#.len());
        announcements.push_catalog(Bytes::from_static(b"{}")).unwrap();
        for _ in 0..MAX_NOTICES {
            announcements.push_notice(&NoticeHead::default(), b"later");
        }
        let frames = drain(&mut announcements);
        assert_eq!(frames.len(), MAX_NOTICES + 1);
        assert_eq!(frames[0], Frame::Notice(Piece { last: true, bytes: Bytes::from_static(b"first") }));
        assert_eq!(frames[1], Frame::Catalog(Piece { last: true, bytes: Bytes::from_static(b"{}") }));
    }

    #[test]
    fn server_that_says_much_drowns_no_other() {
        let mut announcements = Announcements::default();
        let of = |server: &str| NoticeHead { server: server.into(), sessions: Vec::new() };
        announcements.push_notice(&of("quiet"), b"first");
        for number in 0..10 * MAX_NOTICES {
            announcements.push_notice(&of("loud"), alloc::format!("{number}").as_bytes());
            if number == 5 * MAX_NOTICES {
                announcements.push_notice(&of("quiet"), b"second");
            }
        }
        let said: Vec<_> = drain(&mut announcements)
            .into_iter()
            .filter_map(|frame| match frame {
                Frame::Notice(piece) => split_notice(piece.bytes).ok(),
                _ => None,
            })
            .collect();
        assert_eq!(said.len(), MAX_NOTICES);
        let quiet: Vec<_> = said.iter().filter(|(head, _)| head.server == "quiet").map(|(_, json)| &json[..]).collect();
        assert_eq!(quiet, [&b"first"[..], b"second"]);
        let newest = alloc::format!("{}", 10 * MAX_NOTICES - 1);
        assert_eq!(said.last().map(|(_, json)| &json[..]), Some(newest.as_bytes()));
    }

    #[test]
    fn catalogs_beyond_the_bound_end_the_tunnel() {
        let mut announcements = Announcements::default();
        let large = Bytes::from(alloc::vec![b' '; MAX_CATALOG]);
        assert!(announcements.push_catalog(large.clone()).is_ok());
        assert!(announcements.push_catalog(large).is_ok());
        assert!(announcements.push_catalog(Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn largest_catalog_and_notice_are_sent_and_larger_or_empty_ones_are_not() {
        for (length, fits) in [(0, false), (1, true), (MAX_CATALOG, true), (MAX_CATALOG + 1, false)] {
            let mut announcements = Announcements::default();
            assert!(announcements.push_catalog(alloc::vec![b' '; length].into()).is_ok());
            assert_eq!(!announcements.is_empty(), fits, "{length}");
        }
        for (length, fits) in [(MAX_NOTICE, true), (MAX_NOTICE + 1, false), (MAX_NOTICE + 2, false)] {
            let mut announcements = Announcements::default();
            announcements.push_notice(&NoticeHead::default(), &alloc::vec![b' '; length]);
            assert_eq!(!announcements.is_empty(), fits, "{length}");
        }
    }

    proptest! {
        #[test]
        fn notices_survive(
            server in "\\PC{0,20}",
            sessions in prop::collection::vec("\\PC{0,20}", 0..4),
            json in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut announcements = Announcements::default();
            let head = NoticeHead { server, sessions };
            announcements.push_notice(&head, &json);
            let Some(Frame::Notice(piece)) = announcements.next(usize::MAX) else { panic!("a notice") };
            prop_assert_eq!(split_notice(piece.bytes), Ok((head, Bytes::from(json))));
        }

        #[test]
        fn any_notice_is_split_or_refused(body in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = split_notice(Bytes::from(body));
        }
    }
}
