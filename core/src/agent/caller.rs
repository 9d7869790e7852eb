//! Who a call is for, as its relay tells: what decides whom a server's questions go to, and how much room it has.

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use bytes::Bytes;

use super::bridge::Era;
use super::server::people;
use crate::limits;
use crate::mcp::{Version, method};
use crate::rpc::object;
use crate::tunnel::OpenHead;

/// A client that calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// The key of its session; empty when there is none.
    pub(super) session: Arc<str>,
    /// Who acts, as the relay knows them; empty: it does not say.
    pub(super) actor: Arc<str>,
    /// What it calls itself; empty: nothing.
    pub(super) client: Arc<str>,
    /// What it speaks, as far as that is known here.
    pub(super) version: Option<Version>,
    /// The raw object that it declared in its handshake; empty when there was none.
    pub(super) capabilities: Bytes,
    /// Whether its tunnel carries what a server asks it, and what it answers.
    pub(super) is_reachable: bool,
}

/// The caller that was told of last. The next is mostly the same, and is known by the texts that it shares with it.
#[derive(Debug, Default)]
pub(super) struct LastCaller(Option<(OpenHead, Caller)>);

impl LastCaller {
    /// The same as [`Caller::of`].
    pub(super) fn of(&mut self, head: &OpenHead, is_reachable: bool) -> Caller {
        let is_same = |(last, caller): &&(OpenHead, Caller)| {
            let client = match (&last.client, &head.client) {
                (Some(last), Some(client)) => Arc::ptr_eq(last, client),
                (last, client) => last == client,
            };
            client
                && Arc::ptr_eq(&last.actor, &head.actor)
                && Arc::ptr_eq(&last.session, &head.session)
                && Arc::ptr_eq(&last.capabilities, &head.capabilities)
                && last.version == head.version
                && caller.is_reachable == is_reachable
        };
        if let Some((_, caller)) = self.0.as_ref().filter(is_same) {
            return caller.clone();
        }
        let caller = Caller::of(head, is_reachable);
        self.0 = Some((head.clone(), caller.clone()));
        caller
    }
}

impl Caller {
    pub(super) fn of(head: &OpenHead, is_reachable: bool) -> Self {
        let capabilities = head.capabilities.as_bytes();
        // What goes into a server's handshake as it is must be an object.
        let is_object = capabilities.len() <= limits::MAX_SESSION_ID && object::each(capabilities, |_, _| {}).is_ok();
        Self {
            session: head.session.clone(),
            actor: people(&head.actor, limits::MAX_QUOTE).into(),
            client: people(head.client.as_deref().unwrap_or_default(), limits::MAX_CLIENT_NAME).into(),
            version: head.version.as_deref().and_then(Version::parse),
            capabilities: if is_object { Bytes::copy_from_slice(capabilities) } else { Bytes::new() },
            is_reachable,
        }
    }

    /// Whose calls share what one may have under way.
    pub(super) fn key(&self) -> (&str, &str) {
        if self.session.is_empty() { ("", &self.actor) } else { (&self.session, "") }
    }

    /// Whether both are surely one client: of one session, or, in the modern era, which has none, of one actor.
    pub(super) fn is_same_client(&self, other: &Self) -> bool {
        let is_known = match self.session.is_empty() {
            true => self.era() == Era::Modern && other.era() == Era::Modern && !self.actor.is_empty(),
            false => true,
        };
        is_known && self.key() == other.key()
    }

    /// Name and version of its program. A relay tells both in one text; a version begins with a number.
    pub(super) fn name_and_version(&self) -> (String, String) {
        let is_version = |text: &str| text.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit());
        match self.client.rsplit_once(' ').filter(|(_, version)| is_version(version)) {
            Some((name, version)) => (name.to_string(), version.to_string()),
            None => (self.client.to_string(), "0".to_string()),
        }
    }

    /// Whether it declared that it can be asked this (2025-11-25, Lifecycle, Capability Negotiation: both parties MUST
    /// only use what was negotiated). What the protocol has no word for it can answer for itself.
    pub(super) fn declares(&self, method: &str, params: &Bytes) -> bool {
        let has = |path: &[&str]| object::get_path(&self.capabilities, path).is_some_and(|raw| raw.starts_with(b"{"));
        let asks = |key: &str| object::get(params, key).is_some_and(|raw| *raw != *b"null");
        match method {
            // Client Features, Sampling, Capabilities: `tools` is declared by itself.
            method::SAMPLING if asks("tools") || asks("toolChoice") => has(&["sampling", "tools"]),
            method::SAMPLING => has(&["sampling"]),
            // Client Features, Elicitation, Capabilities: none of the modes means `form`.
            method::ELICITATION => match object::get(params, "mode") {
                Some(mode) if *mode == *b"\"url\"" => has(&["elicitation", "url"]),
                _ => has(&["elicitation", "form"]) || (has(&["elicitation"]) && !has(&["elicitation", "url"])),
            },
            method::ROOTS_LIST => has(&["roots"]),
            method::TASKS_GET | method::TASKS_RESULT | method::TASKS_LIST | method::TASKS_CANCEL => has(&["tasks"]),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(client: &str, capabilities: &str) -> Caller {
        let head = OpenHead { client: Some(client.into()), capabilities: capabilities.into(), ..Default::default() };
        Caller::of(&head, true)
    }

    #[test]
    fn client_is_asked_only_what_it_declared() {
        let (url, form, tools) = (r#"{"mode":"url"}"#, r#"{"mode":"form"}"#, r#"{"tools":[]}"#);
        for (capabilities, method, params, declares) in [
            ("", method::ROOTS_LIST, "", false),
            ("{}", method::ROOTS_LIST, "", false),
            (r#"{"roots":{}}"#, method::ROOTS_LIST, "", true),
            (r#"{"roots":null}"#, method::ROOTS_LIST, "", false),
            (r#"{"roots":{}}"#, method::SAMPLING, "{}", false),
            (r#"{"sampling":{}}"#, method::SAMPLING, r#"{"tools":null}"#, true),
            (r#"{"sampling":{}}"#, method::SAMPLING, tools, false),
            (r#"{"sampling":{"tools":{}}}"#, method::SAMPLING, tools, true),
            (r#"{"elicitation":{}}"#, method::ELICITATION, "{}", true),
            (r#"{"elicitation":{}}"#, method::ELICITATION, form, true),
            (r#"{"elicitation":{}}"#, method::ELICITATION, url, false),
            (r#"{"elicitation":{"url":{}}}"#, method::ELICITATION, form, false),
            (r#"{"elicitation":{"url":{}}}"#, method::ELICITATION, url, true),
            (r#"{"elicitation":{"url":{},"form":{}}}"#, method::ELICITATION, form, true),
            ("{}", method::TASKS_GET, "{}", false),
            ("{}", "vendor/question", "{}", true),
        ] {
            let params = Bytes::copy_from_slice(params.as_bytes());
            assert_eq!(caller("", capabilities).declares(method, &params), declares, "{capabilities} {method}");
        }
    }

    #[test]
    fn caller_after_another_is_made_as_if_it_came_alone() {
        let head = OpenHead {
            client: Some("Cursor 1".into()),
            actor: "mlt_c_1".into(),
            session: "s".into(),
            capabilities: "{}".into(),
            version: Some("2025-11-25".into()),
            ..Default::default()
        };
        let heads = [
            head.clone(),
            OpenHead { length: 7, method: "tools/call".into(), server: "files".into(), ..head.clone() },
            OpenHead { client: None, ..head.clone() },
            OpenHead { client: Some("Cursor 2".into()), ..head.clone() },
            OpenHead { actor: "mlt_c_2".into(), ..head.clone() },
            OpenHead { session: "t".into(), ..head.clone() },
            OpenHead { capabilities: "{\"roots\":{}}".into(), ..head.clone() },
            OpenHead { version: Some("2025-06-18".into()), ..head },
        ];
        let mut last = LastCaller::default();
        for one in &heads {
            for other in &heads {
                for (head, is_reachable) in [(one, true), (other, true), (other, false)] {
                    assert_eq!(last.of(head, is_reachable), Caller::of(head, is_reachable));
                }
            }
        }
    }

    #[test]
    fn capabilities_that_are_no_object_are_none() {
        for capabilities in ["[]", "{", "{}}", &alloc::format!("{{\"x\":\"{}\"}}", "x".repeat(2_000))] {
            assert!(caller("", capabilities).capabilities.is_empty(), "{capabilities}");
        }
    }

    #[test]
    fn name_and_version_are_told_apart() {
        for (client, name, version) in [
            ("Cursor 1.2", "Cursor", "1.2"),
            ("Claude Code", "Claude Code", "0"),
            ("a b v3", "a b", "v3"),
            ("", "", "0"),
        ] {
            assert_eq!(caller(client, "").name_and_version(), (name.to_string(), version.to_string()));
        }
    }
}
