//! What commands print on stdout: their results, and nothing else. Logs and questions go to stderr.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints a line.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    print(format_args!("{}\n", text.as_ref()))
}

/// Prints a value as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Failed(format!("cannot print the result: {error}")))?;
    line(text)
}

/// Prints a value as JSON on one line, for a reader that takes results as they come.
pub(crate) fn compact(value: &serde_json::Value) -> Result<(), Failure> {
    line(value.to_string())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    forgive(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn print(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    // `anstream` leaves colours out when stdout is no terminal or NO_COLOR is set.
    let mut stdout = anstream::stdout().lock();
    forgive(stdout.write_fmt(text).and_then(|()| stdout.flush()))
}

/// A reader that has seen enough (`| head`) is no failure.
fn forgive(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Tells something beside the result, on stderr.
pub(crate) fn note(text: impl AsRef<str>) {
    // There is nobody left to tell when stderr is gone.
    let _ = writeln!(anstream::stderr(), "{}", text.as_ref());
}

/// Rows with their columns aligned, the last one ragged.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A time in its two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units {
        if rest >= size {
            parts.push(format!("{} {unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".into() } else { parts.join(" ") }
}

/// `text` with control characters made visible, so that what a file or a peer says cannot move a terminal's cursor.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional overrides reorder what a person reads.
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_show_their_largest_units() {
        for (seconds, shown) in [(0, "0 s"), (59, "59 s"), (3_600, "1 h"), (93_784, "1 d 2 h"), (7_776_000, "90 d")] {
            assert_eq!(duration(seconds), shown);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["A", "B"], ["long", ""], ["ä", "c"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     B\nlong\nä     c");
    }

    #[test]
    fn what_moves_the_cursor_or_the_eye_is_made_visible() {
        assert_eq!(visible("rm\u{1b}[2K ls\u{202e}"), "rm\\u{1b}[2K ls\\u{202e}");
        assert_eq!(visible("grüße 日本"), "grüße 日本");
    }
}
