//! Why the program ends otherwise than well, and the exit code that says so.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::LogFormat;
use crate::output;

/// Why a command failed. The text is for people: what failed, why, and what mends it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something failed (exit code 1).
    #[error("{0}")]
    Failed(String),
    /// The command line or the configuration is wrong (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// A person must sign in (exit code 3).
    #[error("{0}")]
    SignIn(String),
    /// The relay cannot be reached (exit code 4).
    #[error("{0}")]
    Unreachable(String),
    /// One that the JSON document on stdout has told already.
    #[error("{0}")]
    Shown(Box<Failure>),
}

impl Failure {
    /// The exit code, as `--help` documents it.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }

    fn number(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::SignIn(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Shown(failure) => failure.number(),
        }
    }

    /// Says it on stdout, where `--json` promised a document: a script need not read what people are told.
    pub(crate) fn print_json(&self) {
        if !matches!(self, Self::Shown(_)) {
            // A stdout that cannot be written is told nowhere else either.
            let _ = output::compact(&json!({ "error": self.to_string(), "exitCode": self.number() }));
        }
    }

    /// Says it, on one line, to whoever started this process in the background.
    pub(crate) fn tell(&self, mut starter: impl Write) {
        // By now there may be nobody.
        let _ = writeln!(starter, "{}", self.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
    }

    /// Says it on stderr.
    pub(crate) fn report(&self, format: LogFormat) {
        match format {
            LogFormat::Json => tracing::error!(reason = %self, "stopped"),
            LogFormat::Human => {
                let style = anstyle::AnsiColor::Red.on_default().bold();
                // There is nobody left to tell when stderr is gone.
                let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {self}");
            }
        }
    }
}
