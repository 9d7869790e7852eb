//! The token file of agents before 2.0: which one is a relay's, and what of it is taken over. Once: a sign-in that was
//! ended here must not come back from there.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use super::contract::CLIENT_ID;
use super::tokens::Tokens;
use crate::http::endpoint;
use crate::secret::Secret;

/// The file, as agents before 2.0 wrote it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    client_id: Cow<'a, str>,
    access_token: Cow<'a, str>,
    #[serde(default)]
    refresh_token: Option<Cow<'a, str>>,
    /// Milliseconds since 1970.
    expires_at: u64,
}

/// The name of the old file of `relay` (its URL) in the configuration directory. `None`: nothing is taken over for it.
/// The old name tells hosts apart and not schemes, so its tokens could have come over https and go out in the clear.
#[must_use]
pub fn file_name(relay: &str) -> Option<String> {
    let url = endpoint::secure(relay)?;
    let host = url.host_str()?;
    let host = url.port().map_or_else(|| host.into(), |port| format!("{host}:{port}"));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let safe: String = host.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    Some(format!("tokens-{safe}.json"))
}

/// What this program's own token file of `relay` is to hold, made of an old file's content. `None`: it is of no use.
#[must_use]
pub fn adopt(old: &[u8], relay: &str) -> Option<Secret> {
    let file: File<'_> = serde_json::from_slice(old).ok().filter(|file: &File<'_>| file.client_id == CLIENT_ID)?;
    let tokens = Tokens::new(&file.access_token, file.refresh_token.as_deref(), file.expires_at)?;
    Some(tokens.to_file(relay))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    const RELAY: &str = "https://relay.example";

    #[test]
    fn old_file_is_named_after_the_host() {
        for (relay, expected) in [
            ("https://relay.example", Some("tokens-relay.example.json")),
            ("https://Relay-1.example:8443", Some("tokens-relay-1.example_8443.json")),
            ("https://relay.example:443", Some("tokens-relay.example.json")),
            ("http://localhost:3000", Some("tokens-localhost_3000.json")),
            ("http://[::1]:3000", Some("tokens-___1__3000.json")),
            ("http://relay.example", None),
            ("no URL", None),
        ] {
            assert_eq!(file_name(relay).as_deref(), expected, "{relay}");
        }
    }

    #[test]
    fn old_tokens_become_ours() {
        let old = json!({"accessToken": "a", "refreshToken": "r", "expiresAt": 5, "clientId": CLIENT_ID, "more": 1});
        let ours = adopt(old.to_string().as_bytes(), RELAY).expect("of use");
        assert!(Tokens::from_file(ours.expose().as_bytes(), RELAY) == Tokens::new("a", Some("r"), 5));
        let short = json!({"accessToken": "a", "expiresAt": 5, "clientId": CLIENT_ID});
        let ours = adopt(short.to_string().as_bytes(), RELAY).expect("of use");
        assert!(Tokens::from_file(ours.expose().as_bytes(), RELAY) == Tokens::new("a", None, 5));
    }

    #[test]
    fn what_is_no_old_file_is_of_no_use() {
        for old in [
            json!({"accessToken": "a", "expiresAt": 5, "clientId": "another"}),
            json!({"accessToken": "a b", "expiresAt": 5, "clientId": CLIENT_ID}),
            json!({"accessToken": "a", "expiresAt": "soon", "clientId": CLIENT_ID}),
            json!({"expiresAt": 5, "clientId": CLIENT_ID}),
            json!([]),
        ] {
            assert!(adopt(old.to_string().as_bytes(), RELAY).is_none(), "{old}");
        }
    }

    proptest! {
        #[test]
        fn any_name_stays_in_its_directory(relay in "https://[ -~]{0,40}", content: Vec<u8>) {
            let name = file_name(&relay).unwrap_or_default();
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "{}", name);
            prop_assert!(adopt(&content, &relay).is_none());
        }
    }
}
