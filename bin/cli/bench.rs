//! What `bench` is told.

use std::path::PathBuf;

use clap::Args;

/// What is measured, and how hard.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The endpoint's URL
    pub(crate) url: String,
    /// Call this tool, too
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    /// What the tool is called with
    #[arg(long, value_name = "JSON", requires = "tool")]
    pub(crate) arguments: Option<String>,
    /// Call the tool even though it does not say that it only reads
    #[arg(long, requires = "tool")]
    pub(crate) allow_writes: bool,
    /// How many ask at once, each again as soon as it is answered; a run for each number
    #[arg(long, value_name = "N,N…", value_delimiter = ',', default_values_t = [1, 16], value_parser = callers)]
    pub(crate) callers: Vec<usize>,
    /// How long each run lasts
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Ask that often in a second instead; a call's time counts from when it was due
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: Option<u32>,
    /// The token to show, instead of signing in: env:NAME or file:PATH
    #[arg(long, value_name = "WHERE", conflicts_with = "client_id")]
    pub(crate) token: Option<String>,
    /// Sign in as this client, instead of registering one: its id, or the URL of its metadata document
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// That client's secret: env:NAME or file:PATH
    #[arg(long, value_name = "WHERE", requires = "client_id")]
    pub(crate) client_secret: Option<String>,
    /// A PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "PATH")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// A number of callers: more than that is no benchmark of one client any more, but an attack.
fn callers(text: &str) -> Result<usize, String> {
    const MOST: usize = 256;
    text.parse()
        .ok()
        .filter(|number| (1..=MOST).contains(number))
        .ok_or_else(|| format!("give numbers from 1 to {MOST}"))
}

pub(super) const BENCH_HELP: &str = "\
Examples:
  mcp-local-tunnel bench https://tunnel.example.com/mcp
  mcp-local-tunnel bench --token env:TOKEN --json https://tunnel.example.com/mcp
  mcp-local-tunnel bench --tool files__read_text_file --arguments '{\"path\": \"/home/me/notes/a.md\"}' \
                         --callers 1,16,64 --seconds 5 https://tunnel.example.com/mcp
  mcp-local-tunnel bench --rate 50 --seconds 10 https://tunnel.example.com/mcp

Without --tool it reads only: ping (server/discover where a server has no ping) and tools/list; it says what it will do
before it does. A tool must say of itself that it only reads (readOnlyHint), or --allow-writes must be there: it is called
thousands of times. Keep to endpoints that are yours.

It signs in as probe does and leaves no token behind; with --token nobody need be there. The token is one of
mcp-local-tunnel token create --role client, or what another server takes; it is never an argument.

Callers wait for their answer before they ask again. With --rate calls are due at fixed times, whether or not those before
were answered, over as many connections as the largest of --callers. Failed calls are in no figure but their own; who
fails 20 times stops. Bytes are those of the HTTP body.

Exit code 0: all calls went well. 1: some failed, or it breaks a rule. 2: the tool may not be called. 3: the sign-in or
the token was refused. 4: it cannot be reached.";
