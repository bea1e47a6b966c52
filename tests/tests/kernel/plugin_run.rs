//! Plug-ins in an experiment on this host.

use backburn_tests::crash_plugins::{POLICY, install};
use backburn_tests::isolated::in_namespaces;
use backburn_tests::programs::backburn;
use serde_json::json;
use std::process::Command;

#[test]
fn policy_that_a_command_names_has_its_plug_ins_in_experiments() {
    in_namespaces(&["unshare", "sleep"], || {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let folder = folder.path();
        install("trial-changer", folder);
        let marker = folder.join("marker");
        let document = json!({
            "title": "a file appears",
            "description": "as a plug-in makes it",
            "method": [
                {"type": "action", "name": "appear", "background": true, "provider": {
                    "type": "fault", "fault": "trial-changer", "duration": "1s", "arguments": {"marker": marker}}},
                {"type": "probe", "name": "there", "tolerance": 0, "pauses": {"before": 0.5},
                    "provider": {"type": "process", "path": "test", "arguments": ["-e", marker]}},
            ],
        });
        let file = folder.join("experiment.json");
        std::fs::write(&file, document.to_string()).expect("a file can be written");
        for (word, policy, code) in [("plan", true, 0), ("run", false, 2), ("run", true, 0)] {
            let mut command = Command::new(backburn());
            command.arg(word).arg(&file).env_remove("BACKBURN_POLICY");
            command.arg("--state").arg(folder.join("state"));
            if policy {
                command.arg("--policy").arg(folder.join(POLICY));
            }
            let said = command.output().expect("it starts");
            let text = String::from_utf8_lossy(&said.stderr);
            assert_eq!(said.status.code(), Some(code), "{word}: {text}");
        }
        assert!(!marker.exists());
    });
}
