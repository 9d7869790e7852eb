//! Which resources the sessions of `/mcp` watch, and under which URIs.
//!
//! The subscriptions themselves live at the agents. This only says how a client spelled what it subscribed to, and where
//! that went: should it be lost with the relay, an update carries the URI that the lists show, and a URI goes where they
//! say.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use super::SessionKey;
use super::resources::Spot;
use crate::limits;

/// What is watched, by session and the client's URI.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<(SessionKey, String), Watch>);

#[derive(Debug)]
struct Watch {
    /// The labels of device and server: a device that connects anew has kept its subscriptions.
    place: (String, String),
    /// The server's own URI.
    own: String,
}

impl Watches {
    /// A session subscribes to `uri`, which its server knows as `own`. Beyond [`limits::MAX_WATCHES`] nothing is kept.
    pub(super) fn add(&mut self, session: &SessionKey, uri: &str, spot: &Spot, own: &str) {
        if self.0.len() < limits::MAX_WATCHES && uri.len() <= MAX_WATCHED {
            let watch = Watch { place: spot.labels().clone(), own: own.into() };
            self.0.insert((session.clone(), uri.into()), watch);
        }
    }

    /// A session takes its subscription back. Returns where it went: the labels of its server, and the URI there.
    pub(super) fn remove(&mut self, session: &SessionKey, uri: &str) -> Option<((String, String), String)> {
        self.0.remove(&(session.clone(), uri.into())).map(|watch| (watch.place, watch.own))
    }

    /// A session is over.
    pub(super) fn forget(&mut self, session: &SessionKey) {
        self.0.retain(|(of, _), _| of != session);
    }

    /// How that session knows a server's resource, which may be a part of what it watches (2025-11-25, schema,
    /// `ResourceUpdatedNotification`).
    pub(super) fn spelled(&self, session: &str, place: &(String, String), uri: &str) -> Option<String> {
        let its = self.0.iter().filter(|((of, _), watch)| *of.0 == *session && watch.place == *place);
        let parts =
            its.filter_map(|((_, spelled), watch)| part(&watch.own, uri).map(|rest| (watch.own.len(), spelled, rest)));
        parts.max_by_key(|(length, ..)| *length).map(|(_, spelled, rest)| format!("{spelled}{rest}"))
    }
}

/// What `uri` has behind `watched`, if it is that or a part of it.
pub(super) fn part<'a>(watched: &str, uri: &'a str) -> Option<&'a str> {
    let rest = uri.strip_prefix(watched)?;
    let is_part = rest.is_empty() || watched.ends_with('/') || rest.starts_with(['/', '?', '#']);
    is_part.then_some(rest)
}

/// The longest URI that is kept: one within a namespace.
pub(super) const MAX_WATCHED: usize = 2 * limits::MAX_LISTED_URI;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn part_begins_where_a_path_goes_on() {
        for (watched, uri, rest) in [
            ("a:/x", "a:/x", Some("")),
            ("a:/x", "a:/x/y", Some("/y")),
            ("a:/x/", "a:/x/y", Some("y")),
            ("a:/x", "a:/x?y", Some("?y")),
            ("a:/x", "a:/x#y", Some("#y")),
            ("a:/x", "a:/xy", None),
            ("a:/x", "a:/", None),
        ] {
            assert_eq!(part(watched, uri), rest, "{watched} {uri}");
        }
    }

    proptest! {
        /// What is put together again is what it was, and a part of a part is a part.
        #[test]
        fn parts_are_what_goes_on_behind(watched in "a:[/xy]{0,4}", uri in "a:[/xy?#]{0,6}", more in "[/?#][xy]{0,2}") {
            if let Some(rest) = part(&watched, &uri) {
                prop_assert_eq!(format!("{watched}{rest}"), uri.as_str());
                let further = format!("{uri}{more}");
                prop_assert_eq!(part(&watched, &further), Some(&further[watched.len()..]));
            }
            prop_assert_eq!(part(&uri, &uri), Some(""));
            let inside = format!("{watched}{more}");
            prop_assert_eq!(part(&watched, &inside), Some(&*more));
        }
    }
}
