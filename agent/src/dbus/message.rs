//! Messages of D-Bus: a call as it is sent, and what is received.

use super::value::{BusWriter, Reader, Value};
use std::io;

/// The longest message that is taken, in bytes: all properties of a unit are some ten thousand.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The part of a message by which its length is known.
pub(super) const FIXED_BYTES: usize = 16;

// Kinds of messages, and fields of their headers.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// A call of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'c> {
    /// The name of the program that is called.
    pub destination: &'c str,
    /// The path of the object.
    pub path: &'c str,
    /// The interface that the method is of.
    pub interface: &'c str,
    /// The name of the method.
    pub member: &'c str,
    /// The signature of the arguments.
    pub signature: &'c str,
    /// The arguments, as the signature says.
    pub arguments: BusWriter,
}

impl Call<'_> {
    /// The message with this number.
    pub(super) fn to_bytes(&self, serial: u32) -> Vec<u8> {
        let mut message = BusWriter::default();
        for byte in [b'l', METHOD_CALL, 0, 1] {
            message.byte(byte);
        }
        message.number32(self.arguments.bytes.len() as u32);
        message.number32(serial);
        message.array(8, |fields| {
            let texts = [
                (FIELD_PATH, "o", self.path),
                (FIELD_DESTINATION, "s", self.destination),
                (FIELD_INTERFACE, "s", self.interface),
                (FIELD_MEMBER, "s", self.member),
            ];
            for (field, kind, text) in texts {
                fields.structure();
                fields.byte(field);
                fields.variant(kind, |field| field.text(text));
            }
            if !self.signature.is_empty() {
                fields.structure();
                fields.byte(FIELD_SIGNATURE);
                fields.variant("g", |field| field.signature(self.signature));
            }
        });
        message.align(8);
        message.bytes.extend(&self.arguments.bytes);
        message.bytes
    }
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Received {
    /// The answer to a call of this number.
    Answer(u32, Vec<Value>),
    /// The refusal of a call of this number: the error's name and its text.
    Refusal(u32, String, String),
    /// Something that was not asked for.
    Other,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a malformed D-Bus message: {what}"),
    )
}

fn is_big_endian(fixed: &[u8; FIXED_BYTES]) -> io::Result<bool> {
    match fixed[0] {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(malformed("an unknown byte order")),
    }
}

/// How many bytes follow the fixed part of a message.
///
/// # Errors
/// It is no message, or too long a one.
pub(super) fn length_after(fixed: &[u8; FIXED_BYTES]) -> io::Result<usize> {
    let is_big = is_big_endian(fixed)?;
    if fixed[3] != 1 {
        return Err(malformed("an unknown version of the protocol"));
    }
    let number = |at: usize| {
        let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        match is_big {
            true => u32::from_be_bytes(bytes) as usize,
            false => u32::from_le_bytes(bytes) as usize,
        }
    };
    let (body, fields) = (number(4), number(12));
    let length = fields.next_multiple_of(8).saturating_add(body);
    match length <= MAX_MESSAGE_BYTES {
        true => Ok(length),
        false => Err(malformed("it is too long")),
    }
}

/// Reads a message from its fixed part and the rest.
///
/// # Errors
/// The message is malformed.
pub(super) fn read(fixed: &[u8; FIXED_BYTES], rest: &[u8]) -> io::Result<Received> {
    let bytes = [fixed.as_slice(), rest].concat();
    let is_big = is_big_endian(fixed)?;
    let mut reader = Reader::new(&bytes, is_big);
    let header = reader.values("yyyyuua(yv)")?;
    let field = |wanted: u8| {
        let mut fields = header.get(6).map(Value::values).unwrap_or_default().iter();
        fields.find_map(|field| match field.values() {
            [code, value] if code.number() == Some(wanted.into()) => Some(value),
            _ => None,
        })
    };
    let reply = field(FIELD_REPLY_SERIAL).and_then(Value::number);
    let Some(reply) = reply.and_then(|reply| u32::try_from(reply).ok()) else {
        return Ok(Received::Other);
    };
    if ![METHOD_RETURN, ERROR].contains(&fixed[1]) {
        return Ok(Received::Other);
    }
    reader.align(8)?;
    let signature = field(FIELD_SIGNATURE).and_then(Value::text);
    let body = reader.values(signature.unwrap_or_default())?;
    if fixed[1] == METHOD_RETURN {
        return Ok(Received::Answer(reply, body));
    }
    let name = field(FIELD_ERROR_NAME).and_then(Value::text);
    let text = body.first().and_then(Value::text).unwrap_or_default();
    Ok(Received::Refusal(
        reply,
        name.unwrap_or("an error without a name").to_owned(),
        text.to_owned(),
    ))
}
