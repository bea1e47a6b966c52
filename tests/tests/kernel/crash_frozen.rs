//! All of ours are frozen at once, as by a container's pause or a host's freezer: what the kernel ends by itself is over in time although
//! none of ours can do anything, and the rest within moments of the thaw.

use backburn_tests::crash::Place;
use backburn_tests::freezer::{Freezer, FreezerVersion};
use backburn_tests::isolated::{in_namespaces, in_network_namespace};
use backburn_tests::network::{THERE, Wire, at, udp};
use backburn_tests::processes;
use backburn_tests::wait::wait_within;
use serde_json::json;
use std::process::{Child, Command};
use std::time::Duration;

const PORT: u16 = 7000;

/// The kernel ends what a helper does two seconds after its own end. A machine that is busy has more.
const KERNEL_ENDS_WITHIN: Duration = Duration::from_secs(15);

/// How long the end may take after the thaw, on a machine that is busy.
const THAW_ENDS_WITHIN: Duration = Duration::from_secs(20);

fn start_frozen(freezer: &Freezer, place: &Place, words: &[&str]) -> Child {
    let command = place.agent(words, None);
    freezer.wrap(&command).spawn().expect("the agent starts")
}

/// Thaws, and waits until nobody of ours is left and nothing is owed.
fn thaw(freezer: &Freezer, place: &Place, inject: &mut Child) {
    freezer.thaw();
    let took = wait_within("the end after the thaw", THAW_ENDS_WITHIN, || {
        let ended = inject.try_wait().expect("a child can be waited for");
        ended.is_some() && processes::of_backburn().is_empty() && place.ledger().is_empty()
    });
    println!("whole {} ms after the thaw", took.as_millis());
}

#[test]
fn flows_cut_by_frozen_processes_pass_again_in_time() {
    in_network_namespace(&["unshare", "ip", "nft"], || {
        for version in FreezerVersion::all() {
            let wire = Wire::new();
            wire.echo(PORT);
            let passes = || udp(at(THERE[0], PORT), Duration::from_millis(200)).is_ok();
            wait_within("an answer", KERNEL_ENDS_WITHIN, passes);
            let place = Place::default();
            let freezer = Freezer::new(version);
            let arguments = json!({"to": THERE[0]}).to_string();
            let words = [
                "inject",
                "network-partition",
                "--duration",
                "4s",
                "--arguments",
                &arguments,
            ];
            let mut inject = start_frozen(&freezer, &place, &words);
            wait_within("the cut", KERNEL_ENDS_WITHIN, || !passes());
            freezer.freeze();
            let cut = wait_within(
                "the kernel's own end",
                KERNEL_ENDS_WITHIN + Duration::from_secs(4),
                passes,
            );
            println!(
                "{version:?}: passes again after {} ms, all frozen",
                cut.as_millis()
            );
            assert!(
                !place.ledger().is_empty(),
                "frozen processes did not strike it out"
            );
            thaw(&freezer, &place, &mut inject);
            let rules = Command::new("nft").args(["list", "ruleset"]).output();
            let rules = rules.expect("`nft` starts").stdout;
            assert!(rules.is_empty(), "{}", String::from_utf8_lossy(&rules));
        }
    });
}

#[test]
fn victim_traced_by_a_frozen_helper_runs_again() {
    in_namespaces(&["unshare", "sleep"], || {
        for version in FreezerVersion::all() {
            let mut victim = Command::new("sleep")
                .arg("1000")
                .spawn()
                .expect("it starts");
            let pid = victim.id() as i32;
            let is_held = || {
                processes::process(pid).is_some_and(|process| matches!(process.state, 'T' | 't'))
            };
            let place = Place::default();
            let freezer = Freezer::new(version);
            let arguments = json!({"process": {"pid": pid}}).to_string();
            let words = [
                "inject",
                "process-pause",
                "--duration",
                "1s",
                "--arguments",
                &arguments,
            ];
            let mut inject = start_frozen(&freezer, &place, &words);
            wait_within("the pause", KERNEL_ENDS_WITHIN, is_held);
            freezer.freeze();
            match version {
                // A SIGKILL ends what version 2 has frozen: the helper's own timer does.
                FreezerVersion::V2 => {
                    let held =
                        wait_within("the kernel's own end", KERNEL_ENDS_WITHIN, || !is_held());
                    println!(
                        "{version:?}: runs again after {} ms, all frozen",
                        held.as_millis()
                    );
                }
                // In version 1 nothing happens to it before the thaw.
                FreezerVersion::V1 => std::thread::sleep(Duration::from_millis(3500)),
            }
            thaw(&freezer, &place, &mut inject);
            assert!(!is_held());
            victim.kill().ok();
            victim.wait().ok();
        }
    });
}
