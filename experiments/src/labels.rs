//! Labels of agents. A **granted** label comes from a join token or from an admin of the controller; a **fact** is what an agent says about
//! its own host, under one of a closed list of names. Both select targets. Only granted labels meet the conditions of a policy or entitle an
//! agent to a secret: what an agent says of itself grants nothing.

use crate::terminal_text::is_deceptive;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// The name of the label with the address of an agent's host: the address that the agent connects from, unless an admin grants another.
/// It is never what the agent says.
pub const ADDRESS: &str = "address";

/// The names of all facts.
pub const FACTS: [&str; 10] = [
    "arch",
    "cloud",
    "host",
    "instance-type",
    "kernel",
    "kubernetes-namespace",
    "kubernetes-node",
    "kubernetes-pod",
    "os",
    "os-version",
];

/// The most labels that an agent can be granted.
pub const MAX_GRANTED_LABELS: usize = 64;
/// The longest name of a granted label, in bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 64;
/// The longest value of a granted label, in bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 256;
/// The prefix of names that are kept for Backburn's own labels.
const RESERVED_PREFIX: &str = "backburn";

/// Whether this is the name of a fact.
pub fn is_fact(name: &str) -> bool {
    FACTS.contains(&name)
}

/// The facts among what an agent says, and the names of what else it says, which counts for nothing.
pub fn facts(said: Labels) -> (Labels, Vec<String>) {
    let (facts, others): (Labels, Labels) = said.into_iter().partition(|(name, _)| is_fact(name));
    (facts, others.into_keys().collect())
}

/// Why a label cannot be granted. None if it can.
///
/// A name has letters, digits, `.`, `-`, `_` and `/`, a letter or digit first. A value is one line of printable text. The value of `address`
/// is one address that other hosts can use.
pub fn problem_with_label(name: &str, value: &str) -> Option<String> {
    let shown: String = name.chars().take(MAX_LABEL_NAME_BYTES).collect();
    let shown = shown.escape_debug();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
    let starts_well = name
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric);
    if !starts_well || name.len() > MAX_LABEL_NAME_BYTES || !name.bytes().all(allowed) {
        return Some(format!(
            "`{shown}` is not a label's name: it has 1 to {MAX_LABEL_NAME_BYTES} letters, digits, `.`, `-`, `_` and `/`, a letter or digit first"
        ));
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Some(format!(
            "label `{shown}`: names that begin with `{RESERVED_PREFIX}` are reserved"
        ));
    }
    if value.is_empty() || value.len() > MAX_LABEL_VALUE_BYTES {
        return Some(format!(
            "label `{shown}`: expected a value of 1 to {MAX_LABEL_VALUE_BYTES} bytes, got {}",
            value.len()
        ));
    }
    if value.chars().any(is_invisible) {
        return Some(format!(
            "label `{shown}`: the value has a control character or an invisible one"
        ));
    }
    (name == ADDRESS)
        .then(|| problem_with_address(value))
        .flatten()
}

/// Characters that change how the text around them is shown, or separate lines.
fn is_invisible(letter: char) -> bool {
    // Joiners are needed by scripts, and let two labels look the same.
    is_deceptive(letter) || matches!(letter, '\u{200c}' | '\u{200d}')
}

/// Why this text is not the address of another host. None if it is.
pub fn problem_with_address(text: &str) -> Option<String> {
    let wrong = |what: &str| Some(format!("address `{}`: {what}", text.escape_debug()));
    let Ok(address) = text.parse::<IpAddr>() else {
        return wrong(
            "expected one IP address such as `10.0.0.7` or `fd00::7`, not a name or a network",
        );
    };
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let is_of_no_host = matches!(address, IpAddr::V4(address) if address.octets()[0] == 0);
    if address.is_unspecified() || is_of_no_host {
        return wrong("an unspecified address names no host");
    }
    if address.is_multicast() || is_broadcast {
        return wrong("a multicast or broadcast address names many hosts");
    }
    if address.is_loopback() {
        return wrong("a loopback address names each host itself");
    }
    None
}

/// Labels from `KEY=VALUE` texts.
///
/// # Errors
/// A text is of another form; says which, with an example.
pub fn parse_labels<'t>(texts: impl IntoIterator<Item = &'t String>) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for text in texts {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            format!("label `{text}` is not of the form KEY=VALUE\nhint: for example `--label role=checkout`")
        })?;
        labels.insert(name.into(), value.into());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_names_no_single_other_host_is_refused() {
        for good in ["10.0.0.7", "fd00::7", "192.168.1.255", "2001:db8::1"] {
            assert_eq!(problem_with_label(ADDRESS, good), None, "{good}");
        }
        for bad in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "db.example.org",
            "10.0.0.7:5432",
            "10.0.0.7,10.0.0.8",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:224.0.0.1",
            "@db",
            "",
        ] {
            assert!(problem_with_label(ADDRESS, bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn label_that_is_not_plain_is_refused() {
        for good in ["role", "team.example/name", "0", "os"] {
            assert_eq!(problem_with_label(good, "a b ü"), None, "{good}");
        }
        for bad in [
            "",
            "-a",
            "a b",
            "a=b",
            "ü",
            "a\n",
            "backburn-x",
            &"n".repeat(65),
        ] {
            assert!(problem_with_label(bad, "x").is_some(), "{bad:?}");
        }
        for bad in [
            "",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{202e}b",
            "a\u{ad}b",
            "a\u{2060}b",
            "a\u{e0041}b",
            "a\u{200d}b",
            "a\u{85}",
            &"v".repeat(257),
        ] {
            assert!(problem_with_label("role", bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn words_of_an_agent_that_are_no_facts_count_for_nothing() {
        let said = [("role", "db"), ("host", "db-1"), ("address", "10.0.0.0/8")];
        let said = said.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (facts, others) = facts(said.into());
        assert_eq!(facts, [("host".to_owned(), "db-1".to_owned())].into());
        assert_eq!(others, ["address", "role"]);
    }
}
