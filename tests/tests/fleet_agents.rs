//! What a controller knows of its agents: who is there, what they can inject, and what their hosts can do.

use backburn_tests::fleet::{Fleet, Given, PROGRAMS, VICTIM};
use backburn_tests::privately::privately_networked;
use serde_json::{Value, json};

#[test]
fn agents_say_what_they_are_and_can_do() {
    let name = "agents_say_what_they_are_and_can_do";
    privately_networked(name, &PROGRAMS, || {
        let fleet = Fleet::new(&[("web-1", &["role=web"])], Given::default());
        let agents = fleet.says(&["agents", "--json"]).json();
        let agent = &agents[0];
        assert_eq!(agent["name"], "web-1", "{agents}");
        assert_eq!(agent["connected"], true, "{agents}");
        assert_eq!(agent["labels"]["role"], "web", "{agents}");
        assert_eq!(agent["labels"]["address"], fleet.host("web-1").address);
        assert!(agent["labels"]["kernel"].is_string(), "{agents}");

        let faults = fleet.ask("GET /api/v1/agents/web-1/faults").json();
        let names = |list: &Value| -> Vec<Value> {
            let list = list.as_array().expect("a list").iter();
            list.map(|fault| fault["name"].clone()).collect()
        };
        assert_eq!(json!(names(&faults)), agent["faults"]);
        assert!(faults[0]["schema"].is_object(), "{faults}");

        // The same that its owner is told by hand.
        let findings = fleet.says(&["agents", "doctor", "web-1", "--json"]).json();
        let found = names(&findings);
        for thing in ["kernel", "nf_tables", "tracing", "state folder"] {
            assert!(found.contains(&json!(thing)), "{thing}: {findings}");
        }
        let shown = fleet.says(&["agents", "doctor", "web-1"]);
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(shown.out.contains("nf_tables"), "{shown:?}");

        // Some of it is tried, on what faults hold.
        let victim = fleet.host("web-1").victim();
        let pause = json!({
            "title": "Pause", "description": "A process stands still",
            "targets": {"web": {"labels": {"role": "web"}}},
            "method": [{"type": "action", "name": "pause", "provider": {
                "type": "fault", "fault": "process-pause", "targets": "web", "duration": "10m",
                "arguments": {"process": {"name": VICTIM}},
            }}],
        });
        let run = fleet.begin("pause", &pause);
        victim.until_paused();
        let refused = fleet.says(&["agents", "doctor", "web-1"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.err.contains("at rest"), "{refused:?}");
        fleet.says(&["stop", &run]);
        fleet.until_over(&run);

        let nobody = fleet.says(&["agents", "doctor", "nobody"]);
        assert_eq!(nobody.code, 2, "{nobody:?}");
    });
}
