//! How long it takes until tools can be used: after a start, a restart, an end of either side or of a server.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::Bench;
use crate::contender::{Contender, Setup};
use crate::load::{Connection, Expected, call, echo};
use crate::process::{children, kill};

const TABLE: &str = "Starts and restarts";
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the program alone: the floor does not come back.
pub(crate) async fn run(bench: &mut Bench) -> io::Result<()> {
    let setup = Setup::default();
    let away = Duration::from_secs(if bench.quick { 3 } else { 10 });
    let back = format!("relay back after {} s, tools usable", away.as_secs());
    for _ in 0..if bench.quick { 1 } else { bench.rounds } {
        for (name, program) in bench.programs.clone() {
            let mut contender = Contender::tunnel(&name, &program, &setup).await?;
            let times = [
                ("agent started, tools listed", agent_starts(&mut contender, &program, &setup).await?),
                ("relay started, first answer", relay_starts(&mut contender, &program, &setup).await?),
                (
                    "relay restarted at once, tools usable",
                    relay_restarts(&mut contender, &program, &setup, Duration::ZERO).await?,
                ),
                (&back, relay_restarts(&mut contender, &program, &setup, away).await?),
                ("server killed, calls work again", server_dies(&contender).await?),
                ("agent killed, call in flight answered", agent_dies(&mut contender).await?),
            ];
            for (what, took) in times {
                bench.report.add(TABLE, what, "ms", &name, took.as_secs_f64() * 1000.0, 0);
            }
        }
    }
    bench.show(TABLE);
    Ok(())
}

async fn agent_starts(contender: &mut Contender, program: &Path, setup: &Setup) -> io::Result<Duration> {
    contender.parts.retain(|(part, _)| *part != "agent");
    sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    contender.restart("agent", program, setup)?;
    until_usable(contender).await?;
    Ok(start.elapsed())
}

async fn relay_starts(contender: &mut Contender, program: &Path, setup: &Setup) -> io::Result<Duration> {
    contender.parts.retain(|(part, _)| *part != "relay");
    let start = Instant::now();
    contender.restart("relay", program, setup)?;
    while start.elapsed() < PATIENCE {
        if let Ok(mut connection) = Connection::open(&contender.target).await
            && connection
                .ask(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
                .await
                .is_ok_and(|reply| reply.status == 200)
        {
            let took = start.elapsed();
            until_usable(contender).await?;
            return Ok(took);
        }
        sleep(Duration::from_micros(200)).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn relay_restarts(
    contender: &mut Contender,
    program: &Path,
    setup: &Setup,
    down: Duration,
) -> io::Result<Duration> {
    contender.parts.retain(|(part, _)| *part != "relay");
    sleep(down).await;
    let start = Instant::now();
    contender.restart("relay", program, setup)?;
    until_usable(contender).await?;
    Ok(start.elapsed())
}

async fn server_dies(contender: &Contender) -> io::Result<Duration> {
    // Its servers have guards between them and it, whose own end would be another measurement.
    let mut servers = contender.pid("agent").map(children).unwrap_or_default();
    loop {
        let theirs: Vec<u32> = servers.iter().copied().flat_map(children).collect();
        if theirs.is_empty() {
            break;
        }
        servers = theirs;
    }
    for pid in servers {
        kill(pid)?;
    }
    let start = Instant::now();
    until_usable(contender).await?;
    Ok(start.elapsed())
}

async fn agent_dies(contender: &mut Contender) -> io::Result<Duration> {
    let mut connection = Connection::open(&contender.target).await?;
    let slow = call(77, &format!("{}sleep", contender.prefix), r#"{"ms":30000}"#, Expected::Nothing);
    let waiting = spawn_local(async move { connection.ask(&slow.body).await });
    sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    contender.parts.retain(|(part, _)| *part != "agent");
    let reply = waiting.await.map_err(io::Error::other)??;
    let took = start.elapsed();
    match memchr::memmem::find(&reply.body, b"error") {
        Some(_) => Ok(took),
        None => Err(io::Error::other(format!("no error: {reply:?}"))),
    }
}

/// Waits until a call is answered as it must be.
async fn until_usable(contender: &Contender) -> io::Result<()> {
    let start = Instant::now();
    for number in 1_000.. {
        if let Ok(mut connection) = Connection::open(&contender.target).await
            && connection.does(&echo(number, &contender.prefix)).await
        {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            break;
        }
        sleep(Duration::from_micros(500)).await;
    }
    Err(io::Error::other(format!("{}: no call is answered any more", contender.name)))
}
