//! An authority's refusals in words, with what mends them. The library has many of them only as its own values look.

use std::error::Error as _;
use std::io;

use rustls_acme::acme::{AcmeError, Auth, ChallengeType, Problem};
use rustls_acme::{EventError, OrderError};

/// Says `error` in words; `domains` are those that a certificate is wanted for.
pub(super) fn words(error: &EventError<io::Error, io::Error>, domains: &[String]) -> String {
    let text = match error {
        EventError::Order(error) => order(error, domains),
        EventError::NewCertParse(error) => format!("the authority's certificate cannot be read: {error}"),
        EventError::CertCacheLoad(error) | EventError::AccountCacheLoad(error) => {
            format!("what was kept there cannot be read: {error}")
        }
        EventError::CertCacheStore(error) | EventError::AccountCacheStore(error) => {
            format!("nothing can be kept there: {error}")
        }
        EventError::CachedCertParse(error) => format!("the certificate that was kept is damaged: {error}"),
    };
    // Much of it is the authority's own text.
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

fn order(error: &OrderError, domains: &[String]) -> String {
    let names = domains.join(", ");
    match error {
        OrderError::BadAuth(auth) => format!(
            "the authority did not find this relay at port 443 of {names}{}: the name's address must be this machine's, \
             and that port must lead to the relay's",
            said(found(auth))
        ),
        OrderError::BadOrder(order) => {
            format!("the authority refused the order for {names}{}", said(order.error.as_ref()))
        }
        OrderError::TooManyAttemptsAuth(_) | OrderError::ProcessingTimeout(_) => {
            format!("the authority did not come to an end with {names} in time")
        }
        OrderError::Acme(AcmeError::HttpRequest(error)) => match refusal(&error.to_string()) {
            Some(text) => text,
            None => unreachable(&error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        },
        OrderError::Acme(AcmeError::NoTlsAlpn01Challenge) => {
            "the authority does not offer TLS-ALPN-01, the one way in which this relay shows that a name is its own"
                .into()
        }
        OrderError::Acme(AcmeError::Json(_) | AcmeError::MissingHeader(_)) => {
            "what answers is no authority (RFC 8555): see tls.acme.directory".into()
        }
        OrderError::Acme(error) => error.to_string(),
        OrderError::Rcgen(error) => format!("the request for a certificate cannot be made: {error}"),
    }
}

/// What the authority found when it looked for us.
fn found(auth: &Auth) -> Option<&Problem> {
    let ours = auth.challenges.iter().find(|challenge| challenge.typ == ChallengeType::TlsAlpn01);
    ours.and_then(|challenge| challenge.error.as_ref())
}

fn said(problem: Option<&Problem>) -> String {
    problem.and_then(|problem| problem.detail.as_ref()).map(|detail| format!(" (\"{detail}\")")).unwrap_or_default()
}

/// An answer of the authority's, out of the only text in which the library has it: the status, and the body as a
/// quoted string.
fn refusal(text: &str) -> Option<String> {
    let (status, body) = text.strip_prefix("non 2xx http status: ")?.split_once(' ')?;
    let body: String = serde_json::from_str(body).unwrap_or_default();
    let problem: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    let member = |name: &str| Some(problem.as_ref()?.get(name)?.as_str()?.to_owned());
    let detail = member("detail").map(|detail| format!(" (\"{detail}\")")).unwrap_or_default();
    let kind = member("type").unwrap_or_default();
    let mend = match kind.rsplit(':').next().unwrap_or_default() {
        "rateLimited" => ": it counts by the hour and the week, and is asked again later",
        "rejectedIdentifier" | "unsupportedIdentifier" => ": see tls.acme.domains",
        "invalidContact" | "unsupportedContact" => ": see tls.acme.email",
        "externalAccountRequired" => ": it takes only accounts that were made elsewhere, which this relay cannot use",
        "caa" => ": the name's CAA record has to allow this authority",
        _ if kind.is_empty() => ": what answers may be no authority, see tls.acme.directory",
        _ => "",
    };
    Some(format!("the authority answered {status}{detail}{mend}"))
}

fn unreachable(text: &str) -> String {
    let system = text.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"')).map(|(message, _)| message);
    if text.contains("Certificate") {
        return "the authority's own certificate is not trusted: see tls.acme.caFile".into();
    }
    let why = system.map(|message| format!(" ({message})")).unwrap_or_default();
    format!("the authority cannot be reached{why}: see tls.acme.directory and this machine's network")
}

/// How much of an authority's error is shown.
const MAX_REASON: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_acme::acme::{AuthStatus, Challenge, Identifier};

    #[test]
    fn name_that_leads_elsewhere_is_told_with_what_the_authority_found() {
        let problem = |detail: &str| Problem { typ: None, detail: Some(detail.into()) };
        let challenge = |typ, detail: &str| Challenge {
            typ,
            url: String::new(),
            token: "tok".into(),
            error: Some(problem(detail)),
        };
        let auth = Auth {
            status: AuthStatus::Invalid,
            identifier: Identifier::Dns("relay.test".into()),
            challenges: vec![
                challenge(ChallengeType::Http01, "other"),
                challenge(ChallengeType::TlsAlpn01, "connection\nrefused"),
            ],
        };
        let text = words(&EventError::Order(OrderError::BadAuth(auth)), &["relay.test".into()]);
        assert_eq!(
            text,
            "the authority did not find this relay at port 443 of relay.test (\"connectionrefused\"): the name's address \
             must be this machine's, and that port must lead to the relay's"
        );
    }

    #[test]
    fn answers_of_the_authority_are_told_in_its_words_with_a_remedy() {
        let answer = |status: u16, body: &str| refusal(&format!("non 2xx http status: {status} {body:?}"));
        let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many: see \"limits\""}"#;
        let text = answer(429, limited).expect("it is one");
        assert!(text.starts_with("the authority answered 429 (\"too many: see \"limits\"\"): it counts"), "{text}");
        for (kind, setting) in [("rejectedIdentifier", "tls.acme.domains"), ("invalidContact", "tls.acme.email")] {
            let text = answer(400, &format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}"}}"#)).expect("it is one");
            assert!(text.contains(setting), "{text}");
        }
        for body in ["", "<html>", "\u{1f}", "{}", "[]", r#"{"type":7,"detail":{}}"#] {
            assert!(answer(404, body).expect("it is one").contains("tls.acme.directory"), "{body}");
        }
        assert_eq!(refusal("io error: something"), None);
    }
}
