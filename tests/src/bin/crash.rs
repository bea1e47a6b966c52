//! Crash trials by chance, for publishing: see `tests/crash`, which builds this and starts it.

use backburn_tests::crash_cases::CASES;
use backburn_tests::crash_random::{Done, line, read_line, table, task};
use backburn_tests::crash_slots::{self, SLOT, Task};
use backburn_tests::freezer::FreezerVersion;
use backburn_tests::programs;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: tests/crash [N] [--results FILE] [--seed S] [--slots N] [--case NAME] [--strike STRIKE]
  N                 how many trials to add to the file, 1 where left out; 0 prints the table only
  --results FILE    where results are appended, a line each; target/crash.jsonl where left out
  --seed S          of the random numbers, 1 where left out; trials of this seed that are in the file are not done again
  --slots N         how many side by side, twice the processors where left out
  --case NAME       only this fault's case; the names are in the table
  --strike STRIKE   only this, e.g. `worker:stop-after:4:guardian` or `at:120:freeze:v1:2600`, as the file tells it
Exit code: 0 nothing was left behind, 1 something was, by the trials that were done now.";

struct Wanted {
    trials: usize,
    results: PathBuf,
    seed: u64,
    slots: usize,
    case: Option<String>,
    strike: Option<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == [SLOT] {
        crash_slots::serve();
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let wanted = match parse(words) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("error: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match sit(&wanted) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: Vec<String>) -> Result<Wanted, String> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let mut wanted = Wanted {
        trials: 1,
        results: programs::root().join("target/crash.jsonl"),
        seed: 1,
        slots: processors * 2,
        case: None,
        strike: None,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` wants a value"));
        let number = |text: String| {
            let number = text.parse::<u64>();
            number.map_err(|_| format!("`{text}` is no whole number"))
        };
        match word.as_str() {
            "--results" => wanted.results = value()?.into(),
            "--seed" => wanted.seed = number(value()?)?,
            "--slots" => wanted.slots = number(value()?)? as usize,
            "--case" => wanted.case = Some(value()?),
            "--strike" => wanted.strike = Some(value()?),
            _ => wanted.trials = number(word)? as usize,
        }
    }
    if let Some(name) = &wanted.case
        && !CASES.iter().any(|case| case.name == name)
    {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("there is no case `{name}`; there are {names:?}"));
    }
    if let Some(strike) = &wanted.strike {
        strike.parse::<backburn_tests::crash_strike::Strike>()?;
    }
    Ok(wanted)
}

fn sit(wanted: &Wanted) -> std::io::Result<ExitCode> {
    if let Some(missing) = crash_slots::missing() {
        return Err(std::io::Error::other(missing));
    }
    let program = std::env::current_exe()?;
    let mut done = read(&wanted.results);
    let known: BTreeSet<u64> = done
        .iter()
        .filter(|done| done.seed == wanted.seed)
        .map(|done| done.outcome.task.number)
        .collect();
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(&wanted.results)?;
    let freezers = FreezerVersion::all();
    let such = |task: Task| {
        let is_meant = wanted.case.as_ref().is_none_or(|name| *name == task.case);
        let strike = wanted.strike.as_ref().and_then(|text| text.parse().ok());
        is_meant.then(|| Task {
            strike: strike.unwrap_or(task.strike.clone()),
            ..task
        })
    };
    // What is run again alone is in the file under its number already.
    let is_again = wanted.strike.is_some();
    let numbers = (0..).filter(|number| is_again || !known.contains(number));
    let tasks = numbers.filter_map(|number| such(task(wanted.seed, number, &freezers)));
    let mut residues = 0;
    let total = wanted.trials;
    // One whose strike did not hit does not count, so others follow it; what is begun is finished.
    let hits = std::sync::Mutex::new(0);
    let begun = std::sync::Mutex::new(0);
    let tasks = tasks.take_while(|_| {
        let hits = *hits.lock().expect("nobody panics");
        let mut begun = begun.lock().expect("nobody panics");
        *begun += 1;
        hits < total && (!is_again || *begun <= total)
    });
    crash_slots::run(&program, wanted.slots.min(total), tasks, |outcome| {
        let mut hits = hits.lock().expect("nobody panics");
        if outcome.reached {
            *hits += 1;
        }
        if let Some(residue) = &outcome.residue {
            residues += 1;
            eprintln!(
                "RESIDUE: {}, {}: {residue}\n  again: tests/crash 1 --case '{}' --strike {}",
                outcome.task.case, outcome.task.strike, outcome.task.case, outcome.task.strike
            );
        }
        if outcome.reached && (*hits as u64).is_multiple_of(50) {
            eprintln!("{hits} of {total}, {residues} residues", hits = *hits);
        }
        if !is_again {
            let line = line(wanted.seed, &outcome);
            writeln!(file, "{line}").expect("the file of results can be written");
        }
        done.push(Done {
            seed: wanted.seed,
            outcome,
        });
    });
    print(&done);
    Ok(ExitCode::from(u8::from(residues > 0)))
}

fn read(path: &Path) -> Vec<Done> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(read_line).collect()
}

/// The table, below what it was measured on.
fn print(done: &[Done]) {
    let said = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        output.unwrap_or_default()
    };
    let own = std::env::current_exe().unwrap_or_default();
    let beside = || own.parent().unwrap_or(Path::new("/")).to_owned();
    let folder = std::env::var_os("BACKBURN_BINARIES").map_or_else(beside, PathBuf::from);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let reached = done.iter().filter(|done| done.outcome.reached).count();
    let residues = done.iter().filter(|done| done.outcome.residue.is_some());
    println!(
        "{} processors, {}, {}; {reached} trials, {} residues, {} more whose strike did not hit\n",
        processors,
        said(Path::new("uname"), &["-srm"]),
        said(&folder.join("backburn-agent"), &["--version"]),
        residues.count(),
        done.len() - reached,
    );
    print!("{}", table(done.iter().map(|done| &done.outcome)));
}
