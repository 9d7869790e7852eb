//! The device grant (RFC 8628): an agent without a browser shows a code, and its person types it at `/device`.
//!
//! A device that waits is held in memory only, and so are its tokens until they are asked for: a restart of the relay
//! ends what is under way, and the device begins again.

mod pending;

use alloc::format;
use alloc::string::{String, ToString};
use core::net::IpAddr;

use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

pub(super) use self::pending::{GrantKey, Pending};
use self::pending::{INTERVAL, LIFETIME, Poll};
use super::audit::Whom;
use super::authorize::{forged, refuse, too_many};
use super::clients::{Client, Origin};
use super::error::{Code, Refusal, json};
use super::exchange::read_form;
use super::families::Family;
use super::grants::Grants;
use super::login::{Errand, Owner};
use super::rates::{Kind, Whose};
use super::scopes::Scopes;
use super::store::{Redeemed, Then, unwritable};
use super::{Role, cookies, pages, text, token};
use crate::http::form::Form;
use crate::http::{Reply, RequestHead};
use crate::id::ExchangeId;
use crate::seal::Purpose;
use crate::time::Now;

/// The grant type of a device that asks for its tokens (RFC 8628 section 3.4).
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A device that its person has found, on its way through consent and login.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeviceRequest {
    /// The grant.
    #[serde(rename = "k")]
    key: GrantKey,
    /// What the device calls itself.
    #[serde(rename = "n")]
    name: String,
    /// When it is too late to go on, in milliseconds.
    #[serde(rename = "u")]
    pub(super) until: u64,
}

impl Grants {
    /// Answers `/device_authorization` (RFC 8628 section 3.1).
    pub(super) fn device_authorization(&mut self, head: &RequestHead, body: &[u8], now: Now) -> Reply {
        let mut reply = match self.begin_device(head, body, now) {
            Ok(reply) => reply,
            Err(refusal) => self.refusal_to(head.peer, &refusal, now),
        };
        // A device is no page: none may read this.
        reply.headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        reply
    }

    /// Answers `/device`: asks for the code, then for consent. The code may stand in the link, and is never taken from
    /// there without the person's doing.
    pub(super) fn device(&mut self, head: &RequestHead, body: &[u8], now: Now) -> Reply {
        if head.method != Method::POST {
            let fields = Form::parse(head.uri.query().unwrap_or_default()).unwrap_or_default();
            let typed = fields.get("user_code").and_then(pending::read).map(|code| pending::shown(&code));
            return pages::device_code(&self.settings, typed.as_deref().unwrap_or_default(), None);
        }
        if !self.site.is_own_form(head) {
            return forged();
        }
        let Ok(fields) = Form::parse(body) else { return refuse("The form is malformed.") };
        let typed = fields.get("user_code").unwrap_or_default();
        let Some(code) = pending::read(typed) else {
            let problem = (StatusCode::BAD_REQUEST, "A code has eight letters, as in BCDF-GHJK.");
            return pages::device_code(&self.settings, &text::clean(typed, 20), Some(problem));
        };
        if !self.may_guess(head, now) {
            return too_many();
        }
        let Some((key, grant)) = self.devices.typed(&code, now.instant) else {
            let problem = (StatusCode::NOT_FOUND, "No device waits with this code. Codes end after ten minutes.");
            return pages::device_code(&self.settings, &pending::shown(&code), Some(problem));
        };
        let (name, peer) = (grant.name.clone(), grant.peer.to_canonical().to_string());
        self.guessed_right(head, now);
        let until = (now.unix + core::time::Duration::from_secs(cookies::MAX_AGE_SECS)).as_millis();
        let request = DeviceRequest { key, name: name.clone(), until };
        self.ask_consent(&Errand::Device(request), |settings, flow, sealed| {
            let ask =
                pages::DeviceConsent { name: &name, peer: &peer, code: &pending::shown(&code), flow, request: sealed };
            pages::device_consent(settings, &ask)
        })
    }

    /// The person said no.
    pub(super) fn device_denied(&mut self, request: &DeviceRequest, peer: IpAddr, now: Now) -> Reply {
        self.devices.decide(&request.key, None, now.instant);
        info!(reason = "the person denied it", "device sign-in refused");
        self.note_refusal("device-denied", Whom { address: Some(peer), ..Whom::default() }, now);
        pages::device_done(&request.name, false)
    }

    /// The person agreed and signed in.
    pub(super) fn device_approved(&mut self, request: &DeviceRequest, owner: &Owner, now: Now) -> Reply {
        if !self.devices.decide(&request.key, Some(owner.clone()), now.instant) {
            return refuse("The device does not wait any more: its code has ended, or was answered before.");
        }
        info!(user = %self.pseudonym(&owner.user), "device sign-in approved");
        pages::device_done(&request.name, true)
    }

    /// A device asks for its tokens (RFC 8628 sections 3.4 and 3.5).
    pub(super) fn redeem_device(
        &mut self,
        exchange: ExchangeId,
        peer: IpAddr,
        client: &Client,
        fields: &Form,
        now: Now,
    ) -> Result<(), Refusal> {
        only_agents(client)?;
        let missing = || Refusal::new(Code::InvalidRequest, "device_code is missing");
        let sealed = fields.get("device_code").ok_or_else(missing)?;
        let key =
            self.open_device_code(sealed).ok_or_else(|| Refusal::new(Code::InvalidGrant, "no such device code"))?;
        let (owner, audience) = match self.devices.poll(&key, now.instant) {
            Poll::Approved(owner, audience) => (owner, audience),
            Poll::Pending => return Err(Refusal::new(Code::AuthorizationPending, "the person has not answered yet")),
            Poll::TooSoon => return Err(Refusal::new(Code::PollSlowDown, "ask five seconds later each time")),
            Poll::Denied => return Err(Refusal::new(Code::AccessDenied, "the person denied it")),
            Poll::Expired => return Err(Refusal::new(Code::ExpiredToken, "the device code has ended: begin again")),
            Poll::Spent => return Err(Refusal::new(Code::InvalidGrant, "the device code was used")),
        };
        let issued = self
            .narrowed(&audience, Role::Agent, fields.get("resource"))
            .and_then(|narrowed| if self.make_room(&owner.user, now) { Ok(narrowed) } else { Err(unwritable()) });
        match issued {
            Ok(narrowed) => {
                let id = self.new_family_id();
                let scopes = Scopes::all(Role::Agent);
                let mut family =
                    Family::signed_in(owner, &client.key, Role::Agent, (audience, scopes.clone()), now.unix);
                family.about.client.clone_from(&client.name);
                let redeemed = Some(Redeemed::Device(key));
                self.write_family(id, family, Then::Issue { exchange, peer, access: (narrowed, scopes), redeemed });
                Ok(())
            }
            Err(refusal) => {
                self.devices.give_back(&key);
                Err(refusal)
            }
        }
    }

    fn begin_device(&mut self, head: &RequestHead, body: &[u8], now: Now) -> Result<Reply, Refusal> {
        let form = read_form(head, body)?;
        only_agents(&self.client_of(head, &form)?)?;
        let audience = match form.get("resource") {
            None => self.settings.url(Role::Agent.path()),
            Some(resource) => token::audience(&self.settings.public_url, Role::Agent, resource)
                .ok_or_else(|| Refusal::new(Code::InvalidTarget, "resource is not this relay's tunnel"))?,
        };
        if !self.rates.take(Kind::Device, head.peer, now.instant) {
            return Err(Refusal::new(Code::SlowDown, "too many devices from this address"));
        }
        let name = text::clean(form.get("device_name").unwrap_or_default(), MAX_SHOWN_NAME);
        let Some((key, grant)) = self.devices.begin(name, head.peer, audience, now.instant, &mut *self.entropy) else {
            warn!(reason = "no code is free", "device sign-in put off");
            return Err(Refusal::new(Code::TemporarilyUnavailable, "no code is free: begin again"));
        };
        let user_code = pending::shown(&grant.user_code);
        let page = self.settings.url("/device");
        Ok(json(
            StatusCode::OK,
            &Started {
                device_code: &self.seal_device_code(&key),
                verification_uri_complete: &format!("{page}?user_code={user_code}"),
                verification_uri: &page,
                user_code: &user_code,
                expires_in: LIFETIME.as_secs(),
                interval: INTERVAL.as_secs(),
            },
        ))
    }

    /// Sealed, so that a code of this relay is told from a guess when its grant is forgotten.
    fn seal_device_code(&mut self, key: &GrantKey) -> String {
        self.sealer.seal(Purpose::DeviceCode, &[], key, &mut *self.entropy)
    }

    fn open_device_code(&self, sealed: &str) -> Option<GrantKey> {
        self.sealer.open(Purpose::DeviceCode, &[], sealed).ok()?.as_slice().try_into().ok()
    }

    /// Whether one more code may be tried, from there and by all together: whoever finds a stranger's code could take
    /// the stranger's machine for a device of their own (RFC 8628 section 5.1).
    fn may_guess(&mut self, head: &RequestHead, now: Now) -> bool {
        self.rates.take(Kind::DeviceGuess, head.peer, now.instant)
            && self.rates.take(Kind::DeviceGuesses, Whose::Everybody, now.instant)
    }

    fn guessed_right(&mut self, head: &RequestHead, now: Now) {
        self.rates.give_back(Kind::DeviceGuess, head.peer, now.instant);
        self.rates.give_back(Kind::DeviceGuesses, Whose::Everybody, now.instant);
    }
}

/// What is the agent's alone: this grant, since whoever registered itself has a place to be answered at, and to be told
/// whose its tokens are.
pub(super) fn only_agents(client: &Client) -> Result<(), Refusal> {
    match &client.origin {
        Origin::BuiltIn => Ok(()),
        Origin::Configured | Origin::Document { .. } | Origin::SelfRegistered => {
            Err(Refusal::new(Code::UnauthorizedClient, "only this relay's agents may do this"))
        }
    }
}

/// Characters of a device's name on our pages: what fits a line.
const MAX_SHOWN_NAME: usize = 80;

/// RFC 8628 section 3.2.
#[derive(Serialize)]
struct Started<'a> {
    device_code: &'a str,
    user_code: &'a str,
    verification_uri: &'a str,
    verification_uri_complete: &'a str,
    expires_in: u64,
    interval: u64,
}
