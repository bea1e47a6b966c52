//! Mistakes on the command line of any program of Backburn's, in the same form as all other messages: what is wrong, and a hint.

use crate::terminal_text::escape;

/// The message for a mistake that clap has rendered without colours: its words without the usage and the advice, in back-ticks what clap has
/// in quotes, and then `hint`, or else the command that shows how it is used. Ends with a line break.
pub fn usage_message(rendered: &str, hint: Option<&str>) -> String {
    let mut what = Vec::new();
    let mut usage = None;
    for line in rendered.trim().lines() {
        let line = line.trim_end();
        if let Some(line) = line.strip_prefix("Usage: ") {
            usage = Some(line);
            break;
        }
        let is_tip = line.trim_start().starts_with("tip: ");
        if !is_tip && !line.is_empty() && !line.starts_with("For more information") {
            what.push(escape(line).replace('\'', "`"));
        }
    }
    let mut message = what.join("\n");
    if let Some(hint) = hint {
        message.push_str(&format!("\nhint: {hint}"));
    } else if let Some(usage) = usage {
        let command: Vec<&str> = usage
            .split_whitespace()
            .take_while(|word| !word.starts_with(['-', '<', '[']))
            .collect();
        let command = command.join(" ");
        message.push_str(&format!("\nhint: `{command} --help` shows how it is used"));
    } else {
        message.push_str("\nhint: `--help` shows how it is used");
    }
    message.push('\n');
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_message_has_the_mistake_and_a_hint_only() {
        let rendered = "error: unexpected argument '--al\u{202e}l' found\n\n  tip: a similar argument exists: '--all'\n\nUsage: backburn-agent revert [OPTIONS] <ID|--all>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_message(rendered, Some("did you mean `--all`?")),
            "error: unexpected argument `--al\\u202el` found\nhint: did you mean `--all`?\n"
        );
        assert_eq!(
            usage_message(rendered, None),
            "error: unexpected argument `--al\\u202el` found\nhint: `backburn-agent revert --help` shows how it is used\n"
        );
        let short = "error: a value is required for '--duration <D>' but none was supplied\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_message(short, None),
            "error: a value is required for `--duration <D>` but none was supplied\nhint: `--help` shows how it is used\n"
        );
    }
}
