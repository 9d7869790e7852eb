//! What the browser brings to the loopback listener, and the page it gets.

use alloc::borrow::Cow;
use alloc::string::String;

use http::StatusCode;
use maud::html;
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::metadata::Metadata;
use super::request::printable;
use crate::http::{Reply, page};
use crate::limits;
use crate::secret::Secret;

/// What a request to the listener is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    /// The answer to this sign-in, with a code.
    Code(Secret),
    /// The answer to this sign-in, and it is no.
    Refused(String),
    /// Not the answer to this sign-in: anybody on this machine, and any web page, can ask for anything.
    Foreign,
}

/// Judges a request target. The state comes first: without it, nothing can end a sign-in.
pub(crate) fn judge(target: &str, state: &str, metadata: &Metadata) -> Callback {
    let Some(query) = target.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('?')) else {
        return Callback::Foreign;
    };
    let Some(Answer { code, error, iss, .. }) = Answer::read(query).filter(|answer| answer.has_state(state)) else {
        return Callback::Foreign;
    };
    // RFC 9207 section 2.4: an answer of another server must not be taken to this one.
    let from_here = match iss {
        Some(iss) => iss == metadata.issuer,
        None => !metadata.promises_iss || error.is_some(),
    };
    match (error, code) {
        _ if !from_here => Callback::Refused("the answer came from another server".into()),
        (Some(code), _) => Callback::Refused(printable(&code)),
        (None, Some(code)) if !code.is_empty() && code.len() <= limits::MAX_CODE => Callback::Code(Secret::new(code)),
        (None, _) => Callback::Refused("the answer carries no code".into()),
    }
}

/// The parameters of an authorization response, each at most once (RFC 6749 section 3.1).
#[derive(Default)]
struct Answer<'a> {
    state: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    iss: Option<Cow<'a, str>>,
}

impl<'a> Answer<'a> {
    fn read(query: &'a str) -> Option<Self> {
        let mut answer = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                "state" => &mut answer.state,
                "code" => &mut answer.code,
                "error" => &mut answer.error,
                "iss" => &mut answer.iss,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        Some(answer)
    }

    fn has_state(&self, expected: &str) -> bool {
        self.state.as_deref().is_some_and(|state| state.as_bytes().ct_eq(expected.as_bytes()).into())
    }
}

/// A page of one sentence. `ok`: it was the callback that is waited for, and it brought a code.
pub(crate) fn page(ok: bool, title: &str, text: &str) -> Reply {
    let status = if ok { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    page::page(status, title, &html! { h1 { (title) } p { (text) } })
}

/// The only path that is answered.
const PATH: &str = "/callback";

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(promises_iss: bool) -> Metadata {
        Metadata {
            issuer: "https://relay.example".into(),
            authorization: "https://relay.example/authorize".parse().expect("a URL"),
            token: "https://relay.example/token".into(),
            revocation: None,
            registration: None,
            device: None,
            introspection: None,
            auth_methods: alloc::vec::Vec::new(),
            promises_iss,
        }
    }

    #[test]
    fn only_the_answer_to_this_sign_in_counts() {
        let refused = |cause: &str| Callback::Refused(cause.into());
        let other = || refused("the answer came from another server");
        let code = || Callback::Code(Secret::new("c"));
        let table = [
            ("/callback?code=c&state=s", false, code()),
            ("/callback?code=c&state=s&iss=https://relay.example", true, code()),
            ("/callback?code=c&state=s", true, other()),
            ("/callback?code=c&state=s&iss=https://relay.example/", false, other()),
            ("/callback?code=c&state=s&iss=https://evil.example", false, other()),
            ("/callback?error=access_denied&state=s", true, refused("access_denied")),
            ("/callback?error=%1b[31m&code=c&state=s", false, refused("[31m")),
            ("/callback?error=x&state=s&iss=https://evil.example", true, other()),
            ("/callback?state=s", false, refused("the answer carries no code")),
            ("/callback?code=&state=s", false, refused("the answer carries no code")),
            ("/callback?code=c&state=t", false, Callback::Foreign),
            ("/callback?code=c", false, Callback::Foreign),
            ("/callback?error=access_denied", false, Callback::Foreign),
            ("/callback?code=c&code=d&state=s", false, Callback::Foreign),
            ("/callback?code=c&state=s&state=s", false, Callback::Foreign),
            ("/callback/?code=c&state=s", false, Callback::Foreign),
            ("/callbackx?code=c&state=s", false, Callback::Foreign),
            ("//callback?code=c&state=s", false, Callback::Foreign),
            ("/callback#?code=c&state=s", false, Callback::Foreign),
            ("/?code=c&state=s", false, Callback::Foreign),
            ("/favicon.ico", false, Callback::Foreign),
            ("/callback", false, Callback::Foreign),
            ("", false, Callback::Foreign),
        ];
        for (target, promises_iss, expected) in table {
            assert_eq!(judge(target, "s", &metadata(promises_iss)), expected, "{target}");
        }
    }

    #[test]
    fn overlong_code_is_refused() {
        let target = |length| alloc::format!("/callback?state=s&code={}", "c".repeat(length));
        let found = judge(&target(limits::MAX_CODE), "s", &metadata(false));
        assert!(matches!(found, Callback::Code(_)));
        let found = judge(&target(limits::MAX_CODE + 1), "s", &metadata(false));
        assert!(matches!(found, Callback::Refused(_)));
    }

    #[test]
    fn page_escapes_what_it_is_given() {
        let page = page(true, "<b>", "a & \"b\" <script>");
        let page = core::str::from_utf8(&page.body).expect("text");
        assert!(page.contains("&lt;b&gt;") && page.contains("a &amp; &quot;b&quot; &lt;script&gt;"));
        assert!(!page.contains("<script") && !page.contains("<b>"));
    }
}
