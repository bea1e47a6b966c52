//! What the kernel sends over netlink: messages, and attributes within attributes. The kernel is trusted, its growth is not: a later one may
//! send more, and less may be read of what is cut off.
#![no_main]

use backburn_agent::netlink;
use libfuzzer_sys::fuzz_target;

fn nested(bytes: &[u8], depth: usize) {
    for (_, value) in netlink::attributes(bytes) {
        assert!(
            value.len() < bytes.len(),
            "an attribute is less than what it is in"
        );
        if depth > 0 {
            nested(value, depth - 1);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let messages = netlink::messages(bytes);
    let sum: usize = messages.iter().map(|message| message.body.len()).sum();
    assert!(
        sum <= bytes.len(),
        "messages are no more than what was read"
    );
    for message in messages {
        netlink::fuzz_connection(message.body);
        nested(message.body, 3);
    }
    nested(bytes, 3);
});
