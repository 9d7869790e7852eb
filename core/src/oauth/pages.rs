//! The pages that people see: landing, consent, a device's code, login, errors. Plain HTML, no script, nothing from elsewhere.

use alloc::format;
use alloc::string::String;

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue, LOCATION, REFERRER_POLICY};
use maud::{Markup, html};

use super::clients::{Client, Origin};
use super::scopes::{Scope, Scopes};
use super::{Role, Settings};
use crate::http::Reply;
use crate::http::page::page;
use crate::http::redirect::Class;

/// The page at `/`: what this is, and how to add it to a client.
#[must_use]
pub fn landing(settings: &Settings) -> Reply {
    let endpoint = settings.url("/mcp");
    let json = |text: String| html! { pre { code { (text) } } };
    page(
        StatusCode::OK,
        "mcp-local-tunnel",
        &html! {
            h1 { "mcp-local-tunnel" }
            p { "This relay lets MCP clients use the MCP servers that run on your own machines." }
            p { "The address to give to a client:" }
            pre { code { (endpoint) } }
            p { "The client opens this site in your browser once, for you to sign in and to agree." }
            h2 { "Add it to your client" }
            dl {
                dt { "Claude (web and desktop)" }
                dd { "Settings, Connectors, “Add custom connector”: paste the address." }
                dt { "Claude Code" }
                dd { (json(format!("claude mcp add --transport http tunnel {endpoint}"))) }
                dt { "ChatGPT" }
                dd { "Settings, Apps & Connectors, Advanced: turn developer mode on, then create a connector with the address and OAuth." }
                dt { "Cursor, in " code { "~/.cursor/mcp.json" } }
                dd { (json(format!("{{ \"mcpServers\": {{ \"tunnel\": {{ \"url\": \"{endpoint}\" }} }} }}"))) }
                dt { "VS Code, in " code { ".vscode/mcp.json" } }
                dd { (json(format!("{{ \"servers\": {{ \"tunnel\": {{ \"type\": \"http\", \"url\": \"{endpoint}\" }} }} }}"))) }
                dt { "MCP Inspector" }
                dd {
                    (json("npx @modelcontextprotocol/inspector".into()))
                    "Transport “Streamable HTTP”, and the address."
                }
            }
            h2 { "Who has access" }
            p { a href=(settings.url("/account")) { "Your account" } " shows your devices and clients, and takes access away." }
            h2 { "Connect a machine" }
            p { "Write its servers into a configuration file and run the agent there; it opens a browser to sign in, or shows a code for " a href=(settings.url("/device")) { "this page" } "." }
            (json(format!(
                "{{\n  \"mode\": \"agent\",\n  \"relay\": \"{}\",\n  \"servers\": {{ \"files\": {{ \"command\": [\"npx\", \"-y\", \
                 \"@modelcontextprotocol/server-filesystem\", \".\"] }} }}\n}}",
                settings.public_url
            )))
        },
    )
}

/// What the consent page asks about, and what its form brings back.
pub(super) struct Consent<'a> {
    pub(super) client: &'a Client,
    /// Where the code goes, in full.
    pub(super) redirect: &'a str,
    /// What kind of place that is.
    pub(super) class: &'a Class,
    /// What the tokens will be for.
    pub(super) audience: &'a str,
    /// What they will be able to do there.
    pub(super) scopes: &'a Scopes,
    /// The request's handle.
    pub(super) flow: &'a str,
    /// The sealed request.
    pub(super) request: &'a str,
}

/// Asks whether the client may.
pub(super) fn consent(settings: &Settings, ask: &Consent<'_>) -> Reply {
    let name = if ask.client.name.is_empty() { "A program without a name" } else { &ask.client.name };
    let destination = match ask.class {
        Class::Web { host } => html! { "the website " strong { (host) } },
        Class::Loopback => html! { "a program on the computer that this browser runs on" },
        Class::App { scheme } => html! { "the application on this computer that opens " strong { (scheme) } " links" },
    };
    page(
        StatusCode::OK,
        "Allow access?",
        &html! {
            h1 { "Allow “" bdi { (name) } "”?" }
            @match &ask.client.origin {
                Origin::BuiltIn => { p { "This is the agent program of mcp-local-tunnel." } }
                Origin::Configured => { p { "The operator of this relay has set this program up." } }
                Origin::Document { host } => {
                    p { "This program describes itself in a document of the website " strong { (host) } ":" }
                    p { code { (ask.client.key.as_str()) } }
                }
                Origin::SelfRegistered => {
                    p.warn { "Self-registered, unverified: anybody can choose this name. Judge by where the access goes." }
                }
            }
            h2 { "It will be able to" }
            @match ask.client.role {
                Role::Client => {
                    ul {
                        @for scope in ask.scopes.iter() { (ability(scope)) }
                    }
                    p { "through " code { (ask.audience) } "." }
                }
                Role::Agent => {
                    ul {
                        li { strong { "connect a computer as a device of yours" } ", whose tools your clients then can use" }
                    }
                }
            }
            h2 { "The access goes to" }
            p { (destination) }
            p { code { (ask.redirect) } }
            @if !matches!(ask.class, Class::Web { .. }) {
                p.warn role="note" {
                    strong { "Take care: " }
                    "nobody can tell which program receives this. Allow it only if you have just started signing in from a program on this computer yourself."
                }
            }
            p { "If you allow it, you sign in next. If you did not start this, deny it." }
            form method="post" action=(settings.url("/consent")) {
                input type="hidden" name="flow" value=(ask.flow);
                input type="hidden" name="request" value=(ask.request);
                button.primary type="submit" name="decision" value="allow" { "Allow" }
                button type="submit" name="decision" value="deny" { "Deny" }
            }
        },
    )
}

/// What a scope lets a client do, in words.
fn ability(scope: Scope) -> Markup {
    html! {
        @match scope {
            Scope::Tools => { li { strong { "run tools on your devices" } ", with whatever these tools can do there" } }
            Scope::Read => { li { "see which devices, servers and tools you have, read what they offer, and run tools that say that they only read" } }
            Scope::Manage => { li { "restart the servers on your devices" } }
            Scope::Agent => { li { "be one of your devices" } }
        }
    }
}

/// The same in a few words, after "it may".
pub(super) const fn briefly(scope: Scope) -> &'static str {
    match scope {
        Scope::Tools => "run all tools",
        Scope::Read => "read what your servers offer",
        Scope::Manage => "restart servers",
        Scope::Agent => "be one of your devices",
    }
}

/// Asks for the code that a device shows.
pub(super) fn device_code(settings: &Settings, typed: &str, problem: Option<(StatusCode, &str)>) -> Reply {
    let (status, message) = problem.map_or((StatusCode::OK, None), |(status, message)| (status, Some(message)));
    page(
        status,
        "Connect a device",
        &html! {
            h1 { "Connect a device" }
            @if let Some(message) = message {
                p.warn #problem role="alert" { (message) }
            }
            form method="post" action=(settings.url("/device")) {
                label for="user_code" { "The code that your device shows" }
                input #user_code name="user_code" type="text" value=(typed) autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="20" placeholder="XXXX-XXXX" aria-describedby=[message.map(|_| "problem")] required autofocus;
                button.primary type="submit" { "Continue" }
            }
            p { small { "Take the code only from a device of your own that you are connecting now. Nobody who calls or writes to you needs one." } }
        },
    )
}

/// What the consent page for a device asks about, and what its form brings back.
pub(super) struct DeviceConsent<'a> {
    /// What the device calls itself.
    pub(super) name: &'a str,
    /// The address that it asked from.
    pub(super) peer: &'a str,
    /// The code, with its dash.
    pub(super) code: &'a str,
    /// The request's handle.
    pub(super) flow: &'a str,
    /// The sealed request.
    pub(super) request: &'a str,
}

/// Asks whether the device may.
pub(super) fn device_consent(settings: &Settings, ask: &DeviceConsent<'_>) -> Reply {
    page(
        StatusCode::OK,
        "Connect this device?",
        &html! {
            h1 { "Connect “" bdi { (device_name(ask.name)) } "”?" }
            p { "Does your device show this very code, and is that its name?" }
            pre { code { (ask.code) } }
            p { "It asked from the address " code { (ask.peer) } "." }
            h2 { "It will be able to" }
            ul {
                li { strong { "join your devices" } ", so that your MCP clients can use its tools" }
            }
            p.warn role="note" {
                strong { "Take care: " }
                "whoever sent you a link or a code wants a machine of theirs among your devices. Allow it only if you have just started signing in on this device yourself."
            }
            p { "If you allow it, you sign in next." }
            form method="post" action=(settings.url("/consent")) {
                input type="hidden" name="flow" value=(ask.flow);
                input type="hidden" name="request" value=(ask.request);
                button.primary type="submit" name="decision" value="allow" { "Allow" }
                button type="submit" name="decision" value="deny" { "Deny" }
            }
        },
    )
}

/// Says how it ended for the device.
pub(super) fn device_done(name: &str, allowed: bool) -> Reply {
    let name = device_name(name);
    let title = if allowed { "Device connected" } else { "Device denied" };
    page(
        StatusCode::OK,
        title,
        &html! {
            h1 { (title) }
            @if allowed {
                p { "“" bdi { (name) } "” goes on by itself within a few seconds. You can close this page." }
            } @else {
                p { "“" bdi { (name) } "” gets nothing. You can close this page." }
            }
        },
    )
}

fn device_name(name: &str) -> &str {
    if name.is_empty() { "A device without a name" } else { name }
}

/// Asks for name and password.
pub(super) fn login(settings: &Settings, flow: &str, csrf: &str, problem: Option<(StatusCode, &str)>) -> Reply {
    let (status, message) = problem.map_or((StatusCode::OK, None), |(status, message)| (status, Some(message)));
    page(
        status,
        "Sign in",
        &html! {
            h1 { "Sign in" }
            p { "to " strong { (settings.public_url) } }
            @if let Some(message) = message {
                p.warn #problem role="alert" { (message) }
            }
            form method="post" action=(settings.url("/login")) {
                input type="hidden" name="flow" value=(flow);
                input type="hidden" name="csrf" value=(csrf);
                label for="user" { "User name" }
                input #user name="user" type="text" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="64" aria-describedby=[message.map(|_| "problem")] required autofocus;
                label for="password" { "Password" }
                input #password name="password" type="password" autocomplete="current-password" maxlength="1024" required;
                button.primary type="submit" { "Sign in" }
            }
        },
    )
}

/// Says what went wrong; `back` is the client's address with the error in it, if the client is known.
pub(super) fn error(status: StatusCode, message: &str, back: Option<&str>) -> Reply {
    page(
        status,
        "This did not work",
        &html! {
            h1 { "This did not work" }
            p role="alert" { (message) }
            @match back {
                Some(url) => { p { a rel="noreferrer" href=(url) { "Back to the program" } } }
                None => { p { "Close this page, and start again from the program that opened it." } }
            }
        },
    )
}

/// Sends the browser to `url` with a GET, whatever the request was (RFC 9110 section 15.4.4).
pub(super) fn see_other(url: &str) -> Reply {
    let reply = Reply::empty(StatusCode::SEE_OTHER)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    match HeaderValue::try_from(url) {
        Ok(location) => reply.with(LOCATION, location),
        Err(_) => error(StatusCode::BAD_GATEWAY, "The address to go on to is malformed.", None),
    }
}
