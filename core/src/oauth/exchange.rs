//! `/token` and `/revoke`: codes and refresh tokens for tokens, and tokens for nothing.

use alloc::string::{String, ToString};
use core::net::IpAddr;

use http::StatusCode;
use serde::Serialize;
use tracing::warn;

use super::audit::Whom;
use super::clients::{self, Client, Origin};
use super::codes::Lookup;
use super::document::DocumentUrl;
use super::error::{Code, Refusal, json};
use super::families::{Family, Kind, Rotation};
use super::grants::Grants;
use super::scopes::Scopes;
use super::store::{Answer, Enqueued, Queued, Redeemed, Then, unwritable};
use super::token::{self, Refresh};
use super::{Principal, Role, actor, device, rates};
use crate::entropy;
use crate::http::form::Form;
use crate::http::{Reply, RequestHead, fields, redirect};
use crate::id::{ClientId, ExchangeId, FamilyId, UserId};
use crate::time::Now;

/// A refresh, read and authenticated.
#[derive(Debug)]
pub(super) struct RefreshRequest {
    exchange: ExchangeId,
    peer: IpAddr,
    client: ClientId,
    token: Refresh,
    /// The `resource` parameter, if there was one.
    resource: Option<String>,
    /// The `scope` parameter, if there was one.
    scope: Option<String>,
}

impl RefreshRequest {
    fn asker(&self) -> Asker {
        Asker { peer: self.peer, client: Some(self.client.clone()), grant: Some(self.token.family.clone()) }
    }
}

/// Who asks at `/token` and `/revoke`, as far as the request was read when it was refused.
#[derive(Debug)]
struct Asker {
    peer: IpAddr,
    client: Option<ClientId>,
    grant: Option<FamilyId>,
}

impl Asker {
    const fn at(peer: IpAddr) -> Self {
        Self { peer, client: None, grant: None }
    }

    fn whom(&self) -> Whom<'_> {
        let client = self.client.as_ref().map(ClientId::as_str);
        Whom { client, grant: self.grant.as_ref(), address: Some(self.peer) }
    }
}

impl Grants {
    /// Answers `/token` (RFC 6749 section 3.2).
    pub(super) fn token(&mut self, exchange: ExchangeId, head: &RequestHead, body: &[u8], now: Now) {
        let mut asker = Asker::at(head.peer);
        let result = read_form(head, body).and_then(|form| {
            let missing = || Refusal::new(Code::InvalidRequest, "grant_type is missing");
            let grant_type = form.get("grant_type").ok_or_else(missing)?;
            let client = self.client_of(head, &form)?;
            asker.client = Some(client.key.clone());
            match grant_type {
                "authorization_code" => self.redeem(exchange, head.peer, &client, &form, now),
                "refresh_token" => self.read_refresh(exchange, head, client, &form, now),
                device::GRANT_TYPE => self.redeem_device(exchange, head.peer, &client, &form, now),
                _ => Err(Refusal::new(Code::UnsupportedGrantType, "this grant type is not offered here")),
            }
        });
        if let Err(refusal) = result {
            self.refused(exchange, &asker, &refusal, now);
        }
    }

    /// Answers `/revoke` (RFC 7009): done for what is known, done for what is not, refused for another client's.
    pub(super) fn revoke(&mut self, exchange: ExchangeId, head: &RequestHead, body: &[u8], now: Now) {
        let mut asker = Asker::at(head.peer);
        let result = read_form(head, body).and_then(|form| {
            let token = form.get("token").ok_or_else(|| Refusal::new(Code::InvalidRequest, "token is missing"))?;
            let client = self.client_of(head, &form)?;
            let family = Refresh::open(&self.sealer, token).map(|refresh| refresh.family);
            let family = family.or_else(|| token::family_of(&self.sealer, token));
            asker.client = Some(client.key.clone());
            asker.grant.clone_from(&family);
            let owner = family.as_ref().and_then(|id| self.families.known.get(id)).map(|family| &family.client);
            if owner.is_some_and(|owner| owner != client.key.as_str()) {
                return Err(Refusal::new(Code::InvalidGrant, "the token was issued to another client"));
            }
            if !self.can_write() {
                return Err(unwritable());
            }
            Ok(family)
        });
        match result {
            Ok(Some(family)) => self.revoke_family(&family, Answer::Client(exchange), now),
            Ok(None) => self.reply(exchange, json(StatusCode::OK, &serde_json::Map::new())),
            Err(refusal) => self.refused(exchange, &asker, &refusal, now),
        }
    }

    /// Judges a refresh, at once or when the write under way has ended.
    pub(super) fn refresh(&mut self, request: RefreshRequest, now: Now) {
        let id = request.token.family.clone();
        let request = match self.enqueue(&id, Queued::Refresh(request)) {
            Enqueued::Free(Queued::Refresh(request)) => request,
            Enqueued::Full(Queued::Refresh(request)) => return self.reply(request.exchange, unwritable().reply()),
            Enqueued::Waiting | Enqueued::Free(Queued::Revoke(_)) | Enqueued::Full(Queued::Revoke(_)) => return,
        };
        if let Err(refusal) = self.rotate(&request, now) {
            self.refused(request.exchange, &request.asker(), &refusal, now);
        }
    }

    /// The answer with tokens of `family`, whose record is written (RFC 6749 section 5.1).
    pub(super) fn tokens(&mut self, id: &FamilyId, family: &Family, access: (String, Scopes), now: Now) -> Reply {
        let principal = principal(id, family, access, now);
        let access = token::seal_access(&self.sealer, &principal, &mut *self.entropy);
        let refresh = match family.kind {
            Kind::SignIn { generation, .. } => {
                let token = Refresh { family: id.clone(), generation };
                Some(token.seal(&self.sealer, &mut *self.entropy))
            }
            Kind::Minted { .. } => None,
        };
        json(
            StatusCode::OK,
            &Tokens {
                access_token: access.expose(),
                token_type: "Bearer",
                expires_in: principal.expires.saturating_since(now.unix).as_secs(),
                refresh_token: refresh.as_ref().map(crate::secret::Secret::expose),
                scope: &principal.scopes,
            },
        )
    }

    /// A new family's id.
    pub(super) fn new_family_id(&mut self) -> FamilyId {
        // Hex: people pass it to `token revoke`, and no shell or option parser takes it for something else.
        let id = u128::from_be_bytes(entropy::bytes(&mut *self.entropy));
        FamilyId::from(alloc::format!("{id:032x}"))
    }

    fn redeem(
        &mut self,
        exchange: ExchangeId,
        peer: IpAddr,
        client: &Client,
        fields: &Form,
        now: Now,
    ) -> Result<(), Refusal> {
        let missing = |what| Refusal::new(Code::InvalidRequest, what);
        let code = fields.get("code").ok_or_else(|| missing("code is missing"))?;
        let verifier = fields.get("code_verifier").ok_or_else(|| missing("code_verifier is missing"))?;
        let redirect = fields.get("redirect_uri").filter(|redirect| !is_old_agents(client, redirect));
        let bad = || {
            Refusal::new(
                Code::InvalidGrant,
                "the code is not good: unknown, used, expired, another's, or for another redirect_uri",
            )
        };
        let (key, lookup) = self.codes.look_up(code, client.key.as_str(), redirect, verifier, now.instant);
        let grant = match lookup {
            Lookup::Fresh(grant) => grant.clone(),
            Lookup::Bad => return Err(bad()),
            Lookup::Replayed(family) => {
                warn!(client = %client.key, reason = "a code was used twice", "tokens are being revoked");
                let asker = Asker { peer, client: Some(client.key.clone()), grant: Some(family.clone()) };
                self.note_refusal("code-reused", asker.whom(), now);
                self.revoke_family(&family, Answer::Nobody, now);
                return Err(bad());
            }
        };
        let request = grant.request;
        let audience = self.narrowed(&request.audience, request.role, fields.get("resource"))?;
        if !self.make_room(&grant.owner.user, now) {
            return Err(unwritable());
        }
        let id = self.new_family_id();
        let scopes = request.scopes.or_all(request.role);
        let granted = (request.audience, scopes.clone());
        let mut family = Family::signed_in(grant.owner, &client.key, request.role, granted, now.unix);
        family.about.client.clone_from(&client.name);
        family.about.redirect = redirect::place(&request.redirect);
        self.codes.redeem(&key, Some(id.clone()));
        let access = (audience, scopes);
        self.write_family(id, family, Then::Issue { exchange, peer, access, redeemed: Some(Redeemed::Code(key)) });
        Ok(())
    }

    fn read_refresh(
        &mut self,
        exchange: ExchangeId,
        head: &RequestHead,
        client: Client,
        fields: &Form,
        now: Now,
    ) -> Result<(), Refusal> {
        let token = fields.get("refresh_token");
        let token = token.ok_or_else(|| Refusal::new(Code::InvalidRequest, "refresh_token is missing"))?;
        let token = Refresh::open(&self.sealer, token).ok_or_else(ended)?;
        let text = |name| fields.get(name).map(ToString::to_string);
        let (resource, scope) = (text("resource"), text("scope"));
        self.refresh(RefreshRequest { exchange, peer: head.peer, client: client.key, token, resource, scope }, now);
        Ok(())
    }

    fn rotate(&mut self, request: &RefreshRequest, now: Now) -> Result<(), Refusal> {
        let RefreshRequest { exchange, client, token: Refresh { family: id, generation }, .. } = request;
        let family = self.families.known.get(id).ok_or_else(ended)?;
        if family.client != client.as_str() || !self.is_welcome(family) {
            return Err(ended());
        }
        let audience = self.narrowed(&family.audience, family.role, request.resource.as_deref())?;
        let wider = || Refusal::new(Code::InvalidScope, "the scope is more than what was granted");
        let scopes = family.scopes.narrowed(request.scope.as_deref()).ok_or_else(wider)?;
        match family.rotate(*generation, now.unix) {
            Rotation::Refuse => Err(ended()),
            Rotation::Reused => {
                warn!(client = %client, reason = "an old refresh token was used again", "tokens are being revoked");
                self.note_refusal("refresh-reused", request.asker().whom(), now);
                self.revoke_family(id, Answer::Nobody, now);
                Err(ended())
            }
            Rotation::Rotate(..) if !self.can_write() => Err(unwritable()),
            Rotation::Rotate(next) => {
                let then =
                    Then::Issue { exchange: *exchange, peer: request.peer, access: (audience, scopes), redeemed: None };
                self.write_family(id.clone(), next, then);
                Ok(())
            }
        }
    }

    /// The audience of an access token: what was granted, or what the client names within it (RFC 8707 section 2.2).
    pub(super) fn narrowed(&self, granted: &str, role: Role, resource: Option<&str>) -> Result<String, Refusal> {
        let Some(resource) = resource else { return Ok(granted.to_string()) };
        let public_url = self.settings.public_url.as_str();
        token::audience(public_url, role, resource)
            .filter(|asked| {
                let path = asked.strip_prefix(public_url).unwrap_or_default();
                token::Resource { public_url, path }.opened_by(granted)
            })
            .ok_or_else(|| Refusal::new(Code::InvalidTarget, "resource is not what was granted"))
    }

    pub(super) fn client_of(&self, head: &RequestHead, form: &Form) -> Result<Client, Refusal> {
        let find = |id: &str| self.client_by_id(id);
        clients::authenticate(find, head, form.get("client_id"), form.get("client_secret"))
    }

    /// The client of that id, of whatever kind. No document is fetched for it, which need not be: see
    /// [`DocumentUrl::client`].
    fn client_by_id(&self, id: &str) -> Option<Client> {
        if !DocumentUrl::is_meant(id) {
            return Client::find(&self.sealer, &self.settings.clients.known, id);
        }
        let url = DocumentUrl::read(id, self.settings.clients.loopback_documents)?;
        Some(self.documents.client(&url).unwrap_or_else(|| url.client()))
    }

    /// What a program that asks from `peer` is told, as at `/token`.
    pub(super) fn refusal_to(&mut self, peer: IpAddr, refusal: &Refusal, now: Now) -> Reply {
        self.refusal(&Asker::at(peer), refusal, now)
    }

    fn refused(&mut self, exchange: ExchangeId, asker: &Asker, refusal: &Refusal, now: Now) {
        let reply = self.refusal(asker, refusal, now);
        self.reply(exchange, reply);
    }

    /// Notes a refusal, and makes guesses slow.
    fn refusal(&mut self, asker: &Asker, refusal: &Refusal, now: Now) -> Reply {
        let guess = matches!(refusal.code, Code::InvalidClient | Code::InvalidGrant);
        if guess {
            self.note_refusal(refusal.code.as_str(), asker.whom(), now);
        }
        let allowed = !guess || self.rates.take(rates::Kind::TokenFailure, asker.peer, now.instant);
        // Good requests are never put off: others behind the same proxy must not be able to cause that.
        let slow_down = Refusal::new(Code::SlowDown, "too many refused requests from this address");
        if allowed { refusal.reply() } else { slow_down.reply() }
    }
}

/// Whether this is what agents before 2.0 say in place of the redirect they were given: they ask for their port when they
/// have closed it, and get 0. It says nothing, as if it were not sent, which is fine: PKCE binds the code.
fn is_old_agents(client: &Client, redirect: &str) -> bool {
    client.origin == Origin::BuiltIn && redirect == "http://localhost:0/callback"
}

/// The form that a program posts.
pub(super) fn read_form(head: &RequestHead, body: &[u8]) -> Result<Form, Refusal> {
    if !fields::is_form(&head.headers) {
        return Err(Refusal::new(Code::InvalidRequest, "the body must be application/x-www-form-urlencoded"));
    }
    Form::parse(body).map_err(|error| Refusal::new(Code::InvalidRequest, error.to_string()))
}

/// What an access token of `family` that is made now says.
pub(super) fn principal(id: &FamilyId, family: &Family, (audience, scopes): (String, Scopes), now: Now) -> Principal {
    let client = ClientId::new(&family.client);
    Principal {
        user: UserId::new(&family.user),
        actor: actor(&client, id),
        client,
        role: family.role,
        audience,
        scopes,
        family: id.clone(),
        expires: family.access_expires(now.unix),
        family_expires: crate::time::UnixTime::from_millis(family.expires),
    }
}

/// Whatever is wrong with a refresh token, the client's way on is the same: sign in again.
fn ended() -> Refusal {
    Refusal::new(Code::InvalidGrant, "the refresh token is not good any more: sign in again")
}

#[derive(Serialize)]
struct Tokens<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    scope: &'a Scopes,
}
