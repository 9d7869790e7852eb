//! What is measured.

pub(crate) mod beside;
pub(crate) mod calls;
pub(crate) mod lists;
pub(crate) mod memory;
pub(crate) mod payload;
pub(crate) mod restarts;
pub(crate) mod swarm;
pub(crate) mod users;

use std::path::PathBuf;
use std::time::Duration;

use crate::contender::{Contender, Setup};
use crate::report::Report;

/// What every measurement goes by.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The builds of the program, by what tables call them.
    pub(crate) programs: Vec<(String, PathBuf)>,
    /// Other people's programs that are installed here.
    pub(crate) others: Vec<(String, PathBuf)>,
    /// Whether only the most telling is measured.
    pub(crate) quick: bool,
    /// How often each contender has its turn.
    pub(crate) rounds: usize,
    /// How long one turn takes.
    pub(crate) turn: Duration,
    /// What came of it.
    pub(crate) report: Report,
}

impl Bench {
    /// The program's builds and the floor, set up alike.
    pub(crate) async fn pair(&self, setup: &Setup) -> std::io::Result<Vec<Contender>> {
        let mut contenders = vec![Contender::floor(setup).await?];
        for (name, program) in &self.programs {
            contenders.push(Contender::tunnel(name, program, setup).await?);
        }
        Ok(contenders)
    }

    /// These, and everybody else.
    pub(crate) async fn all(&self, setup: &Setup) -> std::io::Result<Vec<Contender>> {
        let mut contenders = vec![Contender::direct(setup).await?];
        contenders.extend(self.pair(setup).await?);
        for (name, program) in &self.others {
            contenders.push(match name.as_str() {
                "rathole" => Contender::rathole(program, setup).await?,
                _ => Contender::bridge(name, program, setup).await?,
            });
        }
        Ok(contenders)
    }

    /// Prints a table once it is complete.
    pub(crate) fn show(&self, table: &str) {
        #[allow(clippy::print_stdout, reason = "it is what the program is for")]
        {
            println!("{}", self.report.table(table));
        }
    }
}
