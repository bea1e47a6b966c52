//! JUnit reports as XML: suites, cases, and what became of each.

use backburn_experiments::terminal_text::for_xml;
use std::fmt::Write as _;
use std::time::Duration;

/// One suite of a report.
#[derive(Debug, Default)]
pub(super) struct TestSuite {
    /// The name of the suite.
    pub name: String,
    /// When it began, in the format of the JUnit schema, if that is known.
    pub timestamp: Option<String>,
    /// How long all of it took, if that is known.
    pub time: Option<Duration>,
    /// What is known about all its cases, e.g. the seed of a run: names with values.
    pub properties: Vec<(&'static str, String)>,
    /// The cases, in the order in which they are listed.
    pub cases: Vec<TestCase>,
}

/// One case of a suite.
#[derive(Debug)]
pub(super) struct TestCase {
    /// The class, which tools group cases by.
    pub class: &'static str,
    /// The name of the case.
    pub name: String,
    /// What became of it.
    pub status: TestStatus,
    /// How long it took.
    pub time: Duration,
    /// When it began, in the format of the JUnit schema, if that is known.
    pub timestamp: Option<String>,
    /// What it printed; empty if nothing.
    pub output: String,
}

/// What became of a case, with the reason.
#[derive(Debug)]
pub(super) enum TestStatus {
    Passed,
    Skipped,
    Failed {
        why: String,
        /// The name of the rule that ended it, where that was one.
        rule: Option<String>,
    },
    /// The case could not be judged.
    Error(String),
}

/// A report of these suites as an XML document.
pub(super) fn document(name: &str, suites: &[TestSuite]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string does not fail.
    write_report(&mut xml, name, suites).ok();
    xml
}

/// The numbers of tests of these suites, as attributes.
fn counts(suites: &[TestSuite]) -> String {
    let cases = || suites.iter().flat_map(|suite| &suite.cases);
    let count = |is: fn(&TestStatus) -> bool| cases().filter(|case| is(&case.status)).count();
    format!(
        "tests=\"{}\" skipped=\"{}\" errors=\"{}\" failures=\"{}\"",
        cases().count(),
        count(|status| matches!(status, TestStatus::Skipped)),
        count(|status| matches!(status, TestStatus::Error(_))),
        count(|status| matches!(status, TestStatus::Failed { .. })),
    )
}

fn write_report(xml: &mut String, name: &str, suites: &[TestSuite]) -> std::fmt::Result {
    let all = counts(suites);
    writeln!(xml, "<testsuites name=\"{}\" {all}>", escaped(name))?;
    for suite in suites {
        write_suite(xml, suite)?;
    }
    xml.push_str("</testsuites>\n");
    Ok(())
}

fn write_suite(xml: &mut String, suite: &TestSuite) -> std::fmt::Result {
    let counts = counts(std::slice::from_ref(suite));
    let suite_name = escaped(&suite.name);
    write!(xml, "    <testsuite name=\"{suite_name}\" {counts}")?;
    if let Some(time) = suite.time {
        write!(xml, " time=\"{:.3}\"", time.as_secs_f64())?;
    }
    write_timestamp(xml, suite.timestamp.as_deref())?;
    xml.push_str(">\n");
    writeln!(xml, "        <properties>")?;
    for (name, value) in &suite.properties {
        let value = escaped(value);
        writeln!(
            xml,
            "            <property name=\"{name}\" value=\"{value}\"/>"
        )?;
    }
    writeln!(xml, "        </properties>")?;
    for case in &suite.cases {
        write_case(xml, case)?;
    }
    xml.push_str("    </testsuite>\n");
    Ok(())
}

fn write_case(xml: &mut String, case: &TestCase) -> std::fmt::Result {
    write!(
        xml,
        "        <testcase name=\"{}\" classname=\"{}\" time=\"{:.3}\"",
        escaped(&case.name),
        case.class,
        case.time.as_secs_f64()
    )?;
    write_timestamp(xml, case.timestamp.as_deref())?;
    if matches!(case.status, TestStatus::Passed) && case.output.is_empty() {
        xml.push_str("/>\n");
        return Ok(());
    }
    xml.push_str(">\n");
    match &case.status {
        TestStatus::Passed => {}
        TestStatus::Skipped => xml.push_str("            <skipped/>\n"),
        TestStatus::Failed { why, rule } => {
            write!(xml, "            <failure message=\"{}\"", escaped(why))?;
            if let Some(rule) = rule {
                write!(xml, " type=\"{}\"", escaped(rule))?;
            }
            xml.push_str("/>\n");
        }
        TestStatus::Error(why) => {
            writeln!(xml, "            <error message=\"{}\"/>", escaped(why))?;
        }
    }
    if !case.output.is_empty() {
        let output = escaped(&case.output);
        writeln!(xml, "            <system-out>{output}</system-out>")?;
    }
    xml.push_str("        </testcase>\n");
    Ok(())
}

fn write_timestamp(xml: &mut String, timestamp: Option<&str>) -> std::fmt::Result {
    match timestamp {
        Some(timestamp) => write!(xml, " timestamp=\"{}\"", escaped(timestamp)),
        None => Ok(()),
    }
}

/// Text that stands in an element or an attribute as it is; what XML cannot hold is replaced. A line's end is written by its number: in an
/// attribute it would be read as a blank (XML 1.0, 3.3.3).
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in for_xml(text).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\n' => safe.push_str("&#10;"),
            '\r' => safe.push_str("&#13;"),
            '\t' => safe.push_str("&#9;"),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, status: TestStatus) -> TestCase {
        TestCase {
            class: "method",
            name: name.into(),
            status,
            time: Duration::ZERO,
            timestamp: None,
            output: String::new(),
        }
    }

    #[test]
    fn report_with_each_status_counts_and_lists_them() {
        let mut passed = case("a \"quoted\" name", TestStatus::Passed);
        passed.time = Duration::from_millis(1250);
        passed.timestamp = Some("2026-11-26T08:00:00.500Z".into());
        let mut printed = case("prints", TestStatus::Passed);
        printed.output = "one\ntwo".into();
        let suite = TestSuite {
            name: "a < b".into(),
            timestamp: Some("2026-11-26T08:00:00.000Z".into()),
            time: Some(Duration::from_secs(2)),
            properties: vec![("seed", "7".into())],
            cases: vec![
                passed,
                printed,
                case("not run", TestStatus::Skipped),
                case(
                    "bad",
                    TestStatus::Failed {
                        why: "1 > 0".into(),
                        rule: Some("errors".into()),
                    },
                ),
                case("odd", TestStatus::Error("why".into())),
            ],
        };
        let wanted = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="backburn" tests="5" skipped="1" errors="1" failures="1">
    <testsuite name="a &lt; b" tests="5" skipped="1" errors="1" failures="1" time="2.000" timestamp="2026-11-26T08:00:00.000Z">
        <properties>
            <property name="seed" value="7"/>
        </properties>
        <testcase name="a &quot;quoted&quot; name" classname="method" time="1.250" timestamp="2026-11-26T08:00:00.500Z"/>
        <testcase name="prints" classname="method" time="0.000">
            <system-out>one&#10;two</system-out>
        </testcase>
        <testcase name="not run" classname="method" time="0.000">
            <skipped/>
        </testcase>
        <testcase name="bad" classname="method" time="0.000">
            <failure message="1 &gt; 0" type="errors"/>
        </testcase>
        <testcase name="odd" classname="method" time="0.000">
            <error message="why"/>
        </testcase>
    </testsuite>
</testsuites>
"#;
        assert_eq!(document("backburn", &[suite]), wanted);
    }

    #[test]
    fn escaped_text_is_read_back_as_it_was() {
        let wanted = "&lt;a b=&quot;c&quot; &amp;amp; &apos;d&apos;&gt;&#10;&#13;&#9;é";
        assert_eq!(escaped("<a b=\"c\" &amp; 'd'>\n\r\té"), wanted);
    }
}
