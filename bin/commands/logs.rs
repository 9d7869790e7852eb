//! `logs`: what the agent in the background wrote.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::agent;
use crate::cli::{Global, LogsArgs};
use crate::failure::Failure;
use crate::host::log::Log;
use crate::output;

/// Prints the last lines of the log, and what follows if that is asked.
pub(super) fn show(args: &LogsArgs, global: &Global) -> Result<(), Failure> {
    let path = agent::files(global)?.log;
    let unreadable = |error: io::Error| Failure::Failed(format!("cannot read {}: {error}", path.display()));
    if !path.exists() && !args.follow {
        return Err(Failure::Failed(format!(
            "there is no log yet ({}): an agent in the foreground logs to its terminal",
            path.display()
        )));
    }
    let outcome = print(&path, args, global.json);
    match outcome {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(unreadable),
    }
}

fn print(path: &Path, args: &LogsArgs, json: bool) -> io::Result<()> {
    let read = |path: &Path| match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        content => content,
    };
    let (before, mut now) = (read(&Log::previous(path))?, read(path)?);
    if args.follow {
        // A line that is being written is left for later.
        now.truncate(now.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    }
    let mut position = now.len() as u64;
    let lines: Vec<_> = [&before, &now]
        .into_iter()
        .flat_map(|content| content.strip_suffix(b"\n").unwrap_or(content).split(|byte| *byte == b'\n'))
        .filter(|line| !line.is_empty())
        .collect();
    for line in lines.iter().skip(lines.len().saturating_sub(args.lines)) {
        print_line(line, json)?;
    }
    if !args.follow {
        return Ok(());
    }
    let mut rest = Vec::new();
    loop {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                position = 0;
                sleep(LOOK_AGAIN);
                continue;
            }
            Err(error) => return Err(error),
        };
        io::Seek::seek(&mut file, io::SeekFrom::Start(position))?;
        position = follow(&mut file, path, &mut rest, json)?;
    }
}

/// Prints what is added to the file until another takes its place.
fn follow(file: &mut File, path: &Path, rest: &mut Vec<u8>, json: bool) -> io::Result<u64> {
    let own = file.metadata()?.ino();
    loop {
        // Looked at before the last read: what was written before the exchange is read then.
        let replaced = std::fs::metadata(path).is_ok_and(|found| found.ino() != own);
        file.read_to_end(rest)?;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            print_line(line.strip_suffix(b"\n").unwrap_or(&line), json)?;
        }
        if replaced {
            return Ok(0);
        }
        sleep(LOOK_AGAIN);
    }
}

/// A line for people, with nothing in it that moves the cursor; or as JSON, which it may be already.
fn print_line(line: &[u8], as_json: bool) -> io::Result<()> {
    let text = String::from_utf8_lossy(line);
    let mut stdout = io::stdout().lock();
    if !as_json {
        return writeln!(stdout, "{}", output::visible(&text)).and_then(|()| stdout.flush());
    }
    let value = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
    writeln!(stdout, "{}", value.unwrap_or_else(|| json!({ "line": text }))).and_then(|()| stdout.flush())
}

const LOOK_AGAIN: Duration = Duration::from_millis(250);
