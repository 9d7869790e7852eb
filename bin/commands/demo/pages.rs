//! What a browser makes of the relay's pages, as far as the walk needs it: their forms.

/// A form of a page, with what is filled in already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Form {
    /// Where it goes; empty: to the page's own URL.
    pub(super) action: String,
    /// Its inputs in order: type, name, value.
    pub(super) inputs: Vec<Input>,
}

/// A control of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// `hidden`, `text`, `password`, `submit`…
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) value: String,
}

impl Form {
    /// The fields that are sent when the button `press` (name and value) is pressed and `filled` are typed in.
    pub(super) fn submit(&self, filled: &[(&str, &str)], press: Option<&Input>) -> Vec<(String, String)> {
        let mut fields: Vec<_> = self
            .inputs
            .iter()
            .filter(|input| {
                !input.name.is_empty() && !matches!(input.kind.as_str(), "submit" | "button" | "checkbox" | "radio")
            })
            .map(|input| {
                let typed = filled.iter().find(|(name, _)| *name == input.name);
                (input.name.clone(), typed.map_or_else(|| input.value.clone(), |(_, value)| (*value).to_owned()))
            })
            .collect();
        fields.extend(
            press.filter(|button| !button.name.is_empty()).map(|button| (button.name.clone(), button.value.clone())),
        );
        fields
    }

    /// The first control of `kind`.
    pub(super) fn first(&self, kind: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.kind == kind)
    }

    /// The buttons that send it.
    pub(super) fn buttons(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter().filter(|input| input.kind == "submit")
    }
}

/// The forms of `page`, in order. Written for pages that are well-formed; what is not is skipped.
pub(super) fn forms(page: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut open: Option<Form> = None;
    for tag in tags(page) {
        match (tag.name.as_str(), &mut open) {
            ("form", _) => open = Some(Form { action: tag.attribute("action"), inputs: Vec::new() }),
            ("/form", form) => forms.extend(form.take()),
            (name @ ("input" | "button"), Some(form)) => {
                form.inputs.push(tag.input(if name == "button" { "submit" } else { "text" }))
            }
            _ => {}
        }
    }
    forms
}

/// An opening or closing tag.
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn attribute(&self, name: &str) -> String {
        self.attributes.iter().find(|(key, _)| key == name).map_or_else(String::new, |(_, value)| value.clone())
    }

    fn input(&self, default_kind: &str) -> Input {
        let kind = Some(self.attribute("type").to_ascii_lowercase()).filter(|kind| !kind.is_empty());
        Input {
            kind: kind.unwrap_or_else(|| default_kind.into()),
            name: self.attribute("name"),
            value: self.attribute("value"),
        }
    }
}

/// The tags of `page`.
fn tags(page: &str) -> impl Iterator<Item = Tag> + '_ {
    let mut rest = page;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once('<')?;
        let (tag, after) = tag(after);
        rest = after;
        Some(tag)
    })
}

/// The tag that begins `text` (behind its `<`), and what follows it.
fn tag(text: &str) -> (Tag, &str) {
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if let Some(after) = rest.strip_prefix('>') {
            return (Tag { name: name.to_ascii_lowercase(), attributes }, after);
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>' | '/')).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix('=') {
            Some(after) => attribute_value(after),
            None => ("", after),
        };
        if key.is_empty() && after.len() == rest.len() {
            // The end of the page, or something that is no attribute.
            return (Tag { name: name.to_ascii_lowercase(), attributes }, after);
        }
        attributes.push((key.to_ascii_lowercase(), unescape(value)));
        rest = after;
    }
}

/// A value with or without quotes, and what follows it.
fn attribute_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split_once(quote).unwrap_or((inner, ""));
        }
    }
    text.split_at(text.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(text.len()))
}

/// The text that `html` stands for, as far as escaping goes.
fn unescape(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('&') {
        text.push_str(before);
        let decoded = after.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        let (c, after) = decoded.unwrap_or(('&', after));
        text.push(c);
        rest = after;
    }
    text.push_str(rest);
    text
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<!DOCTYPE html><html><body><p>a < b</p>
        <form method=post action="/consent?a=1&amp;b=2">
          <input type="hidden" name="csrf" value="x&quot;y&#39;z&#x41;"><input name=user>
          <input type='password' name='password' required/>
          <button name="decision" value="approve">Allow</button><button type="submit" name="decision" value="deny">Deny</button>
        </form><form><input type=hidden name=other value=1></form></body>"#;

    #[test]
    fn forms_are_found_with_their_fields_unescaped() {
        let forms = forms(PAGE);
        assert_eq!(forms.len(), 2);
        let form = &forms[0];
        assert_eq!(form.action, "/consent?a=1&b=2");
        assert_eq!(form.first("hidden").map(|input| input.value.as_str()), Some("x\"y'zA"));
        assert_eq!(form.first("password").map(|input| input.name.as_str()), Some("password"));
        assert_eq!(form.buttons().map(|button| button.value.as_str()).collect::<Vec<_>>(), ["approve", "deny"]);
        assert_eq!(forms[1].inputs.len(), 1);
    }

    #[test]
    fn pressing_a_button_sends_it_and_what_was_typed() {
        let form = &forms(PAGE)[0];
        let sent = form.submit(&[("user", "ada"), ("password", "pw")], form.buttons().next());
        let sent: Vec<_> = sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(sent, [("csrf", "x\"y'zA"), ("user", "ada"), ("password", "pw"), ("decision", "approve")]);
    }

    proptest::proptest! {
        #[test]
        fn any_page_is_read_to_its_end(page in "[<>/=\"'& a-z;#\\PC]{0,200}") {
            let _ = forms(&page);
        }
    }
}
