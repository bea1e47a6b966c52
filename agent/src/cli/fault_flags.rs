//! Fault arguments as flags, derived from each fault's schema: `{"process": {"name": "nginx"}}` in a document is `--process-name nginx`
//! here.

use super::CommandError;
use crate::faults::FAULTS;
use crate::plugins::InstalledPlugin;
use backburn_experiments::problem::nearest;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::wire::{FaultDescription, InjectionRequest, Refusal};
use backburn_experiments::{HumanDuration, Problem, json, schema};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The injection that the command line requests, and whether to print JSON.
pub(super) struct FaultRequest {
    pub injection: InjectionRequest,
    pub json: bool,
}

/// A flag, and the place of its value in the arguments.
struct Flag {
    name: String,
    path: Vec<String>,
    schema: Value,
}

/// The names of flags that every fault has, or every command. An argument of such a name is given by `--arguments`.
const COMMON_FLAGS: [&str; 10] = [
    "arguments",
    "duration",
    "every",
    "id",
    "seed",
    "json",
    "policy",
    "state",
    "help",
    "version",
];

/// Adds a subcommand for each fault. The flags of a built-in fault are derived only if it is used.
pub(super) fn per_fault(command: Command, plugins: &[InstalledPlugin]) -> Command {
    let named = command
        .subcommand_required(true)
        // A fault that there is not is refused with the nearest name.
        .allow_external_subcommands(true)
        .subcommand_value_name("FAULT")
        .subcommand_help_heading("Faults");
    // A plan needs no injection id.
    let (built_in, has_id): (fn(Command) -> Command, _) = match named.get_name() {
        "plan" => (|command| with_built_in_flags(command, false), false),
        _ => (|command| with_built_in_flags(command, true), true),
    };
    let named = FAULTS.iter().fold(named, |command, fault| {
        let known = Command::new(fault.name).about(fault.summary);
        command.subcommand(known.defer(built_in))
    });
    let usable = plugins.iter().filter_map(InstalledPlugin::declaration);
    usable.fold(named, |command, declaration| {
        let about = escape(&declaration.summary).into_owned();
        let known = Command::new(declaration.name.clone()).about(about);
        command.subcommand(with_flags(known, &declaration.describe(), has_id))
    })
}

fn with_built_in_flags(command: Command, has_id: bool) -> Command {
    match crate::faults::find(command.get_name()) {
        Some(fault) => with_flags(command, &fault.describe(), has_id),
        None => command,
    }
}

fn with_flags(command: Command, fault: &FaultDescription, has_id: bool) -> Command {
    let command = common_flags(command, &fault.example, fault.one_shot)
        .mut_arg("id", |arg| arg.hide(!has_id));
    command.args(flags(&fault.schema).into_iter().map(|flag| {
        let text = flag
            .schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // Such as `--offset -5m`.
        let examples = flag.schema.get("examples").and_then(Value::as_array);
        let may_be_negative = examples
            .into_iter()
            .flatten()
            .any(|example| example.as_str().is_some_and(|text| text.starts_with('-')));
        // Its lines end where the source's do; clap wraps for the terminal's width.
        Arg::new(flag.name.clone())
            .allow_hyphen_values(may_be_negative)
            .help(escape(&text.replace('\n', " ")).into_owned())
            .long(flag.name)
            .value_name("VALUE")
            .help_heading("Arguments")
    }))
}

/// The flags that every fault has.
fn common_flags(command: Command, example: &Value, one_shot: bool) -> Command {
    let mut command = command
        .arg(
            Arg::new("arguments")
                .long("arguments")
                .value_name("JSON")
                .help(format!("All arguments as JSON, for example '{example}'")),
        )
        .arg(
            Arg::new("duration")
                .long("duration")
                .value_name("DURATION")
                .value_parser(value_parser!(HumanDuration))
                .help(if one_shot {
                    "For how long to repeat the fault, with --every"
                } else {
                    "How long the fault lasts"
                }),
        )
        .arg(
            Arg::new("id")
                .long("id")
                .value_name("ID")
                .help("Id of the injection [default: random]"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64))
                .help("Seed for random selection [default: random]"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print JSON"),
        );
    if one_shot {
        command = command.arg(
            Arg::new("every")
                .long("every")
                .value_name("INTERVAL")
                .value_parser(value_parser!(HumanDuration))
                .help("Repeat the fault at this interval"),
        );
    }
    command
}

/// Reads the requested injection. `assumed` is the duration of a plan if none is given; an injection needs its own.
pub(super) fn read(
    matches: &ArgMatches,
    assumed: Option<HumanDuration>,
    plugins: &[InstalledPlugin],
) -> Result<FaultRequest, CommandError> {
    let (name, matches) = matches
        .subcommand()
        .ok_or_else(|| CommandError::Invalid("no fault is named".into()))?;
    let built_in = crate::faults::find(name);
    let plugin = plugins.iter().find(|plugin| plugin.name == name);
    let described = match (built_in, plugin.and_then(InstalledPlugin::declaration)) {
        (Some(fault), _) => fault.describe(),
        (None, Some(declaration)) => declaration.describe(),
        (None, None) => return Err(unknown_fault(name, plugins).into()),
    };
    let mut arguments = read_arguments(matches, &described.example)?;
    for flag in flags(&described.schema) {
        if let Some(text) = matches.get_one::<String>(&flag.name) {
            let repeated = json::repeated_keys(text);
            if !repeated.is_empty() {
                let what = format!("`--{}` is invalid", flag.name);
                return Err(unusable(what, repeated).into());
            }
            put(&mut arguments, &flag.path, value(text, &flag.schema));
        }
    }
    let problems = match built_in {
        Some(fault) => fault.check(&arguments),
        None => schema::accept(&described.schema, &Value::Object(arguments.clone()), "$")
            .err()
            .unwrap_or_default(),
    };
    if !problems.is_empty() {
        return Err(Refusal {
            problems,
            ..Refusal::new(
                "arguments",
                format!("the arguments of `{name}` are invalid"),
            )
        }
        .hint(format!("`faults {name}` describes them"))
        .into());
    }
    request(
        name,
        arguments,
        matches,
        assumed.filter(|_| !described.one_shot),
    )
}

/// The arguments that are given as JSON.
fn read_arguments(
    matches: &ArgMatches,
    example: &Value,
) -> Result<Map<String, Value>, CommandError> {
    let wrong = |problems| {
        unusable("`--arguments` is invalid", problems)
            .hint(format!("for example `--arguments '{example}'`"))
    };
    match matches.get_one::<String>("arguments") {
        None => Ok(Map::new()),
        Some(text) => match json::read(text) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(wrong(vec![Problem::new("$", "expected an object")]).into()),
            Err(problems) => Err(wrong(problems).into()),
        },
    }
}

/// The refusal of a fault that there is not.
pub(super) fn unknown_fault(name: &str, plugins: &[InstalledPlugin]) -> Refusal {
    let built_in = FAULTS.iter().map(|fault| fault.name);
    let known = built_in.chain(plugins.iter().map(|plugin| plugin.name.as_str()));
    let refusal = Refusal::new("arguments", format!("there is no fault `{name}`"));
    match nearest(name, known) {
        Some(near) => refusal.hint(format!("`{near}`?")),
        None => refusal.hint("`faults` lists the faults; those of plug-ins are there where the policy allows them (`--policy`)"),
    }
}

/// The injection of a fault with these arguments. `assumed` is its duration if none is given.
fn request(
    name: &str,
    arguments: Map<String, Value>,
    matches: &ArgMatches,
    assumed: Option<HumanDuration>,
) -> Result<FaultRequest, CommandError> {
    let random = random()?;
    let injection = InjectionRequest {
        id: matches
            .get_one::<String>("id")
            .cloned()
            .unwrap_or_else(|| format!("hand-{:08x}", random as u32)),
        run: crate::engine::BY_HAND.into(),
        fault: name.to_owned(),
        arguments,
        duration: matches
            .get_one::<HumanDuration>("duration")
            .copied()
            .or(assumed),
        every: matches
            .try_get_one::<HumanDuration>("every")
            .ok()
            .flatten()
            .copied(),
        seed: matches.get_one::<u64>("seed").copied().unwrap_or(random),
        max_victims: None,
    };
    Ok(FaultRequest {
        injection,
        json: matches.get_flag("json"),
    })
}

fn unusable(what: impl Into<String>, problems: Vec<Problem>) -> Refusal {
    Refusal {
        problems,
        ..Refusal::new("arguments", what)
    }
}

fn random() -> Result<u64, CommandError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|error| CommandError::Invalid(format!("/dev/urandom: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A flag for each argument of a schema. What has the name of another flag, or one that is no word, is given by `--arguments` only.
fn flags(schema: &Value) -> Vec<Flag> {
    let mut found: Vec<Flag> = Vec::new();
    collect(schema, &[], &mut found);
    let mut taken: BTreeSet<String> = COMMON_FLAGS.map(str::to_owned).into();
    let is_word = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    found.retain(|flag| is_word(&flag.name) && taken.insert(flag.name.clone()));
    found
}

fn collect(schema: &Value, path: &[String], found: &mut Vec<Flag>) {
    let Some(Value::Object(properties)) = schema.get("properties") else {
        return;
    };
    for (key, property) in properties {
        let path: Vec<String> = path.iter().cloned().chain([key.clone()]).collect();
        match object_within(property) {
            Some(inner) => collect(inner, &path, found),
            None => found.push(Flag {
                name: path.join("-"),
                path,
                schema: property.clone(),
            }),
        }
    }
}

/// The schema of an object, whether it is required or optional: its properties become flags.
fn object_within(schema: &Value) -> Option<&Value> {
    if schema.get("properties").is_some() {
        return Some(schema);
    }
    let Value::Array(branches) = schema.get("anyOf")? else {
        return None;
    };
    let mut real = branches
        .iter()
        .filter(|branch| branch.get("type").and_then(Value::as_str) != Some("null"));
    let only = real
        .next()
        .filter(|branch| branch.get("properties").is_some())?;
    real.next().is_none().then_some(only)
}

/// Converts a flag's text to a value that its schema accepts: JSON if that fits, else a list of words if that does, else a string.
fn value(text: &str, expected: &Value) -> Value {
    let fits = |value: &Value| schema::accept(expected, value, "$").is_ok();
    let plain = Value::String(text.to_owned());
    let list = || {
        Value::Array(
            text.split(',')
                .map(|part| serde_json::from_str(part).unwrap_or_else(|_| part.into()))
                .collect(),
        )
    };
    let read: Option<Value> = serde_json::from_str(text).ok();
    // Commas separate the items where a list is accepted.
    let separated = text.contains(',').then(list);
    let candidates = [read.clone(), separated, Some(plain.clone()), Some(list())];
    let fitting = candidates.into_iter().flatten().find(fits);
    // If nothing fits, a number yields a better error message than a string.
    fitting.or(read).unwrap_or(plain)
}

fn put(into: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            into.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = into
                .entry(key.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
