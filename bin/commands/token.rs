//! `token create`, `token list`, `token revoke`: what the operator does beside the relay.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;

use super::relay;
use crate::cli::{self, Global, TokenCommand};
use crate::failure::Failure;
use crate::{config_source, directories, host, output};

/// Runs it, with the relay's configuration.
pub(crate) fn run(command: &TokenCommand, global: &Global) -> Result<(), Failure> {
    let config = config_source::relay(global)?;
    let state_dir = directories::state(&config)?;
    let answer = host::run(async { relay::admin(&config, &state_dir, &order(command)).await })?;
    if global.json {
        return output::json(&answer);
    }
    match command {
        TokenCommand::Create { role, .. } => created(&read(answer)?, *role),
        TokenCommand::List => listed(&read::<List>(answer)?.tokens),
        TokenCommand::Revoke { id } => output::line(format!("{} is revoked", output::visible(id))),
    }
}

/// The command as the relay's machine takes it.
fn order(command: &TokenCommand) -> AdminCommand {
    match command {
        TokenCommand::Create { user, role, scope, label, expires } => AdminCommand::TokenCreate {
            user: user.clone(),
            role: match role {
                cli::Role::Client => Role::Client,
                cli::Role::Agent => Role::Agent,
            },
            scope: scope.join(" "),
            label: label.clone(),
            lifetime_secs: *expires,
        },
        TokenCommand::List => AdminCommand::TokenList,
        TokenCommand::Revoke { id } => AdminCommand::TokenRevoke { id: id.clone() },
    }
}

/// A new token.
#[derive(Deserialize)]
pub(super) struct Created {
    id: String,
    user: String,
    pub(super) token: String,
    expires: u64,
    #[serde(default)]
    warning: Option<String>,
}

#[derive(Deserialize)]
struct List {
    tokens: Vec<Listed>,
}

/// A token in the list. Times are seconds since 1970.
#[derive(Deserialize, Serialize)]
struct Listed {
    id: String,
    user: String,
    role: Role,
    #[serde(default)]
    scope: String,
    label: String,
    #[serde(default)]
    used: Option<u64>,
    expires: u64,
    #[serde(default)]
    revoked: Option<u64>,
}

/// An answer of the relay's machine as `T`.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::Failed(format!("the relay's answer is not understood: {error}")))
}

/// Prints the token alone on stdout, so that it can go to a file; what is to be known about it goes to stderr.
fn created(made: &Created, role: cli::Role) -> Result<(), Failure> {
    let lifetime = output::duration(made.expires.saturating_sub(now()));
    let id = output::visible(&made.id);
    output::note(format!(
        "token {id} of {} lives for {lifetime} and is shown only now; to end it: mcp-local-tunnel token revoke {id}",
        output::visible(&made.user)
    ));
    if let Some(warning) = &made.warning {
        output::note(format!("warning: {}", output::visible(warning)));
    }
    if role == cli::Role::Agent {
        output::note("an agent takes it as \"token\": \"env:NAME\" or \"token\": \"file:PATH\"");
    }
    output::line(&made.token)
}

fn listed(tokens: &[Listed]) -> Result<(), Failure> {
    let now = now();
    let mut rows = vec![["ID", "USER", "ROLE", "SCOPE", "USED", "EXPIRES", "LABEL"].map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| {
        let expires = match token.revoked {
            Some(_) => "revoked".into(),
            None if token.expires <= now => "expired".into(),
            None => format!("in {}", output::duration(token.expires - now)),
        };
        let role = match token.role {
            Role::Client => "client",
            Role::Agent => "agent",
        };
        let [id, user, scope, label] =
            [&token.id, &token.user, &token.scope, &token.label].map(|text| output::visible(text));
        let used = token.used.map_or("-".into(), |at| format!("{} ago", output::duration(now.saturating_sub(at))));
        [id, user, role.into(), scope, used, expires, label]
    }));
    output::line(output::table(&rows))
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
