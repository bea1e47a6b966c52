//! Nothing that somebody writes makes the reader panic, and whatever it takes for an experiment
//! can be used. Documents are mutated from a seed, as text and as JSON: as many as `BACKBURN_FUZZ`
//! says (20,000 where it says nothing), from `BACKBURN_FUZZ_SEED`.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use backburn_experiments::check::{Experiment, KnownFault, Sources, load};
use backburn_experiments::document::{Provider, Tolerance};
use backburn_experiments::schema;
use backburn_experiments::tolerance::CompiledTolerance;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound.max(1) as u64) as usize
}

/// Documents to start from: between them, every part of the format.
fn seeds() -> Vec<Value> {
    let provider =
        |value: Value| json!({"type": "probe", "name": "p", "tolerance": true, "provider": value});
    let providers: Vec<Value> = [
        json!({"type": "http", "url": "http://${host}/", "timeout": [1, "2s"], "headers": {"a": "${token}"}, "arguments": {"q": "$n"}}),
        json!({"type": "process", "path": "p", "arguments": "-a 'b c' ${n}", "env": {"K": 1}, "timeout": "PT5S"}),
        json!({"type": "python", "module": "m", "func": "f", "arguments": {"x": "${list}"}, "secrets": ["s"]}),
        json!({"type": "tcp", "host": "h", "port": 80}),
        json!({"type": "dns", "name": "n", "record": "AAAA", "server": "1.1.1.1:53"}),
        json!({"type": "prometheus", "url": "http://x", "query": "up"}),
        json!({"type": "load", "url": "http://${host}/", "rate": 5, "ramp": "1s", "duration": "2s", "burst": 3}),
        json!({"type": "host", "metric": "disk-free-percent", "path": "/"}),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, value)| {
        let mut activity = provider(value);
        activity["name"] = json!(format!("p{index}"));
        activity
    })
    .collect();
    let tolerances = [
        json!(true),
        json!(200),
        json!("x"),
        json!([1, 2]),
        json!({"type": "regex", "pattern": "^a+$", "target": "stdout"}),
        json!({"type": "jsonpath", "path": "$.a[*][?(@.n = 1 and not @.x)].b", "expect": [1], "count": 2}),
        json!({"type": "range", "range": [0.5, 3]}),
        json!({"type": "compare", "path": "$.a", "op": "<=", "value": 3}),
        json!({"type": "probe", "name": "i", "provider": {"type": "python", "module": "m", "func": "f"}, "tolerance": [1, 2, 3]}),
    ];
    let judged: Vec<Value> = tolerances
        .iter()
        .enumerate()
        .map(|(index, tolerance)| {
            let mut activity = provider(json!({"type": "tcp", "host": "h", "port": 80}));
            activity["name"] = json!(format!("t{index}"));
            activity["tolerance"] = tolerance.clone();
            activity
        })
        .collect();
    let head = json!({
        "version": "1.0.0", "title": "t", "description": "d", "tags": ["a"],
        "configuration": {"host": "h", "n": 1, "list": [1, 2], "e": {"type": "env", "key": "K", "default": "5", "env_var_type": "int"}},
        "secrets": {"s": {"token": {"type": "env", "key": "TOKEN", "default": "hunter2"}}}
    });
    let with = |more: Value| {
        let mut document = head.clone();
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        document
    };
    vec![
        with(
            json!({"steady-state-hypothesis": {"title": "h", "probes": providers}, "method": [{"ref": "p1"}]}),
        ),
        with(
            json!({"steady-state-hypothesis": {"title": "h", "probes": judged}, "method": [], "rollbacks": [{"ref": "t0"}]}),
        ),
        with(json!({
            "targets": {"web": {"labels": {"role": ["a", "b"]}, "select": {"random-max-percent": 50}, "spread": "zone"}},
            "blast-radius": {"agents": {"max": 2, "percent": 34.5}, "victims-per-agent": 1, "concurrent-faults": 2, "duration": "5m"},
            "abort": [
                {"name": "a", "probe": judged[1], "every": "1s", "failures": 3},
                {"name": "b", "host": {"metric": "load1", "above": 5.5}}
            ],
            "method": [
                {"type": "action", "name": "k", "background": true, "pauses": {"before": 1}, "configuration": {"own": 1},
                 "provider": {"type": "fault", "fault": "pause", "targets": "web", "duration": "60s", "arguments": {"process": "x"}}},
                {"type": "action", "name": "l",
                 "provider": {"type": "fault", "fault": "kill", "targets": {"labels": {"a": "b"}, "select": "all"}, "every": 1, "duration": 5}}
            ],
            "recovery": {"within": 30}, "runtime": {"hypothesis": {"strategy": "continuously"}, "rollbacks": {"strategy": "always"}},
            "schedule": {"cron": "0 10 * * MON-FRI", "time-zone": "UTC", "window": {"days": ["MON-FRI"], "hours": "09:00-17:00"},
                "blackouts": ["2026-12-24/2027-01-01"], "jitter": "1m", "overlap": "queue", "catch-up": "once", "guard": judged[0]},
            "x-own": {"y": 1}, "dry": "pause"
        })),
        with(
            json!({"method": [], "schedule": {"random": {"mean-time-between": "2d", "window": {"days": ["SAT"]}}}}),
        ),
    ]
}

/// Values that are put where others stood.
fn odd_value(rng: &mut ChaCha8Rng) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("${n}"),
        json!("${list}"),
        json!("${missing}"),
        json!("$$${"),
        json!("${token}"),
        json!("é${n}ü"),
        json!([]),
        json!([1, [2]]),
        json!({}),
        json!({"type": "probe"}),
        json!({"ref": "p1"}),
        json!("P1Y"),
        json!("1m"),
        json!("*/0"),
        json!("'"),
        json!("$..[?(@."),
        json!({"type": "env"}),
        json!({"type": "vault", "key": "x"}),
        json!("(?<a>"),
        json!({"labels": {}}),
        json!("\u{0}"),
    ];
    values[below(rng, values.len())].clone()
}

const WORDS: [&str; 14] = [
    "type",
    "name",
    "ref",
    "provider",
    "duration",
    "x-a",
    "tolerance",
    "arguments",
    "probe",
    "host",
    "below",
    "é",
    "",
    "a'b\\",
];

/// Changes one place, anywhere.
fn mutate(value: &mut Value, rng: &mut ChaCha8Rng) {
    let go_deeper = below(rng, 4) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() && go_deeper => {
            let place = below(rng, fields.len());
            if let Some((_, inner)) = fields.iter_mut().nth(place) {
                mutate(inner, rng);
            }
        }
        Value::Array(list) if !list.is_empty() && go_deeper => {
            let place = below(rng, list.len());
            mutate(&mut list[place], rng);
        }
        Value::Object(fields) => match below(rng, 4) {
            0 => {
                let place = below(rng, fields.len());
                let key = fields.keys().nth(place).cloned().unwrap_or_default();
                fields.remove(&key);
            }
            1 => {
                fields.insert(WORDS[below(rng, WORDS.len())].into(), odd_value(rng));
            }
            2 => {
                let place = below(rng, fields.len());
                if let Some(key) = fields.keys().nth(place).cloned()
                    && let Some(inner) = fields.remove(&key)
                {
                    fields.insert(format!("{key}s"), inner);
                }
            }
            _ => *value = odd_value(rng),
        },
        Value::Array(list) => match below(rng, 3) {
            0 => list.push(odd_value(rng)),
            1 => list.truncate(list.len() / 2),
            _ => *value = odd_value(rng),
        },
        other => *other = odd_value(rng),
    }
}

fn read(text: &str) -> Result<Experiment, Vec<backburn_experiments::Problem>> {
    let empty = Map::new();
    let sources = Sources {
        environment: &|_| None,
        file: &|_| Err("no such file".into()),
        variables: &empty,
        secrets: &empty,
    };
    let fault = |name: &'static str, one_shot| KnownFault {
        name,
        one_shot,
        check: Box::new(|_| Vec::new()),
    };
    load(
        text,
        &sources,
        &[fault("pause", false), fault("kill", true)],
    )
}

/// Uses everything that a run would use.
fn use_all(experiment: &Experiment) {
    let values = [
        json!(null),
        json!({"status": 200, "stdout": "[1]"}),
        json!("a"),
        json!(3),
        json!([1]),
    ];
    for activity in experiment
        .hypothesis
        .iter()
        .chain(&experiment.method)
        .chain(&experiment.rollbacks)
    {
        if let Some(tolerance) = &activity.tolerance {
            judge(tolerance, &values);
        }
        if let Provider::Process(process) = &activity.provider {
            assert!(
                process.argv().is_ok(),
                "an argv that was checked: {process:?}"
            );
        }
        assert!(
            experiment.is_dry(activity)
                || experiment.configuration_of(activity).len() >= experiment.configuration.len()
        );
    }
    assert!(
        experiment
            .hypothesis
            .iter()
            .all(|probe| probe.tolerance.is_some())
    );
}

fn judge(tolerance: &Tolerance, values: &[Value]) {
    let judge = CompiledTolerance::compile(tolerance)
        .unwrap_or_else(|why| panic!("a tolerance that was checked: {why}"));
    for value in values {
        let answer = judge.accepts(value);
        assert!(!judge.is_probe() || answer.is_err());
    }
}

#[test]
fn no_mutated_document_makes_it_panic() {
    let from_env = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (inputs, seed) = (
        from_env("BACKBURN_FUZZ", 20_000),
        from_env("BACKBURN_FUZZ_SEED", 1),
    );
    let seeds = seeds();
    for seed in &seeds {
        let result = read(&seed.to_string());
        assert!(result.is_ok(), "{:#?}", result.unwrap_err());
    }
    let (mut fine, mut refused) = (0_u64, 0_u64);
    for input in 0..inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(input));
        let mut document = seeds[below(&mut rng, seeds.len())].clone();
        for _ in 0..=below(&mut rng, 3) {
            mutate(&mut document, &mut rng);
        }
        let mut text = document.to_string();
        if below(&mut rng, 4) == 0 {
            text = mangle(text, &mut rng);
        }
        match read(&text) {
            Ok(experiment) => {
                fine += 1;
                use_all(&experiment);
            }
            Err(problems) => {
                refused += 1;
                assert!(!problems.is_empty(), "refused without a reason: {text}");
                for problem in problems {
                    // The schema must let nothing through that the types then refuse.
                    assert!(
                        !problem.what.starts_with("the document cannot be read"),
                        "{problem}: {text}"
                    );
                    assert!(
                        !problem.what.is_empty() && !problem.what.ends_with('.'),
                        "{problem}"
                    );
                }
            }
        }
    }
    // Both ways are taken, or this proves little.
    assert!(
        inputs < 1_000 || (fine > inputs / 100 && refused > inputs / 10),
        "{fine} fine, {refused} refused"
    );
    println!("{inputs} inputs from seed {seed}: {fine} fine, {refused} refused");
}

/// Cuts, doubles or changes a piece of the text.
fn mangle(text: String, rng: &mut ChaCha8Rng) -> String {
    let mut bytes = text.into_bytes();
    let place = below(rng, bytes.len());
    match below(rng, 4) {
        0 => bytes.truncate(place),
        1 => bytes[place] = rng.next_u32() as u8,
        2 => {
            let piece: Vec<u8> = bytes.iter().copied().skip(place).take(20).collect();
            bytes.splice(place..place, piece);
        }
        _ => bytes
            .splice(place..place, [b"{[\"},':\\"[below(rng, 8)]; 3])
            .for_each(drop),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_schema_from_the_wire_makes_the_check_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let schema = schema::document_schema();
    let seeds = seeds();
    let mut found = 0;
    for _ in 0..2_000 {
        let mut schema = schema.clone();
        for _ in 0..3 {
            mutate(&mut schema, &mut rng);
        }
        let mut document = seeds[below(&mut rng, seeds.len())].clone();
        mutate(&mut document, &mut rng);
        found += schema::check(&schema, &document, "$").len();
    }
    assert!(found > 0);
    let itself = json!({"$ref": "#"});
    assert_eq!(schema::check(&itself, &json!(1), "$").len(), 1);
    let branches = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]});
    assert!(schema::check(&branches, &json!(1), "$").len() <= 1);
}
