//! A line between an agent and its controller, either way: reading it never panics, and what was read is written and read back as the same.
#![no_main]

use backburn_experiments::wire::{Command, Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(command) = serde_json::from_slice::<Command>(bytes) {
        let text = serde_json::to_string(&command).expect("a command can be written");
        let again: Command = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(serde_json::to_string(&again).ok().as_deref(), Some(&*text));
    }
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        let text = serde_json::to_string(&report).expect("a report can be written");
        let again: Report = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(serde_json::to_string(&again).ok().as_deref(), Some(&*text));
    }
});
