//! Bad input, against the built program over real sockets: a clear answer, nothing lost, nothing crashed.

mod support;

use serde_json::{Value, json};
use support::{Client, Relay, Reply, Scratch, run};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// The relay still answers a good request after a bad one.
fn still_works(relay: &Relay) {
    assert!(Client::connect(relay).tools().contains(&"status".to_owned()));
}

fn bearer(relay: &Relay, token: &str, body: &[u8]) -> Reply {
    relay.post("/mcp", token, body)
}

const PING: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn no_token_is_answered_with_where_to_get_one() {
    let relay = Relay::start("no-token");
    let reply = relay.http("POST", "/mcp", &[("Content-Type", "application/json")], PING);
    assert_eq!(reply.status, 401);
    let challenge = reply.header("www-authenticate").expect("it says how");
    assert!(challenge.contains(&format!("{}/.well-known/oauth-protected-resource", relay.url())), "{challenge}");
    assert!(!challenge.contains("error="), "no token is no error: {challenge}");
    let metadata = relay.http("GET", "/.well-known/oauth-protected-resource/mcp", &[], b"").json();
    assert_eq!(metadata["resource"], format!("{}/mcp", relay.url()));
    let server = relay.http("GET", "/.well-known/oauth-authorization-server", &[], b"").json();
    assert_eq!(server["issuer"], relay.url());
    assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
}

#[test]
fn token_of_another_relay_and_damaged_tokens_are_refused() {
    let (relay, other) = (Relay::start("tokens-a"), Relay::start("tokens-b"));
    let foreign = other.mint("ada", "client");
    let own = relay.mint("ada", "client");
    let damaged = format!("{}{}", &own[..own.len() - 1], if own.ends_with('A') { 'B' } else { 'A' });
    for token in [foreign.as_str(), &damaged, "x", &"x".repeat(10_000)] {
        let reply = bearer(&relay, token, PING);
        assert_eq!(reply.status, 401, "{}", reply.text());
        assert!(reply.header("www-authenticate").is_some_and(|challenge| challenge.contains("invalid_token")));
        assert!(!reply.text().contains(token), "a token is not repeated");
    }
    let log = relay.process.log();
    assert!(!log.contains(&own) && !log.contains(&foreign), "no token in the log");
    still_works(&relay);
}

#[test]
fn expired_token_is_refused() {
    let relay = Relay::start("expired");
    let args = ["token", "create", "ada", "--role", "client", "--expires", "1s", "--json"];
    let output = run(relay.home.path(), &relay.config, &args);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let token = answer["token"].as_str().expect("a token").to_owned();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let reply = bearer(&relay, &token, PING);
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").is_some_and(|challenge| challenge.contains("invalid_token")));
}

#[test]
fn agent_and_client_tokens_do_not_open_each_others_doors() {
    let relay = Relay::start("roles");
    assert_eq!(bearer(&relay, &relay.mint("ada", "agent"), PING).status, 403);
    let bearer = format!("Bearer {}", relay.mint("ada", "client"));
    let reply = relay.http("GET", "/ws?name=laptop", &upgrade(&bearer), b"");
    assert_eq!(reply.status, 403, "{}", reply.text());
}

#[test]
fn token_in_a_url_is_refused_and_the_setting_named() {
    let relay = Relay::start("query-token");
    let token = relay.mint("ada", "agent");
    let headers = upgrade("");
    let reply = relay.http("GET", &format!("/ws?name=old&token={token}"), &headers[1..], b"");
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert!(reply.text().contains("tokenInQuery"), "{}", reply.text());
    assert!(relay.process.line("legacy.tokenInQuery").contains("tokenInQuery"));
    assert!(!relay.process.log().contains(&token), "and the token is not logged");
}

fn upgrade(bearer: &str) -> [(&'static str, &str); 5] {
    [
        ("Authorization", bearer),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Mcp-Tunnel", "2"),
    ]
}

#[test]
fn malformed_json_rpc_gets_the_right_code() {
    let relay = Relay::start("json-rpc");
    let token = relay.mint("ada", "client");
    for (body, code) in [
        (&b"{"[..], -32700),
        (b"\xff\xfe", -32700),
        (b"", -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b"{}", -32600),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
    ] {
        let reply = bearer(&relay, &token, body);
        let text = String::from_utf8_lossy(body);
        assert_eq!(reply.status, 400, "{text}: {}", reply.text());
        assert_eq!(reply.json()["error"]["code"], code, "{text}: {}", reply.text());
    }
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(bearer(&relay, &token, deep.as_bytes()).status, 400, "it has no session, and its depth harms nobody");
    still_works(&relay);
}

#[test]
fn calls_that_name_nothing_are_refused_by_name() {
    let relay = Relay::start("nothing");
    let mut client = Client::connect(&relay);
    let answer = client.call("no__such_tool", &json!({}));
    assert_eq!(answer["error"]["code"], -32010, "no device is there that could have it");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("no__such_tool")), "{answer}");
    for params in [json!({}), json!({"name": 7}), json!({"name": null}), json!([])] {
        let reply = client.request("tools/call", &params);
        assert_eq!(reply.json()["error"]["code"], -32602, "{params}: {}", reply.text());
    }
    assert_eq!(client.request("no/such/method", &json!({})).json()["error"]["code"], -32601);
}

#[test]
fn body_over_the_limit_is_refused_before_it_is_read() {
    let relay = Relay::with("large-body", &json!({"limits": {"maxBody": 65_536}}));
    let token = relay.mint("ada", "client");
    for (length, status) in [(65_536, 400), (65_537, 413)] {
        let reply = bearer(&relay, &token, &vec![b' '; length]);
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(reply.text().contains("limits.maxBody"), status == 413, "{}", reply.text());
    }
    for path in ["/token", "/revoke", "/consent", "/register"] {
        for (length, over) in [(16_384, false), (16_385, true), (100_000, true)] {
            let reply = relay.http("POST", path, &[FORM], &vec![b'a'; length]);
            assert_eq!(reply.status == 413, over, "{path} {length}: {}", reply.text());
            assert_eq!(reply.text().contains("16 KiB"), over, "{path} {length}: {}", reply.text());
        }
    }
    still_works(&relay);
}

#[test]
fn head_over_the_limit_is_refused_in_words() {
    let relay = Relay::start("large-head");
    for (length, status) in [(31 * 1024, 200), (33 * 1024, 431)] {
        let reply = relay.http("GET", "/", &[("X-Big", &"x".repeat(length))], b"");
        assert_eq!(reply.status, status);
        assert_eq!(reply.text().contains("32 KiB"), status == 431, "{}", reply.text());
    }
    // Fields' names count, and so does the request line.
    let many: Vec<_> = (0..120).map(|number| (format!("X-{number}"), "1")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    // Three fields are the test's own.
    for (count, status) in [(97, 200), (98, 431), (120, 431)] {
        let reply = relay.http("GET", "/", &many[..count], b"");
        assert_eq!(reply.status, status, "{count}");
        assert_eq!(reply.text().contains("100 fields"), status == 431, "{}", reply.text());
    }
    let reply = relay.http("GET", &format!("/?{}", "x".repeat(25_000)), &[("X-Big", &"x".repeat(25_000))], b"");
    assert_eq!(reply.status, 431);
    assert!(reply.text().contains("48 KiB"), "{}", reply.text());
    // A client's sealed id makes the longest request lines.
    let reply = relay.http("GET", &format!("/authorize?client_id={}", "x".repeat(16_000)), &[], b"");
    assert_eq!(reply.status, 400, "{}", reply.text());
    still_works(&relay);
}

#[test]
fn requests_of_one_address_are_limited_as_the_operator_says() {
    let relay = Relay::with("rates", &json!({"limits": {"requestsPerMinute": 3}}));
    let register = || {
        let body = br#"{"redirect_uris":["http://127.0.0.1:7777/callback"],"token_endpoint_auth_method":"none"}"#;
        relay.http("POST", "/register", &[("Content-Type", "application/json")], body)
    };
    for _ in 0..5 {
        assert_eq!(register().status, 201);
    }
    let reply = register();
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!(reply.text().contains("too many registrations"), "{}", reply.text());
    still_works(&relay);
}

#[test]
fn whole_of_a_large_body_may_be_sent_before_the_answer_is_read() {
    use std::io::Write;
    let relay = Relay::start("sent-whole");
    let token = relay.mint("ada", "client");
    for (token, status) in [(token.as_str(), 413), ("nonsense", 401)] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
        let length = 20_000_000;
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            relay.port
        );
        stream.write_all(head.as_bytes()).expect("the head is taken");
        stream.write_all(&vec![b' '; length]).expect("the whole body is taken, though not kept");
        let reply = Reply::read(&mut std::io::BufReader::new(stream)).expect("the answer is there");
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    assert!(relay.process.peak_resident() < 64 << 20, "{}", relay.process.peak_resident());
}

#[test]
fn announced_body_over_the_limit_is_neither_invited_nor_waited_for() {
    use std::io::{Read, Write};
    let relay = Relay::start("announced");
    let token = relay.mint("ada", "client");
    for (path, length) in [("/mcp", 5_000_000), ("/token", 20_000)] {
        for expect in ["Expect: 100-continue\r\n", ""] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
            // Long before the body would be too slow.
            stream.set_read_timeout(Some(std::time::Duration::from_secs(15))).expect("set");
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {token}\r\n{expect}\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
                relay.port
            );
            stream.write_all(head.as_bytes()).expect("the head is taken");
            let mut first = [0; 12];
            stream.read_exact(&mut first).expect("an answer");
            assert_eq!(&first, b"HTTP/1.1 413", "{path} {expect}");
        }
    }
    still_works(&relay);
}

#[test]
fn addresses_behind_a_trusted_proxy_are_limited_apart() {
    let relay = Relay::with("proxied", &json!({"trustedProxies": ["127.0.0.1"]}));
    let refused = |from: &str| {
        let form = b"grant_type=refresh_token&client_id=mcp-local-tunnel-agent&refresh_token=nonsense";
        relay.http("POST", "/token", &[FORM, ("X-Forwarded-For", from)], form).status
    };
    let first = (0..200).map(|_| refused("203.0.113.1")).find(|status| *status == 429);
    assert_eq!(first, Some(429), "one address that goes on guessing is put off");
    assert_eq!(refused("203.0.113.2"), 400, "another is not");
}

#[test]
fn hostile_host_and_origin_are_refused() {
    let relay = Relay::start("host");
    let token = format!("Bearer {}", relay.mint("ada", "client"));
    for host in ["[", "evil.example", "localhost.evil.example", "", "[::1", "localhost:3000@evil.example", "local host"]
    {
        let reply = relay.http("POST", "/mcp", &[("Host", host), ("Authorization", &token)], PING);
        assert!(matches!(reply.status, 400 | 403 | 421), "{host:?}: {} {}", reply.status, reply.text());
        let reply = relay.http("GET", "/.well-known/oauth-authorization-server", &[("Host", host)], b"");
        assert!(matches!(reply.status, 400 | 403 | 421), "{host:?}: {}", reply.text());
    }
    let own = format!("Host: localhost:{}\r\n", relay.port);
    for hosts in [String::new(), own.repeat(2)] {
        let said = format!("GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let reply = spoken(&relay, &said).remove(0);
        assert!(reply.status == 400 && reply.text().contains("one Host field"), "{hosts:?}: {}", reply.text());
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "["] {
        let headers = [("Origin", origin), ("Authorization", token.as_str()), ("Content-Type", "application/json")];
        let reply = relay.http("POST", "/mcp", &headers, PING);
        assert_eq!(reply.status, 403, "{origin}: {}", reply.text());
    }
    still_works(&relay);
}

#[test]
fn garbage_instead_of_http_harms_nobody() {
    use std::io::Write;
    let relay = Relay::start("garbage");
    for garbage in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET",
        b"\0\0\0\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
        stream.write_all(garbage).expect("it reads");
    }
    let reply = relay.http("GET", "/healthz", &[("X-Big", &"x".repeat(100_000))], b"");
    assert!(matches!(reply.status, 400 | 431), "{}", reply.status);
    still_works(&relay);
}

/// What comes back on one connection for these bytes, until the relay closes it.
fn spoken(relay: &Relay, said: &str) -> Vec<Reply> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
    stream.write_all(said.as_bytes()).expect("it reads");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("set");
    let mut stream = std::io::BufReader::new(stream);
    std::iter::from_fn(|| Reply::read(&mut stream).ok()).collect()
}

#[test]
fn bodies_whose_end_could_be_seen_elsewhere_are_refused_and_nothing_is_read_after_them() {
    let relay = Relay::start("smuggling");
    let next = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let post = |fields: &str, body: &str| {
        let head = format!("POST /revoke HTTP/1.1\r\nHost: localhost:{}\r\n", relay.port);
        format!("{head}Content-Type: application/x-www-form-urlencoded\r\n{fields}\r\n{body}{next}")
    };
    let chunked = "7\r\ntoken=x\r\n0\r\n\r\n";
    for (fields, body, status) in [
        ("Transfer-Encoding: identity, chunked\r\n", chunked, 501),
        ("Transfer-Encoding: chunked, chunked\r\n", chunked, 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked, 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", chunked, 501),
        ("Transfer-Encoding: chunked, identity\r\n", chunked, 400),
        ("Transfer-Encoding: xchunked\r\n", chunked, 400),
        ("Transfer-Encoding : chunked\r\n", chunked, 400),
        ("Transfer-Encoding:\r\n chunked\r\n", chunked, 400),
        ("Transfer-Encoding: chunked\r\n", "7;x\ny\r\ntoken=x\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "0x7\r\ntoken=x\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\ntoken=x\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "7\ntoken=x\n0\n\n", 400),
        ("Content-Length: 7\r\nContent-Length: 8\r\n", "token=x", 400),
        ("Content-Length: 7, 7\r\n", "token=x", 400),
        ("Content-Length: +7\r\n", "token=x", 400),
        ("X: y\r\n z\r\nContent-Length: 7\r\n", "token=x", 400),
        // The coding counts (RFC 9112 section 6.3): the form is read, and names no client. The connection ends.
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", chunked, 401),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", chunked, 401),
    ] {
        let replies = spoken(&relay, &post(fields, body));
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [status], "{fields:?} {body:?}");
    }
    for fields in ["Transfer-Encoding: Chunked\r\n", "Content-Length: 7\r\nContent-Length: 7\r\n"] {
        let body = if fields.starts_with('T') { chunked } else { "token=x" };
        let statuses: Vec<_> = spoken(&relay, &post(fields, body)).iter().map(|reply| reply.status).collect();
        assert_eq!(statuses.last(), Some(&200), "{fields:?}: the next request is answered");
        assert_eq!(statuses.len(), 2, "{fields:?}");
    }
    still_works(&relay);
}

#[test]
fn unknown_client_and_redirect_end_on_a_page_not_a_redirect() {
    let relay = Relay::start("authorize");
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    for (client, redirect) in [
        ("unknown", "https://evil.example/cb"),
        ("mcp-local-tunnel-agent", "https://evil.example/cb"),
        ("mcp-local-tunnel-agent", "http://127.0.0.1.evil.example:1/callback"),
        ("mcp-local-tunnel-agent", "http://127.0.0.1:1/elsewhere"),
    ] {
        let path = format!(
            "/authorize?response_type=code&client_id={client}&redirect_uri={redirect}&code_challenge={challenge}&code_challenge_method=S256"
        );
        let reply = relay.http("GET", &path, &[], b"");
        assert_eq!(reply.status, 400, "{client} {redirect}: {}", reply.text());
        assert_eq!(reply.header("location"), None);
        assert!(
            reply.header("content-security-policy").is_some_and(|policy| policy.contains("frame-ancestors 'none'"))
        );
    }
    let registered = relay.http(
        "POST",
        "/register",
        &[("Content-Type", "application/json")],
        br#"{"client_name":"<script>alert(1)</script>","redirect_uris":["http://127.0.0.1:7777/callback"],"token_endpoint_auth_method":"none"}"#,
    );
    assert_eq!(registered.status, 201, "{}", registered.text());
    let id = registered.json()["client_id"].as_str().expect("an id").to_owned();
    let path = |method: &str| {
        format!(
            "/authorize?response_type=code&client_id={id}&redirect_uri=http://127.0.0.1:7777/callback&code_challenge={challenge}&code_challenge_method={method}&state=s"
        )
    };
    let plain = relay.http("GET", &path("plain"), &[], b"");
    assert!(
        plain.status == 400 || plain.header("location").is_none_or(|to| to.contains("error=")),
        "plain PKCE is refused"
    );
    let consent = relay.http("GET", &path("S256"), &[], b"");
    assert_eq!(consent.status, 200);
    assert!(!consent.text().contains("<script>alert"), "escaped");
    assert!(consent.text().contains("127.0.0.1:7777"), "the redirect's host is shown");
    for bad in [
        &br#"{"redirect_uris":["javascript:alert(1)"]}"#[..],
        br#"{"redirect_uris":["http://evil.example/"]}"#,
        br#"{"redirect_uris":[]}"#,
        b"{",
        b"[]",
    ] {
        let reply = relay.http("POST", "/register", &[("Content-Type", "application/json")], bad);
        assert_eq!(reply.status, 400, "{}", String::from_utf8_lossy(bad));
        assert!(reply.json()["error"].is_string());
    }
}

#[test]
fn token_endpoint_refuses_in_the_standard_words() {
    let relay = Relay::start("token-endpoint");
    for (form, status, error) in [
        ("", 400, "invalid_request"),
        ("grant_type=password&client_id=mcp-local-tunnel-agent", 400, "unsupported_grant_type"),
        ("grant_type=refresh_token&client_id=mcp-local-tunnel-agent&refresh_token=nonsense", 400, "invalid_grant"),
        ("grant_type=refresh_token&client_id=unknown&refresh_token=nonsense", 401, "invalid_client"),
        ("grant_type=authorization_code&client_id=mcp-local-tunnel-agent&code=x&code_verifier=y", 400, "invalid_grant"),
        ("grant_type=refresh_token&grant_type=refresh_token", 400, "invalid_request"),
    ] {
        let reply = relay.http("POST", "/token", &[FORM], form.as_bytes());
        assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)), "{form}: {}", reply.text());
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn provider_that_is_not_there_is_said_on_the_page() {
    let closed = support::free_port();
    let mut relay = Relay::with("no-provider", &json!({"auth": {"issuer": format!("http://127.0.0.1:{closed}")}}));
    assert!(relay.process.is_running(), "start-up works while the provider is down");
    let health = relay.http("GET", "/healthz", &[], b"");
    assert_eq!(health.status, 200);
}

#[test]
fn every_configuration_mistake_is_named_at_once() {
    let home = Scratch::new("mistakes");
    let config = json!({
        "mode": "agent", "relay": 7, "naem": "x",
        "servers": {"a": {"comand": ["x"]}, "b": {"command": [], "url": "ftp://x"}, "c": {"command": "x", "env": {"K": 1}}},
    });
    let output = run(home.path(), &config, &["config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    for word in ["relay", "naem", "name", "servers.a", "comand", "command", "servers.b", "servers.c.env.K"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    for args in [&["agent"][..], &[]] {
        assert_eq!(run(home.path(), &config, args).status.code(), Some(2), "{args:?}");
    }
    let output = run(home.path(), &json!("no object"), &["config", "check"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn unreachable_relay_and_missing_sign_in_have_their_exit_codes() {
    let home = Scratch::new("exit-codes");
    let relay = format!("http://127.0.0.1:{}", support::free_port());
    let config = json!({"mode": "agent", "relay": relay, "servers": {}});
    assert_eq!(run(home.path(), &config, &["login"]).status.code(), Some(4));
    assert_eq!(run(home.path(), &config, &["no-such-command"]).status.code(), Some(2));
    let status = run(home.path(), &config, &["status"]);
    assert_eq!(status.status.code(), Some(1), "no agent runs: {}", String::from_utf8_lossy(&status.stderr));
}
