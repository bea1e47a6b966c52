//! The machine code (x86-64) that stands in for the vDSO's clock functions. It uses the registers that a called function may use, and no
//! memory but the caller's.

use super::ClockFunction;

/// The bytes of the jump at the entry of a function.
pub const ENTRY_BYTES: usize = 5;
/// The jump with a distance of 32 bits (`jmp rel32`).
const JUMP: u8 = 0xE9;
/// The numbers of the system calls that the code makes.
pub const CLOCK_GETTIME: u32 = 228;
/// That of `gettimeofday`, which gives a time zone as well.
pub const GETTIMEOFDAY: u32 = 96;
const NANOS: i64 = 1_000_000_000;
const MICROS: i64 = 1_000_000;

/// What is added to the time of day: whole seconds, rounded down, and the rest in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    seconds: i64,
    nanos: i64,
}

impl ClockOffset {
    /// An offset in milliseconds, forwards or backwards.
    pub fn millis(millis: i64) -> Self {
        ClockOffset {
            seconds: millis.div_euclid(1000),
            nanos: millis.rem_euclid(1000) * 1_000_000,
        }
    }
}

/// The jump from one place to another, both counted from the beginning of the vDSO.
pub fn jump(from: u64, to: u64) -> [u8; ENTRY_BYTES] {
    let distance = (to as i64 - from as i64 - ENTRY_BYTES as i64) as i32;
    let [a, b, c, d] = distance.to_le_bytes();
    [JUMP, a, b, c, d]
}

/// Where a jump at this place leads; none where there is no jump.
pub fn jump_target(from: u64, bytes: &[u8]) -> Option<u64> {
    let [JUMP, a, b, c, d] = *bytes.first_chunk::<ENTRY_BYTES>()? else {
        return None;
    };
    let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
    u64::try_from(from as i64 + ENTRY_BYTES as i64 + distance).ok()
}

/// The code for all clock functions, which begins with a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockCode {
    /// The bytes of the mark and the code.
    pub bytes: Vec<u8>,
    begins: Vec<(ClockFunction, u64)>,
}

impl ClockCode {
    /// The code that adds this offset. It is as long for any offset.
    pub fn new(offset: ClockOffset, mark: &[u8]) -> Self {
        let mut code = ClockCode {
            bytes: mark.to_vec(),
            begins: Vec::new(),
        };
        for function in ClockFunction::ALL {
            // Aligned as compilers align functions.
            let begin = code.bytes.len().next_multiple_of(16);
            code.bytes.resize(begin, 0);
            code.begins.push((function, begin as u64));
            code.bytes.extend(match function {
                ClockFunction::ClockGettime => clock_gettime(offset),
                ClockFunction::Gettimeofday => gettimeofday(offset),
                ClockFunction::Time => time(offset),
            });
        }
        code
    }

    /// Where the code of a function begins, counted from the mark.
    pub fn begin(&self, function: ClockFunction) -> Option<u64> {
        let mut begins = self.begins.iter();
        begins
            .find(|(known, _)| *known == function)
            .map(|(_, at)| *at)
    }
}

fn clock_gettime(offset: ClockOffset) -> Vec<u8> {
    let add = add_to_pair(offset.seconds, offset.nanos, NANOS, TimePointer::Rsi);
    let mut code = vec![
        0xB8, 228, 0, 0, 0, // mov eax, __NR_clock_gettime
        0x0F, 0x05, // syscall
        0x85, 0xC0, // test eax, eax
        0x75, 0, // jnz end
        0x85, 0xFF, // test edi, edi: CLOCK_REALTIME
        0x74, 10, // jz add
        0x83, 0xFF, 5, // cmp edi, CLOCK_REALTIME_COARSE
        0x74, 5, // je add
        0x83, 0xFF, 11, // cmp edi, CLOCK_TAI
        0x75, 0, // jne end
    ];
    let failed = 10;
    let other = code.len() - 1;
    code.extend(add);
    let end = code.len();
    code[failed] = (end - failed - 1) as u8;
    code[other] = (end - other - 1) as u8;
    code.push(0xC3); // ret
    code
}

fn gettimeofday(offset: ClockOffset) -> Vec<u8> {
    let mut code = vec![
        0xB8, 96, 0, 0, 0, // mov eax, __NR_gettimeofday
        0x0F, 0x05, // syscall
        0x85, 0xC0, // test eax, eax
        0x75, 0, // jnz end
        0x48, 0x85,
        0xFF, // test rdi, rdi: who asks for the zone only gives no place for a time
        0x74, 0, // jz end
    ];
    let failed = 10;
    let none = code.len() - 1;
    code.extend(add_to_pair(
        offset.seconds,
        offset.nanos / 1000,
        MICROS,
        TimePointer::Rdi,
    ));
    let end = code.len();
    code[failed] = (end - failed - 1) as u8;
    code[none] = (end - none - 1) as u8;
    code.push(0xC3); // ret
    code
}

/// By the clock in nanoseconds, so that it agrees with the others on when a second begins.
fn time(offset: ClockOffset) -> Vec<u8> {
    let mut code = vec![
        0x57, // push rdi
        0x48, 0x83, 0xEC, 16, // sub rsp, 16
        0x31, 0xFF, // xor edi, edi: CLOCK_REALTIME
        0x48, 0x89, 0xE6, // mov rsi, rsp
        0xB8, 228, 0, 0, 0, // mov eax, __NR_clock_gettime
        0x0F, 0x05, // syscall
        0x48, 0x8B, 0x04, 0x24, // mov rax, [rsp]
        0x48, 0x8B, 0x54, 0x24, 8, // mov rdx, [rsp + 8]
        0x48, 0x83, 0xC4, 16,   // add rsp, 16
        0x5F, // pop rdi
        0x48, 0xB9, // mov rcx, the nanoseconds
    ];
    code.extend(offset.nanos.to_le_bytes());
    code.extend([0x48, 0x01, 0xCA]); // add rdx, rcx
    code.extend([0x48, 0x81, 0xFA]); // cmp rdx, 10^9
    code.extend((NANOS as i32).to_le_bytes());
    code.extend([0x7C, 3]); // jl +3
    code.extend([0x48, 0xFF, 0xC0]); // inc rax
    code.extend([0x48, 0xB9]); // mov rcx, the seconds
    code.extend(offset.seconds.to_le_bytes());
    code.extend([0x48, 0x01, 0xC8]); // add rax, rcx
    code.extend([0x48, 0x85, 0xFF]); // test rdi, rdi
    code.extend([0x74, 3]); // jz +3
    code.extend([0x48, 0x89, 0x07]); // mov [rdi], rax
    code.push(0xC3); // ret
    code
}

/// The register that points to the pair of seconds and their parts.
#[derive(Clone, Copy)]
enum TimePointer {
    Rsi,
    Rdi,
}

/// Adds to a pair of seconds and so many parts of a second, and has zero returned.
fn add_to_pair(seconds: i64, parts: i64, whole: i64, pointer: TimePointer) -> Vec<u8> {
    // The addressing byte for [pointer + 8] with rdx, and for [pointer] with rax.
    let (second, first) = match pointer {
        TimePointer::Rsi => (0x56, 0x06),
        TimePointer::Rdi => (0x57, 0x07),
    };
    let mut code = vec![0x48, 0xB8]; // mov rax, the seconds
    code.extend(seconds.to_le_bytes());
    code.extend([0x48, 0xBA]); // mov rdx, the parts
    code.extend(parts.to_le_bytes());
    code.extend([0x48, 0x03, second, 8]); // add rdx, [pointer + 8]
    code.extend([0x48, 0x81, 0xFA]); // cmp rdx, whole
    code.extend((whole as i32).to_le_bytes());
    code.extend([0x7C, 10]); // jl +10
    code.extend([0x48, 0x81, 0xEA]); // sub rdx, whole
    code.extend((whole as i32).to_le_bytes());
    code.extend([0x48, 0xFF, 0xC0]); // inc rax
    code.extend([0x48, 0x89, second, 8]); // mov [pointer + 8], rdx
    code.extend([0x48, 0x01, first]); // add [pointer], rax
    code.extend([0x31, 0xC0]); // xor eax, eax
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_backwards_counts_whole_seconds_down() {
        let offset = ClockOffset::millis(-1500);
        assert_eq!((offset.seconds, offset.nanos), (-2, 500_000_000));
        let offset = ClockOffset::millis(1500);
        assert_eq!((offset.seconds, offset.nanos), (1, 500_000_000));
    }

    #[test]
    fn jump_leads_where_it_was_meant_to_and_other_code_nowhere() {
        for (from, to) in [(0x810, 0x1a20), (0x1a20, 0x810), (0, 5)] {
            assert_eq!(jump_target(from, &jump(from, to)), Some(to));
        }
        assert_eq!(jump_target(0, &[0x90; 5]), None);
        assert_eq!(jump_target(0, &[0xE9, 0]), None);
    }

    #[test]
    fn code_with_longest_mark_fits_into_the_end_of_a_page() {
        let mark = super::super::mark_bytes(&"m".repeat(super::super::MAX_MARK_BYTES));
        let code = ClockCode::new(ClockOffset::millis(1), &mark);
        assert!(code.bytes.starts_with(&mark));
        assert!(code.bytes.len() < 480, "{}", code.bytes.len());
        for function in ClockFunction::ALL {
            assert_eq!(code.begin(function).map(|at| at % 16), Some(0));
        }
        let other = ClockCode::new(ClockOffset::millis(-86_400_001), &mark);
        assert_eq!(other.bytes.len(), code.bytes.len());
    }

    /// Runs the code itself, as a process would: mapped, and called.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    #[test]
    #[allow(unsafe_code)]
    fn code_that_is_called_shifts_the_time_of_day_and_nothing_else() {
        use nix::libc;
        for offset in [3_600_000_i64, -3_600_000, 1_500, -1_500, 999, -1] {
            let code = ClockCode::new(ClockOffset::millis(offset), b"backburn:test\0");
            let at = |function| code.begin(function).expect("it has each") as usize;
            // SAFETY: the mapping is private, large enough for the code, and never unmapped; the code is that of functions with these
            // signatures, which write where their pointers lead, to values of this stack.
            unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let page = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
                assert_ne!(page, libc::MAP_FAILED);
                let page = page.cast::<u8>();
                std::ptr::copy_nonoverlapping(code.bytes.as_ptr(), page, code.bytes.len());
                let clock: extern "C" fn(i32, *mut libc::timespec) -> i32 =
                    std::mem::transmute(page.add(at(ClockFunction::ClockGettime)));
                let day: extern "C" fn(*mut libc::timeval, *mut libc::c_void) -> i32 =
                    std::mem::transmute(page.add(at(ClockFunction::Gettimeofday)));
                let seconds: extern "C" fn(*mut i64) -> i64 =
                    std::mem::transmute(page.add(at(ClockFunction::Time)));
                let nanos = |time: &libc::timespec| time.tv_sec * NANOS + time.tv_nsec;
                for _ in 0..200 {
                    for (id, expected) in [
                        (libc::CLOCK_REALTIME, offset),
                        (libc::CLOCK_REALTIME_COARSE, offset),
                        (libc::CLOCK_TAI, offset),
                        (libc::CLOCK_MONOTONIC, 0),
                        (libc::CLOCK_MONOTONIC_COARSE, 0),
                        (libc::CLOCK_BOOTTIME, 0),
                    ] {
                        let [mut before, mut told, mut after] =
                            std::mem::zeroed::<[libc::timespec; 3]>();
                        libc::clock_gettime(id, &raw mut before);
                        assert_eq!(clock(id, &raw mut told), 0);
                        libc::clock_gettime(id, &raw mut after);
                        assert!((0..NANOS).contains(&told.tv_nsec), "{}", told.tv_nsec);
                        let shifted = nanos(&told) - expected * 1_000_000;
                        assert!(
                            (nanos(&before)..=nanos(&after)).contains(&shifted),
                            "clock {id}, {offset} ms"
                        );
                    }
                    let [mut before, mut after] = std::mem::zeroed::<[libc::timespec; 2]>();
                    let mut told = std::mem::zeroed::<libc::timeval>();
                    let mut kept = 0;
                    libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut before);
                    assert_eq!(day(&raw mut told, std::ptr::null_mut()), 0);
                    let returned = seconds(&raw mut kept);
                    libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut after);
                    let (from, to) = (
                        nanos(&before) + offset * 1_000_000,
                        nanos(&after) + offset * 1_000_000,
                    );
                    assert!((0..MICROS).contains(&told.tv_usec));
                    let micros = told.tv_sec * MICROS + told.tv_usec;
                    assert!(
                        (from / 1_000 - 1..=to / 1_000).contains(&micros),
                        "{offset} ms"
                    );
                    assert_eq!(returned, kept);
                    assert!(
                        (from.div_euclid(NANOS)..=to.div_euclid(NANOS)).contains(&returned),
                        "{offset} ms"
                    );
                }
                // Who asks for the zone only gives no place for a time, and `time` may be given none.
                assert_eq!(day(std::ptr::null_mut(), std::ptr::null_mut()), 0);
                assert!(seconds(std::ptr::null_mut()) > 0);
                // Errors are the kernel's.
                assert_ne!(clock(1_000, std::ptr::null_mut()), 0);
            }
        }
    }
}
