//! A browser: cookies, and forms that it fills in.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE};
use http::{Method, Uri};
use tunnel_core::http::RequestHead;
use tunnel_core::http::form;
use tunnel_core::id::ExchangeId;

use crate::client::Exchange;
use crate::world::World;

/// A person's browser.
#[derive(Debug, Clone, Default)]
pub struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Opens a link to the relay.
    pub fn get(&self, world: &mut World, link: &str) -> ExchangeId {
        world.request(head(Method::GET, link, self.headers()), Bytes::new())
    }

    /// Sends the form of `page`, with what the person adds.
    pub fn submit(&self, world: &mut World, path: &str, page: &Exchange, more: &[(&str, &str)]) -> ExchangeId {
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        headers.insert(ORIGIN, HeaderValue::from_static("null"));
        headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("same-origin"));
        let hidden = hidden_fields(page);
        let hidden = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let body = form::encode(hidden.chain(more.iter().copied()));
        world.request(head(Method::POST, path, headers), Bytes::from(body))
    }

    /// Keeps the cookies that a reply sets.
    ///
    /// # Panics
    ///
    /// When a relay sets a cookie that is none.
    pub fn keep(&mut self, reply: &Exchange) {
        for line in reply.headers.get_all(SET_COOKIE) {
            let line = line.to_str().expect("a cookie is ASCII");
            let (pair, attributes) = line.split_once(';').expect("a cookie has attributes");
            let (name, value) = pair.split_once('=').expect("a cookie is a pair");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
    }

    fn headers(&self) -> HeaderMap {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = HeaderMap::new();
        if !cookies.is_empty() {
            headers.insert(COOKIE, cookies.join("; ").parse().expect("cookies are ASCII"));
        }
        headers
    }
}

/// Where a reply leads.
#[must_use]
pub fn location(reply: &Exchange) -> Option<String> {
    Some(reply.headers.get(LOCATION)?.to_str().ok()?.to_owned())
}

/// A field of a link's query, as it was written.
#[must_use]
pub fn field<'a>(link: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = link.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A program's form.
pub fn post_form(world: &mut World, path: &str, fields: &[(&str, &str)]) -> ExchangeId {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(FORM))]);
    world.request(head(Method::POST, path, headers), Bytes::from(form::encode(fields.iter().copied())))
}

/// A program's JSON.
pub fn post_json(world: &mut World, path: &str, json: &serde_json::Value) -> ExchangeId {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    world.request(head(Method::POST, path, headers), Bytes::from(json.to_string()))
}

const FORM: &str = "application/x-www-form-urlencoded";

fn head(method: Method, link: &str, mut headers: HeaderMap) -> RequestHead {
    headers.insert(HOST, HeaderValue::from_static(World::AUTHORITY));
    let target = link.strip_prefix(World::PUBLIC_URL).unwrap_or(link);
    let uri: Uri = target.parse().expect("a relay's links can be followed");
    RequestHead { method, uri, headers, peer: std::net::Ipv4Addr::LOCALHOST.into() }
}

fn hidden_fields(page: &Exchange) -> Vec<(String, String)> {
    let html = String::from_utf8_lossy(&page.body);
    let rest = html.split("<input type=\"hidden\" name=\"").skip(1);
    rest.filter_map(|rest| {
        let (name, rest) = rest.split_once("\" value=\"")?;
        Some((name.to_owned(), rest.split('"').next()?.to_owned()))
    })
    .collect()
}
