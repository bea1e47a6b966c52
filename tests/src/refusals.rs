//! Tables of what the agent refuses. Every row is tried, and the test fails at the end with all the rows that went wrong.

use crate::crash::Place;
use serde_json::Value;
use std::cell::RefCell;
use std::process::Stdio;

/// Tries rows, and fails the test when it is dropped where some went wrong.
pub struct Refusals<'a> {
    /// Where the agent keeps its ledger.
    pub place: Place,
    is_untouched: Box<dyn Fn() -> bool + 'a>,
    wrong: RefCell<Vec<String>>,
}

impl<'a> Refusals<'a> {
    /// A table after each of whose rows nothing is owed and the host is as it was.
    pub fn new(is_untouched: impl Fn() -> bool + 'a) -> Self {
        Refusals {
            place: Place::default(),
            is_untouched: Box::new(is_untouched),
            wrong: RefCell::default(),
        }
    }

    /// A row: the agent with these words exits with this code, and says each of these on standard error.
    ///
    /// # Panics
    /// The agent can't be started.
    pub fn words(&self, words: &[&str], code: i32, says: &[&str]) {
        let mut command = self.place.agent(words, None);
        let output = command
            .stderr(Stdio::piped())
            .output()
            .expect("the agent starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let mut wrong = Vec::new();
        if output.status.code() != Some(code) {
            wrong.push(format!("{}, not exit code {code}", output.status));
        }
        for part in says.iter().filter(|part| !said.contains(**part)) {
            wrong.push(format!("it does not say `{part}`"));
        }
        if !self.place.ledger().is_empty() {
            wrong.push(format!("it owes {:?}", self.place.ledger()));
        }
        if !(self.is_untouched)() {
            wrong.push("it touched the host".to_owned());
        }
        if !wrong.is_empty() {
            let row = format!("{words:?}: {}:\n    {said}", wrong.join(", "));
            self.wrong.borrow_mut().push(row);
        }
    }

    /// A row: a fault of five seconds with these arguments is refused, with a hint.
    ///
    /// # Panics
    /// The agent can't be started.
    pub fn inject(&self, fault: &str, arguments: &Value, more: &[&str], code: i32, says: &[&str]) {
        let arguments = arguments.to_string();
        let words = [
            "inject",
            fault,
            "--duration",
            "5s",
            "--arguments",
            &arguments,
        ];
        self.words(&[&words, more].concat(), code, &[says, &["hint"]].concat());
    }
}

impl Drop for Refusals<'_> {
    fn drop(&mut self) {
        let wrong = self.wrong.take();
        if !std::thread::panicking() {
            assert!(
                wrong.is_empty(),
                "{} rows went wrong:\n{}",
                wrong.len(),
                wrong.join("\n")
            );
        }
    }
}
