//! What is over must end soon: the work of whoever was signed out, that of sessions that ended, and the calls of servers
//! that answered or are gone.

use tunnel_core::id::{ConnId, ExchangeId};

use super::oracle::{Call, Kind, SETTLED, TokenId};
use super::plan::Tool;
use super::stage::Stage;

/// What must have ended at a time.
#[derive(Debug)]
pub(super) struct Ending {
    why: &'static str,
    exchanges: Vec<ExchangeId>,
    tunnels: Vec<ConnId>,
    /// While something is wrong with it, there is more time.
    laptop: Option<usize>,
}

/// Within what time work is ended that somebody ended, in microseconds.
const ENDED_WITHIN: u64 = 3_000_000;

impl Stage {
    /// The operator is about to be asked to revoke a grant.
    pub(super) fn sees_revoking(&mut self, token: TokenId) {
        let (exchanges, tunnels) = self.work_of(token);
        if !exchanges.is_empty() {
            self.world.trace.cover("a grant was revoked with work open");
        }
        if !tunnels.is_empty() {
            self.world.trace.cover("a grant was revoked with a tunnel open");
        }
    }

    /// What is open of a grant: requests and streams, and tunnels.
    fn work_of(&self, token: TokenId) -> (Vec<ExchangeId>, Vec<ConnId>) {
        let exchanges = self.open_of(|person| person.token == token, |person| person.token_since);
        let its = self.oracle.tunnels.iter().filter(|(_, of)| **of == token);
        (exchanges, its.map(|(conn, _)| *conn).collect())
    }

    /// A grant was revoked, and that is acknowledged: its requests, streams and tunnels end.
    pub(super) fn end_of_grant(&mut self, token: TokenId) {
        let (exchanges, tunnels) = self.work_of(token);
        self.must_end(ENDED_WITHIN, Ending { why: "its grant was revoked", exchanges, tunnels, laptop: None });
    }

    /// The requests and streams of a client's session that are open.
    pub(super) fn open_in_session(&self, person: usize) -> Vec<ExchangeId> {
        let session = self.people[person].client.session().map(str::to_owned);
        self.open_of(|it| it.client.session().map(str::to_owned) == session, |it| it.session_since)
    }

    /// A client ended its session, and that is acknowledged: what was open in it ends.
    pub(super) fn end_of_session(&mut self, exchanges: Vec<ExchangeId>) {
        self.must_end(ENDED_WITHIN, Ending { why: "its session ended", exchanges, tunnels: Vec::new(), laptop: None });
    }

    /// The server of these calls answered, or is gone: their clients must hear of it.
    pub(super) fn end_of_calls(&mut self, markers: &[String], why: &'static str) {
        for marker in markers {
            let is_its = |(_, call): &(&ExchangeId, &Call)| call.marker == *marker && !call.has_stopped_reading;
            let Some((exchange, call)) = self.oracle.calls.iter().find(is_its) else { continue };
            let (exchanges, laptop) = (vec![*exchange], call.laptop);
            self.must_end(SETTLED, Ending { why, exchanges, tunnels: Vec::new(), laptop });
        }
    }

    fn open_of(
        &self,
        meant: impl Fn(&super::stage::Person) -> bool,
        since: impl Fn(&super::stage::Person) -> u64,
    ) -> Vec<ExchangeId> {
        let is_its = |call: &Call| {
            let person = &self.people[call.person];
            meant(person)
                && call.sent_at >= since(person)
                && !call.has_stopped_reading
                && !matches!(call.kind, Kind::Initialize | Kind::Delete(..))
        };
        self.oracle.calls.iter().filter(|(_, call)| is_its(call)).map(|(exchange, _)| *exchange).collect()
    }

    fn must_end(&mut self, within: u64, ending: Ending) {
        let number = self.number();
        self.endings.insert((self.world.micros() + within, number), ending);
    }

    /// Looks at what must have ended by now.
    pub(super) fn see_endings(&mut self) {
        let now = self.world.micros();
        while let Some((at, _)) = self.endings.first_key_value().map(|(at, _)| *at).filter(|(at, _)| *at < now) {
            let (_, ending) = self.endings.pop_first().expect("it was seen");
            let settles = ending.laptop.map(|laptop| self.laptops[laptop].disturbed_until).filter(|until| *until > at);
            if let Some(until) = settles {
                let number = self.number();
                self.endings.insert((until, number), ending);
                continue;
            }
            let why = ending.why;
            let open = ending.exchanges.iter().filter(|exchange| self.is_open(**exchange));
            let mut open = open.map(|exchange| &self.oracle.calls[exchange]);
            let open = open.find(|call| ending.laptop.is_none() || !self.waits_for_ever(call));
            assert!(open.is_none(), "{why}, and it goes on: {open:?}");
            for conn in &ending.tunnels {
                assert!(!self.oracle.tunnels.contains_key(conn), "{why}, and its tunnel is up: {conn:?}");
            }
        }
    }

    /// Whether a call was asked something that its client answers nowhere: it answers in the session that it has by now.
    fn waits_for_ever(&self, call: &Call) -> bool {
        call.tool == Some(Tool::Ask) && call.changes != self.people[call.person].changes
    }

    /// Whether the client still waits on an exchange, and the relay has not said its last word there.
    fn is_open(&self, exchange: ExchangeId) -> bool {
        let call = self.oracle.calls.get(&exchange).filter(|call| !call.has_stopped_reading);
        call.is_some() && self.world.has(exchange) && self.world.exchange(exchange).finished.is_none()
    }
}
