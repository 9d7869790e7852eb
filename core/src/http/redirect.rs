//! The redirect policy: which URIs a client may register, and which of them a request may name. Pure.
//!
//! A redirect URI decides who gets the code, so it must mean one thing to every reader. Only URIs that are already in
//! the canonical form of the URL standard pass: no dot segments, no upper-case host, no stray escapes to disagree on.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

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
    /// It has an escape in its path that programs disagree on, or that is none.
    #[error("a redirect URI must not have escaped slashes, backslashes or control characters in it, nor a lone %")]
    Escapes,
    /// Its query has a parameter that the answer adds.
    #[error("a redirect URI must not have code, state, iss or error in its query: the answer adds them")]
    Query,
    /// It is not a URL, or not in canonical form.
    #[error("a redirect URI must be an absolute URL in canonical form, without dot segments")]
    Form,
    /// It is `https` with an address or a private name, has port 0, or is a listed application's without a host.
    #[error("an https redirect URI must have a public host name, and no redirect URI port 0 or an empty host")]
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
    if !escapes_are_sound(&url) {
        return Err(Unacceptable::Escapes);
    }
    if url.query_pairs().any(|(name, _)| ANSWERED.contains(&&*name)) {
        return Err(Unacceptable::Query);
    }
    // Nothing can be answered there.
    if url.port() == Some(0) {
        return Err(Unacceptable::Host);
    }
    match url.scheme() {
        "https" => match url.host() {
            Some(Host::Domain(host)) if is_public(host) => Ok(Class::Web { host: authority(&url, host) }),
            _ => Err(Unacceptable::Host),
        },
        "http" if is_loopback(&url) => Ok(Class::Loopback),
        "http" => Err(Unacceptable::Scheme),
        scheme => match url.host_str().filter(|host| !host.is_empty()) {
            Some(host) if is_private_use(scheme) || is_listed(uri) => {
                Ok(Class::App { scheme: format!("{scheme}://{host}") })
            }
            None if is_private_use(scheme) => Ok(Class::App { scheme: format!("{scheme}:") }),
            // The host says which part of the application it is.
            None if is_listed(uri) => Err(Unacceptable::Host),
            Some(_) | None => Err(Unacceptable::Scheme),
        },
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
    let is_plain = |uri: &str| url.as_str() == uri || url.as_str().strip_suffix('/') == Some(uri);
    let plain = is_plain(uri) || without_default_port(uri).is_some_and(|uri| is_plain(&uri));
    // A host of dots is a dot segment to whoever splits at slashes.
    let dots = url.host_str().is_some_and(|host| !host.is_empty() && host.bytes().all(|byte| byte == b'.'));
    let bare = url.username().is_empty() && url.password().is_none();
    (plain && bare && !dots && !url.cannot_be_a_base()).then_some(url)
}

/// `uri` without its scheme's own port, if it has that written out: a program that listens on port 80 builds such a URI.
fn without_default_port(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    Some(format!("{scheme}://{}{path}", authority.strip_suffix(port)?))
}

/// Whether every `%` begins an escape, none of a control character, and none in the path of what separates segments: there
/// some decode first and split then.
fn escapes_are_sound(url: &Url) -> bool {
    let escapes = |text: &str| {
        text.split('%').skip(1).map(|rest| rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok())).collect()
    };
    let all: Vec<Option<u8>> = escapes(url.as_str());
    let in_path: Vec<Option<u8>> = escapes(url.path());
    all.iter().all(|escape| escape.is_some_and(|byte| !byte.is_ascii_control()))
        && !in_path.iter().flatten().any(|byte| matches!(byte, b'/' | b'\\'))
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

/// Whether it names this machine in one of the ways that redirects may.
pub(crate) fn is_loopback(url: &Url) -> bool {
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

fn is_listed(uri: &str) -> bool {
    APPS.iter().any(|app| uri.starts_with(app))
}

/// Names that resolve on one machine or network only, or nowhere: RFC 6761, RFC 6762, RFC 8375, RFC 9476 and common
/// practice.
const PRIVATE_SUFFIXES: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "home.arpa",
    "onion",
    "alt",
    "test",
    "invalid",
];
/// What an authorization response adds to the query (RFC 6749 section 4.1.2, RFC 9207): there it must stand once.
const ANSWERED: &[&str] = &["code", "state", "iss", "error", "error_description", "error_uri"];

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
        "https://claude.ai/cb?from=a%2Fb&codes=1",
        "https://claude.ai/a%20b",
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
        use Unacceptable::{Characters, Escapes, Form, Host, Query, Scheme, TooLong};
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
            ("com.example.app://.", Form),
            ("vscode://../did-authenticate", Form),
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
            ("https://printer.localhost/cb", Host),
            ("https://relay.test/cb", Host),
            ("https://claude.invalid/cb", Host),
            ("https://claude.alt/cb", Host),
            ("https://com/cb", Host),
            ("https://claude.ai:0/cb", Host),
            ("http://localhost:0/cb", Host),
            ("http://[::1]:0/cb", Host),
            ("com.example.app://callback:0/cb", Host),
            ("vscode:///did-authenticate", Host),
            ("vscode://", Host),
            ("cursor:///anysphere.cursor-mcp/", Scheme),
            ("https://claude.ai/a%5cb", Escapes),
            ("https://claude.ai/a%5Cb", Escapes),
            ("https://claude.ai/a%2f..%2fb", Escapes),
            ("https://claude.ai/a%2Fb", Escapes),
            ("https://claude.ai/cb%0d%0aSet-Cookie:x", Escapes),
            ("https://claude.ai/cb%00", Escapes),
            ("https://claude.ai/cb?x=%0a", Escapes),
            ("https://claude.ai/cb%7f", Escapes),
            ("https://claude.ai/cb%", Escapes),
            ("https://claude.ai/cb%zz", Escapes),
            ("https://claude.ai/cb?x=%1", Escapes),
            ("http://localhost/cb%00", Escapes),
            ("com.example.app:/cb%0a", Escapes),
            ("vscode://x%00/cb", Escapes),
            ("https://claude.ai/cb?code=x", Query),
            ("https://claude.ai/cb?a=b&state", Query),
            ("https://claude.ai/cb?iss=https://evil.example", Query),
            ("https://claude.ai/cb?%63ode=x", Query),
            ("https://claude.ai/cb?error=x", Query),
            ("http://localhost/cb?state=x", Query),
            ("com.example.app:/cb?code=x", Query),
            ("javascript:alert(1)", Form),
            ("data:text/html,x", Form),
        ];
        for (uri, why) in cases {
            assert_eq!(classify(uri), Err(why), "{uri}");
        }
    }

    #[test]
    fn default_port_may_be_written_out_and_is_compared_as_written() {
        for uri in [
            "http://localhost:80/callback",
            "http://127.0.0.1:80/callback?x=1",
            "http://[::1]:80/",
            "http://localhost:80",
            "https://claude.ai:443/cb",
            "https://claude.ai:443",
        ] {
            assert!(classify(uri).is_ok() && matches(uri, uri), "{uri}: {:?}", classify(uri));
        }
        assert_eq!(classify("https://claude.ai:443/cb"), Ok(Class::Web { host: "claude.ai".into() }));
        assert!(matches("http://localhost:4711/callback", "http://127.0.0.1:80/callback"));
        assert!(matches("http://localhost:80/callback", "http://127.0.0.1:4711/callback"));
        assert!(!matches("https://claude.ai:443/cb", "https://claude.ai/cb"));
        assert!(!matches("https://claude.ai/cb", "https://claude.ai:443/cb"));
        for uri in [
            "http://localhost:080/cb",
            "http://localhost:/cb",
            "https://claude.ai:0443/cb",
            "https://CLAUDE.ai:443/cb",
            "https://claude.ai:443/a/../cb",
            "https://claude.ai:443/cb/..",
        ] {
            assert_eq!(classify(uri), Err(Unacceptable::Form), "{uri}");
        }
        assert_eq!(classify("https://localhost:443/cb"), Err(Unacceptable::Host));
        assert_eq!(classify("http://claude.ai:80/cb"), Err(Unacceptable::Scheme));
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
            prop_assert!(url.port() != Some(0), "{}", uri);
            match class {
                Class::Web { .. } => {
                    prop_assert_eq!(url.scheme(), "https");
                    prop_assert!(url.domain().is_some_and(|host| host.contains('.')), "{}", uri);
                    let last = url.domain().and_then(|host| host.rsplit('.').next()).unwrap_or_default();
                    prop_assert!(!matches!(last, "localhost" | "local" | "invalid" | "test"), "{}", uri);
                }
                Class::Loopback => prop_assert!(url.scheme() == "http" && is_loopback(&url)),
                Class::App { .. } => {
                    let listed = APPS.iter().any(|app| uri.starts_with(app));
                    prop_assert!(url.scheme().contains('.') || listed, "{}", uri);
                    prop_assert!(!listed || url.host_str().is_some_and(|host| !host.is_empty()), "{}", uri);
                }
            }
        }

        #[test]
        fn what_passes_means_the_same_decoded(path in "(/?[a-z]{0,3}(%[0-9a-fA-F]{2}|%[0-9a-z]?)?){0,4}", query in "(\\?(code|state|iss|error|x|%63ode)(=[a-z]{0,2}(%[0-9a-f]{2})?)?(&(code|y|i%73s)(=z)?)?)?") {
            for base in ["https://claude.ai/", "http://localhost/", "vscode://x.y/", "com.example.app:/"] {
                let uri = format!("{base}{path}{query}");
                if classify(&uri).is_err() {
                    continue;
                }
                let url = Url::parse(&uri).expect("it passed");
                let decoded: Vec<u8> = percent_encoding::percent_decode_str(url.path()).collect();
                let slashes = |text: &[u8]| text.iter().filter(|byte| matches!(byte, b'/' | b'\\')).count();
                prop_assert_eq!(slashes(&decoded), slashes(url.path().as_bytes()), "{}", uri);
                let whole: Vec<u8> = percent_encoding::percent_decode_str(&uri).collect();
                prop_assert!(!whole.iter().any(u8::is_ascii_control), "{}", uri);
                let answer = crate::http::form::append_query(&uri, [("code", "c"), ("state", "s"), ("iss", "i")]);
                let answer = Url::parse(&answer).expect("a URL");
                for name in ["code", "state", "iss", "error"] {
                    let count = answer.query_pairs().filter(|(key, _)| key == name).count();
                    prop_assert_eq!(count, usize::from(name != "error"), "{}", uri);
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
            prop_assert!(matches("http://localhost/callback", &asked));
        }
    }
}
