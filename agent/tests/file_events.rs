//! Operations on files that wait or fail, and files with wrong bytes, on a real file system.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod made;
mod made_host;

use backburn_agent::changes::{Observed, OriginalFile, ReversibleChange as _};
use backburn_agent::helpers::HelperSpec;
use backburn_agent::plan::{FoundFile, LocalHost};
use backburn_agent::processes::ProcessTable;
use common::{Helper, is_root};
use look::{helper_of, host, plan};
use made_host::MadeHost;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LONG: u64 = 60_000;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A file with this content in a folder.
fn file(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn planned(fault: &str, arguments: Value) -> HelperSpec {
    helper_of(&plan(&LocalHost::default(), fault, arguments).unwrap())
}

/// What `cat` says of a file, and how long it took. Not this process, which is the helper's parent.
fn cat(path: &Path) -> (String, Duration) {
    let begin = Instant::now();
    let output = Command::new("cat")
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let said = match output.status.success() {
        true => output.stdout,
        false => output.stderr,
    };
    (String::from_utf8_lossy(&said).into_owned(), begin.elapsed())
}

#[test]
fn file_latency_open_waits_and_files_beside_it_do_not() {
    if !is_root("file_latency_open_waits") {
        return;
    }
    let folder = folder();
    let (slow, beside) = (
        file(&folder, "slow", b"slow"),
        file(&folder, "beside", b"beside"),
    );
    let role = planned("file-latency", json!({"path": slow, "delay": "400ms"}));
    let mut helper = Helper::start(&role, LONG);
    assert_eq!(helper.ready(), "1 paths watched");
    let (said, took) = cat(&slow);
    assert_eq!(said, "slow");
    assert!(took >= Duration::from_millis(400), "{took:?}");
    let table = ProcessTable::default();
    let effect = role.helper().effect(helper.id.pid, &table);
    assert!(effect.acts, "{effect:?}");
    assert_eq!(effect.figures["affected-operations"], 1.0);
    cat(&beside);
    let effect = role.helper().effect(helper.id.pid, &table);
    assert_eq!(effect.figures["operations"], 1.0, "{effect:?}");
    // The agent does not wait for itself.
    let begin = Instant::now();
    std::fs::read(&slow).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(300));
    helper.kill();
    assert_eq!(cat(&slow).0, "slow");
    assert!(!role.helper().effect(helper.id.pid, &table).acts);
}

#[test]
fn file_latency_waiting_operation_goes_on_when_the_helper_dies() {
    if !is_root("file_latency_waiting") {
        return;
    }
    let folder = folder();
    let slow = file(&folder, "slow", b"slow");
    let role = planned(
        "file-latency",
        json!({"path": folder.path(), "delay": "60s"}),
    );
    let mut helper = Helper::start(&role, LONG);
    helper.ready();
    let waiting = std::thread::spawn(move || cat(&slow));
    let table = ProcessTable::default();
    common::until("it waits", || {
        role.helper().effect(helper.id.pid, &table).figures["affected-operations"] == 1.0
    });
    helper.kill();
    let (said, took) = waiting.join().unwrap();
    assert_eq!(said, "slow");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn file_error_operations_fail_with_the_error_until_the_helper_dies() {
    if !is_root("file_error_operations") {
        return;
    }
    let folder = folder();
    let broken = file(&folder, "broken", b"broken");
    for (arguments, wanted) in [
        (json!({"path": broken}), "Input/output error"),
        (
            json!({"path": broken, "error": "ENOSPC"}),
            "No space left on device",
        ),
        (
            json!({"path": folder.path(), "error": "EPERM"}),
            "Operation not permitted",
        ),
        (
            json!({"path": broken, "on": "access"}),
            "Input/output error",
        ),
    ] {
        let spec = plan(&LocalHost::default(), "file-error", arguments.clone());
        let role = match spec {
            Ok(plan) => helper_of(&plan),
            // What a kernel cannot do, the plan says.
            Err(refusal) => {
                assert_eq!(refusal.rule, "not-available", "{arguments}: {refusal:?}");
                println!("not available here: {arguments}: {}", refusal.what);
                continue;
            }
        };
        let mut helper = Helper::start(&role, LONG);
        helper.ready();
        let (said, _) = cat(&broken);
        assert!(said.contains(wanted), "{arguments}: {said}");
        let effect = role
            .helper()
            .effect(helper.id.pid, &ProcessTable::default());
        assert!(effect.acts, "{effect:?}");
        helper.kill();
        assert_eq!(cat(&broken).0, "broken", "{arguments}");
    }
}

#[test]
fn file_error_share_of_operations_fails_for_that_share() {
    if !is_root("file_error_share") {
        return;
    }
    let folder = folder();
    let broken = file(&folder, "broken", b"broken");
    let role = planned("file-error", json!({"path": broken, "percent": 40}));
    let helper = Helper::start(&role, LONG);
    helper.ready();
    let tries = "import sys
failed = 0
for _ in range(300):
    try:
        open(sys.argv[1]).close()
    except OSError:
        failed += 1
print(failed)";
    let output = Command::new("python3")
        .args(["-c", tries])
        .arg(&broken)
        .output()
        .unwrap();
    let failed: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    assert!((80..=160).contains(&failed), "{failed}");
}

#[test]
fn file_corrupt_file_has_wrong_bytes_or_no_end_until_undone() {
    let folder = folder();
    let content: Vec<u8> = (0..200_u8).collect();
    let path = file(&folder, "index", &content);
    let host = host();
    for (arguments, differ, length) in [
        (json!({"path": path, "bytes": 8, "from": 100}), 8, 200),
        (json!({"path": path}), 1, 200),
        (json!({"path": path, "length": "25%"}), 0, 50),
        (json!({"path": path, "bytes": 150, "length": 150}), 150, 150),
    ] {
        let plan = plan(&LocalHost::default(), "file-corrupt", arguments.clone()).unwrap();
        let [change] = plan.changes.as_slice() else {
            panic!("{plan:?}")
        };
        change.apply(&host).unwrap();
        assert!(matches!(
            change.observe(&host).unwrap(),
            Observed::Present(_)
        ));
        let is = std::fs::read(&path).unwrap();
        assert_eq!(is.len(), length, "{arguments}");
        let wrong = is
            .iter()
            .zip(&content)
            .filter(|(is, was)| is != was)
            .count();
        assert_eq!(wrong, differ, "{arguments}");
        assert!(arguments.get("from").is_none() || is[..100] == content[..100]);
        change.undo(&host).unwrap();
        assert_eq!(change.observe(&host).unwrap(), Observed::Absent);
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn file_faults_bad_input_is_refused_with_the_rule() {
    let made = made::Made::new();
    let mut host = MadeHost::new(&made);
    let has = |path: &str, length: u64| {
        let file = OriginalFile {
            device: 7,
            inode: 8,
            length,
            mode: 0o644,
            user: 0,
            group: 0,
            modified: 1,
            modified_nanoseconds: 0,
        };
        let path = PathBuf::from(path);
        let found = FoundFile {
            path: path.clone(),
            file,
            links: 1,
        };
        (path, (found, vec![0; length.min(100) as usize]))
    };
    host.files = [
        has("/data/index", 100),
        has("/data/empty", 0),
        has("/data/large", 2 << 30),
        has("/protected/ledger", 10),
    ]
    .into();
    let path = "/data/index";
    for (fault, arguments, rule) in [
        ("file-latency", json!({"path": path, "delay": "1ms"}), ""),
        (
            "file-latency",
            json!({"path": [path, "/data"], "delay": "1ms", "on": ["read", "open"]}),
            "",
        ),
        (
            "file-latency",
            json!({"path": path, "delay": "0s"}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": path, "delay": "61s"}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": path, "delay": "1s", "jitter": "2s"}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": [], "delay": "1s"}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": "index", "delay": "1s"}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": path, "delay": "1s", "on": []}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": path, "delay": "1s", "on": "close"}),
            "arguments",
        ),
        (
            "file-latency",
            json!({"path": "/none", "delay": "1s"}),
            "no-match",
        ),
        (
            "file-latency",
            json!({"path": "/protected/ledger", "delay": "1s"}),
            "protected",
        ),
        ("file-error", json!({"path": path}), ""),
        (
            "file-error",
            json!({"path": path, "error": "ENOENT"}),
            "arguments",
        ),
        (
            "file-error",
            json!({"path": path, "percent": 0}),
            "arguments",
        ),
        (
            "file-error",
            json!({"path": "/protected/ledger"}),
            "protected",
        ),
        ("file-corrupt", json!({"path": path, "bytes": 100}), ""),
        (
            "file-corrupt",
            json!({"path": path, "bytes": 101}),
            "no-match",
        ),
        (
            "file-corrupt",
            json!({"path": path, "from": 100}),
            "no-match",
        ),
        (
            "file-corrupt",
            json!({"path": path, "length": 100}),
            "no-match",
        ),
        (
            "file-corrupt",
            json!({"path": path, "length": "100%"}),
            "arguments",
        ),
        (
            "file-corrupt",
            json!({"path": path, "bytes": 0}),
            "arguments",
        ),
        ("file-corrupt", json!({"path": "index"}), "arguments"),
        ("file-corrupt", json!({"path": "/data/empty"}), "no-match"),
        ("file-corrupt", json!({"path": "/data/large"}), "too-large"),
        (
            "file-corrupt",
            json!({"path": "/protected/ledger"}),
            "protected",
        ),
    ] {
        let refused = plan(&host, fault, arguments.clone()).err();
        let refused = refused.map_or(String::new(), |refusal| refusal.rule);
        assert_eq!(refused, rule, "{fault} {arguments}");
    }
}
