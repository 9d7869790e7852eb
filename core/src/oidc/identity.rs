//! From verified claims to a person who may, or may not, use the relay.

use alloc::format;
use alloc::string::{String, ToString};

use serde_json::{Map, Value};

use super::allow::{Verdict, Vouched, judge};
use super::{Identity, LoginError, Untold};
use crate::config::Oidc;
use crate::id::UserId;
use crate::limits;

/// What the provider says of a person: the claims of a verified ID token and, if it was asked, of its userinfo
/// endpoint.
pub(super) struct Claims {
    subject: String,
    token: Map<String, Value>,
    userinfo: Option<Map<String, Value>>,
}

impl Claims {
    /// The claims of an ID token that was verified; `subject` is its `sub`.
    pub(super) fn new(subject: String, token: Map<String, Value>) -> Self {
        Self { subject, token, userinfo: None }
    }

    /// Adds the answer of the userinfo endpoint. It must be about the same person (OpenID Connect Core section 5.3.2).
    pub(super) fn add_userinfo(&mut self, body: &[u8]) -> Result<(), LoginError> {
        let unusable = |cause: &str| LoginError::Userinfo { cause: cause.to_string() };
        let map: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| unusable("its answer cannot be read"))?;
        if map.get("sub").and_then(Value::as_str) != Some(&self.subject) {
            return Err(unusable("its answer is about someone else (sub)"));
        }
        self.userinfo = Some(map);
        Ok(())
    }

    /// Whether the ID token alone leaves open who the person is, or whether they may in. Whom it lets in needs no more:
    /// an endpoint that fails must not keep them out.
    pub(super) fn need_userinfo(&self, config: &Oidc) -> bool {
        let has = |claim: &str| self.token.contains_key(claim);
        self.identify(config).is_err()
            && (!has(&config.user_claim)
                || config.needs_email() && !(has("email") && has("email_verified"))
                || config.needs_groups() && !has("groups"))
    }

    /// The person, if `auth.userClaim` is there and `auth.allow` lets them in.
    pub(super) fn identify(&self, config: &Oidc) -> Result<Identity, LoginError> {
        let email = self.verified_email();
        let claim = self.user_claim(config, email.as_deref())?;
        let user = UserId::from(format!("{}#{claim}", config.issuer));
        let groups = self.get("groups").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let vouched = Vouched::new(config, &self.subject, email.as_deref(), groups);
        match judge(config, &claim, Some(&vouched)) {
            Verdict::Allowed => {
                let name = self.text("name").map(ToString::to_string);
                Ok(Identity { user, claim, name, vouched })
            }
            Verdict::Unknown | Verdict::Excluded => {
                let untold = Untold {
                    email: config.needs_email() && email.is_none(),
                    groups: config.needs_groups() && self.get("groups").is_none(),
                };
                Err(LoginError::NotAllowed { user, untold })
            }
        }
    }

    fn user_claim(&self, config: &Oidc, verified_email: Option<&str>) -> Result<String, LoginError> {
        let value = match (config.user_claim.as_str(), verified_email) {
            ("sub", _) => self.subject.clone(),
            ("email", Some(email)) => email.to_string(),
            ("email", None) if self.get("email").is_some() => return Err(LoginError::UnverifiedEmail),
            (claim, _) => match self.get(claim) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => return Err(LoginError::MissingClaim { claim: claim.to_string() }),
            },
        };
        let usable = !value.is_empty() && value.len() <= limits::MAX_CLAIM && !value.chars().any(char::is_control);
        if usable { Ok(value) } else { Err(LoginError::Token { cause: "the user claim is empty or too long" }) }
    }

    /// The e-mail address, if whoever states it also states that it was verified. Address and verification are taken
    /// from one place: a verification of one address must not vouch for another.
    fn verified_email(&self) -> Option<String> {
        let places = [Some(&self.token), self.userinfo.as_ref()];
        places.into_iter().flatten().find_map(|claims| {
            let verified = match claims.get("email_verified")? {
                Value::Bool(yes) => *yes,
                // As some providers write it.
                Value::String(text) => text == "true",
                _ => false,
            };
            let email = claims.get("email")?.as_str()?;
            (verified && email.contains('@')).then(|| email.to_string())
        })
    }

    fn text(&self, claim: &str) -> Option<&str> {
        let text = self.get(claim)?.as_str()?;
        (text.len() <= limits::MAX_CLAIM).then_some(text)
    }

    /// A claim of the ID token or, if it has none of that name, of the userinfo endpoint.
    fn get(&self, claim: &str) -> Option<&Value> {
        self.token.get(claim).or_else(|| self.userinfo.as_ref()?.get(claim))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use std::vec;

    use super::*;
    use crate::oidc::testing::config;

    fn claims(token: Value) -> Claims {
        let Value::Object(token) = token else { panic!("claims are an object") };
        Claims::new("7".into(), token)
    }

    #[test]
    fn user_is_issuer_and_claim() {
        let claims = claims(json!({"sub": "7", "preferred_username": "ann", "uid": 12, "name": "Ann"}));
        let user = |claim| claims.identify(&config(claim, &[])).map(|person| person.user.to_string());
        assert_eq!(user("sub").as_deref(), Ok("https://idp.example#7"));
        assert_eq!(user("preferred_username").as_deref(), Ok("https://idp.example#ann"));
        assert_eq!(user("uid").as_deref(), Ok("https://idp.example#12"));
        assert_eq!(user("upn"), Err(LoginError::MissingClaim { claim: "upn".into() }));
    }

    #[test]
    fn claim_that_names_nobody_is_refused() {
        for bad in [json!(""), json!("a\nb"), json!("x".repeat(256))] {
            let refused = claims(json!({"uid": bad})).identify(&config("uid", &[]));
            assert!(matches!(refused, Err(LoginError::Token { .. })), "{refused:?}");
        }
        for bad in [json!(null), json!(["a"]), json!({})] {
            let refused = claims(json!({"uid": bad})).identify(&config("uid", &[]));
            assert!(matches!(refused, Err(LoginError::MissingClaim { .. })), "{refused:?}");
        }
        assert!(claims(json!({"uid": "x".repeat(255)})).identify(&config("uid", &[])).is_ok());
    }

    #[test]
    fn email_counts_only_when_verified() {
        let table = [
            (json!({"email": "a@b.example", "email_verified": true}), Ok(())),
            (json!({"email": "a@b.example", "email_verified": "true"}), Ok(())),
            (json!({"email": "a@b.example", "email_verified": false}), Err(LoginError::UnverifiedEmail)),
            (json!({"email": "a@b.example", "email_verified": 1}), Err(LoginError::UnverifiedEmail)),
            (json!({"email": "a@b.example"}), Err(LoginError::UnverifiedEmail)),
            (json!({}), Err(LoginError::MissingClaim { claim: "email".into() })),
        ];
        for (token, expected) in table {
            let found = claims(token.clone()).identify(&config("email", &[])).map(|_| ());
            assert_eq!(found, expected, "{token}");
        }
    }

    #[test]
    fn verification_of_one_address_does_not_vouch_for_another() {
        let mut claims = claims(json!({"email": "boss@b.example"}));
        claims.add_userinfo(br#"{"sub":"7","email_verified":true}"#).expect("the same person");
        assert_eq!(claims.identify(&config("email", &[])).map(|_| ()), Err(LoginError::UnverifiedEmail));
    }

    #[test]
    fn allow_list_decides_by_subject_email_domain_and_group() {
        let token = json!({"email": "ann@corp.example", "email_verified": true, "groups": ["dev"], "uid": "a1"});
        let unverified = json!({"email": "ann@corp.example", "groups": "dev", "uid": "a1"});
        let table = [
            ("7", true, true),
            ("a1", true, true),
            ("ANN@corp.example", true, false),
            ("@corp.example", true, false),
            ("@CORP.example", true, false),
            ("group:dev", true, false),
            ("8", false, false),
            ("@example", false, false),
            ("@p.example", false, false),
            ("corp.example", false, false),
            ("group:ops", false, false),
            ("dev", false, false),
            ("", false, false),
        ];
        for (entry, when_verified, otherwise) in table {
            let config = config("uid", &[entry]);
            assert_eq!(claims(token.clone()).identify(&config).is_ok(), when_verified, "{entry}");
            assert_eq!(claims(unverified.clone()).identify(&config).is_ok(), otherwise, "{entry}");
        }
    }

    #[test]
    fn name_that_looks_like_an_address_is_no_mailbox() {
        let chosen =
            json!({"preferred_username": "boss@corp.example", "email": "boss@corp.example", "email_verified": false});
        let config = config("preferred_username", &["boss@corp.example"]);
        assert_eq!(
            claims(chosen).identify(&config).map(|_| ()),
            Err(LoginError::NotAllowed {
                user: "https://idp.example#boss@corp.example".into(),
                untold: Untold { email: true, groups: false },
            })
        );
        let verified = json!({"preferred_username": "x", "email": "boss@corp.example", "email_verified": true});
        assert!(claims(verified).identify(&config).is_ok());
    }

    #[test]
    fn userinfo_is_asked_only_when_the_token_leaves_something_open() {
        let full = json!({"sub": "7", "email": "a@b.example", "email_verified": true, "groups": []});
        let table = vec![
            (json!({"sub": "7"}), "sub", vec![], false),
            (json!({"sub": "7"}), "upn", vec![], true),
            (json!({"sub": "7"}), "email", vec![], true),
            (json!({"sub": "7"}), "sub", vec!["8"], false),
            (json!({"sub": "7"}), "sub", vec!["@b.example"], true),
            (json!({"sub": "7"}), "sub", vec!["group:dev"], true),
            (full.clone(), "email", vec!["@b.example", "group:dev"], false),
            (full.clone(), "sub", vec!["@c.example", "group:dev"], false),
            (json!({"sub": "7"}), "sub", vec!["@b.example", "group:dev", "7"], false),
            (json!({"sub": "7"}), "sub", vec!["group:a@b.example"], true),
            (json!({"sub": "7", "groups": []}), "sub", vec!["group:a@b.example"], false),
        ];
        for (token, claim, allow, expected) in table {
            assert_eq!(
                claims(token.clone()).need_userinfo(&config(claim, &allow)),
                expected,
                "{token} {claim} {allow:?}"
            );
        }
    }

    #[test]
    fn who_is_not_let_in_hears_what_the_provider_did_not_tell() {
        let table = [
            (json!({}), vec!["@b.example"], "told no verified e-mail address"),
            (json!({"email": "a@b.example"}), vec!["@b.example"], "told no verified e-mail address"),
            (json!({}), vec!["group:dev"], "told no groups"),
            (json!({}), vec!["a@b.example", "group:dev"], "told neither a verified e-mail address nor groups"),
        ];
        for (token, allow, words) in table {
            let error = claims(token).identify(&config("sub", &allow)).expect_err("not on the list").to_string();
            assert!(error.contains(words), "{error}");
        }
        let told = json!({"email": "a@b.example", "email_verified": true, "groups": ["staff"]});
        for allow in [vec!["8"], vec!["@c.example", "group:dev"]] {
            let error = claims(told.clone()).identify(&config("sub", &allow)).expect_err("not on the list").to_string();
            assert!(error.ends_with("(see `auth.allow`)"), "{error}");
        }
    }

    #[test]
    fn userinfo_about_someone_else_is_refused() {
        for body in [&br#"{"sub":"8"}"#[..], b"{}", b"[]", b"{", b""] {
            assert!(claims(json!({})).add_userinfo(body).is_err());
        }
    }
}
