//! One connected device.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::catalog::Catalog;
use crate::id::{ConnId, DeviceId, DeviceName, FamilyId, StreamId};
use crate::limits;
use crate::names;
use crate::time::{Instant, UnixTime};
use crate::tunnel::{Dialect, HANDS_ON, Hello};

/// A device, for as long as its tunnel holds.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) conn: ConnId,
    pub(super) name: DeviceName,
    /// What tells it from another of its name; none on V1.
    pub(super) id: Option<DeviceId>,
    /// The grant that its tunnel belongs to, and when that runs out.
    pub(super) family: FamilyId,
    pub(super) expires: UnixTime,
    pub(super) dialect: Dialect,
    pub(super) since: Instant,
    /// Its user's pseudonym, if an audit is kept.
    pub(super) audit: Option<Arc<str>>,
    /// What its agent said of itself, once it did.
    pub(super) hello: Option<Told>,
    pub(super) round_trip_micros: Option<u64>,
    pub(super) catalog: Catalog,
    /// It announced its end: nothing new is opened.
    pub(super) leaving: bool,
    pub(super) last_stream: u32,
}

/// What is kept of a hello.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) version: Box<str>,
    pub(super) os: Box<str>,
    max_streams: u32,
    hands_on: bool,
}

impl From<Hello> for Told {
    fn from(hello: Hello) -> Self {
        let hands_on = hello.features.iter().any(|feature| feature == HANDS_ON);
        Self { version: hello.version.into(), os: hello.os.into(), max_streams: hello.max_streams, hands_on }
    }
}

impl Device {
    /// A device whose tunnel has just come up; `grant` is a family and when it runs out.
    pub(super) fn new(
        conn: ConnId,
        name: DeviceName,
        id: Option<DeviceId>,
        (family, expires): (FamilyId, UnixTime),
        dialect: Dialect,
        since: Instant,
    ) -> Self {
        Self {
            conn,
            name,
            id,
            family,
            expires,
            dialect,
            since,
            audit: None,
            hello: None,
            round_trip_micros: None,
            catalog: Catalog::default(),
            leaving: false,
            last_stream: 0,
        }
    }

    /// Whether `name` means this device: its name, or the label that stands for it in tools' names.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_str() == name || names::label(self.name.as_str()) == name
    }

    /// How many calls it takes at once.
    pub(super) fn max_streams(&self) -> usize {
        let told = self.hello.as_ref().map_or(0, |told| told.max_streams);
        match usize::try_from(told) {
            Ok(0) | Err(_) => limits::MAX_STREAMS,
            Ok(told) => told.min(limits::MAX_STREAMS),
        }
    }

    /// Whether its agent knows a question by its session, when the call is over in which it was asked.
    pub(super) fn hands_on(&self) -> bool {
        self.hello.as_ref().is_some_and(|told| told.hands_on)
    }

    /// The number of its next call; `None` when all are used up and only a new tunnel helps.
    pub(super) fn next_stream(&mut self) -> Option<StreamId> {
        self.last_stream = self.last_stream.checked_add(1)?;
        Some(StreamId(self.last_stream))
    }
}

/// Devices in the order in which everything about them is listed: by name.
pub(super) fn sorted(devices: &BTreeMap<ConnId, Box<Device>>) -> Vec<&Device> {
    let mut sorted: Vec<&Device> = devices.values().map(|device| &**device).collect();
    sorted.sort_by(|a, b| (&a.name, a.conn).cmp(&(&b.name, b.conn)));
    sorted
}

/// The name under which a V1 agent listed a tool: dialect V1 joins server and tool, and its catalog takes them apart.
pub(super) fn v1_tool(server: &str, tool: &str) -> String {
    [server, names::SEPARATOR, tool].concat()
}
