//! A report in Markdown, as GitHub and GitLab read it.

use super::blocks::{ReportBlock, ReportSection};
use super::plot;
use backburn_experiments::terminal_text::escape;
use std::fmt::Write;

/// The whole report as Markdown.
pub(super) fn text(title: &str, sections: &[ReportSection<'_>]) -> String {
    let mut out = format!("# {}\n", inline(title));
    // Writing to a string cannot fail.
    for (number, section) in sections.iter().enumerate() {
        write!(out, "\n## {}. {}\n", number + 1, section.title).ok();
        for block in &section.blocks {
            out.push('\n');
            write_block(&mut out, block);
        }
    }
    out
}

fn write_block(out: &mut String, block: &ReportBlock<'_>) {
    // Writing to a string cannot fail.
    match block {
        ReportBlock::Text(text) => writeln!(out, "{}", inline(text)).ok(),
        ReportBlock::Outcome(_, text) => writeln!(out, "**{}**", inline(text)).ok(),
        ReportBlock::List(lines) => {
            for line in lines {
                writeln!(out, "- {}", inline(line)).ok();
            }
            None
        }
        ReportBlock::Table { head, rows } => {
            writeln!(out, "| {} |", head.join(" | ")).ok();
            writeln!(out, "|{}", "---|".repeat(head.len())).ok();
            for row in rows {
                let cells: Vec<String> = row.cells.iter().map(|cell| inline(cell)).collect();
                writeln!(out, "| {} |", cells.join(" | ")).ok();
            }
            None
        }
        ReportBlock::Plot(shown, ..) => writeln!(
            out,
            "- **{}**: {}",
            inline(&shown.probe),
            inline(&plot::sentence(shown))
        )
        .ok(),
        ReportBlock::Code(text) => {
            writeln!(out, "```text\n{}\n```", escape(text).replace('`', "'")).ok()
        }
    };
}

/// Text from outside in one line, with everything escaped that Markdown or HTML would obey.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in escape(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '!' | '|' | '~' | '@' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    // An address must not become a link, and a line must not begin a list, a heading or a rule.
    let out = out.replace("://", "&#58;//").replace("www.", "www&#46;");
    if out.trim_start().starts_with(['-', '+', '=']) {
        return format!("\\{}", out.trim_start());
    }
    match begins_list(&out) {
        true => out.trim_start().replacen(['.', ')'], "\\.", 1),
        false => out,
    }
}

fn begins_list(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len() && (rest.starts_with(". ") || rest.starts_with(") "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_text_from_outside_is_never_markup() {
        for (text, expected) in [
            ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
            ("[a](b) | **c**", "\\[a\\](b) \\| \\*\\*c\\*\\*"),
            ("a\n# b", "a\\\\n\\# b"),
            ("- x", "\\- x"),
            ("1. x", "1\\. x"),
            ("1.5 s", "1.5 s"),
            ("see https://example.org", "see https&#58;//example.org"),
        ] {
            assert_eq!(inline(text), expected);
        }
    }
}
