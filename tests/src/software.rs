//! Real software that a test starts for itself, on loopback, and ends whatever happens.

use crate::wait::wait_within;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A program that ends with the test.
#[derive(Debug)]
pub struct Software {
    child: Child,
    name: String,
}

impl Software {
    /// Starts it; what it says goes to the test's own output.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(command: &mut Command) -> Software {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Software { child, name }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// It cannot be waited for.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// Waits until a connection to this port on loopback is taken.
    ///
    /// # Panics
    /// Not within 20 seconds, or the program has ended.
    pub fn wait_for_port(&mut self, port: u16) {
        let name = self.name.clone();
        wait_within(
            &format!("{name} takes connections on port {port}"),
            Duration::from_secs(20),
            || {
                if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                    panic!("{name} has ended: {status}");
                }
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            },
        );
    }
}

impl Drop for Software {
    fn drop(&mut self) {
        // Whatever fails here has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port on loopback that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener
        .local_addr()
        .expect("a listener has an address")
        .port()
}
