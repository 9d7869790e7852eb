//! `auth.allow`: who may use the relay, judged at the sign-in and, for as long as a grant of it lives, at every start and
//! every refresh.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::config::{GROUP, Oidc};
use crate::limits;

/// What `auth.allow` judges a person by, as the provider vouched for it at the sign-in: kept with what they grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vouched {
    /// The `sub` claim.
    pub subject: String,
    /// The e-mail address, if it was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Groups: as many as fit, those first that `auth.allow` named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// What `auth.allow` says of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No entry is theirs.
    Excluded,
    /// An entry may be theirs: what it asks for was not kept, as by older versions, or was never told, as of the person
    /// whom an operator names.
    Unknown,
    /// They may.
    Allowed,
}

impl Vouched {
    /// What is kept of these claims.
    pub(super) fn new<'a>(
        config: &Oidc,
        subject: &str,
        email: Option<&str>,
        groups: impl Iterator<Item = &'a str>,
    ) -> Self {
        let named = |group: &&str| config.allow.iter().any(|entry| entry.strip_prefix(GROUP) == Some(*group));
        let (mut kept, others): (Vec<_>, Vec<_>) = groups.partition(named);
        kept.extend(others);
        let mut room = limits::MAX_KEPT_GROUPS;
        kept.retain(|group| {
            // Quotes and a comma; what a text of another kind takes more in JSON is left out with it.
            let plain = !group.chars().any(|c| c.is_control() || c == '"' || c == '\\');
            let left = room.checked_sub(group.len().saturating_add(3)).filter(|_| plain);
            room = left.unwrap_or(room);
            left.is_some()
        });
        Self {
            subject: subject.to_string(),
            email: email.filter(|email| email.len() <= limits::MAX_CLAIM).map(ToString::to_string),
            groups: kept.into_iter().map(ToString::to_string).collect(),
        }
    }

    fn matches(&self, claim: &str, entry: &str) -> bool {
        if let Some(group) = entry.strip_prefix(GROUP) {
            return self.groups.iter().any(|own| own == group);
        }
        let email = self.email.as_deref().is_some_and(|email| is_of(email, entry));
        // Many providers let people choose a name: one that looks like an address is nobody's mailbox.
        let named = claim == entry && !entry.contains('@');
        email || named || self.subject == entry && !entry.starts_with('@')
    }
}

/// Judges the person whose user claim is `claim`.
#[must_use]
pub fn judge(config: &Oidc, claim: &str, vouched: Option<&Vouched>) -> Verdict {
    let verdicts = config.allow.iter().map(|entry| match vouched {
        Some(vouched) if vouched.matches(claim, entry) => Verdict::Allowed,
        Some(_) => Verdict::Excluded,
        None => guess(config, claim, entry),
    });
    verdicts.max().unwrap_or(Verdict::Allowed)
}

/// The same where nothing but the user claim is known.
fn guess(config: &Oidc, claim: &str, entry: &str) -> Verdict {
    let (theirs, decided) = match (config.user_claim.as_str(), entry) {
        (_, entry) if entry.starts_with(GROUP) => (false, false),
        // The claim was verified when it was taken.
        ("email", entry) => (is_of(claim, entry), entry.contains('@')),
        // `@` begins a domain, also where somebody has a subject like that.
        ("sub", entry) => (claim == entry && !entry.starts_with('@'), !entry.contains('@')),
        (_, entry) => (claim == entry && !entry.contains('@'), false),
    };
    match (theirs, decided) {
        (true, _) => Verdict::Allowed,
        (false, true) => Verdict::Excluded,
        (false, false) => Verdict::Unknown,
    }
}

/// Whether `entry` is this address, or `@` and its domain.
fn is_of(email: &str, entry: &str) -> bool {
    let part = if entry.starts_with('@') { email.rfind('@').and_then(|at| email.get(at..)) } else { Some(email) };
    part.is_some_and(|part| part.eq_ignore_ascii_case(entry))
}

#[cfg(test)]
mod tests {
    use std::format;

    use proptest::prelude::*;

    use super::*;
    use crate::oidc::testing::config;

    #[test]
    fn what_is_known_decides_and_what_is_not_is_left_open() {
        use Verdict::{Allowed, Excluded, Unknown};
        for (user_claim, claim, entry, expected) in [
            ("sub", "7", "7", Allowed),
            ("sub", "7", "8", Excluded),
            ("sub", "7", "@corp.example", Unknown),
            ("sub", "7", "ann@corp.example", Unknown),
            ("sub", "7", "group:dev", Unknown),
            ("email", "ann@corp.example", "ANN@corp.example", Allowed),
            ("email", "ann@corp.example", "@corp.example", Allowed),
            ("email", "ann@corp.example", "bob@corp.example", Excluded),
            ("email", "ann@corp.example", "@other.example", Excluded),
            ("email", "ann@corp.example", "7", Unknown),
            ("upn", "ann", "ann", Allowed),
            ("upn", "ann", "bob", Unknown),
            ("upn", "ann@corp.example", "ann@corp.example", Unknown),
        ] {
            let config = config(user_claim, &[entry]);
            assert_eq!(judge(&config, claim, None), expected, "{user_claim} {claim} {entry}");
            let vouched = Vouched::new(&config, "0", None, [].into_iter());
            let known = judge(&config, claim, Some(&vouched));
            assert_eq!(known == Allowed, expected == Allowed && !entry.contains('@'), "{user_claim} {claim} {entry}");
            assert_ne!(known, Unknown, "{user_claim} {claim} {entry}");
        }
        assert_eq!(judge(&config("sub", &["8", "7"]), "7", None), Allowed);
        assert_eq!(judge(&config("sub", &["8", "@corp.example"]), "7", None), Unknown);
        assert_eq!(judge(&config("sub", &[]), "7", None), Allowed);
    }

    #[test]
    fn groups_that_are_kept_are_few_and_those_of_the_list_come_first() {
        let many: Vec<_> = (0..1_000).map(|at| format!("group-{at}")).collect();
        let all = ["a\"b", "c\\d", "e\nf"].into_iter().chain(many.iter().map(String::as_str));
        let vouched = Vouched::new(&config("sub", &["group:group-999"]), "7", None, all);
        assert_eq!(vouched.groups.first().map(String::as_str), Some("group-999"));
        assert!(vouched.groups.iter().all(|group| group.starts_with("group-")) && vouched.groups.len() > 50);
        let record = serde_json::to_vec(&vouched.groups).expect("serialises");
        assert!(record.len() <= limits::MAX_KEPT_GROUPS + 2, "{}", record.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// What is said with nothing but the claim known is never taken back once all is known; and what is said with all
        /// known is what the list's own words mean.
        #[test]
        fn what_is_said_of_little_holds_for_all(
            user_claim in prop::sample::select(alloc::vec!["sub", "email", "upn"]),
            claim in "(ann|bob|7|@corp)?(@corp|@CORP|@other)?", subject in "(7|ann|@corp)?", mailbox in "(ann|bob)(@corp|@Corp|@other)",
            has_email: bool, groups in prop::collection::vec("dev|ops", 0..2),
            allow in prop::collection::vec("(group:)?(dev|ops|ann|7|ANN)?(@corp|@other)?", 0..3),
        ) {
            let entries: Vec<&str> = allow.iter().map(|entry| &**entry).filter(|entry| !entry.is_empty()).collect();
            let config = config(user_claim, &entries);
            let subject = if user_claim == "sub" { &claim } else { &subject };
            let email = if user_claim == "email" { Some(&claim) } else { has_email.then_some(&mailbox) };
            let vouched = Vouched::new(&config, subject, email.map(|email| &**email), groups.iter().map(|group| &**group));
            let known = judge(&config, &claim, Some(&vouched));
            let little = judge(&config, &claim, None);
            prop_assert!(little == Verdict::Unknown || little == known, "{:?} became {:?}", little, known);
            let theirs = |entry: &&str| match entry.strip_prefix(GROUP) {
                Some(group) => groups.iter().any(|own| own == group),
                None if entry.starts_with('@') => email.is_some_and(|email| email.to_lowercase().ends_with(&entry.to_lowercase()) && email.rfind('@') == Some(email.len() - entry.len())),
                None if entry.contains('@') => email.is_some_and(|email| email.eq_ignore_ascii_case(entry)) || subject == entry,
                None => claim == **entry || subject == entry || email.is_some_and(|email| email.eq_ignore_ascii_case(entry)),
            };
            let expected = entries.is_empty() || entries.iter().any(theirs);
            prop_assert_eq!(known, if expected { Verdict::Allowed } else { Verdict::Excluded });
        }
    }
}
