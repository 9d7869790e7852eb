//! `bench`: what it measures, and what it leaves alone, against a relay, an agent and the reference server.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Agent, Client, Relay, Scratch};

/// A relay, and an agent with the reference server as `ref`.
struct Place {
    relay: Relay,
    _agent: Agent,
    home: Scratch,
    token: String,
}

impl Place {
    /// `None` where the reference server is not built.
    fn new(name: &str) -> Option<Self> {
        let reference = reference()?;
        let relay = Relay::start(name);
        // Of one era: else there are two processes of it, and each counts by itself.
        let agent = relay.agent("laptop", &json!({"ref": {"command": [reference, "--era", "modern"]}}));
        let token = relay.mint("ada", "client");
        let place = Self { relay, _agent: agent, home: Scratch::new(&format!("{name}-bench")), token };
        place.client().until_listed("ref__echo");
        Some(place)
    }

    fn client(&self) -> Client<'_> {
        Client::with_token(&self.relay, self.token.clone())
    }

    fn url(&self) -> String {
        format!("{}/mcp", self.relay.url())
    }

    /// Measures the relay for a second.
    fn bench(&self, args: &[&str]) -> Ran {
        let url = self.url();
        let args: Vec<_> =
            ["--token", "env:BENCH_TOKEN", "--seconds", "1"].into_iter().chain(args.iter().copied()).collect();
        bench(self.home.path(), &self.token, &url, &args)
    }

    /// How many calls of tools the server has had, the one that asks it included.
    fn called(&self) -> u64 {
        let answer = self.client().call("ref__seen", &json!({}));
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let seen: Value = serde_json::from_str(text).expect("JSON");
        seen["tools/call"].as_u64().unwrap_or_else(|| panic!("{seen}"))
    }
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn runs(&self) -> Vec<Value> {
        let document: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("JSON: {self:?}"));
        document["runs"].as_array().expect("runs").clone()
    }
}

fn bench(home: &Path, token: &str, url: &str, args: &[&str]) -> Ran {
    let mut command = support::command_of(&support::program(), home, &json!({}), &["bench"]);
    let Output { status, stdout, stderr } =
        command.args(args).arg(url).env("BENCH_TOKEN", token).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn reference() -> Option<PathBuf> {
    let reference = Path::new(env!("CARGO_BIN_EXE_mcp-local-tunnel")).with_file_name("tunnel-reference");
    if !reference.is_file() {
        support::skip("no tunnel-reference; `cargo build -p tunnel-reference` builds it");
        return None;
    }
    Some(reference)
}

/// Figures of a run in which nothing failed.
#[track_caller]
fn assert_sane(run: &Value) {
    let number = |name: &str| run[name].as_f64().unwrap_or_else(|| panic!("{name}: {run}"));
    let latency = |name: &str| run["latencyMs"][name].as_f64().unwrap_or_else(|| panic!("{name}: {run}"));
    assert!(run["failures"] == 0 && run["firstError"].is_null(), "{run}");
    assert!(number("calls") > 0.0 && number("seconds") >= 0.9, "{run}");
    let counted = number("callsPerSecond") * number("seconds");
    assert!((counted - number("calls")).abs() < 1e-3, "{run}");
    let carried = number("bytesPerSecond") * number("seconds") / number("calls");
    assert!((carried - number("bytesEach")).abs() < 1.0, "{run}");
    let times = ["p50", "p90", "p99", "max"].map(latency);
    assert!(times[0] > 0.0 && times.is_sorted() && times[3] <= number("seconds") * 1e3, "{run}");
    // Each caller waits for its answer: they cannot have waited for longer than there was time.
    if run["rate"].is_null() {
        assert!(number("calls") / 2.0 * times[0] <= number("callers") * number("seconds") * 1e3, "{run}");
    }
}

#[test]
fn without_a_tool_it_only_reads_and_its_figures_agree() {
    let Some(place) = Place::new("bench-reads") else { return };
    let before = place.called();
    let ran = place.bench(&["--json", "--callers", "1,4", "--log-level", "trace"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(place.called(), before + 1, "no tool was called but the one that says so");
    assert!(ran.stderr.contains("No tool is called."), "{ran:?}");
    let runs = ran.runs();
    let asked: Vec<_> =
        runs.iter().map(|run| (run["asked"].as_str().expect("a name"), run["callers"].as_u64())).collect();
    let each = |what| [1, 4].map(|callers| (what, Some(callers)));
    assert_eq!(asked, [each("server/discover"), each("tools/list")].concat());
    runs.iter().for_each(assert_sane);
    assert!(runs[2]["bytesEach"].as_u64() > runs[0]["bytesEach"].as_u64(), "a list is longer: {runs:?}");
    assert!(!ran.stdout.contains(&place.token) && !ran.stderr.contains(&place.token), "the token is told nobody");
}

#[test]
fn tool_that_only_reads_is_called_as_often_as_is_told() {
    let Some(place) = Place::new("bench-calls") else { return };
    let before = place.called();
    let tool = ["--tool", "ref__echo", "--arguments", r#"{"a": 1}"#, "--callers", "2", "--json"];
    let closed = place.bench(&tool);
    let fixed = place.bench(&[&tool[..], &["--rate", "20"]].concat());
    let mut calls = 0;
    for ran in [&closed, &fixed] {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let runs = ran.runs();
        let run = runs.last().expect("a run of the tool");
        assert_eq!(run["asked"], "tools/call ref__echo");
        assert_sane(run);
        calls += run["calls"].as_u64().expect("a number");
    }
    assert_eq!(place.called(), before + calls + 1);
    for run in fixed.runs() {
        // On a machine that is busy some may be due when nobody is free.
        let due = run["calls"].as_u64().zip(run["missed"].as_u64()).map(|(calls, missed)| calls + missed);
        assert_eq!(due, Some(20), "{run}");
    }
}

#[test]
fn tool_that_may_write_is_refused_until_it_is_allowed() {
    let Some(place) = Place::new("bench-writes") else { return };
    let before = place.called();
    let tool = ["--tool", "ref__greet", "--arguments", r#"{"name": "you"}"#, "--callers", "1"];
    let refused = place.bench(&tool);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    for said in ["ref__greet", "readOnlyHint", "--allow-writes"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    let unknown = place.bench(&["--tool", "ref__nothing"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("has no tool ref__nothing"), "{unknown:?}");
    assert_eq!(place.called(), before + 1, "neither was called");
    let allowed = place.bench(&[&tool[..], &["--allow-writes"]].concat());
    assert!(allowed.code == Some(0) && allowed.stdout.contains("tools/call ref__greet"), "{allowed:?}");
    assert!(place.called() > before + 2, "it was called");
}

#[test]
fn failed_calls_are_counted_told_and_not_insisted_on() {
    let Some(place) = Place::new("bench-fails") else { return };
    let args = ["--tool", "ref__echo_error", "--allow-writes", "--callers", "1", "--json"];
    // Each failure is followed by a tenth of a second of rest.
    let ran = place.bench(&args);
    let runs = ran.runs();
    let run = runs.last().expect("a run of the tool");
    assert!(run["calls"] == run["failures"] && run["failures"].as_u64() <= Some(11), "{run}");
    assert!(
        run["latencyMs"].is_null() && run["firstError"].as_str().is_some_and(|why| why.contains("-32099")),
        "{run}"
    );
    assert!(ran.code == Some(1) && ran.stderr.contains("tools/call ref__echo_error failed"), "{ran:?}");
}

#[test]
fn server_of_the_older_era_is_pinged_in_a_session() {
    let Some(reference) = reference() else { return };
    let mut server = Command::new(reference)
        .args(["--http", "0", "--era", "legacy"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut url = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut url).expect("it says where it is");
    let home = Scratch::new("bench-legacy");
    let ran = bench(home.path(), "", url.trim(), &["--seconds", "1", "--callers", "3", "--json"]);
    server.kill().and_then(|()| server.wait()).expect("it is ours");
    let runs = ran.runs();
    assert_eq!((ran.code, &runs[0]["asked"]), (Some(0), &json!("ping")), "{ran:?}");
    runs.iter().for_each(assert_sane);
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is() {
    let relay = Relay::start("bench-cannot");
    let home = Scratch::new("bench-cannot-bench");
    let with = |url: &str, args: &[&str]| bench(home.path(), "mlt_nobody_made_this", url, args);
    let token = ["--token", "env:BENCH_TOKEN"];
    let mcp = format!("{}/mcp", relay.url());
    let nowhere = format!("http://127.0.0.1:{}/mcp", support::free_port());
    let page = format!("{}/healthz", relay.url());
    for (url, args, code, said) in [
        (mcp.as_str(), &token[..], 3, "the endpoint does not take the token"),
        (page.as_str(), &token[..], 1, "it answered"),
        (nowhere.as_str(), &token[..], 4, "cannot reach"),
        ("http://relay.example/mcp", &token[..], 1, "--allow-insecure"),
        (mcp.as_str(), &["--token", "mlt_nobody_made_this"], 2, "--token must be env:NAME or file:PATH"),
        (mcp.as_str(), &["--token", "env:BENCH_NO_SUCH"], 2, "BENCH_NO_SUCH"),
        (mcp.as_str(), &["--tool", "a", "--arguments", "[1]"], 2, "must be a JSON object"),
        (mcp.as_str(), &["--callers", "257"], 2, "from 1 to 256"),
        (mcp.as_str(), &["--allow-writes"], 2, "--tool"),
    ] {
        let ran = with(url, args);
        assert!(ran.code == Some(code) && ran.stderr.contains(said) && ran.stdout.is_empty(), "{said}: {ran:?}");
        assert!(!ran.stderr.contains("mlt_nobody_made_this"), "{ran:?}");
        assert!(!ran.stderr.contains("Asking "), "nothing was begun: {ran:?}");
    }
}
