//! What the page costs where much is to be shown, in headless Chromium against the real `backburn controller`: a run of two hours with twenty
//! probes five times a second (720,000 answers) that is opened and opened again, its report, 2,000 notes, a fleet of 10,000 agents, how soon
//! an event of a live run is painted, and what 50 viewers cost such a run. Nothing is asserted.
//!
//! ```text
//! ./tests/run --install    # once: Chromium, and tests/browser/node_modules
//! cargo bench -p backburn-tests --bench page                                  # some minutes
//! BACKBURN_LONG_SECONDS=600 BACKBURN_FLEET=1000 cargo bench -p backburn-tests --bench page
//! ```
//!
//! The programs are those of `BACKBURN_BINARIES`, or are built with the profile of the bench. Figures of the debug profile mean nothing.

use backburn::store::SqliteStore;
use backburn_tests::daemon::Daemon;
use backburn_tests::long_run::LongRun;
use backburn_tests::plain_http;
use backburn_tests::programs::root;
use backburn_tests::swarm::Swarm;
use backburn_tests::web;
use serde_json::{Value, json};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a live run is watched, in seconds.
const LIVE_SECONDS: u64 = 30;
/// How many probes a live run has, each checked five times a second.
const LIVE_PROBES: usize = 20;
const VIEWERS: usize = 50;
const NOTES: usize = 2_000;
/// How often a report is written.
const ROUNDS: usize = 5;

fn main() {
    let given = |name: &str, default: u64| {
        let text = std::env::var(name).unwrap_or_default();
        text.parse().unwrap_or(default)
    };
    let agents = given("BACKBURN_FLEET", 10_000);
    let run = LongRun {
        id: "run-of-two-hours".into(),
        probes: 20,
        seconds: given("BACKBURN_LONG_SECONDS", 7_200),
    };
    let folder = tempfile::tempdir_in(root().join("target")).expect("the build has a folder");
    let began = Instant::now();
    {
        let store = SqliteStore::open(&folder.path().join("store")).expect("it opens");
        run.write(&store);
        run.note(&store, NOTES);
    }
    println!(
        "{} answers of {} probes and {NOTES} notes, written in {:.1} s",
        run.answers(),
        run.probes,
        began.elapsed().as_secs_f64()
    );
    let mut swarm = Swarm::enrolled(env!("CARGO_BIN_EXE_swarm"), folder.path(), agents as usize);
    let controller = Daemon::start(folder.path());
    opened(&controller, &run);
    report(&controller, &run);
    live(&controller);
    swarm.connect(controller.address);
    swarm.wait("everybody there", |state| state.connected == agents);
    println!("a fleet of {agents} agents");
    browser(
        &controller,
        json!({"play": "large-fleet", "agents": agents}),
    );
}

/// The run is opened and opened again, first by a controller that has not read it yet.
fn opened(controller: &Daemon, run: &LongRun) {
    println!("the run in the browser");
    browser(
        controller,
        json!({"play": "long", "run": run.id, "answers": run.answers(), "probes": run.probes, "notes": NOTES}),
    );
    let path = format!("GET /api/v1/runs/{}/condensed", run.id);
    let (took, body) = fetched(controller, &path);
    println!(
        "  the journal in brief, once read      {:>9.0} ms, {:.2} MB",
        took * 1e3,
        body.len() as f64 / 1e6
    );
}

fn report(controller: &Daemon, run: &LongRun) {
    println!("its report; n = {ROUNDS}");
    for format in ["html", "markdown", "json"] {
        let path = format!("GET /api/v1/runs/{}/report?format={format}", run.id);
        let answers: Vec<(f64, String)> = (0..ROUNDS).map(|_| fetched(controller, &path)).collect();
        let mut times: Vec<f64> = answers.iter().map(|(took, _)| *took).collect();
        times.sort_by(f64::total_cmp);
        let same = answers.iter().all(|(_, body)| *body == answers[0].1);
        println!(
            "  {format:<36} {:>9.0} ms median, {:.0} ms at most, {:.0} kB{}",
            times[ROUNDS / 2] * 1e3,
            times[ROUNDS - 1] * 1e3,
            answers[0].1.len() as f64 / 1e3,
            if same {
                ""
            } else {
                ", and NOT the same bytes each time"
            }
        );
    }
}

/// A live run: how soon its events are painted; then the same run without viewers and with many.
fn live(controller: &Daemon) {
    controller.done("PUT", "/api/v1/experiments/live", Some(&live_experiment()));
    println!("a live run of {LIVE_PROBES} probes five times a second, {LIVE_SECONDS} s");
    let run = controller.run("live");
    browser(
        controller,
        json!({"play": "live", "run": run, "seconds": LIVE_SECONDS - 10}),
    );
    controller.closed(&run);
    for viewers in [0, VIEWERS, 0, VIEWERS] {
        let before = processor(controller);
        let run = controller.run("live");
        let watching = (viewers > 0).then(|| {
            started(
                controller,
                &json!({"play": "viewers", "run": run, "viewers": viewers}),
            )
        });
        controller.closed(&run);
        let spent = processor(controller) - before;
        if let Some(watching) = watching {
            said(watching);
        }
        let mut late = lateness(&controller.events(&run));
        late.sort_by(f64::total_cmp);
        let at = |part: usize| late[(late.len() - 1) * part / 100];
        println!(
            "  {viewers:>3} viewers: samples {:.1} ms late in the median, {:.1} ms at the 99th, n = {}; {:.1} s of the controller's processor",
            at(50),
            at(99),
            late.len(),
            spent
        );
    }
}

fn live_experiment() -> Value {
    let address = web::serve();
    let rules = (0..LIVE_PROBES).map(|place| {
        json!({"name": format!("rule {place}"), "every": "200ms", "failures": 1000, "probe": {
            "type": "probe", "name": format!("shop {place}"), "tolerance": 200,
            "provider": {"type": "http", "url": format!("http://{address}/text"), "timeout": 2}}})
    });
    json!({
        "title": "Live", "description": "Much is measured",
        "steady-state-hypothesis": {"title": "It answers", "probes": [{
            "type": "probe", "name": "shop", "tolerance": 200,
            "provider": {"type": "http", "url": format!("http://{address}/text"), "timeout": 2}}]},
        "abort": rules.collect::<Vec<_>>(),
        "method": [{"type": "probe", "name": "once", "pauses": {"after": LIVE_SECONDS},
            "provider": {"type": "http", "url": format!("http://{address}/text"), "timeout": 2}}],
    })
}

/// How much later than 200 ms after the one before each sample of an abort rule was, in milliseconds.
fn lateness(events: &[Value]) -> Vec<f64> {
    let mut last = std::collections::BTreeMap::new();
    let samples = events.iter().filter(|event| {
        event["event"] == "sampled" && event["hypothesis"] == false && event["phase"] == "method"
    });
    let gaps = samples.filter_map(|event| {
        let at = event["elapsed"].as_f64()?;
        let before = last.insert(event["probe"].as_str()?.to_owned(), at)?;
        Some((at - before - 0.2) * 1e3)
    });
    gaps.collect()
}

/// The processor time that the controller has used, in seconds.
fn processor(controller: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", controller.pid()));
    let stat = stat.expect("it lives");
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks = ticks.filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// How long it took, and what came.
fn fetched(controller: &Daemon, request: &str) -> (f64, String) {
    let began = Instant::now();
    let address = controller.address.to_string();
    let answer = plain_http::ask(&address, controller.token(), request).expect("it answers");
    assert_eq!(answer.status, 200, "{request}");
    let body = answer.text();
    (began.elapsed().as_secs_f64(), body)
}

fn started(controller: &Daemon, play: &Value) -> Child {
    let mut play = play.clone();
    play["url"] = format!("https://{}", controller.address).into();
    play["admin"] = controller.token().into();
    Command::new("node")
        .arg("figures.mjs")
        .current_dir(root().join("tests/browser"))
        .env("PAGE_TEST", play.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts")
}

/// Prints what it said, once it has ended.
fn said(mut child: Child) {
    let mut text = String::new();
    let mut out = child.stdout.take().expect("it is piped");
    out.read_to_string(&mut text).expect("it says text");
    let status = child.wait().expect("it ends");
    for line in text.lines() {
        println!("  {line}");
    }
    assert!(status.success(), "the browser's part failed");
    std::thread::sleep(Duration::from_millis(100));
}

fn browser(controller: &Daemon, play: Value) {
    said(started(controller, &play));
}
