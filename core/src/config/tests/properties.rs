//! What holds of every configuration, however it is written.

use proptest::prelude::*;

use super::*;

/// Members of a configuration that can be used, each of which may be there or not.
const AGENT: [&str; 5] = [
    r#""name":"laptop of Ann""#,
    r#""token":"env:TOKEN""#,
    r#""pins":"block""#,
    r#""$schema":"https://a.example/schema""#,
    r#""inputs":[]"#,
];
const RELAY: [&str; 5] = [
    r#""port":3000"#,
    r#""issuerUrl":"https://relay.example""#,
    r#""naming":"never""#,
    r#""limits":{"callsPerUser":7}"#,
    r#""allowedOrigins":["https://app.example"]"#,
];

const SERVERS: &str =
    r#""servers":{"files":{"command":["a","b"],"env":{"K":"v"}},"far":{"url":"https://a.example/mcp"}}"#;

/// What a document says: the configuration in words, and what is remarked about it.
fn read(members: &[String]) -> (String, Vec<String>) {
    let text = format!("{{{}}}", members.join(","));
    match parse(&text) {
        Ok(parsed) => (format!("{:?}", parsed.config), parsed.warnings.iter().map(ToString::to_string).collect()),
        Err(problems) => panic!("{text}: {problems:?}"),
    }
}

fn document(is_relay: bool, kept: [bool; 5]) -> Vec<String> {
    let (needed, optional): (&[&str], _) = if is_relay {
        (&[r#""mode":"relay""#, r#""auth":{"issuer":"https://id.example","clientId":"c"}"#], RELAY)
    } else {
        (&[r#""mode":"agent""#, r#""relay":"relay.example""#, SERVERS], AGENT)
    };
    let optional = optional.iter().zip(kept).filter(|(_, kept)| *kept).map(|(member, _)| *member);
    needed.iter().copied().chain(optional).map(String::from).collect()
}

proptest! {
    #[test]
    fn order_says_nothing(is_relay: bool, kept: [bool; 5], seed: u64) {
        let members = document(is_relay, kept);
        let mut shuffled = members.clone();
        for index in 1..shuffled.len() {
            shuffled.swap(index, usize::try_from(seed >> index).unwrap_or(0) % (index + 1));
        }
        prop_assert_eq!(read(&shuffled).0, read(&members).0);
    }

    #[test]
    fn unknown_key_is_remarked_and_changes_nothing(is_relay: bool, kept: [bool; 5], key in "zz[a-z]{0,6}", at: prop::sample::Index) {
        let members = document(is_relay, kept);
        let (config, warnings) = read(&members);
        let mut with = members.clone();
        with.insert(at.index(members.len() + 1), format!(r#""{key}":[{{}}]"#));
        let (same, more) = read(&with);
        prop_assert_eq!(same, config);
        prop_assert_eq!(more.len(), warnings.len() + 1);
        prop_assert!(more.iter().any(|warning| warning.contains(&key)), "{:?}", more);
    }

    #[test]
    fn spaces_and_escapes_say_nothing(is_relay: bool, kept: [bool; 5], space in "[ \t\r\n]{1,3}") {
        let members = document(is_relay, kept);
        let spaced: Vec<String> = members.iter().map(|member| format!("{space}{member}{space}")).collect();
        let escaped: Vec<String> = spaced.iter().map(|member| member.replace("\"mode\"", r#""\u006dode""#)).collect();
        prop_assert_eq!(read(&escaped), read(&members));
    }
}
