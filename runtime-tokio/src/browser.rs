//! What a person does to sign in: the system's browser is opened for them, without a shell, the URL as one argument; or
//! they are shown a code.

use std::io::Write;
use std::process::{Command, Stdio};

use tunnel_core::signin::machine::Person;

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

/// Shows `code` on stderr, and the page to type it at.
pub(crate) fn show_code(page: &str, direct: Option<&str>, code: &str) {
    let short_cut = direct.map(|url| format!("\nor open {url}\n")).unwrap_or_default();
    let _ = writeln!(
        std::io::stderr(),
        "To sign in, open this page in a browser on any machine:\n\n    {page}\n\nand type this code:\n\n    \
         {code}\n{short_cut}\nAllow the device there only if the page shows this very code."
    );
}

/// Where the browser of whoever sees this program's output is: here if this machine has a screen, else who knows.
#[must_use]
pub fn person() -> Person {
    if has_screen() { Person::Here } else { Person::Elsewhere }
}

/// Whether a browser can be shown here. On macOS there is no variable for it: whoever is logged in over SSH sits
/// elsewhere.
#[must_use]
pub fn has_screen() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    (cfg!(target_os = "macos") && !set("SSH_CONNECTION")) || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
