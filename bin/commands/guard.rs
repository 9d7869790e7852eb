//! `approve`, `deny` and `pins`: what a person decides about calls that wait and tools that changed.

use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use tunnel_core::agent::machine::ControlCommand;
use tunnel_core::agent::status::{Accepted, ChangedTool, Decided, Pins, Waiting, WaitingCall};

use super::agent::{ask, strange};
use crate::cli::{ApproveArgs, Global, PinsCommand};
use crate::failure::Failure;
use crate::output::{self, duration, table, visible};

/// Lists the calls that wait, or lets one pass.
pub(super) fn approve(args: &ApproveArgs, global: &Global) -> Result<(), Failure> {
    match args.call.as_str() {
        "list" if args.always => Err(Failure::Usage("--always needs the number of a call that waits".into())),
        "list" => {
            let command = ControlCommand::Approvals { params: args.arguments };
            show(&command, global, |waiting: &Waiting| describe_waiting(&waiting.waiting))
        }
        id => {
            let command = ControlCommand::Approve { id: number(id)?, always: args.always };
            show(&command, global, |decided: &Decided| describe_decided("approved", decided))
        }
    }
}

/// Refuses a call that waits.
pub(super) fn deny(id: u64, global: &Global) -> Result<(), Failure> {
    show(&ControlCommand::Deny { id }, global, |decided: &Decided| describe_decided("denied", decided))
}

/// Shows what is pinned, or takes changed tools for what they are now.
pub(super) fn pins(command: &PinsCommand, global: &Global) -> Result<(), Failure> {
    match command {
        PinsCommand::List => show(&ControlCommand::Pins { definitions: false }, global, describe_pins),
        PinsCommand::Diff => show(&ControlCommand::Pins { definitions: true }, global, describe_diff),
        PinsCommand::Approve { server, tool, all } => {
            if server.is_none() && !all {
                return Err(Failure::Usage("name the server, and the tool if it is about one; or give --all".into()));
            }
            let command = ControlCommand::PinsApprove { server: server.clone(), tool: tool.clone() };
            show(&command, global, describe_accepted)
        }
    }
}

/// Asks the agent and prints its answer.
fn show<T: DeserializeOwned>(
    command: &ControlCommand,
    global: &Global,
    describe: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    let answer = ask(command, global)?;
    if global.json {
        return output::json(&answer);
    }
    let document = serde_json::from_value(answer).map_err(|error| strange(&error))?;
    output::line(describe(&document))
}

fn number(id: &str) -> Result<u64, Failure> {
    id.parse().map_err(|_| Failure::Usage("give the number of a call that waits, as `approve list` shows it".into()))
}

fn describe_waiting(waiting: &[WaitingCall]) -> String {
    if waiting.is_empty() {
        return "no call waits for approval".into();
    }
    let row = |call: &WaitingCall| {
        let mut client = if call.client.is_empty() { "an unnamed client".into() } else { visible(&call.client) };
        // A client calls itself what it likes; the relay knows which one it is.
        if !call.actor.is_empty() {
            let _ = write!(client, " ({})", visible(&call.actor));
        }
        let what = format!("{} of {}", visible(&call.tool), visible(&call.server));
        [call.id.to_string(), client, what, format!("denied in {}", duration(call.left_secs))]
    };
    let mut text = table(&waiting.iter().map(row).collect::<Vec<_>>());
    for (call, params) in waiting.iter().filter_map(|call| Some((call, call.params.as_ref()?))) {
        let _ = write!(text, "\n\n{}: {}", call.id, visible(params));
    }
    text
}

fn describe_decided(what: &str, decided: &Decided) -> String {
    let ids: Vec<String> = decided.decided.iter().map(u64::to_string).collect();
    format!("{what}: {}", ids.join(", "))
}

fn describe_pins(pins: &Pins) -> String {
    let mut text = format!("pins are \"{}\"", visible(&pins.mode));
    for server in &pins.servers {
        let problem = server.problem.as_ref().map(|problem| format!(", {}", visible(problem))).unwrap_or_default();
        let _ = write!(text, "\n  {}: {} tools pinned{problem}", visible(&server.name), server.tools);
    }
    for changed in &pins.changed {
        let _ = write!(text, "\n{}", describe_change(changed));
    }
    text
}

fn describe_diff(pins: &Pins) -> String {
    if pins.changed.is_empty() {
        return "every tool is what was pinned".into();
    }
    let mut text = String::new();
    for changed in &pins.changed {
        let separator = if text.is_empty() { "" } else { "\n\n" };
        let _ = write!(text, "{separator}{}", describe_change(changed));
        if changed.change != "added" {
            let before = changed.before.as_deref().map_or("(too long to be kept)".into(), visible);
            let _ = write!(text, "\n- {before}");
        }
        let _ = write!(text, "\n+ {}", changed.after.as_deref().map_or("(unknown)".into(), visible));
    }
    text.push_str("\n\nOnce you agree to them: mcp-local-tunnel pins approve SERVER [TOOL]");
    text
}

fn describe_accepted(accepted: &Accepted) -> String {
    if accepted.approved.is_empty() {
        return "no tool is other than it was pinned".into();
    }
    accepted.approved.iter().map(describe_change).collect::<Vec<_>>().join("\n") + "\napproved"
}

/// One line about a changed tool.
pub(super) fn describe_change(changed: &ChangedTool) -> String {
    let what = match (changed.change.as_str(), &changed.from) {
        ("renamed", Some(from)) => format!("was called {}", visible(from)),
        ("added", _) => "was added".into(),
        _ => "changed".into(),
    };
    let held = if changed.held { ", held back" } else { "" };
    let legacy = if changed.legacy { ", for older clients" } else { "" };
    format!("{} of {} {what}{legacy}{held}", visible(&changed.tool), visible(&changed.server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: &str, from: Option<&str>) -> ChangedTool {
        ChangedTool {
            server: "files".into(),
            tool: "read\u{1b}[2K".into(),
            legacy: false,
            change: change.into(),
            from: from.map(Into::into),
            held: true,
            before: Some("{\"a\":1}".into()),
            after: Some("{\"a\":2}".into()),
        }
    }

    #[test]
    fn waiting_calls_say_who_asks_and_show_arguments_harmlessly() {
        let call = WaitingCall {
            id: 7,
            client: String::new(),
            actor: String::new(),
            server: "files".into(),
            tool: "delete".into(),
            since_secs: 1,
            left_secs: 90,
            bytes: 9,
            params: None,
        };
        assert_eq!(
            describe_waiting(std::slice::from_ref(&call)),
            "7  an unnamed client  delete of files  denied in 1 min 30 s"
        );
        let named = WaitingCall { client: "Cursor 1".into(), actor: "mlt_c_1".into(), ..call.clone() };
        assert!(describe_waiting(&[named]).contains("  Cursor 1 (mlt_c_1)  "));
        let shown = describe_waiting(&[WaitingCall { params: Some("\u{202e}x".into()), ..call }]);
        assert!(shown.ends_with("\n\n7: \\u{202e}x"), "{shown}");
        assert_eq!(describe_waiting(&[]), "no call waits for approval");
    }

    #[test]
    fn diff_shows_both_definitions() {
        let pins = Pins { mode: "block".into(), servers: Vec::new(), changed: vec![changed("changed", None)] };
        let text = describe_diff(&pins);
        assert!(text.starts_with("read\\u{1b}[2K of files changed, held back\n- {\"a\":1}\n+ {\"a\":2}\n"), "{text}");
        assert!(describe_change(&changed("renamed", Some("old"))).contains("was called old"));
        assert!(describe_change(&changed("added", None)).contains("was added"));
    }
}
