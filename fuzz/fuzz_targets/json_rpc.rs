//! Any body: the envelope is read as serde_json reads it, part for part, and refused for a reason that is there.
#![no_main]

use std::fmt;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tunnel_core::limits;
use tunnel_core::rpc::{self, Message, RawId};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let members = serde_json::from_slice::<Members<'_>>(data);
    match (rpc::parse(&body), members) {
        (Ok(message), Ok(members)) => members.compare(&message),
        (Ok(message), Err(error)) => panic!("{message:?} was read of what is no object: {error}"),
        (Err(error), Ok(members)) => assert!(!members.is_fine(), "{error:?}"),
        (Err(_), Err(_)) => {}
    }
});

/// An object's members, in their order.
#[derive(Debug)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, raw)| raw.get())
    }

    /// Every part stands in the body, and is that member.
    fn compare(&self, message: &Message) {
        assert!(!self.is_twice(), "{message:?}");
        let is_id = |id: Option<&RawId>| {
            let expected = self.get("id").filter(|raw| *raw != "null").map(str::as_bytes);
            assert_eq!(id.map(RawId::as_bytes), expected);
        };
        let is_named = |method: &str| assert_eq!(self.text("method").as_deref(), Some(method));
        let is_params = |params: &[u8]| assert_eq!(params, self.get("params").unwrap_or_default().as_bytes());
        assert_eq!(self.text("jsonrpc").as_deref(), Some("2.0"));
        match message {
            Message::Request { id, method, params } => {
                is_id(Some(id));
                is_named(method);
                is_params(params);
            }
            Message::Notification { method, params } => {
                is_id(None);
                is_named(method);
                is_params(params);
            }
            Message::Response { id, outcome } => {
                is_id(id.as_ref());
                let (name, part) = match outcome {
                    Ok(result) => ("result", result),
                    Err(error) => ("error", error),
                };
                assert_eq!(Some(&part[..]), self.get(name).map(str::as_bytes));
            }
        }
    }

    /// A request, a notification or a response that nobody could refuse.
    fn is_fine(&self) -> bool {
        let id = self.get("id");
        let is_id =
            |raw: &str| raw.len() <= limits::MAX_ID && raw.starts_with(['"', '-']) | raw.starts_with(char::is_numeric);
        let is_said = |name: &str| self.get(name).is_some();
        let is_call = self.text("method").is_some()
            && self.get("params").is_none_or(|raw| raw.starts_with(['{', '[', 'n']))
            && id.is_none_or(is_id)
            && !is_said("result")
            && !is_said("error");
        let is_answer = !is_said("method") && is_said("result") && !is_said("error") && id.is_some_and(is_id);
        !self.is_twice() && self.text("jsonrpc").as_deref() == Some("2.0") && (is_call || is_answer)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// Whether a member of the envelope stands twice.
    fn is_twice(&self) -> bool {
        ["jsonrpc", "id", "method", "params", "result", "error"]
            .into_iter()
            .any(|name| self.0.iter().filter(|(key, _)| key == name).count() > 1)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }
        deserializer.deserialize_map(All).map(Self)
    }
}
