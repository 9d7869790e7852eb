//! When grants were used last: known coarsely, kept with few writes, told to their person and to the operator.

use super::*;
use crate::id::{ConnId, DeviceName};

const HOUR: Duration = Duration::from_secs(3_600);

fn mint(relay: &mut Relay) -> FamilyId {
    let made = relay.admin(AdminCommand::TokenCreate {
        user: "ann".into(),
        role: Role::Client,
        scope: "mcp:read".into(),
        label: "cron".into(),
        lifetime_secs: 90 * 86_400,
    });
    FamilyId::from(text(&made, "id"))
}

fn used(relay: &mut Relay, family: &FamilyId) {
    relay.event(Event::Used { family: family.clone() });
}

fn last(relay: &mut Relay) -> Value {
    let tokens = relay.admin(AdminCommand::TokenList)["tokens"][0]["used"].clone();
    let grants = relay.admin(AdminCommand::GrantList { user: None })["grants"][0]["used"].clone();
    assert_eq!(tokens, grants);
    tokens
}

#[test]
fn use_of_a_minted_token_is_told_and_outlives_a_restart() {
    let mut relay = Relay::new();
    let family = mint(&mut relay);
    assert_eq!(last(&mut relay), Value::Null);
    let page = Browser::default().open_account(&mut relay, "ann");
    assert!(html(&page).contains("Not used yet") && html(&page).contains("read what your servers offer"));
    assert!(!html(&page).contains("run all tools"), "a scope that it does not have");
    relay.pass(HOUR);
    used(&mut relay, &family);
    assert_eq!(last(&mut relay), START + 3_600);
    let mut relay = relay.restart();
    assert_eq!(last(&mut relay), START + 3_600);
    let mut ann = Browser::default();
    let page = ann.open_account(&mut relay, "ann");
    assert!(html(&page).contains("within the hour"), "{}", html(&page));
    relay.now = Now { unix: relay.now.unix + 26 * HOUR, ..relay.now };
    let page = Browser::default().open_account(&mut relay, "ann");
    assert!(html(&page).contains("1 day ago"), "{}", html(&page));
}

#[test]
fn busy_client_costs_a_write_an_hour() {
    let mut relay = Relay::new();
    let family = mint(&mut relay);
    relay.pass(HOUR);
    relay.hold_writes();
    for _ in 0..240 {
        used(&mut relay, &family);
        let held = relay.held.take().unwrap_or_default();
        relay.held = Some(Vec::new());
        for (job, changes) in held {
            relay.write(job, changes);
            relay.settle();
            relay.others.push(Action::RevokedAll);
        }
        relay.pass(Duration::from_secs(60));
    }
    let writes = core::mem::take(&mut relay.others).len();
    assert!((4..=5).contains(&writes), "{writes} writes in four hours");
}

#[test]
fn use_of_what_ended_or_never_was_changes_nothing() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let family = relay.open(&tokens.access, "/mcp").expect("good").family;
    relay.post("/revoke", &[("client_id", &tokens.client), ("token", &tokens.refresh)]);
    relay.revoked();
    let before = relay.store.clone();
    relay.pass(2 * HOUR / 3);
    for family in [family, FamilyId::new("never was")] {
        used(&mut relay, &family);
    }
    assert_eq!(relay.store, before);
}

#[test]
fn use_during_a_refresh_is_not_lost() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let family = relay.open(&tokens.access, "/mcp").expect("good").family;
    relay.hold_writes();
    let refreshing = relay.send_form("/token", &refresh(&tokens.client, &tokens.refresh));
    relay.now = Now { unix: relay.now.unix + Duration::from_secs(30), ..relay.now };
    used(&mut relay, &family);
    relay.let_go();
    assert!(relay.answer(refreshing).status.is_success());
    let list = relay.admin(AdminCommand::GrantList { user: None });
    assert_eq!(list["grants"][0]["used"], START + 30);
}

#[test]
fn tunnel_that_stays_up_for_days_is_seen_all_the_time() {
    let mut relay = Relay::new();
    let agent = "mcp-local-tunnel-agent";
    let code = relay.code(agent, LOOPBACK);
    let tokens = Tokens::new(agent.into(), &relay.redeem(agent, LOOPBACK, &code));
    let family = relay.open(&tokens.access, "/ws").expect("good").family;
    relay.event(Event::TunnelUp { conn: ConnId(1), family, device: DeviceName::new("laptop") });
    for _ in 0..50 {
        relay.pass(HOUR);
    }
    // It ends without having heard of the tunnel's end.
    let mut relay = relay.restart();
    let list = relay.admin(AdminCommand::GrantList { user: None });
    let used = list["grants"][0]["used"].as_u64().expect("it was used");
    assert!(used >= START + 48 * 3_600, "{list}");
}
