//! Run by an editor, the program is a stub: an MCP server on stdio that keeps the agent in the background.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, fstat};
use tunnel_core::config::AgentConfig;
use tunnel_core::daemon::Kind;
use tunnel_core::stub::{Settings, link};

use super::agent;
use crate::cli::{Global, LogFormat};
use crate::config_source::Source;
use crate::failure::Failure;
use crate::host::daemon::Files;
use crate::host::stub::{self, Credentials, Way};
use crate::host::{self, signin};
use crate::{directories, signals};

/// A stub where stdin is a pipe or a socket, as editors make it; the agent itself where it is a terminal, a file or
/// `/dev/null`.
pub(super) fn or_agent(source: Source, config: AgentConfig, global: &Global) -> Result<(), Failure> {
    if is_conversation(&io::stdin()) {
        return run(&source, &config, global);
    }
    agent::run(source, config, Kind::Foreground, global)
}

fn is_conversation(stdin: &impl AsFd) -> bool {
    fstat(stdin).is_ok_and(|found| matches!(FileType::from_raw_mode(found.st_mode), FileType::Fifo | FileType::Socket))
}

fn run(source: &Source, config: &AgentConfig, global: &Global) -> Result<(), Failure> {
    let settings = Settings { relay: config.relay.clone(), link: link_settings(config, signin::has_screen()) };
    let way = way(source, config, global)?;
    tracing::info!("serving MCP on stdin and stdout, the agent runs in the background; --foreground runs it here");
    host::run_small(async {
        let stop = signals::stop()?;
        stub::run(settings, way, stop).await.or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(Failure::Failed(format!("cannot serve on stdin and stdout: {error}"))),
        })
    })
}

/// Of the way to the agent. `interactive`: somebody can sign in.
pub(super) fn link_settings(config: &AgentConfig, interactive: bool) -> link::Settings {
    let (version, minted) = (env!("CARGO_PKG_VERSION").into(), config.token.is_some());
    link::Settings { version, interactive, minted, keep: false }
}

/// The way to the agent of this configuration, and how it is started.
pub(super) fn way(source: &Source, config: &AgentConfig, global: &Global) -> Result<Way, Failure> {
    let config_dir = directories::config()?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("cannot tell this program's path: {error}")))?;
    let mut args = vec!["agent".into(), "--daemon".into()];
    if global.log_format == LogFormat::Json {
        args.extend(["--log-format".into(), "json".into()]);
    }
    if let Some(level) = &global.log_level {
        args.extend(["--log-level".into(), level.into()]);
    }
    if global.allow_insecure {
        args.push("--allow-insecure".into());
    }
    // Not as an argument: it may hold secrets, and arguments are visible to every process.
    let env = global.config.iter().map(|config| ("MCP_LOCAL_TUNNEL_CONFIG".into(), config.into())).collect();
    let credentials = match config.token.as_deref() {
        Some(token) => token.strip_prefix("file:").map_or(Credentials::Variable, |path| Credentials::File(path.into())),
        None => Credentials::Signin(Box::new(signin::Options {
            relay: config.relay.clone(),
            config_dir: config_dir.clone(),
            allow_insecure: global.allow_insecure,
            ca_file: config.ca_file.as_deref().map(Into::into),
            device: config.name.clone().unwrap_or_else(host::agent::host_name),
            person: signin::person(),
        })),
    };
    Ok(Way { files: Files::new(&config_dir, &source.identity()), credentials, program, args, env })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    #[test]
    fn pipes_and_sockets_are_conversations_and_files_are_not() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let (socket, _other) = UnixStream::pair().expect("a pair");
        assert!(is_conversation(&reader) && is_conversation(&socket));
        for path in ["/dev/null", "Cargo.toml"] {
            assert!(!is_conversation(&File::open(path).expect("opens")), "{path}");
        }
    }
}
