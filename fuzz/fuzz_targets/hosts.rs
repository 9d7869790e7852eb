//! Any target, `Host` and `Origin`: they are ours only where another reader of URLs agrees that they name us.
#![no_main]

use std::net::IpAddr;

use http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use http::{Method, StatusCode, Uri};
use libfuzzer_sys::fuzz_target;
use tunnel_core::http::rules::{Cors, Origin, Site};
use tunnel_core::http::{RequestHead, endpoint};
use url::Url;

// A target, then a line for each field.
fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    endpoints(&String::from_utf8_lossy(target));
    let Ok(uri) = Uri::try_from(target) else { return };
    let headers = lines.filter_map(field).take(32).collect();
    sites(&RequestHead { method: Method::POST, uri, headers, peer: IpAddr::from([127, 0, 0, 1]) });
});

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

/// Secrets go to this machine, or through TLS; what a URL is does not change when it is written and read again.
fn endpoints(text: &str) {
    if let Some(url) = endpoint::absolute(text) {
        assert_eq!(endpoint::absolute(url.as_str()).as_ref(), Some(&url));
        assert!(url.username().is_empty() && url.fragment().is_none() && url.has_host());
    }
    let Some(url) = endpoint::secure(text) else { return };
    let host = url.host_str().expect("a host").trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    assert!(url.scheme() == "https" || url.scheme() == "http" && is_here, "{url}");
    assert_eq!(endpoint::is_loopback(&url), is_here);
}

fn sites(head: &RequestHead) {
    for (public, is_local) in [("https://relay.example", false), ("http://localhost:3000", true)] {
        let site = Site::new(public, &["https://app.example".into()]).expect("a site");
        let named = |text: &str| {
            Url::parse(text).ok().map(|url| {
                (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
            })
        };
        let is_here = |host: &str| ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        let own = named(public).expect("a URL");
        if site.is_ours(head) {
            let host = head.header(HOST).expect("one host");
            let (_, name, port) = named(&format!("{}://{host}", own.0)).expect("a host that URLs may have");
            assert!((&name, port) == (&own.1, own.2) || is_local && is_here(&name), "{host}");
        }
        if let Origin::Own(value) | Origin::Allowed(value) = site.origin(head) {
            assert_eq!(head.headers.get_all(ORIGIN).iter().collect::<Vec<_>>(), [value]);
            let page = named(value.to_str().expect("visible")).expect("an origin is a URL");
            assert!(page == own || page.1 == "app.example" || is_local && is_here(&page.1), "{page:?}");
        }
        let reply = site.preflight(Cors::Allowed, head);
        assert_eq!(reply.status == StatusCode::FORBIDDEN, !site.origin(head).is_admitted());
    }
}
