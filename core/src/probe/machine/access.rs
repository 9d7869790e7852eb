//! The sign-in of a probe, from the challenge to the token.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use http::{Method, StatusCode};

use super::{Grant, Login, Probe, State, Way};
use crate::http::fetch::{FetchError, Fetched};
use crate::limits;
use crate::probe::challenge::Challenge;
use crate::probe::contract::{Access, Action, Failure};
use crate::probe::discovery::{self, Resource};
use crate::probe::registration::{self, Known};
use crate::signin::contract as signin;
use crate::signin::metadata::{self, Metadata, Rules};
use crate::signin::request::{self, Answer as Told};
use crate::signin::tokens::Tokens;
use crate::time::{Deadline, Now};

impl Probe {
    /// The endpoint wants a token, or (`more`) one that allows more than the present one.
    pub(super) fn sign_in(&mut self, challenge: Challenge, more: bool) {
        if self.settings.token.is_some() {
            let cause =
                if more { "the token does not allow that much" } else { "the endpoint does not take the token" };
            return self.finish(Err(Failure::Refused { cause: cause.into() }));
        }
        let times = self.report.access.as_ref().map_or(0, |access| access.times);
        if times >= limits::PROBE_SIGN_INS {
            let cause = "the server goes on asking for another sign-in".into();
            return self.finish(Err(Failure::Refused { cause }));
        }
        let wanted = challenge.scope.filter(|scope| scope.len() <= limits::MAX_TOKEN);
        let scope = match (more, wanted) {
            (false, wanted) => wanted,
            // What was granted before must not be lost (2026-07-28, Authorization, Step-Up Authorization Flow).
            (true, Some(wanted)) if wanted.split(' ').any(|scope| !self.asked.contains(scope)) => {
                let all = self.asked.iter().map(String::as_str).chain(wanted.split(' ')).collect::<BTreeSet<_>>();
                Some(all.into_iter().collect::<Vec<_>>().join(" "))
            }
            (true, _) => {
                let cause = "the server asks for no more than was asked for, and does not take it".into();
                return self.finish(Err(Failure::Refused { cause }));
            }
        };
        let places = match challenge.resource_metadata {
            Some(place) => vec![place],
            None => self.checked(&self.settings.url).map_or(Vec::new(), |url| discovery::resource_places(&url)),
        };
        self.describe(places.into_iter().rev().collect(), scope);
    }

    /// Looks for the endpoint's description in the next place.
    fn describe(&mut self, mut left: Vec<String>, scope: Option<String>) {
        let Some(place) = left.pop() else {
            let undescribed = Resource::undescribed(&self.settings.url);
            return self.discover_issuer(undescribed, scope);
        };
        if let Err(cause) = self.checked(&place) {
            return self.finish(Err(self.broken(&alloc::format!("its resource metadata cannot be had: {cause}"))));
        }
        let fetch = self.fetch(request::fetch(Method::GET, place, bytes::Bytes::new()));
        self.state = State::Describing { fetch, left, scope };
    }

    pub(super) fn described(&mut self, told: Told, left: Vec<String>, scope: Option<String>) {
        match told {
            Told::Ok(fetched) if request::is_page(&fetched.body) => self.describe(left, scope),
            Told::Ok(fetched) => match Resource::read(&fetched.body, &self.settings.url) {
                Ok(resource) => self.discover_issuer(resource, scope),
                Err(cause) => self.finish(Err(self.broken(cause))),
            },
            Told::Unreachable { cause, .. } => self.finish(Err(self.unreachable(&self.settings.url, cause))),
            Told::Refused(_) | Told::Odd(_) => self.describe(left, scope),
        }
    }

    fn discover_issuer(&mut self, resource: Resource, scope: Option<String>) {
        let Resource { resource, issuer, scopes } = resource;
        match self.checked(&issuer) {
            Ok(url) => {
                let left = discovery::issuer_places(&url).into_iter().rev().collect();
                self.discover(left, Way { resource, issuer, scope: scope.or(scopes) });
            }
            Err(cause) => {
                let cause = alloc::format!("its authorization server cannot be used: {cause}");
                self.finish(Err(self.broken(&cause)));
            }
        }
    }

    /// Looks for the issuer's metadata in the next place.
    fn discover(&mut self, mut left: Vec<String>, way: Way) {
        let Some(place) = left.pop() else {
            let cause = "it has no metadata, so that nothing promises PKCE".into();
            return self.finish(Err(Failure::Broken { url: way.issuer, cause }));
        };
        let fetch = self.fetch(request::fetch(Method::GET, place, bytes::Bytes::new()));
        self.state = State::Discovering { fetch, left, way };
    }

    pub(super) fn discovered(&mut self, told: Told, left: Vec<String>, way: Way, now: Now) {
        let rules = Rules::Issuer { issuer: &way.issuer, allow_insecure: self.settings.allow_insecure };
        match told {
            Told::Ok(fetched) if request::is_page(&fetched.body) => self.discover(left, way),
            Told::Ok(fetched) => match (metadata::read(&fetched.body, &rules), self.port) {
                (Ok(metadata), Some(port)) => self.choose_client(way, metadata, port, now),
                (Ok(metadata), None) => {
                    self.state = State::Listening(way, metadata);
                    self.out.push(Action::Desk(signin::Action::Listen));
                }
                (Err(cause), _) => {
                    self.finish(Err(Failure::Broken { url: way.issuer, cause: cause.into() }));
                }
            },
            Told::Unreachable { cause, .. } => self.finish(Err(self.unreachable(&way.issuer, cause))),
            Told::Refused(_) | Told::Odd(_) => self.discover(left, way),
        }
    }

    /// A client belongs to the server that knows it: another server gets another one.
    pub(super) fn choose_client(&mut self, way: Way, metadata: Metadata, port: u16, now: Now) {
        let known = self.client.take().filter(|client| client.issuer == metadata.issuer);
        let given = self.settings.client.as_ref().map(|given| Known::given(given, &metadata));
        if let Some(client) = given.or(known) {
            return self.open_browser(way, metadata, client, port, now);
        }
        let request = match &metadata.registration {
            Some(endpoint) => registration::request(endpoint, &metadata, port, way.scope.as_deref()),
            None => Err("it registers no clients: name one with --client-id"),
        };
        match request {
            Ok(request) => {
                let fetch = self.fetch(request);
                self.state = State::Registering(fetch, way, metadata);
            }
            Err(cause) => self.finish(Err(Failure::Broken { url: way.issuer, cause: cause.into() })),
        }
    }

    pub(super) fn registered(&mut self, result: Result<Fetched, FetchError>, way: Way, metadata: Metadata, now: Now) {
        // RFC 7591 section 3.2.1; some servers answer 200.
        let result = result.map(|mut fetched| {
            if fetched.status == StatusCode::CREATED {
                fetched.status = StatusCode::OK;
            }
            fetched
        });
        let failure = match (request::judge(result, now.unix), self.port) {
            (Told::Ok(fetched), Some(port)) => match Known::registered(&fetched, &metadata) {
                Some(client) => return self.open_browser(way, metadata, client, port, now),
                None => Failure::Broken { url: way.issuer, cause: "its registration cannot be read".into() },
            },
            (Told::Unreachable { cause, .. }, _) => self.unreachable(&way.issuer, cause),
            (Told::Refused(code), _) => {
                Failure::Refused { cause: alloc::format!("it does not register this program: {code}") }
            }
            (Told::Odd(cause), _) => Failure::Broken { url: way.issuer, cause },
            (Told::Ok(_), None) => Failure::Local { cause: "nothing listens for the browser's answer".into() },
        };
        self.finish(Err(failure));
    }

    fn open_browser(&mut self, way: Way, metadata: Metadata, client: Known, port: u16, now: Now) {
        let (state, verifier) = (self.draw(), self.draw());
        let asking = client.asking(&way.resource, way.scope.as_deref());
        let url = request::authorization_url(&asking, &metadata, &state, &verifier, port);
        self.timer = Some(Deadline { at: now.instant + limits::LOGIN_TIMEOUT, reason: "sign-in in the browser" });
        self.state = State::Waiting(Login { way, metadata, client, port, state, verifier });
        self.out.push(Action::Desk(signin::Action::OpenBrowser { url }));
    }

    pub(super) fn exchanged(&mut self, told: Told, login: Login, now: Now) {
        let Login { way, metadata, client, .. } = login;
        let failure = match told {
            Told::Ok(fetched) => match Tokens::from_answer(&fetched, None, now.unix) {
                Some(tokens) => return self.granted(tokens, way, metadata, client),
                None => Failure::Broken { url: way.issuer, cause: request::unreadable(&fetched).into() },
            },
            Told::Unreachable { cause, .. } => self.unreachable(&way.issuer, cause),
            Told::Refused(code) => {
                Failure::Refused { cause: alloc::format!("the server does not take the code: {code}") }
            }
            Told::Odd(cause) => Failure::Broken { url: way.issuer, cause },
        };
        self.finish(Err(failure));
    }

    fn granted(&mut self, tokens: Tokens, way: Way, metadata: Metadata, client: Known) {
        self.asked.extend(way.scope.iter().flat_map(|scope| scope.split(' ')).map(ToString::to_string));
        self.report.access = Some(Access {
            issuer: way.issuer,
            client_id: client.id.clone(),
            registered: client.registered,
            scope: way.scope,
            times: self.report.access.take().map_or(1, |access| access.times + 1),
        });
        self.client = Some(client.clone());
        // A sign-in for more does not end the one before it: both are given up in the end.
        self.grants.push(Grant { tokens, client, resource: way.resource, revocation: metadata.revocation });
        self.ask();
    }
}
