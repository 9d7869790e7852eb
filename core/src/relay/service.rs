//! What a path is for, and what may be done there.

use alloc::borrow::Cow;
use alloc::format;

use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use maud::html;

use super::{Endpoint, route};
use crate::http::page::page;
use crate::http::rules::Cors;
use crate::http::{Reply, RequestHead};

/// What a path is for.
pub(super) enum Service<'a> {
    /// `/healthz`, `/readyz`: for whoever watches the process, by any name.
    Health,
    /// `/mcp` and what is under it.
    Mcp(Endpoint),
    /// `/ws`.
    Tunnel,
    /// The authorization server's metadata.
    Metadata,
    /// The protected resource document of this path.
    Resource(Cow<'a, str>),
    /// A page for people.
    Page,
    /// A form that people send from a page.
    Form,
    /// An endpoint of sign-in that clients' pages may call too.
    Open,
    /// An endpoint of sign-in that no page may call.
    Closed,
    Nothing,
}

impl<'a> Service<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        match path {
            "/healthz" | "/readyz" => Self::Health,
            "/ws" => Self::Tunnel,
            METADATA_DOCUMENT => Self::Metadata,
            "/" | "/authorize" | "/callback" => Self::Page,
            "/login" | "/consent" | "/device" | "/account" => Self::Form,
            "/token" | "/register" | "/revoke" => Self::Open,
            "/device_authorization" | "/introspect" => Self::Closed,
            // RFC 9728 section 3.1: the resource's path follows the well-known one; none means the one resource.
            RESOURCE_DOCUMENT => Self::Resource(Cow::Borrowed("/mcp")),
            _ => match path.strip_prefix(RESOURCE_DOCUMENT) {
                Some(resource) => route::endpoint(resource)
                    .map_or(Self::Nothing, |endpoint| Self::Resource(Cow::Owned(route::endpoint_path(&endpoint)))),
                None => route::endpoint(path).map_or(Self::Nothing, Self::Mcp),
            },
        }
    }

    /// Which pages may read the answers.
    pub(super) fn cors(&self) -> Cors {
        match self {
            Self::Mcp(_) => Cors::Allowed,
            Self::Metadata | Self::Resource(_) | Self::Open => Cors::Open,
            Self::Health | Self::Tunnel | Self::Page | Self::Form | Self::Closed | Self::Nothing => Cors::Never,
        }
    }

    /// Whether a foreign page's request is refused here. Pages and forms are judged where they are answered.
    pub(super) fn is_guarded(&self) -> bool {
        match self {
            Self::Mcp(_) | Self::Tunnel | Self::Closed => true,
            Self::Health | Self::Metadata | Self::Resource(_) => false,
            Self::Page | Self::Form | Self::Open | Self::Nothing => false,
        }
    }

    /// Answers 405 to a method that this path does not have, naming those that it has.
    pub(super) fn check_method(&self, head: &RequestHead) -> Result<(), Reply> {
        let (allowed, allow): (&[Method], &'static str) = match self {
            Self::Metadata | Self::Resource(_) => (&[Method::GET, Method::HEAD], "GET, HEAD, OPTIONS"),
            Self::Health | Self::Page => (&[Method::GET, Method::HEAD], "GET, HEAD"),
            Self::Tunnel => (&[Method::GET], "GET"),
            Self::Form => (&[Method::GET, Method::HEAD, Method::POST], "GET, HEAD, POST"),
            Self::Open => (&[Method::POST], "POST, OPTIONS"),
            Self::Closed => (&[Method::POST], "POST"),
            Self::Mcp(_) => (&[Method::GET, Method::POST, Method::DELETE], "GET, POST, DELETE, OPTIONS"),
            Self::Nothing => return Ok(()),
        };
        if allowed.contains(&head.method) {
            return Ok(());
        }
        let reply = Reply::text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed here: {allow}\n"));
        Err(reply.with(ALLOW, HeaderValue::from_static(allow)))
    }
}

/// The page of a path where there is nothing.
pub(super) fn not_found() -> Reply {
    page(
        StatusCode::NOT_FOUND,
        "Not found",
        &html! {
            h1 { "There is nothing here" }
            p { "MCP clients connect to " code { "/mcp" } ". " a href="/" { "What this is" } "." }
        },
    )
}

/// Where the authorization server's metadata is (RFC 8414 section 3).
const METADATA_DOCUMENT: &str = "/.well-known/oauth-authorization-server";
/// Where a protected resource's metadata is; the resource's path follows (RFC 9728 section 3.1).
pub(super) const RESOURCE_DOCUMENT: &str = "/.well-known/oauth-protected-resource";
