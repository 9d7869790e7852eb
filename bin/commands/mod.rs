//! One file for each family of commands.

mod agent;
mod bench;
mod config;
mod daemon;
mod demo;
mod grants;
mod guard;
mod keys;
mod login;
mod logs;
mod probe;
mod relay;
mod secrets;
mod status;
mod stub;
mod token;

use clap::CommandFactory;
use tunnel_core::config::Config;
use tunnel_core::daemon::Kind;

use crate::cli::{Cli, Command};
use crate::config_source;
use crate::failure::Failure;
use crate::output;

/// Runs what was typed.
pub(crate) fn run(cli: &Cli) -> Result<(), Failure> {
    let global = &cli.global;
    let Some(command) = &cli.command else {
        // What this is, the configuration's mode decides.
        return match config_source::load(global)? {
            (_, _, Config::Relay(config)) => relay::run(config),
            (source, text, Config::Agent(config)) => {
                config_source::trusted(&source, &text, &config)?;
                stub::or_agent(source, config, global)
            }
        };
    };
    match command {
        Command::Relay => relay::run(config_source::relay(global)?),
        Command::Agent(args) => {
            let (source, config) = config_source::agent(global)?;
            match (args.daemon, args.foreground) {
                (true, _) => agent::run(source, config, Kind::Daemon, global),
                (false, true) => agent::run(source, config, Kind::Foreground, global),
                (false, false) => stub::or_agent(source, config, global),
            }
        }
        Command::Start => daemon::start(global),
        Command::Stop => daemon::stop(global),
        Command::Restart { server } => daemon::restart(server.as_deref(), global),
        Command::Logs(args) => logs::show(args, global),
        Command::Demo(args) => demo::run(args, global),
        Command::Login(which) => login::login(which, global),
        Command::Logout(which) => login::logout(which, global),
        Command::Whoami(which) => login::whoami(which, global),
        Command::Probe(args) => probe::run(args, global),
        Command::Bench(args) => bench::run(args, global),
        Command::Status => agent::status(global),
        Command::Approve(args) => guard::approve(args, global),
        Command::Deny { id } => guard::deny(*id, global),
        Command::Pins(command) => guard::pins(command, global),
        Command::Config(command) => config::run(command, global),
        Command::GenSecret => secrets::gen_secret(global),
        Command::HashPassword => secrets::hash_password(global),
        Command::Keys(command) => keys::run(command, global),
        Command::Token(command) => token::run(command, global),
        Command::Grants(command) => grants::run(command, global),
        Command::Completions { shell } => completions(*shell),
        Command::DemoServer => demo::server::run(),
    }
}

/// Prints completions for `shell`.
fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_BIN_NAME"), &mut script);
    output::bytes(&script)
}
