//! A client's metadata document (draft-ietf-oauth-client-id-metadata-document): which URLs may be one's id, and what it
//! must say. Pure.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::{Host, Url};

use super::Role;
use super::clients::{self, Client, MAX_CLIENT_NAME, Origin, Unreadable};
use super::scopes::Scopes;
use super::text;
use crate::http::fetch::{Fetch, Fetched};
use crate::http::freshness::Bounds;
use crate::http::reach::Reach;
use crate::http::{endpoint, redirect};
use crate::id::ClientId;
use crate::limits;

/// The id of a client that describes itself: the URL of its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DocumentUrl {
    text: String,
    /// Whom people know it by.
    host: String,
    /// Strangers name these URLs: the fetch stays away from what only this machine can reach.
    reach: Reach,
}

impl DocumentUrl {
    /// Whether `id` is meant as a document's URL.
    pub(super) fn is_meant(id: &str) -> bool {
        id.starts_with("https://") || id.starts_with("http://")
    }

    /// The id as such a URL (section 3 of the draft): `https`, a public host, a path; no user info, no fragment, no dot
    /// segments; and written in the one canonical way, since ids are compared byte for byte. On https's own port alone:
    /// strangers would have the relay knock at any other. With `loopback`, also one of this very machine, on any port.
    pub(super) fn read(id: &str, loopback: bool) -> Option<Self> {
        if id.len() > limits::MAX_DOCUMENT_URL {
            return None;
        }
        let url = Url::parse(id).ok().filter(|url| url.as_str() == id)?;
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !plain || url.path() == "/" {
            return None;
        }
        let reach = match (url.scheme(), url.host()?) {
            ("https" | "http", _) if loopback && endpoint::is_loopback(&url) => Reach::Loopback,
            ("https", Host::Domain(host)) if redirect::is_public(host) && url.port().is_none() => Reach::Public,
            _ => return None,
        };
        Some(Self { text: id.to_string(), host: redirect::authority(&url, url.host_str()?), reach })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The client as far as the URL alone tells: all that `/token` and `/revoke` need, since such a client has no secret
    /// to show and its codes and tokens are bound to the URL. It has nowhere to be redirected to.
    pub(super) fn client(&self) -> Client {
        Client {
            key: ClientId::new(&self.text),
            name: String::new(),
            role: Role::Client,
            redirects: Vec::new(),
            secret: None,
            scopes: Scopes::all(Role::Client),
            origin: Origin::Document { host: self.host.clone() },
        }
    }

    /// The request for the document.
    pub(super) fn fetch(&self) -> Fetch {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("mcp-local-tunnel"));
        Fetch {
            method: Method::GET,
            url: self.text.clone(),
            headers,
            body: bytes::Bytes::new(),
            timeout: limits::CLIENT_DOCUMENT_TIMEOUT,
            max_body: limits::MAX_CLIENT_DOCUMENT,
            reach: self.reach,
        }
    }
}

/// Why a document makes no client. It is its author who reads this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Redirects are not followed: whoever can place one on a host is not the host.
    #[error("it was answered with status {0} instead of 200")]
    Status(u16),
    #[error("it is longer than 5 KiB")]
    TooLarge,
    #[error("it is not JSON")]
    NotJson,
    #[error("it is not client metadata: {0}")]
    NotMetadata(String),
    #[error("its client_id is not its own URL")]
    OtherId,
    #[error(
        "neither its token_endpoint_auth_method nor token_endpoint_auth_methods_supported has none: clients with a \
         document are public here"
    )]
    Method,
    #[error("a document must not hold a client_secret")]
    Secret,
    #[error("{0}")]
    Unusable(String),
}

impl Fault {
    /// Whether it is an answer to what the document says: that there is none (404, 410), or JSON in its place that makes
    /// no client of that URL. Then what was read before counts no longer, since this is how an author withdraws it.
    ///
    /// Everything else is a host that is out of order, and what it said before still counts for a while: another status
    /// (429 and 5xx, a redirect to a login or a page of trouble), and with status 200 what is no JSON or longer than any
    /// document, which is how such pages come when whoever stands before the host does not care for the status.
    pub(super) const fn is_final(&self) -> bool {
        match self {
            Self::Status(status) => matches!(*status, 404 | 410),
            Self::TooLarge | Self::NotJson => false,
            Self::NotMetadata(_) | Self::OtherId | Self::Method | Self::Secret | Self::Unusable(_) => true,
        }
    }
}

/// Reads the document that was fetched from `url` (section 4 of the draft).
pub(super) fn read(url: &DocumentUrl, fetched: &Fetched) -> Result<Client, Fault> {
    if fetched.status != StatusCode::OK {
        return Err(Fault::Status(fetched.status.as_u16()));
    }
    if !is_json(&fetched.headers) {
        return Err(Fault::NotJson);
    }
    let document: Document = clients::read_metadata(&fetched.body).map_err(|fault| match fault {
        Unreadable::Json => Fault::NotJson,
        Unreadable::Member(what) => Fault::NotMetadata(what),
    })?;
    if document.client_id != url.text {
        return Err(Fault::OtherId);
    }
    if document.client_secret.is_some() || document.client_secret_expires_at.is_some() {
        return Err(Fault::Secret);
    }
    if !document.can_be_public() {
        return Err(Fault::Method);
    }
    let unusable = |refusal: super::error::Refusal| Fault::Unusable(refusal.description.into_owned());
    clients::offered_here(document.grant_types.as_deref(), document.response_types.as_deref()).map_err(unusable)?;
    let redirects = clients::acceptable(document.redirect_uris).map_err(unusable)?;
    let name = text::clean(&document.client_name.unwrap_or_default(), MAX_CLIENT_NAME);
    let scopes = Scopes::registered(Role::Client, document.scope.as_deref());
    Ok(Client { name, redirects, scopes, ..url.client() })
}

/// For how long it may be kept.
pub(super) fn lifetime(headers: &HeaderMap) -> Duration {
    KEPT.lifetime(headers)
}

/// `application/json`, or another type that is JSON too (RFC 6839).
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

const KEPT: Bounds = Bounds {
    least: limits::CLIENT_DOCUMENT_MIN,
    usual: limits::CLIENT_DOCUMENT_DEFAULT,
    most: limits::CLIENT_DOCUMENT_MAX,
};

#[derive(Deserialize)]
struct Document {
    client_id: String,
    client_name: Option<String>,
    redirect_uris: Option<Vec<Option<String>>>,
    token_endpoint_auth_method: Option<String>,
    /// What it can do besides: ChatGPT's has `private_key_jwt` as its one method, and `none` here.
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    scope: Option<String>,
    client_secret: Option<IgnoredAny>,
    client_secret_expires_at: Option<IgnoredAny>,
}

impl Document {
    /// Whether the client can do without authentication, the one way that is offered to it here. It says nothing of
    /// itself: then it can.
    fn can_be_public(&self) -> bool {
        let one = self.token_endpoint_auth_method.iter();
        let others = self.token_endpoint_auth_methods_supported.iter().flatten();
        let mut said = one.chain(others).peekable();
        said.peek().is_none() || said.any(|method| method == "none")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "https://app.example/oauth/client.json";

    fn fetched(status: u16, kind: &str, body: &str) -> Fetched {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().expect("a header"))]);
        Fetched {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn read_json(document: &Value) -> Result<Client, Fault> {
        read(&url(), &fetched(200, "application/json", &document.to_string()))
    }

    fn url() -> DocumentUrl {
        DocumentUrl::read(ID, false).expect("a document's URL")
    }

    fn with(changes: &Value) -> Value {
        let mut document = json!({"client_id": ID, "client_name": "App", "redirect_uris": ["https://app.example/cb"]});
        for (name, value) in changes.as_object().expect("an object") {
            document[name] = value.clone();
        }
        document
    }

    #[test]
    fn ids_of_today_are_documents() {
        for (id, host) in [
            ("https://claude.ai/oauth/claude-code-client-metadata", "claude.ai"),
            ("https://vscode.dev/oauth/client-metadata.json", "vscode.dev"),
            ("https://chatgpt.com/oauth/abc123/client.json", "chatgpt.com"),
            ("https://app.example/client?v=1", "app.example"),
        ] {
            let url = DocumentUrl::read(id, false).expect(id);
            assert_eq!((url.as_str(), url.host(), url.fetch().reach), (id, host, Reach::Public));
            assert_eq!(url.client().key.as_str(), id);
        }
    }

    #[test]
    fn other_ids_are_none() {
        let long = format!("https://app.example/{}", "x".repeat(limits::MAX_DOCUMENT_URL));
        for id in [
            long.as_str(),
            "https://app.example",
            "https://app.example/",
            "http://app.example/client",
            "HTTPS://app.example/client",
            "https://APP.example/client",
            "https://app.example:443/client",
            "https://app.example:8443/client",
            "https://app.example:22/client",
            "https://app.example./client",
            "https://app.example/a/../client",
            "https://app.example/%2e%2e/client",
            "https://app.example/./client",
            "https://app.example\\client",
            "https://app.example/client#x",
            "https://app.example/client#",
            "https://user@app.example/client",
            "https://user:password@app.example/client",
            "https://app.example/cli ent",
            "https://app.example/clïent",
            "https://localhost/client",
            "http://localhost/client",
            "https://intranet/client",
            "https://printer.local/client",
            "https://10.0.0.1/client",
            "https://8.8.8.8/client",
            "https://[2606:4700::1111]/client",
            "https://2130706433/client",
            "ftp://app.example/client",
            "https:app.example/client",
            "client",
            "",
        ] {
            assert!(DocumentUrl::read(id, false).is_none(), "{id}");
        }
    }

    #[test]
    fn loopback_ids_need_the_setting_and_reach_this_machine_alone() {
        for id in ["http://localhost:8080/c", "http://127.0.0.1:1/c", "http://[::1]:1/c", "https://localhost/c"] {
            assert!(DocumentUrl::read(id, false).is_none(), "{id}");
            assert_eq!(DocumentUrl::read(id, true).expect(id).fetch().reach, Reach::Loopback, "{id}");
        }
        assert_eq!(DocumentUrl::read(ID, true).expect(ID).fetch().reach, Reach::Public);
        for id in [
            "https://app.example:8443/c",
            "http://app.example/c",
            "http://10.0.0.1/c",
            "http://localhost.example/c",
            "http://localhost/",
        ] {
            assert!(DocumentUrl::read(id, true).is_none(), "{id}");
        }
    }

    #[test]
    fn the_guard_is_in_the_request() {
        let fetch = url().fetch();
        assert_eq!((fetch.reach, fetch.max_body, fetch.timeout.as_secs()), (Reach::Public, 5 * 1024, 10));
    }

    #[test]
    fn good_document_is_a_client() {
        let mixed = json!({"redirect_uris": ["http://evil.example/", "http://localhost/callback", "https://app.example/cb"],
            "client_name": "  A\u{202e}pp ", "token_endpoint_auth_method": "none", "unknown": {"x": 1},
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"]});
        let client = read_json(&with(&mixed)).expect("a client");
        assert_eq!((client.key.as_str(), client.name.as_str()), (ID, "App"));
        assert_eq!(client.redirects, ["http://localhost/callback", "https://app.example/cb"]);
        assert_eq!(client.origin, Origin::Document { host: "app.example".into() });
        for kind in ["Application/JSON; charset=utf-8", "application/oauth-client+json"] {
            assert!(read(&url(), &fetched(200, kind, &with(&json!({})).to_string())).is_ok(), "{kind}");
        }
    }

    #[test]
    fn document_like_chatgpts_is_a_public_client() {
        let id = "https://chatgpt.com/oauth/IbUR3zxyNQ16/client.json";
        let redirect = "https://chatgpt.com/connector/oauth/IbUR3zxyNQ16";
        let document = json!({"client_id": id, "client_name": "ChatGPT", "redirect_uris": [redirect],
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "token_endpoint_auth_signing_alg": "RS256", "jwks_uri": "https://chatgpt.com/oauth/jwks.json"});
        let url = DocumentUrl::read(id, false).expect("a document's URL");
        let client = read(&url, &fetched(200, "application/json", &document.to_string())).expect("a client");
        assert_eq!((client.secret, client.redirects.as_slice()), (None, &[redirect.to_string()][..]));
    }

    #[test]
    fn client_that_can_do_without_authentication_is_taken() {
        for changes in [
            json!({}),
            json!({"token_endpoint_auth_methods_supported": []}),
            json!({"token_endpoint_auth_methods_supported": ["none"]}),
            json!({"token_endpoint_auth_method": "none", "token_endpoint_auth_methods_supported": ["private_key_jwt"]}),
            json!({"token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_methods_supported": ["none"]}),
        ] {
            assert!(read_json(&with(&changes)).is_ok(), "{changes}");
        }
    }

    #[test]
    fn bad_documents_are_refused_with_the_reason() {
        let body = with(&json!({})).to_string();
        for (status, kind, body, fault) in [
            (404, "application/json", body.as_str(), Fault::Status(404)),
            (301, "application/json", &body, Fault::Status(301)),
            (204, "application/json", &body, Fault::Status(204)),
            (200, "text/html", &body, Fault::NotJson),
            (200, "text/json", &body, Fault::NotJson),
            (200, "application/json", "<html>", Fault::NotJson),
            (200, "application/json", "", Fault::NotJson),
        ] {
            assert_eq!(read(&url(), &fetched(status, kind, body)), Err(fault));
        }
        for (changes, fault) in [
            (json!({"client_id": "https://app.example/oauth/client.json?"}), Fault::OtherId),
            (json!({"client_id": "https://evil.example/oauth/client.json"}), Fault::OtherId),
            (json!({"token_endpoint_auth_method": "private_key_jwt"}), Fault::Method),
            (json!({"token_endpoint_auth_method": "client_secret_post"}), Fault::Method),
            (json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}), Fault::Method),
            (
                json!({"token_endpoint_auth_method": "private_key_jwt",
                    "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_basic"]}),
                Fault::Method,
            ),
            (json!({"client_secret": "x"}), Fault::Secret),
            (json!({"client_secret_expires_at": 0}), Fault::Secret),
        ] {
            assert_eq!(read_json(&with(&changes)), Err(fault), "{changes}");
        }
        for (changes, part) in [
            (json!({"redirect_uris": []}), "redirect_uris is missing"),
            (json!({"redirect_uris": ["http://evil.example/"]}), "must be https"),
            (json!({"grant_types": ["client_credentials"]}), "authorization_code"),
            (json!({"response_types": ["token"]}), "code"),
            (json!({"redirect_uris": null}), "redirect_uris is missing"),
            (json!({"redirect_uris": "https://app.example/cb"}), "not client metadata: redirect_uris: "),
            (json!({"redirect_uris": ["https://app.example/cb", 7]}), "not client metadata: redirect_uris[1]: "),
            (json!({"client_id": 7}), "not client metadata: client_id: "),
        ] {
            let fault = read_json(&with(&changes)).expect_err("refused").to_string();
            assert!(fault.contains(part), "{fault}");
        }
        let twice = format!("{{\"client_id\":\"https://evil.example/x\",{}", &body[1..]);
        assert!(matches!(read(&url(), &fetched(200, "application/json", &twice)), Err(Fault::NotMetadata(_))));
    }

    proptest! {
        #[test]
        fn ids_that_pass_are_plain(id in "https?://[ -~]{0,40}", loopback: bool) {
            if let Some(url) = DocumentUrl::read(&id, loopback) {
                prop_assert!(!id.contains(['#', '\\', ' ']) && url.as_str() == id);
                prop_assert!(url.fetch().reach != Reach::Anywhere);
            }
        }

        #[test]
        fn no_document_panics(body in ".{0,80}") {
            let _ = read(&url(), &fetched(200, "application/json", &body));
        }
    }
}
