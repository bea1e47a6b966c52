//! The status of a call of gRPC as people write it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// The statuses by their codes, from 0 (`doc/statuscodes.md` of gRPC).
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A status of gRPC by its name. It is read from `UNAVAILABLE`, `unavailable`, `14` and `"14"`, and `deadline-exceeded` for
/// `DEADLINE_EXCEEDED`; what is none stays as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrpcStatus(pub String);

impl GrpcStatus {
    /// The code of the status. None where there is no such status.
    pub fn code(&self) -> Option<u8> {
        let position = GRPC_STATUSES.iter().position(|name| *name == self.0)?;
        u8::try_from(position).ok()
    }
}

impl<'de> Deserialize<'de> for GrpcStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum CodeOrName {
            Code(u64),
            Name(String),
        }
        let written = match CodeOrName::deserialize(deserializer)? {
            CodeOrName::Code(code) => code.to_string(),
            CodeOrName::Name(name) => name.trim().to_uppercase().replace(['-', ' '], "_"),
        };
        let by_code = written.parse::<usize>().ok();
        let by_code = by_code.and_then(|code| GRPC_STATUSES.get(code));
        Ok(GrpcStatus(
            by_code.map_or(written, |name| (*name).to_owned()),
        ))
    }
}

impl JsonSchema for GrpcStatus {
    fn schema_name() -> Cow<'static, str> {
        "GrpcStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "status of gRPC",
            "description": "A status of gRPC, by its name or code",
            "type": ["string", "integer"],
            "pattern": r"^\s*([A-Za-z][A-Za-z_ -]*|[0-9]+)\s*$",
            "minLength": 1,
            "minimum": 1,
            "maximum": 16,
            "examples": ["UNAVAILABLE", "deadline-exceeded", 8]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_status_is_read_by_name_and_by_code() {
        for (written, code) in [
            (serde_json::json!("UNAVAILABLE"), Some(14)),
            (serde_json::json!(" deadline-exceeded "), Some(4)),
            (serde_json::json!(8), Some(8)),
            (serde_json::json!("16"), Some(16)),
            (serde_json::json!(17), None),
            (serde_json::json!("broken"), None),
        ] {
            let status: GrpcStatus = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(status.code(), code, "{written}");
        }
    }
}
