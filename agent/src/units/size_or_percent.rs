//! An amount that is given either as a size or as a percentage of a whole.

use super::Size;
use backburn_experiments::Problem;

/// The problems of a size and a percentage of which one must be given; with `or_neither`, neither need be.
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
            Problem::new("$.size", "nothing would be taken").hint("give a size above zero")
        }
        (_, Some(0.0)) => {
            Problem::new("$.percent", "nothing would be taken").hint("give a percentage above zero")
        }
        _ => return Vec::new(),
    };
    vec![problem]
}

/// The number of bytes that a size, or a percentage of a whole, comes to; `neither` where none of them is given.
pub(crate) fn bytes_of(size: Option<Size>, percent: Option<f64>, whole: u64, neither: u64) -> u64 {
    match (size, percent) {
        (Some(size), _) => size.0,
        (None, Some(percent)) => (whole as f64 * percent / 100.0) as u64,
        (None, None) => neither,
    }
}
