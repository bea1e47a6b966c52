//! Log-in with OpenID Connect, against a provider of the test's own: a few answers over HTTP, signed with its keys.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::oidc::{
    ExpectedClaims, IdentityProvider, InvalidIdToken, KeySet, OidcConfig, base64url,
};
use backburn::service::LoginDesk;
use backburn::store::{Role, Store, TokenOrigin};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::api::{TestController, TestToken};
use support::identity_provider::{SigningPair, TestProvider, claims};

fn with(mut claims: Value, key: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
        value => claims[key] = value,
    }
    claims
}

#[test]
fn id_token_is_valid_only_if_everything_is_right() {
    const ISSUER: &str = "https://id.example.org";
    let (rsa, ec, foreign) = (SigningPair::rsa(), SigningPair::ec(), SigningPair::ec());
    let keys = json!({"keys": [
        rsa.published("r1"), ec.published("e1"),
        with(rsa.published("enc"), "use", json!("enc")),
        {"kty": "oct", "kid": "o1", "k": "c2VjcmV0"}, {"kty": "unheard-of"},
    ]});
    let keys: KeySet = serde_json::from_value(keys).unwrap();
    let verify = |token: &str, nonce: Option<&str>| {
        let now = Timestamp::now();
        keys.verify(
            token,
            ExpectedClaims {
                issuer: ISSUER,
                client_id: "backburn",
                nonce,
                now,
            },
        )
    };
    let good = claims(ISSUER);
    for token in [rsa.token("r1", &good), ec.token("e1", &good)] {
        let verified = verify(&token, None).unwrap();
        assert_eq!(verified.text("email"), Some("ada@example.org"));
    }
    // Without an id, every key that fits is tried.
    let header = json!({"alg": "ES256"});
    assert!(verify(&ec.token_with(&header, &good), None).is_ok());
    let nonce = with(good.clone(), "nonce", json!("n-1"));
    assert!(verify(&rsa.token("r1", &nonce), Some("n-1")).is_ok());
    let list = with(
        with(good.clone(), "aud", json!(["other", "backburn"])),
        "azp",
        json!("backburn"),
    );
    assert!(verify(&rsa.token("r1", &list), None).is_ok());

    let now = Timestamp::now().as_second();
    for (key, value, why) in [
        ("iss", json!("https://evil.example.org"), "another issuer"),
        ("iss", json!("https://id.example.org/"), "another issuer"),
        ("aud", json!("other"), "another client"),
        (
            "aud",
            json!(["backburn", "other"]),
            "issued to another client",
        ),
        ("aud", Value::Null, "another client"),
        ("azp", json!("other"), "issued to another client"),
        ("exp", json!(now - 61), "expired"),
        ("exp", Value::Null, "when it expires"),
        ("exp", json!("2999"), "when it expires"),
        ("nbf", json!(now + 600), "not valid yet"),
        ("iat", json!(now + 600), "not valid yet"),
        ("iat", json!(now - 7200), "too long ago"),
        ("iat", Value::Null, "when it was issued"),
        ("sub", json!(""), "who it is about"),
    ] {
        let token = rsa.token("r1", &with(good.clone(), key, value.clone()));
        let refused = verify(&token, None).unwrap_err().to_string();
        assert!(refused.contains(why), "{key} {value}: {refused}");
    }
    for other in [Value::Null, json!("n-2")] {
        let token = rsa.token("r1", &with(good.clone(), "nonce", other));
        let refused = verify(&token, Some("n-1")).unwrap_err().to_string();
        assert!(refused.contains("another request"), "{refused}");
    }

    // Signatures: a changed token, a foreign key, none at all, and a public key misused as a secret.
    let token = rsa.token("r1", &good);
    let parts: Vec<&str> = token.split('.').collect();
    let forged = base64url(
        with(good.clone(), "groups", json!(["admins"]))
            .to_string()
            .as_bytes(),
    );
    let none = |algorithm: &str| base64url(json!({"alg": algorithm}).to_string().as_bytes());
    let head = base64url(json!({"alg": "HS256", "kid": "r1"}).to_string().as_bytes());
    let body = format!("{head}.{}", parts[1]);
    let secret = ring::hmac::Key::new(
        ring::hmac::HMAC_SHA256,
        rsa.published("r1")["n"].as_str().unwrap().as_bytes(),
    );
    let confused = base64url(ring::hmac::sign(&secret, body.as_bytes()).as_ref());
    let reverse = json!({"alg": "RS256", "kid": "e1"});
    for (token, why) in [
        (format!("{}.{forged}.{}", parts[0], parts[2]), "signature"),
        (foreign.token("e1", &good), "signature"),
        (format!("{}.{}.", none("none"), parts[1]), "`none`"),
        (
            format!("{}.{}.{}", none("None"), parts[1], parts[2]),
            "`None`",
        ),
        (format!("{body}.{confused}"), "`HS256`"),
        (rsa.token("enc", &good), "does not publish"),
        (ec.token_with(&reverse, &good), "does not publish"),
        (rsa.token("new", &good), "does not publish"),
        (
            rsa.token_with(
                &json!({"alg": "RS256", "kid": "r1", "crit": ["b64"]}),
                &good,
            ),
            "critical",
        ),
        (format!("{}.{}", parts[0], parts[1]), "three parts"),
        (format!("{token}="), "base64url"),
        (format!("{}.{}.", parts[0], parts[1]), "signature"),
        ("x".repeat(100_000), "too long"),
    ] {
        let refused = verify(&token, None).unwrap_err();
        assert!(refused.to_string().contains(why), "{why}: {refused}");
    }
    assert_eq!(
        verify(&rsa.token("new", &good), None).unwrap_err(),
        InvalidIdToken::UnknownKey
    );
}

/// A controller that lets people log in with this provider.
fn controller(provider: &TestProvider) -> TestController {
    let controller = TestController::new();
    let config: OidcConfig = serde_json::from_value(json!({
        "issuer": provider.issuer, "client-id": "backburn", "session": "2h",
        "redirect-uris": ["https://page.example.org/back"],
        "groups": {"payments-devs": {"role": "operator", "teams": ["payments"]}},
    }))
    .unwrap();
    let desk = LoginDesk::new(IdentityProvider::new(config).unwrap());
    controller.service.set_login_desk(desk);
    controller
}

/// Asks without a token that anybody knows.
async fn ask(controller: &TestController, path: &str, body: Option<Value>) -> (u16, Value) {
    let none = TestToken {
        id: String::new(),
        text: String::new(),
    };
    controller.ask("POST", path, &none, body).await
}

async fn begin(controller: &TestController) -> String {
    let (status, begun) = ask(controller, "/api/v1/login/device", None).await;
    assert_eq!(status, 201, "{begun}");
    assert_eq!(begun["user-code"], "WDJB-MJHT");
    assert!(!begun.to_string().contains("secret-device-code"), "{begun}");
    format!("/api/v1/login/device/{}", begun["login"].as_str().unwrap())
}

/// Polls until the provider has been asked.
async fn poll(controller: &TestController, path: &str) -> (u16, Value) {
    for _ in 0..100 {
        let (status, result) = ask(controller, path, None).await;
        if status != 200 || !result["token"].is_null() {
            return (status, result);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("nobody is logged in");
}

#[tokio::test(flavor = "multi_thread")]
async fn device_login_gives_the_person_the_rights_of_their_groups() {
    let (provider, key) = (TestProvider::new(), SigningPair::rsa());
    provider.publish(vec![key.published("k1")]);
    let controller = controller(&provider);
    let path = begin(&controller).await;
    let (status, result) = ask(&controller, &path, None).await;
    assert_eq!((status, &result["token"]), (200, &Value::Null));
    provider.answer(json!({"id_token": key.token("k1", &claims(&provider.issuer))}));
    let (status, result) = poll(&controller, &path).await;
    assert_eq!(status, 200, "{result}");
    assert!(
        provider
            .last("/token")
            .contains("device_code=secret-device-code")
    );
    let made = &result["token"];
    assert_eq!(made["person"], "ada@example.org");
    assert_eq!(
        (&made["role"], &made["teams"]),
        (&json!("operator"), &json!(["payments"]))
    );
    let id = made["id"].as_str().unwrap().to_owned();
    let kept = controller.store.api_token(&id).unwrap();
    assert_eq!(kept.origin, TokenOrigin::Login);
    let lasts = kept.created.duration_until(kept.expires.unwrap());
    assert_eq!(lasts.as_hours(), 2);
    let token = TestToken {
        id: id.clone(),
        text: made["token"].as_str().unwrap().into(),
    };
    assert_eq!(
        controller.ask("GET", "/api/v1/runs", &token, None).await.0,
        200
    );
    assert_eq!(
        controller
            .ask("GET", "/api/v1/tokens", &token, None)
            .await
            .0,
        403
    );
    let entry = &controller.audited("login")[0];
    assert_eq!(
        (&entry["who"], &entry["about"]),
        (&json!("ada@example.org"), &json!(id))
    );
    assert_eq!(entry["detail"]["groups"], json!(["payments-devs"]));
    // Once.
    assert_eq!(ask(&controller, &path, None).await.0, 404);

    assert_eq!(
        controller
            .ask("DELETE", "/api/v1/login", &token, None)
            .await
            .0,
        204
    );
    assert_eq!(
        controller.ask("GET", "/api/v1/runs", &token, None).await.0,
        401
    );
    let admin = controller.token("admin", Role::Admin);
    assert_eq!(
        controller
            .ask("DELETE", "/api/v1/login", &admin, None)
            .await
            .0,
        409
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn device_login_ends_without_a_token_if_anything_is_wrong() {
    let (provider, key) = (TestProvider::new(), SigningPair::ec());
    provider.publish(vec![key.published("k1")]);
    let controller = controller(&provider);
    let good = claims(&provider.issuer);
    for (answer, why) in [
        (json!({"error": "access_denied"}), "declined"),
        (json!({"error": "expired_token"}), "expired"),
        (
            json!({"access_token": "x"}),
            "did not answer with an ID token",
        ),
        (
            json!({"id_token": SigningPair::ec().token("k1", &good)}),
            "signature",
        ),
        (
            json!({"id_token": key.token("k1", &with(good.clone(), "aud", json!("other")))}),
            "another client",
        ),
        (
            json!({"id_token": key.token("k1", &with(good.clone(), "groups", json!(["cooks"])))}),
            "in no group",
        ),
        (
            json!({"id_token": key.token("k1", &with(good.clone(), "email_verified", json!(false)))}),
            "not verified",
        ),
    ] {
        let path = begin(&controller).await;
        provider.answer(answer.clone());
        let (status, problem) = poll(&controller, &path).await;
        assert!(status == 403 || status == 503, "{status} {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(why),
            "{why}: {problem}"
        );
    }
    assert_eq!(controller.store.api_tokens().unwrap().len(), 0);
    let refused = controller.audited("login");
    assert!(
        refused.len() == 2 && refused.iter().all(|entry| entry["outcome"] == "refused"),
        "{refused:?}"
    );
    // A controller without a provider has no log-in.
    assert_eq!(
        ask(&TestController::new(), "/api/v1/login/device", None)
            .await
            .0,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_key_is_read_again_and_made_up_ones_are_not_for_ever() {
    let (provider, before, after) = (TestProvider::new(), SigningPair::rsa(), SigningPair::ec());
    provider.publish(vec![before.published("k1")]);
    let controller = controller(&provider);
    let good = claims(&provider.issuer);
    for (key, kid) in [(&before, "k1"), (&after, "k2"), (&after, "k2")] {
        let path = begin(&controller).await;
        provider.publish(vec![key.published(kid)]);
        provider.answer(json!({"id_token": key.token(kid, &good)}));
        assert_eq!(poll(&controller, &path).await.0, 200, "{kid}");
    }
    assert_eq!(provider.count("/keys"), 2, "at first, and for the new key");
    for number in 0..10 {
        let path = begin(&controller).await;
        provider.answer(json!({"id_token": after.token(&format!("made-up-{number}"), &good)}));
        assert_eq!(poll(&controller, &path).await.0, 403);
    }
    assert!(provider.count("/keys") <= 6, "{}", provider.count("/keys"));
}

#[tokio::test(flavor = "multi_thread")]
async fn page_login_is_bound_to_its_browser() {
    let (provider, key) = (TestProvider::new(), SigningPair::rsa());
    provider.publish(vec![key.published("k1")]);
    let controller = controller(&provider);
    let page = |uri: &str| Some(json!({"redirect-uri": uri}));
    let (status, _) = ask(
        &controller,
        "/api/v1/login/page",
        page("https://evil.example.org/"),
    )
    .await;
    assert_eq!(status, 400);
    let begin = async || {
        let (status, begun) = ask(
            &controller,
            "/api/v1/login/page",
            page("https://page.example.org/back"),
        )
        .await;
        assert_eq!(status, 201, "{begun}");
        let url = begun["url"].as_str().unwrap().to_owned();
        let part = |name: &str| {
            let mut parts = url.split(['?', '&']);
            parts
                .find_map(|part| part.strip_prefix(&format!("{name}=")))
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            part("redirect_uri"),
            "https%3A%2F%2Fpage.example.org%2Fback"
        );
        assert_eq!(part("code_challenge_method"), "S256");
        assert_eq!(part("state"), begun["state"].as_str().unwrap());
        (part("state"), part("nonce"), part("code_challenge"))
    };
    let finish = async |state: &str| {
        ask(
            &controller,
            "/api/v1/login/code",
            Some(json!({"state": state, "code": "c-1"})),
        )
        .await
    };
    let (state, nonce, challenge) = begin().await;
    let good = with(claims(&provider.issuer), "nonce", json!(nonce));
    provider.answer(json!({"id_token": key.token("k1", &good)}));
    assert_eq!(finish("made-up").await.0, 404);
    let (status, made) = finish(&state).await;
    assert_eq!(
        (status, &made["person"]),
        (200, &json!("ada@example.org")),
        "{made}"
    );
    // The verifier that the provider gets is the one of the challenge (RFC 7636).
    let form = provider.last("/token");
    let verifier = form
        .split('&')
        .find_map(|part| part.strip_prefix("code_verifier="))
        .unwrap();
    assert_eq!(base64url(&Sha256::digest(verifier.as_bytes())), challenge);
    assert!(verifier.len() >= 43, "{verifier}");
    assert_eq!(finish(&state).await.0, 404, "once");
    // The token of another browser's log-in.
    let (state, _, _) = begin().await;
    provider.answer(json!({"id_token": key.token("k1", &good)}));
    let (status, problem) = finish(&state).await;
    assert_eq!(status, 403);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("another request"),
        "{problem}"
    );
}
