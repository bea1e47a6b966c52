//! `backburn demo`: starts a small web service, runs two experiments of the library against it, and prints a table of the
//! verdicts beside the expected ones. Requires neither root nor a network, and leaves nothing behind: the service ends with
//! the demo, whose files are in a temporary directory.

mod service;

pub(super) use service::{DemoServiceCommand, main as serve};

use super::experiment_source::check;
use super::progress::OutputStyle;
use super::report::format_report;
use super::run::{ExecuteOptions, execute, serve_page};
use super::{CommandFailure, HostOptions, print, print_stderr};
use backburn::local_page::LocalPage;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{InjectionState, Outcome};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct DemoCommand {
    /// Serve a page that shows the runs, on a free port of the loopback, and print its address, which one browser can use
    #[arg(long)]
    page: bool,
}

/// An experiment of the demo and its expected result.
struct DemoExperiment {
    name: &'static str,
    text: &'static str,
    before: &'static str,
    expected: Outcome,
    /// The abort rule that should end it.
    ended_by: Option<&'static str>,
}

const EXPERIMENTS: [DemoExperiment; 2] = [
    DemoExperiment {
        name: "demo-worker-killed",
        text: include_str!("../../../../experiments/library/demo-worker-killed.json"),
        before: "One of its workers is killed. The others continue and the supervisor starts a new one: the hypothesis should hold.",
        expected: Outcome::Held,
        ended_by: None,
    },
    DemoExperiment {
        name: "demo-workers-paused",
        text: include_str!("../../../../experiments/library/demo-workers-paused.json"),
        before: "All of its workers are paused for 20 s. None of them answers, and since none is dead, none is restarted: the hypothesis \
                 should deviate, an abort rule should end the pause early, and the service should recover.",
        expected: Outcome::Deviated,
        ended_by: Some("nobody answers"),
    },
];

/// How long the service may take to end.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The row of an experiment in the table of results.
struct ResultRow {
    name: &'static str,
    verdict: Outcome,
    expected: Outcome,
    outage: String,
    recovery: String,
    is_as_expected: bool,
}

/// Runs the demo. Its exit code is 0 if every experiment had its expected result.
pub(super) fn main(command: &DemoCommand) -> Result<u8, CommandFailure> {
    let page = command.page.then(serve_page).transpose()?;
    let folder = TemporaryDirectory::make()?;
    let mut service = ServiceProcess::start()?;
    print_stderr(&format!(
        "A small web service listens at {}: a supervisor (process {}) and {} workers.\n",
        service.url, service.pid, service.workers
    ));
    let mut rows = Vec::new();
    for shown in &EXPERIMENTS {
        print_stderr(&format!("\n{}\n\n", shown.before));
        let row = run(shown, &service, &folder.0, page.as_ref())?;
        let ended = row.verdict;
        rows.push(row);
        if ended == Outcome::Aborted {
            break;
        }
    }
    service.stop()?;
    print(&table(&rows));
    if rows.len() == EXPERIMENTS.len() && rows.iter().all(|row| row.is_as_expected) {
        print_stderr("\nEvery result is as expected. The service has ended and nothing is left.\n");
        return Ok(0);
    }
    let worst = rows
        .iter()
        .filter(|row| !row.is_as_expected)
        .map(|row| row.verdict.exit_code())
        .max();
    print_stderr("\nNot every result is as expected; see the reasons above.\n");
    // An experiment that held unexpectedly is not a success of the demo.
    Ok(worst.filter(|code| *code > 0).unwrap_or(1))
}

fn run(
    shown: &DemoExperiment,
    service: &ServiceProcess,
    state: &Path,
    page: Option<&LocalPage>,
) -> Result<ResultRow, CommandFailure> {
    let configuration = Map::from_iter([
        ("url".to_owned(), json!(service.url)),
        ("supervisor".to_owned(), json!(service.pid)),
    ]);
    let experiment = check(shown.text, &configuration, &Map::new(), &[]).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        CommandFailure::invalid(format!("{}: {}", shown.name, problems.join("\n")))
    })?;
    let title = experiment.document.title.clone();
    let told = execute(
        experiment,
        &HostOptions::below(state),
        ExecuteOptions {
            seed: None,
            frequency: HumanDuration::seconds(1),
            style: OutputStyle::for_people(),
            page,
        },
    )?;
    let (verdict, run) = (&told.finished.verdict, &told.finished.run);
    print(&format!(
        "\n{}",
        format_report(&title, &told.finished, None)
    ));
    let clean = run
        .injections
        .values()
        .all(|one| matches!(&one.state, InjectionState::Ended(ended) if ended.clean));
    let ended_by = run.aborts.first().map(|abort| abort.rule.as_str());
    let outage: f64 = verdict
        .outages
        .iter()
        .map(|(_, outage)| outage.until - outage.from)
        .sum();
    Ok(ResultRow {
        name: shown.name,
        verdict: verdict.outcome,
        expected: shown.expected,
        outage: if outage > 0.0 {
            format!("{outage:.1} s")
        } else {
            "none".into()
        },
        recovery: verdict
            .recovered_after
            .map_or("no".into(), |after| format!("after {after}")),
        is_as_expected: verdict.outcome == shown.expected
            && ended_by == shown.ended_by
            && clean
            && verdict.recovered_after.is_some(),
    })
}

fn table(rows: &[ResultRow]) -> String {
    let line = |cells: [&str; 5]| {
        let [name, verdict, expected, outage, recovery] = cells;
        format!("{name:<20}  {verdict:<12}  {expected:<9}  {outage:<7}  {recovery}")
            .trim_end()
            .to_owned()
            + "\n"
    };
    let mut table =
        String::from("\n") + &line(["experiment", "verdict", "expected", "outage", "recovered"]);
    for row in rows {
        let (verdict, expected) = (row.verdict.to_string(), row.expected.to_string());
        table += &line([row.name, &verdict, &expected, &row.outage, &row.recovery]);
    }
    table
}

/// The failure of a demo that could not start.
fn not_started(message: String) -> CommandFailure {
    CommandFailure {
        code: Outcome::NotStarted.exit_code(),
        message,
    }
}

/// The running service. It is killed when this value is dropped, and by the kernel when this process dies.
struct ServiceProcess {
    supervisor: Child,
    url: String,
    pid: u32,
    workers: u64,
}

impl ServiceProcess {
    fn start() -> Result<ServiceProcess, CommandFailure> {
        let failed = |what: &str| not_started(format!("the demo's service did not start: {what}"));
        let supervisor = Command::new("/proc/self/exe")
            .args([
                service::SUBCOMMAND,
                "supervise",
                "--parent",
                &std::process::id().to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for the run, which reverts its faults before it ends.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let pid = supervisor.id();
        let mut service = ServiceProcess {
            supervisor,
            url: String::new(),
            pid,
            workers: 0,
        };
        let mut line = String::new();
        let out = service
            .supervisor
            .stdout
            .take()
            .ok_or_else(|| failed("it has no output"))?;
        BufReader::new(out)
            .read_line(&mut line)
            .map_err(|error| failed(&error.to_string()))?;
        let told: Value =
            serde_json::from_str(&line).map_err(|_| failed("it did not print its address"))?;
        let address = told["address"]
            .as_str()
            .ok_or_else(|| failed("it did not print its address"))?;
        service.url = format!("http://{address}/");
        service.workers = told["workers"].as_u64().unwrap_or_default();
        Ok(service)
    }

    /// Asks the supervisor to end its workers and itself, and waits until it has.
    fn stop(&mut self) -> Result<(), CommandFailure> {
        let failed = |what: String| CommandFailure {
            code: Outcome::NotClean.exit_code(),
            message: format!("the demo's service did not end: {what}"),
        };
        let pid = i32::try_from(self.pid).map_err(|error| failed(error.to_string()))?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| failed(error.to_string()))?;
        let asked = Instant::now();
        while asked.elapsed() < START_STOP_TIMEOUT {
            if self
                .supervisor
                .try_wait()
                .map_err(|error| failed(error.to_string()))?
                .is_some()
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(failed(format!(
            "it was asked to {} s ago",
            START_STOP_TIMEOUT.as_secs()
        )))
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // After `stop` there is nothing to kill. The workers end with their supervisor in any case.
        self.supervisor.kill().ok();
        self.supervisor.wait().ok();
    }
}

/// A directory for the journals and the ledger, removed when this value is dropped.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn make() -> Result<TemporaryDirectory, CommandFailure> {
        let path =
            std::env::temp_dir().join(format!("backburn-demo-{}", backburn::runner::run_id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map(|()| TemporaryDirectory(path.clone()))
            .map_err(|error| not_started(format!("{}: {error}", path.display())))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            print_stderr(&format!(
                "warning: {} could not be removed: {error}\n",
                self.0.display()
            ));
        }
    }
}
