//! `/introspect` (RFC 7662): an agent asks what its own token stands for.

use http::StatusCode;
use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use serde::Serialize;

use super::Role;
use super::device::only_agents;
use super::error::{Code, Refusal, json};
use super::exchange::read_form;
use super::families::{Family, Rotation};
use super::grants::Grants;
use super::rates::Kind;
use super::scopes::Scopes;
use super::token::{self, Refresh};
use crate::http::{Reply, RequestHead};
use crate::time::{Now, UnixTime};

impl Grants {
    /// Answers `/introspect`. Whoever has the token may ask: it tells them no more than they could do with it. Of MCP
    /// clients' tokens nothing is told, since what a person is called at the provider is none of their business.
    pub(super) fn introspect(&mut self, head: &RequestHead, body: &[u8], now: Now) -> Reply {
        let form = read_form(head, body).and_then(|form| {
            only_agents(&self.client_of(head, &form)?)?;
            form.secret("token").ok_or_else(|| Refusal::new(Code::InvalidRequest, "token is missing"))
        });
        let mut reply = match form {
            Ok(token) => match self.standing(token.expose(), now).map(|standing| json(StatusCode::OK, &standing)) {
                Some(told) => told,
                None if self.rates.take(Kind::TokenFailure, head.peer, now.instant) => {
                    json(StatusCode::OK, &Inactive { active: false })
                }
                None => Refusal::new(Code::SlowDown, "too many refused requests from this address").reply(),
            },
            Err(refusal) => self.refusal_to(head.peer, &refusal, now),
        };
        reply.headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        reply
    }

    /// What a token that works says. A refresh token stands for the whole sign-in, an access token for its hour.
    fn standing(&self, token: &str, now: Now) -> Option<Standing<'_>> {
        let good =
            |family: &&Family| family.role == Role::Agent && family.is_alive(now.unix) && self.is_welcome(family);
        if let Some(refresh) = Refresh::open(&self.sealer, token) {
            let family = self.families.known.get(&refresh.family).filter(good)?;
            let works = matches!(family.rotate(refresh.generation, now.unix), Rotation::Rotate(_));
            return works.then(|| self.told(family, family.ends()));
        }
        let access = token::read_access(&self.sealer, token).filter(|access| now.unix < access.expires)?;
        let family = self.families.known.get(&access.family).filter(good)?;
        Some(self.told(family, family.ends().min(access.expires)))
    }

    fn told<'a>(&'a self, family: &'a Family, expires: UnixTime) -> Standing<'a> {
        Standing {
            active: true,
            username: &family.user,
            sub: &family.user,
            client_id: &family.client,
            scope: &family.scopes,
            aud: &family.audience,
            iss: &self.settings.public_url,
            iat: UnixTime::from_millis(family.created).as_secs(),
            exp: expires.as_secs(),
        }
    }
}

/// RFC 7662 section 2.2. `iat` is when the person signed in.
#[derive(Serialize)]
struct Standing<'a> {
    active: bool,
    username: &'a str,
    sub: &'a str,
    client_id: &'a str,
    scope: &'a Scopes,
    aud: &'a str,
    iss: &'a str,
    iat: u64,
    exp: u64,
}

/// All that is said of any other token.
#[derive(Serialize)]
struct Inactive {
    active: bool,
}
