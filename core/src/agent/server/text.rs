//! What people read about a server.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::config::{ServerConfig, Transport};
use crate::limits;

/// `text` for a person: on one line, without control and direction characters, at most `max` bytes.
pub(in crate::agent) fn people(text: &str, max: usize) -> String {
    // Most names are short, plain and stay as they are.
    if text.len() + '…'.len_utf8() <= max
        && text.trim().len() == text.len()
        && text.bytes().all(|b| matches!(b, b' '..=b'~'))
    {
        return text.to_string();
    }
    let mut out = String::new();
    for c in text.trim().chars() {
        let c = match c {
            '\n' | '\r' | '\t' => ' ',
            // Control characters, and those that reorder what surrounds them (Unicode TR 9).
            c if c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                continue;
            }
            c => c,
        };
        if out.len() + c.len_utf8() + '…'.len_utf8() > max {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// Why a process ended, with what it said last.
pub(super) fn exit_text(code: Option<i32>, signal: Option<i32>, stderr: &str) -> String {
    let how = match (code, signal) {
        (Some(code), _) => format!("it ended with code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_string(),
    };
    match last_words(stderr) {
        Some(words) => format!("{how}: {words}"),
        None => format!("{how}, and wrote nothing to its stderr"),
    }
}

/// The last lines of a stderr, which say why; the cap of a reason must not cut them off.
pub(super) fn last_words(stderr: &str) -> Option<String> {
    let mut last: Vec<&str> = Vec::new();
    let mut length = 0;
    for line in stderr.lines().rev().map(str::trim).filter(|line| !line.is_empty()) {
        length += line.len() + 3;
        if length > limits::MAX_QUOTE * 4 && !last.is_empty() {
            break;
        }
        last.insert(0, line);
    }
    (!last.is_empty()).then(|| last.join(" / "))
}

/// Why a process could not be started, and what mends it.
pub(super) fn spawn_remedy(config: &ServerConfig, error: &str) -> String {
    let program = match &config.transport {
        Transport::Stdio { command, .. } => command.first().map_or("", String::as_str),
        Transport::Http { .. } => "",
    };
    let missing = ["os error 2", "not found in PATH"].iter().any(|text| error.contains(text));
    let remedy = if missing { ". Install it, or give its full path in `command`; then restart the server" } else { "" };
    format!("`{program}` cannot be started: {error}{remedy}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_for_people_is_one_harmless_line() {
        assert_eq!(people(" a\nb\u{1b}[2J\u{202e}c ", 100), "a b[2Jc");
        assert_eq!(people("äöü", 6), "ä…", "two letters and the mark would be seven bytes");
    }

    #[test]
    fn last_words_are_kept_in_order() {
        assert_eq!(exit_text(Some(2), None, "one\n\n two \n"), "it ended with code 2: one / two");
        assert_eq!(exit_text(None, Some(9), " "), "it was ended by signal 9, and wrote nothing to its stderr");
        let long = alloc::format!("{}\nthe cause", "x".repeat(2_000));
        assert_eq!(exit_text(Some(1), None, &long), "it ended with code 1: the cause");
    }

    proptest! {
        #[test]
        fn text_for_people_fits(text: String, max in 3usize..200) {
            let text = people(&text, max);
            prop_assert!(text.len() <= max && !text.chars().any(char::is_control));
        }
    }
}
