//! Scopes: what a token may do with what its role opens (RFC 6749 section 3.3).

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Role;

/// One of them. A client's are three, an agent's is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Call every tool of the devices' servers.
    Tools,
    /// Whatever only reads: lists, resources, prompts, and calls of tools that say that they only read.
    Read,
    /// Restart the devices' servers.
    Manage,
    /// Be a device.
    Agent,
}

impl Scope {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Read, Self::Manage, Self::Agent];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "mcp:tools",
            Self::Read => "mcp:read",
            Self::Manage => "tunnel:manage",
            Self::Agent => "agent",
        }
    }

    /// Whose tokens can have it.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Tools | Self::Read | Self::Manage => Role::Client,
            Self::Agent => Role::Agent,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Some scopes. Written and stored as OAuth has them, in one text with spaces between; what is no scope of ours is
/// dropped in reading.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    /// A bit for each, in the order of [`Scope::ALL`].
    bits: u8,
}

impl Scopes {
    /// All that a role's tokens can have: what is granted to whoever asks for nothing.
    #[must_use]
    pub fn all(role: Role) -> Self {
        Scope::ALL.into_iter().filter(|scope| scope.role() == role).collect()
    }

    /// The scopes that `text` names. `mcp` is what a client's only scope was called once.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let words = text.split(' ').filter(|word| !word.is_empty());
        words.fold(Self::default(), |mut all, word| {
            match word {
                FORMER => all.extend(Self::all(Role::Client).iter()),
                word => all.extend(Scope::ALL.into_iter().find(|scope| scope.as_str() == word)),
            }
            all
        })
    }

    /// What a client of `role` gets that asks for `asked`, when these are its default: these if it asks for nothing.
    ///
    /// What it asks for may be more than it registered, since that is how it comes by what a 403 has told it to sign in
    /// for; the consent page names all of it. What is no scope of its role is dropped (RFC 6749 section 3.3 lets a server
    /// ignore a part of a request, and tell what it gave). When nothing is left, a mistyped `mcp:reed` for example, it
    /// gets the least of its default and is told: whoever asked for something has not asked for everything, and a refusal
    /// would lock programs out that only know of `openid`; what they lack they are told when they need it.
    #[must_use]
    pub fn granted(&self, role: Role, asked: Option<&str>) -> Self {
        // RFC 6749 section 3.1: a parameter without a value counts as left out.
        let Some(asked) = asked.filter(|asked| !asked.trim().is_empty()) else { return self.clone() };
        let known: Self = Self::read(asked).iter().filter(|scope| scope.role() == role).collect();
        if !known.is_empty() {
            return known;
        }
        LEAST_FIRST.into_iter().find(|scope| self.has(*scope)).into_iter().collect()
    }

    /// The default of a client that registers `registered` (RFC 7591 section 2, `scope`): those of its role among them,
    /// or all of its role's when there is none. Unlike a request, a registration gives no access yet: its answer says
    /// what it amounts to, and each request is judged and shown to its person.
    #[must_use]
    pub(super) fn registered(role: Role, registered: Option<&str>) -> Self {
        let known = Self::read(registered.unwrap_or_default());
        known.iter().filter(|scope| scope.role() == role).collect::<Self>().or_all(role)
    }

    /// These, or all of `role` when there is none: what was granted before there was a choice says nothing.
    #[must_use]
    pub(super) fn or_all(self, role: Role) -> Self {
        if self.is_empty() { Self::all(role) } else { self }
    }

    /// What an access token of a grant of these gets when its client asks for `asked`: that, if the grant has it, else
    /// nothing (RFC 6749 section 6). Without a scope of ours in it: all of the grant.
    #[must_use]
    pub fn narrowed(&self, asked: Option<&str>) -> Option<Self> {
        let asked = Self::read(asked.unwrap_or_default());
        match asked.is_empty() {
            true => Some(self.clone()),
            false => asked.is_within(self).then_some(asked),
        }
    }

    /// Whether `scope` is one of these.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.bits & bit(scope) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// In the order in which they are told.
    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(|scope| self.has(*scope))
    }

    /// Whether `others` has all of these.
    fn is_within(&self, others: &Self) -> bool {
        self.bits & !others.bits == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        let mut all = Self::default();
        all.extend(scopes);
        all
    }
}

impl Extend<Scope> for Scopes {
    fn extend<T: IntoIterator<Item = Scope>>(&mut self, scopes: T) {
        self.bits = scopes.into_iter().fold(self.bits, |bits, scope| bits | bit(scope));
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::read(&text))
    }
}

const fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

/// By what they give away.
const LEAST_FIRST: [Scope; 4] = [Scope::Read, Scope::Manage, Scope::Tools, Scope::Agent];
/// The one scope that clients had before there were three.
const FORMER: &str = "mcp";

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_decides_what_is_granted() {
        const ALL: &str = "mcp:tools mcp:read tunnel:manage";
        for (role, asked, granted) in [
            (Role::Client, None, ALL),
            (Role::Client, Some(""), ALL),
            (Role::Client, Some("  "), ALL),
            (Role::Client, Some("openid profile"), "mcp:read"),
            (Role::Client, Some("mcp:reed"), "mcp:read"),
            (Role::Client, Some("agent"), "mcp:read"),
            (Role::Client, Some("mcp"), ALL),
            (Role::Client, Some("openid mcp everything"), ALL),
            (Role::Client, Some("mcp:read"), "mcp:read"),
            (Role::Client, Some("tunnel:manage  mcp:tools"), "mcp:tools tunnel:manage"),
            (Role::Client, Some("mcp:read mcp:read agent x"), "mcp:read"),
            (Role::Client, Some("MCP:TOOLS"), "mcp:read"),
            (Role::Agent, None, "agent"),
            (Role::Agent, Some("mcp:tools"), "agent"),
        ] {
            assert_eq!(Scopes::all(role).granted(role, asked).to_string(), granted, "{role:?} {asked:?}");
        }
    }

    #[test]
    fn what_is_registered_is_the_default_and_not_the_most() {
        for (registered, asked, granted) in [
            ("mcp:read", None, "mcp:read"),
            ("mcp:read", Some(""), "mcp:read"),
            ("mcp:read", Some("mcp:read mcp:tools"), "mcp:tools mcp:read"),
            ("mcp:read", Some("mcp:read tunnel:manage"), "mcp:read tunnel:manage"),
            ("mcp:tools tunnel:manage x", None, "mcp:tools tunnel:manage"),
            ("mcp:tools tunnel:manage", Some("mcp:read"), "mcp:read"),
            ("mcp:tools", Some("mcp:reed"), "mcp:tools"),
            ("mcp:tools agent", Some("agent"), "mcp:tools"),
            ("openid profile", None, "mcp:tools mcp:read tunnel:manage"),
            ("", Some("mcp:tools"), "mcp:tools"),
            ("mcp", Some("tunnel:manage"), "tunnel:manage"),
        ] {
            let default = Scopes::registered(Role::Client, Some(registered));
            assert_eq!(default.granted(Role::Client, asked).to_string(), granted, "{registered} {asked:?}");
        }
    }

    #[test]
    fn refresh_narrows_and_never_widens() {
        let granted = Scopes::read("mcp:tools mcp:read");
        for (asked, narrowed) in [
            (None, Some("mcp:tools mcp:read")),
            (Some("offline_access"), Some("mcp:tools mcp:read")),
            (Some("mcp:read x"), Some("mcp:read")),
            (Some("tunnel:manage"), None),
            (Some("mcp:read tunnel:manage"), None),
            (Some("mcp"), None),
            (Some("agent"), None),
        ] {
            assert_eq!(granted.narrowed(asked).map(|scopes| scopes.to_string()).as_deref(), narrowed, "{asked:?}");
        }
    }

    proptest! {
        #[test]
        fn scopes_round_trip(mask in 0_u8..16) {
            let scopes: Scopes = Scope::ALL.into_iter().enumerate()
                .filter_map(|(bit, scope)| (mask >> bit & 1 == 1).then_some(scope)).collect();
            prop_assert_eq!(Scopes::read(&scopes.to_string()), scopes);
        }

        #[test]
        fn nothing_is_granted_that_was_neither_asked_for_nor_registered(registered in ".{0,30}|(mcp:tools|mcp:read| ){0,4}", asked in ".{0,30}|(agent|mcp|mcp:read| ){0,4}") {
            let default = Scopes::registered(Role::Client, Some(&registered));
            let granted = default.granted(Role::Client, Some(&asked));
            prop_assert!(!granted.is_empty() && granted.is_within(&Scopes::all(Role::Client)));
            prop_assert!(granted.is_within(&Scopes::read(&asked)) || granted.is_within(&default));
        }
    }
}
