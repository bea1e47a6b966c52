//! What a program of Backburn's is known by, whatever its file is called: a note in the file.
//!
//! The note is an ELF note (elf(5), `Elf64_Nhdr`) named `Backburn`, in a `PT_NOTE` segment that the
//! linker makes of the section `.note.backburn` and that `strip` leaves alone.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Who the note is from, padded with zeroes to a multiple of four bytes as notes are.
const NAME: [u8; 12] = *b"Backburn\0\0\0\0";
/// The name's length with one final zero, as `n_namesz` counts it.
const NAME_BYTES: u32 = 9;
/// The only type of note that there is so far.
const IS_PROGRAM: u32 = 1;

/// The note itself, as it stands in a program's file. [`mark_program`](crate::mark_program) puts it there.
#[derive(Debug)]
#[repr(C, align(4))]
pub struct ProgramNote {
    name_bytes: u32,
    description_bytes: u32,
    kind: u32,
    name: [u8; NAME.len()],
}

impl ProgramNote {
    /// The note of this version.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a constant function is wanted")]
    pub const fn new() -> Self {
        ProgramNote {
            name_bytes: NAME_BYTES,
            description_bytes: 0,
            kind: IS_PROGRAM,
            name: NAME,
        }
    }
}

/// Marks the program whose `main.rs` uses it as one of Backburn's, so that no fault ever hits it.
#[macro_export]
macro_rules! mark_program {
    () => {
        // SAFETY: the section is read by nobody but the linker and whoever opens the file, and
        // what is put there has the form of a note, which is all that the section's name demands.
        #[allow(unsafe_code)]
        #[used]
        #[unsafe(link_section = ".note.backburn")]
        static PROGRAM_NOTE: $crate::processes::ProgramNote = $crate::processes::ProgramNote::new();
    };
}

/// `PT_NOTE` of the kernel's `include/uapi/linux/elf.h`.
const PT_NOTE: u32 = 4;
/// The longest notes that are looked through, in bytes, and the most segments.
const MAX_NOTE_BYTES: u64 = 16 * 1024;
const MAX_SEGMENTS: u16 = 64;

/// Whether a program's file bears the note. What is no ELF file of this machine's own kind does not.
pub(super) fn bears_note(file: &File) -> bool {
    read_notes(file).is_some_and(|notes| notes.iter().any(|notes| holds_note(notes)))
}

/// The bytes of each segment of notes; none where the file is not understood.
fn read_notes(file: &File) -> Option<Vec<Vec<u8>>> {
    // `Elf64_Ehdr` and `Elf64_Phdr` of elf(5): only 64 bits and this machine's byte order, as
    // Backburn's own programs are.
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    if header.get(..6)? != [0x7f, b'E', b'L', b'F', 2, order] {
        return None;
    }
    let segments_at = u64_at(&header, 32)?;
    let (segment_bytes, count) = (u16_at(&header, 54)?, u16_at(&header, 56)?);
    let mut notes = Vec::new();
    for index in 0..count.min(MAX_SEGMENTS) {
        let mut segment = [0; 56];
        let at = segments_at.checked_add(u64::from(index) * u64::from(segment_bytes))?;
        file.read_exact_at(&mut segment, at).ok()?;
        if u32_at(&segment, 0)? != PT_NOTE {
            continue;
        }
        let (offset, length) = (u64_at(&segment, 8)?, u64_at(&segment, 32)?);
        let mut bytes = vec![0; usize::try_from(length.min(MAX_NOTE_BYTES)).ok()?];
        file.read_exact_at(&mut bytes, offset).ok()?;
        notes.push(bytes);
    }
    Some(notes)
}

/// Whether Backburn's note is among these notes.
fn holds_note(notes: &[u8]) -> bool {
    let mut at = 0;
    while let (Some(name_bytes), Some(description_bytes), Some(kind)) = (
        u32_at(notes, at),
        u32_at(notes, at + 4),
        u32_at(notes, at + 8),
    ) {
        let name = notes.get(at + 12..at + 12 + NAME.len());
        if name_bytes == NAME_BYTES && kind == IS_PROGRAM && name == Some(&NAME[..]) {
            return true;
        }
        let padded = |bytes: u32| (bytes as usize).next_multiple_of(4);
        at += 12 + padded(name_bytes) + padded(description_bytes);
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
