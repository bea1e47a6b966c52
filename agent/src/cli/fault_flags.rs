//! Fault arguments as flags, derived from each fault's schema: `{"process": {"name": "nginx"}}` in a document is `--process-name nginx`
//! here.

use super::CommandError;
use crate::faults::{FAULTS, Fault};
use crate::plugin_call::AllowedPlugin;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use backburn_experiments::{HumanDuration, Problem, json, schema};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

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

/// Adds a subcommand for each fault. Its flags are derived only if it is used.
pub(super) fn per_fault(command: Command, with_flags: fn(Command) -> Command) -> Command {
    let named = command
        .subcommand_required(true)
        // The name of a plug-in, which only the policy knows.
        .allow_external_subcommands(true)
        .subcommand_value_name("FAULT")
        .subcommand_help_heading("Faults");
    FAULTS.iter().fold(named, |command, fault| {
        command.subcommand(
            Command::new(fault.name)
                .about(fault.summary)
                .defer(with_flags),
        )
    })
}

/// The flags of `inject`.
pub(super) fn to_inject(command: Command) -> Command {
    with_flags(command)
}

/// The flags of `plan`, which needs no injection id.
pub(super) fn to_plan(command: Command) -> Command {
    with_flags(command).mut_arg("id", |arg| arg.hide(true))
}

fn with_flags(command: Command) -> Command {
    let Some(fault) = crate::faults::find(command.get_name()) else {
        return command;
    };
    let command = common_flags(command, &(fault.example)(), fault.one_shot);
    command.args(flags(fault).into_iter().map(|flag| {
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
            .help(text.replace('\n', " "))
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
    plugins: &[AllowedPlugin],
) -> Result<FaultRequest, CommandError> {
    let (name, matches) = matches
        .subcommand()
        .ok_or_else(|| CommandError::Invalid("no fault is named".into()))?;
    let Some(fault) = crate::faults::find(name) else {
        return read_plugin(name, matches, assumed, plugins);
    };
    let mut arguments = read_arguments(matches)?;
    for flag in flags(fault) {
        if let Some(text) = matches.get_one::<String>(&flag.name) {
            let repeated = json::repeated_keys(text);
            if !repeated.is_empty() {
                let what = format!("`--{}` is invalid", flag.name);
                return Err(unusable(what, repeated).into());
            }
            put(&mut arguments, &flag.path, value(text, &flag.schema));
        }
    }
    let problems = fault.check(&arguments);
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
        assumed.filter(|_| !fault.one_shot),
    )
}

/// The arguments that are given as JSON.
fn read_arguments(matches: &ArgMatches) -> Result<Map<String, Value>, CommandError> {
    match matches.get_one::<String>("arguments") {
        None => Ok(Map::new()),
        Some(text) => match json::read(text) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(wrong(vec![Problem::new("$", "expected an object")])),
            Err(problems) => Err(wrong(problems)),
        },
    }
}

/// Reads the requested injection of a plug-in's fault. What its arguments must be, only the agent knows.
fn read_plugin(
    name: &str,
    matches: &ArgMatches,
    assumed: Option<HumanDuration>,
    plugins: &[AllowedPlugin],
) -> Result<FaultRequest, CommandError> {
    if plugins.iter().all(|plugin| plugin.name != name) {
        let built_in = FAULTS.iter().map(|fault| fault.name);
        let known = built_in.chain(plugins.iter().map(|plugin| plugin.name.as_str()));
        let refusal = Refusal::new("arguments", format!("there is no fault `{name}`"));
        return Err(match nearest(name, known) {
            Some(near) => refusal.hint(format!("`{near}`?")),
            None => refusal.hint("`faults` lists the faults, and `plugins` those of plug-ins"),
        }
        .into());
    }
    let words = matches
        .get_many::<std::ffi::OsString>("")
        .into_iter()
        .flatten();
    let flags = common_flags(
        Command::new(name.to_owned()).no_binary_name(true),
        &Value::Object(Map::new()),
        false,
    );
    let matches = flags.try_get_matches_from(words).map_err(|error| {
        CommandError::Invalid(
            error
                .render()
                .to_string()
                .trim_start_matches("error: ")
                .trim_end()
                .to_owned(),
        )
    })?;
    let arguments = read_arguments(&matches)?;
    request(name, arguments, &matches, assumed)
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

fn wrong(problems: Vec<Problem>) -> CommandError {
    unusable("`--arguments` is invalid", problems)
        .hint("for example `--arguments '{\"process\": {\"name\": \"nginx\"}}'`")
        .into()
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

fn flags(fault: &Fault) -> Vec<Flag> {
    let mut found = Vec::new();
    collect(&(fault.schema)(), &[], &mut found);
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
