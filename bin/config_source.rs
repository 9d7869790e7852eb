//! Where the configuration comes from, and whether it may be run.

use std::fs;
use std::io;
use std::path::PathBuf;

use tunnel_core::config::{self, AgentConfig, Config, Problem, RelayConfig, Severity};

use crate::cli::Global;
use crate::failure::Failure;
use crate::trust;

/// What is read when no configuration is named.
pub(crate) const DEFAULT_FILE: &str = "mcp-local-tunnel.config.json";

/// Where a configuration's text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is the text of `--config` or `MCP_LOCAL_TUNNEL_CONFIG`.
    Inline(String),
    /// A file that was named: whoever named it trusts it.
    Named(PathBuf),
    /// The file that happens to lie in the current directory.
    Found(PathBuf),
}

impl Source {
    /// What the command line and the environment say.
    pub(crate) fn new(global: &Global) -> Self {
        match global.config.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) if text.starts_with('{') => Self::Inline(text.to_owned()),
            Some(path) => Self::Named(path.into()),
            None => Self::Found(DEFAULT_FILE.into()),
        }
    }

    /// The text.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        let (path, found) = match self {
            Self::Inline(text) => return Ok(text.clone()),
            Self::Named(path) => (path, false),
            Self::Found(path) => (path, true),
        };
        fs::read_to_string(path).map_err(|error| {
            Failure::Usage(match error.kind() {
                io::ErrorKind::NotFound if found => NO_CONFIGURATION.into(),
                io::ErrorKind::NotFound => format!("there is no file {}: --config and MCP_LOCAL_TUNNEL_CONFIG take a path, or JSON text that begins with {{", path.display()),
                io::ErrorKind::InvalidData => format!("{} is not UTF-8 text", path.display()),
                _ => format!("cannot read {}: {error}", path.display()),
            })
        })
    }

    /// How the source is called in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Inline(_) => "the configuration given as text".into(),
            Self::Named(path) | Self::Found(path) => path.display().to_string(),
        }
    }

    /// What tells this source from others: the same file is the same source, however its path was written.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Inline(text) => text.clone(),
            Self::Named(path) | Self::Found(path) => {
                path.canonicalize().as_deref().unwrap_or(path).display().to_string()
            }
        }
    }
}

const NO_CONFIGURATION: &str = "there is no configuration: give --config or MCP_LOCAL_TUNNEL_CONFIG (JSON text or a path), or make a file mcp-local-tunnel.config.json here; `mcp-local-tunnel demo` needs none";

/// The configuration, checked; warnings are logged. It is not yet trusted: see [`agent`].
pub(crate) fn load(global: &Global) -> Result<(Source, String, Config), Failure> {
    let source = Source::new(global);
    let text = source.read()?;
    let parsed = parse(global, &text).map_err(|problems| unusable(&source, &problems))?;
    for Problem { path, message, .. } in parsed.warnings {
        tracing::warn!(setting = path, problem = message, "configuration");
    }
    Ok((source, text, parsed.config))
}

/// Reads a configuration's text as the command line allows.
pub(crate) fn parse(global: &Global, text: &str) -> Result<config::Parsed, Vec<Problem>> {
    config::parse_with(text, config::Options { allow_insecure: global.allow_insecure })
}

/// The relay's configuration.
pub(crate) fn relay(global: &Global) -> Result<RelayConfig, Failure> {
    match load(global)? {
        (_, _, Config::Relay(config)) => Ok(config),
        (source, _, Config::Agent(_)) => Err(wrong_mode(&source, "agent", "relay")),
    }
}

/// An agent's configuration, trusted to run its commands.
pub(crate) fn agent(global: &Global) -> Result<(Source, AgentConfig), Failure> {
    match load(global)? {
        (source, text, Config::Agent(config)) => {
            trusted(&source, &text, &config)?;
            Ok((source, config))
        }
        (source, _, Config::Relay(_)) => Err(wrong_mode(&source, "relay", "agent")),
    }
}

/// Lets a configuration pass that was named, or was trusted before, or that the person at the terminal trusts now.
pub(crate) fn trusted(source: &Source, text: &str, config: &AgentConfig) -> Result<(), Failure> {
    match source {
        Source::Inline(_) | Source::Named(_) => Ok(()),
        Source::Found(path) => trust::require(path, text, config),
    }
}

/// Reads an agent's configuration anew while it runs: nobody is asked, so a changed file must have been trusted.
pub(crate) fn reload(source: &Source, allow_insecure: bool) -> Result<AgentConfig, String> {
    let text = source.read().map_err(|failure| failure.to_string())?;
    let parsed = config::parse_with(&text, config::Options { allow_insecure })
        .map_err(|problems| unusable(source, &problems).to_string())?;
    let Config::Agent(config) = parsed.config else {
        return Err(wrong_mode(source, "relay", "agent").to_string());
    };
    if let Source::Found(path) = source
        && !trust::is_trusted(path, &text).map_err(|failure| failure.to_string())?
    {
        return Err(format!("{} has changed and is not trusted: run `mcp-local-tunnel config trust`", path.display()));
    }
    Ok(config)
}

fn wrong_mode(source: &Source, is: &str, wanted: &str) -> Failure {
    Failure::Usage(format!(
        "{} has \"mode\": \"{is}\": `mcp-local-tunnel {wanted}` needs one with \"mode\": \"{wanted}\"",
        source.name()
    ))
}

/// All problems, one line each.
pub(crate) fn unusable(source: &Source, problems: &[Problem]) -> Failure {
    let mut text = format!("{} cannot be used:", source.name());
    for problem in problems {
        let kind = if problem.severity == Severity::Warning { "warning: " } else { "" };
        text.push_str("\n  ");
        text.push_str(kind);
        text.push_str(&crate::output::visible(&problem.to_string()));
    }
    Failure::Usage(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn source(config: &str) -> Source {
        Source::new(&Cli::try_parse_from(["x", "--config", config]).expect("parses").global)
    }

    #[test]
    fn text_path_and_default_are_told_apart() {
        assert_eq!(source(" {\"mode\":1}"), Source::Inline("{\"mode\":1}".into()));
        assert_eq!(source("a.json"), Source::Named("a.json".into()));
        assert_eq!(source(""), Source::Found(DEFAULT_FILE.into()));
    }

    #[test]
    fn missing_file_says_what_may_be_given() {
        let failure = source("/nowhere/a.json").read().expect_err("is missing");
        assert!(
            matches!(&failure, Failure::Usage(text) if text.contains("/nowhere/a.json") && text.contains("JSON text"))
        );
    }
}
