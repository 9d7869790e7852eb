//! `probe`: what an MCP client meets at an endpoint, the sign-in included.

use serde_json::json;
use tunnel_core::probe::contract::{Failure as ProbeFailure, GivenClient, Report, Settings};

use super::agent::secret;
use crate::cli::{Global, ProbeArgs};
use crate::failure::Failure;
use crate::host::signin;
use crate::{host, output, signals};

/// Connects, signs in, lists the tools.
pub(crate) fn run(args: &ProbeArgs, global: &Global) -> Result<(), Failure> {
    let settings = Settings {
        url: args.url.clone(),
        allow_insecure: global.allow_insecure,
        client: given_client(args.client_id.as_ref(), args.client_secret.as_deref())?,
        token: None,
        call: args.call.clone(),
        stay: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let report = host::run_small(async {
        let stop = signals::stop()?;
        tokio::select! {
            outcome = signin::probe(settings, args.ca_file.as_deref()) => outcome.map_err(|failure| failed(&failure)),
            () = stop => Err(Failure::Failed("interrupted".into())),
        }
    })?;
    let went_well = report.call.unwrap_or(true);
    if global.json {
        output::json(&document(args, &report))?
    } else {
        output::line(described(args, &report))?
    }
    if went_well { Ok(()) } else { Err(Failure::Failed("the tool that was called says that it failed".into())) }
}

/// The client to be, where the command line names one.
pub(super) fn given_client(id: Option<&String>, place: Option<&str>) -> Result<Option<GivenClient>, Failure> {
    let Some(id) = id else { return Ok(None) };
    let secret = place.map(|place| secret(place, "--client-secret")).transpose()?;
    Ok(Some(GivenClient { id: id.clone(), secret }))
}

fn document(args: &ProbeArgs, report: &Report) -> serde_json::Value {
    json!({
        "url": args.url,
        "protocolVersion": report.version,
        "server": report.server,
        "signIn": report.access.as_ref().map(|access| json!({
            "issuer": access.issuer,
            "clientId": access.client_id,
            "registered": access.registered,
            "scope": access.scope,
            "times": access.times,
        })),
        "tools": report.tools,
        "call": report.call,
    })
}

fn described(args: &ProbeArgs, report: &Report) -> String {
    let row = |name: &str, value: &str| [name.to_owned(), output::visible(value)];
    let mut rows = vec![row("url", &args.url), row("protocol", report.version)];
    rows.extend(report.server.iter().map(|server| row("server", server)));
    match &report.access {
        Some(access) => {
            rows.push(row("signed in at", &access.issuer));
            rows.push(row("as client", if access.registered { "registered for this" } else { &access.client_id }));
            rows.push(row("scope", access.scope.as_deref().unwrap_or("left to the server")));
        }
        None => rows.push(row("sign-in", "not asked for")),
    }
    rows.push(row("tools", &report.tools.len().to_string()));
    rows.extend(report.tools.iter().map(|tool| row("", tool)));
    output::table(&rows)
}

/// What a probe's failure means for the program.
pub(super) fn failed(failure: &ProbeFailure) -> Failure {
    let text = output::visible(&failure.to_string());
    match failure {
        ProbeFailure::Refused { .. } => Failure::SignIn(text),
        ProbeFailure::Unreachable { .. } => Failure::Unreachable(text),
        ProbeFailure::Broken { .. } | ProbeFailure::Local { .. } => Failure::Failed(text),
    }
}
