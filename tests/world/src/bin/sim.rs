//! `sim`: runs seeds of the simulated world, any number of them, and explains one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tunnel_world::desk::Desk;
use tunnel_world::sim::{Plan, Report, regressions, run, shrink};

const USAGE: &str = "\
sim [--from SEED] [--count N] [--threads N] [--state FILE]   run seeds; with a state file, go on where this build ended
sim explain SEED | FILE                                       tell a run step by step
sim shrink SEED | FILE                                        the smallest plan that fails in the same way, as JSON
sim plan SEED                                                 a seed's plan, as JSON
sim desk SEED                                                 tell a run of editors and the agent that they share
sim regressions                                               run the plans that once failed
";

/// How many plans are tried to make one small.
const SHRINKS: usize = 2_000;
/// After so many failures more tell nothing new.
const MAX_FAILURES: usize = 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match &words[..] {
        ["explain", what] => plan(what).and_then(|plan| explain(&plan)),
        ["shrink", what] => plan(what).and_then(|plan| make_small(&plan)),
        ["plan", what] => plan(what).and_then(|plan| say(&json(&plan)).map(|()| true)),
        ["desk", seed] => seed.parse().map_err(io::Error::other).and_then(desk),
        ["regressions"] => run_regressions(),
        ["--help" | "-h"] => say(USAGE).map(|()| true),
        words => match Orders::read(words) {
            Ok(orders) => Fleet::new(orders).and_then(|fleet| fleet.run()),
            Err(word) => say(&format!("{word}?\n{USAGE}")).map(|()| false),
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end())
}

fn json(plan: &Plan) -> String {
    serde_json::to_string(plan).expect("a plan is plain data")
}

/// The plan of a seed, or of a file.
fn plan(what: &str) -> io::Result<Plan> {
    if let Ok(seed) = what.parse() {
        return Ok(Plan::of_seed(seed));
    }
    Ok(serde_json::from_slice(&std::fs::read(what)?)?)
}

fn explain(plan: &Plan) -> io::Result<bool> {
    let report = run(plan, true);
    let mut out = io::BufWriter::new(io::stdout().lock());
    writeln!(out, "{:#?}", plan.setup)?;
    for line in &report.lines {
        writeln!(out, "{line}")?;
    }
    for (what, count) in &report.cover {
        writeln!(out, "{count:>8}  {what}")?;
    }
    let end = report.failure.as_deref().unwrap_or("all that must hold holds");
    writeln!(out, "{} steps, {} s, trace {:016x}\n{end}", report.steps, report.secs, report.hash)?;
    Ok(report.failure.is_none())
}

/// Prints the smallest plan that fails as `plan` does, which must fail.
fn make_small(plan: &Plan) -> io::Result<bool> {
    if run(plan, false).failure.is_none() {
        return Err(io::Error::other(
            "nothing fails, so that there is nothing to make small: all that must hold holds",
        ));
    }
    say(&json(&shrink(plan, SHRINKS))).map(|()| true)
}

fn desk(seed: u64) -> io::Result<bool> {
    let (failure, trace) = Desk::play(seed, &Desk::steps_of(seed), true);
    let end = failure.as_deref().unwrap_or("all that must hold holds");
    say(&format!("{}\n{end}", trace.lines.unwrap_or_default().join("\n")))?;
    Ok(failure.is_none())
}

fn run_regressions() -> io::Result<bool> {
    let mut is_fine = true;
    for regression in regressions::all() {
        if let Some(failure) = run(&regression.plan, false).failure {
            is_fine = false;
            say(&format!("fails again: {}\n  {failure}", regression.found))?;
        }
    }
    Ok(is_fine)
}

/// What to run.
struct Orders {
    /// The first seed; `None`: nobody says.
    from: Option<u64>,
    count: u64,
    threads: usize,
    state: Option<PathBuf>,
}

impl Orders {
    fn read(words: &[&str]) -> Result<Self, String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut orders = Self { from: None, count: 1_000, threads, state: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} what"));
            let number = |value: &&str| value.parse::<u64>().map_err(|_| format!("{word} {value}"));
            match *word {
                "--from" => orders.from = Some(number(value()?)?),
                "--count" => orders.count = number(value()?)?,
                "--threads" => orders.threads = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
                "--state" => orders.state = Some(value()?.into()),
                other => return Err(other.to_owned()),
            }
        }
        Ok(orders)
    }
}

/// How far a run of many seeds is; what a state file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Which program it is of: what another one found says nothing of this one.
    #[serde(default)]
    build: String,
    from: u64,
    /// All seeds before it are done.
    next: u64,
    steps: u64,
    /// Simulated time.
    secs: u64,
    /// Real time.
    took_secs: f64,
    failures: BTreeMap<u64, String>,
    cover: BTreeMap<String, (u64, u64)>,
}

impl State {
    fn begun(from: Option<u64>) -> Self {
        let from = from.unwrap_or_default();
        Self { from, next: from, ..Self::default() }
    }

    /// What a file says, if it goes on with the same program and the same seeds.
    fn resumed(path: &Path, from: Option<u64>) -> io::Result<Self> {
        let state: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        let refused = |why: String| Err(io::Error::other(format!("{}: {why}", path.display())));
        if state.build != build()? {
            return refused(
                "it is another build's, whose seeds say nothing of this one: remove it to begin anew".into(),
            );
        }
        match from {
            Some(from) if from != state.from => {
                refused(format!("it begins with seed {}, and not with {from}: name another file", state.from))
            }
            Some(_) | None => Ok(state),
        }
    }
}

/// Which program this is: the digest of its file.
fn build() -> io::Result<String> {
    let file = std::fs::read(std::env::current_exe()?)?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &file);
    Ok(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Fleet {
    orders: Orders,
    begun: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    state: Mutex<State>,
    /// Seeds that are done and not all before them.
    done: Mutex<std::collections::BTreeSet<u64>>,
}

impl Fleet {
    fn new(orders: Orders) -> io::Result<Self> {
        let state = match orders.state.as_deref() {
            Some(path) if path.exists() => State::resumed(path, orders.from)?,
            Some(_) => State { build: build()?, ..State::begun(orders.from) },
            None => State::begun(orders.from),
        };
        let next = AtomicU64::new(state.next);
        let (state, done) = (Mutex::new(state), Mutex::default());
        Ok(Self { orders, begun: Instant::now(), next, stop: AtomicBool::new(false), state, done })
    }

    fn run(&self) -> io::Result<bool> {
        let end = self.lock().from + self.orders.count;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.orders.threads).map(|_| scope.spawn(|| self.work(end))).collect();
            let mut last = Instant::now();
            while workers.iter().any(|worker| !worker.is_finished()) {
                std::thread::sleep(Duration::from_millis(100));
                if last.elapsed() > Duration::from_secs(5) {
                    last = Instant::now();
                    self.progress(end);
                    self.save();
                }
            }
        });
        self.save();
        self.report()
    }

    fn work(&self, end: u64) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = run(&Plan::of_seed(seed), false);
            let (failure, trace) = Desk::play(seed, &Desk::steps_of(seed), false);
            self.add(seed, report, failure, trace.cover);
        }
    }

    fn add(&self, seed: u64, report: Report, desk: Option<String>, desk_cover: BTreeMap<&'static str, u64>) {
        let mut state = self.lock();
        state.steps += report.steps;
        state.secs += report.secs;
        for (what, count) in report.cover.into_iter().chain(desk_cover) {
            let entry = state.cover.entry(what.to_owned()).or_default();
            entry.0 += 1;
            entry.1 += count;
        }
        let of_desk = desk.map(|failure| ("desk", format!("desk: {failure}")));
        for (how, failure) in report.failure.map(|failure| ("explain", failure)).into_iter().chain(of_desk) {
            let _ = writeln!(io::stderr(), "seed {seed}: {failure}\n  replay: sim {how} {seed}");
            state.failures.insert(seed, failure);
            if state.failures.len() >= MAX_FAILURES {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        let mut done = self.done.lock().expect("nobody panics with it");
        done.insert(seed);
        while done.remove(&state.next) {
            state.next += 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn progress(&self, end: u64) {
        let state = self.lock();
        let (rate, left) = (self.rate(&state), end - state.next);
        let text = format!("{} of {} seeds, {rate:.0} a second, {} failed", end - left, end, state.failures.len());
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Seeds a second since this process began.
    fn rate(&self, state: &State) -> f64 {
        let begun = state.took_secs;
        let seeds = u32::try_from(state.next - state.from).unwrap_or(u32::MAX);
        f64::from(seeds) / (begun + self.begun.elapsed().as_secs_f64())
    }

    fn save(&self) {
        let Some(path) = &self.orders.state else { return };
        let state = self.lock();
        let took_secs = state.took_secs + self.begun.elapsed().as_secs_f64();
        let mut json = serde_json::to_value(&*state).expect("it is plain data");
        json["took_secs"] = took_secs.into();
        if let Err(error) = write(path, json.to_string().as_bytes()) {
            let _ = writeln!(io::stderr(), "{}: {error}", path.display());
        }
    }

    fn report(&self) -> io::Result<bool> {
        let state = self.lock();
        let mut text = String::new();
        for (what, (seeds, times)) in &state.cover {
            let _ = writeln!(text, "{seeds:>9} seeds {times:>11} times  {what}");
        }
        let seeds = state.next - state.from;
        let hours = state.secs / 3600;
        let _ = writeln!(
            text,
            "{seeds} seeds from {}, {} steps, {hours} simulated hours, {:.1} seeds a second, {} failed",
            state.from,
            state.steps,
            self.rate(&state),
            state.failures.len()
        );
        for (seed, failure) in &state.failures {
            let _ = writeln!(text, "seed {seed}: {failure}");
        }
        say(&text)?;
        Ok(state.failures.is_empty())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, bytes)?;
    std::fs::rename(fresh, path)
}
