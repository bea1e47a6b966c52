//! Descriptors, threads and disks that faults take: what is taken on the real kernel, and that all of it comes back.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod made;
mod made_host;

use backburn_agent::changes::{Change, FileLimit, LimitedProcess, Observed, ReversibleChange as _};
use backburn_agent::helpers::{DiskLoad, HelperSpec, ThreadBallast};
use backburn_agent::plan::LocalHost;
use backburn_agent::processes::ProcessTable;
use backburn_experiments::wire::Refusal;
use common::{Helper, VictimProcess, alone, until};
use look::{host, plan};
use made_host::MadeHost;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};

const LONG: u64 = 60_000;

/// Opens a file whenever it gets a line, and says what came of it; keeps what it has opened. `limit` asks for its limit.
const OPENS: &str = "
import resource, sys
kept = []
print('ready', flush=True)
for line in sys.stdin:
    if line.strip() == 'limit':
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
        continue
    try:
        kept.append(open('/dev/null'))
        print('open', flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
";

/// A victim that is asked by lines.
struct Asked {
    victim: VictimProcess,
    stdin: std::io::PipeWriter,
}

impl Asked {
    fn start() -> Self {
        let (read, write) = std::io::pipe().unwrap();
        let mut victim = VictimProcess::start_with(
            Command::new("python3").args(["-c", OPENS]),
            Stdio::from(read),
        );
        assert_eq!(victim.line(), "ready");
        Asked {
            victim,
            stdin: write,
        }
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.stdin, "{what}").unwrap();
        self.victim.line()
    }
}

#[test]
fn fd_exhaust_process_opens_what_is_left_and_then_nothing_until_undone() {
    let mut asked = Asked::start();
    let host = host();
    assert_eq!(asked.ask("open"), "open");
    let before = asked.ask("limit");
    let arguments = json!({"process": {"pid": asked.victim.id.pid}, "leave": 2});
    let planned = plan(&LocalHost::default(), "fd-exhaust", arguments).unwrap();
    let [change @ Change::FileLimit(_)] = planned.changes.as_slice() else {
        panic!("{:?}", planned.changes);
    };
    assert_eq!(change.observe(&host).unwrap(), Observed::Absent);
    change.apply(&host).unwrap();
    assert!(matches!(
        change.observe(&host).unwrap(),
        Observed::Present(_)
    ));
    let effect = change.effect(&host);
    assert!(effect.acts, "{effect:?}");
    assert_eq!(effect.figures["free-descriptors"], 2.0);
    assert_eq!([asked.ask("open"), asked.ask("open")], ["open", "open"]);
    assert_eq!(asked.ask("open"), "Too many open files");
    assert_eq!(change.effect(&host).figures["free-descriptors"], 0.0);

    change.undo(&host).unwrap();
    change.undo(&host).unwrap();
    assert_eq!(change.observe(&host).unwrap(), Observed::Absent);
    assert_eq!(asked.ask("limit"), before);
    assert_eq!(asked.ask("open"), "open");
    assert!(!change.effect(&host).acts);
}

#[test]
fn file_limit_inherited_by_a_child_is_raised_with_its_parent() {
    let table = ProcessTable::default();
    let host = host();
    let (read, write) = std::io::pipe().unwrap();
    let parent = VictimProcess::start_with(
        Command::new("sh").args(["-c", "read go; sleep 60 & wait"]),
        Stdio::from(read),
    );
    let descriptors = table.descriptors(parent.id).unwrap().unwrap();
    let change = FileLimit {
        victims: vec![LimitedProcess {
            process: parent.id,
            before: descriptors.soft,
            limit: 60,
            since: descriptors.read_at,
        }],
    };
    change.apply(&host).unwrap();
    writeln!(&write, "go").unwrap();
    let child = || {
        let pids = table.pids().unwrap().into_iter();
        let mut stats = pids.filter_map(|pid| table.stat(pid));
        stats.find(|stat| stat.parent == parent.id.pid && stat.comm == "sleep")
    };
    until("it has a child", || child().is_some());
    let child = child().unwrap().id;
    assert_eq!(table.open_file_limits(child).unwrap().0, 60);
    let Observed::Present(seen) = change.observe(&host).unwrap() else {
        panic!("nothing is seen")
    };
    assert!(seen.starts_with("2 processes"), "{seen}");
    change.undo(&host).unwrap();
    assert_eq!(table.open_file_limits(child).unwrap().0, descriptors.soft);
    assert_eq!(
        table.open_file_limits(parent.id).unwrap().0,
        descriptors.soft
    );
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(child.pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[test]
fn file_limit_changed_by_others_is_left_and_no_longer_acts() {
    let table = ProcessTable::default();
    let victim = VictimProcess::sleep();
    let host = host();
    let (soft, _) = table.open_file_limits(victim.id).unwrap();
    let limited = |before, limit| FileLimit {
        victims: vec![LimitedProcess {
            process: victim.id,
            before,
            limit,
            since: 0,
        }],
    };
    let change = limited(soft, 50);
    change.apply(&host).unwrap();
    // Somebody else sets another one.
    limited(50, 70).apply(&host).unwrap();
    assert!(!change.effect(&host).acts);
    change.undo(&host).unwrap();
    assert_eq!(table.open_file_limits(victim.id).unwrap().0, 70);
    assert_eq!(change.observe(&host).unwrap(), Observed::Absent);
    // What was planned from is not there any more.
    let error = limited(soft, 40).apply(&host).unwrap_err();
    assert!(error.to_string().contains("somebody else"), "{error}");
    assert_eq!(table.open_file_limits(victim.id).unwrap().0, 70);
}

#[test]
fn fd_exhaust_bad_input_is_refused_with_the_rule() {
    let made = made::Made::new();
    let mut host = MadeHost::new(&made);
    let of = |host: &MadeHost, arguments| plan(host, "fd-exhaust", arguments);
    let both = of(
        &host,
        json!({"process": {"pid": 30}, "leave": 1, "count": 1}),
    )
    .unwrap_err();
    assert_eq!(both.problems[0].at, "$.count");
    let enough = of(&host, json!({"process": {"pid": 30}, "leave": 5000})).unwrap_err();
    assert_eq!(enough.rule, "no-match");
    let Change::FileLimit(limit) = &of(&host, json!({"process": {"pid": 30}, "count": 1000}))
        .unwrap()
        .changes[0]
    else {
        panic!("another change")
    };
    // 1,014 are free, and 14 stay: the numbers 10 to 23.
    assert_eq!(limit.victims[0].limit, 24);
    host.descriptors.soft = 10;
    let none = of(&host, json!({"process": {"pid": 30}})).unwrap_err();
    assert_eq!(none.rule, "no-match");
}

#[test]
fn process_exhaust_helper_takes_threads_and_gives_them_back() {
    let _alone = alone();
    let table = ProcessTable::default();
    let role = HelperSpec::from(ThreadBallast {
        count: 500,
        reserve: 64,
    });
    let mut helper = Helper::start(&role, LONG);
    assert!(helper.ready().starts_with("500 of 500"), "{}", helper.said);
    let effect = role.helper().effect(helper.id.pid, &table);
    assert!(effect.acts, "{effect:?}");
    assert_eq!(effect.figures["threads"], 500.0);
    helper.kill();
    assert!(!role.helper().effect(helper.id.pid, &table).acts);
    // More than there is room for stays above the reserve, here one that leaves little.
    let free = table.thread_room().unwrap().free();
    let role = HelperSpec::from(ThreadBallast {
        count: 10_000,
        reserve: free - 600,
    });
    let helper = Helper::start(&role, LONG);
    helper.ready();
    let threads = table.stat_of(helper.id).unwrap().threads;
    assert!(threads < 1_000, "{threads}");
    let role = ThreadBallast {
        count: 1,
        reserve: free + 10_000_000,
    };
    let refused = Helper::start(&role.into(), LONG);
    assert!(refused.failed().contains("no thread started"));
}

#[test]
fn process_exhaust_plan_keeps_reserve_memory_and_one_helper() {
    let made = made::Made::new();
    let mut host = MadeHost::new(&made);
    let count = |host: &MadeHost, arguments: Value| {
        let plan = plan(host, "process-exhaust", arguments)?;
        let Change::Helper(helper) = &plan.changes[0] else {
            panic!("{plan:?}")
        };
        let role = serde_json::to_value(&helper.spec).unwrap();
        Ok::<_, Refusal>((role["count"].as_u64(), role["reserve"].as_u64()))
    };
    // Of 30,000, 1,000 are in use, and 5 % are kept.
    assert_eq!(
        count(&host, json!({})).unwrap(),
        (Some(27_500), Some(1_500))
    );
    assert_eq!(count(&host, json!({"percent": 10})).unwrap().0, Some(3_000));
    assert_eq!(count(&host, json!({"count": 7})).unwrap().0, Some(7));
    let both = count(&host, json!({"count": 7, "percent": 1})).unwrap_err();
    assert_eq!(both.problems[0].at, "$.percent");
    let none = count(&host, json!({"reserve": 29_000})).unwrap_err();
    assert_eq!(none.rule, "reserve");
    assert!(count(&host, json!({"percent": 0})).is_err());
    assert!(count(&host, json!({"reserve": 1})).is_err());
    host.thread_room.limit = 4_000_000;
    assert_eq!(count(&host, json!({})).unwrap().0, Some(30_000));
    host.memory.available = 96 << 20;
    assert_eq!(count(&host, json!({})).unwrap().0, Some(1_024));
}

#[test]
fn io_stress_helper_reads_and_writes_at_its_rate_and_leaves_nothing() {
    let _alone = alone();
    let table = ProcessTable::default();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let role = HelperSpec::from(DiskLoad {
        directory: folder.path().to_owned(),
        name: ".backburn-trial-0".into(),
        file_bytes: 4 << 20,
        workers: 2,
        block_bytes: 16 << 10,
        read_percent: 50.0,
        rate: Some(4 << 20),
        seed: 1,
    });
    let mut helper = Helper::start(&role, LONG);
    assert!(helper.ready().starts_with("2 threads read and write"));
    until("it has read and written", || {
        let effect = role.helper().effect(helper.id.pid, &table);
        let figure = |name: &str| effect.figures.get(name).copied().unwrap_or_default();
        effect.acts
            && figure("read-bytes") > 1e6
            && figure("written-bytes") > 5e6
            && figure("disk-bytes") > 4e6
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    helper.kill();
    assert_eq!(role.helper().residue(&table).unwrap(), None);
    assert!(!role.helper().effect(helper.id.pid, &table).acts);
}

#[test]
fn io_stress_bad_input_is_refused_with_the_rule() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    let rule = |arguments| plan(&host, "io-stress", arguments).map_err(|refusal| refusal.rule);
    let plan_of = |arguments: Value| plan(&host, "io-stress", arguments);
    assert!(plan_of(json!({"path": "/data"})).is_ok());
    assert_eq!(rule(json!({"path": "data"})).unwrap_err(), "no-match");
    assert_eq!(rule(json!({"path": "/other"})).unwrap_err(), "no-match");
    let large = json!({"path": "/data", "size": "10GiB"});
    assert_eq!(rule(large).unwrap_err(), "reserve");
    for (key, value) in [
        ("block-size", json!("5KiB")),
        ("block-size", json!("32MiB")),
        ("block-size", json!(0)),
        ("rate", json!(0)),
        ("size", json!("4KiB")),
        ("workers", json!(0)),
        ("read-percent", json!(101)),
    ] {
        let refusal = plan_of(json!({"path": "/data", key: value})).unwrap_err();
        assert_eq!(refusal.rule, "arguments", "{key}");
        assert_eq!(refusal.problems[0].at, format!("$.{key}"));
    }
}
