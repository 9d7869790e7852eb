//! Every mistake, with its path and what is said of it; and everything that must work.

mod properties;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b2dWRWJTmaaJObG4YgOLnGGwqg";

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Ok(parsed) => parsed.warnings,
        Err(problems) => problems,
    }
}

/// The problem list as lines: `error servers.a must be …`.
fn lines(text: &str) -> Vec<String> {
    let severity = |problem: &Problem| if problem.severity == Severity::Error { "error" } else { "warning" };
    problems(text).iter().map(|problem| format!("{} {problem}", severity(problem))).collect()
}

/// Asserts that the only problem of `text` begins with `expected`.
#[track_caller]
fn assert_only(text: &str, expected: &str) {
    let lines = lines(text);
    assert!(lines.len() == 1 && lines[0].starts_with(expected), "{text}\n  expected: {expected}\n  got: {lines:#?}");
}

fn relay_with(member: &str) -> String {
    format!(r#"{{"mode":"relay","auth":{{"issuer":"https://id.example.com"}},{member}}}"#)
}

fn auth(auth: &str) -> String {
    format!(r#"{{"mode":"relay","auth":{auth}}}"#)
}

fn user(user: &str) -> String {
    auth(&format!(r#"{{"local":{{"users":[{user}]}}}}"#))
}

fn agent_with(member: &str) -> String {
    format!(r#"{{"mode":"agent","relay":"tunnel.example.com","servers":{{"a":{{"command":"a"}}}},{member}}}"#)
}

fn server(entry: &str) -> String {
    format!(r#"{{"mode":"agent","relay":"tunnel.example.com","servers":{{"files":{entry}}}}}"#)
}

fn relay(text: &str) -> RelayConfig {
    match parse(text) {
        Ok(Parsed { config: Config::Relay(config), warnings }) if warnings.is_empty() => config,
        other => panic!("{other:#?}"),
    }
}

fn agent(text: &str) -> AgentConfig {
    match parse(text) {
        Ok(Parsed { config: Config::Agent(config), warnings }) if warnings.is_empty() => config,
        other => panic!("{other:#?}"),
    }
}

fn stdio(config: &AgentConfig, name: &str) -> (Vec<String>, Vec<(String, String)>) {
    match &config.servers[name].transport {
        Transport::Stdio { command, env, .. } => {
            (command.clone(), env.iter().map(|(name, value)| (name.clone(), value.expose().to_string())).collect())
        }
        Transport::Http { .. } => panic!("{name} is not a process"),
    }
}

#[test]
fn two_line_relay_has_every_default() {
    let config = relay(r#"{"mode":"relay","auth":{"issuer":"https://id.example.com/realms/home/"}}"#);
    let Login::Oidc(oidc) = &config.login else { panic!("{config:?}") };
    assert_eq!(oidc.issuer, "https://id.example.com/realms/home/");
    assert_eq!((oidc.client_id.as_str(), oidc.user_claim.as_str()), ("mcp-local-tunnel", "sub"));
    assert_eq!(oidc.scopes, None);
    assert!(oidc.client_secret.is_none() && oidc.allow.is_empty());
    assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 3000));
    assert!(config.public_url.is_none() && config.secrets.is_empty() && config.state_dir.is_none());
    assert_eq!((config.naming, config.token_in_query, config.audit), (Naming::Auto, false, None));
    assert_eq!((config.limits, config.tls), (RelayLimits::default(), None));
}

#[test]
fn relay_takes_every_setting() {
    let config = relay(
        r#"{"$schema":"x","mode":"relay","port":0,"host":"[::1]","issuerUrl":"https://Tunnel.example.com/","secret":"s",
            "auth":{"issuer":"https://id.example.com","clientId":"c","clientSecret":"cs","scopes":["email"],"userClaim":"email","allow":["@example.com"]},
            "stateDir":"/var/lib/tunnel","naming":"always","legacy":{"tokenInQuery":true},
            "allowedOrigins":["https://app.example.com/","http://localhost:6274"],"trustedProxies":["10.0.0.0/8","::1"],
            "limits":{"maxBody":1024,"callIdleTimeout":60},"audit":"/var/log/tunnel.jsonl"}"#,
    );
    let Login::Oidc(oidc) = &config.login else { panic!("{config:?}") };
    assert_eq!(oidc.scopes, Some(std::vec!["openid".into(), "email".into()]));
    assert_eq!(oidc.client_secret.as_ref().map(|secret| secret.expose()), Some("cs"));
    assert_eq!(config.public_url.as_deref(), Some("https://tunnel.example.com"));
    let secrets = |config: &RelayConfig| config.secrets.iter().map(|one| one.expose().to_string()).collect::<Vec<_>>();
    assert_eq!(secrets(&config), ["s"]);
    assert_eq!(secrets(&relay(&relay_with(r#""secret":["new","old"]"#))), ["new", "old"]);
    assert_eq!((config.host.as_str(), config.port), ("::1", 0));
    assert_eq!(config.allowed_origins, ["https://app.example.com", "http://localhost:6274"]);
    assert_eq!((config.naming, config.token_in_query), (Naming::Always, true));
    assert_eq!((config.limits.max_body, config.limits.call_idle.as_secs()), (1024, 60));
    assert_eq!(config.audit, Some(AuditFile::At("/var/log/tunnel.jsonl".into())));
}

#[test]
fn local_users_are_taken() {
    let config = relay(&user(&format!(r#"{{"name":"ada","passwordHash":"{HASH}"}}"#)));
    let Login::Local(local) = config.login else { panic!("{config:?}") };
    assert_eq!(local.users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["ada"]);
}

#[test]
fn agent_takes_every_setting() {
    let config = agent(
        r#"{"mode":"agent","relay":"wss://tunnel.example.com/ws","name":"laptop","token":"env:TUNNEL_TOKEN","caFile":"/etc/ca.pem","servers":{
            "files":{"command":["npx","-y","fs"],"args":["/home"],"env":{"KEY":"v"},"cwd":"/tmp","startTimeout":5},
            "web":{"url":"http://127.0.0.1:8000/mcp","headers":{"Authorization":"Bearer t"}},
            "off":{"disabled":true,"type":"sse","url":"x"}}}"#,
    );
    assert_eq!(config.relay, "https://tunnel.example.com");
    assert_eq!((config.name.as_deref(), config.token.as_deref()), (Some("laptop"), Some("env:TUNNEL_TOKEN")));
    assert_eq!(config.ca_file.as_deref(), Some("/etc/ca.pem"));
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["files", "web"]);
    let (command, env) = stdio(&config, "files");
    assert_eq!(command, ["npx", "-y", "fs", "/home"]);
    assert_eq!(env, [("KEY".to_string(), "v".to_string())]);
    assert_eq!((config.servers["files"].start_timeout_secs, config.servers["web"].start_timeout_secs), (5, 60));
    assert_eq!(config.servers["web"].life, Life::default());
}

#[test]
fn server_is_told_when_to_run_and_how_to_end() {
    let life = |entry: &str| agent(&server(entry)).servers["files"].life.clone();
    let all = r#"{"command":"a","lazy":true,"idleStop":300,"restart":"on-failure","memoryLimit":512,"callIdleTimeout":60,"isolation":"session","era":"modern","sandbox":true}"#;
    let expected = Life {
        lazy: true,
        idle_stop_secs: Some(300),
        restart: RestartPolicy::OnFailure,
        memory_limit: Some(512 << 20),
        call_idle_secs: Some(60),
        isolation: Isolation::Session,
        era: EraChoice::Modern,
        sandbox: true,
    };
    assert_eq!(life(all), expected);
    assert_eq!(life(r#"{"command":"a","restart":"never"}"#).restart, RestartPolicy::Never);
    let same = r#"{"command":"a","lazy":false,"restart":"always","isolation":"shared","era":"auto"}"#;
    assert_eq!(life(same), life(r#"{"command":"a"}"#));
}

#[test]
fn pasted_blocks_work() {
    // Claude Desktop, Cursor, VS Code, Cline: each as its documentation shows it.
    let claude = r#""mcpServers":{"filesystem":{"command":"npx","args":["-y","@modelcontextprotocol/server-filesystem","/Users/me/Desktop"]}}"#;
    let cursor = r#""mcpServers":{"local":{"type":"stdio","command":"python","args":["server.py"],"env":{"API_KEY":"value"}},"remote":{"url":"http://localhost:3000/mcp","headers":{"API_KEY":"value"}}}"#;
    let vs_code = r#""inputs":[],"servers":{"github":{"type":"http","url":"https://api.example.com/mcp"},"fetch":{"type":"stdio","command":"uvx","args":["mcp-server-fetch"]}}"#;
    let cline = r#""mcpServers":{"a":{"command":"node","args":["/a.js"],"disabled":false,"alwaysAllow":["x"],"autoApprove":[],"timeout":60}}"#;
    for (block, servers) in [(claude, 1), (cursor, 2), (vs_code, 2), (cline, 1)] {
        let config = agent(&format!(r#"{{"mode":"agent","relay":"tunnel.example.com",{block}}}"#));
        assert_eq!(config.servers.len(), servers, "{block}");
    }
}

#[test]
fn syntax_errors_say_where() {
    for (text, expected) in [
        ("", "error the configuration is empty"),
        (
            "{\n  \"mode\": \"relay\",\n}",
            "error the configuration is not valid JSON: trailing comma at line 3, column 1; a comma after the last entry must go",
        ),
        (
            "{\"mode\": 'relay'}",
            "error the configuration is not valid JSON: expected value at line 1, column 10; texts stand between",
        ),
        (
            "{\n// no\n}",
            "error the configuration is not valid JSON: key must be a string at line 2, column 1; comments",
        ),
        (
            "{\"mode\": \"relay\"",
            "error the configuration is not valid JSON: it ends in the middle, at line 1, column 16",
        ),
        ("{} {}", "error the configuration is not valid JSON: trailing characters at line 1, column 4"),
        ("[]", "error the configuration must be a JSON object {…}, not an array"),
        ("\u{feff}[]", "error the configuration must be a JSON object {…}, not an array"),
    ] {
        assert_only(text, expected);
    }
    assert_only(&"[".repeat(1000), "error the configuration is not valid JSON: recursion limit exceeded");
    assert_only(&" ".repeat(MAX_CONFIG + 1), "error the configuration is longer than 1048576 bytes");
}

#[test]
fn mode_is_required_and_the_rest_is_checked_without_it() {
    assert_only("{}", "error mode is missing: add \"mode\": \"relay\"");
    assert_only(r#"{"mode":"server"}"#, "error mode must be \"relay\" or \"agent\"");
    assert_only(r#"{"mode":1}"#, "error mode must be");
    let lines = lines(r#"{"servers":{"a":{}},"relay":""}"#);
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn what_may_well_be_meant_is_not_warned_of() {
    for text in [
        auth(r#"{"issuer":"https://id.example.com","allow":["@corp.example","group:dev"]}"#),
        auth(r#"{"issuer":"https://id.example.com","allow":["@corp.example","group:dev"],"scopes":["email","roles"]}"#),
        auth(r#"{"issuer":"https://id.example.com","allow":["ann-7","auth0|1.2","4f1c.9"],"scopes":["openid"]}"#),
        relay_with(r#""trustedProxies":["10.0.0.0/8","fc00::/7","172.16.0.0/12","::1"]"#),
    ] {
        relay(&text);
    }
}

#[test]
fn relay_mistakes_are_named() {
    for (text, expected) in [
        (r#"{"mode":"relay"}"#.to_string(), "error auth is missing: say how people sign in"),
        (auth("[]"), "error auth must be a JSON object"),
        (auth("{}"), "error auth.issuer is missing: give the URL"),
        (auth(r#"{"issuer":"id.example.com"}"#), "error auth.issuer must be the provider's issuer URL"),
        (auth(r#"{"issuer":"http://id.example.com"}"#), "error auth.issuer must be https"),
        (auth(r#"{"issuer":"https://me:pw@id.example.com"}"#), "error auth.issuer must not have a user name"),
        (auth(r#"{"issuer":"https://id.example.com?a=b"}"#), "error auth.issuer must not have a query"),
        (
            auth(r#"{"issuer":"https://id.example.com/.well-known/openid-configuration"}"#),
            "error auth.issuer must be the issuer alone",
        ),
        (auth(r#"{"issuer":"https://id.example.com","clientId":""}"#), "error auth.clientId is empty"),
        (
            auth(r#"{"issuer":"https://id.example.com","clientId":null}"#),
            "error auth.clientId must be a text, not null",
        ),
        (
            auth(r#"{"issuer":"https://id.example.com","clientSecret":1}"#),
            "error auth.clientSecret must be a text, not a number",
        ),
        (auth(r#"{"issuer":"https://id.example.com","scopes":"openid"}"#), "error auth.scopes must be an array"),
        (
            auth(r#"{"issuer":"https://id.example.com","scopes":["openid email"]}"#),
            "error auth.scopes[0] must be one scope",
        ),
        (auth(r#"{"issuer":"https://id.example.com","scopes":["openid",7]}"#), "error auth.scopes[1] must be a text"),
        (auth(r#"{"issuer":"https://id.example.com","userClaim":""}"#), "error auth.userClaim is empty"),
        (auth(r#"{"issuer":"https://id.example.com","allow":[]}"#), "error auth.allow names nobody"),
        (auth(r#"{"issuer":"https://id.example.com","allow":[""]}"#), "error auth.allow[0] is empty"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["group:"]}"#), "error auth.allow[0] is half an entry"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["a"," @ "]}"#), "error auth.allow[1] is half an entry"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["ann@"]}"#), "error auth.allow[0] is half an entry"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["*"]}"#), "error auth.allow[0] is no pattern"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["*@a.example"]}"#), "error auth.allow[0] is no pattern"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["@*.a.example"]}"#), "error auth.allow[0] is no pattern"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["group:*"]}"#), "error auth.allow[0] is no pattern"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["auth0|*"]}"#), "warning auth.allow[0] is no pattern"),
        (auth(r#"{"issuer":"https://id.example.com","allow":["@@b.example"]}"#), "error auth.allow[0] is no domain"),
        (
            auth(r#"{"issuer":"https://id.example.com","allow":["a b@c.example"]}"#),
            "warning auth.allow[0] is no e-mail",
        ),
        (auth(r#"{"issuer":"https://id.example.com","allow":["group: a"]}"#), "warning auth.allow[0] is taken as"),
        (
            auth(r#"{"issuer":"https://id.example.com","allow":["corp.example"]}"#),
            "warning auth.allow[0] names no domain: did you mean @example.com?",
        ),
        (
            auth(r#"{"issuer":"https://id.example.com","allow":["Group:dev"]}"#),
            "warning auth.allow[0] names no group: did you mean group:NAME?",
        ),
        (
            auth(r#"{"issuer":"https://id.example.com","allow":["@corp.example"],"scopes":["openid"]}"#),
            "warning auth.scopes does not have email",
        ),
        (
            auth(r#"{"issuer":"https://id.example.com","userClaim":"email","scopes":[]}"#),
            "warning auth.scopes does not have email",
        ),
        (
            auth(r#"{"issuer":"https://id.example.com","allow":["group:dev"],"scopes":["profile"]}"#),
            "warning auth.scopes has none that brings groups",
        ),
        (
            auth(r#"{"issuer":"https://id.example.com","clientSecret":"env:"}"#),
            "error auth.clientSecret names no variable",
        ),
        (relay_with(r#""audit":1"#), "error audit must be true, false or a file's path"),
        (
            auth(r#"{"issuer":"https://id.example.com","client_id":"x"}"#),
            "warning auth.client_id is not a setting: did you mean clientId?",
        ),
        (auth(r#"{"local":{}}"#), "error auth.local.users is missing"),
        (auth(r#"{"local":{"users":[]}}"#), "error auth.local.users names nobody"),
        (user(r#"{"name":"ada"}"#), "error auth.local.users[0].passwordHash is missing"),
        (user(&format!(r#"{{"passwordHash":"{HASH}"}}"#)), "error auth.local.users[0].name is missing"),
        (
            user(&format!(r#"{{"name":"{}","passwordHash":"{HASH}"}}"#, "x".repeat(65))),
            "error auth.local.users[0].name must be 1 to 64",
        ),
        (
            user(&format!(r#"{{"name":"a\n","passwordHash":"{HASH}"}}"#)),
            "error auth.local.users[0].name must be 1 to 64",
        ),
        (
            user(r#"{"name":"ada","passwordHash":"hunter2"}"#),
            "error auth.local.users[0].passwordHash must be an argon2 hash",
        ),
        (
            user(&format!(r#"{{"name":"a","passwordHash":"{HASH}"}},{{"name":"a","passwordHash":"{HASH}"}}"#)),
            "error auth.local.users[1].name is another user's name",
        ),
        (
            auth(&format!(
                r#"{{"issuer":"https://id.example.com","local":{{"users":[{{"name":"a","passwordHash":"{HASH}"}}]}}}}"#
            )),
            "error auth has both issuer and local",
        ),
        (
            auth(&format!(r#"{{"clientId":"x","local":{{"users":[{{"name":"a","passwordHash":"{HASH}"}}]}}}}"#)),
            "warning auth.clientId has no effect with auth.local",
        ),
        (relay_with(r#""port":"3000""#), "error port must be a port: a whole number from 0 to 65535"),
        (relay_with(r#""port":65536"#), "error port must be a port"),
        (relay_with(r#""port":3000.5"#), "error port must be a port"),
        (relay_with(r#""port":-1"#), "error port must be a port"),
        (relay_with(r#""host":"http://0.0.0.0""#), "error host must be the address to listen on"),
        (relay_with(r#""host":"0.0.0.0:3000""#), "error host must be the address to listen on"),
        (relay_with(r#""issuerUrl":"http://tunnel.example.com""#), "error issuerUrl must be https"),
        (relay_with(r#""issuerUrl":"https://tunnel.example.com/mcp""#), "error issuerUrl must not have a path"),
        (relay_with(r#""issuerUrl":"https://tunnel.example.com/?x""#), "error issuerUrl must not have a query"),
        (relay_with(r#""issuerUrl":"tunnel.example.com""#), "error issuerUrl must be the URL people use"),
        (relay_with(r#""secret":"env:KEY""#), "error secret is not looked up, it is the secret itself"),
        (relay_with(r#""secret":["a","file:/run/key"]"#), "error secret[1] is not looked up, it is the secret itself"),
        (relay_with(r#""secret":"""#), "error secret is empty"),
        (relay_with(r#""secret":42"#), "error secret must be a text"),
        (relay_with(r#""secret":{}"#), "error secret must be a text"),
        (relay_with(r#""secret":[]"#), "error secret must be one text, or an array"),
        (relay_with(r#""secret":["new",""]"#), "error secret[1] is empty"),
        (relay_with(r#""stateDir":"~/state""#), "error stateDir must not begin with ~"),
        (relay_with(r#""naming":"sometimes""#), "error naming must be \"auto\", \"always\" or \"never\""),
        (relay_with(r#""legacy":true"#), "error legacy must be a JSON object"),
        (relay_with(r#""legacy":{"tokenInQuery":"yes"}"#), "error legacy.tokenInQuery must be true or false"),
        (relay_with(r#""allowedOrigins":["*"]"#), "error allowedOrigins[0] would let any page in"),
        (relay_with(r#""allowedOrigins":["app.example.com"]"#), "error allowedOrigins[0] must be an origin"),
        (relay_with(r#""allowedOrigins":["https://app.example.com/x"]"#), "error allowedOrigins[0] must be an origin"),
        (
            relay_with(r#""trustedProxies":["10.0.0.0/8","proxy"]"#),
            "error trustedProxies[1] must be an IP address or a range",
        ),
        (relay_with(r#""trustedProxies":["0.0.0.0/0"]"#), "warning trustedProxies[0] trusts half the world"),
        (relay_with(r#""trustedProxies":["10.0.0.0/8","::/0"]"#), "warning trustedProxies[1] trusts half the world"),
        (relay_with(r#""limits":{"maxBody":10}"#), "error limits.maxBody must be a size in bytes"),
        (relay_with(r#""limits":{"maxBody":"4M"}"#), "error limits.maxBody must be a size in bytes"),
        (relay_with(r#""limits":{"callIdleTimeout":0}"#), "error limits.callIdleTimeout must be a time in seconds"),
        (
            relay_with(r#""issuerURL":"https://x.example.com""#),
            "warning issuerURL is not a setting: did you mean issuerUrl?",
        ),
        (relay_with(r#""clientId":"x""#), "warning clientId belongs into auth: write auth.clientId"),
        (relay_with(r#""servers":{}"#), "warning servers is an agent's setting"),
        (relay_with(r#""zzz":1"#), "warning zzz is not a setting: remove it"),
        (relay_with(r#""port":1,"port":2"#), "error port is given twice"),
    ] {
        assert_only(&text, expected);
    }
}

#[test]
fn agent_takes_a_policy() {
    let text = r#"{"mode":"agent","relay":"tunnel.example.com","pins":"block","audit":true,
        "policy":{"deny":["*/delete_*"],"concurrency":8,"approvalTimeout":30,"tools":{"web/*":{"approve":"always"}}},
        "servers":{"files":{"command":"a","policy":{"allow":["read_*","list"],"readOnly":true,"approve":"first",
            "callsPerMinute":60,"tools":{"read_all":{"callsPerMinute":1,"concurrency":1}}}},"web":{"command":"b"}}}"#;
    let policy = agent(text).policy;
    assert_eq!((policy.pins, &policy.audit, policy.approval_secs), (PinMode::Block, &Some(AuditFile::Default), 30));
    let device = &policy.device;
    assert!(device.deny[0].matches("web", "delete_it") && device.allow.is_none() && !device.read_only);
    assert_eq!((device.calls.concurrency, device.tools[0].approve), (Some(8), Approve::Always));
    assert!(device.tools[0].tools.matches("web", "run") && !device.tools[0].tools.matches("files", "run"));
    assert_eq!(policy.servers.keys().collect::<Vec<_>>(), ["files"]);
    let files = &policy.servers["files"];
    assert!(files.read_only && files.approve == Approve::First && files.calls.per_minute == Some(60));
    assert!(files.allow.as_ref().is_some_and(|allow| allow.len() == 2 && allow[0].matches("any", "read_x")));
    assert_eq!((files.tools[0].calls.per_minute, files.tools[0].calls.concurrency), (Some(1), Some(1)));
}

#[test]
fn agent_without_a_policy_warns_of_changed_tools_alone() {
    let policy = agent(&agent_with(r#""name":"laptop""#)).policy;
    assert_eq!(policy, AgentPolicy::default());
    assert_eq!((policy.pins, policy.audit, policy.approval_secs), (PinMode::Warn, None, 120));
}

#[test]
fn policy_mistakes_are_named() {
    let policy = |policy: &str| server(&format!(r#"{{"command":"a","policy":{policy}}}"#));
    let device = |policy: &str| agent_with(&format!(r#""policy":{policy}"#));
    for (text, expected) in [
        (policy("[]"), "error servers.files.policy must be a JSON object"),
        (policy(r#"{"allow":"read"}"#), "error servers.files.policy.allow must be an array"),
        (policy(r#"{"deny":[1]}"#), "error servers.files.policy.deny[0] must be a text"),
        (policy(r#"{"deny":[""]}"#), "error servers.files.policy.deny[0] is empty"),
        (
            policy(r#"{"readonly":true}"#),
            "warning servers.files.policy.readonly is not a setting: did you mean readOnly?",
        ),
        (policy(r#"{"readOnly":"yes"}"#), "error servers.files.policy.readOnly must be true or false"),
        (
            policy(r#"{"approve":"ask"}"#),
            r#"error servers.files.policy.approve must be one of "never", "first", "always""#,
        ),
        (policy(r#"{"approve":true}"#), "error servers.files.policy.approve must be one of"),
        (policy(r#"{"callsPerMinute":0}"#), "error servers.files.policy.callsPerMinute must be a number of calls"),
        (policy(r#"{"concurrency":"2"}"#), "error servers.files.policy.concurrency must be a number of calls"),
        (policy(r#"{"approvalTimeout":9}"#), "warning servers.files.policy.approvalTimeout belongs to the device"),
        (policy(r#"{"tools":{"x":{"deny":[]}}}"#), "warning servers.files.policy.tools.x.deny belongs to the policy"),
        (
            policy(r#"{"tools":{"x":{"aprove":"first"}}}"#),
            "warning servers.files.policy.tools.x.aprove is not a setting: did you mean approve?",
        ),
        (policy(r#"{"tools":[]}"#), "error servers.files.policy.tools must be a JSON object"),
        (
            policy(r#"{"deny":["files__read"]}"#),
            r#"warning servers.files.policy.deny[0] names the server again: here "read" is the tool's whole name"#,
        ),
        (
            policy(r#"{"tools":{"files/read":{}}}"#),
            "warning servers.files.policy.tools[\"files/read\"] names the server again",
        ),
        (device(r#"{"deny":["fiels/*"]}"#), "warning policy.deny[0] means none of the servers: a"),
        (device(r#"{"allow":["read_*"]}"#), "error policy.allow[0] must name server and tool"),
        (device(r#"{"tools":{"read":{}}}"#), "error policy.tools.read must name server and tool"),
        (device(r#"{"approvalTimeout":1}"#), "error policy.approvalTimeout must be a time in seconds"),
        (device(r#"{"allow":null}"#), "error policy.allow must be an array"),
        (agent_with(r#""pins":"on""#), r#"error pins must be one of "off", "warn", "block""#),
        (agent_with(r#""pin":"warn""#), "warning pin is not a setting: did you mean pins?"),
        (agent_with(r#""audit":"~/log""#), "error audit must not begin with ~"),
        (agent_with(r#""audit":1"#), "error audit must be true, false or a file's path"),
    ] {
        assert_only(&text, expected);
    }
    let long = format!(r#"{{"deny":["{}"]}}"#, "x".repeat(513));
    assert_only(&policy(&long), "error servers.files.policy.deny[0] is longer than 512 bytes");
    let many = format!(r#"{{"deny":[{}]}}"#, ["\"x\""; 257].join(","));
    assert_only(&policy(&many), "error servers.files.policy.deny has more than 256 patterns");
}

#[test]
fn agent_mistakes_are_named() {
    for (text, expected) in [
        (
            r#"{"mode":"agent","servers":{"a":{"command":"a"}}}"#.to_string(),
            "error relay is missing: give the relay's host name",
        ),
        (r#"{"mode":"agent","relay":"tunnel.example.com"}"#.to_string(), "error servers is missing: add a server"),
        (r#"{"mode":"agent","relay":"tunnel.example.com","servers":{}}"#.to_string(), "warning servers is empty"),
        (
            r#"{"mode":"agent","relay":"tunnel.example.com","servers":[]}"#.to_string(),
            "error servers must be a JSON object",
        ),
        (r#"{"mode":"agent","relay":"","servers":{"a":{"command":"a"}}}"#.to_string(), "error relay is empty"),
        (
            r#"{"mode":"agent","relay":"a b","servers":{"a":{"command":"a"}}}"#.to_string(),
            "error relay must be the relay's host name",
        ),
        (
            r#"{"mode":"agent","relay":"ftp://a","servers":{"a":{"command":"a"}}}"#.to_string(),
            "error relay must begin with https://",
        ),
        (
            r#"{"mode":"agent","relay":"ws://tunnel.example.com","servers":{"a":{"command":"a"}}}"#.to_string(),
            "error relay sends tokens in clear",
        ),
        (
            r#"{"mode":"agent","relay":"https://u:p@tunnel.example.com","servers":{"a":{"command":"a"}}}"#.to_string(),
            "error relay must not have a user name",
        ),
        (
            r#"{"mode":"agent","relay":"https://tunnel.example.com/x","servers":{"a":{"command":"a"}}}"#.to_string(),
            "error relay must not have a path",
        ),
        (
            r#"{"mode":"agent","relay":"wss://tunnel.example.com/ws?token=t","servers":{"a":{"command":"a"}}}"#
                .to_string(),
            "error relay must not have a query",
        ),
        (agent_with(r#""name":"""#), "error name is empty"),
        (agent_with(r#""name":"a\u0007""#), "error name must be at most 255 bytes"),
        (agent_with(r#""token":"mlta_abcdef""#), "error token must say where the token is"),
        (agent_with(r#""token":"env:""#), "error token must say where"),
        (agent_with(r#""token":"file:""#), "error token must say where"),
        (agent_with(r#""mcpServers":{}"#), "error mcpServers and servers are the same setting"),
        (agent_with(r#""inputs":[{"id":"key"}]"#), "warning inputs is not read"),
        (agent_with(r#""auth":{}"#), "warning auth is a relay's setting"),
        (agent_with(r#""relays":"x""#), "warning relays is not a setting: did you mean relay?"),
        (server("[]"), "error servers.files must be a JSON object"),
        (server("{}"), "error servers.files needs command"),
        (server(r#"{"command":"a","url":"http://a"}"#), "error servers.files has both command and url"),
        (server(r#"{"command":[]}"#), "error servers.files.command is empty"),
        (server(r#"{"command":[""]}"#), "error servers.files.command[0] is empty"),
        (
            server(r#"{"command":["npx",1]}"#),
            "error servers.files.command[1] must be a text, not a number: put it between quotes",
        ),
        (server(r#"{"command":{}}"#), "error servers.files.command must be a text or an array"),
        (server(r#"{"command":"npx -y fs"}"#), "error servers.files.command is taken as one program's name"),
        (server(r#"{"command":"~/bin/fs"}"#), "error servers.files.command must not begin with ~"),
        (server(r#"{"command":"a\u0000"}"#), "error servers.files.command must not contain a NUL"),
        (server(r#"{"command":"a","args":"b"}"#), "error servers.files.args must be an array"),
        (server(r#"{"command":"a","args":["b",["c"]]}"#), "error servers.files.args[1] must be a text, not an array"),
        (server(r#"{"command":"a","args":["${workspaceFolder}/x"]}"#), "warning servers.files.args[0] has a ${…}"),
        (server(r#"{"command":"a","env":[]}"#), "error servers.files.env must be a JSON object"),
        (server(r#"{"command":"a","env":{"PORT":8080}}"#), "error servers.files.env.PORT must be a text, not a number"),
        (server(r#"{"command":"a","env":{"A=B":"c"}}"#), "error servers.files.env[\"A=B\"] must be named"),
        (server(r#"{"command":"a","env":{"K":"${input:key}"}}"#), "warning servers.files.env.K has a ${…}"),
        (server(r#"{"command":"a","cwd":"~"}"#), "error servers.files.cwd must not begin with ~"),
        (server(r#"{"command":"a","headers":{}}"#), "warning servers.files.headers has no effect with command"),
        (server(r#"{"command":"a","type":"http"}"#), "error servers.files.type does not fit"),
        (server(r#"{"command":"a","type":"pipe"}"#), "error servers.files.type must be \"stdio\""),
        (server(r#"{"command":"a","startTimeout":0}"#), "error servers.files.startTimeout must be a time in seconds"),
        (server(r#"{"command":"a","lazy":1}"#), "error servers.files.lazy must be true or false"),
        (server(r#"{"command":"a","idleStop":"5m"}"#), "error servers.files.idleStop must be a time in seconds"),
        (server(r#"{"command":"a","restart":"no"}"#), "error servers.files.restart must be \"always\""),
        (server(r#"{"command":"a","memoryLimit":"1G"}"#), "error servers.files.memoryLimit must be a size in MiB"),
        (server(r#"{"command":"a","callIdleTimeout":0}"#), "error servers.files.callIdleTimeout must be a time"),
        (server(r#"{"command":"a","isolation":"user"}"#), "error servers.files.isolation must be \"shared\""),
        (server(r#"{"command":"a","sandbox":"yes"}"#), "error servers.files.sandbox must be true or false"),
        (server(r#"{"url":"http://127.0.0.1","sandbox":true}"#), "warning servers.files.sandbox has no effect"),
        (server(r#"{"url":"http://127.0.0.1","memoryLimit":99}"#), "warning servers.files.memoryLimit has no effect"),
        (server(r#"{"command":"a","env":{"K":"env:"}}"#), "error servers.files.env.K must name a variable"),
        (server(r#"{"command":"a","env":{"K":"file:keys/x"}}"#), "error servers.files.env.K must name a whole path"),
        (
            server(r#"{"command":"a","env":{"K":"file:a.db?mode=ro"}}"#),
            "warning servers.files.env.K is given as it stands",
        ),
        (server(r#"{"command":"a","env":{"K":"file:./x"}}"#), "warning servers.files.env.K is given as it stands"),
        (server(r#"{"command":"a","disabled":"no"}"#), "error servers.files.disabled must be true or false"),
        (server(r#"{"url":"127.0.0.1:8000"}"#), "error servers.files.url must be an http"),
        (server(r#"{"url":"file:///etc/passwd"}"#), "error servers.files.url must be an http"),
        (server(r#"{"url":"http://u:p@127.0.0.1"}"#), "error servers.files.url must not have a user name"),
        (server(r##"{"url":"http://127.0.0.1/#x"}"##), "error servers.files.url must not have a fragment"),
        (
            server(r#"{"url":"http://127.0.0.1/sse","type":"sse"}"#),
            "error servers.files.type is the transport of 2024-11-05",
        ),
        (
            server(r#"{"url":"http://127.0.0.1","headers":{"X:":"a"}}"#),
            "error servers.files.headers[\"X:\"] is not a header's name",
        ),
        (
            server(r#"{"url":"http://127.0.0.1","headers":{"Host":"a"}}"#),
            "error servers.files.headers.Host is set by the agent",
        ),
        (
            server(r#"{"url":"http://127.0.0.1","headers":{"X":"a\nb"}}"#),
            "error servers.files.headers.X must be a header's value",
        ),
        (server(r#"{"url":"http://127.0.0.1","args":[]}"#), "warning servers.files.args has no effect with url"),
        (
            server(r#"{"command":"a","comand":"b"}"#),
            "warning servers.files.comand is not a setting: did you mean command?",
        ),
        (
            format!(r#"{{"mode":"agent","relay":"a","servers":{{"{}":{{"command":"a"}}}}}}"#, "x".repeat(256)),
            "error servers[\"xxx",
        ),
        (
            r#"{"mode":"agent","relay":"a","servers":{"":{"command":"a"}}}"#.to_string(),
            "error servers[\"\"] must have a name",
        ),
        (
            r#"{"mode":"agent","relay":"a","servers":{"my.srv":{}}}"#.to_string(),
            "error servers[\"my.srv\"] needs command",
        ),
        (
            r#"{"mode":"agent","relay":"a","servers":{"a":{"command":"a"},"a":{"command":"b"}}}"#.to_string(),
            "error servers.a is given twice",
        ),
    ] {
        assert_only(&text, expected);
    }
}

#[test]
fn one_server_more_than_the_limit_is_refused() {
    let with = |count: usize| {
        let entries: Vec<_> = (0..count).map(|at| format!(r#""s{at}":{{"command":"a"}}"#)).collect();
        format!(r#"{{"mode":"agent","relay":"a","servers":{{{}}}}}"#, entries.join(","))
    };
    assert_eq!(agent(&with(crate::limits::MAX_SERVERS)).servers.len(), crate::limits::MAX_SERVERS);
    assert_only(&with(crate::limits::MAX_SERVERS + 1), "error servers has more than 256 servers");
}

#[test]
fn all_problems_are_reported_at_once() {
    let lines = lines(
        r#"{"mode":"agent","nane":"x","relay":"ws://a.example","servers":{"a":{},"b":{"command":["x",1,2]},"c":{"url":"x"}}}"#,
    );
    assert_eq!(lines.len(), 6, "{lines:#?}");
}

#[test]
fn insecure_relay_is_allowed_when_asked_for() {
    let text = r#"{"mode":"agent","relay":"http://nas.lan:3000","servers":{"a":{"command":"a"}}}"#;
    assert!(parse(text).is_err());
    assert!(parse_with(text, Options { allow_insecure: true }).is_ok());
}

#[test]
fn command_with_spaces_in_its_path_is_one_program() {
    let config = agent(&server(r#"{"command":"/Applications/My App/bin/server"}"#));
    assert_eq!(stdio(&config, "files").0, ["/Applications/My App/bin/server"]);
}

#[test]
fn no_problem_repeats_a_value() {
    const CANARY: &str = "c4n4ry";
    for text in [
        relay_with(r#""secret":{"c4n4ry":["c4n4ry"]},"port":"c4n4ry","host":"c4n4ry:1","naming":"c4n4ry","issuerUrl":"c4n4ry""#),
        auth(r#"{"issuer":"http://u:c4n4ry@id.example.com/c4n4ry","clientSecret":{"x":"c4n4ry"},"scopes":["c4n4ry c4n4ry"]}"#),
        user(r#"{"name":"c4n4ry\n","passwordHash":"c4n4ry"}"#),
        agent_with(r#""token":"c4n4ry","name":"c4n4ry\n""#),
        r#"{"mode":"agent","relay":"ws://x.example/?token=c4n4ry","servers":{"a":{"command":"a","env":{"K":["c4n4ry"]}}}}"#.to_string(),
        server(r#"{"url":"http://u:c4n4ry@h/","headers":{"X":"c4n4ry\n"}}"#),
        server(r#"{"command":["a","c4n4ry\u0000"],"type":"c4n4ry"}"#),
        r#"{"mode":"relay","secret":"c4n4ry" "x"}"#.to_string(),
        r#"{"mode":"relay","secret":c4n4ry}"#.to_string(),
    ] {
        let lines = lines(&text);
        assert!(!lines.is_empty() && lines.iter().all(|line| !line.contains(CANARY)), "{lines:#?}");
    }
}

#[test]
fn hashes_that_would_hang_the_relay_are_refused() {
    for hash in [
        HASH.replace("m=19456", "m=4294967295"),
        HASH.replace("t=2", "t=4000000"),
        HASH.replace("p=1", "p=0"),
        HASH.replace("argon2id", "scrypt"),
        format!("{HASH}$"),
    ] {
        assert_only(
            &user(&format!(r#"{{"name":"a","passwordHash":"{hash}"}}"#)),
            "error auth.local.users[0].passwordHash must be an argon2 hash",
        );
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_document_is_answered(text in json()) {
        if let Err(problems) = parse(&text) {
            proptest::prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
        }
    }
}

/// Documents made of the settings' names and values of every kind.
fn json() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("true".to_string()),
        Just("3000".to_string()),
        Just("-1.5e3".to_string()),
        Just("\"\"".to_string()),
        Just("\"relay\"".to_string()),
        Just("\"agent\"".to_string()),
        Just("\"https://a.example\"".to_string()),
    ];
    let key = proptest::sample::select(
        &[
            "mode",
            "auth",
            "issuer",
            "local",
            "users",
            "name",
            "servers",
            "command",
            "args",
            "env",
            "url",
            "relay",
            "headers",
            "limits",
            "clients",
            "id",
            "redirectUris",
            "secret",
            "clientDocuments",
            "x",
        ][..],
    );
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}
