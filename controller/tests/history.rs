//! Runs of this host without a controller: their list, their verdicts again, the command that repeats a plan, and what `help` says.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/command.rs"]
mod program;

use program::{command, said};
use serde_json::{Value, json};
use snapbox::cmd::cargo_bin;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn holds() -> Value {
    json!({"title": "All is well", "description": "d", "method": [],
        "steady-state-hypothesis": {"title": "h", "probes": [{"type": "probe", "name": "p", "tolerance": 0,
            "provider": {"type": "process", "path": "true"}}]}})
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut deviates = holds();
    deviates["title"] = json!("Nothing is well");
    deviates["runtime"] = json!({"hypothesis": {"strategy": "after-method-only"}});
    deviates["steady-state-hypothesis"]["probes"][0]["provider"]["path"] = json!("false");
    for (name, document) in [("held.json", holds()), ("deviated.json", deviates)] {
        std::fs::write(folder.path().join(name), document.to_string()).unwrap();
    }
    folder
}

/// The id of the only run, by its journal.
fn only_run(folder: &Path) -> String {
    let mut journals = std::fs::read_dir(folder.join("state/runs")).unwrap();
    let journal = journals.next().unwrap().unwrap().path();
    assert!(journals.next().is_none());
    journal.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Writes a journal of these events.
fn write_journal(folder: &Path, run: &str, events: &[Value], rest: &str) {
    let place = folder.join("state/runs");
    std::fs::create_dir_all(&place).unwrap();
    let mut file = std::fs::File::create(place.join(format!("{run}.jsonl"))).unwrap();
    for (number, event) in events.iter().enumerate() {
        let mut entry = json!({"at": "2026-11-01T10:00:00Z", "elapsed": number});
        for (key, value) in event.as_object().unwrap() {
            entry[key] = value.clone();
        }
        writeln!(file, "{entry}").unwrap();
    }
    file.write_all(rest.as_bytes()).unwrap();
}

fn started(run: &str) -> Value {
    json!({"event": "run-started", "run": run, "title": "Written by hand", "seed": 7, "version": "0.1.0",
        "hypothesis": [], "looks": {"before": false, "during": false, "after": false}})
}

/// A run whose only fault is not seen to be gone.
fn not_clean(run: &str) -> Vec<Value> {
    let injection = format!("{run}-0-0");
    vec![
        started(run),
        json!({"event": "agent-joined", "agent": "db-1", "recovered": [], "owed": []}),
        json!({"event": "phase-started", "phase": "method"}),
        json!({"event": "injection-requested", "injection": injection, "activity": "fill it", "fault": "disk-fill", "agent": "db-1"}),
        json!({"event": "injected", "injection": injection, "plan": {"victims": [], "changes": []}}),
        json!({"event": "injection-ended", "injection": injection, "cause": "done", "clean": false, "residue": ["a file is left"], "took": "5ms"}),
        json!({"event": "run-ended"}),
    ]
}

#[test]
fn runs_without_a_controller_lists_this_hosts_runs_newest_first() {
    let folder = folder();
    let said_of = |words: &[&str]| said(folder.path(), words);
    let none = said_of(&["runs"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""), "{none:?}");
    assert!(none.err.starts_with("no runs were found in "), "{none:?}");
    write_journal(
        folder.path(),
        "20200101-000000-aaaa",
        &not_clean("20200101-000000-aaaa"),
        "",
    );
    assert_eq!(said_of(&["run", "deviated.json"]).code, 1);
    let listed = said_of(&["runs"]);
    assert_eq!((listed.code, listed.err.as_str()), (0, ""), "{listed:?}");
    let lines: Vec<Vec<&str>> = listed
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["RUN", "OUTCOME", "STARTED", "TITLE"]);
    assert_eq!(lines[1][1], "deviated");
    assert_eq!(lines[2][..2], ["20200101-000000-aaaa", "not-clean"]);
    let filtered = said_of(&["runs", "--outcome", "not-clean", "--json"]);
    let found: Value = serde_json::from_str(&filtered.out).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["exit-code"], 6);
    let wrong = said_of(&["runs", "--outcome", "fine"]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.err.contains("hint: the outcomes are `held`"),
        "{wrong:?}"
    );
    let fleet = said_of(&["runs", "--experiment", "x"]);
    assert!(
        fleet.err.contains("`--experiment` requires a controller"),
        "{fleet:?}"
    );
}

#[test]
fn runs_of_an_id_shows_the_verdict_again_from_the_journal() {
    let folder = folder();
    let told = said(folder.path(), &["run", "held.json"]);
    let id = only_run(folder.path());
    for given in [id.as_str(), &id[..id.len() - 2]] {
        let again = said(folder.path(), &["runs", given]);
        assert_eq!((again.code, &again.out), (0, &told.out), "{again:?}");
    }
    let json = said(folder.path(), &["runs", &id, "--json"]);
    let run: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&run["id"], &run["outcome"]), (&json!(id), &json!("held")));
    let nobody = said(folder.path(), &["runs", "19"]);
    assert_eq!(nobody.code, 2);
    assert!(
        nobody
            .err
            .contains("hint: `backburn runs` lists the runs in "),
        "{nobody:?}"
    );
}

#[test]
fn run_of_an_ambiguous_beginning_is_refused_with_the_ids() {
    let folder = folder();
    for run in ["20200101-000000-aaaa", "20200101-000000-bbbb"] {
        write_journal(folder.path(), run, &not_clean(run), "");
    }
    let several = said(folder.path(), &["runs", "20200101"]);
    assert_eq!(several.code, 2);
    assert!(
        several.err.contains(
            "2 runs have ids that begin with `20200101`: 20200101-000000-bbbb, 20200101-000000-aaaa"
        ),
        "{several:?}"
    );
}

#[test]
fn journal_that_is_broken_or_cut_short_is_reported() {
    let folder = folder();
    let events = not_clean("20200101-000000-aaaa");
    write_journal(
        folder.path(),
        "20200101-000000-aaaa",
        &events[..3],
        "{\"at\": \"2026-",
    );
    write_journal(folder.path(), "20200102-000000-aaaa", &events[..3], "");
    write_journal(
        folder.path(),
        "20200103-000000-aaaa",
        &[],
        "this is no journal\n",
    );
    write_journal(folder.path(), "20200104-000000-aaaa", &[], "");
    let twice = [&events[..1], &events[..1]].concat();
    write_journal(folder.path(), "20200105-000000-aaaa", &twice, "");
    nix::unistd::mkfifo(
        &folder.path().join("state/runs/20200106-000000-aaaa.jsonl"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    let listed = said(folder.path(), &["runs"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    for (run, outcome, problem) in [
        (
            "20200101-000000-aaaa",
            "inconclusive",
            "line 4 was cut short",
        ),
        (
            "20200102-000000-aaaa",
            "inconclusive",
            "it ends before the run did",
        ),
        (
            "20200103-000000-aaaa",
            "unreadable",
            "line 1 is not an event",
        ),
        (
            "20200104-000000-aaaa",
            "unreadable",
            "it ends before the run did",
        ),
        ("20200105-000000-aaaa", "inconclusive", "a run starts once"),
        (
            "20200106-000000-aaaa",
            "unreadable",
            "it is not a regular file",
        ),
    ] {
        let row = listed.out.lines().find(|line| line.starts_with(run));
        assert!(row.unwrap().contains(outcome), "{run}: {listed:?}");
        let warning = listed.err.lines().find(|line| line.contains(run));
        assert!(warning.unwrap().contains(problem), "{run}: {listed:?}");
    }
    let cut = said(folder.path(), &["runs", "20200101"]);
    assert_eq!(cut.code, 0);
    assert!(
        cut.out.starts_with("inconclusive: Written by hand\n"),
        "{cut:?}"
    );
    assert!(cut.err.contains("line 4 was cut short"), "{cut:?}");
    let unreadable = said(folder.path(), &["runs", "20200103"]);
    assert_eq!(unreadable.code, 2);
    assert!(
        unreadable
            .err
            .contains("cannot be read: line 1 is not an event"),
        "{unreadable:?}"
    );
}

#[test]
fn run_that_is_not_clean_names_the_command_for_this_host() {
    let folder = folder();
    write_journal(
        folder.path(),
        "20200101-000000-aaaa",
        &not_clean("20200101-000000-aaaa"),
        "",
    );
    let shown = said(folder.path(), &["runs", "2020"]);
    assert!(
        shown.out.contains("not proved to be reverted on `db-1`: 20200101-000000-aaaa-0-0 (disk-fill): a file is left"),
        "{shown:?}"
    );
    let state = folder.path().join("state");
    let command = format!(
        "backburn revert --all --state {}` on this host",
        state.display()
    );
    assert!(shown.out.contains(&command), "{shown:?}");
}

/// A process that waits, and is ended with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(seconds: &str) -> Self {
        Sleeper(Command::new("sleep").arg(seconds).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn plan_prints_the_command_that_hits_exactly_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("9{}", std::process::id());
    let mut sleepers: Vec<Sleeper> = (0..4).map(|_| Sleeper::start(&mark)).collect();
    let document = json!({"title": "t", "description": "d", "configuration": {"mark": "none"}, "method": [
        {"type": "action", "name": "kill one", "provider": {"type": "fault", "fault": "process-kill",
            "arguments": {"process": {"command-line": "^sleep ${mark}$", "select": {"count": 1}}}}}]});
    std::fs::write(folder.path().join("it's one.json"), document.to_string()).unwrap();
    let variable = format!("mark:str={mark}");
    let plan = said(
        folder.path(),
        &["plan", "it's one.json", "--var", &variable],
    );
    assert_eq!(plan.code, 0, "{plan:?}");
    let hit = plan
        .out
        .lines()
        .find_map(|line| line.trim().strip_prefix("hits process: sleep ("));
    let victim: u32 = hit.unwrap().trim_end_matches(')').parse().unwrap();
    let again = plan
        .out
        .lines()
        .find_map(|line| line.strip_prefix("to hit exactly these: "));
    let again = again.unwrap().replacen("backburn", "\"$BACKBURN\"", 1);
    let mut shell = Command::new("sh");
    let run = shell
        .args(["-c", &again])
        .current_dir(folder.path())
        .env("BACKBURN", cargo_bin!("backburn"))
        .env("BACKBURN_STATE", folder.path().join("state"))
        .env_remove("BACKBURN_CONTROLLER")
        .env_remove("BACKBURN_POLICY")
        .output()
        .unwrap();
    assert!(run.status.code().is_some(), "{run:?}");
    for Sleeper(child) in &mut sleepers {
        let is_dead = child.try_wait().unwrap().is_some();
        assert_eq!(is_dead, child.id() == victim, "{again}: {run:?}");
    }
}

#[test]
fn run_that_goes_on_is_shown_as_running_in_runs_and_status() {
    let folder = tempfile::tempdir().unwrap();
    let document = json!({"title": "It takes long", "description": "d", "method": [
        {"type": "action", "name": "sleep", "provider": {"type": "process", "path": "sh", "arguments": ["-c", "echo > here; exec sleep 100"]}}]});
    std::fs::write(folder.path().join("x.json"), document.to_string()).unwrap();
    let mut child = command(folder.path(), &["run", "x.json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !folder.path().join("here").exists() && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = only_run(folder.path());
    let listed = said(folder.path(), &["runs"]);
    let shown = said(folder.path(), &["runs", &id]);
    let status = said(folder.path(), &["status"]);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    assert!(listed.out.contains(&format!("{id}  running")), "{listed:?}");
    assert_eq!(
        listed.err, "",
        "a journal that is being written is not broken"
    );
    for shown in [&shown, &status] {
        assert_eq!(shown.code, 0, "{shown:?}");
        let wanted = "running: It takes long\n  phase: method\n";
        assert!(shown.out.starts_with(wanted), "{shown:?}");
    }
    assert!(status.err.contains("nothing is owed"), "{status:?}");
    let over = said(folder.path(), &["runs", &id]);
    assert!(over.out.starts_with("aborted: It takes long\n"), "{over:?}");
}

#[test]
fn run_whose_program_was_killed_shows_when_its_agent_had_reverted_everything() {
    let folder = tempfile::tempdir().unwrap();
    let victim = Sleeper::start("61.25");
    let document = json!({"title": "A pause", "description": "d", "method": [
        {"type": "action", "name": "pause", "provider": {"type": "fault", "fault": "process-pause", "duration": "60s",
            "arguments": {"process": {"pid": victim.0.id()}}}}]});
    std::fs::write(folder.path().join("x.json"), document.to_string()).unwrap();
    let mut child = command(folder.path(), &["run", "x.json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let journals = folder.path().join("state/runs");
    wait("it acts", &|| {
        let text = std::fs::read_dir(&journals)
            .ok()
            .and_then(|mut runs| std::fs::read_to_string(runs.next()?.ok()?.path()).ok());
        text.is_some_and(|text| text.contains("\"injected\""))
    });
    let id = only_run(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    let note = |path: &Path| path.extension().is_some_and(|kind| kind == "reverted");
    let notes = || {
        let runs = std::fs::read_dir(&journals).unwrap().flatten();
        runs.map(|file| file.path()).find(|path| note(path))
    };
    wait("its agent reverts it", &|| notes().is_some());
    let shown = said(folder.path(), &["runs", &id]);
    assert!(shown.out.starts_with("not clean: A pause\n"), "{shown:?}");
    assert!(
        shown.out.contains("\n  cleaned at 2") && shown.out.contains("nothing is left"),
        "{shown:?}"
    );
    assert!(!shown.out.contains("revert --all"), "{shown:?}");
    let json: Value =
        serde_json::from_str(&said(folder.path(), &["runs", &id, "--json"]).out).unwrap();
    assert_eq!(
        (&json["outcome"], json["cleaned"].is_string()),
        (&json!("not-clean"), true)
    );
    // A note is not enough where the ledger still owes it, or cannot be read.
    let ledger = folder.path().join("state/ledger");
    let injection = json["verdict"]["owed"][0]["injection"].as_str().unwrap();
    let entry = ledger.join(format!("{injection}.json"));
    std::fs::write(&entry, "{}").unwrap();
    let owed = said(folder.path(), &["runs", &id]);
    assert!(!owed.out.contains("cleaned at"), "{owed:?}");
    assert!(owed.out.contains("revert --all"), "{owed:?}");
    std::fs::remove_file(&entry).unwrap();
    // What was not noted is not known.
    std::fs::remove_file(notes().unwrap()).unwrap();
    let unknown = said(folder.path(), &["runs", &id]);
    assert!(!unknown.out.contains("cleaned at"), "{unknown:?}");
}

#[test]
fn help_of_each_command_is_that_of_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["run"] as &[&str],
        &["agents"],
        &["agents", "revoke"],
        &["experiments", "versions"],
        &["faults"],
        &["revert"],
        &["agent"],
        &["agent", "inject"],
        &["agent", "inject", "process-kill"],
    ] {
        let flag = said(folder.path(), &[words, &["--help"]].concat());
        let help = said(folder.path(), &[&["help"], words].concat());
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{words:?}");
        assert_eq!(help.out, flag.out, "{words:?}");
    }
    let nested = said(folder.path(), &["agent", "help", "inject"]);
    assert_eq!(
        nested.out,
        said(folder.path(), &["agent", "inject", "--help"]).out
    );
    assert_eq!(
        said(folder.path(), &["help"]).out,
        said(folder.path(), &["--help"]).out
    );
    let page = said(folder.path(), &["man", "agents", "revoke"]);
    assert!(
        page.out.contains(".TH backburn-agents-revoke 1"),
        "{page:?}"
    );
    let wrong = said(folder.path(), &["help", "rnu"]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
}

#[test]
fn report_of_a_local_run_verifies_until_somebody_changes_it() {
    let folder = folder();
    let folder = folder.path();
    let ask = |words: &[&str]| said(folder, words);
    for _ in 0..2 {
        assert_eq!(ask(&["run", "held.json"]).code, 0);
    }
    let journals = std::fs::read_dir(folder.join("state/runs")).unwrap();
    let mut journals: Vec<_> = journals.map(|entry| entry.unwrap().path()).collect();
    journals.sort();
    let id = |index: usize| journals[index].file_stem().unwrap().to_str().unwrap();
    for (flag, file) in [
        ("--html", "a.html"),
        ("--markdown", "a.md"),
        ("--json", "a.json"),
    ] {
        let written = ask(&["report", id(1), flag, "-o", file]);
        assert_eq!(written.code, 0, "{written:?}");
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        // It is compared with the other run of the same title.
        assert!(text.contains(id(0)), "{text}");
        assert_eq!(ask(&["report", id(1), flag]).out, text);
        let verified = ask(&["report", "--verify", file]);
        assert_eq!(verified.code, 0, "{verified:?}");
        std::fs::write(
            folder.join(file),
            text.replacen("All is well", "All was well", 1),
        )
        .unwrap();
        let verified = ask(&["report", "--verify", file]);
        assert_eq!(verified.code, 1, "{verified:?}");
        std::fs::write(folder.join(file), text).unwrap();
    }
    // A journal that was changed afterwards is noticed, too.
    let text = std::fs::read_to_string(&journals[1]).unwrap();
    std::fs::write(&journals[1], text.replacen("\"within\"", "\"within\" ", 1)).unwrap();
    let verified = ask(&["report", "--verify", "a.html"]);
    assert_eq!(verified.code, 1);
    assert!(verified.err.contains("SHA-256"), "{verified:?}");
    std::fs::write(folder.join("a.html"), "<!doctype html>").unwrap();
    assert_eq!(ask(&["report", "--verify", "a.html"]).code, 2);
    assert_eq!(ask(&["report", "none"]).code, 2);
}

#[test]
fn run_compared_with_the_last_that_held_shows_both() {
    let folder = folder();
    let ask = |words: &[&str]| said(folder.path(), words);
    let none = ask(&["run", "held.json", "--compare-with", "last-held"]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(
        none.err.contains("has held") && none.err.contains("hint:"),
        "{none:?}"
    );
    assert_eq!(ask(&["run", "held.json"]).code, 0);
    let first = only_run(folder.path());
    let second = ask(&["run", "held.json", "--compare-with", "last-held"]);
    assert_eq!(second.code, 0, "{second:?}");
    for line in [
        format!("compared with run {first}"),
        "outcome: held, as before".into(),
    ] {
        assert!(second.out.contains(&line), "{second:?}");
    }
    let other = ask(&["run", "deviated.json", "--compare-with", &first]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(
        other.out.contains("outcome: held before, now deviated"),
        "{other:?}"
    );
}

#[test]
fn suggested_experiments_are_valid_can_be_planned_and_spare_what_is_protected() {
    let folder = folder();
    let folder = folder.path();
    let code = "import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
        print(s.getsockname()[1], flush=True)\ntime.sleep(120)";
    let mut service = std::process::Command::new("python3")
        .args(["-c", code])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let lines = service.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(lines), &mut port).unwrap();
    let port = port.trim();
    std::fs::create_dir(folder.join("suggested")).unwrap();
    let ask = |words: &[&str]| said(folder, words);
    let written = ask(&["suggest", "--json", "--write", "suggested"]);
    std::fs::write(
        folder.join("policy.json"),
        r#"{"protect": {"names": ["python3*"]}}"#,
    )
    .unwrap();
    let protected = ask(&["suggest", "--json", "--policy", "policy.json"]);
    let again = ask(&["suggest", "--write", "suggested"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&written.out).unwrap();
    let about = |one: &serde_json::Value| one["experiment"].to_string().contains(port);
    let own = all
        .iter()
        .find(|one| about(one) && one["name"].as_str().unwrap().starts_with("pause-"));
    let own = own.unwrap_or_else(|| panic!("{written:?}"))["name"]
        .as_str()
        .unwrap();
    let planned = ask(&["plan", &format!("suggested/{own}.json"), "--local"]);
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!(
        (written.code, planned.code),
        (0, 0),
        "{written:?} {planned:?}"
    );
    let mut words = vec!["validate".to_owned()];
    for one in &all {
        words.push(format!("suggested/{}.json", one["name"].as_str().unwrap()));
        assert!(one["reason"].as_str().unwrap().ends_with('?'), "{one}");
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let checked = ask(&words);
    assert_eq!(checked.code, 0, "{checked:?}");
    if nix::unistd::geteuid().is_root() {
        assert!(all.len() >= 10, "{written:?}");
    }
    let all: Vec<serde_json::Value> = serde_json::from_str(&protected.out).unwrap();
    assert!(!all.iter().any(about), "{protected:?}");
    // What is there stays as it is.
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.err.contains("could not be written"), "{again:?}");
}
