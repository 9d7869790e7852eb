//! `keys rotate`, `keys list`, `keys revoke-all`: what the operator does about the relay's master keys, beside the relay.

use std::io::{self, BufRead, IsTerminal};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tunnel_core::oauth::grants::AdminCommand;

use super::{relay, token};
use crate::cli::{Global, KeysCommand};
use crate::failure::Failure;
use crate::{config_source, directories, host, output};

/// Runs it, with the relay's configuration.
pub(crate) fn run(command: &KeysCommand, global: &Global) -> Result<(), Failure> {
    let config = config_source::relay(global)?;
    let state_dir = directories::state(&config)?;
    let order = match command {
        KeysCommand::List => AdminCommand::KeysList,
        KeysCommand::Rotate => AdminCommand::KeysRotate,
        KeysCommand::RevokeAll { yes } => {
            confirm(*yes, &directories::public_url(&config))?;
            AdminCommand::KeysRevokeAll
        }
    };
    let answer = host::run(async { relay::admin(&config, &state_dir, &order).await })?;
    if global.json {
        return output::json(&answer);
    }
    match command {
        KeysCommand::List => listed(&token::read(answer)?),
        KeysCommand::Rotate => rotated(&token::read(answer)?),
        KeysCommand::RevokeAll { .. } => revoked(&token::read(answer)?),
    }
}

/// Asks the person, unless they have said so already.
fn confirm(yes: bool, relay: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("this signs everybody out: say --yes if that is meant".into()));
    }
    output::note(format!("This signs every client and every device out of {relay}. Type yes to go on:"));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::Failed(format!("cannot ask: {error}")))?;
    if line.trim() == "yes" { Ok(()) } else { Err(Failure::Usage("nothing was done".into())) }
}

fn listed(list: &List) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut rows = vec![["ID", "USE", "AGE"].map(str::to_owned)];
    rows.extend(list.keys.iter().map(|key| {
        let age = key.made.map(|made| output::duration(now.saturating_sub(made)));
        let used = if key.seals { "seals" } else { "opens" };
        [output::visible(&key.id), used.into(), age.unwrap_or_else(|| "from the configuration".into())]
    }));
    output::line(output::table(&rows))
}

fn rotated(done: &Rotated) -> Result<(), Failure> {
    if let Some(gone) = &done.gone {
        output::note(format!(
            "{} is gone: clients that registered with it do so again, tokens that were made with it have ended",
            output::visible(gone)
        ));
    }
    output::line(format!("{} seals from now on; {} keys open", output::visible(&done.id), done.kept))
}

fn revoked(done: &Revoked) -> Result<(), Failure> {
    if !done.renewed {
        output::note(
            "the key is the configuration's and stays: if it may be known to others, change `secret` and restart the relay",
        );
    }
    output::line(format!("everybody is signed out ({} sign-ins and tokens)", done.signed_out))
}

#[derive(Deserialize)]
struct List {
    keys: Vec<Listed>,
}

/// A key in the list.
#[derive(Deserialize)]
struct Listed {
    id: String,
    /// Seconds since 1970.
    #[serde(default)]
    made: Option<u64>,
    seals: bool,
}

#[derive(Deserialize)]
struct Rotated {
    id: String,
    #[serde(default)]
    gone: Option<String>,
    kept: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    signed_out: usize,
    renewed: bool,
}
