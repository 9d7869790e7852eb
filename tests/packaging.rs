//! The packages that carry the program: npm's, tried with tarballs from disk, and what the container's image relies on.
#![cfg(target_os = "linux")]

mod support;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Relay, Scratch, descendants, eventually, program, runs};

#[test]
fn npm_package_is_the_program_itself() {
    let Some(project) = Project::shared() else { return };

    let version = project.run(&["--version"]);
    let own = Command::new(program()).arg("--version").output().expect("the program runs");
    assert_eq!(version.stdout, own.stdout, "{version:?}");
    assert!(own.stdout.starts_with(b"mcp-local-tunnel "));

    let usage = project.run(&["frobnicate"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    assert!(usage.stderr.starts_with(b"error:") && usage.stdout.is_empty(), "{usage:?}");

    let mut server = project.start(&["demo-server"]);
    let ask = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
    server.stdin.take().expect("is piped").write_all(ask.as_bytes()).expect("it reads");
    let answered = server.wait_with_output().expect("ends with its stdin");
    assert!(
        answered.status.success() && String::from_utf8_lossy(&answered.stdout).contains("\"id\":1"),
        "{answered:?}"
    );

    let npx =
        project.command("npx").args(["--offline", "-y", "mcp-local-tunnel", "--version"]).output().expect("npx runs");
    assert_eq!(npx.stdout, own.stdout, "{npx:?}");
}

#[test]
fn npm_package_passes_signals_on_and_dies_as_the_program_does() {
    let Some(project) = Project::shared() else { return };
    let home = Scratch::new("npm-signals");
    let config = json!({
        "mode": "relay", "host": "127.0.0.1", "port": support::free_port(), "stateDir": home.path().join("state"),
        "auth": {"issuer": "http://localhost:1"},
    });
    let start = || {
        let mut command = project.wrapper();
        command.env("MCP_LOCAL_TUNNEL_CONFIG", config.to_string()).stderr(Stdio::null());
        command.stdin(Stdio::null()).spawn().expect("starts")
    };
    let mut child = start();
    let relay = program_of(&child);
    let socket = home.path().join("state/admin.sock");
    eventually("the relay is up", Duration::from_secs(20), || socket.exists().then_some(()).ok_or("no socket".into()));
    signal(child.id(), Signal::TERM);
    assert_eq!(child.wait().expect("ours").code(), Some(0), "it ended in good order");
    eventually("the relay is gone", Duration::from_secs(5), || gone(relay));

    let mut child = start();
    let relay = program_of(&child);
    signal(u32::try_from(relay).expect("a process id"), Signal::KILL);
    assert_eq!(child.wait().expect("ours").signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn program_ends_with_its_editor_even_if_the_wrapper_is_killed() {
    let Some(project) = Project::shared() else { return };
    let mut child = project.start(&["demo-server"]);
    let server = program_of(&child);
    // As editors end what they started: no chance for the wrapper to say a word, and the pipe goes.
    child.kill().expect("ours");
    drop(child.stdin.take());
    drop(child.wait());
    eventually("the server saw its stdin end", Duration::from_secs(5), || gone(server));
}

#[test]
fn wrapper_without_its_platforms_package_says_what_mends_it() {
    let Some(project) = Project::shared() else { return };
    let home = Scratch::new("npm-alone");
    let script = home.path().join("mcp-local-tunnel.js");
    let installed = project.dir.path().join("node_modules/mcp-local-tunnel/bin/mcp-local-tunnel.js");
    std::fs::copy(installed, &script).expect("was installed");
    let wrapper = || {
        let mut command = Command::new(&script);
        command.stdin(Stdio::null()).env_remove("MCP_LOCAL_TUNNEL_BINARY");
        command
    };
    let alone = wrapper().arg("--version").output().expect("runs");
    let text = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.code() == Some(1) && text.contains("--omit=optional"), "{alone:?}");
    let named = wrapper().arg("--version").env("MCP_LOCAL_TUNNEL_BINARY", program()).output().expect("runs");
    assert!(named.status.success(), "{named:?}");
    let wrong = wrapper().env("MCP_LOCAL_TUNNEL_BINARY", "/no/such/program").output().expect("runs");
    assert!(wrong.status.code() == Some(1) && !wrong.stderr.is_empty(), "{wrong:?}");
}

#[test]
fn relay_without_a_place_to_write_warns_and_serves() {
    // A place where nothing can be made, by nobody.
    let relay = Relay::with("read-only", &json!({"stateDir": "/proc/mcp-local-tunnel"}));
    relay.process.line("kept in memory");
    assert_eq!(relay.http("GET", "/healthz", &[], b"").status, 200);
    assert_eq!(relay.http("GET", "/.well-known/oauth-authorization-server", &[], b"").status, 200);
}

#[test]
fn relay_on_a_read_only_root_warns_and_serves() {
    let home = Scratch::new("read-only-root");
    let port = support::free_port();
    let config = json!({"mode": "relay", "host": "127.0.0.1", "port": port, "auth": {"issuer": "http://localhost:1"}});
    // Everything read-only, as `docker run --read-only` has it; no home, and another user where that can be had.
    let script = "mount --make-rprivate / && mount -o remount,bind,ro / && for dir in /tmp /root /run /var /dev/shm; do \
         ! mountpoint -q $dir || mount -o remount,bind,ro $dir || exit 99; done; \
         if touch / /tmp/x 2>/dev/null; then exit 99; fi; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(program()).env_clear();
    command.env("MCP_LOCAL_TUNNEL_CONFIG", config.to_string()).env("STATE_DIRECTORY", home.path().join("state"));
    let log = home.path().join("log");
    let file = std::fs::File::create(&log).expect("writes");
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn() else {
        return support::skip("unshare is not installed");
    };
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let ended = eventually("the relay is up", Duration::from_secs(20), || match child.try_wait() {
        Ok(Some(status)) => Ok(Some(status)),
        _ if said().contains("relay up") => Ok(None),
        _ => Err(said()),
    });
    if let Some(status) = ended {
        assert!(!said().contains("relay") && !status.success(), "{status}: {}", said());
        return support::skip("mounts cannot be made read-only here");
    }
    let answers = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    drop(child.kill());
    drop(child.wait());
    assert!(answers && said().contains("kept in memory"), "{}", said());
}

// --- npm

/// A directory with the packages installed from tarballs.
struct Project {
    dir: Scratch,
}

impl Project {
    /// One for all tests that run side by side, since packing takes its time. `None`, said loudly, where there is no npm.
    fn shared() -> Option<Arc<Self>> {
        static MADE: Mutex<Weak<Project>> = Mutex::new(Weak::new());
        let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
        if !has("node") || !has("npm") {
            support::skip("node and npm are not installed");
            return None;
        }
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let project = made.upgrade().unwrap_or_else(|| Arc::new(Self::install()));
        *made = Arc::downgrade(&project);
        Some(project)
    }

    fn install() -> Self {
        let project = Self { dir: Scratch::new("npm") };
        let tarballs = project.dir.path().join("tarballs");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/npm/assemble.mjs");
        let platform = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-x64" };
        let mut assemble = project.command("node");
        assemble.arg(script).arg(&tarballs).arg(env!("CARGO_PKG_VERSION"));
        succeed(assemble.arg(format!("{platform}={}", program().display())));
        std::fs::write(project.dir.path().join("package.json"), "{\"private\": true}").expect("writes");
        let made = std::fs::read_dir(&tarballs).expect("was made").flatten().map(|entry| entry.path());
        let mut install = project.command("npm");
        install.args(["install", "--offline", "--no-audit", "--no-fund", "--loglevel=error"]);
        succeed(install.args(made));
        project
    }

    /// A command in the directory, with nothing of the caller's npm.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env_remove("MCP_LOCAL_TUNNEL_CONFIG");
        command.env("npm_config_cache", self.dir.path().join("cache")).env("npm_config_update_notifier", "false");
        command
    }

    fn wrapper(&self) -> Command {
        let place: PathBuf = self.dir.path().join("node_modules/.bin/mcp-local-tunnel");
        self.command(place.to_str().expect("a plain path"))
    }

    fn run(&self, args: &[&str]) -> Output {
        self.wrapper().args(args).stdin(Stdio::null()).output().expect("it runs")
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.wrapper();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts")
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The program that a wrapper started.
fn program_of(wrapper: &Child) -> u64 {
    eventually("the program runs", Duration::from_secs(20), || {
        descendants(wrapper.id()).first().copied().ok_or("nothing yet".into())
    })
}

fn gone(pid: u64) -> Result<(), String> {
    if runs(pid) { Err(format!("{pid} runs")) } else { Ok(()) }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}
