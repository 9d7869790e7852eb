//! A server's own description of its endpoints (RFC 8414): the agent's relay's, or whatever server a probe was sent to.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use url::Url;

use super::contract::Settings;
use crate::http::endpoint;
use crate::limits;

/// Where a server keeps what a sign-in needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// As the server writes it: what `iss` in a callback must equal.
    pub(crate) issuer: String,
    pub(crate) authorization: Url,
    pub(crate) token: String,
    pub(crate) revocation: Option<String>,
    /// Where a client registers (RFC 7591).
    pub(crate) registration: Option<String>,
    /// Where a device asks for a code (RFC 8628 section 4).
    pub(crate) device: Option<String>,
    /// Where a token is asked about (RFC 7662).
    pub(crate) introspection: Option<String>,
    /// How clients may authenticate at the token endpoint; empty when it does not say.
    pub(crate) auth_methods: Vec<String>,
    /// Whether every callback carries `iss` (RFC 9207 section 3).
    pub(crate) promises_iss: bool,
}

/// What the description is held to.
pub(crate) enum Rules<'a> {
    /// It is the agent's relay at this URL: every endpoint is on its own origin.
    Relay(&'a str),
    /// A protected resource named this issuer: it is that, byte for byte (RFC 8414 section 3.3). Its endpoints may be
    /// anywhere that secrets may go to.
    Issuer {
        issuer: &'a str,
        /// Also over plain http to another machine.
        allow_insecure: bool,
    },
}

impl Rules<'_> {
    fn issued(&self, issuer: &str) -> bool {
        match self {
            // A relay of dialect V1 writes a slash behind it.
            Self::Relay(relay) => issuer.strip_suffix('/').unwrap_or(issuer) == *relay,
            Self::Issuer { issuer: expected, .. } => issuer == *expected,
        }
    }

    /// `text` as an endpoint: secrets and the browser are sent nowhere else.
    pub(crate) fn endpoint(&self, text: &str) -> Result<Url, &'static str> {
        let url = endpoint::absolute(text).ok_or("an endpoint is not a URL")?;
        match self {
            Self::Relay(relay) => {
                let relay = Url::parse(relay).map_err(|_| "its address is not a URL")?;
                if url.origin() == relay.origin() { Ok(url) } else { Err("an endpoint is on another server") }
            }
            Self::Issuer { allow_insecure, .. } => {
                let usable = *allow_insecure || endpoint::secure(text).is_some();
                usable.then_some(url).ok_or("an endpoint is neither https nor on this machine")
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    revocation_endpoint: Option<String>,
    #[serde(default)]
    registration_endpoint: Option<String>,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
    #[serde(default)]
    introspection_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
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

/// Reads the document, and checks that it is whose it has to be.
pub(crate) fn read(body: &[u8], rules: &Rules<'_>) -> Result<Metadata, Cow<'static, str>> {
    let document: Document = serde_json::from_slice(body).map_err(|_| "its metadata cannot be read")?;
    if !rules.issued(&document.issuer) {
        let named: String = document.issuer.chars().take(limits::MAX_QUOTE).collect();
        let (Rules::Relay(expected) | Rules::Issuer { issuer: expected, .. }) = rules;
        return Err(alloc::format!("its metadata names another issuer, {named} instead of {expected}").into());
    }
    if !document.code_challenge_methods_supported.iter().any(|method| method == "S256") {
        return Err("it does not support PKCE with S256".into());
    }
    let optional = |url: Option<String>| url.map(|url| rules.endpoint(&url).map(String::from)).transpose();
    Ok(Metadata {
        authorization: rules.endpoint(&document.authorization_endpoint).and_then(plain)?,
        token: rules.endpoint(&document.token_endpoint)?.to_string(),
        revocation: optional(document.revocation_endpoint)?,
        registration: optional(document.registration_endpoint)?,
        device: optional(document.device_authorization_endpoint)?,
        introspection: optional(document.introspection_endpoint)?,
        auth_methods: document.token_endpoint_auth_methods_supported,
        promises_iss: document.authorization_response_iss_parameter_supported,
        issuer: document.issuer,
    })
}

/// The URL, if it has nothing that a shell would read: what opens browsers is often a script of somebody's.
fn plain(url: Url) -> Result<Url, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:%?=&+[]".contains(c);
    if url.as_str().chars().all(is_plain) { Ok(url) } else { Err("an endpoint has characters that none needs") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RELAY: Rules<'static> = Rules::Relay("https://relay.example");

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
        let read_as = |document: &Value| read(document.to_string().as_bytes(), &RELAY);
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
            let refused = read(document.to_string().as_bytes(), &RELAY);
            assert_eq!(refused, Err(expected.into()), "{member} {value}");
        }
        assert!(read(b"<html>", &RELAY).is_err());
    }

    #[test]
    fn issuer_that_a_resource_named_is_compared_byte_for_byte_and_may_keep_endpoints_elsewhere() {
        let rules = Rules::Issuer { issuer: "https://relay.example", allow_insecure: false };
        let read_with = |member: &str, value: &str, rules: &Rules<'_>| {
            let mut document = document();
            document[member] = json!(value);
            read(document.to_string().as_bytes(), rules).map(|found| found.token)
        };
        assert!(read_with("issuer", "https://relay.example/", &rules).is_err());
        assert!(read_with("issuer", "https://RELAY.example", &rules).is_err());
        let elsewhere = "https://token.example/";
        assert_eq!(read_with("token_endpoint", elsewhere, &rules).as_deref(), Ok(elsewhere));
        let plain = "http://token.example/";
        assert!(read_with("token_endpoint", plain, &rules).is_err());
        let lax = Rules::Issuer { issuer: "https://relay.example", allow_insecure: true };
        assert_eq!(read_with("token_endpoint", plain, &lax).as_deref(), Ok(plain));
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
