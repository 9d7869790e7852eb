//! A scripted browser for the relay's own pages: cookies, forms, no redirect followed unless asked.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;

use super::oauth::{self, FORM};
use super::{PASSWORD, Relay, Reply};

/// A person's browser at one relay.
pub struct Browser<'a> {
    relay: &'a Relay,
    cookies: BTreeMap<String, String>,
    /// Where it is, as the proxy before a relay that trusts this machine would say.
    address: Option<String>,
}

/// Goes the whole way that `url` begins, as ada: consent, login, and back to whoever asked, on this machine.
pub fn sign_in(relay: &Relay, url: &str) {
    let mut browser = Browser::new(relay);
    let local = |url: &str| url.strip_prefix(&relay.url()).map(str::to_owned);
    let mut page = browser.get(&local(url).expect("it begins at the relay"));
    for _ in 0..8 {
        if let Some(to) = page.header("location").map(str::to_owned) {
            let Some(path) = local(&to).or_else(|| to.starts_with('/').then(|| to.clone())) else {
                let (host, path) = to.split_once("//").and_then(|(_, rest)| rest.split_once('/')).expect("a URL");
                let mut back = TcpStream::connect(host).expect("somebody listens for the code");
                write!(back, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("it is sent");
                let reply = Reply::read(&mut BufReader::new(back)).expect("an answer");
                assert_eq!(reply.status, 200, "{}", reply.text());
                return;
            };
            page = browser.get(&path);
            continue;
        }
        let form = form(&page);
        let asks_password = page.text().contains("type=\"password\"");
        let fields: &[_] =
            if asks_password { &[("user", "ada"), ("password", PASSWORD)] } else { &[("decision", "allow")] };
        page = browser.submit(&form, fields);
    }
    panic!("no way back: {} {}", page.status, page.text());
}

/// A page's form.
#[derive(Debug, Clone)]
pub struct Form {
    pub action: String,
    pub fields: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    pub fn new(relay: &'a Relay) -> Self {
        Self { relay, cookies: BTreeMap::new(), address: None }
    }

    /// The same at another address.
    pub fn at(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    /// Sends a form as the relay's own page would, with these fields beside its hidden ones.
    pub fn submit(&mut self, form: &Form, fields: &[(&str, &str)]) -> Reply {
        let origin = self.relay.url();
        let headers = [FORM, ("Origin", origin.as_str()), ("Sec-Fetch-Site", "same-origin")];
        self.submit_with(form, fields, &headers)
    }

    /// The same with other headers.
    pub fn submit_with(&mut self, form: &Form, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
        let own = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fields: Vec<_> = own.chain(fields.iter().copied()).collect();
        let path = form.action.strip_prefix(&self.relay.url()).unwrap_or(&form.action).to_owned();
        self.send("POST", &path, headers, oauth::fields(&fields).as_bytes())
    }

    /// What it was given to keep.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cookies.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let jar: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let jar = jar.join("; ");
        let mut headers = headers.to_vec();
        if !jar.is_empty() {
            headers.push(("Cookie", &jar));
        }
        headers.extend(self.address.as_deref().map(|address| ("X-Forwarded-For", address)));
        let reply = self.relay.http(method, path, &headers, body);
        for (_, line) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let pair = line.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                if value.is_empty() || line.contains("Max-Age=0") {
                    self.cookies.remove(name);
                } else {
                    self.cookies.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        reply
    }
}

/// The form of a page, with its hidden fields.
pub fn form(page: &Reply) -> Form {
    let text = page.text();
    let start = text.find("<form").unwrap_or_else(|| panic!("a form: {} {text}", page.status));
    let form = &text[start..start + text[start..].find("</form>").expect("it ends")];
    let inputs = form.split("<input").skip(1).filter(|input| input.contains("type=\"hidden\""));
    let fields = inputs.map(|input| (attribute(input, "name"), attribute(input, "value"))).collect();
    Form { action: attribute(form, "action"), fields }
}

/// A query parameter of a URL.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(decode))
}

pub fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.expect("two digits follow"));
                u8::from_str_radix(std::str::from_utf8(&digits).expect("ASCII"), 16).expect("hexadecimal")
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn attribute(tag: &str, name: &str) -> String {
    let start = tag.find(&format!("{name}=\"")).unwrap_or_else(|| panic!("{name} in {tag}")) + name.len() + 2;
    let value = &tag[start..start + tag[start..].find('"').expect("it is quoted")];
    value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
