//! What is left when the process that was started is killed (`kill -9`) at a random moment while its fault acts: the same six faults by
//! what people use, and by Backburn's agent. Counted by the same fingerprint of the host; nothing is asserted.
//!
//! ```text
//! tests/bench/run residue [N [SEED]]     N trials of each, 10 where left out
//! ```
//!
//! What this kernel may lack, netem, is left out: bandwidth is limited by tbf and packets are dropped by nftables.

use backburn_tests::crash_random::Chance;
use backburn_tests::crash_world::World;
use backburn_tests::isolated::{in_network_namespace, with_name};
use backburn_tests::{processes, programs};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 13] = [
    "unshare",
    "mount",
    "umount",
    "python3",
    "strace",
    "nft",
    "tc",
    "ip",
    "sleep",
    "bash",
    "timeout",
    "fallocate",
    "stress-ng",
];

/// How long each fault is to act, in milliseconds.
const LASTS: u64 = 1000;

/// How long after the end that was due something may still be there. Whoever has a heartbeat needs some of it.
const GRACE: Duration = Duration::from_secs(5);

/// How long a tool may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// A fault, as each tool is told to do it.
struct Fault {
    name: &'static str,
    /// What does it, and what undoes it, in shell words.
    script: fn(&World) -> (String, String),
    /// The stressor's words for it, where it has some.
    stress: Option<fn(&World) -> Vec<String>>,
    /// The agent's fault and its arguments.
    ours: fn(&World) -> (&'static str, Value),
}

fn stress_script(words: Vec<String>) -> (String, String) {
    let line = format!("stress-ng {} >/dev/null 2>&1 & stress=$!", words.join(" "));
    (line, "kill $stress".into())
}

fn cpu(_: &World) -> Vec<String> {
    ["--cpu", "1", "--cpu-load", "20"].map(str::to_owned).into()
}

fn memory(_: &World) -> Vec<String> {
    ["--vm", "1", "--vm-bytes", "16M", "--vm-keep"]
        .map(str::to_owned)
        .into()
}

fn disk(world: &World) -> Vec<String> {
    let folder = world.folder().display().to_string();
    ["--hdd", "1", "--hdd-bytes", "12M", "--temp-path", &folder]
        .map(str::to_owned)
        .into()
}

const FAULTS: [Fault; 6] = [
    Fault {
        name: "bandwidth (tbf)",
        script: |_| {
            (
                "tc qdisc add dev here root tbf rate 1mbit burst 32kbit latency 400ms".into(),
                "tc qdisc del dev here root".into(),
            )
        },
        stress: None,
        ours: |_| {
            (
                "network-bandwidth",
                json!({"to": ["10.9.0.2", "fd09::2"], "rate": "1Mbit/s"}),
            )
        },
    },
    Fault {
        name: "packets dropped (nftables)",
        script: |_| {
            let rules = "table inet chaos { chain out { type filter hook output priority 0; ip daddr 10.9.0.2 drop; }; }";
            (
                format!("nft '{rules}'"),
                "nft delete table inet chaos".into(),
            )
        },
        stress: None,
        ours: |_| ("network-partition", json!({"to": "10.9.0.2"})),
    },
    Fault {
        name: "a process paused",
        script: |world| {
            let pid = world.threaded();
            (format!("kill -STOP {pid}"), format!("kill -CONT {pid}"))
        },
        stress: None,
        ours: |world| {
            (
                "process-pause",
                json!({"process": {"pid": world.threaded()}}),
            )
        },
    },
    Fault {
        name: "processors busy",
        script: |world| stress_script(cpu(world)),
        stress: Some(cpu),
        ours: |_| ("cpu-stress", json!({"workers": 1, "load-percent": 20})),
    },
    Fault {
        name: "memory taken",
        script: |world| stress_script(memory(world)),
        stress: Some(memory),
        ours: |_| ("memory-fill", json!({"size": "16MiB"})),
    },
    Fault {
        name: "disk filled",
        script: |world| {
            let file = world.folder().join("filler");
            let file = file.display();
            (format!("fallocate -l 12M {file}"), format!("rm -f {file}"))
        },
        stress: Some(disk),
        ours: |world| {
            (
                "disk-fill",
                json!({"path": world.folder(), "reserve": "4MiB"}),
            )
        },
    },
];

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tool {
    Script,
    Timeout,
    Stressor,
    Toolkit,
    Backburn,
}

impl Tool {
    const ALL: [(Tool, &str); 5] = [
        (Tool::Script, "a script with a trap"),
        (Tool::Timeout, "`timeout stress-ng`"),
        (Tool::Stressor, "`stress-ng --timeout`"),
        (Tool::Toolkit, "Chaos Toolkit"),
        (Tool::Backburn, "Backburn"),
    ];

    /// The command; none where this tool can't do it.
    fn command(self, fault: &Fault, world: &World, folder: &Path) -> Option<Command> {
        let seconds = format!("{}", LASTS as f64 / 1000.0);
        Some(match self {
            Tool::Script => {
                let (harm, undo) = (fault.script)(world);
                let mut command = Command::new("bash");
                // As people write it. `wait` and not a bare `sleep`, so that a signal's trap runs at once.
                command.arg("-c").arg(format!(
                    "trap '{}' EXIT; trap 'exit 1' INT TERM; {harm}\nsleep {seconds} & wait $!",
                    undo.replace('\'', r"'\''")
                ));
                command
            }
            Tool::Timeout => {
                let mut command = Command::new("timeout");
                command
                    .arg(seconds)
                    .arg("stress-ng")
                    .args(fault.stress?(world));
                command
            }
            Tool::Stressor => {
                let mut command = Command::new("stress-ng");
                // It knows whole seconds only.
                command
                    .args(fault.stress?(world))
                    .args(["--timeout", &LASTS.div_ceil(1000).to_string()]);
                command
            }
            Tool::Toolkit => {
                let chaos = programs::oracle()?.parent()?.join("chaos");
                let file = folder.join("experiment.json");
                let experiment = toolkit(fault, world, &seconds);
                std::fs::write(&file, experiment.to_string()).ok()?;
                let mut command = Command::new(chaos);
                command
                    .args(["--no-version-check", "run", "--rollback-strategy", "always"])
                    .arg(file);
                command
            }
            Tool::Backburn => {
                let (name, arguments) = (fault.ours)(world);
                let mut command = Command::new(programs::backburn_agent());
                command
                    .args(["inject", name, "--duration"])
                    .arg(format!("{LASTS}ms"))
                    .arg("--arguments")
                    .arg(arguments.to_string())
                    .arg("--state")
                    .arg(folder.join("state"));
                command
            }
        })
    }
}

/// Its experiment: a process action that does the harm, its time, and a rollback that undoes it. A stressor ends by itself.
fn toolkit(fault: &Fault, world: &World, seconds: &str) -> Value {
    let shell = |line: &str| json!({"type": "process", "path": "bash", "arguments": ["-c", line]});
    let (harm, pause, undo) = match fault.stress {
        Some(words) if fault.name != "disk filled" => {
            let words = words(world).join(" ");
            (
                format!("stress-ng {words} --timeout {}", LASTS.div_ceil(1000)),
                0,
                "true".into(),
            )
        }
        _ => {
            let (harm, undo) = (fault.script)(world);
            (harm, LASTS.div_ceil(1000), undo)
        }
    };
    json!({
        "version": "1.0.0",
        "title": format!("{}, for {seconds} s", fault.name),
        "description": "bench",
        "method": [{"type": "action", "name": "harm", "provider": shell(&harm), "pauses": {"after": pause}}],
        "rollbacks": [{"type": "action", "name": "undo", "provider": shell(&undo)}],
    })
}

/// Who lives here beside the world and this program.
fn others(known: &BTreeSet<i32>) -> Vec<String> {
    let alive = processes::alive().into_values();
    alive
        .filter(|process| !known.contains(&process.pid))
        .map(|process| process.name)
        .collect()
}

/// What a trial came to.
enum Outcome {
    /// This tool can't do it.
    Unable,
    /// It had ended before it was to be killed.
    Missed,
    /// What was left, if anything was.
    Killed(Option<String>),
}

/// Starts it, kills it while it acts, and says what is left in the end.
fn trial(tool: Tool, fault: &Fault, chance: &mut Chance) -> Outcome {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let before = world.fingerprint(true);
    let known: BTreeSet<i32> = processes::alive().into_keys().collect();
    let Some(mut command) = tool.command(fault, &world, folder.path()) else {
        return Outcome::Unable;
    };
    let mut started: Child = command
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    // What takes processors or memory shows as processes that were not there.
    let acts = || {
        let names = others(&known);
        let is_stressed = names.iter().any(|name| name.starts_with("stress-ng-"));
        let is_ours = names.iter().any(|name| name.contains("backburn-h"));
        is_stressed || is_ours || world.fingerprint(true) != before
    };
    while !acts() {
        assert!(
            begun.elapsed() < BEGINS_WITHIN,
            "{tool:?}, {}: it did not begin",
            fault.name
        );
    }
    std::thread::sleep(Duration::from_millis(chance.below(LASTS)));
    // One that had ended was not killed while its fault acted.
    let is_hit = started.try_wait().expect("it can be waited for").is_none();
    started.kill().ok();
    started.wait().expect("it can be waited for");
    let until = Instant::now() + Duration::from_millis(LASTS) + GRACE;
    let residue = loop {
        let left = others(&known);
        let now = world.fingerprint(true);
        if left.is_empty() && now == before {
            break None;
        }
        if Instant::now() >= until {
            let is_same = now == before;
            let shown = if is_same { "" } else { " and the host changed" };
            break Some(format!("processes {left:?}{shown}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // The next trial finds nothing of this one.
    for (pid, process) in processes::alive() {
        if !known.contains(&pid) {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(process.pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .ok();
        }
    }
    let cleared = Command::new("nft").args(["flush", "ruleset"]).status();
    drop(cleared);
    match is_hit {
        true => Outcome::Killed(residue),
        false => Outcome::Missed,
    }
}

fn main() {
    // Inside, the name of the test comes first; outside, what a person said. Both go on by the environment.
    let said: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let told = |name: &str, place: usize, default: u64| {
        let inside = std::env::var(name).ok().and_then(|text| text.parse().ok());
        inside.or(said.get(place).copied()).unwrap_or(default)
    };
    let trials = told("BACKBURN_RESIDUE_TRIALS", 0, 10);
    let seed = told("BACKBURN_RESIDUE_SEED", 1, 1);
    if std::env::var_os("BACKBURN_RESIDUE_TRIALS").is_none() {
        // Started again, with what is to be known inside.
        let own = std::env::current_exe().expect("a program knows its own file");
        let status = Command::new(own)
            .env("BACKBURN_RESIDUE_TRIALS", trials.to_string())
            .env("BACKBURN_RESIDUE_SEED", seed.to_string())
            .env(
                "BACKBURN_BINARIES",
                programs::backburn_agent()
                    .parent()
                    .expect("a program is in a folder"),
            )
            .status()
            .expect("it starts");
        std::process::exit(status.code().unwrap_or(1));
    }
    with_name("residue", || {
        in_network_namespace(&PROGRAMS, || measure(trials, seed));
    });
}

fn measure(trials: u64, seed: u64) {
    println!("{}", versions());
    println!(
        "residues of {trials} trials each, seed {seed}: killed at a random moment while the fault acts, looked at until {} s after its end was due\n",
        GRACE.as_secs()
    );
    let names: Vec<&str> = Tool::ALL.iter().map(|(_, name)| *name).collect();
    println!("| fault | {} |", names.join(" | "));
    println!("|---{}|", "|--:".repeat(names.len()));
    let mut left: BTreeMap<(Tool, &str), String> = BTreeMap::new();
    let mut total: BTreeMap<Tool, (u64, u64)> = BTreeMap::new();
    for fault in &FAULTS {
        let mut cells = Vec::new();
        for (tool, _) in Tool::ALL {
            let mut chance = Chance::new(seed, 0);
            let mut done: Vec<Option<String>> = Vec::new();
            // On a machine that is busy it may never be met while it acts.
            for _ in 0..trials * 5 {
                match trial(tool, fault, &mut chance) {
                    Outcome::Unable => break,
                    Outcome::Missed => {}
                    Outcome::Killed(residue) => done.push(residue),
                }
                if done.len() as u64 >= trials {
                    break;
                }
            }
            let residues = done.iter().flatten();
            if let Some(first) = residues.clone().next() {
                left.insert((tool, fault.name), first.clone());
            }
            let count = residues.count();
            let (sum, of) = total.entry(tool).or_default();
            *sum += count as u64;
            *of += done.len() as u64;
            cells.push(match done.len() {
                0 => "–".into(),
                all => format!("{count} of {all}"),
            });
        }
        println!("| {} | {} |", fault.name, cells.join(" | "));
    }
    let sums = Tool::ALL.map(|(tool, _)| {
        let (sum, of) = total.get(&tool).copied().unwrap_or_default();
        format!("{sum} of {of}")
    });
    println!("| **all** | {} |\n", sums.join(" | "));
    for ((tool, fault), what) in left {
        println!("{tool:?}, {fault}, e.g.: {what}");
    }
}

fn versions() -> String {
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = if text.is_empty() {
            String::from_utf8_lossy(&output.stderr).into_owned()
        } else {
            text
        };
        Some(text.lines().next()?.trim().to_owned())
    };
    let agent = programs::backburn_agent().display().to_string();
    let chaos = programs::oracle()
        .and_then(|python| Some(python.parent()?.join("chaos").display().to_string()))
        .unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let versions = [
        said("uname", &["-srm"]),
        said("bash", &["--version"]),
        said("tc", &["-V"]),
        said("nft", &["-v"]),
        said("stress-ng", &["--version"]),
        said(&chaos, &["--version"]).map(|text| format!("Chaos Toolkit: {text}")),
        said(&agent, &["--version"]),
    ];
    let versions: Vec<String> = versions.into_iter().flatten().collect();
    format!("{processors} processors; {}", versions.join("; "))
}
