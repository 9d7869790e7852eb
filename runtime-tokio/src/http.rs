//! The HTTP/1.1 server: connections, and replies whole or in pieces.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::sync::watch;
use tunnel_core::config::RelayConfig;
use tunnel_core::http::Reply;
use tunnel_core::http::crowd::Crowd;
use tunnel_core::limits::{HEADER_TIMEOUT, MAX_CONNECTIONS, MAX_HEAD_READ};

use crate::exchange::PieceBody;
use crate::net;
use crate::patience::Patience;
use crate::places::{Guest, Place, Places};
use crate::refused::Spoken;
use crate::rt::{self, JoinSet, TcpListener, TcpStream, timeout};
use crate::stream::Stream;
use crate::tls::Acceptor;

/// Whom a server takes, and for how long.
#[derive(Debug)]
pub struct Terms {
    /// Connections at once.
    pub connections: usize,
    /// How many of them one address may have.
    pub crowd: Crowd,
    /// How long a request's head may take, and a TLS handshake.
    pub header_timeout: Duration,
    /// Whether TLS is spoken.
    pub(crate) tls: Option<Acceptor>,
}

impl Terms {
    /// Those of a relay, with TLS if `tls` is there.
    pub(crate) fn of(config: &RelayConfig, tls: Option<Acceptor>) -> Self {
        let limits = &config.limits;
        Self {
            connections: limits.connections,
            crowd: Crowd::new(limits.connections_per_address, config.trusted_proxies.clone()),
            header_timeout: limits.header_timeout,
            tls,
        }
    }
}

/// Those of a server for this machine alone.
impl Default for Terms {
    fn default() -> Self {
        let crowd = Crowd::new(MAX_CONNECTIONS, Vec::new());
        Self { connections: MAX_CONNECTIONS, crowd, header_timeout: HEADER_TIMEOUT, tls: None }
    }
}

/// Serves `listener` with `handler` until `shutdown` is done; then nothing new is accepted, and what is under way has
/// [`GRACE`] to end. A handler gets its connection's place too: to say when it waits for the client, and to keep it for
/// what the connection becomes.
pub async fn serve<H, F>(listener: TcpListener, terms: Terms, handler: H, shutdown: impl Future<Output = ()>)
where
    H: Fn(Request<Incoming>, Arc<Place>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<ReplyBody>> + Send + 'static,
{
    let Terms { connections, crowd, header_timeout, tls } = terms;
    let server = Arc::new(Server { handler, header_timeout, tls });
    let mut places = Places::new(connections, crowd);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    // Who came in and has no place yet.
    let mut next: Option<(TcpStream, Guest)> = None;
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            // Reaps what ended, so that the set does not grow.
            Some(_) = connections.join_next() => {}
            free = places.free(), if next.is_some() => {
                let Some((stream, guest)) = next.take() else { continue };
                let place = Arc::new(guest.seat(free));
                let (server, stopping) = (Arc::clone(&server), stopping.clone());
                connections.spawn(async move { server.keep(stream, place, stopping).await });
            }
            accepted = listener.accept(), if next.is_none() => match accepted {
                Ok((stream, peer)) => match places.enter(peer.ip().to_canonical()) {
                    Some(guest) => next = Some((stream, guest)),
                    // A refusal within TLS would cost more than the connection.
                    None if server.tls.is_some() => {}
                    None => places.refuse(stream),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of descriptors, most likely: give some time to get some back.
                    rt::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop((listener, next));
    let _ = stop.send(true);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

/// What all connections of a listener share.
struct Server<H> {
    handler: H,
    header_timeout: Duration,
    tls: Option<Acceptor>,
}

impl<H, F> Server<H>
where
    H: Fn(Request<Incoming>, Arc<Place>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<ReplyBody>> + Send + 'static,
{
    /// Serves a connection until it ends, or is asked to make room for another.
    async fn keep(&self, stream: TcpStream, place: Arc<Place>, stopping: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            () = place.asked_to_leave() => tracing::debug!(peer = %place.peer(), "connection made room for another"),
            () = self.serve(stream, &place, stopping) => {}
        }
    }

    async fn serve(&self, stream: TcpStream, place: &Arc<Place>, mut stopping: watch::Receiver<bool>) {
        let stream = tokio::select! {
            stream = self.secure(stream) => stream,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let Some(stream) = stream else { return };
        let service = service_fn(|request| {
            // Who was asked to leave in this very moment is not served any more.
            if !place.serve() {
                return Either::Left(ready(Err(AskedToLeave)));
            }
            Either::Right((self.handler)(request, Arc::clone(place)).map(|response| Ok(answered(response, place))))
        });
        let mut connection = http1::Builder::new()
            .timer(Patience::default())
            .header_read_timeout(self.header_timeout)
            // What is read of a head; and what a slow client may leave unsent here, besides its stream's credit.
            .max_buf_size(MAX_HEAD_READ)
            .serve_connection(Spoken::new(stream), service)
            .with_upgrades();
        let stop = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stop => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
            if let Some(parts) = connection.into_parts() {
                let spoken = parts.io;
                // Who has not begun to ask is not told of what they did not do.
                let began = error.is_timeout() && !parts.read_buf.is_empty();
                if began { spoken.too_slow().await } else { spoken.conclude().await }
            }
        }
    }

    /// The connection as requests come over it.
    async fn secure(&self, stream: TcpStream) -> Option<Stream> {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "connection ended at once");
            return None;
        }
        let Some(tls) = &self.tls else { return Some(Stream::Plain(stream)) };
        let session = tls.accept(stream, self.header_timeout).await;
        session.inspect_err(|reason| tracing::debug!(%reason, "connection ended")).ok()
    }
}

/// The connection was asked to make room for another.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the connection made room for another")]
struct AskedToLeave;

/// A response after which the client is waited for again, unless the connection becomes something else with it.
fn answered(response: Response<ReplyBody>, place: &Arc<Place>) -> Response<Answer> {
    let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    response.map(|body| Answer { body, place: stays.then(|| Arc::clone(place)) })
}

/// The body of a response as the connection takes it.
struct Answer {
    body: ReplyBody,
    place: Option<Arc<Place>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.wait();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client that vanished without a word is given up.
fn tune(stream: &TcpStream) -> io::Result<()> {
    net::tune(stream)?;
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}

/// A whole reply as it goes out.
#[must_use]
pub fn whole(reply: Reply) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(Some(reply.body).filter(|body| !body.is_empty())));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// All of it at once.
    Whole(Option<Bytes>),
    /// In pieces, as a machine orders them.
    Pieces(PieceBody),
}

/// Ends the transport in the middle of a reply, so that the client sees that it is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply cannot be completed")]
pub struct Aborted;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => pieces.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(pieces) => pieces.length().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// What requests under way have at shutdown: streams are ended by their machine at once, calls get their error.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long sent data may stay unacknowledged: a client in a tunnel of the other kind comes back sooner.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS: u32 = 90_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::read_body;
    use crate::rt::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tunnel_core::limits::{MAX_FIELDS, MAX_HEAD};

    /// A server that answers with the body that it read, and what stops it.
    async fn echo() -> (std::net::SocketAddr, oneshot::Sender<()>, rt::JoinHandle<()>) {
        echo_with(Terms::default()).await
    }

    async fn echo_with(terms: Terms) -> (std::net::SocketAddr, oneshot::Sender<()>, rt::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let handler = |request: Request<Incoming>, _| async move {
            match read_body(request.into_body(), 10, Duration::from_millis(200), None).await {
                Ok(body) => whole(Reply::empty(StatusCode::OK).with_body(body)),
                Err(error) => whole(Reply::text(StatusCode::BAD_REQUEST, format!("{error:?}"))),
            }
        };
        let task = rt::spawn(serve(listener, terms, handler, async {
            let _ = stopped.await;
        }));
        (address, stop, task)
    }

    async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("reads");
        String::from_utf8(answer).expect("text")
    }

    #[crate::rt::test]
    async fn body_at_the_limit_passes_and_one_over_does_not() {
        let (address, _stop, _) = echo().await;
        let post = |length: usize, body: &str| {
            format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        assert!(exchange(address, &post(10, "0123456789")).await.ends_with("0123456789"));
        assert!(exchange(address, &post(11, "01234567890")).await.ends_with("TooLarge"));
        assert!(exchange(address, &post(5, "0")).await.ends_with("TooSlow"));
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n";
        assert!(exchange(address, chunked).await.ends_with("TooLarge"));
    }

    #[crate::rt::test]
    async fn head_that_is_not_taken_is_refused_in_words() {
        let (address, _stop, _) = echo().await;
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(3 * MAX_HEAD));
        let with_fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        let many = with_fields(MAX_FIELDS + 1);
        for request in [large, many] {
            let answer = exchange(address, &request).await;
            assert!(answer.starts_with("HTTP/1.1 431") && answer.ends_with("48 KiB and 100 fields\n"), "{answer}");
        }
        let most = with_fields(MAX_FIELDS).replace("X: y\r\n\r\n", "Connection: close\r\n\r\n");
        assert!(exchange(address, &most).await.starts_with("HTTP/1.1 200"));
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(66_000));
        assert!(exchange(address, &long).await.starts_with("HTTP/1.1 4"));
        for nonsense in ["GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nX y\r\n\r\n", "G@T / HTTP/1.1\r\n\r\n"] {
            let answer = exchange(address, nonsense).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("as HTTP/1.1\n"), "{answer}");
        }
    }

    #[crate::rt::test]
    async fn head_that_begins_and_does_not_end_is_told_of_its_limit() {
        let terms = Terms { header_timeout: Duration::from_millis(200), ..Terms::default() };
        let (address, _stop, _) = echo_with(terms).await;
        for begun in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let answer = exchange(address, begun).await;
            assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("limits.headerTimeout"), "{answer}");
        }
        // The second request of a connection is one too.
        let answer = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 408 "), "{answer}");
        assert_eq!(exchange(address, "").await, "", "who says nothing is told nothing");
        let idle = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(idle.starts_with("HTTP/1.1 200 ") && !idle.contains("408"), "{idle}");
    }

    #[crate::rt::test]
    async fn stopped_server_ends_idle_connections() {
        let (address, stop, task) = echo().await;
        let mut idle = TcpStream::connect(address).await.expect("connects");
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("writes");
        let mut head = [0; 12];
        idle.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
        stop.send(()).expect("runs");
        timeout(Duration::from_secs(3), task).await.expect("ends soon").expect("ends well");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
