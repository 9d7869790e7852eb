//! Pages for people: one look, one set of protections.

use alloc::format;
use alloc::string::String;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest;

use super::Reply;

/// A page of `title` with `body` inside its `main` element. It runs no script, loads nothing, cannot be framed, and is
/// neither cached nor named to the sites that it leads to.
#[must_use]
pub fn page(status: StatusCode, title: &str, body: &Markup) -> Reply {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    let mut reply = Reply::empty(status);
    // Whoever asked too much, or came when something was out of order, may come again when a bucket has a drop in it.
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        reply = reply.with(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    reply
        .with(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
        .with(CONTENT_SECURITY_POLICY, content_security_policy())
        .with(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
        .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with_body(text.into_string())
}

/// Nothing but our own style sheet, which is named by its hash. There is no `form-action`: Chromium applies it to the
/// whole chain of redirects after a form, which ends at the client's address.
fn content_security_policy() -> HeaderValue {
    let hash: String = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'");
    HeaderValue::try_from(policy).expect("base64 is visible ASCII")
}

/// The one style sheet: readable in light and dark, on a telephone and without any font of ours, and by keyboard alone:
/// nothing scrolls but the page.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#5c6370;--line:#d6d9de;--edge:#80868f;--paper:#fff;--ground:#f3f4f6;--act:#1a56db;--warn:#9a3412}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a5abb5;--line:#3b4048;--edge:#878e99;--paper:#1f2227;--ground:#14161a;--act:#7aa7ff;--warn:#fdba74}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\
main{max-width:34rem;margin:6vh auto;padding:1.5rem 2rem;background:var(--paper);border:1px solid var(--line);border-radius:12px}\
h1{font-size:1.35rem;line-height:1.25;margin:.25rem 0 1rem}h2{font-size:1.05rem;margin:1.5rem 0 .5rem}\
a{color:var(--act)}small,.soft{color:var(--soft)}.warn{color:var(--warn);border-left:3px solid;padding-left:.75rem}\
code,pre{font:.9em/1.45 ui-monospace,monospace}pre{white-space:pre-wrap;padding:.75rem;border:1px solid var(--line);border-radius:8px}\
.items{list-style:none;margin:0;padding:0}.items li{padding:.5rem 0 1rem;border-top:1px solid var(--line)}\
h3{font-size:1rem;margin:.5rem 0 0}summary{cursor:pointer;color:var(--act)}\
dl{margin:0}dt{color:var(--soft);margin-top:1rem}dd{margin:.25rem 0 0}dd pre{margin:0}\
label{display:block;margin:.75rem 0}\
input:not([type=checkbox]):not([type=hidden]){display:block;width:100%;font:inherit;color:inherit;background:transparent;padding:.55rem .7rem;border:1px solid var(--edge);border-radius:8px}\
::placeholder{color:var(--soft);opacity:1}\
button{font:inherit;padding:.55rem 1.2rem;margin:.75rem .5rem 0 0;border:1px solid var(--edge);border-radius:8px;background:transparent;color:inherit;cursor:pointer}\
button.primary{background:var(--act);border-color:var(--act);color:var(--paper)}\
:focus-visible{outline:2px solid var(--act);outline-offset:2px}";

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn header(reply: &Reply, name: http::HeaderName) -> &str {
        reply.headers.get(name).unwrap().to_str().unwrap()
    }

    #[test]
    fn page_is_protected() {
        let reply = page(StatusCode::OK, "x", &html! {});
        let policy = header(&reply, CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("form-action"), "{policy}");
        assert_eq!(header(&reply, REFERRER_POLICY), "no-referrer");
        assert_eq!(header(&reply, X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(header(&reply, CACHE_CONTROL), "no-store");
    }

    #[test]
    fn style_is_the_one_that_the_policy_names() {
        let reply = page(StatusCode::OK, "x", &html! {});
        let text = core::str::from_utf8(&reply.body).unwrap();
        let (_, rest) = text.split_once("<style>").unwrap();
        let (style, rest) = rest.split_once("</style>").unwrap();
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        assert!(header(&reply, CONTENT_SECURITY_POLICY).contains(&hash));
        assert!(!rest.contains("<style"));
    }

    #[test]
    fn pages_for_later_say_when() {
        for (status, told) in [(429, true), (503, true), (400, false), (200, false)] {
            let reply = page(StatusCode::from_u16(status).unwrap(), "x", &html! {});
            assert_eq!(reply.headers.contains_key(RETRY_AFTER), told, "{status}");
        }
    }

    /// The colours of the style sheet's light and dark half by name.
    fn colours() -> [Vec<(&'static str, [f64; 3])>; 2] {
        [1, 2].map(|half| {
            let block = STYLE.split(":root{").nth(half).and_then(|rest| rest.split('}').next()).unwrap();
            let named = block.split(';').filter_map(|one| one.strip_prefix("--")?.split_once(":#"));
            named.map(|(name, hex)| (name, channels(hex))).collect()
        })
    }

    /// The linear channels of a colour (WCAG 2.2, relative luminance).
    fn channels(hex: &str) -> [f64; 3] {
        let hex = if hex.len() == 3 { hex.chars().flat_map(|digit| [digit; 2]).collect() } else { String::from(hex) };
        [0, 2, 4].map(|at| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    }

    /// WCAG 2.2, contrast ratio.
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let luminance = |[red, green, blue]: [f64; 3]| 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
        let (one, other) = (luminance(one), luminance(other));
        one.max(other) / one.min(other)
    }

    #[test]
    fn contrast_is_computed_as_the_guideline_has_it() {
        assert!((contrast(channels("000"), channels("fff")) - 21.0).abs() < 1e-9);
        assert!((contrast(channels("777777"), channels("ffffff")) - 4.48).abs() < 0.005);
    }

    #[test]
    fn text_and_controls_stand_out_in_light_and_dark() {
        for (half, colours) in ["light", "dark"].into_iter().zip(colours()) {
            let of = |wanted: &str| colours.iter().find(|(name, _)| *name == wanted).expect(wanted).1;
            // WCAG 2.2, 1.4.3: text, also on the first button; 1.4.11: edges of fields, and the mark of what has the focus.
            for (front, back, least) in [
                ("ink", "paper", 4.5),
                ("soft", "paper", 4.5),
                ("act", "paper", 4.5),
                ("warn", "paper", 4.5),
                ("paper", "act", 4.5),
                ("edge", "paper", 3.0),
                ("act", "paper", 3.0),
                ("act", "ground", 3.0),
            ] {
                let ratio = contrast(of(front), of(back));
                assert!(ratio >= least, "{half}: {front} on {back} is {ratio:.2}");
            }
        }
    }

    #[test]
    fn hostile_text_is_escaped() {
        let reply = page(StatusCode::OK, "</title><script>", &html! { p { ("<img src=x onerror=y>") } });
        let text = core::str::from_utf8(&reply.body).unwrap();
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
    }
}
