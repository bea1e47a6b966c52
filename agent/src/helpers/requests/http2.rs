//! Frames of HTTP/2 (RFC 9113, sections 4 and 6), as far as a proxy has to know them.

use super::incoming::Incoming;
use std::io;

/// What a client begins a connection with (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of what precedes the payload of a frame, in bytes.
const HEAD_BYTES: usize = 9;
/// What every endpoint takes as the payload of a frame, in bytes (section 6.5.2).
const USUAL_PAYLOAD_BYTES: usize = 16_384;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a frame is for, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameKind(u8);

impl FrameKind {
    pub(super) const DATA: Self = FrameKind(0);
    pub(super) const HEADERS: Self = FrameKind(1);
    pub(super) const RESET: Self = FrameKind(3);
    pub(super) const PUSH_PROMISE: Self = FrameKind(5);
    const WINDOW_UPDATE: Self = FrameKind(8);
    pub(super) const CONTINUATION: Self = FrameKind(9);
}

/// A frame; with the frames that continue it, where it has header fields that do not fit into one.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// Reads a frame. None where the connection ends before it.
pub(super) fn read_frame(from: &mut Incoming<'_>) -> io::Result<Option<Frame>> {
    if from.waiting().is_empty() && !from.fill()? {
        return Ok(None);
    }
    let head = from.take(HEAD_BYTES)?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head.as_slice() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
    Ok(Some(Frame {
        kind: FrameKind(kind),
        flags,
        // The first bit is reserved.
        stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        payload: from.take(length)?,
    }))
}

impl Frame {
    fn new(kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Frame {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    pub(super) fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// Whether it is the last that its sender sends on its stream.
    pub(super) fn ends_stream(&self) -> bool {
        let can_end = [FrameKind::DATA, FrameKind::HEADERS].contains(&self.kind);
        can_end && self.flags & END_STREAM != 0 || self.kind == FrameKind::RESET
    }

    /// The header fields in the payload, without padding and priority.
    pub(super) fn header_block(&self) -> io::Result<&[u8]> {
        let cut = || io::Error::other("a frame whose padding is longer than itself");
        let mut block = self.payload.as_slice();
        if self.flags & PADDED != 0 {
            let (padding, rest) = block.split_first().ok_or_else(cut)?;
            let length = rest.len().checked_sub(usize::from(*padding));
            block = rest.get(..length.ok_or_else(cut)?).ok_or_else(cut)?;
        }
        let before = match self.kind {
            FrameKind::PUSH_PROMISE => 4,
            _ if self.flags & PRIORITY != 0 => 5,
            _ => 0,
        };
        block.get(before..).ok_or_else(cut)
    }

    /// The same with another, whole block of header fields.
    pub(super) fn with_headers(&self, block: &[u8]) -> Self {
        let mut payload = Vec::with_capacity(block.len() + 4);
        if self.kind == FrameKind::PUSH_PROMISE {
            let padding = usize::from(self.flags & PADDED != 0);
            payload.extend_from_slice(self.payload.get(padding..padding + 4).unwrap_or_default());
        }
        payload.extend_from_slice(block);
        let flags = self.flags & END_STREAM | END_HEADERS;
        Frame::new(self.kind, flags, self.stream, &payload)
    }

    /// The frame as it is sent. One with header fields that is longer than every endpoint takes is continued in others.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.payload.len());
        let has_headers = [FrameKind::HEADERS, FrameKind::PUSH_PROMISE].contains(&self.kind);
        if !has_headers || self.payload.len() <= USUAL_PAYLOAD_BYTES {
            add(
                &mut bytes,
                self.kind,
                self.flags,
                self.stream,
                &self.payload,
            );
            return bytes;
        }
        let pieces = self.payload.chunks(USUAL_PAYLOAD_BYTES);
        let last = pieces.len() - 1;
        for (index, piece) in pieces.enumerate() {
            let (kind, flags) = match index {
                0 => (self.kind, self.flags & !END_HEADERS),
                _ if index == last => (FrameKind::CONTINUATION, END_HEADERS),
                _ => (FrameKind::CONTINUATION, 0),
            };
            add(&mut bytes, kind, flags, self.stream, piece);
        }
        bytes
    }
}

fn add(bytes: &mut Vec<u8>, kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind.0, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// Header fields that are all of a response.
pub(super) fn end_stream_headers(stream: u32, block: &[u8]) -> Vec<u8> {
    Frame::new(FrameKind::HEADERS, END_STREAM | END_HEADERS, stream, block).bytes()
}

/// The end of a stream by an error (section 7).
pub(super) fn reset(stream: u32, error: u32) -> Vec<u8> {
    Frame::new(FrameKind::RESET, 0, stream, &error.to_be_bytes()).bytes()
}

/// Room for so many bytes more; stream 0 is the whole connection.
pub(super) fn window_update(stream: u32, count: u32) -> Vec<u8> {
    Frame::new(FrameKind::WINDOW_UPDATE, 0, stream, &count.to_be_bytes()).bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_with_padding_and_priority_gives_its_header_fields() {
        let frame = Frame::new(
            FrameKind::HEADERS,
            PADDED | PRIORITY | END_STREAM,
            3,
            &[2, 0, 0, 0, 0, 9, 0x82, 0x86, 0, 0],
        );
        assert_eq!(frame.header_block().unwrap(), [0x82, 0x86]);
        let other = frame.with_headers(&[0x20, 0x82]);
        assert_eq!(
            other.bytes(),
            [0, 0, 2, 1, END_STREAM | END_HEADERS, 0, 0, 0, 3, 0x20, 0x82]
        );
        assert!(other.ends_stream() && other.ends_headers());
        let cut = Frame::new(FrameKind::HEADERS, PADDED, 3, &[9, 0x82]);
        assert!(cut.header_block().is_err());
    }

    #[test]
    fn frame_with_many_header_fields_is_continued() {
        let bytes = Frame::new(FrameKind::HEADERS, END_HEADERS, 1, &vec![7; 40_000]).bytes();
        let heads = [
            0,
            HEAD_BYTES + USUAL_PAYLOAD_BYTES,
            2 * (HEAD_BYTES + USUAL_PAYLOAD_BYTES),
        ];
        let kinds = heads.map(|at| (bytes[at + 3], bytes[at + 4]));
        assert_eq!(kinds, [(1, 0), (9, 0), (9, END_HEADERS)]);
        assert_eq!(bytes.len(), 40_000 + 3 * HEAD_BYTES);
    }
}
