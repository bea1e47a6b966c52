//! A person logs in and out on the command line: the shipped program as controller and as client, and a provider of the test's own.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/command.rs"]
mod command;
#[path = "support/identity_provider.rs"]
#[allow(dead_code)]
mod identity_provider;

use command::{Said, command, said};
use identity_provider::{SigningPair, TestProvider, claims};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A program that is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts the controller, and returns it with its address once it listens.
fn controller(folder: &Path, provider: &TestProvider) -> (Program, String) {
    let config = json!({
        "issuer": provider.issuer, "client-id": "backburn", "session": "2h",
        "groups": {"payments-devs": {"role": "operator", "teams": ["payments"]}},
    });
    std::fs::write(folder.join("oidc.json"), config.to_string()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let listen = address.to_string();
    let words = [
        "controller",
        "--data",
        "data",
        "--oidc",
        "oidc.json",
        "--listen",
        &listen,
    ];
    let mut command = command(folder, &words);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let program = Program(child.unwrap());
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it does not listen"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    (program, listen)
}

/// Begins to log in; what is said until the code is shown.
fn begin(
    folder: &Path,
    address: &str,
    more: &[&str],
) -> (Child, Vec<String>, impl Iterator<Item = String>) {
    let words = [&["login", "--controller", address], more].concat();
    let mut command = command(folder, &words);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut shown = Vec::new();
    for line in lines.by_ref() {
        shown.push(line.clone());
        if line.contains("enter the code") {
            break;
        }
    }
    (child, shown, lines)
}

#[test]
fn person_logs_in_with_the_program_and_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, key) = (TestProvider::new(), SigningPair::rsa());
    provider.publish(vec![key.published("k1")]);
    let (_controller, address) = controller(folder.path(), &provider);
    let ask = |words: &[&str]| -> Said {
        said(
            folder.path(),
            &[words, &["--controller", &address]].concat(),
        )
    };
    // Nobody knows yet which controller is the right one.
    let refused = ask(&["login"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.err.contains("requires `--authority`"),
        "{refused:?}"
    );
    let wrong = ask(&["login", "--authority", &"ab".repeat(32)]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert_eq!(provider.count("/device"), 0);

    let given = ["--authority", "data/authority/authority.crt"];
    let (mut child, shown, rest) = begin(folder.path(), &address, &given);
    let wanted = format!(
        "open {}/enter and enter the code WDJB-MJHT",
        provider.issuer
    );
    assert!(shown.contains(&wanted), "{shown:?}");
    provider.answer(json!({"id_token": key.token("k1", &claims(&provider.issuer))}));
    let said_last: Vec<String> = rest.collect();
    assert!(child.wait().unwrap().success(), "{said_last:?}");
    assert!(
        said_last.iter().any(|line| line.starts_with(
            "logged in as ada@example.org with role operator, teams payments, until 2"
        )),
        "{said_last:?}"
    );
    // The token is in the state folder, and used where no other is given.
    let login = std::fs::read_dir(folder.path().join("state/logins")).unwrap();
    assert_eq!(login.count(), 1);
    let runs = ask(&["runs", "--json"]);
    assert_eq!((runs.code, runs.out.trim()), (0, "[]"), "{runs:?}");
    let tokens = ask(&["tokens"]);
    assert!(tokens.err.contains("requires role `admin`"), "{tokens:?}");
    let audit = ask(&["audit", "--token-file", "data/admin-token"]);
    let entries: Vec<Value> = audit
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        entries
            .iter()
            .any(|entry| entry["what"] == "login" && entry["who"] == "ada@example.org"),
        "{audit:?}"
    );

    // Again without `--authority`; the provider says no.
    let (mut child, _, rest) = begin(folder.path(), &address, &[]);
    provider.answer(json!({"error": "access_denied"}));
    let said_last: Vec<String> = rest.collect();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said_last:?}");
    assert!(
        said_last.iter().any(|line| line.starts_with("error: ")),
        "{said_last:?}"
    );
    assert_eq!(
        ask(&["runs"]).code,
        0,
        "the log-in from before is still good"
    );

    assert_eq!(ask(&["logout"]).err, "logged out\n");
    let refused = ask(&["runs"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert_eq!(
        ask(&["logout"]).err,
        "nobody is logged in to this controller\n"
    );
}
