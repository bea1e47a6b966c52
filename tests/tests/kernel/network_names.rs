//! Names that come to other addresses while a fault acts.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{BESIDE, THERE, Wire, at, tcp};
use backburn_tests::network_fault::{Fault, NEVER, PROGRAMS, SOON, figure};
use backburn_tests::wait::wait_within;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A table of hosts that only this test sees, its mounts being its own.
fn own_hosts(file: &Path) {
    std::fs::copy("/etc/hosts", file).expect("it can be copied");
    let mounted = Command::new("mount")
        .arg("--bind")
        .arg(file)
        .arg("/etc/hosts")
        .status();
    assert!(mounted.is_ok_and(|status| status.success()));
}

#[test]
fn network_fault_on_a_name_follows_its_new_addresses() {
    let programs = [&PROGRAMS[..], &["mount"]].concat();
    in_network_namespace(&programs, || {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let hosts = folder.path().join("hosts");
        own_hosts(&hosts);
        let others = std::fs::read_to_string(&hosts).expect("it can be read");
        let are = |addresses: &[&str]| {
            let lines: Vec<String> = addresses
                .iter()
                .map(|address| format!("{address} service.test\n"))
                .collect();
            std::fs::write(&hosts, format!("{others}\n{}", lines.concat())).expect("it is ours");
        };
        let wire = Wire::new();
        wire.echo(8000);
        wire.echo(8001);
        for (fault, arguments) in [
            ("network-partition", json!({"to": "service.test:8000"})),
            (
                "network-reject",
                json!({"to": "service.test", "ports": 8000, "direction": "ingress"}),
            ),
        ] {
            are(&THERE);
            let acting = Fault::inject(fault, &arguments, "100s");
            let cut = |address: &str| tcp(at(address, 8000), NEVER).is_err();
            for (there, beside) in THERE.into_iter().zip(BESIDE) {
                assert!(cut(there), "{there}");
                assert!(tcp(at(beside, 8000), SOON).is_ok(), "{beside}");
            }
            are(&BESIDE);
            for beside in BESIDE {
                wait_within("the new address is cut", Duration::from_secs(60), || {
                    cut(beside)
                });
                assert!(tcp(at(beside, 8001), SOON).is_ok(), "another port");
            }
            for there in THERE {
                assert!(cut(there), "the old address stays cut");
            }
            let effect = acting.end();
            assert_eq!(figure(&effect, "added-addresses"), 2.0, "{effect}");
            for address in THERE.into_iter().chain(BESIDE) {
                assert!(tcp(at(address, 8000), SOON).is_ok(), "{address}");
            }
        }
    });
}
