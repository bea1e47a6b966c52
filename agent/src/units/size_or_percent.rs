//! An amount that is given either as a size or as a percentage of a whole.

use super::Size;
use backburn_experiments::Problem;

/// What is wrong with a size and a share of which one is to be given, or neither where that means something.
pub(crate) fn check_size_or_percent(
    size: Option<Size>,
    percent: Option<f64>,
    or_neither: bool,
) -> Vec<Problem> {
    let problem = match (size, percent) {
        (Some(_), Some(_)) => {
            Problem::new("$", "both `size` and `percent` are given").hint("give one of them")
        }
        (None, None) if !or_neither => {
            Problem::new("$", "neither `size` nor `percent` is given").hint("give one of them")
        }
        (Some(Size(0)), _) => {
            Problem::new("$.size", "nothing would be taken").hint("a size above zero")
        }
        (_, Some(0.0)) => {
            Problem::new("$.percent", "nothing would be taken").hint("a share above zero")
        }
        _ => return Vec::new(),
    };
    vec![problem]
}

/// How many bytes are meant by a size or a share of a whole.
pub(crate) fn bytes_of(size: Option<Size>, percent: Option<f64>, whole: u64, neither: u64) -> u64 {
    match (size, percent) {
        (Some(size), _) => size.0,
        (None, Some(percent)) => (whole as f64 * percent / 100.0) as u64,
        (None, None) => neither,
    }
}
