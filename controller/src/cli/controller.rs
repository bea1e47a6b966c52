//! `backburn controller`: the daemon, and the export and import of its data.

use super::{CommandFailure, print, print_stderr};
use backburn::fleet::Fleet;
use backburn::pki::agent_registry::AgentRegistry;
use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, CertificateAuthority};
use backburn::pki::tokens::{FIRST_TOKEN_FILE, break_glass, create_first_token};
use backburn::server::Server;
use backburn::service::{FleetPolicy, Service, ServiceConfig};
use backburn::store::{SqliteStore, Store, StoreError, missing_secrets};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::Outcome;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How many experiments are read at a time.
const EXPERIMENTS_PER_PAGE: u32 = 100;

/// The default directory of the controller's data.
const DEFAULT_DATA_DIR: &str = "/var/lib/backburn/controller";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ControllerCommand {
    #[command(subcommand)]
    action: Option<ControllerAction>,
    #[command(flatten)]
    daemon: DaemonOptions,
}

/// What is done on the controller's host besides running it.
#[derive(Debug, Subcommand)]
enum ControllerAction {
    /// Make an admin's token without having one, e.g. because the last was lost; the controller may be running
    AdminToken {
        /// How long the token is valid
        #[arg(long, value_name = "DURATION", default_value = "1d")]
        lasts: HumanDuration,
        #[command(flatten)]
        data: DataOptions,
    },
}

#[derive(Debug, Args)]
struct DaemonOptions {
    /// Address to listen on for agents, people and jobs
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "BACKBURN_LISTEN",
        default_value = "0.0.0.0:7420"
    )]
    listen: String,
    /// Host name or address under which clients reach the controller; may be repeated [default: the host's name, localhost, 127.0.0.1]
    #[arg(
        long = "name",
        value_name = "HOST",
        env = "BACKBURN_NAMES",
        value_delimiter = ','
    )]
    names: Vec<String>,
    /// Policy file: which runs the controller allows
    #[arg(long, value_name = "FILE", env = "BACKBURN_CONTROLLER_POLICY")]
    policy: Option<PathBuf>,
    /// How long agents keep faults without contact to the controller
    #[arg(long, value_name = "DURATION", env = "BACKBURN_LEASE", default_value = "30s", value_parser = lease)]
    lease: HumanDuration,
    /// How long to keep finished runs and their journals, e.g. 90d [default: for ever]; the audit log is always kept
    #[arg(long, value_name = "DURATION", env = "BACKBURN_KEEP_RUNS_FOR", value_parser = keep)]
    keep_runs_for: Option<HumanDuration>,
    /// OpenTelemetry collector to send traces of runs to (OTLP over HTTP), e.g. http://127.0.0.1:4318
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    traces: Option<String>,
    #[command(flatten)]
    data: DataOptions,
}

/// The directory of the controller's data.
#[derive(Debug, Args)]
pub(super) struct DataOptions {
    /// Directory of the controller's store and keys
    #[arg(long, value_name = "DIR", env = "BACKBURN_DATA", default_value = DEFAULT_DATA_DIR)]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ExportCommand {
    /// File to write; `-` is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Export the secrets that stored experiments write out as well; without them, such experiments must be applied again after an import
    #[arg(long)]
    with_secrets: bool,
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Debug, Args)]
pub(super) struct ImportCommand {
    /// File that `backburn export` wrote; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    data: DataOptions,
}

fn lease(text: &str) -> Result<HumanDuration, String> {
    let span: HumanDuration = text.parse()?;
    match (HumanDuration::seconds(3)..=HumanDuration::seconds(600)).contains(&span) {
        true => Ok(span),
        false => Err("a lease must be from 3 seconds to 10 minutes".into()),
    }
}

fn keep(text: &str) -> Result<HumanDuration, String> {
    let span: HumanDuration = text.parse()?;
    match span >= HumanDuration::seconds(3600) {
        true => Ok(span),
        false => Err("runs must be kept for at least an hour".into()),
    }
}

impl DataOptions {
    fn store(&self) -> Result<Arc<dyn Store>, CommandFailure> {
        create_directory(&self.data)?;
        match SqliteStore::open(&self.data.join("store")) {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Creates a private directory if it does not exist.
fn create_directory(folder: &Path) -> Result<(), CommandFailure> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| {
            let what = format!("{}: {error}", folder.display());
            CommandFailure::invalid(format!(
                "{what}\nhint: give a writable directory with `--data`"
            ))
        })
}

fn failed(error: &dyn std::error::Error) -> CommandFailure {
    let mut what = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        tracing::debug!(%inner, "because");
        source = inner.source();
    }
    if !what.contains("hint:") {
        what.push_str("\nhint: `BACKBURN_LOG=debug` logs the details");
    }
    CommandFailure::invalid(what)
}

pub(super) fn main(command: &ControllerCommand) -> Result<u8, CommandFailure> {
    match &command.action {
        None => run(&command.daemon),
        Some(ControllerAction::AdminToken { lasts, data }) => admin_token(data, *lasts),
    }
}

/// Runs `backburn controller admin-token`.
fn admin_token(data: &DataOptions, lasts: HumanDuration) -> Result<u8, CommandFailure> {
    let store = SqliteStore::open_shared(&data.data.join("store")).map_err(|error| {
        let hint = error.hint.as_deref().map(|hint| format!("\nhint: {hint}"));
        CommandFailure::invalid(format!("{error}{}", hint.unwrap_or_default()))
    })?;
    let authority = CertificateAuthority::open(&data.data.join("authority"));
    let authority = authority.map_err(|error| failed(&error))?;
    let invalid = |error: jiff::Error| CommandFailure::invalid(format!("--lasts: {error}"));
    let span = SignedDuration::try_from(lasts.0).map_err(invalid)?;
    let expires = Timestamp::now().checked_add(span).map_err(invalid)?;
    let token = break_glass(&store, &authority, expires).map_err(|error| failed(&error))?;
    print(&format!("{token}\n"));
    print_stderr(&format!(
        "token {} has role `admin` until {}; `backburn tokens make NAME --role admin` makes one that lasts\n",
        token.id,
        expires.strftime("%F %T UTC")
    ));
    Ok(0)
}

/// Runs the daemon until it is told to end.
fn run(command: &DaemonOptions) -> Result<u8, CommandFailure> {
    backburn_agent::log_to_stderr(tracing::Level::INFO);
    raise_limit();
    let store = command.data.store()?;
    let authority = CertificateAuthority::open(&command.data.data.join("authority"));
    let authority = Arc::new(authority.map_err(|error| failed(&error))?);
    let policy = match &command.policy {
        Some(path) => FleetPolicy::load(path).map_err(|error| failed(&error))?,
        None => FleetPolicy::default(),
    };
    let made = create_first_token(store.as_ref(), &authority, &command.data.data)
        .map_err(|error| failed(&error))?;
    let registry = AgentRegistry::load(Arc::clone(&store)).map_err(|error| failed(&error))?;
    let service = Service::new(ServiceConfig {
        store,
        fleet: Arc::new(Fleet::new(command.lease)),
        policy,
        check: Box::new(super::experiment_source::check_with),
        catalogue: backburn_agent::faults::FAULTS
            .iter()
            .map(backburn_agent::faults::Fault::describe)
            .collect(),
        collector: command.traces.clone(),
    })
    .map_err(|error| failed(&error))?;
    let names = match command.names.is_empty() {
        false => command.names.clone(),
        true => default_names(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandFailure::invalid(format!("could not start the asynchronous runtime: {error}"))
        })?;
    let left = runtime.block_on(async {
        let listener = TcpListener::bind(&command.listen).await.map_err(|error| {
            CommandFailure::invalid(format!(
                "cannot listen on {}: {error}\nhint: give another address with `--listen`",
                command.listen
            ))
        })?;
        let address = listener
            .local_addr()
            .map_err(|error| CommandFailure::invalid(error.to_string()))?;
        print_stderr(&format!(
            "listening on {address}, as {}\n",
            names.join(", ")
        ));
        if made {
            let path = command.data.data.join(FIRST_TOKEN_FILE);
            print_stderr(&format!("the first token is in {}\n", path.display()));
        }
        if service.halted().is_some() {
            print_stderr("a halt is in force: no run starts until `backburn resume`\n");
        }
        if let Some(keep) = command.keep_runs_for {
            tokio::spawn(Arc::clone(&service).keep_runs_for(keep));
        }
        let daemon = Server {
            listener,
            names,
            authority,
            service,
            registry,
            lifetime: AGENT_CERTIFICATE_LIFETIME,
            trim_memory: backburn_agent::host::return_freed,
        };
        let ending = ending()
            .map_err(|error| CommandFailure::invalid(format!("cannot receive signals: {error}")))?;
        daemon
            .run(ending)
            .await
            .map_err(|error| failed(error.as_ref()))
    })?;
    runtime.shutdown_background();
    if left.is_empty() {
        return Ok(0);
    }
    print_stderr(&format!(
        "error: these runs were not over at shutdown: {}\nhint: their agents revert everything on their own, and the next start closes the runs\n",
        left.join(", ")
    ));
    Ok(Outcome::NotClean.exit_code())
}

/// Raises the limit of open files to its maximum: each connected agent takes one.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limit = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(limit).and_then(|(_, most)| setrlimit(limit, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

/// Completes at the first SIGTERM or SIGINT.
fn ending() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        print_stderr("shutting down: runs are ended, and their faults are reverted first\n");
    })
}

/// The names under which the controller is reached by default.
fn default_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if let Ok(host) = nix::unistd::gethostname()
        && let Ok(host) = host.into_string()
        && !host.is_empty()
    {
        names.insert(0, host);
    }
    names
}

/// Runs `backburn export`.
pub(super) fn export(command: &ExportCommand) -> Result<u8, CommandFailure> {
    let store = command.data.store()?;
    let write = |out: &mut dyn Write| match command.with_secrets {
        true => store.export_with_secrets(out),
        false => store.export(out),
    };
    let unwritten = |error: std::io::Error| {
        CommandFailure::invalid(format!("{}: {error}", command.file.display()))
    };
    if command.file == Path::new("-") {
        let mut out = std::io::stdout().lock();
        write(&mut out).map_err(|error| failed(&error))?;
        out.flush().map_err(unwritten)?;
    } else {
        // The export holds hashes of tokens and the output of probes.
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&command.file).map_err(unwritten)?;
        let mut out = std::io::BufWriter::new(file);
        write(&mut out).map_err(|error| failed(&error))?;
        out.flush().map_err(unwritten)?;
    }
    Ok(0)
}

/// Runs `backburn import`.
pub(super) fn import(command: &ImportCommand) -> Result<u8, CommandFailure> {
    let store = command.data.store()?;
    let count = if command.file == Path::new("-") {
        store.import(&mut std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(&command.file).map_err(|error| {
            CommandFailure::invalid(format!("{}: {error}", command.file.display()))
        })?;
        store.import(&mut std::io::BufReader::new(file))
    };
    let count = count.map_err(|error| failed(&error))?;
    print_stderr(&format!("{count} records imported\n"));
    print_missing_secrets(store.as_ref()).map_err(|error| failed(&error))?;
    Ok(0)
}

/// Says which experiments have secrets that the store does not have.
fn print_missing_secrets(store: &dyn Store) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let page = store.experiments(after.as_deref(), EXPERIMENTS_PER_PAGE)?;
        for experiment in &page {
            let name = &experiment.name;
            let missing = missing_secrets(&store.experiment_with_secrets(name, None)?.document);
            if !missing.is_empty() {
                let places: Vec<&str> = missing.iter().map(|secret| secret.at.as_str()).collect();
                print_stderr(&format!(
                    "warning: experiment `{name}`: secrets are missing: {}; its runs are refused until it is applied again\n",
                    places.join(", ")
                ));
            }
        }
        match page.last() {
            Some(last) => after = Some(last.name.clone()),
            None => return Ok(()),
        }
    }
}
