//! `config check` and `config trust`.

use std::path::Path;

use serde_json::json;
use tunnel_core::config::{self, Config, Problem, Severity};

use super::relay;
use crate::cli::{ConfigCommand, Global};
use crate::config_source::{self, Source};
use crate::failure::Failure;
use crate::host::audit;
use crate::{directories, output, trust};

/// Runs it.
pub(crate) fn run(command: &ConfigCommand, global: &Global) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { strict } => check(*strict, global),
        ConfigCommand::Trust { path } => trust(path, global),
    }
}

/// Prints every problem; fails if the configuration cannot be used.
fn check(strict: bool, global: &Global) -> Result<(), Failure> {
    let source = Source::new(global);
    let text = source.read()?;
    let mode = config::named_mode(&text);
    let (parses, problems) = match config_source::parse(global, &text) {
        Ok(parsed) => (true, parsed.warnings),
        Err(problems) => (false, problems),
    };
    let here = problems_here(global, &text)?;
    let problems: Vec<_> = problems.into_iter().chain(here).collect();
    let counts = |problem: &Problem| strict || problem.severity == Severity::Error;
    let usable = parses && !problems.iter().any(counts);
    if global.json {
        output::json(&json!({ "ok": usable, "source": source.name(), "mode": mode, "problems": problems }))?;
    } else {
        for problem in &problems {
            output::line(line(problem, strict))?;
        }
        if let (true, Some(mode)) = (usable, mode) {
            output::line(format!("{} can be used (mode {mode})", source.name()))?;
        }
    }
    if usable {
        return Ok(());
    }
    let failure = Failure::Usage(format!("{} cannot be used", source.name()));
    Err(if global.json { Failure::Shown(Box::new(failure)) } else { failure })
}

/// What could not be used on this machine.
fn problems_here(global: &Global, text: &str) -> Result<Vec<Problem>, Failure> {
    let audit = match config_source::parse(global, text).map(|parsed| parsed.config) {
        Ok(Config::Agent(config)) => config.policy.audit,
        Ok(Config::Relay(mut config)) => return Ok(relay::missing(&mut config)),
        Err(_) => None,
    };
    let Some(Err(why)) = audit.map(|file| Ok(audit::check(&directories::config()?.join("logs"), &file))).transpose()?
    else {
        return Ok(Vec::new());
    };
    let message = format!("cannot be written, and calls would pass without it: {why}");
    Ok(vec![Problem { severity: Severity::Warning, path: "audit".into(), message }])
}

fn line(problem: &Problem, strict: bool) -> String {
    let error = strict || problem.severity == Severity::Error;
    let (word, colour) =
        if error { ("error", anstyle::AnsiColor::Red) } else { ("warning", anstyle::AnsiColor::Yellow) };
    let style = colour.on_default().bold();
    format!("{style}{word}:{style:#} {}", output::visible(&problem.to_string()))
}

/// Shows what the file would run, and trusts it from now on.
fn trust(path: &Path, global: &Global) -> Result<(), Failure> {
    let source = Source::Named(path.to_owned());
    let text = source.read()?;
    let parsed = config_source::parse(global, &text).map_err(|problems| config_source::unusable(&source, &problems))?;
    let Config::Agent(config) = parsed.config else {
        return output::line(format!(
            "{} is a relay's configuration: it runs no commands and needs no trust",
            source.name()
        ));
    };
    output::line(trust::describe(&config))?;
    trust::remember(path, &text)?;
    output::line(format!("{} is trusted until it changes", source.name()))
}
