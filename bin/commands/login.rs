//! `login` and `logout`: this machine's tokens for its relay.

use tunnel_core::config::{self, Config};
use tunnel_core::signin::machine::{Failure as SigninFailure, Person};

use crate::cli::{Global, LoginArgs, RelayArg};
use crate::failure::Failure;
use crate::host::signin::{self, Options};
use crate::{config_source, directories, host, output, signals};

/// Signs in, unless there is a token already.
pub(crate) fn login(args: &LoginArgs, global: &Global) -> Result<(), Failure> {
    let mut options = options(&args.relay, global)?;
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
    output::line(format!("signed in to {}", options.relay))
}

/// Forgets the tokens, and revokes them.
pub(crate) fn logout(which: &RelayArg, global: &Global) -> Result<(), Failure> {
    let options = options(which, global)?;
    host::run(async { signin::logout(&options).await.map_err(|failure| failed(&failure)) })?;
    output::line(format!("signed out of {}", options.relay))
}

/// The relay that was typed, else the configuration's. No command of the configuration is run, so it needs no trust.
fn options(which: &RelayArg, global: &Global) -> Result<Options, Failure> {
    let (relay, ca_file, name) = match &which.relay {
        Some(typed) => (
            config::relay_url(typed, config::Options { allow_insecure: global.allow_insecure })
                .map_err(|problem| Failure::Usage(format!("the relay {problem}")))?,
            None,
            None,
        ),
        None => match config_source::load(global)? {
            (_, _, Config::Agent(config)) => (config.relay, config.ca_file, config.name),
            (source, _, Config::Relay(_)) => {
                return Err(Failure::Usage(format!("{} is a relay's: name the relay to sign in to", source.name())));
            }
        },
    };
    Ok(Options {
        relay,
        config_dir: directories::config()?,
        allow_insecure: global.allow_insecure,
        ca_file: ca_file.map(Into::into),
        device: name.unwrap_or_else(host::agent::host_name),
        person: signin::person(),
    })
}

/// Why there is no token, as an exit code.
pub(super) fn failed(failure: &SigninFailure) -> Failure {
    let text = output::visible(&failure.to_string());
    match failure {
        SigninFailure::NeedsLogin { .. } | SigninFailure::Refused { .. } => Failure::SignIn(text),
        SigninFailure::Unreachable { .. } => Failure::Unreachable(text),
        SigninFailure::NotARelay { .. } | SigninFailure::Local { .. } => Failure::Failed(text),
    }
}
