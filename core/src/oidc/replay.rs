//! The library's flows without IO.
//!
//! `openidconnect` runs a flow with a client that it calls for each request. The client here answers from recorded
//! responses; past their end it keeps the request and fails, and the flow with it. Once the request has been made by
//! someone else, the flow is run again with one response more.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::cell::{Cell, RefCell};

use openidconnect::{HttpRequest, HttpResponse};

use crate::http::endpoint;
use crate::http::fetch::{Fetch, Fetched};
use crate::http::reach::Reach;
use crate::limits;

/// How far a flow came.
pub(super) enum Step<T> {
    /// To its end.
    Done(Box<T>),
    /// To a request whose response is not recorded.
    Wants(Box<HttpRequest>),
}

/// The client's way of saying that a response is not recorded.
#[derive(Debug, thiserror::Error)]
#[error("the response is not there yet")]
pub(super) struct NotRecorded;

/// The client that a flow is given.
pub(super) type Client<'a> = dyn Fn(HttpRequest) -> Result<HttpResponse, NotRecorded> + 'a;

/// Runs `flow` as far as `recorded` responses carry it.
pub(super) fn run<T, E>(
    recorded: &[HttpResponse],
    flow: impl FnOnce(&Client<'_>) -> Result<T, E>,
) -> Result<Step<T>, E> {
    let used = Cell::new(0);
    let wanted = RefCell::new(None);
    let result = flow(&|request| {
        let response = recorded.get(used.replace(used.get() + 1));
        response.cloned().ok_or_else(|| {
            wanted.borrow_mut().get_or_insert(request);
            NotRecorded
        })
    });
    match wanted.into_inner() {
        Some(request) => Ok(Step::Wants(Box::new(request))),
        None => result.map(|value| Step::Done(Box::new(value))),
    }
}

/// The library's request as an order to the adapter; `None` when its URL is not one that may carry secrets.
pub(super) fn fetch(request: HttpRequest) -> Option<Fetch> {
    let (head, body) = request.into_parts();
    let url = endpoint::secure(&head.uri.to_string())?;
    let mut headers = head.headers;
    if let Some(credentials) = headers.get_mut(http::header::AUTHORIZATION) {
        credentials.set_sensitive(true);
    }
    Some(Fetch {
        method: head.method,
        url: url.into(),
        headers,
        body: body.into(),
        timeout: limits::OAUTH_FETCH_TIMEOUT,
        max_body: limits::MAX_OAUTH_ANSWER,
        reach: Reach::Anywhere,
    })
}

/// The adapter's response as the library's.
pub(super) fn response(fetched: Fetched) -> HttpResponse {
    let mut response = HttpResponse::new(fetched.body.into());
    *response.status_mut() = fetched.status;
    *response.headers_mut() = fetched.headers;
    response
}
