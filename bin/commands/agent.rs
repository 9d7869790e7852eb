//! `agent` and `status`: this machine's servers and their way to the relay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tunnel_core::agent::machine::{ControlCommand, Exit};
use tunnel_core::agent::status::Document;
use tunnel_core::config::{AgentConfig, Config};
use tunnel_core::daemon::{Command, Kind};
use tunnel_core::limits;
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::Person;

use super::status;
use crate::cli::Global;
use crate::config_source::{self, Source};
use crate::failure::Failure;
use crate::host::agent::{self, AgentError, Options};
use crate::host::daemon::{Claim, Files};
use crate::host::stub::{self, AGENT_ANSWERS};
use crate::host::{ipc, rt, signin};
use crate::{directories, host, output, signals};

/// Runs an agent until SIGTERM or SIGINT, or until nothing but a person can help it on.
pub(crate) fn run(source: Source, config: AgentConfig, kind: Kind, global: &Global) -> Result<(), Failure> {
    let allow_insecure = global.allow_insecure;
    let hidden = secret_files(&source, &config)?;
    let options = Options {
        config_dir: directories::config()?,
        source: source.identity(),
        token: config.token.as_deref().map(minted_token).transpose()?,
        // Whoever reads stderr may follow what stands there; where nobody does, the sign-in ends by itself.
        // An agent in the background leaves it to its stubs.
        person: match kind {
            Kind::Foreground => signin::person(),
            Kind::Daemon => Person::Absent,
        },
        read_config: match source {
            // The text it was started with is all there is: its entries stay.
            Source::Inline(_) => {
                let config = config.clone();
                Box::new(move || Ok(config.clone()))
            }
            Source::Named(_) | Source::Found(_) => Box::new(move || config_source::reload(&source, allow_insecure)),
        },
        config,
        guard: None,
        hidden,
        kind,
        grace: grace(),
    };
    host::run_small(async {
        let asked = signals::asked()?;
        // A task of its own: a runtime looks for news of sockets, a system call, before each step of what it was begun
        // with.
        let agent = rt::spawn(agent::run(options, asked)).await;
        ended(agent.map_err(|error| Failure::Failed(format!("the agent failed: {error}")))?)
    })
}

/// What no server in a sandbox may read, beside the agent's directory: the configuration, which has other servers'
/// secrets, and the token that it names.
fn secret_files(source: &Source, config: &AgentConfig) -> Result<Vec<PathBuf>, Failure> {
    let configuration = match source {
        Source::Inline(_) => None,
        Source::Named(path) | Source::Found(path) => Some(path.as_path()),
    };
    let token = config.token.as_deref().and_then(|place| place.strip_prefix("file:")).map(Path::new);
    let whole =
        |path| std::path::absolute(path).map_err(|error| Failure::Failed(format!("no current directory: {error}")));
    configuration.into_iter().chain(token).map(whole).collect()
}

/// How long an agent in the background outlives its last session.
fn grace() -> Duration {
    let Some(text) = std::env::var_os(GRACE_VARIABLE).filter(|text| !text.is_empty()) else {
        return limits::DAEMON_GRACE;
    };
    text.to_str().and_then(|text| text.trim().parse().ok()).map_or_else(
        || {
            tracing::warn!("{GRACE_VARIABLE} is not a number of milliseconds");
            limits::DAEMON_GRACE
        },
        Duration::from_millis,
    )
}

const GRACE_VARIABLE: &str = "DAEMON_GRACE_PERIOD_MS";

/// What the end of an agent means for the program.
pub(super) fn ended(outcome: Result<Exit, AgentError>) -> Result<(), Failure> {
    match outcome {
        Ok(Exit::Stopped) => Ok(()),
        Ok(Exit::NeedsLogin(failure)) => Err(super::login::failed(&failure)),
        Ok(Exit::Refused(reason)) => {
            Err(Failure::Failed(format!("the relay refused this device: {}", output::visible(&reason))))
        }
        Err(error @ AgentError::Unusable { .. }) => Err(Failure::Usage(error.to_string())),
        Err(error @ AgentError::Running) => Err(Failure::Failed(error.to_string())),
    }
}

/// A minted token from where `token` says it is: `env:NAME` or `file:PATH`.
pub(super) fn minted_token(place: &str) -> Result<Secret, Failure> {
    let token = secret(place, "token")?;
    // A header's value: what else stands there is no token.
    if token.is_empty() || !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::Usage(
            "there is no token where token says it is: make one with `mcp-local-tunnel token create`".into(),
        ));
    }
    Ok(token)
}

/// What stands at `env:NAME` or `file:PATH`, without the space around it. `what` is what asks for it.
pub(super) fn secret(place: &str, what: &str) -> Result<Secret, Failure> {
    let found = match place.split_once(':') {
        Some(("env", name)) => {
            std::env::var(name).map_err(|error| format!("the variable {name} of {what} cannot be used: {error}"))
        }
        Some(("file", path)) => {
            fs::read_to_string(path).map_err(|error| format!("the file {path} of {what} cannot be read: {error}"))
        }
        _ => Err(format!("{what} must be env:NAME or file:PATH")),
    };
    Ok(Secret::new(found.map_err(Failure::Usage)?.trim()))
}

/// Asks the running agent of this configuration how it is, and prints it.
pub(crate) fn status(global: &Global) -> Result<(), Failure> {
    let mut answer = ask(&ControlCommand::Status, global)?;
    let files = files(global)?;
    // An agent before this version does not know the question.
    let process = host::run_small(async { Ok(stub::command(&files.socket, &Command::Show).await.ok()) })?;
    let log = process.as_ref().filter(|process| process.kind == Kind::Daemon).map(|_| files.log.display().to_string());
    if global.json {
        if let Some(process) = process {
            answer["process"] = json!({
                "pid": process.pid, "kind": process.kind, "kept": process.kept, "sessions": process.sessions, "log": log,
            });
        }
        return output::json(&answer);
    }
    let document: Document = serde_json::from_value(answer).map_err(|error| strange(&error))?;
    let mut text = status::describe(&document);
    if let Some(process) = process {
        text.push_str("\n\n");
        text.push_str(&status::process(&process, log.as_deref()));
    }
    output::line(text)
}

/// The answer of the running agent of this configuration.
pub(super) fn ask(command: &ControlCommand, global: &Global) -> Result<Value, Failure> {
    let files = files(global)?;
    let question = serde_json::to_vec(command).map_err(|error| Failure::Failed(error.to_string()))?;
    let asked = ipc::request_within(AGENT_ANSWERS, &files.socket, &question);
    let answer = host::run_small(async { asked.await.map_err(|error| no_agent(&files, &error)) })?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| strange(&error))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Failure::Failed(output::visible(error))),
        None => Ok(answer),
    }
}

/// The files of this configuration's agent. Where they are depends on where the configuration is, so an agent is found
/// while the text there is broken; that is looked at only where no agent can be.
pub(super) fn files(global: &Global) -> Result<Files, Failure> {
    let files = Files::new(&directories::config()?, &Source::new(global).identity());
    if files.socket.exists() {
        return Ok(files);
    }
    let (source, _, config) = config_source::load(global)?;
    if let Config::Relay(_) = config {
        return Err(Failure::Usage(format!("{} is a relay's: this command is for an agent", source.name())));
    }
    Ok(files)
}

/// Why an agent did not answer.
pub(super) fn no_agent(files: &Files, error: &io::Error) -> Failure {
    Failure::Failed(match error.kind() {
        io::ErrorKind::TimedOut if let Some((pid, _)) = Claim::holder(&files.pid) => {
            format!(
                "the agent (pid {pid}) does not answer: it is busy, or hangs, and then `mcp-local-tunnel stop` ends it"
            )
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no agent runs with this configuration: start it with `mcp-local-tunnel agent` or `mcp-local-tunnel start`"
                .into()
        }
        _ if stub::is_unusable(error) => {
            return Failure::Usage(format!("cannot use {}: {error}", files.socket.display()));
        }
        _ if stub::is_refusal(error) => output::visible(&error.to_string()),
        _ => format!("the agent does not answer: {error}"),
    })
}

pub(super) fn strange(error: &serde_json::Error) -> Failure {
    Failure::Failed(format!("the agent's answer is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_read_from_its_file_and_never_shown() {
        let path = std::env::temp_dir().join(format!("mcp-local-tunnel-token-{}", std::process::id()));
        let place = format!("file:{}", path.display());
        fs::write(&path, "  mlt_a_token\n").expect("writes");
        assert_eq!(minted_token(&place).expect("reads").expose(), "mlt_a_token");
        for (content, wrong) in [("", "empty"), ("two words", "two words"), ("ünïcode", "no ASCII")] {
            fs::write(&path, content).expect("writes");
            let failure = minted_token(&place).expect_err(wrong);
            assert!(
                matches!(&failure, Failure::Usage(text) if content.is_empty() || !text.contains(content)),
                "{failure}"
            );
        }
        fs::remove_file(&path).expect("removes");
        assert!(matches!(minted_token(&place), Err(Failure::Usage(_))));
        assert!(matches!(minted_token("env:MCP_LOCAL_TUNNEL_NO_SUCH_VARIABLE"), Err(Failure::Usage(_))));
    }
}
