//! Sizes, rates and addresses as people write them.

mod address;
mod amount;
mod fill;
mod grpc_status;
mod rate;
mod signed_duration;
mod size;
mod syscall_name;

pub(crate) use address::merged;
pub use address::{IpNetwork, Port, PortRange};
pub use amount::Amount;
pub(crate) use fill::Fill;
pub use grpc_status::{GRPC_STATUSES, GrpcStatus};
pub use rate::Rate;
pub use signed_duration::SignedDuration;
pub use size::Size;
pub use syscall_name::{ERRORS, ErrorName, SYSCALLS, SyscallName};

use backburn_experiments::HumanDuration;

/// What a delay may be that is zero or longer than `most`. Whoever wrote `100` may have meant milliseconds.
pub(crate) fn range_hint(delay: HumanDuration, most: HumanDuration) -> String {
    let seconds = delay.0.as_secs_f64();
    let is_bare = delay > most && seconds.fract() == 0.0 && seconds < 1e6;
    let meant = match is_bare {
        true => format!("; a number without a unit is seconds, and `{seconds}ms` is milliseconds"),
        false => String::new(),
    };
    format!("give more than zero and at most {most}{meant}")
}

/// A note about a delay that is so long that its unit may be a mistake; none for others.
pub(crate) fn long_delay_note(delay: HumanDuration) -> Option<String> {
    const LONG: HumanDuration = HumanDuration::seconds(5);
    let seconds = delay.0.as_secs_f64();
    (delay >= LONG && seconds.fract() == 0.0).then(|| {
        format!("{delay} is a long delay: a number without a unit is seconds, and `{seconds}ms` is milliseconds")
    })
}
