//! Which URLs secrets may be sent to.

use core::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// `text` as a URL that is safe to send a token to: `https`, or `http` to this machine itself; without user info and
/// without fragment.
#[must_use]
pub fn secure(text: &str) -> Option<Url> {
    let url = absolute(text)?;
    (url.scheme() == "https" || is_loopback(&url)).then_some(url)
}

/// `text` as an `http` or `https` URL with a host, without user info and without fragment.
#[must_use]
pub fn absolute(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.host().is_some() && plain).then_some(url)
}

/// Whether the URL names this machine itself: `localhost`, 127.0.0.0/8, `[::1]`.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => Ipv4Addr::is_loopback(&address),
        Some(Host::Ipv6(address)) => Ipv6Addr::is_loopback(&address),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_over_tls_or_stay_on_the_machine() {
        for good in ["https://a.example/t?x=1", "http://localhost:3000/t", "http://127.0.0.1/", "http://[::1]:8/"] {
            assert!(secure(good).is_some(), "{good}");
        }
        for bad in [
            "http://a.example/",
            "http://localhost.example/",
            "http://128.0.0.1/",
            "ftp://localhost/",
            "https://user@a.example/",
            "https://a.example/#x",
            "https:///",
            "/t",
            "",
        ] {
            assert!(secure(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        /// Whatever else it is, it is what it looks like: nothing in it sends a secret elsewhere.
        #[test]
        fn what_secrets_may_be_sent_to_says_where_they_go(
            text in "(https?|ftp|HTTPS|javascript)?(:|://|:///)?([a-c@:]{0,4}@)?(a\\.example|localhost|LOCALHOST|127\\.0\\.0\\.[0-9]|\\[::1\\]|10\\.0\\.0\\.1|0x7f\\.1|[a-z.]{0,6})(:[0-9]{0,5})?[/?#]?[ -~]{0,8}"
        ) {
            if let Some(url) = secure(&text) {
                prop_assert!(url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)));
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
                prop_assert!(absolute(&text).is_some());
                prop_assert_eq!(secure(url.as_str()), Some(url), "it stays what it is");
            }
            let plain = absolute(&text).filter(|url| url.scheme() == "http" && !is_loopback(url));
            prop_assert!(plain.is_none() || secure(&text).is_none());
        }
    }
}
