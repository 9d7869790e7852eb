//! A shard at the edges: one more than fits, and a byte more.

use alloc::vec;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Uri};

use super::super::catalog::Catalog;
use super::super::handshake::{DEVICE_HEADER, device_id, device_name};
use super::aggregate::{answered, request, rich, two_servers};
use super::*;
use crate::http::RequestHead;
use crate::limits;
use crate::mcp::{Era, code};
use crate::relay::offer::Offer;

/// A catalog that took these in, one after the other, and whether each was news.
fn taken(updates: &[String], most: &RelayLimits) -> (Catalog, Vec<bool>) {
    let mut catalog = Catalog::default();
    let news = updates.iter().map(|update| catalog.apply(&update.clone().into(), most, Now::default())).collect();
    (catalog, news)
}

/// A server with these members.
fn with(name: &str, members: &str) -> String {
    format!(r#"{{"name":"{name}","state":"ready",{members}}}"#)
}

/// What of the only server's is left, and how many parts were left out.
fn offered<R>(members: &str, of: impl FnOnce(&Offer) -> R) -> (R, usize) {
    let (catalog, _) = taken(&[whole(&[with("files", members)])], &RelayLimits::default());
    let (_, server) = catalog.servers().next().expect("it has a server");
    (of(server.offer(Era::Modern)), server.dropped.len())
}

#[test]
fn catalog_of_as_many_servers_as_there_may_be_is_taken_and_a_larger_one_changes_nothing() {
    let servers = |count: usize| whole(&(0..count).map(|n| server(&format!("s{n}"), &[])).collect::<Vec<_>>());
    for (count, listed) in [(limits::MAX_SERVERS, limits::MAX_SERVERS), (limits::MAX_SERVERS + 1, 1)] {
        let (catalog, _) = taken(&[servers(1), servers(count)], &RelayLimits::default());
        assert_eq!((catalog.servers().count(), catalog.fault().is_none()), (listed, listed == count));
    }
}

#[test]
fn server_beyond_the_last_is_left_out_and_one_that_is_there_may_change() {
    let all: Vec<_> = (0..limits::MAX_SERVERS).map(|n| server(&format!("s{n}"), &[])).collect();
    let change = |name: &str| format!(r#"{{"servers":[{}]}}"#, server(name, &["new"]));
    let (catalog, news) = taken(&[whole(&all), change("s0")], &RelayLimits::default());
    assert_eq!((catalog.fault(), news), (None, vec![true, true]));
    let (catalog, _) = taken(&[whole(&all), change("another")], &RelayLimits::default());
    assert!(catalog.server("another").is_none() && catalog.fault().is_some());
}

#[test]
fn fault_of_a_catalog_is_gone_with_the_next_that_has_none() {
    let odd = r#"{"servers":[7]}"#.to_string();
    let (catalog, news) = taken(&[odd.clone(), files()], &RelayLimits::default());
    assert_eq!((catalog.fault(), news), (None, vec![true, true]), "what is left out is news");
    let (catalog, _) = taken(&[files(), odd], &RelayLimits::default());
    assert!(catalog.fault().is_some_and(|fault| fault.contains("left out")));
}

#[test]
fn change_for_clients_of_one_era_is_news() {
    let tool = |name: &str| format!(r#"[{{"name":"{name}","inputSchema":{{}}}}]"#);
    let both = |modern: &str, legacy: &str| {
        whole(&[with("s", &format!(r#""tools":{},"legacy":{{"tools":{}}}"#, tool(modern), tool(legacy)))])
    };
    let updates = [both("a", "a"), both("a", "b"), both("c", "b"), both("c", "b")];
    assert_eq!(taken(&updates, &RelayLimits::default()).1, [true, true, true, false]);
}

#[test]
fn prompts_of_all_servers_of_a_device_are_bounded_together() {
    let prompts = |name: &str, count: usize| {
        let prompts: Vec<_> = (0..count).map(|n| format!(r#"{{"name":"p{n}"}}"#)).collect();
        with(name, &format!(r#""prompts":[{}]"#, prompts.join(",")))
    };
    let update = whole(&[prompts("a", limits::MAX_PROMPTS - 1), prompts("b", 2)]);
    let (catalog, _) = taken(&[update], &RelayLimits::default());
    let counts: Vec<_> = catalog.servers().map(|(_, server)| server.offer(Era::Modern).prompts.len()).collect();
    assert_eq!(counts, [limits::MAX_PROMPTS - 1, 1]);
}

#[test]
fn each_tool_takes_its_bytes_and_what_parts_it_from_the_next() {
    let tool = |name: &str| format!(r#"{{"name":"{name}","inputSchema":{{}}}}"#);
    let (a, b) = (tool("a"), tool("b"));
    for (most, listed) in [(a.len() + 1 + b.len(), 2), (a.len() + b.len(), 1)] {
        let bounds = RelayLimits { catalog_per_agent: most, ..RelayLimits::default() };
        let (catalog, _) = taken(&[whole(&[with("files", &format!(r#""tools":[{a},{b}]"#))])], &bounds);
        let (_, server) = catalog.servers().next().unwrap();
        assert_eq!(server.offer(Era::Modern).tools.len(), listed);
    }
}

#[test]
fn what_is_left_out_is_named_up_to_a_bound() {
    let odd = ["7"; 40].join(",");
    for list in ["tools", "prompts"] {
        assert_eq!(offered(&format!(r#""{list}":[{odd}]"#), |_| ()).1, 32, "{list}");
    }
}

#[test]
fn long_name_of_what_is_left_out_is_cut() {
    let name = "n".repeat(3 * limits::MAX_LISTED_NAME);
    let (catalog, _) = taken(
        &[whole(&[with("files", &format!(r#""tools":[{{"name":"{name}","inputSchema":{{}}}}]"#))])],
        &RelayLimits::default(),
    );
    let (_, server) = catalog.servers().next().unwrap();
    assert_eq!(server.dropped[0].name.len(), 2 * limits::MAX_LISTED_NAME);
}

#[test]
fn what_a_server_says_of_itself_is_taken_up_to_its_bound() {
    let text = |length: usize| "x".repeat(length);
    for (more, fits) in [(0, true), (1, false), (2, false)] {
        let instructions = format!(r#""instructions":"{}""#, text(limits::MAX_INSTRUCTIONS + more));
        assert_eq!(offered(&instructions, |offer| offer.instructions.is_some()).0, fits);
        let capabilities =
            format!(r#""capabilities":{{"x":"{}"}}"#, text(limits::MAX_TOOL - r#"{"x":""}"#.len() + more));
        assert_eq!(offered(&capabilities, |offer| offer.capabilities.is_some()).0, fits);
        let bare = r#"{"name":"p","x":""}"#.len();
        let prompt = format!(r#""prompts":[{{"name":"p","x":"{}"}}]"#, text(limits::MAX_TOOL - bare + more));
        assert_eq!(offered(&prompt, |offer| offer.prompts.len()).0, usize::from(fits));
        let uri = format!(r#""resources":[{{"name":"r","uri":"a:{}"}}]"#, text(limits::MAX_LISTED_URI - 2 + more));
        assert_eq!(offered(&uri, |offer| offer.resources.len()).0, usize::from(fits));
    }
}

#[test]
fn resource_whose_scheme_is_none_is_left_out() {
    for (uri, fits) in [("a1+.-:x", true), ("1a:x", false), ("a_b:x", false), ("x", false), (":x", false)] {
        let (listed, _) =
            offered(&format!(r#""resources":[{{"name":"r","uri":"{uri}"}}]"#), |offer| offer.resources.len());
        assert_eq!(listed, usize::from(fits), "{uri}");
    }
}

#[test]
fn instructions_of_servers_are_joined_as_long_as_there_is_room() {
    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let mut world = World::ready();
    let joined = |world: &mut World| world.ask(INITIALIZE)["result"]["instructions"].as_str().unwrap().to_string();
    let guide = joined(&mut world);
    let room = limits::MAX_INSTRUCTIONS - guide.len() - "\n\n## a\n\n".len();
    for (length, fits) in [(room, true), (room + 1, false)] {
        let own = "x".repeat(length);
        world.catalog(1, &whole(&[with("a", &format!(r#""instructions":"{own}""#))]));
        let expected = if fits { format!("{guide}\n\n## a\n\n{own}") } else { guide.clone() };
        assert_eq!(joined(&mut world), expected, "{length}");
    }
}

/// The names and descriptions of all tools but the relay's own.
fn tools(world: &mut World) -> Vec<(String, String)> {
    let list = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let text = |tool: &serde_json::Value, key: &str| tool[key].as_str().unwrap_or_default().to_string();
    let tools = list["result"]["tools"].as_array().unwrap().iter();
    tools.map(|tool| (text(tool, "name"), text(tool, "description"))).filter(|(name, _)| name.contains("__")).collect()
}

#[test]
fn tool_whose_name_is_taken_is_listed_under_its_other_one() {
    let mut world = World::with(&RelayConfig { naming: Naming::Never, ..config() });
    for (conn, device, name, tool) in [(1, "a", "b", "c"), (2, "y", "b", "c"), (3, "z", "a", "b__c")] {
        world.up(conn, device, Some(device));
        world.catalog(conn, &whole(&[server(name, &[tool])]));
    }
    world.drain();
    let names: Vec<_> = tools(&mut world).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a__b__c", "y__b__c", "z__a__b__c"]);
}

#[test]
fn description_names_the_device_where_the_name_does() {
    for (naming, label) in [(Naming::Always, "[laptop/files] Tool read"), (Naming::Auto, "[files] Tool read")] {
        let mut world = World::with(&RelayConfig { naming, ..config() });
        world.up(1, "laptop", Some("id-1"));
        world.catalog(1, &files());
        world.drain();
        assert_eq!(tools(&mut world)[0].1, label);
    }
}

#[test]
fn unknown_name_is_compared_letter_by_letter_and_three_are_told_the_nearest_first() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[server("s", &["abcdefgh", "abcdefgx", "abcdefxx", "abcdexxx", "abcdxxxx"])]));
    world.drain();
    for (asked, near) in [
        ("s__abcdefghi", "did you mean s__abcdefgh, s__abcdefgx, s__abcdefxx?"),
        ("s__abcdxxxxy", "did you mean s__abcdxxxx, s__abcdexxx, s__abcdefxx?"),
        ("xxxstatus", "did you mean status?"),
        ("xxxxstatus", "tools/list has the names"),
        ("xxxxxxxxs_abcdefgh", "tools/list has the names"),
    ] {
        let told = world.post(&call(asked, 1));
        assert!(told[0].contains(near), "{asked}: {told:?}");
    }
}

#[test]
fn answer_is_whole_up_to_a_size_and_begun_beyond() {
    for (length, actions) in [(limits::WHOLE_ANSWER, 1), (limits::WHOLE_ANSWER + 1, 5)] {
        let mut world = World::ready();
        world.call(1);
        world.answer(1, 1, Some(length as u64));
        let text = format!("\"{}\"", "x".repeat(length - 2));
        assert_eq!(world.data(1, 1, &text, true).len(), actions, "{length}");
    }
}

#[test]
fn part_of_a_gathering_may_come_in_pieces_and_is_bounded() {
    for (more, done) in [(0, true), (1, false), (2, false)] {
        let mut world = two_servers();
        world.post(&request(7, "logging/setLevel", r#"{"level":"error"}"#));
        answered(&mut world, 2, "{}");
        world.answer(1, 1, None);
        let half = format!("[\"{}", "x".repeat(limits::MAX_BATCH_ANSWER / 2 - 2));
        assert_eq!(world.data(1, 1, &half, false), [format!("tunnel 1 consumed 1 {}", half.len())]);
        let rest = format!("{}\"]", "x".repeat(limits::MAX_BATCH_ANSWER / 2 - 2 + more));
        let told = world.data(1, 1, &rest, true);
        let reset = "tunnel 1 reset 1 TooLarge".to_string();
        let reply = r#"reply 1 200 {"jsonrpc":"2.0","id":7,"result":{}}"#.to_string();
        assert_eq!(told, Vec::from_iter(Some(reset).filter(|_| !done).into_iter().chain([reply])));
    }
}

#[test]
fn list_of_tasks_that_never_ends_is_left_at_its_bound() {
    let mut world = two_servers();
    world.catalog(1, &whole(&[rich("a", "")]));
    world.drain();
    world.post(&request(1, "tasks/list", "{}"));
    let page = |n: u32| format!(r#"{{"tasks":[{{"taskId":"t-{n}"}}],"nextCursor":"more"}}"#);
    let pages = u32::try_from(limits::MAX_TASK_PAGES).unwrap();
    for stream in 1..pages {
        assert!(answered(&mut world, stream, &page(stream))[0].contains("tasks/list"), "{stream}");
    }
    let done = answered(&mut world, pages, &page(pages));
    assert_eq!((done.len(), done[0].matches("taskId").count()), (1, limits::MAX_TASK_PAGES));
}

#[test]
fn level_is_taken_at_once_where_every_server_sleeps() {
    let mut world = two_servers();
    world.catalog(1, &whole(&[rich("a", "").replace("\"ready\"", "\"asleep\"")]));
    world.drain();
    let told = world.post(&request(7, "logging/setLevel", r#"{"level":"error"}"#));
    assert_eq!(told, [r#"reply 1 200 {"jsonrpc":"2.0","id":7,"result":{}}"#]);
}

#[test]
fn answers_of_a_batch_may_fill_their_bound_and_the_one_beyond_is_left_out() {
    let bare = r#"{"jsonrpc":"2.0","id":1,"result":""}"#.len();
    for (more, fits) in [(0, true), (1, false)] {
        let mut world = World::ready();
        let item = |id: u32| {
            let params = Bytes::from_static(br#"{"name":"files__read"}"#);
            Item::Request(Request { id: rpc::RawId::from_number(id.into()), method: "tools/call".into(), params })
        };
        world.content(Content::Batch(vec![item(1), item(2)]));
        let text = |length: usize| format!("\"{}\"", "x".repeat(length));
        world.answer(1, 1, None);
        world.data(1, 1, &text(limits::MAX_BATCH_ANSWER / 2 - bare), true);
        world.answer(1, 2, None);
        let told = world.data(1, 2, &text(limits::MAX_BATCH_ANSWER / 2 - bare + more), true);
        assert_eq!(told[0].contains(r#""id":2,"error""#), !fits);
        assert_eq!(told[0].contains("batch-too-large"), !fits);
    }
}

#[test]
fn half_of_a_devices_calls_are_left_to_others() {
    let mut world = World::ready();
    world.tunnel(1, tunnel::Event::Up(tunnel::Hello { max_streams: 4, ..Default::default() }));
    for (session, opened) in [("s", 2), ("t", 1), ("u", 1), ("v", 0)] {
        (world.session, world.family) = (session, session);
        let ids = 1..=4;
        let told = ids.map(|id| world.call(id).remove(0));
        assert_eq!(told.filter(|told| told.contains(" open ")).count(), opened, "{session}");
    }
}

#[test]
fn name_and_id_of_a_device_are_taken_up_to_their_bounds() {
    for (length, fits) in [(limits::MAX_DEVICE_NAME, true), (limits::MAX_DEVICE_NAME + 1, false)] {
        assert_eq!(device_name(Some(&"n".repeat(length))).is_ok(), fits);
    }
    for (length, fits) in [(64, true), (65, false)] {
        let field = HeaderValue::from_str(&"n".repeat(length)).unwrap();
        let headers = [(HeaderName::from_static(DEVICE_HEADER), field)].into_iter().collect();
        let (method, uri, peer) = (Method::GET, Uri::from_static("/ws"), [127, 0, 0, 1].into());
        assert_eq!(device_id(&RequestHead { method, uri, headers, peer }).is_ok(), fits);
    }
}

#[test]
fn task_that_is_not_found_on_servers_that_sleep_is_not_waited_for() {
    let mut world = two_servers();
    let asleep = ["a", "b"].map(|name| rich(name, "").replace("\"ready\"", "\"asleep\""));
    world.catalog(1, &whole(&asleep));
    world.drain();
    let told = world.post(&request(1, "tasks/get", r#"{"taskId":"t-1"}"#));
    assert_eq!((told.len(), failure(&told[0])), (1, (code::INVALID_PARAMS, "no-such-task".into())));
}

#[test]
fn list_is_whole_up_to_a_size_and_begun_beyond() {
    let list = request(1, "tools/list", "{}");
    let tool = |length: usize| format!(r#"{{"name":"t","description":"{}","inputSchema":{{}}}}"#, "x".repeat(length));
    let with_tool = |length: usize| whole(&[with("files", &format!(r#""tools":[{}]"#, tool(length)))]);
    for version in [Version::V2025_06_18, Version::V2026_07_28] {
        let mut world = World::ready();
        world.catalog(1, &with_tool(0));
        let short = world.post(&list).remove(0);
        let bare = short.len() - r#"reply 1 200 {"jsonrpc":"2.0","id":1,"result":}"#.len();
        world.version = version;
        for (more, fits) in [(1, false), (0, true)] {
            world.catalog(1, &with_tool(limits::WHOLE_ANSWER - bare + more));
            let told = world.post(&list);
            assert_eq!(told[0].starts_with("reply "), fits, "{version:?}: {}", told.len());
        }
    }
}

#[test]
fn device_whose_calls_are_all_taken_takes_nobodys() {
    let mut world = World::ready();
    world.tunnel(1, tunnel::Event::Up(tunnel::Hello { max_streams: 1, ..Default::default() }));
    world.call(1);
    (world.session, world.family) = ("t", "t");
    let told = world.call(1);
    assert!(told[0].contains("too many calls on this device at once"), "{told:?}");
}

#[test]
fn session_has_its_share_of_a_devices_calls_whoever_signed_in_for_it() {
    let mut world = World::ready();
    world.tunnel(1, tunnel::Event::Up(tunnel::Hello { max_streams: 4, ..Default::default() }));
    for (id, family, opened) in [(1, "before", true), (2, "before", true), (3, "after", false)] {
        world.family = family;
        assert_eq!(world.call(id)[0].contains(" open "), opened, "{id}");
    }
}
