//! The text of an e-mail (RFC 5322). Text from outside is only ever encoded, so that it can be neither a header nor a command.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;

/// Longest address, in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const MAX_ADDRESS_BYTES: usize = 254;
/// How many bytes of a subject go into one encoded word: a line with one has at most 76 characters (RFC 2047, section 2).
const ENCODED_WORD_BYTES: usize = 39;
/// How many characters a line of the encoded body has (RFC 2045, section 6.8).
const BODY_LINE_CHARACTERS: usize = 76;

/// An e-mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// What tells this message from all others, the same in every attempt: letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// The address of the sender.
    pub from: String,
    /// The addresses of all receivers.
    pub to: Vec<String>,
    /// When what it tells of happened.
    pub at: Timestamp,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
}

impl Mail {
    /// Who gets it, as every receiver may see: several are not told of each other.
    fn receivers(&self) -> &str {
        match self.to.as_slice() {
            [one] => one,
            _ => "undisclosed-recipients:;",
        }
    }

    /// The message as it is sent: lines of ASCII, none of which begins with a full stop.
    pub(super) fn content(&self) -> String {
        let domain = self.from.rsplit('@').next().unwrap_or_default();
        let id: String = (self.id.chars())
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            .collect();
        let body = BASE64_STANDARD.encode(self.text.replace('\n', "\r\n") + "\r\n");
        let body: Vec<&str> = (0..body.len())
            .step_by(BODY_LINE_CHARACTERS)
            .filter_map(|from| body.get(from..body.len().min(from + BODY_LINE_CHARACTERS)))
            .collect();
        let headers = [
            format!("From: {}", self.from),
            format!("To: {}", self.receivers()),
            format!("Subject: {}", encoded(&self.subject)),
            format!("Date: {}", self.at.strftime("%a, %d %b %Y %H:%M:%S +0000")),
            format!("Message-ID: <{id}@{domain}>"),
            "Auto-Submitted: auto-generated".into(),
            "MIME-Version: 1.0".into(),
            "Content-Type: text/plain; charset=utf-8".into(),
            "Content-Transfer-Encoding: base64".into(),
        ];
        format!("{}\r\n\r\n{}\r\n", headers.join("\r\n"), body.join("\r\n"))
    }
}

/// A header's text as encoded words, whatever is in it. Control characters become spaces: some readers act on what they decode.
fn encoded(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let fits = (1..=rest.len().min(ENCODED_WORD_BYTES)).rev();
        let end = fits
            .clone()
            .find(|end| rest.is_char_boundary(*end))
            .unwrap_or(rest.len());
        let (word, left) = rest.split_at(end);
        words.push(format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = left;
    }
    words.join("\r\n ")
}

/// Why this is not the plain address of a mailbox, such as `ada@example.org`; none if it is.
pub fn problem_with_address(address: &str) -> Option<&'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let Some((local, domain)) = address.split_once('@') else {
        return Some("expected an address such as `ada@example.org`");
    };
    let is_domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    match address.len() <= MAX_ADDRESS_BYTES
        && !local.is_empty()
        && local.chars().all(is_plain)
        && !domain.is_empty()
        && domain.chars().all(is_domain)
    {
        true => None,
        false => Some(
            "expected a plain address such as `ada@example.org`, in ASCII and without a name, spaces or quotes",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_has_no_header_or_line_of_what_it_tells() {
        let mail = Mail {
            id: "a\r\nBcc: <x@y>".into(),
            from: "backburn@example.org".into(),
            to: vec!["ada@example.org".into(), "bob@example.org".into()],
            at: "2026-03-01T12:30:00Z".parse().unwrap(),
            subject: "Slow\r\nBcc: mallory@example.org ".to_owned() + &"ü".repeat(60),
            text: ".\r\nQUIT\n\u{0}é".into(),
        };
        let content = mail.content();
        let (headers, body) = content.split_once("\r\n\r\n").unwrap();
        assert!(content.is_ascii() && !content.contains("mallory") && !content.contains("QUIT"));
        assert!(
            content.split("\r\n").all(|line| line.len() <= 78
                && !line.starts_with('.')
                && !line.contains(['\r', '\n'])),
            "{content}"
        );
        let names = headers.split("\r\n").filter(|line| !line.starts_with(' '));
        let names: Vec<&str> = names.map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "From",
                "To",
                "Subject",
                "Date",
                "Message-ID",
                "Auto-Submitted",
                "MIME-Version",
                "Content-Type",
                "Content-Transfer-Encoding"
            ]
        );
        assert!(
            headers.contains("Date: Sun, 01 Mar 2026 12:30:00 +0000"),
            "{headers}"
        );
        assert!(
            headers.contains("Message-ID: <aBccxy@example.org>"),
            "{headers}"
        );
        assert!(!headers.contains("bob@"), "{headers}");
        let body = BASE64_STANDARD.decode(body.replace("\r\n", "")).unwrap();
        assert_eq!(body, ".\r\r\nQUIT\r\n\u{0}é\r\n".as_bytes());
    }

    #[test]
    fn address_with_anything_but_a_mailbox_is_refused() {
        for good in ["ada@example.org", "a.b+c@x", "o'neil@mail.example.org"] {
            assert_eq!(problem_with_address(good), None, "{good}");
        }
        for bad in [
            "ada",
            "@x",
            "a@",
            "a b@x",
            "a@x\r\nDATA",
            "<a@x>",
            "Ada <a@x>",
            "a@x,b@x",
            "ä@x",
            "a@b@c",
            "a@x>",
        ] {
            assert!(problem_with_address(bad).is_some(), "{bad}");
        }
    }
}
