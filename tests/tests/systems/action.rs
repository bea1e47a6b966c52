//! The action for GitHub, step by step as GitHub's runner takes them, and the template for GitLab.

use backburn_tests::programs::{backburn, root};
use backburn_tests::toolkit::oracle;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// An experiment whose hypothesis is that this program exits with 0.
fn experiment(title: &str, program: &str) -> String {
    json!({"title": title, "description": "d", "method": [], "runtime": {"hypothesis": {"strategy": "after-method-only"}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "p", "tolerance": 0, "provider": {"type": "process", "path": program}}]}})
    .to_string()
}

/// A checkout with one experiment that holds, and one that does not if `deviates`.
fn workspace(deviates: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let suite = folder.path().join("experiments");
    std::fs::create_dir(&suite).expect("it can be made");
    std::fs::write(suite.join("a.json"), experiment("a", "true")).expect("it can be written");
    if deviates {
        let title = "::set-output name=x::injected ##[add-mask]y";
        std::fs::write(suite.join("b.json"), experiment(title, "false"))
            .expect("it can be written");
    }
    folder
}

fn sha256(file: &Path) -> String {
    let sum = Command::new("sha256sum")
        .arg(file)
        .output()
        .expect("it starts");
    let sum = String::from_utf8(sum.stdout).expect("it is text");
    sum.split_whitespace().next().expect("a sum").to_owned()
}

/// Plays the action in this workspace.
fn play(python: &Path, workspace: &Path, inputs: &Value) -> Value {
    let temporary = tempfile::tempdir().expect("there is a place for temporary files");
    let output = Command::new(python)
        .arg(root().join("tests/action/play.py"))
        .args([&root().join(".github/action"), workspace, temporary.path()])
        .arg(inputs.to_string())
        .env_remove("BACKBURN_STATE")
        .env_remove("BACKBURN_CONTROLLER")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

#[test]
fn action_with_a_suite_that_deviates_reports_it_everywhere() {
    let Some(python) = oracle() else { return };
    let workspace = workspace(true);
    let program = backburn();
    let inputs = json!({"url": format!("file://{}", program.display()), "sha256": sha256(&program), "suite": "experiments"});
    let played = play(python, workspace.path(), &inputs);
    assert_eq!(played["exit-code"], 1, "{played:#}");
    assert_eq!(
        played["outputs"],
        json!({"exit-code": "1", "verdict": "deviated"})
    );
    let annotations = played["annotations"].as_array().expect("a list");
    assert_eq!(annotations.len(), 1, "{played:#}");
    assert_eq!(annotations[0]["level"], "error");
    assert_eq!(annotations[0]["file"], "experiments/b.json");
    // The title is shown as it is, and obeyed by nobody.
    assert_eq!(
        annotations[0]["title"],
        "deviated: ::set-output name=x::injected ##[add-mask]y"
    );
    assert_eq!(played["unknown"], json!([]), "{played:#}");
    assert_eq!(
        played["groups"],
        json!(["[1/2] experiments/a.json", "[2/2] experiments/b.json"])
    );
    let summary = played["summary"].as_str().expect("text");
    assert!(
        summary.starts_with("# ❌ 1 of 2 experiments held"),
        "{summary}"
    );
    let files = played["uploads"][0]["files"].as_array().expect("a list");
    let has = |end: &str| {
        files
            .iter()
            .any(|file| file.as_str().is_some_and(|file| file.ends_with(end)))
    };
    assert!(
        has("junit.xml") && has("summary.md") && has(".jsonl"),
        "{files:?}"
    );
}

#[test]
fn action_with_a_suite_that_holds_succeeds() {
    let Some(python) = oracle() else { return };
    let workspace = workspace(false);
    let program = backburn();
    let inputs = json!({"url": format!("file://{}", program.display()), "sha256": sha256(&program),
        "experiment": "experiments/a.json", "artifact": ""});
    let played = play(python, workspace.path(), &inputs);
    assert_eq!(played["exit-code"], 0, "{played:#}");
    assert_eq!(
        played["outputs"],
        json!({"exit-code": "0", "verdict": "held"})
    );
    assert_eq!(
        (&played["annotations"], &played["uploads"]),
        (&json!([]), &json!([])),
        "{played:#}"
    );
}

#[test]
fn action_with_a_wrong_checksum_installs_and_runs_nothing() {
    let Some(python) = oracle() else { return };
    let workspace = workspace(false);
    for (sha256, why) in [
        ("0".repeat(64), "checksum"),
        (String::new(), "64 hexadecimal digits"),
        ("$(id)".into(), "64 hexadecimal digits"),
    ] {
        let inputs = json!({"url": format!("file://{}", backburn().display()), "sha256": sha256, "suite": "experiments"});
        let played = play(python, workspace.path(), &inputs);
        assert_eq!(played["exit-code"], 2, "{played:#}");
        let message = played["annotations"][0]["message"].as_str().expect("text");
        assert!(message.contains(why), "{message}");
        assert_eq!(played["outputs"]["exit-code"], "", "{played:#}");
    }
}

#[test]
fn action_inputs_are_never_run_as_a_script() {
    let Some(python) = oracle() else { return };
    let workspace = workspace(false);
    let program = backburn();
    let hostile = "x\"; touch injected; $(touch injected) `touch injected` '";
    for input in [
        "suite",
        "experiment",
        "shard",
        "only-changed",
        "parallel",
        "lock",
        "controller",
        "reports",
    ] {
        let mut inputs = json!({"url": format!("file://{}", program.display()), "sha256": sha256(&program), input: hostile});
        if !matches!(input, "suite" | "experiment") {
            inputs["suite"] = "experiments".into();
        }
        play(python, workspace.path(), &inputs);
        assert!(!workspace.path().join("injected").exists(), "{input}");
    }
}

#[test]
fn gitlab_template_runs_its_script_with_the_reports_it_names() {
    let Some(python) = oracle() else { return };
    let workspace = workspace(true);
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let parsed = Command::new(python)
        .args(["-c", read])
        .arg(root().join("docs/ci/gitlab.yml"))
        .output()
        .expect("it starts");
    let template: Value = serde_json::from_slice(&parsed.stdout).expect("YAML");
    let job = &template[".backburn"];
    let lines = |key: &str| -> Vec<&str> {
        let lines = job[key].as_array().expect("a list");
        lines.iter().filter_map(Value::as_str).collect()
    };
    let script = [lines("before_script"), lines("script")]
        .concat()
        .join("\n");
    let program = backburn();
    let done = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &script])
        .current_dir(workspace.path())
        .env("BACKBURN_SUITE", "experiments")
        .env("BACKBURN_URL", format!("file://{}", program.display()))
        .env("BACKBURN_SHA256", sha256(&program))
        .env("BACKBURN_STATE", workspace.path().join("backburn-state"))
        .env("CI_NODE_INDEX", "1")
        .env("CI_NODE_TOTAL", "1")
        .env_remove("BACKBURN_CONTROLLER")
        .output()
        .expect("it starts");
    assert_eq!(
        done.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let reports = &job["artifacts"]["reports"];
    for report in [
        &reports["junit"],
        &reports["codequality"],
        &job["artifacts"]["paths"][0],
        &job["artifacts"]["paths"][1],
    ] {
        let report = report.as_str().expect("a path");
        assert!(workspace.path().join(report).exists(), "{report}");
    }
    // What the template tolerates are the two outcomes that show nothing.
    assert_eq!(job["allow_failure"]["exit_codes"], json!([3, 5]));
}
