//! What a run leaves behind: a hash of all that happened, how often rare things did, and, when asked for, a line of each.

use std::collections::BTreeMap;

/// The trace of a world.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    /// How often what happened, by name.
    pub cover: BTreeMap<&'static str, u64>,
    /// A line of everything, for people; only when it is asked for.
    pub lines: Option<Vec<String>>,
}

/// How much of a message a line shows.
const SHOWN: usize = 220;

impl Trace {
    /// An empty one, with lines or without.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        Self { lines: lines.then(Vec::new), ..Self::default() }
    }

    /// The same for two runs in which the same happened in the same order.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Something happened at `clock`.
    pub(crate) fn note(&mut self, clock: u64, what: &str, numbers: [u64; 2], bytes: &[u8]) {
        self.mix(clock);
        self.mix_bytes(what.as_bytes());
        numbers.into_iter().for_each(|number| self.mix(number));
        self.mix_bytes(bytes);
        if let Some(lines) = &mut self.lines {
            let [one, other] = numbers;
            let shown = String::from_utf8_lossy(bytes.get(..SHOWN).unwrap_or(bytes));
            let shown: String = shown.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
            let (secs, micros) = (clock / 1_000_000, clock % 1_000_000);
            lines.push(format!("{secs:>6}.{micros:06} {what} {one} {other} [{}] {shown}", bytes.len()));
        }
    }

    /// A rare branch was taken.
    pub(crate) fn cover(&mut self, what: &'static str) {
        *self.cover.entry(what).or_default() += 1;
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}
