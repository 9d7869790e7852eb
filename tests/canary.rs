//! Recognisable secrets go through every flow at log level trace, audits on, and are then looked for wherever they do not
//! belong: logs, audits, status documents, error bodies, URLs, the store, command lines, other processes' environments.

mod support;

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::browser::{Browser, Form, encode, form, parameter};
use support::oauth::{self, FORM, VERIFIER, access, refresh_token};
use support::{
    Agent, Client, PASSWORD, PASSWORD_HASH, Process, Relay, Reply, Scratch, descendants, eventually, free_port,
};
use support::{program, run};
use tungstenite::{Message, WebSocket};

const OPERATOR: &str = "canary of the operator's secret";
const WRONG_PASSWORD: &str = "canary-of-a-wrong-password";
const ARGUMENT: &str = "canary-of-an-argument";
const OLD_ARGUMENT: &str = "canary-of-an-argument-for-an-old-agent";
const OLD_RESULT: &str = "canary-of-an-old-agents-result";
const PRIVATE: &str = "canary-of-a-servers-environment";
const REFERRED: &str = "canary-of-a-reference";
const AMBIENT: &str = "canary-of-the-agents-environment";
const HEADER: &str = "canary-of-a-servers-header";
const BEARER: &str = "canary-of-a-bearer-token";
const FORGED: &str = "canary-of-a-forged-field";
const CLIENT: &str = "canary-of-a-clients-id";

/// What must not be seen, and what was.
#[derive(Default)]
struct Watch {
    secrets: Vec<(String, String)>,
    seen: Vec<(String, Vec<u8>)>,
}

impl Watch {
    fn secret(&mut self, what: &str, value: &str) {
        assert!(value.len() >= 8, "{what} is long enough to be told from chance: {value}");
        self.secrets.push((what.to_owned(), value.to_owned()));
    }

    /// The tokens of an answer are secrets.
    fn tokens(&mut self, what: &str, tokens: &Value) {
        self.secret(&format!("access token of {what}"), &access(tokens));
        self.secret(&format!("refresh token of {what}"), refresh_token(tokens));
    }

    fn see(&mut self, place: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.seen.push((place.into(), bytes.as_ref().to_vec()));
    }

    /// An answer: where it leads to, but for the code and the state that it carries there; and what it says when it is an
    /// error.
    fn answer(&mut self, what: &str, reply: &Reply) {
        if let Some(to) = reply.header("location") {
            let (path, query) = to.split_once('?').unwrap_or((to, ""));
            let kept = query.split('&').filter(|pair| !pair.starts_with("code=") && !pair.starts_with("state="));
            self.see(format!("location after {what}"), format!("{path}?{}", kept.collect::<Vec<_>>().join("&")));
        }
        if reply.status >= 400 {
            self.see(format!("error {} after {what}", reply.status), &reply.body);
            self.see(format!("header of the error after {what}"), format!("{:?}", reply.headers));
        }
        for (_, cookie) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let value = cookie.split_once('=').and_then(|(_, rest)| rest.split(';').next()).unwrap_or_default();
            if value.len() >= 8 {
                self.secret(&format!("cookie of {what}"), value);
            }
        }
    }

    /// Every file below a directory.
    fn files(&mut self, dir: &Path, but: &[&str]) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if but.iter().any(|name| path.file_name().is_some_and(|own| own == *name)) {
                continue;
            }
            match path.is_dir() {
                true => self.files(&path, but),
                false => self.see(path.display().to_string(), std::fs::read(&path).unwrap_or_default()),
            }
        }
    }

    /// A process's command line; and its environment, in which only these `given` secrets may be.
    fn process(&mut self, pid: u64, given: Option<&[&str]>) {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = read("cmdline");
        let name = String::from_utf8_lossy(&line).replace('\0', " ");
        self.see(format!("command line of {pid}"), line);
        if let Some(given) = given {
            let mut environment = String::from_utf8_lossy(&read("environ")).into_owned();
            for secret in given {
                environment = environment.replace(secret, "");
            }
            self.see(format!("environment of {name}"), environment);
        }
    }

    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (what, secret) in &self.secrets {
            for form in forms(secret) {
                let places = self.seen.iter().filter(|(_, bytes)| holds(bytes, &form));
                leaks.extend(
                    places.map(|(place, bytes)| format!("{what} ({form}) in {place}: {}", around(bytes, &form))),
                );
            }
        }
        leaks
    }
}

/// How a secret may be written.
fn forms(secret: &str) -> Vec<String> {
    let list = |form: fn(&u8) -> String, join: &str| secret.as_bytes().iter().map(form).collect::<Vec<_>>().join(join);
    let mut forms = vec![
        secret.to_owned(),
        encode(secret),
        list(|byte| format!("{byte}"), ", "),
        list(|byte| format!("{byte:02x}"), ""),
        base64(secret.as_bytes()),
    ];
    forms.dedup();
    forms
}

/// Without the end, which depends on what follows.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.as_chunks::<3>().0 {
        let word = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        out.extend([18, 12, 6, 0].map(|shift| char::from(DIGITS[(word >> shift & 63) as usize])));
    }
    out
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn around(bytes: &[u8], text: &str) -> String {
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap_or_default();
    let part = &bytes[at.saturating_sub(150)..(at + text.len() + 50).min(bytes.len())];
    String::from_utf8_lossy(part).replace('\n', "⏎")
}

fn traced(home: &Path, config: &Value, args: &[&str]) -> Process {
    Process::start_with(home, config, args, |command| {
        command.env("MCP_LOCAL_TUNNEL_LOG", "trace").env("AMBIENT_SECRET", AMBIENT).env("CANARY_REFERRED", REFERRED);
    })
}

fn relay() -> Relay {
    let home = Scratch::new("canary");
    let port = free_port();
    let users: Vec<_> =
        ["ada", "eve"].iter().map(|name| json!({"name": name, "passwordHash": PASSWORD_HASH.trim()})).collect();
    let config = json!({
        "mode": "relay", "host": "127.0.0.1", "port": port, "auth": {"local": {"users": users}}, "secret": OPERATOR,
        "audit": true, "legacy": {"tokenInQuery": true}, "stateDir": home.path().join("state"),
    });
    let process = traced(home.path(), &config, &[]);
    let relay = Relay { home, config, port, process };
    relay.ready();
    relay
}

fn agent(relay: &Relay, watch: &mut Watch) -> Agent {
    let token = relay.mint("ada", "agent");
    watch.secret("minted token of the agent", &token);
    let home = Scratch::new("canary-agent");
    std::fs::write(home.path().join("token"), token).expect("its home can be written");
    let demo =
        json!({"command": [program(), "demo-server"], "env": {"PRIVATE": PRIVATE, "REFERRED": "env:CANARY_REFERRED"}});
    let config = json!({
        "mode": "agent", "relay": relay.url(), "name": "laptop", "audit": true,
        "token": format!("file:{}", home.path().join("token").display()),
        "servers": {
            "demo": demo,
            "sibling": {"command": [program(), "demo-server"]},
            "remote": {"url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": HEADER}},
        },
    });
    let process = traced(home.path(), &config, &["agent"]);
    Agent { home, config, process }
}

/// Consent, wrong password, right password: the code.
fn sign_in(relay: &Relay, watch: &mut Watch, client: &str) -> String {
    let mut browser = Browser::new(relay);
    let page = browser.get(&oauth::authorize(client));
    let sealed = form(&page);
    for (name, value) in &sealed.fields {
        watch.secret(&format!("{name} of the consent page"), value);
    }
    watch.answer("consent page", &page);
    let reply = browser.submit(&sealed, &[("decision", "allow")]);
    watch.answer("consent", &reply);
    let login = browser.get(&path(relay, &reply));
    let wrong = browser.submit(&form(&login), &[("user", "ada"), ("password", WRONG_PASSWORD)]);
    watch.answer("wrong password", &wrong);
    let reply = browser.submit(&form(&login), &[("user", "ada"), ("password", PASSWORD)]);
    watch.answer("login", &reply);
    let code = parameter(&oauth::location(&reply), "code").expect("a code");
    watch.secret("authorization code", &code);
    code
}

fn path(relay: &Relay, reply: &Reply) -> String {
    let to = oauth::location(reply);
    to.strip_prefix(&relay.url()).map(str::to_owned).unwrap_or(to)
}

fn authorization_flows(relay: &Relay, watch: &mut Watch) {
    let client = oauth::register(relay);
    let code = sign_in(relay, watch, &client);
    let (_, first) = oauth::exchange(relay, &client, &code, VERIFIER);
    watch.tokens("a sign-in", &first);
    let (_, second) = oauth::refresh(relay, &client, &first);
    watch.tokens("a refresh", &second);
    let (_, third) = oauth::refresh(relay, &client, &second);
    watch.tokens("another refresh", &third);
    let post = |path: &str, form: &[(&str, &str)]| relay.http("POST", path, &[FORM], oauth::fields(form).as_bytes());
    let reuse =
        [("grant_type", "refresh_token"), ("client_id", client.as_str()), ("refresh_token", refresh_token(&first))];
    watch.answer("reuse", &post("/token", &reuse));
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
    ];
    watch.answer("replay", &post("/token", &fields));
    for (name, value) in [("code", FORGED), ("refresh_token", FORGED), ("client_id", CLIENT)] {
        let mut wrong = vec![("grant_type", "refresh_token"), ("client_id", client.as_str())];
        wrong.retain(|(own, _)| *own != name);
        wrong.push((name, value));
        watch.answer("a wrong field", &post("/token", &wrong));
    }
    // A client with a secret, shown rightly and wrongly.
    let metadata = json!({"redirect_uris": [oauth::REDIRECT], "token_endpoint_auth_method": "client_secret_post"});
    let registered = oauth::register_as(relay, &metadata).json();
    let (id, secret) =
        (registered["client_id"].as_str().expect("one"), registered["client_secret"].as_str().expect("one"));
    watch.secret("client secret", secret);
    let code = sign_in(relay, watch, id);
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("client_id", id),
        ("client_secret", FORGED),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
    ];
    watch.answer("a wrong client secret", &post("/token", &fields));
    fields[2].1 = secret;
    let tokens = post("/token", &fields).json();
    watch.tokens("a client with a secret", &tokens);
    watch.answer("revoke of another's", &post("/revoke", &[("token", refresh_token(&tokens)), ("client_id", &client)]));
    let own = [("token", refresh_token(&tokens)), ("client_id", id), ("client_secret", secret)];
    assert_eq!(post("/revoke", &own).status, 200);
    let mcp =
        |token: &str| relay.http("POST", "/mcp", &[("Authorization", &format!("Bearer {token}"))], ARGUMENT.as_bytes());
    watch.answer("a revoked token", &mcp(&access(&tokens)));
    watch.answer("a token that is none", &mcp(BEARER));
    watch.answer("two tokens", &mcp(&format!("{BEARER} {BEARER}")));
    watch.answer("introspection", &post("/introspect", &[("client_id", &client), ("token", &access(&third))]));
    let basic = format!("Basic {}", base64(b"canary-of-a-clients-id:canary-of-a-forged-field...."));
    watch.answer("bad basic", &relay.http("POST", "/token", &[FORM, ("Authorization", &basic)], b"grant_type=x"));
    watch
        .answer("a foreign callback", &relay.http("GET", &format!("/callback?code={FORGED}&state={FORGED}"), &[], b""));
    watch.answer(
        "a foreign authorization",
        &relay.http("GET", &format!("/authorize?client_id={CLIENT}&state={FORGED}"), &[], b""),
    );
    watch.answer(
        "a cookie",
        &relay.http("GET", &format!("/login?flow={FORGED}"), &[("Cookie", &format!("mlt-login={FORGED}"))], b""),
    );
    watch.answer("a page that is not there", &relay.http("GET", &format!("/nowhere?token={FORGED}"), &[], b""));
}

/// A machine without a browser signs in, is asked who it is, and signs out.
fn device_flow(relay: &Relay, watch: &mut Watch) {
    let home = Scratch::new("canary-device");
    let config = json!({"mode": "agent", "relay": relay.url(), "name": "nas", "servers": {}});
    let mut login = traced(home.path(), &config, &["login", "--device"]);
    let code = parameter(&login.line("/device?user_code="), "user_code").expect("a code");
    let mut browser = Browser::new(relay);
    let page = browser.get("/device");
    watch.answer("a wrong code", &browser.submit(&form(&page), &[("user_code", "BCDF-BCDF")]));
    let page = browser.submit(&form(&page), &[("user_code", &code)]);
    let reply = browser.submit(&form(&page), &[("decision", "allow")]);
    watch.answer("consent to a device", &reply);
    let page = browser.get(&path(relay, &reply));
    let done = browser.submit(&form(&page), &[("user", "ada"), ("password", PASSWORD)]);
    assert!(done.text().contains("Device connected"), "{}", done.text());
    assert_eq!(login.wait(), Some(0), "{}", login.log());
    let dir = home.path().join(".config/mcp-local-tunnel/tokens");
    let file = std::fs::read_dir(dir).expect("tokens").flatten().map(|entry| entry.path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("a file");
    let kept: Value = serde_json::from_slice(&std::fs::read(file).expect("it is there")).expect("JSON");
    watch.secret("access token of a device", kept["accessToken"].as_str().expect("one"));
    watch.secret("refresh token of a device", kept["refreshToken"].as_str().expect("one"));
    watch.see("log of login", login.log());
    for args in [&["whoami", "--json"][..], &["whoami"], &["logout"]] {
        let output = run(home.path(), &config, args);
        watch.see(format!("{args:?}"), [output.stdout, output.stderr].concat());
    }
    // Its person shows the code; whoever reads the relay's logs must not have it while it is good.
    watch.secret("code of a device", &code);
    let shown = watch.seen.iter_mut().filter(|(place, _)| place == "log of login");
    shown.for_each(|(_, text)| *text = String::from_utf8_lossy(text).replace(&code, "").into_bytes());
}

/// Calls with secret arguments and results, by a client and an agent of today.
fn calls(relay: &Relay, watch: &mut Watch) -> Agent {
    let agent = agent(relay, watch);
    let token = relay.mint("ada", "client");
    watch.secret("minted token of a client", &token);
    let mut client = Client::with_token(relay, token.clone());
    watch.secret("session of a client", &client.parts().1.expect("a session"));
    client.until_listed("demo__echo");
    let answer = client.call("demo__echo", &json!({"text": ARGUMENT}));
    assert!(answer["result"].to_string().contains(ARGUMENT), "{answer}");
    for (tool, arguments) in [
        ("demo__add", json!({"a": ARGUMENT})),
        ("no_such_tool", json!({"text": ARGUMENT})),
        ("demo__echo", json!([ARGUMENT])),
        ("status", json!({"text": ARGUMENT})),
        ("restart", json!({"server": "sibling", "why": ARGUMENT})),
    ] {
        let answer = client.call(tool, &arguments);
        if tool != "demo__add" && tool != "demo__echo" {
            watch.see(format!("answer of {tool}"), answer.to_string());
        }
    }
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ];
    for body in [format!("{{\"text\": \"{ARGUMENT}\""), format!("\"{ARGUMENT}\""), ARGUMENT.repeat(300_000)] {
        watch.answer("a broken message", &relay.http("POST", "/mcp", &headers, body.as_bytes()));
    }
    watch.see("status of the agent", agent.status().to_string());
    let pids = agent.pids();
    // A server has its environment; nobody else has it, what watches over it included.
    let demo = u32::try_from(pids["demo"]).expect("a process's number");
    for pid in descendants(agent.process.pid()) {
        let parent = u32::try_from(pid).expect("a process's number");
        let same =
            pid == u64::from(demo) || descendants(demo).contains(&pid) || descendants(parent).contains(&demo.into());
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let watches = holds(&line, "__guard\0outer") || holds(&line, "__guard\0inner");
        let given: &[_] = if same && !watches { &[PRIVATE, REFERRED] } else { &[] };
        watch.process(pid, Some(given));
    }
    let mut environments = descendants(agent.process.pid()).into_iter().map(|pid| format!("/proc/{pid}/environ"));
    let given = |path: String| std::fs::read(path).is_ok_and(|it| holds(&it, PRIVATE) && holds(&it, REFERRED));
    assert!(environments.any(given), "the server has what it was given");
    assert!(pids["demo"] > 0 && pids["sibling"] > 0, "{pids:?}");
    watch.process(agent.process.pid().into(), None);
    watch.process(relay.process.pid().into(), None);
    agent
}

/// The same with an agent before 2.0, whose token is in the URL.
fn old_agent(relay: &Relay, watch: &mut Watch) {
    let token = relay.mint("eve", "agent");
    watch.secret("token in a URL", &token);
    let stream = TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket can be told");
    let url = format!("ws://localhost:{}/ws?name=old&token={token}", relay.port);
    let (mut socket, _) = tungstenite::client(url, stream).expect("the relay takes the tunnel");
    let tools = json!({"type": "tools", "tools": [{"name": "files__read", "inputSchema": {"type": "object"}}]});
    socket.send(Message::text(tools.to_string())).expect("the tunnel holds");
    let minted = relay.mint("eve", "client");
    watch.secret("minted token of eve's client", &minted);
    let mut client = Client::with_token(relay, minted);
    client.until_listed("files__read");
    let call = json!({"jsonrpc": "2.0", "id": 99, "method": "tools/call",
        "params": {"name": "files__read", "arguments": {"path": OLD_ARGUMENT}}});
    for (kind, body) in
        [("response", json!({"content": [{"type": "text", "text": OLD_RESULT}]})), ("error", json!(OLD_RESULT))]
    {
        let mut waiting = client.send(&call);
        let request = next(&mut socket);
        assert_eq!(request["params"]["path"], OLD_ARGUMENT, "{request}");
        let member = if kind == "error" { "message" } else { "result" };
        let answer = json!({"type": kind, "id": request["id"], member: body});
        socket.send(Message::text(answer.to_string())).expect("the tunnel holds");
        assert!(Reply::read(&mut waiting).expect("answered").text().contains(OLD_RESULT));
    }
}

fn next(socket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().expect("the tunnel holds") {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

/// The account's page, used and misused, and the operator's commands.
fn account(relay: &Relay, watch: &mut Watch) {
    let mut browser = Browser::new(relay);
    let page = browser.get("/account");
    let reply = browser.submit(&form(&page), &[("action", "sign-in")]);
    watch.answer("account sign-in", &reply);
    let login = browser.get(&path(relay, &reply));
    let reply = browser.submit(&form(&login), &[("user", "ada"), ("password", PASSWORD)]);
    watch.answer("account login", &reply);
    let page = browser.get(&path(relay, &reply));
    assert!(page.text().contains("laptop"), "{}", page.text());
    let good = form(&page);
    watch.secret("form token of the account", &good.fields[0].1);
    // Its own forms carry that one.
    watch.see("account page", page.text().replace(&good.fields[0].1, ""));
    let forged = Form { fields: vec![("csrf".to_owned(), FORGED.to_owned())], ..good.clone() };
    watch.answer("forged form", &browser.submit(&forged, &[("action", "revoke-all")]));
    for args in [
        &["token", "list"][..],
        &["grants", "list"],
        &["grants", "list", "--json"],
        &["grants", "revoke", "--user", "eve"],
    ] {
        let output = run(relay.home.path(), &relay.config, args);
        watch.see(format!("{args:?}"), [output.stdout, output.stderr].concat());
    }
    watch.answer("account sign-out", &browser.submit(&good, &[("action", "sign-out")]));
}

/// An agent in the background, and what its commands print.
fn daemon(relay: &Relay, watch: &mut Watch) {
    let token = relay.mint("ada", "agent");
    watch.secret("token of the agent in the background", &token);
    let home = Scratch::new("canary-daemon");
    std::fs::write(home.path().join("token"), token).expect("its home can be written");
    let servers = json!({"demo": {"command": [program(), "demo-server"], "env": {"PRIVATE": PRIVATE}}});
    let config = json!({
        "mode": "agent", "relay": relay.url(), "name": "background", "servers": servers,
        "token": format!("file:{}", home.path().join("token").display()),
    });
    let run = |args: &[&str]| {
        let mut command = support::command_of(&program(), home.path(), &config, args);
        command.env("MCP_LOCAL_TUNNEL_LOG", "trace").env("AMBIENT_SECRET", AMBIENT);
        command.output().expect("the program runs")
    };
    let started = run(&["start"]);
    assert!(started.status.success(), "{started:?}");
    eventually("it is connected", Duration::from_secs(20), || {
        let status = run(&["status", "--json"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        if text.contains("\"pid\"") && text.contains("ready") { Ok(()) } else { Err(format!("{status:?}")) }
    });
    for args in [&["status"][..], &["status", "--json"], &["logs", "-n", "100000"], &["stop"]] {
        let output = run(args);
        watch.see(format!("{args:?} of the agent in the background"), [output.stdout, output.stderr].concat());
    }
    watch.files(&home.path().join(".config/mcp-local-tunnel"), &["tokens"]);
}

#[test]
fn no_secret_is_where_it_does_not_belong() {
    let mut watch = Watch::default();
    for (what, secret) in [
        ("operator's secret", OPERATOR),
        ("password", PASSWORD),
        ("hash of the password", PASSWORD_HASH.trim()),
        ("wrong password", WRONG_PASSWORD),
        ("verifier", VERIFIER),
        ("state of a client", "of-the-client"),
        ("argument and result", ARGUMENT),
        ("argument for an old agent", OLD_ARGUMENT),
        ("result of an old agent", OLD_RESULT),
        ("server's variable", PRIVATE),
        ("server's referred variable", REFERRED),
        ("agent's variable", AMBIENT),
        ("server's header", HEADER),
        ("bad token", BEARER),
        ("forged field", FORGED),
        ("forged client", CLIENT),
    ] {
        watch.secret(what, secret);
    }
    let mut relay = relay();
    authorization_flows(&relay, &mut watch);
    device_flow(&relay, &mut watch);
    let mut agent = calls(&relay, &mut watch);
    old_agent(&relay, &mut watch);
    account(&relay, &mut watch);
    daemon(&relay, &mut watch);

    agent.process.stop();
    relay.process.stop();
    let (log, state) = (relay.process.log(), relay.home.path().join("state"));
    assert!(log.contains("TRACE") && log.contains("signed in"), "the relay's log says all that it can:\n{log}");
    watch.see("log of the relay", log);
    watch.see("log of the agent", agent.process.log());
    // What is made of the operator's secret is kept there, and of nothing else that was said.
    watch.files(&state, &["master.key"]);
    watch.files(&agent.home.path().join(".config/mcp-local-tunnel"), &["tokens"]);
    let leaks = watch.leaks();
    assert!(watch.seen.len() > 60, "{} places were looked at", watch.seen.len());
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    audits_say_what_happened(&state.join("audit.log"), &agent);
}

/// The search is worth nothing if the audits were empty.
fn audits_say_what_happened(relays: &Path, agent: &Agent) {
    let lines = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect::<Vec<Value>>()
    };
    let (relays, agents) = (lines(relays), lines(&agent.home.path().join(".config/mcp-local-tunnel/logs/audit.log")));
    for event in [
        "sign-in",
        "sign-in-failed",
        "grant",
        "refresh",
        "refusal",
        "revocation",
        "operator",
        "tunnel-up",
        "tunnel-down",
        "call",
    ] {
        assert!(relays.iter().any(|line| line["event"] == event), "{event}: {relays:#?}");
    }
    let call = |lines: &[Value]| {
        let line = lines.iter().find(|line| line["tool"] == "echo" && line["outcome"] == "result").cloned();
        line.unwrap_or_else(|| panic!("a call: {lines:#?}"))
    };
    let (at_relay, at_agent) = (call(&relays), call(&agents));
    for name in [
        "user",
        "session",
        "actor",
        "client",
        "device",
        "server",
        "method",
        "tool",
        "decision",
        "paramsBytes",
        "resultBytes",
        "outcome",
    ] {
        assert_eq!(at_relay[name], at_agent[name], "{name} is the same on both sides");
        assert!(!at_relay[name].is_null(), "{name}: {at_relay}");
    }
}

#[test]
fn search_finds_a_secret_however_it_is_written() {
    let mut watch = Watch::default();
    watch.secret("one", ARGUMENT);
    watch.see("clean", "nothing at all");
    assert!(watch.leaks().is_empty());
    let written = [
        format!("text={ARGUMENT:?}"),
        encode(ARGUMENT),
        format!("{:?}", ARGUMENT.as_bytes()),
        ARGUMENT.bytes().map(|byte| format!("{byte:02x}")).collect(),
        "Y2FuYXJ5LW9mLWFuLWFyZ3VtZW50".to_owned(),
    ];
    for text in written {
        let mut watch = Watch::default();
        watch.secret("one", ARGUMENT);
        watch.see("dirty", format!("before {text} after"));
        assert!(!watch.leaks().is_empty(), "{text}");
    }
}
