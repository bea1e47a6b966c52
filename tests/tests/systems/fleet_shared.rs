//! Two runs on one agent at once, because both say so: each has its own fault and its own end, and whoever dies, both are
//! put back.

use backburn_tests::fleet::{Ended, Fleet, Given, PROGRAMS, Victim, strike};
use backburn_tests::isolated::in_network_namespace;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Who is hit, by the command line.
const ONE: &str = "^tail -f /dev/null$";
const OTHER: &str = "^tail -n 0 -f /dev/null$";

fn victims(fleet: &Fleet) -> [Victim; 2] {
    let host = fleet.host("a");
    [
        host.victim(),
        host.victim_with(&["-n", "0", "-f", "/dev/null"]),
    ]
}

/// Pauses a victim on the agent, alone there or not.
fn pause(victim: &str, duration: &str, shared: bool) -> Value {
    json!({
        "title": "rest", "description": "A process stands still",
        "targets": {"all": {"labels": {"role": "a"}, "select": "all"}},
        "steady-state-hypothesis": backburn_tests::fleet::hypothesis(),
        "method": [{"type": "action", "name": "pause", "provider": {
            "type": "fault", "fault": "process-pause", "targets": "all", "duration": duration,
            "arguments": {"process": {"command-line": victim}}}}],
        "blast-radius": {"agents": {"max": 1}, "shared": shared},
    })
}

/// The runs that hold the agent.
fn holders(fleet: &Fleet) -> Vec<String> {
    let agent = fleet.ask("GET /api/v1/agents/a").json();
    let runs = agent["runs"].as_array().expect("a list").iter();
    let mut runs: Vec<String> = runs
        .map(|run| run.as_str().expect("an id").to_owned())
        .collect();
    runs.sort();
    runs
}

/// It ended like this, it owes nothing, and its journal tells of no injection but its own.
fn assert_ended(ended: &Ended, code: i32) {
    assert_eq!(ended.code, code, "{ended:#?}");
    assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
    for event in &ended.events {
        let injection = event["injection"].as_str();
        assert!(
            injection.is_none_or(|injection| injection.starts_with(&ended.run)),
            "{event:#}"
        );
    }
    assert_eq!(ended.of("injection-ended").len(), 1, "{ended:#?}");
}

fn assert_overlap(ended: &Ended, words: &str) {
    assert_eq!(ended.code, 3, "{ended:#?}");
    let refused = ended.of("not-started")[0];
    assert_eq!(refused["rule"], "overlap", "{refused:#}");
    assert!(refused.to_string().contains(words), "{refused:#}");
}

#[test]
fn runs_share_an_agent_when_both_allow_it() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = Fleet::new(&[("a", &["role=a"])], Given::default());
        let [one, other] = victims(&fleet);
        let word = r#"\"shared\": true"#;

        // Who does not say so has it alone, whoever comes first.
        let alone = fleet.begin("alone", &pause(ONE, "10m", false));
        one.until_paused();
        assert_overlap(&fleet.run("late", &pause(OTHER, "100ms", true)), word);
        assert_eq!(fleet.says(&["stop", &alone]).code, 0);
        assert_ended(&fleet.until_over(&alone), 4);
        let first = fleet.begin("first", &pause(ONE, "10m", true));
        one.until_paused();
        assert_overlap(&fleet.run("late", &pause(OTHER, "100ms", false)), word);

        // A victim is one run's, whatever they say: that is for the agent to know.
        let held = format!("is held by injection `{first}-1`");
        assert_overlap(&fleet.run("same", &pause(ONE, "100ms", true)), &held);

        // One comes and goes by itself, one is ended by its own rule, one is stopped: none of that is the first one's affair.
        let second = fleet.run("second", &pause(OTHER, "500ms", true));
        assert_ended(&second, 0);
        assert!(one.is_paused() && !other.is_paused());
        let mut ruled = pause(OTHER, "10m", true);
        ruled["abort"] = json!([{"name": "always", "every": "100ms",
            "host": {"metric": "memory-available-percent", "below": 101}}]);
        let ruled = fleet.run("ruled", &ruled);
        assert_ended(&ruled, 4);
        assert_eq!(ruled.of("aborted")[0]["rule"], "always", "{ruled:#?}");
        assert!(one.is_paused() && !other.is_paused());
        let second = fleet.begin("second", &pause(OTHER, "10m", true));
        other.until_paused();
        let mut both = vec![first.clone(), second.clone()];
        both.sort();
        assert_eq!(holders(&fleet), both);
        assert_eq!(fleet.says(&["stop", &first]).code, 0);
        let first = fleet.until_over(&first);
        assert_ended(&first, 4);
        assert_eq!(first.of("aborted").len(), 1, "{first:#?}");
        assert!(!one.is_paused() && other.is_paused());
        assert_eq!(holders(&fleet), [second.as_str()]);
        assert_eq!(fleet.says(&["stop", &second]).code, 0);
        assert_ended(&fleet.until_over(&second), 4);
        assert!(!other.is_paused());
        fleet.until_clean();
        assert_ended(&fleet.run("alone", &pause(ONE, "100ms", false)), 0);
    });
}

#[test]
fn faults_of_two_runs_on_an_agent_are_reverted_whoever_dies() {
    in_network_namespace(&PROGRAMS, || {
        let mut fleet = Fleet::new(&[("a", &["role=a"])], Given::default());
        let victims = victims(&fleet);
        for (whom, code) in [("worker", 4), ("halt", 4), ("controller", 5)] {
            println!("{whom}");
            let runs = [ONE, OTHER].map(|victim| fleet.begin("both", &pause(victim, "10m", true)));
            victims.iter().for_each(Victim::until_paused);
            match whom {
                "worker" => strike(fleet.host("a").processes()[2], Signal::SIGKILL),
                "halt" => {
                    let halt = fleet.says(&["halt", "--json"]);
                    assert_eq!(halt.code, 0, "{halt:?}");
                    assert!(!victims.iter().any(Victim::is_paused));
                    assert_eq!(fleet.says(&["resume"]).code, 0);
                }
                _ => {
                    fleet.kill();
                    victims.iter().for_each(Victim::until_free);
                    fleet.start(&[]);
                }
            }
            victims.iter().for_each(Victim::until_free);
            for run in &runs {
                assert_ended(&fleet.until_over(run), code);
            }
            fleet.until_clean();
            fleet.until_connected();
            assert_eq!(holders(&fleet), [""; 0]);
        }
        assert_ended(&fleet.run("alone", &pause(ONE, "100ms", false)), 0);
    });
}
