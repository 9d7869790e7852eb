//! Where the program keeps its files.

use std::path::PathBuf;

use tunnel_core::config::RelayConfig;

use crate::failure::Failure;
use crate::host::files;

/// An agent's files: tokens, logs, what is trusted. The same on every system, as it always was.
pub(crate) fn config() -> Result<PathBuf, Failure> {
    Ok(home()?.join(".config/mcp-local-tunnel"))
}

/// A relay's state: `stateDir`, else what the service manager made (`STATE_DIRECTORY`), else a directory of the user's
/// that is named after the public URL, so that two relays never share keys.
pub(crate) fn state(config: &RelayConfig) -> Result<PathBuf, Failure> {
    if let Some(dir) = &config.state_dir {
        return Ok(dir.into());
    }
    // systemd separates several directories with colons; the first one is ours.
    if let Some(dirs) = variable("STATE_DIRECTORY")
        && let Some(first) = std::env::split_paths(&dirs).next()
    {
        return Ok(first);
    }
    let base = match variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(base) => base,
        None => home()?.join(".local/state"),
    };
    Ok(base.join("mcp-local-tunnel").join(files::short_hash(public_url(config).as_bytes())))
}

/// The URL that people use for the relay.
pub(crate) fn public_url(config: &RelayConfig) -> String {
    config.url_at(config.port)
}

fn home() -> Result<PathBuf, Failure> {
    etcetera::home_dir().map_err(|_| Failure::Failed("cannot tell your home directory: set HOME".into()))
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
