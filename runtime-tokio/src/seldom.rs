//! Log lines about what happens often, and is often somebody else's doing: once a minute, so that nobody can fill the log.

use std::time::{Duration, Instant};

/// When a line of one kind was said last.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is to be said again; if so, it counts as said.
    pub(crate) fn is_time(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// Between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_said_once_a_minute() {
        let (mut line, now) = (Seldom::default(), Instant::now());
        assert!(line.is_time(now) && !line.is_time(now + PAUSE / 2));
        assert!(line.is_time(now + PAUSE) && !line.is_time(now + PAUSE));
    }
}
