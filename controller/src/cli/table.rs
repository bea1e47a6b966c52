//! Prints lists as tables, the same for every command.

use super::{print, print_stderr};
use backburn_experiments::text_table::format_table;

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
