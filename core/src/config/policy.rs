//! What an agent lets be called: `policy`, of the device and of each server, `pins` and `audit`.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::Chars;

use super::json::Json;
use super::problem::Report;
use super::raw::{Node, Object};
use crate::{limits, names};

/// What an agent lets be called, and what it notes of it. The default lets everything be called and warns of tools that
/// change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPolicy {
    /// `policy`: of all servers together. Its patterns name `server/tool`.
    pub device: Policy,
    /// `servers.<name>.policy`: what each server may do besides: the tighter of both counts.
    pub servers: BTreeMap<String, Policy>,
    /// `policy.approvalTimeout`: how many seconds a call waits for somebody's approval (default 120).
    pub approval_secs: u64,
    /// `pins`: what becomes of a tool whose definition changed.
    pub pins: PinMode,
    /// `audit`: where a line about every call goes.
    pub audit: Option<AuditFile>,
}

/// The policy of a device or of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// `allow`: only tools that one of these matches. `None`: every tool.
    pub allow: Option<Vec<Pattern>>,
    /// `deny`: none that one of these matches, whatever `allow` says; methods as `resources/read` are matched too.
    pub deny: Vec<Pattern>,
    /// `readOnly`: only tools that say of themselves that they change nothing.
    pub read_only: bool,
    /// `approve`: whether a person on this device is asked first.
    pub approve: Approve,
    /// `callsPerMinute` and `concurrency`, of all calls that this policy is about together.
    pub calls: CallLimits,
    /// `tools`: more for some of the tools.
    pub tools: Vec<ToolPolicy>,
}

/// What holds for some tools besides (`policy.tools.<pattern>`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolPolicy {
    /// Which tools.
    pub tools: Pattern,
    /// `approve`.
    pub approve: Approve,
    /// `callsPerMinute` and `concurrency`, of all calls of these tools together.
    pub calls: CallLimits,
}

/// How many calls there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallLimits {
    /// `callsPerMinute`: within any 60 seconds.
    pub per_minute: Option<u32>,
    /// `concurrency`: under way at once.
    pub concurrency: Option<u32>,
}

/// Whether a person on the device is asked before a call. Ordered: the later one is tighter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Approve {
    /// Never.
    #[default]
    Never,
    /// Once for each client and tool, until the tool's definition changes.
    First,
    /// For every call.
    Always,
}

/// What becomes of a tool whose definition is not the one that was seen first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PinMode {
    /// Nothing is looked at.
    Off,
    /// It is named in `status` and in the log.
    #[default]
    Warn,
    /// It is held back besides: neither listed nor callable until a person approves it.
    Block,
}

/// Where the audit goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFile {
    /// `audit.log` in the place for it: an agent's `logs/`, a relay's state directory.
    Default,
    /// This file.
    At(String),
}

/// Names of tools, `*` standing for any text and `?` for one character. Case counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The server's name; `None`: that of the server whose policy it is.
    server: Option<String>,
    tool: String,
}

impl Default for AgentPolicy {
    fn default() -> Self {
        Self {
            device: Policy::default(),
            servers: BTreeMap::new(),
            approval_secs: APPROVAL_SECS,
            pins: PinMode::default(),
            audit: None,
        }
    }
}

impl Pattern {
    /// A pattern of a device's policy: `server/tool`, both with wildcards. `None`: there is no slash.
    #[must_use]
    pub fn of_device(text: &str) -> Option<Self> {
        // A tool's name may have slashes, and must not look like another server's for it: only the first one parts.
        let (server, tool) = text.split_once('/')?;
        Some(Self { server: Some(server.to_owned()), tool: tool.to_owned() })
    }

    /// A pattern of a server's policy: the tool alone.
    #[must_use]
    pub fn of_server(text: &str) -> Self {
        Self { server: None, tool: text.to_owned() }
    }

    /// Whether it means this tool.
    #[must_use]
    pub fn matches(&self, server: &str, tool: &str) -> bool {
        self.server.as_deref().is_none_or(|pattern| glob(pattern, server)) && glob(&self.tool, tool)
    }

    /// The one name that it means, if it has no wildcards.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.tool.contains(['*', '?'])).then_some(&*self.tool)
    }

    /// Whether it can mean a tool of this server.
    #[must_use]
    pub fn concerns(&self, server: &str) -> bool {
        self.server.as_deref().is_none_or(|pattern| glob(pattern, server))
    }

    /// Whether it means every tool of this server.
    #[must_use]
    pub fn matches_all_of(&self, server: &str) -> bool {
        let all = !self.tool.is_empty() && self.tool.chars().all(|c| c == '*');
        all && self.matches(server, "")
    }
}

/// Whether `pattern` matches the whole of `text`. At most as many steps as both lengths multiplied.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut wanted, mut found) = (pattern.chars(), text.chars());
    // After the last star: what must follow it, and where that was tried.
    let mut star: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let unmoved = found.clone();
        match (wanted.next(), found.next()) {
            (Some('*'), _) => {
                found = unmoved;
                star = Some((wanted.clone(), found.clone()));
                continue;
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => continue,
            (Some(a), Some(b)) if a == b => continue,
            _ => {}
        }
        let Some((after, tried)) = &mut star else { return false };
        if tried.next().is_none() {
            return false;
        }
        (wanted, found) = (after.clone(), tried.clone());
    }
}

/// Reads an agent's policy; what is wrong goes to `report`.
pub(super) fn check(top: &Object<'_>, report: &mut Report) -> AgentPolicy {
    let mut policy = AgentPolicy::default();
    let servers = top.get("servers").or_else(|| top.get("mcpServers"));
    let servers: Vec<_> = servers.iter().filter_map(members).flatten().collect();
    if let Some(entry) = top.get("policy").and_then(|node| node.object(report)) {
        entry.warn_unknown(&DEVICE_KEYS, &[], report);
        let names: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
        policy.device = rules(&entry, Level::Device(&names), report);
        if let Some(node) = entry.get("approvalTimeout") {
            let secs = node.integer(MIN_APPROVAL_SECS..=MAX_APPROVAL_SECS, "a time in seconds", report);
            policy.approval_secs = secs.unwrap_or(APPROVAL_SECS);
        }
    }
    for (name, server) in servers {
        let Some(node) = members(&server).and_then(|entry| entry.into_iter().find(|(key, _)| *key == "policy")) else {
            continue;
        };
        if let Some(entry) = node.1.object(report) {
            entry.warn_unknown(&SERVER_KEYS, &SERVER_ELSEWHERE, report);
            policy.servers.insert(name.to_owned(), rules(&entry, Level::Server(name), report));
        }
    }
    if let Some(node) = top.get("pins") {
        policy.pins =
            one_of(&node, &[("off", PinMode::Off), ("warn", PinMode::Warn), ("block", PinMode::Block)], report);
    }
    policy.audit = top.get("audit").and_then(|node| audit(&node, report));
    policy
}

/// The members of an object that is checked as a whole elsewhere.
fn members<'a>(node: &Node<'a>) -> Option<Vec<(&'a str, Node<'a>)>> {
    match node.value {
        Json::Object(_) => {
            // Its own mistakes were told by whoever checked it.
            let entry = node.object(&mut Report::default())?;
            Some(entry.members().collect())
        }
        _ => None,
    }
}

/// Whose policy it is.
#[derive(Debug, Clone, Copy)]
enum Level<'a> {
    /// The device's, which has these servers.
    Device(&'a [&'a str]),
    /// That of the server of this name.
    Server(&'a str),
}

fn rules(entry: &Object<'_>, level: Level<'_>, report: &mut Report) -> Policy {
    let mut patterns = |key| entry.get(key).map(|node| patterns(&node, level, report));
    let (allow, deny) = (patterns("allow"), patterns("deny"));
    Policy {
        allow,
        deny: deny.unwrap_or_default(),
        read_only: entry.get("readOnly").and_then(|node| node.boolean(report)).unwrap_or(false),
        approve: approve(entry, report),
        calls: calls(entry, report),
        tools: entry.get("tools").map(|node| tools(&node, level, report)).unwrap_or_default(),
    }
}

fn patterns(node: &Node<'_>, level: Level<'_>, report: &mut Report) -> Vec<Pattern> {
    let items = node.array(report).unwrap_or_default();
    if items.len() > limits::MAX_PATTERNS {
        report.error(&node.path, format!("has more than {} patterns", limits::MAX_PATTERNS));
    }
    let read = |item: &Node<'_>| item.text(report).map(ToOwned::to_owned).map(|text| (item.path.clone(), text));
    let texts: Vec<_> = items.iter().filter_map(read).collect();
    texts.into_iter().filter_map(|(path, text)| pattern(&path, &text, level, report)).collect()
}

fn pattern(path: &str, text: &str, level: Level<'_>, report: &mut Report) -> Option<Pattern> {
    if text.len() > limits::MAX_PATTERN {
        report.error(path, format!("is longer than {} bytes, which no tool's name is", limits::MAX_PATTERN));
        return None;
    }
    match level {
        Level::Server(name) => {
            // A rule that matches nothing lets pass what it was to forbid.
            let label = names::label(name);
            let rest = [name, &label].into_iter().find_map(|name| {
                let rest = text.strip_prefix(name)?;
                rest.strip_prefix('/').or_else(|| rest.strip_prefix(names::SEPARATOR))
            });
            if let Some(rest) = rest {
                report.warn(path, format!("names the server again: here \"{rest}\" is the tool's whole name"));
            }
            Some(Pattern::of_server(text))
        }
        Level::Device(servers) => {
            let pattern = Pattern::of_device(text);
            match &pattern {
                None => report.error(path, "must name server and tool, as in \"files/read_*\" or \"*/delete_*\""),
                Some(pattern) if !servers.iter().any(|server| pattern.concerns(server)) => {
                    report.warn(path, format!("means none of the servers: {}", servers.join(", ")));
                }
                Some(_) => {}
            }
            pattern
        }
    }
}

fn tools(node: &Node<'_>, level: Level<'_>, report: &mut Report) -> Vec<ToolPolicy> {
    let Some(entries) = node.object(report) else { return Vec::new() };
    if entries.members().count() > limits::MAX_PATTERNS {
        report.error(&node.path, format!("has more than {} patterns", limits::MAX_PATTERNS));
    }
    let mut tools = Vec::new();
    for (text, node) in entries.members() {
        let pattern = pattern(&node.path, text, level, report);
        let Some(entry) = node.object(report) else { continue };
        entry.warn_unknown(&TOOL_KEYS, &TOOL_ELSEWHERE, report);
        let (approve, calls) = (approve(&entry, report), calls(&entry, report));
        tools.extend(pattern.map(|tools| ToolPolicy { tools, approve, calls }));
    }
    tools
}

fn approve(entry: &Object<'_>, report: &mut Report) -> Approve {
    let words = [("never", Approve::Never), ("first", Approve::First), ("always", Approve::Always)];
    entry.get("approve").map(|node| one_of(&node, &words, report)).unwrap_or_default()
}

fn calls(entry: &Object<'_>, report: &mut Report) -> CallLimits {
    let mut number = |key, most: u32, what| {
        let number = entry.get(key)?.integer(1..=u64::from(most), what, report)?;
        u32::try_from(number).ok()
    };
    CallLimits {
        per_minute: number("callsPerMinute", limits::MAX_CALLS_PER_MINUTE, "a number of calls"),
        concurrency: number("concurrency", limits::MAX_CONCURRENCY, "a number of calls"),
    }
}

fn one_of<T: Copy + Default>(node: &Node<'_>, words: &[(&str, T)], report: &mut Report) -> T {
    let found = node.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, value)| *value).unwrap_or_else(|| {
        let names: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        report.error(&node.path, format!("must be one of {}", names.join(", ")));
        T::default()
    })
}

/// `audit`, of an agent or a relay.
pub(super) fn audit(node: &Node<'_>, report: &mut Report) -> Option<AuditFile> {
    match node.value {
        Json::Bool(true) => Some(AuditFile::Default),
        Json::Bool(false) => None,
        Json::Text(_) => super::agent::place(node, report).map(AuditFile::At),
        _ => {
            report.error(&node.path, format!("must be true, false or a file's path, not {}", node.value.kind()));
            None
        }
    }
}

/// The settings of a device's policy.
const DEVICE_KEYS: [&str; 8] =
    ["allow", "deny", "readOnly", "approve", "callsPerMinute", "concurrency", "tools", "approvalTimeout"];
/// The settings of a server's policy.
const SERVER_KEYS: [&str; 7] = ["allow", "deny", "readOnly", "approve", "callsPerMinute", "concurrency", "tools"];
const SERVER_ELSEWHERE: [(&str, &str); 1] =
    [("approvalTimeout", "belongs to the device: write it into the policy beside servers")];
/// The settings of some tools.
const TOOL_KEYS: [&str; 3] = ["approve", "callsPerMinute", "concurrency"];
const TOOL_ELSEWHERE: [(&str, &str); 3] = [
    ("allow", "belongs to the policy around it: a list of patterns"),
    ("deny", "belongs to the policy around it: a list of patterns"),
    ("readOnly", "belongs to the policy around it"),
];

/// As long as a call of an old relay waits at all.
const APPROVAL_SECS: u64 = 120;
const MIN_APPROVAL_SECS: u64 = 5;
const MAX_APPROVAL_SECS: u64 = 3600;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("read", "read", true),
            ("read", "reads", false),
            ("read", "Read", false),
            ("read_*", "read_", true),
            ("read_*", "reread_x", false),
            ("*_file", "read_file", true),
            ("*_file", "read_file_x_file", true),
            ("*_file", "read_files", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c2b", false),
            ("?ead", "read", true),
            ("?ead", "ead", false),
            ("r?", "rä", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("**", "x", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn device_patterns_part_at_their_first_slash() {
        let pattern = |text: &str| Pattern::of_device(text).unwrap();
        assert!(pattern("files/read").matches("files", "read"));
        assert!(!pattern("files/*").matches("web", "files/read"), "a tool cannot pass for another server's");
        assert!(!pattern("*/read").matches("web", "files/read"));
        assert!(pattern("*/files/*").matches("web", "files/read"));
        assert_eq!(Pattern::of_device("read"), None);
        assert!(pattern("files/*").matches_all_of("files") && !pattern("files/*").matches_all_of("web"));
        assert!(!pattern("files/?*").matches_all_of("files") && !Pattern::of_server("").matches_all_of("files"));
    }

    proptest! {
        #[test]
        fn text_without_wildcards_matches_itself_alone(a in "[a-z/_.äß]{0,20}", b in "[a-z/_.äß]{0,20}") {
            prop_assert!(glob(&a, &a));
            prop_assert_eq!(glob(&a, &b), a == b);
        }

        #[test]
        fn stars_match_what_they_were_made_of(parts in proptest::collection::vec("[ab]{0,3}", 1..5), fill in "[abc]{0,3}") {
            prop_assert!(glob(&parts.join("*"), &parts.join(&fill)));
        }

        #[test]
        fn any_pattern_and_text_end(pattern in "[ab*?]{0,40}", text in "[ab]{0,60}") {
            let slow = slow(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(glob(&pattern, &text), slow, "{} {}", pattern, text.to_string());
        }
    }

    /// The same as a table of all beginnings.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        let mut reached = std::vec![false; text.len() + 1];
        reached[0] = true;
        for wanted in pattern {
            let mut next = std::vec![false; text.len() + 1];
            for at in 0..=text.len() {
                next[at] = match wanted {
                    '*' => reached[..=at].contains(&true),
                    _ => at > 0 && reached[at - 1] && (*wanted == '?' || *wanted == text[at - 1]),
                };
            }
            reached = next;
        }
        reached[text.len()]
    }
}
