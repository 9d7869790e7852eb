//! What may be called: the rules of the device and of each server, and how many calls there may be.
//!
//! Both policies must agree to a call, so that the tighter of them counts. Names are judged before anything else is
//! known; what a tool says of itself can only make things tighter.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::tools::{Hidden, Tool, Tools};
use crate::config::AgentPolicy;
use crate::config::policy::{Approve, CallLimits, Pattern, Policy};
use crate::mcp::method;
use crate::rpc::{object, string};
use crate::time::Instant;

/// The rules of a device.
#[derive(Debug, Default)]
pub(super) struct Rules(AgentPolicy);

/// What limits are counted for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    /// The server whose policy it is; `None`: the device's.
    server: Option<String>,
    /// The entry of `tools`; `None`: the policy as a whole.
    entry: Option<usize>,
}

impl Rules {
    pub(super) fn new(policy: AgentPolicy) -> Self {
        Self(policy)
    }

    pub(super) fn policy(&self) -> &AgentPolicy {
        &self.0
    }

    /// Whether a tool of that name may be called.
    pub(super) fn allows(&self, server: &str, tool: &str) -> bool {
        self.of(server).all(|(_, policy)| {
            let allowed = policy.allow.as_ref().is_none_or(|allow| allow.iter().any(|it| it.matches(server, tool)));
            allowed && !policy.deny.iter().any(|it| it.matches(server, tool))
        })
    }

    /// Why a tool is hidden, as far as its name and what it says of itself tell.
    pub(super) fn hides(&self, server: &str, tool: &Tool) -> Option<Hidden> {
        if !self.allows(server, tool.name()) {
            Some(Hidden::Denied)
        } else if self.wants_read_only(server) && !tool.is_read_only() {
            Some(Hidden::NotReadOnly)
        } else {
            None
        }
    }

    /// Whether only tools that change nothing may be called.
    pub(super) fn wants_read_only(&self, server: &str) -> bool {
        self.of(server).any(|(_, policy)| policy.read_only)
    }

    /// Whether a method other than `tools/call` may be called. Where any rule is, only the protocol's own may: what
    /// others do, nobody knows.
    pub(super) fn allows_method(&self, server: &str, method: &str) -> bool {
        method == method::PING
            || self.is_open(server)
            || (!self.is_closed(server)
                && KNOWN_METHODS.contains(&method)
                && self.of(server).all(|(_, policy)| !policy.deny.iter().any(|it| it.matches(server, method))))
    }

    /// Names in a server's own policy that none of its tools has: a slip there lets pass what it was to forbid.
    pub(super) fn idle<'a>(&'a self, server: &str, tools: &'a Tools) -> impl Iterator<Item = &'a str> {
        let own = self.0.servers.get(server).into_iter().flat_map(|policy| {
            let entries = policy.tools.iter().map(|entry| &entry.tools);
            policy.allow.iter().flatten().chain(&policy.deny).chain(entries)
        });
        let names = own.filter_map(Pattern::literal);
        names.filter(|name| tools.get(name).is_none() && !KNOWN_METHODS.contains(name))
    }

    /// Whether a person is asked before a tool is called, or a method that brings content.
    pub(super) fn approve(&self, server: &str, tool: &str) -> Approve {
        let of = |(_, policy): (_, &Policy)| {
            let entries = policy.tools.iter().filter(|entry| entry.tools.matches(server, tool));
            entries.map(|entry| entry.approve).max().unwrap_or_default().max(policy.approve)
        };
        self.of(server).map(of).max().unwrap_or_default()
    }

    /// Whether any approval is remembered for this server.
    pub(super) fn remembers(&self, server: &str) -> bool {
        self.of(server).any(|(_, policy)| {
            policy.approve == Approve::First || policy.tools.iter().any(|entry| entry.approve == Approve::First)
        })
    }

    /// The limits that a call counts for.
    pub(super) fn limits(&self, server: &str, tool: &str) -> Vec<(Scope, CallLimits)> {
        let mut limits = Vec::new();
        for (owner, policy) in self.of(server) {
            let entries = policy.tools.iter().enumerate().filter(|(_, entry)| entry.tools.matches(server, tool));
            let entries = entries.map(|(at, entry)| (Some(at), entry.calls));
            for (entry, calls) in [(None, policy.calls)].into_iter().chain(entries) {
                if calls != CallLimits::default() {
                    limits.push((Scope { server: owner.map(ToString::to_string), entry }, calls));
                }
            }
        }
        limits
    }

    /// The policies that a server is under: the device's, its own.
    fn of<'a>(&'a self, server: &'a str) -> impl Iterator<Item = (Option<&'a str>, &'a Policy)> {
        let own = self.0.servers.get(server).map(|policy| (Some(server), policy));
        [(None, &self.0.device)].into_iter().chain(own)
    }

    /// Whether no rule is about this server.
    pub(super) fn is_open(&self, server: &str) -> bool {
        self.of(server).all(|(_, policy)| {
            policy.allow.is_none()
                && !policy.deny.iter().any(|it| it.concerns(server))
                && !policy.read_only
                && policy.approve == Approve::Never
                && !policy.tools.iter().any(|it| it.approve != Approve::Never && it.tools.concerns(server))
        })
    }

    /// Whether no tool of it can be called, so that nothing else of it is wanted either.
    fn is_closed(&self, server: &str) -> bool {
        self.of(server).any(|(_, policy)| {
            policy.deny.iter().any(|it| it.matches_all_of(server))
                || policy.allow.as_ref().is_some_and(|allow| !allow.iter().any(|it| it.concerns(server)))
        })
    }
}

/// Whether calls of this method are counted and may need an approval, as calls of tools are: it brings content that a
/// server makes.
pub(super) fn brings_content(method: &str) -> bool {
    matches!(method, method::RESOURCES_READ | method::PROMPTS_GET)
}

/// The tool that the params of `tools/call` name; an empty text where they name none. An error where two readers of
/// the params could see two tools: some take the first member of a name, some the last, and some do not mind its case.
pub(super) fn called_tool(params: &Bytes) -> Result<Cow<'_, str>, &'static str> {
    let (mut found, mut is_clear) = (None, true);
    let members = object::each(params, |raw, value| {
        let key = string(raw).unwrap_or_default();
        if key.eq_ignore_ascii_case("name") {
            is_clear &= key == "name" && found.replace(value).is_none();
        }
    });
    if !params.is_empty() {
        members.map_err(|_| "params must be a JSON object")?;
    }
    match found {
        _ if !is_clear => Err("params must name one tool, once"),
        Some(name) => string(name).ok_or("a tool's name must be a text"),
        None => Ok(Cow::Borrowed("")),
    }
}

/// How many calls there are, by scope.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<Scope, Count>);

#[derive(Debug, Default)]
struct Count {
    open: u32,
    /// When calls began, within the last minute; as many as are allowed at most.
    begun: VecDeque<Instant>,
}

impl Limiter {
    /// Whether one more call fits; if not, why.
    pub(super) fn check(&mut self, limits: &[(Scope, CallLimits)], now: Instant) -> Result<(), String> {
        for (scope, calls) in limits {
            let Some(count) = self.0.get_mut(scope) else { continue };
            if calls.concurrency.is_some_and(|most| count.open >= most) {
                let most = calls.concurrency.unwrap_or_default();
                return Err(format!("{most} calls are under way, and this device's policy allows no more at once"));
            }
            while count.begun.front().is_some_and(|at| now.saturating_since(*at) >= MINUTE) {
                count.begun.pop_front();
            }
            if let Some(most) = calls.per_minute
                && count.begun.len() >= usize::try_from(most).unwrap_or(usize::MAX)
            {
                let free = count.begun.front().map_or(MINUTE, |at| MINUTE.saturating_sub(now.saturating_since(*at)));
                let secs = free.as_secs() + 1;
                return Err(format!("this device's policy allows {most} calls a minute: try again in {secs} s"));
            }
        }
        Ok(())
    }

    /// Counts a call that fits.
    pub(super) fn take(&mut self, limits: &[(Scope, CallLimits)], now: Instant) {
        for (scope, calls) in limits {
            let count = self.0.entry(scope.clone()).or_default();
            count.open += 1;
            if calls.per_minute.is_some() {
                count.begun.push_back(now);
            }
        }
    }

    /// Counts the end of a call.
    pub(super) fn release(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            if let Some(count) = self.0.get_mut(scope) {
                count.open = count.open.saturating_sub(1);
                if count.open == 0 && count.begun.is_empty() {
                    self.0.remove(scope);
                }
            }
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// What a client may ask a server besides calling tools: nothing of it runs anything that a tool would have to.
const KNOWN_METHODS: [&str; 15] = [
    method::DISCOVER,
    method::RESOURCES_LIST,
    method::RESOURCE_TEMPLATES_LIST,
    method::RESOURCES_READ,
    method::RESOURCES_SUBSCRIBE,
    method::RESOURCES_UNSUBSCRIBE,
    method::SUBSCRIPTIONS_LISTEN,
    method::PROMPTS_LIST,
    method::PROMPTS_GET,
    method::COMPLETE,
    method::SET_LEVEL,
    method::TASKS_GET,
    method::TASKS_RESULT,
    method::TASKS_LIST,
    method::TASKS_CANCEL,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tools::tests::tool;
    use super::*;
    use crate::config::{self, Config};

    /// The rules of a configuration with these members beside, with the servers `files` and `web`.
    pub(super) fn rules(device: &str, files: &str) -> Rules {
        let text = format!(
            r#"{{"mode":"agent","relay":"r.example","policy":{device},"servers":{{"files":{{"command":"a","policy":{files}}},"web":{{"command":"b"}}}}}}"#
        );
        match config::parse(&text) {
            Ok(config::Parsed { config: Config::Agent(config), warnings }) if warnings.is_empty() => {
                Rules::new(config.policy)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_pass_both_policies() {
        let table = [
            ("{}", "{}", "files", "anything", true),
            ("{}", r#"{"allow":["read_*"]}"#, "files", "read_x", true),
            ("{}", r#"{"allow":["read_*"]}"#, "files", "write", false),
            ("{}", r#"{"allow":["read_*"]}"#, "web", "write", true),
            ("{}", r#"{"allow":[]}"#, "files", "read", false),
            ("{}", r#"{"deny":["write*"]}"#, "files", "write_x", false),
            ("{}", r#"{"deny":["write*"]}"#, "files", "read", true),
            ("{}", r#"{"allow":["*"],"deny":["write"]}"#, "files", "write", false),
            (r#"{"deny":["*/delete*"]}"#, r#"{"allow":["delete_all"]}"#, "files", "delete_all", false),
            (r#"{"allow":["files/*"]}"#, "{}", "web", "read", false),
            (r#"{"allow":["files/*"]}"#, r#"{"deny":["x"]}"#, "files", "x", false),
            (r#"{"allow":["files/read"]}"#, r#"{"allow":["write"]}"#, "files", "read", false),
            (r#"{"deny":["files/*"]}"#, "{}", "web", "files/x", true),
        ];
        for (device, files, server, tool, expected) in table {
            assert_eq!(rules(device, files).allows(server, tool), expected, "{device} {files} {server} {tool}");
        }
    }

    #[test]
    fn annotations_tighten_and_never_relax() {
        let reads = tool(r#"{"name":"read","annotations":{"readOnlyHint":true}}"#);
        let writes = tool(r#"{"name":"write","annotations":{"readOnlyHint":false}}"#);
        let silent = tool(r#"{"name":"read"}"#);
        for (device, files) in [(r#"{"readOnly":true}"#, "{}"), ("{}", r#"{"readOnly":true}"#)] {
            let rules = rules(device, files);
            assert_eq!(rules.hides("files", &reads), None);
            assert_eq!(rules.hides("files", &writes), Some(Hidden::NotReadOnly));
            assert_eq!(rules.hides("files", &silent), Some(Hidden::NotReadOnly));
        }
        let denied = rules("{}", r#"{"deny":["read"],"readOnly":true}"#);
        assert_eq!(denied.hides("files", &reads), Some(Hidden::Denied));
        let asked = rules("{}", r#"{"approve":"always"}"#);
        assert_eq!((asked.hides("files", &writes), asked.approve("files", "read")), (None, Approve::Always));
    }

    #[test]
    fn tightest_approval_counts() {
        use Approve::{Always, First, Never};
        let rules = rules(
            r#"{"tools":{"*/delete*":{"approve":"first"}}}"#,
            r#"{"tools":{"delete_all":{"approve":"always"},"delete*":{"approve":"never"},"x":{}}}"#,
        );
        for (server, tool, expected) in [
            ("files", "delete_all", Always),
            ("files", "delete_one", First),
            ("web", "delete_all", First),
            ("files", "read", Never),
        ] {
            assert_eq!(rules.approve(server, tool), expected, "{server} {tool}");
        }
        assert!(rules.remembers("web"));
    }

    #[test]
    fn unknown_methods_pass_only_where_no_rule_is() {
        let open = rules("{}", r#"{"callsPerMinute":5}"#);
        assert!(open.allows_method("files", "vendor/run") && open.allows_method("files", "tools/x"));
        for files in [r#"{"deny":["x"]}"#, r#"{"allow":["x"]}"#, r#"{"readOnly":true}"#, r#"{"approve":"first"}"#] {
            let rules = rules("{}", files);
            assert!(!rules.allows_method("files", "vendor/run"), "{files}");
            assert!(!rules.allows_method("files", "tools/CALL") && !rules.allows_method("files", "tools/list"));
            assert!(rules.allows_method("files", "resources/read") && rules.allows_method("files", "ping"), "{files}");
            assert!(rules.allows_method("web", "vendor/run"), "no rule is about it");
        }
        assert!(!rules("{}", r#"{"deny":["resources/*"]}"#).allows_method("files", "resources/read"));
        for (device, files) in
            [("{}", r#"{"deny":["*"]}"#), ("{}", r#"{"allow":[]}"#), (r#"{"allow":["web/*"]}"#, "{}")]
        {
            let closed = rules(device, files);
            assert!(!closed.allows_method("files", "resources/read"), "nothing of a closed server: {device} {files}");
            assert!(closed.allows_method("web", "resources/read") && closed.allows_method("files", "ping"));
        }
    }

    #[test]
    fn params_name_one_tool_to_every_reader() {
        let called = |params: &'static str| called_tool(&Bytes::from_static(params.as_bytes())).map(Cow::into_owned);
        assert_eq!(called(r#"{"arguments":{"name":"x"},"name":"read"}"#).as_deref(), Ok("read"));
        assert_eq!(called(r#"{"n\u0061me":"re\u0061d"}"#).as_deref(), Ok("read"));
        assert_eq!((called("").as_deref(), called("{}").as_deref()), (Ok(""), Ok("")));
        for ambiguous in [
            r#"{"name":"read","name":"delete"}"#,
            r#"{"name":"read","n\u0061me":"delete"}"#,
            r#"{"name":"read","Name":"delete"}"#,
            r#"{"NAME":"delete"}"#,
            r#"{"name":["delete"]}"#,
            r#"{"name":null}"#,
            r#"{"name":"read\ud800"}"#,
            r#"["delete"]"#,
            "nonsense",
        ] {
            assert!(called(ambiguous).is_err(), "{ambiguous}");
        }
    }

    #[test]
    fn calls_at_once_are_bounded() {
        let rules = rules(r#"{"concurrency":3}"#, r#"{"concurrency":2,"tools":{"slow":{"concurrency":1}}}"#);
        let mut limiter = Limiter::default();
        let now = Instant::from_micros(0);
        let call = |limiter: &mut Limiter, server: &str, tool: &str| {
            let limits = rules.limits(server, tool);
            limiter.check(&limits, now).map(|()| limiter.take(&limits, now))
        };
        assert_eq!(call(&mut limiter, "files", "slow"), Ok(()));
        assert!(call(&mut limiter, "files", "slow").is_err_and(|why| why.contains("1 calls are under way")));
        assert_eq!(call(&mut limiter, "files", "fast"), Ok(()));
        assert!(call(&mut limiter, "files", "fast").is_err_and(|why| why.contains("2 calls are under way")));
        assert_eq!(call(&mut limiter, "web", "any"), Ok(()));
        assert!(call(&mut limiter, "web", "any").is_err_and(|why| why.contains("3 calls are under way")));
        let scopes: Vec<Scope> = rules.limits("files", "slow").into_iter().map(|(scope, _)| scope).collect();
        limiter.release(&scopes);
        assert_eq!(call(&mut limiter, "files", "slow"), Ok(()));
        limiter.release(&scopes);
        limiter.release(&scopes);
        limiter.release(&scopes);
        assert!(limiter.0.values().all(|count| count.open <= 1), "an end that counts twice is no debt");
    }

    #[test]
    fn server_is_open_while_no_rule_is_about_it() {
        let asks = r#"{"tools":{"slow":{"approve":"first"}}}"#;
        let never = r#"{"tools":{"slow":{"approve":"never"}}}"#;
        for (device, files, open) in [
            ("{}", "{}", true),
            ("{}", r#"{"deny":["x"]}"#, false),
            ("{}", r#"{"allow":["*"]}"#, false),
            ("{}", r#"{"readOnly":true}"#, false),
            ("{}", r#"{"approve":"always"}"#, false),
            ("{}", asks, false),
            ("{}", never, true),
            ("{}", r#"{"concurrency":1}"#, true),
            (r#"{"deny":["web/*"]}"#, "{}", true),
            (r#"{"deny":["files/x"]}"#, "{}", false),
            (r#"{"tools":{"web/*":{"approve":"first"}}}"#, "{}", true),
            (r#"{"tools":{"files/slow":{"approve":"first"}}}"#, "{}", false),
        ] {
            assert_eq!(rules(device, files).is_open("files"), open, "{device} {files}");
        }
    }

    #[test]
    fn refusal_says_when_the_next_call_fits() {
        let rules = rules("{}", r#"{"callsPerMinute":1}"#);
        let limits = rules.limits("files", "any");
        let at = |secs: u64| Instant::from_micros(secs * 1_000_000);
        let mut limiter = Limiter::default();
        limiter.take(&limits, at(0));
        let refused = limiter.check(&limits, at(10));
        assert!(refused.is_err_and(|why| why.ends_with("allows 1 calls a minute: try again in 51 s")));
        assert_eq!(limiter.check(&limits, at(60)), Ok(()));
    }

    #[test]
    fn nothing_is_kept_of_calls_that_are_only_bounded_at_once() {
        let rules = rules("{}", r#"{"concurrency":2}"#);
        let limits = rules.limits("files", "any");
        let mut limiter = Limiter::default();
        limiter.take(&limits, Instant::from_micros(0));
        limiter.release(&[limits[0].0.clone()]);
        assert!(limiter.0.is_empty());
    }

    #[test]
    fn call_that_ends_frees_its_own_place_alone() {
        let rules = rules("{}", r#"{"concurrency":2}"#);
        let limits = rules.limits("files", "any");
        let scopes: Vec<Scope> = limits.iter().map(|(scope, _)| scope.clone()).collect();
        let (mut limiter, now) = (Limiter::default(), Instant::from_micros(0));
        limiter.take(&limits, now);
        limiter.take(&limits, now);
        limiter.release(&scopes);
        assert!(limiter.check(&limits, now).is_ok());
        limiter.take(&limits, now);
        assert!(limiter.check(&limits, now).is_err());
    }

    proptest! {
        #[test]
        fn any_minute_has_at_most_as_many_calls_as_allowed(gaps in proptest::collection::vec(0u64..40, 1..80), most in 1u32..6) {
            let limits = [(Scope { server: None, entry: None }, CallLimits { per_minute: Some(most), concurrency: None })];
            let mut limiter = Limiter::default();
            let (mut now, mut begun) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                let at = Instant::from_micros(now * 1_000_000);
                if limiter.check(&limits, at).is_ok() {
                    limiter.take(&limits, at);
                    begun.push(now);
                } else {
                    let recent = begun.iter().filter(|then| now - **then < 60).count();
                    prop_assert_eq!(recent, most as usize, "refused without need");
                }
            }
            for from in &begun {
                let within = begun.iter().filter(|then| (*from..*from + 60).contains(*then)).count();
                prop_assert!(within <= most as usize);
            }
        }

        #[test]
        fn any_params_are_judged_without_panic(params: Vec<u8>) {
            let _ = called_tool(&Bytes::from(params));
        }
    }
}
