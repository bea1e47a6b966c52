//! Connecting to a controller over TLS, with a deadline, and cancelled at once when this process is asked to end.

use super::deadline::{ConnectError, Deadline};
use super::proxy::Route;
use super::verify::explain;
use backburn_experiments::join::host_and_port;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long connecting may take, for each address of the host name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sent data may stay unacknowledged before the kernel ends the connection, because the controller has vanished or does not
/// read.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// A TLS connection to a controller, over a socket that never blocks.
#[derive(Debug)]
pub struct TlsConnection {
    /// The TCP socket, which never blocks.
    pub stream: TcpStream,
    /// The state of TLS on this socket.
    pub connection: ClientConnection,
    controller: String,
    /// Whether the socket is connected to a proxy.
    pub is_proxied: bool,
}

impl TlsConnection {
    /// Connects to the controller and completes the TLS handshake.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(
        route: &Route,
        config: Result<Arc<ClientConfig>, rustls::Error>,
        cancelled: Option<BorrowedFd<'_>>,
    ) -> Result<Self, ConnectError> {
        let controller = route.controller.as_str();
        let Some((host, port)) = host_and_port(controller) else {
            return Err(ConnectError::new(
                format!("`{controller}` is not of the form HOST[:PORT]"),
                "for example `--controller chaos.example.org`, or `[fd00::1]:7420`",
            ));
        };
        let addresses = match &route.proxy {
            // The proxy resolves the controller's name.
            Some(proxy) => resolve(&proxy.host, proxy.port)?,
            None => resolve(host, port)?,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            ConnectError::new(
                format!("`{host}` is neither a host name nor an address"),
                "for example `--controller chaos.example.org`",
            )
        })?;
        let config = config.map_err(|error| {
            ConnectError::new(
                format!("TLS is not available: {error}"),
                "join again with a new token",
            )
        })?;
        let mut last = None;
        for address in addresses {
            let deadline = Deadline {
                until: Instant::now() + CONNECT_TIMEOUT,
                cancelled,
            };
            let stream = match open_socket(address, &deadline) {
                Ok(stream) => stream,
                Err(ConnectError::Cancelled) => return Err(ConnectError::Cancelled),
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            if let Some(proxy) = &route.proxy {
                proxy.open_tunnel(&stream, host, port, &deadline)?;
            }
            let connection = ClientConnection::new(Arc::clone(&config), name.clone())
                .map_err(|error| ConnectError::new(error.to_string(), "join again"))?;
            let mut tls = TlsConnection {
                stream,
                connection,
                controller: controller.to_owned(),
                is_proxied: route.proxy.is_some(),
            };
            while tls.connection.is_handshaking() || tls.connection.wants_write() {
                tls.make_progress(&deadline)?;
            }
            return Ok(tls);
        }
        Err(last.unwrap_or_else(|| {
            ConnectError::new(
                format!("`{host}` has no address"),
                "check the name, and this host's name servers",
            )
        }))
    }

    /// Waits a moment for the controller's first message. The controller judges the agent's certificate only after the agent's side of the
    /// handshake is complete, so a refusal arrives here. A controller that sends nothing has not refused.
    ///
    /// # Errors
    /// The controller refused the agent's certificate; says why.
    pub fn await_first_message(
        &mut self,
        within: Duration,
        cancelled: Option<BorrowedFd<'_>>,
    ) -> Result<(), ConnectError> {
        let deadline = Deadline {
            until: Instant::now() + within,
            cancelled,
        };
        if deadline.wait_ready(&self.stream, PollFlags::IN)? {
            self.make_progress(&deadline)?;
        }
        Ok(())
    }

    /// Sends a line and waits for an answer of at most `most` bytes.
    ///
    /// # Errors
    /// The connection broke, or no answer came in time.
    pub fn exchange(
        &mut self,
        line: &[u8],
        most: usize,
        within: Duration,
    ) -> Result<String, ConnectError> {
        let deadline = Deadline {
            until: Instant::now() + within,
            cancelled: None,
        };
        let failed = |error: io::Error| ConnectError::new(error.to_string(), "try again");
        self.connection.writer().write_all(line).map_err(failed)?;
        let mut heard = Vec::new();
        loop {
            let mut room = [0; 4096];
            match self.connection.reader().read(&mut room) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(room.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.make_progress(&deadline)?;
                }
                Err(error) => return Err(failed(error)),
            }
            if heard.contains(&b'\n') || heard.len() > most {
                break;
            }
        }
        String::from_utf8(heard)
            .ok()
            .filter(|heard| heard.ends_with('\n'))
            .ok_or_else(|| {
                ConnectError::new(
                    format!("{}: the answer could not be read", self.controller),
                    "use the same version for agent and controller",
                )
            })
    }

    /// Sends and receives what is possible, after waiting for the socket to be ready.
    fn make_progress(&mut self, deadline: &Deadline<'_>) -> Result<(), ConnectError> {
        let mut wanted = PollFlags::empty();
        if self.connection.wants_write() {
            wanted |= PollFlags::OUT;
        }
        if self.connection.wants_read() {
            wanted |= PollFlags::IN;
        }
        if !deadline.wait_ready(&self.stream, wanted)? {
            return Err(ConnectError::new(
                format!("{}: no answer in time", self.controller),
                "check whether the controller is overloaded, or something in between drops packets",
            ));
        }
        self.transfer().map(|_| ())
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self) -> Result<(), ConnectError> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if would_block(&error) => break,
                Err(error) => return Err(connection_broken(&self.controller, &error)),
            }
        }
        Ok(())
    }

    /// Sends and receives what is possible now. Returns how many bytes were received; none if the controller has closed the connection.
    ///
    /// # Errors
    /// The connection broke, or TLS reported an error.
    pub fn transfer(&mut self) -> Result<Option<usize>, ConnectError> {
        // If sending fails, the reason for the close may still be there to be read.
        let sent = self.send();
        let mut came = Some(0);
        if self.connection.wants_read() {
            came = match self.connection.read_tls(&mut self.stream) {
                Ok(0) => None,
                Ok(count) => Some(count),
                Err(error) if would_block(&error) => Some(0),
                Err(error) => return Err(connection_broken(&self.controller, &error)),
            };
            let state = self.connection.process_new_packets().map_err(|error| {
                // The TLS alert says why; the controller may no longer be there to read it.
                self.connection.write_tls(&mut self.stream).ok();
                let (what, hint) = explain(&error);
                ConnectError::new(format!("{}: {what}", self.controller), hint)
            })?;
            if state.peer_has_closed() {
                came = None;
            }
        }
        sent?;
        if came.is_none() && self.connection.is_handshaking() {
            return Err(ConnectError::new(
                format!(
                    "{}: the connection was closed before the controller identified itself",
                    self.controller
                ),
                "check whether this is the controller's port, and whether the controller is overloaded",
            ));
        }
        Ok(came)
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn connection_broken(controller: &str, error: &io::Error) -> ConnectError {
    let what = format!("{controller}: the connection broke: {error}");
    ConnectError::new(
        what,
        "check whether the controller is running, and whether something in between closes connections",
    )
}

/// The addresses of a host.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| {
        ConnectError::new(
            format!("`{host}` could not be resolved: {error}"),
            "check the name, and this host's name servers",
        )
    })?;
    Ok(addresses.collect())
}

fn open_socket(address: SocketAddr, deadline: &Deadline<'_>) -> Result<TcpStream, ConnectError> {
    let failed = |error: Errno| {
        let hint = match error {
            Errno::CONNREFUSED => {
                "check whether the controller is running there and listens on this port"
            }
            _ => "check the routes and firewalls between this host and the controller",
        };
        ConnectError::new(format!("{address}: {}", io::Error::from(error)), hint)
    };
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            if !deadline.wait_ready(&socket, PollFlags::OUT)? {
                return Err(failed(Errno::TIMEDOUT));
            }
            sockopt::socket_error(&socket)
                .and_then(|outcome| outcome)
                .map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    sockopt::set_tcp_nodelay(&socket, true).map_err(failed)?;
    sockopt::set_socket_keepalive(&socket, true).map_err(failed)?;
    sockopt::set_tcp_keepidle(&socket, UNACKNOWLEDGED_TIMEOUT).map_err(failed)?;
    sockopt::set_tcp_keepintvl(&socket, UNACKNOWLEDGED_TIMEOUT / 3).map_err(failed)?;
    let length = u32::try_from(UNACKNOWLEDGED_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&socket, length).map_err(failed)?;
    Ok(TcpStream::from(socket))
}
