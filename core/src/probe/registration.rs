//! Being a client: registered dynamically (RFC 7591), or given.

use alloc::string::{String, ToString};

use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::contract::GivenClient;
use crate::http::fetch::{Fetch, Fetched};
use crate::limits;
use crate::secret::Secret;
use crate::signin::metadata::Metadata;
use crate::signin::request::{self, SecretIn};

/// A client that a server knows. It is that server's alone.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Whose.
    pub(super) issuer: String,
    pub(super) id: String,
    pub(super) secret: Option<(SecretIn, Secret)>,
    /// Whether it was registered here.
    pub(super) registered: bool,
}

impl Known {
    /// The given client. Where its secret goes, the server says; the header is meant when it says nothing (RFC 8414
    /// section 2).
    pub(super) fn given(client: &GivenClient, metadata: &Metadata) -> Self {
        let header = metadata.auth_methods.is_empty() || has(metadata, BASIC);
        let place = if header { SecretIn::Header } else { SecretIn::Body };
        Self {
            issuer: metadata.issuer.clone(),
            id: client.id.clone(),
            secret: client.secret.clone().map(|secret| (place, secret)),
            registered: false,
        }
    }

    /// Reads a registration's answer. A client that got a secret uses it as it was told, or else as it asked.
    pub(super) fn registered(answer: &Fetched, metadata: &Metadata) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Registered {
            client_id: String,
            #[serde(default)]
            client_secret: Option<String>,
            #[serde(default)]
            token_endpoint_auth_method: Option<String>,
        }
        let found: Registered = serde_json::from_slice(&answer.body).ok()?;
        if !is_usable(&found.client_id) {
            return None;
        }
        let method = found.token_endpoint_auth_method.as_deref().or_else(|| method(metadata));
        let secret = match (found.client_secret.filter(|secret| !secret.is_empty()), method) {
            (None, _) | (_, Some(NONE)) => None,
            (Some(secret), Some(POST)) => Some((SecretIn::Body, Secret::new(secret))),
            (Some(secret), _) => Some((SecretIn::Header, Secret::new(secret))),
        };
        Some(Self { issuer: metadata.issuer.clone(), id: found.client_id, secret, registered: true })
    }

    /// As a request needs it.
    pub(super) fn asking<'a>(&'a self, resource: &'a str, scope: Option<&'a str>) -> request::Client<'a> {
        let secret = self.secret.as_ref().map(|(place, secret)| (*place, secret));
        request::Client { id: &self.id, secret, resource, scope }
    }
}

/// The registration (RFC 7591 section 3.1): of a program on somebody's machine, with what MCP clients ask for.
pub(super) fn request(
    endpoint: &str,
    metadata: &Metadata,
    port: u16,
    scope: Option<&str>,
) -> Result<Fetch, &'static str> {
    let method = method(metadata).ok_or("its token endpoint takes no way to authenticate that is known here")?;
    let document = Document {
        client_name: "mcp-local-tunnel probe",
        redirect_uris: [request::redirect_uri(port)],
        application_type: "native",
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: method,
        scope,
    };
    let body = serde_json::to_vec(&document).expect("strings always serialise");
    let mut fetch = request::fetch(Method::POST, endpoint.to_string(), body.into());
    fetch.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(fetch)
}

#[derive(serde::Serialize)]
struct Document<'a> {
    client_name: &'a str,
    redirect_uris: [String; 1],
    application_type: &'a str,
    grant_types: [&'a str; 2],
    response_types: [&'a str; 1],
    token_endpoint_auth_method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

/// How to authenticate: not at all where that is taken, since a program on somebody's machine keeps no secret.
fn method(metadata: &Metadata) -> Option<&'static str> {
    if metadata.auth_methods.is_empty() {
        return Some(BASIC);
    }
    [NONE, BASIC, POST].into_iter().find(|method| has(metadata, method))
}

fn has(metadata: &Metadata, method: &str) -> bool {
    metadata.auth_methods.iter().any(|one| one == method)
}

/// An id that can stand in a URL and before a person.
fn is_usable(id: &str) -> bool {
    (1..=limits::MAX_TOKEN).contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

const NONE: &str = "none";
const BASIC: &str = "client_secret_basic";
const POST: &str = "client_secret_post";

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    use super::*;

    fn metadata(methods: &[&str]) -> Metadata {
        Metadata {
            issuer: "https://i.example".into(),
            authorization: "https://i.example/a".parse().expect("a URL"),
            token: "https://i.example/t".into(),
            revocation: None,
            registration: None,
            device: None,
            introspection: None,
            auth_methods: methods.iter().map(ToString::to_string).collect(),
            promises_iss: false,
        }
    }

    fn place(answer: &Value, methods: &[&str]) -> Option<Option<SecretIn>> {
        let answer =
            Fetched { status: StatusCode::CREATED, headers: HeaderMap::new(), body: answer.to_string().into() };
        Known::registered(&answer, &metadata(methods)).map(|known| known.secret.map(|(place, _)| place))
    }

    #[test]
    fn method_is_one_that_the_server_takes() {
        for (methods, expected) in [
            (&["client_secret_post", "client_secret_basic", "none"][..], Some("none")),
            (&["private_key_jwt", "client_secret_post", "client_secret_basic"], Some("client_secret_basic")),
            (&["client_secret_post"], Some("client_secret_post")),
            (&["private_key_jwt"], None),
            (&[], Some("client_secret_basic")),
        ] {
            let sent = request("https://i.example/r", &metadata(methods), 4, Some("a b"));
            let sent = sent.ok().map(|fetch| serde_json::from_slice::<Value>(&fetch.body).expect("JSON"));
            assert_eq!(sent.as_ref().and_then(|sent| sent["token_endpoint_auth_method"].as_str()), expected);
            if let Some(sent) = sent {
                assert_eq!(sent["redirect_uris"], json!(["http://127.0.0.1:4/callback"]));
                assert_eq!((&sent["application_type"], &sent["scope"]), (&json!("native"), &json!("a b")));
            }
        }
    }

    #[test]
    fn secret_goes_where_the_answer_says_or_else_where_it_was_asked() {
        let answer =
            |method: Value| json!({"client_id": "c", "client_secret": "s", "token_endpoint_auth_method": method});
        assert_eq!(place(&answer(json!("client_secret_post")), &[BASIC]), Some(Some(SecretIn::Body)));
        assert_eq!(place(&answer(json!("client_secret_basic")), &[POST]), Some(Some(SecretIn::Header)));
        assert_eq!(place(&answer(json!("none")), &[BASIC]), Some(None));
        assert_eq!(place(&answer(json!(null)), &[POST]), Some(Some(SecretIn::Body)));
        assert_eq!(place(&answer(json!(null)), &[NONE]), Some(None));
        assert_eq!(place(&json!({"client_id": "c"}), &[BASIC]), Some(None));
    }

    #[test]
    fn answer_without_a_usable_id_is_refused() {
        let long = "c".repeat(limits::MAX_TOKEN + 1);
        for answer in [
            json!({}),
            json!({"client_id": ""}),
            json!({"client_id": "a\u{1b}b"}),
            json!({"client_id": long}),
            json!([]),
        ] {
            assert_eq!(place(&answer, &[]), None, "{answer}");
        }
    }

    #[test]
    fn given_client_authenticates_as_the_server_wants() {
        let given = GivenClient { id: "g".into(), secret: Some(Secret::new("s")) };
        for (methods, expected) in
            [(&[POST][..], SecretIn::Body), (&[POST, BASIC], SecretIn::Header), (&[], SecretIn::Header)]
        {
            let known = Known::given(&given, &metadata(methods));
            assert_eq!(known.secret.map(|(place, _)| place), Some(expected));
        }
    }
}
