//! Runs over a fleet, as people start them: experiments that are kept, plans that touch nothing, every outcome with its
//! exit code, who is picked, and what ends a run.

use backburn_tests::fleet::{Ended, Fleet, Given, LONG, PROGRAMS, Said, VICTIM, Victim};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::runs;
use backburn_tests::software::Software;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};

/// Pauses a victim on each agent that is picked.
fn pause(target: &Value, duration: &str) -> Value {
    json!({
        "title": "Pause", "description": "A process stands still",
        "targets": {"web": target},
        "steady-state-hypothesis": backburn_tests::fleet::hypothesis(),
        "method": [{
            "type": "action", "name": "pause", "provider": {
                "type": "fault", "fault": "process-pause", "targets": "web", "duration": duration,
                "arguments": {"process": {"name": VICTIM}},
            },
        }],
    })
}

fn web(select: Value) -> Value {
    json!({"labels": {"role": "web"}, "select": select})
}

/// A web page of each agent's own host.
fn page(name: &str, from: &str) -> Value {
    json!({"type": "probe", "name": name, "tolerance": 200, "from": from,
        "provider": {"type": "http", "url": "http://127.0.0.1:8000/", "timeout": 20}})
}

/// Three agents with a web server each, and another.
struct World {
    fleet: Fleet,
    victims: Vec<Victim>,
    servers: Vec<Software>,
}

impl World {
    fn new() -> Self {
        let agents: [(&str, &[&str]); 4] = [
            ("web-1", &["role=web", "zone=a"]),
            ("web-2", &["role=web", "zone=a"]),
            ("web-3", &["role=web", "zone=b"]),
            ("db-1", &["role=db", "zone=b"]),
        ];
        let fleet = Fleet::new(&agents, Given::default());
        let victims = fleet.hosts.iter().map(|host| host.victim()).collect();
        World {
            fleet,
            victims,
            servers: Vec::new(),
        }
    }

    fn with_pages(mut self) -> Self {
        for host in &self.fleet.hosts {
            let mut command = host.command("python3");
            command
                .args(["-m", "http.server", "8000"])
                .current_dir(self.fleet.folder());
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            self.servers.push(Software::start(&mut command));
        }
        for host in &self.fleet.hosts {
            let address = format!("{}:8000", host.address);
            wait_within("the page is there", LONG, || {
                std::net::TcpStream::connect(&address).is_ok()
            });
        }
        self
    }

    fn paused(&self) -> Vec<&str> {
        let victims = self.victims.iter().zip(&self.fleet.hosts);
        let paused = victims.filter(|(victim, _)| victim.is_paused());
        paused.map(|(_, host)| host.name.as_str()).collect()
    }

    /// Runs to its end, and looks whether everything is back.
    fn run(&self, name: &str, document: &Value, outcome: &str, code: i32) -> Ended {
        let ended = self.fleet.run(name, document);
        self.comes_to(&ended, outcome, code);
        ended
    }

    fn comes_to(&self, ended: &Ended, outcome: &str, code: i32) {
        assert_eq!(ended.verdict["outcome"], outcome, "{ended:#?}");
        assert_eq!(ended.code, code, "{ended:#?}");
        assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
        assert_eq!(self.paused(), [""; 0], "{ended:#?}");
        for host in &self.fleet.hosts {
            assert_eq!(runs::owed(&host.state), "", "{ended:#?}");
        }
    }
}

/// Why a run was not started or aborted.
fn rule(ended: &Ended) -> String {
    let events = [ended.of("not-started"), ended.of("aborted")].concat();
    let first = events.first().unwrap_or_else(|| panic!("{ended:#?}"));
    first["rule"].as_str().expect("a rule").to_owned()
}

#[test]
fn stored_experiments_are_listed_and_planned_without_injecting() {
    in_network_namespace(&PROGRAMS, || {
        let world = World::new();
        let fleet = &world.fleet;
        let says = |code: i32, words: &[&str]| -> Said {
            let said = fleet.says(words);
            assert_eq!(said.code, code, "{words:?}: {said:?}");
            said
        };
        let mut document = pause(&web(json!("all")), "10m");
        let file = fleet.file("pause", &document).display().to_string();
        assert!(says(0, &["apply", &file]).out.contains("version 1, new"));
        assert!(
            says(0, &["apply", &file])
                .out
                .contains("version 1, unchanged")
        );
        document["title"] = "Pause for long".into();
        fleet.file("pause", &document);
        let changed = says(0, &["apply", &file]).out;
        assert!(changed.contains("version 2"), "{changed}");
        let lines: Vec<&str> = changed.lines().map(str::trim).collect();
        assert!(lines.contains(&"-   \"title\": \"Pause\","), "{changed}");
        assert!(
            lines.contains(&"+   \"title\": \"Pause for long\","),
            "{changed}"
        );

        // A folder: what is right is kept, what is wrong is told, all of it.
        let folder = fleet.folder().join("several");
        std::fs::create_dir(&folder).expect("a folder can be made");
        std::fs::write(folder.join("right.json"), document.to_string()).expect("written");
        let mut wrong = document.clone();
        wrong["method"][0]["provider"]["fault"] = "process-pouse".into();
        wrong["blast-radius"] = json!({"agents": {"max": "many"}});
        std::fs::write(folder.join("wrong.json"), wrong.to_string()).expect("written");
        let said = says(2, &["apply", &folder.display().to_string()]);
        assert!(said.out.contains("right: version 1, new"), "{said:?}");
        assert!(said.err.contains("$.blast-radius.agents.max"), "{said:?}");
        assert!(said.err.contains("$.method[0].provider"), "{said:?}");
        let kept = says(0, &["experiments"]).out;
        assert!(kept.contains("right") && !kept.contains("wrong"), "{kept}");

        // A plan names agents, victims and changes, and touches nothing.
        let plan = says(0, &["plan", "pause", "--seed", "7", "--json"]).json();
        assert_eq!(
            plan["agents"],
            json!(["web-1", "web-2", "web-3"]),
            "{plan:#}"
        );
        let injections = plan["injections"].as_array().expect("a list");
        assert_eq!(injections.len(), 3, "{plan:#}");
        for injection in injections {
            let plan = &injection["plan"];
            assert_eq!(
                plan["victims"].as_array().map(Vec::len),
                Some(1),
                "{plan:#}"
            );
            assert!(
                plan["changes"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
            );
        }
        assert_eq!(world.paused(), [""; 0]);
        assert_eq!(says(0, &["runs", "--json"]).json(), json!([]));
        says(2, &["plan", "nothing"]);
        says(2, &["run", "nothing", "--wait"]);

        // A run that is listed, shown, and reported as JUnit.
        document["method"][0]["provider"]["duration"] = "200ms".into();
        fleet.apply("pause", &document);
        let junit = fleet.folder().join("report.xml");
        let report = junit.display().to_string();
        says(0, &["run", "pause", "--wait", "--junit", &report]);
        let report = std::fs::read_to_string(junit).expect("there is a report");
        assert!(
            report.contains("failures=\"0\"") && report.contains("pause"),
            "{report}"
        );
        let listed = says(0, &["runs", "--experiment", "pause", "--json"]).json();
        assert_eq!(listed[0]["outcome"], "held", "{listed:#}");
        assert_eq!(listed[0]["version"], 3, "{listed:#}");
        let run = listed[0]["id"].as_str().expect("an id");
        assert_eq!(says(0, &["runs", run, "--json"]).json()["exit-code"], 0);
        assert_eq!(fleet.until_over(run).verdict["outcome"], "held");
        assert_eq!(
            says(0, &["runs", "--outcome", "aborted", "--json"]).json(),
            json!([])
        );
    });
}

#[test]
fn run_hits_the_selected_agents_only() {
    in_network_namespace(&PROGRAMS, || {
        let world = World::new();
        let all = ["web-1", "web-2", "web-3"];
        let cases = [
            ("all", web(json!("all")), 3..=3),
            ("count", web(json!({"count": 2})), 2..=2),
            ("percent", web(json!({"percent": 67})), 2..=2),
            ("random", web(json!({"random-max-percent": 70})), 1..=2),
            ("one", json!({"labels": {"role": "web"}}), 1..=1),
        ];
        for (name, target, count) in cases {
            let ended = world.run(name, &pause(&target, "100ms"), "held", 0);
            let picked = &ended.of("target-picked")[0]["picked"];
            assert_eq!(json!(ended.hit()), *picked, "{name}");
            assert!(count.contains(&ended.hit().len()), "{name}: {picked}");
            assert!(ended.hit().iter().all(|hit| all.contains(&hit.as_str())));
        }
        // While it acts, exactly those stand still.
        let mut spread = web(json!({"count": 2}));
        spread["spread"] = "zone".into();
        let run = world.fleet.begin("spread", &pause(&spread, "10m"));
        wait_within("they are paused", LONG, || world.paused().len() == 2);
        assert_eq!(world.fleet.says(&["stop", &run, "--why", "enough"]).code, 0);
        let ended = world.fleet.until_over(&run);
        world.comes_to(&ended, "aborted", 4);
        assert_eq!(rule(&ended), "operator");
        // One of zone b, where only one is.
        assert_eq!(ended.hit()[1], "web-3", "{:?}", ended.hit());

        let cases = [
            (json!({"max": 2}), "blast-radius"),
            (json!({"percent": 50}), "blast-radius"),
        ];
        for (ceiling, expected) in cases {
            let mut document = pause(&web(json!("all")), "100ms");
            document["blast-radius"] = json!({"agents": ceiling});
            let ended = world.run("ceiling", &document, "not-started", 3);
            assert_eq!(rule(&ended), expected, "{ceiling}");
            assert_eq!(ended.hit(), [""; 0], "{ceiling}");
        }
        let nobody = pause(&json!({"labels": {"role": "mail"}}), "100ms");
        let ended = world.run("nobody", &nobody, "not-started", 3);
        assert_eq!(rule(&ended), "no-match");
        let mut anybody = pause(&web(json!("all")), "100ms");
        let provider = anybody["method"][0]["provider"].as_object_mut();
        provider.expect("an object").remove("targets");
        let ended = world.run("anybody", &anybody, "not-started", 3);
        assert_eq!(rule(&ended), "no-target");
    });
}

#[test]
fn probes_measured_by_agents_decide_the_verdict() {
    let programs = [&PROGRAMS[..], &["python3"]].concat();
    in_network_namespace(&programs, || {
        let world = World::new().with_pages();
        let looked_at = |mut document: Value, from: &str| {
            document["steady-state-hypothesis"] =
                json!({"title": "It is well", "probes": [page("page", from)]});
            document
        };
        let held = looked_at(pause(&web(json!("all")), "300ms"), "web");
        let ended = world.run("held", &held, "held", 0);
        let output = &ended.of("sampled")[0]["output"];
        assert_eq!(
            output.as_object().map(serde_json::Map::len),
            Some(3),
            "{output:#}"
        );

        // What ends a run: what a probe sees, a figure of the host, the time.
        let rules = [
            (
                "hypothesis",
                json!([{"name": "page", "probe": "page", "every": "100ms"}]),
            ),
            (
                "probe",
                json!([{"name": "own", "every": "100ms", "probe": {
                "type": "probe", "name": "closed", "tolerance": 200, "from": "web",
                "provider": {"type": "http", "url": "http://127.0.0.1:8001/", "timeout": 20}}}]),
            ),
            (
                "host",
                json!([{"name": "host", "every": "100ms",
                "host": {"metric": "processes", "above": 0}}]),
            ),
        ];
        for (name, abort) in rules {
            let mut document = looked_at(pause(&web(json!({"count": 2})), "10m"), "web");
            if name == "hypothesis" {
                // One of the pages stands still with its server.
                let provider = &mut document["method"][0]["provider"];
                provider["arguments"] = json!({"process": {"name": "python3"}});
                document["steady-state-hypothesis"]["probes"][0]["provider"]["timeout"] = 1.into();
            }
            document["abort"] = abort.clone();
            // What the hypothesis itself ends early is what was looked for.
            let (outcome, code) = match name {
                "hypothesis" => ("deviated", 1),
                _ => ("aborted", 4),
            };
            let ended = world.run(name, &document, outcome, code);
            let expected = abort[0]["name"].as_str().expect("a name");
            assert_eq!(rule(&ended), expected, "{ended:#?}");
        }
        let mut long = pause(&web(json!("all")), "10m");
        long["method"][0]["background"] = true.into();
        long["method"].as_array_mut().expect("a list").push(json!({
            "type": "probe", "name": "nothing", "pauses": {"before": "5m"}, "tolerance": 200,
            "provider": {"type": "http", "url": "http://127.0.0.1:8000/"}}));
        long["method"][0]["provider"]["duration"] = "500ms".into();
        long["blast-radius"] = json!({"duration": "1s"});
        let ended = world.run("radius", &long, "aborted", 4);
        assert_eq!(rule(&ended), "blast-radius");

        // Killed for good: it deviates, and one page of three is missing to whoever starts next.
        let mut kill = looked_at(pause(&web(json!({"count": 1})), "1s"), "all");
        kill["targets"]["all"] = web(json!("all"));
        let provider = &mut kill["method"][0]["provider"];
        provider
            .as_object_mut()
            .expect("an object")
            .remove("duration");
        provider["fault"] = "process-kill".into();
        provider["arguments"] = json!({"process": {"name": "python3", "listening": 8000}});
        world.run("kill", &kill, "deviated", 1);
        kill["method"][0]["provider"] = held["method"][0]["provider"].clone();
        let ended = world.run("kill", &kill, "not-started", 3);
        assert_eq!(rule(&ended), "gate", "{ended:#?}");
        kill["steady-state-hypothesis"]["probes"][0]["quorum"] = 2.into();
        world.run("quorum", &kill, "held", 0);
    });
}

#[test]
fn agent_serves_one_run_and_a_cut_stream_resumes() {
    in_network_namespace(&PROGRAMS, || {
        let world = World::new();
        let fleet = &world.fleet;
        let run = fleet.begin("first", &pause(&web(json!("all")), "10m"));
        wait_within("they are paused", LONG, || world.paused().len() == 3);
        let path = format!("GET /api/v1/runs/{run}/stream");
        let mut stream = fleet.ask(&path);
        assert_eq!(stream.status, 200);
        let mut seen = Vec::new();
        // The first half, and then the connection is cut.
        while seen.len() < 5 {
            seen.push(stream.event().expect("an event"));
        }
        drop(stream);

        // Whoever wants one of its agents meanwhile is refused; whoever wants another is not.
        let other = pause(
            &json!({"labels": {"zone": "a"}, "select": {"count": 1}}),
            "100ms",
        );
        let ended = fleet.run("second", &other);
        assert_eq!(
            (ended.code, rule(&ended).as_str()),
            (3, "overlap"),
            "{ended:#?}"
        );
        let db = pause(&json!({"labels": {"role": "db"}}), "100ms");
        assert_eq!(fleet.run("third", &db).code, 0);
        assert_eq!(world.paused(), ["web-1", "web-2", "web-3"]);
        let open = fleet.ask("GET /api/v1/runs?open=true").json();
        assert_eq!(open.as_array().map(Vec::len), Some(1), "{open:#}");

        assert_eq!(fleet.says(&["stop", &run]).code, 0);
        let last = seen.last().expect("some").id;
        let mut stream = fleet.ask(&format!("{path}?after={last}"));
        let closed = loop {
            let event = stream.event().expect("the stream goes to the end");
            match event.kind.as_str() {
                "closed" => break event,
                _ => seen.push(event),
            }
        };
        assert_eq!(closed.data["outcome"], "aborted");
        assert!(stream.event().is_none());
        world.comes_to(&fleet.until_over(&run), "aborted", 4);
        // Each event once, in its order, as they are kept.
        let kept = fleet
            .ask(&format!("GET /api/v1/runs/{run}/events?limit=1000"))
            .json();
        let told = seen
            .iter()
            .map(|event| json!({"number": event.id, "entry": event.data}));
        assert_eq!(Value::Array(told.collect()), kept);
        assert!(
            seen.iter()
                .zip(1..)
                .all(|(event, number)| event.id == number)
        );
        assert_eq!(fleet.run("second", &other).code, 0);
    });
}
