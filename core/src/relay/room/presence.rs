//! Who is in a room: devices come, replace themselves, wait for a name, and go.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Room, close};
use crate::id::{ConnId, DeviceName, StreamId};
use crate::relay::audit::{self, Passage};
use crate::relay::catalog::Catalog;
use crate::relay::device::Device;
use crate::relay::failure::Failure;
use crate::relay::shard::{Action, Cx, Lease, Timer};
use crate::tunnel::{CloseCode, Dialect};

impl Room {
    /// A device's tunnel is up. It may take the place of its own old tunnel, and of nobody else's (see [`is_same`]). An
    /// old agent cannot be told from others of its name: it takes an old agent's place alone, and gives its own up to
    /// whoever speaks V2, for a device that was just brought up to date must not wait for its old tunnel to time out.
    pub(in crate::relay) fn tunnel_up(&mut self, device: Box<Device>, cx: &mut Cx<'_>) {
        let conn = device.conn;
        let old = self.devices.values().find(|old| old.name == device.name);
        match old.map(|old| (old.conn, old.dialect, is_same(old, &device))) {
            Some((_, Dialect::V2, _)) if device.dialect == Dialect::V1 => return self.wait(device, cx),
            Some((_, Dialect::V2, false)) => {
                tracing::warn!(%conn, device = %device.name, "device name is taken");
                note(&device, Passage::Refused("name-taken"), cx);
                let remedy = "another device with this name is connected: set another \"name\" in the configuration";
                return close(conn, CloseCode::NameTaken, remedy, cx);
            }
            Some((old, Dialect::V2, true)) => {
                tracing::info!(%conn, device = %device.name, "device replaces its old tunnel");
                close(old, CloseCode::Replaced, "the same device connected anew", cx);
                self.remove(old, CloseCode::Replaced, cx);
            }
            Some((old, Dialect::V1, _)) => {
                if let Some(old) = self.remove(old, CloseCode::Replaced, cx) {
                    self.wait(old, cx);
                }
            }
            None if self.devices.len() >= cx.settings.limits.devices_per_user => {
                tracing::warn!(%conn, device = %device.name, "too many devices");
                note(&device, Passage::Refused("too-many-devices"), cx);
                return close(conn, CloseCode::Refused, TOO_MANY, cx);
            }
            None => {}
        }
        tracing::info!(%conn, device = %device.name, dialect = ?device.dialect, "device connected");
        note(&device, Passage::Up, cx);
        cx.lease(Lease::Tunnel(conn), device.expires);
        self.devices.insert(conn, device);
        self.changed(true, cx);
    }

    /// A tunnel is over: every call on it is answered at once, and whoever waited for its name is called back.
    pub(in crate::relay) fn lose(&mut self, conn: ConnId, code: CloseCode, cx: &mut Cx<'_>) {
        let device = self.remove(conn, code, cx);
        self.lost(conn, device, cx);
    }

    /// A tunnel's sign-in was revoked, or ran out: `passage` says which of them.
    pub(super) fn expel(&mut self, conn: ConnId, passage: Passage, cx: &mut Cx<'_>) {
        tracing::info!(%conn, "tunnel's sign-in ended");
        close(conn, CloseCode::Revoked, "the sign-in of this device was revoked or ran out", cx);
        let device = self.remove_noting(conn, CloseCode::Revoked, passage, cx);
        self.lost(conn, device, cx);
    }

    fn lost(&mut self, conn: ConnId, device: Option<Box<Device>>, cx: &mut Cx<'_>) {
        match device {
            Some(device) => self.call_back(&device.name, cx),
            None => self.dismiss(conn, cx),
        }
    }

    /// The tunnels of these devices, those that wait first: nobody is called back who is about to go too.
    pub(super) fn tunnels_of(&self, wanted: impl Fn(&Device) -> bool) -> Vec<ConnId> {
        let all = self.waiting.values().chain(self.devices.values());
        all.filter(|device| wanted(device)).map(|device| device.conn).collect()
    }

    /// Leaves an old agent waiting for its name.
    fn wait(&mut self, mut device: Box<Device>, cx: &mut Cx<'_>) {
        let conn = device.conn;
        tracing::warn!(%conn, device = %device.name, "an old agent waits: another one of its name is connected");
        note(&device, Passage::Refused("waits-for-its-name"), cx);
        if self.waiting.len() >= cx.settings.limits.devices_per_user
            && let Some((oldest, _)) = self.waiting.pop_first()
        {
            close(oldest, CloseCode::Refused, TOO_MANY, cx);
            cx.timers.clear(&Timer::Expiry(Lease::Tunnel(oldest)));
        }
        cx.lease(Lease::Tunnel(conn), device.expires);
        device.catalog = Catalog::default();
        self.waiting.insert(conn, device);
    }

    /// Lets those who wait for `name` connect anew: an old agent says what it has only then.
    fn call_back(&mut self, name: &DeviceName, cx: &mut Cx<'_>) {
        for conn in self.tunnels_of(|device| device.name == *name) {
            close(conn, CloseCode::GoingAway, "the name is free: connect anew", cx);
            self.dismiss(conn, cx);
        }
    }

    fn dismiss(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        if self.waiting.remove(&conn).is_some() {
            cx.timers.clear(&Timer::Expiry(Lease::Tunnel(conn)));
        }
    }

    /// Takes a device out of the room.
    fn remove(&mut self, conn: ConnId, code: CloseCode, cx: &mut Cx<'_>) -> Option<Box<Device>> {
        self.remove_noting(conn, code, Passage::Down(code), cx)
    }

    fn remove_noting(
        &mut self,
        conn: ConnId,
        code: CloseCode,
        passage: Passage,
        cx: &mut Cx<'_>,
    ) -> Option<Box<Device>> {
        // First, so that nothing that ends with these calls begins another one here.
        let device = self.devices.remove(&conn);
        let calls = self.calls.range((conn, StreamId(0))..=(conn, StreamId(u32::MAX)));
        for key in calls.map(|(key, _)| *key).collect::<Vec<_>>() {
            let place = self.calls.get(&key).expect("the call was just listed").place.clone();
            self.leave(key, device.as_deref(), &Failure::Disconnected { place, code }, cx);
        }
        let device = device?;
        self.tasks.forget(conn);
        self.forget_beside(|beside, _| beside.conn == conn);
        note(&device, passage, cx);
        cx.timers.clear(&Timer::Expiry(Lease::Tunnel(conn)));
        self.changed(true, cx);
        Some(device)
    }
}

/// Tells the audit, if there is one.
fn note(device: &Device, passage: Passage, cx: &mut Cx<'_>) {
    if let Some(line) = audit::tunnel(device, passage, cx.now) {
        cx.out.push(Action::Audit(line));
    }
}

const TOO_MANY: &str = "too many devices of this user are connected (the relay's limits.devicesPerUser)";

/// Whether two V2 tunnels of one name are one device's. An id is proof, and who has one is never taken for who has
/// none. A device without an id is known by its sign-in alone: it may come again, or have an id after an update, but
/// another sign-in is another device.
fn is_same(old: &Device, new: &Device) -> bool {
    match (&old.id, &new.id) {
        (Some(old), Some(new)) => old == new,
        (Some(_), None) => false,
        (None, _) => old.family == new.family,
    }
}
