//! Bytes as text in hexadecimal digits.

use std::fmt::Write as _;

/// Bytes as lower-case hexadecimal digits, two for each, as `sha256sum` prints them.
pub fn hexadecimal(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_has_two_digits_for_each_byte() {
        assert_eq!(hexadecimal([0, 10, 255]), "000aff");
        assert_eq!(hexadecimal([]), "");
    }
}
