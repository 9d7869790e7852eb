//! Sealed tokens: what access and refresh tokens say, and when an access token is good.
//!
//! Both are self-contained and unreadable to their holders. Their prefixes let secret scanners find leaked ones.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use super::scopes::Scopes;
use super::{Principal, Role, Snapshot, actor};
use crate::entropy::Entropy;
use crate::http::{form, redirect};
use crate::id::{ClientId, FamilyId, UserId};
use crate::seal::{Memo, Purpose, Sealer};
use crate::secret::Secret;
use crate::time::{Now, UnixTime};

/// What every access token begins with.
pub const ACCESS_PREFIX: &str = "mlt_a_";
/// What every refresh token begins with.
pub const REFRESH_PREFIX: &str = "mlt_r_";

/// Why a token does not open what it was presented for. All but [`Audience`](Self::Audience) are `invalid_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this relay, or altered, or made with a key that is gone.
    #[error("the access token is not one of this relay's")]
    Invalid,
    /// It ran out.
    #[error("the access token has expired")]
    Expired,
    /// Its family was revoked, or is not in the store (any more).
    #[error("the access token was revoked, or its sign-in is not known here any more")]
    Revoked,
    /// It is a good token for something else: another path, or the other role.
    #[error("the access token is not for this resource")]
    Audience,
}

/// A path of this relay that takes tokens: `/mcp`, a path under it, or `/ws`.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    /// The relay's public URL, without trailing slash.
    pub public_url: &'a str,
    /// The request's path, without query.
    pub path: &'a str,
}

impl Resource<'_> {
    /// Whose tokens open it. `None`: this path takes no tokens.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.path.trim_end_matches('/') {
            "/ws" => Some(Role::Agent),
            path if path == "/mcp" || path.starts_with("/mcp/") => Some(Role::Client),
            _ => None,
        }
    }

    /// Whether a token for `audience` opens it: `<public>/mcp` opens the paths under it too, any other only itself.
    #[must_use]
    pub fn opened_by(&self, audience: &str) -> bool {
        let Some(path) = audience.strip_prefix(self.public_url) else { return false };
        match (path, self.role()) {
            ("/mcp", Some(Role::Client)) | ("/ws", Some(Role::Agent)) => true,
            (_, Some(Role::Client)) => {
                let own = canonical(&format!("{}{}", self.public_url, self.path));
                own.is_some() && own == canonical(audience)
            }
            _ => false,
        }
    }
}

/// The audience that a client means with the `resource` parameter (RFC 8707), if it is one of ours for `role`.
///
/// The bare public URL counts as the role's own path: clients that know no better send it.
#[must_use]
pub fn audience(public_url: &str, role: Role, resource: &str) -> Option<String> {
    let own = format!("{public_url}{}", role.path());
    if resource.contains(['#', '?']) {
        return None;
    }
    let asked = canonical(resource)?;
    let public = canonical(public_url)?;
    let path = match asked.strip_prefix(&public) {
        Some(path) => path,
        None => loopback_path(&public, &asked)?,
    };
    if path.is_empty() {
        return Some(own);
    }
    let resource = Resource { public_url, path };
    (resource.role() == Some(role)).then(|| format!("{public_url}{path}"))
}

/// Seals what `principal` says into an access token.
#[must_use]
pub fn seal_access(sealer: &Sealer, principal: &Principal, entropy: &mut dyn Entropy) -> Secret {
    let plain = encode(&Access {
        user: principal.user.as_str().into(),
        client: principal.client.as_str().into(),
        role: principal.role,
        audience: principal.audience.as_str().into(),
        scopes: principal.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        family: principal.family.as_str().into(),
        expires: principal.expires.as_millis(),
        family_expires: principal.family_expires.as_millis(),
    });
    Secret::new(format!("{ACCESS_PREFIX}{}", sealer.seal(Purpose::AccessToken, &[], &plain, entropy)))
}

/// Reads an access token that was presented for `resource`: seal, expiry, family, role and audience, in that order.
/// `memo`: what the last one said that was presented there.
///
/// # Errors
/// See [`TokenError`].
pub fn open_access(
    token: &str,
    snapshot: &Snapshot,
    resource: Resource<'_>,
    now: Now,
    memo: &mut Memo<Arc<Principal>>,
) -> Result<Arc<Principal>, TokenError> {
    let read = || read_access(&snapshot.sealer, token).map(Arc::new);
    let principal = memo.recall(&snapshot.sealer, &(), token, read).ok_or(TokenError::Invalid)?;
    if principal.expires <= now.unix {
        return Err(TokenError::Expired);
    }
    if !snapshot.families.contains(&principal.family) {
        return Err(TokenError::Revoked);
    }
    if resource.role() != Some(principal.role) || !resource.opened_by(&principal.audience) {
        return Err(TokenError::Audience);
    }
    Ok(principal)
}

/// The family of an access token, good or not, if it is one of this relay's.
pub(crate) fn family_of(sealer: &Sealer, token: &str) -> Option<FamilyId> {
    read_access(sealer, token).map(|access| access.family)
}

/// What an access token says, good or expired or revoked.
pub(super) fn read_access(sealer: &Sealer, token: &str) -> Option<Principal> {
    let plain = sealer.open(Purpose::AccessToken, &[], token.strip_prefix(ACCESS_PREFIX)?).ok()?;
    let access: Access<'_> = serde_json::from_slice(&plain).ok()?;
    let (client, family) = (ClientId::new(access.client), FamilyId::new(access.family));
    Some(Principal {
        user: UserId::new(access.user),
        actor: actor(&client, &family),
        client,
        role: access.role,
        audience: access.audience.to_string(),
        scopes: Scopes::read(&access.scopes.join(" ")),
        family,
        expires: UnixTime::from_millis(access.expires),
        family_expires: UnixTime::from_millis(access.family_expires),
    })
}

/// What a refresh token says: the family's record knows the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refresh {
    /// Its family.
    pub(super) family: FamilyId,
    /// Its place in the family's rotation.
    pub(super) generation: u64,
}

impl Refresh {
    /// Seals it. Siblings of one generation differ by the seal's own salt.
    pub(super) fn seal(&self, sealer: &Sealer, entropy: &mut dyn Entropy) -> Secret {
        let plain = format!("{}.{}", self.generation, self.family);
        Secret::new(format!("{REFRESH_PREFIX}{}", sealer.seal(Purpose::RefreshToken, &[], plain.as_bytes(), entropy)))
    }

    /// Reads one. `None`: not a refresh token of this relay.
    pub(super) fn open(sealer: &Sealer, token: &str) -> Option<Self> {
        let plain = sealer.open(Purpose::RefreshToken, &[], token.strip_prefix(REFRESH_PREFIX)?).ok()?;
        let (generation, family) = core::str::from_utf8(&plain).ok()?.split_once('.')?;
        Some(Self { family: FamilyId::new(family), generation: generation.parse().ok()? })
    }
}

/// The inside of an access token. Short member names: it travels with every request.
#[derive(Serialize, Deserialize)]
struct Access<'a> {
    #[serde(rename = "u", borrow)]
    user: Cow<'a, str>,
    #[serde(rename = "c", borrow)]
    client: Cow<'a, str>,
    #[serde(rename = "r")]
    role: Role,
    #[serde(rename = "a", borrow)]
    audience: Cow<'a, str>,
    #[serde(rename = "s", borrow)]
    scopes: Vec<Cow<'a, str>>,
    #[serde(rename = "f", borrow)]
    family: Cow<'a, str>,
    #[serde(rename = "e")]
    expires: u64,
    #[serde(rename = "x")]
    family_expires: u64,
}

fn encode(access: &Access<'_>) -> Vec<u8> {
    serde_json::to_vec(access).expect("strings and numbers always serialise")
}

/// The path of `asked` when both URLs are plain `http` on the loopback interface and on one port: one relay under several
/// spellings. Another port is another program of this machine's, whose tokens are not ours to give.
fn loopback_path<'a>(public: &str, asked: &'a str) -> Option<&'a str> {
    let port_of = |url: &str| {
        let url = Url::parse(url).ok().filter(|url| url.scheme() == "http" && redirect::is_loopback(url))?;
        url.port_or_known_default()
    };
    let (_, rest) = asked.split_once("://")?;
    let same = port_of(public).is_some_and(|port| port_of(asked) == Some(port));
    same.then(|| rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(""))
}

/// A URL in the one spelling that is compared: every segment decoded and encoded again, no trailing slash.
fn canonical(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| url.username().is_empty() && url.password().is_none())?;
    let mut out = url.origin().ascii_serialization();
    for segment in url.path_segments()?.filter(|segment| !segment.is_empty()) {
        let segment = percent_decode_str(segment).decode_utf8().ok()?;
        out.push('/');
        out.push_str(&form::percent_encode(&segment));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use core::time::Duration;
    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Seeded;

    const PUBLIC: &str = "https://relay.example";

    fn now() -> Now {
        Now { unix: UnixTime::from_secs(1_000), ..Now::default() }
    }

    fn sealer(seed: u64) -> Sealer {
        Sealer::new(vec![Sealer::generate(&mut Seeded::new(seed))])
    }

    fn principal(role: Role, audience: &str) -> Principal {
        Principal {
            user: "local:ann".into(),
            client: "c".into(),
            actor: "c".into(),
            role,
            audience: format!("{PUBLIC}{audience}"),
            scopes: Scopes::all(role),
            family: "f1".into(),
            expires: now().unix + Duration::from_secs(60),
            family_expires: now().unix + Duration::from_secs(600),
        }
    }

    /// What the gate knows when the family of these tests is good.
    fn known(sealer: Sealer) -> Snapshot {
        Snapshot { families: Arc::new(["f1".into()].into()), ..Snapshot::new(sealer) }
    }

    fn open(token: &Secret, path: &str, snapshot: &Snapshot, now: Now) -> Result<Principal, TokenError> {
        let resource = Resource { public_url: PUBLIC, path };
        open_access(token.expose(), snapshot, resource, now, &mut Memo::default()).map(Arc::unwrap_or_clone)
    }

    #[test]
    fn token_says_what_was_sealed() {
        let principal = principal(Role::Client, "/mcp");
        let token = seal_access(&sealer(1), &principal, &mut Seeded::new(2));
        assert!(token.expose().starts_with(ACCESS_PREFIX));
        assert_eq!(open(&token, "/mcp", &known(sealer(1)), now()), Ok(principal));
    }

    #[test]
    fn audience_and_role_decide_what_opens() {
        for (role, audience, path, opens) in [
            (Role::Client, "/mcp", "/mcp", true),
            (Role::Client, "/mcp", "/mcp/", true),
            (Role::Client, "/mcp", "/mcp/files", true),
            (Role::Client, "/mcp", "/mcp/laptop/files", true),
            (Role::Client, "/mcp/files", "/mcp/files", true),
            (Role::Client, "/mcp/files", "/mcp/files/", true),
            (Role::Client, "/mcp/a%20b", "/mcp/a%20b", true),
            (Role::Client, "/mcp/a%28b%29", "/mcp/a(b)", true),
            (Role::Client, "/mcp/a%2Fb", "/mcp/a/b", false),
            (Role::Client, "/mcp/a/b", "/mcp/a%2fb", false),
            (Role::Client, "/mcp/files", "/mcp/files/x", false),
            (Role::Client, "/mcp/files", "/mcp/other", false),
            (Role::Client, "/mcp/files", "/mcp", false),
            (Role::Client, "/mcp/mcp", "/mcp/mcp/x", false),
            (Role::Client, "/mcp", "/ws", false),
            (Role::Client, "/mcp", "/mcpx", false),
            (Role::Client, "/ws", "/ws", false),
            (Role::Agent, "/ws", "/ws", true),
            (Role::Agent, "/ws", "/mcp", false),
            (Role::Agent, "/mcp", "/mcp", false),
        ] {
            let token = seal_access(&sealer(1), &principal(role, audience), &mut Seeded::new(2));
            let result = open(&token, path, &known(sealer(1)), now());
            assert_eq!(result.is_ok(), opens, "{role:?} {audience} {path}");
            assert!(opens || result == Err(TokenError::Audience), "{role:?} {audience} {path}");
        }
    }

    #[test]
    fn expired_unknown_and_foreign_tokens_are_told_apart() {
        let token = seal_access(&sealer(1), &principal(Role::Client, "/mcp"), &mut Seeded::new(2));
        let snapshot = known(sealer(1));
        let late = Now { unix: now().unix + Duration::from_secs(60), ..Now::default() };
        assert_eq!(open(&token, "/mcp", &snapshot, late), Err(TokenError::Expired));
        assert_eq!(open(&token, "/mcp", &Snapshot::new(sealer(1)), now()), Err(TokenError::Revoked));
        let foreign = seal_access(&sealer(9), &principal(Role::Client, "/mcp"), &mut Seeded::new(2));
        assert_eq!(open(&foreign, "/mcp", &snapshot, now()), Err(TokenError::Invalid));
        let refresh = Refresh { family: "f1".into(), generation: 0 }.seal(&sealer(1), &mut Seeded::new(2));
        assert_eq!(open(&refresh, "/mcp", &snapshot, now()), Err(TokenError::Invalid));
        let disguised = Secret::new(refresh.expose().replace(REFRESH_PREFIX, ACCESS_PREFIX));
        assert_eq!(open(&disguised, "/mcp", &snapshot, now()), Err(TokenError::Invalid));
    }

    #[test]
    fn refresh_tokens_round_trip() {
        let refresh = Refresh { family: "f.1".into(), generation: 7 };
        let token = refresh.seal(&sealer(1), &mut Seeded::new(2));
        assert_eq!(Refresh::open(&sealer(1), token.expose()), Some(refresh));
        assert_eq!(Refresh::open(&sealer(2), token.expose()), None);
    }

    #[test]
    fn only_our_resources_become_audiences() {
        for (role, resource, path) in [
            (Role::Client, "https://relay.example/mcp", Some("/mcp")),
            (Role::Client, "https://relay.example/mcp/", Some("/mcp")),
            (Role::Client, "https://RELAY.example:443/mcp", Some("/mcp")),
            (Role::Client, "https://relay.example", Some("/mcp")),
            (Role::Client, "https://relay.example/", Some("/mcp")),
            (Role::Client, "https://relay.example/mcp/laptop/files", Some("/mcp/laptop/files")),
            (Role::Client, "https://relay.example/mcp/a b", Some("/mcp/a%20b")),
            (Role::Client, "https://relay.example/mcp/../ws", None),
            (Role::Client, "https://relay.example/ws", None),
            (Role::Client, "https://relay.example/other", None),
            (Role::Client, "https://relay.example.evil.example/mcp", None),
            (Role::Client, "https://evil.example/mcp", None),
            (Role::Client, "http://relay.example/mcp", None),
            (Role::Client, "https://relay.example/mcp#x", None),
            (Role::Client, "https://relay.example/mcp?x", None),
            (Role::Client, "https://a@relay.example/mcp", None),
            (Role::Client, "mcp", None),
            (Role::Agent, "https://relay.example/ws", Some("/ws")),
            (Role::Agent, "https://relay.example", Some("/ws")),
            (Role::Agent, "https://relay.example/mcp", None),
        ] {
            let expected = path.map(|path| format!("{PUBLIC}{path}"));
            assert_eq!(audience(PUBLIC, role, resource), expected, "{role:?} {resource}");
        }
    }

    #[test]
    fn loopback_relay_is_one_under_all_its_names() {
        for resource in ["http://localhost:3000/mcp", "http://127.0.0.1:3000/mcp", "http://[::1]:3000/mcp"] {
            let own = audience("http://localhost:3000", Role::Client, resource);
            assert_eq!(own.as_deref(), Some("http://localhost:3000/mcp"), "{resource}");
        }
        for foreign in [
            "http://10.0.0.1:3000/mcp",
            "http://localhost:3001/mcp",
            "http://127.0.0.1:3001/mcp",
            "http://[::1]/mcp",
            "http://127.0.0.2:3000/mcp",
            "https://127.0.0.1:3000/mcp",
            "http://localhost/mcp",
        ] {
            assert_eq!(audience("http://localhost:3000", Role::Client, foreign), None, "{foreign}");
        }
        assert!(audience("http://localhost", Role::Client, "http://127.0.0.1:80/mcp").is_some(), "80 is http's own");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn tokens_say_what_was_sealed_and_not_to_another_relay(
            user: String, client: String, agent: bool, path in "(/[a-z]{1,5}){0,2}", family: String, expires: u64, family_expires: u64, generation: u64, seed: u64
        ) {
            let role = if agent { Role::Agent } else { Role::Client };
            let said = Principal {
                user: user.into(),
                actor: actor(&ClientId::new(&client), &FamilyId::new(&family)),
                client: client.into(),
                role,
                audience: format!("{PUBLIC}{}{path}", role.path()),
                scopes: Scopes::all(role),
                family: family.clone().into(),
                expires: UnixTime::from_millis(expires),
                family_expires: UnixTime::from_millis(family_expires),
            };
            let token = seal_access(&sealer(1), &said, &mut Seeded::new(seed));
            prop_assert_eq!(read_access(&sealer(2), token.expose()), None);
            prop_assert_eq!(family_of(&sealer(1), token.expose()), Some(said.family.clone()));
            prop_assert_eq!(Refresh::open(&sealer(1), token.expose()), None, "neither kind passes for the other");
            prop_assert_eq!(read_access(&sealer(1), token.expose()), Some(said));
            let refresh = Refresh { family: family.into(), generation };
            let token = refresh.seal(&sealer(1), &mut Seeded::new(seed));
            prop_assert_eq!(Refresh::open(&sealer(2), token.expose()), None);
            prop_assert_eq!(read_access(&sealer(1), token.expose()), None);
            prop_assert_eq!(Refresh::open(&sealer(1), token.expose()), Some(refresh));
        }

        /// A token opens its own path and, that of all servers, the paths under it; it runs out with its time.
        #[test]
        fn token_opens_what_it_is_for_until_it_runs_out(
            audience in prop::sample::select(alloc::vec!["/mcp", "/mcp/files", "/mcp/laptop/files", "/ws"]),
            path in prop::sample::select(alloc::vec!["/mcp", "/mcp/", "/mcp/files", "/mcp/laptop/files", "/ws", "/", "/mcpx"]),
            after in 0..120_u64, is_known: bool,
        ) {
            let role = if audience == "/ws" { Role::Agent } else { Role::Client };
            let said = principal(role, audience);
            let token = seal_access(&sealer(1), &said, &mut Seeded::new(2));
            let snapshot = if is_known { known(sealer(1)) } else { Snapshot::new(sealer(1)) };
            let later = Now { unix: now().unix + Duration::from_secs(after), ..now() };
            let opens = match (audience, path.trim_end_matches('/')) {
                ("/mcp", path) => path == "/mcp" || path.starts_with("/mcp/"),
                (audience, path) => audience == path,
            };
            let expected = match (after >= 60, is_known, opens) {
                (true, ..) => Err(TokenError::Expired),
                (_, false, _) => Err(TokenError::Revoked),
                (.., false) => Err(TokenError::Audience),
                (false, true, true) => Ok(said),
            };
            prop_assert_eq!(open(&token, path, &snapshot, later), expected);
        }

        #[test]
        fn no_text_is_a_token(text in ".{0,60}") {
            prop_assert_eq!(read_access(&sealer(1), &text), None);
            let prefixed = format!("{ACCESS_PREFIX}{text}");
            prop_assert_eq!(read_access(&sealer(1), &prefixed), None);
            prop_assert_eq!(Refresh::open(&sealer(1), &text), None);
        }

        #[test]
        fn what_becomes_an_audience_opens_its_own_path(path in "(/[a-zA-Z0-9_.%~-]{1,8}){0,3}") {
            if let Some(audience) = audience(PUBLIC, Role::Client, &format!("{PUBLIC}/mcp{path}")) {
                let resource = Resource { public_url: PUBLIC, path: audience.strip_prefix(PUBLIC).unwrap() };
                prop_assert!(resource.opened_by(&audience));
            }
        }
    }
}
