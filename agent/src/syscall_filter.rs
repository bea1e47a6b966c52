//! Filters of system calls (seccomp), run here as the kernel would run them, to see what they would do to a call that a process has not made
//! yet. They are programs of classic BPF (the kernel's `Documentation/userspace-api/seccomp_filter.rst` and `networking/filter.rst`).

/// One instruction of a filter (`struct sock_filter` of the kernel's `include/uapi/linux/filter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FilterInstruction {
    /// What is done, with which kind of operand.
    pub code: u16,
    /// How many instructions are skipped where a condition holds.
    pub if_true: u8,
    /// How many are skipped where it does not.
    pub if_false: u8,
    /// The operand of what is done.
    pub operand: u32,
}

/// A filter of system calls that a thread is under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallFilter(pub Vec<FilterInstruction>);

/// A system call as a filter sees it (`struct seccomp_data` of the kernel's `include/uapi/linux/seccomp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilteredCall {
    /// The number of the call.
    pub number: u32,
    /// The address of the instruction after the call.
    pub instruction: u64,
    /// The first argument; the others are taken for 0.
    pub argument: u64,
}

/// `AUDIT_ARCH_X86_64` of the kernel's `include/uapi/linux/audit.h`: a call of a 64-bit program.
const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
/// `SECCOMP_RET_ALLOW`, and `SECCOMP_RET_LOG`, which allows as well.
const ALLOWING: [u32; 2] = [0x7fff_0000, 0x7ffc_0000];
/// The part of a filter's answer that says what becomes of the call (`SECCOMP_RET_ACTION_FULL`).
const ACTION: u32 = 0xffff_0000;
/// The size of what a filter reads, in bytes.
const DATA_BYTES: u32 = 64;

impl FilteredCall {
    /// The word at this offset of what a filter reads.
    fn word(&self, at: u32) -> Option<u32> {
        let half = |number: u64, at: u32| {
            if at.is_multiple_of(8) {
                number as u32
            } else {
                (number >> 32) as u32
            }
        };
        match at {
            _ if !at.is_multiple_of(4) || at >= DATA_BYTES => None,
            0 => Some(self.number),
            4 => Some(AUDIT_ARCH_X86_64),
            8 | 12 => Some(half(self.instruction, at)),
            16 | 20 => Some(half(self.argument, at)),
            _ => Some(0),
        }
    }
}

impl SyscallFilter {
    /// Whether this filter lets a process make this call. A program that is not understood does not.
    pub fn permits(&self, call: &FilteredCall) -> bool {
        let answer = self.answer(call);
        answer.is_some_and(|answer| ALLOWING.contains(&(answer & ACTION)))
    }

    /// What the program answers; none where it is not understood.
    fn answer(&self, call: &FilteredCall) -> Option<u32> {
        let (mut sum, mut index) = (0_u32, 0_u32);
        let mut memory = [0_u32; 16];
        let mut next = 0_usize;
        loop {
            // Jumps lead forward only, so this ends.
            let FilterInstruction {
                code,
                if_true,
                if_false,
                operand,
            } = *self.0.get(next)?;
            next += 1;
            let cell = usize::try_from(operand).ok()?;
            let other = if code & 0x08 == 0 { operand } else { index };
            // Classes are the lowest three bits: load, load index, store, store index, arithmetic, jump, return, others.
            match code {
                0x20 => sum = call.word(operand)?,
                0x80 => sum = DATA_BYTES,
                0x81 => index = DATA_BYTES,
                0x00 => sum = operand,
                0x01 => index = operand,
                0x60 => sum = *memory.get(cell)?,
                0x61 => index = *memory.get(cell)?,
                0x02 => *memory.get_mut(cell)? = sum,
                0x03 => *memory.get_mut(cell)? = index,
                0x07 => index = sum,
                0x87 => sum = index,
                0x06 => return Some(operand),
                0x16 => return Some(sum),
                0x04 | 0x0c => sum = sum.wrapping_add(other),
                0x14 | 0x1c => sum = sum.wrapping_sub(other),
                0x24 | 0x2c => sum = sum.wrapping_mul(other),
                // The kernel ends the program with 0 there, which kills.
                0x34 | 0x3c => sum = sum.checked_div(other)?,
                0x44 | 0x4c => sum |= other,
                0x54 | 0x5c => sum &= other,
                0x64 | 0x6c => sum = sum.checked_shl(other)?,
                0x74 | 0x7c => sum = sum.checked_shr(other)?,
                0x84 => sum = sum.wrapping_neg(),
                0xa4 | 0xac => sum ^= other,
                0x05 => next = next.checked_add(cell)?,
                0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                    let holds = match code & 0xf0 {
                        0x10 => sum == other,
                        0x20 => sum > other,
                        0x30 => sum >= other,
                        _ => sum & other != 0,
                    };
                    next += usize::from(if holds { if_true } else { if_false });
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(program: &[(u16, u8, u8, u32)]) -> SyscallFilter {
        let instruction =
            |(code, if_true, if_false, operand): &(u16, u8, u8, u32)| FilterInstruction {
                code: *code,
                if_true: *if_true,
                if_false: *if_false,
                operand: *operand,
            };
        SyscallFilter(program.iter().map(instruction).collect())
    }

    fn permits(program: &[(u16, u8, u8, u32)], number: u32, argument: u64) -> bool {
        let call = FilteredCall {
            number,
            instruction: 0x7fff_1234_5678,
            argument,
        };
        filter(program).permits(&call)
    }

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const EPERM: u32 = 0x0005_0001;

    #[test]
    fn filter_of_listed_calls_permits_those() {
        // As libseccomp writes them: the machine, the number, and a list.
        let listed = [
            (0x20, 0, 0, 4),
            (0x15, 0, 4, AUDIT_ARCH_X86_64),
            (0x20, 0, 0, 0),
            (0x35, 2, 0, 0x4000_0000),
            (0x15, 2, 0, 96),
            (0x15, 1, 0, 228),
            (0x06, 0, 0, EPERM),
            (0x06, 0, 0, ALLOW),
        ];
        assert!(permits(&listed, 228, 0) && permits(&listed, 96, 0));
        assert!(!permits(&listed, 201, 0));
        assert!(
            permits(&[(0x06, 0, 0, 0x7ffc_0000)], 228, 0),
            "it is logged only"
        );
        assert!(!permits(&[(0x06, 0, 0, KILL)], 228, 0));
        assert!(
            !permits(&[(0x06, 0, 0, 0x7ff0_0000)], 228, 0),
            "a tracer decides"
        );
    }

    #[test]
    fn filter_of_arguments_sees_both_halves() {
        // Only CLOCK_MONOTONIC (1), as some sandboxes do.
        let monotonic_only = [
            (0x20, 0, 0, 16),
            (0x15, 0, 3, 1),
            (0x20, 0, 0, 20),
            (0x15, 0, 1, 0),
            (0x06, 0, 0, ALLOW),
            (0x06, 0, 0, EPERM),
        ];
        assert!(permits(&monotonic_only, 228, 1));
        assert!(!permits(&monotonic_only, 228, 0));
        assert!(!permits(&monotonic_only, 228, 1 << 32 | 1));
        let by_address = [
            (0x20, 0, 0, 12),
            (0x15, 0, 1, 0x7fff),
            (0x06, 0, 0, ALLOW),
            (0x06, 0, 0, KILL),
        ];
        assert!(permits(&by_address, 228, 0));
    }

    #[test]
    fn filter_computes_as_the_kernel_does() {
        let number_equals = |steps: &[(u16, u8, u8, u32)], expected: u32| {
            let end = [
                (0x15, 0, 1, expected),
                (0x06, 0, 0, ALLOW),
                (0x06, 0, 0, KILL),
            ];
            permits(&[&[(0x20, 0, 0, 0)], steps, &end].concat(), 12, 0)
        };
        assert!(number_equals(
            &[
                (0x04, 0, 0, 3),
                (0x14, 0, 0, 5),
                (0x24, 0, 0, 4),
                (0x34, 0, 0, 8)
            ],
            5
        ));
        assert!(number_equals(
            &[
                (0x44, 0, 0, 1),
                (0x54, 0, 0, 9),
                (0xa4, 0, 0, 2),
                (0x64, 0, 0, 4)
            ],
            176
        ));
        assert!(number_equals(
            &[
                (0x02, 0, 0, 3),
                (0x00, 0, 0, 7),
                (0x61, 0, 0, 3),
                (0x0c, 0, 0, 0)
            ],
            19
        ));
        assert!(number_equals(
            &[(0x07, 0, 0, 0), (0x84, 0, 0, 0), (0x0c, 0, 0, 0)],
            0
        ));
        assert!(number_equals(
            &[(0x05, 0, 0, 1), (0x06, 0, 0, KILL), (0x74, 0, 0, 2)],
            3
        ));
        assert!(number_equals(&[(0x80, 0, 0, 0)], 64));
    }

    #[test]
    fn filter_that_is_not_understood_permits_nothing() {
        for odd in [
            &[][..],
            &[(0x20, 0, 0, 3), (0x06, 0, 0, ALLOW)],
            &[(0x20, 0, 0, 64), (0x06, 0, 0, ALLOW)],
            &[(0x60, 0, 0, 16), (0x06, 0, 0, ALLOW)],
            &[(0x34, 0, 0, 0), (0x06, 0, 0, ALLOW)],
            &[(0xff, 0, 0, 0), (0x06, 0, 0, ALLOW)],
            &[(0x05, 0, 0, u32::MAX), (0x06, 0, 0, ALLOW)],
            &[(0x15, 9, 9, 0), (0x06, 0, 0, ALLOW)],
        ] {
            assert!(!permits(odd, 228, 0), "{odd:?}");
        }
    }
}
