//! Identifiers as their own types, so that one cannot be taken for another.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One HTTP request that awaits its reply; numbered by the adapter, never reused.
    ExchangeId
);
number!(
    /// One WebSocket connection between relay and agent; numbered by the adapter that made it, never reused.
    ConnId
);
number!(
    /// One outgoing HTTP request; numbered by the machine that ordered it.
    FetchId
);
number!(
    /// One run of a local server's process; numbered by the agent, never reused.
    ChildId
);
number!(
    /// One connection to an agent's socket; numbered by the adapter, never reused.
    SessionId
);
number!(
    /// One slow job (password check, write to the store) whose completion a machine awaits.
    JobId
);

/// One call on a tunnel: opened by the relay, from 1 up, never reused on its connection. 0 is the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier made of `text`, taken as it is.
            #[must_use]
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, not copied.
            #[must_use]
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }
    };
}

text!(
    /// A person, as the relay knows them: `local:<name>` or `<issuer>#<claim>`. Whose devices are whose hangs on it.
    UserId
);
text!(
    /// An OAuth client, by its `client_id`.
    ClientId
);
text!(
    /// A device's name as its owner wrote it (a host name by default), at most 255 bytes.
    DeviceName
);
text!(
    /// A local server's name as the agent's configuration has it.
    ServerName
);
text!(
    /// A family of tokens: everything that descends from one sign-in (or one `token create`), revoked together.
    FamilyId
);
text!(
    /// What tells a device from another of the same name: random, made by the agent once, not a secret.
    DeviceId
);
