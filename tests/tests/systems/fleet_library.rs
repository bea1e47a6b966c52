//! Experiments of the library on a fleet: real software behind two agents, of which one is hit.

use backburn_tests::fleet::{Ended, Fleet, Given, Host, LONG, PROGRAMS};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::processes::{self, Process};
use backburn_tests::programs;
use backburn_tests::software::Software;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

/// An experiment of the library, that hits one agent of a role.
fn library(name: &str, action: usize) -> Value {
    let file = programs::root().join(format!("experiments/library/{name}.json"));
    let text = std::fs::read_to_string(file).expect("it is in the library");
    let mut document: Value = serde_json::from_str(&text).expect("it is JSON");
    document["targets"] = json!({"hit": {"labels": {"role": "hit"}}, "all": {
        "labels": {"role": ["hit", "spared"]}, "select": "all"}});
    document["method"][action]["provider"]["targets"] = "hit".into();
    document
}

fn two(policy: Value) -> Fleet {
    let agents: [(&str, &[&str]); 2] = [("one", &["role=hit"]), ("two", &["role=spared"])];
    let given = Given {
        policy: Some(policy),
        ..Given::default()
    };
    Fleet::new(&agents, given)
}

fn start(host: &Host, program: &str, words: &[&str], folder: &Path, port: u16) -> Software {
    let mut command = host.command(program);
    command
        .args(words)
        .current_dir(folder)
        .stdout(Stdio::null());
    let software = Software::start(&mut command);
    let address = format!("{}:{port}", host.address);
    wait_within(program, LONG, || {
        std::net::TcpStream::connect(&address).is_ok()
    });
    software
}

/// Processes of this name on a host, by the table of processes that they are in.
fn on(host: &Host, name: &str) -> Vec<Process> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(host.first());
    let mut found = processes::named(name);
    found.retain(|process| namespace(process.pid) == own);
    found
}

fn assert_hit_one(ended: &Ended, outcome: &str) {
    assert_eq!(ended.verdict["outcome"], outcome, "{ended:#?}");
    assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
    assert_eq!(ended.hit(), ["one"], "{ended:#?}");
}

#[test]
fn fleet_nginx_with_a_killed_worker_on_one_host_holds() {
    let programs = [&PROGRAMS[..], &["nginx", "wrk"]].concat();
    in_network_namespace(&programs, || {
        let fleet = two(json!({"allow-programs": true}));
        let mut servers = Vec::new();
        for host in &fleet.hosts {
            let folder = fleet.folder().join(format!("nginx-{}", host.name));
            std::fs::create_dir(&folder).expect("a folder can be made");
            let here = folder.display();
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
                .concat();
            let text = format!(
                "user root;\nworker_processes 2;\ndaemon off;\npid {here}/pid;\nerror_log stderr crit;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off;\n{temporary}server {{ listen 80; location / {{ return 200 'well'; }} }} }}\n"
            );
            std::fs::write(folder.join("nginx.conf"), text).expect("it can be written");
            let configuration = format!("{here}/nginx.conf");
            let words = [
                "-e",
                "stderr",
                "-p",
                &here.to_string(),
                "-c",
                &configuration,
            ];
            servers.push(start(host, "nginx", &words, &folder, 80));
            wait_within("a master and two workers", LONG, || {
                on(host, "nginx").len() == 3
            });
        }
        let [one, two] = [0, 1].map(|host| on(&fleet.hosts[host], "nginx"));
        let document = library("nginx-worker-killed", 1);
        let url = format!("url=http://{}:80/", fleet.host("one").address);
        let pid_file = format!("pid_file={}/nginx-one/pid", fleet.folder().display());
        let ended = fleet.run_with("nginx", &document, &["--var", &url, "--var", &pid_file]);
        assert_hit_one(&ended, "held");
        let after = on(&fleet.hosts[0], "nginx");
        let left = one
            .iter()
            .filter(|before| after.iter().any(|now| now.pid == before.pid));
        assert_eq!((after.len(), left.count()), (3, 2), "{after:?}");
        let untouched = on(&fleet.hosts[1], "nginx");
        let pids = |of: &[Process]| of.iter().map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!(pids(&untouched), pids(&two));
    });
}

#[test]
fn fleet_redis_paused_on_one_host_deviates() {
    let programs = [&PROGRAMS[..], &["redis-server", "redis-cli"]].concat();
    in_network_namespace(&programs, || {
        let mut fleet = two(json!({}));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let client = std::env::split_paths(&path).map(|folder| folder.join("redis-cli"));
        let client = client
            .into_iter()
            .find(|file| file.is_file())
            .expect("it is installed");
        let folder = fleet.folder().to_owned();
        let mut servers = Vec::new();
        for host in &mut fleet.hosts {
            let words = ["--port", "6379", "--save", "", "--protected-mode", "no"];
            servers.push(start(host, "redis-server", &words, &folder, 6379));
            host.obey(&json!({"allow-programs": [client]}));
        }
        fleet.until_connected();
        let mut document = library("redis-paused", 0);
        let probe = &mut document["steady-state-hypothesis"]["probes"][0];
        probe["from"] = "all".into();
        let ended = fleet.run("redis", &document);
        assert_hit_one(&ended, "deviated");
        assert_eq!(ended.code, 1);
        let reasons = ended.verdict["reasons"].to_string();
        assert!(
            reasons.contains("`one`") && !reasons.contains("`two`"),
            "{reasons}"
        );
        assert!(ended.verdict["recovered_after"].is_string(), "{ended:#?}");
        for host in &fleet.hosts {
            let servers = on(host, "redis-server");
            assert!(
                servers.iter().all(|server| !"Tt".contains(server.state)),
                "{servers:?}"
            );
        }
    });
}
