//! Plans of `service-stop` on a made-up host: which units it stops, in which order, and what it refuses.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod made;
mod made_host;

use backburn_agent::changes::{Change, ReversibleChange as _, UnitRole};
use backburn_agent::faults::{PlanContext, find};
use backburn_agent::plan::{
    FoundUnit, HostFaultRules, NoServiceManager, Plan, ProtectedPaths, RequestLimits,
};
use backburn_agent::processes::Protection;
use backburn_experiments::wire::Refusal;
use made_host::MadeHost;
use serde_json::json;
use std::time::Duration;

/// A unit that runs.
fn unit(name: &str) -> FoundUnit {
    FoundUnit {
        name: name.into(),
        names: vec![name.into()],
        load_state: "loaded".into(),
        active_state: "active".into(),
        sub_state: "running".into(),
        invocation: format!("{:0>32}", name.len()),
        may_start: true,
        may_stop: true,
        stop_limit: Some(Duration::from_secs(90)),
        ..FoundUnit::default()
    }
}

/// The web server, whose processes the made-up host has.
fn nginx() -> FoundUnit {
    FoundUnit {
        control_group: "/system.slice/nginx.service".into(),
        processes: vec![30, 31, 32, 33],
        ..unit("nginx.service")
    }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn plan_of(
    name: &str,
    units: Result<Vec<FoundUnit>, NoServiceManager>,
    protection: &Protection,
) -> Result<Plan, Refusal> {
    let made = made::Made::new();
    let mut host = MadeHost::new(&made);
    host.units = units;
    let context = PlanContext {
        host: &host,
        protection,
        protected_ports: &[],
        protected_paths: &ProtectedPaths::default(),
        host_rules: &HostFaultRules::default(),
        request_limits: &RequestLimits::default(),
        control_connection: None,
        injection: "trial",
        first_mark: 0,
        held: &[],
        duration: Some("10s".parse().unwrap()),
        seed: 1,
    };
    let arguments = json!({"unit": name}).as_object().unwrap().clone();
    find("service-stop").unwrap().plan(&arguments, &context)
}

fn plan(units: Vec<FoundUnit>) -> Result<Plan, Refusal> {
    plan_of("nginx", Ok(units), &Protection::default())
}

#[track_caller]
fn assert_refused(outcome: Result<Plan, Refusal>, rule: &str, says: &str) {
    let refusal = outcome.unwrap_err();
    assert_eq!(refusal.rule, rule, "{refusal}");
    assert!(refusal.what.contains(says), "{refusal}");
    assert!(refusal.hint.is_some(), "{refusal}");
}

/// The units of a plan in their order, each with why it is stopped.
fn stopped(plan: &Plan) -> Vec<(&str, UnitRole)> {
    let [Change::StoppedUnits(change)] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes);
    };
    let units = change.units.iter();
    units.map(|unit| (unit.name.as_str(), unit.role)).collect()
}

#[test]
fn service_stop_of_one_that_runs_holds_it_and_its_processes() {
    let plan = plan(vec![nginx()]).unwrap();
    assert_eq!(stopped(&plan), [("nginx.service", UnitRole::Victim)]);
    let holds = plan.changes[0].holds();
    assert_eq!(holds[0], "unit:nginx.service");
    assert_eq!(holds.len(), 5, "{holds:?}");
    assert!(holds[1].starts_with("process:30@"), "{holds:?}");
    let view = plan.changes[0].view();
    assert!(view.if_agent_dies.contains("systemd does, 12s"), "{view:?}");
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn service_stop_takes_sockets_before_and_dependants_after() {
    let nginx = FoundUnit {
        stops_with: texts(&["app.service", "idle.service"]),
        triggered_by: texts(&["nginx.socket", "nginx.timer"]),
        restart: "always".into(),
        bus_name: "org.nginx".into(),
        ..nginx()
    };
    let app = FoundUnit {
        stops_with: texts(&["web.service", "nginx.service"]),
        triggered_by: texts(&["app.path"]),
        stop_limit: None,
        ..unit("app.service")
    };
    let idle = FoundUnit {
        active_state: "inactive".into(),
        sub_state: "dead".into(),
        ..unit("idle.service")
    };
    let others = ["nginx.socket", "nginx.timer", "web.service", "app.path"].map(unit);
    let units = others.into_iter().chain([nginx, app, idle]).collect();
    let plan = plan(units).unwrap();
    let (trigger, dependant) = (UnitRole::Trigger, UnitRole::Dependant);
    assert_eq!(
        stopped(&plan),
        [
            ("nginx.socket", trigger),
            ("app.path", trigger),
            ("nginx.service", UnitRole::Victim),
            ("app.service", dependant),
            ("web.service", dependant),
        ]
    );
    let said = format!("{:?} {:?}", plan.notes, plan.warnings);
    for part in [
        "Restart=always does not act",
        "started again as well: app.service, web.service",
        "meanwhile: nginx.socket, app.path",
        "may start it meanwhile: nginx.timer",
        "`org.nginx` on the message bus",
        "app.service may take as long as it likes",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn service_stop_of_what_cannot_come_back_is_refused() {
    let with = |alter: fn(&mut FoundUnit)| {
        let mut unit = nginx();
        alter(&mut unit);
        plan(vec![unit])
    };
    assert_refused(plan(Vec::new()), "no-match", "no unit `nginx.service`");
    let dead = |unit: &mut FoundUnit| unit.active_state = "failed".into();
    assert_refused(with(dead), "not-running", "nothing to stop");
    assert_refused(
        with(|unit| unit.load_state = "masked".into()),
        "masked",
        "masked",
    );
    assert_refused(
        with(|unit| unit.load_state = "error".into()),
        "masked",
        "error",
    );
    assert_refused(
        with(|unit| unit.is_transient = true),
        "transient",
        "transient",
    );
    assert_refused(
        with(|unit| unit.may_stop = false),
        "refuses",
        "RefuseManualStop",
    );
    assert_refused(
        with(|unit| unit.may_start = false),
        "refuses",
        "RefuseManualStart",
    );
    assert_refused(with(|unit| unit.has_job = true), "busy", "about to change");
    let starting = |unit: &mut FoundUnit| unit.active_state = "activating".into();
    assert_refused(with(starting), "busy", "activating");
    let unseen = |unit: &mut FoundUnit| unit.processes = vec![4000];
    assert_refused(with(unseen), "not-available", "can be seen");
}

#[test]
fn service_stop_of_protected_units_is_refused() {
    let of = |name: &str, units: &[&str]| {
        let protection = Protection {
            units: texts(units),
            ..Protection::default()
        };
        plan_of(name, Ok(vec![nginx(), unit(name)]), &protection)
    };
    for name in ["systemd-journald.service", "dbus.service", "user@0.service"] {
        assert_refused(of(name, &[]), "protected", "the host and systemd itself");
    }
    assert_refused(of("nginx.service", &["nginx"]), "protected", "`nginx`");
    assert_refused(of("nginx.service", &["ngi*"]), "protected", "`ngi*`");
    let below = of("nginx.service", &["system.slice"]);
    assert_refused(below, "protected", "`system.slice`");
    // By its processes, as for faults on those.
    let users = Protection {
        users: texts(&["33"]),
        ..Protection::default()
    };
    let refused = plan_of("nginx", Ok(vec![nginx()]), &users);
    assert_refused(refused, "protected", "the policy protects the user `33`");
    let names = Protection {
        names: texts(&["nginx"]),
        ..Protection::default()
    };
    let refused = plan_of("nginx", Ok(vec![nginx()]), &names);
    assert_refused(refused, "protected", "the name `nginx`");
    // By another name, and as one that depends on the victim.
    let alias = FoundUnit {
        names: texts(&["nginx.service", "web.service"]),
        ..nginx()
    };
    let web = Protection {
        units: texts(&["web"]),
        ..Protection::default()
    };
    assert_refused(
        plan_of("nginx", Ok(vec![alias]), &web),
        "protected",
        "`web`",
    );
    let needed = FoundUnit {
        stops_with: texts(&["web.service"]),
        ..nginx()
    };
    let refused = plan_of("nginx", Ok(vec![needed, unit("web.service")]), &web);
    assert_refused(refused, "protected", "web.service is protected");
}

#[test]
fn service_stop_with_what_nobody_could_restore_is_refused() {
    let with = |alter: fn(&mut FoundUnit), others: Vec<FoundUnit>| {
        let mut unit = nginx();
        alter(&mut unit);
        plan(others.into_iter().chain([unit]).collect())
    };
    let target = |unit: &mut FoundUnit| unit.stops_with = texts(&["app.target"]);
    assert_refused(
        with(target, vec![unit("app.target")]),
        "dependants",
        "app.target would be stopped",
    );
    let upheld = |unit: &mut FoundUnit| unit.upheld_by = texts(&["app.service"]);
    assert_refused(
        with(upheld, vec![unit("app.service")]),
        "upheld",
        "app.service upholds it",
    );
    let many = FoundUnit {
        stops_with: (0..80)
            .map(|number| format!("of-{number}.service"))
            .collect(),
        ..nginx()
    };
    let others = (0..80).map(|number| unit(&format!("of-{number}.service")));
    assert_refused(
        plan(others.chain([many]).collect()),
        "dependants",
        "more than 64",
    );
}

#[test]
fn service_stop_without_systemd_is_refused() {
    for (none, rule) in [
        (NoServiceManager::Absent, "not-available"),
        (NoServiceManager::NotFirst, "not-available"),
        (NoServiceManager::NotPermitted, "not-permitted"),
        (NoServiceManager::Failed("it hangs".into()), "failed"),
    ] {
        let outcome = plan_of("nginx", Err(none), &Protection::default());
        assert_refused(outcome, rule, "systemd");
    }
}

#[test]
fn service_stop_of_what_is_no_service_is_a_problem() {
    for (name, says) in [
        ("nginx.socket", "of the kind `socket`"),
        ("system.slice", "of the kind `slice`"),
        ("init.scope", "of the kind `scope`"),
        ("multi-user.target", "of the kind `target`"),
        ("", "not the name of a service"),
        (".service", "not the name of a service"),
        ("../nginx.service", "not the name of a service"),
        ("nginx service", "not the name of a service"),
        ("nginx*", "not the name of a service"),
        ("postgresql@.service", "a template"),
        ("postgresql@", "a template"),
        (&"x".repeat(300), "too long"),
    ] {
        let arguments = json!({"unit": name}).as_object().unwrap().clone();
        let problems = find("service-stop").unwrap().check(&arguments);
        let [problem] = problems.as_slice() else {
            panic!("{name}: {problems:?}");
        };
        assert_eq!(problem.at, "$.unit");
        assert!(problem.what.contains(says), "{name}: {problem:?}");
        assert!(problem.hint.is_some(), "{name}");
    }
}
