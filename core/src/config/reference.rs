//! Values that say where they are rather than what they are: `env:NAME`, `file:/PATH`.

/// Where a value of a server's `env` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A variable of the agent's own environment.
    Variable(&'a str),
    /// A file's content, without the line break at its end.
    File(&'a str),
}

impl<'a> Reference<'a> {
    /// What `value` refers to; `None` when it is the value itself.
    #[must_use]
    pub fn read(value: &'a str) -> Option<Self> {
        match value.split_once(':') {
            Some(("env", name)) => Some(Self::Variable(name)),
            Some(("file", path)) if is_file(path) => Some(Self::File(path)),
            _ => None,
        }
    }
}

/// Whether that is a whole path, and not the rest of a `file://` URL.
pub(super) fn is_file(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_paths_and_variables_are_references() {
        assert_eq!(Reference::read("env:KEY"), Some(Reference::Variable("KEY")));
        assert_eq!(Reference::read("file:/run/key"), Some(Reference::File("/run/key")));
        for own in ["", "key", "file:./dev.db", "file:///dev.db", "environment:x", "FILE:/x"] {
            assert_eq!(Reference::read(own), None, "{own}");
        }
    }
}
