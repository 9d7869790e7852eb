//! `CONNECT` through an HTTP proxy (RFC 9110 section 9.3.6).

use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use tunnel_core::config::Proxy;

use crate::net::Target;
use crate::rt::{self, HyperIo};
use crate::stream::Stream;

/// Asks the proxy at the other end of `stream` for a connection to `target`.
///
/// # Errors
/// For people: why there is none.
pub(crate) async fn connect(stream: Stream, proxy: &Proxy, target: &Target) -> Result<HyperIo<Upgraded>, String> {
    let place = Proxy::connect_target(&target.host, target.port);
    let request = request(&place, proxy).map_err(|error| error.to_string())?;
    let broken = |error: hyper::Error| format!("it does not speak HTTP: {error}");
    let (mut sender, connection) = http1::handshake(HyperIo::new(stream)).await.map_err(broken)?;
    // Ends by itself: when it becomes the tunnel, or when this future is dropped.
    rt::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the proxy ended");
        }
    });
    let answer = sender.send_request(request).await.map_err(broken)?;
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            return Err("it answered 407: it wants a user name and a password, as in http://name:password@host".into());
        }
        status => return Err(format!("it answered {} and does not connect to {}", status.as_u16(), target.host)),
    }
    hyper::upgrade::on(answer).await.map(HyperIo::new).map_err(broken)
}

fn request(place: &str, proxy: &Proxy) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = place.parse::<Uri>()?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(place)?);
    if let Some(authorization) = &proxy.authorization {
        let mut value = HeaderValue::from_str(authorization.expose())?;
        value.set_sensitive(true);
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{AsyncReadExt, AsyncWriteExt, TcpListener};
    use std::sync::Arc;
    use tunnel_core::config::{Proxies, Route};

    /// A proxy that answers its first request with `answer`, says back in capitals what follows, and returns the head.
    async fn proxy(answer: &'static str) -> (Proxies, rt::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://me:pass%20word@{}", listener.local_addr().expect("bound"));
        let task = rt::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut head = bytes::BytesMut::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(rt::read_buf(&mut socket, &mut head).await.expect("reads") > 0, "the head is whole");
            }
            socket.write_all(answer.as_bytes()).await.expect("writes");
            let mut said = [0; 5];
            if !answer.is_empty() && socket.read_exact(&mut said).await.is_ok() {
                socket.write_all(&said.to_ascii_uppercase()).await.expect("writes");
            }
            String::from_utf8(head.into()).expect("an ASCII head")
        });
        (Proxies::new(|name| (name == "ALL_PROXY").then(|| url.clone())), task)
    }

    async fn through(proxies: &Proxies, host: &str) -> Result<HyperIo<Upgraded>, String> {
        let target = Target { host: host.into(), port: 443, tls: true };
        let Route::Through(proxy) = proxies.route(true, host, 443) else { panic!("through the proxy") };
        let tcp = rt::TcpStream::connect((proxy.host.as_str(), proxy.port)).await.expect("connects");
        connect(Stream::Plain(tcp), proxy, &target).await
    }

    #[crate::rt::test]
    async fn connection_through_a_proxy_carries_bytes_both_ways() {
        let (proxies, task) = proxy("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        let mut stream = through(&proxies, "fd00::7").await.expect("connects");
        stream.write_all(b"hello").await.expect("writes");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.expect("reads");
        assert_eq!(&answer, b"HELLO");
        let head = task.await.expect("a head");
        assert!(head.starts_with("CONNECT [fd00::7]:443 HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nhost: [fd00::7]:443\r\n"), "{head}");
        assert!(head.contains("\r\nproxy-authorization: basic bwu6cgfzcyb3b3jk\r\n"), "{head}");
    }

    #[crate::rt::test]
    async fn refusal_is_told_without_the_password() {
        for (answer, expected) in [
            ("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", "407"),
            ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", "403"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
            ("", "does not speak HTTP"),
        ] {
            let (proxies, _task) = proxy(answer).await;
            let reason = through(&proxies, "relay.example").await.expect_err("no connection");
            assert!(reason.contains(expected) && !reason.contains("pass word") && !reason.contains("%20"), "{reason}");
        }
    }

    #[crate::rt::test]
    async fn proxy_that_answers_in_the_targets_place_is_named() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n<html>Sign in to use this network</html>";
        let (proxies, _task) = proxy(answer).await;
        let connector = crate::net::Connector::with_proxies(Arc::new(proxies));
        let target = Target { host: "relay.example".into(), port: 443, tls: true };
        let error = connector.connect(&target).await.expect_err("no TLS").to_string();
        assert!(error.starts_with("the proxy of ALL_PROXY: it connects, but to relay.example TLS failed"), "{error}");
    }

    #[test]
    fn proxy_that_can_never_be_used_is_known_before_anything_is_sent() {
        let proxies = Proxies::new(|name| (name == "HTTPS_PROXY").then(|| "socks5://p:1080".into()));
        let connector = crate::net::Connector::with_proxies(Arc::new(proxies));
        let error = connector.check("https://relay.example").expect_err("SOCKS is not spoken").to_string();
        assert!(error.contains("HTTPS_PROXY") && error.contains("SOCKS"), "{error}");
        for fine in ["http://relay.example", "https://127.0.0.1:3000"] {
            assert!(connector.check(fine).is_ok(), "{fine}");
        }
    }

    #[crate::rt::test]
    async fn connector_takes_the_way_that_its_proxies_say() {
        let (proxies, _task) = proxy("HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n").await;
        let connector = crate::net::Connector::with_proxies(Arc::new(proxies));
        let target = Target { host: "relay.example".into(), port: 443, tls: true };
        let error = connector.connect(&target).await.expect_err("refused").to_string();
        assert_eq!(error, "the proxy of ALL_PROXY: it answered 502 and does not connect to relay.example");
    }
}
