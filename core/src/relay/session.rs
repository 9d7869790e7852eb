//! The sealed `Mcp-Session-Id`: all that the relay would have to remember of a session, kept by the client.
//!
//! A session outlives the relay's process, and needs no memory until it is ended. It opens only for the user and the
//! client that it was made for: both are the context of its seal. Ids are visible ASCII, as 2025-11-25 (Transports,
//! Session Management) asks.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, sync::Arc};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::catalog::printable;
use super::{Session, SessionKey};
use crate::entropy::{self, Entropy};
use crate::limits;
use crate::mcp::Version;
use crate::oauth::{Principal, Snapshot};
use crate::rpc::{self, object};
use crate::seal::{Memo, Purpose, Sealer};
use crate::sse::one_line;
use crate::time::{Now, UnixTime};

/// Begins a session as the params of `initialize` ask, for `principal`.
pub(super) fn begin(params: &Bytes, now: Now, entropy: &mut dyn Entropy) -> Session {
    let nonce: [u8; 16] = entropy::bytes(entropy);
    let asked = object::get(params, "protocolVersion").unwrap_or_default();
    Session {
        key: SessionKey(Arc::from(URL_SAFE_NO_PAD.encode(nonce))),
        version: negotiate(&rpc::string(&asked).unwrap_or_default()),
        client: Arc::from(client_name(&object::get(params, "clientInfo").unwrap_or_default())),
        capabilities: Arc::from(declared(params)),
        expires: now.unix + limits::SESSION_LIFETIME,
    }
}

/// What a client calls itself in its raw `clientInfo`: name and version, capped.
pub(super) fn client_name(info: &Bytes) -> String {
    let text = |key| {
        let raw = object::get(info, key).unwrap_or_default();
        rpc::string(&raw).map(|text| text.into_owned()).unwrap_or_default()
    };
    printable(format!("{} {}", text("name"), text("version")).trim(), limits::MAX_CLIENT_NAME)
}

/// Seals a session into an id of at most [`limits::MAX_SESSION_ID`] bytes.
pub(super) fn seal(sealer: &Sealer, session: &Session, principal: &Principal, entropy: &mut dyn Entropy) -> String {
    let plain = serde_json::to_vec(&Sealed {
        key: session.key.0.to_string(),
        version: session.version.as_str().to_string(),
        client: session.client.to_string(),
        capabilities: session.capabilities.to_string(),
        expires: session.expires.as_millis(),
    })
    .expect("strings and numbers always serialise");
    sealer.seal(Purpose::Session, &context(principal), &plain, entropy)
}

/// The session of that id; `None` when it is nobody's, another's, ended, or has run out: a client begins a new one then.
/// `memo`: the last one that was asked for there.
pub(super) fn open(
    id: &str,
    principal: &Arc<Principal>,
    snapshot: &Snapshot,
    now: Now,
    memo: &mut Memo<Arc<Session>, Arc<Principal>>,
) -> Option<Arc<Session>> {
    if id.len() > limits::MAX_SESSION_ID {
        return None;
    }
    let read = || read(id, &context(principal), &snapshot.sealer).map(Arc::new);
    let session = memo.recall(&snapshot.sealer, principal, id, read)?;
    (now.unix < session.expires && !snapshot.ended_sessions.contains_key(&session.key)).then_some(session)
}

fn read(id: &str, context: &[u8], sealer: &Sealer) -> Option<Session> {
    let plain = sealer.open(Purpose::Session, context, id).ok()?;
    let sealed: Sealed = serde_json::from_slice(&plain).ok()?;
    Some(Session {
        key: SessionKey(Arc::from(sealed.key)),
        version: Version::parse(&sealed.version)?,
        client: Arc::from(sealed.client),
        capabilities: Arc::from(sealed.capabilities),
        expires: UnixTime::from_millis(sealed.expires),
    })
}

/// The version that answers the one that a client asks for: the same if it has a handshake, else the latest that has
/// (2025-11-25, Lifecycle, Version Negotiation).
fn negotiate(asked: &str) -> Version {
    Version::parse(asked).filter(|version| version.is_legacy()).unwrap_or(Version::LATEST_LEGACY)
}

/// What a client declared in `initialize` that it can be asked for: its raw JSON, if that is not too long to be sealed. Of
/// a longer one those members are kept that the protocol has names for, as far as they fit: the rest no server asks for.
fn declared(params: &Bytes) -> String {
    let raw = object::get_path(params, &["capabilities"]).filter(|raw| raw.starts_with(b"{")).map(one_line);
    let text = |raw: Bytes| String::from_utf8(raw.to_vec()).unwrap_or_default();
    let Some(raw) = raw else { return String::new() };
    if raw.len() <= limits::MAX_CAPABILITIES {
        return text(raw);
    }
    let mut kept = String::new();
    for name in ["roots", "sampling", "elicitation", "tasks", "extensions"] {
        let Some(value) = object::get(&raw, name) else { continue };
        let (comma, value) = (if kept.is_empty() { "" } else { "," }, text(value));
        if kept.len() + name.len() + value.len() + 6 <= limits::MAX_CAPABILITIES {
            kept += &format!("{comma}\"{name}\":{value}");
        }
    }
    format!("{{{kept}}}")
}

/// What binds a session to its user and client, told apart by the first's length.
fn context(principal: &Principal) -> Vec<u8> {
    let (user, client) = (principal.user.as_str(), principal.client.as_str());
    format!("{}:{user}{client}", user.len()).into_bytes()
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "k")]
    key: String,
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "c", default)]
    client: String,
    #[serde(rename = "a", default)]
    capabilities: String,
    #[serde(rename = "e")]
    expires: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;
    use crate::id::{ClientId, FamilyId, UserId};
    use crate::oauth::Role;
    use crate::oauth::scopes::Scopes;
    use crate::time::Instant;

    fn principal(user: &str, client: &str) -> Arc<Principal> {
        Arc::new(Principal {
            user: UserId::new(user),
            client: ClientId::new(client),
            actor: client.into(),
            role: Role::Client,
            audience: "https://relay.example/mcp".into(),
            scopes: Scopes::default(),
            family: FamilyId::new("f"),
            expires: UnixTime::from_secs(100),
            family_expires: UnixTime::from_secs(1000),
        })
    }

    fn at(secs: u64) -> Now {
        Now { instant: Instant::default(), unix: UnixTime::from_secs(secs) }
    }

    fn sealer() -> Sealer {
        Sealer::new(std::vec![Sealer::generate(&mut Seeded::new(1))])
    }

    const PARAMS: &[u8] = br#"{"protocolVersion":"2025-06-18","clientInfo":{"name":"Cursor","version":"1.2"},
        "capabilities":{"sampling":{},"roots":null}}"#;

    #[test]
    fn session_reads_back_for_its_own_client_alone() {
        let mut entropy = Seeded::new(2);
        let session = begin(&Bytes::from_static(PARAMS), at(10), &mut entropy);
        assert_eq!(session.version, Version::V2025_06_18);
        assert_eq!(&*session.client, "Cursor 1.2");
        assert_eq!(&*session.capabilities, r#"{"sampling":{},"roots":null}"#);
        let own = principal("ann", "client");
        let id = seal(&sealer(), &session, &own, &mut entropy);
        let read = |principal: &Arc<Principal>, snapshot: &Snapshot, secs| {
            open(&id, principal, snapshot, at(secs), &mut Memo::default()).map(Arc::unwrap_or_clone)
        };
        let none = Snapshot::new(sealer());
        let end = session.expires.as_secs();
        assert_eq!(read(&own, &none, end - 1), Some(session.clone()));
        assert_eq!(read(&own, &none, end), None, "it has run out");
        assert_eq!(read(&principal("bob", "client"), &none, 10), None);
        assert_eq!(read(&principal("ann", "other"), &none, 10), None);
        assert_eq!(read(&principal("annc", "lient"), &none, 10), None);
        let mut ended = Snapshot::new(sealer());
        ended.ended_sessions.insert(session.key.clone(), session.expires);
        assert_eq!(read(&own, &ended, 10), None);
    }

    #[test]
    fn unknown_versions_are_answered_with_the_latest_that_has_a_handshake() {
        for (asked, version) in [
            ("2024-11-05", Version::V2024_11_05),
            ("2025-03-26", Version::V2025_03_26),
            ("2025-11-25", Version::V2025_11_25),
            ("2026-07-28", Version::V2025_11_25),
            ("1999-01-01", Version::V2025_11_25),
            ("", Version::V2025_11_25),
        ] {
            assert_eq!(negotiate(asked), version, "{asked}");
        }
    }

    #[test]
    fn of_too_many_capabilities_those_are_kept_that_have_names_and_room() {
        let of = |capabilities: &str| {
            let params = Bytes::from(format!(r#"{{"capabilities":{capabilities}}}"#));
            begin(&params, at(10), &mut Seeded::new(2)).capabilities
        };
        let most = format!(r#"{{"x":"{}"}}"#, "x".repeat(limits::MAX_CAPABILITIES - r#"{"x":""}"#.len()));
        assert_eq!(&*of(&most), most, "as much as may be stays as it is");
        let long = "x".repeat(limits::MAX_CAPABILITIES);
        let all = format!(r#"{{"experimental":"{long}","sampling":{{}},"roots":{{"listChanged":true}}}}"#);
        assert_eq!(&*of(&all), r#"{"roots":{"listChanged":true},"sampling":{}}"#);
        // As much as fits: its name takes eleven with what stands around it.
        for (length, kept) in [(limits::MAX_CAPABILITIES - 11, true), (limits::MAX_CAPABILITIES - 10, false)] {
            let own = format!(r#"{{"roots":"{}"}}"#, "x".repeat(length - 2));
            let told = of(&own.replace('{', &format!(r#"{{"experimental":"{long}","#)));
            assert_eq!(&*told, if kept { &own } else { "{}" });
            assert!(told.len() <= limits::MAX_CAPABILITIES);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn session_reads_back_whatever_its_client_is_called(
            user: String, client: String, others in any::<(String, String)>(), name in ".{0,60}", asked in "2025-06-18|2025-11-25|.{0,12}", secs in 0..1_000_u64
        ) {
            let params = Bytes::from(format!(r#"{{"protocolVersion":{},"clientInfo":{{"name":{}}}}}"#, rpc::quoted(&asked), rpc::quoted(&name)));
            let (own, mut entropy) = (principal(&user, &client), Seeded::new(secs));
            let session = begin(&params, at(secs), &mut entropy);
            prop_assert!(session.version.is_legacy() && session.client.len() <= limits::MAX_CLIENT_NAME);
            let id = seal(&sealer(), &session, &own, &mut entropy);
            prop_assert!(id.len() <= limits::MAX_SESSION_ID && id.bytes().all(|byte| byte.is_ascii_graphic()));
            let snapshot = Snapshot::new(sealer());
            prop_assert_eq!(open(&id, &own, &snapshot, at(secs), &mut Memo::default()), Some(Arc::new(session)));
            let (other_user, other_client) = &others;
            let foreign = open(&id, &principal(other_user, other_client), &snapshot, at(secs), &mut Memo::default());
            prop_assert_eq!(foreign.is_some(), (other_user, other_client) == (&user, &client));
        }

        #[test]
        fn any_id_is_refused_and_any_client_fits(id in any::<String>(), name in any::<String>(), version in ".{0,200}") {
            let own = principal("ann", "client");
            prop_assert_eq!(open(&id, &own, &Snapshot::new(sealer()), at(10), &mut Memo::default()), None);
            let info = rpc::quoted(&name);
            let version = rpc::quoted(&version);
            let params = format!(
                "{{\"clientInfo\":{{\"name\":{info},\"version\":{version}}},\"capabilities\":{{\"roots\":{{}},\"x\":{info}}}}}"
            );
            let mut entropy = Seeded::new(3);
            let session = begin(&Bytes::from(params), at(10), &mut entropy);
            let id = seal(&sealer(), &session, &own, &mut entropy);
            prop_assert!(id.len() <= limits::MAX_SESSION_ID);
            prop_assert_eq!(open(&id, &own, &Snapshot::new(sealer()), at(10), &mut Memo::default()), Some(Arc::new(session)));
        }
    }
}
