//! Header fields of HTTP/2 as they are compressed (HPACK, RFC 7541). Reading keeps the sender's dynamic table; writing uses none, so that
//! blocks can be left out or added on the way without a trace in those that follow.

use std::collections::VecDeque;
use std::io;
use std::sync::OnceLock;

/// A header field: its name and its value.
pub(super) type HeaderField = (Vec<u8>, Vec<u8>);

/// The size of a dynamic table before anybody changes it, in bytes (RFC 9113, section 6.5.2).
const DEFAULT_TABLE_BYTES: usize = 4096;
/// The largest dynamic table that is kept, in bytes. Senders that use more are not understood.
const MAX_TABLE_BYTES: usize = 1 << 20;
/// The most that the fields of a block may come to, in bytes: a few bytes may name a long field often.
const MAX_BLOCK_BYTES: usize = 1 << 20;
/// What each entry of a dynamic table counts besides its texts (RFC 7541, section 4.1).
const ENTRY_BYTES: usize = 32;

/// The static table (RFC 7541, appendix A), from index 1.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many bits the code of each byte has, and at the end that of the end of a text (RFC 7541, appendix B). The code is canonical: codes
/// follow one another in the order of their lengths, and of the bytes among those of a length.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The longest code, in bits.
const MAX_CODE_BITS: usize = 30;

/// The symbols in the order of their codes, with the first code and the number of the first symbol of each length.
struct HuffmanCode {
    symbols: Vec<u16>,
    /// For each length in bits: its first code, the number of its first symbol, and how many there are.
    lengths: [(u32, usize, u32); MAX_CODE_BITS + 1],
}

impl HuffmanCode {
    fn get() -> &'static Self {
        static CODE: OnceLock<HuffmanCode> = OnceLock::new();
        CODE.get_or_init(|| {
            let mut symbols = Vec::with_capacity(CODE_BITS.len());
            let mut lengths = [(0, 0, 0); MAX_CODE_BITS + 1];
            let mut code = 0_u32;
            for (bits, length) in lengths.iter_mut().enumerate() {
                code <<= 1;
                let of_length = (0_u16..).zip(CODE_BITS);
                let of_length = of_length.filter(|(_, known)| usize::from(*known) == bits);
                let first = symbols.len();
                symbols.extend(of_length.map(|(symbol, _)| symbol));
                let count = (symbols.len() - first) as u32;
                *length = (code, first, count);
                code += count;
            }
            HuffmanCode { symbols, lengths }
        })
    }

    fn decode(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(bytes.len() * 2);
        let (mut code, mut bits) = (0_u32, 0);
        for byte in bytes {
            for shift in (0..8).rev() {
                code = code << 1 | u32::from(byte >> shift & 1);
                bits += 1;
                let Some((first, symbol, count)) = self.lengths.get(bits).copied() else {
                    return Err(wrong("a code that there is not"));
                };
                let Some(nth) = code.checked_sub(first).filter(|nth| *nth < count) else {
                    continue;
                };
                let symbol = self.symbols.get(symbol + nth as usize).copied();
                let symbol = symbol.and_then(|symbol| u8::try_from(symbol).ok());
                text.push(symbol.ok_or_else(|| wrong("an end within a text"))?);
                (code, bits) = (0, 0);
            }
        }
        // What fills the last byte up is the beginning of the code for the end: ones.
        match bits < 8 && code == (1 << bits) - 1 {
            true => Ok(text),
            false => Err(wrong("a text that is cut off")),
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("header fields with {what}"))
}

/// Reads blocks of header fields, in the order in which they come.
pub(super) struct HeaderReader {
    /// The newest entry first.
    table: VecDeque<HeaderField>,
    table_bytes: usize,
    max_table_bytes: usize,
}

/// What is left of a block.
struct Block<'b>(&'b [u8]);

impl<'b> Block<'b> {
    fn byte(&mut self) -> io::Result<u8> {
        let (first, rest) = (self.0.split_first()).ok_or_else(|| wrong("an end too soon"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number whose first bits are the last so many of this byte (RFC 7541, section 5.1).
    fn number(&mut self, first: u8, bits: u32) -> io::Result<usize> {
        let most = (1_usize << bits) - 1;
        let mut number = usize::from(first) & most;
        if number < most {
            return Ok(number);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong("a number that is too large"))
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let first = self.byte()?;
        let length = self.number(first, 7)?;
        if self.0.len() < length {
            return Err(wrong("a text that is cut off"));
        }
        let (text, rest): (&'b [u8], &'b [u8]) = self.0.split_at(length);
        self.0 = rest;
        match first & 0x80 {
            0 => Ok(text.to_vec()),
            _ => HuffmanCode::get().decode(text),
        }
    }
}

impl HeaderReader {
    pub(super) fn new() -> Self {
        HeaderReader {
            table: VecDeque::new(),
            table_bytes: 0,
            max_table_bytes: DEFAULT_TABLE_BYTES,
        }
    }

    /// The fields of a whole block. After an error, no later block can be read.
    pub(super) fn read(&mut self, block: &[u8]) -> io::Result<Vec<HeaderField>> {
        let mut block = Block(block);
        let (mut fields, mut bytes) = (Vec::new(), 0);
        while !block.0.is_empty() {
            let first = block.byte()?;
            let field = match first {
                0x80.. => self.indexed(block.number(first, 7)?)?,
                0x40..0x80 => {
                    let field = self.literal(&mut block, first, 6)?;
                    self.add(field.clone());
                    field
                }
                0x20..0x40 => {
                    let size = block.number(first, 5)?;
                    if size > MAX_TABLE_BYTES {
                        return Err(wrong("too large a table"));
                    }
                    self.max_table_bytes = size;
                    self.evict(0);
                    continue;
                }
                _ => self.literal(&mut block, first, 4)?,
            };
            bytes += field.0.len() + field.1.len() + ENTRY_BYTES;
            if bytes > MAX_BLOCK_BYTES {
                return Err(wrong("more than is kept"));
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn literal(&self, block: &mut Block<'_>, first: u8, bits: u32) -> io::Result<HeaderField> {
        let name = match block.number(first, bits)? {
            0 => block.text()?,
            index => self.indexed(index)?.0,
        };
        Ok((name, block.text()?))
    }

    fn indexed(&self, index: usize) -> io::Result<HeaderField> {
        let nothing = || wrong("an index of nothing");
        let position = index.checked_sub(1).ok_or_else(nothing)?;
        if let Some((name, value)) = STATIC_TABLE.get(position) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let position = position - STATIC_TABLE.len();
        self.table.get(position).cloned().ok_or_else(nothing)
    }

    fn add(&mut self, field: HeaderField) {
        let bytes = field.0.len() + field.1.len() + ENTRY_BYTES;
        self.evict(bytes);
        // One that is larger than the table empties it.
        if bytes <= self.max_table_bytes {
            self.table_bytes += bytes;
            self.table.push_front(field);
        }
    }

    /// Drops the oldest entries until so many bytes more have room.
    fn evict(&mut self, more: usize) {
        while self.table_bytes + more > self.max_table_bytes {
            let Some((name, value)) = self.table.pop_back() else {
                return;
            };
            self.table_bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

/// A block of these fields, which uses no dynamic table and says so.
pub(super) fn write_headers(fields: &[HeaderField]) -> Vec<u8> {
    // The size of the table is 0.
    let mut block = vec![0x20];
    let text = |block: &mut Vec<u8>, text: &[u8]| {
        write_number(block, 0, 7, text.len());
        block.extend_from_slice(text);
    };
    for (name, value) in fields {
        // A literal that is not to be indexed, with a name of its own.
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

fn write_number(to: &mut Vec<u8>, pattern: u8, bits: u32, number: usize) {
    let most = (1_usize << bits) - 1;
    if number < most {
        to.push(pattern | number as u8);
        return;
    }
    to.push(pattern | most as u8);
    let mut left = number - most;
    while left >= 0x80 {
        to.push(left as u8 | 0x80);
        left >>= 7;
    }
    to.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    fn shown(fields: &[HeaderField]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = fields
            .iter()
            .map(|(name, value)| format!("{}: {}", text(name), text(value)));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn hpack_requests_of_the_standard_are_read_plain_and_compressed() {
        // RFC 7541, appendices C.3 and C.4.
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let compressed = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, compressed] {
            let mut reader = HeaderReader::new();
            let read = blocks.map(|block| shown(&reader.read(&bytes(block)).unwrap()));
            let first = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com";
            assert_eq!(read[0], first);
            assert_eq!(read[1], format!("{first}\ncache-control: no-cache"));
            assert_eq!(
                read[2],
                ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value"
            );
            assert_eq!(reader.table_bytes, 164);
        }
    }

    #[test]
    fn hpack_responses_of_the_standard_evict_what_has_no_room() {
        // RFC 7541, appendix C.6, whose table has 256 bytes: 0x3f 0xe1 0x01 says so.
        let mut reader = HeaderReader::new();
        let blocks = [
            "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let read = blocks.map(|block| shown(&reader.read(&bytes(block)).unwrap()));
        assert!(read[0].starts_with(
            ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT"
        ));
        assert!(
            read[1].starts_with(":status: 307\ncache-control: private\n"),
            "{}",
            read[1]
        );
        assert!(read[2].contains("content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"));
        assert_eq!((reader.table.len(), reader.table_bytes), (3, 215));
    }

    #[test]
    fn hpack_what_is_written_is_read_without_a_table() {
        let fields: Vec<HeaderField> = [
            (":path", "/a.B/C".to_owned()),
            ("x-bin", "\u{fc}".repeat(300)),
            ("empty", String::new()),
        ]
        .map(|(name, value)| (name.as_bytes().to_vec(), value.into_bytes()))
        .to_vec();
        let mut reader = HeaderReader::new();
        for _ in 0..3 {
            assert_eq!(reader.read(&write_headers(&fields)).unwrap(), fields);
            assert!(reader.table.is_empty());
        }
    }

    #[test]
    fn hpack_nonsense_is_an_error() {
        for block in [
            "80",
            "be",
            "ff",
            "ffffffffff7f",
            "00",
            "0005 61",
            "0081 00",
            "0084 ffffffff",
            "3fffffff7f",
            "00 81ff 00",
        ] {
            assert!(HeaderReader::new().read(&bytes(block)).is_err(), "{block}");
        }
        // A long field that is named often.
        let mut bomb = vec![0x40, 1, b'a'];
        write_number(&mut bomb, 0, 7, 3000);
        bomb.extend([b'v'; 3000]);
        bomb.extend([0xbe; 5000]);
        assert!(HeaderReader::new().read(&bomb).is_err());
    }
}
