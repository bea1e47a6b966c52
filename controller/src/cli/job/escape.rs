//! Text from outside within Markdown: it may neither format, nor link, nor begin a structure of the page.

use backburn_experiments::terminal_text::for_xml;

/// Text in one line of Markdown that is shown as it is.
pub(super) fn markdown_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in for_xml(text).chars() {
        match character {
            '\n' | '\r' | '\t' => safe.push(' '),
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // A reference is text, and nothing that a renderer would make a link, a mention or a cell of.
            ':' | '@' | '|' | '#' | '$' => safe.push_str(&format!("&#{};", character as u32)),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '+' | '-' | '.' | '!'
            | '~' => {
                safe.push('\\');
                safe.push(character);
            }
            character => safe.push(character),
        }
    }
    safe
}

/// A block of shell that no text in it can end.
pub(super) fn shell_block(command: &str) -> String {
    let command = for_xml(command).replace(['\n', '\r'], " ");
    let longest = command.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}sh\n{command}\n{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_text_with_markup_is_shown_as_it_is() {
        assert_eq!(
            markdown_text("a|b\n# <b>*x* [l](http://e) @me `c` $1$"),
            "a&#124;b &#35; &lt;b&gt;\\*x\\* \\[l\\]\\(http&#58;//e\\) &#64;me \\`c\\` &#36;1&#36;"
        );
        assert_eq!(markdown_text("1. a\u{0}"), "1\\. a\u{fffd}");
    }

    #[test]
    fn shell_block_is_not_ended_by_its_content() {
        assert_eq!(shell_block("run x"), "```sh\nrun x\n```\n");
        assert_eq!(shell_block("run '\n````'"), "`````sh\nrun ' ````'\n`````\n");
    }
}
