//! Clients that describe themselves in a document: fetched when a person is sent here by one, and kept for a while.
//!
//! Anybody can name any URL, so everything here is bounded: how much is kept, how many fetches are under way, how many
//! requests wait for one, and how often an address may cause one. Only `/authorize` fetches; `/token` and `/revoke` know
//! a client by its URL alone (see [`DocumentUrl::client`]), so that a refresh depends neither on the document's host nor
//! on what the relay remembers.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use http::StatusCode;
use tracing::info;

use super::authorize::{refuse, too_many};
use super::clients::Client;
use super::document::{self, DocumentUrl, Fault};
use super::grants::{Action, Grants};
use super::pages;
use super::rates::Kind;
use crate::http::Reply;
use crate::http::fetch::{FetchError, Fetched};
use crate::http::form::Form;
use crate::id::{ExchangeId, FetchId};
use crate::limits;
use crate::time::{Instant, Now};

/// What is known of documents, and the fetches under way.
#[derive(Debug, Default)]
pub(super) struct Documents {
    entries: BTreeMap<String, Entry>,
    flights: BTreeMap<FetchId, Flight>,
}

/// What came of the last fetches of one document.
#[derive(Debug)]
struct Entry {
    /// As it was read last.
    known: Option<Known>,
    /// Why the last fetch brought nothing; then it is not fetched again before that time.
    failed: Option<(Trouble, Instant)>,
    used: Instant,
}

#[derive(Debug)]
struct Known {
    client: Client,
    fetched: Instant,
    fresh_until: Instant,
}

/// One fetch, and the requests that wait for it.
#[derive(Debug)]
struct Flight {
    url: DocumentUrl,
    waiting: Vec<Waiter>,
}

/// An authorization request that waits.
#[derive(Debug)]
struct Waiter {
    exchange: ExchangeId,
    fields: Form,
}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The document was not to be had. What exactly went wrong is for the log: strangers shall not learn from here which
    /// hosts and ports can be reached.
    Unreachable,
    /// The document is there, and no client's.
    Faulty(Fault),
}

impl Trouble {
    fn is_final(&self) -> bool {
        match self {
            Self::Unreachable => false,
            Self::Faulty(fault) => fault.is_final(),
        }
    }
}

/// What is known of a document at a moment.
enum Look {
    /// The client, to be used as it is.
    Client(Client),
    /// It cannot be used, and was tried a moment ago.
    Trouble(Trouble),
    /// It must be fetched; until then there may be an old one, for when it cannot be.
    Fetch(Option<Client>),
}

impl Documents {
    /// The client of the document, if it is remembered.
    pub(super) fn client(&self, url: &DocumentUrl) -> Option<Client> {
        self.entries.get(url.as_str())?.known.as_ref().map(|known| known.client.clone())
    }

    /// Whether `fetch` is one of a document.
    pub(super) fn owns(&self, fetch: FetchId) -> bool {
        self.flights.contains_key(&fetch)
    }

    /// Forgets what is of no more use.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.usable(now).is_some() || entry.pause(now).is_some());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn look(&mut self, url: &DocumentUrl, now: Instant) -> Look {
        let Some(entry) = self.entries.get_mut(url.as_str()) else { return Look::Fetch(None) };
        entry.used = now;
        let usable = entry.usable(now);
        match (usable, entry.pause(now)) {
            (Some(known), _) if now < known.fresh_until => Look::Client(known.client.clone()),
            (Some(known), Some(_)) => Look::Client(known.client.clone()),
            (None, Some(trouble)) => Look::Trouble(trouble.clone()),
            (usable, None) => Look::Fetch(usable.map(|known| known.client.clone())),
        }
    }

    /// Lets a request wait for the fetch of `url` that is under way. `Err` gives it back: none is, or too many wait.
    fn join(&mut self, url: &DocumentUrl, waiter: Waiter) -> Result<(), (Waiter, bool)> {
        match self.flights.values_mut().find(|flight| flight.url == *url) {
            Some(flight) if flight.waiting.len() < limits::MAX_DOCUMENT_WAITERS => {
                flight.waiting.push(waiter);
                Ok(())
            }
            Some(_) => Err((waiter, true)),
            None => Err((waiter, false)),
        }
    }

    /// Takes the end of a fetch in, and returns what is to be said to whoever waits.
    fn learn(
        &mut self,
        url: &DocumentUrl,
        result: &Result<Fetched, FetchError>,
        now: Instant,
    ) -> Result<Client, Trouble> {
        let old = self.entries.remove(url.as_str()).and_then(|entry| entry.known);
        let retry = now + limits::CLIENT_DOCUMENT_RETRY;
        let entry = match judge(url, result) {
            Ok(known) => {
                let fresh_until = now + document::lifetime(known.headers);
                let known = Known { client: known.client, fetched: now, fresh_until };
                Entry { known: Some(known), failed: None, used: now }
            }
            // An old one serves while its host is out of order, but not when the host says something else.
            Err(trouble) => {
                let known = old.filter(|_| !trouble.is_final());
                Entry { known, failed: Some((trouble, retry)), used: now }
            }
        };
        let outcome = match (entry.usable(now), &entry.failed) {
            (Some(known), _) => Ok(known.client.clone()),
            (None, Some((trouble, _))) => Err(trouble.clone()),
            (None, None) => Err(Trouble::Unreachable),
        };
        self.make_room();
        self.entries.insert(url.as_str().to_string(), entry);
        outcome
    }

    fn make_room(&mut self) {
        if self.entries.len() < limits::MAX_CLIENT_DOCUMENTS {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(url, _)| url.clone());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }
}

impl Entry {
    /// What was read last, unless it is too old to be used at all.
    fn usable(&self, now: Instant) -> Option<&Known> {
        self.known.as_ref().filter(|known| now < known.fetched + limits::CLIENT_DOCUMENT_STALE)
    }

    /// Why it is not fetched again yet.
    fn pause(&self, now: Instant) -> Option<&Trouble> {
        self.failed.as_ref().filter(|(_, retry)| now < *retry).map(|(trouble, _)| trouble)
    }
}

/// A document as it was read.
struct Read<'a> {
    client: Client,
    headers: &'a http::HeaderMap,
}

fn judge<'a>(url: &DocumentUrl, result: &'a Result<Fetched, FetchError>) -> Result<Read<'a>, Trouble> {
    let refused = |fault: Fault| {
        info!(host = url.host(), reason = %fault, "client's document refused");
        Trouble::Faulty(fault)
    };
    match result {
        Ok(fetched) => {
            let client = document::read(url, fetched).map_err(refused)?;
            Ok(Read { client, headers: &fetched.headers })
        }
        Err(FetchError::TooLarge(_)) => Err(refused(Fault::TooLarge)),
        Err(error) => {
            info!(host = url.host(), reason = %error, "client's document not to be had");
            Err(Trouble::Unreachable)
        }
    }
}

impl Grants {
    /// Answers `/authorize` for a client with a document, when that is there.
    pub(super) fn authorize_with_document(
        &mut self,
        exchange: ExchangeId,
        peer: IpAddr,
        url: DocumentUrl,
        fields: Form,
        now: Now,
    ) {
        match self.documents.look(&url, now.instant) {
            Look::Client(client) => {
                let reply = self.judge_authorization(&client, &fields, now);
                self.reply(exchange, reply);
            }
            Look::Trouble(trouble) => self.reply(exchange, troubled(&url, &trouble)),
            Look::Fetch(old) => {
                if let Err(fields) = self.wait_for_document(exchange, peer, url, fields, now) {
                    let reply = match old {
                        Some(client) => self.judge_authorization(&client, &fields, now),
                        None => too_many(),
                    };
                    self.reply(exchange, reply);
                }
            }
        }
    }

    /// Lets the request wait for its document: for the fetch that is under way, or for a new one. `Err` gives it back:
    /// too much is under way, or that address has caused too many.
    fn wait_for_document(
        &mut self,
        exchange: ExchangeId,
        peer: IpAddr,
        url: DocumentUrl,
        fields: Form,
        now: Now,
    ) -> Result<(), Form> {
        let waiter = match self.documents.join(&url, Waiter { exchange, fields }) {
            Ok(()) => return Ok(()),
            Err((waiter, true)) => return Err(waiter.fields),
            Err((waiter, false)) => waiter,
        };
        let full = self.documents.flights.len() >= limits::MAX_DOCUMENT_FETCHES;
        if full || !self.rates.take(Kind::Document, peer, now.instant) {
            return Err(waiter.fields);
        }
        let fetch = FetchId(self.next_fetch);
        self.next_fetch = self.next_fetch.wrapping_add(1);
        self.out.push(Action::Fetch { fetch, request: url.fetch() });
        self.documents.flights.insert(fetch, Flight { url, waiting: vec![waiter] });
        Ok(())
    }

    /// The fetch of a document ended: whoever waits is answered.
    pub(super) fn document_fetched(&mut self, fetch: FetchId, result: &Result<Fetched, FetchError>, now: Now) {
        let Some(Flight { url, waiting }) = self.documents.flights.remove(&fetch) else { return };
        let outcome = self.documents.learn(&url, result, now.instant);
        for Waiter { exchange, fields } in waiting {
            let reply = match &outcome {
                Ok(client) => self.judge_authorization(client, &fields, now),
                Err(trouble) => troubled(&url, trouble),
            };
            self.reply(exchange, reply);
        }
    }
}

/// The page for a client whose document makes none. There is nobody to send an error to.
fn troubled(url: &DocumentUrl, trouble: &Trouble) -> Reply {
    let host = url.host();
    match trouble {
        Trouble::Unreachable => {
            let message =
                format!("The document at {host} in which the program describes itself cannot be fetched now.");
            pages::error(StatusCode::BAD_GATEWAY, &message, None)
        }
        Trouble::Faulty(fault) => {
            refuse(&format!("The document at {host} in which the program describes itself cannot be used: {fault}."))
        }
    }
}
