//! Any header fields: read strictly, whatever their order, and nobody but a proxy says who the client is.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use freshness::Bounds;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use tunnel_core::config::Network;
use tunnel_core::http::{fields, form, forwarded, retry};
use tunnel_core::limits;
use tunnel_core::time::UnixTime;

#[path = "../../core/src/http/freshness.rs"]
mod freshness; // It is not public.

// A line for each field.
fuzz_target!(|data: &[u8]| {
    let headers: HeaderMap = data.split(|byte| *byte == b'\n').filter_map(field).take(32).collect();
    credentials(&headers);
    types(&headers);
    proxies(&headers);
    times(&headers);
});

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

fn only(name: HeaderName, value: String) -> HeaderMap {
    [(name, HeaderValue::try_from(value).expect("ASCII"))].into_iter().collect()
}

fn credentials(headers: &HeaderMap) {
    if let Ok(Some(token)) = fields::bearer(headers) {
        assert_eq!(headers.get_all(AUTHORIZATION).iter().count(), 1);
        assert!(!token.contains([' ', ',', '"', '\t']));
        assert_eq!(fields::bearer(&only(AUTHORIZATION, format!("Bearer {token}"))), Ok(Some(token)));
    }
    if let Ok(Some((id, secret))) = fields::basic(headers) {
        assert_eq!(fields::bearer(headers), Ok(None), "one scheme at a time");
        let pair = format!("{}:{}", form::percent_encode(&id), form::percent_encode(secret.expose()));
        let written = only(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        assert!(fields::basic(&written) == Ok(Some((id, secret))));
    }
    for value in headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok()) {
        let asks = fields::asks_for_bearer(value);
        assert!(!asks || value.to_ascii_lowercase().contains("bearer"));
        assert!(fields::asks_for_bearer(&format!("Bearer, {value}")));
        assert_eq!(fields::asks_for_bearer(&format!("Basic realm=\"\\\"bearer, bearer\", {value}")), asks);
    }
}

fn types(headers: &HeaderMap) {
    let essence = |value: &HeaderValue| {
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    };
    let kinds: Vec<String> = headers.get_all(CONTENT_TYPE).iter().map(essence).collect();
    assert!(!fields::is_json(headers) || kinds == ["application/json"]);
    assert!(!fields::is_form(headers) || kinds == ["application/x-www-form-urlencoded"]);
    let accepted: Vec<&HeaderValue> = headers.get_all(ACCEPT).iter().collect();
    let with = |more: &'static str| {
        accepted
            .iter()
            .map(|value| (*value).clone())
            .chain([HeaderValue::from_static(more)])
            .map(|value| (ACCEPT, value))
            .collect::<HeaderMap>()
    };
    assert!(
        fields::accepts_json(&with("application/json"))
            && fields::accepts_event_stream(&with("text/event-stream;q=0.1"))
    );
    let backwards: HeaderMap = accepted.iter().rev().map(|value| (ACCEPT, (*value).clone())).collect();
    assert_eq!(fields::accepts_json(headers), fields::accepts_json(&backwards), "order counts for nothing");
}

/// Nobody but a trusted proxy says who the client is.
fn proxies(headers: &HeaderMap) {
    let trusted: [Network; 2] = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let peers = ["10.1.1.1", "192.0.2.1", "fd00::1"].map(|peer| peer.parse::<IpAddr>().expect("an address"));
    for peer in peers {
        let client = forwarded::client(peer, headers, &trusted);
        assert!(client == peer || is_trusted(peer) && headers.contains_key("x-forwarded-for"));
        if !is_trusted(client) {
            let mut more: HeaderMap = only(HeaderName::from_static("x-forwarded-for"), "198.51.100.9, x".into());
            more.extend(
                headers
                    .get_all("x-forwarded-for")
                    .iter()
                    .map(|value| (HeaderName::from_static("x-forwarded-for"), value.clone())),
            );
            assert_eq!(
                forwarded::client(peer, &more, &trusted),
                client,
                "what stands before the proxies' own counts for nothing"
            );
        }
    }
}

fn times(headers: &HeaderMap) {
    let asked = headers.get("retry-after").and_then(|value| value.to_str().ok());
    let now = UnixTime::from_secs(1_800_000_000);
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let wait = retry::wait(status, asked, now);
        assert!(wait <= limits::RETRY_AFTER_MAX && (status != StatusCode::OK || wait.is_zero()));
        if let Some(seconds) =
            asked.and_then(|text| text.trim().parse::<u32>().ok()).filter(|_| status != StatusCode::OK)
        {
            let plain = !asked.unwrap_or_default().contains('+');
            assert!(!plain || wait == limits::RETRY_AFTER_MAX.min(Duration::from_secs(seconds.into())));
        }
    }
    let [least, usual, most] = [300, 3600, 86400].map(Duration::from_secs);
    let lifetime = Bounds { least, usual, most }.lifetime(headers);
    let says = |word| {
        headers.get_all("cache-control").iter().any(|value| value.to_str().is_ok_and(|text| text.trim() == word))
    };
    assert!((least..=most).contains(&lifetime) && (lifetime == least || !says("no-store")));
    let is_silent = !headers.contains_key("cache-control") && !headers.contains_key("age");
    assert!(lifetime == usual || !is_silent);
}
