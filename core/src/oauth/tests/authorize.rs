//! Registration, the authorization request and consent.

use super::*;

#[test]
fn registration_keeps_the_acceptable_redirects_of_a_mixed_set() {
    let mut relay = Relay::new();
    let (status, answer) = relay.register_with(&json!({
        "client_name": "Cursor",
        "redirect_uris": ["http://evil.example/cb", "cursor://anysphere.cursor-mcp/oauth/callback", "javascript:alert(1)",
            "http://localhost:8787/callback"],
        "token_endpoint_auth_method": "none",
    }));
    assert_eq!(status, StatusCode::CREATED);
    let kept = json!(["cursor://anysphere.cursor-mcp/oauth/callback", "http://localhost:8787/callback"]);
    assert_eq!(answer["redirect_uris"], kept);
    assert_eq!(answer["token_endpoint_auth_method"], "none");
    assert!(answer.get("client_secret").is_none());
    assert!(relay.store.is_empty() && relay.others.is_empty(), "registration remembers nothing");
}

#[test]
fn hopeless_registrations_are_refused() {
    let mut relay = Relay::new();
    let eleven: Vec<_> = (0..11).map(|index| format!("https://a.example/{index}")).collect();
    for (metadata, code) in [
        (json!({"redirect_uris": ["http://evil.example/cb"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": []}), "invalid_redirect_uri"),
        (json!({}), "invalid_redirect_uri"),
        (json!({"redirect_uris": eleven}), "invalid_redirect_uri"),
        (json!({"redirect_uris": [WEB], "grant_types": ["client_credentials"]}), "invalid_client_metadata"),
        (json!({"redirect_uris": [WEB], "response_types": ["token"]}), "invalid_client_metadata"),
        (json!({"redirect_uris": WEB}), "invalid_client_metadata"),
        (json!([]), "invalid_client_metadata"),
    ] {
        let (status, answer) = relay.register_with(&metadata);
        assert_eq!((status.as_u16(), answer["error"].as_str()), (400, Some(code)), "{metadata}");
    }
    let reply = relay.ask(Method::POST, "/register", form_headers(), &json!({"redirect_uris": [WEB]}).to_string());
    assert_refused(&reply, 400, "invalid_client_metadata");
}

#[test]
fn registration_that_cannot_be_read_is_told_which_member() {
    let mut relay = Relay::new();
    for (metadata, said) in [
        (json!({"redirect_uris": WEB}), "redirect_uris: "),
        (json!({"redirect_uris": [WEB, 7]}), "redirect_uris[1]: "),
        (json!({"redirect_uris": [WEB], "client_name": ["x"]}), "client_name: "),
        (json!({"redirect_uris": [WEB], "grant_types": "authorization_code"}), "grant_types: "),
        (json!({"redirect_uris": [WEB], "response_types": [{}]}), "response_types[0]: "),
        (json!({"redirect_uris": [WEB], "scope": 1}), "scope: "),
        (json!(7), "invalid type"),
    ] {
        let (status, answer) = relay.register_with(&metadata);
        assert_eq!((status.as_u16(), answer["error"].as_str()), (400, Some("invalid_client_metadata")), "{metadata}");
        let description = text(&answer, "error_description");
        assert!(description.starts_with(&format!("the body is not client metadata: {said}")), "{description}");
    }
    let (status, _) = relay.register_with(&json!({"redirect_uris": [WEB], "contacts": 7, "jwks": []}));
    assert_eq!(status, StatusCode::CREATED, "what is not read may be anything");
    for (kind, sent, said) in [
        ("application/json", "{\"redirect_uris\":[", "the body is not JSON"),
        ("application/json", "{} {}", "the body is not JSON"),
        ("text/plain", "{}", "the body must be application/json"),
    ] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let reply = relay.ask(Method::POST, "/register", headers, sent);
        assert_eq!(body(&reply)["error_description"], said, "{sent}");
    }
}

#[test]
fn null_among_redirects_is_skipped() {
    let mut relay = Relay::new();
    let (status, answer) = relay.register_with(&json!({"redirect_uris": [null, WEB, null], "client_name": null}));
    assert_eq!((status, &answer["redirect_uris"]), (StatusCode::CREATED, &json!([WEB])));
    for none in [json!({"redirect_uris": null}), json!({"redirect_uris": [null]})] {
        let (status, answer) = relay.register_with(&none);
        assert_eq!((status.as_u16(), answer["error"].as_str()), (400, Some("invalid_redirect_uri")), "{none}");
    }
}

#[test]
fn largest_registration_works_to_the_end() {
    let mut relay = Relay::new();
    let uris: Vec<_> = (0..10).map(|index| format!("https://a.example/{index}{}", "x".repeat(493))).collect();
    assert!(uris.iter().all(|uri| uri.len() == 512));
    let (status, answer) = relay.register_with(&json!({"redirect_uris": uris}));
    assert_eq!(status, StatusCode::CREATED);
    let client = text(&answer, "client_id");
    let code = relay.code(&client, &uris[9]);
    assert_eq!(relay.redeem(&client, &uris[9], &code).status, StatusCode::OK);
}

#[test]
fn redirect_of_a_byte_too_many_is_dropped_from_its_set() {
    let mut relay = Relay::new();
    let uri = |length: usize| format!("https://a.example/{}", "x".repeat(length - 18));
    let (status, answer) = relay.register_with(&json!({"redirect_uris": [uri(513), uri(512)]}));
    assert_eq!((status, &answer["redirect_uris"]), (StatusCode::CREATED, &json!([uri(512)])));
    let (status, answer) = relay.register_with(&json!({"redirect_uris": [uri(513)]}));
    assert_eq!((status.as_u16(), answer["error"].as_str()), (400, Some("invalid_redirect_uri")));
}

#[test]
fn secret_is_bound_to_the_registration_and_needs_no_memory() {
    let mut relay = Relay::new();
    let ask = json!({"redirect_uris": [WEB], "token_endpoint_auth_method": "client_secret_basic"});
    let [(_, one), (_, other)] = [relay.register_with(&ask), relay.register_with(&ask)];
    assert_ne!(one["client_secret"], other["client_secret"]);
    assert!(relay.store.is_empty());
    let mut relay = relay.restart();
    for (secret, status) in [(text(&other, "client_secret"), 401), (text(&one, "client_secret"), 400)] {
        let client = text(&one, "client_id");
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &client),
            ("client_secret", &secret),
            ("refresh_token", "x"),
        ];
        assert_eq!(relay.post("/token", &form).status.as_u16(), status);
    }
}

#[test]
fn consent_is_asked_again_in_the_browser_that_has_agreed_before() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut browser = Browser::default();
    browser.sign_in(&mut relay, &authorization(&client, WEB));
    let again = browser.get(&mut relay, &authorization(&client, WEB));
    assert_eq!(again.status, StatusCode::OK);
    assert!(html(&again).contains("Allow “"), "no link goes through without a person's click");
}

#[test]
fn request_that_cannot_be_read_is_told_why() {
    let mut relay = Relay::new();
    let link = authorization(&relay.register(WEB), WEB);
    let many: String = (0..70).map(|count| format!("&a{count}=1")).collect();
    for (more, said) in
        [("&state=2", "stands more than once"), ("&x=%ff", "is not UTF-8"), (&many, "more than 64 parameters")]
    {
        let reply = Browser::default().get(&mut relay, &format!("{link}{more}"));
        assert!(reply.status == StatusCode::BAD_REQUEST && html(&reply).contains(said), "{more}: {}", html(&reply));
    }
}

#[test]
fn custom_scheme_is_warned_about_and_shown_in_full() {
    let mut relay = Relay::new();
    for redirect in ["cursor://anysphere.cursor-mcp/oauth/callback", "com.example.app:/oauth2redirect"] {
        let client = relay.register(redirect);
        let page = Browser::default().get(&mut relay, &authorization(&client, redirect));
        assert!(html(&page).contains("Take care") && html(&page).contains(redirect), "{redirect}");
    }
}

#[test]
fn unknown_client_or_redirect_never_redirects() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut forged = client.clone();
    forged.pop();
    for (client, redirect) in [
        ("nobody", WEB),
        (forged.as_str(), WEB),
        ("", WEB),
        (client.as_str(), "https://evil.example/cb"),
        (client.as_str(), "https://claude.ai/api/mcp/auth_callback/"),
        (client.as_str(), "https://claude.ai/api/mcp/auth_callback?x=1"),
        (client.as_str(), LOOPBACK),
        ("mcp-local-tunnel-agent", WEB),
        ("mcp-local-tunnel-agent", "http://localhost:1/other"),
        ("mcp-local-tunnel-agent", ""),
    ] {
        let reply = Browser::default().get(&mut relay, &authorization_with(client, redirect, &[("x", "1")]));
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{client} {redirect}");
        assert!(reply.headers.get(LOCATION).is_none() && reply.headers.get(SET_COOKIE).is_none());
        assert!(!html(&reply).contains("evil.example") && !html(&reply).contains("href"), "{client} {redirect}");
    }
}

#[test]
fn bad_request_of_a_known_client_ends_on_our_page_with_a_button() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let long = "x".repeat(1_537);
    for (changes, code) in [
        (("response_type", ""), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("response_mode", "fragment"), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge", "0123456789012345678901234567890123456789+/="), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("resource", "https://other.example/mcp"), "invalid_target"),
        (("resource", "https://relay.example/ws"), "invalid_target"),
        (("state", long.as_str()), "invalid_request"),
    ] {
        let reply = Browser::default().get(&mut relay, &authorization_with(&client, WEB, &[changes]));
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(reply.headers.get(LOCATION).is_none(), "{changes:?}");
        let page = html(&reply);
        assert!(page.contains(&format!("href=\"{WEB}?error={code}&amp;")), "{changes:?}: {page}");
        assert!(page.contains("iss=https%3A%2F%2Frelay.example"), "{page}");
    }
}

#[test]
fn bad_request_of_the_agent_goes_back_to_it() {
    let mut relay = Relay::new();
    let link = authorization_with("mcp-local-tunnel-agent", LOOPBACK, &[("code_challenge_method", "plain")]);
    let answer = query(&location(&Browser::default().get(&mut relay, &link)));
    assert_eq!((answer["error"].as_str(), answer["state"].as_str()), ("invalid_request", "st&te"));
    assert_eq!(answer["iss"], PUBLIC);
}

#[test]
fn repeated_parameter_is_refused() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let link = format!("{}&state=other", authorization(&client, WEB));
    assert_eq!(Browser::default().get(&mut relay, &link).status, StatusCode::BAD_REQUEST);
}

#[test]
fn unknown_scopes_are_dropped_and_the_answer_says_what_was_granted() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    for (asked, granted) in [
        ("", "mcp:tools mcp:read tunnel:manage"),
        ("openid mcp everything", "mcp:tools mcp:read tunnel:manage"),
        ("mcp:read openid", "mcp:read"),
        ("mcp:reed", "mcp:read"),
        ("openid", "mcp:read"),
        ("tunnel:manage mcp:tools agent", "mcp:tools tunnel:manage"),
    ] {
        let link = authorization_with(&client, WEB, &[("scope", asked)]);
        let code = query(&location(&Browser::default().sign_in(&mut relay, &link))).remove("code").unwrap();
        let reply = relay.redeem(&client, WEB, &code);
        assert_eq!(body(&reply)["scope"], granted, "{asked}");
        let tokens = Tokens::new(client.clone(), &reply);
        assert_eq!(relay.open(&tokens.access, "/mcp").unwrap().scopes.to_string(), granted);
    }
}

#[test]
fn registered_scopes_are_the_default_and_more_is_asked_of_the_person() {
    let mut relay = Relay::new();
    let (_, answer) = relay.register_with(&json!({"redirect_uris": [WEB], "scope": "mcp:read tunnel:manage offline"}));
    assert_eq!(answer["scope"], "mcp:read tunnel:manage", "it is told what counts");
    let client = text(&answer, "client_id");
    for (asked, granted, tools) in [
        ("", "mcp:read tunnel:manage", false),
        ("mcp:read", "mcp:read", false),
        ("mcp:tools mcp:read agent", "mcp:tools mcp:read", true),
    ] {
        let link = authorization_with(&client, WEB, &[("scope", asked)]);
        let page = Browser::default().get(&mut relay, &link);
        assert_eq!(html(&page).contains("run tools on your devices"), tools, "{asked}");
        let code = query(&location(&Browser::default().sign_in(&mut relay, &link))).remove("code").unwrap();
        assert_eq!(body(&relay.redeem(&client, WEB, &code))["scope"], granted, "{asked}");
    }
    for metadata in [json!({"redirect_uris": [WEB]}), json!({"redirect_uris": [WEB], "scope": "openid profile"})] {
        assert_eq!(relay.register_with(&metadata).1["scope"], "mcp:tools mcp:read tunnel:manage", "{metadata}");
    }
}

#[test]
fn consent_page_names_what_was_asked_for_and_nothing_else() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let words = ["run tools on your devices", "say that they only read", "restart the servers"];
    for (asked, told) in [("", [true; 3]), ("mcp:read", [false, true, false]), ("tunnel:manage", [false, false, true])]
    {
        let reply = Browser::default().get(&mut relay, &authorization_with(&client, WEB, &[("scope", asked)]));
        assert_eq!(words.map(|word| html(&reply).contains(word)), told, "{asked}");
    }
}

#[test]
fn consent_page_says_who_asks_and_where_the_access_goes() {
    let mut relay = Relay::new();
    let name = "<script>Claude\u{202e}\u{0}</script>";
    let (_, answer) = relay.register_with(&json!({"client_name": name, "redirect_uris": [WEB, "http://localhost/cb"]}));
    let client = text(&answer, "client_id");
    let reply = Browser::default().get(&mut relay, &authorization(&client, WEB));
    let page = html(&reply);
    assert!(page.contains("&lt;script&gt;Claude&lt;/script&gt;") && !page.contains("<script"), "{page}");
    assert!(page.contains("Self-registered, unverified") && page.contains("run tools on your devices"));
    assert!(page.contains("<strong>claude.ai</strong>") && page.contains(WEB) && !page.contains("Take care"));
    let policy = reply.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("form-action"));
    assert_eq!(reply.headers["referrer-policy"], "no-referrer");
    assert_eq!(reply.headers["cache-control"], "no-store");

    let reply = Browser::default().get(&mut relay, &authorization(&client, "http://127.0.0.1:99/cb"));
    assert!(html(&reply).contains("Take care"));
}

#[test]
fn cookies_are_bound_to_the_host_over_tls_and_plain_on_loopback() {
    for (public, prefix, secure) in [(PUBLIC, "__Host-mlt-", true), ("http://localhost:3000", "mlt-", false)] {
        let mut relay = Relay::with(public, local(), BTreeMap::new());
        let client = relay.register(WEB);
        let mut browser = Browser::default();
        let page = browser.get(&mut relay, &authorization(&client, WEB));
        let reply = browser.agree(&mut relay, &page);
        for reply in [page, reply] {
            let cookie = reply.headers[SET_COOKIE].to_str().unwrap();
            assert!(cookie.starts_with(prefix), "{cookie}");
            assert_eq!(cookie.contains("; Secure"), secure);
            assert!(cookie.contains("; HttpOnly; SameSite=Lax") && cookie.contains("Path=/; Max-Age=600"), "{cookie}");
        }
    }
}

#[test]
fn consent_needs_this_browser_this_page_and_this_site() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut browser = Browser::default();
    let page = browser.get(&mut relay, &authorization(&client, WEB));
    let form = fields(&page, &[("decision", "allow")]);
    let post = |relay: &mut Relay, browser: &Browser, form: &[(String, String)], origin: Option<&str>, site: &str| {
        let mut browser = browser.clone();
        let mut headers = browser.headers();
        headers.extend(form_headers());
        headers.extend(origin.map(|origin| (ORIGIN, origin.parse().unwrap())));
        if !site.is_empty() {
            headers.insert("sec-fetch-site", site.parse().unwrap());
        }
        browser.post_with(relay, "/consent", form, headers).status.as_u16()
    };
    assert_eq!(post(&mut relay, &browser, &form, Some(PUBLIC), ""), 303);
    assert_eq!(post(&mut relay, &browser, &form, Some("null"), "same-origin"), 303);
    assert_eq!(post(&mut relay, &browser, &form, None, ""), 303);
    assert_eq!(post(&mut relay, &browser, &form, Some("null"), ""), 403);
    assert_eq!(post(&mut relay, &browser, &form, Some("https://evil.example"), ""), 403);
    assert_eq!(post(&mut relay, &browser, &form, Some("null"), "cross-site"), 403);
    // A page that the attacker opened, posted from the victim's browser.
    assert_eq!(post(&mut relay, &Browser::default(), &form, Some(PUBLIC), ""), 400);
    let mut other = Browser::default();
    other.get(&mut relay, &authorization(&client, WEB));
    assert_eq!(post(&mut relay, &other, &form, Some(PUBLIC), ""), 400);
    for index in 0..form.len() {
        let mut broken = form.clone();
        broken[index].1.push('x');
        assert_eq!(post(&mut relay, &browser, &broken, Some(PUBLIC), ""), 400);
        broken.remove(index);
        assert_eq!(post(&mut relay, &browser, &broken, Some(PUBLIC), ""), 400);
    }
    relay.pass(Duration::from_secs(600));
    assert_eq!(post(&mut relay, &browser, &form, Some(PUBLIC), ""), 400);
}

#[test]
fn page_loaded_twice_does_not_break_the_first_tab() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut browser = Browser::default();
    let first = browser.get(&mut relay, &authorization(&client, WEB));
    let second = browser.get(&mut relay, &authorization(&client, WEB));
    for page in [&first, &second, &first] {
        assert_eq!(browser.agree(&mut relay, page).status, StatusCode::SEE_OTHER);
    }
}

#[test]
fn no_goes_back_to_the_client() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut browser = Browser::default();
    let page = browser.get(&mut relay, &authorization(&client, WEB));
    let reply = browser.post(&mut relay, "/consent", &fields(&page, &[("decision", "deny")]));
    assert!(location(&reply).starts_with(WEB));
    let answer = query(&location(&reply));
    assert_eq!((answer["error"].as_str(), answer["state"].as_str()), ("access_denied", "st&te"));
    assert_eq!(answer["iss"], PUBLIC);
}

#[test]
fn no_is_the_last_word_of_a_page_and_of_no_other() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut browser = Browser::default();
    let page = browser.get(&mut relay, &authorization(&client, WEB));
    let other = browser.get(&mut relay, &authorization(&client, WEB));
    let mut kept = browser.clone();
    let reply = browser.post(&mut relay, "/consent", &fields(&page, &[("decision", "deny")]));
    assert_eq!(location(&reply).split('?').next(), Some(WEB));
    assert_eq!(browser.cookies.len(), 1, "its cookie is gone, the other tab's is not");
    for decision in ["allow", "deny"] {
        let reply = kept.post(&mut relay, "/consent", &fields(&page, &[("decision", decision)]));
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{decision}");
    }
    assert_eq!(browser.agree(&mut relay, &other).status, StatusCode::SEE_OTHER);
}

#[test]
fn redirect_may_be_left_out_only_if_there_is_one() {
    let mut relay = Relay::new();
    let one = relay.register(WEB);
    let reply = Browser::default().get(&mut relay, &authorization(&one, ""));
    assert!(html(&reply).contains(WEB));
    let (_, two) = relay.register_with(&json!({"redirect_uris": [WEB, "https://claude.com/api/mcp/auth_callback"]}));
    let reply = Browser::default().get(&mut relay, &authorization(&text(&two, "client_id"), ""));
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[test]
fn address_that_asks_too_often_is_put_off() {
    let mut relay = Relay::new();
    let metadata = json!({"redirect_uris": [WEB]});
    let client = relay.register(WEB);
    let refused = (0..150).filter(|_| relay.register_with(&metadata).0 == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!(refused, 51);
    let ask = |relay: &mut Relay| Browser::default().get(relay, &authorization(&client, WEB)).status;
    assert_eq!((0..150).filter(|_| ask(&mut relay) == StatusCode::TOO_MANY_REQUESTS).count(), 50);
    relay.pass(Duration::from_secs(1));
    assert_eq!(ask(&mut relay), StatusCode::OK);
}

#[test]
fn landing_page_names_the_endpoint() {
    let mut relay = Relay::new();
    let reply = relay.ask(Method::GET, "/", HeaderMap::new(), "");
    assert_eq!(reply.status, StatusCode::OK);
    for client in ["https://relay.example/mcp", "Claude", "ChatGPT", "Cursor", "VS Code", "Inspector"] {
        assert!(html(&reply).contains(client), "{client}");
    }
}

#[test]
fn other_methods_and_paths_are_refused() {
    let mut relay = Relay::new();
    for (method, path, status) in [
        (Method::POST, "/authorize", 405),
        (Method::GET, "/token", 405),
        (Method::GET, "/consent", 405),
        (Method::PUT, "/login", 405),
        (Method::POST, "/callback", 405),
        (Method::GET, "/elsewhere", 404),
    ] {
        let reply = relay.ask(method, path, HeaderMap::new(), "");
        assert_eq!(reply.status.as_u16(), status, "{path}");
        assert_eq!(reply.headers.contains_key("allow"), status == 405);
    }
}
