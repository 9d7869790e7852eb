//! What servers ask clients with no call open, on the streams where those listen. Agents say whose client each question
//! is for; an answer goes back to the server that asked, by the way of the client's notifications.
//!
//! Nobody is asked later: a question whose client does not listen now is answered with an error.

use alloc::string::{String, ToString};

use bytes::Bytes;

use super::Room;
use super::questions::{Of, Question, named_anew};
use crate::id::{ConnId, ExchangeId, FamilyId};
use crate::limits;
use crate::mcp::code;
use crate::relay::shard::{Action, Cx};
use crate::relay::{Endpoint, SessionKey};
use crate::rpc::object::{self, Object};
use crate::rpc::{RawId, envelope, quoted};
use crate::time::Instant;
use crate::tunnel::{self, Command};

/// A question that belongs to no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) conn: ConnId,
    pub(super) server: String,
    /// The grant of the stream that it was asked on.
    pub(super) family: FamilyId,
    asked: Instant,
}

/// Which server of which device.
type Place<'a> = (ConnId, &'a str);

impl Room {
    /// A server asks the client of a session something. One that cannot be asked is declined.
    pub(super) fn ask_beside(
        &mut self,
        (conn, server): Place<'_>,
        sessions: &[String],
        id: &RawId,
        (params, json): (&Bytes, &Bytes),
        cx: &mut Cx<'_>,
    ) {
        let [session] = sessions else {
            return tracing::debug!(%conn, "question to no one session dropped");
        };
        let session = SessionKey(session.as_str().into());
        if let Err(why) = self.pass_beside((conn, server), &session, id, (params, json), cx) {
            tracing::debug!(%conn, reason = why, "question of a server declined");
            let json = envelope::error(Some(id), code::METHOD_NOT_FOUND, why, None);
            tell((conn, server), &session, json, cx);
        }
    }

    fn pass_beside(
        &mut self,
        (conn, server): Place<'_>,
        session: &SessionKey,
        id: &RawId,
        (params, json): (&Bytes, &Bytes),
        cx: &mut Cx<'_>,
    ) -> Result<(), &'static str> {
        let now = cx.now.instant;
        self.questions.retain(|_, question| match &question.of {
            Of::Call(_) => true,
            // An id that is used again is that of a new question.
            Of::Nothing(beside) if beside.is_of((conn, server)) && question.id == *id => false,
            Of::Nothing(beside) => now.saturating_since(beside.asked) < limits::BESIDE_KEPT,
        });
        let is_its = |question: &&Question| matches!(question.of, Of::Nothing(_)) && question.session == *session;
        let its = self.questions.values().filter(is_its).count();
        if its >= limits::MAX_BESIDE_OF_SESSION || self.questions.len() >= limits::MAX_QUESTIONS {
            return Err("too many questions wait for their answers");
        }
        let object = Object::parse(json).map_err(|_| "the question is no object")?;
        let (exchange, family) = self.stream_of((conn, server), session, true, cx).ok_or(UNHEARD)?;
        let number = cx.numbers.draw();
        let (question, token) = named_anew(&object, params, &cx.numbers.name(number));
        if !self.listeners.pass(exchange, &question, cx) {
            return Err(UNHEARD);
        }
        let of = Of::Nothing(Beside { conn, server: server.to_string(), family, asked: now });
        self.questions.insert(number, Question { of, session: session.clone(), id: id.clone(), token });
        Ok(())
    }

    /// A server takes such a question back: the client hears of it with the id that it knows.
    pub(super) fn withdrawn_beside(&mut self, place: Place<'_>, params: &Bytes, json: &Bytes, cx: &mut Cx<'_>) {
        let Some(id) = object::get(params, "requestId").and_then(|raw| RawId::from_raw(&raw)) else { return };
        let is_meant = |question: &Question| {
            question.id == id && matches!(&question.of, Of::Nothing(beside) if beside.is_of(place))
        };
        let found = self.questions.iter().find(|(_, question)| is_meant(question)).map(|(number, _)| *number);
        let Some((number, question)) = found.and_then(|number| Some((number, self.questions.remove(&number)?))) else {
            return;
        };
        let name = quoted(&cx.numbers.name(number));
        let json = object::set_path(json, &["params", "requestId"], name.as_bytes());
        // Whoever comes back to its stream hears of it there.
        if let (Some((exchange, _)), Ok(json)) = (self.stream_of(place, &question.session, false, cx), json) {
            self.listeners.pass(exchange, &json, cx);
        }
    }

    /// Those may not answer any more what they were asked: their servers hear so.
    pub(super) fn end_beside(&mut self, meant: impl Fn(&FamilyId) -> bool, cx: &mut Cx<'_>) {
        let is_over = |_: &u64, question: &mut Question| match &question.of {
            Of::Nothing(beside) => meant(&beside.family),
            Of::Call(_) => false,
        };
        for (_, Question { of, session, id, .. }) in self.questions.extract_if(.., is_over) {
            if let Of::Nothing(Beside { conn, server, .. }) = of {
                let json = envelope::error(Some(&id), code::CANCELLED, "the client's sign-in ended", None);
                tell((conn, &server), &session, json, cx);
            }
        }
    }

    /// Forgets questions: whoever asked them knows.
    pub(super) fn forget_beside(&mut self, is_over: impl Fn(&Beside, &SessionKey) -> bool) {
        self.questions.retain(|_, question| match &question.of {
            Of::Nothing(beside) => !is_over(beside, &question.session),
            Of::Call(_) => true,
        });
    }

    /// The stream on which a session listens for what that server says, and its grant. `is_there`: one that is read.
    fn stream_of(
        &self,
        (conn, server): Place<'_>,
        session: &SessionKey,
        is_there: bool,
        cx: &Cx<'_>,
    ) -> Option<(ExchangeId, FamilyId)> {
        self.listeners.of(session, is_there).into_iter().find_map(|(exchange, endpoint, family)| {
            let is_its = match endpoint {
                Endpoint::All => true,
                single => self.locate(single, cx).is_ok_and(|(on, name, _)| on == conn && **name == *server),
            };
            is_its.then(|| (exchange, family.clone()))
        })
    }
}

impl Beside {
    fn is_of(&self, (conn, server): Place<'_>) -> bool {
        self.conn == conn && self.server == server
    }

    /// Brings the server what its client says to the question.
    pub(super) fn answered(&self, session: &SessionKey, id: &RawId, json: Bytes, cx: &mut Cx<'_>) {
        let place = (self.conn, self.server.as_str());
        if tunnel::fits_notice(&json) {
            return tell(place, session, json, cx);
        }
        let why = "the client's answer is larger than one outside of a call may be";
        tell(place, session, envelope::error(Some(id), code::TOO_LARGE, why, None), cx);
    }

    /// The client says how far it is.
    pub(super) fn progressed(&self, session: &SessionKey, json: Bytes, cx: &mut Cx<'_>) {
        tell((self.conn, &self.server), session, json, cx);
    }
}

pub(super) fn tell((conn, server): Place<'_>, session: &SessionKey, json: Bytes, cx: &mut Cx<'_>) {
    let command = Command::ClientNotice { session: session.0.to_string(), server: Some(server.to_string()), json };
    cx.out.push(Action::Tunnel { conn, command });
}

const UNHEARD: &str = "the client does not listen, so that it cannot be asked outside of a call";
