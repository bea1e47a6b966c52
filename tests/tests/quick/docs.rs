//! Holds the docs to the truth: JSON is valid, shell is run and says what the page says it says,
//! links lead somewhere, and the reference is what the programs say of themselves.
//!
//! The words after a fence say what a block is: `json experiment FILE` (a whole experiment, which
//! the shell of its page finds under that name), `json policy FILE`, `json` (a part of something),
//! `sh` (run, in the order of the page, in one folder), `sh no-run` (only parsed). A `text` block
//! after `sh` has lines of what it prints, in their order; figures may differ, `…` is anything.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::pages::{Block, anchors, blocks, links, pages, short, text};
use backburn_tests::programs::{backburn, backburn_agent, root};
use backburn_tests::{api_reference, reference};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that all the shell of a page may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the shell of a page needs.
const PROGRAMS: [&str; 6] = ["bash", "unshare", "python3", "pgrep", "setsid", "ip"];

/// Begins the line that is printed before each block.
const MARK: char = '\u{1e}';

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

fn output(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{words:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("it says UTF-8")
}

fn json(program: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&output(program, words)).expect("it prints JSON")
}

#[test]
fn json_blocks_are_valid() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let (mut found, mut experiments, mut policies) = (Vec::new(), 0, 0);
    for block in pages().iter().flat_map(|page| blocks(page)) {
        if !block.is(&["json"]) {
            continue;
        }
        let file = folder.path().join("block.json");
        std::fs::write(&file, &block.content).expect("a temporary folder can be written to");
        let judged = if block.is(&["json", "experiment"]) {
            experiments += 1;
            Command::new(backburn()).arg("validate").arg(&file).output()
        } else if block.is(&["json", "policy"]) {
            policies += 1;
            let mut agent = Command::new(backburn_agent());
            agent.arg("doctor").arg("--policy").arg(&file);
            agent.arg("--state").arg(folder.path().join("state"));
            agent.output()
        } else {
            if let Err(error) = serde_json::from_str::<Value>(&block.content) {
                found.push(format!("{}: {error}", block.at));
            }
            continue;
        };
        let judged = judged.expect("it starts");
        if !judged.status.success() {
            let said = String::from_utf8_lossy(&judged.stderr);
            found.push(format!("{}: {said}", block.at));
        }
    }
    none("JSON in the docs that is not valid", found);
    assert!(
        experiments >= 4 && policies >= 1,
        "{experiments} experiments, {policies} policies"
    );
}

/// The subcommands that a program's help names.
fn subcommands(program: &Path) -> BTreeSet<String> {
    let help = output(program, &["--help"]);
    let commands = help.split("Commands:").nth(1).unwrap_or_default();
    let lines = commands
        .lines()
        .skip(1)
        .take_while(|line| !line.trim().is_empty());
    lines
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The shell of a page as a reader who has installed it would write it.
fn installed(content: &str) -> String {
    content.replace("cargo run --release -- ", "backburn ")
}

#[test]
fn shell_blocks_parse_and_name_existing_commands() {
    let known = [
        ("backburn", subcommands(&backburn())),
        ("backburn-agent", subcommands(&backburn_agent())),
    ];
    assert!(known.iter().all(|(_, commands)| commands.len() > 3));
    let mut found = Vec::new();
    let shell = pages().into_iter().flat_map(|page| blocks(&page));
    for block in shell.filter(|block| block.is(&["sh"])) {
        let mut bash = Command::new("bash");
        let parsed = bash.args(["-n", "-c", &block.content]).output();
        let parsed = parsed.expect("bash starts");
        if !parsed.status.success() {
            let said = String::from_utf8_lossy(&parsed.stderr);
            found.push(format!("{}: {said}", block.at));
        }
        for line in installed(&block.content).lines() {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| *word == "sudo" || word.contains('='));
            let (Some(program), Some(command)) = (words.next(), words.next()) else {
                continue;
            };
            let program = program.rsplit('/').next().unwrap_or(program);
            let is_known = |(name, commands): &(&str, BTreeSet<String>)| {
                program != *name || command.starts_with('-') || commands.contains(command)
            };
            if !known.iter().all(is_known) {
                found.push(format!("{}: `{program}` has no `{command}`", block.at));
            }
        }
    }
    none("shell in the docs that would not work", found);
}

#[test]
fn shell_blocks_do_what_their_page_says() {
    // Alone among processes and on the loopback: a page's experiment hits by name or by port, and others are there too.
    in_network_namespace(&PROGRAMS, || {
        let mut found = Vec::new();
        let mut run = 0;
        for page in pages() {
            let blocks = blocks(&page);
            let count = blocks.iter().filter(|block| is_run(block)).count();
            if count > 0 {
                run += count;
                found.extend(play(&page, &blocks));
            }
        }
        none("shell in the docs that does not do what it says", found);
        assert!(run >= 10, "only {run} blocks were run");
    });
}

fn is_run(block: &Block) -> bool {
    block.is(&["sh"]) && !block.is(&["sh", "no-run"])
}

/// Runs a page's shell in a folder of its own; what went otherwise than the page says.
fn play(page: &Path, blocks: &[Block]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let place = folder.path().join("here");
    std::fs::create_dir(&place).expect("a temporary folder can be written to");
    let mut script = String::from("set -euo pipefail\n");
    for (number, block) in blocks.iter().enumerate() {
        if let (true, Some(name)) = (block.is(&["json"]), block.words.get(2)) {
            std::fs::write(place.join(name), &block.content).expect("it can be written");
        }
        if is_run(block) {
            script += &format!("printf '{MARK}%s\\n' {number}\n");
            // Whoever types starts the next line when what the last one put in the background has begun.
            script += &installed(&block.content).replace(" &\n", " &\nsleep 0.5\n");
        }
    }
    script += &format!("printf '{MARK}end\\n'\n");

    let said = folder.path().join("said");
    let file = || File::options().append(true).create(true).open(&said);
    let programs = backburn().parent().expect("it is in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(programs).chain(std::env::split_paths(&path));
    // Not a pipe: what a page starts in the background would keep it open.
    let mut bash = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&place)
        .env("PATH", std::env::join_paths(path).expect("paths"))
        .env("BACKBURN_STATE", folder.path().join("state"))
        .env("HOME", folder.path())
        .env_remove("BACKBURN_POLICY")
        .env_remove("BACKBURN_LOG")
        .stdin(Stdio::null())
        .stdout(file().expect("it can be written"))
        .stderr(file().expect("it can be written"))
        .process_group(0)
        .spawn()
        .expect("bash starts");
    let group = nix::unistd::Pid::from_raw(bash.id() as i32);
    let until = Instant::now() + PATIENCE;
    while bash
        .try_wait()
        .expect("a child can be waited for")
        .is_none()
        && Instant::now() < until
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    // What the page started in the background; it may have ended all of it itself.
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
    let status = bash.wait().expect("a child can be waited for");

    let said = std::fs::read_to_string(&said).expect("it is UTF-8");
    let parts: Vec<(&str, &str)> = said
        .split(MARK)
        .skip(1)
        .filter_map(|part| part.split_once('\n'))
        .collect();
    let mut found = Vec::new();
    if parts.last().is_none_or(|(number, _)| *number != "end") {
        let last = parts.last().and_then(|(number, _)| number.parse().ok());
        let at = last.map_or_else(|| short(page), |last: usize| blocks[last].at.clone());
        found.push(format!("{at}: ended there with {status}:\n{said}"));
        return found;
    }
    for (number, printed) in parts {
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        let after = blocks.get(number + 1).filter(|block| block.is(&["text"]));
        if let Some(missing) = after.and_then(|after| missing(&after.content, printed)) {
            let at = &blocks[number + 1].at;
            found.push(format!(
                "{at}: `{missing}` is not printed there:\n{printed}"
            ));
        }
    }
    found
}

/// The first line of a page's block that is not printed, in its turn.
fn missing<'a>(wanted: &'a str, printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines().map(plain);
    wanted
        .lines()
        .find(|line| !printed.any(|printed| holds(&printed, &plain(line))))
}

/// A line without what differs from run to run: each figure is a 0, and each length of time a `0s`, whatever its unit.
fn plain(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line.trim());
    while let Some(c) = rest.chars().next() {
        if !c.is_ascii_digit() {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let after = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        match &rest[..rest.len() - after.len()] {
            "h" | "m" | "s" | "ms" | "us" => {
                rest = after;
                // `1m30s` is one length.
                if !out.ends_with("0s") {
                    out.push_str("0s");
                }
            }
            _ => out.push('0'),
        }
    }
    out
}

/// Whether a line holds the parts of another between its `…`, in their order.
fn holds(line: &str, wanted: &str) -> bool {
    let mut rest = line;
    wanted.split('…').all(|part| match rest.find(part.trim()) {
        Some(at) => {
            rest = &rest[at + part.trim().len()..];
            true
        }
        None => false,
    })
}

#[test]
fn shown_line_is_found_whatever_its_figures() {
    let printed = "  0.086s  injected\nprobe `a`: 3 of 15 samples, for 3.0 s\nexit code 1\n";
    assert_eq!(missing("injected\n3 of 5 samples\n", printed), None);
    assert_eq!(missing("probe …: 2 of … samples\n", printed), None);
    assert_eq!(
        missing("exit code 1\ninjected\n", printed),
        Some("injected"),
        "the order counts"
    );
    assert_eq!(missing("exit codes\n", printed), Some("exit codes"));
    let gone = "gone after 1m30s (1 of 1)\n";
    assert_eq!(missing("gone after 9ms (2 of 2)\n", gone), None);
    assert_eq!(
        missing("gone after 9 of 2\n", gone),
        Some("gone after 9 of 2")
    );
}

#[test]
fn links_lead_to_existing_places() {
    let (mut found, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for (line, link) in links(&page) {
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().expect("a page is in a folder").join(path),
            };
            let at = format!("{}:{line}: {link}", short(&page));
            if !target.exists() {
                found.push(format!("{at}: there is no such file"));
            } else if !anchor.is_empty() && !anchors(&target).iter().any(|known| known == anchor) {
                found.push(format!("{at}: there is no such heading"));
            }
        }
    }
    none("links that lead nowhere", found);
    assert!(seen > 10, "only {seen} links");
}

#[test]
fn reference_matches_the_programs() {
    let faults = json(&backburn(), &["faults", "--json"]);
    let made = [
        (
            "faults.md",
            reference::faults(faults.as_array().expect("a list")),
        ),
        (
            "experiment.md",
            reference::experiment(&json(&backburn(), &["schema"])),
        ),
        (
            "policy.md",
            reference::policy(&json(&backburn_agent(), &["schema"])),
        ),
        (
            "controller-policy.md",
            reference::controller_policy(&json(&backburn(), &["schema", "controller-policy"])),
        ),
        (
            "oidc.md",
            reference::oidc(&json(&backburn(), &["schema", "oidc"])),
        ),
        (
            "api.md",
            api_reference::page(&json(&backburn(), &["openapi"])),
        ),
        (
            "cli.md",
            reference::command_line(&backburn(), &backburn_agent()),
        ),
    ];
    let folder = root().join("docs/reference");
    let mut stale = Vec::new();
    for (name, page) in &made {
        let path = folder.join(name);
        if std::env::var_os("BACKBURN_BLESS").is_some() {
            std::fs::write(&path, page).expect("the docs can be written to");
        } else if !path.exists() || text(&path) != *page {
            stale.push(short(&path));
        }
    }
    none(
        "pages that are stale; `BACKBURN_BLESS=1 cargo test -p backburn-tests --test quick docs` makes them anew",
        stale,
    );
    let there: BTreeSet<PathBuf> = std::fs::read_dir(&folder)
        .expect("the reference is there")
        .map(|file| file.expect("a folder can be listed").path())
        .collect();
    let known = made.iter().map(|(name, _)| folder.join(name)).collect();
    assert_eq!(there, known, "pages that nobody makes");
}

#[test]
fn exit_code_tables_match_the_programs() {
    for page in ["README.md", "docs/concepts.md"] {
        let page = text(&root().join(page));
        let rows: Vec<&str> = page
            .lines()
            .skip_while(|line| *line != "| verdict | exit | means |")
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let wanted: Vec<String> = backburn_experiments::journal::exit_codes()
            .iter()
            .map(|exit| format!("| {} | {} | {} |", exit.name, exit.code, exit.meaning))
            .collect();
        assert_eq!(rows, wanted);
    }
}
