//! Notice of changes of this machine's addresses.
//!
//! On Linux the kernel tells (a netlink socket, rtnetlink(7)); elsewhere nothing does, and a tunnel that lost its
//! network is found by its pings, or at once when the machine wakes up.

/// Waits for changes, and brings each to `changed`; ends only where there is no notice to be had.
#[cfg(target_os = "linux")]
pub(crate) async fn watch(changed: impl Fn()) {
    let socket = match linux::socket() {
        Ok(socket) => socket,
        Err(error) => return tracing::debug!(%error, "no notice of network changes"),
    };
    loop {
        match socket.read_with(linux::drain).await {
            Ok(()) => changed(),
            Err(error) => return tracing::debug!(%error, "no more notice of network changes"),
        }
    }
}

/// There is no notice here.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn watch(_changed: impl Fn()) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use crate::rt::Readable;
    use rustix::io::Errno;
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

    pub(super) fn socket() -> io::Result<Readable> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, NETLINK_ROUTE)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Readable::new(socket)
    }

    /// Takes everything that is there: that something changed is all that matters.
    pub(super) fn drain(socket: &OwnedFd) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut any = false;
        loop {
            match recv(socket, &mut buffer, RecvFlags::TRUNC) {
                Ok(_) | Err(Errno::NOBUFS) => any = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if any => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Its number is zero, which is written as no protocol at all.
    const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;
    /// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR. Links alone carry nothing.
    const GROUPS: u32 = 0x10 | 0x100;
}
