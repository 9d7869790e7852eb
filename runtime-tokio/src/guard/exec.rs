//! The last step before a local server: a process that takes the server's environment, binds itself to its guard, and
//! becomes the command.
//!
//! The environment comes on stdin before anything that is meant for the server, so that the guards, which live as long
//! as the server does, never have it: neither on their command lines nor in an environment of their own.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid};

use super::{Order, parse, sandbox};

/// Becomes the command. `args` are `<guard's pid> [--hide <path>]… -- command…`.
pub(super) fn become_command(args: impl Iterator<Item = OsString>) -> Result<Infallible, String> {
    let Order { parent, hidden, command, .. } = parse(args)?;
    let environment = read_environment(&mut Unbuffered).map_err(|error| format!("no environment came: {error}"))?;
    if !hidden.is_empty() {
        sandbox::enter(&hidden).map_err(|error| format!("cannot enter the sandbox: {error}"))?;
    }
    end_with(parent)?;
    let (program, args) = command.split_first().ok_or("no command")?;
    let error = Command::new(program).args(args).env_clear().envs(environment).exec();
    Err(format!("cannot start {}: {error}", program.display()))
}

/// The system kills the command once its guard is gone, whatever ended that.
fn end_with(guard: Pid) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot be bound to the guard: {error}"))?;
    // It may have been gone before the system was asked.
    if getppid() == Some(guard) { Ok(()) } else { Err("the guard is gone".into()) }
}

/// An environment as it is written: its length in four bytes, then `NAME=VALUE` and a NUL byte for each variable.
///
/// # Errors
/// For people: what cannot be a variable.
pub(crate) fn written_environment(variables: &[(String, OsString)]) -> Result<Vec<u8>, String> {
    let mut block = Vec::new();
    for (name, value) in variables {
        if name.as_bytes().contains(&0) || value.as_bytes().contains(&0) {
            return Err("its env has a NUL byte, which no variable can hold".into());
        }
        block.extend_from_slice(name.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    let length = u32::try_from(block.len()).map_err(|_| "its env is too large")?;
    Ok([&length.to_be_bytes(), block.as_slice()].concat())
}

fn read_environment(from: &mut impl Read) -> io::Result<Vec<(OsString, OsString)>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut block = Vec::new();
    let length = u64::from(u32::from_be_bytes(length));
    if from.take(length).read_to_end(&mut block)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let variable = |written: &[u8]| {
        let equals = written.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&written[..equals], &written[equals + 1..]);
        Some((OsStr::from_bytes(name).to_owned(), OsString::from_vec(value.to_vec())))
    };
    Ok(block.split(|byte| *byte == 0).filter_map(variable).collect())
}

/// Stdin without a buffer: what follows is for the command.
struct Unbuffered;

impl Read for Unbuffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_read_as_it_was_written_and_no_byte_more() {
        let variables = [("A".to_owned(), OsString::from("x=y\nz")), ("B".to_owned(), OsString::new())];
        let written = written_environment(&variables).expect("can be written");
        let stream = [written.as_slice(), b"{\"jsonrpc\""].concat();
        let mut rest = stream.as_slice();
        let read = read_environment(&mut rest).expect("can be read");
        assert_eq!(read, variables.map(|(name, value)| (OsString::from(name), value)));
        assert_eq!(rest, b"{\"jsonrpc\"");
        for cut in [0, 3, 4, written.len() - 1] {
            assert!(read_environment(&mut &written[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn nul_byte_is_no_part_of_a_variable() {
        assert!(written_environment(&[("A".to_owned(), OsString::from("x\0B=y"))]).is_err());
        assert!(written_environment(&[("A\0".to_owned(), OsString::new())]).is_err());
    }
}
