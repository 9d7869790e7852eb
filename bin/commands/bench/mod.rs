//! `bench`: how fast any MCP endpoint answers, asked as a client asks. Reads only, unless told otherwise.

mod load;
mod show;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::value::RawValue;
use tunnel_core::bench::Figures;
use tunnel_core::probe::contract::{Ask, Report, Settings};

use self::load::Load;
use super::agent::secret;
use super::probe;
use crate::cli::{BenchArgs, Global};
use crate::failure::Failure;
use crate::host::signin::{self, Visit};
use crate::{host, output, signals};

/// Connects, signs in, measures, and says what came of it.
pub(crate) fn run(args: &BenchArgs, global: &Global) -> Result<(), Failure> {
    let arguments = arguments(args.arguments.as_deref().unwrap_or("{}"))?;
    let settings = Settings {
        url: args.url.clone(),
        allow_insecure: global.allow_insecure,
        client: probe::given_client(args.client_id.as_ref(), args.client_secret.as_deref())?,
        token: args.token.as_deref().map(token).transpose()?,
        call: None,
        stay: true,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (report, runs) = host::run(visited(args, settings, arguments))?;
    if global.json {
        output::json(&show::document(args, &report, &runs))?;
    } else {
        output::line(show::table(args, &report, &runs))?;
    }
    let failure = runs.iter().find_map(|run| {
        let error = run.figures.first_error.as_deref()?;
        let (failures, calls) = (run.figures.failures, run.figures.calls);
        Some(Failure::Failed(format!("{failures} of {calls} {} failed: {}", run.what, output::visible(error))))
    });
    match failure {
        Some(failure) if global.json => Err(Failure::Shown(Box::new(failure))),
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Measures during a visit, which is ended in any case: nobody's token is left behind.
async fn visited(
    args: &BenchArgs,
    settings: Settings,
    arguments: Box<RawValue>,
) -> Result<(Report, Vec<Run>), Failure> {
    let mut stop = Box::pin(signals::stop()?);
    let interrupted = || Failure::Failed("interrupted".into());
    let visit = tokio::select! {
        visit = signin::visit(settings, args.ca_file.as_deref()) => visit.map_err(|failure| probe::failed(&failure))?,
        () = &mut stop => return Err(interrupted()),
    };
    let outcome = tokio::select! {
        outcome = measure(args, &visit, arguments) => outcome,
        () = &mut stop => Err(interrupted()),
    };
    let report = visit.entry.report.clone();
    visit.leave().await;
    Ok((report, outcome?))
}

/// What was measured once.
struct Run {
    /// The method, or the tool that was called.
    what: String,
    callers: usize,
    rate: Option<u32>,
    figures: Figures,
}

async fn measure(args: &BenchArgs, visit: &Visit, arguments: Box<RawValue>) -> Result<Vec<Run>, Failure> {
    let asks = asks(args, &visit.entry.report, arguments)?;
    let questions: Vec<_> = asks.iter().map(|ask| Arc::new(visit.entry.question(ask))).collect();
    let whats: Vec<_> = asks.iter().zip(&questions).map(|(ask, question)| show::what(ask, question.method)).collect();
    output::note(show::intention(args, &visit.entry, &whats));
    let numbers = Arc::new(AtomicU64::new(visit.entry.next_number));
    let mut runs = Vec::new();
    for (what, question) in whats.iter().zip(&questions) {
        for callers in callers(args) {
            if std::io::stderr().is_terminal() {
                output::note(format!("{what}, {}", show::count(callers as u64, "caller")));
            }
            let load = Load {
                connector: visit.connector.clone(),
                question: Arc::clone(question),
                numbers: Arc::clone(&numbers),
                callers,
                lasting: Duration::from_secs(args.seconds),
                rate: args.rate,
            };
            let figures = load.run().await;
            runs.push(Run { what: what.clone(), callers, rate: args.rate, figures });
        }
    }
    Ok(runs)
}

/// How many callers each run has: at a fixed rate there is one run, with as many connections as there may be.
fn callers(args: &BenchArgs) -> Vec<usize> {
    match args.rate {
        Some(_) => args.callers.iter().copied().max().into_iter().collect(),
        None => args.callers.clone(),
    }
}

/// What is asked. A tool that may change something is called only by those who say that it may.
fn asks(args: &BenchArgs, report: &Report, arguments: Box<RawValue>) -> Result<Vec<Ask>, Failure> {
    let mut asks = vec![Ask::Ping, Ask::List];
    let Some(tool) = &args.tool else { return Ok(asks) };
    let shown = output::visible(tool);
    if !report.tools.contains(tool) {
        return Err(Failure::Usage(format!(
            "{} has no tool {shown}: `mcp-local-tunnel probe` lists those that it has",
            args.url
        )));
    }
    if !report.read_only.contains(tool) && !args.allow_writes {
        return Err(Failure::Usage(format!(
            "the tool {shown} does not say of itself that it only reads (readOnlyHint), and would be called thousands of times: \
             add --allow-writes if that does no harm"
        )));
    }
    asks.push(Ask::Call { tool: tool.clone(), arguments });
    Ok(asks)
}

fn arguments(text: &str) -> Result<Box<RawValue>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("--arguments must be a JSON object: {why}"));
    let arguments: Box<RawValue> = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    if arguments.get().starts_with('{') { Ok(arguments) } else { Err(wrong(&"it is none")) }
}

/// The token from where `--token` says it is.
fn token(place: &str) -> Result<tunnel_core::secret::Secret, Failure> {
    let token = secret(place, "--token")?;
    // A header's value: what else stands there is no token.
    if token.is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage("there is no token where --token says it is".into()));
    }
    Ok(token)
}
