//! The loopback listener that the browser comes back to after a sign-in.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use tokio::sync::oneshot;
use tunnel_core::http::Reply;

use crate::http::{Terms, serve, whole};
use crate::rt::{self, TcpListener};

/// A listener under way. Dropping it ends it, once the answers that were given are out.
#[derive(Debug)]
pub(crate) struct Callback {
    port: u16,
    waiting: Waiting,
    _stop: oneshot::Sender<()>,
}

/// Browsers that wait for their page, oldest first.
type Waiting = Arc<Mutex<VecDeque<oneshot::Sender<Reply>>>>;

impl Callback {
    /// Listens on a port of the system's choice; `asked` gets the path and query of each request.
    ///
    /// # Errors
    /// For people: why not.
    pub(crate) async fn listen(asked: impl Fn(String) + Send + Sync + 'static) -> Result<Self, String> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.map_err(|error| format!("cannot listen on 127.0.0.1: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let waiting = Waiting::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let queue = Arc::clone(&waiting);
        let handler = move |request: http::Request<hyper::body::Incoming>, _| {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
            let (answer, page) = oneshot::channel();
            let room = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                let room = queue.len() < MAX_WAITING;
                if room {
                    queue.push_back(answer);
                    // Under the lock, so that answers go to those who asked.
                    asked(target);
                }
                room
            };
            async move {
                let gone = || Reply::text(StatusCode::SERVICE_UNAVAILABLE, "the sign-in is over\n");
                whole(if room { page.await.unwrap_or_else(|_| gone()) } else { gone() })
            }
        };
        rt::spawn(serve(listener, Terms::default(), handler, async {
            // Its sender never sends: it is dropped.
            let _ = stopped.await;
        }));
        Ok(Self { port, waiting, _stop: stop })
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Answers the oldest request.
    pub(crate) fn answer(&self, page: Reply) {
        let asker = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(asker) = asker {
            // A browser that went away misses its page.
            let _ = asker.send(page);
        }
    }
}

/// A browser asks for the callback and an icon.
const MAX_WAITING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Connector;
    use tokio::sync::mpsc;

    fn get(port: u16, path: &str) -> tunnel_core::http::fetch::Fetch {
        tunnel_core::http::fetch::Fetch {
            method: http::Method::GET,
            url: format!("http://127.0.0.1:{port}{path}"),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            timeout: std::time::Duration::from_secs(5),
            max_body: 1024,
            reach: tunnel_core::http::reach::Reach::Anywhere,
        }
    }

    #[crate::rt::test]
    async fn browser_gets_the_page_that_was_ordered_and_nobody_listens_after() {
        let (asked, mut targets) = mpsc::unbounded_channel();
        let callback = Callback::listen(move |target| drop(asked.send(target))).await.expect("listens");
        let port = callback.port();
        let browser =
            rt::spawn(async move { crate::fetch::fetch(&Connector::new(), get(port, "/callback?a=b")).await });
        assert_eq!(targets.recv().await.as_deref(), Some("/callback?a=b"));
        callback.answer(Reply::text(StatusCode::OK, "done"));
        drop(callback);
        let page = browser.await.expect("asks").expect("is answered");
        assert_eq!((page.status, &page.body[..]), (StatusCode::OK, &b"done"[..]));
        for _ in 0..100 {
            if crate::fetch::fetch(&Connector::new(), get(port, "/")).await.is_err() {
                return;
            }
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("somebody still listens");
    }
}
