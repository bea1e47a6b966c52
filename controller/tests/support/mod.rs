//! A run with everything real but the agent: that is a task which speaks the wire's messages.
//! Its fault removes a file, and the hypothesis is that the file is there.
#![allow(dead_code)]

pub mod api;
pub mod identity_provider;

use backburn::agent_connection::{AgentConnection, AgentStarter};
use backburn::runner::{self, FinishedRun, JournalFile, RunSettings};
use backburn_experiments::HumanDuration;
use backburn_experiments::check::{self, Experiment, KnownFault, Sources};
use backburn_experiments::journal::{Event, JournalEntry};
use backburn_experiments::protocol::PROTOCOL;
use backburn_experiments::wire::{
    Cause, Command, Effect, EndedInjection, Hello, PlanView, ProbeOutcome, Refusal, Report,
    UnrevertedInjection, Victim,
};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// What the fake agent does when it is asked to inject.
#[derive(Clone, Default)]
pub struct Manners {
    /// Refuses each plan.
    pub refuse_plan: Option<Refusal>,
    /// Refuses each injection.
    pub refuse_inject: Option<Refusal>,
    /// Closes the link instead of answering an injection.
    pub vanish: bool,
    /// Says, when started again, that it has put everything back.
    pub recovers: bool,
    /// Reports its revert as not clean.
    pub unclean: bool,
    /// Puts the file back this long after it has said so: a service that needs time to recover.
    pub slow_recovery: Option<Duration>,
    /// Says that the fault has no effect.
    pub no_effect: bool,
    /// Called on an injection.
    pub on_inject: Option<Arc<dyn Fn() + Send + Sync>>,
    /// The victims that it names whenever it plans or injects.
    pub victims: Option<Arc<dyn Fn() -> Vec<Victim> + Send + Sync>>,
    /// Labels that it says of itself.
    pub labels: Vec<(String, String)>,
    /// What it says that it owes.
    pub owed: Vec<UnrevertedInjection>,
    /// What comes of each probe; whether the file is there, where nothing is said.
    pub probed: Option<ProbeOutcome>,
    /// What it says of the services of its host.
    pub services: Value,
    /// The boot of its host that it tells.
    pub boot: Option<String>,
    /// Closes the link once it has injected, as where its host goes down.
    pub goes_down: bool,
}

/// A run's world.
pub struct World {
    pub folder: tempfile::TempDir,
    pub manners: Manners,
    /// What the agent was told, and when; beats left out.
    pub told: Arc<Mutex<Vec<(Instant, Command)>>>,
    /// How often an agent was started.
    pub starts: Arc<Mutex<usize>>,
    pub stop: mpsc::UnboundedSender<String>,
    stopped: Option<mpsc::UnboundedReceiver<String>>,
    pub frequency: HumanDuration,
    /// The journal's file, where it is not the usual one.
    pub journal: Option<PathBuf>,
}

impl World {
    pub fn new(manners: Manners) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("healthy"), "").unwrap();
        let (stop, stopped) = mpsc::unbounded_channel();
        World {
            folder,
            manners,
            told: Arc::default(),
            starts: Arc::default(),
            stop,
            stopped: Some(stopped),
            frequency: HumanDuration::millis(20),
            journal: None,
        }
    }

    pub fn healthy(&self) -> PathBuf {
        self.folder.path().join("healthy")
    }

    /// A probe that the file is there.
    pub fn probe(&self, name: &str) -> Value {
        json!({"type": "probe", "name": name, "tolerance": 0,
               "provider": {"type": "process", "path": "test", "arguments": ["-e", self.healthy()]}})
    }

    /// An experiment with this hypothesis and one pause of this length; `more` goes over it.
    pub fn experiment(&self, duration: &str, more: Value) -> Value {
        let mut document = json!({
            "title": "the file is there", "description": "a test",
            "steady-state-hypothesis": {"title": "it is there", "probes": [self.probe("file")]},
            "method": [fault("pause", duration)],
        });
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        document
    }

    pub async fn run(&mut self, document: Value) -> Done {
        self.run_loaded(load(&document)).await
    }

    pub async fn run_loaded(&mut self, experiment: Experiment) -> Done {
        let path = self
            .journal
            .clone()
            .unwrap_or_else(|| self.folder.path().join("journal.jsonl"));
        let seen: Arc<Mutex<Vec<JournalEntry>>> = Arc::default();
        let watching = Arc::clone(&seen);
        let settings = RunSettings {
            access: backburn::providers::HostAccess {
                environment: backburn::providers::EnvironmentAccess::User,
                ..Default::default()
            },
            run: "test".into(),
            seed: 7,
            frequency: self.frequency,
            sha256: None,
            approval: None,
            agent_pool: self.start().into(),
            journal: Box::new(JournalFile::open(path.clone()).unwrap()),
            observers: vec![Box::new(move |entry| {
                watching.lock().unwrap().push(entry.clone())
            })],
            stop: self.stopped.take().unwrap(),
        };
        // Whatever a test gets wrong, it ends.
        let finished =
            tokio::time::timeout(Duration::from_secs(30), runner::run(experiment, settings))
                .await
                .unwrap();
        let entries = std::mem::take(&mut *seen.lock().unwrap());
        let journal = if path.is_file() {
            std::fs::read_to_string(&path).unwrap()
        } else {
            String::new()
        };
        Done {
            finished,
            entries,
            journal,
        }
    }

    fn start(&self) -> AgentStarter {
        let (manners, told, starts) = (
            self.manners.clone(),
            Arc::clone(&self.told),
            Arc::clone(&self.starts),
        );
        let healthy = self.healthy();
        Box::new(move || {
            let (ours, theirs) = UnixStream::pair()?;
            let start = {
                let mut starts = starts.lock().unwrap();
                *starts += 1;
                *starts
            };
            tokio::spawn(agent(
                theirs,
                "fake".into(),
                manners.clone(),
                Arc::clone(&told),
                healthy.clone(),
                start,
            ));
            Ok(AgentConnection::over(ours, None, HumanDuration::seconds(5)))
        })
    }

    /// Whether the agent was told to inject.
    pub fn was_injected(&self) -> bool {
        self.told
            .lock()
            .unwrap()
            .iter()
            .any(|(_, command)| matches!(command, Command::Inject { .. }))
    }
}

/// A run that is over.
pub struct Done {
    pub finished: FinishedRun,
    pub entries: Vec<JournalEntry>,
    pub journal: String,
}

impl Done {
    pub fn outcome(&self) -> u8 {
        self.finished.verdict.exit_code
    }

    pub fn reasons(&self) -> String {
        self.finished.verdict.reasons.join("\n")
    }

    /// The kinds of the events, in their order.
    pub fn kinds(&self) -> Vec<String> {
        let kind = |entry: &JournalEntry| {
            serde_json::to_value(&entry.event).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        self.entries.iter().map(kind).collect()
    }

    pub fn has(&self, matches: impl Fn(&Event) -> bool) -> bool {
        self.entries.iter().any(|entry| matches(&entry.event))
    }
}

/// A fault action.
pub fn fault(name: &str, duration: &str) -> Value {
    json!({"type": "action", "name": name,
           "provider": {"type": "fault", "fault": "process-pause", "duration": duration}})
}

/// An action that makes a file.
pub fn touch(name: &str, file: &Path) -> Value {
    json!({"type": "action", "name": name, "provider": {"type": "process", "path": "touch", "arguments": [file]}})
}

/// The faults that experiments of these tests may have.
pub fn known_faults() -> [KnownFault<'static>; 3] {
    let known = |name, one_shot| KnownFault {
        name,
        one_shot,
        check: Box::new(|_| Vec::new()),
    };
    [
        known("process-pause", false),
        known("host-reboot", true),
        known("host-shutdown", true),
    ]
}

pub fn load(document: &Value) -> Experiment {
    let none = Map::new();
    let sources = Sources {
        environment: &|name| std::env::var(name).ok(),
        file: &|path| std::fs::read_to_string(path).map_err(|error| error.to_string()),
        variables: &none,
        secrets: &none,
    };
    check::load(&document.to_string(), &sources, &known_faults())
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// An agent of this name, until its link closes.
pub async fn agent(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    name: String,
    manners: Manners,
    told: Arc<Mutex<Vec<(Instant, Command)>>>,
    healthy: PathBuf,
    start: usize,
) {
    let (read, mut write) = tokio::io::split(stream);
    let (say, mut to_say) = mpsc::unbounded_channel::<Report>();
    tokio::spawn(async move {
        while let Some(report) = to_say.recv().await {
            let line = serde_json::to_string(&report).unwrap() + "\n";
            if write.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let recovered = match start > 1 && manners.recovers {
        true => vec![ended("test-1", Cause::AgentDied, true)],
        false => Vec::new(),
    };
    let labels = manners.labels.iter().cloned().collect();
    say.send(Report::Hello(Hello {
        agent: name,
        labels,
        recovered,
        owed: manners.owed.clone(),
        protocol: (!manners.services.is_null()).then_some(PROTOCOL),
        boot: manners.boot.clone(),
        ..Hello::default()
    }))
    .unwrap();
    let open: Arc<Mutex<Vec<String>>> = Arc::default();
    let victims = manners.victims.clone();
    let plan = move || PlanView {
        victims: victims
            .as_ref()
            .map(|victims| victims())
            .unwrap_or_default(),
        notes: vec!["nothing but a file".into()],
        ..PlanView::default()
    };
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Command = serde_json::from_str(&line).unwrap();
        if !matches!(command, Command::Heartbeat { .. }) {
            told.lock().unwrap().push((Instant::now(), command.clone()));
        }
        match command {
            Command::Heartbeat { .. }
            | Command::Watch { .. }
            | Command::Welcome { .. }
            | Command::Refused { .. }
            | Command::Examine { .. }
            | Command::Describe { .. } => {}
            Command::Services { request } => {
                let outcome = ProbeOutcome::Output(manners.services.clone());
                say.send(Report::Probed { request, outcome }).ok();
            }
            Command::Probe { request, .. } => {
                let is_there = ProbeOutcome::Output(healthy.exists().into());
                let outcome = manners.probed.clone().unwrap_or(is_there);
                say.send(Report::Probed { request, outcome }).ok();
            }
            Command::Plan { request, .. } => drop(match &manners.refuse_plan {
                Some(refusal) => say.send(Report::Refused {
                    request,
                    refusal: refusal.clone(),
                }),
                None => say.send(Report::Planned {
                    request,
                    plan: plan(),
                }),
            }),
            Command::Inject { request, injection } => {
                if let Some(act) = &manners.on_inject {
                    act();
                }
                if manners.vanish {
                    return;
                }
                if let Some(refusal) = &manners.refuse_inject {
                    say.send(Report::Refused {
                        request,
                        refusal: refusal.clone(),
                    })
                    .ok();
                    continue;
                }
                std::fs::remove_file(&healthy).ok();
                let id = injection.id.clone();
                open.lock().unwrap().push(id.clone());
                say.send(Report::Injected {
                    request,
                    injection: id.clone(),
                    plan: plan(),
                })
                .ok();
                if manners.goes_down {
                    return;
                }
                let effect = Effect {
                    acts: !manners.no_effect,
                    seen: "the file".into(),
                    ..Effect::default()
                };
                say.send(Report::Effect {
                    injection: id.clone(),
                    effect,
                })
                .ok();
                let (open, say, healthy, manners) = (
                    Arc::clone(&open),
                    say.clone(),
                    healthy.clone(),
                    manners.clone(),
                );
                tokio::spawn(async move {
                    tokio::time::sleep(injection.duration.unwrap().0).await;
                    let was_open = {
                        let mut open = open.lock().unwrap();
                        let before = open.len();
                        open.retain(|other| *other != id);
                        open.len() < before
                    };
                    if was_open {
                        heal(&healthy, manners.slow_recovery);
                        say.send(Report::Ended(ended(&id, Cause::Finished, !manners.unclean)))
                            .ok();
                    }
                });
            }
            Command::Revert { .. } => {}
            Command::RevertAll { request, .. } => {
                for id in std::mem::take(&mut *open.lock().unwrap()) {
                    heal(&healthy, manners.slow_recovery);
                    say.send(Report::Ended(ended(
                        &id,
                        Cause::ControllerRequest,
                        !manners.unclean,
                    )))
                    .ok();
                }
                say.send(Report::AllReverted {
                    held: Vec::new(),
                    request,
                    owed: Vec::new(),
                })
                .ok();
            }
            Command::Measure { request, .. } => drop(say.send(Report::Measured {
                request,
                value: Ok(42.0),
            })),
            Command::Shutdown => return,
        }
    }
}

fn heal(healthy: &Path, after: Option<Duration>) {
    let healthy = healthy.to_owned();
    match after {
        None => std::fs::write(healthy, "").unwrap(),
        Some(after) => drop(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // The test may be over, and its folder gone.
            std::fs::write(healthy, "").ok();
        })),
    }
}

fn ended(id: &str, cause: Cause, clean: bool) -> EndedInjection {
    let residue = if clean {
        Vec::new()
    } else {
        vec!["the file is still gone".to_owned()]
    };
    EndedInjection {
        injection: id.into(),
        cause,
        clean,
        residue,
        took: HumanDuration::millis(1),
        effect: None,
    }
}
