//! Tests of the command line's definition.

use super::*;

fn parsed_by_the_whole_definition(words: &[OsString]) -> Option<CliCommand> {
    let words = std::iter::once("backburn".into()).chain(words.iter().cloned());
    Cli::try_parse_from(words).ok().map(|cli| cli.command)
}

#[test]
fn parse_frequent_command_is_what_the_whole_definition_makes_of_it() {
    for line in [
        "run e.json",
        "run e.json --seed 7 --json --var a=b --hypothesis-strategy continuously --state s",
        "run - --controller c --wait --label role=a --rollback-strategy always",
        "plan e.json",
        "validate a.json b.json",
        "status",
    ] {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let alone = parse_frequent(&words);
        assert!(alone.is_some(), "{line}");
        let whole = parsed_by_the_whole_definition(&words);
        assert_eq!(format!("{alone:?}"), format!("{whole:?}"), "{line}");
    }
}

#[test]
fn parse_frequent_leaves_help_mistakes_and_other_commands_to_the_whole_definition() {
    for line in [
        "run",
        "run --help",
        "run --version",
        "run e.json --seed x",
        "run a b",
        "validate",
        "status --nonsense",
        "help run",
        "--version",
        "faults",
        "",
    ] {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        assert!(parse_frequent(&words).is_none(), "{line}");
    }
}
