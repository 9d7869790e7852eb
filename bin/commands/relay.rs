//! `relay`: the public side, until a signal ends it.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tunnel_core::config::{Clients, Login, Reference, RelayConfig};
use tunnel_core::oauth::grants::AdminCommand;
use tunnel_core::secret::Secret;

use crate::failure::Failure;
use crate::host::relay::{self, Options, Relay, RelayError};
use crate::host::store::StoreError;
use crate::{directories, host, signals};

/// Runs a relay until SIGTERM or SIGINT.
pub(crate) fn run(mut config: RelayConfig) -> Result<(), Failure> {
    look_up_secrets(&mut config.clients)?;
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

/// Puts the secrets of the configuration's clients in the place of what says where they are.
fn look_up_secrets(clients: &mut Clients) -> Result<(), Failure> {
    for client in &mut clients.known {
        let Some(secret) = &client.secret else { continue };
        let place = format!("the secret of client {}", client.id);
        let found = match Reference::read(secret.expose()) {
            None => continue,
            Some(Reference::Variable(name)) => {
                std::env::var(name).map_err(|error| format!("{place}: the variable {name} cannot be used: {error}"))
            }
            Some(Reference::File(path)) => {
                fs::read_to_string(path).map_err(|error| format!("{place}: the file {path} cannot be read: {error}"))
            }
        };
        let found = Secret::new(found.map_err(Failure::Usage)?.trim());
        if found.is_empty() {
            return Err(Failure::Usage(format!("{place} is empty")));
        }
        client.secret = Some(found);
    }
    Ok(())
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
    if config.clients.loopback_documents {
        tracing::warn!(
            "clientDocuments.allowLoopback is on: whoever sends people here makes the relay fetch from this machine"
        );
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
        RelayError::Audit(_) => Failure::Failed(format!("{error}; \"audit\" of the configuration says where")),
        RelayError::Listen { .. } => Failure::Failed(format!("{error}; host and port of the configuration say where")),
        _ => Failure::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel_core::config::StaticClient;

    fn looked_up(secret: Option<&str>) -> Result<Option<Secret>, Failure> {
        let (id, name, redirects) = ("ci".into(), "CI".into(), vec!["https://ci.example/".into()]);
        let client = StaticClient { id, name, redirects, secret: secret.map(Secret::new) };
        let mut clients = Clients { known: vec![client], loopback_documents: false };
        look_up_secrets(&mut clients)?;
        Ok(clients.known.remove(0).secret)
    }

    #[test]
    fn secrets_are_looked_up_and_never_shown() {
        let path = std::env::temp_dir().join(format!("mcp-local-tunnel-secret-{}", std::process::id()));
        fs::write(&path, " s3cret\n").expect("writes");
        let place = format!("file:{}", path.display());
        let is = |text: &str| Some(Secret::new(text));
        assert_eq!(looked_up(Some(&place)).expect("reads"), is("s3cret"));
        assert_eq!(looked_up(Some("as it is: s3cret")).expect("reads"), is("as it is: s3cret"));
        assert_eq!(looked_up(None).expect("reads"), None);
        fs::write(&path, "\n").expect("writes");
        let places = [place.as_str(), "file:/nowhere/secret", "env:MCP_LOCAL_TUNNEL_NO_SUCH_VARIABLE"];
        for place in places {
            let failure = looked_up(Some(place)).expect_err("nothing is there");
            assert!(matches!(&failure, Failure::Usage(text) if text.contains("client ci")), "{failure}");
        }
        fs::remove_file(&path).expect("removes");
    }
}
