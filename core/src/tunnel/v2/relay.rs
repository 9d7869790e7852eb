//! Dialect V2 on a relay: opens calls, takes catalogs and answers.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use bytes::Bytes;

use super::V2;
use super::announcements::{MAX_NOTICE_BODY, NoticeHead, split_notice};
use crate::id::StreamId;
use crate::limits::{MAX_CALL_MESSAGE, MAX_CATALOG};
use crate::rpc;
use crate::tunnel::close::Fault;
use crate::tunnel::connection::Cx;
use crate::tunnel::frame::{AnswerHead, Frame, MAX_HEAD, Piece, RestartBody, SessionWord};
use crate::tunnel::streams::{Answer, Incoming, MessageError, Outgoing, Stream};
use crate::tunnel::{Command, Event, OpenHead, ResetCode};

impl V2 {
    pub(super) fn handle_relay_frame(&mut self, frame: Frame, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match frame {
            Frame::Catalog(piece) => self.take_catalog(piece, cx),
            Frame::Notice(piece) => self.take_notice(piece, cx),
            Frame::Answer { stream, head } => self.take_answer(stream, head, cx),
            Frame::Data { stream, bytes } => self.take_body(stream, bytes, false, cx),
            Frame::End { stream, bytes } => self.take_body(stream, bytes, true, cx),
            Frame::Message { stream, piece } => self.take_message(stream, piece, cx),
            Frame::Pause { stream, millis } => {
                if self.awaited(stream)?.is_some() {
                    cx.events.push_back(Event::Pause { stream: StreamId(stream), millis });
                }
                Ok(())
            }
            Frame::Reset { stream, code, reason } => {
                if self.awaited(stream)?.is_some() {
                    self.remove(stream);
                    cx.events.push_back(Event::Reset { stream: StreamId(stream), code, reason });
                }
                Ok(())
            }
            Frame::Open { .. }
            | Frame::Credit { .. }
            | Frame::Restart(_)
            | Frame::Session(_)
            | Frame::Cancel { .. } => Err(Fault::protocol("frame that only a relay sends")),
            Frame::Hello(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::GoAway => Ok(()),
        }
    }

    pub(super) fn handle_relay_command(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match command {
            Command::Open { stream, head, params, v1_tool: _ } => self.open(stream.0, head, params, cx),
            Command::Consumed { stream, bytes } => {
                if let Some(Incoming::Answer(answer)) = self.streams.get_mut(&stream.0).map(|open| &mut open.incoming) {
                    answer.window.consume(bytes);
                    self.owe(stream.0);
                }
                Ok(())
            }
            Command::Cancel { stream, params, reason } => self.cancel_in_words(stream.0, params, reason),
            Command::Restart { server } => self.order(Frame::Restart(RestartBody { server })),
            Command::SessionEnded { session } => {
                self.order(Frame::Session(SessionWord { session, server: None, notification: None }))
            }
            Command::ClientNotice { session, server, json } => self.pass_notice(session, server, &json),
            Command::Catalog(_) | Command::Answer { .. } | Command::Notice { .. } | Command::Pause { .. } => {
                tracing::error!("order that is not a relay's");
                Ok(())
            }
            Command::GoAway | Command::Reset { .. } | Command::Message { .. } | Command::Probe | Command::Close(_) => {
                Ok(())
            }
        }
    }

    /// Takes the credit that is to go back to a stream's sender.
    pub(super) fn settle(&mut self, stream: u32) -> u32 {
        match self.streams.get_mut(&stream).map(|stream| &mut stream.incoming) {
            Some(Incoming::Answer(answer)) => answer.window.settle(),
            Some(Incoming::Params { .. } | Incoming::Replies(_)) | None => 0,
        }
    }

    fn open(&mut self, stream: u32, mut head: OpenHead, params: Bytes, cx: &mut Cx<'_>) -> Result<(), Fault> {
        head.length = u64::try_from(params.len()).unwrap_or(u64::MAX);
        let refusal = if stream <= self.highest {
            tracing::error!(call = stream, "stream numbers must rise");
            Some((ResetCode::Internal, "stream number used twice"))
        } else if self.streams.len() >= self.theirs().max_streams {
            Some((ResetCode::Overloaded, "the device has too many calls open"))
        } else if head.length > self.theirs().max_body || is_head_too_large(&head) {
            Some((ResetCode::TooLarge, "the request is larger than the device takes"))
        } else {
            None
        };
        self.highest = self.highest.max(stream);
        if let Some((code, reason)) = refusal {
            cx.events.push_back(Event::Reset { stream: StreamId(stream), code, reason: reason.into() });
            return Ok(());
        }
        self.buffered += params.len();
        let outgoing = Outgoing::call(Frame::Open { stream, head: Box::new(head) }, params);
        let incoming = Incoming::Answer(Answer::default());
        self.streams.insert(stream, Box::new(Stream { outgoing, incoming }));
        self.rotation.join(stream);
        self.bound_buffers(cx)
    }

    /// Ends a stream whose client gave it up.
    fn cancel_in_words(&mut self, stream: u32, params: Bytes, reason: String) -> Result<(), Fault> {
        let is_known = self.streams.get(&stream).is_some_and(|stream| stream.outgoing.is_opened());
        if is_known && params.len() <= MAX_HEAD {
            self.order(Frame::Cancel { stream, params })?;
        }
        self.cancel(stream, ResetCode::Cancelled, reason)
    }

    fn pass_notice(&mut self, session: String, server: Option<String>, json: &[u8]) -> Result<(), Fault> {
        let notification = core::str::from_utf8(json).ok().filter(|_| fits_notice(json));
        let Some(notification) = notification else {
            tracing::debug!(bytes = json.len(), "client's notification dropped: over the limit");
            return Ok(());
        };
        self.order(Frame::Session(SessionWord { session, server, notification: Some(notification.to_string()) }))
    }

    fn take_catalog(&mut self, piece: Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let whole = self.catalog.push(piece, MAX_CATALOG).map_err(|_| Fault::too_big("catalog too large"))?;
        cx.events.extend(whole.map(Event::Catalog));
        Ok(())
    }

    fn take_notice(&mut self, piece: Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let whole = self.notice.push(piece, MAX_NOTICE_BODY).map_err(|_| Fault::too_big("notice too large"))?;
        if let Some(body) = whole {
            let (NoticeHead { server, sessions }, json) = split_notice(body)?;
            cx.events.push_back(Event::Notice { server, sessions, json });
        }
        Ok(())
    }

    fn take_answer(&mut self, stream: u32, head: AnswerHead, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let most = self.ours.max_body;
        let Some(answer) = self.awaited(stream)? else { return Ok(()) };
        answer.begin(head)?;
        if head.length.is_some_and(|length| length > most) {
            return self.give_up(stream, ResetCode::TooLarge, "the answer is larger than allowed", cx);
        }
        let (outcome, length) = (head.outcome(), head.length);
        cx.events.push_back(Event::Answer { stream: StreamId(stream), outcome, length });
        Ok(())
    }

    fn take_body(&mut self, stream: u32, bytes: Bytes, end: bool, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(answer) = self.awaited(stream)? else { return Ok(()) };
        answer.body(&bytes, end)?;
        if end {
            self.remove(stream);
        }
        cx.events.push_back(Event::Data { stream: StreamId(stream), bytes, end });
        Ok(())
    }

    fn take_message(&mut self, stream: u32, piece: Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let fits = self.may_assemble(piece.bytes.len());
        let Some(answer) = self.awaited(stream)? else { return Ok(()) };
        let before = answer.assembled();
        let taken = answer.message(piece, MAX_CALL_MESSAGE);
        let after = answer.assembled();
        self.assembled = self.assembled - before + after;
        self.owe(stream);
        match taken {
            Err(MessageError::Fault(fault)) => Err(fault),
            Err(MessageError::TooLarge) => {
                self.give_up(stream, ResetCode::TooLarge, "a message of the call is too large", cx)
            }
            Ok(None) if !fits => self.give_up(stream, ResetCode::Overloaded, "too many messages at once", cx),
            Ok(None) => Ok(()),
            Ok(Some((json, credit))) => {
                cx.events.push_back(Event::Message { stream: StreamId(stream), json, credit });
                Ok(())
            }
        }
    }

    /// The open stream's answer as far as it came; `None` when the stream is finished.
    fn awaited(&mut self, stream: u32) -> Result<Option<&mut Answer>, Fault> {
        match self.open_stream(stream)? {
            None => Ok(None),
            Some(open) if !open.outgoing.is_opened() => Err(Fault::protocol("frame on a stream that was never opened")),
            Some(open) => match &mut open.incoming {
                Incoming::Answer(answer) => Ok(Some(answer)),
                Incoming::Params { .. } | Incoming::Replies(_) => Ok(None),
            },
        }
    }

    /// Puts a stream down for a credit frame when enough is owed.
    fn owe(&mut self, stream: u32) {
        let incoming = self.streams.get(&stream).map(|stream| &stream.incoming);
        if matches!(incoming, Some(Incoming::Answer(answer)) if answer.window.is_due()) {
            self.credits.insert(stream);
        }
    }
}

/// Whether what a client says beside its calls fits a frame's head. A notification is small, but for what a client may
/// add to it. Escapes make a byte six at most, so only what is long is measured.
#[must_use]
pub fn fits_notice(json: &[u8]) -> bool {
    let fits = |text: &str| rpc::quoted(text).len() <= MAX_HEAD - ROOM_FOR_NAMES;
    json.len() <= MAX_HEAD / 8 || (json.len() <= MAX_HEAD && core::str::from_utf8(json).is_ok_and(fits))
}

/// For the names of a session and a server, and what stands around them.
const ROOM_FOR_NAMES: usize = 2 * 1024;

/// Whether a head does not fit its frame. Escapes make a byte six at most, so only strange heads are measured.
fn is_head_too_large(head: &OpenHead) -> bool {
    let OpenHead { server, method, version, client, actor, session, capabilities, length: _ } = head;
    let optional = version.as_ref().map_or(0, |text| text.len()) + client.as_ref().map_or(0, |text| text.len());
    let text = server.len() + method.len() + actor.len() + session.len() + capabilities.len() + optional;
    text > MAX_HEAD / 8 && head.written().len() > MAX_HEAD
}
