//! Prints lists as tables, the same for every command.

use super::{print, print_stderr};
use backburn_experiments::text_table::format_table;

/// A time of the controller's API for people: to the second. Text that is not a time stays as it is.
pub(super) fn to_the_second(time: &str) -> String {
    let parsed: Result<jiff::Timestamp, _> = time.parse();
    parsed.map_or_else(
        |_| time.to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// Prints rows below their headers to stdout. If there are none, stdout stays empty, and `empty` says on stderr what the list has
/// none of.
pub(super) fn print_table<const N: usize>(
    headers: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    match rows.is_empty() {
        true => print_stderr(&format!("{empty}\n")),
        false => print(&format_table(headers, &rows)),
    }
}
