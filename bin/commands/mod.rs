//! One file for each family of commands.

mod agent;
mod config;
mod demo;
mod login;
mod relay;
mod secrets;
mod status;
mod token;

use clap::CommandFactory;
use tunnel_core::config::Config;

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
                agent::run(source, config, global)
            }
        };
    };
    match command {
        Command::Relay => relay::run(config_source::relay(global)?),
        Command::Agent => {
            let (source, config) = config_source::agent(global)?;
            agent::run(source, config, global)
        }
        Command::Demo(args) => demo::run(args, global),
        Command::Login(which) => login::login(which, global),
        Command::Logout(which) => login::logout(which, global),
        Command::Status => agent::status(global),
        Command::Config(command) => config::run(command, global),
        Command::GenSecret => secrets::gen_secret(),
        Command::HashPassword => secrets::hash_password(),
        Command::Token(command) => token::run(command, global),
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
