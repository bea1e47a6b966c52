//! The published JSON Schema is the one that the program checks against.
//! `BACKBURN_BLESS=1 cargo test -p backburn-experiments` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use backburn_experiments::schema::document_schema;
use std::path::Path;

#[test]
fn the_published_schema_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/experiment.json");
    let generated = serde_json::to_string_pretty(&document_schema()).unwrap() + "\n";
    if std::env::var_os("BACKBURN_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == generated,
        "{} is stale: run this test with BACKBURN_BLESS=1",
        path.display()
    );
}
