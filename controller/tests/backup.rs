//! Backup of a controller that runs, and restore: what was revoked since stays revoked.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "support/controller.rs"]
mod controller;

use backburn::pki::ca::CertificateAuthority;
use backburn::store::{EnrolledAgent, NewRun, SqliteStore, Store, Trigger};
use controller::Controller;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn backburn<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backburn"))
        .args(arguments)
        .env_remove("BACKBURN_DATA")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn backup(file: &Path, data: &Path) -> Output {
    let words = [
        OsStr::new("backup"),
        file.as_os_str(),
        OsStr::new("--data"),
        data.as_os_str(),
    ];
    backburn(&words)
}

fn restore(file: &Path, data: &Path, more: &[&str]) -> Output {
    let mut words = vec![
        OsStr::new("controller"),
        OsStr::new("restore"),
        file.as_os_str(),
    ];
    words.extend([OsStr::new("--data"), data.as_os_str()]);
    words.extend(more.iter().map(OsStr::new));
    backburn(&words)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Makes a token over the API. Returns its id and its text.
async fn token(controller: &Controller, name: &str) -> (String, String) {
    let request = json!({"name": name, "role": "operator"});
    let made = controller
        .ask("POST", "/api/v1/tokens", Some(&request))
        .await;
    assert!(made.status < 300, "{}", made.body);
    let made = made.json();
    let text = made["token"].as_str().unwrap().to_owned();
    (made["id"].as_str().unwrap().to_owned(), text)
}

async fn status(controller: &Controller, token: &str) -> u16 {
    let bearer = format!("authorization: Bearer {token}\r\n");
    controller
        .request("GET", "/api/v1/halt", &bearer, None)
        .await
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_a_running_controller_restored_keeps_revoked_what_was_revoked_since() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("one.backup"));
    let controller = Controller::start(&data).await;
    let (before, before_text) = token(&controller, "before").await;
    let agent = EnrolledAgent {
        name: "a".into(),
        serials: vec!["01".into()],
        labels: BTreeMap::new(),
        labels_by: None,
        heard: None,
        enrolled: Timestamp::now(),
        revoked: None,
    };
    controller.store.put_agent(&agent).unwrap();
    let run = NewRun {
        id: "r".into(),
        experiment: None,
        title: "a run that is open".into(),
        seed: 1,
        who: "before".into(),
        because: Trigger::Asked,
        started: Timestamp::now(),
    };
    controller.store.open_run(&run).unwrap();

    let made = backup(&file, &data);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = backup(&file, &data);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        text(&again.stderr).contains("the file exists"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(
        files(folder.path()),
        ["data", "one.backup"],
        "nothing else is left"
    );
    let audited = controller.store.audited(0, 100).unwrap();
    assert!(audited.iter().any(|entry| entry.record.what == "backup"));

    // A controller that runs is not restored.
    let refused = restore(&file, &data, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("locked"),
        "{}",
        text(&refused.stderr)
    );

    let revoked = controller
        .ask("DELETE", &format!("/api/v1/tokens/{before}"), None)
        .await;
    assert!(revoked.status < 300, "{}", revoked.body);
    controller.registry.revoke("a").unwrap();
    let (after, after_text) = token(&controller, "after").await;
    controller
        .ask("POST", "/api/v1/halt", Some(&json!({})))
        .await;
    let admin = controller.token.clone();
    controller.stop().await;

    let restored = restore(&file, &data, &[]);
    let (listed, said) = (text(&restored.stdout), text(&restored.stderr));
    assert!(restored.status.success(), "{said}");
    assert!(
        listed.contains(&after) && !listed.contains(&before),
        "{listed}"
    );
    assert!(said.contains("1 were open"), "{said}");
    assert!(
        files(&data)
            .iter()
            .any(|name| name.starts_with("store.replaced-"))
    );

    let controller = Controller::start(&data).await;
    assert_eq!(status(&controller, &before_text).await, 401);
    assert_eq!(status(&controller, &after_text).await, 200);
    assert_eq!(status(&controller, &admin).await, 200);
    assert!(controller.store.agent("a").unwrap().revoked.is_some());
    assert!(
        controller.service.halted().is_some(),
        "a halt stays in force"
    );
    assert_eq!(controller.store.verify_audit(None).unwrap().broken, None);
    let closed = async {
        while controller.store.run("r").unwrap().end.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed)
        .await
        .unwrap();
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_into_an_empty_folder_asks_what_was_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("one.backup"));
    let controller = Controller::start(&data).await;
    let (fingerprint, admin) = (controller.authority.fingerprint(), controller.token.clone());
    assert!(backup(&file, &data).status.success());
    controller.stop().await;

    let other = folder.path().join("other");
    let refused = restore(&file, &other, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("--revoke-all"),
        "{}",
        text(&refused.stderr)
    );
    assert!(!other.join("store").exists());

    let trusted = restore(&file, &other, &["--nothing-revoked-since"]);
    assert!(trusted.status.success(), "{}", text(&trusted.stderr));
    let controller = Controller::start(&other).await;
    assert_eq!(status(&controller, &admin).await, 200);
    controller.stop().await;

    let third = folder.path().join("third");
    let emptied = restore(&file, &third, &["--revoke-all"]);
    assert!(emptied.status.success(), "{}", text(&emptied.stderr));
    let authority = CertificateAuthority::open(&third.join("authority")).unwrap();
    assert_eq!(authority.fingerprint(), fingerprint);
    let store = SqliteStore::open(&third.join("store")).unwrap();
    let tokens = store.api_tokens().unwrap();
    assert!(!tokens.is_empty() && tokens.iter().all(|token| token.revoked.is_some()));
}

#[test]
fn backup_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = SqliteStore::open(&data.join("store")).unwrap();
    let large = json!({"title": "x".repeat(1 << 20)});
    store
        .put_experiment("large", &large, "ada", Timestamp::now())
        .unwrap();
    drop(store);
    CertificateAuthority::open(&data.join("authority")).unwrap();
    // Files of this shell's children may have 512 KiB; what is longer is refused as on a full disk.
    let script =
        r#"trap '' XFSZ; ulimit -f 512; exec "$0" backup "$1/one.backup" --data "$1/data""#;
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_backburn")])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("could not write the backup"), "{said}");
    assert_eq!(files(folder.path()), ["data"]);

    // Nor does what is no backup become a store.
    let odd = folder.path().join("odd");
    std::fs::write(&odd, "no backup").unwrap();
    let refused = restore(&odd, &folder.path().join("other"), &["--revoke-all"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!folder.path().join("other/store").exists());
}
