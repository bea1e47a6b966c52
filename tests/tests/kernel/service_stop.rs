//! `service-stop` on a real systemd of the test's own: what it stops and starts again, what it refuses, and that process 1 ends it when every
//! process of Backburn is dead.

use backburn_tests::crash::Place;
use backburn_tests::processes::{kill_at_once, of_backburn};
use backburn_tests::refusals::Refusals;
use backburn_tests::service_manager::{
    OWN_SERVICE, UnitFile, state, systemctl, under_systemd, units_of_backburn,
};
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

const UNITS: &[UnitFile<'static>] = &[
    (
        "web.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sleep 2000\nRestart=always\n",
    ),
    (
        "needs.service",
        "[Unit]\nRequires=web.service\nAfter=web.service\n[Service]\nExecStart=/bin/sleep 2001\n",
    ),
    (
        "bound.service",
        "[Unit]\nBindsTo=needs.service\nAfter=needs.service\n[Service]\nExecStart=/bin/sleep 2002\n",
    ),
    (
        "idle.service",
        "[Unit]\nPartOf=web.service\n[Service]\nExecStart=/bin/sleep 2003\n",
    ),
    ("socket.service", "[Service]\nExecStart=/bin/sleep 2004\n"),
    ("socket.socket", "[Socket]\nListenStream=/run/socket\n"),
    (
        "slow.service",
        "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; echo > /run/slow; while :; do sleep 1; done'\nTimeoutStopSec=2\n",
    ),
    ("dead.service", "[Service]\nExecStart=/bin/sleep 2005\n"),
    ("masked.service", ""),
    (
        "manual.service",
        "[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/sleep 2006\n",
    ),
    ("team.service", "[Service]\nExecStart=/bin/sleep 2007\n"),
    (
        "team.target",
        "[Unit]\nDefaultDependencies=no\nRequires=team.service\n",
    ),
    (
        "once.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    ),
];

fn start(units: &[&str]) {
    let said = systemctl(&[&["start"], units].concat());
    assert!(said.is_empty(), "{said}");
    for unit in units {
        assert_eq!(state(unit).0, "active", "{unit}");
    }
}

/// An injection for so long, with what it says.
fn inject(place: &Place, unit: &str, lasts: &str) -> Child {
    let arguments = json!({ "unit": unit }).to_string();
    let words = [
        "inject",
        "service-stop",
        "--id",
        "trial",
        "--duration",
        lasts,
        "--arguments",
        &arguments,
    ];
    let mut command = place.agent(&words, None);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts")
}

fn is_stopped(unit: &str) -> bool {
    ["inactive", "failed"].contains(&state(unit).0.as_str())
}

/// What the injection said until its end, which was in order.
fn said_in_peace(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

fn assert_nothing_is_left(place: &Place) {
    assert_eq!(place.ledger(), Vec::<String>::new());
    assert_eq!(units_of_backburn(), Vec::<String>::new());
}

#[test]
fn service_stop_starts_again_what_ran_and_nothing_else() {
    under_systemd(&[], UNITS, || {
        let ran = ["web.service", "needs.service", "bound.service"];
        start(&ran);
        let before = ran.map(state);
        let place = Place::default();
        let injecting = inject(&place, "web", "1500ms");
        wait_within("all are stopped", SOON, || {
            ran.iter().all(|unit| is_stopped(unit))
        });
        assert_eq!(units_of_backburn().len(), 2, "{:?}", units_of_backburn());
        let said = said_in_peace(injecting);
        assert!(
            said.contains("web.service runs again, as invocation "),
            "{said}"
        );
        assert!(said.contains("3 of 3 units stopped"), "{said}");
        for (unit, (_, invocation)) in ran.iter().zip(before) {
            let (now, again) = state(unit);
            assert_eq!(now, "active", "{unit}");
            assert_ne!(again, invocation, "{unit} was not stopped");
        }
        assert_eq!(state("idle.service").0, "inactive");
        assert_nothing_is_left(&place);
    });
}

/// A web server that answers at a socket of the file system, as units share no network with the test.
const NGINX: &[UnitFile<'static>] = &[(
    "nginx.service",
    "[Service]\nExecStart=nginx -c /run/nginx.conf -g 'daemon off;'\n",
)];
const NGINX_SOCKET: &str = "/run/web.sock";
const NGINX_CONFIGURATION: &str = r#"
worker_processes 2;
pid /run/nginx.pid;
error_log /run/nginx.error;
events {}
http {
    access_log off;
    server {
        listen unix:/run/web.sock;
        return 200 "alive";
    }
}
"#;

/// What the web server answers; none where nobody listens.
fn fetch() -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut socket = std::os::unix::net::UnixStream::connect(NGINX_SOCKET).ok()?;
    socket
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it listens");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn nginx_that_is_stopped_answers_nobody_and_then_again() {
    under_systemd(&["nginx"], NGINX, || {
        std::fs::write("/run/nginx.conf", NGINX_CONFIGURATION).expect("a file can be written");
        start(&["nginx.service"]);
        let answers = || fetch().is_some_and(|answer| answer.ends_with("alive"));
        wait_within("it answers", SOON, answers);
        let place = Place::default();
        let injecting = inject(&place, "nginx", "1s");
        wait_within("nobody listens", SOON, || fetch().is_none());
        assert!(is_stopped("nginx.service") || state("nginx.service").0 == "deactivating");
        let said = said_in_peace(injecting);
        assert!(said.contains("systemd ends 3 processes"), "{said}");
        wait_within("it answers again", SOON, answers);
        assert_nothing_is_left(&place);
    });
}

#[test]
fn service_stop_by_its_socket_is_not_started_meanwhile() {
    under_systemd(&[], UNITS, || {
        start(&["socket.socket", "socket.service"]);
        let place = Place::default();
        let injecting = inject(&place, "socket.service", "1s");
        wait_within("both are stopped", SOON, || {
            is_stopped("socket.service") && is_stopped("socket.socket")
        });
        std::os::unix::net::UnixStream::connect("/run/socket").expect_err("nobody listens");
        said_in_peace(injecting);
        for unit in ["socket.socket", "socket.service"] {
            assert_eq!(state(unit).0, "active", "{unit}");
        }
        std::os::unix::net::UnixStream::connect("/run/socket").expect("it listens again");
        assert_nothing_is_left(&place);
    });
}

#[test]
fn agents_all_killed_systemd_starts_the_service_and_nothing_is_left() {
    under_systemd(&[], UNITS, || {
        let ran = [
            "web.service",
            "needs.service",
            "socket.socket",
            "socket.service",
        ];
        start(&ran);
        for unit in ["web.service", "socket.service"] {
            let before = ran.map(state);
            let place = Place::default();
            let mut injecting = inject(&place, unit, "1s");
            wait_within("it is stopped", SOON, || is_stopped(unit));
            let pids: Vec<i32> = of_backburn().iter().map(|process| process.pid).collect();
            kill_at_once(&pids);
            injecting.wait().expect("it was killed");
            wait_within("nobody of Backburn is left", SOON, || {
                of_backburn().is_empty()
            });
            assert!(is_stopped(unit));
            let alone = wait_within("systemd starts all of them", SOON, || {
                ran.iter().all(|unit| state(unit).0 == "active")
            });
            println!(
                "{unit}: started by systemd alone {} ms after the kill",
                alone.as_millis()
            );
            wait_within("the timer is gone", SOON, || units_of_backburn().is_empty());
            let after = ran.map(state);
            assert!(
                before
                    .iter()
                    .zip(&after)
                    .any(|(before, after)| before != after)
            );
            // The next agent finds nothing to do.
            assert!(place.restart(None).success());
            assert_eq!(ran.map(state), after);
            assert_nothing_is_left(&place);
        }
    });
}

#[test]
fn service_that_is_slow_to_stop_starts_once_it_has() {
    under_systemd(&[], UNITS, || {
        start(&["slow.service"]);
        wait_within("it takes no notice of SIGTERM", SOON, || {
            std::path::Path::new("/run/slow").exists()
        });
        let (_, before) = state("slow.service");
        let place = Place::default();
        let injecting = inject(&place, "slow.service", "500ms");
        wait_within("it is being stopped", SOON, || {
            state("slow.service").0 == "deactivating"
        });
        let said = said_in_peace(injecting);
        assert!(said.contains("deactivating"), "{said}");
        let (now, after) = state("slow.service");
        assert_eq!(now, "active");
        assert_ne!(after, before);
        assert_nothing_is_left(&place);
    });
}

#[test]
fn service_started_by_others_ends_the_fault_before_its_time() {
    under_systemd(&[], UNITS, || {
        start(&["web.service", "needs.service"]);
        let place = Place::default();
        let injecting = inject(&place, "web.service", "60s");
        wait_within("it is stopped", SOON, || is_stopped("web.service"));
        start(&["web.service"]);
        let output = injecting.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("ended before its time"), "{said}");
        assert_eq!(state("needs.service").0, "active");
        assert_nothing_is_left(&place);
    });
}

#[test]
fn service_stop_refuses_what_it_could_not_revert_and_what_is_protected() {
    under_systemd(&[], UNITS, || {
        let units = [
            "web.service",
            "manual.service",
            "team.service",
            "team.target",
            "once.service",
        ];
        start(&units);
        let made = std::process::Command::new("systemd-run")
            .args(["--unit=fleeting.service", "--quiet", "/bin/sleep", "2010"])
            .status();
        assert!(made.expect("`systemd-run` starts").success());
        let fingerprint = || (units.map(state), state(OWN_SERVICE), units_of_backburn());
        let before = fingerprint();
        let refusals = Refusals::new(|| fingerprint() == before);
        let refused = |unit: &str, code: i32, says: &[&str]| {
            refusals.inject("service-stop", &json!({ "unit": unit }), &[], code, says);
        };
        refused(
            "dead.service",
            3,
            &["dead.service is inactive (dead)", "systemctl start"],
        );
        refused("nosuch.service", 3, &["there is no unit `nosuch.service`"]);
        refused("masked.service", 3, &["masked.service is masked", "unmask"]);
        refused("manual.service", 3, &["refuses to be stopped"]);
        refused("fleeting.service", 3, &["is transient"]);
        refused("team.service", 3, &["team.target would be stopped"]);
        refused(
            OWN_SERVICE,
            3,
            &["protected", "Backburn was started from it"],
        );
        refused("init.scope", 2, &["of the kind `scope`"]);
        refused("web.socket", 2, &["of the kind `socket`"]);
        refused("web@.service", 2, &["a template"]);
    });
}

#[test]
fn service_stop_excludes_other_faults_on_the_same_service() {
    under_systemd(&[], UNITS, || {
        start(&["web.service", "once.service"]);
        let place = Place::default();
        let main = systemctl(&["show", "--property=MainPID", "--value", "web.service"]);
        let main: i32 = main.parse().expect("a process id");
        let pause = json!({"process": {"pid": main}}).to_string();
        let words = [
            "inject",
            "process-pause",
            "--id",
            "pause",
            "--duration",
            "60s",
            "--arguments",
            &pause,
        ];
        let mut pausing = place.agent(&words, None).spawn().expect("the agent starts");
        wait_within("it is owed", SOON, || !place.ledger().is_empty());
        let refused = |unit: &str, id: &str, says: &str| {
            let arguments = json!({ "unit": unit }).to_string();
            let words = [
                "inject",
                "service-stop",
                "--id",
                id,
                "--duration",
                "5s",
                "--arguments",
                &arguments,
            ];
            let output = place.agent(&words, None).stderr(Stdio::piped()).output();
            let output = output.expect("the agent starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains(says), "{said}");
        };
        let held = format!("`process:{main}@");
        refused("web.service", "second", &held);
        // Another service is free.
        let injecting = inject(&place, "once.service", "1s");
        wait_within("it is stopped", SOON, || is_stopped("once.service"));
        refused("once.service", "third", "once.service is inactive");
        said_in_peace(injecting);
        assert_eq!(state("once.service").0, "active");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pausing.id() as i32),
            nix::sys::signal::Signal::SIGINT,
        )
        .expect("it is there");
        pausing.wait().expect("it ends");
        assert_nothing_is_left(&place);
    });
}

#[test]
fn doctor_and_plan_tell_whether_systemd_is_there() {
    under_systemd(&[], UNITS, || {
        start(&["web.service"]);
        let place = Place::default();
        let doctor = |place: &Place| -> Value {
            let output = place
                .agent(&["doctor", "--json"], None)
                .stdout(Stdio::piped())
                .output()
                .expect("the agent starts");
            let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let text = found.to_string();
            assert!(text.contains("service manager"), "{text}");
            found
        };
        let said = doctor(&place).to_string();
        assert!(said.contains("systemd 2"), "{said}");
        // Without its socket, it is as if it were not there.
        std::fs::rename("/run/systemd/private", "/run/systemd/hidden").expect("it is there");
        let said = doctor(&place).to_string();
        assert!(said.contains("systemd does not run here"), "{said}");
        let arguments = json!({"unit": "web.service"}).to_string();
        let words = [
            "plan",
            "service-stop",
            "--duration",
            "1s",
            "--arguments",
            &arguments,
        ];
        let output = place.agent(&words, None).stderr(Stdio::piped()).output();
        let output = output.expect("the agent starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("systemd does not run here"), "{said}");
        std::fs::rename("/run/systemd/hidden", "/run/systemd/private").expect("it is there");
        assert_eq!(state("web.service").0, "active");
    });
}
