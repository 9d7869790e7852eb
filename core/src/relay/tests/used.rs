//! What the authorization server is told of grants' use.

use super::*;

/// The grants that are told of since this was asked last.
fn told(world: &mut World) -> Vec<String> {
    let actions = core::iter::from_fn(|| world.shard.poll_action());
    actions.filter(|action| matches!(action, Action::Used { .. })).map(|action| show(&action)).collect()
}

fn ask(world: &mut World, family: &str) -> Vec<String> {
    let principal = Principal { family: family.into(), ..principal("ann", Role::Client) };
    world.exchanges += 1;
    world.event(Event::Post(Post {
        exchange: ExchangeId(world.exchanges),
        principal: Arc::new(principal),
        endpoint: Endpoint::All,
        speaker: Speaker::Legacy(world.session()),
        accepts: Accepts::Either,
        headers: HeaderMap::new(),
        audit: None,
        content: Content::Request(Request {
            id: crate::rpc::RawId::from_number(1),
            method: "ping".into(),
            params: Bytes::new(),
        }),
    }));
    told(world)
}

#[test]
fn use_of_a_grant_is_told_once_an_hour() {
    let mut world = World::new();
    assert_eq!(ask(&mut world, "f1"), ["used f1"]);
    assert_eq!(ask(&mut world, "f1"), Vec::<String>::new());
    assert_eq!(ask(&mut world, "f2"), ["used f2"], "each by itself");
    world.advance(Duration::from_millis(3_599_999));
    assert_eq!(ask(&mut world, "f1"), Vec::<String>::new());
    world.advance(Duration::from_millis(1));
    assert_eq!(ask(&mut world, "f1"), ["used f1"]);
}
