//! `run --suite`, and what a pipeline is given: one JUnit report, a summary, annotations.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/command.rs"]
mod program;

use program::{Said, command, said};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command};

/// An experiment without faults, whose hypothesis is that this program exits with 0.
fn probes(title: &str, path: &str) -> Value {
    json!({"title": title, "description": "d", "method": [],
        "runtime": {"hypothesis": {"strategy": "after-method-only"}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "p", "tolerance": 0, "provider": {"type": "process", "path": path}}]}})
}

/// An experiment that pauses the process with this command line for a moment.
fn pauses(title: &str, command_line: &str) -> Value {
    let mut document = probes(title, "true");
    document["method"] = json!([{"type": "action", "name": "pause", "provider": {"type": "fault", "fault": "process-pause", "duration": "300ms",
        "arguments": {"process": {"command-line": format!("^{command_line}$")}}}}]);
    document
}

fn write(folder: &Path, name: &str, document: &Value) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, document.to_string()).unwrap();
}

/// A folder with experiments of these names and programs, in `suite`.
fn folder(experiments: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, path) in experiments {
        write(
            folder.path(),
            &format!("suite/{name}.json"),
            &probes(name, path),
        );
    }
    folder
}

/// The files that a suite run with `--json` ran, in the order in which they ended.
fn ran(said: &Said) -> Vec<String> {
    let lines = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter_map(|line| Some(line.get("file")?.as_str()?.to_owned()))
        .collect()
}

#[test]
fn suite_runs_all_in_order_and_exits_with_the_worst() {
    let folder = folder(&[("b", "false"), ("a", "true"), ("below/c", "true")]);
    let at = folder.path();
    let words = [
        "run",
        "--suite",
        "suite",
        "--junit",
        "junit.xml",
        "--markdown",
        "summary.md",
    ];
    let said = said(at, &words);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("\nsuite: 2 held, 1 deviated\n"),
        "{}",
        said.out
    );
    let order: Vec<usize> = [
        "[1/3] suite/a.json",
        "[2/3] suite/b.json",
        "[3/3] suite/below/c.json",
    ]
    .map(|heading| said.err.find(heading).unwrap())
    .into();
    assert!(order.is_sorted(), "{}", said.err);
    let xml = std::fs::read_to_string(at.join("junit.xml")).unwrap();
    assert!(
        xml.contains(
            r#"<testsuites name="backburn" tests="9" skipped="0" errors="0" failures="2">"#
        ),
        "{xml}"
    );
    assert_eq!(xml.matches("<testsuite name=").count(), 3, "{xml}");
    let summary = std::fs::read_to_string(at.join("summary.md")).unwrap();
    assert!(
        summary.starts_with("# ❌ 2 of 3 experiments held\n\nExit code 1: deviated\n"),
        "{summary}"
    );
    assert!(
        summary.contains("backburn run suite/b.json --seed "),
        "{summary}"
    );
    // What did not hold comes first.
    let place = |title: &str| summary.find(title).unwrap();
    assert!(
        place("## ❌ deviated: b") < place("## ✅ held: a"),
        "{summary}"
    );
}

#[test]
fn suite_with_an_invalid_experiment_runs_nothing() {
    let folder = folder(&[("a", "touch"), ("b", "true")]);
    let at = folder.path();
    write(at, "suite/c.json", &json!({"title": 1}));
    write(at, "suite/d.json", &json!([]));
    let said = said(at, &["run", "--suite", "suite", "--junit", "junit.xml"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
    assert!(
        said.err.contains("suite/c.json") && said.err.contains("suite/d.json"),
        "{}",
        said.err
    );
    assert!(!at.join("state").exists() && !at.join("junit.xml").exists());
}

#[test]
fn suite_after_a_run_that_is_not_clean_starts_nothing() {
    let folder = folder(&[("a", "true"), ("b", "true"), ("c", "true")]);
    let at = folder.path();
    // An entry of the ledger that cannot be read is reported, and never guessed at.
    let ledger = at.join("state/ledger");
    std::fs::create_dir_all(&ledger).unwrap();
    std::fs::write(ledger.join("old-1.json"), "{").unwrap();
    let mut sleep = Sleeper::start("61011");
    write(at, "suite/b.json", &pauses("b", "sleep 61011"));
    let words = [
        "run",
        "--suite",
        "suite",
        "--junit",
        "junit.xml",
        "--markdown",
        "m.md",
    ];
    let said = said(at, &words);
    sleep.stop();
    assert_eq!(said.code, 6, "{said:?}");
    assert!(
        said.out.contains("not run       suite/c.json"),
        "{}",
        said.out
    );
    let xml = std::fs::read_to_string(at.join("junit.xml")).unwrap();
    assert!(
        xml.contains("<system-out>not run: suite/b.json is not clean</system-out>"),
        "{xml}"
    );
    let summary = std::fs::read_to_string(at.join("m.md")).unwrap();
    assert!(summary.contains("## ⏭️ not run: c"), "{summary}");
}

#[test]
fn suite_shards_together_run_each_experiment_once() {
    let folder = folder(&[("a", "true"), ("b", "true"), ("c", "true")]);
    let mut all = Vec::new();
    for shard in ["1/2", "2/2"] {
        let said = said(
            folder.path(),
            &["run", "--suite", "suite/*.json", "--shard", shard, "--json"],
        );
        assert_eq!(said.code, 0, "{said:?}");
        all.extend(ran(&said));
    }
    assert_eq!(all, ["suite/a.json", "suite/c.json", "suite/b.json"]);
    let empty = said(
        folder.path(),
        &["run", "--suite", "suite", "--shard", "5/5"],
    );
    assert_eq!(empty.code, 0, "{empty:?}");
    assert!(
        empty.err.contains("part 5/5 has none of the 3 experiments"),
        "{}",
        empty.err
    );
}

#[test]
fn suite_flags_that_do_not_fit_are_refused() {
    let folder = folder(&[("a", "true")]);
    for (words, why) in [
        (&["run"][..], "required"),
        (&["run", "x.json", "--suite", "suite"], "cannot be used"),
        (&["run", "suite/a.json", "--shard", "1/2"], "--suite"),
        (&["run", "suite/a.json", "--parallel", "2"], "--suite"),
        (
            &["run", "--suite", "suite", "--shard", "3/2"],
            "does not exist",
        ),
        (&["run", "--suite", "suite", "--parallel", "0"], "0"),
        (&["run", "--suite", "none"], "no such file or directory"),
        (
            &["run", "--suite", "suite", "--journal", "x"],
            "cannot be used",
        ),
        (
            &["run", "--suite", "suite", "--only-changed=--output=x"],
            "expected a commit",
        ),
        (
            &["run", "--suite", "suite", "--lock", "staging"],
            "requires a run on a fleet",
        ),
        (&["run", "suite/a.json", "--lock-timeout", "1s"], "--lock"),
        (
            &[
                "run",
                "suite/a.json",
                "--annotations",
                "github",
                "--annotations-file",
                "x",
            ],
            "requires `--annotations gitlab`",
        ),
        (
            &["run", "suite/a.json", "--junit", "x", "--markdown", "x"],
            "are the same file",
        ),
    ] {
        let said = said(folder.path(), words);
        assert_eq!(said.code, 2, "{words:?}: {said:?}");
        assert!(said.err.contains(why), "{words:?}: {}", said.err);
    }
    assert!(!folder.path().join("state").exists());
}

fn git(folder: &Path, words: &[&str]) {
    let done = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(words)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "{words:?}: {done:?}");
}

#[test]
fn suite_of_what_changed_has_commits_edits_and_new_files() {
    let folder = folder(&[
        ("a", "true"),
        ("b", "true"),
        ("c", "true"),
        ("d", "true"),
        ("gone", "true"),
    ]);
    let at = folder.path();
    std::fs::write(at.join("values.env"), "# one\n").unwrap();
    std::fs::write(at.join(".gitignore"), "state\n").unwrap();
    git(at, &["init", "-q"]);
    git(at, &["add", "."]);
    git(at, &["commit", "-q", "-m", "base"]);
    git(at, &["branch", "base"]);
    let run = |more: &[&str]| {
        said(
            at,
            &[
                &[
                    "run",
                    "--suite",
                    "suite",
                    "--json",
                    "--only-changed",
                    "base",
                ],
                more,
            ]
            .concat(),
        )
    };
    let said = run(&[]);
    assert_eq!((said.code, ran(&said).len()), (0, 0), "{said:?}");
    assert!(
        said.err
            .contains("none of the 5 experiments differs from `base`"),
        "{}",
        said.err
    );
    // A commit of the other branch changes nothing here.
    git(at, &["checkout", "-q", "base"]);
    write(at, "suite/d.json", &probes("d of base", "true"));
    git(at, &["commit", "-q", "-a", "-m", "later"]);
    git(at, &["checkout", "-q", "main"]);
    write(at, "suite/b.json", &probes("b changed", "true"));
    std::fs::remove_file(at.join("suite/gone.json")).unwrap();
    git(at, &["commit", "-q", "-a", "-m", "change"]);
    write(at, "suite/c.json", &probes("c edited", "true"));
    write(at, "suite/new ü.json", &probes("new", "true"));
    assert_eq!(
        ran(&run(&[])),
        ["suite/b.json", "suite/c.json", "suite/new ü.json"]
    );
    std::fs::write(at.join("values.env"), "# two\n").unwrap();
    assert_eq!(ran(&run(&["--var-file", "values.env"])).len(), 5);
    let unknown = program::said(
        at,
        &["run", "--suite", "suite", "--only-changed", "origin/none"],
    );
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.err.contains("fetch-depth: 0"), "{}", unknown.err);
}

/// A process to pause, which is ended with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(seconds: &str) -> Self {
        Sleeper(Command::new("sleep").arg(seconds).spawn().unwrap())
    }

    fn stop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// When each run of this folder's state injected its fault and when that had ended, by the wall clock.
fn times_of_faults(folder: &Path) -> Vec<(String, String, String)> {
    let mut times = Vec::new();
    for file in std::fs::read_dir(folder.join("state/runs")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let (mut title, mut from) = (String::new(), String::new());
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let at = event["at"].as_str().unwrap().to_owned();
            match event["event"].as_str().unwrap() {
                "run-started" => title = event["title"].as_str().unwrap().to_owned(),
                "injection-requested" => from = at,
                "injection-ended" => times.push((title.clone(), from.clone(), at)),
                _ => {}
            }
        }
    }
    times
}

#[test]
fn suite_in_parallel_never_hits_one_process_twice_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let _sleepers = [Sleeper::start("61021"), Sleeper::start("61022")];
    for (name, seconds) in [
        ("a1", 61021),
        ("a2", 61021),
        ("a3", 61021),
        ("b1", 61022),
        ("b2", 61022),
    ] {
        write(
            at,
            &format!("suite/{name}.json"),
            &pauses(name, &format!("sleep {seconds}")),
        );
    }
    let said = said(
        at,
        &["run", "--suite", "suite", "--parallel", "4", "--json"],
    );
    assert_eq!(said.code, 0, "{said:?}");
    let times = times_of_faults(at);
    assert_eq!(times.len(), 5, "{times:?}");
    let overlaps = |one: &(String, String, String), other: &(String, String, String)| {
        one.1 < other.2 && other.1 < one.2
    };
    for (place, one) in times.iter().enumerate() {
        for other in &times[place + 1..] {
            let same = one.0[..1] == other.0[..1];
            assert!(!same || !overlaps(one, other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn suite_in_parallel_goes_on_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Each waits until the other has begun, so one after the other would never hold.
    for (own, other) in [("a", "b"), ("b", "a")] {
        let script = format!(
            "touch {own}; for i in $(seq 400); do test -e {other} && exit 0; sleep 0.02; done; exit 1"
        );
        let mut document = probes(own, "true");
        document["method"] = json!([{"type": "probe", "name": "both", "tolerance": 0,
            "provider": {"type": "process", "path": "sh", "arguments": ["-c", script], "timeout": 20}}]);
        write(at, &format!("suite/{own}.json"), &document);
    }
    let said = said(at, &["run", "--suite", "suite", "--parallel", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn annotations_of_github_are_commands_and_nothing_else_is() {
    let folder = folder(&[("a", "true")]);
    let at = folder.path();
    let title = "::error::injected ##[error]too";
    write(at, "suite/b.json", &probes(title, "false"));
    let output = command(at, &["run", "--suite", "suite", "--annotations", "github"])
        .env("GITHUB_WORKSPACE", at)
        .output()
        .unwrap();
    let said = Said::from(output);
    assert_eq!(said.code, 1, "{said:?}");
    let is_command = |line: &&str| line.trim_start().starts_with("::");
    let commands: Vec<&str> = said.out.lines().filter(is_command).collect();
    assert_eq!(commands.len(), 1, "{}", said.out);
    assert!(
        commands[0].starts_with("::error file=suite/b.json,line=1,title=deviated%3A "),
        "{}",
        commands[0]
    );
    let groups: Vec<&str> = said.err.lines().filter(is_command).collect();
    assert_eq!(
        groups,
        [
            "::group::[1/2] suite/a.json",
            "::endgroup::",
            "::group::[2/2] suite/b.json",
            "::endgroup::"
        ]
    );
    assert!(
        !said.out.replace(commands[0], "").contains("##["),
        "{}",
        said.out
    );
    // With `--json`, stdout has nothing else.
    let json = program::said(
        at,
        &["run", "suite/b.json", "--annotations", "github", "--json"],
    );
    assert!(
        json.out
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{}",
        json.out
    );
    assert!(
        json.err.contains("::error file=suite/b.json,"),
        "{}",
        json.err
    );
}

#[test]
fn annotations_of_gitlab_are_a_report_of_code_quality() {
    let folder = folder(&[("a", "true"), ("b", "false")]);
    let at = folder.path();
    let said = said(at, &["run", "--suite", "suite", "--annotations", "gitlab"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(
        said.err.matches("\u{1b}[0Ksection_start:").count(),
        2,
        "{:?}",
        said.err
    );
    assert_eq!(
        said.err.matches("\u{1b}[0Ksection_end:").count(),
        2,
        "{:?}",
        said.err
    );
    let text = std::fs::read_to_string(at.join("gl-code-quality-report.json")).unwrap();
    let issues: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(issues.as_array().unwrap().len(), 1, "{issues}");
    assert_eq!(issues[0]["location"]["path"], "suite/b.json");
    assert_eq!(issues[0]["severity"], "major");
}

#[test]
fn annotation_of_an_invalid_experiment_names_its_problem() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "x.json", &json!({"title": "t"}));
    let words = [
        "run",
        "x.json",
        "--annotations",
        "github",
        "--markdown",
        "m.md",
        "--junit",
        "j.xml",
    ];
    let said = said(folder.path(), &words);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.out
            .starts_with("::error file=x.json,line=1,title=invalid%3A x.json::x.json: "),
        "{}",
        said.out
    );
    let summary = std::fs::read_to_string(folder.path().join("m.md")).unwrap();
    assert!(summary.starts_with("# ❌ invalid: x\\.json\n"), "{summary}");
    assert!(!folder.path().join("j.xml").exists());
}

#[test]
fn summary_of_a_fault_has_a_plot_and_shows_hostile_names_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let _sleeper = Sleeper::start("61031");
    let mut document = pauses("a | <script>b</script> [c](http://d) @e", "sleep 61031");
    document["steady-state-hypothesis"]["probes"][0]["name"] = "<img src=x>&".into();
    write(at, "x.json", &document);
    let said = said(at, &["run", "x.json", "--markdown", "m.md", "--seed", "7"]);
    assert_eq!(said.code, 0, "{said:?}");
    let summary = std::fs::read_to_string(at.join("m.md")).unwrap();
    assert!(
        summary.contains("```sh\nbackburn run x.json --seed 7\n```"),
        "{summary}"
    );
    let (from, until) = (
        summary.find("<svg ").unwrap(),
        summary.find("</svg>").unwrap(),
    );
    let svg = &summary[from..until];
    assert!(
        svg.contains(">process-pause on ") && svg.contains("fill=\"#c8502e\""),
        "{svg}"
    );
    assert!(svg.contains("&lt;img src=x&gt;&amp;"), "{svg}");
    assert!(
        !svg.contains("\n\n"),
        "an empty line ends HTML in Markdown: {svg}"
    );
    for raw in ["<script", "<img", "](http:", " @e"] {
        assert!(!summary.contains(raw), "{raw}: {summary}");
    }
}
