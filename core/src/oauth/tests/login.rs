//! Both logins: here, and at a provider.

use super::*;
use crate::http::fetch::FetchError;

/// The login page that ann gets to.
fn login_page(relay: &mut Relay, browser: &mut Browser) -> Reply {
    let client = relay.register(WEB);
    login_page_for(relay, browser, &authorization(&client, WEB))
}

fn login_page_for(relay: &mut Relay, browser: &mut Browser, link: &str) -> Reply {
    let page = browser.get(relay, link);
    let reply = browser.agree(relay, &page);
    assert!(location(&reply).starts_with("https://relay.example/login?flow="));
    browser.get(relay, &location(&reply))
}

/// The page of a sign-in that needs no registration.
fn agents_login_page(relay: &mut Relay, browser: &mut Browser) -> Reply {
    login_page_for(relay, browser, &authorization("mcp-local-tunnel-agent", LOOPBACK))
}

#[test]
fn password_leads_to_tokens_for_mcp() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let client = relay.register(WEB);
    let answer = browser.sign_in(&mut relay, &authorization(&client, WEB));
    assert!(location(&answer).starts_with(WEB));
    let answer = query(&location(&answer));
    assert_eq!((answer["state"].as_str(), answer["iss"].as_str()), ("st&te", PUBLIC));
    assert!(!browser.cookies.keys().any(|name| name.contains("login")), "the state cookie is used once");

    let reply = relay.redeem(&client, WEB, &answer["code"]);
    assert_eq!(body(&reply)["expires_in"], 3_600);
    assert_eq!(reply.headers["cache-control"], "no-store");
    let tokens = Tokens::new(client, &reply);
    let principal = relay.open(&tokens.access, "/mcp/files").unwrap();
    assert_eq!((principal.user.as_str(), principal.role), ("local:ann", Role::Client));
    assert_eq!(principal.audience, "https://relay.example/mcp");
    assert_eq!(relay.open(&tokens.access, "/ws"), Err(TokenError::Audience));
    assert!(relay.others.is_empty(), "{:?}", relay.others);
    assert_eq!(relay.store.len(), 1);
}

#[test]
fn agent_gets_tokens_for_the_tunnel_without_registration() {
    let mut relay = Relay::new();
    let agent = "mcp-local-tunnel-agent";
    for redirect in ["http://127.0.0.1:4711/callback", "http://localhost:8801/callback", "http://[::1]:5/callback"] {
        let code = relay.code(agent, redirect);
        let tokens = Tokens::new(agent.into(), &relay.redeem(agent, redirect, &code));
        assert_eq!(relay.open(&tokens.access, "/ws").unwrap().role, Role::Agent);
        assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Audience));
    }
}

#[test]
fn agent_before_2_0_forgets_its_port_and_gets_its_tokens() {
    let mut relay = Relay::new();
    let (agent, forgotten) = ("mcp-local-tunnel-agent", "http://localhost:0/callback");
    let code = relay.code(agent, "http://localhost:8801/callback");
    assert_eq!(relay.redeem(agent, "http://localhost:8802/callback", &code).status, StatusCode::BAD_REQUEST);
    let tokens = Tokens::new(agent.into(), &relay.redeem(agent, forgotten, &code));
    assert_eq!(relay.open(&tokens.access, "/ws").unwrap().role, Role::Agent);

    let client = relay.register("http://localhost/callback");
    let code = relay.code(&client, "http://localhost:8801/callback");
    assert_eq!(relay.redeem(&client, forgotten, &code).status, StatusCode::BAD_REQUEST, "no other client does so");
}

#[test]
fn wrong_password_and_unknown_user_look_alike() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let page = login_page(&mut relay, &mut browser);
    let wrong = browser.post(&mut relay, "/login", &fields(&page, &[("user", "ann"), ("password", "nope")]));
    let unknown =
        browser.post(&mut relay, "/login", &fields(&page, &[("user", "eve"), ("password", "ann's password")]));
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert_eq!((wrong.status, &wrong.body), (unknown.status, &unknown.body));
    assert_eq!(relay.verified.len(), 2, "an unknown user's password is checked too");
    assert!(html(&wrong).contains("is wrong"));

    let again = browser.post(&mut relay, "/login", &fields(&wrong, &[("user", "bob"), ("password", "bob's password")]));
    assert!(location(&again).starts_with(WEB));
}

#[test]
fn guessing_passwords_is_slow() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let page = login_page(&mut relay, &mut browser);
    let form = fields(&page, &[("user", "ann"), ("password", "nope")]);
    let tried = (0..30).filter(|_| browser.post(&mut relay, "/login", &form).status == StatusCode::FORBIDDEN).count();
    assert_eq!(tried, 10);
    assert_eq!(relay.verified.len(), 10);
    relay.pass(Duration::from_secs(6));
    assert_eq!(browser.post(&mut relay, "/login", &form).status, StatusCode::FORBIDDEN);
    assert_eq!(browser.post(&mut relay, "/login", &form).status, StatusCode::TOO_MANY_REQUESTS);
}

/// How many guesses are checked that come from an address each.
fn guess_from_everywhere(relay: &mut Relay, guesses: u8, name: impl Fn(u8) -> String) -> usize {
    let before = relay.verified.len();
    for host in 0..guesses {
        let mut browser = Browser { peer: format!("198.51.100.{host}"), ..Browser::default() };
        let page = agents_login_page(relay, &mut browser);
        browser.post(relay, "/login", &fields(&page, &[("user", &name(host)), ("password", "a guess")]));
    }
    relay.verified.len() - before
}

#[test]
fn guessing_one_password_is_slow_from_many_addresses() {
    for name in ["ann", "eve"] {
        let mut relay = Relay::new();
        let guess = |relay: &mut Relay, guesses| guess_from_everywhere(relay, guesses, |_| name.into());
        assert_eq!(guess(&mut relay, 50), 30, "{name}, who may exist or not");
        relay.pass(Duration::from_secs(10));
        assert_eq!(guess(&mut relay, 50), 1, "{name}");
    }
}

#[test]
fn guessing_many_passwords_is_slow_from_many_addresses() {
    let mut relay = Relay::new();
    let guess = |relay: &mut Relay| guess_from_everywhere(relay, 150, |host| format!("user{host}"));
    assert_eq!(guess(&mut relay), 100);
    relay.pass(Duration::from_secs(1));
    assert_eq!(guess(&mut relay), 1);
}

#[test]
fn guesses_of_strangers_do_not_lock_a_person_out_where_they_signed_in_lately() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    relay.code(&client, WEB);
    guess_from_everywhere(&mut relay, 50, |_| "ann".into());
    guess_from_everywhere(&mut relay, 150, |host| format!("user{host}"));
    let mut sign_in = |user: &str, peer: &str| {
        let mut browser = Browser { peer: peer.into(), ..Browser::default() };
        let page = agents_login_page(&mut relay, &mut browser);
        let password = format!("{user}'s password");
        browser.post(&mut relay, "/login", &fields(&page, &[("user", user), ("password", &password)])).status.as_u16()
    };
    assert_eq!(sign_in("ann", "192.0.2.7"), 303, "ann, where she was");
    assert_eq!(sign_in("ann", "203.0.113.9"), 429, "somebody, elsewhere");
    assert_eq!(sign_in("bob", "192.0.2.7"), 429, "another's account is not known there");
}

#[test]
fn right_passwords_are_not_counted() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    for _ in 0..30 {
        relay.code(&client, WEB);
    }
}

#[test]
fn login_needs_this_browser_and_this_page() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let page = login_page(&mut relay, &mut browser);
    let form = fields(&page, &[("user", "ann"), ("password", "ann's password")]);
    let mut elsewhere = Browser::default();
    assert_eq!(elsewhere.post(&mut relay, "/login", &form).status, StatusCode::BAD_REQUEST);
    let mut other = Browser::default();
    let other_page = login_page(&mut relay, &mut other);
    assert_eq!(other.post(&mut relay, "/login", &form).status, StatusCode::BAD_REQUEST);
    let mut mixed = fields(&other_page, &[("user", "ann"), ("password", "ann's password")]);
    for (name, value) in &mut mixed {
        if name == "csrf" {
            *value = form.iter().find(|(name, _)| name == "csrf").unwrap().1.clone();
        }
    }
    assert_eq!(other.post(&mut relay, "/login", &mixed).status, StatusCode::FORBIDDEN);
    let mut headers = browser.headers();
    headers.extend(form_headers());
    headers.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
    assert_eq!(browser.post_with(&mut relay, "/login", &form, headers).status, StatusCode::FORBIDDEN);
    assert!(relay.verified.is_empty());
    relay.pass(Duration::from_secs(600));
    assert_eq!(browser.post(&mut relay, "/login", &form).status, StatusCode::BAD_REQUEST);
}

#[test]
fn empty_or_endless_input_is_not_checked() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let page = login_page(&mut relay, &mut browser);
    let long = "x".repeat(1_025);
    for (user, password) in [("", "x"), ("ann", ""), ("ann", long.as_str())] {
        let form = fields(&page, &[("user", user), ("password", password)]);
        assert_eq!(browser.post(&mut relay, "/login", &form).status, StatusCode::BAD_REQUEST);
    }
    assert!(relay.verified.is_empty());
}

/// From the client's link to the provider and back.
pub(super) fn provider_login(relay: &mut Relay, browser: &mut Browser, link: &str) -> Reply {
    let page = browser.get(relay, link);
    let reply = browser.agree(relay, &page);
    let url = location(&reply);
    assert!(url.starts_with(&format!("{ISSUER}/authorize")), "{url}");
    assert!(url.contains("redirect_uri=https%3A%2F%2Frelay.example%2Fcallback"), "{url}");
    let query = relay.provider.authorize(&url);
    browser.get(relay, &format!("/callback?{query}"))
}

fn with_provider() -> Relay {
    Relay::with(PUBLIC, oidc(), BTreeMap::new())
}

/// A browser that agreed to the web client's link, and where it is sent then.
fn agreed(relay: &mut Relay) -> (Browser, Reply) {
    let mut browser = Browser::default();
    let client = relay.register(WEB);
    let page = browser.get(relay, &authorization(&client, WEB));
    let reply = browser.agree(relay, &page);
    (browser, reply)
}

#[test]
fn provider_login_leads_to_tokens() {
    let mut relay = with_provider();
    let mut browser = Browser::default();
    let client = relay.register(WEB);
    let reply = provider_login(&mut relay, &mut browser, &authorization(&client, WEB));
    let answer = query(&location(&reply));
    assert_eq!((answer["state"].as_str(), answer["iss"].as_str()), ("st&te", PUBLIC));
    let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &answer["code"]));
    assert_eq!(relay.open(&tokens.access, "/mcp").unwrap().user.as_str(), format!("{ISSUER}#ann-7"));
    assert!(!browser.cookies.keys().any(|name| name.contains("login")), "the state cookie is used once");
    assert!(relay.others.is_empty());
}

#[test]
fn relay_that_restarts_in_the_middle_does_not_matter() {
    let mut relay = with_provider();
    let mut browser = Browser::default();
    let client = relay.register(WEB);
    let page = browser.get(&mut relay, &authorization(&client, WEB));
    let mut relay = relay.restart();
    let reply = browser.agree(&mut relay, &page);
    let query_back = relay.provider.authorize(&location(&reply));
    let provider = core::mem::replace(&mut relay.provider, FakeProvider::new(START));
    let mut relay = relay.restart();
    relay.provider = provider;
    let reply = browser.get(&mut relay, &format!("/callback?{query_back}"));
    assert!(location(&reply).starts_with(&format!("{WEB}?code=")));
}

#[test]
fn callback_needs_the_browser_that_agreed() {
    let mut relay = with_provider();
    let (mut browser, reply) = agreed(&mut relay);
    let query_back = relay.provider.authorize(&location(&reply));
    let target = format!("/callback?{query_back}");
    assert_eq!(Browser::default().get(&mut relay, &target).status, StatusCode::BAD_REQUEST);
    assert_eq!(browser.get(&mut relay, "/callback").status, StatusCode::BAD_REQUEST);
    assert_eq!(browser.get(&mut relay, &format!("{target}&state=x")).status, StatusCode::BAD_REQUEST);
    relay.pass(Duration::from_secs(600));
    assert_eq!(browser.get(&mut relay, &target).status, StatusCode::BAD_REQUEST);
    assert!(!relay.provider.asked.contains(&"/token".to_string()));
}

#[test]
fn callback_works_once_for_whoever_kept_its_cookie_too() {
    let mut relay = with_provider();
    let (mut browser, reply) = agreed(&mut relay);
    let target = format!("/callback?{}", relay.provider.authorize(&location(&reply)));
    let mut kept = browser.clone();
    assert_eq!(browser.get(&mut relay, &target).status, StatusCode::SEE_OTHER);
    let asked = relay.provider.asked.len();
    for browser in [&mut browser, &mut kept] {
        assert_eq!(browser.get(&mut relay, &target).status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(relay.provider.asked.len(), asked, "the provider hears nothing of it");
}

#[test]
fn callback_that_failed_is_over_as_well() {
    let mut relay = with_provider();
    let (mut browser, reply) = agreed(&mut relay);
    let state = query(&location(&reply)).remove("state").unwrap();
    let denied = form::append_query("/callback", [("error", "access_denied"), ("state", state.as_str())]);
    let good = format!("/callback?{}", relay.provider.authorize(&location(&reply)));
    let mut kept = browser.clone();
    assert_eq!(browser.get(&mut relay, &denied).status, StatusCode::FORBIDDEN);
    assert_eq!(kept.get(&mut relay, &good).status, StatusCode::BAD_REQUEST);
}

#[test]
fn login_page_is_answered_once() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let page = login_page(&mut relay, &mut browser);
    let form = fields(&page, &[("user", "ann"), ("password", "ann's password")]);
    let mut kept = browser.clone();
    assert!(location(&browser.post(&mut relay, "/login", &form)).starts_with(WEB));
    assert_eq!(kept.post(&mut relay, "/login", &form).status, StatusCode::BAD_REQUEST);
    let flow = form.iter().find(|(name, _)| name == "flow").map(|(_, flow)| flow.clone()).unwrap();
    assert_eq!(kept.get(&mut relay, &format!("/login?flow={flow}")).status, StatusCode::BAD_REQUEST);
    assert_eq!(relay.verified.len(), 1, "no password is tried on it any more");
}

#[test]
fn provider_errors_reach_the_person_and_the_client() {
    for (path, answer, status, code) in [
        ("/.well-known/openid-configuration", Err(FetchError::TimedOut), 503, "temporarily_unavailable"),
        ("/token", Ok((400, json!({"error": "invalid_client"}).to_string())), 502, "server_error"),
    ] {
        let mut relay = with_provider();
        relay.provider.instead.insert(path, answer);
        let (mut browser, mut reply) = agreed(&mut relay);
        if reply.status == StatusCode::SEE_OTHER {
            let query = relay.provider.authorize(&location(&reply));
            reply = browser.get(&mut relay, &format!("/callback?{query}"));
        }
        assert_eq!(reply.status.as_u16(), status, "{}", html(&reply));
        assert!(html(&reply).contains(&format!("href=\"{WEB}?error={code}&amp;")), "{}", html(&reply));
    }
}

#[test]
fn no_at_the_provider_is_a_no_for_the_client() {
    let mut relay = with_provider();
    let (mut browser, reply) = agreed(&mut relay);
    let state = query(&location(&reply)).remove("state").unwrap();
    let target = form::append_query("/callback", [("error", "access_denied"), ("state", state.as_str())]);
    let reply = browser.get(&mut relay, &target);
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(html(&reply).contains("error=access_denied"));
}

#[test]
fn providers_words_are_shown_and_can_do_nothing() {
    for (error, status) in [("access_denied", 403), ("invalid_scope", 403), ("server_error", 502)] {
        let mut relay = with_provider();
        let (mut browser, reply) = agreed(&mut relay);
        let state = query(&location(&reply)).remove("state").unwrap();
        let said = format!("Bad \u{202e}scope\r\n<script>é{}", "x".repeat(1_000));
        let fields = [("error", error), ("error_description", said.as_str()), ("state", state.as_str())];
        let reply = browser.get(&mut relay, &form::append_query("/callback", fields));
        let page = html(&reply);
        assert_eq!(reply.status.as_u16(), status, "{page}");
        assert!(
            page.contains("(Bad scope &#60;script&#62;éxxx") || page.contains("(Bad scope &lt;script&gt;éxxx"),
            "{page}"
        );
        assert!(!page.contains("<script>é") && !page.contains('\u{202e}') && !page.contains(&"x".repeat(200)));
        let line = relay.audit.pop().unwrap();
        assert!(text(&line, "reason").contains("Bad scope <script>"), "{line}");
    }
}
