//! What mcp-local-tunnel costs: its relay and agent beside a pair that only forwards, in one run, turn by turn.

mod contender;
mod load;
mod measure;
mod process;
mod report;
mod role;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::measure::Bench;
use crate::report::Report;
use crate::role::IdAt;

/// Measures mcp-local-tunnel beside a pair that only forwards, and beside other programs that are installed.
#[derive(Parser)]
struct Options {
    /// Shorter turns, and fewer of them: under two minutes in place of ten
    #[arg(long)]
    quick: bool,
    /// Only these measurements
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<What>,
    /// Where the figures are written as JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Builds of the program, instead of one that is made of this source for each runtime: named by their files
    #[arg(long, value_delimiter = ',')]
    program: Vec<PathBuf>,
    /// Measure on tokio alone
    #[arg(long)]
    tokio_only: bool,
    #[command(subcommand)]
    command: Option<Internal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Calls,
    Payload,
    Beside,
    Lists,
    Memory,
    Restarts,
    Users,
    Swarm,
}

#[derive(Subcommand)]
enum Internal {
    /// One of the benchmark's own processes
    #[command(subcommand, hide = true)]
    Role(Role),
}

#[derive(Subcommand)]
enum Role {
    Server {
        #[arg(long)]
        id: IdAt,
        #[arg(long, default_value_t = 10)]
        tools: usize,
    },
    Direct {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        id: IdAt,
        #[arg(long, default_value_t = 10)]
        tools: usize,
    },
    Hop {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        to: u16,
    },
    FloorRelay {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        tunnel: u16,
    },
    FloorAgent {
        #[arg(long)]
        tunnel: u16,
        #[arg(last = true)]
        server: Vec<String>,
    },
    Swarm {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        tokens: PathBuf,
        #[arg(long)]
        each: usize,
        #[arg(long)]
        agents: usize,
    },
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    match options.command {
        Some(Internal::Role(role)) => play(role),
        None => {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, measure(options))
        }
    }
}

fn play(role: Role) -> io::Result<()> {
    match role {
        Role::Server { id, tools } => role::server::run(id, tools),
        Role::Direct { port, id, tools } => role::direct::run(port, id, tools),
        Role::Hop { port, to } => role::hop::run(port, to),
        Role::FloorRelay { port, tunnel } => role::floor::relay(port, tunnel),
        Role::FloorAgent { tunnel, server } => role::floor::agent(tunnel, &server),
        Role::Swarm { port, tokens, each, agents } => role::swarm::run(port, &tokens, each, agents),
    }
}

async fn measure(options: Options) -> io::Result<()> {
    let programs = match &options.program[..] {
        [] => build(options.tokio_only)?,
        [only] => vec![("ours".to_owned(), fs::canonicalize(only)?)],
        several => several.iter().map(named).collect::<io::Result<_>>()?,
    };
    let quick = options.quick;
    let (rounds, turn) = if quick { (2, Duration::from_millis(250)) } else { (3, Duration::from_millis(600)) };
    let mut bench = Bench { programs, others: installed(), quick, rounds, turn, report: Report::default() };
    let chosen = if options.only.is_empty() { What::value_variants() } else { &options.only };
    let start = Instant::now();
    for what in chosen {
        match what {
            What::Calls => measure::calls::run(&mut bench).await?,
            What::Payload => measure::payload::run(&mut bench).await?,
            What::Beside => measure::beside::run(&mut bench).await?,
            What::Lists => measure::lists::run(&mut bench).await?,
            What::Memory => measure::memory::run(&mut bench).await?,
            What::Restarts => measure::restarts::run(&mut bench).await?,
            What::Users => measure::users::run(&mut bench).await?,
            What::Swarm => measure::swarm::run(&mut bench).await?,
        }
        tell(&format!("{what:?}: done after {} s", start.elapsed().as_secs()));
    }
    if let Some(folder) = options.json.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&options.json, bench.report.json().map_err(io::Error::other)?)?;
    tell(&format!("the figures are in {}", options.json.display()));
    Ok(())
}

/// A build of the program, by its file's name.
fn named(program: &PathBuf) -> io::Result<(String, PathBuf)> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, fs::canonicalize(program)?))
}

/// Builds the program for each runtime, as it is published.
fn build(tokio_only: bool) -> io::Result<Vec<(String, PathBuf)>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut built = Vec::new();
    for (name, target, features) in [
        ("ours", "target", &[][..]),
        ("ours, async-std", "target/async-std", &["--no-default-features", "--features", "async-std"]),
    ] {
        if tokio_only && !features.is_empty() {
            continue;
        }
        tell(&format!("building {name}"));
        let target = root.join(target);
        let mut command = Command::new(&cargo);
        command.args(["build", "--profile", "dist", "--locked", "--bin", "mcp-local-tunnel", "--target-dir"]);
        command.arg(&target);
        if !command.args(features).current_dir(&root).status()?.success() {
            return Err(io::Error::other(format!("{name} does not build")));
        }
        built.push((name.to_owned(), fs::canonicalize(target.join("dist/mcp-local-tunnel"))?));
    }
    Ok(built)
}

/// The other programs that are in the path.
fn installed() -> Vec<(String, PathBuf)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    let mut found = Vec::new();
    for name in ["supergateway", "mcp-proxy", "rathole"] {
        match find(name) {
            Some(program) => found.push((name.to_owned(), program)),
            None => tell(&format!("SKIPPED: {name} is not installed")),
        }
    }
    found
}

fn tell(what: &str) {
    eprintln!("── {what}");
}
