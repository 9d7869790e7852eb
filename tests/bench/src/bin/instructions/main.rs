//! How many instructions the hot paths of core take: a figure that a busy machine does not change, so that each change of
//! it is one of the program's.
//!
//! Each path is gone `n` times and `2 n` times under callgrind, from the same start: the difference, by `n`, is what one
//! time costs, and what comes before and after it cancels out.

mod pair;
mod paths;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::paths::Path;

/// Counts the instructions of the hot paths, and fails where one takes over 10 % more than its baseline.
#[derive(Parser)]
struct Options {
    /// Make what is counted now the baseline
    #[arg(long)]
    update: bool,
    #[command(subcommand)]
    command: Option<Internal>,
}

#[derive(Subcommand)]
enum Internal {
    /// Goes a path: what is counted
    #[command(hide = true)]
    Walk { path: Path, count: usize },
}

/// What the counts are compared with.
#[derive(Serialize, Deserialize)]
struct Baseline {
    /// What it was counted with: another compiler, libc or processor may take some more or less.
    with: String,
    /// Instructions of each path.
    counts: BTreeMap<String, u64>,
}

fn main() -> io::Result<ExitCode> {
    let options = Options::parse();
    if let Some(Internal::Walk { path, count }) = options.command {
        path.walk(count);
        return Ok(ExitCode::SUCCESS);
    }
    let mut counted = Baseline { with: machine()?, counts: BTreeMap::new() };
    for path in Path::value_variants() {
        let few = count(*path, path.count())?;
        let many = count(*path, 2 * path.count())?;
        counted.counts.insert(name(*path), (many - few) / path.count() as u64);
    }
    if options.update {
        let json = serde_json::to_string_pretty(&counted).map_err(io::Error::other)?;
        fs::write(BASELINE, json + "\n")?;
    }
    let baseline = serde_json::from_slice(&fs::read(BASELINE)?).map_err(io::Error::other)?;
    Ok(if compare(&counted, &baseline) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the table. Whether no path takes too much.
fn compare(counted: &Baseline, baseline: &Baseline) -> bool {
    tell(&format!("{:<18}{:>14}{:>14}{:>8}", "path", "instructions", "baseline", "ratio"));
    let mut remarks = Vec::new();
    let mut is_good = true;
    for (path, count) in &counted.counts {
        let Some(base) = baseline.counts.get(path) else {
            tell(&format!("{path:<18}{count:>14}{:>14}", "none"));
            remarks.push(format!("{path} has no baseline: {RENEW}"));
            is_good = false;
            continue;
        };
        tell(&format!("{path:<18}{count:>14}{base:>14}{:>8.3}", *count as f64 / *base as f64));
        if count * 10 > base * 11 {
            remarks.push(format!("REGRESSION: {path} takes over 10 % more. If that is its worth: {RENEW}"));
            is_good = false;
        } else if count * 10 < base * 9 {
            remarks.push(format!("{path} TAKES OVER 10 % LESS: lest that be lost again unseen, {RENEW}"));
        }
    }
    if counted.with != baseline.with {
        remarks.push(format!("counted with {}, and the baseline with {}", counted.with, baseline.with));
    }
    remarks.iter().for_each(|remark| tell(remark));
    is_good
}

/// How many instructions a process takes that goes `path` so often.
fn count(path: Path, count: usize) -> io::Result<u64> {
    let folder = PathBuf::from("target/instructions");
    fs::create_dir_all(&folder)?;
    let profile = folder.join(name(path));
    let mut command = Command::new("valgrind");
    // Nothing of the environment: it stands on the stack, and moves what is there.
    command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display()));
    let output = command.arg(env::current_exe()?).args(["walk", &name(path), &count.to_string()]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let profile = fs::read_to_string(profile)?;
    let summary = profile.lines().find_map(|line| line.strip_prefix("summary: ")?.parse().ok());
    summary.ok_or_else(|| io::Error::other("valgrind has written no summary"))
}

/// What counts depend on beside the program.
fn machine() -> io::Result<String> {
    let said = |program: &str| -> io::Result<String> {
        let output = Command::new(program).arg("--version").output().map_err(|error| {
            io::Error::new(error.kind(), format!("{program} is needed, and cannot be started: {error}"))
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok(format!("{}, {}, {}", said("rustc")?, said("valgrind")?, env::consts::ARCH))
}

fn name(path: Path) -> String {
    path.to_possible_value().expect("no path is hidden").get_name().to_owned()
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn tell(line: &str) {
    println!("{line}");
}

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
const RENEW: &str = "renew the baseline with `cargo run --release -p tunnel-bench --bin instructions -- --update`";
