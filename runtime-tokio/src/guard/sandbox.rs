//! A sandbox for one local server, by Landlock (Linux 6.2 and later): what runs in it cannot open the hidden files, and
//! can neither read nor signal the processes of others.
//!
//! Landlock only knows what is allowed, beneath which directory. So everything is allowed but what lies on the way to
//! something hidden; there, whatever else is in each directory is allowed by name. This has a cost: what is made
//! in one of these directories later is not on the list. Names can be listed everywhere, since programs list `/` and the
//! home directory for good reasons, and a name tells little.
//!
//! A hidden file can have other names (hard links). Those that lie beside the way to it are hidden as well; one that lies
//! deeper in a directory that is allowed is not looked for.
//!
//! Root's capabilities would get around it: those that look into processes, files and the kernel past all checks are given
//! up. What the system lets root's user id do without any capability remains.
//!
//! What it does not stop: connecting to a unix socket (the agent's own refuses it), and asking another program outside of
//! the sandbox for help (a session manager, a container's daemon).

use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
pub(crate) use linux::{check, enter};

/// Whether there are sandboxes here.
///
/// # Errors
/// For people: why there are none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn check() -> Result<(), String> {
    Err("only Linux has it".into())
}

/// Puts this process, and all it will start, into the sandbox.
///
/// # Errors
/// For people: why it cannot be done.
#[cfg(not(target_os = "linux"))]
pub(super) fn enter(_hidden: &[PathBuf]) -> Result<(), String> {
    check()
}

/// What is in the way of a hidden path: `path` is hidden itself, leads to something hidden, or neither.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Hidden,
    OnTheWay,
    Open,
}

fn place(path: &Path, hidden: &[PathBuf]) -> Place {
    if hidden.iter().any(|hidden| path.starts_with(hidden)) {
        Place::Hidden
    } else if hidden.iter().any(|hidden| hidden.starts_with(path)) {
        Place::OnTheWay
    } else {
        Place::Open
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
        RulesetCreatedAttr, RulesetError, Scope,
    };
    use rustix::fs::{FileType, Mode, OFlags, Stat};
    use rustix::thread::{
        CapabilitySet, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities,
    };

    use super::{Path, PathBuf, Place, place};

    /// Whether there are sandboxes here.
    ///
    /// # Errors
    /// For people: why there are none.
    pub(crate) fn check() -> Result<(), String> {
        rules().map(drop).map_err(|error| format!("it takes Linux 6.2 or later with Landlock switched on: {error}"))
    }

    /// Puts this process, and all it will start, into the sandbox.
    ///
    /// # Errors
    /// For people: why it cannot be done.
    pub(crate) fn enter(hidden: &[PathBuf]) -> Result<(), String> {
        let mut rules = rules().map_err(|error| error.to_string())?;
        // A way to them other than by their real path is none of the list's.
        let real = |path: &PathBuf| real(path).map_err(|error| format!("{}: {error}", path.display()));
        let hidden = hidden.iter().map(real).collect::<Result<Vec<_>, _>>()?;
        let others = hidden.iter().filter_map(|path| Some(identity(&rustix::fs::stat(path).ok()?))).collect::<Vec<_>>();
        let root = open(Path::new("/")).map_err(|error| format!("/: {error}"))?;
        rules = rules.add_rule(PathBeneath::new(root, AccessFs::ReadDir)).map_err(|error| error.to_string())?;
        let mut ways = vec![PathBuf::from("/")];
        while let Some(way) = ways.pop() {
            for path in entries(&way, &hidden).map_err(|error| format!("{}: {error}", way.display()))? {
                match place(&path, &hidden) {
                    Place::Hidden => {}
                    Place::OnTheWay => ways.push(path),
                    Place::Open => rules = allow(rules, &path, &others)?,
                }
            }
        }
        rules.restrict_self().map_err(|error| error.to_string())?;
        give_up_capabilities().map_err(|error| format!("capabilities: {error}"))
    }

    /// Gives up what would get around the sandbox, for good.
    fn give_up_capabilities() -> io::Result<()> {
        let mut sets = capabilities(None)?;
        sets.effective -= GIVEN_UP;
        sets.permitted -= GIVEN_UP;
        sets.inheritable -= GIVEN_UP;
        for capability in GIVEN_UP.iter() {
            // Who may not do this gets nothing back by an exec either: a sandbox gives no new privileges.
            let _ = remove_capability_from_bounding_set(capability);
        }
        clear_ambient_capability_set()?;
        Ok(set_capabilities(None, sets)?)
    }

    /// The real path of a file, which itself may be gone for now.
    fn real(path: &Path) -> io::Result<PathBuf> {
        match (path.canonicalize(), path.parent(), path.file_name()) {
            (Err(error), Some(dir), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(dir.canonicalize()?.join(name))
            }
            (found, ..) => found,
        }
    }

    /// What a sandbox is made of at least, and what is added where the system has it.
    fn rules() -> Result<RulesetCreated, RulesetError> {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            // With the third version files cannot be emptied either.
            .handle_access(AccessFs::from_all(ABI::V3))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::Signal)?
            .create()
    }

    /// Allows all that is beneath `path`, unless it is one of `hidden` under another name.
    fn allow(rules: RulesetCreated, path: &Path, hidden: &[(u64, u64)]) -> Result<RulesetCreated, String> {
        // What is gone by now, or cannot be reached anyway, needs no rule.
        let Ok(opened) = open(path) else { return Ok(rules) };
        let Ok(found) = rustix::fs::fstat(&opened) else { return Ok(rules) };
        if hidden.contains(&identity(&found)) {
            return Ok(rules);
        }
        let rights = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => AccessFs::from_all(NEWEST),
            // Where it leads to has a rule of its own, or is hidden.
            FileType::Symlink => return Ok(rules),
            _ => AccessFs::from_file(NEWEST),
        };
        rules.add_rule(PathBeneath::new(opened, rights)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// What is in a directory; of one that cannot be listed, at least what leads on.
    fn entries(dir: &Path, hidden: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let next = |path: &PathBuf| Some(dir.join(path.strip_prefix(dir).ok()?.components().next()?));
                Ok(hidden.iter().filter_map(next).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// What a file is, whatever it is called.
    fn identity(found: &Stat) -> (u64, u64) {
        (found.st_dev, found.st_ino)
    }

    fn open(path: &Path) -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// What is handled where the system knows it.
    const NEWEST: ABI = ABI::V9;
    /// Capabilities that reach other processes, any file, or the kernel itself.
    const GIVEN_UP: CapabilitySet = CapabilitySet::PERFMON
        .union(CapabilitySet::SYS_PTRACE)
        .union(CapabilitySet::SYS_ADMIN)
        .union(CapabilitySet::DAC_OVERRIDE)
        .union(CapabilitySet::DAC_READ_SEARCH)
        .union(CapabilitySet::CHECKPOINT_RESTORE)
        .union(CapabilitySet::BPF)
        .union(CapabilitySet::MKNOD)
        .union(CapabilitySet::SYS_MODULE)
        .union(CapabilitySet::SYS_RAWIO);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_to_what_is_hidden_is_told_from_what_lies_beside_it() {
        let hidden = [PathBuf::from("/home/a/.config/tunnel"), PathBuf::from("/srv/agent.json")];
        for (path, expected) in [
            ("/", Place::OnTheWay),
            ("/home/a/.config", Place::OnTheWay),
            ("/home/a/.config/tunnel", Place::Hidden),
            ("/home/a/.config/tunnel/run", Place::Hidden),
            ("/home/a/.config/tunnel2", Place::Open),
            ("/srv", Place::OnTheWay),
            ("/srv/agent.json", Place::Hidden),
            ("/usr", Place::Open),
        ] {
            assert_eq!(place(Path::new(path), &hidden), expected, "{path}");
        }
    }
}
