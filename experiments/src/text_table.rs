//! Tables for people: a line of headers, and columns that are as wide as their widest cell on a terminal.

use crate::terminal_text::escape;
use std::borrow::Cow;
use unicode_width::UnicodeWidthStr;

/// What stands in a cell that has no content, so that each line has as many words as there are columns.
const NO_CONTENT: &str = "-";

/// Formats rows below their headers, one line each. Columns are aligned by the width that a terminal gives to characters, and two
/// spaces apart. Cells are escaped: they are text from outside, and one line each.
pub fn format_table<const N: usize>(headers: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[Cow<'_, str>; N]> = std::iter::once(headers.map(Cow::Borrowed))
        .chain(
            rows.iter()
                .map(|row| row.each_ref().map(|cell| content(cell))),
        )
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.width() + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn content(cell: &str) -> Cow<'_, str> {
    match cell.is_empty() {
        true => Cow::Borrowed(NO_CONTENT),
        false => escape(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::format_table;

    #[test]
    fn table_with_wide_characters_is_aligned_as_on_a_terminal() {
        let rows = [
            ["web-1", "", "plain"],
            ["データ", "connected", "two cells each"],
            ["e\u{301}té", "gone", "a combining mark takes none"],
        ]
        .map(|row| row.map(str::to_owned));
        let wanted = "\
NAME    STATE      TITLE
web-1   -          plain
データ  connected  two cells each
e\u{301}té     gone       a combining mark takes none
";
        assert_eq!(format_table(["NAME", "STATE", "TITLE"], &rows), wanted);
    }

    #[test]
    fn table_with_hostile_cells_is_escaped() {
        let rows = [["a\nb\u{1b}[2J".to_owned(), "c\u{202e}".to_owned()]];
        assert_eq!(
            format_table(["A", "B"], &rows),
            "A              B\na\\nb\\u001b[2J  c\\u202e\n"
        );
    }

    #[test]
    fn table_with_an_empty_last_cell_has_no_spaces_at_the_end_of_its_lines() {
        let rows = [["a long name".to_owned(), String::new()]];
        let table = format_table(["NAME", "A LONG HEADER"], &rows);
        assert!(
            table.lines().all(|line| line.trim_end() == line),
            "{table:?}"
        );
    }
}
