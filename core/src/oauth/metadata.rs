//! The discovery documents: authorization server metadata (RFC 8414) and protected resource metadata (RFC 9728).

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;

use super::scopes::{Scope, Scopes};
use super::{Role, Settings, device};

/// The document of `/.well-known/oauth-authorization-server`.
#[must_use]
pub fn authorization_server(settings: &Settings) -> Bytes {
    json(&AuthorizationServer {
        issuer: &settings.public_url,
        authorization_endpoint: settings.url("/authorize"),
        token_endpoint: settings.url("/token"),
        registration_endpoint: settings.url("/register"),
        revocation_endpoint: settings.url("/revoke"),
        device_authorization_endpoint: settings.url("/device_authorization"),
        introspection_endpoint: settings.url("/introspect"),
        introspection_endpoint_auth_methods_supported: &["none"],
        scopes_supported: &Scope::ALL.map(Scope::as_str),
        response_types_supported: &["code"],
        response_modes_supported: &["query"],
        grant_types_supported: &["authorization_code", "refresh_token", device::GRANT_TYPE],
        token_endpoint_auth_methods_supported: AUTH_METHODS,
        revocation_endpoint_auth_methods_supported: AUTH_METHODS,
        code_challenge_methods_supported: &["S256"],
        authorization_response_iss_parameter_supported: true,
        client_id_metadata_document_supported: true,
    })
}

/// The protected resource document for `path`: `/mcp` or a path under it. It says the same for every such path, so that
/// it does not tell which devices and servers there are.
#[must_use]
pub fn protected_resource(settings: &Settings, path: &str) -> Bytes {
    json(&ProtectedResource {
        resource: settings.url(path),
        authorization_servers: [&settings.public_url],
        scopes_supported: Scopes::all(Role::Client).iter().map(Scope::as_str).collect(),
        bearer_methods_supported: &["header"],
        resource_name: "mcp-local-tunnel",
    })
}

/// Client authentication at `/token` and `/revoke`. `none` stands first: clients read this list to choose how they
/// identify themselves.
const AUTH_METHODS: &[&str] = &["none", "client_secret_basic", "client_secret_post"];

#[derive(Serialize)]
struct AuthorizationServer<'a> {
    issuer: &'a str,
    authorization_endpoint: alloc::string::String,
    token_endpoint: alloc::string::String,
    registration_endpoint: alloc::string::String,
    revocation_endpoint: alloc::string::String,
    device_authorization_endpoint: alloc::string::String,
    introspection_endpoint: alloc::string::String,
    introspection_endpoint_auth_methods_supported: &'a [&'a str],
    scopes_supported: &'a [&'a str],
    response_types_supported: &'a [&'a str],
    response_modes_supported: &'a [&'a str],
    grant_types_supported: &'a [&'a str],
    token_endpoint_auth_methods_supported: &'a [&'a str],
    revocation_endpoint_auth_methods_supported: &'a [&'a str],
    code_challenge_methods_supported: &'a [&'a str],
    authorization_response_iss_parameter_supported: bool,
    client_id_metadata_document_supported: bool,
}

#[derive(Serialize)]
struct ProtectedResource<'a> {
    resource: alloc::string::String,
    authorization_servers: [&'a str; 1],
    scopes_supported: Vec<&'a str>,
    bearer_methods_supported: &'a [&'a str],
    resource_name: &'a str,
}

fn json(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).expect("strings and lists of strings always serialise").into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::{Clients, Local, Login};

    fn settings() -> Settings {
        Settings {
            audit: false,
            public_url: "https://relay.example".into(),
            login: Login::Local(Local { users: std::vec::Vec::new() }),
            clients: Clients::default(),
            requests_per_minute: crate::limits::REQUESTS_PER_MINUTE,
        }
    }

    #[test]
    fn issuer_is_one_string_everywhere() {
        let server: Value = serde_json::from_slice(&authorization_server(&settings())).unwrap();
        let resource: Value = serde_json::from_slice(&protected_resource(&settings(), "/mcp")).unwrap();
        assert_eq!(server["issuer"], "https://relay.example");
        assert_eq!(resource["authorization_servers"][0], server["issuer"]);
    }

    #[test]
    fn only_s256_and_code_are_offered() {
        let server: Value = serde_json::from_slice(&authorization_server(&settings())).unwrap();
        assert_eq!(server["code_challenge_methods_supported"], serde_json::json!(["S256"]));
        assert_eq!(server["response_types_supported"], serde_json::json!(["code"]));
        assert_eq!(server["authorization_response_iss_parameter_supported"], true);
        assert!(server["token_endpoint_auth_methods_supported"].as_array().unwrap().contains(&"none".into()));
        assert_eq!(server["client_id_metadata_document_supported"], true);
    }

    #[test]
    fn scopes_are_told_to_whom_they_concern() {
        let server: Value = serde_json::from_slice(&authorization_server(&settings())).unwrap();
        assert_eq!(server["scopes_supported"], serde_json::json!(["mcp:tools", "mcp:read", "tunnel:manage", "agent"]));
        let resource: Value = serde_json::from_slice(&protected_resource(&settings(), "/mcp")).unwrap();
        assert_eq!(resource["scopes_supported"], serde_json::json!(["mcp:tools", "mcp:read", "tunnel:manage"]));
    }

    #[test]
    fn device_grant_is_offered() {
        let server: Value = serde_json::from_slice(&authorization_server(&settings())).unwrap();
        assert_eq!(server["device_authorization_endpoint"], "https://relay.example/device_authorization");
        assert!(server["grant_types_supported"].as_array().unwrap().contains(&device::GRANT_TYPE.into()));
    }

    #[test]
    fn resource_is_the_url_that_people_type() {
        let document: Value = serde_json::from_slice(&protected_resource(&settings(), "/mcp/files")).unwrap();
        assert_eq!(document["resource"], "https://relay.example/mcp/files");
        assert_eq!(document["bearer_methods_supported"], serde_json::json!(["header"]));
    }
}
