//! Batches of a client's messages (2025-03-26, Base Protocol, Batching).
//!
//! What a server says while a batch is under way makes its answer an event stream, as it does with a single call's
//! (2025-03-26, Transports, Sending Messages to the Server): the stream ends with all responses in one array. A batch of
//! which nothing was said is answered by the array alone.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::Room;
use super::ask::Caller;
use crate::id::ExchangeId;
use crate::limits;
use crate::relay::Item;
use crate::relay::calls::Sink;
use crate::relay::failure::Failure;
use crate::relay::outlet::Outlet;
use crate::relay::shard::Cx;
use crate::rpc::{self, RawId, envelope};

/// A batch whose responses are collected.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) outlet: Outlet,
    slots: Vec<Option<Bytes>>,
}

impl Room {
    /// Carries out a batch, in its order: a cancellation may be of a request before it. Every request has a response in
    /// the array, a cancelled one too (see [`cancelled`](Self::cancelled)).
    pub(super) fn batch(&mut self, outlet: Outlet, caller: &Caller, items: Vec<Item>, cx: &mut Cx<'_>) {
        let count = items.iter().filter(|item| !matches!(item, Item::Note(_))).count();
        let exchange = outlet.exchange();
        let unasked = if count == 0 {
            Some(outlet)
        } else {
            outlet.hold(cx);
            self.batches.insert(exchange, Batch { outlet, slots: alloc::vec![None; count] });
            None
        };
        let mut indices = 0..count;
        let mut sink = || Sink::Slot { exchange, index: indices.next().unwrap_or(count), held: BytesMut::new() };
        for item in items {
            match item {
                Item::Note(note) => self.note(caller, note, cx),
                Item::Request(request) => self.request(sink(), caller, request, cx),
                Item::Unreadable(response) => self.deliver(sink(), StatusCode::OK, response, cx),
            }
        }
        if let Some(outlet) = unasked {
            outlet.accepted(cx);
        }
    }

    /// Puts a response into its batch, and sends the batch when it was the last.
    pub(super) fn fill(&mut self, exchange: ExchangeId, index: usize, response: Bytes, cx: &mut Cx<'_>) {
        let Some(batch) = self.batches.get_mut(&exchange) else { return };
        let held: usize = batch.slots.iter().flatten().map(Bytes::len).sum();
        let fits = held.saturating_add(response.len()) <= limits::MAX_BATCH_ANSWER;
        let Some(slot) = batch.slots.get_mut(index) else { return };
        *slot = Some(if fits { response } else { too_large(&response) });
        if batch.slots.iter().all(Option::is_some)
            && let Some(batch) = self.batches.remove(&exchange)
        {
            let whole = envelope::batch(batch.slots.iter().flatten().map(AsRef::as_ref));
            batch.outlet.whole(StatusCode::OK, whole, cx);
        }
    }

    /// The reply to a batch that a client awaits on that exchange.
    pub(super) fn batching(&mut self, exchange: ExchangeId) -> Option<&mut Outlet> {
        self.batch_outlets().find(|outlet| outlet.exchange() == exchange)
    }

    /// The replies to batches that clients await, for one that takes its stream up again.
    pub(super) fn batch_outlets(&mut self) -> impl Iterator<Item = &mut Outlet> {
        self.batches.values_mut().map(|batch| &mut batch.outlet)
    }

    /// The client of such a reply went away, and may come back for its stream. Returns whether there was one.
    pub(super) fn left_batch(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) -> bool {
        let found = self.batches.iter().find(|(_, batch)| batch.outlet.exchange() == exchange).map(|(began, _)| *began);
        let Some((began, Batch { outlet, slots })) = found.and_then(|began| self.batches.remove_entry(&began)) else {
            return false;
        };
        match outlet.left(cx) {
            Some(outlet) => {
                self.batches.insert(began, Batch { outlet, slots });
            }
            None => self.drop_batch(began),
        }
        true
    }

    /// Drops the batches whose clients did not come back.
    pub(super) fn forget_batches(&mut self, cx: &Cx<'_>) {
        let is_lost = |batch: &Batch| {
            batch.outlet.is_away() && !batch.outlet.stream().is_some_and(|stream| cx.replay.has(stream))
        };
        let lost: Vec<_> = self.batches.extract_if(.., |_, batch| is_lost(batch)).map(|(began, _)| began).collect();
        lost.into_iter().for_each(|began| self.drop_batch(began));
    }

    /// Nobody awaits the responses of that batch. Its calls go on: up to 2025-11-25 nothing was cancelled.
    fn drop_batch(&mut self, began: ExchangeId) {
        let is_its = |sink: &Sink| matches!(sink, Sink::Slot { exchange, .. } if *exchange == began);
        let sinks = self.calls.values_mut().map(|call| &mut call.sink);
        sinks.filter(|sink| is_its(sink)).for_each(|sink| *sink = Sink::Nobody);
        self.drop_gathers(is_its);
    }
}

/// The response that stands for one that its batch has no room for.
fn too_large(response: &Bytes) -> Bytes {
    let id = rpc::object::get(response, "id").and_then(|raw| RawId::from_raw(&raw));
    let failure = Failure::BatchTooLarge;
    id.map_or_else(|| envelope::error(None, failure.code(), failure.reason(), None), |id| failure.response(&id))
}
