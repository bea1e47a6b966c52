//! Returns memory to the kernel: a process of the agent that is about to wait, maybe for days, gives back what it needed to start. This
//! affects nothing but the process itself.

use rustix::mm::{Advice, madvise};

/// Releases the pages of programs and libraries that this process has mapped to read or run them. The kernel keeps them in its page cache
/// and maps again what is needed, a few pages at a time, in some microseconds each. A guardian that only waits needs a handful of the
/// thousand pages that its start went through.
pub fn settle() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, length) in maps.lines().filter_map(clean) {
        give_back(start, length);
    }
}

/// Returns to the kernel what this process has freed and the C library keeps for later: whole pages between those still in use, which
/// the library never returns by itself. Costs a walk over all free memory. Source: malloc_trim(3); other C libraries than glibc have no such thing.
#[allow(unsafe_code)]
pub fn return_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but the allocator's own free lists, under the allocator's own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Where a mapping is and how long, if it is one of a file whose pages nobody can have written to: what is run, and what is read
/// from a program's beginning. What the loader has relocated comes later in the file, and is made read-only by it: that must stay. Source:
/// proc(5), `/proc/pid/maps`; elf(5), PT_GNU_RELRO.
fn clean(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let file = fields.nth(2)?;
    let begins = offset.bytes().all(|digit| digit == b'0');
    let is_clean = rights == "r-xp" || (rights == "r--p" && begins);
    if !is_clean || !file.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[allow(unsafe_code)]
fn give_back(start: usize, length: usize) {
    // SAFETY: a private mapping of a file, never writable since it was made: every page of it is the file's, and the kernel reads the same
    // again when it is touched. That holds for the code that runs this, too.
    let given = unsafe {
        madvise(
            std::ptr::without_provenance_mut(start),
            length,
            Advice::LinuxDontNeed,
        )
    };
    if let Err(error) = given {
        tracing::debug!(%error, "pages could not be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_only_untouched_pages_are_released() {
        for (line, found) in [
            (
                "1000-3000 r-xp 00001000 fe:00 7 /bin/agent",
                Some((0x1000, 0x2000)),
            ),
            (
                "1000-2000 r--p 00000000 fe:00 7 /bin/agent",
                Some((0x1000, 0x1000)),
            ),
            // Relocated, then made read-only.
            ("1000-2000 r--p 00500000 fe:00 7 /bin/agent", None),
            ("1000-2000 rw-p 00000000 fe:00 7 /bin/agent", None),
            ("1000-2000 r-xp 00000000 00:00 0 [vdso]", None),
            ("1000-2000 r-xp 00000000 00:00 0", None),
        ] {
            assert_eq!(clean(line), found, "{line}");
        }
    }

    /// The resident memory of this kind, in KiB.
    fn resident(kind: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
        let line = status.lines().find(|line| line.starts_with(kind));
        let words = line.expect("it is told").split_whitespace().nth(1);
        words
            .and_then(|words| words.parse().ok())
            .expect("a number")
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_between_what_is_kept_is_returned() {
        let mut all: Vec<_> = (0..64 << 10).map(|_| Some(vec![1_u8; 1 << 10])).collect();
        for (number, block) in all.iter_mut().enumerate() {
            // One in 64 stays.
            if number % 64 > 0 {
                *block = None;
            }
        }
        let before = resident("RssAnon:");
        return_freed();
        let after = resident("RssAnon:");
        assert!(
            after + (32 << 10) < before,
            "{before} KiB, then {after} KiB"
        );
        assert_eq!(all.iter().flatten().map(Vec::len).sum::<usize>(), 1 << 20);
    }

    #[test]
    fn memory_released_process_continues_and_is_smaller() {
        let before = resident("RssFile:");
        settle();
        let after = resident("RssFile:");
        assert!(after < before, "{before} KiB, then {after} KiB");
        assert_eq!(
            format!("{:?}", "still here".split(' ')),
            format!("{:?}", "still here".split(' '))
        );
    }
}
