//! The callers of a run: each asks the same question on a connection of its own, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tunnel_core::bench::{Figures, Tally};
use tunnel_core::limits;
use tunnel_core::probe::contract::Question;

use crate::host::fetch::Line;
use crate::host::net::Connector;
use crate::host::rt::{Instant, JoinSet, sleep, sleep_until};

/// What a run does.
pub(super) struct Load {
    pub(super) connector: Connector,
    pub(super) question: Arc<Question>,
    /// The numbers of requests, each of which a session knows once.
    pub(super) numbers: Arc<AtomicU64>,
    pub(super) callers: usize,
    pub(super) lasting: Duration,
    /// How many calls are due in a second; `None`: each caller asks again once it is answered.
    pub(super) rate: Option<u32>,
}

impl Load {
    /// Makes the calls. Connections are made before the time begins.
    pub(super) async fn run(self) -> Figures {
        let mut all = Tally::default();
        let mut lines = Vec::new();
        let mut connecting = JoinSet::new();
        for _ in 0..self.callers {
            let mut line = Line::new(self.connector.clone());
            let first = self.question.request(0);
            connecting.spawn(async move { line.connect(&first).await.map(|()| line) });
        }
        while let Some(outcome) = connecting.join_next().await {
            match outcome.expect("connecting does not panic") {
                Ok(line) => lines.push(line),
                Err(error) => all.failed(error.to_string()),
            }
        }
        let start = Instant::now();
        let turns = Arc::new(Turns { start, end: start + self.lasting, rate: self.rate, taken: AtomicU64::new(0) });
        let mut callers = JoinSet::new();
        for line in lines {
            let (question, numbers) = (Arc::clone(&self.question), Arc::clone(&self.numbers));
            let caller = Caller { line, question, numbers, turns: Arc::clone(&turns), tally: Tally::default() };
            callers.spawn(caller.run());
        }
        while let Some(tally) = callers.join_next().await {
            all.add(tally.expect("callers do not panic"));
        }
        all.figures(start.elapsed())
    }
}

/// Whose turn it is, and since when.
struct Turns {
    start: Instant,
    end: Instant,
    rate: Option<u32>,
    taken: AtomicU64,
}

enum Turn {
    /// A call is due, as of then.
    Due(Instant),
    /// One was due that nobody was free for in time.
    Missed,
    Over,
}

impl Turns {
    async fn next(&self) -> Turn {
        let turn = self.taken.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let Some(rate) = self.rate else {
            let goes_on = now < self.end && turn < limits::BENCH_CALLS;
            return if goes_on { Turn::Due(now) } else { Turn::Over };
        };
        let due = self.start + Duration::from_secs_f64(turn as f64 / f64::from(rate));
        if due >= self.end || turn >= limits::BENCH_CALLS {
            return Turn::Over;
        }
        if now >= self.end {
            return Turn::Missed;
        }
        if due > now {
            sleep_until(due).await;
        }
        // However late a caller or the timer is: that it had to wait counts.
        Turn::Due(due)
    }
}

struct Caller {
    line: Line,
    question: Arc<Question>,
    numbers: Arc<AtomicU64>,
    turns: Arc<Turns>,
    tally: Tally,
}

impl Caller {
    async fn run(mut self) -> Tally {
        while self.tally.failures() < limits::BENCH_FAILURES {
            let due = match self.turns.next().await {
                Turn::Due(due) => due,
                Turn::Missed => {
                    self.tally.missed();
                    continue;
                }
                Turn::Over => break,
            };
            if let Err(why) = self.call(due).await {
                self.tally.failed(why);
                sleep(limits::BENCH_PAUSE).await;
            }
        }
        self.tally
    }

    async fn call(&mut self, due: Instant) -> Result<(), String> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let fetched = self.line.fetch(self.question.request(number)).await.map_err(|error| error.to_string())?;
        let took = due.elapsed();
        self.question.judge(&fetched, number)?;
        self.tally.went_well(took, fetched.body.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;

    #[test]
    fn calls_are_due_at_their_times_however_late_the_timer_is() {
        let outcome = host::run_small(async {
            // Four of them are late, and four are waited for.
            let start = Instant::now() - Duration::from_millis(9);
            let end = start + Duration::from_secs(60);
            let turns = Turns { start, end, rate: Some(400), taken: AtomicU64::new(0) };
            for number in 0..8 {
                let Turn::Due(due) = turns.next().await else { panic!("the time is not over") };
                assert_eq!(due - start, Duration::from_micros(2_500) * number);
                assert!(Instant::now() >= due, "it is not asked too early");
            }
            Ok(())
        });
        assert!(outcome.is_ok());
    }
}
