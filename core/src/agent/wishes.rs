//! What the sessions of clients want to hear of each server: how talkative its log is, which resources they watch.
//!
//! It lives here and not at the relay, so that it outlives the relay, and the server's process too; [`kept`] is how it
//! outlives this one.

mod kept;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::caller::Caller;
use crate::limits;
use crate::mcp::Version;
pub(super) use crate::mcp::level::Level;
use crate::time::UnixTime;

/// The sessions that called a server of this agent lately.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    sessions: BTreeMap<String, Session>,
    /// Calls so far: tells which session is the oldest.
    uses: u64,
    /// Whether it is not what was kept last.
    is_changed: bool,
}

#[derive(Debug, Default)]
struct Session {
    last_use: u64,
    /// When that was.
    seen: UnixTime,
    /// As its client introduced itself: a run of its own begins with that.
    client: Arc<str>,
    version: Option<Version>,
    capabilities: Bytes,
    /// By the names of the servers that it called.
    servers: BTreeMap<String, Wish>,
}

#[derive(Debug, Default)]
struct Wish {
    level: Option<Level>,
    uris: BTreeSet<String>,
}

/// What a session hears that never said what it wants, while others did.
const DEFAULT: Level = Level::INFO;

/// A session watches as many resources as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Wishes {
    /// A session calls a server. Beyond the bound the session goes that called nothing for longest, and so do those that
    /// have run out at any relay.
    pub(super) fn touch(&mut self, caller: &Caller, server: &str, now: UnixTime) {
        let key = &*caller.session;
        if key.is_empty() {
            return;
        }
        if !self.sessions.contains_key(key) {
            self.make_room(now);
            self.sessions.insert(key.to_string(), Session::default());
        }
        self.uses += 1;
        let entry = self.sessions.get_mut(key).expect("it was there, or was put in");
        entry.last_use = self.uses;
        // A clock that was set back makes nobody older.
        entry.seen = entry.seen.max(now);
        if !entry.servers.contains_key(server) {
            entry.client = caller.client.clone();
            (entry.version, entry.capabilities) = (caller.version, caller.capabilities.clone());
            entry.servers.insert(server.to_string(), Wish::default());
            self.is_changed = true;
        }
    }

    /// Makes room for another session.
    fn make_room(&mut self, now: UnixTime) {
        self.sessions.retain(|_, it| !it.has_run_out(now));
        if self.sessions.len() >= limits::MAX_CLIENT_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, it)| it.last_use).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.sessions.remove(&key));
        }
    }

    /// A session is over.
    pub(super) fn forget(&mut self, session: &str) {
        self.is_changed |= self.sessions.remove(session).is_some();
    }

    /// A server has no entry any more.
    pub(super) fn forget_server(&mut self, server: &str) {
        for session in self.sessions.values_mut() {
            self.is_changed |= session.servers.remove(server).is_some();
        }
    }

    /// The sessions that watch something of a server, as their clients introduced themselves; who called last is first.
    pub(super) fn watching(&self, server: &str) -> Vec<Caller> {
        let watches = |it: &Session| it.servers.get(server).is_some_and(|wish| !wish.uris.is_empty());
        let mut watching: Vec<_> = self.sessions.iter().filter(|(_, it)| watches(it)).collect();
        watching.sort_by_key(|(_, it)| core::cmp::Reverse(it.last_use));
        watching.into_iter().map(|(key, it)| it.caller(key)).collect()
    }

    /// The servers that a session called.
    pub(super) fn servers_of(&self, session: &str) -> Vec<String> {
        self.sessions.get(session).into_iter().flat_map(|it| it.servers.keys().cloned()).collect()
    }

    /// The client of a session that called a server, as it introduced itself.
    pub(super) fn client(&self, session: &str, server: &str) -> Option<Caller> {
        let it = self.sessions.get(session).filter(|it| it.servers.contains_key(server))?;
        Some(it.caller(session))
    }

    /// The sessions that use a server: those that ever called it, and lately something of this agent.
    pub(super) fn in_use(&self, server: &str, now: UnixTime) -> Vec<&str> {
        let is_used = |it: &Session| it.servers.contains_key(server) && now < it.seen + limits::SESSION_IN_USE;
        self.sessions.iter().filter(|(_, it)| is_used(it)).map(|(key, _)| key.as_str()).collect()
    }

    /// Sets what a session wants of a server's log; returns what it wanted before.
    pub(super) fn set_level(&mut self, session: &str, server: &str, level: Option<Level>) -> Option<Level> {
        let wish = self.wish_mut(session, server)?;
        let before = core::mem::replace(&mut wish.level, level);
        self.is_changed |= before != level;
        before
    }

    /// The most talkative level that a session wants; `only`: of this session alone.
    pub(super) fn lowest(&self, server: &str, only: Option<&str>) -> Option<Level> {
        self.of(server, only).filter_map(|(_, wish)| wish.level).min()
    }

    /// Whether a session wants to hear a log message of that level; what has no level it does.
    pub(super) fn hears(&self, session: &str, server: &str, level: Option<Level>) -> bool {
        let own = self.sessions.get(session).and_then(|it| it.servers.get(server)).and_then(|wish| wish.level);
        let least = own.or_else(|| self.lowest(server, None).map(|_| DEFAULT));
        level.zip(least).is_none_or(|(level, least)| level >= least)
    }

    /// Who hears a log message that belongs to no call; `None`: everyone, since nobody said what they want.
    pub(super) fn hearers(&self, server: &str, level: Option<Level>) -> Option<Vec<String>> {
        self.lowest(server, None)?;
        let hearers = self.of(server, None).map(|(session, _)| session);
        Some(hearers.filter(|session| self.hears(session, server, level)).map(ToString::to_string).collect())
    }

    /// A session watches a resource. Returns whether it did not before.
    pub(super) fn subscribe(&mut self, session: &str, server: &str, uri: &str) -> Result<bool, TooMany> {
        let watched = self.sessions.get(session).into_iter().flat_map(|it| it.servers.values());
        let watched: usize = watched.map(|wish| wish.uris.len()).sum();
        let Some(wish) = self.wish_mut(session, server) else { return Ok(false) };
        if wish.uris.contains(uri) {
            return Ok(false);
        }
        if watched >= limits::MAX_SUBSCRIPTIONS || uri.len() > limits::MAX_URI {
            return Err(TooMany);
        }
        wish.uris.insert(uri.to_string());
        self.is_changed = true;
        Ok(true)
    }

    /// A session does not watch a resource any more.
    pub(super) fn unsubscribe(&mut self, session: &str, server: &str, uri: &str) {
        if let Some(wish) = self.wish_mut(session, server) {
            let was_watched = wish.uris.remove(uri);
            self.is_changed |= was_watched;
        }
    }

    /// Whether a session watches this very resource; `but`: any other session.
    pub(super) fn is_watched(&self, server: &str, uri: &str, but: &str) -> bool {
        self.of(server, None).any(|(session, wish)| session != but && wish.uris.contains(uri))
    }

    /// What is watched of a server; `only`: by this session alone.
    pub(super) fn watched(&self, server: &str, only: Option<&str>) -> BTreeSet<String> {
        self.of(server, only).flat_map(|(_, wish)| wish.uris.iter().cloned()).collect()
    }

    /// The sessions that watch a resource, or what it is a part of: a server may name a part (2025-11-25, schema,
    /// `ResourceUpdatedNotification`: "might be a sub-resource").
    pub(super) fn watchers(&self, server: &str, uri: &str) -> Vec<String> {
        let is_part = |whole: &String| {
            uri.strip_prefix(whole.as_str())
                .is_some_and(|rest| rest.is_empty() || whole.ends_with('/') || rest.starts_with(['/', '?', '#']))
        };
        let watches = self.of(server, None).filter(|(_, wish)| wish.uris.iter().any(is_part));
        watches.map(|(session, _)| session.to_string()).collect()
    }

    fn wish_mut(&mut self, session: &str, server: &str) -> Option<&mut Wish> {
        self.sessions.get_mut(session)?.servers.get_mut(server)
    }

    fn of<'a>(&'a self, server: &'a str, only: Option<&'a str>) -> impl Iterator<Item = (&'a str, &'a Wish)> {
        let sessions = self.sessions.iter().filter(move |(session, _)| only.is_none_or(|only| only == *session));
        sessions.filter_map(move |(session, it)| Some((session.as_str(), it.servers.get(server)?)))
    }
}

impl Session {
    /// Whether no relay knows it any more, whenever it was begun.
    fn has_run_out(&self, now: UnixTime) -> bool {
        self.seen + limits::SESSION_LIFETIME <= now
    }

    fn caller(&self, key: &str) -> Caller {
        Caller {
            session: key.into(),
            actor: Arc::default(),
            client: self.client.clone(),
            version: self.version,
            capabilities: self.capabilities.clone(),
            is_reachable: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    fn level(text: &str) -> Option<Level> {
        Some(Level::parse(text).unwrap())
    }

    fn wishes(sessions: &[&str]) -> Wishes {
        let mut wishes = Wishes::default();
        sessions.iter().for_each(|session| touch(&mut wishes, session, 0));
        wishes
    }

    fn touch(wishes: &mut Wishes, session: &str, secs: u64) {
        let caller = Caller { session: session.into(), ..Caller::default() };
        wishes.touch(&caller, "s", UnixTime::from_secs(secs));
    }

    #[test]
    fn levels_are_ordered_by_severity() {
        assert!(level("debug") < level("info") && level("alert") < level("emergency"));
    }

    #[test]
    fn each_session_hears_what_it_wanted() {
        let mut wishes = wishes(&["a", "b", "c"]);
        assert_eq!(wishes.hearers("s", level("debug")), None, "nobody said anything");
        assert!(wishes.hears("a", "s", level("debug")));
        assert_eq!(wishes.set_level("a", "s", level("debug")), None);
        assert_eq!(wishes.set_level("b", "s", level("error")), None);
        let hearers = |text: &str| wishes.hearers("s", level(text)).unwrap().join("");
        assert_eq!((hearers("debug"), hearers("info"), hearers("error")), ("a".into(), "ac".into(), "abc".into()));
        assert_eq!(wishes.lowest("s", None), level("debug"));
        assert_eq!(wishes.lowest("s", Some("b")), level("error"));
        assert_eq!(wishes.lowest("other", None), None);
    }

    #[test]
    fn parts_of_what_is_watched_are_told_too() {
        let mut wishes = wishes(&["a", "b"]);
        assert_eq!(wishes.subscribe("a", "s", "test://dir"), Ok(true));
        assert_eq!(wishes.subscribe("a", "s", "test://dir"), Ok(false));
        assert_eq!(wishes.subscribe("b", "s", "test://dir/file"), Ok(true));
        let watchers = |uri: &str| wishes.watchers("s", uri).join("");
        assert_eq!(
            (watchers("test://dir/file"), watchers("test://dir"), watchers("test://directory"), watchers("test://")),
            ("ab".into(), "a".into(), String::new(), String::new())
        );
        assert!(wishes.is_watched("s", "test://dir", "b") && !wishes.is_watched("s", "test://dir", "a"));
        wishes.unsubscribe("a", "s", "test://dir");
        assert_eq!(wishes.watched("s", None).len(), 1);
    }

    #[test]
    fn sessions_and_subscriptions_are_bounded() {
        let mut wishes = wishes(&["first"]);
        for n in 0..limits::MAX_SUBSCRIPTIONS {
            assert_eq!(wishes.subscribe("first", "s", &format!("test://{n}")), Ok(true));
        }
        assert_eq!(wishes.subscribe("first", "s", "test://one-more"), Err(TooMany));
        assert_eq!(wishes.subscribe("first", "s", "test://0"), Ok(false));
        touch(&mut wishes, "second", 0);
        assert_eq!(wishes.subscribe("second", "s", &"x".repeat(limits::MAX_URI + 1)), Err(TooMany));
        for n in 2..limits::MAX_CLIENT_SESSIONS {
            touch(&mut wishes, &n.to_string(), 0);
        }
        touch(&mut wishes, "first", 0);
        touch(&mut wishes, "one more", 0);
        assert!(wishes.servers_of("second").is_empty(), "it called nothing for longest");
        assert_eq!(wishes.watched("s", Some("first")).len(), limits::MAX_SUBSCRIPTIONS);
        wishes.forget("first");
        assert!(wishes.servers_of("first").is_empty());
    }

    #[test]
    fn session_that_has_run_out_at_its_relay_makes_room() {
        let lifetime = limits::SESSION_LIFETIME.as_secs();
        let mut wishes = wishes(&["old"]);
        touch(&mut wishes, "young", 100);
        touch(&mut wishes, "young", 50);
        touch(&mut wishes, "new", lifetime + 99);
        assert!(wishes.servers_of("old").is_empty());
        assert!(!wishes.servers_of("young").is_empty());
        touch(&mut wishes, "newer", lifetime + 100);
        assert!(wishes.servers_of("young").is_empty());
    }
}
