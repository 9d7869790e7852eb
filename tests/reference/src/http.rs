//! Streamable HTTP on loopback. The first message decides the head of an answer: a final one is JSON, any other begins
//! an event stream.

mod headers;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use ::http::{HeaderMap, Method, Request as HttpRequest, Response, StatusCode};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::Era;
use crate::call::{Call, Request};
use crate::rpc::{self, Failure, Message};
use crate::server::{self, LEGACY, Server, locked};
use crate::session::Session;
use crate::stream::{Event, Reader, Stream};

type Body = BoxBody<Bytes, Infallible>;
/// An answer, or what takes its place: as different things fail in as many places.
type Answer = Result<Response<Body>, Box<Response<Body>>>;

pub(crate) async fn serve(server: Arc<Server>, era: Era, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("http://{}/mcp\n", listener.local_addr()?);
    tokio::io::stdout().write_all(url.as_bytes()).await?;
    tokio::io::stdout().flush().await?;
    loop {
        let (connection, _) = listener.accept().await?;
        let server = server.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { io::Result::Ok(handle(&server, era, request).await.unwrap_or_else(|refusal| *refusal)) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
    }
}

async fn handle(server: &Arc<Server>, era: Era, request: HttpRequest<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    if !headers::are_local(&head.headers) {
        return plain(StatusCode::FORBIDDEN, "not from here");
    }
    if head.uri.path() != "/mcp" {
        return plain(StatusCode::NOT_FOUND, "it is at /mcp");
    }
    let version = headers::text(&head.headers, "mcp-protocol-version");
    let legacy = era != Era::Modern && version.is_none_or(|version| era == Era::Legacy || LEGACY.contains(&version));
    match head.method {
        Method::POST => post(server, era, legacy, &head.headers, body).await,
        Method::GET if legacy => {
            let session = session(server, &head.headers)?;
            listen(&session, &head.headers)
        }
        Method::DELETE if legacy => {
            let session = session(server, &head.headers)?;
            locked(&server.sessions).remove(&session.id);
            session.general.iter().for_each(|general| general.cut());
            plain(StatusCode::NO_CONTENT, "")
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "not in this era"),
    }
}

async fn post(server: &Arc<Server>, era: Era, legacy: bool, headers: &HeaderMap, body: Incoming) -> Answer {
    if !headers::text(headers, "content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only JSON");
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    let body = body.ok().and_then(|body| String::from_utf8(body.to_vec()).ok()).unwrap_or_default();
    let Ok(message) = serde_json::from_str::<Message>(&body) else {
        return match serde_json::from_str::<Vec<Message>>(&body) {
            Ok(batch) if legacy => answer_batch(server, &session(server, headers)?, batch).await,
            _ => failed("null", &Failure::new(-32700, "not a message").status(400)),
        };
    };
    let params = message.params.as_ref().map_or("{}".to_owned(), |raw| raw.get().to_owned());
    let members = rpc::members(&params);
    let method = message.method.clone().unwrap_or_default();
    if !legacy || era == Era::Both && server::is_modern(&method, &members) {
        let Message { id: Some(id), method: Some(method), .. } = message else {
            let status = if message.method.is_some() { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
            return plain(status, "");
        };
        return answer_modern(server, headers, Request { id, method, params }, &members).await;
    }
    if headers::text(headers, "mcp-protocol-version").is_some_and(|version| !LEGACY.contains(&version)) {
        return plain(StatusCode::BAD_REQUEST, "no such version");
    }
    match message {
        Message { id: Some(id), method: Some(method), .. } if method == "initialize" => {
            let session = Session::legacy(&members, Stream::new());
            locked(&server.sessions).insert(session.id.clone(), session.clone());
            let mut answer = json(StatusCode::OK, rpc::result(id.get(), &Server::greeting(&session)));
            answer.headers_mut().insert("mcp-session-id", session.id.parse().expect("it is hexadecimal"));
            Ok(answer)
        }
        Message { id: Some(id), method: Some(method), .. } => {
            answer_legacy(server, &session(server, headers)?, Request { id, method, params }).await
        }
        message => {
            session(server, headers)?.hear(server, &message);
            plain(StatusCode::ACCEPTED, "")
        }
    }
}

/// Who is gone has cancelled (2026-07-28, transports: cancellation).
struct Cancelled(AbortHandle);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer_modern(server: &Arc<Server>, headers: &HeaderMap, request: Request, params: &rpc::Members) -> Answer {
    // A version that is not spoken is told as such where header and body agree on it.
    let id = request.id.clone();
    let checked = match server::check_meta(params) {
        Err(failure) if failure.is_version() => headers::check_version(headers, params).and(Err(failure)),
        Err(failure) => Err(failure),
        Ok(()) => headers::check(headers, &request.method, params),
    };
    if let Err(failure) = checked {
        return failed(id.get(), &failure);
    }
    let stream = Stream::new();
    let call = Call::new(server, None, true, request, stream.clone());
    let mut reader = stream.read(0);
    let running = tokio::spawn(async move {
        let (text, status) = server::answer(call).await;
        stream.finish(text, status);
    });
    let cancelled = Cancelled(running.abort_handle());
    let first = reader.next().await;
    Ok(match first {
        Some(Event { text, last: Some(status) }) => json(StatusCode::from_u16(status).unwrap_or_default(), text),
        first => events(reader, first, Framing::Plain, Some(cancelled)),
    })
}

async fn answer_legacy(server: &Arc<Server>, session: &Arc<Session>, request: Request) -> Answer {
    let (id, stream) = (request.id.clone(), session.stream());
    let call = Call::new(server, Some(session.clone()), false, request, stream.clone());
    let reader = stream.read(0);
    let running = tokio::spawn(async move {
        let (text, status) = server::answer(call).await;
        stream.finish(text, status);
    });
    session.started(&id, running.abort_handle());
    answer_first(session, reader).await
}

/// A batch (2025-03-26 only): its answers come together.
async fn answer_batch(server: &Arc<Server>, session: &Arc<Session>, batch: Vec<Message>) -> Answer {
    if session.version != "2025-03-26" {
        return plain(StatusCode::BAD_REQUEST, "no batches in this version");
    }
    let stream = session.stream();
    let mut calls = Vec::new();
    for message in batch {
        match message {
            Message { id: Some(id), method: Some(method), params, .. } => {
                let params = params.map_or("{}".to_owned(), |raw| raw.get().to_owned());
                let call =
                    Call::new(server, Some(session.clone()), false, Request { id, method, params }, stream.clone());
                calls.push(server::answer(call));
            }
            message => session.hear(server, &message),
        }
    }
    if calls.is_empty() {
        return plain(StatusCode::ACCEPTED, "");
    }
    let reader = stream.read(0);
    tokio::spawn(async move {
        let answers: Vec<String> = join_all(calls).await.into_iter().map(|(text, _)| text).collect();
        stream.finish(format!("[{}]", answers.join(",")), 200);
    });
    answer_first(session, reader).await
}

async fn answer_first(session: &Session, mut reader: Reader) -> Answer {
    Ok(match reader.next().await {
        Some(Event { text, last: Some(_) }) => json(StatusCode::OK, text),
        first => events(reader, first, Framing::of(session), None),
    })
}

/// GET: what belongs to no request, or the rest of a stream that broke off.
fn listen(session: &Session, headers: &HeaderMap) -> Answer {
    let general = session.general.as_ref();
    let resumed = headers::text(headers, "last-event-id").map(|last| {
        let (number, after) = last.split_once('-')?;
        let (number, after) = (number.parse().ok()?, after.parse().ok()?);
        let streams = locked(&session.streams);
        Some(streams.get(&number).or(general.filter(|general| general.number == number))?.read(after))
    });
    // One GET at a time: the newest.
    match resumed.unwrap_or_else(|| general.inspect(|general| general.cut()).map(Stream::read_on)) {
        Some(reader) => Ok(events(reader, None, Framing::of(session), None)),
        None => plain(StatusCode::NOT_FOUND, "no such event"),
    }
}

fn session(server: &Server, headers: &HeaderMap) -> Result<Arc<Session>, Box<Response<Body>>> {
    let failure = |status, why: &str| Box::new(json(status, rpc::error("null", &Failure::new(-32000, why))));
    let id = headers::text(headers, "mcp-session-id").ok_or_else(|| failure(StatusCode::BAD_REQUEST, "no session"))?;
    locked(&server.sessions).get(id).cloned().ok_or_else(|| failure(StatusCode::NOT_FOUND, "no such session"))
}

/// How events are written: whether they have ids, and whether an empty one is sent ahead (since 2025-11-25).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Plain,
    Numbered,
    Primed,
}

impl Framing {
    fn of(session: &Session) -> Self {
        if session.version.as_str() >= "2025-11-25" { Self::Primed } else { Self::Numbered }
    }

    fn write(self, reader: &Reader, text: &str) -> String {
        let id = if self == Self::Plain {
            String::new()
        } else {
            format!("id: {}-{}\n", reader.stream.number, reader.after)
        };
        let lines: String = text.split('\n').map(|line| format!("data: {line}\n")).collect();
        format!("{id}{lines}\n")
    }
}

/// The events of `reader`, of which `first` is one already; `cancelled` is dropped with whoever reads them.
fn events(reader: Reader, first: Option<Event>, framing: Framing, cancelled: Option<Cancelled>) -> Response<Body> {
    let primer = match &first {
        _ if framing != Framing::Primed => String::new(),
        Some(_) => format!("id: {}-0\nretry: 300\ndata:\n\n", reader.stream.number),
        None => format!("id: {}-{}\nretry: 300\ndata:\n\n", reader.stream.number, reader.after),
    };
    let ahead = primer + &first.map(|event| framing.write(&reader, &event.text)).unwrap_or_default();
    let frames = stream::unfold((reader, ahead, cancelled), move |(mut reader, ahead, cancelled)| async move {
        let text = match ahead.is_empty() {
            true => reader.next().await.map(|event| framing.write(&reader, &event.text))?,
            false => ahead,
        };
        Some((Ok(Frame::data(Bytes::from(text))), (reader, String::new(), cancelled)))
    });
    let answer = Response::builder().header("content-type", "text/event-stream").header("cache-control", "no-store");
    answer.body(BodyExt::boxed(StreamBody::new(frames))).expect("its parts are fixed")
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(Full::from(text).boxed()).expect("its parts are fixed")
}

fn failed(id: &str, failure: &Failure) -> Answer {
    Err(Box::new(json(StatusCode::from_u16(failure.status).unwrap_or_default(), rpc::error(id, failure))))
}

/// A refusal that no client reads, or an answer without content.
fn plain(status: StatusCode, why: &str) -> Answer {
    let answer = Response::builder().status(status).body(Full::from(why.to_owned()).boxed());
    Err(Box::new(answer.expect("its parts are fixed")))
}
