//! `login`, `logout` and `whoami`: this machine's tokens for its relay.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tunnel_core::config::{self, Config};
use tunnel_core::signin::machine::{Failure as SigninFailure, Identity, Leave, Person};
use tunnel_core::time::UnixTime;

use super::agent::minted_token;
use crate::cli::{Global, LoginArgs, LogoutArgs, RelayArg};
use crate::failure::Failure;
use crate::host::signin::{self, Options};
use crate::{config_source, directories, host, output, signals};

/// Signs in, unless there is a token already.
pub(crate) fn login(args: &LoginArgs, global: &Global) -> Result<(), Failure> {
    let (mut options, _) = machine(&args.relay, global)?;
    match (args.device, args.browser) {
        (true, _) => options.person = Person::Elsewhere,
        (_, true) => options.person = Person::Here,
        (false, false) => {}
    }
    host::run(async {
        let stop = signals::stop()?;
        tokio::select! {
            outcome = signin::login(&options) => outcome.map_err(|failure| failed(&failure)),
            () = stop => Err(Failure::SignIn(format!("not signed in to {}", options.relay))),
        }
    })?;
    if global.json {
        return output::json(&json!({ "signedIn": true, "relay": options.relay }));
    }
    output::line(format!("signed in to {}", options.relay))
}

/// Revokes the tokens, and forgets them.
pub(crate) fn logout(args: &LogoutArgs, global: &Global) -> Result<(), Failure> {
    let (options, _) = machine(&args.relay, global)?;
    let left = signin::logout(&options, args.force);
    let left = host::run(async { left.await.map_err(|failure| failed(&failure)) })?;
    let relay = &options.relay;
    if global.json {
        let lives_on = match &left {
            Leave::LivesOn { cause } => Some(cause),
            Leave::Nothing | Leave::Revoked => None,
        };
        return output::json(&json!({
            "signedOut": left != Leave::Nothing,
            "revoked": left == Leave::Revoked,
            "livesOn": lives_on.is_some(),
            "cause": lives_on,
            "relay": relay,
        }));
    }
    output::line(match left {
        Leave::Revoked => format!("signed out of {relay}"),
        Leave::Nothing => format!("was not signed in to {relay}"),
        Leave::LivesOn { cause } => format!(
            "forgot the sign-in to {relay}, but nothing could be revoked: {}. What it was lives on at the relay until it ends",
            output::visible(&cause)
        ),
    })
}

/// Says whose device this machine is.
pub(crate) fn whoami(which: &RelayArg, global: &Global) -> Result<(), Failure> {
    let (options, token) = machine(which, global)?;
    let minted = token.as_deref().map(minted_token).transpose()?;
    let is_minted = minted.is_some();
    let identity = host::run(async { signin::whoami(&options, minted).await.map_err(|failure| failed(&failure)) })?;
    if global.json {
        return output::json(&json!({
            "relay": options.relay,
            "user": identity.user,
            "device": options.device,
            "token": if is_minted { "minted" } else { "sign-in" },
            "since": identity.since.map(UnixTime::as_secs),
            "expires": identity.expires.map(UnixTime::as_secs),
        }));
    }
    output::line(described(&options, &identity, is_minted, now()))
}

/// Who this machine is, for people. `now` is in seconds since 1970.
fn described(options: &Options, identity: &Identity, is_minted: bool, now: u64) -> String {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let user = identity.user.as_deref().map_or("this relay does not say".into(), output::visible);
    let mut rows =
        vec![row("relay", options.relay.clone()), row("user", user), row("device", output::visible(&options.device))];
    if let Some(since) = identity.since {
        let ago = output::duration(now.saturating_sub(since.as_secs()));
        rows.push(row("since", format!("{ago} ago{}", if is_minted { ", by token create" } else { "" })));
    }
    if let Some(expires) = identity.expires {
        let left = output::duration(expires.as_secs().saturating_sub(now));
        rows.push(row("ends", format!("in {left}{}", if is_minted { "" } else { ", later if the agent runs before" })));
    }
    output::table(&rows)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The relay that was typed, else the configuration's, and then where its minted token is, if it names one. No command of
/// the configuration is run, so it needs no trust.
fn machine(which: &RelayArg, global: &Global) -> Result<(Options, Option<String>), Failure> {
    let (relay, ca_file, name, token) = match &which.relay {
        Some(typed) => (
            config::relay_url(typed, config::Options { allow_insecure: global.allow_insecure })
                .map_err(|problem| Failure::Usage(format!("the relay {problem}")))?,
            None,
            None,
            None,
        ),
        None => match config_source::load(global)? {
            (_, _, Config::Agent(config)) => (config.relay, config.ca_file, config.name, config.token),
            (source, _, Config::Relay(_)) => {
                return Err(Failure::Usage(format!("{} is a relay's: name the relay to sign in to", source.name())));
            }
        },
    };
    let options = Options {
        relay,
        config_dir: directories::config()?,
        allow_insecure: global.allow_insecure,
        ca_file: ca_file.map(Into::into),
        device: name.unwrap_or_else(host::agent::host_name),
        person: signin::person(),
    };
    Ok((options, token))
}

/// Why there is no token, as an exit code.
pub(super) fn failed(failure: &SigninFailure) -> Failure {
    let text = output::visible(&failure.to_string());
    match failure {
        SigninFailure::NeedsLogin { .. } | SigninFailure::Refused { .. } => Failure::SignIn(text),
        SigninFailure::Unreachable { .. } | SigninFailure::NotRevoked { .. } => Failure::Unreachable(text),
        SigninFailure::NotARelay { .. } | SigninFailure::Local { .. } => Failure::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_shown_as_far_as_the_relay_tells() {
        let options = Options {
            relay: "https://tunnel.example".into(),
            config_dir: "/".into(),
            allow_insecure: false,
            ca_file: None,
            device: "lap\u{1b}top".into(),
            person: Person::Absent,
        };
        let shown = described(&options, &Identity::default(), false, 0);
        assert_eq!(shown, "relay   https://tunnel.example\nuser    this relay does not say\ndevice  lap\\u{1b}top");
        let time = |secs| Some(UnixTime::from_secs(secs));
        let identity = Identity { user: Some("local:ada".into()), since: time(1_000), expires: time(100_000) };
        let shown = described(&options, &identity, false, 4_600);
        assert!(shown.contains("local:ada") && shown.contains("since   1 h ago"), "{shown}");
        assert!(shown.ends_with("ends    in 1 d 2 h, later if the agent runs before"), "{shown}");
        assert!(described(&options, &identity, true, 4_600).ends_with("in 1 d 2 h"));
    }
}
