//! Tests of redaction.

use super::*;
use serde_json::json;

#[test]
fn a_secret_is_replaced_wherever_it_stands() {
    let secrets = [
        json!("hunter2"),
        json!(4711),
        json!("a\"b\nc"),
        json!({"deep": ["hunter2hunter2"]}),
        json!(""),
    ];
    let redactor = Redactor::new(&secrets);
    assert_eq!(
        redactor.text("x-hunter2-y 4711 port=4711, 47110"),
        "x-***-y *** port=***, 47110"
    );
    assert_eq!(redactor.text("hunter2hunter2"), "***");
    let line = json!({"k": "a\"b\nc"}).to_string();
    assert_eq!(redactor.text(&line), "{\"k\":\"***\"}");
    assert_eq!(
        redactor.text(&json!(line).to_string()),
        "\"{\\\"k\\\":\\\"***\\\"}\""
    );
    assert_eq!(
        redactor.value(json!({"hunter2": [4711, 47110, "hunter2!", true, null]})),
        json!({"***": ["***", 47110, "***!", true, null]})
    );
    assert!(matches!(redactor.text("nothing"), Cow::Borrowed(_)));
    assert!(!format!("{redactor:?}").contains("hunter2"));
}

#[test]
fn secret_in_another_encoding_is_replaced() {
    let secret = "pass w/rd+é&\"x";
    let redactor = Redactor::new(&[json!(secret)]);
    for within in ["", "a", "ab", "user:"] {
        let text = format!("{within}{secret}{within}");
        let standard = BASE64_STANDARD.encode(text);
        let url = standard.replace('+', "-").replace('/', "_");
        let unpadded = url.trim_end_matches('=');
        for encoded in [&standard, &url, unpadded] {
            let shown = redactor
                .text(&format!("Basic {encoded}, and more"))
                .into_owned();
            assert_eq!(shown, "Basic ***, and more", "{within:?} {encoded}");
        }
    }
    let strict: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let lower = strict.to_lowercase();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    for encoded in [
        "pass%20w%2Frd%2B%C3%A9%26%22x",
        "pass+w%2frd%2B%c3%a9%26%22x",
        "pass%20w/rd+%C3%A9&%22x",
        strict.as_str(),
        lower.as_str(),
        "pass w\\/rd+é&\\\"x",
        "pass w/rd+\\u00e9&\\\"x",
        "pass w/rd+é&amp;&quot;x",
        hex.as_str(),
        hex.to_uppercase().as_str(),
    ] {
        let shown = redactor.text(&format!("?q={encoded};")).into_owned();
        assert_eq!(shown, "?q=***;", "{encoded}");
    }
    // Text without the secret stays, whatever it is encoded in.
    for other in ["100% of é", "cGFzcyB3", "a+b%20c", "%zz%"] {
        assert_eq!(redactor.text(other), other);
    }
}

#[test]
fn value_hidden_in_errors_is_replaced_there_as_a_word() {
    let redactor = Redactor::new(&[json!("hunter2")]).hiding_in_errors(&[
        json!("db"),
        json!(8080),
        json!("a \"b\""),
    ]);
    let text = "`db` of dbs at db:8080: hunter2 a \"b\"";
    assert_eq!(redactor.text(text), "`db` of dbs at db:8080: *** a \"b\"");
    assert_eq!(
        redactor.errors().text(text),
        "`***` of dbs at ***:***: *** ***"
    );
}
