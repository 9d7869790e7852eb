//! The relay's own description of its endpoints (RFC 8414).

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use url::Url;

use super::contract::Settings;
use crate::http::endpoint;
use crate::limits;

/// Where a relay keeps what a sign-in needs. Every URL is on the relay's own origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// As the relay writes it: what `iss` in a callback must equal.
    pub(super) issuer: String,
    pub(super) authorization: Url,
    pub(super) token: String,
    pub(super) revocation: Option<String>,
    /// Where a device asks for a code (RFC 8628 section 4).
    pub(super) device: Option<String>,
    /// Where a token is asked about (RFC 7662).
    pub(super) introspection: Option<String>,
    /// Whether every callback carries `iss` (RFC 9207 section 3).
    pub(super) promises_iss: bool,
}

#[derive(serde::Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    revocation_endpoint: Option<String>,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
    #[serde(default)]
    introspection_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Whether the relay speaks dialect V1 alone, as a slash behind its issuer tells.
    pub(super) fn is_v1(&self) -> bool {
        self.issuer.ends_with('/')
    }
}

/// Where the document is.
pub(super) fn url(settings: &Settings) -> String {
    alloc::format!("{}/.well-known/oauth-authorization-server", settings.relay)
}

/// Whether tokens may be sent to this relay at all.
pub(super) fn check_relay(settings: &Settings) -> Result<(), &'static str> {
    let usable = endpoint::absolute(&settings.relay).is_some_and(|url| url.query().is_none());
    if !usable {
        return Err("its address is not a URL");
    }
    if endpoint::secure(&settings.relay).is_none() && !settings.allow_insecure {
        return Err("its address is neither https nor on this machine (`--allow-insecure` if you mean it)");
    }
    Ok(())
}

/// Reads the document, and checks that it is this relay's.
pub(super) fn read(body: &[u8], settings: &Settings) -> Result<Metadata, Cow<'static, str>> {
    let document: Document = serde_json::from_slice(body).map_err(|_| "its metadata cannot be read")?;
    // A relay of dialect V1 writes a slash behind it.
    if document.issuer.strip_suffix('/').unwrap_or(&document.issuer) != settings.relay {
        let named: String = document.issuer.chars().take(limits::MAX_QUOTE).collect();
        return Err(alloc::format!("its metadata names another issuer, {named} instead of {}", settings.relay).into());
    }
    if !document.code_challenge_methods_supported.iter().any(|method| method == "S256") {
        return Err("it does not support PKCE with S256".into());
    }
    let optional = |url: Option<String>| url.map(|url| own(&url, settings).map(String::from)).transpose();
    Ok(Metadata {
        authorization: own(&document.authorization_endpoint, settings).and_then(plain)?,
        token: own(&document.token_endpoint, settings)?.to_string(),
        revocation: optional(document.revocation_endpoint)?,
        device: optional(document.device_authorization_endpoint)?,
        introspection: optional(document.introspection_endpoint)?,
        promises_iss: document.authorization_response_iss_parameter_supported,
        issuer: document.issuer,
    })
}

/// The URL, if it has nothing that a shell would read: what opens browsers is often a script of somebody's.
fn plain(url: Url) -> Result<Url, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:%?=&+[]".contains(c);
    if url.as_str().chars().all(is_plain) { Ok(url) } else { Err("an endpoint has characters that none needs") }
}

/// An endpoint on the relay's own origin: tokens go nowhere else, and the browser is sent nowhere else.
pub(super) fn own(text: &str, settings: &Settings) -> Result<Url, &'static str> {
    let url = endpoint::absolute(text).ok_or("an endpoint is not a URL")?;
    let relay = Url::parse(&settings.relay).map_err(|_| "its address is not a URL")?;
    if url.origin() == relay.origin() { Ok(url) } else { Err("an endpoint is on another server") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(relay: &str) -> Settings {
        Settings { relay: relay.into(), allow_insecure: false, device: "laptop".into() }
    }

    fn document() -> Value {
        json!({
            "issuer": "https://relay.example",
            "authorization_endpoint": "https://relay.example/authorize",
            "token_endpoint": "https://relay.example/token",
            "revocation_endpoint": "https://relay.example/revoke",
            "code_challenge_methods_supported": ["S256"],
        })
    }

    #[test]
    fn relay_of_either_dialect_is_understood() {
        let relay = settings("https://relay.example");
        let read_as = |document: &Value| read(document.to_string().as_bytes(), &relay);
        let found = read_as(&document()).expect("understood");
        assert_eq!(found.token, "https://relay.example/token");
        assert!(!found.promises_iss);

        let mut old = document();
        old["issuer"] = json!("https://relay.example/");
        old["token_endpoint"] = json!("https://RELAY.example:443/token");
        old.as_object_mut().expect("an object").remove("revocation_endpoint");
        let found = read_as(&old).expect("understood");
        assert_eq!((found.issuer.as_str(), found.revocation), ("https://relay.example/", None));
    }

    #[test]
    fn metadata_that_breaks_a_rule_is_refused() {
        let table = [
            (
                "issuer",
                json!("https://evil.example"),
                "its metadata names another issuer, https://evil.example instead of https://relay.example",
            ),
            (
                "issuer",
                json!("https://relay.example//"),
                "its metadata names another issuer, https://relay.example// instead of https://relay.example",
            ),
            (
                "issuer",
                json!("https://relay.example/x"),
                "its metadata names another issuer, https://relay.example/x instead of https://relay.example",
            ),
            ("issuer", json!(null), "its metadata cannot be read"),
            ("token_endpoint", json!("https://evil.example/token"), "an endpoint is on another server"),
            ("token_endpoint", json!("http://relay.example/token"), "an endpoint is on another server"),
            ("token_endpoint", json!("https://relay.example:8443/token"), "an endpoint is on another server"),
            ("token_endpoint", json!(null), "its metadata cannot be read"),
            ("authorization_endpoint", json!("javascript:alert(1)"), "an endpoint is not a URL"),
            ("authorization_endpoint", json!("file:///etc/passwd"), "an endpoint is not a URL"),
            ("authorization_endpoint", json!("https://u@relay.example/a"), "an endpoint is not a URL"),
            ("authorization_endpoint", json!("/authorize"), "an endpoint is not a URL"),
            ("revocation_endpoint", json!("https://evil.example/"), "an endpoint is on another server"),
            (
                "authorization_endpoint",
                json!("https://relay.example/$(id)"),
                "an endpoint has characters that none needs",
            ),
            (
                "authorization_endpoint",
                json!("https://relay.example/a;id"),
                "an endpoint has characters that none needs",
            ),
            (
                "authorization_endpoint",
                json!("https://relay.example/?a=$(b)"),
                "an endpoint has characters that none needs",
            ),
            ("device_authorization_endpoint", json!("https://evil.example/"), "an endpoint is on another server"),
            ("introspection_endpoint", json!("https://evil.example/"), "an endpoint is on another server"),
            ("code_challenge_methods_supported", json!(["plain"]), "it does not support PKCE with S256"),
            ("code_challenge_methods_supported", json!([]), "it does not support PKCE with S256"),
        ];
        for (member, value, expected) in table {
            let mut document = document();
            document[member] = value.clone();
            let refused = read(document.to_string().as_bytes(), &settings("https://relay.example"));
            assert_eq!(refused, Err(expected.into()), "{member} {value}");
        }
        assert!(read(b"<html>", &settings("https://relay.example")).is_err());
    }

    #[test]
    fn clear_text_relay_needs_loopback_or_a_flag() {
        for (relay, insecure, expected) in [
            ("https://relay.example", false, true),
            ("http://localhost:3000", false, true),
            ("http://127.0.0.1:3000", false, true),
            ("http://relay.example", false, false),
            ("http://relay.example", true, true),
            ("ftp://relay.example", true, false),
            ("https://relay.example?x", true, false),
            ("", true, false),
        ] {
            let settings = Settings { relay: relay.into(), allow_insecure: insecure, device: "laptop".into() };
            assert_eq!(check_relay(&settings).is_ok(), expected, "{relay}");
        }
    }
}
