//! Opening the system's browser: without a shell, the URL as one argument.

use std::io::Write;
use std::process::{Command, Stdio};

/// Shows `url` on stderr, and opens the browser with it where there is a screen.
pub(crate) fn open(url: &str) {
    // Not a log line: this is for a person, whatever the logs are set to.
    let _ = writeln!(std::io::stderr(), "To sign in, open this page in a browser on this machine:\n\n    {url}\n");
    if !has_screen() {
        return;
    }
    let opened = Command::new(OPENER).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    match opened {
        // Reaped on a thread: some openers stay as long as the browser does.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => tracing::debug!(%error, "no browser was opened"),
    }
}

/// Whether a browser can be shown here.
#[must_use]
pub fn has_screen() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
