//! One HTTP exchange: from the machine that decides its reply to the client that takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use tunnel_core::http::{Reply, ReplyHead};
use tunnel_core::id::StreamId;
use tunnel_core::limits::{MAX_UNTAKEN, MAX_UNTAKEN_PIECES};
use tunnel_core::tunnel::Command;

use crate::http::{Aborted, ReplyBody, whole};
use crate::queue::{Line, Queue};

/// What a machine orders for an exchange.
#[derive(Debug)]
pub(crate) enum Part {
    /// The whole reply.
    Reply(Reply),
    /// The head of a reply whose body follows.
    Begin(ReplyHead, Option<Source>),
    /// A piece, and how much credit goes back once it is taken.
    Body(Bytes, u32),
    /// The reply is complete.
    Finish,
    /// The reply cannot be completed.
    Abort,
}

/// The tunnel's stream that feeds a reply: its credit goes back there.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) commands: Queue<Command>,
    pub(crate) stream: StreamId,
}

impl Source {
    fn consumed(&self, bytes: u32) {
        if bytes > 0 {
            self.commands.send(Command::Consumed { stream: self.stream, bytes });
        }
    }
}

/// The machine's end of an exchange.
#[derive(Clone)]
pub(crate) struct ExchangeHandle(Arc<Shared>);

/// What both ends have: one piece of memory, for there is one of each call.
struct Shared<Gone: ?Sized = dyn Fn() + Send + Sync> {
    parts: Line<Part>,
    unread: Unread,
    gone: Gone,
}

/// What waits for a client without being bound by a stream's credit.
#[derive(Debug, Default)]
struct Unread {
    bytes: AtomicUsize,
    pieces: AtomicUsize,
}

impl ExchangeHandle {
    /// Gives a part without waking; `false`: the client does not read, and the reply is cut short for that.
    pub(crate) fn push(&self, part: Part) -> bool {
        if let Part::Body(bytes, 0) = &part {
            let waiting = self.0.unread.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
            let pieces = self.0.unread.pieces.fetch_add(1, Ordering::Relaxed);
            if waiting > MAX_UNTAKEN || pieces > MAX_UNTAKEN_PIECES {
                self.0.parts.push(Part::Abort);
                return false;
            }
        }
        // A client that is gone takes nothing; its machine has heard of it.
        self.0.parts.push(part);
        true
    }

    /// Wakes the client's end.
    pub(crate) fn wake(&self) {
        self.0.parts.wake();
    }
}

/// The client's end of an exchange. Dropped before the reply is complete, it says so.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    source: Option<Source>,
    complete: bool,
}

impl Exchange {
    /// An exchange and its machine's end; `gone` is called when the client goes away before its reply is complete.
    pub(crate) fn new(gone: impl Fn() + Send + Sync + 'static) -> (Self, ExchangeHandle) {
        let shared: Arc<Shared> = Arc::new(Shared { parts: Line::default(), unread: Unread::default(), gone });
        (Self { shared: Arc::clone(&shared), source: None, complete: false }, ExchangeHandle(shared))
    }

    /// Waits for the machine's reply, whole or begun.
    pub(crate) async fn response(mut self) -> Response<ReplyBody> {
        loop {
            match self.shared.parts.pop().await {
                Some(Part::Reply(reply)) => {
                    self.complete();
                    return whole(reply);
                }
                Some(Part::Begin(head, source)) => {
                    self.source = source;
                    let body = PieceBody { exchange: self, length: head.length };
                    let mut response = Response::new(ReplyBody::Pieces(body));
                    *response.status_mut() = head.status;
                    *response.headers_mut() = head.headers;
                    return response;
                }
                // Out of order: there is no reply to go on with.
                Some(Part::Body(..)) => {}
                Some(Part::Finish | Part::Abort) | None => {
                    self.complete();
                    return whole(Reply::empty(StatusCode::INTERNAL_SERVER_ERROR));
                }
            }
        }
    }

    fn complete(&mut self) {
        self.complete = true;
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("complete", &self.complete).finish_non_exhaustive()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.parts.close();
        // What was thrown away counts as consumed, or its stream would stall.
        while let Some(part) = self.shared.parts.try_pop() {
            if let (Part::Body(_, credit), Some(source)) = (part, &self.source) {
                source.consumed(credit);
            }
        }
        if !self.complete {
            (self.shared.gone)();
        }
    }
}

/// The body of a reply in pieces. Each piece's credit goes back when the connection takes it: what the client has not
/// taken stays with the agent.
#[derive(Debug)]
pub struct PieceBody {
    exchange: Exchange,
    length: Option<u64>,
}

impl PieceBody {
    /// The length that was announced.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece, for the connection to write.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let exchange = &mut self.exchange;
        if exchange.complete {
            return Poll::Ready(None);
        }
        while let Poll::Ready(part) = exchange.shared.parts.poll_pop(cx) {
            match part {
                Some(Part::Body(bytes, credit)) => {
                    if credit == 0 {
                        exchange.shared.unread.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                        exchange.shared.unread.pieces.fetch_sub(1, Ordering::Relaxed);
                    }
                    if let Some(source) = &exchange.source {
                        source.consumed(credit);
                    }
                    if !bytes.is_empty() {
                        self.length = self.length.map(|length| length.saturating_sub(bytes.len() as u64));
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Some(Part::Finish) => {
                    exchange.complete();
                    return Poll::Ready(None);
                }
                Some(Part::Abort) | None => {
                    exchange.complete();
                    return Poll::Ready(Some(Err(Aborted)));
                }
                Some(Part::Reply(_) | Part::Begin(..)) => tracing::error!("a reply was begun twice"),
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::atomic::AtomicBool;

    fn exchange() -> (Exchange, ExchangeHandle, Arc<AtomicBool>) {
        let gone = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&gone);
        let (exchange, handle) = Exchange::new(move || flag.store(true, Ordering::SeqCst));
        (exchange, handle, gone)
    }

    fn begin(commands: &Queue<Command>) -> Part {
        let head = ReplyHead { status: StatusCode::OK, headers: http::HeaderMap::new(), length: None };
        Part::Begin(head, Some(Source { commands: commands.clone(), stream: StreamId(3) }))
    }

    fn credits(commands: &Queue<Command>) -> u32 {
        std::iter::from_fn(|| commands.try_pop())
            .map(|command| match command {
                Command::Consumed { stream: StreamId(3), bytes } => bytes,
                other => panic!("{other:?}"),
            })
            .sum()
    }

    #[crate::rt::test]
    async fn credit_goes_back_piece_by_piece_as_the_client_takes_them() {
        let (exchange, handle, gone) = exchange();
        let commands = Queue::new();
        handle.push(begin(&commands));
        for _ in 0..3 {
            handle.push(Part::Body(Bytes::from_static(b"12345"), 5));
        }
        handle.push(Part::Finish);
        let mut body = exchange.response().await.into_body();
        assert_eq!(credits(&commands), 0);
        body.frame().await.expect("a piece").expect("whole");
        assert_eq!(credits(&commands), 5);
        assert_eq!(body.collect().await.expect("complete").to_bytes().len(), 10);
        assert_eq!(credits(&commands), 10);
        assert!(!gone.load(Ordering::SeqCst));
    }

    #[crate::rt::test]
    async fn client_that_goes_away_is_told_and_what_waited_is_consumed() {
        let (exchange, handle, gone) = exchange();
        let commands = Queue::new();
        handle.push(begin(&commands));
        handle.push(Part::Body(Bytes::from_static(b"12345"), 5));
        let response = exchange.response().await;
        assert!(!gone.load(Ordering::SeqCst));
        drop(response);
        assert!(gone.load(Ordering::SeqCst));
        assert_eq!(credits(&commands), 5);
    }

    #[crate::rt::test]
    async fn abort_is_an_error_in_the_middle_and_500_before() {
        let (first, handle, gone) = exchange();
        handle.push(begin(&Queue::new()));
        handle.push(Part::Abort);
        assert!(first.response().await.into_body().collect().await.is_err());
        let (second, handle, _) = exchange();
        handle.push(Part::Abort);
        assert_eq!(second.response().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!gone.load(Ordering::SeqCst));
    }

    #[crate::rt::test]
    async fn client_that_does_not_read_is_cut_off_at_the_bound() {
        let (exchange, handle, _) = exchange();
        handle.push(begin(&Queue::new()));
        let accepted = (0..2 * MAX_UNTAKEN_PIECES).take_while(|_| handle.push(Part::Body(Bytes::from_static(b"x"), 0)));
        assert_eq!(accepted.count(), MAX_UNTAKEN_PIECES + 1);
        assert!(exchange.response().await.into_body().collect().await.is_err());
    }
}
