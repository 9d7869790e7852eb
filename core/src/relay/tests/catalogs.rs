use super::super::catalog::Catalog;
use super::*;
use crate::limits;
use crate::mcp::{Era, code};
use crate::relay::listing::{Listing, Source};

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

fn names(world: &mut World) -> Vec<String> {
    let list = world.ask(LIST);
    let tools = list["result"]["tools"].as_array().unwrap().clone();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_string()).filter(|name| name.contains("__")).collect()
}

fn two_devices(naming: Naming) -> World {
    let mut world = World::with(&RelayConfig { naming, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[server("files", &["read"]), server("git", &["log"])]));
    world.up(2, "desktop", Some("id-2"));
    world.catalog(2, &files());
    world.drain();
    world
}

#[test]
fn tool_keeps_everything_but_its_name_and_the_label() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let tool = r#"{ "title":"T", "name" : "re\u0061d", "description":"say \"x\"","inputSchema":{"type":"object","x":1.50},"_meta":{"a":1e400},"new":[ null ]}"#;
    world.catalog(1, &format!(r#"{{"whole":true,"servers":[{{"name":"files","state":"ready","tools":[{tool}]}}]}}"#));
    let actions = world.post(LIST);
    let expected = r#"{ "title":"T", "name" : "files__read", "description":"[files] say \"x\"","inputSchema":{"type":"object","x":1.50},"_meta":{"a":1e400},"new":[ null ]}"#;
    assert!(actions[0].contains(expected), "{}", actions[0]);
    world.endpoint = Endpoint::Server("files".into());
    assert_eq!(world.post(LIST), ["tunnel 1 open 1 files tools/list "], "a server that runs is asked");
    world.catalog(1, &format!(r#"{{"whole":true,"servers":[{{"name":"files","state":"asleep","tools":[{tool}]}}]}}"#));
    let actions = world.post(&LIST.replace("\"id\":1", "\"id\":2"));
    let transparent = format!(r#"reply 3 200 {{"jsonrpc":"2.0","id":2,"result":{{"tools":[{tool}]}}}}"#);
    assert_eq!(actions, [transparent], "nothing renamed, no tools of the relay");
}

#[test]
fn names_carry_the_device_as_configured() {
    for (naming, expected) in [
        (
            Naming::Auto,
            &["desktop__files__read", "desktop__files__write", "laptop__files__read", "laptop__git__log"][..],
        ),
        (Naming::Always, &["desktop__files__read", "desktop__files__write", "laptop__files__read", "laptop__git__log"]),
        (Naming::Never, &["desktop__files__read", "files__write", "laptop__files__read", "git__log"]),
    ] {
        assert_eq!(names(&mut two_devices(naming)), expected, "{naming:?}");
    }
    let mut alone = World::with(&RelayConfig { naming: Naming::Always, ..config() });
    alone.up(1, "laptop", Some("id-1"));
    alone.catalog(1, &files());
    assert_eq!(names(&mut alone), ["laptop__files__read", "laptop__files__write"]);
}

#[test]
fn both_spellings_resolve_while_they_are_unambiguous() {
    for naming in [Naming::Auto, Naming::Never] {
        let mut world = two_devices(naming);
        for (tool, expected) in [
            ("laptop__git__log", "tunnel 1 open 1 git"),
            ("git__log", "tunnel 1 open 2 git"),
            ("files__write", "tunnel 2 open 1 files"),
            ("desktop__files__write", "tunnel 2 open 2 files"),
            ("laptop__files__read", "tunnel 1 open 3 files"),
        ] {
            let id = world.exchanges as u32;
            let actions = world.post(&call(tool, id));
            assert!(actions[0].starts_with(expected), "{tool}: {actions:?}");
        }
        let ambiguous = world.post(&call("files__read", 99));
        assert_eq!(failure(&ambiguous[0]), (code::AMBIGUOUS, "ambiguous-tool".into()));
        assert!(ambiguous[0].contains("desktop__files__read, laptop__files__read"), "{ambiguous:?}");
    }
}

#[test]
fn listed_name_wins_over_another_tools_other_spelling() {
    let mut world = World::with(&RelayConfig { naming: Naming::Never, ..config() });
    world.up(1, "a", Some("id-1"));
    world.catalog(1, &whole(&[server("b", &["c"])]));
    world.up(2, "z", Some("id-2"));
    world.catalog(2, &whole(&[server("a", &["b__c"])]));
    world.drain();
    assert_eq!(names(&mut world), ["b__c", "a__b__c"]);
    assert!(world.post(&call("a__b__c", 1))[0].starts_with(r#"tunnel 2 open 1 a tools/call {"name":"b__c""#));
    assert!(world.post(&call("b__c", 2))[0].starts_with("tunnel 1 open 1 b"));
}

#[test]
fn unknown_tool_is_refused_naming_those_like_it() {
    let mut world = World::ready();
    for (asked, near) in [
        ("files__raed", "did you mean files__read?"),
        ("read", "did you mean files__read?"),
        ("other__write", "did you mean files__write?"),
        ("statsu", "did you mean status?"),
        ("zzzzzzzzzz", "tools/list has the names"),
    ] {
        let actions = world.post(&call(asked, 1));
        assert_eq!(failure(&actions[0]), (code::INVALID_PARAMS, "no-such-tool".into()));
        assert!(actions[0].contains(near), "{asked}: {}", actions[0]);
    }
    let long = "x".repeat(100_000);
    assert!(world.post(&call(&long, 1))[0].len() < 1_000, "what a client sends is not sent back whole");
}

#[test]
fn calls_without_a_name_are_refused() {
    let mut world = World::ready();
    for params in ["", r#","params":null"#, r#","params":[]"#, r#","params":{"name":1}"#, r#","params":{}"#] {
        let actions = world.post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#));
        assert_eq!(failure(&actions[0]).0, code::INVALID_PARAMS, "{params}");
    }
}

#[test]
fn calls_to_a_server_that_comes_up_wait_at_its_device() {
    for state in ["starting", "probing", "ready", "asleep", "restarting"] {
        let mut world = World::ready();
        let json = server("files", &["read"]).replace("\"ready\"", &format!("\"{state}\""));
        world.catalog(1, &whole(&[json]));
        let actions = world.call(7);
        assert!(actions.iter().any(|action| action.contains(" open ")), "{state}: {actions:?}");
    }
}

#[test]
fn server_that_cannot_run_says_why() {
    for (state, words) in [("failed", "failed"), ("dreaming", "does not know")] {
        let mut world = World::ready();
        let json = server("files", &["read"]).replace("\"ready\"", &format!("\"{state}\",\"reason\":\"exit code 1\""));
        world.catalog(1, &whole(&[json]));
        let actions = world.call(7);
        assert_eq!(failure(&actions[0]), (code::SERVER_UNAVAILABLE, "server-not-ready".into()));
        assert!(actions[0].contains(words) && actions[0].contains("exit code 1"), "{actions:?}");
    }
}

#[test]
fn list_has_one_page() {
    let mut world = World::ready();
    for (cursor, fine) in [("\"\"", true), ("null", true), ("\"x\"", false), ("1", false)] {
        let json = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"cursor":{cursor}}}}}"#);
        assert_eq!(world.ask(&json).get("result").is_some(), fine, "{cursor}");
    }
}

#[test]
fn hostile_tools_are_left_out_and_named() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let big = format!(r#"{{"name":"big","inputSchema":{{}},"x":"{}"}}"#, "x".repeat(limits::MAX_TOOL));
    let long = format!(r#"{{"name":"{}","inputSchema":{{}}}}"#, "n".repeat(limits::MAX_LISTED_NAME + 1));
    let tools = [
        r#"{"name":"good","inputSchema":{}}"#,
        r#"{"name":"good","inputSchema":{"second":1}}"#,
        "17",
        "null",
        "[]",
        r#"{"inputSchema":{}}"#,
        r#"{"name":1,"inputSchema":{}}"#,
        r#"{"name":"","inputSchema":{}}"#,
        r#"{"name":"turn\u202e","inputSchema":{}}"#,
        r#"{"name":"line\nbreak","inputSchema":{}}"#,
        r#"{"name":"no-schema"}"#,
        r#"{"name":"bad-schema","inputSchema":[]}"#,
        r#"{"name":"status","inputSchema":{}}"#,
        &big,
        &long,
    ];
    let evil = format!(r#"{{"name":"evil","state":"ready","tools":[{}]}}"#, tools.join(",\n"));
    world.catalog(1, &whole(&[evil, server("files", &["read"])]));
    assert_eq!(names(&mut world), ["evil__good", "evil__status", "files__read"]);
    let status = world.ask(&call("status", 1));
    assert_eq!(status["result"]["structuredContent"]["connected"], true, "the relay's own tool is not shadowed");
    let dropped = status["result"]["structuredContent"]["devices"][0]["servers"][0]["dropped"].as_array().unwrap();
    assert_eq!(dropped.len(), tools.len() - 2);
    assert!(
        dropped
            .iter()
            .any(|dropped| dropped["tool"] == "turn " && dropped["reason"].as_str().unwrap().contains("printable"))
    );
}

#[test]
fn hostile_catalogs_change_nothing_but_the_fault() {
    for hostile in ["", "{", "[]", "null", r#"{"servers":{}}"#, r#"{"whole":1}"#, "\u{0}"] {
        let mut world = World::ready();
        world.catalog(1, hostile);
        assert_eq!(names(&mut world), ["files__read", "files__write"], "{hostile}");
        let status = world.ask(&call("status", 1));
        let fault = &status["result"]["structuredContent"]["devices"][0]["fault"];
        assert!(fault.as_str().unwrap().contains("refused"), "{hostile}");
    }
}

#[test]
fn server_that_cannot_be_read_does_not_hide_the_others() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let nameless = r#"{"name":"","state":"ready"}"#.to_string();
    world.catalog(1, &whole(&["7".into(), nameless, r#"{"state":1}"#.into(), server("files", &["read"])]));
    assert_eq!(names(&mut world), ["files__read"]);
}

#[test]
fn tools_of_a_device_are_bounded() {
    let tools: Vec<String> = (0..=limits::MAX_TOOLS).map(|index| format!("t{index}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    for most in [2, limits::MAX_TOOLS] {
        let bounds = RelayLimits { tools_per_agent: most, ..RelayLimits::default() };
        for count in [most, most + 1] {
            let (listed, dropped) = taken(&server("files", &tools[..count]), &bounds);
            assert_eq!(listed, most);
            let why = "the device lists too many tools (limits.toolsPerAgent)";
            assert_eq!(dropped, [why][..count - most]);
        }
    }
}

#[test]
fn bytes_of_a_device_are_bounded() {
    let tool = format!(r#"{{"name":"t","inputSchema":{{}},"x":"{}"}}"#, "x".repeat(1_000));
    let server = format!(r#"{{"name":"files","state":"ready","tools":[{tool}]}}"#);
    for (most, listed) in [(tool.len(), 1), (tool.len() - 1, 0)] {
        let bounds = RelayLimits { catalog_per_agent: most, ..RelayLimits::default() };
        let why = "the device lists too much (limits.catalogPerAgent)";
        assert_eq!(taken(&server, &bounds), (listed, Vec::from_iter([why][listed..].iter().copied())));
    }
}

#[test]
fn one_tool_is_bounded() {
    let padded = |length: usize| {
        let bare = r#"{"name":"t","inputSchema":{},"x":""}"#.len();
        let tool = format!(r#"{{"name":"t","inputSchema":{{}},"x":"{}"}}"#, "x".repeat(length - bare));
        format!(r#"{{"name":"files","state":"ready","tools":[{tool}]}}"#)
    };
    let bounds = RelayLimits::default();
    assert_eq!(taken(&padded(limits::MAX_TOOL), &bounds), (1, Vec::new()));
    assert_eq!(taken(&padded(limits::MAX_TOOL + 1), &bounds), (0, Vec::from(["it is larger than 64 KiB"])));
}

/// How many tools of a server are taken, and why the others are not.
fn taken(server: &str, bounds: &RelayLimits) -> (usize, Vec<&'static str>) {
    let mut catalog = super::super::catalog::Catalog::default();
    catalog.apply(&Bytes::from(whole(&[server.to_string()])), bounds, Now::default());
    let (_, server) = catalog.servers().next().expect("it has a server");
    (server.offer(Era::Modern).tools.len(), server.dropped.iter().map(|dropped| dropped.why).collect())
}

#[test]
fn updates_replace_and_remove_single_servers() {
    let mut world = World::ready();
    world.catalog(1, &format!(r#"{{"servers":[{}]}}"#, server("git", &["log"])));
    assert_eq!(names(&mut world), ["files__read", "files__write", "git__log"]);
    world.catalog(1, &format!(r#"{{"servers":[{}],"removed":["nothing"]}}"#, server("files", &["new"])));
    assert_eq!(names(&mut world), ["files__new", "git__log"]);
    world.catalog(1, r#"{"removed":["files"]}"#);
    assert_eq!(names(&mut world), ["git__log"]);
    world.catalog(1, r#"{"whole":true}"#);
    assert_eq!(names(&mut world), [""; 0]);
}

#[test]
fn long_list_is_sent_in_pieces_of_known_length() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    let tools: Vec<String> = (0..1_000).map(|index| format!("tool{index}")).collect();
    world.catalog(1, &whole(&[server("files", &tools.iter().map(String::as_str).collect::<Vec<_>>())]));
    let actions = world.post(LIST);
    assert!(actions[0].starts_with("begin 1 json of ") && actions.len() == 5, "{}", actions.len());
    assert_eq!(actions[4], "finish 1");
}

#[test]
fn endpoint_of_one_server_passes_everything_on() {
    for endpoint in [Endpoint::Server("files".into()), Endpoint::DeviceServer("laptop".into(), "files".into())] {
        let mut world = World::ready();
        world.endpoint = endpoint;
        let params = r#"{"name":"unknown", "x":1}"#;
        let post = |method: &str, id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let actions = world.post(&post("tools/call", 1));
        assert_eq!(actions, [format!("tunnel 1 open 1 files tools/call {params}")]);
        let actions = world.post(&post("vendor/method", 2));
        assert_eq!(actions, [format!("tunnel 1 open 2 files vendor/method {params}")]);
    }
    let mut world = World::ready();
    let actions = world.post(r#"{"jsonrpc":"2.0","id":1,"method":"vendor/method"}"#);
    assert_eq!(failure(&actions[0]), (code::METHOD_NOT_FOUND, "no-such-method".into()));
}

#[test]
fn endpoint_that_leads_nowhere_or_to_two_servers_says_so() {
    let mut world = two_devices(Naming::Auto);
    world.endpoint = Endpoint::Server("files".into());
    let actions = world.post(LIST);
    assert!(actions[0].starts_with("reply 1 409"), "{actions:?}");
    assert!(actions[0].contains("https://relay.example/mcp/desktop/files or https://relay.example/mcp/laptop/files"));
    world.endpoint = Endpoint::Server("nothing".into());
    let actions = world.post(LIST);
    assert!(actions[0].starts_with("reply 2 200") && actions[0].contains("there are files, git"), "{actions:?}");
    world.endpoint = Endpoint::DeviceServer("desktop".into(), "git".into());
    assert!(world.post(LIST)[0].starts_with("reply 3 200"), "404 would end the session");
    world.endpoint = Endpoint::Server("git".into());
    assert!(world.post(LIST)[0].contains(" open 1 git tools/list"), "it is the server's to answer");
}

#[test]
fn initialize_is_answered_for_the_relay_or_for_the_server() {
    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let mut world = World::ready();
    world.version = Version::V2025_06_18;
    let info = r#"{"name":"files","state":"ready","info":{"name":"fs","version":"1","x":[]},"instructions":"Be kind.",
        "capabilities":{"tools":{},"resources":{"subscribe":true},"prompts":null,"logging":{}}}"#;
    world.catalog(1, &whole(&[info.into()]));
    let answer = world.ask(INITIALIZE)["result"].clone();
    assert_eq!(answer["protocolVersion"], "2025-06-18");
    let united = serde_json::json!({
        "tools": {"listChanged": true}, "resources": {"listChanged": true, "subscribe": true}, "logging": {}});
    assert_eq!(answer["capabilities"], united);
    assert_eq!(answer["serverInfo"]["name"], "mcp-local-tunnel");
    assert!(answer["instructions"].as_str().unwrap().ends_with("\n\n## files\n\nBe kind."));
    world.endpoint = Endpoint::Server("files".into());
    let answer = world.ask(INITIALIZE)["result"].clone();
    assert_eq!(answer["serverInfo"], serde_json::json!({"name": "fs", "version": "1", "x": []}));
    assert_eq!(answer["instructions"], "Be kind.");
    let declared = serde_json::json!({"tools": {}, "resources": {"subscribe": true}, "prompts": null, "logging": {}});
    assert_eq!(answer["capabilities"], declared, "as the server said it");
}

#[test]
fn server_info_that_no_client_can_read_is_replaced() {
    for info in ["7", "[]", "{}", r#"{"name":"x"}"#, r#"{"name":1,"version":"1"}"#] {
        let mut world = World::ready();
        world.catalog(1, &whole(&[format!(r#"{{"name":"files","state":"ready","info":{info}}}"#)]));
        world.endpoint = Endpoint::Server("files".into());
        let answer = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#);
        assert_eq!(answer["result"]["serverInfo"]["name"], "mcp-local-tunnel", "{info}");
    }
}

proptest::proptest! {
    /// Whole catalogs and changes of them, in any order, leave what the last word about each server says; and whatever is
    /// listed otherwise is news.
    #[test]
    fn changes_add_up_to_what_a_whole_catalog_would_say(
        steps in proptest::collection::vec((0..3_u8, proptest::collection::btree_map(0..4_u8, proptest::collection::btree_set(0..3_u8, 0..3), 0..4)), 1..20)
    ) {
        use alloc::collections::BTreeMap;
        let (mut catalog, mut model) = (Catalog::default(), BTreeMap::<String, Vec<String>>::new());
        let most = RelayLimits::default();
        let now = World::new().now;
        let shown = |catalog: &Catalog| -> BTreeMap<String, Vec<String>> {
            let tools = |server: &crate::relay::catalog::Server| server.offer(Era::Legacy).tools.iter().map(|tool| tool.name.to_string()).collect();
            catalog.servers().map(|(name, server)| (name.to_string(), tools(server))).collect()
        };
        for (kind, servers) in steps {
            let named: BTreeMap<String, Vec<String>> = servers
                .iter()
                .map(|(name, tools)| (format!("s{name}"), tools.iter().map(|tool| format!("t{tool}")).collect()))
                .collect();
            let json: Vec<String> = named.iter().map(|(name, tools)| server(name, &tools.iter().map(|tool| &**tool).collect::<Vec<_>>())).collect();
            let before = model.clone();
            let update = match kind {
                0 => {
                    model = named;
                    whole(&json)
                }
                1 => {
                    model.extend(named);
                    format!(r#"{{"servers":[{}]}}"#, json.join(","))
                }
                _ => {
                    model.retain(|name, _| !named.contains_key(name));
                    let gone: Vec<String> = named.keys().map(|name| rpc::quoted(name)).collect();
                    format!(r#"{{"removed":[{}]}}"#, gone.join(","))
                }
            };
            let is_news = catalog.apply(&Bytes::from(update), &most, now);
            proptest::prop_assert_eq!(shown(&catalog), model.clone());
            proptest::prop_assert_eq!(is_news, model != before);
            proptest::prop_assert_eq!(catalog.fault(), None);
        }
    }

    #[test]
    fn any_catalog_leaves_the_list_whole(text in proptest::prelude::any::<Vec<u8>>(), name in ".{0,200}", tool in ".{0,200}") {
        let mut world = World::ready();
        world.tunnel(1, tunnel::Event::Catalog(Bytes::from(text)));
        let odd = server("odd", &["x"]).replace("\"odd\"", &rpc::quoted(&name)).replace("\"x\"", &rpc::quoted(&tool));
        world.catalog(1, &whole(&[odd, server("files", &["read"])]));
        let names = names(&mut world);
        proptest::prop_assert!(names.contains(&"files__read".to_string()));
        proptest::prop_assert!(names.iter().all(|name| name.len() <= 64));
    }
}

/// What these devices list together, in their order.
fn together(devices: &[(&str, String)], naming: Naming) -> Listing {
    let names: Vec<_> = devices.iter().map(|(name, _)| DeviceName::new(name)).collect();
    let catalog = |(_, update): &(&str, String)| {
        let mut catalog = Catalog::default();
        catalog.apply(&update.clone().into(), &RelayLimits::default(), Now::default());
        catalog
    };
    let catalogs: Vec<_> = devices.iter().map(catalog).collect();
    let source = |(at, catalog)| Source { conn: ConnId(at as u64), device: &names[at], catalog };
    let sources: Vec<_> = catalogs.iter().enumerate().map(source).collect();
    Listing::new(&sources, Era::Modern, naming)
}

/// As many of the largest entries as all devices may list together, half of them on each of two, and 40 small ones more.
fn too_much(list: &str, entry: fn(usize, &str) -> String) -> Listing {
    let large = "x".repeat(limits::MAX_TOOL - entry(0, "").len());
    let entries = |numbers: core::ops::Range<usize>| {
        let entry = |n| if n < MOST { entry(n, &large) } else { entry(n, "") };
        let entries: Vec<_> = numbers.map(entry).collect();
        whole(&[format!(r#"{{"name":"s","state":"ready","{list}":[{}]}}"#, entries.join(","))])
    };
    together(&[("a", entries(0..MOST / 2)), ("b", entries(MOST / 2..MOST + 40))], Naming::Auto)
}

const MOST: usize = limits::MAX_CATALOG / limits::MAX_TOOL;

fn whys(listing: &Listing) -> Vec<&str> {
    listing.dropped().map(|dropped| dropped.why).collect()
}

#[test]
fn tools_of_all_devices_are_bounded_and_some_of_the_rest_are_named() {
    let listing = too_much("tools", |n, fill| format!(r#"{{"name":"t{n:04}","inputSchema":{{}},"x":"{fill}"}}"#));
    assert_eq!(listing.names_by_server().values().map(Vec::len).sum::<usize>(), MOST);
    assert_eq!(whys(&listing), ["all devices together list too much"; 32]);
}

#[test]
fn resources_of_all_devices_are_bounded_and_some_of_the_rest_are_named() {
    let listing = too_much("resources", |n, fill| format!(r#"{{"name":"r","uri":"a:{n:04}","x":"{fill}"}}"#));
    let listed = core::str::from_utf8(&listing.resources.bodies.resources).unwrap();
    assert_eq!(listed.matches("\"uri\":").count(), MOST);
    assert_eq!(whys(&listing), ["all devices together list too much"; 32]);
}

#[test]
fn tool_that_has_neither_of_its_names_for_itself_is_left_out_and_named() {
    let device = |name: &'static str, server_of: &str, tool: &str| (name, whole(&[server(server_of, &[tool])]));
    let devices =
        [device("d1", "d4", "b__c"), device("d2", "d3", "b__c"), device("d3", "b", "c"), device("d4", "b", "c")];
    let listing = together(&devices, Naming::Never);
    let listed: Vec<_> = listing.names_by_server().into_values().flatten().collect();
    assert_eq!(listed, ["d4__b__c", "d3__b__c", "b__c"]);
    let dropped: Vec<_> = listing.dropped().map(|dropped| (dropped.name.as_str(), dropped.why)).collect();
    assert_eq!(dropped, [("b__c", "another one has its name")]);
}
