//! Which hosts and origins are ours, and what other origins' pages may read (CORS).
//!
//! Everything derives from the configured public URL, never from what a request claims: that is what keeps a page that
//! rebinds its own name to this machine's address out.

use alloc::string::String;
use alloc::vec::Vec;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderName, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;

use super::{Reply, RequestHead};

/// What the configured public URL means for the requests that come in.
#[derive(Debug, Clone)]
pub struct Site {
    scheme: Scheme,
    host: String,
    port: u16,
    /// The public URL is this machine's own: then all loopback names on any port are.
    loopback: bool,
    /// Origins besides our own, as browsers write them.
    allowed: Vec<String>,
}

/// The URL is not one of a site: `http` or `https`, with a host, and for an origin nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https URL with a host")]
pub struct BadSite;

/// Whose page sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// No page says that it did: most likely no browser.
    Absent,
    /// One of ours.
    Own(&'a HeaderValue),
    /// A configured one, or any loopback page when the relay is on loopback too.
    Allowed(&'a HeaderValue),
    /// Any other, `null` included.
    Foreign,
}

impl Origin<'_> {
    /// Whether the request may be answered: the origin is absent, ours or allowed. Otherwise the answer is 403.
    #[must_use]
    pub const fn is_admitted(self) -> bool {
        !matches!(self, Self::Foreign)
    }
}

/// Which pages may read an endpoint's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cors {
    /// All pages: discovery, registration, token and revocation, where the answer depends on nothing that a browser
    /// adds by itself.
    Open,
    /// Pages of our own and of allowed origins: `/mcp`.
    Allowed,
    /// None: pages for people (authorize, consent, callback, device) and everything else.
    Never,
}

/// Which pages may read an answer, as fields of its head say (Fetch, "HTTP extensions").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Readers {
    /// None, whatever page asks.
    #[default]
    Nobody,
    /// All.
    Any,
    /// Those of the origin that asked; another one might be told otherwise.
    Origin(HeaderValue),
    /// Not those that asked; another origin might be told otherwise.
    NotThis,
}

impl Readers {
    /// Adds the fields.
    pub fn put(self, headers: &mut HeaderMap) {
        if let Self::Origin(_) | Self::NotThis = self {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let (origin, exposed) = match self {
            Self::Nobody | Self::NotThis => return,
            Self::Any => (HeaderValue::from_static("*"), "WWW-Authenticate"),
            Self::Origin(origin) => (origin, EXPOSED),
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
}

impl Site {
    /// The site of `public_url`, whose answers pages of `allowed` origins may read as well.
    pub fn new(public_url: &str, allowed: &[String]) -> Result<Self, BadSite> {
        let url = Url::parse(public_url).map_err(|_| BadSite)?;
        let scheme = Scheme::parse(url.scheme()).ok_or(BadSite)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BadSite)?;
        Ok(Self {
            scheme,
            host: host.into(),
            port: url.port().unwrap_or(scheme.port()),
            loopback: is_loopback(host),
            allowed: allowed.iter().map(|origin| normal_origin(origin)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the public URL is this machine's own.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether a request is for us: its one `Host`, and its target's authority if that is given in absolute form, name
    /// our public URL. A missing or repeated `Host` is not ours (RFC 9112 section 3.2).
    #[must_use]
    pub fn is_ours(&self, head: &RequestHead) -> bool {
        let host = head.header(HOST).and_then(Authority::parse);
        let target = head.uri.authority().map(|target| Authority::parse(target.as_str()));
        host.is_some_and(|host| self.names(&host) && target.is_none_or(|target| target == Some(host)))
    }

    /// Whose page sent the request.
    #[must_use]
    pub fn origin<'a>(&self, head: &'a RequestHead) -> Origin<'a> {
        let mut fields = head.headers.get_all(ORIGIN).iter();
        let Some(value) = fields.next() else { return Origin::Absent };
        let (None, Ok(text)) = (fields.next(), value.to_str()) else { return Origin::Foreign };
        let Some((scheme, authority)) = split_origin(text) else { return Origin::Foreign };
        if scheme == self.scheme && self.is_host(head, &authority) {
            return Origin::Own(value);
        }
        let allowed = self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(text));
        if allowed || (self.loopback && is_loopback(authority.host)) { Origin::Allowed(value) } else { Origin::Foreign }
    }

    /// Whether a form was sent from a page of ours. Browsers that say so with `Sec-Fetch-Site` are believed first: our
    /// pages send no referrer, and such pages have the origin `null` even towards their own site (Fetch, "append a
    /// request `Origin` header"). Who sends neither field is no browser.
    #[must_use]
    pub fn is_own_form(&self, head: &RequestHead) -> bool {
        if head.headers.contains_key(SEC_FETCH_SITE) {
            return head.header(SEC_FETCH_SITE) == Some("same-origin");
        }
        matches!(self.origin(head), Origin::Absent | Origin::Own(_))
    }

    /// What lets pages read this answer.
    #[must_use]
    pub fn cors(&self, policy: Cors, head: &RequestHead) -> Readers {
        match (policy, self.origin(head)) {
            (Cors::Open, _) => Readers::Any,
            (Cors::Allowed, Origin::Own(origin) | Origin::Allowed(origin)) => Readers::Origin(origin.clone()),
            (Cors::Allowed, Origin::Absent | Origin::Foreign) => Readers::NotThis,
            (Cors::Never, _) => Readers::Nobody,
        }
    }

    /// The answer to a page's question (`OPTIONS`) whether it may send a request.
    #[must_use]
    pub fn preflight(&self, policy: Cors, head: &RequestHead) -> Reply {
        let (methods, fields) = match policy {
            Cors::Open => ("GET, POST, OPTIONS", OPEN_FIELDS.into()),
            Cors::Allowed if self.origin(head).is_admitted() => ("GET, POST, DELETE, OPTIONS", mcp_fields(head)),
            Cors::Allowed | Cors::Never => return Reply::empty(StatusCode::FORBIDDEN),
        };
        let mut reply = Reply::empty(StatusCode::NO_CONTENT)
            .with(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods))
            .with(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        if let Ok(fields) = HeaderValue::from_str(&fields) {
            reply = reply.with(ACCESS_CONTROL_ALLOW_HEADERS, fields);
        }
        self.cors(policy, head).put(&mut reply.headers);
        reply
    }

    /// Whether `authority` is our public one or, on loopback, another name of this machine.
    fn names(&self, authority: &Authority<'_>) -> bool {
        let port = authority.port.unwrap_or(self.scheme.port());
        (authority.host.eq_ignore_ascii_case(&self.host) && port == self.port)
            || (self.loopback && is_loopback(authority.host))
    }

    /// Whether `authority` is the one that this request was sent to.
    fn is_host(&self, head: &RequestHead, authority: &Authority<'_>) -> bool {
        let same = |host: Authority<'_>| {
            let port = |authority: &Authority<'_>| authority.port.unwrap_or(self.scheme.port());
            host.host.eq_ignore_ascii_case(authority.host) && port(&host) == port(authority)
        };
        self.names(authority) && head.header(HOST).and_then(Authority::parse).is_some_and(same)
    }
}

/// The fields that a page may send to `/mcp`: those of the protocol, and of the `Mcp-Param-` fields, whose names only
/// the tools' schemas know, the ones it asked for.
fn mcp_fields(head: &RequestHead) -> String {
    let mut fields = String::from(MCP_FIELDS);
    let asked = head.header(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
    for name in asked.split(',').map(str::trim) {
        let is_param = name.get(..PARAM_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PARAM_PREFIX));
        if is_param && HeaderName::from_bytes(name.as_bytes()).is_ok() {
            fields.push_str(", ");
            fields.push_str(name);
        }
    }
    fields
}

/// An origin as browsers write it: lower case, no default port, nothing after the authority.
fn normal_origin(text: &str) -> Result<String, BadSite> {
    let url = Url::parse(text).map_err(|_| BadSite)?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (bare && Scheme::parse(url.scheme()).is_some()).then(|| url.origin().ascii_serialization()).ok_or(BadSite)
}

fn split_origin(text: &str) -> Option<(Scheme, Authority<'_>)> {
    let (scheme, authority) = text.split_once("://")?;
    Some((Scheme::parse(scheme)?, Authority::parse(authority)?))
}

/// The names of this machine: one class, since people and clients use them interchangeably.
fn is_loopback(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| name.eq_ignore_ascii_case(host))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// `host[:port]` as a request has it (RFC 9112 section 3.2); an IPv6 address keeps its brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (host, rest) = text.split_at_checked(end)?;
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':');
        if host.is_empty() || !host.bytes().all(allowed) {
            return None;
        }
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None | Some(_) => return None,
        };
        Some(Self { host, port })
    }
}

const SEC_FETCH_SITE: &str = "sec-fetch-site";
const PARAM_PREFIX: &str = "mcp-param-";
/// Two hours: the longest that Chromium remembers.
const MAX_AGE: &str = "7200";
const EXPOSED: &str = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate";
const OPEN_FIELDS: &str = "Authorization, Content-Type, MCP-Protocol-Version";
const MCP_FIELDS: &str =
    "Authorization, Content-Type, Accept, Mcp-Session-Id, MCP-Protocol-Version, Last-Event-ID, Mcp-Method, Mcp-Name";

#[cfg(test)]
mod tests {
    use alloc::vec;

    use http::{Method, Uri};
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: &str = "https://relay.example";
    const LOCAL: &str = "http://localhost:3000";

    fn site(url: &str) -> Site {
        Site::new(url, &["https://App.example/".into(), "http://tool.example:8080".into()]).unwrap()
    }

    fn request(target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        RequestHead {
            method: Method::POST,
            uri: target.parse::<Uri>().unwrap(),
            headers: fields.iter().map(field).collect(),
            peer: core::net::IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[test]
    fn only_our_host_is_ours() {
        for (url, ours, others) in [
            (
                PUBLIC,
                vec!["relay.example", "RELAY.example:443", "relay.example:"],
                vec![
                    "evil.example",
                    "relay.example:80",
                    "relay.example.",
                    "a.relay.example",
                    "localhost",
                    "x@relay.example",
                ],
            ),
            (
                LOCAL,
                vec!["localhost:3000", "LOCALHOST", "127.0.0.1:1", "[::1]:65535", "[::1]"],
                vec![
                    "evil.example:3000",
                    "127.0.0.2",
                    "::1",
                    "localhost.evil.example",
                    "localhost:65536",
                    "localhost:+1",
                    "[::1]x",
                ],
            ),
            ("http://relay.lan:8080", vec!["relay.lan:8080"], vec!["relay.lan", "localhost:8080", "127.0.0.1:8080"]),
            ("https://[2001:db8::1]", vec!["[2001:db8::1]", "[2001:DB8::1]:443"], vec!["[2001:db8::2]", "2001:db8::1"]),
            (PUBLIC, vec![], vec!["", "[", "]", "[]", "[::1", "[]:1", ":", ":443", "a b", "é", "relay.example:443:1"]),
        ] {
            for (hosts, expected) in [(ours, true), (others, false)] {
                for host in hosts {
                    assert_eq!(site(url).is_ours(&request("/mcp", &[("host", host)])), expected, "{url} {host}");
                }
            }
        }
    }

    #[test]
    fn missing_and_repeated_hosts_are_refused() {
        assert!(!site(PUBLIC).is_ours(&request("/mcp", &[])));
        let twice = [("host", "relay.example"), ("host", "relay.example")];
        assert!(!site(PUBLIC).is_ours(&request("/mcp", &twice)));
    }

    #[test]
    fn absolute_target_must_agree_with_the_host() {
        for (target, host, expected) in [
            ("https://relay.example/mcp", "relay.example", true),
            ("https://evil.example/mcp", "relay.example", false),
            ("https://relay.example/mcp", "evil.example", false),
            ("https://evil.example/mcp", "evil.example", false),
        ] {
            assert_eq!(site(PUBLIC).is_ours(&request(target, &[("host", host)])), expected, "{target} {host}");
        }
        // Both are names of this machine, but which one is meant?
        assert!(!site(LOCAL).is_ours(&request("http://localhost:3000/", &[("host", "127.0.0.1:3000")])));
    }

    #[test]
    fn origins_are_told_apart() {
        enum Is {
            Own,
            Allowed,
            Foreign,
        }
        for (url, host, origin, expected) in [
            (PUBLIC, "relay.example", "https://relay.example", Is::Own),
            (PUBLIC, "relay.example", "https://relay.example:443", Is::Own),
            (PUBLIC, "relay.example", "http://relay.example", Is::Foreign),
            (PUBLIC, "relay.example", "https://relay.example:444", Is::Foreign),
            (PUBLIC, "relay.example", "https://app.example", Is::Allowed),
            (PUBLIC, "relay.example", "http://tool.example:8080", Is::Allowed),
            (PUBLIC, "relay.example", "http://tool.example", Is::Foreign),
            (PUBLIC, "relay.example", "https://app.example.evil.example", Is::Foreign),
            (PUBLIC, "relay.example", "http://localhost:3000", Is::Foreign),
            (PUBLIC, "evil.example", "https://evil.example", Is::Foreign),
            (PUBLIC, "relay.example", "null", Is::Foreign),
            (PUBLIC, "relay.example", "", Is::Foreign),
            (PUBLIC, "relay.example", "https://[", Is::Foreign),
            (PUBLIC, "relay.example", "https://relay.example/", Is::Foreign),
            (PUBLIC, "relay.example", "\u{e9}", Is::Foreign),
            (LOCAL, "localhost:3000", "http://localhost:3000", Is::Own),
            (LOCAL, "127.0.0.1:3000", "http://127.0.0.1:3000", Is::Own),
            (LOCAL, "127.0.0.1:3000", "http://localhost:3000", Is::Allowed),
            (LOCAL, "localhost:3000", "http://localhost:6274", Is::Allowed),
            (LOCAL, "localhost:3000", "http://evil.example", Is::Foreign),
            (LOCAL, "localhost:3000", "null", Is::Foreign),
        ] {
            let head = request("/mcp", &[("host", host), ("origin", origin)]);
            let seen = site(url).origin(&head);
            let right = match expected {
                Is::Own => matches!(seen, Origin::Own(_)),
                Is::Allowed => matches!(seen, Origin::Allowed(_)),
                Is::Foreign => seen == Origin::Foreign,
            };
            assert!(right && seen.is_admitted() == !matches!(expected, Is::Foreign), "{url} {host} {origin}: {seen:?}");
        }
        assert_eq!(site(PUBLIC).origin(&request("/", &[])), Origin::Absent);
        let twice = [("host", "relay.example"), ("origin", PUBLIC), ("origin", PUBLIC)];
        assert_eq!(site(PUBLIC).origin(&request("/", &twice)), Origin::Foreign);
    }

    #[test]
    fn forms_come_from_our_own_pages() {
        for (fields, expected) in [
            (&[("origin", "https://relay.example")][..], true),
            (&[], true),
            (&[("origin", "null")], false),
            (&[("origin", "https://app.example")], false),
            (&[("origin", "null"), ("sec-fetch-site", "same-origin")], true),
            (&[("origin", "https://relay.example"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false),
        ] {
            let fields: Vec<_> = [("host", "relay.example")].into_iter().chain(fields.iter().copied()).collect();
            assert_eq!(site(PUBLIC).is_own_form(&request("/consent", &fields)), expected, "{fields:?}");
        }
    }

    fn cors(policy: Cors, origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let head = request("/mcp", &[("host", "relay.example"), ("origin", origin)]);
        site(PUBLIC).cors(policy, &head).put(&mut headers);
        headers
    }

    #[test]
    fn only_listed_pages_may_read_mcp() {
        let allowed = cors(Cors::Allowed, "https://app.example");
        assert_eq!(allowed.get(ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "https://app.example");
        assert!(allowed.get(ACCESS_CONTROL_EXPOSE_HEADERS).unwrap().to_str().unwrap().contains("Mcp-Session-Id"));
        let foreign = cors(Cors::Allowed, "https://evil.example");
        assert_eq!(foreign.keys().collect::<Vec<_>>(), [VARY]);
        assert_eq!(allowed.get(VARY), foreign.get(VARY));
    }

    #[test]
    fn discovery_is_open_and_pages_for_people_are_not() {
        assert_eq!(cors(Cors::Open, "null").get(ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*");
        assert!(cors(Cors::Never, PUBLIC).is_empty());
    }

    #[test]
    fn preflight_names_what_may_be_sent() {
        let ask = |policy, origin, fields| {
            let head = [("host", "relay.example"), ("origin", origin), ("access-control-request-headers", fields)];
            site(PUBLIC).preflight(policy, &request("/mcp", &head))
        };
        let reply = ask(Cors::Allowed, "https://app.example", "authorization,x-evil, Mcp-Param-City ,mcp-param-a b");
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        let fields = reply.headers.get(ACCESS_CONTROL_ALLOW_HEADERS).unwrap().to_str().unwrap();
        assert!(fields.contains("Last-Event-ID") && fields.ends_with("Mcp-Name, Mcp-Param-City"), "{fields}");
        assert!(reply.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(ask(Cors::Allowed, "https://evil.example", "").status, StatusCode::FORBIDDEN);
        assert_eq!(ask(Cors::Never, PUBLIC, "").status, StatusCode::FORBIDDEN);
        let open = ask(Cors::Open, "https://any.example", "");
        assert_eq!(open.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*");
    }

    #[test]
    fn sites_are_http_urls_and_origins_nothing_more() {
        for url in ["", "relay.example", "ftp://relay.example", "https://", "data:x"] {
            assert_eq!(Site::new(url, &[]).err(), Some(BadSite), "{url}");
        }
        for origin in ["null", "*", "https://app.example/path", "https://u@app.example", "chrome-extension://abc"] {
            assert_eq!(Site::new(PUBLIC, &[origin.into()]).err(), Some(BadSite), "{origin}");
        }
    }

    proptest! {
        /// The model: one name, in any case, on one port.
        #[test]
        fn host_is_ours_under_one_name_and_port_alone(
            name in "(relay|RELAY|Relay|relay2|evil)(\\.example|\\.EXAMPLE|\\.example\\.evil)?", port in prop_oneof![Just(None), Just(Some(443)), any::<u16>().prop_map(Some)]
        ) {
            let authority = port.map_or(name.clone(), |port| alloc::format!("{name}:{port}"));
            let is_name = name.eq_ignore_ascii_case("relay.example");
            let ours = is_name && port.is_none_or(|port| port == 443);
            prop_assert_eq!(site(PUBLIC).is_ours(&request("/", &[("host", &authority)])), ours, "{}", authority);
            // And a page is our own only if it is of the host that it asks.
            let origin = alloc::format!("https://{authority}");
            let head = request("/", &[("host", "relay.example"), ("origin", &origin)]);
            let site = site(PUBLIC);
            prop_assert_eq!(matches!(site.origin(&head), Origin::Own(_)), ours, "{}", origin);
            prop_assert_eq!(site.origin(&head).is_admitted(), ours);
            prop_assert_eq!(site.is_own_form(&head), ours);
            let plain = alloc::format!("http://{authority}");
            let in_clear = request("/", &[("host", "relay.example"), ("origin", &plain)]);
            prop_assert!(!site.origin(&in_clear).is_admitted(), "another scheme is another origin");
        }

        #[test]
        fn no_host_or_origin_panics(host in "[ -~\u{80}-\u{ff}]{0,24}", origin in "(https?://)?[ -~\u{80}-\u{ff}]{0,24}") {
            let head = request("/", &[("host", &host), ("origin", &origin), ("access-control-request-headers", &host)]);
            for url in [PUBLIC, LOCAL] {
                let site = site(url);
                let _ = (site.is_ours(&head), site.origin(&head), site.is_own_form(&head));
                let _ = site.preflight(Cors::Allowed, &head);
            }
        }
    }
}
