//! `clients` and `clientDocuments`: which MCP clients may sign people in, beside those that register themselves.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::checked::{Clients, StaticClient};
use super::problem::Report;
use super::raw::{Node, Object};
use super::reference::Reference;
use crate::http::redirect;
use crate::limits;
use crate::secret::Secret;

/// Reads both settings of a relay.
pub(super) fn check(top: &Object<'_>, report: &mut Report) -> Clients {
    let known = top.get("clients").map(|node| clients(&node, report)).unwrap_or_default();
    let loopback_documents = top.get("clientDocuments").and_then(|node| {
        let documents = node.object(report)?;
        documents.warn_unknown(&["allowLoopback"], &[], report);
        documents.get("allowLoopback")?.boolean(report)
    });
    Clients { known, loopback_documents: loopback_documents.unwrap_or(false) }
}

fn clients(node: &Node<'_>, report: &mut Report) -> Vec<StaticClient> {
    let items = node.array(report).unwrap_or_default();
    if items.len() > limits::MAX_STATIC_CLIENTS {
        report.error(&node.path, format!("has more than {} clients", limits::MAX_STATIC_CLIENTS));
        return Vec::new();
    }
    let mut clients: Vec<StaticClient> = Vec::new();
    for item in &items {
        let Some(client) = client(item, report) else { continue };
        if clients.iter().any(|other| other.id == client.id) {
            report.error(&format!("{}.id", item.path), "is another client's id: each id may stand once");
        }
        clients.push(client);
    }
    clients
}

fn client(node: &Node<'_>, report: &mut Report) -> Option<StaticClient> {
    let client = node.object(report)?;
    client.warn_unknown(&["id", "name", "redirectUris", "secret"], &ELSEWHERE, report);
    let id = required(&client, "id", "give the id that the client is set up with", report, |node, report| {
        let id = node.text(report)?;
        id_problem(id).map_or(Some(id.to_string()), |problem| {
            report.error(&node.path, problem);
            None
        })
    });
    let name = required(&client, "name", "give the name that people are shown", report, |node, report| {
        let name = node.text(report)?;
        let fits = name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
        if !fits {
            report.error(&node.path, format!("must be at most {MAX_NAME} characters, without control characters"));
        }
        fits.then(|| name.to_string())
    });
    let remedy = "give the addresses where the client may be answered";
    let redirects = required(&client, "redirectUris", remedy, report, redirects);
    let secret = match client.get("secret") {
        Some(node) => Some(secret(&node, report)?),
        None => None,
    };
    Some(StaticClient { id: id?, name: name?, redirects: redirects?, secret })
}

fn required<'a, T>(
    client: &Object<'a>,
    key: &str,
    remedy: &str,
    report: &mut Report,
    read: impl FnOnce(&Node<'a>, &mut Report) -> Option<T>,
) -> Option<T> {
    let Some(node) = client.get(key) else {
        client.missing(key, remedy, report);
        return None;
    };
    read(&node, report)
}

/// What is wrong with an id. None may look like those that other kinds of clients have: a URL, the agent's, a sealed one.
fn id_problem(id: &str) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if id.len() > MAX_ID || !id.bytes().all(is_plain) {
        return Some("must be 1 to 64 letters, digits, and -._~");
    }
    let is_ours = id.starts_with("mlt_") || id.starts_with("mcp-local-tunnel");
    is_ours.then_some("must not begin with mlt_ or mcp-local-tunnel: those ids are the relay's own")
}

/// Every URI is judged, and each that does not pass is named: an operator wants to know, where a client that registers
/// itself only wants to get on.
fn redirects(node: &Node<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = node.array(report)?;
    if items.is_empty() || items.len() > limits::MAX_REDIRECTS {
        report.error(&node.path, format!("must name 1 to {} addresses", limits::MAX_REDIRECTS));
        return None;
    }
    let read = |item: &Node<'_>, report: &mut Report| {
        let uri = item.text(report)?;
        redirect::classify(uri)
            .map_err(|problem| report.error(&item.path, format!("cannot be used: {problem}")))
            .ok()?;
        Some(uri.to_string())
    };
    // Collected twice so that each wrong item is reported, not only the first.
    let uris: Vec<_> = items.iter().map(|item| read(item, report)).collect();
    uris.into_iter().collect()
}

fn secret(node: &Node<'_>, report: &mut Report) -> Option<Secret> {
    let text = node.text(report)?;
    let problem = match Reference::read(text) {
        Some(Reference::Variable("")) => Some("names no variable: write env:NAME"),
        Some(Reference::Variable(_) | Reference::File(_)) => None,
        None if text.len() < MIN_SECRET => Some("is too short to be a secret: give 16 random characters or more"),
        None => None,
    };
    if let Some(problem) = problem {
        report.error(&node.path, problem);
        return None;
    }
    Some(Secret::new(text))
}

const ELSEWHERE: [(&str, &str); 5] = [
    ("client_id", "is called id here"),
    ("client_name", "is called name here"),
    ("client_secret", "is called secret here"),
    ("redirect_uris", "is called redirectUris here"),
    ("redirects", "is called redirectUris here"),
];
const MAX_ID: usize = 64;
/// What fits a line of the consent page.
const MAX_NAME: usize = 80;
/// What nobody guesses at the rate that `/token` allows.
const MIN_SECRET: usize = 16;

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use crate::config::{Config, parse};
    use crate::limits;

    fn relay(members: &str) -> String {
        format!(r#"{{"mode":"relay","auth":{{"issuer":"https://id.example.com"}},{members}}}"#)
    }

    fn client(client: &str) -> String {
        relay(&format!(r#""clients":[{client}]"#))
    }

    #[track_caller]
    fn assert_only(text: &str, expected: &str) {
        let lines: Vec<_> = match parse(text) {
            Ok(parsed) => parsed.warnings.iter().map(|problem| format!("warning {problem}")).collect(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert!(lines.len() == 1 && lines[0].starts_with(expected), "{text}\n  {expected}\n  {lines:#?}");
    }

    #[test]
    fn clients_of_every_kind_are_taken() {
        let text = relay(
            r#""clientDocuments":{"allowLoopback":true},"clients":[
                {"id":"ci","name":"CI","redirectUris":["http://localhost/callback"]},
                {"id":"app","name":"App","redirectUris":["https://app.example/cb","cursor://anysphere.cursor-mcp/x"],"secret":"0123456789abcdef"},
                {"id":"v","name":"V","redirectUris":["https://v.example/"],"secret":"env:V"},
                {"id":"f","name":"F","redirectUris":["https://f.example/"],"secret":"file:/f"}]"#,
        );
        let Ok(parsed) = parse(&text) else { panic!("{:?}", parse(&text)) };
        assert!(parsed.warnings.is_empty());
        let Config::Relay(config) = parsed.config else { panic!("a relay") };
        assert!(config.clients.loopback_documents);
        let ids: Vec<_> = config.clients.known.iter().map(|one| (one.id.as_str(), one.secret.is_some())).collect();
        assert_eq!(ids, [("ci", false), ("app", true), ("v", true), ("f", true)]);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn without_them_there_are_none_and_documents_are_public() {
        let Ok(parsed) = parse(&relay(r#""port":1"#)) else { panic!() };
        let Config::Relay(config) = parsed.config else { panic!() };
        assert!(config.clients.known.is_empty() && !config.clients.loopback_documents);
    }

    #[test]
    fn every_mistake_is_named_with_its_path() {
        for (entry, expected) in [
            (r#"{"name":"A","redirectUris":["https://a.example/"]}"#, "clients[0].id is missing"),
            (r#"{"id":"a","redirectUris":["https://a.example/"]}"#, "clients[0].name is missing"),
            (r#"{"id":"a","name":"A"}"#, "clients[0].redirectUris is missing"),
            (r#"{"id":"a b","name":"A","redirectUris":["https://a.example/"]}"#, "clients[0].id must be 1 to 64"),
            (
                r#"{"id":"https://a.example/","name":"A","redirectUris":["https://a.example/"]}"#,
                "clients[0].id must be",
            ),
            (r#"{"id":"mlt_c_x","name":"A","redirectUris":["https://a.example/"]}"#, "clients[0].id must not begin"),
            (
                r#"{"id":"mcp-local-tunnel-agent","name":"A","redirectUris":["https://a.example/"]}"#,
                "clients[0].id must not begin",
            ),
            (r#"{"id":"a","name":"A\n","redirectUris":["https://a.example/"]}"#, "clients[0].name must be at most"),
            (r#"{"id":"a","name":"A","redirectUris":[]}"#, "clients[0].redirectUris must name 1 to 10"),
            (
                r#"{"id":"a","name":"A","redirectUris":"https://a.example/"}"#,
                "clients[0].redirectUris must be an array",
            ),
            (
                r#"{"id":"a","name":"A","redirectUris":["https://a.example/","http://a.example/"]}"#,
                "clients[0].redirectUris[1] cannot be used: a redirect URI must be https",
            ),
            (
                r#"{"id":"a","name":"A","redirectUris":["https://10.0.0.1/"]}"#,
                "clients[0].redirectUris[0] cannot be used: an https redirect URI must have a public host name",
            ),
            (
                r#"{"id":"a","name":"A","redirectUris":["https://a.example/"],"secret":"short"}"#,
                "clients[0].secret is too",
            ),
            (
                r#"{"id":"a","name":"A","redirectUris":["https://a.example/"],"secret":"env:"}"#,
                "clients[0].secret names",
            ),
            (
                r#"{"id":"a","name":"A","redirectUris":["https://a.example/"],"redirect_uris":1}"#,
                "warning clients[0].redirect_uris is called redirectUris here",
            ),
            (r#"7"#, "clients[0] must be a JSON object"),
            (
                r#"{"id":"a","name":"A","redirectUris":["https://a.example/"]},{"id":"a","name":"B","redirectUris":["https://b.example/"]}"#,
                "clients[1].id is another client's id",
            ),
        ] {
            assert_only(&client(entry), expected);
        }
        assert_only(&relay(r#""clients":{}"#), "clients must be an array");
        assert_only(&relay(r#""clientDocuments":{"allowLoopback":1}"#), "clientDocuments.allowLoopback must be true");
        assert_only(
            &relay(r#""clientDocument":{}"#),
            "warning clientDocument is not a setting: did you mean clientDoc",
        );
    }

    #[test]
    fn one_client_more_than_the_limit_is_refused() {
        let many = |count: usize| {
            let one = |at: usize| format!(r#"{{"id":"c{at}","name":"C","redirectUris":["https://a.example/"]}}"#);
            client(&(0..count).map(one).collect::<Vec<_>>().join(","))
        };
        assert!(parse(&many(limits::MAX_STATIC_CLIENTS)).is_ok());
        assert_only(&many(limits::MAX_STATIC_CLIENTS + 1), "clients has more than 64 clients");
    }

    #[test]
    fn no_problem_repeats_a_secret() {
        let text = client(r#"{"id":"c4n4ry c4n4ry","name":"c4n4ry\n","redirectUris":["c4n4ry"],"secret":"c4n4ry"}"#);
        let problems = parse(&text).expect_err("wrong in every way");
        assert!(problems.len() == 4 && problems.iter().all(|problem| !problem.to_string().contains("c4n4ry")));
    }
}
