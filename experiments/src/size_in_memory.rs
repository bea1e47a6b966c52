//! What values take in memory, and how much of it a document and its variables may take.

use serde_json::Value;

/// The most that all variables of a document together put in place, in bytes: each text's length,
/// and [`VALUE_BYTES`] for each value.
pub const MAX_SUBSTITUTED_BYTES: usize = 8 << 20;

/// What each value counts besides its text, in bytes: about what it takes in memory.
pub const VALUE_BYTES: usize = 64;

/// The most lists and objects that stand within each other once every value is in place. Whatever reads
/// JSON gives up at 128, and messages between controller and agent put some around a document's parts.
pub const MAX_DEPTH: usize = 100;

/// The most variables that lead from one to the next, each named by the one before.
pub const MAX_VARIABLE_CHAIN: usize = 64;

/// What a value takes in memory, in bytes: each text's length, and [`VALUE_BYTES`] for each value.
pub(crate) fn size_in_memory(value: &Value) -> usize {
    measure(value).0
}

/// The bytes that a value counts, and how many lists and objects stand within each other in it.
pub(crate) fn measure(value: &Value) -> (usize, usize) {
    let inner = |members: &mut dyn Iterator<Item = &Value>| {
        members.fold((0, 0), |(bytes, depth), member| {
            let (more, deep) = measure(member);
            (bytes + more, depth.max(deep))
        })
    };
    let (bytes, depth) = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => (0, 0),
        Value::String(text) => (text.len(), 0),
        Value::Array(list) => {
            let (bytes, depth) = inner(&mut list.iter());
            (bytes, depth + 1)
        }
        Value::Object(fields) => {
            let (bytes, depth) = inner(&mut fields.values());
            let keys: usize = fields.keys().map(String::len).sum();
            (bytes + keys, depth + 1)
        }
    };
    (bytes + VALUE_BYTES, depth)
}
