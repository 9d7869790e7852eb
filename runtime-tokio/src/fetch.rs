//! Outgoing HTTP requests: HTTP/1.1 over TCP or TLS, redirects never followed.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use tunnel_core::http::fetch::{Fetch, FetchError, Fetched};
use tunnel_core::http::reach::Reach;

use crate::net::{ConnectError, Connector, Target};
use crate::rt::{self, HyperIo, timeout};

/// Makes `request` and reads the whole answer. The request's time-out covers all of it.
///
/// # Errors
/// Why there is no whole answer.
pub async fn fetch(connector: &Connector, request: Fetch) -> Result<Fetched, FetchError> {
    within(request.timeout, async { open_unbounded(connector, request).await?.whole().await }).await
}

/// Makes `request` and returns once the answer's head is there; its body is read with [`Response::next`]. The request's
/// time-out covers connecting and the head.
///
/// # Errors
/// Why there is no answer.
pub async fn open(connector: &Connector, request: Fetch) -> Result<Response, FetchError> {
    within(request.timeout, open_unbounded(connector, request)).await
}

/// An answer whose body is still to be read. Dropping it ends the connection.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    body: Incoming,
    taken: usize,
    max_body: usize,
}

/// A connection that is kept from one request to the next, and made anew when it has ended. A request goes out once: one
/// that fails is not repeated.
#[derive(Debug)]
pub struct Line {
    connector: Connector,
    open: Option<(Target, Sender)>,
}

type Sender = http1::SendRequest<Full<Bytes>>;

impl Line {
    /// A line that is not connected yet.
    #[must_use]
    pub const fn new(connector: Connector) -> Self {
        Self { connector, open: None }
    }

    /// Connects to where `request` goes, unless that is so.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&mut self, request: &Fetch) -> Result<(), FetchError> {
        let (_, target) = place(&request.url)?;
        self.open = Some(within(request.timeout, self.ready(target, request.reach)).await?);
        Ok(())
    }

    /// Makes `request` and reads the whole answer. The request's time-out covers all of it.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn fetch(&mut self, request: Fetch) -> Result<Fetched, FetchError> {
        within(request.timeout, async {
            let (uri, target) = place(&request.url)?;
            let (target, mut sender) = self.ready(target, request.reach).await?;
            let fetched = send(&mut sender, &uri, request).await?.whole().await?;
            // Only one that was read to its end can be used again.
            self.open = Some((target, sender));
            Ok(fetched)
        })
        .await
    }

    /// The connection if it leads there and is ready for a request, else a new one.
    async fn ready(&mut self, target: Target, reach: Reach) -> Result<(Target, Sender), FetchError> {
        if let Some((open, mut sender)) = self.open.take()
            && open == target
            && sender.ready().await.is_ok()
        {
            return Ok((open, sender));
        }
        let sender = connect(&self.connector, &target, reach).await?;
        Ok((target, sender))
    }
}

impl Response {
    async fn whole(mut self) -> Result<Fetched, FetchError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.next().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Fetched { status: self.status, headers: self.headers, body: body.freeze() })
    }

    /// The next piece of the body, `None` when it is complete.
    ///
    /// # Errors
    /// The connection broke, or the body grew over its limit.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        while let Some(frame) = self.body.frame().await {
            // Trailers carry nothing that is wanted here.
            let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
            self.taken = self.taken.saturating_add(piece.len());
            if self.taken > self.max_body {
                return Err(FetchError::TooLarge(self.max_body));
            }
            return Ok(Some(piece));
        }
        Ok(None)
    }
}

async fn open_unbounded(connector: &Connector, request: Fetch) -> Result<Response, FetchError> {
    let (uri, target) = place(&request.url)?;
    let mut sender = connect(connector, &target, request.reach).await?;
    send(&mut sender, &uri, request).await
}

fn place(url: &str) -> Result<(Uri, Target), FetchError> {
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| FetchError::Url(error.to_string()))?;
    let target = Target::of(&uri).map_err(FetchError::Url)?;
    Ok((uri, target))
}

async fn connect(connector: &Connector, target: &Target, reach: Reach) -> Result<Sender, FetchError> {
    let stream = match reach {
        Reach::Anywhere => connector.connect(target).await,
        reach @ (Reach::Public | Reach::Loopback) => connector.connect_within(target, reach).await,
    };
    let stream = stream.map_err(|error| match error {
        ConnectError::OutOfReach => FetchError::OutOfReach,
        ConnectError::Tcp(error) => FetchError::Connect(error.to_string()),
        ConnectError::Tls(error) => FetchError::Tls(error),
        error @ ConnectError::Proxy { .. } => FetchError::Connect(error.to_string()),
    })?;
    let (sender, connection) = http1::handshake(HyperIo::new(stream)).await.map_err(broken)?;
    // Ends by itself: when the answer is read to its end, or when it is dropped.
    rt::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "outgoing connection ended");
        }
    });
    Ok(sender)
}

async fn send(sender: &mut Sender, uri: &Uri, request: Fetch) -> Result<Response, FetchError> {
    let max_body = request.max_body;
    let answer = sender.send_request(http_request(uri, request)?).await.map_err(broken)?;
    let (head, body) = answer.into_parts();
    if body.size_hint().lower() > max_body as u64 {
        return Err(FetchError::TooLarge(max_body));
    }
    Ok(Response { status: head.status, headers: head.headers, body, taken: 0, max_body })
}

/// The request as it goes on the wire: origin form, `Host` from the URL, framing by hyper.
fn http_request(uri: &Uri, fetch: Fetch) -> Result<Request<Full<Bytes>>, FetchError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(|error| FetchError::Url(error.to_string()))?;
    let mut request = Request::new(Full::new(fetch.body));
    *request.method_mut() = fetch.method;
    *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| FetchError::Url(error.to_string()))?;
    *request.headers_mut() = fetch.headers;
    request.headers_mut().remove(CONTENT_LENGTH);
    request.headers_mut().remove(TRANSFER_ENCODING);
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    timeout(limit, work).await.unwrap_or(Err(FetchError::TimedOut))
}

fn broken(error: hyper::Error) -> FetchError {
    FetchError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{AsyncReadExt, AsyncWriteExt, TcpListener};
    use crate::stream::Stream;
    use http::Method;
    use std::sync::Arc;

    /// A server that reads one request's head, answers with `answer` verbatim, and returns the head it read.
    async fn serve_once(answer: &'static str) -> (String, rt::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/path?query=1", listener.local_addr().expect("bound"));
        let task = rt::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut head = bytes::BytesMut::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if rt::read_buf(&mut socket, &mut head).await.expect("reads") == 0 {
                    break;
                }
            }
            socket.write_all(answer.as_bytes()).await.expect("writes");
            String::from_utf8(head.into()).expect("an ASCII head")
        });
        (url, task)
    }

    fn get(url: String) -> Fetch {
        Fetch {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
            max_body: 64,
            reach: Reach::Anywhere,
        }
    }

    #[crate::rt::test]
    async fn whole_answer_arrives_and_the_request_is_in_origin_form() {
        let (url, head) = serve_once("HTTP/1.1 201 Created\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello").await;
        let host = url.trim_start_matches("http://").trim_end_matches("/path?query=1").to_owned();
        let answer = fetch(&Connector::new(), get(url)).await.expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::CREATED, &b"hello"[..]));
        assert_eq!(answer.headers["x-a"], "b");
        let head = head.await.expect("served");
        assert!(head.starts_with("GET /path?query=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {host}\r\n")), "{head}");
    }

    #[crate::rt::test]
    async fn redirect_is_an_answer_like_any_other() {
        let (url, _) =
            serve_once("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(fetch(&Connector::new(), get(url)).await.expect("an answer").status, StatusCode::FOUND);
    }

    #[crate::rt::test]
    async fn body_over_the_limit_is_refused_announced_or_not() {
        let (url, _) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n").await;
        assert_eq!(fetch(&Connector::new(), get(url)).await.expect_err("refused"), FetchError::TooLarge(64));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n0123456789012345678901234567890123456789\r\n28\r\n0123456789012345678901234567890123456789\r\n0\r\n\r\n";
        let (url, _) = serve_once(chunked).await;
        assert_eq!(fetch(&Connector::new(), get(url)).await.expect_err("refused"), FetchError::TooLarge(64));
    }

    #[crate::rt::test]
    async fn pieces_come_one_by_one_and_a_cut_is_an_error() {
        let (url, _) = serve_once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let mut response = open(&Connector::new(), get(url)).await.expect("a head");
        assert_eq!(response.next().await, Ok(Some(Bytes::from_static(b"abc"))));
        assert!(matches!(response.next().await, Err(FetchError::Broken(_))));
    }

    #[crate::rt::test]
    async fn line_is_kept_between_requests_and_made_anew_once_it_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        // Two answers on each connection, then it is closed.
        let served = rt::spawn(async move {
            for _ in 0..2 {
                let (socket, _) = listener.accept().await.expect("accepts");
                // As it is closed elsewhere: async-std's own sockets tell nobody.
                let mut socket = Stream::Plain(socket);
                for _ in 0..2 {
                    let mut head = [0; 512];
                    assert!(socket.read(&mut head).await.expect("reads") > 0);
                    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("writes");
                }
                // The close is heard here before the next request is sent.
                rt::finish(&mut socket).await.expect("closes");
                assert_eq!(socket.read(&mut [0; 1]).await.expect("the other end closes too"), 0);
            }
        });
        let mut line = Line::new(Connector::new());
        line.connect(&get(url.clone())).await.expect("connects");
        for _ in 0..2 {
            for _ in 0..2 {
                assert_eq!(line.fetch(get(url.clone())).await.expect("an answer").body, "ok");
            }
            let (_, sender) = line.open.as_mut().expect("it is kept");
            while sender.ready().await.is_ok() {
                rt::yield_now().await;
            }
        }
        served.await.expect("two connections");
        assert!(matches!(line.fetch(get(url)).await, Err(FetchError::Connect(_))), "nobody listens any more");
    }

    #[crate::rt::test]
    async fn address_out_of_reach_is_not_connected_to_whatever_its_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"] {
            let request = Fetch { reach: Reach::Public, ..get(format!("http://{host}:{port}/")) };
            assert_eq!(fetch(&Connector::new(), request).await.expect_err("refused"), FetchError::OutOfReach, "{host}");
        }
        let nobody = timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "no connection was made");
    }

    #[crate::rt::test]
    async fn address_within_reach_is_connected_to_under_its_name() {
        let (url, head) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let url = url.replace("127.0.0.1", "localhost");
        let answer = fetch(&Connector::new(), Fetch { reach: Reach::Loopback, ..get(url) }).await.expect("an answer");
        assert_eq!(answer.body, "ok");
        assert!(head.await.expect("served").contains("host: localhost:"));
    }

    #[crate::rt::test]
    async fn proxy_is_given_the_address_that_was_looked_at() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let proxy = format!("http://{}", listener.local_addr().expect("bound"));
        let proxies = tunnel_core::config::Proxies::new(|name| (name == "ALL_PROXY").then(|| proxy.clone()));
        let connector = Connector::with_proxies(Arc::new(proxies));
        let asked = rt::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut head = vec![0; 512];
            let length = socket.read(&mut head).await.expect("reads");
            socket.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await.expect("writes");
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        for (url, expected) in [
            ("https://10.0.0.1/x", FetchError::OutOfReach),
            (
                "https://1.1.1.1/x",
                FetchError::Connect("the proxy of ALL_PROXY: it answered 403 and does not connect to 1.1.1.1".into()),
            ),
        ] {
            let request = Fetch { reach: Reach::Public, ..get(url.into()) };
            assert_eq!(fetch(&connector, request).await.expect_err("refused"), expected);
        }
        assert!(asked.await.expect("asked").starts_with("CONNECT 1.1.1.1:443 HTTP/1.1\r\n"));
    }

    #[crate::rt::test]
    async fn silence_times_out_and_a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let hurried = Fetch { timeout: Duration::from_millis(50), ..get(url.clone()) };
        assert_eq!(fetch(&Connector::new(), hurried).await.expect_err("times out"), FetchError::TimedOut);
        drop(listener);
        assert!(matches!(fetch(&Connector::new(), get(url)).await, Err(FetchError::Connect(_))));
        assert!(matches!(fetch(&Connector::new(), get("nonsense".into())).await, Err(FetchError::Url(_))));
    }

    #[crate::rt::test]
    async fn tls_is_spoken_with_who_is_trusted_and_nobody_else() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a key that fits");
        let acceptor = rt::tls::TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("https://localhost:{}/", listener.local_addr().expect("bound").port());
        rt::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut head = [0; 512];
                assert!(stream.read(&mut head).await.expect("reads") > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("writes");
            }
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let trusting = Connector::with_tls(Arc::new(client));
        assert_eq!(fetch(&trusting, get(url.clone())).await.expect("an answer").body, "ok");
        let within = |url: &str| Fetch { reach: Reach::Loopback, ..get(url.into()) };
        assert_eq!(fetch(&trusting, within(&url)).await.expect("under its name, at its address").body, "ok");
        let elsewhere = url.replace("localhost", "127.0.0.1");
        assert!(matches!(fetch(&trusting, within(&elsewhere)).await, Err(FetchError::Tls(_))), "of another name");
        assert!(matches!(fetch(&Connector::new(), get(url.clone())).await, Err(FetchError::Tls(_))));

        let dir = crate::testing::TempDir::new();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, made.cert.pem()).expect("writes");
        let told = Connector::from_environment(Some(&file)).expect("a file of certificates");
        assert_eq!(fetch(&told, get(url)).await.expect("an answer").body, "ok");
    }

    #[test]
    fn file_without_certificates_is_refused_at_once() {
        let dir = crate::testing::TempDir::new();
        let file = dir.path().join("ca.pem");
        assert!(Connector::from_environment(Some(&file)).is_err(), "it does not exist");
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "no certificate", bad] {
            std::fs::write(&file, content).expect("writes");
            assert!(Connector::from_environment(Some(&file)).is_err(), "{content}");
        }
    }
}
