//! What becomes of a relay whose state is lost, damaged, or on a disk that is full.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Process, Relay, Reply, command_of, program, run};

const INITIALIZE: &[u8] =
    br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

/// The status of a request with that token.
fn ask(relay: &Relay, token: &str) -> u16 {
    relay.post("/mcp", token, INITIALIZE).status
}

/// A relay whose keys are not in its state directory.
fn with_secret(name: &str) -> Relay {
    Relay::with(name, &json!({"secret": "a secret of the operator's own"}))
}

fn store(relay: &Relay) -> PathBuf {
    relay.state_dir().join("state.redb")
}

#[test]
fn lost_store_brings_nobody_back_who_was_signed_out() {
    let lose: [fn(&Path) -> std::io::Result<()>; 2] =
        [|store| std::fs::remove_file(store), |store| std::fs::write(store, "")];
    for (round, lose) in lose.into_iter().enumerate() {
        let mut relay = with_secret(&format!("state-lost-{round}"));
        let (revoked, good, agent) =
            (relay.mint("ada", "client"), relay.mint("eve", "client"), relay.mint("ada", "agent"));
        let out = run(relay.home.path(), &relay.config, &["grants", "revoke", "--user", "ada"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!([&revoked, &good].map(|token| ask(&relay, token)), [401, 200]);
        relay.process.kill();
        lose(&store(&relay)).expect("it is there");
        relay.kill_and_restart();
        assert_eq!([&revoked, &good].map(|token| ask(&relay, token)), [401, 401]);
        assert_eq!(dial(&relay, &agent).status, 401);
        let next = relay.mint("ada", "client");
        assert_eq!(ask(&relay, &next), 200);
        relay.kill_and_restart();
        assert_eq!([&revoked, &good, &next].map(|token| ask(&relay, token)), [401, 401, 200]);
    }
}

/// An agent's request for the tunnel.
fn dial(relay: &Relay, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Mcp-Tunnel", "2"),
    ];
    relay.http("GET", "/ws?name=laptop", &headers, b"")
}

#[test]
fn relay_without_a_state_directory_says_what_a_restart_does() {
    let mut relay = with_secret("state-nowhere");
    relay.process.kill();
    let file = relay.home.path().join("file");
    std::fs::write(&file, "").expect("written");
    relay.config["stateDir"] = json!(file.join("below"));
    relay.process = Process::start(relay.home.path(), &relay.config, &[]);
    relay.ready();
    let line = relay.process.line("kept in memory");
    assert!(line.contains("every restart signs everybody out") && line.contains("`secret`"), "{line}");
}

#[test]
fn damaged_store_is_named_in_one_line() {
    let mut relay = Relay::start("state-damaged");
    relay.mint("ada", "client");
    relay.process.kill();
    let whole = std::fs::read(store(&relay)).expect("it is there");
    for content in [&whole[..whole.len() / 2], &whole[..20], b"not a store"] {
        std::fs::write(store(&relay), content).expect("written");
        relay.process = Process::start(relay.home.path(), &relay.config, &[]);
        assert_eq!(relay.process.wait(), Some(1), "{}", relay.process.log());
        relay.process.line("state.redb is damaged");
        assert_eq!(relay.process.log().lines().count(), 1, "{}", relay.process.log());
    }
}

#[test]
fn key_that_others_could_read_is_named_and_narrowed() {
    let mut relay = Relay::start("state-key-mode");
    let token = relay.mint("ada", "client");
    let key = relay.state_dir().join("master.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).expect("it is ours");
    relay.kill_and_restart();
    assert!(relay.process.line("others could read").contains("revoke-all"));
    assert_eq!(std::fs::metadata(&key).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&relay, &token), 200);
}

#[test]
fn key_that_is_gone_while_its_grants_are_there_is_warned_of() {
    let mut relay = Relay::start("state-key-gone");
    let tokens = [relay.mint("ada", "client"), relay.mint("ada", "agent")];
    relay.process.kill();
    let (key, kept) = (relay.state_dir().join("master.key"), relay.home.path().join("kept.key"));
    std::fs::rename(&key, &kept).expect("it is ours");
    relay.process = Process::start(relay.home.path(), &relay.config, &[]);
    relay.ready();
    let warning = relay.process.line("the master key is gone");
    assert!(warning.contains("grants=2"), "{warning}");
    assert_eq!(ask(&relay, &tokens[0]), 401);
    relay.process.kill();
    std::fs::rename(&kept, &key).expect("it is ours");
    relay.process = Process::start(relay.home.path(), &relay.config, &[]);
    relay.ready();
    assert_eq!(ask(&relay, &tokens[0]), 200, "and comes back with it");
    assert!(!relay.process.log().contains("is gone"), "{}", relay.process.log());
}

/// The relay once more, by a shell that keeps it from being killed for writing more than it may: to such a process, the
/// disk is full.
#[cfg(target_os = "linux")]
fn start_limited(relay: &Relay, limit: &str) -> Process {
    let script = format!("trap '' XFSZ; ulimit -S -f {limit}; exec \"$0\"");
    let program = program();
    let args = ["-c", &script, program.to_str().expect("a path")];
    Process::of(command_of(Path::new("sh"), relay.home.path(), &relay.config, &args))
}

#[cfg(target_os = "linux")]
#[test]
fn relay_goes_on_when_its_disk_has_room_again() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let mut relay = Relay::start("state-full");
    let before = relay.mint("ada", "client");
    relay.process.kill();
    relay.process = start_limited(&relay, "unlimited");
    relay.ready();
    let maximum = getrlimit(Resource::Fsize).maximum;
    let pid = Pid::from_raw(relay.process.pid().cast_signed());
    let limit = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum }).map(drop).expect("it is ours");
    let mut after = Vec::new();
    for _ in 0..2 {
        limit(Some(0));
        for _ in 0..2 {
            let (code, answer) = mint(&relay);
            assert!(code == 1 && answer["token"].is_null(), "{answer}");
        }
        assert_eq!(ask(&relay, &before), 200, "what needs no writing goes on");
        limit(maximum);
        after.push(relay.mint("ada", "client"));
        assert!(after.iter().all(|token| ask(&relay, token) == 200), "as soon as there is room");
    }
    let log = relay.process.log();
    assert!(log.contains("the store is open again") && !log.contains("panicked"), "{log}");
    relay.kill_and_restart();
    assert!(after.iter().all(|token| ask(&relay, token) == 200), "and what was acknowledged is kept");
}

#[cfg(target_os = "linux")]
fn mint(relay: &Relay) -> (i32, Value) {
    let output = run(relay.home.path(), &relay.config, &["token", "create", "ada", "--role", "client", "--json"]);
    (output.status.code().expect("it ends"), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[cfg(target_os = "linux")]
#[test]
fn disk_that_is_full_at_the_start_is_not_called_damage() {
    let mut relay = Relay::start("state-full-start");
    let token = relay.mint("ada", "client");
    relay.process.kill();
    relay.process = start_limited(&relay, "0");
    assert_eq!(relay.process.wait(), Some(1), "{}", relay.process.log());
    let line = relay.process.line("cannot be read or written");
    assert!(line.contains("state.redb") && !line.contains("damaged"), "{line}");
    relay.kill_and_restart();
    assert_eq!(ask(&relay, &token), 200);
}
