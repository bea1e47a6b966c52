//! Whole numbers that every client can represent and the store can keep.

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use std::fmt;

/// Largest whole number that every client can represent: many hold JSON's numbers as doubles.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

struct SafeInteger;

impl Visitor<'_> for SafeInteger {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MAX_SAFE_INTEGER}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        match number <= MAX_SAFE_INTEGER {
            true => Ok(number),
            false => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        // JSON has only one kind of number, so that 1.0 is 1.
        if number.fract() == 0.0 && (0.0..=MAX_SAFE_INTEGER as f64).contains(&number) {
            return Ok(number as u64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

/// Reads a number from 0 to [`MAX_SAFE_INTEGER`].
pub fn safe_integer<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_u64(SafeInteger)
}

/// Reads a number from 0 to [`MAX_SAFE_INTEGER`], or null.
pub fn optional_safe_integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    struct OptionalSafeInteger;
    impl<'de> Visitor<'de> for OptionalSafeInteger {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            SafeInteger.expecting(f)
        }

        fn visit_none<E: Error>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }

        fn visit_unit<E: Error>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<u64>, D::Error> {
            safe_integer(from).map(Some)
        }
    }
    from.deserialize_option(OptionalSafeInteger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_number_is_one_that_every_client_can_write() {
        let read = |value: Value| optional_safe_integer(value).ok();
        assert_eq!(read(json!(7)), Some(Some(7)));
        assert_eq!(read(json!(7.0)), Some(Some(7)));
        assert_eq!(read(json!(MAX_SAFE_INTEGER)), Some(Some(MAX_SAFE_INTEGER)));
        assert_eq!(read(json!(null)), Some(None));
        for wrong in [
            json!(-1),
            json!(7.5),
            json!(MAX_SAFE_INTEGER + 1),
            json!(u64::MAX),
            json!(1e300),
            json!("7"),
            json!([]),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
