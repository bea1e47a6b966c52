//! Which boot of the machine this is: process ids and all that the kernel kept are valid in one boot only.

use std::io;

/// The id of this boot (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// The file cannot be read, so a restart of the machine could not be noticed.
pub fn boot_id() -> io::Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let said = std::fs::read_to_string(PATH);
    let id = said.map_err(|error| io::Error::new(error.kind(), format!("{PATH}: {error}")))?;
    match id.trim() {
        "" => Err(io::Error::other(format!("{PATH} is empty"))),
        id => Ok(id.to_owned()),
    }
}
