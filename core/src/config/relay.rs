//! A relay's settings.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::str::FromStr;

use super::checked::{Local, LocalUser, Login, Naming, Oidc, RelayConfig};
use super::json::Json;
use super::network::Network;
use super::problem::Report;
use super::raw::{Node, Object};
use super::reference::Reference;
use super::{address, bounds, tls};
use crate::limits;
use crate::secret::Secret;

/// The settings of a relay.
const KEYS: [&str; 17] = [
    "mode",
    "auth",
    "port",
    "host",
    "issuerUrl",
    "secret",
    "stateDir",
    "clients",
    "clientDocuments",
    "naming",
    "legacy",
    "allowedOrigins",
    "trustedProxies",
    "tls",
    "limits",
    "audit",
    "$schema",
];
/// Settings that stand elsewhere, and what to say of them.
const ELSEWHERE: [(&str, &str); 18] = [
    ("issuer", "belongs into auth: write auth.issuer"),
    ("clientId", "belongs into auth: write auth.clientId"),
    ("clientSecret", "belongs into auth: write auth.clientSecret"),
    ("scopes", "belongs into auth: write auth.scopes"),
    ("userClaim", "belongs into auth: write auth.userClaim"),
    ("allow", "belongs into auth: write auth.allow"),
    ("local", "belongs into auth: write auth.local"),
    ("users", "belongs into auth: write auth.local.users"),
    ("allowLoopback", "belongs into clientDocuments: write clientDocuments.allowLoopback"),
    ("tokenInQuery", "belongs into legacy: write legacy.tokenInQuery"),
    ("cert", "belongs into tls: write tls.cert"),
    ("key", "belongs into tls: write tls.key"),
    ("acme", "belongs into tls: write tls.acme"),
    ("maxBody", "belongs into limits: write limits.maxBody"),
    ("callIdleTimeout", "belongs into limits: write limits.callIdleTimeout"),
    ("servers", "is an agent's setting: servers run where the agent does (\"mode\": \"agent\")"),
    ("mcpServers", "is an agent's setting: servers run where the agent does (\"mode\": \"agent\")"),
    ("relay", "is an agent's setting (\"mode\": \"agent\")"),
];
const OIDC_KEYS: [&str; 6] = ["issuer", "clientId", "clientSecret", "scopes", "userClaim", "allow"];
const AUTH_KEYS: [&str; 7] = ["issuer", "clientId", "clientSecret", "scopes", "userClaim", "allow", "local"];

/// Reads a relay's settings; what is wrong goes to `report`.
pub(super) fn check(top: &Object<'_>, report: &mut Report) -> Option<RelayConfig> {
    top.warn_unknown(&KEYS, &ELSEWHERE, report);
    let login = match top.get("auth") {
        Some(node) => auth(&node, report),
        None => {
            top.missing(
                "auth",
                "say how people sign in, with auth.issuer (an OpenID provider) or auth.local (users of this relay)",
                report,
            );
            None
        }
    };
    let port = top.get("port").and_then(|node| node.integer(0..=u16::MAX.into(), "a port", report));
    let host = top.get("host").and_then(|node| host(&node, report));
    let public_url = top.get("issuerUrl").and_then(|node| parsed(&node, address::public_url, report));
    let secrets = top.get("secret").and_then(|node| secrets(&node, report));
    let state_dir = top.get("stateDir").and_then(|node| super::agent::place(&node, report));
    let clients = super::clients::check(top, report);
    let naming = top.get("naming").and_then(|node| naming(&node, report));
    let token_in_query = top.get("legacy").and_then(|node| legacy(&node, report));
    let allowed_origins = top.get("allowedOrigins").and_then(|node| origins(&node, report));
    let trusted_proxies = top.get("trustedProxies").and_then(|node| proxies(&node, report));
    let audit = top.get("audit").and_then(|node| super::policy::audit(&node, report));
    let tls = top.get("tls").map(|node| tls::check(&node, public_url.as_deref(), report));
    let limits = top.get("limits").map(|node| bounds::check(&node, report));
    Some(RelayConfig {
        audit,
        login: login?,
        host: host.unwrap_or_else(|| "0.0.0.0".into()),
        port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(3000),
        public_url,
        secrets: secrets.unwrap_or_default(),
        state_dir,
        clients,
        naming: naming.unwrap_or_default(),
        token_in_query: token_in_query.unwrap_or(false),
        allowed_origins: allowed_origins.unwrap_or_default(),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
        limits: limits.unwrap_or_default(),
    })
}

/// `auth`: at a provider, or here; never both.
fn auth(node: &Node<'_>, report: &mut Report) -> Option<Login> {
    let auth = node.object(report)?;
    auth.warn_unknown(&AUTH_KEYS, &[("users", "belongs into auth.local: write auth.local.users")], report);
    match (auth.get("issuer"), auth.get("local")) {
        (Some(_), Some(local)) => {
            report.error(&auth.path, "has both issuer and local: keep the one where people sign in");
            oidc(&auth, report);
            self::local(&local, report);
            None
        }
        (None, Some(local)) => {
            for (key, node) in auth.members().filter(|(key, _)| OIDC_KEYS.contains(key)) {
                report.warn(&node.path, alloc::format!("has no effect with auth.local: remove {key}"));
            }
            self::local(&local, report).map(Login::Local)
        }
        (Some(_), None) => oidc(&auth, report).map(Login::Oidc),
        (None, None) => {
            auth.missing(
                "issuer",
                "give the URL of your OpenID provider, or users of this relay in auth.local",
                report,
            );
            oidc(&auth, report);
            None
        }
    }
}

/// `auth` with a provider.
fn oidc(auth: &Object<'_>, report: &mut Report) -> Option<Oidc> {
    let issuer = auth.get("issuer").and_then(|node| {
        let text = node.text(report)?;
        address::issuer(text).map_err(|problem| report.error(&node.path, problem)).ok()?;
        Some(text.to_string())
    });
    let client_id = auth.get("clientId").map(|node| node.text(report).map(ToString::to_string));
    let client_secret = auth.get("clientSecret").map(|node| client_secret(&node, report));
    let scopes = auth.get("scopes").map(|node| scopes(&node, report));
    let user_claim = auth.get("userClaim").map(|node| node.text(report).map(ToString::to_string));
    let allow = auth.get("allow").map(|node| allow(&node, report));
    let oidc = Oidc {
        issuer: issuer?,
        client_id: client_id.unwrap_or_else(|| Some("mcp-local-tunnel".into()))?,
        client_secret: match client_secret {
            Some(secret) => Some(secret?),
            None => None,
        },
        scopes: match scopes {
            Some(scopes) => Some(scopes?),
            None => None,
        },
        user_claim: user_claim.unwrap_or_else(|| Some("sub".into()))?,
        allow: allow.unwrap_or_else(|| Some(Vec::new()))?,
    };
    for problem in missing_scopes(&oidc) {
        report.warn(&auth.path_of("scopes"), problem);
    }
    Some(oidc)
}

/// What scopes that were configured do not ask for, though people are known or let in by it.
fn missing_scopes(oidc: &Oidc) -> impl Iterator<Item = &'static str> {
    let asked = |wanted: &dyn Fn(&str) -> bool| oidc.scopes.iter().flatten().any(|scope| wanted(scope));
    let email = oidc.scopes.is_some() && oidc.needs_email() && !asked(&|scope| scope == "email");
    // No standard says which scope brings groups: any that is not a standard's may.
    let groups = oidc.scopes.is_some() && oidc.needs_groups() && !asked(&|scope| !STANDARD_SCOPES.contains(&scope));
    let email = email.then_some(
        "does not have email, while auth.allow or auth.userClaim goes by e-mail addresses: add it, unless your provider \
         tells them unasked",
    );
    let groups = groups.then_some(
        "has none that brings groups, while auth.allow goes by them: add your provider's (often \"groups\"), unless it \
         tells them unasked",
    );
    email.into_iter().chain(groups)
}

/// OpenID Connect Core sections 5.4 and 11.
const STANDARD_SCOPES: [&str; 6] = ["openid", "profile", "email", "address", "phone", "offline_access"];

/// `auth.clientSecret`: the secret that the provider gave, of whatever length, or where it is.
fn client_secret(node: &Node<'_>, report: &mut Report) -> Option<Secret> {
    let text = node.text(report)?;
    if Reference::read(text) == Some(Reference::Variable("")) {
        report.error(&node.path, "names no variable: write env:NAME");
        return None;
    }
    Some(Secret::new(text))
}

/// `auth.scopes`: scope tokens (RFC 6749 section 3.3); `openid` is put among them.
fn scopes(node: &Node<'_>, report: &mut Report) -> Option<Vec<String>> {
    let mut scopes = node.texts(report)?;
    let is_token =
        |scope: &str| !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    for (at, _) in scopes.iter().enumerate().filter(|(_, scope)| !is_token(scope)) {
        report.error(
            &alloc::format!("{}[{at}]", node.path),
            "must be one scope, without spaces or quotes: give each its own entry",
        );
    }
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".into());
    }
    Some(scopes)
}

/// `auth.allow`: who may sign in.
fn allow(node: &Node<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = node.array(report)?;
    if items.is_empty() {
        // Whoever writes this may mean "nobody"; taken as "everybody" it would open the relay.
        report.error(
            &node.path,
            "names nobody: name who may sign in, or leave it out to let everyone of the provider in",
        );
    }
    for item in &items {
        match item.value.as_str().map(|text| entry_problem(text.trim())) {
            Some(Some(Entry::Wrong(problem))) => report.error(&item.path, problem),
            Some(Some(Entry::Strange(problem))) => report.warn(&item.path, problem),
            Some(None) | None => {}
        }
    }
    let allowed: Vec<_> = items.iter().map(|item| item.text(report).map(|text| text.trim().to_string())).collect();
    allowed.into_iter().collect()
}

/// What is wrong with an entry of `auth.allow`.
enum Entry {
    /// It cannot be meant.
    Wrong(&'static str),
    /// Some provider may have such subjects, or such groups.
    Strange(&'static str),
}

/// An entry that is half, or a pattern, would match nobody, or somebody who is not meant.
fn entry_problem(entry: &str) -> Option<Entry> {
    let half =
        "is half an entry: write @example.com for a domain, ann@example.com for an address, group:NAME for a group";
    if let Some(group) = entry.strip_prefix("group:") {
        return match group {
            "" => Some(Entry::Wrong(half)),
            "*" => Some(Entry::Wrong(NO_PATTERN)),
            group if group.trim() != group || group.contains('*') => {
                Some(Entry::Strange("is taken as the group's name to the letter, spaces and * included"))
            }
            _ => None,
        };
    }
    if let Some((name, domain)) = entry.rsplit_once('@') {
        let odd = |part: &str| part.contains(|c: char| c.is_whitespace() || c == '@');
        return match (name, domain) {
            (_, "") => Some(Entry::Wrong(half)),
            (_, domain) if domain.contains('*') => Some(Entry::Wrong(NO_PATTERN)),
            ("*", _) => Some(Entry::Wrong(NO_PATTERN)),
            (_, domain) if entry.starts_with('@') && (!name.is_empty() || odd(domain)) => {
                Some(Entry::Wrong("is no domain: write @example.com"))
            }
            (name, domain) if odd(name) || odd(domain) => {
                Some(Entry::Strange("is no e-mail address: only a subject of just this text is let in"))
            }
            _ => None,
        };
    }
    match entry {
        "*" => Some(Entry::Wrong(NO_PATTERN)),
        entry if entry.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("group:")) => {
            Some(Entry::Strange("names no group: did you mean group:NAME? Only a subject of just this text is let in"))
        }
        entry if looks_like_a_domain(entry) => Some(Entry::Strange(
            "names no domain: did you mean @example.com? Only a subject of just this text is let in",
        )),
        entry if entry.contains('*') => {
            Some(Entry::Strange("is no pattern: only a subject of just this text is let in, its * included"))
        }
        _ => None,
    }
}

/// Whether `entry` reads as a domain. Names of people can have dots too: they are told of it, and let in as they are.
fn looks_like_a_domain(entry: &str) -> bool {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let last = entry.rsplit_once('.').map(|(_, last)| last);
    let has_top = last.is_some_and(|last| last.len() >= 2 && last.bytes().all(|b| b.is_ascii_alphabetic()));
    has_top && entry.split('.').all(is_label)
}

const NO_PATTERN: &str = "is no pattern: leave auth.allow out to let everyone of the provider in, or write @example.com for \
everybody of a domain";

/// `auth.local`.
fn local(node: &Node<'_>, report: &mut Report) -> Option<Local> {
    let object = node.object(report)?;
    object.warn_unknown(&["users"], &[], report);
    let Some(list) = object.get("users") else {
        object.missing(
            "users",
            "add [{\"name\": …, \"passwordHash\": …}], with a hash from `mcp-local-tunnel hash-password`",
            report,
        );
        return None;
    };
    let items = list.array(report)?;
    if items.is_empty() {
        report.error(&list.path, "names nobody: add a user with name and passwordHash");
    }
    let mut users: Vec<LocalUser> = Vec::new();
    for item in &items {
        let Some(user) = local_user(item, report) else { continue };
        if users.iter().any(|other| other.name == user.name) {
            report.error(&alloc::format!("{}.name", item.path), "is another user's name: each name may stand once");
        }
        users.push(user);
    }
    Some(Local { users })
}

fn local_user(node: &Node<'_>, report: &mut Report) -> Option<LocalUser> {
    let user = node.object(report)?;
    user.warn_unknown(&["name", "passwordHash"], &[("password", HASH_ONLY)], report);
    let name = match user.get("name") {
        Some(node) => node.text(report).and_then(|name| {
            let fits =
                name.chars().count() <= MAX_USER_NAME && !name.chars().any(char::is_control) && name.trim() == name;
            if !fits {
                report.error(&node.path, "must be 1 to 64 characters, without spaces around it or control characters");
            }
            fits.then(|| name.to_string())
        }),
        None => {
            user.missing("name", "give the name that the person signs in with", report);
            None
        }
    };
    let password_hash = match user.get("passwordHash") {
        Some(node) => node.text(report).and_then(|hash| {
            let fits = is_argon2(hash);
            if !fits {
                report.error(&node.path, "must be an argon2 hash as `mcp-local-tunnel hash-password` prints it");
            }
            fits.then(|| hash.to_string())
        }),
        None => {
            user.missing("passwordHash", "make one with `mcp-local-tunnel hash-password`", report);
            None
        }
    };
    Some(LocalUser { name: name?, password_hash: password_hash? })
}

const HASH_ONLY: &str = "must not stand here: give passwordHash, made with `mcp-local-tunnel hash-password`";
const MAX_USER_NAME: usize = 64;

/// Whether `text` looks like an argon2 hash in PHC form: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.
fn is_argon2(text: &str) -> bool {
    let mut parts = text.split('$');
    let opens = parts.next() == Some("") && matches!(parts.next(), Some("argon2id" | "argon2i" | "argon2d"));
    let version = parts.next().is_some_and(|part| matches!(part, "v=19" | "v=16"));
    let costs = parts.next().is_some_and(|part| {
        let cost = |name: &str, most: u32| {
            let mut values = part.split(',').filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            // A cost without bound is a way to hang the relay on its own sign-in page.
            values.next().and_then(|value| value.parse().ok()).is_some_and(|value: u32| (1..=most).contains(&value))
        };
        cost("m", MAX_ARGON2_MEMORY_KIB) && cost("t", MAX_ARGON2_PASSES) && cost("p", MAX_ARGON2_LANES)
    });
    let base64 = |part: Option<&str>, least: usize| {
        part.is_some_and(|part| {
            part.len() >= least && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        })
    };
    opens && version && costs && base64(parts.next(), 11) && base64(parts.next(), 22) && parts.next().is_none()
}

/// 1 GiB: far above what a sign-in should cost, far below what stops a machine.
const MAX_ARGON2_MEMORY_KIB: u32 = 1024 * 1024;
/// With the memory above, about a minute of work.
const MAX_ARGON2_PASSES: u32 = 64;
/// More lanes than a small machine has cores gain nothing.
const MAX_ARGON2_LANES: u32 = 64;

/// `host`: where to listen.
fn host(node: &Node<'_>, report: &mut Report) -> Option<String> {
    let text = node.text(report)?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let name = bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if core::net::IpAddr::from_str(bare).is_ok() || name {
        return Some(bare.to_string());
    }
    report.error(&node.path, "must be the address to listen on, as in \"0.0.0.0\", \"::\" or \"127.0.0.1\"; the port stands in port, the public URL in issuerUrl");
    None
}

/// `secret`: one text, or several of which the first seals.
fn secrets(node: &Node<'_>, report: &mut Report) -> Option<Vec<Secret>> {
    if !matches!(node.value, Json::Array(_)) {
        return secret(node, report).map(|secret| vec![secret]);
    }
    let items = node.array(report)?;
    if !(1..=limits::MAX_KEYS).contains(&items.len()) {
        let text = alloc::format!("must be one text, or an array of 1 to {}: the first seals", limits::MAX_KEYS);
        report.error(&node.path, text);
    }
    items.iter().map(|item| secret(item, report)).collect()
}

/// Key material as it stands there. The name of a variable or of a file would be a key that everybody can guess.
fn secret(node: &Node<'_>, report: &mut Report) -> Option<Secret> {
    let text = node.text(report)?;
    if Reference::read(text).is_some() {
        report.error(&node.path, "is not looked up, it is the secret itself: leave it out, and a key is made and kept");
        return None;
    }
    Some(Secret::new(text))
}

/// `naming`.
fn naming(node: &Node<'_>, report: &mut Report) -> Option<Naming> {
    match node.value.as_str() {
        Some("auto") => Some(Naming::Auto),
        Some("always") => Some(Naming::Always),
        Some("never") => Some(Naming::Never),
        _ => {
            report.error(&node.path, "must be \"auto\", \"always\" or \"never\"");
            None
        }
    }
}

/// `legacy`: whether `/ws?token=` is taken.
fn legacy(node: &Node<'_>, report: &mut Report) -> Option<bool> {
    let legacy = node.object(report)?;
    legacy.warn_unknown(&["tokenInQuery"], &[], report);
    legacy.get("tokenInQuery")?.boolean(report)
}

/// `allowedOrigins`, normalised.
fn origins(node: &Node<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = node.array(report)?;
    let origins: Vec<_> = items.iter().map(|item| parsed(item, address::origin, report)).collect();
    origins.into_iter().collect()
}

/// `trustedProxies`: each reads as a [`Network`].
fn proxies(node: &Node<'_>, report: &mut Report) -> Option<Vec<Network>> {
    let items = node.array(report)?;
    let proxies: Vec<_> = items.iter().map(|item| Some((item, parsed(item, Network::from_str, report)?))).collect();
    for (item, _) in proxies.iter().flatten().filter(|(_, network)| network.is_wide()) {
        report.warn(
            &item.path,
            "trusts half the world: whoever connects from there says what address they have, and no limit holds them; \
             name your proxies alone",
        );
    }
    proxies.into_iter().map(|proxy| Some(proxy?.1)).collect()
}

/// A text that `read` takes.
fn parsed<T, E: ToString>(node: &Node<'_>, read: impl Fn(&str) -> Result<T, E>, report: &mut Report) -> Option<T> {
    read(node.text(report)?).map_err(|problem| report.error(&node.path, problem.to_string())).ok()
}
