//! When the relay is dialled, and what its answers mean.

use super::super::contract::DialError;
use super::*;
use crate::limits;
use crate::signin::machine::Failure;

fn refuse(rig: &mut Rig, status: u16, retry_after: Option<u64>) {
    refuse_with(rig, status, retry_after.map(|secs| secs.to_string()).as_deref(), "");
}

fn refuse_with(rig: &mut Rig, status: u16, retry_after: Option<&str>, challenge: &str) {
    let conn = rig.dialled().expect("the relay was dialled");
    let (retry_after, challenge) = (retry_after.map(str::to_string), challenge.to_string());
    let error = DialError::Status { status, retry_after, challenge, message: "because".to_string() };
    rig.event(Event::DialFailed { conn, error });
}

fn fail(rig: &mut Rig) {
    let conn = rig.dialled().expect("the relay was dialled");
    rig.event(Event::DialFailed { conn, error: DialError::Connect("refused".to_string()) });
}

/// Wall time passes while the machine sleeps, monotonic time does not.
fn sleep(rig: &mut Rig, secs: u64) {
    rig.now.unix = rig.now.unix + Duration::from_secs(secs);
}

fn probes(rig: &mut Rig) -> usize {
    rig.commands().into_iter().filter(|command| *command == Command::Probe).count()
}

#[test]
fn request_names_the_device_and_has_the_token_in_a_header_alone() {
    let mut rig = Rig::started(&[]);
    let (url, headers, hello) = rig
        .take(|action| match action {
            Action::Dial { url, headers, hello, .. } => Some((url.clone(), headers.clone(), hello.clone())),
            _ => None,
        })
        .unwrap();
    assert_eq!(url, "wss://relay.example/ws?name=laptop+of+Ann");
    assert_eq!(headers["authorization"], "Bearer minted");
    assert!(headers["authorization"].is_sensitive());
    assert_eq!(
        (&headers["mcp-tunnel"], &headers["mcp-tunnel-device"]),
        (&"2".parse().unwrap(), &"device-1".parse().unwrap())
    );
    assert_eq!((hello.device.as_str(), hello.os.as_str()), ("laptop of Ann", "linux"));
}

#[test]
fn loopback_relay_is_dialled_without_tls() {
    let mut config = config(&[]);
    config.relay = "http://127.0.0.1:3000".to_string();
    let mut rig = Rig::new(config, Some("t"));
    rig.event(Event::Start { person: Person::Absent });
    let url = rig.take(|action| match action {
        Action::Dial { url, .. } => Some(url.clone()),
        _ => None,
    });
    assert_eq!(url.unwrap(), "ws://127.0.0.1:3000/ws?name=laptop+of+Ann");
}

#[test]
fn first_retry_comes_at_once_and_later_ones_within_half_a_minute() {
    let mut rig = Rig::started(&[]);
    fail(&mut rig);
    rig.advance(limits::RECONNECT_FIRST);
    for _ in 0..20 {
        fail(&mut rig);
        rig.advance(limits::RECONNECT_MAX);
    }
    assert_eq!(rig.status().relay.attempts, 22);
}

#[test]
fn lost_tunnel_is_dialled_again_by_itself() {
    for code in
        [CloseCode::Normal, CloseCode::GoingAway, CloseCode::TimedOut, CloseCode::Protocol, CloseCode::Other(1006)]
    {
        let mut rig = Rig::ready(&[]);
        rig.closed(code);
        assert_eq!(rig.status().relay.state, status::Uplink::Waiting);
        rig.advance(limits::RECONNECT_FIRST);
        assert!(rig.dialled().is_some(), "{code:?}");
    }
}

#[test]
fn tunnel_that_breaks_again_and_again_is_dialled_more_slowly() {
    let mut rig = Rig::started(&[]);
    let mut waits = Duration::ZERO;
    for _ in 0..40 {
        rig.connect(Dialect::V2);
        rig.closed(CloseCode::Protocol);
        waits += Duration::from_millis(rig.status().relay.next_attempt_ms.unwrap());
        rig.advance(limits::RECONNECT_MAX);
    }
    assert!(waits > Duration::from_secs(40), "{waits:?}");
    rig.connect(Dialect::V2);
    rig.advance(limits::RECONNECT_STABLE);
    rig.closed(CloseCode::Protocol);
    rig.advance(limits::RECONNECT_FIRST);
    assert!(rig.dialled().is_some(), "it had held for a minute");
}

#[test]
fn nudge_dials_or_probes_at_once() {
    let mut rig = Rig::started(&[]);
    for _ in 0..10 {
        fail(&mut rig);
        rig.advance(limits::RECONNECT_MAX);
    }
    fail(&mut rig);
    rig.event(Event::Nudge);
    rig.connect(Dialect::V2);
    rig.event(Event::Nudge);
    assert_eq!(probes(&mut rig), 1);
}

#[test]
fn machine_that_slept_probes_its_tunnel() {
    let mut rig = Rig::ready(&[]);
    sleep(&mut rig, 3600);
    rig.advance(limits::WATCH_INTERVAL);
    assert_eq!(probes(&mut rig), 1);
    rig.advance(limits::WATCH_INTERVAL * 3);
    assert_eq!(probes(&mut rig), 0, "once is enough");
}

#[test]
fn machine_that_slept_while_waiting_dials_without_counting_it() {
    let mut rig = Rig::started(&[]);
    for _ in 0..10 {
        fail(&mut rig);
        rig.advance(limits::RECONNECT_MAX);
    }
    fail(&mut rig);
    let attempts = rig.status().relay.attempts;
    sleep(&mut rig, 3600);
    assert_eq!(rig.status().relay.attempts, attempts, "the look at the clocks dialled, and that does not count");
    assert!(rig.dialled().is_some());
}

#[test]
fn clock_set_back_is_no_sleep() {
    let mut rig = Rig::ready(&[]);
    rig.now.unix = UnixTime::from_secs(1_000_000_000);
    rig.advance(limits::WATCH_INTERVAL * 2);
    assert_eq!(probes(&mut rig), 0);
}

#[test]
fn changed_network_is_looked_at_once_it_has_settled_and_not_too_often() {
    let mut rig = Rig::ready(&[]);
    for _ in 0..10 {
        rig.event(Event::NetworkChanged);
    }
    assert_eq!(probes(&mut rig), 0);
    rig.advance(limits::NETWORK_SETTLES);
    assert_eq!(probes(&mut rig), 1);
    for _ in 0..60 {
        rig.event(Event::NetworkChanged);
        rig.advance(Duration::from_secs(1));
    }
    let often = probes(&mut rig);
    assert!((3..=4).contains(&often), "{often}");
}

#[test]
fn changed_network_ends_a_wait_but_not_a_refusal() {
    let mut rig = Rig::started(&[]);
    for _ in 0..10 {
        fail(&mut rig);
        rig.advance(limits::RECONNECT_MAX);
    }
    refuse(&mut rig, 429, Some(600));
    rig.event(Event::NetworkChanged);
    rig.advance(limits::NETWORK_SETTLES);
    rig.connect(Dialect::V2);
    rig.closed(CloseCode::Refused);
    rig.event(Event::NetworkChanged);
    rig.advance(Duration::from_secs(3600));
    assert_eq!(rig.dialled(), None);
}

#[test]
fn every_refusal_leads_to_its_wait_and_its_words() {
    // What was answered; the least and the most seconds until the next attempt.
    let table = [
        (200, None, (0, 30), "sign-in page"),
        (204, None, (0, 30), "sign-in page"),
        (302, None, (0, 30), "sign-in page"),
        (307, Some(3600), (0, 30), "sign-in page"),
        (511, None, (0, 30), "sign-in page"),
        (403, None, (60, 60), "the relay answered 403: because"),
        (404, None, (0, 30), "the relay answered 404: because"),
        (407, None, (0, 30), "407"),
        (409, None, (60, 75), "laptop of Ann"),
        (426, None, (0, 30), "426"),
        (401, None, (0, 30), "something in between"),
        (429, None, (10, 30), "429"),
        (429, Some(90), (90, 90), "429"),
        (500, None, (0, 30), "500"),
        (500, Some(50), (50, 50), "500"),
        (502, None, (0, 30), "502"),
        (502, Some(50), (50, 50), "502"),
        (503, Some(45), (45, 45), "503"),
        (999, None, (0, 30), "999"),
    ];
    for (status, retry_after, wait, words) in table {
        let mut rig = Rig::started(&["a"]);
        refuse(&mut rig, status, retry_after);
        let relay = rig.status().relay;
        let said = relay.last_error.unwrap();
        assert!(said.contains(words), "{status}: {said}");
        assert_eq!(rig.exit(), None, "{status}");
        assert!(rig.spawned("a").is_some(), "{status}: its servers are no concern of the relay's");
        let (least, most) = wait;
        let millis = relay.next_attempt_ms.unwrap();
        assert!((least * 1000..=most * 1000).contains(&millis), "{status}: {millis}");
        rig.advance(Duration::from_secs(most));
        assert!(rig.dialled().is_some(), "{status}");
    }
}

#[test]
fn web_page_is_not_repeated_in_the_log() {
    let mut rig = Rig::started(&[]);
    let conn = rig.dialled().unwrap();
    let message = "<html><body><h1>502 Bad Gateway</h1>".to_string();
    let challenge = String::new();
    rig.event(Event::DialFailed {
        conn,
        error: DialError::Status { status: 502, retry_after: None, challenge, message },
    });
    assert_eq!(rig.status().relay.last_error.as_deref(), Some("the relay answered 502"));
}

#[test]
fn retry_after_is_honoured_within_reason() {
    for (status, asked, least) in [(429, 90, 90), (503, 45, 45), (503, 86_400, 600)] {
        let mut rig = Rig::started(&[]);
        refuse(&mut rig, status, Some(asked));
        rig.advance(Duration::from_secs(least) - Duration::from_millis(1));
        assert_eq!(rig.dialled(), None, "{status} {asked}");
        rig.advance(Duration::from_secs(1));
        assert!(rig.dialled().is_some(), "{status} {asked}");
    }
}

#[test]
fn date_in_retry_after_is_waited_for() {
    let mut rig = Rig::started(&[]);
    let at = i64::try_from((rig.now.unix + Duration::from_secs(60)).as_secs()).unwrap();
    let date = chrono::DateTime::from_timestamp(at, 0).unwrap().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    refuse_with(&mut rig, 429, Some(&date), "");
    rig.advance(Duration::from_secs(58));
    assert_eq!(rig.dialled(), None);
    rig.advance(Duration::from_secs(2));
    assert!(rig.dialled().is_some());
}

#[test]
fn minted_token_survives_a_refusal_that_is_not_the_relays() {
    for challenge in ["", "Basic realm=\"hotel\""] {
        let mut rig = Rig::started(&["a"]);
        for _ in 0..3 {
            refuse_with(&mut rig, 401, None, challenge);
            assert_eq!((rig.status().relay.state, rig.exit()), (status::Uplink::Waiting, None), "{challenge}");
            rig.advance(limits::RECONNECT_MAX);
        }
        rig.connect(Dialect::V2);
        assert_eq!(rig.status().relay.state, status::Uplink::Connected);
    }
}

#[test]
fn refused_minted_token_ends_the_agent_with_what_mends_it() {
    let mut rig = Rig::started(&[]);
    refuse_with(&mut rig, 401, None, "Bearer error=\"invalid_token\"");
    let Some(Exit::NeedsLogin(Failure::Refused { cause })) = rig.exit() else { panic!("it goes on") };
    assert!(cause.contains("token create"));

    let mut rig = Rig::ready(&["a"]);
    rig.closed(CloseCode::Revoked);
    assert_eq!(rig.exit(), None, "its servers are ended first");
    rig.exited(ChildId(1), 0, "");
    assert!(matches!(rig.exit(), Some(Exit::NeedsLogin(_))));
}

#[test]
fn clients_token_ends_the_agent_with_what_mends_it() {
    let mut rig = Rig::started(&[]);
    let conn = rig.dialled().unwrap();
    let message = std::format!("{}\n", tunnel::upgrade::ONLY_AGENTS);
    let challenge = String::new();
    rig.event(Event::DialFailed {
        conn,
        error: DialError::Status { status: 403, retry_after: None, challenge, message },
    });
    let Some(Exit::NeedsLogin(Failure::Refused { cause })) = rig.exit() else { panic!("it goes on") };
    assert!(cause.contains("token create --role agent"), "{cause}");
}

#[test]
fn taken_name_is_tried_again_now_and_then_with_the_reason() {
    let by_status: fn(&mut Rig) = |rig| refuse(rig, 409, None);
    let by_close: fn(&mut Rig) = |rig| {
        rig.connect(Dialect::V2);
        rig.closed(CloseCode::NameTaken);
    };
    for refusal in [by_status, by_close] {
        let mut rig = Rig::started(&[]);
        for _ in 0..3 {
            refusal(&mut rig);
            let relay = rig.status().relay;
            assert_eq!(relay.state, status::Uplink::Waiting);
            assert!(relay.last_error.unwrap().contains("laptop of Ann"));
            rig.advance(limits::NAME_TAKEN_RETRY - Duration::from_secs(1));
            assert_eq!(rig.dialled(), None);
            rig.advance(limits::NAME_TAKEN_RETRY / 4 + Duration::from_secs(1));
        }
        refusal(&mut rig);
        rig.event(Event::Nudge);
        assert!(rig.dialled().is_some());
    }
}

#[test]
fn refused_device_stays_up_with_the_reason() {
    let mut rig = Rig::ready(&["a"]);
    rig.closed(CloseCode::Refused);
    let status = rig.status();
    assert_eq!(status.relay.state, status::Uplink::Halted);
    assert!(status.relay.last_error.unwrap().contains("for a reason"));
    assert_eq!(rig.exit(), None);
}

#[test]
fn replaced_agent_ends_since_another_one_works_in_its_place() {
    let mut rig = Rig::ready(&["a"]);
    rig.closed(CloseCode::Replaced);
    rig.exited(ChildId(1), 0, "");
    assert!(matches!(rig.exit(), Some(Exit::Refused(_))));
}

#[test]
fn tunnel_that_connects_while_the_agent_ends_is_closed() {
    let mut rig = Rig::started(&["a"]);
    let conn = rig.dialled().unwrap();
    rig.event(Event::Stop);
    rig.event(Event::Dialed { conn, dialect: Dialect::V2 });
    assert!(matches!(&rig.commands()[..], [Command::Close(_)]));
}

#[test]
fn end_of_another_tunnel_is_not_the_one_that_a_stopping_agent_waits_for() {
    let mut rig = Rig::ready(&["a"]);
    rig.event(Event::Stop);
    rig.exited(ChildId(1), 0, "");
    let event = tunnel::Event::Closed(Close::new(CloseCode::GoingAway, ""));
    rig.event(Event::Tunnel { conn: ConnId(99), event });
    assert_eq!(rig.exit(), None, "what is left to say on its own is not cut off");
    rig.closed(CloseCode::GoingAway);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}

#[test]
fn status_tells_how_the_uplink_is() {
    let mut rig = Rig::ready(&["a"]);
    rig.tunnel(tunnel::Event::RoundTrip { micros: 1234 });
    rig.advance(Duration::from_secs(7));
    let status = rig.status();
    assert_eq!((status.device.as_str(), status.uptime_secs), ("laptop of Ann", 7));
    let relay = status.relay;
    assert_eq!(relay.state, status::Uplink::Connected);
    assert_eq!((relay.since_secs, relay.rtt_micros, relay.attempts), (7, Some(1234), 0));
    assert_eq!((relay.dialect.as_deref(), relay.version.as_deref()), (Some("V2"), Some("2.0.1")));
    assert_eq!((relay.last_error, relay.next_attempt_ms), (None, None));
}
