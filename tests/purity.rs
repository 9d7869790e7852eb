//! Core performs no IO: the compiler forbids most of it (`no_std`), these tests forbid the rest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that are runtimes, or that nothing but a runtime needs.
const RUNTIMES: [&str; 16] = [
    "tokio",
    "async-std",
    "async-io",
    "async-executor",
    "async-global-executor",
    "smol",
    "futures-executor",
    "mio",
    "polling",
    "blocking",
    "hyper",
    "async-process",
    "async-signal",
    "async-tungstenite",
    "tokio-rustls",
    "futures-rustls",
];

/// Crates that would bring a socket, a process or a signal into core.
const SYSTEM: [&str; 3] = ["socket2", "rustix", "signal-hook"];

/// Words that no line of core's code may hold: clocks, sockets, files, threads, locks, runtimes, `std` itself.
const FORBIDDEN_WORDS: [&str; 21] = [
    "std::",
    "extern crate std",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "thread::",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "std::env",
    "std::process",
    "Mutex<",
    "RwLock<",
    "tokio",
    "async_std",
    "hyper::",
    "smol::",
    "SystemRandom",
    "static mut",
];

#[test]
fn core_depends_on_no_runtime_and_no_socket() {
    let names = tree("tunnel-core");
    assert!(names.contains("openidconnect"), "the tree is core's: {names:?}");
    let found: Vec<_> = RUNTIMES.iter().chain(&SYSTEM).filter(|name| names.contains(**name)).collect();
    assert!(found.is_empty(), "core depends on {found:?}");
}

#[test]
fn driver_on_threads_depends_on_core_and_no_runtime() {
    let names = tree("tunnel-threads");
    assert!(names.contains("tunnel-core") && names.contains("tungstenite"), "the tree is the driver's: {names:?}");
    let found: Vec<_> = RUNTIMES.iter().filter(|name| names.contains(**name)).collect();
    assert!(found.is_empty(), "the driver on threads depends on {found:?}");
}

/// The look that finds nothing above is not blind.
#[test]
fn adapters_depend_on_their_runtimes() {
    for (adapter, runtime) in [("tunnel-runtime-tokio", "tokio"), ("tunnel-runtime-async-std", "async-std")] {
        assert!(RUNTIMES.contains(&runtime) && tree(adapter).contains(runtime), "{adapter}");
    }
    assert!(SYSTEM.iter().any(|name| tree("tunnel-runtime-tokio").contains(*name)));
}

#[test]
fn core_is_no_std() {
    let lib = fs::read_to_string(root().join("core/src/lib.rs")).expect("core has a lib.rs");
    assert!(lib.lines().any(|line| line == "#![no_std]"), "core/src/lib.rs declares no_std");
}

#[test]
fn core_names_no_clock_socket_thread_or_runtime() {
    let files = sources(&root().join("core/src"));
    assert!(files.len() > 30, "core's sources are found: {}", files.len());
    let tests: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    assert!(!tests.is_empty(), "core has tests of its own");
    let mut found = Vec::new();
    for file in files
        .iter()
        .filter(|file| !tests.iter().any(|test| file.starts_with(test) || **file == test.with_extension("rs")))
    {
        let text = fs::read_to_string(file).expect("a source file is text");
        for (number, line) in code_lines(&text) {
            for word in FORBIDDEN_WORDS {
                if line.contains(word) {
                    found.push(format!("{}:{number}: {word}: {line}", file.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The names of all crates that are linked with `package`, its own among them.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", package, "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    tree.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

/// The modules that `file` declares for tests alone, as paths without an ending.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).expect("a source file is text");
    let is_root = file.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib");
    let dir = if is_root { file.parent().expect("a file is in a folder").to_owned() } else { file.with_extension("") };
    let declared = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| {
        let line = rest.lines().next()?.strip_suffix(';')?;
        line.rsplit_once("mod ").map(|(_, name)| dir.join(name))
    });
    declared.collect()
}

/// A file's lines but for comments and for what is compiled for tests alone, numbered from 1.
fn code_lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((index, line)) = lines.next() {
        let Some(indent) = line.strip_suffix("#[cfg(test)]") else {
            found.push((index + 1, line.split("//").next().unwrap_or_default()));
            continue;
        };
        // As rustfmt writes it, an item ends with the first line that stands where it began and ends so.
        let ends = |line: &str| {
            let rest = line.strip_prefix(indent).filter(|rest| !rest.starts_with([' ', '#']));
            rest.is_some_and(|rest| rest.ends_with([';', '}', ',']))
        };
        lines.by_ref().find(|(_, line)| ends(line));
    }
    found
}

#[test]
fn what_stands_behind_a_test_item_is_looked_at() {
    let text = "use a;\n#[cfg(test)]\nmod tests;\nb\n    #[cfg(test)]\n    #[c]\n    fn d(\n        e,\n    ) {\n        f;\n    }\n    g // h";
    assert_eq!(code_lines(text), [(1, "use a;"), (4, "b"), (12, "    g ")]);
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("core/src can be read") {
        let path = entry.expect("its entries too").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
