//! Calls off work that another thread does: a flag that is looked at between effects, and a descriptor that ends a wait.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether some work was called off. Shared by who does it and who may call it off.
#[derive(Debug)]
pub struct Interrupt {
    raised: AtomicBool,
    /// Readable from when it is raised on.
    descriptor: OwnedFd,
}

impl Interrupt {
    /// One that is not raised.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Interrupt {
            raised: AtomicBool::new(false),
            descriptor: eventfd(0, flags)?,
        })
    }

    /// Calls the work off. Never waits.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        // The flag alone would do, later: a full counter is readable already.
        rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes()).ok();
    }

    /// Whether the work was called off.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
