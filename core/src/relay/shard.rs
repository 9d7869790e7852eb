//! The shard: the rooms of a slice of the users, driven behind one mutex. It decides only.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use super::Settings;
use super::device::Device;
use super::replay::Replay;
use super::room::Room;
use crate::entropy::{self, Entropy};
use crate::host::{Machine, Mailbox, MonotonicClamp};
use crate::http::{Reply, ReplyHead};
use crate::id::{ConnId, DeviceId, DeviceName, ExchangeId, FamilyId, StreamId, UserId};
use crate::limits;
use crate::time::{Deadline, Instant, Now, UnixTime};
use crate::timers::Timers;
use crate::tunnel::{self, Close, CloseCode, Dialect};

/// What happened, as far as a shard is concerned.
#[derive(Debug)]
pub enum Event {
    /// A client's message on `/mcp`, read and checked by the gate.
    Post(super::Post),
    /// A client opened the stream of notifications (GET).
    Listen(super::Listen),
    /// The client of an exchange went away before its reply was complete.
    Gone {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// An agent's tunnel is up.
    TunnelUp {
        /// Its connection.
        conn: ConnId,
        /// Whose.
        user: UserId,
        /// The device's name.
        device: DeviceName,
        /// What tells it from another of that name.
        device_id: Option<DeviceId>,
        /// The grant it belongs to.
        family: FamilyId,
        /// When it must end.
        expires: UnixTime,
        /// What is spoken.
        dialect: Dialect,
        /// The user's pseudonym, if an audit is kept.
        audit: Option<Arc<str>>,
    },
    /// A tunnel said something. `Closed` is brought here too, and is the last one of its connection.
    Tunnel {
        /// The connection.
        conn: ConnId,
        /// What it said.
        event: tunnel::Event,
    },
    /// A family of tokens was revoked: its tunnels and streams end.
    Revoked {
        /// The family.
        family: FamilyId,
    },
    /// Every family of tokens was revoked: all tunnels and streams end.
    RevokedAll,
    /// A client ended its session (DELETE): its streams end.
    SessionEnded {
        /// Whose.
        user: UserId,
        /// The session's key.
        session: super::SessionKey,
    },
    /// The relay stops: say so to agents and streams.
    Stop,
}

/// What a shard orders.
#[derive(Debug)]
pub enum Action {
    /// Answer an exchange, whole.
    Reply {
        /// The exchange.
        exchange: ExchangeId,
        /// The answer.
        reply: Reply,
    },
    /// Start an answer whose body follows. `source` is where the credit of its `Body` pieces goes back to.
    Begin {
        /// The exchange.
        exchange: ExchangeId,
        /// Its head.
        head: ReplyHead,
        /// The tunnel's stream that feeds it.
        source: Option<(ConnId, StreamId)>,
    },
    /// A piece of a started answer.
    Body {
        /// The exchange.
        exchange: ExchangeId,
        /// The piece.
        bytes: Bytes,
        /// How many bytes are returned as `Consumed` to the exchange's source once the piece has left the adapter:
        /// taken by the client, or thrown away because the client went away.
        credit: u32,
    },
    /// A started answer is complete.
    Finish {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// A started answer cannot be completed: end its transport so that the client sees it is cut short.
    Abort {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// Give a command to a tunnel.
    Tunnel {
        /// The connection.
        conn: ConnId,
        /// The command.
        command: tunnel::Command,
    },
    /// Bring [`crate::oauth::grants::Event::Used`] to the authorization server.
    Used {
        /// The grant whose token a request came with.
        family: FamilyId,
    },
    /// Append this line, its end included, to the audit.
    Audit(Bytes),
}

/// The rooms of a slice of the users.
pub struct Shard {
    settings: Arc<Settings>,
    rooms: BTreeMap<UserId, Room>,
    /// In whose room a tunnel is.
    tunnels: BTreeMap<ConnId, UserId>,
    /// In whose room an exchange awaits its reply.
    exchanges: BTreeMap<ExchangeId, UserId>,
    timers: Timers<Timer>,
    out: Mailbox<Action>,
    clamp: MonotonicClamp,
    used: Used,
    stopping: bool,
    numbers: Numbers,
}

/// Numbers that no run of this relay gives twice: an answer to what another run asked must not pass for one of now.
#[derive(Debug)]
pub(super) struct Numbers {
    run: String,
    last: u64,
}

impl Numbers {
    fn new(entropy: &mut dyn Entropy) -> Self {
        Self { run: URL_SAFE_NO_PAD.encode(entropy::bytes::<6>(entropy)), last: 0 }
    }

    /// A new one.
    pub(super) fn draw(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// How a client sees a number.
    pub(super) fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// The number of that name; `None` when it is another run's, or none.
    pub(super) fn read(&self, name: &str) -> Option<u64> {
        name.strip_prefix(self.run.as_str())?.strip_prefix('-')?.parse().ok()
    }
}

/// The grants whose use was told within the hour: it is kept that coarsely, and nobody waits for it.
#[derive(Debug, Default)]
struct Used {
    until: Instant,
    told: BTreeSet<FamilyId>,
}

impl Used {
    /// Whether this use is to be told.
    fn is_news(&mut self, family: &FamilyId, now: Instant) -> bool {
        if now >= self.until || self.told.len() >= limits::MAX_FAMILIES {
            *self = Self { until: now + USED_PAUSE, told: BTreeSet::new() };
        }
        !self.told.contains(family) && self.told.insert(family.clone())
    }
}

/// What a shard waits for. At most one timer per key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Nothing was sent on a reply: it becomes an event stream.
    Silence(ExchangeId),
    /// An event stream is quiet: it gets a comment.
    Heartbeat(ExchangeId),
    /// Nothing was heard of a call: it is given up.
    Idle(ConnId, StreamId),
    /// A tunnel's or a listener's grant may have run out.
    Expiry(Lease),
    /// Changes in a room are collected: then its listeners are told.
    Announce(UserId),
    /// What was kept for clients that went away may be forgotten.
    Forget(UserId),
    /// A subscription is acknowledged at the latest, or asks a server again.
    Feed(ExchangeId),
    /// Some of several servers have not answered: the client is.
    Gather(UserId, u64),
}

/// What lasts as long as its grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lease {
    /// A device's tunnel.
    Tunnel(ConnId),
    /// A client's stream of notifications.
    Exchange(ExchangeId),
}

/// What a room works with besides itself.
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    /// Whose room it is.
    pub(super) user: &'a UserId,
    pub(super) settings: &'a Settings,
    pub(super) out: &'a mut Mailbox<Action>,
    pub(super) timers: &'a mut Timers<Timer>,
    pub(super) exchanges: &'a mut BTreeMap<ExchangeId, UserId>,
    pub(super) numbers: &'a mut Numbers,
    /// What was said on the room's event streams; the room's own but while it decides.
    pub(super) replay: Replay,
}

impl Shard {
    /// A shard without rooms.
    #[must_use]
    pub fn new(settings: Arc<Settings>, mut entropy: Box<dyn Entropy>) -> Self {
        Self {
            settings,
            rooms: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            timers: Timers::default(),
            out: Mailbox::default(),
            clamp: MonotonicClamp::default(),
            used: Used::default(),
            stopping: false,
            numbers: Numbers::new(&mut *entropy),
        }
    }

    /// What is on the books for clients, by what it is, and how much of it: calls, replies, streams, and the timers of
    /// those. Nothing, once nobody asks, listens, or may come back for a stream. For whoever wants to see that nothing
    /// stays behind; it looks at all there is.
    #[must_use]
    pub fn leftovers(&self) -> BTreeMap<&'static str, usize> {
        let of_client = |timer: &&Timer| match timer {
            Timer::Expiry(Lease::Tunnel(conn)) => !self.tunnels.contains_key(conn),
            Timer::Announce(_) => false,
            _ => true,
        };
        let timers = self.timers.keys().filter(of_client).count();
        let own = [("exchanges", self.exchanges.len()), ("timers", timers)];
        let mut left = BTreeMap::new();
        for (what, count) in self.rooms.values().flat_map(Room::leftovers).chain(own).filter(|(_, count)| *count > 0) {
            *left.entry(what).or_default() += count;
        }
        left
    }

    /// Runs `step` in `user`'s room, which is made if need be and goes when nothing is in it.
    fn in_room(&mut self, user: &UserId, now: Now, step: impl FnOnce(&mut Room, &mut Cx<'_>)) {
        let room = self.rooms.entry(user.clone()).or_insert_with(|| Room::new(now));
        let mut cx = Cx {
            now,
            user,
            settings: &self.settings,
            out: &mut self.out,
            timers: &mut self.timers,
            exchanges: &mut self.exchanges,
            numbers: &mut self.numbers,
            replay: core::mem::take(&mut room.replay),
        };
        step(room, &mut cx);
        room.replay = cx.replay;
        if room.is_empty() {
            self.rooms.remove(user);
            self.timers.clear(&Timer::Announce(user.clone()));
            self.timers.clear(&Timer::Forget(user.clone()));
        }
    }

    /// Runs `step` in the room where `exchange` awaits its reply; nothing happens when it does not.
    fn at_exchange(&mut self, exchange: ExchangeId, now: Now, step: impl FnOnce(&mut Room, &mut Cx<'_>)) {
        if let Some(user) = self.exchanges.get(&exchange).cloned() {
            self.in_room(&user, now, step);
        }
    }

    /// Runs `step` in the room where the tunnel `conn` is; nothing happens when it is in none.
    fn at_tunnel(&mut self, conn: ConnId, now: Now, step: impl FnOnce(&mut Room, &mut Cx<'_>)) {
        if let Some(user) = self.tunnels.get(&conn).cloned() {
            self.in_room(&user, now, step);
        }
    }

    fn in_every_room(&mut self, now: Now, mut step: impl FnMut(&mut Room, &mut Cx<'_>)) {
        for user in self.rooms.keys().cloned().collect::<Vec<_>>() {
            self.in_room(&user, now, &mut step);
        }
    }

    /// A request came with a good token of `family`.
    fn used(&mut self, family: &FamilyId, now: Now) {
        if self.used.is_news(family, now.instant) {
            self.out.push(Action::Used { family: family.clone() });
        }
    }

    fn refuse(&mut self, exchange: ExchangeId) {
        let text = "the relay is restarting: try again shortly";
        let reply = Reply::text(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, HeaderValue::from_static("1"));
        self.out.push(Action::Reply { exchange, reply });
    }

    fn fire(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Silence(exchange) => self.at_exchange(exchange, now, |room, cx| room.silence(exchange, cx)),
            Timer::Heartbeat(exchange) => self.at_exchange(exchange, now, |room, cx| room.heartbeat(exchange, cx)),
            Timer::Idle(conn, stream) => self.at_tunnel(conn, now, |room, cx| room.idle((conn, stream), cx)),
            Timer::Expiry(lease) => match lease {
                Lease::Tunnel(conn) => self.at_tunnel(conn, now, |room, cx| room.expired(&lease, cx)),
                Lease::Exchange(exchange) => self.at_exchange(exchange, now, |room, cx| room.expired(&lease, cx)),
            },
            Timer::Announce(user) => self.in_room(&user, now, Room::announce),
            Timer::Forget(user) => self.in_room(&user, now, Room::forget),
            Timer::Feed(exchange) => self.at_exchange(exchange, now, |room, cx| room.feed(exchange, cx)),
            Timer::Gather(user, number) => self.in_room(&user, now, |room, cx| room.gathered(number, cx)),
        }
    }
}

impl Machine for Shard {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let now = self.clamp.clamp(now);
        match event {
            Event::Post(post) if self.stopping => self.refuse(post.exchange),
            Event::Listen(listen) if self.stopping => self.refuse(listen.exchange),
            Event::Post(post) => {
                let user = post.principal.user.clone();
                self.used(&post.principal.family, now);
                self.in_room(&user, now, |room, cx| room.post(post, cx));
            }
            Event::Listen(listen) => {
                let user = listen.principal.user.clone();
                self.used(&listen.principal.family, now);
                self.in_room(&user, now, |room, cx| room.listen(listen, cx));
            }
            Event::Gone { exchange } => self.at_exchange(exchange, now, |room, cx| room.gone(exchange, cx)),
            Event::TunnelUp { conn, .. } if self.stopping => {
                let close = Close::new(CloseCode::GoingAway, "the relay is stopping");
                self.out.push(Action::Tunnel { conn, command: tunnel::Command::Close(close) });
            }
            // Connections are never numbered twice; a second one of a number would take the first one's calls.
            Event::TunnelUp { conn, .. } if self.tunnels.contains_key(&conn) => {
                tracing::error!(%conn, "a connection came up twice");
            }
            Event::TunnelUp { conn, user, device: name, device_id: id, family, expires, dialect, audit } => {
                // One name for all of a user's tunnels, not one that came with each.
                let user = self.rooms.get_key_value(&user).map_or(user, |(known, _)| known.clone());
                self.tunnels.insert(conn, user.clone());
                let since = now.instant;
                let device = Device { audit, ..Device::new(conn, name, id, (family, expires), dialect, since) };
                self.in_room(&user, now, |room, cx| room.tunnel_up(Box::new(device), cx));
            }
            Event::Tunnel { conn, event } => {
                let is_last = matches!(event, tunnel::Event::Closed(_));
                self.at_tunnel(conn, now, |room, cx| room.tunnel(conn, event, cx));
                if is_last {
                    self.tunnels.remove(&conn);
                }
            }
            Event::Revoked { family } => self.in_every_room(now, |room, cx| room.revoked(|one| *one == family, cx)),
            Event::RevokedAll => self.in_every_room(now, |room, cx| room.revoked(|_| true, cx)),
            Event::SessionEnded { user, session } => {
                self.in_room(&user, now, |room, cx| room.session_ended(&session, cx));
            }
            Event::Stop => {
                self.stopping = true;
                self.in_every_room(now, Room::stop);
            }
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.clamp.clamp(now);
        while let Some(timer) = self.timers.pop_due(now.instant) {
            self.fire(timer, now);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (at, timer) = self.timers.next()?;
        let reason = match timer {
            Timer::Silence(_) => "a reply becomes a stream",
            Timer::Heartbeat(_) => "a stream gets a heartbeat",
            Timer::Idle(..) => "a call is given up",
            Timer::Expiry(_) => "a grant runs out",
            Timer::Announce(_) => "listeners are told of changes",
            Timer::Forget(_) => "streams of clients that went away are forgotten",
            Timer::Feed(_) => "a subscription asks a server again",
            Timer::Gather(..) => "servers have had their time to answer",
        };
        Some(Deadline { at, reason })
    }
}

impl Cx<'_> {
    /// Wakes the room when `expires` is due. Expiry is wall time, which may jump; so the wait is never long.
    pub(super) fn lease(&mut self, lease: Lease, expires: UnixTime) {
        let wait = expires.saturating_since(self.now.unix).clamp(MIN_LEASE_CHECK, MAX_LEASE_CHECK);
        self.timers.set(Timer::Expiry(lease), self.now.instant + wait);
    }
}

/// Between looks at the wall clock, for a grant that runs out later than that.
const MAX_LEASE_CHECK: Duration = Duration::from_secs(600);
/// Between two times that the use of one grant is told.
const USED_PAUSE: Duration = Duration::from_secs(60 * 60);
/// A wall clock that stands still must not make a busy loop.
const MIN_LEASE_CHECK: Duration = Duration::from_millis(1);

#[cfg(test)]
impl Shard {
    /// The calls on the books.
    pub(super) fn calls(&self) -> impl Iterator<Item = &super::calls::Call> {
        self.rooms.values().flat_map(Room::calls)
    }
}
