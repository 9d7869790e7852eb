//! Trust in configurations that lie in the current directory: an agent's runs commands, so a person says yes once.
//!
//! What is remembered is a SHA-256 of the file's path and content: another file, or any change, asks anew.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tunnel_core::config::{AgentConfig, Transport};

use crate::directories;
use crate::failure::Failure;
use crate::host::files;
use crate::output::visible;

/// The file of what is trusted.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Trusted {
    files: Vec<Entry>,
}

/// One trusted file. The path is for people; the hash decides.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: String,
    sha256: String,
}

/// Whether `text`, read from `path`, is trusted.
pub(crate) fn is_trusted(path: &Path, text: &str) -> Result<bool, Failure> {
    let hash = fingerprint(&absolute(path)?, text);
    Ok(load(&register()?)?.files.iter().any(|entry| entry.sha256 == hash))
}

/// Passes if `text`, read from `path`, is trusted, or if the person at the terminal says so now.
pub(crate) fn require(path: &Path, text: &str, config: &AgentConfig) -> Result<(), Failure> {
    if is_trusted(path, text)? {
        return Ok(());
    }
    let shown = path.display();
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::Usage(format!(
            "{shown} was found in the current directory and would run commands; to allow it: mcp-local-tunnel config trust"
        )));
    }
    if ask(&format!("{}\nTrust {shown} to run this? [y/N] ", describe(config)))? {
        return remember(path, text);
    }
    Err(Failure::Usage(format!("{shown} is not trusted: nothing was started")))
}

/// Trusts `text`, read from `path`, from now on.
pub(crate) fn remember(path: &Path, text: &str) -> Result<(), Failure> {
    let register = register()?;
    let path = absolute(path)?;
    let entry = Entry { sha256: fingerprint(&path, text), path: path.display().to_string() };
    let mut trusted = load(&register)?;
    // One entry for a file: what it was before is trusted no more.
    trusted.files.retain(|other| other.path != entry.path);
    trusted.files.push(entry);
    let json = serde_json::to_vec_pretty(&trusted).map_err(|error| Failure::Failed(error.to_string()))?;
    files::replace(&register, &json)
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", register.display())))
}

/// What a configuration would do, for a person to judge. Names of variables and headers are shown, values are not.
pub(crate) fn describe(config: &AgentConfig) -> String {
    let mut text = format!("This agent connects to {} and runs:", config.relay);
    for (name, server) in &config.servers {
        let _ = write!(text, "\n  {}: ", visible(name));
        match &server.transport {
            Transport::Stdio { command, env, cwd } => {
                let words: Vec<_> = command.iter().map(|word| quoted(word)).collect();
                text.push_str(&words.join(" "));
                if let Some(cwd) = cwd {
                    let _ = write!(text, "\n      in {}", visible(cwd));
                }
                if !env.is_empty() {
                    let names: Vec<_> = env.keys().map(|name| visible(name)).collect();
                    let _ = write!(text, "\n      with {}", names.join(", "));
                }
            }
            Transport::Http { url, headers } => {
                text.push_str(&visible(url));
                if !headers.is_empty() {
                    let names: Vec<_> = headers.keys().map(|name| visible(name)).collect();
                    let _ = write!(text, "\n      with headers {}", names.join(", "));
                }
            }
        }
    }
    if config.servers.is_empty() {
        text.push_str(" nothing");
    }
    text
}

/// A word of a command line as a person would type it.
fn quoted(word: &str) -> String {
    let word = visible(word);
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"\\$&|;<>()*?`#".contains(c)) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    word
}

/// Asks on the terminal; anything but a clear yes is a no.
fn ask(question: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("cannot ask: {error}"));
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn fingerprint(path: &Path, text: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(path.as_os_str().as_encoded_bytes());
    // A path holds no NUL, so path and content cannot be taken for another pair.
    context.update(&[0]);
    context.update(text.as_bytes());
    context.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure::Usage(format!("cannot find {}: {error}", path.display())))
}

fn register() -> Result<PathBuf, Failure> {
    Ok(directories::config()?.join("trusted.json"))
}

fn load(register: &Path) -> Result<Trusted, Failure> {
    let unreadable = |reason: String| Failure::Failed(format!("cannot read {}: {reason}", register.display()));
    match files::read(register, MAX_REGISTER).map_err(|error| unreadable(error.to_string()))? {
        Some(json) => {
            serde_json::from_slice(&json).map_err(|error| unreadable(format!("{error}; remove it to trust anew")))
        }
        None => Ok(Trusted::default()),
    }
}

/// Thousands of files.
const MAX_REGISTER: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel_core::config::{self, Config};

    #[test]
    fn path_and_content_both_count() {
        let hash = |path: &str, text: &str| fingerprint(Path::new(path), text);
        assert_eq!(hash("/a", "{}"), hash("/a", "{}"));
        assert_ne!(hash("/a", "{}"), hash("/b", "{}"));
        assert_ne!(hash("/a", "{}"), hash("/a", "{ }"));
        assert_ne!(hash("/a", "b"), hash("/ab", ""));
    }

    #[test]
    fn description_shows_commands_and_hides_values() {
        let text = r#"{"mode":"agent","relay":"t.example","servers":{
            "a":{"command":["sh","-c","rm -rf /\u001b[1A"],"env":{"KEY":"hunter2"},"cwd":"/tmp"},
            "b":{"url":"http://127.0.0.1:1/mcp","headers":{"Authorization":"Bearer hunter2"}}}}"#;
        let Ok(config::Parsed { config: Config::Agent(config), .. }) = config::parse(text) else { panic!("is valid") };
        let shown = describe(&config);
        assert!(
            shown.contains(r"a: sh -c 'rm -rf /\u{1b}[1A'") && shown.contains("in /tmp") && shown.contains("with KEY"),
            "{shown}"
        );
        assert!(shown.contains("with headers Authorization") && !shown.contains("hunter2"), "{shown}");
    }
}
