//! The gate: the pure first step of every request. `&self`, shared by all connections, no lock.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::net::IpAddr;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};

use super::challenge::Challenge;
use super::era::{self, Field};
use super::service::{self, Service};
use super::{
    Accepts, Content, Endpoint, Item, Listen, Note, Opened, Post, Request, Session, Settings, Speaker, handshake,
    modern, route, session, shard,
};
use crate::entropy::Entropy;
use crate::http::fields::{accepts_event_stream, accepts_json, bearer, is_json};
use crate::http::form::Form;
use crate::http::{Reply, RequestHead, forwarded};
use crate::id::{DeviceId, DeviceName, ExchangeId, FamilyId, UserId};
use crate::limits;
use crate::mcp::{Era, Version, code, header, method};
use crate::oauth::refusals::RefusedToken;
use crate::oauth::scopes::Scopes;
use crate::oauth::token::{Resource, TokenError, family_of, open_access};
use crate::oauth::{self, Principal, Role, Snapshot};
use crate::rpc::{self, Message, RawId, envelope, quoted};
use crate::seal::{Memo, Sealer};
use crate::time::{Now, UnixTime};
use crate::tunnel::{self, Dialect};

/// What to do with a request whose head was read.
#[derive(Debug)]
pub enum Admission {
    /// Answer at once. The body, if any, is read on and thrown away beside that, so that the answer arrives.
    Reply(Reply),
    /// The same, by [`oauth::grants::Event::TokenRefused`]: a token was refused.
    Refuse(RefusedToken),
    /// Read the body whole, at most `limit` bytes, then call [`Gate::accept`] with `route`. A longer body is answered
    /// with [`Gate::too_large`], a slow one with [`Gate::too_slow`], one that there is no room for with
    /// [`Gate::no_room`], one that cannot be read with [`Gate::unreadable`].
    Read {
        /// What the head meant; opaque to the adapter.
        route: Route,
        /// In bytes; 0 when no body is expected.
        limit: usize,
    },
    /// Answer 101 with `headers` (the adapter adds `Sec-WebSocket-Accept`), then bring [`shard::Event::TunnelUp`] to
    /// the user's shard.
    Upgrade(Upgrade),
}

/// A tunnel that may be opened.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Whose device it is.
    pub user: UserId,
    /// The same in logs.
    pub pseudonym: String,
    /// The same once more, if an audit is kept.
    pub audit: Option<Arc<str>>,
    /// The grant the tunnel belongs to: it ends with it.
    pub family: FamilyId,
    /// When the tunnel ends at the latest.
    pub expires: UnixTime,
    /// The device's name.
    pub device: DeviceName,
    /// What tells it from another device of that name; none on V1.
    pub device_id: Option<DeviceId>,
    /// What is spoken.
    pub dialect: Dialect,
    /// For the 101 response.
    pub headers: http::HeaderMap,
}

/// What the gate made of a request whose body was read.
#[derive(Debug)]
pub enum Step {
    /// Answer at once.
    Reply(Reply),
    /// Hand this to [`oauth::grants::Grants`], which answers the exchange.
    Grants(oauth::grants::Event),
    /// Hand this to `user`'s shard, which answers the exchange.
    Shard(UserId, shard::Event),
}

/// What the head of a request meant. Opaque to adapters.
#[derive(Debug)]
pub struct Route(Target);

impl Route {
    /// Whose body it is, once that is known.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match &self.0 {
            Target::Grants { .. } => None,
            Target::Mcp { principal, .. } => Some(&principal.user),
        }
    }
}

/// Where an admitted request goes once its body is read.
#[derive(Debug)]
enum Target {
    /// To the machine of sign-in.
    Grants {
        /// CORS fields for a reply that the machine does not give.
        headers: HeaderMap,
    },
    /// To a user's shard, or, at the end of a session, to the machine of sign-in.
    Mcp {
        principal: Arc<Principal>,
        endpoint: Endpoint,
        accepts: Accepts,
        /// CORS fields for the reply.
        headers: HeaderMap,
    },
}

/// The gate. One per relay, shared by all connections.
pub struct Gate {
    settings: Arc<Settings>,
    /// The authorization server's metadata.
    metadata: Bytes,
}

impl Gate {
    /// A relay's gate. Which tokens and sessions it opens, each request's snapshot says.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let metadata = oauth::metadata::authorization_server(&settings.oauth);
        Self { settings, metadata }
    }

    /// Whose request it is that came from `peer`: the client's address, which goes into its [`RequestHead`].
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        forwarded::client(peer, headers, &self.settings.trusted_proxies)
    }

    /// Whether a proxy seems to stand before the relay that `trustedProxies` does not name.
    #[must_use]
    pub fn is_forwarded_unheard(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        forwarded::is_unheard(peer, headers, &self.settings.trusted_proxies)
    }

    /// What every answer says of TLS (RFC 6797 section 6.1) when it ends here: a browser that has seen it does not come
    /// in clear for a year, whatever link leads here. A year outlasts the pauses between visits, and a relay that moves
    /// behind a proxy has TLS there and keeps the promise. Hosts under ours are left out: they are not ours to promise
    /// for. So are this machine's own names: the promise is for a host and not a port, and would shut out the plain
    /// ports of all other programs here.
    #[must_use]
    pub fn strict_transport(&self) -> Option<HeaderValue> {
        let promised = self.settings.tls && !self.settings.site.is_loopback();
        promised.then(|| HeaderValue::from_static("max-age=31536000"))
    }

    /// What to do with a request, judged by its head alone. `opened` is its connection's.
    #[must_use]
    pub fn admit(&self, head: &RequestHead, snapshot: &Snapshot, now: Now, opened: &mut Opened) -> Admission {
        self.judge(head, snapshot, now, opened).unwrap_or_else(|reply| {
            let (method, status) = (head.method.as_str(), reply.status.as_u16());
            tracing::debug!(%method, status, "request answered at the gate");
            Admission::Reply(reply)
        })
    }

    /// What to do with an admitted request whose whole body was read. `opened` is its connection's.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a distinct input of a pure function")]
    pub fn accept(
        &self,
        exchange: ExchangeId,
        route: Route,
        head: RequestHead,
        body: Bytes,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
        entropy: &mut dyn Entropy,
    ) -> Step {
        let Target::Mcp { principal, endpoint, accepts, mut headers } = route.0 else {
            return Step::Grants(oauth::grants::Event::Request { exchange, head, body });
        };
        let mut session = || session_of(&head, &principal, snapshot, now, &mut opened.session);
        let step = match head.method {
            Method::GET => session().map(|session| {
                let (user, headers) = (principal.user.clone(), mem::take(&mut headers));
                let last_event = head.header(header::LAST_EVENT_ID).filter(|id| id.len() <= limits::MAX_EVENT_ID);
                let last_event = last_event.map(Into::into);
                let principal = principal.clone();
                let listen = Listen { exchange, principal, endpoint, session, last_event, headers };
                Step::Shard(user, shard::Event::Listen(listen))
            }),
            Method::DELETE => session().map(|session| {
                let (user, expires) = (principal.user.clone(), session.expires);
                Step::Grants(oauth::grants::Event::EndSession { exchange, user, session: session.key.clone(), expires })
            }),
            _ => {
                posted(&head, &body, (&principal, &snapshot.sealer), session, now, entropy).map(|posted| match posted {
                    None => Step::Reply(Reply::empty(StatusCode::ACCEPTED)),
                    Some(Posted { speaker, content, minted }) => {
                        let mut headers = mem::take(&mut headers);
                        headers.extend(minted);
                        let user = principal.user.clone();
                        let principal = principal.clone();
                        let audit = self.audit(&user, snapshot);
                        let post = Post { exchange, principal, endpoint, speaker, accepts, headers, audit, content };
                        Step::Shard(user, shard::Event::Post(post))
                    }
                })
            }
        };
        match step {
            Ok(Step::Reply(mut reply)) | Err(mut reply) => {
                reply.headers.extend(headers);
                Step::Reply(reply)
            }
            Ok(step) => step,
        }
    }

    /// Under which name the user's calls and tunnels are audited; `None`: they are not.
    fn audit(&self, user: &UserId, snapshot: &Snapshot) -> Option<Arc<str>> {
        self.settings.oauth.audit.then(|| snapshot.sealer.pseudonym(user).into())
    }

    /// The answer to a body longer than its limit.
    #[must_use]
    pub fn too_large(&self, route: &Route) -> Reply {
        let text = match route.0 {
            Target::Grants { .. } => format!("the body is larger than {} KiB", limits::MAX_OAUTH_BODY / 1024),
            Target::Mcp { .. } => "the body is larger than this relay takes (limits.maxBody)".into(),
        };
        unread(route, StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, &text)
    }

    /// The answer to a body that did not come in time.
    #[must_use]
    pub fn too_slow(&self, route: &Route) -> Reply {
        unread(
            route,
            StatusCode::REQUEST_TIMEOUT,
            code::TIMED_OUT,
            "the body did not come in time (limits.bodyTimeout)",
        )
    }

    /// The answer to a body whose chunks cannot be read (RFC 9112 section 7.1).
    #[must_use]
    pub fn unreadable(&self, route: &Route) -> Reply {
        unread(route, StatusCode::BAD_REQUEST, code::INVALID_REQUEST, "the body's chunks cannot be read")
    }

    /// The answer to a body for which there is no room beside others.
    #[must_use]
    pub fn no_room(&self, route: &Route) -> Reply {
        let text = "too many large bodies are on their way: send this one again in a moment (limits.bodies)";
        let mut reply = unread(route, StatusCode::SERVICE_UNAVAILABLE, code::OVERLOADED, text);
        reply.headers.insert(RETRY_AFTER, limits::BODIES_RETRY.as_secs().into());
        reply
    }
}

/// What a POST carries for the shard.
pub(super) struct Posted {
    pub(super) speaker: Speaker,
    pub(super) content: Content,
    /// The header of a session that `initialize` has minted.
    pub(super) minted: Option<(HeaderName, HeaderValue)>,
}

/// Heads.
impl Gate {
    fn judge(
        &self,
        head: &RequestHead,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
    ) -> Result<Admission, Reply> {
        check_size(head)?;
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
        let mut headers = HeaderMap::new();
        self.settings.site.cors(service.cors(), head, &mut headers);
        self.serve(service, head, &mut headers, snapshot, now, opened).or_else(|stop| match stop {
            Stop::Reply(mut reply) => {
                reply.headers.extend(headers);
                Err(reply)
            }
            Stop::Refuse(mut refused) => {
                tracing::debug!(reason = %refused.error, "token refused at the gate");
                refused.reply.headers.extend(headers);
                Ok(Admission::Refuse(*refused))
            }
        })
    }

    /// `headers`: what the answer must carry, whoever gives it.
    fn serve(
        &self,
        service: Service<'_>,
        head: &RequestHead,
        headers: &mut HeaderMap,
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
                let headers = mem::take(headers);
                Ok(Admission::Read { route: Route(Target::Grants { headers }), limit: limits::MAX_OAUTH_BODY })
            }
            Service::Tunnel => self.tunnel(head, snapshot, now, opened).map(Admission::Upgrade),
            Service::Mcp(endpoint) => {
                let path = route::endpoint_path(&endpoint);
                let token = bearer(&head.headers).map_err(|_| bad_credentials())?;
                let principal = self.principal(token, head, &path, snapshot, now, opened)?;
                let accepts = check_mcp_fields(head)?;
                let limit = if head.method == Method::POST { self.settings.limits.max_body } else { 0 };
                let headers = mem::take(headers);
                Ok(Admission::Read { route: Route(Target::Mcp { principal, endpoint, accepts, headers }), limit })
            }
            Service::Health | Service::Nothing => Err(service::not_found().into()),
        }
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
        let principal = self.principal(token, head, "", snapshot, now, opened)?;
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

    /// Whose token it is, checked for the request's path; `document` is the path that the resource metadata has it under.
    fn principal(
        &self,
        token: Option<&str>,
        head: &RequestHead,
        document: &str,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
    ) -> Result<Arc<Principal>, Stop> {
        let resource = Resource { public_url: &self.settings.public_url, path: head.uri.path() };
        let role = resource.role().unwrap_or(Role::Client);
        let scopes = Scopes::all(role);
        let challenge = Challenge { public_url: &self.settings.public_url, document };
        let Some(token) = token else { return Err(challenge.missing(&scopes).into()) };
        let error = match open_access(token, snapshot, resource, now, &mut opened.principal) {
            Ok(principal) => return Ok(principal),
            Err(error) => error,
        };
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

/// A head within its limits. The adapter reads more than them, so that whoever is over one is told which.
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

/// The session of a request that needs one (2025-11-25, Transports, Session Management): 400 without, 404 when it
/// ended or is another's.
fn session_of(
    head: &RequestHead,
    principal: &Arc<Principal>,
    snapshot: &Snapshot,
    now: Now,
    memo: &mut Memo<Arc<Session>, Arc<Principal>>,
) -> Result<Arc<Session>, Reply> {
    let id = head.header(header::SESSION_ID);
    if id.is_none() && !head.headers.contains_key(header::SESSION_ID) {
        let text = "the Mcp-Session-Id header is missing: send initialize first";
        return Err(refusal(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, None, text));
    }
    id.and_then(|id| session::open(id, principal, snapshot, now, memo)).ok_or_else(|| {
        refusal(StatusCode::NOT_FOUND, code::INVALID_REQUEST, None, "there is no such session: send initialize")
    })
}

/// Reads a POST's body; `None` when it carries nothing that concerns anybody.
fn posted(
    head: &RequestHead,
    body: &Bytes,
    (principal, sealer): (&Principal, &Sealer),
    session: impl FnOnce() -> Result<Arc<Session>, Reply>,
    now: Now,
    entropy: &mut dyn Entropy,
) -> Result<Option<Posted>, Reply> {
    if rpc::is_batch(body) {
        check_older(head)?;
        return batch(body, session()?);
    }
    let message = rpc::parse(body).map_err(|error| unreadable(&error))?;
    match era::of(&head.headers, &message) {
        Some(Era::Legacy) => {}
        Some(Era::Modern) => return modern::posted(head, message),
        None => return Err(modern::unknown(head, &message)),
    }
    match message {
        Message::Request { id, method, params } if method == method::INITIALIZE => {
            let session = session::begin(&params, now, entropy);
            let sealed = session::seal(sealer, &session, principal, entropy);
            let value = HeaderValue::from_str(&sealed).expect("a sealed value is base64url");
            let minted = (HeaderName::from_static(header::SESSION_ID), value);
            let (client, version) = (&session.client, session.version.as_str());
            tracing::info!(%client, version, "session begins");
            let content = Content::Request(Request { id, method, params });
            Ok(Some(Posted { speaker: Speaker::Legacy(Arc::new(session)), content, minted: Some(minted) }))
        }
        Message::Request { id, method, params } => {
            let session = session().map_err(|reply| with_id(reply, &id))?;
            let content = Content::Request(Request { id, method, params });
            Ok(Some(Posted { speaker: Speaker::Legacy(session), content, minted: None }))
        }
        message => {
            let speaker = Speaker::Legacy(session()?);
            Ok(note(message, body).map(|note| Posted { speaker, content: Content::Note(note), minted: None }))
        }
    }
}

/// What has no answer, if it concerns anybody: that a client is ready changes nothing, and a response without an id
/// belongs to no question.
fn note(message: Message, json: &Bytes) -> Option<Note> {
    match message {
        Message::Notification { method, params } if method == method::CANCELLED => Some(Note::Cancelled { params }),
        Message::Notification { method, .. } if method == method::INITIALIZED => None,
        Message::Notification { method, params } => Some(Note::Notification { method, params, json: json.clone() }),
        Message::Response { id, .. } => id.map(|id| Note::Answer { id, json: json.clone() }),
        Message::Request { .. } => None,
    }
}

/// Splits a batch: 2025-03-26 alone has them (Base Protocol, Batching).
fn batch(body: &Bytes, session: Arc<Session>) -> Result<Option<Posted>, Reply> {
    if !session.version.has_batches() {
        let text = format!(
            "{} has no batches, which are 2025-03-26's alone: send one message at a time",
            session.version.as_str()
        );
        return Err(refusal(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, None, &text));
    }
    let mut items = Vec::new();
    for message in rpc::parse_batch(body).map_err(|error| unreadable(&error))? {
        match rpc::parse(&message) {
            Ok(Message::Request { id, method, .. }) if method == method::INITIALIZE => {
                let text = "initialize must not be part of a batch";
                items.push(Item::Unreadable(envelope::error(Some(&id), code::INVALID_REQUEST, text, None)));
            }
            Ok(Message::Request { id, method, params }) => items.push(Item::Request(Request { id, method, params })),
            Ok(other) => items.extend(note(other, &message).map(Item::Note)),
            Err(error) => items.push(Item::Unreadable(error.response())),
        }
    }
    if items.is_empty() {
        return Ok(None);
    }
    Ok(Some(Posted { speaker: Speaker::Legacy(session), content: Content::Batch(items), minted: None }))
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
fn check_older(head: &RequestHead) -> Result<(), Reply> {
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

/// A JSON-RPC error as a whole reply.
fn refusal(status: StatusCode, code: i64, id: Option<&RawId>, text: &str) -> Reply {
    Reply::json(status, envelope::error(id, code, text, None))
}

/// The refusal of a body that was not read, in the words of who would have read it: RFC 6749 section 5.2, or JSON-RPC.
fn unread(route: &Route, status: StatusCode, code: i64, text: &str) -> Reply {
    let (mut reply, headers) = match &route.0 {
        Target::Grants { headers } => {
            let body = format!("{{\"error\":\"invalid_request\",\"error_description\":{}}}", quoted(text));
            (Reply::json(status, body), headers)
        }
        Target::Mcp { headers, .. } => (refusal(status, code, None, text), headers),
    };
    reply.headers.extend(headers.clone());
    reply
}

/// The same refusal, naming the request that it refuses.
fn with_id(mut reply: Reply, id: &RawId) -> Reply {
    if let Ok(Message::Response { outcome: Err(error), .. }) = rpc::parse(&reply.body) {
        reply.body = envelope::raw_error(Some(id), &error);
    }
    reply
}

fn unreadable(error: &rpc::ParseError) -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, error.response())
}

fn bad_credentials() -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, "the Authorization header cannot be read: it is Bearer and one token\n")
}

fn document(json: Bytes) -> Reply {
    Reply::json(StatusCode::OK, json).with(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"))
}

const TOKEN_IN_QUERY: &str = "tokens in the URL are refused, since URLs are logged: update this agent, or turn \
legacy.tokenInQuery on in the relay's configuration\n";
