//! The page: its files, the session of a browser, and what other sites can do with it.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::local_page::LocalPage;
use backburn::store::{Role, Store as _};
use jiff::Timestamp;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use support::api::{TestController, TestToken};

/// What the page sends with each request.
const PAGE: (&str, &str) = ("x-backburn-page", "1");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Signs in: the cookie as a browser sends it back.
async fn signed_in(controller: &TestController, token: &TestToken) -> String {
    let bearer = format!("Bearer {}", token.text);
    let answer = controller
        .send(
            "POST",
            "/api/v1/session",
            &[("authorization", &bearer), JSON],
        )
        .await;
    assert_eq!(answer.status(), 201);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    for attribute in [
        "__Host-backburn=",
        "; Path=/;",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Strict",
    ] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(
        !cookie.contains(token.text.split('.').nth(2).unwrap()),
        "{cookie}"
    );
    cookie.split(';').next().unwrap().to_owned()
}

async fn status(
    controller: &TestController,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> u16 {
    controller
        .send(method, path, headers)
        .await
        .status()
        .as_u16()
}

#[tokio::test]
async fn session_cookie_is_good_until_its_token_is_revoked() {
    let controller = TestController::new();
    let token = controller.token("ada", Role::Operator);
    let cookie = signed_in(&controller, &token).await;
    let get = async |cookie: &str| {
        status(&controller, "GET", "/api/v1/session", &[("cookie", cookie)]).await
    };
    assert_eq!(get(&cookie).await, 200);
    assert_eq!(get(&format!("theme=dark; {cookie}; x=y")).await, 200);
    // One that was altered: another end, another token, another signature, nothing.
    let other = controller.token("bob", Role::Admin);
    let [name, parts] = [
        cookie.split('=').next().unwrap(),
        cookie.split_once('=').unwrap().1,
    ];
    let parts: Vec<&str> = parts.splitn(3, '.').collect();
    let later = (parts[1].parse::<i64>().unwrap() + 1).to_string();
    for forged in [
        format!("{name}={}.{later}.{}", parts[0], parts[2]),
        format!("{name}={}.{}.{}", other.id, parts[1], parts[2]),
        format!("{name}={}.{}.{}", parts[0], parts[1], &parts[2][1..]),
        format!("{name}={}.{}.", parts[0], parts[1]),
        format!("{name}={}", parts[0]),
        format!("{name}="),
        format!("{name}={}", token.text),
    ] {
        assert_eq!(get(&forged).await, 401, "{forged}");
    }
    // A session does not make another one: it would never end.
    let renewed = controller
        .send(
            "POST",
            "/api/v1/session",
            &[("cookie", &cookie), PAGE, JSON],
        )
        .await;
    assert_eq!(renewed.status(), 400);
    assert_eq!(controller.audited("sign in").len(), 1);
    controller
        .store
        .revoke_api_token(&token.id, Timestamp::now())
        .unwrap();
    assert_eq!(get(&cookie).await, 401);
}

#[tokio::test]
async fn session_of_an_expired_token_does_not_outlive_it() {
    let controller = TestController::new();
    let soon = Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    let token = controller.token_with("ada", Role::Viewer, |kept| kept.expires = Some(soon));
    let cookie = signed_in(&controller, &token).await;
    let end = cookie.split('.').nth(1).unwrap();
    assert_eq!(end.parse::<i64>().unwrap(), soon.as_second());
}

#[tokio::test]
async fn session_request_of_another_site_is_refused() {
    let controller = TestController::new();
    let token = controller.token("ada", Role::Operator);
    let cookie = signed_in(&controller, &token).await;
    let cookie = ("cookie", cookie.as_str());
    let host = ("host", "chaos.example.org");
    let halt =
        async |headers: &[(&str, &str)]| status(&controller, "POST", "/api/v1/halt", headers).await;
    let foreign = ("origin", "https://evil.example.org");
    let own = ("origin", "https://chaos.example.org");
    assert_eq!(halt(&[cookie, JSON, host]).await, 403);
    assert_eq!(halt(&[cookie, JSON, host, PAGE, foreign]).await, 403);
    for from in ["cross-site", "same-site", "none"] {
        assert_eq!(
            halt(&[cookie, JSON, host, PAGE, ("sec-fetch-site", from)]).await,
            403,
            "{from}"
        );
    }
    let read = async |from: &str| {
        status(
            &controller,
            "GET",
            "/api/v1/runs",
            &[cookie, ("sec-fetch-site", from)],
        )
        .await
    };
    assert_eq!(
        [read("cross-site").await, read("same-site").await],
        [403, 403]
    );
    assert!(controller.service.halted().is_none());
    assert_eq!([read("same-origin").await, read("none").await], [200, 200]);
    assert_eq!(halt(&[cookie, JSON, host, PAGE, own]).await, 200);
    assert!(controller.service.halted().is_some());
    // A token needs none of this: no browser sends one by itself.
    let bearer = format!("Bearer {}", token.text);
    assert_eq!(
        halt(&[("authorization", &bearer), JSON, foreign]).await,
        200
    );
}

#[tokio::test]
async fn page_files_have_a_strict_policy_and_are_sent_once() {
    let controller = TestController::new();
    for path in ["/", "/assets/app.js", "/assets/style.css"] {
        let answer = controller.send("GET", path, &[]).await;
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        let etag = header("etag");
        let again = [("if-none-match", etag.as_str())];
        assert_eq!(
            status(&controller, "GET", path, &again).await,
            304,
            "{path}"
        );
    }
    for path in [
        "/assets/nothing.js",
        "/assets/..%2fmod.rs",
        "/assets/",
        "/index.html",
    ] {
        assert_eq!(status(&controller, "GET", path, &[]).await, 404, "{path}");
    }
}

/// Asks the page of a local run, with these lines in the head. The whole answer.
fn ask(page: &LocalPage, request: &str, lines: &str) -> String {
    let url = page.url();
    let address = url.trim_start_matches("http://").split('/').next().unwrap();
    let host = match lines.contains("host: ") {
        true => String::new(),
        false => format!("host: {address}\r\n"),
    };
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: 0\r\n{lines}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn local_page_address_is_good_once_and_for_its_own_host() {
    let page = LocalPage::start().unwrap();
    let url = page.url();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let token = url.split_once("#token=").unwrap().1;
    let bearer = format!("authorization: Bearer {token}\r\n");
    let get = |lines: &str| ask(&page, "GET /api/v1/runs", lines);
    assert!(get("").contains(" 401 "));
    assert!(
        get(&bearer).contains(" 401 "),
        "the secret is for a browser's cookie only"
    );
    let sign_in = |lines: &str| ask(&page, "POST /api/v1/session", lines);
    assert!(sign_in("authorization: Bearer x\r\n").contains(" 401 "));
    let foreign = format!("{bearer}host: evil.example.org\r\n");
    assert!(sign_in(&foreign).contains(" 421 "));
    let answer = sign_in(&bearer);
    assert!(answer.contains(" 201 "), "{answer}");
    let cookie = answer
        .lines()
        .find(|line| line.starts_with("set-cookie: "))
        .unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie
        .trim_start_matches("set-cookie: ")
        .split(';')
        .next()
        .unwrap();
    let cookie = format!("cookie: {cookie}\r\n");
    assert!(get(&cookie).contains(" 200 "));
    assert!(get(&format!("{cookie}sec-fetch-site: cross-site\r\n")).contains(" 403 "));
    assert!(ask(&page, "POST /api/v1/halt", &cookie).contains(" 403 "));
    assert!(
        ask(
            &page,
            "POST /api/v1/halt",
            &format!("{cookie}x-backburn-page: 1\r\n")
        )
        .contains(" 200 ")
    );
    assert!(
        sign_in(&bearer).contains(" 401 "),
        "the address is good once"
    );
}
