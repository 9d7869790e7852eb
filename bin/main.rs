//! The program `mcp-local-tunnel`: command line, logging and wiring around the machines of `tunnel-core`.

#[cfg(not(any(feature = "tokio", feature = "async-std")))]
compile_error!(
    "the program needs a runtime: build it with the feature `tokio`, which is on by default, or `async-std`"
);

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
use clap::error::ErrorKind;

/// Says what is wrong with the command line, or shows the help that it asks for.
fn unreadable(error: &clap::Error) -> ExitCode {
    let asks_json = || std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if error.use_stderr() && asks_json() {
        let text = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                "the command is incomplete: --help lists more".into()
            }
            _ => error.render().to_string(),
        };
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        failure::Failure::Usage(text.into()).print_json();
    }
    error.exit()
}

fn main() -> ExitCode {
    // Before a token or a secret is in its memory.
    host::private::keep_from_other_processes();
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == host::guard::SUBCOMMAND) {
        host::guard::main(args);
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unreadable(&error),
    };
    let (outcome, format, starter) = match logging::start(&cli) {
        Ok(starter) => (commands::run(&cli), cli.global.log_format, starter),
        // There is no log yet that JSON lines could go to.
        Err(failure) => (Err(failure), cli::LogFormat::Human, None),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(format);
            if cli.global.json {
                failure.print_json();
            }
            if let Some(starter) = starter {
                failure.tell(starter);
            }
            failure.code()
        }
    }
}
