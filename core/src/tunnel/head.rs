//! The head of a call. Each call has one, so it is written and read by hand here, in a third of the time.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::mcp::Version;
use crate::rpc::{self, object, put_quoted};

/// The head of a call, as the relay opens it (frame `Open`): a JSON object of the members that are not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenHead {
    /// The local server's name, as its catalog has it.
    pub server: Arc<str>,
    /// The MCP method, `tools/call` for one.
    pub method: Arc<str>,
    /// The protocol version that the client speaks.
    pub version: Option<Cow<'static, str>>,
    /// What the client calls itself, for people.
    pub client: Option<Arc<str>>,
    /// Who acts, for policy and audit: the relay's name for the OAuth client, or for the token that its operator made.
    pub actor: Arc<str>,
    /// A stable, opaque key of the client's session; empty when there is none.
    pub session: Arc<str>,
    /// The raw `capabilities` that the client declared in its handshake; empty when there was none (from 2026-07-28 on
    /// each request's `_meta` has them).
    pub capabilities: Arc<str>,
    /// How many bytes of params follow.
    pub length: u64,
}

impl OpenHead {
    /// Writes it as JSON.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let Self { server, method, version, client, actor, session, capabilities, length } = self;
        let members = [
            (&b"{\"server\":"[..], Some(&**server)),
            (b",\"method\":", Some(method)),
            (b",\"version\":", version.as_deref()),
            (b",\"client\":", client.as_deref()),
            (b",\"actor\":", Some(&**actor).filter(|text| !text.is_empty())),
            (b",\"session\":", Some(&**session).filter(|text| !text.is_empty())),
            (b",\"capabilities\":", Some(&**capabilities).filter(|text| !text.is_empty())),
        ];
        for (key, text) in members {
            if let Some(text) = text {
                out.extend_from_slice(key);
                put_quoted(out, text);
            }
        }
        out.extend_from_slice(b",\"length\":");
        out.extend_from_slice(itoa::Buffer::new().format(*length).as_bytes());
        out.push(b'}');
    }

    /// Its JSON.
    pub(super) fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads what [`put`](Self::put) wrote, its members in any order and beside others; none may be there twice.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let mut members = [None; 8];
        let mut is_sound = true;
        object::each(json, |key, value| {
            if let Some(at) = place(key) {
                is_sound &= members.get_mut(at).is_some_and(|member: &mut Option<_>| member.replace(value).is_none());
            }
        })
        .ok()?;
        let [server, method, version, client, actor, session, capabilities, length] = members;
        let some = |raw: Option<&[u8]>| match raw {
            None | Some(b"null") => Some(None),
            Some(raw) => rpc::string(raw).map(|text| Some(Arc::from(&*text))),
        };
        let text = |raw: Option<&[u8]>| {
            raw.map_or_else(|| Some(Arc::default()), |raw| rpc::string(raw).map(|text| Arc::from(&*text)))
        };
        let head = Self {
            server: text(Some(server?))?,
            method: text(Some(method?))?,
            version: match version {
                None | Some(b"null") => None,
                Some(raw) => Some(known(rpc::string(raw)?)),
            },
            client: some(client)?,
            actor: text(actor)?,
            session: text(session)?,
            capabilities: text(capabilities)?,
            length: core::str::from_utf8(length?).ok()?.parse().ok()?,
        };
        is_sound.then_some(head)
    }
}

/// The head that was read last. The next is mostly the same client's to the same server, and differs in its length alone:
/// then it need not be read again, and shares its texts.
#[derive(Debug, Default)]
pub(super) struct LastHead(Option<Box<Last>>);

#[derive(Debug)]
struct Last {
    /// Its JSON up to the length.
    text: Vec<u8>,
    head: OpenHead,
}

impl LastHead {
    /// The same as [`OpenHead::read`].
    pub(super) fn read(&mut self, json: &[u8]) -> Option<OpenHead> {
        let Some((text, length)) = apart(json) else { return OpenHead::read(json) };
        if let Some(last) = self.0.as_ref().filter(|last| last.text == text) {
            return Some(OpenHead { length, ..last.head.clone() });
        }
        let head = OpenHead::read(json)?;
        self.0 = Some(Box::new(Last { text: text.to_vec(), head: head.clone() }));
        Some(head)
    }
}

/// A head as [`OpenHead::put`] writes it, taken apart: what is before its length, and that. What was read once before one
/// length is as sound before any other.
fn apart(json: &[u8]) -> Option<(&[u8], u64)> {
    let open = json.strip_suffix(b"}")?;
    let (text, digits) = open.split_at(open.iter().rposition(|byte| !byte.is_ascii_digit())? + 1);
    let length = core::str::from_utf8(digits).ok()?.parse().ok()?;
    let is_plain = text.ends_with(b",\"length\":") && (digits.len() == 1 || !digits.starts_with(b"0"));
    is_plain.then_some((text, length))
}

/// A version's name, without a copy where it is one that is known.
fn known(name: Cow<'_, str>) -> Cow<'static, str> {
    Version::parse(&name).map_or_else(|| Cow::Owned(name.into_owned()), |version| Cow::Borrowed(version.as_str()))
}

/// Which member a raw key is, in whatever spelling.
fn place(key: &[u8]) -> Option<usize> {
    let [b'"', name @ .., b'"'] = key else { return None };
    named(name).or_else(|| if name.contains(&b'\\') { named(rpc::string(key)?.as_bytes()) } else { None })
}

fn named(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"server" => 0,
        b"method" => 1,
        b"version" => 2,
        b"client" => 3,
        b"actor" => 4,
        b"session" => 5,
        b"capabilities" => 6,
        b"length" => 7,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// The same by serde.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Derived {
        server: String,
        method: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        actor: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        session: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        capabilities: String,
        length: u64,
    }

    impl From<OpenHead> for Derived {
        fn from(head: OpenHead) -> Self {
            Self {
                server: head.server.to_string(),
                method: head.method.to_string(),
                version: head.version.map(|text| text.to_string()),
                client: head.client.map(|text| text.to_string()),
                actor: head.actor.to_string(),
                session: head.session.to_string(),
                capabilities: head.capabilities.to_string(),
                length: head.length,
            }
        }
    }

    fn head() -> impl Strategy<Value = OpenHead> {
        let version = prop_oneof![Just(None), Just(Some("2025-11-25".into())), any::<String>().prop_map(Some)];
        (any::<[String; 5]>(), version, any::<Option<String>>(), any::<u64>()).prop_map(
            |([server, method, actor, session, capabilities], version, client, length)| OpenHead {
                server: server.into(),
                method: method.into(),
                version: version.map(Cow::Owned),
                client: client.map(Into::into),
                actor: actor.into(),
                session: session.into(),
                capabilities: capabilities.into(),
                length,
            },
        )
    }

    #[test]
    fn head_is_read_alike_whatever_was_read_before() {
        let mut last = LastHead::default();
        for end in [r#""length":5}"#, r#""length":7}"#, r#""length":05}"#, r#""length":0}"#, r#""length":5,"x":1}"#] {
            let json = format!(r#"{{"server":"a","method":"b",{end}"#);
            let other = json.replace('1', "2");
            for json in [&json, &other, &json] {
                assert_eq!(last.read(json.as_bytes()), OpenHead::read(json.as_bytes()), "{json}");
            }
        }
    }

    proptest! {
        #[test]
        fn heads_are_written_as_serde_writes_them_and_read_back(head in head()) {
            let json = head.written();
            prop_assert_eq!(OpenHead::read(&json), Some(head.clone()));
            prop_assert!(apart(&json).is_some_and(|(_, length)| length == head.length));
            prop_assert_eq!(json, serde_json::to_vec(&Derived::from(head)).unwrap());
        }

        #[test]
        fn what_serde_reads_is_read_and_nothing_else(
            members in prop::collection::vec(
                (
                    prop::sample::select(&[
                        "server", "method", "version", "client", "actor", "session", "capabilities", "length", "more",
                        "\\u0073erver", "len\\u0067th",
                    ][..]),
                    prop::sample::select(&[
                        "\"\"", "\"a\"", "\"a\\n\\u00e9\"", "\"\\ud800\"", "null", "7", "-0", "7.0", "1e2", "[]", "{\"a\":1}", "true",
                        "18446744073709551615", "18446744073709551616",
                    ][..]),
                ),
                0..6,
            ),
            is_whole in any::<bool>(),
        ) {
            let given = members.iter().map(|(key, value)| std::format!("\"{key}\": {value}"));
            let needed = ["\"server\":\"s\"", "\"method\":\"m\"", "\"length\":1"].map(String::from);
            let all: Vec<_> = needed.into_iter().filter(|_| is_whole).chain(given).collect();
            let json = std::format!("{{{}}}", all.join(","));
            let derived: Option<Derived> = serde_json::from_str(&json).ok();
            prop_assert_eq!(OpenHead::read(json.as_bytes()).map(Derived::from), derived, "{}", json);
        }

        #[test]
        fn head_after_another_is_read_as_if_it_came_alone(
            heads in prop::collection::vec(
                (
                    prop::sample::select(&[
                        "{\"server\":\"a\",\"method\":\"m\"", "{\"server\":\"b\",\"method\":\"m\",\"actor\":\"\u{e9}\"", "{\"server\":\"a\"",
                        "{\"server\":\"a\",\"method\":\"m\",\"length\":1", "{\"server\":\"a\",\"method\":\"m\",\"more\":{\"x\":1", "{\"x\":\"",
                    ][..]),
                    prop::sample::select(&[",\"length\":", ", \"length\":", ",\"length\": ", ",\"lengths\":", ",\\\"length\":"][..]),
                    prop::sample::select(&["0", "7", "12", "007", "-1", "1.0", "", "18446744073709551615", "18446744073709551616"][..]),
                    prop::sample::select(&["}", "}", "}}", " }", "", "\"}"][..]),
                ),
                0..12,
            ),
        ) {
            let mut last = LastHead::default();
            for (text, key, length, end) in heads {
                let json = [text, key, length, end].concat();
                prop_assert_eq!(last.read(json.as_bytes()), OpenHead::read(json.as_bytes()), "{}", json);
            }
        }
    }
}
