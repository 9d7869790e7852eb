//! `grants list`, `grants revoke`: who has access to people's devices, on the relay's machine.

use serde::Deserialize;
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;

use super::relay;
use super::token::{now, read};
use crate::cli::{Global, GrantsCommand};
use crate::failure::Failure;
use crate::{config_source, directories, host, output};

/// Runs it, with the relay's configuration.
pub(crate) fn run(command: &GrantsCommand, global: &Global) -> Result<(), Failure> {
    let config = config_source::relay(global)?;
    let state_dir = directories::state(&config)?;
    let order = match command {
        GrantsCommand::List { user } => AdminCommand::GrantList { user: user.clone() },
        GrantsCommand::Revoke { user: Some(user), .. } => AdminCommand::GrantRevokeAll { user: user.clone() },
        GrantsCommand::Revoke { id, user: None } => AdminCommand::GrantRevoke { id: id.clone().unwrap_or_default() },
    };
    let answer = host::run(async { relay::admin(&config, &state_dir, &order).await })?;
    if global.json {
        return output::json(&answer);
    }
    match order {
        AdminCommand::GrantRevokeAll { user } => {
            let Revoked { revoked } = read(answer)?;
            let grants = if revoked == 1 { "grant" } else { "grants" };
            output::line(format!("{revoked} {grants} of {} revoked", output::visible(&user)))
        }
        AdminCommand::GrantRevoke { id } => output::line(format!("{} is revoked", output::visible(&id))),
        _ => listed(&read::<List>(answer)?.grants),
    }
}

#[derive(Deserialize)]
struct Revoked {
    revoked: usize,
}

#[derive(Deserialize)]
struct List {
    grants: Vec<Granted>,
}

/// A grant in the list. Times are seconds since 1970.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    id: String,
    user: String,
    role: Role,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    device: String,
    #[serde(default)]
    client: String,
    #[serde(default)]
    redirect: String,
    #[serde(default)]
    label: Option<String>,
    connected: bool,
    #[serde(default)]
    shut_out: bool,
    granted: u64,
    #[serde(default)]
    used: Option<u64>,
}

fn listed(grants: &[Granted]) -> Result<(), Failure> {
    let now = now();
    let ago = |at: u64| format!("{} ago", output::duration(now.saturating_sub(at)));
    let mut rows = vec![["ID", "USER", "KIND", "SCOPE", "GRANTED", "USED", "WHAT"].map(str::to_owned)];
    rows.extend(grants.iter().map(|grant| {
        let kind = match (grant.role, &grant.label) {
            (Role::Client, None) => "client",
            (Role::Agent, None) => "device",
            (Role::Client, Some(_)) => "client's token",
            (Role::Agent, Some(_)) => "device's token",
        };
        let used = match grant.used {
            _ if grant.connected => "connected".into(),
            Some(at) => ago(at),
            None => "-".into(),
        };
        // Every agent is one client, answered on its own machine: the device's name says more.
        let (name, redirect) = match grant.role {
            Role::Agent if !grant.device.is_empty() => (&*grant.device, ""),
            Role::Agent => (&*grant.client, ""),
            Role::Client => (&*grant.client, &*grant.redirect),
        };
        let shut_out = if grant.shut_out { "not let in at present" } else { "" };
        let parts = [name, redirect, grant.label.as_deref().unwrap_or_default(), shut_out];
        let what = parts.into_iter().filter(|part| !part.is_empty()).map(output::visible).collect::<Vec<_>>();
        let [id, user, scope] = [&grant.id, &grant.user, &grant.scope].map(|text| output::visible(text));
        [id, user, kind.into(), scope, ago(grant.granted), used, what.join(", ")]
    }));
    output::line(output::table(&rows))
}
