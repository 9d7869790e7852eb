//! A walk over a text: where its parts stand, in one pass that checks RFC 8259's grammar on its way. Nothing is decoded,
//! and nesting costs no stack.

use core::ops::Range;

use super::scan::{Open, plain};

/// A walk over what is to be JSON. Whether it is UTF-8 is found out on the way too: an ASCII text is gone over once.
pub(super) struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    /// The rest of the text is known to be UTF-8. Until then, all that is behind is ASCII.
    is_text: bool,
}

/// The text is not JSON from here on, or not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// Where the value stands that is all of `text`, but for space around it.
pub(super) fn whole(text: &[u8]) -> Result<Range<usize>, Broken> {
    let mut walk = Walk::new(text);
    walk.space();
    let value = walk.value()?;
    walk.end()?;
    Ok(value)
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, is_text: false }
    }

    /// A walk into the object that `text` begins with: its members are next.
    pub(super) fn into_object(text: &'a [u8]) -> Result<Self, Broken> {
        let mut walk = Self::new(text);
        walk.space();
        walk.expect(b'{')?;
        Ok(walk)
    }

    /// How far it came.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What stands there.
    pub(super) fn raw(&self, range: &Range<usize>) -> &'a [u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// To the value of the object's next member: where its key stands, with its quotes. `None`: there is no more of it.
    pub(super) fn key(&mut self, is_first: bool) -> Result<Option<Range<usize>>, Broken> {
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        if !is_first {
            self.expect(b',')?;
            self.space();
        }
        self.name().map(Some)
    }

    /// Over a value that begins here.
    pub(super) fn value(&mut self) -> Result<Range<usize>, Broken> {
        let start = self.at;
        match self.next()? {
            first @ (b'{' | b'[') => self.nested(first == b'{')?,
            first => self.scalar(first)?,
        }
        Ok(start..self.at)
    }

    /// Over space, to the end of the text.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Broken) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Broken> {
        let byte = self.peek().ok_or(Broken)?;
        self.at += 1;
        Ok(byte)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Broken> {
        if self.next()? == byte { Ok(()) } else { Err(Broken) }
    }

    /// Over a member's key and colon.
    fn name(&mut self) -> Result<Range<usize>, Broken> {
        let start = self.at;
        self.expect(b'"')?;
        self.string()?;
        let name = start..self.at;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(name)
    }

    /// Over an object or array whose first byte is behind, and all that is in it.
    fn nested(&mut self, is_object: bool) -> Result<(), Broken> {
        let mut open = Open::default();
        open.push(is_object);
        let mut is_first = true;
        while let Some(is_object) = open.innermost() {
            self.space();
            match (self.peek(), is_object) {
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    open.pop();
                    is_first = false;
                    continue;
                }
                (Some(b','), _) if !is_first => {
                    self.at += 1;
                    self.space();
                }
                _ if is_first => {}
                _ => return Err(Broken),
            }
            if is_object {
                self.name()?;
            }
            is_first = false;
            match self.next()? {
                first @ (b'{' | b'[') => {
                    open.push(first == b'{');
                    is_first = true;
                }
                first => self.scalar(first)?,
            }
        }
        Ok(())
    }

    /// Over a string, number or word whose first byte is behind.
    fn scalar(&mut self, first: u8) -> Result<(), Broken> {
        match first {
            b'"' => self.string(),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            first => self.number(first),
        }
    }

    /// Over a string whose opening quote is behind.
    fn string(&mut self) -> Result<(), Broken> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            self.at += if self.is_text { plain::<false>(rest) } else { plain::<true>(rest) };
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                // RFC 8259 section 7: control characters must be escaped.
                0x00..=0x1F => return Err(Broken),
                0x80.. if !self.is_text => self.check_text()?,
                _ => {}
            }
        }
    }

    /// Whether all from the byte that was just passed is UTF-8: outside of strings, the grammar has ASCII alone.
    fn check_text(&mut self) -> Result<(), Broken> {
        let rest = self.text.get(self.at - 1..).unwrap_or_default();
        core::str::from_utf8(rest).map_err(|_| Broken)?;
        self.is_text = true;
        Ok(())
    }

    /// Half a surrogate pair is grammar, if not text: whoever reads it decides.
    fn escape(&mut self) -> Result<(), Broken> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => (0..4).try_for_each(|_| if self.next()?.is_ascii_hexdigit() { Ok(()) } else { Err(Broken) }),
            _ => Err(Broken),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Result<(), Broken> {
        rest.iter().try_for_each(|byte| self.expect(*byte))
    }

    /// Over a number whose first byte is behind.
    fn number(&mut self, first: u8) -> Result<(), Broken> {
        match if first == b'-' { self.next()? } else { first } {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return Err(Broken),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Broken> {
        if !self.next()?.is_ascii_digit() {
            return Err(Broken);
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::rpc::scan::tests::{altered, json};

    #[test]
    fn nesting_of_any_depth_is_balanced() {
        for depth in [1, 63, 64, 65, 128, 129, 1_000] {
            let (open, close) = ("[{\"a\":".repeat(depth), "}]".repeat(depth));
            let text = std::format!("{open}1{close}");
            assert_eq!(whole(text.as_bytes()), Ok(0..text.len()));
            let wrong = [std::format!("{open}1]{close}"), std::format!("{open}1{}", close.replacen("}]", "]}", 1))];
            for text in wrong {
                assert_eq!(whole(text.as_bytes()), Err(Broken), "{depth}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_found_wherever_it_stands() {
        for (text, is_json) in [
            (&b"[\"a\",\"\xc3\xa9\",\"\xe6\xbc\xa2\"]"[..], true),
            (b"\"\x80\"", false),
            (b"\"\xc3\"", false),
            (b"[\"\xc3\xa9\",\"\xed\xa0\x80\"]", false),
            (b"[\"\xc3\xa9\"]\xff", false),
            (b"\xc3\xa9", false),
        ] {
            assert_eq!(whole(text).is_ok(), is_json, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn value_is_where_serde_json_finds_it(text in json(), before in "[ \n\r\t]{0,2}", after in "[ \n\r\t]{0,2}") {
            let padded = std::format!("{before}{text}{after}");
            prop_assert_eq!(whole(padded.as_bytes()), Ok(before.len()..before.len() + text.len()));
        }

        #[test]
        fn altered_json_is_judged_like_serde_json_judges_it(bytes in altered()) {
            prop_assert_eq!(whole(&bytes).is_ok(), serde_json::from_slice::<&RawValue>(&bytes).is_ok());
        }
    }
}
