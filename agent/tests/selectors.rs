//! Process selectors against a made-up `/proc`: every criterion, who is spared, what a refusal says.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod made;

use backburn_agent::processes::{ProcessSelector, ProcessTable, Protection};
use made::{ID, Made};
use serde_json::json;
use std::fs;

#[test]
fn selector_criteria_find_their_processes() {
    let made = Made::new();
    let pid_file = made.path().join("nginx.pid");
    fs::write(&pid_file, "30\n").unwrap();
    for (selector, wanted) in [
        (json!({"name": "nginx"}), vec![30, 31, 32, 33]),
        (
            json!({"name": ["nginx", "postgres"]}),
            vec![30, 31, 32, 33, 40],
        ),
        (json!({"name": "a-very-long-name"}), vec![41]),
        (json!({"name": "a-very-long-nam"}), vec![41, 42]),
        (json!({"command-line": "worker$"}), vec![31, 32, 33]),
        (json!({"command-line": "postgres -D /data"}), vec![40]),
        (json!({"pid": 31}), vec![31]),
        (json!({"pid": [31, 32, 99999]}), vec![31, 32]),
        (json!({"pid-file": pid_file}), vec![30]),
        (json!({"user": 33}), vec![31, 32, 33]),
        (json!({"user": "root", "name": "nginx"}), vec![30]),
        (json!({"unit": "nginx"}), vec![30, 31, 32, 33]),
        (
            json!({"unit": "nginx.service", "user": 33}),
            vec![31, 32, 33],
        ),
        (
            json!({"cgroup": "/system.slice/nginx.service"}),
            vec![30, 31, 32, 33],
        ),
        (json!({"cgroup": "system.slice"}), vec![30, 31, 32, 33, 40]),
        (
            json!({"cgroup": "/sys/fs/cgroup/system.slice"}),
            vec![30, 31, 32, 33, 40],
        ),
        (
            json!({"cgroup": "/sys/fs/cgroup/unified/system.slice"}),
            vec![30, 31, 32, 33, 40],
        ),
        (
            json!({"cgroup": "/sys/fs/cgroup/cpu/system.slice"}),
            vec![30, 31, 32, 33],
        ),
        (
            json!({"cgroup": "/sys/fs/cgroup/cpu,cpuacct/system.slice/"}),
            vec![30, 31, 32, 33],
        ),
        (json!({"cgroup": "/sys/fs/cgroup/memory/docker"}), vec![40]),
        (json!({"container": ID}), vec![40]),
        (json!({"container": &ID[..12]}), vec![40]),
        (json!({"children-of": 30}), vec![31, 32, 33]),
        (json!({"children-of": "nginx"}), vec![31, 32, 33]),
        (json!({"parent-of": 31}), vec![30]),
        (json!({"parent-of": "nginx", "name": "nginx"}), vec![30]),
        (
            json!({"name": "nginx", "except": {"user": 0}}),
            vec![31, 32, 33],
        ),
        (
            json!({"name": "nginx", "except": [{"pid": 31}, {"children-of": 1}]}),
            vec![32, 33],
        ),
        (
            json!({"name": "nginx", "except": {"name": "nginx", "except": {"pid": 32}}}),
            vec![32],
        ),
    ] {
        assert_eq!(made.all(selector.clone()), wanted, "{selector}");
    }
}

#[test]
fn selector_partial_name_group_or_id_finds_nobody() {
    let made = Made::new();
    for selector in [
        json!({"name": "ngin"}),
        json!({"name": "NGINX"}),
        json!({"unit": "system"}),
        json!({"cgroup": "/system"}),
        json!({"cgroup": "/nginx.service"}),
        json!({"cgroup": "/sys/fs/cgroup/memory/system.slice"}),
        json!({"cgroup": "/unified/system.slice"}),
        json!({"container": "09d3e4f1c2ab"}),
        json!({"name": "nginx", "user": 70}),
        json!({"pid": 30, "name": "postgres"}),
        json!({"children-of": 31}),
    ] {
        assert_eq!(
            made.find(selector.clone()).unwrap_err().rule,
            "no-match",
            "{selector}"
        );
    }
}

#[test]
fn selector_default_picks_one_by_the_seed() {
    let made = Made::new();
    let pick = |seed| {
        let found = made
            .find_with(json!({"name": "nginx"}), &Protection::default(), seed)
            .unwrap();
        assert_eq!((found.victims.len(), found.matched), (1, 4));
        found.victims[0].id.pid
    };
    assert_eq!(pick(3), pick(3));
    let picked: std::collections::BTreeSet<i32> = (0..64).map(pick).collect();
    assert_eq!(picked, [30, 31, 32, 33].into());
}

#[test]
fn selector_order_oldest_and_newest_comes_first() {
    let made = Made::new();
    for (order, count, wanted) in [
        ("oldest", 1, vec![30]),
        ("oldest", 2, vec![30, 33]),
        ("newest", 1, vec![32]),
        ("newest", 3, vec![32, 31, 33]),
    ] {
        let selector = json!({"name": "nginx", "order": order, "select": {"count": count}});
        let found = made.find(selector).unwrap();
        let pids: Vec<i32> = found.victims.iter().map(|process| process.id.pid).collect();
        assert_eq!(pids, wanted, "{order} {count}");
    }
}

#[test]
fn selector_share_rounds_down_and_zero_is_an_error_with_hint() {
    let made = Made::new();
    let share = |percent: f64| made.find(json!({"name": "nginx", "select": {"percent": percent}}));
    assert_eq!(share(50.0).unwrap().victims.len(), 2);
    assert_eq!(share(74.9).unwrap().victims.len(), 2);
    assert_eq!(share(100.0).unwrap().victims.len(), 4);
    let none = share(24.9).unwrap_err();
    assert_eq!(none.rule, "no-match");
    assert!(none.hint.unwrap().starts_with("at least 25 percent"));
    let many = made
        .find(json!({"name": "nginx", "select": {"count": 5}}))
        .unwrap_err();
    assert_eq!(many.what, "5 are to be picked, and there are 4");
    for _ in 0..20 {
        let found = made
            .find(json!({"name": "nginx", "select": {"random-max-percent": 60}}))
            .unwrap();
        assert!((1..=2).contains(&found.victims.len()));
    }
}

#[test]
fn selector_never_hits_protected_processes() {
    let made = Made::new();
    for (selector, reason) in [
        (json!({"pid": 1}), "the first process"),
        (json!({"name": "kthreadd"}), "it is a kernel thread"),
        (json!({"pid": 9}), "it is a kernel thread"),
        (json!({"name": "late"}), "it is dead"),
        (json!({"name": "sshd"}), "protects the name `sshd`"),
        (json!({"pid": 21}), "protects the name `systemd-*`"),
        (json!({"name": "backburn-agent"}), "a process of Backburn"),
        (json!({"name": "backburn-helper"}), "a process of Backburn"),
    ] {
        let refusal = made.find(selector.clone()).unwrap_err();
        assert_eq!(refusal.rule, "protected", "{selector}");
        assert!(
            refusal.what.contains(reason),
            "{selector}: {}",
            refusal.what
        );
    }
    // The demo's own service is there to be hit.
    assert_eq!(made.all(json!({"name": "backburn"})), [61]);

    let protection = Protection {
        names: vec![],
        units: vec!["nginx".into()],
        users: vec!["70".into()],
        paths: Vec::new(),
    };
    let refusal = made
        .find_with(json!({"name": "nginx"}), &protection, 1)
        .unwrap_err();
    assert!(
        refusal
            .what
            .contains("the policy protects the unit `nginx`"),
        "{}",
        refusal.what
    );
    let refusal = made
        .find_with(json!({"name": "postgres"}), &protection, 1)
        .unwrap_err();
    assert!(
        refusal.what.contains("the policy protects the user `70`"),
        "{}",
        refusal.what
    );
    assert_eq!(
        made.find_with(json!({"name": "sshd"}), &protection, 1)
            .unwrap()
            .victims
            .len(),
        1
    );
}

#[test]
fn selector_reports_the_protected_beside_the_found() {
    let made = Made::new();
    let found = made.find(json!({"user": "root", "select": "all"})).unwrap();
    assert_eq!(
        found
            .victims
            .iter()
            .map(|process| process.id.pid)
            .collect::<Vec<_>>(),
        [30]
    );
    let notes = found.notes();
    assert!(
        notes.contains(&"spared kthreadd (2), kworker/0:1 (9): it is a kernel thread".to_owned()),
        "{notes:?}"
    );
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("spared sshd (20): ")),
        "{notes:?}"
    );
}

#[test]
fn selector_without_match_names_the_nearest_and_the_failing_part() {
    let made = Made::new();
    let refusal = made.find(json!({"name": "ngnix"})).unwrap_err();
    assert_eq!(refusal.what, "no process matches name `ngnix`");
    assert_eq!(refusal.hint.unwrap(), "did you mean `nginx`?");
    let refusal = made.find(json!({"name": "nginx", "user": 70})).unwrap_err();
    assert_eq!(
        refusal.what,
        "no process matches all criteria: name `nginx` matches 4, user `70` matches 1"
    );
}

#[test]
fn selector_problems_are_reported_together_with_paths() {
    let made = Made::new();
    let refusal = made
        .find(json!({
            "name": ["", "/usr/sbin/nginx"],
            "command-line": "(",
            "pid": 0,
            "cgroup": "/",
            "container": "4f1c",
            "listening": 0,
            "select": {"percent": 0},
            "except": [{"select": "all"}]
        }))
        .unwrap_err();
    assert_eq!(refusal.rule, "arguments");
    let at: Vec<&str> = refusal
        .problems
        .iter()
        .map(|problem| problem.at.as_str())
        .collect();
    assert_eq!(
        at,
        [
            "$.process.name",
            "$.process.name",
            "$.process.command-line",
            "$.process.pid",
            "$.process.listening",
            "$.process.cgroup",
            "$.process.container",
            "$.process.select.percent",
            "$.process.except[0]",
            "$.process.except[0]",
        ]
    );
    assert!(
        refusal
            .problems
            .iter()
            .all(|problem| problem.hint.is_some())
    );

    let path = |selector| made.find(selector).unwrap_err().problems.remove(0).at;
    assert_eq!(path(json!({})), "$.process");
    assert_eq!(path(json!({"select": "all"})), "$.process");
    assert_eq!(
        path(json!({"user": "nobody-of-that-name"})),
        "$.process.user"
    );
    assert_eq!(
        path(json!({"pid-file": "/nonexistent"})),
        "$.process.pid-file"
    );
    assert_eq!(
        path(json!({"name": "nginx", "except": {"user": "nobody-of-that-name"}})),
        "$.process.except.user"
    );
}

#[test]
fn selector_unreadable_process_table_is_an_error() {
    let selector: ProcessSelector = serde_json::from_value(json!({"name": "nginx"})).unwrap();
    let table = ProcessTable::at("/nonexistent");
    let refusal = selector
        .find("$", &table, &Protection::default(), 1)
        .unwrap_err();
    assert_eq!(refusal.rule, "failed");
    assert!(refusal.what.contains("/nonexistent"), "{refusal}");
}
