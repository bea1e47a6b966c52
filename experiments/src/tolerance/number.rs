//! What counts as a number: JSON's numbers, and text that is one.

use serde_json::{Number, Value};
use std::cmp::Ordering;

/// A finite number, whole ones exactly.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numeric {
    Whole(i128),
    Real(f64),
}

impl Numeric {
    /// The number that a value is. Text counts where it is nothing but a decimal number, with
    /// white space around it at the most; `5ms`, `inf` and `nan` are none.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Self::of_number(number),
            Value::String(text) => Self::of_text(text.trim()),
            _ => None,
        }
    }

    fn of_number(number: &Number) -> Option<Self> {
        let whole = number.as_i64().map(i128::from);
        match whole.or_else(|| number.as_u64().map(i128::from)) {
            Some(whole) => Some(Numeric::Whole(whole)),
            None => number.as_f64().map(Numeric::Real),
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let is_decimal = text.contains(|c: char| c.is_ascii_digit())
            && text
                .chars()
                .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
        if !is_decimal {
            return None;
        }
        match text.parse::<i128>() {
            Ok(whole) => Some(Numeric::Whole(whole)),
            Err(_) => {
                let real = text.parse::<f64>().ok();
                real.filter(|real| real.is_finite()).map(Numeric::Real)
            }
        }
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Numeric::Whole(whole) => whole as f64,
            Numeric::Real(real) => real,
        }
    }

    pub(super) fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Numeric::Whole(a), Numeric::Whole(b)) => a.cmp(&b),
            // Neither is NaN, which JSON does not have and `of_text` refuses.
            (a, b) => {
                let order = a.as_f64().partial_cmp(&b.as_f64());
                order.unwrap_or(Ordering::Equal)
            }
        }
    }
}
