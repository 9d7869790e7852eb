//! Whether bytes that come in pieces are one JSON value: what a value that is spliced into a message uncopied and
//! unparsed must be, lest it end its envelope and write members of its own.
//!
//! The whole grammar of RFC 8259 is checked, strings for UTF-8 too; nothing is decoded or kept but what is open.

use alloc::vec::Vec;

use crate::limits;

/// One JSON value, with whitespace around it, as far as it came. Accepts what `serde_json` accepts as a `RawValue`,
/// up to [`limits::MAX_NESTING`].
#[derive(Debug, Clone)]
pub struct Scan {
    state: State,
    /// Whether the string that is open is a member's name.
    is_name: bool,
    open: Open,
}

/// Why bytes are not one JSON value. Says nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They break the grammar, or more than whitespace follows the value.
    #[error("it is not one JSON value")]
    Syntax,
    /// More is open than [`limits::MAX_NESTING`].
    #[error("it is nested too deeply")]
    TooDeep,
    /// The last piece came, and the value is not complete.
    #[error("it ends too early")]
    Short,
}

impl Scan {
    /// Nothing came yet, and any value may.
    #[must_use]
    pub fn value() -> Self {
        Self { state: State::Value, is_name: false, open: Open::default() }
    }

    /// Nothing came yet, and an object must.
    #[must_use]
    pub fn object() -> Self {
        Self { state: State::Object, ..Self::value() }
    }

    /// The next piece, cut anywhere. After a fault there is nothing more to ask.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        loop {
            if self.state == State::Text {
                rest = rest.get(plain::<true>(rest)..).unwrap_or_default();
            }
            let Some((byte, after)) = rest.split_first() else { return Ok(()) };
            self.state = self.step(*byte)?;
            rest = after;
        }
    }

    /// Nothing more comes: whether the value is complete.
    pub fn end(&self) -> Result<(), Fault> {
        let is_whole = match self.state {
            State::After | State::Zero | State::Digits | State::Fraction | State::Power => self.open.is_empty(),
            State::Value | State::Object | State::FirstItem | State::FirstName | State::Name | State::Colon => false,
            State::Text | State::Escape | State::Hex(_) | State::Unicode(_) | State::Word(_) => false,
            State::Minus | State::Point | State::Exponent | State::Sign => false,
        };
        if is_whole { Ok(()) } else { Err(Fault::Short) }
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        match self.state {
            State::Value => self.begin(byte),
            State::Object if byte == b'{' => self.begin(byte),
            State::FirstItem if byte == b']' => self.close(false),
            State::FirstItem if is_space(byte) => Ok(State::FirstItem),
            State::FirstItem => self.begin(byte),
            State::FirstName if byte == b'}' => self.close(true),
            State::FirstName | State::Name if byte == b'"' => Ok(self.text(true)),
            State::Colon if byte == b':' => Ok(State::Value),
            State::After => self.after(byte),
            State::Object | State::FirstName | State::Name | State::Colon if is_space(byte) => Ok(self.state),
            State::Object | State::FirstName | State::Name | State::Colon => Err(Fault::Syntax),

            State::Text => match byte {
                b'"' if self.is_name => Ok(State::Colon),
                b'"' => Ok(State::After),
                b'\\' => Ok(State::Escape),
                0x80.. => Follow::lead(byte).map(State::Unicode),
                // RFC 8259 section 7: control characters must be escaped.
                0x00..=0x1F => Err(Fault::Syntax),
                _ => Ok(State::Text),
            },
            State::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(State::Text),
                b'u' => Ok(State::Hex(4)),
                _ => Err(Fault::Syntax),
            },
            // Half a surrogate pair is grammar, if not text: whoever reads it decides.
            State::Hex(left) if byte.is_ascii_hexdigit() => {
                Ok(if left > 1 { State::Hex(left - 1) } else { State::Text })
            }
            State::Unicode(follow) => follow.next(byte).map(|next| next.map_or(State::Text, State::Unicode)),
            State::Word(rest) => match rest.split_first() {
                Some((expected, [])) if *expected == byte => Ok(State::After),
                Some((expected, rest)) if *expected == byte => Ok(State::Word(rest)),
                _ => Err(Fault::Syntax),
            },

            State::Minus if byte == b'0' => Ok(State::Zero),
            State::Minus | State::Digits if byte.is_ascii_digit() => Ok(State::Digits),
            State::Zero | State::Digits if byte == b'.' => Ok(State::Point),
            State::Point | State::Fraction if byte.is_ascii_digit() => Ok(State::Fraction),
            State::Zero | State::Digits | State::Fraction if matches!(byte, b'e' | b'E') => Ok(State::Exponent),
            State::Exponent if matches!(byte, b'+' | b'-') => Ok(State::Sign),
            State::Exponent | State::Sign | State::Power if byte.is_ascii_digit() => Ok(State::Power),
            State::Zero | State::Digits | State::Fraction | State::Power => self.after(byte),
            State::Hex(_) | State::Minus | State::Point | State::Exponent | State::Sign => Err(Fault::Syntax),
        }
    }

    /// Where a value may begin.
    fn begin(&mut self, byte: u8) -> Result<State, Fault> {
        match byte {
            b'{' => self.open(true).map(|()| State::FirstName),
            b'[' => self.open(false).map(|()| State::FirstItem),
            b'"' => Ok(self.text(false)),
            b't' => Ok(State::Word(b"rue")),
            b'f' => Ok(State::Word(b"alse")),
            b'n' => Ok(State::Word(b"ull")),
            b'-' => Ok(State::Minus),
            b'0' => Ok(State::Zero),
            b'1'..=b'9' => Ok(State::Digits),
            _ if is_space(byte) => Ok(State::Value),
            _ => Err(Fault::Syntax),
        }
    }

    /// Behind a value.
    fn after(&mut self, byte: u8) -> Result<State, Fault> {
        match (byte, self.open.innermost()) {
            (b',', Some(true)) => Ok(State::Name),
            (b',', Some(false)) => Ok(State::Value),
            (b'}', _) => self.close(true),
            (b']', _) => self.close(false),
            _ if is_space(byte) => Ok(State::After),
            _ => Err(Fault::Syntax),
        }
    }

    fn text(&mut self, is_name: bool) -> State {
        self.is_name = is_name;
        State::Text
    }

    fn open(&mut self, is_object: bool) -> Result<(), Fault> {
        if self.open.depth == limits::MAX_NESTING {
            return Err(Fault::TooDeep);
        }
        self.open.push(is_object);
        Ok(())
    }

    fn close(&mut self, is_object: bool) -> Result<State, Fault> {
        if self.open.innermost() != Some(is_object) {
            return Err(Fault::Syntax);
        }
        self.open.pop();
        Ok(State::After)
    }
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value.
    Value,
    /// An object alone.
    Object,
    /// A value, or the end of the array that was just opened.
    FirstItem,
    /// A name, or the end of the object that was just opened.
    FirstName,
    /// A name.
    Name,
    Colon,
    /// What may stand behind a value.
    After,
    /// Inside a string.
    Text,
    /// Behind a backslash.
    Escape,
    /// So many hexadecimal digits of an escape.
    Hex(u8),
    /// Inside a character of several bytes.
    Unicode(Follow),
    /// The rest of a literal.
    Word(&'static [u8]),
    /// Behind a number's minus.
    Minus,
    /// Behind a number's leading zero, which no digit may follow.
    Zero,
    /// Inside the digits of an integer.
    Digits,
    /// Behind the point.
    Point,
    Fraction,
    /// Behind the `e`.
    Exponent,
    /// Behind the exponent's sign.
    Sign,
    Power,
}

/// What is left of a character: so many bytes, the next of which is in a range (Unicode, table 3-7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follow {
    left: u8,
    low: u8,
    high: u8,
}

impl Follow {
    fn lead(byte: u8) -> Result<Self, Fault> {
        let (left, low, high) = match byte {
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Err(Fault::Syntax),
        };
        Ok(Self { left, low, high })
    }

    /// `None` when the character is complete.
    fn next(self, byte: u8) -> Result<Option<Self>, Fault> {
        if !(self.low..=self.high).contains(&byte) {
            return Err(Fault::Syntax);
        }
        Ok((self.left > 1).then_some(Self { left: self.left - 1, low: 0x80, high: 0xBF }))
    }
}

/// The objects and arrays that are open: a bit for each, set for an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Open {
    /// The innermost, up to 64 of them: the last one's bit is the lowest.
    inner: u64,
    /// Those around them, 64 in each. Few texts have any.
    outer: Vec<u64>,
    depth: usize,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.depth == 0
    }

    pub(super) fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(is_object);
        self.depth += 1;
    }

    pub(super) fn pop(&mut self) {
        self.inner >>= 1;
        self.depth = self.depth.saturating_sub(1);
        if self.depth.is_multiple_of(64)
            && let Some(outer) = self.outer.pop()
        {
            self.inner = outer;
        }
    }

    /// Whether the innermost is an object; `None` outside of all.
    pub(super) fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.inner & 1 == 1)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

/// How many bytes from the start are text of a string that means itself, if `ASCII` only such of that; at most seven too
/// few. Long answers are long strings, so this is the loop that counts: eight bytes at a time.
pub(super) fn plain<const ASCII: bool>(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    /// The top bit of each byte below `limit`, of those that follow the lowest such byte perhaps too.
    const fn below(word: u64, limit: u64) -> u64 {
        word.wrapping_sub(ONES * limit) & !word & TOPS
    }
    let mut length = 0;
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * 0x22), 1);
        let backslash = below(word ^ (ONES * 0x5C), 1);
        let beyond = if ASCII { word & TOPS } else { 0 };
        let special = below(word, 0x20) | quote | backslash | beyond;
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length
}

#[cfg(test)]
pub(super) mod tests {
    use alloc::format;
    use alloc::string::String;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn scan(mut scan: Scan, pieces: &[&[u8]]) -> Result<(), Fault> {
        pieces.iter().try_for_each(|piece| scan.push(piece))?;
        scan.end()
    }

    fn is_json(bytes: &[u8]) -> bool {
        serde_json::from_slice::<&RawValue>(bytes).is_ok()
    }

    #[test]
    fn one_value_and_nothing_else_passes() {
        for text in ["{}", " [ ] ", "\"\"", "0", "-0.0e-0 ", "1E+9", "null\n", "true", r#"{"a":[{},{"b":"\ud800\n"}]}"#]
        {
            assert_eq!(scan(Scan::value(), &[text.as_bytes()]), Ok(()), "{text}");
        }
        for text in
            ["{}{}", "{}},\"id\":9,\"x\":{", "1 2", "nulll", "[1,]", "{,}", "{\"a\":1,}", "[}", "01", "\"\n\"", "'a'"]
        {
            assert_eq!(scan(Scan::value(), &[text.as_bytes()]), Err(Fault::Syntax), "{text}");
        }
        for text in ["", " ", "{", "[1", "\"a", "-", "1.", "1e", "1e+", "tru", "\"\\", "\"\\u00", "{\"a\":"] {
            assert_eq!(scan(Scan::value(), &[text.as_bytes()]), Err(Fault::Short), "{text}");
        }
        assert_eq!(scan(Scan::object(), &[b" {} "]), Ok(()));
        assert_eq!(scan(Scan::object(), &[b"[]"]), Err(Fault::Syntax));
    }

    #[test]
    fn text_must_be_unicode() {
        for text in [&b"\xc3\xa9"[..], b"\xed\x9f\xbf", b"\xf4\x8f\xbf\xbf"] {
            assert_eq!(scan(Scan::value(), &[b"\"", text, b"\""]), Ok(()));
        }
        for text in [&b"\x80"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf5", b"\xc3\""] {
            assert_eq!(scan(Scan::value(), &[b"\"", text, b"\""]), Err(Fault::Syntax));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(Scan::value(), &[nested(limits::MAX_NESTING).as_bytes()]), Ok(()));
        assert_eq!(scan(Scan::value(), &[nested(limits::MAX_NESTING + 1).as_bytes()]), Err(Fault::TooDeep));
    }

    pub(in crate::rpc) fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
            "\"([ -!#-\\[\\]-~]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|é|漢|😀){0,40}\"",
            Just(String::from("true")),
            Just(String::from("false")),
            Just(String::from("null")),
        ];
        leaf.prop_recursive(6, 64, 5, |inner| {
            let space = "[ \n\r\t]{0,2}";
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..5), space)
                    .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(","))),
                (prop::collection::vec((any::<String>(), inner), 0..5), space).prop_map(|(members, space)| {
                    let members = members
                        .into_iter()
                        .map(|(name, value)| format!("{}{space}:{value}", serde_json::to_string(&name).unwrap()));
                    format!("{{{space}{}{space}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    /// JSON with a few bytes put in, exchanged, or left out.
    pub(in crate::rpc) fn altered() -> impl Strategy<Value = Vec<u8>> {
        let edit = (
            any::<prop::sample::Index>(),
            0..3_u8,
            prop_oneof![
                any::<u8>(),
                prop::sample::select(&b"{}[]\",:\\0123456789eE+-.truefalsn \n\x80\xbf\xc3\xe2\xf0"[..])
            ],
        );
        (json(), prop::collection::vec(edit, 1..4)).prop_map(|(text, edits)| {
            let mut bytes = text.into_bytes();
            for (at, kind, byte) in edits {
                let at = at.index(bytes.len() + 1);
                match kind {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => bytes[at] = byte,
                    _ if at < bytes.len() => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            bytes
        })
    }

    /// Two cuts, anywhere.
    fn cut(bytes: &[u8], a: prop::sample::Index, b: prop::sample::Index) -> [&[u8]; 3] {
        let (a, b) = (a.index(bytes.len() + 1), b.index(bytes.len() + 1));
        let (low, high) = (a.min(b), a.max(b));
        [&bytes[..low], &bytes[low..high], &bytes[high..]]
    }

    proptest! {
        #[test]
        fn json_passes_however_it_is_cut(text in json(), a: prop::sample::Index, b: prop::sample::Index) {
            prop_assert!(is_json(text.as_bytes()), "{}", text);
            prop_assert_eq!(scan(Scan::value(), &cut(text.as_bytes(), a, b)), Ok(()));
        }

        #[test]
        fn altered_json_is_judged_like_serde_json_judges_it(
            bytes in altered(),
            a: prop::sample::Index,
            b: prop::sample::Index,
        ) {
            prop_assert_eq!(scan(Scan::value(), &cut(&bytes, a, b)).is_ok(), is_json(&bytes));
        }

        #[test]
        fn plain_stops_at_the_first_byte_that_is_not(bytes in prop::collection::vec(prop_oneof![9 => 0x20..0x80_u8, 1 => any::<u8>()], 0..64)) {
            let whole = bytes.len() / 8 * 8;
            for (of_ascii, found) in [(true, plain::<true>(&bytes)), (false, plain::<false>(&bytes))] {
                let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20) || (of_ascii && *byte >= 0x80);
                let first = bytes.iter().position(is_special);
                prop_assert_eq!(found, first.unwrap_or(whole).min(whole));
            }
        }
    }
}
