//! Plug-ins by the protocol `backburn-plugin/1`: the examples at work, what becomes of those that hang, crash and lie, and what
//! `conform` says of honest and of careless ones. Needs root and `python3`, and is skipped without.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use backburn_agent::changes::{Change, Observed, ReversibleChange as _};
use backburn_agent::conform::{ConformCheck, ConformReport};
use backburn_agent::engine::PlanTask;
use backburn_agent::host::{Host, HostRole, Invocation};
use backburn_agent::plan::Plan;
use backburn_agent::plugins::{PluginRegistry, PluginState, UsablePlugin};
use backburn_agent::policy::HostPolicy;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Whether plug-ins can be run here.
fn can_run() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: not root, and plug-ins run in process namespaces of their own");
        assert!(
            std::env::var_os("CI").is_none(),
            "skipped under CI: not root"
        );
    }
    is_root
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/examples")
}

fn sha256_of(path: &Path) -> String {
    let said = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(said.stdout).unwrap()[..64].to_owned()
}

/// A state folder, a folder of plug-ins and a policy that allows them.
struct Place {
    folder: tempfile::TempDir,
    allowed: Vec<Value>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        Place {
            folder,
            allowed: Vec::new(),
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder
            .path()
            .canonicalize()
            .unwrap()
            .join("data")
            .join(name)
    }

    fn binary(&self, name: &str) -> PathBuf {
        self.folder
            .path()
            .canonicalize()
            .unwrap()
            .join("bin")
            .join(name)
    }

    /// Makes a plug-in of a Python example and its module, as the docs say.
    fn pack(&self, example: &str, name: &str) -> PathBuf {
        self.pack_text(
            &std::fs::read_to_string(examples().join(example)).unwrap(),
            name,
        )
    }

    /// Makes a plug-in of a Python text and the module.
    fn pack_text(&self, text: &str, name: &str) -> PathBuf {
        let source = tempfile::tempdir().unwrap();
        std::fs::write(source.path().join("__main__.py"), text).unwrap();
        let module = "backburn_plugin.py";
        std::fs::copy(examples().join(module), source.path().join(module)).unwrap();
        let packed = self.binary(name);
        let status = Command::new("python3")
            .args(["-m", "zipapp", "--python", "/usr/bin/python3 -B"])
            .arg("--output")
            .args([&packed, source.path()])
            .status()
            .unwrap();
        assert!(status.success());
        packed
    }

    /// Puts a plug-in of a shell script in place.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.binary(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn allow(&mut self, name: &str, path: &Path, capabilities: &[&str]) {
        self.allowed.push(json!({
            "name": name, "path": path, "sha256": sha256_of(path), "capabilities": capabilities,
        }));
    }

    fn policy(&self) -> HostPolicy {
        serde_json::from_value(json!({"plugins": self.allowed})).unwrap()
    }

    fn registry(&self) -> PluginRegistry {
        PluginRegistry::load(&host(), &self.state(), &self.policy())
    }

    fn usable(&self) -> Vec<UsablePlugin> {
        self.registry().usable().cloned().collect()
    }

    /// Why the only plug-in cannot be used.
    #[track_caller]
    fn refused(&self) -> String {
        match &self.registry().installed()[0].state {
            PluginState::Refused(why) => why.clone(),
            PluginState::Usable(_) => panic!("it can be used"),
        }
    }

    fn plan_under(
        &self,
        policy: HostPolicy,
        fault: &str,
        arguments: Value,
    ) -> Result<Plan, Refusal> {
        let task = PlanTask {
            request: InjectionRequest {
                id: "trial".into(),
                run: "by-hand".into(),
                fault: fault.into(),
                arguments: arguments.as_object().unwrap().clone(),
                duration: Some(HumanDuration::seconds(30)),
                every: None,
                seed: 1,
                max_victims: None,
            },
            protected_paths: policy.protected_paths(&self.state()),
            host_rules: policy.host_fault_rules(&self.state(), false),
            plugins: self.usable(),
            policy,
            state: self.state(),
            link: None,
            acting: 0,
        };
        task.plan()
    }

    fn plan(&self, fault: &str, arguments: Value) -> Result<Plan, Refusal> {
        self.plan_under(self.policy(), fault, arguments)
    }

    /// Writes this place's policy.
    fn policy_file(&self, rules: Value) -> PathBuf {
        let file = self.folder.path().join("policy.json");
        let mut policy = json!({"plugins": self.allowed});
        policy
            .as_object_mut()
            .unwrap()
            .extend(rules.as_object().unwrap().clone());
        std::fs::write(&file, policy.to_string()).unwrap();
        file
    }

    /// Runs the agent's program with this place's policy.
    fn agent(&self, words: &[&str]) -> Output {
        let policy = self.policy_file(json!({}));
        Command::new(common::AGENT)
            .args(words)
            .env("BACKBURN_STATE", self.state())
            .env("BACKBURN_POLICY", policy)
            .output()
            .unwrap()
    }
}

fn host() -> Host {
    Host::new(HostRole::Command, Invocation { prefix: Vec::new() })
}

fn config(place: &Place) -> PathBuf {
    let path = place.data("app.conf");
    std::fs::write(&path, "retries=3\ntimeout=30\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(64_321), Some(64_321)).unwrap();
    rustix::fs::lsetxattr(&path, "user.note", b"keep", rustix::fs::XattrFlags::CREATE).ok();
    path
}

fn edited(path: &Path) -> Value {
    json!({"file": path, "key": "timeout", "value": "0"})
}

const EDIT: [&str; 4] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
];

#[test]
fn plugin_planner_pauses_whatever_holds_a_lock() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let packed = place.pack("pause_lock_holder.py", "pause-lock-holder");
    place.allow("pause-lock-holder", &packed, &[]);
    let lock = place.data("lock");
    std::fs::write(&lock, "").unwrap();
    let arguments = json!({"file": lock});
    let refusal = place
        .plan("pause-lock-holder", arguments.clone())
        .unwrap_err();
    assert_eq!(refusal.rule, "plug-in");
    assert!(refusal.what.contains("nobody holds a lock"), "{refusal}");
    let holder = common::python(&format!(
        "import fcntl, time\nfile = open({:?})\nfcntl.flock(file, fcntl.LOCK_EX)\nprint('ready', flush=True)\ntime.sleep(60)",
        lock.display().to_string()
    ));
    let plan = place.plan("pause-lock-holder", arguments.clone()).unwrap();
    assert_eq!(plan.victims[0].id, holder.id.to_string());
    assert_eq!(plan.view().changes.len(), 1);
    // A planner may not do what the policy denies.
    let policy: HostPolicy =
        serde_json::from_value(json!({"plugins": place.allowed, "deny-faults": ["process-pause"]}))
            .unwrap();
    let refusal = place
        .plan_under(policy, "pause-lock-holder", arguments.clone())
        .unwrap_err();
    assert_eq!(refusal.rule, "policy");
    // Nor reach what it protects.
    let policy: HostPolicy = serde_json::from_value(
        json!({"plugins": place.allowed, "protect": {"names": ["python3"]}}),
    )
    .unwrap();
    let refusal = place
        .plan_under(policy, "pause-lock-holder", arguments)
        .unwrap_err();
    assert_eq!(refusal.rule, "protected", "{refusal}");
}

#[test]
fn plugin_holder_keeps_a_port_busy_until_its_helper_dies() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let packed = place.pack("hold_port.py", "hold-port");
    place.allow("hold-port", &packed, &["CAP_NET_BIND_SERVICE"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let refusal = place.plan("hold-port", json!({"port": 22})).unwrap_err();
    assert!(refusal.what.contains("protected"), "{refusal}");
    let refusal = place.plan("hold-port", json!({"prot": 8080})).unwrap_err();
    assert_eq!(refusal.rule, "arguments");
    let mut inject = Command::new(common::AGENT);
    let policy = place.folder.path().join("policy.json");
    std::fs::write(
        &policy,
        serde_json::to_vec(&json!({"plugins": place.allowed})).unwrap(),
    )
    .unwrap();
    let mut inject = inject
        .args([
            "inject",
            "hold-port",
            "--id",
            "trial",
            "--duration",
            "30s",
            "--arguments",
        ])
        .arg(json!({"port": port}).to_string())
        .env("BACKBURN_STATE", place.state())
        .env("BACKBURN_POLICY", policy)
        .spawn()
        .unwrap();
    let is_busy = || std::net::TcpListener::bind(("127.0.0.1", port)).is_err();
    common::until("the port is busy", is_busy);
    let helper = host().find_marked("trial-0").unwrap()[0];
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(helper.pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    common::until("the port is free", || !is_busy());
    assert!(
        !inject.wait().unwrap().success(),
        "the fault ended before its time"
    );
    assert_eq!(place.agent(&["status"]).status.code(), Some(0));
}

#[test]
fn plugin_changer_edits_a_setting_and_its_original_comes_back() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let packed = place.pack("edit_setting.py", "edit-setting");
    place.allow("edit-setting", &packed, &EDIT);
    let path = config(&place);
    let before = path.metadata().unwrap();
    let plan = place.plan("edit-setting", edited(&path)).unwrap();
    let [change] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes);
    };
    // Whatever becomes of the original, its pinned copy does the work.
    std::fs::remove_file(&packed).unwrap();
    let host = host();
    change.apply(&host).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"retries=3\ntimeout=0\n");
    assert!(matches!(
        change.observe(&host).unwrap(),
        Observed::Present(_)
    ));
    assert!(change.effect(&host).acts);
    change.undo(&host).unwrap();
    assert_eq!(change.observe(&host).unwrap(), Observed::Absent);
    assert!(change.is_done(&host));
    let after = path.metadata().unwrap();
    let whole = |file: &std::fs::Metadata| {
        (
            file.ino(),
            file.mode(),
            file.uid(),
            file.mtime_nsec(),
            file.len(),
        )
    };
    assert_eq!(whole(&after), whole(&before));
    let written = serde_json::to_value(change).unwrap();
    assert_eq!(written["change"], "plug-in");
    assert_eq!(serde_json::from_value::<Change>(written).unwrap(), *change);
}

#[test]
fn plugin_whose_pinned_copy_was_altered_is_not_run() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let packed = place.pack("edit_setting.py", "edit-setting");
    place.allow("edit-setting", &packed, &EDIT);
    let plan = place.plan("edit-setting", edited(&config(&place))).unwrap();
    let Change::Plugin(change) = &plan.changes[0] else {
        panic!("{plan:?}");
    };
    std::fs::write(
        &change.program.file,
        "#!/bin/sh\necho '{\"absent\": \"believe me\"}'\n",
    )
    .unwrap();
    let error = change.observe(&host()).unwrap_err().to_string();
    assert!(error.contains("was altered, so it is not run"), "{error}");
    assert!(
        error.contains("to revert it by hand: rename the original"),
        "{error}"
    );
    assert!(change.apply(&host()).is_err());
}

#[test]
fn plugin_of_protected_path_is_refused() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let packed = place.pack("edit_setting.py", "edit-setting");
    place.allow("edit-setting", &packed, &EDIT);
    let path = config(&place);
    let link = place.data("link.conf");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let policy: HostPolicy =
        serde_json::from_value(json!({"plugins": place.allowed, "protect": {"paths": [path]}}))
            .unwrap();
    for way in [&path, &link] {
        let refusal = place
            .plan_under(policy.clone(), "edit-setting", edited(way))
            .unwrap_err();
        assert_eq!(refusal.rule, "protected", "{refusal}");
    }
}

#[test]
fn plugin_that_is_not_what_the_policy_allows_is_refused() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let script = std::fs::read_to_string(examples().join("maintenance_flag.sh")).unwrap();
    let path = place.script("maintenance-flag", &script);
    place.allow("maintenance-flag", &path, &[]);
    assert_eq!(place.usable().len(), 1);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        place.refused().contains("others can write to it"),
        "{}",
        place.refused()
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&path, format!("{script}# more\n")).unwrap();
    assert!(
        place.refused().contains("was changed: its SHA-256 is"),
        "{}",
        place.refused()
    );
    let refusal = place
        .plan("maintenance-flag", json!({"flag": "/tmp/x"}))
        .unwrap_err();
    assert!(refusal.what.contains("cannot be used"), "{refusal}");
    std::fs::remove_file(&path).unwrap();
    assert!(
        place.refused().contains("No such file"),
        "{}",
        place.refused()
    );
    let listed = place.agent(&["plugins", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed[0]["state"], "refused");
}

#[test]
fn plugin_that_names_no_interpreter_is_refused_and_no_shell_runs_it() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let ran = place.data("ran");
    let path = place.script("bare", &format!("# a plug-in\necho > {}\n", ran.display()));
    place.allow("bare", &path, &[]);
    let why = place.refused();
    assert!(
        why.contains("names its interpreter") && why.contains("#!/bin/sh"),
        "{why}"
    );
    let said = place.agent(&["conform", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("names its interpreter"), "{said}");
    // With a line that names something that is no program, the kernel refuses it, and nobody else is asked.
    std::fs::write(place.binary("text"), "echo\n").unwrap();
    std::fs::set_permissions(place.binary("text"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let head = format!(
        "#!{}\necho > {}\n",
        place.binary("text").display(),
        ran.display()
    );
    let path = place.script("bare", &head);
    place.allowed.clear();
    place.allow("bare", &path, &[]);
    let why = place.refused();
    assert!(why.contains("no shell runs"), "{why}");
    assert!(!ran.exists());
}

#[test]
fn plugin_whose_module_is_missing_is_refused_with_what_packs_it() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let text = std::fs::read_to_string(examples().join("hold_port.py")).unwrap();
    let path = place.script("hold-port", &text);
    let said = place.agent(&["conform", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("No module named 'backburn_plugin'") && said.contains("zipapp"),
        "{said}"
    );
}

/// Runs the agent's program with these words, and no variables of this place.
fn agent_of(words: &str) -> (Option<i32>, String, String) {
    let words: Vec<&str> = words.split(' ').collect();
    let said = Command::new(common::AGENT)
        .args(words)
        .env_remove("BACKBURN_STATE")
        .env_remove("BACKBURN_POLICY")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (said.status.code(), text(said.stdout), text(said.stderr))
}

#[test]
fn plugin_fault_on_the_command_line_is_as_any_other() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let script = std::fs::read_to_string(examples().join("maintenance_flag.sh")).unwrap();
    let path = place.script("maintenance-flag", &script);
    place.allow("maintenance-flag", &path, &[]);
    let policy = place.policy_file(json!({"max-duration": "1m"}));
    let (policy, state, flag) = (policy.display(), place.state(), place.data("flag"));
    let (state, flag) = (state.display(), flag.display());
    let given = format!("--policy {policy} --state {state}");
    for words in [
        format!("plan maintenance-flag --flag {flag} {given}"),
        format!("{given} plan maintenance-flag --flag {flag}"),
        format!("plan {given} maintenance-flag --flag {flag} --json"),
        format!("plan maintenance-flag {given} --arguments {{\"flag\":\"{flag}\"}}"),
    ] {
        let (code, out, error) = agent_of(&words);
        assert!(
            code == Some(0) && out.contains("remove "),
            "{words}: {out}{error}"
        );
        assert!(!out.contains("file file:"), "{out}");
    }
    for words in ["plan maintenance-flag --help", "help plan maintenance-flag"] {
        let (code, out, error) = agent_of(&format!("{words} --policy {policy} --state {state}"));
        let has_help = out.contains("--flag") && out.contains("Absolute path of the flag file.");
        // `help` takes no options.
        assert!(
            words.starts_with("help") || code == Some(0) && has_help,
            "{out}{error}"
        );
    }
    let (_, out, _) = agent_of(&format!("faults maintenance-flag {given}"));
    assert!(out.contains("flag (required): Absolute path"), "{out}");
    let (_, out, _) = agent_of(&format!("faults --json {given}"));
    assert!(
        out.contains("cpu-stress") && out.contains("maintenance-flag"),
        "{out}"
    );
    let (_, out, _) = agent_of(&format!("plugins --json {given}"));
    assert!(out.contains("\"pattern\""), "{out}");
    // What is wrong is said as for any other fault.
    let (code, _, error) = agent_of(&format!("plan maintenance-flag --flag relative {given}"));
    assert!(code == Some(2) && error.contains("$.flag"), "{error}");
    let (code, _, error) = agent_of(&format!("plan maintenance-flag --flg {flag} {given}"));
    assert!(code == Some(2) && error.contains("--flag"), "{error}");
    // A refusal by a rule names the file that has the rule.
    let (_, _, error) = agent_of(&format!(
        "plan maintenance-flag --flag {flag} --duration 5m {given}"
    ));
    assert!(
        error.contains(&format!("`max-duration` in {policy}")),
        "{error}"
    );
    assert!(!place.data("flag").exists());
}

#[test]
fn plugin_that_is_refused_and_planned_says_why() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let script = std::fs::read_to_string(examples().join("maintenance_flag.sh")).unwrap();
    let path = place.script("maintenance-flag", &script);
    place.allow("maintenance-flag", &path, &[]);
    place.script("maintenance-flag", &format!("{script}\n# altered"));
    let given = format!(
        "--policy {} --state {}",
        place.policy_file(json!({})).display(),
        place.state().display()
    );
    for words in [
        "plan maintenance-flag",
        "inject maintenance-flag --duration 1s",
        "faults maintenance-flag",
    ] {
        let (code, _, error) = agent_of(&format!("{words} {given}"));
        assert!(
            code != Some(0) && error.contains("was changed: its SHA-256"),
            "{error}"
        );
    }
    let (code, out, _) = agent_of(&format!("plugins {given}"));
    assert!(code != Some(0) && out.contains("was changed"), "{out}");
}

#[test]
fn plugin_without_its_capability_is_refused() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let packed = place.pack("hold_port.py", "hold-port");
    place.allow("hold-port", &packed, &[]);
    assert!(
        place.refused().contains("CAP_NET_BIND_SERVICE"),
        "{}",
        place.refused()
    );
}

/// The answer of a shell plug-in to `describe`.
fn described(name: &str, kind: &str) -> String {
    json!({
        "protocol": [1, 1], "name": name, "summary": "Test", "kind": kind, "timeout": "1s",
        "schema": {"type": "object", "additionalProperties": false}, "example": {},
    })
    .to_string()
}

#[test]
fn plugin_that_describes_itself_wrongly_is_refused() {
    if !can_run() {
        return;
    }
    let good = described("odd", "changer");
    for (says, why) in [
        ("sleep 60".to_owned(), "within 2s"),
        ("echo hello".to_owned(), "something else"),
        ("echo; echo".to_owned(), "answered `describe`"),
        ("true".to_owned(), "with nothing"),
        (
            "echo oh >&2; exit 3".to_owned(),
            "exit status: 3; its standard error: oh",
        ),
        ("kill -SEGV $$; sleep 9".to_owned(), "describe"),
        (
            format!("echo '{good}'; echo '{good}'"),
            "more than one line",
        ),
        (
            "head -c 2000000 /dev/zero".to_owned(),
            "more than 1048576 bytes",
        ),
        (
            format!("echo '{}'", good.replace("[1,1]", "[2,3]")),
            "versions 2 to 3",
        ),
        (
            format!("echo '{}'", good.replace("odd", "even")),
            "calls itself `even`",
        ),
        (
            format!("echo '{}'", good.replace("false", "true")),
            "misspelt",
        ),
        (
            format!("echo '{}'", good.replace("summary", "sumary")),
            "sumary",
        ),
    ] {
        let mut place = Place::new();
        let path = place.script("odd", &format!("#!/bin/sh\n{says}\n"));
        place.allow("odd", &path, &[]);
        let started = Instant::now();
        let refused = place.refused();
        assert!(refused.contains(why), "{says}: {refused}");
        assert!(started.elapsed() < Duration::from_secs(8), "{says}");
    }
}

#[test]
fn plugin_plan_can_change_nothing_and_has_no_network() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let file = place.data("made-by-plan");
    let script = format!(
        "#!/bin/sh\nread request\ncase $request in\n*describe*) echo '{}' ;;\n*)\n\
         touch {file} 2>/dev/null && wrote=yes || wrote=no\n\
         links=$(tail -n +3 /proc/net/dev | grep -cv ' lo:')\n\
         caps=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)\n\
         kill -0 {own} 2>/dev/null && killed=yes || killed=no\n\
         echo \"{{\\\"refused\\\": \\\"wrote $wrote, links $links, caps $caps, variables $(env | grep -cv '^PWD\\|^_\\|^SHLVL\\|^OLDPWD'), in $PWD, kills $killed\\\"}}\" ;;\nesac\n",
        described("odd", "changer"),
        file = file.display(),
        own = std::process::id(),
    );
    let path = place.script("odd", &script);
    place.allow("odd", &path, &[]);
    let refusal = place.plan("odd", json!({})).unwrap_err();
    assert!(
        refusal
            .what
            .contains("wrote no, links 0, caps 0000000000000000, variables 0, in /, kills no"),
        "{refusal}"
    );
    assert!(!file.exists());
}

/// A plan of a shell changer whose verbs do these things.
fn odd_change(place: &mut Place, verbs: &str) -> Change {
    let marker = place.data("marker");
    let planned = json!({"changes": [{
        "data": {"marker": marker}, "holds": [format!("file:{}", marker.display())],
        "effect": {"look": "file-exists", "path": marker},
        "apply": "make it", "undo": "remove the marker", "if-agent-dies": "the guardian",
    }]});
    let script = format!(
        "#!/bin/sh\nread request\nmarker={}\ncase $request in\n*describe*) echo '{}' ;;\n*'\"plan\"'*) echo '{planned}' ;;\n{verbs}\nesac\n",
        marker.display(),
        described("odd", "changer"),
    );
    let path = place.script("odd", &script);
    place.allow("odd", &path, &[]);
    let plan = place.plan("odd", json!({})).unwrap();
    plan.changes[0].clone()
}

#[test]
fn plugin_that_hangs_is_killed_with_its_children_and_counts_as_partly_applied() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let change = odd_change(
        &mut place,
        "*apply*) touch $marker; sleep 4711 & sleep 4711 ;;\n*observe*) sleep 4712 ;;\n*undo*) rm -f $marker; echo '{\"done\": \"gone\"}' ;;",
    );
    let host = host();
    let started = Instant::now();
    let failed = change.apply(&host).unwrap_err().to_string();
    assert!(
        failed.contains("did not answer `apply` within 1s and was killed"),
        "{failed}"
    );
    assert!(started.elapsed() < Duration::from_secs(3));
    let sleeps = || {
        let table = backburn_agent::processes::ProcessTable::default();
        let pids = table.pids().unwrap().into_iter();
        pids.filter(|pid| {
            table
                .arguments(*pid)
                .iter()
                .any(|word| ["4711", "4712"].contains(&word.as_str()))
        })
        .count()
    };
    common::until("all that it had started is dead", || sleeps() == 0);
    // Unknown is not gone.
    let unknown = change.observe(&host).unwrap_err().to_string();
    assert!(unknown.contains("within 2s"), "{unknown}");
    change.undo(&host).unwrap();
}

#[test]
fn plugin_that_says_gone_while_the_agent_sees_its_effect_is_not_believed() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let change = odd_change(
        &mut place,
        "*apply*) touch $marker; echo '{\"done\": \"made\"}' ;;\n*observe*) echo '{\"absent\": \"all clear\"}' ;;\n*undo*) echo '{\"done\": \"gone\"}' ;;",
    );
    let host = host();
    change.apply(&host).unwrap();
    change.undo(&host).unwrap();
    let Observed::Present(seen) = change.observe(&host).unwrap() else {
        panic!("it was believed");
    };
    assert!(seen.contains("says `all clear`, but"), "{seen}");
}

/// The report of `conform`, as the program prints it.
fn tried(place: &Place, plugin: &Path, arguments: Value) -> ConformReport {
    let (plugin, arguments) = (plugin.display().to_string(), arguments.to_string());
    let watched = place.data("").display().to_string();
    let words = [
        "conform",
        &plugin,
        "--arguments",
        &arguments,
        "--watch",
        &watched,
        "--json",
    ];
    let said = place.agent(&words);
    let report = serde_json::from_slice(&said.stdout);
    let report: ConformReport =
        report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&said.stderr)));
    assert_eq!(said.status.code(), Some(if report.passed { 0 } else { 6 }));
    report
}

#[track_caller]
fn assert_passed(report: &ConformReport) {
    assert!(report.passed, "{}", report.to_markdown());
}

/// The checks that failed.
fn failed(report: &ConformReport) -> Vec<&str> {
    let failed = report.checks.iter().filter(|check| check.failure.is_some());
    failed.map(|check| check.name.as_str()).collect()
}

#[test]
fn conform_of_the_examples_passes() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let packed = place.pack("edit_setting.py", "edit-setting");
    let report = tried(&place, &packed, edited(&config(&place)));
    assert_passed(&report);
    // It was killed at real places: at least where it copies, links and renames, and where it renames back.
    let places = |verb: &str| {
        let of = |check: &&ConformCheck| {
            check
                .name
                .starts_with(&format!("killed before each system call of {verb} "))
        };
        let name = &report.checks.iter().find(of).unwrap().name;
        let count = name.rsplit_once('(').unwrap().1.split(' ').next().unwrap();
        count.parse::<usize>().unwrap()
    };
    assert!(places("apply") >= 5, "{}", report.to_markdown());
    assert!(places("undo") >= 1, "{}", report.to_markdown());
    let script = std::fs::read_to_string(examples().join("maintenance_flag.sh")).unwrap();
    let flag = place.script("maintenance-flag", &script);
    assert_passed(&tried(&place, &flag, json!({"flag": place.data("flag")})));
    let packed = place.pack("hold_port.py", "hold-port");
    assert_passed(&tried(&place, &packed, json!({"port": 18_081})));
}

#[test]
fn conform_of_a_built_in_fault_passes_and_its_report_is_printed() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let arguments = json!({"size": "16MiB"}).to_string();
    let said = place.agent(&["conform", "memory-fill", "--arguments", &arguments]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.status.code(), Some(0), "{text}");
    assert!(
        text.contains("## conform: `memory-fill` (built-in) passed"),
        "{text}"
    );
    assert!(text.contains("| helper killed | passed |"), "{text}");
    let said = place.agent(&["conform", "process-kill"]);
    assert_eq!(said.status.code(), Some(2));
}

/// A changer with a mistake: how it applies and undoes.
fn careless(place: &Place, apply: &str, undo: &str) -> ConformReport {
    let text = std::fs::read_to_string(examples().join("edit_setting.py")).unwrap();
    let (begin, _) = text.split_once("def apply(").unwrap();
    let text = format!(
        "{begin}def apply(data, request):\n    path, original, new = names(data, request)\n{apply}\n    return 'done'\n\n\n\
         def observe(data, request):\n    with open(data['file']) as file:\n        lines = file.read().splitlines()\n    \
         return ('present' if data['line'] in lines else 'absent'), 'seen'\n\n\n\
         def undo(data, request):\n    path, original, new = names(data, request)\n{undo}\n    return 'done'\n\n\n\
         plugin.main(DESCRIPTION, plan=plan, apply=apply, observe=observe, undo=undo)\n"
    );
    let packed = place.pack_text(&text, "edit-setting");
    tried(place, &packed, edited(&config(place)))
}

const EDIT_IN_PLACE: &str = "    shutil.copy2(path, original)\n    text = open(path).read().replace('timeout=30', data['line'])\n    open(path, 'w').write(text)";

#[test]
fn conform_catches_an_undo_that_keeps_the_length_and_loses_the_content() {
    if !can_run() {
        return;
    }
    let report = careless(
        &Place::new(),
        "    open(path, 'w').write('x' * 9 + '\\n' + data['line'])",
        "    open(path, 'w').write('retries=9\\ntimeout=30\\n')",
    );
    assert!(
        failed(&report).contains(&"undo: everything is as it was"),
        "{}",
        report.to_markdown()
    );
}

#[test]
fn conform_catches_an_undo_that_toggles() {
    if !can_run() {
        return;
    }
    let toggle = "    text = open(path).read()\n    other = text.replace('timeout=30', data['line']) if 'timeout=30' in text else text.replace(data['line'], 'timeout=30')\n    status = os.stat(path)\n    open(path, 'w').write(other)\n    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))";
    let report = careless(&Place::new(), toggle, toggle);
    assert!(
        failed(&report).contains(&"undo with nothing applied"),
        "{}",
        report.to_markdown()
    );
    assert!(
        failed(&report).contains(&"undo once more changes nothing"),
        "{}",
        report.to_markdown()
    );
}

#[test]
fn conform_catches_an_undo_that_loses_owner_mode_time_and_attributes() {
    if !can_run() {
        return;
    }
    let undo = "    if os.path.exists(original):\n        text = open(original).read()\n        os.unlink(path)\n        open(path, 'w').write(text)\n        os.unlink(original)";
    let report = careless(&Place::new(), EDIT_IN_PLACE, undo);
    assert!(
        failed(&report).contains(&"undo: everything is as it was"),
        "{}",
        report.to_markdown()
    );
    let failure = report
        .checks
        .iter()
        .find_map(|check| check.failure.clone())
        .unwrap();
    assert!(failure.contains("owner"), "{failure}");
}

#[test]
fn conform_catches_a_holder_that_leaves_a_file() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let text = std::fs::read_to_string(examples().join("hold_port.py")).unwrap();
    let left = place.data("left");
    let text = text.replace(
        "        plugin.ready(",
        &format!(
            "        open({:?}, 'w').close()\n        import subprocess\n        subprocess.Popen(['sleep', '4713'])\n        plugin.ready(",
            left.display().to_string()
        ),
    );
    let packed = place.pack_text(&text, "hold-port");
    let report = tried(&place, &packed, json!({"port": 18_082}));
    assert!(
        failed(&report).contains(&"undo: everything is as it was"),
        "{}",
        report.to_markdown()
    );
    // Its child is dead, since the kernel has ended its namespace.
    let table = backburn_agent::processes::ProcessTable::default();
    let pids = table.pids().unwrap().into_iter();
    let children = pids.filter(|pid| table.arguments(*pid).iter().any(|word| word == "4713"));
    assert_eq!(children.count(), 0);
}

#[test]
fn plugin_fault_that_is_misspelt_is_refused_with_the_nearest_name() {
    let place = Place::new();
    let said = place.agent(&["plan", "cpu-stres"]);
    assert_eq!(said.status.code(), Some(2));
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(
        text.contains("there is no fault `cpu-stres`") && text.contains("`cpu-stress`?"),
        "{text}"
    );
}
