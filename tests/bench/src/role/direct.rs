//! The limit of loopback: the answer right out of hyper, with no tunnel and no other process behind it.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::IdAt;
use super::server::Server;

/// Serves `port` until it is ended.
pub(crate) fn run(port: u16, id: IdAt, tools: usize) -> io::Result<()> {
    let server = Arc::new(Server::new(id, tools));
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let server = Arc::clone(&server);
            let service = service_fn(move |request| answer(Arc::clone(&server), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn(connection);
        }
    })
}

/// A body in pieces, of which nothing is copied.
type Pieces = Chain<Bytes, Chain<Bytes, Bytes>>;

async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Result<Response<Full<Pieces>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else { return Ok(empty(StatusCode::BAD_REQUEST)) };
    let body = body.to_bytes();
    let [first, second, third] = server.list(&body).unwrap_or_else(|| {
        let mut out = Vec::new();
        // Nothing is answered later here: who measures waiting measures it elsewhere.
        let late: Arc<Mutex<dyn io::Write + Send>> = Arc::new(Mutex::new(io::sink()));
        server.answer(&body, &mut out, &late);
        [out.into(), Bytes::new(), Bytes::new()]
    });
    Ok(json(first.chain(second.chain(third))))
}

/// The answer with that body; an empty one is that of a notification.
pub(crate) fn json<B: Buf>(body: B) -> Response<Full<B>> {
    if !body.has_remaining() {
        return empty(StatusCode::ACCEPTED);
    }
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty<B: Buf>(status: StatusCode) -> Response<Full<B>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
