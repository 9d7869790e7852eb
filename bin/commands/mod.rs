//! One file for each family of commands.

mod config;
mod demo;
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
    match &cli.command {
        Some(Command::Config(command)) => config::run(command, global),
        Some(Command::GenSecret) => secrets::gen_secret(),
        Some(Command::HashPassword) => secrets::hash_password(),
        Some(Command::Completions { shell }) => completions(*shell),
        Some(Command::DemoServer) => demo::server::run(),
        None => {
            // What it is decides itself by the configuration's mode.
            match config_source::load(global)? {
                (_, _, Config::Relay(config)) => relay(config),
                (source, text, Config::Agent(config)) => {
                    config_source::trusted(&source, &text, &config)?;
                    agent(source, config)
                }
            }
        }
        Some(Command::Relay) => relay(config_source::relay(global)?),
        Some(Command::Agent) => {
            let (source, config) = config_source::agent(global)?;
            agent(source, config)
        }
        Some(Command::Token(command)) => token::run(command, global),
        _ => Err(Failure::Failed("not wired yet".into())),
    }
}

fn relay(_: tunnel_core::config::RelayConfig) -> Result<(), Failure> {
    Err(Failure::Failed("not wired yet".into()))
}
fn agent(_: config_source::Source, _: tunnel_core::config::AgentConfig) -> Result<(), Failure> {
    Err(Failure::Failed("not wired yet".into()))
}
async fn admin(
    _: &tunnel_core::config::RelayConfig,
    _: &std::path::Path,
    _: tunnel_core::oauth::grants::AdminCommand,
) -> Result<serde_json::Value, Failure> {
    Err(Failure::Failed("not wired yet".into()))
}
/// Prints completions for `shell`.
fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_BIN_NAME"), &mut script);
    output::bytes(&script)
}
