//! The command line: what can be typed, and the help that teaches it.

mod bench;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use self::bench::BENCH_HELP;
pub(crate) use self::bench::BenchArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Use the MCP servers on your own machines from any MCP client, without opening a port.
///
/// A relay with a public URL and an agent on each machine: the agent connects out to the relay and owns the local MCP
/// servers; clients such as Claude, ChatGPT, Cursor or VS Code connect to the relay with OAuth. Without a command the
/// configuration's "mode" decides which of the two this is.
#[derive(Debug, Parser)]
#[command(name = "mcp-local-tunnel", version, styles = STYLES, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Whether this process is an agent in the background.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(&self.command, Some(Command::Agent(AgentArgs { daemon: true, .. })))
    }
}

/// What applies to every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration: JSON text that begins with {, or the path of a file
    ///
    /// Without it: mcp-local-tunnel.config.json in the current directory.
    #[arg(long, global = true, value_name = "JSON|PATH", env = "MCP_LOCAL_TUNNEL_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<String>,

    /// How log lines look; they go to stderr
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,

    /// How much is logged: error, warn, info, debug, trace, or directives such as tunnel_core::relay=trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL", env = "MCP_LOCAL_TUNNEL_LOG", hide_env_values = true)]
    pub(crate) log_level: Option<String>,

    /// Allow a relay over http:// or ws:// that is not on this machine: tokens travel in clear
    #[arg(long, global = true)]
    pub(crate) allow_insecure: bool,

    /// Print JSON instead of text where a command prints a result; a failure is {"error", "exitCode"}
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// One readable line each, coloured on a terminal
    #[default]
    Human,
    /// One JSON object each
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the relay: the public side that MCP clients and agents connect to
    #[command(after_help = RELAY_HELP)]
    Relay,
    /// Run the agent: connect this machine's MCP servers to the relay
    #[command(after_help = AGENT_HELP)]
    Agent(AgentArgs),
    /// Start the agent in the background, to stay until it is stopped
    Start,
    /// Stop this configuration's agent, in the background or not
    Stop,
    /// Restart one of the agent's servers, or all; the configuration is read again
    Restart {
        /// The server's name in the configuration
        server: Option<String>,
    },
    /// Show the log of the agent in the background
    Logs(LogsArgs),
    /// Try everything on this machine: a relay, an agent and a server, used as a client would
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Sign this machine in to its relay, in the browser or with a code
    #[command(after_help = LOGIN_HELP)]
    Login(LoginArgs),
    /// Revoke this machine's tokens at the relay, and forget them
    #[command(after_help = LOGOUT_HELP)]
    Logout(LogoutArgs),
    /// Show whose device this machine is: the relay, the user, since when and until when
    #[command(after_help = WHOAMI_HELP)]
    Whoami(RelayArg),
    /// Look at any MCP endpoint as a client would: connect, sign in, list the tools
    #[command(after_help = PROBE_HELP)]
    Probe(ProbeArgs),
    /// Measure any MCP endpoint as clients meet it; calls no tool unless told to
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArgs),
    /// Show what this machine's agent is doing: the tunnel, each server, its tools
    Status,
    /// List the calls that wait for your approval, or let one pass
    #[command(after_help = APPROVE_HELP)]
    Approve(ApproveArgs),
    /// Refuse a call that waits for your approval
    Deny {
        /// The call's number, as `approve list` shows it
        id: u64,
    },
    /// Show what this machine's tools were when they were first seen, and what changed since
    #[command(subcommand)]
    Pins(PinsCommand),
    /// Check or trust a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a new secret for the relay's "secret" setting
    GenSecret,
    /// Print the argon2 hash of a password, for "auth.local.users"
    #[command(after_help = HASH_HELP)]
    HashPassword,
    /// Rotate the relay's master keys, list them, or sign everybody out
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make, list and revoke tokens for scripts and machines without a browser
    #[command(subcommand)]
    Token(TokenCommand),
    /// List and revoke what gives access to people's devices: signed-in clients and devices, and minted tokens
    #[command(subcommand)]
    Grants(GrantsCommand),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// The demo's MCP server, on stdin and stdout
    #[command(hide = true)]
    DemoServer,
}

/// How the agent runs.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Run here until stopped, whatever stdin is
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Run in the background, for stubs
    #[arg(long, hide = true, conflicts_with = "foreground")]
    pub(crate) daemon: bool,
}

/// What of the log.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what is written, until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many lines of what was written before
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub(crate) lines: usize,
}

/// What the demo runs.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Stop after the walk: exit code 0, or 1 and the step that failed
    #[arg(long)]
    pub(crate) check: bool,
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// An MCP server of yours instead of the built-in one, after --
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) server: Vec<String>,
}

/// How to sign in.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) relay: RelayArg,
    /// Show a code to type at the relay's page, in a browser on any machine; the default where there is no screen
    #[arg(long, conflicts_with = "browser")]
    pub(crate) device: bool,
    /// Sign in in a browser on this machine, also where there seems to be no screen
    #[arg(long)]
    pub(crate) browser: bool,
}

/// How to sign out.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    pub(crate) relay: RelayArg,
    /// Forget the tokens also if they cannot be revoked: they live on at the relay until they end
    #[arg(long)]
    pub(crate) force: bool,
}

/// Which relay, when it is not the configuration's.
#[derive(Debug, Args)]
pub(crate) struct RelayArg {
    /// The relay's host name or URL; without it, the configuration's
    pub(crate) relay: Option<String>,
}

/// What is probed.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The endpoint's URL
    pub(crate) url: String,
    /// Be this client, instead of registering one: its id, or the URL of its metadata document
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// That client's secret: env:NAME or file:PATH
    #[arg(long, value_name = "WHERE", requires = "client_id")]
    pub(crate) client_secret: Option<String>,
    /// Call this tool in the end, without arguments
    #[arg(long, value_name = "TOOL")]
    pub(crate) call: Option<String>,
    /// A PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "PATH")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Which call may pass.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The call's number; or list
    #[arg(default_value = "list", value_name = "list|ID")]
    pub(crate) call: String,
    /// Let every later call of this client to this tool pass as well, until the agent ends
    #[arg(long)]
    pub(crate) always: bool,
    /// Show what each waiting call is called with
    #[arg(long)]
    pub(crate) arguments: bool,
}

/// What to do about tools that changed.
#[derive(Debug, Subcommand)]
pub(crate) enum PinsCommand {
    /// Show what is pinned, and which tools are something else now
    List,
    /// Show both definitions of each tool that changed
    Diff,
    /// Take changed tools for what they are now
    Approve {
        /// Of this server
        server: Option<String>,
        /// This tool alone
        tool: Option<String>,
        /// Of all servers
        #[arg(long, conflicts_with = "server")]
        all: bool,
    },
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say everything that is wrong with the configuration
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Take warnings, such as unknown settings, as errors
        #[arg(long)]
        strict: bool,
    },
    /// Trust an agent's configuration that lies in the current directory to run its commands
    #[command(after_help = TRUST_HELP)]
    Trust {
        /// The file
        #[arg(default_value = crate::config_source::DEFAULT_FILE)]
        path: PathBuf,
    },
}

/// What to do with minted tokens. Runs beside the relay, with the relay's configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a user
    #[command(after_help = TOKEN_HELP)]
    Create {
        /// The user: a name of auth.local.users, or the value of the provider's userClaim
        user: String,
        /// What the token opens: /mcp for a client, /ws for an agent
        #[arg(long, value_enum)]
        role: Role,
        /// What a client's token may do: mcp:read, mcp:tools, tunnel:manage; all three without this
        #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
        scope: Vec<String>,
        /// A note for the list
        #[arg(long, default_value = "")]
        label: String,
        /// How long it lives: 90d, 12h, 30m
        #[arg(long, default_value = "90d", value_parser = lifetime)]
        expires: u64,
    },
    /// List minted tokens
    List,
    /// Revoke a token by its id
    Revoke {
        /// The id that the list shows
        id: String,
    },
}

/// What to do with grants. Runs beside the relay, with the relay's configuration.
///
/// A grant is one sign-in of a client or a device, with all tokens that come of it, or one minted token. Minted tokens
/// are in `token list` too, with those that ended.
#[derive(Debug, Subcommand)]
pub(crate) enum GrantsCommand {
    /// List the grants that give access now
    #[command(after_help = GRANTS_HELP)]
    List {
        /// Of this user alone: a name of auth.local.users, or the value of the provider's userClaim
        #[arg(long)]
        user: Option<String>,
    },
    /// Revoke a grant by its id, or all of a user; open tunnels and tokens end at once
    #[command(after_help = GRANTS_HELP, group(ArgGroup::new("whose").required(true).args(["id", "user"])))]
    Revoke {
        /// The id that the list shows
        id: Option<String>,
        /// Everything of this user
        #[arg(long)]
        user: Option<String>,
    },
}

/// What to do with the relay's master keys. Runs beside the relay, with the relay's configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a new key that seals from now on; the old ones go on opening what they sealed
    #[command(after_help = ROTATE_HELP)]
    Rotate,
    /// List the keys by their ids, with their ages
    List,
    /// Sign everybody out: a new key, the old ones dropped, every sign-in and token ended, open tunnels closed
    #[command(after_help = REVOKE_ALL_HELP)]
    RevokeAll {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// An MCP client: /mcp
    Client,
    /// A device: /ws
    Agent,
}

/// `90d`, `12h`, `30m`, `45s` in seconds.
fn lifetime(text: &str) -> Result<u64, String> {
    const FORM: &str = "give a number and d, h, m or s, as in 90d";
    let (at, unit) = text.char_indices().next_back().ok_or(FORM)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(FORM.into()),
    };
    let number =
        text.get(..at).and_then(|digits| digits.parse::<u64>().ok()).filter(|number| *number > 0).ok_or(FORM)?;
    number.checked_mul(seconds).filter(|all| *all <= MAX_LIFETIME_SECS).ok_or_else(|| "is longer than ten years".into())
}

/// Ten years: a token that lives longer is one that nobody remembers.
const MAX_LIFETIME_SECS: u64 = 3_650 * 86_400;

const AFTER_HELP: &str = "\
Examples:
  mcp-local-tunnel demo                      try it: nothing else is needed
  mcp-local-tunnel --config relay.json       run what the file's \"mode\" says
  mcp-local-tunnel config check              say what is wrong with a configuration

Smallest configurations:
  {\"mode\": \"relay\", \"auth\": {\"issuer\": \"https://accounts.example.com\"}}
  {\"mode\": \"agent\", \"relay\": \"tunnel.example.com\",
   \"servers\": {\"files\": {\"command\": [\"npx\", \"-y\", \"@modelcontextprotocol/server-filesystem\", \"/home/me\"]}}}

Exit codes:
  0  all went well, or ended as asked
  1  something failed
  2  the command line, the configuration or its directory cannot be used
  3  sign-in is needed: mcp-local-tunnel login
  4  the relay cannot be reached
With --json, a command that fails says {\"error\": \"…\", \"exitCode\": 1} on stdout, beside the text on stderr.

Files: ~/.config/mcp-local-tunnel/ holds an agent's tokens, logs and what it trusts. A relay keeps its keys in
stateDir, else $STATE_DIRECTORY, else ~/.local/state/mcp-local-tunnel/.";

const RELAY_HELP: &str = "\
Example, with a provider:
  mcp-local-tunnel relay --config '{\"mode\": \"relay\", \"issuerUrl\": \"https://tunnel.example.com\",
                                    \"auth\": {\"issuer\": \"https://accounts.google.com\", \"clientId\": \"…\"}}'

Set issuerUrl to the URL that people use. The relay ends TLS itself where the setting tls says how; otherwise put a proxy
with TLS in front of it. Register <issuerUrl>/callback as redirect URI at the provider.";

const AGENT_HELP: &str = "\
Example:
  mcp-local-tunnel agent --config '{\"mode\": \"agent\", \"relay\": \"tunnel.example.com\",
                                    \"servers\": {\"time\": {\"command\": [\"uvx\", \"mcp-server-time\"]}}}'

The first run opens the browser to sign in, or shows a code where there is no screen. A block \"mcpServers\" as Claude Desktop, Cursor and VS Code have it may be
pasted as it is. Signals: SIGHUP connects at once, SIGINT and SIGTERM end the agent and every server it started.

Started by an editor, with a pipe or a socket as stdin, it is an MCP server itself, with one tool that shows the tunnel:
it starts the agent in the background and keeps it for as long as the editor runs. With a terminal, a file or /dev/null
as stdin, or with --foreground, it is the agent itself.";

const DEMO_HELP: &str = "\
Examples:
  mcp-local-tunnel demo
  mcp-local-tunnel demo -- npx -y @modelcontextprotocol/server-filesystem .
  mcp-local-tunnel demo --check        for scripts: walk, then stop

Everything stays on this machine and is gone when it ends.";

const LOGIN_HELP: &str = "\
Examples:
  mcp-local-tunnel login                         the relay of the configuration
  mcp-local-tunnel login tunnel.example.com
  mcp-local-tunnel login --device                with a code, the browser on another machine

Where there is no screen (no DISPLAY or WAYLAND_DISPLAY; on macOS: over SSH) a code is shown, here and by the agent's
first run. A relay that has no page for codes, such as one before 2.0, needs a browser on this machine: the address is
always printed. Without any browser: run mcp-local-tunnel token create on the relay's machine, and give the agent
\"token\": \"env:NAME\" or \"token\": \"file:PATH\".";

const LOGOUT_HELP: &str = "\
Exit code 0: this machine has no tokens any more. 4: the relay did not revoke them, so that they are kept.";

const WHOAMI_HELP: &str = "\
Examples:
  mcp-local-tunnel whoami                        at the relay of the configuration
  mcp-local-tunnel whoami tunnel.example.com --json

Exit code 0: signed in. 3: not signed in. 4: the relay cannot be reached.";

const PROBE_HELP: &str = "\
Examples:
  mcp-local-tunnel probe https://tunnel.example.com/mcp
  mcp-local-tunnel probe --json https://mcp.example.com/mcp
  mcp-local-tunnel probe --client-id abc --client-secret env:SECRET https://mcp.example.com/mcp

It finds the sign-in by itself, as MCP clients do, and opens the browser for it; the address is always printed. Nothing is
kept: the tokens are revoked in the end where the server can do that.

Exit code 0: its tools are listed. 3: the sign-in was refused. 4: it cannot be reached. 1: it breaks a rule.";

const HASH_HELP: &str = "\
Examples:
  mcp-local-tunnel hash-password                 asks, without showing what you type
  mcp-local-tunnel hash-password < password.txt  takes the first line

The password is never an argument: arguments are visible to every process on the machine.";

const TOKEN_HELP: &str = "\
Examples:
  mcp-local-tunnel token create ada --role client --label ci
  mcp-local-tunnel token create ada --role client --scope mcp:read      reads, and calls tools that only read
  mcp-local-tunnel token create ada --role agent --expires 30d --label nas > token.txt

The token is printed once and kept nowhere. It opens tools on the user's machines: treat it like a key to them.";

const GRANTS_HELP: &str = "\
Examples:
  mcp-local-tunnel grants list                   who has access, and since when
  mcp-local-tunnel grants list --user ada --json
  mcp-local-tunnel grants revoke 6f1c0f3e…       that client or device is out
  mcp-local-tunnel grants revoke --user ada      everything of ada is out; she can sign in anew

People see and revoke their own at <issuerUrl>/account. To keep somebody out for good, take them off auth.allow or
auth.local.users and restart the relay: their grants end with that, too.";

const ROTATE_HELP: &str = "\
A running relay takes the new key at once, and nobody is signed out. At most 16 keys are kept; the oldest goes when no
sign-in is left that it sealed, and with it the clients' registrations and the tokens of token create from its time.

Where the configuration has a \"secret\", the key is made of that, and this command changes nothing: put a new one from
mcp-local-tunnel gen-secret before the old one, as in \"secret\": [\"new\", \"old\"], and restart the relay. The first
seals, all of them open; take the old one out when nobody has signed in with it for 90 days.";

const REVOKE_ALL_HELP: &str = "\
Examples:
  mcp-local-tunnel keys revoke-all           asks first
  mcp-local-tunnel keys revoke-all --yes     for scripts

Clients, devices and tokens of token create have to be signed in or made anew. Where the configuration has a \"secret\",
the key stays: change it as well if others may know it.";

const APPROVE_HELP: &str = "\
Examples:
  mcp-local-tunnel approve                    what waits: who calls what
  mcp-local-tunnel approve list --arguments   and with what
  mcp-local-tunnel approve 17                 let that call pass
  mcp-local-tunnel approve 17 --always        and every later one of its client to its tool, until the agent ends
  mcp-local-tunnel deny 17

Calls wait where the configuration's policy says \"approve\"; what nobody approves in time is denied.";

const CHECK_HELP: &str = "\
Examples:
  mcp-local-tunnel config check
  mcp-local-tunnel --config agent.json config check --strict

Secrets and certificates that the configuration names are looked for here; what is missing is a warning.

Exit code 0: it can be used. 2: it cannot.";

const TRUST_HELP: &str = "\
An agent's configuration runs commands. One that merely lies in the current directory is run only after it was trusted
once; any change to it asks anew. A configuration that you name with --config or MCP_LOCAL_TUNNEL_CONFIG needs no trust.";

const COMPLETIONS_HELP: &str = "\
Examples:
  mcp-local-tunnel completions bash > ~/.local/share/bash-completion/completions/mcp-local-tunnel
  mcp-local-tunnel completions zsh > ~/.zfunc/_mcp-local-tunnel
  mcp-local-tunnel completions fish > ~/.config/fish/completions/mcp-local-tunnel.fish";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn daemon_is_told_apart() {
        let is_daemon = |line: &[&str]| Cli::try_parse_from(line).expect("parses").is_daemon();
        assert!(is_daemon(&["x", "agent", "--daemon"]) && !is_daemon(&["x", "agent"]) && !is_daemon(&["x"]));
    }

    #[test]
    fn lifetimes_are_read() {
        for (text, seconds) in [("90d", 7_776_000), ("12h", 43_200), ("30m", 1_800), ("45s", 45)] {
            assert_eq!(lifetime(text), Ok(seconds), "{text}");
        }
        for text in ["", "d", "0d", "90", "-1d", "9 d", "3651d", "99999999999999999999d", "1é"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_are_taken_before_and_after_the_command() {
        for line in [["x", "--json", "status"], ["x", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).expect("parses").global.json);
        }
    }

    #[test]
    fn own_server_follows_the_dashes() {
        let cli = Cli::try_parse_from(["x", "demo", "--check", "--", "npx", "-y", "server"]).expect("parses");
        let Some(Command::Demo(demo)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(demo.server, ["npx", "-y", "server"]);
    }
}
