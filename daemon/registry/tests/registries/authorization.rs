//! Challenges, tokens and where credentials may go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kiln_registry::{Client, Error, Token};

use crate::support::{Debian, Keys, Reply, Request, Scripted, client, layer};

const MANIFEST: &str = r#"{"schemaVersion":2}"#;

fn manifest() -> Reply {
    Reply::ok(MANIFEST).header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
}

fn challenge(request: &Request, more: &str) -> Reply {
    let host = request.header("host").unwrap();
    let value = format!(
        "Bearer realm=\"http://{host}/token?account=x\",service=\"tests\",\
         scope=\"repository:x:pull\"{more}"
    );
    Reply::new(401).body("").header("WWW-Authenticate", value)
}

/// A registry that wants a token, and its token server. `token` answers the latter.
async fn guarded(
    token: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    is_good: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Scripted {
    let fetched = AtomicUsize::new(0);
    Scripted::start(move |request, _| {
        if request.target.starts_with("/token") {
            return token(request, fetched.fetch_add(1, Ordering::Relaxed));
        }
        match request.header("authorization") {
            Some(header) if is_good(header) => manifest(),
            Some(_) => challenge(request, ",error=\"invalid_token\""),
            None => challenge(request, ""),
        }
    })
    .await
}

fn token_requests(server: &Scripted) -> Vec<Request> {
    let requests = server.requests().into_iter();
    requests.filter(|request| request.target.starts_with("/token")).collect()
}

#[tokio::test]
async fn a_token_for_nobody_is_fetched_once_and_used_again() {
    let server = guarded(
        |_, _| Reply::ok(r#"{"token":"open","expires_in":300}"#),
        |header| header == "Bearer open",
    )
    .await;
    let client = client();
    client.resolve(&server.image("x")).await.unwrap();
    client.resolve(&server.image("x:other")).await.unwrap();
    assert_eq!(
        server.log(),
        [
            "GET /v2/x/manifests/latest",
            "GET /token?account=x&service=tests&scope=repository%3Ax%3Apull",
            "GET /v2/x/manifests/latest",
            "GET /v2/x/manifests/other",
        ]
    );
}

#[tokio::test]
async fn requests_at_once_share_one_token() {
    let server =
        guarded(|_, _| Reply::ok(r#"{"token":"open"}"#), |header| header == "Bearer open").await;
    let client = client();
    let image = server.image("x");
    let all = (0..8).map(|_| client.resolve(&image));
    futures::future::try_join_all(all).await.unwrap();
    assert_eq!(token_requests(&server).len(), 1);
}

#[tokio::test]
async fn a_password_is_sent_to_the_token_server_only() {
    let server =
        guarded(|_, _| Reply::ok(r#"{"access_token":"mine"}"#), |header| header == "Bearer mine")
            .await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    client.resolve(&server.image("x")).await.unwrap();
    // base64 of me:hunter2
    for request in server.requests() {
        let is_password = request.header("authorization") == Some("Basic bWU6aHVudGVyMg==");
        assert_eq!(is_password, request.target.starts_with("/token"), "{request:?}");
    }
}

#[tokio::test]
async fn a_token_server_that_wants_a_form_gets_one() {
    let answer = |request: &Request, _| match request.method.as_str() {
        "GET" => Reply::new(405).body(""),
        _ => Reply::ok(r#"{"access_token":"mine"}"#),
    };
    let server = guarded(answer, |header| header == "Bearer mine").await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    client.resolve(&server.image("x")).await.unwrap();
    let form = String::from_utf8(token_requests(&server)[1].body.clone()).unwrap();
    assert_eq!(
        form,
        "service=tests&client_id=kiln&scope=repository%3Ax%3Apull&grant_type=password&\
         username=me&password=hunter2"
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_a_form() {
    let server =
        guarded(|_, _| Reply::ok(r#"{"access_token":"mine"}"#), |header| header == "Bearer mine")
            .await;
    let client = client().with_auth(Keys::of("", "identity"));
    client.resolve(&server.image("x")).await.unwrap();
    let [exchange] = &token_requests(&server)[..] else { panic!("one exchange") };
    assert_eq!(exchange.method, "POST");
    let form = String::from_utf8(exchange.body.clone()).unwrap();
    assert!(form.ends_with("grant_type=refresh_token&refresh_token=identity"), "{form}");
}

#[tokio::test]
async fn a_token_from_the_authenticator_goes_before_its_credentials() {
    let server = guarded(|_, _| Reply::new(500).body(""), |header| header == "Bearer held").await;
    let expires_in = Some(Duration::from_mins(1));
    let keys = Arc::new(Keys {
        token: Some(Token { value: "held".to_owned(), expires_in }),
        ..Keys::default()
    });
    let client = client().with_auth(Arc::<Keys>::clone(&keys));
    client.resolve(&server.image("x")).await.unwrap();
    assert!(token_requests(&server).is_empty());
    let [asked] = &keys.asked.lock()[..] else { panic!("asked once") };
    assert_eq!(asked.host, server.host());
    assert_eq!(asked.realm, format!("http://{}/token?account=x", server.host()));
    assert_eq!(asked.service, "tests");
    assert_eq!(asked.scopes, ["repository:x:pull"]);
}

#[tokio::test]
async fn pushing_asks_for_a_token_that_may_push() {
    let server = Scripted::start(|request, _| {
        if request.target.starts_with("/token") {
            return Reply::ok(r#"{"token":"open"}"#);
        }
        match request.header("authorization") {
            Some(_) => Reply::new(200),
            None => challenge(request, ""),
        }
    })
    .await;
    let source = || async { Ok(&b"x"[..]) };
    client().push_blob(&server.image("x"), &layer(b"x"), source).await.unwrap();
    let token = &token_requests(&server)[0].target;
    assert!(token.ends_with("scope=repository%3Ax%3Apull%2Cpush"), "{token}");
}

#[tokio::test]
async fn tokens_are_not_shared_between_users() {
    let server = guarded(
        |_, count| Reply::ok(format!("{{\"token\":\"t{count}\"}}")),
        |header| header.starts_with("Bearer t"),
    )
    .await;
    let shared = client();
    let image = server.image("x");
    shared.with_auth(Keys::of("a", "a")).resolve(&image).await.unwrap();
    shared.with_auth(Keys::of("b", "b")).resolve(&image).await.unwrap();
    assert_eq!(token_requests(&server).len(), 2);
}

#[tokio::test]
async fn a_token_that_became_invalid_is_replaced() {
    let server = Scripted::start(|request, count| match (request.target.as_str(), count) {
        (target, _) if target.starts_with("/token") => {
            Reply::ok(format!("{{\"token\":\"t{count}\",\"expires_in\":300}}"))
        }
        // The first token is revoked after its first use.
        (_, 2) => manifest(),
        _ if request.header("authorization") == Some("Bearer t4") => manifest(),
        _ => challenge(request, ",error=\"invalid_token\""),
    })
    .await;
    let client = client();
    client.resolve(&server.image("x")).await.unwrap();
    client.resolve(&server.image("x")).await.unwrap();
    assert_eq!(token_requests(&server).len(), 2);
}

#[tokio::test]
async fn a_refusal_is_told_as_users_know_it() {
    let server = Scripted::start(|request, _| {
        if request.target.starts_with("/token") {
            Reply::ok(r#"{"token":"weak"}"#)
        } else if request.header("authorization").is_some() {
            challenge(request, ",error=\"insufficient_scope\"")
        } else {
            challenge(request, "")
        }
    })
    .await;
    let image = server.image("x");
    let error = client().resolve(&image).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{image}: pull access denied, repository does not exist or may require \
             authorization: insufficient_scope"
        )
    );
    assert_eq!(token_requests(&server).len(), 1);
}

#[tokio::test]
async fn a_token_server_that_refuses_is_quoted() {
    let server = guarded(
        |_, _| Reply::new(401).body(r#"{"errors":[{"message":"incorrect username or password"}]}"#),
        |_| false,
    )
    .await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    let error = client.resolve(&server.image("x")).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Unauthorized { .. }), "{message}");
    let end = format!("incorrect username or password (from http://{}/token)", server.host());
    assert!(message.ends_with(&end), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn challenges_that_make_no_sense_end() {
    let challenges = [
        "Bearer",
        "Bearer realm=\"\"",
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer realm=\"not an address\"",
        "Negotiate",
        "Basic realm=\"x\"",
    ];
    for value in challenges {
        let server =
            Scripted::start(move |_, _| Reply::new(401).body("").header("WWW-Authenticate", value))
                .await;
        let error = client().resolve(&server.image("x")).await.unwrap_err();
        let is_told = matches!(error, Error::Unauthorized { .. } | Error::Malformed { .. });
        assert!(is_told, "{value:?}: {error}");
        assert_eq!(server.log().len(), 1, "{value:?}");
    }
}

#[tokio::test]
async fn a_real_registry_accepts_user_and_password() {
    let registry = Debian::prepared(
        "auth:\n  htpasswd:\n    realm: tests\n    path: $DIR/htpasswd",
        |directory| {
            // bcrypt of hunter2
            let line = "me:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";
            std::fs::write(directory.join("htpasswd"), line).unwrap();
        },
    );
    let image = registry.image("x");
    let push = async |client: Client| {
        client.push_blob(&image, &layer(b"x"), || async { Ok(&b"x"[..]) }).await
    };
    push(client().with_auth(Keys::of("me", "hunter2"))).await.unwrap();
    for refused in [client(), client().with_auth(Keys::of("me", "wrong"))] {
        let error = push(refused).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains("push access denied"), "{error}");
    }
}

#[tokio::test]
async fn who_may_write_but_not_read_can_push() {
    let server = Scripted::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(403),
        "POST" => Reply::new(202).body("").header("Location", "/upload"),
        _ => Reply::new(201).body(""),
    })
    .await;
    let source = || async { Ok(&b"x"[..]) };
    client().push_blob(&server.image("x"), &layer(b"x"), source).await.unwrap();
}

#[tokio::test]
async fn a_refused_push_has_the_words_of_the_registry() {
    let server = Scripted::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(403),
        _ => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#),
    })
    .await;
    let (image, blob) = (server.image("x"), layer(b"x"));
    let error = client().push_blob(&image, &blob, || async { Ok(&b"x"[..]) }).await.unwrap_err();
    let expected = format!(
        "{}@{}: push denied by the registry: denied: not yours",
        image.name(),
        blob.digest()
    );
    assert_eq!(error.to_string(), expected);
}
