//! Reading single fields of what another version of this program wrote.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// One field of what was written; none if it is missing or cannot be read.
pub(crate) fn field<T: DeserializeOwned>(written: &Value, name: &str) -> Option<T> {
    serde_json::from_value(written.get(name)?.clone()).ok()
}
