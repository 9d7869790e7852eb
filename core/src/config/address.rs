//! Addresses: the relay as an agent has it, the relay's own public URL, providers, origins.

use alloc::string::{String, ToString};

use url::{Host, Url};

/// Whether `host` (a name, an IPv4 address, an IPv6 address with or without brackets) can only be this machine.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<core::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// `relay`: a bare host, or a `ws`, `wss`, `http` or `https` URL; normalised to `https://host[:port]` or `http://…`.
/// A bare host is `https`, unless it is this machine: a relay that is tried out has no TLS, and no proxy is in between.
pub(super) fn relay(text: &str, allow_insecure: bool) -> Result<String, &'static str> {
    const FORM: &str = "must be the relay's host name, as in \"tunnel.example.com\", or its https:// URL";
    let text = text.trim();
    let is_bare = !text.contains("://");
    let mut whole = if is_bare { alloc::format!("https://{text}") } else { text.to_string() };
    let mut url = Url::parse(&whole).map_err(|_| FORM)?;
    if is_bare && is_loopback(&url) {
        whole = alloc::format!("http://{text}");
        url = Url::parse(&whole).map_err(|_| FORM)?;
    }
    let secure = match url.scheme() {
        "https" | "wss" => true,
        "http" | "ws" => false,
        _ => return Err("must begin with https://, wss://, http://, ws://, or be a bare host name"),
    };
    plain(&url)?;
    // People paste the endpoint that they know: the predecessor's `/ws`, a client's `/mcp`.
    if !matches!(url.path().trim_end_matches('/'), "" | "/ws" | "/mcp") {
        return Err("must not have a path: a relay is the whole of its host");
    }
    if !secure && !allow_insecure && !is_loopback(&url) {
        return Err("sends tokens in clear: use https:// (or wss://), or start with --allow-insecure");
    }
    // As `http(s)`, so that the default port is dropped whichever way it was written.
    let rest = whole.split_once("://").map_or("", |(_, rest)| rest);
    let scheme = if secure { "https" } else { "http" };
    let url = Url::parse(&alloc::format!("{scheme}://{rest}")).map_err(|_| FORM)?;
    Ok(url.origin().ascii_serialization())
}

/// `issuerUrl`: `https://host[:port]` without a trailing slash; `http` on this machine.
pub(super) fn public_url(text: &str) -> Result<String, &'static str> {
    let url = web(text).map_err(|_| "must be the URL people use, as in \"https://tunnel.example.com\"")?;
    plain(&url)?;
    if url.path() != "/" {
        return Err("must not have a path: give only https:// and the host");
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("must be https (OAuth clients refuse http on any host but localhost)");
    }
    Ok(url.origin().ascii_serialization())
}

/// `auth.issuer`, which stays exactly as it is written (OpenID Connect Discovery 1.0, section 4.3).
pub(super) fn issuer(text: &str) -> Result<(), &'static str> {
    let url = web(text).map_err(|_| "must be the provider's issuer URL, as in \"https://accounts.google.com\"")?;
    plain(&url)?;
    if url.path().ends_with("/.well-known/openid-configuration") {
        return Err("must be the issuer alone: leave out /.well-known/openid-configuration");
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("must be https: sign-in over http can be read and forged on the way");
    }
    Ok(())
}

/// `tls.acme.directory` (RFC 8555 section 6.1: https).
pub(super) fn directory(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "must be the https:// URL of the authority's directory";
    let url = web(text).map_err(|()| FORM)?;
    if url.scheme() != "https" || has_user_info(&url) || url.fragment().is_some() {
        return Err(FORM);
    }
    Ok(())
}

/// A local server's `url`.
pub(super) fn server(text: &str) -> Result<(), &'static str> {
    let url = web(text).map_err(|_| "must be an http:// or https:// URL, as in \"http://127.0.0.1:8000/mcp\"")?;
    if has_user_info(&url) {
        return Err("must not have a user name or password in it: use headers");
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment (#…)");
    }
    Ok(())
}

/// An origin of `allowedOrigins`, as browsers write it.
pub(super) fn origin(text: &str) -> Result<String, &'static str> {
    if matches!(text, "*" | "null") {
        return Err("would let any page in: name each origin");
    }
    let url = web(text).map_err(|_| "must be an origin, as in \"https://app.example.com\"")?;
    plain(&url)?;
    if url.path() != "/" {
        return Err("must be an origin: leave out the path");
    }
    Ok(url.origin().ascii_serialization())
}

/// An absolute `http` or `https` URL with a host.
fn web(text: &str) -> Result<Url, ()> {
    let url = Url::parse(text).map_err(|_| ())?;
    if matches!(url.scheme(), "http" | "https") && text.contains("://") { Ok(url) } else { Err(()) }
}

/// Refuses user names, passwords, queries and fragments.
fn plain(url: &Url) -> Result<(), &'static str> {
    if has_user_info(url) {
        return Err("must not have a user name or password in it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query (?…) or fragment (#…)");
    }
    Ok(())
}

fn has_user_info(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_loopback_host(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => core::net::IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_what_looks_like_it() {
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "app.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["localhost.example.com", "notlocalhost", "127.0.0.1.nip.io", "10.0.0.1", "::", "", "[::2]"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn relay_is_normalised() {
        for (written, meant) in [
            ("tunnel.example.com", "https://tunnel.example.com"),
            ("Tunnel.Example.com:8443", "https://tunnel.example.com:8443"),
            ("tunnel.example.com/", "https://tunnel.example.com"),
            ("wss://tunnel.example.com/ws", "https://tunnel.example.com"),
            ("wss://tunnel.example.com:443", "https://tunnel.example.com"),
            ("https://tunnel.example.com/mcp", "https://tunnel.example.com"),
            ("ws://localhost:3000/ws", "http://localhost:3000"),
            ("ws://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("localhost:3000", "http://localhost:3000"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:443", "http://[::1]:443"),
            ("https://localhost:3000", "https://localhost:3000"),
            ("localhost.example.com:3000", "https://localhost.example.com:3000"),
        ] {
            assert_eq!(relay(written, false).as_deref(), Ok(meant), "{written}");
        }
        assert_eq!(relay("ws://nas.lan:3000", true).as_deref(), Ok("http://nas.lan:3000"));
    }

    proptest::proptest! {
        #[test]
        fn a_normalised_relay_stays_as_it_is(text in "\\PC{0,40}") {
            if let Ok(once) = relay(&text, true) {
                proptest::prop_assert_eq!(relay(&once, true), Ok(once));
            }
        }
    }
}
