//! The programs that probes may run on a host, and the environment that they run with: what the host's policy says, and nothing else.

use crate::Problem;
use crate::argv;
use crate::probes::{ProcessProvider, value_text, variable_name_problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The `PATH` of a program where the policy sets none. No user can write to these folders.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of the programs that probes run. It is empty, except for `PATH` and what stands here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProgramEnvironment {
    /// Names of variables that programs have from the environment of the process that starts them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass: Vec<String>,
    /// Variables with fixed values. `PATH` is `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin` unless it stands here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names of variables that a probe's own `env` may set. Names that make programs load code (`LD_…`, `PERL5…`, `PYTHON…`,
    /// `BASH_ENV`, `PATH`, …) cannot be allowed. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// A program that a probe may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AllowedProgram {
    /// An absolute path, or a name that is found along `PATH`, with any arguments.
    Any(String),
    /// A program with certain arguments.
    Pinned(PinnedProgram),
}

/// A program with certain arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinnedProgram {
    /// An absolute path, or a name that is found along `PATH`.
    pub program: String,
    /// The arguments that it must be run with, each exactly as here, in this order. A `*` at the end of one matches any text.
    pub arguments: Vec<String>,
}

impl AllowedProgram {
    /// The path or the name.
    pub fn program(&self) -> &str {
        match self {
            AllowedProgram::Any(program) => program,
            AllowedProgram::Pinned(pinned) => &pinned.program,
        }
    }

    /// Whether the program may be run with whatever arguments.
    pub fn takes_any_arguments(&self) -> bool {
        matches!(self, AllowedProgram::Any(_))
    }

    /// Whether the program may be run with these arguments.
    pub fn permits_arguments(&self, arguments: &[String]) -> bool {
        let AllowedProgram::Pinned(pinned) = self else {
            return true;
        };
        let mut pairs = pinned.arguments.iter().zip(arguments);
        pinned.arguments.len() == arguments.len()
            && pairs.all(|(wanted, given)| match wanted.strip_suffix('*') {
                Some(start) => given.starts_with(start),
                None => wanted == given,
            })
    }

    /// What is wrong with it. `at` is its JSON path.
    pub fn problem(&self, at: &str) -> Option<Problem> {
        let program = self.program();
        let is_wrong = program.is_empty() || program.contains('/') && !program.starts_with('/');
        is_wrong.then(|| {
            Problem::new(
                at,
                format!("`{program}` is neither an absolute path nor a name"),
            )
            .hint(
                "give e.g. `/usr/lib/postgresql/15/bin/pg_isready`, or a name to find it in `PATH`",
            )
        })
    }
}

impl ProgramEnvironment {
    /// What is wrong with it. `at` is its JSON path.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let listed = |key: &'static str, names: &[String]| -> Vec<(String, String)> {
            let names = names.iter().enumerate();
            names
                .map(|(index, name)| (format!("{at}.{key}[{index}]"), name.clone()))
                .collect()
        };
        let set = self
            .set
            .keys()
            .map(|name| (format!("{at}.set"), name.clone()));
        let allowed = listed("allow", &self.allow);
        let passed = listed("pass", &self.pass);
        for (at, name) in allowed.iter().chain(&passed).cloned().chain(set) {
            problems.extend(variable_name_problem(&name).map(|what| Problem::new(at, what)));
        }
        for (at, name) in allowed.iter().filter(|(_, name)| loads_code(name)) {
            let what = format!("`{name}` makes programs load code, and no probe may set it");
            problems.push(Problem::new(at, what).hint("give it a fixed value in `set`"));
        }
        for (at, name) in passed.iter().filter(|(_, name)| is_own(name)) {
            let what = format!("`{name}` is Backburn's own, and no program is given it");
            problems.push(Problem::new(at, what));
        }
        for (name, value) in &self.set {
            if value.contains('\0') {
                let what = format!("the value of `{name}` has a NUL character");
                problems.push(Problem::new(format!("{at}.set"), what));
            }
        }
        problems
    }

    /// The folders in which programs are found by name.
    pub fn path(&self) -> &str {
        self.set.get("PATH").map_or(DEFAULT_PATH, String::as_str)
    }

    /// The whole environment of a program that a probe runs. `own` looks a variable up in the environment of this process.
    ///
    /// # Errors
    /// The probe sets a variable that is not allowed; the text says which.
    pub fn variables(
        &self,
        provider: &ProcessProvider,
        own: impl Fn(&str) -> Option<OsString>,
    ) -> Result<BTreeMap<String, OsString>, String> {
        let mut variables = self.fixed(own);
        for (name, value) in provider.env.iter().flatten() {
            if let Some(what) = variable_name_problem(name) {
                return Err(what);
            }
            if !self.allow.contains(name) || loads_code(name) {
                return Err(format!(
                    "the policy does not allow a probe to set the variable `{name}` for a program: its name is not in `program-environment.allow`"
                ));
            }
            variables.insert(name.clone(), value_text(value).into());
        }
        Ok(variables)
    }

    /// The environment of a program, without what a probe sets.
    pub fn fixed(&self, own: impl Fn(&str) -> Option<OsString>) -> BTreeMap<String, OsString> {
        let passed = self.pass.iter().filter(|name| !is_own(name));
        let passed = passed.filter_map(|name| Some((name.clone(), own(name)?)));
        let set = self.set.iter();
        let set = set.map(|(name, value)| (name.clone(), OsString::from(value)));
        let path = ("PATH".to_owned(), OsString::from(DEFAULT_PATH));
        std::iter::once(path).chain(passed).chain(set).collect()
    }
}

/// Whether a variable of this process is Backburn's own, such as a token. No program is given these.
pub fn is_own(name: &str) -> bool {
    name.starts_with("BACKBURN_")
}

/// Whether programs, interpreters or libraries run or load what a variable of this name says. Sources: ld.so(8), bash(1), perlrun(1),
/// the manuals of Python, Ruby, Node.js, Java, git, OpenSSL and glibc.
fn loads_code(name: &str) -> bool {
    const STARTS: [&str; 14] = [
        "LD_",
        "DYLD_",
        "PERL",
        "PYTHON",
        "RUBY",
        "GEM_",
        "NODE_",
        "JAVA_",
        "_JAVA",
        "JDK_",
        "LUA_",
        "BASH_",
        "GIT_",
        "BACKBURN_",
    ];
    const NAMES: [&str; 20] = [
        "PATH",
        "ENV",
        "IFS",
        "PS4",
        "SHELLOPTS",
        "BASHOPTS",
        "PROMPT_COMMAND",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "GLIBC_TUNABLES",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "OPENSSL_ENGINES",
        "CLASSPATH",
        "EDITOR",
        "PAGER",
        "LESSOPEN",
        "TERMINFO",
        "HOSTALIASES",
    ];
    STARTS.iter().any(|start| name.starts_with(start)) || NAMES.contains(&name)
}

/// The arguments of a provider's program, without the program itself.
///
/// # Errors
/// The arguments are a line that only a shell would understand.
pub fn arguments(provider: &ProcessProvider) -> Result<Vec<String>, String> {
    let argv = argv::argv(&provider.path, provider.arguments.as_ref())?;
    Ok(argv.into_iter().skip(1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provider(env: serde_json::Value) -> ProcessProvider {
        serde_json::from_value(json!({"path": "p", "env": env}))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn program_environment_default_has_a_path_and_nothing_else() {
        let own = |_: &str| Some(OsString::from("of this process"));
        let found = ProgramEnvironment::default().variables(&provider(json!({})), own);
        let path = ("PATH".to_owned(), OsString::from(DEFAULT_PATH));
        assert_eq!(found, Ok(BTreeMap::from([path])));
    }

    #[test]
    fn probe_variable_not_allowed_is_refused_by_its_name() {
        let environment = ProgramEnvironment {
            allow: ["PGUSER", "LD_PRELOAD", "PERL5OPT"]
                .map(str::to_owned)
                .into(),
            ..ProgramEnvironment::default()
        };
        let set = |name: &str| {
            let set = provider(json!({name: "x"}));
            environment.variables(&set, |_| None).err()
        };
        assert_eq!(set("PGUSER"), None);
        for name in [
            "PGHOST",
            "LD_PRELOAD",
            "PERL5OPT",
            "PATH",
            "",
            "A=B",
            "A\0B",
            "BASH_ENV",
            "PGUSER=x",
        ] {
            assert!(set(name).is_some(), "{name}");
        }
    }

    #[test]
    fn policy_that_allows_names_that_load_code_has_a_problem_for_each() {
        let names = [
            "LD_PRELOAD",
            "PERL5OPT",
            "PYTHONPATH",
            "BASH_ENV",
            "ENV",
            "NODE_OPTIONS",
            "RUBYOPT",
            "GCONV_PATH",
            "JAVA_TOOL_OPTIONS",
            "PATH",
            "GIT_SSH_COMMAND",
            "a=b",
            "",
        ];
        let environment = ProgramEnvironment {
            allow: names.map(str::to_owned).into(),
            pass: vec!["BACKBURN_TOKEN".into(), "LANG".into()],
            set: BTreeMap::from([("PATH".into(), "/bin".into())]),
        };
        assert_eq!(environment.problems("$").len(), names.len() + 1);
        assert!(
            !environment
                .fixed(|_| Some("x".into()))
                .contains_key("BACKBURN_TOKEN")
        );
    }

    #[test]
    fn program_with_pinned_arguments_is_allowed_with_those_alone() {
        let pinned =
            json!({"program": "/usr/bin/x", "arguments": ["-h", "127.0.0.1", "*", "--db=*"]});
        let pinned: AllowedProgram =
            serde_json::from_value(pinned).unwrap_or_else(|error| panic!("{error}"));
        let permits = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            pinned.permits_arguments(&words)
        };
        assert!(permits(&["-h", "127.0.0.1", "anything", "--db=shop"]));
        for words in [
            &["-h", "127.0.0.2", "x", "--db=shop"][..],
            &["-h", "127.0.0.1", "x", "--dc=shop"],
            &["-h", "127.0.0.1", "x", "--db=shop", "more"],
            &["-h", "127.0.0.1", "x"],
            &[],
        ] {
            assert!(!permits(words), "{words:?}");
        }
    }
}
