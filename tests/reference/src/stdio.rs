//! One client on stdin and stdout. Its first request decides the era of the process; the other era is then refused, so
//! that whoever mixes them finds out.

use std::io;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::Era;
use crate::call::{Call, Request};
use crate::rpc::{self, Failure, Message};
use crate::server::{self, Server, locked};
use crate::session::Session;
use crate::stream::Stream;

/// Serves until stdin ends.
pub(crate) async fn serve(server: Arc<Server>, era: Era) -> io::Result<()> {
    let stream = Stream::new();
    let mut reader = stream.read(0);
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(event) = reader.next().await {
            stdout.write_all(format!("{}\n", event.text).as_bytes()).await?;
            stdout.flush().await?;
        }
        io::Result::Ok(())
    });
    let mut client = Client { server, era, stream, session: None };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        client.hear(&line);
    }
    writer.abort();
    Ok(())
}

struct Client {
    server: Arc<Server>,
    era: Era,
    stream: Arc<Stream>,
    /// Begun by the first request: of the legacy era if it has a version.
    session: Option<Arc<Session>>,
}

impl Client {
    fn hear(&mut self, line: &str) {
        if let Ok(message) = serde_json::from_str::<Message>(line) {
            return self.take(message);
        }
        let batch = serde_json::from_str::<Vec<Message>>(line).ok();
        match batch.filter(|_| self.session.as_ref().is_some_and(|session| session.version == "2025-03-26")) {
            // Each is answered by itself: it may be so.
            Some(batch) => batch.into_iter().for_each(|message| self.take(message)),
            None => self.stream.send(rpc::error("null", &Failure::new(-32700, "not a message"))),
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message { id: Some(id), method: Some(method), params, .. } => {
                let params = params.map_or("{}".to_owned(), |raw| raw.get().to_owned());
                let id_text = id.get().to_owned();
                if let Err(failure) = self.request(Request { id, method, params }) {
                    self.stream.send(rpc::error(&id_text, &failure));
                }
            }
            message => match &self.session {
                Some(session) => session.hear(&self.server, &message),
                None => self.server.saw("a message before the first request"),
            },
        }
    }

    fn request(&mut self, request: Request) -> Result<(), Failure> {
        let params = rpc::members(&request.params);
        let modern = self.era == Era::Modern || self.era == Era::Both && server::is_modern(&request.method, &params);
        let begun = self.session.as_ref().map(|session| session.version.is_empty());
        if begun.is_some_and(|begun| begun != modern) {
            self.server.saw("mixed eras");
            return Err(Failure::new(-32600, "this process speaks the other era already"));
        }
        if modern {
            server::check_meta(&params)?;
            let session = self.session.get_or_insert_default().clone();
            self.start(session, true, request);
        } else if request.method == "initialize" {
            let session = Session::legacy(&params, self.stream.clone());
            self.stream.send(rpc::result(request.id.get(), &Server::greeting(&session)));
            locked(&self.server.sessions).insert(session.id.clone(), session.clone());
            self.session = Some(session);
        } else {
            match &self.session {
                Some(session) => self.start(session.clone(), false, request),
                None if request.method == "ping" => self.stream.send(rpc::result(request.id.get(), "{}")),
                None => return Err(Failure::new(-32601, "initialize first")),
            }
        }
        Ok(())
    }

    fn start(&self, session: Arc<Session>, modern: bool, request: Request) {
        let id: Box<RawValue> = request.id.clone();
        let call = Call::new(&self.server, Some(session.clone()), modern, request, self.stream.clone());
        let stream = self.stream.clone();
        let running = tokio::spawn(async move { stream.send(server::answer(call).await.0) });
        session.started(&id, running.abort_handle());
    }
}
