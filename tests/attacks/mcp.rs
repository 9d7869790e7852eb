//! `/mcp` and the documents about it: other people's devices, other sites' pages, other hosts' names.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Client, Relay, Scratch, program};
use super::{Attack, ensure, with_token};

pub const ATTACKS: &[Attack] = &[
    ("no token, or one in the URL, a cookie or the body", |relay| {
        let token = relay.mint("ada", "client");
        let cookie = format!("access_token={token}");
        let body = format!("access_token={token}");
        for (path, headers, body) in [
            ("/mcp".to_owned(), vec![], ""),
            (format!("/mcp?access_token={token}"), vec![], ""),
            (format!("/mcp?token={token}"), vec![], ""),
            ("/mcp".to_owned(), vec![("Cookie", cookie.as_str())], ""),
            ("/mcp".to_owned(), vec![super::FORM], body.as_str()),
        ] {
            let reply = relay.http("POST", &path, &headers, body.as_bytes());
            ensure(reply.status == 401, || format!("{path}: {}", reply.status))?;
        }
        Ok(())
    }),
    ("an agent's token", |relay| {
        let reply = with_token(relay, &relay.mint("ada", "agent"), "/mcp");
        ensure(reply.status == 403, || format!("{}", reply.status))
    }),
    ("scheme that is no bearer, and two at once", |relay| {
        let token = relay.mint("ada", "client");
        let (basic, bearer) = (format!("Basic {token}"), format!("Bearer {token}"));
        let one = relay.http("POST", "/mcp", &[("Authorization", &basic)], b"{}");
        ensure(matches!(one.status, 400 | 401), || format!("{}", one.status))?;
        let two = relay.http("POST", "/mcp", &[("Authorization", "Bearer x"), ("Authorization", &bearer)], b"{}");
        ensure(matches!(two.status, 400 | 401), || format!("{}", two.status))
    }),
    ("host name that was rebound", |relay| {
        let token = relay.mint("ada", "client");
        let bearer = format!("Bearer {token}");
        for host in ["evil.example", "evil.example:80", "localhost.evil.example", "[", "", "localhost@evil.example"] {
            let reply = relay.http("POST", "/mcp", &[("Authorization", &bearer), ("Host", host)], b"{}");
            ensure(matches!(reply.status, 400 | 403), || format!("{host}: {}", reply.status))?;
        }
        Ok(())
    }),
    ("page of another site", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "client"));
        for origin in ["https://evil.example", "null", "https://localhost.evil.example", "file://"] {
            let headers =
                [("Authorization", bearer.as_str()), ("Origin", origin), ("Content-Type", "application/json")];
            let reply = relay.http("POST", "/mcp", &headers, b"{}");
            let readable = reply.header("access-control-allow-origin").is_some();
            ensure(reply.status == 403 && !readable, || format!("{origin}: {} {:?}", reply.status, reply.headers))?;
            let preflight = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
            let reply = relay.http("OPTIONS", "/mcp", &preflight, b"");
            let allowed = reply.header("access-control-allow-origin").is_some();
            ensure(!allowed, || format!("{origin}: the preflight passes"))?;
        }
        Ok(())
    }),
    ("metadata about another host", |relay| {
        let headers =
            [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https"), ("Forwarded", "host=evil.example")];
        for path in ["/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp"] {
            let text = relay.http("GET", path, &headers, b"").text();
            ensure(text.contains(&relay.url()) && !text.contains("evil.example"), || text.clone())?;
        }
        let challenge = relay.http("POST", "/mcp", &headers, b"{}");
        let text = challenge.header("www-authenticate").unwrap_or_default();
        ensure(!text.contains("evil.example") && text.contains("resource_metadata"), || text.to_owned())
    }),
    ("address that a header claims", |relay| {
        // Without a trusted proxy each forged address would have guesses of its own.
        let mut refused = false;
        for n in 0..40_u32 {
            let address = format!("198.51.100.{n}");
            let headers = [super::FORM, ("X-Forwarded-For", address.as_str())];
            let body = super::fields(&[("client_id", "mcp-local-tunnel-agent")]);
            refused |= relay.http("POST", "/device_authorization", &headers, body.as_bytes()).status == 429;
        }
        ensure(refused, || "each address has a limit of its own".into())
    }),
    ("somebody else's session", |relay| {
        let ada = Client::connect(relay);
        let (_, session) = ada.parts();
        let mut eve = Client::resume(relay, (relay.mint("eve", "client"), session));
        let reply = eve.request("tools/list", &json!({}));
        ensure(reply.status == 404, || format!("{} {}", reply.status, reply.text()))
    }),
    ("session that was made up, or changed", |relay| {
        let (token, session) = Client::connect(relay).parts();
        let session = session.expect("a session");
        let changed = format!("{}{}", &session[..session.len() - 1], if session.ends_with('A') { 'B' } else { 'A' });
        for session in ["x", &changed, &"A".repeat(200), "../../x"] {
            let reply =
                Client::resume(relay, (token.clone(), Some(session.to_owned()))).request("tools/list", &json!({}));
            ensure(reply.status == 404, || format!("{session}: {}", reply.status))?;
        }
        Ok(())
    }),
    ("somebody else's tools", |relay| {
        let _agent = relay.agent("laptop", &json!({"local": {"command": [program(), "demo-server"]}}));
        Client::connect(relay).until_listed("local__echo");
        let mut eve = Client::with_token(relay, relay.mint("eve", "client"));
        ensure(eve.tools() == ["status", "restart"], || format!("{:?}", eve.tools()))?;
        for tool in ["local__echo", "laptop__local__echo"] {
            let answer = eve.call(tool, &json!({"text": "x"}));
            ensure(answer.get("result").is_none(), || format!("{answer}"))?;
        }
        let status = eve.call("status", &json!({})).to_string();
        ensure(!status.contains("laptop"), || status.clone())?;
        let restarted = eve.call("restart", &json!({"device": "laptop"}));
        ensure(restarted["result"]["isError"] == true, || restarted.to_string())?;
        for path in ["/mcp/local", "/mcp/laptop/local"] {
            let reply = with_token(relay, &relay.mint("eve", "client"), path);
            ensure(!matches!(reply.status, 200 | 202) || !reply.text().contains("echo"), || reply.text())?;
        }
        Ok(())
    }),
    ("which devices and servers there are", |relay| {
        let answers = ["/mcp/local", "/mcp/nothing", "/mcp/laptop/local"].map(|path| {
            let reply = relay.http("POST", path, &[], b"{}");
            (reply.status, reply.text())
        });
        ensure(answers.iter().all(|answer| answer == &answers[0] && answer.0 == 401), || format!("{answers:?}"))
    }),
    ("body larger than allowed", |relay| {
        let token = relay.mint("ada", "client");
        let bearer = format!("Bearer {token}");
        let body = vec![b' '; 5 << 20];
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let reply = relay.http("POST", "/mcp", &headers, &body);
        ensure(reply.status == 413, || format!("{}", reply.status))?;
        let reply = relay.http("POST", "/mcp", &headers[1..], &body);
        ensure(reply.status == 401, || format!("without a token {}", reply.status))
    }),
    ("JSON that nests without end", |relay| {
        let token = relay.mint("ada", "client");
        for open in ["[", "{\"a\":"] {
            let reply = relay.post("/mcp", &token, open.repeat(500_000).as_bytes());
            ensure(reply.status == 400, || format!("{}", reply.status))?;
        }
        Ok(())
    }),
    ("second request hidden in the first one's body", |relay| {
        for smuggled in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            let answer = raw(relay, &format!("POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\n{smuggled}", relay.port));
            ensure(!answer.contains("\r\n\r\nok\n"), || format!("{smuggled}\n{answer}"))?;
        }
        Ok(())
    }),
    ("request that is not HTTP", |relay| {
        for bytes in [
            "\0\0\0\0\r\n\r\n",
            "GET\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            "GET / HTTP/9.9\r\n\r\n",
        ] {
            let answer = raw(relay, bytes);
            let fine = answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 5")
                || answer.starts_with("HTTP/1.0 4");
            ensure(fine, || format!("{bytes:?}: {answer}"))?;
        }
        Ok(())
    }),
    ("path that climbs", |relay| {
        for path in [
            "/mcp/../ws",
            "/mcp/%2e%2e/register",
            "/../etc/passwd",
            "//evil.example/mcp",
            "/mcp/%00",
            "/.well-known/../mcp",
        ] {
            let reply = relay.http("GET", path, &[], b"");
            let told = reply.header("location").unwrap_or_default().contains("evil") || reply.text().contains("root:");
            ensure(matches!(reply.status, 400 | 401 | 403 | 404 | 405) && !told, || format!("{path}: {reply:?}"))?;
        }
        Ok(())
    }),
    ("body that never comes, behind a token that is none", |relay| {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\n",
            relay.port
        );
        for framing in ["Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
            let mut stream = TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
            // A body has 30 seconds.
            stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket can be told");
            stream.write_all(format!("{head}{framing}").as_bytes()).expect("writes");
            let mut status = [0; 12];
            let read = stream.read_exact(&mut status);
            ensure(read.is_ok() && &status == b"HTTP/1.1 401", || format!("{framing}: {read:?}"))?;
        }
        Ok(())
    }),
    ("the state of a call that waits for its person", |relay| {
        let home = Scratch::new("attacks-state");
        let heard = home.path().join("heard");
        let server = json!({"asks": {"command": ["sh", "-c", ASKS, "sh", heard], "era": "legacy"}});
        let _adas = relay.agent("desk", &server);
        let file = home.path().join("token");
        std::fs::write(&file, relay.mint("eve", "agent")).expect("its home can be written");
        let _eves = relay.agent_with("eves", &server, &json!({"token": format!("file:{}", file.display())}));
        for user in ["ada", "eve"] {
            Client::with_token(relay, relay.mint(user, "client")).until_listed("asks__ask");
        }
        let (ada, other, eve) = (relay.mint("ada", "client"), relay.mint("ada", "client"), relay.mint("eve", "client"));
        let call = |token: &str, arguments: &Value, state: &Value| modern_call(relay, token, arguments, state);
        let asked = call(&ada, &json!({"n": 1}), &Value::Null);
        let state = asked["result"]["requestState"].clone();
        ensure(state.is_string(), || format!("nothing was asked: {asked}"))?;
        for (token, arguments) in [(&eve, 1), (&other, 1), (&ada, 2)] {
            let answer = call(token, &json!({"n": arguments}), &state);
            ensure(answer["error"]["code"] == -32602 && answer.get("result").is_none(), || answer.to_string())?;
        }
        let answer = call(&ada, &json!({"n": 1}), &state);
        ensure(answer["result"]["content"][0]["text"] == "done", || answer.to_string())?;
        let again = call(&ada, &json!({"n": 1}), &state);
        ensure(again["error"]["code"] == -32602, || again.to_string())?;
        let heard = std::fs::read_to_string(&heard).unwrap_or_default();
        ensure(heard.lines().count() == 1, || format!("executed more than once: {heard}"))
    }),
    // The last one: from then on this address hears nothing else about tokens that are none.
    ("tokens tried one after the other", |relay| {
        let guess = |n: u32| with_token(relay, &format!("mlt_a_{n}"), "/mcp");
        let refused = (0..200).map(guess).find(|reply| reply.status != 401);
        let slowed = refused.filter(|reply| reply.status == 429 && reply.header("retry-after").is_some());
        ensure(slowed.is_some(), || "two hundred of them are tried".into())?;
        let good = with_token(relay, &relay.mint("ada", "client"), "/mcp");
        ensure(good.status != 429 && good.status != 401, || format!("a good token is slowed: {}", good.status))
    }),
];

/// A server of an older revision whose tool asks its client's model something. Each call is a line in the file that it is
/// given.
const ASKS: &str = r#"while read -r line; do
    id=${line#*\"id\":}
    id=${id%%[,\}]*}
    answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$1" "$2"; }
    case $line in
    *'"method":"initialize"'*) answer "$id" \
        '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"asks","version":"1"}}' ;;
    *'"method":"tools/list"'*) answer "$id" '{"tools":[{"name":"ask","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"tools/call"'*)
        echo "$line" >>"$1"
        call=$id
        printf '%s\n' '{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}'
        ;;
    *'"id":"q"'*) answer "$call" '{"content":[{"type":"text","text":"done"}]}' ;;
    esac
done"#;

/// What a call of that tool by a client of the newest revision is answered with. `state`: it brings what was asked for.
fn modern_call(relay: &Relay, token: &str, arguments: &Value, state: &Value) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
    });
    let mut params = json!({"name": "asks__ask", "arguments": arguments, "_meta": meta});
    if !state.is_null() {
        let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "x"}});
        params["inputResponses"] = json!({"question-1": said});
        params["requestState"] = state.clone();
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "asks__ask"),
    ];
    relay.http("POST", "/mcp", &headers, body.as_bytes()).messages().pop().unwrap_or_default()
}

/// Everything that comes back for these bytes.
fn raw(relay: &Relay, bytes: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket can be told");
    drop(stream.write_all(bytes.as_bytes()));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}
