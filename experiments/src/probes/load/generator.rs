//! Sends the requests of a load when they are due, on as many threads as are busy at a time.
//!
//! Each thread takes the next request of the schedule, waits until it is due, and sends it. Where all connections are busy, due requests
//! wait in their order, and their latency counts meanwhile; a request whose time is over is given up without being sent. So what waits is
//! bounded, and the load ends one time-out after its last request at the latest.

use super::channel::Channel;
use super::response::ResponseReader;
use super::tally::{PROTOCOL, RequestEnd, TIMEOUT, UNSENT, failure_kind};
use super::{LoadPlan, LoadTally};
use crate::probes::ProbeResult;
use crate::probes::tls::server_name;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

/// How often a thread that waits finds out that the load is stopped.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a connection may be idle before it is checked whether it is still open.
const UNCHECKED_IDLE: Duration = Duration::from_millis(5);
/// How much is read at once.
const STEP_BYTES: usize = 16 << 10;
/// What a thread has for itself.
const THREAD_STACK_BYTES: usize = 256 << 10;

/// The host that sends a load: its clock and its network.
pub trait LoadIo: Sync {
    /// A connection as the host makes it.
    type Stream: Read + Write + Send;

    /// The time since some moment that stays the same.
    fn now(&self) -> Duration;

    /// Waits for this long.
    fn wait(&self, time: Duration);

    /// Connects to this address within this time, which is more than 0.
    ///
    /// # Errors
    /// What the network said.
    fn connect(&self, to: SocketAddr, within: Duration) -> io::Result<Self::Stream>;

    /// Sets how long a read or a write of this connection waits before it fails with `WouldBlock` or `TimedOut`. More than 0.
    ///
    /// # Errors
    /// What the kernel said.
    fn set_timeout(&self, stream: &Self::Stream, timeout: Duration) -> io::Result<()>;

    /// Sets whether reads and writes of this connection wait at all.
    ///
    /// # Errors
    /// What the kernel said.
    fn set_nonblocking(&self, stream: &Self::Stream, nonblocking: bool) -> io::Result<()>;
}

/// A load as it is sent.
pub struct LoadGenerator<Io: LoadIo> {
    io: Io,
    /// The target: the first that accepts is taken.
    addresses: Vec<SocketAddr>,
    plan: LoadPlan,
    tls: Option<Arc<ClientConfig>>,
    tally: Mutex<LoadTally>,
    idle: Mutex<Vec<LoadConnection<Io::Stream>>>,
    is_stopped: AtomicBool,
    /// The number of the next request.
    next: AtomicU64,
    /// Threads that wait for their request to be due.
    waiting: AtomicUsize,
    threads: AtomicUsize,
    /// When the load began, by the clock of the host.
    began: Duration,
}

/// An open connection, with what is known of it.
struct LoadConnection<S: Read + Write> {
    channel: Channel<S>,
    /// What was read and belongs to no response yet.
    buffer: Vec<u8>,
    /// How long a read waits.
    timeout: Duration,
    idle_since: Duration,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds a lock here can end halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Io: LoadIo> LoadGenerator<Io> {
    /// A load that begins now, to the first of these addresses that accepts. `tls` is needed where the plan speaks TLS.
    pub fn new(
        io: Io,
        addresses: Vec<SocketAddr>,
        plan: LoadPlan,
        tls: Option<Arc<ClientConfig>>,
    ) -> Self {
        let began = io.now();
        LoadGenerator {
            io,
            addresses,
            plan,
            tls,
            tally: Mutex::default(),
            idle: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            threads: AtomicUsize::new(1),
            began,
        }
    }

    /// Sends all of it. Returns when the last request has ended, or soon after [`stop`](Self::stop).
    pub fn run(&self) {
        std::thread::scope(|scope| self.work(scope));
    }

    /// Has the load end: what is not answered by then counts as nothing.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// What became of the requests so far.
    pub fn tally(&self) -> LoadTally {
        locked(&self.tally).clone()
    }

    /// The value of a probe that is this load, once it has ended.
    ///
    /// # Errors
    /// No request was answered.
    pub fn value(&self) -> ProbeResult {
        let whole = self.plan.schedule.duration.unwrap_or_default();
        self.tally().value(self.elapsed().max(whole.0))
    }

    /// How long the load has gone on.
    fn elapsed(&self) -> Duration {
        self.io.now().saturating_sub(self.began)
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn work<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        let mut room = vec![0; STEP_BYTES];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(due) = self.plan.schedule.due(number) else {
                return;
            };
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.wait_until(due);
            let was_last = self.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
            if self.is_stopped() {
                return;
            }
            if was_last {
                self.start_another(scope);
            }
            let end = self.send(due, &mut room);
            let after = self.elapsed().saturating_sub(due);
            match end {
                // It was not the target that ended it.
                RequestEnd::Unanswered(TIMEOUT) | RequestEnd::NotSent(TIMEOUT)
                    if self.is_stopped() && after < self.plan.timeout => {}
                end => locked(&self.tally).record(end, after),
            }
        }
    }

    fn wait_until(&self, due: Duration) {
        while !self.is_stopped() {
            let left = due.saturating_sub(self.elapsed());
            if left.is_zero() {
                return;
            }
            self.io.wait(left.min(STOP_CHECK_INTERVAL));
        }
    }

    /// Has another thread take the next request, unless there are as many as there may be connections.
    fn start_another<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        let most = self.plan.connections;
        let more = |threads: usize| (threads < most).then_some(threads + 1);
        let update = Ordering::Relaxed;
        if self.threads.fetch_update(update, update, more).is_err() {
            return;
        }
        let started = Builder::new()
            .stack_size(THREAD_STACK_BYTES)
            .spawn_scoped(scope, || self.work(scope));
        if started.is_err() {
            // The host has no room for it: those that there are go on.
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Sends a request and reads its response, until its time is over.
    fn send(&self, due: Duration, room: &mut [u8]) -> RequestEnd {
        let deadline = due + self.plan.timeout;
        if self.elapsed() >= deadline {
            return RequestEnd::NotSent(UNSENT);
        }
        let mut connection = match self.connection(deadline) {
            Ok(connection) => connection,
            Err(error) => return RequestEnd::NotSent(failure_kind(&error)),
        };
        if let Err(error) = self.write(&mut connection, deadline) {
            return RequestEnd::NotSent(failure_kind(&error));
        }
        match self.read(&mut connection, deadline, room) {
            Ok((status, stays_open)) => {
                if stays_open && connection.buffer.is_empty() {
                    connection.idle_since = self.elapsed();
                    locked(&self.idle).push(connection);
                }
                RequestEnd::Answered(status)
            }
            Err(kind) => RequestEnd::Unanswered(kind),
        }
    }

    /// The connection that was used last and is still open, or a new one.
    fn connection(&self, deadline: Duration) -> io::Result<LoadConnection<Io::Stream>> {
        loop {
            let Some(mut connection) = locked(&self.idle).pop() else {
                return self.connect(deadline);
            };
            let idle = self.elapsed().saturating_sub(connection.idle_since);
            if idle < UNCHECKED_IDLE || self.is_usable(&mut connection.channel) {
                return Ok(connection);
            }
        }
    }

    /// Whether a connection of which nothing is awaited is still open: what has come unasked spoils it as well.
    fn is_usable(&self, channel: &mut Channel<Io::Stream>) -> bool {
        if self.io.set_nonblocking(channel.stream(), true).is_err() {
            return false;
        }
        let came = channel.read(&mut [0]);
        let is_quiet = matches!(came, Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.io.set_nonblocking(channel.stream(), false).is_ok() && is_quiet
    }

    /// A connection of the host's to the first address that accepts.
    fn reach(&self, deadline: Duration) -> io::Result<Io::Stream> {
        let left = || deadline.saturating_sub(self.elapsed());
        if left().is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut last = ErrorKind::AddrNotAvailable.into();
        for address in &self.addresses {
            let left = left();
            if left.is_zero() {
                break;
            }
            match self.io.connect(*address, left) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect(&self, deadline: Duration) -> io::Result<LoadConnection<Io::Stream>> {
        let stream = self.reach(deadline)?;
        self.io.set_timeout(&stream, STOP_CHECK_INTERVAL)?;
        let channel = match (&self.tls, self.plan.is_tls) {
            (Some(config), true) => {
                let host = &self.plan.host;
                let name = server_name(host).ok_or(ErrorKind::InvalidData)?;
                let client = ClientConnection::new(Arc::clone(config), name)
                    .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                Channel::Tls(Box::new(StreamOwned::new(client, stream)))
            }
            (None, true) => return Err(ErrorKind::InvalidData.into()),
            (_, false) => Channel::Plain(stream),
        };
        Ok(LoadConnection {
            channel,
            buffer: Vec::new(),
            timeout: STOP_CHECK_INTERVAL,
            idle_since: Duration::ZERO,
        })
    }

    /// Has reads and writes wait until the deadline, and no longer than until the next check whether the load is stopped.
    fn limit(
        &self,
        connection: &mut LoadConnection<Io::Stream>,
        deadline: Duration,
    ) -> io::Result<()> {
        let left = deadline.saturating_sub(self.elapsed());
        if left.is_zero() || self.is_stopped() {
            return Err(ErrorKind::TimedOut.into());
        }
        // The kernel's own unit for it is a jiffy.
        let wanted = left.clamp(Duration::from_millis(1), STOP_CHECK_INTERVAL);
        if wanted != connection.timeout {
            self.io.set_timeout(connection.channel.stream(), wanted)?;
            connection.timeout = wanted;
        }
        Ok(())
    }

    fn write(
        &self,
        connection: &mut LoadConnection<Io::Stream>,
        deadline: Duration,
    ) -> io::Result<()> {
        let mut left = self.plan.request.as_slice();
        while !left.is_empty() {
            self.limit(connection, deadline)?;
            match connection.channel.write(left) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Err(error),
            }
        }
        loop {
            match connection.channel.flush() {
                Ok(()) => return Ok(()),
                Err(error) if is_to_be_repeated(&error) => self.limit(connection, deadline)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The status of the response, and whether the connection can be used again.
    fn read(
        &self,
        connection: &mut LoadConnection<Io::Stream>,
        deadline: Duration,
        room: &mut [u8],
    ) -> Result<(u16, bool), &'static str> {
        let mut reader = ResponseReader::new(self.plan.is_head);
        loop {
            self.limit(connection, deadline)
                .map_err(|error| failure_kind(&error))?;
            match connection.channel.read(room) {
                Ok(0) => {
                    return match reader.is_whole_when_closed() {
                        true => Ok((reader.status, false)),
                        false => Err(failure_kind(&ErrorKind::UnexpectedEof.into())),
                    };
                }
                Ok(count) => {
                    let came = room.get(..count).unwrap_or_default();
                    connection.buffer.extend_from_slice(came);
                    match reader.take(&mut connection.buffer) {
                        Ok(true) => return Ok((reader.status, reader.stays_open)),
                        Ok(false) => {}
                        Err(_) => return Err(PROTOCOL),
                    }
                }
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Err(failure_kind(&error)),
            }
        }
    }
}

/// Whether a read or a write only has to be tried again.
fn is_to_be_repeated(error: &io::Error) -> bool {
    use ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
