//! Which call of which tunnel is which request of which server, and the progress tokens of both.
//!
//! Callers choose ids and tokens without knowing of each other, so that both collide: a server sees ids and tokens of
//! the agent's own making, and a caller hears of its own.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;

use super::cx::{RequestId, Slot};
use crate::id::{ConnId, StreamId};
use crate::mcp::code;
use crate::rpc::RawId;
use crate::rpc::object::{self, NotAnObject, Object};

/// The calls under way.
#[derive(Debug, Default)]
pub(super) struct Routes {
    by_request: BTreeMap<RequestId, Route>,
    by_stream: BTreeMap<(ConnId, StreamId), RequestId>,
}

/// Both ends of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) conn: ConnId,
    pub(super) stream: StreamId,
    pub(super) slot: Slot,
}

impl Routes {
    /// Adds a call. `false`, and nothing is added: that stream has a call already.
    pub(super) fn add(&mut self, request: RequestId, route: Route) -> bool {
        let stream = (route.conn, route.stream);
        if self.by_stream.contains_key(&stream) {
            return false;
        }
        self.by_stream.insert(stream, request);
        self.by_request.insert(request, route);
        true
    }

    /// Where a request's messages go.
    pub(super) fn get(&self, request: RequestId) -> Option<Route> {
        self.by_request.get(&request).copied()
    }

    /// The call of a stream.
    pub(super) fn of_stream(&self, conn: ConnId, stream: StreamId) -> Option<(RequestId, Route)> {
        let request = *self.by_stream.get(&(conn, stream))?;
        Some((request, self.get(request)?))
    }

    /// Gives a call to another run of its server.
    pub(super) fn redirect(&mut self, request: RequestId, slot: Slot) {
        if let Some(route) = self.by_request.get_mut(&request) {
            route.slot = slot;
        }
    }

    /// Takes a call out by its request.
    pub(super) fn take(&mut self, request: RequestId) -> Option<Route> {
        let route = self.by_request.remove(&request)?;
        self.by_stream.remove(&(route.conn, route.stream));
        Some(route)
    }

    /// Takes a call out by its stream.
    pub(super) fn take_stream(&mut self, conn: ConnId, stream: StreamId) -> Option<(RequestId, Route)> {
        let request = self.by_stream.remove(&(conn, stream))?;
        Some((request, self.by_request.remove(&request)?))
    }

    /// Takes all calls of a connection out.
    pub(super) fn take_all(&mut self, conn: ConnId) -> Vec<(RequestId, Route)> {
        let streams: Vec<StreamId> =
            self.by_stream.keys().filter(|(of, _)| *of == conn).map(|(_, stream)| *stream).collect();
        streams.into_iter().filter_map(|stream| self.take_stream(conn, stream)).collect()
    }

    /// How many calls are under way.
    pub(super) fn len(&self) -> usize {
        self.by_request.len()
    }

    /// How many streams of tunnels have one.
    pub(super) fn streams(&self) -> usize {
        self.by_stream.len()
    }
}

/// A caller that wants to hear how far its call is: its own token, as raw JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    token: Bytes,
}

impl Progress {
    /// The token, raw.
    pub(super) fn token(&self) -> &Bytes {
        &self.token
    }

    /// The progress notification `json` with the caller's own token.
    pub(super) fn restore(&self, json: &Bytes, params: &Object) -> Option<Bytes> {
        let params = params.replace(&[(TOKEN, &self.token)]);
        Some(Object::parse(json).ok()?.replace(&[("params", &params)]))
    }
}

/// The params with a progress token that no other request has, and the caller's own one; both only if it gave one.
/// Absent params stay absent.
pub(super) fn own_progress_token(params: &Bytes, request: RequestId) -> Result<(Bytes, Option<Progress>), NotAnObject> {
    if params.is_empty() {
        return Ok((Bytes::new(), None));
    }
    let meta = object::value_of(params, "_meta")?.map(|meta| params.slice_ref(meta));
    let meta = meta.and_then(|meta| Object::parse(&meta).ok());
    let token = |meta: &Object| meta.get(TOKEN).filter(|token| token != "null");
    let Some((meta, token)) = meta.and_then(|meta| token(&meta).map(|token| (meta, token))) else {
        return Ok((params.clone(), None));
    };
    let object = Object::parse(params)?;
    let meta = meta.replace(&[(TOKEN, RawId::from_number(request.0).as_bytes())]);
    // Copied: a few bytes must not keep all params in memory for as long as the call is open.
    let progress = Progress { token: Bytes::copy_from_slice(&token) };
    Ok((object.replace(&[("_meta", &meta)]), Some(progress)))
}

/// The request that a progress notification is about, and its params.
pub(super) fn progress_of(params: &Bytes) -> Option<(RequestId, Object)> {
    let params = Object::parse(params).ok()?;
    let request = RawId::number_of(&params.get(TOKEN)?)?;
    Some((RequestId(request), params))
}

/// The code of a raw `error` object.
pub(super) fn error_code(error: &[u8]) -> i64 {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    serde_json::from_slice::<Error>(error).map_or(code::INTERNAL_ERROR, |error| error.code)
}

const TOKEN: &str = "progressToken";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::object;

    const PARAMS: &str = r#"{"name":"x","arguments":{"n":1e400}, "_meta":{"a":null,"progressToken":"mine","b":1}}"#;

    fn text(bytes: &Bytes) -> &str {
        core::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn progress_token_is_exchanged_and_nothing_else() {
        let (params, progress) = own_progress_token(&Bytes::from_static(PARAMS.as_bytes()), RequestId(7)).unwrap();
        assert_eq!(text(&params), PARAMS.replace("\"mine\"", "7"));
        assert_eq!(progress, Some(Progress { token: Bytes::from_static(b"\"mine\"") }));
    }

    #[test]
    fn params_without_token_stay_as_they_are() {
        for params in ["", "{}", r#"{"_meta":{}}"#, r#"{"_meta":3,"progressToken":1}"#, r#"{ "_meta" : null }"#] {
            let params = Bytes::from_static(params.as_bytes());
            assert_eq!(own_progress_token(&params, RequestId(7)), Ok((params, None)));
        }
        assert_eq!(own_progress_token(&Bytes::from_static(b"[1]"), RequestId(7)), Err(NotAnObject));
        assert_eq!(own_progress_token(&Bytes::from_static(b"{\"a\":}"), RequestId(7)), Err(NotAnObject));
    }

    #[test]
    fn token_is_restored_with_its_type() {
        let json = Bytes::from_static(
            br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":0.50}}"#,
        );
        let params = object::get(&json, "params").unwrap();
        let (request, params) = progress_of(&params).unwrap();
        assert_eq!(request, RequestId(7));
        let progress = Progress { token: Bytes::from_static(b"\"7\"") };
        assert_eq!(
            text(&progress.restore(&json, &params).unwrap()),
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"7","progress":0.50}}"#
        );
    }

    #[test]
    fn stream_has_one_call_at_a_time() {
        let mut routes = Routes::default();
        let route = |conn, stream| Route { conn: ConnId(conn), stream: StreamId(stream), slot: Slot(0) };
        assert!(routes.add(RequestId(1), route(1, 1)));
        assert!(!routes.add(RequestId(2), route(1, 1)));
        assert!(routes.add(RequestId(2), route(1, 2)));
        assert!(routes.add(RequestId(3), route(2, 1)));
        assert_eq!(routes.take(RequestId(1)), Some(route(1, 1)));
        assert_eq!(routes.take(RequestId(1)), None);
        assert_eq!(routes.take_all(ConnId(1)), [(RequestId(2), route(1, 2))]);
        assert_eq!(routes.take_stream(ConnId(2), StreamId(1)), Some((RequestId(3), route(2, 1))));
        assert_eq!(routes.len(), 0);
    }

    #[test]
    fn error_without_a_code_is_internal() {
        assert_eq!(error_code(br#"{"code":-32602,"message":"x"}"#), -32602);
        assert_eq!(error_code(br#"{"message":"x"}"#), code::INTERNAL_ERROR);
    }
}
