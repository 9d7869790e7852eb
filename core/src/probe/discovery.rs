//! Where the metadata is, and what a protected resource says of itself (RFC 9728).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use url::Url;

use crate::http::endpoint;

/// A resource's description, as far as a client needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// Its identifier, exactly as it was published: what `resource` in requests must be.
    pub(super) resource: String,
    /// Who issues tokens for it.
    pub(super) issuer: String,
    /// What tokens for it can allow.
    pub(super) scopes: Option<String>,
}

#[derive(serde::Deserialize)]
struct Document {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
}

impl Resource {
    /// Reads the description of the endpoint `url`. Of several issuers the first is taken.
    pub(super) fn read(body: &[u8], url: &str) -> Result<Self, &'static str> {
        let found: Document = serde_json::from_slice(body).map_err(|_| "its resource metadata cannot be read")?;
        if !covers(&found.resource, url) {
            return Err("its resource metadata is another resource's");
        }
        let issuer = found.authorization_servers.into_iter().next();
        let issuer = issuer.ok_or("its resource metadata names no authorization server")?;
        let scopes = found.scopes_supported.map(|scopes| scopes.join(" ")).filter(|scopes| !scopes.is_empty());
        Ok(Self { resource: found.resource, issuer, scopes })
    }

    /// What an endpoint without any description is taken for: its origin issues the tokens (2025-03-26, Authorization,
    /// Server Metadata Discovery).
    pub(super) fn undescribed(url: &str) -> Self {
        let origin = Url::parse(url).map_or_else(|_| url.to_string(), |url| url.origin().ascii_serialization());
        Self { resource: url.to_string(), issuer: origin, scopes: None }
    }
}

/// Whether tokens for `resource` open `url`: it is that, or above it on the same origin.
fn covers(resource: &str, url: &str) -> bool {
    let (Some(resource), Some(url)) = (endpoint::absolute(resource), endpoint::absolute(url)) else { return false };
    let above = resource.path().trim_end_matches('/');
    let below = url.path().strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    resource.origin() == url.origin() && below && (resource.query().is_none() || resource.query() == url.query())
}

/// Where the description of the endpoint `url` may be when it does not say (RFC 9728 section 3.1): for its path, then for
/// its whole origin.
pub(super) fn resource_places(url: &Url) -> Vec<String> {
    let (origin, path) = parts(url);
    let mut places = vec![format!("{origin}/.well-known/oauth-protected-resource{path}")];
    if !path.is_empty() {
        places.push(format!("{origin}/.well-known/oauth-protected-resource"));
    }
    places
}

/// Where the metadata of an issuer may be (RFC 8414 section 3.1, OpenID Connect Discovery section 4.1), in the order of
/// MCP 2025-11-25, Authorization Server Metadata Discovery.
pub(super) fn issuer_places(issuer: &Url) -> Vec<String> {
    let (origin, path) = parts(issuer);
    let mut places = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        places.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    places
}

/// Origin and path, without a slash between them or at the end.
fn parts(url: &Url) -> (String, &str) {
    (url.origin().ascii_serialization(), url.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "https://a.example/mcp";

    fn read(document: &Value) -> Result<Resource, &'static str> {
        Resource::read(document.to_string().as_bytes(), URL)
    }

    #[test]
    fn description_must_be_the_endpoints() {
        for (resource, good) in [
            ("https://a.example/mcp", true),
            ("https://a.example/mcp/", true),
            ("https://a.example", true),
            ("https://a.example/", true),
            ("https://A.example:443/mcp", true),
            ("https://a.example/mc", false),
            ("https://a.example/mcp/x", false),
            ("https://a.example/mcp?x", false),
            ("https://b.example/mcp", false),
            ("http://a.example/mcp", false),
            ("https://a.example:8443/mcp", false),
            ("https://a.example@b.example/mcp", false),
            ("/mcp", false),
            ("", false),
        ] {
            let found = read(&json!({"resource": resource, "authorization_servers": ["https://i.example"]}));
            assert_eq!(found.is_ok(), good, "{resource}");
        }
    }

    #[test]
    fn description_gives_identifier_issuer_and_scopes_as_they_stand() {
        let found = read(&json!({
            "resource": "https://A.example",
            "authorization_servers": ["https://i.example/x", "https://j.example"],
            "scopes_supported": ["a", "b"],
        }))
        .expect("read");
        assert_eq!(found.resource, "https://A.example");
        assert_eq!((found.issuer.as_str(), found.scopes.as_deref()), ("https://i.example/x", Some("a b")));
        let bare =
            read(&json!({"resource": URL, "authorization_servers": ["https://i.example"], "scopes_supported": []}));
        assert_eq!(bare.expect("read").scopes, None);
        assert!(read(&json!({"resource": URL})).is_err());
        assert!(read(&json!(["x"])).is_err());
    }

    #[test]
    fn places_are_those_of_the_specifications_in_their_order() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        let root = "https://a.example/.well-known";
        assert_eq!(
            resource_places(&url("https://a.example/x/mcp?y=1")),
            [format!("{root}/oauth-protected-resource/x/mcp"), format!("{root}/oauth-protected-resource")]
        );
        assert_eq!(resource_places(&url("https://a.example")), [format!("{root}/oauth-protected-resource")]);
        assert_eq!(
            issuer_places(&url("https://a.example/t/")),
            [
                format!("{root}/oauth-authorization-server/t"),
                format!("{root}/openid-configuration/t"),
                "https://a.example/t/.well-known/openid-configuration".into(),
            ]
        );
        assert_eq!(
            issuer_places(&url("https://a.example")),
            [format!("{root}/oauth-authorization-server"), format!("{root}/openid-configuration")]
        );
    }
}
