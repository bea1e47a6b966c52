//! Values as D-Bus writes them. Every value is aligned from the beginning of its message; a message's body begins at a multiple of 8.

use std::io;

/// The deepest that containers may lie in one another, as the specification limits arrays.
const MAX_DEPTH: usize = 32;

/// A value that was received. What a variant holds stands for the variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A boolean value (`b`).
    Boolean(bool),
    /// An integer of any length, with or without a sign.
    Number(i128),
    /// A number with a floating point (`d`).
    Float(f64),
    /// A string, the path of an object, or a signature.
    Text(String),
    /// An array of values (`a`).
    List(Vec<Value>),
    /// A structure, or an entry of a dictionary.
    Fields(Vec<Value>),
}

impl Value {
    /// The text; none where this is something else.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number; none where this is something else, or out of range.
    pub fn number(&self) -> Option<u64> {
        match self {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The boolean; none where this is something else.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Value::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }

    /// The values of an array or a structure; empty where this is something else.
    pub fn values(&self) -> &[Value] {
        match self {
            Value::List(values) | Value::Fields(values) => values,
            _ => &[],
        }
    }
}

/// Writes values, little end first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusWriter {
    pub(super) bytes: Vec<u8>,
}

impl BusWriter {
    pub(super) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// Writes a byte (`y`).
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Writes a number of 32 bits (`u`).
    pub fn number32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    /// Writes a number of 64 bits (`t`).
    pub fn number64(&mut self, number: u64) {
        self.align(8);
        self.bytes.extend(number.to_le_bytes());
    }

    /// Writes a boolean (`b`).
    pub fn boolean(&mut self, boolean: bool) {
        self.number32(boolean.into());
    }

    /// Writes a string (`s`) or the path of an object (`o`).
    pub fn text(&mut self, text: &str) {
        self.number32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// Writes a signature (`g`), which is shorter than 256 bytes.
    pub fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// Writes an array (`a`) of values that are aligned to so many bytes.
    pub fn array(&mut self, alignment: usize, write: impl FnOnce(&mut Self)) {
        self.number32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        write(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Writes an array of strings (`as`).
    pub fn texts<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        self.array(4, |array| {
            for text in texts {
                array.text(text);
            }
        });
    }

    /// Begins a structure or an entry of a dictionary, whose fields are written next.
    pub fn structure(&mut self) {
        self.align(8);
    }

    /// Writes a variant (`v`) that holds a value of this signature.
    pub fn variant(&mut self, signature: &str, write: impl FnOnce(&mut Self)) {
        self.signature(signature);
        write(self);
    }
}

/// Reads values from bytes that anybody may have sent.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    is_big_endian: bool,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a malformed D-Bus message: {what}"),
    )
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8], is_big_endian: bool) -> Self {
        Reader {
            bytes,
            at: 0,
            is_big_endian,
        }
    }

    /// Reads all values of a signature.
    ///
    /// # Errors
    /// The bytes do not hold such values.
    pub(super) fn values(&mut self, signature: &str) -> io::Result<Vec<Value>> {
        let mut signature = signature.as_bytes();
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (value, rest) = self.value(signature, 0)?;
            values.push(value);
            signature = rest;
        }
        Ok(values)
    }

    pub(super) fn align(&mut self, to: usize) -> io::Result<()> {
        let padding = self.at.next_multiple_of(to) - self.at;
        match self.take(padding)?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(malformed("padding that is not zero")),
        }
    }

    fn take(&mut self, length: usize) -> io::Result<&'b [u8]> {
        let end = self.at.checked_add(length);
        let found = end.and_then(|end| self.bytes.get(self.at..end));
        let found = found.ok_or_else(|| malformed("it ends too early"))?;
        self.at += length;
        Ok(found)
    }

    /// The bits of a number of this many bytes, which is aligned to its length.
    fn bits(&mut self, length: usize) -> io::Result<u64> {
        self.align(length)?;
        let mut bits = [0; 8];
        let bytes = self.take(length)?;
        if self.is_big_endian {
            bits[8 - length..].copy_from_slice(bytes);
            Ok(u64::from_be_bytes(bits))
        } else {
            bits[..length].copy_from_slice(bytes);
            Ok(u64::from_le_bytes(bits))
        }
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let bytes = self.take(length)?.to_vec();
        if self.take(1)? != [0] {
            return Err(malformed("a text without its end"));
        }
        String::from_utf8(bytes).map_err(|_| malformed("a text that is not UTF-8"))
    }

    /// Reads a value of the first type of the signature; also what follows that type in it.
    fn value<'s>(&mut self, signature: &'s [u8], depth: usize) -> io::Result<(Value, &'s [u8])> {
        if depth > MAX_DEPTH {
            return Err(malformed("too many containers in one another"));
        }
        let (&kind, rest) = signature
            .split_first()
            .ok_or_else(|| malformed("a signature that ends too early"))?;
        let value = match kind {
            b'y' => Value::Number(self.bits(1)?.into()),
            b'b' => match self.bits(4)? {
                0 => Value::Boolean(false),
                1 => Value::Boolean(true),
                _ => return Err(malformed("a boolean that is neither 0 nor 1")),
            },
            b'n' => Value::Number((self.bits(2)? as i16).into()),
            b'q' => Value::Number(self.bits(2)?.into()),
            b'i' => Value::Number((self.bits(4)? as i32).into()),
            b'u' | b'h' => Value::Number(self.bits(4)?.into()),
            b'x' => Value::Number((self.bits(8)? as i64).into()),
            b't' => Value::Number(self.bits(8)?.into()),
            b'd' => Value::Float(f64::from_bits(self.bits(8)?)),
            b's' | b'o' => {
                let length = self.bits(4)? as usize;
                Value::Text(self.text(length)?)
            }
            b'g' => {
                let length = self.bits(1)? as usize;
                Value::Text(self.text(length)?)
            }
            b'v' => {
                let length = self.bits(1)? as usize;
                let inner = self.text(length)?;
                let (value, left) = self.value(inner.as_bytes(), depth + 1)?;
                if !left.is_empty() {
                    return Err(malformed("a variant of several values"));
                }
                value
            }
            b'a' => {
                let after = after_type(rest, depth + 1)?;
                let length = self.bits(4)? as usize;
                self.align(alignment(rest.first().copied()))?;
                let end = self.at.checked_add(length);
                let end = end.filter(|end| *end <= self.bytes.len());
                let end = end.ok_or_else(|| malformed("an array that is longer than it"))?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(rest, depth + 1)?.0);
                }
                if self.at != end {
                    return Err(malformed("an array that ends within a value"));
                }
                return Ok((Value::List(values), after));
            }
            b'(' | b'{' => {
                let closing = if kind == b'(' { b')' } else { b'}' };
                self.align(8)?;
                let mut fields = Vec::new();
                let mut left = rest;
                loop {
                    match left.split_first() {
                        Some((next, after)) if *next == closing && !fields.is_empty() => {
                            return Ok((Value::Fields(fields), after));
                        }
                        _ => {
                            let (field, after) = self.value(left, depth + 1)?;
                            fields.push(field);
                            left = after;
                        }
                    }
                }
            }
            _ => return Err(malformed("a type that does not exist")),
        };
        Ok((value, rest))
    }
}

fn alignment(kind: Option<u8>) -> usize {
    match kind {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// What follows the first type of a signature.
fn after_type(signature: &[u8], depth: usize) -> io::Result<&[u8]> {
    if depth > MAX_DEPTH {
        return Err(malformed("too many containers in one another"));
    }
    match signature.split_first() {
        Some((b'a', rest)) => after_type(rest, depth + 1),
        Some((open @ (b'(' | b'{'), rest)) => {
            let closing = if *open == b'(' { b')' } else { b'}' };
            let mut left = after_type(rest, depth + 1)?;
            loop {
                match left.split_first() {
                    Some((next, after)) if *next == closing => return Ok(after),
                    _ => left = after_type(left, depth + 1)?,
                }
            }
        }
        Some((kind, rest)) if b"ybnqiuhxtdsogv".contains(kind) => Ok(rest),
        _ => Err(malformed("a signature that is wrong")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], signature: &str) -> io::Result<Vec<Value>> {
        Reader::new(bytes, false).values(signature)
    }

    #[test]
    fn value_written_is_read_back() {
        let mut writer = BusWriter::default();
        writer.byte(7);
        writer.boolean(true);
        writer.texts(["one", "two"]);
        writer.array(8, |array| {
            array.structure();
            array.text("OnActiveSec");
            array.number64(1_500_000);
        });
        writer.variant("as", |variant| variant.texts([]));
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(
            read(&writer.bytes, "ybasa(st)v").unwrap(),
            vec![
                Value::Number(7),
                Value::Boolean(true),
                Value::List(vec![text("one"), text("two")]),
                Value::List(vec![Value::Fields(vec![
                    text("OnActiveSec"),
                    Value::Number(1_500_000)
                ])]),
                Value::List(Vec::new()),
            ]
        );
    }

    #[test]
    fn value_of_other_byte_order_is_read() {
        let bytes = [0, 0, 0, 2, b'h', b'i', 0, 0, 0, 0, 0, 5];
        let values = Reader::new(&bytes, true).values("su").unwrap();
        assert_eq!(values, [Value::Text("hi".into()), Value::Number(5)]);
    }

    #[test]
    fn malformed_value_is_an_error_and_takes_no_memory() {
        let deep = "a".repeat(200) + "y";
        let structures = "(".repeat(200) + "y" + &")".repeat(200);
        let cases: [(&[u8], &str, &str); 14] = [
            (&[255, 255, 255, 255], "s", "ends too early"),
            (&[255, 255, 255, 127, 0, 0, 0, 0], "as", "longer than it"),
            (&[8, 0, 0, 0, 1, 0, 0, 0], "au", "longer than it"),
            (&[3, 0, 0, 0, 1, 0, 0, 0], "au", "ends within a value"),
            (&[1, 0, 0, 0, b'x', b'y'], "s", "without its end"),
            (&[1, 0, 0, 0, 255, 0], "s", "not UTF-8"),
            (&[2, 0, 0, 0], "b", "neither 0 nor 1"),
            (&[1, 9, 9, 9, 1, 0, 0, 0], "yu", "not zero"),
            (&[2, b'u', b'u', 0, 1, 0, 0, 0], "v", "several values"),
            (&[0, 0], "v", "ends too early"),
            (&[0; 16], "a()", "signature that is wrong"),
            (&[0; 16], "()", "does not exist"),
            (&[0; 2000], &deep, "too many containers"),
            (&[0; 2000], &structures, "too many containers"),
        ];
        for (bytes, signature, expected) in cases {
            let error = read(bytes, signature).unwrap_err().to_string();
            assert!(error.contains(expected), "{signature}: {error}");
        }
    }
}
