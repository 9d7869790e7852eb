//! The link to a server's process: one JSON-RPC message per line on its stdin and stdout.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use super::people;
use crate::agent::contract::Action;
use crate::agent::cx::{Cx, RequestId};
use crate::agent::veil::Veil;
use crate::id::ChildId;
use crate::limits;
use crate::rpc::{self, Message};
use crate::sse;
use crate::time::Instant;

/// A process that was ordered, and may run.
#[derive(Debug)]
pub(super) struct Stdio {
    pub(super) child: ChildId,
    /// Known once it runs.
    pub(super) pid: Option<u32>,
    /// Bytes ordered for its stdin that did not go in yet.
    backlog: usize,
    noise: Noise,
    /// What must not be quoted of it.
    pub(super) veil: Veil,
}

/// A server that does not read its stdin has more waiting than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Stdio {
    pub(super) fn new(child: ChildId, veil: Veil) -> Self {
        Self { child, pid: None, backlog: 0, noise: Noise::default(), veil }
    }

    /// Sends one message.
    pub(super) fn send(&mut self, message: Bytes, cx: &mut Cx) -> Result<(), Full> {
        let line = line(message);
        let waiting = self.backlog.saturating_add(line.len());
        if waiting > limits::MAX_STDIN_BACKLOG {
            return Err(Full);
        }
        self.backlog = waiting;
        cx.out.push(Action::Write { child: self.child, bytes: line });
        Ok(())
    }

    /// Bytes went into its stdin.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.backlog = self.backlog.saturating_sub(bytes);
    }

    /// The messages of a line of stdout; a line that is none is counted. A batch (2025-03-26) is several.
    pub(super) fn read(&mut self, line: &Bytes, now: Instant) -> Vec<(Message, Bytes)> {
        let read = if line.iter().all(u8::is_ascii_whitespace) { Vec::new() } else { messages(line) };
        if read.is_empty() {
            self.noise.add(line, &self.veil, now);
        } else {
            self.noise.interrupted();
        }
        read
    }

    /// Counts something on stdout that is no message, or none that was expected.
    pub(super) fn noise(&mut self, line: &[u8], now: Instant) {
        self.noise.add(line, &self.veil, now);
    }

    /// Whether its stdout is a flood of something else than the protocol.
    pub(super) fn is_flooding(&self) -> bool {
        self.noise.is_flood()
    }

    /// Whether there was something on its stdout besides the protocol.
    pub(super) fn is_noisy(&self) -> bool {
        self.noise.lines > 0
    }

    /// What was on its stdout besides the protocol: for people.
    pub(super) fn noise_text(&self) -> Option<String> {
        self.noise.text()
    }
}

/// All messages of `text`: one, or a batch of them. Empty when one of them is not JSON-RPC.
pub(super) fn messages(text: &Bytes) -> Vec<(Message, Bytes)> {
    if !rpc::is_batch(text) {
        return rpc::parse(text).ok().map(|message| (message, text.clone())).into_iter().collect();
    }
    let parts = rpc::parse_batch(text);
    let parsed = parts.and_then(|parts| parts.into_iter().map(|part| Ok((rpc::parse(&part)?, part))).collect());
    parsed.unwrap_or_default()
}

/// The request whose answer was thrown away for its length, if one of the line's ends names it.
///
/// Only top-level members are believed: a tool's result may hold an `"id"` of its own.
pub(super) fn answered_by(prefix: &[u8], suffix: &[u8]) -> Option<RequestId> {
    id_at_start(prefix).or_else(|| id_at_end(suffix)).map(RequestId)
}

/// The request that a line would answer if it were a message: there will be no better one. Only top-level members are
/// believed, and a line that may be the request itself, printed, is none.
pub(super) fn broken_answer(line: &Bytes) -> Option<RequestId> {
    let has = |key: &[u8]| line.windows(key.len()).any(|window| window == key);
    if has(b"\"method\"") || !(has(b"\"result\"") || has(b"\"error\"")) {
        return None;
    }
    let id = rpc::parse(line).err()?.id.and_then(|id| id.as_number());
    id.map(RequestId).or_else(|| answered_by(line, line))
}

/// Lines on stdout that are no messages: debug output, a banner, a stack trace; a flood of them is another program.
#[derive(Debug, Default)]
struct Noise {
    lines: u64,
    first: String,
    /// Those without a message in between, since when.
    run: (Instant, usize, usize),
}

impl Noise {
    fn add(&mut self, line: &[u8], veil: &Veil, now: Instant) {
        let (since, lines, bytes) = self.run;
        let is_old = lines == 0 || now.saturating_since(since) >= limits::NOISE_WINDOW;
        let (since, lines, bytes) = if is_old { (now, 0, 0) } else { (since, lines, bytes) };
        self.run = (since, lines.saturating_add(1), bytes.saturating_add(line.len()));
        // Empty lines are harmless as long as they are few.
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if self.lines == 0 {
            let said = veil.hide(&String::from_utf8_lossy(line.get(..limits::MAX_QUOTED).unwrap_or(line)));
            self.first = people(&said, limits::MAX_QUOTE);
        }
        self.lines += 1;
    }

    /// A message came.
    fn interrupted(&mut self) {
        self.run = Default::default();
    }

    fn is_flood(&self) -> bool {
        let (_, lines, bytes) = self.run;
        lines > limits::MAX_NOISE_LINES || bytes > limits::MAX_NOISE
    }

    fn text(&self) -> Option<String> {
        match self.lines {
            0 => None,
            1 => Some(alloc::format!("its stdout has a line that is no MCP message: \"{}\"", self.first)),
            lines => Some(alloc::format!(
                "its stdout has {lines} lines that are no MCP messages, the first of them: \"{}\"",
                self.first
            )),
        }
    }
}

/// `message` as a line: the stdio transport forbids line breaks within (2025-11-25, Transports, stdio: MUST NOT contain
/// embedded newlines), and a client's params may have some.
fn line(message: Bytes) -> Bytes {
    let mut line = sse::one_line(message).try_into_mut().unwrap_or_else(|shared| {
        let mut copy = BytesMut::with_capacity(shared.len().saturating_add(1));
        copy.put_slice(&shared);
        copy
    });
    line.put_u8(b'\n');
    line.freeze()
}

/// Reads top-level members from the front until the id, or until something other than a short scalar.
fn id_at_start(prefix: &[u8]) -> Option<u64> {
    let mut rest = expect(space(prefix), b'{')?;
    loop {
        let (key, after) = scalar(space(rest))?;
        let after = expect(space(after), b':')?;
        let (value, after) = scalar(space(after))?;
        if key == b"\"id\"" {
            return number(value);
        }
        rest = expect(space(after), b',')?;
    }
}

/// Looks for `"id": number` that is followed by nothing but short scalar members and the closing brace of the message.
fn id_at_end(suffix: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"id\"";
    let starts = suffix.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY);
    starts.filter_map(|(at, _)| members_to_end(suffix.get(at..)?)).next_back()
}

/// The first member's number, if `text` is members and then the end of the message.
fn members_to_end(text: &[u8]) -> Option<u64> {
    let mut id = None;
    let mut rest = text;
    loop {
        let (_, after) = scalar(space(rest))?;
        let after = expect(space(after), b':')?;
        let (value, after) = scalar(space(after))?;
        id = id.or_else(|| number(value));
        id?;
        let after = space(after);
        if let Some(end) = expect(after, b'}') {
            return if space(end).is_empty() { id } else { None };
        }
        rest = expect(after, b',')?;
    }
}

fn space(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

fn expect(text: &[u8], byte: u8) -> Option<&[u8]> {
    text.strip_prefix(&[byte])
}

/// A string without escapes, a number or a word at the front, and what follows it.
fn scalar(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match text.first()? {
        b'"' => 2 + text.get(1..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?,
        _ => text.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'+' | b'.' | b'E'))?,
    };
    let (value, rest) = text.split_at_checked(length)?;
    let whole = !value.is_empty() && (value.first() != Some(&b'"') || value.last() == Some(&b'"'));
    whole.then_some((value, rest))
}

fn number(raw: &[u8]) -> Option<u64> {
    serde_json::from_slice(raw).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_hold_no_line_breaks_of_the_client() {
        assert_eq!(line(Bytes::from_static(b"{\"a\":\r\n1}")), Bytes::from_static(b"{\"a\":  1}\n"));
    }

    #[test]
    fn id_of_a_long_line_is_found_at_either_end() {
        let found = |prefix: &str, suffix: &str| answered_by(prefix.as_bytes(), suffix.as_bytes()).map(|id| id.0);
        assert_eq!(found(r#"{"jsonrpc":"2.0","id": 7 ,"result":{"x":"#, "xx"), Some(7));
        assert_eq!(found(r#"{ "id":7,"#, ""), Some(7));
        assert_eq!(found(r#"{"result":{"content":"#, r#"aaa"}]},"jsonrpc":"2.0","id":9}"#), Some(9));
        assert_eq!(found(r#"{"result":"#, r#"a"},"id":9,"jsonrpc":"2.0"} "#), Some(9));
    }

    #[test]
    fn broken_answer_names_its_request_and_other_lines_none() {
        let found = |line: &[u8]| broken_answer(&Bytes::copy_from_slice(line)).map(|id| id.0);
        assert_eq!(found(br#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN}}"#), Some(7));
        assert_eq!(found(br#"{"jsonrpc":"2.0","id":7,"error":"bad"}"#), Some(7));
        assert_eq!(found(br#"{"result":{},"id":7}"#), Some(7), "without its version");
        assert_eq!(found(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"\xff\"}"), Some(7));
        assert_eq!(found(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"result"#), None);
        assert_eq!(found(br#"{"result":{"id":7,"x":NaN}}"#), None);
        assert_eq!(found(br#"{"id":7}"#), None);
        assert_eq!(found(br#"{"jsonrpc":"2.0","id":7,"result":{}}"#), None, "it is a message");
    }

    #[test]
    fn id_inside_of_a_long_result_is_not_believed() {
        let found = |prefix: &str, suffix: &str| answered_by(prefix.as_bytes(), suffix.as_bytes());
        assert_eq!(found(r#"{"result":{"id":7,"x":""#, r#"aaa","id":3}]}}"#), None);
        assert_eq!(found(r#"{"result":{"id":7,"x":""#, r#"aaa\"id\":3}"#), None);
        assert_eq!(found(r#"{"id":"7","#, ""), None);
        assert_eq!(found(r#"{"id":12"#, ""), None, "the number may go on");
        assert_eq!(found("", ""), None);
    }

    #[test]
    fn noise_is_counted_and_its_first_line_quoted() {
        let mut stdio = Stdio::new(ChildId(1), Veil::default());
        assert_eq!(stdio.noise_text(), None);
        for line in ["  ", "Listening\x1b[1m on stdio", "{\"jsonrpc\":\"2.0\"}"] {
            assert!(stdio.read(&Bytes::from_static(line.as_bytes()), Instant::default()).is_empty());
        }
        let text = stdio.noise_text().unwrap();
        assert!(text.contains("2 lines") && text.contains("\"Listening[1m on stdio\""), "{text}");
    }

    #[test]
    fn noise_is_a_flood_once_it_is_much_at_once_without_a_message() {
        let flooded_after = |line: &'static str, every: core::time::Duration, message_every: usize| {
            let (mut stdio, mut now) = (Stdio::new(ChildId(1), Veil::default()), Instant::default());
            (1..=3 * limits::MAX_NOISE_LINES).find(|lines| {
                let message = lines % message_every == 0;
                let line = if message { r#"{"jsonrpc":"2.0","method":"x"}"# } else { line };
                stdio.read(&Bytes::from_static(line.as_bytes()), now);
                now = now + every;
                stdio.is_flooding()
            })
        };
        let (at_once, never) = (core::time::Duration::ZERO, usize::MAX);
        assert_eq!(flooded_after("y", at_once, never), Some(limits::MAX_NOISE_LINES + 1));
        assert_eq!(flooded_after("", at_once, never), Some(limits::MAX_NOISE_LINES + 1));
        assert_eq!(flooded_after("y", at_once, limits::MAX_NOISE_LINES), None, "it speaks MCP in between");
        assert_eq!(flooded_after("y", core::time::Duration::from_millis(100), never), None, "a log, not a flood");
    }

    #[test]
    fn noise_of_few_huge_lines_is_a_flood_too() {
        let mut stdio = Stdio::new(ChildId(1), Veil::default());
        let half = std::vec![b'y'; limits::MAX_NOISE / 2];
        stdio.noise(&half, Instant::default());
        stdio.noise(&half, Instant::default());
        assert!(!stdio.is_flooding());
        stdio.noise(b"y", Instant::default());
        assert!(stdio.is_flooding());
    }

    #[test]
    fn batches_are_several_messages() {
        let batch = Bytes::from_static(br#"[{"jsonrpc":"2.0","id":1,"result":1},{"jsonrpc":"2.0","method":"x"}]"#);
        assert_eq!(messages(&batch).len(), 2);
    }

    #[test]
    fn stdin_backlog_is_bounded_and_drains() {
        let mut cx = crate::agent::tests::cx();
        let mut stdio = Stdio::new(ChildId(1), Veil::default());
        let most = Bytes::from(std::vec![b'x'; limits::MAX_STDIN_BACKLOG - 1]);
        assert_eq!(stdio.send(most, &mut cx), Ok(()));
        assert_eq!(stdio.send(Bytes::new(), &mut cx), Err(Full));
        stdio.wrote(1);
        assert_eq!(stdio.send(Bytes::new(), &mut cx), Ok(()));
    }

    proptest! {
        #[test]
        fn ends_of_any_line_are_read_without_panic(prefix: Vec<u8>, suffix: Vec<u8>) {
            let _ = answered_by(&prefix, &suffix);
        }

        #[test]
        fn message_is_one_line_and_says_the_same(text: String, n: i32, breaks in "[\\r\\n]{0,3}") {
            let value = serde_json::json!({"jsonrpc": "2.0", "id": n, "result": {"text": text, "list": [n, {}]}});
            let pretty = serde_json::to_string_pretty(&value).expect("JSON").replace('\n', &std::format!("{breaks}\n"));
            let line = line(Bytes::from(pretty));
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "its end, and no other");
            prop_assert!(!line.contains(&b'\r'));
            let read: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
            prop_assert_eq!(read, value);
            prop_assert_eq!(messages(&line).len(), 1);
        }

        #[test]
        fn id_written_last_is_found(id: u64, body in "[a-z\\\\\" {}:,]{0,100}") {
            let result = rpc::quoted(&body);
            let text = std::format!("{{\"result\":{{\"text\":{result},\"id\":1}},\"jsonrpc\":\"2.0\",\"id\":{id}}}");
            let from = text.len().saturating_sub(256);
            prop_assert_eq!(answered_by(b"{\"result\":{\"te", &text.as_bytes()[from..]), Some(RequestId(id)));
        }
    }
}
