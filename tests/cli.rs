//! The program from outside: what it prints, what it exits with, what it refuses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A home directory of its own, removed at the end.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mcp-local-tunnel-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("writes");
    }

    /// The program, in this directory and with nothing of the caller's environment.
    fn command(&self, args: &[&str]) -> Command {
        let program = std::env::var_os("TUNNEL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_mcp-local-tunnel").into());
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.0).env_clear().env("HOME", &self.0).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().expect("starts"))
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        child.stdin.take().expect("is piped").write_all(input.as_bytes()).expect("writes");
        Ran::from(child.wait_with_output().expect("ends"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("is UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

const RELAY: &str = r#"{"mode":"relay","auth":{"issuer":"https://id.example.com"}}"#;
const AGENT: &str = r#"{"mode":"agent","relay":"tunnel.example.com","servers":{"a":{"command":["touch","ran"],"env":{"KEY":"hunter2"}}}}"#;

#[test]
fn help_and_version_go_to_stdout_and_teach() {
    let home = Home::new();
    let help = home.run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for word in ["Exit codes:", "Examples:", "3  sign-in is needed", "\"mode\": \"relay\""] {
        assert!(help.stdout.contains(word), "{word}\n{}", help.stdout);
    }
    assert!(!help.stdout.contains("__guard") && !help.stdout.contains("demo-server"));
    assert!(home.run(&["--version"]).stdout.starts_with("mcp-local-tunnel 2."));
    for command in ["relay", "agent", "demo", "login", "config", "token", "completions", "hash-password"] {
        assert_eq!(home.run(&[command, "--help"]).code, Some(0), "{command}");
    }
}

#[test]
fn usage_of_grants_revoke_has_both_ways() {
    let home = Home::new();
    let help = home.run(&["grants", "revoke", "--help"]);
    assert!(help.stdout.contains("grants revoke [OPTIONS] <ID|--user <USER>>"), "{}", help.stdout);
    for args in [&["grants", "revoke"][..], &["grants", "revoke", "x", "--user", "ada"]] {
        assert_eq!(home.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn help_does_not_show_the_configuration_of_the_environment() {
    let home = Home::new();
    let config = r#"{"secret":"hunter2"}"#;
    let help = Ran::from(home.command(&["--help"]).env("MCP_LOCAL_TUNNEL_CONFIG", config).output().expect("starts"));
    assert!(help.code == Some(0) && !help.stdout.contains("hunter2"), "{help:?}");
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let home = Home::new();
    for args in [
        &["frobnicate"][..],
        &["--frobnicate"],
        &["demo", "--port", "65536"],
        &["token", "create", "ada"],
        &["token", "create", "ada", "--role", "client", "--expires", "soon"],
        &["--log-level", "loud", "gen-secret"],
        &["--log-format", "xml", "gen-secret"],
        &[],
        &["relay"],
        &["agent"],
        &["--config", "missing.json"],
        &["--config", "{"],
        &["--config", RELAY, "agent"],
        &["--config", AGENT, "relay"],
        &["--config", AGENT, "token", "list"],
    ] {
        let ran = home.run(args);
        assert!(ran.code == Some(2) && ran.stdout.is_empty() && ran.stderr.starts_with("error:"), "{args:?}: {ran:?}");
    }
}

#[test]
fn configuration_is_checked_from_text_path_environment_and_directory() {
    let home = Home::new();
    home.write("named.json", RELAY);
    home.write("mcp-local-tunnel.config.json", AGENT);
    for (args, variable, mode) in [
        (&["--config", RELAY, "config", "check"][..], AGENT, "relay"),
        (&["--config", "named.json", "config", "check"], AGENT, "relay"),
        (&["config", "check"], RELAY, "relay"),
        (&["config", "check"], "named.json", "relay"),
        (&["config", "check"], "", "agent"),
    ] {
        let ran = Ran::from(home.command(args).env("MCP_LOCAL_TUNNEL_CONFIG", variable).output().expect("starts"));
        assert!(ran.code == Some(0) && ran.stdout.contains(&format!("mode {mode}")), "{args:?}: {ran:?}");
    }
}

#[test]
fn check_names_every_problem_and_strict_takes_warnings_as_errors() {
    let home = Home::new();
    let ran = home.run(&["config", "check", "--config", r#"{"mode":"relay","auth":{"isuer":"x"},"prt":1}"#]);
    assert_eq!(ran.code, Some(2));
    for line in
        ["warning: prt is not a setting: did you mean port?", "warning: auth.isuer", "error: auth.issuer is missing"]
    {
        assert!(ran.stdout.contains(line), "{line}\n{}", ran.stdout);
    }
    let unknown = r#"{"mode":"relay","auth":{"issuer":"https://id.example.com"},"prt":1}"#;
    assert_eq!(home.run(&["config", "check", "--config", unknown]).code, Some(0));
    let strict = home.run(&["config", "check", "--strict", "--json", "--config", unknown]);
    assert_eq!(strict.code, Some(2));
    assert!(
        strict.stdout.contains(r#""path": "prt""#) && strict.stdout.contains(r#""ok": false"#),
        "{}",
        strict.stdout
    );
    let broken = home.run(&["config", "check", "--json", "--config", r#"{"mode":"relay"}"#]);
    assert!(broken.code == Some(2) && broken.stdout.contains(r#""mode": "relay""#), "{broken:?}");
}

#[test]
fn logout_says_that_nobody_was_signed_in() {
    let ran = Home::new().run(&["logout", "http://127.0.0.1:9"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("was not signed in to http://127.0.0.1:9"), "{ran:?}");
}

#[test]
fn failure_is_a_json_document_where_one_was_asked_for() {
    let home = Home::new();
    let broken = r#"{"mode":"relay"}"#;
    for (args, code, member) in [
        (&["status", "--json", "--config", AGENT][..], 1, "error"),
        (&["restart", "--json", "--config", AGENT], 1, "error"),
        (&["logs", "--json", "--config", AGENT], 1, "error"),
        (&["start", "--json", "--config", broken], 2, "error"),
        (&["start", "--json", "--config", "missing.json"], 2, "error"),
        (&["whoami", "--json", "http://127.0.0.1:9"], 3, "error"),
        (&["config", "check", "--json", "--config", broken], 2, "problems"),
        (&["logout", "--json", "http://127.0.0.1:9"], 0, "signedOut"),
        (&["gen-secret", "--json"], 0, "secret"),
        (&["deny", "--json"], 2, "error"),
        (&["pins", "--json"], 2, "error"),
        (&["token", "create", "--json", "ada"], 2, "error"),
        (&["frobnicate", "--json"], 2, "error"),
        (&["--json", "status", "--frobnicate"], 2, "error"),
        (&["--json", "--log-level", "loud", "status"], 2, "error"),
    ] {
        let ran = home.run(args);
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
        assert!(ran.code == Some(code) && document.get(member).is_some(), "{args:?}: {ran:?}");
        assert!(member != "error" || document["exitCode"] == code, "{args:?}: {ran:?}");
        assert!(document["error"].as_str().is_none_or(|text| !text.contains("error:")), "{args:?}: {ran:?}");
        assert_eq!(!ran.stderr.is_empty(), code != 0, "people are told too: {args:?}: {ran:?}");
    }
}

#[test]
fn what_is_no_command_is_no_request_for_json() {
    let home = Home::new();
    for args in [&["deny", "--", "--json"][..], &["frobnicate"]] {
        let ran = home.run(args);
        assert!(ran.code == Some(2) && ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
    let help = home.run(&["pins", "--json", "--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("Usage:"), "{help:?}");
    let hash = home.run_with_input(&["hash-password", "--json"], "correct horse\n");
    let hash: serde_json::Value = serde_json::from_str(&hash.stdout).expect("one JSON document");
    assert!(hash["passwordHash"].as_str().is_some_and(|text| text.starts_with("$argon2id$")), "{hash}");
}

#[test]
fn whoami_warns_of_a_setting_once() {
    let home = Home::new();
    let config = r#"{"mode":"agent","relay":"http://127.0.0.1:9","servers":{},"nonsense":1}"#;
    let ran = home.run(&["whoami", "--config", config]);
    assert_eq!(ran.stderr.matches("nonsense").count(), 1, "{ran:?}");
}

#[test]
fn forced_logout_says_why_the_sign_in_lives_on() {
    let home = Home::new();
    let tokens = home.path().join(".config/mcp-local-tunnel/tokens");
    // Makes the directory.
    assert_eq!(home.run(&["logout", "http://127.0.0.1:9"]).code, Some(0));
    let names: Vec<_> = fs::read_dir(&tokens).expect("it is there").flatten().map(|entry| entry.path()).collect();
    let file = names.iter().find(|path| path.extension().is_some_and(|end| end == "json"));
    fs::write(file.unwrap_or_else(|| panic!("{names:?}")), "no tokens").expect("writes");
    let ran = home.run(&["logout", "--force", "--json", "http://127.0.0.1:9"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    assert!(ran.code == Some(0) && document["signedOut"] == true && document["revoked"] == false, "{ran:?}");
    assert!(document["livesOn"] == true && document["cause"].is_string(), "{ran:?}");
}

#[test]
fn proxy_or_certificates_that_can_never_be_used_are_told_at_once() {
    let home = Home::new();
    home.write("token", "mlt_a_token");
    let agent = r#"{"mode":"agent","relay":"tunnel.example.com","servers":{},"token":"file:token"}"#;
    for (variable, value) in [("HTTPS_PROXY", "socks5://127.0.0.1:9"), ("SSL_CERT_FILE", "/no/such/file")] {
        let foreground = ["agent", "--foreground", "--config", agent];
        for (args, code) in [(&["login", "tunnel.example.com"][..], 1), (&foreground, 2)] {
            let ran = Ran::from(home.command(args).env(variable, value).output().expect("starts"));
            assert!(ran.code == Some(code) && ran.stderr.contains(variable), "{args:?}: {ran:?}");
        }
    }
}

#[test]
fn check_tells_of_an_audit_that_cannot_be_written() {
    let home = Home::new();
    let config = |path: &str| AGENT.replacen('{', &format!(r#"{{"audit":"{path}","#), 1);
    let ran = home.run(&["config", "check", "--config", &config("/no/such/directory/audit.log")]);
    assert!(ran.code == Some(0) && ran.stdout.contains("warning: audit cannot be written"), "{ran:?}");
    let fine = home.path().join("audit.log");
    let ran = home.run(&["config", "check", "--strict", "--config", &config(&fine.display().to_string())]);
    assert!(ran.code == Some(0) && !fine.exists(), "{ran:?}");
}

#[test]
fn check_tells_of_what_a_relay_could_not_keep_and_of_a_weak_secret() {
    let home = Home::new();
    home.write("file", "");
    let file = home.path().join("file");
    let config = |more: serde_json::Value| {
        let mut config = serde_json::json!({"mode": "relay", "auth": {"issuer": "https://id.example.com"}});
        let members = config.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        home.run(&["config", "check", "--config", &config.to_string()])
    };
    let beneath = file.join("state");
    for (more, expected) in [
        (serde_json::json!({"secret": "short"}), vec!["secret is not a generated one"]),
        (serde_json::json!({"secret": ["short", "other"]}), vec!["secret[0] is not", "secret[1] is not"]),
        (serde_json::json!({"stateDir": beneath}), vec!["stateDir cannot be used here"]),
        (serde_json::json!({"stateDir": beneath, "audit": true}), vec!["stateDir cannot", "audit cannot be written"]),
        (serde_json::json!({"audit": "/no/such/directory/audit.log"}), vec!["audit cannot be written here"]),
        (serde_json::json!({"trustedProxies": ["0.0.0.0/0"]}), vec!["trustedProxies[0] trusts half the world"]),
        (serde_json::json!({"stateDir": home.path().join("not/yet"), "audit": true}), vec![]),
        (serde_json::json!({"audit": home.path().join("audit.log")}), vec![]),
    ] {
        let ran = config(more.clone());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.stdout.matches("warning: ").count(), expected.len(), "{more} {ran:?}");
        for words in expected {
            assert!(ran.stdout.contains(&format!("warning: {words}")), "{more} {ran:?}");
        }
    }
    assert!(!home.path().join("not").exists() && !home.path().join("audit.log").exists(), "nothing is left behind");
}

#[test]
fn check_names_secrets_that_are_not_there_and_keys_that_do_not_fit() {
    let home = Home::new();
    let mut config = serde_json::json!({"mode": "relay",
        "auth": {"issuer": "https://id.example.com", "clientSecret": "env:NO_SUCH_VARIABLE_HERE"},
        "clients": [{"id": "ci", "name": "CI", "redirectUris": ["https://ci.example/"], "secret": "file:/no/such/file"}]});
    let ran = home.run(&["config", "check", "--config", &config.to_string()]);
    assert_eq!(ran.code, Some(0), "they may be where the relay runs: {ran:?}");
    for line in ["warning: auth.clientSecret cannot be had here", "warning: clients[0].secret cannot be had here"] {
        assert!(ran.stdout.contains(line), "{line}\n{}", ran.stdout);
    }
    assert_eq!(home.run(&["config", "check", "--strict", "--config", &config.to_string()]).code, Some(2));
    let started = home.run(&["relay", "--config", &config.to_string()]);
    assert!(started.code == Some(2) && started.stderr.contains("auth.clientSecret: the variable"), "{started:?}");

    config["auth"]["clientSecret"] = "a secret itself".into();
    config["clients"] = serde_json::json!([]);
    let issued = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let (one, other) = (issued("one.example"), issued("other.example"));
    home.write("cert.pem", &one.cert.pem());
    for (key, severity) in [(one.signing_key.serialize_pem(), None), (other.signing_key.serialize_pem(), Some("error"))]
    {
        home.write("key.pem", &key);
        config["tls"] = serde_json::json!({"cert": home.path().join("cert.pem"), "key": home.path().join("key.pem")});
        let ran = home.run(&["config", "check", "--config", &config.to_string()]);
        assert_eq!(ran.code, Some(if severity.is_some() { 2 } else { 0 }), "{ran:?}");
        assert!(severity.is_none_or(|word| ran.stdout.contains(&format!("{word}: tls.key cannot be used"))), "{ran:?}");
    }
    config["tls"]["key"] = "/no/such/key.pem".into();
    let ran = home.run(&["config", "check", "--config", &config.to_string()]);
    assert!(
        ran.code == Some(0) && ran.stdout.contains("warning: tls.key cannot be used: /no/such/key.pem: "),
        "{ran:?}"
    );
}

#[test]
fn insecure_relay_needs_the_flag() {
    let home = Home::new();
    let config = AGENT.replace("tunnel.example.com", "http://tunnel.example.com");
    let refused = home.run(&["config", "check", "--config", &config]);
    assert!(refused.code == Some(2) && refused.stdout.contains("--allow-insecure"), "{refused:?}");
    assert_eq!(home.run(&["config", "check", "--allow-insecure", "--config", &config]).code, Some(0));
}

#[test]
fn found_agent_configuration_is_refused_without_a_terminal_and_the_remedy_is_named() {
    let home = Home::new();
    home.write("mcp-local-tunnel.config.json", AGENT);
    for args in [&[][..], &["agent"]] {
        let ran = home.run(args);
        assert!(ran.code == Some(2) && ran.stderr.contains("mcp-local-tunnel config trust"), "{args:?}: {ran:?}");
    }
    assert!(!home.path().join("ran").exists());
}

#[test]
fn trust_is_remembered_shows_no_value_and_ends_with_a_change() {
    let home = Home::new();
    home.write("mcp-local-tunnel.config.json", AGENT);
    let trusted = home.run(&["config", "trust"]);
    assert!(
        trusted.code == Some(0) && trusted.stdout.contains("a: touch ran") && !trusted.stdout.contains("hunter2"),
        "{trusted:?}"
    );
    let register = home.path().join(".config/mcp-local-tunnel/trusted.json");
    let text = fs::read_to_string(&register).expect("is written");
    assert!(text.contains("sha256") && !text.contains("hunter2"), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&register).expect("exists").permissions().mode() & 0o777, 0o600);
    }
    home.write("mcp-local-tunnel.config.json", &AGENT.replace("ran", "ran2"));
    let ran = home.run(&["agent"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("config trust"), "{ran:?}");
}

#[test]
fn secrets_are_new_each_time() {
    let home = Home::new();
    let (one, other) = (home.run(&["gen-secret"]), home.run(&["gen-secret"]));
    assert!(one.code == Some(0) && one.stdout.starts_with("mlts_") && one.stdout != other.stdout, "{one:?}");
}

#[test]
fn password_is_read_from_stdin_and_its_hash_fits_the_configuration() {
    let home = Home::new();
    let hashed = home.run_with_input(&["hash-password"], "correct horse\nsecond line\n");
    assert!(hashed.code == Some(0) && hashed.stdout.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed:?}");
    let config = format!(
        r#"{{"mode":"relay","auth":{{"local":{{"users":[{{"name":"ada","passwordHash":"{}"}}]}}}}}}"#,
        hashed.stdout.trim()
    );
    assert_eq!(home.run(&["config", "check", "--config", &config]).code, Some(0));
    assert_eq!(home.run_with_input(&["hash-password"], "\n").code, Some(2));
}

#[test]
fn failures_are_json_when_logs_are() {
    let home = Home::new();
    let ran = home.run(&["--log-format", "json", "--config", "missing.json"]);
    let line = ran.stderr.lines().last().unwrap_or_default();
    assert!(
        ran.code == Some(2)
            && line.starts_with('{')
            && line.contains("\"level\":\"ERROR\"")
            && line.contains("missing.json"),
        "{ran:?}"
    );
}

#[test]
fn completions_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = home.run(&["completions", shell]);
        assert!(ran.code == Some(0) && ran.stdout.contains("hash-password"), "{shell}");
    }
}

#[test]
fn demo_server_speaks_mcp() {
    let home = Home::new();
    let ran = home.run_with_input(
        &["demo-server"],
        "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\"}}\n\n{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}\n",
    );
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(ran.code == Some(0) && lines.len() == 2, "{ran:?}");
    assert!(
        lines[0].contains(r#""id":"a""#) && lines[0].contains("2025-11-25") && lines[1].contains("countdown"),
        "{ran:?}"
    );
}

#[test]
fn demo_walks_the_whole_way_and_leaves_nothing() {
    let home = Home::new();
    let mut command = home.command(&["demo", "--check"]);
    let ran = Ran::from(command.env("TMPDIR", home.path()).output().expect("starts"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for step in ["ask without a token", "sign in with the password", "demo__echo", "stream a result"] {
        assert!(ran.stdout.contains(step), "{step}\n{ran:?}");
    }
    assert_eq!(ran.stderr, "");
    assert_eq!(fs::read_dir(home.path()).expect("lists").count(), 0, "its files went with it");
}

#[test]
fn demo_runs_a_server_of_ones_own_and_names_the_step_that_fails() {
    let home = Home::new();
    let program = home.command(&[]).get_program().to_owned();
    let program = program.to_str().expect("is UTF-8");
    let ran = home.run(&["demo", "--check", "--json", "--", program, "demo-server"]);
    assert!(ran.code == Some(0) && ran.stdout.contains(r#""ok":true,"step":"call the status tool""#), "{ran:?}");
    let ran = home.run(&["demo", "--check", "--", "/no/such/program"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("the step \"list the tools\" failed") && ran.stderr.contains("/no/such/program"),
        "{ran:?}"
    );
}

#[test]
fn probe_says_what_it_met_in_its_exit_code() {
    let home = Home::new();
    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let away = home.run(&["probe", &format!("http://127.0.0.1:{port}/mcp")]);
    assert_eq!((away.code, away.stdout.as_str()), (Some(4), ""), "{}", away.stderr);
    let clear = home.run(&["probe", "http://relay.example/mcp"]);
    assert!(clear.code == Some(1) && clear.stderr.contains("--allow-insecure"), "{clear:?}");
    let secret = home.run(&["probe", "--client-id", "a", "--client-secret", "hunter2", "https://relay.example/mcp"]);
    assert!(secret.code == Some(2) && !secret.stderr.contains("hunter2"), "{secret:?}");
}
