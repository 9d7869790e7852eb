//! Forms that come from elsewhere: another page, another browser, another flow.

use super::support::browser::{Browser, Form, form, parameter};
use super::support::oauth::{FORM, REDIRECT, authorize, login_page, register};
use super::support::{PASSWORD, Reply};
use super::{Attack, ensure, stays_here};

pub const ATTACKS: &[Attack] = &[
    ("consent without this browser's cookie", |relay| {
        let page = Browser::new(relay).get(&authorize(&register(relay)));
        goes_nowhere(&Browser::new(relay).submit(&form(&page), &[("decision", "allow")]))
    }),
    ("consent from a foreign page", |relay| {
        let mut browser = Browser::new(relay);
        let own = form(&browser.get(&authorize(&register(relay))));
        for field in
            [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"), ("Origin", "https://evil.example")]
        {
            let reply = browser.submit_with(&own, &[("decision", "allow")], &[FORM, field]);
            goes_nowhere(&reply).map_err(|how| format!("{field:?}: {how}"))?;
        }
        Ok(())
    }),
    ("somebody else's request in this browser's flow", |relay| {
        let (mine, theirs) = (register(relay), register(relay));
        let mut browser = Browser::new(relay);
        let mut own = form(&browser.get(&authorize(&mine)));
        let other = form(&Browser::new(relay).get(&authorize(&theirs)));
        set(&mut own, "request", &field(&other, "request"));
        goes_nowhere(&browser.submit(&own, &[("decision", "allow")]))
    }),
    ("request of one tab in the flow of another", |relay| {
        let client = register(relay);
        let mut browser = Browser::new(relay);
        let mut first = form(&browser.get(&authorize(&client)));
        let second = form(&browser.get(&authorize(&client)));
        set(&mut first, "request", &field(&second, "request"));
        goes_nowhere(&browser.submit(&first, &[("decision", "allow")]))
    }),
    ("sealed request with one character changed", |relay| {
        let mut browser = Browser::new(relay);
        let own = form(&browser.get(&authorize(&register(relay))));
        let sealed = field(&own, "request");
        for at in [0, 1, 8, sealed.len() / 2, sealed.len() - 1] {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let mut changed = own.clone();
            set(&mut changed, "request", &String::from_utf8(bytes).expect("ASCII"));
            goes_nowhere(&browser.submit(&changed, &[("decision", "allow")]))
                .map_err(|how| format!("at {at}: {how}"))?;
        }
        Ok(())
    }),
    ("decision that is none", |relay| {
        let mut browser = Browser::new(relay);
        let own = form(&browser.get(&authorize(&register(relay))));
        goes_nowhere(&browser.submit(&own, &[]))?;
        goes_nowhere(&browser.submit(&own, &[("decision", "ALLOW")]))?;
        goes_nowhere(&browser.submit(&own, &[("decision", "deny"), ("decision", "allow")]))
    }),
    ("login without this browser's cookie", |relay| {
        let login = login_page(&mut Browser::new(relay), &register(relay));
        goes_nowhere(&Browser::new(relay).submit(&login, &[("user", "ada"), ("password", PASSWORD)]))
    }),
    ("login from a foreign page", |relay| {
        let mut browser = Browser::new(relay);
        let login = login_page(&mut browser, &register(relay));
        let credentials = [("user", "eve"), ("password", PASSWORD)];
        goes_nowhere(&browser.submit_with(&login, &credentials, &[FORM, ("Sec-Fetch-Site", "cross-site")]))?;
        goes_nowhere(&browser.submit_with(&login, &credentials, &[FORM, ("Origin", "null")]))
    }),
    ("login form's token guessed or of another flow", |relay| {
        let client = register(relay);
        let mut browser = Browser::new(relay);
        let mut login = login_page(&mut browser, &client);
        let other = login_page(&mut Browser::new(relay), &client);
        for token in [field(&other, "csrf"), String::new(), "A".repeat(43)] {
            set(&mut login, "csrf", &token);
            goes_nowhere(&browser.submit(&login, &[("user", "ada"), ("password", PASSWORD)]))?;
        }
        Ok(())
    }),
    ("cookie planted beside the real one", |relay| {
        let mut browser = Browser::new(relay);
        let login = login_page(&mut browser, &register(relay));
        let (name, _) = browser.cookies().find(|(name, _)| name.contains("login")).expect("the flow's cookie");
        let planted = format!("{name}=planted");
        let credentials = [("user", "ada"), ("password", PASSWORD)];
        let own = [FORM, ("Sec-Fetch-Site", "same-origin"), ("Cookie", planted.as_str())];
        goes_nowhere(&browser.submit_with(&login, &credentials, &own))
    }),
    ("telling users from nobody", |relay| {
        let client = register(relay);
        let mut browser = Browser::new(relay);
        let login = login_page(&mut browser, &client);
        let known = browser.submit(&login, &[("user", "ada"), ("password", "wrong")]);
        let unknown = browser.submit(&login, &[("user", "nobody"), ("password", "wrong")]);
        let same = known.status == unknown.status && known.text() == unknown.text();
        ensure(same, || format!("{}\n{}", known.text(), unknown.text()))
    }),
    ("password guessed again and again", |relay| {
        let mut browser = Browser::new(relay);
        let login = login_page(&mut browser, &register(relay));
        let headers = [FORM, ("Sec-Fetch-Site", "same-origin"), ("X-Forwarded-For", "198.51.100.7")];
        let mut attempts = (0..40).map(|guess| {
            browser.submit_with(&login, &[("user", "eve"), ("password", &format!("guess {guess}"))], &headers)
        });
        ensure(attempts.any(|reply| reply.status == 429), || "forty guesses were all judged".into())
    }),
];

fn goes_nowhere(reply: &Reply) -> Result<(), String> {
    stays_here(reply)?;
    let text = reply.text();
    ensure(!text.contains(REDIRECT) && parameter(&text, "code").is_none(), || text.clone())
}

fn field(form: &Form, name: &str) -> String {
    form.fields.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("{name} in {form:?}")).1.clone()
}

fn set(form: &mut Form, name: &str, value: &str) {
    form.fields.iter_mut().find(|(own, _)| own == name).expect("the form has it").1 = value.to_owned();
}
