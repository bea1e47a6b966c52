//! Commands whose output is for programs, and what they print where a person sits at a terminal.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/command.rs"]
mod command;
#[path = "support/controller.rs"]
mod controller;

use command::{command, said};
use controller::Controller;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

/// Runs a command whose standard output is a terminal. Its exit code, what the terminal got, and what was said on stderr.
fn on_terminal(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(&path).unwrap();
    let mut command = command(folder, words);
    command.stdout(slave).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // It has the last descriptor of the terminal now, which ends with it.
    drop(command);
    let mut shown = Vec::new();
    let mut master = File::from(master);
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = master.read(&mut bytes) {
        shown.extend_from_slice(&bytes[..count]);
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(shown), text(output.stderr))
}

#[test]
fn export_to_a_terminal_is_refused_and_not_audited() {
    let folder = tempfile::tempdir().unwrap();
    let exported = said(folder.path(), &["export", "first.jsonl", "--data", "data"]);
    assert_eq!(exported.code, 0, "{exported:?}");
    let (code, shown, said_on_stderr) =
        on_terminal(folder.path(), &["export", "-", "--data", "data"]);
    assert_eq!((code, shown.as_str()), (Some(2), ""));
    assert!(
        said_on_stderr.contains("this is a terminal\nhint: name a file"),
        "{said_on_stderr}"
    );
    // The same by the terminal's path.
    let (code, shown, said_on_stderr) =
        on_terminal(folder.path(), &["export", "/dev/stdout", "--data", "data"]);
    assert_eq!((code, shown.as_str()), (Some(2), ""), "{said_on_stderr}");
    // Into a program, and what was refused is not in the log.
    let piped = said(folder.path(), &["export", "-", "--data", "data"]);
    let exports = piped.out.matches("\"what\":\"export\"").count();
    assert_eq!((piped.code, exports), (0, 2), "{}", piped.out);
    // A file keeps nothing of what was there.
    std::fs::write(folder.path().join("long.jsonl"), vec![b'x'; 1 << 20]).unwrap();
    assert_eq!(
        said(folder.path(), &["export", "long.jsonl", "--data", "data"]).code,
        0
    );
    let text = std::fs::read_to_string(folder.path().join("long.jsonl")).unwrap();
    assert!(text.ends_with("}\n") && !text.contains("xx"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_on_a_terminal_is_a_table_and_json_lines_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(&folder.path().join("data")).await;
    let why = "a\u{1b}]0;b\u{7}\nc";
    let halt = json!({"why": why});
    let halted = controller.ask("POST", "/api/v1/halt", Some(&halt)).await;
    assert_eq!(halted.status, 200);
    let at = controller.address.to_string();
    let place = folder.path().to_owned();
    let works = tokio::task::spawn_blocking(move || {
        let given = [
            "--controller",
            at.as_str(),
            "--token-file",
            "data/admin-token",
        ];
        let words = |more: &[&'static str]| [&["audit"], more, &given].concat();
        let table = on_terminal(&place, &words(&[]));
        let lines = on_terminal(&place, &words(&["--json"]));
        let piped = said(&place, &words(&[]));
        let none = on_terminal(&place, &words(&["--after", "99"]));
        (table, lines, piped, none)
    });
    let (table, lines, piped, none) = works.await.unwrap();
    assert_eq!(table.0, Some(0), "{table:?}");
    let rows: Vec<&str> = table.1.lines().collect();
    assert!(rows[0].starts_with("NUMBER  TIME"), "{rows:?}");
    let halt = rows.iter().find(|row| row.contains(" halt ")).unwrap();
    for part in ["admin", "everything", "done", "\\u001b]0;b\\u0007\\nc"] {
        assert!(halt.contains(part), "{part}: {halt}");
    }
    assert!(!table.1.contains('\u{1b}') && !table.1.contains("hash"));
    for text in [&lines.1, &piped.out] {
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["detail"]["why"], why);
        assert!(last["hash"].is_string());
    }
    assert_eq!((none.0, none.1.as_str()), (Some(0), ""));
    assert!(none.2.contains("no entries after number 99"), "{}", none.2);
    controller.stop().await;
}

#[test]
fn mistakes_on_the_agents_command_line_have_the_form_of_all_others() {
    let folder = tempfile::tempdir().unwrap();
    for (words, what, hint) in [
        (
            &["agent", "revert", "--al"][..],
            "error: unexpected argument `--al` found\n",
            "hint: did you mean `--all`?\n",
        ),
        (
            &["agent", "dotcor"],
            "error: unrecognized subcommand `dotcor`\n",
            "hint: did you mean `doctor`?\n",
        ),
        (
            &["agent", "xyzzy\u{202e}"],
            "error: unrecognized subcommand `xyzzy\\u202e`\n",
            "hint: `backburn agent help` lists the commands\n",
        ),
        (
            &["agent", "join"],
            "error: the following required arguments were not provided:\n",
            "hint: `backburn agent join --help` shows how it is used\n",
        ),
        (
            &["agent", "inject", "process-pause", "--duration"],
            "error: a value is required for `--duration",
            "hint: ",
        ),
        (
            &["agent", "connect", "--log-format", "xml"],
            "error: invalid value `xml` for `--log-format",
            "hint: ",
        ),
        (
            &["agent", "connect", "--proxy", "socks5://user:secret@p"],
            "error: a proxy of the kind `socks5` is not supported\n",
            "hint: a proxy reads ",
        ),
    ] {
        let said = said(folder.path(), words);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{words:?}");
        assert!(said.err.starts_with(what), "{words:?}: {}", said.err);
        assert!(said.err.contains(hint), "{words:?}: {}", said.err);
        assert!(
            !said.err.contains("Usage:") && !said.err.contains("tip:"),
            "{}",
            said.err
        );
        assert!(!said.err.contains("secret"), "{}", said.err);
    }
}
