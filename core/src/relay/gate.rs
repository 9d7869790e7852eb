//! The gate: the pure first step of every request. `&self`, shared by all connections, no lock.

mod body;
mod head;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::mem;
use core::net::IpAddr;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};

pub(super) use self::body::Posted;
use self::body::{posted, session_of};
use super::{Accepts, Endpoint, Listen, Opened, Post, Settings, shard};
use crate::entropy::Entropy;
use crate::http::rules::Readers;
use crate::http::{Reply, RequestHead, forwarded};
use crate::id::{DeviceId, DeviceName, ExchangeId, FamilyId, UserId};
use crate::limits;
use crate::mcp::{code, header};
use crate::oauth::refusals::RefusedToken;
use crate::oauth::{self, Principal, Snapshot};
use crate::rpc::{RawId, envelope, quoted};
use crate::time::{Now, UnixTime};
use crate::tunnel::Dialect;

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
        /// Who may read a reply that the machine does not give.
        readers: Readers,
    },
    /// To a user's shard, or, at the end of a session, to the machine of sign-in.
    Mcp {
        principal: Arc<Principal>,
        endpoint: Endpoint,
        accepts: Accepts,
        /// Who may read the reply.
        readers: Readers,
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
        mut head: RequestHead,
        body: Bytes,
        snapshot: &Snapshot,
        now: Now,
        opened: &mut Opened,
        entropy: &mut dyn Entropy,
    ) -> Step {
        let Target::Mcp { principal, endpoint, accepts, mut readers } = route.0 else {
            return Step::Grants(oauth::grants::Event::Request { exchange, head, body });
        };
        let mut session = || session_of(&head, &principal, snapshot, now, &mut opened.session);
        let step = match head.method {
            Method::GET => session().map(|session| {
                let (user, mut headers) = (principal.user.clone(), HeaderMap::new());
                mem::take(&mut readers).put(&mut headers);
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
                        // They take the memory that the request's fields had. When the reply is sent, unless as a stream, the
                        // next request's take it again.
                        let mut fields = mem::take(&mut head.headers);
                        fields.clear();
                        mem::take(&mut readers).put(&mut fields);
                        fields.extend(minted);
                        let user = principal.user.clone();
                        let principal = principal.clone();
                        let audit = self.audit(&user, snapshot);
                        let headers = fields;
                        let post = Post { exchange, principal, endpoint, speaker, accepts, headers, audit, content };
                        Step::Shard(user, shard::Event::Post(post))
                    }
                })
            }
        };
        match step {
            Ok(Step::Reply(mut reply)) | Err(mut reply) => {
                readers.put(&mut reply.headers);
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

/// A JSON-RPC error as a whole reply.
fn refusal(status: StatusCode, code: i64, id: Option<&RawId>, text: &str) -> Reply {
    Reply::json(status, envelope::error(id, code, text, None))
}

/// The refusal of a body that was not read, in the words of who would have read it: RFC 6749 section 5.2, or JSON-RPC.
fn unread(route: &Route, status: StatusCode, code: i64, text: &str) -> Reply {
    let (mut reply, readers) = match &route.0 {
        Target::Grants { readers } => {
            let body = format!("{{\"error\":\"invalid_request\",\"error_description\":{}}}", quoted(text));
            (Reply::json(status, body), readers)
        }
        Target::Mcp { readers, .. } => (refusal(status, code, None, text), readers),
    };
    readers.clone().put(&mut reply.headers);
    reply
}
