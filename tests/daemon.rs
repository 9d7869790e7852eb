//! Editors' stubs and the agent in the background, as real processes: who starts it, who shares it, when it ends, and
//! how everybody finds back when something is killed, stopped or upgraded.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Process, Relay, Scratch, eventually, program, runs};

const GRACE: Duration = Duration::from_millis(1500);
/// More than enough for what takes milliseconds on a machine that is not busy.
const SOON: Duration = Duration::from_secs(20);

/// A person's home directory and configuration; what runs in the background ends with the value.
struct Home {
    dir: Scratch,
    config: Value,
    program: PathBuf,
}

impl Home {
    /// With a relay that is never there: what is tested here does not need one.
    fn new(name: &str) -> Self {
        Self::with_relay(name, "http://127.0.0.1:1", "a-token")
    }

    fn with_relay(name: &str, relay: &str, token: &str) -> Self {
        let dir = Scratch::new(&format!("daemon-{name}"));
        let file = dir.path().join("token");
        std::fs::write(&file, token).expect("its home can be written");
        let config = json!({
            "mode": "agent", "relay": relay, "name": "laptop", "token": format!("file:{}", file.display()),
            "servers": {"demo": {"command": [program(), "demo-server"]}},
        });
        Self { dir, config, program: program() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = support::command_of(program, self.path(), &self.config, args);
        command.env_remove("WAYLAND_DISPLAY").env("DAEMON_GRACE_PERIOD_MS", GRACE.as_millis().to_string());
        command.env("MCP_LOCAL_TUNNEL_LOG", format!("info,{}=off", self.mark()));
        command
    }

    /// What tells this home's daemons from others: the environment of a daemon cannot be read, but it has this on its
    /// command line, as part of the log level.
    fn mark(&self) -> String {
        let name = self.path().file_name().expect("it has a name").to_string_lossy();
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(&self.program, args).output().expect("the program runs")
    }

    /// What a command prints with `--json`.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    }

    fn stub(&self) -> Stub {
        self.stub_of(&self.program)
    }

    fn stub_of(&self, program: &Path) -> Stub {
        Stub::start(self.command(program, &[]))
    }

    /// A stub that has its session.
    fn attached(&self) -> Stub {
        let mut stub = self.stub();
        stub.until("running");
        stub
    }

    /// The agents in the background that run with this home.
    fn daemons(&self) -> Vec<u64> {
        let mark = format!("info,{}=off\0", self.mark());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("this is Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if contains(&line, b"\0--daemon\0") && contains(&line, mark.as_bytes()) && runs(pid) {
                found.push(pid);
            }
        }
        found
    }

    /// The one agent in the background.
    fn daemon(&self) -> u64 {
        eventually("there is one daemon", SOON, || match self.daemons()[..] {
            [pid] => Ok(pid),
            ref others => Err(format!("{others:?}\n{}", self.log())),
        })
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.run(&["logs"]).stdout).into_owned()
    }

    /// The agent's file with that ending.
    fn file(&self, ending: &str) -> PathBuf {
        let run = self.path().join(".config/mcp-local-tunnel/run");
        let mut files = std::fs::read_dir(run).expect("it ran").flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|own| own == ending)).expect("it is there")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", self.log());
        }
        for pid in self.daemons() {
            kill(pid, "-KILL");
        }
    }
}

/// The program as an editor starts it.
struct Stub {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    next_id: u64,
}

impl Stub {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).expect("stdout carries nothing but messages");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, lines, next_id: 1 }
    }

    fn send(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().expect("it is open");
        writeln!(stdin, "{message}").expect("the stub reads");
    }

    fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let answer = self.lines.recv_timeout(SOON).expect("an answer in time");
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// What the tool shows, as data.
    fn status(&mut self) -> Value {
        let answer = self.request("tools/call", &json!({"name": "status", "arguments": {}}));
        answer["result"]["structuredContent"].clone()
    }

    /// Waits until the tool says so.
    fn until(&mut self, agent: &str) -> Value {
        eventually(&format!("the agent is {agent}"), SOON, || {
            let status = self.status();
            if status["agent"] == agent { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// Ends it as an editor does.
    fn close(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("it is ours");
        assert_eq!(status.code(), Some(0), "a stub ends well");
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where a browser would open: what opens it writes down what it was to open.
struct Screen {
    path: String,
    opened: PathBuf,
}

impl Screen {
    fn new(home: &Home) -> Self {
        let (bin, opened) = (home.path().join("bin"), home.path().join("opened"));
        std::fs::create_dir(&bin).expect("it is new");
        let script = format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >> {}\n", opened.display());
        for opener in ["xdg-open", "open"] {
            replace(&bin.join(opener), script.as_bytes());
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("there is a PATH"));
        Self { path, opened }
    }

    /// An editor's stub that has it.
    fn stub(&self, home: &Home) -> Stub {
        let mut command = home.command(&home.program, &[]);
        command.env("PATH", &self.path).env("DISPLAY", ":0");
        Stub::start(command)
    }

    /// Two of them, which wait for one sign-in, and its URL.
    fn two_stubs(&self, home: &Home) -> (Stub, Stub, String) {
        let (mut one, mut other) = (self.stub(home), self.stub(home));
        let url = self.url();
        one.until("signing-in");
        other.until("signing-in");
        (one, other, url)
    }

    fn urls(&self) -> String {
        std::fs::read_to_string(&self.opened).unwrap_or_default()
    }

    /// The first that is opened.
    fn url(&self) -> String {
        eventually("a browser is opened", SOON, || self.urls().lines().next().map(str::to_owned).ok_or(self.urls()))
    }
}

/// Goes back from the sign-in that `url` begins as a browser does whose person said no.
fn deny(url: &str) {
    let query = |name: &str| {
        let mut pairs = url.split(['?', '&']).filter_map(|pair| pair.split_once('='));
        pairs.find(|(own, _)| *own == name).expect("it is asked for").1
    };
    let back = query("redirect_uri").replace("%3A", ":").replace("%2F", "/");
    let (host, path) = back.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = std::net::TcpStream::connect(host).expect("somebody listens for the code");
    let target = format!("/{path}?error=access_denied&state={}", query("state"));
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn kill(pid: u64, signal: &str) {
    drop(Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status());
}

fn ends(pid: u64, within: Duration) -> Duration {
    let start = Instant::now();
    eventually("the daemon ends", within, || if runs(pid) { Err(format!("{pid} runs")) } else { Ok(start.elapsed()) })
}

#[test]
fn stub_starts_the_daemon_and_answers_in_both_eras() {
    let relay = Relay::start("stub-relay");
    let home = Home::with_relay("both-eras", &relay.url(), &relay.mint("ada", "agent"));
    let mut stub = home.stub();
    let hello = stub.request("initialize", &json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
    assert_eq!(hello["result"]["protocolVersion"], "2025-06-18", "answered without waiting for the daemon");
    stub.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert_eq!(stub.request("ping", &json!({}))["result"], json!({}));
    let tools = stub.request("tools/list", &json!({}));
    assert_eq!(tools["result"]["tools"][0]["annotations"]["readOnlyHint"], true);
    let meta = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}}});
    assert_eq!(stub.request("server/discover", &meta)["result"]["supportedVersions"], json!(["2026-07-28"]));
    eventually("the tunnel is up, and its server too", SOON, || {
        let status = stub.status();
        let up =
            status["status"]["relay"]["state"] == "connected" && status["status"]["servers"][0]["state"] == "ready";
        if up && status["endpoint"] == format!("{}/mcp", relay.url()) { Ok(()) } else { Err(status.to_string()) }
    });
    let mut client = support::Client::connect(&relay);
    client.until_listed("demo__echo");
    let (socket, pid) = (home.file("sock"), home.file("pid"));
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&pid), mode(socket.parent().expect("it has one"))), (0o600, 0o600, 0o700));
    stub.close();
}

#[test]
fn stubs_share_a_daemon_that_outlives_the_first_and_ends_a_grace_after_the_last() {
    let home = Home::new("share");
    let first = home.attached();
    let pid = home.daemon();
    let second = home.attached();
    assert_eq!(home.daemon(), pid);
    first.close();
    std::thread::sleep(GRACE * 2);
    assert!(runs(pid), "the second stub is there");
    second.close();
    let took = ends(pid, GRACE + SOON);
    assert!(took >= GRACE - Duration::from_millis(100), "{took:?}");
    let run = home.path().join(".config/mcp-local-tunnel/run");
    assert_eq!(std::fs::read_dir(run).expect("it is there").count(), 0, "no file is left");
}

#[test]
fn running_agent_is_found_while_its_configuration_is_broken() {
    let home = Home::new("broken");
    let file = home.path().join("config.json");
    let run = |args: &[&str]| {
        let output = home.command(&home.program, args).env("MCP_LOCAL_TUNNEL_CONFIG", &file).output();
        output.expect("the program runs")
    };
    let status = || -> Value { serde_json::from_slice(&run(&["status", "--json"]).stdout).expect("an agent answers") };
    std::fs::write(&file, home.config.to_string()).expect("its home can be written");
    assert!(run(&["start"]).status.success());
    std::fs::write(&file, "{ broken").expect("its home can be written");
    assert_eq!(status()["device"], "laptop");
    let refused = run(&["restart"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("could not be read"), "{refused:?}");
    assert!(status()["remark"].as_str().is_some_and(|text| text.contains("could not be read")), "{}", status());
    assert!(run(&["stop"]).status.success());
    let without = run(&["status"]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("cannot be used"), "{without:?}");
}

#[test]
fn stub_during_the_grace_keeps_the_daemon() {
    let home = Home::new("grace");
    home.attached().close();
    let pid = home.daemon();
    let _second = home.attached();
    std::thread::sleep(GRACE * 2);
    assert_eq!(home.daemon(), pid);
}

#[test]
fn two_configurations_are_two_daemons() {
    let mut home = Home::new("two");
    let _one = home.attached();
    home.config["name"] = "other".into();
    let mut other = home.attached();
    assert_eq!(home.daemons().len(), 2);
    assert_eq!(other.status()["status"]["device"], "other");
}

#[test]
fn killed_stub_counts_as_gone() {
    let home = Home::new("killed-stub");
    let mut stub = home.attached();
    let pid = home.daemon();
    stub.child.kill().expect("it is ours");
    assert!(ends(pid, GRACE + SOON) >= GRACE - Duration::from_millis(100));
}

#[test]
fn ten_stubs_at_once_end_with_one_daemon() {
    let home = Home::new("ten");
    let mut stubs: Vec<_> = (0..10).map(|_| home.stub()).collect();
    for stub in &mut stubs {
        stub.until("running");
    }
    let pid = home.daemon();
    std::thread::sleep(GRACE * 2);
    assert_eq!(home.daemons(), [pid], "and it stays so");
}

#[test]
fn killed_daemon_is_replaced_for_old_stubs_and_new_ones() {
    let home = Home::new("killed-daemon");
    let mut stub = home.attached();
    let pid = home.daemon();
    kill(pid, "-KILL");
    ends(pid, SOON);
    let mut next = home.attached();
    let second = home.daemon();
    stub.until("running");
    assert!(second != pid && home.daemon() == second);
    // Once more, with nobody new: the stubs that are there bring it back.
    kill(second, "-KILL");
    ends(second, SOON);
    stub.until("running");
    next.until("running");
    assert!(home.daemon() != second);
}

#[test]
fn stale_files_are_replaced() {
    let home = Home::new("stale");
    // Once it has run, its files' names are known: what a crash leaves is put there.
    let run = home.path().join(".config/mcp-local-tunnel/run");
    let name = home.json(&["start"])["log"].as_str().map(|log| PathBuf::from(log).with_extension("")).expect("a path");
    assert!(home.run(&["stop"]).status.success());
    let name = name.file_name().expect("it has one").to_owned();
    let (socket, pid) = (run.join(&name).with_extension("sock"), run.join(&name).with_extension("pid"));
    drop(UnixListener::bind(&socket).expect("leaves its file behind"));
    // A process that lives, but is no agent: ids are used again.
    std::fs::write(&pid, std::process::id().to_string()).expect("writes");
    let _stub = home.attached();
    let owner = std::fs::read_to_string(&pid).expect("reads");
    assert_eq!(owner.trim().parse(), Ok(home.daemon()));
}

#[test]
fn orphan_ends_and_its_stubs_find_the_new_owner() {
    let home = Home::new("orphan");
    let mut stub = home.attached();
    let orphan = home.daemon();
    for file in ["sock", "pid"] {
        std::fs::remove_file(home.file(file)).expect("removes");
    }
    let _other = home.attached();
    ends(orphan, SOON);
    let owner = home.daemon();
    assert_ne!(owner, orphan);
    stub.until("running");
    assert_eq!(std::fs::read_to_string(home.file("pid")).expect("reads").trim().parse(), Ok(owner));
}

#[test]
fn daemon_without_its_socket_makes_room() {
    let home = Home::new("no-socket");
    let mut stub = home.attached();
    let lost = home.daemon();
    std::fs::remove_file(home.file("sock")).expect("removes");
    ends(lost, SOON);
    stub.until("running");
    assert_ne!(home.daemon(), lost);
}

/// A copy of the program that takes itself for another version.
fn other_version(home: &Home, version: &str) -> PathBuf {
    let own = env!("CARGO_PKG_VERSION").as_bytes();
    assert_eq!(own.len(), version.len());
    let mut content = std::fs::read(program()).expect("the program can be read");
    let places: Vec<_> =
        content.windows(own.len()).enumerate().filter(|(_, text)| *text == own).map(|(at, _)| at).collect();
    for at in places {
        content[at..at + own.len()].copy_from_slice(version.as_bytes());
    }
    let path = home.path().join("mcp-local-tunnel");
    replace(&path, &content);
    let output = Command::new(&path).arg("--version").output().expect("the copy runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains(version), "{output:?}");
    path
}

/// As a package manager does: a running program keeps its old file.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("writes");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("sets");
    std::fs::rename(&new, path).expect("renames");
}

#[test]
fn newer_stub_replaces_the_daemon_and_older_sessions_follow() {
    let home = Home::new("upgrade");
    let installed = other_version(&home, "1.9.9");
    let mut old = home.stub_of(&installed);
    assert_eq!(old.until("running")["status"]["version"], "1.9.9");
    let before = home.daemon();
    let content = std::fs::read(program()).expect("the program can be read");
    replace(&installed, &content);
    let mut new = home.stub_of(&installed);
    assert_eq!(new.until("running")["status"]["version"], env!("CARGO_PKG_VERSION"));
    ends(before, SOON);
    let after = home.daemon();
    eventually("the old session follows", SOON, || {
        let status = old.status();
        if status["status"]["version"] == env!("CARGO_PKG_VERSION") { Ok(()) } else { Err(status.to_string()) }
    });
    std::thread::sleep(GRACE);
    assert_eq!(home.daemon(), after, "the older stub does not bring its own version back");
}

#[test]
fn older_stub_joins_a_newer_daemon() {
    let home = Home::new("downgrade");
    let _new = home.attached();
    let pid = home.daemon();
    let mut old = home.stub_of(&other_version(&home, "1.9.9"));
    assert_eq!(old.until("running")["status"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(home.daemon(), pid);
}

#[test]
fn stopped_daemon_stays_stopped_until_it_is_started() {
    let home = Home::new("stop");
    let mut stub = home.attached();
    let pid = home.daemon();
    assert_eq!(home.json(&["stop"]), json!({"stopped": true, "pid": pid, "killed": false}));
    // It gave everything up; the system may still be taking the process apart.
    eventually("the process is gone", SOON, || if runs(pid) { Err(pid.to_string()) } else { Ok(()) });
    assert!(stub.until("stopped")["problem"].as_str().is_some_and(|text| text.contains("mcp-local-tunnel start")));
    assert_eq!(home.json(&["stop"]), json!({"stopped": false, "pid": null, "killed": false}));
    std::thread::sleep(Duration::from_secs(3));
    assert!(home.daemons().is_empty(), "the stub looks, but starts nothing");
    let started = home.json(&["start"]);
    assert_eq!((&started["started"], &started["pid"]), (&json!(true), &json!(home.daemon())));
    stub.until("running");
    stub.close();
    assert_eq!(home.json(&["start"])["started"], false);
    std::thread::sleep(GRACE * 2);
    assert_eq!(json!(home.daemon()), started["pid"], "what was started stays without any session");
    assert_eq!(home.json(&["restart", "demo"])["servers"], json!(["demo"]));
    assert!(!home.run(&["restart", "nonsense"]).status.success());
    let status = home.json(&["status"]);
    assert_eq!(status["device"], "laptop");
    assert_eq!(
        status["process"],
        json!({"pid": started["pid"], "kind": "daemon", "kept": true, "sessions": 0, "log": started["log"]})
    );
    let text = String::from_utf8_lossy(&home.run(&["status"]).stdout).into_owned();
    assert!(text.contains(&format!("pid {}, in the background, until it is stopped", started["pid"])), "{text}");
}

#[test]
fn logs_are_shown_and_followed() {
    let home = Home::new("logs");
    assert_eq!(home.run(&["logs"]).status.code(), Some(1));
    home.json(&["start"]);
    let mut following = home.command(&home.program, &["logs", "-f", "-n", "0", "--json"]);
    let mut following = following.stdout(Stdio::piped()).spawn().expect("starts");
    let lines = BufReader::new(following.stdout.take().expect("it is piped")).lines();
    // It must have begun to follow before what it is to show is written.
    std::thread::sleep(Duration::from_secs(1));
    assert!(home.run(&["stop"]).status.success());
    let mut last = lines.map_while(Result::ok);
    assert!(last.any(|line| line.starts_with("{\"line\":") && line.contains("stopping")));
    following.kill().expect("it is ours");
    following.wait().expect("it is ours");
    assert!(home.log().contains("stopping"));
    let last = home.run(&["logs", "-n", "1"]).stdout;
    assert_eq!(last.iter().filter(|byte| **byte == b'\n').count(), 1);
}

#[test]
fn without_sign_in_or_screen_the_tool_says_what_to_run() {
    let mut home = Home::new("no-sign-in");
    home.config.as_object_mut().expect("it is one").remove("token");
    let mut stub = home.stub();
    let status = stub.until("needs-login");
    assert!(status["problem"].as_str().is_some_and(|text| text.contains("mcp-local-tunnel login")), "{status}");
    assert!(home.daemons().is_empty(), "there is nothing to run");
    let start = home.run(&["start"]);
    assert!(start.status.code() == Some(3), "{start:?}");
}

#[test]
fn stubs_sign_in_once_and_the_daemon_never_opens_a_browser() {
    let relay = Relay::start("stub-sign-in");
    let mut home = Home::with_relay("sign-in", &relay.url(), "");
    home.config.as_object_mut().expect("it is one").remove("token");
    let screen = Screen::new(&home);
    let (mut one, mut other, url) = screen.two_stubs(&home);
    assert!(home.daemons().is_empty());
    support::browser::sign_in(&relay, &url);
    one.until("running");
    other.until("running");
    let pid = home.daemon();
    eventually("the tunnel is up", SOON, || {
        let status = one.status();
        if status["status"]["relay"]["state"] == "connected" { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(screen.urls().lines().count(), 1, "for both");
    // Signed out elsewhere: the daemon says so and ends, and nobody opens a second browser unasked.
    assert!(home.run(&["logout"]).status.success());
    kill(pid, "-HUP");
    eventually("a sign-in is needed", Duration::from_secs(60), || {
        let status = other.status();
        if status["agent"] == "needs-login" { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(screen.urls().lines().count(), 1);
}

#[test]
fn sign_in_that_was_denied_is_not_asked_for_by_the_next_editor() {
    let relay = Relay::start("stub-denied");
    let mut home = Home::with_relay("denied", &relay.url(), "");
    home.config.as_object_mut().expect("it is one").remove("token");
    let screen = Screen::new(&home);
    let (mut one, mut other, url) = screen.two_stubs(&home);
    deny(&url);
    for stub in [&mut one, &mut other, &mut screen.stub(&home)] {
        let status = stub.until("needs-login");
        assert!(status["problem"].as_str().is_some_and(|text| text.contains("refused")), "{status}");
    }
    assert_eq!(screen.urls().lines().count(), 1, "for all");
}

#[test]
fn daemon_that_cannot_start_says_why_at_once() {
    let no_variable: fn(&mut Home) = |home| home.config["token"] = "env:NO_SUCH_TOKEN".into();
    let empty_token: fn(&mut Home) = |home| std::fs::write(home.path().join("token"), "").expect("writes");
    let no_logs: fn(&mut Home) = |home| {
        let dir = home.path().join(".config/mcp-local-tunnel");
        std::fs::create_dir_all(&dir).expect("makes");
        std::fs::write(dir.join("logs"), "a file").expect("writes");
    };
    let no_run: fn(&mut Home) = |home| {
        let dir = home.path().join(".config/mcp-local-tunnel");
        std::fs::create_dir_all(&dir).expect("makes");
        std::fs::write(dir.join("run"), "a file").expect("writes");
    };
    for (break_it, word) in [
        (no_variable, "NO_SUCH_TOKEN"),
        (empty_token, "there is no token"),
        (no_logs, "cannot write"),
        (no_run, "mcp-local-tunnel/run/agent-"),
    ] {
        let mut home = Home::new("cannot-start");
        break_it(&mut home);
        let begun = Instant::now();
        let start = home.run(&["start"]);
        let said = String::from_utf8_lossy(&start.stderr);
        assert!(start.status.code() == Some(2) && said.contains(word), "{word}: {start:?}");
        assert!(begun.elapsed() < SOON / 2, "it is not tried again and again: {:?}", begun.elapsed());
        let status = home.stub().until("broken");
        assert!(status["problem"].as_str().is_some_and(|text| text.contains(word)), "{word}: {status}");
    }
}

#[test]
fn configured_token_that_is_refused_can_be_replaced_in_its_file() {
    let relay = Relay::start("stub-token");
    let home = Home::with_relay("token", &relay.url(), "mlt_nobodys");
    let mut stub = home.stub();
    let status = stub.until("needs-token");
    let problem = status["problem"].as_str().expect("words");
    assert!(problem.contains("token create") && !problem.contains("mcp-local-tunnel login"), "{problem}");
    std::fs::write(home.path().join("token"), relay.mint("ada", "agent")).expect("writes");
    eventually("the tunnel is up", SOON, || {
        let status = stub.status();
        if status["status"]["relay"]["state"] == "connected" { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn browser_is_not_waited_for_once_there_are_tokens() {
    let relay = Relay::start("stub-elsewhere");
    let mut home = Home::with_relay("elsewhere", &relay.url(), "");
    home.config.as_object_mut().expect("it is one").remove("token");
    // Makes the file, so that its name is known.
    assert!(home.run(&["logout"]).status.success());
    let mut stub = Stub::start({
        let mut command = home.command(&home.program, &[]);
        command.env("PATH", "/nowhere").env("DISPLAY", ":0");
        command
    });
    stub.until("signing-in");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(stub.status()["agent"], "signing-in", "nobody signed in");
    let dir = home.path().join(".config/mcp-local-tunnel/tokens");
    let mut files = std::fs::read_dir(dir).expect("it is there").flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|end| end == "json")).expect("it was made");
    let tokens = json!({
        "issuer": relay.url(), "clientId": "mcp-local-tunnel-agent", "accessToken": relay.mint("ada", "agent"),
        "expiresAt": 4_000_000_000_000_u64,
    });
    replace(&file, tokens.to_string().as_bytes());
    eventually("the tunnel is up", SOON, || {
        let status = stub.status();
        if status["status"]["relay"]["state"] == "connected" { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn daemon_that_hangs_is_named_and_ended() {
    let home = Home::new("hangs");
    let pid = home.json(&["start"])["pid"].as_u64().expect("a process");
    let server = eventually("its server runs", SOON, || {
        home.json(&["status"])["servers"][0]["pid"].as_u64().ok_or_else(|| home.log())
    });
    kill(pid, "-STOP");
    let begun = Instant::now();
    let status = home.run(&["status"]);
    let said = String::from_utf8_lossy(&status.stderr);
    assert!(said.contains(&format!("pid {pid}")) && said.contains("mcp-local-tunnel stop"), "{said}");
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    assert_eq!(home.json(&["stop"]), json!({"stopped": true, "pid": pid, "killed": true}));
    eventually("nothing is left", SOON, || if runs(pid) || runs(server) { Err(home.log()) } else { Ok(()) });
    assert_eq!(home.json(&["start"])["started"], true);
}

#[test]
fn agent_that_was_stopped_by_force_stays_stopped_under_an_editor() {
    let home = Home::new("forced-stop");
    let mut stub = home.attached();
    for foreground in [false, true] {
        let agent = foreground.then(|| Process::start(home.path(), &home.config, &["agent"]));
        if let Some(agent) = &agent {
            agent.line("relay will be dialled again");
            stub.until("running");
        }
        let pid = home.json(&["status"])["process"]["pid"].as_u64().expect("a process");
        kill(pid, "-STOP");
        assert_eq!(home.json(&["stop"]), json!({"stopped": true, "pid": pid, "killed": true}));
        stub.until("stopped");
        std::thread::sleep(Duration::from_secs(3));
        assert!(home.daemons().is_empty(), "the stub looks, but starts nothing");
        assert_eq!(stub.status()["agent"], "stopped");
    }
    let _new = home.attached();
    stub.until("running");
    let pid = home.daemon();
    kill(pid, "-KILL");
    eventually("another one runs", SOON, || match home.daemons()[..] {
        [other] if other != pid => Ok(()),
        ref others => Err(format!("{others:?}")),
    });
}

#[test]
fn agent_in_the_foreground_is_joined_and_left_alone() {
    let home = Home::new("foreground");
    let mut agent = Process::start(home.path(), &home.config, &["agent"]);
    agent.line("relay will be dialled again");
    let stub = home.attached();
    assert!(home.daemons().is_empty());
    assert_eq!(home.json(&["status"])["process"]["sessions"], 1);
    let started = home.json(&["start"]);
    assert_eq!(
        (&started["kind"], &started["log"], &started["started"]),
        (&json!("foreground"), &json!(null), &json!(false))
    );
    stub.close();
    std::thread::sleep(GRACE * 2);
    assert!(agent.is_running());
    let second = Process::start(home.path(), &home.config, &["agent"]);
    second.line("running already");
    assert_eq!(home.json(&["stop"])["stopped"], true);
    assert_eq!(agent.wait(), Some(0));
}

#[test]
fn foreground_is_had_with_a_pipe_as_stdin_too() {
    let home = Home::new("forced");
    let mut child = home
        .command(&home.program, &["agent", "--foreground"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    eventually("it answers", SOON, || {
        let output = home.run(&["status", "--json"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    });
    assert!(home.daemons().is_empty());
    drop(child.stdin.take());
    std::thread::sleep(Duration::from_millis(300));
    assert!(matches!(child.try_wait(), Ok(None)), "the end of stdin does not end it");
    kill(u64::from(child.id()), "-TERM");
    assert_eq!(child.wait().expect("it is ours").code(), Some(0));
}
