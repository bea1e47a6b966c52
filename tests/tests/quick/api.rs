//! The controller's HTTP API: who may what, on every route; what is wrong, in one shape; and pages.

use backburn_tests::api::{Controller, experiment};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An operation: method, path, the least role (none: no token is wanted), a body, and the status when it is let in.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    u16,
);

/// Every operation. Whoever makes a new one says here who may use it.
const OPERATIONS: [Row; 84] = [
    ("get", "/healthz", "", None, 200),
    ("get", "/readyz", "", None, 200),
    ("get", "/metrics", "viewer", None, 200),
    ("get", "/api/v1/faults", "viewer", None, 200),
    ("get", "/api/v1/audit", "admin", None, 200),
    ("get", "/api/v1/audit/chain", "admin", None, 200),
    ("get", "/api/v1/experiments", "viewer", None, 200),
    ("get", "/api/v1/experiments/{name}", "viewer", None, 404),
    (
        "put",
        "/api/v1/experiments/{name}",
        "operator",
        Some("{}"),
        422,
    ),
    (
        "delete",
        "/api/v1/experiments/{name}",
        "operator",
        None,
        404,
    ),
    (
        "get",
        "/api/v1/experiments/{name}/versions",
        "viewer",
        None,
        404,
    ),
    (
        "post",
        "/api/v1/experiments/{name}/plan",
        "viewer",
        Some("{}"),
        404,
    ),
    (
        "post",
        "/api/v1/experiments/{name}/runs",
        "operator",
        Some("{}"),
        404,
    ),
    ("get", "/api/v1/runs", "viewer", None, 200),
    (
        "post",
        "/api/v1/runs",
        "operator",
        Some(r#"{"experiment": "{}"}"#),
        422,
    ),
    (
        "post",
        "/api/v1/plans",
        "operator",
        Some(r#"{"experiment": "{}"}"#),
        422,
    ),
    ("get", "/api/v1/runs/{run}", "viewer", None, 404),
    ("get", "/api/v1/runs/{run}/events", "viewer", None, 404),
    ("get", "/api/v1/runs/{run}/condensed", "viewer", None, 404),
    ("get", "/api/v1/runs/{run}/notes", "viewer", None, 404),
    ("get", "/api/v1/runs/{run}/report", "viewer", None, 404),
    ("get", "/api/v1/coverage", "viewer", None, 200),
    ("get", "/api/v1/coverage/badge", "viewer", None, 400),
    ("get", "/api/v1/actions", "viewer", None, 200),
    (
        "post",
        "/api/v1/actions",
        "operator",
        Some(r#"{"title": "", "owner": ""}"#),
        422,
    ),
    ("get", "/api/v1/actions/{action}", "viewer", None, 404),
    (
        "patch",
        "/api/v1/actions/{action}",
        "operator",
        Some("{}"),
        404,
    ),
    (
        "post",
        "/api/v1/actions/{action}/close",
        "operator",
        Some("{}"),
        404,
    ),
    ("get", "/api/v1/runs/{run}/trace", "viewer", None, 404),
    ("get", "/api/v1/runs/{run}/stream", "viewer", None, 404),
    (
        "post",
        "/api/v1/runs/{run}/stop",
        "operator",
        Some("{}"),
        404,
    ),
    ("get", "/api/v1/approvals", "viewer", None, 200),
    ("get", "/api/v1/approvals/{id}", "viewer", None, 404),
    ("post", "/api/v1/approvals/{id}", "operator", None, 404),
    (
        "post",
        "/api/v1/approvals/{id}/reject",
        "operator",
        Some("{}"),
        404,
    ),
    (
        "post",
        "/api/v1/approvals/{id}/withdraw",
        "operator",
        None,
        404,
    ),
    (
        "post",
        "/api/v1/runs/{run}/notes",
        "operator",
        Some(r#"{"kind": "note", "text": "x"}"#),
        404,
    ),
    (
        "get",
        "/api/v1/runs/{run}/notes/stream",
        "viewer",
        None,
        404,
    ),
    ("get", "/api/v1/game-day-documents", "viewer", None, 200),
    (
        "get",
        "/api/v1/game-day-documents/{name}",
        "viewer",
        None,
        404,
    ),
    (
        "put",
        "/api/v1/game-day-documents/{name}",
        "operator",
        Some("{}"),
        422,
    ),
    (
        "delete",
        "/api/v1/game-day-documents/{name}",
        "operator",
        None,
        404,
    ),
    (
        "get",
        "/api/v1/game-day-documents/{name}/versions",
        "viewer",
        None,
        404,
    ),
    ("get", "/api/v1/game-days", "viewer", None, 200),
    ("post", "/api/v1/game-days", "operator", Some("{}"), 422),
    ("get", "/api/v1/game-days/{id}", "viewer", None, 404),
    ("post", "/api/v1/game-days/{id}/next", "operator", None, 404),
    (
        "post",
        "/api/v1/game-days/{id}/pause",
        "operator",
        Some("{}"),
        404,
    ),
    (
        "post",
        "/api/v1/game-days/{id}/resume",
        "operator",
        None,
        404,
    ),
    (
        "post",
        "/api/v1/game-days/{id}/stop",
        "operator",
        Some("{}"),
        404,
    ),
    (
        "post",
        "/api/v1/game-days/{id}/reveal",
        "operator",
        Some("{}"),
        404,
    ),
    ("get", "/api/v1/game-days/{id}/notes", "viewer", None, 404),
    ("get", "/api/v1/game-days/{id}/report", "viewer", None, 404),
    (
        "post",
        "/api/v1/game-days/{id}/notes",
        "operator",
        Some(r#"{"kind": "note", "text": "x"}"#),
        404,
    ),
    (
        "get",
        "/api/v1/game-days/{id}/notes/stream",
        "viewer",
        None,
        404,
    ),
    ("get", "/api/v1/schedules", "viewer", None, 200),
    (
        "post",
        "/api/v1/schedules/{name}/pause",
        "operator",
        Some("{}"),
        404,
    ),
    (
        "post",
        "/api/v1/schedules/{name}/resume",
        "operator",
        None,
        404,
    ),
    ("get", "/api/v1/halt", "viewer", None, 200),
    ("post", "/api/v1/halt", "operator", Some("{}"), 200),
    ("delete", "/api/v1/halt", "operator", None, 200),
    ("get", "/api/v1/agents", "viewer", None, 200),
    ("get", "/api/v1/agents/{name}", "viewer", None, 404),
    ("delete", "/api/v1/agents/{name}", "admin", None, 404),
    (
        "patch",
        "/api/v1/agents/{name}/labels",
        "admin",
        Some("{}"),
        404,
    ),
    ("get", "/api/v1/agents/{name}/faults", "viewer", None, 404),
    (
        "get",
        "/api/v1/agents/{name}/suggestions",
        "operator",
        None,
        404,
    ),
    ("get", "/api/v1/agents/{name}/doctor", "viewer", None, 404),
    ("get", "/api/v1/join-tokens", "admin", None, 200),
    ("post", "/api/v1/join-tokens", "admin", Some("{}"), 201),
    ("delete", "/api/v1/join-tokens/{id}", "admin", None, 404),
    ("get", "/api/v1/tokens", "admin", None, 200),
    (
        "post",
        "/api/v1/tokens",
        "admin",
        Some(r#"{"name": "x", "role": "viewer"}"#),
        201,
    ),
    ("delete", "/api/v1/tokens/{id}", "admin", None, 404),
    ("delete", "/api/v1/people/{name}", "admin", None, 404),
    ("post", "/api/v1/login/device", "", Some("{}"), 404),
    ("post", "/api/v1/login/device/{id}", "", Some("{}"), 404),
    (
        "post",
        "/api/v1/login/page",
        "",
        Some(r#"{"redirect-uri": "https://page.example.org/"}"#),
        404,
    ),
    (
        "post",
        "/api/v1/login/code",
        "",
        Some(r#"{"state": "x", "code": "x"}"#),
        404,
    ),
    ("delete", "/api/v1/login", "viewer", None, 409),
    ("get", "/api/v1/session", "viewer", None, 200),
    ("post", "/api/v1/session", "viewer", None, 201),
    ("delete", "/api/v1/session", "viewer", None, 204),
    ("get", "/api/v1/settings", "viewer", None, 200),
];

const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// A path whose parts are filled in with what is nowhere.
fn filled(path: &str) -> String {
    ["{name}", "{run}", "{id}"]
        .iter()
        .fold(path.to_owned(), |path, part| path.replace(part, "nowhere"))
}

#[test]
fn operations_require_the_role_they_describe() {
    let controller = Controller::default();
    let description = controller.get("/api/v1/openapi.json");
    let mut described = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (path, item) in description["paths"].as_object().expect("an object") {
        for (method, operation) in item.as_object().expect("an object") {
            let role = operation.pointer("/security/0/token/0");
            let role = role.and_then(Value::as_str).unwrap_or_default().to_owned();
            described.insert((method.clone(), path.clone()), role);
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "two are called {name}");
        }
    }
    let table = OPERATIONS
        .map(|(method, path, role, ..)| ((method.to_owned(), path.to_owned()), role.to_owned()));
    assert_eq!(described, BTreeMap::from(table));

    let tokens: BTreeMap<&str, String> = ROLES
        .map(|role| (role, controller.token(role, role, None).1))
        .into();
    let (id, revoked) = controller.token("gone", "admin", None);
    let gone = controller.ask(
        "DELETE",
        &format!("/api/v1/tokens/{id}"),
        &controller.admin,
        None,
    );
    assert_eq!(gone.status, 204);
    let (_, expired) = controller.token("old", "admin", Some("0s"));
    let other = tokens["admin"].split('.').collect::<Vec<_>>();
    let forged = [other[0], other[1], &"0".repeat(64), other[3]].join(".");
    let strangers = ["", "nonsense", &revoked, &expired, &forged];
    for (method, path, least, body, status) in OPERATIONS {
        let (method, path) = (method.to_uppercase(), filled(path));
        let body: Option<Value> = body.map(|body| serde_json::from_str(body).expect("JSON"));
        for token in strangers {
            let answer = controller.ask(&method, &path, token, body.as_ref());
            if least.is_empty() {
                assert_eq!(answer.status, status, "{method} {path}");
                continue;
            }
            answer.problem(401);
            assert!(answer.header("www-authenticate").is_some());
        }
        for (rank, role) in ROLES.iter().enumerate() {
            let answer = controller.ask(&method, &path, &tokens[role], body.as_ref());
            let least = ROLES.iter().position(|role| *role == least).unwrap_or(0);
            if rank < least {
                let problem = answer.problem(403);
                assert_eq!(problem["type"], "urn:backburn:problem:role");
            } else {
                let what = format!("{method} {path} as {role}: {}", answer.text());
                assert_eq!(answer.status, status, "{what}");
                if status >= 400 {
                    answer.problem(status);
                }
            }
        }
    }
}

#[test]
fn wrong_request_is_answered_with_a_problem_document() {
    let controller = Controller::default();
    let admin = controller.admin.clone();
    let ask =
        |method: &str, path: &str, body: Option<&Value>| controller.ask(method, path, &admin, body);
    ask("GET", "/nowhere", None).problem(404);
    ask("GET", "/api/v1/agents/%2e%2e%2fx", None).problem(404);
    ask("GET", "/api/v1/agents/%ff%fe", None).problem(400);
    ask("PUT", "/api/v1/experiments/a%20b", Some(&experiment("x"))).problem(400);
    ask(
        "PUT",
        &format!("/api/v1/experiments/{}", "a".repeat(65)),
        Some(&experiment("x")),
    )
    .problem(400);
    let refused = ask("PATCH", "/api/v1/halt", None);
    refused.problem(405);
    let allowed = refused.header("allow").expect("it says which").to_owned();
    assert!(
        ["GET", "POST", "DELETE"]
            .iter()
            .all(|method| allowed.contains(method)),
        "{allowed}"
    );
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=-1",
        "after=-1",
        "after=99999999999999999999",
        "after=9007199254740992",
    ] {
        ask("GET", &format!("/api/v1/audit?{query}"), None).problem(400);
    }
    for query in ["outcome=great", "open=maybe", "limit=0"] {
        ask("GET", &format!("/api/v1/runs?{query}"), None).problem(400);
    }
    ask("GET", "/api/v1/schedules?count=0", None).problem(400);
    ask(
        "GET",
        "/api/v1/experiments/x?version=18446744073709551615",
        None,
    )
    .problem(400);
    ask(
        "GET",
        "/api/v1/experiments/x?version=9007199254740991",
        None,
    )
    .problem(404);
    for body in [
        json!([]),
        json!([null, null]),
        json!("x"),
        json!(null),
        json!({"nonsense": 1}),
    ] {
        ask("POST", "/api/v1/join-tokens", Some(&body)).problem(400);
    }
    for wanted in [
        json!({"name": "x", "role": "king"}),
        json!({"name": "a b", "role": "admin"}),
        json!({"name": "", "role": "admin"}),
        json!({"name": "x", "role": "admin", "lasts": "soon"}),
        json!({"name": "x", "role": "admin", "lasts": "-1s"}),
        json!({"name": "x", "role": "admin", "lasts": "1e300"}),
        json!({"role": "admin"}),
    ] {
        ask("POST", "/api/v1/tokens", Some(&wanted)).problem(400);
    }
    // What no client would write.
    let raw = |head: &str, body: &[u8]| {
        let mut connection = controller.connect();
        let length = body.len();
        let head = format!(
            "{head}host: localhost\r\nauthorization: Bearer {admin}\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.send(head.as_bytes());
        connection.send(body);
        connection.answer(false).expect("an answer")
    };
    let post = "POST /api/v1/halt HTTP/1.1\r\n";
    let kind = "content-type: application/json\r\n";
    raw(post, b"{}").problem(415);
    raw(&format!("{post}content-type: text/plain\r\n"), b"{}").problem(415);
    for body in [&b"{"[..], b"", b"\xff\xfe", b"{} {}", &b"[".repeat(10_000)] {
        raw(&format!("{post}{kind}"), body).problem(400);
    }
    let long = vec![b' '; (1 << 20) + 1];
    raw(&format!("{post}{kind}"), &long).problem(413);
    let put = "PUT /api/v1/experiments/x HTTP/1.1\r\n";
    raw(&format!("{put}{kind}"), &long).problem(413);
    assert_eq!(controller.get("/api/v1/halt")["halted"], false);
}

#[test]
fn pages_of_a_list_give_each_item_once() {
    let controller = Controller::default();
    let mut wanted = Vec::new();
    for number in 0..7 {
        let name = format!("e{number}");
        controller.ran(&name);
        wanted.push(name);
    }
    for limit in [1, 2, 3, 7, 1000] {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = controller.get(&format!("/api/v1/experiments?limit={limit}{after}"));
            let page = page.as_array().expect("a list");
            assert!(page.len() <= limit);
            let found = page
                .iter()
                .map(|one| one["name"].as_str().expect("a name").to_owned());
            names.extend(found);
            let Some(last) = names.last().filter(|_| !page.is_empty()) else {
                break;
            };
            after = format!("&after={last}");
        }
        assert_eq!(names, wanted);
        let (mut runs, mut before) = (Vec::new(), String::new());
        loop {
            let page = controller.get(&format!("/api/v1/runs?limit={limit}{before}"));
            let page = page.as_array().expect("a list").clone();
            runs.extend(
                page.iter()
                    .map(|run| run["id"].as_str().expect("an id").to_owned()),
            );
            let Some(last) = runs.last().filter(|_| !page.is_empty()) else {
                break;
            };
            before = format!("&before={last}");
        }
        assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 7);
        assert_eq!(runs.len(), 7);
    }
    let whole = controller.get("/api/v1/audit?limit=1000");
    let whole = whole.as_array().expect("a list");
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = controller.get(&format!("/api/v1/audit?limit=3&after={after}"));
        let page = page.as_array().expect("a list").clone();
        let Some(last) = page.last() else { break };
        after = last["number"].as_u64().expect("a number");
        entries.extend(page);
    }
    assert_eq!(&entries, whole);
    assert!(entries.len() >= 14, "each was put, and each was run");
}
