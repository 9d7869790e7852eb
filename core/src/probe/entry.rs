//! The way into an endpoint that a probe has found, for whoever goes on asking there: the same question again and again.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::contract::{Report, Settings};
use super::session::{self, Answer, Session};
use crate::http::fetch::{Fetch, Fetched};
use crate::http::reach::Reach;
use crate::limits;
use crate::mcp::method;
use crate::rpc::{RawId, envelope};
use crate::secret::Secret;

/// The way into an endpoint: the session, the token and the protocol version that were found to work.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was found.
    pub report: Report,
    /// The first number that no request of the session has had.
    pub next_number: u64,
    url: String,
    session: Session,
    token: Option<Secret>,
    version: String,
}

/// What can be asked.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Whether somebody is there: `ping`, and `server/discover` of a server without sessions, which has no other.
    Ping,
    /// The first page of `tools/list`.
    List,
    /// `tools/call`.
    Call {
        /// Which tool.
        tool: String,
        /// With what: a JSON object, which goes out as it is.
        arguments: Box<RawValue>,
    },
}

/// A question that is put together once and asked many times.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: &'static str,
    url: String,
    headers: HeaderMap,
    params: Bytes,
}

impl Entry {
    pub(super) fn new(
        settings: &Settings,
        report: Report,
        session: Session,
        token: Option<Secret>,
        next_number: u64,
    ) -> Self {
        let (url, version) = (settings.url.clone(), settings.version.clone());
        Self { report, next_number, url, session, token, version }
    }

    /// The question for `ask`.
    #[must_use]
    pub fn question(&self, ask: &Ask) -> Question {
        let modern = self.session.version.is_some_and(|version| !version.is_legacy());
        let meta = modern.then(|| session::meta(&self.version));
        let (method, params) = match ask {
            Ask::Ping => (if modern { method::DISCOVER } else { method::PING }, Params::of(meta)),
            Ask::List => (method::TOOLS_LIST, Params::of(meta)),
            Ask::Call { tool, arguments } => {
                (method::TOOLS_CALL, Params { name: Some(tool), arguments: Some(arguments), ..Params::of(meta) })
            }
        };
        Question {
            method,
            url: self.url.clone(),
            headers: self.session.headers(self.session.version, method, params.name, self.token.as_ref()),
            params: serde_json::to_vec(&params).expect("names and JSON are JSON").into(),
        }
    }

    /// The request that ends the session, where there is one (2025-11-25, Streamable HTTP, Session Management).
    #[must_use]
    pub fn farewell(&self) -> Option<Fetch> {
        let headers = || self.session.headers(self.session.version, method::PING, None, self.token.as_ref());
        self.session.is_kept().then(|| request(Method::DELETE, self.url.clone(), headers(), Bytes::new()))
    }
}

impl Question {
    /// The request of that number. A session knows each number once.
    #[must_use]
    pub fn request(&self, number: u64) -> Fetch {
        let body = envelope::request(&RawId::from_number(number), self.method, &self.params);
        request(Method::POST, self.url.clone(), self.headers.clone(), body)
    }

    /// Whether `fetched` is a good answer to the request of that number.
    ///
    /// # Errors
    /// Why it is not, for people.
    pub fn judge(&self, fetched: &Fetched, number: u64) -> Result<(), String> {
        if !fetched.status.is_success() {
            return Err(format!("it answered {}", fetched.status.as_u16()));
        }
        match session::answer(fetched, number)? {
            Answer::Error(error) => Err(format!("it answered {error}")),
            Answer::Result(result) if self.method == method::TOOLS_CALL => called(&result),
            Answer::Result(_) => Ok(()),
        }
    }
}

/// What a call's result says of it.
fn called(result: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Called<'a> {
        #[serde(default)]
        is_error: bool,
        #[serde(default, borrow)]
        result_type: Option<&'a str>,
    }
    match serde_json::from_slice(result) {
        Ok(Called { is_error: true, .. }) => Err("the tool says that it failed".into()),
        Ok(Called { result_type: Some("input_required"), .. }) => Err("the tool asks for something first".into()),
        Ok(_) => Ok(()),
        Err(_) => Err("its result is none of a call".into()),
    }
}

fn request(method: Method, url: String, headers: HeaderMap, body: Bytes) -> Fetch {
    Fetch {
        method,
        url,
        headers,
        body,
        timeout: limits::PROBE_ANSWER_TIMEOUT,
        max_body: limits::MAX_MESSAGE,
        reach: Reach::Anywhere,
    }
}

#[derive(Serialize)]
struct Params<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a RawValue>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
}

impl Params<'_> {
    const fn of(meta: Option<Value>) -> Self {
        Self { name: None, arguments: None, meta }
    }
}
