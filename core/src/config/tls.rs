//! `tls`: how a relay ends TLS itself, with a certificate of the operator's or one that it gets by itself.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use url::{Host, Url};

use super::problem::Report;
use super::raw::{Node, Object};
use super::{address, agent};

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// `cert` and `key`: PEM files, read again when they change.
    Files {
        /// The certificate and those that vouch for it.
        cert: String,
        /// Its private key.
        key: String,
    },
    /// `acme`: an authority that makes one (RFC 8555), as long as the relay runs.
    Acme(Acme),
}

/// An authority and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// `domains`: the names in the certificate (default: the host of `issuerUrl`); never empty.
    pub domains: Vec<String>,
    /// `email`: whom the authority tells of trouble.
    pub email: Option<String>,
    /// `directory`: the authority's URL (default: Let's Encrypt).
    pub directory: String,
    /// `caFile`: a PEM file of certificates that are trusted for the directory beside the system's.
    pub ca_file: Option<String>,
}

/// Reads `tls`; what is wrong goes to `report`. `public_url` is `issuerUrl`, already checked by itself.
pub(super) fn check(node: &Node<'_>, public_url: Option<&str>, report: &mut Report) -> Option<Tls> {
    let tls = node.object(report)?;
    tls.warn_unknown(&["cert", "key", "acme"], &ELSEWHERE, report);
    if public_url.is_some_and(|url| url.starts_with("http://")) {
        report.error("issuerUrl", "must be https: with tls nothing is answered over plain http");
    }
    let (cert, key, acme) = (tls.get("cert"), tls.get("key"), tls.get("acme"));
    match (cert, key, acme) {
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            report.error(&tls.path, "has both acme and a certificate of yours: keep acme, or cert and key");
            None
        }
        (None, None, Some(node)) => self::acme(&node, public_url, report).map(Tls::Acme),
        (Some(cert), Some(key), None) => {
            let (cert, key) = (agent::place(&cert, report), agent::place(&key, report));
            Some(Tls::Files { cert: cert?, key: key? })
        }
        (Some(_), None, None) => {
            tls.missing("key", "give the file with the certificate's private key", report);
            None
        }
        (None, Some(_), None) => {
            tls.missing("cert", "give the file with the certificate and those that vouch for it", report);
            None
        }
        (None, None, None) => {
            report.error(&tls.path, "is empty: give cert and key, or acme to get a certificate from an authority");
            None
        }
    }
}

fn acme(node: &Node<'_>, public_url: Option<&str>, report: &mut Report) -> Option<Acme> {
    let acme = node.object(report)?;
    acme.warn_unknown(&["domains", "email", "directory", "caFile"], &[], report);
    let own = public_url.and_then(host);
    let domains = domains(&acme, own, report);
    let email = acme.get("email").map(|node| email(&node, report));
    let directory = acme.get("directory").map(|node| {
        let text = node.text(report)?;
        address::directory(text).map_err(|problem| report.error(&node.path, problem)).ok()?;
        Some(text.to_string())
    });
    let ca_file = acme.get("caFile").map(|node| agent::place(&node, report));
    // What was given and is wrong must not turn into what was not given.
    Some(Acme {
        domains: domains?,
        email: email.map_or(Some(None), |email| email.map(Some))?,
        directory: directory.unwrap_or_else(|| Some(LETS_ENCRYPT.into()))?,
        ca_file: ca_file.map_or(Some(None), |file| file.map(Some))?,
    })
}

/// `domains`, lower case. The authority looks at each by its name, at port 443 (RFC 8737).
fn domains(acme: &Object<'_>, own: Option<String>, report: &mut Report) -> Option<Vec<String>> {
    let Some(node) = acme.get("domains") else {
        if own.is_none() {
            acme.missing("domains", "name the relay's host, or give issuerUrl with a host name", report);
        }
        return Some(Vec::from([own?]));
    };
    let items = node.array(report)?;
    if items.is_empty() || items.len() > MAX_DOMAINS {
        report.error(&node.path, alloc::format!("must name one host at least, and {MAX_DOMAINS} at most"));
        return None;
    }
    let domains: Vec<_> = items.iter().map(|item| domain(item, report)).collect();
    let domains: Vec<String> = domains.into_iter().collect::<Option<_>>()?;
    if own.is_some_and(|own| !domains.contains(&own)) {
        report.warn(&node.path, "do not name the host of issuerUrl: clients will not trust the certificate");
    }
    Some(domains)
}

fn domain(node: &Node<'_>, report: &mut Report) -> Option<String> {
    let text = node.text(report)?;
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !text.contains('*') && !name.ends_with('.') => Some(name),
        _ => {
            report.error(&node.path, "must be a host name, as in \"tunnel.example.com\": no address, no wildcard");
            None
        }
    }
}

fn email<'a>(node: &Node<'a>, report: &mut Report) -> Option<String> {
    let text: &'a str = node.text(report)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?&#<>,;:\"".contains(&byte));
    match text.split_once('@') {
        Some((name, host)) if plain && !name.is_empty() && !host.is_empty() && !host.contains('@') => Some(text.into()),
        _ => {
            report.error(&node.path, "must be one e-mail address, as in \"ops@example.com\", without mailto:");
            None
        }
    }
}

/// The host of a URL, unless it is an address.
fn host(url: &str) -> Option<String> {
    match Url::parse(url).ok()?.host()? {
        Host::Domain(name) => Some(name.to_string()),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

/// What people write beside `acme` that belongs into it.
const ELSEWHERE: [(&str, &str); 4] = [
    ("domains", "belongs into tls.acme: write tls.acme.domains"),
    ("email", "belongs into tls.acme: write tls.acme.email"),
    ("directory", "belongs into tls.acme: write tls.acme.directory"),
    ("caFile", "belongs into tls.acme: write tls.acme.caFile"),
];
/// The authority that most relays use: free, and trusted everywhere.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// What that authority takes in one certificate.
const MAX_DOMAINS: usize = 100;

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use super::super::{Config, parse};
    use super::*;

    fn outcome(tls: &str, more: &str) -> Result<(Tls, Vec<String>), Vec<String>> {
        let text = format!(r#"{{"mode":"relay","auth":{{"issuer":"https://id.example.com"}},"tls":{tls}{more}}}"#);
        let lines = |problems: Vec<super::super::Problem>| problems.iter().map(ToString::to_string).collect();
        match parse(&text) {
            Ok(parsed) => {
                let Config::Relay(config) = parsed.config else { panic!("it is a relay's") };
                Ok((config.tls.expect("it was given"), lines(parsed.warnings)))
            }
            Err(problems) => Err(lines(problems)),
        }
    }

    const PUBLIC: &str = r#","issuerUrl":"https://Tunnel.Example.com""#;

    #[test]
    fn files_and_authorities_are_taken() {
        let files = Tls::Files { cert: "/etc/c.pem".into(), key: "k.pem".into() };
        assert_eq!(outcome(r#"{"cert":"/etc/c.pem","key":"k.pem"}"#, PUBLIC), Ok((files, Vec::new())));
        let Ok((Tls::Acme(acme), warnings)) = outcome(r#"{"acme":{}}"#, PUBLIC) else { panic!("it is fine") };
        assert_eq!((acme.domains, warnings), (Vec::from(["tunnel.example.com".to_string()]), Vec::new()));
        assert_eq!((acme.email, acme.directory.as_str(), acme.ca_file), (None, LETS_ENCRYPT, None));
        let given = r#"{"acme":{"domains":["Tunnel.example.com","b.example"],"email":"ops@example.com",
            "directory":"https://127.0.0.1:14000/dir","caFile":"/ca.pem"}}"#;
        let Ok((Tls::Acme(acme), warnings)) = outcome(given, PUBLIC) else { panic!("it is fine") };
        assert_eq!(
            (acme.domains.as_slice(), warnings),
            (&["tunnel.example.com".into(), "b.example".into()][..], Vec::new())
        );
        assert_eq!((acme.email.as_deref(), acme.ca_file.as_deref()), (Some("ops@example.com"), Some("/ca.pem")));
        assert_eq!(acme.directory, "https://127.0.0.1:14000/dir");
        let (_, warnings) = outcome(r#"{"acme":{"domains":["other.example"]}}"#, PUBLIC).expect("it can be used");
        assert!(warnings[0].starts_with("tls.acme.domains do not name the host of issuerUrl"), "{warnings:?}");
    }

    #[test]
    fn mistakes_are_named() {
        for (tls, more, expected) in [
            ("true", "", "tls must be a JSON object"),
            ("{}", "", "tls is empty: give cert and key, or acme"),
            (r#"{"cert":"c"}"#, "", "tls.key is missing"),
            (r#"{"key":"k"}"#, "", "tls.cert is missing"),
            (r#"{"cert":"c","key":"~/k"}"#, "", "tls.key must not begin with ~"),
            (r#"{"cert":"c","key":"k","acme":{}}"#, PUBLIC, "tls has both acme and a certificate of yours"),
            (r#"{"acme":{}}"#, "", "tls.acme.domains is missing"),
            (r#"{"acme":{}}"#, r#","issuerUrl":"https://192.0.2.1""#, "tls.acme.domains is missing"),
            (r#"{"acme":{"domains":[]}}"#, "", "tls.acme.domains must name one host at least"),
            (r#"{"acme":{"domains":["*.example.com"]}}"#, "", "tls.acme.domains[0] must be a host name"),
            (r#"{"acme":{"domains":["192.0.2.1"]}}"#, "", "tls.acme.domains[0] must be a host name"),
            (r#"{"acme":{"domains":["https://a.example"]}}"#, "", "tls.acme.domains[0] must be a host name"),
            (r#"{"acme":{"email":"mailto:a@b"}}"#, PUBLIC, "tls.acme.email must be one e-mail address"),
            (r#"{"acme":{"email":"a"}}"#, PUBLIC, "tls.acme.email must be one e-mail address"),
            (r#"{"acme":{"directory":"http://a.example"}}"#, PUBLIC, "tls.acme.directory must be the https:// URL"),
            (r#"{"cert":"c","key":"k"}"#, r#","issuerUrl":"http://localhost:3000""#, "issuerUrl must be https"),
        ] {
            let problems = outcome(tls, more).expect_err(tls);
            assert!(problems.iter().any(|line| line.starts_with(expected)), "{tls}: {problems:?}");
        }
        let (_, warnings) = outcome(r#"{"cert":"c","key":"k","email":"a@b"}"#, PUBLIC).expect("it can be used");
        assert_eq!(warnings, ["tls.email belongs into tls.acme: write tls.acme.email"]);
    }
}
