//! Very many agents in one process, for tests and benches of the controller.
//!
//! Real: each has a TLS connection of its own with a certificate of its own, signed by the
//! controller's authority; each speaks the wire's messages, renews its lease by beats, tells of
//! its faults' effects once a second, ends them when their time is over, puts everything back when
//! its link closes or its lease ends, and comes again after a moment. Not real: nothing is
//! changed. Where an agent has an engine, a ledger on a disk and a guardian, there is a list of
//! names here; and all certificates are for one key.
//!
//! ```text
//! swarm DATA COUNT
//! ```
//!
//! makes the agents known in the controller's data folder, which nobody else may have open then,
//! and says so. From then on it is told by lines on its standard input: `connect ADDRESS` has them
//! come, `state` prints how they are as one JSON object. It ends when the input does.

use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, CertificateAuthority};
use backburn::store::{EnrolledAgent as Known, SqliteStore, Store};
use backburn_experiments::join::LINK_PROTOCOL;
use backburn_experiments::wire::{
    Cause, ChangeView, Command, Effect, EndedInjection, Hello, InjectionRequest, PlanView,
    ProbeOutcome, Refusal, Report, Victim,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::BufRead as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version::TLS13};

/// How many shake hands at a time.
const DIALLING: usize = 64;
/// An agent that lost its link comes again within so many milliseconds, each after a time of its own.
const AGAIN_WITHIN: u64 = 1500;
/// How often an effect is told.
const EFFECTS: Duration = Duration::from_secs(1);
/// How many addresses of the loopback they come from: each has some 28,000 ports.
const ADDRESSES: u8 = 4;
/// How many write agents down at a time: the store has one sync for all who wait.
const WRITERS: usize = 32;

type Whatever = Box<dyn Error + Send + Sync>;

/// What all agents share.
#[derive(Default)]
struct Swarm {
    connected: AtomicUsize,
    /// Links there have been.
    links: AtomicUsize,
    /// Faults that act now.
    faults: AtomicUsize,
    /// Commands that were heard, beats among them.
    commands: AtomicUsize,
    /// What went wrong last.
    trouble: Mutex<String>,
}

struct Agent {
    name: String,
    number: usize,
    config: Arc<ClientConfig>,
    swarm: Arc<Swarm>,
}

/// An agent's faults, by the injection's name: when each is over, where that is known.
struct Engine {
    acting: BTreeMap<String, Option<Instant>>,
    swarm: Arc<Swarm>,
}

fn main() -> Result<(), Whatever> {
    let mut words = std::env::args().skip(1);
    let (Some(data), Some(count)) = (words.next(), words.next()) else {
        return Err("usage: swarm DATA COUNT".into());
    };
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)?;
    let swarm = Arc::new(Swarm::default());
    let mut agents = enrol(Path::new(&data), count.parse()?, &swarm)?;
    println!("enrolled");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("connect", address)) => {
                let address: SocketAddr = address.parse()?;
                let dialling = Arc::new(Semaphore::new(DIALLING));
                for agent in agents.drain(..) {
                    runtime.spawn(agent.live(address, Arc::clone(&dialling)));
                }
            }
            _ if line == "state" => println!("{}", swarm.state()),
            _ => return Err(format!("`{line}` is nothing to be told").into()),
        }
    }
    runtime.shutdown_background();
    Ok(())
}

/// Makes so many agents known to the controller of this data folder.
fn enrol(data: &Path, count: usize, swarm: &Arc<Swarm>) -> Result<Vec<Agent>, Whatever> {
    let authority = CertificateAuthority::open(&data.join("authority"))?;
    let store = SqliteStore::open(&data.join("store"))?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        authority.certificate().as_bytes(),
    )?)?;
    let roots = Arc::new(roots);
    let provider = Arc::new(ring::default_provider());
    let one = |number: usize| -> Result<Agent, Whatever> {
        let name = format!("swarm-{number:05}");
        let signed = authority.sign(&request, &name, AGENT_CERTIFICATE_LIFETIME)?;
        store.put_agent(&Known {
            name: name.clone(),
            serials: vec![signed.serial],
            labels: [("role".to_owned(), "swarm".to_owned())].into(),
            labels_by: Some("admin".to_owned()),
            enrolled: jiff::Timestamp::now(),
            revoked: None,
            heard: None,
        })?;
        let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![LINK_PROTOCOL.into()];
        config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        Ok(Agent {
            name,
            number,
            config: Arc::new(config),
            swarm: Arc::clone(swarm),
        })
    };
    let each = count.div_ceil(WRITERS).max(1);
    std::thread::scope(|threads| {
        let one = &one;
        let writing: Vec<_> = (0..count)
            .step_by(each)
            .map(|from| {
                let these = from..(from + each).min(count);
                threads.spawn(move || these.map(one).collect::<Result<Vec<_>, _>>())
            })
            .collect();
        let mut agents = Vec::with_capacity(count);
        for thread in writing {
            agents.extend(thread.join().map_err(|_| "a thread died")??);
        }
        Ok(agents)
    })
}

impl Swarm {
    fn state(&self) -> serde_json::Value {
        let now = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        json!({
            "connected": now(&self.connected),
            "links": now(&self.links),
            "faults": now(&self.faults),
            "commands": now(&self.commands),
            "trouble": *self.trouble.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    fn note(&self, what: Result<(), Whatever>) {
        if let Err(error) = what {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        }
    }
}

impl Agent {
    /// Comes, serves, and comes again, until the program ends.
    async fn live(self, address: SocketAddr, dialling: Arc<Semaphore>) {
        let mut times = 0;
        loop {
            let stream = {
                let Ok(_turn) = dialling.acquire().await else {
                    return;
                };
                self.dial(address).await
            };
            match stream {
                Ok(stream) => {
                    let mut engine = Engine {
                        acting: BTreeMap::new(),
                        swarm: Arc::clone(&self.swarm),
                    };
                    self.swarm.connected.fetch_add(1, Ordering::Relaxed);
                    self.swarm.links.fetch_add(1, Ordering::Relaxed);
                    let served = self.serve(stream, &mut engine).await;
                    self.swarm.note(served);
                    // Who has no link any more has put everything back before it comes again.
                    drop(engine.revert_all(Cause::ConnectionClosed));
                    self.swarm.connected.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error) => self.swarm.note(Err(error)),
            }
            times += 1;
            let wait = jitter(self.number as u64, times) % AGAIN_WITHIN;
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, Whatever> {
        let socket = TcpSocket::new_v4()?;
        let from = Ipv4Addr::new(127, 0, 0, 1 + (self.number % usize::from(ADDRESSES)) as u8);
        socket.bind((from, 0).into())?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let name = ServerName::try_from("localhost")?;
        Ok(connector.connect(name, stream).await?)
    }

    fn hello(&self) -> Hello {
        let labels = [
            ("arch", "x86_64".to_owned()),
            ("cloud", "aws".to_owned()),
            ("host", self.name.clone()),
            ("instance-type", "m7i.xlarge".to_owned()),
            ("kernel", "6.8.0-1021-aws".to_owned()),
            ("os", "ubuntu".to_owned()),
            ("os-version", "24.04".to_owned()),
            (
                "zone",
                format!("eu-central-1{}", ["a", "b", "c"][self.number % 3]),
            ),
        ];
        Hello {
            agent: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
            faults: FAULTS.iter().map(|name| (*name).to_owned()).collect(),
            answers_heartbeats: true,
            ..Hello::default()
        }
    }

    /// Until the link closes.
    async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        engine: &mut Engine,
    ) -> Result<(), Whatever> {
        let mut stream = BufReader::with_capacity(1024, stream);
        say(&mut stream, &[Report::Hello(self.hello())]).await?;
        let mut line = Vec::new();
        let mut effects = tokio::time::interval(EFFECTS);
        effects.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let lease = tokio::time::sleep(Duration::from_secs(30));
        tokio::pin!(lease);
        loop {
            let next = engine.next_end();
            let over = tokio::time::sleep_until(next.unwrap_or_else(Instant::now));
            let said = tokio::select! {
                biased;
                // What was read of a line before somebody else was first stays in it.
                read = stream.read_until(b'\n', &mut line) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    let command: Command = serde_json::from_slice(&line)?;
                    line.clear();
                    self.swarm.commands.fetch_add(1, Ordering::Relaxed);
                    match command {
                        Command::Heartbeat {
                            lease: length,
                            answer,
                        } => {
                            lease.as_mut().reset(Instant::now() + length.0);
                            answer.then_some(Report::HeartbeatAnswer).into_iter().collect()
                        }
                        Command::Shutdown => return Ok(()),
                        other => engine.obey(other),
                    }
                }
                () = over, if next.is_some() => engine.end_those_over(),
                () = lease.as_mut(), if !engine.acting.is_empty() => engine.revert_all(Cause::LeaseExpired),
                _ = effects.tick(), if !engine.acting.is_empty() => engine.effects(),
            };
            if !said.is_empty() {
                say(&mut stream, &said).await?;
            }
        }
    }
}

/// The faults that a real agent had when this was written: a controller keeps what it is told of them.
const FAULTS: [&str; 17] = [
    "cpu-stress",
    "disk-fill",
    "dns-fail",
    "dns-slow",
    "dns-spoof",
    "memory-fill",
    "network-bandwidth",
    "network-corrupt",
    "network-duplicate",
    "network-latency",
    "network-loss",
    "network-partition",
    "network-reject",
    "network-reorder",
    "process-kill",
    "process-pause",
    "tcp-proxy",
];

async fn say(
    stream: &mut BufReader<TlsStream<TcpStream>>,
    reports: &[Report],
) -> Result<(), Whatever> {
    let mut lines = Vec::new();
    for report in reports {
        serde_json::to_writer(&mut lines, report)?;
        lines.push(b'\n');
    }
    stream.write_all(&lines).await?;
    Ok(stream.flush().await?)
}

impl Engine {
    fn obey(&mut self, command: Command) -> Vec<Report> {
        let unable = || "a simulated agent has no host".to_owned();
        match command {
            Command::Plan { request, injection } => vec![Report::Planned {
                request,
                plan: plan(&injection),
            }],
            Command::Inject { request, injection } => self.inject(request, injection),
            Command::Revert { injection } => self
                .end(&injection, Cause::ControllerRequest)
                .into_iter()
                .collect(),
            Command::RevertAll { request, .. } => {
                let mut said = self.revert_all(Cause::ControllerRequest);
                said.push(Report::AllReverted {
                    request,
                    owed: Vec::new(),
                    held: Vec::new(),
                });
                said
            }
            Command::Measure { request, .. } => vec![Report::Measured {
                request,
                value: Err(unable()),
            }],
            Command::Probe { request, .. } => vec![Report::Probed {
                request,
                outcome: ProbeOutcome::Broken(unable()),
            }],
            Command::Examine { request } | Command::Services { request } => vec![Report::Probed {
                request,
                outcome: ProbeOutcome::Output(json!([])),
            }],
            Command::Describe { request } => vec![Report::Described {
                request,
                faults: Vec::new(),
            }],
            Command::Heartbeat { .. }
            | Command::Watch { .. }
            | Command::Welcome { .. }
            | Command::Refused { .. }
            | Command::Shutdown => Vec::new(),
        }
    }

    fn inject(&mut self, request: u64, injection: InjectionRequest) -> Vec<Report> {
        let plan = plan(&injection);
        let InjectionRequest { id, duration, .. } = injection;
        if self.acting.contains_key(&id) {
            let refusal = Refusal::new("overlap", "it acts already");
            return vec![Report::Refused { request, refusal }];
        }
        let over = duration.and_then(|duration| Instant::now().checked_add(duration.0));
        self.acting.insert(id.clone(), over);
        self.swarm.faults.fetch_add(1, Ordering::Relaxed);
        let injected = Report::Injected {
            request,
            injection: id.clone(),
            plan,
        };
        vec![injected, effect(&id)]
    }

    fn effects(&self) -> Vec<Report> {
        self.acting.keys().map(|id| effect(id)).collect()
    }

    fn next_end(&self) -> Option<Instant> {
        self.acting.values().flatten().min().copied()
    }

    fn end_those_over(&mut self) -> Vec<Report> {
        let now = Instant::now();
        let over = self.acting.iter();
        let over = over.filter(|(_, end)| end.is_some_and(|end| end <= now));
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        let ended = over.iter().filter_map(|id| self.end(id, Cause::Finished));
        ended.collect()
    }

    fn revert_all(&mut self, cause: Cause) -> Vec<Report> {
        let all: Vec<String> = self.acting.keys().cloned().collect();
        all.iter().filter_map(|id| self.end(id, cause)).collect()
    }

    fn end(&mut self, id: &str, cause: Cause) -> Option<Report> {
        self.acting.remove(id)?;
        self.swarm.faults.fetch_sub(1, Ordering::Relaxed);
        Some(Report::Ended(EndedInjection {
            injection: id.to_owned(),
            cause,
            clean: true,
            residue: Vec::new(),
            took: Duration::from_micros(850).into(),
            effect: Some(seen()),
        }))
    }
}

fn effect(id: &str) -> Report {
    Report::Effect {
        injection: id.to_owned(),
        effect: seen(),
    }
}

fn seen() -> Effect {
    Effect {
        acts: true,
        seen: "4 of 4 threads busy".into(),
        figures: [("cpu-seconds".to_owned(), 3.97)].into(),
        unmet: None,
    }
}

/// As long as a real one.
fn plan(injection: &InjectionRequest) -> PlanView {
    PlanView {
        victims: vec![Victim {
            kind: "processors".into(),
            id: "all".into(),
            name: "4 threads at 100 % on 4 of 4 processors".into(),
        }],
        changes: vec![ChangeView {
            kind: "helper".into(),
            apply: format!("nothing, where `{}` would start a process", injection.fault),
            undo: "nothing".into(),
            if_agent_dies: "nothing is left".into(),
        }],
        notes: Vec::new(),
        warnings: Vec::new(),
    }
}

/// A number that differs from agent to agent and from time to time (SplitMix64).
fn jitter(number: u64, times: u64) -> u64 {
    let mut mixed = (number << 20 | times).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
