//! `/authorize` and `/consent`: judging a request, asking the person, and going on to the login.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::SET_COOKIE;

use super::audit::Whom;
use super::clients::{Client, Origin};
use super::cookies::{self, Step};
use super::document::DocumentUrl;
use super::grants::Grants;
use super::login::Errand;
use super::rates::Kind;
use super::request::{AuthRequest, Stop};
use super::{Settings, pages, spent};
use crate::entropy::{self, Entropy};
use crate::http::form::Form;
use crate::http::{Reply, RequestHead, redirect};
use crate::id::ExchangeId;
use crate::seal::Purpose;
use crate::time::Now;

impl Grants {
    /// Answers `GET /authorize` with the consent page. Nothing is remembered here: the request goes sealed into the
    /// page, openable only together with a cookie of this browser.
    ///
    /// A person is asked each time, also when this browser has agreed before. Whoever begins a sign-in at an honest
    /// client and sends the link on would get another's devices with one click, if nothing but the client's own check of
    /// its state stood in between; and refresh tokens last for months, so that hardly anybody is asked twice.
    pub(super) fn authorize(&mut self, exchange: ExchangeId, head: &RequestHead, now: Now) {
        if !self.rates.take(Kind::Authorize, head.peer, now.instant) {
            return self.reply(exchange, too_many());
        }
        let fields = match Form::parse(head.uri.query().unwrap_or_default()) {
            Ok(fields) => fields,
            Err(error) => return self.reply(exchange, refuse(&format!("The request cannot be read: {error}."))),
        };
        let id = fields.get("client_id").unwrap_or_default();
        if DocumentUrl::is_meant(id) {
            return match DocumentUrl::read(id, self.settings.clients.loopback_documents) {
                Some(url) => self.authorize_with_document(exchange, head.peer, url, fields, now),
                None => self.reply(exchange, refuse(NO_DOCUMENT)),
            };
        }
        let reply = match Client::find(&self.sealer, &self.settings.clients.known, id) {
            Some(client) => self.judge_authorization(&client, &fields, now),
            None if id.is_empty() => refuse("The request does not say which program it comes from."),
            None => refuse("This program is not registered here, or its registration is no longer valid."),
        };
        self.reply(exchange, reply);
    }

    /// The consent page for the client's request, or why there is none.
    pub(super) fn judge_authorization(&mut self, client: &Client, fields: &Form, now: Now) -> Reply {
        let until = now.unix + Duration::from_secs(cookies::MAX_AGE_SECS);
        let request = match AuthRequest::read(&self.settings, client, fields, until) {
            Ok(good) => good,
            Err(stop) => return stopped(&stop),
        };
        let Ok(class) = redirect::classify(&request.redirect) else {
            return refuse("The program asks to be answered at an address that is not allowed.");
        };
        let (redirect, audience, scopes) = (request.redirect.clone(), request.audience.clone(), request.scopes.clone());
        self.ask_consent(&Errand::Client(request), |settings, flow, sealed| {
            let (redirect, audience) = (redirect.as_str(), audience.as_str());
            pages::consent(
                settings,
                &pages::Consent { client, redirect, class: &class, audience, scopes: &scopes, flow, request: sealed },
            )
        })
    }

    /// The consent page for `errand`, made by `page` from the flow's handle and the sealed errand, which only this
    /// browser can bring back.
    pub(super) fn ask_consent(&mut self, errand: &Errand, page: impl FnOnce(&Settings, &str, &str) -> Reply) -> Reply {
        let flow = random(&mut *self.entropy);
        let browser = random(&mut *self.entropy);
        let plain = serde_json::to_vec(errand).expect("strings and numbers always serialise");
        let sealed = self.sealer.seal(Purpose::Consent, &binding(&flow, &browser), &plain, &mut *self.entropy);
        let mut reply = page(&self.settings, &flow, &sealed);
        let cookie = cookies::set(&self.settings, &cookies::name(&self.settings, Step::Consent, &flow), &browser);
        reply.headers.append(SET_COOKIE, cookie);
        reply
    }

    /// Answers `POST /consent`: on to the login, or the client or device is told no. A no is the page's last word; a yes
    /// leads to the login alone, whose answer counts once, and may be said again by somebody who presses twice.
    pub(super) fn consent(&mut self, exchange: ExchangeId, head: &RequestHead, body: &[u8], now: Now) {
        let reply = match self.read_consent(head, body, now) {
            Ok(Answer { errand, allowed: true, .. }) => return self.start_login(exchange, head.peer, errand, now),
            Ok(Answer { errand, flow, .. }) => {
                self.spent.spend(spent::Kind::Consent, &flow, errand.until(), now.unix);
                let mut reply = self.denied(&errand, head, now);
                let cookie = cookies::name(&self.settings, Step::Consent, &flow);
                reply.headers.append(SET_COOKIE, cookies::clear(&self.settings, &cookie));
                reply
            }
            Err(reply) => reply,
        };
        self.reply(exchange, reply);
    }

    /// The person said no.
    fn denied(&mut self, errand: &Errand, head: &RequestHead, now: Now) -> Reply {
        match errand {
            Errand::Client(request) => {
                let whom = Whom { client: Some(&request.client), grant: None, address: Some(head.peer) };
                self.note_refusal("consent-denied", whom, now);
                pages::see_other(&request.answer(&self.settings, &[("error", "access_denied")]))
            }
            Errand::Device(request) => self.device_denied(request, head.peer, now),
            // Nothing is asked before it, so no page of ours says no to it.
            Errand::Account(_) => refuse("The form is malformed."),
        }
    }

    fn read_consent(&self, head: &RequestHead, body: &[u8], now: Now) -> Result<Answer, Reply> {
        if !self.site.is_own_form(head) {
            return Err(forged());
        }
        let fields = Form::parse(body).map_err(|_| refuse("The form is malformed."))?;
        let (Some(flow), Some(sealed)) = (fields.get("flow"), fields.get("request")) else {
            return Err(refuse("The form is malformed."));
        };
        let name = cookies::name(&self.settings, Step::Consent, flow);
        let errand: Errand = cookies::get(head, &name)
            .and_then(|browser| self.sealer.open(Purpose::Consent, &binding(flow, browser), sealed).ok())
            .and_then(|plain| serde_json::from_slice(&plain).ok())
            .filter(|errand: &Errand| errand.is_fresh(now.unix) && !self.spent.has(spent::Kind::Consent, flow))
            .ok_or_else(stale)?;
        let allowed = match fields.get("decision") {
            Some("allow") => true,
            Some("deny") => false,
            _ => return Err(refuse("The form is malformed.")),
        };
        Ok(Answer { errand, flow: flow.into(), allowed })
    }
}

/// What a person answered to a consent page.
struct Answer {
    errand: Errand,
    /// The page's handle.
    flow: String,
    allowed: bool,
}

const NO_DOCUMENT: &str = "This program is named by a URL that cannot be used: it must be https, with a public host and a path, without port, user name and fragment, and in canonical form.";

/// A page for an error that goes no further.
pub(super) fn refuse(message: &str) -> Reply {
    pages::error(StatusCode::BAD_REQUEST, message, None)
}

/// The page for a form that did not come from our page.
pub(super) fn forged() -> Reply {
    pages::error(StatusCode::FORBIDDEN, "This form was not sent from a page of this site.", None)
}

/// The page for a step whose cookie is missing, of another browser, or too old.
pub(super) fn stale() -> Reply {
    refuse("This page is too old, was answered before, or was opened in another browser.")
}

/// The page for an address that asks too much.
pub(super) fn too_many() -> Reply {
    pages::error(StatusCode::TOO_MANY_REQUESTS, "Too many attempts. Wait a minute, then try again.", None)
}

fn stopped(stop: &Stop) -> Reply {
    match stop {
        Stop::Here(message) => refuse(message),
        // Anybody can register a client or write a document: a link must not bounce people off our site to it.
        Stop::Client { url, origin: Origin::SelfRegistered | Origin::Document { .. }, refusal } => {
            let message = format!("The program's request cannot be used: {}.", refusal.description);
            pages::error(StatusCode::BAD_REQUEST, &message, Some(url))
        }
        Stop::Client { url, origin: Origin::BuiltIn | Origin::Configured, .. } => pages::see_other(url),
    }
}

fn binding(flow: &str, browser: &str) -> Vec<u8> {
    format!("{flow}.{browser}").into_bytes()
}

/// 128 random bits as text.
pub(super) fn random(entropy: &mut dyn Entropy) -> String {
    URL_SAFE_NO_PAD.encode(entropy::bytes::<16>(entropy))
}
