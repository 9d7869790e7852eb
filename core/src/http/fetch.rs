//! An outgoing HTTP request as a value.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::reach::Reach;

/// An order to the adapter: make this request. Redirects are never followed. Its `Debug` shows neither query nor body,
/// which carry codes and tokens.
#[derive(Clone)]
pub struct Fetch {
    /// The method.
    pub method: Method,
    /// The absolute URL, `https` or `http`.
    pub url: String,
    /// Header fields, `Host` and framing excepted. Values that are secrets are marked sensitive.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// How long the head of the response may take, connecting included.
    pub timeout: Duration,
    /// How many bytes of body are accepted.
    pub max_body: usize,
    /// Which addresses may be connected to. It is the address itself that is judged, never its name.
    pub reach: Reach,
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("method", &self.method)
            .field("url", &self.url.split('?').next().unwrap_or_default())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A whole response. Its `Debug` shows only status and size.
#[derive(Clone)]
pub struct Fetched {
    /// The status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body, at most the `max_body` asked for.
    pub body: Bytes,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Why a fetch brought no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL is not one that can be fetched.
    #[error("the URL cannot be used: {0}")]
    Url(String),
    /// The name stands for no address that the fetch may reach.
    #[error("it is at no address that may be connected to")]
    OutOfReach,
    /// No connection: name not found, refused, unreachable.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The TLS handshake failed.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The body is longer than accepted.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The connection broke or did not speak HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// What happens to a fetch whose body is read in pieces (local HTTP servers). `Head` comes first, then `Chunk`s, then
/// `End` or `Failed`, after which nothing follows.
#[derive(Debug, Clone)]
pub enum FetchEvent {
    /// The response's head.
    Head {
        /// The status.
        status: StatusCode,
        /// Header fields.
        headers: HeaderMap,
    },
    /// A piece of the body.
    Chunk(Bytes),
    /// The body is complete.
    End,
    /// No more will come.
    Failed(FetchError),
}

impl FetchEvent {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::End | Self::Failed(_))
    }
}
