//! HTTP as values: what came in, what goes out, and the pure rules between.
//!
//! The types are the `http` crate's, so that adapters pass heads through without copying. Sockets are the adapters'.

pub mod bodies;
pub mod crowd;
pub mod endpoint;
pub mod fetch;
pub mod fields;
pub mod form;
pub mod forwarded;
pub(crate) mod freshness;
pub mod page;
pub mod reach;
pub(crate) mod redirect;
pub mod retry;
pub mod rules;
pub(crate) mod text;

use alloc::string::String;
use core::net::IpAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, StatusCode, Uri};

/// The head of a request as the adapter read it.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The request target: path and query.
    pub uri: Uri,
    /// All header fields; a missing `Host` of HTTP/1.0 stays missing.
    pub headers: HeaderMap,
    /// The address the connection came from.
    pub peer: IpAddr,
}

impl RequestHead {
    /// A header's value, if it is present once and is visible ASCII.
    #[must_use]
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let value = visible(all.next()?)?;
        all.next().is_none().then_some(value)
    }
}

/// A field's value, if it is visible ASCII. What it may hold is visible where it is ASCII: [`HeaderValue::to_str`] says
/// the same, and takes longer, since it goes byte by byte.
fn visible(value: &HeaderValue) -> Option<&str> {
    core::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii())
}

/// The head of a reply whose body follows in pieces.
#[derive(Debug, Clone)]
pub struct ReplyHead {
    /// The status.
    pub status: StatusCode,
    /// Header fields, without the ones that framing decides (`Content-Length`, `Transfer-Encoding`).
    pub headers: HeaderMap,
    /// The body's length in bytes when it is known beforehand; otherwise it is sent chunked.
    pub length: Option<u64>,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Header fields, without the ones that framing decides.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// A reply without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A JSON reply that no cache may keep, and no browser may take for anything else.
    #[must_use]
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::json_beside(HeaderMap::new(), status, body)
    }

    /// The same, with these header fields besides.
    #[must_use]
    pub fn json_beside(headers: HeaderMap, status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers, body: body.into() }
            .with(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    /// A plain-text reply, likewise.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::empty(status)
            .with(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
            .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
            .with_body(body.into())
    }

    /// The same reply with header `name` set to `value`.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The same reply with `body`.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}
