//! What the ends of tunnels must keep at all times: their queues within limits, and all credit accounted for.

use tunnel_core::id::ConnId;
use tunnel_core::limits;
use tunnel_core::tunnel::{Load, StreamLoad};

use crate::link::Link;
use crate::world::World;

impl World {
    /// Looks at both ends of all tunnels.
    pub(crate) fn look_at_tunnels(&self) {
        for (conn, link) in &self.links {
            let relay = self.relay.as_ref().and_then(|relay| relay.connections.get(conn)?.load());
            let end = self.agents.get(&link.agent).and_then(|agent| agent.connection.as_ref());
            let agent = end.filter(|end| end.conn == link.at_agent).and_then(|end| end.connection.load());
            relay.iter().chain(&agent).for_each(queues_are_within_limits);
            if let Some(relay) = &relay {
                relay.streams.iter().for_each(|stream| self.returned_is_what_was_consumed(*conn, stream));
                agent.iter().for_each(|agent| credit_is_conserved(link, relay, agent));
            }
        }
    }

    /// What came on a stream and was not consumed waits for its client: returned credit is what was consumed, no more and
    /// no less.
    fn returned_is_what_was_consumed(&self, conn: ConnId, stream: &StreamLoad) {
        let own = |source: &(ConnId, _)| *source == (conn, stream.stream);
        let Some(exchange) = self.exchanges.values().find(|exchange| exchange.source.as_ref().is_some_and(own)) else {
            return;
        };
        let waiting: u32 = exchange.unread.iter().map(|(_, credit)| *credit).sum();
        let held = stream.held - stream.unfinished.min(stream.held);
        assert_eq!(held, waiting, "credit is lost or made: {stream:?} of {conn:?}");
    }
}

/// An agent may send what its relay lets it, without what is under way.
fn credit_is_conserved(link: &Link, relay: &Load, agent: &Load) {
    let is_quiet = link.under_way == [0; 2] && link.silent == [false; 2] && link.framing.is_none();
    for sender in &agent.streams {
        let Some(receiver) = relay.streams.iter().find(|receiver| receiver.stream == sender.stream) else { continue };
        let is_kept = if is_quiet { sender.left == receiver.left } else { sender.left <= receiver.left };
        assert!(is_kept, "credit is not conserved: {sender:?} sends to {receiver:?}");
    }
}

fn queues_are_within_limits(load: &Load) {
    let of_all = load.control <= limits::MAX_CONTROL
        && load.buffered <= limits::MAX_BUFFERED
        && load.assembled <= limits::MAX_ASSEMBLY
        && load.notices <= limits::MAX_NOTICES
        && load.streams.len() <= limits::MAX_STREAMS;
    let of_each =
        |stream: &StreamLoad| stream.messages <= limits::MAX_CALL_QUEUE && stream.droppable <= limits::MAX_UNREAD;
    let is_kept = of_all && load.streams.iter().all(of_each);
    assert!(is_kept, "a queue is longer than its limit: {load:?}");
}
