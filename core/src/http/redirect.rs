//! The redirect policy: which URIs a client may register, and which of them a request may name. Pure.
//!
//! A redirect URI decides who gets the code, so it must mean one thing to every reader. Only URIs that are already in
//! the canonical form of the URL standard pass: no dot segments, no upper-case host, no stray escapes to disagree on.

use alloc::format;
use alloc::string::{String, ToString};

use url::{Host, Url};

/// The longest redirect URI: the longest of today's clients is a fifth of it.
pub(crate) const MAX_REDIRECT: usize = 512;

/// Whose a redirect URI is, as far as its form tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Class {
    /// `https` with a public host: whoever owns that name.
    Web {
        /// The host, with the port if it is not 443.
        host: String,
    },
    /// `http` on the loopback interface: some program on the person's own machine.
    Loopback,
    /// A scheme of an installed application: whichever application has claimed it.
    App {
        /// The scheme, with the authority if there is one.
        scheme: String,
    },
}

/// Why a redirect URI is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unacceptable {
    /// It is too long.
    #[error("a redirect URI may have 512 bytes at most")]
    TooLong,
    /// It has a fragment, user information, a wildcard, a backslash, white space or a character outside ASCII.
    #[error("a redirect URI must be plain: no fragment, user information, wildcard, backslash or non-ASCII character")]
    Characters,
    /// It is not a URL, or not in canonical form.
    #[error("a redirect URI must be an absolute URL in canonical form, without dot segments")]
    Form,
    /// It is `https` with an address or a private name.
    #[error("an https redirect URI must have a public host name")]
    Host,
    /// It is neither `https` nor loopback `http` nor a known application's.
    #[error("a redirect URI must be https, loopback http, or a private-use scheme with a dot in it")]
    Scheme,
}

/// Where a URI leads, in a few words: what a person knows a client by later.
pub(crate) fn place(uri: &str) -> String {
    match classify(uri) {
        Ok(Class::Web { host }) => host,
        Ok(Class::Loopback) => "localhost".to_string(),
        Ok(Class::App { scheme }) => scheme,
        Err(_) => String::new(),
    }
}

/// Judges one URI.
pub(crate) fn classify(uri: &str) -> Result<Class, Unacceptable> {
    if uri.len() > MAX_REDIRECT {
        return Err(Unacceptable::TooLong);
    }
    if !uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"#*\\@\"'<>^`{|}".contains(&byte)) {
        return Err(Unacceptable::Characters);
    }
    let url = parse_canonical(uri).ok_or(Unacceptable::Form)?;
    match url.scheme() {
        "https" => match url.host() {
            Some(Host::Domain(host)) if is_public(host) => Ok(Class::Web { host: authority(&url, host) }),
            _ => Err(Unacceptable::Host),
        },
        "http" if is_loopback(&url) => Ok(Class::Loopback),
        "http" => Err(Unacceptable::Scheme),
        scheme if is_private_use(scheme) || APPS.iter().any(|app| uri.starts_with(app)) => Ok(Class::App {
            scheme: match url.host_str() {
                Some(host) => format!("{scheme}://{host}"),
                None => format!("{scheme}:"),
            },
        }),
        _ => Err(Unacceptable::Scheme),
    }
}

/// Whether a request may name `asked` when `registered` is registered: the same string, byte for byte, except that the
/// loopback hosts are one and their port is free, since a program takes the port it gets (RFC 8252 section 7.3).
pub(crate) fn matches(registered: &str, asked: &str) -> bool {
    let Ok(class) = classify(asked) else { return false };
    if registered == asked {
        return true;
    }
    class == Class::Loopback
        && classify(registered) == Ok(Class::Loopback)
        && match (Url::parse(registered), Url::parse(asked)) {
            (Ok(registered), Ok(asked)) => registered.path() == asked.path() && registered.query() == asked.query(),
            _ => false,
        }
}

fn parse_canonical(uri: &str) -> Option<Url> {
    let url = Url::parse(uri).ok()?;
    // The parser drops a default port and gives an empty path a slash; both are harmless, anything else is not.
    let plain = url.as_str() == uri || url.as_str().strip_suffix('/') == Some(uri);
    (plain && !url.cannot_be_a_base() && url.username().is_empty() && url.password().is_none()).then_some(url)
}

/// The host, with the port if it is not the scheme's own.
pub(crate) fn authority(url: &Url, host: &str) -> String {
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    }
}

/// A host that the public DNS could answer for: dotted, and not under a name that means this machine or this network.
pub(crate) fn is_public(host: &str) -> bool {
    let labels_are_sound = host.split('.').all(|label| !label.is_empty());
    let private = |suffix: &&str| host.strip_suffix(*suffix).is_some_and(|rest| rest.ends_with('.'));
    host.contains('.') && labels_are_sound && !PRIVATE_SUFFIXES.iter().any(private)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => host == "localhost",
        Some(Host::Ipv4(address)) => address == core::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == core::net::Ipv6Addr::LOCALHOST,
        None => false,
    }
}

/// A reverse domain name as a scheme (RFC 8252 section 7.1).
fn is_private_use(scheme: &str) -> bool {
    scheme.contains('.') && scheme.split('.').all(|label| !label.is_empty())
}

/// Names that resolve on one machine or network only, RFC 6761 and RFC 6762 and common practice.
const PRIVATE_SUFFIXES: &[&str] =
    &["localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa", "onion"];

/// Applications whose schemes have no dot.
const APPS: &[&str] =
    &["cursor://anysphere.cursor-mcp/", "vscode://", "vscode-insiders://", "claude://claude.ai/mcp-auth-callback/"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What today's clients register.
    const CLIENTS: &[&str] = &[
        "https://claude.ai/api/mcp/auth_callback",
        "https://claude.com/api/mcp/auth_callback",
        "http://localhost/callback",
        "http://localhost:53682/callback",
        "https://chatgpt.com/connector/oauth/abcDEF123",
        "https://chatgpt.com/connector_platform_oauth_redirect",
        "http://127.0.0.1:1455/callback/9f86d081",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
        "https://vscode.dev/redirect",
        "http://127.0.0.1:33418/",
        "http://127.0.0.1:33418",
        "http://[::1]:33418/",
        "vscode://vscode.github-authentication/did-authenticate",
        "vscode-insiders://vscode.github-authentication/did-authenticate",
        "http://localhost:6274/oauth/callback",
        "com.example.app:/oauth2redirect",
        "com.example.app://callback",
        "claude://claude.ai/mcp-auth-callback/abc",
    ];

    #[test]
    fn clients_of_today_may_register_and_come_back() {
        for uri in CLIENTS {
            assert!(classify(uri).is_ok(), "{uri}: {:?}", classify(uri));
            assert!(matches(uri, uri), "{uri}");
        }
    }

    #[test]
    fn hostile_uris_are_refused() {
        use Unacceptable::{Characters, Form, Host, Scheme, TooLong};
        let long = format!("https://a.example/{}", "x".repeat(MAX_REDIRECT));
        let cases = [
            (long.as_str(), TooLong),
            ("https://claude.ai/cb#frag", Characters),
            ("https://claude.ai@evil.example/cb", Characters),
            ("https://*.example.com/cb", Characters),
            ("https://claude.ai\\@evil.example/cb", Characters),
            ("https://clаude.ai/cb", Characters),
            ("https://claude.ai/c b", Characters),
            ("https://claude.ai/cb\r\nSet-Cookie:x", Characters),
            ("", Form),
            ("/callback", Form),
            ("https://claude.ai/a/../cb", Form),
            ("https://claude.ai/a/%2e%2e/cb", Form),
            ("https://CLAUDE.ai/cb", Form),
            ("https:claude.ai/cb", Form),
            ("https://localhost/cb", Host),
            ("https://intranet/cb", Host),
            ("https://printer.local/cb", Host),
            ("https://router.home.arpa/cb", Host),
            ("https://10.0.0.1/cb", Host),
            ("https://[2001:db8::1]/cb", Host),
            ("https://claude.ai./cb", Host),
            ("http://claude.ai/cb", Scheme),
            ("http://127.0.0.2/cb", Scheme),
            ("http://localhost.evil.example/cb", Scheme),
            ("ftp://claude.ai/cb", Scheme),
            ("file:///etc/passwd", Scheme),
            ("cursor://elsewhere/oauth/callback", Scheme),
            ("javascript:alert(1)", Form),
            ("data:text/html,x", Form),
        ];
        for (uri, why) in cases {
            assert_eq!(classify(uri), Err(why), "{uri}");
        }
    }

    #[test]
    fn length_counts_to_the_byte() {
        let uri = |length: usize| format!("https://a.example/{}", "x".repeat(length - 18));
        assert_eq!(uri(MAX_REDIRECT).len(), MAX_REDIRECT);
        assert!(classify(&uri(MAX_REDIRECT)).is_ok());
        assert_eq!(classify(&uri(MAX_REDIRECT + 1)), Err(Unacceptable::TooLong));
    }

    #[test]
    fn codex_registers_one_loopback_name_and_asks_with_another() {
        assert!(matches("http://127.0.0.1:1455/callback/9f86d081", "http://localhost:1456/callback/9f86d081"));
        assert!(!matches("http://127.0.0.1:1455/callback/9f86d081", "http://localhost:1456/callback/other"));
    }

    #[test]
    fn only_loopback_may_differ_and_only_in_host_and_port() {
        assert!(matches("http://localhost/callback", "http://127.0.0.1:4711/callback"));
        assert!(matches("http://127.0.0.1:1/callback/x", "http://[::1]:2/callback/x"));
        for (registered, asked) in [
            ("http://localhost/callback", "http://localhost:1/callback/"),
            ("http://localhost/callback", "http://localhost:1/other"),
            ("http://localhost/callback", "http://localhost:1/callback?x=1"),
            ("http://localhost/callback", "https://localhost:1/callback"),
            ("https://claude.ai/cb", "https://claude.ai:8443/cb"),
            ("https://claude.ai/cb", "https://claude.ai/cb?x=1"),
            ("https://claude.ai/cb", "http://localhost/cb"),
            ("cursor://anysphere.cursor-mcp/a", "cursor://anysphere.cursor-mcp/b"),
        ] {
            assert!(!matches(registered, asked), "{registered} {asked}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_passes_is_plain(uri in ".{0,80}") {
            if classify(&uri).is_ok() {
                prop_assert!(uri.is_ascii() && !uri.contains(['#', '@', '\\', '*', ' ']));
            }
        }

        #[test]
        fn anything_around_an_accepted_uri_is_another_uri(index in 0..CLIENTS.len(), before in "[ -~]{0,3}", after in "[ -~]{1,5}") {
            let Some(uri) = CLIENTS.get(index) else { return Ok(()) };
            let asked = format!("{before}{uri}{after}");
            // A longer port is the one thing that may be added, and only on loopback.
            let digits = before.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/' || byte == b':');
            prop_assume!(!(digits && classify(uri) == Ok(Class::Loopback)));
            prop_assert!(!matches(uri, &asked), "{}", asked);
        }

        #[test]
        fn what_passes_is_https_to_a_name_or_loopback_or_an_application(uri in "(https?|[a-z.]{1,9})://[a-zA-Z0-9.:@%-]{0,20}(/[ -~]{0,12})?") {
            let Ok(class) = classify(&uri) else { return Ok(()) };
            let url = Url::parse(&uri).expect("it passed");
            prop_assert!(url.fragment().is_none() && url.username().is_empty() && url.password().is_none());
            prop_assert!(!uri.split(['/', '?']).any(|segment| segment == "." || segment == ".."));
            match class {
                Class::Web { .. } => {
                    prop_assert_eq!(url.scheme(), "https");
                    prop_assert!(url.domain().is_some_and(|host| host.contains('.')), "{}", uri);
                }
                Class::Loopback => prop_assert!(url.scheme() == "http" && is_loopback(&url)),
                Class::App { .. } => {
                    let listed = APPS.iter().any(|app| uri.starts_with(app));
                    prop_assert!(url.scheme().contains('.') || listed, "{}", uri);
                }
            }
        }

        #[test]
        fn web_redirects_never_leave_their_host(host in "[a-z]{1,8}\\.[a-z]{2,5}", path in "(/[a-zA-Z0-9_-]{1,6}){0,3}", other in "[a-z]{1,8}\\.[a-z]{2,5}") {
            let registered = format!("https://{host}{path}");
            prop_assume!(host != other);
            let asked = format!("https://{other}{path}");
            prop_assert!(!matches(&registered, &asked));
        }

        #[test]
        fn loopback_takes_any_port(port in 1_u16..) {
            let asked = format!("http://127.0.0.1:{port}/callback");
            // 80 is http's own port: written out it is not the canonical form.
            prop_assert_eq!(matches("http://localhost/callback", &asked), port != 80);
        }
    }
}
