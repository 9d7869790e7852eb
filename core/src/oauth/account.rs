//! `/account`: a person sees who has access to their devices, and takes it away.
//!
//! Whoever is signed in here is in a sealed cookie of theirs, and nothing of it in the relay's memory until they sign out:
//! then it is good no longer, wherever else it is. It is good for half an hour at most, until the relay is restarted, and
//! for this page alone; a person who is taken off the configuration is out of it at once.

mod page;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use http::header::SET_COOKIE;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::info;

pub(super) use self::page::trouble;
use super::authorize::{forged, random, too_many};
use super::ending::Asker;
use super::families;
use super::grants::Grants;
use super::login::{Errand, Person};
use super::rates;
use super::scopes::Scopes;
use super::spent::Kind;
use super::{Role, cookies, pages, text};
use crate::entropy;
use crate::http::form::Form;
use crate::http::{Reply, RequestHead};
use crate::id::{ExchangeId, FamilyId, UserId};
use crate::oidc::allow::{Verdict, Vouched};
use crate::seal::Purpose;
use crate::time::{Now, UnixTime};

/// A person on the way through the login to their page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AccountRequest {
    /// When it is too late to go on, in milliseconds.
    #[serde(rename = "u")]
    pub(super) until: u64,
}

/// Who is signed in: what the cookie says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    #[serde(rename = "u")]
    user: String,
    /// Tells it from all others: what is spent when the person signs out.
    #[serde(rename = "i")]
    id: String,
    /// What `auth.allow` judges them by.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    vouched: Option<Box<Vouched>>,
    /// What the page calls them.
    #[serde(rename = "n")]
    name: String,
    /// When it ends, in milliseconds.
    #[serde(rename = "x")]
    until: u64,
}

/// What a form of the page orders.
enum Order {
    SignIn,
    SignOut(Session),
    Revoke(UserId, FamilyId),
    RevokeAll(UserId),
}

/// One grant as the page shows it.
struct Entry<'a> {
    id: &'a FamilyId,
    role: Role,
    /// The device's name or the client's, as they call themselves; may be empty.
    name: &'a str,
    /// Where the client's codes went; may be empty.
    redirect: &'a str,
    /// The operator's note, if the operator made it.
    minted: Option<&'a str>,
    /// What it may do.
    scopes: &'a Scopes,
    granted: UnixTime,
    /// When the client was used last, or the device connected.
    used: Option<UnixTime>,
    connected: bool,
}

impl Grants {
    /// Answers `/account`.
    pub(super) fn account(&mut self, exchange: ExchangeId, head: &RequestHead, body: &[u8], now: Now) {
        if head.method != Method::POST {
            let reply = self.account_page(head, now);
            return self.reply(exchange, reply);
        }
        match self.read_order(head, body, now) {
            Ok(Order::SignIn) => {
                let until = (now.unix + Duration::from_secs(cookies::MAX_AGE_SECS)).as_millis();
                self.start_login(exchange, head.peer, Errand::Account(AccountRequest { until }), now);
            }
            Ok(Order::SignOut(session)) => {
                self.spent.spend(Kind::Account, &session.id, UnixTime::from_millis(session.until), now.unix);
                let mut reply = self.to_account();
                let cookie = cookies::clear(&self.settings, &cookies::account(&self.settings));
                reply.headers.append(SET_COOKIE, cookie);
                self.reply(exchange, reply);
            }
            Ok(Order::Revoke(user, id)) => {
                // Another's grant and one that is no more are the same here: there is nothing of the person's to end.
                let own = self.families.known.get(&id).is_some_and(|family| family.user == user.as_str());
                let ids = own.then_some(id).into_iter().collect();
                self.revoke_several(ids, Asker::Person(exchange), now);
            }
            Ok(Order::RevokeAll(user)) => {
                let ids = self.families_of(&user, now);
                self.revoke_several(ids, Asker::Person(exchange), now);
            }
            Err(reply) => self.reply(exchange, reply),
        }
    }

    /// The person has signed in: their page, with the cookie that opens it.
    pub(super) fn open_account(&mut self, person: &Person, now: Now) -> Reply {
        info!(user = %self.pseudonym(&person.owner.user), "signed in to the account's page");
        let run = *self.run.get_or_insert_with(|| entropy::bytes(&mut *self.entropy));
        let session = Session {
            id: random(&mut *self.entropy),
            user: person.owner.user.as_str().to_string(),
            vouched: person.owner.vouched.clone(),
            name: text::clean(&person.name, MAX_NAME),
            until: (now.unix + SESSION).as_millis(),
        };
        let plain = serde_json::to_vec(&session).expect("strings and numbers always serialise");
        let value = self.sealer.seal(Purpose::Cookie, &context(run), &plain, &mut *self.entropy);
        let mut reply = self.to_account();
        let cookie = cookies::set_for(&self.settings, &cookies::account(&self.settings), &value, SESSION.as_secs());
        reply.headers.append(SET_COOKIE, cookie);
        reply
    }

    /// What a person revoked is written, or not.
    pub(super) fn person_revoked(&mut self, exchange: ExchangeId, result: Result<(), ()>) {
        let reply = match result {
            Ok(()) => self.to_account(),
            Err(()) => {
                let message = "The relay cannot keep this at the moment: not all of it is revoked. Try again.";
                trouble(&self.settings, StatusCode::SERVICE_UNAVAILABLE, message)
            }
        };
        self.reply(exchange, reply);
    }

    fn account_page(&mut self, head: &RequestHead, now: Now) -> Reply {
        let Some((cookie, session)) = self.session(head, now) else { return page::signed_out(&self.settings) };
        let until = session.until.to_string();
        let csrf = self.sealer.seal(Purpose::Csrf, cookie.as_bytes(), until.as_bytes(), &mut *self.entropy);
        page::account(&self.settings, &session.name, &csrf, &self.entries(&session.user, now), now.unix)
    }

    /// The person's grants, those used last first.
    fn entries(&self, user: &str, now: Now) -> Vec<Entry<'_>> {
        let connected = self.presence.connected();
        let own = self.families.known.iter().filter(|(_, family)| family.user == user && family.is_alive(now.unix));
        let mut entries: Vec<_> = own
            .map(|(id, family)| Entry {
                id,
                role: family.role,
                name: match family.role {
                    Role::Agent => &family.about.device,
                    Role::Client => &family.about.client,
                },
                redirect: &family.about.redirect,
                minted: match &family.kind {
                    families::Kind::Minted { label } => Some(label),
                    families::Kind::SignIn { .. } => None,
                },
                scopes: &family.scopes,
                granted: UnixTime::from_millis(family.created),
                used: match family.role {
                    Role::Agent => family.about.connected.map(UnixTime::from_millis),
                    Role::Client => family.used(),
                },
                connected: connected.contains(id),
            })
            .collect();
        entries.sort_by(|a, b| (b.connected, b.used, b.granted, a.id).cmp(&(a.connected, a.used, a.granted, b.id)));
        entries
    }

    fn read_order(&mut self, head: &RequestHead, body: &[u8], now: Now) -> Result<Order, Reply> {
        if !self.site.is_own_form(head) {
            return Err(forged());
        }
        let bad = |settings: &_| trouble(settings, StatusCode::BAD_REQUEST, "The form is malformed.");
        let fields = Form::parse(body).map_err(|_| bad(&self.settings))?;
        if fields.get("action") == Some("sign-in") {
            // Anybody may come this far: it costs the provider a request, or us a page.
            let allowed = self.rates.take(rates::Kind::Authorize, head.peer, now.instant);
            return if allowed { Ok(Order::SignIn) } else { Err(too_many()) };
        }
        let Some((cookie, session)) = self.session(head, now) else {
            let message = "You are not signed in any more. Nothing was changed.";
            return Err(trouble(&self.settings, StatusCode::FORBIDDEN, message));
        };
        let sealed = fields.get("csrf").unwrap_or_default();
        if self.sealer.open(Purpose::Csrf, cookie.as_bytes(), sealed).is_err() {
            return Err(forged());
        }
        let user = UserId::new(&session.user);
        match (fields.get("action"), fields.get("grant")) {
            (Some("sign-out"), _) => Ok(Order::SignOut(session)),
            (Some("revoke"), Some(id)) => Ok(Order::Revoke(user, FamilyId::new(id))),
            (Some("revoke-all"), _) => Ok(Order::RevokeAll(user)),
            _ => Err(bad(&self.settings)),
        }
    }

    /// Who is signed in, with the cookie that says so: it binds the forms of the page.
    fn session<'a>(&self, head: &'a RequestHead, now: Now) -> Option<(&'a str, Session)> {
        let cookie = cookies::get(head, &cookies::account(&self.settings))?;
        let plain = self.sealer.open(Purpose::Cookie, &context(self.run?), cookie).ok()?;
        let session: Session = serde_json::from_slice(&plain).ok()?;
        let until = UnixTime::from_millis(session.until);
        let good = now.unix < until && !self.spent.has(Kind::Account, &session.id);
        let welcome = self.standing_of(&session.user, session.vouched.as_deref()) != Verdict::Excluded;
        (good && welcome).then_some((cookie, session))
    }

    fn to_account(&self) -> Reply {
        pages::see_other(&self.settings.url(PATH))
    }
}

/// What the cookie is sealed for.
fn context(run: [u8; 16]) -> Vec<u8> {
    [&b"account"[..], &run].concat()
}

const PATH: &str = "/account";
/// How long a person stays signed in to the page: long enough to look and to decide.
const SESSION: Duration = Duration::from_secs(30 * 60);
/// Characters of a person's name on the page.
const MAX_NAME: usize = 80;
