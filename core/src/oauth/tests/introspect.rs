//! What a token stands for, and who is told.

use super::*;

const AGENT: &str = "mcp-local-tunnel-agent";

impl Relay {
    fn introspect(&mut self, client: &str, token: &str) -> Value {
        let reply = self.post("/introspect", &[("client_id", client), ("token", token)]);
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
        body(&reply)
    }

    fn agent(&mut self) -> Tokens {
        let code = self.code(AGENT, LOOPBACK);
        Tokens::new(AGENT.into(), &self.redeem(AGENT, LOOPBACK, &code))
    }

    fn is_active(&mut self, token: &str) -> bool {
        let told = self.introspect(AGENT, token);
        let active = told["active"].as_bool().expect("a bool");
        assert!(active || told == json!({"active": false}), "{told}");
        active
    }
}

#[test]
fn agent_learns_who_it_is_for_and_how_long() {
    let mut relay = Relay::new();
    let tokens = relay.agent();
    relay.pass(Duration::from_secs(60));
    let told = relay.introspect(AGENT, &tokens.refresh);
    assert_eq!((told["active"].as_bool(), told["username"].as_str()), (Some(true), Some("local:ann")));
    assert_eq!((told["iss"].as_str(), told["aud"].as_str()), (Some(PUBLIC), Some("https://relay.example/ws")));
    assert_eq!((told["iat"].as_u64(), told["exp"].as_u64()), (Some(START), Some(START + 30 * 24 * 3600)));
    let told = relay.introspect(AGENT, &tokens.access);
    assert_eq!((told["iat"].as_u64(), told["exp"].as_u64()), (Some(START), Some(START + 3600)));
}

#[test]
fn token_that_works_no_more_says_nothing() {
    let mut relay = Relay::new();
    let tokens = relay.agent();
    let next = Tokens::new(AGENT.into(), &relay.refresh(AGENT, &tokens.refresh));
    assert!(relay.is_active(&tokens.refresh), "within its grace");
    relay.pass(Duration::from_secs(121));
    assert!(!relay.is_active(&tokens.refresh));
    assert!(relay.is_active(&next.refresh), "to ask is no reuse");
    relay.pass(Duration::from_secs(3600));
    assert!(!relay.is_active(&next.access));
    relay.post("/revoke", &[("client_id", AGENT), ("token", &next.refresh)]);
    assert!(!relay.is_active(&next.refresh));
    assert!(!relay.is_active("mlt_r_x"));
}

#[test]
fn clients_tokens_are_nobodys_to_ask_about() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    assert!(!relay.is_active(&tokens.refresh) && !relay.is_active(&tokens.access));
    let theirs = [("client_id", tokens.client.as_str()), ("token", &tokens.access)];
    assert_refused(&relay.post("/introspect", &theirs), 400, "unauthorized_client");
    assert_refused(&relay.post("/introspect", &[("token", &tokens.access)]), 401, "invalid_client");
    assert_refused(&relay.post("/introspect", &[("client_id", AGENT)]), 400, "invalid_request");
}

#[test]
fn guessing_is_slow() {
    let mut relay = Relay::new();
    let tokens = relay.agent();
    for _ in 0..100 {
        assert!(!relay.is_active("guess"));
    }
    assert_refused(&relay.post("/introspect", &[("client_id", AGENT), ("token", "guess")]), 429, "slow_down");
    assert!(relay.is_active(&tokens.refresh), "who has a token is not put off");
}
