//! Where the response to a request ends (RFC 9112, section 6). Bodies are read and dropped.

/// The longest head of a response, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The longest line that says how long a chunk is, in bytes.
const MAX_LINE_BYTES: usize = 8 << 10;
/// The most headers of a response.
const MAX_HEADERS: usize = 128;

/// What came is no response of HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is awaited next of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Head,
    Bytes(u64),
    ChunkSize,
    Chunk(u64),
    Trailer,
    UntilClosed,
    Nothing,
}

/// Reads one response, as its bytes come.
#[derive(Debug)]
pub(super) struct ResponseReader {
    awaited: Awaited,
    is_bodyless: bool,
    /// The status; 0 before the head has come.
    pub(super) status: u16,
    /// Whether the server keeps the connection for another request.
    pub(super) stays_open: bool,
}

impl ResponseReader {
    /// A reader of the response to a request; `is_bodyless` where that is a HEAD.
    pub(super) fn new(is_bodyless: bool) -> Self {
        ResponseReader {
            awaited: Awaited::Head,
            is_bodyless,
            status: 0,
            stays_open: false,
        }
    }

    /// Takes what has come out of the buffer. True once the response is whole.
    pub(super) fn take(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Malformed> {
        loop {
            match self.awaited {
                Awaited::Head => match self.take_head(buffer)? {
                    true => {}
                    false => return Ok(false),
                },
                Awaited::Bytes(0) | Awaited::Nothing => {
                    self.awaited = Awaited::Nothing;
                    return Ok(true);
                }
                Awaited::Bytes(left) | Awaited::Chunk(left) => {
                    let taken = left.min(buffer.len() as u64);
                    buffer.drain(..taken as usize);
                    let left = left - taken;
                    self.awaited = match self.awaited {
                        Awaited::Chunk(_) if left == 0 => Awaited::ChunkSize,
                        Awaited::Chunk(_) => Awaited::Chunk(left),
                        _ => Awaited::Bytes(left),
                    };
                    if left > 0 {
                        return Ok(false);
                    }
                }
                Awaited::ChunkSize | Awaited::Trailer => {
                    let Some(line) = take_line(buffer)? else {
                        return Ok(false);
                    };
                    self.awaited = match (self.awaited, line.as_str()) {
                        (Awaited::Trailer, "") => Awaited::Nothing,
                        (Awaited::Trailer, _) => Awaited::Trailer,
                        (_, size) => {
                            let size = size.split(';').next().unwrap_or_default().trim();
                            match u64::from_str_radix(size, 16).map_err(|_| Malformed)? {
                                0 => Awaited::Trailer,
                                // A chunk ends with a line break.
                                size => Awaited::Chunk(size.checked_add(2).ok_or(Malformed)?),
                            }
                        }
                    };
                }
                Awaited::UntilClosed => {
                    buffer.clear();
                    return Ok(false);
                }
            }
        }
    }

    /// Whether a response is whole whose connection the server has closed.
    pub(super) fn is_whole_when_closed(&self) -> bool {
        matches!(self.awaited, Awaited::UntilClosed | Awaited::Nothing)
    }

    fn take_head(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Malformed> {
        let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut room);
        let length = match response.parse(buffer).map_err(|_| Malformed)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if buffer.len() > MAX_HEAD_BYTES => return Err(Malformed),
            httparse::Status::Partial => return Ok(false),
        };
        self.status = response.code.unwrap_or_default();
        let values = |name: &str| {
            let named = response.headers.iter();
            let named = named.filter(|header| header.name.eq_ignore_ascii_case(name));
            let values = named.map(|header| String::from_utf8_lossy(header.value).to_lowercase());
            values.collect::<Vec<_>>()
        };
        let has = |name: &str, word: &str| {
            let values = values(name);
            let mut words = values.iter().flat_map(|value| value.split(','));
            words.any(|known| known.trim() == word)
        };
        self.stays_open = match response.version {
            Some(0) => has("connection", "keep-alive"),
            _ => !has("connection", "close"),
        };
        self.awaited = match self.status {
            // Another response follows.
            100 | 102..=199 => Awaited::Head,
            101 => return Err(Malformed),
            204 | 304 => Awaited::Nothing,
            _ if self.is_bodyless => Awaited::Nothing,
            _ if has("transfer-encoding", "chunked") => Awaited::ChunkSize,
            _ => match values("content-length").first() {
                Some(length) => Awaited::Bytes(length.trim().parse().map_err(|_| Malformed)?),
                None => Awaited::UntilClosed,
            },
        };
        self.stays_open &= self.awaited != Awaited::UntilClosed;
        buffer.drain(..length);
        Ok(true)
    }
}

/// Takes a line without its end. None where it is not whole yet.
fn take_line(buffer: &mut Vec<u8>) -> Result<Option<String>, Malformed> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return match buffer.len() > MAX_LINE_BYTES {
            true => Err(Malformed),
            false => Ok(None),
        };
    };
    let line: Vec<u8> = buffer.drain(..=end).collect();
    let line = String::from_utf8(line).map_err(|_| Malformed)?;
    Ok(Some(line.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a response of which this many bytes come at once: its status, what is left, and whether the connection stays open.
    fn read(
        text: &str,
        step: usize,
        is_head: bool,
    ) -> Result<Option<(u16, String, bool)>, Malformed> {
        let mut reader = ResponseReader::new(is_head);
        let (mut buffer, mut came) = (Vec::new(), 0);
        for piece in text.as_bytes().chunks(step) {
            buffer.extend_from_slice(piece);
            came += piece.len();
            if reader.take(&mut buffer)? {
                let left = [buffer, text.as_bytes()[came..].to_vec()].concat();
                let left = String::from_utf8(left).unwrap();
                return Ok(Some((reader.status, left, reader.stays_open)));
            }
        }
        match reader.is_whole_when_closed() {
            true => Ok(Some((reader.status, "closed".into(), reader.stays_open))),
            false => Ok(None),
        }
    }

    #[test]
    fn response_ends_where_its_framing_says_however_it_comes() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellorest",
                false,
                (200, "rest", true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\nrest",
                false,
                (200, "rest", true),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
                false,
                (204, "", false),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                true,
                (200, "", true),
            ),
            (
                "HTTP/1.1 500 No\r\n\r\nuntil the end",
                false,
                (500, "closed", false),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
                false,
                (200, "", false),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
                false,
                (200, "", true),
            ),
        ];
        for (text, is_head, (status, left, stays_open)) in cases {
            for step in [1, 7, 1000] {
                let wanted = Ok(Some((status, left.to_owned(), stays_open)));
                assert_eq!(read(text, step, is_head), wanted, "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn response_cut_short_is_not_whole_and_nonsense_is_malformed() {
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", 3, false),
            Ok(None)
        );
        for nonsense in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ] {
            assert_eq!(read(nonsense, 9, false), Err(Malformed), "{nonsense:?}");
        }
    }
}
