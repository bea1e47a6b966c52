//! What comes from name servers: a packet on its way to whoever asked, which a fault may rewrite; an answer to the agent itself; and the
//! files that say which server to ask.
#![no_main]

use backburn_agent::dns::{self, Decision, ResolvConf};
use backburn_agent::helpers::AnswerFilter;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::sync::LazyLock;

/// The faults whose packets are looked at: one for each way to alter an answer.
static FAULTS: LazyLock<Vec<AnswerFilter>> = LazyLock::new(|| {
    let entry = include_str!("../../../agent/tests/ledger_entries/dns-fail.json");
    let entry: serde_json::Value = serde_json::from_str(entry).expect("a ledger entry is JSON");
    let alterations = [
        json!({"alteration": "hold", "by": "1s"}),
        json!({"alteration": "fail", "with": "servfail"}),
        json!({"alteration": "fail", "with": "timeout"}),
        json!({"alteration": "spoof", "addresses": ["10.0.0.1", "fd00::1"]}),
    ];
    alterations
        .into_iter()
        .map(|alteration| {
            let mut role = entry["changes"][0]["role"].clone();
            role.as_object_mut().expect("a role").remove("role");
            role["names"] = json!(["*"]);
            role["change"] = alteration;
            serde_json::from_value(role).expect("it is a fault of names")
        })
        .collect()
});

fuzz_target!(|bytes: &[u8]| {
    for fault in FAULTS.iter() {
        if let Decision::Replace(packet) = fault.decide(bytes, || true) {
            // What was rewritten is an answer again, and is left as it is the next time or rewritten to the same length.
            if let Decision::Replace(again) = fault.decide(&packet, || true) {
                assert_eq!(packet, again, "rewriting twice is rewriting once");
            }
        }
    }
    let (question, answer) = bytes.split_at(bytes.len() / 2);
    dns::fuzz_answer(answer, question);
    let text = String::from_utf8_lossy(bytes);
    let _servers = ResolvConf::parse(&text);
    dns::hosts(&text).for_each(drop);
    dns::sources(&text);
});
