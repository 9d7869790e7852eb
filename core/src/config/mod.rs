//! Configuration: what the JSON says ([`raw`]) and what the program uses ([`checked`]).

pub mod checked;

pub use checked::{AgentConfig, Config, Local, LocalUser, Login, Naming, Oidc, RelayConfig, ServerConfig, Transport};

/// Variables of its own environment that an agent passes to every child; nothing else of it is passed.
pub const BASE_ENVIRONMENT: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "TMPDIR",
    "TZ",
    "XDG_RUNTIME_DIR",
];
