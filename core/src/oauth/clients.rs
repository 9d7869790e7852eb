//! Clients: the built-in agent, those of the configuration, and those that register themselves (RFC 7591).
//!
//! A registered client's id *is* its metadata, sealed: registration costs the relay no memory, and an id works as long
//! as the keys do. Those that describe themselves in a document are found in [`documents`](super::documents).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::error::{Code, Refusal, json};
use super::scopes::Scopes;
use super::{Role, text};
use crate::config::StaticClient;
use crate::entropy::Entropy;
use crate::http::{Reply, RequestHead, fields, redirect};
use crate::id::ClientId;
use crate::limits;
use crate::seal::{Purpose, Sealer};
use crate::secret::Secret;
use crate::time::Now;

/// The client id that agents use: built in, so that an agent needs no registration.
pub const AGENT_CLIENT: &str = "mcp-local-tunnel-agent";

/// A client, as far as the authorization server needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// Names the client in tokens and records: its id, or the hash of a long one.
    pub(super) key: ClientId,
    /// What it calls itself, cleaned for display.
    pub(super) name: String,
    /// Whose tokens it gets.
    pub(super) role: Role,
    /// Where codes may go.
    pub(super) redirects: Vec<String>,
    /// The secret that it must show.
    pub(super) secret: Option<Secret>,
    /// What its tokens may do when it asks for nothing.
    pub(super) scopes: Scopes,
    /// Who vouches for it.
    pub(super) origin: Origin,
}

/// Who vouches for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// This relay's own agent.
    BuiltIn,
    /// The operator: it is in the configuration.
    Configured,
    /// Whoever has that host, where its metadata document is.
    Document {
        /// The host, with the port if it is not 443.
        host: String,
    },
    /// Nobody: it registered itself.
    SelfRegistered,
}

impl Client {
    /// The client of that id, unless it is one with a document. `None`: no such client, or one whose keys are gone; it
    /// must register again.
    pub(super) fn find(sealer: &Sealer, configured: &[StaticClient], id: &str) -> Option<Self> {
        if id == AGENT_CLIENT {
            return Some(Self {
                key: ClientId::new(AGENT_CLIENT),
                name: "mcp-local-tunnel agent".to_string(),
                role: Role::Agent,
                redirects: vec!["http://localhost/callback".to_string()],
                secret: None,
                scopes: Scopes::all(Role::Agent),
                origin: Origin::BuiltIn,
            });
        }
        if let Some(client) = configured.iter().find(|client| client.id == id) {
            return Some(Self {
                key: ClientId::new(&client.id),
                name: text::clean(&client.name, MAX_CLIENT_NAME),
                role: Role::Client,
                redirects: client.redirects.clone(),
                secret: client.secret.clone(),
                scopes: Scopes::all(Role::Client),
                origin: Origin::Configured,
            });
        }
        let plain = sealer.open(Purpose::ClientId, &[], id.strip_prefix(ID_PREFIX)?).ok()?;
        let metadata: Metadata = serde_json::from_slice(&plain).ok()?;
        Some(Self {
            key: ClientId::from(format!("{ID_PREFIX}{}", short_hash(id))),
            name: metadata.name,
            role: Role::Client,
            redirects: metadata.redirects,
            secret: if metadata.confidential { Some(Secret::new(secret_of(sealer, id)?)) } else { None },
            scopes: metadata.scopes.or_all(Role::Client),
            origin: Origin::SelfRegistered,
        })
    }

    /// Where a request's code goes. `asked` may be missing only if there is one place (OAuth 2.1 section 4.1.1).
    pub(super) fn redirect(&self, asked: Option<&str>) -> Option<String> {
        match (asked, self.redirects.as_slice()) {
            (Some(asked), registered) => {
                registered.iter().any(|one| redirect::matches(one, asked)).then(|| asked.to_string())
            }
            (None, [only]) if self.origin != Origin::BuiltIn => Some(only.clone()),
            (None, _) => None,
        }
    }
}

/// Who calls `/token` or `/revoke`, proven as its registration asks (RFC 6749 section 2.3).
///
/// `id` and `secret` are the form's `client_id` and `client_secret`; `find` knows clients by id.
pub(super) fn authenticate(
    find: impl FnOnce(&str) -> Option<Client>,
    head: &RequestHead,
    id: Option<&str>,
    secret: Option<&str>,
) -> Result<Client, Refusal> {
    let basic = fields::basic(&head.headers).map_err(|_| unknown("the Authorization header is malformed"))?;
    let (id, secret) = match (&basic, id, secret) {
        (Some((id, _)), Some(other), _) if id != other => return Err(unknown("two different clients are named")),
        (Some(_), _, Some(_)) => {
            return Err(Refusal::new(Code::InvalidRequest, "the client must authenticate in one way only"));
        }
        (Some((id, secret)), _, None) => (id.as_str(), Some(secret.expose())),
        (None, Some(id), secret) => (id, secret),
        (None, None, _) => return Err(unknown("client_id is missing")),
    };
    let client = find(id).ok_or_else(|| unknown("this client is not known here: register it again"))?;
    let shown =
        |expected: &Secret| secret.is_some_and(|secret| secret.as_bytes().ct_eq(expected.expose().as_bytes()).into());
    if client.secret.as_ref().is_none_or(shown) {
        Ok(client)
    } else {
        Err(unknown("the client's secret is missing or wrong"))
    }
}

/// Answers `/register`.
pub(super) fn register(
    sealer: &Sealer,
    head: &RequestHead,
    body: &Bytes,
    entropy: &mut dyn Entropy,
    now: Now,
) -> Result<Reply, Refusal> {
    let bad = |description| Refusal::new(Code::InvalidClientMetadata, description);
    if !fields::is_json(&head.headers) {
        return Err(bad("the body must be application/json".to_string()));
    }
    let request: Registration = read_metadata(body).map_err(|fault| bad(format!("the body is {fault}")))?;
    let redirects = acceptable(request.redirect_uris)?;
    offered_here(request.grant_types.as_deref(), request.response_types.as_deref())?;
    // What is not said, or not offered here, becomes `none`: the answer tells, and PKCE protects every client anyway.
    let method = match request.token_endpoint_auth_method.as_deref() {
        Some("client_secret_basic") => "client_secret_basic",
        Some("client_secret_post") => "client_secret_post",
        _ => "none",
    };
    let confidential = method != "none";
    let name = text::clean(request.client_name.as_deref().unwrap_or_default(), MAX_CLIENT_NAME);
    let scopes = Scopes::registered(Role::Client, request.scope.as_deref());
    let metadata = Metadata { name, redirects, confidential, scopes };
    let plain = serde_json::to_vec(&metadata).expect("strings and lists of strings always serialise");
    let client_id = format!("{ID_PREFIX}{}", sealer.seal(Purpose::ClientId, &[], &plain, entropy));
    let client_secret = if confidential { secret_of(sealer, &client_id) } else { None };
    Ok(json(
        StatusCode::CREATED,
        &Registered {
            client_id_issued_at: now.unix.as_secs(),
            client_secret_expires_at: client_secret.is_some().then_some(0),
            client_id,
            client_secret,
            client_name: &metadata.name,
            redirect_uris: &metadata.redirects,
            grant_types: &["authorization_code", "refresh_token"],
            response_types: &["code"],
            token_endpoint_auth_method: method,
            scope: &metadata.scopes,
        },
    ))
}

/// Why something is no client metadata, for the one who wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("not JSON")]
    Json,
    /// In which member, and what.
    #[error("not client metadata: {0}")]
    Member(String),
}

/// Reads a registration or a document. Of its members those count that are read here: any other may be anything.
pub(super) fn read_metadata<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Unreadable> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.inner().classify() {
        serde_json::error::Category::Data => Unreadable::Member(text::clean(&error.to_string(), MAX_REASON)),
        _ => Unreadable::Json,
    })?;
    reader.end().map_err(|_| Unreadable::Json)?;
    Ok(read)
}

/// Whether a client that names these grants and responses can do anything here; not naming them is fine.
pub(super) fn offered_here(grants: Option<&[String]>, responses: Option<&[String]>) -> Result<(), Refusal> {
    let lists =
        |given: Option<&[String]>, needed: &str| given.is_none_or(|given| given.iter().any(|one| one == needed));
    if !lists(grants, "authorization_code") {
        return Err(Refusal::new(Code::InvalidClientMetadata, "grant_types must contain authorization_code"));
    }
    if !lists(responses, "code") {
        return Err(Refusal::new(Code::InvalidClientMetadata, "response_types must contain code"));
    }
    Ok(())
}

/// The acceptable ones of `asked`. Some clients register several of which not all pass, or are null; one is enough.
pub(super) fn acceptable(asked: Option<Vec<Option<String>>>) -> Result<Vec<String>, Refusal> {
    let asked: Vec<String> = asked.into_iter().flatten().flatten().collect();
    if asked.len() > limits::MAX_REDIRECTS {
        return Err(Refusal::new(Code::InvalidRedirectUri, "a client may register ten redirect URIs at most"));
    }
    let mut reason = None;
    let mut kept: Vec<String> = Vec::new();
    for uri in asked {
        match redirect::classify(&uri) {
            Ok(_) if kept.contains(&uri) => {}
            Ok(_) => kept.push(uri),
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match reason {
        _ if !kept.is_empty() => Ok(kept),
        Some(why) => Err(Refusal::new(Code::InvalidRedirectUri, why.to_string())),
        None => Err(Refusal::new(Code::InvalidRedirectUri, "redirect_uris is missing")),
    }
}

/// The secret of a registered client: a MAC of its id, with the key that sealed that.
fn secret_of(sealer: &Sealer, id: &str) -> Option<String> {
    let sealed = id.strip_prefix(ID_PREFIX)?;
    sealer.mac_beside(Purpose::ClientSecret, id.as_bytes(), sealed).map(|mac| URL_SAFE_NO_PAD.encode(mac))
}

fn short_hash(id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, id.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.as_ref().first_chunk::<16>().expect("SHA-256 has 32 bytes"))
}

fn unknown(description: &'static str) -> Refusal {
    Refusal::new(Code::InvalidClient, description)
}

/// What a registered client's id begins with.
const ID_PREFIX: &str = "mlt_c_";
/// Characters of a client's name: what fits a line.
pub(super) const MAX_CLIENT_NAME: usize = 80;
/// Characters of what a parser says.
const MAX_REASON: usize = 120;

/// The inside of a registered client's id.
#[derive(Serialize, Deserialize)]
struct Metadata {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "r")]
    redirects: Vec<String>,
    #[serde(rename = "s")]
    confidential: bool,
    /// Left out when it is all of them, as in ids of before it counted what a client registers.
    #[serde(rename = "p", default, skip_serializing_if = "is_all")]
    scopes: Scopes,
}

fn is_all(scopes: &Scopes) -> bool {
    *scopes == Scopes::all(Role::Client)
}

#[derive(Deserialize)]
struct Registration {
    redirect_uris: Option<Vec<Option<String>>>,
    client_name: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    token_endpoint_auth_method: Option<String>,
    scope: Option<String>,
}

#[derive(Serialize)]
struct Registered<'a> {
    client_id: String,
    client_id_issued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<u64>,
    client_name: &'a str,
    redirect_uris: &'a [String],
    grant_types: &'a [&'a str],
    response_types: &'a [&'a str],
    token_endpoint_auth_method: &'a str,
    scope: &'a Scopes,
}
