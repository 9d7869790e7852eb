//! `gen-secret` and `hash-password`.

use std::io::{self, BufRead, IsTerminal};

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tunnel_core::entropy;
use tunnel_core::seal;
use tunnel_core::secret::Secret;

use crate::cli::Global;
use crate::failure::Failure;
use crate::host::entropy::OsEntropy;
use crate::output;

/// Prints a new secret.
pub(crate) fn gen_secret(global: &Global) -> Result<(), Failure> {
    print("secret", seal::generate_secret(&mut OsEntropy::new()).expose(), global)
}

/// Asks for a password, or reads it from stdin's first line, and prints its hash.
pub(crate) fn hash_password(global: &Global) -> Result<(), Failure> {
    let password = if io::stdin().is_terminal() { ask()? } else { first_line()? };
    print("passwordHash", &hash(&password)?, global)
}

/// Prints a result, under its setting's name where JSON is asked for.
fn print(name: &str, value: &str, global: &Global) -> Result<(), Failure> {
    if global.json { output::json(&serde_json::json!({ name: value })) } else { output::line(value) }
}

/// The argon2id hash of `password` in PHC form, at the cost that OWASP's password storage cheat sheet names.
pub(crate) fn hash(password: &Secret) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(Failure::Usage("the password is empty".into()));
    }
    if password.expose().len() > MAX_PASSWORD {
        return Err(Failure::Usage(format!("the password is longer than {MAX_PASSWORD} bytes")));
    }
    let failed = |reason: String| Failure::Failed(format!("cannot hash the password: {reason}"));
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| failed(error.to_string()))?;
    let salt = SaltString::encode_b64(&entropy::bytes::<16>(&mut OsEntropy::new()))
        .map_err(|error| failed(error.to_string()))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.expose().as_bytes(), &salt)
        .map_err(|error| failed(error.to_string()))?;
    Ok(hash.to_string())
}

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The sign-in form takes 16 KiB; no password needs more than this.
const MAX_PASSWORD: usize = 1024;

fn ask() -> Result<Secret, Failure> {
    let prompt = |text: &str| {
        rpassword::prompt_password(text)
            .map(Secret::new)
            .map_err(|error| Failure::Failed(format!("cannot ask for the password: {error}")))
    };
    let password = prompt("Password: ")?;
    if prompt("Again: ")? != password {
        return Err(Failure::Usage("the two passwords differ".into()));
    }
    Ok(password)
}

fn first_line() -> Result<Secret, Failure> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::Failed(format!("cannot read the password: {error}")))?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{PasswordHash, PasswordVerifier};
    use tunnel_core::config;

    #[test]
    fn hash_verifies_its_password_only_and_the_configuration_takes_it() {
        let text = hash(&Secret::new("correct horse")).expect("hashes");
        let parsed = PasswordHash::new(&text).expect("is PHC");
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"battery staple", &parsed).is_err());
        let config =
            serde_json::json!({"mode": "relay", "auth": {"local": {"users": [{"name": "a", "passwordHash": text}]}}});
        assert!(config::parse(&config.to_string()).is_ok());
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        assert!(hash(&Secret::new("")).is_err());
        assert!(hash(&Secret::new("x".repeat(MAX_PASSWORD + 1))).is_err());
    }
}
