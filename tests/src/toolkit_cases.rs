//! Small whole experiments for both tools: every provider, tolerance, strategy and way to say a
//! thing, in combination. Each comes as a function of the folder that it may write to.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

/// Experiments by name.
pub fn experiments(folder: &Path, web: SocketAddr) -> Vec<(String, Value)> {
    let mut cases = Vec::new();
    values(&mut cases, web);
    tolerances(&mut cases, web);
    strategies(&mut cases, folder);
    order(&mut cases, folder);
    configured(&mut cases, web);
    cases
}

type Cases = Vec<(String, Value)>;

fn experiment(hypothesis: Vec<Value>, method: Vec<Value>, rollbacks: Vec<Value>) -> Value {
    let mut document = json!({"version": "1.0.0", "title": "t", "description": "d", "method": method, "rollbacks": rollbacks});
    if !hypothesis.is_empty() {
        document["steady-state-hypothesis"] = json!({"title": "h", "probes": hypothesis});
    }
    document
}

fn activity(kind: &str, name: &str, provider: Value) -> Value {
    json!({"type": kind, "name": name, "provider": provider})
}

fn probe(name: &str, provider: Value, tolerance: Value) -> Value {
    json!({"type": "probe", "name": name, "provider": provider, "tolerance": tolerance})
}

fn process(path: &str, arguments: Value) -> Value {
    json!({"type": "process", "path": path, "arguments": arguments, "timeout": 10})
}

fn python(func: &str, arguments: Value) -> Value {
    json!({"type": "python", "module": "oracle_functions", "func": func, "arguments": arguments})
}

/// What each provider gives, as a probe and as an action.
fn values(cases: &mut Cases, web: SocketAddr) {
    let http = |path: &str, more: Value| {
        let mut provider =
            json!({"type": "http", "url": format!("http://{web}{path}"), "timeout": 5});
        for (key, value) in more.as_object().into_iter().flatten() {
            provider[key] = value.clone();
        }
        provider
    };
    let closed = format!("http://127.0.0.1:{}/", crate::software::free_port());
    let providers = [
        ("process list", process("echo", json!(["one", "two words"]))),
        (
            "process object",
            process("echo", json!({"--name": "value", "-n": "x"})),
        ),
        ("process string", process("echo", json!("one two  three"))),
        (
            "process quoted string",
            process("printf", json!("'%s-' a \"b c\"")),
        ),
        (
            "process no arguments",
            json!({"type": "process", "path": "true"}),
        ),
        ("process fails", process("false", json!([]))),
        (
            "process exit 3",
            process("python3", json!(["-c", "import sys; sys.exit(3)"])),
        ),
        (
            "process stderr",
            process(
                "python3",
                json!([
                    "-c",
                    "import sys; print('out'); print('err', file=sys.stderr)"
                ]),
            ),
        ),
        ("process numbers", process("echo", json!([1, 2.5, true]))),
        (
            "process too long",
            json!({"type": "process", "path": "sleep", "arguments": ["5"], "timeout": 0.3}),
        ),
        ("http json", http("/json", json!({}))),
        ("http text", http("/text", json!({}))),
        ("http 404", http("/status/404", json!({}))),
        ("http 503", http("/status/503", json!({}))),
        (
            "http get arguments",
            http("/echo", json!({"arguments": {"a": "1", "b": "x y"}})),
        ),
        (
            "http post",
            http(
                "/echo",
                json!({"method": "POST", "arguments": {"a": 1}, "headers": {"Content-Type": "application/json"}}),
            ),
        ),
        (
            "http put",
            http("/echo", json!({"method": "PUT", "arguments": {"a": [1]}})),
        ),
        ("http delete", http("/echo", json!({"method": "DELETE"}))),
        (
            "http refused",
            json!({"type": "http", "url": closed, "timeout": 2}),
        ),
        ("python number", python("add", json!({"a": 40, "b": 2}))),
        ("python default", python("add", json!({"a": 40}))),
        ("python object", python("greet", json!({"name": "you"}))),
        ("python list", python("several", json!({}))),
        ("python none", python("nothing", json!({}))),
        (
            "python raises",
            python("fail", json!({"message": "on purpose"})),
        ),
        (
            "python built-in",
            json!({"type": "python", "module": "os.path", "func": "basename", "arguments": {"p": "/a/b"}}),
        ),
    ];
    for (name, provider) in providers {
        for kind in ["probe", "action"] {
            let method = vec![
                activity(kind, "it", provider.clone()),
                activity("action", "next", process("true", json!([]))),
            ];
            cases.push((
                format!("{name} as {kind}"),
                experiment(vec![], method, vec![]),
            ));
        }
    }
}

/// Tolerances in the hypothesis of a whole run, good and bad.
fn tolerances(cases: &mut Cases, web: SocketAddr) {
    let http = json!({"type": "http", "url": format!("http://{web}/json"), "timeout": 5});
    let echo = process("echo", json!(["load 0.7"]));
    let number = python("add", json!({"a": 40, "b": 2}));
    let judged = [
        ("status", &http, json!(200), json!(500)),
        ("statuses", &http, json!([200, 201]), json!([500, 503])),
        ("exit", &echo, json!(0), json!(1)),
        ("regex", &echo, json!({"type": "regex", "pattern": "0\\.[0-9]", "target": "stdout"}), json!({"type": "regex", "pattern": "^1", "target": "stdout"})),
        ("jsonpath", &http, json!({"type": "jsonpath", "path": "$.orders", "target": "body", "expect": [3]}), json!({"type": "jsonpath", "path": "$.orders", "target": "body", "expect": [4]})),
        ("jsonpath count", &http, json!({"type": "jsonpath", "path": "$.items[*].id", "target": "body", "count": 2}), json!({"type": "jsonpath", "path": "$.items[*].id", "target": "body", "count": 3})),
        ("range", &number, json!({"type": "range", "range": [40, 50]}), json!({"type": "range", "range": [50, 60]})),
        ("bounds", &number, json!([40, 50]), json!([50, 60])),
        ("number", &number, json!(42), json!(41)),
        ("truth", &python("is_even", json!({"value": 4})), json!(true), json!(false)),
        ("probe", &number,
         json!({"type": "probe", "name": "even", "provider": python("is_even", json!({"value": ""}))}),
         json!({"type": "probe", "name": "odd", "provider": python("is_odd", json!({"value": ""}))})),
    ]
    .map(|(name, provider, good, bad)| (name, provider.clone(), good, bad));
    for (name, provider, good, bad) in judged {
        let method = vec![activity("action", "act", process("true", json!([])))];
        cases.push((
            format!("{name} within"),
            experiment(
                vec![probe("p", provider.clone(), good.clone())],
                method.clone(),
                vec![],
            ),
        ));
        // Only after, since a gate that fails is one of the differences.
        let mut outside = experiment(
            vec![
                probe("q", http.clone(), json!(200)),
                probe("p", provider.clone(), bad),
            ],
            method.clone(),
            vec![],
        );
        outside["runtime"] = json!({"hypothesis": {"strategy": "after-method-only"}});
        cases.push((format!("{name} outside"), outside));
        let mut method = method;
        method.push(probe("in the method", provider, good));
        cases.push((
            format!("{name} in the method"),
            experiment(vec![], method, vec![]),
        ));
    }
}

/// When the hypothesis is looked at and the rollbacks are played, for methods that go well, break
/// the hypothesis, or fail.
fn strategies(cases: &mut Cases, folder: &Path) {
    let file = folder.join("sign").display().to_string();
    let standing = probe(
        "the file is there",
        process("test", json!(["-e", file])),
        json!(0),
    );
    let make = activity("action", "make", process("touch", json!([file])));
    let remove = activity("action", "remove", process("rm", json!(["-f", file])));
    let methods = [
        ("goes well", vec![make.clone()]),
        ("breaks it", vec![remove.clone()]),
        (
            "action fails",
            vec![
                make.clone(),
                activity("action", "fails", python("fail", json!({}))),
                remove.clone(),
            ],
        ),
        ("nothing", vec![]),
    ];
    let restore = activity("action", "restore", process("touch", json!([file])));
    for (name, method) in methods {
        // Made before the hypothesis is first looked at, by whoever runs the case.
        for rollbacks in ["default", "always", "never", "deviated"] {
            let mut document = experiment(
                vec![standing.clone()],
                method.clone(),
                vec![restore.clone()],
            );
            document["runtime"] = json!({"rollbacks": {"strategy": rollbacks}});
            cases.push((format!("sign {name}, rollbacks {rollbacks}"), document));
        }
        for hypothesis in ["default", "before-method-only", "after-method-only"] {
            let mut document = experiment(
                vec![standing.clone()],
                method.clone(),
                vec![restore.clone()],
            );
            document["runtime"] = json!({"hypothesis": {"strategy": hypothesis}});
            cases.push((format!("sign {name}, hypothesis {hypothesis}"), document));
        }
    }
    for hypothesis in ["during-method-only", "continuously"] {
        let slow = activity("action", "slow", process("sleep", json!(["1.2"])));
        let mut document = experiment(vec![standing.clone()], vec![slow], vec![restore.clone()]);
        document["runtime"] = json!({"hypothesis": {"strategy": hypothesis}});
        cases.push((
            format!("sign goes well slowly, hypothesis {hypothesis}"),
            document,
        ));
    }
}

/// References, pauses, the background, and what comes first.
fn order(cases: &mut Cases, folder: &Path) {
    let file = folder.join("order").display().to_string();
    let append = |word: &str| {
        let program = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])";
        process("python3", json!(["-c", program, file, word]))
    };
    let read = |name: &str| activity("probe", name, process("cat", json!([file])));
    let said = probe("said", process("echo", json!(["yes"])), json!(0));
    cases.push((
        "reference in the method".into(),
        experiment(vec![said.clone()], vec![json!({"ref": "said"})], vec![]),
    ));
    cases.push((
        "reference in the rollbacks".into(),
        experiment(
            vec![said.clone()],
            vec![activity("action", "a", append("a"))],
            vec![json!({"ref": "said"}), json!({"ref": "a"})],
        ),
    ));
    let mut later = activity("action", "later", process("sleep", json!(["0.5"])));
    later["background"] = json!(true);
    cases.push((
        "background".into(),
        experiment(
            vec![said.clone()],
            vec![
                later.clone(),
                activity("action", "a", append("a")),
                read("r"),
            ],
            vec![],
        ),
    ));
    cases.push((
        "background alone".into(),
        experiment(vec![], vec![later.clone()], vec![]),
    ));
    let mut fails = activity("action", "later", python("fail", json!({})));
    fails["background"] = json!(true);
    cases.push((
        "background fails".into(),
        experiment(
            vec![],
            vec![fails, activity("action", "a", append("a"))],
            vec![],
        ),
    ));
    for pauses in [
        json!({"before": 0.2}),
        json!({"after": 0.2}),
        json!({"before": 0.1, "after": 0.1}),
    ] {
        let mut paused = activity("action", "a", append("a"));
        paused["pauses"] = pauses.clone();
        cases.push((
            format!("pauses {pauses}"),
            experiment(
                vec![],
                vec![paused, activity("action", "b", append("b")), read("r")],
                vec![],
            ),
        ));
    }
    let mut background = activity("action", "a", append("a"));
    background["background"] = json!(true);
    background["pauses"] = json!({"before": 0.5});
    cases.push((
        "background after a pause".into(),
        experiment(
            vec![],
            vec![background, activity("action", "b", append("b"))],
            vec![read("r")],
        ),
    ));
    let failing = activity("probe", "broken", python("fail", json!({})));
    cases.push((
        "a probe fails, the rest goes on".into(),
        experiment(
            vec![],
            vec![failing, activity("action", "b", append("b")), read("r")],
            vec![],
        ),
    ));
    let rollbacks = vec![
        activity("action", "fails", python("fail", json!({}))),
        activity("action", "b", append("b")),
        read("r"),
    ];
    cases.push((
        "a rollback fails, the rest goes on".into(),
        experiment(vec![], vec![], rollbacks),
    ));
    cases.push(("two probes, the second outside after".into(), {
        let mut document = experiment(
            vec![said, probe("no", process("false", json!([])), json!(0))],
            vec![],
            vec![],
        );
        document["runtime"] = json!({"hypothesis": {"strategy": "after-method-only"}});
        document
    }));
}

/// Configuration, secrets and substitution.
fn configured(cases: &mut Cases, web: SocketAddr) {
    let env = |key: &str, more: Value| {
        let mut variable = json!({"type": "env", "key": key});
        for (key, value) in more.as_object().into_iter().flatten() {
            variable[key] = value.clone();
        }
        variable
    };
    let echo = |text: &str| activity("probe", "echo", process("echo", json!([text])));
    let add = |value: &str| activity("probe", "add", python("add", json!({"a": value, "b": 1})));
    let variables = [
        ("literal", json!("plain"), echo("${it}")),
        ("inside", json!("plain"), echo("it is ${it}, twice ${it}")),
        ("number keeps its type", json!(4), add("${it}")),
        (
            "from the environment",
            env("BACKBURN_ORACLE_WORD", json!({})),
            echo("${it}"),
        ),
        (
            "default",
            env("BACKBURN_ORACLE_MISSING", json!({"default": "else"})),
            echo("${it}"),
        ),
        (
            "default not used",
            env("BACKBURN_ORACLE_WORD", json!({"default": "else"})),
            echo("${it}"),
        ),
        (
            "int",
            env("BACKBURN_ORACLE_NUMBER", json!({"env_var_type": "int"})),
            add("${it}"),
        ),
        (
            "float",
            env("BACKBURN_ORACLE_NUMBER", json!({"env_var_type": "float"})),
            add("${it}"),
        ),
        (
            "json",
            env("BACKBURN_ORACLE_JSON", json!({"env_var_type": "json"})),
            activity("probe", "deep", python("greet", json!({"name": "${it}"}))),
        ),
        (
            "list",
            json!([1, 2]),
            activity("probe", "list", python("greet", json!({"name": "${it}"}))),
        ),
        ("dollar", json!("plain"), echo("costs $$5, ${it}")),
    ];
    for (name, value, activity) in variables {
        let mut document = experiment(vec![], vec![activity], vec![]);
        document["configuration"] = json!({"it": value});
        cases.push((format!("configuration {name}"), document));
    }
    let mut url = experiment(
        vec![probe(
            "page",
            json!({"type": "http", "url": "${base}/status/${code}", "timeout": 5}),
            json!(204),
        )],
        vec![activity(
            "probe",
            "again",
            json!({"type": "http", "url": "${base}/text", "timeout": 5}),
        )],
        vec![],
    );
    url["configuration"] = json!({"base": format!("http://{web}"), "code": "204"});
    cases.push(("configuration in a url".into(), url));
    let mut greeting = experiment(
        vec![],
        vec![activity(
            "probe",
            "greet",
            python("greet", json!({"name": "you"})),
        )],
        vec![],
    );
    greeting["configuration"] = json!({"greeting": "good day"});
    cases.push(("configuration given to python".into(), greeting.clone()));
    for value in [json!("hidden"), env("BACKBURN_ORACLE_WORD", json!({}))] {
        let mut secret = greeting.clone();
        secret["secrets"] = json!({"scope": {"token": value}});
        secret["method"][0]["provider"]["secrets"] = json!(["scope"]);
        cases.push((
            format!(
                "secret {}",
                if value.is_string() {
                    "literal"
                } else {
                    "from the environment"
                }
            ),
            secret,
        ));
    }
}
