//! Puts JSON-RPC messages together from raw parts. Nothing is checked or encoded again: params, results and error
//! objects are copied as they are, and must be JSON.

use bytes::{BufMut, Bytes, BytesMut};

use super::{RawId, escaped, quoted};

/// A request; empty `params` are left out.
#[must_use]
pub fn request(id: &RawId, method: &str, params: &[u8]) -> Bytes {
    let method = escaped(method);
    let parts = [HEAD, ID, id.as_bytes(), METHOD, method.as_bytes(), QUOTE, label(PARAMS, params), params, END];
    // A process is sent it as a line, whose end has room so.
    join_with_room(&parts, 1)
}

/// A notification; empty `params` are left out.
#[must_use]
pub fn notification(method: &str, params: &[u8]) -> Bytes {
    let method = escaped(method);
    join(&[HEAD, METHOD, method.as_bytes(), QUOTE, label(PARAMS, params), params, END])
}

/// A response with a raw `result`.
#[must_use]
pub fn result(id: &RawId, result: &[u8]) -> Bytes {
    join(&[HEAD, ID, id.as_bytes(), RESULT, result, END])
}

/// A response with an error made of its parts; without an id (`null`) when the request's could not be read.
#[must_use]
pub fn error(id: Option<&RawId>, code: i64, message: &str, data: Option<&[u8]>) -> Bytes {
    raw_error(id, &error_object(code, message, data))
}

/// A response with a raw `error` object.
#[must_use]
pub fn raw_error(id: Option<&RawId>, object: &[u8]) -> Bytes {
    join(&[HEAD, ID, id.map_or(b"null", RawId::as_bytes), ERROR, object, END])
}

/// An `error` object; `data` is raw JSON.
#[must_use]
pub fn error_object(code: i64, message: &str, data: Option<&[u8]>) -> Bytes {
    let code = alloc::format!("{{\"code\":{code},\"message\":");
    let message = quoted(message);
    let data = data.unwrap_or_default();
    join(&[code.as_bytes(), message.as_bytes(), label(b",\"data\":", data), data, END])
}

/// What goes before and after a raw `result` that is streamed.
#[must_use]
pub fn around_result(id: &RawId) -> (Bytes, Bytes) {
    (join(&[HEAD, ID, id.as_bytes(), RESULT]), Bytes::from_static(END))
}

/// What goes before and after a raw `error` object that is streamed.
#[must_use]
pub fn around_error(id: &RawId) -> (Bytes, Bytes) {
    (join(&[HEAD, ID, id.as_bytes(), ERROR]), Bytes::from_static(END))
}

/// A batch of whole messages (revision 2025-03-26).
#[must_use]
pub fn batch<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = BytesMut::new();
    for message in messages {
        out.put_u8(if out.is_empty() { b'[' } else { b',' });
        out.put_slice(message);
    }
    if out.is_empty() {
        out.put_u8(b'[');
    }
    out.put_u8(b']');
    out.freeze()
}

const HEAD: &[u8] = b"{\"jsonrpc\":\"2.0\"";
const ID: &[u8] = b",\"id\":";
const METHOD: &[u8] = b",\"method\":\"";
const QUOTE: &[u8] = b"\"";
const PARAMS: &[u8] = b",\"params\":";
const RESULT: &[u8] = b",\"result\":";
const ERROR: &[u8] = b",\"error\":";
const END: &[u8] = b"}";

/// The label of a member that is left out when its value is empty.
fn label<'a>(label: &'a [u8], value: &[u8]) -> &'a [u8] {
    if value.is_empty() { b"" } else { label }
}

fn join(parts: &[&[u8]]) -> Bytes {
    join_with_room(parts, 0)
}

fn join_with_room(parts: &[&[u8]], room: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() + room);
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::rpc::{Message, is_batch, object, parse, parse_batch, string};

    fn id() -> RawId {
        RawId::from_raw(br#""a\"1""#).unwrap()
    }

    #[test]
    fn requests_and_notifications_read_back() {
        for params in ["", "{}", "[1]", "null", r#"{"n":1e400}"#] {
            let method: Arc<str> = "odd \"method\"\n".into();
            let (params, id) = (Bytes::from(params), id());
            let text = request(&id, &method, &params);
            assert_eq!(parse(&text), Ok(Message::Request { id, method: method.clone(), params: params.clone() }));
            let text = notification(&method, &params);
            assert_eq!(parse(&text), Ok(Message::Notification { method, params }));
        }
    }

    #[test]
    fn responses_read_back() {
        let ok = result(&id(), b" null");
        assert_eq!(parse(&ok), Ok(Message::Response { id: Some(id()), outcome: Ok(Bytes::from_static(b"null")) }));
        let object = error_object(-32001, "say \"why\"", Some(b"[1]"));
        assert_eq!(object, Bytes::from_static(br#"{"code":-32001,"message":"say \"why\"","data":[1]}"#));
        for asked in [None, Some(id())] {
            let text = error(asked.as_ref(), -32001, "say \"why\"", Some(b"[1]"));
            assert_eq!(parse(&text), Ok(Message::Response { id: asked, outcome: Err(object.clone()) }));
        }
        assert_eq!(error_object(1, "x", None), Bytes::from_static(br#"{"code":1,"message":"x"}"#));
    }

    #[test]
    fn streamed_envelopes_equal_whole_ones() {
        let (before, after) = around_result(&id());
        assert_eq!(join(&[&before, b"{}", &after]), result(&id(), b"{}"));
        let (before, after) = around_error(&id());
        let object = error_object(1, "x", None);
        assert_eq!(join(&[&before, &object, &after]), raw_error(Some(&id()), &object));
    }

    #[test]
    fn batches_are_arrays() {
        assert_eq!(batch([]), Bytes::from_static(b"[]"));
        assert_eq!(batch([&b"1"[..], b"2"]), Bytes::from_static(b"[1,2]"));
    }

    fn raw_id() -> impl Strategy<Value = RawId> {
        let text = any::<String>().prop_map(|text| quoted(&text));
        let raw =
            prop_oneof![text.prop_filter("short", |raw| raw.len() <= 100), any::<i64>().prop_map(|n| n.to_string())];
        raw.prop_map(|raw| RawId::from_raw(raw.as_bytes()).expect("a string or a number"))
    }

    /// Raw values, with what a JSON library would change.
    fn raw() -> impl Strategy<Value = Bytes> {
        let odd = ["{}", "[1.50,1e400]", "{\"a\" : 1,\"a\":2}", "\"\\u00e9\"", "null"];
        prop_oneof![
            prop::sample::select(odd.to_vec()).prop_map(Bytes::from),
            any::<String>().prop_map(|text| quoted(&text).into())
        ]
    }

    /// What a message may be called with.
    const PARAMS: [&str; 5] = ["", "{}", "[1.50,1e400]", r#"{"a" : 1,"a":2}"#, "null"];

    proptest! {
        #[test]
        fn whatever_is_put_together_is_taken_apart_as_it_was(
            id in raw_id(), method: String, params in prop::sample::select(PARAMS.to_vec()), value in raw(), code: i64, message: String, with_id: bool, data in prop::option::of(raw())
        ) {
            let asked = Message::Request { id: id.clone(), method: method.as_str().into(), params: Bytes::from(params) };
            prop_assert_eq!(parse(&request(&id, &method, params.as_bytes())), Ok(asked));
            let said = Message::Notification { method: method.as_str().into(), params: Bytes::from(params) };
            prop_assert_eq!(parse(&notification(&method, params.as_bytes())), Ok(said));
            let answered = Message::Response { id: Some(id.clone()), outcome: Ok(value.clone()) };
            prop_assert_eq!(parse(&result(&id, &value)), Ok(answered));
            let (before, after) = around_result(&id);
            prop_assert_eq!(join(&[&before, &value, &after]), result(&id, &value));
            let (of, object) = (with_id.then_some(&id), error_object(code, &message, data.as_deref()));
            let failed = Message::Response { id: of.cloned(), outcome: Err(object.clone()) };
            prop_assert_eq!(parse(&error(of, code, &message, data.as_deref())), Ok(failed));
            prop_assert_eq!(object::get(&object, "code"), Some(Bytes::from(code.to_string())));
            let raw = object::get(&object, "message").expect("a message");
            let said = string(&raw).map(|text| text.into_owned());
            prop_assert_eq!(said, Some(message));
        }

        #[test]
        fn batch_is_split_into_what_it_was_made_of(values in prop::collection::vec(raw(), 1..8)) {
            let whole = batch(values.iter().map(|value| &**value));
            prop_assert!(is_batch(&whole) && values.iter().all(|value| is_batch(value) == value.starts_with(b"[")));
            prop_assert_eq!(parse_batch(&whole), Ok(values));
        }
    }
}
