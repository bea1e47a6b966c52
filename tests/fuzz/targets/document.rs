//! An experiment as anybody may write it: reading and checking it never panics, and a refusal says why.
#![no_main]

use backburn_experiments::check::{Sources, load};
use libfuzzer_sys::fuzz_target;
use serde_json::Map;

fuzz_target!(|text: &str| {
    let nothing = Map::new();
    let sources = Sources {
        environment: &|_| None,
        file: &|_| Err("there is no such file".to_owned()),
        variables: &nothing,
        secrets: &nothing,
    };
    if let Err(problems) = load(text, &sources, &[]) {
        assert!(!problems.is_empty(), "refused without a reason");
    }
});
