//! TLS by configuration, with a real registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln_registry::{Client, Error, HostConfig, KeyPair, RegistryConfig, TlsError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as Key};
use tempfile::TempDir;

use crate::support::{Debian, Keys, Reply, Scripted, layer};

const SERVER: &str = "  tls:\n    certificate: $DIR/server.cert\n    key: $DIR/server.key\n";

/// A directory with an authority (`ca.crt`) and certificates of its making.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, Key>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let key = Key::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Writes `<name>.cert` and `<name>.key` into `directory`.
    fn issue(&self, directory: &Path, name: &str) {
        let key = Key::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(directory.join(format!("{name}.cert")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn configured(host: &str, table: HostConfig) -> Client {
    let hosts = BTreeMap::from([(host.to_owned(), table)]);
    Client::new(RegistryConfig { hosts, ..RegistryConfig::default() })
}

async fn push(client: &Client, image: &kiln_registry::ImageRef) -> Result<(), Error> {
    let outcome = client.push_blob(image, &layer(b"x"), || async { Ok(&b"x"[..]) }).await;
    outcome.map(|_| ())
}

#[tokio::test]
async fn a_registry_is_verified_with_the_configured_authority() {
    let authority = Authority::new("the one");
    let registry = Debian::prepared(SERVER, |directory| authority.issue(directory, "server"));
    let (host, image) = (registry.host(), registry.image("x"));

    let table = HostConfig { http: Some(false), ..HostConfig::default() };
    let error = push(&configured(host, table.clone()), &image).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    let file = HostConfig { ca: vec![authority.path().join("ca.crt")], ..table.clone() };
    push(&configured(host, file), &image).await.unwrap();
    let directory = HostConfig { tlsconfigdir: vec![authority.path().to_owned()], ..table.clone() };
    push(&configured(host, directory), &image).await.unwrap();
    let insecure = HostConfig { insecure: Some(true), ..table };
    push(&configured(host, insecure), &image).await.unwrap();
    let handle = Client::new(RegistryConfig::default()).with_insecure(host);
    push(&handle, &image).await.unwrap();
}

#[tokio::test]
async fn a_registry_gets_the_client_certificate_that_it_asks_for() {
    let authority = Authority::new("the one");
    let other = Authority::new("another");
    let clients = format!("{SERVER}    clientcas: [\"{}/ca.crt\"]\n", authority.path().display());
    let registry = Debian::prepared(&clients, |directory| authority.issue(directory, "server"));
    let (host, image) = (registry.host(), registry.image("x"));
    authority.issue(authority.path(), "client");
    other.issue(other.path(), "client");
    let pair = |authority: &Authority| KeyPair {
        key: authority.path().join("client.key"),
        cert: authority.path().join("client.cert"),
    };

    let table = HostConfig {
        http: Some(false),
        ca: vec![authority.path().join("ca.crt")],
        ..HostConfig::default()
    };
    let error = push(&configured(host, table.clone()), &image).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    let keypair = vec![pair(&other), pair(&authority)];
    push(&configured(host, HostConfig { keypair, ..table.clone() }), &image).await.unwrap();
    let directory = HostConfig { tlsconfigdir: vec![authority.path().to_owned()], ..table };
    push(&configured(host, directory), &image).await.unwrap();
}

#[tokio::test]
async fn an_insecure_registry_without_tls_is_spoken_to_in_plain() {
    let registry = Debian::start();
    let handle = Client::new(RegistryConfig::default()).with_insecure(registry.host());
    push(&handle, &registry.image("x")).await.unwrap();
}

#[tokio::test]
async fn a_verified_registry_never_falls_back_to_plain() {
    let registry = Debian::start();
    let table = HostConfig { http: Some(false), ..HostConfig::default() };
    let error = push(&configured(registry.host(), table), &registry.image("x")).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
}

#[tokio::test]
async fn credentials_are_not_sent_in_the_clear_because_a_registry_says_so() {
    let tokens = Scripted::start(|_, _| Reply::ok("{}")).await;
    let authority = Authority::new("the one");
    let auth = format!(
        "{SERVER}auth:\n  token:\n    realm: http://{}/token\n    service: x\n    issuer: x\n    \
         rootcertbundle: {}/ca.crt\n",
        tokens.host(),
        authority.path().display(),
    );
    let registry = Debian::prepared(&auth, |directory| authority.issue(directory, "server"));
    let table = HostConfig {
        http: Some(false),
        ca: vec![authority.path().join("ca.crt")],
        ..HostConfig::default()
    };
    let client = configured(registry.host(), table).with_auth(Keys::of("me", "hunter2"));
    let error = push(&client, &registry.image("x")).await.unwrap_err();
    assert!(error.to_string().ends_with("credentials are not sent there"), "{error}");
    assert!(tokens.requests().is_empty());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let directory = TempDir::new().unwrap();
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let missing = directory.path().join("missing.pem");
    let image = "example.com/x".parse().unwrap();
    let table = |ca: &Path| HostConfig { ca: vec![ca.to_owned()], ..HostConfig::default() };

    let error = push(&configured("example.com", table(&empty)), &image).await.unwrap_err();
    let expected = format!("registry example.com: {}: no certificate in it", empty.display());
    assert_eq!(error.to_string(), expected);
    let error = push(&configured("example.com", table(&missing)), &image).await.unwrap_err();
    assert!(
        matches!(&error, Error::Tls { source: TlsError::Read { path, .. }, .. } if *path == missing),
        "{error}"
    );
}
