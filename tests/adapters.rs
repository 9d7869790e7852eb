//! The two adapters are one text, but for what their runtimes are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOKIO: &str = "runtime-tokio";
const ASYNC_STD: &str = "runtime-async-std";

/// What is each runtime's own; `rt/` is what tokio's other crates have ready.
const OWN: [&str; 4] = ["src/rt.rs", "src/stream.rs", "src/rt/", "tests/host/"];

/// What a text that both share may name of tokio: code without a runtime.
const NEUTRAL: [&str; 4] = ["tokio::sync", "tokio::select!", "tokio::pin!", "tokio::join!"];

/// What it may not name at all.
const RUNTIMES: [&str; 9] = [
    "tokio::",
    "tokio_rustls",
    "hyper_util",
    "async_std",
    "async_io",
    "async_process",
    "async_signal",
    "futures_rustls",
    "smol::",
];

#[test]
fn files_are_the_same_but_for_what_the_runtimes_are() {
    let (tokio, async_std) = (files(TOKIO), files(ASYNC_STD));
    assert!(tokio.len() > 50, "the adapter's files are found: {}", tokio.len());
    let others: Vec<_> = tokio
        .keys()
        .chain(async_std.keys())
        .filter(|path| !is_own(path) && tokio.get(*path) != async_std.get(*path))
        .collect();
    assert!(others.is_empty(), "these are to be one text (a link in {ASYNC_STD}): {others:?}");
    for own in ["src/rt.rs", "src/stream.rs"] {
        assert!(tokio.contains_key(own) && async_std.contains_key(own), "both have {own}");
    }
}

#[test]
fn files_that_are_shared_name_no_runtime() {
    let mut found = Vec::new();
    for (path, text) in files(TOKIO).iter().filter(|(path, _)| !is_own(path)) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let rest = NEUTRAL.iter().fold(code.to_owned(), |code, neutral| code.replace(neutral, ""));
            if RUNTIMES.iter().any(|runtime| rest.contains(runtime)) {
                found.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "what they need of a runtime is in rt.rs:\n{}", found.join("\n"));
}

#[test]
fn program_on_async_std_brings_no_second_runtime() {
    let tree = ["tree", "--locked", "--offline", "-p", "mcp-local-tunnel", "--no-default-features"];
    let output = Command::new(env!("CARGO"))
        .args(tree)
        .args(["--features", "async-std,acme", "-e", "normal", "--prefix", "none", "-f", "{p} {f}"])
        .current_dir(root())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let names: Vec<_> = tree.lines().map(name).collect();
    assert!(names.iter().any(|name| name == "async-std"), "it runs on async-std:\n{tree}");
    for foreign in ["mio", "tokio-rustls", "tokio-util", "hyper-util", "tunnel-runtime-tokio"] {
        assert!(!names.iter().any(|name| name == foreign), "{foreign} is tokio's:\n{tree}");
    }
    let tokio = tree.lines().find(|line| name(line) == "tokio").expect("its channels are used");
    let features = tokio.split(' ').nth(2).unwrap_or_default();
    assert_eq!(features, "default,macros,sync,tokio-macros", "nothing that runs anything (`default` is empty)");
}

/// async-std is discontinued: what is used of it can be had of smol in one line, which `rt.rs` lists.
#[test]
fn what_is_used_of_async_std_has_its_equal_in_smol() {
    let files = files(ASYNC_STD);
    let mut used = BTreeSet::new();
    for (_, text) in files.iter().filter(|(path, _)| is_own(path)) {
        let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let code = code.join("\n");
        for (at, name) in code.match_indices("async_std::") {
            let (before, rest) = (&code[..at], &code[at + name.len()..]);
            let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
            let end = if before.ends_with("use ") { rest.find(';') } else { rest.find(|letter| !is_path(letter)) };
            used.extend(words(&rest[..end.expect("it ends")]).map(str::to_owned));
        }
        for (at, name) in code.match_indices("task::").filter(|(at, _)| !code[..*at].ends_with("::")) {
            used.extend(words(&code[at + name.len()..]).next().map(str::to_owned));
        }
    }
    let some = ["TcpStream", "ToSocketAddrs", "UnixListener", "block_on", "spawn", "spawn_blocking", "test"];
    assert!(some.iter().all(|name| used.contains(*name)), "what is used is found: {used:?}");
    let table = files["src/rt.rs"].lines().filter_map(|line| line.strip_prefix("//! | `")?.split(" | ").next());
    let listed: BTreeSet<_> = table.flat_map(words).map(str::to_owned).collect();
    let missing: Vec<_> = used.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the table of {ASYNC_STD}/src/rt.rs: {missing:?}");
}

#[test]
fn readme_states_how_much_differs() {
    let output = Command::new("diff")
        .args(["-rN", "runtime-tokio/src", "runtime-async-std/src"])
        .current_dir(root())
        .output()
        .expect("diff is installed");
    let diff = String::from_utf8(output.stdout).expect("sources are UTF-8");
    let lines = |mark: &str| diff.lines().filter(|line| line.starts_with(mark)).count();
    let whole: usize =
        files(TOKIO).iter().filter(|(path, _)| path.starts_with("src/")).map(|(_, text)| text.lines().count()).sum();
    let thousands = whole.div_ceil(1000);
    let stated = format!(
        "Of the {thousands} 000 lines of `{TOKIO}/src` (rounded up), {} are tokio's; `{ASYNC_STD}/src` has {} in their place",
        lines("<"),
        lines(">")
    );
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&readme).contains(&stated), "the README is to say: {stated}");
}

fn is_own(path: &str) -> bool {
    OWN.iter().any(|own| path.starts_with(own))
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// The sources of an adapter and of its tests, by their paths in it.
fn files(adapter: &str) -> BTreeMap<String, String> {
    let dir = root().join(adapter);
    let mut found = BTreeMap::new();
    for part in ["src", "tests"] {
        collect(&dir, &dir.join(part), &mut found);
    }
    found
}

fn collect(base: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("the folder can be read") {
        let path = entry.expect("its entries too").path();
        if path.is_dir() {
            collect(base, &path, found);
            continue;
        }
        let name = path.strip_prefix(base).expect("it is beneath").to_string_lossy().into_owned();
        found.insert(name, fs::read_to_string(&path).expect("a source file is text"));
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
