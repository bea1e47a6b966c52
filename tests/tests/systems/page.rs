//! The page in a real browser: Chromium, played by `tests/browser/page.mjs`, against a controller with an agent, and against a run on one
//! host.

use backburn::store::SqliteStore;
use backburn_tests::daemon::Daemon;
use backburn_tests::fleet::{Fleet, Given, HERE_PORT, Host, PROGRAMS, VICTIM};
use backburn_tests::isolated::{in_network_namespace, skip};
use backburn_tests::long_run::{LongRun, SPIKE};
use backburn_tests::programs::{backburn, root};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What the browser needs besides `tests/browser/node_modules`.
const BROWSER: [&str; 2] = ["node", "chromium"];

fn has_browser() -> bool {
    let modules = root().join("tests/browser/node_modules/playwright-core");
    if !modules.exists() {
        skip("the browser's packages are not there; `tests/run` installs them");
    }
    modules.exists()
}

/// Plays this, and everything goes as it should.
fn play(what: &Value) {
    let output = Command::new("node")
        .arg("page.mjs")
        .current_dir(root().join("tests/browser"))
        .env("PAGE_TEST", what.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(last, "ok: the console has no complaint", "{said}");
}

fn text(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a token can be read");
    text.trim().to_owned()
}

#[test]
fn page_fleet_is_watched_and_halted_in_a_browser() {
    let programs = [&PROGRAMS[..], &BROWSER].concat();
    in_network_namespace(&programs, || {
        if !has_browser() {
            return;
        }
        let fleet = Fleet::new(&[("one", &["role=watched"])], Given::default());
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let mut document = backburn_tests::fleet::pause("watched", "10m");
        document["title"] = "Nobody waits".into();
        let probe = document["steady-state-hypothesis"]["probes"][0]["name"].clone();
        document["abort"] =
            json!([{"name": "far", "probe": probe, "every": "200ms", "failures": 100}]);
        fleet.apply("watched", &document);
        let hostile = "<img src=x onerror='globalThis.hit=1'> \u{202e}\"';</script>";
        document["title"] = hostile.into();
        document["description"] = hostile.into();
        document["tags"] = json!([hostile]);
        fleet.apply("hostile", &document);
        let day = json!({"game-day": {
            "title": "A day", "purpose": "We learn how soon we notice", "mode": "tabletop",
            "duties": {"facilitator": "olga", "scribe": "olga"},
            "prerequisites": ["The dashboards are open"],
            "steps": [{"title": "The database is slow", "lasts": "1h", "discuss": "by-hand"}],
            "reveal": "by-hand", "updates": {"every": "30m"},
        }});
        fleet.apply("day", &day);
        let mut outage = backburn_tests::fleet::pause("watched", "15s");
        outage["title"] = "The replica stands still".into();
        fleet.apply("replica-outage", &outage);
        let drill = json!({"game-day": {
            "title": "A drill", "purpose": "We learn whether paying goes on", "mode": "live",
            "duties": {"facilitator": "olga", "incident-commander": "olga", "scribe": "olga"},
            "prerequisites": ["Support knows of it"],
            "objectives": {"detect-within": "5m", "mitigate-within": "15m"},
            "steps": [
                {"title": "A site is gone", "experiment": "replica-outage", "discuss": "by-hand",
                    "prompts": [{"name": "call", "text": "A customer calls: paying does not work"}]},
                {"title": "Nobody answers the phone", "lasts": "1s", "discuss": "by-hand"}],
            "reveal": "at-discussion", "updates": {"every": "30m"},
        }});
        fleet.apply("drill", &drill);
        let blind = fleet.says(&["tokens", "make", "pat", "--role", "operator", "--blind"]);
        play(&json!({
            "play": "fleet", "blind": blind.out.trim(), "prerequisite": "The dashboards are open", "secret": "The database is slow",
            "drill": {"name": "drill", "prerequisite": "Support knows of it", "prompt": "A customer calls", "experiment": "replica-outage", "fault": "process-pause",
                "purpose": "We learn whether paying goes on", "secrets": ["A site is gone", "replica-outage", "The replica stands still", "process-pause", VICTIM]}, "url": format!("https://{HERE_PORT}"), "experiment": "watched", "agent": "one", "victim": VICTIM,
            "admin": text(&fleet.data().join("admin-token")),
            "operator": text(&fleet.token("olga", "operator")),
            "viewer": text(&fleet.token("vera", "viewer")),
        }));
        assert!(victims.iter().all(|victim| !victim.is_paused()));
    });
}

#[test]
fn page_local_run_is_watched_and_halted_in_a_browser() {
    in_network_namespace(&BROWSER, || {
        if !has_browser() {
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("busy.json");
        let document = json!({
            "title": "Busy", "description": "A processor is a little busy",
            "steady-state-hypothesis": {"title": "There is a processor", "probes": [
                {"type": "probe", "name": "busy", "tolerance": {"type": "range", "range": [0, 100]},
                 "provider": {"type": "host", "metric": "cpu-busy-percent"}}]},
            "method": [{"type": "action", "name": "busy", "provider": {
                "type": "fault", "fault": "cpu-stress", "duration": "10m", "arguments": {"workers": 1, "load-percent": 5}}}],
        });
        std::fs::write(&file, document.to_string()).expect("a file can be written");
        let mut run = Command::new(backburn())
            .args([
                "run",
                "--page",
                "--local",
                "--hypothesis-frequency",
                "200ms",
                "--state",
            ])
            .arg(folder.path().join("state"))
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(run.stderr.take().expect("it is piped")).lines();
        let address = lines.by_ref().map_while(Result::ok);
        let address = address
            .filter_map(|line| Some(line.strip_prefix("page: ")?.to_owned()))
            .next()
            .expect("it prints the address of the page");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let (url, fragment) = address.split_once("/#").expect("a secret");
        play(&json!({"play": "local", "url": url, "fragment": format!("/#{fragment}")}));
        let ended = run.wait().expect("it ends");
        assert_eq!(ended.code(), Some(4), "aborted, and clean");
    });
}

#[test]
fn page_long_run_hides_no_spike_and_no_failure() {
    in_network_namespace(&BROWSER, || {
        if !has_browser() {
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let run = LongRun {
            id: "long".into(),
            probes: 4,
            seconds: 2_000,
        };
        {
            let store = SqliteStore::open(&folder.path().join("store")).expect("it opens");
            run.write(&store);
            run.note(&store, 600);
        }
        let controller = Daemon::start(folder.path());
        play(
            &json!({"play": "long", "url": format!("https://{}", controller.address), "admin": controller.token(), "run": run.id,
            "probes": run.probes, "each": run.answers() / run.probes, "spike": SPIKE}),
        );
    });
}
