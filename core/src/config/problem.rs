//! What is wrong with a configuration, and the list that collects it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Config, Parsed};

/// Whether a problem keeps the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can be used, but something in it is probably not meant.
    Warning,
}

/// One thing that is wrong with a configuration. Its text never repeats a value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where: `servers.files.command[1]`; empty for the document as a whole.
    pub path: String,
    /// What is wrong and what mends it, to be read after the path.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "the configuration" } else { &self.path };
        write!(f, "{place} {}", self.message)
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Notes what keeps the configuration from being used.
    pub(super) fn error(&mut self, path: &str, message: impl Into<String>) {
        self.push(Severity::Error, path, message.into());
    }

    /// Notes what is probably not meant.
    pub(super) fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.push(Severity::Warning, path, message.into());
    }

    /// The outcome: `config` if nothing is wrong with it.
    pub(super) fn finish(self, config: Option<Config>) -> Result<Parsed, Vec<Problem>> {
        let failed = self.problems.iter().any(|problem| problem.severity == Severity::Error);
        match config {
            Some(config) if !failed => Ok(Parsed { config, warnings: self.problems }),
            _ => {
                assert!(failed, "a configuration was refused without an error");
                Err(self.problems)
            }
        }
    }

    fn push(&mut self, severity: Severity, path: &str, message: String) {
        self.problems.push(Problem { severity, path: path.into(), message });
    }
}
