//! A process's identity and a line of `/proc/PID/stat`.

use super::*;

#[test]
fn process_id_round_trips() {
    let id = ProcessId {
        pid: 4711,
        start: 123_456,
    };
    assert_eq!(id.to_string(), "4711@123456");
    assert_eq!(
        serde_json::from_str::<ProcessId>("\"4711@123456\"").unwrap(),
        id
    );
    for wrong in ["4711", "@1", "4711@", "-1@5", "0@5", "a@b"] {
        assert!(wrong.parse::<ProcessId>().is_err(), "{wrong}");
    }
}

#[test]
fn process_stat_name_with_brackets_keeps_the_fields() {
    let line = "77 (evil) S 1 ) R 12 77 77 0 -1 2097152 0 0 0 0 7 5 0 0 20 0 1 0 9876 1000 42 0";
    let stat = Stat::parse(line).unwrap();
    assert_eq!(
        stat.id,
        ProcessId {
            pid: 77,
            start: 9876
        }
    );
    assert_eq!(
        (stat.comm.as_str(), stat.state, stat.parent),
        ("evil) S 1 ", 'R', 12)
    );
    assert_eq!((stat.cpu_ticks, stat.resident_pages), (12, 42));
    assert!(stat.is_kernel_thread());
}

#[test]
fn protection_second_process_of_a_pid_namespace_is_no_kernel_thread() {
    // As in a container; the kernel's own say so themselves.
    let line = |pid: i32, parent: i32, flags: u64| {
        format!("{pid} (a) S {parent} 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 7 1000 42 0")
    };
    for (pid, parent, flags, is_kernels) in [
        (2, 1, 0x0040_0100, false),
        (9, 2, 0x0040_0000, false),
        (2, 0, 0x0020_8040, true),
        (9, 2, 0x0420_8060, true),
    ] {
        let stat = Stat::parse(&line(pid, parent, flags)).expect("a line of the kernel's");
        assert_eq!(stat.is_kernel_thread(), is_kernels, "{pid} below {parent}");
    }
}
