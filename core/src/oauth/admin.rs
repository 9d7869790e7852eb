//! What the operator asks for: tokens for scripts and headless machines, made, listed, revoked; and all grants, listed
//! and revoked.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tracing::info;

use super::ending::Asker;
use super::exchange::principal;
use super::families::{Family, Kind};
use super::grants::{Action, AdminCommand, Grants};
use super::scopes::{Scope, Scopes};
use super::store::{Answer, Then};
use super::{Role, text, token};
use crate::config::Login;
use crate::id::{FamilyId, JobId, UserId};
use crate::limits;
use crate::oidc::allow::Verdict;
use crate::time::{Now, UnixTime};

impl Grants {
    /// Answers the operator, at once or after a write.
    pub(super) fn admin(&mut self, job: JobId, command: AdminCommand, now: Now) {
        self.note_command(&command, now);
        match command {
            AdminCommand::TokenCreate { user, role, scope, label, lifetime_secs } => {
                if let Err(reason) = self.mint(job, &user, (role, &scope), &label, lifetime_secs, now) {
                    self.admin_refused(job, &reason);
                }
            }
            AdminCommand::TokenList => {
                let tokens = self.families.known.iter().filter_map(|(id, family)| Listed::new(id, family)).collect();
                let json = document(&List { ok: true, tokens });
                self.out.push(Action::AdminReply { job, json });
            }
            AdminCommand::KeysList => self.list_keys(job),
            AdminCommand::KeysRotate => self.rotate_keys(job, now),
            AdminCommand::KeysRevokeAll => self.revoke_all(job, now),
            AdminCommand::TokenRevoke { id } => {
                let id = FamilyId::from(id);
                match self.families.known.get(&id).map(|family| &family.kind) {
                    Some(Kind::Minted { .. }) => self.revoke_family(&id, Answer::Admin(job), now),
                    Some(Kind::SignIn { .. }) | None => {
                        self.admin_refused(job, "there is no such token; `token list` shows those there are");
                    }
                }
            }
            AdminCommand::GrantList { user } => match self.list_grants(user.as_deref(), now) {
                Ok(json) => self.out.push(Action::AdminReply { job, json }),
                Err(reason) => self.admin_refused(job, &reason),
            },
            AdminCommand::GrantRevoke { id } => {
                let id = FamilyId::from(id);
                if self.families.known.contains_key(&id) {
                    self.revoke_family(&id, Answer::Admin(job), now);
                } else {
                    self.admin_refused(job, "there is no such grant; `grants list` shows those there are");
                }
            }
            AdminCommand::GrantRevokeAll { user } => match self.grantor(&user) {
                Ok(user) => {
                    let ids = self.families_of(&user, now);
                    self.revoke_several(ids, Asker::Operator(job), now);
                }
                Err(reason) => self.admin_refused(job, &reason),
            },
        }
    }

    /// The token's record is written: show the token, once.
    pub(super) fn minted(&mut self, job: JobId, id: &FamilyId, family: &Family, now: Now) {
        let principal = principal(id, family, (family.audience.clone(), family.scopes.clone()), now);
        let token = token::seal_access(&self.sealer, &principal, &mut *self.entropy);
        info!(user = %self.pseudonym(&principal.user), "token made by the operator");
        self.admin_reply(
            job,
            &Minted {
                ok: true,
                id: id.as_str(),
                token: token.expose(),
                user: &family.user,
                role: family.role,
                scope: &family.scopes,
                expires: principal.expires.as_secs(),
                warning: (self.standing_of(&family.user, None) == Verdict::Unknown).then_some(UNKNOWN_TO_ALLOW),
            },
        );
    }

    /// Tells the operator how many grants were revoked.
    pub(super) fn operator_revoked(&mut self, job: JobId, revoked: usize, result: Result<(), ()>) {
        match result {
            Ok(()) => self.admin_reply(job, &Revoked { ok: true, revoked }),
            Err(()) => self.admin_refused(job, "the relay cannot keep all of it at the moment: try again"),
        }
    }

    /// Tells the operator that it is done.
    pub(super) fn admin_done(&mut self, job: JobId) {
        self.admin_reply(job, &Done { ok: true });
    }

    /// Tells the operator why not.
    pub(super) fn admin_refused(&mut self, job: JobId, error: &str) {
        self.admin_reply(job, &Refused { ok: false, error });
    }

    fn mint(
        &mut self,
        job: JobId,
        user: &str,
        (role, scope): (Role, &str),
        label: &str,
        lifetime_secs: u64,
        now: Now,
    ) -> Result<(), String> {
        let user = self.user_named(user)?;
        if self.standing_of(user.as_str(), None) == Verdict::Excluded {
            return Err("auth.allow does not let this user in: add them there, and restart the relay if it runs".into());
        }
        let all = Scopes::all(role);
        // What a program asks for may be strange; a person has mistyped it.
        if !scope.split_whitespace().all(|word| all.iter().any(|scope| scope.as_str() == word)) {
            let known: Vec<_> = all.iter().map(Scope::as_str).collect();
            return Err(alloc::format!("a token of this role can have the scopes {}", known.join(", ")));
        }
        let scopes = all.granted(role, Some(scope));
        if lifetime_secs == 0 || lifetime_secs > MAX_LIFETIME.as_secs() {
            return Err(alloc::format!("a token lives for 1 second to {} days", MAX_LIFETIME.as_secs() / 86_400));
        }
        let minted = self.families.known.values().filter(|family| matches!(family.kind, Kind::Minted { .. })).count();
        if minted >= limits::MAX_MINTED {
            return Err("there are too many tokens: revoked and expired ones leave the list when they run out".into());
        }
        if !self.make_room(&user, now) {
            return Err("there are too many tokens and sign-ins for this user".into());
        }
        let id = self.new_family_id();
        let family = Family {
            user: user.as_str().into(),
            client: CLIENT.into(),
            role,
            audience: self.settings.url(role.path()),
            scopes,
            created: now.unix.as_millis(),
            expires: (now.unix + Duration::from_secs(lifetime_secs)).as_millis(),
            kind: Kind::Minted { label: text::clean(label, MAX_LABEL) },
            about: alloc::boxed::Box::default(),
            vouched: None,
            revoked: None,
        };
        self.write_family(id, family, Then::Mint { job });
        Ok(())
    }

    /// All grants that give access, or would again as soon as their people are let in, of one person or of everybody.
    fn list_grants(&self, user: Option<&str>, now: Now) -> Result<Bytes, String> {
        let user = user.map(|name| self.grantor(name)).transpose()?;
        let connected = self.presence.connected();
        let wanted = |family: &Family| {
            let meant = user.as_ref().is_none_or(|user| family.user == user.as_str());
            meant && family.is_alive(now.unix)
        };
        let grants = self.families.known.iter().filter(|(_, family)| wanted(family));
        let grants = grants.map(|(id, family)| Granted {
            shut_out: !self.is_welcome(family),
            ..Granted::new(id, family, connected.contains(id))
        });
        let grants = grants.collect();
        Ok(document(&GrantsListed { ok: true, grants }))
    }

    /// The user whom the operator means: one that a login could give, or one that has grants still.
    fn grantor(&self, name: &str) -> Result<UserId, String> {
        if self.families.known.values().any(|family| family.user == name) {
            return Ok(UserId::new(name));
        }
        self.user_named(name).or_else(|reason| {
            // A local user who was taken off the configuration.
            let gone = alloc::format!("local:{name}");
            let known = self.families.known.values().any(|family| family.user == gone);
            if known { Ok(UserId::from(gone)) } else { Err(reason) }
        })
    }

    /// The user that a login of this name would give.
    pub(super) fn user_named(&self, name: &str) -> Result<UserId, String> {
        match &self.settings.login {
            Login::Local(local) => {
                let name = name.strip_prefix("local:").unwrap_or(name);
                let known = local.users.iter().any(|user| user.name == name);
                known.then(|| UserId::from(alloc::format!("local:{name}"))).ok_or_else(|| {
                    let names: Vec<_> = local.users.iter().map(|user| user.name.as_str()).collect();
                    alloc::format!(
                        "there is no user `{}` in auth.local.users: {}",
                        text::clean(name, 64),
                        names.join(", ")
                    )
                })
            }
            Login::Oidc(oidc) => {
                let prefix = alloc::format!("{}#", oidc.issuer);
                let claim = name.strip_prefix(&prefix).unwrap_or(name);
                if claim.is_empty() || claim.len() > limits::MAX_CLAIM || claim.chars().any(char::is_control) {
                    return Err(alloc::format!("a user is named by the provider's claim `{}`", oidc.user_claim));
                }
                Ok(UserId::from(alloc::format!("{prefix}{claim}")))
            }
        }
    }

    pub(super) fn admin_reply(&mut self, job: JobId, answer: &impl Serialize) {
        self.out.push(Action::AdminReply { job, json: document(answer) });
    }
}

fn document(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer).expect("strings and numbers always serialise").into()
}

/// The client's name in minted tokens.
pub(super) const CLIENT: &str = "mcp-local-tunnel-token";
/// What a token's user is called does not tell whether an entry for e-mails or groups is theirs.
const UNKNOWN_TO_ALLOW: &str = "auth.allow does not name this user themselves: whether it lets them in is not known, and \
the token works until it runs out or is revoked";
/// Ten years: a machine in a cellar.
const MAX_LIFETIME: Duration = Duration::from_secs(3_660 * 86_400);
/// Characters of a label.
const MAX_LABEL: usize = 100;

#[derive(Serialize)]
struct Minted<'a> {
    ok: bool,
    id: &'a str,
    token: &'a str,
    user: &'a str,
    role: Role,
    scope: &'a Scopes,
    /// Seconds since 1970.
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

#[derive(Serialize)]
struct List<'a> {
    ok: bool,
    tokens: Vec<Listed<'a>>,
}

/// A minted token in the list. Times are seconds since 1970.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    user: &'a str,
    role: Role,
    scope: &'a Scopes,
    label: &'a str,
    created: u64,
    /// When it was taken last, to the hour or so.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<u64>,
}

impl<'a> Listed<'a> {
    fn new(id: &'a FamilyId, family: &'a Family) -> Option<Self> {
        let Kind::Minted { label } = &family.kind else { return None };
        Some(Self {
            id: id.as_str(),
            user: &family.user,
            role: family.role,
            scope: &family.scopes,
            label,
            created: family.created / 1_000,
            used: family.used().map(UnixTime::as_secs),
            expires: family.expires / 1_000,
            revoked: family.revoked.map(|at| at / 1_000),
        })
    }
}

#[derive(Serialize)]
struct GrantsListed<'a> {
    ok: bool,
    grants: Vec<Granted<'a>>,
}

/// A grant in the list. Times are seconds since 1970; what is not known is left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Granted<'a> {
    id: &'a str,
    user: &'a str,
    role: Role,
    scope: &'a Scopes,
    #[serde(skip_serializing_if = "str::is_empty")]
    device: &'a str,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    client: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    redirect: &'a str,
    /// The operator's note on a minted token.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    connected: bool,
    /// The configuration does not let its person in at present.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    shut_out: bool,
    granted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    expires: u64,
}

impl<'a> Granted<'a> {
    fn new(id: &'a FamilyId, family: &'a Family, connected: bool) -> Self {
        Self {
            id: id.as_str(),
            user: &family.user,
            role: family.role,
            scope: &family.scopes,
            device: &family.about.device,
            client: &family.about.client,
            client_id: &family.client,
            redirect: &family.about.redirect,
            label: match &family.kind {
                Kind::Minted { label } => Some(label),
                Kind::SignIn { .. } => None,
            },
            connected,
            shut_out: false,
            granted: family.created / 1_000,
            used: family.used().map(UnixTime::as_secs),
            expires: family.ends().as_secs(),
        }
    }
}

#[derive(Serialize)]
struct Revoked {
    ok: bool,
    revoked: usize,
}

#[derive(Serialize)]
struct Done {
    ok: bool,
}

#[derive(Serialize)]
struct Refused<'a> {
    ok: bool,
    error: &'a str,
}
