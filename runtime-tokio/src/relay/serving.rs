//! Requests and tunnels of a running relay.

use std::future::{Future, ready};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::{CONNECTION, EXPECT, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, STRICT_TRANSPORT_SECURITY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tungstenite::handshake::derive_accept_key;
use tunnel_core::http::{Reply, RequestHead};
use tunnel_core::id::{ConnId, ExchangeId, UserId};
use tunnel_core::limits::{HEADER_TIMEOUT, MAX_MESSAGE, MAX_STREAMS};
use tunnel_core::oauth::grants::{self, AdminCommand};
use tunnel_core::relay::gate::{Admission, Gate, Route, Step, Upgrade};
use tunnel_core::relay::{shard, shard_of};
use tunnel_core::tunnel::connection::{Connection, Settings as TunnelSettings};
use tunnel_core::tunnel::{self, Close, CloseCode, Command, Hello, Side};

use super::rooms::{self, Rooms};
use super::signin::{self, Office, Published};
use crate::body::{BodyError, Room, discard, read_body};
use crate::clock::Clock;
use crate::driver::Host;
use crate::entropy::OsEntropy;
use crate::exchange::Exchange;
use crate::http::{ReplyBody, whole};
use crate::net::Connector;
use crate::places::{Place, Seat};
use crate::queue::Queue;
use crate::refused::Spoken;
use crate::rt::{self, timeout};
use crate::{fetch, ws};

/// What all requests and tunnels of a relay share.
pub(super) struct Serving {
    pub(super) gate: Gate,
    pub(super) published: Arc<Published>,
    pub(super) shards: Vec<Host<Rooms>>,
    pub(super) office: Host<Office>,
    pub(super) connector: Connector,
    pub(super) clock: Clock,
    pub(super) body_timeout: Duration,
    /// What large bodies have room in.
    pub(super) room: Room,
    pub(super) verifying: Semaphore,
    pub(super) next_id: AtomicU64,
    /// That a proxy seems to be unknown.
    pub(super) proxy_warning: Once,
    /// Every tunnel holds all this, so that its end can be waited for.
    pub(super) _tunnels: mpsc::Sender<()>,
}

impl Serving {
    /// Answers a request. What can be decided at once is, so that what waits for the rest is small: it is moved several
    /// times, and every connection has room for it.
    pub(super) fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        place: Arc<Place>,
    ) -> impl Future<Output = Response<ReplyBody>> + Send {
        let serving = Arc::clone(&self);
        let response = match self.begin(request, place) {
            Begun::Answered(response) => Either::Left(Either::Left(ready(response))),
            Begun::Office(exchange, event) => Either::Left(Either::Right(self.ask_office(exchange, event))),
            Begun::Reading(reading, body) => Either::Right(reading.answer(body, self)),
        };
        response.map(move |mut response| {
            response
                .headers_mut()
                .extend(serving.gate.strict_transport().map(|value| (STRICT_TRANSPORT_SECURITY, value)));
            response
        })
    }

    /// Once: whoever likes can send the field.
    fn warn_of_proxy(&self, peer: IpAddr) {
        self.proxy_warning.call_once(|| {
            tracing::warn!(
                %peer,
                "X-Forwarded-For came from an address that is not in trustedProxies, and counts for nothing: if that is \
                 your proxy, name it there, or all clients share one address's rate limits"
            );
        });
    }

    /// As far as a request's head goes.
    fn begin(self: &Arc<Self>, request: Request<Incoming>, place: Arc<Place>) -> Begun {
        let (mut parts, body) = request.into_parts();
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        if self.gate.is_forwarded_unheard(place.peer(), &parts.headers) {
            self.warn_of_proxy(place.peer());
        }
        let peer = self.gate.client(place.peer(), &parts.headers);
        let head = RequestHead { method: parts.method, uri: parts.uri, headers: parts.headers, peer };
        let admission = self.gate.admit(&head, &self.published.get(), self.clock.now(), &mut place.opened());
        match admission {
            Admission::Reply(reply) => {
                self.pass_over(&head, body, &place);
                Begun::Answered(whole(reply))
            }
            Admission::Refuse(refused) => {
                self.pass_over(&head, body, &place);
                let exchange = ExchangeId(self.number());
                Begun::Office(exchange, grants::Event::TokenRefused { exchange, refused })
            }
            // Not invited, nor waited for: a client that asks whether to send it (`Expect`) is told in place of 100.
            Admission::Read { route, limit } if body.size_hint().lower() > limit as u64 => {
                self.pass_over(&head, body, &place);
                Begun::Answered(whole(self.gate.too_large(&route)))
            }
            Admission::Read { route, limit } => Begun::Reading(Reading { place, head, route, limit }, body),
            Admission::Upgrade(upgrade) => {
                Begun::Answered(Arc::clone(self).upgrade(upgrade, &head, on_upgrade, &place))
            }
        }
    }

    /// Reads a body on that nobody wants, while its answer goes out: who sends the whole of a request before looking at
    /// the answer gets it, and who sends slowly does not put it off.
    fn pass_over(&self, head: &RequestHead, body: Incoming, place: &Place) {
        // A client that waits for the go-ahead has not sent the body, and now will not.
        if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
            place.wait();
            rt::spawn(discard(body, self.body_timeout));
        }
    }

    fn ask_shard(
        self: &Arc<Self>,
        exchange: ExchangeId,
        user: &UserId,
        event: shard::Event,
    ) -> impl Future<Output = Response<ReplyBody>> + use<> {
        let index = shard_of(user, self.shards.len());
        let serving = Arc::clone(self);
        let (client, handle) =
            Exchange::new(move || serving.drive_shard(index, |rooms, now| rooms.gone(exchange, now)));
        self.drive_shard(index, |rooms, now| rooms.ask(exchange, handle, event, now));
        client.response()
    }

    fn ask_office(
        self: &Arc<Self>,
        exchange: ExchangeId,
        event: grants::Event,
    ) -> impl Future<Output = Response<ReplyBody>> + use<> {
        let serving = Arc::clone(self);
        let (client, handle) = Exchange::new(move || serving.drive_office(|office, _| office.gone(exchange)));
        self.drive_office(|office, now| office.ask(exchange, handle, event, now));
        client.response()
    }

    /// An operator's question; `None` when the relay failed over it.
    pub(super) async fn question(self: &Arc<Self>, command: AdminCommand) -> Option<Bytes> {
        let (answer, answered) = oneshot::channel();
        self.drive_office(|office, now| office.question(command, answer, now));
        answered.await.ok()
    }

    /// Tells every agent and stream that the relay stops.
    pub(super) fn stop(self: &Arc<Self>) {
        self.tell_all(|| shard::Event::Stop);
    }

    /// Wakes the machines when they want to be woken.
    pub(super) fn keep_time(self: &Arc<Self>) -> Vec<rt::JoinHandle<()>> {
        let shards = (0..self.shards.len()).map(|index| {
            let serving = Arc::clone(self);
            rt::spawn(async move {
                if let Some(shard) = serving.shards.get(index) {
                    shard.keep_time(|later| serving.after_shard(index, later)).await;
                }
            })
        });
        let serving = Arc::clone(self);
        let office = rt::spawn(async move { serving.office.keep_time(|later| serving.after_office(later)).await });
        shards.chain([office]).collect()
    }

    pub(super) fn drive_office(self: &Arc<Self>, input: impl FnOnce(&mut Office, tunnel_core::time::Now)) {
        self.after_office(self.office.drive(input));
    }

    fn drive_shard(self: &Arc<Self>, index: usize, input: impl FnOnce(&mut Rooms, tunnel_core::time::Now)) {
        if let Some(shard) = self.shards.get(index) {
            self.after_shard(index, shard.drive(input));
        }
    }

    fn tell_all(self: &Arc<Self>, event: impl Fn() -> shard::Event) {
        for index in 0..self.shards.len() {
            self.drive_shard(index, |rooms, now| rooms.tell(event(), now));
        }
    }

    fn after_shard(self: &Arc<Self>, index: usize, later: Vec<rooms::Later>) {
        for wake in later {
            match wake {
                rooms::Later::Tunnel(commands) => commands.wake(),
                rooms::Later::Exchange(handle) => handle.wake(),
                rooms::Later::CutOff(exchange, handle) => {
                    tracing::warn!(%exchange, "cut a client off that does not read");
                    handle.wake();
                    self.drive_shard(index, |rooms, now| rooms.gone(exchange, now));
                }
                rooms::Later::Used(family) => self.bring(grants::Event::Used { family }),
            }
        }
    }

    fn after_office(self: &Arc<Self>, later: Vec<signin::Later>) {
        for job in later {
            let serving = Arc::clone(self);
            match job {
                signin::Later::Wake(handle) => handle.wake(),
                signin::Later::Answer(answer, json) => drop(answer.send(json)),
                signin::Later::Revoked(family) => {
                    self.tell_all(|| shard::Event::Revoked { family: family.clone() });
                }
                signin::Later::RevokedAll => self.tell_all(|| shard::Event::RevokedAll),
                signin::Later::SessionEnded(user, session) => {
                    let index = shard_of(&user, self.shards.len());
                    self.drive_shard(index, |rooms, now| rooms.tell(shard::Event::SessionEnded { user, session }, now));
                }
                signin::Later::Fetch(fetch, request) => drop(rt::spawn(async move {
                    let result = fetch::fetch(&serving.connector, request).await;
                    serving.bring(grants::Event::Fetched { fetch, result });
                })),
                signin::Later::Verify(job, password, hash) => drop(rt::spawn(async move {
                    let ok = signin::verify(&serving.verifying, password, hash).await;
                    serving.bring(grants::Event::Verified { job, ok });
                })),
                signin::Later::Keep(job, keys, dir) => drop(rt::spawn(async move {
                    let result = signin::keep(keys, dir).await;
                    serving.bring(grants::Event::Persisted { job, result });
                })),
                signin::Later::Await(job, committed) => drop(rt::spawn(async move {
                    let result = committed.wait().await;
                    serving.bring(grants::Event::Persisted { job, result });
                })),
            }
        }
    }

    fn bring(self: &Arc<Self>, event: grants::Event) {
        use crate::driver::Hosted as _;
        use tunnel_core::host::Machine as _;
        self.drive_office(|office, now| office.machine().handle_event(event, now));
    }

    /// Answers 101, and runs the tunnel once the connection is handed over, with its seat.
    fn upgrade(
        self: Arc<Self>,
        mut upgrade: Upgrade,
        head: &RequestHead,
        on: Option<OnUpgrade>,
        place: &Place,
    ) -> Response<ReplyBody> {
        let accept = head.headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
        let accept = accept.and_then(|accept| HeaderValue::from_str(&accept).ok());
        let (Some(accept), Some(on)) = (accept, on) else {
            return whole(Reply::text(StatusCode::BAD_REQUEST, "not a WebSocket handshake\n"));
        };
        let mut response = Response::new(ReplyBody::Whole(None));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = std::mem::take(&mut upgrade.headers);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        rt::spawn(self.begin_tunnel(Box::new(upgrade), on, place.seat()));
        response
    }

    /// Waits for the connection, and runs the tunnel in a task of its own: one that holds no more than a tunnel needs that
    /// waits for hours.
    async fn begin_tunnel(self: Arc<Self>, upgrade: Box<Upgrade>, on: OnUpgrade, seat: Arc<Seat>) {
        let Ok(Ok(upgraded)) = timeout(HEADER_TIMEOUT, on).await else {
            return tracing::debug!("a tunnel's connection was not handed over");
        };
        let Ok(parts) = upgraded.downcast::<Spoken>() else {
            return tracing::error!("a tunnel's connection is of another kind");
        };
        let stream = rt::ws_io(parts.io.into_inner());
        let socket = ws::accepted(stream, parts.read_buf, upgrade.dialect).await;
        let commands = Queue::new();
        let (conn, index, connection) = self.open_tunnel(*upgrade, &commands);
        let clock = self.clock;
        let mut hearing = Hearing { serving: self, index, conn, told: false, _seat: seat };
        let bring = move |events: std::vec::Drain<'_, _>| hearing.bring(events);
        rt::spawn(ws::pump(socket, connection, commands, clock, |_| Poll::Ready(()), bring));
    }

    /// Tells the shard and the authorization server of a tunnel.
    fn open_tunnel(self: &Arc<Self>, upgrade: Upgrade, commands: &Queue<Command>) -> (ConnId, usize, Connection) {
        let conn = ConnId(self.number());
        let index = shard_of(&upgrade.user, self.shards.len());
        let settings = TunnelSettings { side: Side::Relay, dialect: upgrade.dialect, hello: hello(upgrade.pseudonym) };
        let connection = Connection::new(settings, self.clock.now());
        let (family, device) = (upgrade.family.clone(), upgrade.device.clone());
        let seen = grants::Event::TunnelUp { conn, family, device };
        let up = shard::Event::TunnelUp {
            conn,
            user: upgrade.user,
            device: upgrade.device,
            device_id: upgrade.device_id,
            family: upgrade.family,
            expires: upgrade.expires,
            dialect: upgrade.dialect,
            audit: upgrade.audit,
        };
        self.drive_shard(index, |rooms, now| rooms.open(conn, commands.clone(), up, now));
        // After the shard: should the grant have ended meanwhile, the shard can end the tunnel.
        self.bring(seen);
        (conn, index, connection)
    }

    fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// How far a request's head brings it.
enum Begun {
    Answered(Response<ReplyBody>),
    /// To ask the authorization server.
    Office(ExchangeId, grants::Event),
    Reading(Reading, Incoming),
}

/// A request whose body is awaited.
struct Reading {
    place: Arc<Place>,
    head: RequestHead,
    route: Route,
    limit: usize,
}

impl Reading {
    #[expect(clippy::manual_async_fn, reason = "an async function would hold all this twice")]
    fn answer(self, body: Incoming, serving: Arc<Serving>) -> impl Future<Output = Response<ReplyBody>> + Send {
        async move {
            let gate = &serving.gate;
            let share = self.route.user().map(|user| serving.room.share(user));
            let read = {
                let body = pin!(read_body(body, self.limit, serving.body_timeout, share));
                self.place.wait_for(body).await
            };
            match read {
                Some(Ok(body)) => self.proceed(body, &serving).await,
                Some(Err(BodyError::TooLarge)) => whole(gate.too_large(&self.route)),
                // Who was asked to leave has nothing done any more: it would not hear of it.
                Some(Err(BodyError::TooSlow)) | None => whole(gate.too_slow(&self.route)),
                Some(Err(BodyError::Broken)) => whole(gate.unreadable(&self.route)),
                Some(Err(BodyError::NoRoom)) => whole(gate.no_room(&self.route)),
            }
        }
    }

    /// With the whole of the request.
    fn proceed(self, body: Bytes, serving: &Arc<Serving>) -> impl Future<Output = Response<ReplyBody>> + use<> {
        let exchange = ExchangeId(serving.number());
        // Read again: a token may have been revoked while the body came in.
        let snapshot = serving.published.get();
        let (now, entropy) = (serving.clock.now(), &mut OsEntropy::new());
        let Self { place, head, route, .. } = self;
        let step = serving.gate.accept(exchange, route, head, body, &snapshot, now, &mut place.opened(), entropy);
        match step {
            Step::Reply(reply) => Either::Left(ready(whole(reply))),
            Step::Grants(event) => Either::Right(Either::Left(serving.ask_office(exchange, event))),
            Step::Shard(user, event) => Either::Right(Either::Right(serving.ask_shard(exchange, &user, event))),
        }
    }
}

/// Brings a tunnel's events to its shard, and tells of its end, however its task ends: the shard, unless it has heard, and
/// the authorization server.
struct Hearing {
    serving: Arc<Serving>,
    index: usize,
    conn: ConnId,
    told: bool,
    _seat: Arc<Seat>,
}

impl Hearing {
    fn bring(&mut self, events: std::vec::Drain<'_, tunnel::Event>) {
        let Self { serving, index, conn, told, .. } = self;
        serving.drive_shard(*index, |rooms, now| {
            for event in events {
                *told |= matches!(event, tunnel::Event::Closed(_));
                rooms.heard(*conn, event, now);
            }
        });
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        if !self.told {
            let event = tunnel::Event::Closed(Close::new(CloseCode::Internal, "the tunnel's task failed"));
            self.serving.drive_shard(self.index, |rooms, now| rooms.heard(self.conn, event, now));
        }
        self.serving.bring(grants::Event::TunnelDown { conn: self.conn });
    }
}

/// What this relay tells of itself, to a device of `user`.
fn hello(user: String) -> Hello {
    Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        os: std::env::consts::OS.into(),
        user,
        max_message: MAX_MESSAGE as u64,
        max_streams: u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX),
        features: vec![tunnel::ASKS_BESIDE.into(), tunnel::HANDS_ON.into()],
        ..Hello::default()
    }
}

/// How long tunnels have for their last words once everything else has ended.
pub(super) const TUNNEL_GRACE: Duration = Duration::from_secs(2);
