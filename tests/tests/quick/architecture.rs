//! Guards the structure: which crate may use which, no circles among modules, one name for one type, one fault in one file, files
//! that say what they are for. That the documents are true, `docs.rs` checks.

use backburn_tests::programs::{backburn, root};
use backburn_tests::source::{CRATES, Modules, doc_comments, files, short, text, types};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names that stand for several types yet, with how many. This list only shrinks.
const KNOWN_TWINS: &[(&str, usize)] = &[];

/// How many doc comments have three words or fewer. This number only shrinks.
const SHORT_DOC_COMMENTS: usize = 160;

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("it starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("it says UTF-8")
}

fn metadata() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    let text = output(cargo.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]));
    serde_json::from_str(&text).expect("metadata is JSON")
}

/// The crates of this house that a crate needs when it is used, tests left out.
fn needs(metadata: &Value, name: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().expect("a list");
    let package = packages
        .iter()
        .find(|package| package["name"] == name)
        .unwrap_or_else(|| panic!("no crate {name}"));
    let needed = package["dependencies"].as_array().expect("a list").iter();
    needed
        .filter(|needed| needed["kind"].is_null() && !needed["path"].is_null())
        .map(|needed| needed["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn crates_depend_only_on_those_below() {
    let metadata = metadata();
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(needs(&metadata, "backburn-experiments"), set(&[]));
    assert_eq!(
        needs(&metadata, "backburn-agent"),
        set(&["backburn-experiments", "backburn-programs"])
    );
    assert_eq!(needs(&metadata, "backburn-programs"), set(&[]));
    assert_eq!(
        needs(&metadata, "backburn"),
        set(&[
            "backburn-agent",
            "backburn-experiments",
            "backburn-programs"
        ])
    );
    let controller = metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|p| p["name"] == "backburn");
    let agent = controller.expect("it is there")["dependencies"]
        .as_array()
        .expect("a list")
        .iter();
    let agent = agent
        .filter(|needed| needed["name"] == "backburn-agent")
        .collect::<Vec<_>>();
    assert!(
        agent.iter().all(|needed| needed["optional"] == true),
        "the controller's library needs no agent: {agent:?}"
    );
}

/// The files that a crate's root reaches by `mod name;`.
fn reached(file: &Path, found: &mut BTreeSet<PathBuf>) {
    if !found.insert(file.to_owned()) {
        return;
    }
    let is_root = ["lib.rs", "main.rs", "mod.rs"]
        .iter()
        .any(|name| file.ends_with(name));
    let folder = if is_root {
        file.parent().expect("a folder").to_owned()
    } else {
        file.with_extension("")
    };
    for line in text(file).lines() {
        let line = line
            .trim()
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let Some(name) = line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        else {
            continue;
        };
        for next in [
            folder.join(format!("{name}.rs")),
            folder.join(name).join("mod.rs"),
        ] {
            if next.exists() {
                reached(&next, found);
            }
        }
    }
}

#[test]
fn controller_library_never_names_the_agent() {
    let mut library = BTreeSet::new();
    reached(&root().join("controller/src/lib.rs"), &mut library);
    assert!(
        library.len() > 5,
        "the library has more files than {library:?}"
    );
    let named = library
        .iter()
        .filter(|file| text(file).contains("backburn_agent"))
        .map(|file| short(file));
    none("these name the agent's crate", named.collect());
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "check",
        "--quiet",
        "--locked",
        "-p",
        "backburn",
        "--lib",
        "--no-default-features",
    ]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    output(&mut cargo);
}

/// What carries the whole weight of a rule must not do what the rule forbids. Addresses are values and no doors.
#[test]
fn experiments_crate_does_no_input_or_output() {
    let doors = [
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "std::process",
        "std::env",
        "tokio",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
    ];
    let mut found = Vec::new();
    for file in files(&root().join("experiments/src"), ".rs") {
        // Tests may measure how long something takes.
        let name = short(&file);
        if name.ends_with("/tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = text(&file);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            if let Some(door) = doors.iter().find(|door| line.contains(*door)) {
                found.push(format!("{}:{}: {door}", short(&file), number + 1));
            }
        }
    }
    none("the experiments crate has doors to the machine", found);
}

#[test]
fn faults_of_the_list_are_one_file_each() {
    let listed = output(Command::new(backburn()).args(["faults", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("a list of faults is JSON");
    let listed: BTreeSet<String> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|fault| fault["name"].as_str().expect("a name").to_owned())
        .collect();
    let written: BTreeSet<String> = files(&root().join("agent/src/faults"), ".rs")
        .iter()
        .filter(|file| text(file).contains("impl FaultKind for "))
        .map(|file| {
            file.file_stem()
                .expect("a name")
                .to_string_lossy()
                .replace('_', "-")
        })
        .collect();
    assert!(written.len() >= 5, "{written:?}");
    assert_eq!(
        listed, written,
        "`backburn faults` and the files in agent/src/faults"
    );
}

#[test]
fn files_begin_with_their_purpose() {
    let found = files(root(), ".rs")
        .into_iter()
        .filter(|file| !text(file).starts_with("//!"))
        .map(|file| short(&file));
    none("files that do not begin with `//!`", found.collect());
}

#[test]
fn modules_of_a_crate_use_each_other_without_circles() {
    let found = CRATES.iter().flat_map(|(name, file)| {
        let circles = Modules::read(file).circles().into_iter();
        circles.map(move |circle| format!("{name}: {circle}"))
    });
    none("modules that use each other in a circle", found.collect());
}

#[test]
fn type_names_stand_for_one_type_each() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (krate, file) in CRATES {
        let modules = Modules::read(file);
        for module in modules.paths() {
            for name in types(modules.tokens_of(module)) {
                let place = format!("{krate} {}", module.join("::"));
                places.entry(name).or_default().push(place);
            }
        }
    }
    let twins = places.iter().filter(|(_, places)| places.len() > 1);
    let found: BTreeMap<&str, usize> = twins
        .map(|(name, places)| (name.as_str(), places.len()))
        .collect();
    let known: BTreeMap<&str, usize> = KNOWN_TWINS.iter().copied().collect();
    let all: Vec<String> = found
        .keys()
        .map(|name| format!("{name}: {}", places[*name].join(", ")))
        .collect();
    assert_eq!(
        found,
        known,
        "left: names of several types; right: those that are known. Take another name, and strike out what is gone:\n{}",
        all.join("\n")
    );
}

#[test]
fn doc_comments_of_three_words_or_fewer_get_fewer() {
    let mut found = Vec::new();
    for room in ["experiments/src", "agent/src", "controller/src"] {
        for file in files(&root().join(room), ".rs") {
            for (line, comment) in doc_comments(&text(&file)) {
                if comment.split_whitespace().count() <= 3 {
                    found.push(format!("{}:{line}: {comment}", short(&file)));
                }
            }
        }
    }
    assert!(
        found.len() <= SHORT_DOC_COMMENTS,
        "{} doc comments have three words or fewer, at most {SHORT_DOC_COMMENTS} may: write sentences\n{}",
        found.len(),
        found.join("\n")
    );
    assert!(
        found.len() + 50 > SHORT_DOC_COMMENTS,
        "only {} doc comments have three words or fewer: lower the bound of {SHORT_DOC_COMMENTS}",
        found.len()
    );
}

#[test]
fn files_name_no_path_of_a_developers_machine() {
    // Put together here, so that this file does not name one either.
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/user"),
    ];
    let mut found = Vec::new();
    for file in files(root(), "") {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place)) {
                found.push(format!("{}:{}: {line}", short(&file), number + 1));
            }
        }
    }
    none("paths of one machine", found);
}

#[test]
fn programs_are_started_without_a_shell() {
    let mut found = Vec::new();
    for room in ["experiments/src", "agent/src", "controller/src"] {
        for file in files(&root().join(room), ".rs") {
            let text = text(&file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let starts = line.contains("Command::new(") || line.contains("execv");
                let shell = ["\"sh\"", "\"bash\"", "/bin/sh", "/bin/bash", "\"dash\""]
                    .iter()
                    .any(|shell| line.contains(shell));
                if starts && shell {
                    found.push(format!("{}:{}: {}", short(&file), number + 1, line.trim()));
                }
            }
        }
    }
    none("shells are started", found);
}

#[test]
fn dependencies_are_explained_in_a_decision_page() {
    let manifest = text(&root().join("Cargo.toml"));
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next());
    let pages: String = files(&root().join("docs/decisions"), ".md")
        .iter()
        .map(|page| text(page))
        .collect();
    let unnamed = section
        .expect("there are dependencies")
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name.trim()))
        .filter(|name| !name.starts_with("backburn"))
        .filter(|name| !pages.contains(&format!("`{name}`")))
        .map(str::to_owned);
    none(
        "dependencies that no page of docs/decisions names, in back-ticks",
        unnamed.collect(),
    );
}

#[test]
fn readme_commands_exist() {
    let readme = text(&root().join("README.md"));
    for command in ["cargo run --release -- demo", "./tests/run"] {
        assert!(readme.contains(command), "the README names `{command}`");
    }
    for file in ["tests/run", ".ci/run", "tests/bench/run"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = root()
            .join(file)
            .metadata()
            .map(|file| file.permissions().mode());
        assert!(
            mode.is_ok_and(|mode| mode & 0o111 != 0),
            "{file} can be started"
        );
    }
}
