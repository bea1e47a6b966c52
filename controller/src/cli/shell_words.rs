//! Commands as text that a shell reads back as the same words.

use std::ffi::{OsStr, OsString};

/// Joins the words of a command, quoted for a POSIX shell where that is necessary.
pub(super) fn shell_words(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| quoted(&word.as_ref().to_string_lossy()))
        .collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The `run` command that hits exactly what a `plan` command showed: the same words, and the seed of the plan.
pub(super) fn run_command(plan: &[OsString], seed: u64) -> String {
    let has_seed = |word: &OsString| {
        let word = word.to_string_lossy();
        word == "--seed" || word.starts_with("--seed=")
    };
    let mut words: Vec<OsString> = ["backburn", "run"].map(OsString::from).into();
    words.extend(plan.iter().filter(|word| *word != "--json").cloned());
    if !plan.iter().any(has_seed) {
        words.extend(["--seed".into(), seed.to_string().into()]);
    }
    shell_words(words)
}

#[cfg(test)]
mod tests {
    use super::run_command;
    use std::ffi::OsString;

    #[test]
    fn run_command_of_a_plan_keeps_its_words_and_names_its_seed() {
        for (plan, wanted) in [
            (&["x.json"] as &[&str], "backburn run x.json --seed 7"),
            (
                &["--json", "my file.json", "--var", "name=it's"],
                r"backburn run 'my file.json' --var 'name=it'\''s' --seed 7",
            ),
            (&["x.json", "--seed=7"], "backburn run x.json --seed=7"),
            (&["x.json", "--seed", "7"], "backburn run x.json --seed 7"),
            (
                &["x.json", "--var", "a="],
                "backburn run x.json --var a= --seed 7",
            ),
            (&["$(reboot)"], "backburn run '$(reboot)' --seed 7"),
        ] {
            let plan: Vec<OsString> = plan.iter().map(OsString::from).collect();
            assert_eq!(run_command(&plan, 7), wanted);
        }
    }
}
