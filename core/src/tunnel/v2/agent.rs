//! Dialect V2 on an agent: takes calls, sends catalogs and answers.

use alloc::boxed::Box;

use bytes::Bytes;

use super::announcements::NoticeHead;
use super::{CONNECTION, V2};
use crate::id::StreamId;
use crate::limits::MAX_CALL_MESSAGE;
use crate::tunnel::close::Fault;
use crate::tunnel::connection::Cx;
use crate::tunnel::frame::{AnswerHead, Frame, Piece, SessionWord};
use crate::tunnel::streams::{Assembly, Incoming, Outgoing, Stream};
use crate::tunnel::{Command, Event, OpenHead, Outcome, ResetCode};

impl V2 {
    pub(super) fn handle_agent_frame(&mut self, frame: Frame, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match frame {
            Frame::Open { stream, head } => self.take_open(stream, head),
            Frame::Data { stream, bytes } => self.take_params(stream, bytes, false, cx),
            Frame::End { stream, bytes } => self.take_params(stream, bytes, true, cx),
            Frame::Message { stream, piece } => self.take_reply(stream, piece, cx),
            Frame::Credit { stream, bytes } => {
                self.open_stream(stream)?;
                self.change(stream, cx.now, |outgoing| outgoing.grant(bytes)).unwrap_or(Ok(()))
            }
            Frame::Reset { stream, code, reason } => {
                self.open_stream(stream)?;
                // The owner knows nothing yet of a call whose params are on their way.
                if self.remove(stream).is_some_and(|gone| matches!(gone.incoming, Incoming::Replies(_))) {
                    cx.events.push_back(Event::Reset { stream: StreamId(stream), code, reason });
                }
                Ok(())
            }
            Frame::Cancel { stream, params } => {
                self.open_stream(stream)?;
                if self.remove(stream).is_some_and(|gone| matches!(gone.incoming, Incoming::Replies(_))) {
                    cx.events.push_back(Event::Cancelled { stream: StreamId(stream), params });
                }
                Ok(())
            }
            Frame::Restart(body) => {
                cx.events.push_back(Event::Restart { server: body.server });
                Ok(())
            }
            Frame::Session(SessionWord { session, server, notification }) => {
                cx.events.push_back(match notification {
                    Some(json) => Event::ClientNotice { session, server, json: json.into() },
                    None => Event::SessionEnded { session },
                });
                Ok(())
            }
            Frame::Catalog(_) | Frame::Answer { .. } | Frame::Notice(_) | Frame::Pause { .. } => {
                Err(Fault::protocol("frame that only an agent sends"))
            }
            Frame::Hello(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::GoAway => Ok(()),
        }
    }

    pub(super) fn handle_agent_command(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match command {
            Command::Catalog(json) => {
                self.announcements.push_catalog(json)?;
                self.announce();
                Ok(())
            }
            Command::Notice { server, sessions, json } => {
                self.announcements.push_notice(&NoticeHead { server, sessions }, &json);
                self.announce();
                Ok(())
            }
            // It may overtake the call's own messages: those are kept for the client that comes back.
            Command::Pause { stream, millis } => match self.streams.get(&stream.0) {
                Some(open) if !open.outgoing.is_answered() => self.order(Frame::Pause { stream: stream.0, millis }),
                Some(_) | None => Ok(()),
            },
            Command::Answer { stream, outcome, body } => self.answer(stream.0, outcome, body, cx),
            Command::Open { .. }
            | Command::Consumed { .. }
            | Command::Cancel { .. }
            | Command::Restart { .. }
            | Command::ClientNotice { .. }
            | Command::SessionEnded { .. } => {
                tracing::error!("order that is not an agent's");
                Ok(())
            }
            Command::GoAway | Command::Reset { .. } | Command::Message { .. } | Command::Probe | Command::Close(_) => {
                Ok(())
            }
        }
    }

    fn announce(&mut self) {
        if !self.announcements.is_empty() {
            self.rotation.join(CONNECTION);
        }
    }

    fn answer(&mut self, stream: u32, outcome: Outcome, body: Bytes, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if length > self.theirs().max_body && self.streams.contains_key(&stream) {
            return self.give_up(stream, ResetCode::TooLarge, "the answer is larger than allowed", cx);
        }
        let head = Frame::Answer { stream, head: AnswerHead::new(outcome, length) };
        match self.change(stream, cx.now, |outgoing| outgoing.set_answer(head, body)) {
            Some(true) => self.bound_buffers(cx),
            Some(false) => {
                tracing::debug!(call = stream, "second answer dropped");
                Ok(())
            }
            None => {
                tracing::debug!(call = stream, "late answer dropped");
                Ok(())
            }
        }
    }

    fn take_open(&mut self, stream: u32, head: Box<OpenHead>) -> Result<(), Fault> {
        if stream <= self.highest {
            return Err(Fault::protocol("stream opened twice"));
        }
        self.highest = stream;
        let refusal = if self.streams.len() >= self.ours.max_streams {
            (ResetCode::Overloaded, "too many calls open")
        } else if head.length > self.ours.max_body {
            (ResetCode::TooLarge, "the request is larger than allowed")
        } else {
            let incoming = Incoming::Params { head, params: Assembly::default() };
            self.streams.insert(stream, Box::new(Stream { outgoing: Outgoing::answer(), incoming }));
            return Ok(());
        };
        let (code, reason) = refusal;
        self.order(Frame::Reset { stream, code, reason: reason.into() })
    }

    fn take_params(&mut self, stream: u32, bytes: Bytes, last: bool, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let fits = self.may_assemble(bytes.len());
        let Some(open) = self.open_stream(stream)? else { return Ok(()) };
        let Incoming::Params { head, params } = &mut open.incoming else {
            return Err(Fault::protocol("params after their end"));
        };
        let length = u64::try_from(params.len().saturating_add(bytes.len())).unwrap_or(u64::MAX);
        if length > head.length || (last && length < head.length) {
            return Err(Fault::protocol("params of another length than declared"));
        }
        if !fits {
            // The owner was not told of the call, so only the relay is told of its end.
            return self.cancel(stream, ResetCode::Overloaded, "too many requests at once".into());
        }
        let before = params.len();
        // Its declared length was checked against the limit when the stream was opened.
        let whole = params.push(Piece { last, bytes }, usize::MAX).unwrap_or(None);
        let after = params.len();
        if let Some(params) = whole {
            let head = core::mem::take(&mut **head);
            open.incoming = Incoming::Replies(Assembly::default());
            cx.events.push_back(Event::Call { stream: StreamId(stream), head, params });
        }
        self.assembled = self.assembled - before + after;
        Ok(())
    }

    fn take_reply(&mut self, stream: u32, piece: Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let fits = self.may_assemble(piece.bytes.len());
        let Some(open) = self.open_stream(stream)? else { return Ok(()) };
        let Incoming::Replies(message) = &mut open.incoming else {
            return Err(Fault::protocol("message before its call"));
        };
        let before = message.len();
        let taken = message.push(piece, MAX_CALL_MESSAGE);
        let after = message.len();
        let answered = open.outgoing.is_answered();
        self.assembled = self.assembled - before + after;
        match taken {
            Err(_) => self.give_up(stream, ResetCode::TooLarge, "a message of the call is too large", cx),
            Ok(None) if !fits => self.give_up(stream, ResetCode::Overloaded, "too many messages at once", cx),
            Ok(Some(json)) if !answered => {
                cx.events.push_back(Event::Message { stream: StreamId(stream), json, credit: 0 });
                Ok(())
            }
            Ok(Some(_) | None) => Ok(()),
        }
    }
}
