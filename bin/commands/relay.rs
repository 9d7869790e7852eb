//! `relay`: the public side, until a signal ends it.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tunnel_core::config::{AuditFile, Login, Problem, Reference, RelayConfig, Severity};
use tunnel_core::oauth::grants::AdminCommand;
use tunnel_core::seal::{KeySource, key_from_secret};
use tunnel_core::secret::Secret;

use crate::failure::Failure;
use crate::host::audit;
use crate::host::relay::{self, Options, Relay, RelayError, TlsError};
use crate::host::store::{self, StoreError};
use crate::{directories, host, signals};

/// Runs a relay until SIGTERM or SIGINT.
pub(crate) fn run(mut config: RelayConfig) -> Result<(), Failure> {
    look_up_secrets(&mut config).map_err(Failure::Usage)?;
    let state_dir = directories::state(&config)
        .inspect_err(|failure| tracing::warn!(reason = %failure, "keys and sign-ins are kept in memory: every restart signs everybody out, with `secret` too"))
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

/// Puts the configuration's secrets in the place of what says where they are.
fn look_up_secrets(config: &mut RelayConfig) -> Result<(), String> {
    for (setting, secret) in secrets(config) {
        if let Some(found) = look_up(secret).map_err(|why| format!("{setting}: {why}"))? {
            *secret = found;
        }
    }
    Ok(())
}

/// The secrets that may say where they are, by their settings.
fn secrets(config: &mut RelayConfig) -> Vec<(String, &mut Secret)> {
    let at_provider = match &mut config.login {
        Login::Oidc(oidc) => oidc.client_secret.as_mut(),
        Login::Local(_) => None,
    };
    let at_provider = at_provider.map(|secret| ("auth.clientSecret".to_owned(), secret));
    let of_clients = config
        .clients
        .known
        .iter_mut()
        .enumerate()
        .filter_map(|(at, client)| client.secret.as_mut().map(|secret| (format!("clients[{at}].secret"), secret)));
    at_provider.into_iter().chain(of_clients).collect()
}

/// What is at the place that `secret` names; `None`: it is the secret itself.
fn look_up(secret: &Secret) -> Result<Option<Secret>, String> {
    let found = match Reference::read(secret.expose()) {
        None => return Ok(None),
        // The system's own words could repeat the value.
        Some(Reference::Variable(name)) => {
            std::env::var(name).map_err(|_| format!("the variable {name} is not set, or is no text"))?
        }
        Some(Reference::File(path)) => {
            fs::read_to_string(path).map_err(|error| format!("the file {path} cannot be read: {error}"))?
        }
    };
    let found = Secret::new(found.trim());
    if found.is_empty() { Err("what it names is empty".into()) } else { Ok(Some(found)) }
}

/// What the configuration names and is not here, or does not fit: for `config check`.
pub(crate) fn missing(config: &mut RelayConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, secret) in secrets(config) {
        if let Err(why) = look_up(secret) {
            let message = format!("cannot be had here, without which the relay does not start: {why}");
            problems.push(Problem { severity: Severity::Warning, path, message });
        }
    }
    problems.extend(weak_secrets(config));
    problems.extend(unwritable(config));
    match relay::check_tls(config) {
        Ok(remarks) => problems.extend(remarks.into_iter().map(|(setting, message)| Problem {
            severity: Severity::Warning,
            path: setting.into(),
            message,
        })),
        Err(TlsError::File { setting, path, cause }) => {
            // What is not here may be where the relay runs; what does not fit fits nowhere.
            let here = fs::read(&path).is_ok();
            let severity = if here { Severity::Error } else { Severity::Warning };
            let message = format!("cannot be used: {}: {cause}", path.display());
            problems.push(Problem { severity, path: setting.into(), message });
        }
        Err(other) => {
            problems.push(Problem { severity: Severity::Error, path: "tls".into(), message: other.to_string() })
        }
    }
    problems
}

/// Of configured secrets those that a start warns of.
fn weak_secrets(config: &RelayConfig) -> Vec<Problem> {
    let several = config.secrets.len() > 1;
    let weak = config.secrets.iter().enumerate().filter_map(|(at, secret)| {
        let message = match key_from_secret(secret.expose()) {
            KeySource::Direct(_) => return None,
            KeySource::Stretch { damaged: true } => "looks like a generated one but is cut or mistyped",
            KeySource::Stretch { damaged: false } => {
                "is not a generated one: make a stronger one with `mcp-local-tunnel gen-secret`"
            }
        };
        let path = if several { format!("secret[{at}]") } else { "secret".into() };
        Some(warning(&path, message))
    });
    weak.collect()
}

/// What could not be kept here.
fn unwritable(config: &RelayConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    let dir = directories::state(config).map_err(|failure| failure.to_string());
    let usable = dir.and_then(|dir| store::check(&dir).map(|()| dir));
    if let Err(why) = &usable {
        let message = format!("cannot be used here, and every restart would sign everybody out: {why}");
        problems.push(warning("stateDir", message));
    }
    if let Some(file) = &config.audit
        && let Err(why) = match (&usable, file) {
            (Err(_), AuditFile::Default) => Err("there is no state directory to keep it in".to_owned()),
            (dir, file) => audit::check(dir.as_deref().unwrap_or(Path::new("")), file),
        }
    {
        let message = format!("cannot be written here, without which the relay does not start: {why}");
        problems.push(warning("audit", message));
    }
    problems
}

fn warning(path: &str, message: impl Into<String>) -> Problem {
    Problem { severity: Severity::Warning, path: path.into(), message: message.into() }
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
    if public_url.starts_with("https://") && config.tls.is_none() && config.trusted_proxies.is_empty() {
        tracing::warn!(
            "issuerUrl is https, and TLS is not this relay's: trustedProxies must name the proxy that has it, or all \
             clients share one address's rate limits"
        );
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
                host::rt::sleep(Duration::from_millis(20)).await;
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
    use tunnel_core::config::{self, Config};

    fn looked_up(secret: &str) -> Result<Secret, String> {
        let text = serde_json::json!({"mode": "relay",
            "auth": {"issuer": "https://id.example.com", "clientSecret": secret},
            "clients": [{"id": "ci", "name": "CI", "redirectUris": ["https://ci.example/"], "secret": secret}]});
        let Ok(Config::Relay(mut config)) = config::parse(&text.to_string()).map(|parsed| parsed.config) else {
            panic!("a relay")
        };
        look_up_secrets(&mut config)?;
        let Login::Oidc(oidc) = config.login else { panic!("a provider") };
        assert_eq!(oidc.client_secret, config.clients.known[0].secret, "both are looked up alike");
        Ok(oidc.client_secret.expect("it is there"))
    }

    #[test]
    fn secrets_are_looked_up_and_never_shown() {
        let path = std::env::temp_dir().join(format!("mcp-local-tunnel-secret-{}", std::process::id()));
        fs::write(&path, " s3cret\n").expect("writes");
        let place = format!("file:{}", path.display());
        assert_eq!(looked_up(&place), Ok(Secret::new("s3cret")));
        assert_eq!(looked_up("as it is: s3cret"), Ok(Secret::new("as it is: s3cret")));
        fs::write(&path, "\n").expect("writes");
        let places = [place.as_str(), "file:/nowhere/secret", "env:MCP_LOCAL_TUNNEL_NO_SUCH_VARIABLE"];
        for place in places {
            let why = looked_up(place).expect_err("nothing is there");
            assert!(why.starts_with("auth.clientSecret: "), "{why}");
        }
        fs::remove_file(&path).expect("removes");
    }
}
