//! JSON-RPC on raw text: what a client sent is kept as it came, so that it can be given back byte for byte.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object, each as it was written.
pub(crate) type Members = BTreeMap<String, Box<RawValue>>;

/// A request, a notification or a response.
#[derive(Deserialize)]
pub(crate) struct Message {
    pub(crate) id: Option<Box<RawValue>>,
    pub(crate) method: Option<String>,
    pub(crate) params: Option<Box<RawValue>>,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) error: Option<Box<RawValue>>,
}

/// Why a request has no result. `status` is what HTTP says in the modern era when nothing was sent before.
pub(crate) struct Failure {
    code: i64,
    message: String,
    data: Option<String>,
    pub(crate) status: u16,
}

impl Failure {
    /// An error of a handler: in band, with status 200.
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None, status: 200 }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    pub(crate) fn unknown_method(method: &str) -> Self {
        Self::new(-32601, format!("Method not found: {method}")).status(404)
    }

    /// The client did not declare what the request needs.
    pub(crate) fn missing_capability(needed: &Value) -> Self {
        let data = format!(r#"{{"requiredCapabilities":{needed}}}"#);
        Self::new(-32021, "Missing required client capability").data(data).status(400)
    }

    pub(crate) fn data(self, data: impl Into<String>) -> Self {
        Self { data: Some(data.into()), ..self }
    }

    pub(crate) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Is it about the protocol's version?
    pub(crate) fn is_version(&self) -> bool {
        self.code == -32022
    }

    /// The error object.
    pub(crate) fn text(&self) -> String {
        let data = self.data.as_ref().map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
        format!(r#"{{"code":{},"message":{}{data}}}"#, self.code, quoted(&self.message))
    }
}

/// The members of `text`; none if it is no object.
pub(crate) fn members(text: &str) -> Members {
    serde_json::from_str(text).unwrap_or_default()
}

/// What a member says, null if it is not there.
pub(crate) fn value(members: &Members, name: &str) -> Value {
    members.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `object` with `more` members before its own.
pub(crate) fn with_members(object: &str, more: &str) -> String {
    let rest = object.trim_start().trim_start_matches('{').trim_start();
    let comma = if rest.starts_with('}') { "" } else { "," };
    format!("{{{more}{comma}{rest}")
}

pub(crate) fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

pub(crate) fn error(id: &str, failure: &Failure) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, failure.text())
}

pub(crate) fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":{},"params":{params}}}"#, quoted(method))
}

pub(crate) fn request(id: u64, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":{params}}}"#, quoted(method))
}
