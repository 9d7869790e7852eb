//! `start`, `stop` and `restart`: the agent in the background.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use serde_json::json;
use tunnel_core::agent::machine::ControlCommand;
use tunnel_core::agent::status::Restarted;
use tunnel_core::daemon::{Command, Kind};
use tunnel_core::stub::login_hint;

use super::{agent, stub};
use crate::cli::Global;
use crate::config_source;
use crate::failure::Failure;
use crate::host::daemon::{Claim, Files, kill, terminate};
use crate::host::stub::{NotStarted, Started, command, start as start_agent};
use crate::host::{self, signin};
use crate::output;

/// Starts the agent, to stay until it is stopped.
pub(super) fn start(global: &Global) -> Result<(), Failure> {
    let (source, config) = config_source::agent(global)?;
    let way = stub::way(&source, &config, global)?;
    let log = way.files.log.clone();
    let settings = stub::link_settings(&config, signin::has_screen() || io::stdin().is_terminal());
    let Started { answer, new } = host::run_small(async {
        start_agent(settings, way).await.map_err(|error| match error {
            NotStarted::NeedsLogin(reason) => Failure::SignIn(output::visible(&login_hint(&reason))),
            NotStarted::NeedsToken(reason) => Failure::SignIn(format!(
                "the token that the configuration names is of no use: {}",
                output::visible(&reason)
            )),
            NotStarted::Unusable(reason) => Failure::Usage(output::visible(&reason)),
            NotStarted::Failed(reason) => Failure::Failed(output::visible(&reason)),
        })
    })?;
    // One in the foreground writes its log where its starter reads it.
    let log = (answer.kind == Kind::Daemon).then(|| log.display().to_string());
    if global.json {
        return output::json(&json!({
            "started": new, "pid": answer.pid, "version": answer.version, "kind": answer.kind, "log": log,
        }));
    }
    output::line(match log {
        Some(log) => {
            let what = if new { "started" } else { "runs already, and stays" };
            format!("the agent {what} (pid {}, log {log})", answer.pid)
        }
        None => format!("the agent runs already, in the foreground (pid {}): whoever started it ends it", answer.pid),
    })
}

/// Stops the agent and waits until it is gone. One that hangs is ended by force.
pub(super) fn stop(global: &Global) -> Result<(), Failure> {
    let files = agent::files(global)?;
    let stopped = host::run_small(async {
        let pid = match command(&files.socket, &Command::Stop).await {
            Ok(answer) => answer.pid,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                // A stub may be about to start it once more.
                mark(&files);
                return Ok(None);
            }
            Err(error) => match Claim::holder(&files.pid) {
                Some((pid, _)) if error.kind() == io::ErrorKind::TimedOut => {
                    return force(&files, pid).await.map(|how| Some((pid, how)));
                }
                _ => return Err(agent::no_agent(&files, &error)),
            },
        };
        mark(&files);
        if gone(&files, pid, STOP_WITHIN).await {
            return Ok(Some((pid, "stopped")));
        }
        force(&files, pid).await.map(|how| Some((pid, how)))
    })?;
    if global.json {
        let (pid, how) = stopped.unzip();
        return output::json(&json!({ "stopped": pid.is_some(), "pid": pid, "killed": how == Some(KILLED) }));
    }
    output::line(match stopped {
        Some((pid, how)) => format!("the agent is {how} (pid {pid})"),
        None => "no agent runs with this configuration".into(),
    })
}

/// Tells the stubs that a person wants no agent, whatever they see of its end.
fn mark(files: &Files) {
    if let Err(error) = files.mark_stopped() {
        output::note(format!(
            "cannot write {}: {error}. An editor that is attached may start the agent again",
            files.stopped.display()
        ));
    }
}

/// Ends an agent that does not answer, or does not end; how it was done.
async fn force(files: &Files, pid: u32) -> Result<&'static str, Failure> {
    output::note(format!("the agent (pid {pid}) does not answer: it is ended by force"));
    for (end, within, how) in
        [(terminate as fn(u32), TERM_WITHIN, "stopped, by SIGTERM"), (kill as fn(u32), KILL_WITHIN, KILLED)]
    {
        // Each time: an editor that just came thinks that the agent is wanted.
        mark(files);
        // Looked at each time: the id may be another process's by now.
        if Claim::holder(&files.pid).is_some_and(|(holder, _)| holder == pid) {
            end(pid);
        }
        if gone(files, pid, within).await {
            return Ok(how);
        }
    }
    Err(Failure::Failed(format!("the agent (pid {pid}) does not end")))
}

/// Whether the agent is gone in time.
async fn gone(files: &Files, pid: u32, within: Duration) -> bool {
    let give_up = Instant::now() + within;
    while Claim::holder(&files.pid).is_some_and(|(holder, _)| holder == pid) {
        if Instant::now() >= give_up {
            return false;
        }
        host::rt::sleep(Duration::from_millis(50)).await;
    }
    true
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
/// One that hangs may still hear a signal; its servers get their six seconds.
const TERM_WITHIN: Duration = Duration::from_secs(8);
/// The system buries it at once, or it sleeps in a device.
const KILL_WITHIN: Duration = Duration::from_secs(5);
const KILLED: &str = "killed: it did not answer";
