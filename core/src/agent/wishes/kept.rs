//! What sessions want to hear, as it is kept on disk.
//!
//! The key of a session stands there as it is: it names a session to relay and agent, and opens none. A client has to
//! show the whole sealed session, which the agent never sees.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{Level, Session, Wish, Wishes};
use crate::limits;
use crate::mcp::Version;
use crate::rpc::object::Object;
use crate::time::UnixTime;

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    /// Whose sessions these are: another relay knows none of them.
    relay: Cow<'a, str>,
    /// Who called last comes first.
    #[serde(borrow)]
    sessions: Vec<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
struct KeptSession {
    key: String,
    /// When it called the last time, as far as that was kept: seconds.
    seen: u64,
    #[serde(default)]
    client: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    capabilities: String,
    servers: BTreeMap<String, KeptWish>,
}

#[derive(Serialize, Deserialize)]
struct KeptWish {
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    uris: BTreeSet<String>,
}

impl Wishes {
    /// Whether it is not what was kept last.
    pub(in crate::agent) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// What is to be kept of it now.
    pub(in crate::agent) fn keep(&mut self, relay: &str, now: UnixTime) -> Bytes {
        self.is_changed = false;
        let mut newest: Vec<_> = self.sessions.iter().filter(|(_, it)| !it.has_run_out(now)).collect();
        newest.sort_by_key(|(_, it)| core::cmp::Reverse(it.last_use));
        let mut left = limits::MAX_KEPT_WISHES.saturating_sub(relay.len() + ROOM_AROUND);
        let mut raws: Vec<Box<RawValue>> = Vec::new();
        for (key, session) in newest {
            let raw = to_raw_value(&session.to_kept(key)).expect("texts and numbers always serialise");
            let Some(rest) = left.checked_sub(raw.get().len() + 1) else { break };
            left = rest;
            raws.push(raw);
        }
        let kept = Kept { relay: Cow::Borrowed(relay), sessions: raws.iter().map(|raw| &**raw).collect() };
        Bytes::from(serde_json::to_vec(&kept).expect("texts and numbers always serialise"))
    }

    /// What was kept, without what is of no use any more, or for a server that `is_known` does not know.
    pub(in crate::agent) fn recall(
        json: &[u8],
        relay: &str,
        now: UnixTime,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, &'static str> {
        if json.len() > limits::MAX_KEPT_WISHES {
            return Err("it is too large");
        }
        let kept: Kept<'_> = serde_json::from_slice(json).map_err(|_| "it is not what this program writes")?;
        let mut wishes = Self::default();
        if kept.relay != relay {
            return Ok(wishes);
        }
        for raw in kept.sessions.into_iter().take(limits::MAX_CLIENT_SESSIONS).rev() {
            let kept: KeptSession =
                serde_json::from_str(raw.get()).map_err(|_| "a session in it is not what this program writes")?;
            let key = kept.key.clone();
            let session = Session::of_kept(kept, &is_known);
            if key.is_empty() || key.len() > limits::MAX_SESSION_KEY || session.has_run_out(now) {
                continue;
            }
            wishes.uses += 1;
            wishes.sessions.insert(key, Session { last_use: wishes.uses, ..session });
        }
        Ok(wishes)
    }

    /// The servers of which somebody watches something.
    pub(in crate::agent) fn watched_servers(&self) -> BTreeSet<String> {
        let servers = self.sessions.values().flat_map(|it| &it.servers);
        servers.filter(|(_, wish)| !wish.uris.is_empty()).map(|(name, _)| name.clone()).collect()
    }
}

impl Session {
    fn to_kept(&self, key: &str) -> KeptSession {
        let wish = |wish: &Wish| KeptWish {
            level: wish.level.map(|level| level.as_str().to_string()),
            uris: wish.uris.clone(),
        };
        KeptSession {
            key: key.to_string(),
            seen: self.seen.as_secs(),
            client: self.client.to_string(),
            version: self.version.map(|version| version.as_str().to_string()).unwrap_or_default(),
            capabilities: core::str::from_utf8(&self.capabilities).unwrap_or_default().to_owned(),
            servers: self.servers.iter().map(|(name, it)| (name.clone(), wish(it))).collect(),
        }
    }

    fn of_kept(kept: KeptSession, is_known: impl Fn(&str) -> bool) -> Self {
        let mut room = limits::MAX_SUBSCRIPTIONS;
        let mut wish = |kept: KeptWish| {
            let uris = kept.uris.into_iter().filter(|uri| uri.len() <= limits::MAX_URI).take(room);
            let uris: BTreeSet<String> = uris.collect();
            room -= uris.len();
            Wish { level: kept.level.and_then(|level| Level::parse(&level)), uris }
        };
        let servers = kept.servers.into_iter().filter(|(name, _)| is_known(name));
        let servers = servers.map(|(name, it)| (name, wish(it))).collect();
        let capabilities = Bytes::from(kept.capabilities);
        let is_object = Object::parse(&capabilities).is_ok();
        Self {
            last_use: 0,
            seen: UnixTime::from_secs(kept.seen),
            client: kept.client.into(),
            version: Version::parse(&kept.version),
            capabilities: if is_object { capabilities } else { Bytes::new() },
            servers,
        }
    }
}

/// Braces, names and the quotes of what stands around the sessions; a relay's URL needs no escapes.
const ROOM_AROUND: usize = 64;

#[cfg(test)]
mod tests {
    use std::format;

    use proptest::prelude::*;

    use super::*;
    use crate::agent::caller::Caller;

    const RELAY: &str = "https://relay.example";

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    fn caller(session: &str) -> Caller {
        Caller {
            session: session.into(),
            client: "Client 1".into(),
            version: Version::parse("2025-06-18"),
            capabilities: Bytes::from_static(br#"{"roots":{"x":1.0}}"#),
            ..Caller::default()
        }
    }

    fn wishes() -> Wishes {
        let mut wishes = Wishes::default();
        for (session, secs) in [("one", 100), ("two", 200)] {
            wishes.touch(&caller(session), "s", at(secs));
        }
        wishes.touch(&caller("two"), "other", at(200));
        assert_eq!(wishes.set_level("one", "s", Level::parse("debug")), None);
        assert_eq!(wishes.subscribe("two", "s", "test://x"), Ok(true));
        wishes
    }

    fn recall(json: &[u8], now: u64) -> Result<Wishes, &'static str> {
        Wishes::recall(json, RELAY, at(now), |name| name == "s")
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let mut wishes = wishes();
        assert!(wishes.is_changed());
        let json = wishes.keep(RELAY, at(200));
        assert!(!wishes.is_changed());
        let mut back = recall(&json, 300).expect("it was written here");
        assert_eq!(back.lowest("s", Some("one")), Level::parse("debug"));
        assert_eq!(back.watchers("s", "test://x"), ["two"]);
        assert_eq!(back.watched_servers(), ["s".to_string()].into());
        assert_eq!(back.servers_of("two"), ["s"], "the other server has no entry any more");
        let watching = back.watching("s");
        assert_eq!(watching, [Caller { is_reachable: true, ..caller("two") }]);
        for n in 0..limits::MAX_CLIENT_SESSIONS - 1 {
            back.touch(&caller(&n.to_string()), "s", at(300));
        }
        assert!(back.servers_of("one").is_empty() && !back.servers_of("two").is_empty(), "who called last stays");
    }

    #[test]
    fn every_change_is_one_that_has_to_be_kept_and_nothing_else_is() {
        let mut wishes = wishes();
        let mut changes = |change: &dyn Fn(&mut Wishes)| {
            wishes.keep(RELAY, at(200));
            change(&mut wishes);
            wishes.is_changed()
        };
        let (debug, error) = (Level::parse("debug"), Level::parse("error"));
        assert!(!changes(&|it| it.touch(&caller("one"), "s", at(300))));
        assert!(!changes(&|it| {
            it.set_level("one", "s", debug);
        }));
        assert!(!changes(&|it| drop(it.subscribe("two", "s", "test://x"))));
        assert!(!changes(&|it| it.unsubscribe("one", "s", "test://x")));
        assert!(!changes(&|it| it.forget("three")));
        assert!(!changes(&|it| it.forget_server("third")));
        assert!(changes(&|it| {
            it.set_level("one", "s", error);
        }));
        assert!(changes(&|it| drop(it.subscribe("one", "s", "test://x"))));
        assert!(changes(&|it| it.unsubscribe("one", "s", "test://x")));
        assert!(changes(&|it| it.touch(&caller("one"), "other", at(300))));
        assert!(changes(&|it| it.forget_server("other")));
        assert!(changes(&|it| it.forget("one")));
    }

    #[test]
    fn session_that_has_run_out_is_not_taken_over() {
        let json = wishes().keep(RELAY, at(200));
        let lifetime = limits::SESSION_LIFETIME.as_secs();
        for (now, left) in [(lifetime + 99, 2), (lifetime + 100, 1), (lifetime + 200, 0)] {
            assert_eq!(recall(&json, now).expect("it was written here").sessions.len(), left);
        }
        let kept_later = wishes().keep(RELAY, at(lifetime + 100));
        assert_eq!(recall(&kept_later, 0).expect("it was written here").sessions.len(), 1);
    }

    #[test]
    fn sessions_of_another_relay_are_not_taken_over() {
        let json = wishes().keep("https://other.example", at(200));
        assert!(recall(&json, 200).expect("it was written here").sessions.is_empty());
    }

    #[test]
    fn garbage_is_refused_and_never_taken_in_part() {
        let key = r#"{"key":"k","seen":1,"servers":{"s":{"uris":["u"]}}}"#;
        let fine = format!(r#"{{"relay":"{RELAY}","sessions":[{key}]}}"#);
        assert_eq!(recall(fine.as_bytes(), 1).expect("as little as it needs").watchers("s", "u"), ["k"]);
        for bad in [
            "",
            "{",
            "[]",
            "null",
            &format!(r#"{{"relay":"{RELAY}","sessions":{{}}}}"#),
            &format!(r#"{{"relay":"{RELAY}","sessions":[{key},7]}}"#),
            &format!(r#"{{"relay":"{RELAY}","sessions":[{key},{{"key":"k","seen":-1,"servers":{{}}}}]}}"#),
            &format!("{fine}{}", " ".repeat(limits::MAX_KEPT_WISHES)),
        ] {
            assert!(recall(bad.as_bytes(), 1).is_err(), "{}", &bad[..bad.len().min(100)]);
        }
    }

    #[test]
    fn what_is_over_a_bound_is_left_out() {
        let uris: Vec<String> = (0..=limits::MAX_SUBSCRIPTIONS).map(|n| format!("test://{n}")).collect();
        let long = "x".repeat(limits::MAX_URI + 1);
        let session = |key: &str, uris: &[String]| {
            let wish = serde_json::json!({"level": "loud", "uris": uris});
            serde_json::json!({"key": key, "seen": 1, "servers": {"s": wish}, "capabilities": "{}}"})
        };
        let others = (0..=limits::MAX_CLIENT_SESSIONS).map(|n| session(&n.to_string(), &[]));
        let first = [session("many", &uris), session("long", &[long]), session(&"k".repeat(129), &[])];
        let sessions: Vec<_> = first.into_iter().chain(others).collect();
        let json = serde_json::json!({"relay": RELAY, "sessions": sessions}).to_string();
        let back = recall(json.as_bytes(), 1).expect("it is well formed");
        assert_eq!(back.watched("s", Some("many")).len(), limits::MAX_SUBSCRIPTIONS);
        assert!(back.watched("s", Some("long")).is_empty());
        assert_eq!(back.sessions.len(), limits::MAX_CLIENT_SESSIONS - 1);
        assert_eq!((back.lowest("s", None), back.sessions["many"].capabilities.len()), (None, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let mut wishes = Wishes::default();
        let long = "x".repeat(limits::MAX_URI - 10);
        for session in 0..8 {
            wishes.touch(&caller(&session.to_string()), "s", at(1));
            for n in 0..limits::MAX_SUBSCRIPTIONS {
                assert_eq!(wishes.subscribe(&session.to_string(), "s", &format!("{n}{long}")), Ok(true));
            }
        }
        let json = wishes.keep(RELAY, at(1));
        assert!(json.len() <= limits::MAX_KEPT_WISHES && json.len() > limits::MAX_KEPT_WISHES / 2);
        let back = recall(&json, 1).expect("it was written here");
        let keys: Vec<&str> = back.sessions.keys().map(String::as_str).collect();
        assert_eq!(keys, ["4", "5", "6", "7"]);
    }

    /// What a session may do, with whom, and what it is about.
    fn deeds() -> impl Strategy<Value = Vec<(u8, String, String, String)>> {
        prop::collection::vec((0..5_u8, "[a-c\"\u{e9}]{1,2}", "[st]", "[ -~\u{e9}\u{1f980}]{0,6}"), 0..40)
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_comes_back_as_it_was(deeds in deeds()) {
            let mut wishes = Wishes::default();
            let levels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
            for (deed, session, server, text) in &deeds {
                match deed {
                    0 => wishes.touch(&caller(session), server, at(100)),
                    1 => drop(wishes.set_level(session, server, Level::parse(levels[text.len() % levels.len()]))),
                    2 => drop(wishes.subscribe(session, server, text)),
                    3 => wishes.unsubscribe(session, server, text),
                    _ if text.is_empty() => wishes.forget(session),
                    _ => wishes.touch(&caller(session), server, at(200)),
                }
            }
            let json = wishes.keep(RELAY, at(300));
            let mut back = Wishes::recall(&json, RELAY, at(300), |_| true).expect("it was written here");
            prop_assert!(!back.is_changed(), "nothing of it has to be kept anew");
            prop_assert_eq!(&back.keep(RELAY, at(300)), &json, "and kept again it is the same");
            for server in ["s", "t"] {
                prop_assert_eq!(back.watching(server), wishes.watching(server));
                for session in wishes.sessions.keys() {
                    prop_assert_eq!(back.lowest(server, Some(session)), wishes.lowest(server, Some(session)));
                    prop_assert_eq!(back.watched(server, Some(session)), wishes.watched(server, Some(session)));
                    prop_assert_eq!(back.client(session, server), wishes.client(session, server));
                }
            }
        }

        #[test]
        fn no_file_is_too_strange_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200), at_byte: prop::sample::Index) {
            let _ = recall(&bytes, 1);
            let mut json = wishes().keep(RELAY, at(200)).to_vec();
            let at_byte = at_byte.index(json.len());
            json.splice(at_byte..=at_byte, bytes);
            if let Ok(mut back) = recall(&json, 200) {
                prop_assert!(back.keep(RELAY, at(200)).len() <= limits::MAX_KEPT_WISHES);
            }
        }
    }
}
