//! The account's page. Times are told as how long ago they are: the page runs no script that could tell a time zone.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use chrono::{DateTime, SecondsFormat};
use http::StatusCode;
use maud::{Markup, html};

use super::{Entry, PATH};
use crate::http::Reply;
use crate::http::page::page;
use crate::oauth::scopes::Scopes;
use crate::oauth::{Role, Settings, pages};
use crate::time::UnixTime;

/// What a person sees who is not signed in.
pub(super) fn signed_out(settings: &Settings) -> Reply {
    page(
        StatusCode::OK,
        "Your account",
        &html! {
            h1 { "Your account" }
            p { "Sign in to see which devices and clients have access, and to take it away." }
            form method="post" action=(settings.url(PATH)) {
                button.primary type="submit" name="action" value="sign-in" { "Sign in" }
            }
        },
    )
}

/// Says what went wrong on the way to the page or on it.
pub(in crate::oauth) fn trouble(settings: &Settings, status: StatusCode, message: &str) -> Reply {
    page(
        status,
        "This did not work",
        &html! {
            h1 { "This did not work" }
            p role="alert" { (message) }
            p { a href=(settings.url(PATH)) { "Back to your account" } }
        },
    )
}

/// The page of a person who is signed in as `name`; `csrf` is what its forms bring back.
pub(super) fn account(settings: &Settings, name: &str, csrf: &str, entries: &[Entry<'_>], now: UnixTime) -> Reply {
    let action = settings.url(PATH);
    let form = |content: &Markup| {
        html! {
            form method="post" action=(action) {
                input type="hidden" name="csrf" value=(csrf);
                (content)
            }
        }
    };
    let list = |role: Role, none: &str| {
        let mut own = entries.iter().filter(|entry| entry.role == role).peekable();
        html! {
            @if own.peek().is_none() { p.soft { (none) } }
            @else {
                ul.items {
                    @for entry in own {
                        li {
                            h3 #(format!("g-{}", entry.id)) { bdi { (title(entry)) } }
                            (facts(entry, now))
                            (form(&html! {
                                input type="hidden" name="grant" value=(entry.id);
                                button type="submit" name="action" value="revoke" aria-describedby=(format!("g-{}", entry.id)) { "Revoke" }
                            }))
                        }
                    }
                }
            }
        }
    };
    page(
        StatusCode::OK,
        "Your account",
        &html! {
            h1 { "Your account" }
            p { "Signed in to " (settings.public_url) " as " strong { bdi { (name) } } "." }
            (form(&html! { button type="submit" name="action" value="sign-out" { "Sign out" } }))
            h2 { "Devices" }
            p.soft { "Computers whose tools your clients can use." }
            (list(Role::Agent, "No device has access."))
            h2 { "Clients" }
            p.soft { "Programs that can run tools on your devices. They chose their names themselves; judge by where the access went." }
            (list(Role::Client, "No client has access."))
            @if !entries.is_empty() {
                h2 { "End all access" }
                details {
                    summary { "Revoke everything…" }
                    p { "Every device is disconnected and every client signed out, at once. Each has to be signed in anew." }
                    (form(&html! { button.primary type="submit" name="action" value="revoke-all" { "Revoke everything" } }))
                }
            }
        },
    )
}

fn title<'a>(entry: &Entry<'a>) -> &'a str {
    match (entry.name, entry.minted, entry.role) {
        ("", Some(label), _) if !label.is_empty() => label,
        ("", Some(_), _) => "A token without a note",
        ("", None, Role::Agent) => "A device that has not connected yet",
        ("", None, Role::Client) => "A client without a name",
        (name, ..) => name,
    }
}

fn facts(entry: &Entry<'_>, now: UnixTime) -> Markup {
    html! {
        p {
            @match entry.role {
                Role::Agent if entry.connected => { strong { "Connected now" } ". " }
                Role::Agent => {
                    @if let Some(used) = entry.used { "Connected last " (ago(used, now)) ". " }
                }
                Role::Client => {
                    @if !entry.redirect.is_empty() { "Its access went to " code { (entry.redirect) } ". " }
                    "It may " (may(entry.scopes)) ". "
                    // Known to the hour: said no more precisely than that.
                    @match entry.used {
                        Some(used) => { "Used last " (coarsely(used, now)) ". " }
                        None => { "Not used yet. " }
                    }
                }
            }
            @if let Some(label) = entry.minted {
                "A token that the operator of this relay made"
                @if !label.is_empty() { ": " bdi { (label) } }
                ". "
            }
            "Granted " (ago(entry.granted, now)) "."
        }
    }
}

/// What a client's scopes let it do, in words.
fn may(scopes: &Scopes) -> String {
    let words: Vec<_> = scopes.iter().map(pages::briefly).collect();
    match words.as_slice() {
        [] => "do nothing".into(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// How long ago something was of which the hour is known.
fn coarsely(then: UnixTime, now: UnixTime) -> Markup {
    let text = match now.saturating_since(then).as_secs() {
        0..HOUR => "within the hour".into(),
        seconds => since(seconds),
    };
    html! { time datetime=(rfc3339(then)) { (text) } }
}

/// How long ago something was, with its time for programs.
fn ago(then: UnixTime, now: UnixTime) -> Markup {
    html! { time datetime=(rfc3339(then)) { (since(now.saturating_since(then).as_secs())) } }
}

fn since(seconds: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let found = units.into_iter().map(|(size, unit)| (seconds / size, unit)).find(|(count, _)| *count > 0);
    match found {
        None => "just now".into(),
        Some((1, unit)) => format!("1 {unit} ago"),
        Some((count, unit)) => format!("{count} {unit}s ago"),
    }
}

fn rfc3339(time: UnixTime) -> String {
    let at = i64::try_from(time.as_millis()).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

const HOUR: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_one_unit() {
        for (seconds, told) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (3_599, "59 minutes ago"),
            (7_200, "2 hours ago"),
            (86_400, "1 day ago"),
            (30 * 86_400, "30 days ago"),
        ] {
            assert_eq!(since(seconds), told);
        }
        assert_eq!(may(&Scopes::read("mcp:read")), "read what your servers offer");
        assert_eq!(
            may(&Scopes::read("mcp:tools mcp:read tunnel:manage")),
            "run all tools, read what your servers offer and restart servers"
        );
        assert_eq!(rfc3339(UnixTime::from_secs(1_790_000_000)), "2026-09-21T14:13:20Z");
    }
}
