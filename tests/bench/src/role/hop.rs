//! A raw hop: bytes from one TCP connection to another.

use std::io;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const BUFFER: usize = 256 * 1024;

/// Carries what comes to `port` on to another.
pub(crate) fn run(port: u16, to: u16) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (mut near, _) = listener.accept().await?;
            near.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", to)).await?;
                far.set_nodelay(true)?;
                copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await
            });
        }
    })
}
