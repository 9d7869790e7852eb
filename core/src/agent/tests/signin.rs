//! An agent that signs in by itself.

use super::*;
use crate::http::fetch::{FetchError, Fetched};
use crate::id::FetchId;
use crate::limits;
use crate::mcp::catalog::State;
use crate::signin::machine::{self as signin, Failure};

fn new(person: Person) -> Rig {
    let mut rig = Rig::new(config(&["a"]), None);
    rig.event(Event::Start { person });
    assert!(rig.signin(|action| matches!(action, signin::Action::Load)));
    rig
}

/// A file of tokens that are good for so many seconds.
fn tokens(rig: &Rig, secs: u64) -> Event {
    let expires = (rig.now.unix + Duration::from_secs(secs)).as_millis();
    let file = json!({
        "issuer": "https://relay.example", "clientId": "mcp-local-tunnel-agent",
        "accessToken": "access", "refreshToken": "refresh", "expiresAt": expires,
    });
    Event::Signin(signin::Event::Loaded(Some(Bytes::from(file.to_string()))))
}

impl Rig {
    /// Takes an order of the sign-in out.
    fn signin(&mut self, wanted: impl Fn(&signin::Action) -> bool) -> bool {
        let taken = self.take(|action| match action {
            Action::Signin(action) if wanted(action) => Some(()),
            _ => None,
        });
        taken.is_some()
    }

    fn signin_fetch(&mut self) -> Option<FetchId> {
        self.take(|action| match action {
            Action::Signin(signin::Action::Fetch { fetch, .. }) => Some(*fetch),
            _ => None,
        })
    }

    /// The relay does not answer the sign-in.
    fn unreachable(&mut self) {
        let fetch = self.signin_fetch().expect("the relay was asked");
        let result = Err(FetchError::Connect("refused".to_string()));
        self.event(Event::Signin(signin::Event::Fetched { fetch, result }));
    }
}

#[test]
fn nothing_is_signed_in_before_the_start() {
    let mut rig = Rig::new(config(&["a"]), None);
    rig.event(Event::Signin(signin::Event::Start { person: Person::Here }));
    assert!(rig.actions.is_empty(), "{:?}", rig.actions);
    rig.event(Event::Start { person: Person::Here });
    assert!(rig.signin(|action| matches!(action, signin::Action::Load)));
}

#[test]
fn nothing_is_started_before_somebody_signs_in() {
    let mut rig = new(Person::Here);
    rig.event(Event::Signin(signin::Event::Loaded(None)));
    rig.advance(Duration::from_secs(1));
    assert_eq!((rig.spawned("a"), rig.dialled()), (None, None));
    rig.unreachable();
    rig.advance(Duration::from_secs(1));
    assert_eq!((rig.spawned("a"), rig.dialled()), (None, None));
}

#[test]
fn tokens_of_another_relay_are_no_sign_in() {
    let mut rig = new(Person::Here);
    let file = json!({"issuer": "https://other", "clientId": "x", "accessToken": "a", "expiresAt": 9});
    rig.event(Event::Signin(signin::Event::Loaded(Some(Bytes::from(file.to_string())))));
    assert_eq!((rig.spawned("a"), rig.dialled()), (None, None));
}

#[test]
fn cached_tokens_start_servers_and_dial_at_once() {
    let mut rig = new(Person::Absent);
    let loaded = tokens(&rig, 3600);
    rig.event(loaded);
    assert!(rig.spawned("a").is_some() && rig.dialled().is_some());
}

#[test]
fn servers_of_a_signed_in_device_start_while_the_relay_is_down_and_it_is_tried_again() {
    let mut rig = new(Person::Absent);
    let loaded = tokens(&rig, 0);
    rig.event(loaded);
    rig.bring_up("a", &["x"]);
    rig.unreachable();
    let relay = rig.status().relay;
    assert_eq!(relay.state, status::Uplink::Waiting);
    assert!(relay.last_error.unwrap().contains("cannot reach https://relay.example"));
    for _ in 0..10 {
        rig.advance(limits::RECONNECT_MAX);
        assert!(rig.signin(|action| matches!(action, signin::Action::Load)));
        let loaded = tokens(&rig, 0);
        rig.event(loaded);
        rig.unreachable();
    }
    rig.event(Event::Nudge);
    assert!(rig.signin(|action| matches!(action, signin::Action::Load)), "tried at once");
    let loaded = tokens(&rig, 3600);
    rig.event(loaded);
    assert!(rig.dialled().is_some());
    assert_eq!((rig.exit(), rig.spawned("a")), (None, None));
}

#[test]
fn token_is_not_asked_for_again_before_the_relay_wants_it() {
    let mut rig = new(Person::Here);
    let loaded = tokens(&rig, 0);
    rig.event(loaded);
    let headers = [(::http::header::RETRY_AFTER, "90".parse().unwrap())].into_iter().collect();
    let answer = Fetched { status: ::http::StatusCode::TOO_MANY_REQUESTS, headers, body: Bytes::new() };
    let fetch = rig.signin_fetch().unwrap();
    rig.event(Event::Signin(signin::Event::Fetched { fetch, result: Ok(answer) }));
    let asks = |rig: &mut Rig| rig.signin(|action| matches!(action, signin::Action::Load));
    rig.advance(Duration::from_secs(89));
    assert!(!asks(&mut rig));
    rig.advance(Duration::from_secs(1));
    assert!(asks(&mut rig));
}

#[test]
fn agent_without_a_person_ends_when_nobody_has_signed_in() {
    let mut rig = new(Person::Absent);
    rig.event(Event::Signin(signin::Event::Loaded(None)));
    assert!(matches!(rig.exit(), Some(Exit::NeedsLogin(Failure::NeedsLogin { .. }))));
    assert_eq!(rig.spawned("a"), None);
}

#[test]
fn refused_token_is_exchanged_for_another() {
    let mut rig = new(Person::Absent);
    let loaded = tokens(&rig, 3600);
    rig.event(loaded);
    rig.connect(Dialect::V2);
    rig.bring_up("a", &["x"]);
    rig.closed(CloseCode::Revoked);
    assert!(rig.signin(|action| matches!(action, signin::Action::Load)), "another process may have a newer one");
    let loaded = tokens(&rig, 3600);
    rig.event(loaded);
    assert!(rig.signin_fetch().is_some(), "the refused one is not used again");
    assert_eq!((rig.dialled(), rig.server_status("a").state), (None, State::Ready));
}

#[test]
fn sign_in_that_is_refused_ends_the_agent_after_its_servers() {
    let mut rig = new(Person::Absent);
    let loaded = tokens(&rig, 0);
    rig.event(loaded);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    let without_refresh = json!({
        "issuer": "https://relay.example", "clientId": "mcp-local-tunnel-agent", "accessToken": "a", "expiresAt": 0,
    });
    rig.unreachable();
    rig.advance(limits::RECONNECT_MAX);
    rig.event(Event::Signin(signin::Event::Loaded(Some(Bytes::from(without_refresh.to_string())))));
    assert_eq!(rig.exit(), None);
    rig.exited(child, 0, "");
    assert!(matches!(rig.exit(), Some(Exit::NeedsLogin(_))));
}
