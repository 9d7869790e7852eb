//! What the last request of a connection brought, opened.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE};

use super::{Accepts, Endpoint, Session};
use crate::http::RequestHead;
use crate::mcp::header;
use crate::oauth::Principal;
use crate::seal::Memo;

/// The head, the token and the session that a connection's last request had: its next one has most likely the same.
#[derive(Debug, Default)]
pub struct Opened {
    pub(super) head: Judged,
    pub(super) principal: Memo<Arc<Principal>>,
    pub(super) session: Memo<Arc<Session>, Arc<Principal>>,
}

/// The last head of a request to `/mcp` that was found good, whoever sent it, and what it means.
///
/// It is kept as text without what is secret in it (tokens are compared by their [`Memo`], in constant time; cookies are
/// nothing to an endpoint) and without the body's length: none of it matters to that judgement, of which nothing else but
/// the relay's settings is a part.
#[derive(Default)]
pub(super) struct Judged(Option<(Vec<u8>, Endpoint, Accepts)>);

impl Judged {
    /// What a head means that is the same as the last good one.
    pub(super) fn recall(&self, head: &RequestHead) -> Option<(Endpoint, Accepts)> {
        let (text, endpoint, accepts) = self.0.as_ref()?;
        let mut rest = text.as_slice();
        let is_same = pieces(head).all(|piece| rest.strip_prefix(piece).map(|after| rest = after).is_some());
        (is_same && rest.is_empty()).then(|| (endpoint.clone(), *accepts))
    }

    /// Keeps a head that was found good.
    pub(super) fn remember(&mut self, head: &RequestHead, endpoint: &Endpoint, accepts: Accepts) {
        let mut text = self.0.take().map(|(text, ..)| text).unwrap_or_default();
        text.clear();
        pieces(head).for_each(|piece| text.extend_from_slice(piece));
        self.0 = Some((text, endpoint.clone(), accepts));
    }
}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Judged").field(&self.0.is_some()).finish()
    }
}

/// What a head consists of, so that two of them are the same where their texts are: no method has a space, no name of a
/// field a colon, and no value a line's end (RFC 9110 section 5).
fn pieces(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let line = [head.method.as_str(), " ", authority, target].into_iter().map(str::as_bytes);
    line.chain(head.headers.iter().flat_map(|(name, value)| {
        let is_standard = *name == AUTHORIZATION || *name == CONTENT_LENGTH || *name == COOKIE;
        let is_left_out = is_standard || name.as_str() == header::SESSION_ID;
        let value = if is_left_out { b"" } else { value.as_bytes() };
        [b"\n", name.as_str().as_bytes(), b":", value]
    }))
}
