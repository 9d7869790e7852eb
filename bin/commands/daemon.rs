//! `start`, `stop` and `restart`: the agent in the background.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use serde_json::json;
use tunnel_core::agent::machine::ControlCommand;
use tunnel_core::agent::status::Restarted;
use tunnel_core::daemon::{Answer, Command};

use super::{agent, stub};
use crate::cli::Global;
use crate::config_source;
use crate::failure::Failure;
use crate::host::daemon::{Claim, Files};
use crate::host::stub::{NotStarted, Started, command, start as start_agent};
use crate::host::{self, signin};
use crate::output;

/// Starts the agent, to stay until it is stopped.
pub(super) fn start(global: &Global) -> Result<(), Failure> {
    let (source, config) = config_source::agent(global)?;
    let way = stub::way(&source, &config, global)?;
    let log = way.files.log.clone();
    let settings = stub::link_settings(signin::has_screen() || io::stdin().is_terminal());
    let Started { answer, new } = host::run_small(async {
        start_agent(settings, way).await.map_err(|error| match error {
            NotStarted::NeedsLogin(reason) => {
                Failure::SignIn(format!("{}: run `mcp-local-tunnel login`", output::visible(&reason)))
            }
            NotStarted::Failed(reason) => Failure::Failed(output::visible(&reason)),
        })
    })?;
    if global.json {
        return output::json(
            &json!({ "started": new, "pid": answer.pid, "version": answer.version, "log": log.display().to_string() }),
        );
    }
    let what = if new { "started" } else { "runs already, and stays" };
    output::line(format!("the agent {what} (pid {}, log {})", answer.pid, log.display()))
}

/// Stops the agent and waits until it is gone.
pub(super) fn stop(global: &Global) -> Result<(), Failure> {
    let files = agent::files(global)?;
    let stopped = host::run_small(async {
        match command(&files.socket, &Command::Stop).await {
            Ok(answer) => gone(&files, &answer).await.map(|()| Some(answer.pid)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(agent::no_agent(&error)),
        }
    })?;
    if global.json {
        return output::json(&json!({ "stopped": stopped.is_some(), "pid": stopped }));
    }
    output::line(match stopped {
        Some(pid) => format!("the agent is stopped (pid {pid})"),
        None => "no agent runs with this configuration".into(),
    })
}

async fn gone(files: &Files, answer: &Answer) -> Result<(), Failure> {
    let give_up = Instant::now() + STOP_WITHIN;
    while Claim::owner(&files.pid) == Some(answer.pid) {
        if Instant::now() >= give_up {
            return Err(Failure::Failed(format!("the agent (pid {}) does not end", answer.pid)));
        }
        host::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Restarts a server of the agent, or all.
pub(super) fn restart(server: Option<&str>, global: &Global) -> Result<(), Failure> {
    let answer = agent::ask(&ControlCommand::Restart { server: server.map(str::to_owned) }, global)?;
    if global.json {
        return output::json(&answer);
    }
    let restarted: Restarted = serde_json::from_value(answer)
        .map_err(|error| Failure::Failed(format!("the agent's answer is not understood: {error}")))?;
    let names: Vec<_> = restarted.servers.iter().map(|name| output::visible(name)).collect();
    output::line(if names.is_empty() {
        "no servers are configured".into()
    } else {
        format!("restarting {}", names.join(", "))
    })
}

/// An agent gives its servers six seconds, and last words a few more.
const STOP_WITHIN: Duration = Duration::from_secs(15);
