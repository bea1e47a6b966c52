//! Holds what is deployed with to the truth: units, compose file, settings and policies name what there is.

use backburn::service::FleetPolicy;
use backburn_tests::pages::{blocks, pages};
use backburn_tests::programs::{backburn, backburn_agent, root};
use backburn_tests::reference;
use std::path::{Path, PathBuf};
use std::process::Command;

fn file(name: &str) -> String {
    let path = deploy(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn deploy(name: &str) -> PathBuf {
    root().join("docs/deploy").join(name)
}

/// Whether a program knows these words: its help for the subcommand names each flag.
fn knows(words: &[&str]) -> Result<(), String> {
    let (program, mut rest) = match words {
        ["backburn", "agent", rest @ ..] | ["backburn-agent", rest @ ..] => {
            (backburn_agent(), rest.to_vec())
        }
        ["backburn", rest @ ..] => (backburn(), rest.to_vec()),
        other => return Err(format!("{other:?}: another program")),
    };
    let command = rest.remove(0);
    let help = Command::new(program).args([command, "--help"]).output();
    let help = help.expect("it starts");
    if !help.status.success() {
        return Err(format!("there is no `{command}`"));
    }
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let unknown = rest
        .iter()
        .filter(|word| word.starts_with("--"))
        .find(|flag| !help.split_whitespace().any(|word| word == **flag));
    match unknown {
        Some(flag) => Err(format!("`{command}` has no `{flag}`")),
        None => Ok(()),
    }
}

#[test]
fn systemd_units_start_existing_commands() {
    let mut seen = 0;
    for unit in ["backburn-controller.service", "backburn-agent.service"] {
        for line in file(unit).lines() {
            let Some((key, command)) = line.split_once('=') else {
                continue;
            };
            if !key.starts_with("ExecStart") {
                continue;
            }
            seen += 1;
            let words: Vec<&str> = command.trim_start_matches('-').split_whitespace().collect();
            let program = words[0].rsplit('/').next().expect("a path");
            let words: Vec<&str> = [program].into_iter().chain(words[1..].to_vec()).collect();
            knows(&words).unwrap_or_else(|why| panic!("{unit}: {why}"));
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn compose_file_starts_existing_commands() {
    let mut seen = 0;
    for line in file("compose.yaml").lines() {
        let Some(list) = line.trim().strip_prefix("command: ") else {
            continue;
        };
        seen += 1;
        let words: Vec<String> = serde_json::from_str(list).expect("a list");
        let words: Vec<&str> = ["backburn"]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        knows(&words).unwrap_or_else(|why| panic!("compose.yaml: {why}"));
    }
    assert_eq!(seen, 2);
}

#[test]
fn deployed_settings_are_those_that_are_read() {
    let known = reference::command_line(&backburn(), &backburn_agent());
    let mut seen = 0;
    for line in file("controller.env").lines() {
        let line = line.trim_start_matches("# ");
        let Some((name, _)) = line.split_once('=').filter(|(name, _)| {
            let ours = ["BACKBURN_", "OTEL_"];
            ours.iter().any(|start| name.starts_with(start)) && !name.contains(char::is_whitespace)
        }) else {
            continue;
        };
        seen += 1;
        assert!(
            known.contains(name) || name == "BACKBURN_LOG",
            "nobody reads {name}"
        );
    }
    assert_eq!(seen, 13);
}

#[test]
fn controller_policies_of_deploy_are_accepted() {
    let faults: Vec<&str> = (backburn_agent::faults::FAULTS.iter())
        .map(|fault| fault.name)
        .collect();
    FleetPolicy::load(&deploy("controller-policy.json"), &faults)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut seen = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        if block.is(&["json", "controller-policy"]) {
            seen += 1;
            FleetPolicy::of(&block.content)
                .unwrap_or_else(|wrong| panic!("{}: {wrong:?}", block.at));
        }
    }
    assert!(seen >= 1);
}

#[test]
fn wrong_policy_is_refused_with_every_problem() {
    let wrong = r#"{"rules": [{"name": "a", "max-percent": 200, "quite": []},
        {"name": "b", "quiet": [{"hours": "late"}], "blackouts": ["soon"], "time-zone": "Mars"}]}"#;
    let problems = FleetPolicy::of(wrong).expect_err("it is wrong");
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let shown = shown.join("\n");
    for place in ["$.rules[0].max-percent", "$.rules[0].quite"] {
        assert!(shown.contains(place), "{place}: {shown}");
    }
    // What no schema can say is told when the shape is right.
    let wrong = r#"{"rules": [{"name": "b", "quiet": [{"hours": "late"}], "blackouts": ["soon"], "time-zone": "Mars"}]}"#;
    let problems = FleetPolicy::of(wrong).expect_err("it is wrong");
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let shown = shown.join("\n");
    for place in [
        "$.rules[0].quiet[0]",
        "$.rules[0].blackouts[0]",
        "$.rules[0].time-zone",
    ] {
        assert!(shown.contains(place), "{place}: {shown}");
    }
}

/// Programs that run whatever they are told, or reach whatever they are pointed at.
const GENERAL_TOOLS: [&str; 34] = [
    "sh",
    "bash",
    "dash",
    "zsh",
    "busybox",
    "env",
    "sudo",
    "su",
    "xargs",
    "find",
    "awk",
    "gawk",
    "sed",
    "perl",
    "python",
    "python3",
    "ruby",
    "node",
    "php",
    "lua",
    "java",
    "curl",
    "wget",
    "nc",
    "ncat",
    "socat",
    "ssh",
    "rsync",
    "tar",
    "git",
    "redis-cli",
    "psql",
    "mysql",
    "openssl",
];

/// What is wrong with a program as an example of one to allow.
fn problem_of_example(program: &str) -> Option<String> {
    let path = Path::new(program);
    let name = path.file_name().and_then(|name| name.to_str());
    if name.is_none_or(|name| GENERAL_TOOLS.contains(&name)) {
        return Some(format!("`{program}` is a general tool"));
    }
    // Debian's is a Perl script, which runs any version's program.
    if name == Some("pg_isready") && !program.starts_with("/usr/lib/postgresql/") {
        return Some(format!("`{program}` is a script on Debian"));
    }
    let begins = std::fs::read(path).ok()?;
    (!begins.starts_with(b"\x7fELF")).then(|| format!("`{program}` is a script here"))
}

#[test]
fn allowed_programs_of_the_docs_are_no_scripts_and_no_general_tools() {
    for (program, is_fine) in [
        ("/usr/bin/pg_isready", false),
        ("pg_isready", false),
        ("/bin/sh", false),
        ("curl", false),
        ("/usr/lib/postgresql/15/bin/pg_isready", true),
    ] {
        assert_eq!(problem_of_example(program).is_none(), is_fine, "{program}");
    }
    let mut seen = 0;
    let mut wrong = Vec::new();
    let policies = ["controller-policy.json"].map(file);
    let pages = pages();
    let examples = pages.iter().flat_map(|page| blocks(page));
    let examples: Vec<String> = examples.map(|block| block.content).collect();
    for text in examples.iter().chain(&policies) {
        let Ok(policy) = serde_json::from_str::<serde_json::Value>(text) else {
            continue;
        };
        let allowed = policy["allow-programs"].as_array();
        for entry in allowed.into_iter().flatten() {
            seen += 1;
            let program = entry.as_str().or_else(|| entry["program"].as_str());
            wrong.extend(problem_of_example(program.unwrap_or_default()));
        }
    }
    assert!(seen >= 1, "no example allows a program");
    // Examples within sentences: what is quoted as a policy's list.
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap_or_default();
        for (start, _) in text.match_indices("\"program\": \"") {
            let program = text[start..].split('"').nth(3).unwrap_or_default();
            wrong.extend(problem_of_example(program));
        }
        for tool in [
            "[\"/usr/bin/pg_isready\"]",
            "[\"pg_isready\"]",
            "[\"curl\"]",
            "[\"sh\"]",
        ] {
            assert!(!text.contains(tool), "{page:?} allows {tool}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
