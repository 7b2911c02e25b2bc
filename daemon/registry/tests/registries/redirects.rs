//! Where credentials go when a registry sends its clients elsewhere.

use kiln_registry::Error;

use crate::support::{Keys, Reply, Scripted, client, layer};

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_authorization() {
    let storage = Scripted::start(|_, _| Reply::ok("content")).await;
    let target = format!("http://{}/signed?secret=1", storage.host());
    let server = Scripted::start(move |request, _| match request.header("authorization") {
        None => Reply::new(401).body("").header("WWW-Authenticate", "Basic"),
        Some(_) => Reply::new(307).body("").header("Location", target.as_str()),
    })
    .await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    let blob = layer(b"content");
    client.blob(&server.image("x"), &blob, 0).await.unwrap();
    let [redirected] = &storage.requests()[..] else { panic!("one request") };
    assert_eq!(redirected.target, "/signed?secret=1");
    assert_eq!(redirected.header("authorization"), None);
    assert_eq!(redirected.header("referer"), None);
}

#[tokio::test]
async fn a_redirect_within_the_host_stays_authorized() {
    let server = Scripted::start(|request, _| {
        match (request.header("authorization"), request.target.as_str()) {
            (None, _) => Reply::new(401).body("").header("WWW-Authenticate", "Basic"),
            (Some(_), "/elsewhere") => Reply::ok("content"),
            (Some(_), _) => Reply::new(302).body("").header("Location", "/elsewhere"),
        }
    })
    .await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    client.blob(&server.image("x"), &layer(b"content"), 0).await.unwrap();
}

#[tokio::test]
async fn the_challenge_of_a_redirect_target_is_not_answered() {
    let storage =
        Scripted::start(|_, _| Reply::new(401).body("").header("WWW-Authenticate", "Basic")).await;
    let target = format!("http://{}/x", storage.host());
    let server =
        Scripted::start(move |_, _| Reply::new(307).body("").header("Location", target.as_str()))
            .await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    let outcome = client.blob(&server.image("x"), &layer(b"content"), 0).await;
    assert!(matches!(outcome, Err(Error::Unauthorized { .. })));
    assert_eq!(storage.requests().len(), 1);
}

#[tokio::test]
async fn an_upload_to_another_host_carries_no_authorization() {
    let storage = Scripted::start(|_, _| Reply::new(201).body("")).await;
    let target = format!("http://{}/upload?state=1", storage.host());
    let server = Scripted::start(move |request, _| {
        if request.header("authorization").is_none() {
            return Reply::new(401).body("").header("WWW-Authenticate", "Basic");
        }
        match request.method.as_str() {
            "HEAD" => Reply::new(404),
            _ => Reply::new(202).body("").header("Location", target.as_str()),
        }
    })
    .await;
    let client = client().with_auth(Keys::of("me", "hunter2"));
    let blob = layer(b"content");
    client.push_blob(&server.image("x"), &blob, || async { Ok(&b"content"[..]) }).await.unwrap();
    let [upload] = &storage.requests()[..] else { panic!("one request") };
    let digest = blob.digest().to_string().replace(':', "%3A");
    assert_eq!(upload.target, format!("/upload?state=1&digest={digest}"));
    assert_eq!(upload.body, b"content");
    assert_eq!(upload.header("authorization"), None);
}
