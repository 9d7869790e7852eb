//! Any redirect URI: what the policy takes means the same to another reader of URIs, and the code goes nowhere else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redirect::{Class, classify, matches};
use tunnel_core::http::form;
use url::Url;

#[allow(dead_code)] // The program uses all of it; it is not public.
#[path = "../../core/src/http/redirect.rs"]
mod redirect;
extern crate alloc;

fuzz_target!(|text: &str| {
    let (registered, asked) = text.split_once('\n').unwrap_or((text, text));
    for uri in [registered, asked] {
        judge(uri);
        assert_eq!(matches(uri, uri), classify(uri).is_ok(), "{uri}");
    }
    if matches(registered, asked) {
        let class = classify(asked).expect("what is not acceptable matches nothing");
        assert!(class == Class::Loopback || registered == asked);
        assert_eq!(classify(registered).as_ref(), Ok(&class));
        let seen = |uri: &str| {
            let uri: http::Uri = uri.parse().expect("what is acceptable is a URI");
            (uri.scheme().cloned(), uri.path().to_owned(), uri.query().map(str::to_owned))
        };
        assert!(registered == asked || seen(registered) == seen(asked), "{registered} {asked}");
    }
});

fn judge(uri: &str) {
    let Ok(class) = classify(uri) else { return };
    assert!(
        uri.len() <= 512 && uri.bytes().all(|byte| byte.is_ascii_graphic()) && !uri.contains(['#', '\\', '@', '*'])
    );
    let (scheme, rest) = uri.split_once(':').expect("a URI has a scheme");
    match &class {
        Class::Web { host } => {
            let seen: http::Uri = uri.parse().expect("an https URI");
            let authority = seen.authority().expect("with an authority").as_str();
            assert_eq!((scheme, authority.strip_suffix(":443").unwrap_or(authority)), ("https", &**host));
            let name = seen.host().expect("a host");
            assert!(name.contains('.') && name.parse::<std::net::IpAddr>().is_err() && !name.ends_with(".localhost"));
        }
        Class::Loopback => {
            let seen: http::Uri = uri.parse().expect("an http URI");
            assert!(scheme == "http" && ["localhost", "127.0.0.1", "[::1]"].contains(&seen.host().expect("a host")));
        }
        Class::App { .. } => {
            assert!(
                scheme.contains('.') || ["cursor", "vscode", "vscode-insiders", "claude"].contains(&scheme),
                "{uri}"
            );
            assert!(scheme.contains('.') || rest.starts_with("//"), "{uri}");
        }
    }
    answered(uri);
}

/// The answer goes to the place that was judged, and says what it says once.
fn answered(uri: &str) {
    let location = form::append_query(uri, [("code", "c&d"), ("state", "=")]);
    assert!(location.starts_with(uri) && location.parse::<http::HeaderValue>().is_ok());
    let (before, after) = (Url::parse(uri).expect("judged"), Url::parse(&location).expect("as it was"));
    assert_eq!((before.scheme(), before.host(), before.port()), (after.scheme(), after.host(), after.port()));
    assert_eq!(before.path(), after.path());
    for (name, expected) in [("code", "c&d"), ("state", "=")] {
        let said: Vec<_> = after.query_pairs().filter(|(own, _)| own == name).map(|(_, value)| value).collect();
        assert_eq!(said, [expected], "{location}");
    }
}
