//! Which scope a client's request needs.

use crate::mcp::method;
use crate::oauth::scopes::{Scope, Scopes};

/// The scopes of which one is enough, the one to ask for first; none: any client's token does.
pub(super) type Need = &'static [Scope];

/// What only reads.
pub(super) const READS: Need = &[Scope::Read];
/// A call of a tool that says that it only reads.
pub(super) const READING_TOOL: Need = &[Scope::Read, Scope::Tools];
/// Restarting servers.
pub(super) const MANAGES: Need = &[Scope::Manage];

/// The scope that `scopes` lack for `need`: the one to ask for.
pub(super) fn missing(scopes: &Scopes, need: Need) -> Option<Scope> {
    if need.iter().any(|scope| scopes.has(*scope)) { None } else { need.first().copied() }
}

/// Whether `scopes` do for any need: as most tokens' do, which then need not be looked at closer.
pub(super) fn is_whole(scopes: &Scopes) -> bool {
    [Scope::Read, Scope::Tools, Scope::Manage].into_iter().all(|scope| scopes.has(scope))
}

/// What a call of a device's tool needs.
pub(super) fn of_tool(is_read_only: bool) -> Need {
    if is_read_only { READING_TOOL } else { ANY_TOOL }
}

/// What a request needs that is no `tools/call`. A method that is not known here may do anything, as a tool may.
pub(super) fn of_method(name: &str) -> Need {
    match name {
        method::INITIALIZE | method::PING => NOTHING,
        method::DISCOVER
        | method::TOOLS_LIST
        | method::RESOURCES_LIST
        | method::RESOURCE_TEMPLATES_LIST
        | method::RESOURCES_READ
        | method::RESOURCES_SUBSCRIBE
        | method::RESOURCES_UNSUBSCRIBE
        | method::SUBSCRIPTIONS_LISTEN
        | method::PROMPTS_LIST
        | method::PROMPTS_GET
        | method::COMPLETE
        | method::SET_LEVEL => READS,
        // A task is a call of a tool that goes on: who may not begin it has no business with it.
        _ => ANY_TOOL,
    }
}

/// What changes nothing and tells nothing.
const NOTHING: Need = &[];
/// A call of any other tool.
const ANY_TOOL: Need = &[Scope::Tools];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_needed_scopes_is_enough() {
        for (scopes, need, expected) in [
            ("", NOTHING, None),
            ("tunnel:manage", READS, Some(Scope::Read)),
            ("mcp:tools", READS, Some(Scope::Read)),
            ("mcp:read", READS, None),
            ("mcp:read", READING_TOOL, None),
            ("mcp:tools", READING_TOOL, None),
            ("tunnel:manage", READING_TOOL, Some(Scope::Read)),
            ("mcp:read tunnel:manage", ANY_TOOL, Some(Scope::Tools)),
            ("mcp:tools", ANY_TOOL, None),
            ("mcp:tools mcp:read", MANAGES, Some(Scope::Manage)),
            ("mcp", MANAGES, None),
            ("agent", ANY_TOOL, Some(Scope::Tools)),
        ] {
            assert_eq!(missing(&Scopes::read(scopes), need), expected, "{scopes} {need:?}");
        }
    }

    #[test]
    fn whole_token_lacks_nothing_for_any_need_and_no_other_is_whole() {
        let whole = Scopes::all(crate::oauth::Role::Client);
        assert!(is_whole(&whole));
        for need in [NOTHING, READS, READING_TOOL, ANY_TOOL, MANAGES] {
            assert_eq!(missing(&whole, need), None, "{need:?}");
        }
        for scopes in ["", "mcp:read mcp:tools", "mcp:tools tunnel:manage", "mcp:read tunnel:manage", "agent"] {
            assert!(!is_whole(&Scopes::read(scopes)), "{scopes}");
        }
    }

    #[test]
    fn unknown_methods_need_what_tools_need() {
        for name in ["", "tasks/cancel", "tasks/result", "vendor/erase", "tools/List", "resources/write"] {
            assert_eq!(of_method(name), ANY_TOOL, "{name}");
        }
        assert_eq!((of_method("ping"), of_method("resources/read")), (NOTHING, READS));
    }
}
