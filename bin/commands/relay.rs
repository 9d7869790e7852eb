//! `relay`: the public side, until a signal ends it.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tunnel_core::config::{Login, RelayConfig};
use tunnel_core::oauth::grants::AdminCommand;

use crate::failure::Failure;
use crate::host::relay::{self, Options, Relay, RelayError};
use crate::host::store::StoreError;
use crate::{directories, host, signals};

/// Runs a relay until SIGTERM or SIGINT.
pub(crate) fn run(config: RelayConfig) -> Result<(), Failure> {
    let state_dir = directories::state(&config)
        .inspect_err(|failure| tracing::warn!(reason = %failure, "keys and sign-ins are kept in memory: a restart signs everybody out"))
        .ok();
    host::run(async {
        let stop = signals::stop()?;
        let options = Options { config: config.clone(), state_dir };
        let relay = patiently(|| Relay::bind(options.clone())).await.map_err(|error| failed(&error))?;
        announce(&config, relay.public_url());
        relay.run(stop).await;
        Ok(())
    })
}

/// Says what an operator should know and may not have meant.
fn announce(config: &RelayConfig, public_url: &str) {
    if config.public_url.is_none() {
        tracing::warn!(
            url = public_url,
            "only this machine can sign in until issuerUrl is set to the relay's public URL"
        );
    }
    match &config.login {
        Login::Oidc(oidc) if oidc.allow.is_empty() => {
            tracing::warn!(
                issuer = oidc.issuer,
                "open to everyone who has an account at the provider: auth.allow can name who may sign in"
            );
        }
        Login::Oidc(_) | Login::Local(_) => {}
    }
    if config.token_in_query {
        tracing::warn!("legacy.tokenInQuery is on: old agents send tokens in URLs, which proxies log");
    }
}

/// Carries out an operator's command at the relay that keeps its state in `state_dir`, running or not; the answer is
/// the machine's, if it is a good one.
pub(crate) async fn admin(config: &RelayConfig, state_dir: &Path, command: &AdminCommand) -> Result<Value, Failure> {
    let answer = patiently(|| relay::admin(config, state_dir, command)).await.map_err(|error| failed(&error))?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| Failure::Failed(format!("the relay's answer is not JSON: {error}")))?;
    if answer.get("ok") == Some(&Value::Bool(true)) {
        return Ok(answer);
    }
    let reason = answer.get("error").and_then(Value::as_str).unwrap_or("the relay refused and did not say why");
    Err(Failure::Failed(crate::output::visible(reason)))
}

/// Tries again for a while when somebody else has the state: a relay that starts or ends, an operator's command.
async fn patiently<T, W>(mut work: impl FnMut() -> W) -> Result<T, RelayError>
where
    W: Future<Output = Result<T, RelayError>>,
{
    let begun = Instant::now();
    loop {
        match work().await {
            Err(RelayError::State(StoreError::InUse(_))) if begun.elapsed() < HELD_AT_MOST => {
                host::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Longer than starting or ending takes on a slow machine; a relay that has the state for good is named after it.
const HELD_AT_MOST: Duration = Duration::from_secs(3);

/// Why a relay does not start, with what mends it.
pub(crate) fn failed(error: &RelayError) -> Failure {
    match error {
        RelayError::Listen { .. } => Failure::Failed(format!("{error}; host and port of the configuration say where")),
        _ => Failure::Failed(error.to_string()),
    }
}
