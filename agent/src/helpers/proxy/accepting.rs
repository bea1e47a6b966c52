//! Accepting connections, each on a thread of its own, until the helper is killed.

use super::connection::resets_when_dropped;
use crate::helpers::{HelperError, HelperProcess};
use crate::precise_timer::use_precise_timers;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, listen, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// What a connection's thread has for itself; it needs a few pages.
const THREAD_STACK_BYTES: usize = 128 << 10;
/// How long is waited where there is nothing left to accept a connection with.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);

/// What is done with the n-th connection. What it drops without closing it is reset. An error is only for the log.
pub(in crate::helpers) type ServeConnection =
    dyn Fn(&TcpStream, u64) -> io::Result<()> + Send + Sync;

/// Binds a socket, which does not listen yet: nobody notices.
///
/// # Errors
/// What the kernel said: the address is in use, or is none of this host, or the port is for root.
pub(crate) fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // What is left of connections that were closed is no reason to refuse.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}

/// Lets this process have as many connections as the host lets one process have.
pub(in crate::helpers) fn open_files_unlimited() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Listens, says that it does, and serves connections until it is killed.
pub(in crate::helpers) fn serve_connections(
    address: SocketAddr,
    process: &HelperProcess,
    service: Arc<ServeConnection>,
) -> Result<(), HelperError> {
    let failed = |what: &str, error: io::Error| HelperError::new(format!("{what}: {error}"));
    process.first_to_be_killed()?;
    open_files_unlimited().map_err(|error| failed("the limit of open files", error))?;
    use_precise_timers().map_err(|error| failed("the timer's slack", error))?;
    let at = format!("listening on {address}");
    let socket = bound(address).map_err(|error| failed(&at, error))?;
    listen(&socket, BACKLOG).map_err(|error| failed(&at, error.into()))?;
    let listener = TcpListener::from(socket);
    process.ready(at.clone())?;
    accept(&listener, &service).map_err(|error| failed(&at, error))
}

/// Accepts connections until it is killed.
fn accept(listener: &TcpListener, service: &Arc<ServeConnection>) -> io::Result<()> {
    let mut number = 0;
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                match Errno::from_io_error(&error) {
                    // Nothing to accept it with: others have to end first.
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        std::thread::sleep(ACCEPT_RETRY_DELAY);
                    }
                    Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => return Err(error),
                    // Errors of the connection that is accepted are told here, too: accept(2).
                    _ => {}
                }
                continue;
            }
        };
        start(client, service, number);
        number += 1;
    }
}

/// Serves one connection on a thread of its own. What can't be served is reset.
fn start(client: TcpStream, service: &Arc<ServeConnection>, number: u64) {
    if let Err(error) = resets_when_dropped(&client) {
        tracing::debug!(%error, "a connection was gone as it came");
        return;
    }
    let service = Arc::clone(service);
    let started = std::thread::Builder::new()
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || {
            if let Err(error) = service(&client, number) {
                tracing::debug!(%error, "a connection could not be passed on");
            }
        });
    if let Err(error) = started {
        // The client went with the closure, and was reset.
        tracing::debug!(%error, "no thread for a connection");
    }
}
