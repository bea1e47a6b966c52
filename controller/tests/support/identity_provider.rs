//! An identity provider of the test's own: a few answers over HTTP, signed with its keys.

use backburn::oidc::base64url;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// A key of the provider.
pub enum SigningPair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl SigningPair {
    pub fn rsa() -> Self {
        let key = include_bytes!("../fixtures/oidc-rsa-key.der");
        SigningPair::Rsa(RsaKeyPair::from_pkcs8(key).unwrap())
    }

    pub fn ec() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random);
        SigningPair::Ec(key.unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            SigningPair::Rsa(_) => "RS256",
            SigningPair::Ec(_) => "ES256",
        }
    }

    pub fn published(&self, kid: &str) -> Value {
        match self {
            SigningPair::Rsa(key) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
                       "n": base64url(&public.n), "e": base64url(&public.e)})
            }
            SigningPair::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "kid": kid, "crv": "P-256",
                       "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
            }
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            SigningPair::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            SigningPair::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    pub fn token(&self, kid: &str, claims: &Value) -> String {
        self.token_with(
            &json!({"alg": self.algorithm(), "kid": kid, "typ": "JWT"}),
            claims,
        )
    }

    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", base64url(&signature))
    }
}

/// Claims that are right in every way.
pub fn claims(issuer: &str) -> Value {
    let now = Timestamp::now().as_second();
    json!({
        "iss": issuer, "aud": "backburn", "sub": "u-7", "iat": now, "exp": now + 300,
        "email": "ada@example.org", "email_verified": true, "groups": ["payments-devs"],
    })
}

/// What the provider of a test answers next.
#[derive(Default)]
pub struct Answers {
    /// The keys that it publishes.
    pub keys: Vec<Value>,
    /// The answer to whoever asks for a token; none while the person has not logged in.
    pub token: Option<Value>,
    /// The forms that it was sent.
    pub asked: Vec<(String, String)>,
}

pub struct TestProvider {
    pub issuer: String,
    pub answers: Arc<Mutex<Answers>>,
}

impl TestProvider {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<Answers>> = Arc::default();
        let (own, shared) = (issuer.clone(), Arc::clone(&answers));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = Vec::new();
                while head
                    .last()
                    .is_none_or(|line: &String| !line.trim().is_empty())
                {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(line);
                }
                let length = head.iter().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse().ok())?
                });
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body).unwrap();
                let path = head
                    .first()
                    .and_then(|line| line.split(' ').nth(1))
                    .unwrap_or_default()
                    .to_owned();
                let mut answers = shared.lock().unwrap();
                answers
                    .asked
                    .push((path.clone(), String::from_utf8(body).unwrap()));
                let pending = json!({"error": "authorization_pending"});
                let (status, answer) = match path.as_str() {
                    "/.well-known/openid-configuration" => (
                        200,
                        json!({
                            "issuer": own, "authorization_endpoint": format!("{own}/authorize"),
                            "token_endpoint": format!("{own}/token"), "jwks_uri": format!("{own}/keys"),
                            "device_authorization_endpoint": format!("{own}/device"),
                        }),
                    ),
                    "/keys" => (200, json!({"keys": answers.keys})),
                    "/device" => (
                        200,
                        json!({
                            "device_code": "secret-device-code", "user_code": "WDJB-MJHT",
                            "verification_uri": format!("{own}/enter"), "expires_in": 600, "interval": 0,
                        }),
                    ),
                    "/token" => match answers.token.take() {
                        None => (400, pending),
                        Some(answer) if answer.get("error").is_some() => (400, answer),
                        Some(answer) => (200, answer),
                    },
                    _ => (404, json!({})),
                };
                let answer = answer.to_string();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
                    answer.len()
                )
                .unwrap();
            }
        });
        TestProvider { issuer, answers }
    }

    pub fn answer(&self, token: Value) {
        self.answers.lock().unwrap().token = Some(token);
    }

    pub fn publish(&self, keys: Vec<Value>) {
        self.answers.lock().unwrap().keys = keys;
    }

    /// The last form that was sent to this path.
    pub fn last(&self, path: &str) -> String {
        let answers = self.answers.lock().unwrap();
        let last = answers.asked.iter().rev().find(|(to, _)| to == path);
        last.unwrap().1.clone()
    }

    pub fn count(&self, path: &str) -> usize {
        let answers = self.answers.lock().unwrap();
        answers.asked.iter().filter(|(to, _)| to == path).count()
    }
}
