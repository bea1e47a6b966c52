//! Whole experiments through the Chaos Toolkit and through us: the journals agree.

use backburn_tests::toolkit::{Tool, essence, oracle, run};
use backburn_tests::{toolkit_cases, web};
use serde_json::Value;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is a place for temporary files")
}

/// One experiment through one tool, in a folder of its own.
fn one(tool: Tool, index: usize, web: std::net::SocketAddr) -> (String, Value, Value) {
    let folder = folder();
    let (name, document) = toolkit_cases::experiments(folder.path(), web).swap_remove(index);
    if name.starts_with("sign ") {
        std::fs::write(folder.path().join("sign"), "")
            .expect("a temporary folder can be written to");
    }
    let ran = run(tool, &document, folder.path(), &[]);
    let journal = ran
        .journal
        .unwrap_or_else(|| panic!("{name}: {tool:?} wrote no journal: {}", ran.said));
    let text = essence(&journal)
        .to_string()
        .replace(&folder.path().display().to_string(), "FOLDER");
    let essence = serde_json::from_str(&text).expect("a journal is JSON");
    (name, document, essence)
}

#[test]
fn experiments_end_as_in_the_chaos_toolkit() {
    let Some(python) = oracle() else {
        return;
    };
    let web = web::serve();
    let number = toolkit_cases::experiments(Path::new("/"), web).len();
    assert!(number >= 100, "only {number} experiments");
    let next = AtomicUsize::new(0);
    let different = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= number {
                        break;
                    }
                    let (name, _, there) = one(Tool::Toolkit(python), index, web);
                    let (_, document, here) = one(Tool::Ours, index, web);
                    if there != here {
                        let text = format!(
                            "{name}\n  document {document}\n  there {there}\n  here  {here}"
                        );
                        different.lock().expect("no thread has panicked").push(text);
                    }
                }
            });
        }
    });
    let different = different.into_inner().expect("no thread has panicked");
    println!(
        "{number} experiments through both, {} different",
        different.len()
    );
    assert!(
        different.is_empty(),
        "{} of {number} differ:\n{}",
        different.len(),
        different.join("\n")
    );
}
