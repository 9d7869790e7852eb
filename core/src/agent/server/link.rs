//! The link to a server, whichever kind it is.

use alloc::boxed::Box;

use bytes::Bytes;
use http::HeaderMap;

use super::http::Http;
use super::mirror;
use super::stdio::{Full, Stdio};
use crate::agent::cx::{Cx, RequestId};
use crate::id::ChildId;
use crate::mcp::method;
use crate::rpc::{RawId, envelope};

#[derive(Debug)]
pub(super) enum Link {
    Stdio(Stdio),
    Http(Box<Http>),
}

impl Link {
    /// Whether it is to that process.
    pub(super) fn is_child(&self, child: ChildId) -> bool {
        match self {
            Self::Stdio(stdio) => stdio.child == child,
            Self::Http(_) => false,
        }
    }

    /// Sends a request.
    ///
    /// `schema`: the one of the tool that it calls, where fields of the HTTP request repeat arguments of it.
    pub(super) fn ask(
        &mut self,
        request: RequestId,
        method: &str,
        params: &[u8],
        schema: Option<&Bytes>,
        cx: &mut Cx,
    ) -> Result<(), Full> {
        let json = envelope::request(&RawId::from_number(request.0), method, params);
        match self {
            Self::Stdio(stdio) => stdio.send(json, cx)?,
            Self::Http(http) if http.is_modern() => {
                let fields = mirror::fields(method, &Bytes::copy_from_slice(params), schema);
                http.request(request, json, fields, false, cx);
            }
            Self::Http(http) => {
                http.request(request, json, HeaderMap::new(), method == method::INITIALIZE, cx);
            }
        }
        Ok(())
    }

    /// Sends what has no answer. A server that does not read misses it.
    pub(super) fn note(&mut self, json: Bytes, cx: &mut Cx) {
        match self {
            Self::Stdio(stdio) => {
                if stdio.send(json, cx).is_err() {
                    tracing::debug!(child = stdio.child.0, "message dropped: the server does not read");
                }
            }
            Self::Http(http) => http.note(json, cx),
        }
    }

    /// Stops waiting for an answer.
    pub(super) fn abandon(&mut self, request: RequestId, cx: &mut Cx) {
        match self {
            Self::Stdio(_) => {}
            Self::Http(http) => http.abandon(request, cx),
        }
    }
}
