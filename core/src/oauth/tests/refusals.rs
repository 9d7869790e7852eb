//! Access tokens that the gate refused.

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};

use super::*;
use crate::oauth::refusals::RefusedToken;

impl Relay {
    /// Brings a token that was refused, and the answer to it.
    fn token_refused(&mut self, error: TokenError, family: Option<&FamilyId>, peer: &str) -> Reply {
        self.next_exchange += 1;
        let exchange = ExchangeId(self.next_exchange);
        let reply = Reply::json(StatusCode::UNAUTHORIZED, "{}")
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            .with(http::header::VARY, HeaderValue::from_static("origin"));
        let refused = RefusedToken { error, family: family.cloned(), peer: peer.parse().expect("an address"), reply };
        self.event(Event::TokenRefused { exchange, refused });
        self.answer(exchange)
    }

    fn refusals(&mut self) -> Vec<Value> {
        core::mem::take(&mut self.audit)
    }
}

#[test]
fn refused_token_has_a_line_with_whose_it_is() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let principal = relay.open(&tokens.access, "/mcp").expect("good");
    let grant_line = relay.refusals().pop().expect("the grant's");
    relay.token_refused(TokenError::Expired, Some(&principal.family), "192.0.2.7");
    relay.token_refused(TokenError::Invalid, None, "192.0.2.8");
    let lines = relay.refusals();
    assert_eq!(
        lines,
        [
            json!({"time": lines[0]["time"], "event": "refusal", "reason": "token-expired", "user": grant_line["user"],
                "grant": principal.family.as_str(), "actor": principal.client.as_str(), "role": "client",
                "address": "192.0.2.7"}),
            json!({"time": lines[1]["time"], "event": "refusal", "reason": "token-invalid", "address": "192.0.2.8"}),
        ]
    );
}

#[test]
fn address_has_ten_lines_a_minute_and_one_that_counts_the_rest() {
    let mut relay = Relay::new();
    for _ in 0..95 {
        relay.token_refused(TokenError::Invalid, None, "192.0.2.7");
    }
    relay.token_refused(TokenError::Invalid, None, "192.0.2.8");
    assert_eq!(relay.refusals().len(), 11, "ten of the one address, one of the other");
    relay.pass(Duration::from_secs(61));
    let lines = relay.refusals();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (lines[0]["reason"].as_str(), lines[0]["address"].as_str(), lines[0]["untold"].as_u64()),
        (Some("more-refused-tokens"), Some("192.0.2.7"), Some(85))
    );
    relay.token_refused(TokenError::Invalid, None, "192.0.2.7");
    assert_eq!(relay.refusals().len(), 1, "the next minute has its own");
}

#[test]
fn lines_about_very_many_addresses_are_bounded_and_counted() {
    let mut relay = Relay::new();
    for at in 0..10_000_u32 {
        relay.token_refused(TokenError::Revoked, None, &core::net::Ipv4Addr::from(at).to_string());
    }
    assert_eq!(relay.refusals().len(), 600);
    relay.pass(Duration::from_secs(61));
    relay.token_refused(TokenError::Revoked, None, "192.0.2.7");
    let untold: u64 = relay.refusals().iter().filter_map(|line| line["untold"].as_u64()).sum();
    assert_eq!(untold, 9_400);
}

#[test]
fn address_with_too_many_is_told_to_wait_and_others_are_not() {
    let mut relay = Relay::new();
    let status = |relay: &mut Relay, error, peer| relay.token_refused(error, None, peer).status.as_u16();
    for _ in 0..100 {
        assert_eq!(status(&mut relay, TokenError::Invalid, "192.0.2.7"), 401);
    }
    let reply = relay.token_refused(TokenError::Revoked, None, "192.0.2.7");
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body(&reply)["error"], "slow_down");
    assert!(reply.headers.contains_key(RETRY_AFTER) && !reply.headers.contains_key(WWW_AUTHENTICATE));
    assert_eq!(reply.headers["vary"], "origin", "what pages of other origins need stays");
    assert_eq!(status(&mut relay, TokenError::Expired, "192.0.2.7"), 401, "who only has to refresh is told so");
    assert_eq!(status(&mut relay, TokenError::Invalid, "192.0.2.8"), 401);
    relay.pass(Duration::from_secs(1));
    assert_eq!(status(&mut relay, TokenError::Invalid, "192.0.2.7"), 401);
    assert_eq!(status(&mut relay, TokenError::Invalid, "192.0.2.7"), 429);
    let told = relay.refusals();
    assert_eq!(told.iter().filter(|line| line["reason"] == "too-many-refused-tokens").count(), 1);
}
