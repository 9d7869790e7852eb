//! The model: what may be answered, and what must never happen. It hears of every request, of everything that a server
//! is told, and of every end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tunnel_core::id::{ChildId, ConnId, ExchangeId};

use super::dials::Dials;
use super::given_up::GivenUp;
use super::plan::Tool;
use super::streams::Told;
use crate::client::Client;
use crate::script::MARKER;
use crate::world::AgentKey;

/// How long everybody may take to get over a fault, in microseconds: a dead tunnel is found out, a server that failed is
/// tried again, a name that was taken is asked for again.
pub(super) const SETTLED: u64 = 240_000_000;

/// A token of the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenId(usize);

/// What the model knows of a token.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// Its id at the operator.
    pub(super) id: String,
    /// In seconds.
    expires: u64,
    state: TokenState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenState {
    Good,
    /// Somebody asked for its end; it is not known yet whether that was done.
    Doubtful,
    /// It was revoked, and that was acknowledged; or the relay has lost it.
    Dead,
}

/// What a request's token does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Opens,
    OpensNothing,
    Unknown,
}

/// What was asked.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A call that is counted.
    Call,
    /// Several, in their order: pings and what is no request among them.
    Batch(Vec<Call>),
    /// A legacy client begins to watch a resource of that server of a laptop, or ends that.
    Watch {
        laptop: usize,
        server: usize,
        on: bool,
        /// How often its laptop had been disturbed when it was sent, and how much its server had heard.
        disturbances: u64,
        heard: usize,
    },
    Trespass,
    List,
    Other,
    Note,
    /// A legacy client gives up the call of this marker.
    Cancels(String),
    Listen,
    Initialize,
    /// The end of a session: this is the client that had it, and what was open in it.
    Delete(Box<Client>, Vec<ExchangeId>),
    /// A request in a session that has ended.
    Afterlife,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) person: usize,
    pub(super) verdict: Verdict,
    pub(super) marker: String,
    pub(super) laptop: Option<usize>,
    /// Which of that laptop's servers.
    pub(super) server: Option<usize>,
    pub(super) tool: Option<Tool>,
    pub(super) arguments: Value,
    pub(super) name: String,
    /// At which endpoint.
    pub(super) path: String,
    /// The client's id of it.
    pub(super) id: u64,
    pub(super) is_modern: bool,
    pub(super) sent_at: u64,
    /// All that it needs was well when it was sent.
    pub(super) is_calm: bool,
    /// It must succeed, if nothing happens meanwhile.
    pub(super) is_strict: bool,
    /// Its client lost its stream and takes it up again.
    pub(super) rest: Option<Rest>,
    /// What had happened to the laptop and the client when it was sent.
    pub(super) disturbances: u64,
    pub(super) changes: u64,
    pub(super) size: u32,
    pub(super) is_given_up: bool,
    /// When the relay took its client's word that it gives it up.
    pub(super) cancelled_at: Option<u64>,
    pub(super) has_stopped_reading: bool,
}

impl Call {
    pub(super) fn other(kind: Kind, person: usize, id: u64, is_modern: bool) -> Self {
        Self {
            kind,
            person,
            verdict: Verdict::Unknown,
            marker: String::new(),
            laptop: None,
            server: None,
            tool: None,
            arguments: Value::Null,
            name: String::new(),
            path: String::new(),
            id,
            is_modern,
            sent_at: 0,
            is_calm: false,
            is_strict: false,
            rest: None,
            disturbances: 0,
            changes: 0,
            size: 0,
            is_given_up: false,
            cancelled_at: None,
            has_stopped_reading: false,
        }
    }
}

/// What a client has lost of a stream.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    /// It had all that was to come.
    pub(super) had: bool,
    /// When its request was sent, and when it lost the stream.
    pub(super) asked_at: u64,
    pub(super) left_at: u64,
}

/// Whether and how a person is asked before a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gate {
    #[default]
    Open,
    /// Never.
    Denied,
    /// Once for each client and tool.
    First,
    Always,
}

/// What the model is told of a call that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deed {
    /// Who, as its device knows them; `None`: through V1, which does not say.
    pub(super) actor: Option<usize>,
    pub(super) laptop: usize,
    pub(super) server: String,
    /// What a lasting approval is for.
    pub(super) tool: &'static str,
}

/// What became of a call at the servers.
#[derive(Debug)]
struct Fate {
    person: usize,
    deed: Deed,
    gate: Gate,
    /// A person let this one pass.
    is_approved: bool,
    /// Its client's session, if it has one.
    session: Option<String>,
    heard: Option<(AgentKey, ChildId, String)>,
    /// How often it came back with answers.
    again: u32,
    /// Its server answered, or its process ended.
    is_over: bool,
    cancelled: u32,
    /// Its client gave it up in a way that its server is to hear of.
    is_given_up: bool,
    /// Its server took no connections for a while, and may have missed it.
    was_out_of_reach: bool,
}

/// The model.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    tokens: Vec<Token>,
    /// The latest that the relay's clock has shown: what has ended once may be forgotten.
    latest: u64,
    /// It was set.
    is_unsteady: bool,
    /// Requests whose end is not known.
    pub(super) calls: BTreeMap<ExchangeId, Call>,
    /// Calls by marker.
    fates: BTreeMap<String, Fate>,
    /// Which call a request at a server is.
    at_server: BTreeMap<(AgentKey, ChildId, String), String>,
    /// Which laptop an agent is.
    pub(super) owners: BTreeMap<AgentKey, usize>,
    /// Streams that broke: the call and its last event.
    pub(super) broken: Vec<(Call, String)>,
    /// Questions that were answered, by who answered.
    pub(super) replied: BTreeSet<(usize, String)>,
    /// When the relay died.
    pub(super) relay_ends: BTreeSet<u64>,
    /// A server has hung.
    pub(super) has_hung: bool,
    /// What was last listed.
    pub(super) listed: Option<BTreeSet<String>>,
    /// What was approved for good.
    approved: BTreeSet<Deed>,
    /// Servers of which each session has its own run, by laptop.
    pub(super) isolated: BTreeSet<(usize, String)>,
    /// Whose runs those are, as far as any call came to them.
    runs: BTreeMap<(AgentKey, ChildId), Option<String>>,
    /// What legacy clients surely watch, and since when: client, laptop, server.
    pub(super) watched: BTreeMap<(usize, usize, usize), u64>,
    pub(super) dials: Dials,
    /// The tunnels that the relay has, and with which token each came.
    pub(super) tunnels: BTreeMap<ConnId, TokenId>,
    pub(super) given_up: GivenUp,
    pub(super) told: Told,
}

/// Tokens.
impl Oracle {
    /// The operator was given a token; `None`: that was no token.
    pub(super) fn minted(&mut self, answer: &Value) -> Option<TokenId> {
        let text = answer["token"].as_str()?.to_owned();
        let id = answer["id"].as_str().expect("a token has an id").to_owned();
        let expires = answer["expires"].as_u64().expect("a token has an end");
        self.tokens.push(Token { text, id, expires, state: TokenState::Good });
        Some(TokenId(self.tokens.len() - 1))
    }

    /// Whose text that is.
    pub(super) fn token_of(&self, text: &str) -> Option<TokenId> {
        self.tokens.iter().position(|token| token.text == text).map(TokenId)
    }

    pub(super) fn token(&self, token: TokenId) -> &Token {
        &self.tokens[token.0]
    }

    /// What `token` opens at a relay whose clock shows `unix_ms`.
    pub(super) fn verdict(&self, token: TokenId, unix_ms: u64) -> Verdict {
        let it = self.token(token);
        let latest = self.latest.max(unix_ms);
        match it.state {
            TokenState::Dead => Verdict::OpensNothing,
            _ if unix_ms >= (it.expires + 2) * 1000 => Verdict::OpensNothing,
            TokenState::Good if latest + 2_000 <= it.expires * 1000 => Verdict::Opens,
            TokenState::Good | TokenState::Doubtful => Verdict::Unknown,
        }
    }

    /// What the relay's clock shows.
    pub(super) fn saw_time(&mut self, unix_ms: u64) {
        self.latest = self.latest.max(unix_ms);
    }

    /// The relay's clock is set.
    pub(super) fn clock_is_set(&mut self) {
        self.is_unsteady = true;
    }

    /// Whether the relay's clock was never set.
    pub(super) const fn is_steady(&self) -> bool {
        !self.is_unsteady
    }

    /// Whether the relay's clock has not been set: what ends with time may have ended, and come back.
    pub(super) fn is_steady_since(&self, unix_ms: u64) -> bool {
        !self.is_unsteady && unix_ms <= self.latest
    }

    /// Somebody asks for its end. Returns its id.
    pub(super) fn revoking(&mut self, token: TokenId) -> String {
        let it = &mut self.tokens[token.0];
        if it.state == TokenState::Good {
            it.state = TokenState::Doubtful;
        }
        it.id.clone()
    }

    /// The relay says that it is done.
    pub(super) fn revoked(&mut self, token: TokenId) {
        self.tokens[token.0].state = TokenState::Dead;
    }

    /// The relay's disk is gone, and with it every grant.
    pub(super) fn all_is_lost(&mut self) {
        self.tokens.iter_mut().for_each(|token| token.state = TokenState::Dead);
    }
}

/// Calls.
impl Oracle {
    /// A call is about to be made.
    pub(super) fn will_call(&mut self, marker: &str, person: usize, deed: Deed, gate: Gate, session: Option<&str>) {
        let fate = Fate {
            person,
            deed,
            gate,
            is_approved: false,
            session: session.map(str::to_owned),
            heard: None,
            again: 0,
            is_over: false,
            cancelled: 0,
            is_given_up: false,
            was_out_of_reach: false,
        };
        self.fates.insert(marker.to_owned(), fate);
    }

    /// The open call that a plan's number means.
    pub(super) fn open_call(&self, number: u8) -> Option<ExchangeId> {
        let is_one = |call: &Call| matches!(call.kind, Kind::Call | Kind::Batch(_));
        let open: Vec<_> = self.calls.iter().filter(|(_, call)| is_one(call)).collect();
        open.get(usize::from(number).checked_rem(open.len())?).map(|(exchange, _)| **exchange)
    }

    pub(super) fn gives_up(&mut self, exchange: ExchangeId) {
        if let Some(call) = self.calls.get_mut(&exchange) {
            call.is_given_up = true;
        }
    }

    /// A call was given up so that its server is to hear of it.
    pub(super) fn gave_up(&mut self, marker: &str) {
        if let Some(fate) = self.fates.get_mut(marker) {
            fate.is_given_up = true;
        }
    }

    pub(super) fn stops_reading(&mut self, exchange: ExchangeId) {
        if let Some(call) = self.calls.get_mut(&exchange) {
            call.has_stopped_reading = true;
        }
    }

    /// Who makes a call.
    pub(super) fn caller_of(&self, marker: &str) -> Option<usize> {
        self.fates.get(marker).map(|fate| fate.person)
    }

    /// A person lets a call pass at that server of a laptop; `is_lasting`: and all that are like it.
    pub(super) fn approves(
        &mut self,
        marker: &str,
        (laptop, server, has_actor): (usize, &str, bool),
        is_lasting: bool,
    ) {
        let Some(fate) = self.fates.get_mut(marker) else { return };
        fate.is_approved = true;
        if is_lasting {
            let (server, actor) = (server.to_owned(), has_actor.then_some(fate.person));
            self.approved.insert(Deed { actor, laptop, server, ..fate.deed.clone() });
        }
    }

    /// Whether a server heard of a call.
    pub(super) fn was_heard(&self, marker: &str) -> bool {
        self.fates.get(marker).is_some_and(|fate| fate.heard.is_some())
    }

    /// A server heard something.
    pub(super) fn heard(&mut self, agent: AgentKey, server: &str, child: ChildId, message: &Value) {
        if message["method"] == "notifications/cancelled" {
            return self.heard_cancel(agent, child, &message["params"]["requestId"]);
        }
        let Some(marker) = marker_of(message) else { return };
        let Some(fate) = self.fates.get_mut(marker) else {
            panic!("a server hears of a call that nobody may make: {message}");
        };
        let laptop = self.owners.get(&agent).copied();
        // A URI that is in no list and fits no template goes to the only server that has resources.
        let is_elsewhere = laptop != Some(fate.deed.laptop) || fate.deed.server != server;
        let may_be = message["method"] == "resources/read";
        assert!(!is_elsewhere || may_be, "a call came to another device or server, {agent:?} {server}: {message}");
        let may_pass = match fate.gate {
            _ if is_elsewhere => true,
            Gate::Open => true,
            Gate::Denied => false,
            Gate::First | Gate::Always => fate.is_approved || self.approved.contains(&fate.deed),
        };
        assert!(may_pass, "a call that its device does not allow came to its server: {:?} {message}", fate.gate);
        if !is_elsewhere && self.isolated.contains(&(fate.deed.laptop, server.to_owned())) {
            let of = self.runs.entry((agent, child)).or_insert_with(|| fate.session.clone());
            assert_eq!(*of, fate.session, "a session's call came to another's run: {message}");
        }
        let id = message["id"].to_string();
        if message["params"]["inputResponses"].is_null() {
            let before = fate.heard.replace((agent, child, id.clone()));
            assert!(before.is_none(), "at most once at a server: {message}");
        } else {
            fate.again += 1;
            assert!(fate.again <= 1, "its answers came twice: {message}");
            fate.heard = Some((agent, child, id.clone()));
            fate.is_over = false;
        }
        // It answers at once, and with a line that nobody reads.
        fate.is_over |= message["params"]["name"] == "huge";
        let before = self.at_server.insert((agent, child, id), marker.to_owned());
        assert!(before.is_none(), "an id is used twice at a server: {message}");
    }

    /// What legacy clients watch there is in doubt: all of it, or what they began to watch after `since`.
    pub(super) fn doubt_watches(&mut self, laptop: usize, since: u64) {
        self.watched.retain(|(_, of, _), begun| *of != laptop || *begun < since);
    }

    fn heard_cancel(&mut self, agent: AgentKey, child: ChildId, id: &Value) {
        let Some(marker) = self.at_server.get(&(agent, child, id.to_string())) else { return };
        let fate = self.fates.get_mut(marker).expect("a call at a server has a fate");
        fate.cancelled += 1;
        assert_eq!(fate.cancelled, 1, "{marker} is cancelled once at its server");
    }

    /// A server answers a request. Returns the call.
    pub(super) fn answers(&mut self, agent: AgentKey, child: ChildId, id: &str) -> Option<String> {
        let marker = self.at_server.get(&(agent, child, id.to_owned()))?;
        self.fates.get_mut(marker).expect("a call at a server has a fate").is_over = true;
        Some(marker.clone())
    }

    /// A server's process ended, or its agent with all of them. Returns the calls that it worked on.
    pub(super) fn server_gone(&mut self, agent: AgentKey, child: Option<ChildId>) -> Vec<String> {
        let mut left = Vec::new();
        for (marker, fate) in &mut self.fates {
            let is_its = |heard: &(AgentKey, ChildId, String)| heard.0 == agent && child.is_none_or(|it| it == heard.1);
            if !fate.is_over && fate.heard.as_ref().is_some_and(is_its) {
                fate.is_over = true;
                left.push(marker.clone());
            }
        }
        left
    }

    /// Whether a server works on a call of which it has not heard that nobody waits for it: a client of a revision in which
    /// that is no cancel may be gone.
    pub(super) fn is_at_work(&self) -> bool {
        self.fates.values().any(|fate| fate.heard.is_some() && !fate.is_over && fate.cancelled == 0)
    }

    /// A site of an agent takes no connections for a while.
    pub(super) fn out_of_reach(&mut self, agent: AgentKey) {
        let its = |fate: &&mut Fate| fate.heard.as_ref().is_some_and(|heard| heard.0 == agent);
        self.fates.values_mut().filter(its).for_each(|fate| fate.was_out_of_reach = true);
    }

    /// Calls that were given up, and whose servers work on and were not told.
    pub(super) fn untold(&self) -> Vec<&str> {
        let is_due = |fate: &Fate| fate.is_given_up && !fate.was_out_of_reach && fate.cancelled == 0;
        let is_untold = |fate: &Fate| fate.heard.is_some() && !fate.is_over && is_due(fate);
        self.fates.iter().filter(|(_, fate)| is_untold(fate)).map(|(marker, _)| marker.as_str()).collect()
    }
}

/// The call that a request at a server is, if a client of the world made it.
pub(super) fn marker_of(message: &Value) -> Option<&str> {
    let params = &message["params"];
    match message["method"].as_str()? {
        "tools/call" | "prompts/get" => params["arguments"][MARKER].as_str(),
        "resources/read" => params["uri"].as_str()?.rsplit('/').next(),
        _ => None,
    }
}
