//! Plug-ins as crash trials put them to the test: a holder and a changer in POSIX shell, and the policy that allows them.

use crate::crash::Case;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The policy's file in a trial's folder.
pub const POLICY: &str = "policy.json";

/// A case for each kind of plug-in that acts itself.
pub const PLUGIN_CASES: &[Case] = &[
    Case {
        name: "plug-in that holds",
        fault: "trial-holder",
        arguments: |world| json!({"marker": world.marker()}),
        duration: Some("500ms"),
        victims_survive: true,
    },
    Case {
        name: "plug-in that changes",
        fault: "trial-changer",
        arguments: |world| json!({"marker": world.marker()}),
        duration: Some("500ms"),
        victims_survive: true,
    },
];

/// Both kinds in one script: the holder holds a process and nothing else, the changer makes a file.
const SCRIPT: &str = r##"#!/bin/sh
set -eu
read -r request
marker=$(printf '%s' "$request" | sed -n 's/.*"marker":"\([^"]*\)".*/\1/p')
case $request in
*'"verb":"describe"'*)
    printf '{"protocol": [1, 1], "name": "NAME", "summary": "Trial", "kind": "KIND", "survives-reboot": true, "example": {"marker": "/x"}, '
    printf '"schema": {"type": "object", "additionalProperties": false, "properties": {"marker": {"type": "string"}}}}\n' ;;
*'"verb":"plan"'*)
    printf '{"changes": [{"data": {"marker": "%s"}, "holds": ["file:%s"], "effect": LOOK, ' "$marker" "$marker"
    printf '"apply": "make it", "undo": "remove it", "if-agent-dies": "the guardian"}]}\n' ;;
*'"verb":"hold"'*) echo '{"ready": "holding"}'; exec sleep 60 ;;
*'"verb":"apply"'*) : >"$marker"; echo '{"done": "made"}' ;;
*'"verb":"observe"'*) if [ -e "$marker" ]; then echo '{"present": "it is there"}'; else echo '{"absent": "it is not there"}'; fi ;;
*'"verb":"undo"'*) rm -f "$marker"; echo '{"done": "removed"}' ;;
esac
"##;

/// Writes the policy of a trial into its folder, with the plug-in of this fault where it is one.
///
/// # Panics
/// The files can't be written.
pub fn install(fault: &str, folder: &Path) {
    let look = match fault {
        "trial-holder" => json!({"look": "file-exists", "path": "/"}).to_string(),
        _ => r#"{"look": "file-exists", "path": "'"$marker"'"}"#.to_owned(),
    };
    let mut policy = json!({});
    if let Some(kind) = fault.strip_prefix("trial-") {
        let script = SCRIPT
            .replace("NAME", fault)
            .replace("KIND", kind)
            .replace("LOOK", &look.replace('%', "%%"));
        let path = folder.join(fault);
        std::fs::write(&path, script).expect("a file can be written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("it is root's");
        let said = Command::new("sha256sum")
            .arg(&path)
            .output()
            .expect("`sha256sum` starts");
        let hash = String::from_utf8_lossy(&said.stdout);
        let hash = hash.split_whitespace().next().unwrap_or_default();
        policy = json!({"plugins": [{"name": fault, "path": path, "sha256": hash}]});
    }
    std::fs::write(folder.join(POLICY), policy.to_string()).expect("a file can be written");
}
