//! `backburn controller`: the daemon.

use super::backup::{self, RestoreOptions};
use super::data_directory::{DataOptions, failed, file_and_hash};
use super::rotate_authority::{RotateAuthorityOptions, rotate_authority};
use super::{CommandFailure, print, print_stderr};
use backburn::fleet::Fleet;
use backburn::oidc::{IdentityProvider, OidcConfig};
use backburn::pki::agent_registry::AgentRegistry;
use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, CertificateAuthority};
use backburn::pki::owner_certificate::OwnerCertificate;
use backburn::pki::tokens::{FIRST_TOKEN_FILE, break_glass, create_first_token};
use backburn::server::Server;
use backburn::service::{FleetPolicy, LogLevel, LoginDesk, Service, ServiceConfig};
use backburn::store::SqliteStore;
use backburn_agent::{LogFormat, LogLevelSwitch};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::Outcome;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

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
    /// Make the controller's data of a backup (stop the controller first); what was revoked since stays revoked
    Restore(RestoreOptions),
    /// Replace the certificate authority while agents stay connected; then reload the controller with SIGHUP
    RotateAuthority(RotateAuthorityOptions),
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
    /// How long after its end an agent's certificate can still be renewed, for agents that were off: up to 90d; 0s is not at all
    #[arg(long, value_name = "DURATION", env = "BACKBURN_RENEWAL_GRACE", default_value = "7d", value_parser = renewal_grace)]
    renewal_grace: HumanDuration,
    /// How long to keep finished runs and their journals, e.g. 90d [default: for ever]; the audit log is always kept
    #[arg(long, value_name = "DURATION", env = "BACKBURN_KEEP_RUNS_FOR", value_parser = keep)]
    keep_runs_for: Option<HumanDuration>,
    /// How long a run waits for approval before it ends as not started
    #[arg(long, value_name = "DURATION", env = "BACKBURN_APPROVAL_EXPIRES", default_value = "24h", value_parser = approval_expires)]
    approval_expires: HumanDuration,
    /// File that sets up log-ins with an identity provider (OpenID Connect)
    #[arg(long, value_name = "FILE", env = "BACKBURN_OIDC")]
    oidc: Option<PathBuf>,
    /// Certificate that browsers and programs are shown, in PEM, followed by those between it and its authority; agents and the command line use the controller's own
    #[arg(
        long,
        value_name = "FILE",
        env = "BACKBURN_TLS_CERTIFICATE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,
    /// Private key of `--tls-certificate`, in PEM; only the controller's user may be able to read it
    #[arg(
        long,
        value_name = "FILE",
        env = "BACKBURN_TLS_KEY",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,
    /// OpenTelemetry collector to send traces of runs to (OTLP over HTTP), e.g. http://127.0.0.1:4318
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    traces: Option<String>,
    /// How the log is written: `text` for people, or `json`: one object on each line
    #[arg(
        long,
        value_name = "FORMAT",
        env = "BACKBURN_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
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

fn approval_expires(text: &str) -> Result<HumanDuration, String> {
    let span: HumanDuration = text.parse()?;
    match (HumanDuration::seconds(1)..=HumanDuration::seconds(365 * 86_400)).contains(&span) {
        true => Ok(span),
        false => Err("a run may wait for approval from 1 second to a year".into()),
    }
}

fn renewal_grace(text: &str) -> Result<HumanDuration, String> {
    let span: HumanDuration = text.parse()?;
    match span <= HumanDuration::seconds(90 * 24 * 60 * 60) {
        true => Ok(span),
        false => Err("an expired certificate can be renewed for at most 90 days".into()),
    }
}

fn keep(text: &str) -> Result<HumanDuration, String> {
    let span: HumanDuration = text.parse()?;
    match span >= HumanDuration::seconds(3600) {
        true => Ok(span),
        false => Err("runs must be kept for at least an hour".into()),
    }
}

/// Tells whoever started the controller something: as text, or as an entry of the log where that is for programs.
fn announce(format: LogFormat, text: &str) {
    match format {
        LogFormat::Text => print_stderr(&format!("{text}\n")),
        LogFormat::Json => tracing::info!("{text}"),
    }
}

/// Runs `backburn controller`.
pub(super) fn main(command: &ControllerCommand) -> Result<u8, CommandFailure> {
    match &command.action {
        None => run_daemon(&command.daemon),
        Some(ControllerAction::RotateAuthority(options)) => rotate_authority(options),
        Some(ControllerAction::Restore(options)) => backup::restore(options),
        Some(ControllerAction::AdminToken { lasts, data }) => admin_token(data, *lasts),
    }
}

/// Runs `backburn controller admin-token`.
fn admin_token(data: &DataOptions, lasts: HumanDuration) -> Result<u8, CommandFailure> {
    let store = SqliteStore::open_shared(&data.path().join("store")).map_err(|error| {
        let hint = error.hint.as_deref().map(|hint| format!("\nhint: {hint}"));
        CommandFailure::invalid(format!("{error}{}", hint.unwrap_or_default()))
    })?;
    let authority = CertificateAuthority::open(&data.path().join("authority"));
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
fn run_daemon(command: &DaemonOptions) -> Result<u8, CommandFailure> {
    let log = backburn_agent::log_to_stderr(tracing::Level::INFO, command.log_format);
    match (serve(command, log), command.log_format) {
        (Err(failure), LogFormat::Json) => {
            tracing::error!("{}", failure.message);
            Ok(failure.code)
        }
        (done, _) => done,
    }
}

fn serve(command: &DaemonOptions, log: LogLevelSwitch) -> Result<u8, CommandFailure> {
    let announce = |text: &str| announce(command.log_format, text);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandFailure::invalid(format!("could not start the asynchronous runtime: {error}"))
        })?;
    // Signals are received before anything else is done: SIGHUP never ends a controller.
    let entered = runtime.enter();
    let no_signals =
        |error: std::io::Error| CommandFailure::invalid(format!("cannot receive signals: {error}"));
    let ending = ending(command.log_format).map_err(no_signals)?;
    let reloaded = Arc::new(OnceLock::new());
    spawn_reloads(Arc::clone(&reloaded)).map_err(no_signals)?;
    drop(entered);
    raise_limit();
    let store = command.data.store()?;
    let authority = CertificateAuthority::open(&command.data.path().join("authority"));
    let authority = Arc::new(authority.map_err(|error| failed(&error))?);
    let catalogue: Vec<_> = (backburn_agent::faults::FAULTS.iter())
        .map(backburn_agent::faults::Fault::describe)
        .collect();
    let policy = match &command.policy {
        Some(path) => {
            let faults: Vec<&str> = catalogue.iter().map(|fault| fault.name.as_str()).collect();
            FleetPolicy::load(path, &faults).map_err(|error| failed(&error))?
        }
        None => FleetPolicy::default(),
    };
    let log = PolicyLog(Arc::new(log));
    log.set(&policy);
    let policy_file = command.policy.as_deref().map(file_and_hash);
    let made = create_first_token(store.as_ref(), &authority, command.data.path())
        .map_err(|error| failed(&error))?;
    let fleet = Arc::new(Fleet::new(command.lease));
    (fleet.plugins()).set_built_in(catalogue.iter().map(|fault| fault.name.clone()));
    let announced = Arc::clone(&fleet);
    let registry =
        AgentRegistry::load(Arc::clone(&store), &fleet).map_err(|error| failed(&error))?;
    let service = Service::new(ServiceConfig {
        store,
        fleet,
        policy,
        policy_file: command.policy.clone(),
        approval_expires: command.approval_expires,
        check: Box::new(move |text, sources| {
            let plugins = announced.plugins().list();
            super::experiment_source::check_with(text, sources, &plugins)
        }),
        catalogue,
        collector: command.traces.clone(),
    })
    .map_err(|error| failed(&error))?;
    if let Some(path) = &command.oidc {
        let config = OidcConfig::load(path).map_err(|error| failed(&error))?;
        let provider = IdentityProvider::new(config).map_err(CommandFailure::invalid)?;
        service.set_login_desk(LoginDesk::new(provider));
    }
    if let (Some(certificate), Some(key)) = (&command.tls_certificate, &command.tls_key) {
        let owner = OwnerCertificate::load(certificate, key).map_err(|error| failed(&error))?;
        service.set_owner_certificate(Arc::new(owner));
    }
    service
        .check_policy_tokens()
        .map_err(|error| failed(&error))?;
    let parts = Reloaded {
        service: Arc::clone(&service),
        authority: Arc::clone(&authority),
        log,
    };
    reloaded.set(parts).ok();
    let names = match command.names.is_empty() {
        false => command.names.clone(),
        true => default_names(),
    };
    let stopped = Arc::clone(&service);
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
        announce(&format!("listening on {address}, as {}", names.join(", ")));
        let owner = service.owner_certificate().map(|owner| owner.current());
        if let Some(owner) = &owner {
            announce(&format!(
                "browsers are shown the certificate for {}, which expires {}",
                backburn_experiments::terminal_text::escape(&owner.names.join(", ")),
                owner.expires.strftime("%F %T UTC")
            ));
        }
        if made {
            let path = command.data.path().join(FIRST_TOKEN_FILE);
            announce(&format!("the first token is in {}", path.display()));
        }
        announce_audit_head(
            command.log_format,
            &service,
            "start controller",
            json!({
                "version": env!("CARGO_PKG_VERSION"), "address": address, "policy": policy_file,
                "tls-certificate": owner.map(|owner| owner.fingerprint.clone()),
            }),
        );
        if service.halted().is_some() {
            announce("a halt is in force: no run starts until `backburn resume`");
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
            renewal_grace: command.renewal_grace.0,
            trim_memory: backburn_agent::host::return_freed,
        };
        daemon
            .run(ending)
            .await
            .map_err(|error| failed(error.as_ref()))
    })?;
    runtime.shutdown_background();
    announce_audit_head(
        command.log_format,
        &stopped,
        "stop controller",
        json!({"open-runs": left}),
    );
    if left.is_empty() {
        return Ok(0);
    }
    Err(CommandFailure {
        code: Outcome::NotClean.exit_code(),
        message: format!(
            "these runs were not over at shutdown: {}\nhint: their agents revert everything on their own, and the next start closes the runs",
            left.join(", ")
        ),
    })
}

/// Writes an entry of the controller to the audit log, and announces the log's new head, so that it is kept elsewhere too.
fn announce_audit_head(format: LogFormat, service: &Service, what: &str, detail: Value) {
    match service.audit_own(what, "controller", "done", detail) {
        Ok(head) => announce(format, &format!("head of the audit log: {head}")),
        Err(error) => {
            tracing::error!(what, %error, "what the controller did could not be written to the audit log");
        }
    }
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

/// What SIGHUP reloads.
#[derive(Clone)]
struct Reloaded {
    service: Arc<Service>,
    authority: Arc<CertificateAuthority>,
    log: PolicyLog,
}

/// The controller's log, whose level the policy can say.
#[derive(Clone)]
struct PolicyLog(Arc<LogLevelSwitch>);

impl PolicyLog {
    /// Writes the log from the level on that this policy says, or else from the one with which the program began.
    fn set(&self, policy: &FleetPolicy) {
        let next = match policy.log_level {
            None => self.0.initial(),
            Some(LogLevel::Error) => Level::ERROR,
            Some(LogLevel::Warn) => Level::WARN,
            Some(LogLevel::Info) => Level::INFO,
            Some(LogLevel::Debug) => Level::DEBUG,
            Some(LogLevel::Trace) => Level::TRACE,
        };
        let before = self.0.current();
        if before != next {
            // While the more talkative of the two is in force, so that this is seen.
            self.0.set(before.max(next));
            tracing::info!(%before, now = %next, "the level of the log was changed");
        }
        self.0.set(next);
    }
}

impl Reloaded {
    fn reload(&self) {
        // The service itself logs what came of it.
        self.service.reload_policy().ok();
        self.log.set(&self.service.policy());
        self.service.reload_owner_certificate().ok();
        match self.authority.reload() {
            Ok(false) => {}
            Ok(true) => {
                let fingerprint = self.authority.fingerprint();
                tracing::info!(fingerprint, "the authority was reloaded");
                let detail = json!({"fingerprint": fingerprint});
                let audited =
                    self.service
                        .audit_own("reload authority", "authority", "done", detail);
                if let Err(error) = audited {
                    tracing::error!(%error, "the new authority could not be written to the audit log");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the authority could not be reloaded; the one before stays in force")
            }
        }
    }
}

/// Handles the signals that do not end the controller: SIGHUP reloads it, and SIGUSR1 and SIGUSR2 mean nothing. Before the
/// service is there, nothing can be reloaded yet: what is loaded is new.
fn spawn_reloads(reloaded: Arc<OnceLock<Reloaded>>) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut first = signal(SignalKind::user_defined1())?;
    let mut second = signal(SignalKind::user_defined2())?;
    tokio::spawn(async move {
        loop {
            let ignored = tokio::select! {
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: reloading");
                    if let Some(reloaded) = reloaded.get().cloned() {
                        tokio::task::spawn_blocking(move || reloaded.reload()).await.ok();
                    }
                    continue;
                }
                _ = first.recv() => "SIGUSR1",
                _ = second.recv() => "SIGUSR2",
            };
            tracing::warn!(
                signal = ignored,
                "ignored a signal that has no meaning for a controller"
            );
        }
    });
    Ok(())
}

/// Completes at the first SIGTERM or SIGINT.
fn ending(format: LogFormat) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let which = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        announce(
            format,
            &format!(
                "shutting down because of {which}: runs are ended, and their faults are reverted first"
            ),
        );
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
