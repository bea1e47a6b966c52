//! Addresses of a name as a victim finds them: by its files, and by its name servers, which are asked from its network. Nothing of the
//! victim is run, and it all ends in time.

use super::files::{self, NameServer, ResolvConf, Viewpoint};
use super::query::{RecordType, Response, answer, question};
use crate::netlink::{self, Namespace};
use crate::processes::ProcessTable;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, ToSocketAddrs as _, UdpSocket,
};
use std::time::{Duration, Instant};

/// How long all names of a fault may take to be found.
pub const MAX_TIME: Duration = Duration::from_secs(5);
/// The most that one server is waited for: others are to have their turn within [`MAX_TIME`].
const MAX_WAIT: Duration = Duration::from_millis(1200);
/// How often a name may be another's that has to be asked for by itself.
const MAX_ALIASES: usize = 8;
/// Where name servers listen.
const PORT: u16 = 53;

/// Finds addresses as programs of a host or a namespace find them.
#[derive(Debug, Clone)]
pub struct Resolver {
    namespace: Option<Namespace>,
    /// None for this host itself, whose own C library is asked.
    files: Option<Files>,
    until: Instant,
}

#[derive(Debug, Clone)]
struct Files {
    hosts: String,
    sources: Vec<String>,
    conf: ResolvConf,
}

/// What became of a question that nobody answered with addresses.
enum LookupError {
    /// There is no such name, or it has no address.
    None,
    /// It could not be found out.
    Unknown(String),
}

impl Resolver {
    /// One that sees with the eyes of somebody, or of this host, and asks from a network namespace, or from this one.
    pub fn new(
        namespace: Option<&Namespace>,
        viewpoint: Option<&Viewpoint>,
        table: &ProcessTable,
    ) -> Self {
        let files = viewpoint.map(|viewpoint| {
            let read = |name| viewpoint.read(name, table).unwrap_or_default();
            let usual = || vec!["files".to_owned(), "dns".to_owned()];
            Files {
                hosts: read("hosts"),
                sources: files::sources(&read("nsswitch.conf")).unwrap_or_else(usual),
                conf: ResolvConf::parse(&read("resolv.conf")),
            }
        });
        Resolver {
            namespace: namespace.cloned(),
            files,
            until: Instant::now() + MAX_TIME,
        }
    }

    /// All addresses of a name.
    ///
    /// # Errors
    /// It has none, or that could not be found out in time; says why.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let Some(files) = &self.files else {
            let found = (name, 0)
                .to_socket_addrs()
                .map_err(|error| error.to_string())?;
            return Ok(found.map(|address| address.ip()).collect());
        };
        let plain = name.strip_suffix('.').unwrap_or(name);
        let mut why = "neither a hosts file nor a name server is asked there".to_owned();
        for source in &files.sources {
            match source.as_str() {
                "files" => {
                    let known = files::hosts(&files.hosts).filter(|(_, names)| {
                        names.iter().any(|known| known.eq_ignore_ascii_case(plain))
                    });
                    let known: Vec<IpAddr> = known.map(|(address, _)| address).collect();
                    if !known.is_empty() {
                        return Ok(known);
                    }
                    why = "its hosts file does not have it".into();
                }
                // Whom `resolve` would ask is named in resolv.conf too.
                "dns" | "resolve" => {
                    // No server is to be asked for it (RFC 6761).
                    if is_localhost(plain) {
                        break;
                    }
                    let asked = || Ok(self.ask_for(name, &files.conf));
                    match netlink::within(self.namespace.as_ref(), asked) {
                        Ok(Some(Ok(addresses))) => return Ok(addresses),
                        Ok(Some(Err(said))) => why = said,
                        Ok(None) => why = "its network namespace is gone".into(),
                        Err(error) => why = error.to_string(),
                    }
                }
                _ => {}
            }
        }
        match is_localhost(plain) {
            true => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            false => Err(why),
        }
    }

    /// In the network of the thread.
    fn ask_for(&self, name: &str, conf: &ResolvConf) -> Result<Vec<IpAddr>, String> {
        let links = netlink::interfaces().unwrap_or_default();
        let servers: Vec<SocketAddr> = conf
            .asked()
            .iter()
            .filter_map(|server| socket_address(server, &links))
            .collect();
        let mut failed = None;
        for candidate in conf.candidates(name) {
            match self.ask_about(&candidate, &servers, conf) {
                Ok(found) => return Ok(found),
                Err(LookupError::None) => {}
                // Another domain may have it all the same.
                Err(LookupError::Unknown(why)) => drop(failed.get_or_insert(why)),
            }
        }
        let listed: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        let listed = listed.join(", ");
        Err(match failed {
            None => format!("name server {listed} says that there is no such name"),
            Some(why) => format!("name server {listed}: {why}"),
        })
    }

    /// What is known of one full name.
    fn ask_about(
        &self,
        name: &str,
        servers: &[SocketAddr],
        conf: &ResolvConf,
    ) -> Result<Vec<IpAddr>, LookupError> {
        let mut why = "it is not known whom to ask".to_owned();
        for _ in 0..conf.attempts {
            for server in servers {
                let wait = conf.timeout.min(MAX_WAIT);
                let until = self.until.min(Instant::now() + wait);
                if Instant::now() >= self.until {
                    return Err(LookupError::Unknown(format!("it takes too long: {why}")));
                }
                match ask_both(name, *server, until, conf.by_tcp) {
                    Ok(found) if found.is_empty() => return Err(LookupError::None),
                    Ok(found) => return Ok(found),
                    Err(error) => why = error.to_string(),
                }
            }
        }
        Err(LookupError::Unknown(why))
    }
}

fn is_localhost(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

fn socket_address(server: &NameServer, links: &[netlink::Interface]) -> Option<SocketAddr> {
    let scope = match &server.interface {
        None => 0,
        Some(name) => {
            let link = links.iter().find(|link| link.name == *name);
            link.map(|link| link.index).or_else(|| name.parse().ok())?
        }
    };
    Some(match server.address {
        IpAddr::V4(address) => SocketAddr::from((address, PORT)),
        IpAddr::V6(address) => SocketAddrV6::new(address, PORT, 0, scope).into(),
    })
}

/// The addresses of both kinds that one server knows, none where there is no such name. What is known of one kind counts where the server
/// can't tell of the other.
fn ask_both(
    name: &str,
    server: SocketAddr,
    until: Instant,
    by_tcp: bool,
) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    let mut failed = None;
    for kind in [RecordType::A, RecordType::Aaaa] {
        let mut name = name.to_owned();
        for _ in 0..MAX_ALIASES {
            match ask(&name, kind, server, until, by_tcp) {
                Ok(Response::Addresses(addresses)) => found.extend(addresses),
                Ok(Response::Alias(next)) => {
                    name = next;
                    continue;
                }
                Ok(Response::NoSuchName) => {}
                Ok(Response::CutShort) => {
                    failed = Some(io::Error::other("its answer is cut short"))
                }
                Ok(Response::Failed(code)) => {
                    failed = Some(io::Error::other(match code {
                        2 => "it cannot find out (SERVFAIL)".to_owned(),
                        5 => "it refuses to answer (REFUSED)".to_owned(),
                        code => format!("it answers with code {code}"),
                    }));
                }
                Err(error) => failed = Some(error),
            }
            break;
        }
        if found.is_empty() && failed.is_some() {
            break;
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// One question, by UDP, and by TCP where the answer does not fit.
fn ask(
    name: &str,
    kind: RecordType,
    server: SocketAddr,
    until: Instant,
    by_tcp: bool,
) -> io::Result<Response> {
    let id = RandomState::new().build_hasher().finish() as u16;
    let asked = question(id, name, kind).ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidInput, "it is no name for a name server")
    })?;
    if !by_tcp {
        match ask_by_udp(&asked, server, until)? {
            Response::CutShort => {}
            said => return Ok(said),
        }
    }
    ask_by_tcp(&asked, server, until)
}

/// How long is left, which is never nothing.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::Error::new(
            ErrorKind::TimedOut,
            "no answer came in time",
        )),
        false => Ok(left),
    }
}

fn in_time(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer came in time"),
        _ => error,
    }
}

fn ask_by_udp(asked: &[u8], server: SocketAddr, until: Instant) -> io::Result<Response> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // What others send does not come any more.
    socket.connect(server)?;
    socket.send(asked)?;
    let mut room = [0; 4096];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let length = socket.recv(&mut room).map_err(in_time)?;
        if let Some(said) = room
            .get(..length)
            .and_then(|message| answer(message, asked))
        {
            return Ok(said);
        }
    }
}

fn ask_by_tcp(asked: &[u8], server: SocketAddr, until: Instant) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let length = u16::try_from(asked.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), asked].concat())?;
    let mut whole = Vec::new();
    let mut room = [0; 4096];
    loop {
        let length = whole.get(..2).map(|two: &[u8]| {
            let bytes = two.try_into().unwrap_or_default();
            usize::from(u16::from_be_bytes(bytes))
        });
        if let Some(message) = length.and_then(|length| whole.get(2..2 + length)) {
            return answer(message, asked)
                .ok_or_else(|| io::Error::other("it answers another question"));
        }
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut room).map_err(in_time)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            some => whole.extend(room.iter().take(some)),
        }
    }
}
