//! What a relay's audit says of sign-ins, grants, refusals, revocations and the operator's commands.
//!
//! Whatever anybody can cause without having signed in has a budget: the audit is rotated, and nobody may push out of it
//! what others did.

use alloc::string::{String, ToString};
use core::net::IpAddr;

use serde::Serialize;

use super::Role;
use super::ending::Asker;
use super::families::{Family, Kind};
use super::grants::{Action, AdminCommand, Grants};
use super::login::Errand;
use super::rates::{self, Whose};
use super::scopes::Scopes;
use super::store::Answer;
use crate::audit;
use crate::id::{ClientId, FamilyId, UserId};
use crate::time::Now;

/// Who a line is about, as far as that is known.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    /// In the relay's log the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The id that `grants list` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    /// The client as the relay knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scopes>,
    /// How it came about, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    /// The operator's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// Whom a refusal is about, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Whom<'a> {
    /// The client that asks.
    pub(super) client: Option<&'a str>,
    /// The grant that it asks with.
    pub(super) grant: Option<&'a FamilyId>,
    /// Where the request came from.
    pub(super) address: Option<IpAddr>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    note: &'a Note,
    /// Refusals before this one for which there was no room.
    #[serde(skip_serializing_if = "is_none")]
    untold: u64,
}

/// Lines.
impl Grants {
    /// A person signed in.
    pub(super) fn note_sign_in(&mut self, user: &UserId, errand: &Errand, peer: IpAddr, now: Now) {
        let by = match self.party {
            Some(_) => "provider",
            None => "password",
        };
        let (actor, role) = match errand {
            Errand::Client(request) => (Some(request.client.clone()), Some(request.role)),
            Errand::Device(_) => (None, Some(Role::Agent)),
            Errand::Account(_) => (None, None),
        };
        let user = Some(self.sealer.pseudonym(user));
        let address = Some(told(peer));
        self.note("sign-in", Note { user, actor, role, by: Some(by), address, ..Note::default() }, now);
    }

    /// A person did not get in. `user` is whose password it was not, if there is such a person.
    pub(super) fn note_no_sign_in(&mut self, user: Option<&UserId>, reason: &str, address: Option<IpAddr>, now: Now) {
        let note = Note {
            user: user.map(|user| self.sealer.pseudonym(user)),
            reason: Some(reason.to_string()),
            address: address.map(told),
            ..Note::default()
        };
        self.note_of_anybody("sign-in-failed", note, now);
    }

    /// Something was refused.
    pub(super) fn note_refusal(&mut self, reason: &str, whom: Whom<'_>, now: Now) {
        let Whom { client, grant, address } = whom;
        let family = grant.and_then(|id| Some(self.about(id, self.families.known.get(id)?)));
        // A family that is no more has its id alone. What a family's client calls itself is not who asks.
        let known = family.unwrap_or_else(|| Note { grant: grant.map(ToString::to_string), ..Note::default() });
        let note = Note {
            reason: Some(reason.to_string()),
            actor: client.map(ToString::to_string).or(known.actor),
            client: None,
            address: address.map(told),
            ..known
        };
        self.note_of_anybody("refusal", note, now);
    }

    /// Tokens were issued; to whoever asked from `peer`, if not to the operator.
    pub(super) fn note_grant(&mut self, id: &FamilyId, family: &Family, peer: Option<IpAddr>, now: Now) {
        let event = match family.kind {
            Kind::SignIn { generation: 0, siblings: 0, .. } => "grant",
            Kind::SignIn { .. } => "refresh",
            Kind::Minted { .. } => "grant",
        };
        let by = match family.kind {
            Kind::SignIn { .. } => None,
            Kind::Minted { .. } => Some("operator"),
        };
        let (scope, address) = (Some(family.scopes.clone()), peer.map(told));
        let note = Note { scope, by, address, ..self.about(id, family) };
        self.note(event, note, now);
    }

    /// A family was revoked for whoever waits for `answer`.
    pub(super) fn note_revocation(&mut self, id: &FamilyId, family: &Family, answer: &Answer, now: Now) {
        let by = match answer {
            Answer::Nobody => "relay",
            Answer::Client(_) => "client",
            Answer::Admin(_) => "operator",
            Answer::Several(group) => match self.asker(*group) {
                Some(Asker::Operator(_)) => "operator",
                Some(Asker::Person(_)) | None => "person",
            },
        };
        let note = Note { by: Some(by), ..self.about(id, family) };
        self.note("revocation", note, now);
    }

    /// The operator ordered something. What comes of it has lines of its own.
    pub(super) fn note_command(&mut self, command: &AdminCommand, now: Now) {
        let (word, user, grant) = match command {
            AdminCommand::TokenCreate { user, .. } => ("token-create", Some(user), None),
            AdminCommand::TokenList => ("token-list", None, None),
            AdminCommand::TokenRevoke { id } => ("token-revoke", None, Some(id)),
            AdminCommand::KeysList => ("keys-list", None, None),
            AdminCommand::KeysRotate => ("keys-rotate", None, None),
            AdminCommand::KeysRevokeAll => ("keys-revoke-all", None, None),
            AdminCommand::GrantList { user } => ("grants-list", user.as_ref(), None),
            AdminCommand::GrantRevoke { id } => ("grants-revoke", None, Some(id)),
            AdminCommand::GrantRevokeAll { user } => ("grants-revoke-all", Some(user), None),
        };
        let user = user.and_then(|name| self.user_named(name).ok()).map(|user| self.sealer.pseudonym(&user));
        let grant = grant.map(|id| super::text::clean(id, MAX_ID));
        self.note("operator", Note { command: Some(word), user, grant, ..Note::default() }, now);
    }

    /// Tells of addresses that asked too much since the last input.
    pub(super) fn note_rates(&mut self, now: Now) {
        if let Some((kind, whose)) = self.rates.exceeded() {
            let address = match whose {
                Whose::Address(address) => Some(address),
                Whose::Account(_) | Whose::Everybody => None,
            };
            self.note_refusal(kind.word(), Whom { address, ..Whom::default() }, now);
        }
    }

    fn about(&self, id: &FamilyId, family: &Family) -> Note {
        let client = Some(family.about.client.clone()).filter(|client| !client.is_empty());
        Note {
            user: Some(self.sealer.pseudonym(&UserId::new(&family.user))),
            grant: Some(id.as_str().to_string()),
            actor: Some(super::actor(&ClientId::new(&family.client), id).to_string()),
            client,
            role: Some(family.role),
            ..Note::default()
        }
    }

    /// A line that anybody can cause.
    fn note_of_anybody(&mut self, event: &'static str, note: Note, now: Now) {
        if !self.settings.audit {
            return;
        }
        if self.rates.take(rates::Kind::Lines, Whose::Everybody, now.instant) {
            let untold = core::mem::take(&mut self.untold);
            self.write_note(event, &note, untold, now);
        } else {
            self.untold = self.untold.saturating_add(1);
        }
    }

    fn note(&mut self, event: &'static str, note: Note, now: Now) {
        if self.settings.audit {
            self.write_note(event, &note, 0, now);
        }
    }

    fn write_note(&mut self, event: &'static str, note: &Note, untold: u64, now: Now) {
        let line = audit::line(&Line { time: audit::time(now), event, note, untold });
        self.out.push(Action::Audit(line));
    }
}

fn told(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_none(untold: &u64) -> bool {
    *untold == 0
}

/// Characters of an id that an operator typed: ours have 32.
const MAX_ID: usize = 64;
