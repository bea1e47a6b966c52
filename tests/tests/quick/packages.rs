//! What is packaged, as far as that can be checked from the sources: the scripts of the packages, and the page that says how to install them.

use backburn_tests::pages::blocks;
use backburn_tests::programs::root;
use std::process::Command;

fn read(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn package_scripts_parse_and_start_nothing() {
    let folder = root().join("tests/packaging/debian");
    let mut scripts: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            format!(
                "tests/packaging/debian/{}",
                entry.expect("an entry").file_name().display()
            )
        })
        .collect();
    assert_eq!(scripts.len(), 6, "{scripts:?}");
    scripts.extend(
        [
            "tests/release",
            "tests/packaging/check",
            ".github/action/install.sh",
            ".github/action/run.sh",
        ]
        .map(str::to_owned),
    );
    for script in scripts {
        let parsed = Command::new("bash")
            .arg("-n")
            .arg(root().join(&script))
            .output()
            .expect("bash starts");
        assert!(
            parsed.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&parsed.stderr)
        );
        if script.ends_with("postinst") {
            let text = read(&script);
            for word in ["enable", "start ", "restart", "--now"] {
                let starts = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with('#'))
                    .any(|line| line.contains(word));
                assert!(!starts, "{script}: {word}");
            }
        }
    }
}

#[test]
fn package_check_runs_each_block_of_the_page_that_it_names() {
    let check = read("tests/packaging/check");
    let page = blocks(&root().join("docs/install.md"));
    let kinds: Vec<&str> = page
        .iter()
        .filter(|block| block.is(&["sh", "no-run"]))
        .filter_map(|block| block.words.get(2).map(String::as_str))
        .collect();
    assert_eq!(
        kinds,
        [
            "verify",
            "deb",
            "deb-remove",
            "deb-purge",
            "rpm",
            "rpm-remove"
        ]
    );
    for kind in kinds {
        assert!(check.contains(&format!("$(blocks {kind})")), "{kind}");
    }
}
