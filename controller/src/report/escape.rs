//! Text from outside within HTML and SVG.

use backburn_experiments::redact::in_html;
use backburn_experiments::terminal_text::escape;

/// Text from outside, as text: nothing in it is markup, in an element or in a quoted attribute.
pub(super) fn text(words: &str) -> String {
    in_html(&escape(words))
}
