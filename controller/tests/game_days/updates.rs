//! Status updates: what the public page and destinations have of them, and what they never have.

use super::{TELLING, World, day, world};
use backburn::store::Role;
use serde_json::{Value, json};
use std::sync::Arc;

/// A hidden step that goes on, and the page of its world.
async fn with_page() -> (World, String, std::path::PathBuf) {
    let mut world = world().await;
    let file = world.controller.folder.path().join("public/index.html");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let policy = json!({"status-page": {"file": file, "title": "Shop & co"}});
    std::fs::write(
        world.controller.folder.path().join("policy.json"),
        policy.to_string(),
    )
    .unwrap();
    tokio::task::block_in_place(|| world.controller.service.reload_policy()).unwrap();
    tokio::spawn(Arc::clone(&world.controller.service).keep_status_page());
    let steps =
        json!([{"title": "What breaks", "experiment": "slow-database", "discuss": "by-hand"}]);
    let path = world.begin(day(steps)).await;
    world.until_state(&path, "running").await;
    let injected = world.controller.file("db-1");
    world
        .controller
        .until("the fault is injected", || !injected.exists())
        .await;
    world.bob = world
        .controller
        .token_with("carl", Role::Operator, |kept| kept.is_blind = true);
    (world, path, file)
}

fn update(audience: &str, impact: &str) -> Value {
    json!({"kind": "update", "audience": audience, "impact": impact, "workaround": "Try <b>later</b>."})
}

#[tokio::test(flavor = "multi_thread")]
async fn status_page_has_outward_updates_and_nothing_that_is_hidden() {
    let (world, path, file) = with_page().await;
    let page = || std::fs::read_to_string(&file).unwrap_or_default();
    world
        .controller
        .until("the page is there", || page().contains("nothing to report"))
        .await;
    let internal = update("internal", "INTERNAL: The database is slow");
    world.note(&path, &world.ada, internal).await;
    let telling = format!("Paying is slow ({})", TELLING.join(", "));
    world
        .note(&path, &world.ada, update("outward", &telling))
        .await;
    world
        .controller
        .until("the update is there", || page().contains("Paying is slow"))
        .await;
    let shown = page();
    for word in TELLING
        .iter()
        .chain(&["INTERNAL", "<b>", "ada", "Checkout", "<script"])
    {
        assert!(!shown.contains(word), "{word}: {shown}");
    }
    assert!(
        shown.contains("Try &lt;b&gt;later&lt;/b&gt;.") && shown.contains("[hidden]"),
        "{shown}"
    );
    assert!(
        shown.contains("<title>Shop &amp; co</title>")
            && shown.contains("The next update is due at"),
        "{shown}"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o644);
    // What participants may write is as public as what others do.
    world
        .note(&path, &world.bob, update("outward", "Paying works again"))
        .await;
    world
        .controller
        .until("both are there, the newest first", || {
            page().find("works again") < page().find("Paying is slow")
                && page().contains("works again")
        })
        .await;
    world
        .ok(
            "POST",
            &format!("{path}/stop"),
            &world.ada,
            Some(json!({"why": "enough"})),
        )
        .await;
    world.until_state(&path, "ended").await;
    world
        .controller
        .until("the page says so", || page().contains("no update is due"))
        .await;
    // What was hidden when it was written stays so.
    assert!(page().contains("[hidden]"));
    // A folder that is gone is no reason for anything else to fail.
    // Moved away at once: something may be written there just now.
    let folder = file.parent().unwrap();
    std::fs::rename(folder, folder.with_extension("gone")).unwrap();
    let why =
        tokio::task::block_in_place(|| world.controller.service.write_status_page()).unwrap_err();
    assert!(why.contains("public/index.html"), "{why}");
    assert!(world.controller.service.status_page_failures() > 0);
    world
        .note(&path, &world.ada, update("outward", "Afterwards"))
        .await;
    world.verified();
}
