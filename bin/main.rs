//! The program `mcp-local-tunnel`: command line, logging and wiring around the machines of `tunnel-core`.

#[cfg(not(feature = "tokio"))]
compile_error!("the program runs on tokio: build it with the feature `tokio`, which is on by default");

mod cli;
mod commands;
mod config_source;
mod directories;
mod failure;
mod host;
mod logging;
mod output;
mod signals;
mod trust;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == host::guard::SUBCOMMAND) {
        host::guard::main(args);
    }
    let cli = cli::Cli::parse();
    let outcome = logging::start(&cli).and_then(|()| commands::run(&cli));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(cli.global.log_format);
            failure.code()
        }
    }
}
