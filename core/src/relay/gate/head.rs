//! The first half: what a request's head says, and whether it may go on.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode};

use super::{Admission, Gate, Route, Target, Upgrade, refusal};
use crate::http::fields::{accepts_event_stream, accepts_json, bearer, is_json};
use crate::http::form::Form;
use crate::http::rules::{Cors, Readers};
use crate::http::{Reply, RequestHead};
use crate::limits;
use crate::mcp::{Version, code};
use crate::oauth::refusals::RefusedToken;
use crate::oauth::scopes::Scopes;
use crate::oauth::token::{Resource, TokenError, family_of, open_access};
use crate::oauth::{self, Principal, Role, Snapshot};
use crate::relay::challenge::Challenge;
use crate::relay::era::Field;
use crate::relay::service::{self, Service};
use crate::relay::{Accepts, Endpoint, Opened, handshake, route};
use crate::time::Now;
use crate::tunnel::{self, Dialect};

impl Gate {
    pub(super) fn judge(
        &self,
        head: &RequestHead,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
    ) -> Result<Admission, Reply> {
        check_size(head)?;
        if let Some((endpoint, accepts)) = opened.head.recall(head) {
            let known = (endpoint, Some(accepts));
            return self.readable(Cors::Allowed, head, |readers| self.mcp(known, head, readers, snapshot, now, opened));
        }
        check_coding(head)?;
        let service = Service::of(head.uri.path());
        if matches!(service, Service::Health) {
            service.check_method(head)?;
            return Err(Reply::text(StatusCode::OK, "ok\n"));
        }
        if head.headers.get_all(HOST).iter().count() != 1 {
            let text = "a request has one Host field, neither none nor several (RFC 9112 section 3.2)\n";
            return Err(Reply::text(StatusCode::BAD_REQUEST, text));
        }
        if !self.settings.site.is_ours(head) {
            let text = format!(
                "this relay answers for {} alone: if that is not its address, set issuerUrl in its configuration\n",
                self.settings.public_url
            );
            return Err(Reply::text(StatusCode::FORBIDDEN, text));
        }
        if head.method == Method::OPTIONS && !matches!(service, Service::Nothing) {
            return Err(self.settings.site.preflight(service.cors(), head));
        }
        let cors = service.cors();
        self.readable(cors, head, |readers| self.serve(service, head, readers, snapshot, now, opened))
    }

    /// What `judge` makes of a request, with who may read the answer: it takes that, where somebody else gives the
    /// answer.
    fn readable(
        &self,
        cors: Cors,
        head: &RequestHead,
        judge: impl FnOnce(&mut Readers) -> Result<Admission, Stop>,
    ) -> Result<Admission, Reply> {
        let mut readers = self.settings.site.cors(cors, head);
        judge(&mut readers).or_else(|stop| match stop {
            Stop::Reply(mut reply) => {
                readers.put(&mut reply.headers);
                Err(reply)
            }
            Stop::Refuse(mut refused) => {
                tracing::debug!(reason = %refused.error, "token refused at the gate");
                readers.put(&mut refused.reply.headers);
                Ok(Admission::Refuse(*refused))
            }
        })
    }

    /// `readers`: who may read the answer, whoever gives it.
    fn serve(
        &self,
        service: Service<'_>,
        head: &RequestHead,
        readers: &mut Readers,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
    ) -> Result<Admission, Stop> {
        // 2025-11-25, Transports, Security Warning: an Origin that is present and wrong is answered 403.
        if service.is_guarded() && !self.settings.site.origin(head).is_admitted() {
            let text = "pages of this origin may not call this relay (allowedOrigins)\n";
            return Err(Reply::text(StatusCode::FORBIDDEN, text).into());
        }
        service.check_method(head)?;
        match service {
            Service::Metadata => Err(document(self.metadata.clone()).into()),
            Service::Resource(path) => {
                Err(document(oauth::metadata::protected_resource(&self.settings.oauth, &path)).into())
            }
            Service::Page | Service::Form | Service::Open | Service::Closed => {
                let readers = mem::take(readers);
                Ok(Admission::Read { route: Route(Target::Grants { readers }), limit: limits::MAX_OAUTH_BODY })
            }
            Service::Tunnel => self.tunnel(head, snapshot, now, opened).map(Admission::Upgrade),
            Service::Mcp(endpoint) => self.mcp((endpoint, None), head, readers, snapshot, now, opened),
            Service::Health | Service::Nothing => Err(service::not_found().into()),
        }
    }

    /// A client's request to an endpoint; what it takes is known if the connection's last head was the same.
    fn mcp(
        &self,
        (endpoint, known): (Endpoint, Option<Accepts>),
        head: &RequestHead,
        readers: &mut Readers,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
    ) -> Result<Admission, Stop> {
        let token = bearer(&head.headers).map_err(|_| bad_credentials())?;
        let principal = self.principal(token, head, Some(&endpoint), snapshot, now, opened)?;
        let accepts = match known {
            Some(accepts) => accepts,
            None => {
                let accepts = check_mcp_fields(head)?;
                opened.head.remember(head, &endpoint, accepts);
                accepts
            }
        };
        let limit = if head.method == Method::POST { self.settings.limits.max_body } else { 0 };
        let readers = mem::take(readers);
        Ok(Admission::Read { route: Route(Target::Mcp { principal, endpoint, accepts, readers }), limit })
    }

    /// A tunnel's upgrade (RFC 6455 section 4.2.1).
    fn tunnel(&self, head: &RequestHead, snapshot: &Snapshot, now: Now, opened: &mut Opened) -> Result<Upgrade, Stop> {
        let query = Form::parse(head.uri.query().unwrap_or_default())
            .map_err(|error| Reply::text(StatusCode::BAD_REQUEST, format!("the query cannot be read: {error}\n")))?;
        let in_query = query.secret("token");
        let token = match (bearer(&head.headers).map_err(|_| bad_credentials())?, &in_query) {
            (None, Some(_)) if !self.settings.token_in_query => {
                tracing::warn!(setting = "legacy.tokenInQuery", "an agent that sends its token in the URL was refused");
                return Err(Reply::text(StatusCode::FORBIDDEN, TOKEN_IN_QUERY).into());
            }
            (None, Some(token)) => Some(token.expose()),
            (token, _) => token,
        };
        let principal = self.principal(token, head, None, snapshot, now, opened)?;
        handshake::check(head)?;
        let device =
            handshake::device_name(query.get("name")).map_err(|why| Reply::text(StatusCode::BAD_REQUEST, why))?;
        let dialect = Dialect::of_upgrade(&head.headers);
        let mut headers = HeaderMap::new();
        let device_id = match dialect {
            Dialect::V1 => None,
            Dialect::V2 => {
                headers.insert(tunnel::upgrade::HEADER, tunnel::upgrade::V2);
                handshake::device_id(head)?
            }
        };
        Ok(Upgrade {
            audit: self.audit(&principal.user, snapshot),
            pseudonym: snapshot.sealer.pseudonym(&principal.user),
            user: principal.user.clone(),
            family: principal.family.clone(),
            expires: principal.family_expires,
            device,
            device_id,
            dialect,
            headers,
        })
    }

    /// Whose token it is, checked for the request's path, which is that of `endpoint` or the tunnel's.
    fn principal(
        &self,
        token: Option<&str>,
        head: &RequestHead,
        endpoint: Option<&Endpoint>,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
    ) -> Result<Arc<Principal>, Stop> {
        let resource = Resource { public_url: &self.settings.public_url, path: head.uri.path() };
        let opening = token.map(|token| (token, open_access(token, snapshot, resource, now, &mut opened.principal)));
        if let Some((_, Ok(principal))) = opening {
            return Ok(principal);
        }
        let role = resource.role().unwrap_or(Role::Client);
        let scopes = Scopes::all(role);
        let document = endpoint.map(route::endpoint_path).unwrap_or_default();
        let challenge = Challenge { public_url: &self.settings.public_url, document: &document };
        let Some((token, Err(error))) = opening else { return Err(challenge.missing(&scopes).into()) };
        let reply = match error {
            TokenError::Audience => {
                let text = match role {
                    Role::Client => "this token does not open this endpoint: it is an agent's, or for another path",
                    Role::Agent => tunnel::upgrade::ONLY_AGENTS,
                };
                challenge.insufficient(text, &scopes)
            }
            TokenError::Invalid | TokenError::Expired | TokenError::Revoked => {
                challenge.invalid(&format!("{error}"), &scopes)
            }
        };
        let family = family_of(&snapshot.sealer, token);
        Err(Stop::Refuse(Box::new(RefusedToken { error, family, peer: head.peer, reply })))
    }
}

/// Why a request is not admitted.
enum Stop {
    /// This is the answer.
    Reply(Reply),
    /// Its token does not do.
    Refuse(Box<RefusedToken>),
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// A head within its limits. An adapter may read more than them, so that whoever is over one is told which.
fn check_size(head: &RequestHead) -> Result<(), Reply> {
    let count = head.headers.len();
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    // With each field's colon, space and end of line.
    let whole = target + fields + count * ": \r\n".len();
    let text = if count > limits::MAX_FIELDS {
        format!("the request has {count} header fields, and may have {}\n", limits::MAX_FIELDS)
    } else if fields > limits::MAX_HEADERS {
        format!("the header fields are longer than {} KiB together\n", limits::MAX_HEADERS / 1024)
    } else if whole > limits::MAX_HEAD {
        format!("the request's head is longer than {} KiB\n", limits::MAX_HEAD / 1024)
    } else {
        return Ok(());
    };
    Err(Reply::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text))
}

/// At most one transfer coding, `chunked`; 501 is for others (RFC 9112 section 6.1). The adapter's library takes any list
/// that ends with it: a proxy that reads the list in another way would see the body end elsewhere, and the next request
/// begin there.
fn check_coding(head: &RequestHead) -> Result<(), Reply> {
    let coded = head.headers.contains_key(TRANSFER_ENCODING);
    if !coded || head.header(TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(());
    }
    let reply = Reply::text(StatusCode::NOT_IMPLEMENTED, "the one transfer coding that is taken is chunked, once\n");
    Err(reply.with(CONNECTION, HeaderValue::from_static("close")))
}

/// What a client takes, checked with the rest of a `/mcp` request's fields.
fn check_mcp_fields(head: &RequestHead) -> Result<Accepts, Reply> {
    if head.method == Method::POST && !is_json(&head.headers) {
        return Err(Reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json\n"));
    }
    if head.method != Method::POST {
        // 2026-07-28, Streamable HTTP, Earlier Streamable HTTP Revisions: these are the older revisions' methods.
        if Field::of(&head.headers) == Field::Modern {
            let text = "this revision has POST alone: subscriptions/listen opens a stream, and there are no sessions\n";
            let reply = Reply::text(StatusCode::METHOD_NOT_ALLOWED, text);
            return Err(reply.with(ALLOW, HeaderValue::from_static("POST, OPTIONS")));
        }
        check_older(head)?;
    }
    match (accepts_json(&head.headers), accepts_event_stream(&head.headers)) {
        (true, true) => Ok(Accepts::Either),
        (true, false) if head.method != Method::GET => Ok(Accepts::Json),
        (false, true) => Ok(Accepts::Stream),
        _ if head.method == Method::DELETE => Ok(Accepts::Either),
        _ => {
            let text = "Accept must allow application/json and text/event-stream";
            Err(refusal(StatusCode::NOT_ACCEPTABLE, code::INVALID_REQUEST, None, text))
        }
    }
}

/// 2025-06-18, Transports, Protocol Version Header: an invalid or unsupported version is answered 400.
pub(super) fn check_older(head: &RequestHead) -> Result<(), Reply> {
    match Field::of(&head.headers) {
        Field::Absent | Field::Legacy => Ok(()),
        Field::Modern | Field::Unknown => {
            let known: Vec<_> =
                Version::ALL.into_iter().filter(|version| version.is_legacy()).map(Version::as_str).collect();
            let text = format!("this needs a protocol version with sessions (one of {})", known.join(", "));
            Err(refusal(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, None, &text))
        }
    }
}

fn bad_credentials() -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, "the Authorization header cannot be read: it is Bearer and one token\n")
}

fn document(json: Bytes) -> Reply {
    Reply::json(StatusCode::OK, json).with(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"))
}

const TOKEN_IN_QUERY: &str = "tokens in the URL are refused, since URLs are logged: update this agent, or turn \
legacy.tokenInQuery on in the relay's configuration\n";
