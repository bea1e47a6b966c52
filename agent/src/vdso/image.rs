//! The image of a vDSO: where its clock functions are, and where its unused end is. It comes from another process, so nothing of it is
//! trusted: a wrong table gives a reason, and no panic.

use super::{ClockFunction, ENTRY_BYTES, MARK_PREFIX, MAX_MARK_BYTES};

/// Why the clocks of a process cannot be altered in its vDSO.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSkewable {
    /// The machine code for this kind of machine is not known.
    #[error("the clocks of processes can be altered on 64-bit x86 alone")]
    Machine,
    /// The vDSO is one for 32-bit programs.
    #[error("it is a 32-bit program")]
    Narrow,
    /// The process has none.
    #[error("it has no vDSO, so it asks the kernel for the time")]
    Missing,
    /// It is altered already, for another injection: the mark of that one.
    #[error("its clock is altered already, under the mark `{0}`")]
    Skewed(String),
    /// It is not understood, or somebody else has altered it.
    #[error("its vDSO is not understood: {0}")]
    Odd(&'static str),
}

/// A vDSO as it is in a process.
#[derive(Debug)]
pub struct VdsoImage<'a> {
    bytes: &'a [u8],
}

/// ELF's identification (`ELFMAG`, elf(5)).
const MAGIC: [u8; 4] = *b"\x7fELF";
/// The section of dynamic symbols (`SHT_DYNSYM` of elf(5)).
const DYNAMIC_SYMBOLS: u64 = 11;
/// The size of a symbol of a 64-bit object.
const SYMBOL_BYTES: usize = 24;
/// Bytes that are kept free after the vDSO's own content.
const MARGIN: usize = 16;

impl<'a> VdsoImage<'a> {
    /// The image in these bytes, which are all that is mapped.
    ///
    /// # Errors
    /// It is not the vDSO of a 64-bit x86 program.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NotSkewable> {
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(NotSkewable::Odd("it is no ELF object"));
        }
        match bytes.get(4) {
            Some(2) => {}
            Some(1) => return Err(NotSkewable::Narrow),
            _ => return Err(NotSkewable::Odd("its class is not known")),
        }
        let image = VdsoImage { bytes };
        // `EM_X86_64`.
        match image.number(18, 2) {
            Some(62) => Ok(image),
            _ => Err(NotSkewable::Odd("it is not for x86-64")),
        }
    }

    /// A number of the image, little-endian.
    fn number(&self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        Some((bytes.iter().rev()).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn place(&self, at: usize, length: usize) -> Option<usize> {
        usize::try_from(self.number(at, length)?).ok()
    }

    /// The mark of the injection that has altered this image; none where no injection has.
    pub fn mark(&self) -> Option<String> {
        let at = (self.bytes)
            .windows(MARK_PREFIX.len())
            .position(|bytes| bytes == MARK_PREFIX)?;
        let mark = self.bytes.get(at + MARK_PREFIX.len()..)?;
        let mark = mark.split(|byte| *byte == 0).next()?;
        let mark = mark.get(..mark.len().min(MAX_MARK_BYTES))?;
        Some(String::from_utf8_lossy(mark).into_owned())
    }

    /// Where the clock functions begin, counted from the beginning of the image, each with the first bytes of its code.
    ///
    /// # Errors
    /// They are not found, or altered already.
    pub fn entries(&self) -> Result<Vec<(ClockFunction, u64, [u8; ENTRY_BYTES])>, NotSkewable> {
        if let Some(mark) = self.mark() {
            return Err(NotSkewable::Skewed(mark));
        }
        let found: Vec<_> = ClockFunction::ALL
            .into_iter()
            .filter_map(|function| {
                let at = self.symbol(function.symbol())?;
                let code = self.bytes.get(at..)?.first_chunk::<ENTRY_BYTES>()?;
                Some((function, at as u64, *code))
            })
            .collect();
        if found.len() < ClockFunction::ALL.len() {
            return Err(NotSkewable::Odd("not all of its clock functions are found"));
        }
        match found
            .iter()
            .any(|(_, at, code)| super::jump_target(*at, code).is_some())
        {
            true => Err(NotSkewable::Odd("a clock function begins with a jump")),
            false => Ok(found),
        }
    }

    fn symbol(&self, name: &str) -> Option<usize> {
        let (sections, size) = (self.place(40, 8)?, self.place(58, 2)?);
        let count = self.place(60, 2)?;
        let header = |index: usize| sections.checked_add(index.checked_mul(size)?);
        let table = (0..count)
            .filter_map(header)
            .find(|at| self.number(at.saturating_add(4), 4) == Some(DYNAMIC_SYMBOLS))?;
        let (symbols, length) = (self.place(table + 24, 8)?, self.place(table + 32, 8)?);
        let names = self.place(header(self.place(table + 40, 4)?)?.checked_add(24)?, 8)?;
        (0..length.min(self.bytes.len()) / SYMBOL_BYTES)
            .map(|index| symbols.saturating_add(index * SYMBOL_BYTES))
            .find_map(|symbol| {
                let text = names.checked_add(self.place(symbol, 4)?)?;
                let is_it = self
                    .bytes
                    .get(text..)?
                    .strip_prefix(name.as_bytes())?
                    .first()
                    == Some(&0);
                is_it
                    .then(|| self.place(symbol.checked_add(8)?, 8))
                    .flatten()
            })
    }

    /// Where so many unused bytes begin, after everything else.
    ///
    /// # Errors
    /// There is not so much room.
    pub fn room(&self, length: usize) -> Result<u64, NotSkewable> {
        let used = self.bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let begin = (used + MARGIN).next_multiple_of(16);
        match begin.saturating_add(length) <= self.bytes.len() {
            true => Ok(begin as u64),
            false => Err(NotSkewable::Odd("its pages have no room for code")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vDSO of the test itself.
    fn own() -> Vec<u8> {
        use std::os::unix::fs::FileExt as _;
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
        let line = maps.lines().find(|line| line.ends_with("[vdso]"));
        let (from, to) = (line.expect("there is a vDSO").split(' ').next())
            .and_then(|range| range.split_once('-'))
            .expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let mut bytes = vec![0; (number(to) - number(from)) as usize];
        let memory = std::fs::File::open("/proc/self/mem").expect("own memory can be read");
        memory
            .read_exact_at(&mut bytes, number(from))
            .expect("it is mapped");
        bytes
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn image_of_this_kernel_has_its_functions_and_room() {
        let bytes = own();
        let image = VdsoImage::new(&bytes).expect("it is one");
        assert_eq!(image.entries().expect("they are found").len(), 3);
        let room = image.room(480).expect("there is room") as usize;
        assert!(bytes[room..room + 480].iter().all(|byte| *byte == 0));
        assert_eq!(image.mark(), None);
        assert!(image.room(bytes.len()).is_err());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn image_that_bears_a_mark_is_refused_with_it() {
        let mut bytes = own();
        let image = VdsoImage::new(&bytes).expect("it is one");
        let room = image.room(64).expect("there is room") as usize;
        let mark = super::super::mark_bytes("trial-0");
        bytes[room..room + mark.len()].copy_from_slice(&mark);
        let entries = VdsoImage::new(&bytes).expect("it is one").entries();
        assert_eq!(entries.err(), Some(NotSkewable::Skewed("trial-0".into())));
    }

    #[test]
    fn image_that_is_cut_or_damaged_gives_a_reason_and_no_panic() {
        let bytes = own();
        for length in 0..bytes.len().min(2048) {
            if let Ok(image) = VdsoImage::new(&bytes[..length]) {
                image.entries().ok();
                image.room(64).ok();
            }
        }
        for at in 0..2048 {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            if let Ok(image) = VdsoImage::new(&damaged) {
                image.entries().ok();
            }
        }
        let mut narrow = bytes;
        narrow[4] = 1;
        assert_eq!(VdsoImage::new(&narrow).err(), Some(NotSkewable::Narrow));
    }
}
