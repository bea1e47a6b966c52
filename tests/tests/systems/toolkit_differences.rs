//! Where we differ from the Chaos Toolkit on purpose: each row of the table "Where we differ",
//! both sides shown.

use backburn_tests::isolated::in_namespaces;
use backburn_tests::processes::{named, process};
use backburn_tests::software::Software;
use backburn_tests::toolkit::{Ran, Tool, oracle, run, start};
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One document through both, with the same flags: there, then here.
fn both(
    document: impl Fn(&Path) -> Value,
    flags: &[&str],
) -> Option<[(Ran, TempDir, Duration); 2]> {
    each(document, [flags, flags])
}

/// The same with flags for each.
fn each(
    document: impl Fn(&Path) -> Value,
    flags: [&[&str]; 2],
) -> Option<[(Ran, TempDir, Duration); 2]> {
    let python = oracle()?;
    Some(
        [(Tool::Toolkit(python), flags[0]), (Tool::Ours, flags[1])].map(|(tool, flags)| {
            let folder = tempfile::tempdir().expect("there is a place for temporary files");
            let started = Instant::now();
            let ran = run(tool, &document(folder.path()), folder.path(), flags);
            (ran, folder, started.elapsed())
        }),
    )
}

fn run_program(path: &str, arguments: Value) -> Value {
    json!({"type": "process", "path": path, "arguments": arguments, "timeout": 20})
}

fn action(name: &str, provider: Value) -> Value {
    json!({"type": "action", "name": name, "provider": provider})
}

fn touch(folder: &Path, name: &str) -> Value {
    action(name, run_program("touch", json!([folder.join(name)])))
}

fn remove(folder: &Path, name: &str) -> Value {
    action(
        &format!("no {name}"),
        run_program("rm", json!(["-f", folder.join(name)])),
    )
}

fn hypothesis(folder: &Path, name: &str) -> Value {
    let provider = run_program("test", json!(["-e", folder.join(name)]));
    json!({"title": "h", "probes": [{"type": "probe", "name": "there", "tolerance": 0, "provider": provider}]})
}

#[test]
fn gate_out_of_tolerance_means_not_started() {
    let document = |folder: &Path| {
        json!({
            "title": "t", "description": "d",
            "steady-state-hypothesis": hypothesis(folder, "sign"),
            "method": [touch(folder, "method")],
            "rollbacks": [touch(folder, "rollback")],
        })
    };
    let Some([(there, there_folder, _), (here, here_folder, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 0, "{}", there.said);
    assert_eq!(
        there.journal.expect("a journal")["steady_states"]["before"]["steady_state_met"],
        false
    );
    assert!(
        there_folder.path().join("rollback").exists(),
        "its rollbacks play, though nothing was done"
    );
    assert_eq!(here.code(), 3, "{}", here.said);
    assert!(
        !here_folder.path().join("method").exists(),
        "nothing was done"
    );
    assert!(
        !here_folder.path().join("rollback").exists(),
        "so nothing is rolled back"
    );
}

#[test]
fn hypothesis_broken_throughout_is_deviated() {
    let document = |folder: &Path| {
        json!({
            "title": "t", "description": "d",
            "steady-state-hypothesis": hypothesis(folder, "sign"),
            "runtime": {"hypothesis": {"strategy": "during-method-only"}},
            "method": [action("wait", run_program("sleep", json!(["1.5"])))],
        })
    };
    let Some([(there, _, _), (here, _, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 0, "{}", there.said);
    assert_eq!(there.journal.expect("a journal")["deviated"], false);
    assert_eq!(here.code(), 1, "{}", here.said);
    assert_eq!(here.journal.expect("a journal")["deviated"], true);
}

#[test]
fn hypothesis_broken_and_recovered_is_deviated_with_its_length() {
    let document = |folder: &Path| {
        std::fs::write(folder.join("sign"), "").expect("a temporary folder can be written to");
        json!({
            "title": "t", "description": "d",
            "steady-state-hypothesis": hypothesis(folder, "sign"),
            "runtime": {"hypothesis": {"strategy": "continuously"}},
            "abort": [],
            "method": [
                remove(folder, "sign"),
                action("wait", run_program("sleep", json!(["1.6"]))),
                touch(folder, "sign"),
                action("wait again", run_program("sleep", json!(["1.2"]))),
            ],
        })
    };
    let Some([(there, _, _), (here, _, _)]) = both(document, &["--hypothesis-frequency", "0.2"])
    else {
        return;
    };
    assert_eq!(there.code(), 0, "{}", there.said);
    assert_eq!(there.journal.expect("a journal")["deviated"], false);
    assert_eq!(here.code(), 1, "{}", here.said);
    assert!(here.said.contains("out of tolerance"), "{}", here.said);
    assert!(
        here.said.contains("for 1.") || here.said.contains("for 2."),
        "how long is told: {}",
        here.said
    );
}

#[test]
fn abort_does_not_wait_for_the_action() {
    let document = |folder: &Path| {
        std::fs::write(folder.join("sign"), "").expect("a temporary folder can be written to");
        let line = format!("rm -f '{}'; exec sleep 5", folder.join("sign").display());
        json!({
            "title": "t", "description": "d",
            "steady-state-hypothesis": hypothesis(folder, "sign"),
            "runtime": {"hypothesis": {"strategy": "continuously"}},
            "abort": [{"name": "it is gone", "probe": "there", "every": "200ms", "failures": 1}],
            // In one action: a check between two would end the other tool's run before the long one begins.
            "method": [action("long", run_program("sh", json!(["-c", line])))],
        })
    };
    let there = each(document, [&["--fail-fast"], &[]]);
    let Some([(_, _, there_took), (here, _, here_took)]) = there else {
        return;
    };
    assert!(
        there_took >= Duration::from_secs(5),
        "it ends with the action, after {there_took:?}"
    );
    assert_eq!(here.code(), 1, "{}", here.said);
    assert!(
        here_took < Duration::from_secs(2),
        "ended after {here_took:?}: {}",
        here.said
    );
}

/// A process to be hit, called `sleep`.
fn sleeper() -> Software {
    Software::start(Command::new("sleep").arg("300"))
}

/// A program stands still: by a process action there, by a fault here, and a rollback on top.
fn standstill(tool: Tool, folder: &Path, victim: i32) -> Value {
    let mut document = json!({
        "title": "t", "description": "d",
        "method": [touch(folder, "started")],
        "rollbacks": [touch(folder, "rollback")],
    });
    let method = document["method"].as_array_mut().expect("a list");
    if tool == Tool::Ours {
        let fault = json!({"type": "fault", "fault": "process-pause", "duration": "30s", "arguments": {"process": {"pid": victim}}});
        let mut pause = action("pause", fault);
        pause["background"] = json!(true);
        method.push(pause);
    } else {
        method.push(action(
            "pause",
            run_program("kill", json!(["-STOP", victim.to_string()])),
        ));
        document["rollbacks"]
            .as_array_mut()
            .expect("a list")
            .insert(
                0,
                action(
                    "go on",
                    run_program("kill", json!(["-CONT", victim.to_string()])),
                ),
            );
    }
    document["method"]
        .as_array_mut()
        .expect("a list")
        .push(action("long", run_program("sleep", json!(["4.321"]))));
    document
}

fn stands_still(pid: i32) -> bool {
    process(pid).is_some_and(|process| matches!(process.state, 'T' | 't'))
}

/// Starts it, waits until the program stands still in the middle of the method, and sends a signal.
fn interrupted(tool: Tool, signal: Signal, victim: i32) -> (Ran, TempDir) {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let running = start(
        tool,
        &standstill(tool, folder.path(), victim),
        folder.path(),
        &[],
    );
    wait_within("the victim stands still", Duration::from_secs(10), || {
        stands_still(victim)
    });
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(running.child.id() as i32), signal).expect("it runs");
    (running.finish(), folder)
}

#[test]
fn signal_reverts_and_rollbacks_follow_the_strategy() {
    in_namespaces(&[], || {
        let Some(python) = oracle() else {
            return;
        };
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let victim = sleeper();
            let (_, folder) = interrupted(Tool::Toolkit(python), signal, victim.pid());
            assert!(
                stands_still(victim.pid()),
                "there, what was done stays done"
            );
            assert!(!folder.path().join("rollback").exists());
            drop(victim);

            let victim = sleeper();
            let (here, folder) = interrupted(Tool::Ours, signal, victim.pid());
            assert_eq!(here.code(), 4, "{signal}: {}", here.said);
            assert!(!stands_still(victim.pid()), "{signal}: here it is put back");
            assert!(
                !folder.path().join("rollback").exists(),
                "by default an interrupt plays none"
            );
        }
    });
}

#[test]
fn run_killed_leaves_no_fault_no_child_and_a_journal() {
    in_namespaces(&[], || {
        let Some(python) = oracle() else {
            return;
        };
        let child = || {
            named("sleep").into_iter().any(|process| {
                std::fs::read(format!("/proc/{}/cmdline", process.pid))
                    .is_ok_and(|line| line.ends_with(b"4.321\0"))
            })
        };
        let victim = sleeper();
        let (there, _folder) = interrupted(Tool::Toolkit(python), Signal::SIGKILL, victim.pid());
        assert!(there.journal.is_none(), "there, no journal");
        assert!(stands_still(victim.pid()) && child(), "there, all goes on");
        drop(victim);
        wait_within("its child is over", Duration::from_secs(10), || !child());

        let victim = sleeper();
        let (_, folder) = interrupted(Tool::Ours, Signal::SIGKILL, victim.pid());
        wait_within("here, the victim runs on", Duration::from_secs(2), || {
            !stands_still(victim.pid())
        });
        wait_within("here, the child is ended", Duration::from_secs(2), || {
            !child()
        });
        let journal = backburn_tests::runs::newest_journal(folder.path());
        let run = backburn_experiments::journal::Run::fold(&journal).expect("it folds");
        assert_eq!(
            run.injections.len(),
            1,
            "the journal goes up to the last event"
        );
        assert!(!run.ended);
    });
}

#[test]
fn tolerance_on_an_action_is_evaluated() {
    let document = |_: &Path| {
        let mut fails = action("exits 1", run_program("false", json!([])));
        fails["tolerance"] = json!(0);
        json!({"title": "t", "description": "d", "method": [fails]})
    };
    let Some([(there, _, _), (here, _, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 0, "{}", there.said);
    assert_eq!(
        there.journal.expect("a journal")["run"][0]["status"],
        "succeeded"
    );
    assert_eq!(here.code(), 1, "{}", here.said);
    assert_eq!(
        here.journal.expect("a journal")["run"][0]["output"]["status"],
        1,
        "the output is recorded"
    );
}

/// A tolerance's own probe with a tolerance of its own: there it is left out without a word.
#[test]
fn tolerance_of_a_tolerance_is_evaluated() {
    let document = |_: &Path| {
        let is_even = json!({"type": "python", "module": "oracle_functions", "func": "is_even", "arguments": {"value": ""}});
        let answer = json!({"type": "python", "module": "oracle_functions", "func": "add", "arguments": {"a": 40, "b": 2}});
        let tolerance =
            json!({"type": "probe", "name": "even", "provider": is_even, "tolerance": false});
        json!({
            "title": "t", "description": "d",
            "steady-state-hypothesis": {"title": "h", "probes": [{"type": "probe", "name": "p", "provider": answer, "tolerance": tolerance}]},
            "runtime": {"hypothesis": {"strategy": "after-method-only"}},
            "method": [],
        })
    };
    let Some([(there, _, _), (here, _, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 0, "{}", there.said);
    assert_eq!(here.code(), 1, "{}", here.said);
}

#[test]
fn process_arguments_are_not_given_to_a_shell() {
    let document = |folder: &Path| {
        let arguments = format!("one; touch {}", folder.join("shell").display());
        json!({"title": "t", "description": "d", "method": [action("echo", run_program("echo", json!(arguments)))]})
    };
    let Some([(there, there_folder, _), (here, here_folder, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 0, "{}", there.said);
    assert!(
        there_folder.path().join("shell").exists(),
        "there, a shell ran it"
    );
    assert_eq!(here.code(), 2, "{}", here.said);
    assert!(
        here.said.contains("$.method[0].provider.arguments") && here.said.contains("sh"),
        "{}",
        here.said
    );
    assert!(!here_folder.path().join("shell").exists());
}

#[test]
fn validation_reports_every_problem_of_a_document() {
    let document = |_: &Path| {
        json!({
            "title": "t", "description": "d",
            "method": [
                {"type": "action", "name": "no provider"},
                {"type": "action", "name": "no path", "provider": {"type": "process"}},
                {"type": "action", "name": "misspelt", "provider": {"type": "process", "path": "true", "timeot": 3}},
            ],
        })
    };
    let Some([(there, _, _), (here, _, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 1, "{}", there.said);
    assert!(
        !there.said.contains("no path"),
        "there, the first: {}",
        there.said
    );
    assert_eq!(here.code(), 2, "{}", here.said);
    for at in [
        "$.method[0]",
        "$.method[1].provider",
        "$.method[2].provider.timeot",
        "timeout",
    ] {
        assert!(here.said.contains(at), "{at} in: {}", here.said);
    }
}

/// Ours alone: environment variables of a program, which the toolkit leaves out without a word.
#[test]
fn process_provider_gets_its_environment_variables() {
    let document = |_: &Path| {
        let provider = json!({"type": "process", "path": "printenv", "arguments": ["MINE"], "env": {"MINE": "here"}});
        json!({"title": "t", "description": "d", "method": [action("print", provider)]})
    };
    let Some([(there, _, _), (here, _, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(
        there.journal.expect("a journal")["run"][0]["output"]["status"],
        1
    );
    assert_eq!(
        here.journal.expect("a journal")["run"][0]["output"]["stdout"],
        "here\n"
    );
}

/// Programs are looked for before anything runs, there as here.
#[test]
fn missing_program_is_found_before_anything_is_done() {
    let document = |folder: &Path| {
        let missing = action("missing", run_program("/nowhere/to/be/found", json!([])));
        json!({"title": "t", "description": "d", "method": [touch(folder, "first"), missing]})
    };
    let Some([(there, there_folder, _), (here, here_folder, _)]) = both(document, &[]) else {
        return;
    };
    assert_eq!(there.code(), 1, "{}", there.said);
    assert!(!there_folder.path().join("first").exists());
    assert_eq!(here.code(), 3, "{}", here.said);
    assert!(here.said.contains("/nowhere/to/be/found"), "{}", here.said);
    assert!(!here_folder.path().join("first").exists());
}
