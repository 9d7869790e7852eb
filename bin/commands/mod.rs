//! One file for each family of commands.

mod config;
mod demo;
mod secrets;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
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
        _ => Err(Failure::Failed("not wired yet".into())),
    }
}

/// Prints completions for `shell`.
fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_BIN_NAME"), &mut script);
    output::bytes(&script)
}
