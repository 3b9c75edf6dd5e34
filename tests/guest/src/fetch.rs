// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetches a file over HTTP and TCP, step by step, from the address at which the runner serves it.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::Device;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use crate::http::{HttpError, REQUEST, Response};

/// The guest's address, which QEMU's user network expects of its first guest.
pub const OWN_ADDRESS: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
/// The address that QEMU forwards to the runner.
pub const SERVER_ADDRESS: Ipv4Address = Ipv4Address::new(10, 0, 2, 100);
/// HTTP.
const SERVER_PORT: u16 = 80;
/// First local port; each connection has its own.
const FIRST_PORT: u16 = 49152;
/// A peer that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the receive buffer, and so of the window that TCP announces.
pub const RECEIVE_BYTES: usize = 128 << 10;
/// Bytes of the send buffer.
pub const SEND_BYTES: usize = 1024;

/// Why a file did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchError {
    /// The stack refuses to connect or to send.
    Stack,
    /// Nobody answers, or the connection is refused.
    NotConnected,
    /// The connection ended too early.
    Closed(HttpError),
    /// The answer is none.
    Http(HttpError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connect,
    Send,
    Receive,
    Done,
}

/// Network interface, connection, and the answer so far.
pub struct Fetch<'a> {
    interface: Interface,
    sockets: SocketSet<'a>,
    handle: SocketHandle,
    response: Response,
    phase: Phase,
    port: u16,
}

impl core::fmt::Debug for Fetch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Fetch")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl<'a> Fetch<'a> {
    /// An interface with the address `mac`; `receive` and `send` hold TCP's data.
    pub fn new<D: Device>(
        device: &mut D,
        mac: [u8; 6],
        storage: &'a mut [SocketStorage<'a>],
        receive: &'a mut [u8],
        send: &'a mut [u8],
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = 1;
        let mut interface = Interface::new(config, device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list has room for two.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(OWN_ADDRESS), 24));
        });
        let mut socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
        socket.set_timeout(Some(PATIENCE));
        let mut sockets = SocketSet::new(storage);
        let handle = sockets.add(socket);
        Self {
            interface,
            sockets,
            handle,
            response: Response::new(),
            phase: Phase::Connect,
            port: FIRST_PORT,
        }
    }

    /// Begins a new fetch, whatever became of the last.
    pub fn begin(&mut self) {
        self.sockets.get_mut::<Socket<'_>>(self.handle).abort();
        self.response = Response::new();
        self.phase = Phase::Connect;
    }

    /// Does what can be done now, `milliseconds` after the start, and hands received bytes of the
    /// file to `sink`. Never waits. True once the file has come whole.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn step<D: Device>(
        &mut self,
        device: &mut D,
        milliseconds: i64,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<bool, FetchError> {
        let now = Instant::from_millis(milliseconds);
        self.interface.poll(now, device, &mut self.sockets);
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        match self.phase {
            Phase::Connect if socket.state() == State::Closed => {
                self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
                let server = (IpAddress::Ipv4(SERVER_ADDRESS), SERVER_PORT);
                socket
                    .connect(self.interface.context(), server, self.port)
                    .map_err(|_| FetchError::Stack)?;
                self.phase = Phase::Send;
            }
            // The end of the last connection is still being said.
            Phase::Connect => {}
            Phase::Send if socket.may_send() => {
                let sent = socket.send_slice(REQUEST);
                if sent != Ok(REQUEST.len()) {
                    return Err(FetchError::Stack);
                }
                self.phase = Phase::Receive;
            }
            Phase::Send if socket.state() == State::Closed => return Err(FetchError::NotConnected),
            Phase::Send => {}
            Phase::Receive => {
                while socket.can_recv() {
                    let response = &mut self.response;
                    let fed = socket.recv(|bytes| {
                        let body = response.feed(bytes).map(&mut *sink);
                        (bytes.len(), body)
                    });
                    fed.map_err(|_| FetchError::Stack)?
                        .map_err(FetchError::Http)?;
                }
                if !socket.may_recv() {
                    self.response.end().map_err(FetchError::Closed)?;
                    socket.close();
                    self.phase = Phase::Done;
                }
            }
            Phase::Done => {}
        }
        Ok(self.phase == Phase::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::{Loopback, Medium};
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    /// A server on the same wire: what it says to each connection, and whether it resets it.
    fn fetch(answers: &[&[u8]], reset: bool) -> Vec<Result<Vec<u8>, FetchError>> {
        let mut device = Loopback::new(Medium::Ethernet);
        let (mut receive, mut send) = (vec![0; 4096], vec![0; SEND_BYTES]);
        let mut storage = [const { SocketStorage::EMPTY }; 2];
        let mut fetch = Fetch::new(
            &mut device,
            [2, 0, 0, 0, 0, 1],
            &mut storage[..],
            &mut receive,
            &mut send,
        );
        // The server is a second socket of the same interface.
        fetch.interface.update_ip_addrs(|addresses| {
            let own = IpCidr::new(IpAddress::Ipv4(SERVER_ADDRESS), 24);
            addresses.push(own).expect("room for two");
        });
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let server = fetch.sockets.add(Socket::new(buffer(), buffer()));
        let mut results = vec![];
        let mut now = 0;
        for answer in answers {
            fetch.sockets.get_mut::<Socket<'_>>(server).abort();
            let listening = fetch
                .sockets
                .get_mut::<Socket<'_>>(server)
                .listen((IpAddress::Ipv4(SERVER_ADDRESS), SERVER_PORT));
            listening.expect("a free port");
            fetch.begin();
            let (mut body, mut asked, mut said) = (vec![], vec![], 0);
            let result = loop {
                now += 1;
                match fetch.step(&mut device, now, &mut |bytes| body.extend_from_slice(bytes)) {
                    Ok(true) => break Ok(body),
                    Ok(false) => {}
                    Err(error) => break Err(error),
                }
                assert!(now < 2_000_000, "it never ends");
                let socket = fetch.sockets.get_mut::<Socket<'_>>(server);
                if socket.can_recv() {
                    let part = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                    asked.extend(part.expect("open"));
                }
                if String::from_utf8_lossy(&asked).ends_with("\r\n\r\n") {
                    if reset {
                        socket.abort();
                    } else if said < answer.len() {
                        said += socket.send_slice(&answer[said..]).expect("open");
                    } else {
                        socket.close();
                    }
                }
            };
            results.push(result);
        }
        results
    }

    #[test]
    fn files_come_whole_one_after_the_other() {
        let file: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let head = b"HTTP/1.0 200 OK\r\nContent-Length: 400000\r\n\r\n";
        let answer = [&head[..], &file].concat();
        let results = fetch(&[&answer, &answer], false);
        assert!(results == [Ok(file.clone()), Ok(file)]);
    }

    #[test]
    fn an_answer_that_ends_early_or_is_none_is_refused() {
        let short = b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nabc";
        let missing = b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            fetch(&[short, missing], false),
            [
                Err(FetchError::Closed(HttpError::TooShort)),
                Err(FetchError::Http(HttpError::Status(404)))
            ]
        );
        assert_eq!(
            fetch(&[short], true),
            [Err(FetchError::Closed(HttpError::TooShort))]
        );
    }
}
