//! Signing a machine without a browser in, and sharing what came of it: the built program as several processes.

mod support;

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::browser::{Browser, form, parameter};
use support::{PASSWORD, Process, Relay, Reply, Scratch, eventually, run};

fn config(relay: &str) -> Value {
    json!({"mode": "agent", "relay": relay, "name": "nas", "servers": {}})
}

/// The code that a process shows, from the link that it shows too.
fn shown_code(process: &Process) -> String {
    let line = process.line("/device?user_code=");
    parameter(&line, "user_code").expect("a code")
}

/// Types the code at the relay's page; the consent page comes.
fn type_in(browser: &mut Browser<'_>, code: &str) -> Reply {
    let page = browser.get("/device");
    assert_eq!(page.status, 200, "{}", page.text());
    browser.submit(&form(&page), &[("user_code", code)])
}

/// Allows the device and signs in as ada.
fn connect(relay: &Relay, code: &str) {
    let mut browser = Browser::new(relay);
    let page = type_in(&mut browser, code);
    assert!(page.text().contains("nas") && page.text().contains(code), "{}", page.text());
    let reply = browser.submit(&form(&page), &[("decision", "allow")]);
    let to = reply.header("location").expect("on to the login").to_owned();
    let path = to.strip_prefix(&relay.url()).unwrap_or(&to).to_owned();
    let login = form(&browser.get(&path));
    let done = browser.submit(&login, &[("user", "ada"), ("password", PASSWORD)]);
    assert!(done.text().contains("Device connected"), "{} {}", done.status, done.text());
}

/// The one token file of a home.
fn token_file(home: &Path) -> PathBuf {
    let dir = home.join(".config/mcp-local-tunnel/tokens");
    let files = std::fs::read_dir(dir).expect("there are tokens").map(|entry| entry.expect("listed").path());
    files.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("a file of tokens")
}

fn tokens(home: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(token_file(home)).expect("can be read")).expect("JSON")
}

/// Runs a command to its end: its exit code and what it prints.
fn output(home: &Path, relay: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = run(home, &config(relay), args);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn device_signs_in_with_a_code_knows_who_it_is_and_signs_out() {
    let relay = Relay::start("device");
    let home = Scratch::new("device-home");
    assert_eq!(output(home.path(), &relay.url(), &["whoami"]).0, Some(3));
    let mut login = Process::start(home.path(), &config(&relay.url()), &["login", "--device"]);
    let code = shown_code(&login);
    assert!(!login.log().contains("/authorize"), "{}", login.log());
    connect(&relay, &code);
    assert_eq!(login.wait(), Some(0), "{}", login.log());
    let mode = std::fs::metadata(token_file(home.path())).expect("exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (status, said) = output(home.path(), &relay.url(), &["whoami", "--json"]);
    assert_eq!(status, Some(0), "{said}");
    let told: Value = serde_json::from_str(&said).expect("JSON alone");
    assert_eq!((told["user"].as_str(), told["device"].as_str()), (Some("local:ada"), Some("nas")));
    assert_eq!(told["relay"].as_str(), Some(relay.url().as_str()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (since, expires) = (told["since"].as_u64().expect("a time"), told["expires"].as_u64().expect("a time"));
    assert!(since <= now && now - since < 120 && expires > now + 29 * 86_400, "{told}");
    let (_, said) = output(home.path(), &relay.url(), &["whoami"]);
    assert!(said.contains("local:ada") && said.contains("nas") && said.contains("ago"), "{said}");

    let kept = tokens(home.path());
    let (access, refresh) = (kept["accessToken"].as_str().expect("one"), kept["refreshToken"].as_str().expect("one"));
    for secret in [access, refresh] {
        assert!(!relay.process.log().contains(secret) && !login.log().contains(secret) && !said.contains(secret));
    }
    assert_eq!(output(home.path(), &relay.url(), &["logout"]).0, Some(0));
    let body = format!("grant_type=refresh_token&client_id=mcp-local-tunnel-agent&refresh_token={refresh}");
    let reply = relay.http("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], body.as_bytes());
    assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid_grant")), "it is revoked");
    assert_eq!(output(home.path(), &relay.url(), &["whoami"]).0, Some(3));
}

#[test]
fn agent_without_a_screen_shows_a_code_by_itself() {
    let relay = Relay::start("device-agent");
    let home = Scratch::new("device-agent-home");
    let agent = Process::start(home.path(), &config(&relay.url()), &["agent"]);
    connect(&relay, &shown_code(&agent));
    eventually("the tunnel is up", Duration::from_secs(30), || {
        let (_, said) = output(home.path(), &relay.url(), &["status", "--json"]);
        let state = serde_json::from_str::<Value>(&said).ok();
        let up = state.is_some_and(|state| state["relay"]["state"] == "connected");
        if up { Ok(()) } else { Err(said) }
    });
}

#[test]
fn denied_device_ends_as_not_signed_in() {
    let relay = Relay::start("device-denied");
    let home = Scratch::new("device-denied-home");
    let mut login = Process::start(home.path(), &config(&relay.url()), &["login", "--device"]);
    let code = shown_code(&login);
    let mut browser = Browser::new(&relay);
    let wrong = type_in(&mut browser, "BBBB-BBBB");
    assert_eq!(wrong.status, 404, "{}", wrong.text());
    let page = type_in(&mut browser, &code);
    let reply = browser.submit(&form(&page), &[("decision", "deny")]);
    assert!(reply.text().contains("gets nothing"), "{}", reply.text());
    assert_eq!(login.wait(), Some(3), "{}", login.log());
    login.line("denied");
}

#[test]
fn code_does_not_outlive_the_relay_that_gave_it() {
    let mut relay = Relay::start("device-restart");
    let home = Scratch::new("device-restart-home");
    let mut login = Process::start(home.path(), &config(&relay.url()), &["login", "--device"]);
    let code = shown_code(&login);
    relay.kill_and_restart();
    assert_eq!(type_in(&mut Browser::new(&relay), &code).status, 404);
    assert_eq!(login.wait(), Some(3), "{}", login.log());
    login.line("sign in again");
}

#[test]
fn browser_can_be_asked_for_where_there_is_no_screen() {
    let relay = Relay::start("device-browser");
    let home = Scratch::new("device-browser-home");
    let login = Process::start(home.path(), &config(&relay.url()), &["login", "--browser"]);
    let line = login.line("/authorize?");
    assert!(parameter(&line, "redirect_uri").expect("one").starts_with("http://127.0.0.1:"), "{line}");
    assert_eq!(output(home.path(), &relay.url(), &["login", "--browser", "--device"]).0, Some(2));
}

/// A relay of a strict kind: each refresh token works once, and who uses one again is out. It answers one after the other
/// and takes its time.
struct Strict {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Strict {
    /// `metadata` is added to its own.
    fn start(metadata: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let mut document = json!({
            "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
            "code_challenge_methods_supported": ["S256"],
        });
        for (name, value) in metadata.as_object().expect("an object") {
            document[name] = value.clone();
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        thread::spawn(move || {
            let (mut used, mut next) = (BTreeSet::new(), 1);
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let (status, body) = match request(&stream) {
                    (target, _) if target.starts_with("GET ") => (200, document.clone()),
                    (target, body) => {
                        heard.lock().expect("no panic").push(format!("{target} {body}"));
                        thread::sleep(Duration::from_millis(300));
                        let token = body.split('&').find_map(|pair| pair.strip_prefix("refresh_token="));
                        if used.insert(token.map(str::to_owned)) {
                            next += 1;
                            (
                                200,
                                json!({"access_token": format!("a{next}"), "refresh_token": format!("r{next}"), "token_type": "Bearer", "expires_in": 3600}),
                            )
                        } else {
                            (400, json!({"error": "invalid_grant"}))
                        }
                    }
                };
                let body = body.to_string();
                drop(write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ));
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// A request's method and path, and its body.
fn request(stream: &std::net::TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
        let line = line.trim_end();
        if target.is_empty() {
            target = line.rsplit_once(' ').map_or_else(String::new, |(target, _)| target.to_owned());
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    (target, String::from_utf8(body).expect("a form"))
}

/// A token file whose access token has run out.
fn spent_tokens(home: &Path, relay: &str) {
    let dir = home.join(".config/mcp-local-tunnel/tokens");
    std::fs::create_dir_all(&dir).expect("made");
    let host = relay.strip_prefix("http://").expect("http");
    // The name as the program makes it is found by having it made once.
    drop(run(home, &config(relay), &["logout"]));
    let file = std::fs::read_dir(&dir).expect("listed").map(|entry| entry.expect("listed").path());
    let path = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "json"));
    let path = path.unwrap_or_else(|| panic!("a file for {host}"));
    let content = json!({
        "issuer": relay, "clientId": "mcp-local-tunnel-agent", "accessToken": "a1", "refreshToken": "r1", "expiresAt": 1,
    });
    std::fs::write(path, content.to_string()).expect("written");
}

#[test]
fn processes_that_share_tokens_refresh_them_once() {
    let relay = Strict::start(&json!({}));
    let home = Scratch::new("shared-tokens");
    spent_tokens(home.path(), &relay.url);
    let started: Vec<_> =
        (0..6).map(|_| Process::start(home.path(), &config(&relay.url), &["login", "--device"])).collect();
    for mut process in started {
        assert_eq!(process.wait(), Some(0), "{}", process.log());
    }
    let asked = relay.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(tokens(home.path())["refreshToken"], "r2");
}

#[test]
fn relay_without_a_page_for_codes_is_signed_in_to_as_ever() {
    let relay = Strict::start(&json!({}));
    let home = Scratch::new("no-codes");
    let login = Process::start(home.path(), &config(&relay.url), &["login", "--device"]);
    let line = login.line("/authorize?");
    assert!(parameter(&line, "redirect_uri").is_some_and(|to| to.starts_with("http://127.0.0.1:")), "{line}");
}

#[test]
fn relay_cannot_send_people_elsewhere() {
    for wrong in [
        json!({"device_authorization_endpoint": "https://evil.example/device"}),
        json!({"introspection_endpoint": "https://evil.example/introspect"}),
    ] {
        let relay = Strict::start(&wrong);
        let home = Scratch::new("elsewhere");
        let output = run(home.path(), &config(&relay.url), &["login", "--device"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("another server"), "{said}");
        assert_eq!(relay.asked(), Vec::<String>::new());
    }
}

#[test]
fn logout_keeps_what_it_cannot_revoke_unless_it_is_forced() {
    let home = Scratch::new("logout-down");
    // Nobody listens there.
    let relay = "http://127.0.0.1:1";
    spent_tokens(home.path(), relay);
    let refused = run(home.path(), &config(relay), &["logout"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(4) && said.contains("logout --force"), "{refused:?}");
    assert_eq!(tokens(home.path())["refreshToken"], "r1", "it can still be revoked");
    let (code, said) = output(home.path(), relay, &["logout", "--force"]);
    assert!(code == Some(0) && said.contains("lives on"), "{said}");
    assert_eq!(std::fs::read(token_file(home.path())).expect("is there"), b"");
    assert_eq!(output(home.path(), relay, &["logout"]), (Some(0), format!("was not signed in to {relay}\n")));
}

#[test]
fn logout_with_a_file_that_nobody_understands_says_that_nothing_was_revoked() {
    let home = Scratch::new("logout-corrupt");
    let relay = Strict::start(&json!({}));
    spent_tokens(home.path(), &relay.url);
    std::fs::write(token_file(home.path()), "{\"issuer\": \"http").expect("writes");
    let (code, said) = output(home.path(), &relay.url, &["logout"]);
    assert!(code == Some(0) && said.contains("nothing could be revoked"), "{said}");
    assert_eq!(relay.asked(), Vec::<String>::new());
}
