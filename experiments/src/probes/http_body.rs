//! The body of an HTTP answer as text: unpacked and decoded as its header fields say, within a limit whatever it unpacks to.

use http::header::{self, HeaderMap, HeaderName};
use miniz_oxide::inflate::{
    TINFLStatus, decompress_to_vec_with_limit, decompress_to_vec_zlib_with_limit,
};

/// Characters of Windows-1252 from 0x80 to 0x9F; the others are those of ISO 8859-1. Source: the WHATWG's Encoding Standard.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Flags of a gzip member that say what comes after its ten bytes. Source: RFC 1952, section 2.3.1.
const GZIP_HEADER_CRC: u8 = 1 << 1;
const GZIP_EXTRA: u8 = 1 << 2;
const GZIP_NAME: u8 = 1 << 3;
const GZIP_COMMENT: u8 = 1 << 4;

/// The text of a body, at most `limit` bytes once it is unpacked.
///
/// # Errors
/// It is longer, damaged, or packed in a way that is not supported; the text says which.
pub(super) fn text_of(headers: &HeaderMap, body: &[u8], limit: usize) -> Result<String, String> {
    let field = |name: HeaderName| {
        let values = headers.get_all(name).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(",").to_ascii_lowercase()
    };
    let encodings = field(header::CONTENT_ENCODING);
    let mut unpacked = None;
    // The last one was applied last.
    for encoding in encodings.split(',').rev().map(str::trim) {
        let packed = unpacked.as_deref().unwrap_or(body);
        unpacked = Some(match encoding {
            "" | "identity" => continue,
            "gzip" | "x-gzip" => gunzip(packed, limit)?,
            "deflate" => inflate(packed, limit)?,
            other => {
                let shown: String = other.chars().take(20).collect();
                return Err(format!(
                    "the body is packed with `{shown}`, which is not supported"
                ));
            }
        });
    }
    let kind = field(header::CONTENT_TYPE);
    let charset = kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.trim() == "charset").then(|| value.trim().trim_matches('"'))
    });
    Ok(decoded(unpacked.as_deref().unwrap_or(body), charset))
}

/// What is said of a body that is longer than this.
pub(super) fn too_long(limit: usize) -> String {
    format!("the body is longer than {} MiB", limit >> 20)
}

fn decoded(bytes: &[u8], charset: Option<&str>) -> String {
    let units = |from: fn([u8; 2]) -> u16| -> String {
        let pairs = bytes.chunks_exact(2).map(|pair| from([pair[0], pair[1]]));
        let text: Vec<u16> = pairs.collect();
        String::from_utf16_lossy(text.strip_prefix(&[0xfeff]).unwrap_or(&text))
    };
    match charset {
        Some("iso-8859-1" | "latin1" | "latin-1") => {
            bytes.iter().map(|byte| char::from(*byte)).collect()
        }
        Some("windows-1252" | "cp1252") => {
            let character = |byte: &u8| match WINDOWS_1252.get(usize::from(byte.wrapping_sub(0x80)))
            {
                Some(character) => *character,
                None => char::from(*byte),
            };
            bytes.iter().map(character).collect()
        }
        Some("utf-16be") => units(u16::from_be_bytes),
        Some("utf-16" | "utf-16le") if bytes.starts_with(&[0xfe, 0xff]) => {
            units(u16::from_be_bytes)
        }
        Some("utf-16" | "utf-16le") => units(u16::from_le_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn gunzip(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let damaged = || "the body is not valid gzip".to_owned();
    let [0x1f, 0x8b, 8, flags, _, _, _, _, _, _, rest @ ..] = packed else {
        return Err(damaged());
    };
    let mut rest = rest;
    if flags & GZIP_EXTRA != 0 {
        let [low, high, after @ ..] = rest else {
            return Err(damaged());
        };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        rest = after.get(length..).ok_or_else(damaged)?;
    }
    for flag in [GZIP_NAME, GZIP_COMMENT] {
        if flags & flag != 0 {
            let end = rest
                .iter()
                .position(|byte| *byte == 0)
                .ok_or_else(damaged)?;
            rest = rest.get(end + 1..).ok_or_else(damaged)?;
        }
    }
    if flags & GZIP_HEADER_CRC != 0 {
        rest = rest.get(2..).ok_or_else(damaged)?;
    }
    decompress_to_vec_with_limit(rest, limit).map_err(|error| why(error.status, "gzip", limit))
}

/// Unpacks `deflate`, which is zlib's format (RFC 9110, section 8.4.1.2); some servers send what is within it.
fn inflate(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    decompress_to_vec_zlib_with_limit(packed, limit).or_else(|error| match error.status {
        TINFLStatus::HasMoreOutput => Err(too_long(limit)),
        _ => decompress_to_vec_with_limit(packed, limit)
            .map_err(|error| why(error.status, "deflate", limit)),
    })
}

fn why(status: TINFLStatus, kind: &str, limit: usize) -> String {
    match status {
        TINFLStatus::HasMoreOutput => too_long(limit),
        _ => format!("the body is not valid {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, header::HeaderValue::from_static(value)))
            .collect()
    }

    /// A gzip member with a name and a comment.
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let flags = GZIP_NAME | GZIP_COMMENT | GZIP_EXTRA | GZIP_HEADER_CRC;
        let mut packed = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3, 2, 0, 7, 7];
        packed.extend(b"name\0comment\0\x01\x02");
        packed.extend(compress_to_vec(bytes, 6));
        packed.extend([0; 8]);
        packed
    }

    #[test]
    fn packed_body_is_unpacked_as_its_header_says() {
        let text = "{\"a\": \"é\"}".repeat(100);
        let bytes = text.as_bytes();
        for (encoding, body) in [
            ("gzip", gzip(bytes)),
            ("X-GZIP", gzip(bytes)),
            ("deflate", compress_to_vec_zlib(bytes, 6)),
            ("deflate", compress_to_vec(bytes, 6)),
            ("deflate, gzip", gzip(&compress_to_vec_zlib(bytes, 6))),
            ("identity", bytes.to_vec()),
        ] {
            let headers = headers(&[(header::CONTENT_ENCODING, encoding)]);
            assert_eq!(
                text_of(&headers, &body, 1 << 20),
                Ok(text.clone()),
                "{encoding}"
            );
        }
    }

    #[test]
    fn body_that_unpacks_to_too_much_is_refused_within_the_limit() {
        let bomb = vec![0; 64 << 20];
        for (encoding, body) in [
            ("gzip", gzip(&bomb)),
            ("deflate", compress_to_vec_zlib(&bomb, 6)),
        ] {
            let headers = headers(&[(header::CONTENT_ENCODING, encoding)]);
            let said = text_of(&headers, &body, 1 << 20);
            assert_eq!(
                said,
                Err("the body is longer than 1 MiB".into()),
                "{encoding}"
            );
        }
        for (encoding, body) in [
            ("gzip", &b"no"[..]),
            ("gzip", b"\x1f\x8b\x08\x08"),
            ("br", b"x"),
            ("deflate", b"xx"),
        ] {
            let headers = headers(&[(header::CONTENT_ENCODING, encoding)]);
            assert!(text_of(&headers, body, 100).is_err(), "{encoding}");
        }
    }

    #[test]
    fn body_is_decoded_by_its_charset() {
        for (kind, body, wanted) in [
            ("text/plain", &b"\xc3\xa9"[..], "é"),
            ("text/plain; charset=ISO-8859-1", b"\xe9", "é"),
            (
                "text/html; x=1; charset=\"windows-1252\"",
                b"\x80\xe9",
                "€é",
            ),
            ("text/plain; charset=utf-16le", b"\xff\xfe\xe9\x00", "é"),
            ("text/plain; charset=utf-16", b"\xfe\xff\x00\xe9", "é"),
            ("text/plain; charset=unheard-of", b"\xc3\xa9", "é"),
        ] {
            let headers = headers(&[(header::CONTENT_TYPE, kind)]);
            assert_eq!(
                text_of(&headers, body, 100).as_deref(),
                Ok(wanted),
                "{kind}"
            );
        }
    }
}
