//! The names under which tools are listed: `server__tool`, or `device__server__tool`.
//!
//! Clients take names of `[A-Za-z0-9_-]{1,64}` only, while devices, servers and tools are named as their owners like.
//! A part that fits stays as it is; any other is *mapped*: cut, cleaned, and given a hash of what it was. No natural
//! part ends as a mapped one does (one that would is mapped too), and parts of devices and servers neither contain the
//! separator nor touch it with a `_` of their own. So a listed name can be taken apart at the first separators, and
//! two different tools never share one, short of a collision of 50 bits of SHA-256 between names of one's own choice.

use alloc::string::String;

use ring::digest;

/// The longest listed name.
pub const MAX_NAME: usize = 64;
/// The longest part for a device or a server: two of them, two separators and a mapped tool fit [`MAX_NAME`].
pub const MAX_LABEL: usize = 22;
/// What stands between the parts.
pub const SEPARATOR: &str = "__";

/// A device's or a server's part of a listed name: at most [`MAX_LABEL`] of `[A-Za-z0-9_-]`, without `__`, with no `_`
/// at its ends. A name that is all this stays as it is.
#[must_use]
pub fn label(name: &str) -> String {
    let natural = name.len() <= MAX_LABEL
        && fits_alphabet(name)
        && !name.contains(SEPARATOR)
        && !name.starts_with('_')
        && !name.ends_with('_')
        && !looks_mapped(name);
    if natural { name.into() } else { mapped(name, MAX_LABEL, &[Some(name)]) }
}

/// The listed name of a tool, from natural names. It begins with the [`label`]s of device (if any) and server, and
/// ends with the tool's own name where that fits.
#[must_use]
pub fn listed(device: Option<&str>, server: &str, tool: &str) -> String {
    let mut name = String::with_capacity(MAX_NAME);
    for part in device.into_iter().chain([server]) {
        name.push_str(&label(part));
        name.push_str(SEPARATOR);
    }
    let room = MAX_NAME - name.len();
    if tool.len() <= room && fits_alphabet(tool) && !looks_mapped(tool) {
        name.push_str(tool);
    } else {
        name.push_str(&mapped(tool, room, &[device, Some(server), Some(tool)]));
    }
    name
}

/// Takes a listed name apart at its first separator: the first part is a [`label`], the second may be taken apart
/// again if the first was a device's. `None` when there is no separator, or nothing on one side of it.
#[must_use]
pub fn split(listed: &str) -> Option<(&str, &str)> {
    listed.split_once(SEPARATOR).filter(|(first, rest)| !first.is_empty() && !rest.is_empty())
}

/// `name` cleaned and cut, then the mark of a mapped part: at most `room` bytes in all, of which the mark takes
/// [`MARK_LEN`] and the rest at least one.
fn mapped(name: &str, room: usize, natural: &[Option<&str>]) -> String {
    let mut out = cleaned(name, room.saturating_sub(MARK_LEN));
    if out.is_empty() {
        out.push('x');
    }
    out.push_str(MARK);
    out.extend(hash(natural));
    out
}

/// The letters and digits of `name`, with one `-` (or the `_` that was there) for whatever stood between them.
fn cleaned(name: &str, room: usize) -> String {
    let mut out = String::with_capacity(room);
    let mut between = None;
    for char in name.chars() {
        if !char.is_ascii_alphanumeric() {
            between = Some(if between.is_none() && char == '_' { '_' } else { '-' });
            continue;
        }
        let between = between.take().filter(|_| !out.is_empty());
        if out.len() + usize::from(between.is_some()) >= room {
            break;
        }
        out.extend(between);
        out.push(char);
    }
    out
}

/// [`HASH_LEN`] characters of base32 (RFC 4648, lower case) from the SHA-256 of the natural names, each told from its
/// neighbours by its length.
fn hash(natural: &[Option<&str>]) -> impl Iterator<Item = char> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in natural {
        let length = part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX - 1));
        context.update(&length.to_be_bytes());
        context.update(part.unwrap_or_default().as_bytes());
    }
    let digest = context.finish();
    let mut bytes = [0; HASH_LEN];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes.into_iter().map(|byte| match byte % 32 {
        letter @ 0..26 => char::from(b'a' + letter),
        digit => char::from(b'2' + (digit - 26)),
    })
}

/// Whether `name` ends as a mapped part does.
fn looks_mapped(name: &str) -> bool {
    let Some(at) = name.len().checked_sub(MARK_LEN) else { return false };
    name.get(at..)
        .and_then(|end| end.strip_prefix(MARK))
        .is_some_and(|hash| hash.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')))
}

fn fits_alphabet(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What stands before a mapped part's hash. The zero is not of base32 and starts no English word: without it
/// `mcp-filesystem` would look mapped.
const MARK: &str = "-0";
const HASH_LEN: usize = 10;
const MARK_LEN: usize = MARK.len() + HASH_LEN;
const _: () = assert!(2 * (MAX_LABEL + SEPARATOR.len()) + 1 + MARK_LEN <= MAX_NAME);

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Names that try to be taken for others: separators, hash-like ends, odd characters, every length around a bound.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ab_-]{0,5}",
            2 => "[a_]{0,3}__[a_]{0,3}",
            2 => "[ab._ /é-]{0,6}",
            2 => "[ab]?-0[ab27]{9,11}",
            1 => "a{19,24}",
            1 => "[ab_.-]{0,3}a{50,66}[ab_.-]{0,3}",
            1 => any::<String>(),
            1 => name_leaf().prop_map(|name| label(&name)),
            1 => (name_leaf(), name_leaf()).prop_map(|(server, tool)| listed(None, &server, &tool)),
        ]
    }

    fn name_leaf() -> impl Strategy<Value = String> {
        "[ab_.-]{0,6}"
    }

    fn is_label(label: &str) -> bool {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && fits_alphabet(label)
            && !label.contains("__")
            && !label.starts_with('_')
            && !label.ends_with('_')
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["laptop", "sequential-thinking", "mcp-filesystem", "a_b", "-", "0", "server-everything"] {
            assert_eq!(label(name), name);
        }
        assert_eq!(listed(None, "fs", "read_file"), "fs__read_file");
        assert_eq!(listed(Some("laptop"), "fs", "read_file"), "laptop__fs__read_file");
        assert_eq!(listed(None, "fs", "_private__x_"), "fs___private__x_");
    }

    #[test]
    fn odd_names_stay_readable() {
        for (name, start) in [
            ("macbook.local", "macbook-lo-0"),
            ("a__b", "a-b-0"),
            ("_my_server_", "my_server-0"),
            ("Jürgen’s Mac", "J-rgen-s-M-0"),
            ("日本", "x-0"),
            ("", "x-0"),
            ("a-0abcdefghij", "a-0abcdefg-0"),
        ] {
            let label = label(name);
            assert!(label.starts_with(start) && looks_mapped(&label), "{name}: {label}");
        }
        let long = listed(Some("laptop"), "fs", &"read_file_".repeat(7));
        assert!(long.starts_with("laptop__fs__read_file_read_file_"), "{long}");
    }

    #[test]
    fn names_never_change_between_versions() {
        // Computed with Python's hashlib.
        assert_eq!(label("macbook.local"), "macbook-lo-0jnvybfciio");
        assert_eq!(listed(None, "fs", "read.file"), "fs__read-file-0kou3jm6d2r");
    }

    #[test]
    fn length_decides_at_the_bound() {
        for (len, natural) in [(MAX_LABEL - 1, true), (MAX_LABEL, true), (MAX_LABEL + 1, false)] {
            let name = "a".repeat(len);
            assert_eq!(label(&name) == name, natural, "{len}");
        }
        for (len, natural) in [(59, true), (60, true), (61, false)] {
            let tool = "a".repeat(len);
            assert_eq!(listed(None, "fs", &tool) == format!("fs__{tool}"), natural, "{len}");
        }
    }

    #[test]
    fn separator_never_moves() {
        assert_ne!(listed(None, "a__b", "c"), listed(None, "a", "b__c"));
        assert_ne!(listed(None, "a_", "b"), listed(None, "a", "_b"));
        assert_ne!(listed(Some("a"), "b", "c"), listed(Some("a"), "b__c", "c"));
        assert_eq!(split("a___b"), Some(("a", "_b")));
        for listed in ["", "a", "a_b", "__a", "a__", "status"] {
            assert_eq!(split(listed), None, "{listed}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn label_is_fit_for_its_place(name in name()) {
            let mapped = label(&name);
            prop_assert!(is_label(&mapped), "{mapped}");
            if is_label(&name) && !looks_mapped(&name) {
                prop_assert_eq!(mapped, name);
            }
        }

        #[test]
        fn listed_name_fits_and_begins_with_its_labels(
            device in prop::option::of(name()), server in name(), tool in name()
        ) {
            let whole = listed(device.as_deref(), &server, &tool);
            prop_assert!(whole.len() <= MAX_NAME && fits_alphabet(&whole), "{}", whole);
            prop_assert_eq!(&whole, &listed(device.as_deref(), &server, &tool));
            let mut rest = whole.as_str();
            for part in device.iter().chain([&server]) {
                let (first, after) = split(rest).unwrap();
                prop_assert_eq!(first, label(part));
                rest = after;
            }
        }

        #[test]
        fn two_tools_never_share_a_name(
            with_device in any::<bool>(),
            tools in prop::collection::vec((name(), name(), name()), 2..40),
        ) {
            let mut seen = BTreeMap::new();
            let tools = tools.iter().flat_map(|(device, server, tool)| {
                // Next to each tool, one that carries its mapped parts as natural names.
                let own = (device.clone(), server.clone(), tool.clone());
                let rest = listed(None, server, tool);
                let posing = split(&rest).map(|(server, tool)| (label(device), server.to_string(), tool.to_string()));
                [Some(own), posing]
            });
            for (device, server, tool) in tools.flatten().collect::<Vec<_>>() {
                let device = with_device.then_some(device);
                let name = listed(device.as_deref(), &server, &tool);
                let natural = (device, server, tool);
                if let Some(other) = seen.insert(name, natural.clone()) {
                    prop_assert_eq!(other, natural);
                }
            }
        }
    }
}
